// SPDX-License-Identifier: MIT OR Apache-2.0
//! Secondary controllers on either side of a migration: which one is meant, what it gets, and whether what was brought online
//! is what the guest will drive. Opening or leaving a primary controller takes all its secondary ones offline.

use nvme_core::admin::AdminSlot;
use nvme_core::controller::{EnableOptions, Fault, Link};
use nvme_core::wire::identify::{Capability, ControllerIdentity, SecondaryController};
use nvme_core::wire::{AdminOpcode, ControllerId};

use super::RunError;
use super::bench::{Limits, Party};
use super::controllers::{Found, ask, find as find_device, input};
use crate::address::Address;
use crate::backend::{Devices, Registers};
use crate::config::{Between, MigrateConfig, Tracked};
use crate::driver::{Controller, DriverError, Kept, Waiter, bring_down_then, bring_up, identify_controller};
use crate::endpoint::BusMaster;
use crate::journal::Side;
use crate::memory::AddressSpace;
use crate::session::are_of_different_subsystems;
use crate::vfio::{Sysfs, VirtualFunction};
use crate::virtualization::{Resources, VirtualizationError, Which, bring_online, find};

/// Admin commands that can be outstanding at a controller that is only asked who it is.
const ADMIN_SLOTS: usize = 32;

/// What a controller of ours said of itself.
pub(super) type Answer = Result<Box<ControllerIdentity>, DriverError>;

/// Asks the controller that is migrated who it is, as long as no primary controller has taken it offline; not one that is
/// somebody else's or known by an identifier, or by its number as a virtual function of its managing one: one that is offline
/// would keep the memory that it was asked with.
pub(super) fn who(
    tracked: &Tracked,
    told: Option<ControllerId>,
    manager: &Address,
    devices: &Devices,
    limits: &Limits,
) -> Result<Option<Answer>, RunError> {
    let (Tracked::Ours(address), None) = (tracked, told) else { return Ok(None) };
    if let (Address::Vfio(function), Address::Vfio(physical)) = (address, manager)
        && let Ok(Some(found)) = Sysfs::default().virtual_function(*function)
        && found.physical == *physical
    {
        return Ok(None);
    }
    ask_who(devices, address, limits).map(Some)
}

/// Asks a controller who it is.
fn ask_who(devices: &Devices, address: &Address, limits: &Limits) -> Result<Answer, RunError> {
    match ask(find_device(devices, address)?, limits, |session| Ok(Box::new(session.identity().clone()))) {
        Ok(identity) => Ok(Ok(identity)),
        Err(RunError::Controller(_, error)) => Ok(Err(error)),
        Err(error) => Err(error),
    }
}

/// One side as it was asked for, and its managing controller.
pub(super) struct Asked<'a> {
    pub(super) side: Side,
    pub(super) tracked: &'a Tracked,
    /// Its identifier, where that was told.
    pub(super) told: Option<ControllerId>,
    /// It is to be brought online.
    pub(super) virtualization: bool,
    pub(super) manager: &'a Address,
    pub(super) found: &'a Found,
}

impl Asked<'_> {
    const fn option(&self) -> &'static str {
        match self.side {
            Side::Source => "--source-controller",
            Side::Destination => "--dest-controller",
        }
    }

    const fn manager_option(&self) -> &'static str {
        match self.side {
            Side::Source => "--source-manager",
            Side::Destination => "--dest-manager",
        }
    }

    /// Which secondary controller of the managing one the one at `address` certainly is; none if only it can tell, or if it is
    /// none.
    fn which(&self, address: &Address) -> Result<Option<Which>, RunError> {
        let told = self.told.map(Which::Id);
        let Address::Vfio(function) = address else { return Ok(told) };
        let virtual_function = Sysfs::default().virtual_function(*function);
        match virtual_function.map_err(|error| RunError::Open(error.into()))? {
            Some(VirtualFunction { physical, number }) if *self.manager == Address::Vfio(physical) => {
                let which = Which::VirtualFunction(number);
                match self.told {
                    Some(id)
                        if find(&self.found.secondaries, which).is_ok_and(|one| one.controller != id) =>
                    {
                        input(format!(
                            "{address} is virtual function {number} of {physical} and not controller {}; leave {} out",
                            id.get(),
                            self.option()
                        ))
                    }
                    _ => Ok(Some(which)),
                }
            }
            Some(VirtualFunction { physical, .. }) if self.virtualization => input(format!(
                "{function} is a virtual function of {physical}, not of {}; name that as {}",
                self.manager,
                self.manager_option()
            )),
            None if self.virtualization && told.is_none() => {
                input(format!("{function} is no virtual function; give {}", self.option()))
            }
            _ => Ok(told),
        }
    }

    /// Finds out which controller it is, and its entry if it is a secondary controller of its managing one.
    pub(super) fn identify(
        &self,
        answer: Option<Answer>,
        devices: &Devices,
        limits: &Limits,
    ) -> Result<(ControllerId, Option<SecondaryController>), RunError> {
        let (manager, list) = (self.manager, &self.found.secondaries);
        let address = match self.tracked {
            Tracked::Ours(address) => address,
            Tracked::Theirs(id) if find(list, Which::Id(*id)).is_ok() => {
                return input(format!(
                    "controller {} is a secondary controller of {manager} and goes offline whenever this program opens or \
                     leaves that; have it managed by a controller that is not its primary one",
                    id.get()
                ));
            }
            Tracked::Theirs(id) => return Ok((*id, None)),
        };
        if self.virtualization {
            let capability = Capability::Admin(AdminOpcode::VIRTUALIZATION_MANAGEMENT);
            self.found
                .identity
                .require(capability)
                .map_err(|error| RunError::Unsupported(self.manager.clone(), error.into()))?;
        }
        let which = self.which(address)?;
        let certain = match which.map(|which| find(list, which)) {
            Some(Ok(entry)) => Some(entry),
            // A virtual function of a controller that shows none is never offline, and can be asked.
            Some(Err(_)) if self.told.is_none() && !self.virtualization => None,
            Some(Err(error)) => return input(error.to_string()),
            None if self.virtualization => {
                return input(format!(
                    "--virtualization: which controller is missing; give {}",
                    self.option()
                ));
            }
            None => None,
        };
        if let Some(entry) = certain {
            return self.secondary(address, entry);
        }
        let answer = answer.map_or_else(|| ask_who(devices, address, limits), Ok)?;
        let said = match answer {
            Ok(said) => said,
            Err(error) if list.is_empty() => return Err(RunError::Controller(address.clone(), error)),
            Err(error) => return input(self.offline(address, error)),
        };
        if are_of_different_subsystems(&said, &self.found.identity) {
            return input(format!(
                "{address} is of subsystem {} and {manager}, which is to manage it, of {}; name two controllers of one subsystem",
                said.subsystem_name, self.found.identity.subsystem_name
            ));
        }
        match find(list, Which::Id(said.controller)) {
            Ok(entry) => self.secondary(address, entry),
            Err(_) => Ok((said.controller, None)),
        }
    }

    /// Refuses a secondary controller of the managing one that nobody brings online.
    fn secondary(
        &self,
        address: &Address,
        entry: SecondaryController,
    ) -> Result<(ControllerId, Option<SecondaryController>), RunError> {
        if self.side == Side::Destination && !self.virtualization {
            return input(format!(
                "{address}, controller {}, is a secondary controller of {}, which takes it offline whenever it is opened; have \
                 it brought online by --virtualization",
                entry.controller.get(),
                self.manager
            ));
        }
        Ok((entry.controller, Some(entry)))
    }

    /// What is said of a controller that does not answer, where it may be one that is offline.
    fn offline(&self, address: &Address, error: DriverError) -> String {
        let what = match error {
            DriverError::Fault(Fault::FatalStatus) => "is offline, or has failed".to_owned(),
            error => format!("does not answer ({error})"),
        };
        let brings = match self.side {
            Side::Source => "then it is brought online",
            Side::Destination => "and --virtualization, which brings it online",
        };
        format!(
            "{address} {what}: {} has secondary controllers ({}), which are offline once it was opened or left; if this is one \
             of them give its identifier by {}, {brings}",
            self.manager,
            identifiers(&self.found.secondaries),
            self.option()
        )
    }

    /// Refuses `id`, the controller of this side, if the managing controller of the other side is its primary one.
    pub(super) fn stays_online(&self, id: ControllerId, other: &Self) -> Result<(), RunError> {
        let (own, its) = (&self.found.identity, &other.found.identity);
        // In one subsystem two controllers have two identifiers.
        if are_of_different_subsystems(own, its) || own.controller == its.controller {
            return Ok(());
        }
        match find(&other.found.secondaries, Which::Id(id)) {
            Ok(_) => input(format!(
                "controller {} is a secondary controller of {} and goes offline whenever this program opens or leaves that; \
                 give another {}",
                id.get(),
                other.manager,
                other.manager_option()
            )),
            Err(_) => Ok(()),
        }
    }
}

/// A few identifiers of a list.
fn identifiers(list: &[SecondaryController]) -> String {
    const SHOWN: usize = 4;
    let mut text: Vec<String> =
        list.iter().take(SHOWN).map(|entry| entry.controller.get().to_string()).collect();
    if list.len() > SHOWN {
        text.push(format!("and {} more", list.len() - SHOWN));
    }
    text.join(", ")
}

/// What a controller is instead of controller `id` of the subsystem of `manager`; none if it is that.
fn differs(said: &ControllerIdentity, id: ControllerId, manager: &ControllerIdentity) -> Option<String> {
    if are_of_different_subsystems(said, manager) {
        return Some(format!("a controller of another subsystem ({})", said.subsystem_name));
    }
    (said.controller != id).then(|| format!("controller {}", said.controller.get()))
}

/// What a secondary controller at the source gets: what it has if it is still online, and as much as the guest uses in any case.
pub(super) fn resources(entry: &SecondaryController, config: &MigrateConfig) -> Resources {
    let queues = config.io_queues.saturating_add(1);
    if entry.online && entry.queues >= queues && entry.interrupts > 0 {
        Resources { queues: entry.queues, interrupts: entry.interrupts }
    } else {
        Resources { queues, interrupts: queues }
    }
}

/// Checks that the destination gets what the guest will use of it.
pub(super) fn check_resources(config: &MigrateConfig, between: &Between) -> Result<(), RunError> {
    let Some(Resources { queues, interrupts }) = between.virtualization else { return Ok(()) };
    if queues <= config.io_queues {
        return input(format!(
            "--virtual-queues {queues} is too few: the guest uses {} I/O queue pairs (--io-queues) and the admin queue pair",
            config.io_queues
        ));
    }
    if interrupts == 0 {
        return input("--virtual-interrupts 0 is too few: a controller without vectors cannot go online; give 1 or more".into());
    }
    Ok(())
}

/// Brings the controller of one side online, and checks that what the guest will drive is that. It reaches the guest's memory
/// afterwards if it is the source.
///
/// # Errors
/// [`RunError::Input`] if it is another one.
pub(super) fn bring_online_as(
    side: Side,
    primary: &mut Controller<'_, '_, Registers>,
    party: &Party,
    memory: &AddressSpace,
    resources: Resources,
    waiter: Waiter<'_>,
) -> Result<(), RunError> {
    let failed = |error| RunError::Virtualization(side, error);
    let (id, registers) = (party.controller, &party.registers);
    let manager = identify_controller(primary, waiter).map_err(RunError::Manager)?;
    bring_online(primary, id, registers, resources, waiter).map_err(failed)?;
    let can_reach =
        |can| registers.set_bus_master(can).map_err(|error| failed(VirtualizationError::Access(error)));
    can_reach(true)?;
    let said = identity(registers, memory, waiter);
    can_reach(side == Side::Source)?;
    let (address, option) = match side {
        Side::Source => ("--source", "--source-controller"),
        Side::Destination => ("--dest", "--dest-controller"),
    };
    let other = |what: String| {
        input(format!(
            "controller {} was brought online, but what is at {address} is {what}; give its identifier by {option}",
            id.get()
        ))
    };
    match said {
        Ok(said) => differs(&said, id, &manager).map_or(Ok(()), other),
        Err(DriverError::Fault(Fault::FatalStatus)) => {
            other("another controller, which is offline or has failed".into())
        }
        Err(error) => Err(failed(VirtualizationError::Secondary(error))),
    }
}

/// Asks the controller behind `registers` who it is.
fn identity(
    registers: &Registers,
    memory: &AddressSpace,
    waiter: Waiter<'_>,
) -> Result<ControllerIdentity, DriverError> {
    let link = Link::new();
    let mut slots: Vec<AdminSlot> = (0..ADMIN_SLOTS).map(|_| AdminSlot::new()).collect();
    let mut controller = bring_up(registers, memory, &link, &mut slots, &EnableOptions::default(), waiter)?;
    let said = identify_controller(&mut controller, waiter);
    let down = bring_down_then(controller, memory, Kept::default(), waiter, |_| {});
    let said = said?;
    down.map(|()| said)
}

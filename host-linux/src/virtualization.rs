// SPDX-License-Identifier: MIT OR Apache-2.0
//! Bringing a secondary controller online by its primary one. NVMe Base 2.1 §8.2.6, Virtualization Enhancements;
//! §5.2.6, Virtualization Management command.

use std::fmt;

use nvme_core::admin::AdminRequest;
use nvme_core::register::{Offset, RegisterIo};
use nvme_core::wire::ControllerId;
use nvme_core::wire::admin::{
    Identify, IdentifyStructure, VirtualizationAction, VirtualizationManagement, VirtualizationResource,
};
use nvme_core::wire::identify::{PrimaryControllerCapabilities, SecondaryController, SecondaryControllers};

use crate::backend::{OpenError, Registers};
use crate::driver::{Controller, DriverError, Waiter, admin, identify};
use crate::endpoint::{AccessError, BusMaster};
use crate::vfio;

/// Controller Configuration.
const CC: Offset = Offset::new(0x14);

/// What a secondary controller gets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Resources {
    /// Queue pairs, the admin queue pair included.
    pub queues: u16,
    /// Interrupt vectors, the admin queue's included.
    pub interrupts: u16,
}

/// Which secondary controller.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Which {
    /// The one with this identifier.
    Id(ControllerId),
    /// That of this virtual function, counted from one.
    VirtualFunction(u16),
}

/// Why a secondary controller was not brought online.
#[derive(Debug)]
pub enum VirtualizationError {
    /// A command of the primary controller did not succeed.
    Primary(DriverError),
    /// The primary controller has no such secondary one.
    NoSecondary(Which),
    /// The secondary controller could not be reset.
    Reset(OpenError),
    /// Its registers cannot be reached.
    Access(AccessError),
    /// It did not say who it is once it was online.
    Secondary(DriverError),
}

impl fmt::Display for VirtualizationError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Primary(error) => write!(f, "primary controller: {error}"),
            Self::NoSecondary(Which::Id(id)) => {
                write!(f, "the managing controller is no primary one of controller {}", id.get())
            }
            Self::NoSecondary(Which::VirtualFunction(number)) => {
                write!(f, "the managing controller is no primary one of virtual function {number}")
            }
            Self::Reset(error) => write!(f, "resetting the secondary controller: {error}"),
            Self::Access(error) => write!(f, "secondary controller: {error}"),
            Self::Secondary(error) => write!(f, "secondary controller: {error}"),
        }
    }
}

impl std::error::Error for VirtualizationError {}

impl From<DriverError> for VirtualizationError {
    fn from(error: DriverError) -> Self {
        Self::Primary(error)
    }
}

/// Reads the Secondary Controller List of a primary controller to its end, where `ask` sends one Identify command. A page of it
/// has 127 entries at most, and identifiers ascend over all pages, so there are at most 65,536 entries and 517 questions.
///
/// # Errors
/// Those of `ask`, or a page that is none or whose identifiers do not ascend.
pub fn read_secondaries(
    mut ask: impl FnMut(&'static str, &Identify) -> Result<Vec<u8>, DriverError>,
) -> Result<Vec<SecondaryController>, DriverError> {
    const WHAT: &str = "Identify, Secondary Controller List";
    let (mut found, mut from) = (Vec::new(), ControllerId::new(0));
    loop {
        let command =
            Identify { controller: from, ..Identify::new(IdentifyStructure::SECONDARY_CONTROLLER_LIST) };
        let bytes = ask(WHAT, &command)?;
        let page = SecondaryControllers::parse(&bytes, from).map_err(|_| DriverError::Malformed(WHAT))?;
        found.extend(page.iter());
        let last = page.iter().last().filter(|_| page.is_full());
        match last.and_then(|last| last.controller.get().checked_add(1)) {
            Some(next) => from = ControllerId::new(next),
            None => return Ok(found),
        }
    }
}

/// Finds a secondary controller among those of its primary one.
///
/// # Errors
/// [`VirtualizationError::NoSecondary`].
pub fn find(list: &[SecondaryController], which: Which) -> Result<SecondaryController, VirtualizationError> {
    let is_it = |one: &&SecondaryController| match which {
        Which::Id(id) => one.controller == id,
        Which::VirtualFunction(number) => number != 0 && one.virtual_function == number,
    };
    list.iter().find(is_it).copied().ok_or(VirtualizationError::NoSecondary(which))
}

/// Takes `secondary` offline, gives it resources as far as they can be assigned, resets it, and brings it online. `primary`
/// stays in use: a reset of it would take its secondary controllers offline again. The secondary controller reaches no memory
/// afterwards until its bus mastering is turned on.
///
/// # Errors
/// The first step that failed; the controller stays offline then, unless the first one did.
pub(crate) fn bring_online<R: RegisterIo<Error = AccessError>>(
    primary: &mut Controller<'_, '_, R>,
    secondary: ControllerId,
    registers: &Registers,
    resources: Resources,
    waiter: Waiter<'_>,
) -> Result<(), VirtualizationError> {
    const CAPABILITIES: &str = "Identify, Primary Controller Capabilities";
    let command = Identify::new(IdentifyStructure::PRIMARY_CONTROLLER_CAPABILITIES);
    let bytes = identify(primary, CAPABILITIES, &command, waiter)?;
    let can = PrimaryControllerCapabilities::parse(&bytes)
        .map_err(|_| DriverError::Malformed("Primary Controller Capabilities"))?;
    let list = read_secondaries(|what, command| identify(primary, what, command, waiter))?;
    find(&list, Which::Id(secondary))?;
    let manage = |what, Managed { action, resource_type, resources }| {
        let command = VirtualizationManagement { action, resource_type, controller: secondary, resources };
        let request = AdminRequest::without_data(&command, waiter.timeout);
        admin(primary, what, request, &mut [], waiter).map(drop)
    };
    carry_out(&can, manage, registers, resources)
}

/// What a Virtualization Management command asks for, of the one secondary controller.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Managed {
    action: VirtualizationAction,
    resource_type: VirtualizationResource,
    resources: u16,
}

/// A controller of a function that may be reset.
trait Function: BusMaster {
    /// Resets the function.
    ///
    /// # Errors
    /// It has no such reset, or refuses.
    fn reset(&self) -> Result<(), OpenError>;
}

impl Function for Registers {
    fn reset(&self) -> Result<(), OpenError> {
        self.reset_function()
    }
}

/// The steps of [`bring_online`]; `manage` sends one command, which is named in what is said of its failure.
fn carry_out(
    can: &PrimaryControllerCapabilities,
    mut manage: impl FnMut(&'static str, Managed) -> Result<(), DriverError>,
    registers: &impl Function,
    resources: Resources,
) -> Result<(), VirtualizationError> {
    let (queues, interrupts) =
        (VirtualizationResource::VIRTUAL_QUEUES, VirtualizationResource::VIRTUAL_INTERRUPTS);
    let of = |action, resource_type, resources| Managed { action, resource_type, resources };
    let offline = of(VirtualizationAction::SECONDARY_OFFLINE, queues, 0);
    manage("taking the secondary controller offline", offline)?;
    let assign = VirtualizationAction::SECONDARY_ASSIGN;
    if can.queues_supported {
        manage("assigning queues to the secondary controller", of(assign, queues, resources.queues))?;
    }
    if can.interrupts_supported {
        let assign = of(assign, interrupts, resources.interrupts);
        manage("assigning interrupts to the secondary controller", assign)?;
    }
    match registers.reset() {
        // Its controller reset has to do.
        Err(OpenError::NoFunctionReset | OpenError::Vfio(vfio::Error::NoReset)) => {
            registers.write32(CC, 0).map_err(VirtualizationError::Access)?;
        }
        result => result.map_err(VirtualizationError::Reset)?,
    }
    registers.set_bus_master(false).map_err(VirtualizationError::Access)?;
    let online = of(VirtualizationAction::SECONDARY_ONLINE, queues, 0);
    manage("bringing the secondary controller online", online)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;

    use nvme_core::wire::identify::IdentifyPage;
    use proptest::prelude::*;

    use super::*;

    /// What reaches the primary controller, and the secondary one.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    enum Event {
        Command(Managed),
        FunctionReset,
        Write(u32, u32),
        BusMaster(bool),
    }

    /// A secondary controller, with the commands that its primary one got for it, in one list. One step fails.
    struct Recorder<'a> {
        events: &'a RefCell<Vec<Event>>,
        /// How many steps come before the one that fails.
        sound: usize,
        /// What it makes of a reset of its function.
        reset: fn() -> Result<(), OpenError>,
    }

    impl Recorder<'_> {
        /// Whether the step succeeds.
        fn take(&self, event: Event) -> bool {
            let mut events = self.events.borrow_mut();
            events.push(event);
            events.len() <= self.sound
        }
    }

    impl RegisterIo for Recorder<'_> {
        type Error = AccessError;

        fn read32(&self, offset: Offset) -> Result<u32, AccessError> {
            Err(AccessError::Outside(offset.bytes()))
        }

        fn write32(&self, offset: Offset, value: u32) -> Result<(), AccessError> {
            self.take(Event::Write(offset.bytes(), value)).then_some(()).ok_or(AccessError::Stopped)
        }
    }

    impl BusMaster for Recorder<'_> {
        fn set_bus_master(&self, enabled: bool) -> Result<(), AccessError> {
            self.take(Event::BusMaster(enabled)).then_some(()).ok_or(AccessError::Configuration)
        }
    }

    impl Function for Recorder<'_> {
        fn reset(&self) -> Result<(), OpenError> {
            if !self.take(Event::FunctionReset) {
                return Err(OpenError::VfioUser(crate::vfio_user::Error::Closed));
            }
            (self.reset)()
        }
    }

    const RESOURCES: Resources = Resources { queues: 5, interrupts: 3 };

    const fn command(
        action: VirtualizationAction,
        resource_type: VirtualizationResource,
        resources: u16,
    ) -> Event {
        Event::Command(Managed { action, resource_type, resources })
    }

    /// Carries the steps out, of which the first `sound` succeed.
    fn run(
        (queues_supported, interrupts_supported): (bool, bool),
        reset: fn() -> Result<(), OpenError>,
        sound: usize,
    ) -> (Result<(), VirtualizationError>, Vec<Event>) {
        let can =
            PrimaryControllerCapabilities { queues_supported, interrupts_supported, ..Default::default() };
        let events = RefCell::new(Vec::new());
        let registers = Recorder { events: &events, sound, reset };
        let manage = |what, managed| {
            let taken = registers.take(Event::Command(managed));
            if taken { Ok(()) } else { Err(DriverError::TimedOut(what)) }
        };
        let result = carry_out(&can, manage, &registers, RESOURCES);
        (result, events.into_inner())
    }

    #[test]
    fn a_secondary_controller_comes_online_in_this_order() {
        let (queues, interrupts) =
            (VirtualizationResource::VIRTUAL_QUEUES, VirtualizationResource::VIRTUAL_INTERRUPTS);
        let offline = command(VirtualizationAction::SECONDARY_OFFLINE, queues, 0);
        let assign = VirtualizationAction::SECONDARY_ASSIGN;
        let assigned = [command(assign, queues, 5), command(assign, interrupts, 3)];
        let (reset, fenced) = (Event::FunctionReset, Event::BusMaster(false));
        let online = command(VirtualizationAction::SECONDARY_ONLINE, queues, 0);
        let disabled = Event::Write(0x14, 0);
        type Row<'a> = (&'a str, (bool, bool), fn() -> Result<(), OpenError>, &'a [Event]);
        let rows: [Row<'_>; 6] = [
            (
                "all of it",
                (true, true),
                || Ok(()),
                &[offline, assigned[0], assigned[1], reset, fenced, online],
            ),
            (
                "no flexible interrupts",
                (true, false),
                || Ok(()),
                &[offline, assigned[0], reset, fenced, online],
            ),
            ("no flexible queues", (false, true), || Ok(()), &[offline, assigned[1], reset, fenced, online]),
            ("nothing flexible", (false, false), || Ok(()), &[offline, reset, fenced, online]),
            (
                "no function to reset",
                (false, false),
                || Err(OpenError::NoFunctionReset),
                &[offline, reset, disabled, fenced, online],
            ),
            (
                "a function without a reset",
                (false, false),
                || Err(OpenError::Vfio(vfio::Error::NoReset)),
                &[offline, reset, disabled, fenced, online],
            ),
        ];
        for (name, supported, reset, expected) in rows {
            let (result, events) = run(supported, reset, usize::MAX);
            assert!(result.is_ok(), "{name}: {result:?}");
            assert_eq!(events, expected, "{name}");
            // Nothing follows a step that fails: what is not whole does not come online.
            for sound in 0..expected.len() {
                let (result, events) = run(supported, reset, sound);
                assert!(result.is_err(), "{name}, {sound} steps");
                assert_eq!(events, expected[..=sound], "{name}, {sound} steps");
            }
        }
    }

    #[test]
    fn a_step_that_fails_is_named() {
        let all: fn() -> Result<(), OpenError> = || Ok(());
        let none: fn() -> Result<(), OpenError> = || Err(OpenError::NoFunctionReset);
        let rows = [
            (all, 0, "primary controller: taking the secondary controller offline did not complete in time"),
            (
                all,
                1,
                "primary controller: assigning queues to the secondary controller did not complete in time",
            ),
            (
                all,
                2,
                "primary controller: assigning interrupts to the secondary controller did not complete in time",
            ),
            (all, 3, "resetting the secondary controller: the server has closed the connection"),
            (none, 4, "secondary controller: the subsystem has stopped"),
            (all, 4, "secondary controller: the function's configuration space cannot be written"),
            (all, 5, "primary controller: bringing the secondary controller online did not complete in time"),
        ];
        for (reset, sound, words) in rows {
            let (result, _) = run((true, true), reset, sound);
            assert_eq!(result.expect_err("a step fails").to_string(), words, "{sound} steps");
        }
    }

    fn entry(id: u16) -> SecondaryController {
        SecondaryController { controller: ControllerId::new(id), ..SecondaryController::default() }
    }

    /// The page that a controller with these secondary ones returns.
    fn page(ids: impl IntoIterator<Item = u16>, from: u16) -> Vec<u8> {
        let mut page: IdentifyPage = [0; 4096];
        SecondaryControllers::build(&mut page, ControllerId::new(from), ids.into_iter().map(entry));
        page.to_vec()
    }

    #[test]
    fn a_list_is_read_to_its_end_and_hostile_ones_are_refused() {
        type Page = fn(u16) -> Vec<u8>;
        // Name, what is returned for the identifier that a page starts at, how many are found, how often is asked.
        let rows: [(&str, Page, Option<usize>, usize); 9] = [
            ("none", |from| page([], from), Some(0), 1),
            ("one", |from| page([7], from), Some(1), 1),
            ("one less than a page", |from| page(2..128, from), Some(126), 1),
            ("a whole page", |from| page(2..129, from), Some(127), 2),
            ("one more", |from| page(2..130, from), Some(128), 2),
            ("all there can be", |from| page(0..=u16::MAX, from), Some(65_536), 517),
            ("the last identifier at the end of a page", |from| page(65_409..=u16::MAX, from), Some(127), 1),
            ("the same page again and again", |_| page(2..129, 0), None, 2),
            ("too short", |_| vec![1; 4095], None, 1),
        ];
        for (name, answer, expected, questions) in rows {
            let mut asked = 0;
            let found = read_secondaries(|_, command| {
                asked += 1;
                assert_eq!(command.structure, IdentifyStructure::SECONDARY_CONTROLLER_LIST, "{name}");
                Ok(answer(command.controller.get()))
            });
            assert_eq!(found.as_ref().ok().map(Vec::len), expected, "{name}: {:?}", found.err());
            assert_eq!(asked, questions, "{name}");
        }
    }

    proptest! {
        #[test]
        fn whatever_is_returned_the_questions_end_and_identifiers_ascend(
            bytes in prop::collection::vec(any::<u8>(), 4096), count in any::<u8>(),
        ) {
            let mut asked = 0;
            let found = read_secondaries(|_, command| {
                asked += 1;
                let mut page = bytes.clone();
                page[0] = count;
                // Now and then as it would be right.
                if asked % 3 != 0 {
                    for (at, entry) in page.chunks_exact_mut(32).skip(1).enumerate() {
                        let id = command.controller.get().wrapping_add(at as u16);
                        entry[..2].copy_from_slice(&id.to_le_bytes());
                    }
                }
                Ok(page)
            });
            prop_assert!(asked <= 517);
            if let Ok(found) = found {
                prop_assert!(found.is_sorted_by(|one, other| one.controller < other.controller));
            }
        }
    }
}

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
        }
    }
}

impl std::error::Error for VirtualizationError {}

impl From<DriverError> for VirtualizationError {
    fn from(error: DriverError) -> Self {
        Self::Primary(error)
    }
}

/// Finds a secondary controller in a list that its primary one returned.
///
/// # Errors
/// [`VirtualizationError::NoSecondary`], or the list is malformed.
pub fn find(list: &[u8], which: Which) -> Result<SecondaryController, VirtualizationError> {
    let list = SecondaryControllers::parse(list, ControllerId::new(0))
        .map_err(|_| DriverError::Malformed("Secondary Controller List"))?;
    let is_it = |one: &SecondaryController| match which {
        Which::Id(id) => one.controller == id,
        Which::VirtualFunction(number) => number != 0 && one.virtual_function == number,
    };
    list.iter().find(is_it).ok_or(VirtualizationError::NoSecondary(which))
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
    let list = Identify::new(IdentifyStructure::SECONDARY_CONTROLLER_LIST);
    let list = identify(primary, "Identify, Secondary Controller List", &list, waiter)?;
    find(&list, Which::Id(secondary))?;
    let mut manage = |what, action, resource_type, resources| {
        let command = VirtualizationManagement { action, resource_type, controller: secondary, resources };
        let request = AdminRequest::without_data(&command, waiter.timeout);
        admin(primary, what, request, &mut [], waiter).map(drop)
    };
    let (queues, interrupts) =
        (VirtualizationResource::VIRTUAL_QUEUES, VirtualizationResource::VIRTUAL_INTERRUPTS);
    manage("taking the secondary controller offline", VirtualizationAction::SECONDARY_OFFLINE, queues, 0)?;
    let assign = VirtualizationAction::SECONDARY_ASSIGN;
    if can.queues_supported {
        manage("assigning queues to the secondary controller", assign, queues, resources.queues)?;
    }
    if can.interrupts_supported {
        manage("assigning interrupts to the secondary controller", assign, interrupts, resources.interrupts)?;
    }
    match registers.reset_function() {
        // Its controller reset has to do.
        Err(OpenError::NoFunctionReset) => registers.write32(CC, 0).map_err(VirtualizationError::Access)?,
        result => result.map_err(VirtualizationError::Reset)?,
    }
    registers.set_bus_master(false).map_err(VirtualizationError::Access)?;
    manage("bringing the secondary controller online", VirtualizationAction::SECONDARY_ONLINE, queues, 0)?;
    Ok(())
}

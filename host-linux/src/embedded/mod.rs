// SPDX-License-Identifier: MIT OR Apache-2.0
//! NVM subsystems inside this process, each served by a thread of its own or polled by its owner.

mod inbox;
mod local;
mod service;
mod subsystem;

pub use local::{DeviceMemory, LocalController, LocalSubsystem};
pub use service::EmbeddedController;
pub use subsystem::{
    ControllerRole, ControllerSetup, EmbeddedSubsystem, NAMESPACE, StartError, SubsystemSetup,
};

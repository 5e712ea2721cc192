// SPDX-License-Identifier: MIT OR Apache-2.0
//! An NVM subsystem with Controller Data Queues and Host Managed Live Migration, without an allocator.
#![no_std]
#![cfg_attr(
    not(test),
    deny(
        clippy::indexing_slicing,
        clippy::unwrap_used,
        clippy::expect_used,
        clippy::panic,
        clippy::arithmetic_side_effects
    )
)]

#[cfg(test)]
extern crate std;

mod admin;
mod cdq;
mod config;
mod controller;
mod dma;
mod error_log;
mod events;
mod execute;
mod features;
mod fetch;
pub mod host;
mod in_flight;
mod log;
mod migration;
mod namespace;
mod nvm;
mod outcome;
mod pages;
mod property;
mod prp;
mod queue;
mod quirk;
mod registers;
mod reset;
mod secondary;
pub mod state_format;
mod subsystem;
mod track;

pub use cdq::DataQueueSlot;
pub use config::{ControllerConfig, ManagerConfig, Role, SecondaryConfig, SubsystemConfig};
pub use controller::{Controller, ControllerStorage, state_bytes};
pub use error_log::ErrorSlot;
pub use events::EventSlot;
pub use in_flight::CommandSlot;
pub use namespace::Namespace;
pub use queue::{CompletionQueueSlot, SubmissionQueueSlot};
pub use quirk::Quirks;
pub use registers::MisalignedAccess;
pub use subsystem::{Activity, ConfigError, Port, Subsystem, SubsystemStorage};
pub use track::TrackedRange;

// SPDX-License-Identifier: MIT OR Apache-2.0
//! An NVM subsystem with Controller Data Queues and Host Managed Live Migration, without an allocator.
//!
//! This is the device side of the protocol: one or more managing controllers, any number of migratable ones, and
//! namespaces that all of them share. It reaches each host's memory, the media and the interrupt lines through the
//! traits of [`host`]; every capacity is memory lent by the caller. A [`Subsystem`] is single threaded and has no clock:
//! property and doorbell writes change state at once, [`Subsystem::poll`] does the work.
//!
//! ```
//! use nvme_controller::host::{BlockStorage, HostMemory, Interrupts, MemoryFault, StorageError};
//! use nvme_controller::*;
//! use nvme_core::register::Offset;
//! use nvme_core::wire::{BusAddr, CommandId, ControllerId, Lba, NamespaceId};
//! # #[derive(Clone)]
//! # struct Memory;
//! # impl HostMemory for Memory {
//! #     fn read(&self, _: BusAddr, bytes: &mut [u8]) -> Result<(), MemoryFault> { bytes.fill(0); Ok(()) }
//! #     fn write(&self, _: BusAddr, _: &[u8]) -> Result<(), MemoryFault> { Ok(()) }
//! #     fn write_entry(&self, _: BusAddr, _: &[u8]) -> Result<(), MemoryFault> { Ok(()) }
//! #     fn is_host_memory(&self, _: BusAddr, _: u64) -> bool { true }
//! # }
//! # struct Media([u8; 8192]);
//! # impl BlockStorage for Media {
//! #     fn block_shift(&self) -> u8 { 9 }
//! #     fn blocks(&self) -> u64 { 16 }
//! #     fn read(&mut self, _: Lba, _: &mut [u8]) -> Result<(), StorageError> { Ok(()) }
//! #     fn write(&mut self, _: Lba, _: &[u8]) -> Result<(), StorageError> { Ok(()) }
//! #     fn write_zeroes(&mut self, _: Lba, _: u64, _: bool) -> Result<(), StorageError> { Ok(()) }
//! #     fn flush(&mut self) -> Result<(), StorageError> { Ok(()) }
//! #     fn allocated(&self, _: Lba, limit: u64) -> (bool, u64) { (true, limit) }
//! #     fn set_uncorrectable(&mut self, _: Lba, _: u64) -> Result<(), StorageError> { Ok(()) }
//! # }
//! # struct Lines;
//! # impl Interrupts for Lines { fn interrupt(&self, _: ControllerId, _: u16) {} }
//! # let (memory, media, lines) = (Memory, Media([0; 8192]), Lines);
//! // One controller with two I/O queue pairs, 32 commands under way and four event requests.
//! let (mut submission_queues, mut completion_queues) =
//!     ([SubmissionQueueSlot::new(); 3], [CompletionQueueSlot::new(); 3]);
//! let mut commands = core::array::from_fn::<_, 33, _>(|_| CommandSlot::new());
//! let (mut event_requests, mut events) = ([CommandId::new(0); 4], [EventSlot::new(); 4]);
//! let mut errors = [ErrorSlot::new(); 8];
//! let mut state = [0; state_bytes(3, 3, 4, 4)];
//! let (mut tracked_ranges, mut tracked_bits) = ([TrackedRange::new(); 4], [0; 64]);
//! let guest = ControllerConfig::migratable(ControllerId::new(1));
//! let storage = ControllerStorage {
//!     submission_queues: &mut submission_queues,
//!     completion_queues: &mut completion_queues,
//!     commands: &mut commands,
//!     event_requests: &mut event_requests,
//!     events: &mut events,
//!     errors: &mut errors,
//!     state: &mut state,
//!     tracked_ranges: &mut tracked_ranges,
//!     tracked_bits: &mut tracked_bits,
//! };
//! let mut controllers = [Controller::new(guest, memory, storage)];
//! let mut namespaces = [Namespace::new(NamespaceId::new(1), media, [7; 16])];
//! let (mut data_queues, mut scratch) = ([DataQueueSlot::new(); 4], [0; 4096]);
//! let mut subsystem = Subsystem::new(
//!     SubsystemConfig::default(),
//!     SubsystemStorage {
//!         controllers: &mut controllers,
//!         namespaces: &mut namespaces,
//!         data_queues: &mut data_queues,
//!         scratch: &mut scratch,
//!     },
//!     lines,
//! )?;
//!
//! // What a host does: admin queues, enable, doorbell. What the subsystem does in between: poll.
//! let port = subsystem.port(ControllerId::new(1)).expect("the controller above");
//! let write = |subsystem: &mut Subsystem<'_, _, _, _>, offset, value| {
//!     subsystem.write32(port, Offset::new(offset), value)
//! };
//! write(&mut subsystem, 0x24, 0x000F_000F)?;
//! write(&mut subsystem, 0x28, 0x1_0000)?;
//! write(&mut subsystem, 0x30, 0x2_0000)?;
//! write(&mut subsystem, 0x14, 0x0046_0001)?;
//! assert_eq!(subsystem.read32(port, Offset::new(0x1C))?, 1, "ready");
//! write(&mut subsystem, 0x1000, 1)?;
//! while !subsystem.poll(32).is_idle() {}
//! # Ok::<(), Box<dyn core::error::Error>>(())
//! ```
//!
//! | To add | Look at |
//! |---|---|
//! | a property | `registers`, `property` |
//! | an admin command, feature, log page, Identify structure | `admin` |
//! | an I/O command | `nvm`; what it changes goes to `log` |
//! | a migration command | `migration`; data queues are in `cdq` |
//! | what moves with a guest | [`state_format`] |
//! | a deviation of another model | [`Quirks`] |
//! | a fault to inject | where commands are fetched (`fetch`), completed (`execute`) or posted to data queues (`cdq`) |
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

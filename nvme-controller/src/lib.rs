// SPDX-License-Identifier: MIT OR Apache-2.0
//! An NVM subsystem with Controller Data Queues and Host Managed Live Migration, without an allocator.
//!
//! The device side of NVMe Base 2.1: managing controllers, which process the migration commands, and migratable ones,
//! which belong to guests, over namespaces that all of them share. Memory, media and interrupts come in through the
//! traits of [`host`]; all capacities are slices lent by the caller.
//!
//! ```
//! use nvme_controller::host::{BlockStorage, HostMemory, Interrupts, MemoryFault, StorageError};
//! use nvme_controller::*;
//! use nvme_core::register::Offset;
//! use nvme_core::wire::{BusAddr, CommandId, ControllerId, Lba, NamespaceId};
//!
//! struct NoMemory;
//! impl HostMemory for NoMemory {
//!     fn read(&self, address: BusAddr, bytes: &mut [u8]) -> Result<(), MemoryFault> {
//!         Err(MemoryFault { address, len: bytes.len() })
//!     }
//!     fn write(&self, address: BusAddr, bytes: &[u8]) -> Result<(), MemoryFault> {
//!         Err(MemoryFault { address, len: bytes.len() })
//!     }
//!     fn write_entry(&self, address: BusAddr, entry: &[u8]) -> Result<(), MemoryFault> {
//!         self.write(address, entry)
//!     }
//!     fn is_host_memory(&self, _: BusAddr, _: u64) -> bool {
//!         false
//!     }
//! }
//! struct Blank;
//! impl BlockStorage for Blank {
//!     fn block_shift(&self) -> u8 {
//!         9
//!     }
//!     fn blocks(&self) -> u64 {
//!         1024
//!     }
//!     fn read(&mut self, _: Lba, bytes: &mut [u8]) -> Result<(), StorageError> {
//!         bytes.fill(0);
//!         Ok(())
//!     }
//!     fn write(&mut self, _: Lba, _: &[u8]) -> Result<(), StorageError> {
//!         Err(StorageError::WriteProtected)
//!     }
//!     fn write_zeroes(&mut self, _: Lba, _: u64, _: bool) -> Result<(), StorageError> {
//!         Ok(())
//!     }
//!     fn flush(&mut self) -> Result<(), StorageError> {
//!         Ok(())
//!     }
//!     fn allocated(&self, _: Lba, limit: u64) -> (bool, u64) {
//!         (false, limit)
//!     }
//!     fn set_uncorrectable(&mut self, _: Lba, _: u64) -> Result<(), StorageError> {
//!         Err(StorageError::WriteProtected)
//!     }
//! }
//! struct NoInterrupts;
//! impl Interrupts for NoInterrupts {
//!     fn interrupt(&self, _: ControllerId, _: u16) {}
//! }
//!
//! let id = ControllerId::new(1);
//! let storage = ControllerStorage {
//!     submission_queues: &mut [SubmissionQueueSlot::new(); 2],
//!     completion_queues: &mut [CompletionQueueSlot::new(); 2],
//!     commands: &mut [CommandSlot::new(); 9],
//!     event_requests: &mut [CommandId::new(0); 1],
//!     events: &mut [EventSlot::new(); 4],
//!     errors: &mut [ErrorSlot::new(); 4],
//!     state: &mut [],
//!     tracked_ranges: &mut [],
//!     tracked_bits: &mut [],
//! };
//! let controller = Controller::new(ControllerConfig::managing(id), NoMemory, storage);
//! let storage = SubsystemStorage {
//!     controllers: &mut [controller],
//!     namespaces: &mut [Namespace::new(NamespaceId::new(1), Blank, [0; 16])],
//!     data_queues: &mut [DataQueueSlot::new(); 1],
//!     scratch: &mut [0; 4096],
//! };
//! let mut subsystem = Subsystem::new(SubsystemConfig::default(), storage, NoInterrupts)?;
//! let port = subsystem.port(id).expect("a controller with this identifier");
//! // Accesses of the host go in here; work is done by polling.
//! assert_eq!(subsystem.read32(port, Offset::new(0x08)), Ok(0x0002_0100));
//! assert!(subsystem.poll(16).is_idle());
//! # Ok::<(), ConfigError>(())
//! ```
//!
//! Guests' controllers are [`ControllerConfig::migratable`]; `state` and the tracked slices of [`ControllerStorage`] are
//! theirs. [`Subsystem::write32`] takes registers and doorbells, [`Subsystem::poll`] does the work until it is idle, and
//! [`Subsystem::advance`] tells the time.
//!
//! # How things flow
//!
//! A property access (`property`, `registers`) changes state at once; a doorbell only moves a tail or a head.
//! [`Subsystem::poll`] does the work: `fetch` takes commands for which a completion slot is free, `execute` runs them
//! (`admin`, `nvm`, `migration`, `cdq`), posts completions, then ends what waited for silence (a Suspend, a shutdown),
//! reports events and interrupts. A command that changes user data tells `log` once the change is in effect and before
//! it completes; `log` makes an entry of it and `cdq` posts that to the managing controller's host. Everything a
//! controller writes to its host passes `dma`, where `track` sees it.
//!
//! | Modules | Subject |
//! |---|---|
//! | `subsystem`, `controller`, `config`, `namespace`, `host` | what there is, its capacities and its surroundings |
//! | `property`, `registers`, `reset`, `secondary` | properties, doorbells, resets, secondary controllers |
//! | `queue`, `pages`, `fetch`, `in_flight`, `execute`, `outcome` | from submission to completion queue entry |
//! | `dma`, `prp` | host memory, and the data of a command in it |
//! | `admin`, `features`, `events`, `error_log` | admin commands and what they report |
//! | `nvm` | I/O commands |
//! | `cdq`, `log`, `track` | data queues, the log of user data changes, tracking of host memory |
//! | `migration`, `state_format` | suspend, resume, and the state of a controller |
//! | `quirk` | deviations of other implementations, to imitate on request |
//! | [`fault`] | what controllers do wrong, on request and by rules |
//!
//! # What Suspend quiesces
//!
//! From its completion until it resumes a suspended controller starts no transaction at all: it reads and writes no
//! memory of its host, peer-to-peer addresses included, and sends no interrupt. The one exception is asked for by the
//! managing controller: Set Controller State reads the PRP lists of queues that are not contiguous, to check them, and
//! writes nothing. There is no other way to move data past it, because it has no controller memory buffer or persistent
//! memory region that a peer could reach. Doorbells and a shutdown notification are taken and acted on after Resume.
//! Entries about a suspended controller go to the data queue of the managing controller, in that one's name.
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
pub mod fault;
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

// SPDX-License-Identifier: MIT OR Apache-2.0
//! The NVMe core before any operating system, on EFI_PCI_IO_PROTOCOL (UEFI 2.10 §14.4): the program `nvme-lm.efi`, and
//! what another UEFI driver or program needs to use the core.
//!
//! A controller is taken from the firmware's driver and handed back with [`takeover`]. Registers are reached by the
//! firmware's calls or mapped ([`registers`]), memory comes from the firmware ([`arena`]), time is counted by waiting
//! ([`time`]), and a [`session`] sends one command after another. [`commands`] are generic over registers and memory, so
//! that they are tried without firmware, too; [`program`] finds controllers and reads the command line.
//!
//! Nothing is allocated but device memory, and nothing outlives its value: a session that is closed and a take-over that
//! is dropped leave memory, handles and attributes as they were. Device memory that a controller may still reach stays set
//! aside until boot services end, and its function without bus mastering: the machine is to be reset before an operating
//! system is started, which would use that memory.
//!
//! # Only memory and registers
//!
//! A driver that has opened a function itself uses the arena and the registers with the core's machines:
//!
//! ```no_run
//! use nvme_core::dma::{Direction, DmaArena, DmaError, Pool, give_back};
//! use nvme_core::register::{Offset, RegisterIo};
//! use nvme_host_uefi::arena::{ArenaSlot, PciArena};
//! use nvme_host_uefi::registers::{PciRegisters, RegisterError};
//! use nvme_host_uefi::sys::PciIo;
//!
//! /// The controller's version, and whether device memory can be had.
//! fn look(io: &PciIo) -> Result<(u32, bool), RegisterError> {
//!     let version = PciRegisters::new(io).read32(Offset::VS)?;
//!     let mut slots = [const { ArenaSlot::new() }; 4];
//!     let arena = PciArena::new(io, &mut slots);
//!     let queue: Result<_, DmaError> = arena.allocate(Pool::Queues, 4096, 4096, Direction::Bidirectional);
//!     let had = queue.is_ok();
//!     if let Ok(region) = queue {
//!         give_back(&arena, region);
//!     }
//!     Ok((version, had))
//! }
//! ```
//!
//! The example `identify_and_read` is a whole program; [`takeover`] shows a session.
#![no_std]
#![cfg_attr(
    not(test),
    deny(
        clippy::indexing_slicing,
        clippy::unwrap_used,
        clippy::expect_used,
        clippy::panic,
        clippy::unreachable,
        clippy::arithmetic_side_effects
    )
)]

pub mod arena;
pub mod commands;
pub mod program;
pub mod registers;
pub mod session;
pub mod sys;
pub mod takeover;
pub mod time;

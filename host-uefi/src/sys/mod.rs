// SPDX-License-Identifier: MIT OR Apache-2.0
//! Everything that is not safe Rust: the protocol's functions, the promises made to the core, and protocols opened
//! beside their users.
#![allow(unsafe_code, reason = "the one place where this crate deals with firmware and raw memory")]

mod alarm;
mod arena;
mod attach;
mod barrier;
mod firmware;
mod pci_io;

pub(crate) use alarm::Alarm;
pub(crate) use arena::{free_unmapped, region, unmap_unseen, zero};
pub(crate) use attach::map_registers;
pub use attach::{ForFunction, OfFunction};
pub(crate) use barrier::device_barrier;
pub(crate) use firmware::has_driver;
pub use firmware::{leave, peek};
pub use pci_io::{
    AllocateFunction, AttributesFunction, BarFunction, BarRange, ConfigFunction, CopyFunction, FlushFunction,
    FreeFunction, Functions, GetBarFunction, LocationFunction, MapFunction, Mapping, PciIo, PciIoAccess,
    PciStatus, PollFunction, SetBarFunction, SharedBuffer, UnmapFunction, attributes,
};

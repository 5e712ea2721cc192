// SPDX-License-Identifier: MIT OR Apache-2.0
//! Taking over controllers under test.
#![allow(unsafe_code, reason = "the driver's one promise about the device is made here")]

use nvme_core::controller::{AttachError, Disabling, Link, attach};
use nvme_core::dma::DmaArena;
use nvme_core::register::RegisterIo;

use super::backend::{AccessRefused, Device};
use super::embedded::EmbeddedDevice;

/// A promise of a [`Device`] about where its controllers can write.
///
/// # Safety
/// Whatever a controller is told through its registers and its memory, and whatever it does, it accesses nothing but
/// memory that its own arena ([`Device::arena`]) has given out, and that memory is reached by everybody through atomic
/// or raw copies only, for as long as the device and its arena live.
pub unsafe trait Confined {}

// SAFETY: the embedded controllers reach memory only through `AddressSpace`, which translates every address through
// its own table and copies with atomic accesses (guaranteed by `nvme_host_linux::memory`); a released region is
// unmapped before its pages are used again.
unsafe impl Confined for EmbeddedDevice {}

/// Takes over controller `controller` of `device` with the driver. `registers` lead to it, directly or with something
/// between.
///
/// # Errors
/// As [`attach`].
pub(crate) fn take_over<'d, 's, R: RegisterIo<Error = AccessRefused> + ?Sized>(
    _device: &'d dyn Device,
    registers: &'d R,
    arena: &'d &'d dyn DmaArena,
    link: &'d Link,
) -> Result<Disabling<'d, 's, R, &'d dyn DmaArena>, AttachError> {
    // SAFETY: the controller reaches nothing but memory of the arena that serves it, reached through copies alone
    // (guaranteed by `Confined`, which every `Device` has promised), so neither a second driver nor memory that is
    // released early or longer used can break memory safety.
    unsafe { attach(registers, arena, link) }
}

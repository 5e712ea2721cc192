// SPDX-License-Identifier: MIT OR Apache-2.0
//! What back ends promise about the memory of their controllers.
#![allow(unsafe_code, reason = "what a driver has to promise about the device is promised here")]

use super::embedded::EmbeddedDevice;

/// A promise of a [`Device`](super::Device) about where its controllers can write.
///
/// # Safety
/// Whatever a controller is told through its registers and its memory, and whatever it does, it accesses nothing but
/// memory that its own arena ([`Device::arena`](super::Device::arena)) has given out, and that memory is reached by everybody through atomic
/// or raw copies only, for as long as the device and its arena live.
pub unsafe trait Confined {}

// SAFETY: the embedded controllers reach memory only through `AddressSpace`, which translates every address through
// its own table and copies with atomic accesses (guaranteed by `nvme_host_linux::memory`); a released region is
// unmapped before its pages are used again.
unsafe impl Confined for EmbeddedDevice {}

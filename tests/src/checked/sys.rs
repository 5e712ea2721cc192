// SPDX-License-Identifier: MIT OR Apache-2.0
//! What simulated devices promise about memory.
#![allow(unsafe_code, reason = "what a driver has to promise about the device is promised here")]

use nvme_core::controller::{self, AttachError, Disabling, Link};
use nvme_core::register::RegisterIo;

use super::CheckedSpace;
use super::local::LocalRegisters;

/// The registers of a device that is simulated.
///
/// # Safety
/// Whatever is written to the registers, memory is reached through the checked copies of
/// [`AddressSpace`](nvme_host_linux::memory::AddressSpace) only.
pub unsafe trait Simulated: RegisterIo {}

// SAFETY: the subsystem is safe code, and its memory is `CheckedMemory`, which copies through `AddressSpace`.
unsafe impl Simulated for LocalRegisters<'_, '_, '_, '_> {}

/// Takes over a simulated controller; see [`nvme_core::controller::attach`].
///
/// # Errors
/// [`AttachError`]; nothing was written to the controller then.
pub fn attach<'d, 's, 'a, R: Simulated + ?Sized>(
    registers: &'d R,
    arena: &'d CheckedSpace<'a>,
    link: &'d Link,
) -> Result<Disabling<'d, 's, R, CheckedSpace<'a>>, AttachError> {
    // SAFETY: the device reaches memory by checked atomic copies of the address space only (guaranteed by whoever
    // implements `Simulated`), so it cannot break memory safety whatever it is told or does.
    unsafe { controller::attach(registers, arena, link) }
}

// SPDX-License-Identifier: MIT OR Apache-2.0
//! Protocols looked at beside those who use them.

use uefi::boot::{self, OpenProtocolAttributes, OpenProtocolParams, ScopedProtocol};
use uefi::{Handle, Result, Status};

use super::PciIo;

/// Opens the function behind `handle` without taking it from its driver, to read what does not change: configuration
/// space, location and attributes.
///
/// # Errors
/// The status of the firmware: the handle has no such protocol.
pub fn peek(handle: Handle) -> Result<ScopedProtocol<PciIo>> {
    let params = OpenProtocolParams { handle, agent: boot::image_handle(), controller: None };
    // SAFETY: the protocol of a PCI function is installed by the bus driver for as long as the function is there, and
    // this crate removes none. Its functions may be called beside those of another user, one at a time, because firmware
    // has one thread.
    unsafe { boot::open_protocol::<PciIo>(params, OpenProtocolAttributes::GetProtocol) }
}

/// Ends a program that found itself wrong. Device memory that it has stays set aside, because the controller may still
/// reach it.
pub fn leave() -> ! {
    // SAFETY: the image is this program's own, and nothing of it is used any more: protocols that are open stay open, and
    // memory that was not given back stays allocated.
    let _ = unsafe { boot::exit(boot::image_handle(), Status::ABORTED, 0, core::ptr::null_mut()) };
    // The firmware did not take it.
    loop {
        core::hint::spin_loop();
    }
}

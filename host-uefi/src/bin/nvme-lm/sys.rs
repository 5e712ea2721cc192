// SPDX-License-Identifier: MIT OR Apache-2.0
//! The way out of a program that found itself wrong.
#![allow(unsafe_code, reason = "ends the program from wherever it is")]

use uefi::{Status, boot};

/// Ends the program. Device memory that it has stays set aside, because the controller may still reach it.
pub(crate) fn leave() -> ! {
    // SAFETY: the image is this program's own, and nothing of it is used any more: protocols that are open stay open, and
    // memory that was not given back stays allocated.
    let _ = unsafe { boot::exit(boot::image_handle(), Status::ABORTED, 0, core::ptr::null_mut()) };
    // The firmware did not take it.
    loop {
        core::hint::spin_loop();
    }
}

// SPDX-License-Identifier: MIT OR Apache-2.0
//! Protocols looked at beside those who use them.

use core::ffi::c_void;
use core::ptr::{self, NonNull};

use uefi::boot::{self, OpenProtocolAttributes, OpenProtocolParams, ScopedProtocol, SearchType};
use uefi::{Handle, Identify, Result, Status};

use super::{PciIo, attributes};

/// Opens the function behind `handle` without taking it from its driver, to read what does not change: configuration
/// space, location and attributes.
///
/// # Errors
/// The status of the firmware: the handle has no such protocol.
pub fn peek(handle: Handle) -> Result<ScopedProtocol<PciIo>> {
    // Closing removes every open of the same agent and controller. Exclusive ones are made without a controller: with one
    // this open is another than those, and its end does not end them.
    let params = OpenProtocolParams { handle, agent: boot::image_handle(), controller: Some(handle) };
    // SAFETY: the protocol of a PCI function is installed by the bus driver for as long as the function is there, and
    // this crate removes none. Its functions may be called beside those of another user, one at a time, because firmware
    // has one thread.
    unsafe { boot::open_protocol::<PciIo>(params, OpenProtocolAttributes::GetProtocol) }
}

/// Opened by a driver that manages the function (EFI_OPEN_PROTOCOL_BY_DRIVER).
const BY_DRIVER: u32 = 0x10;
/// Opened by one who shares it with nobody (EFI_OPEN_PROTOCOL_EXCLUSIVE).
const EXCLUSIVE: u32 = 0x20;

/// Whether one of those who have opened the function is like this: its image, and how it did.
fn is_opened(handle: Handle, like: impl Fn(*mut c_void, u32) -> bool) -> core::result::Result<bool, Status> {
    let Some(table) = uefi::table::system_table_raw() else { return Err(Status::NOT_READY) };
    let (mut entries, mut count) = (ptr::null_mut(), 0);
    // SAFETY: the table is the one that the program was started with, and boot services are not left; both places are
    // valid for writes.
    let status = unsafe {
        let services = (*table.as_ptr()).boot_services;
        ((*services).open_protocol_information)(handle.as_ptr(), &PciIo::GUID, &mut entries, &mut count)
    };
    if status != Status::SUCCESS {
        return Err(status);
    }
    // Nobody.
    let Some(list) = NonNull::new(entries) else { return Ok(false) };
    let found = (0..count).any(|at| {
        // SAFETY: the list has so many entries (guaranteed by the firmware).
        let entry = unsafe { list.add(at).read() };
        like(entry.agent_handle, entry.attributes)
    });
    // SAFETY: the list was made from pool memory for the caller, who gives it back (UEFI 2.10 §7.3).
    let _ = unsafe { boot::free_pool(list.cast()) };
    Ok(found)
}

/// Whether a driver of the firmware manages the function.
pub(crate) fn has_driver(handle: Handle) -> core::result::Result<bool, Status> {
    is_opened(handle, |_, attributes| attributes & BY_DRIVER != 0)
}

/// Ends a program that found itself wrong. Functions that it has taken over do not access memory any more.
pub fn leave() -> ! {
    let image = boot::image_handle();
    if let Ok(handles) = boot::locate_handle_buffer(SearchType::from_proto::<PciIo>()) {
        for handle in handles.iter().copied() {
            let ours = |agent, attributes| agent == image.as_ptr() && attributes & EXCLUSIVE != 0;
            if is_opened(handle, ours).unwrap_or(false)
                && let Ok(io) = peek(handle)
            {
                let _ = io.disable_attributes(attributes::BUS_MASTER);
            }
        }
    }
    // SAFETY: the image is this program's own, and nothing of it is used any more. The firmware closes what it has opened;
    // memory that was not given back stays allocated, and no controller of the program reaches it.
    let _ = unsafe { boot::exit(image, Status::ABORTED, 0, ptr::null_mut()) };
    // The firmware did not take it.
    loop {
        core::hint::spin_loop();
    }
}

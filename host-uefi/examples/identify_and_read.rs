// SPDX-License-Identifier: MIT OR Apache-2.0
//! The least that a UEFI program needs to use a controller by the core: takes the first NVMe controller over, tells its
//! model, reads block 0 of namespace 1, and hands it back.
#![no_main]
#![no_std]

use core::fmt::Write;

use nvme_core::controller::Link;
use nvme_core::wire::{Lba, NamespaceId};
use nvme_host_uefi::arena::{ArenaSlot, PciArena};
use nvme_host_uefi::registers::PciRegisters;
use nvme_host_uefi::session::{SessionError, Storage};
use nvme_host_uefi::sys::PciIo;
use nvme_host_uefi::takeover::Takeover;
use nvme_host_uefi::time::FirmwareTime;
use uefi::boot::SearchType;
use uefi::{Status, boot, entry, system};

const NAMESPACE: NamespaceId = NamespaceId::new(1);

#[entry]
fn main() -> Status {
    let Ok(handles) = boot::locate_handle_buffer(SearchType::from_proto::<PciIo>()) else {
        return Status::NOT_FOUND;
    };
    // Functions of other classes are not touched.
    let Some(taken) = handles.iter().find_map(|handle| Takeover::open(*handle).ok()) else {
        return Status::NOT_FOUND;
    };
    let used = identify_and_read(&taken);
    if taken.hand_back().is_err() || used.is_none() { Status::DEVICE_ERROR } else { Status::SUCCESS }
}

fn identify_and_read(taken: &Takeover) -> Option<()> {
    let (mut slots, mut storage) = ([const { ArenaSlot::new() }; 16], Storage::new());
    let (registers, time, link) = (PciRegisters::new(taken.io()), FirmwareTime::new(), Link::new());
    let arena = PciArena::new(taken.io(), &mut slots);
    let mut session = taken.session(&registers, &arena, &link, &mut storage, &time).ok()?;
    let model = session.identity().model_number;
    let mut sum = 0_u32;
    let read = session.read(NAMESPACE, Lba::new(0), 1, |bytes| {
        sum = bytes.iter().fold(sum, |sum, byte| sum.wrapping_add(u32::from(*byte)));
        Ok::<(), SessionError>(())
    });
    session.close().ok()?;
    read.ok()?;
    system::with_stdout(|out| writeln!(out, "{model}: the bytes of block 0 add up to {sum}")).ok()
}

#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    loop {
        core::hint::spin_loop();
    }
}

// SPDX-License-Identifier: MIT OR Apache-2.0
//! What a function between the driver and a real one sees, and what becomes of one that does not behave.

use nvme_core::controller::{Fault, Link};
use nvme_core::dma::{Direction, DmaArena, Pool};
use nvme_core::wire::{Lba, NamespaceId};
use nvme_host_uefi::arena::{ArenaSlot, PciArena};
use nvme_host_uefi::registers::PciRegisters;
use nvme_host_uefi::session::{SessionError, Storage};
use nvme_host_uefi::sys::{attributes, peek};
use nvme_host_uefi::takeover::{HandBackError, Takeover, TakeoverError};
use nvme_host_uefi::time::FirmwareTime;
use uefi::{Handle, Status, boot};

use crate::check::{
    Failure, Found, NOT_SUPPORTED, ensure, firmware_reads, for_each, program, say, unchanged, usage, with,
};
use crate::sys::{Between, Manner, release};

/// Puts a function in between and does everything with it.
pub(crate) fn between() -> Result<(), Failure> {
    let mut first = None;
    for_each(|handle| {
        first = first.or(Some(handle));
        Ok(())
    })?;
    let real = first.ok_or(Failure::new("no controller"))?;
    boot::disconnect_controller(real, None, None)?;
    let (handle, between) = Between::install(real).ok_or(Failure::new("nothing in between"))?;
    nothing_sent(handle, between)?;
    everything_ended(handle, between)?;
    attributes_restored(handle)?;
    never_ready(handle, between)?;
    // The firmware has the function again, which is ready now.
    boot::connect_controller(real, &[], None, true)?;
    firmware_reads(real)?;
    boot::disconnect_controller(real, None, None)?;
    stuck(handle, between)?;
    boot::connect_controller(real, &[], None, true)?;
    firmware_reads(real)?;
    say(format_args!("the firmware's block device works after both\n"))
}

/// Hands a function back that no driver of the firmware had, and that none would take, because it has no device path.
fn hand_back_to_nobody(taken: Takeover) -> Result<(), Failure> {
    ensure("a function that had no driver is given back", taken.hand_back() == Ok(()))
}

/// One session, in which a block is read.
fn once(handle: Handle) -> Result<(), Failure> {
    let taken = Takeover::open(handle)?;
    let mut slots = [const { ArenaSlot::new() }; 16];
    let arena = PciArena::new(taken.io(), &mut slots);
    with(&taken, &PciRegisters::new(taken.io()), &arena, |session| {
        session.read(NamespaceId::new(1), Lba::new(0), 8, |_| Ok::<(), Failure>(()))
    })?;
    hand_back_to_nobody(taken)
}

/// Commands that are not supported are not sent.
fn nothing_sent(handle: Handle, between: &Between) -> Result<(), Failure> {
    let rings = || {
        let taken = Takeover::open(handle)?;
        let mut slots = [const { ArenaSlot::new() }; 16];
        let arena = PciArena::new(taken.io(), &mut slots);
        between.take_rings();
        with(&taken, &PciRegisters::new(taken.io()), &arena, |_| Ok(()))?;
        Ok::<u32, Failure>(between.take_rings())
    };
    let plain = rings()?;
    ensure("Identify was sent", plain > 0)?;
    // It is the third controller of the list: its handle is the latest.
    program("cdq watch --tracked 2 --controller 2", Status::UNSUPPORTED, &NOT_SUPPORTED)?;
    let watched = between.take_rings();
    if watched != plain {
        return Err(Failure::numbers(
            "commands were sent for what is not supported",
            plain.into(),
            watched.into(),
        ));
    }
    say(format_args!("not supported, and not sent: {watched} rings of the admin queue with and without\n"))
}

/// Fails unless mappings and buffers were made since the last time, and all of them ended. Returns how many.
fn ended(between: &Between) -> Result<(u32, u32), Failure> {
    let [(mapped, unmapped), (allocated, freed)] = between.take_memory();
    if mapped != unmapped || mapped == 0 {
        return Err(Failure::numbers("mappings are left", mapped.into(), unmapped.into()));
    }
    if allocated != freed || allocated == 0 {
        return Err(Failure::numbers("buffers are left", allocated.into(), freed.into()));
    }
    Ok((mapped, allocated))
}

/// Mappings and buffers end with a session, with the program and with a controller that is never ready.
fn everything_ended(handle: Handle, between: &Between) -> Result<(), Failure> {
    once(handle)?;
    let before = usage()?;
    between.take_memory();
    once(handle)?;
    let session = ended(between)?;
    program("cdq watch --tracked 2 --controller 2", Status::UNSUPPORTED, &NOT_SUPPORTED)?;
    let run = ended(between)?;
    between.behave(Manner::NeverReady);
    program(
        "identify --controller 2",
        Status::DEVICE_ERROR,
        &["did not become ready in the time it states"],
    )?;
    between.behave(Manner::Count);
    let refused = ended(between)?;
    unchanged(before)?;

    // One that is kept on purpose is seen.
    let taken = Takeover::open(handle)?;
    let mut slots = [const { ArenaSlot::new() }; 2];
    let arena = PciArena::new(taken.io(), &mut slots);
    let region = arena.allocate(Pool::Data, 4096, 4096, Direction::Bidirectional);
    let region = region.map_err(|_| Failure::new("no memory"))?;
    ensure("a mapping and a buffer that are kept are seen", between.take_memory() == [(1, 0), (1, 0)])?;
    release(&arena, region);
    ensure("they end with their release", between.take_memory() == [(0, 1), (0, 1)])?;
    hand_back_to_nobody(taken)?;
    unchanged(before)?;
    say(format_args!(
        "mappings and buffers ended: session {session:?}, program {run:?}, never ready {refused:?}\n"
    ))
}

/// A function without bus mastering has none after the hand-back, either.
fn attributes_restored(handle: Handle) -> Result<(), Failure> {
    let read = || Ok::<u64, Failure>(peek(handle)?.attributes()?);
    let was = read()?;
    for bus_master in [false, true] {
        match bus_master {
            true => peek(handle)?.enable_attributes(attributes::BUS_MASTER)?,
            false => peek(handle)?.disable_attributes(attributes::BUS_MASTER)?,
        }
        let before = read()?;
        ensure("bus mastering can be changed", (before & attributes::BUS_MASTER != 0) == bus_master)?;
        let taken = Takeover::open(handle)?;
        ensure("it is on", taken.io().attributes()? & attributes::BUS_MASTER != 0)?;
        hand_back_to_nobody(taken)?;
        if read()? != before {
            return Err(Failure::numbers("attributes are not as they were", before, read()?));
        }
        once(handle)?;
        if read()? != before {
            return Err(Failure::numbers("attributes are not as they were after use", before, read()?));
        }
    }
    let io = peek(handle)?;
    io.set_attributes(was)?;
    say(format_args!("attributes are as they were, with bus mastering and without\n"))
}

/// A controller that is never ready.
fn never_ready(handle: Handle, between: &Between) -> Result<(), Failure> {
    between.behave(Manner::NeverReady);
    let taken = Takeover::open(handle)?;
    let (mut slots, mut storage) = ([const { ArenaSlot::new() }; 16], Storage::new());
    let arena = PciArena::new(taken.io(), &mut slots);
    let (registers, time, link) = (PciRegisters::new(taken.io()), FirmwareTime::new(), Link::new());
    let answer = taken.session(&registers, &arena, &link, &mut storage, &time).err();
    let answer = answer.ok_or(Failure::new("a controller that is never ready was used"))?;
    if answer != TakeoverError::Session(SessionError::Fault(Fault::NotReadyInTime)) {
        return Err(answer.into());
    }
    ensure("no memory is left", arena.live() == 0 && arena.lost() == 0)?;
    between.behave(Manner::Count);
    hand_back_to_nobody(taken)?;
    say(format_args!("never ready: {answer}\n"))
}

/// One that does not let itself be disabled keeps what it has, without access to it.
fn stuck(handle: Handle, between: &Between) -> Result<(), Failure> {
    let taken = Takeover::open(handle)?;
    let mut slots = [const { ArenaSlot::new() }; 16];
    let arena = PciArena::new(taken.io(), &mut slots);
    let stuck = with(&taken, &PciRegisters::new(taken.io()), &arena, |_| {
        between.behave(Manner::Stuck);
        Ok(())
    });
    let expected = SessionError::Fault(Fault::NotDisabledInTime);
    let told = matches!(stuck, Err(Failure { found: Some(Found::Session(error)), .. }) if error == expected);
    ensure("a controller that is stuck is told of", told)?;
    ensure("its memory is kept", arena.live() > 0)?;
    let answer = taken.hand_back().err().ok_or(Failure::new("a controller that is stuck is handed back"))?;
    ensure("it is not handed back", answer == HandBackError::StillEnabled)?;
    ensure("it reaches no memory", peek(handle)?.attributes()? & attributes::BUS_MASTER == 0)?;
    between.behave(Manner::Count);
    say(format_args!("stuck: {answer}\n"))
}

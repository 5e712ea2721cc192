// SPDX-License-Identifier: MIT OR Apache-2.0
//! Runs the driver against the controller in one thread, without std, alloc or libc: bring-up, an I/O queue pair,
//! blocks written and read back, deletion, disable. Exit code 0 if all of it worked and no memory is left over, else
//! the number of the step that failed.
#![no_std]
#![no_main]

mod media;
mod memory;
mod sys;

use core::cell::{Cell, RefCell};
use core::time::Duration;

use media::{Media, Polled};
use memory::Memory;
use nvme_controller::{
    CommandSlot, CompletionQueueSlot, Controller, ControllerConfig, ControllerStorage, DataQueueSlot,
    ErrorSlot, EventSlot, MisalignedAccess, Namespace, Port, SubmissionQueueSlot, Subsystem, SubsystemConfig,
    SubsystemStorage,
};
use nvme_core::admin::AdminSlot;
use nvme_core::controller::{EnableOptions, Link};
use nvme_core::dma::{Direction, DmaArena, Pool};
use nvme_core::io::{
    Buffer, CreateIoQueuePair, CreateOutcome, DeleteIoQueuePair, DeleteOutcome, IoQueueOptions, IoSlot,
};
use nvme_core::register::{Offset, RegisterIo};
use nvme_core::time::{Instant, Step};
use nvme_core::wire::nvm::{Read, Write};
use nvme_core::wire::{Command, CommandId, ControllerId, Lba, NamespaceId, QueueId};

const MEDIA: usize = 64 * 1024;
const TRANSFER: usize = 3 * 4096;
const NAMESPACE: NamespaceId = NamespaceId::new(1);

type Device<'s> = Subsystem<'s, &'s Memory, Media<MEDIA>, Polled>;

/// One controller's registers, reached by a call; each access also lets the device work.
struct Registers<'c, 's> {
    device: &'c RefCell<Device<'s>>,
    port: Port,
}

impl RegisterIo for Registers<'_, '_> {
    type Error = MisalignedAccess;

    fn read32(&self, offset: Offset) -> Result<u32, MisalignedAccess> {
        self.device.borrow().read32(self.port, offset)
    }

    fn write32(&self, offset: Offset, value: u32) -> Result<(), MisalignedAccess> {
        self.device.borrow_mut().write32(self.port, offset, value)
    }
}

/// A step that failed; its number is the exit code.
struct Failed(u8);

/// Turns anything that went wrong at step `number` into its exit code.
trait Check<T> {
    fn check(self, number: u8) -> Result<T, Failed>;
}

impl<T> Check<T> for Option<T> {
    fn check(self, number: u8) -> Result<T, Failed> {
        self.ok_or(Failed(number))
    }
}

impl<T, E> Check<T> for Result<T, E> {
    fn check(self, number: u8) -> Result<T, Failed> {
        self.map_err(|_| Failed(number))
    }
}

/// Polls a step machine to its end, the device in turn with it, within a bounded number of rounds.
fn drive(
    device: &RefCell<Device<'_>>,
    clock: &Cell<u64>,
    number: u8,
    mut poll: impl FnMut(Instant) -> Option<Step>,
) -> Result<(), Failed> {
    for _ in 0..10_000 {
        clock.set(clock.get() + 1000);
        if poll(Instant::from_micros(clock.get())).check(number)? == Step::Done {
            return Ok(());
        }
        device.borrow_mut().poll(8);
    }
    Err(Failed(number))
}

fn work() -> Result<(), Failed> {
    let memory = Memory::new();
    let mut submission_queues = [SubmissionQueueSlot::new(); 2];
    let mut completion_queues = [CompletionQueueSlot::new(); 2];
    let mut commands = [CommandSlot::new(); 9];
    let mut requests = [CommandId::new(0); 2];
    let mut events = [EventSlot::new(); 2];
    let mut errors = [ErrorSlot::new(); 2];
    let storage = ControllerStorage {
        submission_queues: &mut submission_queues,
        completion_queues: &mut completion_queues,
        commands: &mut commands,
        event_requests: &mut requests,
        events: &mut events,
        errors: &mut errors,
        state: &mut [],
        tracked_ranges: &mut [],
        tracked_bits: &mut [],
    };
    let id = ControllerId::new(1);
    let mut controllers = [Controller::new(ControllerConfig::managing(id), &memory, storage)];
    let mut namespaces = [Namespace::new(NAMESPACE, Media([0; MEDIA]), [0; 16])];
    let mut data_queues = [DataQueueSlot::new(); 1];
    let mut scratch = [0; 4096];
    let lent = SubsystemStorage {
        controllers: &mut controllers,
        namespaces: &mut namespaces,
        data_queues: &mut data_queues,
        scratch: &mut scratch,
    };
    let device = RefCell::new(Subsystem::new(SubsystemConfig::default(), lent, Polled).check(1)?);
    let port = device.borrow().port(id).check(2)?;
    let registers = Registers { device: &device, port };
    let clock = Cell::new(0);
    let link = Link::new();

    let mut disabling = sys::attach_embedded(&registers, &memory, &link).check(3)?;
    drive(&device, &clock, 4, |now| disabling.poll(now).ok())?;
    let mut admin_slots = [const { AdminSlot::new() }; 8];
    let options = EnableOptions { max_transfer: 64 * 1024, ..EnableOptions::default() };
    let mut enabling = disabling.finish().check(5)?.enable(&options, &mut admin_slots).check(6)?;
    drive(&device, &clock, 7, |now| enabling.poll(now).ok())?;
    let mut ready = enabling.finish().check(8)?;

    let mut io_slots = [const { IoSlot::<()>::new() }; 4];
    let options = IoQueueOptions { max_transfer: 64 * 1024, ..IoQueueOptions::new(QueueId::new(1), 4) };
    let mut create = CreateIoQueuePair::new(ready.admin(), &options, &mut io_slots).check(9)?;
    drive(&device, &clock, 10, |now| {
        ready.poll(now).ok()?;
        Some(create.poll(ready.admin(), now))
    })?;
    let CreateOutcome::Created(mut pair) = create.finish().check(11)? else { return Err(Failed(12)) };

    let region = memory.allocate(Pool::Data, TRANSFER, 4096, Direction::Bidirectional).check(13)?;
    let mut pattern = [0_u8; TRANSFER];
    for (index, byte) in pattern.iter_mut().enumerate() {
        *byte = (index / 7) as u8;
    }
    region.write(0, &pattern).check(14)?;
    let blocks = (TRANSFER / 512) as u32;
    let write = Write::new(NAMESPACE, Lba::new(5), blocks).encode();
    let read = Read::new(NAMESPACE, Lba::new(5), blocks).encode();
    let mut buffer = Some(Buffer::whole(region));
    for (entry, number) in [(write, 15), (read, 16)] {
        let region = buffer.take().check(number)?;
        if entry == read {
            region.region().zero(0..TRANSFER).check(number)?;
        }
        pair.submit(&entry, Some(region), (), None).check(number)?;
        pair.ring().check(number)?;
        drive(&device, &clock, number, |_| match pair.poll() {
            Ok(Some(done)) if done.entry.status().is_success() => {
                buffer = done.buffer;
                pair.acknowledge().ok().map(|()| Step::Done)
            }
            Ok(None) => Some(Step::Again),
            _ => None,
        })?;
    }
    let region = buffer.check(17)?.into_region();
    let mut found = [0_u8; TRANSFER];
    region.read(0, &mut found).check(18)?;
    if found != pattern {
        return Err(Failed(19));
    }

    let mut delete = DeleteIoQueuePair::new(pair, Duration::from_secs(1));
    drive(&device, &clock, 20, |now| {
        ready.poll(now).ok()?;
        Some(delete.poll(ready.admin(), now))
    })?;
    let DeleteOutcome::Deleted { .. } = delete.finish().check(21)? else { return Err(Failed(22)) };
    let mut disabling = ready.disable();
    drive(&device, &clock, 23, |now| disabling.poll(now).ok())?;
    let disabled = disabling.finish().check(24)?;
    nvme_core::dma::release(&memory, region, &disabled.quiesced());
    disabled.detach();
    if memory.live() == 0 { Ok(()) } else { Err(Failed(25)) }
}

fn run() -> u8 {
    match work() {
        Ok(()) => 0,
        Err(Failed(number)) => number,
    }
}

// SPDX-License-Identifier: MIT OR Apache-2.0
//! What every part of the program stands on: subsystems whose controllers are reached by calls, and one thread that
//! polls drivers and devices in turn.

use core::cell::{Cell, RefCell};
use core::hint::black_box;

use nvme_controller::{
    CommandSlot, CompletionQueueSlot, ControllerStorage, ErrorSlot, EventSlot, Port, SubmissionQueueSlot,
    Subsystem, TrackedRange,
};
use nvme_core::admin::AdminSlot;
use nvme_core::controller::{EnableOptions, Link, Ready};
use nvme_core::io::{
    Buffer, CreateIoQueuePair, CreateOutcome, DeleteIoQueuePair, DeleteOutcome, IoQueueOptions, IoQueuePair,
    IoSlot,
};
use nvme_core::register::{Offset, RegisterIo};
use nvme_core::time::{Instant, Step};
use nvme_core::wire::{CommandId, ControllerId, NamespaceId, QueueId, SubmissionQueueEntry};

use crate::media::{Media, Polled};
use crate::sys;
use crate::sys::memory::Memory;

pub const NAMESPACE: NamespaceId = NamespaceId::new(1);
pub const MANAGER: ControllerId = ControllerId::new(1);
pub const GUEST: ControllerId = ControllerId::new(2);
const MAX_TRANSFER: usize = 64 * 1024;
const ROUNDS: u32 = 100_000;

pub type Device<'s> = Subsystem<'s, &'s Memory, Media<'s>, Polled>;

/// A step that failed; its number is the exit code.
#[derive(Clone, Copy, Debug)]
pub struct Failed(pub u8);

/// Turns anything that went wrong at step `number` into its exit code.
pub trait Check<T> {
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

impl Check<()> for bool {
    fn check(self, number: u8) -> Result<(), Failed> {
        if self { Ok(()) } else { Err(Failed(number)) }
    }
}

/// Memory lent to one controller.
pub struct Capacity {
    submission_queues: [SubmissionQueueSlot; 2],
    completion_queues: [CompletionQueueSlot; 2],
    commands: [CommandSlot; 17],
    event_requests: [CommandId; 4],
    events: [EventSlot; 8],
    errors: [ErrorSlot; 4],
    state: [u8; 1024],
    tracked_ranges: [TrackedRange; 2],
    tracked_bits: [u64; 16],
}

impl Capacity {
    pub fn new() -> Self {
        Self {
            submission_queues: [const { SubmissionQueueSlot::new() }; 2],
            completion_queues: [const { CompletionQueueSlot::new() }; 2],
            commands: [CommandSlot::new(); 17],
            event_requests: [CommandId::new(0); 4],
            events: [const { EventSlot::new() }; 8],
            errors: [const { ErrorSlot::new() }; 4],
            state: [0; 1024],
            tracked_ranges: [const { TrackedRange::new() }; 2],
            tracked_bits: [0; 16],
        }
    }

    pub fn lend(&mut self) -> ControllerStorage<'_> {
        ControllerStorage {
            submission_queues: &mut self.submission_queues,
            completion_queues: &mut self.completion_queues,
            commands: &mut self.commands,
            event_requests: &mut self.event_requests,
            events: &mut self.events,
            errors: &mut self.errors,
            state: &mut self.state,
            tracked_ranges: &mut self.tracked_ranges,
            tracked_bits: &mut self.tracked_bits,
        }
    }
}

/// A register access that was not possible.
#[derive(Clone, Copy, Debug)]
pub enum AccessError {
    /// The offset is not a multiple of the access's size.
    Misaligned,
    /// The device is at work.
    Busy,
}

/// One controller's registers, reached by a call. A guest's endpoint moves from one controller to another.
pub struct Registers<'c, 's> {
    endpoint: Cell<(&'c RefCell<Device<'s>>, Port)>,
}

impl<'c, 's> Registers<'c, 's> {
    pub fn new(device: &'c RefCell<Device<'s>>, id: ControllerId) -> Option<Self> {
        Some(Self { endpoint: Cell::new((device, port(device, id)?)) })
    }

    /// Moves the endpoint to controller `id` of `device`.
    pub fn switch(&self, device: &'c RefCell<Device<'s>>, id: ControllerId) -> Option<()> {
        self.endpoint.set((device, port(device, id)?));
        Some(())
    }
}

fn port(device: &RefCell<Device<'_>>, id: ControllerId) -> Option<Port> {
    device.try_borrow().ok()?.port(id)
}

impl RegisterIo for Registers<'_, '_> {
    type Error = AccessError;

    fn read32(&self, offset: Offset) -> Result<u32, AccessError> {
        let (device, port) = self.endpoint.get();
        let device = device.try_borrow().map_err(|_| AccessError::Busy)?;
        device.read32(port, offset).map_err(|_| AccessError::Misaligned)
    }

    fn write32(&self, offset: Offset, value: u32) -> Result<(), AccessError> {
        let (device, port) = self.endpoint.get();
        let mut device = device.try_borrow_mut().map_err(|_| AccessError::Busy)?;
        device.write32(port, offset, value).map_err(|_| AccessError::Misaligned)
    }
}

/// All devices, and the time.
pub struct World<'w, 's> {
    pub devices: &'w [RefCell<Device<'s>>],
    pub clock: Cell<u64>,
}

impl World<'_, '_> {
    /// One millisecond later, and every device polled.
    pub fn tick(&self) -> Instant {
        for device in self.devices {
            if let Ok(mut device) = device.try_borrow_mut() {
                device.poll(8);
            }
        }
        self.clock.set(self.clock.get().saturating_add(1000));
        Instant::from_micros(self.clock.get())
    }

    /// Polls a step machine to its end, the devices in turn with it, within a bounded number of rounds.
    pub fn drive(&self, number: u8, mut poll: impl FnMut(Instant) -> Option<Step>) -> Result<(), Failed> {
        for _ in 0..ROUNDS {
            if poll(self.tick()).check(number)? == Step::Done {
                return Ok(());
            }
        }
        Err(Failed(number))
    }

    /// Brings a controller up.
    pub fn bring_up<'d, 'q, R: RegisterIo>(
        &self,
        number: u8,
        registers: &'d R,
        memory: &'d Memory,
        link: &'d Link,
        slots: &'q mut [AdminSlot],
    ) -> Result<Ready<'d, 'q, R, Memory>, Failed> {
        let mut disabling = sys::attach_embedded(registers, memory, link).check(number)?;
        self.drive(number, |now| disabling.poll(now).ok())?;
        // Options are kept from the optimiser, so that nothing is left out because it cannot happen with these.
        let options = black_box(EnableOptions { max_transfer: MAX_TRANSFER, ..EnableOptions::default() });
        let disabled = disabling.finish().check(number)?;
        let mut enabling = disabled.enable(&options, slots).check(number)?;
        self.drive(number, |now| enabling.poll(now).ok())?;
        enabling.finish().check(number)
    }

    /// Creates I/O queue pair 1.
    pub fn create_pair<'d, 'q, R: RegisterIo>(
        &self,
        number: u8,
        ready: &mut Ready<'d, '_, R, Memory>,
        slots: &'q mut [IoSlot<()>],
    ) -> Result<IoQueuePair<'d, 'q, R, Memory, ()>, Failed> {
        let options =
            IoQueueOptions { max_transfer: MAX_TRANSFER, ..IoQueueOptions::new(QueueId::new(1), 4) };
        let options = black_box(options);
        let mut create = CreateIoQueuePair::new(ready.admin(), &options, slots).check(number)?;
        self.drive(number, |now| {
            ready.poll(now).ok()?;
            Some(create.poll(ready.admin(), now))
        })?;
        match create.finish().check(number)? {
            CreateOutcome::Created(pair) => Ok(pair),
            _ => Err(Failed(number)),
        }
    }

    /// Runs one I/O command and gives its buffer back.
    pub fn transfer<R: RegisterIo>(
        &self,
        number: u8,
        pair: &mut IoQueuePair<'_, '_, R, Memory, ()>,
        entry: &SubmissionQueueEntry,
        buffer: Option<Buffer>,
    ) -> Result<Option<Buffer>, Failed> {
        pair.submit(entry, buffer, (), None).check(number)?;
        pair.ring().check(number)?;
        let mut back = None;
        self.drive(number, |_| match pair.poll() {
            Ok(Some(done)) if done.entry.status().is_success() => {
                back = done.buffer;
                pair.acknowledge().ok().map(|()| Step::Done)
            }
            Ok(None) => Some(Step::Again),
            _ => None,
        })?;
        Ok(back)
    }

    /// Deletes an I/O queue pair.
    pub fn delete_pair<'d, R: RegisterIo>(
        &self,
        number: u8,
        ready: &mut Ready<'d, '_, R, Memory>,
        pair: IoQueuePair<'d, '_, R, Memory, ()>,
    ) -> Result<(), Failed> {
        let mut delete = DeleteIoQueuePair::new(pair, core::time::Duration::from_secs(1));
        self.drive(number, |now| {
            ready.poll(now).ok()?;
            Some(delete.poll(ready.admin(), now))
        })?;
        match delete.finish().check(number)? {
            DeleteOutcome::Deleted { .. } => Ok(()),
            _ => Err(Failed(number)),
        }
    }

    /// Disables a controller; `then` is called with the proof.
    pub fn bring_down<R: RegisterIo>(
        &self,
        number: u8,
        ready: Ready<'_, '_, R, Memory>,
        then: impl FnOnce(&nvme_core::controller::Quiesced<'_>),
    ) -> Result<(), Failed> {
        let mut disabling = ready.disable();
        self.drive(number, |now| disabling.poll(now).ok())?;
        let disabled = disabling.finish().check(number)?;
        then(&disabled.quiesced());
        disabled.detach();
        Ok(())
    }
}

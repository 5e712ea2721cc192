// SPDX-License-Identifier: MIT OR Apache-2.0
//! Subsystems of a managing and a migratable controller, each a PCI function, in one thread and in virtual time. What is
//! lent is lent for ever.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use nvme_controller::host::{BlockStorage, Interrupts, StorageError};
use nvme_controller::{
    CommandSlot, CompletionQueueSlot, Controller, ControllerConfig, ControllerStorage, DataQueueSlot,
    ErrorSlot, EventSlot, Namespace, SubmissionQueueSlot, Subsystem, SubsystemConfig, SubsystemStorage,
    TrackedRange, state_bytes,
};
use nvme_core::controller::Link;
use nvme_core::time::Instant;
use nvme_core::wire::{CommandId, ControllerId, Lba, NamespaceId};
use nvme_host_uefi::arena::{ArenaSlot, PciArena};
use nvme_host_uefi::registers::PciRegisters;
use nvme_host_uefi::session::{Session, Storage};
use nvme_host_uefi::sys::attributes::{BUS_MASTER, MEMORY};
use nvme_host_uefi::time::Wait;

use crate::sys::{self, BusMemory, Function};

pub(crate) const MANAGER: ControllerId = ControllerId::new(1);
pub(crate) const GUEST: ControllerId = ControllerId::new(2);
pub(crate) const NAMESPACE: NamespaceId = NamespaceId::new(1);
/// Blocks of the namespace.
pub(crate) const BLOCKS: u64 = 1024;

pub(crate) struct Quiet;

impl Interrupts for Quiet {
    fn interrupt(&self, _: ControllerId, _: u16) {}
}

/// Media in memory.
#[derive(Clone)]
pub(crate) struct Media {
    pub(crate) bytes: Rc<RefCell<Vec<u8>>>,
    shift: u8,
}

impl Media {
    fn range(&self, lba: Lba, len: usize) -> std::ops::Range<usize> {
        let start = (lba.get() as usize) << self.shift;
        start..start + len
    }
}

impl BlockStorage for Media {
    fn block_shift(&self) -> u8 {
        self.shift
    }
    fn blocks(&self) -> u64 {
        (self.bytes.borrow().len() >> self.shift) as u64
    }
    fn read(&mut self, lba: Lba, bytes: &mut [u8]) -> Result<(), StorageError> {
        bytes.copy_from_slice(&self.bytes.borrow()[self.range(lba, bytes.len())]);
        Ok(())
    }
    fn write(&mut self, lba: Lba, bytes: &[u8]) -> Result<(), StorageError> {
        let range = self.range(lba, bytes.len());
        self.bytes.borrow_mut()[range].copy_from_slice(bytes);
        Ok(())
    }
    fn write_zeroes(&mut self, lba: Lba, blocks: u64, _: bool) -> Result<(), StorageError> {
        let range = self.range(lba, (blocks as usize) << self.shift);
        self.bytes.borrow_mut()[range].fill(0);
        Ok(())
    }
    fn flush(&mut self) -> Result<(), StorageError> {
        Ok(())
    }
    fn allocated(&self, _: Lba, limit: u64) -> (bool, u64) {
        (true, limit)
    }
    fn set_uncorrectable(&mut self, _: Lba, _: u64) -> Result<(), StorageError> {
        Err(StorageError::WriteProtected)
    }
}

pub(crate) type Device = Subsystem<'static, &'static BusMemory, Media, Quiet>;

pub(crate) fn lent<T>(count: usize, make: impl Fn() -> T) -> &'static mut [T] {
    Box::leak((0..count).map(|_| make()).collect())
}

fn controller(
    config: ControllerConfig,
    memory: &'static BusMemory,
) -> Controller<'static, &'static BusMemory> {
    let storage = ControllerStorage {
        submission_queues: lent(4, SubmissionQueueSlot::new),
        completion_queues: lent(4, CompletionQueueSlot::new),
        commands: lent(32, CommandSlot::new),
        event_requests: lent(4, || CommandId::new(0)),
        events: lent(8, EventSlot::new),
        errors: lent(4, ErrorSlot::new),
        state: lent(state_bytes(4, 4, 4, 32), || 0),
        tracked_ranges: lent(2, TrackedRange::new),
        tracked_bits: lent(16, || 0),
    };
    Controller::new(config, memory, storage)
}

/// A subsystem and what its two functions are.
pub(crate) struct Side {
    pub(crate) device: &'static RefCell<Device>,
    pub(crate) manager: &'static Function,
    pub(crate) guest: &'static Function,
    pub(crate) media: Media,
}

impl Side {
    /// A subsystem whose namespace has blocks of 2^`shift` bytes, each full of what `content` says.
    pub(crate) fn new(shift: u8, content: impl Fn(u64) -> u8) -> Self {
        Self::of(shift, BLOCKS, content)
    }

    /// The same with so many blocks.
    pub(crate) fn of(shift: u8, blocks: u64, content: impl Fn(u64) -> u8) -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let name = format!("nqn.2014-08.org.nvmexpress:uefi:{number}");
        Self::named(name, "1", shift, blocks, content)
    }

    /// The same of this name and serial number.
    pub(crate) fn named(
        name: String,
        serial_number: &'static str,
        shift: u8,
        blocks: u64,
        content: impl Fn(u64) -> u8,
    ) -> Self {
        let config = SubsystemConfig { name: name.leak(), serial_number, ..SubsystemConfig::default() };
        Self::with(config, shift, blocks, content)
    }

    /// The same that is like this.
    pub(crate) fn with(
        config: SubsystemConfig<'static>,
        shift: u8,
        blocks: u64,
        content: impl Fn(u64) -> u8,
    ) -> Self {
        let bytes = (0..blocks).flat_map(|lba| vec![content(lba); 1 << shift]).collect();
        let media = Media { bytes: Rc::new(RefCell::new(bytes)), shift };
        let (manager, guest) = (BusMemory::new(), BusMemory::new());
        let controllers = vec![
            controller(ControllerConfig::managing(MANAGER), manager),
            controller(ControllerConfig::migratable(GUEST), guest),
        ];
        let storage = SubsystemStorage {
            controllers: Box::leak(controllers.into_boxed_slice()),
            namespaces: Box::leak(Box::new([Namespace::new(NAMESPACE, media.clone(), [7; 16])])),
            data_queues: lent(2, DataQueueSlot::new),
            scratch: lent(8192, || 0),
        };
        let subsystem = Subsystem::new(config, storage, Quiet).expect("a subsystem");
        let (one, other) = (subsystem.port(MANAGER).expect("there"), subsystem.port(GUEST).expect("there"));
        let device: &'static RefCell<Device> = Box::leak(Box::new(RefCell::new(subsystem)));
        let manager = Function::new(device, one, manager);
        manager.attributes.set(MEMORY | BUS_MASTER);
        Self { device, manager, guest: Function::new(device, other, guest), media }
    }

    /// Buffers and mappings of both functions.
    pub(crate) fn live(&self) -> [(usize, usize); 2] {
        [self.manager.memory.live(), self.guest.memory.live()]
    }
}

/// Virtual time, in which devices work while somebody waits.
#[derive(Clone, Default)]
pub(crate) struct Time {
    devices: Vec<&'static RefCell<Device>>,
    now: Rc<Cell<u64>>,
    /// Until then no device works.
    stopped: Rc<Cell<u64>>,
}

impl Time {
    pub(crate) fn of(sides: &[&Side]) -> Self {
        Self {
            devices: sides.iter().map(|side| side.device).collect(),
            now: Rc::default(),
            stopped: Rc::default(),
        }
    }

    /// No device works for so many microseconds from now on.
    pub(crate) fn stop_for(&self, micros: u64) {
        self.stopped.set(self.now.get().saturating_add(micros));
    }
}

impl Wait for Time {
    fn now(&self) -> Instant {
        Instant::from_micros(self.now.get())
    }

    fn sleep(&self, time: Duration) {
        self.now.set(self.now.get() + (time.as_micros() as u64).max(1));
        if self.now.get() < self.stopped.get() {
            return;
        }
        for device in &self.devices {
            device.borrow_mut().poll(16);
        }
    }
}

pub(crate) type Arena = PciArena<'static, 'static>;
pub(crate) type Own = Session<'static, 'static, PciRegisters<'static>, Arena, Time>;

/// Brings a function's controller up.
pub(crate) fn open(function: &'static Function, time: &Time) -> (Own, &'static Arena) {
    function.attributes.set(MEMORY | BUS_MASTER);
    let registers = Box::leak(Box::new(PciRegisters::new(&function.io)));
    let arena: &'static Arena = Box::leak(Box::new(PciArena::new(&function.io, lent(64, ArenaSlot::new))));
    let link = Box::leak(Box::new(Link::new()));
    let (storage, time) = (Box::leak(Box::new(Storage::new())), Box::leak(Box::new(time.clone())));
    let disabling = sys::begin(&*registers, arena, &*link);
    (Session::open(disabling, arena, storage, &*time).expect("a session"), arena)
}

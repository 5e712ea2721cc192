// SPDX-License-Identifier: MIT OR Apache-2.0
//! A subsystem of this thread whose controllers reach checked memory.

use std::cell::RefCell;

use nvme_controller::host::{BlockStorage, Interrupts, StorageError};
use nvme_controller::{
    CommandSlot, CompletionQueueSlot, Controller, ControllerConfig, ControllerStorage, DataQueueSlot,
    ErrorSlot, EventSlot, Namespace, Port, SubmissionQueueSlot, Subsystem, SubsystemConfig, SubsystemStorage,
    state_bytes,
};
use nvme_core::register::{Offset, RegisterIo};
use nvme_core::wire::{CommandId, ControllerId, Lba, NamespaceId};

use super::CheckedMemory;

/// The managing controller.
pub const MANAGER: ControllerId = ControllerId::new(1);
/// The controller whose changes are logged.
pub const GUEST: ControllerId = ControllerId::new(2);
/// The one namespace.
pub const NAMESPACE: NamespaceId = NamespaceId::new(1);
const QUEUES: usize = 3;

/// A medium in memory, blocks of 512 bytes.
#[derive(Debug)]
pub struct Medium(Vec<u8>);

impl Medium {
    fn bytes(&mut self, lba: Lba, blocks: u64) -> &mut [u8] {
        let start = lba.get() as usize * 512;
        &mut self.0[start..start + blocks as usize * 512]
    }
}

impl BlockStorage for Medium {
    fn block_shift(&self) -> u8 {
        9
    }

    fn blocks(&self) -> u64 {
        self.0.len() as u64 / 512
    }

    fn read(&mut self, lba: Lba, bytes: &mut [u8]) -> Result<(), StorageError> {
        bytes.copy_from_slice(self.bytes(lba, bytes.len() as u64 / 512));
        Ok(())
    }

    fn write(&mut self, lba: Lba, bytes: &[u8]) -> Result<(), StorageError> {
        self.bytes(lba, bytes.len() as u64 / 512).copy_from_slice(bytes);
        Ok(())
    }

    fn write_zeroes(&mut self, lba: Lba, blocks: u64, _: bool) -> Result<(), StorageError> {
        self.bytes(lba, blocks).fill(0);
        Ok(())
    }

    fn flush(&mut self) -> Result<(), StorageError> {
        Ok(())
    }

    fn allocated(&self, _: Lba, limit: u64) -> (bool, u64) {
        (true, limit)
    }

    fn set_uncorrectable(&mut self, _: Lba, _: u64) -> Result<(), StorageError> {
        Err(StorageError::Write)
    }
}

/// Nobody waits for interrupts.
#[derive(Clone, Copy, Debug)]
pub struct Quiet;

impl Interrupts for Quiet {
    fn interrupt(&self, _: ControllerId, _: u16) {}
}

/// A subsystem over checked memory.
pub type CheckedSubsystem<'x, 'a, 's> = Subsystem<'x, CheckedMemory<'a, 's>, Medium, Quiet>;

/// The registers of one controller of it.
#[derive(Debug)]
pub struct LocalRegisters<'r, 'x, 'a, 's> {
    subsystem: &'r RefCell<CheckedSubsystem<'x, 'a, 's>>,
    port: Port,
}

impl<'r, 'x, 'a, 's> LocalRegisters<'r, 'x, 'a, 's> {
    /// The controller `id` of `subsystem`.
    ///
    /// # Panics
    /// There is none.
    #[must_use]
    pub fn new(subsystem: &'r RefCell<CheckedSubsystem<'x, 'a, 's>>, id: ControllerId) -> Self {
        let port = subsystem.borrow().port(id).expect("a controller of the subsystem");
        Self { subsystem, port }
    }

    /// Lets the subsystem do up to `budget` units of work at each controller.
    pub fn work(&self, budget: u32) {
        self.subsystem.borrow_mut().poll(budget);
    }
}

impl RegisterIo for LocalRegisters<'_, '_, '_, '_> {
    type Error = ();

    fn read32(&self, offset: Offset) -> Result<u32, ()> {
        self.subsystem.borrow().read32(self.port, offset).map_err(|_| ())
    }

    fn write32(&self, offset: Offset, value: u32) -> Result<(), ()> {
        self.subsystem.borrow_mut().write32(self.port, offset, value).map_err(|_| ())
    }
}

fn lend() -> ControllerStorage<'static> {
    ControllerStorage {
        submission_queues: Vec::leak((0..QUEUES).map(|_| SubmissionQueueSlot::new()).collect()),
        completion_queues: Vec::leak((0..QUEUES).map(|_| CompletionQueueSlot::new()).collect()),
        commands: Vec::leak((0..33).map(|_| CommandSlot::new()).collect()),
        event_requests: Vec::leak(vec![CommandId::new(0); 4]),
        events: Vec::leak((0..8).map(|_| EventSlot::new()).collect()),
        errors: Vec::leak((0..4).map(|_| ErrorSlot::new()).collect()),
        state: Vec::leak(vec![0; state_bytes(QUEUES, QUEUES, 4, 8)]),
        tracked_ranges: &mut [],
        tracked_bits: &mut [],
    }
}

/// The controllers and namespaces of a subsystem, in a place that outlives it.
pub type Parts<'x, 'a, 's> = (Vec<Controller<'x, CheckedMemory<'a, 's>>>, Vec<Namespace<Medium>>);

/// A managing controller and a guest's, whose memories these are, over a medium of `blocks` blocks. What it is lent
/// stays lent until the test program ends.
///
/// # Panics
/// The subsystem is not possible.
#[must_use]
pub fn subsystem<'x, 'a: 'x, 's: 'x>(
    manager: CheckedMemory<'a, 's>,
    guest: CheckedMemory<'a, 's>,
    blocks: usize,
    parts: &'x mut Option<Parts<'x, 'a, 's>>,
) -> CheckedSubsystem<'x, 'a, 's> {
    let (controllers, namespaces) = parts.insert((
        vec![
            Controller::new(ControllerConfig::managing(MANAGER), manager, lend()),
            Controller::new(ControllerConfig::migratable(GUEST), guest, lend()),
        ],
        vec![Namespace::new(NAMESPACE, Medium(vec![0; blocks * 512]), [1; 16])],
    ));
    let storage = SubsystemStorage {
        controllers,
        namespaces,
        data_queues: Vec::leak((0..2).map(|_| DataQueueSlot::new()).collect()),
        scratch: Vec::leak(vec![0; 8192]),
    };
    Subsystem::new(SubsystemConfig::default(), storage, Quiet).expect("a possible subsystem")
}

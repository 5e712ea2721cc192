// SPDX-License-Identifier: MIT OR Apache-2.0
//! One subsystem of a world: a managing controller, the guest's controller, one namespace.

use nvme_controller::host::Interrupts;
use nvme_controller::{
    CommandSlot, CompletionQueueSlot, Controller, ControllerConfig, ControllerStorage, DataQueueSlot,
    ErrorSlot, EventSlot, Namespace, SubmissionQueueSlot, Subsystem, SubsystemConfig, SubsystemStorage,
    TrackedRange, state_bytes,
};
use nvme_core::wire::{CommandId, ControllerId, NamespaceId};
use nvme_host_linux::embedded::{DeviceMemory, LocalSubsystem};

use super::disk::Disk;

/// The managing controller of either side.
pub const MANAGER: ControllerId = ControllerId::new(1);
/// The one namespace.
pub const NAMESPACE: NamespaceId = NamespaceId::new(1);
const QUEUES: usize = 4;
const COMMANDS: usize = 33;
const REQUESTS: usize = 4;
const EVENTS: usize = 8;
const SCRATCH: usize = 16 << 10;

/// Nobody waits for interrupts: everybody is polled.
#[derive(Clone, Copy, Debug)]
pub(super) struct Quiet;

impl Interrupts for Quiet {
    fn interrupt(&self, _: ControllerId, _: u16) {}
}

/// A subsystem of a world.
pub(super) type Side<'s> = LocalSubsystem<'s, Disk, Quiet>;

/// Memory lent to one controller.
struct Capacity {
    submission_queues: Vec<SubmissionQueueSlot>,
    completion_queues: Vec<CompletionQueueSlot>,
    commands: Vec<CommandSlot>,
    event_requests: Vec<CommandId>,
    events: Vec<EventSlot>,
    errors: Vec<ErrorSlot>,
    state: Vec<u8>,
    tracked_ranges: Vec<TrackedRange>,
    tracked_bits: Vec<u64>,
}

impl Capacity {
    fn new() -> Self {
        Self {
            submission_queues: (0..QUEUES).map(|_| SubmissionQueueSlot::new()).collect(),
            completion_queues: (0..QUEUES).map(|_| CompletionQueueSlot::new()).collect(),
            commands: (0..COMMANDS).map(|_| CommandSlot::new()).collect(),
            event_requests: vec![CommandId::new(0); REQUESTS],
            events: (0..EVENTS).map(|_| EventSlot::new()).collect(),
            errors: (0..4).map(|_| ErrorSlot::new()).collect(),
            state: vec![0; state_bytes(QUEUES, QUEUES, REQUESTS, EVENTS)],
            tracked_ranges: Vec::new(),
            tracked_bits: Vec::new(),
        }
    }

    fn lend(&mut self) -> ControllerStorage<'_> {
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

/// Everything a subsystem is lent.
pub(super) struct Capacities {
    controllers: [Capacity; 2],
    data_queues: Vec<DataQueueSlot>,
    scratch: Vec<u8>,
}

/// Controllers and namespaces, which borrow from [`Capacities`] and are borrowed by the subsystem in turn.
pub(super) struct Parts<'s> {
    controllers: [Controller<'s, &'s DeviceMemory<'s>>; 2],
    namespaces: [Namespace<Disk>; 1],
    data_queues: &'s mut [DataQueueSlot],
    scratch: &'s mut [u8],
}

impl Capacities {
    pub(super) fn new() -> Self {
        Self {
            controllers: [Capacity::new(), Capacity::new()],
            data_queues: (0..4).map(|_| DataQueueSlot::new()).collect(),
            scratch: vec![0; SCRATCH],
        }
    }

    /// The parts of a side: `memories` are the manager's and the guest's, whose controller is `guest`.
    pub(super) fn parts<'s>(
        &'s mut self,
        memories: [&'s DeviceMemory<'s>; 2],
        guest: ControllerId,
        disk: &Disk,
    ) -> Parts<'s> {
        let [manager_memory, guest_memory] = memories;
        let [manager, migratable] = &mut self.controllers;
        Parts {
            controllers: [
                Controller::new(ControllerConfig::managing(MANAGER), manager_memory, manager.lend()),
                Controller::new(ControllerConfig::migratable(guest), guest_memory, migratable.lend()),
            ],
            namespaces: [Namespace::new(NAMESPACE, disk.clone(), *b"one and the same")],
            data_queues: &mut self.data_queues,
            scratch: &mut self.scratch,
        }
    }
}

impl<'s> Parts<'s> {
    pub(super) fn subsystem(&'s mut self, config: SubsystemConfig<'s>) -> Side<'s> {
        let storage = SubsystemStorage {
            controllers: &mut self.controllers,
            namespaces: &mut self.namespaces,
            data_queues: self.data_queues,
            scratch: self.scratch,
        };
        Subsystem::new(config, storage, Quiet).expect("a possible subsystem")
    }
}

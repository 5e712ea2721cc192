// SPDX-License-Identifier: MIT OR Apache-2.0
//! A subsystem under test and its hosts, driven by registers and raw entries alone, so that the specification is the
//! only judge.
#![allow(dead_code, reason = "every suite uses a part of the harness")]

pub(crate) mod cdq;
pub(crate) mod disk;
pub(crate) mod host;
pub(crate) mod image;
pub(crate) mod memory;
pub(crate) mod sqe;
pub(crate) mod status;

use std::cell::RefCell;
use std::rc::Rc;

use nvme_controller::host::Interrupts;
use nvme_controller::{
    CommandSlot, CompletionQueueSlot, ConfigError, Controller, ControllerConfig, ControllerStorage,
    DataQueueSlot, ErrorSlot, EventSlot, ManagerConfig, Namespace, Port, Role, SubmissionQueueSlot,
    Subsystem, SubsystemConfig, SubsystemStorage, TrackedRange,
};
use nvme_core::register::Offset;
use nvme_core::wire::{CommandId, ControllerId, NamespaceId};

pub(crate) use disk::Disk;
pub(crate) use host::{Completion, Host};
pub(crate) use memory::Memory;
pub(crate) use status::Code;

/// The controllers of the usual world, by index.
pub(crate) const MANAGER: usize = 0;
pub(crate) const OTHER_MANAGER: usize = 1;
pub(crate) const GUEST: usize = 2;
pub(crate) const OTHER_GUEST: usize = 3;

/// Their identifiers.
pub(crate) const MANAGER_ID: u16 = 0x0007;
pub(crate) const OTHER_MANAGER_ID: u16 = 0x0009;
pub(crate) const GUEST_ID: u16 = 0x0121;
pub(crate) const OTHER_GUEST_ID: u16 = 0x0122;
/// An identifier that no controller has.
pub(crate) const NOBODY_ID: u16 = 0x0BAD;

/// The namespaces of the usual world: 512-byte and 4 KiB blocks; 2 is a valid identifier without a namespace.
pub(crate) const NSID: u32 = 1;
pub(crate) const INACTIVE_NSID: u32 = 2;
pub(crate) const LARGE_BLOCKS_NSID: u32 = 3;
/// Blocks of each namespace.
pub(crate) const BLOCKS: u64 = 4096;

pub(crate) const CC: u32 = 0x14;
pub(crate) const CSTS: u32 = 0x1C;
pub(crate) const NSSR: u32 = 0x20;
pub(crate) const AQA: u32 = 0x24;
pub(crate) const ASQ: u32 = 0x28;
pub(crate) const ACQ: u32 = 0x30;
/// CC with EN, 64-byte and 16-byte I/O entries and 4 KiB pages.
pub(crate) const ENABLE: u32 = 0x0046_0001;

/// Records interrupts as (controller identifier, vector).
#[derive(Clone, Default)]
pub(crate) struct Recorder(Rc<RefCell<Vec<(u16, u16)>>>);

impl Recorder {
    /// The interrupts since the last call.
    pub(crate) fn take(&self) -> Vec<(u16, u16)> {
        std::mem::take(&mut self.0.borrow_mut())
    }
}

impl Interrupts for Recorder {
    fn interrupt(&self, controller: ControllerId, vector: u16) {
        self.0.borrow_mut().push((controller.get(), vector));
    }
}

/// What a world is made of, before it is.
pub(crate) struct Setup {
    pub(crate) config: SubsystemConfig<'static>,
    pub(crate) controllers: Vec<ControllerConfig>,
    pub(crate) memories: Vec<Memory>,
    pub(crate) disks: Vec<(u32, Disk)>,
    pub(crate) data_queues: usize,
    /// Queue pairs of each controller, the admin queue pair included.
    pub(crate) queue_pairs: usize,
    /// Commands a controller may have fetched and not completed.
    pub(crate) commands: usize,
    pub(crate) event_requests: usize,
    pub(crate) state_bytes: usize,
    pub(crate) tracked_ranges: usize,
    pub(crate) tracked_words: usize,
    pub(crate) scratch: usize,
    /// log2 of the page size the hosts choose.
    pub(crate) page_shift: u8,
    /// Entries of the admin queues.
    pub(crate) admin_entries: u32,
}

impl Setup {
    pub(crate) fn new() -> Self {
        let managing = |id| ControllerConfig::managing(ControllerId::new(id));
        let migratable = |id| ControllerConfig::migratable(ControllerId::new(id));
        Self {
            config: SubsystemConfig::default(),
            controllers: vec![
                managing(MANAGER_ID),
                managing(OTHER_MANAGER_ID),
                migratable(GUEST_ID),
                migratable(OTHER_GUEST_ID),
            ],
            memories: (1..=4).map(|space| Memory::new(space << 32)).collect(),
            disks: vec![(NSID, Disk::new(9, BLOCKS)), (LARGE_BLOCKS_NSID, Disk::new(12, BLOCKS))],
            data_queues: 4,
            queue_pairs: 6,
            commands: 32,
            event_requests: 4,
            state_bytes: 16 * 1024,
            tracked_ranges: 8,
            tracked_words: 64,
            scratch: 16 * 1024,
            page_shift: 12,
            admin_entries: 32,
        }
    }

    /// The limits of the managing controller at `index`.
    pub(crate) fn manager(&mut self, index: usize) -> &mut ManagerConfig {
        match &mut self.controllers[index].role {
            Role::Managing(limits) => limits,
            Role::Migratable => panic!("controller {index} manages nothing"),
        }
    }

    /// The world, with every controller disabled.
    pub(crate) fn build(self) -> World {
        self.try_build().expect("a possible configuration")
    }

    /// As [`build`](Self::build), unless the configuration is not possible.
    pub(crate) fn try_build(self) -> Result<World, ConfigError> {
        let mut controllers = Vec::new();
        for (config, memory) in self.controllers.iter().zip(&self.memories) {
            let state = if matches!(config.role, Role::Migratable) { self.state_bytes } else { 0 };
            controllers.push(Controller::new(
                *config,
                memory.clone(),
                ControllerStorage {
                    submission_queues: vec![SubmissionQueueSlot::new(); self.queue_pairs].leak(),
                    completion_queues: vec![CompletionQueueSlot::new(); self.queue_pairs].leak(),
                    commands: vec![CommandSlot::new(); self.commands + 1].leak(),
                    event_requests: vec![CommandId::new(0); self.event_requests].leak(),
                    events: vec![EventSlot::new(); 8].leak(),
                    errors: vec![ErrorSlot::new(); 8].leak(),
                    state: vec![0; state].leak(),
                    tracked_ranges: vec![TrackedRange::new(); self.tracked_ranges].leak(),
                    tracked_bits: vec![0; self.tracked_words].leak(),
                },
            ));
        }
        let namespaces: Vec<_> = self
            .disks
            .iter()
            .map(|(id, disk)| Namespace::new(NamespaceId::new(*id), disk.clone(), [*id as u8; 16]))
            .collect();
        let interrupts = Recorder::default();
        let subsystem = Subsystem::new(
            self.config,
            SubsystemStorage {
                controllers: controllers.leak(),
                namespaces: namespaces.leak(),
                data_queues: vec![DataQueueSlot::new(); self.data_queues].leak(),
                scratch: vec![0; self.scratch].leak(),
            },
            interrupts.clone(),
        )?;
        let port = |config: &ControllerConfig| subsystem.port(config.id).expect("a port for each controller");
        let ports = self.controllers.iter().map(port).collect();
        let hosts = self
            .controllers
            .iter()
            .zip(self.memories)
            .map(|(config, memory)| Host::new(config.id.get(), memory, self.page_shift, self.admin_entries))
            .collect();
        Ok(World { subsystem, ports, hosts, disks: self.disks, interrupts, budget: 64 })
    }
}

/// A subsystem and the hosts of its controllers.
pub(crate) struct World {
    pub(crate) subsystem: Subsystem<'static, Memory, Disk, Recorder>,
    pub(crate) ports: Vec<Port>,
    pub(crate) hosts: Vec<Host>,
    pub(crate) disks: Vec<(u32, Disk)>,
    pub(crate) interrupts: Recorder,
    /// Budget of each poll.
    pub(crate) budget: u32,
}

impl World {
    /// Two managing and two migratable controllers, all enabled.
    pub(crate) fn new() -> Self {
        Self::with(|_| {})
    }

    /// The usual world with something changed, all controllers enabled.
    pub(crate) fn with(change: impl FnOnce(&mut Setup)) -> Self {
        let mut setup = Setup::new();
        change(&mut setup);
        let mut world = setup.build();
        for host in 0..world.hosts.len() {
            world.enable(host);
        }
        world
    }

    pub(crate) fn disk(&self, nsid: u32) -> Disk {
        self.disks.iter().find(|(id, _)| *id == nsid).expect("a namespace").1.clone()
    }

    pub(crate) fn block_bytes(&self, nsid: u32) -> usize {
        self.disk(nsid).block(0).len()
    }

    /// A reset from outside, as of the function the controller is.
    pub(crate) fn function_level_reset(&mut self, host: usize) {
        self.subsystem.reset(self.ports[host]);
    }

    pub(crate) fn memory(&self, host: usize) -> Memory {
        self.hosts[host].memory.clone()
    }

    pub(crate) fn read32(&self, host: usize, offset: u32) -> u32 {
        self.subsystem.read32(self.ports[host], Offset::new(offset)).unwrap()
    }

    pub(crate) fn write32(&mut self, host: usize, offset: u32, value: u32) {
        self.subsystem.write32(self.ports[host], Offset::new(offset), value).unwrap();
    }

    pub(crate) fn read64(&self, host: usize, offset: u32) -> u64 {
        u64::from(self.read32(host, offset)) | (u64::from(self.read32(host, offset + 4)) << 32)
    }

    pub(crate) fn write64(&mut self, host: usize, offset: u32, value: u64) {
        self.write32(host, offset, value as u32);
        self.write32(host, offset + 4, (value >> 32) as u32);
    }

    /// Works until nothing happens any more.
    pub(crate) fn settle(&mut self) {
        let mut quiet = 0;
        for _ in 0..100_000 {
            let activity = self.subsystem.poll(self.budget);
            quiet = if activity.fetched == 0 && activity.executed == 0 { quiet + 1 } else { 0 };
            if quiet == self.hosts.len() + 2 {
                return;
            }
        }
        panic!("the subsystem never comes to rest");
    }

    pub(crate) fn is_ready(&self, host: usize) -> bool {
        self.read32(host, CSTS) & 1 != 0
    }

    pub(crate) fn is_fatal(&self, host: usize) -> bool {
        self.read32(host, CSTS) & 2 != 0
    }
}

/// One row of a table: its name, the status it must end with, and what is done in a fresh world.
pub(crate) type Row = (&'static str, Code, fn(&mut World) -> Completion);

/// Runs every row in a world of its own and reports all that fail.
#[track_caller]
pub(crate) fn check(world: fn() -> World, rows: &[Row]) {
    let mut wrong = Vec::new();
    for (name, expected, action) in rows {
        println!("row: {name}");
        let completion = action(&mut world());
        if completion.code != *expected {
            wrong.push(format!("{name}: {expected:?} expected, {:?} found", completion.code));
        }
    }
    assert!(wrong.is_empty(), "{} of {} rows are wrong:\n{}", wrong.len(), rows.len(), wrong.join("\n"));
}

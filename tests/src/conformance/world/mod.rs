// SPDX-License-Identifier: MIT OR Apache-2.0
//! A subsystem under test and its hosts, driven by registers and raw entries alone, so that the specification is the
//! only judge.
//!
//! The host's queues, the entries by the figures and the status codes are the same text as in the suite of the
//! controller crate; what lies below them here is a [`Device`] of any back end.

#[path = "../../../../nvme-controller/tests/conformance/harness/cdq.rs"]
#[allow(dead_code, reason = "the controller's own suite uses the rest")]
pub(crate) mod cdq;
#[path = "../../../../nvme-controller/tests/conformance/harness/host.rs"]
#[allow(dead_code, reason = "the controller's own suite uses the rest")]
pub(crate) mod host;
#[path = "../../../../nvme-controller/tests/conformance/harness/image.rs"]
#[allow(dead_code, reason = "the controller's own suite uses the rest")]
pub(crate) mod image;
pub(crate) mod memory;
#[path = "../../../../nvme-controller/tests/conformance/harness/sqe.rs"]
#[allow(dead_code, reason = "the controller's own suite uses the rest")]
pub(crate) mod sqe;
#[path = "../../../../nvme-controller/tests/conformance/harness/status.rs"]
#[allow(dead_code, reason = "the controller's own suite uses the rest")]
pub(crate) mod status;

use std::ops::{Deref, DerefMut};
use std::rc::Rc;

use nvme_controller::{ControllerConfig, ManagerConfig, Role, SubsystemConfig};
use nvme_core::wire::ControllerId;

use super::backend::{AccessRefused, Backend, Device, NamespaceShape, Topology, Work};
use super::{attempt, not_applicable};

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

/// What a world is made of, before it is.
pub(crate) struct Setup {
    /// The subsystem.
    pub(crate) topology: Topology,
    /// log2 of the page size the hosts choose.
    pub(crate) page_shift: u8,
    /// Entries of the admin queues.
    pub(crate) admin_entries: u32,
}

impl Deref for Setup {
    type Target = Topology;

    fn deref(&self) -> &Topology {
        &self.topology
    }
}

impl DerefMut for Setup {
    fn deref_mut(&mut self) -> &mut Topology {
        &mut self.topology
    }
}

impl Setup {
    pub(crate) fn new() -> Self {
        let managing = |id| ControllerConfig::managing(ControllerId::new(id));
        let migratable = |id| ControllerConfig::migratable(ControllerId::new(id));
        let topology = Topology {
            config: SubsystemConfig::default(),
            controllers: vec![
                managing(MANAGER_ID),
                managing(OTHER_MANAGER_ID),
                migratable(GUEST_ID),
                migratable(OTHER_GUEST_ID),
            ],
            memories: vec![None; 4],
            namespaces: vec![
                NamespaceShape { id: NSID, block_shift: 9, blocks: BLOCKS },
                NamespaceShape { id: LARGE_BLOCKS_NSID, block_shift: 12, blocks: BLOCKS },
            ],
            data_queues: 4,
            queue_pairs: 6,
            commands: 32,
            event_requests: 4,
            state_bytes: 16 * 1024,
            tracked_ranges: 8,
            tracked_words: 64,
        };
        Self { topology, page_shift: 12, admin_entries: 32 }
    }

    /// The limits of the managing controller at `index`.
    pub(crate) fn manager(&mut self, index: usize) -> &mut ManagerConfig {
        match &mut self.controllers[index].role {
            Role::Managing(limits) => limits,
            Role::Migratable => panic!("controller {index} manages nothing"),
        }
    }

    /// The world, with every controller disabled.
    pub(crate) fn build(self, backend: &dyn Backend) -> World {
        let Self { topology, page_shift, admin_entries } = self;
        let ids: Vec<u16> = topology.controllers.iter().map(|config| config.id.get()).collect();
        let shapes = topology.namespaces.clone();
        let device = backend.open(topology).unwrap_or_else(|missing| not_applicable(missing.to_string()));
        let host = |(index, id): (usize, &u16)| {
            Host::new(*id, Memory(device.memory(index)), page_shift, admin_entries)
        };
        let hosts = ids.iter().enumerate().map(host).collect();
        World { device, hosts, shapes }
    }
}

/// A subsystem and the hosts of its controllers.
pub(crate) struct World {
    device: Box<dyn Device>,
    pub(crate) hosts: Vec<Host>,
    shapes: Vec<NamespaceShape>,
}

impl World {
    /// Two managing and two migratable controllers, all enabled.
    pub(crate) fn new(backend: &dyn Backend) -> Self {
        Self::with(backend, |_| {})
    }

    /// The usual world with something changed, all controllers enabled.
    pub(crate) fn with(backend: &dyn Backend, change: impl FnOnce(&mut Setup)) -> Self {
        let mut setup = Setup::new();
        change(&mut setup);
        let mut world = setup.build(backend);
        for host in 0..world.hosts.len() {
            world.enable(host);
        }
        world
    }

    /// Another usual world whose guest lives in the memory of this one's.
    pub(crate) fn beside(&self, backend: &dyn Backend) -> Self {
        let guest = Rc::clone(&self.hosts[GUEST].memory.0);
        Self::with(backend, |setup| setup.memories[GUEST] = Some(guest))
    }

    pub(crate) fn block_bytes(&self, nsid: u32) -> usize {
        1 << self.shapes.iter().find(|shape| shape.id == nsid).expect("a namespace").block_shift
    }

    pub(crate) fn memory(&self, host: usize) -> Memory {
        self.hosts[host].memory.clone()
    }

    /// One access of `width` bytes.
    pub(crate) fn access(&self, host: usize, offset: u32, width: u8) -> Result<u64, AccessRefused> {
        self.device.read(host, offset, width)
    }

    /// One access of `width` bytes.
    pub(crate) fn access_write(
        &mut self,
        host: usize,
        offset: u32,
        width: u8,
        value: u64,
    ) -> Result<(), AccessRefused> {
        self.device.write(host, offset, width, value)
    }

    pub(crate) fn read32(&self, host: usize, offset: u32) -> u32 {
        self.access(host, offset, 4).unwrap() as u32
    }

    pub(crate) fn write32(&mut self, host: usize, offset: u32, value: u32) {
        self.access_write(host, offset, 4, u64::from(value)).unwrap();
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
        assert!(self.device.work(Work::Settle), "the subsystem never comes to rest");
    }

    /// Lets the controllers take commands and leave them under way, where the back end can. A case that calls this
    /// accepts commands that are under way and commands that are not.
    pub(crate) fn begin(&mut self) {
        self.device.work(Work::Take);
    }

    /// Lets the controllers do a command or two.
    pub(crate) fn work_a_little(&mut self) {
        self.device.work(Work::Little);
    }

    pub(crate) fn function_level_reset(&mut self, host: usize) {
        self.device.function_level_reset(host);
    }

    /// The interrupts since the last call, as (controller identifier, vector).
    pub(crate) fn interrupts(&self) -> Vec<(u16, u16)> {
        let id = |(host, vector): (usize, u16)| (self.hosts[host].id, vector);
        self.device.interrupts().into_iter().map(id).collect()
    }

    pub(crate) fn is_ready(&self, host: usize) -> bool {
        self.read32(host, CSTS) & 1 != 0
    }

    pub(crate) fn is_fatal(&self, host: usize) -> bool {
        self.read32(host, CSTS) & 2 != 0
    }

    /// The bytes of `blocks` blocks, read through I/O queue 1, which must exist.
    #[track_caller]
    pub(crate) fn read_blocks(&mut self, host: usize, nsid: u32, start: u64, blocks: u32) -> Vec<u8> {
        let len = self.block_bytes(nsid) * blocks as usize;
        let (address, prps) = self.hosts[host].buffer(len as u64);
        self.memory(host).fill(address, &vec![0xEE; len]);
        self.exec(host, 1, sqe::read(nsid, start, blocks, prps)).ok();
        self.memory(host).bytes(address, len)
    }
}

/// One row of a table: its name, the status it must end with, and what is done in a fresh world.
pub(crate) type Row = (&'static str, Code, fn(&mut World) -> Completion);

/// Runs every row in a world of its own and reports all that fail.
#[track_caller]
pub(crate) fn check(backend: &dyn Backend, world: fn(&dyn Backend) -> World, rows: &[Row]) {
    let mut wrong = Vec::new();
    for (name, expected, action) in rows {
        match attempt(|| action(&mut world(backend))) {
            Ok(completion) if completion.code == *expected => {}
            Ok(completion) => {
                wrong.push(format!("{name}: {expected:?} expected, {:?} found", completion.code))
            }
            Err(message) => wrong.push(format!("{name}: {message}")),
        }
    }
    assert!(wrong.is_empty(), "{} of {} rows are wrong:\n{}", wrong.len(), rows.len(), wrong.join("\n"));
}

// SPDX-License-Identifier: MIT OR Apache-2.0
//! A managing controller and a migratable one, each with its driver, in one thread and in virtual time: for tests that
//! look at one exchange closely. What is lent is lent for ever; a test has few rigs.

use std::cell::RefCell;
use std::rc::Rc;
use std::time::Duration;

use nvme_controller::fault::{FaultRule, FaultSlot, FaultTable, HeldSlot};
use nvme_controller::host::{BlockStorage, Interrupts, StorageError};
use nvme_controller::{
    CommandSlot, CompletionQueueSlot, Controller, ControllerConfig, ControllerStorage, DataQueueSlot,
    ErrorSlot, EventSlot, Namespace, SubmissionQueueSlot, Subsystem, SubsystemConfig, SubsystemStorage,
    state_bytes,
};
use nvme_core::admin::{AdminData, AdminRequest, AdminSlot, Call, CallError, InitializeOptions};
use nvme_core::cdq::{
    CdqCreation, CdqDeletion, CdqFailure, CdqFigures, CdqOptions, ControllerDataQueue, Drained,
    HeadUpdateFailed, QueuePoll,
};
use nvme_core::controller::{EnableOptions, Link, Shutdown};
use nvme_core::dirty::{DirtyMap, DirtySet, Granularity};
use nvme_core::dma::{Direction, DmaArena, Pool, give_back};
use nvme_core::io::{Buffer, IoQueueOptions, IoSlot};
use nvme_core::recovery::{End, Event, Options, Policy, Progress, QueueRoom, Supervisor};
use nvme_core::time::Instant;
use nvme_core::wire::nvm::{Read, Write};
use nvme_core::wire::track::TrackSend;
use nvme_core::wire::{
    CdqId, Command, CommandId, CompletionQueueEntry, ControllerId, Lba, ManagerId, NamespaceId, QueueId,
    Status, SubmissionQueueEntry, TrackedId,
};
use nvme_host_linux::backend::attach;
use nvme_host_linux::embedded::{DeviceMemory, LocalController, LocalSubsystem};
use nvme_host_linux::memory::{AddressSpace, Capacity};

/// The managing controller.
pub const MANAGER: ControllerId = ControllerId::new(1);
/// The migratable controller.
pub const GUEST: ControllerId = ControllerId::new(2);
/// The one namespace.
pub const NAMESPACE: NamespaceId = NamespaceId::new(1);
/// Bytes of a block.
pub const BLOCK: usize = 512;
/// Time-out of every command.
pub const TIMEOUT: Duration = Duration::from_millis(50);
const TURN: Duration = Duration::from_micros(100);
const TURNS: usize = 40_000;
const PAIR: QueueId = QueueId::new(1);

/// Nobody waits for interrupts.
#[derive(Clone, Copy, Debug)]
pub struct Quiet;

impl Interrupts for Quiet {
    fn interrupt(&self, _: ControllerId, _: u16) {}
}

/// Media in memory.
#[derive(Clone, Debug)]
pub struct Media(Rc<RefCell<Vec<u8>>>);

impl Media {
    /// The content of block `lba`.
    #[must_use]
    pub fn block(&self, lba: u64) -> Vec<u8> {
        let at = lba as usize * BLOCK;
        self.0.borrow()[at..at + BLOCK].to_vec()
    }
}

impl BlockStorage for Media {
    fn block_shift(&self) -> u8 {
        9
    }
    fn blocks(&self) -> u64 {
        (self.0.borrow().len() / BLOCK) as u64
    }
    fn read(&mut self, lba: Lba, bytes: &mut [u8]) -> Result<(), StorageError> {
        let at = lba.get() as usize * BLOCK;
        bytes.copy_from_slice(&self.0.borrow()[at..at + bytes.len()]);
        Ok(())
    }
    fn write(&mut self, lba: Lba, bytes: &[u8]) -> Result<(), StorageError> {
        let at = lba.get() as usize * BLOCK;
        self.0.borrow_mut()[at..at + bytes.len()].copy_from_slice(bytes);
        Ok(())
    }
    fn write_zeroes(&mut self, lba: Lba, blocks: u64, _: bool) -> Result<(), StorageError> {
        let at = lba.get() as usize * BLOCK;
        self.0.borrow_mut()[at..at + blocks as usize * BLOCK].fill(0);
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

type Side = LocalSubsystem<'static, Media, Quiet>;
type Registers = LocalController<'static, 'static, Media, Quiet>;

/// A controller with its driver.
pub struct Host {
    /// Memory that the controller reaches.
    pub arena: &'static AddressSpace,
    /// The same memory as the controller sees it.
    pub memory: &'static DeviceMemory<'static>,
    /// Its driver.
    pub supervisor: Supervisor<'static, 'static, 'static, Registers, AddressSpace, u32>,
    /// I/O commands that have ended with a completion.
    pub done: Vec<(u32, CompletionQueueEntry, Option<Buffer>)>,
    /// I/O commands that have ended without one.
    pub lost: Vec<u32>,
    /// Times that the controller was reset.
    pub resets: usize,
    next: u32,
}

/// What a rig is like.
#[derive(Clone, Copy, Debug)]
pub struct Shape {
    /// Blocks of the namespace.
    pub blocks: usize,
    /// Entries of both I/O queues.
    pub entries: u32,
    /// Slots of the I/O queue pair.
    pub depth: usize,
    /// Longest transfer in bytes.
    pub max_transfer: usize,
    /// Bytes of each pool of memory.
    pub pool: usize,
    /// Event requests that each driver keeps.
    pub events: u16,
    /// What is done about trouble.
    pub policy: Policy,
}

impl Default for Shape {
    fn default() -> Self {
        Self {
            blocks: 4096,
            entries: 8,
            depth: 6,
            max_transfer: 64 << 10,
            pool: 4 << 20,
            events: 4,
            policy: Policy::default(),
        }
    }
}

/// See the module.
pub struct Rig {
    /// The subsystem.
    pub side: &'static RefCell<Side>,
    /// The managing controller's host.
    pub manager: Host,
    /// The migratable controller's host.
    pub guest: Host,
    /// What is stored.
    pub media: Media,
    /// Virtual time.
    pub now: Instant,
}

fn leak<T>(value: T) -> &'static mut T {
    Box::leak(Box::new(value))
}

fn lent<T>(count: usize, make: impl Fn() -> T) -> &'static mut [T] {
    (0..count).map(|_| make()).collect::<Vec<_>>().leak()
}

fn storage() -> ControllerStorage<'static> {
    ControllerStorage {
        submission_queues: lent(4, SubmissionQueueSlot::new),
        completion_queues: lent(4, CompletionQueueSlot::new),
        commands: lent(40, CommandSlot::new),
        event_requests: lent(4, || CommandId::new(0)),
        events: lent(8, EventSlot::new),
        errors: lent(4, ErrorSlot::new),
        state: lent(state_bytes(4, 4, 4, 8), || 0),
        tracked_ranges: &mut [],
        tracked_bits: &mut [],
    }
}

impl Host {
    fn new(
        side: &'static RefCell<Side>,
        id: ControllerId,
        memory: &'static DeviceMemory<'static>,
        arena: &'static AddressSpace,
        shape: &Shape,
    ) -> Self {
        let port = side.borrow().port(id).expect("the controller");
        let registers = leak(LocalController::new(side, port));
        let room = IoQueueOptions {
            max_transfer: shape.max_transfer,
            timeout: TIMEOUT,
            ..IoQueueOptions::new(PAIR, shape.entries)
        };
        let rooms = leak([QueueRoom::new(room, lent(shape.depth, IoSlot::<u32>::new))]);
        let options = Options {
            enable: EnableOptions { max_transfer: 8192, events: shape.events, ..EnableOptions::default() },
            initialize: InitializeOptions { timeout: TIMEOUT, ..InitializeOptions::default() },
            policy: shape.policy,
        };
        let machine = attach(registers, arena, leak(Link::new())).expect("a fresh controller");
        let page = leak([0; 4096]);
        let supervisor = Supervisor::new(machine, lent(12, AdminSlot::new), rooms, page, &options);
        Self { arena, memory, supervisor, done: Vec::new(), lost: Vec::new(), resets: 0, next: 0 }
    }

    /// Takes what there is; the end, if it has ended.
    pub fn poll(&mut self, now: Instant) -> Option<End> {
        loop {
            match self.supervisor.poll(now) {
                Progress::Wait(_) => return None,
                Progress::Ended(end) => return Some(end),
                Progress::Event(Event::Completed { completed, .. } | Event::Aborted { completed, .. }) => {
                    self.done.push((completed.tag, completed.entry, completed.buffer));
                }
                Progress::Event(Event::Lost { lost, .. }) => {
                    if let Some(buffer) = lost.buffer {
                        give_back(self.arena, buffer.into_region());
                    }
                    self.lost.push(lost.tag);
                }
                Progress::Event(Event::Resetting(_)) => self.resets += 1,
                Progress::Event(_) => {}
            }
        }
    }

    /// Submits an I/O command; its number, for [`done`](Self::done), and its identifier.
    ///
    /// # Panics
    /// The pair has no room, or is not in use.
    pub fn submit(
        &mut self,
        entry: &SubmissionQueueEntry,
        buffer: Option<Buffer>,
        now: Instant,
    ) -> (u32, CommandId) {
        self.next += 1;
        let pair = self.supervisor.pair(PAIR).expect("a pair in use");
        let id = pair.submit(entry, buffer, self.next, Some(now.after(TIMEOUT))).expect("room");
        pair.ring().expect("a doorbell");
        (self.next, id)
    }
}

impl Rig {
    /// Both controllers in use.
    ///
    /// # Panics
    /// They do not come up.
    #[must_use]
    pub fn new(shape: &Shape) -> Self {
        let mut rig = Self::cold(shape);
        rig.until(|rig| rig.manager.supervisor.is_ready() && rig.guest.supervisor.is_ready());
        rig
    }

    /// Both controllers, nothing done yet.
    ///
    /// # Panics
    /// There is no memory.
    #[must_use]
    pub fn cold(shape: &Shape) -> Self {
        let space = |name: &str| -> &'static AddressSpace {
            let capacity = Capacity { queues: shape.pool, data: shape.pool, controller_data: shape.pool };
            leak(AddressSpace::new(name, capacity).expect("memory"))
        };
        let arenas = [space("manager"), space("guest")];
        let memories: [&'static DeviceMemory<'static>; 2] =
            arenas.map(|arena| &*leak(DeviceMemory::new(arena)));
        let media = Media(Rc::new(RefCell::new(vec![0; shape.blocks * BLOCK])));
        let storage = SubsystemStorage {
            controllers: leak([
                Controller::new(ControllerConfig::managing(MANAGER), memories[0], storage()),
                Controller::new(ControllerConfig::migratable(GUEST), memories[1], storage()),
            ]),
            namespaces: leak([Namespace::new(NAMESPACE, media.clone(), [3; 16])]),
            data_queues: lent(4, DataQueueSlot::new),
            scratch: lent(32 << 10, || 0),
        };
        let config =
            SubsystemConfig { ready_timeout: 2, max_transfer_shift: 11, ..SubsystemConfig::default() };
        let side = leak(RefCell::new(Subsystem::new(config, storage, Quiet).expect("a possible subsystem")));
        let [manager, guest] =
            [(MANAGER, 0), (GUEST, 1)].map(|(id, at)| Host::new(side, id, memories[at], arenas[at], shape));
        Self { side, manager, guest, media, now: Instant::ZERO }
    }

    /// Lets the controllers misbehave by these rules from now on; returns them with their counters.
    ///
    /// # Panics
    /// One is not a rule.
    pub fn faults(&mut self, rules: &[&str]) -> &'static [FaultSlot] {
        let rules = rules.iter().map(|rule| FaultSlot::new(FaultRule::parse(rule).expect("a rule")));
        let rules: &'static [FaultSlot] = rules.collect::<Vec<_>>().leak();
        self.side.borrow_mut().set_faults(FaultTable::new(rules, lent(8, HeldSlot::new)));
        rules
    }

    /// The subsystem does what there is to do.
    pub fn device(&mut self) {
        let mut side = self.side.borrow_mut();
        side.advance(self.now.as_micros());
        let _ = side.poll(64);
    }

    /// Everybody has one turn; time passes.
    pub fn turn(&mut self) {
        self.now = self.now.after(TURN);
        self.device();
        let _ = (self.manager.poll(self.now), self.guest.poll(self.now));
    }

    /// Turns until `done`.
    ///
    /// # Panics
    /// It never is.
    pub fn until(&mut self, mut done: impl FnMut(&mut Self) -> bool) {
        for _ in 0..TURNS {
            if done(self) {
                return;
            }
            self.turn();
        }
        panic!("it does not end");
    }

    /// Sends an admin command to the managing controller and waits for its end.
    ///
    /// # Errors
    /// As [`CallError`].
    ///
    /// # Panics
    /// It does not end.
    pub fn admin(&mut self, command: &impl Command) -> Result<CompletionQueueEntry, CallError> {
        self.call(AdminRequest::without_data(command, TIMEOUT))
    }

    fn call(&mut self, request: AdminRequest) -> Result<CompletionQueueEntry, CallError> {
        let mut call = Call::new();
        call.start(request).expect("a fresh call");
        let mut ended = None;
        self.until(|rig| {
            let Some(admin) = rig.manager.supervisor.admin() else { return false };
            ended = call.poll(admin, rig.now);
            ended.is_some()
        });
        ended.expect("its end").finish(self.manager.arena)
    }

    /// As [`admin`](Self::admin), with PRP1 as the entry has it.
    ///
    /// # Errors
    /// As [`CallError`].
    ///
    /// # Panics
    /// It does not end.
    pub fn raw_admin(&mut self, entry: SubmissionQueueEntry) -> Result<CompletionQueueEntry, CallError> {
        let data = AdminData::QueueBase(entry.prp1());
        self.call(AdminRequest { command: entry, data, timeout: TIMEOUT })
    }

    /// Blocks of the namespace.
    #[must_use]
    pub fn media_blocks(&self) -> u64 {
        self.media.blocks()
    }

    /// Carries out one I/O command of the guest with `bytes` as its data, which a read replaces.
    ///
    /// # Panics
    /// It does not end.
    pub fn io(&mut self, entry: &SubmissionQueueEntry, direction: Direction, bytes: &mut [u8]) -> Status {
        let buffer = (!bytes.is_empty()).then(|| {
            let region =
                self.guest.arena.allocate_scattered(Pool::Data, bytes.len(), direction).expect("memory");
            region.write(0, bytes).expect("the buffer");
            Buffer::whole(region)
        });
        let (number, _) = self.guest.submit(entry, buffer, self.now);
        self.until(|rig| rig.guest.done.iter().any(|(done, ..)| *done == number));
        let at = self.guest.done.iter().position(|(done, ..)| *done == number).expect("done");
        let (_, completion, buffer) = self.guest.done.remove(at);
        if let Some(buffer) = buffer {
            buffer.region().read(0, bytes).expect("the buffer");
            give_back(self.guest.arena, buffer.into_region());
        }
        completion.status()
    }

    /// The guest writes `blocks` blocks full of `byte`.
    ///
    /// # Panics
    /// The write fails.
    pub fn write(&mut self, start: u64, blocks: u32, byte: u8) {
        let mut bytes = vec![byte; blocks as usize * BLOCK];
        let entry = Write::new(NAMESPACE, Lba::new(start), blocks).encode();
        assert_eq!(self.io(&entry, Direction::ToDevice, &mut bytes), Status::SUCCESS);
    }

    /// What the guest reads.
    ///
    /// # Panics
    /// The read fails.
    #[must_use]
    pub fn read(&mut self, start: u64, blocks: u32) -> Vec<u8> {
        let mut bytes = vec![0; blocks as usize * BLOCK];
        let entry = Read::new(NAMESPACE, Lba::new(start), blocks).encode();
        assert_eq!(self.io(&entry, Direction::FromDevice, &mut bytes), Status::SUCCESS);
        bytes
    }

    /// Creates a Controller Data Queue for the guest's changes.
    ///
    /// # Errors
    /// As [`CdqFailure`].
    ///
    /// # Panics
    /// There is no memory, or the creation does not end.
    pub fn create(&mut self, options: &CdqOptions) -> Result<ControllerDataQueue, CdqFailure> {
        let tracked = TrackedId::new(GUEST, ManagerId::new(MANAGER)).expect("two controllers");
        let options = CdqOptions { timeout: TIMEOUT, ..*options };
        let admin = self.manager.supervisor.admin().expect("in use");
        let mut creation = CdqCreation::new(admin, tracked, &options).expect("memory");
        let mut ended = None;
        self.until(|rig| {
            ended = creation.poll(rig.manager.supervisor.admin().expect("in use"), rig.now);
            ended.is_some()
        });
        ended.expect("its end")
    }

    /// Starts the log of a queue, or stops it.
    ///
    /// # Errors
    /// As [`CallError`].
    pub fn log(&mut self, queue: CdqId, start: bool) -> Result<(), CallError> {
        self.admin(&TrackSend::LogUserDataChanges { start, queue }).map(drop)
    }

    /// A queue with its log started, and the dirty set for it.
    ///
    /// # Panics
    /// It cannot be had.
    pub fn logging(&mut self, options: &CdqOptions) -> (ControllerDataQueue, DirtySet<'static, 'static>) {
        let queue = self.create(options).expect("a queue");
        self.log(queue.id(), true).expect("a log");
        (queue, self.dirty())
    }

    /// A clean dirty set for the namespace.
    ///
    /// # Panics
    /// Never: the map fits.
    #[must_use]
    pub fn dirty(&self) -> DirtySet<'static, 'static> {
        let blocks = self.media.blocks();
        let words = lent(Granularity::BLOCK.words_needed(blocks).expect("few blocks"), || 0_u64);
        DirtySet::new(leak([DirtyMap::new(NAMESPACE, blocks, Granularity::BLOCK, words).expect("a map")]))
            .expect("one namespace")
    }

    /// One poll of a queue.
    ///
    /// # Panics
    /// The managing controller is not in use.
    pub fn poll_queue(
        &mut self,
        queue: &mut ControllerDataQueue,
        dirty: &mut DirtySet<'_, '_>,
    ) -> (Drained, Result<QueuePoll, HeadUpdateFailed>) {
        queue.poll(self.manager.supervisor.admin().expect("in use"), dirty, self.now, 4096, false)
    }

    /// Polls a queue, everybody else having turns, until it may sleep; entries read.
    ///
    /// # Panics
    /// It never may.
    pub fn settle(&mut self, queue: &mut ControllerDataQueue, dirty: &mut DirtySet<'_, '_>) -> u32 {
        let mut entries = 0;
        self.until(|rig| {
            let (drained, poll) = rig.poll_queue(queue, dirty);
            entries += drained.entries;
            poll == Ok(QueuePoll::MaySleep)
        });
        entries
    }

    /// Deletes a queue.
    ///
    /// # Errors
    /// As [`CdqFailure`].
    ///
    /// # Panics
    /// The deletion does not end.
    pub fn delete(&mut self, queue: ControllerDataQueue) -> Result<CdqFigures, CdqFailure> {
        let mut deletion = CdqDeletion::new(queue, TIMEOUT);
        let mut ended = None;
        self.until(|rig| {
            ended = deletion.poll(rig.manager.supervisor.admin().expect("in use"), rig.now);
            ended.is_some()
        });
        ended.expect("its end")
    }

    /// Shuts both controllers down and checks that no memory is left.
    ///
    /// # Panics
    /// Memory is left.
    pub fn finish(mut self) {
        self.side.borrow_mut().clear_faults();
        for which in [0, 1] {
            let host = if which == 0 { &mut self.manager } else { &mut self.guest };
            host.supervisor.shutdown(Shutdown::Normal, TIMEOUT);
            self.until(|rig| {
                let host = if which == 0 { &mut rig.manager } else { &mut rig.guest };
                host.poll(rig.now).is_some()
            });
        }
        for host in [self.manager, self.guest] {
            for (_, _, buffer) in host.done {
                if let Some(buffer) = buffer {
                    give_back(host.arena, buffer.into_region());
                }
            }
            if let Ok(disabled) = host.supervisor.into_disabled() {
                disabled.detach();
            }
            for pool in [Pool::Queues, Pool::Data, Pool::ControllerData] {
                assert_eq!(host.arena.usage(pool).regions, 0, "{pool:?}");
            }
        }
    }
}

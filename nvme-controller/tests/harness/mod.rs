// SPDX-License-Identifier: MIT OR Apache-2.0
//! A host in miniature: memory in pages, storage in memory, and registers, doorbells and queues driven by hand.
#![allow(dead_code, reason = "each test file uses its own part of the harness")]
#![allow(unreachable_pub, reason = "shared by test files as a module")]
#![allow(missing_docs, reason = "test code")]

pub mod lm;

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, VecDeque};
use std::rc::Rc;

use nvme_controller::host::{BlockStorage, HostMemory, Interrupts, MemoryFault, StorageError};
use nvme_controller::{
    CommandSlot, CompletionQueueSlot, Controller, ControllerConfig, ControllerStorage, DataQueueSlot,
    ErrorSlot, EventSlot, ManagerConfig, Namespace, Port, Role, SecondaryConfig, SubmissionQueueSlot,
    Subsystem, SubsystemConfig, SubsystemStorage, TrackedRange, state_bytes,
};
use nvme_core::register::Offset;
use nvme_core::wire::admin::{CreateIoCompletionQueue, CreateIoSubmissionQueue, QueuePriority};
use nvme_core::wire::{
    BusAddr, Command, CommandId, CompletionQueueEntry, ControllerId, Lba, NamespaceId, QueueId, Status,
    StatusCode, SubmissionQueueEntry,
};
use zerocopy::{FromBytes, IntoBytes};

pub const PAGE: u64 = 4096;
pub const BLOCK: usize = 512;
/// Index of the managing controller of every rig.
pub const MANAGER: usize = 0;
/// Index of the first migratable controller.
pub const GUEST: usize = 1;
pub const NSID: NamespaceId = NamespaceId::new(1);

#[derive(Clone, Debug, Default)]
pub struct Memory(Rc<MemoryState>);

#[derive(Debug, Default)]
struct MemoryState {
    pages: RefCell<BTreeMap<u64, Box<[u8; 4096]>>>,
    /// Pages that are not host memory although they can be accessed.
    foreign: RefCell<Vec<u64>>,
    next: Cell<u64>,
    /// Addresses of entry writes in order.
    entries: RefCell<Vec<u64>>,
}

impl Memory {
    pub fn allocate(&self, bytes: u64) -> BusAddr {
        let base = self.0.next.get().max(0x10_0000);
        // A gap after each allocation makes overruns fail.
        self.0.next.set(base + bytes.next_multiple_of(PAGE) + PAGE);
        self.map(base, bytes);
        BusAddr::new(base)
    }

    pub fn map(&self, base: u64, bytes: u64) {
        for page in base / PAGE..(base + bytes).div_ceil(PAGE) {
            self.0.pages.borrow_mut().insert(page, Box::new([0; 4096]));
        }
    }

    pub fn unmap(&self, base: BusAddr, bytes: u64) {
        for page in base.get() / PAGE..(base.get() + bytes).div_ceil(PAGE) {
            self.0.pages.borrow_mut().remove(&page);
        }
    }

    pub fn mark_foreign(&self, base: BusAddr) {
        self.0.foreign.borrow_mut().push(base.get() / PAGE);
    }

    fn each(
        &self,
        address: BusAddr,
        len: usize,
        mut action: impl FnMut(&mut u8, usize),
    ) -> Result<(), MemoryFault> {
        let fault = MemoryFault { address, len };
        let mut pages = self.0.pages.borrow_mut();
        let mut at = address.get();
        let mut done = 0;
        let end = at.checked_add(len as u64).ok_or(fault)?;
        for page in at / PAGE..end.div_ceil(PAGE) {
            if !pages.contains_key(&page) {
                return Err(fault);
            }
        }
        while done < len {
            let page = pages.get_mut(&(at / PAGE)).ok_or(fault)?;
            action(&mut page[(at % PAGE) as usize], done);
            at += 1;
            done += 1;
        }
        Ok(())
    }

    /// Addresses of the queue entries written, oldest first.
    pub fn trace(&self) -> Vec<u64> {
        self.0.entries.borrow().clone()
    }

    pub fn clear_trace(&self) {
        self.0.entries.borrow_mut().clear();
    }

    pub fn get(&self, address: BusAddr, len: usize) -> Vec<u8> {
        let mut bytes = vec![0; len];
        HostMemory::read(self, address, &mut bytes).expect("test reads mapped memory");
        bytes
    }

    pub fn put(&self, address: BusAddr, bytes: &[u8]) {
        HostMemory::write(self, address, bytes).expect("test writes mapped memory");
    }

    pub fn put_list(&self, address: BusAddr, entries: &[u64]) {
        for (at, entry) in entries.iter().enumerate() {
            self.put(address.plus(8 * at as u64), &entry.to_le_bytes());
        }
    }
}

impl HostMemory for Memory {
    fn read(&self, address: BusAddr, bytes: &mut [u8]) -> Result<(), MemoryFault> {
        self.each(address, bytes.len(), |byte, at| bytes[at] = *byte)
    }

    fn write(&self, address: BusAddr, bytes: &[u8]) -> Result<(), MemoryFault> {
        self.each(address, bytes.len(), |byte, at| *byte = bytes[at])
    }

    fn write_entry(&self, address: BusAddr, entry: &[u8]) -> Result<(), MemoryFault> {
        self.write(address, entry)?;
        self.0.entries.borrow_mut().push(address.get());
        Ok(())
    }

    fn is_host_memory(&self, address: BusAddr, len: u64) -> bool {
        let Some(end) = address.get().checked_add(len) else { return false };
        let pages = self.0.pages.borrow();
        let foreign = self.0.foreign.borrow();
        (address.get() / PAGE..end.div_ceil(PAGE))
            .all(|page| pages.contains_key(&page) && !foreign.contains(&page))
    }
}

/// Storage in memory that can be made to fail.
#[derive(Debug)]
pub struct Ram {
    pub bytes: RefCell<Vec<u8>>,
    pub allocated: RefCell<Vec<bool>>,
    bad: RefCell<Vec<bool>>,
    shift: u8,
    /// Writes to this block fail after they have changed it.
    pub fail_write: Rc<Cell<Option<u64>>>,
    pub flushes: Rc<Cell<u32>>,
}

impl Ram {
    pub fn new(blocks: u64, shift: u8) -> Self {
        Self {
            bytes: RefCell::new(vec![0; (blocks as usize) << shift]),
            allocated: RefCell::new(vec![false; blocks as usize]),
            bad: RefCell::new(vec![false; blocks as usize]),
            shift,
            fail_write: Rc::default(),
            flushes: Rc::default(),
        }
    }

    fn range(&self, lba: Lba, bytes: usize) -> std::ops::Range<usize> {
        let start = (lba.get() as usize) << self.shift;
        start..start + bytes
    }
}

impl BlockStorage for Ram {
    fn block_shift(&self) -> u8 {
        self.shift
    }

    fn blocks(&self) -> u64 {
        (self.bytes.borrow().len() >> self.shift) as u64
    }

    fn read(&mut self, lba: Lba, bytes: &mut [u8]) -> Result<(), StorageError> {
        let first = lba.get() as usize;
        if self.bad.borrow()[first..first + (bytes.len() >> self.shift)].contains(&true) {
            return Err(StorageError::Read);
        }
        bytes.copy_from_slice(&self.bytes.borrow()[self.range(lba, bytes.len())]);
        Ok(())
    }

    fn write(&mut self, lba: Lba, bytes: &[u8]) -> Result<(), StorageError> {
        let range = self.range(lba, bytes.len());
        self.bytes.borrow_mut()[range].copy_from_slice(bytes);
        let first = lba.get() as usize;
        let last = first + (bytes.len() >> self.shift);
        self.allocated.borrow_mut()[first..last].fill(true);
        self.bad.borrow_mut()[first..last].fill(false);
        match self.fail_write.get() {
            Some(block) if (first..last).contains(&(block as usize)) => Err(StorageError::Write),
            _ => Ok(()),
        }
    }

    fn write_zeroes(&mut self, lba: Lba, blocks: u64, deallocate: bool) -> Result<(), StorageError> {
        let range = self.range(lba, (blocks as usize) << self.shift);
        self.bytes.borrow_mut()[range].fill(0);
        let first = lba.get() as usize;
        self.allocated.borrow_mut()[first..first + blocks as usize].fill(!deallocate);
        self.bad.borrow_mut()[first..first + blocks as usize].fill(false);
        Ok(())
    }

    fn flush(&mut self) -> Result<(), StorageError> {
        self.flushes.set(self.flushes.get() + 1);
        Ok(())
    }

    fn allocated(&self, lba: Lba, limit: u64) -> (bool, u64) {
        let allocated = self.allocated.borrow();
        let first = lba.get() as usize;
        let state = allocated[first];
        let same =
            allocated[first..].iter().take(limit as usize).take_while(|other| **other == state).count();
        (state, same as u64)
    }

    fn set_uncorrectable(&mut self, lba: Lba, blocks: u64) -> Result<(), StorageError> {
        let first = lba.get() as usize;
        self.bad.borrow_mut()[first..first + blocks as usize].fill(true);
        Ok(())
    }
}

#[derive(Clone, Debug, Default)]
pub struct Lines(pub Rc<RefCell<Vec<(ControllerId, u16)>>>);

impl Interrupts for Lines {
    fn interrupt(&self, controller: ControllerId, vector: u16) {
        self.0.borrow_mut().push((controller, vector));
    }
}

/// One queue pair as the host keeps it.
#[derive(Clone, Debug)]
pub struct Pair {
    pub submission: BusAddr,
    pub completion: BusAddr,
    pub submission_entries: u32,
    pub completion_entries: u32,
    pub tail: u32,
    pub head: u32,
    pub phase: bool,
    pub next_command: u16,
}

impl Pair {
    fn new(memory: &Memory, submission_entries: u32, completion_entries: u32) -> Self {
        Self {
            submission: memory.allocate(u64::from(submission_entries) * 64),
            completion: memory.allocate(u64::from(completion_entries) * 16),
            submission_entries,
            completion_entries,
            tail: 0,
            head: 0,
            phase: true,
            next_command: 1,
        }
    }
}

/// How a rig is made.
#[derive(Clone)]
pub struct Options {
    pub subsystem: SubsystemConfig<'static>,
    pub manager: ManagerConfig,
    pub second_manager: bool,
    pub guests: usize,
    pub queues: usize,
    pub commands: usize,
    pub requests: usize,
    pub data_queues: usize,
    pub tracked_ranges: usize,
    pub tracked_words: usize,
    pub errors: usize,
    pub state: Option<usize>,
    pub secondary: bool,
    pub vectors: u16,
    pub blocks: u64,
    pub block_shift: u8,
    pub namespaces: Vec<u32>,
    pub scratch: usize,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            subsystem: SubsystemConfig { max_queue_entries: 1024, ..SubsystemConfig::default() },
            manager: ManagerConfig::default(),
            second_manager: false,
            guests: 2,
            queues: 5,
            commands: 33,
            requests: 4,
            data_queues: 4,
            tracked_ranges: 8,
            tracked_words: 64,
            errors: 8,
            state: None,
            secondary: false,
            vectors: 8,
            blocks: 2048,
            block_shift: 9,
            namespaces: vec![1],
            scratch: 8192,
        }
    }
}

pub struct Rig {
    pub subsystem: Subsystem<'static, Memory, Ram, Lines>,
    pub memories: Vec<Memory>,
    pub ports: Vec<Port>,
    /// `pairs[controller][queue]`.
    pub pairs: Vec<BTreeMap<u16, Pair>>,
    /// Completions taken from memory and not yet asked for.
    pub arrived: Vec<VecDeque<(u16, CompletionQueueEntry)>>,
    pub lines: Lines,
    pub fail_write: Vec<Rc<Cell<Option<u64>>>>,
    pub flushes: Vec<Rc<Cell<u32>>>,
}

fn leak<T: Clone>(value: T, count: usize) -> &'static mut [T] {
    Box::leak(vec![value; count].into_boxed_slice())
}

/// Identifier of the controller at `index`: not equal to the index, so that mixing them up shows.
pub fn id_of(index: usize) -> ControllerId {
    ControllerId::new(0x10 + index as u16 * 3)
}

impl Rig {
    pub fn new() -> Self {
        Self::with(Options::default())
    }

    pub fn with(options: Options) -> Self {
        Self::with_guest_memory(options, Memory::default())
    }

    /// A rig whose first guest lives in `guest`, which another rig may share.
    pub fn with_guest_memory(options: Options, guest: Memory) -> Self {
        let managers = 1 + usize::from(options.second_manager);
        let count = managers + options.guests;
        let mut memories = Vec::new();
        let mut controllers = Vec::new();
        for index in 0..count {
            let memory = if index == GUEST { guest.clone() } else { Memory::default() };
            memories.push(memory.clone());
            // The second manager comes last, so that guests start at 1.
            let managing = index == MANAGER || index > options.guests;
            let config = ControllerConfig {
                id: id_of(index),
                role: if managing { Role::Managing(options.manager) } else { Role::Migratable },
                interrupt_vectors: options.vectors,
                secondary: (options.secondary && !managing).then_some(SecondaryConfig {
                    primary: id_of(MANAGER),
                    virtual_function: index as u16,
                    online: false,
                }),
            };
            let state = options
                .state
                .unwrap_or_else(|| state_bytes(options.queues, options.queues, options.requests, 4));
            let storage = ControllerStorage {
                submission_queues: leak(SubmissionQueueSlot::new(), options.queues),
                completion_queues: leak(CompletionQueueSlot::new(), options.queues),
                commands: leak(CommandSlot::new(), options.commands),
                event_requests: leak(CommandId::new(0), options.requests),
                events: leak(EventSlot::new(), 4),
                errors: leak(ErrorSlot::new(), options.errors),
                state: leak(0, state),
                tracked_ranges: leak(TrackedRange::new(), options.tracked_ranges),
                tracked_bits: leak(0, options.tracked_words),
            };
            controllers.push(Controller::new(config, memory, storage));
        }
        let mut namespaces = Vec::new();
        let (mut fail_write, mut flushes) = (Vec::new(), Vec::new());
        for id in &options.namespaces {
            let ram = Ram::new(options.blocks, options.block_shift);
            fail_write.push(ram.fail_write.clone());
            flushes.push(ram.flushes.clone());
            namespaces.push(Namespace::new(NamespaceId::new(*id), ram, [*id as u8; 16]));
        }
        let lines = Lines::default();
        let subsystem = Subsystem::new(
            options.subsystem,
            SubsystemStorage {
                controllers: Box::leak(controllers.into_boxed_slice()),
                namespaces: Box::leak(namespaces.into_boxed_slice()),
                data_queues: leak(DataQueueSlot::new(), options.data_queues),
                scratch: leak(0, options.scratch),
            },
            lines.clone(),
        )
        .expect("the options of a rig are valid");
        let ports = (0..count).map(|index| subsystem.port(id_of(index)).unwrap()).collect();
        Self {
            subsystem,
            memories,
            ports,
            pairs: vec![BTreeMap::new(); count],
            arrived: vec![VecDeque::new(); count],
            lines,
            fail_write,
            flushes,
        }
    }

    pub fn read32(&self, controller: usize, offset: u32) -> u32 {
        self.subsystem.read32(self.ports[controller], Offset::new(offset)).unwrap()
    }

    pub fn write32(&mut self, controller: usize, offset: u32, value: u32) {
        self.subsystem.write32(self.ports[controller], Offset::new(offset), value).unwrap();
    }

    pub fn write64(&mut self, controller: usize, offset: u32, value: u64) {
        self.subsystem.write64(self.ports[controller], Offset::new(offset), value).unwrap();
    }

    /// Sets the admin queues up and enables the controller.
    pub fn enable(&mut self, controller: usize) {
        self.enable_with(controller, 16, 0x0046_0001);
    }

    pub fn enable_with(&mut self, controller: usize, entries: u32, configuration: u32) {
        let pair = Pair::new(&self.memories[controller], entries, entries);
        self.write32(controller, 0x24, ((entries - 1) << 16) | (entries - 1));
        self.write64(controller, 0x28, pair.submission.get());
        self.write64(controller, 0x30, pair.completion.get());
        self.pairs[controller].clear();
        self.arrived[controller].clear();
        self.pairs[controller].insert(0, pair);
        self.write32(controller, 0x14, configuration);
        assert_eq!(self.read32(controller, 0x1C) & 3, 1, "ready and not fatal");
    }

    pub fn allocate(&self, controller: usize, bytes: u64) -> BusAddr {
        self.memories[controller].allocate(bytes)
    }

    /// Puts an entry into a queue and rings its doorbell; returns the command identifier.
    pub fn submit(&mut self, controller: usize, queue: u16, entry: SubmissionQueueEntry) -> CommandId {
        let command = self.place(controller, queue, entry);
        self.ring(controller, queue);
        command
    }

    /// Puts an entry into a queue without ringing.
    pub fn place(&mut self, controller: usize, queue: u16, entry: SubmissionQueueEntry) -> CommandId {
        let pair = self.pairs[controller].get_mut(&queue).expect("queue exists");
        let command = CommandId::new(pair.next_command);
        pair.next_command += 1;
        let address = pair.submission.plus(u64::from(pair.tail) * 64);
        pair.tail = (pair.tail + 1) % pair.submission_entries;
        self.memories[controller].put(address, entry.with_command_id(command).as_bytes());
        command
    }

    pub fn ring(&mut self, controller: usize, queue: u16) {
        let tail = self.pairs[controller][&queue].tail;
        self.write32(controller, 0x1000 + u32::from(queue) * 8, tail);
    }

    /// Polls until nothing happens any more.
    pub fn run(&mut self) {
        for _ in 0..10_000 {
            if self.subsystem.poll(64).is_idle() {
                return;
            }
            // A command that waits leaves work pending that polling alone cannot finish.
            if self.subsystem.poll(0) == nvme_controller::Activity::default() {
                return;
            }
        }
        panic!("the subsystem never comes to rest");
    }

    /// Takes what has been posted to a completion queue and rings its doorbell.
    pub fn collect(&mut self, controller: usize, queue: u16) {
        let memory = self.memories[controller].clone();
        let pair = self.pairs[controller].get_mut(&queue).expect("queue exists");
        let mut taken = 0;
        loop {
            let bytes = memory.get(pair.completion.plus(u64::from(pair.head) * 16), 16);
            let entry = CompletionQueueEntry::read_from_bytes(&bytes).unwrap();
            if entry.phase() != pair.phase {
                break;
            }
            pair.head = (pair.head + 1) % pair.completion_entries;
            pair.phase ^= pair.head == 0;
            taken += 1;
            self.arrived[controller].push_back((queue, entry));
        }
        let head = pair.head;
        if taken > 0 {
            self.write32(controller, 0x1004 + u32::from(queue) * 8, head);
        }
    }

    /// As [`collect`](Self::collect), for a completion queue whose memory may be gone.
    pub fn try_collect(&mut self, controller: usize, queue: u16) {
        let pair = &self.pairs[controller][&queue];
        let bytes = u64::from(pair.completion_entries) * 16;
        if self.memories[controller].is_host_memory(pair.completion, bytes) {
            self.collect(controller, queue);
        }
    }

    /// The completion of a command, if it has arrived.
    pub fn take(
        &mut self,
        controller: usize,
        queue: u16,
        command: CommandId,
    ) -> Option<CompletionQueueEntry> {
        self.collect(controller, queue);
        let at = self.arrived[controller]
            .iter()
            .position(|(id, entry)| *id == queue && entry.command_id() == command)?;
        self.arrived[controller].remove(at).map(|(_, entry)| entry)
    }

    /// Submits, runs and returns the completion.
    pub fn command(
        &mut self,
        controller: usize,
        queue: u16,
        entry: SubmissionQueueEntry,
    ) -> CompletionQueueEntry {
        let command = self.submit(controller, queue, entry);
        self.run();
        self.take(controller, queue, command).expect("the command completes")
    }

    pub fn admin(&mut self, controller: usize, command: &impl Command) -> CompletionQueueEntry {
        self.command(controller, 0, command.encode())
    }

    /// An admin command that must succeed; returns completion dword 0.
    pub fn admin_ok(&mut self, controller: usize, command: &impl Command) -> u32 {
        let entry = self.admin(controller, command);
        assert_eq!(entry.status(), Status::SUCCESS, "{:?}", entry.status());
        entry.dw0()
    }

    /// An admin command with a data buffer of the host's; returns the completion and what the buffer holds then.
    pub fn admin_data(
        &mut self,
        controller: usize,
        command: &impl Command,
        data: &[u8],
    ) -> (CompletionQueueEntry, Vec<u8>) {
        let (prp1, prp2, base) = self.buffer(controller, data);
        let entry = self.command(controller, 0, command.encode().with_prps(prp1, prp2));
        (entry, self.memories[controller].get(base, data.len()))
    }

    /// A contiguous buffer with its PRPs (a list if it is longer than two pages).
    pub fn buffer(&mut self, controller: usize, data: &[u8]) -> (BusAddr, BusAddr, BusAddr) {
        let memory = self.memories[controller].clone();
        let base = memory.allocate((data.len() as u64).max(1));
        memory.put(base, data);
        let pages = (data.len() as u64).div_ceil(PAGE);
        let second = match pages {
            0 | 1 => BusAddr::new(0),
            2 => base.plus(PAGE),
            _ => {
                let rest: Vec<u64> = (1..pages).map(|page| base.get() + page * PAGE).collect();
                list_of(&memory, &rest)
            }
        };
        (base, second, base)
    }

    pub fn create_pair(&mut self, controller: usize, queue: u16, entries: u32) {
        self.create_pair_with(controller, queue, entries, Some(queue));
    }

    pub fn create_pair_with(&mut self, controller: usize, queue: u16, entries: u32, vector: Option<u16>) {
        let pair = Pair::new(&self.memories[controller], entries, entries);
        let completion =
            create_completion(queue, entries, vector).encode().with_prps(pair.completion, BusAddr::new(0));
        assert_eq!(self.command(controller, 0, completion).status(), Status::SUCCESS);
        let submission =
            create_submission(queue, entries, queue).encode().with_prps(pair.submission, BusAddr::new(0));
        assert_eq!(self.command(controller, 0, submission).status(), Status::SUCCESS);
        self.pairs[controller].insert(queue, pair);
    }

    /// An I/O command with a data buffer.
    pub fn io_data(
        &mut self,
        controller: usize,
        queue: u16,
        command: &impl Command,
        data: &[u8],
    ) -> (CompletionQueueEntry, Vec<u8>) {
        let (prp1, prp2, base) = self.buffer(controller, data);
        let entry = self.command(controller, queue, command.encode().with_prps(prp1, prp2));
        (entry, self.memories[controller].get(base, data.len()))
    }

    pub fn media(&self, namespace: usize, lba: u64, blocks: u64) -> Vec<u8> {
        let ram = self.subsystem.namespaces()[namespace].storage();
        let bytes = ram.bytes.borrow();
        let shift = ram.block_shift();
        bytes[(lba as usize) << shift..((lba + blocks) as usize) << shift].to_vec()
    }
}

pub fn create_completion(queue: u16, entries: u32, vector: Option<u16>) -> CreateIoCompletionQueue {
    CreateIoCompletionQueue {
        queue: QueueId::new(queue),
        entries,
        contiguous: true,
        interrupts_enabled: vector.is_some(),
        interrupt_vector: vector.unwrap_or(0),
    }
}

pub fn create_submission(queue: u16, entries: u32, completion: u16) -> CreateIoSubmissionQueue {
    CreateIoSubmissionQueue {
        queue: QueueId::new(queue),
        entries,
        contiguous: true,
        priority: QueuePriority::Urgent,
        completion_queue: QueueId::new(completion),
        nvm_set: 0,
    }
}

/// A chained PRP list of these entries.
pub fn list_of(memory: &Memory, entries: &[u64]) -> BusAddr {
    let per_page = (PAGE / 8) as usize;
    if entries.len() <= per_page {
        let list = memory.allocate(PAGE);
        memory.put_list(list, entries);
        return list;
    }
    let (here, rest) = entries.split_at(per_page - 1);
    let next = list_of(memory, rest);
    let list = memory.allocate(PAGE);
    memory.put_list(list, here);
    memory.put_list(list.plus(PAGE - 8), &[next.get()]);
    list
}

/// A status as the tables write it.
pub fn code(kind: u8, code: u8) -> StatusCode {
    StatusCode::new(kind, code)
}

/// Bytes that differ from block to block.
pub fn pattern(blocks: usize, seed: u8) -> Vec<u8> {
    (0..blocks * BLOCK).map(|at| (at / BLOCK) as u8 ^ (at as u8).wrapping_mul(31) ^ seed).collect()
}

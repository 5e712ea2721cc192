// SPDX-License-Identifier: MIT OR Apache-2.0
//! The host of one controller: queues in its memory, doorbells, and the completions it has seen.

use std::collections::{BTreeMap, BTreeSet};

use super::memory::Memory;
use super::sqe::{self, Sqe};
use super::status::{Code, SUCCESS};
use super::{ACQ, AQA, ASQ, CC, ENABLE, World};

/// Pages that a queue or a buffer lies in.
#[derive(Clone, Debug)]
pub(crate) struct Area {
    pages: Vec<u64>,
    page: u64,
}

impl Area {
    pub(crate) fn contiguous(base: u64, len: u64, page: u64) -> Self {
        Self { pages: (0..len.div_ceil(page)).map(|index| base + index * page).collect(), page }
    }

    pub(crate) fn scattered(pages: Vec<u64>, page: u64) -> Self {
        Self { pages, page }
    }

    pub(crate) fn at(&self, offset: u64) -> u64 {
        self.pages[(offset / self.page) as usize] + offset % self.page
    }

    pub(crate) fn pages(&self) -> &[u64] {
        &self.pages
    }
}

/// A completion as the host finds it in memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Completion {
    pub(crate) dword0: u32,
    pub(crate) dword1: u32,
    pub(crate) sq_head: u16,
    pub(crate) queue: u16,
    pub(crate) command: u16,
    pub(crate) code: Code,
    pub(crate) do_not_retry: bool,
}

impl Completion {
    fn parse(bytes: &[u8]) -> Self {
        let word = |at: usize| u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap());
        let half = |at: usize| u16::from_le_bytes(bytes[at..at + 2].try_into().unwrap());
        let status = half(14) >> 1;
        Self {
            dword0: word(0),
            dword1: word(4),
            sq_head: half(8),
            queue: half(10),
            command: half(12),
            code: Code(((status >> 8) & 7) as u8, status as u8),
            do_not_retry: status & (1 << 14) != 0,
        }
    }

    /// The completion, which must be a success.
    #[track_caller]
    pub(crate) fn ok(self) -> Self {
        assert_eq!(self.code, SUCCESS, "{self:?}");
        assert!(!self.do_not_retry, "success needs no Do Not Retry: {self:?}");
        self
    }
}

#[derive(Clone, Debug)]
pub(crate) struct SubmissionQueue {
    pub(crate) area: Area,
    pub(crate) entries: u32,
    pub(crate) tail: u32,
    pub(crate) head: u32,
}

#[derive(Clone, Debug)]
pub(crate) struct CompletionQueue {
    pub(crate) area: Area,
    pub(crate) entries: u32,
    pub(crate) head: u32,
    pub(crate) phase: u16,
}

/// One host. Clones share the memory but not what is known about queues.
#[derive(Clone)]
pub(crate) struct Host {
    pub(crate) id: u16,
    pub(crate) memory: Memory,
    pub(crate) page_shift: u8,
    pub(crate) admin_entries: u32,
    pub(crate) submission: BTreeMap<u16, SubmissionQueue>,
    pub(crate) completion: BTreeMap<u16, CompletionQueue>,
    /// Completion queues the host does not look at for now.
    pub(crate) held: BTreeSet<u16>,
    pub(crate) done: Vec<Completion>,
    next_command: u16,
}

impl Host {
    pub(crate) fn new(id: u16, memory: Memory, page_shift: u8, admin_entries: u32) -> Self {
        Self {
            id,
            memory,
            page_shift,
            admin_entries,
            submission: BTreeMap::new(),
            completion: BTreeMap::new(),
            held: BTreeSet::new(),
            done: Vec::new(),
            next_command: 0x100,
        }
    }

    pub(crate) fn page(&self) -> u64 {
        1 << self.page_shift
    }

    /// Zeroed memory at a page boundary.
    pub(crate) fn allocate(&self, len: u64) -> u64 {
        self.memory.allocate_aligned(len, self.page())
    }

    /// A page list for `pages`, chained where it does not fit into one page. With one page more than fits, the last
    /// slot of each list page but the last names the next one.
    pub(crate) fn page_list(&self, pages: &[u64]) -> u64 {
        let per_page = (self.page() / 8) as usize;
        let list = self.allocate(self.page());
        if pages.len() <= per_page {
            self.memory.fill_addresses(list, pages);
        } else {
            let (now, later) = pages.split_at(per_page - 1);
            self.memory.fill_addresses(list, now);
            let next = self.page_list(later);
            self.memory.fill_addresses(list + (per_page as u64 - 1) * 8, &[next]);
        }
        list
    }

    /// PRP1 and PRP2 for contiguous memory.
    pub(crate) fn prps(&self, address: u64, len: u64) -> (u64, u64) {
        let page = self.page();
        let first = page - address % page;
        if len <= first {
            return (address, 0);
        }
        let next = address + first;
        if len - first <= page {
            return (address, next);
        }
        let pages: Vec<u64> = (0..(len - first).div_ceil(page)).map(|index| next + index * page).collect();
        (address, self.page_list(&pages))
    }

    /// Memory with `bytes` in it, and its PRPs.
    pub(crate) fn data(&self, bytes: &[u8]) -> (u64, u64) {
        let address = self.allocate(bytes.len() as u64);
        self.memory.fill(address, bytes);
        self.prps(address, bytes.len() as u64)
    }

    /// Zeroed memory, its address and its PRPs.
    pub(crate) fn buffer(&self, len: u64) -> (u64, (u64, u64)) {
        let address = self.allocate(len);
        (address, self.prps(address, len))
    }

    /// Takes the completion of a command.
    pub(crate) fn take(&mut self, queue: u16, command: u16) -> Option<Completion> {
        let at = self.done.iter().position(|done| done.queue == queue && done.command == command)?;
        Some(self.done.remove(at))
    }
}

impl World {
    /// Enables a controller through its registers; it must become ready.
    #[track_caller]
    pub(crate) fn enable(&mut self, host: usize) {
        let this = &self.hosts[host];
        let entries = this.admin_entries;
        let asq = this.allocate(u64::from(entries) * 64);
        let acq = this.allocate(u64::from(entries) * 16);
        let page_bits = u32::from(this.page_shift - 12) << 7;
        self.write32(host, AQA, ((entries - 1) << 16) | (entries - 1));
        self.write64(host, ASQ, asq);
        self.write64(host, ACQ, acq);
        self.write32(host, CC, ENABLE | page_bits);
        self.settle();
        assert!(self.is_ready(host) && !self.is_fatal(host), "controller {host} does not become ready");
        let this = &mut self.hosts[host];
        this.submission.clear();
        this.completion.clear();
        this.held.clear();
        this.done.clear();
        this.add_submission(0, asq, entries);
        this.add_completion(0, acq, entries);
    }

    /// Disables a controller by a Controller Reset.
    pub(crate) fn disable(&mut self, host: usize) {
        self.write32(host, CC, self.read32(host, CC) & !1);
        self.settle();
        assert!(!self.is_ready(host), "controller {host} does not stop");
    }

    /// A Controller Reset, and ready again with new admin queues.
    pub(crate) fn reset(&mut self, host: usize) {
        self.disable(host);
        self.enable(host);
    }

    /// Puts a command into a submission queue without ringing, and returns its identifier.
    #[track_caller]
    pub(crate) fn send(&mut self, host: usize, queue: u16, command: Sqe) -> u16 {
        let this = &mut self.hosts[host];
        let id = this.next_command;
        this.next_command = this.next_command % 0xF000 + 1;
        self.send_as(host, queue, command, id);
        id
    }

    #[track_caller]
    pub(crate) fn send_as(&mut self, host: usize, queue: u16, command: Sqe, id: u16) {
        let this = &mut self.hosts[host];
        let submission = this.submission.get_mut(&queue).expect("a submission queue");
        let next = (submission.tail + 1) % submission.entries;
        assert_ne!(next, submission.head, "submission queue {queue} is full");
        this.memory.fill(submission.area.at(u64::from(submission.tail) * 64), &command.bytes(id));
        submission.tail = next;
    }

    pub(crate) fn ring(&mut self, host: usize, queue: u16) {
        let tail = self.hosts[host].submission[&queue].tail;
        self.write32(host, 0x1000 + u32::from(queue) * 8, tail);
    }

    pub(crate) fn ring_completion(&mut self, host: usize, queue: u16, head: u32) {
        self.write32(host, 0x1004 + u32::from(queue) * 8, head);
    }

    /// Puts a command into a queue and rings.
    #[track_caller]
    pub(crate) fn submit(&mut self, host: usize, queue: u16, command: Sqe) -> u16 {
        let id = self.send(host, queue, command);
        self.ring(host, queue);
        id
    }

    /// Reads what is new in one completion queue and rings its head; returns how many completions.
    pub(crate) fn harvest(&mut self, host: usize, queue: u16) -> usize {
        self.harvest_some(host, queue, usize::MAX)
    }

    /// As [`harvest`](Self::harvest), but reads no more than `limit` completions.
    pub(crate) fn harvest_some(&mut self, host: usize, queue: u16, limit: usize) -> usize {
        let this = &mut self.hosts[host];
        let Some(completion) = this.completion.get_mut(&queue) else { return 0 };
        let before = completion.head;
        let mut count = 0;
        while count < limit {
            let bytes = this.memory.bytes(completion.area.at(u64::from(completion.head) * 16), 16);
            if u16::from(bytes[14] & 1) != completion.phase {
                break;
            }
            let entry = Completion::parse(&bytes);
            // Some tests play with submission queues the host knows nothing of.
            if let Some(submission) = this.submission.get_mut(&entry.queue) {
                assert!(u32::from(entry.sq_head) < submission.entries, "{entry:?}");
                submission.head = u32::from(entry.sq_head);
            }
            this.done.push(entry);
            count += 1;
            assert!(count < completion.entries as usize, "completion queue {queue} holds more than it can");
            completion.head += 1;
            if completion.head == completion.entries {
                completion.head = 0;
                completion.phase ^= 1;
            }
        }
        if completion.head != before {
            let head = completion.head;
            self.ring_completion(host, queue, head);
        }
        count
    }

    /// Reads all completion queues that are not held, of all controllers that work; returns how many completions.
    pub(crate) fn harvest_all(&mut self) -> usize {
        let mut count = 0;
        for host in 0..self.hosts.len() {
            let queues: Vec<u16> = self.hosts[host].completion.keys().copied().collect();
            for queue in queues {
                let readable = self.is_ready(host) && !self.is_fatal(host);
                if readable && !self.hosts[host].held.contains(&queue) {
                    count += self.harvest(host, queue);
                }
            }
        }
        count
    }

    /// Works and reads completions until nothing happens any more.
    pub(crate) fn run(&mut self) {
        loop {
            self.settle();
            if self.harvest_all() == 0 {
                return;
            }
        }
    }

    /// Submits a command and returns its completion.
    #[track_caller]
    pub(crate) fn exec(&mut self, host: usize, queue: u16, command: Sqe) -> Completion {
        let id = self.submit(host, queue, command);
        self.run();
        match self.hosts[host].take(queue, id) {
            Some(completion) => completion,
            None => panic!("command {:#x?} of queue {queue} is not completed", command.0),
        }
    }

    /// The same on the admin queue.
    #[track_caller]
    pub(crate) fn admin(&mut self, host: usize, command: Sqe) -> Completion {
        self.exec(host, 0, command)
    }

    /// Submits a command that must stay outstanding, and returns its identifier.
    #[track_caller]
    pub(crate) fn leave(&mut self, host: usize, queue: u16, command: Sqe) -> u16 {
        let id = self.submit(host, queue, command);
        self.run();
        let done = self.hosts[host].take(queue, id);
        assert_eq!(done, None, "the command should stay outstanding");
        id
    }

    /// The result of an Asynchronous Event Request that was left outstanding, if it was completed: dword 0 and 1.
    #[track_caller]
    pub(crate) fn event(&mut self, host: usize, request: u16) -> Option<(u32, u32)> {
        self.run();
        self.hosts[host].take(0, request).map(|done| {
            let done = done.ok();
            (done.dword0, done.dword1)
        })
    }

    /// Creates an I/O queue pair of `entries` slots; both queues have the same number, as has the vector.
    #[track_caller]
    pub(crate) fn create_pair(&mut self, host: usize, queue: u16, entries: u32) {
        self.create_completion(host, queue, entries, queue % 64);
        self.create_submission(host, queue, queue, entries);
    }

    #[track_caller]
    pub(crate) fn create_completion(&mut self, host: usize, queue: u16, entries: u32, vector: u16) {
        let base = self.hosts[host].allocate(u64::from(entries) * 16);
        self.admin(host, sqe::create_cq(queue, entries, vector, base)).ok();
        self.hosts[host].add_completion(queue, base, entries);
    }

    #[track_caller]
    pub(crate) fn create_submission(&mut self, host: usize, queue: u16, completion: u16, entries: u32) {
        let base = self.hosts[host].allocate(u64::from(entries) * 64);
        self.admin(host, sqe::create_sq(queue, completion, entries, base)).ok();
        self.hosts[host].add_submission(queue, base, entries);
    }

    /// Reads the 4,096 bytes of an Identify data structure.
    #[track_caller]
    pub(crate) fn identify(&mut self, host: usize, structure: u8, nsid: u32, controller: u16) -> Vec<u8> {
        let buffer = self.hosts[host].allocate(4096);
        self.admin(host, sqe::identify(structure, nsid, controller, buffer)).ok();
        self.memory(host).bytes(buffer, 4096)
    }

    /// Writes `blocks` blocks of `byte` through I/O queue 1, which must exist.
    #[track_caller]
    pub(crate) fn write_blocks(&mut self, host: usize, nsid: u32, start: u64, blocks: u32, byte: u8) {
        self.try_write(host, nsid, start, blocks, byte).ok();
    }

    #[track_caller]
    pub(crate) fn try_write(
        &mut self,
        host: usize,
        nsid: u32,
        start: u64,
        blocks: u32,
        byte: u8,
    ) -> Completion {
        let len = self.block_bytes(nsid) * blocks as usize;
        let prps = self.hosts[host].data(&vec![byte; len]);
        self.exec(host, 1, sqe::write(nsid, start, blocks, prps))
    }
}

impl Host {
    /// Takes note of a contiguous submission queue that exists.
    pub(crate) fn add_submission(&mut self, queue: u16, base: u64, entries: u32) {
        let area = Area::contiguous(base, u64::from(entries) * 64, self.page());
        self.submission.insert(queue, SubmissionQueue { area, entries, tail: 0, head: 0 });
    }

    /// Takes note of a contiguous completion queue that exists.
    pub(crate) fn add_completion(&mut self, queue: u16, base: u64, entries: u32) {
        let area = Area::contiguous(base, u64::from(entries) * 16, self.page());
        self.completion.insert(queue, CompletionQueue { area, entries, head: 0, phase: 1 });
    }
}

// SPDX-License-Identifier: MIT OR Apache-2.0
//! A subsystem with two managing controllers and two guests', each with a small memory of its own, driven by raw
//! entries. Whatever the controllers do is watched.

mod memory;
mod watch;

use nvme_controller::{
    Activity, CommandSlot, CompletionQueueSlot, Controller, ControllerConfig, ControllerStorage,
    DataQueueSlot, ErrorSlot, EventSlot, Namespace, Port, SubmissionQueueSlot, Subsystem, SubsystemConfig,
    SubsystemStorage, TrackedRange, state_bytes,
};
use nvme_core::register::Offset;
use nvme_core::wire::admin::{CreateIoCompletionQueue, CreateIoSubmissionQueue, QueuePriority};
use nvme_core::wire::controller_state::ControllerStateHeader;
use nvme_core::wire::migration::{MigrationReceive, MigrationSend, SequenceIndicator, SuspendKind};
use nvme_core::wire::track::{
    MemoryGranularity, MemoryRange, TrackMemoryRanges, TrackReceive, TrackSend, TrackedMemoryChanges,
};
use nvme_core::wire::{
    AdminOpcode, BusAddr, Command, CommandId, CompletionQueueEntry, ControllerId, NamespaceId, QueueId,
    Status, SubmissionQueueEntry,
};
use zerocopy::{FromBytes, IntoBytes};

use memory::{Journal, Medium, Quiet, Space};
pub(crate) use watch::Figures;
use watch::{Moment, Sight, Watch};

/// Controllers.
pub(crate) const CONTROLLERS: usize = 4;
/// Indices of the managing controllers.
pub(crate) const MANAGERS: [usize; 2] = [0, 1];
/// Indices of the guests' controllers.
pub(crate) const GUESTS: [usize; 2] = [2, 3];
/// The managing controller that is used where one is enough.
pub(crate) const MANAGER: usize = MANAGERS[0];
/// The guest's controller that is used where one is enough.
pub(crate) const GUEST: usize = GUESTS[0];
/// Their identifiers.
pub(crate) const IDS: [ControllerId; CONTROLLERS] =
    [ControllerId::new(1), ControllerId::new(2), ControllerId::new(3), ControllerId::new(4)];

pub(crate) const PAGE: u64 = 4096;
/// First mapped address.
pub(crate) const BASE: u64 = 0x1_0000;
/// Pages that can be mapped.
pub(crate) const PAGES: u64 = 32;
/// Where the queues and data of a well-behaved host lie.
pub(crate) const ASQ: u64 = BASE;
pub(crate) const ACQ: u64 = BASE + PAGE;
pub(crate) const SQ: u64 = BASE + 2 * PAGE;
pub(crate) const CQ: u64 = BASE + 3 * PAGE;
pub(crate) const CDQ: u64 = BASE + 5 * PAGE;
pub(crate) const DATA: u64 = BASE + 8 * PAGE;
/// Lists of pages of queues that are not contiguous.
pub(crate) const LISTS: [u64; 2] = [BASE + 4 * PAGE, BASE + 27 * PAGE];
const SECOND_SQ: u64 = BASE + 28 * PAGE;
const SECOND_CQ: u64 = BASE + 29 * PAGE;
/// What memory tracking reports.
const REPORT: u64 = BASE + 30 * PAGE;
/// Entries of a well-behaved host's queues.
pub(crate) const ENTRIES: u32 = 32;
const QUEUES: usize = 4;

/// The host's half of one queue pair.
#[derive(Clone, Copy, Debug)]
struct Pair {
    submission: u64,
    completion: u64,
    completion_entries: u32,
    tail: u32,
    /// Where the controller reads next, as far as it said.
    taken: u32,
    head: u32,
    phase: bool,
    next_id: u16,
}

impl Pair {
    const fn new(queue: usize, completion_entries: u32) -> Self {
        let (submission, completion) = match queue {
            0 => (ASQ, ACQ),
            1 => (SQ, CQ),
            _ => (SECOND_SQ, SECOND_CQ),
        };
        let (tail, taken, head) = (0, 0, 0);
        Self { submission, completion, completion_entries, tail, taken, head, phase: true, next_id: 0 }
    }
}

/// See the module.
pub(crate) struct Rig<'s> {
    subsystem: Subsystem<'s, Space, Medium, Quiet>,
    pub(crate) spaces: [Space; CONTROLLERS],
    pub(crate) ports: [Port; CONTROLLERS],
    pairs: [[Pair; 3]; CONTROLLERS],
    journal: Journal,
    watch: Watch,
}

/// Makes the world and lends it to `act`.
pub(crate) fn with_rig<T>(act: impl FnOnce(&mut Rig<'_>) -> T) -> T {
    let journal = Journal::default();
    let spaces: [Space; CONTROLLERS] = core::array::from_fn(|index| Space::new(index, journal.clone()));
    let mut submission = vec![SubmissionQueueSlot::new(); CONTROLLERS * QUEUES];
    let mut completion = vec![CompletionQueueSlot::new(); CONTROLLERS * QUEUES];
    let mut commands = vec![CommandSlot::new(); CONTROLLERS * 17];
    let mut requests = [CommandId::new(0); CONTROLLERS * 3];
    let mut events = [EventSlot::new(); CONTROLLERS * 4];
    let mut errors = vec![ErrorSlot::new(); CONTROLLERS * 4];
    let bytes = state_bytes(QUEUES, QUEUES, 3, 4);
    let mut state = vec![0; CONTROLLERS * bytes];
    let mut ranges = [TrackedRange::new(); CONTROLLERS * 4];
    let mut bits = [0; CONTROLLERS * 16];
    let mut controllers: Vec<_> = submission
        .chunks_mut(QUEUES)
        .zip(completion.chunks_mut(QUEUES))
        .zip(commands.chunks_mut(17).zip(requests.chunks_mut(3)))
        .zip(events.chunks_mut(4).zip(errors.chunks_mut(4)))
        .zip(state.chunks_mut(bytes).zip(ranges.chunks_mut(4).zip(bits.chunks_mut(16))))
        .enumerate()
        .map(|(index, lent)| {
            let (((queues, commands), events), (state, tracked)) = lent;
            let storage = ControllerStorage {
                submission_queues: queues.0,
                completion_queues: queues.1,
                commands: commands.0,
                event_requests: commands.1,
                events: events.0,
                errors: events.1,
                state,
                tracked_ranges: tracked.0,
                tracked_bits: tracked.1,
            };
            let config = if MANAGERS.contains(&index) {
                ControllerConfig::managing(IDS[index])
            } else {
                ControllerConfig::migratable(IDS[index])
            };
            Controller::new(config, spaces[index].clone(), storage)
        })
        .collect();
    let medium = Medium::new(journal.clone());
    let mut namespaces = [Namespace::new(NamespaceId::new(1), medium, [1; 16])];
    let mut data_queues = vec![DataQueueSlot::new(); 3];
    let mut scratch = vec![0; 4096];
    let config = SubsystemConfig {
        max_queue_entries: 256,
        max_transfer_shift: 2,
        max_copy_bytes: 8192,
        keep_alive_granularity: 1,
        ..SubsystemConfig::default()
    };
    let storage = SubsystemStorage {
        controllers: &mut controllers,
        namespaces: &mut namespaces,
        data_queues: &mut data_queues,
        scratch: &mut scratch,
    };
    let subsystem = Subsystem::new(config, storage, Quiet).expect("a possible subsystem");
    let ports = IDS.map(|id| subsystem.port(id).expect("a controller"));
    let pairs = [core::array::from_fn(|queue| Pair::new(queue, ENTRIES)); CONTROLLERS];
    act(&mut Rig { subsystem, spaces, ports, pairs, journal, watch: Watch::new() })
}

impl Rig<'_> {
    /// How far it has come.
    pub(crate) const fn figures(&self) -> Figures {
        self.watch.figures
    }

    /// How the controllers fare, as their hosts see it.
    fn sights(&self) -> [Sight; CONTROLLERS] {
        core::array::from_fn(|index| {
            let at = |offset| u64::from(self.read32(index, offset));
            Sight {
                configuration: at(0x14) as u32,
                status: at(0x1C) as u32,
                admin: (at(0x28) | at(0x2C) << 32, (at(0x24) & 0xFFF) as u32 + 1),
            }
        })
    }

    /// Does something and looks at what the controllers did meanwhile; `resets` are those that it resets.
    fn watched<T>(
        &mut self,
        moment: Moment,
        resets: &[usize],
        act: impl FnOnce(&mut Subsystem<'_, Space, Medium, Quiet>) -> T,
    ) -> T {
        let before = self.sights();
        let result = act(&mut self.subsystem);
        let after = self.sights();
        let acts = core::mem::take(&mut *self.journal.borrow_mut());
        self.watch.look(moment, &acts, &before, &after);
        for index in resets {
            self.watch.reset(*index);
        }
        result
    }

    /// Fetches.
    pub(crate) fn fetch(&mut self, budget: u32) -> u32 {
        let fetched = self.watched(Moment::Fetch, &[], |subsystem| subsystem.fetch(budget));
        // Both halves of a fused pair are fetched together.
        assert!(fetched <= CONTROLLERS as u32 * (budget + 1), "{fetched} with a budget of {budget}");
        fetched
    }

    /// Executes.
    pub(crate) fn execute(&mut self, budget: u32) -> Activity {
        self.watched(Moment::Execute, &[], |subsystem| subsystem.execute(budget))
    }

    /// Fetches and executes.
    pub(crate) fn work(&mut self, budget: u32) {
        self.fetch(budget);
        self.execute(budget);
    }

    /// Tells the time, in microseconds.
    pub(crate) fn advance(&mut self, now: u64) {
        self.watched(Moment::Access, &[], |subsystem| subsystem.advance(now));
    }

    /// Resets a controller from outside.
    pub(crate) fn reset(&mut self, index: usize) {
        let port = self.ports[index];
        self.watched(Moment::Access, &[index], |subsystem| subsystem.reset(port));
    }

    pub(crate) fn read32(&self, index: usize, offset: u32) -> u32 {
        self.subsystem.read32(self.ports[index], Offset::new(offset)).expect("an aligned offset")
    }

    /// Reads at an offset that may be anything.
    pub(crate) fn read_anywhere(&self, index: usize, offset: u32) {
        let result = self.subsystem.read32(self.ports[index], Offset::new(offset));
        assert_eq!(result.is_err(), !offset.is_multiple_of(4), "a read at {offset:#x}");
        let wide = self.subsystem.read64(self.ports[index], Offset::new(offset));
        assert_eq!(wide.is_err(), !offset.is_multiple_of(8), "a wide read at {offset:#x}");
    }

    /// Writes at an offset that may be anything.
    pub(crate) fn write32(&mut self, index: usize, offset: u32, value: u32) {
        let port = self.ports[index];
        let resets: &[usize] = match offset {
            0x14 if self.read32(index, 0x14) & 1 != 0 && value & 1 == 0 => &[index],
            0x20 if MANAGERS.contains(&index) && value == 0x4E56_4D65 => &[0, 1, 2, 3],
            _ => &[],
        };
        let result = self
            .watched(Moment::Access, resets, |subsystem| subsystem.write32(port, Offset::new(offset), value));
        assert_eq!(result.is_err(), !offset.is_multiple_of(4), "a write at {offset:#x}");
    }

    /// Enables a controller with an admin queue pair where a well-behaved host has it. Whether it is ready.
    pub(crate) fn bring_up(&mut self, index: usize) -> bool {
        self.write32(index, 0x14, 0);
        self.work(4);
        for (offset, value) in [
            (0x24, (ENTRIES - 1) << 16 | (ENTRIES - 1)),
            (0x28, ASQ as u32),
            (0x2C, 0),
            (0x30, ACQ as u32),
            (0x34, 0),
        ] {
            self.write32(index, offset, value);
        }
        self.spaces[index].put(ACQ, &[0; ENTRIES as usize * 16]);
        let next_id = self.pairs[index][0].next_id;
        self.pairs[index][0] = Pair { next_id, ..Pair::new(0, ENTRIES) };
        self.write32(index, 0x14, 0x0046_0001);
        self.work(4);
        self.read32(index, 0x1C) & 3 == 1
    }

    /// Carries out one admin command; `None` if it was not completed.
    pub(crate) fn admin(
        &mut self,
        index: usize,
        entry: SubmissionQueueEntry,
    ) -> Option<CompletionQueueEntry> {
        self.command(index, 0, entry)
    }

    /// Makes I/O queue pair 1 of a controller that was brought up. Whether it exists.
    pub(crate) fn make_queues(&mut self, index: usize) -> bool {
        self.make_pair(index, 1, ENTRIES, true)
    }

    /// Makes an I/O queue pair, contiguous or described by lists. Whether it exists.
    pub(crate) fn make_pair(
        &mut self,
        index: usize,
        queue: usize,
        completion_entries: u32,
        contiguous: bool,
    ) -> bool {
        let next_id = self.pairs[index][queue].next_id;
        let pair = Pair { next_id, ..Pair::new(queue, completion_entries) };
        let id = QueueId::new(queue as u16);
        let completion = CreateIoCompletionQueue {
            queue: id,
            entries: completion_entries,
            contiguous,
            interrupts_enabled: true,
            interrupt_vector: 1,
        };
        let submission = CreateIoSubmissionQueue {
            queue: id,
            entries: ENTRIES,
            contiguous,
            priority: QueuePriority::Medium,
            completion_queue: id,
            nvm_set: 0,
        };
        let space = &self.spaces[index];
        let [first, second] = if contiguous {
            [pair.completion, pair.submission]
        } else {
            space.put(LISTS[0], &pair.completion.to_le_bytes());
            space.put(LISTS[1], &pair.submission.to_le_bytes());
            LISTS
        };
        let entry = |entry: SubmissionQueueEntry, at| entry.with_prps(BusAddr::new(at), BusAddr::new(0));
        let made = |done: Option<CompletionQueueEntry>| done.is_some_and(|done| done.status().is_success());
        if !made(self.admin(index, entry(completion.encode(), first))) {
            return false;
        }
        // Nothing is posted there yet.
        self.spaces[index].put(pair.completion, &[0; ENTRIES as usize * 16]);
        self.pairs[index][queue] = pair;
        made(self.admin(index, entry(submission.encode(), second)))
    }

    /// Puts an entry into the ring of a pair and returns its identifier, `None` if the ring is full. Without a doorbell.
    pub(crate) fn put(
        &mut self,
        index: usize,
        queue: usize,
        entry: SubmissionQueueEntry,
        same_id: bool,
    ) -> Option<CommandId> {
        let pair = &mut self.pairs[index][queue];
        let next = (pair.tail + 1) % ENTRIES;
        if next == pair.taken {
            return None;
        }
        if !same_id {
            pair.next_id = pair.next_id.wrapping_add(1);
        }
        let id = CommandId::new(pair.next_id);
        let at = pair.submission + u64::from(pair.tail) * 64;
        pair.tail = next;
        self.spaces[index].put(at, entry.with_command_id(id).as_bytes());
        Some(id)
    }

    /// Rings the doorbell of a pair.
    pub(crate) fn ring(&mut self, index: usize, queue: usize) {
        let tail = self.pairs[index][queue].tail;
        self.write32(index, 0x1000 + 8 * queue as u32, tail);
    }

    /// Takes the completions of a pair that are there, and frees their slots.
    pub(crate) fn take(&mut self, index: usize, queue: usize) -> Vec<CompletionQueueEntry> {
        let (space, pair) = (&self.spaces[index], &mut self.pairs[index][queue]);
        let mut found = Vec::new();
        while found.len() < pair.completion_entries as usize {
            let mut bytes = [0; 16];
            space.get(pair.completion + u64::from(pair.head) * 16, &mut bytes);
            let entry = CompletionQueueEntry::read_from_bytes(&bytes).expect("16 bytes");
            if entry.phase() != pair.phase {
                break;
            }
            pair.head = (pair.head + 1) % pair.completion_entries;
            pair.phase ^= pair.head == 0;
            pair.taken = u32::from(entry.submission_head()) % ENTRIES;
            found.push(entry);
        }
        if !found.is_empty() {
            let head = pair.head;
            self.write32(index, 0x1004 + 8 * queue as u32, head);
        }
        found
    }

    /// Takes the completions of all pairs.
    pub(crate) fn take_all(&mut self) {
        for index in 0..CONTROLLERS {
            for queue in 0..3 {
                self.take(index, queue);
            }
        }
    }

    /// Carries out one command of a pair; `None` if it was not completed. Completions of others are taken too.
    pub(crate) fn command(
        &mut self,
        index: usize,
        queue: usize,
        entry: SubmissionQueueEntry,
    ) -> Option<CompletionQueueEntry> {
        self.take(index, queue);
        let id = self.put(index, queue, entry, false)?;
        self.finish(index, queue, id)
    }

    /// Rings, and waits until the command `id` of a pair is completed.
    fn finish(&mut self, index: usize, queue: usize, id: CommandId) -> Option<CompletionQueueEntry> {
        self.ring(index, queue);
        (0..8).find_map(|_| {
            self.work(8);
            self.take(index, queue).into_iter().find(|done| done.command_id() == id)
        })
    }

    /// Sends an admin command with its identifier known to the watch before it can be carried out.
    fn tracked(
        &mut self,
        index: usize,
        entry: SubmissionQueueEntry,
    ) -> Option<(CompletionQueueEntry, Option<watch::Report>)> {
        self.take(index, 0);
        let id = self.put(index, 0, entry, false)?;
        self.watch.expect(index, id, REPORT..REPORT + PAGE);
        let done = self.finish(index, 0, id);
        let report = self.watch.expected();
        done.map(|done| (done, report))
    }

    /// The host of one guest becomes that of the other: its memory and what it knows of its queues go along.
    pub(crate) fn move_host(&mut self, from: usize, to: usize) {
        self.pairs[to] = self.pairs[from];
        self.spaces[to].become_like(&self.spaces[from]);
    }

    /// Begins to track what the controller at `guest` writes.
    pub(crate) fn track(&mut self, manager: usize, guest: usize) {
        let (mut bytes, granularity) = ([0; 64], MemoryGranularity::default());
        let range = MemoryRange { start: BusAddr::new(BASE), granules: PAGES as u32 };
        let len = TrackMemoryRanges::build(&mut bytes, granularity, &[range]).expect("a legal range");
        self.spaces[manager].put(REPORT, &bytes[..len]);
        let start = TrackSend::TrackMemoryChanges { start: true, controller: IDS[guest] };
        self.tracked(manager, start.encode().with_prps(BusAddr::new(REPORT), BusAddr::new(0)));
    }

    /// Asks what the controller at `guest` has written, at most `dwords` of it, and compares.
    pub(crate) fn written(&mut self, manager: usize, guest: usize, dwords: u32) {
        let receive = TrackReceive { controller: IDS[guest], dwords: dwords.into() };
        let entry = receive.encode().with_prps(BusAddr::new(REPORT), BusAddr::new(0));
        let Some((done, report)) = self.tracked(manager, entry) else { return };
        // Without a report nothing is known.
        let Some(report) = report.filter(|_| done.status().is_success()) else { return };
        let mut bytes = vec![0; dwords as usize * 4];
        self.spaces[manager].get(REPORT, &mut bytes);
        let found = TrackedMemoryChanges::parse(&bytes).expect("a legal report");
        assert_eq!(found.controller(), IDS[guest]);
        let mut pages = [false; PAGES as usize];
        for range in found.iter() {
            let first = (range.start.get() - BASE) / PAGE;
            pages[first as usize..][..range.granules as usize].fill(true);
        }
        self.watch.compare(guest, &report, &pages, found.more());
    }

    /// Whoever was to be told that a data queue became full is told, if it works at all.
    pub(crate) fn expect_full_events(&mut self) {
        for owner in MANAGERS {
            let keep_alive = SubmissionQueueEntry::new(AdminOpcode::KEEP_ALIVE.get());
            for _ in 0..14 {
                let alive = self.admin(owner, keep_alive).is_some_and(|done| done.status().is_success());
                if !alive || !self.watch.owes_full_event(owner) {
                    break;
                }
                let request = SubmissionQueueEntry::new(AdminOpcode::ASYNCHRONOUS_EVENT_REQUEST.get());
                self.put(owner, 0, request, false);
                self.ring(owner, 0);
                self.work(4);
                self.work(4);
            }
            let alive = self.admin(owner, keep_alive).is_some_and(|done| done.status().is_success());
            assert!(!alive || !self.watch.owes_full_event(owner), "{:?}", self.watch);
        }
    }

    /// Suspends a guest's controller.
    pub(crate) fn suspend(&mut self, guest: usize) -> bool {
        let suspend = MigrationSend::Suspend {
            controller: IDS[guest],
            kind: SuspendKind::Suspend,
            delete_queue: false,
            uuid_index: 0,
        };
        self.admin(MANAGER, suspend.encode()).is_some_and(|entry| entry.status().is_success())
    }

    /// The state of a guest's controller, with the vendor part if asked for.
    pub(crate) fn get_state(&mut self, manager: usize, guest: usize, vendor: bool) -> Option<Vec<u8>> {
        let command = |dwords: u64| {
            MigrationReceive {
                controller: IDS[guest],
                version_index: 1,
                vendor_index: vendor.into(),
                vendor_parameter: 0,
                offset: 0,
                dwords,
                uuid_index: 0,
            }
            .encode()
            .with_prps(BusAddr::new(DATA), BusAddr::new(DATA + PAGE))
        };
        self.admin(manager, command(12)).filter(|entry| entry.status().is_success())?;
        let mut header = [0; 48];
        self.spaces[manager].get(DATA, &mut header);
        let total = ControllerStateHeader::parse(&header).ok()?.sizes(8192).ok()?.total;
        self.admin(manager, command(total as u64 / 4)).filter(|entry| entry.status().is_success())?;
        let mut image = vec![0; total];
        self.spaces[manager].get(DATA, &mut image);
        Some(image)
    }

    /// Sets the state of a guest's controller in about `parts` parts; if `out_of_order`, the last comes
    /// first. The status of a part that was refused, `None` if one was not completed.
    pub(crate) fn set_state(
        &mut self,
        (manager, guest): (usize, usize),
        image: &[u8],
        parts: usize,
        vendor: bool,
        out_of_order: bool,
    ) -> Result<(), Option<Status>> {
        let piece = image.len().div_ceil(parts).next_multiple_of(4).max(4);
        let count = image.len().div_ceil(piece);
        let mut order: Vec<(usize, &[u8])> = image.chunks(piece).enumerate().collect();
        if out_of_order {
            order.rotate_right(1);
        }
        for (n, part) in order {
            let sequence = match (n == 0, n + 1 == count) {
                (true, true) => SequenceIndicator::Only,
                (true, false) => SequenceIndicator::First,
                (false, true) => SequenceIndicator::Last,
                (false, false) => SequenceIndicator::Middle,
            };
            self.spaces[manager].put(DATA, part);
            let command = MigrationSend::SetControllerState {
                controller: IDS[guest],
                sequence,
                version_index: 1,
                vendor_index: vendor.into(),
                offset: (n * piece) as u64,
                dwords: part.len() as u32 / 4,
                uuid_index: 0,
            };
            let entry = command.encode().with_prps(BusAddr::new(DATA), BusAddr::new(DATA + PAGE));
            let status = self.admin(manager, entry).map(|done| done.status());
            if !status.is_some_and(Status::is_success) {
                return Err(status);
            }
        }
        Ok(())
    }
}

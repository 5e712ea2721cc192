// SPDX-License-Identifier: MIT OR Apache-2.0
//! What controllers may do, checked against what they do. It knows nothing but what their hosts and media see: entries
//! that are fetched, completions and log entries that are posted, memory that is reached, blocks that change.
//!
//! - A disabled, failed, shut down or suspended controller reaches no memory, and a property access of any host makes
//!   no controller reach another's.
//! - A command is completed at most once, and none that was fetched before a reset.
//! - Log entries follow each other in the ring with the right tag. From its 001b entry on a log has every block that its
//!   controller changes, before the command is completed, or it ends with 111b or the full event. Start, stop, Suspend
//!   and Resume leave the marker that they have to.
//! - Memory tracking reports every page written.

use std::ops::Range;

use nvme_core::wire::cdq::{ControllerDataQueueCommand, created_queue};
use nvme_core::wire::lba_migration::{Change, EntrySequence, LbaMigrationEntry};
use nvme_core::wire::migration::{MigrationSend, SuspendKind};
use nvme_core::wire::track::{TrackReceive, TrackSend};
use nvme_core::wire::{
    AdminOpcode, AsynchronousEvent, CdqEvent, CdqId, Command, CommandId, CompletionQueueEntry, ControllerId,
    StatusCode, SubmissionQueueEntry,
};
use zerocopy::FromBytes;

use super::memory::{Act, Touch};
use super::{BASE, CONTROLLERS, IDS, MANAGERS, PAGE, PAGES};

/// Which pages of a host's memory.
pub(crate) type Report = [bool; PAGES as usize];

/// What was going on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Moment {
    /// A host accessed a property, or the device was reset from outside.
    Access,
    Fetch,
    Execute,
}

/// How a controller fares, as its host sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Sight {
    pub(super) configuration: u32,
    pub(super) status: u32,
    /// Base and entries of the admin submission queue.
    pub(super) admin: (u64, u32),
}

impl Sight {
    const fn disabled(&self) -> bool {
        self.configuration & 1 == 0 && self.status & 1 == 0
    }

    /// Failed or shut down.
    const fn dead(&self) -> bool {
        self.status & 2 != 0 || self.status >> 2 & 3 == 2
    }
}

/// How far a run has come.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Figures {
    /// I/O commands completed with success.
    pub(crate) transfers: u32,
    /// Admin commands completed with success.
    pub(crate) admin: u32,
    /// Entries of logs, markers included.
    pub(crate) log_entries: u32,
    /// Logs that became full.
    pub(crate) overflows: u32,
    /// Suspends, states taken and Resumes that succeeded.
    pub(crate) migration: [u32; 3],
    /// Reports of memory tracking that were compared.
    pub(crate) reports: u32,
    /// Events of data queues.
    pub(crate) events: u32,
}

/// What is known of one controller.
#[derive(Debug, Default)]
struct Life {
    /// Fetched and not completed, each with whether the admin queue is where it came from.
    outstanding: Vec<(bool, SubmissionQueueEntry)>,
    /// Event requests that may have come with a state.
    imported: u32,
    /// A state was taken in this turn.
    fresh: bool,
    suspended: bool,
    /// The pages that it has written since it was last asked, while that is tracked, and who tracks it.
    written: Option<(usize, Report)>,
    /// Something was done that cannot be understood from outside; until the next reset its logs say nothing.
    blind: bool,
}

/// What is known of one data queue.
#[derive(Debug)]
struct Log {
    owner: usize,
    id: CdqId,
    target: ControllerId,
    base: u64,
    entries: u32,
    tail: u32,
    phase: bool,
    on: bool,
    last: Option<EntrySequence>,
    owes_full_event: bool,
}

/// A command of this host that is waited for: its identifier, where its data are, how often they were written, and what
/// tracking knew when it was carried out.
#[derive(Debug)]
struct Expected {
    manager: usize,
    id: CommandId,
    data: Range<u64>,
    writes: u32,
    report: Option<Report>,
}

/// See the module.
#[derive(Debug)]
pub(super) struct Watch {
    pub(super) figures: Figures,
    lives: [Life; CONTROLLERS],
    logs: Vec<Log>,
    /// Managing controllers that have data queues described by lists, which the host may change.
    lists: [bool; CONTROLLERS],
    /// Blocks changed since the last completion, and whether a log has them.
    changed: Vec<(u64, bool)>,
    expected: Option<Expected>,
}

impl Watch {
    pub(super) fn new() -> Self {
        Self {
            figures: Figures::default(),
            lives: Default::default(),
            logs: Vec::new(),
            lists: [false; CONTROLLERS],
            changed: Vec::new(),
            expected: None,
        }
    }

    /// A controller was reset.
    pub(super) fn reset(&mut self, index: usize) {
        let written = self.lives[index].written;
        self.lives[index] = Life { written, ..Life::default() };
        if MANAGERS.contains(&index) {
            self.logs.retain(|log| log.owner != index);
            self.lists[index] = false;
            for life in &mut self.lives {
                // Those that it suspended; which they are is not known.
                life.suspended = false;
                life.written = life.written.filter(|(manager, _)| *manager != index);
            }
        }
    }

    /// What goes on cannot be understood any more.
    fn lose(&mut self, manager: usize) {
        self.lives[manager].blind = true;
        self.logs.retain(|log| log.owner != manager);
        for life in &mut self.lives {
            life.suspended = false;
            life.written = None;
            life.imported = 3;
        }
    }

    pub(super) fn owes_full_event(&self, owner: usize) -> bool {
        self.logs.iter().any(|log| log.owner == owner && log.owes_full_event)
    }

    /// Waits for the command `id` of a manager, with its data in `data`.
    pub(super) fn expect(&mut self, manager: usize, id: CommandId, data: Range<u64>) {
        self.expected = Some(Expected { manager, id, data, writes: 0, report: None });
    }

    /// What tracking had to report to the command waited for, if nobody else wrote where its data are.
    pub(super) fn expected(&mut self) -> Option<Report> {
        let expected = self.expected.take()?;
        expected.report.filter(|_| expected.writes == 1)
    }

    /// Compares what had to be reported with what was; the rest is `more`.
    pub(super) fn compare(&mut self, guest: usize, expected: &Report, found: &Report, more: bool) {
        self.figures.reports += 1;
        for page in 0..PAGES as usize {
            if expected[page] && !found[page] {
                assert!(more, "page {page} was written and is not reported");
                if let Some((_, written)) = &mut self.lives[guest].written {
                    written[page] = true;
                }
            }
        }
    }

    /// Looks at what was done.
    pub(super) fn look(
        &mut self,
        moment: Moment,
        acts: &[Act],
        before: &[Sight; CONTROLLERS],
        after: &[Sight; CONTROLLERS],
    ) {
        // Data of a command and its lists, entries and completions: nothing is without bound.
        assert!(acts.len() < 40_000, "{} accesses", acts.len());
        for life in &mut self.lives {
            life.fresh = false;
        }
        for act in acts {
            match act {
                Act::Blocks { start, blocks } => {
                    assert_eq!(moment, Moment::Execute, "blocks change");
                    self.changed.extend((*start..*start + *blocks).map(|block| (block, false)));
                }
                Act::Memory { space, touch, bytes } => {
                    self.may_reach(*space, touch, moment, &before[*space]);
                    self.memory(moment, *space, touch, bytes, before, after);
                }
            }
        }
        for index in 0..CONTROLLERS {
            // Failed, or taken away by a command of another.
            if after[index].status & 2 != 0 || (!before[index].disabled() && after[index].disabled()) {
                self.lives[index].outstanding.clear();
            }
        }
    }

    /// Whether a state may just be on its way to a controller: its lists are read then.
    fn is_importing(&self, index: usize) -> bool {
        let sets = |(_, entry): &(bool, SubmissionQueueEntry)| {
            AdminOpcode::new(entry.opcode()) == AdminOpcode::MIGRATION_SEND
                && matches!(
                    MigrationSend::decode(entry),
                    Ok(MigrationSend::SetControllerState { controller, .. }) if controller == IDS[index]
                )
        };
        MANAGERS.iter().any(|manager| self.lives[*manager].outstanding.iter().any(sets))
    }

    fn may_reach(&self, space: usize, touch: &Touch, moment: Moment, before: &Sight) {
        assert!(touch.len <= 1 << 20, "a long access");
        if moment == Moment::Access {
            assert!(MANAGERS.contains(&space), "a property access reaches memory: {touch:x?}");
            assert!(touch.len == 32 || !touch.write, "a property access writes: {touch:x?}");
            return;
        }
        let importing = moment == Moment::Execute && self.is_importing(space);
        if importing && !touch.write {
            return;
        }
        let life = &self.lives[space];
        assert!(!life.suspended, "the suspended controller {space} reaches memory: {touch:x?}");
        // A state that was taken in the same turn may have enabled it.
        if !importing && !life.fresh {
            assert!(!before.disabled(), "the disabled controller {space} reaches memory: {touch:x?}");
            assert!(!before.dead(), "the failed controller {space} reaches memory: {touch:x?}");
        }
    }

    fn memory(
        &mut self,
        moment: Moment,
        space: usize,
        touch: &Touch,
        bytes: &[u8],
        before: &[Sight; CONTROLLERS],
        after: &[Sight; CONTROLLERS],
    ) {
        if !touch.write {
            if moment == Moment::Fetch && touch.len == 64 && !touch.refused {
                let entry = SubmissionQueueEntry::read_from_bytes(bytes).expect("64 bytes");
                let (base, entries) = before[space].admin;
                let admin = (base..base + u64::from(entries) * 64).contains(&touch.address);
                self.lives[space].outstanding.push((admin, entry));
            }
            return;
        }
        if !touch.refused
            && let Some((_, written)) = &mut self.lives[space].written
        {
            for page in (touch.address - BASE) / PAGE..=(touch.address + touch.len as u64 - 1 - BASE) / PAGE {
                written[page as usize] = true;
            }
        }
        if let Some(expected) = &mut self.expected
            && expected.manager == space
            && touch.address < expected.data.end
            && touch.address + touch.len as u64 > expected.data.start
        {
            expected.writes += 1;
        }
        match touch.len {
            16 if touch.entry => {
                let entry = CompletionQueueEntry::read_from_bytes(bytes).expect("16 bytes");
                self.completion(space, &entry, touch.refused, after);
            }
            32 if touch.entry => self.log_entry(space, touch, bytes.try_into().expect("32 bytes")),
            _ => assert!(!touch.entry, "an entry of {} bytes", touch.len),
        }
    }

    /// The command that a completion is for.
    fn completed(&mut self, space: usize, done: &CompletionQueueEntry) -> Option<SubmissionQueueEntry> {
        let life = &mut self.lives[space];
        let admin = done.submission_queue().get() == 0;
        let same = |(_, entry): &(bool, SubmissionQueueEntry)| entry.command_id() == done.command_id();
        let from_there = |one: &(bool, SubmissionQueueEntry)| same(one) && one.0 == admin;
        let newest = done.status().code() == StatusCode::COMMAND_ID_CONFLICT;
        let find = |life: &Life, wanted: &dyn Fn(&(bool, SubmissionQueueEntry)) -> bool| {
            if newest {
                life.outstanding.iter().rposition(wanted)
            } else {
                life.outstanding.iter().position(wanted)
            }
        };
        let Some(at) = find(life, &from_there).or_else(|| find(life, &same)) else {
            assert!(
                admin && life.imported > 0,
                "controller {space} completes what it did not fetch, or a second time: {done:?}"
            );
            life.imported -= 1;
            return None;
        };
        let several = admin && life.outstanding.iter().filter(|one| from_there(one)).count() != 1;
        let (_, entry) = life.outstanding.remove(at);
        if several && !newest && MANAGERS.contains(&space) {
            // Which of them it was cannot be told.
            self.lose(space);
            return None;
        }
        Some(entry)
    }

    fn completion(
        &mut self,
        space: usize,
        done: &CompletionQueueEntry,
        refused: bool,
        after: &[Sight; CONTROLLERS],
    ) {
        self.changes_are_logged(space, after);
        let entry = self.completed(space, done);
        if refused {
            // Whatever it was, it happened, and nobody learns of it.
            if MANAGERS.contains(&space) {
                self.lose(space);
            }
            return;
        }
        if !done.status().is_success() {
            return;
        }
        if done.submission_queue().get() != 0 {
            self.figures.transfers += 1;
            return;
        }
        self.figures.admin += 1;
        let Some(entry) = entry.filter(|_| MANAGERS.contains(&space)) else { return };
        let dead = after[space].dead();
        match AdminOpcode::new(entry.opcode()) {
            AdminOpcode::CONTROLLER_DATA_QUEUE => self.data_queue(space, &entry, done),
            AdminOpcode::TRACK_SEND => self.track_send(space, &entry, dead),
            AdminOpcode::TRACK_RECEIVE => {
                let command = TrackReceive::decode(&entry).expect("it was carried out");
                let guest = index_of(command.controller);
                let expected =
                    self.expected.as_mut().filter(|one| (one.manager, one.id) == (space, entry.command_id()));
                match (expected, &mut self.lives[guest].written) {
                    (Some(expected), Some((_, written))) => {
                        expected.report = Some(core::mem::replace(written, [false; PAGES as usize]));
                    }
                    (_, written) => *written = None,
                }
            }
            AdminOpcode::MIGRATION_SEND => self.migration_send(&entry, after),
            AdminOpcode::ASYNCHRONOUS_EVENT_REQUEST => {
                let event = AsynchronousEvent::from_completion(done).controller_data_queue();
                if let Some(event) = event {
                    self.figures.events += 1;
                    if let CdqEvent::Full(id) = event {
                        let unknown = self.lists[space] || self.lives[space].blind;
                        match self.log(space, id) {
                            Some(log) => log.owes_full_event = false,
                            None => assert!(unknown, "an event of queue {id}, which does not exist"),
                        }
                    }
                }
            }
            _ => {}
        }
    }

    fn log(&mut self, owner: usize, id: CdqId) -> Option<&mut Log> {
        self.logs.iter_mut().find(|log| log.owner == owner && log.id == id)
    }

    fn data_queue(&mut self, owner: usize, entry: &SubmissionQueueEntry, done: &CompletionQueueEntry) {
        match ControllerDataQueueCommand::decode(entry).expect("it was carried out") {
            ControllerDataQueueCommand::Create(create) => {
                if create.contiguous && !self.lives[owner].blind {
                    self.logs.push(Log {
                        owner,
                        id: created_queue(done),
                        target: create.tracked,
                        base: entry.prp1().get(),
                        entries: create.entries().expect("it was carried out"),
                        tail: 0,
                        phase: true,
                        on: false,
                        last: None,
                        owes_full_event: false,
                    });
                } else {
                    self.lists[owner] = true;
                }
            }
            ControllerDataQueueCommand::Delete(id) => {
                self.logs.retain(|log| log.owner != owner || log.id != id);
            }
        }
    }

    fn track_send(&mut self, manager: usize, entry: &SubmissionQueueEntry, dead: bool) {
        match TrackSend::decode(entry).expect("it was carried out") {
            TrackSend::LogUserDataChanges { start, queue } => {
                let Some(log) = self.log(manager, queue).filter(|_| !dead) else { return };
                if start {
                    let begun = matches!(log.last, Some(EntrySequence::First | EntrySequence::LastFull));
                    assert!(begun, "a log starts without its first entry: {log:?}");
                } else {
                    assert!(!log.on, "a log stops without its last entry: {log:?}");
                    log.last = None;
                }
            }
            TrackSend::TrackMemoryChanges { start, controller } => {
                let own = self.expected.as_ref();
                let known =
                    start && own.is_some_and(|one| (one.manager, one.id) == (manager, entry.command_id()));
                self.lives[index_of(controller)].written =
                    known.then_some((manager, [false; PAGES as usize]));
            }
        }
    }

    fn migration_send(&mut self, entry: &SubmissionQueueEntry, after: &[Sight; CONTROLLERS]) {
        match MigrationSend::decode(entry).expect("it was carried out") {
            MigrationSend::Suspend { kind: SuspendKind::Notification, .. } => {}
            MigrationSend::Suspend { controller, delete_queue, .. } => {
                self.figures.migration[0] += 1;
                self.lives[index_of(controller)].suspended = true;
                for log in self.logs.iter_mut().filter(|log| log.target == controller) {
                    assert!(!log.on || after[log.owner].dead(), "no last entry at a Suspend: {log:?}");
                    log.on = false;
                }
                if delete_queue {
                    self.logs.retain(|log| log.target != controller);
                }
            }
            MigrationSend::Resume { controller, .. } => {
                self.figures.migration[2] += 1;
                self.lives[index_of(controller)].suspended = false;
                for log in self.logs.iter().filter(|log| log.target == controller) {
                    let paused = log.last == Some(EntrySequence::LastSuspended);
                    let lost = log.owes_full_event || after[log.owner].dead();
                    assert!(!paused || lost, "a log does not go on after a Resume: {log:?}");
                }
            }
            MigrationSend::SetControllerState { controller, sequence, .. } => {
                if sequence.commits() {
                    self.figures.migration[1] += 1;
                    let life = &mut self.lives[index_of(controller)];
                    (life.imported, life.fresh, life.outstanding) = (3, true, Vec::new());
                }
            }
        }
    }

    /// A command is about to be completed: what it changed is in the log.
    fn changes_are_logged(&mut self, space: usize, after: &[Sight; CONTROLLERS]) {
        let changed = core::mem::take(&mut self.changed);
        for log in self.logs.iter_mut().filter(|log| log.target == IDS[space] && log.on) {
            if let Some((block, _)) = changed.iter().find(|(_, logged)| !logged) {
                assert!(after[log.owner].dead(), "block {block} changed and is not logged: {log:?}");
                // It can tell nobody.
                log.on = false;
            }
        }
    }

    fn log_entry(&mut self, owner: usize, touch: &Touch, bytes: &[u8; 32]) {
        if self.lives[owner].blind {
            return;
        }
        let entry = LbaMigrationEntry::parse_bytes(bytes).expect("an entry that can be");
        let due = |log: &Log| {
            log.owner == owner
                && log.base + u64::from(log.tail) * 32 == touch.address
                && log.phase == entry.phase
        };
        if self.logs.iter().filter(|log| due(log)).count() > 1 {
            // Two queues in the same memory.
            self.lose(owner);
            return;
        }
        let Some(log) = self.logs.iter_mut().find(|log| due(log)) else {
            assert!(
                self.lists[owner],
                "controller {owner} posts an entry where none is due: {touch:x?} {entry:?}"
            );
            return;
        };
        if touch.refused {
            // A start that fails says so in its status, and the event stays as it was.
            let first = matches!(entry.sequence, EntrySequence::First | EntrySequence::LastFull);
            (log.on, log.last, log.owes_full_event) = (false, None, !first);
            return;
        }
        self.figures.log_entries += 1;
        assert!(log.on || entry.sequence != EntrySequence::Ordinary, "{entry:?} in a log that is off");
        log.tail = (log.tail + 1) % log.entries;
        log.phase ^= log.tail == 0;
        log.last = Some(entry.sequence);
        log.on = !entry.sequence.is_last();
        if entry.sequence == EntrySequence::LastFull {
            self.figures.overflows += 1;
            log.owes_full_event = true;
        } else if entry.sequence == EntrySequence::First {
            log.owes_full_event = false;
        }
        for (block, logged) in &mut self.changed {
            *logged |= match entry.change {
                Change::Range { start, blocks, .. } => (start.get()..start.get() + blocks).contains(block),
                Change::AllOfNamespace { .. } => true,
                Change::None => false,
            };
        }
    }
}

/// The index of a controller that a command was carried out on.
fn index_of(controller: ControllerId) -> usize {
    IDS.iter().position(|id| *id == controller).expect("a controller that exists")
}

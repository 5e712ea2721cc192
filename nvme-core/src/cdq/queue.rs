// SPDX-License-Identifier: MIT OR Apache-2.0
//! One Controller Data Queue from its creation to its end.

use core::fmt;
use core::time::Duration;

use super::head::{HeadPolicy, HeadPublisher, HeadUpdateFailed};
use super::log::{LogEvent, LogState, LogViolation};
use super::memory::{CdqMemory, CdqMemoryError, MemoryLimits, Quarantined, QueueLayout};
use super::reader::{CdqReader, Drained};
use crate::admin::{AdminPort, AdminRequest, Call, CallError, EventFilter, Generation, SubmitError};
use crate::dirty::DirtySet;
use crate::dma::{CdqReleased, LetGo};
use crate::time::Instant;
use crate::wire::cdq::{self, ControllerDataQueueCommand, CreateControllerDataQueue};
use crate::wire::{CdqEvent, CdqId, TrackedId};

/// Most events taken in one poll; further ones wait for the next.
const EVENTS_PER_POLL: u32 = 16;

/// The queue is of another controller than the port's.
const OTHER_CONTROLLER: CallError = CallError::NotSubmitted(SubmitError::OtherController);

/// What a queue is to be like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CdqOptions {
    /// Number of slots, at least two. One always stays empty: the queue holds one entry fewer.
    pub entries: u32,
    /// How the slots lie on the bus.
    pub layout: QueueLayout,
    /// What the controller allows; [`MemoryLimits::default`] if it does not say.
    pub limits: MemoryLimits,
    /// When the head is published.
    pub head: HeadPolicy,
    /// After this long without a completion creating or deleting the queue counts as failed.
    pub timeout: Duration,
}

impl Default for CdqOptions {
    fn default() -> Self {
        Self {
            entries: 4096,
            layout: QueueLayout::Contiguous,
            limits: MemoryLimits::default(),
            head: HeadPolicy::default(),
            timeout: Duration::from_secs(5),
        }
    }
}

/// Counts of one queue since its creation.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CdqFigures {
    /// Entries read.
    pub entries: u64,
    /// Head updates that the controller acknowledged.
    pub head_updates: u64,
    /// Head updates that failed.
    pub head_failures: u64,
    /// Events that reported the tail pointer trigger.
    pub tail_events: u64,
    /// Events that reported a full queue.
    pub full_events: u64,
    /// Most entries that were seen in the queue as the controller knows it: read or not, but not given back.
    pub highest_fill: u32,
    /// Overflows: markers read, and events without a marker.
    pub overflows: u64,
    /// Entries that broke the rules of the log.
    pub violations: u64,
}

/// A queue was not created or not deleted.
#[must_use = "the quarantined memory is inside"]
#[derive(Debug, PartialEq, Eq)]
pub struct CdqFailure {
    /// Why.
    pub error: CallError,
    /// The queue's memory, if the controller may still write it.
    pub quarantined: Option<Quarantined>,
}

impl core::error::Error for CdqFailure {}

impl fmt::Display for CdqFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Controller Data Queue command: {}", self.error)?;
        match &self.quarantined {
            Some(memory) => write!(f, "; its {} entries stay quarantined until a disable", memory.entries()),
            None => Ok(()),
        }
    }
}

/// A queue being created.
#[derive(Debug)]
pub struct CdqCreation {
    memory: Option<CdqMemory>,
    tracked: TrackedId,
    head: HeadPolicy,
    generation: Generation,
    call: Call,
}

impl CdqCreation {
    /// Sets memory aside and prepares the command that makes the managing controller behind `port` report the
    /// changes of `tracked`.
    ///
    /// # Errors
    /// [`CdqMemoryError`] if there is no memory of this shape.
    pub fn new<P: AdminPort + ?Sized>(
        port: &P,
        tracked: TrackedId,
        options: &CdqOptions,
    ) -> Result<Self, CdqMemoryError> {
        let CdqOptions { entries, layout, limits, head, timeout } = *options;
        let wrong = CdqMemoryError::Entries { entries, limit: cdq::MAX_ENTRIES };
        let contiguous = layout == QueueLayout::Contiguous;
        let create =
            CreateControllerDataQueue::user_data_migration(tracked.controller(), entries, contiguous)
                .ok_or(wrong)?;
        let memory = CdqMemory::allocate(port.arena(), entries, layout, port.page_size(), limits)?
            .belongs_to(port.generation());
        let command = ControllerDataQueueCommand::Create(create);
        let mut call = Call::new();
        match call.start(AdminRequest::with_queue(&command, memory.base(), timeout)) {
            Ok(()) => Ok(Self { memory: Some(memory), tracked, head, generation: port.generation(), call }),
            Err(_) => {
                memory.release_unseen(port.arena());
                Err(wrong)
            }
        }
    }

    /// Goes on; `Some` exactly once, when the command has ended. Never blocks. The port is that of [`new`](Self::new):
    /// another controller's is not sent the command, and knows nothing of one on its way.
    ///
    /// # Errors
    /// [`CdqFailure`]: after a refusal, or a reset of the controller, the memory is back in the pool, otherwise it is
    /// quarantined inside.
    pub fn poll<P: AdminPort + ?Sized>(
        &mut self,
        port: &mut P,
        now: Instant,
    ) -> Option<Result<ControllerDataQueue, CdqFailure>> {
        let life = port.generation();
        if !life.is_of_same_controller(self.generation) {
            if self.call.is_sent() {
                return None;
            }
            let quarantined = Some(Quarantined::new(self.memory.take()?));
            return Some(Err(CdqFailure { error: OTHER_CONTROLLER, quarantined }));
        }
        if life != self.generation {
            // It was never made, or is gone with the reset.
            self.call.abandon(port);
            self.memory.take()?.release(port.arena(), &CdqReleased::new());
            return Some(Err(CdqFailure { error: CallError::Lost, quarantined: None }));
        }
        let result = self.call.poll(port, now)?;
        let memory = self.memory.take()?;
        Some(match result.finish(port.arena()) {
            Ok(entry) => Ok(ControllerDataQueue {
                id: cdq::created_queue(&entry),
                tracked: self.tracked,
                reader: CdqReader::new(memory.entries()),
                head: HeadPublisher::new(self.head, memory.entries()),
                memory,
                tail_events: 0,
                full_events: 0,
                unmarked: 0,
                run: RunOverflows::default(),
                highest_fill: 0,
                generation: self.generation,
                is_gone: false,
                released: None,
            }),
            Err(error) if error.is_refusal() => {
                memory.release(port.arena(), &CdqReleased::new());
                Err(CdqFailure { error, quarantined: None })
            }
            Err(error) => Err(CdqFailure { error, quarantined: Some(Quarantined::new(memory)) }),
        })
    }
}

/// A queue that a managing controller fills with the changes of one tracked controller.
#[derive(Debug)]
pub struct ControllerDataQueue {
    id: CdqId,
    tracked: TrackedId,
    memory: CdqMemory,
    reader: CdqReader,
    head: HeadPublisher,
    tail_events: u64,
    full_events: u64,
    /// Overflows that an event reported and no marker.
    unmarked: u64,
    run: RunOverflows,
    highest_fill: u32,
    /// The life of the controller that has the queue.
    generation: Generation,
    /// A reset was seen.
    is_gone: bool,
    released: Option<CdqReleased>,
}

/// Overflows of the present run of the log: each leaves a marker and raises an event. Counted anew once a run has ended
/// by overflow, so that an event that got lost does not hide a marker that is missing later.
#[derive(Debug, Default)]
struct RunOverflows {
    /// Events that reported a full queue.
    events: u64,
    /// Markers read, and events taken for an overflow whose marker is missing.
    seen: u64,
}

/// What a caller may do after a poll.
#[must_use]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum QueuePoll {
    /// Poll again soon: entries are left, or an update is on its way.
    Again,
    /// Nothing new is in the queue, and if the policy wants an event the trigger was armed before that was seen.
    MaySleep,
    /// The controller was reset since the queue was made, and the queue went with it: nothing more will be logged, and
    /// what was logged last may be missing, so every block counts as changed. [`release`](ControllerDataQueue::release)
    /// the queue and make a new one.
    Gone,
}

impl ControllerDataQueue {
    /// The queue's identifier.
    #[must_use]
    pub const fn id(&self) -> CdqId {
        self.id
    }

    /// The controller whose changes it reports.
    #[must_use]
    pub const fn tracked(&self) -> TrackedId {
        self.tracked
    }

    /// Number of slots.
    #[must_use]
    pub const fn entries(&self) -> u32 {
        self.memory.entries()
    }

    /// Where the log stands after the entries read so far.
    #[must_use]
    pub const fn log_state(&self) -> LogState {
        self.reader.state()
    }

    /// The head the controller knows: a slot index.
    #[must_use]
    pub const fn acknowledged_head(&self) -> u32 {
        self.head.acknowledged()
    }

    /// Whether the controller refused a head at its tail, so that one entry is always left to it.
    #[must_use]
    pub const fn keeps_one_entry(&self) -> bool {
        self.head.keeps_one()
    }

    /// Whether a head update is on its way.
    #[must_use]
    pub const fn is_publishing(&self) -> bool {
        self.head.is_busy()
    }

    /// Whether the controller knows about every entry read, except the one that a strict controller keeps.
    #[must_use]
    pub const fn is_published(&self) -> bool {
        let behind =
            crate::ring::distance(self.head.acknowledged(), self.reader.head(), self.memory.entries());
        !self.head.is_busy() && behind <= self.head.keeps_one() as u32
    }

    /// Counts so far.
    #[must_use]
    pub const fn figures(&self) -> CdqFigures {
        CdqFigures {
            entries: self.reader.entries(),
            head_updates: self.head.updates,
            head_failures: self.head.failures,
            tail_events: self.tail_events,
            full_events: self.full_events,
            highest_fill: self.highest_fill,
            overflows: self.reader.overflows().wrapping_add(self.unmarked),
            violations: self.reader.violations(),
        }
    }

    /// Takes events, reads at most `limit` entries into `dirty`, and publishes the head when the policy says so
    /// (always, if `force`). Never blocks.
    ///
    /// The order makes arming the trigger free of races: an acknowledged trigger is followed by another look at the
    /// queue before [`QueuePoll::MaySleep`] is returned.
    ///
    /// # Errors
    /// [`HeadUpdateFailed`] beside what was read. The head is published again when it is next due. With another
    /// controller's port nothing is read or sent.
    pub fn poll<P: AdminPort + ?Sized>(
        &mut self,
        port: &mut P,
        dirty: &mut DirtySet<'_, '_>,
        now: Instant,
        limit: u32,
        force: bool,
    ) -> (Drained, Result<QueuePoll, HeadUpdateFailed>) {
        let polled = self.poll_by(port, now, force, |queue, port| queue.drain(port, dirty, limit));
        if polled.0.overflowed {
            // The log's end may not have been an entry that was read.
            dirty.mark_all();
        }
        polled
    }

    /// As [`poll`](Self::poll), for users that look at every event and keep no dirty map: each goes to `each`. What
    /// [`Drained::overflowed`] and [`Drained::violation`] say counts beside the events: every block may have changed then.
    ///
    /// # Errors
    /// As there.
    pub fn poll_events<P: AdminPort + ?Sized>(
        &mut self,
        port: &mut P,
        now: Instant,
        limit: u32,
        force: bool,
        each: impl FnMut(LogEvent),
    ) -> (Drained, Result<QueuePoll, HeadUpdateFailed>) {
        self.poll_by(port, now, force, |queue, port| {
            let drained = queue.reader.events(&queue.memory, port.arena(), limit, each);
            queue.note_fill();
            drained
        })
    }

    #[inline]
    fn poll_by<P: AdminPort + ?Sized>(
        &mut self,
        port: &mut P,
        now: Instant,
        force: bool,
        drain: impl FnOnce(&mut Self, &P) -> Drained,
    ) -> (Drained, Result<QueuePoll, HeadUpdateFailed>) {
        if !self.is_of(port) {
            return (
                Drained::default(),
                Err(HeadUpdateFailed { head: self.reader.head(), error: OTHER_CONTROLLER }),
            );
        }
        if self.is_dead(port) {
            self.head.abandon(port);
            let overflowed = !core::mem::replace(&mut self.is_gone, true);
            return (Drained { overflowed, ..Drained::default() }, Ok(QueuePoll::Gone));
        }
        // First the acknowledgement of a trigger, then its event.
        let settled = self.head.settle(port, now);
        self.take_events(port);
        let before = self.reader.overflows();
        let mut drained = drain(self, port);
        self.run.seen = self.run.seen.saturating_add(self.reader.overflows().wrapping_sub(before));
        if drained.empty && self.reader.state() == LogState::Overflowed {
            // Whatever event is still to come tells nothing that the marker did not.
            self.run = RunOverflows::default();
        }
        // Each overflow raises at most one event, after its marker. One event more, and the queue read to its end,
        // is an overflow whose marker is missing.
        if drained.empty && self.run.events > self.run.seen {
            self.run.seen = self.run.seen.saturating_add(1);
            self.unmarked = self.unmarked.saturating_add(1);
            drained.overflowed = true;
        }
        if let Err(error) = settled {
            return (drained, Err(error));
        }
        if self.released.is_none() {
            self.head.publish(self.id, self.reader.head(), drained.empty, force);
            if let Err(error) = self.head.settle(port, now) {
                return (drained, Err(error));
            }
        }
        // An update that was acknowledged at once has not been followed by another look yet.
        let looked = drained.empty && !self.reader.is_ready(&self.memory, port.arena());
        if looked && self.may_sleep() {
            // Nor has its event been looked for.
            self.take_events(port);
        }
        (drained, Ok(if looked && self.may_sleep() { QueuePoll::MaySleep } else { QueuePoll::Again }))
    }

    fn may_sleep(&self) -> bool {
        self.released.is_some() || self.head.may_sleep(self.reader.head())
    }

    /// Reads at most `limit` entries into `dirty` and publishes nothing; works on a queue that is gone, too. With another
    /// controller's port nothing is read.
    pub fn drain<P: AdminPort + ?Sized>(
        &mut self,
        port: &P,
        dirty: &mut DirtySet<'_, '_>,
        limit: u32,
    ) -> Drained {
        if !self.is_of(port) {
            return Drained::default();
        }
        let drained = self.reader.drain(&self.memory, port.arena(), dirty, limit);
        self.note_fill();
        drained
    }

    fn note_fill(&mut self) {
        self.highest_fill = self.highest_fill.max(self.fill());
    }

    /// Entries read and not given back: what the controller takes for filled, apart from entries not read yet.
    #[must_use]
    pub const fn fill(&self) -> u32 {
        crate::ring::distance(self.head.acknowledged(), self.reader.head(), self.memory.entries())
    }

    /// The next event, `None` if no new entry is in the queue; reads at most `limit` entries that carry none. For
    /// users that keep no dirty map; publishes nothing. With another controller's port nothing is read.
    pub fn next_event<P: AdminPort + ?Sized>(&mut self, port: &P, limit: u32) -> Option<LogEvent> {
        if !self.is_of(port) {
            return None;
        }
        self.reader.next(&self.memory, port.arena(), limit)
    }

    /// The first broken rule of the log since the last call: if there is one, everything has to be copied again.
    pub const fn take_violation(&mut self) -> Option<LogViolation> {
        self.reader.take_violation()
    }

    /// Takes the completion of a head update on its way without sending another.
    ///
    /// # Errors
    /// [`HeadUpdateFailed`].
    pub fn settle<P: AdminPort + ?Sized>(
        &mut self,
        port: &mut P,
        now: Instant,
    ) -> Result<(), HeadUpdateFailed> {
        if self.is_of(port) && !self.is_dead(port) { self.head.settle(port, now) } else { Ok(()) }
    }

    /// The queue was deleted together with the suspend of its tracked controller: only its memory is left to read.
    pub(crate) fn mark_released(&mut self, proof: CdqReleased) {
        self.released = Some(proof);
    }

    /// Whether `port` leads to the controller of the queue.
    fn is_of<P: AdminPort + ?Sized>(&self, port: &P) -> bool {
        port.generation().is_of_same_controller(self.generation)
    }

    /// Whether the queue went with a reset of its controller.
    fn is_dead<P: AdminPort + ?Sized>(&self, port: &P) -> bool {
        self.released.is_none() && port.generation().is_another_life(self.generation)
    }

    /// Gives the memory of a queue that is gone back to the pool: deleted with a suspend, or by a reset of its
    /// controller.
    ///
    /// # Errors
    /// The queue itself, if it still exists: delete it with [`CdqDeletion`]. Also if `port` is another controller's.
    pub fn release<P: AdminPort + ?Sized>(mut self, port: &mut P) -> Result<CdqFigures, Self> {
        if !self.is_of(port) {
            return Err(self);
        }
        let reset = port.generation().is_another_life(self.generation);
        match self.released.take().or_else(|| reset.then(CdqReleased::new)) {
            Some(proof) => {
                self.head.abandon(port);
                self.forget_events(port);
                let figures = self.figures();
                self.memory.release(port.arena(), &proof);
                Ok(figures)
            }
            None => Err(self),
        }
    }

    /// Gives the memory back after the controller was disabled, of which `proof` is the evidence.
    pub fn release_after_disable<P: AdminPort + ?Sized, L: LetGo>(self, port: &P, proof: &L) -> CdqFigures {
        let figures = self.figures();
        self.memory.release(port.arena(), proof);
        figures
    }

    /// Stops reading and puts the memory under quarantine: the controller may still write it.
    pub fn quarantine(self) -> Quarantined {
        Quarantined::new(self.memory)
    }

    fn take_events<P: AdminPort + ?Sized>(&mut self, port: &mut P) {
        for _ in 0..EVENTS_PER_POLL {
            let Some(event) = port.take_event(EventFilter::ControllerDataQueue(self.id)) else { break };
            match event.controller_data_queue() {
                Some(CdqEvent::TailPointer(queue)) if queue == self.id => {
                    self.tail_events = self.tail_events.wrapping_add(1);
                    self.head.fired();
                }
                Some(CdqEvent::Full(queue)) if queue == self.id => {
                    self.full_events = self.full_events.wrapping_add(1);
                    self.run.events = self.run.events.wrapping_add(1);
                }
                // An event of a queue this reader does not know.
                _ => {}
            }
        }
    }

    /// Takes events that are left, so that a later queue with the same identifier does not get them.
    fn forget_events<P: AdminPort + ?Sized>(&mut self, port: &mut P) {
        self.take_events(port);
    }
}

/// A queue being deleted.
#[derive(Debug)]
pub struct CdqDeletion {
    queue: Option<ControllerDataQueue>,
    timeout: Duration,
    sent: bool,
    call: Call,
}

impl CdqDeletion {
    /// Prepares the deletion of `queue`. What is in the queue and was not read is lost with it.
    #[must_use]
    pub const fn new(queue: ControllerDataQueue, timeout: Duration) -> Self {
        Self { queue: Some(queue), timeout, sent: false, call: Call::new() }
    }

    /// Goes on; `Some` exactly once, when the queue is gone, deleted or with a reset of the controller, and its memory
    /// back in the pool. A head update on its way is waited for first. Never blocks.
    ///
    /// # Errors
    /// [`CdqFailure`] with the memory quarantined: only a completion with success proves that the controller let go. Also
    /// if the command was to be sent through another controller's port.
    pub fn poll<P: AdminPort + ?Sized>(
        &mut self,
        port: &mut P,
        now: Instant,
    ) -> Option<Result<CdqFigures, CdqFailure>> {
        let queue = self.queue.as_mut()?;
        if !queue.is_of(port) {
            if self.sent && self.call.is_sent() {
                return None;
            }
            let quarantined = Some(self.queue.take()?.quarantine());
            return Some(Err(CdqFailure { error: OTHER_CONTROLLER, quarantined }));
        }
        if queue.is_dead(port) {
            // There is nothing left to delete.
            self.call.abandon(port);
            return match self.queue.take()?.release(port) {
                Ok(figures) => Some(Ok(figures)),
                // Not reached: a queue that is dead can be released.
                Err(queue) => {
                    Some(Err(CdqFailure { error: CallError::Lost, quarantined: Some(queue.quarantine()) }))
                }
            };
        }
        if !self.sent {
            // How it ends does not matter any more.
            let _ = queue.settle(port, now);
            if queue.is_publishing() {
                return None;
            }
            let command = ControllerDataQueueCommand::Delete(queue.id());
            self.sent = self.call.start(AdminRequest::without_data(&command, self.timeout)).is_ok();
        }
        let result = self.call.poll(port, now)?;
        let mut queue = self.queue.take()?;
        let figures = queue.figures();
        Some(match result.finish(port.arena()) {
            Ok(_) => {
                queue.mark_released(CdqReleased::new());
                match queue.release(port) {
                    Ok(figures) => Ok(figures),
                    // Not reached: the proof was just put in.
                    Err(_) => Ok(figures),
                }
            }
            Err(error) => Err(CdqFailure { error, quarantined: Some(queue.quarantine()) }),
        })
    }
}

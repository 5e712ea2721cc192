// SPDX-License-Identifier: MIT OR Apache-2.0
//! One controller: its properties, queues, commands under way and what is kept about its migration.

use nvme_core::wire::{CommandId, CompletionQueueEntry, ControllerId, QueueId, Status};
use zerocopy::IntoBytes;

use crate::config::ControllerConfig;
use crate::dma::Dma;
use crate::error_log::{ErrorLog, ErrorSlot};
use crate::events::{EventSlot, Events};
use crate::features::Features;
use crate::host::HostMemory;
use crate::in_flight::{CommandSlot, InFlight};
use crate::migration::Target;
use crate::queue::{
    COMPLETION_SHIFT, CompletionQueue, CompletionQueueSlot, SubmissionQueue, SubmissionQueueSlot,
};
use crate::registers::{Registers, Shutdown};
use crate::secondary::Secondary;
use crate::track::{MemoryTracker, TrackedRange};

/// Memory lent to one controller for as long as it exists. Every slice bounds one capacity.
#[derive(Debug)]
pub struct ControllerStorage<'s> {
    /// Submission queues, the admin queue included: at least two for one I/O queue, at most 65,536.
    pub submission_queues: &'s mut [SubmissionQueueSlot],
    /// Completion queues, the admin queue included.
    pub completion_queues: &'s mut [CompletionQueueSlot],
    /// Commands between fetch and completion; one slot stays empty, so at least three.
    pub commands: &'s mut [CommandSlot],
    /// Asynchronous Event Requests that may be outstanding (AERL), at least one.
    pub event_requests: &'s mut [CommandId],
    /// Events that wait for a request.
    pub events: &'s mut [EventSlot],
    /// Entries of the Error Information log.
    pub errors: &'s mut [ErrorSlot],
    /// Where a state is collected before it is committed: [`state_bytes`] bytes for the largest that can be set. May
    /// be empty for a managing controller.
    pub state: &'s mut [u8],
    /// Ranges of host memory tracked at once; may be empty.
    pub tracked_ranges: &'s mut [TrackedRange],
    /// One bit for each granule of the tracked ranges; may be empty.
    pub tracked_bits: &'s mut [u64],
}

/// Bytes of the largest state image of a controller with `submission_queues` and `completion_queues` slots (admin
/// queues included), `event_requests` outstanding requests and `events` waiting events.
#[must_use]
pub const fn state_bytes(
    submission_queues: usize,
    completion_queues: usize,
    event_requests: usize,
    events: usize,
) -> usize {
    let queues = submission_queues.saturating_sub(1).saturating_add(completion_queues.saturating_sub(1));
    let standard = 56_usize.saturating_add(queues.saturating_mul(24));
    standard.saturating_add(crate::state_format::bytes(event_requests, events))
}

/// One controller of a subsystem.
#[derive(Debug)]
pub struct Controller<'s, M> {
    pub(crate) config: ControllerConfig,
    pub(crate) dma: Dma<'s, M>,
    pub(crate) registers: Registers,
    pub(crate) submission_queues: &'s mut [SubmissionQueueSlot],
    pub(crate) completion_queues: &'s mut [CompletionQueueSlot],
    /// One more than the highest identifier of a submission queue that exists.
    pub(crate) queues_end: usize,
    /// The queue whose turn is next.
    pub(crate) next_queue: usize,
    pub(crate) commands: InFlight<'s>,
    pub(crate) features: Features,
    pub(crate) events: Events<'s>,
    /// An event, a request or a free completion slot came up since events were last reported.
    pub(crate) attention: bool,
    /// Slot of the data queue whose event was reported last.
    pub(crate) event_queue: usize,
    /// A completion queue has something to interrupt for.
    pub(crate) notify: bool,
    pub(crate) errors: ErrorLog<'s>,
    pub(crate) target: Target<'s>,
    pub(crate) secondary: Option<Secondary>,
    pub(crate) statistics: Statistics,
    /// When the keep alive timer fires, in microseconds.
    pub(crate) keep_alive_deadline: Option<u64>,
    /// A fault rule keeps it from being reached: it does nothing.
    pub(crate) cut_off: bool,
    /// Polls until it becomes ready, if a fault rule keeps it from that; `u32::MAX` for ever.
    pub(crate) ready_in: Option<u32>,
}

/// A completion queue entry but for its phase tag.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Answer {
    pub(crate) queue: u16,
    pub(crate) head: u16,
    pub(crate) command: CommandId,
    pub(crate) status: Status,
    pub(crate) result: (u32, u32),
}

/// What the health log reports, counted since the subsystem was made.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Statistics {
    pub(crate) bytes_read: u128,
    pub(crate) bytes_written: u128,
    pub(crate) reads: u128,
    pub(crate) writes: u128,
    pub(crate) media_errors: u128,
}

impl<'s, M: HostMemory> Controller<'s, M> {
    /// A disabled controller with `config` that reaches its host through `memory`, with everything it keeps in
    /// `storage`.
    #[must_use]
    pub fn new(config: ControllerConfig, memory: M, storage: ControllerStorage<'s>) -> Self {
        storage.submission_queues.fill(SubmissionQueueSlot::new());
        storage.completion_queues.fill(CompletionQueueSlot::new());
        let queues = storage.submission_queues.len().min(storage.completion_queues.len()).saturating_sub(1);
        Self {
            dma: Dma::new(memory, MemoryTracker::new(storage.tracked_ranges, storage.tracked_bits)),
            registers: Registers::default(),
            submission_queues: storage.submission_queues,
            completion_queues: storage.completion_queues,
            queues_end: 0,
            next_queue: 0,
            commands: InFlight::new(storage.commands),
            features: Features::reset(true),
            events: Events::new(storage.event_requests, storage.events),
            attention: false,
            event_queue: 0,
            notify: false,
            errors: ErrorLog::new(storage.errors),
            target: Target::new(storage.state),
            secondary: config.secondary.map(|secondary| {
                Secondary::new(secondary, u16::try_from(queues).unwrap_or(u16::MAX), config.interrupt_vectors)
            }),
            statistics: Statistics::default(),
            keep_alive_deadline: None,
            cut_off: false,
            ready_in: None,
            config,
        }
    }

    /// Its identifier.
    #[must_use]
    pub const fn id(&self) -> ControllerId {
        self.config.id
    }

    /// Whether it takes commands: enabled and ready, neither failed nor shut down nor suspended.
    #[must_use]
    pub fn is_running(&self) -> bool {
        self.fetches()
    }

    /// The host memory it was given.
    #[must_use]
    pub const fn memory(&self) -> &M {
        &self.dma.memory
    }

    /// Bytes of its largest state image.
    pub(crate) fn state_bytes(&self) -> usize {
        state_bytes(
            self.submission_queues.len(),
            self.completion_queues.len(),
            self.events.limit(),
            self.events.pending_capacity(),
        )
    }

    pub(crate) fn submission(&self, queue: u16) -> Option<&SubmissionQueue> {
        self.submission_queues.get(usize::from(queue))?.0.as_ref()
    }

    pub(crate) fn submission_mut(&mut self, queue: u16) -> Option<&mut SubmissionQueue> {
        self.submission_queues.get_mut(usize::from(queue))?.0.as_mut()
    }

    pub(crate) fn completion(&self, queue: u16) -> Option<&CompletionQueue> {
        self.completion_queues.get(usize::from(queue))?.0.as_ref()
    }

    pub(crate) fn completion_mut(&mut self, queue: u16) -> Option<&mut CompletionQueue> {
        self.completion_queues.get_mut(usize::from(queue))?.0.as_mut()
    }

    /// I/O submission queues that can exist: slots, or the flexible resources assigned.
    pub(crate) fn max_io_queues(&self) -> u16 {
        let slots = self.submission_queues.len().min(self.completion_queues.len()).saturating_sub(1);
        let slots = u16::try_from(slots).unwrap_or(u16::MAX);
        match &self.secondary {
            Some(secondary) => slots.min(secondary.queues),
            None => slots,
        }
    }

    /// I/O submission and completion queue identifiers that may be used, after what Number of Queues granted.
    pub(crate) fn granted_queues(&self) -> (u16, u16) {
        let max = self.max_io_queues();
        match self.features.queues {
            Some(granted) => {
                let submission = ((granted & 0xFFFF) as u16).saturating_add(1);
                let completion = ((granted >> 16) as u16).saturating_add(1);
                (submission.min(max), completion.min(max))
            }
            None => (max, max),
        }
    }

    /// Whether any I/O queue exists.
    pub(crate) fn has_io_queues(&self) -> bool {
        self.submission_queues.iter().skip(1).any(|slot| slot.0.is_some())
            || self.completion_queues.iter().skip(1).any(|slot| slot.0.is_some())
    }

    /// Whether it may be used: a secondary controller that is offline may not.
    pub(crate) fn is_online(&self) -> bool {
        self.secondary.is_none_or(|secondary| secondary.online)
    }

    /// Interrupt vectors it may use.
    pub(crate) fn vectors(&self) -> u16 {
        match &self.secondary {
            Some(secondary) => self.config.interrupt_vectors.min(secondary.vectors),
            None => self.config.interrupt_vectors,
        }
    }

    /// Begins a new keep alive interval, at `now` in microseconds.
    pub(crate) fn restart_keep_alive(&mut self, now: u64) {
        let timeout = u64::from(self.features.keep_alive).saturating_mul(1000);
        self.keep_alive_deadline = (timeout > 0).then(|| now.saturating_add(timeout));
    }

    /// Whether it may still write to its host of its own accord: not once it has shut down or failed, nor while a fault
    /// keeps it away.
    #[inline]
    pub(crate) fn reaches_host(&self) -> bool {
        !self.registers.fatal && self.registers.shutdown != Shutdown::Complete && !self.cut_off
    }

    /// A failure that cannot be reported in a completion queue: nothing works until a reset.
    pub(crate) fn fail(&mut self) {
        self.registers.fatal = true;
        self.commands.clear();
    }

    /// Puts a queue into slot `queue`, which exists.
    pub(crate) fn add_submission(&mut self, queue: u16, new: SubmissionQueue) {
        if let Some(users) = self.completion_mut(new.completion_queue).map(|queue| &mut queue.users) {
            *users = users.saturating_add(1);
        }
        if let Some(slot) = self.submission_queues.get_mut(usize::from(queue)) {
            slot.0 = Some(new);
            self.queues_end = self.queues_end.max(usize::from(queue).saturating_add(1));
        }
    }

    pub(crate) fn remove_submission(&mut self, queue: u16) {
        let Some(old) = self.submission_queues.get_mut(usize::from(queue)).and_then(|slot| slot.0.take())
        else {
            return;
        };
        if let Some(users) = self.completion_mut(old.completion_queue).map(|queue| &mut queue.users) {
            *users = users.saturating_sub(1);
        }
    }

    /// Posts a completion for a command of `queue` into the slot reserved for it.
    pub(crate) fn post(&mut self, queue: u16, command: CommandId, status: Status, result: (u32, u32)) {
        if let Some((completion, head)) = self.answered_by(queue) {
            self.post_answer(completion, &Answer { queue, head, command, status, result }, false);
        }
    }

    /// The completion queue of submission queue `queue`, and the head it reports.
    #[inline]
    pub(crate) fn answered_by(&self, queue: u16) -> Option<(u16, u16)> {
        #[allow(clippy::cast_possible_truncation, reason = "a head is below 65,536")]
        self.submission(queue).map(|queue| (queue.completion_queue, queue.head as u16))
    }

    /// Writes `answer` to the next slot of completion queue `queue`; `stale` inverts the phase tag.
    #[inline]
    pub(crate) fn post_answer(&mut self, queue: u16, answer: &Answer, stale: bool) {
        let Some(completion) =
            self.completion_queues.get_mut(usize::from(queue)).and_then(|slot| slot.0.as_mut())
        else {
            return;
        };
        completion.release();
        let entry =
            CompletionQueueEntry::new(QueueId::new(answer.queue), answer.head, answer.command, answer.status)
                .with_result(answer.result.0, answer.result.1)
                .with_phase(completion.ring.phase() != stale);
        let written = completion
            .memory
            .slot(&self.dma.memory, completion.ring.tail(), COMPLETION_SHIFT)
            .is_some_and(|address| self.dma.write_entry(address, entry.as_bytes()).is_ok());
        if written && completion.ring.advance() {
            if completion.interrupts_enabled {
                completion.notify = true;
                self.notify = true;
            }
        } else {
            self.fail();
        }
    }
}

impl Statistics {
    pub(crate) const fn count_read(&mut self, bytes: u64) {
        self.reads = self.reads.wrapping_add(1);
        self.bytes_read = self.bytes_read.wrapping_add(bytes as u128);
    }

    pub(crate) const fn count_write(&mut self, bytes: u64) {
        self.writes = self.writes.wrapping_add(1);
        self.bytes_written = self.bytes_written.wrapping_add(bytes as u128);
    }
}

// SPDX-License-Identifier: MIT OR Apache-2.0
//! The admin queue pair. NVMe Base 2.1 §3.3.1, §5.1.

use super::events::Events;
use super::work::{AdminSlot, AdminWork, Role, Stage};
use super::{
    AdminCompletion, AdminData, AdminHandle, AdminOutcome, AdminPort, AdminRequest, EventFilter, Generation,
    Life, SubmitError,
};
use crate::controller::{Core, EnableOptions, Fault, Link, Quiesced};
use crate::dma::{CommandEnded, Direction, DmaArena, DmaError, DmaRegion, Pool, give_back, release};
use crate::prp::{self, DataPointer, ListMemory, PrpError};
use crate::queue::{CompletionRing, SubmissionRing, Tracker};
use crate::register::{Offset, RegisterIo};
use crate::time::Instant;
use crate::wire::migration::MigrationSend;
use crate::wire::register::{Capabilities, cq_head, sq_tail};
use crate::wire::{
    AdminOpcode, AsynchronousEvent, BusAddr, Command, CommandId, CompletionQueueEntry, QueueId,
    SubmissionQueueEntry,
};

/// The admin queue of one enabled controller: the [`AdminPort`] that this crate implements.
///
/// Everything submitted goes to the controller at once. [`poll`](Self::poll), or
/// [`Ready::poll`](crate::controller::Ready::poll), collects completions; [`take`](AdminPort::take) hands them to their
/// owners.
pub struct AdminQueue<'d, 's, R: ?Sized, A: DmaArena> {
    core: Core<'d, R, A>,
    epoch: u32,
    life: Life,
    submission: SubmissionRing,
    completion: CompletionRing,
    tracker: Tracker<'s, AdminWork>,
    /// PRP list pages, the same number for each slot.
    lists: DmaRegion,
    list_bytes: usize,
    page_size: usize,
    max_transfer: usize,
    /// What the controller states, apart from what the list pages allow.
    data_limit: usize,
    events: Events,
    timeouts: u64,
}

crate::controller::debug_by_name!(AdminQueue);

struct Memory {
    submission: DmaRegion,
    completion: DmaRegion,
    lists: DmaRegion,
}

fn allocate<A: DmaArena>(
    arena: &A,
    options: &EnableOptions,
    page_size: usize,
    lists: usize,
) -> Result<Memory, DmaError> {
    let bytes = |entries: u16, size: usize| usize::from(entries).saturating_mul(size);
    let queue = |bytes, direction| arena.allocate(Pool::Queues, bytes, page_size, direction);
    let submission =
        queue(bytes(options.submission_entries, size_of::<SubmissionQueueEntry>()), Direction::ToDevice)?;
    let completion = match queue(
        bytes(options.completion_entries, size_of::<CompletionQueueEntry>()),
        Direction::FromDevice,
    ) {
        Ok(region) => region,
        Err(error) => {
            give_back(arena, submission);
            return Err(error);
        }
    };
    // A region has bytes, even where no command needs a list.
    match queue(lists.max(size_of::<u64>()), Direction::ToDevice) {
        Ok(lists) => Ok(Memory { submission, completion, lists }),
        Err(error) => {
            give_back(arena, submission);
            give_back(arena, completion);
            Err(error)
        }
    }
}

/// Whether a time-out of `command` says nothing about the controller.
fn waits_for_others(command: &SubmissionQueueEntry) -> bool {
    AdminOpcode::new(command.opcode()) == AdminOpcode::MIGRATION_SEND
        && MigrationSend::decode(command).is_ok_and(|command| command.waits_for_others())
}

impl<'d, 's, R: RegisterIo + ?Sized, A: DmaArena> AdminQueue<'d, 's, R, A> {
    /// The queue of a controller that is disabled; the caller has checked the options.
    pub(crate) fn new(
        core: Core<'d, R, A>,
        options: &EnableOptions,
        page_size: usize,
        slots: &'s mut [AdminSlot],
    ) -> Result<Self, (DmaError, &'s mut [AdminSlot])> {
        let list_bytes =
            prp::list_pages_for_transfer(options.max_transfer, page_size).saturating_mul(page_size);
        let used = slots.len().min(Tracker::<AdminWork>::MAX_SLOTS);
        let memory = match allocate(core.arena, options, page_size, list_bytes.saturating_mul(used)) {
            Ok(memory) => memory,
            Err(error) => return Err((error, slots)),
        };
        let stride = core.capabilities.doorbell_stride();
        // Queue 0 has its doorbells at the lowest offsets, which exist with every stride.
        let doorbell = |offset: Option<u32>| Offset::new(offset.unwrap_or(u32::MAX));
        let (entries, doorbells) = (
            (u32::from(options.submission_entries), u32::from(options.completion_entries)),
            (doorbell(sq_tail(QueueId::ADMIN, stride)), doorbell(cq_head(QueueId::ADMIN, stride))),
        );
        let completion = CompletionRing::new(memory.completion, entries.1, doorbells.1, core.arena);
        let submission = SubmissionRing::new(memory.submission, entries.0, doorbells.0);
        let (submission, completion) = match (submission, completion) {
            (Ok(submission), Ok(completion)) => (submission, completion),
            (submission, completion) => {
                let mut error = DmaError::Empty;
                let mut free = |found: Result<DmaRegion, (DmaError, DmaRegion)>| {
                    let region = found.unwrap_or_else(|(reason, region)| {
                        error = reason;
                        region
                    });
                    give_back(core.arena, region);
                };
                free(submission.map(SubmissionRing::into_memory));
                free(completion.map(CompletionRing::into_memory));
                give_back(core.arena, memory.lists);
                return Err((error, slots));
            }
        };
        Ok(Self {
            epoch: core.link.epoch(),
            life: Life::of_controller(core.link.controller()),
            core,
            submission,
            completion,
            tracker: Tracker::new(slots),
            lists: memory.lists,
            list_bytes,
            page_size,
            max_transfer: options.max_transfer,
            data_limit: usize::MAX,
            events: Events::new(options.events),
            timeouts: 0,
        })
    }

    pub(crate) fn submission_entries(&self) -> u16 {
        u16::try_from(self.submission.size()).unwrap_or(u16::MAX)
    }

    pub(crate) fn completion_entries(&self) -> u16 {
        u16::try_from(self.completion.size()).unwrap_or(u16::MAX)
    }

    pub(crate) const fn submission_base(&self) -> BusAddr {
        self.submission.memory().bus()
    }

    pub(crate) const fn completion_base(&self) -> BusAddr {
        self.completion.memory().bus()
    }

    /// What the controller can do (CAP).
    #[must_use]
    pub const fn capabilities(&self) -> Capabilities {
        self.core.capabilities
    }

    /// Whether the controller still works and this queue is still its admin queue.
    ///
    /// # Errors
    /// The [`Fault`].
    pub fn check(&self) -> Result<(), Fault> {
        self.core.link.check(self.epoch)
    }

    /// Records that the controller failed; returns the first fault recorded.
    pub(crate) fn fail(&self, fault: Fault) -> Fault {
        self.core.link.fail(self.epoch, fault)
    }

    /// Sets the longest data transfer in bytes to what Identify Controller states (MDTS), for this queue and for I/O queues
    /// created afterwards; it can only shrink what the queue was made for.
    pub fn limit_transfer(&mut self, bytes: usize) {
        self.max_transfer = self.max_transfer.min(bytes);
        self.data_limit = bytes;
    }

    /// The controller's own limit of a data transfer in bytes, as far as it is known.
    pub(crate) const fn data_limit(&self) -> usize {
        self.data_limit
    }

    pub(crate) const fn core(&self) -> Core<'d, R, A> {
        self.core
    }

    pub(crate) const fn epoch(&self) -> u32 {
        self.epoch
    }

    /// Commands outstanding or completed and not taken, event requests included.
    #[must_use]
    pub const fn in_use(&self) -> usize {
        self.tracker.outstanding()
    }

    /// Keeps as many Asynchronous Event Requests outstanding as `limit` (the controller's AERL plus one) and
    /// [`EnableOptions::events`] allow, none in a submission queue of two entries. Returns that number. In a queue with no
    /// more entries than that, requests beyond its size less two follow when commands complete.
    pub fn request_events(&mut self, limit: u16) -> u16 {
        let target = self.events.set_limit(if self.submission.size() > 2 { limit } else { 0 });
        self.arm_events();
        target
    }

    /// Commands of this queue that were not completed in time, whether they were later or not, except those that
    /// [wait for others](MigrationSend::waits_for_others).
    #[must_use]
    pub const fn timeouts(&self) -> u64 {
        self.timeouts
    }

    /// Event requests that are kept outstanding now: fewer than [`request_events`](Self::request_events) said if the
    /// controller refused one as too many (1/05h), or refused them again and again for another reason.
    #[must_use]
    pub const fn event_requests(&self) -> u16 {
        self.events.target()
    }

    /// Events that were dropped because nobody took them: more than sixteen waited.
    #[must_use]
    pub const fn dropped_events(&self) -> u64 {
        self.events.dropped()
    }

    /// Submits event requests until as many slots hold one as there should be. The last free entry of the submission
    /// queue stays for a command: entries that hold requests become free only when something else completes.
    fn arm_events(&mut self) {
        while self.events.missing() > 0 && self.submission.free() > 1 && self.check().is_ok() {
            let work = AdminWork {
                role: Role::Event,
                stage: Stage::Outstanding,
                handle: None,
                data: None,
                len: 0,
                waits_for_others: true,
            };
            if self.send(Events::request(), work, DataPointer::NONE, None).is_err() {
                return;
            }
            self.events.armed();
        }
    }

    /// Takes every completion there is and notes time-outs; returns the number of completions. Bounded by the number of
    /// slots.
    ///
    /// # Errors
    /// The [`Fault`]; nothing more is believed then.
    pub fn poll(&mut self, now: Instant) -> Result<usize, Fault> {
        self.check()?;
        match self.collect() {
            Ok(count) => {
                while let Some(id) = self.tracker.expire(now) {
                    let Some(work) = self.tracker.get_mut(id) else { continue };
                    if !work.waits_for_others {
                        self.timeouts = self.timeouts.saturating_add(1);
                    }
                    if matches!(work.stage, Stage::Outstanding) {
                        work.stage = if work.is_unclaimed() { Stage::Told } else { Stage::TimedOut };
                    }
                }
                self.arm_events();
                Ok(count)
            }
            Err(fault) => Err(self.fail(fault)),
        }
    }

    fn collect(&mut self) -> Result<usize, Fault> {
        let mut count: usize = 0;
        // Each entry must complete another outstanding command, so this ends whatever the device writes.
        while let Some(entry) = self.completion.pop(self.core.arena) {
            if entry.submission_queue() != QueueId::ADMIN {
                return Err(Fault::WrongSubmissionQueue(entry.submission_queue()));
            }
            self.submission.set_head(entry.submission_head())?;
            self.settle(entry)?;
            count = count.saturating_add(1);
        }
        self.completion.ring(self.core.registers).map_err(|_| {
            let offset = cq_head(QueueId::ADMIN, self.core.capabilities.doorbell_stride());
            Fault::RegisterAccess(Offset::new(offset.unwrap_or(u32::MAX)))
        })?;
        Ok(count)
    }

    fn settle(&mut self, entry: CompletionQueueEntry) -> Result<(), Fault> {
        let id = entry.command_id();
        let arena = self.core.arena;
        let work = self.tracker.get_mut(id).ok_or(Fault::UnknownCommand(id))?;
        if matches!(work.stage, Stage::Completed(..) | Stage::Lost) {
            return Err(Fault::UnknownCommand(id));
        }
        if let Some(data) = &work.data {
            arena.acquire(data, 0..work.len);
        }
        if work.role == Role::Event {
            self.tracker.complete(id)?;
            let status = entry.status();
            if status.is_success() {
                self.events.reported(AsynchronousEvent::from_completion(&entry));
            } else {
                self.events.refused(status.code());
            }
        } else if work.is_unclaimed() {
            let finished = self.tracker.complete(id)?;
            if let Some(data) = finished.payload.data {
                release(arena, data, &CommandEnded::new());
            }
        } else {
            work.stage = Stage::Completed(entry);
        }
        Ok(())
    }

    /// Puts one command into the ring and tells the controller.
    fn send(
        &mut self,
        entry: SubmissionQueueEntry,
        work: AdminWork,
        pointer: DataPointer,
        deadline: Option<Instant>,
    ) -> Result<CommandId, AdminWork> {
        let Some(id) = self.tracker.peek() else { return Err(work) };
        let entry = entry.with_command_id(id).with_prps(pointer.prp1, pointer.prp2);
        if self.submission.push(&entry).is_err() {
            return Err(work);
        }
        let id = self.tracker.submit(work, deadline)?;
        if self.submission.ring(self.core.registers, self.core.arena).is_err() {
            // Whether the controller saw it is unknown, so the command stays outstanding, in a failed controller.
            let offset = sq_tail(QueueId::ADMIN, self.core.capabilities.doorbell_stride());
            self.fail(Fault::RegisterAccess(Offset::new(offset.unwrap_or(u32::MAX))));
        }
        Ok(id)
    }

    fn data_pointer(&self, data: &AdminData, id: CommandId) -> Result<DataPointer, SubmitError> {
        let (region, len) = match data {
            AdminData::None => return Ok(DataPointer::NONE),
            AdminData::QueueBase(base) => return Ok(DataPointer { prp1: *base, prp2: BusAddr::new(0) }),
            AdminData::Buffer { region, len } => (region, *len),
        };
        if len > self.max_transfer {
            return Err(SubmitError::TooLong { bytes: len, limit: self.max_transfer });
        }
        let start = self.tracker.index(id).saturating_mul(self.list_bytes);
        let list = ListMemory { region: &self.lists, range: start..start.saturating_add(self.list_bytes) };
        let pointer = prp::build(self.core.arena, region, 0..len, self.page_size, list)
            .map_err(SubmitError::DataPointer)?;
        if region.direction() != Direction::FromDevice {
            self.core.arena.publish(region, 0..len);
        }
        Ok(pointer)
    }

    /// Whether this is a queue of the controller that `link` belongs to.
    pub(crate) fn is_of(&self, link: &Link) -> bool {
        core::ptr::eq(self.core.link, link)
    }

    /// The controller is disabled: what was outstanding is lost, what nobody will ask for goes, event requests vanish.
    pub(crate) fn quiesce(&mut self) {
        let mut next = 0;
        while let Some(id) = self.find_from(&mut next, |work| {
            !matches!(work.stage, Stage::Completed(..)) && (work.is_unclaimed() || work.role == Role::Event)
        }) {
            if let Ok(finished) = self.tracker.complete(id)
                && let Some(data) = finished.payload.data
            {
                give_back(self.core.arena, data);
            }
        }
        for (_, work) in self.tracker.iter_mut() {
            if !matches!(work.stage, Stage::Completed(..)) {
                work.stage = Stage::Lost;
            }
        }
        self.events.stop();
        self.life.renew();
    }

    /// The next slot from index `next` on, in any order of time, that `wanted` holds for; `next` moves past it.
    fn find_from(&self, next: &mut usize, wanted: impl Fn(&AdminWork) -> bool) -> Option<CommandId> {
        let found = self.tracker.iter().find(|(id, work)| self.tracker.index(*id) >= *next && wanted(work));
        let (id, _) = found?;
        *next = self.tracker.index(id).saturating_add(1);
        Some(id)
    }

    /// Takes any finished command.
    pub(crate) fn take_any(&mut self) -> Option<(AdminHandle, AdminCompletion)> {
        let mut next = 0;
        let id = self.find_from(&mut next, |work| {
            work.role == Role::Command && matches!(work.stage, Stage::Completed(..) | Stage::Lost)
        })?;
        let handle = self.tracker.get(id)?.handle?;
        Some((handle, self.take(handle)?))
    }

    /// Releases all memory; the controller is disabled.
    pub(crate) fn retire(mut self, proof: &Quiesced<'_>) -> &'s mut [AdminSlot] {
        let arena = self.core.arena;
        if !proof.concerns(self.core.link) {
            // Another controller's proof: keep everything from being used again.
            return self.tracker.into_slots();
        }
        while let Some((_, work)) = self.tracker.drain(proof) {
            if let Some(data) = work.data {
                release(arena, data, proof);
            }
        }
        for region in [self.submission.into_memory(), self.completion.into_memory(), self.lists] {
            release(arena, region, proof);
        }
        self.tracker.into_slots()
    }
}

#[allow(unsafe_code, reason = "the word that the trait asks for is given here")]
// SAFETY: the arena is the one that serves the controller, as the caller of `attach` promised. `life` is private and made
// with the queue, of which there is one for each time that `Disabled::enable` begins to enable the disabled controller.
// `take` reports what `settle` noted for the same command from an entry of this controller's completion queue, and what
// `quiesce` noted when the controller was disabled.
unsafe impl<R: RegisterIo + ?Sized, A: DmaArena> AdminPort for AdminQueue<'_, '_, R, A> {
    type Arena = A;

    fn arena(&self) -> &A {
        self.core.arena
    }

    fn page_size(&self) -> usize {
        self.page_size
    }

    fn max_transfer(&self) -> usize {
        self.max_transfer
    }

    fn generation(&self) -> Generation {
        self.life.generation()
    }

    fn is_live(&self) -> bool {
        self.check().is_ok()
    }

    fn submit(
        &mut self,
        request: AdminRequest,
        now: Instant,
    ) -> Result<AdminHandle, (SubmitError, AdminRequest)> {
        if self.check().is_err() {
            return Err((SubmitError::NotReady, request));
        }
        // Slots for events that are not armed yet stay free.
        let free = self.tracker.capacity().saturating_sub(self.tracker.outstanding());
        let room = free > self.events.missing() && self.submission.free() > 0;
        let Some(id) = self.tracker.peek().filter(|_| room) else {
            return Err((SubmitError::Busy, request));
        };
        let pointer = match self.data_pointer(&request.data, id) {
            Ok(pointer) => pointer,
            Err(error) => return Err((error, request)),
        };
        let AdminRequest { command, data, timeout } = request;
        let waits_for_others = waits_for_others(&command);
        let (data, len, base) = match data {
            AdminData::Buffer { region, len } => (Some(region), len, None),
            AdminData::QueueBase(base) => (None, 0, Some(base)),
            AdminData::None => (None, 0, None),
        };
        let handle = self.life.handle(id);
        let work = AdminWork {
            role: Role::Command,
            stage: Stage::Outstanding,
            handle: Some(handle),
            data,
            len,
            waits_for_others,
        };
        match self.send(command, work, pointer, Some(now.after(timeout))) {
            Ok(_) => Ok(handle),
            Err(work) => {
                let data = match (work.data, base) {
                    (Some(region), _) => AdminData::Buffer { region, len },
                    (None, Some(base)) => AdminData::QueueBase(base),
                    (None, None) => AdminData::None,
                };
                Err((SubmitError::Busy, AdminRequest { command, data, timeout }))
            }
        }
    }

    fn take(&mut self, handle: AdminHandle) -> Option<AdminCompletion> {
        let id = handle.command_id();
        let failed = self.check().is_err();
        let earlier = handle.generation().is_another_life(self.generation());
        let Some(work) = self.tracker.get_mut(id).filter(|work| work.is_claimed_by(handle)) else {
            return earlier.then_some(AdminCompletion { outcome: AdminOutcome::Lost, region: None });
        };
        let outcome = match work.stage {
            Stage::Told => return None,
            Stage::TimedOut => {
                work.stage = Stage::Told;
                return Some(AdminCompletion { outcome: AdminOutcome::TimedOut, region: None });
            }
            Stage::Outstanding if failed => {
                // The device may still use the data, which therefore stays until the controller is disabled.
                work.stage = Stage::Told;
                return Some(AdminCompletion { outcome: AdminOutcome::Lost, region: None });
            }
            Stage::Outstanding => return None,
            Stage::Lost => AdminOutcome::Lost,
            Stage::Completed(entry) => AdminOutcome::Completed(entry),
        };
        let finished = self.tracker.complete(id).ok()?;
        Some(AdminCompletion { outcome, region: finished.payload.data })
    }

    fn abandon(&mut self, handle: AdminHandle) {
        let id = handle.command_id();
        let Some(work) = self.tracker.get_mut(id).filter(|work| work.is_claimed_by(handle)) else { return };
        work.role = Role::Abandoned;
        if matches!(work.stage, Stage::Completed(..) | Stage::Lost)
            && let Ok(finished) = self.tracker.complete(id)
            && let Some(data) = finished.payload.data
        {
            give_back(self.core.arena, data);
        }
    }

    fn take_event(&mut self, filter: EventFilter) -> Option<AsynchronousEvent> {
        self.events.take(filter)
    }

    fn next_deadline(&self) -> Option<Instant> {
        self.tracker.next_deadline()
    }
}

impl From<PrpError> for SubmitError {
    fn from(error: PrpError) -> Self {
        Self::DataPointer(error)
    }
}

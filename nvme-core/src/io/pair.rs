// SPDX-License-Identifier: MIT OR Apache-2.0
//! One I/O submission queue with its completion queue. NVMe Base 2.1 §3.3.1.

use core::ops::Range;

use crate::admin::{AdminPort, SubmitError};
use crate::controller::{Core, Fault, Quiesced};
use crate::dma::{self, CommandEnded, Direction, DmaArena, DmaRegion, LetGo};
use crate::prp::{self, DataPointer, ListMemory};
use crate::queue::{CompletionRing, Slot, SubmissionRing, Tracker};
use crate::register::{Offset, RegisterIo};
use crate::time::Instant;
use crate::wire::register::{cq_head, sq_tail};
use crate::wire::{CommandId, CompletionQueueEntry, QueueId, SubmissionQueueEntry};

/// Room for one command of a queue pair; an array of them is lent when the pair is created.
pub type IoSlot<T> = Slot<IoWork<T>>;

/// The content of an [`IoSlot`]: the tag and the buffer of an outstanding command.
#[derive(Debug)]
pub struct IoWork<T> {
    tag: T,
    buffer: Option<Buffer>,
}

/// The data of a command: part of a region, which stays with the queue pair until the command has ended.
#[derive(Debug, PartialEq, Eq)]
pub struct Buffer {
    region: DmaRegion,
    start: usize,
    end: usize,
}

impl Buffer {
    /// The bytes `range` of `region`; whether they lie inside is checked when the command is submitted.
    #[must_use]
    pub const fn new(region: DmaRegion, range: Range<usize>) -> Self {
        Self { region, start: range.start, end: range.end }
    }

    /// All of `region`.
    #[must_use]
    pub const fn whole(region: DmaRegion) -> Self {
        let end = region.len();
        Self { region, start: 0, end }
    }

    /// The memory.
    #[must_use]
    pub const fn region(&self) -> &DmaRegion {
        &self.region
    }

    /// Which of the region's bytes the command transfers.
    #[must_use]
    pub const fn range(&self) -> Range<usize> {
        self.start..self.end
    }

    /// The same memory with other bytes, for the next command.
    #[must_use]
    pub fn with_range(self, range: Range<usize>) -> Self {
        Self { region: self.region, start: range.start, end: range.end }
    }

    /// The region, to be used otherwise or given back.
    #[must_use]
    pub fn into_region(self) -> DmaRegion {
        self.region
    }
}

/// A command that was not submitted, whole.
#[derive(Debug)]
pub struct Rejected<T> {
    /// The reason.
    pub error: SubmitError,
    /// The data.
    pub buffer: Option<Buffer>,
    /// The tag.
    pub tag: T,
}

/// A command that the controller completed.
#[must_use = "the data buffer is inside"]
#[derive(Debug)]
pub struct Completed<T> {
    /// The completion; look at the status.
    pub entry: CompletionQueueEntry,
    /// What was submitted with the command.
    pub tag: T,
    /// Its data.
    pub buffer: Option<Buffer>,
    /// Its time-out had been reported before.
    pub late: bool,
}

/// A command that ended without a completion, by a reset or the deletion of its queue; whether it took effect is unknown.
#[must_use = "the data buffer is inside"]
#[derive(Debug)]
pub struct Lost<T> {
    /// Its identifier.
    pub id: CommandId,
    /// What was submitted with the command.
    pub tag: T,
    /// Its data.
    pub buffer: Option<Buffer>,
}

/// An I/O queue pair.
///
/// It may be used on another thread than the admin queue; what that asks of a reset is written at
/// [`attach`](crate::controller::attach). All calls take constant time for each command.
pub struct IoQueuePair<'d, 's, R: ?Sized, A: DmaArena, T> {
    core: Core<'d, R, A>,
    epoch: u32,
    id: QueueId,
    submission: SubmissionRing,
    completion: CompletionRing,
    tracker: Tracker<'s, IoWork<T>>,
    lists: DmaRegion,
    list_bytes: usize,
    page_size: usize,
    max_transfer: usize,
}

/// What a queue pair is made of.
pub(super) struct Parts<'d, 's, R: ?Sized, A: DmaArena, T> {
    pub(super) core: Core<'d, R, A>,
    pub(super) epoch: u32,
    pub(super) id: QueueId,
    pub(super) submission: SubmissionRing,
    pub(super) completion: CompletionRing,
    pub(super) slots: &'s mut [IoSlot<T>],
    pub(super) lists: DmaRegion,
    pub(super) list_bytes: usize,
    pub(super) page_size: usize,
    pub(super) max_transfer: usize,
}

impl<'d, 's, R: RegisterIo + ?Sized, A: DmaArena, T> IoQueuePair<'d, 's, R, A, T> {
    pub(super) fn new(parts: Parts<'d, 's, R, A, T>) -> Self {
        let Parts {
            core,
            epoch,
            id,
            submission,
            completion,
            slots,
            lists,
            list_bytes,
            page_size,
            max_transfer,
        } = parts;
        let tracker = Tracker::new(slots);
        Self { core, epoch, id, submission, completion, tracker, lists, list_bytes, page_size, max_transfer }
    }

    /// The identifier of both queues.
    #[must_use]
    pub const fn id(&self) -> QueueId {
        self.id
    }

    /// Longest data transfer in bytes.
    #[must_use]
    pub const fn max_transfer(&self) -> usize {
        self.max_transfer
    }

    /// Memory page size in bytes (CC.MPS).
    #[must_use]
    pub const fn page_size(&self) -> usize {
        self.page_size
    }

    /// Commands submitted and not ended.
    #[must_use]
    pub const fn outstanding(&self) -> usize {
        self.tracker.outstanding()
    }

    /// Commands that can be submitted now: the smaller of the free slots and the free ring entries. The slot of a command
    /// that a [`Supervisor`](crate::recovery::Supervisor) had aborted is free when the Abort has ended, too.
    #[must_use]
    pub fn free(&self) -> usize {
        self.tracker.free().min(self.submission.free() as usize)
    }

    pub(super) const fn submission(&self) -> &SubmissionRing {
        &self.submission
    }

    pub(crate) const fn completion(&self) -> &CompletionRing {
        &self.completion
    }

    /// Whether the controller still works and the pair still exists.
    ///
    /// # Errors
    /// The [`Fault`].
    #[inline]
    pub fn check(&self) -> Result<(), Fault> {
        self.core.link.check(self.epoch)
    }

    /// Whether `port` leads to the controller of the pair.
    pub(super) fn is_reached_by<P: AdminPort + ?Sized>(&self, port: &P) -> bool {
        port.generation().is_of(self.core.link.controller())
    }

    /// Whether `port` leads to the controller that has, or is to have, the queues, and which was not reset since.
    pub(super) fn is_served_by<P: AdminPort + ?Sized>(&self, port: &P) -> bool {
        self.is_reached_by(port) && self.check() != Err(Fault::Reset)
    }

    #[cold]
    fn doorbell_failed(&self, offset: Option<u32>) -> Fault {
        let offset = Offset::new(offset.unwrap_or(u32::MAX));
        self.core.link.fail(self.epoch, Fault::RegisterAccess(offset))
    }

    /// Puts one command into the ring; [`ring`](Self::ring) tells the controller. Command identifier and data pointer of
    /// `entry` are filled in. The command is reported as timed out by [`expire`](Self::expire) once `deadline` is reached.
    ///
    /// # Errors
    /// [`Rejected`] with everything given back: [`SubmitError::Busy`] if no slot or ring entry is free.
    #[inline]
    pub fn submit(
        &mut self,
        entry: &SubmissionQueueEntry,
        buffer: Option<Buffer>,
        tag: T,
        deadline: Option<Instant>,
    ) -> Result<CommandId, Rejected<T>> {
        if self.check().is_err() {
            return reject(SubmitError::NotReady, buffer, tag);
        }
        let Some(vacant) = self.tracker.vacant().filter(|_| !self.submission.is_full()) else {
            return reject(SubmitError::Busy, buffer, tag);
        };
        let id = vacant.id();
        let mut pointer = DataPointer::NONE;
        if let Some(data) = &buffer {
            let range = data.range();
            let len = range.end.saturating_sub(range.start);
            if len > self.max_transfer {
                let error = SubmitError::TooLong { bytes: len, limit: self.max_transfer };
                return reject(error, buffer, tag);
            }
            let start = vacant.index().wrapping_mul(self.list_bytes);
            let list = ListMemory { region: &self.lists, range: start..start.wrapping_add(self.list_bytes) };
            let arena = self.core.arena;
            match prp::build(arena, &data.region, range.clone(), self.page_size, list) {
                Ok(built) => pointer = built,
                Err(error) => return reject(SubmitError::DataPointer(error), buffer, tag),
            }
            if data.region.direction() != Direction::FromDevice {
                arena.publish(&data.region, range);
            }
        }
        let entry = entry.with_command_id(id).with_prps(pointer.prp1, pointer.prp2);
        if self.submission.put(&entry).is_err() {
            return reject(SubmitError::Busy, buffer, tag);
        }
        vacant.fill(IoWork { tag, buffer }, deadline);
        Ok(id)
    }

    /// Tells the controller of everything submitted since the last call, with one doorbell write.
    ///
    /// # Errors
    /// The [`Fault`], if the controller has failed or the doorbell cannot be written.
    #[inline]
    pub fn ring(&mut self) -> Result<(), Fault> {
        self.check()?;
        self.submission
            .ring(self.core.registers, self.core.arena)
            .map_err(|_| self.doorbell_failed(sq_tail(self.id, self.core.capabilities.doorbell_stride())))
    }

    /// Takes one completion; `None` if there is none now. Call it until then, then [`acknowledge`](Self::acknowledge).
    ///
    /// # Errors
    /// The [`Fault`]: the controller broke a rule, failed or is gone. Outstanding commands stay until it is disabled.
    #[inline]
    pub fn poll(&mut self) -> Result<Option<Completed<T>>, Fault> {
        self.check()?;
        self.pop()
    }

    #[inline]
    pub(super) fn pop(&mut self) -> Result<Option<Completed<T>>, Fault> {
        let Some(entry) = self.completion.pop(self.core.arena) else { return Ok(None) };
        match self.settle(&entry) {
            Ok(completed) => Ok(Some(completed)),
            Err(fault) => Err(self.core.link.fail(self.epoch, fault)),
        }
    }

    #[inline]
    fn settle(&mut self, entry: &CompletionQueueEntry) -> Result<Completed<T>, Fault> {
        if entry.submission_queue() != self.id {
            return Err(Fault::WrongSubmissionQueue(entry.submission_queue()));
        }
        self.submission.set_head(entry.submission_head())?;
        let finished = self.tracker.complete(entry.command_id())?;
        let IoWork { tag, buffer } = finished.payload;
        if let Some(data) = &buffer
            && data.region.direction() != Direction::ToDevice
        {
            self.core.arena.acquire(&data.region, data.range());
        }
        Ok(Completed { entry: *entry, tag, buffer, late: finished.late })
    }

    /// Tells the controller that all completions taken have been consumed, with one doorbell write.
    ///
    /// # Errors
    /// The [`Fault`], if the controller has failed or the doorbell cannot be written.
    #[inline]
    pub fn acknowledge(&mut self) -> Result<(), Fault> {
        self.check()?;
        self.completion
            .ring(self.core.registers)
            .map_err(|_| self.doorbell_failed(cq_head(self.id, self.core.capabilities.doorbell_stride())))
    }

    /// Reports one command whose deadline has been reached, each once; call it until `None`. The command keeps its slot
    /// and its buffer, and may still complete. Constant time while nothing is due.
    pub fn expire(&mut self, now: Instant) -> Option<(CommandId, &T)> {
        let id = self.tracker.expire(now)?;
        self.tracker.get(id).map(|work| (id, &work.tag))
    }

    /// The tag of the outstanding command `id`.
    #[must_use]
    pub fn tag(&self, id: CommandId) -> Option<&T> {
        self.tracker.get(id).map(|work| &work.tag)
    }

    /// Every outstanding command with its tag.
    pub fn unfinished(&self) -> impl Iterator<Item = (CommandId, &T)> {
        self.tracker.iter().map(|(id, work)| (id, &work.tag))
    }

    /// Whether command `id` is outstanding and [expired](Self::expire).
    pub(crate) fn is_late(&self, id: CommandId) -> bool {
        self.tracker.is_late(id)
    }

    /// An outstanding command that has [expired](Self::expire).
    pub(crate) fn late(&mut self) -> Option<CommandId> {
        self.tracker.late()
    }

    /// One command that has expired and that nobody has taken on yet.
    pub(crate) fn claim_late(&mut self) -> Option<CommandId> {
        self.tracker.claim_late()
    }

    /// What was done about the claimed command `id` is over.
    pub(crate) fn unclaim(&mut self, id: CommandId) {
        self.tracker.unclaim(id);
    }

    /// When to call [`expire`](Self::expire) again; it may be too early, never too late.
    #[must_use]
    pub fn next_deadline(&self) -> Option<Instant> {
        self.tracker.next_deadline()
    }

    /// Takes one completion that was posted before the controller was disabled; `None` if there is none, or if `proof` is
    /// about another controller. For a controller that broke no rule; call it until `None`, before [`drain`](Self::drain).
    ///
    /// # Errors
    /// The [`Fault`]: believe nothing more.
    pub fn take_late(&mut self, proof: &Quiesced<'_>) -> Result<Option<Completed<T>>, Fault> {
        if proof.concerns(self.core.link) { self.pop() } else { Ok(None) }
    }

    /// Gives back one outstanding command after the other, each once, now that the controller is disabled; `None` when
    /// there is none left, or if `proof` is about another controller.
    pub fn drain(&mut self, proof: &Quiesced<'_>) -> Option<Lost<T>> {
        if proof.concerns(self.core.link) { self.drain_proved(proof) } else { None }
    }

    pub(super) fn drain_proved<P: LetGo>(&mut self, proof: &P) -> Option<Lost<T>> {
        let (id, IoWork { tag, buffer }) = self.tracker.drain(proof)?;
        Some(Lost { id, tag, buffer })
    }

    /// Releases all memory of the pair, with the buffers of commands that were not [drained](Self::drain), and gives the
    /// slots back, now that the controller is disabled.
    ///
    /// # Errors
    /// The pair, if `proof` is about another controller.
    pub fn retire(self, proof: &Quiesced<'_>) -> Result<&'s mut [IoSlot<T>], Self> {
        if proof.concerns(self.core.link) { Ok(self.retire_proved(proof)) } else { Err(self) }
    }

    pub(super) fn retire_proved<P: LetGo>(mut self, proof: &P) -> &'s mut [IoSlot<T>] {
        let arena = self.core.arena;
        while let Some(lost) = self.drain_proved(proof) {
            if let Some(buffer) = lost.buffer {
                dma::release(arena, buffer.into_region(), proof);
            }
        }
        for region in [self.submission.into_memory(), self.completion.into_memory(), self.lists] {
            dma::release(arena, region, proof);
        }
        self.tracker.into_slots()
    }
}

#[cold]
fn reject<T>(error: SubmitError, buffer: Option<Buffer>, tag: T) -> Result<CommandId, Rejected<T>> {
    Err(Rejected { error, buffer, tag })
}

impl<T> Completed<T> {
    /// Gives the buffer back to `arena`, the one it came from, and keeps the rest.
    pub fn release<A: DmaArena + ?Sized>(self, arena: &A) -> (CompletionQueueEntry, T) {
        if let Some(buffer) = self.buffer {
            dma::release(arena, buffer.into_region(), &CommandEnded::new());
        }
        (self.entry, self.tag)
    }
}

/// A queue pair whose creation or deletion has an unknown end: the controller may still use its memory, so it waits here
/// until the controller is disabled.
pub struct QuarantinedQueuePair<'d, 's, R: ?Sized, A: DmaArena, T>(pub(crate) IoQueuePair<'d, 's, R, A, T>);

impl<'s, R: RegisterIo + ?Sized, A: DmaArena, T> QuarantinedQueuePair<'_, 's, R, A, T> {
    /// As [`IoQueuePair::drain`].
    pub fn drain(&mut self, proof: &Quiesced<'_>) -> Option<Lost<T>> {
        self.0.drain(proof)
    }

    /// As [`IoQueuePair::retire`].
    ///
    /// # Errors
    /// The pair, if `proof` is about another controller.
    pub fn retire(self, proof: &Quiesced<'_>) -> Result<&'s mut [IoSlot<T>], Self> {
        self.0.retire(proof).map_err(Self)
    }
}

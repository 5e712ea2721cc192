// SPDX-License-Identifier: MIT OR Apache-2.0
//! Moves blocks by the protocol: Read at the source's managing controller, Write at the destination's, one piece at a
//! time.

use core::time::Duration;

use nvme_core::admin::SubmitError;
use nvme_core::controller::Fault;
use nvme_core::dma::{Direction, DmaArena, DmaError, Pool, give_back};
use nvme_core::io::Buffer;
use nvme_core::migration::{DataMover, Extent, ExtentKind, MoverProgress};
use nvme_core::register::RegisterIo;
use nvme_core::time::Instant;
use nvme_core::wire::nvm::{Flush, Read, Write};
use nvme_core::wire::{Command, CommandId, Lba, NamespaceId, Status, SubmissionQueueEntry};

use crate::session::{Pair, Shape};

/// Bytes of a piece.
const PIECE: usize = 64 << 10;

/// Why blocks could not be moved.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum MoverError {
    /// The controller has failed.
    Fault(Fault),
    /// A command was not submitted.
    Submit(SubmitError),
    /// A command ended with this status.
    Io(Status),
    /// A command did not complete in time.
    TimedOut,
    /// Memory could not be had or reached.
    Memory(DmaError),
    /// An extent of another namespace than the one that is migrated.
    Namespace(NamespaceId),
}

impl From<Fault> for MoverError {
    fn from(fault: Fault) -> Self {
        Self::Fault(fault)
    }
}

impl From<DmaError> for MoverError {
    fn from(error: DmaError) -> Self {
        Self::Memory(error)
    }
}

/// One side: its queue pair and, unless a command has it, its buffer.
struct Side<'d, 's, R, A: DmaArena> {
    pair: Pair<'d, 's, R, A>,
    arena: &'d A,
    buffer: Option<Buffer>,
    /// The command that is waited for.
    sent: Option<CommandId>,
}

impl<'d, 's, R: RegisterIo, A: DmaArena> Side<'d, 's, R, A> {
    fn new(pair: Pair<'d, 's, R, A>, arena: &'d A) -> Self {
        Self { pair, arena, buffer: None, sent: None }
    }

    fn fill(&mut self, bytes: usize, direction: Direction) -> Result<(), DmaError> {
        self.buffer = Some(Buffer::whole(self.arena.allocate_scattered(Pool::Data, bytes, direction)?));
        Ok(())
    }

    fn submit(
        &mut self,
        command: &SubmissionQueueEntry,
        bytes: usize,
        deadline: Instant,
    ) -> Result<(), MoverError> {
        // What was given up may still complete: a later command is not sent beside it.
        if self.pair.unfinished().next().is_some() {
            return Err(MoverError::Submit(SubmitError::Busy));
        }
        let buffer =
            if bytes == 0 { None } else { self.buffer.take().map(|buffer| buffer.with_range(0..bytes)) };
        if bytes != 0 && buffer.is_none() {
            return Err(MoverError::Submit(SubmitError::Busy));
        }
        match self.pair.submit(command, buffer, 0, Some(deadline)) {
            Ok(id) => self.sent = Some(id),
            Err(rejected) => {
                self.buffer = rejected.buffer;
                return Err(MoverError::Submit(rejected.error));
            }
        }
        Ok(self.pair.ring()?)
    }

    /// Whether the one command has ended with success.
    fn poll(&mut self, now: Instant) -> Result<bool, MoverError> {
        if let Some(completed) = self.pair.poll()? {
            let (status, id) = (completed.entry.status(), completed.entry.command_id());
            if completed.buffer.is_some() {
                self.buffer = completed.buffer;
            }
            self.pair.acknowledge()?;
            if self.sent != Some(id) {
                return Ok(false);
            }
            self.sent = None;
            return if status.is_success() { Ok(true) } else { Err(MoverError::Io(status)) };
        }
        if self.pair.expire(now).is_some() { Err(MoverError::TimedOut) } else { Ok(false) }
    }

    /// Takes back what completes, whatever its status; says whether nothing is outstanding.
    fn settle(&mut self, now: Instant) -> Result<bool, Fault> {
        while let Some(completed) = self.pair.poll()? {
            if completed.buffer.is_some() {
                self.buffer = completed.buffer;
            }
        }
        self.pair.acknowledge()?;
        while self.pair.expire(now).is_some() {}
        Ok(self.pair.unfinished().next().is_none())
    }

    fn into_pair(self) -> Pair<'d, 's, R, A> {
        if let Some(buffer) = self.buffer {
            give_back(self.arena, buffer.into_region());
        }
        self.pair
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    Idle,
    /// So many blocks are being read.
    Reading(u64),
    /// So many blocks are being written.
    Writing(u64),
    Flushing,
    Failed(MoverError),
}

/// See the [module](self).
pub(super) struct Mover<'d, 's, R, A: DmaArena> {
    source: Side<'d, 's, R, A>,
    destination: Side<'d, 's, R, A>,
    namespace: NamespaceId,
    block: u64,
    most: u64,
    timeout: Duration,
    extent: Option<Extent>,
    stage: Stage,
    /// When no more is waited for what was given up.
    given_up: Option<Instant>,
    progress: MoverProgress,
}

impl<'d, 's, R: RegisterIo, A: DmaArena> Mover<'d, 's, R, A> {
    /// A mover for one namespace through the queue pairs of both sides, each with its memory.
    pub(super) fn new(
        source: (Pair<'d, 's, R, A>, &'d A),
        destination: (Pair<'d, 's, R, A>, &'d A),
        (namespace, shape): (NamespaceId, Shape),
        timeout: Duration,
    ) -> (Self, Result<(), DmaError>) {
        let block = u64::from(shape.block_bytes).max(1);
        let limit = source.0.max_transfer().min(destination.0.max_transfer()).min(PIECE) as u64;
        let most = limit.checked_div(block).unwrap_or(0);
        let bytes = usize::try_from(most.saturating_mul(block)).unwrap_or(usize::MAX);
        let mut made = Self {
            source: Side::new(source.0, source.1),
            destination: Side::new(destination.0, destination.1),
            namespace,
            block,
            most,
            timeout,
            extent: None,
            stage: Stage::Idle,
            given_up: None,
            progress: MoverProgress::default(),
        };
        let filled = made
            .source
            .fill(bytes, Direction::FromDevice)
            .and_then(|()| made.destination.fill(bytes, Direction::ToDevice));
        (made, filled)
    }

    /// The queue pairs, source first.
    pub(super) fn into_pairs(self) -> (Pair<'d, 's, R, A>, Pair<'d, 's, R, A>) {
        (self.source.into_pair(), self.destination.into_pair())
    }

    fn bytes(&self, blocks: u64) -> usize {
        usize::try_from(blocks.saturating_mul(self.block)).unwrap_or(usize::MAX)
    }

    /// Copies from the one buffer to the other, or zeroes it, and writes it.
    fn write(&mut self, extent: Extent, blocks: u64, now: Instant) -> Result<Stage, MoverError> {
        let bytes = self.bytes(blocks);
        let lost = MoverError::Submit(SubmitError::Busy);
        let to = self.destination.buffer.as_ref().ok_or(lost)?.region();
        if extent.kind == ExtentKind::Zeroes {
            to.zero(0..bytes)?;
        } else {
            let from = self.source.buffer.as_ref().ok_or(lost)?.region();
            let mut piece = [0; 4096];
            for offset in (0..bytes).step_by(piece.len()) {
                let len = bytes.saturating_sub(offset).min(piece.len());
                let Some(piece) = piece.get_mut(..len) else { break };
                from.read(offset, piece)?;
                to.write(offset, piece)?;
            }
        }
        let count = u32::try_from(blocks).unwrap_or(u32::MAX);
        let command = Write::new(self.namespace, extent.start, count).encode();
        self.destination.submit(&command, bytes, now.after(self.timeout))?;
        Ok(Stage::Writing(blocks))
    }

    fn advance(&mut self, now: Instant) -> Result<Stage, MoverError> {
        match (self.stage, self.extent) {
            (Stage::Failed(error), _) => Err(error),
            (Stage::Idle, Some(extent)) => {
                let blocks = extent.blocks.min(self.most);
                if extent.kind == ExtentKind::Zeroes {
                    return self.write(extent, blocks, now);
                }
                let count = u32::try_from(blocks).unwrap_or(u32::MAX);
                let command = Read::new(self.namespace, extent.start, count).encode();
                self.source.submit(&command, self.bytes(blocks), now.after(self.timeout))?;
                Ok(Stage::Reading(blocks))
            }
            (Stage::Reading(blocks), Some(extent)) if self.source.poll(now)? => {
                self.write(extent, blocks, now)
            }
            (Stage::Writing(blocks), Some(extent)) if self.destination.poll(now)? => {
                self.progress.blocks = self.progress.blocks.saturating_add(blocks);
                self.progress.bytes = self.progress.bytes.saturating_add(self.bytes(blocks) as u64);
                let left = extent.blocks.saturating_sub(blocks);
                let start = Lba::new(extent.start.get().saturating_add(blocks));
                self.extent = (left != 0).then_some(Extent { start, blocks: left, ..extent });
                Ok(Stage::Idle)
            }
            (stage, _) => Ok(stage),
        }
    }

    fn step(&mut self, now: Instant) -> Result<(), MoverError> {
        match self.advance(now) {
            Ok(stage) => {
                self.stage = stage;
                Ok(())
            }
            Err(error) => {
                self.stage = Stage::Failed(error);
                Err(error)
            }
        }
    }
}

impl<R: RegisterIo, A: DmaArena> DataMover for Mover<'_, '_, R, A> {
    type Error = MoverError;

    fn start(&mut self, extent: Extent) -> Result<bool, MoverError> {
        if extent.namespace != self.namespace {
            return Err(MoverError::Namespace(extent.namespace));
        }
        if self.extent.is_some() || self.stage != Stage::Idle {
            return Ok(false);
        }
        self.extent = Some(extent);
        Ok(true)
    }

    fn poll(&mut self, now: Instant) -> Result<MoverProgress, MoverError> {
        self.step(now)?;
        self.progress.in_flight = u64::from(self.extent.is_some());
        Ok(self.progress)
    }

    fn flush(&mut self, now: Instant) -> Result<bool, MoverError> {
        match self.stage {
            Stage::Idle => {
                let command = Flush { namespace: self.namespace }.encode();
                self.destination.submit(&command, 0, now.after(self.timeout))?;
                self.stage = Stage::Flushing;
                Ok(false)
            }
            Stage::Flushing => {
                let done = self.destination.poll(now)?;
                if done {
                    self.stage = Stage::Idle;
                }
                Ok(done)
            }
            _ => {
                self.step(now)?;
                Ok(false)
            }
        }
    }

    fn cancel(&mut self, now: Instant) -> bool {
        // Longest wait: that for a command of the time-out's length, from the first call on.
        let until = *self.given_up.get_or_insert(now.after(self.timeout));
        match (self.source.settle(now), self.destination.settle(now)) {
            (Ok(true), Ok(true)) => {
                (self.extent, self.given_up, self.stage) = (None, None, Stage::Idle);
                true
            }
            // A controller that has failed, or does not say more, is not used again: its queue pair is not empty.
            (Err(fault), _) | (_, Err(fault)) => {
                (self.extent, self.stage) = (None, Stage::Failed(fault.into()));
                true
            }
            (Ok(_), Ok(_)) if now.has_reached(until) => {
                (self.extent, self.stage) = (None, Stage::Failed(MoverError::TimedOut));
                true
            }
            (Ok(_), Ok(_)) => false,
        }
    }
}

// SPDX-License-Identifier: MIT OR Apache-2.0
//! Moves blocks by the protocol: Read at the source's managing controller, Write or Write Zeroes at the destination's.
//!
//! Each side has its own bus address space, so the data is copied once in between. Many pieces are under way at once;
//! a piece that overlaps one under way waits, so that what was accepted later always wins.

use std::collections::VecDeque;
use std::fmt;
use std::time::Duration;

use nvme_core::admin::SubmitError;
use nvme_core::dma::{Direction, DmaArena, DmaError, DmaRegion, Pool};
use nvme_core::io::{Buffer, Completed};
use nvme_core::migration::{DataMover, Extent, ExtentKind, MoverProgress};
use nvme_core::register::RegisterIo;
use nvme_core::time::Instant;
use nvme_core::wire::nvm::{Flush, Read, Write, WriteUncorrectable, WriteZeroes};
use nvme_core::wire::{Command, Lba, NamespaceId, StatusCode, SubmissionQueueEntry};

use crate::driver::{DriverError, QueuePair};
use crate::endpoint::AccessError;
use crate::memory::AddressSpace;

/// Pieces under way at once.
pub(crate) const PIECES: usize = 32;
/// Bytes of a piece.
pub(crate) const PIECE_BYTES: usize = 128 << 10;
/// Extents accepted and not begun, at most.
const WAITING: usize = 256;
/// Blocks that one Write Zeroes command can name.
const ZEROES_BLOCKS: u64 = 1 << 16;
pub(crate) const IO_TIMEOUT: Duration = Duration::from_secs(30);

/// Why blocks could not be moved.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MoverError {
    /// Reading at the source failed.
    Source(DriverError),
    /// Writing at the destination failed.
    Destination(DriverError),
    /// An extent of another namespace than the one that is migrated.
    Namespace(NamespaceId),
}

impl fmt::Display for MoverError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Source(error) => write!(f, "source: {error}"),
            Self::Destination(error) => write!(f, "destination: {error}"),
            Self::Namespace(id) => write!(f, "namespace {id} is not being migrated"),
        }
    }
}

impl std::error::Error for MoverError {}

/// Part of an extent under way.
#[derive(Clone, Copy, Debug)]
struct Piece {
    start: u64,
    blocks: u64,
}

/// What a command belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Tag {
    /// The piece in this place.
    Piece(usize),
    /// The flush at the end.
    Flush,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum FlushState {
    Idle,
    Sent,
    Done,
}

/// One side: its queue pair and the buffers of no command.
struct Side<'d, 's, R> {
    pair: QueuePair<'d, 's, R, Tag>,
    idle: Vec<DmaRegion>,
    /// Time-out of its commands.
    timeout: Duration,
}

impl<R: RegisterIo<Error = AccessError>> Side<'_, '_, R> {
    /// Submits a command there is a slot for: each piece has at most one command on each side.
    fn send(
        &mut self,
        entry: &SubmissionQueueEntry,
        buffer: Option<Buffer>,
        tag: Tag,
        now: Instant,
    ) -> Result<(), DriverError> {
        self.pair.submit(entry, buffer, tag, Some(now.after(self.timeout))).map(drop).map_err(|rejected| {
            if let Some(buffer) = rejected.buffer {
                self.idle.push(buffer.into_region());
            }
            DriverError::Submit(rejected.error)
        })
    }
}

/// Moves one namespace.
pub(crate) struct Mover<'d, 's, R> {
    source: Side<'d, 's, R>,
    destination: Side<'d, 's, R>,
    namespace: NamespaceId,
    block_shift: u32,
    blocks_per_piece: u64,
    blocks_per_zeroes: u64,
    waiting: VecDeque<Extent>,
    pieces: [Option<Piece>; PIECES],
    bytes: Vec<u8>,
    progress: MoverProgress,
    flush: FlushState,
    failed: Option<MoverError>,
    /// A side has failed, or a command will never end.
    dead: bool,
}

impl<'d, 's, R: RegisterIo<Error = AccessError>> Mover<'d, 's, R> {
    /// A mover for `namespace` with blocks of 2^`block_shift` bytes. Both pairs have [`PIECES`] slots and one more. A
    /// command is given up after `timeout`. One Write Zeroes at the destination names at most `zeroes_limit` bytes.
    ///
    /// # Errors
    /// A block is longer than one command moves, or there is no memory.
    pub(crate) fn new(
        source: (QueuePair<'d, 's, R, Tag>, &AddressSpace),
        destination: (QueuePair<'d, 's, R, Tag>, &AddressSpace),
        namespace: NamespaceId,
        block_shift: u32,
        timeout: Duration,
        zeroes_limit: Option<u64>,
    ) -> Result<Self, DriverError> {
        let bytes = PIECE_BYTES.min(source.0.max_transfer()).min(destination.0.max_transfer());
        if bytes >> block_shift == 0 {
            return Err(DriverError::BlockTooLong { block: 1 << block_shift, limit: bytes });
        }
        let buffers = |arena: &AddressSpace, direction| {
            let buffer = |_| arena.allocate_scattered(Pool::Data, bytes, direction);
            (0..PIECES).map(buffer).collect::<Result<Vec<_>, DmaError>>()
        };
        Ok(Self {
            source: Side { idle: buffers(source.1, Direction::FromDevice)?, pair: source.0, timeout },
            destination: Side {
                idle: buffers(destination.1, Direction::ToDevice)?,
                pair: destination.0,
                timeout,
            },
            namespace,
            block_shift,
            blocks_per_piece: (bytes >> block_shift) as u64,
            blocks_per_zeroes: zeroes_limit
                .map_or(ZEROES_BLOCKS, |bytes| (bytes >> block_shift).clamp(1, ZEROES_BLOCKS)),
            waiting: VecDeque::new(),
            pieces: [None; PIECES],
            bytes: vec![0; bytes],
            progress: MoverProgress::default(),
            flush: FlushState::Idle,
            failed: None,
            dead: false,
        })
    }

    /// The queue pairs with their buffers, source first, to be taken down.
    pub(crate) fn into_parts(self) -> [(QueuePair<'d, 's, R, Tag>, Vec<DmaRegion>); 2] {
        [(self.source.pair, self.source.idle), (self.destination.pair, self.destination.idle)]
    }

    fn fail<T>(&mut self, error: MoverError) -> Result<T, MoverError> {
        Err(*self.failed.get_or_insert(error))
    }

    fn check(&self) -> Result<(), MoverError> {
        self.failed.map_or(Ok(()), Err)
    }

    /// Whether it has nothing to move.
    pub(crate) fn is_idle(&self) -> bool {
        self.waiting.is_empty() && self.under_way() == 0
    }

    fn under_way(&self) -> u64 {
        self.pieces.iter().flatten().count() as u64
    }

    fn overlaps(&self, start: u64, blocks: u64) -> bool {
        self.pieces
            .iter()
            .flatten()
            .any(|piece| start < piece.start + piece.blocks && piece.start < start + blocks)
    }

    /// Takes completions of both sides.
    fn collect(&mut self, now: Instant) -> Result<(), MoverError> {
        while let Some(completed) =
            self.source.pair.poll().map_err(|fault| MoverError::Source(fault.into()))?
        {
            self.read_ended(completed, now)?;
        }
        self.source.pair.acknowledge().map_err(|fault| MoverError::Source(fault.into()))?;
        if self.source.pair.expire(now).is_some() {
            return Err(MoverError::Source(DriverError::TimedOut("Read")));
        }
        while let Some(completed) =
            self.destination.pair.poll().map_err(|fault| MoverError::Destination(fault.into()))?
        {
            self.write_ended(completed)?;
        }
        self.destination.pair.acknowledge().map_err(|fault| MoverError::Destination(fault.into()))?;
        if self.destination.pair.expire(now).is_some() {
            return Err(MoverError::Destination(DriverError::TimedOut("Write")));
        }
        Ok(())
    }

    /// Hands what was read to the destination.
    fn read_ended(&mut self, completed: Completed<Tag>, now: Instant) -> Result<(), MoverError> {
        let Completed { entry, tag, buffer, .. } = completed;
        let (Tag::Piece(place), Some(region)) = (tag, buffer.map(Buffer::into_region)) else { return Ok(()) };
        // If anything goes wrong from here on the piece has ended.
        let Some(piece) = self.pieces.get_mut(place).and_then(Option::take) else { return Ok(()) };
        let (start, blocks) = (Lba::new(piece.start), piece.blocks as u32);
        let status = entry.status();
        if !status.is_success() {
            self.source.idle.push(region);
            if status.code() != StatusCode::UNRECOVERED_READ_ERROR {
                return Err(MoverError::Source(DriverError::Io("Read", status)));
            }
            if piece.blocks > 1 {
                // Look for the bad block by halves, before anything that was accepted later.
                let half = piece.blocks / 2;
                let namespace = self.namespace;
                let part = |start, blocks| Extent {
                    namespace,
                    start: Lba::new(start),
                    blocks,
                    kind: ExtentKind::Copy,
                };
                self.waiting.push_front(part(piece.start + half, piece.blocks - half));
                self.waiting.push_front(part(piece.start, half));
                return Ok(());
            }
            // The source cannot read the block, so the destination must not be able to either.
            let command = WriteUncorrectable { namespace: self.namespace, start, blocks };
            self.destination.send(&command.encode(), None, tag, now).map_err(MoverError::Destination)?;
            self.pieces[place] = Some(piece);
            return Ok(());
        }
        let len = (piece.blocks << self.block_shift) as usize;
        let Some(target) = self.destination.idle.pop() else {
            return Err(MoverError::Destination(DriverError::Submit(SubmitError::Busy)));
        };
        let bytes = &mut self.bytes[..len];
        let copied = region.read(0, bytes).and_then(|()| target.write(0, bytes));
        self.source.idle.push(region);
        copied.map_err(|error| MoverError::Destination(error.into()))?;
        let command = Write::new(self.namespace, start, blocks).encode();
        let buffer = Buffer::new(target, 0..len);
        self.destination.send(&command, Some(buffer), tag, now).map_err(MoverError::Destination)?;
        self.pieces[place] = Some(piece);
        Ok(())
    }

    fn write_ended(&mut self, completed: Completed<Tag>) -> Result<(), MoverError> {
        let Completed { entry, tag, buffer, .. } = completed;
        if let Some(buffer) = buffer {
            self.destination.idle.push(buffer.into_region());
        }
        let failed = |what| Err(MoverError::Destination(DriverError::Io(what, entry.status())));
        let success = entry.status().is_success();
        match tag {
            Tag::Flush => {
                self.flush = if success { FlushState::Done } else { FlushState::Idle };
                if success { Ok(()) } else { failed("Flush") }
            }
            Tag::Piece(place) => {
                let piece = self.pieces.get_mut(place).and_then(Option::take);
                if !success {
                    return failed("Write");
                }
                if let Some(piece) = piece {
                    self.progress.blocks += piece.blocks;
                    self.progress.bytes += piece.blocks << self.block_shift;
                }
                Ok(())
            }
        }
    }

    /// Begins pieces as long as there is room and the next one overlaps none under way.
    fn begin(&mut self, now: Instant) -> Result<(), MoverError> {
        while let Some(extent) = self.waiting.front().copied() {
            let Some(place) = self.pieces.iter().position(Option::is_none) else { break };
            let limit = match extent.kind {
                ExtentKind::Copy => self.blocks_per_piece,
                ExtentKind::Zeroes => self.blocks_per_zeroes,
            };
            let (start, blocks) = (extent.start.get(), extent.blocks.min(limit));
            if self.overlaps(start, blocks) {
                break;
            }
            let tag = Tag::Piece(place);
            let (lba, count) = (extent.start, blocks as u32);
            match extent.kind {
                ExtentKind::Copy => {
                    let Some(region) = self.source.idle.pop() else { break };
                    let buffer = Buffer::new(region, 0..(blocks << self.block_shift) as usize);
                    let command = Read::new(self.namespace, lba, count).encode();
                    self.source.send(&command, Some(buffer), tag, now).map_err(MoverError::Source)?;
                }
                ExtentKind::Zeroes => {
                    let command =
                        WriteZeroes { deallocate: true, ..WriteZeroes::new(self.namespace, lba, count) };
                    self.destination
                        .send(&command.encode(), None, tag, now)
                        .map_err(MoverError::Destination)?;
                }
            }
            self.pieces[place] = Some(Piece { start, blocks });
            match self.waiting.front_mut() {
                Some(front) if front.blocks > blocks => {
                    front.start = Lba::new(start + blocks);
                    front.blocks -= blocks;
                }
                _ => {
                    self.waiting.pop_front();
                }
            }
        }
        self.source.pair.ring().map_err(|fault| MoverError::Source(fault.into()))?;
        self.destination.pair.ring().map_err(|fault| MoverError::Destination(fault.into()))
    }

    fn advance(&mut self, now: Instant) -> Result<(), MoverError> {
        self.collect(now)?;
        self.begin(now)
    }
}

impl<R: RegisterIo<Error = AccessError>> DataMover for Mover<'_, '_, R> {
    type Error = MoverError;

    fn start(&mut self, extent: Extent) -> Result<bool, MoverError> {
        self.check()?;
        if extent.namespace != self.namespace {
            return self.fail(MoverError::Namespace(extent.namespace));
        }
        if self.waiting.len() >= WAITING {
            return Ok(false);
        }
        if extent.blocks > 0 {
            self.waiting.push_back(extent);
        }
        Ok(true)
    }

    fn poll(&mut self, now: Instant) -> Result<MoverProgress, MoverError> {
        self.check()?;
        match self.advance(now) {
            Ok(()) => {
                self.progress.in_flight = self.waiting.len() as u64 + self.under_way();
                Ok(self.progress)
            }
            Err(error) => self.fail(error),
        }
    }

    fn flush(&mut self, now: Instant) -> Result<bool, MoverError> {
        self.check()?;
        let sent = match self.flush {
            FlushState::Idle => {
                self.flush = FlushState::Sent;
                let command = Flush { namespace: self.namespace }.encode();
                self.destination.send(&command, None, Tag::Flush, now).map_err(MoverError::Destination)
            }
            FlushState::Sent | FlushState::Done => Ok(()),
        };
        match sent.and_then(|()| self.advance(now)) {
            Ok(()) if self.flush == FlushState::Done => {
                self.flush = FlushState::Idle;
                Ok(true)
            }
            Ok(()) => Ok(false),
            Err(error) => self.fail(error),
        }
    }

    fn cancel(&mut self, now: Instant) -> bool {
        self.waiting.clear();
        let collected = self.collect(now);
        self.waiting.clear();
        // What was read last is on its way to the destination and ends there.
        let _ = self.destination.pair.ring();
        // A side that has failed, or a command without an answer, ends nothing any more; the memory comes back when the
        // controller is disabled. After any other error the rest still ends.
        let is_dead = |error: MoverError| match error {
            MoverError::Source(error) | MoverError::Destination(error) => {
                matches!(error, DriverError::Fault(_) | DriverError::TimedOut(_))
            }
            MoverError::Namespace(_) => false,
        };
        // Whatever failed first, a time-out that comes later is told only once.
        self.dead |= [self.failed, collected.err()].into_iter().flatten().any(is_dead);
        self.dead || (self.under_way() == 0 && self.flush != FlushState::Sent)
    }
}

#[cfg(test)]
mod tests;

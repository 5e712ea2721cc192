// SPDX-License-Identifier: MIT OR Apache-2.0
//! Blocks from one side to the other through an I/O queue pair of each managing controller.

use std::collections::VecDeque;
use std::time::Duration;

use nvme_core::dma::{Direction, DmaArena, DmaRegion, Pool, give_back};
use nvme_core::io::{Buffer, Completed};
use nvme_core::migration::{DataMover, Extent, ExtentKind, MoverProgress};
use nvme_core::time::Instant;
use nvme_core::wire::nvm::{Flush, Read, Write, WriteZeroes};
use nvme_core::wire::{Command, Lba, NamespaceId, SubmissionQueueEntry};
use nvme_host_linux::backend::Confined;
use nvme_host_linux::memory::AddressSpace;

use super::disk::BLOCK;
use super::driver::{Pair, collect};

/// Blocks in one piece, at most.
pub(super) const PIECE: u64 = 16;
/// Pieces under way at once.
pub(super) const PIECES: usize = 6;
/// Extents accepted and not begun, at most.
const WAITING: usize = 8;

/// Why blocks could not be moved.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MoverError {
    /// Whether it went wrong at the source.
    pub source: bool,
    /// In what.
    pub what: &'static str,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Tag {
    Piece(usize),
    Flush,
}

#[derive(Clone, Copy, Debug)]
struct Piece {
    start: u64,
    blocks: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum FlushState {
    Idle,
    Sent,
    Done,
}

/// What the mover keeps from one poll to the next.
#[derive(Debug)]
pub(super) struct MoverState {
    waiting: VecDeque<Extent>,
    pieces: [Option<Piece>; PIECES],
    /// Buffers of no command, at the source and at the destination.
    idle: [Vec<DmaRegion>; 2],
    progress: MoverProgress,
    flush: FlushState,
    failed: Option<MoverError>,
    /// A command will never end, or a side is gone.
    dead: bool,
    timeout: Duration,
}

impl MoverState {
    pub(super) fn new(arenas: [&AddressSpace; 2], timeout: Duration) -> Self {
        let buffers = |arena: &AddressSpace, direction| {
            let bytes = PIECE as usize * BLOCK;
            let buffer = |_| arena.allocate_scattered(Pool::Data, bytes, direction).expect("memory");
            (0..PIECES).map(buffer).collect()
        };
        let [source, destination] = arenas;
        Self {
            waiting: VecDeque::new(),
            pieces: [None; PIECES],
            idle: [buffers(source, Direction::FromDevice), buffers(destination, Direction::ToDevice)],
            progress: MoverProgress::default(),
            flush: FlushState::Idle,
            failed: None,
            dead: false,
            timeout,
        }
    }

    /// Takes the buffer of a command that has ended.
    fn take_back(&mut self, side: usize, buffer: Option<Buffer>) {
        self.idle[side].extend(buffer.map(Buffer::into_region));
    }

    /// A reset ended this command: its piece was not moved.
    pub(super) fn lost(&mut self, side: usize, tag: Tag, buffer: Option<Buffer>) {
        self.take_back(side, buffer);
        match tag {
            Tag::Piece(place) => self.pieces[place] = None,
            Tag::Flush => self.flush = FlushState::Idle,
        }
        self.failed.get_or_insert(MoverError { source: side == 0, what: "reset" });
    }

    /// Gives all buffers back; none is with a controller any more.
    pub(super) fn release(self, arenas: [&AddressSpace; 2]) {
        for (arena, idle) in arenas.into_iter().zip(self.idle) {
            idle.into_iter().for_each(|region| give_back(arena, region));
        }
    }
}

/// The mover for one poll: its state and the pairs as they are now, none while a controller is being reset.
pub(super) struct Mover<'m, 'd, R> {
    pub(super) state: &'m mut MoverState,
    pub(super) source: Option<&'m mut Pair<'d, R, Tag>>,
    pub(super) destination: Option<&'m mut Pair<'d, R, Tag>>,
    pub(super) namespace: NamespaceId,
}

const fn at_source(what: &'static str) -> MoverError {
    MoverError { source: true, what }
}

const fn at_destination(what: &'static str) -> MoverError {
    MoverError { source: false, what }
}

impl<R: Confined> Mover<'_, '_, R> {
    fn fail<T>(&mut self, error: MoverError) -> Result<T, MoverError> {
        Err(*self.state.failed.get_or_insert(error))
    }

    fn check(&self) -> Result<(), MoverError> {
        self.state.failed.map_or(Ok(()), Err)
    }

    fn under_way(&self) -> u64 {
        self.state.pieces.iter().flatten().count() as u64
    }

    fn send(
        &mut self,
        side: usize,
        entry: &SubmissionQueueEntry,
        buffer: Option<Buffer>,
        tag: Tag,
        now: Instant,
    ) -> Result<(), MoverError> {
        let (pair, error) = match side {
            0 => (&mut self.source, at_source("submission")),
            _ => (&mut self.destination, at_destination("submission")),
        };
        let Some(pair) = pair else {
            self.state.take_back(side, buffer);
            return Err(error);
        };
        match pair.submit(entry, buffer, tag, Some(now.after(self.state.timeout))) {
            Ok(_) => pair.ring().map_err(|_| error),
            Err(rejected) => {
                self.state.take_back(side, rejected.buffer);
                Err(error)
            }
        }
    }

    /// Takes completions of both sides; after an error the rest is taken all the same.
    fn collect(&mut self, now: Instant) -> Result<(), MoverError> {
        let mut result = Ok(());
        if let Some(pair) = &mut self.source {
            let (taken, fault) = collect(pair, u32::MAX);
            let late = pair.expire(now).is_some();
            for completed in taken {
                result = result.and(self.read_ended(completed, now));
            }
            result = result.and(fault.map_err(|_| at_source("fault")));
            result = result.and(if late { Err(at_source("time-out")) } else { Ok(()) });
        }
        if let Some(pair) = &mut self.destination {
            let (taken, fault) = collect(pair, u32::MAX);
            let late = pair.expire(now).is_some();
            for completed in taken {
                result = result.and(self.write_ended(completed));
            }
            result = result.and(fault.map_err(|_| at_destination("fault")));
            result = result.and(if late { Err(at_destination("time-out")) } else { Ok(()) });
        }
        result
    }

    fn read_ended(&mut self, completed: Completed<Tag>, now: Instant) -> Result<(), MoverError> {
        let Completed { entry, tag, buffer, .. } = completed;
        let Tag::Piece(place) = tag else { return Err(at_source("tag")) };
        let piece = self.state.pieces[place].take().ok_or(at_source("piece"))?;
        let region = buffer.map(Buffer::into_region).ok_or(at_source("buffer"))?;
        if !entry.status().is_success() {
            self.state.idle[0].push(region);
            return Err(at_source("Read"));
        }
        let Some(target) = self.state.idle[1].pop() else {
            self.state.idle[0].push(region);
            return Err(at_destination("buffer"));
        };
        let len = piece.blocks as usize * BLOCK;
        let mut bytes = vec![0; len];
        let copied = region.read(0, &mut bytes).and_then(|()| target.write(0, &bytes));
        self.state.idle[0].push(region);
        copied.expect("the piece fits into its buffer");
        let command = Write::new(self.namespace, Lba::new(piece.start), piece.blocks as u32).encode();
        self.send(1, &command, Some(Buffer::new(target, 0..len)), tag, now)?;
        self.state.pieces[place] = Some(piece);
        Ok(())
    }

    fn write_ended(&mut self, completed: Completed<Tag>) -> Result<(), MoverError> {
        let Completed { entry, tag, buffer, .. } = completed;
        self.state.take_back(1, buffer);
        let success = entry.status().is_success();
        match tag {
            Tag::Flush => {
                self.state.flush = if success { FlushState::Done } else { FlushState::Idle };
            }
            Tag::Piece(place) => {
                if let Some(piece) = self.state.pieces[place].take().filter(|_| success) {
                    self.state.progress.blocks += piece.blocks;
                    self.state.progress.bytes += piece.blocks * BLOCK as u64;
                }
            }
        }
        if success { Ok(()) } else { Err(at_destination("Write")) }
    }

    /// Begins pieces as long as there is room and the next one overlaps none under way.
    fn begin(&mut self, now: Instant) -> Result<(), MoverError> {
        while let Some(extent) = self.state.waiting.front().copied() {
            let Some(place) = self.state.pieces.iter().position(Option::is_none) else { break };
            let (start, blocks) = (extent.start.get(), extent.blocks.min(PIECE));
            let overlaps = |piece: &Piece| start < piece.start + piece.blocks && piece.start < start + blocks;
            if self.state.pieces.iter().flatten().any(overlaps) {
                break;
            }
            let tag = Tag::Piece(place);
            match extent.kind {
                ExtentKind::Copy => {
                    let Some(region) = self.state.idle[0].pop() else { break };
                    let buffer = Buffer::new(region, 0..blocks as usize * BLOCK);
                    let command = Read::new(self.namespace, extent.start, blocks as u32).encode();
                    self.send(0, &command, Some(buffer), tag, now)?;
                }
                ExtentKind::Zeroes => {
                    let zeroes = WriteZeroes::new(self.namespace, extent.start, blocks as u32);
                    let command = WriteZeroes { deallocate: true, ..zeroes };
                    self.send(1, &command.encode(), None, tag, now)?;
                }
            }
            self.state.pieces[place] = Some(Piece { start, blocks });
            match self.state.waiting.front_mut() {
                Some(front) if front.blocks > blocks => {
                    front.start = Lba::new(start + blocks);
                    front.blocks -= blocks;
                }
                _ => {
                    self.state.waiting.pop_front();
                }
            }
        }
        Ok(())
    }

    fn advance(&mut self, now: Instant) -> Result<(), MoverError> {
        if self.source.is_none() {
            return Err(at_source("reset"));
        }
        if self.destination.is_none() {
            return Err(at_destination("reset"));
        }
        self.collect(now)?;
        self.begin(now)
    }
}

impl<R: Confined> DataMover for Mover<'_, '_, R> {
    type Error = MoverError;

    fn start(&mut self, extent: Extent) -> Result<bool, MoverError> {
        self.check()?;
        if extent.namespace != self.namespace {
            return self.fail(at_source("namespace"));
        }
        if self.state.waiting.len() >= WAITING {
            return Ok(false);
        }
        if extent.blocks > 0 {
            self.state.waiting.push_back(extent);
        }
        Ok(true)
    }

    fn poll(&mut self, now: Instant) -> Result<MoverProgress, MoverError> {
        self.check()?;
        match self.advance(now) {
            Ok(()) => {
                self.state.progress.in_flight = self.state.waiting.len() as u64 + self.under_way();
                Ok(self.state.progress)
            }
            Err(error) => self.fail(error),
        }
    }

    fn flush(&mut self, now: Instant) -> Result<bool, MoverError> {
        self.check()?;
        let sent = match self.state.flush {
            FlushState::Idle => {
                self.state.flush = FlushState::Sent;
                let command = Flush { namespace: self.namespace }.encode();
                self.send(1, &command, None, Tag::Flush, now)
            }
            FlushState::Sent | FlushState::Done => Ok(()),
        };
        match sent.and_then(|()| self.advance(now)) {
            Ok(()) if self.state.flush == FlushState::Done => {
                self.state.flush = FlushState::Idle;
                Ok(true)
            }
            Ok(()) => Ok(false),
            Err(error) => self.fail(error),
        }
    }

    fn cancel(&mut self, now: Instant) -> bool {
        self.state.waiting.clear();
        let collected = self.collect(now);
        // A side that is gone, or a command without an answer, ends nothing any more: a reset gives the memory back.
        let dead = |error: MoverError| matches!(error.what, "reset" | "fault" | "time-out" | "submission");
        self.state.dead |= [self.state.failed, collected.err()].into_iter().flatten().any(dead);
        self.state.dead || (self.under_way() == 0 && self.state.flush != FlushState::Sent)
    }
}

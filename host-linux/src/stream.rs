// SPDX-License-Identifier: MIT OR Apache-2.0
//! Blocks of any number between a namespace and the host, in order, with many commands in flight on the queue pairs of a
//! session.

use std::collections::BTreeMap;
use std::io;
use std::time::Duration;

use nvme_core::controller::Fault;
use nvme_core::dma::{Direction, DmaArena, DmaError, DmaRegion, Pool, give_back};
use nvme_core::io::Buffer;
use nvme_core::time::Instant;
use nvme_core::wire::nvm::{Compare, Read, Write};
use nvme_core::wire::{Command, Lba, NamespaceId, Status, SubmissionQueueEntry};

use crate::blocks::BlockRange;
use crate::driver::DriverError;
use crate::memory::AddressSpace;
use crate::session::{Pair, Session};

/// Blocks of one command at most (NLB).
const MAX_BLOCKS: usize = 1 << 16;

/// What happens to the blocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Read,
    Write,
    Compare,
}

impl Kind {
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Read => "Read",
            Self::Write => "Write",
            Self::Compare => "Compare",
        }
    }
}

/// Which blocks, and how.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Plan {
    pub(crate) kind: Kind,
    pub(crate) namespace: NamespaceId,
    pub(crate) range: BlockRange,
    pub(crate) block_bytes: usize,
    /// Force Unit Access.
    pub(crate) force_unit_access: bool,
    /// Bytes of one command at most.
    pub(crate) command_bytes: usize,
    /// Bytes of memory for all commands in flight at most.
    pub(crate) memory_bytes: usize,
}

/// The host's end of the data.
pub(crate) trait HostData {
    /// The next bytes for the controller.
    fn fill(&mut self, bytes: &mut [u8]) -> io::Result<()>;

    /// The next bytes from the controller.
    fn take(&mut self, bytes: &[u8]) -> io::Result<()>;

    /// Whether to go on; `bytes` have been transferred.
    fn goes_on(&mut self, bytes: u64) -> bool;
}

/// Why not all blocks were transferred.
#[derive(Debug)]
pub(crate) enum StreamError {
    /// The controller cannot be driven.
    Driver(DriverError),
    /// One block is longer than what a command may transfer, these bytes.
    BlockTooLong(usize),
    /// Of the commands that did not succeed the one with the lowest blocks.
    Status(BlockRange, Status),
    /// Of the commands that did not complete in time the one with the lowest blocks.
    TimedOut(BlockRange),
    /// The host's end failed.
    Host(io::Error),
    /// The host did not want to go on.
    Stopped,
}

impl From<DriverError> for StreamError {
    fn from(error: DriverError) -> Self {
        Self::Driver(error)
    }
}

impl From<Fault> for StreamError {
    fn from(fault: Fault) -> Self {
        Self::Driver(fault.into())
    }
}

impl From<DmaError> for StreamError {
    fn from(error: DmaError) -> Self {
        Self::Driver(error.into())
    }
}

/// The state of a transfer.
struct Stream<'a, 'd> {
    plan: &'a Plan,
    space: &'d AddressSpace,
    /// Blocks of one command.
    piece: u64,
    pieces: u64,
    /// The next command to send, and the next one whose data the host gets.
    next: u64,
    delivered: u64,
    in_flight: usize,
    free: Vec<DmaRegion>,
    /// Data that have come before their turn.
    arrived: BTreeMap<u64, DmaRegion>,
    scratch: Vec<u8>,
    problem: Option<StreamError>,
    timeout: Duration,
}

impl Stream<'_, '_> {
    fn range(&self, piece: u64) -> BlockRange {
        let before = piece.saturating_mul(self.piece);
        let blocks = self.plan.range.blocks.saturating_sub(before).min(self.piece);
        BlockRange { start: self.plan.range.start.saturating_add(before), blocks }
    }

    fn bytes(&self, piece: u64) -> usize {
        self.range(piece).blocks as usize * self.plan.block_bytes
    }

    fn entry(&self, piece: u64) -> SubmissionQueueEntry {
        let Plan { kind, namespace, force_unit_access, .. } = *self.plan;
        let range = self.range(piece);
        let (start, blocks) = (Lba::new(range.start), u32::try_from(range.blocks).unwrap_or(u32::MAX));
        match kind {
            Kind::Read => Read { force_unit_access, ..Read::new(namespace, start, blocks) }.encode(),
            Kind::Write => Write { force_unit_access, ..Write::new(namespace, start, blocks) }.encode(),
            Kind::Compare => Compare { force_unit_access, ..Compare::new(namespace, start, blocks) }.encode(),
        }
    }

    /// Keeps the problem with the lowest blocks.
    fn note(&mut self, problem: StreamError) {
        let start = |problem: &StreamError| match problem {
            StreamError::Status(range, _) | StreamError::TimedOut(range) => Some(range.start),
            _ => None,
        };
        match &self.problem {
            Some(known) if start(known).is_none() || start(known) <= start(&problem) => {}
            _ => self.problem = Some(problem),
        }
    }

    /// Sends commands as long as there are queue entries and memory for them.
    fn send(
        &mut self,
        pairs: &mut [Pair<'_>],
        now: Instant,
        host: &mut dyn HostData,
    ) -> Result<(), StreamError> {
        while self.problem.is_none() && self.next < self.pieces {
            let pair = pairs.iter_mut().filter(|pair| pair.free() > 0).min_by_key(|pair| pair.outstanding());
            let Some(pair) = pair else { break };
            let Some(region) = self.free.pop() else { break };
            let (piece, len) = (self.next, self.bytes(self.next));
            if self.plan.kind != Kind::Read {
                let bytes = self.scratch.get_mut(..len).unwrap_or_default();
                if let Err(error) = host.fill(bytes) {
                    self.free.push(region);
                    self.problem = Some(StreamError::Host(error));
                    break;
                }
                region.write(0, bytes).map_err(DriverError::from)?;
            }
            let deadline = now.after(self.timeout);
            let buffer = Buffer::new(region, 0..len);
            if let Err(rejected) = pair.submit(&self.entry(piece), Some(buffer), piece, Some(deadline)) {
                self.free.extend(rejected.buffer.map(Buffer::into_region));
                return Err(DriverError::Submit(rejected.error).into());
            }
            self.next += 1;
            self.in_flight += 1;
        }
        pairs.iter_mut().try_for_each(Pair::ring).map_err(StreamError::from)
    }

    /// Takes completions; `false` if there were none.
    fn take(&mut self, pairs: &mut [Pair<'_>], now: Instant) -> Result<bool, StreamError> {
        let mut some = false;
        for pair in pairs {
            while let Some(completed) = pair.poll()? {
                some = true;
                self.in_flight -= 1;
                let (status, piece) = (completed.entry.status(), completed.tag);
                let region = completed.buffer.map(Buffer::into_region);
                if !status.is_success() {
                    self.free.extend(region);
                    self.note(StreamError::Status(self.range(piece), status));
                } else if let Some(region) = region {
                    self.arrived.insert(piece, region);
                }
            }
            pair.acknowledge()?;
            while let Some((_, piece)) = pair.expire(now) {
                let range = self.range(*piece);
                self.note(StreamError::TimedOut(range));
            }
        }
        Ok(some)
    }

    /// Hands over what has come, in order.
    fn deliver(&mut self, host: &mut dyn HostData) -> Result<(), StreamError> {
        while let Some(region) = self.arrived.remove(&self.delivered) {
            if self.plan.kind == Kind::Read && self.problem.is_none() {
                let len = self.bytes(self.delivered);
                let bytes = self.scratch.get_mut(..len).unwrap_or_default();
                region.read(0, bytes).map_err(DriverError::from)?;
                if let Err(error) = host.take(bytes) {
                    self.problem = Some(StreamError::Host(error));
                }
            }
            self.free.push(region);
            self.delivered += 1;
        }
        let blocks = self.delivered.saturating_mul(self.piece).min(self.plan.range.blocks);
        if !host.goes_on(blocks * self.plan.block_bytes as u64) && self.problem.is_none() {
            self.problem = Some(StreamError::Stopped);
        }
        Ok(())
    }
}

/// Transfers all blocks of `plan` over the queue pairs that `session` has. After the first problem nothing more is sent,
/// and what is in flight is waited for.
pub(crate) fn run(
    session: &mut Session<'_>,
    plan: &Plan,
    host: &mut dyn HostData,
) -> Result<(), StreamError> {
    let longest = session.max_transfer().min(plan.command_bytes.max(plan.block_bytes));
    let piece = (longest / plan.block_bytes.max(1)).min(MAX_BLOCKS);
    if piece == 0 {
        return Err(StreamError::BlockTooLong(longest));
    }
    let piece_bytes = piece * plan.block_bytes;
    let space = session.space();
    let piece = piece as u64;
    let pieces = plan.range.blocks.div_ceil(piece);
    let slots: usize = session.pairs().iter().map(Pair::free).sum();
    let window = slots.min((plan.memory_bytes / piece_bytes).max(1));
    let window = usize::try_from(pieces).map_or(window, |pieces| window.min(pieces));
    let direction = if plan.kind == Kind::Read { Direction::FromDevice } else { Direction::ToDevice };
    let mut stream = Stream {
        plan,
        space,
        piece,
        pieces,
        next: 0,
        delivered: 0,
        in_flight: 0,
        free: Vec::new(),
        arrived: BTreeMap::new(),
        scratch: vec![0; piece_bytes],
        problem: None,
        timeout: session.timeout(),
    };
    for _ in 0..window {
        stream.free.push(space.allocate_scattered(Pool::Data, piece_bytes, direction)?);
    }
    let result = carry_out(session, &mut stream, host);
    // Memory of commands that did not complete is the queue pairs'.
    for region in stream.free.drain(..).chain(std::mem::take(&mut stream.arrived).into_values()) {
        give_back(stream.space, region);
    }
    result.and(stream.problem.map_or(Ok(()), Err))
}

fn carry_out(
    session: &mut Session<'_>,
    stream: &mut Stream<'_, '_>,
    host: &mut dyn HostData,
) -> Result<(), StreamError> {
    loop {
        let now = session.now();
        stream.send(session.pairs(), now, host)?;
        if stream.in_flight == 0 && (stream.next == stream.pieces || stream.problem.is_some()) {
            return Ok(());
        }
        session.controller().poll(now)?;
        let some = stream.take(session.pairs(), now)?;
        stream.deliver(host)?;
        if matches!(stream.problem, Some(StreamError::TimedOut(_))) {
            return Ok(());
        }
        if !some {
            session.nap();
        }
    }
}

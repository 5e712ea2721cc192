// SPDX-License-Identifier: MIT OR Apache-2.0
//! Comparison of both sides while nothing runs, by reading every block at both managing controllers.

use std::time::Duration;

use nvme_core::dma::{Direction, DmaArena, DmaRegion, Pool};
use nvme_core::io::Buffer;
use nvme_core::wire::nvm::Read;
use nvme_core::wire::{Command, Lba, NamespaceId};

use super::transfer::Pair;
use crate::driver::{Clock, DriverError};
use crate::memory::AddressSpace;
use crate::mover::{MoverError, PIECE_BYTES, Tag};
use crate::report::ComparisonReport;

/// Pieces that are read at once, on each side.
pub(super) const PIECES: usize = 8;

/// One side: a queue pair of its own, and a buffer for each piece.
struct Side<'d, 's> {
    pair: Pair<'d, 's>,
    idle: Vec<DmaRegion>,
}

/// Compares one namespace.
pub(super) struct Comparer<'d, 's> {
    sides: [Side<'d, 's>; 2],
    namespace: NamespaceId,
    blocks: u64,
    block_bytes: usize,
    bytes: usize,
    timeout: Duration,
}

/// An error on one of the sides, the source first.
fn on(side: usize, error: impl Into<DriverError>) -> MoverError {
    if side == 0 { MoverError::Source(error.into()) } else { MoverError::Destination(error.into()) }
}

impl<'d, 's> Comparer<'d, 's> {
    /// A comparer of `blocks` blocks of `block_bytes` bytes, with a queue pair and the memory of each managing controller,
    /// the source's first.
    ///
    /// # Errors
    /// A block is longer than one command moves, or there is no memory.
    pub(super) fn new(
        pairs: [(Pair<'d, 's>, &AddressSpace); 2],
        namespace: NamespaceId,
        (blocks, block_bytes): (u64, u32),
        timeout: Duration,
    ) -> Result<Self, DriverError> {
        let bytes = pairs.iter().map(|(pair, _)| pair.max_transfer()).fold(PIECE_BYTES, usize::min);
        if bytes < block_bytes as usize {
            return Err(DriverError::BlockTooLong { block: block_bytes, limit: bytes });
        }
        let [source, destination] = pairs.map(|(pair, arena)| {
            let buffer = |_| arena.allocate_scattered(Pool::Data, bytes, Direction::FromDevice);
            Ok::<_, DriverError>(Side { pair, idle: (0..PIECES).map(buffer).collect::<Result<_, _>>()? })
        });
        let sides = [source?, destination?];
        Ok(Self { sides, namespace, blocks, block_bytes: block_bytes as usize, bytes, timeout })
    }

    /// The queue pairs with their buffers, to be taken down.
    pub(super) fn into_parts(self) -> [(Pair<'d, 's>, Vec<DmaRegion>); 2] {
        self.sides.map(|side| (side.pair, side.idle))
    }

    /// Reads everything on both sides and says what differs; `None` once `is_interrupted`. Takes as long as that takes; each
    /// command is given up after the time-out.
    pub(super) fn run(
        &mut self,
        clock: Clock<'_>,
        is_interrupted: &dyn Fn() -> bool,
    ) -> Result<Option<ComparisonReport>, MoverError> {
        let mut report = ComparisonReport { blocks: self.blocks, ..ComparisonReport::default() };
        let most = (self.bytes / self.block_bytes) as u64;
        let mut content = [vec![0; self.bytes * PIECES], vec![0; self.bytes * PIECES]];
        let mut start = 0;
        while start < self.blocks {
            if is_interrupted() {
                return Ok(None);
            }
            let window = (most * PIECES as u64).min(self.blocks - start);
            let piece = |at: usize| {
                let from = at as u64 * most;
                (from < window).then(|| (start + from, most.min(window - from) as u32))
            };
            for (number, side) in self.sides.iter_mut().enumerate() {
                let deadline = clock.now().after(self.timeout);
                for at in 0..PIECES {
                    let (Some((lba, blocks)), Some(region)) = (piece(at), side.idle.pop()) else { break };
                    let command = Read::new(self.namespace, Lba::new(lba), blocks).encode();
                    let buffer = Buffer::new(region, 0..blocks as usize * self.block_bytes);
                    if let Err(rejected) =
                        side.pair.submit(&command, Some(buffer), Tag::Piece(at), Some(deadline))
                    {
                        side.idle.extend(rejected.buffer.map(Buffer::into_region));
                        return Err(on(number, DriverError::Submit(rejected.error)));
                    }
                }
                side.pair.ring().map_err(|fault| on(number, fault))?;
            }
            for (number, (side, content)) in self.sides.iter_mut().zip(&mut content).enumerate() {
                collect(side, content, self.bytes, clock).map_err(|error| on(number, error))?;
            }
            let [one, other] = &content;
            for at in 0..PIECES {
                let Some((lba, blocks)) = piece(at) else { break };
                let from = at * self.bytes;
                let part = |bytes: &[u8]| bytes[from..from + blocks as usize * self.block_bytes].to_vec();
                let (one, other) = (part(one), part(other));
                let pairs = one.chunks(self.block_bytes).zip(other.chunks(self.block_bytes));
                for (block, (one, other)) in (lba..).zip(pairs) {
                    if one == other {
                        report.equal += 1;
                    } else {
                        report.wrong += 1;
                        report.first_wrong.get_or_insert(block);
                    }
                }
            }
            start += window;
        }
        Ok(Some(report))
    }
}

/// Waits for everything that a side reads, and copies it out.
fn collect(
    side: &mut Side<'_, '_>,
    content: &mut [u8],
    bytes: usize,
    clock: Clock<'_>,
) -> Result<(), DriverError> {
    let mut failed = None;
    while side.pair.unfinished().next().is_some() {
        let Some(completed) = side.pair.poll()? else {
            if side.pair.expire(clock.now()).is_some() {
                return Err(DriverError::TimedOut("Read"));
            }
            std::thread::yield_now();
            continue;
        };
        side.pair.acknowledge()?;
        let status = completed.entry.status();
        let (Tag::Piece(at), Some(buffer)) = (completed.tag, completed.buffer) else { continue };
        let len = buffer.range().len();
        let region = buffer.into_region();
        if status.is_success() {
            region.read(0, &mut content[at * bytes..at * bytes + len])?;
        } else {
            failed = Some(DriverError::Io("Read", status));
        }
        side.idle.push(region);
    }
    failed.map_or(Ok(()), Err)
}

// SPDX-License-Identifier: MIT OR Apache-2.0
//! The host's half of a completion queue. NVMe Base 2.1 §3.3.1.2, Memory-based Transport Queue Model.

use crate::dma::{DmaArena, DmaError, DmaRegion};
use crate::register::{Offset, RegisterIo};
use crate::ring::PhaseConsumer;
use crate::wire::CompletionQueueEntry;

/// Bytes of one entry.
const ENTRY: usize = size_of::<CompletionQueueEntry>();
/// The phase tag's bit in dword 3 of an entry.
const PHASE: u32 = 1 << 16;

/// A completion queue in device memory.
#[derive(Debug)]
pub struct CompletionRing {
    memory: DmaRegion,
    consumer: PhaseConsumer,
    /// The head as the controller was last told.
    rung: u32,
    doorbell: Offset,
}

impl CompletionRing {
    /// An empty queue of `size` entries in `memory`, which is zeroed here so that every phase tag is 0.
    ///
    /// # Errors
    /// [`DmaError::OutOfRange`] if the memory is too small for them or `size` is below two.
    pub fn new<A: DmaArena + ?Sized>(
        memory: DmaRegion,
        size: u32,
        doorbell: Offset,
        arena: &A,
    ) -> Result<Self, (DmaError, DmaRegion)> {
        let len = (size as usize).saturating_mul(ENTRY);
        if size < 2 || len > memory.len() {
            return Err((DmaError::OutOfRange { offset: 0, len, region: memory.len() }, memory));
        }
        if let Err(error) = memory.zero(0..len) {
            return Err((error, memory));
        }
        arena.publish(&memory, 0..len);
        Ok(Self { memory, consumer: PhaseConsumer::new(size), rung: 0, doorbell })
    }

    /// Number of slots.
    #[must_use]
    pub const fn size(&self) -> u32 {
        self.consumer.size()
    }

    /// The memory of the queue.
    #[must_use]
    pub const fn memory(&self) -> &DmaRegion {
        &self.memory
    }

    /// Takes the next new entry. Its slot stays the host's until [`ring`](Self::ring).
    ///
    /// Never more than [`size`](Self::size) entries without a `ring` from a controller that keeps the rules; one that
    /// does not can go on for ever, so callers check each entry against what is outstanding.
    #[inline]
    pub fn pop<A: DmaArena + ?Sized>(&mut self, arena: &A) -> Option<CompletionQueueEntry> {
        let at = (self.consumer.head() as usize).wrapping_mul(ENTRY);
        let end = at.wrapping_add(ENTRY);
        arena.acquire(&self.memory, end.wrapping_sub(4)..end);
        let is_new = |last: u32| {
            let new = self.consumer.is_new(last & PHASE != 0);
            if new {
                // What was written before the tag is visible only from here on: an arena may have copied the entry, or
                // a cache fetched it, before the tag came.
                arena.acquire(&self.memory, at..end);
            }
            new
        };
        let words: [u32; 4] = self.memory.read_entry(at, is_new).ok().flatten()?;
        self.consumer.advance();
        Some(zerocopy::transmute!(words))
    }

    /// Tells the controller that everything popped has been consumed, with one doorbell write; does nothing if
    /// nothing was.
    ///
    /// # Errors
    /// The error of the register access.
    #[inline]
    pub fn ring<R: RegisterIo + ?Sized>(&mut self, registers: &R) -> Result<(), R::Error> {
        let head = self.consumer.head();
        if head != self.rung {
            registers.write32(self.doorbell, head)?;
            self.rung = head;
        }
        Ok(())
    }

    /// Gives the memory up, which the device may still write.
    #[must_use]
    pub fn into_memory(self) -> DmaRegion {
        self.memory
    }
}

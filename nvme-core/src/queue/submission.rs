// SPDX-License-Identifier: MIT OR Apache-2.0
//! The host's half of a submission queue. NVMe Base 2.1 §3.3.1.2, Memory-based Transport Queue Model.

use core::fmt;

use crate::dma::{DmaArena, DmaError, DmaRegion};
use crate::register::{Offset, RegisterIo};
use crate::ring;
use crate::wire::SubmissionQueueEntry;

/// Bytes of one entry.
const ENTRY: usize = size_of::<SubmissionQueueEntry>();

/// No slot of the ring is free: the controller has not yet fetched enough entries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RingFull;

impl core::error::Error for RingFull {}

impl fmt::Display for RingFull {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the submission queue is full; take completions, then submit again")
    }
}

/// The controller reported a head that cannot be: outside the ring, backwards, or past what it was told of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BadHead(pub u16);

impl core::error::Error for BadHead {}

impl fmt::Display for BadHead {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "a completion reports submission queue head {}, which cannot be; reset the controller",
            self.0
        )
    }
}

/// A submission queue in device memory.
#[derive(Debug)]
pub struct SubmissionRing {
    memory: DmaRegion,
    size: u32,
    tail: u32,
    /// The head as the controller last reported it.
    head: u32,
    /// The tail as the controller was last told.
    rung: u32,
    doorbell: Offset,
}

impl SubmissionRing {
    /// An empty queue of `size` entries in `memory`.
    ///
    /// # Errors
    /// [`DmaError::OutOfRange`] if the memory is too small for them or `size` is below two.
    pub const fn new(memory: DmaRegion, size: u32, doorbell: Offset) -> Result<Self, (DmaError, DmaRegion)> {
        let len = (size as usize).saturating_mul(ENTRY);
        if size < 2 || len > memory.len() {
            return Err((DmaError::OutOfRange { offset: 0, len, region: memory.len() }, memory));
        }
        Ok(Self { memory, size, tail: 0, head: 0, rung: 0, doorbell })
    }

    /// Number of slots; one fewer entries fit.
    #[must_use]
    pub const fn size(&self) -> u32 {
        self.size
    }

    /// Entries that can be pushed now, by the head the controller last reported.
    #[inline]
    #[must_use]
    pub const fn free(&self) -> u32 {
        ring::free(self.head, self.tail, self.size)
    }

    /// Index of the slot that the next entry goes into.
    #[must_use]
    pub const fn tail(&self) -> u32 {
        self.tail
    }

    /// The memory of the queue.
    #[must_use]
    pub const fn memory(&self) -> &DmaRegion {
        &self.memory
    }

    /// Whether no further entry fits now.
    #[inline]
    #[must_use]
    pub const fn is_full(&self) -> bool {
        ring::is_full(self.head, self.tail, self.size)
    }

    /// Puts `entry` into the next slot. The controller learns of it from [`ring`](Self::ring).
    ///
    /// # Errors
    /// [`RingFull`].
    #[inline]
    pub fn push(&mut self, entry: &SubmissionQueueEntry) -> Result<(), RingFull> {
        if self.is_full() {
            return Err(RingFull);
        }
        self.put(entry)
    }

    /// As [`push`](Self::push) where the caller has seen that the ring [is not full](Self::is_full).
    #[inline]
    pub(crate) fn put(&mut self, entry: &SubmissionQueueEntry) -> Result<(), RingFull> {
        let words: [u64; 8] = zerocopy::transmute!(*entry);
        let offset = (self.tail as usize).wrapping_mul(ENTRY);
        self.memory.write_words(offset, &words).map_err(|_| RingFull)?;
        self.tail = ring::next(self.tail, self.size);
        Ok(())
    }

    /// Tells the controller of everything pushed since the last call, with one doorbell write; does nothing if
    /// there is nothing.
    ///
    /// # Errors
    /// The error of the register access.
    #[inline]
    pub fn ring<R: RegisterIo + ?Sized, A: DmaArena + ?Sized>(
        &mut self,
        registers: &R,
        arena: &A,
    ) -> Result<(), R::Error> {
        if self.rung == self.tail {
            return Ok(());
        }
        let (from, to) = ((self.rung as usize).wrapping_mul(ENTRY), (self.tail as usize).wrapping_mul(ENTRY));
        if from < to {
            arena.publish(&self.memory, from..to);
        } else {
            arena.publish(&self.memory, from..(self.size as usize).wrapping_mul(ENTRY));
            if to > 0 {
                arena.publish(&self.memory, 0..to);
            }
        }
        registers.write32(self.doorbell, self.tail)?;
        self.rung = self.tail;
        Ok(())
    }

    /// Takes the head that a completion reports (SQHD): the slots before it are free again.
    ///
    /// # Errors
    /// [`BadHead`]; nothing changes then.
    #[inline]
    pub fn set_head(&mut self, head: u16) -> Result<(), BadHead> {
        let reported = u32::from(head);
        // Mostly the controller has fetched everything it was told of.
        if reported != self.rung && !ring::head_may_become(self.head, reported, self.rung, self.size) {
            return Err(BadHead(head));
        }
        self.head = reported;
        Ok(())
    }

    /// Gives the memory up, which the device may still read.
    #[must_use]
    pub fn into_memory(self) -> DmaRegion {
        self.memory
    }
}

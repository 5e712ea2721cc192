// SPDX-License-Identifier: MIT OR Apache-2.0
//! Submission and completion queues as the controller keeps them. NVMe Base 2.1 §3.3.1, Memory-based Transport Queue
//! Model.

use nvme_core::ring::{self, PhaseProducer};

use crate::pages::QueueMemory;

/// log2 of the size of a submission queue entry.
pub(crate) const SUBMISSION_SHIFT: u8 = 6;
/// log2 of the size of a completion queue entry.
pub(crate) const COMPLETION_SHIFT: u8 = 4;

/// Room for one submission queue; slot `i` of the lent slice is the queue with identifier `i`.
#[derive(Clone, Copy, Debug, Default)]
pub struct SubmissionQueueSlot(pub(crate) Option<SubmissionQueue>);

/// Room for one completion queue; slot `i` of the lent slice is the queue with identifier `i`.
#[derive(Clone, Copy, Debug, Default)]
pub struct CompletionQueueSlot(pub(crate) Option<CompletionQueue>);

impl SubmissionQueueSlot {
    /// Room for a queue that does not exist yet.
    #[must_use]
    pub const fn new() -> Self {
        Self(None)
    }
}

impl CompletionQueueSlot {
    /// Room for a queue that does not exist yet.
    #[must_use]
    pub const fn new() -> Self {
        Self(None)
    }
}

/// A doorbell value that cannot be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct InvalidDoorbell;

#[derive(Clone, Copy, Debug)]
pub(crate) struct SubmissionQueue {
    pub(crate) memory: QueueMemory,
    pub(crate) size: u32,
    /// Next slot to fetch.
    pub(crate) head: u32,
    /// Last doorbell value.
    pub(crate) tail: u32,
    pub(crate) completion_queue: u16,
    /// QPRIO as it was given.
    pub(crate) priority: u8,
    /// An invalid doorbell value was written: nothing is fetched any more.
    pub(crate) broken: bool,
}

impl SubmissionQueue {
    pub(crate) const fn new(memory: QueueMemory, size: u32, completion_queue: u16, priority: u8) -> Self {
        Self { memory, size, head: 0, tail: 0, completion_queue, priority, broken: false }
    }

    /// Takes a tail doorbell.
    pub(crate) const fn set_tail(&mut self, tail: u32) -> Result<(), InvalidDoorbell> {
        let room = ring::free(self.head, self.tail, self.size);
        if tail >= self.size || ring::distance(self.tail, tail, self.size) > room {
            self.broken = true;
            return Err(InvalidDoorbell);
        }
        self.tail = tail;
        Ok(())
    }

    pub(crate) const fn pending(&self) -> u32 {
        if self.broken { 0 } else { ring::distance(self.head, self.tail, self.size) }
    }
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct CompletionQueue {
    pub(crate) memory: QueueMemory,
    pub(crate) ring: PhaseProducer,
    /// Slots promised to commands that were fetched.
    pub(crate) reserved: u32,
    pub(crate) interrupts_enabled: bool,
    pub(crate) vector: u16,
    /// Submission queues that post here.
    pub(crate) users: u16,
    pub(crate) broken: bool,
    /// Something was posted that the host has not been interrupted for.
    pub(crate) notify: bool,
}

impl CompletionQueue {
    pub(crate) const fn new(memory: QueueMemory, size: u32, vector: Option<u16>) -> Self {
        Self {
            memory,
            ring: PhaseProducer::new(size),
            reserved: 0,
            interrupts_enabled: vector.is_some(),
            vector: match vector {
                Some(vector) => vector,
                None => 0,
            },
            users: 0,
            broken: false,
            notify: false,
        }
    }

    /// Takes a head doorbell. A head that does not move is as invalid as one past the tail.
    pub(crate) const fn set_head(&mut self, head: u32) -> Result<(), InvalidDoorbell> {
        match self.ring.set_head(head) {
            Ok(freed) if freed > 0 => Ok(()),
            _ => {
                self.broken = true;
                Err(InvalidDoorbell)
            }
        }
    }

    /// Slots that are neither filled nor promised.
    pub(crate) const fn room(&self) -> u32 {
        if self.broken { 0 } else { self.ring.free().saturating_sub(self.reserved) }
    }

    /// Entries it holds at most.
    pub(crate) const fn capacity(&self) -> u32 {
        self.ring.size().saturating_sub(1)
    }

    pub(crate) const fn reserve(&mut self) {
        self.reserved = self.reserved.saturating_add(1);
    }

    pub(crate) const fn release(&mut self) {
        self.reserved = self.reserved.saturating_sub(1);
    }
}

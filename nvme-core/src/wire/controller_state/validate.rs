// SPDX-License-Identifier: MIT OR Apache-2.0
//! Checking every field of an image against the controller that is to take it.

use super::queues::{
    COMPLETION_RESERVED, RawCompletionQueueState, RawSubmissionQueueState, SUBMISSION_RESERVED,
};
use super::{
    CompletionQueueState, ControllerStateImage, NvmeControllerState, QueueKind, SUSPENDED, StateDialect,
    StateError, SubmissionQueueState,
};
use crate::wire::{BusAddr, QueueId};

/// What the controller that takes an image can do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StateLimits {
    /// I/O submission queues; their identifiers are 1 to this.
    pub submission_queues: u16,
    /// I/O completion queues; their identifiers are 1 to this.
    pub completion_queues: u16,
    /// Entries of a queue (CAP.MQES, not zero-based).
    pub queue_entries: u32,
    /// Interrupt vectors, numbered from 0.
    pub vectors: u32,
    /// Queues must be contiguous (CAP.CQR).
    pub contiguous_required: bool,
    /// Memory page size in bytes (CC.MPS), a power of two: queue bases are aligned to it.
    pub page_bytes: u64,
}

impl ControllerStateImage<'_> {
    /// Checks every field of the image. The vendor part is not looked into. Takes time in proportion to the number of
    /// queues times its logarithm.
    ///
    /// # Errors
    /// [`StateError`] naming the first field that is wrong.
    pub fn validate(&self, limits: &StateLimits) -> Result<(), StateError> {
        if self.header.csattr & !SUSPENDED != 0 || self.header.reserved != [0; 13] {
            return Err(StateError::ReservedHeader);
        }
        match self.nvme_state()? {
            Some(state) => state.validate(limits),
            None => Ok(()),
        }
    }
}

impl NvmeControllerState<'_> {
    /// Checks every field of the NVMe state: counts, identifiers ascending and in range, sizes, pointers, alignment,
    /// attributes, reserved bits, and that each submission queue's completion queue is there.
    ///
    /// # Errors
    /// [`StateError`] naming the first field that is wrong.
    pub fn validate(&self, limits: &StateLimits) -> Result<(), StateError> {
        if self.header.reserved.get() != 0 {
            return Err(StateError::ReservedStateHeader);
        }
        check_count(QueueKind::Submission, self.header.niosq.get(), limits.submission_queues)?;
        check_count(QueueKind::Completion, self.header.niocq.get(), limits.completion_queues)?;
        let mut previous = QueueId::ADMIN;
        for raw in self.completion {
            check_completion(raw, previous, limits)?;
            previous = QueueId::new(raw.qid.get());
        }
        previous = QueueId::ADMIN;
        for raw in self.submission {
            self.check_submission(raw, previous, limits)?;
            previous = QueueId::new(raw.qid.get());
        }
        Ok(())
    }

    fn check_submission(
        &self,
        raw: &RawSubmissionQueueState,
        previous: QueueId,
        limits: &StateLimits,
    ) -> Result<(), StateError> {
        let state = SubmissionQueueState::from_raw(raw);
        if raw.attributes.get() & SUBMISSION_RESERVED != 0 || raw.reserved.get() != 0 {
            return Err(StateError::ReservedQueue(QueueKind::Submission, state.queue));
        }
        check_common(
            &Common {
                kind: QueueKind::Submission,
                queue: state.queue,
                base: state.base,
                entries: state.entries,
                contiguous: state.contiguous,
                head: state.head,
                tail: state.tail,
            },
            previous,
            limits.submission_queues,
            limits,
        )?;
        // The completion queues are known to ascend by now, so a search finds the one named.
        match self.completion.binary_search_by_key(&state.completion_queue.get(), |cq| cq.qid.get()) {
            Ok(_) => Ok(()),
            Err(_) => Err(StateError::NoCompletionQueue {
                queue: state.queue,
                completion_queue: state.completion_queue,
            }),
        }
    }
}

fn check_completion(
    raw: &RawCompletionQueueState,
    previous: QueueId,
    limits: &StateLimits,
) -> Result<(), StateError> {
    // No check depends on the phase, so the dialect does not matter here.
    let state = CompletionQueueState::from_raw(raw, StateDialect::Specification);
    if raw.attributes.get() & COMPLETION_RESERVED != 0 || raw.reserved.get() != 0 {
        return Err(StateError::ReservedQueue(QueueKind::Completion, state.queue));
    }
    check_common(
        &Common {
            kind: QueueKind::Completion,
            queue: state.queue,
            base: state.base,
            entries: state.entries,
            contiguous: state.contiguous,
            head: state.head,
            tail: state.tail,
        },
        previous,
        limits.completion_queues,
        limits,
    )?;
    if state.interrupts_enabled && u32::from(state.vector) >= limits.vectors {
        return Err(StateError::Vector { queue: state.queue, vector: state.vector, vectors: limits.vectors });
    }
    Ok(())
}

fn check_count(kind: QueueKind, count: u16, limit: u16) -> Result<(), StateError> {
    if count > limit { Err(StateError::TooManyQueues { kind, count, limit }) } else { Ok(()) }
}

/// What both kinds of queues have.
struct Common {
    kind: QueueKind,
    queue: QueueId,
    base: BusAddr,
    entries: u32,
    contiguous: bool,
    head: u16,
    tail: u16,
}

fn check_common(
    common: &Common,
    previous: QueueId,
    highest: u16,
    limits: &StateLimits,
) -> Result<(), StateError> {
    let Common { kind, queue, base, entries, contiguous, head, tail } = *common;
    if queue == QueueId::ADMIN || queue.get() > highest {
        return Err(StateError::QueueIdentifier(kind, queue));
    }
    if queue <= previous {
        return Err(StateError::Order { kind, previous, queue });
    }
    if entries < 2 || entries > limits.queue_entries {
        return Err(StateError::QueueSize { kind, queue, entries, limit: limits.queue_entries });
    }
    if u32::from(head) >= entries {
        return Err(StateError::Head { kind, queue, head, entries });
    }
    if u32::from(tail) >= entries {
        return Err(StateError::Tail { kind, queue, tail, entries });
    }
    if limits.contiguous_required && !contiguous {
        return Err(StateError::NotContiguous(kind, queue));
    }
    if base.page_offset(limits.page_bytes) != 0 {
        return Err(StateError::Base { kind, queue, base });
    }
    Ok(())
}

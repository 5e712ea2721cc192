// SPDX-License-Identifier: MIT OR Apache-2.0
//! Controller Data Queues: created, read, and deleted. NVMe Base 2.1 §8.1.6, Controller Data Queue.
//!
//! A Controller Data Queue is a ring that the controller fills and the host reads; it has no submission queue. Its
//! entries carry a phase tag as completion queue entries do, so both rings are read by the same
//! [`PhaseConsumer`](crate::ring::PhaseConsumer); its head is published by a Set Features command on the shared
//! admin queue instead of a doorbell, and its wake-up is a one-shot event instead of an interrupt vector.
//!
//! | Part | Job |
//! |---|---|
//! | [`CdqMemory`], [`Quarantined`] | memory of its own pool, returned only with proof that the controller let go |
//! | [`CdqReader`], [`LogEvent`] | phase, head, lap; entries as events of one tracked controller |
//! | [`HeadPolicy`] | when the head is published and the tail pointer trigger armed |
//! | [`ControllerDataQueue`] | all of them together, from [`CdqCreation`] to [`CdqDeletion`] |

mod head;
mod log;
mod memory;
mod queue;
mod reader;
#[cfg(test)]
mod tests;

pub use head::{HeadPolicy, HeadUpdateFailed};
pub use log::{LogEvent, LogState, LogViolation};
pub use memory::{CdqMemory, CdqMemoryError, MemoryLimits, Quarantined, QueueLayout};
pub use queue::{
    CdqCreation, CdqDeletion, CdqFailure, CdqFigures, CdqOptions, ControllerDataQueue, QueuePoll,
};
pub use reader::{CdqReader, Drained};

// SPDX-License-Identifier: MIT OR Apache-2.0
//! The three parts of a queue pair, each usable alone: a ring to submit into, a ring to take completions from, and
//! the tracker that knows what is outstanding.
//!
//! A Controller Data Queue has no submission queue and no commands, so it uses neither of the first two: what it
//! shares with a completion queue is the phase-tagged consumer of [`ring`](crate::ring).

mod completion;
mod submission;
mod tracker;

pub use completion::CompletionRing;
pub use submission::{BadHead, RingFull, SubmissionRing};
pub use tracker::{Finished, Slot, Tracker, UnknownCommand, Vacant};

#[cfg(test)]
mod tests;

// SPDX-License-Identifier: MIT OR Apache-2.0
//! Deletion of an I/O queue pair: submission queue first. NVMe Base 2.1 §5.2.3 and §5.2.4.

use core::time::Duration;

use super::create::{LOOK_AGAIN, QueuesGone};
use super::{Completed, IoQueuePair, IoSlot, Lost, QuarantinedQueuePair};
use crate::admin::{AdminPort, AdminRequest, Call, CallError, SubmitError};
use crate::controller::Fault;
use crate::dma::DmaArena;
use crate::register::RegisterIo;
use crate::time::{Instant, Step};
use crate::wire::admin::{DeleteIoCompletionQueue, DeleteIoSubmissionQueue};

/// How a command of a deleted queue pair ended.
#[derive(Debug)]
pub enum Ended<T> {
    /// The controller completed it, perhaps as aborted.
    Completed(Completed<T>),
    /// The controller dropped it without a completion.
    Lost(Lost<T>),
}

/// How the deletion of a queue pair ended.
#[allow(clippy::large_enum_variant, reason = "there is no allocator to box the pair")]
pub enum DeleteOutcome<'d, 's, R: ?Sized, A: DmaArena, T> {
    /// The queues are gone, their memory has been released.
    Deleted {
        /// The slots lent.
        slots: &'s mut [IoSlot<T>],
    },
    /// Whether the controller still has the queues is unknown, so their memory is kept.
    Quarantined {
        /// Why.
        error: CallError,
        /// The memory.
        pair: QuarantinedQueuePair<'d, 's, R, A, T>,
    },
}

#[derive(Clone, Copy, Debug)]
enum Stage {
    Submission,
    Completion,
    Deleted,
    Unknown(CallError),
}

/// Deletes an I/O queue pair. Poll it until it is [`Step::Done`], then [`finish`](Self::finish).
///
/// Call [`take`](Self::take) as well, each time: a controller that has no room in the completion queue cannot end the
/// commands, and so cannot delete the submission queue.
#[must_use = "poll it to the end, or the queues stay"]
pub struct DeleteIoQueuePair<'d, 's, R: ?Sized, A: DmaArena, T> {
    pair: IoQueuePair<'d, 's, R, A, T>,
    timeout: Duration,
    stage: Stage,
    call: Call,
}

impl<'d, 's, R: RegisterIo + ?Sized, A: DmaArena, T> DeleteIoQueuePair<'d, 's, R, A, T> {
    /// Prepares to delete `pair`; the controller may take `timeout` for each of both commands.
    pub const fn new(pair: IoQueuePair<'d, 's, R, A, T>, timeout: Duration) -> Self {
        Self { pair, timeout, stage: Stage::Submission, call: Call::new() }
    }

    fn request(&self) -> Option<AdminRequest> {
        let queue = self.pair.id();
        match self.stage {
            Stage::Submission => {
                Some(AdminRequest::without_data(&DeleteIoSubmissionQueue { queue }, self.timeout))
            }
            Stage::Completion => {
                Some(AdminRequest::without_data(&DeleteIoCompletionQueue { queue }, self.timeout))
            }
            Stage::Deleted | Stage::Unknown(_) => None,
        }
    }

    /// Goes on. Does not poll the admin queue: whoever owns it does.
    pub fn poll<P: AdminPort + ?Sized>(&mut self, port: &mut P, now: Instant) -> Step {
        if !self.call.is_sent() {
            let Some(request) = self.request() else { return Step::Done };
            if !self.pair.is_served_by(port) {
                // Another controller's queues, or later ones with the same identifiers, are none of its business.
                self.call.abandon(port);
                self.stage = Stage::Unknown(CallError::NotSubmitted(SubmitError::NotReady));
                return Step::Done;
            }
            // It takes the request if it has none yet.
            drop(self.call.start(request));
        }
        if !self.pair.is_reached_by(port) {
            return Step::Wait(now.after(LOOK_AGAIN));
        }
        let Some(ended) = self.call.poll(port, now) else { return Step::Wait(now.after(LOOK_AGAIN)) };
        self.stage = match (self.stage, ended.outcome) {
            (Stage::Submission, Ok(_)) => Stage::Completion,
            (Stage::Completion, Ok(_)) => Stage::Deleted,
            (_, Err(error)) => Stage::Unknown(error),
            (stage, Ok(_)) => stage,
        };
        if self.request().is_none() { Step::Done } else { Step::Again }
    }

    /// Takes one command that has ended: completions as they come, and once the queues are deleted whatever the controller
    /// dropped. `None` if there is none now; none is left when the machine is done.
    ///
    /// # Errors
    /// The [`Fault`], as in [`IoQueuePair::poll`].
    pub fn take(&mut self) -> Result<Option<Ended<T>>, Fault> {
        self.pair.check()?;
        if let Some(completed) = self.pair.pop()? {
            return Ok(Some(Ended::Completed(completed)));
        }
        match self.stage {
            Stage::Submission => self.pair.acknowledge().map(|()| None),
            // The controller reads no doorbell of a queue that is about to go, and needs none: nothing is posted any more.
            Stage::Completion | Stage::Unknown(_) => Ok(None),
            Stage::Deleted => Ok(self.pair.drain_proved(&QueuesGone).map(Ended::Lost)),
        }
    }

    /// The end, once [`poll`](Self::poll) has said [`Step::Done`]. Buffers of commands that were not [taken](Self::take) are
    /// released with the rest.
    ///
    /// # Errors
    /// The machine itself, if it is not done.
    pub fn finish(self) -> Result<DeleteOutcome<'d, 's, R, A, T>, Self> {
        match self.stage {
            Stage::Deleted => Ok(DeleteOutcome::Deleted { slots: self.pair.retire_proved(&QueuesGone) }),
            Stage::Unknown(error) => {
                Ok(DeleteOutcome::Quarantined { error, pair: QuarantinedQueuePair(self.pair) })
            }
            Stage::Submission | Stage::Completion => Err(self),
        }
    }

    /// Gives up. The pair stays quarantined until the controller is disabled.
    pub fn abandon<P: AdminPort + ?Sized>(mut self, port: &mut P) -> QuarantinedQueuePair<'d, 's, R, A, T> {
        self.call.abandon(port);
        QuarantinedQueuePair(self.pair)
    }
}

// SPDX-License-Identifier: MIT OR Apache-2.0
//! The way back to the source, and cleaning up after either end.

use super::{Advance, Commit, Guest, Outcome, Purpose, SourceHalf};
use crate::admin::AdminPort;
use crate::cdq::CdqDeletion;
use crate::migration::failure::{CommandFailed, Failure, MigrationCommand};
use crate::migration::host::Platform;
use crate::migration::message::{Reply, Request};
use crate::migration::step::MigrationStep;
use crate::time::Instant;
use crate::wire::StatusCode;

/// So many failures in a row end the attempt to resume the source.
const RESUME_ATTEMPTS: u32 = 3;

impl<M: Copy, H: Copy> SourceHalf<'_, '_, M, H> {
    /// Waits for what is on its way: how a suspension ended decides how the source comes back.
    pub(super) fn settle<P: AdminPort + ?Sized>(&mut self, now: Instant, port: &mut P) -> Advance {
        if let Some(mut discovery) = self.discovery.take() {
            discovery.abandon(port);
        }
        if let Some(creation) = &mut self.creation {
            let Some(created) = creation.poll(port, now) else { return Advance::Wait };
            self.creation = None;
            match created {
                Ok(queue) => self.queue = Some(queue),
                Err(failed) => self.quarantined = failed.quarantined,
            }
        }
        if !self.call.is_idle() {
            let Some(result) = self.call.poll(port, now) else { return Advance::Wait };
            let ended = result.finish(port.arena());
            if self.purpose == Purpose::Suspend {
                let _ = self.suspended(ended);
            }
        }
        Advance::Next(if self.greeted {
            MigrationStep::ForgetDestination
        } else {
            MigrationStep::ResumeSource
        })
    }

    pub(super) fn forget_destination(&mut self, now: Instant) -> Result<Advance, Failure<M, H>> {
        if self.first() {
            self.ask(now, Request::Forget);
        }
        match self.answer(now) {
            Ok(None) => Ok(Advance::Wait),
            Ok(Some(Reply::Done)) => Ok(Advance::Next(MigrationStep::ResumeSource)),
            // A destination that does not answer and was never asked to resume does not reach the guest's memory,
            // which its platform answers for, whatever becomes of its suspension.
            Err(_) if !self.resume_asked => Ok(Advance::Next(MigrationStep::ResumeSource)),
            // A source that was never stopped runs, whatever is said of the other side: no state was handed over.
            Ok(Some(_)) if self.guest == Guest::Running => Ok(Advance::Next(MigrationStep::ResumeSource)),
            // It holds the guest's state and could not be kept from running with it, or it runs already.
            answer => {
                self.unsure = true;
                self.failure = Some(match answer {
                    Ok(Some(Reply::Failed(failure))) => Failure::Destination(failure),
                    Err(failure) => failure,
                    Ok(_) => Failure::OutOfTurn,
                });
                Ok(Advance::Next(MigrationStep::StopLog))
            }
        }
    }

    pub(super) fn resume_source<P, L>(&mut self, now: Instant, port: &mut P, platform: &mut L) -> Advance
    where
        P: AdminPort + ?Sized,
        L: Platform<Error = H> + ?Sized,
    {
        if core::mem::take(&mut self.fenced)
            && let Some(tracked) = self.tracked
        {
            self.platform &= platform.unfence_source(tracked.controller()).is_ok();
        }
        if self.guest != Guest::Running && self.resume_failures < RESUME_ATTEMPTS {
            if self.first() {
                self.deadline = now.after(self.options.timeouts.suspend);
            }
            if self.call.is_idle() {
                match self.manager_or(|manager, tracked| manager.resume(tracked)) {
                    Ok(request) => self.send(request, Purpose::Other),
                    // Only an identified source can have been suspended.
                    Err(_) => self.guest = Guest::Running,
                }
            }
            let Some(result) = self.call.poll(port, now) else { return Advance::Wait };
            match result.finish(port.arena()) {
                Ok(_) => self.guest = Guest::Running,
                Err(error) if error.is_status(StatusCode::CONTROLLER_NOT_SUSPENDED) => {
                    if self.guest == Guest::Suspended {
                        self.guest = Guest::Running;
                    } else if now.has_reached(self.deadline) {
                        // A suspension without a completion: it may still come.
                        self.suspend_pending = true;
                        self.guest = Guest::Running;
                    } else {
                        return Advance::Wait;
                    }
                }
                Err(error) => {
                    self.resume_failures = self.resume_failures.saturating_add(1);
                    if self.resume_failures >= RESUME_ATTEMPTS {
                        self.stuck = Some(error);
                    }
                    return Advance::Again;
                }
            }
        }
        if self.guest == Guest::Running {
            self.stop_time = self.suspend_sent.map(|sent| now.since(sent));
            if self.informed
                && let Some(tracked) = self.tracked
            {
                self.platform &= platform.source_resumed(tracked.controller()).is_ok();
                self.informed = false;
            }
        }
        Advance::Next(MigrationStep::StopLog)
    }

    pub(super) fn stop_log<P: AdminPort + ?Sized>(&mut self, now: Instant, port: &mut P) -> Advance {
        let id = self.queue.as_ref().filter(|_| self.logging).map(crate::cdq::ControllerDataQueue::id);
        if let (true, Some(id)) = (self.first(), id)
            && let Ok(request) = self.manager_or(|manager, _| manager.log_user_data(id, false))
        {
            self.send(request, Purpose::Other);
        }
        if !self.call.is_idle() {
            let Some(result) = self.call.poll(port, now) else { return Advance::Wait };
            // The deletion of the queue ends the log, too.
            let _ = result.finish(port.arena());
        }
        Advance::Next(MigrationStep::RemoveQueue)
    }

    pub(super) fn remove_queue<P: AdminPort + ?Sized>(&mut self, now: Instant, port: &mut P) -> Advance {
        if self.queue_is_gone(now, port) { Advance::Next(MigrationStep::CancelMover) } else { Advance::Wait }
    }

    pub(super) fn delete_queue<P: AdminPort + ?Sized>(&mut self, now: Instant, port: &mut P) -> Advance {
        if !self.call.is_idle() {
            let Some(result) = self.call.poll(port, now) else { return Advance::Wait };
            let _ = result.finish(port.arena());
        }
        if self.queue_is_gone(now, port) { Advance::Next(MigrationStep::Done) } else { Advance::Wait }
    }

    /// Deletes the queue; `true` once it is gone or its memory is quarantined.
    fn queue_is_gone<P: AdminPort + ?Sized>(&mut self, now: Instant, port: &mut P) -> bool {
        if let Some(queue) = self.queue.take() {
            match queue.release(port) {
                Ok(figures) => self.figures = figures,
                Err(queue) => {
                    self.figures = queue.figures();
                    self.deletion = Some(CdqDeletion::new(queue, self.options.queue.timeout));
                }
            }
        }
        let Some(deletion) = &mut self.deletion else { return true };
        let Some(deleted) = deletion.poll(port, now) else { return false };
        self.deletion = None;
        match deleted {
            Ok(figures) => self.figures = figures,
            Err(failed) => {
                self.quarantined = failed.quarantined;
                self.clean_up =
                    Some(CommandFailed { command: MigrationCommand::DeleteQueue, error: failed.error });
            }
        }
        true
    }

    /// States the outcome.
    pub(super) fn conclude(&mut self) {
        let (platform, clean_up) = (self.platform, self.clean_up);
        let failure = self.failure.unwrap_or(Failure::Cancelled);
        self.outcome = Some(match (self.step, self.commit, self.stuck) {
            (MigrationStep::Done, Commit::Acknowledged, _) => Outcome::Completed { platform, clean_up },
            (MigrationStep::Done, ..) => Outcome::Indeterminate { failure, resume_asked: true },
            _ if self.unsure => Outcome::Indeterminate { failure, resume_asked: self.resume_asked },
            (_, _, Some(resume)) => Outcome::SourceStuck { failure, resume },
            _ => Outcome::RolledBack { failure, platform, clean_up, suspend_pending: self.suspend_pending },
        });
    }
}

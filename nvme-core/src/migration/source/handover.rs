// SPDX-License-Identifier: MIT OR Apache-2.0
//! From the suspension of the source to the resume of the destination.

use super::{Advance, Commit, Guest, Purpose, SourceHalf, command};
use crate::admin::{AdminPort, CallError, SubmitError};
use crate::cdq::LogState;
use crate::dma::CdqReleased;
use crate::migration::failure::{CommandFailed, DestinationFailure, Failure, MigrationCommand};
use crate::migration::host::Platform;
use crate::migration::message::{PIECE_BYTES, Piece, Reply, Request};
use crate::migration::options::{Convergence, ConvergencePolicy};
use crate::migration::quirks::Quirks;
use crate::migration::step::MigrationStep;
use crate::time::Instant;
use crate::wire::controller_state::{ControllerStateHeader, DialectTranslator};
use crate::wire::migration::MigrationReceive;
use crate::wire::{CompletionQueueEntry, StatusCode};

/// How far the controller state has been read and handed over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum StatePhase {
    /// The header is being read, to learn the size.
    Header,
    /// The destination is being told the size.
    Announced { total: usize, in_header: bool },
    /// The piece at `at` is being read.
    Reading { total: usize, at: usize, in_header: bool },
    /// The piece before `at` is being handed over.
    Sending { total: usize, at: usize, in_header: bool },
    /// The header is being read once more, just before the destination is asked to resume.
    LastLook,
}

impl<M: Copy, H: Copy> SourceHalf<'_, '_, M, H> {
    pub(super) fn suspend_destination<P: AdminPort + ?Sized>(
        &mut self,
        now: Instant,
        port: &mut P,
    ) -> Result<Advance, Failure<M, H>> {
        if self.first() && !self.destination_suspended {
            self.ask(now, Request::Suspend);
        }
        self.pump(now, port, false)?;
        if !self.destination_suspended {
            if !self.done(now)? {
                return Ok(Advance::Wait);
            }
            self.destination_suspended = true;
        }
        Ok(Advance::Next(MigrationStep::NotifySuspend))
    }

    pub(super) fn notify_suspend<P: AdminPort + ?Sized>(
        &mut self,
        now: Instant,
        port: &mut P,
    ) -> Result<Advance, Failure<M, H>> {
        if self.first() {
            let request = self.manager_or(|manager, tracked| manager.notify_suspend(tracked))?;
            self.send(request, Purpose::Other);
        }
        self.pump(now, port, false)?;
        let Some(result) = self.call.poll(port, now) else { return Ok(Advance::Wait) };
        match result.finish(port.arena()) {
            // A hint changes no state: one that the source does not take, for whatever reason, is none to stop.
            Ok(_) | Err(CallError::Status(_) | CallError::NotSubmitted(_)) => {}
            Err(error) => return Err(command(MigrationCommand::NotifySuspend, error)),
        }
        if self.lost || self.cut {
            // What was found to converge before is void now.
            if self.deltas < self.options.max_rounds {
                if !self.lost {
                    // It counts as a round, or a log that breaks its rules each time would never let this end.
                    self.deltas = self.deltas.saturating_add(1);
                }
                return Ok(Advance::Next(MigrationStep::DeltaRounds));
            }
            self.convergence = Some(Convergence::Overflowed);
        }
        Ok(Advance::Next(MigrationStep::SuspendSource))
    }

    pub(super) fn suspend_source<P, L>(
        &mut self,
        now: Instant,
        port: &mut P,
        platform: &mut L,
    ) -> Result<Advance, Failure<M, H>>
    where
        P: AdminPort + ?Sized,
        L: Platform<Error = H> + ?Sized,
    {
        // An entry that closes the log is only believed if it can have been posted after the command.
        if self.suspend_sent.is_none() && !self.pump(now, port, false)? && !self.is_late(now) {
            return Ok(Advance::Again);
        }
        if self.first() {
            let delete = self.options.delete_with_suspend && self.queue.is_some();
            let timeout = self.options.timeouts.suspend;
            let request = self.manager_or(|manager, tracked| manager.suspend(tracked, delete, timeout))?;
            self.send(request, Purpose::Suspend);
            self.suspend_sent = Some(now);
            self.suspended_in = Some(port.generation());
            self.guest = Guest::Unknown;
        }
        // The guest writes on until the controller stops, so the queue is read on.
        let empty = self.pump(now, port, false)?;
        let polled = self.call.poll(port, now);
        self.suspend_submitted |= polled.is_some() || self.call.is_sent();
        let Some(result) = polled else {
            return Ok(if empty { Advance::Soon } else { Advance::Again });
        };
        self.suspended(result.finish(port.arena()))
            .map_err(|error| command(MigrationCommand::Suspend, error))?;
        self.informed = true;
        let tracked = self.manager_or(|_, tracked| tracked)?;
        platform.source_suspended(tracked.controller()).map_err(Failure::Platform)?;
        self.deadline = now.after(self.options.timeouts.marker);
        Ok(Advance::Next(MigrationStep::Drain))
    }

    /// Takes the end of the suspend command.
    pub(super) fn suspended(
        &mut self,
        ended: Result<CompletionQueueEntry, CallError>,
    ) -> Result<(), CallError> {
        self.purpose = Purpose::Other;
        match ended {
            Ok(_) => {
                self.guest = Guest::Suspended;
                if self.options.delete_with_suspend
                    && let Some(queue) = &mut self.queue
                {
                    queue.mark_released(CdqReleased::new());
                    self.logging = false;
                }
                Ok(())
            }
            Err(error) => {
                if error.is_status(StatusCode::CONTROLLER_SUSPENDED) {
                    self.guest = Guest::Suspended;
                } else if error.is_refusal() {
                    self.guest = Guest::Running;
                } else if let CallError::Status(_) = error {
                    // It has come to its end, and may have suspended the source all the same; nothing comes later.
                    self.guest = Guest::Suspended;
                }
                Err(error)
            }
        }
    }

    pub(super) fn drain_log<P: AdminPort + ?Sized>(
        &mut self,
        now: Instant,
        port: &mut P,
    ) -> Result<Advance, Failure<M, H>> {
        if self.queue.is_none() {
            // Both sides see the same medium: there is nothing to copy and nothing to log.
            return Ok(Advance::Next(MigrationStep::GetState));
        }
        let empty = self.pump(now, port, false)?;
        let closed = self.lost || self.closed && self.log_is(LogState::Suspended);
        if !(empty && closed) {
            // A suspended controller changes nothing, so the log ends, or breaks the rules.
            return match (now.has_reached(self.deadline), empty) {
                (true, _) => Err(Failure::NoSuspendMarker),
                (false, true) => Ok(Advance::Wait),
                (false, false) => Ok(Advance::Again),
            };
        }
        // A log that had stopped before may not be closed by a marker, and one that never opened may not have run:
        // nothing that they say is complete.
        if self.lost || !self.opened {
            self.dirty.mark_all();
            self.cut = true;
        }
        if self.lost || self.cut {
            // What was found to converge before is void now.
            self.convergence = Some(Convergence::Overflowed);
            if self.options.convergence == ConvergencePolicy::Cancel {
                return Err(Failure::NotConverged { dirty_blocks: self.dirty.dirty_blocks() });
            }
        }
        Ok(Advance::Next(MigrationStep::FinalCopy))
    }

    pub(super) fn get_state<P: AdminPort + ?Sized>(
        &mut self,
        now: Instant,
        port: &mut P,
    ) -> Result<Advance, Failure<M, H>> {
        self.still_suspended(port)?;
        if self.first() {
            self.state = StatePhase::Header;
            self.read_state(port, 0, ControllerStateHeader::BYTES)?;
        }
        match self.state {
            StatePhase::Header => {
                let Some((header, in_header)) = self.take_header(now, port)? else {
                    return Ok(Advance::Wait);
                };
                // The destination refuses what it has no room for; here only arithmetic has to hold.
                let total = header.sizes(isize::MAX.unsigned_abs()).map_err(Failure::State)?.total;
                let formats = self.formats.ok_or(Failure::OutOfTurn)?.destination;
                let bytes = total as u64;
                self.ask(
                    now,
                    Request::BeginState { bytes, version: formats.version, vendor: formats.vendor },
                );
                self.state = StatePhase::Announced { total, in_header };
                Ok(Advance::Again)
            }
            StatePhase::Announced { total, in_header } => {
                if !self.done(now)? {
                    return Ok(Advance::Wait);
                }
                self.translator = DialectTranslator::new();
                self.read_piece(port, total, 0, in_header)
            }
            StatePhase::Reading { total, at, in_header } => {
                let Some(result) = self.call.poll(port, now) else { return Ok(Advance::Wait) };
                let len = piece_len(port, total, at);
                let mut piece = Piece {
                    offset: at as u64,
                    len: u16::try_from(len).unwrap_or(0),
                    bytes: [0; PIECE_BYTES],
                };
                let bytes = piece.bytes.get_mut(..len).unwrap_or_default();
                let entry = result
                    .read(port.arena(), bytes)
                    .map_err(|error| command(MigrationCommand::GetState, error))?;
                Self::check_suspended(&entry, in_header)?;
                // The halves talk in the specification's dialect.
                if self.options.quirks.contains(Quirks::SLOT_ZERO_IS_NEXT_PHASE) {
                    self.translator.translate(bytes);
                }
                self.ask(now, Request::State(piece));
                self.state = StatePhase::Sending { total, at: at.saturating_add(len), in_header };
                Ok(Advance::Again)
            }
            StatePhase::Sending { total, at, in_header } => {
                if !self.done(now)? {
                    return Ok(Advance::Wait);
                }
                if at >= total {
                    return Ok(Advance::Next(MigrationStep::SetState));
                }
                self.read_piece(port, total, at, in_header)
            }
            StatePhase::LastLook => Err(Failure::OutOfTurn),
        }
    }

    /// The header that was asked for, once it is there, and whether it says itself that the source is suspended.
    fn take_header<P: AdminPort + ?Sized>(
        &mut self,
        now: Instant,
        port: &mut P,
    ) -> Result<Option<(ControllerStateHeader, bool)>, Failure<M, H>> {
        let Some(result) = self.call.poll(port, now) else { return Ok(None) };
        let mut bytes = [0; ControllerStateHeader::BYTES];
        let entry = result
            .read(port.arena(), &mut bytes)
            .map_err(|error| command(MigrationCommand::GetState, error))?;
        let header = ControllerStateHeader::parse(&bytes).map_err(Failure::State)?;
        let in_header = header.suspended() && self.options.quirks.contains(Quirks::SUSPENDED_IN_HEADER);
        Self::check_suspended(&entry, in_header)?;
        Ok(Some((header, in_header)))
    }

    /// A reset of the managing controller ends the suspension, whatever was read before.
    fn still_suspended<P: AdminPort + ?Sized>(&self, port: &P) -> Result<(), Failure<M, H>> {
        if self.suspended_in.is_some_and(|then| then != port.generation()) {
            return Err(Failure::SuspensionGone);
        }
        Ok(())
    }

    /// Whether the log has been read long enough without coming to its end.
    fn is_late(&mut self, now: Instant) -> bool {
        let until = *self.read_until.get_or_insert(now.after(self.options.timeouts.marker));
        now.has_reached(until)
    }

    fn read_piece<P: AdminPort + ?Sized>(
        &mut self,
        port: &P,
        total: usize,
        at: usize,
        in_header: bool,
    ) -> Result<Advance, Failure<M, H>> {
        self.read_state(port, at as u64, piece_len(port, total, at))?;
        self.state = StatePhase::Reading { total, at, in_header };
        Ok(Advance::Again)
    }

    fn read_state<P: AdminPort + ?Sized>(
        &mut self,
        port: &P,
        offset: u64,
        bytes: usize,
    ) -> Result<(), Failure<M, H>> {
        let formats = self.formats.ok_or(Failure::OutOfTurn)?.source;
        let request = self.manager_or(|manager, tracked| {
            manager.get_state(port.arena(), tracked, formats, offset, bytes)
        })?;
        self.send(request.map_err(Failure::Data)?, Purpose::Other);
        Ok(())
    }

    /// The source must have been suspended while the command was processed, or the image is inconsistent.
    fn check_suspended(entry: &CompletionQueueEntry, in_header: bool) -> Result<(), Failure<M, H>> {
        if MigrationReceive::was_suspended(entry) || in_header { Ok(()) } else { Err(Failure::NotSuspended) }
    }

    pub(super) fn set_state<P: AdminPort + ?Sized>(
        &mut self,
        now: Instant,
        port: &mut P,
    ) -> Result<Advance, Failure<M, H>> {
        self.still_suspended(port)?;
        if self.first() {
            self.ask(now, Request::SetState);
        }
        Ok(if self.done(now)? { Advance::Next(MigrationStep::ResumeDestination) } else { Advance::Wait })
    }

    /// Fences the source, looks once more whether it is suspended, then asks the destination to resume. What ends the
    /// suspension after that look, as a reset of the managing controller does, lets a source that is not fenced run beside
    /// the destination: whoever resets it then has to disable the guest's controller at the source first.
    pub(super) fn resume_destination<P, L>(
        &mut self,
        now: Instant,
        port: &mut P,
        platform: &mut L,
    ) -> Result<Advance, Failure<M, H>>
    where
        P: AdminPort + ?Sized,
        L: Platform<Error = H> + ?Sized,
    {
        if self.first() {
            self.still_suspended(port)?;
            let tracked = self.manager_or(|_, tracked| tracked)?;
            self.fenced = true;
            platform.fence_source(tracked.controller()).map_err(Failure::Platform)?;
            self.state = StatePhase::LastLook;
            self.read_state(port, 0, ControllerStateHeader::BYTES)?;
        }
        if self.commit == Commit::No {
            let Some(_header) = self.take_header(now, port)? else { return Ok(Advance::Wait) };
            self.still_suspended(port)?;
            self.ask(now, Request::Resume);
            self.resume_asked = true;
            self.commit = Commit::Asked;
            return Ok(Advance::Again);
        }
        match self.answer(now)? {
            None => Ok(Advance::Wait),
            Some(Reply::Resumed { platform }) => {
                self.commit = Commit::Acknowledged;
                self.platform = platform;
                self.stop_time = self.suspend_sent.map(|sent| now.since(sent));
                Ok(Advance::Next(MigrationStep::DeleteQueue))
            }
            Some(Reply::Failed(failure)) => {
                // It certainly did not happen, so the way back is open again.
                self.commit = Commit::No;
                if was_before_resume(&failure) {
                    // So the destination has no access to memory.
                    self.resume_asked = false;
                }
                Err(Failure::Destination(failure))
            }
            Some(Reply::ResumeUnknown(error)) => Err(Failure::ResumeUnknown(error)),
            Some(_) => Err(Failure::OutOfTurn),
        }
    }
}

/// Whether the destination failed before its platform let the controller reach memory. What is answered behind that, but a
/// refusal by the controller, leaves it unknown whether it resumed.
const fn was_before_resume(failure: &DestinationFailure) -> bool {
    matches!(
        failure,
        DestinationFailure::Platform
            | DestinationFailure::Command(CommandFailed {
                command: MigrationCommand::Resume,
                error: CallError::NotSubmitted(SubmitError::NotReady)
            })
    )
}

/// Bytes of the piece at `at`: what one message and one command carry, in whole dwords.
fn piece_len<P: AdminPort + ?Sized>(port: &P, total: usize, at: usize) -> usize {
    let limit = (port.max_transfer() & !3).clamp(4, PIECE_BYTES);
    total.saturating_sub(at).min(limit)
}

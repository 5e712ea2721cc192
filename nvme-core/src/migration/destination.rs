// SPDX-License-Identifier: MIT OR Apache-2.0
//! The destination's half of a migration.

use super::failure::{CommandFailed, DestinationFailure, ManagerError, MigrationCommand};
use super::formats::FormatIndices;
use super::host::Platform;
use super::manager::{Discovered, Discovery, Manager};
use super::message::{PROTOCOL_VERSION, Piece, Reply, ReplyMessage, Request, RequestMessage, Sequence};
use super::options::Timeouts;
use super::quirks::Quirks;
use crate::admin::{AdminPort, AdminRequest, Call, CallError, Generation, SubmitError};
use crate::time::{Instant, Step};
use crate::wire::controller_state::{ControllerStateImage, DialectTranslator, StateError, StateLimits};
use crate::wire::migration::SequenceIndicator;
use crate::wire::{ControllerId, StatusCode, TrackedId};

/// What the destination is and what may be given to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DestinationOptions {
    /// The controller that is to carry on: another one than the managing controller.
    pub controller: ControllerId,
    /// What it can do, against which every field of an image is checked; without it the image is checked for its
    /// structure only, and the controller checks the rest.
    pub limits: Option<StateLimits>,
    /// Deviations of the managing controller.
    pub quirks: Quirks,
    /// How long commands may take.
    pub timeouts: Timeouts,
}

/// What the half does at the moment.
#[derive(Debug)]
enum Job {
    Idle,
    Discover(Discovery),
    Suspend,
    /// The image of `total` bytes is being sent from byte `sent` on.
    Set {
        tracked: TrackedId,
        total: usize,
        sent: usize,
    },
    Resume(TrackedId),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Given {
    Nothing,
    /// An image of this many bytes, this many of which are there.
    Image(usize, usize),
    /// Commands that set state have been sent.
    Setting,
    Set,
    /// Running. Whether the platform did its part is told again to a source that asks again.
    Resumed {
        platform: bool,
    },
    /// To be forgotten; the platform has not done its part yet.
    Forgetting,
    Forgotten,
}

/// Answers the source's requests and keeps the destination controller suspended until it is asked to resume.
///
/// The image waits in lent memory, so its length decides how large a state can be taken.
#[derive(Debug)]
pub struct DestinationHalf<'s> {
    options: DestinationOptions,
    image: &'s mut [u8],
    manager: Option<Discovered>,
    formats: FormatIndices,
    suspended: bool,
    /// The life of the managing controller in which it was.
    suspended_in: Option<Generation>,
    given: Given,
    job: Job,
    call: Call,
    inbox: Option<RequestMessage>,
    outbox: Option<ReplyMessage>,
    sequence: Sequence,
}

impl<'s> DestinationHalf<'s> {
    /// A half that has been asked nothing yet; `image` is where the controller state waits.
    #[must_use]
    pub const fn new(options: DestinationOptions, image: &'s mut [u8]) -> Self {
        Self {
            options,
            image,
            manager: None,
            formats: FormatIndices { version: 0, vendor: 0 },
            suspended: false,
            suspended_in: None,
            given: Given::Nothing,
            job: Job::Idle,
            call: Call::new(),
            inbox: None,
            outbox: None,
            sequence: 0,
        }
    }

    /// Whether the destination controller has acknowledged its resume.
    #[must_use]
    pub fn is_resumed(&self) -> bool {
        matches!(self.given, Given::Resumed { .. })
    }

    /// Takes a request. One that is still waiting is dropped: the source asks one thing at a time.
    pub fn deliver(&mut self, message: RequestMessage) {
        self.inbox = Some(message);
    }

    /// Takes the answer out, once.
    pub fn take_reply(&mut self) -> Option<ReplyMessage> {
        self.outbox.take()
    }

    /// Goes on. Never blocks; sends at most one command.
    pub fn poll<P: AdminPort + ?Sized, H: Platform + ?Sized>(
        &mut self,
        now: Instant,
        port: &mut P,
        platform: &mut H,
    ) -> Step {
        let forgets = self.inbox.as_ref().is_some_and(|message| message.request == Request::Forget);
        if forgets && self.call.is_idle() && matches!(self.job, Job::Set { .. }) {
            self.job = Job::Idle;
        }
        if matches!(self.job, Job::Idle) {
            let Some(message) = self.inbox.take() else {
                return Step::Wait(now.after(self.options.timeouts.poll));
            };
            self.sequence = message.sequence;
            let begun = self.begin(message.request, port, platform);
            self.answer(begun);
            return Step::Again;
        }
        let progress = match self.go_on(now, port, platform) {
            Ok(None) => Ok(None),
            Ok(Some(reply)) => {
                self.job = Job::Idle;
                Ok(Some(reply))
            }
            Err(failure) => {
                self.job = Job::Idle;
                Err(failure)
            }
        };
        let waits =
            matches!(progress, Ok(None)) && !(matches!(self.job, Job::Set { .. }) && self.call.is_idle());
        self.answer(progress);
        if waits { Step::Wait(now.after(self.options.timeouts.poll)) } else { Step::Again }
    }

    fn answer(&mut self, result: Result<Option<Reply>, DestinationFailure>) {
        let reply = match result {
            Ok(None) => return,
            Ok(Some(reply)) => reply,
            Err(failure) => Reply::Failed(failure),
        };
        self.outbox = Some(ReplyMessage { sequence: self.sequence, reply });
    }

    fn manager(&self) -> Result<Manager, DestinationFailure> {
        self.manager.as_ref().map(|found| found.manager).ok_or(DestinationFailure::OutOfTurn)
    }

    fn tracked(&self) -> Result<TrackedId, DestinationFailure> {
        self.manager()?
            .track(self.options.controller)
            .map_err(|error| DestinationFailure::Manager(ManagerError::TargetIsManager(error)))
    }

    /// Whether a reset of the managing controller has ended the suspension: the controller may run without a resume.
    fn was_released<P: AdminPort + ?Sized>(&self, port: &P) -> bool {
        self.suspended_in.is_some_and(|then| then != port.generation())
    }

    fn send(&mut self, request: AdminRequest) {
        // A half without a job has no command on its way.
        let _ = self.call.start(request);
    }

    /// Starts on a request; what needs no command is answered at once.
    fn begin<P: AdminPort + ?Sized, H: Platform + ?Sized>(
        &mut self,
        request: Request,
        port: &P,
        platform: &mut H,
    ) -> Result<Option<Reply>, DestinationFailure> {
        match (self.given, &request) {
            // A request that came twice. Anything but the same answer would say that the guest does not run here.
            (Given::Resumed { platform }, Request::Resume) => return Ok(Some(Reply::Resumed { platform })),
            (Given::Forgotten | Given::Forgetting, Request::Forget) => {}
            (Given::Resumed { .. } | Given::Forgotten | Given::Forgetting, _) => {
                return Err(DestinationFailure::OutOfTurn);
            }
            _ => {}
        }
        match request {
            Request::Hello { version } if version != PROTOCOL_VERSION => {
                Err(DestinationFailure::ProtocolVersion(version))
            }
            Request::Hello { .. } => {
                self.job = Job::Discover(Discovery::new(self.options.quirks, self.options.timeouts.command));
                Ok(None)
            }
            Request::Suspend => {
                let tracked = self.tracked()?;
                let request = self.manager()?.suspend(tracked, false, self.options.timeouts.suspend);
                self.send(request);
                self.suspended_in = Some(port.generation());
                self.job = Job::Suspend;
                Ok(None)
            }
            Request::BeginState { bytes, version, vendor } => {
                self.manager()?;
                let len = usize::try_from(bytes).ok().filter(|len| *len <= self.image.len());
                let limit = self.image.len() as u64;
                let len = len.ok_or(DestinationFailure::StateTooLong { bytes, limit })?;
                if matches!(self.given, Given::Setting | Given::Set) {
                    return Err(DestinationFailure::OutOfTurn);
                }
                self.formats = FormatIndices { version, vendor };
                self.given = Given::Image(len, 0);
                Ok(Some(Reply::Done))
            }
            Request::State(piece) => self.take_piece(&piece).map(Some),
            Request::SetState => self.begin_set(port, platform).map(|()| None),
            Request::Resume => {
                if self.given != Given::Set || !self.suspended {
                    return Err(DestinationFailure::OutOfTurn);
                }
                // The platform has not let the controller reach the guest's memory yet, so these are certain.
                if self.was_released(port) {
                    return Err(failed(MigrationCommand::Resume, CallError::Lost));
                }
                if !port.is_live() {
                    return Err(failed(
                        MigrationCommand::Resume,
                        CallError::NotSubmitted(SubmitError::NotReady),
                    ));
                }
                let tracked = self.tracked()?;
                platform.before_resume(tracked.controller()).map_err(|_| DestinationFailure::Platform)?;
                let request = self.manager()?.resume(tracked);
                self.send(request);
                self.job = Job::Resume(tracked);
                Ok(None)
            }
            Request::Forget => {
                // Asked again after a failure, the platform has its part to do still.
                if matches!(self.given, Given::Setting | Given::Set | Given::Forgetting) {
                    self.given = Given::Forgetting;
                    platform
                        .destination_forgotten(self.options.controller)
                        .map_err(|_| DestinationFailure::Platform)?;
                }
                self.given = Given::Forgotten;
                Ok(Some(Reply::Done))
            }
        }
    }

    fn take_piece(&mut self, piece: &Piece) -> Result<Reply, DestinationFailure> {
        let Given::Image(len, have) = self.given else { return Err(DestinationFailure::OutOfTurn) };
        let wrong = DestinationFailure::Piece { offset: piece.offset, expected: have as u64 };
        let bytes = piece.used();
        let end = have.saturating_add(bytes.len());
        if piece.offset != have as u64 || bytes.is_empty() || end > len {
            return Err(wrong);
        }
        let to = self.image.get_mut(have..).and_then(|rest| rest.get_mut(..bytes.len())).ok_or(wrong)?;
        to.copy_from_slice(bytes);
        self.given = Given::Image(len, end);
        Ok(Reply::Done)
    }

    /// Checks the whole image before anything of it is sent.
    fn begin_set<P: AdminPort + ?Sized, H: Platform + ?Sized>(
        &mut self,
        port: &P,
        platform: &mut H,
    ) -> Result<(), DestinationFailure> {
        let Given::Image(len, have) = self.given else { return Err(DestinationFailure::OutOfTurn) };
        if have != len || !self.suspended {
            return Err(DestinationFailure::OutOfTurn);
        }
        let tracked = self.tracked()?;
        let bytes = self.image.get(..len).unwrap_or_default();
        let image = ControllerStateImage::parse(bytes, len).map_err(DestinationFailure::State)?;
        let FormatIndices { version, vendor } = self.formats;
        image.check_indices(version, vendor).map_err(DestinationFailure::State)?;
        // A guest without the queues it had would be a guest that lost them.
        if version != 0 && image.nvme_state().map_err(DestinationFailure::State)?.is_none() {
            return Err(DestinationFailure::State(StateError::IndexWithoutState));
        }
        match &self.options.limits {
            Some(limits) => image.validate(limits).map_err(DestinationFailure::State)?,
            None => {
                image.nvme_state().map_err(DestinationFailure::State)?;
            }
        }
        let total = image.total_bytes();
        let limit = part_limit(port);
        if total > limit && self.options.quirks.contains(Quirks::SET_STATE_IN_ONE) {
            return Err(DestinationFailure::NotInOne { bytes: total, limit });
        }
        if self.options.quirks.contains(Quirks::SLOT_ZERO_IS_NEXT_PHASE) {
            DialectTranslator::new().translate(self.image.get_mut(..total).unwrap_or_default());
        }
        self.given = Given::Setting;
        // Without a common vendor format nobody else brings properties and admin queue along.
        if vendor == 0 {
            platform.restore_properties(tracked.controller()).map_err(|_| DestinationFailure::Platform)?;
        }
        self.job = Job::Set { tracked, total, sent: 0 };
        Ok(())
    }

    fn go_on<P: AdminPort + ?Sized, H: Platform + ?Sized>(
        &mut self,
        now: Instant,
        port: &mut P,
        platform: &mut H,
    ) -> Result<Option<Reply>, DestinationFailure> {
        match &mut self.job {
            Job::Idle => Ok(None),
            Job::Discover(discovery) => {
                let Some(found) = discovery.poll(port, now) else { return Ok(None) };
                let found = found.map_err(DestinationFailure::Manager)?;
                let formats = found.formats;
                self.manager = Some(found);
                self.tracked()?;
                Ok(Some(Reply::Formats(formats)))
            }
            Job::Suspend => {
                let Some(result) = self.call.poll(port, now) else { return Ok(None) };
                result.finish(port.arena()).map_err(|error| failed(MigrationCommand::Suspend, error))?;
                self.suspended = true;
                Ok(Some(Reply::Done))
            }
            Job::Set { tracked, total, sent } => {
                let (tracked, total, sent) = (*tracked, *total, *sent);
                self.set_part(now, port, tracked, total, sent)
            }
            Job::Resume(tracked) => {
                let tracked = *tracked;
                let Some(result) = self.call.poll(port, now) else { return Ok(None) };
                match result.finish(port.arena()) {
                    Ok(_) => {
                        let platform = platform.destination_resumed(tracked.controller()).is_ok();
                        self.given = Given::Resumed { platform };
                        Ok(Some(Reply::Resumed { platform }))
                    }
                    // A controller that is not suspended runs, with the state it was given, and so may one whose
                    // managing controller has failed: it has access to the guest's memory by now.
                    Err(error)
                        if error.is_refusal()
                            && error != CallError::NotSubmitted(SubmitError::NotReady)
                            && !error.is_status(StatusCode::CONTROLLER_NOT_SUSPENDED)
                            && !self.was_released(port) =>
                    {
                        Err(failed(MigrationCommand::Resume, error))
                    }
                    Err(error) => Ok(Some(Reply::ResumeUnknown(error))),
                }
            }
        }
    }

    /// Sends the part of the image from `sent` on, or takes the completion of the one on its way.
    fn set_part<P: AdminPort + ?Sized>(
        &mut self,
        now: Instant,
        port: &mut P,
        tracked: TrackedId,
        total: usize,
        sent: usize,
    ) -> Result<Option<Reply>, DestinationFailure> {
        let end = sent.saturating_add(part_limit(port)).min(total);
        if self.call.is_idle() {
            let sequence = match (sent == 0, end == total) {
                (true, true) => SequenceIndicator::Only,
                (true, false) => SequenceIndicator::First,
                (false, false) => SequenceIndicator::Middle,
                (false, true) => SequenceIndicator::Last,
            };
            let part = self.image.get(sent..end).unwrap_or_default();
            let request = self
                .manager()?
                .set_state(port.arena(), tracked, self.formats, sequence, sent as u64, part)
                .map_err(DestinationFailure::Memory)?;
            self.send(request);
        }
        let Some(result) = self.call.poll(port, now) else { return Ok(None) };
        result.finish(port.arena()).map_err(|error| failed(MigrationCommand::SetState, error))?;
        if end == total {
            self.given = Given::Set;
            return Ok(Some(Reply::Done));
        }
        self.job = Job::Set { tracked, total, sent: end };
        Ok(None)
    }
}

/// Bytes of an image that one command carries: what the controller allows, in whole dwords.
fn part_limit<P: AdminPort + ?Sized>(port: &P) -> usize {
    (port.max_transfer() & !3).max(4)
}

const fn failed(command: MigrationCommand, error: CallError) -> DestinationFailure {
    DestinationFailure::Command(CommandFailed { command, error })
}

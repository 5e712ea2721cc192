// SPDX-License-Identifier: MIT OR Apache-2.0
//! The source's half of a migration: it decides what happens when.

mod baseline;
mod copy;
mod handover;
mod rollback;

use core::time::Duration;

use super::failure::{CommandFailed, Failure, MigrationCommand};
use super::formats::{FormatMatch, match_formats};
use super::host::{DataMover, Platform};
use super::manager::{Discovered, Discovery, Manager};
use super::message::{PROTOCOL_VERSION, Reply, ReplyMessage, Request, RequestMessage, Sequence};
use super::options::{Convergence, DataPath, MigrationOptions, Progress, Round, Summary};
use super::quirks::Quirks;
use super::step::{MigrationStep, StepKind};
use crate::admin::{AdminPort, AdminRequest, Call, CallError, Generation};
use crate::cdq::{
    CdqCreation, CdqDeletion, CdqFigures, ControllerDataQueue, Drained, LogState, MemoryLimits, Quarantined,
    QueueLayout, QueuePoll,
};
use crate::dirty::{DirtySet, MarkError};
use crate::dma::{self, DmaArena, LetGo};
use crate::time::{Instant, Step};
use crate::wire::TrackedId;
use crate::wire::controller_state::DialectTranslator;
use crate::wire::identify::SupportedControllerStateFormats;
use baseline::Baseline;
use copy::{Mover, OpenRound, Recovery};
use handover::StatePhase;

/// So many failed head updates in a row end the migration.
const HEAD_FAILURES: u32 = 3;

/// How a migration ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome<M, H> {
    /// The guest runs at the destination. The source stays suspended.
    Completed {
        /// Whether the destination's platform did its part after the resume.
        platform: bool,
        /// What was left behind at the source: the queue could not be deleted and its memory is quarantined.
        clean_up: Option<CommandFailed>,
    },
    /// The guest runs at the source, as before.
    RolledBack {
        /// Why.
        failure: Failure<M, H>,
        /// Whether the source's platform did its part.
        platform: bool,
        /// What was left behind at the source: the queue could not be deleted and its memory is quarantined.
        clean_up: Option<CommandFailed>,
        /// A suspension without a completion may still take effect: look after the source.
        suspend_pending: bool,
    },
    /// The migration was to be rolled back, but the source could not be resumed. The destination does not run. A
    /// reset of the source's managing controller ends the suspension: [`SourceHalf::manager_was_reset`].
    SourceStuck {
        /// Why it was to be rolled back.
        failure: Failure<M, H>,
        /// Why the source could not be resumed.
        resume: CallError,
    },
    /// Whether the destination runs is unknown, so the source stays suspended, and fenced if its platform can do that.
    /// How its host gets out of this depends on `resume_asked`.
    Indeterminate {
        /// Why it is unknown.
        failure: Failure<M, H>,
        /// Whether the destination was asked to resume, and its platform let it be.
        ///
        /// If so, the way is forward: everything is at the destination, which may have answered commands of the guest, so
        /// that only its namespaces hold all that was acknowledged. Reset its managing controller, which ends the
        /// suspension in any case, and switch the guest over to it. If the controller is not ready afterwards, or has a
        /// fatal status, it does not run: have the guest reset it.
        ///
        /// If not, the way is back: the destination holds state of the guest, could not be made to forget it, and has had
        /// no access to the guest's memory ([`Platform::before_resume`]). Disable it, by a function level reset if nothing
        /// else helps, then lift the fence and release the source by a reset of its managing controller.
        resume_asked: bool,
    },
}

/// What became of the wish to cancel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cancellation {
    /// The migration will be rolled back, or is being.
    Accepted,
    /// The destination has been asked to resume, or the migration has ended.
    TooLate,
}

/// What is known about the source controller.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Guest {
    Running,
    /// A suspend was sent and did not complete.
    Unknown,
    /// A suspend has ended, with success or without a proof that it did nothing.
    Suspended,
}

/// How far the destination's resume is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Commit {
    No,
    /// Asked for; until an answer says otherwise the destination may run.
    Asked,
    Acknowledged,
}

/// What a step achieved in one poll.
enum Advance {
    Wait,
    /// The guest may be standing still for it, or only the mover can make progress: look again soon.
    Soon,
    Again,
    Next(MigrationStep),
}

/// What the command on its way is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Purpose {
    Other,
    Suspend,
}

/// Logs, copies, suspends, reads the state, decides, and rolls back.
///
/// Until the destination acknowledges its resume every failure and every cancellation leads back to a running source.
/// From the moment the resume is asked for the source is not resumed unless the destination says that it refused.
#[derive(Debug)]
pub struct SourceHalf<'a, 's, M, H> {
    options: MigrationOptions,
    /// Identity of the arena that serves the managing controller, once there was one.
    arena: Option<usize>,
    step: MigrationStep,
    /// The step's first poll has been made.
    entered: bool,
    discovery: Option<Discovery>,
    found: Option<Discovered>,
    tracked: Option<TrackedId>,
    formats: Option<FormatMatch>,
    call: Call,
    purpose: Purpose,
    deadline: Instant,

    creation: Option<CdqCreation>,
    queue: Option<ControllerDataQueue>,
    deletion: Option<CdqDeletion>,
    quarantined: Option<Quarantined>,
    figures: CdqFigures,
    logging: bool,
    /// Logging is being stopped before it is started for the first time.
    clearing: bool,
    head_failures: u32,
    /// Head updates acknowledged when that was last looked at.
    head_updates: u64,
    /// The entry that opens the log was read.
    opened: bool,
    /// The entry that closes the log was read after the suspension had been asked for.
    closed: bool,
    /// The log lost changes and does not run.
    lost: bool,
    /// Everything became dirty since the round began.
    cut: bool,
    recovery: Recovery,
    restarts: u32,
    /// Entries that may have been in the queue when the last round ended and have not been read.
    unread: u32,

    dirty: DirtySet<'a, 's>,
    baseline: Baseline,
    mover: Mover,
    rounds: &'a mut [Round],
    made: u32,
    deltas: u32,
    stalled: u32,
    round: Option<OpenRound>,
    convergence: Option<Convergence>,

    outbox: Option<RequestMessage>,
    inbox: Option<Reply>,
    sequence: Sequence,
    answer_by: Option<Instant>,
    greeted: bool,
    destination_suspended: bool,

    guest: Guest,
    /// The platform has been told of the suspension.
    informed: bool,
    /// The platform was told to fence the source.
    fenced: bool,
    platform: bool,
    /// The log is read to its end before the suspension, but no longer than until then.
    read_until: Option<Instant>,
    suspend_sent: Option<Instant>,
    /// The port has taken the suspend command: no entry before can be the one that it closes the log with.
    suspend_submitted: bool,
    /// The destination was asked to resume, whatever it answered.
    resume_asked: bool,
    /// The life of the managing controller in which it was.
    suspended_in: Option<Generation>,
    stop_time: Option<Duration>,
    state: StatePhase,
    /// Translates the state into the specification's dialect, if the source has another one.
    translator: DialectTranslator,
    commit: Commit,

    cancelled: bool,
    failure: Option<Failure<M, H>>,
    resume_failures: u32,
    stuck: Option<CallError>,
    /// The destination may run with the guest's state, so the source must not.
    unsure: bool,
    suspend_pending: bool,
    clean_up: Option<CommandFailed>,
    outcome: Option<Outcome<M, H>>,
}

impl<'a, 's, M: Copy, H: Copy> SourceHalf<'a, 's, M, H> {
    /// A migration that has not begun. `dirty` has one map for each namespace of the controller, and `rounds` is
    /// where rounds are reported.
    #[must_use]
    pub fn new(options: MigrationOptions, mut dirty: DirtySet<'a, 's>, rounds: &'a mut [Round]) -> Self {
        dirty.clear();
        Self {
            discovery: Some(Discovery::new(options.quirks, options.timeouts.command)),
            options,
            arena: None,
            step: MigrationStep::Discover,
            entered: false,
            found: None,
            tracked: None,
            formats: None,
            call: Call::new(),
            purpose: Purpose::Other,
            deadline: Instant::ZERO,
            creation: None,
            queue: None,
            deletion: None,
            quarantined: None,
            figures: CdqFigures::default(),
            logging: false,
            clearing: false,
            head_failures: 0,
            head_updates: 0,
            opened: false,
            closed: false,
            lost: false,
            cut: false,
            recovery: Recovery::None,
            restarts: 0,
            unread: 0,
            dirty,
            baseline: Baseline::new(),
            mover: Mover::default(),
            rounds,
            made: 0,
            deltas: 0,
            stalled: 0,
            round: None,
            convergence: None,
            outbox: None,
            inbox: None,
            sequence: 0,
            answer_by: None,
            greeted: false,
            destination_suspended: false,
            guest: Guest::Running,
            informed: false,
            fenced: false,
            platform: true,
            read_until: None,
            suspend_sent: None,
            suspend_submitted: false,
            resume_asked: false,
            suspended_in: None,
            stop_time: None,
            state: StatePhase::Header,
            translator: DialectTranslator::new(),
            commit: Commit::No,
            cancelled: false,
            failure: None,
            resume_failures: 0,
            stuck: None,
            unsure: false,
            suspend_pending: false,
            clean_up: None,
            outcome: None,
        }
    }

    /// The step the migration is in.
    #[must_use]
    pub const fn step(&self) -> MigrationStep {
        self.step
    }

    /// How it ended, once it has.
    #[must_use]
    pub const fn outcome(&self) -> Option<&Outcome<M, H>> {
        self.outcome.as_ref()
    }

    /// The rounds made so far, as far as the lent slice holds them.
    #[must_use]
    pub fn rounds(&self) -> &[Round] {
        let made = usize::try_from(self.made).unwrap_or(usize::MAX).min(self.rounds.len());
        self.rounds.get(..made).unwrap_or_default()
    }

    /// Where the migration stands.
    #[must_use]
    pub fn progress(&self) -> Progress {
        let total = self.dirty.maps().iter().fold(0_u64, |sum, map| sum.saturating_add(map.blocks()));
        let (blocks, bytes) = self.mover.moved();
        Progress {
            total_blocks: total,
            remaining_blocks: self
                .baseline
                .remaining(self.dirty.maps())
                .saturating_add(self.dirty.dirty_blocks())
                .saturating_add(self.mover.on_their_way()),
            moved_blocks: blocks,
            moved_bytes: bytes,
        }
    }

    /// What the migration has done so far.
    #[must_use]
    pub fn summary(&self) -> Summary {
        let (blocks, bytes) = self.mover.moved();
        Summary {
            rounds: self.made,
            queue: self.queue.as_ref().map_or(self.figures, ControllerDataQueue::figures),
            blocks,
            bytes,
            restarts: self.restarts,
            convergence: self.convergence,
            stop_time: self.stop_time,
        }
    }

    /// The source's managing controller, once it has been identified.
    #[must_use]
    pub fn manager(&self) -> Option<&Manager> {
        self.found.as_ref().map(|found| &found.manager)
    }

    /// The formats agreed on, once they have been.
    #[must_use]
    pub const fn formats(&self) -> Option<FormatMatch> {
        self.formats
    }

    /// Memory of the queue that the managing controller may still write: release it after that controller has been
    /// disabled.
    pub fn take_quarantined(&mut self) -> Option<Quarantined> {
        self.quarantined.take()
    }

    /// Asks for the migration to be given up; accepted at any time before the destination is asked to resume.
    pub fn cancel(&mut self) -> Cancellation {
        if self.outcome.is_some() || self.commit != Commit::No || self.step.kind() == StepKind::Final {
            return Cancellation::TooLate;
        }
        self.cancelled = true;
        Cancellation::Accepted
    }

    /// The source's managing controller was disabled, of which `proof` is the evidence: that ended the suspension of
    /// a source that was stuck, and its queue. The memory goes back to `arena`, that controller's, and the platform is
    /// told that the source runs.
    ///
    /// Returns whether `arena` and `proof` are about the source's managing controller; otherwise nothing is done.
    ///
    /// # Errors
    /// What the platform says.
    pub fn manager_was_reset<A: DmaArena + ?Sized, V: Platform<Error = H> + ?Sized, L: LetGo>(
        &mut self,
        arena: &A,
        platform: &mut V,
        proof: &L,
    ) -> Result<bool, H> {
        let arena_of_source = dma::identity(arena);
        if self.arena != Some(arena_of_source) || !proof.covers(arena_of_source) {
            return Ok(false);
        }
        if let Some(memory) = self.quarantined.take() {
            memory.release(arena, proof);
        }
        if let Some(Outcome::SourceStuck { failure, .. }) = self.outcome {
            let told = match (self.informed, self.tracked) {
                (true, Some(tracked)) => platform.source_resumed(tracked.controller()),
                _ => Ok(()),
            };
            self.guest = Guest::Running;
            self.outcome = Some(Outcome::RolledBack {
                failure,
                platform: told.is_ok(),
                clean_up: None,
                suspend_pending: false,
            });
            told?;
        }
        Ok(true)
    }

    /// Takes out what is to be sent to the destination, once.
    pub fn take_request(&mut self) -> Option<RequestMessage> {
        self.outbox.take()
    }

    /// Takes an answer of the destination; one that is out of date is ignored.
    pub fn deliver(&mut self, message: ReplyMessage) {
        if message.sequence == self.sequence && self.answer_by.is_some() {
            self.inbox = Some(message.reply);
        }
    }

    /// Goes on. Never blocks; a call is bounded by the batch sizes of the options.
    pub fn poll<P, V, L>(&mut self, now: Instant, port: &mut P, mover: &mut V, platform: &mut L) -> Step
    where
        P: AdminPort + ?Sized,
        V: DataMover<Error = M> + ?Sized,
        L: Platform<Error = H> + ?Sized,
    {
        if self.outcome.is_some() {
            return Step::Done;
        }
        self.arena.get_or_insert(dma::identity(port.arena()));
        if self.cancelled && self.step.is_reversible() && self.commit == Commit::No {
            self.fail(Failure::Cancelled);
        }
        let advance = match self.step {
            MigrationStep::Discover => self.discover(now, port),
            MigrationStep::MatchFormats => self.match_formats(now),
            MigrationStep::CreateQueue => self.create_queue(now, port),
            MigrationStep::StartLog => self.start_log(now, port),
            MigrationStep::BaselineCopy => self.copy_baseline(now, port, mover),
            MigrationStep::DeltaRounds => self.copy_rounds(now, port, mover),
            MigrationStep::SuspendDestination => self.suspend_destination(now, port),
            MigrationStep::NotifySuspend => self.notify_suspend(now, port),
            MigrationStep::SuspendSource => self.suspend_source(now, port, platform),
            MigrationStep::Drain => self.drain_log(now, port),
            MigrationStep::FinalCopy => self.copy_rest(now, mover),
            MigrationStep::Flush => self.flush(now, mover),
            MigrationStep::GetState => self.get_state(now, port),
            MigrationStep::SetState => self.set_state(now, port),
            MigrationStep::ResumeDestination => self.resume_destination(now, port, platform),
            MigrationStep::DeleteQueue => Ok(self.delete_queue(now, port)),
            MigrationStep::Settle => Ok(self.settle(now, port)),
            MigrationStep::ForgetDestination => self.forget_destination(now),
            MigrationStep::ResumeSource => Ok(self.resume_source(now, port, platform)),
            MigrationStep::StopLog => Ok(self.stop_log(now, port)),
            MigrationStep::RemoveQueue => Ok(self.remove_queue(now, port)),
            MigrationStep::CancelMover => {
                Ok(if mover.cancel(now) { Advance::Next(MigrationStep::RolledBack) } else { Advance::Wait })
            }
            MigrationStep::Done | MigrationStep::RolledBack => {
                self.conclude();
                return Step::Done;
            }
        };
        match advance {
            Ok(Advance::Wait) => Step::Wait(now.after(self.options.timeouts.poll)),
            Ok(Advance::Soon) => {
                Step::Wait(now.after(self.options.timeouts.poll.checked_div(16).unwrap_or_default()))
            }
            Ok(Advance::Again) => Step::Again,
            Ok(Advance::Next(step)) => {
                self.enter(step);
                Step::Again
            }
            Err(failure) => {
                self.fail(failure);
                Step::Again
            }
        }
    }

    const fn enter(&mut self, step: MigrationStep) {
        self.step = step;
        self.entered = false;
    }

    /// Whether this is the step's first poll.
    const fn first(&mut self) -> bool {
        !core::mem::replace(&mut self.entered, true)
    }

    /// Leaves the way forward: back to the source, or, once the destination may run, only to cleaning up.
    fn fail(&mut self, failure: Failure<M, H>) {
        self.failure = self.failure.or(Some(failure));
        self.answer_by = None;
        self.inbox = None;
        match self.commit {
            Commit::No if self.step.is_reversible() => {
                self.outbox = None;
                self.enter(MigrationStep::Settle);
            }
            _ => self.enter(MigrationStep::DeleteQueue),
        }
    }

    fn manager_or<T>(&self, use_it: impl FnOnce(&Manager, TrackedId) -> T) -> Result<T, Failure<M, H>> {
        match (&self.found, self.tracked) {
            (Some(found), Some(tracked)) => Ok(use_it(&found.manager, tracked)),
            // Every step after the first has both.
            _ => Err(Failure::OutOfTurn),
        }
    }

    fn send(&mut self, request: AdminRequest, purpose: Purpose) {
        // Steps send one command and wait for it, so none is on its way here.
        let _ = self.call.start(request);
        self.purpose = purpose;
    }

    fn ask(&mut self, now: Instant, request: Request) {
        self.sequence = self.sequence.wrapping_add(1);
        self.outbox = Some(RequestMessage { sequence: self.sequence, request });
        self.inbox = None;
        self.answer_by = Some(now.after(self.options.timeouts.answer));
    }

    /// The answer, if it is there.
    fn answer(&mut self, now: Instant) -> Result<Option<Reply>, Failure<M, H>> {
        match (self.inbox.take(), self.answer_by) {
            (Some(reply), _) => {
                self.answer_by = None;
                Ok(Some(reply))
            }
            (None, Some(deadline)) if now.has_reached(deadline) => {
                self.answer_by = None;
                Err(Failure::NoAnswer)
            }
            _ => Ok(None),
        }
    }

    /// Whether the answer is there and says that it was done.
    fn done(&mut self, now: Instant) -> Result<bool, Failure<M, H>> {
        match self.answer(now)? {
            None => Ok(false),
            Some(Reply::Done) => Ok(true),
            Some(Reply::Failed(failure)) => Err(Failure::Destination(failure)),
            Some(_) => Err(Failure::OutOfTurn),
        }
    }

    /// Reads the log into the dirty maps and publishes the head; returns whether nothing new was left.
    fn pump<P: AdminPort + ?Sized>(
        &mut self,
        now: Instant,
        port: &mut P,
        force: bool,
    ) -> Result<bool, Failure<M, H>> {
        let Some(queue) = &mut self.queue else { return Ok(true) };
        let (drained, published) = queue.poll(port, &mut self.dirty, now, self.options.batch, force);
        let goes_with_suspend = self.options.delete_with_suspend && self.suspend_sent.is_some();
        match published {
            Ok(QueuePoll::Gone) => return Err(Failure::QueueGone),
            Ok(_) => {
                // An update that was only sent proves nothing yet.
                let updates = queue.figures().head_updates;
                if core::mem::replace(&mut self.head_updates, updates) != updates {
                    self.head_failures = 0;
                }
            }
            Err(_) if goes_with_suspend => {}
            Err(error) => {
                self.head_failures = self.head_failures.saturating_add(1);
                if self.head_failures >= HEAD_FAILURES {
                    return Err(Failure::Head(error));
                }
            }
        }
        self.note(&drained)?;
        // Nobody but this migration may stop the log, and before it asks for the suspension no entry may close it:
        // whoever did, changes are lost from there on.
        let stopped = drained.empty && self.recovery == Recovery::None && self.log_is(LogState::Stopped);
        let early = drained.suspended && !self.suspend_submitted && self.log_is(LogState::Suspended);
        if !self.lost && (stopped || early) {
            self.dirty.mark_all();
            (self.lost, self.cut) = (true, true);
        }
        Ok(drained.empty)
    }

    fn log_is(&self, state: LogState) -> bool {
        self.queue.as_ref().is_some_and(|queue| queue.log_state() == state)
    }

    fn note(&mut self, drained: &Drained) -> Result<(), Failure<M, H>> {
        self.lost |= drained.overflowed;
        self.cut |= drained.overflowed || drained.violation.is_some();
        self.opened |= drained.started;
        self.closed |= drained.suspended && self.suspend_submitted;
        match drained.unknown {
            Some(MarkError::OutOfRange(range))
                if range.excess() == 1
                    && range.start.get() < range.size
                    && self.options.quirks.contains(Quirks::DEALLOCATE_ONE_BLOCK_MORE) =>
            {
                Ok(())
            }
            Some(error) => Err(Failure::UnknownBlocks(error)),
            None => Ok(()),
        }
    }

    fn discover<P: AdminPort + ?Sized>(
        &mut self,
        now: Instant,
        port: &mut P,
    ) -> Result<Advance, Failure<M, H>> {
        let Some(discovery) = &mut self.discovery else { return Err(Failure::OutOfTurn) };
        let Some(found) = discovery.poll(port, now) else { return Ok(Advance::Wait) };
        self.discovery = None;
        let found = found.map_err(Failure::Manager)?;
        let id = found.manager.id().controller();
        if self.options.data == DataPath::Copy && !found.manager.tracks_user_data() {
            return Err(Failure::Manager(super::ManagerError::NoUserDataTracking(id)));
        }
        let log_format = found.manager.log_format();
        if self.options.data == DataPath::Copy && !log_format.is_type_0() {
            return Err(Failure::Manager(super::ManagerError::LogFormat(log_format.get())));
        }
        let tracked = found.manager.track(self.options.controller);
        self.tracked =
            Some(tracked.map_err(|error| Failure::Manager(super::ManagerError::TargetIsManager(error)))?);
        self.found = Some(found);
        Ok(Advance::Next(MigrationStep::MatchFormats))
    }

    fn match_formats(&mut self, now: Instant) -> Result<Advance, Failure<M, H>> {
        if self.first() {
            self.greeted = true;
            self.ask(now, Request::Hello { version: PROTOCOL_VERSION });
            return Ok(Advance::Again);
        }
        let page = match self.answer(now)? {
            None => return Ok(Advance::Wait),
            Some(Reply::Formats(page)) => page,
            Some(Reply::Failed(failure)) => return Err(Failure::Destination(failure)),
            Some(_) => return Err(Failure::OutOfTurn),
        };
        let Some(found) = &self.found else { return Err(Failure::OutOfTurn) };
        let parse = |page| {
            SupportedControllerStateFormats::parse(page)
                .map_err(|error| Failure::Manager(super::ManagerError::Identify(error)))
        };
        let (source, destination) = (parse(&found.formats)?, parse(&page)?);
        self.formats = Some(match_formats(&source, &destination).map_err(Failure::Formats)?);
        Ok(Advance::Next(match self.options.data {
            DataPath::Copy => MigrationStep::CreateQueue,
            DataPath::Shared => {
                self.baseline.finish();
                MigrationStep::SuspendDestination
            }
        }))
    }

    fn create_queue<P: AdminPort + ?Sized>(
        &mut self,
        now: Instant,
        port: &mut P,
    ) -> Result<Advance, Failure<M, H>> {
        if self.first() {
            let mut options = self.options.queue;
            let quirks = self.options.quirks;
            let limits = self.manager_or(|manager, _| manager.memory_limits())?;
            if options.limits == MemoryLimits::default() {
                options.limits = limits;
            }
            if quirks.contains(Quirks::CONTIGUOUS_QUEUES_ONLY) {
                options.layout = QueueLayout::Contiguous;
            }
            if quirks.contains(Quirks::TRIGGER_ONE_EARLY) {
                options.head.wake_after = options.head.wake_after.map(|after| after.saturating_add(1));
            }
            if quirks.contains(Quirks::EVENTS_ONCE) {
                options.head.wake_after = None;
            }
            let creation = self.manager_or(|_, tracked| CdqCreation::new(port, tracked, &options))?;
            self.creation = Some(creation.map_err(Failure::Memory)?);
        }
        let Some(created) = self.creation.as_mut().and_then(|creation| creation.poll(port, now)) else {
            return Ok(Advance::Wait);
        };
        self.creation = None;
        match created {
            Ok(queue) => {
                self.queue = Some(queue);
                Ok(Advance::Next(MigrationStep::StartLog))
            }
            Err(failed) => {
                self.quarantined = failed.quarantined;
                Err(command(MigrationCommand::CreateQueue, failed.error))
            }
        }
    }

    fn start_log<P: AdminPort + ?Sized>(
        &mut self,
        now: Instant,
        port: &mut P,
    ) -> Result<Advance, Failure<M, H>> {
        if self.first() {
            self.clearing = self.options.quirks.contains(Quirks::STOP_BEFORE_START);
            self.send_log(!self.clearing)?;
        }
        let Some(result) = self.call.poll(port, now) else { return Ok(Advance::Wait) };
        let ended = result.finish(port.arena());
        if core::mem::take(&mut self.clearing) {
            // There was something to stop, or not.
            self.send_log(true)?;
            return Ok(Advance::Again);
        }
        ended.map_err(|error| command(MigrationCommand::StartLog, error))?;
        Ok(Advance::Next(MigrationStep::BaselineCopy))
    }

    fn send_log(&mut self, start: bool) -> Result<(), Failure<M, H>> {
        let id = self.queue.as_ref().map(ControllerDataQueue::id).ok_or(Failure::OutOfTurn)?;
        let request = self.manager_or(|manager, _| manager.log_user_data(id, start))?;
        self.logging |= start;
        self.send(request, Purpose::Other);
        Ok(())
    }
}

const fn command<M, H>(command: MigrationCommand, error: CallError) -> Failure<M, H> {
    Failure::Command(CommandFailed { command, error })
}

// SPDX-License-Identifier: MIT OR Apache-2.0
//! Both halves of a migration in one process.

use super::destination::{DestinationHalf, DestinationOptions};
use super::host::{DataMover, Platform};
use super::options::{MigrationOptions, Progress, Round, Summary};
use super::source::{Cancellation, Outcome, SourceHalf};
use super::step::MigrationStep;
use crate::admin::AdminPort;
use crate::cdq::Quarantined;
use crate::dirty::DirtySet;
use crate::time::{Instant, Step};

/// The two managing controllers' admin queues. Made anew for each poll, because both controllers have to be polled
/// ([`Ready::poll`](crate::controller::Ready::poll)) in between.
#[derive(Debug)]
pub struct Ports<'p, S: ?Sized, D: ?Sized> {
    /// The source's.
    pub source: &'p mut S,
    /// The destination's.
    pub destination: &'p mut D,
}

/// A [`SourceHalf`] and a [`DestinationHalf`] and nothing between them but their messages.
///
/// `M` and `H` are the errors of the data mover and of the platform.
#[derive(Debug)]
pub struct Migrator<'a, 's, M, H> {
    source: SourceHalf<'a, 's, M, H>,
    destination: DestinationHalf<'a>,
}

impl<'a, 's, M: Copy, H: Copy> Migrator<'a, 's, M, H> {
    /// A migration that has not begun. `dirty` has one map for each namespace of the source controller, `rounds` is
    /// where rounds are reported, and `image` is where the controller state waits at the destination.
    #[must_use]
    pub fn new(
        source: MigrationOptions,
        destination: DestinationOptions,
        dirty: DirtySet<'a, 's>,
        rounds: &'a mut [Round],
        image: &'a mut [u8],
    ) -> Self {
        Self {
            source: SourceHalf::new(source, dirty, rounds),
            destination: DestinationHalf::new(destination, image),
        }
    }

    /// Goes on with both halves. Never blocks; a call is bounded by the batch sizes of the options. Completions do not come
    /// in here: poll both managing controllers before.
    pub fn poll<S, D, V, P>(
        &mut self,
        now: Instant,
        ports: Ports<'_, S, D>,
        mover: &mut V,
        platform: &mut P,
    ) -> Step
    where
        S: AdminPort + ?Sized,
        D: AdminPort + ?Sized,
        V: DataMover<Error = M> + ?Sized,
        P: Platform<Error = H> + ?Sized,
    {
        let source = self.source.poll(now, ports.source, mover, platform);
        if source == Step::Done {
            return Step::Done;
        }
        let mut exchanged = false;
        if let Some(request) = self.source.take_request() {
            self.destination.deliver(request);
            exchanged = true;
        }
        let destination = self.destination.poll(now, ports.destination, platform);
        if let Some(reply) = self.destination.take_reply() {
            self.source.deliver(reply);
            exchanged = true;
        }
        match (source, destination) {
            _ if exchanged => Step::Again,
            (Step::Wait(source), Step::Wait(destination)) => Step::Wait(source.min(destination)),
            _ => Step::Again,
        }
    }

    /// Asks for the migration to be given up; accepted at any time before the destination is asked to resume.
    pub fn cancel(&mut self) -> Cancellation {
        self.source.cancel()
    }

    /// The step the migration is in.
    #[must_use]
    pub const fn step(&self) -> MigrationStep {
        self.source.step()
    }

    /// Where it stands.
    #[must_use]
    pub fn progress(&self) -> Progress {
        self.source.progress()
    }

    /// The rounds made so far, as far as the lent slice holds them.
    #[must_use]
    pub fn rounds(&self) -> &[Round] {
        self.source.rounds()
    }

    /// What it has done so far.
    #[must_use]
    pub fn summary(&self) -> Summary {
        self.source.summary()
    }

    /// How it ended, once it has.
    #[must_use]
    pub const fn outcome(&self) -> Option<&Outcome<M, H>> {
        self.source.outcome()
    }

    /// Memory of the queue that the source's managing controller may still write: release it after that controller
    /// has been disabled.
    pub fn take_quarantined(&mut self) -> Option<Quarantined> {
        self.source.take_quarantined()
    }

    /// The source's half.
    #[must_use]
    pub const fn source(&self) -> &SourceHalf<'a, 's, M, H> {
        &self.source
    }

    /// The source's half, to be changed.
    pub const fn source_mut(&mut self) -> &mut SourceHalf<'a, 's, M, H> {
        &mut self.source
    }

    /// The destination's half.
    #[must_use]
    pub const fn destination(&self) -> &DestinationHalf<'a> {
        &self.destination
    }
}

// SPDX-License-Identifier: MIT OR Apache-2.0
//! `migrate`: a controller with one namespace from one subsystem to another, through both managing controllers.
//!
//! Before an operating system nobody is there who would have to be told of the switch. What keeps source and destination
//! from running both is bus mastering, which is taken from the one and given to the other, and that the one which must not run
//! is disabled at the end.

use core::fmt::Write;

use nvme_core::dirty::{DirtyMap, DirtySet, Granularity};
use nvme_core::dma::DmaArena;
use nvme_core::migration::{
    DestinationFailure, DestinationOptions, Failure, MigrationCommand, MigrationOptions, MigrationStep,
    Migrator, Outcome, Platform, Ports, Quirks, Round, Timeouts,
};
use nvme_core::register::RegisterIo;
use nvme_core::time::Step;
use nvme_core::wire::identify::{Capability, ControllerIdentity};
use nvme_core::wire::{ControllerId, ManagerId, NamespaceId, TrackedId};

use super::ending::{Ended, Ending, Given};
use super::mover::Mover;
use super::{CommandError, Fence};
use crate::session::{Session, SessionError};
use crate::sys::PciStatus;
use crate::takeover::Seen;
use crate::time::Wait;

/// Words of the map of changes, which lies on the stack of the firmware as all here: each bit stands for as many blocks as are needed.
const WORDS: usize = 512;
/// Rounds that are reported: the first, the last, and those that the options allow in between (16).
const ROUNDS: usize = 18;
/// Longest controller state in bytes: two sessions and this fit the stack of 128 KiB that a program has (UEFI 2.10 §2.3). A
/// longer one makes the migration fail before the source is suspended for good.
const STATE: usize = 4096;

/// What is to be migrated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Migration {
    /// The controller that is migrated, in the subsystem of the source.
    pub source: ControllerId,
    /// The controller that is to carry on, in that of the destination.
    pub destination: ControllerId,
    /// The namespace, by its identifier on both sides.
    pub namespace: NamespaceId,
}

/// What was not possible at the switch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum SwitchError {
    /// Bus mastering was not changed.
    Fence(PciStatus),
    /// Both sides have no format of controller state in common, and nobody here knows the registers of the source.
    NoCommonFormat,
}

struct Switch<'f> {
    source: &'f dyn Fence,
    destination: &'f dyn Fence,
    /// Whether the source had bus mastering before.
    source_was_through: bool,
}

impl Platform for Switch<'_> {
    type Error = SwitchError;

    fn source_suspended(&mut self, _source: ControllerId) -> Result<(), SwitchError> {
        Ok(())
    }

    fn fence_source(&mut self, _source: ControllerId) -> Result<(), SwitchError> {
        self.source.let_through(false).map_err(SwitchError::Fence)
    }

    fn unfence_source(&mut self, _source: ControllerId) -> Result<(), SwitchError> {
        match self.source_was_through {
            true => self.source.let_through(true).map_err(SwitchError::Fence),
            false => Ok(()),
        }
    }

    fn restore_properties(&mut self, _destination: ControllerId) -> Result<(), SwitchError> {
        Err(SwitchError::NoCommonFormat)
    }

    fn before_resume(&mut self, _destination: ControllerId) -> Result<(), SwitchError> {
        // One that nobody drove has neither: the guest could not ring its doorbells.
        let opened = self.destination.open_registers();
        opened.and_then(|()| self.destination.let_through(true)).map_err(SwitchError::Fence)
    }

    fn destination_resumed(&mut self, _destination: ControllerId) -> Result<(), SwitchError> {
        Ok(())
    }

    fn destination_forgotten(&mut self, _destination: ControllerId) -> Result<(), SwitchError> {
        self.destination.let_through(false).map_err(SwitchError::Fence)
    }

    fn source_resumed(&mut self, _source: ControllerId) -> Result<(), SwitchError> {
        Ok(())
    }
}

/// One side: the session of its managing controller, and the fence of the controller that is migrated.
pub struct Side<'v, 'd, 's, R, A: DmaArena, W: ?Sized> {
    /// The managing controller.
    pub session: &'v mut Session<'d, 's, R, A, W>,
    /// The fence.
    pub fence: &'v dyn Fence,
}

impl<R, A: DmaArena, W: ?Sized> core::fmt::Debug for Side<'_, '_, '_, R, A, W> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("Side").finish_non_exhaustive()
    }
}

fn check<R: RegisterIo, A: DmaArena, W: Wait + ?Sized>(
    session: &Session<'_, '_, R, A, W>,
    id: ControllerId,
) -> Result<(), CommandError> {
    TrackedId::new(id, ManagerId::new(session.identity().controller))
        .map(drop)
        .map_err(|_| CommandError::TargetIsManager(id.get()))
}

/// Whether two controllers are certainly of different subsystems: their names tell, or serial numbers where they have none.
fn are_of_different_subsystems(one: &ControllerIdentity, other: &ControllerIdentity) -> bool {
    one.subsystem_name != other.subsystem_name
        || one.subsystem_name.as_bytes().is_empty() && one.serial_number != other.serial_number
}

/// Whether the source of a migration is in use. The controller of a guest is enabled, so that its disable ends its suspension,
/// which its managing controller then tells: a function that is not enabled would be taken for it.
///
/// # Errors
/// [`CommandError::SourceNotInUse`].
pub(crate) fn is_in_use(source: &dyn Fence) -> Result<(), CommandError> {
    let seen = source.look();
    match seen.is_ok_and(Seen::is_in_use) {
        true => Ok(()),
        false => Err(CommandError::SourceNotInUse(source.location().ok(), seen)),
    }
}

/// Whether the destination certainly has not all of the state, where setting it did not succeed.
fn refuses_state(outcome: &Ended) -> bool {
    let (Outcome::RolledBack { failure, .. } | Outcome::SourceStuck { failure, .. }) = outcome else {
        return false;
    };
    match failure {
        Failure::Destination(DestinationFailure::Command(failed)) => {
            failed.command == MigrationCommand::SetState && failed.error.is_refusal()
        }
        Failure::Destination(
            DestinationFailure::State(_)
            | DestinationFailure::NotInOne { .. }
            | DestinationFailure::Memory(_)
            | DestinationFailure::Platform,
        ) => true,
        _ => false,
    }
}

/// Migrates. Afterwards at most one of the two controllers that are migrated between runs, also when the sessions are
/// closed: the other one is disabled and without bus mastering, and what was printed says so. `meanwhile` is called between two steps.
///
/// # Errors
/// A controller does not announce it, both are of one subsystem, the namespaces are not alike, the migration did not
/// complete, or the source is not seen to be disabled, or not to have been in use before, or the destination not to be in use
/// afterwards. A session is not to be closed if
/// [`CommandError::closes`] says so.
pub fn migrate<'d, 's, R: RegisterIo, A: DmaArena, W: Wait + ?Sized>(
    source: Side<'_, 'd, 's, R, A, W>,
    destination: Side<'_, 'd, 's, R, A, W>,
    what: &Migration,
    out: &mut dyn Write,
    meanwhile: &mut dyn FnMut(),
) -> Result<(), CommandError> {
    let (from, to) = (source.session, destination.session);
    from.identity().require(Capability::TrackUserData)?;
    to.identity().require(Capability::Migration)?;
    check(from, what.source)?;
    check(to, what.destination)?;
    if !are_of_different_subsystems(from.identity(), to.identity()) {
        return Err(CommandError::OneSubsystem);
    }
    let namespace = what.namespace;
    let shape = from.shape(namespace)?;
    if to.shape(namespace)? != shape {
        return Err(CommandError::Unlike);
    }
    let mut words = [0; WORDS];
    let bits = (WORDS as u64).saturating_mul(64);
    let granularity = Granularity::new(shape.blocks.div_ceil(bits).next_power_of_two());
    let map = granularity.and_then(|g| DirtyMap::new(namespace, shape.blocks, g, &mut words).ok());
    let mut maps = [map.ok_or(SessionError::NoNamespace(namespace))?];
    let dirty = DirtySet::new(&mut maps).map_err(SessionError::NoNamespace)?;
    let (mut rounds, mut image) = ([Round::default(); ROUNDS], [0; STATE]);
    let unfenced = SessionError::NoBusMastering;
    let mut ending = Ending {
        source: source.fence,
        destination: destination.fence,
        source_was_through: source.fence.is_through().map_err(unfenced)?,
        destination_was_through: destination.fence.is_through().map_err(unfenced)?,
        given: Given::Nothing,
        ids: [what.source, what.destination],
    };
    is_in_use(source.fence)?;
    let mut switch = Switch {
        source: source.fence,
        destination: destination.fence,
        source_was_through: ending.source_was_through,
    };
    let to_do = DestinationOptions {
        controller: what.destination,
        limits: None,
        quirks: Quirks::empty(),
        timeouts: Timeouts::default(),
    };
    let mut migrator =
        Migrator::new(MigrationOptions::new(what.source), to_do, dirty, &mut rounds, &mut image);
    let timeout = from.timeout();
    let one = from.lend_pair()?;
    let other = match to.lend_pair() {
        Ok(pair) => pair,
        Err(error) => {
            from.take_pair_back(one.0);
            return Err(error.into());
        }
    };
    let (mut mover, made) = Mover::new(one, other, (namespace, shape), timeout);
    let ready = made.map_err(SessionError::Memory).and_then(|()| {
        // It gets access to memory when it is about to be resumed.
        switch.destination.let_through(false).map_err(unfenced)
    });
    let ran = ready.map_err(CommandError::Session).map(|()| {
        loop {
            let now = from.now();
            // A controller that has failed makes the migration fail, which then says where the guest runs.
            let _ = from.controller().poll(now);
            let _ = to.controller().poll(now);
            let ports = Ports { source: from.controller().admin(), destination: to.controller().admin() };
            let step = migrator.poll(now, ports, &mut mover, &mut switch);
            ending.given = match migrator.step() {
                MigrationStep::SetState => Given::Part,
                MigrationStep::ResumeDestination => Given::Whole,
                _ => ending.given,
            };
            match step {
                Step::Done => return,
                Step::Again => {}
                Step::Wait(_) => from.nap(),
            }
            meanwhile();
        }
    });
    let (one, other) = mover.into_pairs();
    from.take_pair_back(one);
    to.take_pair_back(other);
    if let Some(memory) = migrator.take_quarantined() {
        from.keep(memory);
    }
    let outcome = match (ran, migrator.outcome()) {
        (Ok(()), Some(outcome)) => outcome,
        // Nothing was begun.
        (ran, _) => {
            let (ended, restored) = ending.back(to, out);
            ran?;
            restored?;
            return ended;
        }
    };
    let printed = migrator.rounds().iter().try_for_each(|round| {
        writeln!(
            out,
            "round {}: {} blocks, {} entries of the log, {} blocks left",
            round.number, round.blocks, round.entries, round.dirty_blocks
        )
    });
    if ending.given == Given::Part && !refuses_state(outcome) {
        ending.given = Given::Whole;
    }
    // Which of the two runs is settled and told whatever else fails.
    ending.settle(outcome, &migrator.summary(), [from, to], out)?;
    Ok(printed?)
}

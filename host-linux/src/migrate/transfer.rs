// SPDX-License-Identifier: MIT OR Apache-2.0
//! The migration itself: both managing controllers, the mover, and the step machine that uses them.

use std::cell::RefCell;
use std::io;
use std::path::PathBuf;
use std::time::Duration;

use nvme_core::admin::AdminSlot;
use nvme_core::cdq::{CdqOptions, HeadPolicy, QueueLayout};
use nvme_core::controller::{EnableOptions, Link, Quiesced};
use nvme_core::dirty::{DirtyMap, DirtySet, Granularity};
use nvme_core::dma::{DmaRegion, Pool};
use nvme_core::io::IoSlot;
use nvme_core::migration::{
    Cancellation, ConvergencePolicy, DestinationOptions, MigrationOptions, MigrationStep, Migrator, Outcome,
    Platform, Ports, Round, Summary, Timeouts,
};
use nvme_core::register::RegisterIo;
use nvme_core::time::{Instant, Step};
use nvme_core::wire::{ControllerId, QueueId};

use super::bench::{Bench, CC, Party, let_run};
use super::compare::Comparer;
use super::secondary::bring_online_as;
use super::{Observer, RunError, Status};
use crate::backend::{Registers, vector};
use crate::config::{CdqLayout, DataPath, MigrateConfig};
use crate::driver::{
    Clock, Controller, DriverError, Ending, Kept, QueuePair, Waiter, bring_up, create_pair,
    identify_controller, identify_namespace, request_queues, take_down, zeroes_limit,
};
use crate::guest::{Guest, GuestError};
use crate::journal::Side;
use crate::memory::AddressSpace;
use crate::mover::{Mover, MoverError, PIECE_BYTES, PIECES, Tag};
use crate::platform::{HostPlatform, PlatformError};
use crate::report::{ComparisonReport, EnabledReport, GuestReport};

const ADMIN_SLOTS: usize = 32;
/// Largest controller state that can be taken.
const STATE_BYTES: usize = 1 << 20;
/// Longest sleep of the migration.
const NAP: Duration = Duration::from_millis(1);
/// Time between two looks of an observer.
const OBSERVE: Duration = Duration::from_millis(50);
/// How often it is tried, and how far apart, to keep a destination from memory that failed to be: behind that it runs.
const FENCE_TRIES: u32 = 5;
const FENCE_AGAIN: Duration = Duration::from_secs(1);

/// What the migration did.
pub(super) struct Transfer {
    pub(super) outcome: Outcome<MoverError, PlatformError>,
    /// The source had to be resumed by a reset of its managing controller.
    pub(super) was_stuck: bool,
    /// The destination was asked to resume and did not say whether it did, and the guest was switched over to it once
    /// its managing controller had been reset.
    pub(super) was_forced: bool,
    /// The destination could not be kept from the guest's memory, so the source was, and whether that was done.
    pub(super) source_fenced: Option<bool>,
    /// The source, which runs again, could not be given its memory back.
    pub(super) unfence_failed: bool,
    /// The source's controller is a secondary one of its managing controller.
    pub(super) source_is_secondary: bool,
    /// The destination's is.
    pub(super) destination_is_secondary: bool,
    pub(super) step: MigrationStep,
    pub(super) cancelled_after: Option<MigrationStep>,
    /// Where an interruption cancelled it.
    pub(super) interrupted_in: Option<MigrationStep>,
    /// That was in a call of the platform, which failed for it.
    pub(super) was_interrupted_at_stop: bool,
    pub(super) summary: Summary,
    pub(super) rounds: Vec<Round>,
    pub(super) duration: Duration,
    pub(super) controller_data_left: u64,
    /// Why a managing controller could not be shut down after it all.
    pub(super) bring_down_error: Option<DriverError>,
    pub(super) journal: Option<PathBuf>,
    /// Both sides at the stop, if they were compared then.
    pub(super) comparison: Option<ComparisonReport>,
    /// What became of the guest.
    pub(super) after: After,
}

/// What became of the guest once the migration had ended.
pub(super) struct After {
    /// How it ended, if it is this program's.
    pub(super) guest: Option<Result<(), GuestError>>,
    pub(super) figures: GuestReport,
    /// Which of its controllers was enabled while it ran on.
    pub(super) enabled: EnabledReport,
}

/// A managing controller in use.
pub(super) struct Manager<'d, 's> {
    controller: Controller<'d, 's, Registers>,
    arena: &'d AddressSpace,
}

/// An I/O queue pair of a managing controller.
pub(super) type Pair<'d, 's> = QueuePair<'d, 's, Registers, Tag>;

/// Brings a managing controller up with a queue pair for each element of `io_slots`. If that fails it is disabled.
pub(super) fn bring_up_manager<'d, 's>(
    party: &'d Party,
    link: &'d Link,
    slots: &'s mut [AdminSlot],
    io_slots: &'s mut [Vec<IoSlot<Tag>>],
    waiter: Waiter<'_>,
) -> Result<(Manager<'d, 's>, Vec<Pair<'d, 's>>), DriverError> {
    let (arena, options) = (&*party.memory, EnableOptions::default());
    let mut controller = match bring_up(&party.manager, arena, link, slots, &options, waiter) {
        Ok(controller) => controller,
        Err(error) => {
            // Whatever state that has left it in.
            let _ = party.manager.write32(CC, 0);
            return Err(error);
        }
    };
    let mut pairs = Vec::new();
    let make_pairs = || {
        identify_controller(&mut controller, waiter)?;
        request_queues(&mut controller, io_slots.len() as u16, waiter)?;
        for (id, slots) in (1..).map(QueueId::new).zip(io_slots) {
            let vector = vector(party.vectors, id);
            pairs.push(create_pair(&mut controller, id, vector, PIECE_BYTES, slots, waiter)?);
        }
        Ok(())
    };
    let made = make_pairs();
    let manager = Manager { controller, arena };
    match made {
        Ok(()) => Ok((manager, pairs)),
        Err(error) => {
            let _ = end_manager(manager, pairs, Kept::default(), Ending::Orderly, waiter, |_| {});
            Err(error)
        }
    }
}

/// Takes a managing controller down, with its queue pairs and what was kept for it; calls `then` with the evidence that it
/// is disabled, if it is.
pub(super) fn end_manager(
    manager: Manager<'_, '_>,
    pairs: Vec<Pair<'_, '_>>,
    kept: Kept,
    ending: Ending,
    waiter: Waiter<'_>,
    then: impl FnOnce(&Quiesced<'_>),
) -> Result<(), DriverError> {
    take_down(manager.controller, pairs, manager.arena, kept, ending, waiter, then)
}

/// Queue pairs and buffers of both managing controllers, the source's first.
type Parts<'d, 's> = [(Vec<Pair<'d, 's>>, Vec<DmaRegion>); 2];

/// Takes what uses the managing controllers apart.
fn take_apart<'d, 's>(mover: Mover<'d, 's, Registers>, comparer: Option<Comparer<'d, 's>>) -> Parts<'d, 's> {
    let mut parts = mover.into_parts().map(|(pair, buffers)| (vec![pair], buffers));
    if let Some(comparer) = comparer {
        for ((pairs, buffers), (pair, more)) in parts.iter_mut().zip(comparer.into_parts()) {
            pairs.push(pair);
            buffers.extend(more);
        }
    }
    parts
}

/// Takes both managing controllers down before anything has been migrated. What went wrong before matters more than how
/// they go down.
fn give_up(managers: [Manager<'_, '_>; 2], parts: Parts<'_, '_>, waiter: Waiter<'_>) {
    for (manager, (pairs, buffers)) in managers.into_iter().zip(parts) {
        let kept = Kept { buffers, quarantined: Vec::new() };
        let _ = end_manager(manager, pairs, kept, Ending::Orderly, waiter, |_| {});
    }
}

/// The granularity of the map of changed blocks: blocks, unless the map would need more than 256 MiB.
fn granularity(blocks: u64) -> Granularity {
    const BITS: u64 = 1 << 31;
    let granule = blocks.div_ceil(BITS).max(1).next_power_of_two();
    Granularity::new(granule).unwrap_or(Granularity::BLOCK)
}

fn options(
    config: &MigrateConfig,
    source: &Party,
    block_size: u32,
    unallocated_reads_zero: bool,
    data: DataPath,
    timeouts: Timeouts,
) -> MigrationOptions {
    let head = match config.head_every {
        Some(every) => HeadPolicy { every, occupancy_percent: 0, when_idle: false, ..HeadPolicy::default() },
        None => HeadPolicy::default(),
    };
    let data = match data {
        DataPath::Copy => nvme_core::migration::DataPath::Copy,
        DataPath::Shared => nvme_core::migration::DataPath::Shared,
    };
    let layout = match config.cdq_layout {
        CdqLayout::Contiguous => QueueLayout::Contiguous,
        CdqLayout::PrpList => QueueLayout::PrpList,
    };
    MigrationOptions {
        queue: CdqOptions { entries: config.cdq_entries, layout, head, ..CdqOptions::default() },
        extent_blocks: (PIECE_BYTES as u64) / u64::from(block_size),
        max_rounds: config.max_rounds,
        stop_time_limit: config.stop_time_limit,
        convergence: if config.strict { ConvergencePolicy::Cancel } else { ConvergencePolicy::Force },
        unallocated_reads_zero,
        data,
        timeouts,
        quirks: source.quirks,
        ..MigrationOptions::new(source.controller)
    }
}

/// Whether a step that the migration went from `before` to `now` was `asked` or went past it.
fn has_passed(before: MigrationStep, now: MigrationStep, asked: MigrationStep) -> bool {
    before <= asked && now > asked
}

/// The platform, with a watch: its calls may take long, which must not use up the time-outs of the migration.
struct Timed<'p, 'd, 's> {
    platform: &'p mut HostPlatform<Registers>,
    comparer: Option<Comparer<'d, 's>>,
    comparison: Option<ComparisonReport>,
    /// In calls altogether.
    spent: Duration,
    /// In calls while the guest stands still.
    stopped: Duration,
    /// Whether the program is to end.
    is_interrupted: &'p dyn Fn() -> bool,
    /// A call was given up for that.
    was_interrupted: bool,
}

impl Timed<'_, '_, '_> {
    fn call(
        &mut self,
        stopped: bool,
        call: impl FnOnce(&mut HostPlatform<Registers>) -> Result<(), PlatformError>,
    ) -> Result<(), PlatformError> {
        let begun = std::time::Instant::now();
        let result = call(self.platform);
        self.spent(begun.elapsed(), stopped);
        self.was_interrupted |= result.is_err_and(|error| error.is_interruption());
        result
    }

    fn spent(&mut self, time: Duration, stopped: bool) {
        self.spent += time;
        if stopped {
            self.stopped += time;
        }
    }

    /// Compares both sides, if that is asked for.
    fn compare(&mut self) -> Result<(), PlatformError> {
        let Some(comparer) = &mut self.comparer else { return Ok(()) };
        let begun = std::time::Instant::now();
        let compared = comparer.run(Clock::new(), self.is_interrupted);
        self.spent(begun.elapsed(), true);
        let Some(report) = compared.map_err(PlatformError::Compare)? else {
            self.was_interrupted = true;
            return Err(PlatformError::Interrupted);
        };
        self.comparison = Some(report);
        match report.first_wrong {
            Some(first) => Err(PlatformError::Different { first, blocks: report.wrong }),
            None => Ok(()),
        }
    }
}

impl Platform for Timed<'_, '_, '_> {
    type Error = PlatformError;

    fn source_suspended(&mut self, source: ControllerId) -> Result<(), PlatformError> {
        self.call(true, |platform| platform.source_suspended(source))
    }

    fn fence_source(&mut self, _source: ControllerId) -> Result<(), PlatformError> {
        let is_interrupted = self.is_interrupted;
        self.call(true, |platform| platform.fence_source_unless(is_interrupted))
    }

    fn unfence_source(&mut self, source: ControllerId) -> Result<(), PlatformError> {
        self.call(true, |platform| platform.unfence_source(source))
    }

    fn restore_properties(&mut self, _destination: ControllerId) -> Result<(), PlatformError> {
        let is_interrupted = self.is_interrupted;
        self.call(true, |platform| platform.restore_properties_unless(is_interrupted))
    }

    fn before_resume(&mut self, _destination: ControllerId) -> Result<(), PlatformError> {
        self.compare()?;
        let is_interrupted = self.is_interrupted;
        self.call(true, |platform| platform.before_resume_unless(is_interrupted))
    }

    fn destination_resumed(&mut self, destination: ControllerId) -> Result<(), PlatformError> {
        self.call(false, |platform| platform.destination_resumed(destination))
    }

    fn destination_forgotten(&mut self, destination: ControllerId) -> Result<(), PlatformError> {
        self.call(true, |platform| platform.destination_forgotten(destination))
    }

    fn source_resumed(&mut self, source: ControllerId) -> Result<(), PlatformError> {
        self.call(false, |platform| platform.source_resumed(source))
    }
}

/// What moves and compares blocks, and whether deallocated ones read as zeroes.
type Prepared<'d, 's> = (Mover<'d, 's, Registers>, Option<Comparer<'d, 's>>, bool);

impl Bench {
    /// Brings the guest's controllers online as far as they are secondary ones, and makes what moves and compares blocks out of
    /// the queue `pairs` of both managing controllers.
    fn prepare<'d, 's>(
        &self,
        source: &mut Manager<'d, 's>,
        destination: &mut Manager<'d, 's>,
        pairs: &mut [Vec<Pair<'d, 's>>; 2],
        waiter: Waiter<'_>,
    ) -> Result<Prepared<'d, 's>, RunError> {
        let [source_pairs, destination_pairs] = pairs;
        let found =
            identify_namespace(&mut source.controller, self.namespace, waiter).map_err(RunError::Manager)?;
        let (blocks, block_size) = self.shape;
        if (found.blocks, found.block_bytes()) != self.shape {
            return Err(RunError::Input(format!(
                "namespace {} had {blocks} blocks of {block_size} bytes and has {} of {} now; leave it as it is meanwhile",
                self.namespace,
                found.blocks,
                found.block_bytes()
            )));
        }
        let zeroes_limit = zeroes_limit(&mut destination.controller, waiter).map_err(RunError::Manager)?;
        let none = || RunError::Manager(DriverError::Queues { needed: 1, granted: 0 });
        let mut comparer = None;
        if self.compare
            && let (Some(one), Some(other)) = (source_pairs.pop(), destination_pairs.pop())
        {
            let pairs = [(one, source.arena), (other, destination.arena)];
            let comparing = Comparer::new(pairs, self.namespace, self.shape, self.limits.mover);
            comparer = Some(comparing.map_err(RunError::Manager)?);
        }
        let mover = Mover::new(
            (source_pairs.pop().ok_or_else(none)?, source.arena),
            (destination_pairs.pop().ok_or_else(none)?, destination.arena),
            self.namespace,
            block_size.trailing_zeros(),
            self.limits.mover,
            zeroes_limit,
        );
        let mover = mover.map_err(RunError::Manager)?;
        let memory = &*self.guest_memory;
        if let Some(resources) = self.virtualization {
            let (primary, party) = (&mut destination.controller, &self.destination);
            bring_online_as(Side::Destination, primary, party, memory, resources, waiter)?;
        }
        if let Some(resources) = self.source_virtualization {
            let (primary, party) = (&mut source.controller, &self.source);
            bring_online_as(Side::Source, primary, party, memory, resources, waiter)?;
        }
        Ok((mover, comparer, found.deallocate_features & 7 == 1))
    }

    /// Lets the guest run on, and ends it.
    fn run_on(&self, guest: Option<Guest>, config: &MigrateConfig, observer: &impl Observer) -> After {
        // Where its registers lead nowhere it cannot go on, whatever the outcome says.
        let runs = self.platform.guest_runs();
        if let Some(guest) = guest.as_ref().filter(|_| runs) {
            let_run(guest, config.run_after, config.run_commands, observer);
        }
        let enabled = self.enabled();
        let (guest, figures) = match guest {
            Some(guest) if runs => {
                let figures = guest.figures();
                match guest.finish() {
                    Ok((figures, _)) => (Some(Ok(())), figures),
                    Err(error) => (Some(Err(error)), figures()),
                }
            }
            Some(guest) => (Some(Err(GuestError::Halted)), guest.halt(&self.token)),
            None => (None, GuestReport::default()),
        };
        if matches!(guest, Some(Err(_))) {
            // It did not come to shut its controller down.
            self.disable_both();
        }
        After { guest, figures, enabled }
    }

    /// Starts the guest, migrates it or tries to, and lets it run on to its end.
    ///
    /// # Errors
    /// What kept the guest from being started. The managing controllers are disabled then, too.
    pub(super) fn transfer(
        &mut self,
        config: &MigrateConfig,
        observer: &mut impl Observer,
    ) -> Result<Transfer, RunError> {
        // Stands still during the platform's calls.
        let mut waiter = Waiter { timeout: self.limits.admin, ..Waiter::new(Clock::new(), &*self.managers) };
        let (source_party, destination_party) = (&self.source, &self.destination);
        let (source_id, destination_id) = (source_party.controller, destination_party.controller);
        let links = [Link::new(), Link::new()];
        let [source_link, destination_link] = &links;
        let admin_slots = || (0..ADMIN_SLOTS).map(|_| AdminSlot::new()).collect::<Vec<_>>();
        // A queue pair for the data mover, and one for the comparison.
        let queues = 1 + usize::from(self.compare);
        let io_slots = || {
            let slots = || (0..PIECES + 1).map(|_| IoSlot::new()).collect::<Vec<IoSlot<Tag>>>();
            (0..queues).map(|_| slots()).collect::<Vec<_>>()
        };
        let (mut source_slots, mut destination_slots) = (admin_slots(), admin_slots());
        let (mut source_io, mut destination_io) = (io_slots(), io_slots());

        // All that could fail comes before anything runs, and what needs no controller before the controllers.
        let (blocks, block_size) = self.shape;
        let no_map = |error| RunError::Io("memory for the map of changed blocks", error);
        let granularity = granularity(blocks);
        let needed = granularity.words_needed(blocks).unwrap_or(usize::MAX);
        let mut words = Vec::new();
        words.try_reserve_exact(needed).map_err(|_| no_map(io::ErrorKind::OutOfMemory.into()))?;
        words.resize(needed, 0);
        let map = DirtyMap::new(self.namespace, blocks, granularity, &mut words);
        let mut maps = [map.map_err(|error| no_map(io::Error::other(error.to_string())))?];
        let dirty = DirtySet::new(&mut maps).map_err(|error| no_map(io::Error::other(error.to_string())))?;

        let (mut source, source_pairs) =
            bring_up_manager(source_party, source_link, &mut source_slots, &mut source_io, waiter)
                .map_err(RunError::Manager)?;
        let (slots, io) = (&mut destination_slots, &mut destination_io);
        let destination = bring_up_manager(destination_party, destination_link, slots, io, waiter);
        let (mut destination, destination_pairs) = match destination.map_err(RunError::Manager) {
            Ok(destination) => destination,
            Err(error) => {
                let kept = Kept::default();
                let _ = end_manager(source, source_pairs, kept, Ending::Orderly, waiter, |_| {});
                return Err(error);
            }
        };
        let mut pairs = [source_pairs, destination_pairs];
        let (mut mover, comparer, reads_zero) =
            match self.prepare(&mut source, &mut destination, &mut pairs, waiter) {
                Ok(prepared) => prepared,
                Err(error) => {
                    give_up([source, destination], pairs.map(|pairs| (pairs, Vec::new())), waiter);
                    return Err(error);
                }
            };
        match self.guest_setup.take().map(Guest::start).transpose() {
            Ok(guest) => self.guest = guest,
            Err(error) => {
                give_up([source, destination], take_apart(mover, comparer), waiter);
                self.disable_both();
                return Err(RunError::Guest(error));
            }
        }
        observer.update(&Status { step: "guest running".into(), ..Status::default() });
        self.let_run(config.run_before, config.run_commands, observer);
        // A guest that has failed says why at the end.
        let _ = self.guest.as_ref().map(Guest::verify);

        let mut rounds = vec![Round::default(); config.max_rounds as usize * 2 + 64];
        let mut image = vec![0; STATE_BYTES];
        let mut migrator = Migrator::new(
            options(config, source_party, block_size, reads_zero, self.data, self.limits.migration),
            DestinationOptions {
                controller: destination_id,
                limits: None,
                quirks: destination_party.quirks,
                timeouts: self.limits.migration,
            },
            dirty,
            &mut rounds,
            &mut image,
        );

        let begun = std::time::Instant::now();
        let observer = RefCell::new(observer);
        let is_interrupted = || observer.borrow().is_interrupted();
        let mut platform = Timed {
            platform: &mut self.platform,
            comparer,
            comparison: None,
            spent: Duration::ZERO,
            stopped: Duration::ZERO,
            is_interrupted: &is_interrupted,
            was_interrupted: false,
        };
        let mut observed = Instant::ZERO;
        let mut last_step = migrator.step();
        let mut cancelled_after = None;
        let mut interrupted_in = None;
        let mut stalls = 0;
        let outcome = loop {
            let now = waiter.now();
            // A manager that fails loses its commands, which is how the migration learns of it.
            let _ = source.controller.poll(now);
            let _ = destination.controller.poll(now);
            let ports =
                Ports { source: source.controller.admin(), destination: destination.controller.admin() };
            let step = migrator.poll(now, ports, &mut mover, &mut platform);
            waiter.clock = waiter.clock.behind(std::mem::take(&mut platform.spent));
            let current = migrator.step();
            if let Some(asked) = config.cancel_after
                && cancelled_after.is_none()
                && has_passed(last_step, current, asked)
            {
                cancelled_after = Some(asked);
                let _ = migrator.cancel();
            }
            if interrupted_in.is_none() && platform.was_interrupted {
                interrupted_in = Some(last_step);
            }
            last_step = current;
            if interrupted_in.is_none() && is_interrupted() && migrator.cancel() == Cancellation::Accepted {
                interrupted_in = Some(current);
            }
            let rounds_made = migrator.summary().rounds;
            // A round that an overflow cut short leaves data on their way: they would come over in no time.
            let stalls_now = config.stall_commands > 0
                && current == MigrationStep::DeltaRounds
                && stalls < rounds_made
                && mover.is_idle();
            if stalls_now {
                stalls = rounds_made;
                let begun = std::time::Instant::now();
                if let Some(guest) = &self.guest {
                    let_run(guest, Duration::ZERO, config.stall_commands, &**observer.borrow());
                }
                // What nobody looked after must not be given up for it.
                waiter.clock = waiter.clock.behind(begun.elapsed());
            }
            if self.guest.as_ref().is_some_and(Guest::has_failed) {
                let _ = migrator.cancel();
            }
            if now.since(observed) >= OBSERVE || step == Step::Done {
                observed = now;
                let progress = migrator.progress();
                observer.borrow_mut().update(&Status {
                    step: current.name().into(),
                    moved_bytes: progress.moved_bytes,
                    total_bytes: progress.moved_bytes + progress.remaining_blocks * u64::from(block_size),
                });
            }
            if let Some(outcome) = migrator.outcome().copied() {
                break outcome;
            }
            match step {
                Step::Done | Step::Again => {}
                Step::Wait(until) => {
                    self.managers.wait(until.since(waiter.now()).min(NAP));
                }
            }
        };
        let duration = begun.elapsed();
        let stopped = platform.stopped;
        let was_interrupted_at_stop = platform.was_interrupted;
        let comparison = platform.comparison;
        let comparer = platform.comparer.take();
        let mut summary = migrator.summary();
        summary.stop_time = summary.stop_time.map(|time| time + stopped);
        let step = migrator.step();
        let controller_data_left = self.source.memory.usage(Pool::ControllerData).bytes as u64;

        let [(source_pairs, source_buffers), (destination_pairs, destination_buffers)] =
            take_apart(mover, comparer);
        let mut destination_end = Some((destination, destination_pairs, destination_buffers));
        let mut end_destination = |ending, then: &mut dyn FnMut()| match destination_end.take() {
            Some((manager, pairs, buffers)) => {
                let kept = Kept { buffers, quarantined: Vec::new() };
                end_manager(manager, pairs, kept, ending, waiter, |_| then())
            }
            None => Ok(()),
        };
        // What the platform says of itself it keeps, and where the guest runs afterwards decides.
        let mut bring_down_error = None;
        let (mut is_stuck, mut forced) = (false, false);
        let (mut source_fenced, mut unfence_failed) = (None, false);
        let source_is_secondary = self.source_virtualization.is_some();
        let destination_is_secondary = self.virtualization.is_some();
        match outcome {
            Outcome::Indeterminate { resume_asked: true, .. } if destination_is_secondary => {
                // The reset takes it offline: it runs no more, and the guest would have nothing to go on with there.
                let _ = self.platform.destination_forgotten(destination_id);
                bring_down_error = end_destination(Ending::Reset, &mut || {}).err();
            }
            Outcome::Indeterminate { resume_asked: true, .. } => {
                // The reset ends the destination's suspension, so that it runs in any case.
                forced = true;
                let platform = &mut self.platform;
                let ended = end_destination(Ending::Reset, &mut || {
                    let _ = platform.go_forward(destination_id);
                });
                bring_down_error = ended.err();
            }
            Outcome::Indeterminate { resume_asked: false, .. } => {
                if fence_again(&mut self.platform, destination_id, &observer) {
                    // It never reached the guest's memory, and does not from here on.
                    is_stuck = true;
                    unfence_failed = !source_is_secondary && self.platform.lift_fence().is_err();
                } else {
                    // The end of its managing controller ends its suspension, and that of the source's the source's.
                    source_fenced = Some(self.platform.keep_source_fenced().is_ok());
                }
            }
            // The suspension may take effect yet, with nobody left to end it.
            Outcome::RolledBack { suspend_pending: true, .. } if source_is_secondary => is_stuck = true,
            Outcome::SourceStuck { .. } => is_stuck = true,
            Outcome::Completed { .. } | Outcome::RolledBack { .. } => {}
        }
        // A reset of its managing controller ends the suspension of a source that is stuck, but takes a secondary controller
        // offline.
        let was_stuck = is_stuck && !source_is_secondary;
        if is_stuck && source_is_secondary {
            self.endpoint.hold();
        }
        if !was_stuck && !self.platform.guest_runs() {
            // A reset of a managing controller ends suspensions, and then both sides would run with the guest's queues.
            self.disable_both();
        }
        // Only the source can have a Controller Data Queue.
        let kept =
            Kept { buffers: source_buffers, quarantined: migrator.take_quarantined().into_iter().collect() };
        let (arena, platform) = (source.arena, &mut self.platform);
        let ending = if is_stuck { Ending::Reset } else { Ending::Orderly };
        let mut source_end = Some((source, source_pairs, kept));
        let runs_there = platform.guest_runs() && platform.side() == Side::Source;
        if !(source_is_secondary && runs_there)
            && let Some((source, source_pairs, kept)) = source_end.take()
        {
            let ended = end_manager(source, source_pairs, kept, ending, waiter, |proof| {
                if source_is_secondary {
                    return;
                }
                let _ = migrator.source_mut().manager_was_reset(arena, platform, proof);
                if was_stuck && let Outcome::Indeterminate { resume_asked: false, .. } = outcome {
                    let _ = platform.source_resumed(source_id);
                }
            });
            bring_down_error = bring_down_error.or(ended.err());
        }
        let outcome = migrator.outcome().copied().unwrap_or(outcome);
        let guest_runs = self.platform.guest_runs();
        if !guest_runs {
            // The source was stuck and still is: nothing must bring it back later.
            self.disable_both();
        }
        drop(migrator);
        if !destination_is_secondary {
            bring_down_error = bring_down_error.or(end_destination(Ending::Orderly, &mut || {}).err());
        }
        let observer = observer.into_inner();
        let (moved_bytes, total_bytes) = (summary.bytes, summary.bytes);
        observer.update(&Status { step: "guest running on".into(), moved_bytes, total_bytes });
        let guest = self.guest.take();
        let after = self.run_on(guest, config, observer);
        // A primary controller that is disabled takes its secondary ones, among them the guest's, offline.
        bring_down_error = bring_down_error.or(end_destination(Ending::Orderly, &mut || {}).err());
        if let Some((source, source_pairs, kept)) = source_end {
            let ended = end_manager(source, source_pairs, kept, ending, waiter, |_| {});
            bring_down_error = bring_down_error.or(ended.err());
        }
        Ok(Transfer {
            source_is_secondary,
            destination_is_secondary,
            after,
            outcome,
            source_fenced,
            unfence_failed,
            was_stuck: was_stuck && guest_runs,
            was_forced: forced && guest_runs,
            step,
            cancelled_after,
            interrupted_in,
            was_interrupted_at_stop,
            summary,
            rounds: rounds.into_iter().take(summary.rounds as usize).collect(),
            duration,
            controller_data_left,
            bring_down_error,
            journal: self.journal.clone(),
            comparison,
        })
    }
}

/// Tries again to keep a destination that has the guest's state from memory; whether that worked.
fn fence_again(
    platform: &mut HostPlatform<Registers>,
    destination: ControllerId,
    observer: &RefCell<&mut impl Observer>,
) -> bool {
    let begun = std::time::Instant::now();
    for tries in 1..=FENCE_TRIES {
        let Err(error) = platform.destination_forgotten(destination) else { return true };
        let is_last = tries == FENCE_TRIES || begun.elapsed() >= platform.shell_limit();
        let next = if is_last { "it runs with that once this program ends" } else { "trying again in 1 s" };
        observer.borrow_mut().note(&format!(
            "the destination has the guest's state and could not be kept from its memory ({error}): {next}"
        ));
        if is_last {
            break;
        }
        std::thread::sleep(FENCE_AGAIN);
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_map_of_a_namespace_of_any_size_fits_in_256_mib() {
        let rows = [
            ("empty", 0, 1),
            ("small", 1, 1),
            ("8 TiB of 4 KiB", 1 << 31, 1),
            ("one block more", (1 << 31) + 1, 2),
            ("four times as many", 1 << 33, 4),
            ("all there can be", u64::MAX, 1 << 33),
        ];
        for (name, blocks, expected) in rows {
            let granularity = granularity(blocks);
            assert_eq!(granularity.blocks(), expected, "{name}");
            assert!(granularity.words_needed(blocks).is_some_and(|words| words <= 1 << 25), "{name}");
        }
    }
}

// SPDX-License-Identifier: MIT OR Apache-2.0
//! One run from beginning to end: two subsystems, a guest, the migration, and the proof that it was right.

mod bench;
mod compare;
mod controllers;
mod secondary;
mod transfer;

#[cfg(test)]
mod tests;

use std::fmt;
use std::io;
use std::time::Duration;

use nvme_core::dma::Pool;
use nvme_core::migration::{Convergence, Failure, Outcome};

use crate::address::Address;
use crate::announced::Unsupported;
use crate::backend::OpenError;
use crate::config::{Between, CdqLayout, MigrateConfig, Namespaces};
use crate::driver::DriverError;
use crate::embedded::StartError;
use crate::guest::GuestError;
use crate::images::Inputs;
use crate::journal::Side;
use crate::mover::MoverError;
use crate::platform::PlatformError;
use crate::report::{
    CdqReport, ComparisonReport, ConvergenceReport, FaultReport, LeftoverReport, Report, RoundReport, RunsOn,
    Setup, Verdict,
};
use crate::virtualization::VirtualizationError;
use bench::{Bench, Limits, fault_reports};
use transfer::Transfer;

/// Controller Data Queue entries of 32 bytes in a page, which one entry of the PRP list names.
const ENTRIES_PER_PAGE: u32 = 128;
/// How often a waiting run looks after its guest.
const LOOK: Duration = Duration::from_millis(20);

/// Where a run stands, for whoever watches it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Status {
    /// The step, in words.
    pub step: String,
    /// Bytes brought to the destination so far.
    pub moved_bytes: u64,
    /// Bytes that will have been brought there if nothing more changes.
    pub total_bytes: u64,
}

/// Watches a run.
pub trait Observer {
    /// The run stands here now. Called a few times a second.
    fn update(&mut self, status: &Status);

    /// Something the user should know now. What is known before the migration begins is in the report, too.
    fn note(&mut self, text: &str) {
        let _ = text;
    }

    /// Whether the run is to come to its end: the migration is cancelled if it still can be, and waits are cut short.
    /// Asked many times a second.
    fn is_interrupted(&self) -> bool {
        false
    }
}

/// Watches nothing.
impl Observer for () {
    fn update(&mut self, _status: &Status) {}
}

/// Why a run came to no result at all.
#[derive(Debug)]
pub enum RunError {
    /// A subsystem could not be started.
    Subsystem(StartError),
    /// The guest could not be started.
    Guest(GuestError),
    /// A managing controller could not be brought up.
    Manager(DriverError),
    /// The controller at this address could not be driven.
    Controller(Address, DriverError),
    /// The guest's controller on this side could not be brought online.
    Virtualization(Side, VirtualizationError),
    /// A file or memory could not be had.
    Io(&'static str, io::Error),
    /// A controller could not be opened.
    Open(OpenError),
    /// The controller at this address cannot do what a migration needs.
    Unsupported(Address, Unsupported),
    /// What the source's managing controller is known to leave out of its log, and convergence was to be strict.
    LosesChanges(String),
    /// What was asked does not fit the controllers, or each other; nothing was changed.
    Input(String),
    /// The program is to end, and nothing was begun.
    Interrupted,
}

impl fmt::Display for RunError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Subsystem(error) => write!(f, "subsystem: {error}"),
            Self::Guest(error) => write!(f, "guest: {error}"),
            Self::Manager(error) => write!(f, "managing controller: {error}"),
            Self::Virtualization(Side::Source, error) => write!(f, "bringing the source online: {error}"),
            Self::Virtualization(Side::Destination, error) => {
                write!(f, "bringing the destination online: {error}")
            }
            Self::Controller(address, error) => write!(f, "{address}: {error}"),
            Self::Io(what, error) => write!(f, "{what}: {error}"),
            Self::Open(error) => error.fmt(f),
            Self::Unsupported(address, unsupported) => write!(f, "{address}: {unsupported}"),
            Self::LosesChanges(text) => {
                write!(f, "{text}; without --strict it is migrated all the same; nothing was changed")
            }
            Self::Input(text) => f.write_str(text),
            Self::Interrupted => f.write_str("cancelled by a signal before the migration began"),
        }
    }
}

impl std::error::Error for RunError {}

/// Runs the guest, migrates it as `config` asks, and verifies everything. Takes as long as that takes.
///
/// # Errors
/// [`RunError`] if it could not even begin. A migration that fails is a [`Report`].
pub fn run(config: &MigrateConfig, inputs: Inputs, observer: &mut impl Observer) -> Result<Report, RunError> {
    let limits = config.command_timeout.map_or_else(Limits::default, Limits::after);
    let bench = Bench::start(config, &inputs, limits, observer)?;
    run_with(config, inputs.size, bench, Vec::new(), observer)
}

/// Migrates between controllers that are there already. The guest is this program's if both of its controllers are, and
/// writes generated data over the namespace then.
///
/// # Errors
/// As [`run`].
pub fn run_between(
    config: &MigrateConfig,
    between: &Between,
    observer: &mut impl Observer,
) -> Result<Report, RunError> {
    observer.update(&Status { step: "looking at the controllers".into(), ..Status::default() });
    let limits = config.command_timeout.map_or_else(Limits::default, Limits::after);
    let (config, size, bench, notes) = controllers::start(config, between, limits)?;
    notes.iter().for_each(|note| observer.note(note));
    run_with(&config, size, bench, notes, observer)
}

/// Goes on once everything has been started.
fn run_with(
    config: &MigrateConfig,
    size: u64,
    mut bench: Bench,
    notes: Vec<String>,
    observer: &mut impl Observer,
) -> Result<Report, RunError> {
    let transfer = match bench.transfer(config, observer) {
        Ok(transfer) => transfer,
        Err(error) => {
            bench.behind.end();
            return Err(error);
        }
    };
    let runs_on = RunsOn::from(bench.platform.guest_runs().then(|| bench.platform.side()));
    let memory_left = |pool| {
        [&bench.guest_memory, &bench.source.memory, &bench.destination.memory]
            .iter()
            .map(|space| space.usage(pool).bytes as u64)
            .sum::<u64>()
    };
    let leftovers = LeftoverReport {
        controller_data: transfer.controller_data_left,
        bytes: memory_left(Pool::Queues) + memory_left(Pool::Data) + memory_left(Pool::ControllerData),
    };
    let faults = fault_reports(&bench.faults);
    bench.behind.end();

    let watched = bench.witness.is_some() || bench.compare;
    let comparison = bench.witness.map_or(Ok(transfer.comparison), |witness| witness.finish());
    let (mut verdict, mut statement) = judge(&transfer, watched, &comparison, leftovers);
    if transfer.source_is_secondary || transfer.destination_is_secondary {
        statement.push_str(
            "; secondary controllers go offline with the end of this program, which resets their primary one",
        );
    }
    if let (Verdict::MigrationFailed, Some(error)) = (verdict, bench.platform.error()) {
        statement = format!("{statement} (platform: {error})");
    }
    if let Err(error) = bench.platform.conclude(&statement) {
        // The last thing to go wrong, but no less of a failure: the journal may name another step.
        verdict = Verdict::MigrationFailed;
        statement = format!("{statement}; the journal cannot be written: {error}");
    }
    let comparison = comparison.unwrap_or(None);
    Ok(report(
        config,
        size,
        transfer,
        Found { verdict, statement, notes, runs_on, comparison, leftovers, faults },
    ))
}

/// What was found out at the end.
struct Found {
    verdict: Verdict,
    statement: String,
    notes: Vec<String>,
    runs_on: RunsOn,
    comparison: Option<ComparisonReport>,
    leftovers: LeftoverReport,
    faults: Vec<FaultReport>,
}

fn judge(
    transfer: &Transfer,
    watched: bool,
    comparison: &io::Result<Option<ComparisonReport>>,
    leftovers: LeftoverReport,
) -> (Verdict, String) {
    let (guest, enabled) = (&transfer.after.guest, transfer.after.enabled);
    let runs_on = match guest {
        Some(_) => "the guest runs on at the source, verified",
        None => "the source was resumed; the guest is somebody else's and was not verified",
    };
    let runs_there = match guest {
        Some(_) => "the guest runs on there, verified",
        None => "the guest is somebody else's and was not verified",
    };
    let migrated = match guest {
        Some(Ok(())) => "migrated: the guest runs on at the destination, verified".into(),
        Some(Err(error)) => format!("migrated, but the guest failed: {error}"),
        None => "migrated".into(),
    };
    let failed = |what: String| (Verdict::MigrationFailed, what);
    let wrong = |what: String| (Verdict::VerificationFailed, what);
    if enabled.source == Some(true) && enabled.destination == Some(true) {
        return failed("both of the guest's controllers run: trust neither image".into());
    }
    let rolled_back = match &transfer.outcome {
        Outcome::Completed { platform: true, clean_up: None } => None,
        Outcome::Completed { clean_up: Some(error), .. } => {
            return failed(format!(
                "{migrated}; but the Controller Data Queue could not be deleted: {error}"
            ));
        }
        Outcome::Completed { .. } => {
            return failed(format!("{migrated}; but the platform failed after the resume"));
        }
        Outcome::RolledBack { failure, platform: true, clean_up: None, suspend_pending: false } => {
            Some(failure)
        }
        Outcome::RolledBack { failure, platform: true, clean_up: Some(error), suspend_pending: false }
            if !matches!(guest, Some(Err(_))) =>
        {
            return failed(format!(
                "{}; rolled back, {runs_on}, but the Controller Data Queue could not \
                 be deleted: {error}",
                show_failure(failure)
            ));
        }
        Outcome::RolledBack { failure, suspend_pending: true, .. } if transfer.source_is_secondary => {
            return failed(format!(
                "{}; the source may yet be suspended by a command that did not complete, and a reset of its managing \
                 controller, which ends that, takes it offline as a secondary controller; the guest stands still: the source's \
                 namespace holds every write acknowledged to it",
                show_failure(failure)
            ));
        }
        Outcome::RolledBack { failure, .. } => {
            let guest = match guest {
                Some(Err(error)) => format!("; the guest failed: {error}"),
                _ => String::new(),
            };
            return failed(format!("{}; rolled back, but not cleanly{guest}", show_failure(failure)));
        }
        Outcome::SourceStuck { failure, .. } | Outcome::Indeterminate { failure, .. }
            if transfer.was_stuck =>
        {
            Some(failure)
        }
        Outcome::Indeterminate { .. } if transfer.was_forced => None,
        Outcome::Indeterminate { failure, resume_asked: false } if transfer.source_fenced.is_some() => {
            let became = match (transfer.source_fenced, guest) {
                // Its own end would disable the destination, if that could be reached.
                (_, Some(_)) => {
                    "and the guest was halted. The end of this program, which resets both managing controllers, lets the \
                     destination run, with the commands that the guest had queued: disable it. The source holds every write \
                     acknowledged to the guest; start it again there"
                }
                (Some(true), None) => {
                    "so the source was. The end of this program, which resets both managing controllers, lets the destination \
                     run, with the commands that the guest had queued: what it acknowledges from then on is on its side only, \
                     everything before at the source. Let the guest go on at the destination; or disable that first, then let \
                     the source have its memory back and start the guest again there"
                }
                (_, None) => {
                    "nor could the source. The end of this program, which resets both managing controllers, lets both run with \
                     the guest's queues: disable both. The source holds every write acknowledged before, and each side what \
                     it acknowledges from then on"
                }
            };
            return failed(format!(
                "{}; the destination has the guest's state and could not be kept from its memory, {became}",
                show_failure(failure)
            ));
        }
        Outcome::SourceStuck { failure, .. } | Outcome::Indeterminate { failure, resume_asked: false }
            if transfer.source_is_secondary =>
        {
            let why = match &transfer.outcome {
                Outcome::SourceStuck { resume, .. } => format!("the source could not be resumed: {resume}"),
                _ => "the source is suspended".into(),
            };
            return failed(format!(
                "{}; {why}; a reset of its managing controller, which ends the suspension, takes it offline as a secondary \
                 controller; the guest stands still: the source's namespace holds every write acknowledged to it",
                show_failure(failure)
            ));
        }
        Outcome::SourceStuck { failure, resume } => {
            return failed(format!("{}; the source could not be resumed: {resume}", show_failure(failure)));
        }
        Outcome::Indeterminate { failure, resume_asked: true }
            if transfer.destination_is_secondary && transfer.bring_down_error.is_none() =>
        {
            return failed(format!(
                "{}; whether the destination ran is unknown: a reset of its managing controller took it offline as a secondary \
                 controller; the guest stands still: the source holds every write acknowledged to it, so start it again there",
                show_failure(failure)
            ));
        }
        Outcome::Indeterminate { failure, .. } => {
            return failed(format!(
                "{}; whether the destination runs is unknown, and the guest stands still: the source holds every write \
                 acknowledged to it",
                show_failure(failure)
            ));
        }
    };
    if let Some(Err(error)) = guest {
        return wrong(format!("the guest failed: {error}"));
    }
    if transfer.was_stuck
        && let Some(failure) = rolled_back
    {
        let but = match transfer.unfence_failed {
            true => ", but it could not be given its memory back: do that by hand",
            false => "",
        };
        return failed(format!(
            "{}; the source could only be resumed by a reset of its managing controller: {runs_there}{but}",
            show_failure(failure)
        ));
    }
    let comparison = match comparison {
        Ok(comparison) => comparison.as_ref(),
        Err(error) => return failed(format!("the namespaces could not be compared: {error}")),
    };
    if let Some(comparison) = comparison.filter(|comparison| comparison.wrong > 0) {
        return wrong(format!(
            "{} blocks differed between source and destination at the switch, the first is {}",
            comparison.wrong,
            comparison.first_wrong.unwrap_or(0)
        ));
    }
    if let (true, Outcome::Indeterminate { failure, .. }) = (transfer.was_forced, &transfer.outcome) {
        if watched && comparison.is_none() {
            return wrong("the namespaces were not compared".into());
        }
        return failed(format!(
            "{}; because the destination may have resumed, its managing controller was reset and the guest switched over \
             to it: {runs_there}",
            show_failure(failure)
        ));
    }
    if let Some(error) = transfer.bring_down_error {
        let what = match rolled_back {
            Some(failure) => format!("{}; rolled back, {runs_on}", show_failure(failure)),
            None => migrated,
        };
        return failed(format!("{what}; but a managing controller could not be shut down: {error}"));
    }
    if leftovers != LeftoverReport::default() {
        return failed(format!("{} bytes of device memory were not given back", leftovers.bytes));
    }
    if rolled_back.is_none() && watched && comparison.is_none() {
        return wrong("the namespaces were not compared".into());
    }
    match rolled_back {
        None if !watched && guest.is_none() => (
            Verdict::Migrated,
            "migrated; nothing was verified here, because the guest is somebody else's and the sides were not compared"
                .into(),
        ),
        None if !watched => (
            Verdict::Verified,
            "verified: the guest read back all it wrote; other blocks were not compared".into(),
        ),
        None if guest.is_none() => (
            Verdict::Verified,
            "verified: both namespaces were equal at the switch; the guest is somebody else's".into(),
        ),
        None => (
            Verdict::Verified,
            "verified: both namespaces were equal at the switch, and the guest read back all it wrote".into(),
        ),
        Some(failure)
            if transfer.interrupted_in.is_some()
                && (transfer.was_interrupted_at_stop || *failure == Failure::Cancelled) =>
        {
            let step = transfer.interrupted_in.map_or("?", |step| step.name());
            (Verdict::Interrupted, format!("cancelled by a signal in {step}; {runs_on}"))
        }
        Some(Failure::Cancelled) => {
            let step = transfer.cancelled_after.map_or("?", |step| step.name());
            (
                Verdict::Cancelled,
                format!("cancelled after {step} as asked; {runs_on}"),
            )
        }
        Some(Failure::NotConverged { dirty_blocks }) => (
            Verdict::NotConverged,
            format!("cancelled: not converged within the limits, {dirty_blocks} blocks left; {runs_on}"),
        ),
        Some(failure) => failed(format!(
            "{}; rolled back, {runs_on}",
            show_failure(failure)
        )),
    }
}

fn show_failure(failure: &Failure<MoverError, PlatformError>) -> String {
    match failure {
        Failure::Mover(error) => format!("moving data: {error}"),
        Failure::Platform(error) => format!("platform: {error}"),
        other => other.to_string(),
    }
}

fn convergence(config: &MigrateConfig, transfer: &Transfer) -> ConvergenceReport {
    let limit = config.stop_time_limit;
    let delta = transfer.rounds.iter().filter(|round| round.number > 0).count();
    let forced = if config.strict { "" } else { "; the last round was done anyway" };
    let statement = match transfer.summary.convergence {
        None => "not decided: the migration ended before".to_string(),
        Some(Convergence::Reached) => {
            format!("reached: the rest was expected to take no longer than {limit:?}")
        }
        Some(Convergence::RoundsExhausted) => {
            format!("not reached within {} rounds{forced}", config.max_rounds)
        }
        Some(Convergence::Stalled) => {
            format!("not reached: after {delta} rounds the rest did not become less any more{forced}")
        }
        Some(Convergence::Overflowed) => {
            let times = transfer.summary.queue.overflows;
            format!("not reached: the Controller Data Queue overflowed ({times} times in all){forced}")
        }
    };
    ConvergenceReport {
        reached: transfer.summary.convergence == Some(Convergence::Reached),
        statement,
        limit_us: micros(limit),
    }
}

fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

fn report(config: &MigrateConfig, size: u64, transfer: Transfer, found: Found) -> Report {
    let (source_image, destination_image) = match &config.namespaces {
        Namespaces::Memory { .. } | Namespaces::Controllers(_) => (None, None),
        Namespaces::Images { source, destination } => (Some(source.clone()), Some(destination.clone())),
    };
    let rounds = transfer.rounds.iter().map(|round| RoundReport {
        round: round.number,
        entries: round.entries,
        blocks: round.blocks,
        bytes: round.bytes,
        duration_us: micros(round.duration),
        dirty_blocks: round.dirty_blocks,
        cut_short: round.cut_short,
    });
    let queue = transfer.summary.queue;
    let list_entries = match config.cdq_layout {
        CdqLayout::Contiguous => 0,
        CdqLayout::PrpList => config.cdq_entries.div_ceil(ENTRIES_PER_PAGE),
    };
    Report {
        verdict: found.verdict,
        statement: found.statement,
        notes: found.notes,
        guest_runs_on: found.runs_on,
        setup: Setup {
            source_image,
            destination_image,
            size,
            block_size: config.block_size,
            queue_depth: config.queue_depth,
            io_queues: config.io_queues,
            io_size: config.io_size,
            pattern: config.pattern,
            read_percent: config.read_percent,
            write_rate: config.write_rate,
            seed: config.seed,
        },
        last_step: transfer.step.name().into(),
        rounds: rounds.collect(),
        cdq: CdqReport {
            capacity: config.cdq_entries,
            layout: config.cdq_layout,
            list_entries,
            entries: queue.entries,
            head_updates: queue.head_updates,
            events: queue.tail_events + queue.full_events,
            highest_fill: queue.highest_fill,
            overflows: queue.overflows,
        },
        total_bytes: transfer.summary.bytes,
        stop_time_us: transfer.summary.stop_time.map(micros),
        duration_us: micros(transfer.duration),
        convergence: convergence(config, &transfer),
        guest: transfer.after.figures,
        comparison: found.comparison,
        enabled: transfer.after.enabled,
        leftovers: found.leftovers,
        faults: found.faults,
        journal: transfer.journal,
    }
}

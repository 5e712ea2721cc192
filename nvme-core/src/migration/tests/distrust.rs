// SPDX-License-Identifier: MIT OR Apache-2.0
//! Controllers that say less or more than the truth: what they say decides only where it can be checked.

use super::super::*;
use super::bench::{Bench, Called, Guest, SOURCE};
use super::faults::arenas;
use crate::dirty::Granularity;
use crate::fake::{Fault, Rule, Running};
use crate::wire::lba_migration::{Change, EntrySequence};
use crate::wire::{Lba, NamespaceId, StatusCode};

#[test]
fn r9_an_entry_that_closes_the_log_before_the_suspension_closes_nothing() {
    for step in [MigrationStep::BaselineCopy, MigrationStep::DeltaRounds, MigrationStep::SuspendDestination] {
        let arenas = arenas();
        let mut bench = Bench::new(&arenas);
        bench.hook = Some((step, |source, id| {
            assert!(source.post(id, EntrySequence::LastSuspended, Change::None));
        }));
        // The true one comes late, so that the false one would be taken for it.
        bench.source.device.no_marker = true;
        bench.late_marker = true;
        bench.options.quirks = Quirks::STOP_BEFORE_RESTART;
        let ran = bench.run();
        bench.assert_migrated(&ran);
        assert!(ran.summary.restarts > 0, "{step}: the log was begun anew");
    }
}

#[test]
fn r9_a_log_that_never_opened_is_not_complete() {
    let arenas = arenas();
    let mut bench = Bench::new(&arenas);
    bench.source.device.mute_start = true;
    bench.source.device.no_marker = true;
    bench.late_marker = true;
    let ran = bench.run();
    // The guest wrote while nothing was logged.
    bench.assert_migrated(&ran);
    assert_eq!(ran.summary.convergence, Some(Convergence::Overflowed));

    let mut bench = Bench::new(&arenas);
    bench.source.device.mute_start = true;
    bench.source.device.no_marker = true;
    bench.late_marker = true;
    bench.options.convergence = ConvergencePolicy::Cancel;
    let ran = bench.run();
    bench.assert_rolled_back(&ran, "copying everything while the guest stands still was not asked for");
}

#[test]
fn r9_a_suspended_controller_that_goes_on_logging_ends_the_migration() {
    let arenas = arenas();
    let mut bench = Bench::new(&arenas);
    bench.options.batch = 1;
    bench.options.timeouts.marker = core::time::Duration::from_millis(1);
    bench.hook = Some((MigrationStep::Drain, |source, id| {
        let change = Change::Range {
            namespace: NamespaceId::new(1),
            start: Lba::new(3),
            blocks: 1,
            deallocated: false,
        };
        let _ = source.post(id, EntrySequence::Ordinary, change);
    }));
    bench.hook_every = Some(1);
    let ran = bench.run();
    bench.assert_rolled_back(&ran, "endless log");
    let Outcome::RolledBack { failure, .. } = ran.outcome else { panic!("{:?}", ran.outcome) };
    assert_eq!(failure, Failure::NoSuspendMarker);
    assert_eq!(bench.options.queue.entries, 64);
    assert_eq!(Granularity::BLOCK, Granularity::BLOCK);
}

#[test]
fn r10_a_reset_of_the_source_manager_after_the_state_was_read_keeps_the_destination_from_running() {
    let steps = [
        MigrationStep::Drain,
        MigrationStep::FinalCopy,
        MigrationStep::Flush,
        MigrationStep::GetState,
        MigrationStep::SetState,
        MigrationStep::ResumeDestination,
    ];
    for step in steps {
        for noticed in [true, false] {
            let arenas = arenas();
            let mut bench = Bench::new(&arenas);
            bench.hook = Some(if noticed {
                (step, |source, _| source.disable())
            } else {
                // Nobody tells the driver: the controller reset itself.
                (step, |source, _| source.device.reset())
            });
            bench.options.timeouts.marker = core::time::Duration::from_millis(5);
            let ran = bench.run();
            let name = std::format!("{step}, {}", if noticed { "noticed" } else { "not noticed" });
            assert!(matches!(ran.outcome, Outcome::RolledBack { .. }), "{name}: {:?}", ran.outcome);
            assert_eq!(bench.source.device.running, Running::Running, "{name}");
            assert_eq!(bench.platform.guest, Guest::AtSource, "{name}");
            assert_eq!(bench.destination.count(0x41, 1), 0, "{name}: the destination was never asked");
        }
    }
}

#[test]
fn head_updates_that_fail_late_end_the_migration_at_the_third() {
    let arenas = arenas();
    let mut bench = Bench::new(&arenas);
    // Each completion comes a few polls after the command, so that no failure is seen in the poll that sent it.
    bench.source.late_heads = Some(StatusCode::INTERNAL_ERROR);
    let ran = bench.run();
    bench.assert_rolled_back(&ran, "heads that fail late");
    let Outcome::RolledBack { failure, .. } = ran.outcome else { panic!("{:?}", ran.outcome) };
    assert!(matches!(failure, Failure::Head(_)), "{failure:?}");
    assert_eq!(bench.source.count(0x09, 0x21), 3);
}

#[test]
fn a_destination_that_does_not_forget_leaves_a_source_that_never_stopped_running() {
    let arenas = arenas();
    let mut bench = Bench::new(&arenas);
    bench.mover.breaks_at = Some(3);
    bench.platform.breaks = Some(Called::Forgotten);
    let ran = bench.run();
    bench.assert_rolled_back(&ran, "no state was handed over");
    let _ = (SOURCE, Fault::TimesOut, Rule::new(0, 0, Fault::TimesOut));
}

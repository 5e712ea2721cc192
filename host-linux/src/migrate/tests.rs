// SPDX-License-Identifier: MIT OR Apache-2.0
//! Runs that go wrong at the switch, and runs that take longer there than any time-out.

use std::cell::Cell;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::time::{Duration, Instant};

use nvme_core::admin::AdminSlot;
use nvme_core::controller::Link;
use nvme_core::io::IoSlot;
use nvme_core::migration::Timeouts;
use nvme_core::register::{Offset, RegisterIo};
use nvme_core::wire::identify::SecondaryController;

use super::*;
use crate::driver::{Clock, Ending, Kept, Waiter};
use crate::embedded::ControllerRole;
use crate::report::{EnabledReport, LeftoverReport, RunsOn};
use crate::virtualization::Resources;

fn config(at_stop: String) -> MigrateConfig {
    MigrateConfig {
        namespaces: Namespaces::Memory { size: 4 << 20 },
        queue_depth: 8,
        run_before: Duration::ZERO,
        run_after: Duration::ZERO,
        run_commands: 50,
        at_stop: Some(at_stop),
        ..MigrateConfig::default()
    }
}

const LIMITS: Limits = Limits {
    migration: Timeouts {
        command: Duration::from_secs(2),
        suspend: Duration::from_secs(4),
        marker: Duration::from_secs(4),
        answer: Duration::from_secs(4),
        poll: Duration::from_micros(500),
    },
    guest: Duration::from_secs(4),
    mover: Duration::from_secs(4),
    admin: Duration::from_secs(4),
};

fn wait_for(path: &Path) {
    let until = Instant::now() + Duration::from_secs(60);
    while !path.exists() {
        assert!(Instant::now() < until, "{} does not appear", path.display());
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn a_command_at_stop_longer_than_every_time_out_changes_nothing_but_the_stop_time() {
    let config = config("sleep 5".into());
    let inputs = Inputs::open(&config, None).expect("inputs");
    let bench = Bench::start(&config, &inputs, LIMITS, &mut ()).expect("bench");
    let report = run_with(&config, inputs.size, bench, Vec::new(), &mut ()).expect("run");
    assert_eq!(report.verdict, Verdict::Verified, "{}", report.statement);
    assert!(report.stop_time_us.is_some_and(|time| time >= 5_000_000), "{:?}", report.stop_time_us);
    assert!(report.duration_us >= 5_000_000, "{}", report.duration_us);
    assert_eq!(report.enabled, EnabledReport { source: Some(false), destination: Some(true) });
}

fn content(file: &File) -> Vec<u8> {
    let mut bytes = vec![0; file.metadata().expect("length").len() as usize];
    file.read_exact_at(&mut bytes, 0).expect("read");
    bytes
}

/// Resets a managing controller while the command at stop runs, which then ends with `status`: the source has been looked
/// at for the last time. The report comes with the source's content in that moment and at the end.
fn with_manager_reset(of_source: bool, status: u8) -> (Report, [Vec<u8>; 2]) {
    with_manager_reset_as(of_source, status, [false; 2])
}

/// Starts a bench in which the guest's controller at the source, and that at the destination, may be secondary ones.
fn start_as(config: &MigrateConfig, inputs: &Inputs, are_secondary: [bool; 2]) -> Bench {
    let role = |is_secondary| {
        if is_secondary { ControllerRole::Secondary(bench::MANAGER) } else { ControllerRole::Migratable }
    };
    let mut bench = Bench::start_as(config, inputs, LIMITS, are_secondary.map(role), &mut ()).expect("bench");
    let resources = Resources { queues: config.io_queues + 1, interrupts: config.io_queues + 1 };
    bench.source_virtualization = are_secondary[0].then_some(resources);
    bench.virtualization = are_secondary[1].then_some(resources);
    bench
}

/// As [`with_manager_reset`], between controllers as [`start_as`] makes them.
fn with_manager_reset_as(of_source: bool, status: u8, are_secondary: [bool; 2]) -> (Report, [Vec<u8>; 2]) {
    let dir = tempfile::tempdir().expect("directory");
    let (stopped, go) = (dir.path().join("stopped"), dir.path().join("go"));
    let at_stop = format!(
        "touch '{}'; while [ ! -e '{}' ]; do sleep 0.01; done; exit {status}",
        stopped.display(),
        go.display()
    );
    // So many commands that the controller has not fetched all of them when it stops.
    let config = MigrateConfig { queue_depth: 256, read_percent: 0, ..config(at_stop) };
    let inputs = Inputs::open(&config, None).expect("inputs");
    let bench = start_as(&config, &inputs, are_secondary);
    let side = if of_source { &bench.source } else { &bench.destination };
    let manager = side.manager.clone();
    let report = std::thread::scope(|scope| {
        let at_stop = scope.spawn(|| {
            wait_for(&stopped);
            let before = content(&inputs.source);
            manager.write32(Offset::new(0x14), 0).expect("reset");
            while manager.read32(Offset::new(0x1C)).expect("status") & 1 != 0 {
                std::thread::yield_now();
            }
            // Time for a controller that is released to work.
            std::thread::sleep(Duration::from_millis(50));
            std::fs::write(&go, "").expect("go");
            before
        });
        let report = run_with(&config, inputs.size, bench, Vec::new(), &mut ()).expect("a report");
        (report, at_stop.join().expect("at stop"))
    });
    (report.0, [report.1, content(&inputs.source)])
}

#[test]
fn r10_a_source_released_between_the_last_look_and_the_resume_does_not_run() {
    let (report, [at_stop, at_end]) = with_manager_reset(true, 0);
    assert_eq!(report.guest_runs_on, RunsOn::Destination, "{}", report.statement);
    assert_eq!(
        report.enabled,
        EnabledReport { source: Some(false), destination: Some(true) },
        "{}",
        report.statement
    );
    assert!(at_stop == at_end, "the source changed after the last look at it");
    let comparison = report.comparison.expect("compared");
    assert_eq!((comparison.equal, comparison.wrong), (comparison.blocks, 0), "{comparison:?}");
    assert_eq!(report.guest.error, None, "{}", report.statement);
    assert!(report.guest.commands_after >= 50 && report.guest.verified_after > 0, "{:?}", report.guest);
}

#[test]
fn r10_the_guest_goes_forward_when_nobody_knows_whether_the_destination_was_resumed() {
    // The reset ends the destination's suspension, and its manager does not answer any more.
    let (report, [at_stop, at_end]) = with_manager_reset(false, 0);
    assert_eq!(report.verdict, Verdict::MigrationFailed, "{}", report.statement);
    assert!(report.statement.contains("the guest runs on there, verified"), "{}", report.statement);
    assert_eq!(
        report.enabled,
        EnabledReport { source: Some(false), destination: Some(true) },
        "{}",
        report.statement
    );
    assert_eq!(report.guest_runs_on, RunsOn::Destination, "{}", report.statement);
    assert!(at_stop == at_end, "the source changed after the last look at it");
    let comparison = report.comparison.expect("compared");
    assert_eq!((comparison.equal, comparison.wrong), (comparison.blocks, 0), "{comparison:?}");
    assert_eq!(report.guest.error, None, "{}", report.statement);
    assert!(report.guest.commands_after >= 50 && report.guest.verified_after > 0, "{:?}", report.guest);
    assert_eq!(report.leftovers, LeftoverReport::default());
}

#[test]
fn r10_a_source_that_cannot_be_resumed_runs_on_after_the_reset_of_its_manager() {
    let (report, _) = with_manager_reset(true, 1);
    assert_eq!(report.verdict, Verdict::MigrationFailed, "{}", report.statement);
    assert!(report.statement.contains("reset of its managing controller"), "{}", report.statement);
    assert_eq!(
        report.enabled,
        EnabledReport { source: Some(true), destination: Some(false) },
        "{}",
        report.statement
    );
    assert_eq!(report.guest_runs_on, RunsOn::Source);
    assert_eq!(report.guest.error, None, "{}", report.statement);
    assert!(report.guest.commands_after >= 50 && report.guest.verified_after > 0, "{:?}", report.guest);
}

#[test]
fn r10_a_guest_is_not_let_go_on_with_a_secondary_controller_that_went_offline() {
    // A reset of its manager ends its suspension, and takes it offline.
    let rows = [
        (
            "nobody knows whether the destination resumed",
            false,
            0,
            [false, true],
            "whether the destination ran is unknown",
        ),
        (
            "the same, with a secondary controller at the source",
            false,
            0,
            [true, true],
            "took it offline as a secondary",
        ),
        ("the source cannot be resumed", true, 1, [true, false], "the source could not be resumed"),
        (
            "the same, with a secondary controller at the destination",
            true,
            1,
            [true, true],
            "takes it offline as a secondary",
        ),
    ];
    for (name, of_source, status, are_secondary, words) in rows {
        let (report, [at_stop, at_end]) = with_manager_reset_as(of_source, status, are_secondary);
        let statement = &report.statement;
        assert_eq!(report.verdict, Verdict::MigrationFailed, "{name}: {statement}");
        assert!(
            statement.contains(words) && statement.contains("the guest stands still"),
            "{name}: {statement}"
        );
        assert_eq!(
            report.enabled,
            EnabledReport { source: Some(false), destination: Some(false) },
            "{name}: {statement}"
        );
        assert_eq!(report.guest_runs_on, RunsOn::Nowhere, "{name}: {statement}");
        assert_eq!(report.guest.commands_after, 0, "{name}: {statement}");
        assert!(at_stop == at_end, "{name}: the source changed after the last look at it");
    }
}

#[test]
fn a_guest_runs_on_with_a_secondary_controller_wherever_the_migration_ends() {
    let (source, destination) = (
        EnabledReport { source: Some(true), destination: Some(false) },
        EnabledReport { source: Some(false), destination: Some(true) },
    );
    let rows = [
        ("migrated", "true", [true, true], Verdict::Verified, destination),
        ("migrated from one", "true", [true, false], Verdict::Verified, destination),
        ("migrated to one", "true", [false, true], Verdict::Verified, destination),
        ("rolled back", "exit 1", [true, true], Verdict::MigrationFailed, source),
        ("rolled back from one", "exit 1", [false, true], Verdict::MigrationFailed, source),
        ("rolled back to one", "exit 1", [true, false], Verdict::MigrationFailed, source),
    ];
    for (name, at_stop, are_secondary, verdict, enabled) in rows {
        let config = config(at_stop.into());
        let inputs = Inputs::open(&config, None).expect("inputs");
        let bench = start_as(&config, &inputs, are_secondary);
        let report = run_with(&config, inputs.size, bench, Vec::new(), &mut ()).expect("a report");
        let statement = &report.statement;
        assert_eq!(report.verdict, verdict, "{name}: {statement}");
        assert_eq!(report.enabled, enabled, "{name}: {statement}");
        assert!(
            verdict == Verdict::Verified || statement.contains("rolled back, the guest runs on"),
            "{name}: {statement}"
        );
        assert!(statement.contains("go offline with the end of this program"), "{name}: {statement}");
        assert_eq!(report.guest.error, None, "{name}: {statement}");
        assert!(report.guest.commands_after >= 50, "{name}: {:?}", report.guest);
        assert_eq!(report.leftovers, LeftoverReport::default(), "{name}");
    }
}

#[test]
fn a_secondary_controller_at_the_source_gets_what_it_had() {
    let entry = |online, queues, interrupts| SecondaryController {
        controller: bench::SOURCE,
        primary: bench::MANAGER,
        online,
        virtual_function: 1,
        queues,
        interrupts,
    };
    let config = MigrateConfig { io_queues: 4, ..MigrateConfig::default() };
    let rows = [
        ("online", entry(true, 9, 3), (9, 3)),
        ("offline", entry(false, 9, 3), (5, 5)),
        ("without I/O queues", entry(true, 1, 3), (5, 5)),
        ("without interrupts", entry(true, 9, 0), (5, 5)),
    ];
    for (name, entry, (queues, interrupts)) in rows {
        assert_eq!(secondary::resources(&entry, &config), Resources { queues, interrupts }, "{name}");
    }
}

#[test]
fn a_comparison_ends_between_two_windows_if_the_run_is_to_end() {
    // Its guest is never started, so nothing changes.
    let config = config(String::new());
    let inputs = Inputs::open(&config, None).expect("inputs");
    let bench = Bench::start(&config, &inputs, LIMITS, &mut ()).expect("bench");
    // Name, calls until it is to end, whether it comes to its end.
    for (name, calls, whole) in [("at once", 0, false), ("later", 2, false), ("never", u32::MAX, true)] {
        let waiter = Waiter::new(Clock::new(), &*bench.managers);
        let links = [Link::new(), Link::new()];
        let admin = || (0..16).map(|_| AdminSlot::new()).collect::<Vec<_>>();
        let io = || vec![(0..compare::PIECES).map(|_| IoSlot::new()).collect::<Vec<_>>()];
        let (mut admin, mut io) = ([admin(), admin()], [io(), io()]);
        let [one, other] = &mut admin;
        let [one_io, other_io] = &mut io;
        let (source, mut pairs) =
            transfer::bring_up_manager(&bench.source, &links[0], one, one_io, waiter).expect("source");
        let (destination, more) =
            transfer::bring_up_manager(&bench.destination, &links[1], other, other_io, waiter)
                .expect("destination");
        pairs.extend(more);
        let Ok([one, other]) = <[_; 2]>::try_from(pairs) else { panic!("{name}: two pairs") };
        let arenas = [&*bench.source.memory, &*bench.destination.memory];
        let shape = (inputs.size / 4096, 4096);
        let mut comparer = compare::Comparer::new(
            [(one, arenas[0]), (other, arenas[1])],
            bench.namespace,
            shape,
            Duration::from_secs(60),
        )
        .expect("comparer");
        let asked = Cell::new(0);
        let report = comparer.run(Clock::new(), &|| asked.replace(asked.get() + 1) >= calls).expect(name);
        assert_eq!(report.is_some(), whole, "{name}");
        if let Some(report) = report {
            // The source is filled, the destination is empty.
            assert_eq!(
                (report.blocks, report.wrong, report.first_wrong),
                (shape.0, shape.0, Some(0)),
                "{name}"
            );
        } else {
            assert_eq!(asked.get(), calls + 1, "{name}: it was not asked again");
        }
        let [(one, buffers), (other, more)] = comparer.into_parts();
        for (manager, pair, buffers) in [(source, one, buffers), (destination, other, more)] {
            let kept = Kept { buffers, ..Kept::default() };
            transfer::end_manager(manager, vec![pair], kept, Ending::Orderly, waiter, |_| {}).expect(name);
        }
        for arena in arenas {
            assert_eq!(arena.usage(Pool::Data).bytes, 0, "{name}");
        }
    }
    bench.behind.end();
}

#[test]
fn what_goes_wrong_before_the_guest_runs_leaves_every_controller_disabled() {
    type Change = fn(&mut Bench);
    let rows: [(&str, Change, &str); 3] = [
        (
            "the namespace is another one than before",
            |bench| bench.shape.0 += 1,
            "had 1025 blocks of 4096 bytes and has 1024 of 4096 now",
        ),
        ("no queue for the comparison", |bench| bench.compare = true, "grants 1 I/O queue pairs where 2"),
        (
            "the guest expects something else",
            |bench| bench.guest_setup.as_mut().expect("a guest").workload.blocks += 1,
            "guest:",
        ),
    ];
    for (name, change, words) in rows {
        let config = config(String::new());
        let inputs = Inputs::open(&config, None).expect("inputs");
        let mut bench = Bench::start(&config, &inputs, LIMITS, &mut ()).expect("bench");
        change(&mut bench);
        let error = bench.transfer(&config, &mut ()).err().expect(name).to_string();
        assert!(error.contains(words), "{name}: {error}");
        for (side, of) in [("source", &bench.source), ("destination", &bench.destination)] {
            for (which, registers) in [("manager", &of.manager), ("guest's", &of.registers)] {
                let configuration = registers.read32(Offset::new(0x14)).expect("registers");
                assert_eq!(configuration & 1, 0, "{name}: {which} at the {side}");
            }
        }
        bench.behind.end();
    }
}

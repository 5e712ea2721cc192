// SPDX-License-Identifier: MIT OR Apache-2.0
//! Whole migrations in this process, small ones of every kind.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::sync::Arc;
use std::time::Duration;

use nvme_host_linux::config::{CdqLayout, MigrateConfig, Namespaces};
use nvme_host_linux::faults::FaultOption;
use nvme_host_linux::guest::Pattern;
use nvme_host_linux::images::Inputs;
use nvme_host_linux::migrate::{Observer, Status, run};
use nvme_host_linux::report::{EnabledReport, Report, RunsOn, Verdict};

fn small() -> MigrateConfig {
    MigrateConfig {
        namespaces: Namespaces::Memory { size: 8 << 20 },
        queue_depth: 16,
        run_before: Duration::ZERO,
        run_after: Duration::ZERO,
        run_commands: 200,
        ..MigrateConfig::default()
    }
}

/// More commands than the guest has in flight: so many completions mean that some of the commands are new.
const STALL: u64 = 100;

fn migrate(name: &str, config: &MigrateConfig) -> Report {
    let inputs = Inputs::open(config, None).expect(name);
    let report = run(config, inputs, &mut ()).expect(name);
    assert_eq!(report.leftovers.bytes, 0, "{name}: {}", report.statement);
    report
}

fn assert_verified(name: &str, config: &MigrateConfig) -> Report {
    let report = migrate(name, config);
    assert_eq!(report.verdict, Verdict::Verified, "{name}: {}", report.statement);
    assert_eq!(report.guest_runs_on, RunsOn::Destination, "{name}");
    assert!(report.guest.commands_before > 0 && report.guest.commands_after > 0, "{name}: {report:?}");
    assert!(report.guest.verified_after >= report.guest.verified_before, "{name}: {report:?}");
    assert_eq!(report.enabled, EnabledReport { source: Some(false), destination: Some(true) }, "{name}");
    let comparison = report.comparison.expect(name);
    assert_eq!((comparison.equal, comparison.wrong), (comparison.blocks, 0), "{name}: {comparison:?}");
    assert!(report.stop_time_us.is_some_and(|time| time > 0), "{name}");
    let moved: u64 = report.rounds.iter().map(|round| round.bytes).sum();
    assert_eq!(moved, report.total_bytes, "{name}: {:?}", report.rounds);
    report
}

#[test]
fn every_kind_of_guest_arrives() {
    let table = [
        ("512-byte blocks", MigrateConfig { block_size: 512, ..small() }),
        ("one queue, one command", MigrateConfig { io_queues: 1, queue_depth: 1, ..small() }),
        ("many queues", MigrateConfig { io_queues: 5, queue_depth: 100, ..small() }),
        ("long commands", MigrateConfig { io_size: 128 << 10, ..small() }),
        ("sequential", MigrateConfig { pattern: Pattern::Sequential, ..small() }),
        ("hot", MigrateConfig { pattern: Pattern::Hot, ..small() }),
        ("only reads", MigrateConfig { read_percent: 100, ..small() }),
        ("only writes", MigrateConfig { read_percent: 0, ..small() }),
        ("slow writes", MigrateConfig { write_rate: Some(500), ..small() }),
        ("few writes", MigrateConfig { writes: Some(10), ..small() }),
        (
            "an odd size",
            MigrateConfig { namespaces: Namespaces::Memory { size: (1 << 20) + 4096 }, ..small() },
        ),
    ];
    for (name, config) in table {
        let report = assert_verified(name, &config);
        if let Some(limit) = config.writes {
            assert_eq!(report.guest.writes, limit, "{name}");
        }
    }
}

#[test]
fn every_ring_geometry_arrives_and_tiny_ones_overflow() {
    for layout in [CdqLayout::Contiguous, CdqLayout::PrpList] {
        for entries in [3u32, 4, 5, 8, 63, 64, 65, 4096] {
            for block_size in [512, 4096] {
                let name = format!("{entries} entries, {layout:?}, {block_size}");
                let config = MigrateConfig {
                    cdq_entries: entries,
                    cdq_layout: layout,
                    block_size,
                    read_percent: 0,
                    stall_commands: STALL,
                    ..small()
                };
                let report = assert_verified(&name, &config);
                assert!(report.cdq.highest_fill < entries, "{name}: {:?}", report.cdq);
                // The commands during a stall alone are more than such a queue holds.
                assert!(report.cdq.overflows > 0 || entries > 5, "{name}: no overflow");
            }
        }
    }
}

#[test]
fn a_run_cannot_be_told_from_its_report_as_json() {
    let report = migrate("json", &small());
    let text = serde_json::to_string(&report).expect("JSON");
    assert_eq!(serde_json::from_str::<Report>(&text).expect("the same"), report);
}

#[test]
fn strict_runs_that_do_not_converge_stay_at_the_source() {
    // No read of the migration is faster than the limit, and after the last round everything is to be copied again:
    // because the queue overflowed, or because the guest has written every block.
    let slow = FaultOption::parse("delay=4ms,controller=1,queue=io,opcode=02").expect("rule");
    let hopeless = MigrateConfig {
        stop_time_limit: Duration::from_millis(1),
        max_rounds: 1,
        namespaces: Namespaces::Memory { size: 1 << 20 },
        pattern: Pattern::Sequential,
        io_size: 64 << 10,
        read_percent: 0,
        stall_commands: STALL,
        faults: vec![slow],
        ..small()
    };
    for (name, words, cdq_entries) in
        [("overflow", "queue overflowed", 3), ("rounds", "not reached within 1 rounds", 16_384)]
    {
        let forced = MigrateConfig { cdq_entries, ..hopeless.clone() };
        let report = assert_verified(name, &forced);
        let convergence = &report.convergence;
        assert!(
            !convergence.reached && convergence.statement.contains("done anyway"),
            "{name}: {convergence:?}"
        );
        assert!(convergence.statement.to_lowercase().contains(words), "{name}: {convergence:?}");

        let report = migrate(name, &MigrateConfig { strict: true, ..forced });
        assert_eq!(report.verdict, Verdict::NotConverged, "{name}: {}", report.statement);
        assert_eq!((report.guest_runs_on, report.verdict.exit_status()), (RunsOn::Source, 4), "{name}");
        assert_eq!(report.leftovers.controller_data, 0, "{name}");
    }
}

fn content(file: &File) -> Vec<u8> {
    let mut bytes = vec![0; file.metadata().expect("length").len() as usize];
    file.read_exact_at(&mut bytes, 0).expect("read");
    bytes
}

/// Keeps the destination's content as it was when the guest ran on.
struct Watch {
    destination: Arc<File>,
    rolled_back: Option<Vec<u8>>,
}

impl Observer for Watch {
    fn update(&mut self, status: &Status) {
        if status.step == "guest running on" {
            self.rolled_back = Some(content(&self.destination));
        }
    }
}

#[test]
fn r8_cancelling_after_any_step_leaves_the_guest_whole_at_the_source() {
    use nvme_core::migration::MigrationStep;
    for step in MigrationStep::ALL.iter().copied().filter(|step| step.is_reversible()) {
        if step == MigrationStep::ResumeDestination {
            // Once it has completed there is no way back.
            continue;
        }
        let name = format!("cancelled after {step}");
        let config = MigrateConfig { cancel_after: Some(step), ..small() };
        let inputs = Inputs::open(&config, None).expect(&name);
        let mut watch = Watch { destination: Arc::clone(&inputs.destination), rolled_back: None };
        let report = run(&config, inputs, &mut watch).expect(&name);
        let rolled_back = watch.rolled_back.as_ref().expect(&name);
        assert!(*rolled_back == content(&watch.destination), "{name}: the destination changed afterwards");
        assert_eq!(report.enabled, EnabledReport { source: Some(true), destination: Some(false) }, "{name}");
        assert_eq!(report.leftovers.bytes, 0, "{name}: {}", report.statement);
        assert_eq!(report.verdict, Verdict::Cancelled, "{name}: {}", report.statement);
        assert_eq!((report.guest_runs_on, report.verdict.exit_status()), (RunsOn::Source, 3), "{name}");
        assert!(report.statement.contains(step.name()), "{name}: {}", report.statement);
        assert_eq!(report.guest.error, None, "{name}");
        assert!(report.guest.verified_after > 0, "{name}: {report:?}");
        let (stopped, after) = (report.stop_time_us.is_some(), report.guest.commands_after);
        assert!(!stopped || after > 0, "{name}: stopped, so there is a before and an after: {report:?}");
        assert_eq!(report.leftovers.controller_data, 0, "{name}");
        assert!(report.comparison.is_none(), "{name}");
    }
}

#[test]
fn a_command_at_stop_that_fails_rolls_back_and_is_named() {
    let config = MigrateConfig { at_stop: Some("exit 9".into()), ..small() };
    let report = migrate("at stop", &config);
    assert_eq!(report.verdict, Verdict::MigrationFailed, "{}", report.statement);
    assert_eq!((report.guest_runs_on, report.verdict.exit_status()), (RunsOn::Source, 1));
    assert!(report.statement.contains("status 9"), "{}", report.statement);
    assert_eq!(report.guest.error, None);
    assert!(report.comparison.is_none() && report.guest.commands_after > 0, "{report:?}");
}

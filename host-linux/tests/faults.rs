// SPDX-License-Identifier: MIT OR Apache-2.0
//! `nvme-lm migrate --fault`: rules that are refused, faults that are borne, faults that end a migration, and faults
//! that only the verification finds.

use std::process::{Command, Output};

use nvme_controller::fault::FaultKind;
use nvme_host_linux::faults::FaultOption;
use nvme_host_linux::journal::{Journal, Side};
use nvme_host_linux::report::{Report, RunsOn, Verdict};

fn program(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_nvme-lm")).args(arguments).output().expect("the program starts")
}

/// Has the migration end soon where a command is never answered.
const GIVE_UP: [&str; 2] = ["--command-timeout", "1s"];

/// A small migration with these rules. The guest completes enough for every rule about its commands, and leaves enough
/// in the log for every rule about its entries, however fast the machine is.
fn migrate(options: &[&str], rules: &[&str]) -> (Option<i32>, String, Option<Report>) {
    let small = "migrate --size 2M --queue-depth 4 --io-queues 1 --run-before 0ms --run-after 0ms \
                 --run-commands 100 --stall-commands 200 --json - --no-progress";
    let mut arguments: Vec<&str> = small.split_whitespace().collect();
    arguments.extend(options);
    for rule in rules {
        arguments.extend(["--fault", rule]);
    }
    let output = program(&arguments);
    let report = serde_json::from_slice(&output.stdout).ok();
    (output.status.code(), String::from_utf8(output.stderr).expect("text"), report)
}

fn reported(options: &[&str], rules: &[&str]) -> (Option<i32>, Report) {
    let (status, message, report) = migrate(options, rules);
    (status, report.unwrap_or_else(|| panic!("{rules:?}: no report: {message}")))
}

#[test]
fn bad_rules_are_refused_with_the_place_marked() {
    let table = [
        ("", "no action; possible are drop,", 0),
        ("dropp,nth=3", "no such action; possible are drop,", 0),
        ("elsewhere:drop", "no such action", 0),
        ("source:dropp", "no such action", 7),
        ("destination:drop,nth=0", "a number from 1", 21),
        ("drop,when=now", "no such condition; possible are controller,", 5),
        ("drop,nth", "a value is missing", 8),
        ("drop,nth=3,nth=3", "given before", 11),
        ("drop,queue=all", "any, admin, io or a queue number", 11),
        ("drop,opcode=1ff", "two hexadecimal digits", 12),
        ("drop,ppm=1000001", "0 to 1000000", 9),
        ("delay", "a value is missing", 5),
        ("delay=soon", "5polls or 20ms", 6),
        ("delay=5polls,dw16=1", "dw0 to dw15", 13),
        ("status=2", "SCT/SC in hexadecimal", 7),
        ("drop=1", "no value is possible", 5),
        ("cdq-full-early,queue=io", "cdq-full-early does not act on commands", 15),
        ("never-ready,opcode=02", "never-ready does not act on commands", 12),
    ];
    for (rule, words, position) in table {
        let output = program(&["migrate", "--fault", rule]);
        let message = String::from_utf8(output.stderr).expect("text");
        assert_eq!(output.status.code(), Some(2), "{rule}: {message}");
        assert!(output.stdout.is_empty(), "{rule}");
        let lines: Vec<&str> = message.lines().collect();
        assert_eq!(lines.len(), 3, "{rule}: {message}");
        assert!(lines[0].starts_with("error: ") && lines[0].contains("--fault"), "{rule}: {message}");
        assert!(lines[0].contains(words), "{rule}: {message}");
        assert!(lines[0].contains(&format!("at byte {position}:")), "{rule}: {message}");
        assert_eq!(lines[1], format!("  {rule}"), "{rule}: {message}");
        assert_eq!(lines[2], format!("  {}^", " ".repeat(position)), "{rule}: {message}");
    }
}

#[test]
fn the_list_names_every_fault_and_condition() {
    let output = program(&["faults"]);
    assert_eq!(output.status.code(), Some(0));
    let text = String::from_utf8(output.stdout).expect("text");
    for kind in FaultKind::ALL {
        assert!(
            text.contains(&format!("  {kind}{}\n      {}\n", kind.value(), kind.summary())),
            "{kind}: {text}"
        );
    }
    for condition in ["controller=", "queue=", "opcode=", "dwN=", "nth=", "every=", "times=", "ppm=", "seed="]
    {
        assert!(text.contains(condition), "{condition}");
    }
    let help = String::from_utf8(program(&["migrate", "--help-all"]).stdout).expect("text");
    assert!(
        help.contains("--fault") && help.contains("nvme-lm faults") && help.contains("--command-timeout")
    );
}

#[test]
fn faults_that_are_borne_end_verified_and_are_counted() {
    let table: &[&[&str]] = &[
        &["delay=3polls,every=7"],
        &["delay=2ms,controller=1,every=5", "destination:delay=3ms,controller=1,every=5"],
        &["reorder,queue=io,every=11"],
        &["status=2/81,controller=1,queue=io,opcode=02,nth=2"],
        &["cdq-head-refused,nth=1"],
        &["cdq-event-lost"],
        &["cdq-event-duplicated"],
        &["cdq-event-unknown"],
        &["cdq-full-early,nth=20"],
        &["late-ready=5polls", "destination:late-ready=5polls"],
    ];
    for rules in table {
        println!("row: {rules:?}");
        let (status, report) = reported(&[], rules);
        assert_eq!((status, report.verdict), (Some(0), Verdict::Verified), "{rules:?}: {}", report.statement);
        assert_eq!(report.guest_runs_on, RunsOn::Destination, "{rules:?}");
        assert_eq!(report.faults.len(), rules.len(), "{rules:?}");
        for (fault, rule) in report.faults.iter().zip(rules.iter()) {
            let canonical = FaultOption::parse(rule).expect(rule).rule.to_string();
            assert_eq!(fault.rule, canonical);
            assert_eq!(fault.subsystem == Side::Destination, rule.starts_with("destination:"), "{rule}");
            // An event is reported only if the reader went to sleep.
            assert!(fault.fired > 0 || rule.contains("event"), "{rule} never happened");
            assert!(fault.matched >= fault.fired, "{rule}");
        }
    }
}

#[test]
fn faults_that_end_a_migration_leave_the_guest_at_the_source_verified() {
    let table = [
        ("status=1/38,queue=admin,opcode=45", "rolled back"),
        ("status=0/06,queue=admin,opcode=42", "rolled back"),
        ("status=0/06,queue=admin,opcode=3d,dw10=10000/10000", "rolled back"),
        ("drop,queue=admin,opcode=42", "rolled back"),
        ("destination:status=0/06,queue=admin,opcode=41,dw10=2/ff", "rolled back"),
        ("status=0/06+dnr,controller=1,queue=io,opcode=02", "rolled back"),
        ("cdq-missing-last", "rolled back"),
        ("wrong-cid,controller=1,queue=io,opcode=02,nth=2", "Controller Data Queue could not be deleted"),
        ("reset,controller=1,queue=io,opcode=02,nth=2", "Controller Data Queue could not be deleted"),
    ];
    for (rule, words) in table {
        println!("row: {rule}");
        let (status, report) = reported(&GIVE_UP, &[rule]);
        assert_eq!(
            (status, report.verdict),
            (Some(1), Verdict::MigrationFailed),
            "{rule}: {}",
            report.statement
        );
        assert!(report.statement.contains(words), "{rule}: {}", report.statement);
        assert!(report.statement.contains("verified"), "{rule}: {}", report.statement);
        assert_eq!(report.guest_runs_on, RunsOn::Source, "{rule}");
        assert_eq!((report.enabled.source, report.enabled.destination), (Some(true), Some(false)), "{rule}");
        assert_eq!(report.guest.error, None, "{rule}: {}", report.statement);
        assert!(report.faults[0].fired > 0, "{rule} never happened");
    }
}

#[test]
fn r10_the_guest_goes_forward_where_a_resume_has_no_clear_answer() {
    for action in ["drop", "delay=20s", "wrong-cid", "status=0/06", "status=7/00", "reset", "fatal"] {
        let dir = tempfile::tempdir().expect("directory");
        let [source, destination] = ["source", "destination"].map(|name| {
            let path = dir.path().join(name);
            std::fs::write(&path, vec![7; 2 << 20]).expect("image");
            path.into_os_string().into_string().expect("text")
        });
        let rule = format!("destination:{action},queue=admin,opcode=41,dw10=1/ff");
        println!("row: {rule}");
        let images = ["--source-image", &source, "--dest-image", &destination, "--yes"];
        let (status, report) = reported(&[&GIVE_UP[..], &images].concat(), &[&rule]);
        let statement = &report.statement;
        assert_eq!((status, report.verdict), (Some(1), Verdict::MigrationFailed), "{rule}: {statement}");
        assert!(statement.contains("the guest runs on there, verified"), "{rule}: {statement}");
        assert_eq!(report.guest_runs_on, RunsOn::Destination, "{rule}: {statement}");
        assert_eq!(
            (report.enabled.source, report.enabled.destination),
            (Some(false), Some(true)),
            "{rule}: {statement}"
        );
        let comparison = report.comparison.expect("compared");
        assert_eq!((comparison.wrong, comparison.equal), (0, comparison.blocks), "{rule}");
        assert_eq!(report.guest.error, None, "{rule}");
        assert!(report.guest.commands_after >= 100 && report.faults[0].fired == 1, "{rule}: {report:?}");
        assert_eq!(report.leftovers.bytes, 0, "{rule}");
        let record = Journal::read(report.journal.as_deref().expect("a journal")).expect("journal");
        assert_eq!((record.authoritative, &record.step), (Side::Destination, statement), "{rule}");
    }
}

#[test]
fn r10_a_source_released_up_to_the_last_look_goes_on_alone() {
    let look = "controller=1,queue=admin,opcode=42";
    // The last command of this kind looks whether the source is still suspended, just before the destination resumes.
    let (status, report) = reported(&GIVE_UP, &[&format!("drop,{look},nth=1000000")]);
    assert_eq!((status, report.faults[0].fired), (Some(0), 0), "{}", report.statement);
    let last = report.faults[0].matched;
    assert!(last >= 3, "{last} looks");
    for nth in 1..=last {
        let rule = format!("reset,{look},nth={nth},times=1");
        println!("row: {rule}");
        let (status, report) = reported(&GIVE_UP, &[&rule]);
        let statement = &report.statement;
        assert_eq!((status, report.verdict), (Some(1), Verdict::MigrationFailed), "{rule}: {statement}");
        assert!(statement.contains("the guest runs on there, verified"), "{rule}: {statement}");
        assert_eq!(report.guest_runs_on, RunsOn::Source, "{rule}: {statement}");
        assert_eq!((report.enabled.source, report.enabled.destination), (Some(true), Some(false)), "{rule}");
        assert_eq!(report.guest.error, None, "{rule}");
        assert!(report.guest.commands_after >= 100 && report.faults[0].fired == 1, "{rule}: {report:?}");
        assert_eq!(report.leftovers.bytes, 0, "{rule}");
    }
}

#[test]
fn silent_corruption_is_never_called_verified() {
    // What is copied again, or written again by the guest, would be right again.
    let (reads, mixed): (&[&str], &[&str]) = (&["--read-percent", "100"], &[]);
    let table = [
        ("flip-to-host,controller=1,queue=io,opcode=02,nth=2", reads),
        ("destination:flip-to-device,controller=1,queue=io,opcode=01,nth=2", reads),
        ("destination:status=0/00,controller=1,queue=io,opcode=01,nth=2", reads),
        ("flip-to-host,controller=2,queue=io,opcode=02,nth=5", reads),
        ("flip-to-device,controller=2,queue=io,opcode=01,every=3", mixed),
    ];
    for (rule, options) in table {
        for seed in [1, 2] {
            let rule = format!("{rule},seed={seed}");
            println!("row: {rule}");
            let (status, report) = reported(options, &[&rule]);
            assert_eq!(status, Some(1), "{rule}: {}", report.statement);
            assert_eq!(report.verdict, Verdict::VerificationFailed, "{rule}: {}", report.statement);
            assert!(report.faults[0].fired > 0, "{rule} never happened");
        }
    }
}

#[test]
fn no_fault_makes_the_program_hang_or_lie() {
    // At the managing controller once it migrates, and at both controllers of the source from the beginning.
    let begins = [",controller=1,nth=3", ",every=25"];
    for kind in FaultKind::ALL {
        let action = if kind.value().is_empty() || kind.value().starts_with('[') {
            kind.name().to_owned()
        } else {
            match kind {
                FaultKind::Delay => "delay=10s".to_owned(),
                FaultKind::Status => "status=0/06".to_owned(),
                FaultKind::LateReady => "late-ready=10polls".to_owned(),
                other => panic!("{other} needs a value that this test does not know"),
            }
        };
        for begin in begins {
            let rule = format!("{action}{begin}");
            println!("row: {rule}");
            let (status, message, report) = migrate(&["--command-timeout", "300ms"], &[&rule]);
            assert!(matches!(status, Some(0 | 1)), "{rule}: {status:?} {message}");
            let Some(report) = report else {
                assert_eq!(status, Some(1), "{rule}: no report, {message}");
                assert!(message.starts_with("error: "), "{rule}: {message}");
                continue;
            };
            println!("  {}: {}", report.faults[0].fired, report.statement);
            assert_eq!(status, Some(i32::from(report.verdict.exit_status())), "{rule}");
            assert!(
                [report.enabled.source, report.enabled.destination] != [Some(true); 2],
                "{rule}: both sides run"
            );
            if report.verdict == Verdict::Verified {
                let comparison = report.comparison.expect("verified without a comparison");
                assert_eq!((comparison.wrong, comparison.equal), (0, comparison.blocks), "{rule}");
                assert_eq!(report.guest.error, None, "{rule}");
            }
        }
    }
}

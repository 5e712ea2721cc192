// SPDX-License-Identifier: MIT OR Apache-2.0
//! The program's commands on controllers of another process: identify, data, raw commands, resets, measurements, and signals
//! in the middle of one.

use std::fs;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use nvme_host_linux::vfio_user::server::ServeOptions;
use nvme_tests::program::nvme_lm;
use nvme_tests::vfio_user::{Serving, pair};
use serde_json::Value;

/// How long anything may take on a busy computer.
const LIMIT: Duration = Duration::from_secs(120);
/// I/O commands with which a measurement is under way: more than are in flight at once, so that some have ended.
const UNDER_WAY: u32 = 500;

fn start(directory: &Path, line: &str) -> Child {
    Command::new(nvme_lm())
        .current_dir(directory)
        .args(line.split_whitespace())
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the program starts")
}

/// Runs `line` and checks its exit status and that its output has all `words`.
fn check(directory: &Path, line: &str, status: i32, words: &[&str]) -> Output {
    let output = start(directory, line).wait_with_output().expect("the program ends");
    let said =
        format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert_eq!(output.status.code(), Some(status), "{line}: {said}");
    for word in words {
        assert!(said.contains(word), "{line}: '{word}' is not in: {said}");
    }
    output
}

#[test]
fn a_known_model_has_its_quirks_unless_told_otherwise() {
    // What the controllers say of themselves, and nothing else: they keep to the specification.
    let of = |firmware_revision: &'static str| {
        let topology = move || {
            let mut topology = pair();
            let config = &mut topology.config;
            (config.vendor, config.model_number) = (0x1B36, "QEMU NVMe Ctrl");
            config.firmware_revision = firmware_revision;
            topology
        };
        Serving::start(topology, ServeOptions::default())
    };
    let (known, newer) = (of("9.2.50"), of("9.2.51"));
    let [manager, tracked, other] = [(&known, 0), (&known, 1), (&newer, 0)]
        .map(|(serving, function)| format!("vfio-user:{}", serving.path(function).display()));
    const MODEL: &str = "recognised as: emulation of TP4159 in a development version of QEMU\n";
    const NONE: &str = "recognised as: no model with quirks\n";
    const CONTIGUOUS: &str = "is contiguous, because of the quirk contiguous-queues-only";
    type Row<'a> = (&'a str, &'a str, &'a [&'a str], &'a [&'a str]);
    let rows: [Row<'_>; 9] = [
        (&manager, "formats P --quirks list", &[MODEL, "[x] suspended-in-header\n"], &["[ ]"]),
        (
            &manager,
            "formats P --quirks list,-suspended-in-header",
            &[MODEL, "[ ] suspended-in-header\n", "[x] contiguous-queues-only\n"],
            &["[x] suspended-in-header"],
        ),
        (&manager, "formats P --quirks list,none", &[MODEL, "[ ] suspended-in-header\n"], &["[x]"]),
        (
            &manager,
            "formats P --quirks list --json",
            &["\"model\": \"emulation of TP4159", "\"active\": true"],
            &["\"active\": false"],
        ),
        (&tracked, "formats P --quirks list", &[NONE, "[ ] suspended-in-header\n"], &["[x]"]),
        (&other, "formats P --quirks list", &[NONE, "[ ] suspended-in-header\n"], &["[x]"]),
        (
            &manager,
            "cdq create P --controller 2 --layout prp-list",
            &["128 KiB, contiguous", CONTIGUOUS],
            &[],
        ),
        (
            &manager,
            "cdq create P --controller 2 --layout prp-list --quirks -contiguous-queues-only",
            &["128 KiB"],
            &["contiguous"],
        ),
        (&other, "cdq create P --controller 2 --layout prp-list", &["128 KiB"], &["contiguous"]),
    ];
    let directory = tempfile::tempdir().expect("a folder");
    for (place, line, words, others) in rows {
        let line = line.replace(" P", &format!(" {place}"));
        let output = check(directory.path(), &line, 0, words);
        let said = [output.stdout, output.stderr].concat();
        let said = String::from_utf8_lossy(&said);
        for word in others {
            assert!(!said.contains(word), "{line}: '{word}' is in: {said}");
        }
    }
}

#[test]
fn commands_work_on_controllers_of_another_process() {
    let serving = Serving::start(pair, ServeOptions::default());
    let directory = tempfile::tempdir().expect("a folder");
    let data: Vec<u8> = (0..300 * 4096_u32).map(|at| (at % 253) as u8 ^ (at / 4096) as u8).collect();
    fs::write(directory.path().join("data"), &data).expect("a file");
    let place = format!("vfio-user:{}", serving.path(0).display());
    let rows: [(&str, i32, &[&str]); 19] = [
        ("list P", 0, &["migration manager"]),
        ("identify P --cns 1", 0, &[]),
        ("write P --lba 5 --input data --queues 4 --depth 8 --yes", 0, &["written", "blocks 5 to 304"]),
        ("write P --lba 5 --input data --polling --yes", 0, &["written"]),
        ("compare P --lba 5 --input data", 0, &["equal"]),
        ("read P --lba 5 --blocks 300 --output out", 0, &["read"]),
        ("read P --lba 1023 --blocks 2", 2, &["ends with block 1023 (NSZE)"]),
        ("copy P --range 5:300 --to 400 --yes", 0, &["copied 300 blocks"]),
        ("compare P --lba 400 --input data", 0, &["equal"]),
        ("deallocate P --range 5:300 --yes", 0, &["deallocated 300 blocks"]),
        ("compare P --lba 5 --pattern zero --blocks 300", 0, &["equal"]),
        ("admin P --opcode 6 --cdw10 1 --receive 4096", 0, &["Successful Completion"]),
        ("io P --opcode 2 --namespace 1 --cdw10 5000 --receive 4096", 1, &["LBA Out of Range"]),
        ("reset P --controller --yes", 0, &["controller reset, ready"]),
        ("reset P --function --yes", 0, &["function reset, ready"]),
        ("reset P --subsystem --yes", 0, &["subsystem reset, ready"]),
        ("registers P", 0, &["NSSRS"]),
        ("features get P --feature 0x16", 0, &["ACRE"]),
        ("bench P --op randread --queues 2 --depth 4 --seconds 1", 0, &["latency 99.9 %"]),
    ];
    for (line, status, words) in rows {
        println!("{line}");
        check(directory.path(), &line.replace(" P", &format!(" {place}")), status, words);
    }
    assert!(fs::read(directory.path().join("out")).expect("a file") == data, "what is read was written");
    // The other controller reaches the same namespace.
    let other = format!("vfio-user:{}", serving.path(1).display());
    check(directory.path(), &format!("compare {other} --lba 400 --input data"), 0, &["equal"]);
}

#[test]
fn after_a_signal_in_a_measurement_the_next_start_works_at_once() {
    let serving = Serving::counting(pair);
    let directory = tempfile::tempdir().expect("a folder");
    let place = format!("vfio-user:{}", serving.path(0).display());
    for (signal, number) in [("INT", 2), ("TERM", 15), ("KILL", 9)] {
        for operation in ["randread", "write"] {
            let name = format!("SIG{signal}, {operation}");
            println!("{name}");
            let line = format!("bench {place} --op {operation} --queues 2 --seconds 3600 --yes --json");
            let before = serving.io_commands();
            let mut child = start(directory.path(), &line);
            let until = Instant::now() + LIMIT;
            while serving.io_commands() - before < UNDER_WAY {
                assert!(Instant::now() < until && child.try_wait().expect("a child").is_none(), "{name}");
                std::thread::sleep(Duration::from_millis(10));
            }
            let kill = format!("kill -{signal} {}", child.id());
            assert!(Command::new("sh").args(["-c", &kill]).status().expect("sh").success(), "{name}");
            let output = child.wait_with_output().expect("the program ends");
            if number == 9 {
                assert_eq!(output.status.signal(), Some(9), "{name}");
            } else {
                assert_eq!(output.status.code(), Some(130), "{name}");
                let report: Value = serde_json::from_slice(&output.stdout).expect("a report");
                assert!(report["interrupted"] == true && report["errors"] == 0, "{name}: {report}");
                assert!(report["commands"].as_u64() > Some(0), "{name}: {report}");
            }
            let line = format!("write {place} --lba 0 --pattern random --blocks 64 --seed {number} --yes");
            check(directory.path(), &line, 0, &["written"]);
            let line = format!("compare {place} --lba 0 --pattern random --blocks 64 --seed {number}");
            check(directory.path(), &line, 0, &["equal"]);
        }
    }
}

// SPDX-License-Identifier: MIT OR Apache-2.0
//! The commands of live migration, one by one, as a user gives them.

use std::io::Write;
use std::process::{Command, Output, Stdio};

use serde_json::Value;

fn run(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_nvme-lm"))
        .args(arguments)
        .stdin(Stdio::null())
        .output()
        .expect("nvme-lm starts")
}

/// Runs a script that comes in on standard input.
fn script(options: &[&str], text: &str) -> Output {
    let mut child = Command::new(env!("CARGO_BIN_EXE_nvme-lm"))
        .args(["script", "-"])
        .args(options)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("nvme-lm starts");
    child.stdin.take().expect("a pipe").write_all(text.as_bytes()).expect("it reads");
    child.wait_with_output().expect("it ends")
}

fn words(arguments: &str) -> Vec<&str> {
    arguments.split_whitespace().collect()
}

/// Exit status, and parts of standard output and of standard error.
fn check(name: &str, output: &Output, status: i32, says: &[&str], notes: &[&str]) {
    let stdout = String::from_utf8_lossy(&output.stdout);
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(status), "{name}:\n{stdout}{stderr}");
    for part in says {
        assert!(stdout.contains(part), "{name}: {part:?} is not in\n{stdout}");
    }
    for part in notes {
        assert!(stderr.contains(part), "{name}: {part:?} is not in\n{stderr}");
    }
    if notes.is_empty() {
        assert_eq!(stderr, "", "{name}");
    }
}

/// Documents, one on each line.
fn documents(output: &Output) -> Vec<Value> {
    let text = String::from_utf8_lossy(&output.stdout);
    text.lines().map(|line| serde_json::from_str(line).unwrap_or_else(|e| panic!("{e}: {line}"))).collect()
}

#[test]
fn each_command_says_what_it_did_and_what_it_undoes() {
    let deleted = "queue 0 was still there: deleted";
    let rows: [(&str, i32, &[&str], &[&str]); 15] = [
        ("formats embedded:demo", 0, &["index  NVMe Controller State\n    1  version 0\n"], &[]),
        (
            "cdq create embedded:demo --controller 2",
            0,
            &["queue       0\n", "entries     4096, one", "128 KiB, contiguous", "16 queues (MCUDMQ)"],
            &[deleted],
        ),
        (
            "cdq create embedded:demo --controller 2 --entries 300 --layout prp-list",
            0,
            &["entries     300,", "9600 bytes, pages in a PRP list"],
            &[deleted],
        ),
        ("cdq create embedded:demo --controller 1", 2, &[], &["is the managing controller itself"]),
        ("cdq create embedded:demo --controller 9", 1, &[], &["Invalid Controller Identifier (1/1Fh)"]),
        ("cdq delete embedded:demo --id last", 2, &[], &["there is no queue; make one by cdq create"]),
        ("cdq delete embedded:demo --id 5", 2, &[], &["there is no queue 5"]),
        ("cdq delete embedded:demo --id 5 --force", 1, &[], &["Invalid Controller Data Queue (1/37h)"]),
        (
            "track start embedded:demo --controller 2",
            0,
            &["changes of controller 2 are logged into queue 0"],
            &["queue 0 was still being logged into: logging stopped", deleted],
        ),
        ("track stop embedded:demo --controller 2", 2, &[], &["there is no queue for controller 2"]),
        (
            "suspend embedded:demo --controller 2",
            0,
            &["controller 2 is suspended"],
            &["controller 2 was still suspended and is resumed: its guest runs on"],
        ),
        ("track memory embedded:demo --controller 2", 2, &[], &["host memory is not tracked"]),
        (
            "track memory embedded:demo --controller 2 --range 0x100000000000+4K",
            1,
            &[],
            &["Track Memory Changes", "Invalid Field in Command (0/02h)"],
        ),
        ("resume embedded:demo --controller 2", 1, &[], &["Controller Not Suspended (1/3Ah)"]),
        ("resume embedded:demo --controller 2 --if-suspended", 0, &["was not suspended"], &[]),
    ];
    for (line, status, says, notes) in rows {
        check(line, &run(&words(line)), status, says, notes);
    }
}

#[test]
fn what_a_controller_does_not_announce_is_not_sent() {
    const OACS: &str = "OACS in Identify Controller is 0x";
    let commands = [
        "formats embedded:demo/2",
        "cdq create embedded:demo/2 --controller 1",
        "cdq delete embedded:demo/2 --id 0",
        "track start embedded:demo/2 --controller 1",
        "track stop embedded:demo/2 --controller 1",
        "track memory embedded:demo/2 --controller 1 --range 0+4K",
        "suspend embedded:demo/2 --controller 1",
        "resume embedded:demo/2 --controller 1",
    ];
    for line in commands {
        check(line, &run(&words(line)), 3, &[], &[OACS, "bit 11 clear; nothing was sent"]);
    }
    for (line, refused) in [
        ("cdq create embedded:demo/2 --controller 1 --force", "Invalid Command Opcode (0/01h)"),
        ("suspend embedded:demo/2 --controller 1 --force", "Invalid Command Opcode (0/01h)"),
        ("resume embedded:demo/2 --controller 1 --force", "Invalid Command Opcode (0/01h)"),
        ("cdq delete embedded:demo/2 --id 0 --force", "Invalid Command Opcode (0/01h)"),
        ("formats embedded:demo/2 --force", "Invalid Field in Command (0/02h)"),
    ] {
        check(line, &run(&words(line)), 1, &[], &[refused]);
    }
}

#[test]
fn a_script_keeps_what_its_lines_leave() {
    type Row<'a> = (&'a str, &'a str, i32, &'a [&'a str], &'a [&'a str]);
    let rows: [Row<'_>; 7] = [
        (
            "a queue by its name",
            "cdq create embedded:demo --controller 2 --entries 64\n\
             track start embedded:demo --controller 2 --queue last\n\
             track stop embedded:demo/1 --controller 2 # the same controller\n\
             cdq delete embedded:demo --id 0\n",
            0,
            &["are logged into queue 0", "are no longer logged", "queue 0 is deleted"],
            &[],
        ),
        (
            "suspend and resume",
            "suspend embedded:demo --controller 2\nresume embedded:demo --controller 2",
            0,
            &["controller 2 is suspended\ncontroller 2 is resumed\n"],
            &[],
        ),
        (
            "no log of a suspended controller",
            "suspend embedded:demo --controller 2\ntrack start embedded:demo --controller 2\nformats embedded:demo",
            1,
            &["controller 2 is suspended"],
            &["line 2: ", "Controller Suspended (1/39h)", "controller 2 was still suspended"],
        ),
        (
            "a line that may fail",
            "-resume embedded:demo --controller 2\nsuspend embedded:demo --controller 2\n\
             resume embedded:demo --controller 2",
            0,
            &["is suspended\ncontroller 2 is resumed"],
            &["line 1: ", "going on"],
        ),
        (
            "the queue goes with the suspend",
            "track start embedded:demo --controller 2\nsuspend embedded:demo --controller 2 --delete-queue\n\
             resume embedded:demo --controller 2\n-cdq delete embedded:demo --id 0 --force",
            0,
            &["is suspended, and its queue deleted"],
            &["line 4: ", "Invalid Controller Data Queue"],
        ),
        (
            "status of the line",
            "formats embedded:demo\nformats embedded:demo/2\n",
            3,
            &["version 0"],
            &["line 2: ", "nothing was sent"],
        ),
        ("nothing runs if a line is wrong", "formats embedded:demo\nformat", 2, &[], &["line 2: "]),
    ];
    for (name, text, status, says, notes) in rows {
        let output = script(&[], text);
        check(name, &output, status, says, notes);
        if status == 2 {
            assert!(output.stdout.is_empty(), "{name}");
        }
    }
}

#[test]
fn json_is_one_document_for_each_line() {
    let text = "cdq create embedded:demo --controller 2 --entries 64\n\
                track start embedded:demo --controller 2\n\
                suspend embedded:demo --controller 2\n\
                resume embedded:demo --controller 2\n\
                track stop embedded:demo --controller 2\n\
                cdq delete embedded:demo --id last\n\
                formats embedded:demo\n";
    let output = script(&["--json"], text);
    check("script", &output, 0, &[], &[]);
    let found = documents(&output);
    assert_eq!(found.len(), 7);
    assert_eq!((&found[0]["id"], &found[0]["bytes"]), (&0.into(), &2048.into()));
    assert_eq!(found[1]["logging"], true);
    assert_eq!(found[2]["suspended"], true);
    assert_eq!(found[3]["was_suspended"], true);
    assert_eq!(found[4]["logging"], false);
    assert_eq!(found[5]["id"], 0);
    assert_eq!(found[6]["versions"][0]["version"], 0);
    let alone = run(&["formats", "embedded:demo", "--json"]);
    let document: Value = serde_json::from_slice(&alone.stdout).expect("one document");
    assert_eq!(document, found[6]);
}

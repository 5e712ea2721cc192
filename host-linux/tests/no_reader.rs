// SPDX-License-Identifier: MIT OR Apache-2.0
//! Commands whose standard output is closed, or takes nothing.

use std::fs::{self, File};
use std::io::Write;
use std::path::Path;
use std::process::{Command, Output, Stdio};

/// Runs a line in `folder`, with `script` on standard input.
fn run(folder: &Path, line: &str, script: &str, stdout: impl Into<Stdio>) -> Output {
    let mut child = Command::new(env!("CARGO_BIN_EXE_nvme-lm"))
        .args(line.split_whitespace())
        .current_dir(folder)
        .stdin(Stdio::piped())
        .stdout(stdout)
        .stderr(Stdio::piped())
        .spawn()
        .expect("nvme-lm starts");
    // A command that reads nothing may have ended.
    let _ = child.stdin.take().expect("a pipe").write_all(script.as_bytes());
    child.wait_with_output().expect("it ends")
}

/// Runs a line that writes into a pipe without a reader.
fn run_unread(folder: &Path, line: &str, script: &str) -> Output {
    let (reader, writer) = std::io::pipe().expect("a pipe");
    drop(reader);
    run(folder, line, script, writer)
}

/// Exit status and standard error, which is empty if nothing is expected there.
fn check(name: &str, output: &Output, status: i32, says: &str) {
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(status), "{name}: {said}");
    assert!(said.contains(says), "{name}: {says:?} is not in {said}");
    assert!(!says.is_empty() || said.is_empty(), "{name}: {said}");
}

const WATCH: &str = "cdq watch embedded:demo --controller 2 --guest embedded:demo/2";
const MIGRATE: &str = "migrate --size 2M --run-before 0ms --run-after 0ms --run-commands 20";

#[test]
fn a_reader_who_has_had_enough_is_no_error() {
    let folder = tempfile::tempdir().expect("a folder");
    let folder = folder.path();
    let get =
        run(folder, "state get embedded:demo --controller 2 --suspend --output a.state", "", Stdio::null());
    assert_eq!(get.status.code(), Some(0));
    let mut state = fs::read(folder.join("a.state")).expect("a state");
    fs::write(folder.join("cut.state"), &state[..state.len() - 8]).expect("a file");
    *state.last_mut().expect("bytes") ^= 1;
    fs::write(folder.join("b.state"), &state).expect("a file");
    // Line, exit status, what is said on standard error; all alike whether somebody reads standard output or not.
    let rows: &[(&str, i32, &str)] = &[
        ("identify embedded:demo", 0, ""),
        ("identify embedded:demo --raw", 0, ""),
        ("read embedded:demo --lba 0 --blocks 4096 --output -", 0, ""),
        ("read embedded:demo --lba 0 --blocks 4096 --hex --sha256", 0, "SHA-256 "),
        ("faults", 0, ""),
        ("completions bash", 0, ""),
        ("man", 0, ""),
        ("formats embedded:demo --quirks list", 0, ""),
        ("bind --dry-run ffff:00:00.0 --json", 2, "ffff:00:00.0"),
        ("state diff a.state b.state --exit-code", 1, "the states differ in 1 place"),
        ("state show cut.state", 1, "cut.state: "),
        ("admin embedded:demo --opcode 0x45 --cdw10 7 --yes", 1, "Invalid Field"),
        (
            "bench embedded:demo --op read --seconds 1 --embedded demo,fault=status=0/06,queue=io,opcode=02,nth=1",
            1,
            "1 command",
        ),
        ("WATCH --count 20 --embedded demo,fault=status=0/06,opcode=3d,nth=2", 1, "Track Send, stop logging"),
        ("WATCH --count 20 --embedded demo,fault=status=0/06,opcode=45,nth=2", 1, "Delete"),
        ("MIGRATE", 0, ""),
        ("MIGRATE --json -", 0, ""),
        ("MIGRATE --fault source:status=0/06,opcode=41,nth=2", 1, ""),
        ("MIGRATE --json - --fault source:status=0/06,opcode=41,nth=2", 1, ""),
    ];
    for (line, status, says) in rows {
        let line = line.replace("WATCH", WATCH).replace("MIGRATE", MIGRATE);
        check(&line, &run(folder, &line, "", Stdio::piped()), *status, says);
        check(&format!("unread {line}"), &run_unread(folder, &line, ""), *status, says);
    }
}

#[test]
fn a_script_does_what_it_says_though_nobody_reads() {
    let folder = tempfile::tempdir().expect("a folder");
    let folder = folder.path();
    let data = [0xa5; 4096];
    fs::write(folder.join("data"), data).expect("a file");
    let script = format!(
        "identify embedded:demo\n{WATCH} --seconds 0\nwrite embedded:demo --lba 3 --input data --yes\n\
         -admin embedded:demo --opcode 0x45 --cdw10 7 --yes\n"
    );
    let failing = "admin embedded:demo --opcode 0x45 --cdw10 7 --yes\n";
    for (name, last, status, says) in
        [("every line", "", 0, "line 4: "), ("a line that fails", failing, 1, "line 5: ")]
    {
        let image = folder.join(format!("image{status}"));
        File::create(&image).and_then(|file| file.set_len(1 << 20)).expect("an image");
        let line = format!("script - --embedded demo,image={}", image.display());
        let output = run_unread(folder, &line, &format!("{script}{last}"));
        check(name, &output, status, says);
        assert_eq!(fs::read(&image).expect("an image")[3 * 4096..4 * 4096], data, "{name}");
    }
}

#[test]
fn what_only_prints_ends_when_nobody_reads() {
    let folder = tempfile::tempdir().expect("a folder");
    // What goes on meets the fault, which its reader keeps it from.
    let rows = [
        ("WATCH --entries 64 --embedded demo,fault=cdq-head-refused", "could not be moved", ""),
        (
            "track memory embedded:demo --controller 2 --guest embedded:demo/2 --watch 3600s \
             --embedded demo,fault=status=0/06,opcode=3e,nth=30",
            "Track Receive",
            "host memory was still tracked",
        ),
        (
            "read embedded:demo --lba 0 --blocks 16384 --output - \
             --embedded demo,fault=status=0/06,queue=io,opcode=02,nth=200",
            "Internal Error",
            "",
        ),
    ];
    for (line, goes_on, ends) in rows {
        let line = line.replace("WATCH", WATCH);
        check(&line, &run(folder.path(), &line, "", Stdio::null()), 1, goes_on);
        check(&format!("unread {line}"), &run_unread(folder.path(), &line, ""), 0, ends);
    }
}

#[test]
fn an_output_that_takes_nothing_is_an_error() {
    let folder = tempfile::tempdir().expect("a folder");
    for line in ["identify embedded:demo", "faults", "man", "read embedded:demo --lba 0 --blocks 1", MIGRATE]
    {
        let full = File::options().write(true).open("/dev/full").expect("/dev/full");
        check(line, &run(folder.path(), line, "", full), 1, "standard output: No space left on device");
    }
}

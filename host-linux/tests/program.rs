// SPDX-License-Identifier: MIT OR Apache-2.0
//! The program as its users see it: exit status, standard output, report files, journals of earlier runs.

use std::fs;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use nvme_host_linux::journal::{Journal, Side};
use nvme_host_linux::report::{Report, RunsOn, Verdict};

const MIB: usize = 1 << 20;
const SMALL: [&str; 7] = ["migrate", "--queue-depth", "8", "--run-before", "20ms", "--run-after", "20ms"];

fn run(directory: &Path, arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_nvme-lm"))
        .current_dir(directory)
        .args(SMALL)
        .args(arguments)
        .output()
        .expect("the program starts")
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).expect("text")
}

#[test]
fn exit_status_and_report_say_how_a_run_ended() {
    // More writes after each round than the ring has entries, and no read of the migration faster than the limit: all
    // blocks are to be copied again, and one delta round can never be enough.
    let hopeless = [
        "--size",
        "8M",
        "--strict",
        "--stop-time-limit",
        "1ms",
        "--max-rounds",
        "1",
        "--cdq-entries",
        "3",
        "--read-percent",
        "0",
        "--stall-commands",
        "100",
        "--fault",
        "delay=2ms,controller=1,queue=io,opcode=02",
    ];
    let table: [(&str, &[&str], i32, Verdict, RunsOn); 4] = [
        ("verified", &["--size", "1M"], 0, Verdict::Verified, RunsOn::Destination),
        (
            "cancelled",
            &["--size", "1M", "--cancel-after", "baseline-copy"],
            3,
            Verdict::Cancelled,
            RunsOn::Source,
        ),
        (
            "cancelled late",
            &["--size", "1M", "--cancel-after", "set-state"],
            3,
            Verdict::Cancelled,
            RunsOn::Source,
        ),
        ("not converged", &hopeless, 4, Verdict::NotConverged, RunsOn::Source),
    ];
    for (name, options, status, verdict, side) in table {
        let dir = tempfile::tempdir().expect("directory");
        let output = Command::new(env!("CARGO_BIN_EXE_nvme-lm"))
            .current_dir(dir.path())
            .args(SMALL)
            .args(options)
            .args(["--json", "-"])
            .output()
            .expect("the program starts");
        let said = text(&output.stderr);
        assert_eq!(output.status.code(), Some(status), "{name}: {said}{}", text(&output.stdout));
        let report: Report = serde_json::from_slice(&output.stdout).expect("only JSON on standard output");
        assert_eq!((report.verdict, report.guest_runs_on), (verdict, side), "{name}: {}", report.statement);
        assert!(said.is_empty(), "{name}: {said}");
        assert_eq!(fs::read_dir(dir.path()).expect("list").count(), 0, "{name}: nothing is left");
    }
}

/// A run with two images in `directory`, which has begun.
fn begin(directory: &Path, options: &[&str]) -> Child {
    fs::write(directory.join("a.img"), vec![1; MIB]).expect("file");
    fs::write(directory.join("b.img"), vec![2; MIB]).expect("file");
    let child = Command::new(env!("CARGO_BIN_EXE_nvme-lm"))
        .current_dir(directory)
        .args(["migrate", "--queue-depth", "8", "--source-image", "a.img", "--dest-image", "b.img", "--yes"])
        .args(["--json", "-", "--no-progress"])
        .args(options)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the program starts");
    wait_for(&directory.join("b.img.journal"));
    child
}

/// What a run that has begun is waited for to reach.
#[derive(Clone, Copy)]
enum Mark {
    Begun,
    AtStop,
    Switched,
}

fn wait_until(what: &str, is_true: impl Fn() -> bool) {
    let until = Instant::now() + Duration::from_secs(60);
    while !is_true() {
        assert!(Instant::now() < until, "{what} is waited for in vain");
        std::thread::sleep(Duration::from_millis(5));
    }
}

fn wait_for(path: &Path) {
    wait_until(&path.display().to_string(), || path.exists());
}

fn send(signal: &str, child: &Child) {
    let kill = format!("kill -{signal} {}", child.id());
    assert!(Command::new("sh").args(["-c", &kill]).status().expect("sh").success());
}

const AT_STOP: &str = "touch stopped; while [ ! -e go ]; do sleep 0.01; done";

#[test]
fn r8_a_signal_cancels_what_can_be_cancelled_and_shortens_the_rest() {
    let long = ["--run-before", "0ms", "--run-after", "3600s"];
    // Name, options, signal, what to wait for first, exit status, verdict, side, image.
    type Row<'a> = (&'a str, Vec<&'a str>, &'a str, Mark, i32, Verdict, RunsOn, &'a str);
    // It waits after the first round, which no overflow may cut short.
    let slow = ["--stall-commands", "1000000000", "--write-rate", "100"];
    let table: [Row<'_>; 5] = [
        (
            "before",
            vec!["--run-before", "3600s", "--run-after", "3600s"],
            "INT",
            Mark::Begun,
            130,
            Verdict::Interrupted,
            RunsOn::Source,
            "a.img",
        ),
        (
            "copying",
            [&long[..], &slow].concat(),
            "INT",
            Mark::Begun,
            130,
            Verdict::Interrupted,
            RunsOn::Source,
            "a.img",
        ),
        (
            "copying, to be terminated",
            [&long[..], &slow].concat(),
            "TERM",
            Mark::Begun,
            130,
            Verdict::Interrupted,
            RunsOn::Source,
            "a.img",
        ),
        (
            "at stop",
            [&long[..], &["--at-stop", AT_STOP]].concat(),
            "TERM",
            Mark::AtStop,
            130,
            Verdict::Interrupted,
            RunsOn::Source,
            "a.img",
        ),
        (
            "too late",
            vec!["--run-before", "0ms", "--run-after", "3600s"],
            "TERM",
            Mark::Switched,
            0,
            Verdict::Verified,
            RunsOn::Destination,
            "b.img",
        ),
    ];
    for (name, options, signal, mark, status, verdict, side, image) in table {
        let dir = tempfile::tempdir().expect("directory");
        let child = begin(dir.path(), &options);
        match mark {
            Mark::Begun => {}
            Mark::AtStop => wait_for(&dir.path().join("stopped")),
            Mark::Switched => wait_until("the switch", || {
                Journal::read(&dir.path().join("b.img.journal"))
                    .is_ok_and(|record| record.authoritative == Side::Destination)
            }),
        }
        send(signal, &child);
        let output = child.wait_with_output().expect("output");
        let said = text(&output.stderr);
        assert_eq!(output.status.code(), Some(status), "{name}: {said}{}", text(&output.stdout));
        let report: Report = serde_json::from_slice(&output.stdout).expect("only JSON on standard output");
        assert_eq!((report.verdict, report.guest_runs_on), (verdict, side), "{name}: {}", report.statement);
        assert_eq!(report.guest.error, None, "{name}: {}", report.statement);
        assert_eq!(report.leftovers.bytes, 0, "{name}");
        let record = Journal::read(&dir.path().join("b.img.journal")).expect("journal");
        assert_eq!(record.image.file_name(), Path::new(image).file_name(), "{name}");
        assert_eq!(record.step, report.statement, "{name}");
    }
}

#[test]
fn r10_a_second_signal_ends_the_program_at_once_with_a_journal_that_is_right() {
    let dir = tempfile::tempdir().expect("directory");
    let mut child = begin(dir.path(), &["--at-stop", AT_STOP]);
    wait_for(&dir.path().join("stopped"));
    // The first has it go back, so both come while it cannot do that: it stands still and finds them waiting.
    for signal in ["STOP", "INT", "TERM", "CONT"] {
        send(signal, &child);
    }
    // Two signals that come at once may be taken for one.
    let status = loop {
        match child.try_wait().expect("status") {
            Some(status) => break status,
            None => send("TERM", &child),
        }
        std::thread::sleep(Duration::from_millis(50));
    };
    fs::write(dir.path().join("go"), "").expect("go");
    assert_eq!(status.code(), Some(130));
    let output = child.wait_with_output().expect("output");
    assert!(output.stdout.is_empty(), "a report of a run that did not come to its end");
    let record = Journal::read(&dir.path().join("b.img.journal")).expect("journal");
    assert_eq!(
        (record.authoritative, record.image.file_name()),
        (Side::Source, Path::new("a.img").file_name())
    );
}

#[test]
fn tables_and_report_file_come_together() {
    let dir = tempfile::tempdir().expect("directory");
    fs::write(dir.path().join("longer.json"), "x".repeat(100_000)).expect("file");
    for arguments in [&["--size", "1M"][..], &["--size", "1M", "--json", "longer.json"]] {
        let output = run(dir.path(), arguments);
        let tables = text(&output.stdout);
        assert_eq!(output.status.code(), Some(0), "{tables}{}", text(&output.stderr));
        for word in ["Rounds", "Controller Data Queue", "highest fill", "stop time", "Verdict: verified"] {
            assert!(tables.contains(word), "'{word}' is not in: {tables}");
        }
    }
    let report = fs::read(dir.path().join("longer.json")).expect("report");
    let report: Report = serde_json::from_slice(&report).expect("JSON and nothing else");
    assert_eq!(report.verdict, Verdict::Verified);
}

#[test]
fn a_report_that_does_not_fit_is_said_in_one_line() {
    let dir = tempfile::tempdir().expect("directory");
    let output = run(dir.path(), &["--size", "1M", "--json", "/dev/full"]);
    let message = text(&output.stderr);
    assert_eq!((output.status.code(), message.lines().count()), (Some(1), 1), "{message}");
    assert!(message.contains("/dev/full") && !message.contains("os error"), "{message}");
}

#[test]
fn r10_a_journal_of_an_earlier_run_protects_the_image_it_names() {
    let dir = tempfile::tempdir().expect("directory");
    let at = |name: &str| dir.path().join(name);
    fs::write(at("a.img"), vec![1; MIB]).expect("file");
    fs::write(at("b.img"), vec![2; MIB]).expect("file");
    fs::write(at("c.img"), vec![3; MIB]).expect("file");
    let forth = ["--source-image", "a.img", "--dest-image", "b.img", "--yes"];
    let back = ["--source-image", "b.img", "--dest-image", "a.img", "--yes"];
    let elsewhere = ["--source-image", "a.img", "--dest-image", "b.img", "--journal", "j", "--yes"];
    let stopped =
        ["--source-image", "a.img", "--dest-image", "b.img", "--cancel-after", "baseline-copy", "--yes"];
    let forced = ["--source-image", "b.img", "--dest-image", "a.img", "--force", "--yes"];
    let stale = ["--source-image", "a.img", "--dest-image", "c.img", "--yes"];
    let over = ["--source-image", "c.img", "--dest-image", "a.img", "--yes"];
    let over_b = ["--source-image", "c.img", "--dest-image", "b.img", "--yes"];
    // Name, options, exit status, journals afterwards, image that the first of them names.
    type Row<'a> = (&'a str, &'a [&'a str], i32, &'a [&'a str], &'a str);
    let table: [Row<'_>; 13] = [
        ("first", &forth, 0, &["b.img.journal"], "b.img"),
        ("again", &forth, 2, &["b.img.journal"], "b.img"),
        ("again with another journal", &elsewhere, 2, &["b.img.journal"], "b.img"),
        ("from the older one elsewhere", &stale, 2, &["b.img.journal"], "b.img"),
        ("back", &back, 0, &["a.img.journal"], "a.img"),
        ("forth, but cancelled", &stopped, 3, &["b.img.journal"], "a.img"),
        ("something else over the source", &over, 2, &["b.img.journal"], "a.img"),
        ("back over the source", &back, 2, &["b.img.journal"], "a.img"),
        ("forth after all", &elsewhere, 0, &["j"], "b.img"),
        ("again with that journal", &elsewhere, 2, &["j"], "b.img"),
        ("something else over what a journal with a name of its own names", &over_b, 2, &["j"], "b.img"),
        ("forced", &forced, 0, &["a.img.journal", "j"], "a.img"),
        ("forth, as the later one says", &forth, 0, &["b.img.journal", "j"], "b.img"),
    ];
    for (name, options, status, journals, image) in table {
        let before = [fs::read(at("a.img")).expect("a"), fs::read(at("b.img")).expect("b")];
        let output = run(dir.path(), options);
        let message = text(&output.stderr);
        assert_eq!(output.status.code(), Some(status), "{name}: {message}");
        if status == 2 {
            assert!(message.contains(image) && message.contains("--force"), "{name}: {message}");
            assert_eq!(message.lines().count(), 1, "{name}: {message}");
            assert!(
                before == [fs::read(at("a.img")).expect("a"), fs::read(at("b.img")).expect("b")],
                "{name}"
            );
        }
        let found: Vec<&str> =
            ["a.img.journal", "b.img.journal", "j"].into_iter().filter(|name| at(name).exists()).collect();
        assert_eq!(found, journals, "{name}");
        let record = Journal::read(&at(found[0])).expect("journal");
        assert_eq!(record.image.file_name(), Path::new(image).file_name(), "{name}");
    }
}

#[test]
fn r10_the_latest_journal_that_names_an_image_counts_wherever_it_is_named_from() {
    // Name, then runs: source, destination, whether it is cancelled, exit status. Images in l are links to those in d.
    type Run<'a> = (&'a str, &'a str, bool, i32);
    let table: [(&str, &[Run<'_>]); 6] = [
        (
            "cancelled, elsewhere, back",
            &[("d/a", "d/b", true, 3), ("d/a", "d/c", false, 0), ("d/c", "d/a", false, 0)],
        ),
        (
            "cancelled, elsewhere, on to the first destination",
            &[("d/a", "d/b", true, 3), ("d/a", "d/c", false, 0), ("d/c", "d/b", false, 0)],
        ),
        (
            "there, replaced, on",
            &[
                ("d/a", "d/b", false, 0),
                ("d/b", "d/c", false, 0),
                ("d/c", "d/a", false, 0),
                ("d/a", "d/b", false, 0),
            ],
        ),
        (
            "there and on, then over the last, from the first",
            &[("d/a", "d/b", false, 0), ("d/b", "d/c", false, 0), ("d/a", "d/c", false, 2)],
        ),
        (
            "a journal beside a link",
            &[("l/a", "l/b", true, 3), ("l/c", "l/a", false, 2), ("d/c", "l/a", false, 2)],
        ),
        ("a journal beside the file, asked by links", &[("d/a", "d/b", false, 0), ("l/c", "l/b", false, 2)]),
    ];
    for (name, runs) in table {
        let dir = tempfile::tempdir().expect("directory");
        for folder in ["d", "l"] {
            fs::create_dir(dir.path().join(folder)).expect("directory");
        }
        for (number, image) in [(1, "a"), (2, "b"), (3, "c")] {
            fs::write(dir.path().join("d").join(image), vec![number; MIB]).expect("file");
            let link = dir.path().join("l").join(image);
            std::os::unix::fs::symlink(Path::new("../d").join(image), link).expect("link");
        }
        for (source, destination, cancelled, status) in runs {
            let name = format!("{name}: {source} to {destination}");
            let mut options = vec!["--source-image", source, "--dest-image", destination, "--yes"];
            options.extend(cancelled.then_some(["--cancel-after", "drain"]).into_iter().flatten());
            let before = fs::read(dir.path().join(destination)).expect("image");
            let output = run(dir.path(), &options);
            let message = text(&output.stderr);
            assert_eq!(output.status.code(), Some(*status), "{name}: {message}");
            let same = before == fs::read(dir.path().join(destination)).expect("image");
            assert_eq!(same, *status == 2, "{name}");
            assert_eq!(message.contains("of an earlier run"), *status == 2, "{name}: {message}");
        }
    }
}

#[test]
fn r10_what_was_to_be_said_next_when_a_run_was_killed_counts_for_nothing() {
    let dir = tempfile::tempdir().expect("directory");
    for (name, byte) in [("a.img", 1), ("b.img", 2)] {
        fs::write(dir.path().join(name), vec![byte; MIB]).expect("file");
    }
    let forth = ["--source-image", "a.img", "--dest-image", "b.img", "--yes"];
    let output = run(dir.path(), &[&forth[..], &["--cancel-after", "drain"]].concat());
    assert_eq!(output.status.code(), Some(3), "{}", text(&output.stderr));
    let journal = dir.path().join("b.img.journal");
    let mut next = Journal::read(&journal).expect("journal");
    (next.authoritative, next.image, next.sequence) = (Side::Destination, next.destination.clone(), u64::MAX);
    let next = serde_json::to_vec(&next).expect("JSON");
    let left = dir.path().join("b.img.journal.4321.tmp");
    fs::write(&left, &next).expect("file");
    // Name, options, exit status: b.img holds nothing that counts, a.img does.
    let back = ["--source-image", "b.img", "--dest-image", "a.img", "--yes"];
    for (name, options, status) in [("back", &back, 2), ("forth", &forth, 0)] {
        let output = run(dir.path(), options);
        assert_eq!(output.status.code(), Some(status), "{name}: {}", text(&output.stderr));
    }
    // The same under any other name counts.
    fs::rename(&left, dir.path().join("other")).expect("another name");
    let output = run(dir.path(), &["--source-image", "a.img", "--dest-image", "b.img", "--force", "--yes"]);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    let output = run(dir.path(), &forth);
    assert_eq!(output.status.code(), Some(2), "{}", text(&output.stderr));
    let said = Journal::read(&journal).expect("journal");
    assert_eq!((said.sequence, said.authoritative), (u64::MAX, Side::Destination), "never less than another");
}

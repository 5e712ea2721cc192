// SPDX-License-Identifier: MIT OR Apache-2.0
//! Deviations of other models: what a controller that imitates one makes of a command without the quirk and with it.

use std::path::Path;
use std::process::{Command, Stdio};

use nvme_core::migration::Quirks;

/// Exit status, and what the program says; words that begin with `!` it must not say.
type End = (i32, &'static [&'static str]);

struct Row {
    /// The quirk that makes the difference, or that is tolerated anyway.
    quirk: &'static str,
    /// The command, without `--quirks`.
    line: &'static str,
    without: End,
    with: End,
}

const WATCH: &str = "cdq watch embedded:demo --controller 2 --guest embedded:demo/2 --guest-rate 20000";
const MIGRATE: &str = "migrate --source-manager embedded:a/1 --source embedded:a/2 --dest-manager embedded:b/1 \
                       --dest embedded:b/7 --embedded b,size=4M --run-before 0ms --run-after 0ms --run-commands 20 --yes";

const ROWS: &[Row] = &[
    Row {
        quirk: "suspended-in-header",
        line: "state get embedded:demo --controller 2 --suspend --output some.state \
               --embedded demo,quirks=suspended-not-reported",
        without: (0, &["was not suspended all the time, so what was read may not fit together"]),
        with: (0, &["state of controller 2: 152 bytes", "!not suspended"]),
    },
    Row {
        quirk: "suspended-in-header",
        line: "MIGRATE --embedded a,size=4M,quirks=suspended-not-reported",
        without: (
            1,
            &["was not suspended while its state was read", "rolled back, the guest runs on at the source"],
        ),
        with: (0, &["guest runs on   destination", "Verdict: verified"]),
    },
    Row {
        quirk: "set-state-in-one",
        line: "state set embedded:demo --controller 2 --suspend --input long.state --yes",
        // In parts, the first of which says how long it will be.
        without: (1, &["Migration Send, Set Controller State: completed with status"]),
        with: (2, &["the controller takes 1048576 in one command, as it must (quirk set-state-in-one)"]),
    },
    Row {
        quirk: "stop-before-restart",
        line: "WATCH --entries 3 --count 60 --embedded demo,quirks=no-first-entry-after-full",
        without: (0, &["OVERFLOW", "VIOLATION: a change was reported while the log was Overflowed"]),
        with: (0, &["OVERFLOW", "log starts again", "violations    0", "!VIOLATION"]),
    },
    Row {
        quirk: "stop-before-restart",
        line: "WATCH --count 300 --embedded demo,quirks=logging-resumes-after-full,fault=cdq-full-early,nth=9",
        without: (
            1,
            &["OVERFLOW", "Track Send, start logging: completed with status Invalid Field in Command"],
        ),
        with: (0, &["OVERFLOW", "log starts again"]),
    },
    Row {
        quirk: "trigger-one-early",
        line: "WATCH --count 100 --embedded demo,quirks=trigger-after-increment",
        // The slot that is to be filled next was reached already, so nothing wakes the host for a lap.
        without: (0, &["entries       100 ", "events        0 of the trigger"]),
        with: (0, &["entries       100 ", "!events        0 of the trigger"]),
    },
    Row {
        quirk: "contiguous-queues-only",
        line: "cdq create embedded:demo --controller 2 --layout prp-list",
        without: (0, &["128 KiB, pages in a PRP list"]),
        with: (0, &["128 KiB, contiguous", "because of the quirk contiguous-queues-only"]),
    },
    Row {
        quirk: "stop-before-start",
        // The first Track Send is refused, as a start is where the log counts as active, and a stop is then not.
        line: "cdq watch embedded:demo --controller 2 --seconds 0 --embedded demo,fault=status=0/02,opcode=3d,nth=1",
        without: (1, &["Track Send, start logging: completed with status Invalid Field in Command"]),
        with: (0, &["log started\nlog stopped\n"]),
    },
    Row {
        quirk: "events-once",
        line: "WATCH --count 200 --embedded demo,quirks=one-shot-events-masked",
        // Later ones are missed, and the queue is looked at nevertheless.
        without: (0, &["entries       200 ", "events        1 of the trigger"]),
        with: (0, &["entries       200 ", "events        0 of the trigger"]),
    },
    Row {
        quirk: "limits-read-zero",
        line: "cdq create embedded:demo --controller 2 --embedded demo,quirks=limits-read-zero",
        without: (0, &["limits      0 queues (MCUDMQ), 0 in the subsystem", "queue       0\n"]),
        with: (0, &["limits      0 queues (MCUDMQ), 0 in the subsystem", "queue       0\n"]),
    },
    Row {
        quirk: "fails-with-do-not-retry",
        line: "admin embedded:demo --opcode 0x45 --cdw10 7 --yes --embedded demo,quirks=bad-select-only-do-not-retry",
        without: (1, &["error: Controller Data Queue (45h): ", "(0/00h), do not retry"]),
        with: (1, &["error: Controller Data Queue (45h): ", "(0/00h), do not retry"]),
    },
    Row {
        quirk: "short-structures",
        line: "formats embedded:demo --embedded demo,quirks=formats-four-bytes",
        without: (0, &["    1  version 0\n", "vendor format\n       none"]),
        with: (0, &["    1  version 0\n", "vendor format\n       none"]),
    },
    Row {
        quirk: "short-structures",
        line: "script features.script --embedded demo,quirks=cdq-feature-eight-bytes",
        without: (0, &["HP ", "TPT "]),
        with: (0, &["HP ", "TPT "]),
    },
    Row {
        quirk: "suspend-may-hang",
        line: "suspend embedded:demo --controller 2 --timeout 1s --embedded demo,fault=drop,opcode=41,times=1",
        without: (
            1,
            &["was not suspended within 1s", "was suspended late and is resumed: its guest runs on"],
        ),
        with: (1, &["was not suspended within 1s", "was suspended late and is resumed: its guest runs on"]),
    },
    Row {
        quirk: "suspend-may-hang",
        line: "MIGRATE --command-timeout 1s --embedded a,size=4M,fault=drop,opcode=41,times=1",
        without: (1, &["rolled back, the guest runs on at the source, verified"]),
        with: (1, &["rolled back, the guest runs on at the source, verified"]),
    },
];

/// Deviations of what guests do, which need one that deallocates: tests of the migration itself have them.
const ELSEWHERE: &[&str] = &["deallocate-one-block-more"];

fn run(folder: &Path, line: &str) -> (Option<i32>, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_nvme-lm"))
        .current_dir(folder)
        .args(line.split_whitespace())
        .stdin(Stdio::null())
        .output()
        .expect("nvme-lm starts");
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (output.status.code(), text(&output.stdout) + &text(&output.stderr))
}

#[test]
fn each_quirk_makes_the_difference_that_it_says() {
    let folder = tempfile::tempdir().expect("a folder");
    let write = |name: &str, bytes: &[u8]| std::fs::write(folder.path().join(name), bytes).expect("a file");
    // A state with a vendor part of two mebibytes.
    let mut long = vec![0; (2 << 20) + 48 + 8];
    (long[2], long[16], long[34]) = (1, 2, 8);
    write("long.state", &long);
    write(
        "features.script",
        b"cdq create embedded:demo --controller 2\nfeatures get embedded:demo --feature 0x21 --cdw11 0 --all\n",
    );
    for Row { quirk, line, without, with } in ROWS {
        let line = line.replace("WATCH", WATCH).replace("MIGRATE", MIGRATE);
        for (choice, (status, words)) in [("none".to_owned(), without), (format!("none,+{quirk}"), with)] {
            let (ended, said) = run(folder.path(), &format!("{line} --quirks {choice}"));
            let name = format!("{quirk}, {line} --quirks {choice}");
            assert_eq!(ended, Some(*status), "{name}: {said}");
            for word in *words {
                match word.strip_prefix('!') {
                    Some(word) => assert!(!said.contains(word), "{name}: {word:?} is in: {said}"),
                    None => assert!(said.contains(word), "{name}: {word:?} is not in: {said}"),
                }
            }
        }
    }
}

#[test]
fn no_quirk_is_forgotten() {
    for known in Quirks::TABLE {
        let here = ROWS.iter().any(|row| row.quirk == known.name);
        assert_ne!(here, ELSEWHERE.contains(&known.name), "{}", known.name);
    }
}

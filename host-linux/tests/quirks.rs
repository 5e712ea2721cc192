// SPDX-License-Identifier: MIT OR Apache-2.0
//! Deviations of other models: what a controller that imitates one makes of a command without the quirk and with it.
//!
//! `stop-before-start` is shown by `migrate` alone: no line of a script resets a managing controller, so that `track start` and
//! `cdq watch`, which do the same, cannot show it here. That a suspend never completes on a queue over a PRP list is imitated
//! by a command that is dropped.

use std::path::Path;
use std::process::{Command, Stdio};

use nvme_core::migration::Quirks;

/// Exit status, and what the program says; words that begin with `!` it must not say.
type End = (i32, &'static [&'static str]);

struct Row {
    /// The quirk that makes the difference.
    quirk: &'static str,
    /// The command, without `--quirks`.
    line: &'static str,
    without: End,
    with: End,
}

/// A deviation that the driver stands whether it knows of it or not.
struct Tolerated {
    quirk: &'static str,
    /// The command, without `--quirks` and `--embedded`.
    line: &'static str,
    /// What makes a controller that follows the specification deviate.
    deviates: &'static str,
    /// What is said then, in either case, and never without the deviation.
    shows: &'static str,
    status: i32,
    /// What else is said then.
    says: &'static [&'static str],
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
        with: (0, &["guest runs on         destination", "Verdict: verified"]),
    },
    Row {
        quirk: "set-state-in-one",
        line: "state set embedded:demo --controller 2 --suspend --input long.state --yes \
               --embedded demo,quirks=state-in-one-command",
        // The first of several parts.
        without: (1, &["Migration Send, Set Controller State: completed with status Internal Error"]),
        with: (2, &["the controller takes 1048576 in one command, as it must (quirk set-state-in-one)"]),
    },
    Row {
        quirk: "stop-before-restart",
        line: "WATCH --count 60 --embedded demo,quirks=no-first-entry-after-full,fault=cdq-full-early,nth=9",
        without: (0, &["OVERFLOW", "VIOLATION: a change was reported while the log was Overflowed"]),
        with: (0, &["OVERFLOW", "log starts again", "violations    0", "!VIOLATION"]),
    },
    Row {
        quirk: "stop-before-restart",
        line: "script full.script --embedded demo,quirks=logging-resumes-after-full,fault=cdq-full-early,nth=3",
        // The start succeeds and posts nothing: what follows is in no log.
        without: (
            0,
            &["OVERFLOW", "VIOLATION: a change was reported while the log was Overflowed", "!log stopped"],
        ),
        with: (0, &["OVERFLOW", "log stopped\nlog started\n", "blocks 30 to 30 (1)", "!VIOLATION"]),
    },
    Row {
        quirk: "trigger-one-early",
        line: "script trigger.script --embedded demo,quirks=trigger-after-increment",
        // The slot that is filled next is 2, and the tail is there already: nothing wakes the host for a lap.
        without: (0, &["TPT     2 ", "resumed\nController Data Queue (feature 21h)\n DW0     0x80000000 "]),
        with: (0, &["TPT     3 ", "resumed\nController Data Queue (feature 21h)\n DW0  0x0 "]),
    },
    Row {
        quirk: "trigger-one-early",
        line: "script further.script --embedded demo,quirks=trigger-after-increment",
        without: (0, &["TPT     5 "]),
        with: (0, &["TPT     6 "]),
    },
    Row {
        quirk: "contiguous-queues-only",
        line: "MIGRATE --json - --cdq-layout prp-list --embedded a,size=4M,quirks=listed-queues-not-filled",
        without: (1, &["rolled back, the guest runs on at the source, verified"]),
        with: (
            0,
            &[
                "warning: the queue is contiguous, because",
                "\"list_entries\": 0,",
                "\"verdict\": \"verified\"",
            ],
        ),
    },
    Row {
        quirk: "contiguous-queues-only",
        line: "cdq create embedded:demo --controller 2 --layout prp-list",
        without: (0, &["128 KiB, pages in a PRP list"]),
        with: (0, &["128 KiB, contiguous", "because of the quirk contiguous-queues-only"]),
    },
    Row {
        quirk: "stop-before-start",
        // The managing controller is reset after it was asked what it is.
        line: "MIGRATE --embedded a,size=4M,quirks=logging-active-after-reset",
        // Without a first entry nothing that follows counts, so that all is copied once more.
        without: (0, &["overflowed (0 times in all)", "Verdict: verified"]),
        with: (0, &["!(0 times in all)", "Verdict: verified"]),
    },
    Row {
        quirk: "events-once",
        line: "script events.script --embedded demo,quirks=one-shot-events-masked",
        // Two triggers were armed and reached.
        without: (0, &["events        1 of the trigger", "!events        2 of the trigger"]),
        with: (0, &["events        0 of the trigger", "!events        1 of the trigger"]),
    },
    Row {
        quirk: "copy-not-logged",
        line: "MIGRATE --embedded a,size=4M,quirks=copy-not-logged",
        without: (0, &["Verdict: verified", "!quirk copy-not-logged"]),
        with: (
            0,
            &[
                "warning: embedded:a/1: blocks changed by Copy are not logged",
                "\nNote: embedded:a/1: blocks changed",
            ],
        ),
    },
    Row {
        quirk: "copy-not-logged",
        line: "MIGRATE --embedded a,size=4M,quirks=copy-not-logged --strict --stop-time-limit 3600s",
        without: (0, &["Verdict: verified"]),
        with: (3, &["(quirk copy-not-logged), so a guest", "without --strict", "!Verdict"]),
    },
    Row {
        quirk: "deallocated-ranges-dropped",
        line: "MIGRATE --embedded a,size=4M,quirks=dataset-range-dropped --strict --stop-time-limit 3600s",
        without: (0, &["Verdict: verified"]),
        with: (3, &["embedded:a/1: a deallocated range is not logged if", "!Verdict"]),
    },
];

const TOLERATED: &[Tolerated] = &[
    Tolerated {
        quirk: "limits-read-zero",
        line: "cdq create embedded:demo --controller 2",
        deviates: "--embedded demo,quirks=limits-read-zero",
        shows: "limits      0 queues (MCUDMQ), 0 in the subsystem",
        status: 0,
        says: &["queue       0\n"],
    },
    Tolerated {
        quirk: "fails-with-do-not-retry",
        line: "admin embedded:demo --opcode 0x45 --cdw10 7 --yes",
        deviates: "--embedded demo,quirks=bad-select-only-do-not-retry",
        shows: "(0/00h), do not retry",
        status: 1,
        says: &["error: Controller Data Queue (45h): "],
    },
    Tolerated {
        quirk: "short-structures",
        line: "formats embedded:demo",
        deviates: "--embedded demo,quirks=formats-four-bytes",
        shows: "vendor format\n       none",
        status: 0,
        says: &["    1  version 0\n"],
    },
    Tolerated {
        quirk: "short-structures",
        // One bit of what is transferred is inverted: of eight bytes it is one of the trigger.
        line: "script features.script --embedded demo,FEATUREfault=flip-to-host,opcode=0a,seed=1",
        deviates: "quirks=cdq-feature-eight-bytes,",
        shows: "TPT            8192 ",
        status: 0,
        says: &["HP             0 "],
    },
    Tolerated {
        quirk: "suspend-may-hang",
        line: "script suspend.script",
        deviates: "--embedded demo,fault=drop,opcode=41,times=1",
        shows: "was not suspended within 1s",
        status: 0,
        says: &["was suspended late and is resumed: its guest runs on"],
    },
    Tolerated {
        quirk: "suspend-may-hang",
        line: "MIGRATE --command-timeout 5s",
        // The second is the suspend: before it the source is told that one is near.
        deviates: "--embedded a,size=4M,fault=drop,opcode=41,nth=2",
        shows: "source: suspend: no completion in time",
        status: 1,
        says: &["rolled back, the guest runs on at the source, verified"],
    },
];

/// A dialect of the state shows only where the tail of a completion queue is 0, which no command line decides: small queues
/// make it frequent. What the wrong quirks do then, tests of the migration itself show.
struct Dialect {
    name: &'static str,
    /// What is given to [`MIGRATE`] in place of its destination.
    line: &'static str,
    /// Quirks of the source, and of the destination, by which the guest goes on every time.
    right: [&'static str; 2],
}

const SMALL_QUEUES: &str = "--queue-depth 2 --io-queues 8";
const NEXT: &str = "none,+slot-zero-is-next-phase";
/// Runs of each line: whether a tail is 0 at the switch, on which it hangs, is another matter each time.
const RUNS: u32 = 4;

const DIALECTS: &[Dialect] = &[
    Dialect {
        name: "source",
        line: "--embedded a,size=4M,quirks=slot-zero-is-next-phase --embedded b,size=4M",
        right: [NEXT, "none"],
    },
    Dialect {
        name: "destination",
        line: "--embedded a,size=4M --embedded b,size=4M,quirks=slot-zero-is-next-phase",
        right: ["none", NEXT],
    },
    Dialect {
        name: "both",
        line: "--embedded a,size=4M,quirks=slot-zero-is-next-phase --embedded b,size=4M,quirks=slot-zero-is-next-phase",
        right: [NEXT, NEXT],
    },
];

/// Deviations that only matter to a migration whose guest deallocates, which no guest of this program does: tests of the
/// migration itself have the quirk, and here is what the controller makes of it.
const OF_DEALLOCATION: &[(&str, &str, &str, &str)] = &[(
    "deallocate-one-block-more",
    "quirks=dataset-length-one-based",
    "deallocated namespace 1, blocks 16380 to 16383 (4)",
    "changed     namespace 1, blocks 16380 to 16384 (5)",
)];

/// Each line of a log that is armed and then goes on.
const TRIGGER: &str = "\
cdq create embedded:demo --controller 2
track start embedded:demo --controller 2
suspend embedded:demo --controller 2
cdq watch embedded:demo --controller 2
features get embedded:demo --feature 0x21 --cdw11 0
resume embedded:demo --controller 2
features get embedded:demo --feature 0x21 --cdw11 0
";

/// A watch ends at the end of the log, and has armed the trigger by then; the log goes on with an entry in its slot.
const AGAIN: &str = "\
track start embedded:demo --controller 2
suspend embedded:demo --controller 2
cdq watch embedded:demo --controller 2
resume embedded:demo --controller 2
track stop embedded:demo --controller 2
";

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

/// Runs a line with each choice of `--quirks` and looks for words.
fn check(folder: &Path, name: &str, line: &str, choice: &str, (status, words): (i32, &[&str])) {
    let line = line.replace("WATCH", WATCH).replace("MIGRATE", MIGRATE);
    let (ended, said) = run(folder, &format!("{line} --quirks {choice}"));
    let name = format!("{name}, {line} --quirks {choice}");
    assert_eq!(ended, Some(status), "{name}: {said}");
    for word in words {
        match word.strip_prefix('!') {
            Some(word) => assert!(!said.contains(word), "{name}: {word:?} is in: {said}"),
            None => assert!(said.contains(word), "{name}: {word:?} is not in: {said}"),
        }
    }
}

/// A folder with what the lines read.
fn folder() -> tempfile::TempDir {
    let folder = tempfile::tempdir().expect("a folder");
    let write = |name: &str, bytes: &[u8]| std::fs::write(folder.path().join(name), bytes).expect("a file");
    // A state with a vendor part of two mebibytes.
    let mut long = vec![0; (2 << 20) + 48 + 8];
    (long[2], long[16], long[34]) = (1, 2, 8);
    write("long.state", &long);
    write("trigger.script", TRIGGER.as_bytes());
    write("further.script", TRIGGER.replace("cdq create", "cdq create --trigger 3").as_bytes());
    let create = "cdq create embedded:demo --controller 2\n";
    write("events.script", format!("{create}{}", AGAIN.repeat(3)).as_bytes());
    let get = "features get embedded:demo --feature 0x21 --cdw11 0 --all\n";
    write("features.script", format!("{create}{get}").as_bytes());
    // Only the suspend is given up soon.
    write("suspend.script", b"-suspend embedded:demo --controller 2 --timeout 1s\n");
    // Its third entry fills the queue. Another line starts the log again.
    write(
        "full.script",
        b"cdq create embedded:demo --controller 2\ntrack start embedded:demo --controller 2\n\
          deallocate embedded:demo/2 --lba 10 --blocks 1 --yes\ndeallocate embedded:demo/2 --lba 20 --blocks 1 --yes\n\
          cdq watch embedded:demo --controller 2 --count 3\ntrack start embedded:demo --controller 2\n\
          deallocate embedded:demo/2 --lba 30 --blocks 1 --yes\nsuspend embedded:demo --controller 2\n\
          cdq watch embedded:demo --controller 2\n",
    );
    write(
        "deallocate.script",
        b"cdq create embedded:demo --controller 2\ntrack start embedded:demo --controller 2\n\
          deallocate embedded:demo/2 --lba 16380 --blocks 4 --yes\nsuspend embedded:demo --controller 2\n\
          cdq watch embedded:demo --controller 2\n",
    );
    folder
}

#[test]
fn each_quirk_makes_the_difference_that_it_says() {
    let folder = folder();
    for Row { quirk, line, without, with } in ROWS {
        assert_ne!(without, with, "{quirk}");
        check(folder.path(), quirk, line, "none", *without);
        check(folder.path(), quirk, line, &format!("none,+{quirk}"), *with);
    }
}

#[test]
fn a_state_of_another_dialect_is_translated() {
    let folder = folder();
    for Dialect { name, line, right } in DIALECTS {
        // Both sides are described by the line.
        let migrate = MIGRATE.replace("--embedded b,size=4M", SMALL_QUEUES);
        let [source, destination] = right;
        let line = format!("{migrate} {line} --quirks {source} --dest-quirks {destination}");
        for attempt in 1..=RUNS {
            let (ended, said) = run(folder.path(), &line);
            assert_eq!(ended, Some(0), "{name}, run {attempt}: {said}");
            assert!(said.contains("Verdict: verified"), "{name}, run {attempt}: {said}");
        }
    }
}

#[test]
fn what_is_tolerated_anyway_is_a_deviation_and_does_no_harm() {
    let folder = folder();
    for Tolerated { quirk, line, deviates, shows, status, says } in TOLERATED {
        let (sound, deviating) = match line.contains("FEATURE") {
            true => (line.replace("FEATURE", ""), line.replace("FEATURE", deviates)),
            false => ((*line).to_owned(), format!("{line} {deviates}")),
        };
        let (_, said) = run(folder.path(), &sound.replace("MIGRATE", MIGRATE));
        assert!(!said.contains(shows), "{quirk}: without the deviation {shows:?} is in: {said}");
        let words: Vec<&str> = [&[*shows], *says].concat();
        check(folder.path(), quirk, &deviating, "none", (*status, &words));
        check(folder.path(), quirk, &deviating, &format!("none,+{quirk}"), (*status, &words));
    }
}

#[test]
fn deallocated_ranges_have_a_block_too_many() {
    let folder = folder();
    for (quirk, deviates, sound, deviating) in OF_DEALLOCATION {
        check(folder.path(), quirk, "script deallocate.script", "none", (0, &[sound]));
        let line = format!("script deallocate.script --embedded demo,{deviates}");
        for choice in ["none".to_owned(), format!("none,+{quirk}")] {
            check(folder.path(), quirk, &line, &choice, (0, &[deviating]));
        }
    }
}

#[test]
fn no_quirk_is_forgotten() {
    for known in Quirks::TABLE {
        let lists = [
            ROWS.iter().any(|row| row.quirk == known.name),
            TOLERATED.iter().any(|row| row.quirk == known.name),
            OF_DEALLOCATION.iter().any(|row| row.0 == known.name),
            NEXT.ends_with(known.name),
        ];
        assert_eq!(lists.iter().filter(|found| **found).count(), 1, "{}", known.name);
        assert_eq!(lists[1], known.with.is_empty(), "{}: what it says of itself", known.name);
    }
}

/// Commands with `--quirks`, without the `--yes` that those want which change something.
const LISTED: &[&str] = &[
    "list embedded:demo",
    "identify embedded:demo",
    "namespaces embedded:demo",
    "log embedded:demo --page 2",
    "features get embedded:demo --feature 7",
    "features set embedded:demo --feature 4 --value 350",
    "cdq create embedded:demo --controller 2",
    "cdq watch embedded:demo --controller 2",
    "cdq delete embedded:demo --id 0",
    "track start embedded:demo --controller 2",
    "track stop embedded:demo --controller 2",
    "track memory embedded:demo --controller 2 --range 0+4096",
    "suspend embedded:demo --controller 2",
    "resume embedded:demo --controller 2",
    "state get embedded:demo --controller 2 --suspend --output new.state",
    "state set embedded:demo --controller 2 --suspend --input long.state",
    "formats embedded:demo",
    "script changes.script",
    "read embedded:demo --lba 0 --blocks 1 --output new.state",
    "write embedded:demo --lba 0 --blocks 1 --pattern random",
    "compare embedded:demo --lba 0 --blocks 1 --pattern random",
    "flush embedded:demo",
    "deallocate embedded:demo --lba 0 --blocks 1",
    "write-zeroes embedded:demo --lba 0 --blocks 1",
    "verify embedded:demo --lba 0 --blocks 1",
    "copy embedded:demo --range 0:1 --to 8",
    "admin embedded:demo --opcode 0x45",
    "io embedded:demo --opcode 8 --namespace 1",
    "bench embedded:demo --op write",
];

/// Commands that identify no controller, and would change one or look at nothing.
const NOT_LISTED: &[&str] = &[
    "list",
    "registers embedded:demo",
    "reset embedded:demo",
    "reset embedded:demo --yes",
    "reset embedded:demo --function --yes",
    "reset embedded:demo --subsystem --yes",
    "script looks.script",
    "MIGRATE",
];

#[test]
fn a_list_of_quirks_asks_nothing_and_changes_nothing() {
    let folder = folder();
    let image: Vec<u8> = (0..1_u32 << 20).map(|at| (at >> 8) as u8).collect();
    let at = |name: &str| folder.path().join(name);
    std::fs::write(at("a.img"), &image).expect("a file");
    let changes =
        "suspend embedded:demo --controller 2\nwrite embedded:demo --lba 0 --blocks 1 --pattern random\n";
    std::fs::write(at("changes.script"), changes).expect("a file");
    let looks = "registers embedded:demo --quirks list\n";
    std::fs::write(at("looks.script"), format!("identify embedded:other\n{looks}")).expect("a file");
    let line = "-suspend embedded:demo --controller 2 --quirks list\nwrite embedded:demo --lba 0 --blocks 1 --pattern zero --quirks list\n";
    std::fs::write(at("line.script"), line).expect("a file");
    let embedded = "--embedded demo,image=a.img";
    let lists = "recognised as: no model with quirks";
    let last = Quirks::TABLE.last().map(|known| known.with).filter(|with| !with.is_empty());
    let ends = format!("with: {}", last.unwrap_or("the same"));
    for line in LISTED {
        let (status, said) = run(folder.path(), &format!("{line} --quirks list {embedded}"));
        assert_eq!((status, said.matches(lists).count()), (Some(0), 1), "{line}: {said}");
        // The table is all: nothing is left to be undone, and nothing is said of a change.
        assert!(said.trim_end().ends_with(&ends) && !said.contains("note:"), "{line}: {said}");
        // That of a command which does not migrate, too, promises no translation.
        let with =
            "with: a migration translates the state that is read from it or set at it; nothing else does\n";
        assert_eq!(said.matches(" translates ").count(), said.matches(with).count(), "{line}: {said}");
        assert_eq!(said.matches(with).count(), 1, "{line}: {said}");
    }
    let (status, said) = run(folder.path(), &format!("script line.script {embedded}"));
    assert_eq!((status, said.matches(lists).count()), (Some(0), 2), "{said}");
    let (status, said) = run(folder.path(), "script looks.script --embedded demo,image=none.img");
    assert_eq!(status, Some(2), "{said}");
    assert!(said.starts_with("error: line 2: --quirks list only shows"), "{said}");
    for line in NOT_LISTED {
        // An image that is not there would be missed before any controller is.
        let line = line.replace("MIGRATE", MIGRATE).replace("b,size=4M", "b,image=none.img");
        let (status, said) =
            run(folder.path(), &format!("{line} --quirks list --embedded demo,image=none.img"));
        assert_eq!(status, Some(2), "{line}: {said}");
        let refuses = "--quirks list only shows what a controller has: give it to a command that identifies one, \
                       such as nvme-lm identify ADDRESS\n";
        assert!(said.ends_with(refuses) && said.lines().count() == 1, "{line}: {said}");
    }
    assert!(std::fs::read(at("a.img")).expect("a file") == image, "the namespace was written");
    assert!(!at("new.state").exists(), "a state was read");
}

#[test]
fn no_command_with_quirks_is_forgotten() {
    fn walk(command: &clap::Command, name: &str, found: &mut Vec<String>) {
        if command.get_arguments().any(|arg| arg.get_id() == "quirks") {
            found.push(name.to_owned());
        }
        for one in command.get_subcommands() {
            walk(one, format!("{name} {}", one.get_name()).trim(), found);
        }
    }
    let mut found = Vec::new();
    walk(&nvme_host_linux::cli::program(), "", &mut found);
    assert!(found.len() > 25, "{found:?}");
    for name in found {
        let is_it = |line: &&str| line.replace("MIGRATE", "migrate ").starts_with(&format!("{name} "));
        assert!(LISTED.iter().any(is_it) || NOT_LISTED.iter().any(is_it), "{name}");
    }
}

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
    let rows: [(&str, i32, &[&str], &[&str]); 28] = [
        (
            "track memory embedded:demo --controller 2 --granularity 64K",
            2,
            &[],
            &["--granularity is of what is tracked from now on; give --range or --guest"],
        ),
        (
            // Both fail, and the guest's error is not lost.
            "track memory embedded:demo --controller 2 --guest embedded:demo/2 --embedded demo,fault=status=0/06,opcode=3d;status=0/06,queue=io,opcode=02,controller=2",
            1,
            &[],
            &["Track Memory Changes", "guest: "],
        ),
        (
            "track memory embedded:demo --controller 2 --guest embedded:demo/2 --granularity 64K",
            0,
            &["0000  ", " KiB\n"],
            &["host memory was still tracked for controller 2: stopped"],
        ),
        (
            "track memory embedded:demo --controller 2 --guest embedded:demo/2 --granularity 256K",
            0,
            &["0000  "],
            &["host memory was still tracked for controller 2: stopped"],
        ),
        (
            // Whole granules of what is told apart most coarsely.
            "track memory embedded:demo --controller 2 --guest embedded:demo/2 --granularity 2M",
            0,
            &["00000  2 MiB\n"],
            &["host memory was still tracked for controller 2: stopped"],
        ),
        (
            // What starts tracking would be refused, and is not sent.
            "track memory embedded:demo --controller 2 --guest embedded:demo/2 --granularity 4M --embedded demo,fault=status=0/06,opcode=3d",
            2,
            &[],
            &[
                "error: granules of 4 MiB reach beyond the guest's memory, in which those of 2 MiB fit and no larger ones: give \
               --granularity no more than that, or say by --range what to track\n",
            ],
        ),
        (
            // Nobody is looked for.
            "track memory vfio-user:nowhere --controller 2 --guest vfio-user:nowhere-else --granularity 96K",
            2,
            &[],
            &["error: granularity 98304 is no power of two from 4096 on\n"],
        ),
        (
            // Its guest fails at once, and nothing more is waited for: the controller is not asked for ever.
            "track memory embedded:demo --controller 2 --guest embedded:demo/2 --embedded demo,fault=status=0/06,queue=io,opcode=02,controller=2;status=0/06,opcode=3e,nth=20",
            1,
            &[],
            &["note: host memory was still tracked for controller 2: stopped\n\
                 error: guest: a read of the guest completed with status Internal Error (0/06h)\n"],
        ),
        (
            "cdq watch embedded:demo --controller 2 --guest embedded:demo/2 --embedded demo,fault=status=0/06,opcode=3d,nth=2;status=0/06,queue=io,opcode=02,controller=2",
            1,
            &[],
            &["Track Send, stop logging", "guest: a read of the guest completed with status Internal Error"],
        ),
        (
            // What was seen until then is told.
            "cdq watch embedded:demo --controller 2 --guest embedded:demo/2 --embedded demo,fault=status=0/06,queue=io,opcode=02,nth=50,controller=2",
            1,
            &["log stopped\nentries "],
            &["error: guest: a read of the guest completed with status Internal Error"],
        ),
        (
            // It was carried out and never answered.
            "suspend embedded:demo --controller 2 --timeout 1s --embedded demo,fault=drop,opcode=41,times=1",
            1,
            &[],
            &[
                "was not suspended within 1s",
                "controller 2 was suspended late and is resumed: its guest runs on",
            ],
        ),
        (
            // It is still on its way.
            "suspend embedded:demo --controller 2 --timeout 1s --embedded demo,fault=drop,opcode=41,nth=1;status=1/3a,opcode=41",
            1,
            &[],
            &[
                "was not suspended within 1s",
                "its suspend has still not completed, and its guest may be suspended",
            ],
        ),
        (
            "track memory embedded:demo --controller 2 --guest embedded:demo/2",
            0,
            &["0x0000", " KiB"],
            &["host memory was still tracked for controller 2: stopped"],
        ),
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
    let rows: [Row<'_>; 14] = [
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
        (
            "registers of a controller that other lines drive",
            "registers embedded:demo\nformats embedded:demo\nregisters embedded:demo/1\nregisters embedded:demo/2\n\
             cdq watch embedded:demo --controller 2 --guest embedded:demo/2 --count 5",
            0,
            &["NSSRS", "version 0", "entries       5 "],
            &[],
        ),
        (
            "a guest of its own",
            "cdq watch embedded:demo --controller 2 --guest embedded:demo/2 --count 5\n\
             cdq watch embedded:demo --controller 2 --guest embedded:demo/2 --count 5",
            0,
            &["entries       5 "],
            &[],
        ),
        (
            "no guest on a controller that another line drives",
            "identify embedded:demo/2\ncdq watch embedded:demo --controller 2 --guest embedded:demo/2 --seconds 0",
            2,
            &[],
            &["embedded:demo/2 is to be driven by a guest and by commands of the same script"],
        ),
        (
            "a suspension stays as it was",
            "suspend embedded:demo --controller 2\nstate get embedded:demo --controller 2 --suspend --output /dev/null\n\
             resume embedded:demo --controller 2\n-resume embedded:demo --controller 2",
            0,
            &["is suspended\n", "\ncontroller 2 is resumed\n"],
            &["line 4: ", "Controller Not Suspended"],
        ),
        (
            "nothing to watch of a suspended controller",
            "track start embedded:demo --controller 2\nsuspend embedded:demo --controller 2\n\
             cdq watch embedded:demo --controller 2 --seconds 600\nresume embedded:demo --controller 2",
            0,
            &["log started\nlog ended: the controller is suspended", "2 of them markers", "is resumed"],
            &["queue 0 was still there: deleted"],
        ),
        (
            "a log that was stopped and starts again",
            "track start embedded:demo --controller 2\ntrack stop embedded:demo --controller 2\n\
             cdq watch embedded:demo --controller 2 --guest embedded:demo/2 --count 9",
            0,
            &["log started\nlog stopped\nlog started\nchanged ", "entries       9 "],
            &["queue 0 was still there: deleted"],
        ),
        (
            "time-outs of a line are its own",
            "suspend embedded:demo --controller 2 --embedded demo,fault=delay=4s,opcode=41,nth=2\n\
             formats embedded:demo --timeout 2s",
            0,
            &["is suspended"],
            &["controller 2 was still suspended and is resumed"],
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

/// A folder that goes at the end.
fn folder() -> tempfile::TempDir {
    tempfile::tempdir().expect("a folder")
}

#[test]
fn a_state_goes_into_a_file_and_back() {
    let folder = folder();
    let path = |name: &str| folder.path().join(name).display().to_string();
    let (state, cut) = (path("controller.state"), path("cut.state"));
    type Row<'a> = (&'a str, String, i32, &'a [&'a str], &'a [&'a str]);
    let rows: [Row<'_>; 11] = [
        (
            "read from a controller that runs",
            format!("state get embedded:demo --controller 2 --vendor 0 --output {state}"),
            0,
            &["56 bytes, 8 of them I/O queues, 0 vendor specific"],
            &["controller 2 was not suspended all the time"],
        ),
        (
            "read whole",
            format!("state get embedded:demo --controller 2 --suspend --output {state}"),
            0,
            &["8 of them I/O queues"],
            &[],
        ),
        ("decoded", format!("state show {state}"), 0, &["NIOSQ", "CSATTR", "AQA"], &[]),
        ("compared", format!("state diff {state} {state}"), 0, &["both states are the same"], &[]),
        (
            "given back",
            format!("state set embedded:demo --controller 2 --suspend --input {state} --yes"),
            0,
            &["controller 2 has the state", "in 1 commands"],
            &[],
        ),
        (
            "of a controller with another phase tag",
            format!(
                "state get embedded:demo --controller 2 --suspend --output {state} --quirks none,+slot-zero-is-next-phase"
            ),
            0,
            &["state of controller 2: "],
            &[
                "note: the controller takes S0PT for the phase tag of the next entry (quirk slot-zero-is-next-phase), and its \
               state is not translated: a controller without that quirk may take it wrongly; migrate translates\n",
            ],
        ),
        (
            "given to one with another phase tag",
            format!(
                "state set embedded:demo --controller 2 --suspend --input {state} --yes --quirks none,+slot-zero-is-next-phase"
            ),
            0,
            &["controller 2 has the state"],
            &[
                "(quirk slot-zero-is-next-phase), and its state is not translated: one that was read from a controller without \
               that quirk may be wrong here; migrate translates\n",
            ],
        ),
        (
            "given to a controller that runs",
            format!("state set embedded:demo --controller 2 --input {state} --yes"),
            1,
            &[],
            &["Set Controller State", "Invalid Controller Identifier (1/1Fh)"],
        ),
        (
            "not without a yes",
            format!("state set embedded:demo --controller 2 --suspend --input {state}"),
            2,
            &[],
            &["the state of controller 2 is overwritten by embedded:demo: nobody can be asked"],
        ),
        ("not there", format!("state show {}", path("nothing")), 2, &[], &["No such file"]),
        (
            "longer than wanted",
            format!("state get embedded:demo --controller 2 --limit 50 --output {state}"),
            1,
            &[],
            &["the controller's state"],
        ),
    ];
    for (name, line, status, says, notes) in rows {
        check(name, &run(&words(&line)), status, says, notes);
    }
    let whole = std::fs::read(&state).expect("the state");
    std::fs::write(&cut, &whole[..40]).expect("a file");
    check("shown as far as it goes", &run(&["state", "show", &cut]), 1, &["CSATTR"], &["cut.state: "]);
    for (name, left, right) in
        [("half a state to compare", &cut, &state), ("compared with half a state", &state, &cut)]
    {
        check(name, &run(&["state", "diff", left, right]), 1, &["absent"], &["cut.state: "]);
    }
    let set = ["state", "set", "embedded:demo", "--controller", "2", "--input", &cut, "--yes"];
    check("nothing sent of half a state", &run(&set), 2, &[], &["cut.state: "]);
    let mut other = whole.clone();
    other[2] ^= 1;
    std::fs::write(&cut, &other).expect("a file");
    let diff = ["state", "diff", &state, &cut];
    check("one bit", &run(&diff), 0, &["CSATTR"], &[]);
    check(
        "as a status",
        &run(&[&diff[..], &["--exit-code"]].concat()),
        1,
        &["CSATTR"],
        &["differ in 1 place"],
    );
    let document = run(&[&diff[..], &["--json"]].concat());
    let document: Value = serde_json::from_slice(&document.stdout).expect("a document");
    assert_eq!(document.as_array().map(Vec::len), Some(1), "{document}");
    std::fs::write(&cut, [&whole[..], &[0; 4]].concat()).expect("a file");
    check("two states in one file", &run(&set), 2, &[], &["4 bytes stand behind the state"]);
    let shown = run(&["state", "show", &cut]);
    let behind = ["cut.state: 4 bytes stand behind the state"];
    check("two states shown", &shown, 1, &["NIOSQ", "problem: 4 bytes stand behind"], &behind);
    std::fs::write(&cut, []).expect("a file");
    check(
        "nothing",
        &run(&["state", "show", &cut]),
        1,
        &["Controller State: no byte of one"],
        &["and has 0"],
    );
    std::fs::write(&cut, &whole[..9]).expect("a file");
    let begun = run(&["state", "show", &cut]);
    check("less than a header", &begun, 1, &["Controller State: part of a header"], &["and has 9"]);
}

#[test]
fn what_a_guest_writes_while_the_log_is_on_is_in_it() {
    // A queue that no rate can fill in that time.
    let line =
        "cdq watch embedded:demo --controller 2 --guest embedded:demo/2 --seconds 1 --guest-rate 500 --json";
    let output = run(&words(line));
    check("watched", &output, 0, &[], &[]);
    let found = documents(&output);
    let summary = found.last().expect("a summary");
    assert_eq!((&summary["event"], &summary["overflows"]), (&"summary".into(), &0.into()), "{summary}");
    let writes = summary["guest_writes"].as_u64().expect("a number");
    let entries = summary["entries"].as_u64().zip(summary["markers"].as_u64());
    let (entries, markers) = entries.expect("two numbers");
    assert_eq!((writes > 0, entries - markers), (true, writes), "{summary}");
}

#[test]
fn watching_shows_what_a_guest_changes() {
    const WATCH: &str = "cdq watch embedded:demo --controller 2 --guest embedded:demo/2 --json";
    // Options, entries that end it, whether the queue overflows.
    let rows = [
        ("contiguous", "--count 300 --guest-rate 5000", 300, false),
        (
            "over a list",
            "--count 700 --layout prp-list --entries 600 --head-every 50 --guest-rate 1000",
            700,
            false,
        ),
        ("no trigger to speak of", "--count 300 --trigger 100 --guest-rate 5000", 300, false),
        ("as small as can be", "--count 60 --entries 3 --guest-rate 5000", 60, true),
    ];
    for (name, options, count, overflows) in rows {
        let line = format!("{WATCH} {options}");
        let output = run(&words(&line));
        check(name, &output, 0, &[], &[]);
        let found = documents(&output);
        let kinds: Vec<&str> = found.iter().filter_map(|document| document["event"].as_str()).collect();
        assert_eq!(kinds[..2], ["watching", "log-started"], "{name}");
        let of = |kind: &str| found.iter().filter(|document| document["event"] == kind).collect::<Vec<_>>();
        let summary = *of("summary").last().expect("a summary");
        assert_eq!(found.last(), Some(summary), "{name}");
        assert_eq!(summary["entries"], count, "{name}: {summary}");
        let changed = of("changed");
        let blocks: u64 = changed.iter().filter_map(|change| change["blocks"].as_u64()).sum();
        assert_eq!(summary["blocks"], blocks, "{name}");
        assert!(changed.iter().all(|change| {
            let end = change["start"].as_u64().zip(change["blocks"].as_u64()).map(|(at, blocks)| at + blocks);
            change["namespace"] == 1 && end.is_some_and(|end| end <= 16384)
        }));
        assert_eq!(summary["overflows"] != 0, overflows, "{name}: {summary}");
        assert_eq!(of("restarted").is_empty(), !overflows, "{name}");
        assert_eq!(summary["violations"], 0, "{name}: {summary}");
    }
}

#[test]
fn watching_ends_by_itself_and_tells_of_the_end() {
    let seconds = "cdq watch embedded:demo --controller 2 --guest embedded:demo/2 --seconds 1";
    let parts = ["watching controller 2 through queue 0", "log started\nchanged ", "log stopped\nentries "];
    check("seconds", &run(&words(seconds)), 0, &parts, &[]);
    let nothing = "cdq watch embedded:demo --controller 2 --seconds 0";
    check("no time", &run(&words(nothing)), 0, &["log started\nlog stopped\n", "2 of them markers"], &[]);
    let text = "track start embedded:demo --controller 2\ncdq watch embedded:demo --controller 2 --count 1\n\
                track stop embedded:demo --controller 2\ncdq watch embedded:demo --controller 2 --seconds 0\n\
                cdq delete embedded:demo --id last";
    let parts = ["are logged into queue 0", "through queue 0 of 4096", "log started", "queue 0 is deleted"];
    check("a queue of an earlier line", &script(&[], text), 0, &parts, &[]);
    let busy = "cdq watch embedded:demo --controller 2 --guest embedded:demo/1 --seconds 0";
    check("the manager cannot be the guest", &run(&words(busy)), 2, &[], &["embedded:demo/1 is named twice"]);
    let others = [
        ("a guest of another subsystem", "embedded:other/2", "another subsystem (nqn"),
        (
            "a guest of another controller",
            "embedded:demo/3",
            "is controller 3: what it changes is not what controller 2 does",
        ),
    ];
    for (name, guest, words_of_it) in others {
        let watch = format!("cdq watch embedded:demo --controller 2 --guest {guest} --seconds 0");
        check(name, &run(&words(&watch)), 2, &[], &[words_of_it]);
        let memory = format!("track memory embedded:demo --controller 2 --guest {guest}");
        check(name, &run(&words(&memory)), 2, &[], &[words_of_it]);
    }
    // The right one could do nothing, and another one cannot be told from it.
    for guest in ["embedded:demo/2", "embedded:other/2"] {
        for watch in ["cdq watch", "track memory"] {
            let text = format!(
                "suspend embedded:demo --controller 2\n{watch} embedded:demo --controller 2 --guest {guest}"
            );
            let why = format!("--guest {guest}: controller 2 is suspended by an earlier line");
            check("a guest of a suspended controller", &script(&[], &text), 2, &["is suspended"], &[&why]);
        }
    }
    let stuck = "cdq watch embedded:demo --controller 2 --guest embedded:demo/2 --entries 64 --seconds 600 \
                 --embedded demo,fault=cdq-head-refused";
    let words_of_it = ["log started\nchanged ", "head updates  0, "];
    let why = ["the head of the queue could not be moved, 3 times in a row"];
    check("heads refused", &run(&words(stuck)), 1, &words_of_it, &why);
    let strange = "cdq watch embedded:demo/2 --controller 1 --seconds 0";
    check("not announced", &run(&words(strange)), 3, &[], &["bit 11 clear; nothing was sent"]);
}

#[test]
fn a_state_is_not_set_into_a_controller_that_the_script_drives() {
    let folder = tempfile::tempdir().expect("a folder");
    let state = folder.path().join("state");
    let state = state.display();
    let get = format!("state get embedded:demo --controller 2 --suspend --output {state}");
    let set = format!("state set embedded:demo --controller 2 --suspend --input {state} --yes");
    let drive = "features get embedded:demo/2 --feature 4";
    let refused = ["other lines of this script drive controller 2 as embedded:demo/2"];
    let rows = [
        ("only got and set", format!("{get}\n{set}"), 0, &["controller 2 has the state"][..], &[][..]),
        ("driven before", format!("{drive}\n{get}\n{set}"), 2, &["state of controller 2"], &refused),
        ("driven afterwards", format!("{get}\n{set}\n{drive}"), 2, &["state of controller 2"], &refused),
        (
            "another one is driven",
            format!("features get embedded:demo/3 --feature 4\n{get}\n{set}"),
            0,
            &["controller 2 has the state"],
            &[],
        ),
    ];
    for (name, text, status, out, err) in rows {
        check(name, &script(&[], &text), status, out, err);
    }
}

/// Starts a watch that goes on until it is told to stop, and reads what it says until changes come.
fn watching(options: &str) -> (std::process::Child, std::io::BufReader<std::process::ChildStdout>) {
    let line = format!("cdq watch embedded:demo --controller 2 --guest embedded:demo/2 {options}");
    let mut child = Command::new(env!("CARGO_BIN_EXE_nvme-lm"))
        .args(words(&line))
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("nvme-lm starts");
    let mut stdout = std::io::BufReader::new(child.stdout.take().expect("a pipe"));
    let mut line = String::new();
    while !line.starts_with("changed") {
        line.clear();
        let read = std::io::BufRead::read_line(&mut stdout, &mut line).expect("text");
        assert_ne!(read, 0, "it ended before anything changed");
    }
    (child, stdout)
}

#[test]
fn signals_end_a_watch_and_leave_nothing_behind() {
    use rustix::process::{Pid, Signal, kill_process};
    // The guest's queues cannot be deleted at its end.
    let failing = "--embedded demo,fault=status=0/06,opcode=00,controller=2";
    for (name, options, signal, status) in [
        ("SIGINT", "", Signal::INT, Some(130)),
        ("SIGTERM", "", Signal::TERM, Some(130)),
        ("SIGINT and a guest that fails", failing, Signal::INT, Some(130)),
        ("SIGKILL", "", Signal::KILL, None),
    ] {
        let (mut child, mut stdout) = watching(options);
        kill_process(Pid::from_child(&child), signal).expect("a signal");
        let mut rest = String::new();
        std::io::Read::read_to_string(&mut stdout, &mut rest).expect("text");
        let ended = child.wait().expect("it ends");
        assert_eq!(ended.code(), status, "{name}: {rest}");
        assert_eq!(rest.contains("log stopped\nentries "), status.is_some(), "{name}: {rest}");
        let mut said = String::new();
        std::io::Read::read_to_string(child.stderr.as_mut().expect("a pipe"), &mut said).expect("text");
        assert_eq!(said.contains("note: guest: the deletion"), !options.is_empty(), "{name}: {said}");
        let again = "cdq watch embedded:demo --controller 2 --guest embedded:demo/2 --count 5";
        check(name, &run(&words(again)), 0, &["entries       5 "], &[]);
    }
}

#[test]
fn quirks_are_recognised_listed_and_chosen() {
    let rows: [(&str, i32, &[&str], &[&str]); 6] = [
        (
            "formats embedded:demo --quirks list",
            0,
            &["recognised as: no model with quirks", "[ ] suspended-in-header\n", "without: "],
            &[],
        ),
        (
            "formats embedded:demo/2 --quirks list,+events-once",
            0,
            &["embedded:demo/2: vendor 0x", "[x] events-once", "[ ] limits-read-zero"],
            &[],
        ),
        ("formats embedded:demo --quirks none", 0, &["version 0"], &[]),
        ("formats embedded:demo --quirks +nonsense", 2, &[], &["there is no quirk \"nonsense\"; there are "]),
        (
            "cdq create embedded:demo --controller 2 --layout prp-list --quirks +contiguous-queues-only",
            0,
            &["128 KiB, contiguous"],
            &[
                "is contiguous, because of the quirk contiguous-queues-only",
                "queue 0 was still there: deleted",
            ],
        ),
        (
            "cdq watch embedded:demo --controller 2 --guest embedded:demo/2 --count 100 --quirks +events-once",
            0,
            &["entries       100 ", "events        0 of the trigger, 0 of"],
            &[],
        ),
    ];
    for (line, status, says, notes) in rows {
        check(line, &run(&words(line)), status, says, notes);
    }
    let listed = run(&words("formats embedded:demo --quirks list --json"));
    let document: Value = serde_json::from_slice(&listed.stdout).expect("a document");
    assert_eq!(document["model"], Value::Null);
    assert_eq!(document["quirks"].as_array().map(Vec::len), Some(15));
}

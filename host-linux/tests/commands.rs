// SPDX-License-Identifier: MIT OR Apache-2.0
//! Commands on data as their users see them: exit status, output, and what is in the namespace afterwards.

use std::fs;
use std::io::Write;
use std::path::Path;
use std::process::{Command, Output, Stdio};

const BLOCK: usize = 4096;

fn nvme_lm(directory: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_nvme-lm"));
    command.current_dir(directory).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

fn run(directory: &Path, line: &str) -> Output {
    nvme_lm(directory).args(line.split_whitespace()).output().expect("the program starts")
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// Runs `line` and checks its exit status and that its output has all `words`; those that begin with `!` it must not have.
fn check(directory: &Path, line: &str, status: i32, words: &[&str]) -> Output {
    let output = run(directory, line);
    let said = format!("{}{}", text(&output.stdout), text(&output.stderr));
    assert_eq!(output.status.code(), Some(status), "{line}: {said}");
    for word in words {
        match word.strip_prefix('!') {
            Some(word) => assert!(!said.contains(word), "{line}: '{word}' is in: {said}"),
            None => assert!(said.contains(word), "{line}: '{word}' is not in: {said}"),
        }
    }
    if status == 2 {
        let message = text(&output.stderr);
        assert_eq!(message.lines().count(), 1, "{line}: {message}");
        assert!(output.stdout.is_empty() && !message.contains("os error"), "{line}: {said}");
    }
    output
}

/// A namespace of 1 MiB in `a.img`, block N filled with N + 1, and how to name it.
fn image(directory: &Path, block: usize) -> String {
    let content: Vec<u8> =
        (0..(1 << 20) / block).flat_map(|at| vec![(at as u8).wrapping_add(1); block]).collect();
    fs::write(directory.join("a.img"), content).expect("file");
    format!("embedded:d --embedded d,block={block},image=a.img")
}

#[test]
fn every_command_has_an_example_that_works_and_help_that_fits_a_screen() {
    let commands = [
        "read",
        "write",
        "compare",
        "flush",
        "deallocate",
        "write-zeroes",
        "verify",
        "copy",
        "bench",
        "admin",
        "io",
        "reset",
        "list",
    ];
    for command in commands {
        let dir = tempfile::tempdir().expect("directory");
        let help = text(&check(dir.path(), &format!("{command} --help"), 0, &["Example: "]).stdout);
        assert!(help.lines().count() <= 40, "{command}: {} lines\n{help}", help.lines().count());
        let widest = help.lines().map(|line| line.chars().count()).max();
        assert!(widest <= Some(100), "{command}: {widest:?} columns");
        let examples: Vec<&str> =
            help.lines().filter_map(|line| line.trim().strip_prefix("Example: nvme-lm ")).collect();
        assert_eq!(examples.len(), 1, "{command}: {help}");
        check(dir.path(), examples[0], 0, &[]);
        check(dir.path(), &format!("{} --json", examples[0]), 0, &["\"address\": \"embedded:demo"]);
    }
}

#[test]
fn what_is_written_is_read_whatever_the_lengths_and_the_queues() {
    // Block size, first block, blocks, queues, depth.
    let rows = [
        (512, 0, 1, 1, 1),
        (512, 7, 1500, 3, 2),
        (512, 2047, 1, 16, 4),
        (4096, 0, 256, 1, 1),
        (4096, 0, 256, 4, 16),
        (4096, 13, 200, 2, 1023),
        (4096, 255, 1, 1, 1),
    ];
    for (block, lba, blocks, queues, depth) in rows {
        let name = format!("{blocks} blocks of {block} from {lba}, {queues} queues of {depth}");
        let dir = tempfile::tempdir().expect("directory");
        let place = image(dir.path(), block);
        let before = fs::read(dir.path().join("a.img")).expect("file");
        let data: Vec<u8> = (0..blocks * block).map(|at| (at % 251) as u8 ^ (at / block) as u8).collect();
        fs::write(dir.path().join("data"), &data).expect("file");
        let how = format!("--lba {lba} --queues {queues} --depth {depth}");
        let written =
            check(dir.path(), &format!("write {place} {how} --input data --sha256 --yes --json"), 0, &[]);
        let written: serde_json::Value = serde_json::from_slice(&written.stdout).expect("JSON");
        assert_eq!((&written["blocks"], &written["block_bytes"]), (&blocks.into(), &block.into()), "{name}");
        let mut expected = before;
        expected[lba * block..][..data.len()].copy_from_slice(&data);
        assert!(fs::read(dir.path().join("a.img")).expect("file") == expected, "{name}: the image");
        let read = format!("read {place} {how} --blocks {blocks} --sha256");
        let digest = written["sha256"].as_str().expect("a digest");
        check(dir.path(), &format!("{read} --output out"), 0, &[digest]);
        assert!(fs::read(dir.path().join("out")).expect("file") == data, "{name}: the output");
        assert!(check(dir.path(), &format!("{read} --output -"), 0, &[digest]).stdout == data, "{name}");
        check(dir.path(), &format!("compare {place} {how} --input data"), 0, &["equal"]);
    }
}

#[test]
fn digests_are_those_of_sha_256() {
    let dir = tempfile::tempdir().expect("directory");
    // One block of zeroes.
    let digest = "ad7facb2586fc6e966c004d7d1d16b024f5805ff7cb47c7a85dabd8b48892ca7";
    check(dir.path(), "read embedded:d --lba 0 --blocks 1 --sha256", 0, &[digest, "!00000000"]);
    let write = "write embedded:d --lba 0 --blocks 1 --pattern zero --sha256 --yes";
    check(dir.path(), write, 0, &[digest]);
}

#[test]
fn standard_input_and_patterns_are_data_too() {
    let dir = tempfile::tempdir().expect("directory");
    let place = image(dir.path(), BLOCK);
    let whole = |name| fs::read(dir.path().join(name)).expect("file");
    let write = |options: &str, data: &[u8]| {
        let line = format!("write {place} --lba 4 --input - --yes {options}");
        let mut child = nvme_lm(dir.path())
            .args(line.split_whitespace())
            .stdin(Stdio::piped())
            .spawn()
            .expect("the program starts");
        // It may end before it has read everything.
        let _ = child.stdin.take().expect("piped").write_all(data);
        let output = child.wait_with_output().expect("the program ends");
        (output.status.code(), text(&output.stderr))
    };
    assert_eq!(write("", &[0xA5; 2 * BLOCK]).0, Some(0));
    assert_eq!(whole("a.img")[4 * BLOCK..7 * BLOCK], [vec![0xA5; 2 * BLOCK], vec![7; BLOCK]].concat());
    assert_eq!(write("--blocks 1", &[0x5A; 3 * BLOCK]).0, Some(0));
    assert_eq!(whole("a.img")[4 * BLOCK..6 * BLOCK], [vec![0x5A; BLOCK], vec![0xA5; BLOCK]].concat());
    let before = whole("a.img");
    for (options, data, words) in [
        ("", &[1; BLOCK + 1][..], "1 whole blocks of 4096 bytes and 1 bytes more"),
        ("--blocks 2", &[1; BLOCK], "has 4096 bytes where 2 blocks"),
        ("", &[], "is empty"),
    ] {
        let (status, said) = write(options, data);
        assert!(status == Some(2) && said.contains(words), "{status:?}: {said}");
    }
    assert!(whole("a.img") == before, "nothing was written");

    check(dir.path(), &format!("write {place} --lba 0 --blocks 1 --pattern ones --yes"), 0, &[]);
    assert_eq!(whole("a.img")[..BLOCK + 1], [vec![0xFF; BLOCK], vec![2]].concat());
    let random = |seed| format!("{place} --lba 0 --blocks 40 --pattern random --seed {seed}");
    check(dir.path(), &format!("write {} --yes", random(3)), 0, &[]);
    check(dir.path(), &format!("compare {}", random(3)), 0, &["equal"]);
    check(dir.path(), &format!("compare {}", random(4)), 1, &["first in block 0"]);
}

/// The one JSON document that a command prints, which ends with `status`.
fn document(directory: &Path, line: &str, status: i32) -> serde_json::Value {
    let output = check(directory, line, status, &[]);
    serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{line}: {error}"))
}

#[test]
fn a_comparison_tells_machines_where_the_first_difference_is() {
    let dir = tempfile::tempdir().expect("directory");
    let place = image(dir.path(), BLOCK);
    let line = format!("compare {place} --lba 3 --blocks 5 --json --pattern");
    let different = document(dir.path(), &format!("{line} zero"), 1);
    let expected = serde_json::json!({
        "address": "embedded:d", "namespace": 1, "lba": 3, "blocks": 5, "block_bytes": BLOCK,
        "first_difference": 0, "found": 4, "expected": 0,
    });
    assert_eq!(different, expected);
    check(dir.path(), &format!("write {place} --lba 3 --blocks 4 --pattern zero --yes"), 0, &[]);
    let different = document(dir.path(), &format!("{line} zero"), 1);
    assert_eq!((&different["first_difference"], &different["found"]), (&(4 * BLOCK).into(), &8.into()));
    check(dir.path(), &format!("write {place} --lba 7 --blocks 1 --pattern zero --yes"), 0, &[]);
    let equal = document(dir.path(), &format!("{line} zero"), 0);
    assert_eq!((&equal["first_difference"], &equal["blocks"]), (&serde_json::Value::Null, &5.into()));
}

#[test]
fn a_comparison_finds_the_first_byte_that_differs() {
    let dir = tempfile::tempdir().expect("directory");
    let place = image(dir.path(), BLOCK);
    let image = fs::read(dir.path().join("a.img")).expect("file");
    // Where the file differs, what is said.
    let rows: [(&str, &[usize], &str); 4] = [
        ("first byte", &[0], "first in block 2: byte 0 is 0x03, not 0xfc"),
        ("last byte", &[200 * BLOCK - 1], "first in block 201: byte 4095 is 0xca, not 0x35"),
        ("two of them", &[150 * BLOCK, 3 * BLOCK + 5], "first in block 5: byte 5 is 0x06, not 0xf9"),
        ("none", &[], "equal"),
    ];
    for (name, places, words) in rows {
        let mut data = image[2 * BLOCK..202 * BLOCK].to_vec();
        places.iter().for_each(|at| data[*at] = !data[*at]);
        fs::write(dir.path().join("data"), data).expect("file");
        let status = i32::from(!places.is_empty());
        println!("{name}");
        check(dir.path(), &format!("compare {place} --lba 2 --input data"), status, &[words]);
    }
}

#[test]
fn ranges_are_deallocated_zeroed_verified_and_copied() {
    let dir = tempfile::tempdir().expect("directory");
    // Command, what it says, which blocks hold what afterwards.
    type Row = (&'static str, &'static [&'static str], &'static [(usize, u8)]);
    let rows: [Row; 8] = [
        ("flush", &["flushed namespace 1"], &[(0, 1)]),
        ("flush --namespace 0xffffffff", &["flushed"], &[(0, 1)]),
        (
            "deallocate --range 1:2 --range 9:1 --yes",
            &["deallocated 3 blocks in 2 ranges", "with 1 command "],
            &[(0, 1), (1, 0), (2, 0), (3, 4), (8, 9), (9, 0), (10, 11)],
        ),
        ("write-zeroes --lba 250 --blocks 6 --yes", &["zeroed 6 blocks"], &[(249, 250), (250, 0), (255, 0)]),
        ("write-zeroes --range 5:1 --deallocate --force-unit-access --yes", &["1 block"], &[(4, 5), (5, 0)]),
        ("verify --lba 0 --blocks 256", &["verified 256 blocks"], &[(0, 1)]),
        (
            "copy --range 3:2 --range 100:1 --to 20 --yes",
            &["copied 3 blocks in 2 ranges"],
            &[(3, 4), (19, 20), (20, 4), (21, 5), (22, 101), (23, 24)],
        ),
        ("copy --range 0:128 --to 128 --yes", &["copied 128 blocks"], &[(127, 128), (128, 1), (255, 128)]),
    ];
    for (line, words, blocks) in rows {
        let place = image(dir.path(), BLOCK);
        let (command, options) = line.split_once(' ').unwrap_or((line, ""));
        check(dir.path(), &format!("{command} {place} {options}"), 0, words);
        let image = fs::read(dir.path().join("a.img")).expect("file");
        for (block, byte) in blocks {
            assert_eq!(image[block * BLOCK..][..BLOCK], vec![*byte; BLOCK], "{line}: block {block}");
        }
    }
}

#[test]
fn many_ranges_take_several_commands() {
    let dir = tempfile::tempdir().expect("directory");
    let place = image(dir.path(), 512);
    let ranges = |count: usize| (0..count).map(|at| format!("--range {}:1 ", at * 2)).collect::<String>();
    // The embedded controller has its own limit on ranges, which is at most 256.
    let line = format!("deallocate {place} {} --yes --json", ranges(600));
    let done: serde_json::Value =
        serde_json::from_slice(&check(dir.path(), &line, 0, &[]).stdout).expect("JSON");
    assert_eq!((&done["blocks"], &done["ranges"]), (&600.into(), &600.into()));
    assert!(done["commands"].as_u64() >= Some(3), "{done}");
    let image = fs::read(dir.path().join("a.img")).expect("file");
    for block in 0..1210 {
        let gone = block % 2 == 0 && block < 1200;
        assert_eq!(image[block * 512] == 0, gone || block % 256 == 255, "block {block}");
    }
    let line = format!("copy {place} {} --to 1400 --yes --json", ranges(300));
    let done: serde_json::Value =
        serde_json::from_slice(&check(dir.path(), &line, 0, &[]).stdout).expect("JSON");
    assert!(done["commands"].as_u64() >= Some(2), "{done}");
}

#[test]
fn a_bench_counts_what_it_does() {
    let dir = tempfile::tempdir().expect("directory");
    // Block size, options, bytes of a command, most of the time for which its thread can be busy: one that waits for a single
    // slow command sleeps, and the less it gets to run the less it needs.
    let rows = [
        (4096, " --op read", 4096, 1.0),
        (4096, " --op randread --size 16K --depth 4 --queues 3 --wait", 16384, 1.0),
        (512, " --op write --size 512 --range 16:32 --yes", 512, 1.0),
        (512, " --op randwrite --size 1K --range 16:32 --queues 2 --seed 4 --yes", 1024, 1.0),
        (4096, ",fault=delay=20ms,queue=io,opcode=02 --op read --depth 1 --wait", 4096, 0.5),
    ];
    for (block, options, size, busy) in rows {
        let place = image(dir.path(), block);
        let before = fs::read(dir.path().join("a.img")).expect("file");
        let output = check(dir.path(), &format!("bench {place}{options} --seconds 1 --json"), 0, &[]);
        let report: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON");
        let commands = report["commands"].as_u64().expect("a number");
        assert!(commands > 0 && report["errors"] == 0, "{options}: {report}");
        assert_eq!(report["bytes"].as_u64(), Some(commands * size), "{options}: {report}");
        let number = |name: &str| report[name].as_f64().expect("a number");
        let (cpu, each) = (number("cpu_seconds"), number("cpu_us_per_command"));
        let most = number("seconds") * busy + 0.1;
        assert!(cpu > 0.0 && cpu <= most, "{options}: more than {most} s, or none, of {report}");
        let together = each * commands as f64 / 1e6;
        assert!((together / cpu - 1.0).abs() < 1e-9, "{options}: {together} s of {report}");
        let depth = options.split_once("--depth ").and_then(|(_, rest)| rest.split(' ').next());
        assert_eq!(number("depth").to_string(), depth.unwrap_or("32"), "{options}");
        let latency = ["min", "p50", "p90", "p99", "p99_9", "max"]
            .map(|name| report["latency_us"][name].as_f64().expect("a number"));
        assert!(latency[0] > 0.0 && latency.is_sorted(), "{options}: {report}");
        let after = fs::read(dir.path().join("a.img")).expect("file");
        let changed = before.chunks(block).zip(after.chunks(block)).enumerate();
        let changed = changed.filter(|(_, (one, other))| one != other).map(|(at, _)| at);
        let expected = if options.contains("write") { (16..48).collect() } else { Vec::new() };
        assert!(changed.eq(expected), "{options}: other blocks were written");
    }
}

#[test]
fn a_bench_keeps_as_many_commands_in_flight_as_it_says() {
    let dir = tempfile::tempdir().expect("directory");
    // Options, commands that are in flight.
    let rows = [
        ("--op read --depth 1", 1),
        ("--op randread --depth 4 --wait", 4),
        ("--op read --depth 3 --queues 2", 6),
        ("--op randwrite --depth 5 --queues 3 --yes", 15),
    ];
    for (options, depth) in rows {
        let opcode = if options.contains("write") { "01" } else { "02" };
        // A command that is never answered keeps its place: with one fewer than there are places the last one goes on, and
        // with as many nothing does.
        for lost in [depth - 1, depth] {
            if lost == 0 {
                continue;
            }
            let rule = format!("fault=drop,queue=io,opcode={opcode},times={lost}");
            let line = format!(
                "bench embedded:d --embedded d,size=1M,{rule} {options} --seconds 1 --timeout 4s --json"
            );
            let output = check(dir.path(), &line, 1, &["a command did not complete in time"]);
            let report: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON");
            let commands = report["commands"].as_u64().expect("a number");
            assert_eq!(commands == 0, lost == depth, "{options}, {lost} lost: {report}");
        }
    }
}

#[test]
fn a_signal_ends_a_bench_with_a_report() {
    let dir = tempfile::tempdir().expect("directory");
    for (signal, json) in [("INT", true), ("TERM", true), ("INT", false)] {
        let format = if json { "--json" } else { "" };
        // The image tells when writes have begun.
        let place = image(dir.path(), BLOCK);
        let line = format!("bench {place} --op write --range 0:1 --seconds 3600 --yes {format}");
        let child = nvme_lm(dir.path()).args(line.split_whitespace()).spawn().expect("the program starts");
        let until = std::time::Instant::now() + std::time::Duration::from_secs(60);
        while fs::read(dir.path().join("a.img")).expect("file")[..BLOCK] == [1; BLOCK] {
            assert!(std::time::Instant::now() < until, "nothing is written");
            std::thread::sleep(std::time::Duration::from_millis(5));
        }
        let kill = format!("kill -{signal} {}", child.id());
        assert!(Command::new("sh").args(["-c", &kill]).status().expect("sh").success());
        let output = child.wait_with_output().expect("the program ends");
        assert_eq!(output.status.code(), Some(130), "{signal}: {}", text(&output.stderr));
        assert!(text(&output.stderr).contains("ended by a signal"), "{signal}");
        if json {
            let report: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON");
            assert!(report["interrupted"] == true && report["commands"].as_u64() > Some(0), "{report}");
        } else {
            let said = text(&output.stdout);
            assert!(said.contains("latency 99.9 %"), "{said}");
            let cpu = said.lines().find_map(|line| line.strip_prefix("CPU per command")).expect("a line");
            let cpu: f64 = cpu.trim().trim_end_matches(" us").parse().expect("a number");
            assert!(cpu > 0.0, "{said}");
        }
    }
}

#[test]
fn any_command_can_be_sent_and_its_completion_is_shown() {
    let dir = tempfile::tempdir().expect("directory");
    let place = image(dir.path(), BLOCK);
    let file = |name: &str, bytes: &[u8]| fs::write(dir.path().join(name), bytes).expect("file");
    file("block", &[0xAB; BLOCK]);
    let mut identify = [0; 64];
    (identify[0], identify[40]) = (0x06, 1);
    file("identify", &identify);
    // Command, exit status, what it says.
    let rows: [(&str, i32, &[&str]); 12] = [
        (
            "admin P --opcode 6 --cdw10 1 --receive 4096",
            0,
            &["Identify (06h)", "Successful Completion (0/00h)", "DW0 0x00000000", "00001000"],
        ),
        ("admin P --sqe identify --receive 4096 --json", 0, &["\"success\": true", "\"data\": \""]),
        ("admin P --opcode 0x0a --cdw10 7", 0, &["Get Features", "DW0 0x00"]),
        (
            "admin P --opcode 6 --cdw10 0x55 --receive 4096",
            1,
            &["Invalid Field in Command (0/02h)", "result", "error: Identify (06h): Invalid Field"],
        ),
        (
            "admin P --opcode 6 --cdw10 0x55 --receive 4096 --json",
            1,
            &["\"success\": false", "\"status_code\": 2"],
        ),
        ("admin P --opcode 0xc1 --cdw10 1 --yes", 3, &["not supported", "OACS", "nothing was sent"]),
        ("admin P --opcode 0xc1 --cdw10 1 --yes --force", 1, &["Invalid Command Opcode (0/01h)"]),
        ("admin P --opcode 0x80 --yes", 3, &["OACS in Identify Controller", "bit 1 clear"]),
        ("io P --opcode 2 --namespace 1 --cdw10 5 --receive 4096", 0, &["Read (02h)", "06 06 06"]),
        ("io P --opcode 0x91 --yes", 3, &["not supported", "ONCS"]),
        ("io P --opcode 0 --namespace 1", 0, &["Flush (00h)"]),
        ("io P --opcode 1 --namespace 1 --cdw10 9 --send block --yes", 0, &["Write (01h)", "Successful"]),
    ];
    for (line, status, words) in rows {
        check(dir.path(), &line.replace(" P", &format!(" {place}")), status, words);
    }
    let image = fs::read(dir.path().join("a.img")).expect("file");
    assert_eq!(image[9 * BLOCK..11 * BLOCK], [vec![0xAB; BLOCK], vec![11; BLOCK]].concat());
    let line = format!("io {place} --opcode 2 --namespace 1 --cdw10 5 --receive 4096 --output");
    check(dir.path(), &format!("{line} out"), 0, &["status", "!06 06"]);
    assert_eq!(fs::read(dir.path().join("out")).expect("file"), [6; BLOCK]);
    assert_eq!(check(dir.path(), &format!("{line} -"), 0, &["status"]).stdout, [6; BLOCK]);
}

#[test]
fn controllers_are_reset_and_listed() {
    let dir = tempfile::tempdir().expect("directory");
    let rows: [(&str, i32, &[&str]); 13] = [
        ("reset embedded:d --yes", 0, &["controller reset, ready and identified again", "serial number D"]),
        ("reset embedded:d --subsystem --yes", 0, &["subsystem reset, ready and identified again"]),
        (
            "reset embedded:d/2 --subsystem --yes",
            3,
            &["NVM Subsystem Reset is not supported", "CAP.NSSRS is 0"],
        ),
        // One that does not answer, one that does not become ready, one that has no queues to give.
        (
            "reset embedded:d --yes --timeout 1s --embedded d,fault=drop,opcode=06,times=1",
            0,
            &["did not work before the reset", "controller reset, ready"],
        ),
        (
            "reset embedded:d --yes --embedded d,fault=never-ready,times=1",
            0,
            &["did not work before the reset", "controller reset, ready"],
        ),
        (
            "reset embedded:d --yes --embedded d,fault=status=0/06,opcode=05,times=1",
            0,
            &["had no I/O queue pair before the reset", "controller reset, ready"],
        ),
        // It is brought up once, and that is after the reset.
        (
            "reset embedded:d --subsystem --yes --embedded d,fault=never-ready,nth=2",
            0,
            &["subsystem reset, ready"],
        ),
        (
            "reset embedded:d --subsystem --yes --embedded d,fault=status=0/06,opcode=06,times=1",
            1,
            &["after the subsystem reset: ", "Internal Error"],
        ),
        ("reset embedded:d/2 --controller --yes --json", 0, &["\"reset\": \"controller\""]),
        ("reset embedded:d --function --yes", 3, &["reset of the function is not supported"]),
        ("list", 0, &["!error"]),
        ("list --json", 0, &["[", "]"]),
        ("list embedded:d embedded:d/2 embedded:e", 0, &["migration manager", "embedded:d/2", "  E  "]),
    ];
    for (line, status, words) in rows {
        check(dir.path(), line, status, words);
    }
}

#[test]
fn bad_input_is_refused_before_anything_is_sent() {
    let dir = tempfile::tempdir().expect("directory");
    let place = image(dir.path(), BLOCK);
    fs::write(dir.path().join("odd"), [1; BLOCK + 904]).expect("file");
    fs::write(dir.path().join("empty"), []).expect("file");
    fs::write(dir.path().join("half"), vec![0; 512 << 10]).expect("file");
    fs::create_dir(dir.path().join("folder")).expect("directory");
    let before = fs::read(dir.path().join("a.img")).expect("file");
    let rows: &[(&str, &[&str])] = &[
        ("read P --lba 0", &["--blocks"]),
        ("read P --lba 0 --blocks 0", &["at least one"]),
        ("read P --lba 256 --blocks 1", &["block 256", "ends with block 255 (NSZE)"]),
        ("read P --lba 255 --blocks 2", &["blocks 255 to 256"]),
        ("read P --lba 0xffffffffffffffff --blocks 0xffffffffffffffff", &["ends with block 255"]),
        ("read P --lba 0 --blocks 1 --namespace 2", &["namespace 0x2 is not active", "active ones are 1"]),
        ("read P --lba 0 --blocks 1 --namespace 0", &["namespace 0x0 is not active"]),
        ("read P --lba 0 --blocks 1 --namespace 0xffffffff", &["0xffffffff is not active"]),
        ("read P --lba 0 --blocks 1 --queues 17", &["17", "1 to 16"]),
        ("read P --lba 0 --blocks 1 --depth 0", &["'0'", "1 to 1023"]),
        ("read P --lba 0 --blocks 1 --json --output -", &["--json", "--output"]),
        ("read P --lba 0 --blocks 1 --json --hex", &["--hex", "--output"]),
        ("read P --lba 0 --blocks 1 --output nowhere/file", &["nowhere/file", "nothing was read"]),
        ("read P --lba 0 --blocks 1 --output folder", &["folder"]),
        ("read embedded: --lba 0 --blocks 1", &["embedded:"]),
        ("read nvme0n1 --lba 0 --blocks 1", &["vfio:DDDD:BB:DD.F"]),
        ("write P --lba 0 --yes", &["--input", "--pattern"]),
        ("write P --lba 0 --pattern zero --yes", &["--blocks"]),
        ("write P --lba 0 --pattern many --blocks 1 --yes", &["many", "zero, ones, random"]),
        ("write P --lba 0 --pattern zero --input odd --blocks 1 --yes", &["--input"]),
        ("write P --lba 0 --pattern zero --blocks 1", &["nobody can be asked", "--yes"]),
        ("write P --lba 0 --pattern zero --blocks 0 --yes", &["at least one"]),
        ("write P --lba 250 --pattern zero --blocks 7 --yes", &["ends with block 255"]),
        ("write P --lba 0 --input none --yes", &["none", "No such file"]),
        ("write P --lba 0 --input folder --yes", &["folder is a directory"]),
        ("write P --lba 0 --input empty --yes", &["empty", "nothing was sent"]),
        ("write P --lba 0 --input odd --yes", &["1 whole blocks", "904 bytes more", "--blocks", "Pad"]),
        ("write P --lba 0 --input odd --blocks 2 --yes", &["5000", "2 blocks"]),
        ("write P --lba 255 --input a.img --yes", &["blocks 255 to 510"]),
        ("compare P --lba 0 --input odd", &["904 bytes more"]),
        ("compare P --lba 0", &["--input", "--pattern"]),
        ("deallocate P --yes", &["--range"]),
        ("deallocate P --lba 0 --yes", &["--blocks"]),
        ("deallocate P --blocks 4 --yes", &["--"]),
        ("deallocate P --lba 0 --blocks 1 --range 0:1 --yes", &["--range"]),
        ("deallocate P --range 0:0 --yes", &["at least one"]),
        ("deallocate P --range 5 --yes", &["LBA:BLOCKS"]),
        ("deallocate P --range 0:1", &["nobody can be asked", "block 0", "--yes"]),
        ("deallocate P --range 0:1 --range 255:2 --yes", &["blocks 255 to 256"]),
        ("write-zeroes P --range 0:1", &["--yes"]),
        ("write-zeroes P --range 256:1 --yes", &["ends with block 255"]),
        ("verify P --range 256:1", &["ends with block 255"]),
        ("flush P --namespace 9", &["namespace 0x9 is not active"]),
        ("admin P", &["--opcode"]),
        ("admin P --opcode 256", &["0x100"]),
        ("admin P --sqe odd --receive 8", &["5000 bytes where an entry has 64"]),
        ("admin P --sqe none", &["none", "No such file"]),
        ("admin P --opcode 6", &["--receive"]),
        ("admin P --opcode 6 --receive 0", &["one byte to 1 MiB"]),
        ("admin P --opcode 6 --receive 2M", &["one byte to 1 MiB"]),
        ("admin P --opcode 6 --cdw10 1 --receive 512", &["transfers 4096 bytes, not 512", "not sent"]),
        ("admin P --opcode 2 --cdw10 0x10002 --receive 512", &["transfers 8 bytes, not 512"]),
        ("admin P --opcode 6 --send odd", &["10b", "--receive"]),
        ("admin P --opcode 9 --receive 8", &["01b", "--send"]),
        ("admin P --opcode 0x14 --receive 8", &["00b"]),
        ("admin P --opcode 0 --force --yes", &["not sent: queues are the driver's"]),
        ("admin P --opcode 1 --force --yes", &["not sent: queues are the driver's"]),
        ("admin P --opcode 4 --force --yes", &["not sent: queues are the driver's"]),
        ("admin P --opcode 5 --force --yes", &["not sent: queues are the driver's"]),
        ("admin P --opcode 0x0c --force --yes", &["requests for events are the driver's"]),
        ("admin P --opcode 0x7c --force --yes", &["after it was given back"]),
        ("admin P --opcode 9 --cdw10 7 --force --yes", &["number of its queues"]),
        ("admin P --opcode 9 --cdw10 13 --cdw11 1 --force --yes", &["after it was given back"]),
        ("admin P --opcode 0x45 --force --yes", &["nvme-lm cdq create"]),
        ("admin P --opcode 9 --cdw10 4", &["may change", "--yes"]),
        ("admin P --opcode 0x80", &["Format NVM", "--yes"]),
        ("io P --opcode 1 --namespace 1 --send odd", &["Write", "--yes"]),
        ("io P --opcode 1 --namespace 1 --send odd --yes", &["transfers 4096 bytes, not 5000"]),
        ("io P --opcode 2 --namespace 1 --receive 512", &["transfers 4096 bytes, not 512"]),
        ("io P --opcode 8 --namespace 1", &["Write Zeroes", "--yes"]),
        ("reset P", &["--yes"]),
        ("reset P --function --subsystem --yes", &["--"]),
        ("list P P", &["is named twice"]),
        ("list P embedded:e --embedded e,image=a.img", &["a.img is the same file as that of another"]),
        ("list embedded:e --embedded e,size=2M,image=a.img", &["leave size out"]),
        ("list embedded:e --embedded e,size=2M,size=4M", &["size is given twice"]),
        ("list embedded:e --embedded e,image=none", &["embedded subsystem e: image \"none\": No such file"]),
        ("list embedded:e --embedded e,image=/dev/null", &["image \"/dev/null\" is not a regular file"]),
        ("list embedded:e --embedded e,image=odd", &["5000 bytes", "multiple of the block size 4096"]),
        (
            "list embedded:e --embedded e,block=512,image=half",
            &["\"half\" has 524288 bytes; it must have from"],
        ),
        ("man --folder nowhere/at-all", &["manual pages: there is no directory \"nowhere/at-all\""]),
        ("migrat", &["unrecognized subcommand 'migrat'; a similar subcommand exists: 'migrate'"]),
        ("list embedded:e --embedded e,quirks=speed", &["\"speed\"", "limits-read-zero"]),
        ("list embedded:e --embedded e,fault=speed", &["\"speed\"", "nvme-lm faults"]),
        ("features set P --feature 7 --value 1 --yes", &["not set", "number of its queues"]),
        ("features set P --feature 0x0d --value 1 --yes", &["not set", "after it was given back"]),
        ("features set P --feature 4 --value 1", &["feature 0x04", "--yes"]),
        ("features set P --feature 4 --value 1 --data odd --yes", &["takes no data", "--data"]),
        ("features set P --feature 0x16 --value 0 --yes", &["takes 512 bytes of data", "--data"]),
        ("features set P --feature 0x16 --value 0 --data odd --yes", &["takes 512 bytes of data, not 5000"]),
        ("features set P --feature 0x81 --value 1 --yes", &["takes 16 bytes of data"]),
        ("features set P --feature 0x81 --value 0 --yes", &["takes 8 bytes of data"]),
        ("features set P --feature 0xc1 --value 0 --data odd --yes", &["5000", "more than 4096"]),
        ("features set P --feature 0xc1 --value 0 --data none --yes", &["none", "No such file"]),
        ("features get P --feature 0xc1 --receive 8K", &["8192", "more than 4096"]),
        ("admin P --opcode 0x20", &["may change", "--yes"]),
        ("bench P", &["--op"]),
        ("bench P --op wipe", &["wipe", "randwrite"]),
        ("bench P --op write", &["nobody can be asked", "--yes"]),
        ("bench P --op read --size 0", &["one block to 1 MiB"]),
        ("bench P --op read --size 2M", &["one block to 1 MiB"]),
        ("bench P --op read --size 5000", &["whole blocks of 4096 bytes"]),
        ("bench P --op read --size 64K --range 0:4", &["at most the 4 blocks"]),
        ("bench P --op read --range 250:7", &["ends with block 255"]),
        ("bench P --op read --seconds 0", &["1 to 86400"]),
        ("bench P --op read --depth 1024", &["1 to 1023"]),
        ("copy P --range 0:1", &["--to"]),
        ("copy P --to 5 --yes", &["--range"]),
        ("copy P --range 0:1 --to 5", &["--yes"]),
        ("copy P --range 0:2 --to 255 --yes", &["blocks 255 to 256"]),
        ("copy P --range 0:4 --to 3 --yes", &["overlap", "--to"]),
    ];
    for (line, words) in rows {
        check(dir.path(), &line.replace(" P", &format!(" {place}")), 2, words);
    }
    assert!(fs::read(dir.path().join("a.img")).expect("file") == before, "nothing was written");
}

/// Commands that were given up are none of the next one's business.
#[test]
fn what_was_given_up_does_not_answer_for_what_comes_later() {
    let line = |text: &str| format!("--line={text}");
    let lines = [
        line("write embedded:demo --lba 0 --blocks 16384 --pattern random --queues 16 --depth 512 --yes"),
        line("-read embedded:demo --lba 8192 --blocks 8192 --sha256 --queues 16 --depth 512 --timeout 10ms"),
        line("read embedded:demo --lba 0 --blocks 4096 --sha256 --queues 16 --depth 512"),
        line("flush embedded:demo"),
    ];
    let output = std::process::Command::new(env!("CARGO_BIN_EXE_nvme-lm"))
        .arg("script")
        .args(&lines)
        .stdin(std::process::Stdio::null())
        .output()
        .expect("nvme-lm starts");
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(0), "{said}");
}

#[test]
fn features_have_the_memory_that_they_need() {
    let dir = tempfile::tempdir().expect("directory");
    fs::write(dir.path().join("behavior"), [&[1][..], &[0; 511]].concat()).expect("file");
    let rows: [(&str, i32, &[&str]); 8] = [
        ("features get embedded:d --feature 0x16", 0, &["ACRE"]),
        ("features get embedded:d --feature 0x16 --raw --receive 2", 0, &[]),
        ("features set embedded:d --feature 0x16 --value 0 --data behavior --yes", 0, &["feature 0x16 set"]),
        // Neither reads or writes memory that is nobody's.
        ("features get embedded:d --feature 0x03", 1, &["Invalid Field in Command (0/02h)"]),
        ("features get embedded:d --feature 0xc1", 1, &["Invalid Field in Command (0/02h)"]),
        ("features get embedded:d --feature 0xc1 --receive 4K", 1, &["Invalid Field in Command (0/02h)"]),
        ("features set embedded:d --feature 0xc1 --value 0 --yes", 1, &["Invalid Field in Command (0/02h)"]),
        ("features set embedded:d --feature 0x0d --value 0 --yes", 1, &["Invalid Field in Command (0/02h)"]),
    ];
    for (line, status, words) in rows {
        let output = check(dir.path(), line, status, words);
        if line.contains("--raw") {
            assert_eq!(output.stdout.len(), 6, "{line}: dword 0, and what was asked for");
        }
    }
}

#[test]
fn an_image_has_one_user() {
    let dir = tempfile::tempdir().expect("directory");
    let place = image(dir.path(), BLOCK);
    let file = fs::File::open(dir.path().join("a.img")).expect("file");
    file.lock().expect("a lock");
    check(
        dir.path(),
        &format!("read {place} --lba 0 --blocks 1"),
        2,
        &["a.img is in use by another program"],
    );
    file.unlock().expect("no lock");
    check(dir.path(), &format!("read {place} --lba 0 --blocks 1"), 0, &[]);
    std::os::unix::fs::symlink("a.img", dir.path().join("b.img")).expect("a link");
    check(
        dir.path(),
        &format!("list embedded:d embedded:e {} --embedded e,image=b.img", &place[10..]),
        2,
        &["same file"],
    );
}

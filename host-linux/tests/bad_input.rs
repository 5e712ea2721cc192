// SPDX-License-Identifier: MIT OR Apache-2.0
//! Bad input: one line that names the value and the limit, exit status 2, and no file changed.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Output, Stdio};

const MIB: usize = 1 << 20;

fn run(directory: &Path, arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_nvme-lm"))
        .current_dir(directory)
        .args(arguments)
        .stdin(Stdio::null())
        .output()
        .expect("the program starts")
}

/// Names and contents of all files, with their times of change.
fn snapshot(directory: &Path) -> BTreeMap<String, (Vec<u8>, std::time::SystemTime)> {
    fs::read_dir(directory)
        .expect("directory")
        .map(|entry| {
            let entry = entry.expect("entry");
            let metadata = fs::symlink_metadata(entry.path()).expect("metadata");
            let content = if metadata.is_file() { fs::read(entry.path()).expect("file") } else { Vec::new() };
            (entry.file_name().into_string().expect("name"), (content, metadata.modified().expect("time")))
        })
        .collect()
}

/// Runs the program and checks that it refuses in one line with all `words`, and leaves everything as it was `before`.
fn assert_refused(
    directory: &Path,
    arguments: &[&str],
    words: &[&str],
    before: &BTreeMap<String, (Vec<u8>, std::time::SystemTime)>,
) {
    let output = run(directory, arguments);
    let message = String::from_utf8(output.stderr).expect("text");
    assert_eq!(output.status.code(), Some(2), "{arguments:?}: {message}");
    assert_eq!(message.lines().count(), 1, "{arguments:?}: {message}");
    assert!(!message.contains("os error"), "{arguments:?}: {message}");
    for word in words {
        assert!(message.contains(word), "{arguments:?}: '{word}' is not in: {message}");
    }
    assert!(output.stdout.is_empty(), "{arguments:?}");
    assert!(snapshot(directory) == *before, "{arguments:?}: a file was changed");
}

#[test]
fn bad_input_is_one_line_exit_2_and_no_change() {
    let dir = tempfile::tempdir().expect("directory");
    let write = |name: &str, content: &[u8]| fs::write(dir.path().join(name), content).expect("file");
    write("a.img", &vec![1; MIB]);
    write("b.img", &vec![2; MIB]);
    write("larger.img", &vec![3; 2 * MIB]);
    write("odd.img", &vec![4; MIB + 512]);
    write("small.img", &vec![5; 4096]);
    write("locked.img", &vec![6; MIB]);
    write("extents", b"0 4\n2 2\n");
    fs::set_permissions(dir.path().join("locked.img"), fs::Permissions::from_mode(0o444)).expect("mode");
    fs::create_dir(dir.path().join("directory")).expect("directory");
    let before = snapshot(dir.path());

    let images = ["--source-image", "a.img", "--dest-image", "b.img", "--yes"];
    let unasked = ["migrate", "--source-image", "a.img", "--dest-image", "b.img"];
    let source = |name| ["--source-image", name, "--dest-image", "b.img", "--yes"];
    let destination = |name| ["--source-image", "a.img", "--dest-image", name, "--yes"];
    let asks = || {
        vec![
            "the guest writes to a.img, and the content of b.img is replaced",
            "nobody can be asked",
            "--yes",
        ]
    };
    let table: Vec<(&str, Vec<&str>, Vec<&str>)> = vec![
        ("no subcommand", vec![], vec!["subcommand"]),
        ("unknown option", vec!["migrate", "--nonsense"], vec!["--nonsense"]),
        ("nothing to bind", vec!["bind"], vec!["BDF"]),
        ("nothing to give back", vec!["unbind", "--dry-run"], vec!["BDF"]),
        ("no PCI function to bind", vec!["bind", "nvme0"], vec!["nvme0", "DDDD:BB:DD.F"]),
        (
            "a PCI function that is not there",
            vec!["bind", "--dry-run", "fffe:ff:1f.7"],
            vec!["fffe:ff:1f.7", "lspci -D"],
        ),
        (
            "one that is not there to give back",
            vec!["unbind", "fffe:ff:1f.7"],
            vec!["fffe:ff:1f.7", "lspci -D"],
        ),
        (
            "missing source",
            [&["migrate"], &source("none.img")[..]].concat(),
            vec!["source", "none.img", "No such file"],
        ),
        (
            "missing destination",
            [&["migrate"], &destination("none.img")[..]].concat(),
            vec!["destination", "none.img"],
        ),
        ("images that may not be meant", unasked.to_vec(), asks()),
        ("a report of them", [&unasked[..], &["--json", "-"]].concat(), asks()),
        ("a report in a file", [&unasked[..], &["--json", "new"]].concat(), asks()),
        ("a journal of its own", [&unasked[..], &["--journal", "new", "--force"]].concat(), asks()),
        ("a guest that may write nowhere", [&unasked[..], &["--write-extents", "extents"]].concat(), asks()),
        ("only a source", vec!["migrate", "--source-image", "a.img"], vec!["--dest-image"]),
        (
            "a directory",
            [&["migrate"], &destination("directory")[..]].concat(),
            vec!["directory", "not a regular file"],
        ),
        (
            "not writable",
            [&["migrate"], &destination("locked.img")[..]].concat(),
            vec!["locked.img", "not writable"],
        ),
        (
            "source not writable",
            [&["migrate"], &source("locked.img")[..]].concat(),
            vec!["locked.img", "not writable"],
        ),
        (
            "different size",
            [&["migrate"], &destination("larger.img")[..]].concat(),
            vec!["larger.img", "2097152", "1048576"],
        ),
        (
            "not whole blocks",
            [&["migrate"], &source("odd.img")[..]].concat(),
            vec!["odd.img", "1049088", "4096"],
        ),
        (
            "too small",
            [&["migrate"], &source("small.img")[..]].concat(),
            vec!["small.img", "4096", "1048576"],
        ),
        (
            "the same file",
            vec!["migrate", "--source-image", "a.img", "--dest-image", "a.img", "--yes"],
            vec!["a.img", "same file"],
        ),
        (
            "size of other images",
            [&["migrate", "--size", "2M"], &images[..]].concat(),
            vec!["2097152", "1048576"],
        ),
        ("size too small", vec!["migrate", "--size", "4096"], vec!["4096", "1 MiB", "1 TiB"]),
        ("size too large", vec!["migrate", "--size", "2T"], vec!["2T", "1 TiB"]),
        ("size beyond memory", vec!["migrate", "--size", "1T"], vec!["1099511627776", "available"]),
        ("size not whole blocks", vec!["migrate", "--size", "1048577"], vec!["1048577", "4096"]),
        ("size not a number", vec!["migrate", "--size", "many"], vec!["many"]),
        ("block size", vec!["migrate", "--block-size", "1024"], vec!["1024", "512 or 4096"]),
        ("queue depth", vec!["migrate", "--queue-depth", "0"], vec!["'0'", "1 to 1023"]),
        ("queue depth too large", vec!["migrate", "--queue-depth", "70000"], vec!["70000", "1 to 1023"]),
        ("I/O queues", vec!["migrate", "--io-queues", "99"], vec!["99", "1 to 16"]),
        ("I/O size", vec!["migrate", "--io-size", "512"], vec!["512", "4096"]),
        ("percent", vec!["migrate", "--read-percent", "101"], vec!["101", "0 to 100"]),
        ("pattern", vec!["migrate", "--pattern", "circular"], vec!["circular", "random", "hot"]),
        ("CDQ entries", vec!["migrate", "--cdq-entries", "2"], vec!["'2'", "3 to 1048576"]),
        (
            "CDQ entries too many",
            vec!["migrate", "--cdq-entries", "9999999"],
            vec!["9999999", "3 to 1048576"],
        ),
        ("CDQ layout", vec!["migrate", "--cdq-layout", "ring"], vec!["ring", "contiguous", "prp-list"]),
        ("head updates", vec!["migrate", "--cdq-entries", "8", "--head-every", "8"], vec!["8", "fewer"]),
        ("rounds", vec!["migrate", "--max-rounds", "0"], vec!["'0'", "1 to 1000"]),
        ("stop time", vec!["migrate", "--stop-time-limit", "5"], vec!["'5'", "unit"]),
        ("stop time too short", vec!["migrate", "--stop-time-limit", "1us"], vec!["1us", "1ms"]),
        (
            "cancel after nothing",
            vec!["migrate", "--cancel-after", "lunch"],
            vec!["lunch", "discover", "set-state"],
        ),
        (
            "cancel too late",
            vec!["migrate", "--cancel-after", "resume-destination"],
            vec!["resume-destination", "set-state"],
        ),
        ("seed", vec!["migrate", "--seed", "-3"], vec!["-3"]),
        ("extents missing", vec!["migrate", "--write-extents", "none"], vec!["none", "No such file"]),
        ("extents overlap", vec!["migrate", "--write-extents", "extents"], vec!["extents", "overlap"]),
        ("report nowhere", vec!["migrate", "--json", "nowhere/report.json"], vec!["nowhere/report.json"]),
        ("log nowhere", vec!["migrate", "--guest-log", "nowhere/log"], vec!["nowhere"]),
        ("log is an image", [&["migrate", "--guest-log", "b.img"], &images[..]].concat(), vec!["b.img"]),
        ("journal is an image", [&["migrate", "--journal", "a.img"], &images[..]].concat(), vec!["a.img"]),
        ("completions for nothing", vec!["completions", "dos"], vec!["dos", "bash"]),
    ];
    for (name, arguments, words) in table {
        println!("{name}");
        assert_refused(dir.path(), &arguments, &words, &before);
    }
}

#[test]
fn no_file_is_used_twice() {
    let dir = tempfile::tempdir().expect("directory");
    let at = |name: &str| dir.path().join(name);
    for (byte, name) in [(1, "a.img"), (2, "b.img"), (3, "a.img.journal")] {
        fs::write(at(name), vec![byte; MIB]).expect("file");
    }
    fs::write(at("extents"), "0 4\n").expect("file");
    fs::hard_link(at("b.img"), at("hard")).expect("link");
    std::os::unix::fs::symlink("a.img", at("soft")).expect("link");
    std::os::unix::fs::symlink("new", at("ahead")).expect("link");
    fs::create_dir(at("directory")).expect("directory");
    let before = snapshot(dir.path());
    let outputs = ["--json", "--guest-log", "--journal", "--write-extents"];
    let mut table: Vec<Vec<&str>> = Vec::new();
    for (index, one) in outputs.into_iter().enumerate() {
        for name in ["a.img", "b.img", "hard", "soft", "./directory/../a.img"] {
            table.push(vec![one, name]);
        }
        for other in outputs.into_iter().skip(index + 1) {
            table.push(vec![one, "extents", other, "extents"]);
            if other != "--write-extents" {
                table.push(vec![one, "new", other, "./new"]);
                table.push(vec![one, "ahead", other, "directory/../new"]);
            }
        }
    }
    // The journal's usual place.
    table.push(vec!["--json", "b.img.journal"]);
    table.push(vec!["--guest-log", "./b.img.journal"]);
    for options in table {
        let arguments =
            [&["migrate", "--source-image", "a.img", "--dest-image", "b.img", "--yes"], &options[..]]
                .concat();
        assert_refused(dir.path(), &arguments, &["same file"], &before);
    }
    for options in [
        ["--source-image", "a.img.journal", "--dest-image", "a.img", "--yes"],
        ["--source-image", "hard", "--dest-image", "b.img", "--yes"],
    ] {
        assert_refused(dir.path(), &[&["migrate"], &options[..]].concat(), &["same file"], &before);
    }
    for options in [["--json", "extents", "--write-extents", "extents"], ["--json", "x", "--guest-log", "x"]]
    {
        assert_refused(dir.path(), &[&["migrate"], &options[..]].concat(), &["same file"], &before);
    }
}

#[test]
fn outputs_that_cannot_be_written_are_found_before_anything_changes() {
    let dir = tempfile::tempdir().expect("directory");
    let at = |name: &str| dir.path().join(name);
    for name in ["a.img", "b.img"] {
        fs::write(at(name), vec![1; MIB]).expect("file");
    }
    fs::create_dir(at("directory")).expect("directory");
    fs::write(at("text"), "not a journal").expect("file");
    let before = snapshot(dir.path());
    let long = "x".repeat(300);
    for option in ["--json", "--guest-log", "--journal"] {
        // Permissions do not keep root from anything, but nobody makes files in /proc.
        let table = [
            ("/proc/nvme-lm", vec!["/proc/nvme-lm", "cannot be written"]),
            ("directory", vec!["directory", "is a directory"]),
            ("nowhere/file", vec!["nowhere/file", "no directory"]),
            ("text/file", vec!["text/file", "no directory"]),
            ("two\nlines/file", vec!["two\\nlines/file", "no directory"]),
            (long.as_str(), vec!["xxx", "too long"]),
        ];
        for (path, words) in table {
            let images =
                ["migrate", "--source-image", "a.img", "--dest-image", "b.img", "--yes", option, path];
            assert_refused(dir.path(), &images, &words, &before);
            if option != "--journal" {
                assert_refused(dir.path(), &["migrate", "--size", "1M", option, path], &words, &before);
            }
        }
    }
    for (path, words) in
        [("text", ["text", "is no journal"]), ("/dev/null", ["/dev/null", "not a regular file"])]
    {
        let images =
            ["migrate", "--source-image", "a.img", "--dest-image", "b.img", "--yes", "--journal", path];
        assert_refused(dir.path(), &images, &words, &before);
    }
    assert_refused(dir.path(), &["migrate", "--journal", "j"], &["--dest-image"], &before);
}

#[test]
fn an_image_in_use_is_refused() {
    let dir = tempfile::tempdir().expect("directory");
    for name in ["a.img", "b.img"] {
        fs::write(dir.path().join(name), vec![1; MIB]).expect("file");
    }
    let file = fs::File::open(dir.path().join("b.img")).expect("open");
    file.lock().expect("lock");
    let output = run(dir.path(), &["migrate", "--source-image", "a.img", "--dest-image", "b.img", "--yes"]);
    let message = String::from_utf8(output.stderr).expect("text");
    assert_eq!(output.status.code(), Some(2), "{message}");
    assert!(message.contains("b.img") && message.contains("in use"), "{message}");
}

#[test]
fn help_names_options_and_exit_statuses() {
    let dir = tempfile::tempdir().expect("directory");
    let output = run(dir.path(), &["migrate", "--help-all"]);
    assert_eq!(output.status.code(), Some(0));
    let text = String::from_utf8(output.stdout).expect("text");
    let words = [
        "--source-image",
        "--dest-image",
        "--size",
        "--block-size",
        "--queue-depth",
        "--write-rate",
        "--pattern",
        "--read-percent",
        "--cdq-entries",
        "--cdq-layout",
        "--head-every",
        "--max-rounds",
        "--stop-time-limit",
        "--cancel-after",
        "--seed",
        "--json",
        "--strict",
        "--journal",
        "--force",
        "Exit status:",
    ];
    for word in words {
        assert!(text.contains(word), "{word} is not in the help");
    }
    for shell in ["bash", "zsh", "fish"] {
        let output = run(dir.path(), &["completions", shell]);
        assert_eq!(output.status.code(), Some(0), "{shell}");
        assert!(String::from_utf8_lossy(&output.stdout).contains("cdq-entries"), "{shell}");
    }
}

#[test]
fn what_tells_the_properties_is_looked_at_before_anything_is_opened() {
    let dir = tempfile::tempdir().expect("directory");
    let write = |name: &str, content: &[u8]| fs::write(dir.path().join(name), content).expect("file");
    let mut page = vec![0; 4096];
    page[8..12].copy_from_slice(&0x2_0100_u32.to_le_bytes());
    write("good", &page);
    write("short", &page[..4095]);
    write("ones", &[0xFF; 4096]);
    write("zeroes", &[0; 4096]);
    write("list", b"CC 1\nAQA 1\nASQ 1\n");
    fs::create_dir(dir.path().join("directory")).expect("directory");
    let before = snapshot(dir.path());
    // Nobody listens there: had a controller been opened, that would be said.
    let theirs = "migrate --source-manager vfio-user:nowhere --source-controller 2 --dest-manager vfio-user:nowhere-else \
                  --dest-controller 2 --fence true --unfence true --dest-fence true --yes";
    let ours = "migrate --source-manager embedded:a/1 --source embedded:a/2 --dest-manager embedded:b/1 --dest embedded:b/2";
    let table: [(&str, &str, &str, &[&str]); 16] = [
        ("no file", theirs, "--source-registers none", &["none", "cannot be opened", "No such file"]),
        ("too short", theirs, "--source-registers short", &["short", "4095 bytes", "4096"]),
        ("a controller that is gone", theirs, "--source-registers ones", &["ones", "all ones at VS"]),
        ("no controller", theirs, "--source-registers zeroes", &["zeroes", "0x0 at VS", "no version"]),
        ("a directory", theirs, "--source-registers directory", &["directory", "resource0"]),
        (
            "a device without memory",
            theirs,
            "--source-registers /dev/null",
            &["/dev/null", "cannot be mapped"],
        ),
        ("a device with zeroes", theirs, "--source-registers /dev/zero", &["/dev/zero", "no version"]),
        (
            "an attribute",
            theirs,
            "--source-registers /sys/kernel/uevent_seqnum",
            &["uevent_seqnum", "cannot be mapped"],
        ),
        (
            "a list twice",
            theirs,
            "--source-registers good --properties list",
            &["--properties", "cannot be used"],
        ),
        ("no list", theirs, "--properties none", &["none", "No such file"]),
        ("a list with a gap", theirs, "--properties list", &["list", "ACQ is missing"]),
        ("the report over registers", theirs, "--source-registers good --json good", &["good", "same file"]),
        ("the report over the list", theirs, "--properties list --json list", &["list", "same file"]),
        (
            "registers of our own",
            ours,
            "--source-registers good",
            &["--source-registers", "--source-controller"],
        ),
        ("a list of our own", ours, "--properties list", &["--properties", "--source-controller"]),
        ("to be restored by us", ours, "--restore true", &["--source-controller", "--dest-controller"]),
    ];
    for (name, start, options, words) in table {
        println!("{name}");
        let arguments: Vec<&str> = start.split_whitespace().chain(options.split(' ')).collect();
        assert_refused(dir.path(), &arguments, words, &before);
    }
    // What the program prints is a list, and only then somebody is looked for.
    let printed = run(dir.path(), &["registers", "embedded:a/2"]).stdout;
    let printed = String::from_utf8(printed).expect("text");
    let names = [" CC ", " AQA ", " ASQ ", " ACQ "];
    let lines: Vec<&str> =
        printed.lines().filter(|line| names.iter().any(|name| line.starts_with(name))).collect();
    assert_eq!(lines.len(), 4, "{printed}");
    write("printed", lines.join("\n").as_bytes());
    let arguments: Vec<&str> = theirs.split_whitespace().chain(["--properties", "printed"]).collect();
    let output = run(dir.path(), &arguments);
    let message = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{message}");
    assert!(message.starts_with("error: vfio-user:nowhere: "), "{message}");
}

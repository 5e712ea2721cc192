// SPDX-License-Identifier: MIT OR Apache-2.0
//! Help, the manual page and the README: the help of every command fits a screen, and every example is run.

use std::path::Path;
use std::process::{Command, Output, Stdio};

use nvme_host_linux::cli::program;

/// A screen: what a terminal shows that nobody made larger, and one that somebody did. All help fits 24 rows, but that of
/// `migrate`.
const SCREENS: [usize; 2] = [80, 100];
const LINES: usize = 24;
const MIGRATE_LINES: usize = 45;

fn nvme_lm(folder: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_nvme-lm"));
    command.current_dir(folder).stdin(Stdio::null()).env("COLUMNS", SCREENS[0].to_string());
    command
}

fn texts(output: &Output) -> [String; 2] {
    [&output.stdout, &output.stderr].map(|bytes| String::from_utf8_lossy(bytes).into_owned())
}

/// The commands that do something, each as the words that name it.
fn commands() -> Vec<Vec<String>> {
    fn walk(command: &clap::Command, words: &[String], found: &mut Vec<Vec<String>>) {
        let mut below = command.get_subcommands().filter(|one| one.get_name() != "help").peekable();
        if below.peek().is_none() {
            found.push(words.to_vec());
        }
        for one in below {
            walk(one, &[words, &[one.get_name().to_owned()]].concat(), found);
        }
    }
    let mut found = Vec::new();
    walk(&program(), &[], &mut found);
    found
}

/// Words as a shell splits them.
fn words(line: &str) -> Vec<String> {
    shlex::split(line).unwrap_or_else(|| panic!("a quote without its end: {line}"))
}

/// The help of a command, which fits every screen.
fn help(folder: &Path, command: &[String], most: usize) -> String {
    let help = SCREENS.map(|columns| {
        let mut nvme_lm = nvme_lm(folder);
        let output = nvme_lm.env("COLUMNS", columns.to_string()).args(command).arg("--help").output();
        let output = output.expect("nvme-lm starts");
        let [help, _] = texts(&output);
        let name = format!("{}, {columns} columns", command.join(" "));
        assert!(output.status.success(), "{name}: {help}");
        assert!(help.lines().count() <= most, "{name}: {} lines of {most}: {help}", help.lines().count());
        let longest = help.lines().map(|line| line.chars().count()).max().unwrap_or(0);
        assert!(longest <= columns, "{name}: a line of {longest} characters: {help}");
        help
    });
    let [help, _] = help;
    help
}

/// The example that the help of a command shows.
fn example(folder: &Path, command: &[String], most: usize) -> String {
    let help = help(folder, command, most);
    let name = command.join(" ");
    let lines: Vec<&str> = help.lines().collect();
    let at = lines.iter().position(|line| line.starts_with("Example: "));
    let at = at.unwrap_or_else(|| panic!("{name}: no example: {help}"));
    // An example goes on until the next empty line.
    let lines: Vec<&str> =
        lines[at..].iter().take_while(|line| !line.is_empty()).map(|line| line.trim()).collect();
    let example = lines.join(" ");
    let example = example.strip_prefix("Example: ").unwrap_or(&example);
    assert!(
        example.starts_with(&format!("nvme-lm {name}")) || example.starts_with("nvme-lm script"),
        "{example}"
    );
    example.to_owned()
}

#[test]
fn the_help_of_every_command_fits_a_screen_and_its_example_works() {
    let folder = tempfile::tempdir().expect("a folder");
    let commands = commands();
    assert!(commands.len() >= 25, "{commands:?}");
    for command in &commands {
        let most = if command == &["migrate"] { MIGRATE_LINES } else { LINES };
        let example = example(folder.path(), command, most);
        let output = nvme_lm(folder.path()).args(&words(&example)[1..]).output().expect("nvme-lm starts");
        let [said, wrong] = texts(&output);
        match command[0].as_str() {
            // There may be no such function here; then it says so, and that is all it does.
            "bind" | "unbind" if !output.status.success() => {
                assert!(
                    wrong.contains("0000:01:00.0") && example.contains("--dry-run"),
                    "{example}: {wrong}"
                );
            }
            _ => assert!(output.status.success(), "{example}: {said}{wrong}"),
        }
    }
}

#[test]
fn the_program_and_its_groups_of_commands_have_help_that_fits_a_screen() {
    let folder = tempfile::tempdir().expect("a folder");
    let groups: Vec<clap::Command> =
        program().get_subcommands().filter(|one| one.has_subcommands()).cloned().collect();
    let names: Vec<&str> = groups.iter().map(clap::Command::get_name).collect();
    assert_eq!(names, ["features", "cdq", "track", "state"]);
    for name in ["", "faults", "man", "completions", "bind", "unbind"].iter().chain(&names) {
        // Also where there is no more than that.
        let ask = |how| {
            let output = nvme_lm(folder.path()).args(words(name)).arg(how).output().expect("nvme-lm starts");
            assert!(output.status.success(), "{name} {how}: {:?}", texts(&output));
            let [said, _] = texts(&output);
            said.lines().take(3).collect::<Vec<_>>().join("\n")
        };
        let short = ask("--help");
        assert!(short.contains("Usage: nvme-lm") && ask("--help-all") == short, "{name}: {short}");
    }
    for name in names {
        let example = example(folder.path(), &[name.to_owned()], LINES);
        let output = nvme_lm(folder.path()).args(&words(&example)[1..]).output().expect("nvme-lm starts");
        assert!(output.status.success(), "{example}: {:?}", texts(&output));
    }
    let help = help(folder.path(), &[], LINES);
    // The second column of each line is words, and the first is commands.
    let named: Vec<&str> = help
        .lines()
        .filter(|line| line.starts_with("  "))
        .filter_map(|line| line[2..].split_once("  ").map(|(names, _)| names))
        .flat_map(|names| names.split([',', ' ']).filter(|name| !name.is_empty()))
        .collect();
    let program = program();
    for one in program.get_subcommands() {
        assert!(named.contains(&one.get_name()), "{} is not in the help", one.get_name());
    }
    let (_, example) = help.split_once("Example: ").expect("an example");
    let output = nvme_lm(folder.path()).args(&words(example.trim())[1..]).output().expect("nvme-lm starts");
    assert!(output.status.success(), "{example}: {:?}", texts(&output));
}

#[test]
fn everything_is_in_the_manual_page_of_its_command() {
    let folder = tempfile::tempdir().expect("a folder");
    let output = nvme_lm(folder.path()).args(["man", "--folder", "."]).output().expect("nvme-lm starts");
    assert!(output.status.success(), "{:?}", texts(&output));
    for command in commands() {
        let path = folder.path().join(format!("nvme-lm-{}.1", command.join("-")));
        let page =
            std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        assert!(page.contains("Example: nvme"), "{command:?}");
        let mut lines = page.lines().skip_while(|line| *line != ".SH OPTIONS").peekable();
        while let Some(line) = lines.next() {
            // The name of an option, then its text.
            if line == ".TP" {
                let name = lines.next().unwrap_or_default();
                let text = lines.peek().copied().unwrap_or_default();
                assert!(!text.is_empty() && !text.starts_with('.'), "{command:?}: {name} has no text");
            }
        }
        if command == ["migrate"] {
            let plain = page.replace('\\', "");
            for option in ["--cancel-after", "--fence", "--fault", "--vf-token", "--at-stop"] {
                assert!(plain.contains(option), "{option} is not in the page of migrate");
            }
        }
    }
}

/// What the README says that a command ends with.
fn expected(line: &str) -> &'static [i32] {
    match line {
        _ if line.contains("exit status 1") => &[1],
        _ if line.contains("--cancel-after") => &[3],
        _ if line.contains("--strict") => &[4],
        _ => &[0],
    }
}

#[test]
fn every_example_in_the_readme_does_what_it_says() {
    let readme = include_str!("../../README.md");
    let folder = tempfile::tempdir().expect("a folder");
    let mut run = 0;
    let mut inside = false;
    // A comment may go on in the next line.
    let joined = readme.replace("\n                  # ", " # ");
    for line in joined.lines() {
        if line.starts_with("```") {
            inside = line == "```sh";
            continue;
        }
        if !inside || !(line.starts_with("nvme-lm ") || line.starts_with("truncate ")) {
            continue;
        }
        let (command, _) = line.split_once(" #").unwrap_or((line, ""));
        let arguments = words(command.trim());
        let output = if arguments[0] == "truncate" {
            Command::new("truncate").args(&arguments[1..]).current_dir(folder.path()).output()
        } else {
            nvme_lm(folder.path()).args(&arguments[1..]).output()
        };
        let output = output.expect("it starts");
        let [said, wrong] = texts(&output);
        let status = output.status.code().unwrap_or(-1);
        if arguments[1] == "bind" && status != 0 {
            // There may be no such function here; then it says so, and that is all it does.
            assert!(wrong.contains("0000:01:00.0") && line.contains("--dry-run"), "{line}: {said}{wrong}");
        } else {
            assert!(expected(line).contains(&status), "{line}: status {status}: {said}{wrong}");
        }
        run += 1;
    }
    assert!(run >= 20, "only {run} examples were found");
}

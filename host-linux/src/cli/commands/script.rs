// SPDX-License-Identifier: MIT OR Apache-2.0
//! `nvme-lm script`: several commands with every controller opened once, so that what one leaves in a controller is there
//! for the next.

use std::fs;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Args, Parser};

use crate::backend::is_same_controller;
use crate::cli::action::{self, Action, CommandError, Output, Sessions, Target};
use crate::cli::connect::ConnectArgs;
use crate::cli::{Cli, Command, as_action, one_line};

const HELP: &str = "\
A line is what would follow nvme-lm on the command line, with quotes as in a shell; # begins a comment. The first line that \
fails ends the script with its status, unless the line begins with -. All lines are read before any controller is touched. \
Queues, logs and suspensions that are left at the end are undone, and named on standard error.

Example: nvme-lm script --line 'cdq create embedded:demo --controller 2' --line 'formats embedded:demo'";

/// Options of `nvme-lm script`.
#[derive(Args, Clone, Debug)]
#[command(after_help = HELP)]
pub struct ScriptArgs {
    /// The script; - is standard input.
    #[arg(value_name = "FILE", required_unless_present = "lines", conflicts_with = "lines")]
    file: Option<PathBuf>,
    /// A line of the script; may be repeated.
    #[arg(long = "line", value_name = "LINE", allow_hyphen_values = true)]
    lines: Vec<String>,
    #[command(flatten)]
    connect: ConnectArgs,
}

/// One command of a script.
struct Line {
    number: usize,
    action: Box<dyn Action>,
    connect: ConnectArgs,
    /// Its failure does not end the script.
    may_fail: bool,
}

/// A script that was read.
struct Script {
    lines: Vec<Line>,
}

/// A mistake in a line.
fn wrong(number: usize, what: String) -> CommandError {
    CommandError::Line(number, Box::new(CommandError::Input(what)))
}

/// Reads a script. `connect` gathers how controllers are opened.
fn parse(text: &str, connect: &mut ConnectArgs) -> Result<Script, CommandError> {
    let mut lines = Vec::new();
    let given = connect.clone();
    for (number, text) in (1..).zip(text.lines()) {
        let text = text.trim();
        let (text, may_fail) = text.strip_prefix('-').map_or((text, false), |rest| (rest, true));
        let words = shlex::split(text).ok_or_else(|| wrong(number, "a quote is not closed".into()))?;
        if words.is_empty() {
            if may_fail {
                return Err(wrong(number, "a command is missing after -".into()));
            }
            continue;
        }
        let command = Cli::try_parse_from(std::iter::once("nvme-lm".to_owned()).chain(words))
            .map_err(|error| wrong(number, one_line(&error.to_string())))?
            .command;
        let (action, own) = as_action(command).map_err(|command| {
            let why = match *command {
                Command::Reset(_) => {
                    "a reset ends what the other lines have open; run nvme-lm reset before or after the script"
                }
                Command::Migrate(_) => {
                    "a migration opens its controllers itself; run nvme-lm migrate before or after the script"
                }
                _ => "this command cannot be part of a script; only commands on controllers can",
            };
            wrong(number, why.into())
        })?;
        connect.gather(&own).map_err(|error| wrong(number, error))?;
        let own = own.within(&given);
        lines.push(Line { number, action, connect: own, may_fail });
    }
    Ok(Script { lines })
}

impl Action for Script {
    fn targets(&self) -> Vec<Target> {
        let mut targets: Vec<Target> = Vec::new();
        for wanted in self.lines.iter().flat_map(|line| line.action.targets()) {
            match targets.iter_mut().find(|target| is_same_controller(&target.address, &wanted.address)) {
                Some(target) => target.merge(&wanted),
                None => targets.push(wanted),
            }
        }
        targets
    }

    fn prepare(&mut self, output: &Output) -> Result<(), CommandError> {
        for line in &mut self.lines {
            let own = output.of_line(line.connect.json);
            let prepared = action::prepare(&mut *line.action, &line.connect, &own);
            prepared.map_err(|error| CommandError::Line(line.number, Box::new(error)))?;
        }
        Ok(())
    }

    fn run(&self, sessions: &mut Sessions<'_>, output: &Output) -> Result<(), CommandError> {
        for line in &self.lines {
            if output.is_interrupted() {
                return Err(CommandError::Interrupted);
            }
            let own = output.of_line(line.connect.json);
            match sessions.line(&*line.action, &line.connect, &own) {
                Ok(()) => {}
                Err(CommandError::Interrupted) => return Err(CommandError::Interrupted),
                Err(error) => {
                    let error = CommandError::Line(line.number, Box::new(error));
                    if !line.may_fail {
                        return Err(error);
                    }
                    output.note(&format!("{error}; going on"));
                }
            }
        }
        Ok(())
    }
}

fn read(file: &Path) -> Result<String, CommandError> {
    let mut text = String::new();
    let read = match file == Path::new("-") {
        true => io::stdin().read_to_string(&mut text).map(|_| text),
        false => fs::read_to_string(file),
    };
    read.map_err(|error| CommandError::Input(format!("script {}: {error}", file.display())))
}

/// Runs a script.
pub(crate) fn run(args: &ScriptArgs) -> ExitCode {
    let text = match &args.file {
        Some(file) => read(file),
        None => Ok(args.lines.join("\n")),
    };
    let mut connect = args.connect.clone();
    match text.and_then(|text| parse(&text, &mut connect)) {
        Ok(script) => action::run(Box::new(script), &connect),
        Err(error) => action::finish(Err(error)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_read_as_a_shell_would() {
        // Text, addresses of the targets, or what is wrong.
        type Row<'a> = (&'a str, &'a str, Result<&'a [&'a str], &'a str>);
        let rows: [Row<'_>; 13] = [
            ("nothing", "", Ok(&[])),
            ("comments and blank lines", "# a\n\n   # b\n", Ok(&[])),
            ("one command", "formats embedded:a # why not", Ok(&["embedded:a"])),
            (
                "controllers are opened once",
                "formats embedded:a\n formats embedded:a/1\nformats 'embedded:b'",
                Ok(&["embedded:a", "embedded:b"]),
            ),
            (
                "failure allowed",
                "-formats embedded:a\n- formats embedded:b",
                Ok(&["embedded:a", "embedded:b"]),
            ),
            ("nothing may fail", "-", Err("line 1: a command is missing")),
            ("open quote", "\nformats 'embedded:a", Err("line 2: a quote is not closed")),
            ("unknown command", "format embedded:a", Err("line 1: unrecognized subcommand 'format'")),
            ("no command on controllers", "faults", Err("cannot be part of a script")),
            ("a reset", "reset embedded:a --yes", Err("line 1: a reset ends what the other lines have open")),
            ("a migration", "migrate --size 8M", Err("line 1: a migration opens its controllers itself")),
            (
                "nearly a command",
                "migrat",
                Err("unrecognized subcommand 'migrat'; a similar subcommand exists: 'migrate'"),
            ),
            (
                "two descriptions",
                "formats embedded:a --embedded a,size=2M\nformats embedded:a --embedded a",
                Err("line 2: another --embedded a"),
            ),
        ];
        for (name, text, expected) in rows {
            let script = parse(text, &mut ConnectArgs::default());
            let found = script.map(|script| {
                script.targets().iter().map(|target| target.address.to_string()).collect::<Vec<_>>()
            });
            match (found, expected) {
                (Ok(found), Ok(expected)) => assert_eq!(found, expected, "{name}"),
                (Err(error), Err(words)) => {
                    assert!(error.to_string().contains(words), "{name}: {error}");
                    assert_eq!(error.exit_status(), 2, "{name}");
                }
                (found, expected) => panic!("{name}: {found:?} where {expected:?} should be"),
            }
        }
    }

    #[test]
    fn options_of_a_line_are_its_own() {
        let mut connect = ConnectArgs { json: true, ..ConnectArgs::default() };
        let text = "formats embedded:a --timeout 5s\nformats embedded:a --force --polling";
        let script = parse(text, &mut connect).expect("a script");
        let seconds = |line: &Line| line.connect.timeout().as_secs();
        assert_eq!(script.lines.iter().map(seconds).collect::<Vec<_>>(), [5, 30]);
        assert_eq!(script.lines.iter().map(|line| line.connect.force).collect::<Vec<_>>(), [false, true]);
        assert!(script.lines.iter().all(|line| line.connect.json));
        assert!(connect.reach.polling && !connect.force, "what concerns opening holds for all");
    }
}

// SPDX-License-Identifier: MIT OR Apache-2.0
//! The program `nvme-lm`: command line in, tables or JSON out.

mod args;
mod output;
mod values;

use std::ffi::OsString;
use std::fs;
use std::io::{self, IsTerminal, Write};
use std::path::Path;
use std::process::ExitCode;

use clap::error::ErrorKind;
use clap::{CommandFactory, Parser};

pub use args::{Cli, Color, Command, MigrateArgs};

use crate::images::{InputError, Inputs};
use crate::migrate;
use crate::report::Report;

/// Exit status for bad input.
const BAD_INPUT: u8 = 2;
/// Exit status for a run that failed.
const FAILED: u8 = 1;

/// Runs the program with `arguments`, the first of which is its name.
pub fn main(arguments: impl IntoIterator<Item = OsString>) -> ExitCode {
    let cli = match Cli::try_parse_from(arguments) {
        Ok(cli) => cli,
        Err(error) => return usage(&error),
    };
    match cli.command {
        Command::Migrate(args) => run_migrate(&args),
        Command::Completions { shell } => {
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut Cli::command(), "nvme-lm", &mut script);
            match io::stdout().write_all(&script) {
                Ok(()) => ExitCode::SUCCESS,
                Err(error) => complain(FAILED, &format!("standard output: {error}")),
            }
        }
    }
}

/// One line on standard error.
fn complain(status: u8, what: &str) -> ExitCode {
    let error = anstyle::Style::new().bold().fg_color(Some(anstyle::AnsiColor::Red.into()));
    anstream::eprintln!("{error}error:{error:#} {what}");
    ExitCode::from(status)
}

fn usage(error: &clap::Error) -> ExitCode {
    match error.kind() {
        ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => {
            let _ = error.print();
            ExitCode::SUCCESS
        }
        ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand => {
            complain(BAD_INPUT, "a subcommand is missing: migrate or completions; see 'nvme-lm --help'")
        }
        _ => complain(BAD_INPUT, &one_line(&error.to_string())),
    }
}

/// The first paragraph of a message, as one line without its prefix.
fn one_line(message: &str) -> String {
    let paragraph: Vec<&str> = message.lines().map(str::trim).take_while(|line| !line.is_empty()).collect();
    let line = paragraph.join(" ");
    line.strip_prefix("error: ").unwrap_or(&line).to_string()
}

fn check_json(path: &Path) -> Result<(), InputError> {
    if path == Path::new("-") {
        return Ok(());
    }
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    if path.is_dir() || !parent.is_dir() {
        return Err(InputError(format!(
            "report {}: it must be a file in an existing directory",
            path.display()
        )));
    }
    Ok(())
}

fn run_migrate(args: &MigrateArgs) -> ExitCode {
    match args.color {
        Color::Auto => {}
        Color::Always => anstream::ColorChoice::Always.write_global(),
        Color::Never => anstream::ColorChoice::Never.write_global(),
    }
    let config = args.config();
    let inputs =
        args.json.as_deref().map_or(Ok(()), check_json).and_then(|()| Inputs::open(&config, args.size()));
    let inputs = match inputs {
        Ok(inputs) => inputs,
        Err(error) => return complain(BAD_INPUT, &error.to_string()),
    };
    let mut progress = output::Progress::new(!args.no_progress && io::stderr().is_terminal());
    let result = migrate::run(&config, inputs, &mut progress);
    progress.finish();
    let report = match result {
        Ok(report) => report,
        Err(error) => return complain(FAILED, &error.to_string()),
    };
    match print(args, &report) {
        Ok(()) => ExitCode::from(report.verdict.exit_status()),
        Err(error) => complain(FAILED, &format!("report: {error}")),
    }
}

fn print(args: &MigrateArgs, report: &Report) -> io::Result<()> {
    let json = || serde_json::to_string_pretty(report).map(|text| text + "\n").map_err(io::Error::from);
    match args.json.as_deref() {
        Some(path) if path == Path::new("-") => io::stdout().write_all(json()?.as_bytes()),
        path => {
            if let Some(path) = path {
                fs::write(path, json()?)?;
            }
            output::tables(report, &mut anstream::stdout())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::one_line;

    #[test]
    fn messages_become_one_line() {
        let table = [
            ("error: bad\n\nUsage: x\n", "bad"),
            (
                "error: invalid value 'x'\n  [possible values: a, b]\n\nFor more",
                "invalid value 'x' [possible values: a, b]",
            ),
            ("plain", "plain"),
            ("", ""),
        ];
        for (message, line) in table {
            assert_eq!(one_line(message), line);
        }
    }
}

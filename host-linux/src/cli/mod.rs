// SPDX-License-Identifier: MIT OR Apache-2.0
//! The program `nvme-lm`: command line in, tables or JSON out.

mod action;
mod args;
mod between;
mod bind;
pub mod commands;
pub mod connect;
mod heat;
mod load;
mod meter;
mod output;
mod picture;
mod quirks;
mod standing;
mod stdout;
pub(crate) mod values;

use std::ffi::OsString;
use std::fs;
use std::io::{self, IsTerminal};
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use clap::FromArgMatches;
use clap::error::ErrorKind;
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::flag;

use action::{Action, CommandError, Output};
pub use args::{Cli, Color, Command, MigrateArgs, program};
pub use bind::BindArgs;
use commands::{CdqCommand, FeaturesCommand, Log, StateCommand, TrackCommand};
use connect::ConnectArgs;

use crate::config::{Between, MigrateConfig, Namespaces};
use crate::faults::BadFault;
use crate::images::Inputs;
use crate::migrate::{self, RunError};
use crate::report::{Report, Verdict};

/// Exit status for bad input.
const BAD_INPUT: u8 = 2;
/// Exit status for a run that failed.
const FAILED: u8 = 1;
/// Exit status for what the controller does not support.
const UNSUPPORTED: u8 = 3;

/// Runs the program with `arguments`, the first of which is its name.
pub fn main(arguments: impl IntoIterator<Item = OsString>) -> ExitCode {
    let parsed = program().try_get_matches_from(arguments).and_then(|found| Cli::from_arg_matches(&found));
    let cli = match parsed {
        Ok(cli) => cli,
        Err(error) => return usage(&error),
    };
    let command = match as_action(cli.command) {
        Ok((action, connect)) => return action::run(action, &connect),
        Err(command) => *command,
    };
    match command {
        Command::Reset(args) => commands::run_reset(&args),
        Command::Script(args) => commands::run_script(&args),
        Command::Migrate(args) => run_migrate(&args),
        Command::Bind(args) => bind::run(&args, bind::Direction::Bind),
        Command::Unbind(args) => bind::run(&args, bind::Direction::Unbind),
        Command::Faults => action::finish(plain().text(|mut out| output::faults(&mut out))),
        Command::Completions { shell } => {
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut program(), "nvme-lm", &mut script);
            action::finish(plain().raw(&script))
        }
        Command::Man { folder } => action::finish(man(folder.as_deref())),
        other => complain(BAD_INPUT, &format!("{other:?} is no command by itself")),
    }
}

/// Standard output of what no signal is to be waited for.
fn plain() -> Output {
    Output::new(false, Arc::default())
}

/// Prints the manual page, or writes one for each command into a folder.
fn man(folder: Option<&Path>) -> Result<(), CommandError> {
    let wrong = |error| CommandError::File("manual page".into(), error);
    // What the short help leaves out has a text in a manual page.
    fn whole(command: clap::Command) -> clap::Command {
        command.mut_args(|arg| arg.hide_short_help(false)).mut_subcommands(whole)
    }
    match folder {
        Some(folder) if !folder.is_dir() => {
            Err(CommandError::Input(format!("manual pages: there is no directory {folder:?}; make it first")))
        }
        Some(folder) => clap_mangen::generate_to(whole(program()), folder).map_err(wrong),
        None => {
            let mut page = Vec::new();
            clap_mangen::Man::new(whole(program())).render(&mut page).map_err(wrong)?;
            plain().raw(&page)
        }
    }
}

/// A command on controllers, and how they are opened; any other command is given back.
fn as_action(command: Command) -> Result<(Box<dyn Action>, ConnectArgs), Box<Command>> {
    fn boxed(action: impl Action + 'static, connect: ConnectArgs) -> (Box<dyn Action>, ConnectArgs) {
        (Box::new(action), connect)
    }
    fn boxed_with<A: Action + 'static>(
        action: A,
        connect: impl Fn(&A) -> &ConnectArgs,
    ) -> (Box<dyn Action>, ConnectArgs) {
        let connect = connect(&action).clone();
        boxed(action, connect)
    }
    Ok(match command {
        Command::Identify(args) => boxed((*args).clone(), args.connect),
        Command::Namespaces(args) => boxed_with(*args, |args| &args.connect),
        Command::Log(args) => boxed_with(*args, |args| &args.connect),
        Command::Features(FeaturesCommand::Get(args)) => boxed_with(*args, |args| &args.connect),
        Command::Features(FeaturesCommand::Set(args)) => boxed_with(*args, |args| &args.connect),
        Command::Registers(args) => boxed_with(*args, |args| &args.connect),
        Command::Cdq(CdqCommand::Create(args)) => boxed((*args).clone(), args.tracked.connect),
        Command::Cdq(CdqCommand::Watch(args)) => boxed((*args).clone(), args.tracked.connect),
        Command::Cdq(CdqCommand::Delete(args)) => boxed((*args).clone(), args.connect),
        Command::Track(TrackCommand::Start(args)) => {
            boxed(Log { args: (*args).clone(), start: true }, args.tracked.connect)
        }
        Command::Track(TrackCommand::Stop(args)) => {
            boxed(Log { args: (*args).clone(), start: false }, args.tracked.connect)
        }
        Command::Track(TrackCommand::Memory(args)) => boxed((*args).clone(), args.tracked.connect),
        Command::Suspend(args) => boxed((*args).clone(), args.tracked.connect),
        Command::Resume(args) => boxed((*args).clone(), args.tracked.connect),
        Command::State(StateCommand::Get(args)) => boxed((*args).clone(), args.tracked.connect),
        Command::State(StateCommand::Set(args)) => boxed((*args).clone(), args.tracked.connect),
        Command::State(StateCommand::Show(args)) => boxed((*args).clone(), args.view.connect()),
        Command::State(StateCommand::Diff(args)) => boxed((*args).clone(), args.view.connect()),
        Command::Formats(args) => boxed((*args).clone(), args.connect),
        Command::Read(args) => boxed_with(*args, |args| &args.connect),
        Command::Write(args) => boxed_with(*args, |args| &args.connect),
        Command::Compare(args) => boxed_with(*args, |args| &args.connect),
        Command::Flush(args) => boxed_with(*args, |args| &args.connect),
        Command::Deallocate(args) => boxed_with(*args, |args| &args.connect),
        Command::WriteZeroes(args) => boxed_with(*args, |args| &args.connect),
        Command::Verify(args) => boxed_with(*args, |args| &args.connect),
        Command::Copy(args) => boxed_with(*args, |args| &args.connect),
        Command::List(args) => boxed_with(*args, |args| &args.connect),
        Command::Admin(args) => boxed_with(*args, |args| args.connect()),
        Command::Io(args) => boxed_with(*args, |args| args.connect()),
        Command::Bench(args) => boxed_with(*args, |args| &args.connect),
        other => return Err(Box::new(other)),
    })
}

/// One line on standard error.
fn complain(status: u8, what: &str) -> ExitCode {
    let error = anstyle::Style::new().bold().fg_color(Some(anstyle::AnsiColor::Red.into()));
    let what = without_numbers(what).replace(['\n', '\r'], " ");
    anstream::eprintln!("{error}error:{error:#} {what}");
    ExitCode::from(status)
}

/// One line on standard error about what is not wrong yet.
fn warn(what: &str) {
    let warning = anstyle::Style::new().bold().fg_color(Some(anstyle::AnsiColor::Yellow.into()));
    anstream::eprintln!("{warning}warning:{warning:#} {}", without_numbers(what).replace(['\n', '\r'], " "));
}

fn usage(error: &clap::Error) -> ExitCode {
    match error.kind() {
        ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => {
            let _ = error.print();
            ExitCode::SUCCESS
        }
        ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand => {
            complain(BAD_INPUT, "a subcommand is missing; 'nvme-lm --help' lists them")
        }
        _ => {
            let status = complain(BAD_INPUT, &one_line(&error.to_string()));
            let bad = std::error::Error::source(error).and_then(|source| source.downcast_ref::<BadFault>());
            if let Some(bad) = bad {
                anstream::eprintln!("{}", bad.marked());
            }
            status
        }
    }
}

/// The first paragraph of a message, as one line without its prefix, and what it suggests.
fn one_line(message: &str) -> String {
    let mut lines = message.lines().map(str::trim);
    let paragraph: Vec<&str> = lines.by_ref().take_while(|line| !line.is_empty()).collect();
    let line = paragraph.join(" ");
    let line = line.strip_prefix("error: ").unwrap_or(&line);
    match lines.find_map(|line| line.strip_prefix("tip: ")) {
        Some(tip) => format!("{line}; {tip}"),
        None => line.to_owned(),
    }
}

/// A message without the numbers that the operating system gives its errors.
pub(crate) fn without_numbers(message: &str) -> String {
    let mut parts = message.split(" (os error ");
    let first = parts.next().unwrap_or_default().to_string();
    parts.fold(first, |text, part| text + part.split_once(')').map_or(part, |(_, rest)| rest))
}

/// What a migration writes over that is not its own.
fn overwritten(config: &MigrateConfig, between: Option<&Between>) -> Option<String> {
    match (between, &config.namespaces) {
        (Some(between), _) => {
            let lost: Vec<String> = between.overwritten().iter().map(ToString::to_string).collect();
            let namespace = between.namespace.get();
            (!lost.is_empty())
                .then(|| format!("namespace {namespace} is overwritten at {}", lost.join(" and at ")))
        }
        (None, Namespaces::Images { source, destination }) => Some(format!(
            "the guest writes to {}, and the content of {} is replaced",
            source.display(),
            destination.display()
        )),
        (None, Namespaces::Memory { .. } | Namespaces::Controllers(_)) => None,
    }
}

fn run_migrate(args: &MigrateArgs) -> ExitCode {
    match args.color {
        Color::Auto => {}
        Color::Always => anstream::ColorChoice::Always.write_global(),
        Color::Never => anstream::ColorChoice::Never.write_global(),
    }
    let interrupted = match interrupts() {
        Ok(interrupted) => interrupted,
        Err(error) => return complain(FAILED, &format!("signals: {error}")),
    };
    let output = Output::new(false, Arc::clone(&interrupted));
    let config = args.config();
    let between = match args.between.between(config.io_queues) {
        Ok(between) => between,
        Err(error) => return complain(BAD_INPUT, &error),
    };
    let shown = !args.no_progress && io::stderr().is_terminal();
    if let Some(what) = overwritten(&config, between.as_ref())
        && let Err(error) = output.confirm(args.between.yes, &what)
    {
        return complain(error.exit_status(), &error.to_string());
    }
    let result = match between {
        Some(between) => {
            let mut progress = output::Progress::new(shown, interrupted);
            let result = migrate::run_between(&config, &between, &mut progress);
            progress.finish();
            result
        }
        None => {
            let inputs = match Inputs::open(&config, args.size()) {
                Ok(inputs) => inputs,
                Err(error) => return complain(BAD_INPUT, &error.to_string()),
            };
            let mut progress = output::Progress::new(shown, interrupted);
            let result = migrate::run(&config, inputs, &mut progress);
            progress.finish();
            result
        }
    };
    let report = match result {
        Ok(report) => report,
        Err(error) => {
            let status = match &error {
                RunError::Unsupported(..) | RunError::LosesChanges(_) => UNSUPPORTED,
                RunError::Input(_) => BAD_INPUT,
                RunError::Interrupted => Verdict::Interrupted.exit_status(),
                RunError::Open(error) if error.is_bad_request() => BAD_INPUT,
                _ => FAILED,
            };
            return complain(status, &error.to_string());
        }
    };
    match print(args, &report, &output) {
        Ok(()) => ExitCode::from(report.verdict.exit_status()),
        Err(error) => complain(FAILED, &error),
    }
}

/// Set by the first SIGINT or SIGTERM. The second one ends the program at once.
fn interrupts() -> io::Result<Arc<AtomicBool>> {
    let interrupted = Arc::<AtomicBool>::default();
    for signal in [SIGINT, SIGTERM] {
        // In this order: the first signal finds the flag unset, then sets it.
        let status = Verdict::Interrupted.exit_status().into();
        flag::register_conditional_shutdown(signal, status, Arc::clone(&interrupted))?;
        flag::register(signal, Arc::clone(&interrupted))?;
    }
    Ok(interrupted)
}

/// Writes the report; the error says where it could not be written.
fn print(args: &MigrateArgs, report: &Report, output: &Output) -> Result<(), String> {
    let json = serde_json::to_string_pretty(report).map_err(|error| format!("report: {error}"))? + "\n";
    let printed = match args.json.as_deref() {
        Some(path) if path == Path::new("-") => output.raw(json.as_bytes()),
        path => {
            if let Some(path) = path {
                fs::write(path, json).map_err(|error| format!("report {path:?}: {error}"))?;
            }
            output.text(|mut out| output::tables(report, &mut out))
        }
    };
    printed.map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::{one_line, without_numbers};

    #[test]
    fn numbers_of_the_operating_system_are_left_out() {
        let table = [
            ("a: No such file (os error 2)", "a: No such file"),
            ("a (os error 2); b (os error 28).", "a; b."),
            ("nothing", "nothing"),
        ];
        for (message, plain) in table {
            assert_eq!(without_numbers(message), plain);
        }
    }

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

// SPDX-License-Identifier: MIT OR Apache-2.0
//! `nvme-lm bind` and `nvme-lm unbind`.

use std::process::ExitCode;
use std::sync::Arc;

use clap::Args;
use serde::Serialize;

use super::action::Output;
use super::{BAD_INPUT, FAILED, complain, warn};
use crate::address::PciAddress;
use crate::vfio::bind::{BindError, Done, Plan, System};

pub(super) const BIND_HELP: &str = "\
A drive that is mounted, is swap space, is part of another device or is open in a process is refused, and so is a \
physical function with active virtual functions. If one of several functions is refused at first, none is changed; one that \
comes into use in between stays as it is.

Example: nvme-lm bind --dry-run 0000:01:00.0

Exit status:
  0  done, or nothing to do
  1  failed; a function that vfio-pci does not take goes back to its driver
  2  bad input, or refused; no function that was refused is changed";

pub(super) const UNBIND_HELP: &str = "\
A function that a program has open through VFIO is refused, and so is a physical function with active virtual \
functions. If one of several functions is refused at first, none is changed; one that \
comes into use in between stays as it is.

Example: nvme-lm unbind --dry-run 0000:01:00.0

Exit status:
  0  done, or nothing to do
  1  failed
  2  bad input, or refused; no function that was refused is changed";

/// Options of `nvme-lm bind` and `nvme-lm unbind`.
#[derive(Args, Debug)]
pub struct BindArgs {
    /// PCI functions, as lspci -D shows them; domain 0000 may be left out.
    #[arg(required = true, value_name = "BDF", value_parser = function)]
    functions: Vec<PciAddress>,
    /// Print what would be written, as lines of shell, and change nothing.
    #[arg(long)]
    dry_run: bool,
    /// Print what was done as JSON.
    #[arg(long)]
    json: bool,
}

/// Which of the two commands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Direction {
    Bind,
    Unbind,
}

/// `DDDD:BB:DD.F` or `BB:DD.F`, also after `vfio:`.
fn function(text: &str) -> Result<PciAddress, String> {
    let plain = text.strip_prefix("vfio:").unwrap_or(text);
    let long = if plain.matches(':').count() == 1 { format!("0000:{plain}") } else { plain.to_owned() };
    long.parse().map_err(|_| "it is no PCI function; write DDDD:BB:DD.F, as lspci -D shows it".to_owned())
}

/// What came of one function.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
enum Outcome {
    /// It has another driver now.
    Done,
    /// It had the driver already.
    NothingToDo,
    /// It would have got another driver.
    DryRun,
    /// It was left alone because another function was refused.
    NotTried,
    /// It was refused, and is as it was.
    Refused,
    /// Something failed.
    Failed,
}

#[derive(Debug, Serialize)]
struct Row {
    function: String,
    outcome: Outcome,
    /// The driver before.
    before: Option<String>,
    /// The driver now.
    driver: Option<String>,
    group: Option<u32>,
    /// Lines of shell that do what was done, or would be done.
    commands: Vec<String>,
    warnings: Vec<String>,
    error: Option<String>,
}

impl Row {
    fn planned(plan: &Plan, outcome: Outcome) -> Self {
        let driver = plan.from().map(str::to_owned);
        Self {
            function: plan.function().to_string(),
            outcome,
            before: driver.clone(),
            driver,
            group: plan.group(),
            commands: plan.steps().map(ToString::to_string).collect(),
            warnings: plan.warnings().to_vec(),
            error: None,
        }
    }

    fn done(plan: &Plan, done: Done) -> Self {
        let Done { function: _, before, driver, group, warnings } = done;
        Self { before, driver, group, warnings, ..Self::planned(plan, Outcome::Done) }
    }

    fn wrong(function: PciAddress, error: &BindError) -> Self {
        Self {
            function: function.to_string(),
            outcome: if error.is_refusal() { Outcome::Refused } else { Outcome::Failed },
            before: None,
            driver: None,
            group: None,
            commands: Vec::new(),
            warnings: Vec::new(),
            error: Some(error.to_string()),
        }
    }

    fn line(&self) -> Option<String> {
        let driver = |driver: &Option<String>| driver.clone().unwrap_or_else(|| "no driver".to_owned());
        match self.outcome {
            Outcome::Done => {
                let group = self.group.map_or(String::new(), |group| format!("  IOMMU group {group}"));
                Some(format!(
                    "{}  {} -> {}{group}",
                    self.function,
                    driver(&self.before),
                    driver(&self.driver)
                ))
            }
            Outcome::NothingToDo => {
                Some(format!("{}  {}  nothing to do", self.function, driver(&self.driver)))
            }
            Outcome::NotTried => Some(format!("{}  {}  not tried", self.function, driver(&self.driver))),
            Outcome::DryRun => Some(self.commands.join("\n")),
            Outcome::Refused | Outcome::Failed => None,
        }
    }
}

/// Gives functions to vfio-pci, or back.
pub(super) fn run(args: &BindArgs, direction: Direction) -> ExitCode {
    let rows = carry_out(&System::default(), args, direction);
    let printed = Output::new(args.json, Arc::default())
        .emit(&rows, |out| rows.iter().filter_map(Row::line).try_for_each(|line| writeln!(out, "{line}")));
    for row in &rows {
        for warning in &row.warnings {
            warn(&format!("{}: {warning}", row.function));
        }
        if let Some(error) = &row.error {
            complain(FAILED, error);
        }
    }
    match printed {
        Ok(()) => ExitCode::from(status(&rows)),
        Err(error) => complain(error.exit_status(), &error.to_string()),
    }
}

fn status(rows: &[Row]) -> u8 {
    let has = |outcome| rows.iter().any(|row| row.outcome == outcome);
    if has(Outcome::Failed) {
        FAILED
    } else if has(Outcome::Refused) {
        BAD_INPUT
    } else {
        0
    }
}

fn carry_out(system: &System, args: &BindArgs, direction: Direction) -> Vec<Row> {
    let mut functions = Vec::new();
    for function in &args.functions {
        if !functions.contains(function) {
            functions.push(*function);
        }
    }
    let plan = |function| match direction {
        Direction::Bind => Plan::bind(system, function),
        Direction::Unbind => Plan::unbind(system, function),
    };
    let plans: Vec<_> = functions.into_iter().map(|function| (function, plan(function))).collect();
    let refused = plans.iter().any(|(_, plan)| plan.is_err());
    let together: Vec<PciAddress> = plans.iter().map(|(function, _)| *function).collect();
    let rows: Vec<(Row, Option<&Plan>)> = plans
        .iter()
        .map(|(function, plan)| match plan {
            Err(error) => (Row::wrong(*function, error), None),
            Ok(plan) if plan.steps().next().is_none() => {
                (Row::planned(plan, Outcome::NothingToDo), Some(plan))
            }
            Ok(plan) if refused => (Row::planned(plan, Outcome::NotTried), None),
            Ok(plan) if args.dry_run => (Row::planned(plan, Outcome::DryRun), Some(plan)),
            Ok(plan) => match plan.carry_out(system) {
                Ok(done) => (Row::done(plan, done), Some(plan)),
                Err(error) => (Row::wrong(*function, &error), None),
            },
        })
        .collect();
    let mut all = Vec::new();
    for (mut row, plan) in rows {
        // Once all of them have their drivers: neighbours may have been bound together.
        let plan = plan.filter(|_| direction == Direction::Bind);
        let besides = if row.outcome == Outcome::DryRun { together.as_slice() } else { &[] };
        match plan.map(|plan| plan.in_the_way(system, besides)) {
            None | Some(Ok(None)) => {}
            Some(Ok(Some(warning))) => row.warnings.push(warning),
            Some(Err(error)) => row.warnings.push(error.to_string()),
        }
        all.push(row);
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::vfio::bind::tests::Machine;

    const HERE: &str = "0000:01:00.0";
    const NOWHERE: &str = "0000:02:00.0";

    #[test]
    fn functions_are_written_in_several_ways() {
        let table = [
            ("0000:01:00.0", Some("0000:01:00.0")),
            ("01:00.0", Some("0000:01:00.0")),
            ("vfio:0001:01:1f.7", Some("0001:01:1f.7")),
            ("1:0.0", None),
            ("01:00.8", None),
            ("nvme0", None),
            ("", None),
            (":::", None),
        ];
        for (text, expected) in table {
            assert_eq!(function(text).ok().map(|found| found.to_string()).as_deref(), expected, "{text}");
        }
    }

    #[test]
    fn outcomes_and_statuses() {
        use Outcome::{Done, DryRun, NotTried, NothingToDo, Refused};
        type Row = (
            &'static str,
            Option<&'static str>,
            bool,
            Direction,
            &'static [&'static str],
            &'static [Outcome],
            u8,
        );
        let rows: [Row; 8] = [
            ("bound", Some("nvme"), false, Direction::Bind, &[HERE], &[Done], 0),
            ("named twice", Some("nvme"), false, Direction::Bind, &[HERE, HERE], &[Done], 0),
            ("a dry run", Some("nvme"), true, Direction::Bind, &[HERE], &[DryRun], 0),
            ("bound already", Some("vfio-pci"), false, Direction::Bind, &[HERE], &[NothingToDo], 0),
            ("given back", Some("vfio-pci"), false, Direction::Unbind, &[HERE], &[Done], 0),
            ("given back already", Some("nvme"), false, Direction::Unbind, &[HERE], &[NothingToDo], 0),
            (
                "one that is not there",
                Some("nvme"),
                false,
                Direction::Bind,
                &[HERE, NOWHERE],
                &[NotTried, Refused],
                2,
            ),
            (
                "a dry run of it",
                Some("nvme"),
                true,
                Direction::Bind,
                &[NOWHERE, HERE],
                &[Refused, NotTried],
                2,
            ),
        ];
        for (name, driver, dry_run, direction, functions, expected, exit) in rows {
            let machine = Machine::new(driver);
            let functions = functions.iter().map(|text| function(text).expect(name)).collect();
            let args = BindArgs { functions, dry_run, json: false };
            let rows = carry_out(&machine.system(), &args, direction);
            assert_eq!(rows.iter().map(|row| row.outcome).collect::<Vec<_>>(), expected, "{name}");
            assert_eq!(status(&rows), exit, "{name}");
            let after = match (expected.contains(&Done), direction) {
                (true, Direction::Bind) => Some("vfio-pci"),
                (true, Direction::Unbind) => Some("nvme"),
                (false, _) => driver,
            };
            assert_eq!(machine.driver().as_deref(), after, "{name}");
            assert!(rows.iter().all(|row| row.line().is_none() == row.error.is_some()), "{name}");
        }
    }

    #[test]
    fn a_failure_is_told_from_a_refusal() {
        let mut machine = Machine::new(Some("nvme"));
        machine.behaviour.refuses = vec!["vfio-pci"];
        let args =
            BindArgs { functions: vec![function(HERE).expect("a function")], dry_run: false, json: true };
        let rows = carry_out(&machine.system(), &args, Direction::Bind);
        assert_eq!((rows[0].outcome, status(&rows)), (Outcome::Failed, 1));
        let json = serde_json::to_value(&rows).expect("JSON");
        assert_eq!(json[0]["outcome"], "failed");
        assert!(json[0]["error"].as_str().is_some_and(|error| error.contains(HERE)), "{json}");
    }

    #[test]
    fn what_was_done_is_one_line() {
        let machine = Machine::new(Some("nvme"));
        let args =
            BindArgs { functions: vec![function(HERE).expect("a function")], dry_run: false, json: false };
        let rows = carry_out(&machine.system(), &args, Direction::Bind);
        assert_eq!(rows[0].line().as_deref(), Some("0000:01:00.0  nvme -> vfio-pci  IOMMU group 7"));
        let rows = carry_out(&machine.system(), &args, Direction::Bind);
        assert_eq!(rows[0].line().as_deref(), Some("0000:01:00.0  vfio-pci  nothing to do"));
    }
}

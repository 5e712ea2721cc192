// SPDX-License-Identifier: MIT OR Apache-2.0
//! `nvme-lm state show` and `state diff`: states in files, for which no controller is needed.

use std::path::{Path, PathBuf};

use clap::{Args, ValueEnum};
use nvme_core::wire::controller_state::StateDialect;

use super::state::read_file;
use crate::cli::action::{Action, CommandError, Output, Sessions, Target};
use crate::cli::connect::ConnectArgs;
use crate::describe::{self, Structure, Style};

const SHOW_HELP: &str = "Example: nvme-lm state show controller.state";
const DIFF_HELP: &str = "Example: nvme-lm state diff controller.state controller.state";

/// What the bit S0PT of completion queues means.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum Dialect {
    /// The phase tag in slot 0, as the specification has it.
    #[default]
    Slot0,
    /// The phase tag of the next entry, as one emulation has it.
    Next,
}

impl Dialect {
    const fn dialect(self) -> StateDialect {
        match self {
            Self::Slot0 => StateDialect::Specification,
            Self::Next => StateDialect::NextPostPhase,
        }
    }
}

/// How states are shown.
#[derive(Args, Clone, Copy, Debug)]
pub(crate) struct ViewArgs {
    /// Phase tag that S0PT is: that of slot 0 (slot0), or as one emulation has it that of the next entry (next).
    #[arg(long, value_name = "TAG", default_value = "slot0", hide_possible_values = true)]
    s0pt: Dialect,
    /// Show fields that are zero and reserved, too.
    #[arg(long)]
    all: bool,
    /// Print JSON for machines.
    #[arg(long)]
    json: bool,
}

impl ViewArgs {
    pub(crate) fn connect(self) -> ConnectArgs {
        ConnectArgs { json: self.json, ..ConnectArgs::default() }
    }

    fn style(self) -> Style {
        let width = terminal_size::terminal_size().map_or(Style::default().width, |(width, _)| width.0);
        Style { all: self.all, width }
    }

    fn read(self, path: &Path) -> Result<Structure, CommandError> {
        Ok(describe::controller_state(&read_file(path)?, self.s0pt.dialect()))
    }
}

/// Options of `nvme-lm state show`.
#[derive(Args, Clone, Debug)]
#[command(after_help = SHOW_HELP)]
pub struct ShowArgs {
    /// The state; - is standard input.
    #[arg(value_name = "FILE")]
    file: PathBuf,
    #[command(flatten)]
    pub(crate) view: ViewArgs,
}

impl Action for ShowArgs {
    fn targets(&self) -> Vec<Target> {
        Vec::new()
    }

    fn run(&self, _sessions: &mut Sessions<'_>, output: &Output) -> Result<(), CommandError> {
        let state = self.view.read(&self.file)?;
        output.emit(&state, |out| describe::render(&state, out, self.view.style()))?;
        match state.problems.as_slice() {
            [] => Ok(()),
            [first, ..] => Err(CommandError::Failed(format!("{}: {first}", self.file.display()))),
        }
    }
}

/// Options of `nvme-lm state diff`.
#[derive(Args, Clone, Debug)]
#[command(after_help = DIFF_HELP)]
pub struct DiffArgs {
    /// One state.
    #[arg(value_name = "LEFT")]
    left: PathBuf,
    /// The other.
    #[arg(value_name = "RIGHT")]
    right: PathBuf,
    /// End with status 1 if they differ.
    #[arg(long)]
    exit_code: bool,
    #[command(flatten)]
    pub(crate) view: ViewArgs,
}

impl Action for DiffArgs {
    fn targets(&self) -> Vec<Target> {
        Vec::new()
    }

    fn run(&self, _sessions: &mut Sessions<'_>, output: &Output) -> Result<(), CommandError> {
        let (left, right) = (self.view.read(&self.left)?, self.view.read(&self.right)?);
        let differences = describe::diff(&left, &right);
        output.emit(&differences, |out| match differences.is_empty() {
            true => writeln!(out, "both states are the same"),
            false => describe::render_differences(&differences, out, self.view.style()),
        })?;
        // What could not be decoded may differ, too.
        for (path, state) in [(&self.left, &left), (&self.right, &right)] {
            if let [first, ..] = state.problems.as_slice() {
                return Err(CommandError::Failed(format!("{}: {first}", path.display())));
            }
        }
        match differences.len() {
            count if count > 0 && self.exit_code => {
                Err(CommandError::Failed(format!("the states differ in {count} places")))
            }
            _ => Ok(()),
        }
    }
}

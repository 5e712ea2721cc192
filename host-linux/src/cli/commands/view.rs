// SPDX-License-Identifier: MIT OR Apache-2.0
//! How decoded structures are shown.

use clap::Args;

use crate::cli::action::{CommandError, Output};
use crate::describe::{Structure, Style, render};
use crate::session::Session;

/// What of a structure is printed.
#[derive(Args, Clone, Copy, Debug)]
pub(crate) struct ViewArgs {
    /// Print the bytes as they came.
    #[arg(long, conflicts_with_all = ["json", "all"], help_heading = "Output")]
    raw: bool,
    /// Show fields that are zero and reserved, too.
    #[arg(long, help_heading = "Output")]
    all: bool,
}

/// As wide as the terminal, or as people read well.
pub(crate) fn style(all: bool) -> Style {
    let width = terminal_size::terminal_size().map_or(Style::default().width, |(width, _)| width.0);
    Style { all, width }
}

impl ViewArgs {
    /// Prints bytes that came from a controller, decoded or as they are. What is wrong with them is printed, too, and is an
    /// error.
    pub(crate) fn show(
        self,
        output: &Output,
        bytes: &[u8],
        decode: impl FnOnce(&[u8]) -> Structure,
    ) -> Result<(), CommandError> {
        if self.raw {
            return output.raw(bytes);
        }
        let structure = decode(bytes);
        output.emit(&structure, |out| render(&structure, out, style(self.all)))?;
        match structure.problems.first() {
            None => Ok(()),
            Some(problem) => {
                Err(CommandError::Failed(format!("what the controller returned is wrong: {problem}")))
            }
        }
    }
}

/// What is known beside the bytes.
pub(crate) fn context(session: &Session<'_>) -> crate::describe::Context {
    crate::describe::Context { page_bytes: Some(session.min_page_size()) }
}

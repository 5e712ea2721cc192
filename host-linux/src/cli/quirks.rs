// SPDX-License-Identifier: MIT OR Apache-2.0
//! `--quirks list`: every quirk, and those of a controller.

use std::io::{self, Write};

use nvme_core::migration::{KnownQuirk, Quirks};
use serde::Serialize;

use super::action::{CommandError, Output};
use crate::quirks::recognise;
use crate::session::Session;

#[derive(Serialize)]
struct Row {
    name: &'static str,
    /// The controller counts as having it.
    active: bool,
    deviation: &'static str,
    without: &'static str,
    with: &'static str,
}

#[derive(Serialize)]
struct Table {
    address: String,
    /// The model that was recognised.
    model: Option<&'static str>,
    quirks: Vec<Row>,
}

/// Why `--quirks list` is refused where a command identifies no controller.
pub(crate) const NOTHING_TO_LIST: &str = "--quirks list only shows what a controller has: give it to a command that identifies one, such as nvme-lm identify ADDRESS";

/// The same as an error: nothing was changed.
pub(crate) fn nothing_to_list() -> CommandError {
    CommandError::Input(NOTHING_TO_LIST.into())
}

/// Shows the quirks of one controller.
pub(crate) fn show(session: &Session<'_>, output: &Output) -> Result<(), CommandError> {
    let active = session.quirks();
    let row = |known: &KnownQuirk| {
        let KnownQuirk { name, quirk, deviation, without, with } = *known;
        Row { name, active: active.contains(quirk), deviation, without, with }
    };
    let table = Table {
        address: session.device().address().to_string(),
        model: recognise(session.identity()).map(|model| model.name),
        quirks: Quirks::TABLE.iter().map(row).collect(),
    };
    output.emit(&table, |out| write_table(&table, session, out))
}

fn write_table(table: &Table, session: &Session<'_>, out: &mut dyn Write) -> io::Result<()> {
    let identity = session.identity();
    writeln!(
        out,
        "{}: vendor {:#06x}, model \"{}\", firmware \"{}\"",
        table.address, identity.vendor, identity.model_number, identity.firmware_revision
    )?;
    writeln!(out, "recognised as: {}\n", table.model.unwrap_or("no model with quirks"))?;
    for Row { name, active, deviation, without, with } in &table.quirks {
        writeln!(out, "{} {name}", if *active { "[x]" } else { "[ ]" })?;
        writeln!(out, "      the controller: {deviation}")?;
        writeln!(out, "      without: {without}")?;
        let with = if with.is_empty() { "the same" } else { with };
        writeln!(out, "      with: {with}")?;
    }
    Ok(())
}

// SPDX-License-Identifier: MIT OR Apache-2.0
//! Structures in aligned columns: name, value, what it is and means.

use std::io::{self, Write};

use comfy_table::{CellAlignment, ColumnConstraint, ContentArrangement, Table, presets};

use super::{Field, List, Structure, Value};

/// Bytes in a line of a dump.
const LINE: usize = 32;
/// Values longer than this stand behind their title instead of in a column.
const LONG: usize = 36;

/// Structures of at most this many fields are shown with those that are zero.
const SHORT: usize = 16;

/// How a structure is printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Style {
    /// Show every field. Otherwise what is reserved and zero is left out, and from long structures also fields that are
    /// zero and mean nothing by it.
    pub all: bool,
    /// Columns of the terminal.
    pub width: u16,
}

impl Default for Style {
    fn default() -> Self {
        Self { all: false, width: 110 }
    }
}

impl Field {
    /// Whether there is nothing to know: reserved and zero.
    pub(super) fn is_idle(&self) -> bool {
        self.reserved && self.value.is_zero()
    }

    fn is_shown(&self, style: Style) -> bool {
        style.all
            || !self.value.is_zero()
            || !self.meaning.is_empty()
            || self.bits.iter().any(|bit| bit.is_shown(style))
    }
}

impl List {
    /// The parts worth showing: all, or those in use.
    pub(super) fn used(&self) -> impl Iterator<Item = &Structure> {
        self.items.iter().filter(|item| !self.sparse || !item.is_zero())
    }
}

/// Prints a structure: its fields, then its lists, then what is wrong with it. Headings are styled by escape sequences,
/// which the streams of `anstream` remove where they are not wanted; text of the data holds none.
///
/// # Errors
/// Those of `out`.
pub fn render(structure: &Structure, out: &mut dyn Write, style: Style) -> io::Result<()> {
    let heading = anstyle::Style::new().bold();
    let colon = if structure.meaning.is_empty() { "" } else { ": " };
    writeln!(out, "{heading}{}{heading:#}{colon}{}", structure.title, structure.meaning)?;
    fields(&structure.fields, out, style)?;
    for list in &structure.lists {
        parts(list, out, style)?;
    }
    for problem in &structure.problems {
        let warning = anstyle::AnsiColor::Yellow.on_default();
        writeln!(out, "{warning}problem{warning:#}: {problem}")?;
    }
    Ok(())
}

fn fields(fields: &[Field], out: &mut dyn Write, style: Style) -> io::Result<()> {
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_content_arrangement(ContentArrangement::Dynamic);
    table.set_width(style.width);
    let short = is_short(fields);
    for field in fields.iter().filter(|field| field.is_shown(style) || (short && !field.reserved)) {
        add(&mut table, field, "");
        for bit in field.bits.iter().filter(|bit| bit.is_shown(style)) {
            add(&mut table, bit, "  ");
        }
    }
    if table.is_empty() {
        return Ok(());
    }
    for index in 0..2 {
        if let Some(column) = table.column_mut(index) {
            column.set_constraint(ColumnConstraint::ContentWidth);
        }
    }
    print(&mut table, out)
}

fn is_short(fields: &[Field]) -> bool {
    fields.iter().filter(|field| !field.reserved).count() <= SHORT
}

fn add(table: &mut Table, field: &Field, indent: &str) {
    let name = format!("{indent}{}", field.name);
    let value = field.value.to_string();
    let long = value.len() > LONG;
    let mut text = field.title.to_string();
    if !field.meaning.is_empty() {
        text = format!("{text}: {}", field.meaning);
    }
    match (&field.value, long) {
        (_, false) => table.add_row([name, value, text]),
        (Value::Bytes(bytes), true) => {
            table.add_row([name, String::new(), format!("{text}\n{}", dump(bytes))])
        }
        (_, true) => table.add_row([name, String::new(), format!("{text}: {value}")]),
    };
}

/// Lines of hexadecimal digits, each with the offset of its first byte. Lines that are all zero are joined.
fn dump(bytes: &[u8]) -> String {
    let mut lines: Vec<String> = Vec::new();
    let mut zeroes = 0;
    for (index, line) in bytes.chunks(LINE).enumerate() {
        let at = index * LINE;
        if line.iter().all(|byte| *byte == 0) {
            if zeroes > 0 {
                lines.pop();
            }
            zeroes += line.len();
            lines.push(format!("{:04x}: {zeroes} zero bytes", at + line.len() - zeroes));
        } else {
            zeroes = 0;
            lines.push(format!("{at:04x}: {}", Value::Bytes(line.to_vec())));
        }
    }
    lines.join("\n")
}

/// Prints the parts of a list: one line for each if they are alike and fit, else one after the other.
fn parts(list: &List, out: &mut dyn Write, style: Style) -> io::Result<()> {
    let items: Vec<&Structure> =
        list.items.iter().filter(|item| style.all || !list.sparse || !item.is_zero()).collect();
    if items.is_empty() {
        return Ok(());
    }
    let heading = anstyle::Style::new().bold();
    writeln!(out, "\n{heading}{}{heading:#}", list.title)?;
    // Columns of zeroes are dropped from what is long or sparse anyway, and from all else if it does not fit with them.
    let whole = lines(&items, style, !list.sparse);
    if let Some(mut table) = whole.or_else(|| lines(&items, style, false)) {
        return print(&mut table, out);
    }
    for item in items {
        let colon = if item.meaning.is_empty() { "" } else { ": " };
        writeln!(out, "{heading}{}{heading:#}{colon}{}", item.name, item.meaning)?;
        fields(&item.fields, out, style)?;
        for list in &item.lists {
            parts(list, out, style)?;
        }
    }
    Ok(())
}

/// The parts as lines of one table, if their fields agree and the table is not too wide. Columns that are zero in all
/// of them are left out unless `zeroes`, those that are reserved too in any case.
fn lines(items: &[&Structure], style: Style, zeroes: bool) -> Option<Table> {
    let first = items.first()?;
    let alike = |item: &&Structure| {
        item.lists.is_empty()
            && item.problems.is_empty()
            && item.fields.len() == first.fields.len()
            && item.fields.iter().zip(&first.fields).all(|(field, other)| field.name == other.name)
    };
    if !items.iter().all(alike) {
        return None;
    }
    let shown: Vec<usize> = (0..first.fields.len())
        .filter(|column| {
            let reserved = first.fields[*column].reserved;
            style.all
                || (zeroes && !reserved)
                || items.iter().any(|item| !item.fields[*column].value.is_zero())
        })
        .collect();
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_content_arrangement(ContentArrangement::Disabled);
    let names = shown.iter().map(|column| first.fields[*column].name.to_string());
    table.set_header(std::iter::once(String::new()).chain(names).chain([String::new()]));
    for item in items {
        let values = shown.iter().map(|column| item.fields[*column].value.to_string());
        table.add_row(std::iter::once(item.name.to_string()).chain(values).chain([item.meaning.clone()]));
    }
    let last = shown.len() + 1;
    for (index, column) in table.column_iter_mut().enumerate() {
        if index > 0 && index < last {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    let widths = table.column_max_content_widths();
    let width: usize = widths.iter().map(|width| usize::from(*width) + 2).sum();
    (width <= usize::from(style.width)).then_some(table)
}

fn print(table: &mut Table, out: &mut dyn Write) -> io::Result<()> {
    for line in table.lines() {
        writeln!(out, "{}", line.trim_end())?;
    }
    Ok(())
}

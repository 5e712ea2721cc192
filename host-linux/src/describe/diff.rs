// SPDX-License-Identifier: MIT OR Apache-2.0
//! What differs between two structures.

use std::io::{self, Write};

use comfy_table::{ColumnConstraint, ContentArrangement, Table, presets};
use serde::Serialize;

use super::render::Style;
use super::{Field, List, Structure, Value};

/// Bytes in a line of long data.
const LINE: usize = 8;

/// One field that differs, or a part that only one side has.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Difference {
    /// Names from the outermost structure to the field, such as `IOSQ1.IOSQTP`.
    pub path: String,
    /// The field or part spelled out.
    pub title: String,
    /// Value on the left side; `None` if the field or part is not there.
    pub left: Option<Value>,
    /// Value on the right side; `None` if the field or part is not there.
    pub right: Option<Value>,
    /// What the left value means.
    pub left_meaning: String,
    /// What the right value means.
    pub right_meaning: String,
}

/// The fields in which `left` and `right` differ, in their order. Empty if all their bytes are equal.
///
/// Parts of a list are compared one by one in order if both sides have as many; otherwise those of equal name are
/// compared, and parts with no partner are named as a whole.
#[must_use]
pub fn diff(left: &Structure, right: &Structure) -> Vec<Difference> {
    let mut differences = Vec::new();
    compare("", left, right, &mut differences);
    differences
}

fn compare(path: &str, left: &Structure, right: &Structure, to: &mut Vec<Difference>) {
    let pairs = pair(&left.fields, &right.fields, |field| field.name.as_ref());
    for (left, right) in pairs {
        let Some(either) = left.or(right) else { continue };
        if left.map(|field| &field.value) == right.map(|field| &field.value) {
            continue;
        }
        to.push(Difference {
            path: join(path, &either.name),
            title: either.title.to_string(),
            left: left.map(|field| field.value.clone()),
            right: right.map(|field| field.value.clone()),
            left_meaning: left.map_or_else(String::new, Field::summary),
            right_meaning: right.map_or_else(String::new, Field::summary),
        });
    }
    for (left, right) in pair(&left.lists, &right.lists, |list| list.name) {
        compare_items(path, items(left), items(right), to);
    }
}

fn items(list: Option<&List>) -> &[Structure] {
    list.map_or(&[], |list| &list.items)
}

fn compare_items(path: &str, left: &[Structure], right: &[Structure], to: &mut Vec<Difference>) {
    if left.len() == right.len() {
        for (left, right) in left.iter().zip(right) {
            compare(&join(path, &left.name), left, right, to);
        }
        return;
    }
    for (left, right) in pair(left, right, |item| item.name.as_ref()) {
        let (Some(left), Some(right)) = (left, right) else {
            let Some(only) = left.or(right) else { continue };
            let there = |side: Option<&Structure>| side.map(|_| Value::Text("present".into()));
            let meaning =
                |side: Option<&Structure>| side.map_or_else(String::new, |item| item.meaning.clone());
            to.push(Difference {
                path: join(path, &only.name),
                title: only.title.to_string(),
                left: there(left),
                right: there(right),
                left_meaning: meaning(left),
                right_meaning: meaning(right),
            });
            continue;
        };
        compare(&join(path, &left.name), left, right, to);
    }
}

fn join(path: &str, name: &str) -> String {
    if path.is_empty() { name.into() } else { format!("{path}.{name}") }
}

/// Puts equal names together: the n-th of a name on one side with the n-th on the other. Those of the left side keep
/// their order, those that only the right side has follow.
fn pair<'a, T>(
    left: &'a [T],
    right: &'a [T],
    name: impl Fn(&T) -> &str,
) -> Vec<(Option<&'a T>, Option<&'a T>)> {
    use std::collections::{HashMap, VecDeque};
    let mut places: HashMap<&str, VecDeque<usize>> = HashMap::new();
    for (index, item) in right.iter().enumerate() {
        places.entry(name(item)).or_default().push_back(index);
    }
    let mut taken = vec![false; right.len()];
    let mut pairs: Vec<_> = left
        .iter()
        .map(|item| {
            let partner = places.get_mut(name(item)).and_then(VecDeque::pop_front);
            if let Some(index) = partner {
                taken[index] = true;
            }
            (Some(item), partner.map(|index| &right[index]))
        })
        .collect();
    pairs.extend(right.iter().zip(taken).filter(|(_, taken)| !taken).map(|(item, _)| (None, Some(item))));
    pairs
}

/// Lines of long data that are shown, where its sides differ.
const MOST_LINES: usize = 8;

/// Where the lines begin in which the sides differ, or which only one of them has.
fn differing_lines(left: &[u8], right: &[u8]) -> Vec<usize> {
    let lines = (0..left.len().max(right.len())).step_by(LINE);
    let part = |bytes: &'_ [u8], at: usize| bytes.iter().skip(at).take(LINE).copied().collect::<Vec<u8>>();
    lines.filter(|at| part(left, *at) != part(right, *at)).collect()
}

/// How many bytes there are, and those of the lines named.
fn excerpt(bytes: &[u8], lines: &[usize]) -> String {
    let mut text = format!("{} bytes", bytes.len());
    for start in lines {
        let part = bytes.get(*start..).unwrap_or_default();
        let hex: Vec<String> = part.iter().take(LINE).map(|byte| format!("{byte:02x}")).collect();
        let hex: Vec<String> = hex.chunks(4).map(<[String]>::concat).collect();
        text.push_str(&format!("\n{start:04x}: {}", hex.join(" ")));
    }
    text
}

/// Prints differences in columns, or that there are none. Of long data the first lines that differ are shown, and how many
/// more there are.
///
/// # Errors
/// Those of `out`.
pub fn render_differences(differences: &[Difference], out: &mut dyn Write, style: Style) -> io::Result<()> {
    if differences.is_empty() {
        return writeln!(out, "no difference");
    }
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_content_arrangement(ContentArrangement::Dynamic);
    table.set_width(style.width);
    table.set_header(["field", "left", "right", ""]);
    let side = |value: &Option<Value>, meaning: &str| match value {
        None => "absent".to_string(),
        Some(value) if meaning.is_empty() => value.to_string(),
        Some(value) => format!("{value}\n{meaning}"),
    };
    for entry in differences {
        let (left, right, title) = match (&entry.left, &entry.right) {
            (Some(Value::Bytes(left)), Some(Value::Bytes(right))) if left.len().max(right.len()) > LINE => {
                let differing = differing_lines(left, right);
                let shown = &differing[..differing.len().min(MOST_LINES)];
                let more = match differing.len() - shown.len() {
                    0 => String::new(),
                    more => format!("; {more} more lines of {LINE} bytes differ"),
                };
                let first = left.iter().zip(right).position(|(left, right)| left != right);
                let first = first.unwrap_or(left.len().min(right.len()));
                let title = format!("{}: differs first at {first:#x}{more}", entry.title);
                (excerpt(left, shown), excerpt(right, shown), title)
            }
            (left, right) => {
                (side(left, &entry.left_meaning), side(right, &entry.right_meaning), entry.title.clone())
            }
        };
        table.add_row([entry.path.clone(), left, right, title]);
    }
    if let Some(column) = table.column_mut(0) {
        column.set_constraint(ColumnConstraint::ContentWidth);
    }
    for line in table.lines() {
        writeln!(out, "{}", line.trim_end())?;
    }
    Ok(())
}

// SPDX-License-Identifier: MIT OR Apache-2.0
//! Layouts as tables, and how bytes are read by one.
//!
//! What no row covers is shown too: as reserved bytes or bits, so that nothing of the data is ever left out.

use std::borrow::Cow;

use super::words;
use super::{Context, Field, List, Place, Radix, Structure, Value};

/// The layout of a structure.
pub(super) struct Table {
    pub(super) name: &'static str,
    pub(super) title: &'static str,
    /// Bytes of the structure.
    pub(super) bytes: usize,
    /// Fields by ascending offset.
    pub(super) rows: &'static [Row],
    /// Parts of which there are several.
    pub(super) groups: &'static [Group],
    /// The whole in one sentence.
    pub(super) meaning: fn(&Scope<'_>) -> String,
}

/// Parts of a structure that lie one behind the other.
pub(super) struct Group {
    pub(super) name: &'static str,
    pub(super) title: &'static str,
    pub(super) at: usize,
    pub(super) count: usize,
    pub(super) table: &'static Table,
}

/// One field.
#[derive(Clone, Copy)]
pub(super) struct Row {
    pub(super) at: usize,
    pub(super) length: usize,
    pub(super) name: &'static str,
    pub(super) title: &'static str,
    form: Form,
    meaning: Meaning,
    pub(super) bits: &'static [Bits],
}

/// A part of a field.
#[derive(Clone, Copy)]
pub(super) struct Bits {
    pub(super) high: u8,
    pub(super) low: u8,
    pub(super) name: &'static str,
    pub(super) title: &'static str,
    radix: Radix,
    meaning: Option<fn(u128) -> String>,
}

#[derive(Clone, Copy)]
enum Form {
    Number(Radix),
    Text,
    Bytes,
    Uuid,
}

#[derive(Clone, Copy)]
enum Meaning {
    None,
    Number(fn(u128) -> String),
    Within(fn(u128, &Scope<'_>) -> String),
}

/// The data a field stands in.
pub(super) struct Scope<'a> {
    pub(super) bytes: &'a [u8],
    pub(super) context: &'a Context,
    /// Which of several parts it is.
    pub(super) index: usize,
}

impl Scope<'_> {
    /// The number of `length` bytes at `at`; bytes that are not there count as zero.
    pub(super) fn number(&self, at: usize, length: usize) -> u128 {
        little_endian(self.bytes.get(at..).unwrap_or_default().get(..length).unwrap_or_default())
    }
}

/// The number that at most 16 bytes are.
pub(super) fn little_endian(bytes: &[u8]) -> u128 {
    bytes.iter().take(16).rev().fold(0, |number, byte| (number << 8) | u128::from(*byte))
}

/// A structure that is no more than the sum of its fields.
pub(super) fn no_meaning(_: &Scope<'_>) -> String {
    String::new()
}

const fn row(at: usize, length: usize, name: &'static str, title: &'static str, form: Form) -> Row {
    Row { at, length, name, title, form, meaning: Meaning::None, bits: &[] }
}

/// A count or size of at most 16 bytes.
pub(super) const fn count(at: usize, length: usize, name: &'static str, title: &'static str) -> Row {
    row(at, length, name, title, Form::Number(Radix::Decimal))
}

/// An identifier, address or set of bits of at most 16 bytes.
pub(super) const fn hex(at: usize, length: usize, name: &'static str, title: &'static str) -> Row {
    row(at, length, name, title, Form::Number(Radix::Hexadecimal))
}

/// Padded text.
pub(super) const fn text(at: usize, length: usize, name: &'static str, title: &'static str) -> Row {
    row(at, length, name, title, Form::Text)
}

/// Bytes that are no number.
pub(super) const fn bytes(at: usize, length: usize, name: &'static str, title: &'static str) -> Row {
    row(at, length, name, title, Form::Bytes)
}

/// A UUID of 16 bytes, most significant byte first.
pub(super) const fn uuid(at: usize, name: &'static str, title: &'static str) -> Row {
    row(at, 16, name, title, Form::Uuid)
}

impl Row {
    pub(super) const fn means(mut self, meaning: fn(u128) -> String) -> Self {
        self.meaning = Meaning::Number(meaning);
        self
    }

    /// With a meaning that depends on other fields or the context.
    pub(super) const fn within(mut self, meaning: fn(u128, &Scope<'_>) -> String) -> Self {
        self.meaning = Meaning::Within(meaning);
        self
    }

    pub(super) const fn of(mut self, bits: &'static [Bits]) -> Self {
        self.bits = bits;
        self
    }

    fn decode(&self, bytes: &[u8], scope: &Scope<'_>) -> Field {
        let number = little_endian(bytes);
        let value = match self.form {
            Form::Number(radix) => Value::Integer { number, radix },
            Form::Text => Value::Text(words::text(bytes)),
            Form::Bytes => Value::Bytes(bytes.to_vec()),
            Form::Uuid => Value::Text(words::uuid(bytes)),
        };
        let meaning = match self.meaning {
            Meaning::None => String::new(),
            Meaning::Number(meaning) => meaning(number),
            Meaning::Within(meaning) => meaning(number, scope),
        };
        Field {
            name: Cow::Borrowed(self.name),
            title: Cow::Borrowed(self.title),
            place: Place::Bytes { offset: self.at, length: self.length },
            value,
            meaning,
            bits: decode_bits(self.bits, number, self.length),
            reserved: false,
        }
    }
}

/// A flag.
pub(super) const fn bit(bit: u8, name: &'static str, title: &'static str) -> Bits {
    bits(bit, bit, name, title)
}

/// A number of several bits.
pub(super) const fn bits(high: u8, low: u8, name: &'static str, title: &'static str) -> Bits {
    Bits { high, low, name, title, radix: Radix::Decimal, meaning: None }
}

impl Bits {
    pub(super) const fn means(mut self, meaning: fn(u128) -> String) -> Self {
        self.meaning = Some(meaning);
        self
    }

    pub(super) const fn hex(mut self) -> Self {
        self.radix = Radix::Hexadecimal;
        self
    }
}

fn field_of_bits(number: u128, high: u8, low: u8) -> u128 {
    (number >> low) & (u128::MAX >> (127 - (high - low)))
}

/// The parts of a number of `length` bytes, reserved ones among them.
fn decode_bits(table: &[Bits], number: u128, length: usize) -> Vec<Field> {
    let reserved = |high: u8, low: u8| Field {
        name: format!("reserved_{low}").into(),
        title: Cow::Borrowed("Reserved"),
        place: Place::Bits { high, low },
        value: Value::hexadecimal(field_of_bits(number, high, low)),
        meaning: String::new(),
        bits: Vec::new(),
        reserved: true,
    };
    if table.is_empty() {
        return Vec::new();
    }
    let mut fields = Vec::new();
    let mut next = 0;
    for part in table {
        if part.low > next {
            fields.push(reserved(part.low - 1, next));
        }
        next = part.high + 1;
        let value = field_of_bits(number, part.high, part.low);
        fields.push(Field {
            name: Cow::Borrowed(part.name),
            title: Cow::Borrowed(part.title),
            place: Place::Bits { high: part.high, low: part.low },
            value: Value::Integer { number: value, radix: part.radix },
            meaning: part.meaning.map_or_else(String::new, |meaning| meaning(value)),
            bits: Vec::new(),
            reserved: false,
        });
    }
    let end = u8::try_from(length.min(16) * 8).unwrap_or(128);
    if end > next {
        fields.push(reserved(end - 1, next));
    }
    fields
}

/// Bytes at `offset` for which there is no field.
fn gap(offset: usize, bytes: &[u8]) -> Field {
    Field {
        name: format!("reserved_{offset}").into(),
        title: Cow::Borrowed("Reserved"),
        place: Place::Bytes { offset, length: bytes.len() },
        value: Value::Bytes(bytes.to_vec()),
        meaning: String::new(),
        bits: Vec::new(),
        reserved: true,
    }
}

/// Bytes at `offset` for which there is no field, if there are any.
pub(super) fn rest(offset: usize, bytes: &[u8]) -> Option<Field> {
    (!bytes.is_empty()).then(|| gap(offset, bytes))
}

impl Table {
    /// Reads `bytes`. Fields that are not wholly there are left out and named as a problem; bytes behind the structure
    /// are shown as reserved.
    pub(super) fn decode(&'static self, bytes: &[u8], context: &Context) -> Structure {
        let mut structure = self.part(&Scope { bytes, context, index: 0 });
        if bytes.len() < self.bytes {
            structure.problems.push(format!(
                "{} bytes where {} has {}: what lies behind them is missing",
                bytes.len(),
                self.title,
                self.bytes
            ));
        }
        structure
    }

    fn part(&'static self, scope: &Scope<'_>) -> Structure {
        let mut structure = Structure::new(self.name, self.title);
        let mut next = 0;
        for row in self.rows {
            self.fill(&mut structure, scope.bytes, next, row.at);
            next = row.at + row.length;
            if let Some(field) = scope.bytes.get(row.at..next) {
                structure.fields.push(row.decode(field, scope));
            }
        }
        self.fill(&mut structure, scope.bytes, next, scope.bytes.len());
        structure.meaning = (self.meaning)(scope);
        structure.lists = self.groups.iter().map(|group| group.decode(scope)).collect();
        structure
    }

    /// Shows the bytes from `next` to `end`, but for those of groups, as reserved.
    fn fill(&self, structure: &mut Structure, bytes: &[u8], mut next: usize, end: usize) {
        let end = end.min(bytes.len());
        while next < end {
            let inside = self.groups.iter().find(|group| group.at <= next && next < group.end());
            if let Some(group) = inside {
                next = group.end();
                continue;
            }
            let starts = self.groups.iter().map(|group| group.at).filter(|at| *at > next);
            let stop = starts.min().unwrap_or(end).min(end);
            structure.fields.extend(bytes.get(next..stop).map(|bytes| gap(next, bytes)));
            next = stop;
        }
    }
}

impl Group {
    pub(super) const fn end(&self) -> usize {
        self.at + self.count * self.table.bytes
    }

    fn decode(&self, scope: &Scope<'_>) -> List {
        let parts = scope.bytes.get(self.at..).unwrap_or_default();
        let items = items(self.table, parts, self.count, scope.context);
        List { name: self.name, title: self.title, items, sparse: true }
    }
}

/// Reads up to `count` structures that lie one behind the other; one that is cut short is left out.
pub(super) fn items(table: &'static Table, bytes: &[u8], count: usize, context: &Context) -> Vec<Structure> {
    let parts = bytes.chunks_exact(table.bytes).take(count).enumerate();
    let named = |(index, bytes)| {
        let mut part = table.part(&Scope { bytes, context, index });
        part.name = format!("{}{index}", table.name).into();
        part
    };
    parts.map(named).collect()
}

/// Bytes without a table.
pub(super) fn dump(name: &'static str, title: impl Into<Cow<'static, str>>, bytes: &[u8]) -> Structure {
    let mut structure = Structure::new(name, title);
    let mut field = gap(0, bytes);
    field.name = Cow::Borrowed("DATA");
    field.title = Cow::Borrowed("Data, not decoded");
    field.reserved = false;
    structure.fields.push(field);
    structure
}

/// A number of `length` bytes at `offset`, its parts by a table of bits.
pub(super) fn number(
    name: &'static str,
    title: &'static str,
    (offset, length): (usize, usize),
    number: u128,
    parts: &'static [Bits],
) -> Field {
    Field {
        name: Cow::Borrowed(name),
        title: Cow::Borrowed(title),
        place: Place::Bytes { offset, length },
        value: Value::hexadecimal(number),
        meaning: String::new(),
        bits: decode_bits(parts, number, length),
        reserved: false,
    }
}

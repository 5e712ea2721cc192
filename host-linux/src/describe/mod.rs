// SPDX-License-Identifier: MIT OR Apache-2.0
//! NVMe bytes as named, decoded fields: for people, as JSON, and for comparing two of them.
//!
//! Nothing here talks to a controller. Each function takes bytes (or a way to read a register) and gives a
//! [`Structure`]; [`render`] prints it in columns, [`serde::Serialize`] makes JSON of it, [`diff`] compares two. All
//! bytes are taken as hostile: what is too short or does not fit together is decoded as far as it goes and named in
//! [`Structure::problems`].
//!
//! | Function | Input |
//! |---|---|
//! | [`identify()`] | data of an Identify command |
//! | [`log_page`] | a log page |
//! | [`feature()`] | what Get Features returned |
//! | [`registers()`] | controller properties, read one by one |
//! | [`controller_state()`] | a Controller State image |
//! | [`migration_entry`] | an entry of a Controller Data Queue |
//! | [`completion`], [`event`] | a completion queue entry; the event that one reports |
//!
//! Layouts are tables (`table`); a structure without a table is a hex dump. The vendor-specific part of a Controller State has
//! one if a controller of this project wrote it. Where the specification's figure was not at
//! hand, offsets follow public C headers, as in [`nvme_core::wire::identify`].
//!
//! ```
//! use nvme_host_linux::describe::{Context, Style, identify, render};
//!
//! let mut page = [0; 4096];
//! page[77] = 5;
//! let controller = identify(0x01, 0, &page, &Context { page_bytes: Some(4096) });
//! assert_eq!(controller.field("MDTS").unwrap().meaning, "128 KiB (131,072 bytes)");
//! render(&controller, &mut std::io::sink(), Style::default())?;
//! # Ok::<(), std::io::Error>(())
//! ```

mod controller;
mod controller_bits;
mod diff;
mod entry;
mod feature;
mod identify;
mod json;
mod log;
mod log_lists;
mod log_more;
mod namespace;
mod registers;
mod render;
mod state;
mod table;
mod vendor;
mod words;

use std::borrow::Cow;

pub use diff::{Difference, diff, render_differences};
pub use entry::{completion, event, migration_entry};
pub use feature::feature;
pub use identify::identify;
pub use log::log_page;
pub use registers::registers;
pub use render::{Style, render};
pub use state::controller_state;

/// What is known beside the bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Context {
    /// Bytes of the smallest memory page of the controller (CAP.MPSMIN), if known. Limits that count in it are
    /// given in bytes then.
    pub page_bytes: Option<u64>,
}

/// Decoded data.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Structure {
    /// Short name: the key of the structure where it is part of another, such as `LBAF0`.
    pub name: Cow<'static, str>,
    /// What it is, spelled out.
    pub title: Cow<'static, str>,
    /// The whole in one sentence; empty if the fields speak for themselves.
    pub meaning: String,
    /// Its fields by ascending place. Names are unique within a structure.
    pub fields: Vec<Field>,
    /// Parts of which there are several.
    pub lists: Vec<List>,
    /// What is wrong with the data. Everything that could be decoded is there nevertheless.
    pub problems: Vec<String>,
}

/// Parts of a structure of which there are several, such as one for each queue.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct List {
    /// Short name.
    pub name: &'static str,
    /// What they are, spelled out.
    pub title: &'static str,
    /// The parts, those that are all zero among them.
    pub items: Vec<Structure>,
    /// Whether a part that is all zero is one that is not in use.
    pub sparse: bool,
}

/// One field.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Field {
    /// The specification's abbreviation; `reserved_` and a byte or bit number where there is no field.
    pub name: Cow<'static, str>,
    /// The name spelled out.
    pub title: Cow<'static, str>,
    /// Where it lies.
    pub place: Place,
    /// Its value as it stands in the data.
    pub value: Value,
    /// What the value means; empty if it speaks for itself.
    pub meaning: String,
    /// Its bit fields, if it has any.
    pub bits: Vec<Field>,
    /// Whether nothing is defined to stand here.
    pub reserved: bool,
}

/// Where a field lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// Bytes of the structure; of a register, of the register space.
    Bytes {
        /// First byte.
        offset: usize,
        /// Number of bytes.
        length: usize,
    },
    /// Bits of the field it is part of, both ends included.
    Bits {
        /// Most significant bit.
        high: u8,
        /// Least significant bit.
        low: u8,
    },
}

/// The value of a field as it stands in the data.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Value {
    /// A number.
    Integer {
        /// The number, not corrected for fields that are zero-based.
        number: u128,
        /// How people read it.
        radix: Radix,
    },
    /// Text, without its padding. Bytes that are no printable characters are escaped (`\x1b`).
    Text(String),
    /// Bytes in the order of memory.
    Bytes(Vec<u8>),
    /// Several values.
    List(Vec<Value>),
}

/// How people read a number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Radix {
    /// A count or size.
    Decimal,
    /// An address, identifier or set of bits.
    Hexadecimal,
}

impl Structure {
    fn new(name: impl Into<Cow<'static, str>>, title: impl Into<Cow<'static, str>>) -> Self {
        Self {
            name: name.into(),
            title: title.into(),
            meaning: String::new(),
            fields: Vec::new(),
            lists: Vec::new(),
            problems: Vec::new(),
        }
    }

    /// The field called `name`.
    #[must_use]
    pub fn field(&self, name: &str) -> Option<&Field> {
        self.fields.iter().find(|field| field.name == name)
    }

    /// The parts called `name`; empty if there are none.
    #[must_use]
    pub fn list(&self, name: &str) -> &[Self] {
        self.lists.iter().find(|list| list.name == name).map_or(&[], |list| &list.items)
    }

    /// Whether every byte is zero.
    #[must_use]
    pub fn is_zero(&self) -> bool {
        self.fields.iter().all(|field| field.value.is_zero())
            && self.lists.iter().all(|list| list.items.iter().all(Self::is_zero))
    }
}

impl Field {
    /// The bit field called `name`.
    #[must_use]
    pub fn bit(&self, name: &str) -> Option<&Self> {
        self.bits.iter().find(|bit| bit.name == name)
    }

    /// The number, if the value is one.
    #[must_use]
    pub fn number(&self) -> Option<u128> {
        match self.value {
            Value::Integer { number, .. } => Some(number),
            _ => None,
        }
    }

    /// What the value means in one line: the meaning, or that of all bit fields that are not zero.
    #[must_use]
    pub fn summary(&self) -> String {
        if !self.meaning.is_empty() || self.bits.is_empty() {
            return self.meaning.clone();
        }
        let part = |bit: &Self| match (bit.place, bit.meaning.as_str()) {
            (Place::Bits { high, low }, _) if high == low => bit.name.to_string(),
            (_, "") => format!("{} {}", bit.name, bit.value),
            (_, meaning) => format!("{} {} ({meaning})", bit.name, bit.value),
        };
        self.bits.iter().filter(|bit| !bit.value.is_zero()).map(part).collect::<Vec<_>>().join(", ")
    }
}

impl Value {
    const fn decimal(number: u128) -> Self {
        Self::Integer { number, radix: Radix::Decimal }
    }

    const fn hexadecimal(number: u128) -> Self {
        Self::Integer { number, radix: Radix::Hexadecimal }
    }

    /// Whether every bit is zero, or the text or list is empty.
    #[must_use]
    pub fn is_zero(&self) -> bool {
        match self {
            Self::Integer { number, .. } => *number == 0,
            Self::Text(text) => text.is_empty(),
            Self::Bytes(bytes) => bytes.iter().all(|byte| *byte == 0),
            Self::List(values) => values.iter().all(Self::is_zero),
        }
    }
}

impl std::fmt::Display for Value {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Integer { number, radix: Radix::Decimal } => write!(f, "{number}"),
            Self::Integer { number, radix: Radix::Hexadecimal } => write!(f, "{number:#x}"),
            Self::Text(text) => f.write_str(text),
            Self::Bytes(bytes) if bytes.len() > 1 && self.is_zero() => {
                write!(f, "{} zero bytes", bytes.len())
            }
            Self::Bytes(bytes) => {
                for (index, byte) in bytes.iter().enumerate() {
                    // Words can be wrapped.
                    let gap = if index > 0 && index % 4 == 0 { " " } else { "" };
                    write!(f, "{gap}{byte:02x}")?;
                }
                Ok(())
            }
            Self::List(values) => {
                for (index, value) in values.iter().enumerate() {
                    write!(f, "{}{value}", if index == 0 { "" } else { ", " })?;
                }
                Ok(())
            }
        }
    }
}

#[cfg(test)]
mod tests;

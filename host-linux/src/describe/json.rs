// SPDX-License-Identifier: MIT OR Apache-2.0
//! Structures as JSON: an object keyed by field name.
//!
//! Each field is an object of `value`, `meaning` (if there is one) and `bits` (if it has bit fields, keyed by name).
//! Lists are arrays of objects with a `name`. Lower-case keys (`name`, `title`, `meaning`, `problems`) are no fields.
//! Reserved fields that are zero are left out, and so are items of sparse lists that are all zero. Numbers above 64 bits
//! are decimal strings, bytes are strings of hexadecimal digits.

use serde::ser::{Serialize, SerializeMap, Serializer};

use super::{Field, List, Structure, Value};

impl Serialize for Structure {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("name", &self.name)?;
        map.serialize_entry("title", &self.title)?;
        if !self.meaning.is_empty() {
            map.serialize_entry("meaning", &self.meaning)?;
        }
        for field in self.fields.iter().filter(|field| !field.is_idle()) {
            map.serialize_entry(&field.name, field)?;
        }
        for list in &self.lists {
            map.serialize_entry(list.name, list)?;
        }
        if !self.problems.is_empty() {
            map.serialize_entry("problems", &self.problems)?;
        }
        map.end()
    }
}

impl Serialize for List {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self.used())
    }
}

struct BitFields<'a>(&'a [Field]);

impl Serialize for BitFields<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.0.iter().filter(|bit| !bit.is_idle()).map(|bit| (&bit.name, bit)))
    }
}

impl Serialize for Field {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("value", &self.value)?;
        if !self.meaning.is_empty() {
            map.serialize_entry("meaning", &self.meaning)?;
        }
        if !self.bits.is_empty() {
            map.serialize_entry("bits", &BitFields(&self.bits))?;
        }
        map.end()
    }
}

impl Serialize for Value {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Integer { number, .. } => match u64::try_from(*number) {
                Ok(number) => serializer.serialize_u64(number),
                Err(_) => serializer.collect_str(number),
            },
            Self::Text(text) => serializer.serialize_str(text),
            Self::Bytes(bytes) => {
                let hex = bytes.iter().map(|byte| format!("{byte:02x}"));
                serializer.serialize_str(&hex.collect::<String>())
            }
            Self::List(values) => serializer.collect_seq(values),
        }
    }
}

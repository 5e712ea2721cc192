// SPDX-License-Identifier: MIT OR Apache-2.0
//! A controller that belongs to somebody else: its registers cannot be reached, but what its owner programmed may be known.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use nvme_core::register::Offset;

use crate::endpoint::AccessError;

const CC: u32 = 0x14;
const CSTS: u32 = 0x1C;

/// The properties that can be given, with their names, offsets and bytes. NVMe Base 2.1 §3.1.4, Controller Properties.
const PROPERTIES: [(&str, u32, u32); 4] =
    [("CC", CC, 4), ("AQA", 0x24, 4), ("ASQ", 0x28, 8), ("ACQ", 0x30, 8)];

/// A controller whose registers are out of reach. Copies are the same controller.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AbsentController {
    properties: Arc<BTreeMap<u32, u32>>,
}

/// What is wrong with a list of properties.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PropertiesError {
    /// A line, counted from one, that is no `NAME VALUE`.
    Line(usize, String),
    /// A value that does not fit the property.
    Value(usize, &'static str),
    /// A property given twice.
    Twice(usize, &'static str),
    /// A property that is missing.
    Missing(&'static str),
}

impl fmt::Display for PropertiesError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Line(line, text) => {
                write!(
                    f,
                    "line {line}: {text:?} is not CC, AQA, ASQ or ACQ and a hexadecimal value such as 0x460001"
                )
            }
            Self::Value(line, name) => write!(f, "line {line}: the value does not fit {name}"),
            Self::Twice(line, name) => write!(f, "line {line}: {name} stands there twice; give it once"),
            Self::Missing(name) => write!(f, "{name} is missing; give CC, AQA, ASQ and ACQ"),
        }
    }
}

impl std::error::Error for PropertiesError {}

impl AbsentController {
    /// A controller of which nothing is known.
    #[must_use]
    pub fn unknown() -> Self {
        Self::default()
    }

    /// A controller whose properties are listed in `text`: `CC`, `AQA`, `ASQ` and `ACQ`, each on a line with its value in
    /// hexadecimal, as `nvme-lm registers` prints them; empty lines and what follows a `#` do not count.
    ///
    /// # Errors
    /// [`PropertiesError`]: the first line that is none, or the property that is missing.
    pub fn parse(text: &str) -> Result<Self, PropertiesError> {
        let mut properties = BTreeMap::new();
        for (number, line) in (1..).zip(text.lines()) {
            let line = line.split('#').next().unwrap_or_default().trim();
            if line.is_empty() {
                continue;
            }
            let wrong = || PropertiesError::Line(number, line.to_owned());
            let (name, value) = line.split_once([' ', '\t', '=']).ok_or_else(wrong)?;
            let known = PROPERTIES.iter().find(|(known, ..)| known.eq_ignore_ascii_case(name.trim()));
            let (name, offset, bytes) = *known.ok_or_else(wrong)?;
            let value = value.trim();
            let digits = value.strip_prefix("0x").unwrap_or(value);
            // The library takes a sign, too.
            if !digits.bytes().all(|digit| digit.is_ascii_hexdigit()) {
                return Err(wrong());
            }
            let value = u64::from_str_radix(digits, 16).map_err(|_| wrong())?;
            if bytes == 4 && value > u64::from(u32::MAX) {
                return Err(PropertiesError::Value(number, name));
            }
            if properties.insert(offset, value as u32).is_some() {
                return Err(PropertiesError::Twice(number, name));
            }
            if bytes == 8 {
                properties.insert(offset + 4, (value >> 32) as u32);
            }
        }
        match PROPERTIES.iter().find(|(_, offset, _)| !properties.contains_key(offset)) {
            Some((name, ..)) => Err(PropertiesError::Missing(name)),
            None => Ok(Self { properties: Arc::new(properties) }),
        }
    }

    /// What the owner programmed, as far as it is known; a controller that its owner enabled counts as ready.
    pub(super) fn read(&self, offset: Offset) -> Result<u32, AccessError> {
        let enabled = self.properties.get(&CC).map(|configuration| configuration & 1);
        let known = match offset.bytes() {
            CSTS => enabled,
            other => self.properties.get(&other).copied(),
        };
        known.ok_or(AccessError::Absent(offset.bytes()))
    }

    /// Nothing can be written. That the controller is to be disabled is no error, because whoever fences it does that.
    pub(super) fn write(&self, offset: Offset, value: u32) -> Result<(), AccessError> {
        match (offset.bytes(), value) {
            (CC, 0) => Ok(()),
            (other, _) => Err(AccessError::Absent(other)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn properties_are_read_and_what_is_wrong_is_named() {
        const GOOD: &str =
            "# of the guest\nCC 0x00460001\naqa=001f001F\nASQ 0x123456789000 # base\n\nACQ\t0xfff000\n";
        let controller = AbsentController::parse(GOOD).expect("properties");
        for (offset, expected) in [
            (0x14, 0x460001),
            (0x1C, 1),
            (0x24, 0x1F_001F),
            (0x28, 0x5678_9000),
            (0x2C, 0x1234),
            (0x30, 0xFF_F000),
            (0x34, 0),
        ] {
            assert_eq!(controller.read(Offset::new(offset)), Ok(expected), "{offset:#x}");
        }
        assert_eq!(controller.read(Offset::new(0)), Err(AccessError::Absent(0)));
        assert_eq!(controller.write(Offset::new(0x14), 0), Ok(()));
        assert_eq!(controller.write(Offset::new(0x14), 1), Err(AccessError::Absent(0x14)));
        assert_eq!(AbsentController::unknown().read(Offset::new(0x1C)), Err(AccessError::Absent(0x1C)));
        let rows = [
            ("CC", PropertiesError::Line(1, "CC".into())),
            ("XY 1", PropertiesError::Line(1, "XY 1".into())),
            ("\nCC x", PropertiesError::Line(2, "CC x".into())),
            ("CC 0x0x1", PropertiesError::Line(1, "CC 0x0x1".into())),
            ("CC +1", PropertiesError::Line(1, "CC +1".into())),
            ("CC 0x", PropertiesError::Line(1, "CC 0x".into())),
            ("CC 100000000", PropertiesError::Value(1, "CC")),
            ("CC 1\nCC 1", PropertiesError::Twice(2, "CC")),
            ("CC 1\nAQA 1\nACQ 1", PropertiesError::Missing("ASQ")),
            ("", PropertiesError::Missing("CC")),
        ];
        for (text, expected) in rows {
            assert_eq!(AbsentController::parse(text), Err(expected), "{text:?}");
        }
    }
}

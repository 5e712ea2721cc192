// SPDX-License-Identifier: MIT OR Apache-2.0
//! A controller that belongs to somebody else: nothing is written to its registers, but what its owner programmed may be known.

use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;
use std::sync::Arc;

use nvme_core::register::Offset;

use super::{RegisterFile, RegisterFileError};
use crate::endpoint::AccessError;

const CC: u32 = 0x14;
const CSTS: u32 = 0x1C;
/// AQA, ASQ and ACQ, the last two in halves.
const QUEUES: [u32; 5] = [0x24, 0x28, 0x2C, 0x30, 0x34];

/// The properties that can be given, with their names, offsets and bytes. NVMe Base 2.1 §3.1.4, Controller Properties.
const PROPERTIES: [(&str, u32, u32); 4] =
    [("CC", CC, 4), ("AQA", 0x24, 4), ("ASQ", 0x28, 8), ("ACQ", 0x30, 8)];

/// A controller that somebody else drives. Copies are the same controller.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AbsentController {
    known: Arc<Known>,
}

/// What is known of one.
#[derive(Debug, Default, PartialEq, Eq)]
enum Known {
    #[default]
    Nothing,
    /// What its owner said: registers by their offsets.
    Listed(BTreeMap<u32, u32>),
    /// Its registers can be looked at.
    Shown(RegisterFile),
}

/// What the owner of a controller programmed: configuration and admin queues. NVMe Base 2.1 §3.1.4, Controller Properties.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Properties {
    /// Controller Configuration.
    pub cc: u32,
    /// Admin Queue Attributes.
    pub aqa: u32,
    /// Admin Submission Queue Base Address.
    pub asq: u64,
    /// Admin Completion Queue Base Address.
    pub acq: u64,
}

impl Properties {
    /// The environment variables that tell shell commands, and their values in hexadecimal.
    #[must_use]
    pub fn variables(&self) -> [(&'static str, String); 4] {
        [
            ("NVME_LM_CC", format!("{:#x}", self.cc)),
            ("NVME_LM_AQA", format!("{:#x}", self.aqa)),
            ("NVME_LM_ASQ", format!("{:#x}", self.asq)),
            ("NVME_LM_ACQ", format!("{:#x}", self.acq)),
        ]
    }
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

/// A hexadecimal number.
fn hexadecimal(word: &str) -> Option<u64> {
    let digits = word.strip_prefix("0x").unwrap_or(word);
    // The library takes a sign, too.
    u64::from_str_radix(digits, 16).ok().filter(|_| !digits.starts_with('+'))
}

impl AbsentController {
    /// A controller of which nothing is known.
    #[must_use]
    pub fn unknown() -> Self {
        Self::default()
    }

    /// A controller whose properties are listed in `text`: `CC`, `AQA`, `ASQ` and `ACQ`, each on a line with its value in
    /// hexadecimal, as `nvme-lm registers` prints them; words behind the value, empty lines and what follows a `#` do not count.
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
            let mut words = line.split([' ', '\t', '=']).filter(|word| !word.is_empty());
            let name = words.next().ok_or_else(wrong)?;
            let known = PROPERTIES.iter().find(|(known, ..)| known.eq_ignore_ascii_case(name));
            let (name, offset, bytes) = *known.ok_or_else(wrong)?;
            let value = words.next().and_then(hexadecimal).ok_or_else(wrong)?;
            // Of a value in pieces the first is not the value.
            if words.next().and_then(hexadecimal).is_some() {
                return Err(wrong());
            }
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
            None => Ok(Self { known: Arc::new(Known::Listed(properties)) }),
        }
    }

    /// A controller whose registers can be looked at in the file at `path`, now and whenever they are asked for.
    ///
    /// # Errors
    /// They cannot be read, or the file holds none.
    pub fn shown(path: &Path) -> Result<Self, RegisterFileError> {
        RegisterFile::new(path).map(|file| Self { known: Arc::new(Known::Shown(file)) })
    }

    /// Whether it is known what its owner programmed.
    #[must_use]
    pub fn is_known(&self) -> bool {
        *self.known != Known::Nothing
    }

    /// Whether its registers can be looked at.
    #[must_use]
    pub fn is_shown(&self) -> bool {
        matches!(*self.known, Known::Shown(_))
    }

    /// What the owner programmed: what the registers hold now, or what was listed.
    ///
    /// # Errors
    /// The registers cannot be read any more, or nothing is known.
    pub fn properties(&self) -> Result<Properties, AccessError> {
        let [aqa, asq, asq_high, acq, acq_high] = QUEUES;
        let [cc, aqa, asq, asq_high, acq, acq_high] = self.values([CC, aqa, asq, asq_high, acq, acq_high])?;
        let whole = |low: u32, high: u32| u64::from(high) << 32 | u64::from(low);
        Ok(Properties { cc, aqa, asq: whole(asq, asq_high), acq: whole(acq, acq_high) })
    }

    /// The registers at `offsets`, at one moment.
    fn values<const N: usize>(&self, offsets: [u32; N]) -> Result<[u32; N], AccessError> {
        let is_programmed = |offset: &u32| *offset == CC || *offset == CSTS || QUEUES.contains(offset);
        if let Some(other) = offsets.iter().find(|offset| !is_programmed(offset)) {
            return Err(AccessError::Absent(*other));
        }
        match &*self.known {
            Known::Nothing => Err(AccessError::Absent(offsets.first().copied().unwrap_or(CC))),
            Known::Shown(file) => file.read(offsets).map_err(AccessError::File),
            Known::Listed(properties) => {
                let mut values = [0; N];
                for (value, offset) in values.iter_mut().zip(offsets) {
                    let known = match offset {
                        CSTS => properties.get(&CC).map(|configuration| configuration & 1),
                        other => properties.get(&other).copied(),
                    };
                    *value = known.ok_or(AccessError::Absent(offset))?;
                }
                Ok(values)
            }
        }
    }

    /// What the owner programmed, as far as it is known; a controller that its owner enabled counts as ready if its status
    /// cannot be looked at.
    pub(super) fn read(&self, offset: Offset) -> Result<u32, AccessError> {
        self.values([offset.bytes()]).map(|[value]| value)
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
        let expected = Properties { cc: 0x46_0001, aqa: 0x1F_001F, asq: 0x1234_5678_9000, acq: 0xFF_F000 };
        assert_eq!(controller.properties(), Ok(expected));
        let values = expected.variables().map(|(_, value)| value);
        assert_eq!(values, ["0x460001", "0x1f001f", "0x123456789000", "0xfff000"]);
        assert_eq!((controller.is_known(), controller.is_shown()), (true, false));
        assert_eq!(AbsentController::unknown().properties(), Err(AccessError::Absent(0x14)));
        assert!(!AbsentController::unknown().is_known());
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
            ("CC =", PropertiesError::Line(1, "CC =".into())),
            ("CC 0x46 0001", PropertiesError::Line(1, "CC 0x46 0001".into())),
            ("CC 0x460001 0x1", PropertiesError::Line(1, "CC 0x460001 0x1".into())),
            ("CC Configuration 0x460001", PropertiesError::Line(1, "CC Configuration 0x460001".into())),
            ("CC 100000000", PropertiesError::Value(1, "CC")),
            ("CC 1\nCC 1", PropertiesError::Twice(2, "CC")),
            ("CC 1\nAQA 1\nACQ 1", PropertiesError::Missing("ASQ")),
            ("", PropertiesError::Missing("CC")),
        ];
        for (text, expected) in rows {
            assert_eq!(AbsentController::parse(text), Err(expected), "{text:?}");
        }
    }

    #[test]
    fn what_the_program_prints_of_registers_is_read() {
        let values = [
            (0x14, 0x46_0001),
            (0x24, 0x1F_001F),
            (0x28, 0x5678_9000),
            (0x2C, 0x1234),
            (0x30, 0xFFF0_0000),
            (0x34, 0xFFFF_FFFF),
        ];
        let value = |offset| values.iter().find(|(other, _)| *other == offset).map_or(0, |(_, value)| *value);
        let structure = crate::describe::registers(|offset| Some(value(offset)));
        for all in [false, true] {
            for width in [80, 200] {
                let mut printed = Vec::new();
                let style = crate::describe::Style { all, width };
                crate::describe::render(&structure, &mut printed, style).expect("printed");
                let printed = String::from_utf8(printed).expect("text");
                // The lines of the registers themselves, not of their fields.
                let is_asked =
                    |line: &&str| PROPERTIES.iter().any(|(name, ..)| line.starts_with(&format!(" {name} ")));
                let lines: Vec<&str> = printed.lines().filter(is_asked).collect();
                let properties = AbsentController::parse(&lines.join("\n")).map(|read| read.properties());
                let expected = Properties {
                    cc: 0x46_0001,
                    aqa: 0x1F_001F,
                    asq: 0x1234_5678_9000,
                    acq: 0xFFFF_FFFF_FFF0_0000,
                };
                assert_eq!(properties, Ok(Ok(expected)), "all {all}, {width} columns: {lines:#?}");
            }
        }
    }

    #[test]
    fn registers_that_are_shown_are_looked_at_each_time() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("registers");
        let write = |cc: u32, status: u32, asq: u64| {
            let mut page = vec![0; 4096];
            for (offset, value) in [(0x08, 0x2_0100_u32), (0x14, cc), (0x1C, status), (0x24, 0x3F_001F)] {
                page[offset..offset + 4].copy_from_slice(&value.to_le_bytes());
            }
            page[0x28..0x30].copy_from_slice(&asq.to_le_bytes());
            page[0x30..0x38].copy_from_slice(&0x7000_u64.to_le_bytes());
            std::fs::write(&path, page).expect("a file");
        };
        assert!(AbsentController::shown(&path).is_err(), "it is not there yet");
        write(0x46_0001, 1, 0x8000_0000_1000);
        let controller = AbsentController::shown(&path).expect("registers");
        assert_eq!((controller.is_known(), controller.is_shown()), (true, true));
        let expected = Properties { cc: 0x46_0001, aqa: 0x3F_001F, asq: 0x8000_0000_1000, acq: 0x7000 };
        assert_eq!(controller.properties(), Ok(expected));
        assert_eq!(controller.read(Offset::new(0x1C)), Ok(1));
        // Its own status, not what its configuration makes likely.
        write(0x46_0001, 3, 0x2000);
        assert_eq!(controller.properties(), Ok(Properties { asq: 0x2000, ..expected }));
        assert_eq!(controller.read(Offset::new(0x1C)), Ok(3));
        assert_eq!(controller.write(Offset::new(0x14), 0x46_0001), Err(AccessError::Absent(0x14)));
        std::fs::remove_file(&path).expect("removed");
        assert!(matches!(controller.properties(), Err(AccessError::File(_))));
    }
}

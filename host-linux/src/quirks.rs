// SPDX-License-Identifier: MIT OR Apache-2.0
//! Controller models that are known to deviate from the specification, and what users make of that.
//!
//! A model is recognised by what Identify Controller says. Only models whose behaviour was recorded are in the table; this
//! program's own controllers have no quirks.
//!
//! ```
//! use nvme_core::migration::Quirks;
//! use nvme_host_linux::quirks::QuirkChoice;
//!
//! let choice: QuirkChoice = "none,+events-once".parse()?;
//! assert_eq!(choice.apply(Quirks::all()), Quirks::EVENTS_ONCE);
//! # Ok::<(), String>(())
//! ```

use std::str::FromStr;

use nvme_core::migration::Quirks;
use nvme_core::wire::identify::{ControllerIdentity, OptionalAdminCommands};

/// A model with quirks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Model {
    /// What it is.
    pub name: &'static str,
    /// PCI vendor (VID).
    pub vendor: u16,
    /// Model number (MN) without padding; `*` stands for any text.
    pub model: &'static str,
    /// Firmware revision (FR), alike.
    pub firmware: &'static str,
    /// Whether only those of the model count that announce Host Managed Live Migration (OACS bit 11).
    pub migrates: bool,
    /// What it does otherwise.
    pub quirks: Quirks,
}

/// The models, the first that matches counts.
pub const MODELS: &[Model] = &[Model {
    name: "emulation of TP4159 in a development version of QEMU",
    vendor: 0x1B36,
    model: "QEMU NVMe Ctrl",
    firmware: "9.2.50",
    // Every build of that development version has this firmware revision, with the emulation or without.
    migrates: true,
    quirks: Quirks::EMULATED_TP4159,
}];

impl Model {
    fn matches(&self, vendor: u16, model: &[u8], firmware: &[u8], migrates: bool) -> bool {
        self.vendor == vendor
            && (migrates || !self.migrates)
            && matches(self.model.as_bytes(), model)
            && matches(self.firmware.as_bytes(), firmware)
    }
}

/// The model that a controller is, if it is a known one.
#[must_use]
pub fn recognise(identity: &ControllerIdentity) -> Option<&'static Model> {
    let (model, firmware) = (identity.model_number.as_bytes(), identity.firmware_revision.as_bytes());
    let migrates = identity.admin_commands.contains(OptionalAdminCommands::HOST_MANAGED_LIVE_MIGRATION);
    MODELS.iter().find(|known| known.matches(identity.vendor, model, firmware, migrates))
}

/// Whether a text is like a pattern in which `*` stands for any text. Bounded by the product of both lengths.
fn matches(pattern: &[u8], text: &[u8]) -> bool {
    let mut parts = pattern.split(|byte| *byte == b'*');
    let first = parts.next().unwrap_or_default();
    let Some(mut rest) = text.strip_prefix(first) else { return false };
    let Some(last) = parts.next_back() else { return rest.is_empty() };
    for part in parts {
        let at = match part {
            [] => 0,
            _ => match rest.windows(part.len()).position(|found| found == part) {
                Some(at) => at,
                None => return false,
            },
        };
        rest = &rest[at + part.len()..];
    }
    rest.ends_with(last)
}

/// Which quirks a user wants.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct QuirkChoice {
    /// Those that were recognised do not count.
    none: bool,
    plus: Quirks,
    minus: Quirks,
    /// Show the table instead of anything else.
    list: bool,
}

impl QuirkChoice {
    /// What is left of those that were recognised, and what was added.
    #[must_use]
    pub fn apply(self, recognised: Quirks) -> Quirks {
        let start = if self.none { Quirks::empty() } else { recognised };
        (start | self.plus) & !self.minus
    }

    /// The quirks of a controller.
    #[must_use]
    pub fn of(self, identity: &ControllerIdentity) -> Quirks {
        self.apply(recognise(identity).map_or(Quirks::empty(), |model| model.quirks))
    }

    /// Whether the table is to be shown.
    #[must_use]
    pub const fn is_list(self) -> bool {
        self.list
    }
}

impl FromStr for QuirkChoice {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let mut choice = Self::default();
        for part in text.split(',') {
            let (name, place) = match part.split_at_checked(1) {
                Some(("+", name)) => (name, &mut choice.plus),
                Some(("-", name)) => (name, &mut choice.minus),
                _ if part == "none" => {
                    choice.none = true;
                    continue;
                }
                _ if part == "list" => {
                    choice.list = true;
                    continue;
                }
                _ => return Err(format!("{part:?} is neither none, list, +NAME nor -NAME")),
            };
            *place |= Quirks::from_kebab(name).ok_or_else(|| {
                let names: Vec<&str> = Quirks::TABLE.iter().map(|known| known.name).collect();
                format!("there is no quirk {name:?}; there are {}", names.join(", "))
            })?;
        }
        match choice.plus & choice.minus {
            both if both.is_empty() => Ok(choice),
            _ => Err("a quirk is added and removed".into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_match_the_whole_text() {
        for (pattern, text, expected) in [
            ("", "", true),
            ("", "a", false),
            ("a", "a", true),
            ("a", "ab", false),
            ("a", "ba", false),
            ("*", "", true),
            ("*", "abc", true),
            ("a*", "abc", true),
            ("a*", "bac", false),
            ("*c", "abc", true),
            ("*c", "abcd", false),
            ("a*c", "ac", true),
            ("a*a", "a", false),
            ("a*b*c", "axxbyyc", true),
            ("a*b*c", "axxcyyb", false),
            ("a**c", "abc", true),
            ("a*bc*c", "abc", false),
        ] {
            assert_eq!(matches(pattern.as_bytes(), text.as_bytes()), expected, "{pattern} {text}");
        }
    }

    #[test]
    fn models_are_recognised_by_all_they_say() {
        let of = |vendor, model: &str, firmware: &str, migrates| {
            MODELS
                .iter()
                .find(|known| known.matches(vendor, model.as_bytes(), firmware.as_bytes(), migrates))
                .map(|known| known.quirks)
        };
        assert_eq!(of(0x1B36, "QEMU NVMe Ctrl", "9.2.50", false), None, "not patched");
        let quirks = |vendor, model: &str, firmware: &str| of(vendor, model, firmware, true);
        assert_eq!(quirks(0x1B36, "QEMU NVMe Ctrl", "9.2.50"), Some(Quirks::EMULATED_TP4159));
        assert_eq!(quirks(0x1B36, "QEMU NVMe Ctrl", "10.0.2"), None, "without the emulation");
        assert_eq!(quirks(0x8086, "QEMU NVMe Ctrl", "9.2.50"), None);
        assert_eq!(quirks(0x1B36, "QEMU NVMe Ctrl 2", "9.2.50"), None);
        assert_eq!(quirks(0x1AF4, "nvme-lm embedded subsystem", env!("CARGO_PKG_VERSION")), None, "our own");
    }

    /// Identify Controller as it was recorded: of a controller that manages, of one that it manages, of a physical function,
    /// and of a virtual one.
    const RECORDED: [&str; 4] = [
        include_str!("../../nvme-core/tests/vectors/identify-controller-manager.hex"),
        include_str!("../../nvme-core/tests/vectors/identify-controller-child.hex"),
        include_str!("../../nvme-core/tests/vectors/identify-controller-pf.hex"),
        include_str!("../../nvme-core/tests/vectors/identify-controller-vf.hex"),
    ];

    /// The bytes of a recorded structure: lines of an offset and hexadecimal digits, with comments between them.
    fn bytes(text: &str) -> Vec<u8> {
        let lines = text.lines().filter(|line| !line.starts_with('#'));
        let digits: String =
            lines.filter_map(|line| line.split_once(": ")).map(|(_, digits)| digits).collect();
        let pair = |at| u8::from_str_radix(&digits[at..at + 2], 16).expect("hexadecimal digits");
        (0..digits.len()).step_by(2).map(pair).collect()
    }

    #[test]
    fn recorded_controllers_are_recognised_if_they_are_what_was_recorded() {
        type Change = fn(&mut [u8]);
        let same: Change = |_| {};
        let [manager, child, physical, virtual_function] = RECORDED;
        let emulated = Some(Quirks::EMULATED_TP4159);
        let rows: [(&str, &str, Change, Option<Quirks>); 9] = [
            ("a managing controller", manager, same, emulated),
            ("a physical function that manages", physical, same, emulated),
            // What it manages announces migration as well.
            ("one that is managed", child, same, emulated),
            ("a virtual function", virtual_function, same, emulated),
            ("of another vendor (VID)", manager, |bytes| bytes[0] ^= 1, None),
            ("another model (MN)", manager, |bytes| bytes[24] = b'q', None),
            ("a longer model", manager, |bytes| bytes[24 + 15] = b'2', None),
            ("another firmware (FR)", manager, |bytes| bytes[64] = b'8', None),
            ("without migration (OACS bit 11)", manager, |bytes| bytes[257] &= !8, None),
        ];
        for (name, text, change, expected) in rows {
            let mut bytes = bytes(text);
            assert_eq!(bytes.len(), 4096, "{name}");
            change(&mut bytes);
            let identity = ControllerIdentity::parse(&bytes).expect("a structure");
            assert_eq!(recognise(&identity).map(|model| model.quirks), expected, "{name}");
            let chosen = |text: &str| text.parse::<QuirkChoice>().expect("a choice").of(&identity);
            assert_eq!(QuirkChoice::default().of(&identity), expected.unwrap_or_default(), "{name}");
            assert_eq!(chosen("none"), Quirks::empty(), "{name}");
            let rest = expected.unwrap_or_default() - Quirks::SUSPENDED_IN_HEADER;
            assert_eq!(chosen("-suspended-in-header"), rest, "{name}");
        }
    }

    #[test]
    fn choices_are_read_and_applied() {
        let (csup, once) = (Quirks::SUSPENDED_IN_HEADER, Quirks::EVENTS_ONCE);
        let rows: [(&str, Result<Quirks, &str>); 10] = [
            ("none", Ok(Quirks::empty())),
            ("list", Ok(csup)),
            ("+events-once", Ok(csup | once)),
            ("-suspended-in-header", Ok(Quirks::empty())),
            ("none,+events-once", Ok(once)),
            ("+events-once,-suspended-in-header", Ok(once)),
            ("+events-once,-events-once", Err("added and removed")),
            ("events-once", Err("neither none, list")),
            ("+nothing", Err("there is no quirk \"nothing\"; there are suspended-in-header, ")),
            ("", Err("neither none, list")),
        ];
        for (text, expected) in rows {
            match (text.parse::<QuirkChoice>(), expected) {
                (Ok(choice), Ok(expected)) => assert_eq!(choice.apply(csup), expected, "{text}"),
                (Err(error), Err(words)) => assert!(error.contains(words), "{text}: {error}"),
                (found, expected) => panic!("{text}: {found:?} where {expected:?} should be"),
            }
        }
        assert!("list".parse().is_ok_and(QuirkChoice::is_list));
    }
}

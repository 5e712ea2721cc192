// SPDX-License-Identifier: MIT OR Apache-2.0
//! The vendor-specific part of a Controller State as the controllers of `nvme-controller` lay it out: what NVMe Controller
//! State v0 leaves out.

use nvme_controller::state_format::{self, FORMAT_VERSION};

use super::entry::event_type;
use super::feature::dword;
use super::registers::{AQA, CC};
use super::table::{Bits, Table, bit, bytes, count, hex, items, little_endian, no_meaning, rest};
use super::words::kelvin;
use super::{Context, List, Structure};

/// Decodes the part. `None` if it is another vendor's: no image says which format its part has, but one of this format tells
/// its version, its length and its counts, which have to agree with the bytes that there are.
pub(super) fn vendor_state(part: &[u8], context: &Context) -> Option<Structure> {
    let number = |at: usize, length: usize| {
        little_endian(part.get(at..).unwrap_or_default().get(..length).unwrap_or_default())
    };
    let (fixed, lists) = part.split_at_checked(FIXED.bytes)?;
    let (requests, events) = (number(82, 2) as usize, number(84, 2) as usize);
    let used = FIXED.bytes + requests * REQUEST.bytes + events * EVENT.bytes;
    let padding = part.get(used..)?;
    let is_ours = number(0, 2) == u128::from(FORMAT_VERSION)
        && number(4, 4) == used as u128
        && part.len() == state_format::bytes(requests, events)
        && padding.iter().all(|byte| *byte == 0);
    if !is_ours {
        return None;
    }
    let (of_requests, of_events) = lists.split_at_checked(requests * REQUEST.bytes)?;
    let mut structure = FIXED.decode(fixed, context);
    structure.lists.push(List {
        name: "AER",
        title: "Outstanding Asynchronous Event Requests, oldest first",
        items: items(&REQUEST, of_requests, requests, context),
        sparse: false,
    });
    structure.lists.push(List {
        name: "EVENT",
        title: "Waiting events, oldest first",
        items: items(&EVENT, of_events, events, context),
        sparse: false,
    });
    structure.fields.extend(rest(used, padding));
    Some(structure)
}

const FLAGS: &[Bits] = &[
    bit(0, "RDY", "Ready"),
    bit(1, "CFS", "Controller Fatal Status"),
    bit(2, "SHC", "Shutdown Complete"),
    bit(3, "WCE", "Volatile Write Cache Enable"),
    bit(4, "NQSET", "Number of Queues was set"),
    bit(5, "ACQPT", "Phase tag of the next admin completion"),
];

static FIXED: Table = Table {
    name: "VSD",
    title: "Vendor Specific Data",
    bytes: 96,
    rows: &[
        count(0, 2, "VSD_VER", "Version of the format"),
        hex(2, 2, "FLAGS", "Flags").of(FLAGS),
        count(4, 4, "BYTES", "Bytes of this part without padding"),
        hex(8, 4, "CC", "Controller Configuration").of(CC),
        hex(12, 4, "AQA", "Admin Queue Attributes").of(AQA),
        hex(16, 8, "ASQ", "Admin Submission Queue Base Address"),
        hex(24, 8, "ACQ", "Admin Completion Queue Base Address"),
        hex(32, 4, "INTM", "Interrupt Mask"),
        count(36, 2, "ASQHP", "Admin Submission Queue Head Pointer"),
        count(38, 2, "ASQTP", "Admin Submission Queue Tail Pointer"),
        count(40, 2, "ACQHP", "Admin Completion Queue Head Pointer"),
        count(42, 2, "ACQTP", "Admin Completion Queue Tail Pointer"),
        hex(44, 4, "NQ", "Number of Queues as granted").of(dword(0x07)),
        hex(48, 4, "ARB", "Arbitration").of(dword(0x01)),
        hex(52, 4, "PM", "Power Management").of(dword(0x02)),
        count(56, 2, "OVERTH", "Over Temperature Threshold in kelvin").means(kelvin),
        count(58, 2, "UNDERTH", "Under Temperature Threshold in kelvin").means(kelvin),
        hex(60, 4, "IC", "Interrupt Coalescing").of(dword(0x08)),
        hex(64, 4, "AEC", "Asynchronous Event Configuration").of(dword(0x0B)),
        hex(68, 4, "KAT", "Keep Alive Timer").of(dword(0x0F)),
        bytes(72, 8, "HBS", "Host Behavior Support, its first bytes"),
        hex(80, 1, "AEM", "Asynchronous event types that are masked, bit t for type t"),
        count(82, 2, "NAER", "Number of outstanding Asynchronous Event Requests"),
        count(84, 2, "NEVENT", "Number of waiting events"),
    ],
    groups: &[],
    meaning: |_| "of a controller of nvme-controller, by its version and lengths".into(),
};

static REQUEST: Table = Table {
    name: "AER",
    title: "Asynchronous Event Request",
    bytes: 2,
    rows: &[count(0, 2, "CID", "Command Identifier")],
    groups: &[],
    meaning: no_meaning,
};

static EVENT: Table = Table {
    name: "EVENT",
    title: "Waiting event",
    bytes: 8,
    rows: &[
        count(0, 1, "AET", "Asynchronous Event Type").means(event_type),
        hex(1, 1, "AEI", "Asynchronous Event Information"),
        hex(2, 1, "LID", "Log Page Identifier"),
        hex(4, 4, "ESP", "Event Specific Parameter"),
    ],
    groups: &[],
    meaning: no_meaning,
};

/// Every table here, for the test of all tables.
#[cfg(test)]
pub(super) static TABLES: &[&Table] = &[&FIXED, &REQUEST, &EVENT];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::describe::Value;

    /// A part with a number of its own in each field, two requests and one event.
    fn part() -> Vec<u8> {
        let mut part = vec![0; state_format::bytes(2, 1)];
        for (at, bytes) in [
            (0, &[1, 0, 0x39, 0][..]),
            (4, &[108, 0, 0, 0]),
            (8, &[1, 0, 0x46, 0]),
            (12, &[0x1F, 0, 0x1E, 0]),
            (16, &[0, 0x10, 0x32, 0x54, 0x76, 0, 0, 0]),
            (24, &[0, 0x20, 0x32, 0x54, 0x76, 0, 0, 0]),
            (32, &[5, 0, 0, 0]),
            (36, &[1, 0, 2, 0, 3, 0, 4, 0]),
            (44, &[3, 0, 2, 0]),
            (48, &[7, 0, 0, 0]),
            (52, &[0x20, 0, 0, 0]),
            (56, &[0x57, 1, 0x11, 1]),
            (60, &[4, 9, 0, 0]),
            (64, &[0, 1, 0, 0]),
            (68, &[0xE8, 3, 0, 0]),
            (72, &[1]),
            (80, &[2]),
            (82, &[2, 0, 1, 0]),
            (96, &[11, 0, 12, 0]),
            (100, &[2, 4, 8, 0, 7, 0, 0, 0]),
        ] {
            part[at..at + bytes.len()].copy_from_slice(bytes);
        }
        part
    }

    #[test]
    fn every_field_of_a_part_is_named() {
        let structure = vendor_state(&part(), &Context::default()).expect("one of this format");
        for (name, expected) in [
            ("VSD_VER", 1),
            ("FLAGS", 0x39),
            ("BYTES", 108),
            ("CC", 0x46_0001),
            ("AQA", 0x1E_001F),
            ("ASQ", 0x76_5432_1000),
            ("ACQ", 0x76_5432_2000),
            ("INTM", 5),
            ("ASQHP", 1),
            ("ASQTP", 2),
            ("ACQHP", 3),
            ("ACQTP", 4),
            ("NQ", 0x2_0003),
            ("ARB", 7),
            ("PM", 0x20),
            ("OVERTH", 343),
            ("UNDERTH", 273),
            ("IC", 0x904),
            ("AEC", 0x100),
            ("KAT", 1000),
            ("AEM", 2),
            ("NAER", 2),
            ("NEVENT", 1),
        ] {
            let field = structure.field(name).unwrap_or_else(|| panic!("no {name}"));
            assert!(
                matches!(field.value, Value::Integer { number, .. } if number == expected),
                "{name}: {field:?}"
            );
        }
        assert_eq!(
            structure.field("HBS").map(|field| &field.value),
            Some(&Value::Bytes(vec![1, 0, 0, 0, 0, 0, 0, 0]))
        );
        let all = structure.fields.iter().filter(|field| !field.reserved).count();
        assert_eq!(all, FIXED.rows.len());
        let lists: Vec<Vec<String>> = structure
            .lists
            .iter()
            .map(|list| list.items.iter().map(|item| item.fields[0].value.to_string()).collect())
            .collect();
        assert_eq!(lists, [vec!["11", "12"], vec!["2"]]);
        assert_eq!(structure.problems, [""; 0]);
    }

    #[test]
    fn a_part_that_does_not_agree_with_itself_is_another_vendor_s() {
        let good = part();
        for (at, value) in [(0, 2), (1, 1), (4, 107), (5, 1), (82, 3), (83, 0xFF), (84, 0), (85, 0xFF)] {
            let mut part = good.clone();
            part[at] = value;
            assert_eq!(vendor_state(&part, &Context::default()), None, "byte {at}");
        }
        for cut in 0..good.len() {
            assert_eq!(vendor_state(&good[..cut], &Context::default()), None, "{cut} bytes");
        }
        assert_eq!(vendor_state(&[&good[..], &[0; 4]].concat(), &Context::default()), None);
        // One request leaves two bytes of padding.
        let mut odd = good[..96].to_vec();
        (odd[4], odd[82], odd[84]) = (98, 1, 0);
        odd.extend([11, 0, 0, 0]);
        assert!(vendor_state(&odd, &Context::default()).is_some());
        odd[99] = 1;
        assert_eq!(vendor_state(&odd, &Context::default()), None, "padding");
    }
}

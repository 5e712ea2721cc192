// SPDX-License-Identifier: MIT OR Apache-2.0
//! Every table is sound, and no byte is left out.

use super::super::table::{self, Table};
use super::super::{
    controller, entry, feature, identify, log, log_lists, log_more, namespace, registers, state, vendor,
};
use super::*;

fn tables() -> Vec<&'static Table> {
    let all = [
        controller::TABLES,
        entry::TABLES,
        feature::TABLES,
        identify::TABLES,
        log::TABLES,
        log_lists::TABLES,
        log_more::TABLES,
        namespace::TABLES,
        state::TABLES,
        vendor::TABLES,
    ];
    all.concat()
}

#[test]
fn no_field_of_any_table_overlaps_another_or_leaves_its_structure() {
    for table in tables() {
        let rows = table.rows.iter().map(|row| (row.at, row.at + row.length, row.name));
        let groups = table.groups.iter().map(|group| (group.at, group.end(), group.name));
        let mut ranges: Vec<_> = rows.chain(groups).collect();
        let names: std::collections::BTreeSet<_> = ranges.iter().map(|(_, _, name)| *name).collect();
        assert_eq!(names.len(), ranges.len(), "{}: a name occurs twice", table.title);
        assert!(names.iter().all(|name| name.starts_with(|c: char| c.is_ascii_uppercase())), "{names:?}");
        assert!(table.rows.is_sorted_by_key(|row| row.at), "{}", table.title);
        ranges.sort_unstable();
        for pair in ranges.windows(2) {
            assert!(pair[0].1 <= pair[1].0, "{}: {} and {} overlap", table.title, pair[0].2, pair[1].2);
        }
        if let Some((_, end, name)) = ranges.last() {
            assert!(*end <= table.bytes, "{}: {name} ends at {end} of {}", table.title, table.bytes);
        }
        for row in table.rows {
            sound_bits(&format!("{} {}", table.title, row.name), row.length as u32 * 8, row.bits);
        }
    }
    for (name, width, parts) in registers::tables() {
        sound_bits(name, width, parts);
    }
    for (name, width, parts) in feature::bit_tables() {
        sound_bits(&name, width, parts);
    }
}

fn sound_bits(name: &str, width: u32, parts: &[table::Bits]) {
    let mut next = 0;
    let names: std::collections::BTreeSet<_> = parts.iter().map(|part| part.name).collect();
    assert_eq!(names.len(), parts.len(), "{name}: a bit field's name occurs twice");
    for part in parts {
        assert!(next <= u32::from(part.low) && part.low <= part.high, "{name}: {} overlaps", part.name);
        next = u32::from(part.high) + 1;
        assert!(next <= width, "{name}: {} ends at bit {next} of {width}", part.name);
    }
}

/// Every byte of the data is in exactly one field.
fn covered(structure: &Structure, base: usize, marks: &mut [u8]) {
    for field in &structure.fields {
        if let Place::Bytes { offset, length } = field.place {
            for mark in &mut marks[base + offset..base + offset + length] {
                *mark += 1;
            }
        }
    }
}

#[test]
fn no_byte_is_left_out() {
    for table in tables() {
        let data = vec![0xA5; table.bytes + 7];
        let structure = table.decode(&data, &PAGE);
        let mut marks = vec![0; data.len()];
        covered(&structure, 0, &mut marks);
        for (list, group) in structure.lists.iter().zip(table.groups) {
            for (index, item) in list.items.iter().enumerate() {
                covered(item, group.at + index * group.table.bytes, &mut marks);
            }
        }
        let missed = marks.iter().position(|mark| *mark != 1);
        assert_eq!(missed, None, "{}: a byte is in no field or in two", table.title);
    }
}

// SPDX-License-Identifier: MIT OR Apache-2.0
//! Register accesses of every width at every kind of offset. NVMe Base 2.1 §3.1.4, Controller Properties.

use crate::conformance::backend::Backend;
use crate::conformance::world::sqe;
use crate::conformance::world::*;

/// Every property of the figure with its size in bytes, doorbells apart.
const PROPERTIES: [(&str, u32, u32); 29] = [
    ("CAP", 0x00, 8),
    ("VS", 0x08, 4),
    ("INTMS", 0x0C, 4),
    ("INTMC", 0x10, 4),
    ("CC", 0x14, 4),
    ("CSTS", 0x1C, 4),
    ("NSSR", 0x20, 4),
    ("AQA", 0x24, 4),
    ("ASQ", 0x28, 8),
    ("ACQ", 0x30, 8),
    ("CMBLOC", 0x38, 4),
    ("CMBSZ", 0x3C, 4),
    ("BPINFO", 0x40, 4),
    ("BPRSEL", 0x44, 4),
    ("BPMBL", 0x48, 8),
    ("CMBMSC", 0x50, 8),
    ("CMBSTS", 0x58, 4),
    ("CMBEBS", 0x5C, 4),
    ("CMBSWTP", 0x60, 4),
    ("NSSD", 0x64, 4),
    ("CRTO", 0x68, 4),
    ("PMRCAP", 0xE00, 4),
    ("PMRCTL", 0xE04, 4),
    ("PMRSTS", 0xE08, 4),
    ("PMREBS", 0xE0C, 4),
    ("PMRSWTP", 0xE10, 4),
    ("PMRMSCL", 0xE14, 4),
    ("PMRMSCU", 0xE18, 4),
    ("first doorbell", 0x1000, 4),
];

/// Whether the controller still answers, and everything it is configured with.
fn configuration(world: &World) -> [u64; 5] {
    [CC, CSTS, AQA, ASQ, ACQ].map(|offset| world.read64(GUEST, offset & !7))
}

pub(crate) fn every_property_reads_alike_in_every_width(backend: &dyn Backend) {
    let world = World::new(backend);
    for (name, offset, size) in PROPERTIES {
        let low = world.access(GUEST, offset, 4).unwrap_or_else(|_| panic!("{name}: 32 bits are refused"));
        if size == 8 {
            let high = world.access(GUEST, offset + 4, 4).expect("the upper half");
            let whole = world.access(GUEST, offset, 8).expect("64 bits at once");
            assert_eq!(whole, low | high << 32, "{name}");
        }
        // Reading twice changes nothing.
        assert_eq!(world.access(GUEST, offset, 4), Ok(low), "{name}");
    }
    assert_eq!(world.read32(GUEST, CSTS), 1, "ready, and nothing else");
}

pub(crate) fn pairs_of_properties_can_be_reached_by_one_64_bit_access(backend: &dyn Backend) {
    let world = World::new(backend);
    // Whatever 64-bit accesses to two 32-bit properties give, they harm nothing.
    let before = configuration(&world);
    for offset in (0..0x70).chain(0xE00..0xE20).step_by(8) {
        if let Ok(value) = world.access(GUEST, offset, 8) {
            assert_eq!(value, world.read64(GUEST, offset), "offset {offset:#x}");
        }
    }
    assert_eq!(configuration(&world), before);
}

pub(crate) fn reserved_offsets_read_zero_and_ignore_writes(backend: &dyn Backend) {
    let mut world = World::new(backend);
    let before = configuration(&world);
    let defined = |offset: u32| PROPERTIES.iter().any(|(_, at, size)| (*at..at + size).contains(&offset));
    let reserved: Vec<u32> =
        (0..0x1000).step_by(4).filter(|offset| !defined(*offset)).filter(|offset| *offset != 0x18).collect();
    assert!(reserved.len() > 900, "the figure leaves most of the page reserved");
    for offset in reserved {
        assert_eq!(world.read32(GUEST, offset), 0, "offset {offset:#x}");
        world.write32(GUEST, offset, !0);
        assert_eq!(world.read32(GUEST, offset), 0, "offset {offset:#x} after a write");
    }
    assert_eq!(configuration(&world), before);
    world.admin(GUEST, sqe::get_features(0x01, 0)).ok();
}

pub(crate) fn properties_of_features_that_are_absent_are_inert(backend: &dyn Backend) {
    let mut world = World::new(backend);
    let cap = world.read64(GUEST, 0);
    let bit = |bit: u32| cap >> bit & 1 == 1;
    // What CAP does not announce reads zero, also after a write.
    let rows: [(&str, bool, &[u32]); 4] = [
        ("controller memory buffer", bit(57), &[0x38, 0x3C, 0x50, 0x54, 0x58, 0x5C, 0x60]),
        ("persistent memory region", bit(56), &[0xE00, 0xE04, 0xE08, 0xE0C, 0xE10, 0xE14, 0xE18]),
        ("boot partition", bit(45), &[0x40, 0x44, 0x48, 0x4C]),
        ("subsystem shutdown", bit(58), &[0x64]),
    ];
    for (name, announced, offsets) in rows {
        for offset in offsets.iter().filter(|_| !announced) {
            world.write32(GUEST, *offset, !0);
            assert_eq!(world.read32(GUEST, *offset), 0, "{name}, offset {offset:#x}");
        }
    }
    // The subsystem shutdown's two magic values, in case.
    for value in [0x4E72_6D6C, 0x4162_7074] {
        if !bit(58) {
            world.write32(GUEST, 0x64, value);
        }
    }
    world.settle();
    assert_eq!(world.read32(GUEST, CSTS), 1);
    world.admin(GUEST, sqe::get_features(0x01, 0)).ok();
}

pub(crate) fn accesses_beyond_the_last_doorbell_are_harmless(backend: &dyn Backend) {
    for offset in [0x1000 + 8 * 100, 0x2000, 0x3FFC, 0x4000, 0x8_0000, 0x10_0000, 0x7FFF_FFFC, 0xFFFF_FFFC] {
        let mut world = World::new(backend);
        let before = configuration(&world);
        let request = world.leave(GUEST, 0, sqe::event_request());
        // A back end may know that nothing lies there and refuse.
        let read = world.access(GUEST, offset, 4);
        if let Ok(value) = read {
            assert!(matches!(value, 0 | 0xFFFF_FFFF), "offset {offset:#x} reads {value:#x}");
        }
        if world.access_write(GUEST, offset, 4, 1).is_ok() {
            // Inside the doorbell space it is one that does not exist.
            let event = world.event(GUEST, request);
            assert!(matches!(event, None | Some((0x0001_0000, 0))), "offset {offset:#x}: {event:x?}");
        }
        assert_eq!(configuration(&world), before, "offset {offset:#x}");
        world.admin(GUEST, sqe::get_features(0x01, 0)).ok();
    }
}

pub(crate) fn doorbells_read_without_effect(backend: &dyn Backend) {
    let mut world = World::new(backend);
    world.create_pair(GUEST, 1, 8);
    for queue in 0..3 {
        for offset in [0x1000 + queue * 8, 0x1004 + queue * 8] {
            assert_eq!(world.read32(GUEST, offset), 0, "offset {offset:#x}");
        }
    }
    world.exec(GUEST, 1, sqe::flush(NSID)).ok();
}

pub(crate) fn narrow_and_misaligned_accesses_are_refused_or_harmless(backend: &dyn Backend) {
    let mut world = World::new(backend);
    world.create_pair(GUEST, 1, 8);
    let before = configuration(&world);
    let request = world.leave(GUEST, 0, sqe::event_request());
    let mut odd: Vec<(u32, u8)> = Vec::new();
    for base in [0x00, 0x08, 0x14, 0x1C, 0x28, 0x68, 0xE14] {
        odd.extend((0..8).map(|byte| (base + byte, 1)));
        odd.extend((0..7).map(|byte| (base + byte, 2)));
        odd.extend([1, 2, 3, 5].map(|byte| (base + byte, 4)));
        odd.extend([1, 2, 3, 4, 5, 6, 7].map(|byte| ((base & !7) + byte, 8)));
    }
    for (offset, width) in odd {
        // A back end that makes the access gives the bytes of the aligned words.
        if let Ok(value) = world.access(GUEST, offset, width) {
            let words = u128::from(world.read64(GUEST, offset & !7))
                | u128::from(world.read64(GUEST, (offset & !7) + 8)) << 64;
            let expected = (words >> (offset % 8 * 8)) as u64 & (!0 >> (64 - u32::from(width) * 8));
            assert_eq!(value, expected, "{width} bytes at {offset:#x}");
        }
        // Writes go to what is read-only or reserved.
        if !(0x0C..0x68).contains(&offset) {
            let _ = world.access_write(GUEST, offset, width, !0);
        }
        assert_eq!(configuration(&world), before, "{width} bytes at {offset:#x}");
    }
    // A doorbell is a word.
    for (offset, width) in [(0x1008, 1), (0x1008, 2), (0x1009, 4), (0x100A, 2), (0x100C, 1)] {
        let tail = world.access_write(GUEST, offset, width, 0);
        world.settle();
        assert!(!world.is_fatal(GUEST), "{width} bytes at {offset:#x}: {tail:?}");
    }
    let event = world.event(GUEST, request);
    assert!(matches!(event, None | Some((0x0001_0100, 0))), "nothing but an invalid value: {event:x?}");
    world.reset(GUEST);
    world.create_pair(GUEST, 1, 8);
    world.exec(GUEST, 1, sqe::flush(NSID)).ok();
}

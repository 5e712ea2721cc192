// SPDX-License-Identifier: MIT OR Apache-2.0
//! Tests of the tracking commands and structures.

use std::vec::Vec;

use proptest::prelude::*;

use super::*;
use crate::wire::{NamespaceId, StatusCode};

fn range(start: u64, granules: u32) -> MemoryRange {
    MemoryRange { start: BusAddr::new(start), granules }
}

fn granularity(exponent: u8) -> MemoryGranularity {
    MemoryGranularity::new(exponent).unwrap()
}

#[test]
fn commands_encode_as_the_figures_say() {
    let log = |start| TrackSend::LogUserDataChanges { start, queue: CdqId::new(9) }.encode().dwords();
    assert_eq!(log(true), [0x1_0000, 9, 0, 0, 0, 0]);
    assert_eq!(log(false), [0, 9, 0, 0, 0, 0]);
    let memory = TrackSend::TrackMemoryChanges { start: true, controller: ControllerId::new(7) };
    assert_eq!(memory.encode().dwords(), [0x1_0001, 7, 0, 0, 0, 0]);
    let receive = TrackReceive { controller: ControllerId::new(7), dwords: 1024 };
    assert_eq!(receive.encode().dwords(), [0, 7, 1023, 0, 0, 0]);
    assert_eq!(receive.data_bytes(), 4096);
}

#[test]
fn decode_refuses_reserved_values() {
    let send = SubmissionQueueEntry::new(0x3D);
    let rows = [
        ("select 2", send.with_dwords([2, 0, 0, 0, 0, 0]), "SEL", 2),
        ("logging action 2", send.with_dwords([0x2_0000, 0, 0, 0, 0, 0]), "LACT", 2),
        ("tracking action 3", send.with_dwords([0x3_0001, 0, 0, 0, 0, 0]), "TACT", 3),
        ("namespace", send.with_namespace(NamespaceId::new(1)), "NSID", 1),
    ];
    for (name, entry, field, value) in rows {
        let error = TrackSend::decode(&entry).unwrap_err();
        assert_eq!(
            (error.field, error.value, error.status),
            (field, value, StatusCode::INVALID_FIELD),
            "{name}"
        );
    }
    let error = TrackReceive::decode(&SubmissionQueueEntry::new(0x3E).with_dwords([1, 0, 0, 0, 0, 0]));
    assert_eq!(error.unwrap_err().field, "SEL");
}

#[test]
fn r15_ranges_to_track_round_trip() {
    let ranges = [range(0, 1), range(0x4000, 2), range(u64::MAX - 0x1FFF, 1)];
    let mut buffer = [0xEE; 64];
    let len = TrackMemoryRanges::build(&mut buffer, granularity(1), &ranges).unwrap();
    assert_eq!(len, 8 + 3 * 12);
    assert_eq!(&buffer[..8], &[0, 0, 0, 1, 3, 0, 0, 0]);
    assert_eq!(buffer[len], 0xEE);
    let parsed = TrackMemoryRanges::parse(&buffer, true).unwrap();
    assert_eq!(parsed.granularity(), granularity(1));
    assert_eq!(parsed.iter().collect::<Vec<_>>(), ranges);
}

#[test]
fn r15_illegal_tracking_ranges_are_errors() {
    let raw = |ver, exponent, count: u32, start: u64, len: u32| {
        let mut bytes = std::vec![ver, 0, 0, exponent];
        bytes.extend(count.to_le_bytes());
        bytes.extend(start.to_le_bytes());
        bytes.extend(len.to_le_bytes());
        bytes
    };
    let rows = [
        ("empty", Vec::new(), TrackError::Short { needed: 8, found: 0 }),
        ("descriptor missing", raw(0, 0, 2, 0, 1), TrackError::Short { needed: 32, found: 20 }),
        (
            "count overflows",
            raw(0, 0, u32::MAX, 0, 1),
            TrackError::Short { needed: 51_539_607_548, found: 20 },
        ),
        ("version 1", raw(1, 0, 1, 0, 1), TrackError::Version(1)),
        ("granularity past the address space", raw(0, 52, 1, 0, 1), TrackError::Granularity(52)),
        ("no length", raw(0, 0, 1, 0, 0), TrackError::Range(range(0, 0))),
        ("unaligned", raw(0, 1, 1, 0x1000, 1), TrackError::Range(range(0x1000, 1))),
        (
            "past the end",
            raw(0, 0, 1, 0xFFFF_FFFF_FFFF_F000, 2),
            TrackError::Range(range(0xFFFF_FFFF_FFFF_F000, 2)),
        ),
        ("not a power of two", raw(0, 0, 1, 0, 3), TrackError::Range(range(0, 3))),
    ];
    for (name, bytes, error) in rows {
        assert_eq!(TrackMemoryRanges::parse(&bytes, true).unwrap_err(), error, "{name}");
    }
    assert_eq!(TrackMemoryRanges::parse(&raw(0, 0, 1, 0, 3), false).unwrap().iter().len(), 1);
    let mut small = [0; 19];
    let error = TrackMemoryRanges::build(&mut small, granularity(0), &[range(0, 1)]).unwrap_err();
    assert_eq!(error, TrackError::Short { needed: 20, found: 19 });
    let mut enough = [0; 64];
    for (name, bad) in
        [("empty", range(0, 0)), ("unaligned", range(0x1000, 1)), ("past the end", range(!0x1FFF, 2))]
    {
        let built = TrackMemoryRanges::build(&mut enough, granularity(1), &[range(0, 1), bad]);
        assert_eq!(built, Err(TrackError::Range(bad)), "{name}");
        assert_eq!(enough, [0; 64], "{name}: nothing is written");
    }
}

#[test]
fn r15_changes_that_cannot_be_are_refused() {
    let mut bytes = [0; 32];
    let mut builder = TrackedMemoryBuilder::new(&mut bytes, ControllerId::new(7), granularity(1)).unwrap();
    assert_eq!(builder.push(range(0x1000, 1)), Err(TrackError::Range(range(0x1000, 1))), "unaligned");
    assert_eq!(builder.push(range(0x4000, 3)), Ok(true));
    assert_eq!(builder.push(range(0x8000, 1)), Ok(false), "no room for another");
    assert_eq!(builder.finish(true, false), 32);
    let changes = TrackedMemoryChanges::parse(&bytes).unwrap();
    assert_eq!((changes.granularity(), changes.controller()), (granularity(1), ControllerId::new(7)));
    // The same report with another granularity (RPMPG) or length.
    for (name, exponent, granules, expected) in
        [("unaligned now", 3, 3, range(0x4000, 3)), ("empty", 1, 0, range(0x4000, 0))]
    {
        let mut bad = bytes;
        bad[8] = exponent;
        bad[24] = granules;
        assert_eq!(TrackedMemoryChanges::parse(&bad).unwrap_err(), TrackError::Range(expected), "{name}");
    }
}

#[test]
fn r15_changes_round_trip_and_end_only_when_suspended() {
    for (name, more, suspended, last) in [
        ("more", true, true, false),
        ("nothing at the moment", false, false, false),
        ("final", false, true, true),
        ("more while running", true, false, false),
    ] {
        let mut buffer = [0xEE; 56];
        let mut builder =
            TrackedMemoryBuilder::new(&mut buffer, ControllerId::new(5), granularity(0)).unwrap();
        assert_eq!(builder.push(range(0x1000, 3)), Ok(true), "{name}");
        assert_eq!(builder.push(range(0x9000, 1)), Ok(true), "{name}");
        assert_eq!(builder.push(range(0xA000, 1)), Ok(false), "{name}: no room for a third");
        assert_eq!(builder.push(range(0xA001, 1)), Err(TrackError::Range(range(0xA001, 1))), "{name}");
        assert_eq!(builder.finish(more, suspended), 48, "{name}");
        let changes = TrackedMemoryChanges::parse(&buffer).unwrap();
        assert_eq!(changes.controller(), ControllerId::new(5), "{name}");
        assert_eq!(
            (changes.more(), changes.suspended(), changes.is_final()),
            (more, suspended, last),
            "{name}"
        );
        assert_eq!(changes.iter().collect::<Vec<_>>(), [range(0x1000, 3), range(0x9000, 1)], "{name}");
    }
}

#[test]
fn r15_changes_without_end_are_refused() {
    let mut buffer = [0; 16];
    let builder = TrackedMemoryBuilder::new(&mut buffer, ControllerId::new(5), granularity(0)).unwrap();
    assert_eq!(builder.finish(true, false), 16);
    assert!(!TrackedMemoryChanges::parse(&buffer).unwrap().more(), "an empty report announces nothing");
    buffer[1] = 1;
    assert_eq!(TrackedMemoryChanges::parse(&buffer).unwrap_err(), TrackError::MoreWithoutChanges);
    buffer[4] = 1;
    assert_eq!(
        TrackedMemoryChanges::parse(&buffer).unwrap_err(),
        TrackError::Short { needed: 32, found: 16 }
    );
    buffer[8] = 52;
    assert_eq!(TrackedMemoryChanges::parse(&buffer).unwrap_err(), TrackError::Granularity(52));
    buffer[0] = 3;
    assert_eq!(TrackedMemoryChanges::parse(&buffer).unwrap_err(), TrackError::Version(3));
    assert_eq!(
        TrackedMemoryChanges::parse(&buffer[..15]).unwrap_err(),
        TrackError::Short { needed: 16, found: 15 }
    );
}

#[test]
fn tracking_results_round_trip() {
    let result = TrackMemoryResult { granularity: 4, descriptors: 64 };
    let (dw0, dw1) = result.result();
    let entry = CompletionQueueEntry::default().with_result(dw0, dw1);
    assert_eq!(TrackMemoryResult::from_completion(&entry), result);
}

proptest! {
    #[test]
    fn commands_round_trip(start: bool, operand: u16, dwords in 1_u64..=1 << 32) {
        for command in [
            TrackSend::LogUserDataChanges { start, queue: CdqId::new(operand) },
            TrackSend::TrackMemoryChanges { start, controller: ControllerId::new(operand) },
        ] {
            prop_assert_eq!(TrackSend::decode(&command.encode()), Ok(command));
        }
        let receive = TrackReceive { controller: ControllerId::new(operand), dwords };
        prop_assert_eq!(TrackReceive::decode(&receive.encode()), Ok(receive));
    }

    #[test]
    fn any_bytes_parse_or_fail(bytes in proptest::collection::vec(any::<u8>(), 0..200), power: bool) {
        if let Ok(ranges) = TrackMemoryRanges::parse(&bytes, power) {
            prop_assert!(ranges.iter().all(|r| r.bytes(ranges.granularity()).is_some()));
        }
        if let Ok(changes) = TrackedMemoryChanges::parse(&bytes) {
            prop_assert!(changes.iter().len() * 16 + 16 <= bytes.len());
        }
    }
}

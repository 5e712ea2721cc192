// SPDX-License-Identifier: MIT OR Apache-2.0
//! Lists are checked by walking them as a controller does.

use std::vec::Vec;

use proptest::prelude::*;

use super::*;
use crate::dma::{Direction, Pool};
use crate::testing::{PAGE, TestArena};

const SLOTS: usize = PAGE / 8;

/// The data or queue pages that a list of `entries` entries at `list` names.
fn walk(arena: &TestArena, list: BusAddr, entries: usize, page: usize) -> Vec<u64> {
    let slots = page / 8;
    let (mut at, mut found) = (list, Vec::new());
    let mut slot = 0;
    while found.len() < entries {
        let entry = arena.device_read_u64(at.plus(slot as u64 * 8));
        if slot == slots - 1 && entries - found.len() > 1 {
            at = BusAddr::new(entry);
            assert_eq!(at.page_offset(page as u64), 0, "chained list pages start at a page boundary");
            slot = 0;
        } else {
            found.push(entry);
            slot += 1;
        }
    }
    found
}

/// (address, length) of each piece that a data pointer names for `len` bytes.
fn pieces(arena: &TestArena, pointer: DataPointer, len: usize, page: usize) -> Vec<(u64, usize)> {
    let offset = pointer.prp1.page_offset(page as u64) as usize;
    let first = len.min(page - offset);
    let mut found = std::vec![(pointer.prp1.get(), first)];
    let mut left = len - first;
    let others = left.div_ceil(page);
    let addresses = match others {
        0 => Vec::new(),
        1 => std::vec![pointer.prp2.get()],
        n => walk(arena, pointer.prp2, n, page),
    };
    for address in addresses {
        assert_eq!(address % page as u64, 0, "all pieces but the first have offset 0");
        found.push((address, left.min(page)));
        left -= left.min(page);
    }
    found
}

/// Builds, walks, compares every piece with the arena's own address, and checks that nothing beyond the list changed.
fn check(layout: Layout, list_layout: Layout, offset: usize, len: usize, page: usize) {
    let arena = TestArena::new();
    let make = |layout, len| match layout {
        Layout::Contiguous => arena.allocate(Pool::Data, len, page, Direction::Bidirectional).unwrap(),
        Layout::Scattered => arena.allocate_scattered(Pool::Data, len, Direction::Bidirectional).unwrap(),
    };
    let data = make(layout, offset + len);
    let entries = pages(offset % page, len, page) - 1;
    let size = list_pages(entries, page).max(1) * page;
    let lists = make(list_layout, size + page);
    let canary = std::vec![0xA5; page];
    lists.write(size, &canary).unwrap();

    let list = ListMemory { region: &lists, range: 0..size };
    let pointer = build(&arena, &data, offset..offset + len, page, list).unwrap();
    let mut at = offset;
    for (address, piece) in pieces(&arena, pointer, len, page) {
        for byte in [at, at + piece - 1] {
            let expected = arena.bus_address(&data, byte).unwrap().get();
            assert_eq!(address + (byte - at) as u64, expected, "byte {byte} of {len} at {offset}");
        }
        at += piece;
    }
    assert_eq!(at, offset + len);
    let mut after = std::vec![0; page];
    lists.read(size, &mut after).unwrap();
    assert_eq!(after, canary, "the next command's list page is untouched");
}

#[test]
fn data_around_page_boundaries() {
    for layout in [Layout::Contiguous, Layout::Scattered] {
        for page in [PAGE, 2 * PAGE] {
            if layout == Layout::Scattered && page != PAGE {
                continue;
            }
            for pages in [1, 2, 3, 9] {
                for change in [-4_isize, 0, 4] {
                    for offset in [0, 4, 512, page - 4, page, page + 4] {
                        let len = (pages * page).checked_add_signed(change).unwrap();
                        check(layout, Layout::Contiguous, offset, len, page);
                    }
                }
            }
            check(layout, layout, 0, 1, page);
            check(layout, layout, page - 4, 4, page);
            check(layout, layout, page - 4, 5, page);
        }
    }
}

#[test]
fn list_lengths_around_the_end_of_a_list_page() {
    for entries in [1, 2, 510, 511, 512, 513, 514, 1022, 1023, 1024, 1025, 1534, 1535, 1536, 5000] {
        for list_layout in [Layout::Contiguous, Layout::Scattered] {
            for layout in [Layout::Contiguous, Layout::Scattered] {
                for change in [-4_isize, 0] {
                    let len = ((entries + 1) * PAGE).checked_add_signed(change).unwrap();
                    check(layout, list_layout, 0, len, PAGE);
                    check(layout, list_layout, 2048, len - 2048, PAGE);
                }
            }
        }
    }
}

#[test]
fn pages_a_list_takes() {
    for (entries, expected) in [
        (0, 0),
        (1, 1),
        (511, 1),
        (512, 1),
        (513, 2),
        (1023, 2),
        (1024, 3),
        (1025, 3),
        (1533, 3),
        (1534, 3),
        (1535, 4),
    ] {
        assert_eq!(list_pages(entries, PAGE), expected, "{entries} entries");
    }
    for (name, found) in [
        ("pages of no size", pages(0, 4096, 0)),
        ("more bytes than can be counted", pages(usize::MAX, 1, PAGE)),
        ("list pages without room for a link", list_pages(5, 8)),
        ("a transfer in pages of no size", list_pages_for_transfer(4096, 0)),
    ] {
        assert_eq!(found, 0, "{name}");
    }
    assert_eq!(list_bytes(512, PAGE), 4096);
    assert_eq!(list_bytes(513, PAGE), 514 * 8);
    for (name, len, expected) in [
        ("nothing", 0, 0),
        ("one block", 512, 0),
        ("a page, in two at most", PAGE, 0),
        ("a byte more, in three perhaps", PAGE + 1, 1),
        ("two pages at an odd offset take a list of two", 2 * PAGE, 1),
        ("a full list page", SLOTS * PAGE, 1),
        ("one byte more", SLOTS * PAGE + 1, 2),
    ] {
        assert_eq!(list_pages_for_transfer(len, PAGE), expected, "{name}");
    }
}

#[test]
fn queues_of_any_number_of_list_pages() {
    for entries in [1, 2, 511, 512, 513, 1025, 3000] {
        for layout in [Layout::Contiguous, Layout::Scattered] {
            let arena = TestArena::new();
            let len = entries * PAGE - 32;
            let queue = match layout {
                Layout::Contiguous => {
                    arena.allocate(Pool::ControllerData, len, PAGE, Direction::FromDevice).unwrap()
                }
                Layout::Scattered => {
                    arena.allocate_scattered(Pool::ControllerData, len, Direction::FromDevice).unwrap()
                }
            };
            let size = list_pages(entries, PAGE) * PAGE;
            let lists = arena.allocate_scattered(Pool::ControllerData, size, Direction::ToDevice).unwrap();
            let list = ListMemory { region: &lists, range: 0..size };
            let address = build_queue_list(&arena, &queue, 0..len, PAGE, list).unwrap();
            assert_eq!(address, arena.bus_address(&lists, 0).unwrap());
            let expected: Vec<u64> =
                (0..entries).map(|n| arena.bus_address(&queue, n * PAGE).unwrap().get()).collect();
            assert_eq!(walk(&arena, address, entries, PAGE), expected, "{entries} entries, {layout:?}");
        }
    }
}

#[test]
fn what_cannot_be_built() {
    let arena = TestArena::new();
    let data = arena.allocate(Pool::Data, 8 * PAGE, PAGE, Direction::ToDevice).unwrap();
    let scattered = arena.allocate_scattered(Pool::Data, 8 * PAGE, Direction::ToDevice).unwrap();
    let lists = arena.allocate(Pool::Queues, 2 * PAGE, PAGE, Direction::ToDevice).unwrap();
    let list = |range| ListMemory { region: &lists, range };
    let at = |offset| arena.bus_address(&data, offset).unwrap();
    let rows: [(&str, Result<DataPointer, PrpError>, PrpError); 10] = [
        ("no bytes", build(&arena, &data, 8..8, PAGE, list(0..PAGE)), PrpError::Empty),
        (
            "past the end",
            build(&arena, &data, 0..8 * PAGE + 1, PAGE, list(0..PAGE)),
            PrpError::Dma(DmaError::OutOfRange { offset: 0, len: 8 * PAGE + 1, region: 8 * PAGE }),
        ),
        (
            "odd start",
            build(&arena, &data, 2..6, PAGE, list(0..PAGE)),
            PrpError::Misaligned { address: at(2), needed: 4 },
        ),
        (
            "list memory one entry short",
            build(&arena, &data, 0..4 * PAGE, PAGE, list(0..16)),
            PrpError::ListTooSmall { needed: 24, available: 16 },
        ),
        (
            "list memory past its region",
            build(&arena, &data, 0..4 * PAGE, PAGE, list(2 * PAGE..3 * PAGE)),
            PrpError::ListTooSmall { needed: 24, available: 0 },
        ),
        (
            "list not at a page boundary",
            build(&arena, &data, 0..4 * PAGE, PAGE, list(8..PAGE)),
            PrpError::Misaligned { address: arena.bus_address(&lists, 8).unwrap(), needed: PAGE },
        ),
        (
            "page size",
            build(&arena, &data, 0..4 * PAGE, 5000, list(0..PAGE)),
            PrpError::PageSize { bytes: 5000 },
        ),
        (
            "page size that is no power of two, little data",
            build(&arena, &data, 0..512, 6144, list(0..PAGE)),
            PrpError::PageSize { bytes: 6144 },
        ),
        (
            "page size zero",
            build(&arena, &data, 0..4 * PAGE, 0, list(0..PAGE)),
            PrpError::PageSize { bytes: 0 },
        ),
        (
            "arena pages smaller than the controller's",
            build(&arena, &scattered, 0..4 * PAGE, 2 * PAGE, list(0..PAGE)),
            PrpError::ArenaPage { arena: PAGE, controller: 2 * PAGE },
        ),
    ];
    for (name, found, expected) in rows {
        assert_eq!(found, Err(expected), "{name}");
        assert!(!std::format!("{expected}").is_empty());
    }
    let beyond = DmaError::OutOfRange { offset: PAGE, len: 8 * PAGE, region: 8 * PAGE };
    let rows = [
        (
            "queue not at a page boundary",
            64..PAGE,
            PAGE,
            PrpError::Misaligned { address: at(64), needed: PAGE },
        ),
        ("queue of no bytes", PAGE..PAGE, PAGE, PrpError::Empty),
        ("queue past the end", PAGE..9 * PAGE, PAGE, PrpError::Dma(beyond)),
        ("queue in pages of no size", 0..PAGE, 0, PrpError::PageSize { bytes: 0 }),
    ];
    for (name, range, page, expected) in rows {
        assert_eq!(build_queue_list(&arena, &data, range, page, list(0..PAGE)), Err(expected), "{name}");
    }
}

proptest! {
    #[test]
    fn any_data_is_found_again(offset in 0_usize..3 * PAGE / 4, len in 1_usize..40 * PAGE, scattered: bool) {
        let layout = if scattered { Layout::Scattered } else { Layout::Contiguous };
        check(layout, Layout::Contiguous, offset * 4, len, PAGE);
    }

    #[test]
    fn list_pages_is_what_a_walk_needs(entries in 1_usize..10_000, shift in 0_u32..3) {
        let page = PAGE << shift;
        let slots = page / 8;
        // Page by page: a page ends the list if the rest fits, otherwise it holds one entry fewer.
        let (mut left, mut count) = (entries, 1);
        while left > slots {
            left -= slots - 1;
            count += 1;
        }
        prop_assert_eq!(list_pages(entries, page), count);
        prop_assert!(list_bytes(entries, page) <= count * page);
    }
}

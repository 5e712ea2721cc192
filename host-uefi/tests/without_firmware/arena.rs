// SPDX-License-Identifier: MIT OR Apache-2.0
//! Memory from the firmware, and what the firmware may do to it.

use nvme_core::dma::{Direction, DmaArena, DmaError, Layout, Pool};
use nvme_host_uefi::arena::{ArenaSlot, PciArena};

use crate::calls::{Call, Which, refuse, refuse_none};
use crate::sys::{Manners, PAGE, release};
use crate::world::Side;

const BOTH: Direction = Direction::Bidirectional;

#[test]
fn regions_are_zeroed_aligned_on_the_bus_and_given_back_whole() {
    let side = Side::new(9, |_| 0);
    let function = side.manager;
    let mut slots = [const { ArenaSlot::new() }; 8];
    let arena = PciArena::new(&function.io, &mut slots);
    for (name, len, align, scrambles) in [
        ("a byte", 1, 1, false),
        ("a page", PAGE, PAGE, false),
        ("a page and a byte", PAGE + 1, 8, false),
        ("aligned to 64 KiB", 3 * PAGE, 16 * PAGE, false),
        ("the next one, too", PAGE, 16 * PAGE, false),
        ("memory that a mapping changes", 3 * PAGE, PAGE, true),
    ] {
        function.memory.manners.set(Manners { scrambles, ..Manners::default() });
        let region = arena.allocate(Pool::Queues, len, align, BOTH).expect(name);
        assert_eq!(region.bus().get() % align as u64, 0, "{name}");
        assert_eq!((region.len(), region.layout()), (len, Layout::Contiguous), "{name}");
        assert_ne!(region.bus().get(), region.cpu_address().addr().get() as u64, "{name}");
        let mut bytes = vec![0xFF; len];
        region.read(0, &mut bytes).expect(name);
        assert!(bytes.iter().all(|byte| *byte == 0), "{name}");
        assert_eq!(arena.live(), 1, "{name}");
        release(&arena, region);
        assert_eq!((arena.live(), function.memory.live()), (0, (0, 0)), "{name}");
    }
}

#[test]
fn what_cannot_be_had_is_an_error_and_leaves_nothing() {
    let side = Side::new(9, |_| 0);
    let function = side.manager;
    let exhausted = |bytes| DmaError::Exhausted { pool: Pool::Data, bytes };
    let piece = |piece| Manners { piece: Some(piece), ..Manners::default() };
    let rows: [(&str, Manners, usize, Option<usize>, DmaError); 7] = [
        ("no bytes", Manners::default(), 0, Some(PAGE), DmaError::Empty),
        ("no power of two", Manners::default(), PAGE, Some(3), DmaError::Alignment { bytes: 3 }),
        ("more than there is", Manners::default(), usize::MAX, Some(1 << 20), exhausted(usize::MAX)),
        ("mapped in pieces", piece(PAGE), 2 * PAGE, Some(PAGE), exhausted(2 * PAGE)),
        ("less than a page", piece(PAGE - 1), 2 * PAGE, None, exhausted(2 * PAGE)),
        ("not all of it", Manners { maps: Some(2), ..piece(PAGE) }, 3 * PAGE, None, exhausted(3 * PAGE)),
        (
            "askew",
            Manners { askew: true, ..Manners::default() },
            PAGE,
            Some(PAGE),
            DmaError::Alignment { bytes: PAGE },
        ),
    ];
    for (name, manners, len, align, expected) in rows {
        let mut slots = [const { ArenaSlot::new() }; 8];
        let arena = PciArena::new(&function.io, &mut slots);
        function.memory.manners.set(manners);
        let found = match align {
            Some(align) => arena.allocate(Pool::Data, len, align, BOTH),
            None => arena.allocate_scattered(Pool::Data, len, BOTH),
        };
        assert_eq!(found.err(), Some(expected), "{name}");
        assert_eq!((arena.live(), arena.lost(), function.memory.live()), (0, 0, (0, 0)), "{name}");
    }
    function.memory.manners.set(piece(PAGE));
    // Too few slots for the pieces, and then for the regions.
    let mut slots = [const { ArenaSlot::new() }; 2];
    let arena = PciArena::new(&function.io, &mut slots);
    let found = arena.allocate_scattered(Pool::Data, 3 * PAGE, BOTH);
    assert_eq!(found.err(), Some(exhausted(3 * PAGE)));
    assert_eq!((arena.live(), function.memory.live()), (0, (0, 0)));
    let region = arena.allocate_scattered(Pool::Data, 2 * PAGE, BOTH).expect("two");
    assert_eq!(arena.allocate(Pool::Data, 8, 8, BOTH).err(), Some(exhausted(8)));
    release(&arena, region);
    assert_eq!(function.memory.live(), (0, 0));
}

#[test]
fn scattered_memory_has_an_address_for_each_page() {
    let side = Side::new(9, |_| 0);
    let function = side.manager;
    function.memory.manners.set(Manners { piece: Some(PAGE + 100), ..Manners::default() });
    let mut slots = [const { ArenaSlot::new() }; 8];
    let arena = PciArena::new(&function.io, &mut slots);
    let region = arena.allocate_scattered(Pool::Data, 3 * PAGE - 1, BOTH).expect("three pages");
    assert_eq!(region.layout(), Layout::Scattered);
    let pages: Vec<u64> =
        (0..3).map(|page| arena.bus_address(&region, page * PAGE).expect("inside").get()).collect();
    assert_eq!(pages[0], region.bus().get());
    assert!(pages.iter().all(|page| page % PAGE as u64 == 0), "{pages:x?}");
    assert!(pages[1] > pages[0] + PAGE as u64 && pages[2] > pages[1] + PAGE as u64, "{pages:x?}");
    assert_eq!(arena.bus_address(&region, PAGE + 8).expect("inside").get(), pages[1] + 8);
    let outside = DmaError::OutOfRange { offset: 3 * PAGE - 1, len: 1, region: 3 * PAGE - 1 };
    assert_eq!(arena.bus_address(&region, 3 * PAGE - 1), Err(outside));
    release(&arena, region);
    assert_eq!((arena.live(), function.memory.live()), (0, (0, 0)));
}

#[test]
fn memory_that_may_still_be_reached_is_not_given_back() {
    let side = Side::new(9, |_| 0);
    let function = side.manager;
    let mut slots = [const { ArenaSlot::new() }; 4];
    {
        let arena = PciArena::new(&function.io, &mut slots);
        // The firmware does not end the mapping.
        let region = arena.allocate(Pool::Data, PAGE, PAGE, BOTH).expect("a page");
        function.memory.manners.set(Manners { keeps_mappings: true, ..Manners::default() });
        release(&arena, region);
        assert_eq!((arena.live(), arena.lost(), function.memory.live()), (0, 1, (1, 1)));
        function.memory.manners.set(Manners::default());
        // Another arena's region is none of this one's.
        let mut other_slots = [const { ArenaSlot::new() }; 4];
        let other = PciArena::new(&function.io, &mut other_slots);
        release(&arena, other.allocate(Pool::Data, PAGE, PAGE, BOTH).expect("a page"));
        assert_eq!((other.live(), function.memory.live()), (1, (2, 2)));
    }
    // Arenas that are gone leave what a device may reach.
    assert_eq!(function.memory.live(), (2, 2));
}

#[test]
fn what_the_firmware_does_not_take_back_is_counted() {
    let shorter = Manners { piece: Some(PAGE), ..Manners::default() };
    let (unmap, free) = (Call::Unmap, Call::FreeBuffer);
    // (name, call that fails, manners, pages asked for, in one piece, pages lost, buffers and mappings left)
    let rows = [
        ("a mapping", unmap, Manners::default(), 3, true, 3, (1, 1)),
        ("the second of three mappings", unmap, shorter, 3, false, 3, (1, 1)),
        ("pages", free, Manners::default(), 3, true, 3, (1, 0)),
        ("the mapping of what was not given away", unmap, shorter, 2, true, 2, (1, 1)),
        ("the pages of what was not given away", free, shorter, 2, true, 2, (1, 0)),
    ];
    for (name, call, manners, pages, whole, lost, left) in rows {
        let side = Side::new(9, |_| 0);
        let function = side.manager;
        let mut slots = [const { ArenaSlot::new() }; 4];
        let arena = PciArena::new(&function.io, &mut slots);
        function.memory.manners.set(manners);
        refuse(&[(call, Which::Only(if whole { 0 } else { 1 }))]);
        let found = match whole {
            true => arena.allocate(Pool::Data, pages * PAGE, PAGE, BOTH),
            false => arena.allocate_scattered(Pool::Data, pages * PAGE, BOTH),
        };
        if let Ok(region) = found {
            assert_eq!((arena.held(), arena.lost()), (pages, 0), "{name}");
            release(&arena, region);
        }
        assert_eq!(refuse_none(), [1], "{name}");
        let counted = (arena.live(), arena.held(), arena.lost(), function.memory.live());
        assert_eq!(counted, (0, 0, lost, left), "{name}");
    }
}

#[test]
fn what_the_device_wrote_is_waited_for() {
    let side = Side::new(9, |_| 0);
    let mut slots = [const { ArenaSlot::new() }; 4];
    let arena = PciArena::new(&side.manager.io, &mut slots);
    let region = arena.allocate(Pool::Data, PAGE, PAGE, BOTH).expect("a page");
    arena.publish(&region, 0..PAGE);
    assert_eq!(side.manager.flushes.get(), 0);
    arena.acquire(&region, 0..PAGE);
    assert_eq!(side.manager.flushes.get(), 1);
    release(&arena, region);
}

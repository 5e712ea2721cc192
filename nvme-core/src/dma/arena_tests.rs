// SPDX-License-Identifier: MIT OR Apache-2.0
//! What an arena need not say itself, arenas behind references, and accesses that are refused.

use core::cell::RefCell;
use std::string::String;
use std::vec::Vec;

use super::checking::Violation;
use super::*;
use crate::testing::{PAGE, TestArena, TestProof};

/// Says only what it must, and notes what it is asked.
struct Plain {
    inner: TestArena,
    asked: RefCell<Vec<String>>,
}

impl Plain {
    fn new() -> Self {
        Self { inner: TestArena::new(), asked: RefCell::default() }
    }

    fn note(&self, text: impl Into<String>) {
        self.asked.borrow_mut().push(text.into());
    }
}

// SAFETY: every call goes to a test arena, which keeps the promises.
unsafe impl DmaArena for Plain {
    fn allocate(
        &self,
        pool: Pool,
        len: usize,
        align: usize,
        direction: Direction,
    ) -> Result<DmaRegion, DmaError> {
        self.note(std::format!("allocate {len} at {align}"));
        self.inner.allocate(pool, len, align, direction)
    }

    unsafe fn release(&self, region: DmaRegion) {
        self.note(std::format!("release {}", region.len()));
        // SAFETY: the caller's promise is the same; a test arena wants to hear the evidence.
        unsafe { self.inner.release_proved(region, Evidence::Disabled) }
    }

    fn publish(&self, region: &DmaRegion, range: Range<usize>) {
        self.note(std::format!("publish {range:?}"));
        self.inner.publish(region, range);
    }

    fn acquire(&self, region: &DmaRegion, range: Range<usize>) {
        self.note(std::format!("acquire {range:?}"));
        self.inner.acquire(region, range);
    }
}

fn asked_behind_the_end(violation: &Violation) -> bool {
    matches!(violation, Violation::CpuOutOfRange { offset: 64, len: 1, .. })
}

/// Everything that can be asked of an arena, through `A`.
fn ask<A: DmaArena>(arena: A) -> [BusAddr; 2] {
    let region = arena.allocate(Pool::Data, 64, 8, Direction::Bidirectional).unwrap();
    let pages = arena.allocate_scattered(Pool::Data, 2 * PAGE, Direction::Bidirectional).unwrap();
    region.write(0, &[1; 64]).unwrap();
    arena.publish(&region, 0..64);
    arena.acquire(&region, 8..16);
    let found = [arena.bus_address(&region, 63).unwrap(), arena.bus_address(&pages, PAGE).unwrap()];
    assert_eq!(found[0], region.bus().plus(63));
    assert_eq!(
        arena.bus_address(&region, 64),
        Err(DmaError::OutOfRange { offset: 64, len: 1, region: 64 }),
        "one behind the end"
    );
    release(&arena, region, &TestProof);
    // SAFETY: no device exists.
    unsafe { arena.release(pages) };
    found
}

#[test]
fn an_arena_without_scattered_memory_gives_whole_pages_in_one_run() {
    let plain = Plain::new();
    let [_, second] = ask(&plain);
    assert_eq!(second.page_offset(4096), 0);
    let asked = plain.asked.borrow();
    let expected = [
        "allocate 64 at 8",
        "allocate 8192 at 4096",
        "publish 0..64",
        "acquire 8..16",
        "release 64",
        "release 8192",
    ];
    assert_eq!(*asked, expected, "by the least that an arena has to say");
    assert_eq!(DmaArena::page_size(&plain), 4096);
    assert_eq!(plain.inner.live_total(), 0);
    let noticed = plain.inner.take_violations();
    assert!(noticed.len() <= 1 && noticed.iter().all(asked_behind_the_end), "{noticed:?}");
}

#[test]
fn an_arena_does_not_guess_the_address_inside_scattered_memory() {
    let plain = Plain::new();
    let region = plain.inner.allocate_scattered(Pool::Data, 2 * PAGE, Direction::ToDevice).unwrap();
    let address = DmaArena::bus_address(&plain, &region, 8);
    assert_eq!(address, Err(DmaError::OutOfRange { offset: 8, len: 1, region: 2 * PAGE }));
    give_back(&plain.inner, region);
}

/// Answers in its own way wherever an arena can.
struct Own<'a>(&'a TestArena, &'a RefCell<Vec<&'static str>>);

// SAFETY: every call goes to a test arena, which keeps the promises.
unsafe impl DmaArena for Own<'_> {
    fn allocate(&self, pool: Pool, len: usize, align: usize, way: Direction) -> Result<DmaRegion, DmaError> {
        self.1.borrow_mut().push("allocate");
        self.0.allocate(pool, len, align, way)
    }

    fn allocate_scattered(&self, pool: Pool, len: usize, way: Direction) -> Result<DmaRegion, DmaError> {
        self.1.borrow_mut().push("allocate_scattered");
        self.0.allocate_scattered(pool, len, way)
    }

    fn bus_address(&self, region: &DmaRegion, offset: usize) -> Result<BusAddr, DmaError> {
        self.1.borrow_mut().push("bus_address");
        self.0.bus_address(region, offset)
    }

    fn page_size(&self) -> usize {
        16_384
    }

    unsafe fn release(&self, region: DmaRegion) {
        self.1.borrow_mut().push("release");
        // SAFETY: the caller's promise is the same; a test arena wants to hear the evidence.
        unsafe { self.0.release_proved(region, Evidence::Disabled) }
    }

    unsafe fn release_proved(&self, region: DmaRegion, evidence: Evidence) {
        self.1.borrow_mut().push("release_proved");
        // SAFETY: the caller's promise is the same.
        unsafe { self.0.release_proved(region, evidence) }
    }

    fn publish(&self, region: &DmaRegion, range: Range<usize>) {
        self.1.borrow_mut().push("publish");
        self.0.publish(region, range);
    }

    fn acquire(&self, region: &DmaRegion, range: Range<usize>) {
        self.1.borrow_mut().push("acquire");
        self.0.acquire(region, range);
    }
}

#[test]
fn a_reference_to_an_arena_answers_as_the_arena_does() {
    let (arena, asked) = (TestArena::new(), RefCell::default());
    let mut calls = Vec::new();
    let (own, behind) = (Own(&arena, &asked), &Own(&arena, &asked));
    ask(own);
    calls.push(asked.take());
    ask(behind);
    calls.push(asked.take());
    ask::<&&Own<'_>>(&behind);
    calls.push(asked.take());
    let expected = [
        "allocate",
        "allocate_scattered",
        "publish",
        "acquire",
        "bus_address",
        "bus_address",
        "bus_address",
        "release_proved",
        "release",
    ];
    for (name, calls) in ["itself", "behind a reference", "behind two"].into_iter().zip(calls) {
        assert_eq!(calls, expected, "{name}: each reaches the arena's own");
    }
    let own = Own(&arena, &asked);
    assert_eq!([own.page_size(), DmaArena::page_size(&&own)], [16_384; 2], "not the page size by default");
    assert_eq!(arena.live_total(), 0);
    let noticed = arena.take_violations();
    assert!(noticed.len() == 3 && noticed.iter().all(asked_behind_the_end), "{noticed:?}");
}

#[test]
fn words_outside_or_askew_are_refused_and_nothing_is_written() {
    let arena = TestArena::new();
    let region = arena.allocate(Pool::Data, 64, 64, Direction::Bidirectional).unwrap();
    assert!(!region.is_empty(), "no arena makes an empty one");
    let outside = |offset, len| Err(DmaError::OutOfRange { offset, len, region: 64 });
    let rows = [
        ("words askew", region.write_words(4, &[u64::MAX; 2]), outside(4, 16)),
        ("words past the end", region.write_words(56, &[u64::MAX; 2]), outside(56, 16)),
        ("a word askew", region.write_u64(4, u64::MAX), outside(4, 8)),
        ("a word past the end", region.write_u64(64, u64::MAX), outside(64, 8)),
        ("bytes past the end", region.write(60, &[0xFF; 5]), outside(60, 5)),
        ("bytes beyond all memory", region.write(usize::MAX, &[0xFF; 5]), outside(usize::MAX, 5)),
        ("zeroes past the end", region.zero(60..65), outside(60, 5)),
        ("a tag askew", region.read_u32_acquire(2).map(drop), outside(2, 4)),
        ("an entry askew", region.read_entry::<4>(2, |_| true).map(drop), outside(2, 16)),
        ("an entry of nothing", region.read_entry::<0>(0, |_| true).map(drop), outside(0, 0)),
        ("an entry past the end", region.read_entry::<4>(52, |_| true).map(drop), outside(52, 16)),
    ];
    for (name, found, expected) in rows {
        assert_eq!(found, expected, "{name}");
    }
    let mut bytes = [1; 64];
    region.read(0, &mut bytes).unwrap();
    assert_eq!(bytes, [0; 64]);
    let _ = arena.take_violations();
    give_back(&arena, region);
}

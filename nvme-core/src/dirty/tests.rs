// SPDX-License-Identifier: MIT OR Apache-2.0
//! Dirty maps against a model that keeps one flag for each block.

use std::vec;
use std::vec::Vec;

use proptest::prelude::*;

use super::*;
use crate::wire::{Lba, NamespaceId};

const ONE: NamespaceId = NamespaceId::new(1);
const TWO: NamespaceId = NamespaceId::new(2);

#[derive(Clone, Debug)]
enum Operation {
    Mark(u64, u64),
    MarkAll,
    Clear,
    Restart,
    Take(u64),
}

fn operation() -> impl Strategy<Value = Operation> {
    prop_oneof![
        6 => (0..800_u64, 0..300_u64).prop_map(|(start, blocks)| Operation::Mark(start, blocks)),
        1 => Just(Operation::MarkAll),
        1 => Just(Operation::Clear),
        1 => Just(Operation::Restart),
        6 => (0..200_u64).prop_map(Operation::Take),
    ]
}

/// One flag for each granule, the obvious way.
struct Model {
    dirty: Vec<bool>,
    granule: u64,
    blocks: u64,
    cursor: usize,
}

impl Model {
    fn mark(&mut self, start: u64, blocks: u64) -> bool {
        for block in start..start.saturating_add(blocks).min(self.blocks) {
            self.dirty[usize::try_from(block / self.granule).unwrap()] = true;
        }
        start.saturating_add(blocks) <= self.blocks
    }

    fn take(&mut self, longest: u64) -> Option<BlockRun> {
        let Some(first) = (self.cursor..self.dirty.len()).find(|&at| self.dirty[at]) else {
            self.cursor = 0;
            return None;
        };
        let mut end = first;
        while end < self.dirty.len()
            && self.dirty[end]
            && (end - first) as u64 != (longest / self.granule).max(1)
        {
            self.dirty[end] = false;
            end += 1;
        }
        self.cursor = end;
        let start = first as u64 * self.granule;
        Some(BlockRun {
            start: Lba::new(start),
            blocks: (end as u64 * self.granule).min(self.blocks) - start,
        })
    }

    fn count(&self) -> u64 {
        (self.dirty.iter().filter(|&&dirty| dirty).count() as u64 * self.granule).min(self.blocks)
    }
}

proptest! {
    #[test]
    fn the_map_agrees_with_one_flag_for_each_granule(
        blocks in 1..700_u64,
        shift in 0..4_u32,
        operations in prop::collection::vec(operation(), 0..60),
    ) {
        let granularity = Granularity::new(1 << shift).unwrap();
        let mut storage = vec![u64::MAX; granularity.words_needed(blocks).unwrap()];
        let mut map = DirtyMap::new(ONE, blocks, granularity, &mut storage).unwrap();
        let granule = granularity.blocks();
        let flags = usize::try_from(blocks.div_ceil(granule)).unwrap();
        let mut model = Model { dirty: vec![false; flags], granule, blocks, cursor: 0 };
        for operation in operations {
            match operation {
                Operation::Mark(start, length) => {
                    prop_assert_eq!(map.mark(Lba::new(start), length).is_ok(), model.mark(start, length));
                }
                Operation::MarkAll => {
                    map.mark_all();
                    prop_assert!(map.is_everything());
                    model.dirty.fill(true);
                    model.cursor = 0;
                }
                Operation::Clear => {
                    map.clear();
                    model.dirty.fill(false);
                    model.cursor = 0;
                }
                Operation::Restart => {
                    map.restart();
                    model.cursor = 0;
                }
                Operation::Take(longest) => prop_assert_eq!(map.take(longest), model.take(longest)),
            }
            prop_assert_eq!(map.dirty_blocks(), model.count());
            prop_assert_eq!(map.is_clean(), model.count() == 0);
        }
    }
}

#[test]
fn storage_is_checked_and_cleared() {
    let mut storage = [u64::MAX; 2];
    let rows = [
        ("no blocks", 0, Granularity::BLOCK, Err(DirtyMapError::Empty)),
        ("one word short", 129, Granularity::BLOCK, Err(DirtyMapError::Storage { needed: Some(3), lent: 2 })),
        ("exactly enough", 128, Granularity::BLOCK, Ok(())),
        ("coarser", 1024, Granularity::new(8).unwrap(), Ok(())),
        ("all there is", u64::MAX, Granularity::new(1 << 63).unwrap(), Ok(())),
    ];
    for (name, blocks, granularity, expected) in rows {
        let made = DirtyMap::new(ONE, blocks, granularity, &mut storage);
        assert_eq!(made.as_ref().map(|_| ()).map_err(|error| *error), expected, "{name}");
        assert!(made.is_err() || made.unwrap().is_clean(), "{name}");
    }
    assert_eq!(Granularity::new(0), None);
    assert_eq!(Granularity::new(12), None);
}

#[test]
fn the_largest_namespace_does_not_overflow() {
    let mut storage = [0; 2];
    let mut map = DirtyMap::new(ONE, u64::MAX, Granularity::new(1 << 58).unwrap(), &mut storage).unwrap();
    assert!(map.mark(Lba::new(u64::MAX - 1), 1).is_ok());
    assert_eq!(
        map.mark(Lba::new(u64::MAX), 1),
        Err(OutOfRange { start: Lba::new(u64::MAX), blocks: 1, size: u64::MAX })
    );
    map.mark_all();
    assert_eq!(map.dirty_blocks(), u64::MAX);
    assert_eq!(map.take(u64::MAX), Some(BlockRun { start: Lba::new(0), blocks: 63 << 58 }));
    assert_eq!(map.take(1), Some(BlockRun { start: Lba::new(63 << 58), blocks: u64::MAX - (63 << 58) }));
    assert_eq!(map.take(1), None);
    assert!(map.is_clean());
}

#[test]
fn a_set_sweeps_namespace_after_namespace() {
    let (mut first, mut second) = ([0; 1], [0; 1]);
    let mut maps = [
        DirtyMap::new(ONE, 64, Granularity::BLOCK, &mut first).unwrap(),
        DirtyMap::new(TWO, 32, Granularity::BLOCK, &mut second).unwrap(),
    ];
    let mut set = DirtySet::new(&mut maps).unwrap();
    set.mark(TWO, Lba::new(30), 1).unwrap();
    set.mark(ONE, Lba::new(3), 4).unwrap();
    assert_eq!(
        set.mark(NamespaceId::new(3), Lba::new(0), 1),
        Err(MarkError::UnknownNamespace(NamespaceId::new(3)))
    );
    assert!(matches!(set.mark(TWO, Lba::new(31), 2), Err(MarkError::OutOfRange(_))));
    assert_eq!(set.dirty_blocks(), 6);
    assert_eq!(set.take(16), Some(DirtyExtent { namespace: ONE, start: Lba::new(3), blocks: 4 }));
    set.mark(ONE, Lba::new(0), 1).unwrap();
    assert_eq!(set.take(16), Some(DirtyExtent { namespace: TWO, start: Lba::new(30), blocks: 2 }));
    assert_eq!(set.take(16), None, "what was marked behind the sweep waits for the next one");
    assert_eq!(set.take(16), Some(DirtyExtent { namespace: ONE, start: Lba::new(0), blocks: 1 }));
    set.mark_namespace(TWO).unwrap();
    assert_eq!(set.dirty_blocks(), 32);
    set.mark_all();
    assert_eq!(set.dirty_blocks(), 96);
    set.clear();
    assert!(set.is_clean());
}

#[test]
fn a_namespace_has_one_map() {
    let (mut first, mut second) = ([0; 1], [0; 1]);
    let mut maps = [
        DirtyMap::new(ONE, 64, Granularity::BLOCK, &mut first).unwrap(),
        DirtyMap::new(ONE, 32, Granularity::BLOCK, &mut second).unwrap(),
    ];
    assert_eq!(DirtySet::new(&mut maps).err(), Some(ONE));
}

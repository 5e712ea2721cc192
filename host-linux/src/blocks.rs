// SPDX-License-Identifier: MIT OR Apache-2.0
//! Ranges of logical blocks: read from text, held against a namespace's size, cut to the limits of commands.

use std::collections::VecDeque;
use std::fmt;
use std::str::FromStr;

/// Blocks of a namespace that follow one another, at least one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct BlockRange {
    /// First block.
    pub(crate) start: u64,
    /// Number of blocks.
    pub(crate) blocks: u64,
}

/// A range that is none, or is not part of the namespace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum RangeError {
    /// It has no blocks.
    Empty,
    /// It is not inside a namespace of so many blocks.
    Outside(BlockRange, u64),
}

impl fmt::Display for RangeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Empty => f.write_str("there are no blocks in it; give at least one"),
            Self::Outside(range, blocks) => {
                let last = blocks.saturating_sub(1);
                write!(f, "{range}: the namespace ends with block {last} (NSZE)")
            }
        }
    }
}

impl BlockRange {
    /// The last block, if there is one.
    pub(crate) fn last(self) -> u128 {
        u128::from(self.start) + u128::from(self.blocks.max(1)) - 1
    }

    /// Whether it is inside a namespace of `blocks` blocks.
    pub(crate) fn check(self, blocks: u64) -> Result<(), RangeError> {
        if self.blocks == 0 {
            Err(RangeError::Empty)
        } else if self.last() >= u128::from(blocks) {
            Err(RangeError::Outside(self, blocks))
        } else {
            Ok(())
        }
    }

    /// Whether some block is in both.
    pub(crate) fn overlaps(self, other: Self) -> bool {
        u128::from(self.start) <= other.last() && u128::from(other.start) <= self.last()
    }
}

impl fmt::Display for BlockRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.blocks {
            1 => write!(f, "block {}", self.start),
            _ => write!(f, "blocks {} to {}", self.start, self.last()),
        }
    }
}

impl FromStr for BlockRange {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        const FORM: &str = "it is no range; write LBA:BLOCKS, for example 128:8";
        let (start, blocks) = text.split_once(':').ok_or(FORM)?;
        let number = crate::cli::values::number::<u64>;
        let start = number(start).map_err(|error| format!("LBA: {error}"))?;
        let blocks = number(blocks).map_err(|error| format!("BLOCKS: {error}"))?;
        if blocks == 0 { Err(RangeError::Empty.to_string()) } else { Ok(Self { start, blocks }) }
    }
}

/// How much one command may name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct BatchLimits {
    /// Ranges.
    pub(crate) ranges: usize,
    /// Blocks of a range.
    pub(crate) range_blocks: u64,
    /// Blocks of all its ranges.
    pub(crate) blocks: u64,
}

/// Cuts ranges into what one command after the other may name, in their order. A limit of zero counts as one.
#[derive(Clone, Debug)]
pub(crate) struct Batches {
    rest: VecDeque<BlockRange>,
    limits: BatchLimits,
}

impl Batches {
    pub(crate) fn new(ranges: &[BlockRange], limits: BatchLimits) -> Self {
        let rest = ranges.iter().copied().filter(|range| range.blocks > 0).collect();
        Self { rest, limits }
    }
}

impl Iterator for Batches {
    type Item = Vec<BlockRange>;

    fn next(&mut self) -> Option<Vec<BlockRange>> {
        let mut batch = Vec::new();
        let mut left = self.limits.blocks.max(1);
        while batch.len() < self.limits.ranges.max(1)
            && left > 0
            && let Some(range) = self.rest.pop_front()
        {
            let blocks = range.blocks.min(self.limits.range_blocks.max(1)).min(left);
            batch.push(BlockRange { start: range.start, blocks });
            left -= blocks;
            if blocks < range.blocks {
                let start = range.start.saturating_add(blocks);
                self.rest.push_front(BlockRange { start, blocks: range.blocks - blocks });
            }
        }
        if batch.is_empty() { None } else { Some(batch) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn ranges_are_read_and_held_against_the_namespace() {
        let outside = "ends with block 99 (NSZE)";
        // Text, the range, what a namespace of 100 blocks makes of it.
        type Row = (&'static str, Result<(u64, u64), &'static str>, Option<&'static str>);
        let rows: [Row; 12] = [
            ("0:1", Ok((0, 1)), None),
            ("0x10:0x8", Ok((16, 8)), None),
            ("0:100", Ok((0, 100)), None),
            ("99:1", Ok((99, 1)), None),
            ("99:2", Ok((99, 2)), Some(outside)),
            ("100:1", Ok((100, 1)), Some(outside)),
            ("0xffffffffffffffff:0xffffffffffffffff", Ok((u64::MAX, u64::MAX)), Some(outside)),
            ("5", Err("LBA:BLOCKS"), None),
            ("5:", Err("BLOCKS: "), None),
            (":5", Err("LBA: "), None),
            ("5:0", Err("at least one"), None),
            ("-1:5", Err("LBA: "), None),
        ];
        for (text, expected, refused) in rows {
            match (text.parse::<BlockRange>(), expected) {
                (Ok(range), Ok((start, blocks))) => {
                    assert_eq!(range, BlockRange { start, blocks }, "{text}");
                    let error = range.check(100).err().map(|error| error.to_string());
                    assert_eq!(error.is_some(), refused.is_some(), "{text}: {error:?}");
                    assert!(error.unwrap_or_default().contains(refused.unwrap_or_default()), "{text}");
                }
                (Err(error), Err(words)) => assert!(error.contains(words), "{text}: {error}"),
                (found, _) => panic!("{text}: {found:?}"),
            }
        }
        assert_eq!(BlockRange { start: 0, blocks: 0 }.check(1), Err(RangeError::Empty));
    }

    #[test]
    fn overlaps_are_seen() {
        let rows = [
            ("apart", "0:4", "4:4", false),
            ("the same", "3:1", "3:1", true),
            ("one block in both", "0:5", "4:4", true),
            ("one inside the other", "0:100", "50:1", true),
            ("at the end of all numbers", "0xffffffffffffffff:1", "0xfffffffffffffff0:16", true),
        ];
        for (name, one, other, expected) in rows {
            let (one, other): (BlockRange, BlockRange) =
                (one.parse().expect(name), other.parse().expect(name));
            assert_eq!((one.overlaps(other), other.overlaps(one)), (expected, expected), "{name}");
        }
    }

    proptest! {
        #[test]
        fn batches_keep_the_limits_and_lose_no_block(
            ranges in proptest::collection::vec((0..1000u64, 0..50u64), 0..20),
            limits in (0..5usize, 0..9u64, 0..40u64),
        ) {
            let ranges: Vec<BlockRange> =
                ranges.into_iter().map(|(start, blocks)| BlockRange { start, blocks }).collect();
            let limits = BatchLimits { ranges: limits.0, range_blocks: limits.1, blocks: limits.2 };
            let mut found = Vec::new();
            for batch in Batches::new(&ranges, limits) {
                prop_assert!(!batch.is_empty() && batch.len() <= limits.ranges.max(1));
                prop_assert!(batch.iter().all(|range| (1..=limits.range_blocks.max(1)).contains(&range.blocks)));
                prop_assert!(batch.iter().map(|range| range.blocks).sum::<u64>() <= limits.blocks.max(1));
                found.extend(batch.iter().flat_map(|range| range.start..range.start + range.blocks));
            }
            let all: Vec<u64> = ranges.iter().flat_map(|range| range.start..range.start + range.blocks).collect();
            prop_assert_eq!(found, all);
        }
    }
}

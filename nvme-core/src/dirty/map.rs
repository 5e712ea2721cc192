// SPDX-License-Identifier: MIT OR Apache-2.0
//! The dirty bitmap of one namespace.

use core::fmt;

use crate::wire::{Lba, NamespaceId};

/// How many logical blocks one bit of a map stands for: a power of two.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Granularity {
    shift: u32,
}

impl Granularity {
    /// One bit for each logical block.
    pub const BLOCK: Self = Self { shift: 0 };

    /// One bit for `blocks` logical blocks; `None` unless that is a power of two.
    #[must_use]
    pub const fn new(blocks: u64) -> Option<Self> {
        if blocks.is_power_of_two() { Some(Self { shift: blocks.trailing_zeros() }) } else { None }
    }

    /// Logical blocks for one bit.
    #[must_use]
    pub const fn blocks(self) -> u64 {
        1 << self.shift
    }

    /// How many 64-bit words a map of `blocks` logical blocks needs; `None` if no address space holds them.
    #[must_use]
    pub fn words_needed(self, blocks: u64) -> Option<usize> {
        usize::try_from(self.granules(blocks).div_ceil(64)).ok()
    }

    const fn granules(self, blocks: u64) -> u64 {
        blocks.div_ceil(1 << self.shift)
    }
}

/// Why a map could not be made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DirtyMapError {
    /// The namespace has no blocks.
    Empty,
    /// The storage has too few words.
    Storage {
        /// Words needed; `None` if no address space holds them.
        needed: Option<usize>,
        /// Words lent.
        lent: usize,
    },
}

impl fmt::Display for DirtyMapError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Empty => f.write_str("a dirty map for a namespace of no blocks: give the namespace's size"),
            Self::Storage { needed: Some(needed), lent } => {
                write!(f, "a dirty map needs {needed} words and was lent {lent}: lend more or coarsen it")
            }
            Self::Storage { needed: None, lent } => {
                write!(
                    f,
                    "a dirty map needs more words than can be addressed and was lent {lent}: coarsen it"
                )
            }
        }
    }
}

/// A range of changed blocks reaches past the end of its namespace. The part inside has been marked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OutOfRange {
    /// First block of the range.
    pub start: Lba,
    /// Number of blocks in the range.
    pub blocks: u64,
    /// Blocks the namespace has.
    pub size: u64,
}

impl OutOfRange {
    /// Blocks of the range beyond the end of the namespace.
    #[must_use]
    pub const fn excess(&self) -> u64 {
        self.start.get().saturating_add(self.blocks).saturating_sub(self.size)
    }
}

impl fmt::Display for OutOfRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} blocks from {} on reach past the {} blocks of the namespace",
            self.blocks, self.start, self.size
        )
    }
}

/// A run of blocks taken out of a map.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct BlockRun {
    /// First block.
    pub start: Lba,
    /// Number of blocks, at least one.
    pub blocks: u64,
}

/// A bitmap of changed blocks over lent storage.
///
/// Blocks leave it in sweeps: [`take`](Self::take) returns run after run in ascending order until it returns `None`,
/// which ends the sweep. What is marked behind the sweep meanwhile waits for the next one.
#[derive(Debug)]
pub struct DirtyMap<'s> {
    namespace: NamespaceId,
    blocks: u64,
    shift: u32,
    /// Bits the map has.
    granules: u64,
    /// From this granule on everything is dirty, whatever the words say.
    everything_from: u64,
    /// Bits set below `everything_from`.
    set: u64,
    /// Where the sweep goes on; never above `everything_from`.
    cursor: u64,
    words: &'s mut [u64],
}

impl<'s> DirtyMap<'s> {
    /// A clean map of the `blocks` logical blocks of `namespace`, one bit for each granule, in `storage`, whose
    /// contents are cleared. [`Granularity::words_needed`] says how many words are enough.
    ///
    /// # Errors
    /// [`DirtyMapError`] if there are no blocks or too little storage.
    pub fn new(
        namespace: NamespaceId,
        blocks: u64,
        granularity: Granularity,
        storage: &'s mut [u64],
    ) -> Result<Self, DirtyMapError> {
        if blocks == 0 {
            return Err(DirtyMapError::Empty);
        }
        let needed = granularity.words_needed(blocks);
        let lent = storage.len();
        let words = needed
            .and_then(|needed| storage.get_mut(..needed))
            .ok_or(DirtyMapError::Storage { needed, lent })?;
        words.fill(0);
        let granules = granularity.granules(blocks);
        Ok(Self {
            namespace,
            blocks,
            shift: granularity.shift,
            granules,
            everything_from: granules,
            set: 0,
            cursor: 0,
            words,
        })
    }

    /// The namespace whose blocks it holds.
    #[must_use]
    pub const fn namespace(&self) -> NamespaceId {
        self.namespace
    }

    /// Logical blocks of the namespace.
    #[must_use]
    pub const fn blocks(&self) -> u64 {
        self.blocks
    }

    /// Whether nothing is dirty.
    #[must_use]
    pub const fn is_clean(&self) -> bool {
        self.set == 0 && self.everything_from == self.granules
    }

    /// Whether every block is dirty because of [`mark_all`](Self::mark_all) and none has been taken out since.
    #[must_use]
    pub const fn is_everything(&self) -> bool {
        self.everything_from == 0
    }

    /// How many blocks are dirty, rounded up to whole granules; never more than the namespace has.
    #[must_use]
    pub fn dirty_blocks(&self) -> u64 {
        let granules = self.set.saturating_add(self.granules.saturating_sub(self.everything_from));
        granules.checked_mul(1 << self.shift).map_or(self.blocks, |dirty| dirty.min(self.blocks))
    }

    /// Marks `blocks` blocks from `start` on. Bounded by the words the range covers.
    ///
    /// # Errors
    /// [`OutOfRange`] if the range reaches past the namespace; the part inside is marked all the same.
    #[inline]
    pub fn mark(&mut self, start: Lba, blocks: u64) -> Result<(), OutOfRange> {
        let first = start.get();
        let (end, inside) = match first.checked_add(blocks) {
            Some(end) if end <= self.blocks => (end, true),
            _ => (self.blocks, false),
        };
        if first < end {
            self.set_granules(first >> self.shift, end.wrapping_sub(1) >> self.shift);
        }
        if inside { Ok(()) } else { Err(OutOfRange { start, blocks, size: self.blocks }) }
    }

    /// Marks every block and begins a new sweep. Constant time.
    pub const fn mark_all(&mut self) {
        self.everything_from = 0;
        self.set = 0;
        self.cursor = 0;
    }

    /// Forgets every mark and begins a new sweep. Bounded by the number of words.
    pub fn clear(&mut self) {
        self.words.fill(0);
        self.everything_from = self.granules;
        self.set = 0;
        self.cursor = 0;
    }

    /// Begins a new sweep at the first block.
    pub const fn restart(&mut self) {
        self.cursor = 0;
    }

    /// Takes the next run of dirty blocks of this sweep, at most `longest` blocks rounded down to granules but at
    /// least one granule; `None` ends the sweep, and the next call begins another. Bounded by the number of words.
    pub fn take(&mut self, longest: u64) -> Option<BlockRun> {
        let Some(first) = self.next_dirty() else {
            self.cursor = 0;
            return None;
        };
        let limit = first.saturating_add((longest >> self.shift).max(1)).min(self.granules);
        let end = self.run_end(first, limit);
        self.clear_granules(first, end);
        self.cursor = end;
        let start = first << self.shift;
        let past = end.checked_mul(1 << self.shift).map_or(self.blocks, |past| past.min(self.blocks));
        Some(BlockRun { start: Lba::new(start), blocks: past.saturating_sub(start) })
    }

    /// Sets the granules `first..=last`, which lie inside the map.
    #[inline]
    fn set_granules(&mut self, first: u64, last: u64) {
        let Some(highest) = self.everything_from.checked_sub(1) else { return };
        let last = last.min(highest);
        if first > last {
            return;
        }
        let head = u64::MAX << (first & 63);
        let tail = u64::MAX >> (!last & 63);
        let (first_word, last_word) = (word_of(first), word_of(last));
        if first_word == last_word {
            self.set_word(first_word, head & tail);
            return;
        }
        self.set_word(first_word, head);
        self.set_word(last_word, tail);
        let between = first_word.saturating_add(1)..last_word;
        let mut added = 0_u64;
        for word in self.words.get_mut(between).unwrap_or_default() {
            added = added.wrapping_add(u64::from(word.count_zeros()));
            *word = u64::MAX;
        }
        self.set = self.set.wrapping_add(added);
    }

    #[inline]
    fn set_word(&mut self, index: usize, mask: u64) {
        if let Some(word) = self.words.get_mut(index) {
            self.set = self.set.wrapping_add(u64::from((mask & !*word).count_ones()));
            *word |= mask;
        }
    }

    /// The first dirty granule at or after the cursor.
    fn next_dirty(&self) -> Option<u64> {
        if self.set > 0 {
            let start = word_of(self.cursor);
            let mut mask = u64::MAX << (self.cursor & 63);
            for (index, word) in self.words.iter().enumerate().skip(start) {
                let base = (index as u64) << 6;
                if base >= self.everything_from {
                    break;
                }
                let bits = word & mask & below(self.everything_from.saturating_sub(base));
                if bits != 0 {
                    return Some(base | u64::from(bits.trailing_zeros()));
                }
                mask = u64::MAX;
            }
        }
        (self.everything_from < self.granules).then_some(self.everything_from)
    }

    /// The end of the run of dirty granules that starts at `first`, at most `limit`.
    fn run_end(&self, first: u64, limit: u64) -> u64 {
        let mut at = first;
        while at < limit && at < self.everything_from {
            let ones = self.words.get(word_of(at)).map_or(0, |word| (word >> (at & 63)).trailing_ones());
            let in_word = 64_u64.wrapping_sub(at & 63);
            let end = at.saturating_add(u64::from(ones)).min(self.everything_from);
            if u64::from(ones) < in_word && end < self.everything_from {
                return end.min(limit);
            }
            at = end;
        }
        limit
    }

    /// Cleans the granules `first..end`, moving the "everything" mark up if they reach it.
    fn clear_granules(&mut self, first: u64, end: u64) {
        let marked = self.everything_from;
        let mut at = first;
        while at < end {
            let base = at & !63;
            let word_end = end.min(base.saturating_add(64));
            let mask = (u64::MAX << (at & 63)) & below(word_end.saturating_sub(base));
            if let Some(word) = self.words.get_mut(word_of(at)) {
                let counted = *word & mask & below(marked.saturating_sub(base));
                self.set = self.set.saturating_sub(u64::from(counted.count_ones()));
                *word &= !mask;
            }
            at = word_end;
        }
        // A run that reaches the mark starts at or below it, so nothing between is skipped.
        self.everything_from = marked.max(end);
    }
}

/// The word that holds granule `index`; maps are never larger than the address space.
#[inline]
fn word_of(index: u64) -> usize {
    usize::try_from(index >> 6).unwrap_or(usize::MAX)
}

/// The bits below `count`, all of them from 64 on.
#[inline]
const fn below(count: u64) -> u64 {
    if count >= 64 { u64::MAX } else { !(u64::MAX << count) }
}

impl core::error::Error for DirtyMapError {}

impl core::error::Error for OutOfRange {}

// SPDX-License-Identifier: MIT OR Apache-2.0
//! A set of marked blocks that takes at most one bit for each block of the medium, and next to nothing while few or
//! all blocks of a region are marked.

use std::collections::BTreeMap;

/// Words of the bits of one chunk.
const WORDS: usize = 64;
/// Blocks of one chunk.
const CHUNK: u64 = WORDS as u64 * 64;

/// Marks of the blocks of one chunk; a chunk without marks is not kept.
#[derive(Debug)]
enum Chunk {
    All,
    Some(Box<[u64; WORDS]>),
}

impl Chunk {
    fn word(&self, index: usize) -> u64 {
        match self {
            Self::All => u64::MAX,
            Self::Some(words) => words[index],
        }
    }
}

/// Bits `from..to` of a word, `from < to`.
fn mask(from: u64, to: u64) -> u64 {
    (u64::MAX << from) & (u64::MAX >> (64 - to))
}

/// The words that hold bits `from..to` of a chunk, and which bits of each.
fn words(from: u64, to: u64) -> impl Iterator<Item = (usize, u64)> {
    (from / 64..to.div_ceil(64)).map(move |word| {
        let base = word * 64;
        (word as usize, mask(from.max(base) - base, to.min(base + 64) - base))
    })
}

/// Marked blocks.
#[derive(Debug, Default)]
pub(crate) struct Marks(BTreeMap<u64, Chunk>);

impl Marks {
    /// Marks `blocks` blocks from `start` on.
    pub(crate) fn set(&mut self, start: u64, blocks: u64) {
        let end = start + blocks;
        let mut at = start;
        while at < end {
            let (chunk, from) = (at / CHUNK, at % CHUNK);
            let to = (end - chunk * CHUNK).min(CHUNK);
            if to - from == CHUNK {
                self.0.insert(chunk, Chunk::All);
            } else if let Chunk::Some(bits) =
                self.0.entry(chunk).or_insert_with(|| Chunk::Some(Box::new([0; WORDS])))
            {
                for (word, mask) in words(from, to) {
                    bits[word] |= mask;
                }
                if bits.iter().all(|word| *word == u64::MAX) {
                    self.0.insert(chunk, Chunk::All);
                }
            }
            at = chunk * CHUNK + to;
        }
    }

    /// Takes the marks of `blocks` blocks from `start` on away.
    pub(crate) fn clear(&mut self, start: u64, blocks: u64) {
        if self.0.is_empty() || blocks == 0 {
            return;
        }
        let end = start + blocks;
        let kept: Vec<u64> =
            self.0.range(start / CHUNK..end.div_ceil(CHUNK)).map(|(chunk, _)| *chunk).collect();
        for chunk in kept {
            let base = chunk * CHUNK;
            let (from, to) = (start.max(base) - base, (end - base).min(CHUNK));
            if to - from == CHUNK {
                self.0.remove(&chunk);
                continue;
            }
            let Some(marks) = self.0.get_mut(&chunk) else { continue };
            if matches!(marks, Chunk::All) {
                *marks = Chunk::Some(Box::new([u64::MAX; WORDS]));
            }
            if let Chunk::Some(bits) = marks {
                for (word, mask) in words(from, to) {
                    bits[word] &= !mask;
                }
                if bits.iter().all(|word| *word == 0) {
                    self.0.remove(&chunk);
                }
            }
        }
    }

    /// Whether any of `blocks` blocks from `start` on is marked.
    pub(crate) fn any(&self, start: u64, blocks: u64) -> bool {
        self.first(start, blocks).is_some()
    }

    /// The first marked one of `blocks` blocks from `start` on.
    pub(crate) fn first(&self, start: u64, blocks: u64) -> Option<u64> {
        if self.0.is_empty() {
            return None;
        }
        let end = start + blocks;
        self.0.range(start / CHUNK..end.div_ceil(CHUNK)).find_map(|(chunk, marks)| {
            let base = chunk * CHUNK;
            let (from, to) = (start.max(base) - base, (end - base).min(CHUNK));
            words(from, to).find_map(|(word, mask)| {
                let bits = marks.word(word) & mask;
                (bits != 0).then(|| base + word as u64 * 64 + u64::from(bits.trailing_zeros()))
            })
        })
    }

    /// How many blocks are marked from `start` on without a gap, at most `limit`.
    pub(crate) fn run(&self, start: u64, limit: u64) -> u64 {
        let end = start + limit;
        let mut at = start;
        while at < end {
            let (chunk, from) = (at / CHUNK, at % CHUNK);
            let to = (end - chunk * CHUNK).min(CHUNK);
            let Some(marks) = self.0.get(&chunk) else { break };
            let gap = words(from, to).find_map(|(word, mask)| {
                let bits = !marks.word(word) & mask;
                (bits != 0).then(|| chunk * CHUNK + word as u64 * 64 + u64::from(bits.trailing_zeros()))
            });
            if let Some(gap) = gap {
                return gap - start;
            }
            at = chunk * CHUNK + to;
        }
        at - start
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Blocks of the model: a few chunks and a bit.
    const BLOCKS: u64 = 3 * CHUNK + 100;

    fn check(marks: &Marks, model: &[bool], start: u64, blocks: u64) {
        let range = start as usize..(start + blocks) as usize;
        let first = model[range.clone()].iter().position(|marked| *marked).map(|at| start + at as u64);
        assert_eq!(marks.first(start, blocks), first, "first of {blocks} from {start}");
        assert_eq!(marks.any(start, blocks), first.is_some());
        let run = model[range].iter().take_while(|marked| **marked).count() as u64;
        assert_eq!(marks.run(start, blocks), run, "run of {blocks} from {start}");
    }

    proptest! {
        #[test]
        fn marks_agree_with_one_flag_for_each_block(
            steps in proptest::collection::vec((any::<bool>(), 0..BLOCKS, 1..2 * CHUNK), 1..24),
            probes in proptest::collection::vec((0..BLOCKS, 1..BLOCKS), 1..24),
        ) {
            let mut marks = Marks::default();
            let mut model = vec![false; BLOCKS as usize];
            for (set, start, blocks) in steps {
                let blocks = blocks.min(BLOCKS - start);
                if set { marks.set(start, blocks) } else { marks.clear(start, blocks) }
                model[start as usize..(start + blocks) as usize].fill(set);
                check(&marks, &model, 0, BLOCKS);
                for (start, blocks) in &probes {
                    check(&marks, &model, *start, (*blocks).min(BLOCKS - start));
                }
            }
            marks.clear(0, BLOCKS);
            prop_assert!(marks.0.is_empty());
        }
    }

    #[test]
    fn strewn_marks_take_a_bit_for_each_block_and_no_more() {
        let mut marks = Marks::default();
        // A mark on every other block costs a list of ranges one range each.
        for block in (0..8 * CHUNK).step_by(2) {
            marks.set(block, 1);
        }
        assert_eq!(marks.0.len(), 8);
        for block in (1..8 * CHUNK).step_by(2) {
            marks.set(block, 1);
        }
        assert!(marks.0.values().all(|chunk| matches!(chunk, Chunk::All)), "neighbours are merged");
        marks.clear(0, 8 * CHUNK);
        assert!(marks.0.is_empty());
    }
}

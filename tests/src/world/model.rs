// SPDX-License-Identifier: MIT OR Apache-2.0
//! What each block must hold, as far as the guest knows.

use std::ops::Range;

use super::disk::{Disk, Stamp};

/// A block that does not hold what it must.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mismatch {
    /// The block.
    pub block: usize,
    /// What it holds; none if that is no content that anybody wrote.
    pub found: Option<Stamp>,
    /// What it may hold.
    pub expected: Vec<Stamp>,
}

/// One block. A write whose end is unknown leaves two possibilities.
#[derive(Clone, Debug, Default)]
struct Block {
    possible: Vec<Stamp>,
    readers: u16,
    writer: bool,
}

/// The guest's knowledge.
#[derive(Debug)]
pub(super) struct Model {
    blocks: Vec<Block>,
}

impl Model {
    pub(super) fn new(stamps: impl Iterator<Item = Stamp>) -> Self {
        Self { blocks: stamps.map(|stamp| Block { possible: vec![stamp], ..Block::default() }).collect() }
    }

    pub(super) const fn blocks(&self) -> usize {
        self.blocks.len()
    }

    /// Reserves blocks for a command that reads them; `false` if one is being written.
    pub(super) fn begin_read(&mut self, range: Range<usize>) -> bool {
        let free = self.blocks[range.clone()].iter().all(|block| !block.writer);
        if free {
            self.blocks[range].iter_mut().for_each(|block| block.readers += 1);
        }
        free
    }

    pub(super) fn end_read(&mut self, range: Range<usize>) {
        self.blocks[range].iter_mut().for_each(|block| block.readers -= 1);
    }

    /// Reserves blocks for a command that changes them; `false` if one is in use.
    pub(super) fn begin_write(&mut self, range: Range<usize>) -> bool {
        let free = self.blocks[range.clone()].iter().all(|block| !block.writer && block.readers == 0);
        if free {
            self.blocks[range].iter_mut().for_each(|block| block.writer = true);
        }
        free
    }

    /// The command that was to write `stamp` has ended: done, or nobody knows.
    pub(super) fn end_write(&mut self, block: usize, stamp: Stamp, done: bool) {
        let block = &mut self.blocks[block];
        block.writer = false;
        if done {
            block.possible.clear();
        }
        if !block.possible.contains(&stamp) {
            block.possible.push(stamp);
        }
    }

    /// The command that had reserved the blocks was never sent.
    pub(super) fn forget_write(&mut self, range: Range<usize>) {
        self.blocks[range].iter_mut().for_each(|block| block.writer = false);
    }

    /// What the block holds, if only one content is possible.
    pub(super) fn certain(&self, block: usize) -> Option<Stamp> {
        match self.blocks[block].possible.as_slice() {
            [one] => Some(*one),
            _ => None,
        }
    }

    /// Compares what was found in a block, which nobody is writing, and remembers it.
    pub(super) fn check(&mut self, block: usize, found: Option<Stamp>) -> Result<(), Mismatch> {
        let known = &mut self.blocks[block];
        match found.filter(|stamp| known.possible.contains(stamp)) {
            Some(stamp) => {
                known.possible.clear();
                known.possible.push(stamp);
                Ok(())
            }
            None => Err(Mismatch { block, found, expected: known.possible.clone() }),
        }
    }

    /// Compares the whole of `disk`, which nobody is writing.
    pub(super) fn compare(&mut self, disk: &Disk) -> Result<(), Mismatch> {
        (0..self.blocks.len()).try_for_each(|block| self.check(block, disk.get(block)))
    }
}

// SPDX-License-Identifier: MIT OR Apache-2.0
//! Media in memory whose blocks tell where their content comes from.

use std::cell::RefCell;
use std::rc::Rc;

use nvme_controller::host::{BlockStorage, StorageError};
use nvme_core::wire::Lba;

/// Bytes in a block.
pub(super) const BLOCK: usize = 512;
const SHIFT: u8 = 9;

/// What a block holds: zero for zeroes, any other number for a content that no other number has.
pub type Stamp = u64;

/// Fills one block with the content of `stamp`.
pub(super) fn fill(block: &mut [u8], stamp: Stamp) {
    for (word, at) in block.as_chunks_mut::<8>().0.iter_mut().zip(0_u64..) {
        *word = word_of(stamp, at).to_le_bytes();
    }
}

fn word_of(stamp: Stamp, at: u64) -> u64 {
    stamp.wrapping_mul(at.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1)
}

/// The stamp whose content a block holds, if it holds one.
#[must_use]
pub(super) fn stamp_of(block: &[u8]) -> Option<Stamp> {
    let words = block.as_chunks::<8>().0;
    let stamp = u64::from_le_bytes(*words.first()?);
    let whole = words.iter().zip(0_u64..).all(|(word, at)| u64::from_le_bytes(*word) == word_of(stamp, at));
    whole.then_some(stamp)
}

/// Media shared by a subsystem and whoever looks at it from outside.
#[derive(Clone, Debug)]
pub(super) struct Disk(Rc<RefCell<State>>);

#[derive(Debug)]
struct State {
    bytes: Vec<u8>,
    allocated: Vec<bool>,
}

impl Disk {
    /// `blocks` blocks of zeroes, none of them allocated.
    #[must_use]
    pub(super) fn new(blocks: usize) -> Self {
        Self(Rc::new(RefCell::new(State { bytes: vec![0; blocks * BLOCK], allocated: vec![false; blocks] })))
    }

    /// Writes one block from outside.
    pub(super) fn put(&self, block: usize, stamp: Stamp) {
        let mut state = self.0.borrow_mut();
        fill(&mut state.bytes[block * BLOCK..(block + 1) * BLOCK], stamp);
        state.allocated[block] = true;
    }

    /// What a block holds, if it is the content of any stamp.
    #[must_use]
    pub(super) fn get(&self, block: usize) -> Option<Stamp> {
        stamp_of(&self.0.borrow().bytes[block * BLOCK..(block + 1) * BLOCK])
    }

    /// The first block that differs from the same block of `other`.
    #[must_use]
    pub(super) fn first_difference(&self, other: &Self) -> Option<usize> {
        let (one, other) = (self.0.borrow(), other.0.borrow());
        if one.bytes == other.bytes {
            return None;
        }
        one.bytes.chunks(BLOCK).zip(other.bytes.chunks(BLOCK)).position(|(one, other)| one != other)
    }
}

fn range(lba: Lba, blocks: usize) -> std::ops::Range<usize> {
    let start = usize::try_from(lba.get()).expect("checked by the caller");
    start..start + blocks
}

fn bytes_of(blocks: &std::ops::Range<usize>) -> std::ops::Range<usize> {
    blocks.start * BLOCK..blocks.end * BLOCK
}

impl BlockStorage for Disk {
    fn block_shift(&self) -> u8 {
        SHIFT
    }

    fn blocks(&self) -> u64 {
        self.0.borrow().allocated.len() as u64
    }

    fn read(&mut self, lba: Lba, bytes: &mut [u8]) -> Result<(), StorageError> {
        let blocks = range(lba, bytes.len() / BLOCK);
        bytes.copy_from_slice(&self.0.borrow().bytes[bytes_of(&blocks)]);
        Ok(())
    }

    fn write(&mut self, lba: Lba, bytes: &[u8]) -> Result<(), StorageError> {
        let blocks = range(lba, bytes.len() / BLOCK);
        let mut state = self.0.borrow_mut();
        state.bytes[bytes_of(&blocks)].copy_from_slice(bytes);
        state.allocated[blocks].fill(true);
        Ok(())
    }

    fn write_zeroes(&mut self, lba: Lba, blocks: u64, deallocate: bool) -> Result<(), StorageError> {
        let blocks = range(lba, usize::try_from(blocks).expect("checked by the caller"));
        let mut state = self.0.borrow_mut();
        state.bytes[bytes_of(&blocks)].fill(0);
        state.allocated[blocks].fill(!deallocate);
        Ok(())
    }

    fn flush(&mut self) -> Result<(), StorageError> {
        Ok(())
    }

    fn allocated(&self, lba: Lba, limit: u64) -> (bool, u64) {
        let state = self.0.borrow();
        let rest = &state.allocated[range(lba, 0).start..];
        let first = rest.first().copied().unwrap_or(false);
        let run = rest.iter().take_while(|other| **other == first).count() as u64;
        (first, run.clamp(1, limit.max(1)))
    }

    fn set_uncorrectable(&mut self, _: Lba, _: u64) -> Result<(), StorageError> {
        // No guest of a world marks blocks.
        Err(StorageError::WriteProtected)
    }
}

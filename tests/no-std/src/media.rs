// SPDX-License-Identifier: MIT OR Apache-2.0
//! A namespace in memory.

use core::cell::Cell;

use nvme_controller::host::{BlockStorage, Interrupts, StorageError};
use nvme_core::wire::{ControllerId, Lba};

const SHIFT: u8 = 9;
const BLOCK: usize = 1 << SHIFT;

/// Blocks of 512 bytes, always allocated, in memory that others may look at.
#[derive(Clone, Copy)]
pub struct Media<'m>(&'m [Cell<u8>]);

impl<'m> Media<'m> {
    pub fn new(bytes: &'m mut [u8]) -> Self {
        Self(Cell::from_mut(bytes).as_slice_of_cells())
    }

    /// The bytes, shared.
    pub fn cells(self) -> &'m [Cell<u8>] {
        self.0
    }

    fn range(&self, lba: Lba, len: usize) -> Option<&'m [Cell<u8>]> {
        let start = usize::try_from(lba.get()).ok()?.checked_mul(BLOCK)?;
        self.0.get(start..start.checked_add(len)?)
    }
}

impl BlockStorage for Media<'_> {
    fn block_shift(&self) -> u8 {
        SHIFT
    }

    fn blocks(&self) -> u64 {
        (self.0.len() / BLOCK) as u64
    }

    fn read(&mut self, lba: Lba, bytes: &mut [u8]) -> Result<(), StorageError> {
        let cells = self.range(lba, bytes.len()).ok_or(StorageError::Read)?;
        for (to, from) in bytes.iter_mut().zip(cells) {
            *to = from.get();
        }
        Ok(())
    }

    fn write(&mut self, lba: Lba, bytes: &[u8]) -> Result<(), StorageError> {
        let cells = self.range(lba, bytes.len()).ok_or(StorageError::Write)?;
        for (to, from) in cells.iter().zip(bytes) {
            to.set(*from);
        }
        Ok(())
    }

    fn write_zeroes(&mut self, lba: Lba, blocks: u64, _deallocate: bool) -> Result<(), StorageError> {
        let len = usize::try_from(blocks).ok().and_then(|blocks| blocks.checked_mul(BLOCK));
        let len = len.ok_or(StorageError::Write)?;
        for to in self.range(lba, len).ok_or(StorageError::Write)? {
            to.set(0);
        }
        Ok(())
    }

    fn flush(&mut self) -> Result<(), StorageError> {
        Ok(())
    }

    fn allocated(&self, _lba: Lba, limit: u64) -> (bool, u64) {
        (true, limit)
    }

    fn set_uncorrectable(&mut self, _lba: Lba, _blocks: u64) -> Result<(), StorageError> {
        Err(StorageError::Write)
    }
}

/// Nobody listens: the driver polls.
pub struct Polled;

impl Interrupts for Polled {
    fn interrupt(&self, _controller: ControllerId, _vector: u16) {}
}

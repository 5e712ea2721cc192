// SPDX-License-Identifier: MIT OR Apache-2.0
//! A namespace in a static-sized array.

use nvme_controller::host::{BlockStorage, Interrupts, StorageError};
use nvme_core::wire::{ControllerId, Lba};

const SHIFT: u8 = 9;
const BLOCK: usize = 1 << SHIFT;

/// Blocks of 512 bytes, always allocated.
pub struct Media<const BYTES: usize>(pub [u8; BYTES]);

impl<const BYTES: usize> Media<BYTES> {
    fn range(&mut self, lba: Lba, len: usize) -> Option<&mut [u8]> {
        let start = usize::try_from(lba.get()).ok()?.checked_mul(BLOCK)?;
        self.0.get_mut(start..start.checked_add(len)?)
    }
}

impl<const BYTES: usize> BlockStorage for Media<BYTES> {
    fn block_shift(&self) -> u8 {
        SHIFT
    }

    fn blocks(&self) -> u64 {
        (BYTES / BLOCK) as u64
    }

    fn read(&mut self, lba: Lba, bytes: &mut [u8]) -> Result<(), StorageError> {
        bytes.copy_from_slice(self.range(lba, bytes.len()).ok_or(StorageError::Read)?);
        Ok(())
    }

    fn write(&mut self, lba: Lba, bytes: &[u8]) -> Result<(), StorageError> {
        self.range(lba, bytes.len()).ok_or(StorageError::Write)?.copy_from_slice(bytes);
        Ok(())
    }

    fn write_zeroes(&mut self, lba: Lba, blocks: u64, _deallocate: bool) -> Result<(), StorageError> {
        let len = usize::try_from(blocks).ok().and_then(|blocks| blocks.checked_mul(BLOCK));
        let len = len.ok_or(StorageError::Write)?;
        self.range(lba, len).ok_or(StorageError::Write)?.fill(0);
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

// SPDX-License-Identifier: MIT OR Apache-2.0
//! What a subsystem needs from where it runs: the host's memory, the media, and a way to interrupt.

use nvme_core::wire::{BusAddr, ControllerId, Lba};

/// A bus address range that the controller may not reach.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MemoryFault {
    /// First byte of the access.
    pub address: BusAddr,
    /// Length of the access in bytes.
    pub len: usize,
}

/// The memory one controller reaches by DMA: its own bus address space, as behind an IOMMU.
///
/// Nothing read from it is trusted, and it may change between two reads. Ranges may appear and vanish while the
/// controller runs; an access that is not wholly mapped fails and has no effect, or, if it fails part way, is
/// reported as failed. Each call is bounded by its length.
pub trait HostMemory {
    /// Copies from the host. The host's writes that happened before its doorbell write are seen.
    ///
    /// # Errors
    /// [`MemoryFault`] if any byte of the range is not mapped for reading.
    fn read(&self, address: BusAddr, bytes: &mut [u8]) -> Result<(), MemoryFault>;

    /// Copies to the host, in no particular order.
    ///
    /// # Errors
    /// [`MemoryFault`] if any byte of the range is not mapped for writing.
    fn write(&self, address: BusAddr, bytes: &[u8]) -> Result<(), MemoryFault>;

    /// Copies a queue entry to the host so that its last four bytes, which hold the phase tag, become visible after
    /// all the others and after everything written before. `address` and the length are multiples of four.
    ///
    /// # Errors
    /// [`MemoryFault`] if any byte of the range is not mapped for writing; the host then sees no new phase tag.
    fn write_entry(&self, address: BusAddr, entry: &[u8]) -> Result<(), MemoryFault>;

    /// Whether the whole range is host memory that may back a queue, as opposed to a controller memory buffer, a
    /// persistent memory region or nothing at all.
    fn is_host_memory(&self, address: BusAddr, len: u64) -> bool;
}

impl<T: HostMemory + ?Sized> HostMemory for &T {
    fn read(&self, address: BusAddr, bytes: &mut [u8]) -> Result<(), MemoryFault> {
        (**self).read(address, bytes)
    }

    fn write(&self, address: BusAddr, bytes: &[u8]) -> Result<(), MemoryFault> {
        (**self).write(address, bytes)
    }

    fn write_entry(&self, address: BusAddr, entry: &[u8]) -> Result<(), MemoryFault> {
        (**self).write_entry(address, entry)
    }

    fn is_host_memory(&self, address: BusAddr, len: u64) -> bool {
        (**self).is_host_memory(address, len)
    }
}

/// Why a storage access failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StorageError {
    /// The media could not be read.
    Read,
    /// The media could not be written; which of the blocks changed is unknown.
    Write,
    /// No space is left for the blocks.
    CapacityExceeded,
    /// The media is write protected.
    WriteProtected,
}

/// The media behind a namespace, in logical blocks. Callers have checked every range against
/// [`blocks`](Self::blocks), and buffers are whole blocks.
pub trait BlockStorage {
    /// log2 of the logical block size in bytes, 9 to 12 and higher.
    fn block_shift(&self) -> u8;

    /// Number of logical blocks; must not change.
    fn blocks(&self) -> u64;

    /// Reads whole blocks from `lba` on. Deallocated blocks read as zeroes.
    ///
    /// # Errors
    /// [`StorageError`] if the media fails; the buffer's content is then unknown.
    fn read(&mut self, lba: Lba, bytes: &mut [u8]) -> Result<(), StorageError>;

    /// Writes whole blocks from `lba` on.
    ///
    /// # Errors
    /// [`StorageError`] if the media fails; the blocks' content is then unknown.
    fn write(&mut self, lba: Lba, bytes: &[u8]) -> Result<(), StorageError>;

    /// Makes `blocks` blocks from `lba` on read as zeroes; `deallocate` says that their space may be given up.
    ///
    /// # Errors
    /// As [`write`](Self::write).
    fn write_zeroes(&mut self, lba: Lba, blocks: u64, deallocate: bool) -> Result<(), StorageError>;

    /// Makes everything written so far durable.
    ///
    /// # Errors
    /// As [`write`](Self::write).
    fn flush(&mut self) -> Result<(), StorageError>;

    /// Whether the block at `lba` is allocated, and for how many blocks (at least one, at most `limit`) the answer
    /// stays the same. Storage that cannot tell answers "allocated" for all of `limit`.
    fn allocated(&self, lba: Lba, limit: u64) -> (bool, u64);

    /// Marks blocks as unreadable until they are next written (Write Uncorrectable), or clears the mark.
    ///
    /// # Errors
    /// As [`write`](Self::write).
    fn set_uncorrectable(&mut self, lba: Lba, blocks: u64) -> Result<(), StorageError>;
}

/// How a controller interrupts its host.
pub trait Interrupts {
    /// Vector `vector` of controller `controller` has completions the host has not consumed. Called once for each
    /// batch of completions, only while the vector is enabled and unmasked.
    fn interrupt(&self, controller: ControllerId, vector: u16);
}

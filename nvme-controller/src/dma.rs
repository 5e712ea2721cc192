// SPDX-License-Identifier: MIT OR Apache-2.0
//! A controller's way into its host's memory: the memory itself, and the tracker that sees every write.

use nvme_core::wire::BusAddr;

use crate::fault::Flip;
use crate::host::{HostMemory, MemoryFault};
use crate::track::MemoryTracker;

/// One controller's bus address space. Everything the controller writes goes through here.
#[derive(Debug)]
pub(crate) struct Dma<'s, M> {
    pub(crate) memory: M,
    pub(crate) tracker: MemoryTracker<'s>,
    /// A bit of the data of the command that is being executed, to be inverted.
    pub(crate) flip: Option<Flip>,
}

impl<'s, M> Dma<'s, M> {
    pub(crate) const fn new(memory: M, tracker: MemoryTracker<'s>) -> Self {
        Self { memory, tracker, flip: None }
    }
}

impl<M: HostMemory> Dma<'_, M> {
    #[inline]
    pub(crate) fn read(&self, address: BusAddr, bytes: &mut [u8]) -> Result<(), MemoryFault> {
        self.memory.read(address, bytes)
    }

    /// Writes; a write that fails may have changed part of the range, so it counts as changed.
    #[inline]
    pub(crate) fn write(&mut self, address: BusAddr, bytes: &[u8]) -> Result<(), MemoryFault> {
        self.tracker.mark(address, bytes.len());
        self.memory.write(address, bytes)
    }

    /// Writes a queue entry, phase tag last.
    #[inline]
    pub(crate) fn write_entry(&mut self, address: BusAddr, entry: &[u8]) -> Result<(), MemoryFault> {
        self.tracker.mark(address, entry.len());
        self.memory.write_entry(address, entry)
    }
}

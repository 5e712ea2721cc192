// SPDX-License-Identifier: MIT OR Apache-2.0
//! The promises that the firmware's memory makes to the core.

use core::ops::Range;
use core::sync::atomic::{Ordering, fence};

use nvme_core::dma::{Direction, DmaArena, DmaError, DmaRegion, Layout, Pool};
use nvme_core::wire::BusAddr;

use super::barrier::device_barrier;
use super::pci_io::{Mapping, PciIo, PciStatus, SharedBuffer};
use crate::arena::{Found, PAGE, PciArena};

/// Describes pages that an arena has just set aside for one allocation.
pub(crate) fn region(found: Found, len: usize, pool: Pool, direction: Direction) -> DmaRegion {
    // SAFETY: the only caller is `PciArena::describe`, whose memory was set aside by the firmware for this one region, is
    // page aligned, and stays until the region is given back; nothing but the region refers to it. The bus address is the
    // one that Map gave for it.
    unsafe { DmaRegion::from_raw_parts(found.cpu, found.bus, len, pool, direction, found.layout) }
}

/// Fills memory of the arena that has just been mapped with zeroes.
pub(crate) fn zero(buffer: &SharedBuffer) {
    // SAFETY: the only caller is `PciArena::take`, which has set the memory aside and tells of it afterwards: neither the
    // device, whose address for it nobody knows yet, nor anybody else uses it.
    unsafe { buffer.zero() }
}

/// Ends a mapping of the arena.
pub(crate) fn unmap_unseen(io: &PciIo, mapping: &Mapping) -> Result<(), PciStatus> {
    // SAFETY: the callers are `PciArena`'s: the mapping was never told to anybody, or its region was released, which says
    // that the device does not use it any more.
    unsafe { io.unmap(mapping) }
}

/// Gives memory of the arena back.
pub(crate) fn free_unmapped(io: &PciIo, buffer: &SharedBuffer) -> Result<(), PciStatus> {
    // SAFETY: the callers are `PciArena`'s: every mapping of the memory has been ended, and its region was released or
    // never made.
    unsafe { io.free_buffer(buffer) }
}

// SAFETY: each region is pages that the firmware set aside for it alone, mapped as a common buffer for the function that the
// arena serves and zeroed then, with the address that Map gave; a mapping allows reads and writes, which every direction needs at
// most. Regions are taken back only if they are in the arena's books. A common buffer is coherent (UEFI 2.10 §14.4.6), so
// that ordering makes writes visible, with a flush for what the device's bridges hold back.
unsafe impl DmaArena for PciArena<'_, '_> {
    fn allocate(
        &self,
        pool: Pool,
        len: usize,
        align: usize,
        direction: Direction,
    ) -> Result<DmaRegion, DmaError> {
        self.describe(pool, len, Some(align), direction)
    }

    fn allocate_scattered(
        &self,
        pool: Pool,
        len: usize,
        direction: Direction,
    ) -> Result<DmaRegion, DmaError> {
        self.describe(pool, len, None, direction)
    }

    fn bus_address(&self, region: &DmaRegion, offset: usize) -> Result<BusAddr, DmaError> {
        let outside = DmaError::OutOfRange { offset, len: 1, region: region.len() };
        if offset >= region.len() {
            return Err(outside);
        }
        match region.layout() {
            Layout::Contiguous => Ok(region.bus().plus(offset as u64)),
            Layout::Scattered => self.scattered_address(region, offset).ok_or(outside),
        }
    }

    fn page_size(&self) -> usize {
        PAGE
    }

    unsafe fn release(&self, region: DmaRegion) {
        self.give_back(&region);
    }

    fn publish(&self, _region: &DmaRegion, _range: Range<usize>) {
        fence(Ordering::SeqCst);
        device_barrier();
    }

    fn acquire(&self, _region: &DmaRegion, _range: Range<usize>) {
        // A bridge that cannot be flushed keeps the order of a device's writes all the same: data before completion.
        let _ = self.io().flush();
        fence(Ordering::SeqCst);
        device_barrier();
    }
}

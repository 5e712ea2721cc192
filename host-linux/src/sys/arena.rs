// SPDX-License-Identifier: MIT OR Apache-2.0
//! The promises that an address space makes to the driver.

use std::ops::Range;
use std::ptr::NonNull;
use std::sync::atomic::{Ordering, fence};

use nvme_core::dma::{Direction, DmaArena, DmaError, DmaRegion, Layout, Pool};
use nvme_core::wire::BusAddr;

use crate::memory::{AddressSpace, PAGE};

/// Describes pages that an address space has just taken for one allocation.
pub(crate) fn describe(
    cpu: NonNull<u8>,
    bus: BusAddr,
    len: usize,
    pool: Pool,
    direction: Direction,
    layout: Layout,
) -> DmaRegion {
    // SAFETY: the only caller is `AddressSpace::take`, which passes page-aligned memory inside its mapping that no
    // other live allocation has, reached through atomics only, together with its bus address. It stays mapped until the
    // region is given back: `AddressSpace` leaks its mapping rather than drop it with a live region.
    unsafe { DmaRegion::from_raw_parts(cpu, bus, len, pool, direction, layout) }
}

impl AddressSpace {
    /// Takes back every region that was not released, such as those of a controller whose end was never seen; without
    /// this they stay mapped when the space is dropped, for as long as the process lives. Bounded.
    ///
    /// # Safety
    /// No driver and no device looks at a region of this space any more: what [`DmaArena::release`] asks of one, for
    /// all of them.
    pub unsafe fn release_all(&self) {
        self.give_all_back();
    }
}

// SAFETY: each allocation takes pages that no other live one has and maps exactly those, with the direction's rights
// (guaranteed by `AddressSpace::take` under its lock), and takes back only what is in its list of live ones. The
// mapping lives as long as the address space, and for ever if that is dropped with live regions. Processor threads are
// coherent, so ordering alone, which the fences give, makes writes visible.
unsafe impl DmaArena for AddressSpace {
    fn allocate(
        &self,
        pool: Pool,
        len: usize,
        align: usize,
        direction: Direction,
    ) -> Result<DmaRegion, DmaError> {
        if !align.is_power_of_two() {
            return Err(DmaError::Alignment { bytes: align });
        }
        self.take(pool, len, align, direction, Layout::Contiguous)
    }

    fn allocate_scattered(
        &self,
        pool: Pool,
        len: usize,
        direction: Direction,
    ) -> Result<DmaRegion, DmaError> {
        self.take(pool, len, PAGE, direction, Layout::Scattered)
    }

    fn bus_address(&self, region: &DmaRegion, offset: usize) -> Result<BusAddr, DmaError> {
        if offset >= region.len() {
            return Err(DmaError::OutOfRange { offset, len: 1, region: region.len() });
        }
        match region.layout() {
            Layout::Contiguous => Ok(region.bus().plus(offset as u64)),
            Layout::Scattered => self.scattered_address(region, offset),
        }
    }

    fn page_size(&self) -> usize {
        PAGE
    }

    unsafe fn release(&self, region: DmaRegion) {
        self.give_back(region);
    }

    fn publish(&self, _region: &DmaRegion, _range: Range<usize>) {
        fence(Ordering::Release);
    }

    fn acquire(&self, _region: &DmaRegion, _range: Range<usize>) {
        fence(Ordering::Acquire);
    }
}

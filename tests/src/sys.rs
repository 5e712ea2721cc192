// SPDX-License-Identifier: MIT OR Apache-2.0
//! What the suites promise about memory that they make up.
#![allow(unsafe_code, reason = "what mappings, back ends and drivers have to promise is promised here")]

use std::ops::Range;
use std::ptr::NonNull;

use nvme_core::controller::{AttachError, Disabling, Link, attach};
use nvme_core::dma::{Direction, DmaArena, DmaError, DmaRegion, Pool};
use nvme_core::mmio::MmioBar;
use nvme_core::register::RegisterIo;
use nvme_core::wire::BusAddr;

use crate::conformance::EmbeddedDevice;
use crate::conformance::backend::{AccessRefused, Device};
use crate::conformance::vfio::VfioDevice;
use crate::conformance::vfio_user::{Space, VfioUserDevice};

/// A register space of `words`, zero except where `fill` says otherwise; it is handed to `test` mapped, and returned as it
/// is afterwards.
pub fn with_register_space(
    words: usize,
    fill: &[(usize, u32)],
    test: impl FnOnce(&dyn RegisterIo<Error = nvme_core::mmio::MmioError>),
) -> Vec<u32> {
    let mut space = vec![0_u32; words];
    for (word, value) in fill {
        space[*word] = *value;
    }
    let base = NonNull::from(space.as_mut_slice()).cast();
    // SAFETY: the words are aligned to four bytes and live until the end of this function; nothing else touches them while
    // the adapter is used, which ends before they are returned. They stand for a device that answers at once.
    let bar = unsafe { MmioBar::new(base, words * 4) };
    test(&bar);
    space
}

/// A promise of a [`Device`] about where its controllers can write.
///
/// # Safety
/// Whatever a controller is told through its registers and its memory, and whatever it does, it accesses nothing but
/// memory that its own arena ([`Device::arena`]) has given out, and that memory is reached by everybody through atomic
/// or raw copies only, for as long as the device and its arena live.
pub unsafe trait Confined {}

// SAFETY: the embedded controllers reach memory only through `AddressSpace`, which translates every address through
// its own table and copies with atomic accesses (guaranteed by `nvme_host_linux::memory`); a released region is
// unmapped before its pages are used again.
unsafe impl Confined for EmbeddedDevice {}

// SAFETY: the second process reaches memory of this one only through descriptors of `AddressSpace`s that it was sent
// (guaranteed by `RemoteController`), and such memory is reached through atomic copies alone, also by regions that were
// given back: it belongs to its address space for as long as that lives.
unsafe impl Confined for VfioUserDevice {}

// SAFETY: the function reaches memory only through an IOMMU, which has nothing for it but windows of the `AddressSpace` of
// the case (guaranteed by `Container`), and such memory is reached through atomic copies alone, also by regions that were
// given back: it belongs to its address space for as long as that lives.
unsafe impl Confined for VfioDevice {}

// SAFETY: everything goes to an address space, which has made the promise itself; in between regions are only announced
// to controllers and withdrawn from them, the latter before the address space has them back.
unsafe impl DmaArena for Space {
    fn allocate(
        &self,
        pool: Pool,
        len: usize,
        align: usize,
        direction: Direction,
    ) -> Result<DmaRegion, DmaError> {
        Ok(self.announce(self.memory().allocate(pool, len, align, direction)?))
    }

    fn allocate_scattered(
        &self,
        pool: Pool,
        len: usize,
        direction: Direction,
    ) -> Result<DmaRegion, DmaError> {
        Ok(self.announce(self.memory().allocate_scattered(pool, len, direction)?))
    }

    fn bus_address(&self, region: &DmaRegion, offset: usize) -> Result<BusAddr, DmaError> {
        self.memory().bus_address(region, offset)
    }

    fn page_size(&self) -> usize {
        self.memory().page_size()
    }

    unsafe fn release(&self, region: DmaRegion) {
        self.withdraw(&region);
        // SAFETY: the caller has promised that the device lets go of the region.
        unsafe { self.memory().release(region) };
    }

    fn publish(&self, region: &DmaRegion, range: Range<usize>) {
        DmaArena::publish(self.memory(), region, range);
    }

    fn acquire(&self, region: &DmaRegion, range: Range<usize>) {
        DmaArena::acquire(self.memory(), region, range);
    }
}

#[cfg(test)]
// SAFETY: everything goes to a device that has made the promise itself.
unsafe impl Confined for crate::conformance::Recorded {}

/// Takes over controller `controller` of `device` with the driver. `registers` lead to it, directly or with something
/// between.
///
/// # Errors
/// As [`attach`].
pub(crate) fn take_over<'d, 's, R: RegisterIo<Error = AccessRefused> + ?Sized>(
    _device: &'d dyn Device,
    registers: &'d R,
    arena: &'d &'d dyn DmaArena,
    link: &'d Link,
) -> Result<Disabling<'d, 's, R, &'d dyn DmaArena>, AttachError> {
    // SAFETY: the controller reaches nothing but memory of the arena that serves it, reached through copies alone
    // (guaranteed by `Confined`, which every `Device` has promised), so neither a second driver nor memory that is
    // released early or longer used can break memory safety.
    unsafe { attach(registers, arena, link) }
}

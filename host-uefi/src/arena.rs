// SPDX-License-Identifier: MIT OR Apache-2.0
//! Device memory from the firmware: AllocateBuffer, Map, Unmap, FreeBuffer. UEFI 2.10 §14.4.
//!
//! Every region is pages of its own, mapped as a common buffer, which processor and device see alike without copies. Its
//! bus address is the one that Map gives, which is another than the processor's wherever there is an IOMMU or an offset
//! between both; memory above 4 GiB is had because the function was given dual address cycles. A mapping may be shorter
//! than asked for: scattered regions are then mapped piece by piece, and contiguous ones refused.
//!
//! Memory goes back only when the core has proof that the device let go. What is left when an arena is dropped, or cannot
//! be unmapped, stays mapped and set aside: the device may still reach it. [`PciArena::lost`] tells how much the firmware
//! did not take back.

use core::cell::{Cell, RefCell};
use core::ptr::NonNull;

use nvme_core::dma::{Direction, DmaError, DmaRegion, Layout, Pool};
use nvme_core::wire::BusAddr;

use crate::sys::{Mapping, PciIo, SharedBuffer};

/// Bytes of a page.
pub(crate) const PAGE: usize = 4096;

/// Room for the books of one mapping: one region, as a rule. An array of them is lent to an arena.
#[derive(Debug, Default)]
pub struct ArenaSlot(Option<Piece>);

impl ArenaSlot {
    /// An empty slot.
    #[must_use]
    pub const fn new() -> Self {
        Self(None)
    }
}

/// A region as it was handed out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Given {
    cpu: NonNull<u8>,
    bus: BusAddr,
    len: usize,
}

/// One mapping of a region.
#[derive(Debug)]
struct Piece {
    region: Given,
    buffer: SharedBuffer,
    /// First byte of the mapping, counted from that of the region.
    start: usize,
    mapping: Mapping,
}

/// See the [module](self). It serves one function and is for one thread.
#[derive(Debug)]
pub struct PciArena<'p, 's> {
    io: &'p PciIo,
    slots: RefCell<&'s mut [ArenaSlot]>,
    lost: Cell<usize>,
}

/// What is to be described as a region.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Found {
    pub(crate) cpu: NonNull<u8>,
    pub(crate) bus: BusAddr,
    pub(crate) layout: Layout,
}

impl<'p, 's> PciArena<'p, 's> {
    /// Memory for the function behind `io`, which reaches memory once it is a bus master. `slots` bounds the number of
    /// regions.
    #[must_use]
    pub const fn new(io: &'p PciIo, slots: &'s mut [ArenaSlot]) -> Self {
        Self { io, slots: RefCell::new(slots), lost: Cell::new(0) }
    }

    /// The function.
    #[must_use]
    pub const fn io(&self) -> &'p PciIo {
        self.io
    }

    /// Mappings of regions that were handed out and not released.
    #[must_use]
    pub fn live(&self) -> usize {
        self.slots.borrow().iter().filter(|slot| slot.0.is_some()).count()
    }

    /// Pages of 4,096 bytes of regions that were handed out and not released. Behind a session they are those that its
    /// controller may still reach.
    #[must_use]
    pub fn held(&self) -> usize {
        let slots = self.slots.borrow();
        // Each region begins with one of its mappings.
        let first = slots.iter().filter_map(|slot| slot.0.as_ref()).filter(|piece| piece.start == 0);
        first.fold(0, |pages, piece| pages.saturating_add(piece.buffer.pages))
    }

    /// Pages of 4,096 bytes that nobody uses and the firmware did not take back: it did not end a mapping of theirs, or
    /// did not take the pages themselves. They stay set aside as long as boot services do: an operating system that is
    /// started takes them for its own.
    #[must_use]
    pub const fn lost(&self) -> usize {
        self.lost.get()
    }

    fn lose(&self, buffer: &SharedBuffer) {
        self.lost.set(self.lost.get().saturating_add(buffer.pages));
    }

    /// Sets memory aside and maps it; in one piece unless `align` is `None`.
    pub(crate) fn take(&self, pool: Pool, len: usize, align: Option<usize>) -> Result<Found, DmaError> {
        let exhausted = DmaError::Exhausted { pool, bytes: len };
        if len == 0 {
            return Err(DmaError::Empty);
        }
        let wanted = align.unwrap_or(PAGE);
        if !wanted.is_power_of_two() {
            return Err(DmaError::Alignment { bytes: wanted });
        }
        // Pages are aligned; what is more is looked for inside a longer run.
        let spare = wanted.saturating_sub(PAGE);
        let pages = len.checked_add(spare).ok_or(exhausted)?.div_ceil(PAGE);
        if !self.slots.borrow().iter().any(|slot| slot.0.is_none()) {
            return Err(exhausted);
        }
        let buffer = self.io.allocate_buffer(pages).map_err(|_| exhausted)?;
        match self.map(&buffer, len, align) {
            Ok(found) => {
                // Where a mapping changes how memory is shared (encrypted memory), what was there before is not what is read
                // behind it.
                crate::sys::zero(&buffer);
                Ok(found)
            }
            Err(MapError::Clean(reason)) => {
                self.free(&buffer);
                Err(reason.unwrap_or(exhausted))
            }
            Err(MapError::Lost) => {
                self.lose(&buffer);
                Err(exhausted)
            }
        }
    }

    fn map(&self, buffer: &SharedBuffer, len: usize, align: Option<usize>) -> Result<Found, MapError> {
        let whole = buffer.pages.saturating_mul(PAGE);
        let first = self.io.map(buffer, 0).map_err(|_| MapError::Clean(None))?;
        let Some(offset) = first_byte(first.device, align.unwrap_or(PAGE)) else {
            self.end(&first)?;
            return Err(MapError::Clean(Some(DmaError::Alignment { bytes: align.unwrap_or(PAGE) })));
        };
        let fits = offset.checked_add(len).is_some_and(|end| end <= first.len);
        if fits {
            let (Some(cpu), bus) = (
                NonNull::new(buffer.start.as_ptr().wrapping_add(offset)),
                BusAddr::new(first.device).plus(offset as u64),
            ) else {
                self.end(&first)?;
                return Err(MapError::Clean(None));
            };
            let region = Given { cpu, bus, len };
            return match self.keep(region, buffer, 0, first) {
                Ok(()) => Ok(Found { cpu, bus, layout: Layout::Contiguous }),
                Err(mapping) => {
                    self.end(&mapping)?;
                    Err(MapError::Clean(None))
                }
            };
        }
        if align.is_some() {
            self.end(&first)?;
            return Err(MapError::Clean(None));
        }
        let region = Given { cpu: buffer.start, bus: BusAddr::new(first.device), len };
        self.map_pieces(region, buffer, whole, first)
    }

    /// Maps the rest of a scattered region, whose beginning is mapped.
    fn map_pieces(
        &self,
        region: Given,
        buffer: &SharedBuffer,
        whole: usize,
        first: Mapping,
    ) -> Result<Found, MapError> {
        let (mut at, mut next) = (0_usize, first);
        loop {
            // A device sees whole pages.
            let usable = next.len.saturating_sub(next.len % PAGE);
            if usable == 0 || !next.device.is_multiple_of(PAGE as u64) {
                let ended = self.end(&next);
                return self.undo(region, ended);
            }
            if let Err(mapping) = self.keep(region, buffer, at, next) {
                let ended = self.end(&mapping);
                return self.undo(region, ended);
            }
            at = at.saturating_add(usable);
            if at >= whole {
                return Ok(Found { cpu: region.cpu, bus: region.bus, layout: Layout::Scattered });
            }
            match self.io.map(buffer, at) {
                Ok(mapping) => next = mapping,
                Err(_) => return self.undo(region, Ok(())),
            }
        }
    }

    fn undo(&self, region: Given, ended: Result<(), MapError>) -> Result<Found, MapError> {
        let all = self.unmap_all(region);
        ended?;
        Err(if all { MapError::Clean(None) } else { MapError::Lost })
    }

    /// Ends a mapping that nobody was told of.
    fn end(&self, mapping: &Mapping) -> Result<(), MapError> {
        crate::sys::unmap_unseen(self.io, mapping).map_err(|_| MapError::Lost)
    }

    fn free(&self, buffer: &SharedBuffer) {
        if crate::sys::free_unmapped(self.io, buffer).is_err() {
            self.lose(buffer);
        }
    }

    fn keep(
        &self,
        region: Given,
        buffer: &SharedBuffer,
        start: usize,
        mapping: Mapping,
    ) -> Result<(), Mapping> {
        let mut slots = self.slots.borrow_mut();
        let Some(slot) = slots.iter_mut().find(|slot| slot.0.is_none()) else { return Err(mapping) };
        let buffer = SharedBuffer { start: buffer.start, pages: buffer.pages };
        slot.0 = Some(Piece { region, buffer, start, mapping });
        Ok(())
    }

    /// Ends the mappings of a region and strikes it from the books; `false` if some could not be ended.
    fn unmap_all(&self, region: Given) -> bool {
        let mut all = true;
        for slot in self.slots.borrow_mut().iter_mut() {
            if let Some(piece) = slot.0.take_if(|piece| piece.region == region) {
                all &= crate::sys::unmap_unseen(self.io, &piece.mapping).is_ok();
            }
        }
        all
    }

    /// Takes a region back if it is one of this arena's; the device does not use it any more.
    pub(crate) fn give_back(&self, region: &DmaRegion) {
        let region = Given { cpu: region.cpu_address(), bus: region.bus(), len: region.len() };
        let found = self
            .slots
            .borrow()
            .iter()
            .filter_map(|slot| slot.0.as_ref())
            .find(|piece| piece.region == region)
            .map(|piece| SharedBuffer { start: piece.buffer.start, pages: piece.buffer.pages });
        if let Some(buffer) = found {
            match self.unmap_all(region) {
                true => self.free(&buffer),
                false => self.lose(&buffer),
            }
        }
    }

    /// The bus address of a byte of a scattered region.
    pub(crate) fn scattered_address(&self, region: &DmaRegion, offset: usize) -> Option<BusAddr> {
        let region = Given { cpu: region.cpu_address(), bus: region.bus(), len: region.len() };
        self.slots.borrow().iter().filter_map(|slot| slot.0.as_ref()).find_map(|piece| {
            let inside = offset.checked_sub(piece.start)?;
            let usable = piece.mapping.len.saturating_sub(piece.mapping.len % PAGE);
            (piece.region == region && inside < usable)
                .then(|| BusAddr::new(piece.mapping.device).plus(inside as u64))
        })
    }

    /// What an arena says of a region that it made.
    pub(crate) fn describe(
        &self,
        pool: Pool,
        len: usize,
        align: Option<usize>,
        direction: Direction,
    ) -> Result<DmaRegion, DmaError> {
        let found = self.take(pool, len, align)?;
        Ok(crate::sys::region(found, len, pool, direction))
    }
}

enum MapError {
    /// Nothing is mapped.
    Clean(Option<DmaError>),
    /// Something could not be unmapped: the memory stays set aside.
    Lost,
}

/// Where, in memory that begins at `device` on the bus, the first byte with this alignment lies. `None` if that is no
/// place for a region: the firmware maps pages, and regions are aligned for the processor, too.
fn first_byte(device: u64, align: usize) -> Option<usize> {
    if !device.is_multiple_of(PAGE as u64) {
        return None;
    }
    let aligned = device.checked_next_multiple_of(align as u64)?;
    usize::try_from(aligned.checked_sub(device)?).ok()
}

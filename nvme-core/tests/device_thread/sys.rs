// SPDX-License-Identifier: MIT OR Apache-2.0
//! Memory that a device thread and a driver thread share, and plain memory beside it that nothing but the rings'
//! ordering protects.
#![allow(
    unsafe_code,
    reason = "the arena lends raw memory, and the witness is plain memory that two threads touch"
)]

use std::cell::UnsafeCell;
use std::ops::Range;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};

use nvme_core::dma::{Direction, DmaArena, DmaError, DmaRegion, Layout, Pool};
use nvme_core::wire::BusAddr;

/// Bus address of the first byte; no CPU address looks like it.
const BASE: u64 = 0x5_0000_0000;

/// An arena that hands out pieces of one allocation, which is never freed and never handed out again.
pub(crate) struct Memory {
    words: &'static [AtomicU32],
    used: AtomicUsize,
}

impl Memory {
    pub(crate) fn new(bytes: usize) -> Self {
        // Leaked, so that regions stay valid for ever; a page more, so that the first one can be aligned.
        let words: &'static [AtomicU32] =
            Vec::leak((0..bytes / 4 + 1024).map(|_| AtomicU32::new(0)).collect());
        let aligned = words.as_ptr().align_offset(4096);
        Self { words: &words[aligned..aligned + bytes / 4], used: AtomicUsize::new(0) }
    }

    /// Writes an entry as a device does: the last word, which holds the phase tag, after the others.
    pub(crate) fn post(&self, at: BusAddr, entry: &[u8]) {
        let first = (at.get() - BASE) as usize / 4;
        let words = &self.words[first..first + entry.len() / 4];
        let values = entry.chunks_exact(4).map(|bytes| u32::from_ne_bytes(bytes.try_into().unwrap()));
        for (n, (word, value)) in words.iter().zip(values).enumerate() {
            let order = if n + 1 == words.len() { Ordering::Release } else { Ordering::Relaxed };
            word.store(value, order);
        }
    }
}

// SAFETY: each region is a piece of one allocation that is never freed, handed out once (`used` only grows), aligned to
// a page and reached through atomics only; its bus addresses are its offsets behind `BASE`, which is how `post` finds
// it. Nothing is done on `release`. Both threads are threads of one process, whose memory is coherent, so `publish` and
// `acquire` have nothing to do: that what they promise holds in order is what the accesses of regions have to see to.
unsafe impl DmaArena for Memory {
    fn allocate(
        &self,
        pool: Pool,
        len: usize,
        align: usize,
        direction: Direction,
    ) -> Result<DmaRegion, DmaError> {
        if align > 4096 {
            return Err(DmaError::Alignment { bytes: align });
        }
        let start = self.used.fetch_add(len.next_multiple_of(4096), Ordering::Relaxed);
        let words = self
            .words
            .get(start / 4..(start + len).div_ceil(4))
            .ok_or(DmaError::Exhausted { pool, bytes: len })?;
        let bus = BusAddr::new(BASE + start as u64);
        let cpu = NonNull::from(words).cast();
        // SAFETY: the piece lies inside the allocation (checked by `get`), starts at a page and lives for ever; the only
        // references to it are to atomics.
        Ok(unsafe { DmaRegion::from_raw_parts(cpu, bus, len, pool, direction, Layout::Contiguous) })
    }

    unsafe fn release(&self, _region: DmaRegion) {}

    fn publish(&self, _region: &DmaRegion, _range: Range<usize>) {}

    fn acquire(&self, _region: &DmaRegion, _range: Range<usize>) {}
}

/// A value beside each slot of a ring, in plain memory: the device writes it before it posts the slot's entry, the
/// driver reads it after it has taken the entry. Unless the ring orders the two, that is a data race, which
/// ThreadSanitizer reports.
pub(crate) struct Witness(Box<[UnsafeCell<u64>]>);

// SAFETY: a slot is touched by one thread at a time, because rings hand slots over in order: the device writes it only
// after the head was published behind it, the driver reads it only after the phase tag said it was posted. That this
// holds is what the tests show.
unsafe impl Sync for Witness {}

impl Witness {
    pub(crate) fn new(slots: u32) -> Self {
        Self((0..slots).map(|_| UnsafeCell::new(0)).collect())
    }

    /// The device's access, before it posts the entry.
    pub(crate) fn put(&self, slot: u32, value: u64) {
        // SAFETY: the slot is the device's: the driver has published a head behind it (see the type).
        unsafe { *self.0[slot as usize].get() = value }
    }

    /// The driver's access, after it has taken the entry.
    pub(crate) fn get(&self, slot: u32) -> u64 {
        // SAFETY: the slot is the driver's: its entry was posted and its head is not published yet (see the type).
        unsafe { *self.0[slot as usize].get() }
    }
}

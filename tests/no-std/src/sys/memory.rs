// SPDX-License-Identifier: MIT OR Apache-2.0
//! The memories that drivers and controllers share: static arrays, reached by controllers through bus addresses only.
#![allow(unsafe_code, reason = "this program is the host: it lends raw memory to the device")]

use core::cell::{Cell, UnsafeCell};
use core::hint::black_box;
use core::ops::Range;
use core::ptr::NonNull;
use core::sync::atomic::{AtomicU8, AtomicU32, Ordering, fence};

use nvme_controller::host::{HostMemory, MemoryFault};
use nvme_core::dma::{Direction, DmaArena, DmaError, DmaRegion, Layout, Pool};
use nvme_core::wire::BusAddr;

const PAGE: usize = 4096;
const PAGES: usize = 64;
/// How many memories there are.
const MEMORIES: usize = 3;
/// Bus address of the first byte; no CPU address of this program looks like it.
const BASE: u64 = 0x5_0000_0000;

#[repr(C, align(4096))]
struct Bytes(UnsafeCell<[u8; PAGES * PAGE]>);

// SAFETY: the program has one thread, and the bytes are reached through atomics only.
unsafe impl Sync for Bytes {}

static BYTES: [Bytes; MEMORIES] = [const { Bytes(UnsafeCell::new([0; PAGES * PAGE])) }; MEMORIES];

/// Hands out runs of pages; nothing is mapped for the controller but what is handed out.
pub struct Memory {
    base: *mut u8,
    used: [Cell<bool>; PAGES],
}

impl Memory {
    /// Memory `number`, all pages free. There must be only one value of each number at a time.
    pub fn new(number: usize) -> Option<Self> {
        let bytes = BYTES.get(number)?;
        Some(Self { base: bytes.0.get().cast(), used: [const { Cell::new(false) }; PAGES] })
    }

    /// Pages handed out.
    pub fn live(&self) -> usize {
        self.used.iter().filter(|used| used.get()).count()
    }

    /// The offset of a mapped bus address range.
    fn resolve(&self, address: BusAddr, len: usize) -> Result<usize, MemoryFault> {
        let fault = MemoryFault { address, len };
        let start =
            address.get().checked_sub(BASE).and_then(|start| usize::try_from(start).ok()).ok_or(fault)?;
        let end = start.checked_add(len).ok_or(fault)?;
        let pages = self.used.get(start / PAGE..end.div_ceil(PAGE)).ok_or(fault)?;
        if pages.iter().all(Cell::get) { Ok(start) } else { Err(fault) }
    }

    fn byte(&self, offset: usize) -> &'static AtomicU8 {
        // SAFETY: `resolve` has bounded the offset by the array, which is static and only reached through atomics.
        unsafe { AtomicU8::from_ptr(self.base.add(offset)) }
    }
}

impl HostMemory for Memory {
    fn read(&self, address: BusAddr, bytes: &mut [u8]) -> Result<(), MemoryFault> {
        let start = self.resolve(address, bytes.len())?;
        for (index, byte) in bytes.iter_mut().enumerate() {
            *byte = self.byte(start + index).load(Ordering::Relaxed);
        }
        Ok(())
    }

    fn write(&self, address: BusAddr, bytes: &[u8]) -> Result<(), MemoryFault> {
        let start = self.resolve(address, bytes.len())?;
        for (index, byte) in bytes.iter().enumerate() {
            self.byte(start + index).store(*byte, Ordering::Relaxed);
        }
        Ok(())
    }

    fn write_entry(&self, address: BusAddr, entry: &[u8]) -> Result<(), MemoryFault> {
        let fault = MemoryFault { address, len: entry.len() };
        let (rest, last) = entry.split_last_chunk::<4>().ok_or(fault)?;
        let start = self.resolve(address, entry.len())?;
        if !start.is_multiple_of(4) {
            return Err(fault);
        }
        self.write(address, rest)?;
        // SAFETY: the four bytes lie inside the array (resolved above), are aligned, and are only reached through
        // atomics.
        let word = unsafe { AtomicU32::from_ptr(self.base.add(start + rest.len()).cast()) };
        word.store(u32::from_ne_bytes(*last), Ordering::Release);
        Ok(())
    }

    fn is_host_memory(&self, address: BusAddr, len: u64) -> bool {
        usize::try_from(len).is_ok_and(|len| self.resolve(address, len).is_ok())
    }
}

// SAFETY: regions are runs of free pages of a static array of its own, so they are valid and do not overlap; their bus
// addresses reach exactly these bytes (`resolve`); one thread with a fence sees its own writes. The program has one
// arena, so every region released is one of its own.
unsafe impl DmaArena for Memory {
    fn allocate(
        &self,
        pool: Pool,
        len: usize,
        align: usize,
        direction: Direction,
    ) -> Result<DmaRegion, DmaError> {
        if len == 0 {
            return Err(DmaError::Empty);
        }
        if !align.is_power_of_two() || align > PAGE {
            return Err(DmaError::Alignment { bytes: align });
        }
        let count = len.div_ceil(PAGE);
        let exhausted = DmaError::Exhausted { pool, bytes: len };
        let first = self
            .used
            .windows(count)
            .position(|pages| pages.iter().all(|used| !used.get()))
            .ok_or(exhausted)?;
        for used in self.used.iter().skip(first).take(count) {
            used.set(true);
        }
        let start = first * PAGE;
        for offset in start..start + len {
            self.byte(offset).store(0, Ordering::Relaxed);
        }
        let cpu = NonNull::new(self.base.wrapping_add(start)).ok_or(exhausted)?;
        // SAFETY: the pages were free and are taken now; the array is page aligned and static.
        Ok(unsafe {
            DmaRegion::from_raw_parts(
                cpu,
                BusAddr::new(BASE + start as u64),
                len,
                pool,
                direction,
                Layout::Contiguous,
            )
        })
    }

    fn page_size(&self) -> usize {
        // Kept from the optimiser, so that nothing is left out because it holds for this size only.
        black_box(PAGE)
    }

    unsafe fn release(&self, region: DmaRegion) {
        let first = region.bus().get().saturating_sub(BASE) as usize / PAGE;
        for used in self.used.iter().skip(first).take(region.len().div_ceil(PAGE)) {
            used.set(false);
        }
    }

    fn publish(&self, _region: &DmaRegion, _range: Range<usize>) {
        fence(Ordering::Release);
    }

    fn acquire(&self, _region: &DmaRegion, _range: Range<usize>) {
        fence(Ordering::Acquire);
    }
}

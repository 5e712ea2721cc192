// SPDX-License-Identifier: MIT OR Apache-2.0
//! An arena over process memory for tests: bus addresses differ from CPU addresses, scattered pages lie in reverse
//! order with gaps, and every region that is not given back is counted.
#![allow(unsafe_code, reason = "an arena hands out raw memory")]

use core::cell::{Cell, RefCell};
use core::ops::Range;
use core::ptr::NonNull;
use core::sync::atomic::{AtomicU8, Ordering};
use std::alloc::{Layout as HeapLayout, alloc_zeroed, dealloc};
use std::collections::BTreeMap;
use std::vec::Vec;

use crate::dma::{Direction, DmaArena, DmaError, DmaRegion, Layout, LetGo, Pool};
use crate::wire::BusAddr;

pub(crate) mod device;
pub(crate) mod life;

/// Bytes of the pages that scattered memory comes in.
pub(crate) const PAGE: usize = 4096;

struct Allocation {
    cpu: NonNull<u8>,
    heap: HeapLayout,
    pool: Pool,
    /// Bus address of each page.
    pages: Vec<u64>,
    live: bool,
}

/// See the module.
pub(crate) struct TestArena {
    allocations: RefCell<Vec<Allocation>>,
    /// Bus page to CPU address and usable bytes.
    pages: RefCell<BTreeMap<u64, (usize, usize)>>,
    next_bus: Cell<u64>,
    budget: Cell<Option<usize>>,
}

/// Tests vouch themselves that their fake device has let go.
pub(crate) struct TestProof;
impl crate::dma::proof::Sealed for TestProof {}
impl LetGo for TestProof {}

impl TestArena {
    pub(crate) fn new() -> Self {
        Self {
            allocations: RefCell::default(),
            pages: RefCell::default(),
            next_bus: Cell::new(0x12_0000_0000),
            budget: Cell::new(None),
        }
    }

    /// Lets `count` more allocations succeed; all later ones fail.
    pub(crate) fn fail_after(&self, count: usize) {
        self.budget.set(Some(count));
    }

    /// Regions handed out from `pool` and not given back.
    pub(crate) fn live(&self, pool: Pool) -> usize {
        self.allocations.borrow().iter().filter(|a| a.live && a.pool == pool).count()
    }

    /// Regions handed out and not given back.
    pub(crate) fn live_total(&self) -> usize {
        self.allocations.borrow().iter().filter(|a| a.live).count()
    }

    /// Reads as the device would.
    pub(crate) fn device_read(&self, address: BusAddr, bytes: &mut [u8]) {
        for (at, byte) in (address.get()..).zip(bytes) {
            *byte = self.device_byte(at).load(Ordering::Acquire);
        }
    }

    /// Writes as the device would.
    pub(crate) fn device_write(&self, address: BusAddr, bytes: &[u8]) {
        for (at, byte) in (address.get()..).zip(bytes) {
            self.device_byte(at).store(*byte, Ordering::Release);
        }
    }

    /// Reads a list entry as the device would.
    pub(crate) fn device_read_u64(&self, address: BusAddr) -> u64 {
        let mut bytes = [0; 8];
        self.device_read(address, &mut bytes);
        u64::from_le_bytes(bytes)
    }

    fn device_byte(&self, bus: u64) -> &AtomicU8 {
        let page = bus & !(PAGE as u64 - 1);
        let (cpu, len) = *self.pages.borrow().get(&page).expect("the device reaches only live regions");
        let offset = (bus - page) as usize;
        assert!(offset < len, "the device stays inside the region");
        // SAFETY: the map holds only live allocations of this arena, and `offset` was checked; they are only
        // accessed through atomics.
        unsafe { AtomicU8::from_ptr((cpu + offset) as *mut u8) }
    }

    fn make(
        &self,
        pool: Pool,
        len: usize,
        align: usize,
        direction: Direction,
        layout: Layout,
    ) -> Result<DmaRegion, DmaError> {
        if len == 0 {
            return Err(DmaError::Empty);
        }
        if !align.is_power_of_two() {
            return Err(DmaError::Alignment { bytes: align });
        }
        match self.budget.get() {
            Some(0) => return Err(DmaError::Exhausted { pool, bytes: len }),
            left => self.budget.set(left.map(|n| n - 1)),
        }
        let heap = HeapLayout::from_size_align(len.next_multiple_of(PAGE), PAGE).expect("a legal layout");
        // SAFETY: the layout's size is not zero.
        let cpu = NonNull::new(unsafe { alloc_zeroed(heap) }).expect("memory");
        let count = len.div_ceil(PAGE) as u64;
        let align = align.max(PAGE) as u64;
        // A gap of a page behind every region.
        let base = self.next_bus.get().next_multiple_of(align);
        self.next_bus.set(base + (2 * count + 1) * PAGE as u64);
        let pages: Vec<u64> = (0..count)
            .map(|n| match layout {
                Layout::Contiguous => base + n * PAGE as u64,
                Layout::Scattered => base + 2 * (count - 1 - n) * PAGE as u64,
            })
            .collect();
        for (n, page) in pages.iter().enumerate() {
            let here = cpu.as_ptr() as usize + n * PAGE;
            self.pages.borrow_mut().insert(*page, (here, (len - n * PAGE).min(PAGE)));
        }
        let bus = BusAddr::new(pages[0]);
        self.allocations.borrow_mut().push(Allocation { cpu, heap, pool, pages, live: true });
        // SAFETY: fresh zeroed memory of at least `len` bytes, aligned to a page, freed when the arena is dropped.
        Ok(unsafe { DmaRegion::from_raw_parts(cpu, bus, len, pool, direction, layout) })
    }
}

impl Drop for TestArena {
    fn drop(&mut self) {
        for allocation in self.allocations.get_mut() {
            // SAFETY: allocated with this layout and not freed since.
            unsafe { dealloc(allocation.cpu.as_ptr(), allocation.heap) }
        }
    }
}

// SAFETY: regions are fresh memory that lives as long as the arena and is never handed out twice; bus addresses are
// unique; the fake device runs in the same thread, so nothing needs publishing.
unsafe impl DmaArena for TestArena {
    fn allocate(
        &self,
        pool: Pool,
        len: usize,
        align: usize,
        direction: Direction,
    ) -> Result<DmaRegion, DmaError> {
        self.make(pool, len, align, direction, Layout::Contiguous)
    }

    fn allocate_scattered(
        &self,
        pool: Pool,
        len: usize,
        direction: Direction,
    ) -> Result<DmaRegion, DmaError> {
        self.make(pool, len, PAGE, direction, Layout::Scattered)
    }

    fn bus_address(&self, region: &DmaRegion, offset: usize) -> Result<BusAddr, DmaError> {
        if offset >= region.len() {
            return Err(DmaError::OutOfRange { offset, len: 1, region: region.len() });
        }
        let allocations = self.allocations.borrow();
        let allocation =
            allocations.iter().find(|a| a.live && a.cpu == region.cpu_address()).expect("a live region");
        Ok(BusAddr::new(allocation.pages[offset / PAGE] + (offset % PAGE) as u64))
    }

    fn page_size(&self) -> usize {
        PAGE
    }

    unsafe fn release(&self, region: DmaRegion) {
        let mut allocations = self.allocations.borrow_mut();
        let allocation =
            allocations.iter_mut().find(|a| a.live && a.cpu == region.cpu_address()).expect("a live region");
        allocation.live = false;
        for page in &allocation.pages {
            self.pages.borrow_mut().remove(page);
        }
    }

    fn publish(&self, region: &DmaRegion, range: Range<usize>) {
        assert!(range.start <= range.end && range.end <= region.len(), "publish inside the region");
    }

    fn acquire(&self, region: &DmaRegion, range: Range<usize>) {
        assert!(range.start <= range.end && range.end <= region.len(), "acquire inside the region");
    }
}

#[test]
fn regions_are_counted_until_released() {
    let arena = TestArena::new();
    arena.fail_after(2);
    let queue = arena.allocate(Pool::Queues, 64, 64, Direction::Bidirectional).unwrap();
    let data = arena.allocate_scattered(Pool::Data, 3 * PAGE, Direction::FromDevice).unwrap();
    assert_eq!(
        arena.allocate(Pool::Data, 1, 1, Direction::FromDevice),
        Err(DmaError::Exhausted { pool: Pool::Data, bytes: 1 })
    );
    arena.device_write(arena.bus_address(&data, PAGE + 5).unwrap(), &[7]);
    let mut byte = [0];
    data.read(PAGE + 5, &mut byte).unwrap();
    assert_eq!(byte, [7]);
    assert_eq!((arena.live(Pool::Data), arena.live_total()), (1, 2));
    crate::dma::release(&arena, queue, &TestProof);
    crate::dma::release(&arena, data, &TestProof);
    assert_eq!(arena.live_total(), 0);
}

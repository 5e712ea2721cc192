// SPDX-License-Identifier: MIT OR Apache-2.0
//! An arena over process memory for tests: bus addresses differ from CPU addresses, scattered pages lie in reverse
//! order with gaps, every region that is not given back is counted, and every misuse of memory fails the test that has
//! the arena: all of it goes through a [`CheckingArena`].
#![allow(unsafe_code, reason = "an arena hands out raw memory")]

use core::cell::{Cell, RefCell};
use core::mem::ManuallyDrop;
use core::ops::Range;
use core::ptr::NonNull;
use core::sync::atomic::{AtomicU8, Ordering};
use std::alloc::{Layout as HeapLayout, alloc_zeroed, dealloc};
use std::boxed::Box;
use std::collections::{BTreeMap, VecDeque};
use std::vec::Vec;

use crate::dma::checking::{Access, CheckingArena, RegionSlot, Violation};
use crate::dma::{Direction, DmaArena, DmaError, DmaRegion, Evidence, Layout, LetGo, Pool};
use crate::wire::BusAddr;

pub(crate) mod device;
pub(crate) mod empty;
pub(crate) mod life;

/// Bytes of the pages that scattered memory comes in.
pub(crate) const PAGE: usize = 4096;

/// Regions of one test that are live or in quarantine.
const REGIONS: usize = 256;
/// Violations that are shown.
const SHOWN: usize = 8;

struct Allocation {
    heap: HeapLayout,
    /// Bus address of each page.
    pages: Vec<u64>,
    live: bool,
}

/// The pieces of `len` bytes from `address` on that lie in one page each.
fn split(address: BusAddr, len: usize) -> impl Iterator<Item = Range<usize>> {
    let mut done = 0;
    core::iter::from_fn(move || {
        let start = done;
        done = len.min(start + PAGE - (address.get() as usize + start) % PAGE);
        (start < len).then_some(start..done)
    })
}

/// Process memory as a device reaches it.
struct HeapArena {
    /// By CPU address; those released stay until the end.
    allocations: RefCell<BTreeMap<NonNull<u8>, Allocation>>,
    /// Bus page to CPU address and usable bytes.
    pages: RefCell<BTreeMap<u64, (usize, usize)>>,
    next_bus: Cell<u64>,
}

/// See the module.
pub(crate) struct TestArena {
    checking: ManuallyDrop<CheckingArena<'static, HeapArena>>,
    /// What `checking` borrows.
    heap: NonNull<HeapArena>,
    slots: NonNull<[RegionSlot]>,
    violations: NonNull<[Option<Violation>]>,
    budget: Cell<Option<usize>>,
    /// What the device writes after each of the next acquires.
    late_writes: RefCell<VecDeque<(BusAddr, Vec<u8>)>>,
    asked: RefCell<Vec<usize>>,
}

/// Tests vouch themselves that their fake device has let go.
pub(crate) struct TestProof;
impl crate::dma::proof::Sealed for TestProof {
    fn evidence(&self) -> Evidence {
        Evidence::Disabled
    }
}
impl LetGo for TestProof {}

impl TestArena {
    pub(crate) fn new() -> Self {
        let heap = HeapArena {
            allocations: RefCell::default(),
            pages: RefCell::default(),
            next_bus: Cell::new(0x12_0000_0000),
        };
        let heap = Box::leak(Box::new(heap));
        let slots = Vec::leak((0..REGIONS).map(|_| RegionSlot::new()).collect());
        let violations = Vec::leak(std::vec![None; SHOWN]);
        // SAFETY: all three are leaked and come back only when the arena is dropped, after the last use of `checking`.
        let (heap, slots, violations) =
            (NonNull::from(heap), NonNull::from(slots), NonNull::from(violations));
        // SAFETY: as above; nobody else has references to them.
        let lent = unsafe { (&*heap.as_ptr(), &mut *slots.as_ptr(), &mut *violations.as_ptr()) };
        let checking = ManuallyDrop::new(CheckingArena::new(lent.0, lent.1, lent.2).with_quarantine(16));
        Self {
            checking,
            heap,
            slots,
            violations,
            budget: Cell::new(None),
            late_writes: RefCell::default(),
            asked: RefCell::default(),
        }
    }

    /// Lets `count` more allocations succeed; all later ones fail.
    pub(crate) fn fail_after(&self, count: usize) {
        self.budget.set(Some(count));
    }

    /// The device writes these bytes right after the next acquire, further ones after the acquire after it.
    pub(crate) fn write_after_acquire(&self, address: BusAddr, bytes: &[u8]) {
        self.late_writes.borrow_mut().push_back((address, bytes.to_vec()));
    }

    /// Length of every region asked for since the last call.
    pub(crate) fn take_asked(&self) -> Vec<usize> {
        self.asked.take()
    }

    /// Regions handed out from `pool` and not given back.
    pub(crate) fn live(&self, pool: Pool) -> usize {
        self.checking.live_in(pool)
    }

    /// Regions handed out and not given back.
    pub(crate) fn live_total(&self) -> usize {
        self.checking.live()
    }

    /// Misuse found so far, which then no longer fails the test.
    pub(crate) fn take_violations(&self) -> Vec<Violation> {
        self.checking.inspect();
        let found = (0..SHOWN).map_while(|n| self.checking.violation(n)).collect();
        self.checking.take_count();
        found
    }

    /// Reads as the device would.
    pub(crate) fn device_read(&self, address: BusAddr, bytes: &mut [u8]) {
        let _ = self.checking.device_access(address, bytes.len(), Access::Read);
        self.device_look(address, bytes);
    }

    /// Reads the device's copy without being the device.
    pub(crate) fn device_look(&self, address: BusAddr, bytes: &mut [u8]) {
        let mut at = address.get();
        for piece in split(address, bytes.len()) {
            let memory = self.checking.inner().device_bytes(at, piece.len());
            for (byte, from) in bytes[piece.clone()].iter_mut().zip(memory) {
                *byte = from.load(Ordering::Acquire);
            }
            at += piece.len() as u64;
        }
    }

    /// Writes as the device would.
    pub(crate) fn device_write(&self, address: BusAddr, bytes: &[u8]) {
        let _ = self.checking.device_access(address, bytes.len(), Access::Write);
        self.device_poke(address, bytes);
    }

    /// Writes the device's copy without saying so.
    pub(crate) fn device_poke(&self, address: BusAddr, bytes: &[u8]) {
        let mut at = address.get();
        for piece in split(address, bytes.len()) {
            let memory = self.checking.inner().device_bytes(at, piece.len());
            for (byte, to) in bytes[piece.clone()].iter().zip(memory) {
                to.store(*byte, Ordering::Release);
            }
            at += piece.len() as u64;
        }
    }

    /// Reads the first bytes of `region` as the device would.
    pub(crate) fn device_read_region(&self, region: &DmaRegion, bytes: &mut [u8]) {
        for (n, page) in bytes.chunks_mut(PAGE).enumerate() {
            self.device_read(self.bus_address(region, n * PAGE).unwrap(), page);
        }
    }

    /// Writes the first bytes of `region` as the device would.
    pub(crate) fn device_write_region(&self, region: &DmaRegion, bytes: &[u8]) {
        for (n, page) in bytes.chunks(PAGE).enumerate() {
            self.device_write(self.bus_address(region, n * PAGE).unwrap(), page);
        }
    }

    /// Reads a list entry as the device would.
    pub(crate) fn device_read_u64(&self, address: BusAddr) -> u64 {
        let mut bytes = [0; 8];
        self.device_read(address, &mut bytes);
        u64::from_le_bytes(bytes)
    }

    fn spend(&self, pool: Pool, bytes: usize) -> Result<(), DmaError> {
        self.asked.borrow_mut().push(bytes);
        match self.budget.get() {
            Some(0) => Err(DmaError::Exhausted { pool, bytes }),
            left => {
                self.budget.set(left.map(|n| n - 1));
                Ok(())
            }
        }
    }
}

impl Drop for TestArena {
    fn drop(&mut self) {
        let found = self.take_violations();
        // SAFETY: not used any more, and dropped once.
        unsafe { ManuallyDrop::drop(&mut self.checking) };
        // SAFETY: leaked by `new`, and `checking`, which borrowed them, is gone.
        unsafe {
            drop(Box::from_raw(self.slots.as_ptr()));
            drop(Box::from_raw(self.violations.as_ptr()));
            drop(Box::from_raw(self.heap.as_ptr()));
        }
        if !std::thread::panicking() {
            assert_eq!(found, [], "misuse of device memory");
        }
    }
}

impl HeapArena {
    /// Bytes that lie in one page.
    fn device_bytes(&self, bus: u64, count: usize) -> impl Iterator<Item = &AtomicU8> {
        let page = bus & !(PAGE as u64 - 1);
        let (cpu, len) = *self.pages.borrow().get(&page).expect("the device reaches only live regions");
        let offset = (bus - page) as usize;
        assert!(offset + count <= len, "the device stays inside the region");
        // SAFETY: the map holds only live allocations of this arena, and the range was checked; they are only accessed
        // through atomics.
        (offset..offset + count).map(move |offset| unsafe { AtomicU8::from_ptr((cpu + offset) as *mut u8) })
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
        self.allocations.borrow_mut().insert(cpu, Allocation { heap, pages, live: true });
        // SAFETY: fresh zeroed memory of at least `len` bytes, aligned to a page, freed when the arena is dropped.
        Ok(unsafe { DmaRegion::from_raw_parts(cpu, bus, len, pool, direction, layout) })
    }
}

impl Drop for HeapArena {
    fn drop(&mut self) {
        for (cpu, allocation) in self.allocations.get_mut() {
            // SAFETY: allocated with this layout and not freed since.
            unsafe { dealloc(cpu.as_ptr(), allocation.heap) }
        }
    }
}

// SAFETY: regions are fresh memory that lives as long as the arena and is never handed out twice; bus addresses are
// unique; the fake device runs in the same thread, so nothing needs publishing.
unsafe impl DmaArena for HeapArena {
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
        let allocation = allocations.get(&region.cpu_address()).filter(|a| a.live).expect("a live region");
        Ok(BusAddr::new(allocation.pages[offset / PAGE] + (offset % PAGE) as u64))
    }

    fn page_size(&self) -> usize {
        PAGE
    }

    unsafe fn release(&self, region: DmaRegion) {
        let mut allocations = self.allocations.borrow_mut();
        let allocation =
            allocations.get_mut(&region.cpu_address()).filter(|a| a.live).expect("a live region");
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

// SAFETY: every region comes from the checking arena, which keeps the promises.
unsafe impl DmaArena for TestArena {
    fn allocate(
        &self,
        pool: Pool,
        len: usize,
        align: usize,
        direction: Direction,
    ) -> Result<DmaRegion, DmaError> {
        self.spend(pool, len)?;
        self.checking.allocate(pool, len, align, direction)
    }

    fn allocate_scattered(
        &self,
        pool: Pool,
        len: usize,
        direction: Direction,
    ) -> Result<DmaRegion, DmaError> {
        self.spend(pool, len)?;
        self.checking.allocate_scattered(pool, len, direction)
    }

    fn bus_address(&self, region: &DmaRegion, offset: usize) -> Result<BusAddr, DmaError> {
        self.checking.bus_address(region, offset)
    }

    fn page_size(&self) -> usize {
        PAGE
    }

    unsafe fn release(&self, region: DmaRegion) {
        // SAFETY: the caller's promise is the same.
        unsafe { self.checking.release(region) }
    }

    unsafe fn release_proved(&self, region: DmaRegion, evidence: Evidence) {
        // SAFETY: the caller's promise is the same.
        unsafe { self.checking.release_proved(region, evidence) }
    }

    fn publish(&self, region: &DmaRegion, range: Range<usize>) {
        self.checking.publish(region, range);
    }

    fn acquire(&self, region: &DmaRegion, range: Range<usize>) {
        self.checking.acquire(region, range);
        let written = self.late_writes.borrow_mut().pop_front();
        if let Some((address, bytes)) = written {
            self.device_write(address, &bytes);
        }
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
    arena.acquire(&data, PAGE + 5..PAGE + 6);
    data.read(PAGE + 5, &mut byte).unwrap();
    assert_eq!(byte, [7]);
    assert_eq!((arena.live(Pool::Data), arena.live_total()), (1, 2));
    crate::dma::release(&arena, queue, &TestProof);
    crate::dma::release(&arena, data, &TestProof);
    assert_eq!(arena.live_total(), 0);
}

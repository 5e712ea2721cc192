// SPDX-License-Identifier: MIT OR Apache-2.0
//! Bus address spaces over process memory.
//!
//! An [`AddressSpace`] is what a device sees behind an IOMMU: bus addresses unlike any CPU address, mapped page by
//! page to the pages of one memfd, with gaps between allocations and nothing else reachable. The driver allocates
//! from it (`nvme_core::dma::DmaArena`), the embedded controllers reach it through
//! [`HostMemory`]. A guest's memory is one space that source and destination see alike.

use std::collections::BTreeMap;
use std::io;
use std::os::fd::AsFd;
use std::os::fd::BorrowedFd;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock, RwLockReadGuard};

use nvme_controller::host::{HostMemory, MemoryFault};
use nvme_core::dma::{Direction, DmaError, DmaRegion, Layout, Pool};
use nvme_core::wire::BusAddr;
use rustix::fs::{FallocateFlags, fallocate};

mod backing;

pub use backing::{Backing, HUGE_PAGE, SpaceError};

use crate::sync::lock;
use crate::sys::{Mapping, SharedMapping, describe};

/// Bytes in a page of every address space.
pub const PAGE: usize = 4096;
const PAGE_SHIFT: u32 = 12;

/// Page table entry: CPU page number plus one above two bits of rights; zero means not mapped.
const READ: u32 = 1;
const WRITE: u32 = 2;
const RIGHTS_BITS: u32 = 2;

/// Bytes that each pool of an [`AddressSpace`] can hand out; each is rounded up to whole pages and has at least one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Capacity {
    /// Queues and PRP list pages.
    pub queues: usize,
    /// Command data.
    pub data: usize,
    /// Controller Data Queues and their PRP lists.
    pub controller_data: usize,
}

/// What is handed out of one pool at the moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PoolUsage {
    /// Regions not yet given back.
    pub regions: usize,
    /// Bytes in those regions, in whole pages.
    pub bytes: usize,
}

/// Adjacent memory of an [`AddressSpace`] that is adjacent on the bus, too.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Window {
    /// First byte, from the start of the file behind the space; a multiple of [`PAGE`], or of [`HUGE_PAGE`] if the space is
    /// made of such.
    pub offset: u64,
    /// Its bus address, a multiple of the same.
    pub address: BusAddr,
    /// Bytes, whole such pages.
    pub len: u64,
}

/// One bus address space over one memfd.
#[derive(Debug)]
pub struct AddressSpace {
    mapping: Arc<SharedMapping>,
    /// Bus page number of the first page of the window.
    base: u64,
    /// Of each pool the distance from its CPU pages to its bus pages, if it is the same for all of them.
    linear: Option<[u32; 3]>,
    /// Bus page (from the start of the window) to CPU page and rights.
    table: Box<[AtomicU32]>,
    /// CPU page to bus page (from the start of the window), for scattered regions.
    reverse: Box<[AtomicU32]>,
    pools: [Mutex<PoolState>; 3],
    /// Shared by every access of a device from translation to the last byte copied; exclusive for whoever has just
    /// unmapped pages, before they go to another owner.
    accesses: RwLock<()>,
}

/// Pages of one pool, CPU and bus side. Pools share neither.
#[derive(Debug)]
struct PoolState {
    cpu: Pages,
    contiguous: Pages,
    scattered: Pages,
    live: BTreeMap<u32, Live>,
}

#[derive(Debug)]
struct Live {
    cpu_pages: u32,
    bus: Vec<u32>,
    /// Page after the contiguous run that stays unmapped.
    guard: Option<u32>,
}

/// A run of page numbers with next-fit allocation, so that an address just given back is not handed out again soon.
#[derive(Debug)]
struct Pages {
    first: u32,
    used: Vec<bool>,
    cursor: usize,
}

/// So many values that are all the same, unless there is no memory for them.
fn filled<T>(count: u32, value: impl FnMut() -> T) -> Option<Vec<T>> {
    let mut list = Vec::new();
    list.try_reserve_exact(count as usize).ok()?;
    list.resize_with(count as usize, value);
    Some(list)
}

impl Pages {
    fn new(first: u32, count: u32) -> Option<Self> {
        Some(Self { first, used: filled(count, || false)?, cursor: 0 })
    }

    /// Takes `count` adjacent pages whose first number, counted from `origin`, is a multiple of `align`.
    fn take_run(&mut self, count: u32, align: u64, origin: u64) -> Option<u32> {
        let count = count as usize;
        let total = self.used.len();
        for turn in [self.cursor..total, 0..total] {
            let mut at = turn.start;
            while at + count <= total {
                let number = origin + u64::from(self.first) + at as u64;
                let skip = (number.next_multiple_of(align) - number) as usize;
                if skip != 0 {
                    at += skip;
                    continue;
                }
                match self.used[at..at + count].iter().rposition(|used| *used) {
                    Some(taken) => at += taken + 1,
                    None => {
                        self.used[at..at + count].fill(true);
                        self.cursor = at + count;
                        return Some(self.first + at as u32);
                    }
                }
            }
        }
        None
    }

    /// Takes one page, never next to the one taken before.
    fn take_apart(&mut self) -> Option<u32> {
        let total = self.used.len();
        let start = (self.cursor + STRIDE) % total;
        let at = (0..total).map(|step| (start + step) % total).find(|at| !self.used[*at])?;
        self.used[at] = true;
        self.cursor = at;
        Some(self.first + at as u32)
    }

    fn give_back(&mut self, number: u32) {
        self.used[(number - self.first) as usize] = false;
    }
}

/// Distance between consecutive pages of a scattered region.
const STRIDE: usize = 7;
/// Unmapped pages between the pools of a linear space, each of which begins at a multiple of so many: memory can be tracked
/// in units of that and of less without one that begins before its pool, or that holds memory of two.
const LINEAR_GAP: u64 = (HUGE_PAGE / PAGE) as u64;
/// Pages of memory that a table entry can tell apart.
const MOST_PAGES: u64 = 1 << (u32::BITS - RIGHTS_BITS);

/// Number of address spaces made so far: each has a window of its own, so that an address of one means nothing in
/// another.
static SPACES: AtomicU64 = AtomicU64::new(0);

/// Memory of spaces that went before some of their regions: whoever has one may look at it for as long as the process lives.
static KEPT: Mutex<Vec<Arc<SharedMapping>>> = Mutex::new(Vec::new());

impl AddressSpace {
    /// Makes an address space with nothing mapped; memory is taken from the system as it is used.
    ///
    /// # Errors
    /// The capacity is too large, or the system has no memory or descriptors left; see [`SpaceError`].
    pub fn new(name: &str, capacity: Capacity) -> io::Result<Self> {
        Ok(Self::build(name, capacity, None, false, Backing::Ordinary)?)
    }

    /// As [`new`](Self::new), but each pool lies on the bus as it lies in the file, from a multiple of [`HUGE_PAGE`] on, so
    /// that a device reaches it through one mapping, see [`windows`](Self::windows). Such a device reaches what is not
    /// allocated, too.
    ///
    /// # Errors
    /// As [`new`](Self::new).
    pub fn linear(name: &str, capacity: Capacity) -> io::Result<Self> {
        Ok(Self::linear_of(name, capacity, Backing::Ordinary)?)
    }

    /// As [`linear`](Self::linear), made of such pages as `backing` says; each pool is whole ones.
    ///
    /// # Errors
    /// [`SpaceError`].
    pub fn linear_of(name: &str, capacity: Capacity, backing: Backing) -> Result<Self, SpaceError> {
        Self::build(name, capacity, None, true, backing)
    }

    /// As [`linear_of`](Self::linear_of), with all its bus addresses in the [`linear_span`](Self::linear_span) bytes from `start`
    /// on, a multiple of such a page: where the IOMMU has room for them. Its pools begin at multiples of [`HUGE_PAGE`] only if
    /// `start` is one.
    ///
    /// # Errors
    /// [`SpaceError`].
    pub fn linear_at(
        name: &str,
        capacity: Capacity,
        start: BusAddr,
        backing: Backing,
    ) -> Result<Self, SpaceError> {
        let (address, page) = (start.get(), backing.page());
        if !address.is_multiple_of(page as u64) {
            return Err(SpaceError::Start { address, page });
        }
        Self::build(name, capacity, Some(address >> PAGE_SHIFT), true, backing)
    }

    /// Bytes of bus addresses from the first to the last of a [`linear`](Self::linear) space, gaps included.
    #[must_use]
    pub fn linear_span(capacity: Capacity, backing: Backing) -> u64 {
        let Capacity { queues, data, controller_data } = capacity;
        let unit = Self::linear_unit(backing);
        let pages: u64 = [queues, data, controller_data]
            .map(|bytes| Self::pages(bytes, backing).div_ceil(unit).saturating_mul(unit))
            .into_iter()
            .fold(0, u64::saturating_add);
        (pages.saturating_add(4 * unit)).saturating_mul(PAGE as u64)
    }

    /// Pages of 4 KiB from one place where a pool of a linear space may begin to the next.
    fn linear_unit(backing: Backing) -> u64 {
        ((backing.page() / PAGE) as u64).max(LINEAR_GAP)
    }

    /// Pages of 4 KiB in a pool of so many bytes.
    fn pages(bytes: usize, backing: Backing) -> u64 {
        (bytes.div_ceil(backing.page()).max(1) as u64) * (backing.page() / PAGE) as u64
    }

    fn build(
        name: &str,
        capacity: Capacity,
        start: Option<u64>,
        linear: bool,
        backing: Backing,
    ) -> Result<Self, SpaceError> {
        let Capacity { queues, data, controller_data } = capacity;
        let unit = Self::linear_unit(backing);
        let bytes = [queues, data, controller_data]
            .iter()
            .fold(0_u64, |sum, bytes| sum.saturating_add(*bytes as u64));
        let too_large = || SpaceError::TooLarge(bytes);
        let mut cpu_first = 0_u64;
        let mut bus_first = if linear { unit } else { 1 };
        let mut pool = |bytes: usize| {
            let pages = Self::pages(bytes, backing);
            let window = if linear { 0 } else { pages * 2 + 64 };
            let (cpu, bus) = (cpu_first, bus_first);
            cpu_first += pages;
            bus_first += if linear { (pages + unit).next_multiple_of(unit) } else { 2 * window + 2 };
            // A table entry has room for so many pages of memory and of the bus.
            if cpu_first >= MOST_PAGES || bus_first > u64::from(u32::MAX) {
                return None;
            }
            let cpu_pages = Pages::new(cpu as u32, pages as u32)?;
            let contiguous = Pages::new(bus as u32, window as u32)?;
            let scattered = Pages::new((bus + window + 1) as u32, window as u32)?;
            let state = PoolState { cpu: cpu_pages, contiguous, scattered, live: BTreeMap::new() };
            Some((Mutex::new(state), (bus - cpu) as u32))
        };
        let mut pool = |bytes| pool(bytes).ok_or_else(too_large);
        let (queues, data, controller_data) = (pool(queues)?, pool(data)?, pool(controller_data)?);
        let table = filled(bus_first as u32, || AtomicU32::new(0)).ok_or_else(too_large)?;
        let reverse = filled(cpu_first as u32, || AtomicU32::new(0)).ok_or_else(too_large)?;
        let len = usize::try_from(cpu_first << PAGE_SHIFT).map_err(|_| too_large())?;
        let mapping = SharedMapping::of_pages(name, len, backing == Backing::Huge)
            .map_err(|error| backing::why_not(error, backing, len))?;
        let next = || ((SPACES.fetch_add(1, Ordering::Relaxed) % 4096) + 1) << 28;
        Ok(Self {
            mapping: Arc::new(mapping),
            base: start.unwrap_or_else(next),
            linear: linear.then_some([queues.1, data.1, controller_data.1]),
            table: table.into_boxed_slice(),
            reverse: reverse.into_boxed_slice(),
            pools: [queues.0, data.0, controller_data.0],
            accesses: RwLock::new(()),
        })
    }

    /// What a device is to be given of a [`linear`](Self::linear) space: a window for each pool, with unmapped addresses
    /// between them. Nothing of any other space.
    #[must_use]
    pub fn windows(&self) -> Vec<Window> {
        let window = |(pool, shift): (&Mutex<PoolState>, u32)| {
            let state = lock(pool);
            let (first, pages) = (state.cpu.first, state.cpu.used.len());
            let offset = u64::from(first) * PAGE as u64;
            Window { offset, address: self.address_of(first + shift), len: (pages * PAGE) as u64 }
        };
        self.pools.iter().zip(self.linear.into_iter().flatten()).map(window).collect()
    }

    /// What a device is to be given for `region` alone: one window, or one for each page of a scattered region. Nothing
    /// for a region of another space.
    #[must_use]
    pub fn region_windows(&self, region: &DmaRegion) -> Vec<Window> {
        let Some(cpu) = self.cpu_page(region) else { return Vec::new() };
        let state = lock(self.pool(region.pool()));
        let Some(live) = state.live.get(&cpu) else { return Vec::new() };
        let mut windows: Vec<Window> = Vec::new();
        for (cpu_page, bus_page) in (cpu..).zip(&live.bus) {
            let address = self.address_of(*bus_page);
            match windows.last_mut() {
                Some(last) if last.address.plus(last.len) == address => last.len += PAGE as u64,
                _ => windows.push(Window {
                    offset: u64::from(cpu_page) * PAGE as u64,
                    address,
                    len: PAGE as u64,
                }),
            }
        }
        windows
    }

    /// The descriptor of the memory behind the space.
    #[must_use]
    pub fn descriptor(&self) -> BorrowedFd<'_> {
        self.mapping.file().as_fd()
    }

    /// The memory behind the space.
    pub(crate) fn mapping(&self) -> &Mapping {
        &self.mapping
    }

    /// What is handed out of `pool` now. All zeroes means that nothing was lost.
    #[must_use]
    pub fn usage(&self, pool: Pool) -> PoolUsage {
        let state = lock(self.pool(pool));
        let pages: usize = state.live.values().map(|live| live.cpu_pages as usize).sum();
        PoolUsage { regions: state.live.len(), bytes: pages * PAGE }
    }

    fn pool(&self, pool: Pool) -> &Mutex<PoolState> {
        let [queues, data, controller_data] = &self.pools;
        match pool {
            Pool::Queues => queues,
            Pool::Data => data,
            Pool::ControllerData => controller_data,
        }
    }

    fn address_of(&self, bus_page: u32) -> BusAddr {
        BusAddr::new((self.base + u64::from(bus_page)) << PAGE_SHIFT)
    }

    /// Sets pages aside and maps them.
    pub(crate) fn take(
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
        let exhausted = DmaError::Exhausted { pool, bytes: len };
        let pages = u32::try_from(len.div_ceil(PAGE)).map_err(|_| exhausted)?;
        let rights = match direction {
            Direction::ToDevice => READ,
            Direction::FromDevice => WRITE,
            Direction::Bidirectional => READ | WRITE,
        };
        let mut state = lock(self.pool(pool));
        let state = &mut *state;
        let shift = self.linear.map(|[queues, data, controller_data]| match pool {
            Pool::Queues => queues,
            Pool::Data => data,
            Pool::ControllerData => controller_data,
        });
        let align = align.div_ceil(PAGE) as u64;
        let cpu = match shift {
            None => state.cpu.take_run(pages, 1, 0),
            Some(shift) => state.cpu.take_run(pages, align, self.base + u64::from(shift)),
        };
        let cpu = cpu.ok_or(exhausted)?;
        let taken = match (layout, shift) {
            (_, Some(shift)) => {
                let first = cpu + shift;
                Some(Live { cpu_pages: pages, bus: (first..first + pages).collect(), guard: None })
            }
            (Layout::Contiguous, None) => {
                // One page more than needed stays unmapped, so that an overrun faults.
                state.contiguous.take_run(pages + 1, align, self.base).map(|first| Live {
                    cpu_pages: pages,
                    bus: (first..first + pages).collect(),
                    guard: Some(first + pages),
                })
            }
            (Layout::Scattered, None) => {
                let bus: Vec<u32> = (0..pages).map_while(|_| state.scattered.take_apart()).collect();
                if bus.len() == pages as usize {
                    Some(Live { cpu_pages: pages, bus, guard: None })
                } else {
                    bus.iter().for_each(|page| state.scattered.give_back(*page));
                    None
                }
            }
        };
        let Some(live) = taken else {
            (cpu..cpu + pages).for_each(|page| state.cpu.give_back(page));
            return Err(exhausted);
        };
        self.mapping.zero(cpu as usize * PAGE, pages as usize * PAGE);
        for (cpu_page, bus_page) in (cpu..).zip(&live.bus) {
            self.reverse[cpu_page as usize].store(*bus_page, Ordering::Relaxed);
            self.table[*bus_page as usize].store(((cpu_page + 1) << RIGHTS_BITS) | rights, Ordering::Release);
        }
        let bus = self.address_of(live.bus[0]);
        state.live.insert(cpu, live);
        Ok(describe(self.mapping.pointer(cpu as usize * PAGE), bus, len, pool, direction, layout))
    }

    fn cpu_page(&self, region: &DmaRegion) -> Option<u32> {
        let base = self.mapping.pointer(0).as_ptr().addr();
        let offset = region.cpu_address().as_ptr().addr().checked_sub(base)?;
        u32::try_from(offset / PAGE).ok().filter(|page| (*page as usize) < self.reverse.len())
    }

    /// The bus address of a byte of a scattered region.
    pub(crate) fn scattered_address(&self, region: &DmaRegion, offset: usize) -> Result<BusAddr, DmaError> {
        let outside = DmaError::OutOfRange { offset, len: 1, region: region.len() };
        let first = self.cpu_page(region).ok_or(outside)?;
        let page = self.reverse.get(first as usize + offset / PAGE).ok_or(outside)?;
        Ok(self.address_of(page.load(Ordering::Relaxed)).plus((offset % PAGE) as u64))
    }

    /// Unmaps a region and takes its pages back. A region of another space is left alone.
    pub(crate) fn give_back(&self, region: DmaRegion) {
        let Some(cpu) = self.cpu_page(&region) else { return };
        let mut state = lock(self.pool(region.pool()));
        let Some(live) = state.live.remove(&cpu) else { return };
        self.free(&mut state, cpu, &live);
    }

    /// Unmaps what has just been taken out of the list of live regions, and gives its pages to the next.
    fn free(&self, state: &mut PoolState, cpu: u32, live: &Live) {
        for page in &live.bus {
            self.table[*page as usize].store(0, Ordering::Release);
        }
        // An access that translated an address before may still be copying; whoever comes now faults.
        drop(self.accesses.write().unwrap_or_else(PoisonError::into_inner));
        if self.linear.is_none() {
            let pages = if live.guard.is_some() { &mut state.contiguous } else { &mut state.scattered };
            live.bus.iter().chain(live.guard.iter()).for_each(|page| pages.give_back(*page));
        }
        (cpu..cpu + live.cpu_pages).for_each(|page| state.cpu.give_back(page));
    }

    /// Takes every region back.
    pub(crate) fn give_all_back(&self) {
        for pool in &self.pools {
            let mut state = lock(pool);
            while let Some((cpu, live)) = state.live.pop_first() {
                self.free(&mut state, cpu, &live);
            }
        }
    }

    /// Held by an access of a device from translation to the end: what it translated stays its owner's meanwhile.
    /// Not to be taken twice by one thread.
    fn access(&self) -> RwLockReadGuard<'_, ()> {
        self.accesses.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether this page is mapped. That of a linear space is host memory without, too.
    pub(crate) fn is_mapped(&self, page: BusAddr) -> bool {
        self.translate(page.get(), 0).is_some()
    }

    /// Whether a device that is given the [`windows`](Self::windows) reaches this page of the bus.
    fn is_in_window(&self, page: u64) -> bool {
        let Some(page) = page.checked_sub(self.base) else { return false };
        self.pools.iter().zip(self.linear.into_iter().flatten()).any(|(pool, shift)| {
            let state = lock(pool);
            let first = u64::from(state.cpu.first + shift);
            (first..first + state.cpu.used.len() as u64).contains(&page)
        })
    }

    /// The mapped byte behind `address`, if the device has `rights` there. Good for as long as the caller holds
    /// [`access`](Self::access).
    fn translate(&self, address: u64, rights: u32) -> Option<usize> {
        let page = (address >> PAGE_SHIFT).checked_sub(self.base)?;
        let entry = self.table.get(usize::try_from(page).ok()?)?.load(Ordering::Acquire);
        if entry == 0 || entry & rights != rights {
            return None;
        }
        let cpu = (entry >> RIGHTS_BITS) - 1;
        Some(cpu as usize * PAGE + (address as usize % PAGE))
    }

    /// Calls `access` for each piece of the range that lies in one page, after all of it was found to be mapped. The
    /// caller holds [`access`](Self::access).
    fn for_each_page(
        &self,
        address: BusAddr,
        len: usize,
        rights: u32,
        mut access: impl FnMut(usize, std::ops::Range<usize>),
    ) -> Result<(), MemoryFault> {
        let fault = MemoryFault { address, len };
        let start = address.get();
        start.checked_add(len as u64).ok_or(fault)?;
        let pieces = || {
            let mut done = 0;
            std::iter::from_fn(move || {
                if done == len {
                    return None;
                }
                let at = start + done as u64;
                let piece = (PAGE - at as usize % PAGE).min(len - done);
                done += piece;
                Some((at, done - piece..done))
            })
        };
        if pieces().any(|(at, _)| self.translate(at, rights).is_none()) {
            return Err(fault);
        }
        for (at, range) in pieces() {
            access(self.translate(at, rights).ok_or(fault)?, range);
        }
        Ok(())
    }

    /// Copies to the mapped bytes from `address` on. The caller holds [`access`](Self::access).
    fn copy_in(&self, address: BusAddr, bytes: &[u8]) -> Result<(), MemoryFault> {
        self.for_each_page(address, bytes.len(), WRITE, |at, range| self.mapping.write(at, &bytes[range]))
    }
}

impl Drop for AddressSpace {
    fn drop(&mut self) {
        // Regions that were not given back may still be looked at by whoever has them: their pages stay, the rest goes.
        let mut live: Vec<(u32, u32)> = Vec::new();
        for pool in &self.pools {
            live.extend(lock(pool).live.iter().map(|(first, region)| (*first, first + region.cpu_pages)));
        }
        if live.is_empty() {
            return;
        }
        live.sort_unstable();
        lock(&KEPT).push(Arc::clone(&self.mapping));
        let ends = live.iter().map(|(_, end)| *end);
        let starts = live.iter().map(|(first, _)| *first).chain([self.reverse.len() as u32]);
        for (from, to) in [0].into_iter().chain(ends).zip(starts) {
            if from < to {
                let (at, len) = (u64::from(from) * PAGE as u64, u64::from(to - from) * PAGE as u64);
                // A system that does not give the pages back keeps them.
                let _ = fallocate(
                    self.mapping.file(),
                    FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE,
                    at,
                    len,
                );
            }
        }
    }
}

impl HostMemory for AddressSpace {
    fn read(&self, address: BusAddr, bytes: &mut [u8]) -> Result<(), MemoryFault> {
        let _access = self.access();
        self.for_each_page(address, bytes.len(), READ, |at, range| self.mapping.read(at, &mut bytes[range]))
    }

    fn write(&self, address: BusAddr, bytes: &[u8]) -> Result<(), MemoryFault> {
        let _access = self.access();
        self.copy_in(address, bytes)
    }

    fn write_entry(&self, address: BusAddr, entry: &[u8]) -> Result<(), MemoryFault> {
        let _access = self.access();
        let fault = MemoryFault { address, len: entry.len() };
        let (payload, last) = entry.split_last_chunk::<4>().ok_or(fault)?;
        let last_address = address.plus(payload.len() as u64);
        let at = self.translate(last_address.get(), WRITE).filter(|at| at.is_multiple_of(4)).ok_or(fault)?;
        self.copy_in(address, payload).map_err(|_| fault)?;
        self.mapping.write_dword_release(at, *last);
        Ok(())
    }

    fn is_host_memory(&self, address: BusAddr, len: u64) -> bool {
        let Some(last) = len.checked_sub(1).and_then(|rest| address.get().checked_add(rest)) else {
            return false;
        };
        // A range longer than the window cannot be mapped, which bounds the walk.
        let (first, last) = (address.get() >> PAGE_SHIFT, last >> PAGE_SHIFT);
        last - first < self.table.len() as u64
            && (first..=last)
                .all(|page| self.is_mapped(BusAddr::new(page << PAGE_SHIFT)) || self.is_in_window(page))
    }
}

#[cfg(test)]
mod tests;

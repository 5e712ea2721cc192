// SPDX-License-Identifier: MIT OR Apache-2.0
//! The memory one controller reaches: sparse pages, with faults where a test asks for them.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::ops::Range;
use std::rc::Rc;

use nvme_controller::host::{HostMemory, MemoryFault};
use nvme_core::wire::BusAddr;

const PAGE: u64 = 4096;

type Watcher = Box<dyn FnMut(u64, &[u8])>;

/// A bus address space. Clones are the same space.
#[derive(Clone)]
pub(crate) struct Memory(Rc<RefCell<Space>>);

#[derive(Default)]
struct Space {
    pages: BTreeMap<u64, Box<[u8; PAGE as usize]>>,
    next: u64,
    no_read: Vec<Range<u64>>,
    no_write: Vec<Range<u64>>,
    not_host: Vec<Range<u64>>,
    /// Reads left in a range until it cannot be read any more.
    reads_left: Option<(Range<u64>, u32)>,
    device_reads: u64,
    device_writes: u64,
    watcher: Option<Watcher>,
}

fn overlaps(ranges: &[Range<u64>], address: u64, len: u64) -> bool {
    ranges.iter().any(|range| address < range.end && range.start < address.saturating_add(len))
}

impl Space {
    fn mapped(&self, address: u64, len: u64) -> bool {
        let Some(end) = address.checked_add(len) else { return false };
        (address / PAGE..end.div_ceil(PAGE)).all(|page| self.pages.contains_key(&page))
    }

    fn copy_out(&self, address: u64, bytes: &mut [u8]) {
        for (at, byte) in (address..).zip(bytes) {
            *byte = self.pages[&(at / PAGE)][(at % PAGE) as usize];
        }
    }

    fn copy_in(&mut self, address: u64, bytes: &[u8]) {
        for (at, byte) in (address..).zip(bytes) {
            self.pages.get_mut(&(at / PAGE)).unwrap()[(at % PAGE) as usize] = *byte;
        }
    }
}

/// The host's side.
impl Memory {
    /// An empty space that hands out addresses from `base` on.
    pub(crate) fn new(base: u64) -> Self {
        Self(Rc::new(RefCell::new(Space { next: base, ..Space::default() })))
    }

    /// Zeroed memory of `len` bytes at a multiple of `align`, with unmapped pages around it.
    pub(crate) fn allocate_aligned(&self, len: u64, align: u64) -> u64 {
        let mut space = self.0.borrow_mut();
        let base = space.next.next_multiple_of(align.max(PAGE));
        let pages = len.div_ceil(PAGE).max(1);
        for page in 0..pages {
            space.pages.insert(base / PAGE + page, Box::new([0; PAGE as usize]));
        }
        space.next = base + (pages + 1) * PAGE;
        base
    }

    /// Zeroed memory of `len` bytes at a page boundary.
    pub(crate) fn allocate(&self, len: u64) -> u64 {
        self.allocate_aligned(len, PAGE)
    }

    /// Maps zeroed pages at a given address.
    pub(crate) fn map(&self, address: u64, len: u64) {
        let mut space = self.0.borrow_mut();
        for page in address / PAGE..(address + len).div_ceil(PAGE) {
            space.pages.insert(page, Box::new([0; PAGE as usize]));
        }
    }

    /// Takes the pages of a range away.
    pub(crate) fn unmap(&self, address: u64, len: u64) {
        let mut space = self.0.borrow_mut();
        for page in address / PAGE..(address + len).div_ceil(PAGE) {
            space.pages.remove(&page);
        }
    }

    pub(crate) fn bytes(&self, address: u64, len: usize) -> Vec<u8> {
        let mut bytes = vec![0; len];
        self.0.borrow().copy_out(address, &mut bytes);
        bytes
    }

    pub(crate) fn fill(&self, address: u64, bytes: &[u8]) {
        self.0.borrow_mut().copy_in(address, bytes);
    }

    pub(crate) fn word(&self, address: u64) -> u32 {
        u32::from_le_bytes(self.bytes(address, 4).try_into().unwrap())
    }

    pub(crate) fn fill_words(&self, address: u64, words: &[u32]) {
        for (at, word) in (address..).step_by(4).zip(words) {
            self.fill(at, &word.to_le_bytes());
        }
    }

    pub(crate) fn fill_addresses(&self, address: u64, entries: &[u64]) {
        for (at, entry) in (address..).step_by(8).zip(entries) {
            self.fill(at, &entry.to_le_bytes());
        }
    }

    /// Reads of the controller in this range fail from now on.
    pub(crate) fn fail_reads(&self, address: u64, len: u64) {
        self.0.borrow_mut().no_read.push(address..address + len);
    }

    /// The controller can read `count` times in this range, and not once more.
    pub(crate) fn fail_reads_after(&self, address: u64, len: u64, count: u32) {
        self.0.borrow_mut().reads_left = Some((address..address + len, count));
    }

    /// Writes of the controller to this range fail from now on.
    pub(crate) fn fail_writes(&self, address: u64, len: u64) {
        self.0.borrow_mut().no_write.push(address..address + len);
    }

    /// Ends all faults.
    pub(crate) fn mend(&self) {
        let mut space = self.0.borrow_mut();
        space.no_read.clear();
        space.no_write.clear();
        space.reads_left = None;
    }

    /// This range is a controller memory buffer or the like.
    pub(crate) fn mark_not_host(&self, address: u64, len: u64) {
        self.0.borrow_mut().not_host.push(address..address + len);
    }

    /// Reads and writes of the controller so far.
    pub(crate) fn device_accesses(&self) -> (u64, u64) {
        let space = self.0.borrow();
        (space.device_reads, space.device_writes)
    }

    /// Calls `watcher` with address and bytes of each queue entry before it is written.
    pub(crate) fn watch(&self, watcher: impl FnMut(u64, &[u8]) + 'static) {
        self.0.borrow_mut().watcher = Some(Box::new(watcher));
    }
}

impl HostMemory for Memory {
    fn read(&self, address: BusAddr, bytes: &mut [u8]) -> Result<(), MemoryFault> {
        let mut space = self.0.borrow_mut();
        space.device_reads += 1;
        let len = bytes.len();
        if let Some((range, left)) = &mut space.reads_left
            && range.contains(&address.get())
        {
            *left = left.checked_sub(1).ok_or(MemoryFault { address, len })?;
        }
        if !space.mapped(address.get(), len as u64) || overlaps(&space.no_read, address.get(), len as u64) {
            return Err(MemoryFault { address, len });
        }
        space.copy_out(address.get(), bytes);
        Ok(())
    }

    fn write(&self, address: BusAddr, bytes: &[u8]) -> Result<(), MemoryFault> {
        let mut space = self.0.borrow_mut();
        space.device_writes += 1;
        let len = bytes.len();
        if !space.mapped(address.get(), len as u64) || overlaps(&space.no_write, address.get(), len as u64) {
            return Err(MemoryFault { address, len });
        }
        space.copy_in(address.get(), bytes);
        Ok(())
    }

    fn write_entry(&self, address: BusAddr, entry: &[u8]) -> Result<(), MemoryFault> {
        assert!(address.get().is_multiple_of(4) && entry.len().is_multiple_of(4), "entry at {address}");
        let watcher = self.0.borrow_mut().watcher.take();
        if let Some(mut watcher) = watcher {
            watcher(address.get(), entry);
            self.0.borrow_mut().watcher = Some(watcher);
        }
        self.write(address, entry)
    }

    fn is_host_memory(&self, address: BusAddr, len: u64) -> bool {
        let space = self.0.borrow();
        space.mapped(address.get(), len) && !overlaps(&space.not_host, address.get(), len)
    }
}

// SPDX-License-Identifier: MIT OR Apache-2.0
//! Host memory and medium of a rig. Everything that a controller does to them is noted, in order.

use std::cell::RefCell;
use std::rc::Rc;

use nvme_controller::host::{BlockStorage, HostMemory, Interrupts, MemoryFault, StorageError};
use nvme_core::wire::{BusAddr, ControllerId, Lba};

use super::{BASE, PAGE, PAGES};

pub(super) const BLOCKS: u64 = 64;

/// Something that a controller did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Act {
    /// It reached for the memory of host `space`.
    Memory { space: usize, touch: Touch, bytes: Vec<u8> },
    /// Blocks were changed.
    Blocks { start: u64, blocks: u64 },
}

/// What a controller did to its host's memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Touch {
    pub(crate) address: u64,
    pub(crate) len: usize,
    pub(crate) write: bool,
    /// A queue entry was written.
    pub(crate) entry: bool,
    /// It was refused.
    pub(crate) refused: bool,
}

/// What all controllers did, in order.
pub(super) type Journal = Rc<RefCell<Vec<Act>>>;

/// The memory of one host: pages that come and go. Clones are the same memory.
#[derive(Clone, Debug)]
pub(crate) struct Space(Rc<RefCell<Pages>>);

#[derive(Clone, Debug)]
enum Page {
    Absent,
    Zero,
    Bytes(Box<[u8; PAGE as usize]>),
}

#[derive(Debug)]
struct Pages {
    index: usize,
    pages: Vec<Page>,
    touched: Vec<Touch>,
    journal: Journal,
}

impl Space {
    pub(super) fn new(index: usize, journal: Journal) -> Self {
        let pages = (0..PAGES).map(|_| Page::Zero).collect();
        Self(Rc::new(RefCell::new(Pages { index, pages, touched: Vec::new(), journal })))
    }

    /// Maps a zeroed page or takes one away.
    pub(crate) fn map(&self, page: u64, present: bool) {
        let place = &mut self.0.borrow_mut().pages[page as usize];
        match (present, &place) {
            (false, _) => *place = Page::Absent,
            (true, Page::Absent) => *place = Page::Zero,
            (true, _) => {}
        }
    }

    /// Takes over all pages of `other`.
    pub(super) fn become_like(&self, other: &Self) {
        let pages = other.0.borrow().pages.clone();
        self.0.borrow_mut().pages = pages;
    }

    /// What was touched since the last call.
    pub(crate) fn take_touched(&self) -> Vec<Touch> {
        core::mem::take(&mut self.0.borrow_mut().touched)
    }

    /// The host writes; what is not mapped is left out.
    pub(crate) fn put(&self, address: u64, bytes: &[u8]) {
        let mut pages = self.0.borrow_mut();
        for (at, byte) in (address..).zip(bytes) {
            let place = at.checked_sub(BASE).and_then(|at| pages.pages.get_mut((at / PAGE) as usize));
            let Some(place) = place else { continue };
            if matches!(place, Page::Zero) && *byte != 0 {
                *place = Page::Bytes(Box::new([0; PAGE as usize]));
            }
            if let Page::Bytes(page) = place {
                page[(at % PAGE) as usize] = *byte;
            }
        }
    }

    /// The host reads; what is not mapped reads as zero.
    pub(crate) fn get(&self, address: u64, bytes: &mut [u8]) {
        let pages = self.0.borrow();
        for (at, byte) in (address..).zip(bytes) {
            *byte = match at.checked_sub(BASE).and_then(|at| pages.pages.get((at / PAGE) as usize)) {
                Some(Page::Bytes(page)) => page[(at % PAGE) as usize],
                _ => 0,
            };
        }
    }

    fn mapped(&self, address: u64, len: u64) -> bool {
        let pages = self.0.borrow();
        let Some(end) = address.checked_add(len) else { return false };
        let Some(first) = address.checked_sub(BASE) else { return false };
        let pages = &pages.pages;
        end - BASE <= PAGES * PAGE
            && (first / PAGE..(end - BASE).div_ceil(PAGE))
                .all(|page| !matches!(pages[page as usize], Page::Absent))
    }

    /// Notes an access; `bytes` are what an entry holds.
    fn touch(
        &self,
        address: BusAddr,
        len: usize,
        kind: (bool, bool),
        bytes: &[u8],
    ) -> Result<u64, MemoryFault> {
        let refused = !self.mapped(address.get(), len as u64);
        let touch = Touch { address: address.get(), len, write: kind.0, entry: kind.1, refused };
        let pages = &mut *self.0.borrow_mut();
        pages.touched.push(touch);
        let act = Act::Memory { space: pages.index, touch, bytes: bytes.to_vec() };
        pages.journal.borrow_mut().push(act);
        if refused { Err(MemoryFault { address, len }) } else { Ok(address.get()) }
    }
}

impl HostMemory for Space {
    fn read(&self, address: BusAddr, bytes: &mut [u8]) -> Result<(), MemoryFault> {
        let at = address.get();
        if bytes.len() == 64 {
            // Perhaps a submission queue entry.
            let mut now = [0; 64];
            self.get(at, &mut now);
            self.touch(address, 64, (false, false), &now)?;
        } else {
            self.touch(address, bytes.len(), (false, false), &[])?;
        }
        self.get(at, bytes);
        Ok(())
    }

    fn write(&self, address: BusAddr, bytes: &[u8]) -> Result<(), MemoryFault> {
        let at = self.touch(address, bytes.len(), (true, false), &[])?;
        self.put(at, bytes);
        Ok(())
    }

    fn write_entry(&self, address: BusAddr, entry: &[u8]) -> Result<(), MemoryFault> {
        assert!(address.get().is_multiple_of(4) && entry.len().is_multiple_of(4), "an entry at {address}");
        let at = self.touch(address, entry.len(), (true, true), entry)?;
        self.put(at, entry);
        Ok(())
    }

    fn is_host_memory(&self, address: BusAddr, len: u64) -> bool {
        self.mapped(address.get(), len)
    }
}

/// The medium: it insists on what callers promise.
#[derive(Debug)]
pub(crate) struct Medium {
    blocks: Vec<[u8; 512]>,
    journal: Journal,
}

impl Medium {
    pub(super) fn new(journal: Journal) -> Self {
        Self { blocks: (0..BLOCKS).map(|block| [block as u8; 512]).collect(), journal }
    }

    fn range(&self, lba: Lba, blocks: u64) -> std::ops::Range<usize> {
        let end = lba.get().checked_add(blocks).expect("a range that has an end");
        assert!(end <= BLOCKS, "blocks {lba} to {end} of {BLOCKS}");
        lba.get() as usize..end as usize
    }

    fn changing(&mut self, lba: Lba, blocks: u64) -> std::ops::Range<usize> {
        let range = self.range(lba, blocks);
        self.journal.borrow_mut().push(Act::Blocks { start: lba.get(), blocks });
        range
    }
}

impl BlockStorage for Medium {
    fn block_shift(&self) -> u8 {
        9
    }

    fn blocks(&self) -> u64 {
        BLOCKS
    }

    fn read(&mut self, lba: Lba, bytes: &mut [u8]) -> Result<(), StorageError> {
        assert!(bytes.len().is_multiple_of(512), "whole blocks");
        let range = self.range(lba, bytes.len() as u64 / 512);
        bytes.copy_from_slice(self.blocks[range].as_flattened());
        Ok(())
    }

    fn write(&mut self, lba: Lba, bytes: &[u8]) -> Result<(), StorageError> {
        assert!(bytes.len().is_multiple_of(512), "whole blocks");
        let range = self.changing(lba, bytes.len() as u64 / 512);
        self.blocks[range].as_flattened_mut().copy_from_slice(bytes);
        Ok(())
    }

    fn write_zeroes(&mut self, lba: Lba, blocks: u64, _: bool) -> Result<(), StorageError> {
        let range = self.changing(lba, blocks);
        self.blocks[range].fill([0; 512]);
        Ok(())
    }

    fn flush(&mut self) -> Result<(), StorageError> {
        Ok(())
    }

    fn allocated(&self, lba: Lba, limit: u64) -> (bool, u64) {
        let range = self.range(lba, limit);
        (lba.get() % 8 < 4, (range.len() as u64).min(4 - lba.get() % 4))
    }

    /// Fails half-way: the first block has changed.
    fn set_uncorrectable(&mut self, lba: Lba, blocks: u64) -> Result<(), StorageError> {
        let range = self.changing(lba, blocks.min(1));
        self.blocks[range].fill([0xFF; 512]);
        Err(StorageError::Write)
    }
}

/// Nobody is waiting.
pub(crate) struct Quiet;

impl Interrupts for Quiet {
    fn interrupt(&self, _: ControllerId, _: u16) {}
}

// SPDX-License-Identifier: MIT OR Apache-2.0
//! Where the slots of a queue lie: in one run, or in pages named by a PRP list. NVMe Base 2.1 §4.1.1, Physical Region
//! Page Entry and List.

use nvme_core::wire::{BusAddr, StatusCode};

use crate::host::HostMemory;

/// The memory behind a queue of fixed-size slots that do not cross pages.
#[derive(Clone, Copy, Debug)]
pub(crate) enum QueueMemory {
    /// One run of bus addresses.
    Contiguous(BusAddr),
    /// Pages named by a PRP list, which stays in host memory and is read again when another page is needed.
    List(PageList),
}

impl QueueMemory {
    /// Address of the first byte (PRP1 of the command that made the queue).
    pub(crate) const fn pointer(&self) -> BusAddr {
        match self {
            Self::Contiguous(base) => *base,
            Self::List(list) => list.first,
        }
    }

    /// Whether this is one run.
    pub(crate) const fn is_contiguous(&self) -> bool {
        matches!(self, Self::Contiguous(_))
    }

    /// Bus address of slot `index`; `None` if a list page cannot be read or holds an address that is no page.
    #[inline]
    pub(crate) fn slot<M: HostMemory>(&mut self, memory: &M, index: u32, slot_shift: u8) -> Option<BusAddr> {
        let offset = u64::from(index) << slot_shift;
        match self {
            Self::Contiguous(base) => Some(base.plus(offset)),
            Self::List(list) => list.locate(memory, offset),
        }
    }
}

/// Why the memory of a queue cannot be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ListError {
    /// An entry does not point to the start of a page.
    Offset,
    /// The list or a page it names cannot be reached, or is not host memory.
    Unreachable,
}

impl From<ListError> for StatusCode {
    fn from(error: ListError) -> Self {
        match error {
            ListError::Offset => Self::PRP_OFFSET_INVALID,
            ListError::Unreachable => Self::INVALID_FIELD,
        }
    }
}

/// A PRP list that names the pages of a queue, with the place last used remembered.
#[derive(Clone, Copy, Debug)]
pub(crate) struct PageList {
    first: BusAddr,
    pages: u32,
    page_shift: u8,
    /// Which page of the list was read last, and where it lies.
    list_index: u32,
    list_page: BusAddr,
    /// Which page of the queue was used last, and where it lies.
    page_index: u32,
    page: BusAddr,
}

/// Work of looking at one entry of a list, in bytes transferred.
const ENTRY_WORK: u64 = 64;

impl PageList {
    /// The work of walking a list for so many pages, in bytes transferred.
    pub(crate) const fn work(pages: u32) -> u64 {
        (pages as u64).saturating_mul(ENTRY_WORK)
    }

    /// Pages of a queue with so many entries.
    pub(crate) fn pages_of(entries: u32, slot_shift: u8, page_shift: u8) -> u32 {
        let bytes = u64::from(entries) << slot_shift;
        u32::try_from(bytes.div_ceil(1_u64 << page_shift)).unwrap_or(u32::MAX)
    }

    /// Reads a whole list for `pages` queue pages and checks every entry, and with `host_only` that every page and
    /// every page of the list is host memory.
    pub(crate) fn walk<M: HostMemory>(
        memory: &M,
        first: BusAddr,
        pages: u32,
        page_shift: u8,
        host_only: bool,
    ) -> Result<Self, ListError> {
        let mut list = Self {
            first,
            pages,
            page_shift,
            list_index: 0,
            list_page: first,
            page_index: u32::MAX,
            page: BusAddr::default(),
        };
        let page_size = 1_u64 << page_shift;
        if host_only && !memory.is_host_memory(first, page_size) {
            return Err(ListError::Unreachable);
        }
        let mut list_page = first;
        for index in 0..pages {
            let page = list.entry(memory, index)?;
            let next_list_page = list.list_page != list_page;
            list_page = list.list_page;
            if host_only
                && (!memory.is_host_memory(page, page_size)
                    || (next_list_page && !memory.is_host_memory(list_page, page_size)))
            {
                return Err(ListError::Unreachable);
            }
        }
        Ok(list)
    }

    fn locate<M: HostMemory>(&mut self, memory: &M, offset: u64) -> Option<BusAddr> {
        let index = u32::try_from(offset >> self.page_shift).ok()?;
        if index != self.page_index {
            self.page = self.entry(memory, index).ok()?;
            self.page_index = index;
        }
        Some(self.page.plus(offset & (1_u64 << self.page_shift).wrapping_sub(1)))
    }

    /// Entry `index` of the list. Bounded by the number of list pages.
    fn entry<M: HostMemory>(&mut self, memory: &M, index: u32) -> Result<BusAddr, ListError> {
        let per_page = 1_u32 << self.page_shift.saturating_sub(3);
        // All list pages but the last one give their last slot to the address of the next.
        let step = per_page.saturating_sub(1).max(1);
        let last_list = self.pages.saturating_sub(per_page).div_ceil(step);
        let wanted = index.checked_div(step).unwrap_or(0).min(last_list);
        if wanted < self.list_index {
            self.list_index = 0;
            self.list_page = self.first;
        }
        while self.list_index < wanted {
            self.list_page = self.read(memory, self.list_page, step)?;
            self.list_index = self.list_index.saturating_add(1);
        }
        let slot = index.saturating_sub(wanted.saturating_mul(step));
        self.read(memory, self.list_page, slot)
    }

    fn read<M: HostMemory>(&self, memory: &M, list: BusAddr, slot: u32) -> Result<BusAddr, ListError> {
        let mut bytes = [0; 8];
        memory.read(list.plus(u64::from(slot) << 3), &mut bytes).map_err(|_| ListError::Unreachable)?;
        let entry = BusAddr::new(u64::from_le_bytes(bytes));
        if entry.page_offset(1_u64 << self.page_shift) == 0 { Ok(entry) } else { Err(ListError::Offset) }
    }
}

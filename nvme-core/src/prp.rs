// SPDX-License-Identifier: MIT OR Apache-2.0
//! Physical Region Pages: where a command's data or a queue lies, page by page.
//! NVMe Base 2.1 §4.3.1, Physical Region Page Entry and List.
//!
//! A builder writes lists into memory its caller lends and never beyond it, so that commands which own
//! neighbouring list pages cannot disturb one another. A list longer than a page is chained: the last slot of a full
//! list page holds the address of the next one, unless the entry in that slot completes the list.

use core::fmt;
use core::ops::Range;

use crate::dma::{DmaArena, DmaError, DmaRegion, Layout};
use crate::wire::BusAddr;

/// Bytes of one list entry.
const ENTRY: usize = 8;

/// Why a data pointer could not be built.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PrpError {
    /// A length of zero has no pages.
    Empty,
    /// The arena does not know an address.
    Dma(DmaError),
    /// The page size is not a power of two of at least 4096 bytes.
    PageSize {
        /// The size given, in bytes.
        bytes: usize,
    },
    /// Scattered memory comes in pages smaller than the controller's.
    ArenaPage {
        /// The arena's page size in bytes.
        arena: usize,
        /// The controller's page size in bytes (CC.MPS).
        controller: usize,
    },
    /// The data does not start at a multiple of four, or a page that must start at a page boundary does not.
    Misaligned {
        /// The address found.
        address: BusAddr,
        /// The alignment needed, in bytes.
        needed: usize,
    },
    /// The list does not fit into the memory lent for it.
    ListTooSmall {
        /// Bytes the list takes.
        needed: usize,
        /// Bytes lent.
        available: usize,
    },
}

impl From<DmaError> for PrpError {
    fn from(error: DmaError) -> Self {
        Self::Dma(error)
    }
}

impl core::error::Error for PrpError {}

impl fmt::Display for PrpError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::Empty => f.write_str("data of zero bytes has no pages; submit the command without data"),
            Self::Dma(error) => write!(f, "the arena has no address for the memory: {error}"),
            Self::PageSize { bytes } => {
                write!(f, "page size {bytes} is not a power of two of at least 4096; choose one")
            }
            Self::ArenaPage { arena, controller } => write!(
                f,
                "scattered memory in pages of {arena} bytes cannot back controller pages of {controller} bytes; \
                 allocate it contiguous"
            ),
            Self::Misaligned { address, needed } => {
                write!(f, "address {address} is not a multiple of {needed}; align it")
            }
            Self::ListTooSmall { needed, available } => {
                write!(f, "the PRP list takes {needed} bytes and {available} are lent; transfer less at once")
            }
        }
    }
}

/// Both PRP fields of a command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DataPointer {
    /// PRP Entry 1: the data's first byte.
    pub prp1: BusAddr,
    /// PRP Entry 2: zero, the second page, or the PRP list.
    pub prp2: BusAddr,
}

impl DataPointer {
    /// No data.
    pub const NONE: Self = Self { prp1: BusAddr::new(0), prp2: BusAddr::new(0) };
}

/// Memory lent for a list: a range of a region that starts at a page boundary on the bus.
///
/// List pages need not follow each other on the bus. The memory must stay unchanged while the device may read the
/// list: until the command has completed, or for as long as the queue exists.
#[derive(Clone, Debug)]
pub struct ListMemory<'a> {
    /// The region.
    pub region: &'a DmaRegion,
    /// The bytes of it that may be written.
    pub range: Range<usize>,
}

/// Pages that `len` bytes touch if the first byte lies at `offset` of its page; 0 if a size is not legal.
#[must_use]
pub const fn pages(offset: usize, len: usize, page_size: usize) -> usize {
    match offset.checked_add(len) {
        Some(end) if page_size != 0 => end.div_ceil(page_size),
        _ => 0,
    }
}

/// List pages that a list of `entries` entries occupies if it starts at a page boundary. Each page but the last
/// gives one slot to the address of the next.
#[must_use]
pub const fn list_pages(entries: usize, page_size: usize) -> usize {
    let slots = page_size / ENTRY;
    if slots < 2 {
        return 0;
    }
    if entries <= slots {
        return if entries == 0 { 0 } else { 1 };
    }
    // All pages but the last carry `slots - 1` entries, the last up to `slots`.
    entries.saturating_sub(1).div_ceil(slots.saturating_sub(1))
}

/// Bytes from the start of the first list page to the end of the last entry.
#[must_use]
pub const fn list_bytes(entries: usize, page_size: usize) -> usize {
    let links = list_pages(entries, page_size).saturating_sub(1);
    entries.saturating_add(links).saturating_mul(ENTRY)
}

/// List pages that any transfer of up to `len` bytes can need, wherever in a page it starts: none if it touches two
/// pages at most, which both PRP fields hold.
#[must_use]
pub const fn list_pages_for_transfer(len: usize, page_size: usize) -> usize {
    // One page more than the length alone suggests, one fewer because PRP1 holds the first.
    match len.checked_div(page_size) {
        Some(_) if len <= page_size => 0,
        Some(_) => list_pages(len.div_ceil(page_size), page_size),
        None => 0,
    }
}

fn check_page_size<A: DmaArena + ?Sized>(
    arena: &A,
    memory: &DmaRegion,
    page_size: usize,
) -> Result<(), PrpError> {
    if !page_size.is_power_of_two() || page_size < 4096 {
        return Err(PrpError::PageSize { bytes: page_size });
    }
    match memory.layout() {
        Layout::Scattered if arena.page_size() < page_size => {
            Err(PrpError::ArenaPage { arena: arena.page_size(), controller: page_size })
        }
        _ => Ok(()),
    }
}

/// The bus address of the byte at `offset`, which must be a multiple of `alignment`.
fn aligned<A: DmaArena + ?Sized>(
    arena: &A,
    memory: &DmaRegion,
    offset: usize,
    alignment: usize,
) -> Result<BusAddr, PrpError> {
    let address = arena.bus_address(memory, offset)?;
    if address.page_offset(alignment as u64) == 0 {
        Ok(address)
    } else {
        Err(PrpError::Misaligned { address, needed: alignment })
    }
}

/// The data pointer of `range` of `data` for a controller with pages of `page_size` bytes.
///
/// Data over one or two pages needs no list memory, and nothing is written to it then. A list is published before
/// the function returns. Bounded by the number of pages.
///
/// # Errors
/// [`PrpError`]; nothing of use is in the list memory then.
#[inline]
pub fn build<A: DmaArena + ?Sized>(
    arena: &A,
    data: &DmaRegion,
    range: Range<usize>,
    page_size: usize,
    list: ListMemory<'_>,
) -> Result<DataPointer, PrpError> {
    // Contiguous data inside one page, the commonest of all, takes a few comparisons. Whatever is unusual about the
    // arguments goes the long way.
    if data.layout() == Layout::Contiguous && range.start < range.end && range.end <= data.len() {
        let len = range.end.wrapping_sub(range.start) as u64;
        let prp1 = data.bus().plus(range.start as u64);
        let offset = prp1.page_offset(page_size as u64);
        let power_of_two = page_size & page_size.wrapping_sub(1) == 0;
        if power_of_two
            && page_size >= 4096
            && offset.wrapping_add(len) <= page_size as u64
            && offset.is_multiple_of(4)
        {
            return Ok(DataPointer { prp1, prp2: BusAddr::new(0) });
        }
    }
    build_any(arena, data, range, page_size, list)
}

fn build_any<A: DmaArena + ?Sized>(
    arena: &A,
    data: &DmaRegion,
    range: Range<usize>,
    page_size: usize,
    list: ListMemory<'_>,
) -> Result<DataPointer, PrpError> {
    let len = range.end.saturating_sub(range.start);
    if len == 0 {
        return Err(PrpError::Empty);
    }
    if range.end > data.len() {
        return Err(PrpError::Dma(DmaError::OutOfRange { offset: range.start, len, region: data.len() }));
    }
    check_page_size(arena, data, page_size)?;
    let prp1 = aligned(arena, data, range.start, 4)?;
    #[allow(clippy::cast_possible_truncation, reason = "less than the page size")]
    let offset = prp1.page_offset(page_size as u64) as usize;
    // The second page starts this far into the region.
    let second = range.start.saturating_add(page_size.saturating_sub(offset));
    let prp2 = match pages(offset, len, page_size) {
        1 => BusAddr::new(0),
        2 => aligned(arena, data, second, page_size)?,
        pages => write_list(arena, data, second, pages.saturating_sub(1), page_size, list)?,
    };
    Ok(DataPointer { prp1, prp2 })
}

/// Writes the PRP list of a queue that is not physically contiguous and returns the list's address, which goes into
/// PRP1 with PC = 0. Every page of the queue is in the list, all at offset 0.
///
/// Serves I/O queues and Controller Data Queues (NVMe Base 2.1 §5.1.4): the list has to stay in place as long as the
/// queue exists. Bounded by the number of pages.
///
/// # Errors
/// [`PrpError`], for example if the queue does not start at a page boundary; nothing of use is in the list then.
pub fn build_queue_list<A: DmaArena + ?Sized>(
    arena: &A,
    queue: &DmaRegion,
    range: Range<usize>,
    page_size: usize,
    list: ListMemory<'_>,
) -> Result<BusAddr, PrpError> {
    let len = range.end.saturating_sub(range.start);
    if len == 0 {
        return Err(PrpError::Empty);
    }
    if range.end > queue.len() {
        return Err(PrpError::Dma(DmaError::OutOfRange { offset: range.start, len, region: queue.len() }));
    }
    check_page_size(arena, queue, page_size)?;
    write_list(arena, queue, range.start, pages(0, len, page_size), page_size, list)
}

/// Writes `entries` list entries for the pages of `memory` from `start` on; returns the address of the list.
fn write_list<A: DmaArena + ?Sized>(
    arena: &A,
    memory: &DmaRegion,
    start: usize,
    entries: usize,
    page_size: usize,
    list: ListMemory<'_>,
) -> Result<BusAddr, PrpError> {
    let needed = list_bytes(entries, page_size);
    let end = list.range.start.saturating_add(needed);
    if end > list.range.end || end > list.region.len() {
        let available = list.range.end.min(list.region.len()).saturating_sub(list.range.start);
        return Err(PrpError::ListTooSmall { needed, available });
    }
    check_page_size(arena, list.region, page_size)?;
    let first = aligned(arena, list.region, list.range.start, page_size)?;
    let mut at = list.range.start;
    let mut page_end = at.saturating_add(page_size);
    let mut data = start;
    for left in (1..=entries).rev() {
        if at.saturating_add(ENTRY) == page_end && left > 1 {
            let next = aligned(arena, list.region, page_end, page_size)?;
            list.region.write_u64(at, next.get())?;
            at = page_end;
            page_end = page_end.saturating_add(page_size);
        }
        list.region.write_u64(at, aligned(arena, memory, data, page_size)?.get())?;
        at = at.saturating_add(ENTRY);
        data = data.saturating_add(page_size);
    }
    arena.publish(list.region, list.range.start..end);
    Ok(first)
}

#[cfg(test)]
mod tests;

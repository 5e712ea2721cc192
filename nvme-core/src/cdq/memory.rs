// SPDX-License-Identifier: MIT OR Apache-2.0
//! The memory of one Controller Data Queue, and its way back to the pool.
//!
//! The memory lives as long as the controller may write it, which is neither the life of a command nor that of the
//! driver. It returns only with a proof ([`LetGo`]); a queue whose end is unknown leaves a [`Quarantined`] value.

use core::fmt;

use crate::admin::Generation;
use crate::dma::{self, Direction, DmaArena, DmaError, DmaRegion, LetGo, Pool};
use crate::prp::{self, ListMemory, PrpError};
use crate::wire::BusAddr;
use crate::wire::cdq::{ENTRY_BYTES, MAX_ENTRIES, MIN_ENTRIES};

/// How a queue lies in the controller's address space.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum QueueLayout {
    /// One run of bus addresses; PRP1 is its base. Some controllers can do nothing else.
    #[default]
    Contiguous,
    /// Pages anywhere, named by a PRP list of as many pages as it takes.
    PrpList,
}

/// Why a queue has no memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CdqMemoryError {
    /// Fewer than two entries, or more than the command can express or this machine can address.
    Entries {
        /// Entries asked for.
        entries: u32,
        /// Most entries possible.
        limit: u32,
    },
    /// The list would name more pages than the controller takes (MCDQPC or MCMR).
    TooManyPages {
        /// Pages of the queue.
        pages: usize,
        /// Pages allowed.
        limit: u16,
    },
    /// The arena has none to give.
    Arena(DmaError),
    /// The PRP list could not be written.
    List(PrpError),
}

impl core::error::Error for CdqMemoryError {}

impl fmt::Display for CdqMemoryError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Entries { entries, limit } => {
                write!(f, "a queue of {entries} entries is not possible: choose {MIN_ENTRIES} to {limit}")
            }
            Self::TooManyPages { pages, limit } => {
                write!(
                    f,
                    "a queue over {pages} pages where the controller takes {limit}: make it smaller or contiguous"
                )
            }
            Self::Arena(error) => write!(f, "no memory for the queue: {error}"),
            Self::List(error) => write!(f, "no PRP list for the queue: {error}"),
        }
    }
}

/// Limits a controller states for the memory of its queues; zero means it states none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MemoryLimits {
    /// Most memory ranges in one command (MCMR); each page of a list counts as one.
    pub ranges: u16,
    /// Most entries of a PRP list (MCDQPC).
    pub list_entries: u16,
}

/// Memory of one queue: the slots, all zero at first so that no phase tag looks new, and its PRP list if it has one.
#[derive(Debug, PartialEq, Eq)]
pub struct CdqMemory {
    slots: DmaRegion,
    list: Option<DmaRegion>,
    base: BusAddr,
    entries: u32,
    /// Identity of the arena it came from, which serves the controller that may write it.
    arena: usize,
    /// Number of that controller, once it is known.
    controller: Option<u32>,
}

impl CdqMemory {
    /// Sets aside memory for `entries` slots from [`Pool::ControllerData`], for a controller with pages of
    /// `page_size` bytes. Bounded by the number of pages.
    ///
    /// # Errors
    /// [`CdqMemoryError`]; whatever had been set aside is back in the pool then.
    pub fn allocate<A: DmaArena + ?Sized>(
        arena: &A,
        entries: u32,
        layout: QueueLayout,
        page_size: usize,
        limits: MemoryLimits,
    ) -> Result<Self, CdqMemoryError> {
        let wrong = CdqMemoryError::Entries { entries, limit: MAX_ENTRIES };
        if !(MIN_ENTRIES..=MAX_ENTRIES).contains(&entries) {
            return Err(wrong);
        }
        let bytes = u64::from(entries).saturating_mul(u64::from(ENTRY_BYTES));
        let bytes = usize::try_from(bytes).map_err(|_| wrong)?;
        let slots = match layout {
            QueueLayout::Contiguous => {
                arena.allocate(Pool::ControllerData, bytes, page_size, Direction::FromDevice)
            }
            QueueLayout::PrpList => {
                let pages = prp::pages(0, bytes, page_size);
                for limit in [limits.ranges, limits.list_entries] {
                    if limit != 0 && pages > usize::from(limit) {
                        return Err(CdqMemoryError::TooManyPages { pages, limit });
                    }
                }
                arena.allocate_scattered(Pool::ControllerData, bytes, Direction::FromDevice)
            }
        }
        .map_err(CdqMemoryError::Arena)?;
        let list = match layout {
            QueueLayout::Contiguous => Ok((slots.bus(), None)),
            QueueLayout::PrpList => Self::write_list(arena, &slots, page_size),
        };
        match (slots.zero(0..bytes), list) {
            (Ok(()), Ok((base, list))) => {
                arena.publish(&slots, 0..bytes);
                Ok(Self { slots, list, base, entries, arena: dma::identity(arena), controller: None })
            }
            (zeroed, list) => {
                let error = match (zeroed, list) {
                    (Err(error), _) => CdqMemoryError::Arena(error),
                    (Ok(()), Err(error)) => error,
                    (Ok(()), Ok(_)) => wrong,
                };
                dma::release(arena, slots, &Unseen);
                Err(error)
            }
        }
    }

    fn write_list<A: DmaArena + ?Sized>(
        arena: &A,
        slots: &DmaRegion,
        page_size: usize,
    ) -> Result<(BusAddr, Option<DmaRegion>), CdqMemoryError> {
        let pages = prp::pages(0, slots.len(), page_size);
        let bytes = prp::list_pages(pages, page_size).saturating_mul(page_size);
        let list = arena
            .allocate_scattered(Pool::ControllerData, bytes, Direction::ToDevice)
            .map_err(CdqMemoryError::Arena)?;
        let memory = ListMemory { region: &list, range: 0..bytes };
        match prp::build_queue_list(arena, slots, 0..slots.len(), page_size, memory) {
            Ok(base) => Ok((base, Some(list))),
            Err(error) => {
                dma::release(arena, list, &Unseen);
                Err(CdqMemoryError::List(error))
            }
        }
    }

    /// Only proof about the controller of this life gives it back from now on.
    pub(super) const fn belongs_to(mut self, life: Generation) -> Self {
        self.controller = Some(life.controller());
        self
    }

    /// What PRP1 of the create command holds: the base of the slots, or of the PRP list.
    #[must_use]
    pub const fn base(&self) -> BusAddr {
        self.base
    }

    /// Number of slots.
    #[must_use]
    pub const fn entries(&self) -> u32 {
        self.entries
    }

    /// How the slots lie on the bus.
    #[must_use]
    pub const fn layout(&self) -> QueueLayout {
        if self.list.is_some() { QueueLayout::PrpList } else { QueueLayout::Contiguous }
    }

    /// The slots.
    #[must_use]
    pub(super) const fn slots(&self) -> &DmaRegion {
        &self.slots
    }

    /// Gives the memory back to `arena`, the one it came from; `proof` shows that the controller let go of it. With
    /// another arena, or a proof about another controller, the memory is leaked.
    pub fn release<A: DmaArena + ?Sized, P: LetGo>(self, arena: &A, proof: &P) {
        let other = self.controller.is_some_and(|controller| !proof.is_about(controller));
        if other || dma::identity(arena) != self.arena {
            return;
        }
        dma::release(arena, self.slots, proof);
        if let Some(list) = self.list {
            dma::release(arena, list, proof);
        }
    }

    /// Gives back memory whose address no controller has seen.
    pub(crate) fn release_unseen<A: DmaArena + ?Sized>(self, arena: &A) {
        self.release(arena, &Unseen);
    }
}

/// No command with the address was ever submitted.
struct Unseen;
impl dma::proof::Sealed for Unseen {
    fn evidence(&self) -> dma::Evidence {
        dma::Evidence::NeverSeen
    }
}
impl LetGo for Unseen {}

/// Memory of a queue that the controller may still write: its creation or deletion did not end with a clear answer.
///
/// It goes back with [`release`](Self::release) once the controller has been disabled. Dropping the value leaks the
/// memory, which is safe.
#[must_use = "dropping it leaks the queue's memory"]
#[derive(Debug, PartialEq, Eq)]
pub struct Quarantined {
    memory: CdqMemory,
}

impl Quarantined {
    /// Puts memory under quarantine.
    pub const fn new(memory: CdqMemory) -> Self {
        Self { memory }
    }

    /// Number of slots.
    #[must_use]
    pub const fn entries(&self) -> u32 {
        self.memory.entries()
    }

    /// Gives the memory back to `arena`, the one it came from; `proof` shows that the controller let go of it, for
    /// example that it was disabled.
    pub fn release<A: DmaArena + ?Sized, P: LetGo>(self, arena: &A, proof: &P) {
        self.memory.release(arena, proof);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{PAGE, TestArena, TestProof};

    #[test]
    fn every_geometry_is_zeroed_listed_and_returned() {
        let arena = TestArena::new();
        let per_page = (PAGE / 32) as u32;
        let sizes = [2, 3, 4, 5, 8, 63, 64, 65, 4096];
        let lists = [1, 511, 512, 513, 1025].map(|pages: u32| pages * per_page);
        for entries in sizes.into_iter().chain(lists) {
            for layout in [QueueLayout::Contiguous, QueueLayout::PrpList] {
                let memory =
                    CdqMemory::allocate(&arena, entries, layout, PAGE, MemoryLimits::default()).unwrap();
                assert_eq!((memory.entries(), memory.layout()), (entries, layout));
                assert_eq!(memory.base().page_offset(PAGE as u64), 0);
                let mut bytes = std::vec![1; memory.slots().len()];
                memory.slots().read(0, &mut bytes).unwrap();
                assert!(bytes.iter().all(|&byte| byte == 0), "{entries} {layout:?}");
                if layout == QueueLayout::PrpList {
                    let pages = bytes.len().div_ceil(PAGE);
                    let mut list = memory.base().get();
                    for page in 0..pages {
                        let (slot, last) = (page % 511, pages - page == 1);
                        // The last slot of a list page is a link unless the list ends there.
                        if page > 0 && slot == 0 && !(last && page == 511) {
                            list = arena.device_read_u64(BusAddr::new((list & !4095) + 4088));
                        }
                        let index = if last && page % 511 == 0 && page == 511 { 511 } else { slot };
                        let entry = arena.device_read_u64(BusAddr::new((list & !4095) + index as u64 * 8));
                        let expected = arena.bus_address(memory.slots(), page * PAGE).unwrap();
                        assert_eq!(entry, expected.get(), "{entries} entries, page {page}");
                    }
                }
                memory.release(&arena, &TestProof);
            }
        }
        assert_eq!(arena.live_total(), 0);
    }

    #[test]
    fn what_cannot_be_is_refused_and_nothing_leaks() {
        let limits = MemoryLimits { ranges: 2, list_entries: 3 };
        let rows = [
            (
                "no entries",
                0,
                QueueLayout::Contiguous,
                CdqMemoryError::Entries { entries: 0, limit: MAX_ENTRIES },
            ),
            (
                "one entry",
                1,
                QueueLayout::PrpList,
                CdqMemoryError::Entries { entries: 1, limit: MAX_ENTRIES },
            ),
            (
                "more than CDQSIZE",
                MAX_ENTRIES + 1,
                QueueLayout::Contiguous,
                CdqMemoryError::Entries { entries: MAX_ENTRIES + 1, limit: MAX_ENTRIES },
            ),
            (
                "too many ranges",
                385,
                QueueLayout::PrpList,
                CdqMemoryError::TooManyPages { pages: 4, limit: 2 },
            ),
        ];
        let arena = TestArena::new();
        for (name, entries, layout, error) in rows {
            let made = CdqMemory::allocate(&arena, entries, layout, PAGE, limits);
            assert_eq!(made, Err(error), "{name}");
        }
        let made = CdqMemory::allocate(&arena, 385, QueueLayout::Contiguous, PAGE, limits).unwrap();
        made.release(&arena, &TestProof);
        arena.fail_after(1);
        let made = CdqMemory::allocate(&arena, 64, QueueLayout::PrpList, PAGE, MemoryLimits::default());
        assert!(
            matches!(made, Err(CdqMemoryError::Arena(DmaError::Exhausted { .. }))),
            "no memory for the list"
        );
        assert_eq!(arena.live_total(), 0);
    }
}

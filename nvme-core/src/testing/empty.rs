// SPDX-License-Identifier: MIT OR Apache-2.0
//! Arenas without bytes of their own, as over a global allocator: several of them may lie at one address.

use core::ops::Range;
use std::boxed::Box;

use super::TestArena;
use crate::dma::{Direction, DmaArena, DmaError, DmaRegion, Evidence, Pool};
use crate::wire::BusAddr;

macro_rules! empty_arena {
    ($name:ident, $memory:ident) => {
        std::thread_local! {
            static $memory: &'static TestArena = Box::leak(Box::new(TestArena::new()));
        }

        /// See the module. Each thread has memory of its own.
        pub(crate) struct $name;

        impl $name {
            pub(crate) fn memory() -> &'static TestArena {
                $memory.with(|memory| *memory)
            }
        }

        // SAFETY: everything goes to one test arena, which keeps the promises.
        unsafe impl DmaArena for $name {
            fn allocate(
                &self,
                pool: Pool,
                len: usize,
                align: usize,
                direction: Direction,
            ) -> Result<DmaRegion, DmaError> {
                Self::memory().allocate(pool, len, align, direction)
            }

            fn allocate_scattered(
                &self,
                pool: Pool,
                len: usize,
                direction: Direction,
            ) -> Result<DmaRegion, DmaError> {
                Self::memory().allocate_scattered(pool, len, direction)
            }

            fn bus_address(&self, region: &DmaRegion, offset: usize) -> Result<BusAddr, DmaError> {
                Self::memory().bus_address(region, offset)
            }

            unsafe fn release(&self, region: DmaRegion) {
                // SAFETY: the caller's promise is the same.
                unsafe { Self::memory().release(region) }
            }

            unsafe fn release_proved(&self, region: DmaRegion, evidence: Evidence) {
                // SAFETY: the caller's promise is the same.
                unsafe { Self::memory().release_proved(region, evidence) }
            }

            fn publish(&self, region: &DmaRegion, range: Range<usize>) {
                Self::memory().publish(region, range);
            }

            fn acquire(&self, region: &DmaRegion, range: Range<usize>) {
                Self::memory().acquire(region, range);
            }
        }
    };
}
empty_arena!(First, FIRST);
empty_arena!(Second, SECOND);

/// One arena of each kind, both at the same address.
pub(crate) fn at_one_address() -> (&'static First, &'static Second) {
    let first = &First;
    // SAFETY: a value without bytes may lie anywhere that is not null, and `Second` has nothing that could be invalid.
    (first, unsafe { &*core::ptr::from_ref(first).cast::<Second>() })
}

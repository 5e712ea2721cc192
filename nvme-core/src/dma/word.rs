// SPDX-License-Identifier: MIT OR Apache-2.0
//! Eight bytes of device memory in one access where the machine has one, in two accesses where it has not.
//!
//! Nothing the core reads from or writes to a device through a [`Word64`] needs the eight bytes at once: phase tags
//! and everything else whose moment matters lie in words of four bytes.

#[cfg(target_has_atomic = "64")]
pub(super) use core::sync::atomic::AtomicU64 as Word64;
#[cfg(not(target_has_atomic = "64"))]
pub(super) use halves::Word64;

#[cfg(any(test, not(target_has_atomic = "64")))]
mod halves {
    use core::sync::atomic::{AtomicU32, Ordering};

    /// The part of `AtomicU64` the core uses, as two words of four bytes: a device that writes between the two
    /// accesses leaves a mixture.
    #[derive(Debug)]
    #[repr(C, align(8))]
    pub(in crate::dma) struct Word64 {
        /// In the order in which they lie in memory.
        halves: [AtomicU32; 2],
    }

    impl Word64 {
        /// A view of the eight bytes at `word`.
        ///
        /// # Safety
        /// As `AtomicU64::from_ptr`: `word` is aligned to eight and valid for reads and writes for `'a`, and all
        /// access meanwhile is atomic.
        pub(in crate::dma) const unsafe fn from_ptr<'a>(word: *mut u64) -> &'a Self {
            // SAFETY: two aligned words of four bytes lie at `word`; validity, lifetime and atomic access are the
            // caller's guarantee.
            unsafe { &*word.cast() }
        }

        /// Reads both halves, the one at the lower address first.
        pub(in crate::dma) fn load(&self, order: Ordering) -> u64 {
            let [first, second] = &self.halves;
            let (first, second) = (first.load(order), second.load(order));
            let (low, high) = if cfg!(target_endian = "little") { (first, second) } else { (second, first) };
            u64::from(low) | (u64::from(high) << 32)
        }

        /// Writes both halves, the one at the lower address first.
        pub(in crate::dma) fn store(&self, value: u64, order: Ordering) {
            // The low half is meant: the high one follows.
            let (low, high) = (value as u32, (value >> 32) as u32);
            let [first, second] = &self.halves;
            let (at_first, at_second) =
                if cfg!(target_endian = "little") { (low, high) } else { (high, low) };
            first.store(at_first, order);
            second.store(at_second, order);
        }
    }
}

#[cfg(test)]
mod tests {
    use core::sync::atomic::{AtomicU64, Ordering};

    use super::halves;

    #[test]
    fn two_halves_lie_in_memory_as_one_word_does() {
        for value in [0, 1, u64::MAX, 0x0123_4567_89AB_CDEF, 1 << 31, 1 << 32, 1 << 63] {
            let memory = AtomicU64::new(!value);
            // SAFETY: the eight bytes of `memory` are aligned, live for the whole function and are only reached
            // through atomics.
            let word = unsafe { halves::Word64::from_ptr(memory.as_ptr()) };
            word.store(value, Ordering::Relaxed);
            assert_eq!(memory.load(Ordering::Relaxed), value, "{value:#x} stored in halves");
            assert_eq!(word.load(Ordering::Relaxed), value, "{value:#x} read in halves");
        }
    }
}

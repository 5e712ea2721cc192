// SPDX-License-Identifier: MIT OR Apache-2.0
//! What a region notes about the processor's accesses, for an arena that checks them; nothing otherwise.
//!
//! The notes lie in memory of their own: a header of four words, then one byte of flags for each byte of the region.

#[cfg(any(test, feature = "checking"))]
pub(super) use kept::Notes;
#[cfg(not(any(test, feature = "checking")))]
pub(super) use nothing::Notes;

#[cfg(not(any(test, feature = "checking")))]
mod nothing {
    /// No notes: every call is empty and inlined away.
    #[derive(Debug, PartialEq, Eq)]
    pub(in crate::dma) struct Notes;

    impl Notes {
        pub(in crate::dma) const NONE: Self = Self;

        #[inline(always)]
        pub(in crate::dma) const fn outside(&self, _offset: usize, _len: usize) {}

        #[inline(always)]
        pub(in crate::dma) const fn read(&self, _offset: usize, _len: usize) {}

        #[inline(always)]
        pub(in crate::dma) const fn written(&self, _offset: usize, _len: usize) {}
    }
}

#[cfg(any(test, feature = "checking"))]
mod kept {
    use core::ptr::NonNull;
    use core::sync::atomic::{AtomicU8, AtomicU32, Ordering};

    /// Bytes before the flags.
    const HEADER: usize = 16;

    /// What happened since the arena last looked.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub(in crate::dma) struct Header {
        /// Some byte was read that the device had changed.
        pub(in crate::dma) stale: bool,
        /// The last access outside the region: offset and length.
        pub(in crate::dma) outside: Option<(usize, usize)>,
    }

    /// Where a region's notes lie, if its arena keeps any.
    #[derive(Debug, PartialEq, Eq)]
    pub(in crate::dma) struct Notes(Option<NonNull<u8>>);

    impl Notes {
        /// No notes.
        pub(in crate::dma) const NONE: Self = Self(None);

        /// The processor wrote the byte and has not published it.
        pub(in crate::dma) const CPU_WROTE: u8 = 1;
        /// The device wrote the byte and the processor has not acquired it.
        pub(in crate::dma) const DEVICE_WROTE: u8 = 2;
        /// The device's copy of the byte holds something: it was published, or the device wrote it.
        pub(in crate::dma) const PUBLISHED: u8 = 4;
        /// The processor read the byte while the device's copy was newer.
        pub(in crate::dma) const STALE: u8 = 8;
        /// The processor has acquired the byte: both copies were equal then.
        pub(in crate::dma) const ACQUIRED: u8 = 16;

        /// Bytes that the notes of a region of `len` bytes take.
        pub(in crate::dma) const fn bytes(len: usize) -> usize {
            len.saturating_add(HEADER)
        }

        /// Where the flags of the byte at `offset` lie in the memory of the notes.
        pub(in crate::dma) const fn flags_at(offset: usize) -> usize {
            offset.saturating_add(HEADER)
        }

        /// Notes in the zeroed memory at `memory`.
        ///
        /// # Safety
        /// `memory` points to [`bytes`](Self::bytes) of the region's length, aligned to at least eight, that stay valid for
        /// reads and writes as long as the region exists and are reached through atomics only.
        pub(in crate::dma) const unsafe fn new(memory: NonNull<u8>) -> Self {
            Self(Some(memory))
        }

        fn word(&self, n: usize) -> Option<&AtomicU32> {
            // SAFETY: the header has four words and `n` is one of them (every caller is in this module); the memory is
            // aligned, valid and atomic (guaranteed by `new`).
            self.0.map(|memory| unsafe { AtomicU32::from_ptr(memory.as_ptr().cast::<u32>().add(n & 3)) })
        }

        fn flags(&self, offset: usize) -> Option<&AtomicU8> {
            // SAFETY: the region has checked that `offset` lies inside, so the flags exist (guaranteed by `new`).
            self.0.map(|memory| unsafe { AtomicU8::from_ptr(memory.as_ptr().add(Self::flags_at(offset))) })
        }

        /// An access outside the region was refused.
        pub(in crate::dma) fn outside(&self, offset: usize, len: usize) {
            let short = |value: usize| u32::try_from(value).unwrap_or(u32::MAX);
            for (n, value) in [(1, 1), (2, short(offset)), (3, short(len))] {
                if let Some(word) = self.word(n) {
                    word.store(value, Ordering::Relaxed);
                }
            }
        }

        /// The processor reads bytes inside the region.
        pub(in crate::dma) fn read(&self, offset: usize, len: usize) {
            if self.0.is_none() {
                return;
            }
            for at in offset..offset.saturating_add(len) {
                if let Some(flags) = self.flags(at)
                    && flags.load(Ordering::Relaxed) & Self::DEVICE_WROTE != 0
                {
                    flags.fetch_or(Self::STALE, Ordering::Relaxed);
                    if let Some(stale) = self.word(0) {
                        stale.store(1, Ordering::Relaxed);
                    }
                }
            }
        }

        /// The processor writes bytes inside the region.
        pub(in crate::dma) fn written(&self, offset: usize, len: usize) {
            if self.0.is_none() {
                return;
            }
            for at in offset..offset.saturating_add(len) {
                if let Some(flags) = self.flags(at) {
                    flags.fetch_or(Self::CPU_WROTE, Ordering::Relaxed);
                }
            }
        }

        /// What is in the header, which is cleared.
        pub(in crate::dma) fn take(&self) -> Header {
            let take = |n| self.word(n).map_or(0, |word| word.swap(0, Ordering::Relaxed));
            let stale = take(0) != 0;
            let (outside, offset, len) = (take(1) != 0, take(2) as usize, take(3) as usize);
            Header { stale, outside: outside.then_some((offset, len)) }
        }
    }
}

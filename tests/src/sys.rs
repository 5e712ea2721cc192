// SPDX-License-Identifier: MIT OR Apache-2.0
//! What the suites promise about memory that they make up.
#![allow(unsafe_code, reason = "what a mapping has to promise is promised here")]

use std::ptr::NonNull;

use nvme_core::mmio::MmioBar;
use nvme_core::register::RegisterIo;

/// A register space of `words`, zero except where `fill` says otherwise; it is handed to `test` mapped, and returned as it
/// is afterwards.
pub fn with_register_space(
    words: usize,
    fill: &[(usize, u32)],
    test: impl FnOnce(&dyn RegisterIo<Error = nvme_core::mmio::MmioError>),
) -> Vec<u32> {
    let mut space = vec![0_u32; words];
    for (word, value) in fill {
        space[*word] = *value;
    }
    let base = NonNull::from(space.as_mut_slice()).cast();
    // SAFETY: the words are aligned to four bytes and live until the end of this function; nothing else touches them while
    // the adapter is used, which ends before they are returned. They stand for a device that answers at once.
    let bar = unsafe { MmioBar::new(base, words * 4) };
    test(&bar);
    space
}

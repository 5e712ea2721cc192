// SPDX-License-Identifier: MIT OR Apache-2.0
//! Order towards devices, which fences of the language do not give everywhere.

/// Orders accesses to memory before and after it as devices see them, beside a fence of the language: on AArch64 that one
/// reaches processors only (the inner shareable domain), and elsewhere it is enough.
#[inline]
pub(crate) fn device_barrier() {
    // SAFETY: a barrier touches neither memory nor registers.
    #[cfg(target_arch = "aarch64")]
    unsafe {
        core::arch::asm!("dmb osh", options(nostack, preserves_flags));
    }
}

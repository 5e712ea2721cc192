// SPDX-License-Identifier: MIT OR Apache-2.0
//! Everything that is not safe Rust: the entry point, the exit, the memory functions the compiler calls, and the
//! memory that driver and controller share.
#![allow(unsafe_code, reason = "there is no operating system library below this program")]

use core::arch::{asm, global_asm};

use nvme_core::controller::{AttachError, Disabling, Link, attach};
use nvme_core::register::RegisterIo;

use self::memory::Memory;

pub mod memory;

global_asm!(
    ".global _start",
    "_start:",
    "xor ebp, ebp",
    "and rsp, -16",
    "call {main}",
    "ud2",
    main = sym start,
);

extern "C" fn start() -> ! {
    exit(crate::run())
}

/// Ends the process with `code`.
pub fn exit(code: u8) -> ! {
    // SAFETY: system call 231 (exit_group) takes one integer, touches no memory and does not return.
    unsafe {
        asm!("syscall", in("rax") 231, in("rdi") u64::from(code), options(noreturn, nostack));
    }
}

#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    exit(101)
}

/// Copies `n` bytes forwards.
///
/// # Safety
/// As C's `memcpy`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn memcpy(to: *mut u8, from: *const u8, n: usize) -> *mut u8 {
    // SAFETY: the caller guarantees that both ranges are valid and do not overlap; the direction flag is clear by
    // the calling convention.
    unsafe {
        asm!("rep movsb", inout("rcx") n => _, inout("rdi") to => _, inout("rsi") from => _, options(nostack));
    }
    to
}

/// Copies `n` bytes between ranges that may overlap.
///
/// # Safety
/// As C's `memmove`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn memmove(to: *mut u8, from: *const u8, n: usize) -> *mut u8 {
    if (to as usize).wrapping_sub(from as usize) >= n {
        // SAFETY: copying forwards never overwrites a byte before it is read when `to` is not inside the source.
        return unsafe { memcpy(to, from, n) };
    }
    // SAFETY: the caller guarantees both ranges; backwards order keeps unread bytes intact, and the direction flag
    // is restored.
    unsafe {
        asm!("std", "rep movsb", "cld",
            inout("rcx") n => _,
            inout("rdi") to.wrapping_add(n).wrapping_sub(1) => _,
            inout("rsi") from.wrapping_add(n).wrapping_sub(1) => _,
            options(nostack));
    }
    to
}

/// Fills `n` bytes.
///
/// # Safety
/// As C's `memset`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn memset(to: *mut u8, value: i32, n: usize) -> *mut u8 {
    // SAFETY: the caller guarantees that the range is valid; only the low byte of the value is stored.
    unsafe {
        asm!("rep stosb", inout("rcx") n => _, inout("rdi") to => _, in("eax") value, options(nostack));
    }
    to
}

/// Compares `n` bytes.
///
/// # Safety
/// As C's `memcmp`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn memcmp(a: *const u8, b: *const u8, n: usize) -> i32 {
    let mut i = 0;
    while i < n {
        // SAFETY: `i < n`, and the caller guarantees that `n` bytes are valid at both addresses. Volatile reads keep
        // the compiler from turning the loop into a call of this very function.
        let (x, y) = unsafe { (a.add(i).read_volatile(), b.add(i).read_volatile()) };
        if x != y {
            return i32::from(x) - i32::from(y);
        }
        i += 1;
    }
    0
}

/// Compares `n` bytes for equality, as the compiler calls it.
///
/// # Safety
/// As C's `bcmp`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bcmp(a: *const u8, b: *const u8, n: usize) -> i32 {
    // SAFETY: the caller guarantees the same as for `memcmp`.
    unsafe { memcmp(a, b, n) }
}

/// Takes over the controller behind `registers`.
pub fn attach_embedded<'d, 's, R: RegisterIo>(
    registers: &'d R,
    memory: &'d Memory,
    link: &'d Link,
) -> Result<Disabling<'d, 's, R, Memory>, AttachError> {
    // SAFETY: the controller is embedded in this program, nothing else drives it, it reaches no memory but `memory`,
    // and that memory is only released through the driver. There is one thread.
    unsafe { attach(registers, memory, link) }
}

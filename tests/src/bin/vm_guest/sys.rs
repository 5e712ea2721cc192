// SPDX-License-Identifier: MIT OR Apache-2.0
//! Ending the machine: an instruction that only a privileged process may use.
#![allow(unsafe_code, reason = "a port of the machine is written")]

use std::arch::asm;

/// Port of QEMU's device `isa-debug-exit`.
const PORT: u16 = 0xF4;
/// System call `iopl` of x86-64.
const IOPL: u64 = 172;

/// Ends the machine with `verdict`. Returns if it has no such device, or this process may not write ports.
pub(crate) fn exit_machine(verdict: u8) {
    let mut result = IOPL;
    // SAFETY: the system call takes one number, follows no address, and changes the registers named only.
    unsafe {
        asm!("syscall", inlateout("rax") result, in("rdi") 3_u64, out("rcx") _, out("r11") _, options(nostack));
    }
    if result != 0 {
        println!("ports may not be written: {}", result.cast_signed());
        return;
    }
    // SAFETY: the port belongs to a device that ends the machine, or to none; either touches no memory of this process.
    unsafe {
        asm!("out dx, al", in("dx") PORT, in("al") verdict, options(nomem, nostack, preserves_flags));
    }
}

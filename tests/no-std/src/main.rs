// SPDX-License-Identifier: MIT OR Apache-2.0
//! Runs the driver against the controller in one thread, without std, alloc or libc.
#![no_std]
#![no_main]

mod sys;

fn run() -> u8 {
    0
}

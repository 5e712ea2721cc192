// SPDX-License-Identifier: MIT OR Apache-2.0
//! The target `supervisor` for cargo-fuzz.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| nvme_fuzz::supervisor::run(bytes));

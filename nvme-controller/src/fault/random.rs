// SPDX-License-Identifier: MIT OR Apache-2.0
//! Numbers that look random and follow from a seed alone.

/// The increment of the generator: odd, its bits without pattern.
const STEP: u64 = 0x9E37_79B9_7F4A_7C15;

/// A number that follows from `seed`: one step of the splitmix64 generator.
pub(super) const fn mix(seed: u64) -> u64 {
    let mut z = seed.wrapping_add(STEP);
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}

/// Number `n` of the sequence that `seed` begins.
pub(super) const fn nth(seed: u64, n: u32) -> u64 {
    mix(seed.wrapping_add((n as u64).wrapping_mul(STEP)))
}

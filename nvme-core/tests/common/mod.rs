// SPDX-License-Identifier: MIT OR Apache-2.0
//! Reading the recorded vectors.

/// The bytes that a run of hexadecimal digits spells.
pub(crate) fn bytes(hex: &str) -> Vec<u8> {
    assert_eq!(hex.len() % 2, 0, "{hex}");
    (0..hex.len() / 2).map(|at| u8::from_str_radix(&hex[2 * at..2 * at + 2], 16).unwrap()).collect()
}

// SPDX-License-Identifier: MIT OR Apache-2.0
//! Why there is no memory.

use core::fmt;

use super::Pool;

/// Why an arena could not do what was asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DmaError {
    /// No memory of this many bytes is left in the pool.
    Exhausted {
        /// The pool asked.
        pool: Pool,
        /// Bytes asked for.
        bytes: usize,
    },
    /// The alignment is not a power of two or larger than the arena can give.
    Alignment {
        /// The alignment asked for, in bytes.
        bytes: usize,
    },
    /// A length of zero.
    Empty,
    /// The range does not lie inside the region.
    OutOfRange {
        /// First byte asked for.
        offset: usize,
        /// Number of bytes asked for.
        len: usize,
        /// Bytes the region has.
        region: usize,
    },
}

impl core::error::Error for DmaError {}

impl fmt::Display for DmaError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::Exhausted { pool, bytes } => {
                write!(f, "the pool {pool:?} cannot give {bytes} bytes: lend the arena more memory")
            }
            Self::Alignment { bytes } => write!(
                f,
                "an alignment of {bytes} bytes cannot be given: ask for a power of two that the arena can give"
            ),
            Self::Empty => f.write_str("zero bytes were asked for: ask for one at least"),
            Self::OutOfRange { offset, len, region } => write!(
                f,
                "{len} bytes at offset {offset} are no part of a region of {region}: stay inside, words aligned"
            ),
        }
    }
}

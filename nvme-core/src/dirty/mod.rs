// SPDX-License-Identifier: MIT OR Apache-2.0
//! Which logical blocks changed: what the Controller Data Queue's entries become.
//!
//! A [`DirtyMap`] is a bitmap over lent storage for one namespace; a [`DirtySet`] is one map for each namespace of a
//! tracked controller. "Everything changed" is a state of its own and costs nothing to enter, because the overflow
//! of a queue leads there.

mod map;
mod set;
#[cfg(test)]
mod tests;

pub use map::{BlockRun, DirtyMap, DirtyMapError, Granularity, OutOfRange};
pub use set::{DirtyExtent, DirtySet, MarkError};

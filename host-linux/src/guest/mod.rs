// SPDX-License-Identifier: MIT OR Apache-2.0
//! The guest: a driver that owns the migratable controller, writes and reads back without pause, and knows for each
//! block what it must hold.

pub mod content;
mod ledger;
pub mod log;
mod pattern;

pub use ledger::{InitialContent, Ledger, Mismatch};
pub use pattern::{Chooser, ExtentError, Pattern, WriteContent, WriteExtent, parse_extents};

// SPDX-License-Identifier: MIT OR Apache-2.0
//! The guest: a driver that owns the migratable controller, writes and reads back without pause, and knows for each
//! block what it must hold.

pub mod content;
mod engine;
mod ledger;
pub mod log;
mod pattern;
#[cfg(test)]
mod tests;
mod thread;
mod workload;

pub use engine::{GuestError, Wiring};
pub use ledger::{InitialContent, Ledger, Mismatch};
pub use pattern::{Chooser, ExtentError, Pattern, WriteContent, WriteExtent, parse_extents};
pub use thread::{Guest, GuestSetup};
pub use workload::WorkloadOptions;

// SPDX-License-Identifier: MIT OR Apache-2.0
//! NVMe driver core with Controller Data Queues and Host Managed Live Migration.
#![no_std]
#![cfg_attr(
    not(test),
    deny(
        clippy::indexing_slicing,
        clippy::unwrap_used,
        clippy::expect_used,
        clippy::panic,
        clippy::arithmetic_side_effects
    )
)]

#[cfg(test)]
extern crate std;

pub mod admin;
pub mod cdq;
pub mod controller;
pub mod dirty;
pub mod dma;
#[cfg(test)]
pub(crate) mod fake;
pub mod io;
pub mod migration;
pub mod mmio;
pub mod prp;
pub mod queue;
pub mod register;
pub mod ring;
#[cfg(test)]
pub(crate) mod testing;
pub mod time;
pub mod wire;

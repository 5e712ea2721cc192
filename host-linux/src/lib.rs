// SPDX-License-Identifier: MIT OR Apache-2.0
//! Linux host for the NVMe core.

pub mod cli;
pub mod config;
pub mod driver;
pub mod embedded;
pub mod endpoint;
pub mod guest;
pub mod images;
pub mod journal;
pub mod memory;
pub mod migrate;
pub mod mover;
pub mod platform;
pub mod report;
pub mod storage;
pub mod sync;
mod sys;
pub mod witness;

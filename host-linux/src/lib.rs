// SPDX-License-Identifier: MIT OR Apache-2.0
//! Linux host for the NVMe core.

pub mod endpoint;
pub mod guest;
pub mod journal;
pub mod memory;
pub mod storage;
pub mod sync;
mod sys;

// SPDX-License-Identifier: MIT OR Apache-2.0
//! Helpers shared by the suites that cross the crates.

pub mod checked;
pub mod conformance;
pub mod ext4;
pub mod fault_table;
pub mod files;
pub mod program;
pub mod raw_host;
pub mod rig;
pub mod sys;
pub mod tools;
pub mod vfio_user;
pub mod world;

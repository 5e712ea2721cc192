// SPDX-License-Identifier: MIT OR Apache-2.0
//! The commands that work on one or more controllers, one file for each subject.

mod identify;

pub use identify::IdentifyArgs;

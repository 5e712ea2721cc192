// SPDX-License-Identifier: MIT OR Apache-2.0
//! Host Managed Live Migration. NVMe Base 2.1 §8.1.12.

mod host;

pub use host::{DataMover, Extent, ExtentKind, MoverProgress, Platform};

// SPDX-License-Identifier: MIT OR Apache-2.0
//! Live migration of NVMe namespaces.

fn main() {}

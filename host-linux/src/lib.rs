// SPDX-License-Identifier: MIT OR Apache-2.0
//! Linux host for the NVMe core.

// SPDX-License-Identifier: MIT OR Apache-2.0
//! Host Behavior Support (16h). NVMe Base 2.1 §5.1.25.1.14.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// What the host copes with, as it stands in memory: 512 bytes.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
pub struct HostBehaviorSupportData {
    advanced_command_retry: u8,
    reserved1: u8,
    extended_formats: u8,
    reserved3: [u8; 509],
}
static_assertions::const_assert_eq!(size_of::<HostBehaviorSupportData>(), 512);

/// What the host copes with. Bytes other than those named are written as zero and not looked at.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct HostBehaviorSupport {
    /// Advanced Command Retry Enable (ACRE): the host honours Command Retry Delay.
    pub advanced_command_retry: bool,
    /// LBA Format Extension Enable (LBAFEE): the host copes with 16 or more LBA formats.
    pub extended_formats: bool,
}

impl From<HostBehaviorSupport> for HostBehaviorSupportData {
    fn from(support: HostBehaviorSupport) -> Self {
        Self {
            advanced_command_retry: u8::from(support.advanced_command_retry),
            reserved1: 0,
            extended_formats: u8::from(support.extended_formats),
            reserved3: [0; 509],
        }
    }
}

impl From<&HostBehaviorSupportData> for HostBehaviorSupport {
    fn from(data: &HostBehaviorSupportData) -> Self {
        Self {
            advanced_command_retry: data.advanced_command_retry & 1 != 0,
            extended_formats: data.extended_formats & 1 != 0,
        }
    }
}

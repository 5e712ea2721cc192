// SPDX-License-Identifier: MIT OR Apache-2.0
//! Data structures that Identify returns. NVMe Base 2.1 §5.1.13, Identify command.
//!
//! Every structure reads from the bytes a controller wrote (`parse`) and writes the bytes a host gets (`build`, which
//! fills the page and zeroes its unused tail). A host zeroes its buffer first: some controllers transfer less than the
//! page. Offsets follow public C headers where the specification's text was not at hand.

mod announced;
mod command_set;
mod controller;
mod controller_raw;
mod descriptors;
mod independent;
mod lists;
mod namespace;
mod state_formats;
mod text;
mod virtualization;

use core::fmt;

use zerocopy::byteorder::little_endian::U16;

use super::{InvalidField, TooShort};

pub use announced::{AnnouncingField, Capability, NotAnnounced};
pub use command_set::{
    CommandSetCombination, CommandSetCombinations, ExtendedLbaFormat, LbaMigrationQueueFormat,
    NvmControllerIdentity, NvmNamespaceIdentity,
};
pub use controller::{
    ControllerIdentity, ControllerType, EntrySizes, MigrationLimits, OptionalAdminCommands,
    OptionalNvmCommands, TrackingAttributes,
};
pub use controller_raw::{IdentifyController, PowerState};
pub use descriptors::{NamespaceDescriptor, NamespaceDescriptors};
pub use independent::IndependentNamespaceIdentity;
pub use lists::{ControllerList, NamespaceList};
pub use namespace::{AtomicLimits, IdentifyNamespace, LbaFormat, NamespaceIdentity, OptimalIo};
pub use state_formats::SupportedControllerStateFormats;
pub use text::{SubsystemName, Text};
pub use virtualization::{
    PrimaryControllerCapabilities, SecondaryController, SecondaryControllers, VirtualResources,
};

/// Bytes of an Identify data structure.
pub const PAGE_BYTES: usize = 4096;

/// One Identify data structure.
pub type IdentifyPage = [u8; PAGE_BYTES];

/// Why an Identify data structure is not one, or could not be built.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IdentifyError {
    /// Fewer bytes than the structure needs.
    TooShort(TooShort),
    /// A field holds a value that cannot be.
    Field(InvalidField),
    /// A list whose entries must ascend does not.
    NotAscending {
        /// The entry before.
        previous: u32,
        /// The entry that should have been greater.
        found: u32,
    },
}

impl From<TooShort> for IdentifyError {
    fn from(short: TooShort) -> Self {
        Self::TooShort(short)
    }
}

impl From<InvalidField> for IdentifyError {
    fn from(field: InvalidField) -> Self {
        Self::Field(field)
    }
}

impl fmt::Display for IdentifyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TooShort(short) => short.fmt(f),
            Self::Field(field) => field.fmt(f),
            Self::NotAscending { previous, found } => {
                write!(f, "{found:#x} follows {previous:#x} in a list that must ascend")
            }
        }
    }
}

impl core::error::Error for IdentifyError {}

fn one_based_u8(z: u8) -> u16 {
    u16::from(z).saturating_add(1)
}

/// The zero-based form of a count of 1 to 256; what lies outside becomes the nearest.
fn zero_based_u8(count: u16) -> u8 {
    u8::try_from(count.saturating_sub(1)).unwrap_or(u8::MAX)
}

fn one_based_u16(z: U16) -> u32 {
    u32::from(z.get()).saturating_add(1)
}

/// The zero-based form of a count of 1 to 65,536; what lies outside becomes the nearest.
fn zero_based_u16(count: u32) -> U16 {
    U16::new(u16::try_from(count.saturating_sub(1)).unwrap_or(u16::MAX))
}

const fn short(structure: &'static str, needed: usize, given: usize) -> IdentifyError {
    IdentifyError::TooShort(TooShort { structure, needed, given })
}

/// Writes `bytes` at the start of `page` and zeroes the rest; bytes beyond the page are dropped.
fn fill(page: &mut IdentifyPage, bytes: impl Iterator<Item = u8>) {
    let mut bytes = bytes.fuse();
    for to in page.iter_mut() {
        *to = bytes.next().unwrap_or(0);
    }
}

#[cfg(test)]
mod tests;

// SPDX-License-Identifier: MIT OR Apache-2.0
//! Commands of the NVM Command Set. NVM Command Set 1.1 §3.
//!
//! Whether a command is part of a fused operation stands in its entry
//! ([`SubmissionQueueEntry::fuse`]), not in these types. Decoding leaves PSDT and NSID to the
//! controller, which knows whether it supports SGLs and which namespaces exist. Reserved bits are ignored.

use super::command::{count_u16, join_u64, split_u64, zero_based_u16};
use super::{Command, InvalidField, IoOpcode, Lba, NamespaceId, SubmissionQueueEntry};

const LIMITED_RETRY: u32 = 1 << 31;
const FORCE_UNIT_ACCESS: u32 = 1 << 30;
const DEALLOCATE: u32 = 1 << 25;

fn flag(value: bool, bit: u32) -> u32 {
    if value { bit } else { 0 }
}

const fn protection_of(cdw12: u32) -> u8 {
    ((cdw12 >> 26) & 0xF) as u8
}

fn range_entry(
    opcode: u8,
    namespace: NamespaceId,
    start: Lba,
    blocks: u32,
    options: u32,
) -> SubmissionQueueEntry {
    let (cdw10, cdw11) = split_u64(start.get());
    let cdw12 = options | zero_based_u16(blocks);
    SubmissionQueueEntry::new(opcode).with_namespace(namespace).with_dwords([cdw10, cdw11, cdw12, 0, 0, 0])
}

fn range_of(entry: &SubmissionQueueEntry) -> (Lba, u32, u32) {
    let [cdw10, cdw11, cdw12, ..] = entry.dwords();
    (Lba::new(join_u64(cdw10, cdw11)), count_u16(cdw12), cdw12)
}

/// Defines a command over one range of blocks with PRINFO, FUA and LR.
macro_rules! block_command {
    ($(#[$meta:meta])* $name:ident = $opcode:expr) => {
        $(#[$meta])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub struct $name {
            /// The namespace (NSID).
            pub namespace: NamespaceId,
            /// First block (SLBA).
            pub start: Lba,
            /// Number of blocks, 1 to 65,536. What lies outside is encoded as the nearest of these.
            pub blocks: u32,
            /// Protection Information (PRINFO), four bits; higher bits are dropped when encoded.
            pub protection: u8,
            /// Force Unit Access (FUA).
            pub force_unit_access: bool,
            /// Limited Retry (LR).
            pub limited_retry: bool,
        }

        impl $name {
            /// The command over `blocks` blocks from `start`, options clear.
            #[must_use]
            pub const fn new(namespace: NamespaceId, start: Lba, blocks: u32) -> Self {
                Self {
                    namespace,
                    start,
                    blocks,
                    protection: 0,
                    force_unit_access: false,
                    limited_retry: false,
                }
            }
        }

        impl Command for $name {
            const OPCODE: u8 = $opcode.get();

            #[inline]
            fn encode(&self) -> SubmissionQueueEntry {
                let options = (u32::from(self.protection & 0xF) << 26)
                    | flag(self.force_unit_access, FORCE_UNIT_ACCESS)
                    | flag(self.limited_retry, LIMITED_RETRY);
                range_entry(Self::OPCODE, self.namespace, self.start, self.blocks, options)
            }

            #[inline]
            fn decode(entry: &SubmissionQueueEntry) -> Result<Self, InvalidField> {
                let (start, blocks, cdw12) = range_of(entry);
                Ok(Self {
                    namespace: entry.namespace(),
                    start,
                    blocks,
                    protection: protection_of(cdw12),
                    force_unit_access: cdw12 & FORCE_UNIT_ACCESS != 0,
                    limited_retry: cdw12 & LIMITED_RETRY != 0,
                })
            }
        }
    };
}

block_command! {
    /// Read: blocks from the namespace to host memory. NVM Command Set 1.1 §3.3.4, Read command.
    Read = IoOpcode::READ
}
block_command! {
    /// Write: blocks from host memory to the namespace. NVM Command Set 1.1 §3.3.6, Write command.
    Write = IoOpcode::WRITE
}
block_command! {
    /// Compare: blocks of the namespace with host memory. NVM Command Set 1.1 §3.3.1, Compare command.
    Compare = IoOpcode::COMPARE
}
block_command! {
    /// Verify: reads blocks without transferring them. NVM Command Set 1.1 §3.3.5, Verify command.
    Verify = IoOpcode::VERIFY
}

/// Write Zeroes: blocks read as zero afterwards. NVM Command Set 1.1 §3.3.8, Write Zeroes command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WriteZeroes {
    /// The namespace (NSID).
    pub namespace: NamespaceId,
    /// First block (SLBA).
    pub start: Lba,
    /// Number of blocks, 1 to 65,536. What lies outside is encoded as the nearest of these.
    pub blocks: u32,
    /// Deallocate (DEAC): the controller may deallocate the blocks.
    pub deallocate: bool,
    /// Protection Information (PRINFO), four bits; higher bits are dropped when encoded.
    pub protection: u8,
    /// Force Unit Access (FUA).
    pub force_unit_access: bool,
    /// Limited Retry (LR).
    pub limited_retry: bool,
}

impl WriteZeroes {
    /// The command over `blocks` blocks from `start`, options clear.
    #[must_use]
    pub const fn new(namespace: NamespaceId, start: Lba, blocks: u32) -> Self {
        Self {
            namespace,
            start,
            blocks,
            deallocate: false,
            protection: 0,
            force_unit_access: false,
            limited_retry: false,
        }
    }
}

impl Command for WriteZeroes {
    const OPCODE: u8 = IoOpcode::WRITE_ZEROES.get();

    fn encode(&self) -> SubmissionQueueEntry {
        let options = (u32::from(self.protection & 0xF) << 26)
            | flag(self.deallocate, DEALLOCATE)
            | flag(self.force_unit_access, FORCE_UNIT_ACCESS)
            | flag(self.limited_retry, LIMITED_RETRY);
        range_entry(Self::OPCODE, self.namespace, self.start, self.blocks, options)
    }

    fn decode(entry: &SubmissionQueueEntry) -> Result<Self, InvalidField> {
        let (start, blocks, cdw12) = range_of(entry);
        Ok(Self {
            namespace: entry.namespace(),
            start,
            blocks,
            deallocate: cdw12 & DEALLOCATE != 0,
            protection: protection_of(cdw12),
            force_unit_access: cdw12 & FORCE_UNIT_ACCESS != 0,
            limited_retry: cdw12 & LIMITED_RETRY != 0,
        })
    }
}

/// Write Uncorrectable: marks blocks as unreadable. NVM Command Set 1.1 §3.3.7, Write Uncorrectable command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WriteUncorrectable {
    /// The namespace (NSID).
    pub namespace: NamespaceId,
    /// First block (SLBA).
    pub start: Lba,
    /// Number of blocks, 1 to 65,536. What lies outside is encoded as the nearest of these.
    pub blocks: u32,
}

impl Command for WriteUncorrectable {
    const OPCODE: u8 = IoOpcode::WRITE_UNCORRECTABLE.get();

    fn encode(&self) -> SubmissionQueueEntry {
        range_entry(Self::OPCODE, self.namespace, self.start, self.blocks, 0)
    }

    fn decode(entry: &SubmissionQueueEntry) -> Result<Self, InvalidField> {
        let (start, blocks, _) = range_of(entry);
        Ok(Self { namespace: entry.namespace(), start, blocks })
    }
}

/// Flush: what was written before is on non-volatile media afterwards. NVMe Base 2.1 §7.2, Flush command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Flush {
    /// The namespace (NSID); all namespaces if the controller supports that.
    pub namespace: NamespaceId,
}

impl Command for Flush {
    const OPCODE: u8 = IoOpcode::FLUSH.get();

    fn encode(&self) -> SubmissionQueueEntry {
        SubmissionQueueEntry::new(Self::OPCODE).with_namespace(self.namespace)
    }

    fn decode(entry: &SubmissionQueueEntry) -> Result<Self, InvalidField> {
        Ok(Self { namespace: entry.namespace() })
    }
}

/// Dataset Management: attributes of block ranges, of which Deallocate changes data. The data is a list of
/// ranges, see [`DatasetRangeData`](super::nvm_data::DatasetRangeData).
///
/// NVM Command Set 1.1 §3.3.3, Dataset Management command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DatasetManagement {
    /// The namespace (NSID).
    pub namespace: NamespaceId,
    /// Number of ranges (NR), 1 to 256. What lies outside is encoded as the nearest of these.
    pub ranges: u16,
    /// Attribute Deallocate (AD).
    pub deallocate: bool,
    /// Attribute Integral Dataset for Write (IDW).
    pub integral_write: bool,
    /// Attribute Integral Dataset for Read (IDR).
    pub integral_read: bool,
}

/// A count as an 8-bit zero-based field.
const fn zero_based_u8(count: u16) -> u32 {
    let zero_based = count.saturating_sub(1);
    if zero_based > 0xFF { 0xFF } else { zero_based as u32 }
}

/// The count that bits 7:0 of a dword hold zero-based.
const fn count_u8(dword: u32) -> u16 {
    ((dword & 0xFF) as u16).wrapping_add(1)
}

impl Command for DatasetManagement {
    const OPCODE: u8 = IoOpcode::DATASET_MANAGEMENT.get();

    fn encode(&self) -> SubmissionQueueEntry {
        let cdw11 = (u32::from(self.deallocate) << 2)
            | (u32::from(self.integral_write) << 1)
            | u32::from(self.integral_read);
        SubmissionQueueEntry::new(Self::OPCODE).with_namespace(self.namespace).with_dwords([
            zero_based_u8(self.ranges),
            cdw11,
            0,
            0,
            0,
            0,
        ])
    }

    fn decode(entry: &SubmissionQueueEntry) -> Result<Self, InvalidField> {
        let [cdw10, cdw11, ..] = entry.dwords();
        Ok(Self {
            namespace: entry.namespace(),
            ranges: count_u8(cdw10),
            deallocate: cdw11 & 4 != 0,
            integral_write: cdw11 & 2 != 0,
            integral_read: cdw11 & 1 != 0,
        })
    }
}

/// Copy: block ranges of the namespace one after the other to a destination in it. The data is a list of source
/// ranges, see [`CopySourceData`](super::nvm_data::CopySourceData).
///
/// NVM Command Set 1.1 §3.3.2, Copy command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Copy {
    /// The namespace (NSID).
    pub namespace: NamespaceId,
    /// First block written (SDLBA).
    pub destination: Lba,
    /// Number of source ranges (NR), 1 to 256. What lies outside is encoded as the nearest of these.
    pub ranges: u16,
    /// Descriptor Format of the source ranges, four bits; higher bits are dropped when encoded.
    pub descriptor_format: u8,
    /// Protection Information Read (PRINFOR), four bits; higher bits are dropped when encoded.
    pub protection_read: u8,
    /// Protection Information Write (PRINFOW), four bits; higher bits are dropped when encoded.
    pub protection_write: u8,
    /// Force Unit Access (FUA).
    pub force_unit_access: bool,
    /// Limited Retry (LR).
    pub limited_retry: bool,
}

impl Copy {
    /// Copies `ranges` source ranges of format 0 to `destination`, options clear.
    #[must_use]
    pub const fn new(namespace: NamespaceId, destination: Lba, ranges: u16) -> Self {
        Self {
            namespace,
            destination,
            ranges,
            descriptor_format: 0,
            protection_read: 0,
            protection_write: 0,
            force_unit_access: false,
            limited_retry: false,
        }
    }
}

impl Command for Copy {
    const OPCODE: u8 = IoOpcode::COPY.get();

    fn encode(&self) -> SubmissionQueueEntry {
        let (cdw10, cdw11) = split_u64(self.destination.get());
        let cdw12 = zero_based_u8(self.ranges)
            | (u32::from(self.descriptor_format & 0xF) << 8)
            | (u32::from(self.protection_read & 0xF) << 12)
            | (u32::from(self.protection_write & 0xF) << 26)
            | flag(self.force_unit_access, FORCE_UNIT_ACCESS)
            | flag(self.limited_retry, LIMITED_RETRY);
        SubmissionQueueEntry::new(Self::OPCODE)
            .with_namespace(self.namespace)
            .with_dwords([cdw10, cdw11, cdw12, 0, 0, 0])
    }

    fn decode(entry: &SubmissionQueueEntry) -> Result<Self, InvalidField> {
        let [cdw10, cdw11, cdw12, ..] = entry.dwords();
        Ok(Self {
            namespace: entry.namespace(),
            destination: Lba::new(join_u64(cdw10, cdw11)),
            ranges: count_u8(cdw12),
            descriptor_format: ((cdw12 >> 8) & 0xF) as u8,
            protection_read: ((cdw12 >> 12) & 0xF) as u8,
            protection_write: protection_of(cdw12),
            force_unit_access: cdw12 & FORCE_UNIT_ACCESS != 0,
            limited_retry: cdw12 & LIMITED_RETRY != 0,
        })
    }
}

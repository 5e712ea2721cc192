// SPDX-License-Identifier: MIT OR Apache-2.0
//! Get LBA Status: which blocks are allocated or unreadable. NVM Command Set 1.1 §4.2.1, Get LBA Status command.

use zerocopy::byteorder::little_endian::{U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use super::command::{byte_at, count_u32, join_u64, low_u16, split_u64, zero_based_u32};
use super::open::open_value;
use super::{
    AdminOpcode, Command, InvalidField, Lba, NamespaceId, SubmissionQueueEntry, TooShort, require_prp,
};

open_value! {
    /// What Get LBA Status reports (Action Type, ATYPE).
    LbaStatusAction(u8) {
        /// Not confirmed against the text of the specification.
        ALLOCATED = 0x02, "report allocated blocks";
        SCAN_UNTRACKED = 0x10, "scan, report tracked and untracked potentially unrecoverable blocks";
        TRACKED = 0x11, "report tracked potentially unrecoverable blocks";
    }
}

/// Get LBA Status: returns a header and descriptors of block ranges.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GetLbaStatus {
    /// The namespace asked about (NSID).
    pub namespace: NamespaceId,
    /// First block asked about (SLBA).
    pub start: Lba,
    /// Most dwords to return (MNDW), 1 to 2^32. What lies outside is encoded as the nearest of these.
    pub max_dwords: u64,
    /// Blocks asked about (RL); 0 means up to the end of the namespace.
    pub range_blocks: u16,
    /// What to report (ATYPE).
    pub action: LbaStatusAction,
}

impl GetLbaStatus {
    /// Most bytes to return.
    #[must_use]
    pub const fn max_bytes(&self) -> u64 {
        self.max_dwords.saturating_mul(4)
    }
}

impl Command for GetLbaStatus {
    const OPCODE: u8 = AdminOpcode::GET_LBA_STATUS.get();

    fn encode(&self) -> SubmissionQueueEntry {
        let (cdw10, cdw11) = split_u64(self.start.get());
        let cdw12 = zero_based_u32(self.max_dwords);
        let cdw13 = (u32::from(self.action.get()) << 24) | u32::from(self.range_blocks);
        SubmissionQueueEntry::new(Self::OPCODE)
            .with_namespace(self.namespace)
            .with_dwords([cdw10, cdw11, cdw12, cdw13, 0, 0])
    }

    fn decode(entry: &SubmissionQueueEntry) -> Result<Self, InvalidField> {
        require_prp(entry)?;
        let [cdw10, cdw11, cdw12, cdw13, ..] = entry.dwords();
        Ok(Self {
            namespace: entry.namespace(),
            start: Lba::new(join_u64(cdw10, cdw11)),
            max_dwords: count_u32(cdw12),
            range_blocks: low_u16(cdw13),
            action: LbaStatusAction::new(byte_at(cdw13, 24)),
        })
    }
}

/// Header of the data that Get LBA Status returns: 8 bytes, followed by the descriptors.
#[repr(C)]
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned,
)]
pub struct LbaStatusHeaderData {
    descriptors: U32,
    condition: u8,
    reserved5: [u8; 3],
}
static_assertions::const_assert_eq!(size_of::<LbaStatusHeaderData>(), 8);

/// One descriptor of the data that Get LBA Status returns: 16 bytes.
#[repr(C)]
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned,
)]
pub struct LbaStatusDescriptorData {
    start: U64,
    blocks: U32,
    reserved12: u8,
    status: u8,
    reserved14: [u8; 2],
}
static_assertions::const_assert_eq!(size_of::<LbaStatusDescriptorData>(), 16);

open_value! {
    /// How the report ended (Completion Condition, CMPC).
    LbaStatusCondition(u8) {
        NONE = 0, "no indication of completeness";
        INCOMPLETE = 1, "incomplete: the transfer was too short for all descriptors";
        COMPLETE = 2, "complete: the whole range was reported";
    }
}

/// One range of blocks that share a state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LbaStatusDescriptor {
    /// First block (DSLBA).
    pub start: Lba,
    /// Number of blocks (NLB), a plain count.
    pub blocks: u32,
    /// LBA Range Status.
    pub status: u8,
}

impl From<LbaStatusDescriptor> for LbaStatusDescriptorData {
    fn from(descriptor: LbaStatusDescriptor) -> Self {
        Self {
            start: U64::new(descriptor.start.get()),
            blocks: U32::new(descriptor.blocks),
            status: descriptor.status,
            ..Self::default()
        }
    }
}

impl From<LbaStatusDescriptorData> for LbaStatusDescriptor {
    fn from(data: LbaStatusDescriptorData) -> Self {
        Self { start: Lba::new(data.start.get()), blocks: data.blocks.get(), status: data.status }
    }
}

/// A checked view of the data that Get LBA Status returned.
#[derive(Clone, Copy, Debug)]
pub struct LbaStatusReport<'b> {
    condition: LbaStatusCondition,
    descriptors: &'b [LbaStatusDescriptorData],
}

impl<'b> LbaStatusReport<'b> {
    /// Looks at the data; bytes behind the last descriptor are not looked at.
    ///
    /// # Errors
    /// [`TooShort`] if the header or the number of descriptors that it states does not fit into `bytes`.
    pub fn parse(bytes: &'b [u8]) -> Result<Self, TooShort> {
        let given = bytes.len();
        let short = |needed| TooShort { structure: "LBA Status Descriptor List", needed, given };
        let (header, rest) = LbaStatusHeaderData::ref_from_prefix(bytes)
            .map_err(|_| short(size_of::<LbaStatusHeaderData>()))?;
        let stated = usize::try_from(header.descriptors.get()).unwrap_or(usize::MAX);
        let (descriptors, _) = <[LbaStatusDescriptorData]>::ref_from_prefix_with_elems(rest, stated)
            .map_err(|_| {
                short(
                    stated
                        .saturating_mul(size_of::<LbaStatusDescriptorData>())
                        .saturating_add(size_of::<LbaStatusHeaderData>()),
                )
            })?;
        Ok(Self { condition: LbaStatusCondition::new(header.condition), descriptors })
    }

    /// How the report ended.
    #[must_use]
    pub const fn condition(&self) -> LbaStatusCondition {
        self.condition
    }

    /// The descriptors in order; their number is bounded by the length of the data.
    pub fn descriptors(&self) -> impl ExactSizeIterator<Item = LbaStatusDescriptor> + Clone + 'b {
        self.descriptors.iter().map(|data| LbaStatusDescriptor::from(*data))
    }
}

/// Builds the data of Get LBA Status in lent memory.
#[derive(Debug)]
pub struct LbaStatusBuilder<'b> {
    header: &'b mut LbaStatusHeaderData,
    descriptors: &'b mut [LbaStatusDescriptorData],
    used: usize,
}

impl<'b> LbaStatusBuilder<'b> {
    /// Starts an empty report that may fill `bytes`.
    ///
    /// # Errors
    /// [`TooShort`] if the header does not fit.
    pub fn new(bytes: &'b mut [u8]) -> Result<Self, TooShort> {
        let needed = size_of::<LbaStatusHeaderData>();
        let short = TooShort { structure: "LBA Status Descriptor List", needed, given: bytes.len() };
        let (header, rest) = LbaStatusHeaderData::mut_from_prefix(bytes).map_err(|_| short)?;
        let room = rest.len().checked_div(size_of::<LbaStatusDescriptorData>()).unwrap_or(0);
        let (descriptors, _) =
            <[LbaStatusDescriptorData]>::mut_from_prefix_with_elems(rest, room).map_err(|_| short)?;
        *header = LbaStatusHeaderData::default();
        Ok(Self { header, descriptors, used: 0 })
    }

    /// Adds a descriptor; returns whether there was room for it.
    #[must_use]
    pub fn push(&mut self, descriptor: LbaStatusDescriptor) -> bool {
        let Some(place) = self.descriptors.get_mut(self.used) else { return false };
        *place = descriptor.into();
        self.used = self.used.saturating_add(1);
        true
    }

    /// Completes the header and returns the number of bytes in use.
    #[must_use]
    pub fn finish(self, condition: LbaStatusCondition) -> usize {
        self.header.descriptors = U32::new(u32::try_from(self.used).unwrap_or(u32::MAX));
        self.header.condition = condition.get();
        self.used
            .saturating_mul(size_of::<LbaStatusDescriptorData>())
            .saturating_add(size_of::<LbaStatusHeaderData>())
    }
}

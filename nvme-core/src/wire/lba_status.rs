// SPDX-License-Identifier: MIT OR Apache-2.0
//! Get LBA Status: which blocks are allocated or unreadable. NVM Command Set 1.1 §4.2.1, Get LBA Status command.

use super::command::{byte_at, count_u32, join_u64, low_u16, split_u64, zero_based_u32};
use super::open::open_value;
use super::{AdminOpcode, Command, InvalidField, Lba, NamespaceId, SubmissionQueueEntry, require_prp};

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

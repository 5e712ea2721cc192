// SPDX-License-Identifier: MIT OR Apache-2.0
//! Migration Send and Migration Receive. NVMe Base 2.1 §5.1.17, Migration Send command, and §5.1.16, Migration
//! Receive command.
//!
//! The two commands place the same things differently: the vendor index is in CDW11 bits 23:16 when receiving and
//! 31:24 when sending, the version index in CDW10 bits 23:16 and CDW11 bits 23:16, and the length is zero-based only
//! when receiving. The types here hide all of that.

use super::command::{count_u32, join_u64, split_u64, zero_based_u32};
use super::{
    AdminOpcode, Command, CompletionQueueEntry, ControllerId, InvalidField, SubmissionQueueEntry,
    require_no_namespace, require_prp,
};

const UUID_INDEX: u32 = 0x7F;

/// Suspend Type (STYPE).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum SuspendKind {
    /// 0h: a hint that a suspend will follow; nothing changes.
    Notification,
    /// 1h: stop fetching, finish what was fetched, stop all transport transactions.
    Suspend,
}

/// Sequence Indicator (SEQIND): which part of a Controller State transfer a command carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum SequenceIndicator {
    /// 01b: first of several.
    First,
    /// 00b: neither first nor last.
    Middle,
    /// 10b: last of several; commits.
    Last,
    /// 11b: first and last; commits.
    Only,
}

impl SequenceIndicator {
    const fn bits(self) -> u32 {
        match self {
            Self::Middle => 0,
            Self::First => 1,
            Self::Last => 2,
            Self::Only => 3,
        }
    }

    const fn from_bits(bits: u32) -> Self {
        match bits & 3 {
            0 => Self::Middle,
            1 => Self::First,
            2 => Self::Last,
            _ => Self::Only,
        }
    }

    /// Whether a transfer begins with this command, dropping one that was not finished.
    #[must_use]
    pub const fn begins(self) -> bool {
        matches!(self, Self::First | Self::Only)
    }

    /// Whether the state is verified and committed with this command.
    #[must_use]
    pub const fn commits(self) -> bool {
        matches!(self, Self::Last | Self::Only)
    }
}

/// Migration Send command (41h).
///
/// `uuid_index` selects a vendor's meaning of vendor specific fields (CDW14 bits 6:0; bit 7 is dropped); 0 unless the
/// controller supports UUID selection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MigrationSend {
    /// Suspend (SEL 0h). NVMe Base 2.1 §5.1.17.1.1.
    Suspend {
        /// The controller to suspend.
        controller: ControllerId,
        /// Announcement or the suspend itself.
        kind: SuspendKind,
        /// Delete User Data Migration Queue (DUDMQ): the target's queue goes before the command completes.
        delete_queue: bool,
        /// UUID index.
        uuid_index: u8,
    },
    /// Resume (SEL 1h). NVMe Base 2.1 §5.1.17.1.2.
    Resume {
        /// The controller to resume.
        controller: ControllerId,
        /// UUID index.
        uuid_index: u8,
    },
    /// Set Controller State (SEL 2h), with data. NVMe Base 2.1 §5.1.17.1.3.
    SetControllerState {
        /// The controller that takes the state.
        controller: ControllerId,
        /// Which part of the transfer this is.
        sequence: SequenceIndicator,
        /// Index into the controller's list of NVMe state versions (CSVI), from 1; 0 if the image has none.
        version_index: u8,
        /// Index into the controller's list of vendor UUIDs (CSUUIDI), from 1; 0 if the image has no vendor part.
        vendor_index: u8,
        /// Byte offset of this part in the image (CSO), a multiple of 4.
        offset: u64,
        /// Dwords of this part (NUMD), not zero-based; 0 is legal.
        dwords: u32,
        /// UUID index.
        uuid_index: u8,
    },
}

impl MigrationSend {
    /// The controller the command is about.
    #[must_use]
    pub const fn controller(&self) -> ControllerId {
        match self {
            Self::Suspend { controller, .. }
            | Self::Resume { controller, .. }
            | Self::SetControllerState { controller, .. } => *controller,
        }
    }

    /// Whether the command may take as long as somebody else likes, so that a time-out says nothing about the managing
    /// controller: a suspension completes what was fetched, which takes completion queue entries that the guest frees.
    #[must_use]
    pub const fn waits_for_others(&self) -> bool {
        matches!(self, Self::Suspend { kind: SuspendKind::Suspend, .. })
    }

    /// Bytes of data the command carries; 0 for all but Set Controller State.
    #[must_use]
    pub const fn data_bytes(&self) -> u64 {
        match self {
            Self::SetControllerState { dwords, .. } => (*dwords as u64).wrapping_mul(4),
            Self::Suspend { .. } | Self::Resume { .. } => 0,
        }
    }
}

impl Command for MigrationSend {
    const OPCODE: u8 = AdminOpcode::MIGRATION_SEND.get();

    fn encode(&self) -> SubmissionQueueEntry {
        let target = u32::from(self.controller().get());
        let dwords = match *self {
            Self::Suspend { kind, delete_queue, uuid_index, .. } => {
                let kind = match kind {
                    SuspendKind::Notification => 0,
                    SuspendKind::Suspend => 1,
                };
                let cdw11 = (u32::from(delete_queue) << 31) | (kind << 16) | target;
                [0, cdw11, 0, 0, u32::from(uuid_index) & UUID_INDEX, 0]
            }
            Self::Resume { uuid_index, .. } => [1, target, 0, 0, u32::from(uuid_index) & UUID_INDEX, 0],
            Self::SetControllerState {
                sequence,
                version_index,
                vendor_index,
                offset,
                dwords,
                uuid_index,
                ..
            } => {
                let (low, high) = split_u64(offset);
                let cdw11 = (u32::from(vendor_index) << 24) | (u32::from(version_index) << 16) | target;
                [2 | (sequence.bits() << 16), cdw11, low, high, u32::from(uuid_index) & UUID_INDEX, dwords]
            }
        };
        SubmissionQueueEntry::new(Self::OPCODE).with_dwords(dwords)
    }

    /// # Errors
    /// Invalid Field in Command for a namespace, a data pointer other than PRP, a reserved Select or Suspend Type, an
    /// offset that is not a multiple of 4, or an image with neither version nor vendor index. Reserved bits are not
    /// looked at.
    fn decode(entry: &SubmissionQueueEntry) -> Result<Self, InvalidField> {
        require_no_namespace(entry)?;
        require_prp(entry)?;
        let [cdw10, cdw11, cdw12, cdw13, cdw14, cdw15] = entry.dwords();
        let controller = ControllerId::new((cdw11 & 0xFFFF) as u16);
        let uuid_index = (cdw14 & UUID_INDEX) as u8;
        match cdw10 & 0xFF {
            0 => {
                let kind = match (cdw11 >> 16) & 0xFF {
                    0 => SuspendKind::Notification,
                    1 => SuspendKind::Suspend,
                    other => return Err(InvalidField::in_dword("STYPE", 11, 16, u64::from(other))),
                };
                Ok(Self::Suspend { controller, kind, delete_queue: cdw11 >> 31 == 1, uuid_index })
            }
            1 => Ok(Self::Resume { controller, uuid_index }),
            2 => {
                let version_index = ((cdw11 >> 16) & 0xFF) as u8;
                let vendor_index = (cdw11 >> 24) as u8;
                if version_index == 0 && vendor_index == 0 {
                    return Err(InvalidField::in_dword("CSVI", 11, 16, 0));
                }
                Ok(Self::SetControllerState {
                    controller,
                    sequence: SequenceIndicator::from_bits(cdw10 >> 16),
                    version_index,
                    vendor_index,
                    offset: aligned_offset("CSO", cdw12, cdw13)?,
                    dwords: cdw15,
                    uuid_index,
                })
            }
            select => Err(InvalidField::in_dword("SEL", 10, 0, u64::from(select))),
        }
    }
}

/// Migration Receive command (42h), Get Controller State (SEL 0h). NVMe Base 2.1 §5.1.16.1.1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MigrationReceive {
    /// The controller whose state is read.
    pub controller: ControllerId,
    /// Index into the list of NVMe state versions (CSVI), from 1; 0 for no NVMe state.
    pub version_index: u8,
    /// Index into the list of vendor UUIDs (CSUUIDI), from 1; 0 for no vendor part.
    pub vendor_index: u8,
    /// Vendor specific parameter (CSUIDXP); ignored without a vendor index.
    pub vendor_parameter: u8,
    /// Byte offset in the image, a multiple of 4.
    pub offset: u64,
    /// Dwords to read, 1 to 2^32 (zero-based on the wire; 0 is sent as 1, more as 2^32). More than the image holds
    /// is allowed; what follows the image is undefined.
    pub dwords: u64,
    /// UUID index (CDW14 bits 6:0; bit 7 is dropped); 0 unless the controller supports UUID selection.
    pub uuid_index: u8,
}

impl MigrationReceive {
    /// Bytes of data the command asks for, at most 2^34.
    #[must_use]
    pub const fn data_bytes(&self) -> u64 {
        count_u32(zero_based_u32(self.dwords)).wrapping_mul(4)
    }

    /// Whether the target was suspended for the whole of the command (CSUP, CQE DW0 bit 0). Some controllers only
    /// say so in the image's header.
    #[must_use]
    pub const fn was_suspended(entry: &CompletionQueueEntry) -> bool {
        entry.dw0() & 1 == 1
    }

    /// CQE DW0 of a successful command.
    #[must_use]
    pub const fn result(suspended: bool) -> u32 {
        suspended as u32
    }
}

impl Command for MigrationReceive {
    const OPCODE: u8 = AdminOpcode::MIGRATION_RECEIVE.get();

    fn encode(&self) -> SubmissionQueueEntry {
        let (low, high) = split_u64(self.offset);
        let cdw11 = (u32::from(self.vendor_parameter) << 24)
            | (u32::from(self.vendor_index) << 16)
            | u32::from(self.controller.get());
        SubmissionQueueEntry::new(Self::OPCODE).with_dwords([
            u32::from(self.version_index) << 16,
            cdw11,
            low,
            high,
            u32::from(self.uuid_index) & UUID_INDEX,
            zero_based_u32(self.dwords),
        ])
    }

    /// # Errors
    /// Invalid Field in Command for a namespace, a data pointer other than PRP, a reserved Select, or an offset that
    /// is not a multiple of 4. Reserved bits are not looked at.
    fn decode(entry: &SubmissionQueueEntry) -> Result<Self, InvalidField> {
        require_no_namespace(entry)?;
        require_prp(entry)?;
        let [cdw10, cdw11, cdw12, cdw13, cdw14, cdw15] = entry.dwords();
        if cdw10 & 0xFF != 0 {
            return Err(InvalidField::in_dword("SEL", 10, 0, u64::from(cdw10 & 0xFF)));
        }
        Ok(Self {
            controller: ControllerId::new((cdw11 & 0xFFFF) as u16),
            version_index: ((cdw10 >> 16) & 0xFF) as u8,
            vendor_index: ((cdw11 >> 16) & 0xFF) as u8,
            vendor_parameter: (cdw11 >> 24) as u8,
            offset: aligned_offset("OL", cdw12, cdw13)?,
            dwords: count_u32(cdw15),
            uuid_index: (cdw14 & UUID_INDEX) as u8,
        })
    }
}

fn aligned_offset(field: &'static str, low: u32, high: u32) -> Result<u64, InvalidField> {
    let offset = join_u64(low, high);
    if offset & 3 == 0 { Ok(offset) } else { Err(InvalidField::in_dword(field, 12, 0, offset)) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::{NamespaceId, StatusCode};
    use proptest::prelude::*;

    const TARGET: ControllerId = ControllerId::new(0x0102);

    fn set(offset: u64) -> MigrationSend {
        MigrationSend::SetControllerState {
            controller: TARGET,
            sequence: SequenceIndicator::Last,
            version_index: 0x11,
            vendor_index: 0x22,
            offset,
            dwords: 0x33,
            uuid_index: 0x44,
        }
    }

    fn get() -> MigrationReceive {
        MigrationReceive {
            controller: TARGET,
            version_index: 0x11,
            vendor_index: 0x22,
            vendor_parameter: 0x55,
            offset: 0x0000_0007_0000_0008,
            dwords: 0x33,
            uuid_index: 0x44,
        }
    }

    #[test]
    fn get_and_set_place_their_indices_differently() {
        assert_eq!(set(0x7_0000_0008).encode().dwords(), [0x0002_0002, 0x2211_0102, 8, 7, 0x44, 0x33]);
        assert_eq!(get().encode().dwords(), [0x0011_0000, 0x5522_0102, 8, 7, 0x44, 0x32]);
    }

    #[test]
    fn suspend_and_resume_encode_their_bits() {
        let suspend = |kind, delete_queue| {
            MigrationSend::Suspend { controller: TARGET, kind, delete_queue, uuid_index: 0 }.encode().dwords()
        };
        assert_eq!(suspend(SuspendKind::Notification, false), [0, 0x0000_0102, 0, 0, 0, 0]);
        assert_eq!(suspend(SuspendKind::Suspend, false), [0, 0x0001_0102, 0, 0, 0, 0]);
        assert_eq!(suspend(SuspendKind::Suspend, true), [0, 0x8001_0102, 0, 0, 0, 0]);
        let resume = MigrationSend::Resume { controller: TARGET, uuid_index: 0xFF };
        assert_eq!(resume.encode().dwords(), [1, 0x0102, 0, 0, 0x7F, 0]);
    }

    #[test]
    fn lengths_stay_in_range_at_both_ends() {
        for (name, dwords, wire, bytes) in [
            ("none is sent as one", 0, 0, 4),
            ("one", 1, 0, 4),
            ("header", 12, 11, 48),
            ("most", 1 << 32, u32::MAX, 1 << 34),
            ("more than most", u64::MAX, u32::MAX, 1 << 34),
        ] {
            let command = MigrationReceive { dwords, ..get() };
            assert_eq!(command.encode().dwords()[5], wire, "{name}");
            assert_eq!(command.data_bytes(), bytes, "{name}");
        }
        assert_eq!(set(0).data_bytes(), 0x33 * 4);
    }

    #[test]
    fn sequence_indicators_know_their_part() {
        use SequenceIndicator::{First, Last, Middle, Only};
        for (indicator, begins, commits) in
            [(First, true, false), (Middle, false, false), (Last, false, true), (Only, true, true)]
        {
            assert_eq!((indicator.begins(), indicator.commits()), (begins, commits), "{indicator:?}");
            assert_eq!(SequenceIndicator::from_bits(indicator.bits()), indicator);
        }
    }

    #[test]
    fn decode_refuses_reserved_values() {
        let send = SubmissionQueueEntry::new(0x41);
        let rows = [
            ("select 3", send.with_dwords([3, 0, 0, 0, 0, 0]), "SEL", 3),
            ("suspend type 2", send.with_dwords([0, 0x2_0000, 0, 0, 0, 0]), "STYPE", 2),
            ("unaligned offset", send.with_dwords([2, 0x1_0000, 2, 0, 0, 0]), "CSO", 2),
            ("no index at all", send.with_dwords([0x3_0002, 1, 0, 0, 0, 0]), "CSVI", 0),
            ("namespace", send.with_namespace(NamespaceId::new(9)), "NSID", 9),
        ];
        for (name, entry, field, value) in rows {
            let error = MigrationSend::decode(&entry).unwrap_err();
            assert_eq!(
                (error.field, error.value, error.status),
                (field, value, StatusCode::INVALID_FIELD),
                "{name}"
            );
        }
        let receive = SubmissionQueueEntry::new(0x42);
        let rows = [
            ("select 1", receive.with_dwords([1, 0, 0, 0, 0, 0]), "SEL", 1),
            ("unaligned offset", receive.with_dwords([0, 0, 1, 0, 0, 0]), "OL", 1),
            ("namespace", receive.with_namespace(NamespaceId::new(9)), "NSID", 9),
        ];
        for (name, entry, field, value) in rows {
            let error = MigrationReceive::decode(&entry).unwrap_err();
            assert_eq!(
                (error.field, error.value, error.status),
                (field, value, StatusCode::INVALID_FIELD),
                "{name}"
            );
        }
    }

    fn refuses_sgls_and_namespaces<C: Command + core::fmt::Debug>() {
        use zerocopy::IntoBytes;
        for kind in 1..=3_u8 {
            let mut entry = SubmissionQueueEntry::new(C::OPCODE);
            entry.as_mut_bytes()[1] |= kind << 6;
            let error = C::decode(&entry).unwrap_err();
            assert_eq!((error.field, error.value), ("PSDT", u64::from(kind)), "{:#x}", C::OPCODE);
            assert_eq!(error.status, StatusCode::INVALID_FIELD);
        }
        for nsid in [NamespaceId::new(1), NamespaceId::ALL] {
            let entry = SubmissionQueueEntry::new(C::OPCODE).with_namespace(nsid);
            let error = C::decode(&entry).unwrap_err();
            assert_eq!((error.field, error.status), ("NSID", StatusCode::INVALID_FIELD), "{:#x}", C::OPCODE);
        }
    }

    #[test]
    fn every_migration_command_refuses_sgls_and_namespaces() {
        refuses_sgls_and_namespaces::<MigrationSend>();
        refuses_sgls_and_namespaces::<MigrationReceive>();
        refuses_sgls_and_namespaces::<crate::wire::track::TrackSend>();
        refuses_sgls_and_namespaces::<crate::wire::track::TrackReceive>();
        refuses_sgls_and_namespaces::<crate::wire::cdq::ControllerDataQueueCommand>();
    }

    #[test]
    fn completion_says_whether_the_target_was_suspended() {
        for suspended in [false, true] {
            let entry = CompletionQueueEntry::default().with_result(MigrationReceive::result(suspended), 0);
            assert_eq!(MigrationReceive::was_suspended(&entry), suspended);
        }
        assert!(!MigrationReceive::was_suspended(&CompletionQueueEntry::default().with_result(!1, 0)));
    }

    proptest! {
        #[test]
        fn any_entry_decodes_or_is_refused_and_what_decodes_encodes_alike(dwords: [u32; 6]) {
            let entry = SubmissionQueueEntry::new(0x41).with_dwords(dwords);
            if let Ok(command) = MigrationSend::decode(&entry) {
                prop_assert_eq!(MigrationSend::decode(&command.encode()), Ok(command));
            }
            let [cdw10, rest @ ..] = dwords;
            let [a, b, c, d, e] = rest;
            let entry = SubmissionQueueEntry::new(0x42).with_dwords([cdw10 & !0xFF, a, b & !3, c, d, e]);
            let command = MigrationReceive::decode(&entry).unwrap();
            prop_assert_eq!(MigrationReceive::decode(&command.encode()), Ok(command));
        }
    }
}

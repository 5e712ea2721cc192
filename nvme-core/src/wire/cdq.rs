// SPDX-License-Identifier: MIT OR Apache-2.0
//! Controller Data Queue command: creating and deleting queues. NVMe Base 2.1 §5.1.4, Controller Data Queue command.

use super::{
    AdminOpcode, CdqId, Command, CompletionQueueEntry, ControllerId, InvalidField, SubmissionQueueEntry,
    require_no_namespace, require_prp,
};

/// Bytes of one entry of a User Data Migration Queue in the NVM Command Set's format.
pub const ENTRY_BYTES: u32 = 32;
/// Dwords of one such entry; CDQSIZE is a multiple of it.
pub const ENTRY_DWORDS: u32 = 8;
/// Fewest entries of a queue: one slot always stays empty, so one alone could never hold an entry.
pub const MIN_ENTRIES: u32 = 2;
/// Most entries that CDQSIZE, a 32-bit count of dwords, can express.
pub const MAX_ENTRIES: u32 = u32::MAX / ENTRY_DWORDS;

/// Queue Type (QT): what the controller puts into the queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct QueueType(u8);

impl QueueType {
    /// User Data Migration Queue: changes of user data made through another controller.
    pub const USER_DATA_MIGRATION: Self = Self(0);

    /// The type with number `value`; C0h to FFh are vendor specific, others but 0 reserved.
    #[must_use]
    pub const fn new(value: u8) -> Self {
        Self(value)
    }

    /// The type's number.
    #[must_use]
    pub const fn get(self) -> u8 {
        self.0
    }

    /// Whether this is the one type the specification defines.
    #[must_use]
    pub const fn is_user_data_migration(self) -> bool {
        self.0 == Self::USER_DATA_MIGRATION.0
    }
}

/// Create (SEL 0h): makes a queue in host memory. PRP1 is its base, or the base of its PRP list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CreateControllerDataQueue {
    /// What the queue is for. Any value decodes; the controller refuses types it does not have.
    pub queue_type: QueueType,
    /// Physically Contiguous (PC): PRP1 is the queue itself rather than a PRP list.
    pub contiguous: bool,
    /// The controller whose changes are reported (CNTLID in the Create Queue Specific field).
    pub tracked: ControllerId,
    /// Size of the queue (CDQSIZE) in dwords, not zero-based.
    pub dwords: u32,
}

impl CreateControllerDataQueue {
    /// A User Data Migration Queue of `entries` slots; `None` if there are fewer than [`MIN_ENTRIES`] or more than
    /// [`MAX_ENTRIES`].
    #[must_use]
    pub const fn user_data_migration(tracked: ControllerId, entries: u32, contiguous: bool) -> Option<Self> {
        match dwords_for_entries(entries) {
            Some(dwords) => {
                Some(Self { queue_type: QueueType::USER_DATA_MIGRATION, contiguous, tracked, dwords })
            }
            None => None,
        }
    }

    /// Number of slots of a User Data Migration Queue of this size.
    ///
    /// # Errors
    /// CDQSIZE is not a multiple of the entry size, or holds fewer than [`MIN_ENTRIES`]: Invalid Field in Command.
    pub const fn entries(&self) -> Result<u32, InvalidField> {
        match entries_for_dwords(self.dwords) {
            Some(entries) => Ok(entries),
            None => Err(InvalidField::in_dword("CDQSIZE", 12, 0, self.dwords as u64)),
        }
    }

    /// Checks that the queue is a User Data Migration Queue, the only type this crate knows.
    ///
    /// # Errors
    /// Another Queue Type: Invalid Field in Command.
    pub const fn require_user_data_migration(&self) -> Result<(), InvalidField> {
        if self.queue_type.is_user_data_migration() {
            Ok(())
        } else {
            Err(InvalidField::in_dword("QT", 10, 16, self.queue_type.get() as u64))
        }
    }

    /// Size of the queue in bytes.
    #[must_use]
    pub const fn bytes(&self) -> u64 {
        (self.dwords as u64).wrapping_mul(4)
    }
}

/// CDQSIZE of a User Data Migration Queue of `entries` slots; `None` outside [`MIN_ENTRIES`] to [`MAX_ENTRIES`].
#[must_use]
pub const fn dwords_for_entries(entries: u32) -> Option<u32> {
    if entries < MIN_ENTRIES { None } else { entries.checked_mul(ENTRY_DWORDS) }
}

/// Slots of a User Data Migration Queue of `dwords`; `None` if that is not a whole number of slots of at least
/// [`MIN_ENTRIES`].
#[must_use]
pub const fn entries_for_dwords(dwords: u32) -> Option<u32> {
    let entries = dwords / ENTRY_DWORDS;
    if !dwords.is_multiple_of(ENTRY_DWORDS) || entries < MIN_ENTRIES { None } else { Some(entries) }
}

/// The identifier that a successful Create reports (CQE DW0 bits 15:0); meaningless after any other status.
#[must_use]
pub const fn created_queue(entry: &CompletionQueueEntry) -> CdqId {
    CdqId::new((entry.dw0() & 0xFFFF) as u16)
}

/// CQE DW0 of a successful Create.
#[must_use]
pub const fn create_result(queue: CdqId) -> u32 {
    queue.get() as u32
}

/// Controller Data Queue command (45h). NVMe Base 2.1 §5.1.4, Controller Data Queue command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ControllerDataQueueCommand {
    /// Create a queue.
    Create(CreateControllerDataQueue),
    /// Delete a queue (SEL 1h).
    Delete(CdqId),
}

impl Command for ControllerDataQueueCommand {
    const OPCODE: u8 = AdminOpcode::CONTROLLER_DATA_QUEUE.get();

    fn encode(&self) -> SubmissionQueueEntry {
        let dwords = match self {
            Self::Create(create) => [
                u32::from(create.queue_type.get()) << 16,
                (u32::from(create.tracked.get()) << 16) | u32::from(create.contiguous),
                create.dwords,
                0,
                0,
                0,
            ],
            Self::Delete(queue) => [1, u32::from(queue.get()), 0, 0, 0, 0],
        };
        SubmissionQueueEntry::new(Self::OPCODE).with_dwords(dwords)
    }

    /// # Errors
    /// A namespace, a data pointer other than PRP, or a Select value other than Create and Delete: Invalid Field in
    /// Command. Reserved bits are not looked at.
    fn decode(entry: &SubmissionQueueEntry) -> Result<Self, InvalidField> {
        require_no_namespace(entry)?;
        require_prp(entry)?;
        let [cdw10, cdw11, cdw12, ..] = entry.dwords();
        match cdw10 & 0xFF {
            0 => Ok(Self::Create(CreateControllerDataQueue {
                queue_type: QueueType::new(((cdw10 >> 16) & 0xFF) as u8),
                contiguous: cdw11 & 1 == 1,
                tracked: ControllerId::new((cdw11 >> 16) as u16),
                dwords: cdw12,
            })),
            1 => Ok(Self::Delete(CdqId::new((cdw11 & 0xFFFF) as u16))),
            select => Err(InvalidField::in_dword("SEL", 10, 0, u64::from(select))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::{NamespaceId, StatusCode};
    use proptest::prelude::*;

    #[test]
    fn sizes_convert_only_where_they_are_whole_slots() {
        let rows: [(&str, u32, Option<u32>); 8] = [
            ("nothing", 0, None),
            ("half a slot", 4, None),
            ("one slot", 8, None),
            ("one and a half", 12, None),
            ("two slots", 16, Some(2)),
            ("2048 slots", 16_384, Some(2048)),
            ("largest", u32::MAX - 7, Some(MAX_ENTRIES)),
            ("largest number", u32::MAX, None),
        ];
        for (name, dwords, entries) in rows {
            assert_eq!(entries_for_dwords(dwords), entries, "{name}");
            if let Some(entries) = entries {
                assert_eq!(dwords_for_entries(entries), Some(dwords), "{name}");
            }
        }
        for (name, entries) in [("none", 0), ("one", 1), ("too many", MAX_ENTRIES + 1), ("all", u32::MAX)] {
            assert_eq!(dwords_for_entries(entries), None, "{name}");
        }
    }

    #[test]
    fn create_puts_the_tracked_controller_into_the_upper_half_of_cdw11() {
        let create =
            CreateControllerDataQueue::user_data_migration(ControllerId::new(0x1234), 128, true).unwrap();
        let entry = ControllerDataQueueCommand::Create(create).encode();
        assert_eq!(entry.dwords(), [0, 0x1234_0001, 1024, 0, 0, 0]);
        assert_eq!(create.entries(), Ok(128));
        assert_eq!(create.bytes(), 4096);
    }

    #[test]
    fn create_results_round_trip_and_drop_reserved_bits() {
        let entry = CompletionQueueEntry::default().with_result(create_result(CdqId::new(0xFFFF)), 0);
        assert_eq!(created_queue(&entry), CdqId::new(0xFFFF));
        assert_eq!(created_queue(&entry.with_result(0xABCD_0007, 0)), CdqId::new(7));
    }

    #[test]
    fn decode_refuses_what_the_command_does_not_have() {
        let delete = ControllerDataQueueCommand::Delete(CdqId::new(3)).encode();
        let rows = [
            ("reserved select", delete.with_dwords([2, 0, 0, 0, 0, 0]), "SEL", 2),
            ("vendor select", delete.with_dwords([0xC0, 0, 0, 0, 0, 0]), "SEL", 0xC0),
            ("namespace", delete.with_namespace(NamespaceId::new(1)), "NSID", 1),
            ("broadcast namespace", delete.with_namespace(NamespaceId::ALL), "NSID", 0xFFFF_FFFF),
        ];
        for (name, entry, field, value) in rows {
            let error = ControllerDataQueueCommand::decode(&entry).unwrap_err();
            assert_eq!(
                (error.field, error.value, error.status),
                (field, value, StatusCode::INVALID_FIELD),
                "{name}"
            );
        }
    }

    proptest! {
        #[test]
        fn commands_round_trip(kind: u8, contiguous: bool, tracked: u16, dwords: u32, queue: u16) {
            let create = ControllerDataQueueCommand::Create(CreateControllerDataQueue {
                queue_type: QueueType::new(kind),
                contiguous,
                tracked: ControllerId::new(tracked),
                dwords,
            });
            prop_assert_eq!(ControllerDataQueueCommand::decode(&create.encode()), Ok(create));
            let delete = ControllerDataQueueCommand::Delete(CdqId::new(queue));
            prop_assert_eq!(ControllerDataQueueCommand::decode(&delete.encode()), Ok(delete));
        }

        #[test]
        fn sizes_agree_with_their_inverse(dwords: u32) {
            if let Some(entries) = entries_for_dwords(dwords) {
                prop_assert_eq!(dwords_for_entries(entries), Some(dwords));
            }
        }
    }
}

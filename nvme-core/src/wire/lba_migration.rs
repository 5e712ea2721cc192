// SPDX-License-Identifier: MIT OR Apache-2.0
//! LBA Migration Queue Entry Type 0: what a User Data Migration Queue holds for the NVM Command Set.
//! NVM Command Set 1.1 §5.6, User Data Migration Queue.

use core::fmt;

use zerocopy::byteorder::little_endian::{U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use super::{Lba, NamespaceId};

/// Byte of an entry that holds the phase tag. The controller writes it last, the host reads it first.
pub const PHASE_BYTE: usize = 31;
/// The phase tag (CDQP) inside that byte.
pub const PHASE_MASK: u8 = 1;
/// Most blocks one entry can report: NLB is a 32-bit zero-based count.
pub const MAX_BLOCKS: u64 = 1 << 32;

const DEALLOCATED: u8 = 1 << 5;

/// LBA Migration Queue Entry Type 0 as it lies in the queue: 32 bytes, little-endian, nothing checked.
#[repr(C)]
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned,
)]
pub struct LbaMigrationQueueEntry {
    nsid: U32,
    nlb_z: U32,
    slba: U64,
    reserved: [u8; 15],
    lbamqa: u8,
}
static_assertions::const_assert_eq!(size_of::<LbaMigrationQueueEntry>(), 32);
static_assertions::const_assert_eq!(core::mem::offset_of!(LbaMigrationQueueEntry, lbamqa), PHASE_BYTE);

impl LbaMigrationQueueEntry {
    /// The entry that these bytes are.
    #[must_use]
    pub fn from_bytes(bytes: &[u8; 32]) -> Self {
        zerocopy::transmute!(*bytes)
    }

    /// The bytes of the entry, in memory order.
    #[must_use]
    pub fn to_bytes(&self) -> [u8; 32] {
        zerocopy::transmute!(*self)
    }

    /// Phase tag (CDQP).
    #[must_use]
    pub const fn phase(&self) -> bool {
        self.lbamqa & PHASE_MASK != 0
    }

    /// Entry Sequence Attribute, which says where the entry stands in the log whatever else is wrong with it.
    ///
    /// # Errors
    /// [`EntryError::ReservedSequence`].
    #[inline]
    pub const fn sequence(&self) -> Result<EntrySequence, EntryError> {
        match (self.lbamqa >> 1) & 7 {
            0 => Ok(EntrySequence::Ordinary),
            1 => Ok(EntrySequence::First),
            2 => Ok(EntrySequence::LastStopped),
            3 => Ok(EntrySequence::LastSuspended),
            7 => Ok(EntrySequence::LastFull),
            reserved => Err(EntryError::ReservedSequence(reserved)),
        }
    }

    /// The entry with phase tag `phase`.
    #[must_use]
    pub const fn with_phase(mut self, phase: bool) -> Self {
        self.lbamqa = (self.lbamqa & !PHASE_MASK) | phase as u8;
        self
    }
}

/// Entry Sequence Attribute (ESA): where an entry stands in the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum EntrySequence {
    /// 000b: neither first nor last.
    Ordinary,
    /// 001b: first entry since logging started or the tracked controller resumed.
    First,
    /// 010b: last entry, the host stopped logging.
    LastStopped,
    /// 011b: last entry, the tracked controller is suspended; the log is complete.
    LastSuspended,
    /// 111b: last entry, the queue became full; later changes are lost.
    LastFull,
}

impl EntrySequence {
    const fn bits(self) -> u8 {
        match self {
            Self::Ordinary => 0,
            Self::First => 1,
            Self::LastStopped => 2,
            Self::LastSuspended => 3,
            Self::LastFull => 7,
        }
    }

    /// Whether the controller has stopped logging with this entry.
    #[must_use]
    pub const fn is_last(self) -> bool {
        matches!(self, Self::LastStopped | Self::LastSuspended | Self::LastFull)
    }
}

/// What an entry reports as changed (LBACIR, with NSID, SLBA, NLB and DLBA).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Change {
    /// 10b: nothing, the entry is only a marker.
    None,
    /// 00b: a range of blocks.
    Range {
        /// The namespace; neither 0 nor FFFFFFFFh.
        namespace: NamespaceId,
        /// First block.
        start: Lba,
        /// Number of blocks, 1 to 2^32; `start + blocks` does not overflow.
        blocks: u64,
        /// The blocks have been deallocated. When clear they were written or deallocated.
        deallocated: bool,
    },
    /// 01b: every block of a namespace.
    AllOfNamespace {
        /// The namespace; neither 0 nor FFFFFFFFh.
        namespace: NamespaceId,
    },
}

/// An entry, checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct LbaMigrationEntry {
    /// Phase tag.
    pub phase: bool,
    /// Where the entry stands in the log.
    pub sequence: EntrySequence,
    /// What it reports. A marker may carry a change too.
    pub change: Change,
}

/// Why an entry is not one, or may not be built.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EntryError {
    /// Entry Sequence Attribute 100b to 110b.
    ReservedSequence(u8),
    /// LBA Change Information 11b.
    ReservedChange,
    /// A change in namespace 0 or FFFFFFFFh.
    InvalidNamespace(NamespaceId),
    /// The range runs past the last block that can exist.
    RangeOverflow {
        /// First block.
        start: Lba,
        /// Number of blocks.
        blocks: u64,
    },
    /// No blocks or more than 2^32 (building only).
    BlockCount(u64),
    /// An ordinary entry must report a range (building only; parsing accepts it, see
    /// [`LbaMigrationEntry::is_irregular`]).
    OrdinaryWithoutRange,
}

impl fmt::Display for EntryError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::ReservedSequence(value) => write!(f, "Entry Sequence Attribute {value:#x} is reserved"),
            Self::ReservedChange => f.write_str("LBA Change Information 11b is reserved"),
            Self::InvalidNamespace(nsid) => {
                write!(f, "namespace {nsid} cannot have changed: 0x1 to 0xfffffffe can")
            }
            Self::RangeOverflow { start, blocks } => {
                write!(f, "{blocks} blocks from {start} run past the last possible block")
            }
            Self::BlockCount(blocks) => write!(f, "{blocks} blocks do not fit an entry: 1 to 2^32 do"),
            Self::OrdinaryWithoutRange => f.write_str("an ordinary entry must report a range of blocks"),
        }
    }
}

impl core::error::Error for EntryError {}

const fn check_namespace(namespace: NamespaceId) -> Result<NamespaceId, EntryError> {
    match namespace {
        NamespaceId::NONE | NamespaceId::ALL => Err(EntryError::InvalidNamespace(namespace)),
        _ => Ok(namespace),
    }
}

impl LbaMigrationEntry {
    /// A pure marker.
    #[must_use]
    pub const fn marker(sequence: EntrySequence) -> Self {
        Self { phase: false, sequence, change: Change::None }
    }

    /// An ordinary entry that reports `change`.
    #[must_use]
    pub const fn ordinary(change: Change) -> Self {
        Self { phase: false, sequence: EntrySequence::Ordinary, change }
    }

    /// Reads an entry.
    ///
    /// Fields that the entry's kind does not use (NSID, NLB and SLBA of a marker, NLB and SLBA of a whole namespace,
    /// reserved bytes) are not looked at. What only generators are forbidden is accepted and shown by
    /// [`is_irregular`](Self::is_irregular).
    ///
    /// # Errors
    /// [`EntryError`]: a reserved attribute, an impossible namespace, or a range past the end of the block space.
    /// Whatever the error, something may have changed.
    #[inline]
    pub fn parse(entry: &LbaMigrationQueueEntry) -> Result<Self, EntryError> {
        let attributes = entry.lbamqa;
        let sequence = entry.sequence()?;
        let namespace = NamespaceId::new(entry.nsid.get());
        let change = match attributes >> 6 {
            0 => {
                let start = Lba::new(entry.slba.get());
                let blocks = u64::from(entry.nlb_z.get()).saturating_add(1);
                if start.get().checked_add(blocks).is_none() {
                    return Err(EntryError::RangeOverflow { start, blocks });
                }
                Change::Range {
                    namespace: check_namespace(namespace)?,
                    start,
                    blocks,
                    deallocated: attributes & DEALLOCATED != 0,
                }
            }
            1 => Change::AllOfNamespace { namespace: check_namespace(namespace)? },
            2 => Change::None,
            _ => return Err(EntryError::ReservedChange),
        };
        Ok(Self { phase: entry.phase(), sequence, change })
    }

    /// Reads an entry from its 32 bytes.
    ///
    /// # Errors
    /// As [`parse`](Self::parse).
    #[inline]
    pub fn parse_bytes(bytes: &[u8; 32]) -> Result<Self, EntryError> {
        Self::parse(&LbaMigrationQueueEntry::from_bytes(bytes))
    }

    /// An ordinary entry without a range: forbidden to generators (LBACIR shall be 00b when ESA is 000b), yet its
    /// meaning is plain, so parsing accepts it.
    #[must_use]
    pub const fn is_irregular(&self) -> bool {
        matches!(self.sequence, EntrySequence::Ordinary) && !matches!(self.change, Change::Range { .. })
    }

    /// Builds the entry.
    ///
    /// # Errors
    /// [`EntryError`] if it breaks a rule for generators: a block count outside 1 to 2^32, a range past the end of
    /// the block space, an impossible namespace, or an ordinary entry without a range.
    pub fn build(&self) -> Result<LbaMigrationQueueEntry, EntryError> {
        if self.is_irregular() {
            return Err(EntryError::OrdinaryWithoutRange);
        }
        let mut raw = LbaMigrationQueueEntry::default();
        let change = match self.change {
            Change::Range { namespace, start, blocks, deallocated } => {
                let nlb_z = blocks
                    .checked_sub(1)
                    .and_then(|nlb| u32::try_from(nlb).ok())
                    .ok_or(EntryError::BlockCount(blocks))?;
                if start.get().checked_add(blocks).is_none() {
                    return Err(EntryError::RangeOverflow { start, blocks });
                }
                raw.nsid = U32::new(check_namespace(namespace)?.get());
                raw.nlb_z = U32::new(nlb_z);
                raw.slba = U64::new(start.get());
                if deallocated { DEALLOCATED } else { 0 }
            }
            Change::AllOfNamespace { namespace } => {
                raw.nsid = U32::new(check_namespace(namespace)?.get());
                1 << 6
            }
            Change::None => 2 << 6,
        };
        raw.lbamqa = change | (self.sequence.bits() << 1) | u8::from(self.phase);
        Ok(raw)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn range(nsid: u32, start: u64, blocks: u64, deallocated: bool) -> Change {
        Change::Range { namespace: NamespaceId::new(nsid), start: Lba::new(start), blocks, deallocated }
    }

    fn bytes(nsid: u32, nlb: u32, slba: u64, attributes: u8) -> [u8; 32] {
        let mut bytes = [0; 32];
        bytes[..4].copy_from_slice(&nsid.to_le_bytes());
        bytes[4..8].copy_from_slice(&nlb.to_le_bytes());
        bytes[8..16].copy_from_slice(&slba.to_le_bytes());
        bytes[31] = attributes;
        bytes
    }

    #[test]
    fn entries_parse_to_what_they_say() {
        use EntrySequence::{First, LastFull, LastStopped, LastSuspended, Ordinary};
        let all = Change::AllOfNamespace { namespace: NamespaceId::new(2) };
        let rows = [
            ("one block", bytes(1, 0, 5, 0x01), (true, Ordinary, range(1, 5, 1, false)), false),
            (
                "most blocks",
                bytes(1, u32::MAX, 0, 0x00),
                (false, Ordinary, range(1, 0, 1 << 32, false)),
                false,
            ),
            ("deallocated", bytes(1, 7, 8, 0x21), (true, Ordinary, range(1, 8, 8, true)), false),
            (
                "last possible block",
                bytes(1, 0, u64::MAX - 1, 1),
                (true, Ordinary, range(1, u64::MAX - 1, 1, false)),
                false,
            ),
            ("first marker", bytes(0, 0, 0, 0x83), (true, First, Change::None), false),
            ("marker with stale fields", bytes(9, 9, 9, 0x83), (true, First, Change::None), false),
            ("stopped with range", bytes(1, 0, 0, 0x05), (true, LastStopped, range(1, 0, 1, false)), false),
            ("suspended, all changed", bytes(2, 3, 4, 0x47), (true, LastSuspended, all), false),
            ("full with range", bytes(1, 1, 1, 0x0E), (false, LastFull, range(1, 1, 2, false)), false),
            ("all changed mid-stream", bytes(2, 0, 0, 0x41), (true, Ordinary, all), true),
            ("ordinary without change", bytes(0, 0, 0, 0x81), (true, Ordinary, Change::None), true),
            ("reserved bit 4 ignored", bytes(1, 0, 0, 0x11), (true, Ordinary, range(1, 0, 1, false)), false),
        ];
        for (name, raw, (phase, sequence, change), irregular) in rows {
            let entry = LbaMigrationEntry::parse_bytes(&raw);
            assert_eq!(entry, Ok(LbaMigrationEntry { phase, sequence, change }), "{name}");
            assert_eq!(entry.unwrap().is_irregular(), irregular, "{name}");
        }
    }

    #[test]
    fn hostile_entries_are_errors() {
        let rows = [
            ("reserved sequence 4", bytes(1, 0, 0, 0x09), EntryError::ReservedSequence(4)),
            ("reserved sequence 5", bytes(1, 0, 0, 0x0B), EntryError::ReservedSequence(5)),
            ("reserved sequence 6", bytes(1, 0, 0, 0x0D), EntryError::ReservedSequence(6)),
            ("reserved change", bytes(1, 0, 0, 0xC3), EntryError::ReservedChange),
            ("namespace 0", bytes(0, 0, 0, 0x01), EntryError::InvalidNamespace(NamespaceId::NONE)),
            ("all namespaces", bytes(u32::MAX, 0, 0, 0x43), EntryError::InvalidNamespace(NamespaceId::ALL)),
            (
                "range past the end",
                bytes(1, 7, u64::MAX - 3, 0x01),
                EntryError::RangeOverflow { start: Lba::new(u64::MAX - 3), blocks: 8 },
            ),
            (
                "end at 2^64",
                bytes(1, 0, u64::MAX, 0x01),
                EntryError::RangeOverflow { start: Lba::new(u64::MAX), blocks: 1 },
            ),
        ];
        for (name, raw, error) in rows {
            assert_eq!(LbaMigrationEntry::parse_bytes(&raw), Err(error), "{name}");
        }
    }

    #[test]
    fn generators_obey_the_rules() {
        let all = Change::AllOfNamespace { namespace: NamespaceId::new(1) };
        let rows = [
            (
                "whole namespace mid-stream",
                LbaMigrationEntry::ordinary(all),
                EntryError::OrdinaryWithoutRange,
            ),
            (
                "nothing mid-stream",
                LbaMigrationEntry::ordinary(Change::None),
                EntryError::OrdinaryWithoutRange,
            ),
            ("no blocks", LbaMigrationEntry::ordinary(range(1, 0, 0, false)), EntryError::BlockCount(0)),
            (
                "too many blocks",
                LbaMigrationEntry::ordinary(range(1, 0, MAX_BLOCKS + 1, false)),
                EntryError::BlockCount(MAX_BLOCKS + 1),
            ),
            (
                "past the last possible block",
                LbaMigrationEntry::ordinary(range(1, u64::MAX - 1, 2, false)),
                EntryError::RangeOverflow { start: Lba::new(u64::MAX - 1), blocks: 2 },
            ),
            (
                "namespace 0",
                LbaMigrationEntry::ordinary(range(0, 0, 1, false)),
                EntryError::InvalidNamespace(NamespaceId::NONE),
            ),
        ];
        for (name, entry, error) in rows {
            assert_eq!(entry.build(), Err(error), "{name}");
        }
    }

    #[test]
    fn phase_changes_nothing_else() {
        let raw = LbaMigrationEntry::marker(EntrySequence::LastFull).build().unwrap();
        assert!(!raw.phase());
        let flipped = raw.with_phase(true);
        assert!(flipped.phase());
        assert_eq!(flipped.to_bytes()[PHASE_BYTE], 0x8F);
        assert_eq!(flipped.with_phase(false), raw);
    }

    fn sequences() -> impl Strategy<Value = EntrySequence> {
        prop_oneof![
            Just(EntrySequence::First),
            Just(EntrySequence::LastStopped),
            Just(EntrySequence::LastSuspended),
            Just(EntrySequence::LastFull),
            Just(EntrySequence::Ordinary),
        ]
    }

    proptest! {
        #[test]
        fn any_bytes_parse_or_fail_and_what_is_regular_can_be_rebuilt(raw: [u8; 32]) {
            if let Ok(entry) = LbaMigrationEntry::parse_bytes(&raw) && !entry.is_irregular() {
                let rebuilt = entry.build().unwrap();
                prop_assert_eq!(LbaMigrationEntry::parse(&rebuilt), Ok(entry));
            }
        }

        #[test]
        fn entries_round_trip(
            phase: bool, sequence in sequences(), nsid in 1..u32::MAX, start in 0..u64::MAX - MAX_BLOCKS,
            blocks in 1..=MAX_BLOCKS, deallocated: bool,
        ) {
            let entry = LbaMigrationEntry { phase, sequence, change: range(nsid, start, blocks, deallocated) };
            prop_assert_eq!(LbaMigrationEntry::parse(&entry.build().unwrap()), Ok(entry));
        }
    }
}

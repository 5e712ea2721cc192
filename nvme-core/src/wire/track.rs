// SPDX-License-Identifier: MIT OR Apache-2.0
//! Track Send and Track Receive with their data structures. NVMe Base 2.1 §5.1.27, Track Send command, and §5.1.26,
//! Track Receive command.
//!
//! The text of the specification's memory tracking figures was not at hand. Their layouts follow a public host
//! library; the bit positions of the flags MTR and SUSP are this crate's choice. Each such item says "unconfirmed".

use core::fmt;

use zerocopy::byteorder::little_endian::{U16, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use super::command::{count_u32, zero_based_u32};
use super::{
    AdminOpcode, BusAddr, CdqId, Command, CompletionQueueEntry, ControllerId, InvalidField,
    SubmissionQueueEntry, require_no_namespace, require_prp,
};

/// Width of the action field in CDW10 bits 19:16; only 0 and 1 are assigned.
const ACTION_MASK: u32 = 0xF;
/// More To Report (MTR) in ATTRB; position unconfirmed.
const MORE_TO_REPORT: u8 = 1 << 0;
/// Target suspended during processing (SUSP) in ATTRB; position unconfirmed.
const TARGET_SUSPENDED: u8 = 1 << 1;

/// Track Send command (3Dh).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TrackSend {
    /// Log User Data Changes (SEL 0h). NVMe Base 2.1 §5.1.27.1.1.
    LogUserDataChanges {
        /// Logging Action (LACT): start or stop.
        start: bool,
        /// The User Data Migration Queue, which names the controller.
        queue: CdqId,
    },
    /// Track Memory Changes (SEL 1h), with [`TrackMemoryRanges`] as data when it starts. NVMe Base 2.1 §5.1.27.1.2.
    TrackMemoryChanges {
        /// Tracking Action (TACT): start or stop. Bit position unconfirmed.
        start: bool,
        /// The controller whose writes to host memory are tracked.
        controller: ControllerId,
    },
}

impl Command for TrackSend {
    const OPCODE: u8 = AdminOpcode::TRACK_SEND.get();

    fn encode(&self) -> SubmissionQueueEntry {
        let (select, start, cdw11) = match *self {
            Self::LogUserDataChanges { start, queue } => (0, start, queue.get()),
            Self::TrackMemoryChanges { start, controller } => (1, start, controller.get()),
        };
        SubmissionQueueEntry::new(Self::OPCODE).with_dwords([
            select | (u32::from(start) << 16),
            u32::from(cdw11),
            0,
            0,
            0,
            0,
        ])
    }

    /// # Errors
    /// Invalid Field in Command for a namespace, a data pointer other than PRP, a reserved Select or a reserved
    /// action. Reserved bits are not looked at.
    fn decode(entry: &SubmissionQueueEntry) -> Result<Self, InvalidField> {
        require_no_namespace(entry)?;
        require_prp(entry)?;
        let [cdw10, cdw11, ..] = entry.dwords();
        let operand = (cdw11 & 0xFFFF) as u16;
        let select = cdw10 & 0xFF;
        let (field, log) = match select {
            0 => ("LACT", true),
            1 => ("TACT", false),
            _ => return Err(InvalidField::in_dword("SEL", 10, 0, u64::from(select))),
        };
        let start = match (cdw10 >> 16) & ACTION_MASK {
            0 => false,
            1 => true,
            other => return Err(InvalidField::in_dword(field, 10, 16, u64::from(other))),
        };
        Ok(if log {
            Self::LogUserDataChanges { start, queue: CdqId::new(operand) }
        } else {
            Self::TrackMemoryChanges { start, controller: ControllerId::new(operand) }
        })
    }
}

/// Track Receive command (3Eh), Tracked Memory Changes (SEL 0h), with [`TrackedMemoryChanges`] as data.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TrackReceive {
    /// The tracked controller.
    pub controller: ControllerId,
    /// Dwords to read, 1 to 2^32 (zero-based in CDW12; 0 is sent as 1, more as 2^32). What is reported is forgotten
    /// by the controller.
    pub dwords: u64,
}

impl TrackReceive {
    /// Bytes of data the command asks for, at most 2^34.
    #[must_use]
    pub const fn data_bytes(&self) -> u64 {
        count_u32(zero_based_u32(self.dwords)).wrapping_mul(4)
    }
}

impl Command for TrackReceive {
    const OPCODE: u8 = AdminOpcode::TRACK_RECEIVE.get();

    fn encode(&self) -> SubmissionQueueEntry {
        SubmissionQueueEntry::new(Self::OPCODE).with_dwords([
            0,
            u32::from(self.controller.get()),
            zero_based_u32(self.dwords),
            0,
            0,
            0,
        ])
    }

    /// # Errors
    /// Invalid Field in Command for a namespace, a data pointer other than PRP, or a reserved Select. Reserved bits
    /// are not looked at.
    fn decode(entry: &SubmissionQueueEntry) -> Result<Self, InvalidField> {
        require_no_namespace(entry)?;
        require_prp(entry)?;
        let [cdw10, cdw11, cdw12, ..] = entry.dwords();
        if cdw10 & 0xFF != 0 {
            return Err(InvalidField::in_dword("SEL", 10, 0, u64::from(cdw10 & 0xFF)));
        }
        Ok(Self { controller: ControllerId::new((cdw11 & 0xFFFF) as u16), dwords: count_u32(cdw12) })
    }
}

/// Granularity of memory tracking: 2^n times 4 KiB, n from 0 to 51.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MemoryGranularity(u8);

impl MemoryGranularity {
    /// 2^`exponent` times 4 KiB; `None` if that is not less than 2^64 bytes.
    #[must_use]
    pub const fn new(exponent: u8) -> Option<Self> {
        if exponent <= 51 { Some(Self(exponent)) } else { None }
    }

    /// The exponent n.
    #[must_use]
    pub const fn exponent(self) -> u8 {
        self.0
    }

    /// Bytes of one granule.
    #[must_use]
    pub const fn bytes(self) -> u64 {
        4096_u64.wrapping_shl(self.0 as u32)
    }
}

/// A range of host memory in granules.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct MemoryRange {
    /// First byte, aligned to the granularity; an address as the target's PRPs and SGLs use it.
    pub start: BusAddr,
    /// Number of granules, at least 1.
    pub granules: u32,
}

impl MemoryRange {
    /// Bytes of the range; `None` if it is empty, unaligned or runs past the end of the address space.
    #[must_use]
    pub fn bytes(&self, granularity: MemoryGranularity) -> Option<u64> {
        let bytes = u64::from(self.granules).checked_mul(granularity.bytes())?;
        let last = self.start.get().checked_add(bytes.checked_sub(1)?)?;
        (self.start.page_offset(granularity.bytes()) == 0 && last >= self.start.get()).then_some(bytes)
    }
}

/// Why a memory tracking structure is not one, or could not be built.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TrackError {
    /// Fewer bytes than the header and its descriptors need.
    Short {
        /// Bytes needed.
        needed: u64,
        /// Bytes there.
        found: usize,
    },
    /// A structure version other than 0.
    Version(u8),
    /// A granularity exponent above 51.
    Granularity(u16),
    /// A range that is empty, unaligned or runs past the end of the address space, or, where lengths must be powers of
    /// two, one that is not.
    Range(MemoryRange),
    /// More To Report without any change: a host that believed it would ask forever.
    MoreWithoutChanges,
    /// More descriptors than a 32-bit count holds.
    TooMany(usize),
}

impl fmt::Display for TrackError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Short { needed, found } => write!(f, "{found} bytes are too few: {needed} are needed"),
            Self::Version(version) => write!(f, "structure version {version} is unknown: only 0 is defined"),
            Self::Granularity(exponent) => {
                write!(
                    f,
                    "granularity 2^{exponent} x 4 KiB exceeds the address space: choose an exponent up to 51"
                )
            }
            Self::Range(range) => {
                write!(
                    f,
                    "{} granules from {} are no legal range: align it, and end inside the address space",
                    range.granules, range.start
                )
            }
            Self::MoreWithoutChanges => f.write_str("more changes are announced but none reported"),
            Self::TooMany(count) => {
                write!(f, "{count} descriptors do not fit a 32-bit count: give at most 4294967295")
            }
        }
    }
}

impl core::error::Error for TrackError {}

/// Header of the Track Memory Changes data structure: 8 bytes. Layout unconfirmed.
#[repr(C)]
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned,
)]
pub struct TrackMemoryHeader {
    ver: u8,
    reserved: [u8; 2],
    rmrtg: u8,
    rnmrtd: U32,
}
static_assertions::const_assert_eq!(size_of::<TrackMemoryHeader>(), 8);

impl TrackMemoryHeader {
    /// Bytes of the whole structure, descriptors included: what to read after the header, since the command has no
    /// length field. At most 2^32 * 12 + 8; compare it with the controller's limits first.
    #[must_use]
    pub const fn total_bytes(&self) -> u64 {
        (self.rnmrtd.get() as u64).wrapping_mul(12).wrapping_add(8)
    }

    /// Number of descriptors (RNMRTD), not zero-based.
    #[must_use]
    pub const fn count(&self) -> u32 {
        self.rnmrtd.get()
    }

    /// Requested granularity (RMRTG).
    ///
    /// # Errors
    /// A version other than 0, or an exponent above 51.
    pub const fn granularity(&self) -> Result<MemoryGranularity, TrackError> {
        if self.ver != 0 {
            return Err(TrackError::Version(self.ver));
        }
        match MemoryGranularity::new(self.rmrtg) {
            Some(granularity) => Ok(granularity),
            None => Err(TrackError::Granularity(self.rmrtg as u16)),
        }
    }
}

/// Memory Range Tracking Descriptor: 12 bytes. Layout unconfirmed.
#[repr(C)]
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned,
)]
struct RangeDescriptor {
    saddr: U64,
    len: U32,
}
static_assertions::const_assert_eq!(size_of::<RangeDescriptor>(), 12);

/// Tracked Memory Change descriptor: 16 bytes. Layout unconfirmed.
#[repr(C)]
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned,
)]
struct ChangeDescriptor {
    saddr: U64,
    len: U32,
    reserved: U32,
}
static_assertions::const_assert_eq!(size_of::<ChangeDescriptor>(), 16);

/// Header of the Tracked Memory Changes data structure: 16 bytes. Layout unconfirmed.
#[repr(C)]
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned,
)]
struct ChangesHeader {
    ver: u8,
    attrb: u8,
    cntlid: U16,
    ntmcd: U32,
    rpmpg: U16,
    reserved: [u8; 6],
}
static_assertions::const_assert_eq!(size_of::<ChangesHeader>(), 16);

fn count_of(len: usize) -> Result<u32, TrackError> {
    u32::try_from(len).map_err(|_| TrackError::TooMany(len))
}

/// Data of a Track Memory Changes command that starts tracking: the ranges to watch.
#[derive(Clone, Copy, Debug)]
pub struct TrackMemoryRanges<'a> {
    granularity: MemoryGranularity,
    descriptors: &'a [RangeDescriptor],
}

impl<'a> TrackMemoryRanges<'a> {
    /// Reads the structure; bytes behind the last descriptor are ignored.
    ///
    /// # Errors
    /// Too few bytes, an unknown version, an impossible granularity, or an illegal range. With `power_of_two`
    /// (TRATTR.MRTLL) each length must also be a power of two. The work is bounded by the bytes given.
    pub fn parse(bytes: &'a [u8], power_of_two: bool) -> Result<Self, TrackError> {
        let (header, rest) = TrackMemoryHeader::read_from_prefix(bytes)
            .map_err(|_| TrackError::Short { needed: 8, found: bytes.len() })?;
        let granularity = header.granularity()?;
        let short = TrackError::Short { needed: header.total_bytes(), found: bytes.len() };
        let count = usize::try_from(header.count()).map_err(|_| short)?;
        let (descriptors, _) =
            <[RangeDescriptor]>::ref_from_prefix_with_elems(rest, count).map_err(|_| short)?;
        let ranges = Self { granularity, descriptors };
        for range in ranges.iter() {
            if range.bytes(granularity).is_none() || (power_of_two && !range.granules.is_power_of_two()) {
                return Err(TrackError::Range(range));
            }
        }
        Ok(ranges)
    }

    /// Writes the structure and returns its length in bytes.
    ///
    /// # Errors
    /// The buffer is too short, or a range is empty, unaligned or past the end of the address space.
    pub fn build(
        buffer: &mut [u8],
        granularity: MemoryGranularity,
        ranges: &[MemoryRange],
    ) -> Result<usize, TrackError> {
        let found = buffer.len();
        let rnmrtd = U32::new(count_of(ranges.len())?);
        let header = TrackMemoryHeader { ver: 0, reserved: [0; 2], rmrtg: granularity.exponent(), rnmrtd };
        let short = TrackError::Short { needed: header.total_bytes(), found };
        let total = usize::try_from(header.total_bytes()).map_err(|_| short)?;
        let (head, body) = buffer.get_mut(..total).and_then(|b| b.split_at_mut_checked(8)).ok_or(short)?;
        for range in ranges {
            if range.bytes(granularity).is_none() {
                return Err(TrackError::Range(*range));
            }
        }
        header.write_to(head).map_err(|_| short)?;
        for (chunk, range) in body.chunks_exact_mut(12).zip(ranges) {
            let descriptor =
                RangeDescriptor { saddr: U64::new(range.start.get()), len: U32::new(range.granules) };
            descriptor.write_to(chunk).map_err(|_| short)?;
        }
        Ok(total)
    }

    /// Requested granularity (RMRTG).
    #[must_use]
    pub const fn granularity(&self) -> MemoryGranularity {
        self.granularity
    }

    /// The ranges in order.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = MemoryRange> + 'a {
        self.descriptors
            .iter()
            .map(|d| MemoryRange { start: BusAddr::new(d.saddr.get()), granules: d.len.get() })
    }
}

/// What the completion of Track Memory Changes says the controller can do. Widths unconfirmed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TrackMemoryResult {
    /// Granularity exponent (MRTG, DW0 bits 7:0).
    pub granularity: u8,
    /// Descriptors the controller can support (DW1).
    pub descriptors: u32,
}

impl TrackMemoryResult {
    /// Reads completion dwords 0 and 1.
    #[must_use]
    pub const fn from_completion(entry: &CompletionQueueEntry) -> Self {
        Self { granularity: (entry.dw0() & 0xFF) as u8, descriptors: entry.dw1() }
    }

    /// Completion dwords 0 and 1.
    #[must_use]
    pub const fn result(&self) -> (u32, u32) {
        (self.granularity as u32, self.descriptors)
    }
}

/// Data of Track Receive: host memory that the tracked controller wrote.
#[derive(Clone, Copy, Debug)]
pub struct TrackedMemoryChanges<'a> {
    controller: ControllerId,
    granularity: MemoryGranularity,
    more: bool,
    suspended: bool,
    descriptors: &'a [ChangeDescriptor],
}

impl<'a> TrackedMemoryChanges<'a> {
    /// Bytes of the structure without descriptors.
    pub const HEADER_BYTES: usize = 16;
    /// Bytes of one descriptor.
    pub const DESCRIPTOR_BYTES: usize = 16;

    /// Reads the structure; bytes behind the last descriptor are ignored.
    ///
    /// # Errors
    /// Too few bytes, an unknown version, an impossible granularity, an illegal range, or More To Report without any
    /// change. The work is bounded by the bytes given.
    pub fn parse(bytes: &'a [u8]) -> Result<Self, TrackError> {
        let (header, rest) = ChangesHeader::read_from_prefix(bytes)
            .map_err(|_| TrackError::Short { needed: 16, found: bytes.len() })?;
        if header.ver != 0 {
            return Err(TrackError::Version(header.ver));
        }
        let exponent = header.rpmpg.get();
        let granularity = u8::try_from(exponent)
            .ok()
            .and_then(MemoryGranularity::new)
            .ok_or(TrackError::Granularity(exponent))?;
        let needed = u64::from(header.ntmcd.get()).saturating_mul(16).saturating_add(16);
        let short = TrackError::Short { needed, found: bytes.len() };
        let count = usize::try_from(header.ntmcd.get()).map_err(|_| short)?;
        let (descriptors, _) =
            <[ChangeDescriptor]>::ref_from_prefix_with_elems(rest, count).map_err(|_| short)?;
        let more = header.attrb & MORE_TO_REPORT != 0;
        if more && count == 0 {
            return Err(TrackError::MoreWithoutChanges);
        }
        let changes = Self {
            controller: ControllerId::new(header.cntlid.get()),
            granularity,
            more,
            suspended: header.attrb & TARGET_SUSPENDED != 0,
            descriptors,
        };
        match changes.iter().find(|range| range.bytes(granularity).is_none()) {
            Some(range) => Err(TrackError::Range(range)),
            None => Ok(changes),
        }
    }

    /// The tracked controller.
    #[must_use]
    pub const fn controller(&self) -> ControllerId {
        self.controller
    }

    /// Reported granularity (RPMPG), read as an exponent like the requested one; unconfirmed.
    #[must_use]
    pub const fn granularity(&self) -> MemoryGranularity {
        self.granularity
    }

    /// More To Report (MTR): ask again.
    #[must_use]
    pub const fn more(&self) -> bool {
        self.more
    }

    /// The target was suspended while the command was processed (SUSP).
    #[must_use]
    pub const fn suspended(&self) -> bool {
        self.suspended
    }

    /// Nothing further will change until the target resumes.
    #[must_use]
    pub const fn is_final(&self) -> bool {
        self.suspended && !self.more
    }

    /// The changed ranges in order.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = MemoryRange> + 'a {
        self.descriptors
            .iter()
            .map(|d| MemoryRange { start: BusAddr::new(d.saddr.get()), granules: d.len.get() })
    }
}

/// Writes Tracked Memory Changes into lent memory, one change at a time.
#[derive(Debug)]
pub struct TrackedMemoryBuilder<'a> {
    header: ChangesHeader,
    head: &'a mut [u8],
    body: &'a mut [u8],
    granularity: MemoryGranularity,
    count: u32,
}

impl<'a> TrackedMemoryBuilder<'a> {
    /// Starts a report about `controller`.
    ///
    /// # Errors
    /// The buffer does not hold the header.
    pub fn new(
        buffer: &'a mut [u8],
        controller: ControllerId,
        granularity: MemoryGranularity,
    ) -> Result<Self, TrackError> {
        let found = buffer.len();
        let (head, body) = buffer.split_at_mut_checked(16).ok_or(TrackError::Short { needed: 16, found })?;
        let header = ChangesHeader {
            cntlid: U16::new(controller.get()),
            rpmpg: U16::new(u16::from(granularity.exponent())),
            ..ChangesHeader::default()
        };
        Ok(Self { header, head, body, granularity, count: 0 })
    }

    /// Adds one changed range; `false`, and nothing added, if it does not fit any more.
    ///
    /// # Errors
    /// The range is empty, unaligned or past the end of the address space.
    pub fn push(&mut self, range: MemoryRange) -> Result<bool, TrackError> {
        if range.bytes(self.granularity).is_none() {
            return Err(TrackError::Range(range));
        }
        let Some(next) = self.count.checked_add(1) else { return Ok(false) };
        let index = usize::try_from(self.count).unwrap_or(usize::MAX);
        let Some(chunk) = self.body.chunks_exact_mut(16).nth(index) else { return Ok(false) };
        let descriptor = ChangeDescriptor {
            saddr: U64::new(range.start.get()),
            len: U32::new(range.granules),
            reserved: U32::ZERO,
        };
        if descriptor.write_to(chunk).is_err() {
            return Ok(false);
        }
        self.count = next;
        Ok(true)
    }

    /// Writes the header and returns the length of the structure in bytes. `more` is left clear when nothing was
    /// added, as a report without changes announces none.
    #[must_use]
    pub fn finish(mut self, more: bool, suspended: bool) -> usize {
        if more && self.count != 0 {
            self.header.attrb |= MORE_TO_REPORT;
        }
        if suspended {
            self.header.attrb |= TARGET_SUSPENDED;
        }
        self.header.ntmcd = U32::new(self.count);
        for (to, from) in self.head.iter_mut().zip(self.header.as_bytes()) {
            *to = *from;
        }
        usize::try_from(self.count).unwrap_or(usize::MAX).saturating_mul(16).saturating_add(16)
    }
}

#[cfg(test)]
#[path = "track_tests.rs"]
mod tests;

// SPDX-License-Identifier: MIT OR Apache-2.0
//! What every command type has in common: encode for hosts, decode for controllers.

use core::fmt;

use super::{DataPointerKind, NamespaceId, Status, StatusCode, SubmissionQueueEntry};

/// One command, apart from its command identifier and its data pointer.
///
/// Values are natural: counts are counts, never zero-based; illegal values cannot be built or are refused by
/// [`decode`](Self::decode). The command identifier is given by the tracker and the data pointer by the PRP builder.
pub trait Command: Sized {
    /// Opcode (CDW0 bits 7:0).
    const OPCODE: u8;

    /// The submission queue entry, command identifier and data pointer left zero.
    fn encode(&self) -> SubmissionQueueEntry;

    /// Reads the command out of an entry whose opcode is [`OPCODE`](Self::OPCODE).
    ///
    /// # Errors
    /// [`InvalidField`] naming the first field that holds a reserved or illegal value.
    fn decode(entry: &SubmissionQueueEntry) -> Result<Self, InvalidField>;
}

/// A field of a command or structure holds a value the specification reserves or forbids.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InvalidField {
    /// Name of the field as the specification spells it, for example `"SEL"`.
    pub field: &'static str,
    /// Byte offset of the field in the entry or structure.
    pub byte: u32,
    /// Lowest bit of the field in that byte, 0 to 7.
    pub bit: u8,
    /// The value found.
    pub value: u64,
    /// The status that a controller answers with.
    pub status: StatusCode,
}

impl InvalidField {
    /// `field` at bit `bit` of dword `dword` holds `value`; answered with Invalid Field in Command.
    #[must_use]
    pub const fn in_dword(field: &'static str, dword: u8, bit: u8, value: u64) -> Self {
        Self {
            field,
            byte: (dword as u32).wrapping_mul(4).wrapping_add((bit / 8) as u32),
            bit: bit % 8,
            value,
            status: StatusCode::INVALID_FIELD,
        }
    }

    /// `field` at byte `byte` of a data structure holds `value`; answered with Invalid Field in Command.
    #[must_use]
    pub const fn in_data(field: &'static str, byte: u32, value: u64) -> Self {
        Self { field, byte, bit: 0, value, status: StatusCode::INVALID_FIELD }
    }

    /// The same finding, answered with another status.
    #[must_use]
    pub const fn with_status(mut self, status: StatusCode) -> Self {
        self.status = status;
        self
    }
}

impl From<InvalidField> for Status {
    fn from(invalid: InvalidField) -> Self {
        invalid.status.status()
    }
}

impl fmt::Display for InvalidField {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "field {} at byte {} bit {} holds {:#x}, which is reserved or out of range",
            self.field, self.byte, self.bit, self.value
        )
    }
}

impl core::error::Error for InvalidField {}

/// A data structure does not fit into the bytes that are there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TooShort {
    /// Name of the structure.
    pub structure: &'static str,
    /// Bytes needed.
    pub needed: usize,
    /// Bytes given.
    pub given: usize,
}

impl fmt::Display for TooShort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} needs {} bytes, only {} are there", self.structure, self.needed, self.given)
    }
}

impl core::error::Error for TooShort {}

/// Checks that a command which uses no namespace names none. NVMe Base 2.1 §3.2.1.5.
///
/// # Errors
/// [`InvalidField`] (Invalid Field in Command) if NSID is not zero.
pub const fn require_no_namespace(entry: &SubmissionQueueEntry) -> Result<(), InvalidField> {
    match entry.namespace() {
        NamespaceId::NONE => Ok(()),
        other => Err(InvalidField::in_dword("NSID", 1, 0, other.get() as u64)),
    }
}

/// Checks that the data pointer holds PRPs, as every admin command over PCIe does. NVMe Base 2.1 §4.1.
///
/// # Errors
/// [`InvalidField`] (Invalid Field in Command) if PSDT names an SGL or is reserved.
pub const fn require_prp(entry: &SubmissionQueueEntry) -> Result<(), InvalidField> {
    let value = match entry.data_pointer_kind() {
        DataPointerKind::Prp => return Ok(()),
        DataPointerKind::SglMetadataAddress => 1,
        DataPointerKind::SglMetadataSgl => 2,
        DataPointerKind::Reserved => 3,
    };
    Err(InvalidField::in_dword("PSDT", 0, 14, value))
}

/// A count as a 16-bit zero-based field: 0 becomes the least and more than 65,536 the largest expressible count.
pub(crate) const fn zero_based_u16(count: u32) -> u32 {
    let zero_based = count.saturating_sub(1);
    if zero_based > 0xFFFF { 0xFFFF } else { zero_based }
}

/// A count as a 32-bit zero-based field: 0 becomes the least and more than 2^32 the largest expressible count.
pub(crate) const fn zero_based_u32(count: u64) -> u32 {
    let zero_based = count.saturating_sub(1);
    if zero_based > u32::MAX as u64 { u32::MAX } else { zero_based as u32 }
}

/// The count that a 16-bit zero-based field holds; bits 31:16 of `field_z` are dropped.
pub(crate) const fn count_u16(field_z: u32) -> u32 {
    (field_z & 0xFFFF).wrapping_add(1)
}

/// The count that a 32-bit zero-based field holds.
pub(crate) const fn count_u32(field_z: u32) -> u64 {
    (field_z as u64).wrapping_add(1)
}

/// The lower and the upper half of a 64-bit number that spans two dwords.
pub(crate) const fn split_u64(value: u64) -> (u32, u32) {
    ((value & 0xFFFF_FFFF) as u32, (value >> 32) as u32)
}

/// The 64-bit number whose lower half stands in the first of two dwords.
pub(crate) const fn join_u64(low: u32, high: u32) -> u64 {
    low as u64 | ((high as u64) << 32)
}

/// Bits 15:0 of a dword.
pub(crate) const fn low_u16(dword: u32) -> u16 {
    (dword & 0xFFFF) as u16
}

/// Bits 31:16 of a dword.
pub(crate) const fn high_u16(dword: u32) -> u16 {
    (dword >> 16) as u16
}

/// Bits `shift + 7` to `shift` of a dword.
pub(crate) const fn byte_at(dword: u32, shift: u32) -> u8 {
    (dword.wrapping_shr(shift) & 0xFF) as u8
}

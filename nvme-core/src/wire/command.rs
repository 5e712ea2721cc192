// SPDX-License-Identifier: MIT OR Apache-2.0
//! What every command type has in common: encode for hosts, decode for controllers.

use core::fmt;

use super::{Status, StatusCode, SubmissionQueueEntry};

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

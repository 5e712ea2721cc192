// SPDX-License-Identifier: MIT OR Apache-2.0
//! Error Information (01h). NVMe Base 2.1 §5.1.12.1.2.

use zerocopy::byteorder::little_endian::{U16, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use crate::wire::{CommandId, Lba, NamespaceId, QueueId, Status};

/// One entry as it stands in memory: 64 bytes. The page is a list of them, newest first.
#[repr(C)]
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned,
)]
pub struct ErrorInformationEntry {
    count: U64,
    sqid: U16,
    cid: U16,
    status_phase: U16,
    location: U16,
    lba: U64,
    nsid: U32,
    vendor_log: u8,
    transport: u8,
    command_set: u8,
    opcode: u8,
    command_specific: U64,
    transport_specific: U16,
    reserved42: [u8; 21],
    log_version: u8,
}
static_assertions::const_assert_eq!(size_of::<ErrorInformationEntry>(), 64);

/// Which field of the command an error is about: a byte of the entry and a bit in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ParameterLocation {
    /// Byte of the submission queue entry.
    pub byte: u8,
    /// Bit in that byte, 0 to 7; higher bits are dropped when encoded.
    pub bit: u8,
}

/// One error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ErrorInformation {
    /// Number of the error: counts up from 1 over the life of the controller.
    pub count: u64,
    /// Submission queue of the command, `None` if the error is not about one (`FFFFh`).
    pub queue: Option<QueueId>,
    /// The command, `None` if the error is not about one (`FFFFh`).
    pub command: Option<CommandId>,
    /// The status the command completed with.
    pub status: Status,
    /// The phase tag beside the status; controllers may leave it clear.
    pub phase: bool,
    /// The field of the command the error is about, `None` if there is none (`FFFFh`).
    pub location: Option<ParameterLocation>,
    /// First block with the error.
    pub lba: Lba,
    /// The namespace.
    pub namespace: NamespaceId,
    /// Vendor specific log page with more, 0 for none.
    pub vendor_log: u8,
    /// Transport Type (TRTYPE), 0 if not stated.
    pub transport: u8,
    /// Command Set Indicator (CSI).
    pub command_set: u8,
    /// Opcode of the command.
    pub opcode: u8,
    /// Command specific information.
    pub command_specific: u64,
}

impl ErrorInformationEntry {
    /// The error in this entry; `None` if the entry is not in use (count 0).
    #[must_use]
    pub fn error(&self) -> Option<ErrorInformation> {
        if self.count.get() == 0 {
            return None;
        }
        let given = |value: U16| Some(value.get()).filter(|value| *value != 0xFFFF);
        let status_phase = self.status_phase.get();
        Some(ErrorInformation {
            count: self.count.get(),
            queue: given(self.sqid).map(QueueId::new),
            command: given(self.cid).map(CommandId::new),
            status: Status::from_bits(status_phase >> 1),
            phase: status_phase & 1 != 0,
            location: given(self.location).map(|location| ParameterLocation {
                byte: (location & 0xFF) as u8,
                bit: ((location >> 8) & 7) as u8,
            }),
            lba: Lba::new(self.lba.get()),
            namespace: NamespaceId::new(self.nsid.get()),
            vendor_log: self.vendor_log,
            transport: self.transport,
            command_set: self.command_set,
            opcode: self.opcode,
            command_specific: self.command_specific.get(),
        })
    }
}

impl From<ErrorInformation> for ErrorInformationEntry {
    fn from(error: ErrorInformation) -> Self {
        let location = error
            .location
            .map_or(0xFFFF, |location| u16::from(location.byte) | (u16::from(location.bit & 7) << 8));
        Self {
            count: U64::new(error.count),
            sqid: U16::new(error.queue.map_or(0xFFFF, QueueId::get)),
            cid: U16::new(error.command.map_or(0xFFFF, CommandId::get)),
            status_phase: U16::new((error.status.bits() << 1) | u16::from(error.phase)),
            location: U16::new(location),
            lba: U64::new(error.lba.get()),
            nsid: U32::new(error.namespace.get()),
            vendor_log: error.vendor_log,
            transport: error.transport,
            command_set: error.command_set,
            opcode: error.opcode,
            command_specific: U64::new(error.command_specific),
            ..Self::default()
        }
    }
}

// SPDX-License-Identifier: MIT OR Apache-2.0
//! What becomes of a command that was begun.

use nvme_core::wire::{InvalidField, Lba, Status, StatusCode};

/// A command that was begun and not refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Done {
    /// It succeeded, with these completion dwords.
    Result(u32, u32),
    /// It goes on; ask again.
    Waiting,
    /// It stays outstanding outside the table of commands (Asynchronous Event Request).
    Outstanding,
    /// A fault rule has dealt with it: there is nothing to complete.
    Dealt,
}

/// A command that is completed with an error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Refusal {
    pub(crate) status: Status,
    pub(crate) result: (u32, u32),
    /// Byte (bits 7:0) and bit (bits 10:8) of the field at fault, FFFFh if it is not about a field.
    pub(crate) location: u16,
    /// The block at fault.
    pub(crate) lba: Lba,
}

pub(crate) type Outcome = Result<Done, Refusal>;

/// Success without a result.
pub(crate) const SUCCESS: Outcome = Ok(Done::Result(0, 0));

impl Refusal {
    pub(crate) const fn with_result(mut self, dw0: u32, dw1: u32) -> Self {
        self.result = (dw0, dw1);
        self
    }

    pub(crate) const fn at(mut self, lba: Lba) -> Self {
        self.lba = lba;
        self
    }
}

/// Errors that may pass when the same command is sent again; the others carry Do Not Retry.
const fn may_pass(code: StatusCode) -> bool {
    matches!(
        code,
        StatusCode::DATA_TRANSFER_ERROR
            | StatusCode::INTERNAL_ERROR
            | StatusCode::COMMAND_ID_CONFLICT
            | StatusCode::ABORT_REQUESTED
            | StatusCode::ABORTED_SQ_DELETION
            | StatusCode::ABORTED_POWER_LOSS
            | StatusCode::ABORTED_FAILED_FUSED
            | StatusCode::ABORT_LIMIT_EXCEEDED
            | StatusCode::AER_LIMIT_EXCEEDED
            | StatusCode::COMMAND_SEQUENCE_ERROR
            | StatusCode::NOT_ENOUGH_RESOURCES
            | StatusCode::CONTROLLER_SUSPENDED
            | StatusCode::CONTROLLER_NOT_SUSPENDED
            | StatusCode::CDQ_FULL
            | StatusCode::WRITE_FAULT
            | StatusCode::UNRECOVERED_READ_ERROR
            | StatusCode::CAPACITY_EXCEEDED
    )
}

impl From<Status> for Refusal {
    fn from(status: Status) -> Self {
        Self { status, result: (0, 0), location: 0xFFFF, lba: Lba::new(0) }
    }
}

impl From<StatusCode> for Refusal {
    fn from(code: StatusCode) -> Self {
        if may_pass(code) { code.status().into() } else { code.status().with_do_not_retry().into() }
    }
}

impl From<InvalidField> for Refusal {
    fn from(field: InvalidField) -> Self {
        let byte = u16::try_from(field.byte).unwrap_or(0xFF).min(0xFF);
        Self { location: byte | (u16::from(field.bit) << 8), ..Self::from(field.status) }
    }
}

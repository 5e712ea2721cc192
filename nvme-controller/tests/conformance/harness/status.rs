// SPDX-License-Identifier: MIT OR Apache-2.0
//! Status codes as the tables of the specification print them.

use std::fmt;

/// Status Code Type and Status Code.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct Code(pub(crate) u8, pub(crate) u8);

impl fmt::Debug for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{:02X}h", self.0, self.1)
    }
}

pub(crate) const SUCCESS: Code = Code(0, 0x00);
pub(crate) const INVALID_OPCODE: Code = Code(0, 0x01);
pub(crate) const INVALID_FIELD: Code = Code(0, 0x02);
pub(crate) const COMMAND_ID_CONFLICT: Code = Code(0, 0x03);
pub(crate) const DATA_TRANSFER_ERROR: Code = Code(0, 0x04);
pub(crate) const ABORT_REQUESTED: Code = Code(0, 0x07);
pub(crate) const ABORTED_SQ_DELETION: Code = Code(0, 0x08);
pub(crate) const ABORTED_FAILED_FUSED: Code = Code(0, 0x09);
pub(crate) const ABORTED_MISSING_FUSED: Code = Code(0, 0x0A);
pub(crate) const INVALID_NAMESPACE: Code = Code(0, 0x0B);
pub(crate) const SEQUENCE_ERROR: Code = Code(0, 0x0C);
pub(crate) const PRP_OFFSET: Code = Code(0, 0x13);
pub(crate) const WRITE_PROTECTED: Code = Code(0, 0x20);
pub(crate) const LBA_OUT_OF_RANGE: Code = Code(0, 0x80);
pub(crate) const CAPACITY_EXCEEDED: Code = Code(0, 0x81);
pub(crate) const COMPLETION_QUEUE_INVALID: Code = Code(1, 0x00);
pub(crate) const INVALID_QUEUE_ID: Code = Code(1, 0x01);
pub(crate) const INVALID_QUEUE_SIZE: Code = Code(1, 0x02);
pub(crate) const ABORT_LIMIT: Code = Code(1, 0x03);
pub(crate) const EVENT_REQUEST_LIMIT: Code = Code(1, 0x05);
pub(crate) const INVALID_VECTOR: Code = Code(1, 0x08);
pub(crate) const INVALID_LOG_PAGE: Code = Code(1, 0x09);
pub(crate) const INVALID_QUEUE_DELETION: Code = Code(1, 0x0C);
pub(crate) const NOT_SAVEABLE: Code = Code(1, 0x0D);
pub(crate) const NOT_CHANGEABLE: Code = Code(1, 0x0E);
pub(crate) const NOT_NAMESPACE_SPECIFIC: Code = Code(1, 0x0F);
pub(crate) const INVALID_CONTROLLER: Code = Code(1, 0x1F);
pub(crate) const COMBINATION_REJECTED: Code = Code(1, 0x2B);
pub(crate) const INVALID_COMMAND_SET: Code = Code(1, 0x2C);
pub(crate) const INVALID_CDQ: Code = Code(1, 0x37);
pub(crate) const NOT_ENOUGH_RESOURCES: Code = Code(1, 0x38);
pub(crate) const SUSPENDED: Code = Code(1, 0x39);
pub(crate) const NOT_SUSPENDED: Code = Code(1, 0x3A);
pub(crate) const CDQ_FULL: Code = Code(1, 0x3B);
pub(crate) const INVALID_PROTECTION: Code = Code(1, 0x81);
pub(crate) const SIZE_LIMIT_EXCEEDED: Code = Code(1, 0x83);
pub(crate) const OVERLAPPING_IO_RANGE: Code = Code(1, 0x87);
pub(crate) const WRITE_FAULT: Code = Code(2, 0x80);
pub(crate) const UNRECOVERED_READ: Code = Code(2, 0x81);
pub(crate) const COMPARE_FAILURE: Code = Code(2, 0x85);

// SPDX-License-Identifier: MIT OR Apache-2.0
//! What a status says about the effect of its command, for devices that choose it freely. Read from the specification on
//! its own, so that a driver that reads it otherwise is caught. NVMe Base 2.1 §4.2.3, Status Field Definition.

use nvme_core::wire::{Status, StatusCode};

use crate::Input;

/// Errors that are found before a command changes anything.
const REFUSALS: &[StatusCode] = &[
    StatusCode::INVALID_COMMAND_OPCODE,
    StatusCode::INVALID_FIELD,
    StatusCode::INVALID_NAMESPACE,
    StatusCode::COMMAND_SEQUENCE_ERROR,
    StatusCode::PRP_OFFSET_INVALID,
    StatusCode::OPERATION_DENIED,
    StatusCode::PROHIBITED_BY_LOCKDOWN,
    StatusCode::COMPLETION_QUEUE_INVALID,
    StatusCode::INVALID_QUEUE_IDENTIFIER,
    StatusCode::INVALID_QUEUE_SIZE,
    StatusCode::ABORT_LIMIT_EXCEEDED,
    StatusCode::AER_LIMIT_EXCEEDED,
    StatusCode::INVALID_INTERRUPT_VECTOR,
    StatusCode::INVALID_LOG_PAGE,
    StatusCode::INVALID_QUEUE_DELETION,
    StatusCode::FEATURE_NOT_SAVEABLE,
    StatusCode::FEATURE_NOT_CHANGEABLE,
    StatusCode::FEATURE_NOT_NAMESPACE_SPECIFIC,
    StatusCode::OVERLAPPING_RANGE,
    StatusCode::INVALID_CONTROLLER_IDENTIFIER,
    StatusCode::IO_COMMAND_SET_COMBINATION_REJECTED,
    StatusCode::INVALID_IO_COMMAND_SET,
    StatusCode::INVALID_CDQ,
    StatusCode::NOT_ENOUGH_RESOURCES,
    StatusCode::CONTROLLER_SUSPENDED,
    StatusCode::CONTROLLER_NOT_SUSPENDED,
    StatusCode::CDQ_FULL,
];

/// A status, and whether the command takes effect.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Verdict {
    pub(crate) status: Status,
    pub(crate) takes_effect: bool,
}

impl Verdict {
    pub(crate) const SUCCESS: Self = Self { status: Status::SUCCESS, takes_effect: true };

    /// The status that two bytes are. Where it leaves the effect open, a third one decides.
    pub(crate) fn choose(input: &mut Input<'_>) -> Self {
        let [low, high] = input.array();
        // Half of them of types 0 and 1 with any of the other bits.
        let high = if low & 1 == 0 { high & 0x79 } else { high };
        let status = Status::from_bits(u16::from_le_bytes([low, high]));
        let bare = status.bits() & 0x7FF;
        let takes_effect = if bare == 0 && !status.do_not_retry() {
            // More and Command Retry Delay change nothing.
            true
        } else if bare != 0 && REFUSALS.contains(&status.code()) {
            false
        } else {
            input.below(2) == 0
        };
        Self { status, takes_effect }
    }
}

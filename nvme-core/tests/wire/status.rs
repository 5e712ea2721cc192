// SPDX-License-Identifier: MIT OR Apache-2.0
//! Status codes and completion queue entries.

use std::collections::BTreeSet;

use nvme_core::wire::{CommandId, CompletionQueueEntry, Effect, QueueId, Status, StatusCode};
use zerocopy::IntoBytes as _;

#[test]
fn exactly_the_codes_of_the_tables_have_names() {
    let tables: [(u8, &[(u8, u8)]); 4] = [
        (0, &[(0x00, 0x16), (0x18, 0x2A), (0x80, 0x89)]),
        (
            1,
            &[
                (0x00, 0x03),
                (0x05, 0x16),
                (0x18, 0x2E),
                (0x37, 0x3B),
                (0x80, 0x89),
                (0x9C, 0x9C),
                (0xB8, 0xBF),
            ],
        ),
        (2, &[(0x80, 0x88)]),
        (3, &[(0x00, 0x03), (0x60, 0x60), (0x70, 0x71)]),
    ];
    let expected: BTreeSet<_> = tables
        .iter()
        .flat_map(|(kind, ranges)| {
            ranges.iter().flat_map(|(first, last)| (*first..=*last).map(|code| StatusCode::new(*kind, code)))
        })
        .collect();
    for kind in 0..8 {
        for code in 0..=255 {
            let status = StatusCode::new(kind, code);
            assert_eq!(status.name().is_some(), expected.contains(&status), "{status}");
        }
    }
    assert_eq!(StatusCode::ALL.iter().copied().collect::<BTreeSet<_>>(), expected);
    let names: BTreeSet<_> = StatusCode::ALL.iter().map(|code| code.name()).collect();
    assert_eq!(names.len(), StatusCode::ALL.len(), "no name is used twice");
}

#[test]
fn codes_have_the_names_of_the_tables() {
    let rows = [
        (0, 0x00, StatusCode::SUCCESSFUL_COMPLETION, "Successful Completion"),
        (0, 0x01, StatusCode::INVALID_COMMAND_OPCODE, "Invalid Command Opcode"),
        (0, 0x02, StatusCode::INVALID_FIELD, "Invalid Field in Command"),
        (0, 0x03, StatusCode::COMMAND_ID_CONFLICT, "Command ID Conflict"),
        (0, 0x04, StatusCode::DATA_TRANSFER_ERROR, "Data Transfer Error"),
        (0, 0x06, StatusCode::INTERNAL_ERROR, "Internal Error"),
        (0, 0x07, StatusCode::ABORT_REQUESTED, "Command Abort Requested"),
        (0, 0x08, StatusCode::ABORTED_SQ_DELETION, "Command Aborted due to SQ Deletion"),
        (0, 0x0B, StatusCode::INVALID_NAMESPACE, "Invalid Namespace or Format"),
        (0, 0x0C, StatusCode::COMMAND_SEQUENCE_ERROR, "Command Sequence Error"),
        (0, 0x12, StatusCode::INVALID_CMB_USE, "Invalid Use of Controller Memory Buffer"),
        (0, 0x13, StatusCode::PRP_OFFSET_INVALID, "PRP Offset Invalid"),
        (0, 0x20, StatusCode::NAMESPACE_WRITE_PROTECTED, "Namespace is Write Protected"),
        (0, 0x80, StatusCode::LBA_OUT_OF_RANGE, "LBA Out of Range"),
        (0, 0x82, StatusCode::NAMESPACE_NOT_READY, "Namespace Not Ready"),
        (1, 0x00, StatusCode::COMPLETION_QUEUE_INVALID, "Completion Queue Invalid"),
        (1, 0x01, StatusCode::INVALID_QUEUE_IDENTIFIER, "Invalid Queue Identifier"),
        (1, 0x02, StatusCode::INVALID_QUEUE_SIZE, "Invalid Queue Size"),
        (1, 0x03, StatusCode::ABORT_LIMIT_EXCEEDED, "Abort Command Limit Exceeded"),
        (1, 0x05, StatusCode::AER_LIMIT_EXCEEDED, "Asynchronous Event Request Limit Exceeded"),
        (1, 0x08, StatusCode::INVALID_INTERRUPT_VECTOR, "Invalid Interrupt Vector"),
        (1, 0x09, StatusCode::INVALID_LOG_PAGE, "Invalid Log Page"),
        (1, 0x0C, StatusCode::INVALID_QUEUE_DELETION, "Invalid Queue Deletion"),
        (1, 0x0D, StatusCode::FEATURE_NOT_SAVEABLE, "Feature Identifier Not Saveable"),
        (1, 0x0E, StatusCode::FEATURE_NOT_CHANGEABLE, "Feature Not Changeable"),
        (1, 0x0F, StatusCode::FEATURE_NOT_NAMESPACE_SPECIFIC, "Feature Not Namespace Specific"),
        (1, 0x1F, StatusCode::INVALID_CONTROLLER_IDENTIFIER, "Invalid Controller Identifier"),
        (1, 0x20, StatusCode::INVALID_SECONDARY_CONTROLLER_STATE, "Invalid Secondary Controller State"),
        (1, 0x2B, StatusCode::IO_COMMAND_SET_COMBINATION_REJECTED, "I/O Command Set Combination Rejected"),
        (1, 0x37, StatusCode::INVALID_CDQ, "Invalid Controller Data Queue"),
        (1, 0x38, StatusCode::NOT_ENOUGH_RESOURCES, "Not Enough Resources"),
        (1, 0x39, StatusCode::CONTROLLER_SUSPENDED, "Controller Suspended"),
        (1, 0x3A, StatusCode::CONTROLLER_NOT_SUSPENDED, "Controller Not Suspended"),
        (1, 0x3B, StatusCode::CDQ_FULL, "Controller Data Queue Full"),
        (1, 0x83, StatusCode::COMMAND_SIZE_LIMIT_EXCEEDED, "Command Size Limit Exceeded"),
        (2, 0x81, StatusCode::UNRECOVERED_READ_ERROR, "Unrecovered Read Error"),
        (2, 0x85, StatusCode::COMPARE_FAILURE, "Compare Failure"),
        (2, 0x87, StatusCode::DEALLOCATED_OR_UNWRITTEN, "Deallocated or Unwritten Logical Block"),
        (3, 0x71, StatusCode::ABORTED_BY_HOST, "Command Aborted By Host"),
    ];
    for (kind, code, constant, name) in rows {
        assert_eq!(StatusCode::new(kind, code), constant, "{name}");
        assert_eq!(constant.name(), Some(name));
    }
}

#[test]
fn status_bits_stand_where_the_figure_puts_them() {
    let status = StatusCode::INVALID_CDQ.status();
    let rows = [
        ("code alone", status, 0x0137),
        ("do not retry", status.with_do_not_retry(), 0x4137),
        ("more", status.with_more(), 0x2137),
        ("retry delay", status.with_retry_delay(3), 0x1937),
        ("all types and codes", StatusCode::new(7, 0xFF).status(), 0x07FF),
    ];
    for (name, status, bits) in rows {
        assert_eq!(status.bits(), bits, "{name}");
        assert_eq!(Status::from_bits(bits), status, "{name}");
        assert!(!status.is_success(), "{name}");
        let entry = CompletionQueueEntry::new(QueueId::new(2), 3, CommandId::new(4), status)
            .with_result(0x1111, 0x2222)
            .with_phase(true);
        let bytes = entry.as_bytes();
        assert_eq!(u16::from_le_bytes([bytes[14], bytes[15]]), (bits << 1) | 1, "{name}");
        assert_eq!(entry.status(), status, "{name}");
        assert!(entry.phase() && !entry.with_phase(false).phase(), "{name}");
    }
}

#[test]
fn every_status_says_what_it_means_for_the_effect() {
    let success = Status::SUCCESS;
    let rows = [
        ("success", success, Effect::Succeeded),
        ("success with more", success.with_more(), Effect::Succeeded),
        ("success with a retry delay", success.with_retry_delay(3), Effect::Succeeded),
        ("success with both", success.with_more().with_retry_delay(1), Effect::Succeeded),
        ("do not retry alone", success.with_do_not_retry(), Effect::Unknown),
        ("do not retry and more", success.with_do_not_retry().with_more(), Effect::Unknown),
        ("invalid field", StatusCode::INVALID_FIELD.status(), Effect::Refused),
        ("and do not retry", StatusCode::INVALID_FIELD.status().with_do_not_retry(), Effect::Refused),
        ("and more", StatusCode::INVALID_FIELD.status().with_more(), Effect::Refused),
        ("not enough resources", StatusCode::NOT_ENOUGH_RESOURCES.status(), Effect::Refused),
        ("an identifier in use", StatusCode::COMMAND_ID_CONFLICT.status(), Effect::Unknown),
        ("data transfer", StatusCode::DATA_TRANSFER_ERROR.status(), Effect::Unknown),
        ("internal error", StatusCode::INTERNAL_ERROR.status(), Effect::Unknown),
        ("aborted", StatusCode::ABORT_REQUESTED.status(), Effect::Unknown),
        ("queue deleted", StatusCode::ABORTED_SQ_DELETION.status(), Effect::Unknown),
        ("interrupted", StatusCode::COMMAND_INTERRUPTED.status(), Effect::Unknown),
        ("reserved", StatusCode::new(0, 0x7F).status(), Effect::Unknown),
        ("vendor, generic", StatusCode::new(0, 0xC0).status(), Effect::Unknown),
        ("vendor, command specific", StatusCode::new(1, 0xC0).status(), Effect::Unknown),
    ];
    for (name, status, effect) in rows {
        assert_eq!(status.effect(), effect, "{name}");
        assert_eq!(status.is_success(), effect == Effect::Succeeded, "{name}");
    }
    for kind in 2..8 {
        for code in 0..=255 {
            assert_eq!(StatusCode::new(kind, code).status().effect(), Effect::Unknown, "{kind}/{code:02x}h");
        }
    }
    let refused: Vec<_> = (0..2)
        .flat_map(|kind| (0..=255).map(move |code| StatusCode::new(kind, code)))
        .filter(|code| code.status().effect() == Effect::Refused)
        .collect();
    assert!(refused.iter().all(|code| code.name().is_some()), "only what has a name and so a meaning");
    assert_eq!(refused.len(), 7 + 20);
}

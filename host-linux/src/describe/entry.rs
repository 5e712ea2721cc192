// SPDX-License-Identifier: MIT OR Apache-2.0
//! Entries of Controller Data Queues and completion queues, and the events that completions report.

use nvme_core::wire::lba_migration::{Change, EntrySequence, LbaMigrationEntry};
use nvme_core::wire::log::LogPageId;
use nvme_core::wire::{AsynchronousEvent, CdqEvent, CompletionQueueEntry, EventType, Status};

use super::table::{Bits, Row, Scope, Table, bit, bits, count, hex};
use super::words::{choice, grouped, plural};
use super::{Context, Structure};

/// Decodes an LBA Migration Queue Entry Type 0. NVM Command Set 1.1 §5.6, User Data Migration Queue.
#[must_use]
pub fn migration_entry(bytes: &[u8]) -> Structure {
    let mut structure = MIGRATION_ENTRY.decode(bytes, &Context::default());
    if let Some(bytes) = bytes.first_chunk::<32>() {
        match LbaMigrationEntry::parse_bytes(bytes) {
            Err(error) => structure.problems.push(error.to_string()),
            Ok(entry) if entry.is_irregular() => {
                structure.problems.push("an entry that is neither first nor last must report a range".into());
            }
            Ok(_) => {}
        }
    }
    structure
}

/// Decodes a completion queue entry. NVMe Base 2.1 §4.2, Common Completion Queue Entry Format.
#[must_use]
pub fn completion(entry: &CompletionQueueEntry) -> Structure {
    let mut bytes = Vec::with_capacity(16);
    bytes.extend(entry.dw0().to_le_bytes());
    bytes.extend(entry.dw1().to_le_bytes());
    bytes.extend(entry.submission_head().to_le_bytes());
    bytes.extend(entry.submission_queue().get().to_le_bytes());
    bytes.extend(entry.command_id().get().to_le_bytes());
    bytes.extend(((entry.status().bits() << 1) | u16::from(entry.phase())).to_le_bytes());
    COMPLETION.decode(&bytes, &Context::default())
}

/// Decodes an asynchronous event. NVMe Base 2.1 §5.1.2, Asynchronous Event Request command.
#[must_use]
pub fn event(event: &AsynchronousEvent) -> Structure {
    let (dw0, dw1) = event.result();
    let bytes: Vec<u8> = dw0.to_le_bytes().into_iter().chain(dw1.to_le_bytes()).collect();
    EVENT.decode(&bytes, &Context::default())
}

pub(super) static MIGRATION_ENTRY: Table = Table {
    name: "CDQE",
    title: "LBA Migration Queue Entry Type 0",
    bytes: 32,
    rows: &[
        count(0, 4, "NSID", "Namespace Identifier"),
        count(4, 4, "NLB", "Number of Logical Blocks").within(|_, scope| match change(scope) {
            Some(Change::Range { blocks, .. }) => plural(u128::from(blocks), "block"),
            _ => String::new(),
        }),
        count(8, 8, "SLBA", "Starting LBA"),
        hex(31, 1, "LBAMQA", "LBA Migration Queue Attributes").of(ATTRIBUTES),
    ],
    groups: &[],
    meaning: migration_meaning,
};

const ATTRIBUTES: &[Bits] = &[
    bit(0, "CDQP", "Controller Data Queue Phase Tag"),
    bits(3, 1, "ESA", "Entry Sequence Attribute").means(|value| match value {
        0 => "neither first nor last".into(),
        1 => "first since logging started or the controller resumed".into(),
        2 => "last: logging stopped by the host".into(),
        3 => "last: the controller is suspended, the log is complete".into(),
        7 => "last: the queue became full, later changes are lost".into(),
        _ => "reserved".into(),
    }),
    bit(5, "DLBA", "Deallocated LBAs"),
    bits(7, 6, "LBACIR", "LBA Change Information").means(|value| {
        choice(value, &["a range of blocks", "every block of the namespace", "no block reported"])
    }),
];

fn parsed(scope: &Scope<'_>) -> Option<LbaMigrationEntry> {
    LbaMigrationEntry::parse_bytes(scope.bytes.first_chunk()?).ok()
}

fn change(scope: &Scope<'_>) -> Option<Change> {
    parsed(scope).map(|entry| entry.change)
}

fn migration_meaning(scope: &Scope<'_>) -> String {
    let Some(entry) = parsed(scope) else { return String::new() };
    let sequence = match entry.sequence {
        EntrySequence::Ordinary => "",
        EntrySequence::First => "logging starts",
        EntrySequence::LastStopped => "logging stopped by the host",
        EntrySequence::LastSuspended => "controller suspended, log complete",
        EntrySequence::LastFull => "queue full, later changes are lost",
    };
    let change = match entry.change {
        Change::None => String::new(),
        Change::AllOfNamespace { namespace } => format!("namespace {}: every block changed", namespace.get()),
        Change::Range { namespace, start, blocks, deallocated } => {
            let what = if deallocated { "deallocated" } else { "changed" };
            let first = grouped(u128::from(start.get()));
            let blocks = match blocks {
                1 => format!("block {first}"),
                _ => {
                    let last = u128::from(start.get()) + u128::from(blocks) - 1;
                    format!("blocks {first} to {}", grouped(last))
                }
            };
            format!("namespace {}: {blocks} {what}", namespace.get())
        }
    };
    match (sequence, change.as_str()) {
        ("", "") => "nothing".into(),
        ("", change) => change.into(),
        (sequence, "") => sequence.into(),
        (sequence, change) => format!("{change}; {sequence}"),
    }
}

pub(super) static COMPLETION: Table = Table {
    name: "CQE",
    title: "Completion queue entry",
    bytes: 16,
    rows: &[
        hex(0, 4, "DW0", "Command specific result, dword 0"),
        hex(4, 4, "DW1", "Command specific result, dword 1"),
        count(8, 2, "SQHD", "Submission Queue Head Pointer"),
        count(10, 2, "SQID", "Submission Queue Identifier"),
        hex(12, 2, "CID", "Command Identifier"),
        status(14),
    ],
    groups: &[],
    meaning: |scope| status_words(scope.number(14, 2)),
};

/// The status of a command with the phase tag below it.
pub(super) const fn status(at: usize) -> Row {
    hex(at, 2, "STATUS", "Status and phase tag").of(STATUS).means(status_words)
}

fn status_words(number: u128) -> String {
    Status::from_bits((number >> 1 & 0x7FFF) as u16).to_string()
}

const STATUS: &[Bits] = &[
    bit(0, "P", "Phase Tag"),
    bits(8, 1, "SC", "Status Code").hex(),
    bits(11, 9, "SCT", "Status Code Type").means(|value| match value {
        0 => "generic command status".into(),
        1 => "command specific status".into(),
        2 => "media and data integrity errors".into(),
        3 => "path related status".into(),
        7 => "vendor specific".into(),
        _ => "reserved".into(),
    }),
    bits(13, 12, "CRD", "Command Retry Delay").means(|value| {
        if value == 0 { String::new() } else { format!("CRDT{value} of Identify Controller") }
    }),
    bit(14, "M", "More: the Error Information log has details"),
    bit(15, "DNR", "Do Not Retry"),
];

pub(super) static EVENT: Table = Table {
    name: "EVENT",
    title: "Asynchronous event",
    bytes: 8,
    rows: &[
        hex(0, 4, "DW0", "Completion dword 0").of(&[
            bits(2, 0, "AET", "Asynchronous Event Type").means(event_type),
            bits(15, 8, "AEI", "Asynchronous Event Information").hex(),
            bits(23, 16, "LID", "Log Page Identifier")
                .hex()
                .means(|value| LogPageId::new((value & 0xFF) as u8).name().unwrap_or_default().into()),
        ]),
        hex(4, 4, "ESP", "Event Specific Parameter"),
    ],
    groups: &[],
    meaning: |scope| {
        let dw0 = scope.number(0, 4);
        event_meaning(&AsynchronousEvent {
            kind: EventType::new((dw0 & 7) as u8),
            information: (dw0 >> 8 & 0xFF) as u8,
            log_page: (dw0 >> 16 & 0xFF) as u8,
            parameter: (scope.number(4, 4) & 0xFFFF_FFFF) as u32,
        })
    },
};

pub(super) fn event_type(value: u128) -> String {
    match value {
        0 => "error status".into(),
        1 => "SMART / health status".into(),
        2 => "notice".into(),
        3 => "immediate".into(),
        4 => "one-shot".into(),
        6 => "I/O command specific status".into(),
        7 => "vendor specific".into(),
        _ => "reserved".into(),
    }
}

fn event_meaning(event: &AsynchronousEvent) -> String {
    match event.controller_data_queue() {
        Some(CdqEvent::TailPointer(queue)) => {
            return format!("Controller Data Queue {}: the trigger slot was filled", queue.get());
        }
        Some(CdqEvent::Full(queue)) => return format!("Controller Data Queue {} became full", queue.get()),
        None => {}
    }
    let known = match (event.kind.get(), event.information) {
        (0, 0) => "write to an invalid doorbell register",
        (0, 1) => "invalid value written to a doorbell",
        (0, 2) => "diagnostic failure",
        (0, 3) => "persistent internal error",
        (0, 4) => "transient internal error",
        (0, 5) => "firmware image load error",
        (1, 0) => "NVM subsystem reliability",
        (1, 1) => "temperature threshold",
        (1, 2) => "spare below threshold",
        (2, 0) => "attached namespace attribute changed",
        (2, 1) => "firmware activation starting",
        (2, 2) => "telemetry log changed",
        (2, 3) => "asymmetric namespace access changed",
        (2, 4) => "predictable latency event aggregate log changed",
        (2, 5) => "LBA status information alert",
        (2, 6) => "endurance group event aggregate log changed",
        (3, 0) => "normal NVM subsystem shutdown",
        (3, 1) => "temperature threshold hysteresis recovery",
        (6, 0) => "reservation log page available",
        (6, 1) => "sanitize operation completed",
        (6, 2) => "sanitize operation completed with unexpected deallocation",
        _ => {
            return format!(
                "{}, information {:02X}h",
                event_type(event.kind.get().into()),
                event.information
            );
        }
    };
    known.into()
}

#[cfg(test)]
pub(super) static TABLES: &[&Table] = &[&MIGRATION_ENTRY, &COMPLETION, &EVENT];

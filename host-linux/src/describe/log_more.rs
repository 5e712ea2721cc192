// SPDX-License-Identifier: MIT OR Apache-2.0
//! Log pages of operations and endurance. NVMe Base 2.1 §5.1.12.1. Pages that are lists are in `log_lists`.

use nvme_core::wire::StatusCode;

use super::log::title;
use super::log_lists;
use super::table::{Bits, Group, Table, bit, bits, bytes, count, hex, no_meaning, rest};
use super::words::{choice, grouped, microseconds, milliseconds, percent, size_if_stated};
use super::{Context, Structure};

/// Decodes a log page that has a layout here.
pub(super) fn log_page(page: u8, data: &[u8], context: &Context) -> Option<Structure> {
    let structure = match page {
        0x06 => SELF_TEST.decode(data, context),
        0x07 | 0x08 => headed(&TELEMETRY, page, data, context),
        0x09 => ENDURANCE.decode(data, context),
        0x0A => LATENCY.decode(data, context),
        0x0B | 0x0F => log_lists::identifiers(page, data, context),
        0x0C => log_lists::access(data, context),
        0x0D => log_lists::events(data, context),
        0x80 => RESERVATION.decode(data, context),
        0x81 => SANITIZE.decode(data, context),
        _ => return None,
    };
    Some(structure)
}

/// The names of log pages that the core does not know.
pub(super) fn name(page: u8) -> Option<&'static str> {
    Some(match page {
        0x00 => "Supported Log Pages",
        0x06 => "Device Self-test",
        0x07 => "Telemetry Host-Initiated",
        0x08 => "Telemetry Controller-Initiated",
        0x09 => "Endurance Group Information",
        0x0A => "Predictable Latency Per NVM Set",
        0x0B => "Predictable Latency Event Aggregate",
        0x0C => "Asymmetric Namespace Access",
        0x0D => "Persistent Event Log",
        0x0E => "LBA Status Information",
        0x0F => "Endurance Group Event Aggregate",
        0x10 => "Media Unit Status",
        0x11 => "Supported Capacity Configuration List",
        0x13 => "NVMe-MI Commands Supported and Effects",
        0x14 => "Command and Feature Lockdown",
        0x15 => "Boot Partition",
        0x16 => "Rotational Media Information",
        0x20 => "FDP Configurations",
        0x21 => "Reclaim Unit Handle Usage",
        0x22 => "FDP Statistics",
        0x23 => "FDP Events",
        0x70 => "Discovery",
        0x80 => "Reservation Notification",
        0x81 => "Sanitize Status",
        _ => return None,
    })
}

/// A page whose header has a table; what follows is shown as it is.
pub(super) fn headed(header: &'static Table, page: u8, data: &[u8], context: &Context) -> Structure {
    let (head, body) = data.split_at(data.len().min(header.bytes));
    let mut structure = header.decode(head, context);
    structure.title = title(page).into();
    structure.fields.extend(rest(head.len(), body));
    structure
}

static SELF_TEST: Table = Table {
    name: "SELF_TEST",
    title: "Device Self-test (log page 06h)",
    bytes: 564,
    rows: &[
        hex(0, 1, "CDSTO", "Current Device Self-Test Operation")
            .of(&[bits(3, 0, "DSTS", "Status").means(operation)]),
        hex(1, 1, "CDSTC", "Current Device Self-Test Completion").of(&[bits(
            6,
            0,
            "DSTC",
            "Percent complete",
        )]),
    ],
    groups: &[Group {
        name: "STR",
        title: "Results, newest first",
        at: 4,
        count: 20,
        table: &SELF_TEST_RESULT,
    }],
    meaning: |scope| operation(scope.number(0, 1) & 0xF),
};

fn operation(value: u128) -> String {
    match value {
        0 => "no self-test in progress".into(),
        1 => "short self-test".into(),
        2 => "extended self-test".into(),
        3 => "host-initiated refresh".into(),
        0xE => "vendor specific".into(),
        _ => "reserved".into(),
    }
}

static SELF_TEST_RESULT: Table = Table {
    name: "STR",
    title: "Self-test Result",
    bytes: 28,
    rows: &[
        hex(0, 1, "DSTST", "Device Self-test Status").of(&[
            bits(3, 0, "DSTR", "Result").means(self_test_result),
            bits(7, 4, "DSTC", "Self-test Code").means(operation),
        ]),
        count(1, 1, "SEGN", "Segment Number"),
        hex(2, 1, "VDINFO", "Valid Diagnostic Information").of(&[
            bit(0, "NSIDV", "NSID Valid"),
            bit(1, "FLBAV", "Failing LBA Valid"),
            bit(2, "SCTV", "Status Code Type Valid"),
            bit(3, "SCV", "Status Code Valid"),
        ]),
        count(4, 8, "POH", "Power On Hours"),
        count(12, 4, "NSID", "Namespace Identifier"),
        count(16, 8, "FLBA", "Failing LBA"),
        count(24, 1, "SCT", "Status Code Type"),
        hex(25, 1, "SC", "Status Code"),
        hex(26, 2, "VS", "Vendor Specific"),
    ],
    groups: &[],
    meaning: |scope| {
        let mut text = self_test_result(scope.number(0, 1) & 0xF);
        if scope.number(2, 1) & 0xC == 0xC {
            let code = StatusCode::new(scope.number(24, 1) as u8 & 7, scope.number(25, 1) as u8);
            text = format!("{text}: {code}");
        }
        text
    },
};

fn self_test_result(value: u128) -> String {
    match value {
        0 => "completed without error".into(),
        1 => "aborted by a Device Self-test command".into(),
        2 => "aborted by a Controller Level Reset".into(),
        3 => "aborted by the removal of a namespace".into(),
        4 => "aborted by a Format NVM command".into(),
        5 => "not completed because of a fatal or unknown error".into(),
        6 => "completed with a failed segment that is not known".into(),
        7 => "completed with failed segments, the first is stated".into(),
        8 => "aborted for an unknown reason".into(),
        9 => "aborted by a sanitize operation".into(),
        0xF => "not in use".into(),
        _ => "reserved".into(),
    }
}

static TELEMETRY: Table = Table {
    name: "TELEMETRY",
    title: "Telemetry header",
    bytes: 512,
    rows: &[
        hex(0, 1, "LPID", "Log Page Identifier"),
        hex(5, 3, "IEEE", "IEEE OUI Identifier"),
        count(8, 2, "DA1LB", "Data Area 1 Last Block of 512 bytes"),
        count(10, 2, "DA2LB", "Data Area 2 Last Block of 512 bytes"),
        count(12, 2, "DA3LB", "Data Area 3 Last Block of 512 bytes"),
        count(16, 4, "DA4LB", "Data Area 4 Last Block of 512 bytes"),
        count(382, 1, "TCIDA", "Controller-Initiated Data Available"),
        count(383, 1, "TCIDGN", "Controller-Initiated Data Generation Number"),
        bytes(384, 128, "RI", "Reason Identifier"),
    ],
    groups: &[],
    meaning: no_meaning,
};

static ENDURANCE: Table = Table {
    name: "ENDURANCE",
    title: "Endurance Group Information (log page 09h)",
    bytes: 512,
    rows: &[
        hex(0, 1, "CW", "Critical Warning").of(&[
            bit(0, "EGASCBT", "Available Spare Capacity Below Threshold"),
            bit(2, "EGRD", "Reliability Degraded"),
            bit(3, "EGRO", "Read-Only"),
        ]),
        count(3, 1, "AVSP", "Available Spare").means(percent),
        count(4, 1, "AVSPT", "Available Spare Threshold").means(percent),
        count(5, 1, "PUSED", "Percentage Used").means(percent),
        count(32, 16, "EE", "Endurance Estimate").means(giga),
        count(48, 16, "DUR", "Data Units Read").means(giga),
        count(64, 16, "DUW", "Data Units Written").means(giga),
        count(80, 16, "MUW", "Media Units Written").means(giga),
        count(96, 16, "HRC", "Host Read Commands").means(grouped),
        count(112, 16, "HWC", "Host Write Commands").means(grouped),
        count(128, 16, "MDIE", "Media and Data Integrity Errors").means(grouped),
        count(144, 16, "NEILE", "Number of Error Information Log Entries").means(grouped),
        count(160, 16, "TEGCAP", "Total Endurance Group Capacity").means(size_if_stated),
        count(176, 16, "UEGCAP", "Unallocated Endurance Group Capacity").means(size_if_stated),
    ],
    groups: &[],
    meaning: no_meaning,
};

/// Billions of bytes, rounded up.
fn giga(units: u128) -> String {
    units.checked_mul(1_000_000_000).map_or_else(String::new, size_if_stated)
}

const LATENCY_EVENTS: &[Bits] = &[
    bit(0, "DTWINRW", "DTWIN Reads Warning"),
    bit(1, "DTWINWW", "DTWIN Writes Warning"),
    bit(2, "DTWINTW", "DTWIN Time Warning"),
    bit(14, "ADTWIN", "Left DTWIN because a typical or maximum was exceeded"),
    bit(15, "EDTWIN", "Left DTWIN because of an excursion"),
];

static LATENCY: Table = Table {
    name: "LATENCY",
    title: "Predictable Latency Per NVM Set (log page 0Ah)",
    bytes: 512,
    rows: &[
        hex(0, 1, "STATUS", "Status").of(&[bits(2, 0, "WINDOW", "Window").means(|value| {
            choice(
                value,
                &["predictable latency mode disabled", "deterministic window", "non-deterministic window"],
            )
        })]),
        hex(2, 2, "ETYPE", "Event Type").of(LATENCY_EVENTS),
        count(32, 8, "DTWINRT", "DTWIN Reads Typical, of 4 KiB"),
        count(40, 8, "DTWINWT", "DTWIN Writes Typical, in optimal write sizes"),
        count(48, 8, "DTWINTM", "DTWIN Time Maximum").means(milliseconds),
        count(56, 8, "NDWINTMH", "NDWIN Time Minimum High").means(milliseconds),
        count(64, 8, "NDWINTML", "NDWIN Time Minimum Low").means(milliseconds),
        count(128, 8, "DTWINRE", "DTWIN Reads Estimate"),
        count(136, 8, "DTWINWE", "DTWIN Writes Estimate"),
        count(144, 8, "DTWINTE", "DTWIN Time Estimate").means(milliseconds),
    ],
    groups: &[],
    meaning: no_meaning,
};

static RESERVATION: Table = Table {
    name: "RESERVATION",
    title: "Reservation Notification (log page 80h)",
    bytes: 64,
    rows: &[
        count(0, 8, "LPC", "Log Page Count"),
        count(8, 1, "RNLPT", "Reservation Notification Log Page Type").means(|value| {
            choice(
                value,
                &["empty", "registration preempted", "reservation released", "reservation preempted"],
            )
        }),
        count(9, 1, "NALP", "Number of Available Log Pages"),
        count(12, 4, "NSID", "Namespace Identifier"),
    ],
    groups: &[],
    meaning: no_meaning,
};

static SANITIZE: Table = Table {
    name: "SANITIZE",
    title: "Sanitize Status (log page 81h)",
    bytes: 512,
    rows: &[
        count(0, 2, "SPROG", "Sanitize Progress").means(|value| format!("{} %", value * 100 / 0xFFFF)),
        hex(2, 2, "SSTAT", "Sanitize Status").of(&[
            bits(2, 0, "SOS", "Sanitize Operation Status").means(sanitize_status),
            bits(7, 3, "OPC", "Overwrite Passes Completed"),
            bit(8, "GDE", "Global Data Erased"),
        ]),
        hex(4, 4, "SCDW10", "Sanitize command dword 10"),
        count(8, 4, "ETO", "Estimated Time For Overwrite").means(estimate),
        count(12, 4, "ETBE", "Estimated Time For Block Erase").means(estimate),
        count(16, 4, "ETCE", "Estimated Time For Crypto Erase").means(estimate),
        count(20, 4, "ETONDM", "Estimated Time For Overwrite With No-Deallocate Media Modification")
            .means(estimate),
        count(24, 4, "ETBENDM", "Estimated Time For Block Erase With No-Deallocate Media Modification")
            .means(estimate),
        count(28, 4, "ETCENDM", "Estimated Time For Crypto Erase With No-Deallocate Media Modification")
            .means(estimate),
    ],
    groups: &[],
    meaning: |scope| sanitize_status(scope.number(2, 2) & 7),
};

fn sanitize_status(value: u128) -> String {
    match value {
        0 => "never sanitized".into(),
        1 => "last sanitize operation completed".into(),
        2 => "sanitize operation in progress".into(),
        3 => "last sanitize operation failed".into(),
        4 => "last sanitize operation completed with unexpected deallocation".into(),
        _ => "reserved".into(),
    }
}

/// Seconds, where all ones mean that nothing is stated.
fn estimate(value: u128) -> String {
    if value == 0xFFFF_FFFF { "not reported".into() } else { microseconds(value * 1_000_000) }
}

/// Every table here, for the test of all tables.
#[cfg(test)]
pub(super) static TABLES: &[&Table] =
    &[&SELF_TEST, &SELF_TEST_RESULT, &TELEMETRY, &ENDURANCE, &LATENCY, &RESERVATION, &SANITIZE];

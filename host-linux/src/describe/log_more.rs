// SPDX-License-Identifier: MIT OR Apache-2.0
//! Log pages of operations, endurance, asymmetric access and events. NVMe Base 2.1 §5.1.12.1.

use nvme_core::wire::StatusCode;

use super::identify::numbers;
use super::log::title;
use super::table::{self, Bits, Group, Scope, Table, bit, bits, bytes, count, hex, no_meaning, rest, text};
use super::words::{choice, grouped, microseconds, milliseconds, percent, plural, size_if_stated};
use super::{Context, List, Structure};

/// Decodes a log page that has a layout here.
pub(super) fn log_page(page: u8, data: &[u8], context: &Context) -> Option<Structure> {
    let structure = match page {
        0x06 => SELF_TEST.decode(data, context),
        0x07 | 0x08 => headed(&TELEMETRY, page, data, context),
        0x09 => ENDURANCE.decode(data, context),
        0x0A => LATENCY.decode(data, context),
        0x0B | 0x0F => identifiers(page, data, context),
        0x0C => access(data, context),
        0x0D => events(data, context),
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
fn headed(header: &'static Table, page: u8, data: &[u8], context: &Context) -> Structure {
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

/// Predictable Latency Event Aggregate and Endurance Group Event Aggregate: a count and 16-bit identifiers.
fn identifiers(page: u8, data: &[u8], context: &Context) -> Structure {
    let mut structure = headed(&AGGREGATE, page, data.get(..8.min(data.len())).unwrap_or_default(), context);
    let Some(body) = data.get(8..) else { return structure };
    let announced = usize::try_from(table::little_endian(&data[..8])).unwrap_or(usize::MAX);
    let ids: Vec<u128> = body.chunks_exact(2).take(announced).map(table::little_endian).collect();
    if ids.len() < announced {
        structure.problems.push(format!("{announced} entries announced, {} read", ids.len()));
    }
    let end = 8 + ids.len() * 2;
    structure.fields.push(numbers("ENTRY", "Identifiers with events", 8, &ids, 2));
    structure.fields.extend(rest(end, &data[end..]));
    structure
}

static AGGREGATE: Table = Table {
    name: "AGGREGATE",
    title: "Event aggregate",
    bytes: 8,
    rows: &[count(0, 8, "NUMENT", "Number of Entries")],
    groups: &[],
    meaning: |scope| plural(scope.number(0, 8), "entry"),
};

/// Asymmetric Namespace Access: a header, then descriptors of different length.
fn access(data: &[u8], context: &Context) -> Structure {
    let (head, body) = data.split_at(data.len().min(ACCESS.bytes));
    let mut structure = ACCESS.decode(head, context);
    let announced = table::little_endian(data.get(8..10).unwrap_or_default());
    let mut groups = Vec::new();
    let mut at = 0;
    while (groups.len() as u128) < announced {
        let Some(descriptor) = body.get(at..).and_then(|body| body.get(..ACCESS_GROUP.bytes)) else { break };
        let mut group = ACCESS_GROUP.decode(descriptor, context);
        let namespaces = table::little_endian(&descriptor[4..8]) as usize;
        let start = at + ACCESS_GROUP.bytes;
        let ids = body.get(start..).unwrap_or_default().chunks_exact(4).take(namespaces);
        let ids: Vec<u128> = ids.map(table::little_endian).collect();
        let complete = ids.len() == namespaces;
        group.name = format!("ANAG{}", groups.len()).into();
        at = start + ids.len() * 4;
        group.fields.push(numbers("NSID", "Namespaces", ACCESS_GROUP.bytes, &ids, 4));
        groups.push(group);
        if !complete {
            break;
        }
    }
    if (groups.len() as u128) < announced || at > body.len() {
        structure.problems.push(format!("{announced} groups announced, {} read", groups.len()));
    }
    structure.lists.push(List { name: "ANAG", title: "ANA groups", items: groups, sparse: false });
    structure.fields.extend(rest(head.len() + at, body.get(at..).unwrap_or_default()));
    structure
}

static ACCESS: Table = Table {
    name: "ANA",
    title: "Asymmetric Namespace Access (log page 0Ch)",
    bytes: 16,
    rows: &[count(0, 8, "CHNGCNT", "Change Count"), count(8, 2, "NAGD", "Number of ANA Group Descriptors")],
    groups: &[],
    meaning: |scope| plural(scope.number(8, 2), "group"),
};

static ACCESS_GROUP: Table = Table {
    name: "ANAG",
    title: "ANA Group Descriptor",
    bytes: 32,
    rows: &[
        count(0, 4, "AGID", "ANA Group ID"),
        count(4, 4, "NNV", "Number of NSID Values"),
        count(8, 8, "CHNGCNT", "Change Count"),
        hex(16, 1, "ANAS", "Asymmetric Namespace Access State")
            .of(&[bits(3, 0, "STATE", "State").means(access_state)]),
    ],
    groups: &[],
    meaning: |scope| access_state(scope.number(16, 1) & 0xF),
};

fn access_state(value: u128) -> String {
    match value {
        1 => "optimized".into(),
        2 => "non-optimized".into(),
        3 => "inaccessible".into(),
        4 => "persistent loss".into(),
        0xF => "change".into(),
        _ => "reserved".into(),
    }
}

/// Persistent Event Log: a header, then events of different length. What an event holds is shown as it is.
fn events(data: &[u8], context: &Context) -> Structure {
    let (head, body) = data.split_at(data.len().min(PERSISTENT.bytes));
    let mut structure = PERSISTENT.decode(head, context);
    let announced = table::little_endian(head.get(4..8).unwrap_or_default());
    let mut all = Vec::new();
    let mut at = 0;
    while (all.len() as u128) < announced {
        let Some(event) = body.get(at..).filter(|event| event.len() >= EVENT.bytes) else { break };
        // The header's length does not count its first three bytes.
        let header = usize::from(event[2]) + 3;
        let length = header + table::little_endian(&event[22..24]) as usize;
        let Some(event) = event.get(..length).filter(|_| header >= EVENT.bytes) else {
            structure
                .problems
                .push(format!("the event at byte {} does not fit: {length} bytes", head.len() + at));
            break;
        };
        let mut decoded = EVENT.decode(&event[..EVENT.bytes], context);
        decoded.name = format!("EVENT{}", all.len()).into();
        if length > EVENT.bytes {
            let mut field = table::dump("DATA", "", &event[EVENT.bytes..]).fields.remove(0);
            field.place = super::Place::Bytes { offset: EVENT.bytes, length: length - EVENT.bytes };
            decoded.fields.push(field);
        }
        all.push(decoded);
        at += length;
    }
    structure.lists.push(List { name: "EVENT", title: "Events, newest first", items: all, sparse: false });
    structure.fields.extend(rest(head.len() + at, body.get(at..).unwrap_or_default()));
    structure
}

static PERSISTENT: Table = Table {
    name: "PERSISTENT",
    title: "Persistent Event Log (log page 0Dh)",
    bytes: 512,
    rows: &[
        hex(0, 1, "LID", "Log Identifier"),
        count(4, 4, "TNEV", "Total Number of Events"),
        count(8, 8, "TLL", "Total Log Length in bytes"),
        count(16, 1, "LREV", "Log Revision"),
        count(18, 2, "LHL", "Log Header Length behind this field"),
        hex(20, 8, "TSTMP", "Timestamp"),
        count(28, 16, "POH", "Power On Hours"),
        count(44, 8, "PWRCC", "Power Cycle Count"),
        hex(52, 2, "VID", "PCI Vendor ID"),
        hex(54, 2, "SSVID", "PCI Subsystem Vendor ID"),
        text(56, 20, "SN", "Serial Number"),
        text(76, 40, "MN", "Model Number"),
        text(116, 256, "SUBNQN", "NVM Subsystem NVMe Qualified Name"),
        count(372, 2, "GNUM", "Generation Number"),
        hex(374, 4, "RCI", "Reporting Context Information"),
        bytes(480, 32, "SEB", "Supported Events Bitmap"),
    ],
    groups: &[],
    meaning: |scope| plural(scope.number(4, 4), "event"),
};

static EVENT: Table = Table {
    name: "EVENT",
    title: "Persistent event",
    bytes: 24,
    rows: &[
        hex(0, 1, "ETYPE", "Event Type"),
        count(1, 1, "ETR", "Event Type Revision"),
        count(2, 1, "EHL", "Event Header Length behind this field"),
        hex(3, 1, "EHAI", "Event Header Additional Information"),
        count(4, 2, "CNTLID", "Controller Identifier"),
        hex(6, 8, "ETSTMP", "Event Timestamp"),
        count(14, 2, "PELPID", "Port Identifier"),
        count(20, 2, "VSIL", "Vendor Specific Information Length"),
        count(22, 2, "EL", "Event Length"),
    ],
    groups: &[],
    meaning: |scope: &Scope<'_>| {
        let name = match scope.number(0, 1) {
            0x01 => "SMART / health log snapshot",
            0x02 => "firmware commit",
            0x03 => "timestamp change",
            0x04 => "power-on or reset",
            0x05 => "NVM subsystem hardware error",
            0x06 => "change of namespaces",
            0x07 => "format started",
            0x08 => "format completed",
            0x09 => "sanitize started",
            0x0A => "sanitize completed",
            0x0B => "Set Features",
            0x0C => "telemetry log created",
            0x0D => "thermal excursion",
            0xDE => "vendor specific",
            _ => "other event",
        };
        name.into()
    },
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
pub(super) static TABLES: &[&Table] = &[
    &SELF_TEST,
    &SELF_TEST_RESULT,
    &TELEMETRY,
    &ENDURANCE,
    &LATENCY,
    &AGGREGATE,
    &ACCESS,
    &ACCESS_GROUP,
    &PERSISTENT,
    &EVENT,
    &RESERVATION,
    &SANITIZE,
];

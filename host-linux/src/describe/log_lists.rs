// SPDX-License-Identifier: MIT OR Apache-2.0
//! Log pages that are a header and a list of what may be of different length. NVMe Base 2.1 §5.1.12.1.

use super::identify::numbers;
use super::log_more::headed;
use super::table::{self, Scope, Table, bits, bytes, count, hex, rest, text};
use super::words::plural;
use super::{Context, List, Structure};

/// Predictable Latency Event Aggregate and Endurance Group Event Aggregate: a count and 16-bit identifiers.
pub(super) fn identifiers(page: u8, data: &[u8], context: &Context) -> Structure {
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
pub(super) fn access(data: &[u8], context: &Context) -> Structure {
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
pub(super) fn events(data: &[u8], context: &Context) -> Structure {
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

/// Every table here, for the test of all tables.
#[cfg(test)]
pub(super) static TABLES: &[&Table] = &[&AGGREGATE, &ACCESS, &ACCESS_GROUP, &PERSISTENT, &EVENT];

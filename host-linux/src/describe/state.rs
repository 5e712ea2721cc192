// SPDX-License-Identifier: MIT OR Apache-2.0
//! Controller State images. NVMe Base 2.1 §5.1.17.1.3, Controller State data structure and NVMe Controller State v0.

use nvme_core::wire::controller_state::{
    ControllerStateHeader, ControllerStateImage, StateDialect, StateError, StateLimits,
};

use super::table::{Bits, Scope, Table, bit, bits, count, hex, items, little_endian, no_meaning, rest};
use super::vendor::vendor_state;
use super::words::{choice, plural, size, zero_based_slots};
use super::{Context, Field, List, Place, Structure, Value};

const HEADER_BYTES: usize = ControllerStateHeader::BYTES;
const STATE_HEADER_BYTES: usize = 8;

/// Decodes a Controller State image, S0PT read as `dialect` says. What is wrong with it is named in
/// [`Structure::problems`]; queues and fields that are there are decoded nevertheless. Bytes behind the image are
/// reserved fields.
#[must_use]
pub fn controller_state(image: &[u8], dialect: StateDialect) -> Structure {
    let context = Context::default();
    let (header, body) = image.split_at(image.len().min(HEADER_BYTES));
    let mut structure = HEADER.decode(header, &context);
    structure.problems = problems(image);
    if header.len() < HEADER_BYTES {
        structure.meaning = if image.is_empty() { "no byte of one" } else { "part of a header" }.into();
        return structure;
    }
    if little_endian(&header[..2]) != 0 {
        // Another version: nothing says where its parts are.
        structure.fields.push(raw("DATA", "Data behind the header, of unknown layout", HEADER_BYTES, body));
        return structure;
    }
    let dwords = |at: usize| little_endian(&header[at..at + 16]).saturating_mul(4);
    let nvme = usize::try_from(dwords(16)).unwrap_or(usize::MAX).min(body.len());
    let (nvme, other) = body.split_at(nvme);
    let vendor = usize::try_from(dwords(32)).unwrap_or(usize::MAX).min(other.len());
    let (vendor, behind) = other.split_at(vendor);
    if !nvme.is_empty() {
        nvme_state(&mut structure, nvme, dialect, &context);
    }
    match vendor_state(vendor, &context) {
        Some(decoded) => structure.lists.push(List {
            name: "VSD",
            title: "Vendor Specific Data",
            items: vec![decoded],
            sparse: false,
        }),
        None if vendor.is_empty() => {}
        None => structure.fields.push(raw("VSD", "Vendor Specific Data", HEADER_BYTES + nvme.len(), vendor)),
    }
    if !behind.is_empty() {
        let behind = behind.len();
        structure.problems.push(format!("{behind} bytes stand behind the state; it is not one state alone"));
    }
    structure.fields.extend(rest(image.len() - behind.len(), behind));
    structure
}

/// What is wrong with an image, whatever controller it is for.
fn problems(image: &[u8]) -> Vec<String> {
    let limits = StateLimits {
        submission_queues: u16::MAX,
        completion_queues: u16::MAX,
        queue_entries: 1 << 16,
        vectors: 1 << 16,
        contiguous_required: false,
        page_bytes: 4096,
    };
    let checked = ControllerStateImage::parse(image, usize::MAX).and_then(|parsed| parsed.validate(&limits));
    checked.err().map(|error: StateError| error.to_string()).into_iter().collect()
}

fn nvme_state(structure: &mut Structure, nvme: &[u8], dialect: StateDialect, context: &Context) {
    let (header, queues) = nvme.split_at(nvme.len().min(STATE_HEADER_BYTES));
    let mut decoded = STATE.decode(header, context);
    for field in &mut decoded.fields {
        if let Place::Bytes { offset, .. } = &mut field.place {
            *offset += HEADER_BYTES;
        }
    }
    structure.fields.append(&mut decoded.fields);
    if header.len() < STATE_HEADER_BYTES {
        return;
    }
    if little_endian(&header[..2]) != 0 {
        let at = HEADER_BYTES + STATE_HEADER_BYTES;
        structure.fields.push(raw("NVMECS", "NVMe Controller State of unknown layout", at, queues));
        return;
    }
    let counts = [&header[2..4], &header[4..6]].map(|bytes| little_endian(bytes) as usize);
    let (submission, other) = queues.split_at(queues.len().min(counts[0] * SUBMISSION.bytes));
    let (completion, behind) = other.split_at(other.len().min(counts[1] * COMPLETION_SPEC.bytes));
    let table = match dialect {
        StateDialect::Specification => &COMPLETION_SPEC,
        StateDialect::NextPostPhase => &COMPLETION_NEXT,
    };
    let named = |name: &str, mut items: Vec<Structure>| {
        for item in &mut items {
            if let Some(queue) = item.fields.iter().find(|field| field.name.ends_with("QID")) {
                item.name = format!("{name}{}", queue.value).into();
            }
        }
        items
    };
    structure.lists.push(List {
        name: "IOSQ",
        title: "I/O submission queues",
        items: named("IOSQ", items(&SUBMISSION, submission, counts[0], context)),
        sparse: false,
    });
    structure.lists.push(List {
        name: "IOCQ",
        title: "I/O completion queues",
        items: named("IOCQ", items(table, completion, counts[1], context)),
        sparse: false,
    });
    let whole = |part: &[u8], table: &Table| part.len() / table.bytes * table.bytes;
    // A queue that is cut short, and bytes that the counts do not account for.
    let at = HEADER_BYTES + STATE_HEADER_BYTES;
    let cut = whole(submission, &SUBMISSION);
    structure.fields.extend(rest(at + cut, &submission[cut..]));
    let cut = whole(completion, &COMPLETION_SPEC);
    structure.fields.extend(rest(at + submission.len() + cut, &completion[cut..]));
    structure.fields.extend(rest(HEADER_BYTES + nvme.len() - behind.len(), behind));
}

fn raw(name: &'static str, title: &'static str, offset: usize, data: &[u8]) -> Field {
    Field {
        name: name.into(),
        title: title.into(),
        place: Place::Bytes { offset, length: data.len() },
        value: Value::Bytes(data.to_vec()),
        meaning: String::new(),
        bits: Vec::new(),
        reserved: false,
    }
}

fn dwords(number: u128) -> String {
    if number == 0 { "none".into() } else { size(number.saturating_mul(4)) }
}

static HEADER: Table = Table {
    name: "STATE",
    title: "Controller State",
    bytes: HEADER_BYTES,
    rows: &[
        count(0, 2, "VER", "Version of the structure"),
        hex(2, 1, "CSATTR", "Controller State Attributes").of(&[bit(0, "CSUSP", "Controller Suspended")]),
        count(16, 16, "NVMECSS", "NVMe Controller State Size in dwords").means(dwords),
        count(32, 16, "VSS", "Vendor Specific Size in dwords").means(dwords),
    ],
    groups: &[],
    meaning: |scope| match scope.number(2, 1) & 1 {
        0 => "of a controller that was not suspended".into(),
        _ => "of a suspended controller".into(),
    },
};

static STATE: Table = Table {
    name: "NVMECS",
    title: "NVMe Controller State",
    bytes: STATE_HEADER_BYTES,
    rows: &[
        count(0, 2, "NVMECS_VER", "Version of the NVMe Controller State"),
        count(2, 2, "NIOSQ", "Number of I/O Submission Queues"),
        count(4, 2, "NIOCQ", "Number of I/O Completion Queues"),
    ],
    groups: &[],
    meaning: no_meaning,
};

static SUBMISSION: Table = Table {
    name: "IOSQ",
    title: "I/O Submission Queue State",
    bytes: 24,
    rows: &[
        hex(0, 8, "IOSQPRP1", "PRP Entry 1: address of the queue or of its PRP list"),
        count(8, 2, "IOSQQSIZE", "Queue Size").means(zero_based_slots),
        count(10, 2, "IOSQQID", "Queue Identifier"),
        count(12, 2, "IOSQCQID", "Completion Queue Identifier"),
        hex(14, 2, "IOSQA", "I/O Submission Queue Attributes").of(SUBMISSION_ATTRIBUTES),
        count(16, 2, "IOSQHP", "Head Pointer: next slot to fetch"),
        count(18, 2, "IOSQTP", "Tail Pointer: as last written to the doorbell"),
    ],
    groups: &[],
    meaning: |scope| {
        let waiting = match distance(scope, 16, 18) {
            Some(0) => "nothing to fetch".into(),
            Some(commands) => format!("{} to fetch", plural(commands, "command")),
            None => "head or tail outside the queue".into(),
        };
        format!("{}, {waiting}", zero_based_slots(scope.number(8, 2)))
    },
};

const SUBMISSION_ATTRIBUTES: &[Bits] = &[
    bit(0, "PC", "Physically Contiguous"),
    bits(2, 1, "QPRIO", "Queue Priority").means(|value| choice(value, &["urgent", "high", "medium", "low"])),
];

const COMPLETION_ATTRIBUTES: &[Bits] = &[
    bit(0, "PC", "Physically Contiguous"),
    bit(1, "IEN", "Interrupts Enabled"),
    bit(2, "S0PT", "Slot 0 Phase Tag"),
    bits(31, 16, "IV", "Interrupt Vector"),
];

/// The table of completion queues whose meaning is made by `meaning`.
const fn completion(meaning: fn(&Scope<'_>) -> String) -> Table {
    Table {
        name: "IOCQ",
        title: "I/O Completion Queue State",
        bytes: 24,
        rows: const {
            &[
                hex(0, 8, "IOCQPRP1", "PRP Entry 1: address of the queue or of its PRP list"),
                count(8, 2, "IOCQQSIZE", "Queue Size").means(zero_based_slots),
                count(10, 2, "IOCQQID", "Queue Identifier"),
                count(12, 2, "IOCQHP", "Head Pointer: as last written to the doorbell"),
                count(14, 2, "IOCQTP", "Tail Pointer: next slot to post into"),
                hex(16, 4, "IOCQA", "I/O Completion Queue Attributes").of(COMPLETION_ATTRIBUTES),
            ]
        },
        groups: &[],
        meaning,
    }
}

static COMPLETION_SPEC: Table = completion(|scope| completion_meaning(scope, StateDialect::Specification));
static COMPLETION_NEXT: Table = completion(|scope| completion_meaning(scope, StateDialect::NextPostPhase));

fn completion_meaning(scope: &Scope<'_>, dialect: StateDialect) -> String {
    let waiting = match distance(scope, 12, 14) {
        Some(0) => "all consumed".into(),
        Some(entries) => format!("{} not consumed", plural(entries, "entry")),
        None => "head or tail outside the queue".into(),
    };
    let attributes = scope.number(16, 4);
    let interrupts = match attributes >> 1 & 1 {
        0 => "no interrupts".into(),
        _ => format!("vector {}", attributes >> 16),
    };
    let tail = (scope.number(14, 2) & 0xFFFF) as u16;
    let phase = u8::from(dialect.phase_for_next_post(attributes >> 2 & 1 == 1, tail));
    format!("{waiting}, {interrupts}, next phase {phase}")
}

/// Entries from the head at byte `head` to the tail at byte `tail`; `None` if either is no slot of the queue.
fn distance(scope: &Scope<'_>, head: usize, tail: usize) -> Option<u128> {
    let slots = scope.number(8, 2) + 1;
    let (head, tail) = (scope.number(head, 2), scope.number(tail, 2));
    (head < slots && tail < slots).then(|| (tail + slots - head) % slots)
}

/// Every table here, for the test of all tables.
#[cfg(test)]
pub(super) static TABLES: &[&Table] = &[&HEADER, &STATE, &SUBMISSION, &COMPLETION_SPEC, &COMPLETION_NEXT];

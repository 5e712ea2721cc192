// SPDX-License-Identifier: MIT OR Apache-2.0
//! Data of Identify commands. NVMe Base 2.1 §5.1.13, Identify command.

use nvme_core::wire::admin::IdentifyStructure;
use nvme_core::wire::identify::SupportedControllerStateFormats;

use super::table::{self, Group, Table, bit, count, dump, hex, no_meaning, rest};
use super::words::{self, plural};
use super::{Context, Field, List, Place, Structure, Value, controller, namespace};

/// Decodes the data of an Identify command with this CNS and command set (CSI).
#[must_use]
pub fn identify(cns: u8, command_set: u8, data: &[u8], context: &Context) -> Structure {
    match (cns, command_set) {
        (0x00 | 0x11, _) => namespace::NAMESPACE.decode(data, context),
        (0x01, _) => controller::CONTROLLER.decode(data, context),
        (0x02 | 0x07 | 0x10, _) => namespaces(cns, data),
        (0x03, _) => namespace::descriptors(data),
        (0x05, 0) => namespace::NVM_NAMESPACE.decode(data, context),
        (0x06, 0) => controller::NVM_CONTROLLER.decode(data, context),
        (0x08, _) => namespace::INDEPENDENT.decode(data, context),
        (0x12 | 0x13, _) => controllers(cns, data),
        (0x14, _) => PRIMARY.decode(data, context),
        (0x15, _) => secondary(data, context),
        (0x1C, _) => COMMAND_SETS.decode(data, context),
        (0x20, _) => state_formats(data),
        _ => dump("IDENTIFY", title(cns), data),
    }
}

fn title(cns: u8) -> String {
    let known = IdentifyStructure::new(cns).name();
    known.map_or_else(|| format!("Identify data, CNS {cns:02X}h"), |name| format!("{name} (CNS {cns:02X}h)"))
}

/// A list of namespace identifiers, ended by a zero.
pub(super) fn namespace_identifiers(data: &[u8]) -> (Vec<u128>, usize) {
    let all = data.chunks_exact(4).map(table::little_endian);
    let used: Vec<u128> = all.take_while(|id| *id != 0).collect();
    let end = used.len() * 4;
    (used, end)
}

/// A field that lists numbers.
pub(super) fn numbers(
    name: &'static str,
    title: &'static str,
    offset: usize,
    numbers: &[u128],
    each: usize,
) -> Field {
    Field {
        name: name.into(),
        title: title.into(),
        place: Place::Bytes { offset, length: numbers.len() * each },
        value: Value::List(numbers.iter().map(|number| Value::decimal(*number)).collect()),
        meaning: String::new(),
        bits: Vec::new(),
        reserved: false,
    }
}

fn namespaces(cns: u8, data: &[u8]) -> Structure {
    let mut structure = Structure::new("NAMESPACES", title(cns));
    let (ids, end) = namespace_identifiers(data);
    structure.meaning = plural(ids.len() as u128, "namespace");
    for pair in ids.windows(2).filter(|pair| pair[0] >= pair[1]) {
        structure
            .problems
            .push(format!("namespace {} follows {}: identifiers must ascend", pair[1], pair[0]));
    }
    structure.fields.push(numbers("NSID", "Namespace identifiers", 0, &ids, 4));
    structure.fields.extend(rest(end, &data[end..]));
    structure
}

fn controllers(cns: u8, data: &[u8]) -> Structure {
    let mut structure = Structure::new("CONTROLLERS", title(cns));
    let mut words = data.chunks_exact(2).map(table::little_endian);
    let Some(announced) = words.next() else {
        structure.problems.push(format!("{} bytes cannot hold a list", data.len()));
        structure.fields.extend(rest(0, data));
        return structure;
    };
    let ids: Vec<u128> = words.take(announced as usize).collect();
    if (ids.len() as u128) < announced {
        structure
            .problems
            .push(format!("the list announces {announced} controllers and holds {}", ids.len()));
    }
    structure.meaning = plural(ids.len() as u128, "controller");
    structure.fields.push(Field {
        value: Value::decimal(announced),
        ..numbers("NUMID", "Number of Identifiers", 0, &[0], 2)
    });
    structure.fields.push(numbers("CNTLID", "Controller identifiers", 2, &ids, 2));
    let end = 2 + ids.len() * 2;
    structure.fields.extend(rest(end, &data[end..]));
    structure
}

/// Supported Controller State Formats (CNS 20h). NVMe Base 2.1 §5.1.13.2.21. Controllers may transfer only the part of
/// the page that holds the lists.
fn state_formats(data: &[u8]) -> Structure {
    let mut structure = Structure::new("FORMATS", title(0x20));
    let [versions, uuids] = [0, 1].map(|at| data.get(at).copied().unwrap_or(0));
    let number = |at: usize, name, title, value: u8| Field {
        value: Value::decimal(value.into()),
        ..numbers(name, title, at, &[0], 1)
    };
    if data.len() < 2 {
        structure.problems.push(format!("{} bytes cannot hold the numbers of formats", data.len()));
        structure.fields.extend(rest(0, data));
        return structure;
    }
    structure.fields.push(number(0, "NV", "Number of NVMe Controller State versions", versions));
    structure.fields.push(number(1, "NUUID", "Number of vendor specific formats (UUIDs)", uuids));
    let versions_end = 2 + 2 * usize::from(versions);
    let end = versions_end + 16 * usize::from(uuids);
    let list = |from: usize, to: usize, each: usize| {
        data.get(from..to.min(data.len())).unwrap_or_default().chunks_exact(each).enumerate()
    };
    let item = |name: &str, title: &'static str, index: usize, field: Field| {
        let mut item = Structure::new(format!("{name}{}", index + 1), title);
        item.meaning = format!("index {} in migration commands", index + 1);
        item.fields.push(field);
        item
    };
    let version = |(index, bytes): (usize, &[u8])| {
        let mut field = numbers("VERS", "NVMe Controller State version", 2 + 2 * index, &[0], 2);
        field.value = Value::decimal(table::little_endian(bytes));
        item("CSVI", "Version of the NVMe Controller State", index, field)
    };
    let uuid = |(index, bytes): (usize, &[u8])| {
        let mut field = numbers("UUID", "Vendor specific format", versions_end + 16 * index, &[0], 16);
        field.value = Value::Text(words::uuid(bytes));
        item("CSUUIDI", "Vendor specific format", index, field)
    };
    let versions: Vec<Structure> = list(2, versions_end, 2).map(version).collect();
    let uuids: Vec<Structure> = list(versions_end, end, 16).map(uuid).collect();
    structure.meaning = format!(
        "{} of the NVMe state, {}",
        plural(versions.len() as u128, "version"),
        plural(uuids.len() as u128, "vendor specific format")
    );
    structure.lists.push(List {
        name: "CSVI",
        title: "NVMe Controller State versions",
        items: versions,
        sparse: false,
    });
    structure.lists.push(List {
        name: "CSUUIDI",
        title: "Vendor specific formats",
        items: uuids,
        sparse: false,
    });
    if let Err(error) = SupportedControllerStateFormats::parse(data) {
        structure.problems.push(error.to_string());
    }
    structure.fields.extend(data.get(end..).and_then(|behind| rest(end, behind)));
    structure
}

static PRIMARY: Table = Table {
    name: "PRIMARY",
    title: "Primary Controller Capabilities (CNS 14h)",
    bytes: 80,
    rows: &[
        count(0, 2, "CNTLID", "Controller Identifier"),
        count(2, 2, "PORTID", "Port Identifier"),
        hex(4, 1, "CRT", "Controller Resource Types")
            .of(&[bit(0, "VQRS", "VQ Resources Supported"), bit(1, "VIRS", "VI Resources Supported")]),
        count(32, 4, "VQFRT", "VQ Resources Flexible Total"),
        count(36, 4, "VQRFA", "VQ Resources Flexible Assigned"),
        count(40, 2, "VQRFAP", "VQ Resources Flexible Allocated to Primary"),
        count(42, 2, "VQPRT", "VQ Resources Private Total"),
        count(44, 2, "VQFRSM", "VQ Resources Flexible Secondary Maximum"),
        count(46, 2, "VQGRAN", "VQ Flexible Resource Preferred Granularity"),
        count(64, 4, "VIFRT", "VI Resources Flexible Total"),
        count(68, 4, "VIRFA", "VI Resources Flexible Assigned"),
        count(72, 2, "VIRFAP", "VI Resources Flexible Allocated to Primary"),
        count(74, 2, "VIPRT", "VI Resources Private Total"),
        count(76, 2, "VIFRSM", "VI Resources Flexible Secondary Maximum"),
        count(78, 2, "VIGRAN", "VI Flexible Resource Preferred Granularity"),
    ],
    groups: &[],
    meaning: |scope| {
        let assigned = |at: usize| format!("{} of {}", scope.number(at + 4, 4), scope.number(at, 4));
        format!("flexible resources assigned: {} queue pairs, {} vectors", assigned(32), assigned(64))
    },
};

static SECONDARY_LIST: Table = Table {
    name: "SECONDARIES",
    title: "Secondary Controller List (CNS 15h)",
    bytes: 4096,
    rows: &[count(0, 1, "NUMID", "Number of Identifiers")],
    groups: &[Group { name: "SC", title: "Secondary controllers", at: 32, count: 127, table: &SECONDARY }],
    meaning: |scope| plural(scope.number(0, 1), "secondary controller"),
};

static SECONDARY: Table = Table {
    name: "SC",
    title: "Secondary controller",
    bytes: 32,
    rows: &[
        count(0, 2, "SCID", "Secondary Controller Identifier"),
        count(2, 2, "PCID", "Primary Controller Identifier"),
        hex(4, 1, "SCS", "Secondary Controller State").of(&[bit(0, "ONLN", "Online")]),
        count(8, 2, "VFN", "Virtual Function Number"),
        count(10, 2, "NVQ", "Number of VQ Flexible Resources Assigned"),
        count(12, 2, "NVI", "Number of VI Flexible Resources Assigned"),
    ],
    groups: &[],
    meaning: |scope| if scope.number(4, 1) & 1 == 1 { "online".into() } else { "offline".into() },
};

fn secondary(data: &[u8], context: &Context) -> Structure {
    let mut structure = SECONDARY_LIST.decode(data, context);
    let announced = data.first().map_or(0, |count| usize::from(*count));
    if announced > 127 {
        structure.problems.push(format!("{announced} secondary controllers announced: at most 127 fit"));
    }
    if let Some(list) = structure.lists.first_mut() {
        // Entries that are announced are shown whatever they hold, the others only if they hold anything.
        let used = list.items.iter().rposition(|item| !item.is_zero()).map_or(0, |last| last + 1);
        list.items.truncate(used.max(announced));
        list.sparse = false;
    }
    structure
}

static COMMAND_SETS: Table = Table {
    name: "COMMAND_SETS",
    title: "I/O Command Set data structure (CNS 1Ch)",
    bytes: 4096,
    rows: &[],
    groups: &[Group {
        name: "IOCSC",
        title: "I/O Command Set Combinations",
        at: 0,
        count: 512,
        table: &COMBINATION,
    }],
    meaning: no_meaning,
};

static COMBINATION: Table = Table {
    name: "IOCSC",
    title: "I/O Command Set Combination",
    bytes: 8,
    rows: &[hex(0, 8, "IOCSC", "I/O Command Set Combination").of(&[
        bit(0, "NVM", "NVM Command Set"),
        bit(1, "KV", "Key Value Command Set"),
        bit(2, "ZNS", "Zoned Namespace Command Set"),
        bit(3, "SLM", "Subsystem Local Memory Command Set"),
        bit(4, "CP", "Computational Programs Command Set"),
    ])],
    groups: &[],
    meaning: |scope| {
        let names = [
            (0, "NVM"),
            (1, "Key Value"),
            (2, "Zoned Namespace"),
            (3, "Subsystem Local Memory"),
            (4, "Computational Programs"),
        ];
        words::set(scope.number(0, 8), &names)
    },
};

/// Every table here, for the test of all tables.
#[cfg(test)]
pub(super) static TABLES: &[&Table] = &[&PRIMARY, &SECONDARY_LIST, &SECONDARY, &COMMAND_SETS, &COMBINATION];

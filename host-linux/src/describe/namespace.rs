// SPDX-License-Identifier: MIT OR Apache-2.0
//! Identify data of namespaces: CNS 00h, 03h, 05h and 08h. NVM Command Set 1.1 §4.1.5; NVMe Base 2.1 §5.1.13.2.

use nvme_core::wire::identify::NamespaceIdentity;

use super::table::{Bits, Group, Row, Scope, Table, bit, bits, bytes, count, hex, no_meaning, rest};
use super::words::{self, choice, plural, power_size, size, size_if_stated, zero_based, zero_based_blocks};
use super::{Field, List, Place, Structure, Value};

pub(super) static NAMESPACE: Table = Table {
    name: "NAMESPACE",
    title: "Identify Namespace (CNS 00h)",
    bytes: 4096,
    rows: &[
        count(0, 8, "NSZE", "Namespace Size in blocks").within(blocks),
        count(8, 8, "NCAP", "Namespace Capacity in blocks").within(blocks),
        count(16, 8, "NUSE", "Namespace Utilization in blocks").within(blocks),
        hex(24, 1, "NSFEAT", "Namespace Features").of(&[
            bit(0, "THINP", "Thin Provisioning"),
            bit(1, "NSABP", "NAWUN, NAWUPF and NACWU are defined"),
            bit(2, "DAE", "Deallocated or Unwritten Logical Block Error"),
            bit(3, "UIDREUSE", "NGUID and EUI-64 are never reused"),
            bits(5, 4, "OPTPERF", "Optimal Performance: which preferred sizes are defined").means(|value| {
                choice(value, &["", "NPWG, NPWA, NPDG, NPDA and NOWS", "NPWG, NPWA and NOWS", "all"])
            }),
        ]),
        count(25, 1, "NLBAF", "Number of LBA Formats").means(zero_based),
        hex(26, 1, "FLBAS", "Formatted LBA Size").of(FLBAS).within(format_in_use),
        hex(27, 1, "MC", "Metadata Capabilities").of(&[
            bit(0, "MTELBA", "Metadata as part of an extended block"),
            bit(1, "MTPTR", "Metadata in a buffer of its own"),
        ]),
        hex(28, 1, "DPC", "End-to-end Data Protection Capabilities").of(&[
            bit(0, "PIT1S", "Protection Information Type 1"),
            bit(1, "PIT2S", "Protection Information Type 2"),
            bit(2, "PIT3S", "Protection Information Type 3"),
            bit(3, "PIIFB", "Protection information in the first bytes of metadata"),
            bit(4, "PIILB", "Protection information in the last bytes of metadata"),
        ]),
        hex(29, 1, "DPS", "End-to-end Data Protection Type Settings").of(&[
            bits(2, 0, "PIT", "Protection Information Type").means(|value| match value {
                0 => "none".into(),
                1..=3 => format!("type {value}"),
                _ => "reserved".into(),
            }),
            bit(3, "PIP", "Protection information stands first in the metadata"),
        ]),
        nmic(30),
        reservations(31),
        format_progress(32),
        hex(33, 1, "DLFEAT", "Deallocate Logical Block Features").of(&[
            bits(2, 0, "DULBRB", "Deallocated blocks read as")
                .means(|value| choice(value, &["not stated", "zeroes", "FFh"])),
            bit(3, "WZDS", "Write Zeroes may deallocate"),
            bit(4, "GDS", "Guard of deallocated blocks is a valid CRC"),
        ]),
        count(34, 2, "NAWUN", "Namespace Atomic Write Unit Normal").within(own_atomics),
        count(36, 2, "NAWUPF", "Namespace Atomic Write Unit Power Fail").within(own_atomics),
        count(38, 2, "NACWU", "Namespace Atomic Compare & Write Unit").within(own_atomics),
        count(40, 2, "NABSN", "Namespace Atomic Boundary Size Normal"),
        count(42, 2, "NABO", "Namespace Atomic Boundary Offset"),
        count(44, 2, "NABSPF", "Namespace Atomic Boundary Size Power Fail"),
        count(46, 2, "NOIOB", "Namespace Optimal I/O Boundary in blocks"),
        count(48, 16, "NVMCAP", "NVM Capacity").means(size_if_stated),
        count(64, 2, "NPWG", "Namespace Preferred Write Granularity").within(optimal),
        count(66, 2, "NPWA", "Namespace Preferred Write Alignment").within(optimal),
        count(68, 2, "NPDG", "Namespace Preferred Deallocate Granularity").within(optimal_deallocation),
        count(70, 2, "NPDA", "Namespace Preferred Deallocate Alignment").within(optimal_deallocation),
        count(72, 2, "NOWS", "Namespace Optimal Write Size").within(optimal),
        count(74, 2, "MSSRL", "Maximum Single Source Range Length in blocks"),
        count(76, 4, "MCL", "Maximum Copy Length in blocks"),
        count(80, 1, "MSRC", "Maximum Source Range Count").means(zero_based),
        hex(81, 1, "KPIOS", "Key Per I/O Status")
            .of(&[bit(0, "KPIOENS", "Key Per I/O Enabled"), bit(1, "KPIOSNS", "Key Per I/O Supported")]),
        count(82, 1, "NULBAF", "Number of Unique Attribute LBA Formats"),
        count(84, 4, "KPIODAAG", "Key Per I/O Data Access Alignment and Granularity"),
        count(92, 4, "ANAGRPID", "ANA Group Identifier"),
        hex(99, 1, "NSATTR", "Namespace Attributes").of(ATTRIBUTES),
        count(100, 2, "NVMSETID", "NVM Set Identifier"),
        count(102, 2, "ENDGID", "Endurance Group Identifier"),
        bytes(104, 16, "NGUID", "Namespace Globally Unique Identifier"),
        bytes(120, 8, "EUI64", "IEEE Extended Unique Identifier"),
        bytes(384, 3712, "VS", "Vendor Specific"),
    ],
    groups: &[Group { name: "LBAF", title: "LBA formats", at: 128, count: 64, table: &LBA_FORMAT }],
    meaning: |scope| match NamespaceIdentity::parse(scope.bytes) {
        Ok(Some(identity)) => {
            format!(
                "{} of {}",
                plural(identity.blocks.into(), "block"),
                plural(identity.block_bytes().into(), "byte")
            )
        }
        Ok(None) => "not active".into(),
        Err(error) => error.to_string(),
    },
};

const FLBAS: &[Bits] = &[
    bits(3, 0, "FIDXL", "Format Index, lower bits"),
    bit(4, "MTDLBA", "Metadata at the end of each block"),
    bits(6, 5, "FIDXU", "Format Index, upper bits"),
];

const ATTRIBUTES: &[Bits] = &[bit(0, "CWP", "Currently Write Protected")];

const fn nmic(at: usize) -> Row {
    hex(at, 1, "NMIC", "Namespace Multi-path I/O and Namespace Sharing Capabilities").of(const {
        &[
            bit(0, "SHRNS", "Shared Namespace: may be attached to several controllers"),
            bit(1, "DISNS", "Dispersed Namespace"),
        ]
    })
}

const fn reservations(at: usize) -> Row {
    hex(at, 1, "RESCAP", "Reservation Capabilities").of(const {
        &[
            bit(0, "PTPL", "Persist Through Power Loss"),
            bit(1, "WES", "Write Exclusive"),
            bit(2, "EAS", "Exclusive Access"),
            bit(3, "WEROS", "Write Exclusive, Registrants Only"),
            bit(4, "EAROS", "Exclusive Access, Registrants Only"),
            bit(5, "WEARS", "Write Exclusive, All Registrants"),
            bit(6, "EAARS", "Exclusive Access, All Registrants"),
            bit(7, "IEKR", "Ignore Existing Key as of revision 1.3"),
        ]
    })
}

const fn format_progress(at: usize) -> Row {
    hex(at, 1, "FPI", "Format Progress Indicator").of(const {
        &[
            bits(6, 0, "PERC", "Percent that remains to be formatted"),
            bit(7, "FPIS", "Format Progress Indicator Supported"),
        ]
    })
}

/// Index of the format in use.
fn format_index(flbas: u128) -> usize {
    ((flbas & 0xF) | ((flbas >> 1) & 0x30)) as usize
}

fn format_in_use(flbas: u128, _: &Scope<'_>) -> String {
    format!("LBAF{}", format_index(flbas))
}

/// A count of blocks as bytes, by the format in use.
fn blocks(number: u128, scope: &Scope<'_>) -> String {
    let log2 = scope.number(130 + 4 * format_index(scope.number(26, 1)), 1);
    if number == 0 || !(9..64).contains(&log2) { String::new() } else { size(number << log2) }
}

fn own_atomics(number: u128, scope: &Scope<'_>) -> String {
    if scope.number(24, 1) & 2 == 0 { String::new() } else { zero_based_blocks(number) }
}

fn optimal(number: u128, scope: &Scope<'_>) -> String {
    if scope.number(24, 1) & 0x30 == 0 { String::new() } else { zero_based_blocks(number) }
}

fn optimal_deallocation(number: u128, scope: &Scope<'_>) -> String {
    if scope.number(24, 1) & 0x10 == 0 { String::new() } else { zero_based_blocks(number) }
}

static LBA_FORMAT: Table = Table {
    name: "LBAF",
    title: "LBA Format",
    bytes: 4,
    rows: &[
        count(0, 2, "MS", "Metadata Size in bytes"),
        count(2, 1, "LBADS", "LBA Data Size, log2 of bytes"),
        hex(3, 1, "RP", "Relative Performance").of(&[bits(1, 0, "RP", "Relative Performance")
            .means(|value| choice(value, &["best", "better", "good", "degraded"]))]),
    ],
    groups: &[],
    meaning: |scope| {
        let (metadata, log2) = (scope.number(0, 2), scope.number(2, 1));
        let data = if log2 == 0 { "not available".into() } else { power_size(log2, 1) };
        let metadata = match metadata {
            0 => "no metadata".into(),
            metadata => format!("{} of metadata", plural(metadata, "byte")),
        };
        let performance = choice(scope.number(3, 1) & 3, &["best", "better", "good", "degraded"]);
        format!("{data}, {metadata}, {performance} performance")
    },
};

pub(super) static NVM_NAMESPACE: Table = Table {
    name: "NVM_NAMESPACE",
    title: "Identify Namespace of the NVM Command Set (CNS 05h)",
    bytes: 4096,
    rows: &[
        hex(0, 8, "LBSTM", "Logical Block Storage Tag Mask"),
        hex(8, 1, "PIC", "Protection Information Capabilities").of(&[
            bit(0, "PIC16BPISTS", "16b guard: storage tag supported"),
            bit(1, "PIC16BPISTM", "16b guard: storage tag mask restricted"),
            bit(2, "STCRS", "Storage Tag Check Read Support"),
            bit(3, "QPIFS", "Qualified Protection Information Format Support"),
        ]),
        hex(9, 1, "PIFA", "Protection Information Format Attribute").of(&[bits(
            2,
            0,
            "STMLA",
            "Storage Tag Masking Level Attribute",
        )
        .means(|value| choice(value, &["bit granularity", "byte granularity", "not maskable"]))]),
        count(268, 4, "NPDGL", "Namespace Preferred Deallocate Granularity Large in blocks"),
        count(272, 4, "NPRG", "Namespace Preferred Read Granularity in blocks"),
        count(276, 4, "NPRA", "Namespace Preferred Read Alignment in blocks"),
        count(280, 4, "NORS", "Namespace Optimal Read Size in blocks"),
        count(284, 4, "NPDAL", "Namespace Preferred Deallocate Alignment Large in blocks"),
    ],
    groups: &[Group {
        name: "ELBAF",
        title: "Extended LBA formats",
        at: 12,
        count: 64,
        table: &EXTENDED_FORMAT,
    }],
    meaning: no_meaning,
};

static EXTENDED_FORMAT: Table = Table {
    name: "ELBAF",
    title: "Extended LBA Format",
    bytes: 4,
    rows: &[hex(0, 4, "ELBAF", "Extended LBA Format").of(&[
        bits(6, 0, "STS", "Storage Tag Size in bits"),
        bits(8, 7, "PIF", "Protection Information Format").means(guard),
        bits(12, 9, "QPIF", "Qualified Protection Information Format").means(guard),
    ])],
    groups: &[],
    meaning: |scope| {
        let format = scope.number(0, 4);
        let guard = guard(if format >> 7 & 3 == 3 { format >> 9 & 15 } else { format >> 7 & 3 });
        format!("{guard}, storage tag of {}", plural(format & 0x7F, "bit"))
    },
};

fn guard(value: u128) -> String {
    choice(value, &["16b guard", "32b guard", "64b guard", "qualified by QPIF"])
}

pub(super) static INDEPENDENT: Table = Table {
    name: "INDEPENDENT",
    title: "I/O Command Set Independent Identify Namespace (CNS 08h)",
    bytes: 4096,
    rows: &[
        hex(0, 1, "NSFEAT", "Common Namespace Features").of(&[
            bit(3, "UIDREUSE", "NGUID and EUI-64 are never reused"),
            bit(4, "RMEDIA", "Rotational Media"),
            bit(5, "VWCNP", "Volatile Write Cache Not Present"),
        ]),
        nmic(1),
        reservations(2),
        format_progress(3),
        count(4, 4, "ANAGRPID", "ANA Group Identifier"),
        hex(8, 1, "NSATTR", "Namespace Attributes").of(ATTRIBUTES),
        count(10, 2, "NVMSETID", "NVM Set Identifier"),
        count(12, 2, "ENDGID", "Endurance Group Identifier"),
        hex(14, 1, "NSTAT", "Namespace Status").of(&[bit(0, "NRDY", "Namespace Ready")]),
    ],
    groups: &[],
    meaning: |scope| match scope.number(14, 1) & 1 {
        0 => "not ready".into(),
        _ => "ready".into(),
    },
};

/// Namespace Identification Descriptors (CNS 03h). NVMe Base 2.1 §5.1.13.2.3.
pub(super) fn descriptors(data: &[u8]) -> Structure {
    let mut structure = Structure::new("DESCRIPTORS", "Namespace Identification Descriptor list (CNS 03h)");
    let mut items = Vec::new();
    let mut at = 0;
    while let Some(&[kind, length, first, second]) = data.get(at..).and_then(<[u8]>::first_chunk) {
        let identifier = data.get(at + 4..).unwrap_or_default();
        if length == 0 {
            break;
        }
        let Some(identifier) = identifier.get(..usize::from(length)) else {
            structure.problems.push(format!(
                "the descriptor at byte {at} announces {length} bytes where {} are left",
                identifier.len()
            ));
            break;
        };
        let (expected, name) = match kind {
            1 => (Some(8), "IEEE Extended Unique Identifier"),
            2 => (Some(16), "Namespace Globally Unique Identifier"),
            3 => (Some(16), "Namespace UUID"),
            4 => (Some(1), "Command Set Identifier"),
            _ => (None, "Unknown type of identifier"),
        };
        if expected.is_some_and(|expected| expected != length) {
            structure
                .problems
                .push(format!("the descriptor at byte {at} has {length} bytes: {name} has others"));
        }
        let field =
            |name: &'static str, title: &'static str, offset: usize, length: usize, value: Value| Field {
                name: name.into(),
                title: title.into(),
                place: Place::Bytes { offset, length },
                value,
                meaning: String::new(),
                bits: Vec::new(),
                reserved: false,
            };
        let mut item = Structure::new(format!("NIDD{}", items.len()), "Namespace Identification Descriptor");
        item.meaning = match (kind, identifier) {
            (3, uuid) if length == 16 => words::uuid(uuid),
            (4, [set]) => command_set(*set).into(),
            _ => String::new(),
        };
        let mut kind = field("NIDT", "Namespace Identifier Type", at, 1, Value::decimal(kind.into()));
        kind.meaning = name.into();
        item.fields.push(kind);
        item.fields.push(field(
            "NIDL",
            "Namespace Identifier Length",
            at + 1,
            1,
            Value::decimal(length.into()),
        ));
        item.fields.extend(rest(at + 2, &[first, second]));
        item.fields.push(field(
            "NID",
            "Namespace Identifier",
            at + 4,
            identifier.len(),
            Value::Bytes(identifier.to_vec()),
        ));
        items.push(item);
        at += 4 + usize::from(length);
    }
    structure.meaning = plural(items.len() as u128, "descriptor");
    structure.lists.push(List { name: "NIDD", title: "Descriptors", items, sparse: false });
    structure.fields.extend(rest(at, data.get(at..).unwrap_or_default()));
    structure
}

/// The name of a command set (CSI).
pub(super) fn command_set(value: u8) -> &'static str {
    match value {
        0 => "NVM Command Set",
        1 => "Key Value Command Set",
        2 => "Zoned Namespace Command Set",
        3 => "Subsystem Local Memory Command Set",
        4 => "Computational Programs Command Set",
        0x30..=0x3F => "vendor specific",
        _ => "reserved",
    }
}

/// Every table here, for the test of all tables.
#[cfg(test)]
pub(super) static TABLES: &[&Table] =
    &[&NAMESPACE, &LBA_FORMAT, &NVM_NAMESPACE, &EXTENDED_FORMAT, &INDEPENDENT];

// SPDX-License-Identifier: MIT OR Apache-2.0
//! Log pages of health and errors, and what is supported. NVMe Base 2.1 §5.1.12.1. Others are in `log_more`.

use nvme_core::wire::feature::FeatureId;
use nvme_core::wire::log::LogPageId;
use nvme_core::wire::{AdminOpcode, IoOpcode};

use super::entry::status;
use super::identify::{namespace_identifiers, numbers};
use super::log_more;
use super::namespace::command_set;
use super::table::{Bits, Group, Scope, Table, bit, bits, count, dump, hex, items, no_meaning, rest, text};
use super::words::{self, choice, grouped, kelvin, minutes, percent, plural, size};
use super::{Context, List, Structure};

/// Decodes a log page, from its first byte on.
#[must_use]
pub fn log_page(page: u8, data: &[u8], context: &Context) -> Structure {
    match page {
        0x00 => by_number(SUPPORTED_PAGES.decode(data, context)),
        0x01 => errors(data, context),
        0x02 => HEALTH.decode(data, context),
        0x03 => FIRMWARE.decode(data, context),
        0x04 => changed_namespaces(data),
        0x05 => by_number(EFFECTS.decode(data, context)),
        0x12 => by_number(FEATURES.decode(data, context)),
        _ => log_more::log_page(page, data, context).unwrap_or_else(|| dump("LOG", title(page), data)),
    }
}

/// The name of a log page.
pub(super) fn title(page: u8) -> String {
    let known = LogPageId::new(page).name().or_else(|| log_more::name(page));
    known.map_or_else(|| format!("Log page {page:02X}h"), |name| format!("{name} (log page {page:02X}h)"))
}

/// Names the items of lists by the number they are about.
fn by_number(mut structure: Structure) -> Structure {
    for list in &mut structure.lists {
        for (index, item) in list.items.iter_mut().enumerate() {
            item.name = format!("{index:02X}h").into();
        }
    }
    structure
}

static SUPPORTED_PAGES: Table = Table {
    name: "PAGES",
    title: "Supported Log Pages (log page 00h)",
    bytes: 1024,
    rows: &[],
    groups: &[Group { name: "LIDS", title: "Log pages", at: 0, count: 256, table: &SUPPORTED_PAGE }],
    meaning: no_meaning,
};

static SUPPORTED_PAGE: Table = Table {
    name: "LIDS",
    title: "LID Supported and Effects",
    bytes: 4,
    rows: &[hex(0, 4, "LIDS", "LID Supported and Effects").of(&[
        bit(0, "LSUPP", "LID Supported"),
        bit(1, "IOS", "Index Offset Supported"),
        bits(31, 16, "LIDSP", "LID Specific Parameter").hex(),
    ])],
    groups: &[],
    meaning: |scope| {
        let page = scope.index as u8;
        let name = LogPageId::new(page).name().or_else(|| log_more::name(page)).unwrap_or("unnamed log page");
        if scope.number(0, 4) & 1 == 1 { name.into() } else { format!("{name}, not supported") }
    },
};

/// Error Information: as many entries as were read.
fn errors(data: &[u8], context: &Context) -> Structure {
    let mut structure = Structure::new("ERRORS", title(0x01));
    let entries = items(&ERROR, data, usize::MAX, context);
    let used = entries.iter().filter(|entry| !entry.is_zero()).count();
    structure.meaning = plural(used as u128, "error");
    let end = entries.len() * ERROR.bytes;
    structure.lists.push(List { name: "ERR", title: "Errors, newest first", items: entries, sparse: true });
    structure.fields.extend(rest(end, data.get(end..).unwrap_or_default()));
    structure
}

static ERROR: Table = Table {
    name: "ERR",
    title: "Error Information Log Entry",
    bytes: 64,
    rows: &[
        count(0, 8, "ECNT", "Error Count"),
        count(8, 2, "SQID", "Submission Queue ID").means(not_about_a_command),
        hex(10, 2, "CID", "Command ID").means(not_about_a_command),
        status(12),
        hex(14, 2, "PEL", "Parameter Error Location").means(|value| match value {
            0xFFFF => "no parameter".into(),
            value => format!("byte {} bit {} of the command", value & 0xFF, value >> 8 & 7),
        }),
        count(16, 8, "LBA", "First block with the error"),
        count(24, 4, "NSID", "Namespace"),
        hex(28, 1, "VSIA", "Vendor Specific Information Available: log page")
            .means(|value| if value == 0 { String::new() } else { format!("log page {value:02X}h") }),
        count(29, 1, "TRTYPE", "Transport Type").means(|value| match value {
            0 => String::new(),
            1 => "RDMA".into(),
            2 => "Fibre Channel".into(),
            3 => "TCP".into(),
            254 => "intra-host".into(),
            _ => "reserved".into(),
        }),
        count(30, 1, "CSI", "Command Set Indicator").means(|value| command_set((value & 0xFF) as u8).into()),
        hex(31, 1, "OPC", "Opcode"),
        hex(32, 8, "CSINFO", "Command Specific Information"),
        hex(40, 2, "TTSI", "Transport Type Specific Information"),
        count(63, 1, "LPVER", "Log Page Version"),
    ],
    groups: &[],
    meaning: |scope| {
        if scope.number(0, 8) == 0 {
            return "not in use".into();
        }
        let status = nvme_core::wire::Status::from_bits((scope.number(12, 2) >> 1 & 0x7FFF) as u16);
        status.to_string()
    },
};

fn not_about_a_command(value: u128) -> String {
    if value == 0xFFFF { "not about one command".into() } else { String::new() }
}

static HEALTH: Table = Table {
    name: "HEALTH",
    title: "SMART / Health Information (log page 02h)",
    bytes: 512,
    rows: &[
        hex(0, 1, "CW", "Critical Warning")
            .of(WARNINGS)
            .means(|value| if value == 0 { "none".into() } else { String::new() }),
        count(1, 2, "CTEMP", "Composite Temperature").means(kelvin),
        count(3, 1, "AVSP", "Available Spare").means(percent),
        count(4, 1, "AVSPT", "Available Spare Threshold").means(percent),
        count(5, 1, "PUSED", "Percentage Used").means(|value| match value {
            255 => "more than 254 %".into(),
            value => percent(value),
        }),
        hex(6, 1, "EGCWS", "Endurance Group Critical Warning Summary").of(&[
            bit(0, "EGASCBT", "Available Spare Capacity Below Threshold"),
            bit(2, "EGRD", "Reliability Degraded"),
            bit(3, "EGRO", "Read-Only"),
        ]),
        count(32, 16, "DUR", "Data Units Read").means(data_units),
        count(48, 16, "DUW", "Data Units Written").means(data_units),
        count(64, 16, "HRC", "Host Read Commands").means(grouped),
        count(80, 16, "HWC", "Host Write Commands").means(grouped),
        count(96, 16, "CBT", "Controller Busy Time").means(minutes),
        count(112, 16, "PWRC", "Power Cycles").means(grouped),
        count(128, 16, "POH", "Power On Hours")
            .means(|hours| format!("{} ({} days)", plural(hours, "hour"), grouped(hours / 24))),
        count(144, 16, "UPL", "Unexpected Power Losses").means(grouped),
        count(160, 16, "MDIE", "Media and Data Integrity Errors").means(grouped),
        count(176, 16, "NEILE", "Number of Error Information Log Entries").means(grouped),
        count(192, 4, "WCTT", "Warning Composite Temperature Time").means(minutes),
        count(196, 4, "CCTT", "Critical Composite Temperature Time").means(minutes),
        count(200, 2, "TSEN1", "Temperature Sensor 1").means(kelvin),
        count(202, 2, "TSEN2", "Temperature Sensor 2").means(kelvin),
        count(204, 2, "TSEN3", "Temperature Sensor 3").means(kelvin),
        count(206, 2, "TSEN4", "Temperature Sensor 4").means(kelvin),
        count(208, 2, "TSEN5", "Temperature Sensor 5").means(kelvin),
        count(210, 2, "TSEN6", "Temperature Sensor 6").means(kelvin),
        count(212, 2, "TSEN7", "Temperature Sensor 7").means(kelvin),
        count(214, 2, "TSEN8", "Temperature Sensor 8").means(kelvin),
        count(216, 4, "TMT1TC", "Thermal Management Temperature 1 Transition Count"),
        count(220, 4, "TMT2TC", "Thermal Management Temperature 2 Transition Count"),
        count(224, 4, "TTTMT1", "Total Time For Thermal Management Temperature 1 in seconds"),
        count(228, 4, "TTTMT2", "Total Time For Thermal Management Temperature 2 in seconds"),
    ],
    groups: &[],
    meaning: no_meaning,
};

/// The critical warnings of the health log.
pub(super) const WARNINGS: &[Bits] = &[
    bit(0, "ASCBT", "Available Spare Capacity Below Threshold"),
    bit(1, "TTC", "Temperature Threshold Condition"),
    bit(2, "NDR", "NVM Subsystem Degraded Reliability"),
    bit(3, "AMRO", "All Media Read-Only"),
    bit(4, "VMBF", "Volatile Memory Backup Failed"),
    bit(5, "PMRRO", "Persistent Memory Region unreliable or read-only"),
];

/// Thousands of 512 bytes, rounded up.
fn data_units(units: u128) -> String {
    units.checked_mul(512_000).map_or_else(String::new, size)
}

static FIRMWARE: Table = Table {
    name: "FIRMWARE",
    title: "Firmware Slot Information (log page 03h)",
    bytes: 512,
    rows: &[
        hex(0, 1, "AFI", "Active Firmware Info").of(&[
            bits(2, 0, "CFSA", "Currently Active Firmware Slot"),
            bits(6, 4, "NCLRFS", "Slot activated at the next Controller Level Reset"),
        ]),
        text(8, 8, "FRS1", "Firmware Revision for Slot 1"),
        text(16, 8, "FRS2", "Firmware Revision for Slot 2"),
        text(24, 8, "FRS3", "Firmware Revision for Slot 3"),
        text(32, 8, "FRS4", "Firmware Revision for Slot 4"),
        text(40, 8, "FRS5", "Firmware Revision for Slot 5"),
        text(48, 8, "FRS6", "Firmware Revision for Slot 6"),
        text(56, 8, "FRS7", "Firmware Revision for Slot 7"),
    ],
    groups: &[],
    meaning: no_meaning,
};

fn changed_namespaces(data: &[u8]) -> Structure {
    let mut structure = Structure::new("CHANGED", title(0x04));
    let (ids, end) = namespace_identifiers(data);
    structure.meaning = match ids.first() {
        Some(0xFFFF_FFFF) => "more namespaces changed than the page can name".into(),
        _ => plural(ids.len() as u128, "namespace"),
    };
    structure.fields.push(numbers("NSID", "Namespace identifiers", 0, &ids, 4));
    structure.fields.extend(rest(end, data.get(end..).unwrap_or_default()));
    structure
}

static EFFECTS: Table = Table {
    name: "EFFECTS",
    title: "Commands Supported and Effects (log page 05h)",
    bytes: 4096,
    rows: &[],
    groups: &[
        Group { name: "ACS", title: "Admin commands", at: 0, count: 256, table: &ADMIN_EFFECT },
        Group { name: "IOCS", title: "I/O commands", at: 1024, count: 256, table: &IO_EFFECT },
    ],
    meaning: no_meaning,
};

static ADMIN_EFFECT: Table = Table {
    name: "ACS",
    title: "Admin command",
    bytes: 4,
    rows: &[hex(0, 4, "EFFECTS", "Commands Supported and Effects").of(EFFECT)],
    groups: &[],
    meaning: |scope| {
        effect_words(AdminOpcode::new(scope.index as u8).name().unwrap_or("unnamed command"), scope)
    },
};

static IO_EFFECT: Table = Table {
    name: "IOCS",
    title: "I/O command",
    bytes: 4,
    rows: &[hex(0, 4, "EFFECTS", "Commands Supported and Effects").of(EFFECT)],
    groups: &[],
    meaning: |scope| {
        effect_words(IoOpcode::new(scope.index as u8).name().unwrap_or("unnamed command"), scope)
    },
};

const EFFECT: &[Bits] = &[
    bit(0, "CSUPP", "Command Supported"),
    bit(1, "LBCC", "Logical Block Content Change"),
    bit(2, "NCC", "Namespace Capability Change"),
    bit(3, "NIC", "Namespace Inventory Change"),
    bit(4, "CCC", "Controller Capability Change"),
    bits(15, 14, "CSER", "Command Submission and Execution Relaxations"),
    bits(18, 16, "CSE", "Command Submission and Execution").means(execution),
    bit(19, "USS", "UUID Selection Supported"),
    bits(31, 20, "CSP", "Command Scope").hex().means(scope_words),
];

const EFFECT_WORDS: &[(u8, &str)] = &[
    (1, "changes blocks"),
    (2, "changes namespace capabilities"),
    (3, "changes the namespace inventory"),
    (4, "changes controller capabilities"),
];

fn execution(value: u128) -> String {
    choice(value, &["", "alone on its namespace", "alone on any namespace"])
}

fn scope_words(value: u128) -> String {
    const SCOPES: &[(u8, &str)] = &[
        (0, "namespace"),
        (1, "controller"),
        (2, "NVM Set"),
        (3, "Endurance Group"),
        (4, "domain"),
        (5, "NVM subsystem"),
        (6, "Controller Data Queue"),
    ];
    words::set(value, SCOPES)
}

fn effect_words(name: &str, scope: &Scope<'_>) -> String {
    let effects = scope.number(0, 4);
    let mut text = name.to_string();
    if effects & 1 == 0 {
        text.push_str(", not supported");
    }
    for words in [words::set(effects, EFFECT_WORDS), execution(effects >> 16 & 7)] {
        if !words.is_empty() {
            text = format!("{text}, {words}");
        }
    }
    text
}

static FEATURES: Table = Table {
    name: "FEATURES",
    title: "Feature Identifiers Supported and Effects (log page 12h)",
    bytes: 1024,
    rows: &[],
    groups: &[Group { name: "FIS", title: "Features", at: 0, count: 256, table: &FEATURE }],
    meaning: no_meaning,
};

static FEATURE: Table = Table {
    name: "FIS",
    title: "FID Supported and Effects",
    bytes: 4,
    rows: &[hex(0, 4, "EFFECTS", "FID Supported and Effects").of(&[
        bit(0, "FSUPP", "FID Supported"),
        bit(1, "UDCC", "User Data Content Change"),
        bit(2, "NCC", "Namespace Capability Change"),
        bit(3, "NIC", "Namespace Inventory Change"),
        bit(4, "CCC", "Controller Capability Change"),
        bit(19, "USS", "UUID Selection Supported"),
        bits(31, 20, "FSP", "FID Scope").hex().means(scope_words),
    ])],
    groups: &[],
    meaning: |scope| {
        effect_words(FeatureId::new(scope.index as u8).name().unwrap_or("unnamed feature"), scope)
    },
};

/// Every table here, for the test of all tables.
#[cfg(test)]
pub(super) static TABLES: &[&Table] = &[
    &SUPPORTED_PAGES,
    &SUPPORTED_PAGE,
    &ERROR,
    &HEALTH,
    &FIRMWARE,
    &EFFECTS,
    &ADMIN_EFFECT,
    &IO_EFFECT,
    &FEATURES,
    &FEATURE,
];

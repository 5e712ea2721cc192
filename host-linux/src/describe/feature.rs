// SPDX-License-Identifier: MIT OR Apache-2.0
//! Features: what Get Features returned in completion dword 0 and in memory. NVMe Base 2.1 §5.1.25.1.

use nvme_core::wire::admin::FeatureSelect;
use nvme_core::wire::feature::FeatureId;

use super::controller_bits::OAES;
use super::log::WARNINGS;
use super::table::{Bits, Group, Row, Table, bit, bits, count, hex, no_meaning, number, rest};
use super::words::{self, choice, grouped, kelvin, milliseconds, plural, tenths_of_second, zero_based};
use super::{Context, Structure};

/// Decodes the value of a feature: completion dword 0 of Get Features and, for features that have one, its data
/// structure (`data` is empty for others). `select` is what was asked for.
#[must_use]
pub fn feature(feature: u8, select: FeatureSelect, dword0: u32, data: &[u8]) -> Structure {
    let name = FeatureId::new(feature).name().or_else(|| more_names(feature));
    let title = name
        .map_or_else(|| format!("Feature {feature:02X}h"), |name| format!("{name} (feature {feature:02X}h)"));
    let mut structure = Structure::new("FEATURE", title);
    let place = (0, 4);
    if select == FeatureSelect::SupportedCapabilities {
        structure.fields.push(number("DW0", "Capabilities", place, dword0.into(), CAPABILITIES));
        structure.fields.extend(rest(0, data));
        return structure;
    }
    let parts = dword(feature);
    structure.fields.push(number("DW0", "Completion dword 0", place, dword0.into(), parts));
    if data.is_empty() {
        return structure;
    }
    let mut decoded = match feature {
        0x0C => TRANSITIONS.decode(data, &Context::default()),
        0x0D => HOST_MEMORY.decode(data, &Context::default()),
        0x0E => TIMESTAMP.decode(data, &Context::default()),
        0x16 => HOST_BEHAVIOR.decode(data, &Context::default()),
        0x21 => DATA_QUEUE.decode(data, &Context::default()),
        0x81 => {
            let mut field = super::table::dump("HOSTID", "Host Identifier", data);
            for field in &mut field.fields {
                field.name = "HOSTID".into();
                field.title = "Host Identifier".into();
            }
            field
        }
        _ => super::table::dump("DATA", "Data", data),
    };
    // The data of this feature is longer than its fields; known controllers transfer no more than these.
    if feature == 0x21 && data.len() >= 8 {
        decoded.problems.clear();
    }
    structure.fields.append(&mut decoded.fields);
    structure.lists.append(&mut decoded.lists);
    structure.problems.append(&mut decoded.problems);
    structure.meaning = decoded.meaning;
    structure
}

fn more_names(feature: u8) -> Option<&'static str> {
    Some(match feature {
        0x03 => "LBA Range Type",
        0x05 => "Error Recovery",
        0x0A => "Write Atomicity Normal",
        0x0C => "Autonomous Power State Transition",
        0x10 => "Host Controlled Thermal Management",
        0x11 => "Non-Operational Power State Config",
        0x12 => "Read Recovery Level Config",
        0x13 => "Predictable Latency Mode Config",
        0x14 => "Predictable Latency Mode Window",
        0x15 => "LBA Status Information Report Interval",
        0x17 => "Sanitize Config",
        0x18 => "Endurance Group Event Configuration",
        0x1A => "Spinup Control",
        0x1D => "Flexible Data Placement",
        0x1E => "Flexible Data Placement Events",
        0x1F => "Namespace Admin Label",
        0x7D => "Enhanced Controller Metadata",
        0x7E => "Controller Metadata",
        0x7F => "Namespace Metadata",
        _ => return None,
    })
}

const CAPABILITIES: &[Bits] =
    &[bit(0, "SVBL", "Saveable"), bit(1, "NSSPEC", "Namespace Specific"), bit(2, "CHANG", "Changeable")];

/// The parts of completion dword 0 of a feature.
pub(super) const fn dword(feature: u8) -> &'static [Bits] {
    match feature {
        0x01 => ARBITRATION,
        0x02 => const { &[bits(4, 0, "PS", "Power State"), bits(7, 5, "WH", "Workload Hint")] },
        0x04 => TEMPERATURE,
        0x05 => {
            const {
                &[
                    bits(15, 0, "TLER", "Time Limited Error Recovery").means(tenths_of_second),
                    bit(16, "DULBE", "Deallocated or Unwritten Logical Block Error Enable"),
                ]
            }
        }
        0x06 => const { &[bit(0, "WCE", "Volatile Write Cache Enable")] },
        0x07 => {
            const {
                &[
                    bits(15, 0, "NSQA", "Number of I/O Submission Queues Allocated").means(zero_based),
                    bits(31, 16, "NCQA", "Number of I/O Completion Queues Allocated").means(zero_based),
                ]
            }
        }
        0x08 => {
            const {
                &[
                    bits(7, 0, "THR", "Aggregation Threshold").means(|value| plural(value + 1, "completion")),
                    bits(15, 8, "TIME", "Aggregation Time").means(|value| {
                        if value == 0 { "no delay".into() } else { words::microseconds(value * 100) }
                    }),
                ]
            }
        }
        0x09 => const { &[bits(15, 0, "IV", "Interrupt Vector"), bit(16, "CD", "Coalescing Disable")] },
        0x0A => const { &[bit(0, "DN", "Disable Normal")] },
        0x0B => EVENTS,
        0x0C => const { &[bit(0, "APSTE", "Autonomous Power State Transition Enable")] },
        0x0D => const { &[bit(0, "EHM", "Enable Host Memory"), bit(1, "MR", "Memory Return")] },
        0x0F => {
            const {
                &[bits(31, 0, "KATO", "Keep Alive Timeout")
                    .means(|value| if value == 0 { "disabled".into() } else { milliseconds(value) })]
            }
        }
        0x10 => {
            const {
                &[
                    bits(15, 0, "TMT2", "Thermal Management Temperature 2").means(kelvin),
                    bits(31, 16, "TMT1", "Thermal Management Temperature 1").means(kelvin),
                ]
            }
        }
        0x11 => const { &[bit(0, "NOPPME", "Non-Operational Power State Permissive Mode Enable")] },
        0x19 => const { &[bits(8, 0, "IOCSCI", "I/O Command Set Combination Index")] },
        0x21 => {
            const {
                &[
                    bits(15, 0, "CDQID", "Controller Data Queue Identifier"),
                    bit(31, "ETPT", "Enable Tail Pointer Trigger"),
                ]
            }
        }
        0x80 => const { &[bits(7, 0, "PBSLC", "Pre-boot Software Load Count")] },
        0x81 => const { &[bit(0, "EXHID", "Enable Extended Host Identifier: 128 bits")] },
        0x82 => {
            const {
                &[
                    bit(1, "REGPRE", "Mask Registration Preempted"),
                    bit(2, "RESREL", "Mask Reservation Released"),
                    bit(3, "RESPRE", "Mask Reservation Preempted"),
                ]
            }
        }
        0x83 => const { &[bit(0, "PTPL", "Persist Through Power Loss")] },
        0x84 => {
            const {
                &[bits(2, 0, "WPS", "Write Protection State").means(|value| {
                    choice(
                        value,
                        &[
                            "not protected",
                            "protected",
                            "protected until power cycle",
                            "protected permanently",
                        ],
                    )
                })]
            }
        }
        _ => &[],
    }
}

const ARBITRATION: &[Bits] = &[
    bits(2, 0, "AB", "Arbitration Burst").means(|value| match value {
        7 => "no limit".into(),
        value => plural(1 << value, "command"),
    }),
    bits(15, 8, "LPW", "Low Priority Weight").means(zero_based),
    bits(23, 16, "MPW", "Medium Priority Weight").means(zero_based),
    bits(31, 24, "HPW", "High Priority Weight").means(zero_based),
];

const TEMPERATURE: &[Bits] = &[
    bits(15, 0, "TMPTH", "Temperature Threshold").means(kelvin),
    bits(19, 16, "TMPSEL", "Threshold Temperature Select").means(|value| match value {
        0 => "composite temperature".into(),
        1..=8 => format!("sensor {value}"),
        15 => "all sensors".into(),
        _ => "reserved".into(),
    }),
    bits(21, 20, "THSEL", "Threshold Type Select").means(|value| choice(value, &["over", "under"])),
    bits(24, 22, "TMPTHH", "Temperature Threshold Hysteresis in kelvin"),
];

/// Asynchronous Event Configuration: the critical warnings and the optional events.
const EVENTS: &[Bits] = &{
    const WARNING_COUNT: usize = WARNINGS.len();
    // The field of Identify that says which events there are has no bit for this one, after its first two.
    const TELEMETRY: usize = WARNING_COUNT + 2;
    let mut all = [bit(10, "TLN", "Telemetry Log Notices"); WARNING_COUNT + 1 + OAES.len()];
    let mut index = 0;
    while index < all.len() {
        if index < WARNING_COUNT {
            all[index] = WARNINGS[index];
        } else if index != TELEMETRY {
            all[index] = OAES[index - WARNING_COUNT - (index > TELEMETRY) as usize];
        }
        index += 1;
    }
    all
};

static TRANSITIONS: Table = Table {
    name: "APST",
    title: "Autonomous Power State Transitions",
    bytes: 256,
    rows: &[],
    groups: &[Group {
        name: "APSTE",
        title: "Transitions by power state",
        at: 0,
        count: 32,
        table: &TRANSITION,
    }],
    meaning: no_meaning,
};

static TRANSITION: Table = Table {
    name: "APSTE",
    title: "Autonomous Power State Transition entry",
    bytes: 8,
    rows: &[hex(0, 8, "APSTE", "Transition").of(&[
        bits(7, 3, "ITPS", "Idle Transition Power State"),
        bits(31, 8, "ITPT", "Idle Time Prior to Transition").means(milliseconds),
    ])],
    groups: &[],
    meaning: |scope| {
        let entry = scope.number(0, 8);
        format!("to power state {} after {}", entry >> 3 & 31, milliseconds(entry >> 8 & 0xFF_FFFF))
    },
};

static HOST_MEMORY: Table = Table {
    name: "HMB",
    title: "Host Memory Buffer attributes",
    bytes: 4096,
    rows: &[
        count(0, 4, "HSIZE", "Host Memory Buffer Size in memory pages"),
        hex(4, 4, "HMDLAL", "Host Memory Descriptor List Address Lower"),
        hex(8, 4, "HMDLAU", "Host Memory Descriptor List Address Upper"),
        count(12, 4, "HMDLEC", "Host Memory Descriptor List Entry Count"),
    ],
    groups: &[],
    meaning: no_meaning,
};

static TIMESTAMP: Table = Table {
    name: "TIMESTAMP",
    title: "Timestamp",
    bytes: 8,
    rows: &[
        count(0, 6, "TMSTMP", "Timestamp").means(|value| format!("{} ms", grouped(value))),
        hex(6, 1, "ATTR", "Attributes").of(&[
            bit(0, "SYNCH", "The controller may have stopped counting"),
            bits(3, 1, "TMSTMPO", "Origin").means(|value| {
                choice(value, &["since the last reset", "set by Set Features, counted since"])
            }),
        ]),
    ],
    groups: &[],
    meaning: no_meaning,
};

static HOST_BEHAVIOR: Table = Table {
    name: "HBS",
    title: "Host Behavior Support",
    bytes: 512,
    rows: BEHAVIOR,
    groups: &[],
    meaning: no_meaning,
};

const BEHAVIOR: &[Row] = &[
    count(0, 1, "ACRE", "Advanced Command Retry Enable"),
    count(1, 1, "ETDAS", "Extended Telemetry Data Area 4 Supported"),
    count(2, 1, "LBAFEE", "LBA Format Extension Enable"),
    count(3, 1, "HDISNS", "Host Dispersed Namespace Support"),
    hex(4, 2, "CDFE", "Copy Descriptor Formats Enable").of(&[
        bit(2, "CDF2E", "Copy Descriptor Format 2h"),
        bit(3, "CDF3E", "Copy Descriptor Format 3h"),
        bit(4, "CDF4E", "Copy Descriptor Format 4h"),
    ]),
];

static DATA_QUEUE: Table = Table {
    name: "CDQ",
    title: "Controller Data Queue",
    bytes: 512,
    rows: &[
        count(0, 4, "HP", "Head Pointer: first slot not consumed"),
        count(4, 4, "TPT", "Tail Pointer Trigger: slot"),
    ],
    groups: &[],
    meaning: no_meaning,
};

/// Every table here, for the test of all tables.
#[cfg(test)]
pub(super) static TABLES: &[&Table] =
    &[&TRANSITIONS, &TRANSITION, &HOST_MEMORY, &TIMESTAMP, &HOST_BEHAVIOR, &DATA_QUEUE];

/// Every table of bits, for the test of all tables.
#[cfg(test)]
pub(super) fn bit_tables() -> Vec<(String, u32, &'static [Bits])> {
    let dwords = (0..=u8::MAX).map(|id| (format!("feature {id:#x}"), 32, dword(id)));
    dwords.chain([("capabilities".to_string(), 32, CAPABILITIES)]).collect()
}

// SPDX-License-Identifier: MIT OR Apache-2.0
//! Identify Controller (CNS 01h) and its NVM Command Set part (CNS 06h). NVMe Base 2.1 §5.1.13.2.1, Identify Controller
//! data structure; NVM Command Set 1.1 §4.1.5.3. Bit fields of the longer kind are in `controller_bits`.

use nvme_core::wire::identify::ControllerType;

use super::controller_bits::*;
use super::table::{Bits, Group, Row, Table, bit, bits, bytes, count, hex, no_meaning, text, uuid};
use super::words::{
    self, choice, kelvin, microseconds, milliseconds, no_limit_if_zero, pages_or_no_limit, power_size,
    size_if_stated, tenths_of_second, zero_based, zero_based_blocks,
};

pub(super) static CONTROLLER: Table = Table {
    name: "CONTROLLER",
    title: "Identify Controller (CNS 01h)",
    bytes: 4096,
    rows: &[
        hex(0, 2, "VID", "PCI Vendor ID"),
        hex(2, 2, "SSVID", "PCI Subsystem Vendor ID"),
        text(4, 20, "SN", "Serial Number"),
        text(24, 40, "MN", "Model Number"),
        text(64, 8, "FR", "Firmware Revision"),
        count(72, 1, "RAB", "Recommended Arbitration Burst")
            .means(|exponent| format!("2^{exponent} commands")),
        hex(73, 3, "IEEE", "IEEE OUI Identifier"),
        hex(76, 1, "CMIC", "Controller Multi-Path I/O and Namespace Sharing Capabilities").of(CMIC),
        count(77, 1, "MDTS", "Maximum Data Transfer Size").within(pages_or_no_limit),
        count(78, 2, "CNTLID", "Controller ID").means(|id| format!("controller {id} in migration commands")),
        hex(80, 4, "VER", "Version").means(words::version),
        count(84, 4, "RTD3R", "RTD3 Resume Latency").means(microseconds),
        count(88, 4, "RTD3E", "RTD3 Entry Latency").means(microseconds),
        hex(92, 4, "OAES", "Optional Asynchronous Events Supported").of(OAES),
        hex(96, 4, "CTRATT", "Controller Attributes").of(CTRATT),
        hex(100, 2, "RRLS", "Read Recovery Levels Supported"),
        hex(102, 1, "BPCAP", "Boot Partition Capabilities").of(BPCAP),
        count(104, 4, "NSSL", "NVM Subsystem Shutdown Latency").means(microseconds),
        hex(110, 1, "PLSI", "Power Loss Signaling Information").of(PLSI),
        count(111, 1, "CNTRLTYPE", "Controller Type")
            .means(|value| ControllerType::new((value & 0xFF) as u8).name().unwrap_or("reserved").into()),
        uuid(112, "FGUID", "FRU Globally Unique Identifier"),
        count(128, 2, "CRDT1", "Command Retry Delay Time 1").means(tenths_of_second),
        count(130, 2, "CRDT2", "Command Retry Delay Time 2").means(tenths_of_second),
        count(132, 2, "CRDT3", "Command Retry Delay Time 3").means(tenths_of_second),
        hex(134, 1, "CRCAP", "Controller Reachability Capabilities").of(CRCAP),
        hex(253, 1, "NVMSR", "NVM Subsystem Report").of(NVMSR),
        hex(254, 1, "VWCI", "VPD Write Cycle Information").of(VWCI),
        hex(255, 1, "MEC", "Management Endpoint Capabilities").of(MEC),
        hex(256, 2, "OACS", "Optional Admin Command Support").of(OACS),
        count(258, 1, "ACL", "Abort Command Limit").means(zero_based),
        count(259, 1, "AERL", "Asynchronous Event Request Limit").means(zero_based),
        hex(260, 1, "FRMW", "Firmware Updates").of(FRMW),
        hex(261, 1, "LPA", "Log Page Attributes").of(LPA),
        count(262, 1, "ELPE", "Error Log Page Entries").means(zero_based),
        count(263, 1, "NPSS", "Number of Power States Support").means(zero_based),
        hex(264, 1, "AVSCC", "Admin Vendor Specific Command Configuration").of(&[bit(
            0,
            "AVSCCF",
            "All vendor specific admin commands use the standard format",
        )]),
        hex(265, 1, "APSTA", "Autonomous Power State Transition Attributes").of(&[bit(
            0,
            "APSTAS",
            "Autonomous Power State Transitions Supported",
        )]),
        count(266, 2, "WCTEMP", "Warning Composite Temperature Threshold").means(kelvin),
        count(268, 2, "CCTEMP", "Critical Composite Temperature Threshold").means(kelvin),
        count(270, 2, "MTFA", "Maximum Time for Firmware Activation").means(tenths_of_second),
        count(272, 4, "HMPRE", "Host Memory Buffer Preferred Size").means(pages_of_4k),
        count(276, 4, "HMMIN", "Host Memory Buffer Minimum Size").means(pages_of_4k),
        count(280, 16, "TNVMCAP", "Total NVM Capacity").means(size_if_stated),
        count(296, 16, "UNVMCAP", "Unallocated NVM Capacity").means(size_if_stated),
        hex(312, 4, "RPMBS", "Replay Protected Memory Block Support").of(RPMBS),
        count(316, 2, "EDSTT", "Extended Device Self-test Time").means(minutes_if_stated),
        hex(318, 1, "DSTO", "Device Self-test Options").of(DSTO),
        count(319, 1, "FWUG", "Firmware Update Granularity").means(|units| match units {
            0 => String::new(),
            0xFF => "no restriction".into(),
            units => pages_of_4k(units),
        }),
        count(320, 2, "KAS", "Keep Alive Support: granularity of the timer").means(tenths_of_second),
        hex(322, 2, "HCTMA", "Host Controlled Thermal Management Attributes").of(&[bit(
            0,
            "HCTMS",
            "Host Controlled Thermal Management Supported",
        )]),
        count(324, 2, "MNTMT", "Minimum Thermal Management Temperature").means(kelvin),
        count(326, 2, "MXTMT", "Maximum Thermal Management Temperature").means(kelvin),
        hex(328, 4, "SANICAP", "Sanitize Capabilities").of(SANICAP),
        count(332, 4, "HMMINDS", "Host Memory Buffer Minimum Descriptor Entry Size").means(pages_of_4k),
        count(336, 2, "HMMAXD", "Host Memory Maximum Descriptors Entries"),
        count(338, 2, "NSETIDMAX", "NVM Set Identifier Maximum"),
        count(340, 2, "ENDGIDMAX", "Endurance Group Identifier Maximum"),
        count(342, 1, "ANATT", "ANA Transition Time in seconds"),
        hex(343, 1, "ANACAP", "Asymmetric Namespace Access Capabilities").of(ANACAP),
        count(344, 4, "ANAGRPMAX", "ANA Group Identifier Maximum"),
        count(348, 4, "NANAGRPID", "Number of ANA Group Identifiers"),
        count(352, 4, "PELS", "Persistent Event Log Size").means(|units| size_if_stated(units << 16)),
        count(356, 2, "DID", "Domain Identifier"),
        hex(358, 1, "KPIOC", "Key Per I/O Capabilities").of(&[
            bit(0, "KPIOS", "Key Per I/O Supported"),
            bit(1, "KPIOSC", "Key Per I/O Scope: all namespaces"),
        ]),
        count(360, 2, "MPTFAWR", "Maximum Processing Time for Firmware Activation Without Reset")
            .means(tenths_of_second),
        count(368, 16, "MEGCAP", "Max Endurance Group Capacity").means(size_if_stated),
        hex(384, 1, "TMPTHHA", "Temperature Threshold Hysteresis Attributes").of(&[bits(
            2,
            0,
            "TMPTHMH",
            "Temperature Threshold Maximum Hysteresis in kelvin",
        )]),
        count(386, 2, "CQT", "Command Quiesce Time").means(milliseconds_if_stated),
        hex(512, 1, "SQES", "Submission Queue Entry Size").of(ENTRY_SIZE),
        hex(513, 1, "CQES", "Completion Queue Entry Size").of(ENTRY_SIZE),
        count(514, 2, "MAXCMD", "Maximum Outstanding Commands"),
        count(516, 4, "NN", "Number of Namespaces: highest valid identifier"),
        hex(520, 2, "ONCS", "Optional NVM Command Support").of(ONCS),
        hex(522, 2, "FUSES", "Fused Operation Support").of(&[bit(
            0,
            "FCWS",
            "Fused Compare and Write Supported",
        )]),
        hex(524, 1, "FNA", "Format NVM Attributes").of(FNA),
        hex(525, 1, "VWC", "Volatile Write Cache").of(VWC),
        count(526, 2, "AWUN", "Atomic Write Unit Normal").means(zero_based_blocks),
        count(528, 2, "AWUPF", "Atomic Write Unit Power Fail").means(zero_based_blocks),
        hex(530, 1, "ICSVSCC", "I/O Command Set Vendor Specific Command Configuration").of(&[bit(
            0,
            "SNVSCCF",
            "All vendor specific I/O commands use the standard format",
        )]),
        hex(531, 1, "NWPC", "Namespace Write Protection Capabilities").of(NWPC),
        count(532, 2, "ACWU", "Atomic Compare & Write Unit").means(zero_based_blocks),
        hex(534, 2, "CDFS", "Copy Descriptor Formats Supported").of(CDFS),
        hex(536, 4, "SGLS", "SGL Support").of(SGLS),
        count(540, 4, "MNAN", "Maximum Number of Allowed Namespaces")
            .means(|value| if value == 0 { "as many as NN".into() } else { String::new() }),
        count(544, 16, "MAXDNA", "Maximum Domain Namespace Attachments"),
        count(560, 4, "MAXCNA", "Maximum I/O Controller Namespace Attachments"),
        count(564, 4, "OAQD", "Optimal Aggregated Queue Depth"),
        count(568, 1, "RHIRI", "Recommended Host-Initiated Refresh Interval"),
        count(569, 1, "HIRT", "Host-Initiated Refresh Time"),
        count(570, 2, "CMMRTD", "Controller Maximum Memory Range Tracking Descriptors"),
        count(572, 2, "NMMRTD", "NVM Subsystem Maximum Memory Range Tracking Descriptors"),
        count(574, 1, "MINMRTG", "Minimum Memory Range Tracking Granularity").means(tracking_granularity),
        count(575, 1, "MAXMRTG", "Maximum Memory Range Tracking Granularity").means(tracking_granularity),
        hex(576, 1, "TRATTR", "Tracking Attributes").of(TRATTR),
        count(578, 2, "MCUDMQ", "Maximum Controller User Data Migration Queues"),
        count(580, 2, "MNSUDMQ", "Maximum NVM Subsystem User Data Migration Queues"),
        count(582, 2, "MCMR", "Maximum CDQ Memory Ranges of one queue"),
        count(584, 2, "NMCMR", "NVM Subsystem Maximum CDQ Memory Ranges"),
        count(586, 2, "MCDQPC", "Maximum Controller Data Queue PRP Count"),
        text(768, 256, "SUBNQN", "NVM Subsystem NVMe Qualified Name"),
        count(1792, 4, "IOCCSZ", "I/O Queue Command Capsule Supported Size, in units of 16 bytes"),
        count(1796, 4, "IORCSZ", "I/O Queue Response Capsule Supported Size, in units of 16 bytes"),
        count(1800, 2, "ICDOFF", "In Capsule Data Offset, in units of 16 bytes"),
        hex(1802, 1, "FCATT", "Fabrics Controller Attributes").of(&[bit(
            0,
            "CNTRLMDL",
            "Static controller model",
        )]),
        count(1803, 1, "MSDBD", "Maximum SGL Data Block Descriptors"),
        hex(1804, 2, "OFCS", "Optional Fabrics Commands Support").of(&[bit(
            0,
            "DCS",
            "Disconnect Command Supported",
        )]),
        count(1806, 1, "DCTYPE", "Discovery Controller Type").means(|value| {
            choice(value, &["", "direct discovery controller", "central discovery controller"])
        }),
        bytes(3072, 1024, "VS", "Vendor Specific"),
    ],
    groups: &[Group { name: "PSD", title: "Power states", at: 2048, count: 32, table: &POWER_STATE }],
    meaning: no_meaning,
};

fn pages_of_4k(units: u128) -> String {
    size_if_stated(units << 12)
}

fn minutes_if_stated(number: u128) -> String {
    if number == 0 { String::new() } else { words::minutes(number) }
}

fn milliseconds_if_stated(number: u128) -> String {
    if number == 0 { String::new() } else { milliseconds(number) }
}

fn tracking_granularity(exponent: u128) -> String {
    power_size(exponent, 4096)
}

static POWER_STATE: Table = Table {
    name: "PSD",
    title: "Power State Descriptor",
    bytes: 32,
    rows: &[
        count(0, 2, "MP", "Maximum Power"),
        hex(3, 1, "FLAGS", "Flags").of(&[
            bit(0, "MXPS", "Max Power Scale: MP counts 0.0001 W, not 0.01 W"),
            bit(1, "NOPS", "Non-Operational State"),
        ]),
        count(4, 4, "ENLAT", "Entry Latency").means(microseconds),
        count(8, 4, "EXLAT", "Exit Latency").means(microseconds),
        count(12, 1, "RRT", "Relative Read Throughput"),
        count(13, 1, "RRL", "Relative Read Latency"),
        count(14, 1, "RWT", "Relative Write Throughput"),
        count(15, 1, "RWL", "Relative Write Latency"),
        count(16, 2, "IDLP", "Idle Power"),
        hex(18, 1, "IPS", "Idle Power Scale").of(POWER_SCALE),
        count(20, 2, "ACTP", "Active Power"),
        hex(22, 1, "APWS", "Active Power Workload and Scale").of(ACTIVE_POWER),
    ],
    groups: &[],
    meaning: |scope| {
        // In units of 0.1 mW.
        let power = scope.number(0, 2) * if scope.number(3, 1) & 1 == 0 { 100 } else { 1 };
        let power = if power == 0 { "power not stated".into() } else { watts(power) };
        let latency = |at: usize, what: &str| match microseconds(scope.number(at, 4)) {
            text if text.is_empty() => String::new(),
            text => format!(", {what} in {text}"),
        };
        let idle = if scope.number(3, 1) & 2 == 0 { "" } else { ", non-operational" };
        format!("{power}{}{}{idle}", latency(4, "entered"), latency(8, "left"))
    },
};

/// Tenths of a milliwatt.
fn watts(tenths_of_milliwatt: u128) -> String {
    let text = format!("{}.{:04}", tenths_of_milliwatt / 10_000, tenths_of_milliwatt % 10_000);
    format!("{} W", text.trim_end_matches('0').trim_end_matches('.'))
}

const POWER_SCALE: &[Bits] =
    &[bits(7, 6, "IPS", "Unit").means(|value| choice(value, &["", "0.0001 W", "0.01 W"]))];

const ACTIVE_POWER: &[Bits] = &[
    bits(2, 0, "APW", "Active Power Workload")
        .means(|value| choice(value, &["", "workload 1", "workload 2"])),
    bits(7, 6, "APS", "Active Power Scale").means(|value| choice(value, &["", "0.0001 W", "0.01 W"])),
];

pub(super) static NVM_CONTROLLER: Table = Table {
    name: "NVM_CONTROLLER",
    title: "Identify Controller of the NVM Command Set (CNS 06h)",
    bytes: 4096,
    rows: NVM_ROWS,
    groups: &[],
    meaning: no_meaning,
};

const NVM_ROWS: &[Row] = &[
    count(0, 1, "VSL", "Verify Size Limit").within(pages_or_no_limit),
    count(1, 1, "WZSL", "Write Zeroes Size Limit").within(pages_or_no_limit),
    count(2, 1, "WUSL", "Write Uncorrectable Size Limit").within(pages_or_no_limit),
    count(3, 1, "DMRL", "Dataset Management Ranges Limit").means(no_limit_if_zero),
    count(4, 4, "DMRSL", "Dataset Management Range Size Limit in blocks").means(no_limit_if_zero),
    count(8, 8, "DMSL", "Dataset Management Size Limit in blocks").means(no_limit_if_zero),
    hex(16, 1, "KPIOCAP", "Key Per I/O Capabilities"),
    count(17, 1, "WZDSL", "Write Zeroes with Deallocate Size Limit").within(pages_or_no_limit),
    hex(18, 2, "AOCS", "Admin Optional Command Support"),
    hex(20, 4, "VER", "Version").means(words::version),
    count(24, 1, "LBAMQF", "LBA Migration Queue Format").means(|value| match value {
        0 => "LBA Migration Queue Entry Type 0".into(),
        0xC0..=0xFF => "vendor specific".into(),
        _ => "reserved".into(),
    }),
];

/// Every table here, for the test of all tables.
#[cfg(test)]
pub(super) static TABLES: &[&Table] = &[&CONTROLLER, &POWER_STATE, &NVM_CONTROLLER];

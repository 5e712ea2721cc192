// SPDX-License-Identifier: MIT OR Apache-2.0
//! Controller properties. NVMe Base 2.1 §3.1.4, Controller Properties.

use nvme_core::wire::register::{self, Capabilities, PROPERTIES, Property};

use super::Structure;
use super::table::{Bits, bit, bits, number};
use super::words::{self, choice, power_size, size};

/// Decodes every property below the doorbells. `read` gives the 32 bits at an offset, or `None` if they cannot be read;
/// it is asked for each word at most once, in ascending order. Properties that the capabilities (CAP) say are not there
/// are not read.
pub fn registers(mut read: impl FnMut(u32) -> Option<u32>) -> Structure {
    let mut structure = Structure::new("PROPERTIES", "Controller properties");
    let mut capabilities = Capabilities::default();
    for property in PROPERTIES {
        if !is_present(property.offset, capabilities) {
            continue;
        }
        let Some(value) = read_whole(property, &mut read) else {
            structure.problems.push(format!("{} at {:#x} cannot be read", property.name, property.offset));
            continue;
        };
        if property.offset == register::CAP {
            capabilities = Capabilities::from_bits(value);
        }
        if property.offset == register::CSTS && value == u64::from(u32::MAX) {
            structure.problems.push("CSTS reads as all ones: the controller is gone".into());
        }
        let (title, parts) = layout(property.offset);
        let place = (property.offset as usize, property.size as usize);
        let mut field = number(property.name, title, place, u128::from(value), parts);
        field.meaning = meaning(property.offset, value);
        structure.fields.push(field);
    }
    structure
}

fn read_whole(property: &Property, read: &mut impl FnMut(u32) -> Option<u32>) -> Option<u64> {
    let low = read(property.offset)?;
    let high = if property.size == 8 { read(property.offset + 4)? } else { 0 };
    Some(u64::from(low) | (u64::from(high) << 32))
}

/// Whether a property exists. The location and size of the Controller Memory Buffer exist without CAP.CMBS, which came
/// later.
fn is_present(offset: u32, capabilities: Capabilities) -> bool {
    let bit = |bit: u32| capabilities.bits() >> bit & 1 == 1;
    match offset {
        register::NSSR => bit(36),
        register::BPINFO | register::BPRSEL | register::BPMBL => bit(45),
        register::PMRCAP..=register::PMRMSCU => bit(56),
        register::CMBMSC..=register::CMBSWTP => bit(57),
        register::NSSD => bit(58),
        register::CRTO => bit(59) || bit(60),
        _ => true,
    }
}

fn meaning(offset: u32, value: u64) -> String {
    let unit = |value: u64| match value & 0xF {
        0 => Some(1),
        1 => Some(1 << 10),
        2 => Some(1 << 20),
        3 => Some(1 << 30),
        _ => None,
    };
    let scaled = |value: u64| match unit(value) {
        Some(unit) => size(u128::from(value >> 8) * unit),
        None => "reserved unit".into(),
    };
    match offset {
        register::VS => words::version(u128::from(value)),
        register::CMBSZ if value != 0 => {
            let buffer = register::MemoryBufferSize::from_bits(value as u32);
            if buffer.unit_exponent() > 6 { "reserved unit".into() } else { size(u128::from(buffer.bytes())) }
        }
        register::CMBEBS | register::PMREBS => scaled(value),
        register::CMBSWTP | register::PMRSWTP => format!("{} per second", scaled(value)),
        _ => String::new(),
    }
}

fn layout(offset: u32) -> (&'static str, &'static [Bits]) {
    match offset {
        register::CAP => ("Controller Capabilities", CAP),
        register::VS => ("Version", VS),
        register::INTMS => ("Interrupt Mask Set", &[]),
        register::INTMC => ("Interrupt Mask Clear", &[]),
        register::CC => ("Controller Configuration", CC),
        register::CSTS => ("Controller Status", CSTS),
        register::NSSR => ("NVM Subsystem Reset", &[]),
        register::AQA => ("Admin Queue Attributes", AQA),
        register::ASQ => ("Admin Submission Queue Base Address", &[]),
        register::ACQ => ("Admin Completion Queue Base Address", &[]),
        register::CMBLOC => ("Controller Memory Buffer Location", CMBLOC),
        register::CMBSZ => ("Controller Memory Buffer Size", CMBSZ),
        register::BPINFO => ("Boot Partition Information", BPINFO),
        register::BPRSEL => ("Boot Partition Read Select", BPRSEL),
        register::BPMBL => ("Boot Partition Memory Buffer Location", &[]),
        register::CMBMSC => ("Controller Memory Buffer Memory Space Control", CMBMSC),
        register::CMBSTS => ("Controller Memory Buffer Status", CMBSTS),
        register::CMBEBS => ("Controller Memory Buffer Elasticity Buffer Size", CMBEBS),
        register::CMBSWTP => ("Controller Memory Buffer Sustained Write Throughput", CMBSWTP),
        register::NSSD => ("NVM Subsystem Shutdown", &[]),
        register::CRTO => ("Controller Ready Timeouts", CRTO),
        register::PMRCAP => ("Persistent Memory Region Capabilities", PMRCAP),
        register::PMRCTL => ("Persistent Memory Region Control", PMRCTL),
        register::PMRSTS => ("Persistent Memory Region Status", PMRSTS),
        register::PMREBS => ("Persistent Memory Region Elasticity Buffer Size", PMREBS),
        register::PMRSWTP => ("Persistent Memory Region Sustained Write Throughput", PMRSWTP),
        register::PMRMSCL => ("Persistent Memory Region Memory Space Control Lower", PMRMSCL),
        register::PMRMSCU => ("Persistent Memory Region Memory Space Control Upper", &[]),
        _ => ("Unknown property", &[]),
    }
}

fn page_size(exponent: u128) -> String {
    power_size(exponent, 4096)
}

fn entry_size(exponent: u128) -> String {
    if exponent == 0 { String::new() } else { power_size(exponent, 1) }
}

const CAP: &[Bits] = &[
    bits(15, 0, "MQES", "Maximum Queue Entries Supported").means(words::zero_based),
    bit(16, "CQR", "Contiguous Queues Required"),
    bits(18, 17, "AMS", "Arbitration Mechanisms Supported")
        .means(|value| words::set(value, &[(0, "weighted round robin with urgent"), (1, "vendor specific")])),
    bits(31, 24, "TO", "Timeout").means(words::half_seconds),
    bits(35, 32, "DSTRD", "Doorbell Stride").means(|exponent| power_size(exponent, 4)),
    bit(36, "NSSRS", "NVM Subsystem Reset Supported"),
    bits(44, 37, "CSS", "Command Sets Supported").hex().means(|value| {
        words::set(value, &[(0, "NVM"), (6, "one or more I/O command sets"), (7, "admin commands only")])
    }),
    bit(45, "BPS", "Boot Partition Support"),
    bits(47, 46, "CPS", "Controller Power Scope")
        .means(|value| choice(value, &["", "controller", "domain", "NVM subsystem"])),
    bits(51, 48, "MPSMIN", "Memory Page Size Minimum").means(page_size),
    bits(55, 52, "MPSMAX", "Memory Page Size Maximum").means(page_size),
    bit(56, "PMRS", "Persistent Memory Region Supported"),
    bit(57, "CMBS", "Controller Memory Buffer Supported"),
    bit(58, "NSSS", "NVM Subsystem Shutdown Supported"),
    bits(60, 59, "CRMS", "Controller Ready Modes Supported")
        .means(|value| words::set(value, &[(0, "with media"), (1, "independent of media")])),
    bit(61, "NSSES", "NVM Subsystem Shutdown Enhancements Supported"),
];

const VS: &[Bits] = &[
    bits(7, 0, "TER", "Tertiary Version"),
    bits(15, 8, "MNR", "Minor Version"),
    bits(31, 16, "MJR", "Major Version"),
];

pub(super) const CC: &[Bits] = &[
    bit(0, "EN", "Enable"),
    bits(6, 4, "CSS", "I/O Command Set Selected").means(|value| match value {
        0 => "NVM".into(),
        6 => "all supported I/O command sets".into(),
        7 => "admin commands only".into(),
        _ => "reserved".into(),
    }),
    bits(10, 7, "MPS", "Memory Page Size").means(page_size),
    bits(13, 11, "AMS", "Arbitration Mechanism Selected").means(|value| match value {
        0 => "round robin".into(),
        1 => "weighted round robin with urgent".into(),
        7 => "vendor specific".into(),
        _ => "reserved".into(),
    }),
    bits(15, 14, "SHN", "Shutdown Notification").means(|value| choice(value, &["", "normal", "abrupt"])),
    bits(19, 16, "IOSQES", "I/O Submission Queue Entry Size").means(entry_size),
    bits(23, 20, "IOCQES", "I/O Completion Queue Entry Size").means(entry_size),
    bit(24, "CRIME", "Controller Ready Independent of Media Enable"),
];

const CSTS: &[Bits] = &[
    bit(0, "RDY", "Ready"),
    bit(1, "CFS", "Controller Fatal Status"),
    bits(3, 2, "SHST", "Shutdown Status")
        .means(|value| choice(value, &["normal operation", "in progress", "complete"])),
    bit(4, "NSSRO", "NVM Subsystem Reset Occurred"),
    bit(5, "PP", "Processing Paused"),
    bit(6, "ST", "Shutdown Type: the NVM subsystem, not the controller"),
];

pub(super) const AQA: &[Bits] = &[
    bits(11, 0, "ASQS", "Admin Submission Queue Size").means(words::zero_based),
    bits(27, 16, "ACQS", "Admin Completion Queue Size").means(words::zero_based),
];

const CMBLOC: &[Bits] = &[
    bits(2, 0, "BIR", "Base Indicator Register"),
    bit(3, "CQMMS", "CMB Queue Mixed Memory Support"),
    bit(4, "CQPDS", "CMB Queue Physically Discontiguous Support"),
    bit(5, "CDPMLS", "CMB Data Pointer Mixed Locations Support"),
    bit(6, "CDPCILS", "CMB Data Pointer and Command Independent Locations Support"),
    bit(7, "CDMMMS", "CMB Data Metadata Mixed Memory Support"),
    bit(8, "CQDA", "CMB Queue Dword Alignment"),
    bits(31, 12, "OFST", "Offset, in units of CMBSZ.SZU").hex(),
];

const CMBSZ: &[Bits] = &[
    bit(0, "SQS", "Submission Queue Support"),
    bit(1, "CQS", "Completion Queue Support"),
    bit(2, "LISTS", "PRP SGL List Support"),
    bit(3, "RDS", "Read Data Support"),
    bit(4, "WDS", "Write Data Support"),
    bits(11, 8, "SZU", "Size Units").means(|unit| match unit {
        // A buffer that is not there has no units either.
        0 => String::new(),
        1..=6 => power_size(4 * unit, 4096),
        _ => "reserved".into(),
    }),
    bits(31, 12, "SZ", "Size, in units of SZU"),
];

const BPINFO: &[Bits] = &[
    bits(14, 0, "BPSZ", "Boot Partition Size").means(|units| size(units << 17)),
    bits(25, 24, "BRS", "Boot Read Status")
        .means(|value| choice(value, &["no read", "in progress", "completed", "failed"])),
    bit(31, "ABPID", "Active Boot Partition ID"),
];

const BPRSEL: &[Bits] = &[
    bits(9, 0, "BPRSZ", "Boot Partition Read Size").means(|units| size(units << 12)),
    bits(29, 10, "BPROF", "Boot Partition Read Offset").means(|units| size(units << 12)),
    bit(31, "BPID", "Boot Partition Identifier"),
];

const CMBMSC: &[Bits] = &[
    bit(0, "CRE", "Capabilities Registers Enabled"),
    bit(1, "CMSE", "Controller Memory Space Enable"),
    bits(63, 12, "CBA", "Controller Base Address, divided by 4,096").hex(),
];

const CMBSTS: &[Bits] = &[bit(0, "CBAI", "Controller Base Address Invalid")];

const CMBEBS: &[Bits] = &[
    bits(3, 0, "CMBSZU", "Elasticity Buffer Size Units").means(units),
    bit(4, "CMBRBB", "Read Bypass Behavior: reads bypass the buffer"),
    bits(31, 8, "CMBWBZ", "Elasticity Buffer Size Base"),
];

const CMBSWTP: &[Bits] = &[
    bits(3, 0, "CMBSWTU", "Sustained Write Throughput Units").means(units),
    bits(31, 8, "CMBSWTV", "Sustained Write Throughput"),
];

const CRTO: &[Bits] = &[
    bits(15, 0, "CRWMT", "Controller Ready With Media Timeout").means(words::half_seconds),
    bits(31, 16, "CRIMT", "Controller Ready Independent of Media Timeout").means(words::half_seconds),
];

const PMRCAP: &[Bits] = &[
    bit(3, "RDS", "Read Data Support"),
    bit(4, "WDS", "Write Data Support"),
    bits(7, 5, "BIR", "Base Indicator Register"),
    bits(9, 8, "PMRTU", "Persistent Memory Region Time Units")
        .means(|value| choice(value, &["500 ms", "minutes"])),
    bits(13, 10, "PMRWBM", "Persistent Memory Region Write Barrier Mechanisms").means(|value| {
        words::set(
            value,
            &[(0, "a read of the region completes writes"), (1, "a read of PMRSTS completes writes")],
        )
    }),
    bits(23, 16, "PMRTO", "Persistent Memory Region Timeout, in units of PMRTU"),
    bit(24, "CMSS", "Controller Memory Space Supported"),
];

const PMRCTL: &[Bits] = &[bit(0, "EN", "Enable")];

const PMRSTS: &[Bits] = &[
    bits(7, 0, "ERR", "Error"),
    bit(8, "NRDY", "Not Ready"),
    bits(11, 9, "HSTS", "Health Status")
        .means(|value| choice(value, &["normal", "restore error", "read only", "unreliable"])),
    bit(12, "CBAI", "Controller Base Address Invalid"),
];

const PMREBS: &[Bits] = &[
    bits(3, 0, "PMRSZU", "Elasticity Buffer Size Units").means(units),
    bit(4, "PMRRBB", "Read Bypass Behavior: reads bypass the buffer"),
    bits(31, 8, "PMRWBZ", "Elasticity Buffer Size Base"),
];

const PMRSWTP: &[Bits] = &[
    bits(3, 0, "PMRSWTU", "Sustained Write Throughput Units").means(units),
    bits(31, 8, "PMRSWTV", "Sustained Write Throughput"),
];

const PMRMSCL: &[Bits] = &[
    bit(1, "CMSE", "Controller Memory Space Enable"),
    bits(31, 12, "CBA", "Controller Base Address bits 31:12").hex(),
];

fn units(value: u128) -> String {
    choice(value, &["bytes", "KiB", "MiB", "GiB"])
}

/// Every table of bits, for the test of all tables.
#[cfg(test)]
pub(super) fn tables() -> Vec<(&'static str, u32, &'static [Bits])> {
    PROPERTIES.iter().map(|property| (property.name, property.size * 8, layout(property.offset).1)).collect()
}

// SPDX-License-Identifier: MIT OR Apache-2.0
//! Names of further log pages. NVMe Base 2.1 §5.1.12.1.

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

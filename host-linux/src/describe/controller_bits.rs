// SPDX-License-Identifier: MIT OR Apache-2.0
//! Bit fields of Identify Controller. NVMe Base 2.1 §5.1.13.2.1, Identify Controller data structure.

use super::table::{Bits, bit, bits};
use super::words::{choice, power_size, size};

pub(super) const CMIC: &[Bits] = &[
    bit(0, "MPORTS", "Multiple Ports: the NVM subsystem may have several"),
    bit(1, "MCTRS", "Multiple Controllers: the NVM subsystem may have several"),
    bit(2, "FT", "Function Type: an SR-IOV virtual function"),
    bit(3, "ANARS", "ANA Reporting Supported"),
];

pub(super) const OAES: &[Bits] = &[
    bit(8, "NSAN", "Attached Namespace Attribute Notices"),
    bit(9, "FAN", "Firmware Activation Notices"),
    bit(11, "ANACN", "Asymmetric Namespace Access Change Notices"),
    bit(12, "PLEALCN", "Predictable Latency Event Aggregate Log Change Notices"),
    bit(13, "LBASIAN", "LBA Status Information Alert Notices"),
    bit(14, "EGEALPCN", "Endurance Group Event Aggregate Log Page Change Notices"),
    bit(15, "NNSSHDN", "Normal NVM Subsystem Shutdown"),
    bit(16, "TTHR", "Temperature Threshold Hysteresis Recovery"),
    bit(17, "RASSN", "Reachability Association Notices"),
    bit(18, "RGRP", "Reachability Group Notices"),
    bit(19, "ANSAN", "Allocated Namespace Attribute Notices"),
    bit(27, "ZDCN", "Zone Descriptor Changed Notices"),
    bit(31, "DLPCN", "Discovery Log Page Change Notices"),
];

pub(super) const CTRATT: &[Bits] = &[
    bit(0, "HIDS", "Host Identifier Support: 128 bits"),
    bit(1, "NOPSPM", "Non-Operational Power State Permissive Mode"),
    bit(2, "NSETS", "NVM Sets"),
    bit(3, "RRLVLS", "Read Recovery Levels"),
    bit(4, "EGS", "Endurance Groups"),
    bit(5, "PLM", "Predictable Latency Mode"),
    bit(6, "TBKAS", "Traffic Based Keep Alive Support"),
    bit(7, "NG", "Namespace Granularity"),
    bit(8, "SQA", "SQ Associations"),
    bit(9, "ULIST", "UUID List"),
    bit(10, "MDS", "Multi-Domain Subsystem"),
    bit(11, "FCM", "Fixed Capacity Management"),
    bit(12, "VCM", "Variable Capacity Management"),
    bit(13, "DEG", "Delete Endurance Group"),
    bit(14, "DNVMS", "Delete NVM Set"),
    bit(15, "ELBAS", "Extended LBA Formats Supported"),
    bit(16, "MEM", "MDTS and Size Limits Exclude Metadata"),
    bit(17, "HMBR", "HMB Restrict Non-Operational Power State Access"),
    bit(18, "RHII", "Reservations and Host Identifier Interaction"),
    bit(19, "FDPS", "Flexible Data Placement Support"),
];

pub(super) const BPCAP: &[Bits] = &[
    bits(1, 0, "RPMBBPWPS", "RPMB Boot Partition Write Protection Support")
        .means(|value| choice(value, &["", "not supported", "supported"])),
    bit(2, "SFBPWPS", "Set Features Boot Partition Write Protection Support"),
];

pub(super) const PLSI: &[Bits] =
    &[bit(0, "PLSEPF", "PLS Emergency Power Fail"), bit(1, "PLSFQ", "PLS Forced Quiescence")];

pub(super) const CRCAP: &[Bits] = &[
    bit(0, "RRSUP", "Reachability Reporting Supported"),
    bit(1, "RGIDC", "Reachability Group ID Changeable"),
];

pub(super) const NVMSR: &[Bits] =
    &[bit(0, "NVMESD", "NVMe Storage Device"), bit(1, "NVMEE", "NVMe Enclosure")];

pub(super) const VWCI: &[Bits] =
    &[bits(6, 0, "VWCR", "VPD Write Cycles Remaining"), bit(7, "VWCRV", "VPD Write Cycles Remaining Valid")];

pub(super) const MEC: &[Bits] =
    &[bit(0, "TWPME", "2-Wire Port Management Endpoint"), bit(1, "PCIEME", "PCIe Port Management Endpoint")];

pub(super) const OACS: &[Bits] = &[
    bit(0, "SSRS", "Security Send and Receive"),
    bit(1, "FNVMS", "Format NVM"),
    bit(2, "FWDS", "Firmware Commit and Image Download"),
    bit(3, "NMS", "Namespace Management"),
    bit(4, "DSTS", "Device Self-test"),
    bit(5, "DIRS", "Directives"),
    bit(6, "NSRS", "NVMe-MI Send and Receive"),
    bit(7, "VMS", "Virtualization Management"),
    bit(8, "DBCS", "Doorbell Buffer Config"),
    bit(9, "GLSS", "Get LBA Status"),
    bit(10, "CFLS", "Command and Feature Lockdown"),
    bit(11, "HMLMS", "Host Managed Live Migration: this is a Migration Management Controller"),
];

pub(super) const FRMW: &[Bits] = &[
    bit(0, "FFSRO", "First Firmware Slot Read Only"),
    bits(3, 1, "NOFS", "Number Of Firmware Slots"),
    bit(4, "FAWR", "Firmware Activation Without Reset"),
    bit(5, "SMUD", "Support Multiple Update Detection"),
];

pub(super) const LPA: &[Bits] = &[
    bit(0, "SMARTS", "SMART / Health Information log of each namespace"),
    bit(1, "CSES", "Commands Supported and Effects log"),
    bit(2, "LPEDS", "Log Page Extended Data: offsets and long transfers"),
    bit(3, "TS", "Telemetry"),
    bit(4, "PES", "Persistent Event log"),
    bit(5, "MLPS", "Logs of what is supported (00h, 05h, 12h, 13h)"),
    bit(6, "DA4S", "Data Area 4 of Telemetry"),
];

pub(super) const RPMBS: &[Bits] = &[
    bits(2, 0, "NRPMBU", "Number of RPMB Units"),
    bits(5, 3, "AM", "Authentication Method: 0 is HMAC SHA-256")
        .means(|value| if value == 0 { String::new() } else { "reserved".into() }),
    bits(23, 16, "TS", "Total Size")
        .means(|value| if value == 0 { String::new() } else { size((value + 1) << 17) }),
    bits(31, 24, "AS", "Access Size")
        .means(|value| if value == 0 { String::new() } else { size((value + 1) << 9) }),
];

pub(super) const DSTO: &[Bits] =
    &[bit(0, "SDSO", "Single Device Self-test Operation"), bit(1, "HIRS", "Host-Initiated Refresh Support")];

pub(super) const SANICAP: &[Bits] = &[
    bit(0, "CES", "Crypto Erase Support"),
    bit(1, "BES", "Block Erase Support"),
    bit(2, "OWS", "Overwrite Support"),
    bit(3, "VERS", "Verification Support"),
    bit(29, "NDI", "No-Deallocate Inhibited"),
    bits(31, 30, "NODMMAS", "No-Deallocate Modifies Media After Sanitize")
        .means(|value| choice(value, &["", "not modified", "modified"])),
];

pub(super) const ANACAP: &[Bits] = &[
    bit(0, "ROS", "Report ANA Optimized State"),
    bit(1, "RNOS", "Report ANA Non-Optimized State"),
    bit(2, "RIAS", "Report ANA Inaccessible State"),
    bit(3, "RPLS", "Report ANA Persistent Loss State"),
    bit(4, "RCS", "Report ANA Change State"),
    bit(6, "ANAGIDC", "ANAGRPID does not change while a namespace is attached"),
    bit(7, "NZANAGID", "Namespace Management takes a nonzero ANAGRPID"),
];

pub(super) const ENTRY_SIZE: &[Bits] = &[
    bits(3, 0, "REQUIRED", "Required size").means(|exponent| power_size(exponent, 1)),
    bits(7, 4, "MAXIMUM", "Maximum size").means(|exponent| power_size(exponent, 1)),
];

pub(super) const ONCS: &[Bits] = &[
    bit(0, "NVMCMPS", "Compare"),
    bit(1, "NVMWUSV", "Write Uncorrectable"),
    bit(2, "NVMDSMSV", "Dataset Management"),
    bit(3, "NVMWZSV", "Write Zeroes"),
    bit(4, "SSFS", "Save and Select of Set Features and Get Features"),
    bit(5, "RESERVS", "Reservations"),
    bit(6, "TSS", "Timestamp feature"),
    bit(7, "NVMVFYS", "Verify"),
    bit(8, "NVMCPYS", "Copy"),
    bit(9, "NVMCSA", "Copy single atomicity"),
    bit(10, "NVMAFC", "All Fast Copy"),
    bit(11, "MAXWZD", "Maximum Write Zeroes with Deallocate"),
    bit(12, "NSZS", "Namespace Zeroes"),
];

pub(super) const FNA: &[Bits] = &[
    bit(0, "FNS", "Format applies to all namespaces"),
    bit(1, "SENS", "Secure erase applies to all namespaces"),
    bit(2, "CRYES", "Cryptographic Erase Supported"),
    bit(3, "BCNSID", "Broadcast NSID not supported"),
];

pub(super) const VWC: &[Bits] = &[
    bit(0, "VWCP", "Volatile Write Cache Present"),
    bits(2, 1, "FB", "Flush behavior for all namespaces").means(|value| {
        choice(value, &["", "reserved", "broadcast NSID not supported", "broadcast NSID supported"])
    }),
];

pub(super) const NWPC: &[Bits] = &[
    bit(0, "NWPWPS", "Write Protect state"),
    bit(1, "WPUPCS", "Write Protect Until Power Cycle state"),
    bit(2, "PWPS", "Permanent Write Protect state"),
];

pub(super) const CDFS: &[Bits] = &[
    bit(0, "CDF0S", "Copy Descriptor Format 0h"),
    bit(1, "CDF1S", "Copy Descriptor Format 1h"),
    bit(2, "CDF2S", "Copy Descriptor Format 2h"),
    bit(3, "CDF3S", "Copy Descriptor Format 3h"),
    bit(4, "CDF4S", "Copy Descriptor Format 4h"),
];

pub(super) const SGLS: &[Bits] = &[
    bits(1, 0, "SGLSS", "SGL support").means(|value| {
        choice(value, &["not supported", "supported, any alignment", "supported, dword alignment"])
    }),
    bit(2, "KSDBDS", "Keyed SGL Data Block descriptor"),
    bits(15, 8, "SDT", "SGL Descriptor Threshold"),
    bit(16, "SBBDS", "SGL Bit Bucket descriptor"),
    bit(17, "BAMPRSS", "Byte aligned contiguous metadata"),
    bit(18, "LLDTS", "SGL longer than the data"),
    bit(19, "MPTRSGLDS", "MPTR holding an SGL descriptor"),
    bit(20, "OSS", "Address as offset in a data block descriptor"),
    bit(21, "TSDBDS", "Transport SGL Data Block descriptor"),
];

pub(super) const TRATTR: &[Bits] = &[
    bit(0, "THMCS", "Track Host Memory Changes Support: Track Send and Track Receive of memory ranges"),
    bit(1, "TUDCS", "Track User Data Changes Support: User Data Migration Queues"),
    bit(2, "MRTLL", "Memory Range Tracking Length Limit: lengths are powers of two"),
];

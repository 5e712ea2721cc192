// SPDX-License-Identifier: MIT OR Apache-2.0
//! Properties of bring-up, shutdown and the admin queue.

use core::fmt;
use core::time::Duration;

use super::{bit_fields, bit_flags, property_bits};
use crate::wire::open::open_value;

/// Time-outs in properties count in this many milliseconds.
const TIMEOUT_UNIT_MS: u64 = 500;

const fn timeout(units: u16) -> Duration {
    Duration::from_millis((units as u64).wrapping_mul(TIMEOUT_UNIT_MS))
}

/// Page size in bytes of a four-bit exponent: 2^(12 + n).
const fn page_bytes(exponent: u8) -> u32 {
    1_u32.wrapping_shl(12_u32.wrapping_add((exponent & 0xF) as u32))
}

/// The four-bit exponent of a page size: the largest page that is not above `bytes`.
const fn page_exponent(bytes: u32) -> u8 {
    match bytes.checked_ilog2() {
        Some(log) if log > 27 => 15,
        Some(log) if log > 12 => log.wrapping_sub(12) as u8,
        _ => 0,
    }
}

open_value! {
    /// What a power loss notification or power state change of one controller covers (CAP.CPS): two bits.
    PowerScope(u8) {
        NOT_REPORTED = 0, "not reported";
        CONTROLLER = 1, "controller";
        DOMAIN = 2, "domain";
        SUBSYSTEM = 3, "NVM subsystem";
    }
}

property_bits! {
    /// Controller Capabilities (CAP). NVMe Base 2.1 §3.1.4.1, Figure 36.
    Capabilities(u64)
}

bit_flags! {
    Capabilities(u64) {
        /// I/O queues must be physically contiguous (CQR).
        [16] contiguous_queues_required / with_contiguous_queues_required;
        /// Weighted round robin with urgent priority class is supported (AMS).
        [17] weighted_round_robin_supported / with_weighted_round_robin_supported;
        /// A vendor specific arbitration is supported (AMS).
        [18] vendor_arbitration_supported / with_vendor_arbitration_supported;
        /// NVM Subsystem Reset is supported (NSSRS).
        [36] subsystem_reset_supported / with_subsystem_reset_supported;
        /// The NVM Command Set is supported (CSS.NCSS).
        [37] nvm_command_set_supported / with_nvm_command_set_supported;
        /// All I/O command sets can be selected together (CSS.IOCSS).
        [43] all_command_sets_supported / with_all_command_sets_supported;
        /// No I/O command set can be selected (CSS.NOIOCSS).
        [44] no_command_set_supported / with_no_command_set_supported;
        /// Boot partitions are supported (BPS).
        [45] boot_partitions_supported / with_boot_partitions_supported;
        /// A Persistent Memory Region is supported (PMRS).
        [56] persistent_memory_supported / with_persistent_memory_supported;
        /// A Controller Memory Buffer is supported (CMBS).
        [57] memory_buffer_supported / with_memory_buffer_supported;
        /// NVM Subsystem Shutdown is supported (NSSS).
        [58] subsystem_shutdown_supported / with_subsystem_shutdown_supported;
        /// Controller Ready With Media is supported (CRMS.CRWMS).
        [59] ready_with_media_supported / with_ready_with_media_supported;
        /// Controller Ready Independent of Media is supported (CRMS.CRIMS).
        [60] ready_independent_of_media_supported / with_ready_independent_of_media_supported;
        /// NVM Subsystem Shutdown Enhancements are supported (NSSES).
        [61] subsystem_shutdown_enhancements_supported / with_subsystem_shutdown_enhancements_supported;
    }
}

impl Capabilities {
    /// Most entries of an I/O queue (MQES), 1 to 65,536. Bits 15:0 hold one less.
    #[must_use]
    pub const fn max_queue_entries(self) -> u32 {
        ((self.0 & 0xFFFF) as u32).wrapping_add(1)
    }

    /// The same bits with [`max_queue_entries`](Self::max_queue_entries) set to `entries`, clamped to 1 to 65,536.
    #[must_use]
    pub const fn with_max_queue_entries(self, entries: u32) -> Self {
        let entries_z = crate::wire::command::zero_based_u16(entries);
        Self((self.0 & !0xFFFF) | entries_z as u64)
    }

    /// Longest time that CSTS.RDY takes to change (TO, bits 31:24, 500 ms units).
    #[must_use]
    pub const fn timeout(self) -> Duration {
        timeout(((self.0 >> 24) & 0xFF) as u16)
    }

    /// The same bits with TO set to `units` of 500 ms.
    #[must_use]
    pub const fn with_timeout_units(self, units: u8) -> Self {
        Self((self.0 & !(0xFF << 24)) | ((units as u64) << 24))
    }

    /// Bytes from one doorbell to the next: 4 << DSTRD (bits 35:32), 4 to 131,072.
    #[must_use]
    pub const fn doorbell_stride(self) -> u32 {
        4_u32.wrapping_shl(((self.0 >> 32) & 0xF) as u32)
    }

    /// The same bits with DSTRD set; doorbells are 4 << `exponent` bytes apart.
    #[must_use]
    pub const fn with_doorbell_stride_exponent(self, exponent: u8) -> Self {
        Self((self.0 & !(0xF << 32)) | ((exponent as u64 & 0xF) << 32))
    }

    /// What power state changes cover (CPS, bits 47:46).
    #[must_use]
    pub const fn power_scope(self) -> PowerScope {
        PowerScope::new(((self.0 >> 46) & 3) as u8)
    }

    /// The same bits with [`power_scope`](Self::power_scope) set to `scope`.
    #[must_use]
    pub const fn with_power_scope(self, scope: PowerScope) -> Self {
        Self((self.0 & !(3 << 46)) | ((scope.get() as u64 & 3) << 46))
    }

    /// Smallest memory page in bytes (MPSMIN, bits 51:48).
    #[must_use]
    pub const fn min_page_size(self) -> u32 {
        page_bytes(((self.0 >> 48) & 0xF) as u8)
    }

    /// The same bits with MPSMIN set to the largest page size that is not above `bytes` (4 KiB at least).
    #[must_use]
    pub const fn with_min_page_size(self, bytes: u32) -> Self {
        Self((self.0 & !(0xF << 48)) | ((page_exponent(bytes) as u64) << 48))
    }

    /// Largest memory page in bytes (MPSMAX, bits 55:52).
    #[must_use]
    pub const fn max_page_size(self) -> u32 {
        page_bytes(((self.0 >> 52) & 0xF) as u8)
    }

    /// The same bits with MPSMAX set to the largest page size that is not above `bytes` (4 KiB at least).
    #[must_use]
    pub const fn with_max_page_size(self, bytes: u32) -> Self {
        Self((self.0 & !(0xF << 52)) | ((page_exponent(bytes) as u64) << 52))
    }
}

property_bits! {
    /// Version (VS): which revision of the specification the controller follows. NVMe Base 2.1 §3.1.4.2.
    Version(u32)
}

bit_fields! {
    Version(u32) {
        /// Major version (MJR).
        [31:16] major / with_major: u16;
        /// Minor version (MNR).
        [15:8] minor / with_minor: u8;
        /// Tertiary version (TER).
        [7:0] tertiary / with_tertiary: u8;
    }
}

impl Version {
    /// Revision 2.1.
    pub const V2_1: Self = Self(0x0002_0100);
    /// Revision 2.2.
    pub const V2_2: Self = Self(0x0002_0200);
}

impl PartialOrd for Version {
    fn partial_cmp(&self, other: &Self) -> Option<core::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Version {
    fn cmp(&self, other: &Self) -> core::cmp::Ordering {
        self.0.cmp(&other.0)
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.major(), self.minor())?;
        if self.tertiary() != 0 { write!(f, ".{}", self.tertiary()) } else { Ok(()) }
    }
}

open_value! {
    /// I/O command sets selected (CC.CSS): three bits.
    CommandSetSelection(u8) {
        NVM = 0b000, "NVM Command Set";
        ALL_SUPPORTED = 0b110, "all supported I/O command sets";
        ADMIN_ONLY = 0b111, "admin command set only";
    }
}

open_value! {
    /// Arbitration mechanism selected (CC.AMS): three bits.
    Arbitration(u8) {
        ROUND_ROBIN = 0b000, "round robin";
        WEIGHTED_ROUND_ROBIN = 0b001, "weighted round robin with urgent priority class";
        VENDOR = 0b111, "vendor specific";
    }
}

/// Shutdown asked for (CC.SHN).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ShutdownNotification {
    /// 00b: none.
    #[default]
    None,
    /// 01b: normal shutdown.
    Normal,
    /// 10b: abrupt shutdown.
    Abrupt,
    /// 11b: reserved.
    Reserved,
}

property_bits! {
    /// Controller Configuration (CC). NVMe Base 2.1 §3.1.4.5, Figure 41.
    ControllerConfiguration(u32)
}

bit_flags! {
    ControllerConfiguration(u32) {
        /// Enable (EN). Set it only while CSTS.RDY is 0 and clear it only while CSTS.RDY is 1.
        [0] enabled / with_enabled;
        /// Controller Ready Independent of Media Enable (CRIME); latched when EN goes from 0 to 1.
        [24] ready_independent_of_media / with_ready_independent_of_media;
    }
}

bit_fields! {
    ControllerConfiguration(u32) {
        /// Binary logarithm of the I/O submission queue entry size (IOSQES), 6 for the NVM Command Set.
        [19:16] submission_entry_exponent / with_submission_entry_exponent: u8;
        /// Binary logarithm of the I/O completion queue entry size (IOCQES), 4 for the NVM Command Set.
        [23:20] completion_entry_exponent / with_completion_entry_exponent: u8;
    }
}

impl ControllerConfiguration {
    /// I/O command sets selected (CSS, bits 6:4).
    #[must_use]
    pub const fn command_sets(self) -> CommandSetSelection {
        CommandSetSelection::new(((self.0 >> 4) & 7) as u8)
    }

    /// The same bits with CSS set; only while not enabled.
    #[must_use]
    pub const fn with_command_sets(self, selection: CommandSetSelection) -> Self {
        Self((self.0 & !(7 << 4)) | ((selection.get() as u32 & 7) << 4))
    }

    /// Memory page size in bytes (MPS, bits 10:7).
    #[must_use]
    pub const fn page_size(self) -> u32 {
        page_bytes(((self.0 >> 7) & 0xF) as u8)
    }

    /// The same bits with MPS set to the largest page size that is not above `bytes` (4 KiB at least); only while
    /// not enabled.
    #[must_use]
    pub const fn with_page_size(self, bytes: u32) -> Self {
        Self((self.0 & !(0xF << 7)) | ((page_exponent(bytes) as u32) << 7))
    }

    /// Arbitration selected (AMS, bits 13:11).
    #[must_use]
    pub const fn arbitration(self) -> Arbitration {
        Arbitration::new(((self.0 >> 11) & 7) as u8)
    }

    /// The same bits with AMS set; only while not enabled.
    #[must_use]
    pub const fn with_arbitration(self, arbitration: Arbitration) -> Self {
        Self((self.0 & !(7 << 11)) | ((arbitration.get() as u32 & 7) << 11))
    }

    /// Shutdown asked for (SHN, bits 15:14).
    #[must_use]
    pub const fn shutdown(self) -> ShutdownNotification {
        match (self.0 >> 14) & 3 {
            0 => ShutdownNotification::None,
            1 => ShutdownNotification::Normal,
            2 => ShutdownNotification::Abrupt,
            _ => ShutdownNotification::Reserved,
        }
    }

    /// The same bits with SHN set.
    #[must_use]
    pub const fn with_shutdown(self, shutdown: ShutdownNotification) -> Self {
        let bits: u32 = match shutdown {
            ShutdownNotification::None => 0,
            ShutdownNotification::Normal => 1,
            ShutdownNotification::Abrupt => 2,
            ShutdownNotification::Reserved => 3,
        };
        Self((self.0 & !(3 << 14)) | (bits << 14))
    }
}

/// How far a shutdown has come (CSTS.SHST).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ShutdownStatus {
    /// 00b: normal operation, no shutdown was asked for.
    #[default]
    Normal,
    /// 01b: in progress.
    InProgress,
    /// 10b: complete.
    Complete,
    /// 11b: reserved.
    Reserved,
}

property_bits! {
    /// Controller Status (CSTS). NVMe Base 2.1 §3.1.4.6, Figure 42.
    ///
    /// Ask [`is_removed`](Self::is_removed) before any other bit.
    ControllerStatus(u32)
}

bit_flags! {
    ControllerStatus(u32) {
        /// Ready (RDY).
        [0] ready / with_ready;
        /// Controller Fatal Status (CFS): only a reset recovers.
        [1] fatal / with_fatal;
        /// NVM Subsystem Reset Occurred (NSSRO); writing 1 clears it.
        [4] subsystem_reset_occurred / with_subsystem_reset_occurred;
        /// Processing Paused (PP); valid while enabled and ready.
        [5] processing_paused / with_processing_paused;
        /// Shutdown Type (ST): the shutdown status is about the NVM subsystem rather than the controller.
        [6] subsystem_shutdown / with_subsystem_shutdown;
    }
}

impl ControllerStatus {
    /// Whether the device is gone: surprise removal or a lost link reads as all ones.
    #[must_use]
    pub const fn is_removed(self) -> bool {
        self.0 == u32::MAX
    }

    /// How far a shutdown has come (SHST, bits 3:2).
    #[must_use]
    pub const fn shutdown(self) -> ShutdownStatus {
        match (self.0 >> 2) & 3 {
            0 => ShutdownStatus::Normal,
            1 => ShutdownStatus::InProgress,
            2 => ShutdownStatus::Complete,
            _ => ShutdownStatus::Reserved,
        }
    }

    /// The same bits with SHST set.
    #[must_use]
    pub const fn with_shutdown(self, status: ShutdownStatus) -> Self {
        let bits: u32 = match status {
            ShutdownStatus::Normal => 0,
            ShutdownStatus::InProgress => 1,
            ShutdownStatus::Complete => 2,
            ShutdownStatus::Reserved => 3,
        };
        Self((self.0 & !(3 << 2)) | (bits << 2))
    }
}

property_bits! {
    /// Admin Queue Attributes (AQA). NVMe Base 2.1 §3.1.4.8.
    AdminQueueAttributes(u32)
}

/// A queue size of 1 to 4,096 entries as a 12-bit zero-based field.
const fn admin_entries_z(entries: u16) -> u32 {
    let entries_z = entries.saturating_sub(1);
    if entries_z > 0xFFF { 0xFFF } else { entries_z as u32 }
}

impl AdminQueueAttributes {
    /// Entries of the admin submission queue (ASQS), 1 to 4,096, of which 1 is illegal. Bits 11:0 hold one less.
    #[must_use]
    pub const fn submission_entries(self) -> u16 {
        ((self.0 & 0xFFF) as u16).wrapping_add(1)
    }

    /// The same bits with ASQS set for `entries`, clamped to 1 to 4,096.
    #[must_use]
    pub const fn with_submission_entries(self, entries: u16) -> Self {
        Self((self.0 & !0xFFF) | admin_entries_z(entries))
    }

    /// Entries of the admin completion queue (ACQS), 1 to 4,096, of which 1 is illegal. Bits 27:16 hold one less.
    #[must_use]
    pub const fn completion_entries(self) -> u16 {
        (((self.0 >> 16) & 0xFFF) as u16).wrapping_add(1)
    }

    /// The same bits with ACQS set for `entries`, clamped to 1 to 4,096.
    #[must_use]
    pub const fn with_completion_entries(self, entries: u16) -> Self {
        Self((self.0 & !(0xFFF << 16)) | (admin_entries_z(entries) << 16))
    }
}

property_bits! {
    /// Controller Ready Timeouts (CRTO). NVMe Base 2.1 §3.1.4.
    ControllerReadyTimeouts(u32)
}

bit_fields! {
    ControllerReadyTimeouts(u32) {
        /// Controller Ready With Media Timeout (CRWMT) in units of 500 ms.
        [15:0] media_units / with_media_units: u16;
        /// Controller Ready Independent of Media Timeout (CRIMT) in units of 500 ms.
        [31:16] independent_of_media_units / with_independent_of_media_units: u16;
    }
}

impl ControllerReadyTimeouts {
    /// Longest time until the controller is ready with its media (CC.CRIME = 0).
    #[must_use]
    pub const fn ready_with_media(self) -> Duration {
        timeout(self.media_units())
    }

    /// Longest time until the controller is ready independent of its media (CC.CRIME = 1).
    #[must_use]
    pub const fn ready_independent_of_media(self) -> Duration {
        timeout(self.independent_of_media_units())
    }
}

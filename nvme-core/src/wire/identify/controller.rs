// SPDX-License-Identifier: MIT OR Apache-2.0
//! Identify Controller with natural values. NVMe Base 2.1 §5.1.13.2.1, Identify Controller data structure.

use bitflags::bitflags;
use zerocopy::byteorder::little_endian::{U16, U32, U128};
use zerocopy::{FromBytes, IntoBytes};

use super::{
    IdentifyController, IdentifyError, IdentifyPage, PAGE_BYTES, PowerState, SubsystemName, Text,
    one_based_u8, one_based_u16, short, zero_based_u8, zero_based_u16,
};
use crate::wire::open::open_value;
use crate::wire::{ControllerId, InvalidField, ManagerId};

open_value! {
    /// Controller Type (CNTRLTYPE).
    ControllerType(u8) {
        NOT_REPORTED = 0, "not reported";
        IO = 1, "I/O controller";
        DISCOVERY = 2, "discovery controller";
        ADMINISTRATIVE = 3, "administrative controller";
    }
}

bitflags! {
    /// Optional Admin Command Support (OACS). Bits without a name are kept.
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
    pub struct OptionalAdminCommands: u16 {
        /// Security Send and Security Receive.
        const SECURITY = 1 << 0;
        /// Format NVM.
        const FORMAT = 1 << 1;
        /// Firmware Commit and Firmware Image Download.
        const FIRMWARE = 1 << 2;
        /// Namespace Management and Namespace Attachment.
        const NAMESPACE_MANAGEMENT = 1 << 3;
        /// Device Self-test.
        const SELF_TEST = 1 << 4;
        /// Directives.
        const DIRECTIVES = 1 << 5;
        /// NVMe-MI Send and NVMe-MI Receive.
        const NVME_MI = 1 << 6;
        /// Virtualization Management.
        const VIRTUALIZATION_MANAGEMENT = 1 << 7;
        /// Doorbell Buffer Config.
        const DOORBELL_BUFFER = 1 << 8;
        /// Get LBA Status.
        const GET_LBA_STATUS = 1 << 9;
        /// Command and Feature Lockdown.
        const LOCKDOWN = 1 << 10;
        /// Host Managed Live Migration (HMLMS): this is a Migration Management Controller.
        const HOST_MANAGED_LIVE_MIGRATION = 1 << 11;
        const _ = !0;
    }

    /// Optional NVM Command Support (ONCS). Bits without a name are kept.
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
    pub struct OptionalNvmCommands: u16 {
        /// Compare.
        const COMPARE = 1 << 0;
        /// Write Uncorrectable.
        const WRITE_UNCORRECTABLE = 1 << 1;
        /// Dataset Management.
        const DATASET_MANAGEMENT = 1 << 2;
        /// Write Zeroes.
        const WRITE_ZEROES = 1 << 3;
        /// Save field of Set Features and Select field of Get Features.
        const SAVE_SELECT = 1 << 4;
        /// Reservations.
        const RESERVATIONS = 1 << 5;
        /// Timestamp feature.
        const TIMESTAMP = 1 << 6;
        /// Verify.
        const VERIFY = 1 << 7;
        /// Copy.
        const COPY = 1 << 8;
        const _ = !0;
    }

    /// Tracking Attributes (TRATTR). Bits without a name are kept.
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
    pub struct TrackingAttributes: u8 {
        /// Track Host Memory Changes (THMCS): Track Send SEL 1h and Track Receive.
        const HOST_MEMORY = 1 << 0;
        /// Track User Data Changes (TUDCS): Track Send SEL 0h and User Data Migration Queues.
        const USER_DATA = 1 << 1;
        /// Memory Range Tracking Length Limit (MRTLL): lengths of tracked ranges are powers of two.
        const POWER_OF_TWO_LENGTHS = 1 << 2;
        const _ = !0;
    }
}

/// Size of queue entries as powers of two (SQES, CQES).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EntrySizes {
    /// Smallest size required, log2 of bytes, 0 to 15.
    pub required: u8,
    /// Largest size supported, log2 of bytes, 0 to 15.
    pub maximum: u8,
}

impl EntrySizes {
    fn from_field(field: u8) -> Self {
        Self { required: field & 0xF, maximum: field >> 4 }
    }

    fn field(self) -> u8 {
        (self.required & 0xF) | (self.maximum << 4)
    }

    /// Whether entries of 2^`log2` bytes may be used.
    #[must_use]
    pub const fn allows(self, log2: u8) -> bool {
        self.required <= log2 && log2 <= self.maximum
    }
}

/// What a managing controller can track. Counts are plain, not zero-based.
///
/// Zero means none, but a known controller model reports 0 for limits that are not 0: with
/// [`TrackingAttributes::USER_DATA`] set, try instead of refusing on 0.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MigrationLimits {
    /// What can be tracked (TRATTR).
    pub tracking: TrackingAttributes,
    /// Memory Range Tracking Descriptors of this controller (CMMRTD).
    pub controller_tracking_descriptors: u16,
    /// Memory Range Tracking Descriptors of the subsystem (NMMRTD).
    pub subsystem_tracking_descriptors: u16,
    /// Smallest granularity (MINMRTG): n of 2^n times 4 KiB.
    pub minimum_granularity: u8,
    /// Largest granularity (MAXMRTG): n of 2^n times 4 KiB.
    pub maximum_granularity: u8,
    /// User Data Migration Queues of this controller (MCUDMQ).
    pub controller_queues: u16,
    /// User Data Migration Queues of the subsystem (MNSUDMQ).
    pub subsystem_queues: u16,
    /// Memory ranges of one Controller Data Queue (MCMR).
    pub queue_memory_ranges: u16,
    /// Memory ranges of all Controller Data Queues of the subsystem (NMCMR).
    pub subsystem_memory_ranges: u16,
    /// PRP entries in the list of one Controller Data Queue (MCDQPC).
    pub queue_prps: u16,
}

/// What a controller says about itself. Values are natural: counts are counts, texts are trimmed when shown.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ControllerIdentity {
    /// PCI vendor (VID).
    pub vendor: u16,
    /// PCI subsystem vendor (SSVID).
    pub subsystem_vendor: u16,
    /// Serial number (SN).
    pub serial_number: Text<20>,
    /// Model number (MN).
    pub model_number: Text<40>,
    /// Firmware revision (FR).
    pub firmware_revision: Text<8>,
    /// Recommended arbitration burst (RAB), log2 of commands.
    pub arbitration_burst_log2: u8,
    /// IEEE OUI, as it stands: least significant byte first.
    pub ieee: [u8; 3],
    /// Multi-path and sharing (CMIC): bit 0 several ports, 1 several controllers, 2 SR-IOV function, 3 asymmetric access.
    pub sharing: u8,
    /// Maximum data transfer size (MDTS), log2 of minimum memory pages; 0 for no limit.
    pub max_transfer_log2: u8,
    /// Controller identifier (CNTLID): the one used by all migration and Controller Data Queue commands.
    pub controller: ControllerId,
    /// Version (VER), as in property VS.
    pub version: u32,
    /// Time to resume from RTD3 in microseconds (RTD3R); 0 if not stated.
    pub rtd3_resume: u32,
    /// Time to enter RTD3 in microseconds (RTD3E); 0 if not stated.
    pub rtd3_entry: u32,
    /// Optional asynchronous events (OAES), one bit for each bit of Asynchronous Event Configuration.
    pub optional_events: u32,
    /// Controller attributes (CTRATT).
    pub attributes: u32,
    /// What kind of controller (CNTRLTYPE).
    pub controller_type: ControllerType,
    /// Command retry delays 1 to 3 (CRDT) in units of 100 ms.
    pub retry_delays: [u16; 3],
    /// Optional admin commands (OACS).
    pub admin_commands: OptionalAdminCommands,
    /// Abort commands that may be outstanding (ACL), 1 to 256.
    pub abort_limit: u16,
    /// Asynchronous Event Requests that may be outstanding (AERL), 1 to 256.
    pub event_request_limit: u16,
    /// Firmware updates (FRMW).
    pub firmware_updates: u8,
    /// Log page attributes (LPA): bit 1 effects log, bit 2 extended data.
    pub log_page_attributes: u8,
    /// Entries of the Error Information log (ELPE), 1 to 256.
    pub error_log_entries: u16,
    /// Number of power states (NPSS), 1 to 32.
    pub power_state_count: u8,
    /// Preferred size of the host memory buffer in 4 KiB units (HMPRE); 0 beside a managing controller.
    pub host_memory_preferred: u32,
    /// Capacity of the subsystem in bytes (TNVMCAP).
    pub total_capacity: u128,
    /// Capacity not allocated in bytes (UNVMCAP).
    pub unallocated_capacity: u128,
    /// Granularity of the Keep Alive timer in units of 100 ms (KAS); 0 if there is none.
    pub keep_alive_granularity: u16,
    /// Sizes of submission queue entries (SQES).
    pub submission_entry_sizes: EntrySizes,
    /// Sizes of completion queue entries (CQES).
    pub completion_entry_sizes: EntrySizes,
    /// Commands that may be outstanding at once (MAXCMD); 0 if not stated.
    pub max_outstanding_commands: u16,
    /// Highest valid namespace identifier (NN).
    pub namespace_count: u32,
    /// Optional NVM commands (ONCS).
    pub nvm_commands: OptionalNvmCommands,
    /// Fused operations (FUSES): bit 0 Compare and Write.
    pub fused_operations: u16,
    /// Format NVM attributes (FNA).
    pub format_attributes: u8,
    /// A volatile write cache is present (VWC bit 0).
    pub volatile_write_cache: bool,
    /// How Flush behaves for all namespaces (VWC bits 2:1), 0 to 3.
    pub flush_behavior: u8,
    /// Blocks written atomically in normal operation (AWUN), 1 to 65,536.
    pub atomic_write_blocks: u32,
    /// Blocks written atomically across power failure (AWUPF), 1 to 65,536.
    pub atomic_write_power_fail_blocks: u32,
    /// Blocks of an atomic Compare and Write (ACWU), 1 to 65,536.
    pub atomic_compare_write_blocks: u32,
    /// Copy descriptor formats (OCFS), one bit each.
    pub copy_formats: u16,
    /// SGL support (SGLS).
    pub sgl_support: u32,
    /// Namespaces that may be attached (MNAN); 0 for as many as the highest identifier.
    pub max_allowed_namespaces: u32,
    /// What the controller can track, if it manages migrations.
    pub migration: MigrationLimits,
    /// Name of the subsystem (SUBNQN).
    pub subsystem_name: SubsystemName,
    /// Power states, of which [`power_state_count`](Self::power_state_count) are valid.
    pub power_states: [PowerState; 32],
}

impl Default for ControllerIdentity {
    /// An I/O controller with 64-byte and 16-byte queue entries, one of everything that is at least one, and nothing
    /// else.
    fn default() -> Self {
        Self {
            vendor: 0,
            subsystem_vendor: 0,
            serial_number: Text::BLANK,
            model_number: Text::BLANK,
            firmware_revision: Text::BLANK,
            arbitration_burst_log2: 0,
            ieee: [0; 3],
            sharing: 0,
            max_transfer_log2: 0,
            controller: ControllerId::new(0),
            version: 0,
            rtd3_resume: 0,
            rtd3_entry: 0,
            optional_events: 0,
            attributes: 0,
            controller_type: ControllerType::IO,
            retry_delays: [0; 3],
            admin_commands: OptionalAdminCommands::empty(),
            abort_limit: 1,
            event_request_limit: 1,
            firmware_updates: 0,
            log_page_attributes: 0,
            error_log_entries: 1,
            power_state_count: 1,
            host_memory_preferred: 0,
            total_capacity: 0,
            unallocated_capacity: 0,
            keep_alive_granularity: 0,
            submission_entry_sizes: EntrySizes { required: 6, maximum: 6 },
            completion_entry_sizes: EntrySizes { required: 4, maximum: 4 },
            max_outstanding_commands: 0,
            namespace_count: 0,
            nvm_commands: OptionalNvmCommands::empty(),
            fused_operations: 0,
            format_attributes: 0,
            volatile_write_cache: false,
            flush_behavior: 0,
            atomic_write_blocks: 1,
            atomic_write_power_fail_blocks: 1,
            atomic_compare_write_blocks: 1,
            copy_formats: 0,
            sgl_support: 0,
            max_allowed_namespaces: 0,
            migration: MigrationLimits::default(),
            subsystem_name: SubsystemName::EMPTY,
            power_states: [PowerState::default(); 32],
        }
    }
}

impl ControllerIdentity {
    /// Reads Identify Controller data.
    ///
    /// # Errors
    /// Fewer than 4,096 bytes, or more power states than there are descriptors (NPSS above 31).
    pub fn parse(bytes: &[u8]) -> Result<Self, IdentifyError> {
        let (raw, _) = IdentifyController::ref_from_prefix(bytes)
            .map_err(|_| short("Identify Controller", PAGE_BYTES, bytes.len()))?;
        Ok(Self::from_raw(raw)?)
    }

    /// Reads the raw structure.
    ///
    /// # Errors
    /// More power states than there are descriptors (NPSS above 31).
    pub fn from_raw(raw: &IdentifyController) -> Result<Self, InvalidField> {
        if raw.npss_z > 31 {
            return Err(InvalidField::in_data("NPSS", 263, u64::from(raw.npss_z)));
        }
        let [crdt1, crdt2, crdt3] = raw.crdt;
        Ok(Self {
            vendor: raw.vid.get(),
            subsystem_vendor: raw.ssvid.get(),
            serial_number: Text::from_field(raw.sn),
            model_number: Text::from_field(raw.mn),
            firmware_revision: Text::from_field(raw.fr),
            arbitration_burst_log2: raw.rab,
            ieee: raw.ieee,
            sharing: raw.cmic,
            max_transfer_log2: raw.mdts,
            controller: ControllerId::new(raw.cntlid.get()),
            version: raw.ver.get(),
            rtd3_resume: raw.rtd3r.get(),
            rtd3_entry: raw.rtd3e.get(),
            optional_events: raw.oaes.get(),
            attributes: raw.ctratt.get(),
            controller_type: ControllerType::new(raw.cntrltype),
            retry_delays: [crdt1.get(), crdt2.get(), crdt3.get()],
            admin_commands: OptionalAdminCommands::from_bits_retain(raw.oacs.get()),
            abort_limit: one_based_u8(raw.acl_z),
            event_request_limit: one_based_u8(raw.aerl_z),
            firmware_updates: raw.frmw,
            log_page_attributes: raw.lpa,
            error_log_entries: one_based_u8(raw.elpe_z),
            power_state_count: raw.npss_z.saturating_add(1),
            host_memory_preferred: raw.hmpre.get(),
            total_capacity: raw.tnvmcap.get(),
            unallocated_capacity: raw.unvmcap.get(),
            keep_alive_granularity: raw.kas.get(),
            submission_entry_sizes: EntrySizes::from_field(raw.sqes),
            completion_entry_sizes: EntrySizes::from_field(raw.cqes),
            max_outstanding_commands: raw.maxcmd.get(),
            namespace_count: raw.nn.get(),
            nvm_commands: OptionalNvmCommands::from_bits_retain(raw.oncs.get()),
            fused_operations: raw.fuses.get(),
            format_attributes: raw.fna,
            volatile_write_cache: raw.vwc & 1 == 1,
            flush_behavior: (raw.vwc >> 1) & 3,
            atomic_write_blocks: one_based_u16(raw.awun_z),
            atomic_write_power_fail_blocks: one_based_u16(raw.awupf_z),
            atomic_compare_write_blocks: one_based_u16(raw.acwu_z),
            copy_formats: raw.ocfs.get(),
            sgl_support: raw.sgls.get(),
            max_allowed_namespaces: raw.mnan.get(),
            migration: MigrationLimits {
                tracking: TrackingAttributes::from_bits_retain(raw.trattr),
                controller_tracking_descriptors: raw.cmmrtd.get(),
                subsystem_tracking_descriptors: raw.nmmrtd.get(),
                minimum_granularity: raw.minmrtg,
                maximum_granularity: raw.maxmrtg,
                controller_queues: raw.mcudmq.get(),
                subsystem_queues: raw.mnsudmq.get(),
                queue_memory_ranges: raw.mcmr.get(),
                subsystem_memory_ranges: raw.nmcmr.get(),
                queue_prps: raw.mcdqpc.get(),
            },
            subsystem_name: SubsystemName::from_field(raw.subnqn),
            power_states: raw.psd,
        })
    }

    /// The raw structure; counts outside their field's range become the nearest it can hold.
    #[must_use]
    pub fn to_raw(&self) -> IdentifyController {
        let mut raw = IdentifyController::zeroed();
        let limits = &self.migration;
        raw.vid = U16::new(self.vendor);
        raw.ssvid = U16::new(self.subsystem_vendor);
        raw.sn = *self.serial_number.field();
        raw.mn = *self.model_number.field();
        raw.fr = *self.firmware_revision.field();
        raw.rab = self.arbitration_burst_log2;
        raw.ieee = self.ieee;
        raw.cmic = self.sharing;
        raw.mdts = self.max_transfer_log2;
        raw.cntlid = U16::new(self.controller.get());
        raw.ver = U32::new(self.version);
        raw.rtd3r = U32::new(self.rtd3_resume);
        raw.rtd3e = U32::new(self.rtd3_entry);
        raw.oaes = U32::new(self.optional_events);
        raw.ctratt = U32::new(self.attributes);
        raw.cntrltype = self.controller_type.get();
        raw.crdt = self.retry_delays.map(U16::new);
        raw.oacs = U16::new(self.admin_commands.bits());
        raw.acl_z = zero_based_u8(self.abort_limit);
        raw.aerl_z = zero_based_u8(self.event_request_limit);
        raw.frmw = self.firmware_updates;
        raw.lpa = self.log_page_attributes;
        raw.elpe_z = zero_based_u8(self.error_log_entries);
        raw.npss_z = self.power_state_count.saturating_sub(1).min(31);
        raw.hmpre = U32::new(self.host_memory_preferred);
        raw.tnvmcap = U128::new(self.total_capacity);
        raw.unvmcap = U128::new(self.unallocated_capacity);
        raw.kas = U16::new(self.keep_alive_granularity);
        raw.sqes = self.submission_entry_sizes.field();
        raw.cqes = self.completion_entry_sizes.field();
        raw.maxcmd = U16::new(self.max_outstanding_commands);
        raw.nn = U32::new(self.namespace_count);
        raw.oncs = U16::new(self.nvm_commands.bits());
        raw.fuses = U16::new(self.fused_operations);
        raw.fna = self.format_attributes;
        raw.vwc = ((self.flush_behavior & 3) << 1) | u8::from(self.volatile_write_cache);
        raw.awun_z = zero_based_u16(self.atomic_write_blocks);
        raw.awupf_z = zero_based_u16(self.atomic_write_power_fail_blocks);
        raw.acwu_z = zero_based_u16(self.atomic_compare_write_blocks);
        raw.ocfs = U16::new(self.copy_formats);
        raw.sgls = U32::new(self.sgl_support);
        raw.mnan = U32::new(self.max_allowed_namespaces);
        raw.cmmrtd = U16::new(limits.controller_tracking_descriptors);
        raw.nmmrtd = U16::new(limits.subsystem_tracking_descriptors);
        raw.minmrtg = limits.minimum_granularity;
        raw.maxmrtg = limits.maximum_granularity;
        raw.trattr = limits.tracking.bits();
        raw.mcudmq = U16::new(limits.controller_queues);
        raw.mnsudmq = U16::new(limits.subsystem_queues);
        raw.mcmr = U16::new(limits.queue_memory_ranges);
        raw.nmcmr = U16::new(limits.subsystem_memory_ranges);
        raw.mcdqpc = U16::new(limits.queue_prps);
        raw.subnqn = *self.subsystem_name.field();
        raw.psd = self.power_states;
        raw
    }

    /// Writes Identify Controller data.
    pub fn build(&self, page: &mut IdentifyPage) {
        page.copy_from_slice(self.to_raw().as_bytes());
    }

    /// Whether the controller manages migrations (OACS bit 11, HMLMS).
    #[must_use]
    pub const fn is_manager(&self) -> bool {
        self.admin_commands.contains(OptionalAdminCommands::HOST_MANAGED_LIVE_MIGRATION)
    }

    /// The controller as the one that manages migrations; `None` if it does not.
    #[must_use]
    pub const fn manager(&self) -> Option<ManagerId> {
        if self.is_manager() { Some(ManagerId::new(self.controller)) } else { None }
    }

    /// Longest data transfer in bytes for a controller whose smallest memory page (CAP.MPSMIN) is `page_bytes`;
    /// `None` if the controller states no limit, or one above what 64 bits express.
    #[must_use]
    pub fn max_transfer_bytes(&self, page_bytes: u64) -> Option<u64> {
        match self.max_transfer_log2 {
            0 => None,
            log2 => 1_u64.checked_shl(u32::from(log2))?.checked_mul(page_bytes),
        }
    }
}

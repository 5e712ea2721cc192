// SPDX-License-Identifier: MIT OR Apache-2.0
//! What a subsystem and its controllers are like: chosen once, before they run.

use nvme_core::wire::ControllerId;

use crate::quirk::Quirks;

/// Properties of the whole subsystem. All counts are natural.
#[derive(Clone, Copy, Debug)]
pub struct SubsystemConfig<'s> {
    /// NVM Subsystem NVMe Qualified Name (SUBNQN), UTF-8, at most 255 bytes.
    pub name: &'s str,
    /// Serial number, ASCII, at most 20 bytes.
    pub serial_number: &'s str,
    /// Model number, ASCII, at most 40 bytes.
    pub model_number: &'s str,
    /// Firmware revision, ASCII, at most 8 bytes.
    pub firmware_revision: &'s str,
    /// PCI vendor identifier.
    pub vendor: u16,
    /// Largest I/O queue, in entries, 2 to 65,536 (CAP.MQES).
    pub max_queue_entries: u32,
    /// log2 of the smallest page size in bytes, 12 to 16 (CAP.MPSMIN).
    pub min_page_shift: u8,
    /// log2 of the largest page size in bytes, 12 to 16 (CAP.MPSMAX).
    pub max_page_shift: u8,
    /// I/O queues must be physically contiguous (CAP.CQR).
    pub contiguous_queues_required: bool,
    /// Longest wait for CSTS.RDY, in units of 500 ms (CAP.TO).
    pub ready_timeout: u8,
    /// log2 of the largest transfer in smallest pages, 0 for no limit (MDTS).
    pub max_transfer_shift: u8,
    /// log2 of the largest Verify in smallest pages, 0 for no limit (VSL).
    pub max_verify_shift: u8,
    /// log2 of the largest Write Zeroes in smallest pages, whether it deallocates or not, 0 for no limit (WZSL).
    pub max_write_zeroes_shift: u8,
    /// log2 of the largest Write Uncorrectable in smallest pages, 0 for no limit (WUSL).
    pub max_write_uncorrectable_shift: u8,
    /// Ranges of one Dataset Management, 0 for no limit (DMRL).
    pub max_dataset_ranges: u8,
    /// Bytes that one Dataset Management names at most, in one range or in all; at least one block is always possible.
    /// Reported in blocks of the namespace with the largest (DMRSL and DMSL).
    pub max_dataset_bytes: u64,
    /// Bytes that one Copy moves at most, which bounds its time; at least one block is always possible. Reported in
    /// blocks of each namespace (MCL, and MSSRL as far as its field goes).
    pub max_copy_bytes: u64,
    /// Work that one controller does in one [`poll`](crate::Subsystem::poll) before the next one has its turn, in bytes
    /// of data moved, written or given back. The command that reaches it is still finished, so a turn is bounded by this
    /// and the largest command. A flush counts for 1 MiB.
    pub turn_bytes: u64,
    /// Abort commands that may be outstanding at once, 1 to 256 (ACL).
    pub abort_limit: u16,
    /// Whether a volatile write cache is reported; Flush reaches the storage either way.
    pub volatile_write_cache: bool,
    /// Whether the subsystem can be reset by its register (CAP.NSSRS) of a managing controller. Migratable controllers
    /// belong to guests, which must not be able to reset one another.
    pub subsystem_reset: bool,
    /// Keep Alive granularity in units of 100 ms, 0 if the timer is not supported. Needs
    /// [`Subsystem::advance`](crate::Subsystem::advance) to be called.
    pub keep_alive_granularity: u16,
    /// Whether the vendor-specific state format is offered, see [`state_format`](crate::state_format).
    pub vendor_state_format: bool,
    /// User data migration queues that may exist in the subsystem (MNSUDMQ).
    pub max_migration_queues: u16,
    /// Memory ranges of all Controller Data Queues in the subsystem (NMCMR).
    pub max_queue_memory_ranges: u16,
    /// Memory range tracking descriptors in the subsystem (NMMRTD).
    pub max_tracked_ranges: u16,
    /// Post the suspended marker after the completion of a Suspend that keeps the queue, as the specification allows,
    /// instead of before it.
    pub marker_after_completion: bool,
    /// Deviations to imitate.
    pub quirks: Quirks,
}

impl Default for SubsystemConfig<'_> {
    fn default() -> Self {
        Self {
            name: "nqn.2014-08.org.nvmexpress:uuid:5a9f3ac7-1f0e-4c55-9a0f-5d4c6a1b7e10",
            serial_number: "0",
            model_number: "Software NVM Subsystem",
            firmware_revision: "1",
            vendor: 0x1AF4,
            max_queue_entries: 65_536,
            min_page_shift: 12,
            max_page_shift: 16,
            contiguous_queues_required: false,
            ready_timeout: 10,
            max_transfer_shift: 8,
            // Sixteen times the largest transfer.
            max_verify_shift: 12,
            max_write_zeroes_shift: 12,
            max_write_uncorrectable_shift: 12,
            max_copy_bytes: 16 << 20,
            max_dataset_ranges: 64,
            // Deallocation is quick where the storage can do it at all.
            max_dataset_bytes: 256 << 20,
            turn_bytes: 4 << 20,
            abort_limit: 4,
            volatile_write_cache: true,
            subsystem_reset: true,
            keep_alive_granularity: 0,
            vendor_state_format: true,
            max_migration_queues: u16::MAX,
            max_queue_memory_ranges: u16::MAX,
            max_tracked_ranges: u16::MAX,
            marker_after_completion: false,
            quirks: Quirks::empty(),
        }
    }
}

/// Limits of a controller that manages migrations. All counts are natural.
#[derive(Clone, Copy, Debug)]
pub struct ManagerConfig {
    /// User data migration queues on this controller (MCUDMQ).
    pub max_migration_queues: u16,
    /// Memory ranges of one Controller Data Queue command (MCMR): one if contiguous, else one for each PRP.
    pub max_queue_memory_ranges: u16,
    /// PRPs in the list of one Controller Data Queue command (MCDQPC).
    pub max_queue_prps: u16,
    /// Whether changes of user data can be logged (TUDCS).
    pub track_user_data: bool,
    /// Whether changes of host memory can be tracked (THMCS).
    pub track_host_memory: bool,
    /// Whether tracked ranges must have a power of two as length (MRTLL).
    pub tracked_length_power_of_two: bool,
    /// Memory range tracking descriptors this controller may have in use, over all controllers it tracks (CMMRTD).
    pub max_tracked_ranges: u16,
    /// log2 of the finest tracking granularity in units of 4 KiB (MINMRTG).
    pub min_tracking_shift: u8,
    /// log2 of the coarsest tracking granularity in units of 4 KiB (MAXMRTG).
    pub max_tracking_shift: u8,
}

impl Default for ManagerConfig {
    fn default() -> Self {
        Self {
            max_migration_queues: 64,
            max_queue_memory_ranges: 4096,
            max_queue_prps: 4096,
            track_user_data: true,
            track_host_memory: true,
            tracked_length_power_of_two: false,
            max_tracked_ranges: 64,
            min_tracking_shift: 0,
            max_tracking_shift: 9,
        }
    }
}

/// What a controller is for.
#[derive(Clone, Copy, Debug)]
pub enum Role {
    /// Processes the migration commands (HMLMS set); not migratable itself.
    Managing(ManagerConfig),
    /// Belongs to a guest and is migrated.
    Migratable,
}

/// Flexible resources of a secondary controller and whether it starts online.
#[derive(Clone, Copy, Debug)]
pub struct SecondaryConfig {
    /// The primary controller: the one whose Virtualization Management commands govern this one.
    pub primary: ControllerId,
    /// Virtual function number, from 1 on, or 0 if it is not a virtual function.
    pub virtual_function: u16,
    /// Whether it is online from the start, with all its queues and vectors. Whatever it starts as, a reset of the
    /// primary controller, of whatever kind, takes it offline.
    pub online: bool,
}

/// Properties of one controller.
#[derive(Clone, Copy, Debug)]
pub struct ControllerConfig {
    /// Controller identifier (CNTLID), unique in the subsystem, below FFF0h.
    pub id: ControllerId,
    /// What it is for.
    pub role: Role,
    /// Interrupt vectors, at least one.
    pub interrupt_vectors: u16,
    /// Set if it is a secondary controller under Virtualization Management.
    pub secondary: Option<SecondaryConfig>,
}

impl ControllerConfig {
    /// A managing controller with the default limits.
    #[must_use]
    pub fn managing(id: ControllerId) -> Self {
        Self { id, role: Role::Managing(ManagerConfig::default()), interrupt_vectors: 64, secondary: None }
    }

    /// A migratable controller.
    #[must_use]
    pub const fn migratable(id: ControllerId) -> Self {
        Self { id, role: Role::Migratable, interrupt_vectors: 64, secondary: None }
    }

    /// The limits, if this is a managing controller.
    #[must_use]
    pub const fn manager(&self) -> Option<&ManagerConfig> {
        match &self.role {
            Role::Managing(limits) => Some(limits),
            Role::Migratable => None,
        }
    }
}

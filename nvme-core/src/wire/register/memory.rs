// SPDX-License-Identifier: MIT OR Apache-2.0
//! Properties of the Controller Memory Buffer, the Persistent Memory Region and boot partitions.
//!
//! Offsets and sizes of these properties are confirmed by the text of the specification, the fields inside them by
//! open implementations only.

use super::{bit_fields, bit_flags, property_bits};

property_bits! {
    /// Controller Memory Buffer Location (CMBLOC).
    MemoryBufferLocation(u32)
}
bit_fields! {
    MemoryBufferLocation(u32) {
        /// Base Indicator Register (BIR): which BAR holds the buffer.
        [2:0] base_indicator / with_base_indicator: u8;
        /// Offset (OFST) of the buffer in that BAR, in units of the buffer's size unit.
        [31:12] offset / with_offset: u32;
    }
}
bit_flags! {
    MemoryBufferLocation(u32) {
        /// CMB Queue Mixed Memory Support (CQMMS).
        [3] queue_mixed_memory / with_queue_mixed_memory;
        /// CMB Queue Physically Discontiguous Support (CQPDS).
        [4] queue_discontiguous / with_queue_discontiguous;
        /// CMB Data Pointer Mixed Locations Support (CDPMLS).
        [5] data_pointer_mixed_locations / with_data_pointer_mixed_locations;
        /// CMB Data Pointer and Command Independent Locations Support (CDPCILS).
        [6] data_pointer_independent / with_data_pointer_independent;
        /// CMB Data Metadata Mixed Memory Support (CDMMMS).
        [7] metadata_mixed_memory / with_metadata_mixed_memory;
        /// CMB Queue Dword Alignment (CQDA).
        [8] queue_dword_alignment / with_queue_dword_alignment;
    }
}

property_bits! {
    /// Controller Memory Buffer Size (CMBSZ).
    MemoryBufferSize(u32)
}
bit_flags! {
    MemoryBufferSize(u32) {
        /// Submission Queue Support (SQS).
        [0] submission_queues / with_submission_queues;
        /// Completion Queue Support (CQS).
        [1] completion_queues / with_completion_queues;
        /// PRP SGL List Support (LISTS).
        [2] lists / with_lists;
        /// Read Data Support (RDS).
        [3] read_data / with_read_data;
        /// Write Data Support (WDS).
        [4] write_data / with_write_data;
    }
}
bit_fields! {
    MemoryBufferSize(u32) {
        /// Size Units (SZU): the unit is 4 KiB * 16^n, for n of 0 to 6.
        [11:8] unit_exponent / with_unit_exponent: u8;
        /// Size (SZ) in size units.
        [31:12] size / with_size: u32;
    }
}

impl MemoryBufferSize {
    /// Size in bytes; 0 if the unit is reserved.
    #[must_use]
    pub const fn bytes(self) -> u64 {
        match self.unit_exponent() {
            exponent @ 0..=6 => {
                let unit = 4096_u64.wrapping_shl((exponent as u32).wrapping_mul(4));
                (self.size() as u64).wrapping_mul(unit)
            }
            _ => 0,
        }
    }
}

property_bits! {
    /// Controller Memory Buffer Memory Space Control (CMBMSC).
    MemoryBufferSpaceControl(u64)
}
bit_flags! {
    MemoryBufferSpaceControl(u64) {
        /// Capabilities Registers Enabled (CRE): CMBLOC and CMBSZ are valid.
        [0] registers_enabled / with_registers_enabled;
        /// Controller Memory Space Enable (CMSE): the base address is valid.
        [1] space_enabled / with_space_enabled;
    }
}
bit_fields! {
    MemoryBufferSpaceControl(u64) {
        /// Controller Base Address (CBA) divided by 4,096.
        [63:12] base_page / with_base_page: u64;
    }
}

property_bits! {
    /// Controller Memory Buffer Status (CMBSTS).
    MemoryBufferStatus(u32)
}
bit_flags! {
    MemoryBufferStatus(u32) {
        /// Controller Base Address Invalid (CBAI).
        [0] base_address_invalid / with_base_address_invalid;
    }
}

property_bits! {
    /// Elasticity buffer size of the Controller Memory Buffer (CMBEBS) or the Persistent Memory Region (PMREBS).
    ElasticityBuffer(u32)
}
bit_fields! {
    ElasticityBuffer(u32) {
        /// Size unit: 0 bytes, 1 KiB, 2 MiB, 3 GiB.
        [3:0] unit / with_unit: u8;
        /// Size in units.
        [31:8] size / with_size: u32;
    }
}
bit_flags! {
    ElasticityBuffer(u32) {
        /// Reads bypass the buffer.
        [4] read_bypass / with_read_bypass;
    }
}

property_bits! {
    /// Sustained write throughput of the Controller Memory Buffer (CMBSWTP) or the Persistent Memory Region
    /// (PMRSWTP).
    SustainedWriteThroughput(u32)
}
bit_fields! {
    SustainedWriteThroughput(u32) {
        /// Unit: 0 bytes, 1 KiB, 2 MiB, 3 GiB per second.
        [3:0] unit / with_unit: u8;
        /// Throughput in units.
        [31:8] value / with_value: u32;
    }
}

property_bits! {
    /// Boot Partition Information (BPINFO).
    BootPartitionInformation(u32)
}
bit_fields! {
    BootPartitionInformation(u32) {
        /// Boot Partition Size (BPSZ) in units of 128 KiB.
        [14:0] size / with_size: u16;
        /// Boot Read Status (BRS): 0 none, 1 in progress, 2 completed, 3 failed.
        [25:24] read_status / with_read_status: u8;
    }
}
bit_flags! {
    BootPartitionInformation(u32) {
        /// Active Boot Partition ID (ABPID).
        [31] active_partition / with_active_partition;
    }
}

property_bits! {
    /// Boot Partition Read Select (BPRSEL).
    BootPartitionReadSelect(u32)
}
bit_fields! {
    BootPartitionReadSelect(u32) {
        /// Boot Partition Read Size (BPRSZ) in units of 4 KiB.
        [9:0] size / with_size: u16;
        /// Boot Partition Read Offset (BPROF) in units of 4 KiB.
        [29:10] offset / with_offset: u32;
    }
}
bit_flags! {
    BootPartitionReadSelect(u32) {
        /// Boot Partition Identifier (BPID).
        [31] partition / with_partition;
    }
}

property_bits! {
    /// Persistent Memory Region Capabilities (PMRCAP).
    PersistentMemoryCapabilities(u32)
}
bit_flags! {
    PersistentMemoryCapabilities(u32) {
        /// Read Data Support (RDS).
        [3] read_data / with_read_data;
        /// Write Data Support (WDS).
        [4] write_data / with_write_data;
        /// Controller Memory Space Supported (CMSS).
        [24] memory_space / with_memory_space;
    }
}
bit_fields! {
    PersistentMemoryCapabilities(u32) {
        /// Base Indicator Register (BIR): which BAR holds the region.
        [7:5] base_indicator / with_base_indicator: u8;
        /// Unit of the time-out (PMRTU): 0 for 500 ms, 1 for minutes.
        [9:8] timeout_unit / with_timeout_unit: u8;
        /// Write Barrier Mechanisms (PMRWBM).
        [13:10] write_barriers / with_write_barriers: u8;
        /// Time-out (PMRTO) in its units.
        [23:16] timeout / with_timeout: u8;
    }
}

property_bits! {
    /// Persistent Memory Region Control (PMRCTL).
    PersistentMemoryControl(u32)
}
bit_flags! {
    PersistentMemoryControl(u32) {
        /// Enable (EN).
        [0] enabled / with_enabled;
    }
}

property_bits! {
    /// Persistent Memory Region Status (PMRSTS).
    PersistentMemoryStatus(u32)
}
bit_fields! {
    PersistentMemoryStatus(u32) {
        /// Error (ERR): 0 for none.
        [7:0] error / with_error: u8;
        /// Health Status (HSTS): 0 normal, 1 restore error, 2 read only, 3 unreliable.
        [11:9] health / with_health: u8;
    }
}
bit_flags! {
    PersistentMemoryStatus(u32) {
        /// Not Ready (NRDY).
        [8] not_ready / with_not_ready;
        /// Controller Base Address Invalid (CBAI).
        [12] base_address_invalid / with_base_address_invalid;
    }
}

property_bits! {
    /// Persistent Memory Region Memory Space Control Lower (PMRMSCL). The upper half of the address is a 32-bit
    /// property of its own, [`PMRMSCU`](super::PMRMSCU).
    PersistentMemorySpaceControlLower(u32)
}
bit_flags! {
    PersistentMemorySpaceControlLower(u32) {
        /// Controller Memory Space Enable (CMSE).
        [1] space_enabled / with_space_enabled;
    }
}
bit_fields! {
    PersistentMemorySpaceControlLower(u32) {
        /// Bits 31:12 of the Controller Base Address (CBA).
        [31:12] base_page / with_base_page: u32;
    }
}

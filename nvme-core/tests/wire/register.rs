// SPDX-License-Identifier: MIT OR Apache-2.0
//! Controller properties.

use std::time::Duration;

use nvme_core::register::Offset;
use nvme_core::wire::QueueId;
use nvme_core::wire::register::{self, *};
use proptest::prelude::*;

#[test]
fn properties_lie_where_the_map_says() {
    let expected = [
        ("CAP", 0x00, 8),
        ("VS", 0x08, 4),
        ("INTMS", 0x0C, 4),
        ("INTMC", 0x10, 4),
        ("CC", 0x14, 4),
        ("CSTS", 0x1C, 4),
        ("NSSR", 0x20, 4),
        ("AQA", 0x24, 4),
        ("ASQ", 0x28, 8),
        ("ACQ", 0x30, 8),
        ("CMBLOC", 0x38, 4),
        ("CMBSZ", 0x3C, 4),
        ("BPINFO", 0x40, 4),
        ("BPRSEL", 0x44, 4),
        ("BPMBL", 0x48, 8),
        ("CMBMSC", 0x50, 8),
        ("CMBSTS", 0x58, 4),
        ("CMBEBS", 0x5C, 4),
        ("CMBSWTP", 0x60, 4),
        ("NSSD", 0x64, 4),
        ("CRTO", 0x68, 4),
        ("PMRCAP", 0xE00, 4),
        ("PMRCTL", 0xE04, 4),
        ("PMRSTS", 0xE08, 4),
        ("PMREBS", 0xE0C, 4),
        ("PMRSWTP", 0xE10, 4),
        ("PMRMSCL", 0xE14, 4),
        ("PMRMSCU", 0xE18, 4),
    ];
    let found: Vec<_> = PROPERTIES.iter().map(|row| (row.name, row.offset, row.size)).collect();
    assert_eq!(found, expected);
}

#[test]
fn properties_are_aligned_and_apart() {
    for row in PROPERTIES {
        assert_eq!(row.offset % row.size, 0, "{} is misaligned", row.name);
    }
    for pair in PROPERTIES.windows(2) {
        assert!(
            pair[0].offset + pair[0].size <= pair[1].offset,
            "{} overlaps {}",
            pair[0].name,
            pair[1].name
        );
    }
    let at = |offset| Property::at(offset).map(|row| row.name);
    assert_eq!(
        (at(0), at(7), at(8), at(0x18), at(0x1C)),
        (Some("CAP"), Some("CAP"), Some("VS"), None, Some("CSTS"))
    );
    assert_eq!((at(0xE1B), at(0xE1C), at(0x1000)), (Some("PMRMSCU"), None, None));
    assert_eq!(Offset::PMRMSCL.upper_half(), Offset::PMRMSCU);
    assert_eq!((Offset::CAP.bytes(), Offset::CSTS.bytes(), Offset::CRTO.bytes()), (0, 0x1C, 0x68));
}

#[test]
fn magic_values_spell_their_words() {
    let rows = [(NSSR_RESET, b"NVMe"), (NSSD_NORMAL, b"Nrml"), (NSSD_ABRUPT, b"Abpt")];
    for (value, word) in rows {
        assert_eq!(value.to_be_bytes(), *word);
    }
}

#[test]
fn doorbells_lie_a_stride_apart() {
    let rows = [
        ("admin tail", Doorbell::SubmissionTail(QueueId::ADMIN), 4, Some(0x1000)),
        ("admin head", Doorbell::CompletionHead(QueueId::ADMIN), 4, Some(0x1004)),
        ("tail of queue 3", Doorbell::SubmissionTail(QueueId::new(3)), 4, Some(0x1018)),
        ("head of queue 3, 64 bytes apart", Doorbell::CompletionHead(QueueId::new(3)), 64, Some(0x11C0)),
        ("last head, 4 bytes apart", Doorbell::CompletionHead(QueueId::new(0xFFFF)), 4, Some(0x8_0FFC)),
        ("last head, beyond 4 GiB", Doorbell::CompletionHead(QueueId::new(0xFFFF)), 131_072, None),
    ];
    for (name, doorbell, stride, offset) in rows {
        assert_eq!(doorbell.offset(stride), offset, "{name}");
        if let Some(offset) = offset {
            assert_eq!(Doorbell::at(offset, stride), Some(doorbell), "{name}");
        }
    }
    assert_eq!(sq_tail(QueueId::new(1), 4), Some(0x1008));
    assert_eq!(cq_head(QueueId::new(1), 4), Some(0x100C));
    assert_eq!(Offset::sq_tail(QueueId::new(1), 8), Some(Offset::new(0x1010)));
    assert_eq!(Offset::cq_head(QueueId::new(1), 8), Some(Offset::new(0x1018)));
    let none =
        [("below", 0xFFC, 4), ("between", 0x1004, 8), ("beyond", 0x8_1000, 4), ("no stride", 0x1000, 0)];
    for (name, offset, stride) in none {
        assert_eq!(Doorbell::at(offset, stride), None, "{name}");
    }
}

/// Sets one field of an empty and of a full register and reads it back: only the field's bits may change.
macro_rules! fields_stand_at {
    ($type:ident($bits:ty): $($get:ident / $with:ident = $value:expr => $expected:expr, $mask:expr;)*) => {
        $({
            let (expected, mask): ($bits, $bits) = ($expected, $mask);
            let set = $type::from_bits(0).$with($value);
            assert_eq!(set.bits(), expected, "{} in an empty register", stringify!($get));
            assert_eq!($type::from_bits(expected).$get(), $value, "{}", stringify!($get));
            let set = $type::from_bits(<$bits>::MAX).$with($value);
            assert_eq!(set.bits(), (<$bits>::MAX & !mask) | expected, "{} in a full register", stringify!($get));
            assert_eq!(set.$get(), $value, "{}", stringify!($get));
        })*
    };
}

macro_rules! flags_stand_at {
    ($type:ident($bits:ty): $($get:ident / $with:ident = $bit:literal;)*) => {
        fields_stand_at! {
            $type($bits): $($get / $with = true => 1 << $bit, 1 << $bit;)*
        }
        $(
            assert!(!$type::from_bits(<$bits>::MAX).$with(false).$get(), "{}", stringify!($get));
            assert_eq!($type::from_bits(<$bits>::MAX).$with(false).bits(), <$bits>::MAX & !(1 << $bit));
        )*
    };
}

#[test]
fn capabilities_stand_at_their_bits() {
    flags_stand_at! {
        Capabilities(u64):
        contiguous_queues_required / with_contiguous_queues_required = 16;
        weighted_round_robin_supported / with_weighted_round_robin_supported = 17;
        vendor_arbitration_supported / with_vendor_arbitration_supported = 18;
        subsystem_reset_supported / with_subsystem_reset_supported = 36;
        nvm_command_set_supported / with_nvm_command_set_supported = 37;
        all_command_sets_supported / with_all_command_sets_supported = 43;
        no_command_set_supported / with_no_command_set_supported = 44;
        boot_partitions_supported / with_boot_partitions_supported = 45;
        persistent_memory_supported / with_persistent_memory_supported = 56;
        memory_buffer_supported / with_memory_buffer_supported = 57;
        subsystem_shutdown_supported / with_subsystem_shutdown_supported = 58;
        ready_with_media_supported / with_ready_with_media_supported = 59;
        ready_independent_of_media_supported / with_ready_independent_of_media_supported = 60;
        subsystem_shutdown_enhancements_supported / with_subsystem_shutdown_enhancements_supported = 61;
    }
    fields_stand_at! {
        Capabilities(u64):
        max_queue_entries / with_max_queue_entries = 65_536 => 0xFFFF, 0xFFFF;
        max_queue_entries / with_max_queue_entries = 2 => 1, 0xFFFF;
        power_scope / with_power_scope = PowerScope::DOMAIN => 2 << 46, 3 << 46;
        min_page_size / with_min_page_size = 8192 => 1 << 48, 0xF << 48;
        max_page_size / with_max_page_size = 1 << 27 => 0xF << 52, 0xF << 52;
    }
    let capabilities = Capabilities::from_bits(0).with_timeout_units(0xFF).with_doorbell_stride_exponent(15);
    assert_eq!(capabilities.bits(), 0xF_FF00_0000);
    assert_eq!(capabilities.timeout(), Duration::from_millis(127_500));
    assert_eq!(capabilities.doorbell_stride(), 131_072);
    assert_eq!(Capabilities::default().doorbell_stride(), 4);
    let pages = [(0, 4096), (4096, 4096), (8191, 4096), (65_536, 65_536), (u32::MAX, 1 << 27)];
    for (asked, found) in pages {
        assert_eq!(Capabilities::default().with_min_page_size(asked).min_page_size(), found, "{asked}");
    }
}

#[test]
fn configuration_and_status_stand_at_their_bits() {
    flags_stand_at! {
        ControllerConfiguration(u32):
        enabled / with_enabled = 0;
        ready_independent_of_media / with_ready_independent_of_media = 24;
    }
    fields_stand_at! {
        ControllerConfiguration(u32):
        command_sets / with_command_sets = CommandSetSelection::ALL_SUPPORTED => 6 << 4, 7 << 4;
        page_size / with_page_size = 65_536 => 4 << 7, 0xF << 7;
        arbitration / with_arbitration = Arbitration::WEIGHTED_ROUND_ROBIN => 1 << 11, 7 << 11;
        shutdown / with_shutdown = ShutdownNotification::None => 0, 3 << 14;
        shutdown / with_shutdown = ShutdownNotification::Normal => 1 << 14, 3 << 14;
        shutdown / with_shutdown = ShutdownNotification::Abrupt => 2 << 14, 3 << 14;
        shutdown / with_shutdown = ShutdownNotification::Reserved => 3 << 14, 3 << 14;
        submission_entry_exponent / with_submission_entry_exponent = 6 => 6 << 16, 0xF << 16;
        completion_entry_exponent / with_completion_entry_exponent = 4 => 4 << 20, 0xF << 20;
    }
    flags_stand_at! {
        ControllerStatus(u32):
        ready / with_ready = 0;
        fatal / with_fatal = 1;
        subsystem_reset_occurred / with_subsystem_reset_occurred = 4;
        processing_paused / with_processing_paused = 5;
        subsystem_shutdown / with_subsystem_shutdown = 6;
    }
    fields_stand_at! {
        ControllerStatus(u32):
        shutdown / with_shutdown = ShutdownStatus::Normal => 0, 3 << 2;
        shutdown / with_shutdown = ShutdownStatus::InProgress => 1 << 2, 3 << 2;
        shutdown / with_shutdown = ShutdownStatus::Complete => 2 << 2, 3 << 2;
        shutdown / with_shutdown = ShutdownStatus::Reserved => 3 << 2, 3 << 2;
    }
    assert!(ControllerStatus::from_bits(u32::MAX).is_removed());
    assert!(!ControllerStatus::from_bits(u32::MAX - 1).is_removed());
}

#[test]
fn memory_flags_stand_at_their_bits() {
    flags_stand_at! {
        MemoryBufferLocation(u32):
        queue_mixed_memory / with_queue_mixed_memory = 3;
        queue_discontiguous / with_queue_discontiguous = 4;
        data_pointer_mixed_locations / with_data_pointer_mixed_locations = 5;
        data_pointer_independent / with_data_pointer_independent = 6;
        metadata_mixed_memory / with_metadata_mixed_memory = 7;
        queue_dword_alignment / with_queue_dword_alignment = 8;
    }
    flags_stand_at! {
        MemoryBufferSize(u32):
        submission_queues / with_submission_queues = 0;
        completion_queues / with_completion_queues = 1;
        lists / with_lists = 2;
        read_data / with_read_data = 3;
        write_data / with_write_data = 4;
    }
    flags_stand_at! {
        MemoryBufferSpaceControl(u64):
        registers_enabled / with_registers_enabled = 0;
        space_enabled / with_space_enabled = 1;
    }
    flags_stand_at! { MemoryBufferStatus(u32): base_address_invalid / with_base_address_invalid = 0; }
    flags_stand_at! { ElasticityBuffer(u32): read_bypass / with_read_bypass = 4; }
    flags_stand_at! { BootPartitionInformation(u32): active_partition / with_active_partition = 31; }
    flags_stand_at! {
        PersistentMemoryCapabilities(u32):
        read_data / with_read_data = 3;
        write_data / with_write_data = 4;
    }
    flags_stand_at! { PersistentMemoryControl(u32): enabled / with_enabled = 0; }
}

#[test]
fn other_properties_stand_at_their_bits() {
    fields_stand_at! {
        Version(u32):
        major / with_major = 2 => 0x0002_0000, 0xFFFF_0000;
        minor / with_minor = 1 => 0x0000_0100, 0x0000_FF00;
        tertiary / with_tertiary = 3 => 3, 0xFF;
    }
    assert_eq!(Version::V2_1.to_string(), "2.1");
    assert!(Version::V2_1 < Version::V2_2);
    fields_stand_at! {
        AdminQueueAttributes(u32):
        submission_entries / with_submission_entries = 4096 => 0xFFF, 0xFFF;
        completion_entries / with_completion_entries = 2 => 1 << 16, 0xFFF << 16;
    }
    assert_eq!(AdminQueueAttributes::default().with_submission_entries(u16::MAX).submission_entries(), 4096);
    fields_stand_at! {
        ControllerReadyTimeouts(u32):
        media_units / with_media_units = 2 => 2, 0xFFFF;
        independent_of_media_units / with_independent_of_media_units = 4 => 4 << 16, 0xFFFF_0000;
    }
    let ready = ControllerReadyTimeouts::from_bits(0x0004_0002);
    assert_eq!(ready.ready_with_media(), Duration::from_secs(1));
    assert_eq!(ready.ready_independent_of_media(), Duration::from_secs(2));
    fields_stand_at! {
        MemoryBufferLocation(u32):
        base_indicator / with_base_indicator = 5 => 5, 7;
        offset / with_offset = 0x12345 => 0x1234_5000, 0xFFFF_F000;
    }
    fields_stand_at! {
        MemoryBufferSize(u32):
        unit_exponent / with_unit_exponent = 1 => 0x100, 0xF00;
        size / with_size = 16 => 16 << 12, 0xFFFF_F000;
    }
    assert_eq!(MemoryBufferSize::from_bits((16 << 12) | 0x100).bytes(), 16 * 65_536);
    assert_eq!(MemoryBufferSize::from_bits(0xFFFF_F700).bytes(), 0, "a reserved unit");
    fields_stand_at! {
        MemoryBufferSpaceControl(u64):
        base_page / with_base_page = 0xF_FFFF_FFFF_FFFF => 0xFFFF_FFFF_FFFF_F000, 0xFFFF_FFFF_FFFF_F000;
        space_enabled / with_space_enabled = true => 2, 2;
    }
    fields_stand_at! {
        ElasticityBuffer(u32):
        unit / with_unit = 2 => 2, 0xF;
        size / with_size = 0xFF_FFFF => 0xFFFF_FF00, 0xFFFF_FF00;
    }
    fields_stand_at! {
        SustainedWriteThroughput(u32):
        unit / with_unit = 3 => 3, 0xF;
        value / with_value = 1 => 0x100, 0xFFFF_FF00;
    }
    fields_stand_at! {
        BootPartitionReadSelect(u32):
        size / with_size = 0x3FF => 0x3FF, 0x3FF;
        offset / with_offset = 0xF_FFFF => 0x3FFF_FC00, 0x3FFF_FC00;
        partition / with_partition = true => 1 << 31, 1 << 31;
    }
    fields_stand_at! {
        BootPartitionInformation(u32):
        size / with_size = 0x7FFF => 0x7FFF, 0x7FFF;
        read_status / with_read_status = 2 => 2 << 24, 3 << 24;
    }
    fields_stand_at! {
        PersistentMemoryCapabilities(u32):
        base_indicator / with_base_indicator = 2 => 2 << 5, 7 << 5;
        timeout_unit / with_timeout_unit = 1 => 1 << 8, 3 << 8;
        write_barriers / with_write_barriers = 0xF => 0xF << 10, 0xF << 10;
        timeout / with_timeout = 9 => 9 << 16, 0xFF << 16;
        memory_space / with_memory_space = true => 1 << 24, 1 << 24;
    }
    fields_stand_at! {
        PersistentMemoryStatus(u32):
        error / with_error = 1 => 1, 0xFF;
        not_ready / with_not_ready = true => 1 << 8, 1 << 8;
        health / with_health = 3 => 3 << 9, 7 << 9;
        base_address_invalid / with_base_address_invalid = true => 1 << 12, 1 << 12;
    }
    fields_stand_at! {
        PersistentMemorySpaceControlLower(u32):
        space_enabled / with_space_enabled = true => 2, 2;
        base_page / with_base_page = 0xF_FFFF => 0xFFFF_F000, 0xFFFF_F000;
    }
    assert_eq!(register::PMRMSCL % 8, 4, "no 64-bit access fits at E14h");
}

proptest! {
    #[test]
    fn doorbells_and_offsets_are_inverse(queue in any::<u16>(), head in any::<bool>(), exponent in 0..=15_u32) {
        let queue = QueueId::new(queue);
        let doorbell =
            if head { Doorbell::CompletionHead(queue) } else { Doorbell::SubmissionTail(queue) };
        let stride = 4 << exponent;
        if let Some(offset) = doorbell.offset(stride) {
            prop_assert_eq!(Doorbell::at(offset, stride), Some(doorbell));
        }
    }

    #[test]
    fn arbitrary_offsets_name_at_most_one_doorbell(offset in any::<u32>(), stride in any::<u32>()) {
        if let Some(doorbell) = Doorbell::at(offset, stride) {
            prop_assert_eq!(doorbell.offset(stride), Some(offset));
        }
    }
}

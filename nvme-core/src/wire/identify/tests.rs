// SPDX-License-Identifier: MIT OR Apache-2.0
//! Tests of the Identify structures: both directions, and hostile bytes.

use std::vec::Vec;

use proptest::prelude::*;

use super::*;
use crate::wire::{ControllerId, ManagerId, NamespaceId};

const EMPTY: IdentifyPage = [0; PAGE_BYTES];

fn field_of(error: IdentifyError) -> (&'static str, u32) {
    match error {
        IdentifyError::Field(field) => (field.field, field.byte),
        other => panic!("{other:?} names no field"),
    }
}

fn id(value: u16) -> ControllerId {
    ControllerId::new(value)
}

#[test]
fn controllers_round_trip() {
    let mut power_states = [PowerState::default(); 32];
    power_states[1] = PowerState::new(2500, 16, 4);
    let identity = ControllerIdentity {
        vendor: 0x1234,
        serial_number: Text::new("S1").unwrap(),
        model_number: Text::new("Model with spaces").unwrap(),
        controller: id(0x0102),
        version: 0x0002_0100,
        retry_delays: [1, 2, 3],
        admin_commands: OptionalAdminCommands::HOST_MANAGED_LIVE_MIGRATION
            | OptionalAdminCommands::from_bits_retain(0x8000),
        abort_limit: 256,
        event_request_limit: 4,
        error_log_entries: 64,
        power_state_count: 32,
        total_capacity: 1 << 100,
        nvm_commands: OptionalNvmCommands::COPY,
        volatile_write_cache: true,
        flush_behavior: 3,
        atomic_write_blocks: 65_536,
        migration: MigrationLimits {
            tracking: TrackingAttributes::USER_DATA | TrackingAttributes::HOST_MEMORY,
            controller_tracking_descriptors: 1,
            subsystem_tracking_descriptors: 2,
            minimum_granularity: 3,
            maximum_granularity: 4,
            controller_queues: 5,
            subsystem_queues: 6,
            queue_memory_ranges: 7,
            subsystem_memory_ranges: 8,
            queue_prps: 9,
        },
        subsystem_name: SubsystemName::new("nqn.2014-08.org.nvmexpress:test").unwrap(),
        power_states,
        ..ControllerIdentity::default()
    };
    let mut page = EMPTY;
    identity.build(&mut page);
    assert_eq!(page[570..588], [1, 0, 2, 0, 3, 4, 3, 0, 5, 0, 6, 0, 7, 0, 8, 0, 9, 0]);
    assert_eq!(ControllerIdentity::parse(&page), Ok(identity.clone()));
    assert_eq!(identity.manager(), Some(ManagerId::new(id(0x0102))));
    assert_eq!(ControllerIdentity::default().manager(), None);
    assert_eq!(power_states[1].max_power_tenth_milliwatts(), 250_000);
}

#[test]
fn controllers_with_impossible_fields_are_refused() {
    let mut page = EMPTY;
    page[263] = 32;
    assert_eq!(field_of(ControllerIdentity::parse(&page).unwrap_err()), ("NPSS", 263));
    assert!(matches!(ControllerIdentity::parse(&page[1..]), Err(IdentifyError::TooShort(_))));
}

#[test]
fn transfer_limits_count_minimum_pages() {
    for (name, log2, bytes) in [
        ("no limit", 0, None),
        ("two pages", 1, Some(8192)),
        ("512 KiB", 7, Some(524_288)),
        ("overflow of the product", 52, None),
        ("overflow of the shift", 255, None),
    ] {
        let identity = ControllerIdentity { max_transfer_log2: log2, ..ControllerIdentity::default() };
        assert_eq!(identity.max_transfer_bytes(4096), bytes, "{name}");
    }
}

#[test]
fn texts_are_trimmed_and_hostile_bytes_shown_as_question_marks() {
    let rows: [(&str, [u8; 8], &str, Option<&str>); 6] = [
        ("padded", *b"ab      ", "ab", Some("ab")),
        ("full", *b"abcdefgh", "abcdefgh", Some("abcdefgh")),
        ("blank", *b"        ", "", Some("")),
        ("inner space and leading", *b"  a b   ", "a b", Some("a b")),
        ("NUL padded", *b"ab\0\0\0\0\0\0", "ab", Some("ab")),
        ("not ASCII", *b"a\xFF\x1Bb    ", "a??b", None),
    ];
    for (name, field, shown, text) in rows {
        let field = Text::from_field(field);
        assert_eq!(std::format!("{field}"), shown, "{name}");
        assert_eq!(field.as_str(), text, "{name}");
    }
    assert_eq!(Text::<4>::new("abcde"), None);
    assert_eq!(Text::<4>::new("\n"), None);
    assert_eq!(SubsystemName::new("a\0b"), None);
    assert_eq!(SubsystemName::new(&"x".repeat(256)), None);
    assert_eq!(SubsystemName::new(&"x".repeat(255)).unwrap().as_bytes().len(), 255);
    assert_eq!(SubsystemName::from_field([0xFF; 256]).as_str(), None);
}

#[test]
fn namespaces_round_trip() {
    let mut namespace = NamespaceIdentity::new(1 << 40, 12);
    namespace.format_count = 64;
    namespace.format_index = 37;
    namespace.formats[37] = LbaFormat { metadata_bytes: 8, data_log2: 9, relative_performance: 2 };
    namespace.metadata_extended = true;
    namespace.shared = true;
    namespace.write_protected = true;
    namespace.atomics = Some(AtomicLimits { normal: 1, power_fail: 2, compare_write: 65_536 });
    namespace.optimal_io = Some(OptimalIo {
        write_granularity: 1,
        write_alignment: 2,
        deallocate_granularity: 3,
        deallocate_alignment: 4,
        write_size: 5,
    });
    namespace.copy_ranges = 128;
    namespace.nguid = [7; 16];
    let mut page = EMPTY;
    namespace.build(&mut page);
    assert_eq!(page[26], 0b0101_0101);
    assert_eq!(NamespaceIdentity::parse(&page), Ok(Some(namespace.clone())));
    assert_eq!((namespace.block_bytes(), namespace.bytes()), (512, 1 << 49));
    assert_eq!(NamespaceIdentity::parse(&EMPTY), Ok(None));
}

#[test]
fn namespaces_with_impossible_fields_are_refused() {
    let rows: [(&str, usize, u8, (&str, u32)); 6] = [
        ("65 formats", 25, 64, ("NLBAF", 25)),
        ("65 formats with unique ones", 82, 64, ("NLBAF", 25)),
        ("format beyond the last", 26, 1, ("FLBAS", 26)),
        ("no block size", 130, 0, ("LBADS", 130)),
        ("blocks of 256 bytes", 130, 8, ("LBADS", 130)),
        ("blocks of 4 GiB", 130, 32, ("LBADS", 130)),
    ];
    for (name, at, value, field) in rows {
        let mut page = EMPTY;
        NamespaceIdentity::new(1000, 9).build(&mut page);
        page[at] = value;
        assert_eq!(field_of(NamespaceIdentity::parse(&page).unwrap_err()), field, "{name}");
    }
    let mut page = EMPTY;
    NamespaceIdentity { capacity: 1001, ..NamespaceIdentity::new(1000, 9) }.build(&mut page);
    assert_eq!(field_of(NamespaceIdentity::parse(&page).unwrap_err()), ("NCAP", 8));
}

#[test]
fn the_limit_of_write_zeroes_in_bytes() {
    for (name, plain, with_deallocation, deallocate, expected) in [
        ("none", 0, 0, false, None),
        ("none, deallocating", 0, 0, true, None),
        ("only with deallocation", 0, 9, false, None),
        ("both alike", 3, 0, true, Some(8 * 8192)),
        ("plain", 1, 5, false, Some(2 * 8192)),
        ("one of its own", 1, 5, true, Some(32 * 8192)),
        ("beyond 64 bits", 60, 0, false, None),
        ("far beyond", 255, 0, false, None),
    ] {
        let identity = NvmControllerIdentity {
            write_zeroes_limit_log2: plain,
            write_zeroes_deallocate_limit_log2: with_deallocation,
            ..NvmControllerIdentity::default()
        };
        assert_eq!(identity.max_write_zeroes_bytes(8192, deallocate), expected, "{name}");
    }
}

#[test]
fn command_set_structures_round_trip() {
    let mut page = EMPTY;
    let mut namespace = NvmNamespaceIdentity { storage_tag_mask: 1 << 63, ..NvmNamespaceIdentity::default() };
    namespace.formats[63] = ExtendedLbaFormat { storage_tag_bits: 127, protection_format: 2 };
    namespace.build(&mut page);
    assert_eq!(NvmNamespaceIdentity::parse(&page), Ok(namespace));
    let controller = NvmControllerIdentity {
        dataset_ranges: 255,
        dataset_blocks: 1 << 40,
        migration_queue_format: LbaMigrationQueueFormat::new(0xC0),
        ..NvmControllerIdentity::default()
    };
    controller.build(&mut page);
    assert_eq!(page[24], 0xC0);
    assert_eq!(NvmControllerIdentity::parse(&page), Ok(controller));
    let sets = [CommandSetCombination::NVM, CommandSetCombination::NVM | CommandSetCombination::ZONED];
    assert_eq!(CommandSetCombinations::build(&mut page, &sets), 2);
    assert_eq!(CommandSetCombinations::parse(&page).unwrap().iter().collect::<Vec<_>>(), sets);
    let many = [CommandSetCombination::NVM; 600];
    assert_eq!(CommandSetCombinations::build(&mut page, &many), 512);
    assert_eq!(CommandSetCombinations::parse(&page).unwrap().iter().len(), 512);
}

#[test]
fn namespace_lists_continue_and_end() {
    let mut page = EMPTY;
    let all = || (1..=1500).map(NamespaceId::new);
    assert_eq!(NamespaceList::build(&mut page, NamespaceId::NONE, all()), 1024);
    let list = NamespaceList::parse(&page, NamespaceId::NONE).unwrap();
    assert!(list.is_full());
    assert_eq!(list.iter().last(), Some(NamespaceId::new(1024)));
    assert_eq!(NamespaceList::build(&mut page, NamespaceId::new(1024), all()), 476);
    let list = NamespaceList::parse(&page, NamespaceId::new(1024)).unwrap();
    assert!(!list.is_full());
    assert_eq!(list.iter().next(), Some(NamespaceId::new(1025)));
    let error = IdentifyError::NotAscending { previous: 1025, found: 1025 };
    assert_eq!(NamespaceList::parse(&page, NamespaceId::new(1025)).unwrap_err(), error);
}

#[test]
fn controller_lists_are_bounded_and_ascend() {
    let mut page = EMPTY;
    assert_eq!(ControllerList::build(&mut page, id(3), (0..10).map(id)), 7);
    let list = ControllerList::parse(&page, id(3)).unwrap();
    assert_eq!(list.iter().map(ControllerId::get).collect::<Vec<_>>(), [3, 4, 5, 6, 7, 8, 9]);
    page[4] = 3;
    let error = IdentifyError::NotAscending { previous: 3, found: 3 };
    assert_eq!(ControllerList::parse(&page, id(3)).unwrap_err(), error);
    page[..2].copy_from_slice(&2048_u16.to_le_bytes());
    assert_eq!(field_of(ControllerList::parse(&page, id(0)).unwrap_err()), ("number of identifiers", 0));
    assert_eq!(ControllerList::build(&mut page, id(0), (0..3000).map(id)), 2047);
    assert!(ControllerList::parse(&page, id(0)).unwrap().is_full());
}

#[test]
fn identification_descriptors_round_trip_and_are_bounded() {
    let descriptors = [
        NamespaceDescriptor::Eui64([1; 8]),
        NamespaceDescriptor::Nguid([2; 16]),
        NamespaceDescriptor::Uuid([3; 16]),
        NamespaceDescriptor::CommandSet(2),
        NamespaceDescriptor::Other { kind: 9, identifier: &[4; 255] },
    ];
    let mut page = EMPTY;
    NamespaceDescriptors::build(&mut page, &descriptors).unwrap();
    let parsed = NamespaceDescriptors::parse(&page).unwrap();
    assert_eq!(parsed.iter().collect::<Vec<_>>(), descriptors);
    page[1] = 7;
    assert_eq!(field_of(NamespaceDescriptors::parse(&page).unwrap_err()), ("NIDL", 1));
    let long = NamespaceDescriptor::Other { kind: 9, identifier: &[4; 255] };
    assert!(matches!(NamespaceDescriptors::build(&mut page, &[long; 16]), Err(IdentifyError::TooShort(_))));
    let none = NamespaceDescriptor::Other { kind: 9, identifier: &[] };
    assert_eq!(field_of(NamespaceDescriptors::build(&mut page, &[none]).unwrap_err()), ("NIDL", 1));
    NamespaceDescriptors::build(&mut page, &[long; 15]).unwrap();
    page[15 * 259..][..2].copy_from_slice(&[9, 255]);
    let error = NamespaceDescriptors::parse(&page).err().map(field_of);
    assert_eq!(error, Some(("NIDL", 15 * 259 + 1)), "the last descriptor runs past the page");
}

#[test]
fn independent_and_virtualization_structures_round_trip() {
    let mut page = EMPTY;
    let namespace = IndependentNamespaceIdentity {
        features: 1,
        shared: true,
        ana_group: 0x0102_0304,
        endurance_group: 5,
        ready: true,
        ..IndependentNamespaceIdentity::default()
    };
    namespace.build(&mut page);
    assert_eq!(page[..16], [1, 1, 0, 0, 4, 3, 2, 1, 0, 0, 0, 0, 5, 0, 1, 0]);
    assert_eq!(IndependentNamespaceIdentity::parse(&page), Ok(namespace));

    let resources = |n: u16| VirtualResources {
        flexible_total: u32::from(n),
        flexible_assigned: 2,
        primary_flexible: 3,
        primary_private: 4,
        secondary_maximum: 5,
        granularity: 6,
    };
    let primary = PrimaryControllerCapabilities {
        controller: id(1),
        port: 2,
        queues_supported: true,
        interrupts_supported: false,
        queues: resources(7),
        interrupts: resources(8),
    };
    primary.build(&mut page);
    assert_eq!(PrimaryControllerCapabilities::parse(&page), Ok(primary));

    let secondary = |n: u16| SecondaryController {
        controller: id(n),
        primary: id(0),
        online: n == 2,
        virtual_function: n,
        queues: 3,
        interrupts: 4,
    };
    assert_eq!(SecondaryControllers::build(&mut page, id(2), (1..5).map(secondary)), 3);
    let list = SecondaryControllers::parse(&page, id(2)).unwrap();
    assert_eq!(list.iter().collect::<Vec<_>>(), [secondary(2), secondary(3), secondary(4)]);
    assert!(SecondaryControllers::parse(&page, id(3)).is_err());
    assert_eq!(SecondaryControllers::build(&mut page, id(0), (0..500).map(secondary)), 127);
    assert!(SecondaryControllers::parse(&page, id(0)).unwrap().is_full());
    page[0] = 128;
    let error = field_of(SecondaryControllers::parse(&page, id(0)).unwrap_err());
    assert_eq!(error, ("number of entries", 0));
}

#[test]
fn r17_formats_are_matched_by_value_and_sent_by_index() {
    let mut page = EMPTY;
    SupportedControllerStateFormats::build(&mut page, &[7, 0], &[[1; 16], [2; 16]]).unwrap();
    assert_eq!(page[..7], [2, 2, 7, 0, 0, 0, 1]);
    let formats = SupportedControllerStateFormats::parse(&page).unwrap();
    assert_eq!(formats.version_index(0), Some(2));
    assert_eq!(formats.version_index(1), None);
    assert_eq!((formats.version_at(0), formats.version_at(1), formats.version_at(3)), (None, Some(7), None));
    assert_eq!(formats.vendor_index(&[2; 16]), Some(2));
    assert_eq!(formats.vendor_index(&[3; 16]), None);
    assert_eq!(
        (formats.vendor_at(0), formats.vendor_at(1), formats.vendor_at(3)),
        (None, Some([1; 16]), None)
    );
    let nothing = SupportedControllerStateFormats::parse(&EMPTY).unwrap();
    assert_eq!((nothing.version_index(0), nothing.vendor_index(&[0; 16])), (None, None));
}

#[test]
fn r17_formats_that_do_not_fit_are_refused() {
    let rows: [(&str, &[u8], usize); 4] = [
        ("nothing", &[], 2),
        ("one version, not there", &[1, 0], 4),
        ("one vendor, half there", &[0, 1, 0, 0, 0], 18),
        ("as many as a byte counts", &[255, 255], 4592),
    ];
    for (name, bytes, needed) in rows {
        let error = SupportedControllerStateFormats::parse(bytes).unwrap_err();
        assert_eq!(error, short("Supported Controller State Formats", needed, bytes.len()), "{name}");
    }
    let mut page = EMPTY;
    assert!(SupportedControllerStateFormats::build(&mut page, &[0; 255], &[[0; 16]; 224]).is_ok());
    assert!(SupportedControllerStateFormats::build(&mut page, &[0; 256], &[]).is_err());
    assert!(SupportedControllerStateFormats::build(&mut page, &[0; 255], &[[0; 16]; 225]).is_err());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn any_page_parses_or_fails(seed in proptest::collection::vec(any::<u8>(), 4096), from: u16, after: u32) {
        let page = seed.as_slice();
        if let Ok(identity) = ControllerIdentity::parse(page) {
            let mut rebuilt = EMPTY;
            identity.build(&mut rebuilt);
            prop_assert_eq!(ControllerIdentity::parse(&rebuilt), Ok(identity));
        }
        if let Ok(Some(namespace)) = NamespaceIdentity::parse(page) {
            let mut rebuilt = EMPTY;
            namespace.build(&mut rebuilt);
            prop_assert_eq!(NamespaceIdentity::parse(&rebuilt), Ok(Some(namespace)));
        }
        prop_assert!(NvmControllerIdentity::parse(page).is_ok());
        prop_assert!(NvmNamespaceIdentity::parse(page).is_ok());
        prop_assert!(IndependentNamespaceIdentity::parse(page).is_ok());
        prop_assert!(PrimaryControllerCapabilities::parse(page).is_ok());
        prop_assert!(CommandSetCombinations::parse(page).unwrap().iter().len() <= 512);
        if let Ok(list) = NamespaceDescriptors::parse(page) {
            prop_assert!(list.iter().count() <= 1024);
        }
        let _ = NamespaceList::parse(page, NamespaceId::new(after)).is_ok();
        let _ = ControllerList::parse(page, id(from)).is_ok();
        let _ = SecondaryControllers::parse(page, id(from)).is_ok();
        let _ = SupportedControllerStateFormats::parse(page).is_ok();
    }

    #[test]
    fn descriptor_lists_of_any_bytes_are_bounded(head in proptest::collection::vec(any::<u8>(), 0..64)) {
        let mut page = EMPTY;
        page[..head.len()].copy_from_slice(&head);
        if let Ok(list) = NamespaceDescriptors::parse(&page) {
            prop_assert!(list.iter().count() <= 64 / 5 + 1);
        }
    }
}

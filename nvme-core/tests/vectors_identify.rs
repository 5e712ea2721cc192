// SPDX-License-Identifier: MIT OR Apache-2.0
//! Identify data and Controller State images recorded from an independent controller model.
//!
//! The specification decides. Where the recorded side deviates from it, the row says so by name.

mod common;

use common::bytes;
use nvme_core::wire::controller_state::{
    CompletionQueueState, ControllerStateBuilder, ControllerStateHeader, ControllerStateImage,
    DialectTranslator, StateDialect, StateError, StateLimits, SubmissionQueueState,
};
use nvme_core::wire::identify::*;
use nvme_core::wire::{BusAddr, ControllerId, QueueId};

/// The bytes of a recorded dump: lines of an offset and data.
fn dump(text: &str) -> Vec<u8> {
    let mut data = Vec::new();
    for line in text.lines().filter(|line| !line.starts_with('#') && !line.is_empty()) {
        let (offset, hex) = line.split_once(": ").unwrap();
        assert_eq!(usize::from_str_radix(offset, 16).unwrap(), data.len(), "{line}");
        data.extend(bytes(hex));
    }
    data
}

const MANAGER: &str = include_str!("vectors/identify-controller-manager.hex");
const CHILD: &str = include_str!("vectors/identify-controller-child.hex");
const PHYSICAL: &str = include_str!("vectors/identify-controller-pf.hex");
const VIRTUAL: &str = include_str!("vectors/identify-controller-vf.hex");

#[test]
fn recorded_controllers_decode() {
    use OptionalAdminCommands as Admin;
    let common = Admin::FORMAT
        | Admin::NAMESPACE_MANAGEMENT
        | Admin::DIRECTIVES
        | Admin::GET_LBA_STATUS
        | Admin::HOST_MANAGED_LIVE_MIGRATION;
    let virtualized = common | Admin::VIRTUALIZATION_MANAGEMENT;
    let rows = [
        ("manager", MANAGER, 0, "SER-subC", "nqn.2019-08.org.qemu:subC", common),
        ("child", CHILD, 1, "SER-subC", "nqn.2019-08.org.qemu:subC", common),
        ("physical function", PHYSICAL, 0, "SER-subA", "nqn.2019-08.org.qemu:subA", virtualized),
        ("virtual function", VIRTUAL, 1, "SER-subA", "nqn.2019-08.org.qemu:subA", virtualized),
    ];
    for (name, text, controller, serial, subsystem, admin_commands) in rows {
        let data = dump(text);
        assert_eq!(data.len(), PAGE_BYTES, "{name}");
        let identity = ControllerIdentity::parse(&data).unwrap();
        assert_eq!((identity.vendor, identity.subsystem_vendor), (0x1B36, 0x1AF4), "{name}");
        assert_eq!(identity.serial_number.as_str(), Some(serial), "{name}");
        assert_eq!(identity.model_number.as_str(), Some("QEMU NVMe Ctrl"), "{name}");
        assert_eq!(identity.firmware_revision.as_str(), Some("9.2.50"), "{name}");
        assert_eq!(identity.subsystem_name.as_str(), Some(subsystem), "{name}");
        assert_eq!((identity.arbitration_burst_log2, identity.ieee), (6, [0x00, 0x54, 0x52]), "{name}");
        assert_eq!((identity.sharing, identity.max_transfer_log2), (2, 7), "{name}");
        assert_eq!(identity.max_transfer_bytes(4096), Some(512 * 1024), "{name}");
        assert_eq!(identity.controller, ControllerId::new(controller), "{name}");
        assert_eq!(identity.version, 0x0001_0400, "{name}");
        assert_eq!((identity.optional_events, identity.attributes), (0x100, 0x8010), "{name}");
        assert_eq!(identity.controller_type, ControllerType::IO, "{name}");
        assert_eq!(identity.admin_commands, admin_commands, "{name}");
        assert_eq!((identity.abort_limit, identity.event_request_limit), (4, 4), "{name}");
        assert_eq!((identity.firmware_updates, identity.log_page_attributes), (3, 7), "{name}");
        assert_eq!((identity.error_log_entries, identity.power_state_count), (1, 1), "{name}");
        assert_eq!(identity.host_memory_preferred, 0, "{name}: no host memory buffer beside a manager");
        assert_eq!((identity.total_capacity, identity.unallocated_capacity), (0, 0), "{name}");
        assert_eq!(identity.keep_alive_granularity, 0, "{name}");
        assert_eq!(identity.submission_entry_sizes, EntrySizes { required: 6, maximum: 6 }, "{name}");
        assert_eq!(identity.completion_entry_sizes, EntrySizes { required: 4, maximum: 4 }, "{name}");
        assert_eq!((identity.max_outstanding_commands, identity.namespace_count), (0, 256), "{name}");
        assert_eq!(identity.nvm_commands.bits(), 0x75D, "{name}");
        assert!(identity.nvm_commands.contains(OptionalNvmCommands::COPY), "{name}");
        assert!(!identity.nvm_commands.contains(OptionalNvmCommands::VERIFY), "{name}");
        assert!(identity.volatile_write_cache, "{name}");
        assert_eq!(identity.flush_behavior, 3, "{name}");
        assert_eq!((identity.copy_formats, identity.sgl_support), (0xF, 0x0008_0001), "{name}");
        assert_eq!(identity.power_states[0].max_power_tenth_milliwatts(), 250_000, "{name}");
        assert_eq!(identity.power_states[0].entry_latency(), 16, "{name}");
        assert_eq!(identity.power_states[0].exit_latency(), 4, "{name}");
        let mut page = [0; PAGE_BYTES];
        identity.build(&mut page);
        assert_eq!(ControllerIdentity::parse(&page), Ok(identity), "{name}: rebuilt");
    }
}

/// User data tracking is supported, and queues work, although the limits of their number, of all memory ranges and of
/// PRPs read 0.
#[test]
fn quirk_limits_read_zero_although_queues_work() {
    for (name, text) in [("manager", MANAGER), ("physical function", PHYSICAL)] {
        let limits = ControllerIdentity::parse(&dump(text)).unwrap().migration;
        let expected = MigrationLimits {
            tracking: TrackingAttributes::USER_DATA,
            queue_memory_ranges: 1,
            ..MigrationLimits::default()
        };
        assert_eq!(limits, expected, "{name}");
    }
}

/// Every controller of the recorded subsystem calls itself a manager, those it can migrate included.
#[test]
fn quirk_migratable_controllers_claim_to_be_managers() {
    for (name, text, id) in [("child", CHILD, 1), ("virtual function", VIRTUAL, 1), ("manager", MANAGER, 0)] {
        let identity = ControllerIdentity::parse(&dump(text)).unwrap();
        assert!(identity.is_manager(), "{name}");
        assert_eq!(identity.manager().map(|m| m.controller()), Some(ControllerId::new(id)), "{name}");
    }
}

#[test]
fn recorded_namespace_decodes() {
    let data = dump(include_str!("vectors/identify-namespace-cns00.hex"));
    let namespace = NamespaceIdentity::parse(&data).unwrap().unwrap();
    assert_eq!((namespace.blocks, namespace.capacity, namespace.used), (0x2_0000, 0x2_0000, 0x2_0000));
    assert_eq!((namespace.block_bytes(), namespace.bytes()), (512, 64 << 20));
    assert_eq!((namespace.format_count, namespace.unique_format_count, namespace.format_index), (8, 0, 0));
    assert_eq!(namespace.features, 0x24);
    assert_eq!((namespace.metadata_capabilities, namespace.protection_capabilities), (3, 0x1F));
    assert_eq!((namespace.protection, namespace.shared, namespace.deallocate_features), (0, true, 1));
    assert_eq!(namespace.atomics, None);
    let optimal = OptimalIo {
        write_granularity: 1,
        write_alignment: 1,
        deallocate_granularity: 8,
        deallocate_alignment: 8,
        write_size: 1,
    };
    assert_eq!(namespace.optimal_io, Some(optimal));
    assert_eq!((namespace.copy_range_blocks, namespace.copy_blocks, namespace.copy_ranges), (128, 128, 128));
    assert_eq!((namespace.endurance_group, namespace.write_protected), (1, false));
    let formats: Vec<_> = namespace.formats[..9].iter().map(|f| (f.metadata_bytes, f.data_log2)).collect();
    assert_eq!(formats, [(0, 9), (8, 9), (16, 9), (64, 9), (0, 12), (8, 12), (16, 12), (64, 12), (0, 0)]);
}

#[test]
fn recorded_nvm_controller_decodes_and_rebuilds() {
    let data = dump(include_str!("vectors/identify-controller-nvm-cns06.hex"));
    let identity = NvmControllerIdentity::parse(&data).unwrap();
    let expected = NvmControllerIdentity {
        verify_limit_log2: 7,
        dataset_ranges: 255,
        dataset_range_blocks: 0x003F_FFFF,
        dataset_blocks: 0x3FBF_FF01,
        admin_options: 1,
        ..NvmControllerIdentity::default()
    };
    assert_eq!(identity, expected);
    assert!(identity.migration_queue_format.is_type_0());
    let mut page = [0; PAGE_BYTES];
    identity.build(&mut page);
    assert_eq!(&page[..], data);
}

#[test]
fn recorded_virtualization_data_decodes_and_rebuilds() {
    let data = dump(include_str!("vectors/identify-primary-caps-cns14.hex"));
    let primary = PrimaryControllerCapabilities::parse(&data).unwrap();
    let resources = |flexible_total, primary_private, secondary_maximum| VirtualResources {
        flexible_total,
        flexible_assigned: 0,
        primary_flexible: 0,
        primary_private,
        secondary_maximum,
        granularity: 1,
    };
    let expected = PrimaryControllerCapabilities {
        controller: ControllerId::new(0),
        port: 0,
        queues_supported: true,
        interrupts_supported: true,
        queues: resources(8, 9, 4),
        interrupts: resources(4, 13, 2),
    };
    assert_eq!(primary, expected);
    let mut page = [0; PAGE_BYTES];
    primary.build(&mut page);
    assert_eq!(&page[..], data);

    let data = dump(include_str!("vectors/identify-secondary-list-cns15.hex"));
    let from = ControllerId::new(0);
    let list: Vec<_> = SecondaryControllers::parse(&data, from).unwrap().iter().collect();
    let secondary = |number| SecondaryController {
        controller: ControllerId::new(number),
        primary: ControllerId::new(0),
        online: false,
        virtual_function: number,
        queues: 0,
        interrupts: 0,
    };
    assert_eq!(list, [secondary(1), secondary(2)]);
    assert_eq!(SecondaryControllers::build(&mut page, from, list), 2);
    assert_eq!(&page[..], data);
}

/// The recorded model transfers only as many bytes as it uses; the rest of the host's buffer stays as it was.
#[test]
fn quirk_state_formats_transfer_four_bytes() {
    let data = dump(include_str!("vectors/identify-cns20-controller-state-formats.hex"));
    assert_eq!(data, [1, 0, 0, 0]);
    let mut page = [0; PAGE_BYTES];
    page[..4].copy_from_slice(&data);
    for (name, bytes) in [("as transferred", &data[..]), ("in a zeroed buffer", &page[..])] {
        let formats = SupportedControllerStateFormats::parse(bytes).unwrap();
        assert_eq!(formats.versions().collect::<Vec<_>>(), [(1, 0)], "{name}");
        assert_eq!(formats.vendors().count(), 0, "{name}");
        assert_eq!(formats.version_index(0), Some(1), "{name}");
    }
    let mut built = [0xEE; PAGE_BYTES];
    SupportedControllerStateFormats::build(&mut built, &[0], &[]).unwrap();
    assert_eq!(built, page);
}

const LIMITS: StateLimits = StateLimits {
    submission_queues: 64,
    completion_queues: 64,
    queue_entries: 2048,
    vectors: 65,
    contiguous_required: true,
    page_bytes: 4096,
};

fn submission(queue: u16, base: u64, entries: u32, head: u16, tail: u16) -> SubmissionQueueState {
    SubmissionQueueState {
        queue: QueueId::new(queue),
        base: BusAddr::new(base),
        entries,
        completion_queue: QueueId::new(queue),
        contiguous: true,
        priority: 0,
        head,
        tail,
    }
}

fn completion(queue: u16, base: u64, entries: u32, head: u16, tail: u16) -> CompletionQueueState {
    CompletionQueueState {
        queue: QueueId::new(queue),
        base: BusAddr::new(base),
        entries,
        contiguous: true,
        interrupts_enabled: false,
        vector: 0,
        head,
        tail,
        next_phase: true,
    }
}

fn rebuild(
    suspended: bool,
    submission: &[SubmissionQueueState],
    completion: &[CompletionQueueState],
) -> Vec<u8> {
    let mut buffer = [0xEE; 1024];
    let mut builder =
        ControllerStateBuilder::new(&mut buffer, suspended, StateDialect::NextPostPhase).unwrap();
    submission.iter().for_each(|queue| builder.submission_queue(*queue).unwrap());
    completion.iter().for_each(|queue| builder.completion_queue(*queue).unwrap());
    let len = builder.finish(0).unwrap();
    buffer[..len].to_vec()
}

#[test]
fn recorded_states_decode_and_rebuild() {
    let one = (true, vec![submission(1, 0xD_7000, 64, 1, 2)], vec![completion(1, 0x9_6000, 64, 1, 1)]);
    let two = (
        false,
        vec![submission(1, 0x9_5000, 64, 0, 0), submission(2, 0xB_7000, 32, 0, 0)],
        vec![completion(1, 0x5_4000, 64, 0, 0), completion(2, 0x9_6000, 32, 0, 0)],
    );
    let rows = [
        ("one pair, got", include_str!("vectors/controller-state-1q-vf.hex"), &one),
        ("one pair, set", include_str!("vectors/set-controller-state-payload-1q-vf.hex"), &one),
        ("two pairs", include_str!("vectors/controller-state-scen-01.hex"), &two),
        ("no queues", include_str!("vectors/controller-state-scen-05.hex"), &(false, vec![], vec![])),
    ];
    for (name, text, (suspended, submission, completion)) in rows {
        let data = dump(text);
        let image = ControllerStateImage::parse(&data, data.len()).unwrap();
        assert_eq!((image.suspended(), image.total_bytes()), (*suspended, data.len()), "{name}");
        assert!(image.vendor_data().is_empty(), "{name}");
        assert_eq!(image.validate(&LIMITS), Ok(()), "{name}");
        let state = image.nvme_state().unwrap().unwrap();
        assert_eq!(&state.submission_queues().collect::<Vec<_>>(), submission, "{name}");
        let queues: Vec<_> = state.completion_queues(StateDialect::NextPostPhase).collect();
        assert_eq!(&queues, completion, "{name}");
        assert_eq!(rebuild(*suspended, submission, completion), data, "{name}");
    }
}

#[test]
fn recorded_state_without_version_index_is_a_header_alone() {
    let data = dump(include_str!("vectors/controller-state-scen-03.hex"));
    let image = ControllerStateImage::parse(&data, 48).unwrap();
    assert!(image.suspended());
    assert!(image.nvme_state().unwrap().is_none());
    assert_eq!(image.validate(&LIMITS), Ok(()));
    assert_eq!(image.check_indices(0, 0), Ok(()));
}

/// The host asked for 26 dwords where the image has 38: the header tells, and the rest is not invented.
#[test]
fn recorded_state_that_was_read_in_part_is_refused() {
    let data = dump(include_str!("vectors/controller-state-2q-kernel-driver.hex"));
    assert_eq!(data.len(), 104);
    let header = ControllerStateHeader::parse(&data).unwrap();
    assert!(!header.suspended());
    assert_eq!(header.sizes(4096).unwrap().total, 152);
    let error = ControllerStateImage::parse(&data, 4096).unwrap_err();
    assert_eq!(error, StateError::Short { needed: 152, found: 104 });
}

/// S0PT of the recorded model is the phase of the next entry. Where the tail is 0 that is the opposite of what slot 0
/// holds, so a fresh queue read by the specification would post its first entry with the wrong phase.
#[test]
fn quirk_slot_zero_phase_is_the_next_phase() {
    let rows = [
        ("fresh queue, tail 0", include_str!("vectors/controller-state-scen-01.hex"), false),
        ("tail 1", include_str!("vectors/controller-state-1q-vf.hex"), true),
    ];
    for (name, text, by_specification) in rows {
        let data = dump(text);
        let state = ControllerStateImage::parse(&data, 4096).unwrap().nvme_state().unwrap().unwrap();
        let phase = |dialect| state.completion_queues(dialect).next().map(|queue| queue.next_phase);
        assert_eq!(phase(StateDialect::NextPostPhase), Some(true), "{name}");
        assert_eq!(phase(StateDialect::Specification), Some(by_specification), "{name}");
        let mut translated = data.clone();
        DialectTranslator::new().translate(&mut translated);
        let state = ControllerStateImage::parse(&translated, 4096).unwrap().nvme_state().unwrap().unwrap();
        let phase = state.completion_queues(StateDialect::Specification).next().map(|queue| queue.next_phase);
        assert_eq!(phase, Some(true), "{name}, translated");
    }
}

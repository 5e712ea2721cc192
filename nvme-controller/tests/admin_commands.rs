// SPDX-License-Identifier: MIT OR Apache-2.0
//! Identify, features, log pages, Get LBA Status and Virtualization Management.

mod harness;

use harness::{BLOCK, GUEST, MANAGER, NSID, Options, Rig, code, id_of, pattern};
use nvme_controller::{Quirks, SubsystemConfig};
use nvme_core::wire::admin::{
    FeatureSelect, GetFeatures, GetLbaStatus, GetLogPage, Identify, IdentifyStructure, SetFeatures,
    VirtualizationAction, VirtualizationManagement, VirtualizationResource,
};
use nvme_core::wire::feature::{FeatureId, HostBehaviorSupport, HostBehaviorSupportData};
use nvme_core::wire::identify::{
    CommandSetCombinations, ControllerIdentity, ControllerList, IndependentNamespaceIdentity,
    NamespaceDescriptor, NamespaceDescriptors, NamespaceList, NvmControllerIdentity,
    PrimaryControllerCapabilities, SecondaryControllers, TrackingAttributes,
};
use nvme_core::wire::lba_status::{LbaStatusAction, LbaStatusCondition, LbaStatusReport};
use nvme_core::wire::log::{
    CommandEffects, CommandsSupportedAndEffects, ErrorInformationEntry, FirmwareSlotInformation, LogPageId,
    SmartHealthInformation, SmartHealthInformationData,
};
use nvme_core::wire::nvm::{Read, Write};
use nvme_core::wire::{
    AdminOpcode, Command, ControllerId, IoOpcode, Lba, NamespaceId, Status, SubmissionQueueEntry,
};
use zerocopy::{FromBytes, IntoBytes};

fn with(options: Options) -> Rig {
    let mut rig = Rig::with(options);
    rig.enable(MANAGER);
    rig.enable(GUEST);
    rig
}

fn rig() -> Rig {
    with(Options { namespaces: vec![1, 4], ..Options::default() })
}

fn identify(rig: &mut Rig, controller: usize, command: Identify) -> Vec<u8> {
    let (entry, page) = rig.admin_data(controller, &command, &[0xEE; 4096]);
    assert_eq!(entry.status(), Status::SUCCESS, "{command:?}");
    page
}

#[test]
fn identify_answers_or_says_why_not() {
    let of = |structure, nsid| Identify { namespace: NamespaceId::new(nsid), ..Identify::new(structure) };
    let set = |structure, nsid| Identify { command_set: 2, ..of(structure, nsid) };
    use IdentifyStructure as S;
    let rows = [
        ("namespace", of(S::NAMESPACE, 1), 0, 0x00),
        ("inactive namespace", of(S::NAMESPACE, 3), 0, 0x00),
        ("namespace 0", of(S::NAMESPACE, 0), 0, 0x0B),
        ("namespace above NN", of(S::NAMESPACE, 5), 0, 0x0B),
        ("all namespaces", of(S::NAMESPACE, 0xFFFF_FFFF), 0, 0x0B),
        ("controller", of(S::CONTROLLER, 0), 0, 0x00),
        ("controller with a namespace", of(S::CONTROLLER, 1), 0, 0x02),
        ("active list", of(S::ACTIVE_NAMESPACE_LIST, 0), 0, 0x00),
        ("active list after the last", of(S::ACTIVE_NAMESPACE_LIST, 0xFFFF_FFFE), 0, 0x0B),
        ("descriptors", of(S::NAMESPACE_IDENTIFICATION_DESCRIPTORS, 4), 0, 0x00),
        ("descriptors of an inactive namespace", of(S::NAMESPACE_IDENTIFICATION_DESCRIPTORS, 3), 0, 0x02),
        ("descriptors above NN", of(S::NAMESPACE_IDENTIFICATION_DESCRIPTORS, 9), 0, 0x0B),
        ("command set namespace", of(S::COMMAND_SET_NAMESPACE, 1), 0, 0x00),
        ("other command set", set(S::COMMAND_SET_NAMESPACE, 1), 0, 0x02),
        ("command set controller", of(S::COMMAND_SET_CONTROLLER, 0), 0, 0x00),
        ("controller of another command set", set(S::COMMAND_SET_CONTROLLER, 0), 0, 0x02),
        ("command set list", of(S::COMMAND_SET_ACTIVE_NAMESPACE_LIST, 0), 0, 0x00),
        ("independent", of(S::INDEPENDENT_NAMESPACE, 1), 0, 0x00),
        ("allocated list", of(S::ALLOCATED_NAMESPACE_LIST, 0), 0, 0x00),
        ("allocated namespace", of(S::ALLOCATED_NAMESPACE, 1), 0, 0x00),
        ("attached controllers", of(S::ATTACHED_CONTROLLER_LIST, 1), 0, 0x00),
        ("controllers", of(S::CONTROLLER_LIST, 0), 0, 0x00),
        ("primary capabilities without secondaries", of(S::PRIMARY_CONTROLLER_CAPABILITIES, 0), 0, 0x02),
        ("secondary list without secondaries", of(S::SECONDARY_CONTROLLER_LIST, 0), 0, 0x02),
        (
            "command sets",
            Identify { controller: ControllerId::new(0xFFFF), ..of(S::COMMAND_SETS, 0) },
            0,
            0x00,
        ),
        (
            "command sets of nobody",
            Identify { controller: ControllerId::new(0x99), ..of(S::COMMAND_SETS, 0) },
            0,
            0x02,
        ),
        ("unknown structure", of(S::new(0x7F), 0), 0, 0x02),
    ];
    let mut rig = rig();
    for (name, command, kind, status) in rows {
        let (entry, _) = rig.admin_data(GUEST, &command, &[0; 4096]);
        assert_eq!(entry.status().code(), code(kind, status), "{name}");
    }
}

#[test]
fn identify_structures_hold_what_is_there() {
    let mut rig = rig();
    use IdentifyStructure as S;
    let page = identify(&mut rig, MANAGER, Identify::new(S::CONTROLLER));
    let manager = ControllerIdentity::parse(&page).unwrap();
    let limits = manager.migration;
    assert_eq!(limits.tracking, TrackingAttributes::HOST_MEMORY | TrackingAttributes::USER_DATA);
    assert_eq!((limits.controller_queues, limits.subsystem_queues), (4, 4), "as many as there are slots");
    assert_eq!((manager.namespace_count, manager.event_request_limit, manager.error_log_entries), (4, 4, 8));
    let guest = ControllerIdentity::parse(&identify(&mut rig, GUEST, Identify::new(S::CONTROLLER))).unwrap();
    assert!(!guest.is_manager() && guest.migration.tracking.is_empty());

    let page = identify(&mut rig, GUEST, Identify::new(S::ACTIVE_NAMESPACE_LIST));
    let list = NamespaceList::parse(&page, NamespaceId::NONE).unwrap();
    assert_eq!(list.iter().map(NamespaceId::get).collect::<Vec<_>>(), [1, 4]);
    let after = Identify { namespace: NSID, ..Identify::new(S::ACTIVE_NAMESPACE_LIST) };
    let page = identify(&mut rig, GUEST, after);
    assert_eq!(NamespaceList::parse(&page, NSID).unwrap().iter().count(), 1);

    let inactive = Identify { namespace: NamespaceId::new(2), ..Identify::new(S::NAMESPACE) };
    assert_eq!(identify(&mut rig, GUEST, inactive), [0; 4096]);

    let fourth = NamespaceId::new(4);
    let command = Identify { namespace: fourth, ..Identify::new(S::NAMESPACE_IDENTIFICATION_DESCRIPTORS) };
    let page = identify(&mut rig, GUEST, command);
    let found: Vec<_> = NamespaceDescriptors::parse(&page).unwrap().iter().collect();
    assert_eq!(found, [NamespaceDescriptor::Nguid([4; 16]), NamespaceDescriptor::CommandSet(0)]);

    let command = Identify { namespace: fourth, ..Identify::new(S::INDEPENDENT_NAMESPACE) };
    let independent = IndependentNamespaceIdentity::parse(&identify(&mut rig, GUEST, command)).unwrap();
    assert!(independent.ready && independent.shared);

    let page = identify(&mut rig, MANAGER, Identify::new(S::COMMAND_SET_CONTROLLER));
    assert!(NvmControllerIdentity::parse(&page).unwrap().migration_queue_format.is_type_0());
    assert_eq!(page[24], 0, "LBAMQF");

    let page =
        identify(&mut rig, GUEST, Identify { controller: id_of(1), ..Identify::new(S::CONTROLLER_LIST) });
    let list = ControllerList::parse(&page, id_of(1)).unwrap();
    assert_eq!(list.iter().collect::<Vec<_>>(), [id_of(1), id_of(2)]);
    let everyone = Identify { controller: ControllerId::new(0xFFFF), ..Identify::new(S::COMMAND_SETS) };
    assert_eq!(
        CommandSetCombinations::parse(&identify(&mut rig, GUEST, everyone)).unwrap().iter().count(),
        1
    );
}

#[test]
fn limits_can_read_zero_as_in_a_known_model() {
    let subsystem = SubsystemConfig { quirks: Quirks::LIMITS_READ_ZERO, ..Options::default().subsystem };
    let mut rig = with(Options { subsystem, ..Options::default() });
    let page = identify(&mut rig, MANAGER, Identify::new(IdentifyStructure::CONTROLLER));
    let limits = ControllerIdentity::parse(&page).unwrap().migration;
    assert_eq!((limits.controller_queues, limits.subsystem_queues, limits.queue_prps), (0, 0, 0));
    assert!(limits.tracking.contains(TrackingAttributes::USER_DATA));
}

#[test]
fn features_can_be_set_and_read_in_every_form() {
    let mut rig = rig();
    let get = |feature, select| GetFeatures::new(feature, select);
    for (name, feature, value, default, capabilities) in [
        ("arbitration", FeatureId::ARBITRATION, 7, 3, 4),
        ("power", FeatureId::POWER_MANAGEMENT, 0x20, 0, 4),
        ("over temperature", FeatureId::TEMPERATURE_THRESHOLD, 400, 0x157, 4),
        ("write cache", FeatureId::VOLATILE_WRITE_CACHE, 0, 1, 4),
        ("coalescing", FeatureId::INTERRUPT_COALESCING, 0x0203, 0, 4),
        ("events", FeatureId::ASYNCHRONOUS_EVENT_CONFIGURATION, 0x11F, 0, 4),
        ("command set profile", FeatureId::IO_COMMAND_SET_PROFILE, 0, 0, 4),
    ] {
        rig.admin_ok(GUEST, &SetFeatures::new(feature, value));
        assert_eq!(rig.admin_ok(GUEST, &get(feature, FeatureSelect::Current)), value, "{name}");
        assert_eq!(rig.admin_ok(GUEST, &get(feature, FeatureSelect::Default)), default, "{name}");
        assert_eq!(rig.admin_ok(GUEST, &get(feature, FeatureSelect::Saved)), default, "{name}");
        let supported = rig.admin_ok(GUEST, &get(feature, FeatureSelect::SupportedCapabilities));
        assert_eq!(supported, capabilities, "{name}");
    }
    let vector =
        GetFeatures { dword11: 3, ..get(FeatureId::INTERRUPT_VECTOR_CONFIGURATION, FeatureSelect::Current) };
    assert_eq!(rig.admin_ok(GUEST, &vector), 0x1_0003);

    let support = HostBehaviorSupport { advanced_command_retry: true, extended_formats: false };
    let data = HostBehaviorSupportData::from(support);
    let set = SetFeatures::new(FeatureId::HOST_BEHAVIOR_SUPPORT, 0);
    assert_eq!(rig.admin_data(GUEST, &set, data.as_bytes()).0.status(), Status::SUCCESS);
    let current = get(FeatureId::HOST_BEHAVIOR_SUPPORT, FeatureSelect::Current);
    assert_eq!(rig.admin_data(GUEST, &current, &[0xEE; 512]).1, data.as_bytes());
}

#[test]
fn features_are_refused_with_the_status_of_the_violation() {
    let mut rig = rig();
    let set = |feature, value| SetFeatures::new(feature, value);
    let arbitration = set(FeatureId::ARBITRATION, 1);
    let mut retry = [0_u8; 512];
    retry[0] = 2;
    for (name, command, data, kind, status) in [
        ("unknown feature", set(FeatureId::new(0x7E), 0), &[][..], 0, 0x02),
        ("host memory buffer", set(FeatureId::HOST_MEMORY_BUFFER, 0), &[], 0, 0x02),
        ("save", SetFeatures { save: true, ..arbitration }, &[], 1, 0x0D),
        ("namespace", SetFeatures { namespace: NSID, ..arbitration }, &[], 1, 0x0F),
        ("all namespaces", SetFeatures { namespace: NamespaceId::ALL, ..arbitration }, &[], 0, 0x00),
        ("not changeable", set(FeatureId::INTERRUPT_VECTOR_CONFIGURATION, 0), &[], 1, 0x0E),
        ("power state that does not exist", set(FeatureId::POWER_MANAGEMENT, 1), &[], 0, 0x02),
        (
            "temperature sensor that does not exist",
            set(FeatureId::TEMPERATURE_THRESHOLD, 0x1_0000),
            &[],
            0,
            0x02,
        ),
        ("threshold that does not exist", set(FeatureId::TEMPERATURE_THRESHOLD, 0x20_0000), &[], 0, 0x02),
        ("command sets that do not exist", set(FeatureId::IO_COMMAND_SET_PROFILE, 1), &[], 1, 0x2B),
        ("host behavior", set(FeatureId::HOST_BEHAVIOR_SUPPORT, 0), &retry, 0, 0x02),
    ] {
        let entry = if data.is_empty() {
            rig.admin(GUEST, &command)
        } else {
            rig.admin_data(GUEST, &command, data).0
        };
        assert_eq!(entry.status().code(), code(kind, status), "{name}");
    }
    let get = GetFeatures::new(FeatureId::ARBITRATION, FeatureSelect::Current);
    for (name, command, kind, status) in [
        ("unknown feature", GetFeatures { feature: FeatureId::new(0x7E), ..get }, 0, 0x02),
        ("namespace", GetFeatures { namespace: NSID, ..get }, 0, 0x02),
        (
            "vector that does not exist",
            GetFeatures { feature: FeatureId::INTERRUPT_VECTOR_CONFIGURATION, dword11: 8, ..get },
            0,
            0x02,
        ),
    ] {
        assert_eq!(rig.admin(GUEST, &command).status().code(), code(kind, status), "get: {name}");
    }
}

fn log(rig: &mut Rig, command: GetLogPage) -> Vec<u8> {
    let (entry, page) = rig.admin_data(GUEST, &command, &vec![0; command.bytes() as usize]);
    assert_eq!(entry.status(), Status::SUCCESS);
    page
}

#[test]
fn log_pages_are_refused_with_the_status_of_the_violation() {
    let good = GetLogPage::new(LogPageId::SMART_HEALTH_INFORMATION, 128);
    let mut rig = rig();
    for (name, command, kind, status) in [
        ("unknown page", GetLogPage { page: LogPageId::new(0x7E), ..good }, 1, 0x09),
        ("namespace", GetLogPage { namespace: NSID, ..good }, 0, 0x02),
        ("all namespaces", GetLogPage { namespace: NamespaceId::ALL, ..good }, 0, 0x00),
        ("offset at the end", GetLogPage { offset: 512, ..good }, 0, 0x00),
        ("offset beyond the end", GetLogPage { offset: 516, ..good }, 0, 0x02),
        ("offset as index", GetLogPage { offset_is_index: true, ..good }, 0, 0x02),
        ("other command set", GetLogPage { command_set: 2, ..good }, 0, 0x02),
        ("longer than the largest transfer", GetLogPage { dwords: 1 << 30, ..good }, 0, 0x02),
    ] {
        assert_eq!(
            rig.admin_data(GUEST, &command, &[0; 512]).0.status().code(),
            code(kind, status),
            "{name}"
        );
    }
    let unaligned = good.encode().with_dwords([0x7F_0002, 0, 2, 0, 0, 0]);
    assert_eq!(
        rig.command(GUEST, 0, unaligned).status().code(),
        code(0, 0x02),
        "offset not a multiple of four"
    );
}

#[test]
fn log_pages_hold_what_is_there() {
    let mut rig = rig();
    rig.create_pair(GUEST, 1, 16);
    let (_, _) = rig.io_data(GUEST, 1, &Write::new(NSID, Lba::new(0), 8), &pattern(8, 0));
    let (_, _) = rig.io_data(GUEST, 1, &Read::new(NSID, Lba::new(0), 8), &[0; 8 * BLOCK]);
    let (bad, _) = rig.io_data(GUEST, 1, &Read::new(NSID, Lba::new(5000), 1), &[0; BLOCK]);
    assert_eq!(bad.status().code(), code(0, 0x80));
    let health = log(&mut rig, GetLogPage::new(LogPageId::SMART_HEALTH_INFORMATION, 128));
    let health = SmartHealthInformation::from(&SmartHealthInformationData::read_from_bytes(&health).unwrap());
    assert_eq!((health.host_reads, health.host_writes, health.data_units_read), (1, 1, 1));
    assert_eq!((health.error_entries, health.critical_warning.is_empty()), (1, true));

    let page = log(&mut rig, GetLogPage::new(LogPageId::FIRMWARE_SLOT_INFORMATION, 128));
    let slots = FirmwareSlotInformation::read_from_bytes(&page).unwrap();
    assert_eq!((slots.active_slot(), slots.revision(1)), (1, Some(*b"1       ")));

    assert_eq!(log(&mut rig, GetLogPage::new(LogPageId::CHANGED_ATTACHED_NAMESPACE_LIST, 1024)), [0; 4096]);

    for controller in [GUEST, MANAGER] {
        let command = GetLogPage::new(LogPageId::COMMANDS_SUPPORTED_AND_EFFECTS, 1024);
        let (_, page) = rig.admin_data(controller, &command, &[0; 4096]);
        let effects = CommandsSupportedAndEffects::read_from_bytes(&page).unwrap();
        for opcode in [0x3D, 0x3E, 0x41, 0x42, 0x45] {
            let expected =
                if controller == MANAGER { CommandEffects::SUPPORTED } else { CommandEffects::empty() };
            assert_eq!(effects.admin(AdminOpcode::new(opcode)), expected, "{opcode:#x} at {controller}");
        }
        assert!(effects.admin(AdminOpcode::IDENTIFY).contains(CommandEffects::SUPPORTED));
        assert!(effects.io(IoOpcode::WRITE).contains(CommandEffects::CONTENT_CHANGE));
        assert!(effects.io(IoOpcode::CANCEL).is_empty());
    }
}

#[test]
fn the_error_log_lists_the_newest_first_and_can_be_read_in_pieces() {
    let mut rig = rig();
    rig.create_pair(GUEST, 1, 16);
    for lba in 0..11 {
        let (entry, _) = rig.io_data(GUEST, 1, &Read::new(NSID, Lba::new(5000 + lba), 1), &[0; BLOCK]);
        assert_eq!(entry.status().code(), code(0, 0x80));
    }
    let reserved =
        SubmissionQueueEntry::new(AdminOpcode::GET_FEATURES.get()).with_dwords([0x400, 0, 0, 0, 0, 0]);
    assert_eq!(rig.command(GUEST, 0, reserved).status().code(), code(0, 0x02));
    let whole = log(&mut rig, GetLogPage::new(LogPageId::ERROR_INFORMATION, 8 * 16));
    let entries: Vec<_> = whole
        .chunks(64)
        .map(|bytes| ErrorInformationEntry::read_from_bytes(bytes).unwrap().error().unwrap())
        .collect();
    assert_eq!(entries.iter().map(|error| error.count).collect::<Vec<_>>(), [12, 11, 10, 9, 8, 7, 6, 5]);
    let field = entries[0].location.unwrap();
    assert_eq!(
        (entries[0].queue.unwrap().get(), field.byte, field.bit),
        (0, 41, 0),
        "SEL is the field at fault"
    );
    assert_eq!((entries[1].lba, entries[1].namespace, entries[1].opcode), (Lba::new(5010), NSID, 2));
    let mut pieces = Vec::new();
    for offset in (0..512).step_by(40) {
        let dwords = (512 - offset).min(40) / 4;
        pieces.extend(log(
            &mut rig,
            GetLogPage { offset, ..GetLogPage::new(LogPageId::ERROR_INFORMATION, dwords) },
        ));
    }
    assert_eq!(pieces, whole);
}

#[test]
fn r12_allocated_blocks_are_reported_as_ranges() {
    let mut rig = rig();
    rig.create_pair(GUEST, 1, 16);
    for (start, blocks) in [(0, 8), (8, 1), (100, 2), (2040, 8)] {
        let data = pattern(blocks as usize, 1);
        assert_eq!(
            rig.io_data(GUEST, 1, &Write::new(NSID, Lba::new(start), blocks), &data).0.status(),
            Status::SUCCESS
        );
    }
    let good = GetLbaStatus {
        namespace: NSID,
        start: Lba::new(0),
        max_dwords: 64,
        range_blocks: 0,
        action: LbaStatusAction::ALLOCATED,
    };
    let mut ask = |command: GetLbaStatus| {
        let (entry, data) = rig.admin_data(GUEST, &command, &[0; 256]);
        assert_eq!(entry.status(), Status::SUCCESS);
        let report = LbaStatusReport::parse(&data).unwrap();
        let ranges: Vec<_> = report.descriptors().map(|range| (range.start.get(), range.blocks)).collect();
        (ranges, report.condition())
    };
    use LbaStatusCondition as C;
    type Row<'a> = (&'a str, GetLbaStatus, &'a [(u64, u32)], LbaStatusCondition);
    let rows: [Row<'_>; 7] = [
        ("everything", good, &[(0, 9), (100, 2), (2040, 8)], C::COMPLETE),
        (
            "from inside a range",
            GetLbaStatus { start: Lba::new(5), ..good },
            &[(5, 4), (100, 2), (2040, 8)],
            C::COMPLETE,
        ),
        (
            "part of the namespace",
            GetLbaStatus { range_blocks: 101, ..good },
            &[(0, 9), (100, 1)],
            C::COMPLETE,
        ),
        ("nothing there", GetLbaStatus { start: Lba::new(10), range_blocks: 5, ..good }, &[], C::COMPLETE),
        ("room for two", GetLbaStatus { max_dwords: 10, ..good }, &[(0, 9), (100, 2)], C::INCOMPLETE),
        (
            "tracked unreadable blocks",
            GetLbaStatus { action: LbaStatusAction::TRACKED, ..good },
            &[],
            C::COMPLETE,
        ),
        ("scan", GetLbaStatus { action: LbaStatusAction::SCAN_UNTRACKED, ..good }, &[], C::COMPLETE),
    ];
    for (name, command, ranges, condition) in rows {
        assert_eq!(ask(command), (ranges.to_vec(), condition), "{name}");
    }
    for (name, command, kind, status) in [
        ("start outside", GetLbaStatus { start: Lba::new(2048), ..good }, 0, 0x80),
        ("unknown action", GetLbaStatus { action: LbaStatusAction::new(1), ..good }, 0, 0x02),
        ("no room for the header", GetLbaStatus { max_dwords: 1, ..good }, 0, 0x02),
        ("namespace 0", GetLbaStatus { namespace: NamespaceId::NONE, ..good }, 0, 0x0B),
        ("inactive namespace", GetLbaStatus { namespace: NamespaceId::new(2), ..good }, 0, 0x02),
        ("all namespaces", GetLbaStatus { namespace: NamespaceId::ALL, ..good }, 0, 0x02),
    ] {
        assert_eq!(rig.admin(GUEST, &command).status().code(), code(kind, status), "{name}");
    }
}

#[test]
fn r3_secondary_controllers_get_resources_and_go_online() {
    let mut rig = Rig::with(Options { secondary: true, ..Options::default() });
    rig.enable(MANAGER);
    let act = |action, resource_type, controller, resources| VirtualizationManagement {
        action,
        resource_type,
        controller,
        resources,
    };
    use VirtualizationAction as A;
    use VirtualizationResource as R;
    let guest = id_of(GUEST);
    rig.write32(GUEST, 0x14, 0x0046_0001);
    assert_eq!(rig.read32(GUEST, 0x1C), 2, "an offline controller cannot be enabled");
    rig.write32(GUEST, 0x14, 0);
    for (name, command, kind, status, result) in [
        (
            "primary allocation, none",
            act(A::PRIMARY_FLEXIBLE_ALLOCATION, R::VIRTUAL_QUEUES, id_of(MANAGER), 0),
            0,
            0,
            0,
        ),
        (
            "primary allocation",
            act(A::PRIMARY_FLEXIBLE_ALLOCATION, R::VIRTUAL_QUEUES, id_of(MANAGER), 1),
            1,
            0x21,
            0,
        ),
        (
            "allocation of another",
            act(A::PRIMARY_FLEXIBLE_ALLOCATION, R::VIRTUAL_QUEUES, guest, 0),
            1,
            0x1F,
            0,
        ),
        (
            "unknown controller",
            act(A::SECONDARY_ASSIGN, R::VIRTUAL_QUEUES, ControllerId::new(0x7FFF), 1),
            1,
            0x1F,
            0,
        ),
        ("not a secondary", act(A::SECONDARY_ONLINE, R::VIRTUAL_QUEUES, id_of(MANAGER), 1), 1, 0x1F, 0),
        ("online without resources", act(A::SECONDARY_ONLINE, R::VIRTUAL_QUEUES, guest, 0), 1, 0x20, 0),
        ("unknown resource", act(A::SECONDARY_ASSIGN, R::new(2), guest, 1), 1, 0x22, 0),
        ("too many queues", act(A::SECONDARY_ASSIGN, R::VIRTUAL_QUEUES, guest, 6), 1, 0x21, 0),
        ("queues", act(A::SECONDARY_ASSIGN, R::VIRTUAL_QUEUES, guest, 3), 0, 0, 3),
        ("vectors", act(A::SECONDARY_ASSIGN, R::VIRTUAL_INTERRUPTS, guest, 2), 0, 0, 2),
        ("unknown action", act(A::new(2), R::VIRTUAL_QUEUES, guest, 0), 0, 0x02, 0),
        ("online", act(A::SECONDARY_ONLINE, R::VIRTUAL_QUEUES, guest, 0), 0, 0, 0),
        ("assign while online", act(A::SECONDARY_ASSIGN, R::VIRTUAL_QUEUES, guest, 2), 1, 0x20, 0),
    ] {
        let entry = rig.admin(MANAGER, &command);
        assert_eq!((entry.status().code(), entry.dw0()), (code(kind, status), result), "{name}");
    }
    let page = identify(&mut rig, MANAGER, Identify::new(IdentifyStructure::SECONDARY_CONTROLLER_LIST));
    let list = SecondaryControllers::parse(&page, ControllerId::new(0)).unwrap();
    let first = list.iter().next().unwrap();
    assert_eq!(list.iter().count(), 2);
    assert_eq!((first.controller, first.primary, first.online), (guest, id_of(MANAGER), true));
    assert_eq!((first.virtual_function, first.queues, first.interrupts), (1, 3, 2));
    let page = identify(&mut rig, MANAGER, Identify::new(IdentifyStructure::PRIMARY_CONTROLLER_CAPABILITIES));
    let primary = PrimaryControllerCapabilities::parse(&page).unwrap();
    assert_eq!((primary.queues.flexible_total, primary.queues.flexible_assigned), (10, 3));

    rig.enable(GUEST);
    rig.create_pair_with(GUEST, 2, 8, Some(1));
    let third = harness::create_completion(3, 8, None);
    assert_eq!(rig.admin(GUEST, &third).status().code(), code(1, 0x01), "two I/O queue pairs were assigned");
    let vector = harness::create_completion(1, 8, Some(2));
    assert_eq!(rig.admin(GUEST, &vector).status().code(), code(1, 0x08), "and two vectors");

    let offline = act(A::SECONDARY_OFFLINE, R::VIRTUAL_QUEUES, guest, 0);
    assert_eq!(rig.admin(MANAGER, &offline).status(), Status::SUCCESS);
    assert_eq!(rig.read32(GUEST, 0x1C), 0, "offline is reset");
    rig.write32(GUEST, 0x14, 0x0046_0001);
    assert_eq!(rig.read32(GUEST, 0x1C), 2);
}

#[test]
fn commands_that_do_not_exist() {
    let mut rig = rig();
    for opcode in [0x0D, 0x10, 0x11, 0x14, 0x15, 0x18, 0x1C, 0x24, 0x7C, 0x80, 0x81, 0x82, 0x84, 0xC0, 0xFF] {
        let entry = SubmissionQueueEntry::new(opcode);
        assert_eq!(rig.command(GUEST, 0, entry).status().code(), code(0, 0x01), "admin {opcode:#x}");
    }
    rig.create_pair(GUEST, 1, 64);
    for opcode in [0x03, 0x0D, 0x0E, 0x11, 0x12, 0x15, 0x18, 0x1D, 0x79, 0x80, 0xFF] {
        let entry = SubmissionQueueEntry::new(opcode).with_namespace(NSID);
        assert_eq!(rig.command(GUEST, 1, entry).status().code(), code(0, 0x01), "I/O {opcode:#x}");
    }
}

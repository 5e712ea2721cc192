// SPDX-License-Identifier: MIT OR Apache-2.0
//! Admin commands.

use std::collections::BTreeSet;

use nvme_core::wire::admin::*;
use nvme_core::wire::feature::FeatureId;
use nvme_core::wire::lba_status::{
    LbaStatusAction, LbaStatusBuilder, LbaStatusCondition, LbaStatusDescriptor, LbaStatusReport,
};
use nvme_core::wire::log::LogPageId;
use nvme_core::wire::{
    AdminOpcode, Command, CommandId, ControllerId, IoOpcode, Lba, NamespaceId, QueueId, StatusCode,
    SubmissionQueueEntry, TooShort,
};
use proptest::prelude::*;
use zerocopy::FromBytes as _;

use super::{accepts_or_refuses, round_trip};

#[test]
fn opcodes_have_distinct_numbers_and_names() {
    let admin: BTreeSet<_> = AdminOpcode::ALL.iter().map(|opcode| opcode.get()).collect();
    assert_eq!(admin.len(), AdminOpcode::ALL.len());
    let expected = [
        0x00, 0x01, 0x02, 0x04, 0x05, 0x06, 0x08, 0x09, 0x0A, 0x0C, 0x0D, 0x10, 0x11, 0x14, 0x15, 0x18, 0x1C,
        0x24, 0x3D, 0x3E, 0x41, 0x42, 0x45, 0x7C, 0x80, 0x81, 0x82, 0x84, 0x86,
    ];
    assert_eq!(admin, BTreeSet::from(expected));
    let io: BTreeSet<_> = IoOpcode::ALL.iter().map(|opcode| opcode.get()).collect();
    assert_eq!(io, BTreeSet::from([0, 1, 2, 4, 5, 8, 9, 0xC, 0xD, 0xE, 0x11, 0x12, 0x15, 0x18, 0x19, 0x1D]));
    assert_eq!(AdminOpcode::CONTROLLER_DATA_QUEUE.name(), Some("Controller Data Queue"));
    assert_eq!(AdminOpcode::new(0x03).name(), None);
    assert_eq!(AdminOpcode::new(0x03).to_string(), "AdminOpcode 03h");
    assert_eq!(IoOpcode::COPY.to_string(), "Copy (19h)");
}

#[test]
fn commands_encode_as_the_figures_say() {
    let queue = QueueId::new(7);
    let create_cq = CreateIoCompletionQueue {
        queue,
        entries: 65_536,
        contiguous: false,
        interrupts_enabled: true,
        interrupt_vector: 0x8001,
    };
    let create_sq = CreateIoSubmissionQueue {
        queue,
        entries: 2,
        contiguous: true,
        priority: QueuePriority::Low,
        completion_queue: QueueId::new(9),
        nvm_set: 0x1234,
    };
    let identify = Identify {
        namespace: NamespaceId::new(3),
        controller: ControllerId::new(0xABCD),
        command_set: 2,
        specific_id: 0x5678,
        uuid_index: 0x7F,
        ..Identify::new(IdentifyStructure::COMMAND_SET_NAMESPACE)
    };
    let log = GetLogPage {
        retain_event: true,
        specific_parameter: 0x55,
        specific_id: 0x1122,
        offset: 0x1_0000_0010,
        command_set: 3,
        offset_is_index: true,
        uuid_index: 1,
        ..GetLogPage::new(LogPageId::COMMANDS_SUPPORTED_AND_EFFECTS, 0x1_0002_0001)
    };
    let mut set = SetFeatures::new(FeatureId::TIMESTAMP, 0x11);
    (set.save, set.dword12, set.dword13, set.dword15, set.uuid_index) = (true, 0x12, 0x13, 0x15, 0x14);
    let mut get = GetFeatures::new(FeatureId::TIMESTAMP, FeatureSelect::SupportedCapabilities);
    (get.dword11, get.dword12, get.dword13, get.dword15, get.uuid_index) = (0x11, 0x12, 0x13, 0x15, 0x14);
    let rows: [(&str, SubmissionQueueEntry, u8, u32, [u32; 6]); 16] = [
        ("create completion queue", create_cq.encode(), 0x05, 0, [0xFFFF_0007, 0x8001_0002, 0, 0, 0, 0]),
        ("create submission queue", create_sq.encode(), 0x01, 0, [0x0001_0007, 0x0009_0007, 0x1234, 0, 0, 0]),
        ("delete completion queue", DeleteIoCompletionQueue { queue }.encode(), 0x04, 0, [7, 0, 0, 0, 0, 0]),
        ("delete submission queue", DeleteIoSubmissionQueue { queue }.encode(), 0x00, 0, [7, 0, 0, 0, 0, 0]),
        (
            "abort",
            Abort { queue, command: CommandId::new(0x42) }.encode(),
            0x08,
            0,
            [0x0042_0007, 0, 0, 0, 0, 0],
        ),
        ("identify", identify.encode(), 0x06, 3, [0xABCD_0005, 0x0200_5678, 0, 0, 0x7F, 0]),
        (
            "get log page: more dwords than 2^32 saturate",
            log.encode(),
            0x02,
            0,
            [0xFFFF_D505, 0x1122_FFFF, 0x10, 1, 0x0380_0001, 0],
        ),
        (
            "get log page: one dword",
            GetLogPage::new(LogPageId::ERROR_INFORMATION, 1).encode(),
            0x02,
            0,
            [1, 0, 0, 0, 0, 0],
        ),
        (
            "get log page: 65,537 dwords",
            GetLogPage::new(LogPageId::ERROR_INFORMATION, 65_537).encode(),
            0x02,
            0,
            [1, 1, 0, 0, 0, 0],
        ),
        ("set features", set.encode(), 0x09, 0, [0x8000_000E, 0x11, 0x12, 0x13, 0x14, 0x15]),
        ("get features", get.encode(), 0x0A, 0, [0x0000_030E, 0x11, 0x12, 0x13, 0x14, 0x15]),
        ("asynchronous event request", AsynchronousEventRequest.encode(), 0x0C, 0, [0; 6]),
        ("keep alive", KeepAlive.encode(), 0x18, 0, [0; 6]),
        (
            "virtualization management",
            VirtualizationManagement {
                action: VirtualizationAction::SECONDARY_ASSIGN,
                resource_type: VirtualizationResource::VIRTUAL_INTERRUPTS,
                controller: ControllerId::new(0x7FFF),
                resources: 0xFFFE,
            }
            .encode(),
            0x1C,
            0,
            [0x7FFF_0108, 0xFFFE, 0, 0, 0, 0],
        ),
        (
            "get LBA status: allocated",
            GetLbaStatus {
                namespace: NamespaceId::new(1),
                start: Lba::new(0x2_0000_0001),
                max_dwords: 1024,
                range_blocks: 0xFFFF,
                action: LbaStatusAction::ALLOCATED,
            }
            .encode(),
            0x86,
            1,
            [1, 2, 1023, 0x0200_FFFF, 0, 0],
        ),
        (
            "get LBA status: to the end",
            GetLbaStatus {
                namespace: NamespaceId::new(1),
                start: Lba::new(0),
                max_dwords: 1 << 32,
                range_blocks: 0,
                action: LbaStatusAction::SCAN_UNTRACKED,
            }
            .encode(),
            0x86,
            1,
            [0, 0, u32::MAX, 0x1000_0000, 0, 0],
        ),
    ];
    for (name, entry, opcode, namespace, dwords) in rows {
        assert_eq!(entry.opcode(), opcode, "{name}");
        assert_eq!(entry.namespace().get(), namespace, "{name}");
        assert_eq!(entry.dwords(), dwords, "{name}");
    }
}

#[test]
fn decode_names_the_field_and_the_status() {
    fn refusal<C: Command>(entry: SubmissionQueueEntry) -> (&'static str, u32, u64, StatusCode) {
        let Err(error) = C::decode(&entry) else { panic!("accepted {entry:?}") };
        (error.field, error.byte, error.value, error.status)
    }
    let entry = |dwords| SubmissionQueueEntry::new(0).with_dwords(dwords);
    let field = StatusCode::INVALID_FIELD;
    let (id, size) = (StatusCode::INVALID_QUEUE_IDENTIFIER, StatusCode::INVALID_QUEUE_SIZE);
    let rows = [
        (
            "completion queue 0",
            refusal::<CreateIoCompletionQueue>(entry([0x0001_0000, 1, 0, 0, 0, 0])),
            ("QID", 40, 0, id),
        ),
        (
            "completion queue of one entry",
            refusal::<CreateIoCompletionQueue>(entry([1, 1, 0, 0, 0, 0])),
            ("QSIZE", 42, 0, size),
        ),
        (
            "submission queue 0",
            refusal::<CreateIoSubmissionQueue>(entry([0x0001_0000, 0x0001_0001, 0, 0, 0, 0])),
            ("QID", 40, 0, id),
        ),
        (
            "submission queue of one entry",
            refusal::<CreateIoSubmissionQueue>(entry([1, 0x0001_0001, 0, 0, 0, 0])),
            ("QSIZE", 42, 0, size),
        ),
        (
            "submission queue on the admin completion queue",
            refusal::<CreateIoSubmissionQueue>(entry([0x0001_0001, 1, 0, 0, 0, 0])),
            ("CQID", 46, 0, id),
        ),
        (
            "deletion of completion queue 0",
            refusal::<DeleteIoCompletionQueue>(entry([0; 6])),
            ("QID", 40, 0, id),
        ),
        (
            "deletion of submission queue 0",
            refusal::<DeleteIoSubmissionQueue>(entry([0; 6])),
            ("QID", 40, 0, id),
        ),
        ("reserved SEL", refusal::<GetFeatures>(entry([0x0421, 0, 0, 0, 0, 0])), ("SEL", 41, 4, field)),
        (
            "log offset inside a dword",
            refusal::<GetLogPage>(entry([2, 0, 6, 0, 0, 0])),
            ("LPO", 48, 6, field),
        ),
        (
            "namespace on Identify Controller",
            refusal::<Identify>(entry([1, 0, 0, 0, 0, 0]).with_namespace(NamespaceId::new(1))),
            ("NSID", 4, 1, field),
        ),
    ];
    for (name, found, expected) in rows {
        assert_eq!(found, expected, "{name}");
    }
    let index = GetLogPage::decode(&entry([2, 0, 6, 0, 1 << 23, 0])).unwrap();
    assert_eq!((index.offset, index.offset_is_index), (6, true));
}

#[test]
fn admin_commands_refuse_sgls_and_stray_namespaces() {
    type Decode = fn(&SubmissionQueueEntry) -> Option<(&'static str, u64, StatusCode)>;
    fn of<C: Command>(entry: &SubmissionQueueEntry) -> Option<(&'static str, u64, StatusCode)> {
        C::decode(entry).err().map(|error| (error.field, error.value, error.status))
    }
    let rows: [(&str, Decode, [u32; 6], bool); 13] = [
        ("create completion queue", of::<CreateIoCompletionQueue>, [0x0001_0001, 1, 0, 0, 0, 0], true),
        (
            "create submission queue",
            of::<CreateIoSubmissionQueue>,
            [0x0001_0001, 0x0001_0001, 0, 0, 0, 0],
            true,
        ),
        ("delete completion queue", of::<DeleteIoCompletionQueue>, [1, 0, 0, 0, 0, 0], true),
        ("delete submission queue", of::<DeleteIoSubmissionQueue>, [1, 0, 0, 0, 0, 0], true),
        ("abort", of::<Abort>, [0; 6], true),
        ("asynchronous event request", of::<AsynchronousEventRequest>, [0; 6], true),
        ("keep alive", of::<KeepAlive>, [0; 6], true),
        ("virtualization management", of::<VirtualizationManagement>, [7, 0, 0, 0, 0, 0], true),
        ("identify namespace", of::<Identify>, [0; 6], false),
        ("get log page", of::<GetLogPage>, [2, 0, 0, 0, 0, 0], false),
        ("set features", of::<SetFeatures>, [7, 0, 0, 0, 0, 0], false),
        ("get features", of::<GetFeatures>, [7, 0, 0, 0, 0, 0], false),
        ("get LBA status", of::<GetLbaStatus>, [0; 6], false),
    ];
    for (name, decode, dwords, refuses_namespace) in rows {
        let entry = SubmissionQueueEntry::new(0).with_dwords(dwords);
        assert_eq!(decode(&entry), None, "{name}");
        for kind in 1..=3_u8 {
            let mut bytes = [0; 64];
            bytes.copy_from_slice(zerocopy::IntoBytes::as_bytes(&entry));
            bytes[1] = kind << 6;
            let entry = SubmissionQueueEntry::read_from_bytes(&bytes).unwrap();
            assert_eq!(decode(&entry), Some(("PSDT", kind.into(), StatusCode::INVALID_FIELD)), "{name}");
        }
        for namespace in [1, u32::MAX] {
            let found = decode(&entry.with_namespace(NamespaceId::new(namespace)));
            let expected = refuses_namespace.then_some(("NSID", namespace.into(), StatusCode::INVALID_FIELD));
            assert_eq!(found, expected, "{name}");
        }
    }
}

#[test]
fn each_identify_structure_says_whether_it_uses_a_namespace() {
    let without = [0x01, 0x06, 0x13, 0x14, 0x15, 0x1C, 0x20, 0x21];
    for structure in IdentifyStructure::ALL {
        let expected = !without.contains(&structure.get());
        assert_eq!(structure.uses_namespace(), Some(expected), "{structure}");
    }
    assert_eq!(IdentifyStructure::new(0xC0).uses_namespace(), None);
}

#[test]
fn results_of_abort_and_virtualization_management() {
    for aborted in [false, true] {
        assert_eq!(Abort::was_aborted(Abort::result(aborted)), aborted);
    }
    assert_eq!(Abort::result(true), 0, "IANP is clear if the command was aborted");
    let modified = VirtualizationManagement::result(0xBEEF);
    assert_eq!(VirtualizationManagement::resources_modified(modified), 0xBEEF);
}

#[test]
fn lba_status_reports_are_built_and_read() {
    let descriptors = [
        LbaStatusDescriptor { start: Lba::new(8), blocks: 16, status: 1 },
        LbaStatusDescriptor { start: Lba::new(1 << 40), blocks: u32::MAX, status: 0 },
    ];
    let rows = [("exact", 40, 2), ("spare bytes", 55, 2), ("room for one", 39, 1), ("header only", 8, 0)];
    for (name, length, fitting) in rows {
        let mut memory = vec![0xEE; length];
        let mut builder = LbaStatusBuilder::new(&mut memory).unwrap();
        let pushed = descriptors.iter().filter(|descriptor| builder.push(**descriptor)).count();
        assert_eq!(pushed, fitting, "{name}");
        let used = builder.finish(LbaStatusCondition::COMPLETE);
        assert_eq!(used, 8 + 16 * fitting, "{name}");
        let report = LbaStatusReport::parse(&memory[..used]).unwrap();
        assert_eq!(report.condition(), LbaStatusCondition::COMPLETE, "{name}");
        assert!(report.descriptors().eq(descriptors.iter().take(fitting).copied()), "{name}");
    }
    assert!(LbaStatusBuilder::new(&mut [0; 7]).is_err());
}

#[test]
fn lba_status_report_bytes() {
    let mut memory = [0; 24];
    let mut builder = LbaStatusBuilder::new(&mut memory).unwrap();
    assert!(builder.push(LbaStatusDescriptor { start: Lba::new(0x0102), blocks: 0x0304, status: 5 }));
    assert_eq!(builder.finish(LbaStatusCondition::INCOMPLETE), 24);
    let expected = [1, 0, 0, 0, 1, 0, 0, 0, 2, 1, 0, 0, 0, 0, 0, 0, 4, 3, 0, 0, 0, 5, 0, 0];
    assert_eq!(memory, expected);
}

#[test]
fn lba_status_reports_that_lie_about_their_length_are_refused() {
    let rows: [(&str, &[u8], usize); 3] = [
        ("no header", &[0; 7], 8),
        ("one descriptor stated, none there", &[1, 0, 0, 0, 2, 0, 0, 0], 24),
        ("more descriptors than any memory holds", &[0xFF; 8], 8 + 16 * 0xFFFF_FFFF),
    ];
    for (name, bytes, needed) in rows {
        let expected = TooShort { structure: "LBA Status Descriptor List", needed, given: bytes.len() };
        assert_eq!(LbaStatusReport::parse(bytes).err(), Some(expected), "{name}");
    }
}

fn queue_id() -> impl Strategy<Value = QueueId> {
    (1..=u16::MAX).prop_map(QueueId::new)
}

fn priority() -> impl Strategy<Value = QueuePriority> {
    prop_oneof![
        Just(QueuePriority::Urgent),
        Just(QueuePriority::High),
        Just(QueuePriority::Medium),
        Just(QueuePriority::Low)
    ]
}

fn select() -> impl Strategy<Value = FeatureSelect> {
    prop_oneof![
        Just(FeatureSelect::Current),
        Just(FeatureSelect::Default),
        Just(FeatureSelect::Saved),
        Just(FeatureSelect::SupportedCapabilities)
    ]
}

proptest! {
    #[test]
    fn queue_commands_round_trip(
        queue in queue_id(), other in queue_id(), entries in 2..=65_536_u32, priority in priority(),
        flags in any::<[bool; 2]>(), number in any::<u16>(), command in any::<u16>(),
    ) {
        let [contiguous, interrupts_enabled] = flags;
        let create_cq = CreateIoCompletionQueue {
            queue, entries, contiguous, interrupts_enabled, interrupt_vector: number,
        };
        prop_assert_eq!(round_trip(&create_cq), Ok(create_cq));
        let create_sq = CreateIoSubmissionQueue {
            queue, entries, contiguous, priority, completion_queue: other, nvm_set: number,
        };
        prop_assert_eq!(round_trip(&create_sq), Ok(create_sq));
        let delete_cq = DeleteIoCompletionQueue { queue };
        prop_assert_eq!(round_trip(&delete_cq), Ok(delete_cq));
        let delete_sq = DeleteIoSubmissionQueue { queue };
        prop_assert_eq!(round_trip(&delete_sq), Ok(delete_sq));
        let abort = Abort { queue, command: CommandId::new(command) };
        prop_assert_eq!(round_trip(&abort), Ok(abort));
    }

    #[test]
    fn query_commands_round_trip(
        id in any::<u8>(), namespace in any::<u32>(), numbers in any::<[u16; 2]>(), dwords in any::<[u32; 4]>(),
        count in 1..=1_u64 << 32, offset in any::<u64>(), flags in any::<[bool; 2]>(), small in 0..=127_u8,
        uuid_index in 0..=127_u8, command_set in any::<u8>(), select in select(),
    ) {
        let namespace = NamespaceId::new(namespace);
        let [save, offset_is_index] = flags;
        let structure = IdentifyStructure::new(id);
        let identify = Identify {
            structure,
            namespace: if structure.uses_namespace() == Some(false) { NamespaceId::NONE } else { namespace },
            controller: ControllerId::new(numbers[0]),
            command_set,
            specific_id: numbers[1],
            uuid_index,
        };
        prop_assert_eq!(round_trip(&identify), Ok(identify));
        let log = GetLogPage {
            page: LogPageId::new(id),
            namespace,
            dwords: count,
            retain_event: save,
            specific_parameter: small,
            specific_id: numbers[0],
            offset: if offset_is_index { offset } else { offset & !3 },
            command_set,
            offset_is_index,
            uuid_index,
        };
        prop_assert_eq!(round_trip(&log), Ok(log));
        let [dword11, dword12, dword13, dword15] = dwords;
        let feature = FeatureId::new(id);
        let set = SetFeatures { feature, save, namespace, dword11, dword12, dword13, dword15, uuid_index };
        prop_assert_eq!(round_trip(&set), Ok(set));
        let get = GetFeatures { feature, select, namespace, dword11, dword12, dword13, dword15, uuid_index };
        prop_assert_eq!(round_trip(&get), Ok(get));
        let status = GetLbaStatus {
            namespace,
            start: Lba::new(offset),
            max_dwords: count,
            range_blocks: numbers[0],
            action: LbaStatusAction::new(id),
        };
        prop_assert_eq!(round_trip(&status), Ok(status));
    }

    #[test]
    fn management_commands_round_trip(
        action in 0..=15_u8, resource in 0..=7_u8, controller in any::<u16>(), resources in any::<u16>(),
    ) {
        let command = VirtualizationManagement {
            action: VirtualizationAction::new(action),
            resource_type: VirtualizationResource::new(resource),
            controller: ControllerId::new(controller),
            resources,
        };
        prop_assert_eq!(round_trip(&command), Ok(command));
        prop_assert_eq!(round_trip(&KeepAlive), Ok(KeepAlive));
        prop_assert_eq!(round_trip(&AsynchronousEventRequest), Ok(AsynchronousEventRequest));
    }

    #[test]
    fn arbitrary_entries_are_accepted_or_refused(bytes in any::<[u8; 64]>(), prp_only in any::<bool>()) {
        let mut bytes = bytes;
        if prp_only {
            bytes[1] &= 0x3F;
            bytes[4..8].fill(0);
        }
        accepts_or_refuses::<CreateIoCompletionQueue>(&bytes);
        accepts_or_refuses::<CreateIoSubmissionQueue>(&bytes);
        accepts_or_refuses::<DeleteIoCompletionQueue>(&bytes);
        accepts_or_refuses::<DeleteIoSubmissionQueue>(&bytes);
        accepts_or_refuses::<Abort>(&bytes);
        accepts_or_refuses::<Identify>(&bytes);
        accepts_or_refuses::<GetLogPage>(&bytes);
        accepts_or_refuses::<SetFeatures>(&bytes);
        accepts_or_refuses::<GetFeatures>(&bytes);
        accepts_or_refuses::<AsynchronousEventRequest>(&bytes);
        accepts_or_refuses::<KeepAlive>(&bytes);
        accepts_or_refuses::<VirtualizationManagement>(&bytes);
        accepts_or_refuses::<GetLbaStatus>(&bytes);
    }

    #[test]
    fn arbitrary_lba_status_data_is_bounded(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        if let Ok(report) = LbaStatusReport::parse(&bytes) {
            prop_assert!(8 + 16 * report.descriptors().len() <= bytes.len());
        }
    }
}

// SPDX-License-Identifier: MIT OR Apache-2.0
//! The submission queue entry itself, the texts and names of open values, and values by default.

use nvme_core::register::{Offset, RegisterIo};
use nvme_core::time::Instant;
use nvme_core::wire::cdq::CreateControllerDataQueue;
use nvme_core::wire::feature::FeatureId;
use nvme_core::wire::identify::{
    ControllerList, EntrySizes, IdentifyError, NamespaceDescriptors, PowerState, SubsystemName, Text,
};
use nvme_core::wire::lba_status::LbaStatusCondition;
use nvme_core::wire::log::{CommandEffects, CommandsSupportedAndEffects};
use nvme_core::wire::migration::{MigrationSend, SequenceIndicator, SuspendKind};
use nvme_core::wire::{
    AdminOpcode, BusAddr, CommandId, ControllerId, DataPointerKind, Fuse, IoOpcode, NamespaceId, QueueId,
    SubmissionQueueEntry,
};
use zerocopy::{FromBytes as _, IntoBytes as _};

#[test]
fn the_fields_of_an_entry_stand_at_their_bytes() {
    let mut bytes = [0_u8; 64];
    for (at, byte) in bytes.iter_mut().enumerate() {
        *byte = at as u8;
    }
    let entry = SubmissionQueueEntry::read_from_bytes(&bytes).unwrap();
    assert_eq!(entry.opcode(), 0x00);
    assert_eq!(entry.command_id(), CommandId::new(0x0302));
    assert_eq!(entry.namespace(), NamespaceId::new(0x0706_0504));
    assert_eq!((entry.cdw2(), entry.cdw3()), (0x0B0A_0908, 0x0F0E_0D0C));
    assert_eq!(entry.metadata_pointer(), BusAddr::new(0x1716_1514_1312_1110));
    assert_eq!(entry.prp1(), BusAddr::new(0x1F1E_1D1C_1B1A_1918));
    assert_eq!(entry.prp2(), BusAddr::new(0x2726_2524_2322_2120));
    assert_eq!(entry.dwords()[0], 0x2B2A_2928);
    assert_eq!(entry.dwords()[5], 0x3F3E_3D3C);

    let changed = entry.with_dwords_2_3(0x1122_3344, 0x5566_7788);
    assert_eq!(changed.as_bytes()[8..16], [0x44, 0x33, 0x22, 0x11, 0x88, 0x77, 0x66, 0x55]);
    assert_eq!(changed.as_bytes()[..8], bytes[..8], "what is before stays");
    assert_eq!(changed.as_bytes()[16..], bytes[16..], "what is behind stays");
}

#[test]
fn two_bits_tell_fused_commands_and_data_pointers_apart() {
    let fuses = [(0, Fuse::Normal), (1, Fuse::First), (2, Fuse::Second), (3, Fuse::Reserved)];
    for (bits, fuse) in fuses {
        // Set over all other bits, so that a stray one shows.
        let entry = SubmissionQueueEntry::read_from_bytes(&[0xFF; 64]).unwrap().with_fuse(fuse);
        assert_eq!(entry.as_bytes()[1], 0xFC | bits, "{fuse:?}");
        assert_eq!(entry.fuse(), fuse);
        assert_eq!(entry.command_id(), CommandId::new(0xFFFF), "{fuse:?}");
    }
    let kinds = [
        (0x00, DataPointerKind::Prp),
        (0x40, DataPointerKind::SglMetadataAddress),
        (0x80, DataPointerKind::SglMetadataSgl),
        (0xC0, DataPointerKind::Reserved),
    ];
    for (byte, kind) in kinds {
        let mut bytes = [0; 64];
        bytes[1] = byte | 0x3F;
        let entry = SubmissionQueueEntry::read_from_bytes(&bytes).unwrap();
        assert_eq!(entry.data_pointer_kind(), kind, "{byte:#x}");
    }
}

#[test]
fn only_typed_features_say_whose_they_are() {
    let rows = [
        (FeatureId::NUMBER_OF_QUEUES, Some(false)),
        (FeatureId::VOLATILE_WRITE_CACHE, Some(false)),
        (FeatureId::CONTROLLER_DATA_QUEUE, Some(false)),
        (FeatureId::RESERVATION_NOTIFICATION_MASK, Some(true)),
        (FeatureId::RESERVATION_PERSISTENCE, Some(true)),
        (FeatureId::NAMESPACE_WRITE_PROTECTION, Some(true)),
        (FeatureId::POWER_MANAGEMENT, None),
        (FeatureId::new(0xC5), None),
    ];
    for (feature, expected) in rows {
        assert_eq!(feature.is_namespace_specific(), expected, "{feature}");
    }
}

#[test]
fn open_values_have_the_names_of_the_tables() {
    let rows = [
        (LbaStatusCondition::INCOMPLETE.to_string(), LbaStatusCondition::INCOMPLETE.name()),
        (FeatureId::TIMESTAMP.to_string(), Some("Timestamp")),
        (IoOpcode::WRITE.to_string(), Some("Write")),
        (AdminOpcode::ABORT.to_string(), Some("Abort")),
    ];
    for (text, name) in rows {
        assert!(text.starts_with(name.expect("named")), "{text}");
        assert!(text.ends_with("h)"), "{text}");
    }
    assert_eq!(FeatureId::new(0xC5).to_string(), "FeatureId C5h");
    assert_eq!(FeatureId::new(0xC5).name(), None);
}

#[test]
fn texts_are_quoted_where_a_value_is_shown() {
    let serial = Text::<20>::new("S-1").unwrap();
    assert_eq!(format!("{serial} {serial:?}"), "S-1 \"S-1\"");
    let name = SubsystemName::new("nqn.2014-08.org.nvmexpress:uuid:1").unwrap();
    assert_eq!(name.to_string(), "nqn.2014-08.org.nvmexpress:uuid:1");
    assert_eq!(format!("{name:?}"), "\"nqn.2014-08.org.nvmexpress:uuid:1\"");
    let mut hostile = [0; 256];
    hostile[..4].copy_from_slice(&[b'a', 0x1B, 0xFF, b'z']);
    assert_eq!(SubsystemName::from_field(hostile).to_string(), "a??z", "nothing reaches a terminal");
}

#[test]
fn entry_sizes_and_power_states() {
    let sizes = EntrySizes { required: 6, maximum: 8 };
    for (log2, allowed) in [(5, false), (6, true), (7, true), (8, true), (9, false)] {
        assert_eq!(sizes.allows(log2), allowed, "2^{log2}");
    }
    let mut bytes = [0; 32];
    for (name, flags, non_operational, draw) in
        [("operational", 0, false, 1000), ("not", 2, true, 1000), ("finer scale", 3, true, 10)]
    {
        bytes[0] = 10;
        bytes[3] = flags;
        let state = PowerState::read_from_bytes(&bytes).unwrap();
        assert_eq!(state.is_non_operational(), non_operational, "{name}");
        assert_eq!(state.max_power_tenth_milliwatts(), draw, "{name}");
    }
}

#[test]
fn short_pages_name_the_structure_and_its_bytes() {
    let page = [0; 4095];
    let rows = [
        ("descriptors", NamespaceDescriptors::parse(&page).err(), "Namespace Identification Descriptor list"),
        ("controllers", ControllerList::parse(&page, ControllerId::new(0)).err(), "Controller List"),
    ];
    for (name, error, structure) in rows {
        let Some(IdentifyError::TooShort(short)) = error else { panic!("{name}: {error:?}") };
        assert_eq!((short.structure, short.needed, short.given), (structure, 4096, 4095), "{name}");
    }
}

#[test]
fn no_command_is_supported_by_default() {
    let mut effects = CommandsSupportedAndEffects::default();
    for opcode in 0..=u8::MAX {
        assert_eq!(effects.admin(AdminOpcode::new(opcode)), CommandEffects::empty());
        assert_eq!(effects.io(IoOpcode::new(opcode)), CommandEffects::empty());
    }
    effects.set_io(IoOpcode::new(0xFF), CommandEffects::SUPPORTED);
    assert!(effects.admin(AdminOpcode::new(0xFF)).is_empty(), "the halves are apart");
    assert_eq!(effects.as_bytes()[2044..2049], [1, 0, 0, 0, 0]);
}

#[test]
fn only_set_controller_state_carries_data() {
    let controller = ControllerId::new(3);
    let suspend =
        MigrationSend::Suspend { controller, kind: SuspendKind::Suspend, delete_queue: false, uuid_index: 0 };
    let set = |dwords| MigrationSend::SetControllerState {
        controller,
        sequence: SequenceIndicator::Only,
        version_index: 1,
        vendor_index: 0,
        offset: 0,
        dwords,
        uuid_index: 0,
    };
    let rows = [
        ("suspend", suspend, 0),
        ("resume", MigrationSend::Resume { controller, uuid_index: 0 }, 0),
        ("nothing", set(0), 0),
        ("all", set(u32::MAX), 0x3_FFFF_FFFC),
    ];
    for (name, command, bytes) in rows {
        assert_eq!(command.data_bytes(), bytes, "{name}");
        assert_eq!(command.controller(), controller, "{name}");
    }
}

#[test]
fn data_queues_have_two_entries_at_least() {
    for (entries, possible) in [(0, false), (1, false), (2, true), (1 << 29, false)] {
        let create = CreateControllerDataQueue::user_data_migration(ControllerId::new(1), entries, true);
        assert_eq!(create.is_some(), possible, "{entries}");
        assert_eq!(create.map(|create| create.entries()), possible.then_some(Ok(entries)), "{entries}");
    }
}

/// Answers each access with what it was, as a transport with registers of 64 bits would.
struct Wide(core::cell::RefCell<Vec<(char, u32, u64)>>);

impl RegisterIo for Wide {
    type Error = u8;

    fn read32(&self, offset: Offset) -> Result<u32, u8> {
        self.0.borrow_mut().push(('r', offset.bytes(), 32));
        Ok(0x32)
    }

    fn write32(&self, offset: Offset, value: u32) -> Result<(), u8> {
        self.0.borrow_mut().push(('w', offset.bytes(), value.into()));
        Ok(())
    }

    fn read64(&self, offset: Offset) -> Result<u64, u8> {
        self.0.borrow_mut().push(('R', offset.bytes(), 64));
        Ok(0x64)
    }

    fn write64(&self, _: Offset, _: u64) -> Result<(), u8> {
        Err(7)
    }
}

#[test]
fn a_reference_to_registers_keeps_their_own_accesses() {
    let wide = Wide(Default::default());
    fn all<R: RegisterIo<Error = u8>>(registers: R) {
        assert_eq!(registers.read32(Offset::CSTS), Ok(0x32));
        assert_eq!(registers.write32(Offset::CC, 5), Ok(()));
        assert_eq!(registers.read64(Offset::CAP), Ok(0x64), "not cut in two");
        assert_eq!(registers.write64(Offset::ASQ, 9), Err(7), "not cut in two");
    }
    all(&wide);
    all::<&&Wide>(&&wide);
    let once = [('r', 0x1C, 32), ('w', 0x14, 5), ('R', 0, 64)];
    assert_eq!(*wide.0.borrow(), [once, once].concat());
}

#[test]
fn doorbells_beyond_4_gib_do_not_exist() {
    let (last, stride) = (QueueId::new(u16::MAX), 4 << 15);
    let rows = [
        ("near", QueueId::new(1), 4, Some(0x1008), Some(0x100C)),
        ("far", last, stride, None, None),
        ("the last within", QueueId::new(0x3FFF), stride, Some(0xFFFC_1000), Some(0xFFFE_1000)),
        ("one behind", QueueId::new(0x4000), stride, None, None),
    ];
    for (name, queue, stride, tail, head) in rows {
        assert_eq!(Offset::sq_tail(queue, stride).map(Offset::bytes), tail, "{name}");
        assert_eq!(Offset::cq_head(queue, stride).map(Offset::bytes), head, "{name}");
    }
}

#[test]
fn instants_count_microseconds() {
    let start = Instant::ZERO;
    assert_eq!(start.as_micros(), 0);
    assert_eq!(start.after(core::time::Duration::from_millis(3)).as_micros(), 3_000);
    assert_eq!(Instant::from_micros(9).after(core::time::Duration::MAX).as_micros(), u64::MAX);
}

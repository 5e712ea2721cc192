// SPDX-License-Identifier: MIT OR Apache-2.0
//! Log pages.

use nvme_core::wire::log::*;
use nvme_core::wire::{AdminOpcode, CommandId, IoOpcode, Lba, NamespaceId, QueueId, StatusCode};
use zerocopy::{FromBytes as _, FromZeros as _, IntoBytes as _};

#[test]
fn error_information_bytes() {
    let error = ErrorInformation {
        count: 0x0102,
        queue: Some(QueueId::new(0x0304)),
        command: Some(CommandId::new(0x0506)),
        status: StatusCode::INVALID_CDQ.status(),
        phase: true,
        location: Some(ParameterLocation { byte: 0x2C, bit: 7 }),
        lba: Lba::new(0x0708),
        namespace: NamespaceId::new(0x090A),
        vendor_log: 0xB1,
        transport: 0xB2,
        command_set: 0xB3,
        opcode: 0xB4,
        command_specific: 0x0C0D,
    };
    let entry = ErrorInformationEntry::from(error);
    let mut bytes = [0; 64];
    bytes[..2].copy_from_slice(&[2, 1]);
    bytes[8..16].copy_from_slice(&[4, 3, 6, 5, 0x6F, 0x02, 0x2C, 0x07]);
    bytes[16..18].copy_from_slice(&[8, 7]);
    bytes[24..26].copy_from_slice(&[0x0A, 9]);
    bytes[28..34].copy_from_slice(&[0xB1, 0xB2, 0xB3, 0xB4, 0x0D, 0x0C]);
    assert_eq!(entry.as_bytes(), bytes);
    assert_eq!(entry.error(), Some(error));
    assert_eq!(ErrorInformationEntry::default().error(), None, "count 0 is an unused entry");
    let nothing = ErrorInformation { queue: None, command: None, location: None, ..error };
    let entry = ErrorInformationEntry::from(nothing);
    assert_eq!(&entry.as_bytes()[8..12], &[0xFF; 4]);
    assert_eq!(entry.error(), Some(nothing));
}

#[test]
fn health_fields_stand_at_their_bytes() {
    let mut bytes = [0; 512];
    for (index, byte) in bytes.iter_mut().enumerate().take(216) {
        *byte = index as u8;
    }
    bytes[7..32].fill(0);
    let data = SmartHealthInformationData::read_from_bytes(&bytes).unwrap();
    let health = SmartHealthInformation::from(&data);
    let wide = |first: u8| u128::from_le_bytes(core::array::from_fn(|index| first + index as u8));
    let rows = [
        ("units read", health.data_units_read, 32),
        ("units written", health.data_units_written, 48),
        ("reads", health.host_reads, 64),
        ("writes", health.host_writes, 80),
        ("busy", health.busy_minutes, 96),
        ("power cycles", health.power_cycles, 112),
        ("power-on hours", health.power_on_hours, 128),
        ("unsafe shutdowns", health.unsafe_shutdowns, 144),
        ("media errors", health.media_errors, 160),
        ("error entries", health.error_entries, 176),
    ];
    for (name, found, byte) in rows {
        assert_eq!(found, wide(byte), "{name}");
    }
    assert_eq!(health.critical_warning, CriticalWarning::empty());
    assert_eq!((health.temperature, health.available_spare), (0x0201, 3));
    assert_eq!((health.spare_threshold, health.percentage_used, health.endurance_group_warning), (4, 5, 6));
    assert_eq!(health.warning_temperature_minutes, u32::from_le_bytes([192, 193, 194, 195]));
    assert_eq!(health.critical_temperature_minutes, u32::from_le_bytes([196, 197, 198, 199]));
    assert_eq!(health.sensors[0], u16::from_le_bytes([200, 201]));
    assert_eq!(health.sensors[7], u16::from_le_bytes([214, 215]));
    assert_eq!(SmartHealthInformationData::from(&health).as_bytes(), bytes);
}

#[test]
fn firmware_slots() {
    let page = FirmwareSlotInformation::new(1, 2)
        .with_revision(1, *b"1.0     ")
        .with_revision(7, *b"7.0     ")
        .with_revision(0, *b"nowhere ")
        .with_revision(8, *b"nowhere ");
    let bytes = page.as_bytes();
    assert_eq!((bytes.len(), bytes[0], &bytes[8..11], &bytes[56..59]), (512, 0x21, &b"1.0"[..], &b"7.0"[..]));
    assert!(bytes[64..].iter().all(|byte| *byte == 0));
    assert_eq!((page.active_slot(), page.next_slot()), (1, 2));
    let rows =
        [(0, None), (1, Some(*b"1.0     ")), (2, None), (7, Some(*b"7.0     ")), (8, None), (255, None)];
    for (slot, revision) in rows {
        assert_eq!(page.revision(slot), revision, "slot {slot}");
    }
}

#[test]
fn changed_namespace_lists() {
    let rows =
        [("none", 0, 0, false), ("three", 3, 3, false), ("full", 1024, 1024, false), ("more", 1025, 0, true)];
    for (name, changed, named, overflowed) in rows {
        let page = ChangedNamespaceList::new((1..=changed).map(NamespaceId::new));
        assert_eq!(page.is_overflowed(), overflowed, "{name}");
        assert_eq!(page.namespaces().count(), named, "{name}");
        assert!(page.namespaces().zip(1..).all(|(id, number)| id.get() == number), "{name}");
    }
    let overflowed = ChangedNamespaceList::new((1..=2000).map(NamespaceId::new));
    assert_eq!(&overflowed.as_bytes()[..8], &[0xFF, 0xFF, 0xFF, 0xFF, 0, 0, 0, 0]);
    let mut bytes = [0; 4096];
    (bytes[0], bytes[8]) = (7, 9);
    let page = ChangedNamespaceList::read_from_bytes(&bytes).unwrap();
    assert!(page.namespaces().eq([NamespaceId::new(7)]), "a zero ends the list");
}

#[test]
fn command_effects_stand_at_their_bits() {
    let mut page = CommandsSupportedAndEffects::new_zeroed();
    page.set_admin(
        AdminOpcode::CONTROLLER_DATA_QUEUE,
        CommandEffects::SUPPORTED.with_execution(2).with_scope(0x801),
    );
    page.set_io(IoOpcode::WRITE, CommandEffects::SUPPORTED | CommandEffects::CONTENT_CHANGE);
    page.set_io(IoOpcode::new(0xFF), CommandEffects::from_bits_retain(u32::MAX));
    let bytes = page.as_bytes();
    let dword = |at: usize| u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap());
    assert_eq!(dword(4 * 0x45), 0x8012_0001);
    assert_eq!(dword(1024 + 4), 0x0000_0003);
    assert_eq!((dword(1024 + 4 * 0xFF), dword(2048)), (u32::MAX, 0));
    let effects = page.admin(AdminOpcode::CONTROLLER_DATA_QUEUE);
    assert_eq!((effects.execution(), effects.scope()), (2, 0x801));
    assert!(!page.admin(AdminOpcode::IDENTIFY).contains(CommandEffects::SUPPORTED));
    assert!(page.io(IoOpcode::WRITE).contains(CommandEffects::CONTENT_CHANGE));
    let flags = [
        (CommandEffects::SUPPORTED, 0),
        (CommandEffects::CONTENT_CHANGE, 1),
        (CommandEffects::NAMESPACE_CAPABILITY_CHANGE, 2),
        (CommandEffects::NAMESPACE_INVENTORY_CHANGE, 3),
        (CommandEffects::CONTROLLER_CAPABILITY_CHANGE, 4),
        (CommandEffects::UUID_SELECTION_SUPPORTED, 19),
    ];
    for (flag, bit) in flags {
        assert_eq!(flag.bits(), 1 << bit);
    }
}

// SPDX-License-Identifier: MIT OR Apache-2.0
//! What a subsystem is made of: what is refused and why, and what can be asked of it.

use nvme_controller::host::HostMemory;
use nvme_controller::{ConfigError, ControllerConfig, MisalignedAccess};
use nvme_core::register::Offset;
use nvme_core::wire::{BusAddr, ControllerId, NamespaceId};

use crate::harness::{
    Disk, GUEST, GUEST_ID, LARGE_BLOCKS_NSID, MANAGER, MANAGER_ID, Memory, NSID, OTHER_MANAGER_ID, Setup,
    World,
};

type Row = (&'static str, fn(&mut Setup), ConfigError, &'static str);

fn managers_only(setup: &mut Setup) {
    setup.controllers.truncate(2);
    setup.disks.truncate(1);
}

#[test]
fn what_cannot_be_is_refused_by_name() {
    const FEW: &str = "controller 0x0007 needs at least two queue pairs, three command slots, \
                       one event request and one vector";
    let first = ControllerId::new(MANAGER_ID);
    let rows: &[Row] = &[
        (
            "identifiers that do not ascend",
            |setup| setup.controllers.swap(0, 1),
            ConfigError::ControllerId(first),
            "controller identifier 0x0007 does not ascend or is above 0xffef; list lower ones first",
        ),
        (
            "the same identifier twice",
            |setup| setup.controllers[1].id = ControllerId::new(MANAGER_ID),
            ConfigError::ControllerId(first),
            "controller identifier 0x0007 does not ascend or is above 0xffef; list lower ones first",
        ),
        (
            "a reserved identifier",
            |setup| setup.controllers[3].id = ControllerId::new(0xFFF0),
            ConfigError::ControllerId(ControllerId::new(0xFFF0)),
            "controller identifier 0xfff0 does not ascend or is above 0xffef; list lower ones first",
        ),
        ("no I/O queue pair", |setup| setup.queue_pairs = 1, ConfigError::TooFewSlots(first), FEW),
        ("one command", |setup| setup.commands = 1, ConfigError::TooFewSlots(first), FEW),
        ("no event request", |setup| setup.event_requests = 0, ConfigError::TooFewSlots(first), FEW),
        (
            "no vector",
            |setup| setup.controllers[0].interrupt_vectors = 0,
            ConfigError::TooFewSlots(first),
            FEW,
        ),
        (
            "namespace 0",
            |setup| setup.disks[0].0 = 0,
            ConfigError::NamespaceId(NamespaceId::NONE),
            "namespace identifier 0x0 is reserved or does not ascend; list lower ones first",
        ),
        (
            "all namespaces",
            |setup| setup.disks[1].0 = u32::MAX,
            ConfigError::NamespaceId(NamespaceId::ALL),
            "namespace identifier 0xffffffff is reserved or does not ascend; list lower ones first",
        ),
        (
            "namespaces that do not ascend",
            |setup| setup.disks.swap(0, 1),
            ConfigError::NamespaceId(NamespaceId::new(NSID)),
            "namespace identifier 0x1 is reserved or does not ascend; list lower ones first",
        ),
        (
            "blocks of 256 bytes",
            |setup| setup.disks[0].1 = Disk::new(8, 4),
            ConfigError::BlockSize(NamespaceId::new(NSID)),
            "blocks of namespace 0x1 must be 512 bytes to 64 KiB",
        ),
        (
            "blocks of 128 KiB",
            |setup| setup.disks[1].1 = Disk::new(17, 4),
            ConfigError::BlockSize(NamespaceId::new(LARGE_BLOCKS_NSID)),
            "blocks of namespace 0x3 must be 512 bytes to 64 KiB",
        ),
        (
            "scratch memory one byte short",
            |setup| {
                managers_only(setup);
                setup.scratch = 4095;
            },
            ConfigError::Scratch { bytes: 4095, needed: 4096 },
            "scratch memory of 4095 bytes is too small; lend at least 4096",
        ),
        (
            "scratch memory for less than two blocks",
            |setup| {
                managers_only(setup);
                setup.disks[0].1 = Disk::new(16, 4);
                setup.scratch = 131_071;
            },
            ConfigError::Scratch { bytes: 131_071, needed: 131_072 },
            "scratch memory of 131071 bytes is too small; lend at least 131072",
        ),
        (
            "queues of one entry",
            |setup| setup.config.max_queue_entries = 1,
            ConfigError::QueueEntries(1),
            "queues of 1 entries are not possible; choose 2 to 65536",
        ),
        (
            "queues of too many entries",
            |setup| setup.config.max_queue_entries = 65_537,
            ConfigError::QueueEntries(65_537),
            "queues of 65537 entries are not possible; choose 2 to 65536",
        ),
        (
            "pages of 2 KiB",
            |setup| setup.config.min_page_shift = 11,
            ConfigError::PageSizes { min: 11, max: 16 },
            "page sizes of 2^11 to 2^16 bytes; choose 12 to 16, smallest first",
        ),
        (
            "pages of 128 KiB",
            |setup| setup.config.max_page_shift = 17,
            ConfigError::PageSizes { min: 12, max: 17 },
            "page sizes of 2^12 to 2^17 bytes; choose 12 to 16, smallest first",
        ),
        (
            "page sizes in the wrong order",
            |setup| (setup.config.min_page_shift, setup.config.max_page_shift) = (14, 13),
            ConfigError::PageSizes { min: 14, max: 13 },
            "page sizes of 2^14 to 2^13 bytes; choose 12 to 16, smallest first",
        ),
        (
            "no Abort at all",
            |setup| setup.config.abort_limit = 0,
            ConfigError::AbortLimit(0),
            "abort limit 0 is outside 1 to 256; choose one inside",
        ),
        (
            "more Aborts than the field can say",
            |setup| setup.config.abort_limit = 257,
            ConfigError::AbortLimit(257),
            "abort limit 257 is outside 1 to 256; choose one inside",
        ),
        (
            "a long serial number",
            |setup| setup.config.serial_number = "123456789012345678901",
            ConfigError::Text("serial number"),
            "serial number is longer than its field or not ASCII; shorten or replace it",
        ),
        (
            "a model number that is not ASCII",
            |setup| setup.config.model_number = "größe",
            ConfigError::Text("model number"),
            "model number is longer than its field or not ASCII; shorten or replace it",
        ),
        (
            "a long firmware revision",
            |setup| setup.config.firmware_revision = "123456789",
            ConfigError::Text("firmware revision"),
            "firmware revision is longer than its field or not ASCII; shorten or replace it",
        ),
        (
            "a long subsystem name",
            |setup| setup.config.name = "x".repeat(256).leak(),
            ConfigError::Text("subsystem name"),
            "subsystem name is longer than its field or not ASCII; shorten or replace it",
        ),
    ];
    for (name, change, error, text) in rows {
        let mut setup = Setup::new();
        change(&mut setup);
        let Err(found) = setup.try_build() else { panic!("{name}: it was made") };
        assert_eq!(found, *error, "{name}");
        assert_eq!(found.to_string(), *text, "{name}");
    }
}

#[test]
fn the_limits_themselves_are_possible() {
    type Row = (&'static str, fn(&mut Setup));
    let rows: &[Row] = &[
        ("as it is", |_| {}),
        ("the highest identifier", |setup| setup.controllers[3].id = ControllerId::new(0xFFEF)),
        ("two commands", |setup| setup.commands = 2),
        ("one event request", |setup| setup.event_requests = 1),
        ("the highest namespace", |setup| setup.disks[1].0 = u32::MAX - 1),
        ("queues of two entries", |setup| setup.config.max_queue_entries = 2),
        ("one page size", |setup| (setup.config.min_page_shift, setup.config.max_page_shift) = (16, 16)),
        ("256 Aborts", |setup| setup.config.abort_limit = 256),
        ("a full serial number", |setup| setup.config.serial_number = "12345678901234567890"),
        ("a full subsystem name", |setup| setup.config.name = "x".repeat(255).leak()),
        ("just enough scratch memory", |setup| {
            managers_only(setup);
            setup.scratch = 4096;
        }),
        ("two of the largest blocks", |setup| {
            managers_only(setup);
            setup.disks[0].1 = Disk::new(16, 4);
            setup.scratch = 131_072;
        }),
    ];
    for (name, change) in rows {
        let mut setup = Setup::new();
        change(&mut setup);
        assert!(setup.try_build().is_ok(), "{name}");
    }
}

#[test]
fn a_subsystem_shows_what_it_was_given() {
    let mut world = World::new();
    let port = world.ports[GUEST];
    let id = ControllerId::new(GUEST_ID);
    assert_eq!(world.subsystem.port(id), Some(port));
    assert_eq!(world.subsystem.port(ControllerId::new(GUEST_ID + 7)), None);
    let guest = world.subsystem.controller(port).unwrap();
    assert_eq!(guest.id(), id);
    assert!(guest.is_running());
    let at = world.memory(GUEST).allocate(4096);
    assert!(guest.memory().is_host_memory(BusAddr::new(at), 4096), "its own memory");
    let other = Setup::new().build();
    let other = other.subsystem.port(ControllerId::new(OTHER_MANAGER_ID)).unwrap();
    assert_eq!(world.subsystem.controller(other).map(|found| found.id().get()), Some(OTHER_MANAGER_ID));
    let namespaces = world.subsystem.namespaces();
    let shown: Vec<_> =
        namespaces.iter().map(|found| (found.id().get(), found.storage().block(0).len())).collect();
    assert_eq!(shown, [(NSID, 512), (LARGE_BLOCKS_NSID, 4096)]);
    assert!(world.subsystem.interrupts().take().is_empty());

    world.write32(GUEST, 0x14, 0);
    world.settle();
    assert!(!world.subsystem.controller(port).unwrap().is_running(), "disabled");
    assert!(world.subsystem.controller(world.ports[MANAGER]).unwrap().is_running(), "the others are not");
}

#[test]
fn properties_of_64_bits_are_two_halves() {
    let mut world = Setup::new().build();
    let port = world.ports[MANAGER];
    let [cap, asq] = [0, 0x28].map(Offset::new);
    assert_eq!(world.subsystem.read64(port, cap), Ok(world.read64(MANAGER, 0)));
    assert_eq!(world.subsystem.write64(port, asq, 0x1122_3344_5566_7FFF), Ok(()));
    assert_eq!(world.read64(MANAGER, 0x28), 0x1122_3344_5566_7000, "a page boundary");
    assert_eq!(world.subsystem.read64(port, asq), Ok(0x1122_3344_5566_7000));
    let rows = [(0x29, 4), (0x2A, 4), (0x2B, 4), (0x2C, 8), (0x2F, 8)];
    for (offset, width) in rows {
        let offset = Offset::new(offset);
        let error = MisalignedAccess { offset, width };
        let text = format!(
            "{width}-byte access at offset {:#x} is not aligned; properties are accessed in aligned words",
            offset.bytes()
        );
        assert_eq!(error.to_string(), text);
        let (read, write) = match width {
            4 => (world.subsystem.read32(port, offset).err(), world.subsystem.write32(port, offset, 9).err()),
            _ => (world.subsystem.read64(port, offset).err(), world.subsystem.write64(port, offset, 9).err()),
        };
        assert_eq!((read, write), (Some(error), Some(error)), "{offset:?}");
    }
    assert_eq!(world.read64(MANAGER, 0x28), 0x1122_3344_5566_7000, "nothing was written");
}

#[test]
fn memory_behind_a_reference_is_the_same_memory() {
    fn all<M: HostMemory>(memory: M, at: BusAddr) {
        assert_eq!(memory.write(at, &[1, 2, 3, 4, 5, 6, 7, 8]), Ok(()));
        assert_eq!(memory.write_entry(at.plus(4), &[9; 4]), Ok(()));
        let mut bytes = [0; 8];
        assert_eq!(memory.read(at, &mut bytes), Ok(()));
        assert_eq!(bytes, [1, 2, 3, 4, 9, 9, 9, 9]);
        assert!(memory.is_host_memory(at, 4096));
        let outside = BusAddr::new(0xFFFF_0000_0000);
        assert!(!memory.is_host_memory(outside, 1));
        assert_eq!(memory.read(outside, &mut bytes).unwrap_err().address, outside);
        assert_eq!(memory.write(outside, &bytes).unwrap_err().len, 8);
        assert_eq!(memory.write_entry(outside, &bytes).unwrap_err().len, 8);
    }
    let memory = Memory::new(1 << 32);
    let at = BusAddr::new(memory.allocate_aligned(4096, 4096));
    all(memory.clone(), at);
    all(&memory, at);
    all::<&&Memory>(&&memory, at);
}

#[test]
fn both_roles_have_their_limits_or_none() {
    let id = ControllerId::new(1);
    assert!(ControllerConfig::managing(id).manager().is_some());
    assert!(ControllerConfig::migratable(id).manager().is_none());
}

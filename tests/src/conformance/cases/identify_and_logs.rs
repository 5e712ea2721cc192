// SPDX-License-Identifier: MIT OR Apache-2.0
//! Identify and Get Log Page. NVMe Base 2.1 §5.1.13 and §5.1.12.

use crate::conformance::backend::Backend;
use crate::conformance::world::sqe;
use crate::conformance::world::status::*;
use crate::conformance::world::*;

fn half(bytes: &[u8], at: usize) -> u16 {
    u16::from_le_bytes(bytes[at..at + 2].try_into().unwrap())
}

fn word(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap())
}

fn long(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap())
}

fn try_identify(world: &mut World, host: usize, structure: u8, nsid: u32) -> Completion {
    let buffer = world.hosts[host].allocate(4096);
    world.admin(host, sqe::identify(structure, nsid, 0, buffer))
}

pub(crate) fn every_check_of_identify_has_its_status(backend: &dyn Backend) {
    check(
        backend,
        World::new,
        &[
            ("namespace", SUCCESS, |w| try_identify(w, GUEST, 0x00, NSID)),
            ("namespace 0", INVALID_NAMESPACE, |w| try_identify(w, GUEST, 0x00, 0)),
            ("namespace beyond the last", INVALID_NAMESPACE, |w| try_identify(w, GUEST, 0x00, 4)),
            ("namespace FFFFFFFEh", INVALID_NAMESPACE, |w| try_identify(w, GUEST, 0x00, u32::MAX - 1)),
            ("inactive namespace", SUCCESS, |w| try_identify(w, GUEST, 0x00, INACTIVE_NSID)),
            ("controller", SUCCESS, |w| try_identify(w, GUEST, 0x01, 0)),
            ("controller with a namespace", INVALID_FIELD, |w| try_identify(w, GUEST, 0x01, NSID)),
            ("active namespaces", SUCCESS, |w| try_identify(w, GUEST, 0x02, 0)),
            ("active namespaces above FFFFFFFEh", INVALID_NAMESPACE, |w| {
                try_identify(w, GUEST, 0x02, u32::MAX - 1)
            }),
            ("active namespaces above FFFFFFFFh", INVALID_NAMESPACE, |w| {
                try_identify(w, GUEST, 0x02, u32::MAX)
            }),
            ("descriptors", SUCCESS, |w| try_identify(w, GUEST, 0x03, NSID)),
            ("descriptors of namespace 0", INVALID_NAMESPACE, |w| try_identify(w, GUEST, 0x03, 0)),
            ("NVM namespace", SUCCESS, |w| try_identify(w, GUEST, 0x05, NSID)),
            ("NVM namespace beyond the last", INVALID_NAMESPACE, |w| try_identify(w, GUEST, 0x05, 99)),
            ("NVM controller", SUCCESS, |w| try_identify(w, GUEST, 0x06, 0)),
            ("independent namespace", SUCCESS, |w| try_identify(w, GUEST, 0x08, NSID)),
            ("independent namespace beyond the last", INVALID_NAMESPACE, |w| {
                try_identify(w, GUEST, 0x08, 99)
            }),
            ("I/O command sets", SUCCESS, |w| {
                let buffer = w.hosts[GUEST].allocate(4096);
                w.admin(GUEST, sqe::identify(0x1C, 0, 0xFFFF, buffer))
            }),
            ("state formats on a manager", SUCCESS, |w| try_identify(w, MANAGER, 0x20, 0)),
            ("state formats on a migratable controller", INVALID_FIELD, |w| try_identify(w, GUEST, 0x20, 0)),
            ("CNS 21h is reserved", INVALID_FIELD, |w| try_identify(w, MANAGER, 0x21, 0)),
            ("CNS 7Fh", INVALID_FIELD, |w| try_identify(w, GUEST, 0x7F, 0)),
            ("CNS FFh", INVALID_FIELD, |w| try_identify(w, GUEST, 0xFF, 0)),
            ("buffer that is not there", DATA_TRANSFER_ERROR, |w| {
                w.admin(GUEST, sqe::identify(0x01, 0, 0, 0x7777_0000_0000))
            }),
            ("second page with an offset", PRP_OFFSET, |w| {
                let buffer = w.hosts[GUEST].allocate(8192) + 512;
                w.admin(GUEST, sqe::identify(0x01, 0, 0, 0).prps((buffer, buffer + 4096)))
            }),
            ("PRP1 offset 2", PRP_OFFSET, |w| {
                let buffer = w.hosts[GUEST].allocate(8192);
                w.admin(GUEST, sqe::identify(0x01, 0, 0, 0).prps((buffer + 2, buffer + 4096)))
            }),
        ],
    );
}

pub(crate) fn a_command_set_that_is_not_there_is_refused(backend: &dyn Backend) {
    let mut world = World::new(backend);
    for structure in [0x05, 0x06] {
        let buffer = world.hosts[GUEST].allocate(4096);
        let nsid = if structure == 0x05 { NSID } else { 0 };
        let code = world.admin(GUEST, sqe::identify(structure, nsid, 0, buffer).dword(11, 2 << 24)).code;
        assert!(matches!(code, INVALID_FIELD | INVALID_COMMAND_SET), "CNS {structure:#x} of ZNS: {code:?}");
    }
}

pub(crate) fn identify_controller_tells_the_limits_of_live_migration(backend: &dyn Backend) {
    let mut world = World::with(backend, |setup| {
        setup.config.max_migration_queues = 0x1234;
        setup.config.max_queue_memory_ranges = 0x2345;
        setup.config.max_tracked_ranges = 0x3456;
        let limits = setup.manager(MANAGER);
        limits.max_migration_queues = 3;
        limits.max_queue_memory_ranges = 0x456;
        limits.max_queue_prps = 0x567;
        limits.max_tracked_ranges = 7;
        limits.min_tracking_shift = 1;
        limits.max_tracking_shift = 5;
        limits.tracked_length_power_of_two = true;
        setup.data_queues = 4;
    });
    let manager = world.identify(MANAGER, 0x01, 0, 0);
    assert_eq!(half(&manager, 256) >> 11 & 1, 1, "OACS.HMLMS");
    for (field, found, expected) in [
        ("CNTLID", half(&manager, 78), MANAGER_ID),
        ("CMMRTD", half(&manager, 570), 7),
        ("NMMRTD", half(&manager, 572), 0x3456),
        ("MINMRTG", u16::from(manager[574]), 1),
        ("MAXMRTG", u16::from(manager[575]), 5),
        ("TRATTR", u16::from(manager[576]), 0b111),
        ("reserved", u16::from(manager[577]), 0),
        ("MCUDMQ", half(&manager, 578), 3),
        ("MCMR", half(&manager, 582), 0x456),
        ("NMCMR", half(&manager, 584), 0x2345),
        ("MCDQPC", half(&manager, 586), 0x567),
    ] {
        assert_eq!(found, expected, "{field}");
    }
    assert!(half(&manager, 580) >= 1, "MNSUDMQ");
    assert_eq!(manager[588..768], [0; 180], "reserved");
    for host in [MANAGER, GUEST] {
        let identity = world.identify(host, 0x01, 0, 0);
        assert_eq!(word(&identity, 272), 0, "HMPRE of controller {host}");
    }
    let guest = world.identify(GUEST, 0x01, 0, 0);
    assert_eq!(half(&guest, 256) >> 11 & 1, 0, "a migratable controller manages nothing");
    assert_eq!(guest[570..588], [0; 18]);
    for (flag, change) in [
        (
            1_u8,
            (|limits: &mut nvme_controller::ManagerConfig| limits.track_host_memory = false) as fn(&mut _),
        ),
        (2, |limits| limits.track_user_data = false),
        (4, |limits| limits.tracked_length_power_of_two = false),
    ] {
        let mut world = World::with(backend, |setup| {
            setup.manager(MANAGER).tracked_length_power_of_two = true;
            change(setup.manager(MANAGER));
        });
        assert_eq!(world.identify(MANAGER, 0x01, 0, 0)[576], 0b111 & !flag, "TRATTR without {flag}");
    }
}

pub(crate) fn identify_controller_tells_what_the_controller_is(backend: &dyn Backend) {
    let mut world = World::with(backend, |setup| {
        setup.config.serial_number = "SERIAL";
        setup.config.model_number = "A model";
        setup.config.firmware_revision = "1.2";
        setup.config.vendor = 0xABCD;
        setup.config.max_transfer_shift = 5;
        setup.config.abort_limit = 4;
        setup.event_requests = 3;
    });
    let identity = world.identify(GUEST, 0x01, 0, 0);
    assert_eq!(half(&identity, 0), 0xABCD, "VID");
    assert_eq!(&identity[4..24], b"SERIAL              ");
    assert_eq!(&identity[24..64], b"A model                                 ");
    assert_eq!(&identity[64..72], b"1.2     ");
    assert_eq!(identity[76] & 2, 2, "CMIC: several controllers");
    assert_eq!(identity[77], 5, "MDTS");
    assert_eq!(half(&identity, 78), GUEST_ID, "CNTLID");
    assert_eq!(word(&identity, 80), world.read32(GUEST, 0x08), "VER is VS");
    assert_eq!(identity[111], 1, "CNTRLTYPE");
    assert_eq!((identity[258], identity[259]), (3, 2), "ACL and AERL, zero-based");
    assert_eq!(identity[262], 7, "ELPE, zero-based");
    assert_eq!((identity[512] & 0xF, identity[513] & 0xF), (6, 4), "required entry sizes");
    assert_eq!(word(&identity, 516), 3, "NN");
    let oncs = half(&identity, 520);
    for (bit, command) in [
        (0, "Compare"),
        (1, "Write Uncorrectable"),
        (2, "Dataset Management"),
        (3, "Write Zeroes"),
        (7, "Verify"),
        (8, "Copy"),
    ] {
        assert_eq!(oncs >> bit & 1, 1, "{command}");
    }
    assert_eq!(half(&identity, 522) & 1, 1, "fused Compare and Write");
    assert_eq!(identity[525] & 1, 1, "volatile write cache");
    let name: Vec<u8> = identity[768..1024].iter().copied().take_while(|byte| *byte != 0).collect();
    assert!(name.starts_with(b"nqn."), "SUBNQN");
    assert_eq!(half(&identity, 256) >> 9 & 1, 1, "Get LBA Status");
}

pub(crate) fn namespaces_are_described(backend: &dyn Backend) {
    let mut world = World::new(backend);
    for (nsid, shift) in [(NSID, 9), (LARGE_BLOCKS_NSID, 12)] {
        let namespace = world.identify(GUEST, 0x00, nsid, 0);
        assert_eq!(long(&namespace, 0), BLOCKS, "NSZE");
        assert_eq!(long(&namespace, 8), BLOCKS, "NCAP");
        assert!(long(&namespace, 16) <= BLOCKS, "NUSE");
        let format = usize::from(namespace[26] & 0xF);
        assert_eq!(word(&namespace, 128 + 4 * format) >> 16 & 0xFF, shift, "LBADS");
        assert_eq!(word(&namespace, 128 + 4 * format) & 0xFFFF, 0, "no metadata");
        assert_eq!(namespace[30] & 1, 1, "shared");
        assert_eq!(namespace[104..120], [nsid as u8; 16], "NGUID");
        let descriptors = world.identify(GUEST, 0x03, nsid, 0);
        let mut at = 0;
        let mut types = Vec::new();
        while descriptors[at + 1] != 0 {
            let len = usize::from(descriptors[at + 1]);
            types.push(descriptors[at]);
            match descriptors[at] {
                2 => assert_eq!(descriptors[at + 4..at + 4 + len], [nsid as u8; 16], "NGUID"),
                4 => assert_eq!(descriptors[at + 4..at + 4 + len], [0], "CSI of NVM"),
                _ => {}
            }
            at += 4 + len;
        }
        assert!(types.contains(&2) && types.contains(&4), "{types:?}");
        let independent = world.identify(GUEST, 0x08, nsid, 0);
        assert_eq!((independent[1] & 1, independent[14] & 1), (1, 1), "shared and ready");
    }
    for structure in [0x00, 0x05, 0x08] {
        assert_eq!(
            world.identify(GUEST, structure, INACTIVE_NSID, 0),
            [0; 4096],
            "inactive, CNS {structure:#x}"
        );
    }
}

pub(crate) fn active_namespaces_above_the_given_one(backend: &dyn Backend) {
    let mut world = World::new(backend);
    for (above, expected) in [(0, vec![1, 3]), (1, vec![3]), (2, vec![3]), (3, vec![]), (1000, vec![])] {
        let list = world.identify(GUEST, 0x02, above, 0);
        let mut words: Vec<u32> = list.chunks(4).map(|entry| word(entry, 0)).collect();
        words.truncate(expected.len() + 1);
        let mut ended = expected.clone();
        ended.push(0);
        assert_eq!(words, ended, "above {above}");
    }
}

pub(crate) fn command_sets_are_the_nvm_command_set(backend: &dyn Backend) {
    let mut world = World::new(backend);
    let buffer = world.hosts[GUEST].allocate(4096);
    world.admin(GUEST, sqe::identify(0x1C, 0, 0xFFFF, buffer)).ok();
    let vectors = world.memory(GUEST).bytes(buffer, 4096);
    assert_eq!((long(&vectors, 0), long(&vectors, 8)), (1, 0));
    let nvm = world.identify(MANAGER, 0x06, 0, 0);
    assert_eq!(nvm[24], 0, "LBAMQF: entry type 0");
    assert_eq!(nvm[25..], [0; 4096 - 25], "reserved");
}

fn log(world: &mut World, host: usize, page: u8, offset: u64, len: u32) -> (Completion, Vec<u8>) {
    let (address, prps) = world.hosts[host].buffer(u64::from(len));
    let done = world.admin(host, sqe::get_log(page, offset, len, prps));
    (done, world.memory(host).bytes(address, len as usize))
}

pub(crate) fn every_check_of_get_log_page_has_its_status(backend: &dyn Backend) {
    check(
        backend,
        World::new,
        &[
            ("errors", SUCCESS, |w| log(w, GUEST, 0x01, 0, 64).0),
            ("health", SUCCESS, |w| log(w, GUEST, 0x02, 0, 512).0),
            ("firmware", SUCCESS, |w| log(w, GUEST, 0x03, 0, 512).0),
            ("commands", SUCCESS, |w| log(w, GUEST, 0x05, 0, 4096).0),
            ("unsupported page", INVALID_LOG_PAGE, |w| log(w, GUEST, 0x7F, 0, 64).0),
            ("vendor page", INVALID_LOG_PAGE, |w| log(w, GUEST, 0xC0, 0, 64).0),
            ("part of a page", SUCCESS, |w| log(w, GUEST, 0x02, 256, 64).0),
            ("offset beyond the page", INVALID_FIELD, |w| log(w, GUEST, 0x02, 516, 4).0),
            ("offset far beyond the page", INVALID_FIELD, |w| log(w, GUEST, 0x02, 1 << 40, 4).0),
            ("offset not dword aligned", INVALID_FIELD, |w| log(w, GUEST, 0x02, 2, 4).0),
            ("more than the page", SUCCESS, |w| log(w, GUEST, 0x02, 0, 4096).0),
            ("health of all namespaces", SUCCESS, |w| {
                let prps = w.hosts[GUEST].buffer(512).1;
                w.admin(GUEST, sqe::get_log(0x02, 0, 512, prps).namespace(u32::MAX))
            }),
            ("health of one namespace is not supported", INVALID_FIELD, |w| {
                let prps = w.hosts[GUEST].buffer(512).1;
                w.admin(GUEST, sqe::get_log(0x02, 0, 512, prps).namespace(NSID))
            }),
            ("buffer that is not there", DATA_TRANSFER_ERROR, |w| {
                w.admin(GUEST, sqe::get_log(0x02, 0, 512, (0x7777_0000_0000, 0)))
            }),
        ],
    );
}

pub(crate) fn the_error_log_names_the_newest_error_first(backend: &dyn Backend) {
    let mut world = World::new(backend);
    world.create_pair(GUEST, 1, 16);
    let first = world.admin(GUEST, sqe::Sqe::new(0x7F));
    let prps = world.hosts[GUEST].buffer(512).1;
    let second = world.exec(GUEST, 1, sqe::read(NSID, BLOCKS + 5, 1, prps));
    assert_eq!((first.code, second.code), (INVALID_OPCODE, LBA_OUT_OF_RANGE));
    let (_, entries) = log(&mut world, GUEST, 0x01, 0, 192);
    let entry = |index: usize| &entries[index * 64..index * 64 + 64];
    let (newest, older) = (entry(0), entry(1));
    assert_eq!(long(newest, 0), long(older, 0) + 1, "counts rise");
    assert_eq!((half(newest, 8), half(newest, 10)), (1, second.command), "SQID and CID");
    assert_eq!((half(older, 8), half(older, 10)), (0, first.command));
    assert_eq!(half(newest, 12) >> 1 & 0x7FF, 0x080, "status");
    assert_eq!(half(older, 12) >> 1 & 0x7FF, 0x001);
    assert_eq!((long(newest, 16), word(newest, 24)), (BLOCKS + 5, NSID), "LBA and NSID");
    assert_eq!((newest[31], older[31]), (0x02, 0x7F), "opcodes");
    assert_eq!(long(entry(2), 0), 0, "no third entry");
    // Eight entries are kept.
    for _ in 0..20 {
        world.admin(GUEST, sqe::Sqe::new(0x7F));
    }
    let (_, entries) = log(&mut world, GUEST, 0x01, 0, 512);
    let counts: Vec<u64> = entries.chunks(64).map(|entry| long(entry, 0)).collect();
    assert_eq!(counts, (15..=22).rev().collect::<Vec<_>>());
    let (_, middle) = log(&mut world, GUEST, 0x01, 96, 64);
    assert_eq!(middle, entries[96..160], "an offset inside an entry");
}

pub(crate) fn the_health_log_counts(backend: &dyn Backend) {
    let mut world = World::new(backend);
    world.create_pair(GUEST, 1, 16);
    for _ in 0..3 {
        let prps = world.hosts[GUEST].buffer(4096).1;
        world.exec(GUEST, 1, sqe::read(NSID, 0, 8, prps)).ok();
        world.write_blocks(GUEST, NSID, 0, 8, 1);
    }
    world.write_blocks(GUEST, NSID, 0, 8, 1);
    world.admin(GUEST, sqe::Sqe::new(0x7F));
    let (_, health) = log(&mut world, GUEST, 0x02, 0, 512);
    let wide = |at: usize| u128::from_le_bytes(health[at..at + 16].try_into().unwrap());
    assert_eq!(health[0], 0, "no critical warning");
    assert_eq!((wide(64), wide(80)), (3, 4), "read and write commands");
    assert_eq!((wide(32), wide(48)), (1, 1), "thousands of 512-byte units, rounded up");
    assert_eq!(wide(176), 1, "entries of the error log");
    assert!((250..400).contains(&half(&health, 1)), "a plausible temperature in Kelvin");
}

pub(crate) fn the_commands_log_lists_what_is_answered(backend: &dyn Backend) {
    let mut world = World::new(backend);
    for host in [MANAGER, GUEST] {
        let (_, effects) = log(&mut world, host, 0x05, 0, 4096);
        for opcode in 0..=255_u8 {
            let supported = word(&effects, usize::from(opcode) * 4) & 1 == 1;
            // Commands that would end or change the world are not tried.
            if matches!(opcode, 0x0C) {
                assert!(supported);
                continue;
            }
            let found = world.admin(host, sqe::Sqe::new(opcode)).code != INVALID_OPCODE;
            assert_eq!(supported, found, "admin {opcode:#x} of controller {host}");
        }
        world.create_pair(host, 1, 16);
        for opcode in 0..=255_u8 {
            let entry = word(&effects, 1024 + usize::from(opcode) * 4);
            let found = world.exec(host, 1, sqe::Sqe::new(opcode)).code != INVALID_OPCODE;
            assert_eq!(entry & 1 == 1, found, "I/O {opcode:#x} of controller {host}");
            let changes = matches!(opcode, 0x01 | 0x04 | 0x08 | 0x09 | 0x19);
            assert_eq!(entry >> 1 & 1 == 1, changes, "LBCC of I/O {opcode:#x}");
        }
        for opcode in [0x3D, 0x3E, 0x41, 0x42, 0x45] {
            let entry = word(&effects, opcode * 4);
            assert_eq!(entry & 1 == 1, host == MANAGER, "admin {opcode:#x} of controller {host}");
            assert_eq!(entry & 2, 0, "LBCC of admin {opcode:#x}");
        }
    }
}

pub(crate) fn prp2_means_what_the_length_of_the_command_makes_of_it(backend: &dyn Backend) {
    let mut world = World::new(backend);
    let (_, health) = log(&mut world, GUEST, 0x02, 0, 512);
    for (name, page, offset, shift) in [("health", 0x02, 0, 0xE10), ("errors", 0x01, 512 - 64, 0xFF0)] {
        let (_, plain) = log(&mut world, GUEST, page, offset, 64);
        let len = 12 * 1024;
        let address = world.hosts[GUEST].allocate(5 * 4096) + shift;
        let (prp1, list) = world.hosts[GUEST].prps(address, u64::from(len));
        let entries = world.memory(GUEST).bytes(list, 4096);
        world.admin(GUEST, sqe::get_log(page, offset, len, (prp1, list))).ok();
        assert_eq!(world.memory(GUEST).bytes(list, 4096), entries, "{name}: the list is not written");
        assert_eq!(world.memory(GUEST).bytes(address, 64), plain, "{name}");
        if page == 0x02 {
            assert_eq!(world.memory(GUEST).bytes(address, 512), health);
        }
    }
}

pub(crate) fn what_is_wrong_in_the_data_of_a_command_has_no_location_in_the_command(backend: &dyn Backend) {
    let mut world = World::new(backend);
    let prps = world.hosts[MANAGER].data(&[0, 0, 0, 200, 1, 0, 0, 0]);
    assert_eq!(world.admin(MANAGER, sqe::start_memory_tracking(GUEST_ID, prps)).code, INVALID_FIELD);
    let (_, entry) = log(&mut world, MANAGER, 0x01, 0, 64);
    assert_eq!(half(&entry, 14), 0xFFFF, "parameter error location");
    assert_eq!(world.admin(MANAGER, sqe::suspend(GUEST_ID).dword(14, 1)).code, INVALID_FIELD);
    let (_, entry) = log(&mut world, MANAGER, 0x01, 0, 64);
    assert_eq!(half(&entry, 14), 56, "UIDX is in dword 14");
}

// SPDX-License-Identifier: MIT OR Apache-2.0
//! What resets leave and what they take, migrations included. NVMe Base 2.1 §3.7, Resets, and §8.1.12.

use crate::conformance::backend::Backend;
use crate::conformance::world::sqe;
use crate::conformance::world::status::*;
use crate::conformance::world::*;

const SUBSYSTEM_RESET: u32 = 0x4E56_4D65;

fn read_of(world: &World, host: usize) -> sqe::Sqe {
    sqe::read(NSID, 0, 1, world.hosts[host].buffer(512).1)
}

type Reset = fn(&mut World, usize);

/// The ways a controller can be reset, with whether its admin queue registers stay.
const RESETS: [(&str, Reset, bool); 3] = [
    ("Controller Reset", |world, host| world.disable(host), true),
    ("reset from outside", World::function_level_reset, false),
    ("subsystem reset", |world, _| world.write32(MANAGER, NSSR, SUBSYSTEM_RESET), false),
];

pub(crate) fn a_reset_returns_features_to_their_defaults(backend: &dyn Backend) {
    for (name, reset, _) in RESETS {
        let mut world = World::new(backend);
        let before = world.admin(GUEST, sqe::get_features(0x01, 0)).ok().dword0;
        world.admin(GUEST, sqe::set_features(0x07, 0x0001_0001)).ok();
        world.admin(GUEST, sqe::set_features(0x0B, 0x1FF)).ok();
        world.admin(GUEST, sqe::set_features(0x01, 5)).ok();
        world.admin(GUEST, sqe::set_features(0x06, 0)).ok();
        reset(&mut world, GUEST);
        world.settle();
        world.enable(GUEST);
        assert_eq!(world.admin(GUEST, sqe::get_features(0x0B, 0)).ok().dword0, 0, "{name}");
        assert_eq!(world.admin(GUEST, sqe::get_features(0x01, 0)).ok().dword0, before, "{name}");
        assert_eq!(world.admin(GUEST, sqe::get_features(0x06, 0)).ok().dword0, 1, "{name}");
        world.admin(GUEST, sqe::set_features(0x07, 0x0002_0002)).ok();
        world.create_pair(GUEST, 3, 16);
    }
}

pub(crate) fn a_controller_reset_alone_keeps_the_admin_queue_registers(backend: &dyn Backend) {
    for (name, reset, keeps) in RESETS {
        let mut world = World::new(backend);
        let registers =
            |world: &World| (world.read32(GUEST, AQA), world.read64(GUEST, ASQ), world.read64(GUEST, ACQ));
        let before = registers(&world);
        assert_ne!(before, (0, 0, 0));
        world.write32(GUEST, 0x0C, 0xFF);
        assert_eq!(world.read32(GUEST, 0x0C), 0xFF, "{name}: interrupts are masked");
        reset(&mut world, GUEST);
        world.settle();
        let expected = if keeps { before } else { (0, 0, 0) };
        assert_eq!(registers(&world), expected, "{name}");
        assert_eq!(world.read32(GUEST, CC) & 1, 0, "{name}");
        assert_eq!(world.read32(GUEST, 0x0C), 0, "{name}: the interrupt mask");
    }
}

pub(crate) fn a_reset_of_one_controller_leaves_the_others_alone(backend: &dyn Backend) {
    for (name, reset, _) in &RESETS[..2] {
        let mut world = World::new(backend);
        world.create_pair(OTHER_GUEST, 1, 16);
        world.create_pair(MANAGER, 1, 16);
        reset(&mut world, GUEST);
        for host in [OTHER_GUEST, MANAGER] {
            let read = read_of(&world, host);
            assert_eq!(world.exec(host, 1, read).code, SUCCESS, "{name}");
        }
    }
}

pub(crate) fn a_subsystem_reset_resets_every_controller_and_says_so(backend: &dyn Backend) {
    let mut world = World::new(backend);
    let queue = world.logged_guest(16);
    world.write32(MANAGER, NSSR, 0x1234_5678);
    assert!(world.is_ready(GUEST), "another value does nothing");
    assert_eq!(world.read32(MANAGER, NSSR), 0, "reads zero");
    world.write32(GUEST, NSSR, SUBSYSTEM_RESET);
    world.settle();
    assert!((0..4).all(|host| world.is_ready(host)), "a guest cannot stop the others");
    world.write32(OTHER_MANAGER, NSSR, SUBSYSTEM_RESET);
    world.settle();
    for host in 0..4 {
        assert!(!world.is_ready(host), "controller {host}");
        assert_eq!(world.read32(host, CSTS) & 0x10, 0x10, "NSSRO of controller {host}");
        world.write32(host, CSTS, 0x10);
        assert_eq!(world.read32(host, CSTS) & 0x10, 0, "NSSRO is cleared by writing one");
        world.enable(host);
    }
    assert_eq!(world.admin(MANAGER, sqe::set_head(queue.id, 0)).code, INVALID_CDQ);
    let mut world = World::with(backend, |setup| setup.config.subsystem_reset = false);
    world.write32(MANAGER, NSSR, SUBSYSTEM_RESET);
    world.settle();
    assert!(world.is_ready(GUEST), "without CAP.NSSRS the register does nothing");
}

/// What of a migration is still there.
#[derive(Debug, PartialEq, Eq)]
struct Left {
    queue: bool,
    logging: bool,
    tracking: bool,
    suspended: bool,
}

/// A guest whose user data and memory are tracked, which is suspended or not.
fn migrating(backend: &dyn Backend, suspended: bool) -> (World, cdq::Cdq) {
    let mut world = World::new(backend);
    let queue = world.logged_guest(32);
    let at = world.memory(GUEST).allocate(4096);
    let mut bytes = vec![0; 8];
    bytes[4] = 1;
    bytes.extend(at.to_le_bytes());
    bytes.extend(1_u32.to_le_bytes());
    let prps = world.hosts[MANAGER].data(&bytes);
    world.admin(MANAGER, sqe::start_memory_tracking(GUEST_ID, prps)).ok();
    if suspended {
        world.admin(MANAGER, sqe::suspend(GUEST_ID)).ok();
    }
    (world, queue)
}

fn left(world: &mut World, queue: &mut cdq::Cdq) -> Left {
    for host in 0..4 {
        if !world.is_ready(host) {
            world.enable(host);
        }
    }
    let prps = world.hosts[MANAGER].buffer(64).1;
    let tracking = world.admin(MANAGER, sqe::track_receive(GUEST_ID, 64, prps)).code == SUCCESS;
    let there = world.admin(MANAGER, sqe::set_head(queue.id, queue.head)).code == SUCCESS;
    let suspended = world.admin(MANAGER, sqe::resume(GUEST_ID)).code == SUCCESS;
    if !world.hosts[GUEST].submission.contains_key(&1) {
        world.create_pair(GUEST, 1, 16);
    }
    queue.take();
    world.change_blocks(1);
    Left { queue: there, logging: !queue.take().is_empty(), tracking, suspended }
}

pub(crate) fn r8_effects_of_resets_on_a_migration(backend: &dyn Backend) {
    type Action = fn(&mut World);
    let rows: [(&str, bool, Action, Left); 10] = [
        ("none", false, |_| {}, Left { queue: true, logging: true, tracking: true, suspended: false }),
        (
            "none, suspended",
            true,
            |_| {},
            Left { queue: true, logging: true, tracking: true, suspended: true },
        ),
        (
            "manager",
            false,
            |w| w.disable(MANAGER),
            Left { queue: false, logging: false, tracking: false, suspended: false },
        ),
        (
            "manager, suspended",
            true,
            |w| w.disable(MANAGER),
            Left { queue: false, logging: false, tracking: false, suspended: false },
        ),
        (
            "manager from outside, suspended",
            true,
            |w| w.function_level_reset(MANAGER),
            Left { queue: false, logging: false, tracking: false, suspended: false },
        ),
        (
            "target",
            false,
            |w| w.disable(GUEST),
            Left { queue: true, logging: true, tracking: true, suspended: false },
        ),
        (
            "target, suspended",
            true,
            |w| w.disable(GUEST),
            Left { queue: true, logging: true, tracking: true, suspended: false },
        ),
        (
            "target from outside, suspended",
            true,
            |w| w.function_level_reset(GUEST),
            Left { queue: true, logging: true, tracking: true, suspended: false },
        ),
        (
            "another managing controller, suspended",
            true,
            |w| w.disable(OTHER_MANAGER),
            Left { queue: true, logging: true, tracking: true, suspended: true },
        ),
        (
            "subsystem, suspended",
            true,
            |w| w.write32(MANAGER, NSSR, SUBSYSTEM_RESET),
            Left { queue: false, logging: false, tracking: false, suspended: false },
        ),
    ];
    for (name, suspended, action, expected) in rows {
        let (mut world, mut queue) = migrating(backend, suspended);
        action(&mut world);
        world.settle();
        assert_eq!(left(&mut world, &mut queue), expected, "{name}");
    }
}

pub(crate) fn r8_a_reset_drops_a_state_that_is_under_way(backend: &dyn Backend) {
    for (name, host) in [("target", GUEST), ("manager", MANAGER)] {
        let mut world = World::new(backend);
        world.admin(MANAGER, sqe::suspend(GUEST_ID)).ok();
        let bytes = image::Image::empty().bytes();
        let command = world.state_part(MANAGER, GUEST_ID, sqe::FIRST, (1, 0), 0, &bytes[..48]);
        world.admin(MANAGER, command).ok();
        world.reset(host);
        world.admin(MANAGER, sqe::suspend(GUEST_ID)).ok();
        let command = world.state_part(MANAGER, GUEST_ID, sqe::LAST, (1, 0), 48, &bytes[48..]);
        assert_eq!(world.admin(MANAGER, command).code, SEQUENCE_ERROR, "{name}: no sequence was begun");
        world.admin(MANAGER, sqe::resume(GUEST_ID)).ok();
    }
}

pub(crate) fn r16_after_a_reset_of_the_owner_the_queue_memory_is_the_hosts(backend: &dyn Backend) {
    for (name, reset, _) in RESETS {
        let mut world = World::new(backend);
        let queue = world.logged_guest(8);
        world.change_blocks(1);
        reset(&mut world, MANAGER);
        world.settle();
        let before = world.memory(MANAGER).bytes(queue.slot_address(0), 8 * 32);
        if !world.is_ready(GUEST) {
            world.enable(GUEST);
            world.create_pair(GUEST, 1, 16);
        }
        world.change_blocks(10);
        assert_eq!(world.memory(MANAGER).bytes(queue.slot_address(0), 8 * 32), before, "{name}");
        world.enable(MANAGER);
        let mut again = world.create_cdq(MANAGER, GUEST_ID, 8);
        world.admin(MANAGER, sqe::start_log(again.id)).ok();
        world.change_blocks(1);
        assert_eq!(
            again.texts(),
            ["001b", "000b 1:1000+1"],
            "{name}: a new queue starts from its first slot"
        );
    }
}

pub(crate) fn r16_a_data_queue_survives_a_shutdown_of_the_target(backend: &dyn Backend) {
    let mut world = World::new(backend);
    let mut queue = world.logged_guest(8);
    world.write32(GUEST, CC, ENABLE | (1 << 14));
    world.run();
    world.reset(GUEST);
    world.create_pair(GUEST, 1, 16);
    world.change_blocks(1);
    assert_eq!(queue.texts(), ["000b 1:1000+1"]);
}

// SPDX-License-Identifier: MIT OR Apache-2.0
//! What becomes of secondary controllers, and of their migrations, with their primary one. NVMe Base 2.1 §8.2.6: a
//! secondary controller goes offline when its primary one is disabled or undergoes a Controller Level Reset.

use crate::harness::image::Image;
use crate::harness::sqe;
use crate::harness::status::*;
use crate::harness::*;
use crate::virtualization::{ASSIGN, INTERRUPTS, INVALID_STATE, ONLINE, QUEUES, bring_online, manage, world};

const SUBSYSTEM_RESET: u32 = 0x4E56_4D65;
/// CC.SHN, a normal and an abrupt shutdown.
const SHUTDOWNS: [(&str, u32); 2] = [("normal", 1 << 14), ("abrupt", 2 << 14)];

type Reset = fn(&mut World, usize);

const CONTROLLER_RESET: (&str, Reset) = ("Controller Reset", |world, host| world.disable(host));
const FROM_OUTSIDE: (&str, Reset) = ("reset from outside", World::function_level_reset);
const SUBSYSTEM: (&str, Reset) =
    ("subsystem reset", |world, _| world.write32(MANAGER, NSSR, SUBSYSTEM_RESET));

/// Both secondary controllers online and with an I/O queue pair.
fn both() -> World {
    let mut world = world();
    bring_online(&mut world);
    world.enable(OTHER_GUEST);
    for host in [GUEST, OTHER_GUEST] {
        world.create_pair(host, 1, 16);
    }
    world
}

/// Of each secondary controller: whether it is online, its queues and its interrupts, as the primary one lists them.
fn listed(world: &mut World) -> [(u8, u16, u16); 2] {
    let list = world.identify(MANAGER, 0x15, 0, 0);
    let half = |at: usize| u16::from_le_bytes([list[at], list[at + 1]]);
    assert_eq!(list[0], 2, "number of entries");
    [32, 64].map(|at| (list[at + 4] & 1, half(at + 10), half(at + 12)))
}

/// Brings the guest's controller online again, with a queue pair.
fn revive(world: &mut World) {
    assert_eq!(manage(world, GUEST_ID, ONLINE, 0, 0).code, INVALID_STATE, "its resources are gone");
    manage(world, GUEST_ID, ASSIGN, QUEUES, 2).ok();
    manage(world, GUEST_ID, ASSIGN, INTERRUPTS, 2).ok();
    manage(world, GUEST_ID, ONLINE, 0, 0).ok();
    world.enable(GUEST);
    world.create_pair(GUEST, 1, 16);
}

#[test]
fn secondary_controllers_go_offline_with_a_reset_of_their_primary_one() {
    for (name, reset) in [CONTROLLER_RESET, FROM_OUTSIDE, SUBSYSTEM] {
        let mut world = both();
        // What was under way is dropped, as with a reset of the secondary controller itself.
        let (_, prps) = world.hosts[GUEST].buffer(512);
        world.submit(GUEST, 1, sqe::read(NSID, 0, 1, prps));
        world.subsystem.fetch(64);
        let writes = world.memory(GUEST).device_accesses().1;
        reset(&mut world, MANAGER);
        world.settle();
        assert_eq!(world.memory(GUEST).device_accesses().1, writes, "{name}");
        for host in [GUEST, OTHER_GUEST] {
            assert!(!world.is_ready(host) && world.is_fatal(host), "{name}: {host}");
            world.write32(host, CC, 0);
            world.write32(host, CC, ENABLE);
            world.settle();
            assert!(!world.is_ready(host), "{name}: {host} becomes ready offline");
            world.write32(host, CC, 0);
        }
        world.enable(MANAGER);
        assert_eq!(
            listed(&mut world),
            [(0, 0, 0); 2],
            "{name}: enabling the primary one does not bring them back"
        );
        revive(&mut world);
        world.exec(GUEST, 1, sqe::flush(NSID)).ok();
    }
}

#[test]
fn other_resets_take_nothing_offline() {
    let rows = [("another manager", OTHER_MANAGER, GUEST), ("a secondary controller", GUEST, OTHER_GUEST)];
    for (name, host, other) in rows {
        for (kind, reset) in [CONTROLLER_RESET, FROM_OUTSIDE] {
            let mut world = both();
            let before = listed(&mut world);
            reset(&mut world, host);
            world.settle();
            assert_eq!(listed(&mut world), before, "{name}, {kind}");
            world.exec(other, 1, sqe::flush(NSID)).ok();
            world.enable(host);
        }
    }
}

#[test]
fn what_is_no_secondary_controller_of_it_runs_on() {
    for (name, reset) in [CONTROLLER_RESET, FROM_OUTSIDE] {
        let mut world = World::new();
        world.create_pair(GUEST, 1, 16);
        reset(&mut world, MANAGER);
        world.settle();
        world.exec(GUEST, 1, sqe::flush(NSID)).ok();
        assert!(!world.is_fatal(GUEST), "{name}");
    }
}

#[test]
fn a_shutdown_of_the_primary_controller_leaves_them_online_until_it_is_disabled() {
    for (name, notification) in SHUTDOWNS {
        let mut world = both();
        world.write32(MANAGER, CC, ENABLE | notification);
        world.settle();
        assert_eq!(world.read32(MANAGER, CSTS) & 0xC, 0x8, "{name}: shutdown complete");
        world.exec(GUEST, 1, sqe::flush(NSID)).ok();
        world.disable(MANAGER);
        assert!(!world.is_ready(GUEST) && world.is_fatal(GUEST), "{name}");
    }
}

#[test]
fn a_migration_by_the_primary_controller_ends_with_it() {
    for (name, reset) in [CONTROLLER_RESET, FROM_OUTSIDE, SUBSYSTEM] {
        let mut world = both();
        let mut queue = world.create_cdq(MANAGER, GUEST_ID, 16);
        world.admin(MANAGER, sqe::start_log(queue.id)).ok();
        world.admin(MANAGER, sqe::suspend(GUEST_ID)).ok();
        assert_eq!(queue.texts(), ["001b", "011b"]);
        reset(&mut world, MANAGER);
        world.settle();
        assert!(queue.texts().is_empty(), "{name}: nothing is written to its host's memory");
        world.enable(MANAGER);
        assert_eq!(world.admin(MANAGER, sqe::delete_cdq(queue.id)).code, INVALID_CDQ, "{name}");
        assert_eq!(world.admin(MANAGER, sqe::resume(GUEST_ID)).code, NOT_SUSPENDED, "{name}");
        revive(&mut world);
        world.exec(GUEST, 1, sqe::flush(NSID)).ok();
    }
}

#[test]
fn a_migration_by_another_controller_keeps_its_data_queue() {
    for (name, reset) in [CONTROLLER_RESET, FROM_OUTSIDE] {
        for suspended in [false, true] {
            let name = format!("{name}, suspended {suspended}");
            let mut world = both();
            let mut queue = world.create_cdq(OTHER_MANAGER, GUEST_ID, 16);
            world.admin(OTHER_MANAGER, sqe::start_log(queue.id)).ok();
            let mut expected = vec!["001b"];
            if suspended {
                world.admin(OTHER_MANAGER, sqe::suspend(GUEST_ID)).ok();
                expected.extend(["011b", "001b"]);
            }
            reset(&mut world, MANAGER);
            world.settle();
            assert_eq!(queue.texts(), expected, "{name}: the suspension ends with the reset");
            assert_eq!(world.admin(OTHER_MANAGER, sqe::resume(GUEST_ID)).code, NOT_SUSPENDED, "{name}");
            world.enable(MANAGER);
            revive(&mut world);
            world.write_blocks(GUEST, NSID, 5, 1, 1);
            assert_eq!(queue.texts(), ["000b 1:5+1"], "{name}: the log goes on");
        }
    }
}

#[test]
fn a_suspend_that_waits_ends() {
    let mut world = both();
    for _ in 0..3 {
        let (_, prps) = world.hosts[GUEST].buffer(512);
        world.submit(GUEST, 1, sqe::read(NSID, 0, 1, prps));
    }
    let suspend = world.submit(OTHER_MANAGER, 0, sqe::suspend(GUEST_ID));
    world.subsystem.fetch(64);
    // One command at each controller: the Suspend has begun, and commands of the guest are left.
    assert!(world.subsystem.execute(1).pending);
    world.disable(MANAGER);
    world.run();
    let ended = world.hosts[OTHER_MANAGER].take(0, suspend).expect("a completion");
    assert_eq!(ended.code, NOT_SUSPENDED);
    assert_eq!(world.admin(OTHER_MANAGER, sqe::resume(GUEST_ID)).code, NOT_SUSPENDED);
}

#[test]
fn a_state_that_is_being_received_is_dropped() {
    let mut world = both();
    world.admin(OTHER_MANAGER, sqe::suspend(GUEST_ID)).ok();
    let host = world.hosts[GUEST].clone();
    world.disable(GUEST);
    world.enable(GUEST);
    world.admin(OTHER_MANAGER, sqe::suspend(GUEST_ID)).ok();
    let bytes = Image::one_pair(host.allocate(1024), host.allocate(256)).bytes();
    let part = world.state_part(OTHER_MANAGER, GUEST_ID, sqe::FIRST, (1, 0), 0, &bytes[..48]);
    world.admin(OTHER_MANAGER, part).ok();
    world.disable(MANAGER);
    let part = world.state_part(OTHER_MANAGER, GUEST_ID, sqe::LAST, (1, 0), 48, &bytes[48..]);
    assert_eq!(world.admin(OTHER_MANAGER, part).code, INVALID_CONTROLLER, "it is offline");
    world.enable(MANAGER);
    manage(&mut world, GUEST_ID, ASSIGN, QUEUES, 2).ok();
    manage(&mut world, GUEST_ID, ASSIGN, INTERRUPTS, 1).ok();
    manage(&mut world, GUEST_ID, ONLINE, 0, 0).ok();
    world.enable(GUEST);
    world.admin(OTHER_MANAGER, sqe::suspend(GUEST_ID)).ok();
    let part = world.state_part(OTHER_MANAGER, GUEST_ID, sqe::LAST, (1, 0), 48, &bytes[48..]);
    assert_eq!(world.admin(OTHER_MANAGER, part).code, SEQUENCE_ERROR, "it begins anew");
    world.set_image(OTHER_MANAGER, GUEST_ID, (1, 0), &bytes).ok();
    world.admin(OTHER_MANAGER, sqe::resume(GUEST_ID)).ok();
}

// SPDX-License-Identifier: MIT OR Apache-2.0
//! Secondary controllers: Virtualization Management and the lists that describe them. NVMe Base 2.1 §5.2.6 and §8.2.6.

use nvme_controller::SecondaryConfig;
use nvme_core::wire::ControllerId;

use crate::harness::sqe::{self, Sqe};
use crate::harness::status::*;
use crate::harness::*;

pub(crate) const INVALID_STATE: Code = Code(1, 0x20);
const INVALID_NUMBER: Code = Code(1, 0x21);
const INVALID_RESOURCE: Code = Code(1, 0x22);

pub(crate) const QUEUES: u32 = 0;
pub(crate) const INTERRUPTS: u32 = 1;
const ALLOCATE: u32 = 1;
const OFFLINE: u32 = 7;
pub(crate) const ASSIGN: u32 = 8;
pub(crate) const ONLINE: u32 = 9;

/// Manager, second manager, and two secondary controllers of the manager: the first online, the second offline.
pub(crate) fn world() -> World {
    let mut setup = Setup::new();
    for (index, online) in [(GUEST, true), (OTHER_GUEST, false)] {
        setup.controllers[index].secondary = Some(SecondaryConfig {
            primary: ControllerId::new(MANAGER_ID),
            virtual_function: index as u16 - 1,
            online,
        });
    }
    let mut world = setup.build();
    for host in [MANAGER, OTHER_MANAGER, GUEST] {
        world.enable(host);
    }
    world
}

pub(crate) fn manage(world: &mut World, target: u16, action: u32, resource: u32, count: u32) -> Completion {
    let command =
        Sqe::new(0x1C).dword(10, (u32::from(target) << 16) | (resource << 8) | action).dword(11, count);
    world.admin(MANAGER, command)
}

/// Gives the offline controller two queue pairs and two vectors and takes it online.
pub(crate) fn bring_online(world: &mut World) {
    manage(world, OTHER_GUEST_ID, ASSIGN, QUEUES, 3).ok();
    manage(world, OTHER_GUEST_ID, ASSIGN, INTERRUPTS, 2).ok();
    manage(world, OTHER_GUEST_ID, ONLINE, 0, 0).ok();
}

#[test]
fn every_check_has_its_status() {
    check(
        world,
        &[
            ("no flexible resources for the primary", SUCCESS, |w| {
                manage(w, MANAGER_ID, ALLOCATE, QUEUES, 0)
            }),
            ("flexible resources that there are none of", INVALID_NUMBER, |w| {
                manage(w, MANAGER_ID, ALLOCATE, QUEUES, 1)
            }),
            ("flexible resources of another controller", INVALID_CONTROLLER, |w| {
                manage(w, OTHER_GUEST_ID, ALLOCATE, QUEUES, 0)
            }),
            ("assign queues", SUCCESS, |w| manage(w, OTHER_GUEST_ID, ASSIGN, QUEUES, 3)),
            ("assign interrupts", SUCCESS, |w| manage(w, OTHER_GUEST_ID, ASSIGN, INTERRUPTS, 64)),
            ("assign to an online controller", INVALID_STATE, |w| manage(w, GUEST_ID, ASSIGN, QUEUES, 3)),
            ("assign more queues than there are", INVALID_NUMBER, |w| {
                manage(w, OTHER_GUEST_ID, ASSIGN, QUEUES, 100)
            }),
            ("assign more interrupts than there are", INVALID_NUMBER, |w| {
                manage(w, OTHER_GUEST_ID, ASSIGN, INTERRUPTS, 65)
            }),
            ("assign an unknown resource", INVALID_RESOURCE, |w| manage(w, OTHER_GUEST_ID, ASSIGN, 2, 1)),
            ("assign to a controller that is not there", INVALID_CONTROLLER, |w| {
                manage(w, NOBODY_ID, ASSIGN, QUEUES, 1)
            }),
            ("assign to the primary controller", INVALID_CONTROLLER, |w| {
                manage(w, MANAGER_ID, ASSIGN, QUEUES, 1)
            }),
            ("assign to a controller that is not secondary", INVALID_CONTROLLER, |w| {
                manage(w, OTHER_MANAGER_ID, ASSIGN, QUEUES, 1)
            }),
            ("online without resources", INVALID_STATE, |w| manage(w, OTHER_GUEST_ID, ONLINE, 0, 0)),
            ("online without interrupts", INVALID_STATE, |w| {
                manage(w, OTHER_GUEST_ID, ASSIGN, QUEUES, 3).ok();
                manage(w, OTHER_GUEST_ID, ONLINE, 0, 0)
            }),
            ("online without queues", INVALID_STATE, |w| {
                manage(w, OTHER_GUEST_ID, ASSIGN, INTERRUPTS, 3).ok();
                manage(w, OTHER_GUEST_ID, ONLINE, 0, 0)
            }),
            ("online", SUCCESS, |w| {
                manage(w, OTHER_GUEST_ID, ASSIGN, QUEUES, 2).ok();
                manage(w, OTHER_GUEST_ID, ASSIGN, INTERRUPTS, 1).ok();
                manage(w, OTHER_GUEST_ID, ONLINE, 0, 0)
            }),
            ("offline", SUCCESS, |w| manage(w, GUEST_ID, OFFLINE, 0, 0)),
            ("offline, a controller that is not there", INVALID_CONTROLLER, |w| {
                manage(w, NOBODY_ID, OFFLINE, 0, 0)
            }),
            ("reserved action", INVALID_FIELD, |w| manage(w, OTHER_GUEST_ID, 0xF, 0, 0)),
            ("on a controller that is not primary", INVALID_OPCODE, |w| {
                w.admin(OTHER_MANAGER, Sqe::new(0x1C).dword(10, (u32::from(OTHER_GUEST_ID) << 16) | OFFLINE))
            }),
        ],
    );
}

#[test]
fn an_offline_controller_does_not_become_ready() {
    let mut world = world();
    world.write32(OTHER_GUEST, AQA, 0x001F_001F);
    world.write64(OTHER_GUEST, ASQ, 0x4_0000_0000);
    world.write64(OTHER_GUEST, ACQ, 0x4_0001_0000);
    world.write32(OTHER_GUEST, CC, ENABLE);
    world.settle();
    assert!(!world.is_ready(OTHER_GUEST));
    world.write32(OTHER_GUEST, CC, 0);
    assert!(world.is_fatal(OTHER_GUEST), "still offline");
    bring_online(&mut world);
    assert!(!world.is_fatal(OTHER_GUEST));
    world.enable(OTHER_GUEST);
    world.create_pair(OTHER_GUEST, 1, 16);
    world.exec(OTHER_GUEST, 1, sqe::flush(NSID)).ok();
}

#[test]
fn assigned_resources_bound_queues_and_vectors() {
    let mut world = world();
    bring_online(&mut world);
    world.enable(OTHER_GUEST);
    // The admin queue pair is one of the three.
    let granted = world.admin(OTHER_GUEST, sqe::set_features(0x07, 0x0009_0009)).ok().dword0;
    assert_eq!(granted, 0x0001_0001, "two I/O queue pairs, zero-based");
    let base = world.hosts[OTHER_GUEST].allocate(4096);
    assert_eq!(world.admin(OTHER_GUEST, sqe::create_cq(3, 16, 0, base)).code, INVALID_QUEUE_ID);
    assert_eq!(world.admin(OTHER_GUEST, sqe::create_cq(1, 16, 2, base)).code, INVALID_VECTOR);
    world.admin(OTHER_GUEST, sqe::create_cq(1, 16, 1, base)).ok();
}

#[test]
fn offline_resets_the_controller_and_takes_its_resources() {
    let mut world = world();
    world.create_pair(GUEST, 1, 16);
    manage(&mut world, GUEST_ID, OFFLINE, 0, 0).ok();
    assert!(!world.is_ready(GUEST));
    assert_eq!(
        manage(&mut world, GUEST_ID, ONLINE, 0, 0).code,
        INVALID_STATE,
        "nothing is assigned any more"
    );
    manage(&mut world, GUEST_ID, ASSIGN, QUEUES, 2).ok();
    manage(&mut world, GUEST_ID, ASSIGN, INTERRUPTS, 2).ok();
    manage(&mut world, GUEST_ID, ONLINE, 0, 0).ok();
    world.enable(GUEST);
    world.create_pair(GUEST, 1, 16);
}

#[test]
fn the_primary_controller_states_what_it_shares_out() {
    let mut world = world();
    // Flexible in all, assigned to secondary controllers, most for one: of queues, then of vectors.
    let shared = |world: &mut World| {
        let page = world.identify(MANAGER, 0x14, 0, 0);
        let word = |at: usize| u32::from_le_bytes([page[at], page[at + 1], page[at + 2], page[at + 3]]);
        let half = |at: usize| u16::from_le_bytes([page[at], page[at + 1]]);
        assert_eq!((half(0), page[4]), (MANAGER_ID, 3), "identifier, both kinds of resource");
        [(word(32), word(36), half(44)), (word(64), word(68), half(76))]
    };
    assert_eq!(shared(&mut world), [(12, 6, 6), (128, 64, 64)]);
    bring_online(&mut world);
    assert_eq!(shared(&mut world), [(12, 9, 6), (128, 66, 64)]);
    manage(&mut world, GUEST_ID, OFFLINE, 0, 0).ok();
    assert_eq!(shared(&mut world), [(12, 3, 6), (128, 2, 64)]);
}

#[test]
fn the_secondary_controllers_are_listed() {
    let mut world = world();
    let entry = |world: &mut World, index: usize| {
        let list = world.identify(MANAGER, 0x15, 0, 0);
        let half = |at: usize| u16::from_le_bytes([list[at], list[at + 1]]);
        let at = 32 + 32 * index;
        assert_eq!(list[0], 2, "number of entries");
        // Identifier, primary, online, virtual function, queues, interrupts.
        (half(at), half(at + 2), list[at + 4] & 1, half(at + 8), half(at + 10), half(at + 12))
    };
    assert_eq!(entry(&mut world, 0), (GUEST_ID, MANAGER_ID, 1, 1, 6, 64));
    assert_eq!(entry(&mut world, 1), (OTHER_GUEST_ID, MANAGER_ID, 0, 2, 0, 0));
    bring_online(&mut world);
    assert_eq!(entry(&mut world, 1), (OTHER_GUEST_ID, MANAGER_ID, 1, 2, 3, 2));
    let from = world.identify(MANAGER, 0x15, 0, OTHER_GUEST_ID);
    assert_eq!(
        (from[0], from[32..34].to_vec()),
        (1, OTHER_GUEST_ID.to_le_bytes().to_vec()),
        "from an identifier on"
    );
    let none = world.identify(MANAGER, 0x15, 0, OTHER_GUEST_ID + 1);
    assert_eq!(none, [0; 4096]);
}

#[test]
fn r2_a_secondary_controller_is_migrated_like_any_other() {
    let mut world = world();
    bring_online(&mut world);
    world.enable(OTHER_GUEST);
    world.create_pair(OTHER_GUEST, 1, 16);
    let mut queue = world.create_cdq(MANAGER, OTHER_GUEST_ID, 16);
    world.admin(MANAGER, sqe::start_log(queue.id)).ok();
    world.write_blocks(OTHER_GUEST, NSID, 3, 1, 1);
    world.admin(MANAGER, sqe::suspend(OTHER_GUEST_ID)).ok();
    assert_eq!(queue.texts(), ["001b", "000b 1:3+1", "011b"]);
    let image = image::Image::parse(&world.get_image(MANAGER, OTHER_GUEST_ID, (1, 0)));
    assert_eq!((image.submission.len(), image.completion.len()), (1, 1));
    manage(&mut world, OTHER_GUEST_ID, OFFLINE, 0, 0).ok();
    let resumed = world.admin(MANAGER, sqe::resume(OTHER_GUEST_ID)).code;
    assert_eq!(resumed, NOT_SUSPENDED, "going offline resets the controller");
}

#[test]
fn an_image_needs_the_resources_it_uses() {
    let mut world = world();
    bring_online(&mut world);
    world.enable(OTHER_GUEST);
    world.admin(MANAGER, sqe::suspend(OTHER_GUEST_ID)).ok();
    let host = world.hosts[OTHER_GUEST].clone();
    for (name, id, vector, expected) in [
        ("third queue of two", 3, 0, INVALID_FIELD),
        ("third vector of two", 1, 2, INVALID_FIELD),
        ("last queue and vector", 2, 1, SUCCESS),
    ] {
        let mut image = image::Image::one_pair(host.allocate(1024), host.allocate(256));
        image.submission[0].id = id;
        image.submission[0].completion = id;
        image.completion[0].id = id;
        image.completion[0].attributes |= vector << 16;
        let code = world.set_image(MANAGER, OTHER_GUEST_ID, (1, 0), &image.bytes()).code;
        assert_eq!(code, expected, "{name}");
    }
}

// SPDX-License-Identifier: MIT OR Apache-2.0
//! Suspend and Resume: every status, and what a suspended controller does and does not do. NVMe Base 2.1 §5.1.17,
//! Migration Send command.

use crate::conformance::backend::Backend;
use crate::conformance::world::sqe;
use crate::conformance::world::status::*;
use crate::conformance::world::*;

fn suspended(backend: &dyn Backend) -> World {
    let mut world = World::new(backend);
    world.create_pair(GUEST, 1, 16);
    world.admin(MANAGER, sqe::suspend(GUEST_ID)).ok();
    world
}

fn read_of(world: &World, host: usize) -> sqe::Sqe {
    sqe::read(NSID, 0, 1, world.hosts[host].buffer(512).1)
}

pub(crate) fn every_check_of_suspend_has_its_status(backend: &dyn Backend) {
    check(
        backend,
        World::new,
        &[
            ("running controller", SUCCESS, |w| w.admin(MANAGER, sqe::suspend(GUEST_ID))),
            ("notification", SUCCESS, |w| w.admin(MANAGER, sqe::notify_suspend(GUEST_ID))),
            ("disabled controller", SUCCESS, |w| {
                w.disable(GUEST);
                w.admin(MANAGER, sqe::suspend(GUEST_ID))
            }),
            ("suspended controller", SUCCESS, |w| {
                w.admin(MANAGER, sqe::suspend(GUEST_ID)).ok();
                w.admin(MANAGER, sqe::suspend(GUEST_ID))
            }),
            ("suspended by the other manager", SUCCESS, |w| {
                w.admin(OTHER_MANAGER, sqe::suspend(GUEST_ID)).ok();
                w.admin(MANAGER, sqe::suspend(GUEST_ID))
            }),
            ("notification of a suspended controller", SUCCESS, |w| {
                w.admin(MANAGER, sqe::suspend(GUEST_ID)).ok();
                w.admin(MANAGER, sqe::notify_suspend(GUEST_ID))
            }),
            ("DUDMQ without a queue", SUCCESS, |w| w.admin(MANAGER, sqe::suspend_and_delete(GUEST_ID))),
            ("CNTLID that no controller has", INVALID_CONTROLLER, |w| {
                w.admin(MANAGER, sqe::suspend(NOBODY_ID))
            }),
            ("CNTLID FFFFh", INVALID_CONTROLLER, |w| w.admin(MANAGER, sqe::suspend(0xFFFF))),
            ("CNTLID of the managing controller itself", INVALID_CONTROLLER, |w| {
                w.admin(MANAGER, sqe::suspend(MANAGER_ID))
            }),
            ("CNTLID of another managing controller", INVALID_CONTROLLER, |w| {
                w.admin(MANAGER, sqe::suspend(OTHER_MANAGER_ID))
            }),
            ("notification, CNTLID that no controller has", INVALID_CONTROLLER, |w| {
                w.admin(MANAGER, sqe::notify_suspend(NOBODY_ID))
            }),
            ("STYPE 2h is reserved", INVALID_FIELD, |w| {
                w.admin(MANAGER, sqe::notify_suspend(GUEST_ID).or(11, 2 << 16))
            }),
            ("STYPE FFh is reserved", INVALID_FIELD, |w| {
                w.admin(MANAGER, sqe::notify_suspend(GUEST_ID).or(11, 0xFF << 16))
            }),
            ("SEL 3h is reserved", INVALID_FIELD, |w| w.admin(MANAGER, sqe::suspend(GUEST_ID).or(10, 3))),
            ("SEL FFh is reserved", INVALID_FIELD, |w| w.admin(MANAGER, sqe::suspend(GUEST_ID).or(10, 0xFF))),
            ("NSID 1", INVALID_FIELD, |w| w.admin(MANAGER, sqe::suspend(GUEST_ID).namespace(1))),
            ("UIDX 1 without UUID selection", INVALID_FIELD, |w| {
                w.admin(MANAGER, sqe::suspend(GUEST_ID).dword(14, 1))
            }),
            ("opcode on a migratable controller", INVALID_OPCODE, |w| {
                w.admin(GUEST, sqe::suspend(OTHER_GUEST_ID))
            }),
        ],
    );
}

pub(crate) fn every_check_of_resume_has_its_status(backend: &dyn Backend) {
    fn part(world: &mut World, sequence: u32) -> Completion {
        let image = image::Image::empty().bytes();
        let command = world.state_part(MANAGER, GUEST_ID, sequence, (1, 0), 0, &image);
        world.admin(MANAGER, command)
    }
    fn wrong(world: &mut World) -> Completion {
        let mut image = image::Image::empty();
        image.version = 9;
        let command = world.state_part(MANAGER, GUEST_ID, sqe::ONLY, (1, 0), 0, &image.bytes());
        world.admin(MANAGER, command)
    }
    check(
        backend,
        World::new,
        &[
            ("suspended controller", SUCCESS, |w| {
                w.admin(MANAGER, sqe::suspend(GUEST_ID)).ok();
                w.admin(MANAGER, sqe::resume(GUEST_ID))
            }),
            ("running controller", NOT_SUSPENDED, |w| w.admin(MANAGER, sqe::resume(GUEST_ID))),
            ("controller that was only notified", NOT_SUSPENDED, |w| {
                w.admin(MANAGER, sqe::notify_suspend(GUEST_ID)).ok();
                w.admin(MANAGER, sqe::resume(GUEST_ID))
            }),
            ("twice", NOT_SUSPENDED, |w| {
                w.admin(MANAGER, sqe::suspend(GUEST_ID)).ok();
                w.admin(MANAGER, sqe::resume(GUEST_ID)).ok();
                w.admin(MANAGER, sqe::resume(GUEST_ID))
            }),
            ("while another is suspended", NOT_SUSPENDED, |w| {
                w.admin(MANAGER, sqe::suspend(OTHER_GUEST_ID)).ok();
                w.admin(MANAGER, sqe::resume(GUEST_ID))
            }),
            ("after a reset of the target", NOT_SUSPENDED, |w| {
                w.admin(MANAGER, sqe::suspend(GUEST_ID)).ok();
                w.reset(GUEST);
                w.admin(MANAGER, sqe::resume(GUEST_ID))
            }),
            ("after a reset of the manager that suspended it", NOT_SUSPENDED, |w| {
                w.admin(MANAGER, sqe::suspend(GUEST_ID)).ok();
                w.reset(MANAGER);
                w.admin(MANAGER, sqe::resume(GUEST_ID))
            }),
            ("after a reset of another manager", SUCCESS, |w| {
                w.admin(MANAGER, sqe::suspend(GUEST_ID)).ok();
                w.reset(OTHER_MANAGER);
                w.admin(MANAGER, sqe::resume(GUEST_ID))
            }),
            ("first part of a state arrived", SEQUENCE_ERROR, |w| {
                w.admin(MANAGER, sqe::suspend(GUEST_ID)).ok();
                part(w, sqe::FIRST).ok();
                w.admin(MANAGER, sqe::resume(GUEST_ID))
            }),
            ("first and middle part of a state arrived", SEQUENCE_ERROR, |w| {
                w.admin(MANAGER, sqe::suspend(GUEST_ID)).ok();
                part(w, sqe::FIRST).ok();
                part(w, sqe::MIDDLE).ok();
                w.admin(MANAGER, sqe::resume(GUEST_ID))
            }),
            ("state refused", SEQUENCE_ERROR, |w| {
                w.admin(MANAGER, sqe::suspend(GUEST_ID)).ok();
                assert_ne!(wrong(w).code, SUCCESS);
                w.admin(MANAGER, sqe::resume(GUEST_ID))
            }),
            ("last part refused", SEQUENCE_ERROR, |w| {
                w.admin(MANAGER, sqe::suspend(GUEST_ID)).ok();
                part(w, sqe::FIRST).ok();
                let command = w.state_part(MANAGER, GUEST_ID, sqe::LAST, (1, 0), 4096, &[0; 4]);
                assert_ne!(w.admin(MANAGER, command).code, SUCCESS);
                w.admin(MANAGER, sqe::resume(GUEST_ID))
            }),
            ("state refused and then another one committed", SUCCESS, |w| {
                w.admin(MANAGER, sqe::suspend(GUEST_ID)).ok();
                assert_ne!(wrong(w).code, SUCCESS);
                part(w, sqe::ONLY).ok();
                w.admin(MANAGER, sqe::resume(GUEST_ID))
            }),
            ("state refused, reset and suspended again", SUCCESS, |w| {
                w.admin(MANAGER, sqe::suspend(GUEST_ID)).ok();
                assert_ne!(wrong(w).code, SUCCESS);
                w.reset(GUEST);
                w.admin(MANAGER, sqe::suspend(GUEST_ID)).ok();
                w.admin(MANAGER, sqe::resume(GUEST_ID))
            }),
            ("command refused before a state was taken", SUCCESS, |w| {
                w.admin(MANAGER, sqe::suspend(GUEST_ID)).ok();
                let command = w.state_part(MANAGER, GUEST_ID, sqe::ONLY, (9, 0), 0, &[0; 48]);
                assert_eq!(w.admin(MANAGER, command).code, INVALID_FIELD);
                w.admin(MANAGER, sqe::resume(GUEST_ID))
            }),
            ("state committed", SUCCESS, |w| {
                w.admin(MANAGER, sqe::suspend(GUEST_ID)).ok();
                part(w, sqe::ONLY).ok();
                w.admin(MANAGER, sqe::resume(GUEST_ID))
            }),
            ("state committed in parts", SUCCESS, |w| {
                w.admin(MANAGER, sqe::suspend(GUEST_ID)).ok();
                part(w, sqe::FIRST).ok();
                part(w, sqe::LAST).ok();
                w.admin(MANAGER, sqe::resume(GUEST_ID))
            }),
            ("CNTLID that no controller has", INVALID_CONTROLLER, |w| {
                w.admin(MANAGER, sqe::resume(NOBODY_ID))
            }),
            ("CNTLID of the managing controller itself", INVALID_CONTROLLER, |w| {
                w.admin(MANAGER, sqe::resume(MANAGER_ID))
            }),
            ("CNTLID of another managing controller", INVALID_CONTROLLER, |w| {
                w.admin(MANAGER, sqe::resume(OTHER_MANAGER_ID))
            }),
            ("NSID 1", INVALID_FIELD, |w| {
                w.admin(MANAGER, sqe::suspend(GUEST_ID)).ok();
                w.admin(MANAGER, sqe::resume(GUEST_ID).namespace(1))
            }),
            ("UIDX 1 without UUID selection", INVALID_FIELD, |w| {
                w.admin(MANAGER, sqe::suspend(GUEST_ID)).ok();
                w.admin(MANAGER, sqe::resume(GUEST_ID).dword(14, 1))
            }),
            ("opcode on a migratable controller", INVALID_OPCODE, |w| {
                w.admin(MANAGER, sqe::suspend(OTHER_GUEST_ID)).ok();
                w.admin(GUEST, sqe::resume(OTHER_GUEST_ID))
            }),
        ],
    );
}

pub(crate) fn a_notification_changes_nothing(backend: &dyn Backend) {
    for dudmq in [0, 1 << 31] {
        let mut world = World::new(backend);
        let queue = world.logged_guest(16);
        world.admin(MANAGER, sqe::notify_suspend(GUEST_ID).or(11, dudmq)).ok();
        let read = read_of(&world, GUEST);
        world.exec(GUEST, 1, read).ok();
        world.admin(MANAGER, sqe::set_head(queue.id, 1)).ok();
    }
}

pub(crate) fn r9_event_requests_stay_outstanding_over_a_suspension(backend: &dyn Backend) {
    let mut world = World::new(backend);
    let request = world.leave(GUEST, 0, sqe::event_request());
    world.admin(MANAGER, sqe::suspend(GUEST_ID)).ok();
    // An invalid doorbell raises an event that must wait as well.
    world.write32(GUEST, 0x1000 + 5 * 8, 1);
    assert_eq!(world.event(GUEST, request), None);
    world.admin(MANAGER, sqe::resume(GUEST_ID)).ok();
    assert_eq!(world.event(GUEST, request), Some((0x0001_0000, 0)), "error, invalid doorbell register");
}

pub(crate) fn doorbells_are_latched_while_suspended(backend: &dyn Backend) {
    let mut world = World::new(backend);
    world.create_pair(GUEST, 1, 4);
    world.hosts[GUEST].held.insert(1);
    for _ in 0..3 {
        let read = read_of(&world, GUEST);
        world.submit(GUEST, 1, read);
        world.run();
        let queue = world.hosts[GUEST].submission.get_mut(&1).unwrap();
        queue.head = (queue.head + 1) % 4;
    }
    world.admin(MANAGER, sqe::suspend(GUEST_ID)).ok();
    // The completion queue was full; its head and a new tail are rung while suspended.
    assert_eq!(world.harvest(GUEST, 1), 3);
    let read = read_of(&world, GUEST);
    let later = world.submit(GUEST, 1, read);
    world.run();
    world.admin(MANAGER, sqe::resume(GUEST_ID)).ok();
    assert_eq!(world.harvest(GUEST, 1), 1);
    world.hosts[GUEST].take(1, later).expect("fetched after Resume").ok();
}

pub(crate) fn a_full_completion_queue_delays_the_suspend_until_its_head_moves(backend: &dyn Backend) {
    let mut world = World::new(backend);
    // One completion slot more than what is unread, and two commands fetched: the second stalls.
    world.create_completion(GUEST, 1, 3, 1);
    world.create_submission(GUEST, 1, 1, 16);
    world.hosts[GUEST].held.insert(1);
    for _ in 0..4 {
        let read = read_of(&world, GUEST);
        world.send(GUEST, 1, read);
    }
    world.ring(GUEST, 1);
    world.begin();
    let suspend = world.submit(MANAGER, 0, sqe::suspend(GUEST_ID));
    world.run();
    // A controller that fetches only what it can complete has nothing to wait for; one that fetched more waits.
    let early = world.hosts[MANAGER].take(0, suspend);
    world.hosts[GUEST].held.clear();
    world.run();
    let done = early.or_else(|| world.hosts[MANAGER].take(0, suspend)).expect("Suspend completes in the end");
    done.ok();
    let completed = world.hosts[GUEST].done.len();
    world.run();
    assert_eq!(world.hosts[GUEST].done.len(), completed, "suspended is suspended");
    world.admin(MANAGER, sqe::resume(GUEST_ID)).ok();
    assert_eq!(world.hosts[GUEST].done.len(), 4);
}

pub(crate) fn properties_can_be_read_while_suspended(backend: &dyn Backend) {
    let mut world = World::new(backend);
    let before: Vec<u32> = (0..0x70).step_by(4).map(|offset| world.read32(GUEST, offset)).collect();
    world.admin(MANAGER, sqe::suspend(GUEST_ID)).ok();
    let after: Vec<u32> = (0..0x70).step_by(4).map(|offset| world.read32(GUEST, offset)).collect();
    assert_eq!(before, after, "a guest does not notice");
}

pub(crate) fn only_the_target_is_suspended(backend: &dyn Backend) {
    let mut world = World::new(backend);
    for host in [MANAGER, OTHER_MANAGER, OTHER_GUEST] {
        world.create_pair(host, 1, 16);
    }
    world.admin(MANAGER, sqe::suspend(GUEST_ID)).ok();
    for host in [MANAGER, OTHER_MANAGER, OTHER_GUEST] {
        let read = read_of(&world, host);
        world.exec(host, 1, read).ok();
    }
}

pub(crate) fn what_ends_a_suspension(backend: &dyn Backend) {
    type Action = fn(&mut World);
    let rows: [(&str, Action, bool); 9] = [
        (
            "a reset of the manager that suspended it, after another one took it over",
            |w| {
                w.admin(OTHER_MANAGER, sqe::suspend(GUEST_ID)).ok();
                w.reset(MANAGER);
            },
            false,
        ),
        (
            "a reset of the manager that took it over",
            |w| {
                w.admin(OTHER_MANAGER, sqe::suspend(GUEST_ID)).ok();
                w.reset(OTHER_MANAGER);
            },
            true,
        ),
        ("nothing", |_| {}, false),
        ("Resume", |w| _ = w.admin(MANAGER, sqe::resume(GUEST_ID)).ok(), true),
        ("Resume by the other manager", |w| _ = w.admin(OTHER_MANAGER, sqe::resume(GUEST_ID)).ok(), true),
        ("a reset of the manager that suspended it", |w| w.reset(MANAGER), true),
        ("a reset of the other manager", |w| w.reset(OTHER_MANAGER), false),
        ("a reset of another migratable controller", |w| w.reset(OTHER_GUEST), false),
        (
            "a shutdown of the manager without a reset",
            |w| {
                w.write32(MANAGER, CC, ENABLE | (1 << 14));
                w.run();
            },
            false,
        ),
    ];
    for (name, action, ends) in rows {
        let mut world = suspended(backend);
        let read = read_of(&world, GUEST);
        let command = world.submit(GUEST, 1, read);
        action(&mut world);
        world.run();
        assert_eq!(world.hosts[GUEST].take(1, command).is_some(), ends, "{name}");
    }
}

pub(crate) fn r8_a_reset_of_the_target_ends_a_suspend_that_waits(backend: &dyn Backend) {
    let mut world = World::new(backend);
    world.create_pair(GUEST, 1, 16);
    let read = read_of(&world, GUEST);
    world.submit(GUEST, 1, read);
    let suspend = world.submit(MANAGER, 0, sqe::suspend(GUEST_ID));
    world.begin();
    world.disable(GUEST);
    world.run();
    // Whichever way it ends, it ends, and the controller is not suspended.
    world.hosts[MANAGER].take(0, suspend).expect("Suspend does not hang");
    world.enable(GUEST);
    let resumed = world.admin(MANAGER, sqe::resume(GUEST_ID)).code;
    assert!(matches!(resumed, SUCCESS | NOT_SUSPENDED), "{resumed:?}");
    world.create_pair(GUEST, 1, 16);
    let read = read_of(&world, GUEST);
    world.exec(GUEST, 1, read).ok();
}

pub(crate) fn r8_a_reset_of_the_manager_ends_a_suspend_that_waits(backend: &dyn Backend) {
    let mut world = World::new(backend);
    world.create_pair(GUEST, 1, 16);
    let read = read_of(&world, GUEST);
    let command = world.submit(GUEST, 1, read);
    world.submit(MANAGER, 0, sqe::suspend(GUEST_ID));
    world.begin();
    world.reset(MANAGER);
    world.run();
    world.hosts[GUEST].take(1, command).expect("the guest's command completes").ok();
    let read = read_of(&world, GUEST);
    world.exec(GUEST, 1, read).ok();
    assert_eq!(world.admin(MANAGER, sqe::resume(GUEST_ID)).code, NOT_SUSPENDED);
}

pub(crate) fn a_suspended_controller_can_be_suspended_and_resumed_many_times(backend: &dyn Backend) {
    let mut world = World::new(backend);
    let mut queue = world.logged_guest(16);
    for _ in 0..20 {
        world.admin(MANAGER, sqe::suspend(GUEST_ID)).ok();
        let read = read_of(&world, GUEST);
        let command = world.submit(GUEST, 1, read);
        world.run();
        world.admin(MANAGER, sqe::resume(GUEST_ID)).ok();
        world.hosts[GUEST].take(1, command).expect("completes").ok();
        assert_eq!(queue.texts(), ["011b", "001b"]);
        world.publish(&queue);
    }
}

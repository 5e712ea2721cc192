// SPDX-License-Identifier: MIT OR Apache-2.0
//! Suspend and Resume: every status, and what a suspended controller does and does not do. NVMe Base 2.1 §5.1.17,
//! Migration Send command.

use crate::harness::sqe;
use crate::harness::status::*;
use crate::harness::*;

fn suspended() -> World {
    let mut world = World::new();
    world.create_pair(GUEST, 1, 16);
    world.admin(MANAGER, sqe::suspend(GUEST_ID)).ok();
    world
}

fn read_of(world: &World, host: usize) -> sqe::Sqe {
    sqe::read(NSID, 0, 1, world.hosts[host].buffer(512).1)
}

#[test]
fn every_check_of_suspend_has_its_status() {
    check(
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

#[test]
fn every_check_of_resume_has_its_status() {
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

#[test]
fn a_notification_changes_nothing() {
    for dudmq in [0, 1 << 31] {
        let mut world = World::new();
        let queue = world.logged_guest(16);
        world.admin(MANAGER, sqe::notify_suspend(GUEST_ID).or(11, dudmq)).ok();
        let read = read_of(&world, GUEST);
        world.exec(GUEST, 1, read).ok();
        world.admin(MANAGER, sqe::set_head(queue.id, 1)).ok();
    }
}

#[test]
fn r9_suspend_completes_after_every_fetched_command() {
    for fetched in 1..=5 {
        let mut world = World::new();
        world.create_pair(GUEST, 1, 16);
        let guest: Vec<u16> = (0..5)
            .map(|_| {
                let read = read_of(&world, GUEST);
                world.send(GUEST, 1, read)
            })
            .collect();
        world.ring(GUEST, 1);
        assert_eq!(world.subsystem.fetch(fetched), fetched);
        let suspend = world.submit(MANAGER, 0, sqe::suspend(GUEST_ID));
        // The queue of completions is looked at the moment the Suspend is completed.
        let (memory, base) = (world.memory(GUEST), world.hosts[GUEST].completion[&1].area.at(0));
        let acq = world.read64(MANAGER, ACQ);
        let seen = std::rc::Rc::new(std::cell::Cell::new(None));
        let at_completion = seen.clone();
        world.memory(MANAGER).watch(move |address, _| {
            if (acq..acq + 32 * 16).contains(&address) {
                let done = (0..16).filter(|slot| memory.bytes(base + slot * 16 + 14, 1)[0] & 1 == 1).count();
                at_completion.set(Some(done as u32));
            }
        });
        world.run();
        world.hosts[MANAGER].take(0, suspend).expect("Suspend completes").ok();
        let done = seen.get().expect("a completion was seen");
        assert!(done >= fetched, "{done} of {fetched} fetched commands were completed before the Suspend");
        let after = world.hosts[GUEST].done.len() as u32;
        assert_eq!(after, done, "nothing completes once the Suspend did");
        world.admin(MANAGER, sqe::resume(GUEST_ID)).ok();
        for command in guest {
            world.hosts[GUEST].take(1, command).expect("every command completes once").ok();
        }
        assert!(world.hosts[GUEST].done.is_empty());
    }
}

#[test]
fn r9_event_requests_stay_outstanding_over_a_suspension() {
    let mut world = World::new();
    let request = world.leave(GUEST, 0, sqe::event_request());
    world.admin(MANAGER, sqe::suspend(GUEST_ID)).ok();
    // An invalid doorbell raises an event that must wait as well.
    world.write32(GUEST, 0x1000 + 5 * 8, 1);
    assert_eq!(world.event(GUEST, request), None);
    world.admin(MANAGER, sqe::resume(GUEST_ID)).ok();
    assert_eq!(world.event(GUEST, request), Some((0x0001_0000, 0)), "error, invalid doorbell register");
}

#[test]
fn r7_a_suspended_controller_accesses_no_memory_and_interrupts_nobody() {
    let mut world = suspended();
    world.interrupts.take();
    let accesses = world.memory(GUEST).device_accesses();
    let read = read_of(&world, GUEST);
    let io = world.submit(GUEST, 1, read);
    let admin = world.submit(GUEST, 0, sqe::set_features(0x0B, 0));
    world.write32(GUEST, 0x1000 + 5 * 8, 1);
    world.run();
    // Peer-to-peer accesses would be accesses of this address space too.
    assert_eq!(world.memory(GUEST).device_accesses(), accesses, "neither reads nor writes");
    assert!(world.interrupts.take().iter().all(|(id, _)| *id != GUEST_ID));
    world.admin(MANAGER, sqe::resume(GUEST_ID)).ok();
    world.hosts[GUEST].take(1, io).expect("the I/O queue is fetched again").ok();
    world.hosts[GUEST].take(0, admin).expect("the admin queue is fetched again").ok();
    assert!(world.interrupts.take().contains(&(GUEST_ID, 1)));
}

#[test]
fn doorbells_are_latched_while_suspended() {
    let mut world = World::new();
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

#[test]
fn a_full_completion_queue_delays_the_suspend_until_its_head_moves() {
    let mut world = World::new();
    // One completion slot more than what is unread, and two commands fetched: the second stalls.
    world.create_completion(GUEST, 1, 3, 1);
    world.create_submission(GUEST, 1, 1, 16);
    world.hosts[GUEST].held.insert(1);
    for _ in 0..4 {
        let read = read_of(&world, GUEST);
        world.send(GUEST, 1, read);
    }
    world.ring(GUEST, 1);
    world.subsystem.fetch(64);
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

#[test]
fn properties_can_be_read_while_suspended() {
    let mut world = World::new();
    let before: Vec<u32> = (0..0x70).step_by(4).map(|offset| world.read32(GUEST, offset)).collect();
    world.admin(MANAGER, sqe::suspend(GUEST_ID)).ok();
    let after: Vec<u32> = (0..0x70).step_by(4).map(|offset| world.read32(GUEST, offset)).collect();
    assert_eq!(before, after, "a guest does not notice");
}

#[test]
fn only_the_target_is_suspended() {
    let mut world = World::new();
    for host in [MANAGER, OTHER_MANAGER, OTHER_GUEST] {
        world.create_pair(host, 1, 16);
    }
    world.admin(MANAGER, sqe::suspend(GUEST_ID)).ok();
    for host in [MANAGER, OTHER_MANAGER, OTHER_GUEST] {
        let read = read_of(&world, host);
        world.exec(host, 1, read).ok();
    }
}

#[test]
fn what_ends_a_suspension() {
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
        let mut world = suspended();
        let read = read_of(&world, GUEST);
        let command = world.submit(GUEST, 1, read);
        action(&mut world);
        world.run();
        assert_eq!(world.hosts[GUEST].take(1, command).is_some(), ends, "{name}");
    }
}

#[test]
fn r8_a_reset_of_the_target_ends_a_suspend_that_waits() {
    let mut world = World::new();
    world.create_pair(GUEST, 1, 16);
    let read = read_of(&world, GUEST);
    world.submit(GUEST, 1, read);
    let suspend = world.submit(MANAGER, 0, sqe::suspend(GUEST_ID));
    world.subsystem.fetch(64);
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

#[test]
fn r8_a_reset_of_the_manager_ends_a_suspend_that_waits() {
    let mut world = World::new();
    world.create_pair(GUEST, 1, 16);
    let read = read_of(&world, GUEST);
    let command = world.submit(GUEST, 1, read);
    world.submit(MANAGER, 0, sqe::suspend(GUEST_ID));
    world.subsystem.fetch(64);
    world.reset(MANAGER);
    world.run();
    world.hosts[GUEST].take(1, command).expect("the guest's command completes").ok();
    let read = read_of(&world, GUEST);
    world.exec(GUEST, 1, read).ok();
    assert_eq!(world.admin(MANAGER, sqe::resume(GUEST_ID)).code, NOT_SUSPENDED);
}

#[test]
fn a_suspended_controller_can_be_suspended_and_resumed_many_times() {
    let mut world = World::new();
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

#[test]
fn any_budget_of_a_poll_does_the_same() {
    for budget in [1, 2, 3, 5, 1000] {
        let mut world = World::new();
        world.budget = budget;
        let mut queue = world.logged_guest(32);
        for round in 0..4 {
            let commands: Vec<u16> = (0..9)
                .map(|index| {
                    let prps = world.hosts[GUEST].data(&[1; 512]);
                    world.send(GUEST, 1, sqe::write(NSID, 2 * index, 1, prps))
                })
                .collect();
            world.ring(GUEST, 1);
            world.subsystem.poll(budget);
            world.admin(MANAGER, sqe::suspend(GUEST_ID)).ok();
            let before = queue.texts();
            let done = world.hosts[GUEST].done.len();
            assert_eq!(
                before.len(),
                done + 1,
                "budget {budget}, round {round}: an entry for each, and the marker"
            );
            assert_eq!(before.last().map(String::as_str), Some("011b"));
            world.publish(&queue);
            world.admin(MANAGER, sqe::resume(GUEST_ID)).ok();
            for command in commands {
                world.hosts[GUEST].take(1, command).expect("completes").ok();
            }
            assert_eq!(
                queue.take().len(),
                10 - done,
                "budget {budget}, round {round}: a first entry and the rest"
            );
            world.publish(&queue);
        }
    }
}

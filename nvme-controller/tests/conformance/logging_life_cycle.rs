// SPDX-License-Identifier: MIT OR Apache-2.0
//! When the log of user data changes starts, stops, pauses and goes on. NVMe Base 2.1 §5.1.27.1.1, Log User Data
//! Changes; NVM Command Set 1.1 §5.6, User Data Migration Queue.

use nvme_controller::SecondaryConfig;
use nvme_core::wire::ControllerId;

use crate::harness::cdq::Cdq;
use crate::harness::sqe;
use crate::harness::status::*;
use crate::harness::*;

/// The text of one changed block of [`World::change_blocks`].
const CHANGE: &str = "000b 1:1000+1";

fn queued(world: &mut World) -> Cdq {
    let queue = world.create_cdq(MANAGER, GUEST_ID, 16);
    world.create_pair(GUEST, 1, 16);
    queue
}

#[test]
fn every_check_of_log_user_data_changes_has_its_status() {
    check(
        World::new,
        &[
            ("start without a queue", INVALID_CDQ, |w| w.admin(MANAGER, sqe::start_log(0))),
            ("stop without a queue", INVALID_CDQ, |w| w.admin(MANAGER, sqe::stop_log(0))),
            ("start", SUCCESS, |w| {
                let queue = queued(w);
                w.admin(MANAGER, sqe::start_log(queue.id))
            }),
            ("start, next identifier", INVALID_CDQ, |w| {
                let queue = queued(w);
                w.admin(MANAGER, sqe::start_log(queue.id + 1))
            }),
            ("start, queue of another controller", INVALID_CDQ, |w| {
                let queue = w.create_cdq(OTHER_MANAGER, GUEST_ID, 16);
                w.admin(MANAGER, sqe::start_log(queue.id))
            }),
            ("stop, queue of another controller", INVALID_CDQ, |w| {
                let queue = w.create_cdq(OTHER_MANAGER, GUEST_ID, 16);
                w.admin(MANAGER, sqe::stop_log(queue.id))
            }),
            ("start, deleted queue", INVALID_CDQ, |w| {
                let queue = queued(w);
                w.admin(MANAGER, sqe::delete_cdq(queue.id)).ok();
                w.admin(MANAGER, sqe::start_log(queue.id))
            }),
            ("start, logging already on", INVALID_FIELD, |w| {
                let queue = w.logged_guest(16);
                w.admin(MANAGER, sqe::start_log(queue.id))
            }),
            ("start, target suspended", SUSPENDED, |w| {
                let queue = queued(w);
                w.admin(MANAGER, sqe::suspend(GUEST_ID)).ok();
                w.admin(MANAGER, sqe::start_log(queue.id))
            }),
            ("start, target suspended while logging", SUSPENDED, |w| {
                let queue = w.logged_guest(16);
                w.admin(MANAGER, sqe::suspend(GUEST_ID)).ok();
                w.admin(MANAGER, sqe::start_log(queue.id))
            }),
            ("start, target suspended by another controller", SUSPENDED, |w| {
                let queue = queued(w);
                w.admin(OTHER_MANAGER, sqe::suspend(GUEST_ID)).ok();
                w.admin(MANAGER, sqe::start_log(queue.id))
            }),
            ("start, target resumed", SUCCESS, |w| {
                let queue = queued(w);
                w.admin(MANAGER, sqe::suspend(GUEST_ID)).ok();
                w.admin(MANAGER, sqe::resume(GUEST_ID)).ok();
                w.admin(MANAGER, sqe::start_log(queue.id))
            }),
            ("start, another target suspended", SUCCESS, |w| {
                let queue = queued(w);
                w.admin(MANAGER, sqe::suspend(OTHER_GUEST_ID)).ok();
                w.admin(MANAGER, sqe::start_log(queue.id))
            }),
            ("start, target disabled", SUCCESS, |w| {
                let queue = queued(w);
                w.disable(GUEST);
                w.admin(MANAGER, sqe::start_log(queue.id))
            }),
            ("start, queue full", CDQ_FULL, |w| {
                let queue = w.logged_guest(4);
                w.change_blocks(3);
                w.admin(MANAGER, sqe::start_log(queue.id))
            }),
            ("start again after stop", SUCCESS, |w| {
                let queue = w.logged_guest(16);
                w.admin(MANAGER, sqe::stop_log(queue.id)).ok();
                w.admin(MANAGER, sqe::start_log(queue.id))
            }),
            ("stop while logging", SUCCESS, |w| {
                let queue = w.logged_guest(16);
                w.admin(MANAGER, sqe::stop_log(queue.id))
            }),
            ("stop while not logging", SUCCESS, |w| {
                let queue = queued(w);
                w.admin(MANAGER, sqe::stop_log(queue.id))
            }),
            ("stop twice", SUCCESS, |w| {
                let queue = w.logged_guest(16);
                w.admin(MANAGER, sqe::stop_log(queue.id)).ok();
                w.admin(MANAGER, sqe::stop_log(queue.id))
            }),
            ("LACT 2h is reserved", INVALID_FIELD, |w| {
                let queue = queued(w);
                w.admin(MANAGER, sqe::stop_log(queue.id).or(10, 2 << 16))
            }),
            ("LACT 3h is reserved", INVALID_FIELD, |w| {
                let queue = queued(w);
                w.admin(MANAGER, sqe::stop_log(queue.id).or(10, 3 << 16))
            }),
            ("LACT Fh is reserved", INVALID_FIELD, |w| {
                let queue = queued(w);
                w.admin(MANAGER, sqe::stop_log(queue.id).or(10, 0xF << 16))
            }),
            ("SEL 2h is reserved", INVALID_FIELD, |w| {
                let queue = queued(w);
                w.admin(MANAGER, sqe::start_log(queue.id).or(10, 2))
            }),
            ("SEL FFh is reserved", INVALID_FIELD, |w| {
                let queue = queued(w);
                w.admin(MANAGER, sqe::start_log(queue.id).or(10, 0xFF))
            }),
            ("NSID 1", INVALID_FIELD, |w| {
                let queue = queued(w);
                w.admin(MANAGER, sqe::start_log(queue.id).namespace(1))
            }),
            ("opcode on a migratable controller", INVALID_OPCODE, |w| {
                let queue = queued(w);
                w.admin(GUEST, sqe::start_log(queue.id))
            }),
        ],
    );
}

#[test]
fn every_trigger_posts_its_entry() {
    type Action = fn(&mut World, &mut Cdq);
    let rows: [(&str, Action, &[&str]); 20] = [
        ("nothing before the start", |w, _| w.change_blocks(2), &[]),
        ("start", |w, q| _ = w.admin(MANAGER, sqe::start_log(q.id)).ok(), &["001b"]),
        (
            "start and changes",
            |w, q| {
                w.admin(MANAGER, sqe::start_log(q.id)).ok();
                w.change_blocks(1);
                w.write_blocks(GUEST, LARGE_BLOCKS_NSID, 7, 2, 1);
            },
            &["001b", CHANGE, "000b 3:7+2"],
        ),
        (
            "start twice starts once",
            |w, q| {
                w.admin(MANAGER, sqe::start_log(q.id)).ok();
                w.admin(MANAGER, sqe::start_log(q.id));
                w.change_blocks(1);
            },
            &["001b", CHANGE],
        ),
        (
            "stop",
            |w, q| {
                w.admin(MANAGER, sqe::start_log(q.id)).ok();
                w.change_blocks(1);
                w.admin(MANAGER, sqe::stop_log(q.id)).ok();
                w.change_blocks(1);
            },
            &["001b", CHANGE, "010b"],
        ),
        ("stop without start", |w, q| _ = w.admin(MANAGER, sqe::stop_log(q.id)).ok(), &[]),
        (
            "stop twice",
            |w, q| {
                w.admin(MANAGER, sqe::start_log(q.id)).ok();
                w.admin(MANAGER, sqe::stop_log(q.id)).ok();
                w.admin(MANAGER, sqe::stop_log(q.id)).ok();
            },
            &["001b", "010b"],
        ),
        (
            "stop and start",
            |w, q| {
                w.admin(MANAGER, sqe::start_log(q.id)).ok();
                w.admin(MANAGER, sqe::stop_log(q.id)).ok();
                w.change_blocks(1);
                w.admin(MANAGER, sqe::start_log(q.id)).ok();
                w.change_blocks(1);
            },
            &["001b", "010b", "001b", CHANGE],
        ),
        (
            "suspend while logging",
            |w, q| {
                w.admin(MANAGER, sqe::start_log(q.id)).ok();
                w.change_blocks(1);
                w.admin(MANAGER, sqe::suspend(GUEST_ID)).ok();
            },
            &["001b", CHANGE, "011b"],
        ),
        (
            "suspend twice",
            |w, q| {
                w.admin(MANAGER, sqe::start_log(q.id)).ok();
                w.admin(MANAGER, sqe::suspend(GUEST_ID)).ok();
                w.admin(MANAGER, sqe::suspend(GUEST_ID)).ok();
            },
            &["001b", "011b"],
        ),
        (
            "suspend while not logging",
            |w, _| {
                w.admin(MANAGER, sqe::suspend(GUEST_ID)).ok();
                w.admin(MANAGER, sqe::resume(GUEST_ID)).ok();
                w.change_blocks(1);
            },
            &[],
        ),
        (
            "suspend after stop",
            |w, q| {
                w.admin(MANAGER, sqe::start_log(q.id)).ok();
                w.admin(MANAGER, sqe::stop_log(q.id)).ok();
                w.admin(MANAGER, sqe::suspend(GUEST_ID)).ok();
                w.admin(MANAGER, sqe::resume(GUEST_ID)).ok();
                w.change_blocks(1);
            },
            &["001b", "010b"],
        ),
        (
            "suspend notification",
            |w, q| {
                w.admin(MANAGER, sqe::start_log(q.id)).ok();
                w.admin(MANAGER, sqe::notify_suspend(GUEST_ID)).ok();
                w.change_blocks(1);
            },
            &["001b", CHANGE],
        ),
        (
            "suspend by another managing controller",
            |w, q| {
                w.admin(MANAGER, sqe::start_log(q.id)).ok();
                w.admin(OTHER_MANAGER, sqe::suspend(GUEST_ID)).ok();
            },
            &["001b", "011b"],
        ),
        (
            "suspend of another controller",
            |w, q| {
                w.admin(MANAGER, sqe::start_log(q.id)).ok();
                w.admin(MANAGER, sqe::suspend(OTHER_GUEST_ID)).ok();
                w.change_blocks(1);
            },
            &["001b", CHANGE],
        ),
        (
            "resume while logging was on",
            |w, q| {
                w.admin(MANAGER, sqe::start_log(q.id)).ok();
                w.admin(MANAGER, sqe::suspend(GUEST_ID)).ok();
                w.admin(MANAGER, sqe::resume(GUEST_ID)).ok();
                w.change_blocks(1);
            },
            &["001b", "011b", "001b", CHANGE],
        ),
        (
            "suspend and delete",
            |w, q| {
                w.admin(MANAGER, sqe::start_log(q.id)).ok();
                w.admin(MANAGER, sqe::suspend_and_delete(GUEST_ID)).ok();
                assert_eq!(w.admin(MANAGER, sqe::set_head(q.id, 0)).code, INVALID_CDQ);
                w.admin(MANAGER, sqe::resume(GUEST_ID)).ok();
                w.change_blocks(1);
            },
            &["001b", "011b"],
        ),
        (
            "suspend, then suspend and delete",
            |w, q| {
                w.admin(MANAGER, sqe::start_log(q.id)).ok();
                w.admin(MANAGER, sqe::suspend(GUEST_ID)).ok();
                w.admin(MANAGER, sqe::suspend_and_delete(GUEST_ID)).ok();
                assert_eq!(w.admin(MANAGER, sqe::set_head(q.id, 0)).code, INVALID_CDQ);
            },
            &["001b", "011b"],
        ),
        (
            "delete posts nothing",
            |w, q| {
                w.admin(MANAGER, sqe::start_log(q.id)).ok();
                w.admin(MANAGER, sqe::delete_cdq(q.id)).ok();
                w.change_blocks(1);
            },
            &["001b"],
        ),
        (
            "reset of the owner posts nothing",
            |w, q| {
                w.admin(MANAGER, sqe::start_log(q.id)).ok();
                w.reset(MANAGER);
                assert_eq!(w.admin(MANAGER, sqe::set_head(q.id, 0)).code, INVALID_CDQ);
                w.change_blocks(1);
            },
            &["001b"],
        ),
    ];
    for (name, action, expected) in rows {
        for listed in [false, true] {
            let mut world = World::new();
            let mut queue = if listed {
                world.create_listed_cdq(MANAGER, GUEST_ID, 300)
            } else {
                world.create_cdq(MANAGER, GUEST_ID, 16)
            };
            world.create_pair(GUEST, 1, 16);
            action(&mut world, &mut queue);
            assert_eq!(queue.texts(), expected, "{name}, listed {listed}");
        }
    }
}

#[test]
fn a_log_stopped_during_the_suspension_does_not_start_by_itself() {
    let mut world = World::new();
    let mut queue = world.logged_guest(16);
    world.admin(MANAGER, sqe::suspend(GUEST_ID)).ok();
    world.admin(MANAGER, sqe::stop_log(queue.id)).ok();
    world.admin(MANAGER, sqe::resume(GUEST_ID)).ok();
    world.change_blocks(3);
    assert_eq!(queue.texts(), ["011b"], "no second last entry, neither a start nor a change");
}

#[test]
fn a_reset_of_the_target_keeps_queue_and_log() {
    let mut world = World::new();
    let mut queue = world.logged_guest(16);
    world.reset(GUEST);
    world.create_pair(GUEST, 1, 16);
    world.change_blocks(1);
    assert_eq!(queue.texts(), [CHANGE]);
    world.publish(&queue);
}

#[test]
fn a_reset_of_the_suspended_target_goes_on_logging_with_a_first_entry() {
    let mut world = World::new();
    let mut queue = world.logged_guest(16);
    world.admin(MANAGER, sqe::suspend(GUEST_ID)).ok();
    world.reset(GUEST);
    world.create_pair(GUEST, 1, 16);
    world.change_blocks(1);
    assert_eq!(
        queue.texts(),
        ["011b", "001b", CHANGE],
        "an ordinary entry needs a first one after a last one"
    );
}

#[test]
fn two_targets_are_logged_apart() {
    let mut world = World::new();
    let mut queue = world.logged_guest(16);
    let mut other = world.create_cdq(OTHER_MANAGER, OTHER_GUEST_ID, 16);
    world.create_pair(OTHER_GUEST, 1, 16);
    world.admin(OTHER_MANAGER, sqe::start_log(other.id)).ok();
    world.write_blocks(GUEST, NSID, 1, 1, 1);
    world.write_blocks(OTHER_GUEST, NSID, 2, 1, 1);
    world.admin(MANAGER, sqe::stop_log(queue.id)).ok();
    world.write_blocks(GUEST, NSID, 3, 1, 1);
    world.write_blocks(OTHER_GUEST, NSID, 4, 1, 1);
    assert_eq!(queue.texts(), ["000b 1:1+1", "010b"]);
    assert_eq!(other.texts(), ["001b", "000b 1:2+1", "000b 1:4+1"]);
}

#[test]
fn r9_the_suspended_marker_comes_after_every_command_that_was_fetched() {
    for (name, delete) in [("queue kept", false), ("queue deleted", true)] {
        let mut world = World::new();
        let mut queue = world.logged_guest(16);
        for index in 0..5 {
            let prps = world.hosts[GUEST].data(&[7; 512]);
            world.send(GUEST, 1, sqe::write(NSID, index * 10, 1, prps));
        }
        world.ring(GUEST, 1);
        let command = if delete { sqe::suspend_and_delete(GUEST_ID) } else { sqe::suspend(GUEST_ID) };
        let suspend = world.submit(MANAGER, 0, command);
        assert_eq!(world.subsystem.fetch(64), 6, "writes and Suspend are under way together");
        world.run();
        world.hosts[MANAGER].take(0, suspend).expect("Suspend completes").ok();
        let expected = ["000b 1:0+1", "000b 1:10+1", "000b 1:20+1", "000b 1:30+1", "000b 1:40+1", "011b"];
        assert_eq!(queue.texts(), expected, "{name}");
        assert_eq!(world.hosts[GUEST].done.len(), 5, "{name}: all fetched commands are completed");
    }
}

#[test]
fn r9_the_marker_may_come_after_the_completion_only_if_the_queue_is_kept() {
    for (name, after, delete, late) in [
        ("before, kept", false, false, false),
        ("before, deleted", false, true, false),
        ("after, kept", true, false, true),
        ("after, deleted", true, true, false),
    ] {
        let mut world = World::with(|setup| setup.config.marker_after_completion = after);
        let mut queue = world.logged_guest(16);
        let (memory, slot) = (world.memory(MANAGER), queue.slot_address(1));
        let acq = world.read64(MANAGER, ACQ);
        let marker_first = std::rc::Rc::new(std::cell::Cell::new(None));
        let seen = marker_first.clone();
        world.memory(MANAGER).watch(move |address, _| {
            if (acq..acq + 32 * 16).contains(&address) {
                seen.set(Some(memory.bytes(slot, 32)[31] & 1 == 1));
            }
        });
        let command = if delete { sqe::suspend_and_delete(GUEST_ID) } else { sqe::suspend(GUEST_ID) };
        world.admin(MANAGER, command).ok();
        assert_eq!(marker_first.get(), Some(!late), "{name}");
        assert_eq!(queue.texts(), ["011b"], "{name}: posted in the end");
    }
}

#[test]
fn r9_a_late_marker_is_posted_before_a_quick_resume() {
    let mut world = World::with(|setup| setup.config.marker_after_completion = true);
    let mut queue = world.logged_guest(16);
    world.send(MANAGER, 0, sqe::suspend(GUEST_ID));
    world.send(MANAGER, 0, sqe::resume(GUEST_ID));
    world.ring(MANAGER, 0);
    world.run();
    world.change_blocks(1);
    assert_eq!(queue.texts(), ["011b", "001b", CHANGE]);
}

#[test]
fn r9_a_late_marker_is_posted_before_a_reset_that_comes_between() {
    let mut world = World::with(|setup| {
        setup.config.marker_after_completion = true;
        let primary = ControllerId::new(MANAGER_ID);
        setup.controllers[GUEST].secondary =
            Some(SecondaryConfig { primary, virtual_function: 1, online: true });
    });
    let mut queue = world.logged_guest(16);
    world.send(MANAGER, 0, sqe::suspend(GUEST_ID));
    // Virtualization Management, Secondary Offline, resets the guest before the marker's turn.
    world.send(MANAGER, 0, sqe::Sqe::new(0x1C).dword(10, (u32::from(GUEST_ID) << 16) | 7));
    world.ring(MANAGER, 0);
    world.run();
    assert!(!world.is_ready(GUEST));
    assert_eq!(queue.texts(), ["011b", "001b"]);
}

#[test]
fn a_log_whose_first_entry_cannot_be_written_does_not_start() {
    let mut world = World::new();
    let mut queue = queued(&mut world);
    let request = world.leave(MANAGER, 0, sqe::event_request());
    world.memory(MANAGER).fail_writes(queue.slot_address(0), 32);
    assert_eq!(world.admin(MANAGER, sqe::start_log(queue.id)).code, DATA_TRANSFER_ERROR);
    assert_eq!(world.event(MANAGER, request), None, "the queue is not full");
    world.memory(MANAGER).mend();
    world.change_blocks(1);
    assert!(queue.texts().is_empty(), "nothing is logged");
    world.admin(MANAGER, sqe::start_log(queue.id)).ok();
    world.change_blocks(1);
    assert_eq!(queue.texts(), ["001b", CHANGE]);
}

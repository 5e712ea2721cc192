// SPDX-License-Identifier: MIT OR Apache-2.0
//! When the log of user data changes starts, stops, pauses and goes on. NVMe Base 2.1 §5.1.27.1.1, Log User Data
//! Changes; NVM Command Set 1.1 §5.6, User Data Migration Queue.

use nvme_controller::SecondaryConfig;
use nvme_core::wire::ControllerId;

use crate::conformance::backend::Backend;
use crate::conformance::world::cdq::Cdq;
use crate::conformance::world::sqe;
use crate::conformance::world::status::*;
use crate::conformance::world::*;

/// The text of one changed block of [`World::change_blocks`].
const CHANGE: &str = "000b 1:1000+1";

fn queued(world: &mut World) -> Cdq {
    let queue = world.create_cdq(MANAGER, GUEST_ID, 16);
    world.create_pair(GUEST, 1, 16);
    queue
}

pub(crate) fn every_check_of_log_user_data_changes_has_its_status(backend: &dyn Backend) {
    check(
        backend,
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

pub(crate) fn every_trigger_posts_its_entry(backend: &dyn Backend) {
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
            let mut world = World::new(backend);
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

pub(crate) fn a_log_stopped_during_the_suspension_does_not_start_by_itself(backend: &dyn Backend) {
    let mut world = World::new(backend);
    let mut queue = world.logged_guest(16);
    world.admin(MANAGER, sqe::suspend(GUEST_ID)).ok();
    world.admin(MANAGER, sqe::stop_log(queue.id)).ok();
    world.admin(MANAGER, sqe::resume(GUEST_ID)).ok();
    world.change_blocks(3);
    assert_eq!(queue.texts(), ["011b"], "no second last entry, neither a start nor a change");
}

pub(crate) fn a_reset_of_the_target_keeps_queue_and_log(backend: &dyn Backend) {
    let mut world = World::new(backend);
    let mut queue = world.logged_guest(16);
    world.reset(GUEST);
    world.create_pair(GUEST, 1, 16);
    world.change_blocks(1);
    assert_eq!(queue.texts(), [CHANGE]);
    world.publish(&queue);
}

pub(crate) fn a_reset_of_the_suspended_target_goes_on_logging_with_a_first_entry(backend: &dyn Backend) {
    let mut world = World::new(backend);
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

pub(crate) fn two_targets_are_logged_apart(backend: &dyn Backend) {
    let mut world = World::new(backend);
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

pub(crate) fn r9_a_late_marker_is_posted_before_a_quick_resume(backend: &dyn Backend) {
    let mut world = World::with(backend, |setup| setup.config.marker_after_completion = true);
    let mut queue = world.logged_guest(16);
    world.send(MANAGER, 0, sqe::suspend(GUEST_ID));
    world.send(MANAGER, 0, sqe::resume(GUEST_ID));
    world.ring(MANAGER, 0);
    world.run();
    world.change_blocks(1);
    assert_eq!(queue.texts(), ["011b", "001b", CHANGE]);
}

pub(crate) fn r9_a_late_marker_is_posted_before_a_reset_that_comes_between(backend: &dyn Backend) {
    let mut world = World::with(backend, |setup| {
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

// SPDX-License-Identifier: MIT OR Apache-2.0
//! When the log of user data changes starts, stops, pauses and goes on. NVMe Base 2.1 §5.1.27.1.1, Log User Data
//! Changes; NVM Command Set 1.1 §5.6, User Data Migration Queue.

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

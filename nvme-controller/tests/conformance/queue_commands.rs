// SPDX-License-Identifier: MIT OR Apache-2.0
//! Creating and deleting I/O queues: every check, and queues of every kind at work. NVMe Base 2.1 §5.2.1 to §5.2.4.

use crate::harness::sqe;
use crate::harness::status::*;
use crate::harness::*;

#[test]
fn deletion_completes_after_every_command_of_the_queue() {
    let mut world = World::new();
    world.create_pair(GUEST, 1, 16);
    let commands: Vec<u16> = (0..6).map(|_| world.send(GUEST, 1, sqe::flush(NSID))).collect();
    world.ring(GUEST, 1);
    world.subsystem.fetch(4);
    let delete = world.submit(GUEST, 0, sqe::delete_sq(1));
    world.run();
    world.hosts[GUEST].take(0, delete).expect("completes").ok();
    let mut open = 0;
    for command in commands {
        match world.hosts[GUEST].take(1, command) {
            Some(done) => assert!(matches!(done.code, SUCCESS | ABORTED_SQ_DELETION), "{done:?}"),
            None => open += 1,
        }
    }
    assert!(open <= 2, "only commands that were never fetched may stay without a completion: {open}");
    let accesses = world.memory(GUEST).device_accesses();
    world.settle();
    assert_eq!(world.memory(GUEST).device_accesses(), accesses, "the queue's memory is the host's again");
    world.admin(GUEST, sqe::delete_cq(1)).ok();
    world.create_pair(GUEST, 1, 16);
    world.exec(GUEST, 1, sqe::flush(NSID)).ok();
}

#[test]
fn a_command_identifier_in_use_is_refused() {
    let mut world = World::new();
    world.create_pair(GUEST, 1, 16);
    world.send_as(GUEST, 1, sqe::flush(NSID), 0x55);
    world.send_as(GUEST, 1, sqe::flush(NSID), 0x55);
    world.ring(GUEST, 1);
    world.subsystem.fetch(64);
    world.run();
    let mut codes: Vec<_> = world.hosts[GUEST].done.iter().map(|done| done.code).collect();
    codes.sort_by_key(|code| (code.0, code.1));
    assert_eq!(codes, [SUCCESS, COMMAND_ID_CONFLICT]);
    world.hosts[GUEST].done.clear();
    // The same identifier on two queues is none of each other's business.
    world.create_pair(GUEST, 2, 16);
    world.send_as(GUEST, 1, sqe::flush(NSID), 0x66);
    world.send_as(GUEST, 2, sqe::flush(NSID), 0x66);
    world.ring(GUEST, 1);
    world.ring(GUEST, 2);
    world.subsystem.fetch(64);
    world.run();
    assert!(world.hosts[GUEST].done.iter().all(|done| done.code == SUCCESS));
}

#[test]
fn several_queues_take_turns() {
    let mut world = World::new();
    world.create_completion(GUEST, 1, 128, 1);
    for queue in 1..=3 {
        world.create_submission(GUEST, queue, 1, 64);
        for _ in 0..60 {
            world.send(GUEST, queue, sqe::flush(NSID));
        }
        world.ring(GUEST, queue);
    }
    world.subsystem.poll(30);
    world.harvest(GUEST, 1);
    for queue in 1..=3 {
        let done = world.hosts[GUEST].done.iter().filter(|done| done.queue == queue).count();
        assert!(done > 0, "queue {queue} does not starve");
    }
}

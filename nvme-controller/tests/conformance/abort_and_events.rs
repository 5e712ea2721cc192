// SPDX-License-Identifier: MIT OR Apache-2.0
//! Abort and Asynchronous Event Request. NVMe Base 2.1 §5.1.1 and §5.1.2.

use crate::harness::sqe;
use crate::harness::status::*;
use crate::harness::*;

fn wrong_register(world: &mut World) {
    world.write32(GUEST, 0x1000 + 8 * 5, 1);
}

#[test]
fn a_fetched_command_is_aborted_or_completes_but_never_both() {
    let mut world = World::new();
    world.create_pair(GUEST, 1, 16);
    let commands: Vec<u16> = (0..4).map(|_| world.send(GUEST, 1, sqe::flush(NSID))).collect();
    world.ring(GUEST, 1);
    let abort = world.submit(GUEST, 0, sqe::abort(1, commands[3]));
    world.subsystem.fetch(64);
    world.run();
    let aborted = world.hosts[GUEST].take(0, abort).expect("completes").ok().dword0 == 0;
    for command in &commands[..3] {
        world.hosts[GUEST].take(1, *command).expect("completes").ok();
    }
    assert!(aborted, "it had not begun when its Abort was executed");
    let last = world.hosts[GUEST].take(1, commands[3]).expect("completes");
    assert_eq!(last.code, if aborted { ABORT_REQUESTED } else { SUCCESS });
    assert!(world.hosts[GUEST].done.is_empty());
}

#[test]
fn more_aborts_than_the_limit_are_refused() {
    let mut world = World::with(|setup| setup.config.abort_limit = 2);
    let commands: Vec<u16> = (0..5).map(|_| world.send(GUEST, 0, sqe::abort(1, 1))).collect();
    world.ring(GUEST, 0);
    world.subsystem.fetch(64);
    world.run();
    let codes: Vec<Code> =
        commands.iter().map(|command| world.hosts[GUEST].take(0, *command).unwrap().code).collect();
    let refused = codes.iter().filter(|code| **code == ABORT_LIMIT).count();
    assert_eq!(refused, 3, "two of five that are outstanding together: {codes:?}");
    assert!(codes.iter().all(|code| matches!(*code, SUCCESS | ABORT_LIMIT)), "{codes:?}");
    world.admin(GUEST, sqe::abort(1, 1)).ok();
}

#[test]
fn a_reset_drops_requests_without_a_completion() {
    let mut world = World::new();
    let request = world.leave(GUEST, 0, sqe::event_request());
    let writes = world.memory(GUEST).device_accesses().1;
    world.disable(GUEST);
    assert_eq!(world.memory(GUEST).device_accesses().1, writes);
    world.enable(GUEST);
    wrong_register(&mut world);
    world.run();
    assert_eq!(world.hosts[GUEST].take(0, request), None);
    assert!(world.hosts[GUEST].done.is_empty());
}

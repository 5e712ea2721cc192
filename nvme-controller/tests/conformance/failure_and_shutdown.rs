// SPDX-License-Identifier: MIT OR Apache-2.0
//! What a controller does no more once it has failed or is being shut down. NVMe Base 2.1 §3.6, Shutdown, and §9.5,
//! Controller Fatal Status Condition.

use crate::harness::sqe::{self, Sqe};
use crate::harness::status::*;
use crate::harness::*;

/// CC with a normal shutdown notification.
const SHUT_DOWN: u32 = ENABLE | (1 << 14);
/// CSTS.SHST.
const SHUTDOWN_STATUS: u32 = 3 << 2;
const IN_PROGRESS: u32 = 1 << 2;
const COMPLETE: u32 = 2 << 2;

/// Takes the memory of a queue away.
fn unmap(world: &mut World, address: u64) {
    world.memory(GUEST).unmap(address, 4096);
}

#[test]
fn a_failed_controller_executes_nothing_that_was_fetched() {
    type Break = fn(&mut World);
    let rows: [(&str, Break); 4] = [
        ("an I/O submission queue that cannot be read", |w| {
            w.send(GUEST, 1, sqe::flush(NSID));
            unmap(w, w.hosts[GUEST].submission[&1].area.at(0));
        }),
        ("the admin submission queue cannot be read", |w| {
            w.send(GUEST, 0, sqe::get_features(0x01, 0));
            unmap(w, w.hosts[GUEST].submission[&0].area.at(0));
        }),
        ("a command identifier in use, and no way to say so", |w| {
            w.send_as(GUEST, 1, sqe::flush(NSID), 5);
            w.send_as(GUEST, 1, sqe::flush(NSID), 5);
            unmap(w, w.hosts[GUEST].completion[&1].area.at(0));
        }),
        ("the same with the first half of a fused pair", |w| {
            w.send_as(GUEST, 1, sqe::flush(NSID), 5);
            w.send_as(GUEST, 1, sqe::compare(NSID, 9, 1, (0, 0)).or(0, 1 << 8), 5);
            w.send_as(GUEST, 1, sqe::write_zeroes(NSID, 9, 1).or(0, 2 << 8), 6);
            unmap(w, w.hosts[GUEST].completion[&1].area.at(0));
        }),
    ];
    // More than one queue may have at a time, so that the failure comes before some of them whoever is first.
    const WRITES: u64 = 12;
    for (name, break_it) in rows {
        for turns in 0..3 {
            let mut world = World::new();
            world.create_pair(GUEST, 1, 16);
            world.create_pair(GUEST, 2, 32);
            world.budget = 1;
            for _ in 0..turns {
                world.exec(GUEST, 2, sqe::flush(NSID)).ok();
            }
            world.budget = 64;
            break_it(&mut world);
            for lba in 100..100 + WRITES {
                let prps = world.hosts[GUEST].data(&[0xEE; 512]);
                world.send(GUEST, 2, sqe::write(NSID, lba, 1, prps));
            }
            for queue in [0, 1, 2] {
                let known = &world.hosts[GUEST].submission[&queue];
                if known.tail != known.head {
                    world.ring(GUEST, queue);
                }
            }
            world.subsystem.fetch(64);
            assert!(world.is_fatal(GUEST), "{name}, turn {turns}");
            let accesses = world.memory(GUEST).device_accesses();
            world.settle();
            assert_eq!(world.memory(GUEST).device_accesses(), accesses, "{name}, turn {turns}: silent");
            let changed = (100..100 + WRITES).filter(|lba| world.disk(NSID).block(*lba)[0] != 0).count();
            assert_eq!(changed, 0, "{name}, turn {turns}");
            world.admin(OTHER_GUEST, sqe::get_features(0x01, 0)).ok();
            world.reset(GUEST);
        }
    }
}

#[test]
fn a_keep_alive_timer_ends_with_a_shutdown() {
    type Prepare = fn(&mut World);
    let rows: [(&str, Prepare, bool); 4] = [
        ("no shutdown", |_| {}, true),
        ("begun", |w| w.write32(GUEST, CC, SHUT_DOWN), false),
        (
            "complete",
            |w| {
                w.write32(GUEST, CC, SHUT_DOWN);
                w.settle();
            },
            false,
        ),
        ("abrupt", |w| w.write32(GUEST, CC, ENABLE | (2 << 14)), false),
    ];
    for (name, prepare, expires) in rows {
        let mut world = World::with(|setup| setup.config.keep_alive_granularity = 1);
        world.admin(GUEST, sqe::set_features(0x0F, 1000)).ok();
        prepare(&mut world);
        world.subsystem.advance(9_000_000);
        world.settle();
        assert_eq!(world.is_fatal(GUEST), expires, "{name}");
    }
}

#[test]
fn a_suspended_controller_shuts_down_once_it_runs() {
    for (name, notification, flushed) in [("normal", 1, 1), ("abrupt", 2, 0)] {
        let mut world = World::new();
        world.admin(MANAGER, sqe::suspend(GUEST_ID)).ok();
        let flushes = world.disk(NSID).flushes();
        world.write32(GUEST, CC, ENABLE | (notification << 14));
        world.settle();
        assert_eq!(world.read32(GUEST, CSTS) & SHUTDOWN_STATUS, IN_PROGRESS, "{name}: suspended");
        assert_eq!(world.disk(NSID).flushes(), flushes, "{name}: suspended");
        world.admin(MANAGER, sqe::resume(GUEST_ID)).ok();
        world.settle();
        assert_eq!(world.read32(GUEST, CSTS) & SHUTDOWN_STATUS, COMPLETE, "{name}: resumed");
        assert_eq!(world.disk(NSID).flushes(), flushes + flushed, "{name}: resumed");
    }
}

#[test]
fn nothing_is_logged_to_a_manager_that_shut_down_or_failed() {
    type Prepare = fn(&mut World);
    let rows: [(&str, Prepare); 2] = [
        ("shut down", |w| {
            w.write32(MANAGER, CC, SHUT_DOWN);
            w.settle();
        }),
        ("failed", |w| {
            w.send(MANAGER, 0, sqe::get_features(0x01, 0));
            let queue = w.hosts[MANAGER].submission[&0].area.at(0);
            w.memory(MANAGER).unmap(queue, 4096);
            w.ring(MANAGER, 0);
            w.settle();
        }),
    ];
    for (name, prepare) in rows {
        let mut world = World::new();
        let mut queue = world.logged_guest(64);
        world.change_blocks(1);
        assert_eq!(queue.take().len(), 1, "{name}: logged before");
        prepare(&mut world);
        let accesses = world.memory(MANAGER).device_accesses();
        world.change_blocks(3);
        assert_eq!(world.memory(MANAGER).device_accesses(), accesses, "{name}");
        assert_eq!(queue.texts(), [""; 0], "{name}");
        // The guest does not suffer from it.
        world.exec(GUEST, 1, sqe::flush(NSID)).ok();
    }
}

/// Number and command identifier of the entries of the Error Information log, newest first.
fn errors(world: &mut World) -> Vec<(u64, u16)> {
    let (address, prps) = world.hosts[GUEST].buffer(8 * 64);
    world.admin(GUEST, sqe::get_log(0x01, 0, 8 * 64, prps)).ok();
    let bytes = world.memory(GUEST).bytes(address, 8 * 64);
    let entries = bytes.chunks_exact(64).map(|entry| {
        let count = u64::from_le_bytes(entry[0..8].try_into().unwrap());
        (count, u16::from_le_bytes(entry[10..12].try_into().unwrap()))
    });
    entries.filter(|(count, _)| *count != 0).collect()
}

fn provoke(world: &mut World, id: u16) {
    world.send_as(GUEST, 0, Sqe::new(0xFF), id);
    world.ring(GUEST, 0);
    world.run();
    assert_eq!(world.hosts[GUEST].take(0, id).expect("completes").code, INVALID_OPCODE);
}

#[test]
fn errors_end_with_their_host() {
    let mut world = World::new();
    provoke(&mut world, 0x77);
    provoke(&mut world, 0x78);
    assert_eq!(errors(&mut world), [(2, 0x78), (1, 0x77)]);
    world.reset(GUEST);
    assert_eq!(errors(&mut world), [], "a reset removes the entries");
    provoke(&mut world, 0x79);
    assert_eq!(errors(&mut world), [(3, 0x79)], "the count goes on");

    // A state of another host takes the controller over.
    let mut source = World::new();
    source.admin(MANAGER, sqe::suspend(GUEST_ID)).ok();
    let image = source.get_image(MANAGER, GUEST_ID, (1, 1));
    let mut target = World::with(|setup| setup.memories[GUEST] = source.memory(GUEST));
    provoke(&mut target, 0x55);
    target.admin(MANAGER, sqe::suspend(GUEST_ID)).ok();
    target.set_image(MANAGER, GUEST_ID, (1, 1), &image).ok();
    target.admin(MANAGER, sqe::resume(GUEST_ID)).ok();
    target.hosts[GUEST] = source.hosts[GUEST].clone();
    assert_eq!(errors(&mut target), [], "not for the host that moved in");
}

#[test]
fn a_fused_pair_never_stalls_its_queue() {
    for (name, entries, codes) in [
        ("no room for two completions, ever", 2, [ABORTED_MISSING_FUSED, ABORTED_MISSING_FUSED]),
        ("room for two", 3, [SUCCESS, SUCCESS]),
    ] {
        let mut world = World::new();
        world.create_completion(GUEST, 1, entries, 1);
        world.create_submission(GUEST, 1, 1, 16);
        let (old, new) = (world.hosts[GUEST].data(&[0; 512]), world.hosts[GUEST].data(&[0x33; 512]));
        let first = world.send(GUEST, 1, sqe::compare(NSID, 4, 1, old).or(0, 1 << 8));
        let second = world.send(GUEST, 1, sqe::write(NSID, 4, 1, new).or(0, 2 << 8));
        let third = world.submit(GUEST, 1, sqe::flush(NSID));
        world.run();
        let found = [first, second, third].map(|command| world.hosts[GUEST].take(1, command));
        let found = found.map(|done| done.map(|done| done.code));
        assert_eq!(found, [Some(codes[0]), Some(codes[1]), Some(SUCCESS)], "{name}");
        let expected = if codes[1] == SUCCESS { 0x33 } else { 0 };
        assert_eq!(world.disk(NSID).block(4)[0], expected, "{name}: both or neither");
    }
}

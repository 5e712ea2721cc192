// SPDX-License-Identifier: MIT OR Apache-2.0
//! What resets leave and what they take, migrations included. NVMe Base 2.1 §3.7, Resets, and §8.1.12.

use crate::harness::sqe;
use crate::harness::*;

const SUBSYSTEM_RESET: u32 = 0x4E56_4D65;

fn read_of(world: &World, host: usize) -> sqe::Sqe {
    sqe::read(NSID, 0, 1, world.hosts[host].buffer(512).1)
}

type Reset = fn(&mut World, usize);

/// The ways a controller can be reset, with whether its admin queue registers stay.
const RESETS: [(&str, Reset, bool); 3] = [
    ("Controller Reset", |world, host| world.disable(host), true),
    ("reset from outside", World::function_level_reset, false),
    ("subsystem reset", |world, _| world.write32(MANAGER, NSSR, SUBSYSTEM_RESET), false),
];

#[test]
fn a_reset_deletes_queues_and_drops_what_was_outstanding() {
    for (name, reset, _) in RESETS {
        let mut world = World::new();
        world.create_pair(GUEST, 1, 16);
        let request = world.leave(GUEST, 0, sqe::event_request());
        let read = read_of(&world, GUEST);
        let command = world.submit(GUEST, 1, read);
        world.subsystem.fetch(64);
        let (_, writes) = world.memory(GUEST).device_accesses();
        reset(&mut world, GUEST);
        world.settle();
        assert!(!world.is_ready(GUEST), "{name}");
        assert_eq!(world.memory(GUEST).device_accesses().1, writes, "{name}: no completion is written");
        let old = world.hosts[GUEST].clone();
        world.enable(GUEST);
        assert!(world.hosts[GUEST].done.is_empty());
        // The old queues are gone: their doorbells do not exist.
        let events = world.leave(GUEST, 0, sqe::event_request());
        world.hosts[GUEST].submission.insert(1, old.submission[&1].clone());
        world.ring(GUEST, 1);
        assert_eq!(world.event(GUEST, events), Some((0x0001_0000, 0)), "{name}: invalid doorbell register");
        assert_eq!(world.hosts[GUEST].take(0, request), None);
        assert_eq!(world.hosts[GUEST].take(1, command), None);
        world.create_pair(GUEST, 1, 16);
    }
}

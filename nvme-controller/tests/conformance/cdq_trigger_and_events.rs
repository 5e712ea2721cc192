// SPDX-License-Identifier: MIT OR Apache-2.0
//! Tail pointer trigger, one-shot events and the phase tag. NVMe Base 2.1 §8.1.6, Controller Data Queues, and §5.1.2,
//! Asynchronous Event Request command.

use crate::harness::cdq::Cdq;
use crate::harness::sqe;
use crate::harness::*;

/// Dword 0 of a tail pointer event and of a full event: type 4 in bits 2:0, information in bits 15:8.
const TAIL: u32 = 0x0004;
const FULL: u32 = 0x0104;

fn request(world: &mut World) -> u16 {
    world.leave(MANAGER, 0, sqe::event_request())
}

fn arm(world: &mut World, queue: &Cdq, trigger: u32) {
    world.admin(MANAGER, sqe::set_head_and_trigger(queue.id, queue.head, trigger)).ok();
}

fn tail_event(queue: &Cdq) -> Option<(u32, u32)> {
    Some((TAIL, u32::from(queue.id)))
}

fn full_event(queue: &Cdq) -> Option<(u32, u32)> {
    Some((FULL, u32::from(queue.id)))
}

#[test]
fn the_entry_is_in_memory_before_its_event() {
    let mut world = World::new();
    let queue = world.logged_guest(8);
    let request = request(&mut world);
    arm(&mut world, &queue, 1);
    let (memory, slot) = (world.memory(MANAGER), queue.slot_address(1));
    let acq = world.read64(MANAGER, ACQ);
    let seen = std::rc::Rc::new(std::cell::Cell::new(0));
    let count = seen.clone();
    world.memory(MANAGER).watch(move |address, entry| {
        if (acq..acq + 32 * 16).contains(&address) && entry[0] == 4 {
            assert_eq!(memory.bytes(slot, 32)[31] & 1, 1, "the event overtook the entry");
            count.set(count.get() + 1);
        }
    });
    world.change_blocks(1);
    assert_eq!(world.event(MANAGER, request), tail_event(&queue));
    assert_eq!(seen.get(), 1);
}

#[test]
fn an_entry_that_cannot_be_written_moves_neither_tail_nor_phase() {
    for (name, position) in
        [("in the middle", 3_u32), ("in the last slot", 7), ("in the first slot of a lap", 8)]
    {
        let mut world = World::new();
        let mut queue = world.logged_guest(8);
        for _ in 1..position {
            world.change_blocks(1);
            queue.take();
            world.publish(&queue);
        }
        let before = queue.slot(position % 8);
        world.memory(MANAGER).fail_writes(queue.slot_address(position % 8), 32);
        let request = request(&mut world);
        world.change_blocks(1);
        assert_eq!(queue.slot(position % 8), before, "{name}");
        assert_eq!(
            world.event(MANAGER, request),
            full_event(&queue),
            "{name}: a change was lost, the host is told"
        );
        world.memory(MANAGER).mend();
        world.change_blocks(1);
        assert_eq!(
            queue.texts(),
            Vec::<String>::new(),
            "{name}: no entry after a lost one without a new start"
        );
        world.admin(MANAGER, sqe::start_log(queue.id)).ok();
        world.change_blocks(1);
        assert_eq!(queue.texts(), ["001b", "000b 1:1000+1"], "{name}: in the slot that was missed");
        assert!(!world.is_fatal(MANAGER) && !world.is_fatal(GUEST), "{name}");
    }
}

/// The queue number of the event that a new request is answered with, if any.
fn next_event(world: &mut World) -> Option<(u32, u32)> {
    let request = world.submit(MANAGER, 0, sqe::event_request());
    world.event(MANAGER, request)
}

#[test]
fn events_of_several_queues_take_turns() {
    let mut world = World::new();
    let first = world.create_cdq(MANAGER, GUEST_ID, 64);
    let second = world.create_cdq(MANAGER, OTHER_GUEST_ID, 64);
    for (host, queue) in [(GUEST, &first), (OTHER_GUEST, &second)] {
        world.create_pair(host, 1, 64);
        world.admin(MANAGER, sqe::start_log(queue.id)).ok();
    }
    // Both have an event all the time.
    let mut tails = [1, 1];
    let mut fire = |world: &mut World, at: usize| {
        let (host, queue) = [(GUEST, &first), (OTHER_GUEST, &second)][at];
        world.admin(MANAGER, sqe::set_head_and_trigger(queue.id, 0, tails[at])).ok();
        world.write_blocks(host, NSID, u64::from(tails[at]), 1, 1);
        tails[at] += 1;
    };
    fire(&mut world, 0);
    fire(&mut world, 1);
    let mut found = Vec::new();
    for _ in 0..6 {
        let (dword0, id) = next_event(&mut world).expect("an event waits");
        assert_eq!(dword0, TAIL);
        found.push(id);
        fire(&mut world, usize::from(id == u32::from(second.id)));
    }
    for pair in found.windows(2) {
        assert_ne!(pair[0], pair[1], "in turn: {found:?}");
    }
}

#[test]
fn a_full_event_does_not_outlive_the_log_it_speaks_of() {
    let mut world = World::new();
    let mut queue = world.logged_guest(4);
    world.change_blocks(3);
    assert_eq!(queue.take().len(), 3);
    world.publish(&queue);
    world.admin(MANAGER, sqe::start_log(queue.id)).ok();
    let request = request(&mut world);
    assert_eq!(world.event(MANAGER, request), None, "the log was started since");
    world.change_blocks(2);
    assert_eq!(world.event(MANAGER, request), full_event(&queue), "and is full again");
}

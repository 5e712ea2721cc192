// SPDX-License-Identifier: MIT OR Apache-2.0
//! Tail pointer trigger, one-shot events and the phase tag. NVMe Base 2.1 §8.1.6, Controller Data Queues, and §5.1.2,
//! Asynchronous Event Request command.

use crate::harness::cdq::Cdq;
use crate::harness::sqe;
use crate::harness::status::*;
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
fn the_trigger_fires_when_its_slot_is_filled() {
    // Tail is 1; the row says after how many entries the event is there.
    for (name, trigger, entries) in [
        ("the very next slot", 1, 1),
        ("two slots on", 3, 3),
        ("the last slot", 7, 7),
        ("slot 0 of the next lap", 0, 8),
    ] {
        let mut world = World::new();
        let mut queue = world.logged_guest(8);
        let request = request(&mut world);
        arm(&mut world, &queue, trigger);
        for count in 1..=entries {
            assert_eq!(world.event(MANAGER, request), None, "{name}: {} entries", count - 1);
            world.change_blocks(1);
            if count < entries {
                // Keeps the queue from filling without touching the trigger's slot.
                queue.take();
                arm(&mut world, &queue, trigger);
            }
        }
        assert_eq!(world.event(MANAGER, request), tail_event(&queue), "{name}");
        let last = queue.slot(trigger);
        assert_eq!(u8::from(trigger != 0), last[31] & 1, "{name}: the slot of the trigger is valid");
    }
}

#[test]
fn a_trigger_behind_the_tail_waits_for_the_next_lap() {
    let mut world = World::new();
    let mut queue = world.logged_guest(8);
    world.change_blocks(4);
    let request = request(&mut world);
    arm(&mut world, &queue, 2);
    assert_eq!(world.event(MANAGER, request), None, "slot 2 was filled before the trigger was armed");
    for _ in 5..10 {
        queue.take();
        arm(&mut world, &queue, 2);
        world.change_blocks(1);
        assert_eq!(world.event(MANAGER, request), None);
    }
    world.change_blocks(1);
    assert_eq!(world.event(MANAGER, request), tail_event(&queue));
}

#[test]
fn the_trigger_fires_once() {
    let mut world = World::new();
    let mut queue = world.logged_guest(4);
    let first = request(&mut world);
    arm(&mut world, &queue, 1);
    world.change_blocks(1);
    assert_eq!(world.event(MANAGER, first), tail_event(&queue));
    let buffer = world.hosts[MANAGER].allocate(512);
    let state = world.admin(MANAGER, sqe::get_head(queue.id, buffer)).ok();
    assert_eq!(state.dword0 >> 31, 0, "the enable bit cleared itself");
    assert_eq!(world.memory(MANAGER).word(buffer + 4), 0, "TPT reads zero");
    let second = request(&mut world);
    for _ in 0..9 {
        queue.take();
        world.publish(&queue);
        world.change_blocks(1);
    }
    assert_eq!(world.event(MANAGER, second), None, "two laps later nothing more came");
    arm(&mut world, &queue, (queue.head + 1) % 4);
    world.change_blocks(1);
    assert_eq!(world.event(MANAGER, second), tail_event(&queue), "armed again it fires again");
}

#[test]
fn disarming_and_deleting_prevent_the_event() {
    for (name, action) in [
        ("Set with ETPT=0", (|world, queue| world.publish(queue)) as fn(&mut World, &Cdq)),
        ("Set with another trigger", |world, queue| arm(world, queue, 6)),
        ("Delete", |world, queue| {
            world.admin(MANAGER, sqe::delete_cdq(queue.id)).ok();
        }),
    ] {
        let mut world = World::new();
        let queue = world.logged_guest(8);
        arm(&mut world, &queue, 1);
        action(&mut world, &queue);
        let request = request(&mut world);
        world.change_blocks(3);
        assert_eq!(world.event(MANAGER, request), None, "{name}");
    }
}

#[test]
fn what_becomes_of_an_event_nobody_asked_for_yet() {
    type Action = fn(&mut World, &mut Cdq);
    let rows: [(&str, Action, bool); 9] = [
        ("it waits for a request", |_, _| {}, true),
        ("Set of the queue discards it", |world, queue| world.publish(queue), false),
        (
            "Set that moves the head discards it",
            |world, queue| {
                queue.take();
                world.publish(queue);
            },
            false,
        ),
        (
            "Set that is refused does not",
            |world, queue| {
                let refused = world.admin(MANAGER, sqe::set_head(queue.id, 7));
                assert_eq!(refused.code, INVALID_FIELD);
            },
            true,
        ),
        (
            "Get does not",
            |world, queue| {
                let buffer = world.hosts[MANAGER].allocate(512);
                world.admin(MANAGER, sqe::get_head(queue.id, buffer)).ok();
            },
            true,
        ),
        (
            "Set of another queue does not",
            |world, _| {
                let other = world.create_cdq(MANAGER, OTHER_GUEST_ID, 8);
                world.publish(&other);
            },
            true,
        ),
        (
            "Delete discards it",
            |world, queue| {
                world.admin(MANAGER, sqe::delete_cdq(queue.id)).ok();
            },
            false,
        ),
        ("a reset of the owner discards it", |world, _| world.reset(MANAGER), false),
        ("a reset of the target does not", |world, _| world.reset(GUEST), true),
    ];
    for (name, action, stays) in rows {
        let mut world = World::new();
        let mut queue = world.logged_guest(8);
        arm(&mut world, &queue, 1);
        world.change_blocks(1);
        action(&mut world, &mut queue);
        let request = request_or_event(&mut world);
        let expected = if stays { tail_event(&queue) } else { None };
        assert_eq!(request, expected, "{name}");
    }
}

/// Submits a request and returns its event if one comes at once.
fn request_or_event(world: &mut World) -> Option<(u32, u32)> {
    let request = world.submit(MANAGER, 0, sqe::event_request());
    world.event(MANAGER, request)
}

#[test]
fn the_full_event_is_always_enabled() {
    let mut world = World::new();
    let queue = world.logged_guest(4);
    let request = request(&mut world);
    world.change_blocks(2);
    assert_eq!(world.event(MANAGER, request), None);
    world.change_blocks(1);
    assert_eq!(world.event(MANAGER, request), full_event(&queue));
}

#[test]
fn both_events_of_a_queue_and_events_of_two_queues_are_all_reported() {
    let mut world = World::new();
    let queue = world.logged_guest(4);
    let mut other = world.create_cdq(MANAGER, OTHER_GUEST_ID, 3);
    world.create_pair(OTHER_GUEST, 1, 16);
    world.admin(MANAGER, sqe::start_log(other.id)).ok();
    other.take();
    arm(&mut world, &other, 1);
    arm(&mut world, &queue, 3);
    world.change_blocks(3);
    world.write_blocks(OTHER_GUEST, NSID, 0, 1, 1);
    let mut events: Vec<_> = std::iter::from_fn(|| request_or_event(&mut world)).collect();
    events.sort_unstable();
    let mut expected =
        [tail_event(&queue), full_event(&queue), tail_event(&other)].map(Option::unwrap).to_vec();
    expected.sort_unstable();
    assert_eq!(events, expected);
}

#[test]
fn events_go_to_the_owner_alone() {
    let mut world = World::new();
    let queue = world.logged_guest(8);
    let bystanders: Vec<_> = [OTHER_MANAGER, GUEST, OTHER_GUEST]
        .map(|host| (host, world.leave(host, 0, sqe::event_request())))
        .into();
    arm(&mut world, &queue, 1);
    world.change_blocks(7);
    for (host, request) in bystanders {
        assert_eq!(world.event(host, request), None, "controller {host}");
    }
    assert_eq!(request_or_event(&mut world), tail_event(&queue));
    assert_eq!(request_or_event(&mut world), full_event(&queue));
}

#[test]
fn an_event_that_waits_is_not_given_to_the_next_controller_that_asks() {
    let mut world = World::new();
    let queue = world.logged_guest(8);
    arm(&mut world, &queue, 1);
    world.change_blocks(1);
    for host in [OTHER_MANAGER, GUEST, OTHER_GUEST] {
        world.leave(host, 0, sqe::event_request());
    }
    assert_eq!(request_or_event(&mut world), tail_event(&queue), "it waited for its owner");
}

#[test]
fn one_shot_events_are_not_masked() {
    let mut world = World::new();
    let mut queue = world.logged_guest(8);
    world.admin(MANAGER, sqe::set_features(0x0B, 0)).ok();
    for round in 0..5 {
        let request = request(&mut world);
        queue.take();
        let trigger = queue.head;
        arm(&mut world, &queue, trigger);
        world.change_blocks(1);
        assert_eq!(world.event(MANAGER, request), tail_event(&queue), "event {round}");
    }
}

#[test]
fn a_full_admin_completion_queue_delays_the_event_and_loses_none() {
    let mut world = World::with(|setup| setup.admin_entries = 4);
    let mut queue = world.logged_guest(8);
    let request = request(&mut world);
    arm(&mut world, &queue, 1);
    world.hosts[MANAGER].held.insert(0);
    for _ in 0..3 {
        // Three unread completions fill the four slots.
        world.submit(MANAGER, 0, sqe::set_features(0x0B, 0));
        world.run();
        world.hosts[MANAGER].submission.get_mut(&0).unwrap().head += 1;
        world.hosts[MANAGER].submission.get_mut(&0).unwrap().head %= 4;
    }
    world.change_blocks(1);
    assert_eq!(queue.take().len(), 1, "the entry itself is not delayed");
    assert_eq!(world.event(MANAGER, request), None);
    world.hosts[MANAGER].held.clear();
    assert_eq!(world.event(MANAGER, request), tail_event(&queue));
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
fn the_phase_tag_is_one_in_the_first_lap_and_inverts_at_every_wrap() {
    for size in [3, 4, 5, 8] {
        let mut world = World::new();
        let mut queue = world.logged_guest(size);
        for position in 1..4 * size {
            let (slot, lap) = (position % size, position / size);
            let before: Vec<_> = (0..size).map(|slot| queue.slot(slot)).collect();
            world.change_blocks(1);
            for other in (0..size).filter(|other| *other != slot) {
                assert_eq!(
                    queue.slot(other),
                    before[other as usize],
                    "slot {other} of {size} is not touched"
                );
            }
            let tag = u32::from(queue.slot(slot)[31] & 1);
            assert_eq!(tag, (lap + 1) % 2, "slot {slot} of {size}, lap {lap}");
            assert_eq!(queue.take().len(), 1);
            world.publish(&queue);
        }
    }
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

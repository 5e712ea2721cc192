// SPDX-License-Identifier: MIT OR Apache-2.0
//! Tail pointer trigger, one-shot events and the phase tag. NVMe Base 2.1 §8.1.6, Controller Data Queues, and §5.1.2,
//! Asynchronous Event Request command.

use crate::conformance::backend::Backend;
use crate::conformance::world::cdq::Cdq;
use crate::conformance::world::sqe;
use crate::conformance::world::status::*;
use crate::conformance::world::*;

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

pub(crate) fn the_trigger_fires_when_its_slot_is_filled(backend: &dyn Backend) {
    // Tail is 1; the row says after how many entries the event is there.
    for (name, trigger, entries) in [
        ("the very next slot", 1, 1),
        ("two slots on", 3, 3),
        ("the last slot", 7, 7),
        ("slot 0 of the next lap", 0, 8),
    ] {
        let mut world = World::new(backend);
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

pub(crate) fn a_trigger_behind_the_tail_waits_for_the_next_lap(backend: &dyn Backend) {
    let mut world = World::new(backend);
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

pub(crate) fn the_trigger_fires_once(backend: &dyn Backend) {
    let mut world = World::new(backend);
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

pub(crate) fn disarming_and_deleting_prevent_the_event(backend: &dyn Backend) {
    for (name, action) in [
        ("Set with ETPT=0", (|world, queue| world.publish(queue)) as fn(&mut World, &Cdq)),
        ("Set with another trigger", |world, queue| arm(world, queue, 6)),
        ("Delete", |world, queue| {
            world.admin(MANAGER, sqe::delete_cdq(queue.id)).ok();
        }),
    ] {
        let mut world = World::new(backend);
        let queue = world.logged_guest(8);
        arm(&mut world, &queue, 1);
        action(&mut world, &queue);
        let request = request(&mut world);
        world.change_blocks(3);
        assert_eq!(world.event(MANAGER, request), None, "{name}");
    }
}

pub(crate) fn what_becomes_of_an_event_nobody_asked_for_yet(backend: &dyn Backend) {
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
        let mut world = World::new(backend);
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

pub(crate) fn the_full_event_is_always_enabled(backend: &dyn Backend) {
    let mut world = World::new(backend);
    let queue = world.logged_guest(4);
    let request = request(&mut world);
    world.change_blocks(2);
    assert_eq!(world.event(MANAGER, request), None);
    world.change_blocks(1);
    assert_eq!(world.event(MANAGER, request), full_event(&queue));
}

pub(crate) fn both_events_of_a_queue_and_events_of_two_queues_are_all_reported(backend: &dyn Backend) {
    let mut world = World::new(backend);
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

pub(crate) fn events_go_to_the_owner_alone(backend: &dyn Backend) {
    let mut world = World::new(backend);
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

pub(crate) fn an_event_that_waits_is_not_given_to_the_next_controller_that_asks(backend: &dyn Backend) {
    let mut world = World::new(backend);
    let queue = world.logged_guest(8);
    arm(&mut world, &queue, 1);
    world.change_blocks(1);
    for host in [OTHER_MANAGER, GUEST, OTHER_GUEST] {
        world.leave(host, 0, sqe::event_request());
    }
    assert_eq!(request_or_event(&mut world), tail_event(&queue), "it waited for its owner");
}

pub(crate) fn one_shot_events_are_not_masked(backend: &dyn Backend) {
    let mut world = World::new(backend);
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

pub(crate) fn a_full_admin_completion_queue_delays_the_event_and_loses_none(backend: &dyn Backend) {
    let mut world = World::with(backend, |setup| setup.admin_entries = 4);
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

pub(crate) fn the_phase_tag_is_one_in_the_first_lap_and_inverts_at_every_wrap(backend: &dyn Backend) {
    for size in [3, 4, 5, 8] {
        let mut world = World::new(backend);
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

// SPDX-License-Identifier: MIT OR Apache-2.0
//! Controller Data Queues beside one another and in the middle of things: two at once, deletion while logging, triggers
//! around the tail, head updates that cross. NVMe Base 2.1 §8.1.6, Controller Data Queues.

use crate::conformance::backend::Backend;
use crate::conformance::world::cdq::Cdq;
use crate::conformance::world::sqe;
use crate::conformance::world::status::*;
use crate::conformance::world::*;

const TAIL_EVENT: u32 = 0x0004;
const FULL_EVENT: u32 = 0x0104;

pub(crate) fn two_queues_on_two_tracked_controllers_keep_apart(backend: &dyn Backend) {
    // Both on one manager, and on two.
    for other_owner in [MANAGER, OTHER_MANAGER] {
        for (size, other_size) in [(8, 8), (4, 16), (5, 3)] {
            let name = format!("queue sizes {size} and {other_size}, second owner {other_owner}");
            let mut world = World::new(backend);
            let mut queue = world.logged_guest(size);
            let mut other = world.create_cdq(other_owner, OTHER_GUEST_ID, other_size);
            world.create_pair(OTHER_GUEST, 1, 16);
            world.admin(other_owner, sqe::start_log(other.id)).ok();
            assert_eq!(other.texts(), ["001b"], "{name}");
            world.publish(&other);
            if other_owner == MANAGER {
                assert_ne!(queue.id, other.id, "{name}: identifiers are unique on a controller");
            }
            // Both wrap several times, each in its own time.
            for round in 0..40_u64 {
                world.write_blocks(GUEST, NSID, round * 2, 1, 1);
                assert_eq!(queue.texts(), [format!("000b 1:{}+1", round * 2)], "{name}, round {round}");
                world.publish(&queue);
                if round.is_multiple_of(3) {
                    world.write_blocks(OTHER_GUEST, LARGE_BLOCKS_NSID, round, 2, 2);
                    assert_eq!(other.texts(), [format!("000b 3:{round}+2")], "{name}, round {round}");
                    world.publish(&other);
                }
            }
            // One overflows, the other goes on.
            world.change_blocks(u64::from(size) + 2);
            assert!(queue.texts().last().is_some_and(|text| text.starts_with("111b")), "{name}");
            world.write_blocks(OTHER_GUEST, NSID, 3, 1, 3);
            assert_eq!(other.texts(), ["000b 1:3+1"], "{name}");
            world.publish(&other);
            // One is deleted, the other goes on.
            world.admin(MANAGER, sqe::delete_cdq(queue.id)).ok();
            world.change_blocks(1);
            assert!(queue.take().is_empty(), "{name}");
            world.write_blocks(OTHER_GUEST, NSID, 4, 1, 4);
            assert_eq!(other.texts(), ["000b 1:4+1"], "{name}");
            // One controller is suspended, the other is still logged.
            world.admin(MANAGER, sqe::suspend(GUEST_ID)).ok();
            world.write_blocks(OTHER_GUEST, NSID, 5, 1, 5);
            world.publish(&other);
            let last = if other_size == 3 { "111b 1:5+1" } else { "000b 1:5+1" };
            assert!([last, "000b 1:5+1"].contains(&other.texts()[0].as_str()), "{name}");
        }
    }
}

pub(crate) fn a_queue_deleted_while_logging_lets_go_of_its_memory(backend: &dyn Backend) {
    for listed in [false, true] {
        for taken in [false, true] {
            let name = format!("listed {listed}, commands under way {taken}");
            let mut world = World::new(backend);
            let mut queue = if listed {
                world.create_listed_cdq(MANAGER, GUEST_ID, 300)
            } else {
                world.create_cdq(MANAGER, GUEST_ID, 64)
            };
            world.create_pair(GUEST, 1, 16);
            world.admin(MANAGER, sqe::start_log(queue.id)).ok();
            for index in 0..10_u64 {
                let data = world.hosts[GUEST].data(&[9; 512]);
                world.send(GUEST, 1, sqe::write(NSID, index * 2, 1, data));
            }
            world.ring(GUEST, 1);
            let delete = world.submit(MANAGER, 0, sqe::delete_cdq(queue.id));
            if taken {
                world.begin();
                world.work_a_little();
            }
            // Entries may come until the deletion completes, and none after.
            let mut deleted = None;
            for _ in 0..1000 {
                world.work_a_little();
                world.harvest(MANAGER, 0);
                deleted = world.hosts[MANAGER].take(0, delete);
                if deleted.is_some() {
                    break;
                }
            }
            if deleted.is_none() {
                world.run();
                deleted = world.hosts[MANAGER].take(0, delete);
            }
            deleted.expect("the deletion completes").ok();
            let slots =
                |queue: &Cdq| -> Vec<Vec<u8>> { (0..queue.entries).map(|slot| queue.slot(slot)).collect() };
            let before = slots(&queue);
            world.run();
            world.change_blocks(3);
            assert_eq!(slots(&queue), before, "{name}: nothing is written after the deletion");
            assert_eq!(world.hosts[GUEST].done.len(), 10, "{name}: the guest notices nothing");
            let texts = queue.texts();
            assert!(texts.iter().all(|text| text.starts_with("00")), "{name}: no last entry: {texts:?}");
            assert_eq!(world.admin(MANAGER, sqe::stop_log(queue.id)).code, INVALID_CDQ, "{name}");
            let mut again = world.create_cdq(MANAGER, GUEST_ID, 16);
            assert!(again.take().is_empty(), "{name}: a new queue begins empty and not logging");
            world.change_blocks(1);
            assert!(again.take().is_empty(), "{name}");
        }
    }
}

pub(crate) fn triggers_behind_at_and_ahead_of_the_tail(backend: &dyn Backend) {
    const SIZE: u32 = 8;
    // Head and tail of the queue when the trigger is armed, at every place of the ring.
    for tail in 1..SIZE + 3 {
        for waiting in [0, 1, 3] {
            for trigger in 0..SIZE {
                let name = format!("tail {tail}, {waiting} entries unread, trigger at slot {trigger}");
                let mut world = World::new(backend);
                let mut queue = world.logged_guest(SIZE);
                for _ in 1..tail {
                    world.change_blocks(1);
                    queue.take();
                    world.publish(&queue);
                }
                world.change_blocks(waiting);
                let request = world.leave(MANAGER, 0, sqe::event_request());
                let set = sqe::set_head_and_trigger(queue.id, queue.head, trigger);
                world.admin(MANAGER, set).ok();
                // A host looks once more after every Set, so that a slot filled before is never waited for.
                queue.take();
                let next = (tail + waiting as u32) % SIZE;
                let needed = (trigger + SIZE - next) % SIZE + 1;
                for count in 1..=needed {
                    let event = world.event(MANAGER, request);
                    assert_eq!(event, None, "{name}: {} of {needed} entries", count - 1);
                    world.admin(MANAGER, sqe::set_head_and_trigger(queue.id, queue.head, trigger)).ok();
                    world.change_blocks(1);
                    queue.take();
                }
                let event = world.event(MANAGER, request);
                assert_eq!(event, Some((TAIL_EVENT, u32::from(queue.id))), "{name}");
            }
        }
    }
}

pub(crate) fn a_trigger_asked_for_while_a_head_update_is_in_flight_holds(backend: &dyn Backend) {
    // Two or three Set Features with one doorbell: the last one decides.
    for updates in [1_u32, 2, 5] {
        for taken in [false, true] {
            let name = format!("{updates} head updates, under way {taken}");
            let mut world = World::new(backend);
            let mut queue = world.logged_guest(16);
            world.change_blocks(6);
            let request = world.leave(MANAGER, 0, sqe::event_request());
            let mut sent = Vec::new();
            for update in 1..=updates {
                sent.push(world.send(MANAGER, 0, sqe::set_head(queue.id, 1 + update)));
            }
            sent.push(world.send(MANAGER, 0, sqe::set_head_and_trigger(queue.id, 1 + updates, 8)));
            world.ring(MANAGER, 0);
            if taken {
                world.begin();
            }
            // Entries come while the updates are on their way.
            let data = world.hosts[GUEST].data(&[1; 512]);
            let write = world.submit(GUEST, 1, sqe::write(NSID, 500, 1, data));
            world.run();
            world.hosts[GUEST].take(1, write).expect("completes").ok();
            for command in sent {
                world.hosts[MANAGER].take(0, command).expect("completes").ok();
            }
            // Slot 7 took the write, so that slot 8 is next.
            assert_eq!(world.event(MANAGER, request), None, "{name}");
            world.change_blocks(1);
            let event = world.event(MANAGER, request);
            assert_eq!(event, Some((TAIL_EVENT, u32::from(queue.id))), "{name}: the trigger was not lost");
            assert_eq!(queue.take().len(), 8, "{name}");
        }
    }
}

pub(crate) fn an_update_behind_a_trigger_disarms_it(backend: &dyn Backend) {
    let mut world = World::new(backend);
    let mut queue = world.logged_guest(16);
    let request = world.leave(MANAGER, 0, sqe::event_request());
    world.change_blocks(2);
    let first = world.send(MANAGER, 0, sqe::set_head_and_trigger(queue.id, 2, 4));
    let second = world.send(MANAGER, 0, sqe::set_head(queue.id, 3));
    world.ring(MANAGER, 0);
    world.run();
    for command in [first, second] {
        world.hosts[MANAGER].take(0, command).expect("completes").ok();
    }
    world.change_blocks(5);
    assert_eq!(world.event(MANAGER, request), None, "ETPT=0 came last");
    queue.take();
}

pub(crate) fn a_head_update_of_a_queue_deleted_meanwhile_is_refused(backend: &dyn Backend) {
    let mut world = World::new(backend);
    let queue = world.logged_guest(16);
    let delete = world.send(MANAGER, 0, sqe::delete_cdq(queue.id));
    let update = world.send(MANAGER, 0, sqe::set_head_and_trigger(queue.id, queue.head, 5));
    world.ring(MANAGER, 0);
    world.begin();
    world.run();
    world.hosts[MANAGER].take(0, delete).expect("completes").ok();
    // Commands are in no order.
    let code = world.hosts[MANAGER].take(0, update).expect("completes").code;
    assert!(matches!(code, SUCCESS | INVALID_CDQ), "{code:?}");
    let request = world.leave(MANAGER, 0, sqe::event_request());
    world.change_blocks(8);
    assert_eq!(world.event(MANAGER, request), None, "a deleted queue tells nothing");
}

pub(crate) fn an_overflow_beside_an_armed_trigger_reports_both(backend: &dyn Backend) {
    for trigger in 1..8 {
        let mut world = World::new(backend);
        let queue = world.logged_guest(8);
        let requests = [(); 2].map(|()| world.leave(MANAGER, 0, sqe::event_request()));
        world.admin(MANAGER, sqe::set_head_and_trigger(queue.id, 1, trigger)).ok();
        world.change_blocks(10);
        let mut events: Vec<_> = requests.iter().filter_map(|id| world.event(MANAGER, *id)).collect();
        events.sort_unstable();
        let id = u32::from(queue.id);
        assert_eq!(events, [(TAIL_EVENT, id), (FULL_EVENT, id)], "trigger at slot {trigger}");
    }
}

// SPDX-License-Identifier: MIT OR Apache-2.0
//! A data queue that becomes full: the overflow marker, what is lost, and how logging starts again. NVM Command Set 1.1
//! §5.6, User Data Migration Queue.

use crate::conformance::backend::Backend;
use crate::conformance::world::cdq::Cdq;
use crate::conformance::world::sqe;
use crate::conformance::world::status::*;
use crate::conformance::world::*;

/// A queue of `size` slots for the guest with its log started and nothing read yet.
fn started(world: &mut World, size: u32) -> Cdq {
    let queue = world.create_cdq(MANAGER, GUEST_ID, size);
    world.create_pair(GUEST, 1, 16);
    world.admin(MANAGER, sqe::start_log(queue.id)).ok();
    queue
}

fn full_events(world: &mut World) -> usize {
    let mut count = 0;
    loop {
        let request = world.submit(MANAGER, 0, sqe::event_request());
        match world.event(MANAGER, request) {
            Some((0x0104, _)) => count += 1,
            Some(other) => panic!("{other:x?} is no full event"),
            None => {
                world.admin(MANAGER, sqe::abort(0, request)).ok();
                return count;
            }
        }
    }
}

pub(crate) fn the_entry_in_the_last_free_slot_says_so_and_keeps_its_range(backend: &dyn Backend) {
    for size in [2_u32, 3, 4, 5, 8, 63, 64, 65, 130, 1000] {
        for listed in [false, true] {
            let name = format!("{size} slots, listed {listed}");
            let mut world = World::new(backend);
            let mut queue = if listed {
                world.create_listed_cdq(MANAGER, GUEST_ID, size)
            } else {
                world.create_cdq(MANAGER, GUEST_ID, size)
            };
            world.create_pair(GUEST, 1, 16);
            world.admin(MANAGER, sqe::start_log(queue.id)).ok();
            world.change_blocks(u64::from(size) + 3);
            let mut expected = vec!["001b".to_owned()];
            expected.extend((0..size - 2).map(|index| format!("000b 1:{}+1", 1000 + index * 2)));
            let last = expected.last_mut().unwrap();
            *last = last.replacen("000b", "111b", 1).replacen("001b", "111b", 1);
            assert_eq!(queue.texts(), expected, "{name}: one entry less than slots");
            assert_eq!(full_events(&mut world), 1, "{name}");
            // Freed slots do not start it again, a start does.
            world.publish(&queue);
            world.change_blocks(1);
            assert!(queue.texts().is_empty(), "{name}");
            world.admin(MANAGER, sqe::start_log(queue.id)).ok();
            world.change_blocks(1);
            let again: &[&str] = match size {
                2 => &["111b"],
                3 => &["001b", "111b 1:1000+1"],
                _ => &["001b", "000b 1:1000+1"],
            };
            assert_eq!(queue.texts(), again, "{name}: started again");
        }
    }
}

pub(crate) fn a_marker_in_the_last_free_slot_becomes_the_overflow_marker(backend: &dyn Backend) {
    for (name, command) in
        [("stop", sqe::stop_log as fn(u16) -> sqe::Sqe), ("suspend", |_| sqe::suspend(GUEST_ID))]
    {
        let mut world = World::new(backend);
        let mut queue = started(&mut world, 4);
        world.change_blocks(1);
        world.admin(MANAGER, command(queue.id)).ok();
        assert_eq!(queue.texts(), ["001b", "000b 1:1000+1", "111b"], "{name}");
        assert_eq!(full_events(&mut world), 1, "{name}");
    }
}

pub(crate) fn what_happens_after_the_queue_was_full(backend: &dyn Backend) {
    type Action = fn(&mut World, &mut Cdq);
    // The queue has four slots and holds "001b", "000b" and "111b"; the rows say which entries follow them.
    let rows: [(&str, Action, &[&str]); 9] = [
        ("changes are not logged", |w, _| w.change_blocks(2), &[]),
        (
            "freed slots do not start the log",
            |w, q| {
                w.publish(q);
                w.change_blocks(2);
            },
            &[],
        ),
        (
            "a start without freed slots is refused",
            |w, q| {
                assert_eq!(w.admin(MANAGER, sqe::start_log(q.id)).code, CDQ_FULL);
                w.publish(q);
                w.change_blocks(1);
            },
            &[],
        ),
        (
            "a start with all slots freed",
            |w, q| {
                w.publish(q);
                w.admin(MANAGER, sqe::start_log(q.id)).ok();
                w.change_blocks(1);
            },
            &["001b", "000b 1:1000+1"],
        ),
        (
            "a start with one slot freed fills the queue again",
            |w, q| {
                w.admin(MANAGER, sqe::set_head(q.id, 1)).ok();
                w.admin(MANAGER, sqe::start_log(q.id)).ok();
                w.change_blocks(1);
            },
            &["111b"],
        ),
        (
            "a stop posts nothing",
            |w, q| {
                w.publish(q);
                w.admin(MANAGER, sqe::stop_log(q.id)).ok();
            },
            &[],
        ),
        (
            "suspend and resume post nothing",
            |w, q| {
                w.publish(q);
                w.admin(MANAGER, sqe::suspend(GUEST_ID)).ok();
                w.admin(MANAGER, sqe::resume(GUEST_ID)).ok();
                w.change_blocks(1);
            },
            &[],
        ),
        (
            "suspend of a full queue and deletion",
            |w, q| {
                w.admin(MANAGER, sqe::suspend_and_delete(GUEST_ID)).ok();
                assert_eq!(w.admin(MANAGER, sqe::set_head(q.id, 0)).code, INVALID_CDQ);
            },
            &[],
        ),
        (
            "full, started and full again",
            |w, q| {
                w.publish(q);
                w.admin(MANAGER, sqe::start_log(q.id)).ok();
                w.change_blocks(5);
                assert_eq!(full_events(w), 1);
            },
            &["001b", "000b 1:1000+1", "111b 1:1002+1"],
        ),
    ];
    for (name, action, expected) in rows {
        let mut world = World::new(backend);
        let mut queue = started(&mut world, 4);
        world.change_blocks(2);
        assert_eq!(full_events(&mut world), 1);
        assert_eq!(queue.texts(), ["001b", "000b 1:1000+1", "111b 1:1002+1"], "{name}: all stay readable");
        action(&mut world, &mut queue);
        assert_eq!(queue.texts(), expected, "{name}");
    }
}

pub(crate) fn a_command_of_many_ranges_fills_the_queue_part_way(backend: &dyn Backend) {
    let mut world = World::new(backend);
    let mut queue = started(&mut world, 5);
    let ranges: Vec<u8> = (0..6_u64)
        .flat_map(|index| {
            [[0; 4], 3_u32.to_le_bytes()].concat().into_iter().chain((index * 10).to_le_bytes())
        })
        .collect();
    let prps = world.hosts[GUEST].data(&ranges);
    world.exec(GUEST, 1, sqe::deallocate(NSID, 6, prps)).ok();
    assert_eq!(queue.texts(), ["001b", "000b 1:0+3-", "000b 1:10+3-", "111b 1:20+3-"]);
    world.publish(&queue);
    assert_eq!(queue.texts(), Vec::<String>::new());
}

pub(crate) fn full_queues_keep_their_phase_in_order_over_many_laps(backend: &dyn Backend) {
    for size in [3, 4, 5, 8] {
        let mut world = World::new(backend);
        let mut queue = world.create_cdq(MANAGER, GUEST_ID, size);
        world.create_pair(GUEST, 1, 16);
        for lap in 0..7 {
            world.admin(MANAGER, sqe::start_log(queue.id)).ok();
            world.change_blocks(10);
            let texts = queue.texts();
            assert_eq!(texts.len(), size as usize - 1, "lap {lap} of {size} slots");
            assert!(texts.last().unwrap().starts_with("111b"), "{texts:?}");
            world.publish(&queue);
        }
    }
}

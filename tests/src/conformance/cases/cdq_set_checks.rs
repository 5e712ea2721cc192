// SPDX-License-Identifier: MIT OR Apache-2.0
//! Set Features and Get Features of the Controller Data Queue: every check has its row. NVMe Base 2.1 §5.1.25.1.23,
//! Controller Data Queue feature.

use crate::conformance::backend::Backend;
use crate::conformance::world::cdq::Cdq;
use crate::conformance::world::sqe;
use crate::conformance::world::status::*;
use crate::conformance::world::*;

/// A queue of eight slots whose head is `head` and whose tail is `tail`, in their second lap if they wrapped.
fn at(world: &mut World, head: u32, tail: u32) -> Cdq {
    let mut queue = world.logged_guest(8);
    // One lap, so that every slot has been posted once and a stale phase would show.
    let mut position = 1;
    while position < 8 + head {
        world.change_blocks(1);
        queue.take();
        world.publish(&queue);
        position += 1;
    }
    assert_eq!(queue.head, head);
    world.change_blocks(u64::from((tail + 8 - head) % 8));
    queue
}

fn set(world: &mut World, head: u32, tail: u32, value: u32) -> Completion {
    let queue = at(world, head, tail);
    world.admin(MANAGER, sqe::set_head(queue.id, value))
}

pub(crate) fn every_check_of_set_has_its_status(backend: &dyn Backend) {
    check(
        backend,
        World::new,
        &[
            ("no queue at all", INVALID_CDQ, |w| w.admin(MANAGER, sqe::set_head(0, 0))),
            ("next identifier", INVALID_CDQ, |w| {
                let queue = w.create_cdq(MANAGER, GUEST_ID, 8);
                w.admin(MANAGER, sqe::set_head(queue.id + 1, 0))
            }),
            ("CDQID FFFFh", INVALID_CDQ, |w| {
                w.create_cdq(MANAGER, GUEST_ID, 8);
                w.admin(MANAGER, sqe::set_head(0xFFFF, 0))
            }),
            ("queue of another controller", INVALID_CDQ, |w| {
                let queue = w.create_cdq(OTHER_MANAGER, GUEST_ID, 8);
                w.admin(MANAGER, sqe::set_head(queue.id, 0))
            }),
            ("deleted queue", INVALID_CDQ, |w| {
                let queue = w.create_cdq(MANAGER, GUEST_ID, 8);
                w.admin(MANAGER, sqe::delete_cdq(queue.id)).ok();
                w.admin(MANAGER, sqe::set_head(queue.id, 0))
            }),
            ("migratable controller has no such feature", INVALID_FIELD, |w| {
                let queue = w.create_cdq(MANAGER, GUEST_ID, 8);
                w.admin(GUEST, sqe::set_head(queue.id, 0))
            }),
            ("new and empty, HP is the head", SUCCESS, |w| {
                let queue = w.create_cdq(MANAGER, GUEST_ID, 8);
                w.admin(MANAGER, sqe::set_head(queue.id, 0))
            }),
            ("new and empty, HP one further", INVALID_FIELD, |w| {
                let queue = w.create_cdq(MANAGER, GUEST_ID, 8);
                w.admin(MANAGER, sqe::set_head(queue.id, 1))
            }),
            ("new and empty, HP last slot", INVALID_FIELD, |w| {
                let queue = w.create_cdq(MANAGER, GUEST_ID, 8);
                w.admin(MANAGER, sqe::set_head(queue.id, 7))
            }),
            ("new and empty, HP is N", INVALID_FIELD, |w| {
                let queue = w.create_cdq(MANAGER, GUEST_ID, 8);
                w.admin(MANAGER, sqe::set_head(queue.id, 8))
            }),
            ("empty, HP is the head", SUCCESS, |w| set(w, 5, 5, 5)),
            ("empty, HP one further", INVALID_FIELD, |w| set(w, 5, 5, 6)),
            ("empty, HP one back", INVALID_FIELD, |w| set(w, 5, 5, 4)),
            ("not empty, HP does not move", SUCCESS, |w| set(w, 2, 5, 2)),
            ("not empty, HP on the next posted slot", SUCCESS, |w| set(w, 2, 5, 3)),
            ("not empty, HP on the last posted slot", SUCCESS, |w| set(w, 2, 5, 4)),
            ("not empty, HP on the tail drains all", SUCCESS, |w| set(w, 2, 5, 5)),
            ("not empty, HP past the tail", INVALID_FIELD, |w| set(w, 2, 5, 6)),
            ("not empty, HP one back", INVALID_FIELD, |w| set(w, 2, 5, 1)),
            ("not empty, HP on a slot of the lap before", INVALID_FIELD, |w| set(w, 2, 5, 0)),
            ("not empty, HP is N", INVALID_FIELD, |w| set(w, 2, 5, 8)),
            ("not empty, HP FFFFFFFFh", INVALID_FIELD, |w| set(w, 2, 5, u32::MAX)),
            ("not empty, HP 10000h", INVALID_FIELD, |w| set(w, 0, 3, 0x1_0000)),
            ("wrapped, HP on the last slot", SUCCESS, |w| set(w, 6, 2, 7)),
            ("wrapped, HP on slot 0", SUCCESS, |w| set(w, 6, 2, 0)),
            ("wrapped, HP on the last posted slot", SUCCESS, |w| set(w, 6, 2, 1)),
            ("wrapped, HP on the tail", SUCCESS, |w| set(w, 6, 2, 2)),
            ("wrapped, HP past the tail", INVALID_FIELD, |w| set(w, 6, 2, 3)),
            ("wrapped, HP one back", INVALID_FIELD, |w| set(w, 6, 2, 5)),
            ("wrapped, HP is N", INVALID_FIELD, |w| set(w, 6, 2, 8)),
            ("full, HP on the tail", SUCCESS, |w| set(w, 3, 2, 2)),
            ("full, HP one back is the tail of a full queue and drains it", SUCCESS, |w| set(w, 0, 7, 7)),
            ("ETPT=1, TPT last slot", SUCCESS, |w| {
                let queue = w.create_cdq(MANAGER, GUEST_ID, 8);
                w.admin(MANAGER, sqe::set_head_and_trigger(queue.id, 0, 7))
            }),
            ("ETPT=1, TPT is N", INVALID_FIELD, |w| {
                let queue = w.create_cdq(MANAGER, GUEST_ID, 8);
                w.admin(MANAGER, sqe::set_head_and_trigger(queue.id, 0, 8))
            }),
            ("ETPT=1, TPT FFFFFFFFh", INVALID_FIELD, |w| {
                let queue = w.create_cdq(MANAGER, GUEST_ID, 8);
                w.admin(MANAGER, sqe::set_head_and_trigger(queue.id, 0, u32::MAX))
            }),
            ("ETPT=1, TPT already posted", SUCCESS, |w| {
                let queue = at(w, 2, 5);
                w.admin(MANAGER, sqe::set_head_and_trigger(queue.id, 2, 3))
            }),
            ("ETPT=0 ignores TPT", SUCCESS, |w| {
                let queue = w.create_cdq(MANAGER, GUEST_ID, 8);
                w.admin(MANAGER, sqe::set_head(queue.id, 0).dword(13, u32::MAX))
            }),
            ("SV=1", NOT_SAVEABLE, |w| {
                let queue = w.create_cdq(MANAGER, GUEST_ID, 8);
                w.admin(MANAGER, sqe::set_head(queue.id, 0).or(10, 1 << 31))
            }),
            ("target suspended", SUCCESS, |w| {
                let queue = w.logged_guest(8);
                w.admin(MANAGER, sqe::suspend(GUEST_ID)).ok();
                w.admin(MANAGER, sqe::set_head(queue.id, 2))
            }),
        ],
    );
}

pub(crate) fn a_namespace_with_the_feature_is_refused(backend: &dyn Backend) {
    let mut world = World::new(backend);
    let queue = world.create_cdq(MANAGER, GUEST_ID, 8);
    // The specification allows either code.
    let code = world.admin(MANAGER, sqe::set_head(queue.id, 0).namespace(NSID)).code;
    assert!(matches!(code, NOT_NAMESPACE_SPECIFIC | INVALID_FIELD), "{code:?}");
    let buffer = world.hosts[MANAGER].allocate(512);
    let code = world.admin(MANAGER, sqe::get_head(queue.id, buffer).namespace(NSID)).code;
    assert!(matches!(code, NOT_NAMESPACE_SPECIFIC | INVALID_FIELD), "{code:?}");
}

pub(crate) fn every_head_of_every_small_queue_is_judged_by_its_distance(backend: &dyn Backend) {
    for size in 2..=5_u32 {
        for (head, occupied) in (0..size).flat_map(|head| (0..size).map(move |occupied| (head, occupied))) {
            for value in 0..=size + 1 {
                let mut world = World::new(backend);
                world.create_pair(GUEST, 1, 64);
                let queue = fill(&mut world, size, head, occupied);
                let legal = value < size && (value + size - head) % size <= occupied;
                let expected = if legal { SUCCESS } else { INVALID_FIELD };
                let done = world.admin(MANAGER, sqe::set_head(queue.id, value));
                let name = format!("{occupied} entries from {head} in {size} slots, HP {value}");
                assert_eq!(done.code, expected, "{name}");
                let now = if legal { value } else { head };
                assert_eq!(head_of(&mut world, &queue), now, "head after {name}");
            }
        }
    }
}

/// Starts and stops the log until the queue has `occupied` entries from slot `head` on.
fn fill(world: &mut World, size: u32, head: u32, occupied: u32) -> Cdq {
    let mut queue = world.create_cdq(MANAGER, GUEST_ID, size);
    let mut running = false;
    let mut post = |world: &mut World, queue: &Cdq| {
        // Each start and each stop posts one entry; a queue that became full has stopped by itself.
        let command = if running { sqe::stop_log(queue.id) } else { sqe::start_log(queue.id) };
        world.admin(MANAGER, command).ok();
        running = !running;
        if queue.entries == 2 {
            running = false;
        }
    };
    while queue.head != head {
        post(world, &queue);
        queue.take();
        world.publish(&queue);
    }
    for _ in 0..occupied {
        post(world, &queue);
    }
    queue
}

fn head_of(world: &mut World, queue: &Cdq) -> u32 {
    let buffer = world.hosts[MANAGER].allocate(512);
    world.admin(MANAGER, sqe::get_head(queue.id, buffer)).ok();
    world.memory(MANAGER).word(buffer)
}

pub(crate) fn a_refused_set_changes_nothing(backend: &dyn Backend) {
    let mut world = World::new(backend);
    let queue = at(&mut world, 2, 4);
    world.admin(MANAGER, sqe::set_head_and_trigger(queue.id, 3, 5)).ok();
    for wrong in [
        sqe::set_head(queue.id, 2),
        sqe::set_head(queue.id, 6),
        sqe::set_head(queue.id, 4).or(10, 1 << 31),
        sqe::set_head_and_trigger(queue.id, 4, 8),
        sqe::set_head_and_trigger(queue.id, 7, 0),
    ] {
        assert_ne!(world.admin(MANAGER, wrong).code, SUCCESS);
    }
    let buffer = world.hosts[MANAGER].allocate(512);
    let done = world.admin(MANAGER, sqe::get_head(queue.id, buffer)).ok();
    let memory = world.memory(MANAGER);
    assert_eq!((memory.word(buffer), memory.word(buffer + 4)), (3, 5));
    assert_eq!(done.dword0, (1 << 31) | u32::from(queue.id));
    let request = world.leave(MANAGER, 0, sqe::event_request());
    world.change_blocks(2);
    assert_eq!(world.event(MANAGER, request), Some((4, u32::from(queue.id))), "the trigger is still armed");
}

pub(crate) fn every_check_of_get_has_its_status(backend: &dyn Backend) {
    fn get(world: &mut World, id: u16) -> Completion {
        let buffer = world.hosts[MANAGER].allocate(512);
        world.admin(MANAGER, sqe::get_head(id, buffer))
    }
    check(
        backend,
        World::new,
        &[
            ("no queue at all", INVALID_CDQ, |w| get(w, 0)),
            ("a queue", SUCCESS, |w| {
                let queue = w.create_cdq(MANAGER, GUEST_ID, 8);
                get(w, queue.id)
            }),
            ("next identifier", INVALID_CDQ, |w| {
                let queue = w.create_cdq(MANAGER, GUEST_ID, 8);
                get(w, queue.id + 1)
            }),
            ("queue of another controller", INVALID_CDQ, |w| {
                let queue = w.create_cdq(OTHER_MANAGER, GUEST_ID, 8);
                get(w, queue.id)
            }),
            ("migratable controller has no such feature", INVALID_FIELD, |w| {
                let buffer = w.hosts[GUEST].allocate(512);
                w.admin(GUEST, sqe::get_head(0, buffer))
            }),
            ("TPT of a Get is ignored", SUCCESS, |w| {
                let queue = w.create_cdq(MANAGER, GUEST_ID, 8);
                let buffer = w.hosts[MANAGER].allocate(512);
                w.admin(MANAGER, sqe::get_head(queue.id, buffer).dword(13, u32::MAX))
            }),
            ("capabilities need no queue", SUCCESS, |w| {
                w.admin(MANAGER, sqe::get_features(sqe::CDQ_FEATURE | (3 << 8), 0))
            }),
            ("reserved Select", INVALID_FIELD, |w| {
                let queue = w.create_cdq(MANAGER, GUEST_ID, 8);
                let buffer = w.hosts[MANAGER].allocate(512);
                w.admin(MANAGER, sqe::get_head(queue.id, buffer).or(10, 4 << 8))
            }),
        ],
    );
}

pub(crate) fn get_returns_512_bytes_and_the_state_of_the_trigger(backend: &dyn Backend) {
    for (name, set, head, trigger, dword0) in [
        ("new", None, 0, 0, 0),
        ("head moved", Some((3, None)), 3, 0, 0),
        ("trigger armed", Some((3, Some(6))), 3, 6, 1 << 31),
        ("trigger on slot 0", Some((2, Some(0))), 2, 0, 1 << 31),
    ] {
        let mut world = World::new(backend);
        let first = world.create_cdq(MANAGER, OTHER_GUEST_ID, 8);
        let queue = at(&mut world, 0, 5);
        assert_ne!(first.id, queue.id);
        match set {
            Some((head, Some(trigger))) => {
                world.admin(MANAGER, sqe::set_head_and_trigger(queue.id, head, trigger)).ok();
            }
            Some((head, None)) => {
                world.admin(MANAGER, sqe::set_head(queue.id, head).dword(13, 5)).ok();
            }
            None => {}
        }
        let memory = world.memory(MANAGER);
        let buffer = world.hosts[MANAGER].allocate(4096);
        memory.fill(buffer, &[0xEE; 1024]);
        let done = world.admin(MANAGER, sqe::get_head(queue.id, buffer)).ok();
        assert_eq!(done.dword0, dword0 | u32::from(queue.id), "{name}");
        assert_eq!((memory.word(buffer), memory.word(buffer + 4)), (head, trigger), "{name}");
        assert_eq!(memory.bytes(buffer + 8, 504), [0; 504], "{name}: reserved bytes");
        assert_eq!(memory.bytes(buffer + 512, 512), [0xEE; 512], "{name}: no more than 512 bytes");
    }
}

pub(crate) fn the_feature_can_be_changed_but_not_saved(backend: &dyn Backend) {
    let mut world = World::new(backend);
    let done = world.admin(MANAGER, sqe::get_features(sqe::CDQ_FEATURE | (3 << 8), 0)).ok();
    assert_eq!(done.dword0 & 7, 4, "changeable, not saveable, not namespace specific");
}

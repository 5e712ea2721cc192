// SPDX-License-Identifier: MIT OR Apache-2.0
//! Creating and deleting I/O queues: every check, and queues of every kind at work. NVMe Base 2.1 §5.2.1 to §5.2.4.

use crate::conformance::backend::Backend;
use crate::conformance::world::host::Area;
use crate::conformance::world::sqe::{self, Sqe};
use crate::conformance::world::status::*;
use crate::conformance::world::*;

fn cq(world: &World, queue: u16, entries: u32) -> Sqe {
    sqe::create_cq(queue, entries, 1, world.hosts[GUEST].allocate(1 << 16))
}

fn sq(world: &World, queue: u16, completion: u16, entries: u32) -> Sqe {
    sqe::create_sq(queue, completion, entries, world.hosts[GUEST].allocate(1 << 16))
}

fn try_cq(world: &mut World, queue: u16, entries: u32) -> Completion {
    let command = cq(world, queue, entries);
    world.admin(GUEST, command)
}

fn try_sq(world: &mut World, queue: u16, completion: u16, entries: u32) -> Completion {
    let command = sq(world, queue, completion, entries);
    world.admin(GUEST, command)
}

fn granted(backend: &dyn Backend, queues: u32) -> World {
    let mut world = World::new(backend);
    world.admin(GUEST, sqe::set_features(0x07, (queues - 1) * 0x0001_0001)).ok();
    world
}

pub(crate) fn every_check_of_create_completion_queue_has_its_status(backend: &dyn Backend) {
    check(
        backend,
        World::new,
        &[
            ("first", SUCCESS, |w| try_cq(w, 1, 16)),
            ("last", SUCCESS, |w| try_cq(w, 5, 16)),
            ("two entries", SUCCESS, |w| try_cq(w, 1, 2)),
            ("4,096 entries", SUCCESS, |w| try_cq(w, 1, 4096)),
            ("QID 0", INVALID_QUEUE_ID, |w| try_cq(w, 0, 16)),
            ("QID beyond the last", INVALID_QUEUE_ID, |w| try_cq(w, 6, 16)),
            ("QID FFFFh", INVALID_QUEUE_ID, |w| try_cq(w, 0xFFFF, 16)),
            ("QID in use", INVALID_QUEUE_ID, |w| {
                try_cq(w, 2, 16).ok();
                try_cq(w, 2, 16)
            }),
            ("QID deleted", SUCCESS, |w| {
                try_cq(w, 2, 16).ok();
                w.admin(GUEST, sqe::delete_cq(2)).ok();
                try_cq(w, 2, 16)
            }),
            ("QSIZE 0", INVALID_QUEUE_SIZE, |w| try_cq(w, 1, 1)),
            ("last vector", SUCCESS, |w| w.admin(GUEST, cq(w, 1, 16).dword(11, (63 << 16) | 3))),
            ("vector beyond the last", INVALID_VECTOR, |w| {
                w.admin(GUEST, cq(w, 1, 16).dword(11, (64 << 16) | 3))
            }),
            ("vector FFFFh", INVALID_VECTOR, |w| w.admin(GUEST, cq(w, 1, 16).dword(11, (0xFFFF << 16) | 3))),
            ("vector beyond the last, interrupts off", SUCCESS, |w| {
                w.admin(GUEST, cq(w, 1, 16).dword(11, (64 << 16) | 1))
            }),
            ("PC=0, list that is nowhere", INVALID_FIELD, |w| {
                let nowhere = w.memory(GUEST).unmapped();
                w.admin(GUEST, sqe::create_cq(1, 16, 1, nowhere).dword(11, 2))
            }),
            ("PRP1 offset 4", PRP_OFFSET, |w| w.admin(GUEST, cq(w, 1, 16).or(6, 4))),
            ("PRP1 offset of one entry", PRP_OFFSET, |w| w.admin(GUEST, cq(w, 1, 16).or(6, 16))),
            ("PRP1 offset 800h", PRP_OFFSET, |w| w.admin(GUEST, cq(w, 1, 16).or(6, 0x800))),
            ("PC=0", SUCCESS, |w| {
                let host = &w.hosts[GUEST];
                let list = host.page_list(&[host.allocate(4096)]);
                w.admin(GUEST, sqe::create_cq(1, 16, 1, list).dword(11, 2))
            }),
            ("PC=0, list entry with offset", PRP_OFFSET, |w| {
                let host = &w.hosts[GUEST];
                let list = host.page_list(&[host.allocate(4096) + 16]);
                w.admin(GUEST, sqe::create_cq(1, 16, 1, list).dword(11, 2))
            }),
            ("PC=0, list with offset", PRP_OFFSET, |w| {
                let host = &w.hosts[GUEST];
                let list = host.page_list(&[host.allocate(4096)]);
                w.admin(GUEST, sqe::create_cq(1, 16, 1, list + 8).dword(11, 2))
            }),
            ("NSID 1", INVALID_FIELD, |w| w.admin(GUEST, cq(w, 1, 16).namespace(1))),
            ("PSDT SGL", INVALID_FIELD, |w| w.admin(GUEST, cq(w, 1, 16).or(0, 1 << 14))),
        ],
    );
}

pub(crate) fn every_check_of_create_submission_queue_has_its_status(backend: &dyn Backend) {
    fn with_completion_queue(backend: &dyn Backend) -> World {
        let mut world = World::new(backend);
        try_cq(&mut world, 1, 16).ok();
        world
    }
    check(
        backend,
        with_completion_queue,
        &[
            ("first", SUCCESS, |w| try_sq(w, 1, 1, 16)),
            ("last", SUCCESS, |w| try_sq(w, 5, 1, 16)),
            ("two on one completion queue", SUCCESS, |w| {
                try_sq(w, 1, 1, 16).ok();
                try_sq(w, 2, 1, 16)
            }),
            ("QID 0", INVALID_QUEUE_ID, |w| try_sq(w, 0, 1, 16)),
            ("QID beyond the last", INVALID_QUEUE_ID, |w| try_sq(w, 6, 1, 16)),
            ("QID FFFFh", INVALID_QUEUE_ID, |w| try_sq(w, 0xFFFF, 1, 16)),
            ("QID in use", INVALID_QUEUE_ID, |w| {
                try_sq(w, 2, 1, 16).ok();
                try_sq(w, 2, 1, 16)
            }),
            ("CQID 0", INVALID_QUEUE_ID, |w| try_sq(w, 1, 0, 16)),
            ("CQID beyond the last", INVALID_QUEUE_ID, |w| try_sq(w, 1, 6, 16)),
            ("CQID that was not created", COMPLETION_QUEUE_INVALID, |w| try_sq(w, 1, 2, 16)),
            ("CQID that was deleted", COMPLETION_QUEUE_INVALID, |w| {
                try_cq(w, 2, 16).ok();
                w.admin(GUEST, sqe::delete_cq(2)).ok();
                try_sq(w, 1, 2, 16)
            }),
            ("QSIZE 0", INVALID_QUEUE_SIZE, |w| try_sq(w, 1, 1, 1)),
            ("every priority", SUCCESS, |w| {
                for priority in 0..3_u16 {
                    let command = sq(w, priority + 1, 1, 16).or(11, u32::from(priority) << 1);
                    w.admin(GUEST, command).ok();
                }
                let command = sq(w, 4, 1, 16).or(11, 3 << 1);
                w.admin(GUEST, command)
            }),
            ("NVMSETID 1", INVALID_FIELD, |w| w.admin(GUEST, sq(w, 1, 1, 16).dword(12, 1))),
            ("PRP1 offset of one entry", PRP_OFFSET, |w| w.admin(GUEST, sq(w, 1, 1, 16).or(6, 64))),
            ("PC=0", SUCCESS, |w| {
                let host = &w.hosts[GUEST];
                let list = host.page_list(&[host.allocate(4096)]);
                w.admin(GUEST, sqe::create_sq(1, 1, 16, list).dword(11, 1 << 16))
            }),
            ("PC=0, list with offset", PRP_OFFSET, |w| {
                let host = &w.hosts[GUEST];
                let list = host.page_list(&[host.allocate(4096)]);
                w.admin(GUEST, sqe::create_sq(1, 1, 16, list + 64).dword(11, 1 << 16))
            }),
            ("PC=0, list that is nowhere", INVALID_FIELD, |w| {
                let nowhere = w.memory(GUEST).unmapped();
                w.admin(GUEST, sqe::create_sq(1, 1, 16, nowhere).dword(11, 1 << 16))
            }),
            ("PC=0, second list entry with offset", PRP_OFFSET, |w| {
                let host = &w.hosts[GUEST];
                let list = host.page_list(&[host.allocate(4096), host.allocate(4096) + 64]);
                w.admin(GUEST, sqe::create_sq(1, 1, 128, list).dword(11, 1 << 16))
            }),
            ("NSID 1", INVALID_FIELD, |w| w.admin(GUEST, sq(w, 1, 1, 16).namespace(1))),
        ],
    );
}

pub(crate) fn every_check_of_deletion_has_its_status(backend: &dyn Backend) {
    fn with_pair(backend: &dyn Backend) -> World {
        let mut world = World::new(backend);
        world.create_pair(GUEST, 1, 16);
        world
    }
    check(
        backend,
        with_pair,
        &[
            ("submission queue", SUCCESS, |w| w.admin(GUEST, sqe::delete_sq(1))),
            ("completion queue after its submission queue", SUCCESS, |w| {
                w.admin(GUEST, sqe::delete_sq(1)).ok();
                w.admin(GUEST, sqe::delete_cq(1))
            }),
            ("completion queue in use", INVALID_QUEUE_DELETION, |w| w.admin(GUEST, sqe::delete_cq(1))),
            ("completion queue of two, one deleted", INVALID_QUEUE_DELETION, |w| {
                w.create_submission(GUEST, 2, 1, 16);
                w.admin(GUEST, sqe::delete_sq(1)).ok();
                w.admin(GUEST, sqe::delete_cq(1))
            }),
            ("submission queue 0", INVALID_QUEUE_ID, |w| w.admin(GUEST, sqe::delete_sq(0))),
            ("completion queue 0", INVALID_QUEUE_ID, |w| w.admin(GUEST, sqe::delete_cq(0))),
            ("submission queue that was never created", INVALID_QUEUE_ID, |w| {
                w.admin(GUEST, sqe::delete_sq(2))
            }),
            ("completion queue that was never created", INVALID_QUEUE_ID, |w| {
                w.admin(GUEST, sqe::delete_cq(2))
            }),
            ("submission queue FFFFh", INVALID_QUEUE_ID, |w| w.admin(GUEST, sqe::delete_sq(0xFFFF))),
            ("completion queue FFFFh", INVALID_QUEUE_ID, |w| w.admin(GUEST, sqe::delete_cq(0xFFFF))),
            ("submission queue twice", INVALID_QUEUE_ID, |w| {
                w.admin(GUEST, sqe::delete_sq(1)).ok();
                w.admin(GUEST, sqe::delete_sq(1))
            }),
            ("submission queue, NSID 1", INVALID_FIELD, |w| w.admin(GUEST, sqe::delete_sq(1).namespace(1))),
        ],
    );
}

pub(crate) fn limits_from_registers_and_features_apply(backend: &dyn Backend) {
    for (entries, expected) in
        [(63, SUCCESS), (64, SUCCESS), (65, INVALID_QUEUE_SIZE), (65_536, INVALID_QUEUE_SIZE)]
    {
        let mut world = World::with(backend, |setup| setup.config.max_queue_entries = 64);
        assert_eq!(try_cq(&mut world, 1, entries).code, expected, "completion queue of {entries}, MQES 63");
        try_cq(&mut world, 2, 16).ok();
        assert_eq!(
            try_sq(&mut world, 1, 2, entries).code,
            expected,
            "submission queue of {entries}, MQES 63"
        );
    }
    let mut world = World::with(backend, |setup| setup.config.contiguous_queues_required = true);
    let command = cq(&world, 1, 16).dword(11, 2);
    assert_eq!(world.admin(GUEST, command).code, INVALID_FIELD, "completion queue with PC=0 and CQR");
    try_cq(&mut world, 1, 16).ok();
    let command = sq(&world, 1, 1, 16).dword(11, 1 << 16);
    assert_eq!(world.admin(GUEST, command).code, INVALID_FIELD, "submission queue with PC=0 and CQR");

    let mut world = granted(backend, 2);
    try_cq(&mut world, 2, 16).ok();
    assert_eq!(try_cq(&mut world, 3, 16).code, INVALID_QUEUE_ID, "two completion queues were granted");
    try_sq(&mut world, 2, 2, 16).ok();
    assert_eq!(try_sq(&mut world, 3, 2, 16).code, INVALID_QUEUE_ID, "two submission queues were granted");
}

pub(crate) fn entry_sizes_must_be_set_before_queues_are_created(backend: &dyn Backend) {
    for (name, sizes, completion, submission) in [
        ("64 and 16 bytes", 0x0046_0000, SUCCESS, SUCCESS),
        ("none", 0, INVALID_QUEUE_SIZE, INVALID_QUEUE_SIZE),
        ("submission 128", 0x0047_0000, SUCCESS, INVALID_QUEUE_SIZE),
        ("submission 32", 0x0045_0000, SUCCESS, INVALID_QUEUE_SIZE),
        ("completion 32", 0x0056_0000, INVALID_QUEUE_SIZE, SUCCESS),
        ("completion 8", 0x0036_0000, INVALID_QUEUE_SIZE, SUCCESS),
    ] {
        let mut world = World::new(backend);
        try_cq(&mut world, 5, 16).ok();
        // The sizes may be written while enabled, and apply to what is created next.
        world.write32(GUEST, CC, sizes | 1);
        assert_eq!(try_cq(&mut world, 1, 16).code, completion, "{name}: completion queue");
        assert_eq!(try_sq(&mut world, 1, 5, 16).code, submission, "{name}: submission queue");
    }
}

pub(crate) fn queues_of_every_size_and_memory_carry_commands(backend: &dyn Backend) {
    for entries in [2, 3, 64, 65, 256, 257, 1024] {
        for listed in [false, true] {
            let mut world = World::new(backend);
            let host = world.hosts[GUEST].clone();
            let area = |bytes: u64| {
                let mut pages: Vec<u64> = (0..bytes.div_ceil(4096)).map(|_| host.allocate(4096)).collect();
                pages.reverse();
                (host.page_list(&pages), Area::scattered(pages, 4096))
            };
            if listed {
                let (list, pages) = area(u64::from(entries) * 16);
                world.admin(GUEST, sqe::create_cq(1, entries, 1, list).dword(11, (1 << 16) | 2)).ok();
                world.hosts[GUEST].add_completion(1, 0, entries);
                world.hosts[GUEST].completion.get_mut(&1).unwrap().area = pages;
                let (list, pages) = area(u64::from(entries) * 64);
                world.admin(GUEST, sqe::create_sq(1, 1, entries, list).dword(11, 1 << 16)).ok();
                world.hosts[GUEST].add_submission(1, 0, entries);
                world.hosts[GUEST].submission.get_mut(&1).unwrap().area = pages;
            } else {
                world.create_pair(GUEST, 1, entries);
            }
            let mut sent = 0;
            while sent < entries * 2 + 5 {
                let batch = (entries - 1).min(20);
                let commands: Vec<u16> = (0..batch).map(|_| world.send(GUEST, 1, sqe::flush(NSID))).collect();
                world.ring(GUEST, 1);
                world.run();
                for command in commands {
                    world.hosts[GUEST].take(1, command).expect("completes").ok();
                }
                sent += batch;
            }
        }
    }
}

pub(crate) fn the_largest_queues_wrap(backend: &dyn Backend) {
    let mut world = World::new(backend);
    world.create_pair(GUEST, 1, 65_536);
    let mut count = 0_u32;
    while count < 65_536 + 300 {
        for _ in 0..300 {
            world.send(GUEST, 1, sqe::flush(NSID));
        }
        world.ring(GUEST, 1);
        world.run();
        assert_eq!(world.hosts[GUEST].done.len(), 300);
        count += 300;
        let last = world.hosts[GUEST].done.drain(..).next_back().unwrap();
        assert_eq!((last.code, u32::from(last.sq_head)), (SUCCESS, count % 65_536));
    }
}

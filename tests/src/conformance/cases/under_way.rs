// SPDX-License-Identifier: MIT OR Apache-2.0
//! Resets and shutdowns with commands under way. NVMe Base 2.1 §3.6, Shutdown Processing, and §3.7, Resets.

use crate::conformance::backend::Backend;
use crate::conformance::world::sqe;
use crate::conformance::world::status::*;
use crate::conformance::world::*;

const SUBSYSTEM_RESET: u32 = 0x4E56_4D65;

type Action = fn(&mut World);

const RESETS: [(&str, Action); 5] = [
    ("Controller Reset", |w| w.write32(GUEST, CC, ENABLE & !1)),
    ("Controller Reset, twice in a row", |w| {
        w.write32(GUEST, CC, ENABLE & !1);
        w.write32(GUEST, CC, ENABLE & !1);
    }),
    ("Controller Reset, enabled and reset again at once", |w| {
        w.write32(GUEST, CC, ENABLE & !1);
        w.settle();
        w.write32(GUEST, CC, ENABLE);
        w.write32(GUEST, CC, ENABLE & !1);
    }),
    ("function level reset during a Controller Reset", |w| {
        w.write32(GUEST, CC, ENABLE & !1);
        w.function_level_reset(GUEST);
    }),
    ("subsystem reset during a function level reset", |w| {
        w.function_level_reset(GUEST);
        w.write32(MANAGER, NSSR, SUBSYSTEM_RESET);
    }),
];

/// How far the controller got with the commands when something happens to it.
const PROGRESS: [(&str, Action); 4] = [
    ("not yet looked at", |_| {}),
    ("taken", World::begin),
    ("partly done", |w| {
        w.begin();
        w.work_a_little();
    }),
    ("done and not consumed", World::settle),
];

/// Commands in every queue of the guest: writes and reads in one, flushes in the other, event requests and more in the
/// admin queue. Returns what memory reads were to fill.
fn load(world: &mut World) -> Vec<u64> {
    world.create_pair(GUEST, 1, 32);
    world.create_pair(GUEST, 2, 32);
    let mut buffers = Vec::new();
    for index in 0..8_u64 {
        let data = world.hosts[GUEST].data(&[index as u8 + 1; 512]);
        world.send(GUEST, 1, sqe::write(NSID, index, 1, data));
        let (address, prps) = world.hosts[GUEST].buffer(512);
        world.memory(GUEST).fill(address, &[0xA5; 512]);
        buffers.push(address);
        world.send(GUEST, 1, sqe::read(NSID, 100, 1, prps));
        world.send(GUEST, 2, sqe::flush(NSID));
    }
    for _ in 0..3 {
        world.send(GUEST, 0, sqe::event_request());
        world.send(GUEST, 0, sqe::get_features(0x01, 0));
    }
    for queue in 0..3 {
        world.ring(GUEST, queue);
    }
    buffers
}

/// Everything in the guest's rings and buffers, where a late write would show.
fn footprint(world: &World, buffers: &[u64]) -> Vec<Vec<u8>> {
    let memory = world.memory(GUEST);
    let rings = world.hosts[GUEST].completion.values();
    rings
        .map(|ring| memory.bytes(ring.area.at(0), ring.entries as usize * 16))
        .chain(buffers.iter().map(|buffer| memory.bytes(*buffer, 512)))
        .collect()
}

pub(crate) fn a_reset_with_commands_under_way_drops_them_and_writes_nothing_later(backend: &dyn Backend) {
    for (reset_name, reset) in RESETS {
        for (progress_name, progress) in PROGRESS {
            let name = format!("{reset_name}, {progress_name}");
            let mut world = World::new(backend);
            let buffers = load(&mut world);
            progress(&mut world);
            reset(&mut world);
            // The reset is complete once RDY reads zero; from then on the memory is the host's.
            world.settle();
            assert_eq!(world.read32(GUEST, CSTS) & 3, 0, "{name}");
            let before = footprint(&world, &buffers);
            world.settle();
            world.enable(GUEST);
            world.admin(GUEST, sqe::get_features(0x01, 0)).ok();
            world.create_pair(GUEST, 1, 16);
            world.exec(GUEST, 1, sqe::flush(NSID)).ok();
            let rings: Vec<Vec<u8>> = footprint(&world, &buffers);
            assert_eq!(before[3..], rings[rings.len() - buffers.len()..], "{name}: buffers");
            for buffer in &buffers {
                let bytes = world.memory(GUEST).bytes(*buffer, 512);
                assert!(bytes == [0xA5; 512] || bytes == [0; 512], "{name}: a read is whole or not at all");
            }
            // Each write took effect wholly or not at all.
            for index in 0..8_u64 {
                let block = world.read_blocks(GUEST, NSID, index, 1);
                assert!(block == [0; 512] || block == [index as u8 + 1; 512], "{name}: block {index}");
            }
            assert!(world.hosts[GUEST].done.is_empty(), "{name}: completions of the life before");
        }
    }
}

pub(crate) fn old_queues_are_gone_after_a_reset(backend: &dyn Backend) {
    for (name, reset) in RESETS {
        let mut world = World::new(backend);
        load(&mut world);
        world.begin();
        reset(&mut world);
        world.settle();
        let old = world.hosts[GUEST].clone();
        world.enable(GUEST);
        let request = world.leave(GUEST, 0, sqe::event_request());
        world.hosts[GUEST].submission.insert(2, old.submission[&2].clone());
        world.ring(GUEST, 2);
        assert_eq!(
            world.event(GUEST, request),
            Some((0x0001_0000, 0)),
            "{name}: its doorbell does not exist"
        );
        assert_eq!(world.admin(GUEST, sqe::delete_sq(2)).code, INVALID_QUEUE_ID, "{name}");
        assert_eq!(world.admin(GUEST, sqe::delete_cq(2)).code, INVALID_QUEUE_ID, "{name}");
    }
}

pub(crate) fn many_resets_in_a_row(backend: &dyn Backend) {
    let mut world = World::new(backend);
    for round in 0..50_u32 {
        world.create_pair(GUEST, 1, 16);
        for _ in 0..round % 12 {
            world.send(GUEST, 1, sqe::flush(NSID));
        }
        world.ring(GUEST, 1);
        if round % 2 == 0 {
            world.begin();
        }
        let (_, reset) = RESETS[round as usize % 4];
        reset(&mut world);
        world.settle();
        world.enable(GUEST);
    }
    world.create_pair(GUEST, 1, 16);
    world.exec(GUEST, 1, sqe::flush(NSID)).ok();
}

pub(crate) fn a_shutdown_with_commands_under_way_completes_what_it_took(backend: &dyn Backend) {
    for notification in [1_u32, 2] {
        for (progress_name, progress) in PROGRESS {
            let name = format!("SHN {notification}, {progress_name}");
            let mut world = World::new(backend);
            let buffers = load(&mut world);
            progress(&mut world);
            world.write32(GUEST, CC, ENABLE | notification << 14);
            world.settle();
            assert_eq!(world.read32(GUEST, CSTS) & 0x4F, 2 << 2 | 1, "{name}: complete, still ready");
            let before = footprint(&world, &buffers);
            // Nothing is taken any more, and nothing is written.
            world.submit(GUEST, 2, sqe::flush(NSID));
            world.submit(GUEST, 0, sqe::get_features(0x01, 0));
            world.write32(GUEST, 0x1000 + 8 * 200, 1);
            world.settle();
            assert_eq!(footprint(&world, &buffers), before, "{name}");
            world.harvest_all();
            let done = &world.hosts[GUEST].done;
            let mut ids: Vec<_> = done.iter().map(|done| (done.queue, done.command)).collect();
            ids.sort_unstable();
            ids.dedup();
            assert_eq!(ids.len(), done.len(), "{name}: each once");
            for done in done {
                assert!(matches!(done.code, SUCCESS | ABORTED_SQ_DELETION), "{name}: {done:?}");
            }
            world.admin(OTHER_GUEST, sqe::get_features(0x01, 0)).ok();
            // A write that was completed is there after the next enable.
            let completed: Vec<u16> = done_writes(&world).into_iter().collect();
            world.reset(GUEST);
            assert_eq!(world.read32(GUEST, CSTS), 1, "{name}: normal operation again");
            world.create_pair(GUEST, 1, 16);
            for index in completed {
                let block = world.read_blocks(GUEST, NSID, u64::from(index), 1);
                assert_eq!(block, [index as u8 + 1; 512], "{name}: block {index}");
            }
        }
    }
}

/// Blocks whose write by [`load`] was completed. Its identifiers go in steps of three, the write first.
fn done_writes(world: &World) -> Vec<u16> {
    let first = world.hosts[GUEST].done.iter().filter(|done| done.queue == 1).map(|done| done.command).min();
    let Some(first) = first else { return Vec::new() };
    let done = world.hosts[GUEST].done.iter().filter(|done| done.queue == 1);
    done.map(|done| done.command - first).filter(|at| at.is_multiple_of(3)).map(|at| at / 3).collect()
}

pub(crate) fn a_shutdown_ends_in_a_reset_whenever_it_comes(backend: &dyn Backend) {
    for (progress_name, progress) in PROGRESS {
        let mut world = World::new(backend);
        load(&mut world);
        progress(&mut world);
        world.write32(GUEST, CC, ENABLE | 1 << 14);
        // Not waiting for its end is a fault of the host, which a controller survives.
        world.write32(GUEST, CC, 0);
        world.settle();
        assert_eq!(world.read32(GUEST, CSTS) & 0xF, 0, "{progress_name}");
        world.enable(GUEST);
        world.create_pair(GUEST, 1, 16);
        world.exec(GUEST, 1, sqe::flush(NSID)).ok();
    }
}

pub(crate) fn an_abrupt_shutdown_may_follow_a_normal_one(backend: &dyn Backend) {
    let mut world = World::new(backend);
    load(&mut world);
    world.write32(GUEST, CC, ENABLE | 1 << 14);
    world.write32(GUEST, CC, ENABLE | 2 << 14);
    world.settle();
    assert_eq!(world.read32(GUEST, CSTS) & 0x4C, 2 << 2);
    world.reset(GUEST);
    world.admin(GUEST, sqe::get_features(0x01, 0)).ok();
}

pub(crate) fn a_shutdown_of_a_suspended_controller_and_of_its_manager(backend: &dyn Backend) {
    let mut world = World::new(backend);
    load(&mut world);
    world.begin();
    world.admin(MANAGER, sqe::suspend(GUEST_ID)).ok();
    world.write32(GUEST, CC, ENABLE | 1 << 14);
    world.settle();
    assert!(world.read32(GUEST, CSTS) & 0xC != 0, "the shutdown is noted");
    world.admin(MANAGER, sqe::resume(GUEST_ID)).ok();
    world.settle();
    assert_eq!(world.read32(GUEST, CSTS) & 0xC, 2 << 2, "at the latest after Resume it is complete");
    world.write32(MANAGER, CC, ENABLE | 1 << 14);
    world.settle();
    assert_eq!(world.read32(MANAGER, CSTS) & 0xC, 2 << 2);
    world.reset(MANAGER);
    world.reset(GUEST);
    world.admin(MANAGER, sqe::suspend(GUEST_ID)).ok();
    world.admin(MANAGER, sqe::resume(GUEST_ID)).ok();
}

// SPDX-License-Identifier: MIT OR Apache-2.0
//! What bounds the work of one command and of one controller's turn, and what is durable when a command completes. NVM
//! Command Set 1.1 §4.1.5.4, I/O Command Set specific Identify Controller data structure.

use crate::harness::sqe::{self, Sqe};
use crate::harness::status::*;
use crate::harness::*;

fn ranges(world: &World, ranges: &[(u64, u32)]) -> Sqe {
    let mut bytes = Vec::new();
    for (start, blocks) in ranges {
        bytes.extend([0; 4]);
        bytes.extend(blocks.to_le_bytes());
        bytes.extend(start.to_le_bytes());
    }
    sqe::deallocate(NSID, ranges.len() as u32, world.hosts[GUEST].data(&bytes))
}

fn copy(world: &World, start: u64, blocks: u16, to: u64) -> Sqe {
    let mut bytes = vec![0; 32];
    bytes[8..16].copy_from_slice(&start.to_le_bytes());
    bytes[16..18].copy_from_slice(&(blocks - 1).to_le_bytes());
    sqe::copy(NSID, to, 1, world.hosts[GUEST].data(&bytes))
}

/// Get LBA Status of allocated blocks into `bytes` bytes.
fn lba_status(world: &World, bytes: u32) -> Sqe {
    let prps = world.hosts[GUEST].buffer(u64::from(bytes)).1;
    Sqe::new(0x86).namespace(NSID).prps(prps).dword(12, bytes / 4 - 1).dword(13, 2 << 24)
}

#[test]
fn size_limits_are_reported_and_kept() {
    type Limit = (&'static str, fn(&mut Setup), usize, fn(&World, u32) -> Sqe, Code);
    let rows: [Limit; 6] = [
        ("VSL", |s| s.config.max_verify_shift = 1, 0, |_, n| sqe::verify(NSID, 0, n), INVALID_FIELD),
        (
            "WZSL",
            |s| s.config.max_write_zeroes_shift = 1,
            1,
            |_, n| sqe::write_zeroes(NSID, 0, n),
            SIZE_LIMIT_EXCEEDED,
        ),
        (
            "WZSL with deallocation",
            |s| s.config.max_write_zeroes_shift = 1,
            1,
            |_, n| sqe::write_zeroes(NSID, 0, n).or(12, 1 << 25),
            SIZE_LIMIT_EXCEEDED,
        ),
        (
            "WUSL",
            |s| s.config.max_write_uncorrectable_shift = 1,
            2,
            |_, n| sqe::write_uncorrectable(NSID, 0, n),
            INVALID_FIELD,
        ),
        // 64 KiB are 16 blocks of the namespace with the largest.
        (
            "DMRSL",
            |s| s.config.max_dataset_bytes = 64 << 10,
            4,
            |w, n| ranges(w, &[(0, n)]),
            SIZE_LIMIT_EXCEEDED,
        ),
        (
            "DMSL",
            |s| s.config.max_dataset_bytes = 64 << 10,
            8,
            |w, n| ranges(w, &[(0, 8), (8, n - 8)]),
            SIZE_LIMIT_EXCEEDED,
        ),
    ];
    for (name, limit, byte, command, code) in rows {
        let mut world = World::with(limit);
        world.create_pair(GUEST, 1, 16);
        let identity = world.identify(GUEST, 0x06, 0, 0);
        let shown = if byte < 4 { 1 } else { 16 };
        assert_eq!(identity[byte], shown, "{name} is reported");
        let disk = world.disk(NSID);
        (0..20).for_each(|lba| disk.put(lba, 0xEE));
        let too_long = command(&world, 17);
        assert_eq!(world.exec(GUEST, 1, too_long).code, code, "{name}: a block more");
        assert!((0..20).all(|lba| disk.block(lba)[0] == 0xEE), "{name}: nothing is done");
        let longest = command(&world, 16);
        world.exec(GUEST, 1, longest).ok();
    }
}

#[test]
fn zero_stands_for_no_limit() {
    let mut world = World::with(|setup| {
        setup.config.max_verify_shift = 0;
        setup.config.max_write_zeroes_shift = 0;
        setup.config.max_write_uncorrectable_shift = 0;
        setup.config.max_dataset_ranges = 0;
        setup.config.max_dataset_bytes = u64::MAX;
    });
    world.create_pair(GUEST, 1, 16);
    let identity = world.identify(GUEST, 0x06, 0, 0);
    assert_eq!((identity[..4].to_vec(), identity[4..8].to_vec()), (vec![0; 4], vec![0xFF; 4]));
    let blocks = BLOCKS as u32;
    let all = ranges(&world, &[(0, blocks); 256]);
    for command in [
        sqe::verify(NSID, 0, blocks),
        sqe::write_zeroes(NSID, 0, blocks),
        sqe::write_uncorrectable(NSID, 0, blocks),
        all,
    ] {
        world.exec(GUEST, 1, command).ok();
    }
}

#[test]
fn the_number_of_ranges_is_bounded() {
    let mut world = World::with(|setup| setup.config.max_dataset_ranges = 2);
    world.create_pair(GUEST, 1, 16);
    assert_eq!(world.identify(GUEST, 0x06, 0, 0)[3], 2, "DMRL");
    let two = ranges(&world, &[(0, 1), (9, 1)]);
    world.exec(GUEST, 1, two).ok();
    let three = ranges(&world, &[(0, 1), (9, 1), (18, 1)]);
    assert_eq!(world.exec(GUEST, 1, three).code, SIZE_LIMIT_EXCEEDED);
}

#[test]
fn a_turn_ends_with_its_work() {
    // Commands of 32 KiB in turns of 64 KiB.
    const COUNT: usize = 12;
    type Work = (&'static str, usize, fn(&World) -> Sqe);
    let rows: [Work; 12] = [
        ("Read", 2, |w| sqe::read(NSID, 0, 64, w.hosts[GUEST].buffer(1 << 15).1)),
        ("Write", 2, |w| sqe::write(NSID, 0, 64, w.hosts[GUEST].buffer(1 << 15).1)),
        ("Compare", 2, |w| sqe::compare(NSID, 0, 64, w.hosts[GUEST].buffer(1 << 15).1)),
        ("Verify", 2, |_| sqe::verify(NSID, 0, 64)),
        ("Write Zeroes", 2, |_| sqe::write_zeroes(NSID, 0, 64)),
        ("Write Uncorrectable", 2, |_| sqe::write_uncorrectable(NSID, 2048, 64)),
        ("Deallocate", 2, |w| ranges(w, &[(0, 32), (100, 32)])),
        ("Deallocate of single blocks", 4, |w| ranges(w, &[(0, 1), (10, 1), (20, 1), (30, 1)])),
        ("Copy reads and writes", 1, |w| copy(w, 0, 64, 100)),
        ("Flush", 1, |_| sqe::flush(NSID)),
        ("larger than a turn", 1, |_| sqe::verify(NSID, 0, 4096)),
        ("small ones", COUNT, |w| sqe::read(NSID, 0, 1, w.hosts[GUEST].buffer(512).1)),
    ];
    for (name, expected, command) in rows {
        let mut world = World::with(|setup| setup.config.turn_bytes = 64 << 10);
        world.create_pair(GUEST, 1, 16);
        world.create_pair(OTHER_GUEST, 1, 16);
        for _ in 0..COUNT {
            let command = command(&world);
            world.send(GUEST, 1, command);
        }
        world.ring(GUEST, 1);
        let other = world.submit(OTHER_GUEST, 1, sqe::flush(NSID));
        let mut done = 0;
        while done < COUNT {
            let pending = world.subsystem.poll(64).pending;
            let now = world.harvest(GUEST, 1);
            assert_eq!(now, expected.min(COUNT - done), "{name}: after {done}");
            done += now;
            assert_eq!(pending, done < COUNT, "{name}: says that more is to do");
            if done == now {
                world.harvest(OTHER_GUEST, 1);
                world.hosts[OTHER_GUEST].take(1, other).expect("nobody waits for another's work").ok();
            }
        }
        for done in world.hosts[GUEST].done.clone() {
            done.ok();
        }
    }
}

#[test]
fn a_state_ends_however_much_is_asked_for() {
    let mut world = World::with(|setup| setup.config.max_transfer_shift = 0);
    let host = &world.hosts[MANAGER];
    // A list that goes on for ever: its last slot names the page it is in.
    let (data, list) = (host.allocate(4096), host.allocate(4096));
    host.memory.fill_addresses(list, &[data; 511]);
    host.memory.fill_addresses(list + 511 * 8, &[list]);
    let before = host.memory.device_accesses();
    let state = sqe::get_state(GUEST_ID, (1, 0), 0, 0xFFFF_FFFC, (data, list));
    world.admin(MANAGER, state).ok();
    let after = world.memory(MANAGER).device_accesses();
    assert!(after.0 - before.0 < 8 && after.1 - before.1 < 8, "{before:?} {after:?}");
}

#[test]
fn the_largest_transfer_binds_admin_commands_too() {
    let world = || World::with(|setup| setup.config.max_transfer_shift = 1);
    for (name, bytes, code) in [("as much as allowed", 8192, SUCCESS), ("more", 8196, INVALID_FIELD)] {
        let mut lba = world();
        let command = lba_status(&lba, bytes);
        assert_eq!(lba.admin(GUEST, command).code, code, "Get LBA Status, {name}");

        let mut tracked = world();
        let area = tracked.hosts[GUEST].allocate(4096);
        let mut header = vec![0; 8];
        header[4] = 1;
        header.extend(area.to_le_bytes());
        header.extend(1_u32.to_le_bytes());
        let prps = tracked.hosts[MANAGER].data(&header);
        tracked.admin(MANAGER, sqe::start_memory_tracking(GUEST_ID, prps)).ok();
        let prps = tracked.hosts[MANAGER].buffer(u64::from(bytes)).1;
        let receive = sqe::track_receive(GUEST_ID, bytes, prps);
        assert_eq!(tracked.admin(MANAGER, receive).code, code, "Track Receive, {name}");
    }
}

#[test]
fn without_a_write_cache_everything_is_durable() {
    type Change = (&'static str, fn(&World) -> Sqe);
    let changes: [Change; 5] = [
        ("Write", |w| sqe::write(NSID, 0, 1, w.hosts[GUEST].buffer(512).1)),
        ("Write Zeroes", |_| sqe::write_zeroes(NSID, 0, 1)),
        ("Write Uncorrectable", |_| sqe::write_uncorrectable(NSID, 0, 1)),
        ("Deallocate", |w| ranges(w, &[(0, 1), (9, 1)])),
        ("Copy", |w| copy(w, 100, 1, 0)),
    ];
    type Cache = (&'static str, bool, Option<u32>, u32);
    let caches: [Cache; 4] = [
        ("a cache that is enabled", true, None, 0),
        ("disabled", true, Some(0), 1),
        ("disabled and enabled again", true, Some(1), 0),
        ("no cache reported", false, None, 1),
    ];
    for (cache, reported, set, expected) in caches {
        for (name, command) in changes {
            let mut world = World::with(|setup| setup.config.volatile_write_cache = reported);
            world.create_pair(GUEST, 1, 16);
            if let Some(enable) = set {
                world.admin(GUEST, sqe::set_features(0x06, 0)).ok();
                world.admin(GUEST, sqe::set_features(0x06, enable)).ok();
            }
            let command = command(&world);
            let before = world.disk(NSID).flushes();
            world.exec(GUEST, 1, command).ok();
            assert_eq!(world.disk(NSID).flushes() - before, expected, "{name}: {cache}");
            world.disk(NSID).fail_flush();
            let code = world.exec(GUEST, 1, command).code;
            let failed = if expected == 0 { SUCCESS } else { WRITE_FAULT };
            assert_eq!(code, failed, "{name}: {cache}, and it cannot be flushed");
        }
    }
}

#[test]
fn neighbours_of_one_deallocation_are_one_entry() {
    type Case = (&'static str, &'static [(u64, u32)], &'static [&'static str]);
    let rows: [Case; 6] = [
        ("following", &[(100, 4), (104, 4)], &["000b 1:100+8-"]),
        ("before", &[(104, 4), (100, 4)], &["000b 1:100+8-"]),
        ("overlapping", &[(100, 8), (104, 8), (90, 12)], &["000b 1:90+22-"]),
        ("the same again and again", &[(100, 8); 60], &["000b 1:100+8-"]),
        ("a block between", &[(100, 4), (105, 4)], &["000b 1:100+4-", "000b 1:105+4-"]),
        ("joined by a later one", &[(100, 4), (108, 4), (104, 4)], &["000b 1:100+4-", "000b 1:104+8-"]),
    ];
    for (name, list, expected) in rows {
        let mut world = World::new();
        let mut queue = world.logged_guest(64);
        let command = ranges(&world, list);
        world.exec(GUEST, 1, command).ok();
        assert_eq!(queue.texts(), expected, "{name}");
    }
}

#[test]
fn a_deallocation_that_fails_has_logged_what_it_did() {
    let mut world = World::new();
    let mut queue = world.logged_guest(64);
    let command = ranges(&world, &[(100, 4), (104, 4), (200, 1)]);
    world.disk(NSID).fail_write(105, nvme_controller::host::StorageError::Write);
    assert_eq!(world.exec(GUEST, 1, command).code, WRITE_FAULT);
    // The failing range may have changed.
    assert_eq!(queue.texts(), ["000b 1:100+4-", "000b 1:104+4"]);
}

#[test]
fn a_sequence_of_state_parts_belongs_to_its_sender() {
    let mut source = World::new();
    source.admin(MANAGER, sqe::suspend(GUEST_ID)).ok();
    let image = source.get_image(MANAGER, GUEST_ID, (1, 1));
    let (first, rest) = image.split_at(48);
    let mut world = World::with(|setup| setup.memories[GUEST] = source.memory(GUEST));
    world.admin(MANAGER, sqe::suspend(GUEST_ID)).ok();
    let part = world.state_part(MANAGER, GUEST_ID, sqe::FIRST, (1, 1), 0, first);
    world.admin(MANAGER, part).ok();
    for (name, sequence) in [("middle", sqe::MIDDLE), ("last", sqe::LAST)] {
        let part = world.state_part(OTHER_MANAGER, GUEST_ID, sequence, (1, 1), 48, rest);
        assert_eq!(world.admin(OTHER_MANAGER, part).code, SEQUENCE_ERROR, "{name} of another manager");
    }
    let part = world.state_part(MANAGER, GUEST_ID, sqe::LAST, (1, 1), 48, rest);
    world.admin(MANAGER, part).ok();
    world.admin(MANAGER, sqe::resume(GUEST_ID)).ok();

    // Another manager may begin anew, and a sequence ends with its sender.
    world.admin(MANAGER, sqe::suspend(GUEST_ID)).ok();
    let part = world.state_part(MANAGER, GUEST_ID, sqe::FIRST, (1, 1), 0, first);
    world.admin(MANAGER, part).ok();
    world.admin(OTHER_MANAGER, sqe::suspend(GUEST_ID)).ok();
    world.reset(MANAGER);
    let part = world.state_part(MANAGER, GUEST_ID, sqe::LAST, (1, 1), 48, rest);
    assert_eq!(world.admin(MANAGER, part).code, SEQUENCE_ERROR, "after the sender's reset");
    world.set_image(OTHER_MANAGER, GUEST_ID, (1, 1), &image).ok();
    world.admin(OTHER_MANAGER, sqe::resume(GUEST_ID)).ok();
}

#[test]
fn nothing_of_an_unusable_queue_is_left_to_fetch_at_the_destination() {
    let mut world = World::new();
    world.create_pair(GUEST, 1, 16);
    world.exec(GUEST, 1, sqe::flush(NSID)).ok();
    // Two commands, and then a tail past the end.
    world.send(GUEST, 1, sqe::flush(NSID));
    world.send(GUEST, 1, sqe::flush(NSID));
    world.ring(GUEST, 1);
    world.write32(GUEST, 0x1000 + 8, 99);
    world.admin(MANAGER, sqe::suspend(GUEST_ID)).ok();
    let bytes = world.get_image(MANAGER, GUEST_ID, (1, 0));
    let state = &image::Image::parse(&bytes).submission[0];
    assert_eq!((state.head, state.tail), (1, 1));
}

#[test]
fn what_transfers_nothing_is_work_too() {
    type Work = (&'static str, fn(&World) -> Sqe);
    // A list that names one page 1,024 times and ends badly: nothing is used up by it.
    fn bad_list(world: &World) -> u64 {
        let host = &world.hosts[MANAGER];
        let page = host.allocate(4096);
        let mut pages = vec![page; 1024];
        pages[1023] = page + 8;
        host.page_list(&pages)
    }
    let rows: [Work; 2] = [
        ("Create Controller Data Queue", |w| sqe::create_listed_cdq(GUEST_ID, 1024 * 1024, bad_list(w))),
        ("Tracked Memory Changes", |w| sqe::track_receive(GUEST_ID, 4096, w.hosts[MANAGER].buffer(4096).1)),
    ];
    for (name, command) in rows {
        let mut world = World::with(|setup| {
            setup.config.turn_bytes = 1 << 10;
            setup.config.max_queue_memory_ranges = 4096;
            let manager = setup.manager(MANAGER);
            (manager.max_queue_prps, manager.max_queue_memory_ranges) = (4096, 4096);
        });
        let mut tracked = vec![0_u8, 0, 0, 0, 1, 0, 0, 0];
        tracked.extend(world.memory(GUEST).allocate_aligned(4096 * 4096, 1 << 21).to_le_bytes());
        tracked.extend(4096_u32.to_le_bytes());
        let prps = world.hosts[MANAGER].data(&tracked);
        world.admin(MANAGER, sqe::start_memory_tracking(GUEST_ID, prps)).ok();
        for _ in 0..3 {
            let command = command(&world);
            world.send(MANAGER, 0, command);
        }
        world.ring(MANAGER, 0);
        for turn in 1..=3 {
            world.subsystem.poll(64);
            assert_eq!(world.harvest(MANAGER, 0), 1, "{name}: turn {turn}");
        }
    }
}

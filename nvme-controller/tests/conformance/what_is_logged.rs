// SPDX-License-Identifier: MIT OR Apache-2.0
//! Which commands leave which entries in a User Data Migration Queue. NVM Command Set 1.1 §5.6.

use std::cell::RefCell;
use std::rc::Rc;

use nvme_controller::host::StorageError;

use crate::harness::sqe;
use crate::harness::status::*;
use crate::harness::*;

fn ranges(world: &World, ranges: &[(u64, u32)]) -> (u64, u64) {
    let bytes: Vec<u8> = ranges
        .iter()
        .flat_map(|(start, blocks)| {
            [[0; 4], blocks.to_le_bytes()].concat().into_iter().chain(start.to_le_bytes())
        })
        .collect();
    world.hosts[GUEST].data(&bytes)
}

/// Source ranges of Copy, format 0: first block and natural number of blocks.
fn sources(world: &World, sources: &[(u64, u16)]) -> (u64, u64) {
    let mut bytes = vec![0; sources.len() * 32];
    for (range, (start, blocks)) in bytes.chunks_exact_mut(32).zip(sources) {
        range[8..16].copy_from_slice(&start.to_le_bytes());
        range[16..18].copy_from_slice(&(blocks - 1).to_le_bytes());
    }
    world.hosts[GUEST].data(&bytes)
}

fn buffer(world: &World, blocks: u64) -> (u64, u64) {
    world.hosts[GUEST].buffer(blocks * 512).1
}

/// A fused pair on queue 1; returns the codes of both.
fn fused(world: &mut World, first: sqe::Sqe, second: sqe::Sqe) -> (Code, Code) {
    let first = world.send(GUEST, 1, first.or(0, 1 << 8));
    let second = world.send(GUEST, 1, second.or(0, 2 << 8));
    world.ring(GUEST, 1);
    world.run();
    let host = &mut world.hosts[GUEST];
    (host.take(1, first).expect("first completes").code, host.take(1, second).expect("second completes").code)
}

#[test]
fn every_command_leaves_its_entries() {
    type Action = fn(&mut World) -> Code;
    let rows: [(&str, Action, Code, &[&str]); 38] = [
        ("Write of one block", |w| w.try_write(GUEST, NSID, 9, 1, 1).code, SUCCESS, &["000b 1:9+1"]),
        ("Write of eight blocks", |w| w.try_write(GUEST, NSID, 16, 8, 1).code, SUCCESS, &["000b 1:16+8"]),
        ("Write of 100 blocks", |w| w.try_write(GUEST, NSID, 16, 100, 1).code, SUCCESS, &["000b 1:16+100"]),
        (
            "Write of the last block",
            |w| w.try_write(GUEST, NSID, BLOCKS - 1, 1, 1).code,
            SUCCESS,
            &["000b 1:4095+1"],
        ),
        (
            "Write to the other namespace",
            |w| w.try_write(GUEST, LARGE_BLOCKS_NSID, 5, 2, 1).code,
            SUCCESS,
            &["000b 3:5+2"],
        ),
        (
            "Write with FUA",
            |w| w.exec(GUEST, 1, sqe::write(NSID, 3, 1, buffer(w, 1)).or(12, 1 << 30)).code,
            SUCCESS,
            &["000b 1:3+1"],
        ),
        (
            "Write Zeroes",
            |w| w.exec(GUEST, 1, sqe::write_zeroes(NSID, 20, 30)).code,
            SUCCESS,
            &["000b 1:20+30"],
        ),
        (
            "Write Zeroes of 65,536 blocks is out of range",
            |w| w.exec(GUEST, 1, sqe::write_zeroes(NSID, 0, 65_536)).code,
            LBA_OUT_OF_RANGE,
            &[],
        ),
        (
            "Write Zeroes of all blocks",
            |w| w.exec(GUEST, 1, sqe::write_zeroes(NSID, 0, 4096)).code,
            SUCCESS,
            &["000b 1:0+4096"],
        ),
        (
            "Deallocate of one range",
            |w| {
                let prps = ranges(w, &[(40, 8)]);
                w.exec(GUEST, 1, sqe::deallocate(NSID, 1, prps)).code
            },
            SUCCESS,
            &["000b 1:40+8-"],
        ),
        (
            "Deallocate of one block is one-based in the command and zero-based in the entry",
            |w| {
                let prps = ranges(w, &[(40, 1)]);
                w.exec(GUEST, 1, sqe::deallocate(NSID, 1, prps)).code
            },
            SUCCESS,
            &["000b 1:40+1-"],
        ),
        (
            "Deallocate of separate ranges",
            |w| {
                let prps = ranges(w, &[(100, 4), (200, 5), (50, 6)]);
                w.exec(GUEST, 1, sqe::deallocate(NSID, 3, prps)).code
            },
            SUCCESS,
            &["000b 1:100+4-", "000b 1:200+5-", "000b 1:50+6-"],
        ),
        (
            "Deallocate of an empty range between others",
            |w| {
                let prps = ranges(w, &[(100, 4), (200, 0), (50, 6)]);
                w.exec(GUEST, 1, sqe::deallocate(NSID, 3, prps)).code
            },
            SUCCESS,
            &["000b 1:100+4-", "000b 1:50+6-"],
        ),
        (
            "Deallocate with a range that does not exist",
            |w| {
                let prps = ranges(w, &[(100, 4), (4090, 7)]);
                w.exec(GUEST, 1, sqe::deallocate(NSID, 2, prps)).code
            },
            LBA_OUT_OF_RANGE,
            &[],
        ),
        (
            "Dataset Management without deallocation",
            |w| {
                let prps = ranges(w, &[(100, 4)]);
                w.exec(GUEST, 1, sqe::deallocate(NSID, 1, prps).dword(11, 3)).code
            },
            SUCCESS,
            &[],
        ),
        (
            "Copy of one range",
            |w| {
                let prps = sources(w, &[(0, 8)]);
                w.exec(GUEST, 1, sqe::copy(NSID, 300, 1, prps)).code
            },
            SUCCESS,
            &["000b 1:300+8"],
        ),
        (
            "Copy of three ranges",
            |w| {
                let prps = sources(w, &[(0, 8), (50, 2), (20, 1)]);
                w.exec(GUEST, 1, sqe::copy(NSID, 300, 3, prps)).code
            },
            SUCCESS,
            &["000b 1:300+11"],
        ),
        (
            "Copy from a range that does not exist",
            |w| {
                let prps = sources(w, &[(0, 8), (4095, 2)]);
                w.exec(GUEST, 1, sqe::copy(NSID, 300, 2, prps)).code
            },
            LBA_OUT_OF_RANGE,
            &[],
        ),
        (
            "Copy to a range that does not exist",
            |w| {
                let prps = sources(w, &[(0, 8)]);
                w.exec(GUEST, 1, sqe::copy(NSID, 4090, 1, prps)).code
            },
            LBA_OUT_OF_RANGE,
            &[],
        ),
        (
            "Write Uncorrectable",
            |w| w.exec(GUEST, 1, sqe::write_uncorrectable(NSID, 70, 3)).code,
            SUCCESS,
            &["000b 1:70+3"],
        ),
        (
            "Compare and Write that matches",
            |w| {
                let (compare, write) =
                    (sqe::compare(NSID, 5, 2, buffer(w, 2)), sqe::write(NSID, 5, 2, buffer(w, 2)));
                let codes = fused(w, compare, write);
                assert_eq!(codes.0, SUCCESS);
                codes.1
            },
            SUCCESS,
            &["000b 1:5+2"],
        ),
        (
            "Compare and Write that does not match",
            |w| {
                w.disk(NSID).put(6, 0xFF);
                let (compare, write) =
                    (sqe::compare(NSID, 5, 2, buffer(w, 2)), sqe::write(NSID, 5, 2, buffer(w, 2)));
                let codes = fused(w, compare, write);
                assert_eq!(codes.0, COMPARE_FAILURE);
                codes.1
            },
            ABORTED_FAILED_FUSED,
            &[],
        ),
        ("Read", |w| w.exec(GUEST, 1, sqe::read(NSID, 0, 4, buffer(w, 4))).code, SUCCESS, &[]),
        ("Compare", |w| w.exec(GUEST, 1, sqe::compare(NSID, 0, 4, buffer(w, 4))).code, SUCCESS, &[]),
        ("Verify", |w| w.exec(GUEST, 1, sqe::verify(NSID, 0, 4)).code, SUCCESS, &[]),
        ("Flush", |w| w.exec(GUEST, 1, sqe::flush(NSID)).code, SUCCESS, &[]),
        ("Write beyond the end", |w| w.try_write(GUEST, NSID, BLOCKS - 1, 2, 1).code, LBA_OUT_OF_RANGE, &[]),
        (
            "Write with a PRP that has an offset",
            |w| {
                let (prp1, _) = buffer(w, 16);
                w.exec(GUEST, 1, sqe::write(NSID, 0, 16, (prp1, prp1 + 0x1008))).code
            },
            PRP_OFFSET,
            &[],
        ),
        (
            "Write from memory that is not there",
            |w| {
                let (prp1, _) = buffer(w, 1);
                w.memory(GUEST).unmap(prp1, 512);
                w.exec(GUEST, 1, sqe::write(NSID, 0, 1, (prp1, 0))).code
            },
            DATA_TRANSFER_ERROR,
            &[],
        ),
        (
            "Write to a namespace that is not there",
            |w| w.exec(GUEST, 1, sqe::write(99, 0, 1, buffer(w, 1))).code,
            INVALID_NAMESPACE,
            &[],
        ),
        (
            "Write that the media fails may have changed its blocks",
            |w| {
                w.disk(NSID).fail_write(11, StorageError::Write);
                w.try_write(GUEST, NSID, 10, 4, 1).code
            },
            WRITE_FAULT,
            &["000b 1:10+4"],
        ),
        (
            "Write Zeroes that the media fails",
            |w| {
                w.disk(NSID).fail_write(11, StorageError::Write);
                w.exec(GUEST, 1, sqe::write_zeroes(NSID, 10, 4)).code
            },
            WRITE_FAULT,
            &["000b 1:10+4"],
        ),
        (
            "Deallocate whose second range the media fails",
            |w| {
                w.disk(NSID).fail_write(201, StorageError::Write);
                let prps = ranges(w, &[(100, 4), (200, 5), (50, 6)]);
                w.exec(GUEST, 1, sqe::deallocate(NSID, 3, prps)).code
            },
            WRITE_FAULT,
            &["000b 1:100+4-", "000b 1:200+5"],
        ),
        (
            "Write Uncorrectable that the media fails",
            |w| {
                w.disk(NSID).fail_write(11, StorageError::Write);
                w.exec(GUEST, 1, sqe::write_uncorrectable(NSID, 10, 4)).code
            },
            WRITE_FAULT,
            &["000b 1:10+4"],
        ),
        (
            "Copy whose second source cannot be read has changed the first",
            |w| {
                w.disk(NSID).fail_read(50, StorageError::Read);
                let prps = sources(w, &[(0, 8), (50, 2)]);
                w.exec(GUEST, 1, sqe::copy(NSID, 300, 2, prps)).code
            },
            UNRECOVERED_READ,
            &["000b 1:300+8"],
        ),
        (
            "Write through another migratable controller",
            |w| {
                w.create_pair(OTHER_GUEST, 1, 16);
                w.try_write(OTHER_GUEST, NSID, 0, 1, 1).code
            },
            SUCCESS,
            &[],
        ),
        (
            "Write through the managing controller",
            |w| {
                w.create_pair(MANAGER, 1, 16);
                w.try_write(MANAGER, NSID, 0, 1, 1).code
            },
            SUCCESS,
            &[],
        ),
        (
            "Write through any queue of the controller",
            |w| {
                w.create_pair(GUEST, 3, 16);
                w.exec(GUEST, 3, sqe::write(NSID, 12, 1, buffer(w, 1))).code
            },
            SUCCESS,
            &["000b 1:12+1"],
        ),
    ];
    let mut wrong = Vec::new();
    for (name, action, code, expected) in rows {
        println!("row: {name}");
        let mut world = World::new();
        let mut queue = world.logged_guest(64);
        let (found, texts) = (action(&mut world), queue.texts());
        if found != code || texts != expected {
            wrong.push(format!("{name}: {code:?} and {expected:?} expected, {found:?} and {texts:?} found"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn write_zeroes_with_deallocation_covers_its_range() {
    let mut world = World::new();
    let mut queue = world.logged_guest(16);
    world.exec(GUEST, 1, sqe::write_zeroes(NSID, 20, 30).or(12, 1 << 25)).ok();
    let entries = queue.take();
    // Both values of DLBA are allowed for deallocated blocks.
    assert_eq!(entries.iter().map(|entry| (entry.slba, entry.nlb)).collect::<Vec<_>>(), [(20, 29)]);
}

#[test]
fn adjacent_ranges_are_covered_whether_merged_or_not() {
    let mut world = World::new();
    let mut queue = world.logged_guest(64);
    let prps = ranges(&world, &[(10, 5), (15, 5), (20, 1), (400, 2), (402, 3)]);
    world.exec(GUEST, 1, sqe::deallocate(NSID, 5, prps)).ok();
    let mut blocks: Vec<u64> = queue
        .take()
        .iter()
        .inspect(|entry| assert!(entry.deallocated))
        .flat_map(|entry| entry.slba..=entry.slba + u64::from(entry.nlb))
        .collect();
    blocks.sort_unstable();
    assert_eq!(blocks, (10..21).chain(400..405).collect::<Vec<_>>());
}

#[test]
fn ranges_wider_than_32_bits_of_blocks_are_covered() {
    let mut world = World::with(|setup| {
        setup.disks[0].1 = Disk::new(9, 1 << 40);
        setup.config.max_dataset_bytes = u64::MAX;
        setup.config.max_write_zeroes_shift = 0;
    });
    let mut queue = world.logged_guest(64);
    let prps = ranges(&world, &[(1 << 39, u32::MAX)]);
    world.exec(GUEST, 1, sqe::deallocate(NSID, 1, prps)).ok();
    assert_eq!(queue.texts(), ["000b 1:549755813888+4294967295-"]);
    world.exec(GUEST, 1, sqe::write_zeroes(NSID, (1 << 39) + 5, 65_536).or(12, 1 << 25)).ok();
    let entries = queue.take();
    assert_eq!((entries.len(), entries[0].slba, entries[0].nlb), (1, (1 << 39) + 5, 65_535));
}

#[test]
fn an_entry_is_visible_only_after_its_data() {
    for (name, action, expected) in [
        ("Write", (|w| _ = w.try_write(GUEST, NSID, 9, 1, 0xA5)) as fn(&mut World), 0xA5),
        ("Write Zeroes", |w| _ = w.exec(GUEST, 1, sqe::write_zeroes(NSID, 9, 1)), 0),
        (
            "Deallocate",
            |w| {
                let prps = ranges(w, &[(9, 1)]);
                w.exec(GUEST, 1, sqe::deallocate(NSID, 1, prps)).ok();
            },
            0,
        ),
        (
            "Copy",
            |w| {
                w.disk(NSID).put(2, 0x77);
                let prps = sources(w, &[(2, 1)]);
                w.exec(GUEST, 1, sqe::copy(NSID, 9, 1, prps)).ok();
            },
            0x77,
        ),
    ] {
        let mut world = World::new();
        let queue = world.logged_guest(16);
        world.disk(NSID).put(9, 0xEE);
        let seen = Rc::new(RefCell::new(Vec::new()));
        let (disk, slot, found) = (world.disk(NSID), queue.slot_address(1), seen.clone());
        world.memory(MANAGER).watch(move |address, _| {
            if address == slot {
                found.borrow_mut().push(disk.block(9)[0]);
            }
        });
        action(&mut world);
        assert_eq!(*seen.borrow(), [expected], "{name}: what a read finds when the entry appears");
    }
}

#[test]
fn a_change_whose_completion_cannot_be_written_is_in_the_log() {
    let mut world = World::new();
    let mut queue = world.logged_guest(16);
    let base = world.hosts[GUEST].completion[&1].area.at(0);
    world.memory(GUEST).unmap(base, 4096);
    let prps = world.hosts[GUEST].data(&[7; 512]);
    world.submit(GUEST, 1, sqe::write(NSID, 4, 1, prps));
    world.settle();
    assert_eq!(queue.texts(), ["000b 1:4+1"]);
    assert_eq!(world.disk(NSID).block(4), [7; 512]);
    assert!(world.is_fatal(GUEST), "a completion that cannot be posted is fatal");
}

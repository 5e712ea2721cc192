// SPDX-License-Identifier: MIT OR Apache-2.0
//! Commands of the NVM command set: data, PRPs of every shape, ranges, namespaces and media errors. NVM Command Set 1.1
//! §3, NVMe Base 2.1 §4.3.1.

use nvme_controller::host::StorageError;

use crate::harness::sqe::{self, Sqe};
use crate::harness::status::*;
use crate::harness::*;

fn world() -> World {
    let mut world = World::new();
    world.create_pair(GUEST, 1, 64);
    world
}

fn io(world: &mut World, command: Sqe) -> Completion {
    world.exec(GUEST, 1, command)
}

fn buffer(world: &World, blocks: u32) -> (u64, u64) {
    world.hosts[GUEST].buffer(u64::from(blocks) * 512).1
}

fn try_read(world: &mut World, nsid: u32, start: u64, blocks: u32) -> Completion {
    let prps = world.hosts[GUEST].buffer(u64::from(blocks) * 4096).1;
    io(world, sqe::read(nsid, start, blocks, prps))
}

/// Content that differs from byte to byte and from block to block.
fn pattern(len: usize, seed: u8) -> Vec<u8> {
    (0..len).map(|at| (at as u8).wrapping_mul(7) ^ (at / 512) as u8 ^ (at / 131_072) as u8 ^ seed).collect()
}

#[test]
fn every_check_has_its_status() {
    check(
        world,
        &[
            ("Read", SUCCESS, |w| try_read(w, NSID, 0, 8)),
            ("Read of the last block", SUCCESS, |w| try_read(w, NSID, BLOCKS - 1, 1)),
            ("Read past the end", LBA_OUT_OF_RANGE, |w| try_read(w, NSID, BLOCKS - 1, 2)),
            ("Read from the end", LBA_OUT_OF_RANGE, |w| try_read(w, NSID, BLOCKS, 1)),
            ("Read from the last LBA there could be", LBA_OUT_OF_RANGE, |w| try_read(w, NSID, u64::MAX, 1)),
            ("Read whose end wraps", LBA_OUT_OF_RANGE, |w| try_read(w, NSID, u64::MAX - 3, 8)),
            ("Read, NSID 0", INVALID_NAMESPACE, |w| try_read(w, 0, 0, 1)),
            ("Read, NSID beyond the last", INVALID_NAMESPACE, |w| try_read(w, 4, 0, 1)),
            ("Read, inactive NSID", INVALID_FIELD, |w| try_read(w, INACTIVE_NSID, 0, 1)),
            ("Read, NSID FFFFFFFFh", INVALID_FIELD, |w| try_read(w, u32::MAX, 0, 1)),
            ("Read with protection information", INVALID_PROTECTION, |w| {
                let prps = buffer(w, 1);
                io(w, sqe::read(NSID, 0, 1, prps).or(12, 1 << 26))
            }),
            ("Write past the end", LBA_OUT_OF_RANGE, |w| w.try_write(GUEST, NSID, BLOCKS - 3, 4, 1)),
            ("Write, NSID 0", INVALID_NAMESPACE, |w| {
                let prps = buffer(w, 1);
                io(w, sqe::write(0, 0, 1, prps))
            }),
            ("Write, inactive NSID", INVALID_FIELD, |w| {
                let prps = buffer(w, 1);
                io(w, sqe::write(INACTIVE_NSID, 0, 1, prps))
            }),
            ("Flush", SUCCESS, |w| io(w, sqe::flush(NSID))),
            ("Flush of all namespaces", SUCCESS, |w| io(w, sqe::flush(u32::MAX))),
            ("Flush, NSID 0", INVALID_NAMESPACE, |w| io(w, sqe::flush(0))),
            ("Flush, inactive NSID", INVALID_FIELD, |w| io(w, sqe::flush(INACTIVE_NSID))),
            ("Write Zeroes past the end", LBA_OUT_OF_RANGE, |w| io(w, sqe::write_zeroes(NSID, BLOCKS, 1))),
            ("Write Uncorrectable past the end", LBA_OUT_OF_RANGE, |w| {
                io(w, sqe::write_uncorrectable(NSID, BLOCKS - 1, 2))
            }),
            ("Verify past the end", LBA_OUT_OF_RANGE, |w| io(w, sqe::verify(NSID, BLOCKS, 1))),
            ("Compare of equal blocks", SUCCESS, |w| {
                let prps = buffer(w, 2);
                io(w, sqe::compare(NSID, 0, 2, prps))
            }),
            ("Compare of different blocks", COMPARE_FAILURE, |w| {
                w.disk(NSID).put(1, 9);
                let prps = buffer(w, 2);
                io(w, sqe::compare(NSID, 0, 2, prps))
            }),
            ("Compare past the end", LBA_OUT_OF_RANGE, |w| {
                let prps = buffer(w, 2);
                io(w, sqe::compare(NSID, BLOCKS - 1, 2, prps))
            }),
            ("Deallocate, inactive NSID", INVALID_FIELD, |w| {
                let prps = buffer(w, 1);
                io(w, sqe::deallocate(INACTIVE_NSID, 1, prps))
            }),
            ("Copy with a reserved descriptor format", INVALID_FIELD, |w| {
                let prps = buffer(w, 1);
                io(w, sqe::copy(NSID, 100, 1, prps).or(12, 9 << 8))
            }),
            ("Read that the media fails", UNRECOVERED_READ, |w| {
                w.disk(NSID).fail_read(3, StorageError::Read);
                try_read(w, NSID, 0, 8)
            }),
            ("Verify that the media fails", UNRECOVERED_READ, |w| {
                w.disk(NSID).fail_read(3, StorageError::Read);
                io(w, sqe::verify(NSID, 0, 8))
            }),
            ("Write that the media fails", WRITE_FAULT, |w| {
                w.disk(NSID).fail_write(3, StorageError::Write);
                w.try_write(GUEST, NSID, 0, 8, 1)
            }),
            ("Write without space", CAPACITY_EXCEEDED, |w| {
                w.disk(NSID).fail_write(3, StorageError::CapacityExceeded);
                w.try_write(GUEST, NSID, 0, 8, 1)
            }),
            ("Write to protected media", WRITE_PROTECTED, |w| {
                w.disk(NSID).fail_write(3, StorageError::WriteProtected);
                w.try_write(GUEST, NSID, 0, 8, 1)
            }),
            ("Flush that the media fails", WRITE_FAULT, |w| {
                w.disk(NSID).fail_flush();
                io(w, sqe::flush(NSID))
            }),
            ("Read of an uncorrectable block", UNRECOVERED_READ, |w| {
                io(w, sqe::write_uncorrectable(NSID, 5, 1)).ok();
                try_read(w, NSID, 4, 4)
            }),
            ("Read of a block that was uncorrectable and written", SUCCESS, |w| {
                io(w, sqe::write_uncorrectable(NSID, 5, 1)).ok();
                w.write_blocks(GUEST, NSID, 5, 1, 1);
                try_read(w, NSID, 4, 4)
            }),
            ("Read with PSDT SGL", INVALID_FIELD, |w| {
                let prps = buffer(w, 1);
                io(w, sqe::read(NSID, 0, 1, prps).or(0, 1 << 14))
            }),
            ("Read with reserved FUSE", INVALID_FIELD, |w| {
                let prps = buffer(w, 1);
                io(w, sqe::read(NSID, 0, 1, prps).or(0, 3 << 8))
            }),
            ("second fused command alone", ABORTED_MISSING_FUSED, |w| {
                let prps = buffer(w, 1);
                io(w, sqe::write(NSID, 0, 1, prps).or(0, 2 << 8))
            }),
            ("Read into memory that is not there", DATA_TRANSFER_ERROR, |w| {
                io(w, sqe::read(NSID, 0, 1, (0x7777_0000_0000, 0)))
            }),
            ("Read into memory that ends in the middle", DATA_TRANSFER_ERROR, |w| {
                let at = w.hosts[GUEST].allocate(4096);
                io(w, sqe::read(NSID, 0, 16, (at, at + 4096)))
            }),
            ("Read with a list that is not there", DATA_TRANSFER_ERROR, |w| {
                let at = w.hosts[GUEST].allocate(4096);
                io(w, sqe::read(NSID, 0, 32, (at, 0x7777_0000_0000)))
            }),
            ("PRP1 with bit 1 set", PRP_OFFSET, |w| {
                let at = w.hosts[GUEST].allocate(8192);
                io(w, sqe::read(NSID, 0, 1, (at + 2, 0)))
            }),
            ("PRP2 of two pages with offset", PRP_OFFSET, |w| {
                let at = w.hosts[GUEST].allocate(12288);
                io(w, sqe::read(NSID, 0, 16, (at, at + 4096 + 512)))
            }),
            ("list that is not qword aligned", PRP_OFFSET, |w| {
                let host = &w.hosts[GUEST];
                let at = host.allocate(16384);
                let list = host.page_list(&[at + 4096, at + 8192, at + 12288]);
                io(w, sqe::read(NSID, 0, 32, (at, list + 4)))
            }),
            ("first list entry with offset", PRP_OFFSET, |w| {
                let host = &w.hosts[GUEST];
                let at = host.allocate(16384);
                let list = host.page_list(&[at + 4096 + 8, at + 8192, at + 12288]);
                io(w, sqe::read(NSID, 0, 32, (at, list)))
            }),
            ("last list entry with offset", PRP_OFFSET, |w| {
                let host = &w.hosts[GUEST];
                let at = host.allocate(16384);
                let list = host.page_list(&[at + 4096, at + 8192, at + 12288 + 2048]);
                io(w, sqe::read(NSID, 0, 32, (at, list)))
            }),
        ],
    );
}

#[test]
fn data_goes_through_prps_of_every_shape() {
    // Offset of the first byte, blocks, and where in its page the list starts.
    let rows = [
        ("one block", 0_u64, 1_u32, 0_u64),
        ("one block in the middle of a page", 1024, 1, 0),
        ("one block at the end of a page", 3584, 1, 0),
        ("one block across pages at a dword", 3840, 1, 0),
        ("one block across pages at the last dword", 4092, 1, 0),
        ("a page", 0, 8, 0),
        ("a page with offset", 512, 8, 0),
        ("two pages", 0, 16, 0),
        ("two pages with offset need a list", 4, 16, 0),
        ("three pages", 0, 24, 0),
        ("list at the end of its page", 0, 24, 4080),
        ("list that ends exactly with its page", 0, 32, 4096 - 24),
        ("list of one entry in its page and a chain", 0, 40, 4096 - 16),
        ("list whose only slot is a chain", 0, 32, 4096 - 8),
        ("a chain in the middle", 512, 200, 4096 - 40),
        ("512 entries fill a list page", 0, 513 * 8, 0),
        ("513 entries need a chain", 0, 514 * 8, 0),
        ("1,025 entries need two chains", 2048, 1025 * 8, 0),
    ];
    for (name, offset, blocks, list_at) in rows {
        let mut world = World::with(|setup| {
            setup.disks[0].1 = Disk::new(9, 1 << 20);
            setup.config.max_transfer_shift = 0;
        });
        world.create_pair(GUEST, 1, 16);
        let len = blocks as usize * 512;
        let data = pattern(len, name.len() as u8);
        let (prps, pages) = scattered(&world, offset, len, list_at);
        put(&world, &pages, offset, &data);
        io(&mut world, sqe::write(NSID, 77, blocks, prps)).ok();
        let disk = world.disk(NSID);
        let written: Vec<u8> = (0..u64::from(blocks)).flat_map(|block| disk.block(77 + block)).collect();
        assert!(written == data, "{name}: what was written");
        let (prps, pages) = scattered(&world, offset, len, list_at);
        io(&mut world, sqe::read(NSID, 77, blocks, prps)).ok();
        let (found, outside) = get(&world, &pages, offset, len);
        assert!(found == data, "{name}: what was read");
        assert!(outside.iter().all(|byte| *byte == 0), "{name}: nothing beside the data is touched");
        io(&mut world, sqe::compare(NSID, 77, blocks, prps)).ok();
    }
}

/// Scattered pages for `len` bytes that begin `offset` bytes into the first, and their PRPs with the list `list_at`
/// bytes into its page.
fn scattered(world: &World, offset: u64, len: usize, list_at: u64) -> ((u64, u64), Vec<u64>) {
    let host = &world.hosts[GUEST];
    let count = (offset + len as u64).div_ceil(4096);
    let mut pages: Vec<u64> = (0..count).map(|_| host.allocate(4096)).collect();
    pages.reverse();
    let prp1 = pages[0] + offset;
    let prp2 = match &pages[1..] {
        [] => 0,
        [page] => *page,
        rest => {
            let list = host.allocate(4096) + list_at;
            let slots = ((4096 - list_at) / 8) as usize;
            if rest.len() <= slots {
                host.memory.fill_addresses(list, rest);
            } else {
                let (now, later) = rest.split_at(slots - 1);
                host.memory.fill_addresses(list, now);
                let next = host.page_list(later);
                host.memory.fill_addresses(list + (slots as u64 - 1) * 8, &[next]);
            }
            list
        }
    };
    ((prp1, prp2), pages)
}

fn put(world: &World, pages: &[u64], offset: u64, data: &[u8]) {
    let memory = world.memory(GUEST);
    let first = data.len().min(4096 - offset as usize);
    memory.fill(pages[0] + offset, &data[..first]);
    for (page, bytes) in pages[1..].iter().zip(data[first..].chunks(4096)) {
        memory.fill(*page, bytes);
    }
}

/// The data, and what else the pages hold.
fn get(world: &World, pages: &[u64], offset: u64, len: usize) -> (Vec<u8>, Vec<u8>) {
    let all: Vec<u8> = pages.iter().flat_map(|page| world.memory(GUEST).bytes(*page, 4096)).collect();
    let (before, rest) = all.split_at(offset as usize);
    let (data, after) = rest.split_at(len);
    (data.to_vec(), [before, after].concat())
}

#[test]
fn larger_pages_are_used_as_they_are_configured() {
    for page_shift in [13, 14, 15, 16] {
        let mut world = World::with(|setup| {
            setup.page_shift = page_shift;
            setup.config.max_transfer_shift = 10;
        });
        world.create_pair(GUEST, 1, 16);
        for blocks in [1, 16, 17, 128, 129, 400] {
            let data = pattern(blocks * 512, 3);
            let prps = world.hosts[GUEST].data(&data);
            io(&mut world, sqe::write(NSID, 9, blocks as u32, prps)).ok();
            let (address, prps) = world.hosts[GUEST].buffer(data.len() as u64);
            io(&mut world, sqe::read(NSID, 9, blocks as u32, prps)).ok();
            assert!(
                world.memory(GUEST).bytes(address, data.len()) == data,
                "{blocks} blocks, 2^{page_shift}"
            );
        }
    }
}

#[test]
fn transfers_up_to_mdts() {
    for (shift, blocks, expected) in [
        (1, 16, SUCCESS),
        (1, 17, INVALID_FIELD),
        (3, 64, SUCCESS),
        (3, 65, INVALID_FIELD),
        (0, 2048, SUCCESS),
    ] {
        let mut world = World::with(|setup| setup.config.max_transfer_shift = shift);
        world.create_pair(GUEST, 1, 16);
        let name = format!("{blocks} blocks, MDTS {shift}");
        for opcode in [0x01, 0x02, 0x05] {
            let prps = buffer(&world, blocks);
            let code = io(&mut world, sqe::blocks_command(opcode, NSID, 0, blocks).prps(prps)).code;
            assert_eq!(code, expected, "{name}, opcode {opcode:#x}");
        }
        // Commands without data have no such limit.
        io(&mut world, sqe::write_zeroes(NSID, 0, blocks)).ok();
        io(&mut world, sqe::verify(NSID, 0, blocks)).ok();
    }
}

#[test]
fn zeroes_and_deallocation_read_as_zeroes() {
    let mut world = world();
    let deallocate = |w: &mut World| {
        let mut range = vec![0; 4];
        range.extend(2_u32.to_le_bytes());
        range.extend(11_u64.to_le_bytes());
        let prps = w.hosts[GUEST].data(&range);
        io(w, sqe::deallocate(NSID, 1, prps)).ok();
    };
    for (name, action, allocated) in [
        ("Write Zeroes", (|w| _ = io(w, sqe::write_zeroes(NSID, 11, 2)).ok()) as fn(&mut World), true),
        (
            "Write Zeroes with deallocation",
            |w| _ = io(w, sqe::write_zeroes(NSID, 11, 2).or(12, 1 << 25)).ok(),
            false,
        ),
        ("Deallocate", deallocate, false),
    ] {
        world.write_blocks(GUEST, NSID, 10, 4, 0xEE);
        action(&mut world);
        let disk = world.disk(NSID);
        let first: Vec<u8> = (10..14).map(|lba| disk.block(lba)[0]).collect();
        assert_eq!(first, [0xEE, 0, 0, 0xEE], "{name}");
        assert_eq!((disk.is_allocated(11), disk.is_allocated(12)), (allocated, allocated), "{name}");
    }
}

/// A Copy of source ranges (first block, natural number of blocks).
fn copy(world: &mut World, sources: &[(u64, u32)], destination: u64) -> Completion {
    let mut data = vec![0; sources.len() * 32];
    for (range, (start, blocks)) in data.chunks_exact_mut(32).zip(sources) {
        range[8..16].copy_from_slice(&start.to_le_bytes());
        range[16..18].copy_from_slice(&((blocks - 1) as u16).to_le_bytes());
    }
    let prps = world.hosts[GUEST].data(&data);
    io(world, sqe::copy(NSID, destination, sources.len() as u32, prps))
}

#[test]
fn copies_do_not_read_what_they_write() {
    type Overlap = (&'static str, &'static [(u64, u32)], u64, Code);
    let rows: [Overlap; 8] = [
        ("onto itself", &[(10, 4)], 10, OVERLAPPING_IO_RANGE),
        ("upwards", &[(10, 4)], 12, OVERLAPPING_IO_RANGE),
        ("downwards", &[(10, 4)], 8, OVERLAPPING_IO_RANGE),
        ("touching from below", &[(10, 4)], 6, SUCCESS),
        ("touching from above", &[(10, 4)], 14, SUCCESS),
        ("second range reads what the first writes", &[(100, 2), (12, 1)], 12, OVERLAPPING_IO_RANGE),
        ("first range reads what the second writes", &[(14, 1), (100, 2)], 12, OVERLAPPING_IO_RANGE),
        ("sources may overlap", &[(10, 4), (12, 4)], 200, SUCCESS),
    ];
    for (name, sources, destination, expected) in rows {
        let mut world = world();
        for lba in 0..300 {
            world.disk(NSID).put(lba, lba as u8);
        }
        let code = copy(&mut world, sources, destination).code;
        assert_eq!(code, expected, "{name}");
        let read = sources.iter().flat_map(|(start, blocks)| *start..start + u64::from(*blocks));
        for (lba, source) in (destination..).zip(read) {
            let content = if code == SUCCESS { source } else { lba };
            assert_eq!(world.disk(NSID).block(lba)[0], content as u8, "{name}: block {lba}");
        }
    }
}

#[test]
fn copies_are_bounded_as_announced() {
    for (name, max_copy_bytes, limits, sources, expected) in [
        ("one range, as much as allowed", 16 * 512, (16, 16), &[(0, 16)][..], SUCCESS),
        ("one range, one block more", 16 * 512, (16, 16), &[(0, 17)], SIZE_LIMIT_EXCEEDED),
        ("two ranges, as much as allowed", 16 * 512, (16, 16), &[(0, 8), (8, 8)], SUCCESS),
        ("two ranges, one block more", 16 * 512, (16, 16), &[(0, 8), (8, 9)], SIZE_LIMIT_EXCEEDED),
        ("65,536 blocks", 1 << 40, (65_535, 1 << 31), &[(0, 65_536)], SIZE_LIMIT_EXCEEDED),
        ("a block at least", 0, (1, 1), &[(0, 1)], SUCCESS),
    ] {
        let mut world = World::with(|setup| setup.config.max_copy_bytes = max_copy_bytes);
        world.create_pair(GUEST, 1, 64);
        let identity = world.identify(GUEST, 0x00, NSID, 0);
        let range_blocks = u16::from_le_bytes(identity[74..76].try_into().unwrap());
        let blocks = u32::from_le_bytes(identity[76..80].try_into().unwrap());
        assert_eq!((range_blocks, blocks), limits, "{name}: MSSRL and MCL");
        assert_eq!(identity[80], 255, "{name}: MSRC");
        assert_eq!(copy(&mut world, sources, 1000).code, expected, "{name}");
    }
}

#[test]
fn copies_move_blocks_in_order() {
    let mut world = world();
    for lba in 0..20 {
        world.disk(NSID).put(lba, lba as u8 + 1);
    }
    let mut sources = vec![0; 3 * 32];
    for (range, (start, blocks)) in sources.chunks_exact_mut(32).zip([(5_u64, 3_u16), (0, 1), (10, 2)]) {
        range[8..16].copy_from_slice(&start.to_le_bytes());
        range[16..18].copy_from_slice(&(blocks - 1).to_le_bytes());
    }
    let prps = world.hosts[GUEST].data(&sources);
    io(&mut world, sqe::copy(NSID, 100, 3, prps)).ok();
    let disk = world.disk(NSID);
    let copied: Vec<u8> = (100..107).map(|lba| disk.block(lba)[0]).collect();
    assert_eq!(copied, [6, 7, 8, 1, 11, 12, 0]);
}

#[test]
fn compare_and_write_is_both_or_neither() {
    for (name, on_disk, codes, after) in
        [("match", 0, [SUCCESS, SUCCESS], 0x33), ("mismatch", 1, [COMPARE_FAILURE, ABORTED_FAILED_FUSED], 1)]
    {
        let mut world = world();
        world.disk(NSID).put(4, on_disk);
        let (expected, new) = (world.hosts[GUEST].data(&[0; 512]), world.hosts[GUEST].data(&[0x33; 512]));
        let first = world.send(GUEST, 1, sqe::compare(NSID, 4, 1, expected).or(0, 1 << 8));
        let second = world.send(GUEST, 1, sqe::write(NSID, 4, 1, new).or(0, 2 << 8));
        world.ring(GUEST, 1);
        world.run();
        let found =
            [first, second].map(|command| world.hosts[GUEST].take(1, command).expect("completes").code);
        assert_eq!(found, codes, "{name}");
        assert_eq!(world.disk(NSID).block(4)[0], after, "{name}");
    }
}

#[test]
fn a_fused_pair_that_is_none_is_refused() {
    let mut world = world();
    let prps = buffer(&world, 1);
    let pairs: [(&str, Sqe, Sqe); 3] = [
        ("different ranges", sqe::compare(NSID, 4, 1, prps), sqe::write(NSID, 5, 1, prps)),
        ("different lengths", sqe::compare(NSID, 4, 1, prps), sqe::write(NSID, 4, 2, prps)),
        ("Read and Write", sqe::read(NSID, 4, 1, prps), sqe::write(NSID, 4, 1, prps)),
    ];
    for (name, first, second) in pairs {
        world.disk(NSID).put(4, 0x44);
        let commands =
            [first.or(0, 1 << 8), second.or(0, 2 << 8)].map(|command| world.send(GUEST, 1, command));
        world.ring(GUEST, 1);
        world.run();
        for command in commands {
            let code = world.hosts[GUEST].take(1, command).expect("completes").code;
            assert_ne!(code, SUCCESS, "{name}");
        }
        assert_eq!(world.disk(NSID).block(4)[0], 0x44, "{name}: nothing is written");
    }
    let lonely = world.send(GUEST, 1, sqe::compare(NSID, 4, 1, prps).or(0, 1 << 8));
    let plain = world.send(GUEST, 1, sqe::flush(NSID));
    world.ring(GUEST, 1);
    world.run();
    assert_eq!(world.hosts[GUEST].take(1, lonely).expect("completes").code, ABORTED_MISSING_FUSED);
    world.hosts[GUEST].take(1, plain).expect("completes").ok();
}

#[test]
fn every_controller_sees_the_same_blocks() {
    let mut world = World::new();
    for host in 0..4 {
        world.create_pair(host, 1, 16);
        world.write_blocks(host, NSID, host as u64, 1, host as u8 + 1);
    }
    for host in 0..4 {
        let (address, prps) = world.hosts[host].buffer(2048);
        world.exec(host, 1, sqe::read(NSID, 0, 4, prps)).ok();
        let first: Vec<u8> =
            (0..4).map(|block| world.memory(host).bytes(address + block * 512, 1)[0]).collect();
        assert_eq!(first, [1, 2, 3, 4], "controller {host}");
    }
}

#[test]
fn get_lba_status_lists_allocated_runs() {
    let mut world = world();
    for lba in [3, 4, 5, 9, 4095] {
        world.disk(NSID).put(lba, 1);
    }
    let status = |world: &mut World, start: u64, range: u16, dwords: u32, action: u32| {
        let (address, prps) = world.hosts[GUEST].buffer(u64::from(dwords) * 4);
        let command = Sqe::new(0x86)
            .namespace(NSID)
            .prps(prps)
            .dword(10, start as u32)
            .dword(11, (start >> 32) as u32)
            .dword(12, dwords - 1)
            .dword(13, (action << 24) | u32::from(range));
        let code = world.admin(GUEST, command).code;
        let bytes = world.memory(GUEST).bytes(address, dwords as usize * 4);
        let count = u32::from_le_bytes(bytes[0..4].try_into().unwrap()) as usize;
        let runs: Vec<(u64, u32)> = bytes[8..]
            .chunks_exact(16)
            .take(count)
            .map(|run| {
                let start = u64::from_le_bytes(run[0..8].try_into().unwrap());
                (start, u32::from_le_bytes(run[8..12].try_into().unwrap()))
            })
            .collect();
        (code, runs)
    };
    // The action for allocated blocks is 02h.
    assert_eq!(status(&mut world, 0, 0, 1024, 2), (SUCCESS, vec![(3, 3), (9, 1), (4095, 1)]));
    assert_eq!(status(&mut world, 4, 5, 1024, 2), (SUCCESS, vec![(4, 2)]));
    assert_eq!(status(&mut world, 0, 0, 2 + 4, 2), (SUCCESS, vec![(3, 3)]), "room for one");
    for run in 0..300 {
        world.disk(NSID).put(600 + run * 2, 1);
    }
    // Two pages of report into a buffer of three, which has a PRP list.
    let runs: Vec<_> = (0..300).map(|run| (600 + run * 2, 1)).collect();
    assert_eq!(status(&mut world, 600, 600, 3 * 1024, 2), (SUCCESS, runs));
    assert_eq!(status(&mut world, BLOCKS, 0, 1024, 2).0, LBA_OUT_OF_RANGE);
    assert_eq!(status(&mut world, 0, 0, 1024, 0x55).0, INVALID_FIELD);
}

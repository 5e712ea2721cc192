// SPDX-License-Identifier: MIT OR Apache-2.0
//! Commands on blocks, judged by reading them back: data through PRPs of every shape, deallocation, copies. NVM Command
//! Set 1.1 §3.2 and NVMe Base 2.1 §4.3.1, Physical Region Page Entry and List.

use crate::conformance::backend::Backend;
use crate::conformance::world::sqe;
use crate::conformance::world::*;

const PAGE: usize = 4096;

fn world(backend: &dyn Backend) -> World {
    let mut world = World::with(backend, |setup| {
        setup.namespaces[0].blocks = 1 << 17;
        // Any length in one command.
        setup.config.max_transfer_shift = 0;
        setup.config.max_copy_bytes = 1 << 20;
    });
    world.create_pair(GUEST, 1, 16);
    world
}

/// Bytes that differ from block to block and within a block.
fn pattern(len: usize, seed: usize) -> Vec<u8> {
    (0..len).map(|at| ((at >> 9) * 7 + at + seed * 13) as u8).collect()
}

/// Memory of `pages` pages, none after its neighbour on the bus, surrounded by marks.
fn scattered(world: &World, pages: usize) -> Vec<u64> {
    let memory = world.memory(GUEST);
    let mut pages: Vec<u64> = (0..pages).map(|_| memory.allocate(PAGE as u64)).collect();
    pages.reverse();
    for page in &pages {
        memory.fill(*page, &[0xA5; PAGE]);
    }
    pages
}

/// PRP1 and PRP2 of data that begins at `offset` in the first page. A list begins at `list_offset` in its page.
fn prps(world: &World, pages: &[u64], offset: usize, list_offset: usize) -> (u64, u64) {
    let first = pages[0] + offset as u64;
    match pages {
        [] | [_] => (first, 0),
        [_, second] => (first, *second),
        [_, rest @ ..] => {
            let here = (PAGE - list_offset) / 8;
            let memory = world.memory(GUEST);
            let list = memory.allocate(PAGE as u64) + list_offset as u64;
            if rest.len() <= here {
                memory.fill_addresses(list, rest);
            } else {
                let (now, later) = rest.split_at(here - 1);
                memory.fill_addresses(list, now);
                memory.fill_addresses(list + (here as u64 - 1) * 8, &[world.hosts[GUEST].page_list(later)]);
            }
            (first, list)
        }
    }
}

fn put(world: &World, pages: &[u64], offset: usize, data: &[u8]) {
    let (mut at, mut offset) = (0, offset);
    for page in pages {
        let len = (PAGE - offset).min(data.len() - at);
        world.memory(GUEST).fill(page + offset as u64, &data[at..at + len]);
        (at, offset) = (at + len, 0);
    }
}

/// The data, and everything of its pages around it.
fn get(world: &World, pages: &[u64], offset: usize, len: usize) -> (Vec<u8>, Vec<u8>) {
    let all: Vec<u8> = pages.iter().flat_map(|page| world.memory(GUEST).bytes(*page, PAGE)).collect();
    let around = [&all[..offset], &all[offset + len..]].concat();
    (all[offset..offset + len].to_vec(), around)
}

fn transfer(world: &mut World, name: &str, offset: usize, blocks: usize, list_offset: usize) {
    let len = blocks * 512;
    let pages = scattered(world, (offset + len).div_ceil(PAGE));
    let data = pattern(len, offset + blocks);
    put(world, &pages, offset, &data);
    let pointers = prps(world, &pages, offset, list_offset);
    world.exec(GUEST, 1, sqe::write(NSID, 3, blocks as u32, pointers)).ok();
    let pages = scattered(world, pages.len());
    let pointers = prps(world, &pages, offset, list_offset);
    world.exec(GUEST, 1, sqe::read(NSID, 3, blocks as u32, pointers)).ok();
    let (found, around) = get(world, &pages, offset, len);
    assert!(found == data, "{name}: data");
    assert!(around.iter().all(|byte| *byte == 0xA5), "{name}: nothing around it is touched");
}

pub(crate) fn data_at_every_offset_around_page_ends(backend: &dyn Backend) {
    for blocks in [1, 7, 8, 9, 15, 16, 17, 24] {
        let mut world = world(backend);
        // The end of the data lies 4 bytes before, at and 4 bytes behind the end of a page, and the same at its start.
        let end = PAGE - blocks * 512 % PAGE;
        for offset in [0, 4, 512, PAGE - 512, PAGE - 4, end % PAGE, (end + 4) % PAGE, (end + PAGE - 4) % PAGE]
        {
            transfer(&mut world, &format!("{blocks} blocks at offset {offset}"), offset, blocks, 0);
        }
    }
}

pub(crate) fn lists_of_one_page_and_of_several(backend: &dyn Backend) {
    // The first page is PRP1's, so that a transfer of n + 1 pages has n entries in its list.
    for entries in [1, 2, 511, 512, 513, 1025] {
        for (offset, list_offset) in [(0, 0), (4, 0), (PAGE - 4, 0), (0, 8), (512, PAGE - 16)] {
            let mut world = world(backend);
            let len = (entries + 1) * PAGE - offset;
            let blocks = len / 512;
            let name = format!("{entries} list entries, data at {offset}, list at {list_offset}");
            transfer(&mut world, &name, offset, blocks, list_offset);
        }
    }
}

pub(crate) fn a_list_that_breaks_a_rule_is_refused_and_changes_nothing(backend: &dyn Backend) {
    let mut world = world(backend);
    let memory = world.memory(GUEST);
    let pages = scattered(&world, 4);
    let nowhere = memory.unmapped();
    let rows: [(&str, (u64, u64)); 5] = [
        ("second page not aligned", (pages[0], pages[1] + 8)),
        ("list not aligned to a qword", (pages[0] + 4, prps(&world, &pages, 0, 0).1 + 4)),
        ("entry of the list not aligned", {
            let list = memory.allocate(PAGE as u64);
            memory.fill_addresses(list, &[pages[1], pages[2] + 512]);
            (pages[0] + 512, list)
        }),
        ("entry of the list that is nowhere", {
            let list = memory.allocate(PAGE as u64);
            memory.fill_addresses(list, &[pages[1], nowhere]);
            (pages[0] + 512, list)
        }),
        ("list that is nowhere", (pages[0] + 512, nowhere)),
    ];
    for (name, pointers) in rows {
        // Two pages need no list, more do.
        let blocks = if name.starts_with("second") { 16 } else { 24 };
        let done = world.exec(GUEST, 1, sqe::write(NSID, 100, blocks, pointers));
        assert_ne!(done.code, status::SUCCESS, "{name}");
        assert!(!world.is_fatal(GUEST), "{name}: a command fails, not the controller");
        let after = world.read_blocks(GUEST, NSID, 100, 24);
        // What was written before the wrong entry was met is the command's, nothing else is.
        assert!(after.iter().all(|byte| matches!(byte, 0 | 0xA5)), "{name}");
    }
    world.exec(GUEST, 1, sqe::flush(NSID)).ok();
}

/// Ranges of Dataset Management.
fn ranges(world: &World, ranges: &[(u64, u32)]) -> (u64, u64) {
    let mut bytes = Vec::new();
    for (start, blocks) in ranges {
        bytes.extend([0; 4]);
        bytes.extend(blocks.to_le_bytes());
        bytes.extend(start.to_le_bytes());
    }
    world.hosts[GUEST].data(&bytes)
}

pub(crate) fn ranges_that_are_not_adjacent_are_all_deallocated_and_all_logged(backend: &dyn Backend) {
    let rows: [(&str, &[(u64, u32)]); 6] = [
        ("one range", &[(10, 5)]),
        ("adjacent", &[(10, 5), (15, 3)]),
        ("apart", &[(10, 2), (20, 2), (30, 1)]),
        ("falling", &[(40, 4), (30, 4), (8, 1)]),
        ("apart by one block", &[(10, 2), (13, 2), (16, 2)]),
        ("adjacent, apart, adjacent", &[(8, 1), (9, 1), (12, 1), (20, 2), (22, 2)]),
    ];
    for (name, list) in rows {
        let mut world = World::new(backend);
        let mut queue = world.logged_guest(64);
        world.write_blocks(GUEST, NSID, 0, 64, 0xDD);
        queue.take();
        world.publish(&queue);
        let data = ranges(&world, list);
        world.exec(GUEST, 1, sqe::deallocate(NSID, list.len() as u32, data)).ok();
        let blocks = world.read_blocks(GUEST, NSID, 0, 64);
        let mut logged = std::collections::BTreeSet::new();
        for entry in queue.take() {
            assert_eq!((entry.sequence, entry.information, entry.nsid), (0, 0, NSID), "{name}");
            assert!(entry.deallocated, "{name}: {entry:?}");
            logged.extend(entry.slba..=entry.slba + u64::from(entry.nlb));
        }
        for block in 0..64_u64 {
            let gone = list.iter().any(|(start, len)| (*start..start + u64::from(*len)).contains(&block));
            let byte = blocks[block as usize * 512];
            assert_eq!(byte, if gone { 0 } else { 0xDD }, "{name}: block {block}");
            assert_eq!(logged.contains(&block), gone, "{name}: block {block} in the log");
        }
    }
}

pub(crate) fn copies_put_blocks_in_order_and_are_logged(backend: &dyn Backend) {
    type Row = (&'static str, &'static [(u64, u16)], u64);
    let rows: [Row; 4] = [
        ("one range", &[(0, 4)], 100),
        ("ranges in any order", &[(5, 3), (0, 1), (10, 2)], 100),
        ("the same range twice", &[(2, 2), (2, 2)], 100),
        ("right behind its source", &[(0, 10)], 10),
    ];
    for (name, list, destination) in rows {
        let mut world = World::new(backend);
        let mut queue = world.logged_guest(64);
        for block in 0..16 {
            world.write_blocks(GUEST, NSID, block, 1, block as u8 + 1);
        }
        queue.take();
        world.publish(&queue);
        let mut sources = vec![0; list.len() * 32];
        for (range, (start, blocks)) in sources.chunks_exact_mut(32).zip(list) {
            range[8..16].copy_from_slice(&start.to_le_bytes());
            range[16..18].copy_from_slice(&(blocks - 1).to_le_bytes());
        }
        let data = world.hosts[GUEST].data(&sources);
        world.exec(GUEST, 1, sqe::copy(NSID, destination, list.len() as u32, data)).ok();
        let expected: Vec<u8> = list
            .iter()
            .flat_map(|(start, len)| (*start..start + u64::from(*len)).map(|at| at as u8 + 1))
            .collect();
        let found = world.read_blocks(GUEST, NSID, destination, expected.len() as u32 + 1);
        let first: Vec<u8> = found.chunks_exact(512).map(|block| block[0]).collect();
        assert_eq!(first[..expected.len()], expected, "{name}");
        let behind = if destination == 10 { 0 } else { first[expected.len()] };
        assert_eq!(behind, 0, "{name}: no block more");
        let mut logged = std::collections::BTreeSet::new();
        for entry in queue.take() {
            assert!(!entry.deallocated, "{name}: {entry:?}");
            logged.extend(entry.slba..=entry.slba + u64::from(entry.nlb));
        }
        let blocks = destination..destination + expected.len() as u64;
        assert!(blocks.into_iter().all(|block| logged.contains(&block)), "{name}: {logged:?}");
        assert_eq!(logged.len(), expected.len(), "{name}: {logged:?}");
    }
}

pub(crate) fn every_controller_sees_the_same_blocks(backend: &dyn Backend) {
    let mut world = World::new(backend);
    for host in 0..4 {
        world.create_pair(host, 1, 16);
    }
    for writer in 0..4_usize {
        for (nsid, start) in [(NSID, 5), (LARGE_BLOCKS_NSID, 7)] {
            world.write_blocks(writer, nsid, start, 3, writer as u8 + 1);
            for reader in 0..4 {
                let found = world.read_blocks(reader, nsid, start, 3);
                assert!(found.iter().all(|byte| *byte == writer as u8 + 1), "{writer} to {reader}, {nsid}");
            }
        }
    }
}

// SPDX-License-Identifier: MIT OR Apache-2.0
//! PRPs as the driver builds them, walked back by a walker of its own. NVMe Base 2.1 §4.3.1, Physical Region Page Entry
//! and List.

use std::collections::BTreeMap;

use nvme_core::dma::{Direction, DmaArena, DmaRegion, Pool};
use nvme_core::io::Buffer;
use nvme_core::prp::{ListMemory, build, list_bytes, list_pages};
use nvme_core::wire::nvm::{Read, Write};
use nvme_core::wire::{Command, Lba, Status};

use super::{Arena, io_slots, on_host, pair_options, slots};
use crate::conformance::backend::Backend;

const PAGE: usize = 4096;

/// A run of bytes on the bus.
type Run = (u64, usize);

/// Where the bytes of `range` lie, page by page.
fn expected(arena: &Arena<'_>, region: &DmaRegion, start: usize, len: usize) -> Vec<Run> {
    let mut runs = Vec::new();
    let mut at = start;
    while at < start + len {
        let bus = arena.bus_address(region, at).expect("inside the region").get();
        let here = (PAGE - bus as usize % PAGE).min(start + len - at);
        runs.push((bus, here));
        at += here;
    }
    runs
}

/// List memory by bus page.
struct Lists(BTreeMap<u64, [u64; PAGE / 8]>);

impl Lists {
    fn of(arena: &Arena<'_>, region: &DmaRegion) -> Self {
        let mut pages = BTreeMap::new();
        for offset in (0..region.len()).step_by(PAGE) {
            let mut bytes = [0; PAGE];
            region.read(offset, &mut bytes).expect("inside the region");
            let mut entries = [0; PAGE / 8];
            for (entry, bytes) in entries.iter_mut().zip(bytes.chunks_exact(8)) {
                *entry = u64::from_le_bytes(bytes.try_into().unwrap());
            }
            pages.insert(arena.bus_address(region, offset).expect("inside the region").get(), entries);
        }
        Self(pages)
    }

    fn entry(&self, at: u64) -> u64 {
        assert!(at.is_multiple_of(8), "{at:#x} is no place for an entry");
        let page = self.0.get(&(at & !0xFFF)).unwrap_or_else(|| panic!("{at:#x} is outside the list memory"));
        page[at as usize % PAGE / 8]
    }

    /// What a controller that moves `len` bytes reaches through these two fields.
    fn walk(&self, prp1: u64, prp2: u64, len: usize) -> Vec<Run> {
        assert!(prp1.is_multiple_of(4), "PRP1 {prp1:#x}");
        let first = (PAGE - prp1 as usize % PAGE).min(len);
        let mut runs = vec![(prp1, first)];
        let mut rest = len - first;
        if rest == 0 {
            assert_eq!(prp2, 0, "PRP2 is reserved");
            return runs;
        }
        if rest <= PAGE {
            assert!(prp2.is_multiple_of(PAGE as u64), "PRP2 {prp2:#x} is a page");
            runs.push((prp2, rest));
            return runs;
        }
        let mut at = prp2;
        while rest > 0 {
            let slots = (PAGE - at as usize % PAGE) / 8;
            // More entries than fit: the last slot of the page leads on.
            let entries = rest.div_ceil(PAGE);
            let here = if entries > slots { slots - 1 } else { entries };
            for _ in 0..here {
                let page = self.entry(at);
                assert!(page.is_multiple_of(PAGE as u64), "entry {page:#x} at {at:#x} is a page");
                let bytes = rest.min(PAGE);
                runs.push((page, bytes));
                (at, rest) = (at + 8, rest - bytes);
            }
            if rest > 0 {
                at = self.entry(at);
                assert!(at.is_multiple_of(PAGE as u64), "the next list page lies at {at:#x}");
            }
        }
        runs
    }
}

/// Pages of data: PRP1 names the first, so that a list of n entries goes with n + 1.
const PAGES: [usize; 9] = [1, 2, 3, 9, 512, 513, 514, 1026, 1027];

pub(crate) fn what_is_built_leads_to_the_data_and_to_nothing_else(backend: &dyn Backend) {
    on_host(backend, |host| {
        let arena = host.arena;
        let bytes = 1028 * PAGE;
        let list_len = list_pages(1028, PAGE) * PAGE;
        for scattered in [false, true] {
            let data = if scattered {
                arena.allocate_scattered(Pool::Data, bytes, Direction::Bidirectional)
            } else {
                arena.allocate(Pool::Data, bytes, PAGE, Direction::Bidirectional)
            };
            let data = data.expect("memory");
            let lists = if scattered {
                arena.allocate_scattered(Pool::Queues, list_len, Direction::ToDevice)
            } else {
                arena.allocate(Pool::Queues, list_len, PAGE, Direction::ToDevice)
            };
            let lists = lists.expect("memory");
            let mut rows = 0;
            for pages in PAGES {
                // The start 4 bytes before, at and 4 bytes behind the start of a page, and the end likewise.
                for start in [0, 4, PAGE - 4, PAGE, PAGE + 4] {
                    for end in [pages * PAGE - 4, pages * PAGE, pages * PAGE + 4] {
                        let end = start / PAGE * PAGE + end;
                        if end <= start || end > bytes {
                            continue;
                        }
                        let name = format!("{pages} pages, bytes {start} to {end}, scattered {scattered}");
                        // What an earlier list has left must not be taken for entries.
                        for offset in (0..list_len).step_by(8) {
                            lists.write_u64(offset, 0xDEAD_0000_DEAD_0FFF).expect("inside the region");
                        }
                        let len = end - start;
                        let entries = (start % PAGE + len).div_ceil(PAGE) - 1;
                        let room = if entries < 2 { 0 } else { list_bytes(entries, PAGE) };
                        let memory = ListMemory { region: &lists, range: 0..room };
                        let built = build(arena, &data, start..end, PAGE, memory);
                        let built = built.unwrap_or_else(|error| panic!("{name}: {error:?}"));
                        let runs = Lists::of(arena, &lists).walk(built.prp1.get(), built.prp2.get(), len);
                        assert_eq!(runs, expected(arena, &data, start, len), "{name}");
                        rows += 1;
                        // With a byte less memory it is refused, not cut short.
                        if let Some(less) = room.checked_sub(1) {
                            let memory = ListMemory { region: &lists, range: 0..less };
                            assert!(build(arena, &data, start..end, PAGE, memory).is_err(), "{name}");
                        }
                    }
                }
            }
            assert!(rows > 100, "{rows} rows");
        }
    });
}

pub(crate) fn data_of_every_shape_arrives_byte_for_byte(backend: &dyn Backend) {
    on_host(backend, |host| {
        let mut admin_slots = slots(16);
        let (mut controller, known) = host.up(&mut admin_slots);
        let mut queue_slots = io_slots(4);
        let options = pair_options(1, 8, 1028 * PAGE);
        let mut pair = host.create(&mut controller, &options, &mut queue_slots);
        let limit = pair.max_transfer();
        let block = known.block_bytes;
        let mut longest = 0;
        for scattered in [false, true] {
            // The longest transfer, too, wherever that lies.
            for pages in PAGES.into_iter().chain([(limit / PAGE).max(1)]) {
                for start in [0, 4, block % PAGE, PAGE - 4] {
                    let len = (pages * PAGE - start) / block * block;
                    if len == 0 || len > limit || (len / block) as u64 > known.blocks.min(65_536) {
                        continue;
                    }
                    longest = longest.max(len);
                    let name = format!("{len} bytes from {start}, scattered {scattered}");
                    let region = || {
                        let bytes = (pages + 1) * PAGE;
                        let memory = if scattered {
                            host.arena.allocate_scattered(Pool::Data, bytes, Direction::Bidirectional)
                        } else {
                            host.arena.allocate(Pool::Data, bytes, PAGE, Direction::Bidirectional)
                        };
                        let memory = memory.expect("memory");
                        memory.write(0, &vec![0xA5; bytes]).expect("inside the region");
                        memory
                    };
                    let blocks = (len / block) as u32;
                    let data = known.pattern(blocks, (pages + start) as u64);
                    let from = region();
                    from.write(start, &data).expect("inside the region");
                    let write = Write::new(known.namespace, Lba::new(0), blocks).encode();
                    let done = host.io(&mut pair, &write, Some(Buffer::new(from, start..start + len)));
                    assert_eq!(done.release(host.arena).0.status(), Status::SUCCESS, "{name}");
                    let read = Read::new(known.namespace, Lba::new(0), blocks).encode();
                    let done = host.io(&mut pair, &read, Some(Buffer::new(region(), start..start + len)));
                    let mut found = vec![0; (pages + 1) * PAGE];
                    done.buffer.as_ref().expect("it comes back").region().read(0, &mut found).expect("read");
                    assert_eq!(done.release(host.arena).0.status(), Status::SUCCESS, "{name}");
                    assert!(found[start..start + len] == data, "{name}: data");
                    let around = found[..start].iter().chain(&found[start + len..]);
                    assert!(around.into_iter().all(|byte| *byte == 0xA5), "{name}: around it");
                }
            }
        }
        assert!(longest >= limit.min(16 * PAGE), "{longest} bytes are the longest of {limit} possible");
        host.delete(&mut controller, pair);
        host.disable(controller.disable()).detach();
    });
}

// SPDX-License-Identifier: MIT OR Apache-2.0
//! Controller Data Queue command: every check of Create and Delete has its row. NVMe Base 2.1 §5.1.4, Controller Data
//! Queue command.

use crate::harness::sqe::{self, Sqe};
use crate::harness::status::*;
use crate::harness::*;

/// Sixteen entries.
const DWORDS: u32 = 16 * 8;

fn memory_of(world: &World, len: u64) -> u64 {
    world.hosts[MANAGER].allocate(len)
}

/// A Create that is right in everything.
fn good(world: &World) -> Sqe {
    sqe::create_cdq(GUEST_ID, DWORDS, memory_of(world, 4096))
}

/// A Create over a list with these pages; the queue fills them.
fn listed(world: &World, pages: &[u64]) -> Sqe {
    let host = &world.hosts[MANAGER];
    sqe::create_listed_cdq(GUEST_ID, pages.len() as u32 * 1024, host.page_list(pages))
}

fn pages(world: &World, count: usize) -> Vec<u64> {
    (0..count).map(|_| memory_of(world, world.hosts[MANAGER].page())).collect()
}

fn try_size(world: &mut World, dwords: u32) -> Completion {
    let base = memory_of(world, 1 << 16);
    world.admin(MANAGER, sqe::create_cdq(GUEST_ID, dwords, base))
}

fn try_target(world: &mut World, target: u16) -> Completion {
    let command = good(world).dword(11, (u32::from(target) << 16) | 1);
    world.admin(MANAGER, command)
}

fn try_list(world: &mut World, count: usize) -> Completion {
    let command = listed(world, &pages(world, count));
    world.admin(MANAGER, command)
}

#[test]
fn every_check_of_create_has_its_status() {
    check(
        World::new,
        &[
            ("contiguous", SUCCESS, |w| w.admin(MANAGER, good(w))),
            ("PRP list of one page", SUCCESS, |w| try_list(w, 1)),
            ("PRP list of three pages", SUCCESS, |w| try_list(w, 3)),
            ("second managing controller", SUCCESS, |w| {
                let base = w.hosts[OTHER_MANAGER].allocate(4096);
                w.admin(OTHER_MANAGER, sqe::create_cdq(GUEST_ID, DWORDS, base))
            }),
            ("opcode on a migratable controller", INVALID_OPCODE, |w| {
                let base = w.hosts[GUEST].allocate(4096);
                w.admin(GUEST, sqe::create_cdq(OTHER_GUEST_ID, DWORDS, base))
            }),
            ("SEL 2h is reserved", INVALID_FIELD, |w| w.admin(MANAGER, good(w).or(10, 0x02))),
            ("SEL BFh is reserved", INVALID_FIELD, |w| w.admin(MANAGER, good(w).or(10, 0xBF))),
            ("SEL C0h is no vendor function here", INVALID_FIELD, |w| w.admin(MANAGER, good(w).or(10, 0xC0))),
            ("SEL FFh is no vendor function here", INVALID_FIELD, |w| w.admin(MANAGER, good(w).or(10, 0xFF))),
            ("QT 1h is reserved", INVALID_FIELD, |w| w.admin(MANAGER, good(w).or(10, 1 << 16))),
            ("QT BFh is reserved", INVALID_FIELD, |w| w.admin(MANAGER, good(w).or(10, 0xBF << 16))),
            ("QT C0h is no vendor type here", INVALID_FIELD, |w| {
                w.admin(MANAGER, good(w).or(10, 0xC0 << 16))
            }),
            ("QT FFh is no vendor type here", INVALID_FIELD, |w| {
                w.admin(MANAGER, good(w).or(10, 0xFF << 16))
            }),
            ("PRP1 offset 4", PRP_OFFSET, |w| w.admin(MANAGER, good(w).or(6, 4))),
            ("PRP1 offset of one entry", PRP_OFFSET, |w| w.admin(MANAGER, good(w).or(6, 32))),
            ("PRP1 offset 800h", PRP_OFFSET, |w| w.admin(MANAGER, good(w).or(6, 0x800))),
            ("PRP1 bits 1:0", PRP_OFFSET, |w| w.admin(MANAGER, good(w).or(6, 1))),
            ("list pointer offset 8", PRP_OFFSET, |w| {
                let command = listed(w, &pages(w, 2));
                w.admin(MANAGER, command.or(6, 8))
            }),
            ("first list entry with offset", PRP_OFFSET, |w| {
                let mut pages = pages(w, 3);
                pages[0] += 32;
                w.admin(MANAGER, listed(w, &pages))
            }),
            ("middle list entry with offset", PRP_OFFSET, |w| {
                let mut pages = pages(w, 3);
                pages[1] += 0x800;
                w.admin(MANAGER, listed(w, &pages))
            }),
            ("last list entry with offset", PRP_OFFSET, |w| {
                let mut pages = pages(w, 3);
                pages[2] += 4;
                w.admin(MANAGER, listed(w, &pages))
            }),
            ("contiguous memory is a CMB", INVALID_FIELD, |w| {
                let base = memory_of(w, 4096);
                w.memory(MANAGER).mark_not_host(base, 4096);
                w.admin(MANAGER, sqe::create_cdq(GUEST_ID, DWORDS, base))
            }),
            ("last page of contiguous memory is a CMB", INVALID_FIELD, |w| {
                let base = memory_of(w, 3 * 4096);
                w.memory(MANAGER).mark_not_host(base + 2 * 4096, 4096);
                w.admin(MANAGER, sqe::create_cdq(GUEST_ID, 2 * 1024 + 8, base))
            }),
            ("contiguous memory is not mapped", INVALID_FIELD, |w| {
                let base = memory_of(w, 4096);
                w.memory(MANAGER).unmap(base, 4096);
                w.admin(MANAGER, sqe::create_cdq(GUEST_ID, DWORDS, base))
            }),
            ("list lies in a CMB", INVALID_FIELD, |w| {
                let list = w.hosts[MANAGER].page_list(&pages(w, 2));
                w.memory(MANAGER).mark_not_host(list, 4096);
                w.admin(MANAGER, sqe::create_listed_cdq(GUEST_ID, 2048, list))
            }),
            ("page of the list is a CMB", INVALID_FIELD, |w| {
                let pages = pages(w, 3);
                w.memory(MANAGER).mark_not_host(pages[1], 4096);
                w.admin(MANAGER, listed(w, &pages))
            }),
            ("list is not mapped", INVALID_FIELD, |w| {
                let list = w.hosts[MANAGER].page_list(&pages(w, 2));
                w.memory(MANAGER).unmap(list, 4096);
                w.admin(MANAGER, sqe::create_listed_cdq(GUEST_ID, 2048, list))
            }),
            ("page of the list is not mapped", INVALID_FIELD, |w| {
                let pages = pages(w, 3);
                w.memory(MANAGER).unmap(pages[2], 4096);
                w.admin(MANAGER, listed(w, &pages))
            }),
            ("CDQSIZE one dword too many", INVALID_FIELD, |w| try_size(w, DWORDS + 1)),
            ("CDQSIZE half an entry too many", INVALID_FIELD, |w| try_size(w, DWORDS + 4)),
            ("CDQSIZE one dword too few", INVALID_FIELD, |w| try_size(w, DWORDS - 1)),
            ("CDQSIZE zero", INVALID_FIELD, |w| try_size(w, 0)),
            ("CDQSIZE less than an entry", INVALID_FIELD, |w| try_size(w, 7)),
            ("CDQSIZE of one entry can hold none", INVALID_FIELD, |w| try_size(w, 8)),
            ("CDQSIZE of two entries", SUCCESS, |w| try_size(w, 16)),
            ("CDQSIZE FFFFFFF8h, contiguous", INVALID_FIELD, |w| try_size(w, 0xFFFF_FFF8)),
            ("CDQSIZE FFFFFFFFh, contiguous", INVALID_FIELD, |w| try_size(w, u32::MAX)),
            ("CDQSIZE FFFFFFF8h, PRP list", INVALID_FIELD, |w| {
                let command = listed(w, &pages(w, 1)).dword(12, 0xFFFF_FFF8);
                w.admin(MANAGER, command)
            }),
            ("contiguous memory that wraps the address space", INVALID_FIELD, |w| {
                w.memory(MANAGER).map(0xFFFF_FFFF_FFFF_F000, 0xFFF);
                w.admin(MANAGER, sqe::create_cdq(GUEST_ID, 2048, 0xFFFF_FFFF_FFFF_F000))
            }),
            ("target has a queue on the same controller", INVALID_FIELD, |w| {
                w.create_cdq(MANAGER, GUEST_ID, 16);
                w.admin(MANAGER, good(w))
            }),
            ("target has a queue on another controller", INVALID_FIELD, |w| {
                w.create_cdq(OTHER_MANAGER, GUEST_ID, 16);
                w.admin(MANAGER, good(w))
            }),
            ("queue for the other target", SUCCESS, |w| {
                w.create_cdq(MANAGER, GUEST_ID, 16);
                try_target(w, OTHER_GUEST_ID)
            }),
            ("CNTLID that no controller has", INVALID_CONTROLLER, |w| try_target(w, NOBODY_ID)),
            ("CNTLID FFFFh", INVALID_CONTROLLER, |w| try_target(w, 0xFFFF)),
            ("CNTLID 0", INVALID_CONTROLLER, |w| try_target(w, 0)),
            ("CNTLID of the managing controller itself", INVALID_CONTROLLER, |w| try_target(w, MANAGER_ID)),
            ("CNTLID of another managing controller", INVALID_CONTROLLER, |w| {
                try_target(w, OTHER_MANAGER_ID)
            }),
            ("NSID 1", INVALID_FIELD, |w| w.admin(MANAGER, good(w).namespace(1))),
            ("NSID FFFFFFFFh", INVALID_FIELD, |w| w.admin(MANAGER, good(w).namespace(u32::MAX))),
            ("PSDT SGL", INVALID_FIELD, |w| w.admin(MANAGER, good(w).or(0, 1 << 14))),
            ("PSDT reserved", INVALID_FIELD, |w| w.admin(MANAGER, good(w).or(0, 3 << 14))),
            ("FUSE first", INVALID_FIELD, |w| w.admin(MANAGER, good(w).or(0, 1 << 8))),
        ],
    );
}

#[test]
fn limits_of_memory_ranges() {
    fn four_per_command() -> World {
        World::with(|setup| setup.manager(MANAGER).max_queue_memory_ranges = 4)
    }
    check(
        four_per_command,
        &[
            ("MCMR 4, list of four", SUCCESS, |w| try_list(w, 4)),
            ("MCMR 4, list of five", INVALID_FIELD, |w| try_list(w, 5)),
            ("MCMR 4, contiguous of five pages is one range", SUCCESS, |w| {
                let base = memory_of(w, 5 * 4096);
                w.admin(MANAGER, sqe::create_cdq(GUEST_ID, 5 * 1024, base))
            }),
        ],
    );
    fn four_in_all() -> World {
        World::with(|setup| setup.config.max_queue_memory_ranges = 4)
    }
    check(
        four_in_all,
        &[
            ("NMCMR 4, four in one queue", SUCCESS, |w| try_list(w, 4)),
            ("NMCMR 4, five in one queue", INVALID_FIELD, |w| try_list(w, 5)),
            ("NMCMR 4, two after two of another manager", SUCCESS, |w| {
                w.create_listed_cdq(OTHER_MANAGER, OTHER_GUEST_ID, 256);
                try_list(w, 2)
            }),
            ("NMCMR 4, three after two of another manager", INVALID_FIELD, |w| {
                w.create_listed_cdq(OTHER_MANAGER, OTHER_GUEST_ID, 256);
                try_list(w, 3)
            }),
            ("NMCMR 4, four after a contiguous one", INVALID_FIELD, |w| {
                w.create_cdq(OTHER_MANAGER, OTHER_GUEST_ID, 256);
                try_list(w, 4)
            }),
            ("NMCMR 4, ranges of a deleted queue are free again", SUCCESS, |w| {
                let old = w.create_listed_cdq(OTHER_MANAGER, OTHER_GUEST_ID, 512);
                w.admin(OTHER_MANAGER, sqe::delete_cdq(old.id)).ok();
                try_list(w, 4)
            }),
        ],
    );
    fn two_in_a_list() -> World {
        World::with(|setup| setup.manager(MANAGER).max_queue_prps = 2)
    }
    check(
        two_in_a_list,
        &[
            ("MCDQPC 2, list of two", SUCCESS, |w| try_list(w, 2)),
            ("MCDQPC 2, list of three", INVALID_FIELD, |w| try_list(w, 3)),
            ("MCDQPC 2, contiguous of three pages", SUCCESS, |w| {
                let base = memory_of(w, 3 * 4096);
                w.admin(MANAGER, sqe::create_cdq(GUEST_ID, 3 * 1024, base))
            }),
        ],
    );
}

#[test]
fn limits_of_queues() {
    fn one_for_the_manager() -> World {
        World::with(|setup| setup.manager(MANAGER).max_migration_queues = 1)
    }
    check(
        one_for_the_manager,
        &[
            ("MCUDMQ 1, first", SUCCESS, |w| w.admin(MANAGER, good(w))),
            ("MCUDMQ 1, second", NOT_ENOUGH_RESOURCES, |w| {
                w.create_cdq(MANAGER, OTHER_GUEST_ID, 16);
                w.admin(MANAGER, good(w))
            }),
            ("MCUDMQ 1, the other manager's does not count", SUCCESS, |w| {
                w.create_cdq(OTHER_MANAGER, OTHER_GUEST_ID, 16);
                w.admin(MANAGER, good(w))
            }),
            ("MCUDMQ 1, again after Delete", SUCCESS, |w| {
                let old = w.create_cdq(MANAGER, OTHER_GUEST_ID, 16);
                w.admin(MANAGER, sqe::delete_cdq(old.id)).ok();
                w.admin(MANAGER, good(w))
            }),
        ],
    );
    fn one_for_all() -> World {
        World::with(|setup| setup.config.max_migration_queues = 1)
    }
    check(
        one_for_all,
        &[
            ("MNSUDMQ 1, first", SUCCESS, |w| w.admin(MANAGER, good(w))),
            ("MNSUDMQ 1, the other manager has one", NOT_ENOUGH_RESOURCES, |w| {
                w.create_cdq(OTHER_MANAGER, OTHER_GUEST_ID, 16);
                w.admin(MANAGER, good(w))
            }),
        ],
    );
}

#[test]
fn a_controller_that_does_not_track_user_data_has_no_queues() {
    let mut world = World::with(|setup| setup.manager(MANAGER).track_user_data = false);
    let create = good(&world);
    assert_eq!(world.admin(MANAGER, create).code, INVALID_OPCODE);
    assert_eq!(world.admin(MANAGER, sqe::set_head(0, 0)).code, INVALID_FIELD, "nor their feature");
}

#[test]
fn alignment_follows_the_page_size_of_the_owner() {
    for (name, page_shift, base_align, expected) in [
        ("8 KiB pages, 8 KiB aligned", 13, 8192, SUCCESS),
        ("8 KiB pages, 4 KiB aligned", 13, 4096, PRP_OFFSET),
        ("64 KiB pages, 64 KiB aligned", 16, 65536, SUCCESS),
        ("64 KiB pages, 32 KiB aligned", 16, 32768, PRP_OFFSET),
    ] {
        let mut world = World::with(|setup| setup.page_shift = page_shift);
        let base =
            world.memory(MANAGER).allocate_aligned(1 << 18, 1 << 17) + (base_align % (1 << page_shift));
        let done = world.admin(MANAGER, sqe::create_cdq(GUEST_ID, DWORDS, base));
        assert_eq!(done.code, expected, "{name}");
        let page = memory_of(&world, 1 << page_shift) + (base_align % (1 << page_shift));
        let command = listed(&world, &[page]).dword(12, DWORDS).dword(11, u32::from(OTHER_GUEST_ID) << 16);
        assert_eq!(world.admin(MANAGER, command).code, expected, "{name}, in a list");
    }
}

#[test]
fn chained_list_pages_are_checked_to_their_end() {
    for (name, count, wrong, expected) in [
        ("512 entries fill a list page", 512, None, SUCCESS),
        ("513 entries need a second", 513, None, SUCCESS),
        ("last of 512", 512, Some(511), PRP_OFFSET),
        ("last of 513", 513, Some(512), PRP_OFFSET),
        ("last of 1025", 1025, Some(1024), PRP_OFFSET),
    ] {
        let mut world = World::new();
        let mut pages = pages(&world, count);
        if let Some(wrong) = wrong {
            pages[wrong] += 64;
        }
        let command = listed(&world, &pages);
        assert_eq!(world.admin(MANAGER, command).code, expected, "{name}");
    }
    let mut world = World::new();
    let list = world.hosts[MANAGER].page_list(&pages(&world, 600));
    let next = u64::from_le_bytes(world.memory(MANAGER).bytes(list + 511 * 8, 8).try_into().unwrap());
    world.memory(MANAGER).fill_addresses(list + 511 * 8, &[next + 8]);
    let command = sqe::create_listed_cdq(GUEST_ID, 600 * 1024, list);
    assert_eq!(world.admin(MANAGER, command).code, PRP_OFFSET, "pointer to the next list page with offset");
    world.memory(MANAGER).fill_addresses(list + 511 * 8, &[next]);
    world.memory(MANAGER).mark_not_host(next, 4096);
    assert_eq!(world.admin(MANAGER, command).code, INVALID_FIELD, "second list page in a CMB");
}

#[test]
fn identifiers_are_unique_on_a_controller_and_reused_after_deletion() {
    let mut world = World::new();
    let first = world.create_cdq(MANAGER, GUEST_ID, 16);
    let second = world.create_cdq(MANAGER, OTHER_GUEST_ID, 16);
    assert_ne!(first.id, second.id);
    world.admin(MANAGER, sqe::delete_cdq(first.id)).ok();
    world.admin(MANAGER, sqe::set_head(second.id, 0)).ok();
    let third = world.create_cdq(MANAGER, GUEST_ID, 16);
    assert_ne!(third.id, second.id);
    world.admin(MANAGER, sqe::delete_cdq(third.id)).ok();
    world.admin(MANAGER, sqe::delete_cdq(second.id)).ok();
}

#[test]
fn a_refused_create_leaves_nothing() {
    let mut world = World::with(|setup| {
        setup.data_queues = 1;
        setup.config.max_queue_memory_ranges = 2;
    });
    for wrong in [
        good(&world).or(6, 32),
        good(&world).dword(12, DWORDS + 1),
        good(&world).dword(11, (u32::from(NOBODY_ID) << 16) | 1),
        listed(&world, &pages(&world, 3)),
    ] {
        assert_ne!(world.admin(MANAGER, wrong).code, SUCCESS);
        for id in 0..4 {
            assert_eq!(world.admin(MANAGER, sqe::delete_cdq(id)).code, INVALID_CDQ, "CDQID {id}");
        }
    }
    assert_eq!(try_list(&mut world, 2).code, SUCCESS, "nothing was counted for the refused ones");
}

#[test]
fn every_check_of_delete_has_its_status() {
    check(
        World::new,
        &[
            ("no queue at all", INVALID_CDQ, |w| w.admin(MANAGER, sqe::delete_cdq(0))),
            ("a queue", SUCCESS, |w| {
                let queue = w.create_cdq(MANAGER, GUEST_ID, 16);
                w.admin(MANAGER, sqe::delete_cdq(queue.id))
            }),
            ("next identifier", INVALID_CDQ, |w| {
                let queue = w.create_cdq(MANAGER, GUEST_ID, 16);
                w.admin(MANAGER, sqe::delete_cdq(queue.id + 1))
            }),
            ("CDQID FFFFh", INVALID_CDQ, |w| w.admin(MANAGER, sqe::delete_cdq(0xFFFF))),
            ("twice", INVALID_CDQ, |w| {
                let queue = w.create_cdq(MANAGER, GUEST_ID, 16);
                w.admin(MANAGER, sqe::delete_cdq(queue.id)).ok();
                w.admin(MANAGER, sqe::delete_cdq(queue.id))
            }),
            ("queue of another controller", INVALID_CDQ, |w| {
                let queue = w.create_cdq(OTHER_MANAGER, GUEST_ID, 16);
                w.admin(MANAGER, sqe::delete_cdq(queue.id))
            }),
            ("on a migratable controller", INVALID_OPCODE, |w| {
                let queue = w.create_cdq(MANAGER, GUEST_ID, 16);
                w.admin(GUEST, sqe::delete_cdq(queue.id))
            }),
            ("while its log is on", SUCCESS, |w| {
                let queue = w.logged_guest(16);
                w.admin(MANAGER, sqe::delete_cdq(queue.id))
            }),
            ("while its target is suspended", SUCCESS, |w| {
                let queue = w.logged_guest(16);
                w.admin(MANAGER, sqe::suspend(GUEST_ID)).ok();
                w.admin(MANAGER, sqe::delete_cdq(queue.id))
            }),
            ("NSID 1", INVALID_FIELD, |w| {
                let queue = w.create_cdq(MANAGER, GUEST_ID, 16);
                w.admin(MANAGER, sqe::delete_cdq(queue.id).namespace(1))
            }),
        ],
    );
}

#[test]
fn r16_after_delete_nothing_is_written_any_more() {
    let mut world = World::new();
    let mut queue = world.logged_guest(8);
    world.change_blocks(2);
    world.admin(MANAGER, sqe::set_head_and_trigger(queue.id, 1, 3)).ok();
    world.change_blocks(1);
    assert_eq!(queue.take().len(), 3);
    let before = world.memory(MANAGER).bytes(queue.slot_address(0), 8 * 32);
    world.admin(MANAGER, sqe::delete_cdq(queue.id)).ok();
    world.change_blocks(20);
    let after = world.memory(MANAGER).bytes(queue.slot_address(0), 8 * 32);
    assert_eq!(before, after, "the memory is the host's again");
    let request = world.leave(MANAGER, 0, sqe::event_request());
    assert_eq!(world.event(MANAGER, request), None, "the tail event went with its queue");
}

#[test]
fn queues_of_every_geometry_deliver_every_entry_in_order() {
    for listed in [false, true] {
        for entries in [2, 3, 4, 5, 8, 63, 64, 65, 127, 128, 129, 4096] {
            let mut world = World::with(|setup| setup.config.max_dataset_ranges = 0);
            world.create_pair(GUEST, 1, 64);
            let mut queue = if listed {
                world.create_listed_cdq(MANAGER, GUEST_ID, entries)
            } else {
                world.create_cdq(MANAGER, GUEST_ID, entries)
            };
            world.admin(MANAGER, sqe::start_log(queue.id)).ok();
            if entries == 2 {
                assert_eq!(queue.texts(), ["111b"], "the first entry is the only one that fits");
                continue;
            }
            assert_eq!(queue.texts(), ["001b"]);
            world.publish(&queue);
            let mut expected = 0;
            // Two laps and a bit, at most one entry less than fills the queue at once.
            let laps = if entries < 1000 { u64::from(entries) * 2 + 3 } else { u64::from(entries) + 100 };
            while expected < laps {
                let batch = u64::from(entries - 2).min(100).min(laps - expected);
                let ranges: Vec<u8> = (0..batch)
                    .flat_map(|index| {
                        let lba = (expected + index) % (BLOCKS / 2) * 2;
                        [[0; 4], 1_u32.to_le_bytes()].concat().into_iter().chain(lba.to_le_bytes())
                    })
                    .collect();
                let prps = world.hosts[GUEST].data(&ranges);
                world.exec(GUEST, 1, sqe::deallocate(NSID, batch as u32, prps)).ok();
                for entry in queue.take() {
                    assert_eq!((entry.nsid, entry.nlb, entry.sequence), (NSID, 0, 0));
                    assert_eq!(entry.slba, expected % (BLOCKS / 2) * 2, "{entries} entries, listed {listed}");
                    expected += 1;
                }
                world.publish(&queue);
            }
            assert_eq!(expected, laps, "{entries} entries, listed {listed}");
        }
    }
}

#[test]
fn lists_of_many_pages_deliver_every_entry_in_order() {
    for pages in [1_u32, 2, 511, 512, 513, 1025] {
        let mut world = World::with(|setup| setup.config.max_dataset_ranges = 0);
        world.create_pair(GUEST, 1, 64);
        let entries = pages * 128;
        let mut queue = world.create_listed_cdq(MANAGER, GUEST_ID, entries);
        world.admin(MANAGER, sqe::start_log(queue.id)).ok();
        assert_eq!(queue.texts(), ["001b"]);
        let ranges: Vec<u8> = (0..100_u64)
            .flat_map(|index| {
                [[0; 4], 1_u32.to_le_bytes()].concat().into_iter().chain((index * 2).to_le_bytes())
            })
            .collect();
        let prps = world.hosts[GUEST].data(&ranges);
        let mut seen = 0_u64;
        while seen < u64::from(entries) + 200 {
            world.exec(GUEST, 1, sqe::deallocate(NSID, 100, prps)).ok();
            for entry in queue.take() {
                assert_eq!(
                    (entry.slba, entry.sequence),
                    (seen % 100 * 2, 0),
                    "entry {seen} of {pages} pages"
                );
                seen += 1;
            }
            world.publish(&queue);
        }
    }
}

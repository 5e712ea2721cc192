// SPDX-License-Identifier: MIT OR Apache-2.0
//! Queue pairs of the driver: every index, every fill, the smallest and the largest, several at once.

use std::collections::BTreeSet;

use nvme_core::io::{Buffer, IoQueueOptions};
use nvme_core::wire::nvm::{Flush, Read, Write};
use nvme_core::wire::{Command, CommandId, Lba, QueueId, Status};

use super::{io_slots, on_host, pair_options, slots};
use crate::conformance::backend::{Backend, Work};

pub(crate) fn batches_of_every_size_wrap_at_every_index(backend: &dyn Backend) {
    on_host(backend, |host| {
        let mut admin_slots = slots(16);
        let (mut controller, known) = host.up(&mut admin_slots);
        for entries in [2, 3, 4, 5, 8] {
            for slot_count in [1, 3, 8] {
                let mut queue_slots = io_slots(slot_count);
                let options = pair_options(1, entries, 4096);
                let mut pair = host.create(&mut controller, &options, &mut queue_slots);
                let most = pair.free();
                assert_eq!(most, slot_count.min(entries as usize - 1));
                let flush = Flush { namespace: known.namespace }.encode();
                let mut tag = 0;
                for batch in 1..=most {
                    for round in 0..entries * 3 {
                        let name = format!("{entries} entries, batch {batch}, round {round}");
                        let sent: Vec<u64> = (0..batch)
                            .map(|_| {
                                tag += 1;
                                host.put(&mut pair, &flush, None, tag);
                                tag
                            })
                            .collect();
                        pair.ring().expect("the controller works");
                        let done = host.collect(&mut pair, batch);
                        assert!(done.iter().all(|one| one.entry.status() == Status::SUCCESS), "{name}");
                        let mut tags: Vec<u64> = done.iter().map(|one| one.tag).collect();
                        tags.sort_unstable();
                        assert_eq!(tags, sent, "{name}");
                        assert_eq!(pair.outstanding(), 0, "{name}");
                    }
                }
                host.delete(&mut controller, pair);
            }
        }
        host.disable(controller.disable()).detach();
    });
}

pub(crate) fn a_full_submission_queue_says_busy_and_loses_nothing(backend: &dyn Backend) {
    on_host(backend, |host| {
        let mut admin_slots = slots(16);
        let (mut controller, known) = host.up(&mut admin_slots);
        let mut queue_slots = io_slots(64);
        let mut pair = host.create(&mut controller, &pair_options(1, 16, 4096), &mut queue_slots);
        let flush = Flush { namespace: known.namespace }.encode();
        for round in 0..40_u64 {
            for index in 0..15 {
                host.put(&mut pair, &flush, None, round * 100 + index);
            }
            assert_eq!(pair.free(), 0);
            let refused = pair.submit(&flush, None, 999, None).expect_err("the ring is full");
            assert_eq!(refused.tag, 999, "it comes back");
            pair.ring().expect("the controller works");
            let done = host.collect(&mut pair, 15);
            let tags: BTreeSet<u64> = done.iter().map(|one| one.tag).collect();
            assert_eq!(tags, (round * 100..round * 100 + 15).collect(), "round {round}");
        }
        host.delete(&mut controller, pair);
        host.disable(controller.disable()).detach();
    });
}

pub(crate) fn a_completion_queue_smaller_than_what_is_outstanding_loses_nothing(backend: &dyn Backend) {
    on_host(backend, |host| {
        let mut admin_slots = slots(16);
        let (mut controller, known) = host.up(&mut admin_slots);
        for completion_entries in [2, 3, 5] {
            let mut queue_slots = io_slots(32);
            let options =
                IoQueueOptions { submission_entries: 33, completion_entries, ..pair_options(1, 33, 4096) };
            let mut pair = host.create(&mut controller, &options, &mut queue_slots);
            let flush = Flush { namespace: known.namespace }.encode();
            for round in 0..5 {
                for tag in 0..32 {
                    host.put(&mut pair, &flush, None, tag);
                }
                pair.ring().expect("the controller works");
                let mut tags = BTreeSet::new();
                while tags.len() < 32 {
                    // One completion at a time, so that the ring is full at every index.
                    host.work();
                    let Some(done) = pair.poll().expect("the controller works") else {
                        assert!(pair.expire(host.now()).is_none(), "a command was lost");
                        continue;
                    };
                    assert!(tags.insert(done.tag), "round {round}: {} completes twice", done.tag);
                    pair.acknowledge().expect("the controller works");
                }
            }
            host.delete(&mut controller, pair);
        }
        host.disable(controller.disable()).detach();
    });
}

pub(crate) fn the_largest_queues_wrap(backend: &dyn Backend) {
    on_host(backend, |host| {
        let mut admin_slots = slots(16);
        let (mut controller, known) = host.up(&mut admin_slots);
        let entries = controller.capabilities().max_queue_entries();
        let mut queue_slots = io_slots(256);
        let mut pair = host.create(&mut controller, &pair_options(1, entries, 4096), &mut queue_slots);
        let flush = Flush { namespace: known.namespace }.encode();
        let mut sent = 0;
        while sent < u64::from(entries) + 600 {
            for _ in 0..256.min(pair.free()) {
                host.put(&mut pair, &flush, None, sent);
                sent += 1;
            }
            pair.ring().expect("the controller works");
            let outstanding = pair.outstanding();
            let done = host.collect(&mut pair, outstanding);
            assert!(done.iter().all(|one| one.entry.status() == Status::SUCCESS));
        }
        host.delete(&mut controller, pair);
        host.disable(controller.disable()).detach();
    });
}

pub(crate) fn identifiers_of_outstanding_commands_differ(backend: &dyn Backend) {
    on_host(backend, |host| {
        let mut admin_slots = slots(16);
        let (mut controller, known) = host.up(&mut admin_slots);
        let mut queue_slots = io_slots(7);
        let mut pair = host.create(&mut controller, &pair_options(1, 8, 4096), &mut queue_slots);
        let flush = Flush { namespace: known.namespace }.encode();
        let mut outstanding: BTreeSet<CommandId> = BTreeSet::new();
        let mut tag = 0;
        for round in 0..2000 {
            // Between one and seven are outstanding at any time, and end in any order.
            while outstanding.len() < 1 + round % 7 {
                let id = host.put(&mut pair, &flush, None, tag);
                tag += 1;
                assert_ne!(id.get(), 0xFFFF);
                assert!(outstanding.insert(id), "{id} is used twice at once");
            }
            pair.ring().expect("the controller works");
            host.device.work(Work::Little);
            while let Some(done) = pair.poll().expect("the controller works") {
                assert!(outstanding.remove(&done.entry.command_id()), "an unknown command completes");
            }
            pair.acknowledge().expect("the controller works");
        }
        host.collect(&mut pair, outstanding.len());
        host.delete(&mut controller, pair);
        host.disable(controller.disable()).detach();
    });
}

pub(crate) fn several_pairs_work_side_by_side(backend: &dyn Backend) {
    on_host(backend, |host| {
        let mut admin_slots = slots(16);
        let (mut controller, known) = host.up(&mut admin_slots);
        let granted = known.initialized.io_queues.expect("queues were asked for");
        let count = granted.submission.min(granted.completion).min(4);
        let mut all_slots: Vec<_> = (0..count).map(|_| io_slots(8)).collect();
        let mut pairs: Vec<_> = (1..=count)
            .zip(all_slots.iter_mut())
            .map(|(id, slots)| host.create(&mut controller, &pair_options(id, 16, 4096), slots))
            .collect();
        let blocks = known.small();
        for round in 0..10_u64 {
            for (index, pair) in (0..).zip(&mut pairs) {
                for part in 0..4_u64 {
                    let start = (index * 4 + part) * u64::from(blocks);
                    let data = known.pattern(blocks, start + round);
                    let region = host.memory(data.len());
                    region.write(0, &data).expect("inside the region");
                    let write = Write::new(known.namespace, Lba::new(start), blocks).encode();
                    host.put(pair, &write, Some(Buffer::whole(region)), start);
                }
                pair.ring().expect("the controller works");
            }
            for pair in &mut pairs {
                for done in host.collect(pair, 4) {
                    assert_eq!(done.entry.submission_queue(), pair.id());
                    assert_eq!(done.release(host.arena).0.status(), Status::SUCCESS);
                }
            }
            // Every pair reads what another one wrote.
            for (index, pair) in (0..u64::from(count)).zip(&mut pairs) {
                let start = (index + 1) % u64::from(count) * 4 * u64::from(blocks);
                assert_eq!(host.read(pair, &known, start, blocks), known.pattern(blocks, start + round));
            }
        }
        for pair in pairs {
            host.delete(&mut controller, pair);
        }
        host.disable(controller.disable()).detach();
    });
}

pub(crate) fn queues_are_created_and_deleted_again_and_again(backend: &dyn Backend) {
    on_host(backend, |host| {
        let mut admin_slots = slots(16);
        let (mut controller, known) = host.up(&mut admin_slots);
        let mut queue_slots = io_slots(4);
        for round in 0..30_u32 {
            let options = pair_options(1, 2 + round % 9, 4096);
            let mut pair = host.create(&mut controller, &options, &mut queue_slots);
            assert_eq!(pair.id(), QueueId::new(1));
            let read = Read::new(known.namespace, Lba::new(0), 1).encode();
            let region = host.memory(known.block_bytes);
            let done = host.io(&mut pair, &read, Some(Buffer::whole(region)));
            assert_eq!(done.release(host.arena).0.status(), Status::SUCCESS, "round {round}");
            host.delete(&mut controller, pair);
        }
        host.disable(controller.disable()).detach();
    });
}

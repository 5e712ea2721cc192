// SPDX-License-Identifier: MIT OR Apache-2.0
//! Rings: wrapping at every index, full queues, the smallest ones, identifiers used again, fused pairs. NVMe Base 2.1
//! §3.3.1, Queue Setup and Initialization, and §3.4.2, Fused Operations.

use crate::conformance::backend::Backend;
use crate::conformance::world::sqe::{self, Sqe};
use crate::conformance::world::status::*;
use crate::conformance::world::*;

/// Takes the completion of every one of `commands`, each a success, and nothing else may be there.
#[track_caller]
fn all_done(world: &mut World, queue: u16, commands: &[u16], name: &str) {
    for command in commands {
        let done = world.hosts[GUEST].take(queue, *command);
        done.unwrap_or_else(|| panic!("{name}: command {command:#x} is lost")).ok();
    }
    assert!(world.hosts[GUEST].done.is_empty(), "{name}: completed twice: {:?}", world.hosts[GUEST].done);
}

fn write_of(world: &World, block: u64, byte: u8) -> Sqe {
    sqe::write(NSID, block, 1, world.hosts[GUEST].data(&[byte; 512]))
}

pub(crate) fn batches_of_every_size_wrap_at_every_index(backend: &dyn Backend) {
    for submission in [2, 3, 4, 5, 8] {
        for completion in [2, 3, 4, 5, 8, 9] {
            let mut world = World::new(backend);
            world.create_completion(GUEST, 1, completion, 1);
            world.create_submission(GUEST, 1, 1, submission);
            let mut count = 0_u64;
            for batch in 1..submission {
                // As many rounds as bring every index of both rings to every place of the batch.
                for round in 0..submission * completion {
                    let name = format!("{submission} and {completion} slots, batch {batch}, round {round}");
                    let commands: Vec<u16> = (0..batch)
                        .map(|_| {
                            count += 1;
                            let command = match count % 3 {
                                0 => write_of(&world, count % 50, count as u8),
                                _ => sqe::flush(NSID),
                            };
                            world.send(GUEST, 1, command)
                        })
                        .collect();
                    world.ring(GUEST, 1);
                    world.run();
                    all_done(&mut world, 1, &commands, &name);
                }
            }
        }
    }
}

pub(crate) fn one_doorbell_for_a_full_submission_queue(backend: &dyn Backend) {
    for entries in [2, 3, 16, 64] {
        let mut world = World::new(backend);
        world.create_pair(GUEST, 1, entries);
        for start in 0..entries + 1 {
            let commands: Vec<u16> = (0..entries - 1)
                .map(|index| {
                    let write = write_of(&world, u64::from(index), (start + index) as u8);
                    world.send(GUEST, 1, write)
                })
                .collect();
            world.ring(GUEST, 1);
            world.run();
            all_done(&mut world, 1, &commands, &format!("{entries} slots from index {start}"));
        }
    }
}

pub(crate) fn a_full_completion_queue_loses_nothing_and_nothing_is_fetched_without_a_slot(
    backend: &dyn Backend,
) {
    for (entries, commands) in [(2, 1), (2, 7), (3, 7), (4, 3), (4, 4), (5, 7)] {
        let name = format!("{commands} commands for a completion queue of {entries}");
        let mut world = World::new(backend);
        world.create_completion(GUEST, 1, entries, 1);
        world.create_submission(GUEST, 1, 1, 8);
        // Every place of the completion ring is where it becomes full once.
        for round in 0..entries {
            world.hosts[GUEST].held.insert(1);
            let first = world.hosts[GUEST].submission[&1].tail;
            let sent: Vec<u16> = (0..commands)
                .map(|index| {
                    let write = write_of(&world, u64::from(index), round as u8 + 1);
                    world.send(GUEST, 1, write)
                })
                .collect();
            world.ring(GUEST, 1);
            let mut seen = 0;
            while seen < commands {
                world.settle();
                // One at a time: each slot that is given back lets exactly one more command through.
                assert_eq!(world.harvest_some(GUEST, 1, 1), 1, "{name}: completion {seen}");
                seen += 1;
                let done = world.hosts[GUEST].done.last().expect("one completion");
                let fetched = (u32::from(done.sq_head) + 8 - first) % 8;
                assert!(fetched < seen + entries - 1, "{name}: {fetched} fetched when {seen} were posted");
            }
            world.hosts[GUEST].held.clear();
            world.run();
            all_done(&mut world, 1, &sent, &name);
        }
    }
}

pub(crate) fn two_submission_queues_share_a_full_completion_queue(backend: &dyn Backend) {
    let mut world = World::new(backend);
    world.create_completion(GUEST, 1, 4, 1);
    world.create_submission(GUEST, 1, 1, 8);
    world.create_submission(GUEST, 2, 1, 8);
    world.hosts[GUEST].held.insert(1);
    let mut sent = Vec::new();
    for queue in [1, 2] {
        for _ in 0..7 {
            let command = world.send(GUEST, queue, sqe::flush(NSID));
            sent.push((queue, command));
        }
        world.ring(GUEST, queue);
    }
    for count in 0..sent.len() {
        world.settle();
        assert_eq!(world.harvest_some(GUEST, 1, 1), 1, "completion {count}");
    }
    for (queue, command) in sent {
        world.hosts[GUEST].take(queue, command).expect("none is lost").ok();
    }
    assert!(world.hosts[GUEST].done.is_empty());
}

pub(crate) fn a_command_identifier_is_free_once_its_completion_is_there(backend: &dyn Backend) {
    for id in [0, 1, 0x7FFF, 0x8000, 0xFFFE] {
        let mut world = World::new(backend);
        world.create_pair(GUEST, 1, 4);
        for round in 0..9 {
            for queue in [0, 1] {
                let command = if queue == 0 { sqe::get_features(0x01, 0) } else { sqe::flush(NSID) };
                world.send_as(GUEST, queue, command, id);
                world.ring(GUEST, queue);
            }
            world.run();
            for queue in [0, 1] {
                let done = world.hosts[GUEST].take(queue, id);
                done.unwrap_or_else(|| panic!("identifier {id:#x} of queue {queue}, round {round}")).ok();
            }
        }
    }
}

pub(crate) fn an_identifier_of_an_outstanding_command_is_refused(backend: &dyn Backend) {
    let mut world = World::new(backend);
    // An event request stays outstanding for as long as nothing happens.
    world.send_as(GUEST, 0, sqe::event_request(), 0x77);
    world.send_as(GUEST, 0, sqe::get_features(0x01, 0), 0x77);
    world.ring(GUEST, 0);
    world.run();
    assert_eq!(world.hosts[GUEST].take(0, 0x77).expect("the second one completes").code, COMMAND_ID_CONFLICT);
    assert_eq!(world.hosts[GUEST].take(0, 0x77), None, "the first one is still outstanding");
    world.admin(GUEST, sqe::abort(0, 0x77)).ok();
    assert_eq!(world.hosts[GUEST].take(0, 0x77).expect("aborted").code, ABORT_REQUESTED);
    world.send_as(GUEST, 0, sqe::get_features(0x01, 0), 0x77);
    world.ring(GUEST, 0);
    world.run();
    world.hosts[GUEST].take(0, 0x77).expect("free again").ok();
}

/// Sends Compare and Write of block 4, from `expected` to `new`.
fn fused(world: &mut World, expected: u8, new: u8) -> [u16; 2] {
    let (old, new) = (world.hosts[GUEST].data(&[expected; 512]), world.hosts[GUEST].data(&[new; 512]));
    let first = world.send(GUEST, 1, sqe::compare(NSID, 4, 1, old).or(0, 1 << 8));
    let second = world.send(GUEST, 1, sqe::write(NSID, 4, 1, new).or(0, 2 << 8));
    [first, second]
}

pub(crate) fn a_fused_pair_may_lie_across_the_end_of_its_ring(backend: &dyn Backend) {
    for (submission, completion) in [(3, 3), (4, 3), (5, 4), (8, 16)] {
        let mut world = World::new(backend);
        world.create_completion(GUEST, 1, completion, 1);
        world.create_submission(GUEST, 1, 1, submission);
        world.create_pair(GUEST, 2, 16);
        let mut byte = 0;
        // Between two pairs lies one command, so that pairs begin at every index of both rings.
        for round in 0..submission * completion {
            let name = format!("{submission} and {completion} slots, round {round}");
            let pair = fused(&mut world, byte, byte.wrapping_add(1));
            byte = byte.wrapping_add(1);
            world.ring(GUEST, 1);
            world.run();
            all_done(&mut world, 1, &pair, &name);
            let wrong = fused(&mut world, byte.wrapping_add(1), 0xEE);
            world.ring(GUEST, 1);
            world.run();
            let codes = wrong.map(|command| world.hosts[GUEST].take(1, command).expect("completes").code);
            assert_eq!(codes, [COMPARE_FAILURE, ABORTED_FAILED_FUSED], "{name}");
            world.exec(GUEST, 1, sqe::flush(NSID)).ok();
            let (address, prps) = world.hosts[GUEST].buffer(512);
            world.exec(GUEST, 2, sqe::read(NSID, 4, 1, prps)).ok();
            assert_eq!(world.memory(GUEST).bytes(address, 512), [byte; 512], "{name}");
        }
    }
}

pub(crate) fn a_fused_pair_ends_also_where_only_one_completion_fits(backend: &dyn Backend) {
    for expected in [0, 9] {
        let mut world = World::new(backend);
        world.create_completion(GUEST, 1, 2, 1);
        world.create_submission(GUEST, 1, 1, 8);
        let pair = fused(&mut world, expected, 0x55);
        let after = world.send(GUEST, 1, sqe::flush(NSID));
        world.ring(GUEST, 1);
        world.run();
        let codes = pair.map(|command| world.hosts[GUEST].take(1, command).expect("completes").code);
        world.hosts[GUEST].take(1, after).expect("the queue goes on").ok();
        // Both or neither: a controller that cannot hold the pair may refuse it.
        let written = codes == [SUCCESS, SUCCESS];
        assert!(written || codes.iter().all(|code| *code != SUCCESS), "{codes:?}");
        assert!(!(written && expected == 9), "block 4 holds zeroes");
        let byte = if written { 0x55 } else { 0 };
        assert_eq!(world.read_blocks(GUEST, NSID, 4, 1), [byte; 512], "{codes:?}");
    }
}

pub(crate) fn halves_of_fused_pairs_do_not_find_each_other_over_a_doorbell(backend: &dyn Backend) {
    let mut world = World::new(backend);
    world.create_pair(GUEST, 1, 8);
    let (old, new) = (world.hosts[GUEST].data(&[0; 512]), world.hosts[GUEST].data(&[0x66; 512]));
    let rows: [(&str, &[Sqe]); 4] = [
        ("first without a second", &[sqe::compare(NSID, 4, 1, old).or(0, 1 << 8)]),
        ("second without a first", &[sqe::write(NSID, 4, 1, new).or(0, 2 << 8)]),
        (
            "two firsts",
            &[sqe::compare(NSID, 4, 1, old).or(0, 1 << 8), sqe::compare(NSID, 4, 1, old).or(0, 1 << 8)],
        ),
        (
            "second before first",
            &[sqe::write(NSID, 4, 1, new).or(0, 2 << 8), sqe::compare(NSID, 4, 1, old).or(0, 1 << 8)],
        ),
    ];
    for (name, commands) in rows {
        let sent: Vec<u16> = commands.iter().map(|command| world.send(GUEST, 1, *command)).collect();
        world.ring(GUEST, 1);
        world.run();
        for command in sent {
            let done = world.hosts[GUEST].take(1, command);
            let code = done.unwrap_or_else(|| panic!("{name}: completes")).code;
            assert_eq!(code, ABORTED_MISSING_FUSED, "{name}");
        }
        assert_eq!(world.read_blocks(GUEST, NSID, 4, 1), [0; 512], "{name}: nothing is written");
    }
}

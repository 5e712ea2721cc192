// SPDX-License-Identifier: MIT OR Apache-2.0
//! Tracker against a map, rings against a device that follows the rules or breaks them.

use core::cell::RefCell;
use std::collections::BTreeMap;
use std::vec::Vec;

use proptest::prelude::*;
use zerocopy::IntoBytes;

use super::*;
use crate::dma::{Direction, DmaArena, DmaError, Pool};
use crate::register::{Offset, RegisterIo};
use crate::testing::{TestArena, TestProof};
use crate::time::Instant;
use crate::wire::{BusAddr, CommandId, CompletionQueueEntry, QueueId, Status, SubmissionQueueEntry};

fn at(micros: u64) -> Instant {
    Instant::from_micros(micros)
}

fn slots<T>(count: usize) -> Vec<Slot<T>> {
    (0..count).map(|_| Slot::new()).collect()
}

#[derive(Default)]
struct Writes(RefCell<Vec<(u32, u32)>>);

impl RegisterIo for Writes {
    type Error = ();
    fn read32(&self, _: Offset) -> Result<u32, ()> {
        Err(())
    }
    fn write32(&self, offset: Offset, value: u32) -> Result<(), ()> {
        self.0.borrow_mut().push((offset.bytes(), value));
        Ok(())
    }
}

#[test]
fn identifiers_are_never_ffffh_and_never_repeat_at_once() {
    for count in [1, 2, 3, 4, 63, 64, 65, 32_768, 65_535, 65_536] {
        let mut memory = slots::<u32>(count);
        let mut tracker = Tracker::new(&mut memory);
        let usable = count.min(65_535);
        assert_eq!(tracker.capacity(), usable);
        let mut last = None;
        // Enough for every generation of the last slot to come up.
        for round in 0..(65_536 / usable as u32 + 3).min(70_000) {
            while let Some(expected) = tracker.peek() {
                let id = tracker.submit(round, None).unwrap();
                assert_eq!(id, expected);
                assert_ne!(id.get(), 0xFFFF, "{count} slots");
                last = Some(id);
            }
            assert_eq!(tracker.outstanding(), usable);
            assert_eq!(tracker.submit(7, None), Err(7), "{count} slots are full");
            let ids: Vec<CommandId> = tracker.iter().map(|(id, _)| id).collect();
            assert_eq!(ids.len(), usable);
            for id in ids {
                assert_eq!(tracker.complete(id), Ok(Finished { payload: round, late: false }));
                if usable < 32_768 {
                    assert_eq!(tracker.complete(id), Err(UnknownCommand(id)), "completed twice");
                }
            }
        }
        assert!(last.is_some());
        assert_eq!(tracker.outstanding(), 0);
    }
}

#[test]
fn an_entry_is_read_only_after_its_tag_was_seen() {
    let arena = TestArena::new();
    let memory = arena.allocate(Pool::Queues, 64, 64, Direction::FromDevice).unwrap();
    let base = memory.bus();
    let mut ring = CompletionRing::new(memory, 4, Offset::new(0x1004), &arena).unwrap();
    let entry = CompletionQueueEntry::new(QueueId::new(3), 2, CommandId::new(9), Status::SUCCESS)
        .with_result(0x1111, 0x2222)
        .with_phase(true);
    let bytes = entry.as_bytes();
    // What a copy from front to back shows that meets the device in the middle of it: the tag, not what came before.
    arena.device_write(base.plus(12), &bytes[12..]);
    arena.write_after_acquire(base, &bytes[..12]);
    let mut found = None;
    for _ in 0..3 {
        found = found.or_else(|| ring.pop(&arena));
    }
    assert_eq!(found, Some(entry));
}

#[test]
fn no_slots_at_all() {
    let mut tracker = Tracker::<()>::new(&mut []);
    assert_eq!(tracker.submit((), None), Err(()));
    assert_eq!(tracker.peek(), None);
    assert_eq!(tracker.complete(CommandId::new(0)), Err(UnknownCommand(CommandId::new(0))));
    assert_eq!((tracker.expire(at(9)), tracker.next_deadline()), (None, None));
}

#[test]
fn identifiers_a_device_may_invent() {
    let mut memory = slots(5);
    let mut tracker = Tracker::new(&mut memory);
    let ids = [1, 2, 3].map(|payload| tracker.submit(payload, None).unwrap());
    for id in 0..=u16::MAX {
        let id = CommandId::new(id);
        if !ids.contains(&id) {
            assert_eq!(tracker.complete(id), Err(UnknownCommand(id)));
            assert_eq!(tracker.get(id), None);
            assert_eq!(tracker.get_mut(id), None);
        }
    }
    assert_eq!(tracker.outstanding(), 3);
}

#[test]
fn time_outs_are_reported_once_and_late_completions_free_the_slot() {
    let mut memory = slots(4);
    let mut tracker = Tracker::new(&mut memory);
    let first = tracker.submit('a', Some(at(10))).unwrap();
    let second = tracker.submit('b', Some(at(30))).unwrap();
    let patient = tracker.submit('c', None).unwrap();
    assert_eq!(tracker.next_deadline(), Some(at(10)));
    assert_eq!(tracker.expire(at(9)), None);
    assert_eq!(tracker.expire(at(10)), Some(first));
    assert_eq!(tracker.expire(at(20)), None);
    assert_eq!(tracker.next_deadline(), Some(at(30)), "the one reported has no deadline any more");
    assert_eq!(tracker.outstanding(), 3, "its slot stays taken");
    assert_eq!(tracker.expire(at(40)), Some(second));
    assert_eq!(tracker.expire(at(u64::MAX)), None, "each once");
    assert_eq!(tracker.next_deadline(), None);
    assert_eq!(tracker.complete(first), Ok(Finished { payload: 'a', late: true }));
    assert_eq!(tracker.complete(patient), Ok(Finished { payload: 'c', late: false }));
    assert_eq!(tracker.complete(second), Ok(Finished { payload: 'b', late: true }));
    // The slot's next command starts afresh.
    let again = tracker.submit('d', Some(at(50))).unwrap();
    assert_eq!(tracker.expire(at(50)), Some(again));
}

#[test]
fn the_identifier_of_a_claimed_command_is_not_used_again_before_it_is_let_go() {
    // One generation only with more than 32,768 slots, 64 with 1,024, and so on.
    for count in [1, 2, 1024, 32_769, 65_535] {
        let mut memory = slots(count);
        let mut tracker = Tracker::new(&mut memory);
        let id = tracker.submit((), Some(at(1))).unwrap();
        assert_eq!((tracker.late(), tracker.claim_late()), (None, None), "{count} slots: in time");
        assert_eq!(tracker.expire(at(1)), Some(id));
        assert_eq!((tracker.late(), tracker.claim_late(), tracker.claim_late()), (Some(id), Some(id), None));
        // What was done did not help: it can be claimed for something else.
        tracker.unclaim(id);
        assert_eq!((tracker.is_late(id), tracker.claim_late()), (true, Some(id)), "{count} slots");
        assert_eq!(tracker.complete(id), Ok(Finished { payload: (), late: true }));
        assert_eq!(tracker.complete(id), Err(UnknownCommand(id)), "{count} slots: twice");
        assert_eq!((tracker.outstanding(), tracker.free(), tracker.late()), (0, count - 1, None));
        for _ in 0..70_000 / count.next_power_of_two() + 3 {
            let Ok(other) = tracker.submit((), None) else { break };
            assert_ne!(other, id, "{count} slots");
            tracker.complete(other).unwrap();
        }
        for _ in 0..2 {
            tracker.unclaim(id);
            assert_eq!((tracker.outstanding(), tracker.free()), (0, count), "{count} slots: let go once");
        }
        let filled = core::iter::from_fn(|| tracker.submit((), None).ok()).count();
        assert_eq!((filled, tracker.free()), (count, 0), "{count} slots: all usable");
    }
}

#[test]
fn a_deadline_set_during_a_search_is_not_lost() {
    let mut memory = slots(3);
    let mut tracker = Tracker::new(&mut memory);
    let a = tracker.submit((), Some(at(1))).unwrap();
    let b = tracker.submit((), Some(at(1))).unwrap();
    assert_eq!(tracker.expire(at(1)), Some(a));
    tracker.complete(a).unwrap();
    // Takes the slot that the search has passed.
    let c = tracker.submit((), Some(at(2))).unwrap();
    assert_eq!(tracker.index(c), tracker.index(a));
    assert_eq!(tracker.expire(at(5)), Some(b));
    assert_eq!(tracker.expire(at(5)), Some(c));
    assert_eq!(tracker.expire(at(5)), None);
    assert_eq!(tracker.next_deadline(), None);
}

#[test]
fn everything_outstanding_is_drained_once() {
    let mut memory = slots(5);
    let mut tracker = Tracker::new(&mut memory);
    let ids: Vec<CommandId> = (0..5).map(|n| tracker.submit(n, Some(at(1))).unwrap()).collect();
    tracker.complete(ids[1]).unwrap();
    tracker.expire(at(2));
    let drained: Vec<_> = core::iter::from_fn(|| tracker.drain(&TestProof)).collect();
    assert_eq!(drained, [(ids[0], 0), (ids[2], 2), (ids[3], 3), (ids[4], 4)]);
    assert_eq!(tracker.outstanding(), 0);
    assert_eq!(tracker.drain(&TestProof), None);
    assert_eq!(tracker.into_slots().len(), 5);
}

proptest! {
    #[test]
    fn tracker_agrees_with_a_map(count in 1_usize..20, steps in prop::collection::vec((0_u8..4, 0_u64..50), 0..300)) {
        let mut memory = slots(count);
        let mut tracker = Tracker::new(&mut memory);
        // Identifier to (payload, deadline, reported).
        let mut model: BTreeMap<u16, (u32, u64, bool)> = BTreeMap::new();
        let (mut now, mut number) = (0, 0);
        for (step, value) in steps {
            match step {
                0 | 1 => match tracker.submit(number, Some(at(now + value))) {
                    Ok(id) => prop_assert_eq!(model.insert(id.get(), (number, now + value, false)), None, "in use"),
                    Err(payload) => {
                        prop_assert_eq!(payload, number);
                        prop_assert_eq!(model.len(), count);
                    }
                },
                2 => if let Some(&id) = model.keys().nth(value as usize % model.len().max(1)) {
                    let (payload, _, late) = model.remove(&id).unwrap();
                    prop_assert_eq!(tracker.complete(CommandId::new(id)), Ok(Finished { payload, late }));
                },
                _ => {
                    now += value;
                    let mut found: Vec<u16> =
                        core::iter::from_fn(|| tracker.expire(at(now))).map(CommandId::get).collect();
                    found.sort_unstable();
                    let due: Vec<u16> =
                        model.iter().filter(|(_, v)| !v.2 && v.1 <= now).map(|(id, _)| *id).collect();
                    prop_assert_eq!(&found, &due);
                    for id in found {
                        model.get_mut(&id).unwrap().2 = true;
                    }
                }
            }
            number += 1;
            prop_assert_eq!(tracker.outstanding(), model.len());
            let earliest = model.values().filter(|v| !v.2).map(|v| v.1).min();
            if let Some(earliest) = earliest {
                prop_assert!(tracker.next_deadline().unwrap() <= at(earliest));
            }
        }
    }
}

fn submission(arena: &TestArena, size: u32) -> SubmissionRing {
    let memory = arena.allocate(Pool::Queues, size as usize * 64, 4096, Direction::ToDevice).unwrap();
    SubmissionRing::new(memory, size, Offset::new(0x1000)).unwrap()
}

fn completion(arena: &TestArena, size: u32) -> CompletionRing {
    let memory = arena.allocate(Pool::Queues, size as usize * 16, 4096, Direction::FromDevice).unwrap();
    memory.write(0, &std::vec![0xFF; size as usize * 16]).unwrap();
    CompletionRing::new(memory, size, Offset::new(0x1004), arena).unwrap()
}

#[test]
fn submission_ring_wraps_at_every_index_and_batches_doorbells() {
    for size in [2, 3, 4, 8] {
        for batch in 1..size {
            let (arena, registers) = (TestArena::new(), Writes::default());
            let mut ring = submission(&arena, size);
            let base = ring.memory().bus();
            let mut number = 0_u32;
            for _ in 0..3 * size {
                assert_eq!(ring.free(), size - 1);
                let start = ring.tail();
                let entry = |number| SubmissionQueueEntry::new(2).with_dwords([number, 1, 2, 3, 4, 5]);
                for n in 0..batch {
                    ring.push(&entry(number + n)).unwrap();
                }
                if batch == size - 1 {
                    assert_eq!(ring.push(&SubmissionQueueEntry::new(0)), Err(RingFull));
                }
                ring.ring(&registers, &arena).unwrap();
                ring.ring(&registers, &arena).unwrap();
                assert_eq!(registers.0.borrow_mut().drain(..).collect::<Vec<_>>(), [(0x1000, ring.tail())]);
                for n in 0..batch {
                    let slot = (start + n) % size;
                    let mut bytes = [0; 64];
                    arena.device_read(base.plus(u64::from(slot) * 64), &mut bytes);
                    assert_eq!(zerocopy::IntoBytes::as_bytes(&entry(number)), bytes);
                    number += 1;
                }
                ring.set_head(ring.tail() as u16).unwrap();
            }
        }
    }
}

#[test]
fn submission_heads_that_cannot_be() {
    let (arena, registers) = (TestArena::new(), Writes::default());
    let mut ring = submission(&arena, 8);
    for _ in 0..5 {
        ring.push(&SubmissionQueueEntry::new(0)).unwrap();
    }
    ring.ring(&registers, &arena).unwrap();
    ring.push(&SubmissionQueueEntry::new(0)).unwrap();
    ring.set_head(2).unwrap();
    for (name, head) in [
        ("backwards", 1),
        ("past what the doorbell told", 6),
        ("outside the ring", 8),
        ("far outside", 0xFFFF),
    ] {
        assert_eq!(ring.set_head(head), Err(BadHead(head)), "{name}");
        assert_eq!(ring.free(), 3, "{name}");
    }
    ring.set_head(2).unwrap();
    ring.set_head(5).unwrap();
    assert_eq!(ring.free(), 6);
}

#[test]
fn rings_need_room_for_their_entries() {
    let arena = TestArena::new();
    for (name, bytes, size) in [("one slot", 4096, 1), ("no slot", 4096, 0), ("memory short", 64 * 7, 8)] {
        let memory = arena.allocate(Pool::Queues, bytes, 4096, Direction::ToDevice).unwrap();
        let found = SubmissionRing::new(memory, size, Offset::new(0)).map(|_| ()).map_err(|(error, _)| error);
        let len = size as usize * 64;
        assert_eq!(found, Err(DmaError::OutOfRange { offset: 0, len, region: bytes }), "{name}");
        let memory = arena.allocate(Pool::Queues, bytes / 4, 4096, Direction::FromDevice).unwrap();
        let found =
            CompletionRing::new(memory, size, Offset::new(0), &arena).map(|_| ()).map_err(|(error, _)| error);
        let len = size as usize * 16;
        assert_eq!(found, Err(DmaError::OutOfRange { offset: 0, len, region: bytes / 4 }), "{name}");
    }
}

#[test]
fn completion_ring_takes_each_entry_once_over_every_wrap() {
    for size in [2_u32, 3, 4, 5, 8, 63, 64, 65] {
        let (arena, registers) = (TestArena::new(), Writes::default());
        let mut ring = completion(&arena, size);
        let base = ring.memory().bus();
        let (mut tail, mut phase, mut number) = (0_u32, true, 0_u16);
        for batch in (1..size).chain([1, 1]) {
            for n in 0..batch {
                let entry = CompletionQueueEntry::new(
                    QueueId::new(3),
                    7,
                    CommandId::new(number + n as u16),
                    Status::SUCCESS,
                )
                .with_result(0x1122_3344, 0x5566_7788)
                .with_phase(phase);
                let address = base.plus(u64::from(tail) * 16);
                arena.device_write(address, zerocopy::IntoBytes::as_bytes(&entry));
                (tail, phase) = if tail + 1 == size { (0, !phase) } else { (tail + 1, phase) };
            }
            for _ in 0..batch {
                let entry = ring.pop(&arena).expect("posted");
                assert_eq!((entry.command_id().get(), entry.submission_queue().get()), (number, 3));
                assert_eq!((entry.dw0(), entry.dw1()), (0x1122_3344, 0x5566_7788));
                assert_eq!(entry.submission_head(), 7);
                number += 1;
            }
            assert_eq!(ring.pop(&arena), None, "an old tag is not a new entry");
            ring.ring(&registers).unwrap();
            ring.ring(&registers).unwrap();
            assert_eq!(registers.0.borrow_mut().drain(..).collect::<Vec<_>>(), [(0x1004, tail)]);
        }
    }
}

#[test]
fn a_wrong_tag_is_not_consumed() {
    let arena = TestArena::new();
    let mut ring = completion(&arena, 4);
    let entry = CompletionQueueEntry::new(QueueId::ADMIN, 1, CommandId::new(1), Status::SUCCESS);
    let base: BusAddr = ring.memory().bus();
    arena.device_write(base, zerocopy::IntoBytes::as_bytes(&entry.with_phase(false)));
    assert_eq!(ring.pop(&arena), None);
    arena.device_write(base, zerocopy::IntoBytes::as_bytes(&entry.with_phase(true)));
    assert_eq!(ring.pop(&arena), Some(entry.with_phase(true)));
    assert_eq!(ring.pop(&arena), None);
}

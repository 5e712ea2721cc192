// SPDX-License-Identifier: MIT OR Apache-2.0
//! I/O queue pairs against the scripted device.

use core::time::Duration;
use std::vec::Vec;

use super::*;
use crate::admin::{AdminPort, AdminRequest, CallError, SubmitError};
use crate::controller::{EnableOptions, Fault, Health, Link};
use crate::dma::{Direction, DmaArena, DmaError, Pool};
use crate::prp::PrpError;
use crate::queue::Slot;
use crate::testing::TestArena;
use crate::testing::device::{Answer, Device, SUCCESS};
use crate::testing::life::{TestReady, ready, run, slots};
use crate::time::{Instant, Step};
use crate::wire::admin::{
    CreateIoCompletionQueue, CreateIoSubmissionQueue, DeleteIoCompletionQueue, DeleteIoSubmissionQueue,
    QueuePriority,
};
use crate::wire::{
    Command, CommandId, CompletionQueueEntry, QueueId, Status, StatusCode, SubmissionQueueEntry,
};

type Pair<'d, 'a, 's> = IoQueuePair<'d, 's, Device<'a>, TestArena, u32>;
type Machine<'d, 'a, 's> = CreateIoQueuePair<'d, 's, Device<'a>, TestArena, u32>;

const SECOND: Duration = Duration::from_secs(1);

fn io_slots(count: usize) -> Vec<IoSlot<u32>> {
    (0..count).map(|_| Slot::new()).collect()
}

fn options(id: u16, entries: u32) -> IoQueueOptions {
    IoQueueOptions {
        max_transfer: 64 << 10,
        timeout: Duration::from_secs(2),
        ..IoQueueOptions::new(QueueId::new(id), entries)
    }
}

/// Runs the creation to its end, time passing whenever it waits.
fn drive<'d, 'a, 's>(
    ready: &mut TestReady<'d, 'a, '_>,
    mut machine: Machine<'d, 'a, 's>,
) -> CreateOutcome<'d, 's, Device<'a>, TestArena, u32> {
    let mut now = Instant::ZERO;
    for _ in 0..100_000 {
        ready.admin().poll(now).ok();
        match machine.poll(ready.admin(), now) {
            Step::Done => return machine.finish().unwrap(),
            Step::Wait(until) => now = until,
            Step::Again => {}
        }
    }
    panic!("creation does not end");
}

fn pair<'d, 'a, 's>(
    ready: &mut TestReady<'d, 'a, '_>,
    options: &IoQueueOptions,
    slots: &'s mut [IoSlot<u32>],
) -> Pair<'d, 'a, 's> {
    let machine = CreateIoQueuePair::new(ready.admin(), options, slots).unwrap();
    match drive(ready, machine) {
        CreateOutcome::Created(pair) => pair,
        other => panic!("{other:?}"),
    }
}

fn read(n: u32) -> SubmissionQueueEntry {
    SubmissionQueueEntry::new(2).with_dwords([n, 0, 0, 0, 0, 0])
}

#[test]
fn queues_of_every_size_wrap_at_every_index() {
    for (entries, completions, count) in
        [(2, 2, 1), (2, 5, 3), (3, 2, 4), (4, 4, 3), (5, 3, 9), (64, 64, 63), (65, 8, 100)]
    {
        let (arena, link) = (TestArena::new(), Link::new());
        let device = Device::new(&arena);
        let (mut admin, mut memory) = (slots(8), io_slots(count));
        let mut ready = ready(&device, &arena, &link, &EnableOptions::default(), &mut admin);
        let options = IoQueueOptions { completion_entries: completions, ..options(3, entries) };
        let mut pair = pair(&mut ready, &options, &mut memory);
        device.on_command(|queue, _| if queue.get() == 3 { SUCCESS } else { None });
        let (mut sent, mut seen) = (0, 0);
        while seen < 4 * entries {
            // What the completion queue has room for, so that the device need not wait.
            let batch = pair.free().min(completions as usize - 1);
            assert_eq!(pair.free(), count.min(entries as usize - 1));
            for _ in 0..batch {
                pair.submit(&read(sent), None, sent, None).unwrap();
                sent += 1;
            }
            if batch == pair.free() + batch {
                let full = pair.submit(&read(0), None, 77, None).unwrap_err();
                assert_eq!((full.error, full.tag), (SubmitError::Busy, 77));
            }
            device.state.borrow_mut().doorbells.clear();
            pair.ring().unwrap();
            assert_eq!(device.state.borrow().doorbells.len(), 1, "one doorbell for the batch");
            for _ in 0..batch {
                let done = pair.poll().unwrap().expect("completed");
                assert_eq!((done.tag, done.late), (seen, false));
                seen += 1;
            }
            assert!(pair.poll().unwrap().is_none());
            pair.acknowledge().unwrap();
            pair.acknowledge().unwrap();
            assert_eq!(device.state.borrow().doorbells.len(), 2);
            assert_eq!(pair.outstanding(), 0);
        }
    }
}

#[test]
fn another_controller_neither_creates_nor_deletes_a_pair() {
    let arenas = [TestArena::new(), TestArena::new()];
    let links = [Link::new(), Link::new()];
    let devices = [Device::new(&arenas[0]), Device::new(&arenas[1])];
    let (mut first, mut second) = (slots(8), slots(8));
    let enable = EnableOptions::default();
    let mut one = ready(&devices[0], &arenas[0], &links[0], &enable, &mut first);
    let mut two = ready(&devices[1], &arenas[1], &links[1], &enable, &mut second);
    let not_ready = CallError::NotSubmitted(SubmitError::NotReady);

    let mut memory = io_slots(2);
    let mut machine: Machine<'_, '_, '_> =
        CreateIoQueuePair::new(one.admin(), &options(1, 4), &mut memory).unwrap();
    assert_eq!(machine.poll(two.admin(), Instant::ZERO), Step::Done);
    let Ok(CreateOutcome::Quarantined { error, .. }) = machine.finish() else { panic!("not created") };
    assert_eq!(error, not_ready);

    let mut memory = io_slots(2);
    let pair = pair(&mut one, &options(2, 4), &mut memory);
    let mut machine = DeleteIoQueuePair::new(pair, Duration::from_secs(1));
    assert_eq!(machine.poll(two.admin(), Instant::ZERO), Step::Done);
    let Ok(DeleteOutcome::Quarantined { error, .. }) = machine.finish() else { panic!("not deleted") };
    assert_eq!(error, not_ready);
    assert_eq!(devices[0].io_queues(), (1, 1));
    assert!(devices[1].take_commands(0).is_empty());
}

#[test]
fn what_waits_for_room_when_the_controller_is_reset_is_not_sent_afterwards() {
    for deletes in [false, true] {
        let (arena, link) = (TestArena::new(), Link::new());
        let device = Device::new(&arena);
        let enable = EnableOptions { events: 0, ..EnableOptions::default() };
        let (mut first, mut second) = (slots(1), slots(1));
        let (mut memory, mut later) = (io_slots(2), io_slots(2));
        let mut before = ready(&device, &arena, &link, &enable, &mut first);
        let mut creation: Option<Machine<'_, '_, '_>> = None;
        let mut deletion = None;
        if deletes {
            let pair = pair(&mut before, &options(1, 4), &mut memory);
            deletion = Some(DeleteIoQueuePair::new(pair, Duration::from_secs(1)));
        } else {
            creation = CreateIoQueuePair::new(before.admin(), &options(1, 4), &mut memory).ok();
        }
        let poll = |creation: &mut Option<Machine<'_, '_, '_>>,
                    deletion: &mut Option<DeleteIoQueuePair<'_, '_, _, _, u32>>,
                    ready: &mut TestReady<'_, '_, '_>| match (creation, deletion) {
            (Some(creation), _) => creation.poll(ready.admin(), Instant::ZERO),
            (_, Some(deletion)) => deletion.poll(ready.admin(), Instant::ZERO),
            _ => unreachable!("one of both"),
        };
        // The only slot is taken by a command that does not complete.
        device.state.borrow_mut().silent = true;
        let request = AdminRequest::without_data(&DeleteIoCompletionQueue { queue: QueueId::new(9) }, SECOND);
        before.admin().submit(request, Instant::ZERO).unwrap();
        assert!(matches!(poll(&mut creation, &mut deletion, &mut before), Step::Wait(_)));
        device.state.borrow_mut().silent = false;
        let mut disabling = before.disable();
        run(&mut Instant::ZERO.clone(), |now| disabling.poll(now)).unwrap();
        let mut enabling = disabling.finish().unwrap().enable(&enable, &mut second).unwrap();
        run(&mut Instant::ZERO.clone(), |now| enabling.poll(now)).unwrap();
        let mut after = enabling.finish().unwrap();
        let next = pair(&mut after, &options(1, 4), &mut later);
        device.take_commands(0);
        assert_eq!(poll(&mut creation, &mut deletion, &mut after), Step::Done, "deletes: {deletes}");
        assert!(device.take_commands(0).is_empty(), "deletes: {deletes}: nothing is sent");
        assert_eq!((device.io_queues(), next.check()), ((1, 1), Ok(())), "deletes: {deletes}");
        let error = match (creation.map(|one| one.finish()), deletion.map(|one| one.finish())) {
            (Some(Ok(CreateOutcome::Quarantined { error, .. })), _) => error,
            (_, Some(Ok(DeleteOutcome::Quarantined { error, .. }))) => error,
            _ => panic!("deletes: {deletes}: its memory is kept"),
        };
        assert_eq!(error, CallError::NotSubmitted(SubmitError::NotReady), "deletes: {deletes}");
    }
}

#[test]
fn the_largest_queue_with_every_identifier_outstanding() {
    let (arena, link) = (TestArena::new(), Link::new());
    let device = Device::new(&arena);
    let (mut admin, mut memory) = (slots(8), io_slots(65_535));
    let mut ready = ready(&device, &arena, &link, &EnableOptions::default(), &mut admin);
    let options = IoQueueOptions { max_transfer: 4096, ..options(65_535, 65_536) };
    let mut pair = pair(&mut ready, &options, &mut memory);
    device.on_command(|_, _| None);
    for round in 0..3 {
        let mut ids: Vec<u16> =
            (0..65_535).map(|n| pair.submit(&read(n), None, n, None).unwrap().get()).collect();
        assert_eq!(pair.free(), 0);
        pair.ring().unwrap();
        device.state.borrow_mut().commands.clear();
        for (n, id) in ids.iter().enumerate() {
            device.complete(65_535, CommandId::new(*id), Status::SUCCESS, 0, 0);
            let done = pair.poll().unwrap().unwrap();
            assert_eq!(done.tag, n as u32, "round {round}");
        }
        pair.acknowledge().unwrap();
        ids.sort_unstable();
        ids.dedup();
        assert_eq!(ids.len(), 65_535);
    }
}

#[test]
fn data_travels_with_its_command() {
    let (arena, link) = (TestArena::new(), Link::new());
    let device = Device::new(&arena);
    let (mut admin, mut memory) = (slots(8), io_slots(4));
    let mut ready = ready(&device, &arena, &link, &EnableOptions::default(), &mut admin);
    let mut pair = pair(&mut ready, &options(1, 8), &mut memory);
    device.on_command(|queue, entry| {
        if queue.get() != 1 {
            return None;
        }
        let [pages, ..] = entry.dwords();
        for n in 0..pages {
            let page = match n {
                0 => entry.prp1(),
                1 if pages == 2 => entry.prp2(),
                _ => {
                    crate::wire::BusAddr::new(arena.device_read_u64(entry.prp2().plus(u64::from(n - 1) * 8)))
                }
            };
            arena.device_write(page, &[entry.command_id().get() as u8 + n as u8; 4096]);
        }
        SUCCESS
    });
    // All slots at once, so that one list running into the next would show.
    let mut expected = Vec::new();
    for pages in [16, 1, 2, 9] {
        let region = arena.allocate_scattered(Pool::Data, 16 * 4096, Direction::FromDevice).unwrap();
        let buffer = Buffer::new(region, 0..pages * 4096);
        let id = pair.submit(&read(pages as u32), Some(buffer), pages as u32, None).unwrap();
        expected.push(id.get() as u8);
    }
    pair.ring().unwrap();
    for first in expected {
        let done = pair.poll().unwrap().unwrap();
        let buffer = done.buffer.as_ref().unwrap();
        for n in 0..done.tag as usize {
            let mut bytes = [0; 4096];
            buffer.region().read(n * 4096, &mut bytes).unwrap();
            assert_eq!(bytes, [first + n as u8; 4096], "page {n} of {}", done.tag);
        }
        assert_eq!(buffer.range(), 0..done.tag as usize * 4096);
        let _ = done.release(&arena);
    }
    assert_eq!(arena.live(Pool::Data), 0);
}

#[test]
fn what_is_refused_comes_back() {
    let (arena, link) = (TestArena::new(), Link::new());
    let device = Device::new(&arena);
    let (mut admin, mut memory) = (slots(8), io_slots(4));
    let mut ready = ready(&device, &arena, &link, &EnableOptions::default(), &mut admin);
    ready.admin().limit_transfer(32 << 10);
    let mut pair = pair(&mut ready, &options(1, 8), &mut memory);
    assert_eq!((pair.max_transfer(), pair.page_size(), pair.id()), (32 << 10, 4096, QueueId::new(1)));
    let region = arena.allocate(Pool::Data, 64 << 10, 4096, Direction::ToDevice).unwrap();
    let mut buffer = Buffer::whole(region);
    for (name, range, error) in [
        (
            "longer than the controller takes",
            0..(32 << 10) + 4,
            SubmitError::TooLong { bytes: (32 << 10) + 4, limit: 32 << 10 },
        ),
        ("nothing", 8..8, SubmitError::DataPointer(PrpError::Empty)),
        (
            "past the end",
            65_000..66_000,
            SubmitError::DataPointer(PrpError::Dma(DmaError::OutOfRange {
                offset: 65_000,
                len: 1000,
                region: 65_536,
            })),
        ),
    ] {
        let rejected = pair.submit(&read(0), Some(buffer.with_range(range)), 5, None).unwrap_err();
        assert_eq!((rejected.error, rejected.tag), (error, 5), "{name}");
        buffer = rejected.buffer.unwrap();
    }
    assert_eq!((pair.outstanding(), pair.free()), (0, 4));
    crate::dma::give_back(&arena, buffer.into_region());
    device.state.borrow_mut().removed = true;
    ready.check_status().unwrap_err();
    let rejected = pair.submit(&read(0), None, 9, None).unwrap_err();
    assert_eq!((rejected.error, rejected.tag), (SubmitError::NotReady, 9));
    assert_eq!(pair.poll().map(|_| ()), Err(Fault::Removed), "a fault is known on every queue");
    assert_eq!((pair.ring(), pair.acknowledge()), (Err(Fault::Removed), Err(Fault::Removed)));
}

#[test]
fn time_outs_once_and_late_completions() {
    let (arena, link) = (TestArena::new(), Link::new());
    let device = Device::new(&arena);
    let (mut admin, mut memory) = (slots(8), io_slots(2));
    let mut ready = ready(&device, &arena, &link, &EnableOptions::default(), &mut admin);
    let mut pair = pair(&mut ready, &options(1, 8), &mut memory);
    device.on_command(|_, _| None);
    let deadline = Instant::from_micros(50);
    let id = pair.submit(&read(0), None, 41, Some(deadline)).unwrap();
    let other = pair.submit(&read(0), None, 42, None).unwrap();
    pair.ring().unwrap();
    assert_eq!(pair.next_deadline(), Some(deadline));
    assert_eq!(pair.expire(Instant::from_micros(49)), None);
    assert_eq!(pair.expire(deadline), Some((id, &41)));
    assert_eq!(pair.expire(deadline), None);
    assert_eq!((pair.free(), pair.outstanding()), (0, 2), "the slot stays taken");
    device.complete(1, id, StatusCode::ABORT_REQUESTED.status(), 0, 0);
    device.complete(1, other, Status::SUCCESS, 0, 0);
    let done = pair.poll().unwrap().unwrap();
    assert_eq!((done.tag, done.late, done.entry.status()), (41, true, StatusCode::ABORT_REQUESTED.status()));
    assert!(!pair.poll().unwrap().unwrap().late);
    assert_eq!(pair.free(), 2);
}

#[test]
fn hostile_completions_fail_the_controller() {
    let entry = |queue, head, id| {
        CompletionQueueEntry::new(QueueId::new(queue), head, CommandId::new(id), Status::SUCCESS)
    };
    for (name, entry, fault) in [
        ("unknown command", entry(1, 1, 3), Fault::UnknownCommand(CommandId::new(3))),
        ("FFFFh", entry(1, 1, 0xFFFF), Fault::UnknownCommand(CommandId::new(0xFFFF))),
        ("another pair's queue", entry(2, 1, 0), Fault::WrongSubmissionQueue(QueueId::new(2))),
        ("the admin queue", entry(0, 1, 0), Fault::WrongSubmissionQueue(QueueId::ADMIN)),
        ("head past the doorbell", entry(1, 3, 0), Fault::BadSubmissionHead(3)),
        ("head outside", entry(1, 8, 0), Fault::BadSubmissionHead(8)),
    ] {
        let (arena, link) = (TestArena::new(), Link::new());
        let device = Device::new(&arena);
        let (mut admin, mut memory) = (slots(8), io_slots(4));
        let mut ready = ready(&device, &arena, &link, &EnableOptions::default(), &mut admin);
        let mut pair = pair(&mut ready, &options(1, 8), &mut memory);
        device.on_command(|_, _| None);
        let region = arena.allocate(Pool::Data, 4096, 4096, Direction::FromDevice).unwrap();
        let id = pair.submit(&read(0), Some(Buffer::whole(region)), 6, None).unwrap();
        assert_eq!(id.get(), 0);
        pair.submit(&read(0), None, 7, None).unwrap();
        pair.ring().unwrap();
        device.post(1, entry);
        assert_eq!(pair.poll().map(|_| ()), Err(fault), "{name}");
        assert_eq!(ready.health(), Health::Failed(fault), "{name}: for the admin queue too");
        assert_eq!(ready.poll(Instant::ZERO), Err(fault), "{name}");
        device.complete(1, id, Status::SUCCESS, 0, 0);
        assert_eq!(pair.poll().map(|_| ()), Err(fault), "{name}: nothing is believed any more");

        let mut disabling = ready.disable();
        run(&mut Instant::ZERO.clone(), |now| disabling.poll(now)).unwrap();
        let disabled = disabling.finish().unwrap();
        let lost = pair.drain(&disabled.quiesced()).unwrap();
        assert_eq!((lost.id, lost.tag), (id, 6), "{name}");
        crate::dma::give_back(&arena, lost.buffer.unwrap().into_region());
        assert_eq!(pair.drain(&disabled.quiesced()).map(|lost| lost.tag), Some(7), "{name}");
        assert!(pair.drain(&disabled.quiesced()).is_none(), "{name}: each once");
        assert_eq!(pair.retire(&disabled.quiesced()).unwrap().len(), 4);
        disabled.detach();
        assert_eq!(arena.live_total(), 0, "{name}");
    }
}

#[test]
fn a_pair_of_before_a_reset_is_dead() {
    let (arena, link, other_link) = (TestArena::new(), Link::new(), Link::new());
    let (device, other) = (Device::new(&arena), Device::new(&arena));
    let (mut admin, mut other_admin, mut memory) = (slots(8), slots(8), io_slots(4));
    let mut ready = ready(&device, &arena, &link, &EnableOptions::default(), &mut admin);
    let mut pair = pair(&mut ready, &options(1, 8), &mut memory);
    pair.submit(&read(0), None, 6, None).unwrap();
    let mut disabling = ready.disable();
    run(&mut Instant::ZERO.clone(), |now| disabling.poll(now)).unwrap();
    let mut disabled = disabling.finish().unwrap();
    let slots = disabled.retire().unwrap();
    let mut enabling = disabled.enable(&EnableOptions::default(), slots).unwrap();
    run(&mut Instant::ZERO.clone(), |now| enabling.poll(now)).unwrap();
    let ready_again = enabling.finish().unwrap();
    assert_eq!(ready_again.health(), Health::Live);
    assert_eq!(pair.ring(), Err(Fault::Reset), "no doorbell of a queue that is gone");
    assert_eq!(pair.poll().map(|_| ()), Err(Fault::Reset));
    // The proof of another controller does not count.
    let stranger =
        crate::testing::life::ready(&other, &arena, &other_link, &EnableOptions::default(), &mut other_admin);
    let mut disabling = stranger.disable();
    run(&mut Instant::ZERO.clone(), |now| disabling.poll(now)).unwrap();
    let stranger = disabling.finish().unwrap();
    assert!(pair.drain(&stranger.quiesced()).is_none());
    let pair = pair.retire(&stranger.quiesced()).unwrap_err();
    let mut disabling = ready_again.disable();
    run(&mut Instant::ZERO.clone(), |now| disabling.poll(now)).unwrap();
    let disabled = disabling.finish().unwrap();
    assert!(pair.retire(&disabled.quiesced()).is_ok());
    disabled.detach();
    stranger.detach();
    assert_eq!(arena.live_total(), 0);
}

#[test]
fn creation_says_what_it_was_asked_for() {
    let (arena, link) = (TestArena::new(), Link::new());
    let device = Device::new(&arena);
    let (mut admin, mut memory) = (slots(8), io_slots(4));
    let mut ready = ready(&device, &arena, &link, &EnableOptions::default(), &mut admin);
    let options = IoQueueOptions {
        completion_entries: 17,
        interrupt_vector: Some(5),
        priority: QueuePriority::High,
        nvm_set: 9,
        ..options(2, 33)
    };
    let pair = pair(&mut ready, &options, &mut memory);
    let commands = device.take_commands(0);
    assert_eq!(
        CreateIoCompletionQueue::decode(&commands[0]),
        Ok(CreateIoCompletionQueue {
            queue: QueueId::new(2),
            entries: 17,
            contiguous: true,
            interrupts_enabled: true,
            interrupt_vector: 5
        })
    );
    assert_eq!(
        CreateIoSubmissionQueue::decode(&commands[1]),
        Ok(CreateIoSubmissionQueue {
            queue: QueueId::new(2),
            entries: 33,
            contiguous: true,
            priority: QueuePriority::High,
            completion_queue: QueueId::new(2),
            nvm_set: 9
        })
    );
    assert_eq!(device.io_queues(), (1, 1));
    assert_eq!(pair.outstanding(), 0);
}

#[test]
fn options_out_of_range() {
    let (arena, link) = (TestArena::new(), Link::new());
    let device = Device::new(&arena);
    {
        let mut state = device.state.borrow_mut();
        state.capabilities = state.capabilities.with_max_queue_entries(64);
    }
    let (mut admin, mut memory) = (slots(8), io_slots(4));
    let mut ready = ready(&device, &arena, &link, &EnableOptions::default(), &mut admin);
    let before = arena.live_total();
    let mut lent: &mut [IoSlot<u32>] = &mut memory;
    let base = options(1, 8);
    for (name, options, expected) in [
        ("admin queue", options(0, 8), IoQueueError::Id(QueueId::ADMIN)),
        ("one entry", options(1, 1), IoQueueError::Entries { entries: 1, max: 64 }),
        ("too many", options(1, 65), IoQueueError::Entries { entries: 65, max: 64 }),
        (
            "too many completions",
            IoQueueOptions { completion_entries: 65, ..base },
            IoQueueError::Entries { entries: 65, max: 64 },
        ),
        ("no data", IoQueueOptions { max_transfer: 0, ..base }, IoQueueError::MaxTransfer),
    ] {
        let (error, slots) = CreateIoQueuePair::new(ready.admin(), &options, lent).unwrap_err();
        assert_eq!(error, expected, "{name}");
        assert!(!std::format!("{error}").is_empty());
        lent = slots;
    }
    let none = CreateIoQueuePair::<_, _, u32>::new(ready.admin(), &base, &mut []);
    assert_eq!(none.unwrap_err().0, IoQueueError::NoSlots);
    for allowed in 0..3 {
        arena.fail_after(allowed);
        let (error, slots) = CreateIoQueuePair::new(ready.admin(), &base, lent).unwrap_err();
        assert!(matches!(error, IoQueueError::Dma(DmaError::Exhausted { .. })), "{allowed} allocations");
        assert_eq!(arena.live_total(), before, "{allowed} allocations");
        lent = slots;
    }
}

#[test]
fn creation_that_fails_leaves_nothing_or_says_so() {
    let status = CallError::Status(StatusCode::INVALID_QUEUE_SIZE.status());
    let (cq, sq, delete) =
        (CreateIoCompletionQueue::OPCODE, CreateIoSubmissionQueue::OPCODE, DeleteIoCompletionQueue::OPCODE);
    let rows = [
        ("completion queue refused", [cq, cq], false, (0, 0)),
        ("submission queue refused", [sq, sq], false, (0, 0)),
        ("roll-back refused", [sq, delete], true, (0, 1)),
    ];
    for (name, opcodes, kept, left) in rows {
        let (arena, link) = (TestArena::new(), Link::new());
        let device = Device::new(&arena);
        let (mut admin, mut memory) = (slots(8), io_slots(4));
        let mut ready = ready(&device, &arena, &link, &EnableOptions::default(), &mut admin);
        let before = arena.live_total();
        device.on_command(move |_, entry| -> Answer {
            opcodes.contains(&entry.opcode()).then_some((StatusCode::INVALID_QUEUE_SIZE.status(), 0, 0))
        });
        let machine = CreateIoQueuePair::new(ready.admin(), &options(1, 8), &mut memory).unwrap();
        let quarantined = match drive(&mut ready, machine) {
            CreateOutcome::Refused { error, slots } => {
                assert_eq!((error, slots.len(), kept), (status, 4, false), "{name}");
                assert_eq!(arena.live_total(), before, "{name}");
                None
            }
            CreateOutcome::Quarantined { error, pair } => {
                assert_eq!((error, kept), (status, true), "{name}");
                assert_eq!(arena.live_total(), before + 3, "{name}");
                Some(pair)
            }
            CreateOutcome::Created(_) => panic!("{name}"),
        };
        assert_eq!(device.io_queues(), left, "{name}");
        let mut disabling = ready.disable();
        run(&mut Instant::ZERO.clone(), |now| disabling.poll(now)).unwrap();
        let disabled = disabling.finish().unwrap();
        if let Some(mut pair) = quarantined {
            assert!(pair.drain(&disabled.quiesced()).is_none());
            assert_eq!(pair.retire(&disabled.quiesced()).unwrap().len(), 4, "{name}");
        }
        disabled.detach();
        assert_eq!(arena.live_total(), 0, "{name}");
    }
}

#[test]
fn creation_that_never_ends_is_bounded_and_quarantined() {
    let (arena, link) = (TestArena::new(), Link::new());
    let device = Device::new(&arena);
    let (mut admin, mut memory) = (slots(8), io_slots(4));
    let mut ready = ready(&device, &arena, &link, &EnableOptions::default(), &mut admin);
    // Neither answered nor carried out.
    device.state.borrow_mut().silent = true;
    let machine = CreateIoQueuePair::new(ready.admin(), &options(1, 8), &mut memory).unwrap();
    let CreateOutcome::Quarantined { error, .. } = drive(&mut ready, machine) else { panic!("kept") };
    assert_eq!(error, CallError::TimedOut);
}

#[test]
fn deletion_gives_back_every_command_and_all_memory() {
    let (arena, link) = (TestArena::new(), Link::new());
    let device = Device::new(&arena);
    let (mut admin, mut memory) = (slots(8), io_slots(6));
    let mut ready = ready(&device, &arena, &link, &EnableOptions::default(), &mut admin);
    let before = arena.live_total();
    let mut pair = pair(&mut ready, &options(4, 8), &mut memory);
    let buffer =
        || Some(Buffer::whole(arena.allocate(Pool::Data, 4096, 4096, Direction::FromDevice).unwrap()));
    device.on_command(|queue, entry| match (queue.get(), entry.dwords()) {
        // Only some of them come to an end.
        (4, [n, ..]) if n % 2 == 0 => SUCCESS,
        _ => None,
    });
    for n in 0..6 {
        pair.submit(&read(n), buffer(), n, None).unwrap();
    }
    pair.ring().unwrap();
    let mut machine = DeleteIoQueuePair::new(pair, Duration::from_secs(1));
    let (mut completed, mut lost) = (Vec::new(), Vec::new());
    let mut now = Instant::ZERO;
    loop {
        ready.admin().poll(now).unwrap();
        let step = machine.poll(ready.admin(), now);
        while let Some(ended) = machine.take().unwrap() {
            let (list, tag, buffer) = match ended {
                Ended::Completed(done) => (&mut completed, done.tag, done.buffer),
                Ended::Lost(gone) => (&mut lost, gone.tag, gone.buffer),
            };
            list.push(tag);
            crate::dma::give_back(&arena, buffer.unwrap().into_region());
        }
        match step {
            Step::Done => break,
            Step::Wait(until) => now = until,
            Step::Again => {}
        }
    }
    assert_eq!((completed, lost), (std::vec![0, 2, 4], std::vec![1, 3, 5]));
    let Ok(DeleteOutcome::Deleted { slots }) = machine.finish() else { panic!("deleted") };
    assert_eq!(slots.len(), 6);
    assert_eq!((device.io_queues(), arena.live_total()), ((0, 0), before));
    let opcodes: Vec<u8> = device.take_commands(0).iter().map(SubmissionQueueEntry::opcode).collect();
    let delete = [DeleteIoSubmissionQueue::OPCODE, DeleteIoCompletionQueue::OPCODE];
    assert!(opcodes.ends_with(&delete), "submission queue first");
}

#[test]
fn deletion_that_fails_keeps_the_memory() {
    for (name, opcode) in [
        ("submission queue", DeleteIoSubmissionQueue::OPCODE),
        ("completion queue", DeleteIoCompletionQueue::OPCODE),
    ] {
        let (arena, link) = (TestArena::new(), Link::new());
        let device = Device::new(&arena);
        let (mut admin, mut memory) = (slots(8), io_slots(4));
        let mut ready = ready(&device, &arena, &link, &EnableOptions::default(), &mut admin);
        let pair = pair(&mut ready, &options(1, 8), &mut memory);
        let before = arena.live_total();
        device.on_command(move |_, entry| {
            (entry.opcode() == opcode).then_some((StatusCode::INTERNAL_ERROR.status(), 0, 0))
        });
        let mut machine = DeleteIoQueuePair::new(pair, Duration::from_secs(1));
        let mut now = Instant::ZERO;
        loop {
            ready.admin().poll(now).unwrap();
            match machine.poll(ready.admin(), now) {
                Step::Done => break,
                Step::Wait(until) => now = until,
                Step::Again => {}
            }
        }
        let Ok(DeleteOutcome::Quarantined { error, pair }) = machine.finish() else { panic!("{name}") };
        assert_eq!(error, CallError::Status(StatusCode::INTERNAL_ERROR.status()), "{name}");
        assert_eq!(arena.live_total(), before, "{name}: nothing given back without proof");
        let mut disabling = ready.disable();
        run(&mut Instant::ZERO.clone(), |now| disabling.poll(now)).unwrap();
        let disabled = disabling.finish().unwrap();
        assert!(pair.retire(&disabled.quiesced()).is_ok());
        disabled.detach();
        assert_eq!(arena.live_total(), 0, "{name}");
    }
}

#[test]
fn many_pairs_at_once() {
    let (arena, link) = (TestArena::new(), Link::new());
    let device = Device::new(&arena);
    {
        let mut state = device.state.borrow_mut();
        state.capabilities = state.capabilities.with_doorbell_stride_exponent(3);
    }
    let mut admin = slots(8);
    let mut ready = ready(&device, &arena, &link, &EnableOptions::default(), &mut admin);
    let mut memory: Vec<_> = (0..20).map(|_| io_slots(3)).collect();
    let mut pairs: Vec<_> =
        memory.iter_mut().zip(1..).map(|(slots, id)| pair(&mut ready, &options(id, 4), slots)).collect();
    assert_eq!(device.io_queues(), (20, 20));
    for (n, pair) in pairs.iter_mut().enumerate() {
        pair.submit(&read(0), None, n as u32, None).unwrap();
        pair.ring().unwrap();
    }
    for (n, pair) in pairs.iter_mut().enumerate() {
        // The device answers I/O by itself when no handler is set.
        assert_eq!(pair.poll().unwrap().unwrap().tag, n as u32);
        pair.acknowledge().unwrap();
    }
    assert_eq!(ready.admin().page_size(), 4096);
}

// SPDX-License-Identifier: MIT OR Apache-2.0
//! Reading a Controller Data Queue: its ring, its memory, its head, its events.

use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Duration;

use nvme_controller::host::HostMemory;
use nvme_core::admin::{AdminPort, EventFilter};
use nvme_core::cdq::{
    CdqMemory, CdqMemoryError, CdqOptions, HeadPolicy, LogEvent, LogState, MemoryLimits, QueueLayout,
    QueuePoll,
};
use nvme_core::dma::{Direction, DmaArena, DmaError, Pool, give_back};
use nvme_core::io::Buffer;
use nvme_core::prp::{self, ListMemory};
use nvme_core::queue::CompletionRing;
use nvme_core::recovery::Policy;
use nvme_core::register::Offset;
use nvme_core::wire::cdq::{ControllerDataQueueCommand, CreateControllerDataQueue, MAX_ENTRIES};
use nvme_core::wire::lba_migration::{Change, LbaMigrationEntry};
use nvme_core::wire::nvm::Write;
use nvme_core::wire::{
    BusAddr, CdqEvent, Command, CommandId, CompletionQueueEntry, Lba, QueueId, Status, StatusCode,
};
use nvme_host_linux::memory::{AddressSpace, Capacity, PAGE};
use nvme_tests::rig::{BLOCK, GUEST, NAMESPACE, Rig, Shape};
use zerocopy::IntoBytes;

fn options(entries: u32) -> CdqOptions {
    CdqOptions { entries, ..CdqOptions::default() }
}

/// As [`options`], with the head published only when forced or full to half, and no trigger.
fn quiet(entries: u32) -> CdqOptions {
    let head = HeadPolicy { every: 1, wake_after: None, ..HeadPolicy::default() };
    CdqOptions { entries, head, ..CdqOptions::default() }
}

#[test]
fn defect_short_count_when_a_read_wraps() {
    let mut rig = Rig::new(&Shape::default());
    let (mut queue, mut dirty) = rig.logging(&quiet(5));
    assert_eq!(rig.settle(&mut queue, &mut dirty), 1, "the log's first entry");
    for lap in 0..9_u64 {
        for n in 0..3 {
            rig.write(10 * lap + 2 * n, 1, 7);
        }
        // All in one read, wherever in the ring it begins.
        let (drained, _) = rig.poll_queue(&mut queue, &mut dirty);
        assert_eq!((drained.entries, drained.blocks, drained.empty), (3, 3, true), "lap {lap}");
        rig.settle(&mut queue, &mut dirty);
    }
    assert_eq!((dirty.dirty_blocks(), queue.figures().entries), (27, 28));
    rig.delete(queue).expect("deleted");
    rig.finish();
}

#[test]
fn defect_phase_compare_that_works_only_for_mask_one() {
    // A completion's tag is bit 16 of its last dword, below a status whose bits are set here in every lap.
    let mut rig = Rig::new(&Shape { entries: 3, depth: 2, ..Shape::default() });
    let beyond = Write::new(NAMESPACE, Lba::new(1 << 40), 1).encode();
    for command in 0..20 {
        let status = rig.io(&beyond, Direction::ToDevice, &mut [0; BLOCK]);
        assert_eq!(status.code(), StatusCode::LBA_OUT_OF_RANGE, "command {command}");
        assert_ne!(status.bits() & 0x4000, 0, "Do Not Retry is the highest bit of the dword");
    }
    // The tag of a Controller Data Queue is bit 0 of its last byte, below the sequence attribute.
    let (mut queue, mut dirty) = rig.logging(&quiet(3));
    for turn in 0..9 {
        assert_eq!(rig.settle(&mut queue, &mut dirty), 1, "turn {turn}");
        rig.log(queue.id(), turn % 2 == 1).expect("stopped or started");
    }
    rig.settle(&mut queue, &mut dirty);
    assert_eq!((queue.figures().entries, queue.figures().violations), (10, 0));
    rig.delete(queue).expect("deleted");
    rig.finish();
}

/// On machines that keep the order of loads only reads in the wrong order show here; `tests/races` shows the barrier.
#[test]
fn defect_no_read_barrier_between_phase_and_payload() {
    const ENTRIES: u32 = 4;
    const COUNT: u32 = 200_000;
    let pool = 64 << 10;
    let capacity = Capacity { queues: pool, data: pool, controller_data: pool };
    let space = AddressSpace::new("barrier", capacity).expect("memory");
    let region = space.allocate(Pool::Queues, PAGE, PAGE, Direction::FromDevice).expect("memory");
    let base = region.bus();
    let mut ring = CompletionRing::new(region, ENTRIES, Offset::new(0x1004), &space).expect("a ring");
    let (taken, wrong) = (AtomicU32::new(0), AtomicBool::new(false));
    std::thread::scope(|scope| {
        let (space, taken, wrong) = (&space, &taken, &wrong);
        scope.spawn(move || {
            for n in 0..COUNT {
                while n - taken.load(Ordering::Acquire) >= ENTRIES - 1 {
                    if wrong.load(Ordering::Relaxed) {
                        return;
                    }
                    std::thread::yield_now();
                }
                let id = CommandId::new(n as u16);
                let entry = CompletionQueueEntry::new(QueueId::new(1), 0, id, Status::SUCCESS)
                    .with_result(n, !n)
                    .with_phase((n / ENTRIES).is_multiple_of(2));
                let slot = base.plus(u64::from(n % ENTRIES) * 16);
                space.write_entry(slot, entry.as_bytes()).expect("the ring");
            }
        });
        let mut n = 0;
        while n < COUNT && !wrong.load(Ordering::Relaxed) {
            let Some(entry) = ring.pop(space) else {
                std::thread::yield_now();
                continue;
            };
            // The other thread ends before this one fails.
            wrong.store((entry.dw0(), entry.dw1()) != (n, !n), Ordering::Relaxed);
            n += 1;
            taken.store(n, Ordering::Release);
        }
    });
    assert!(!wrong.into_inner(), "a new tag over an old entry");
    give_back(&space, ring.into_memory());
}

#[test]
fn defect_unswapped_fields() {
    // Numbers whose bytes differ, as the controller wrote them: little-endian on every machine.
    let mut rig = Rig::new(&Shape { blocks: 1 << 18, ..Shape::default() });
    let (mut queue, mut dirty) = rig.logging(&quiet(64));
    rig.settle(&mut queue, &mut dirty);
    rig.write(0x3_0201, 0x23, 1);
    let entry = LbaMigrationEntry::ordinary(Change::Range {
        namespace: NAMESPACE,
        start: Lba::new(0x0807_0605_0403_0201),
        blocks: 0x2423_2221,
        deallocated: false,
    });
    let bytes = entry.build().expect("an entry").to_bytes();
    assert_eq!(
        bytes[4..16],
        [0x20, 0x22, 0x23, 0x24, 1, 2, 3, 4, 5, 6, 7, 8][..],
        "length zero-based, then start"
    );
    assert_eq!(LbaMigrationEntry::parse_bytes(&bytes).expect("an entry").change, entry.change);
    let event = queue.next_event(rig.manager.supervisor.admin().expect("in use"), 8);
    let changed = LogEvent::Changed {
        namespace: NAMESPACE,
        start: Lba::new(0x3_0201),
        blocks: 0x23,
        deallocated: false,
    };
    assert_eq!(event, Some(changed));
    let command = Write::new(NAMESPACE, Lba::new(0x0807_0605_0403_0201), 0x0a09).encode();
    let command = command.with_command_id(CommandId::new(0xBBAA));
    assert_eq!(command.as_bytes()[2..8], [0xAA, 0xBB, 1, 0, 0, 0]);
    assert_eq!(command.as_bytes()[40..50], [1, 2, 3, 4, 5, 6, 7, 8, 8, 0x0a]);
    rig.delete(queue).expect("deleted");
    rig.finish();
}

#[test]
fn defect_size_overflow_of_32_bits() {
    // So many entries that 32 bits leave 64 bytes of their size.
    let entries = (1 << 27) + 2;
    assert!(entries <= MAX_ENTRIES);
    let bytes = usize::try_from(u64::from(entries) * 32).expect("a 64-bit machine");
    let mut rig = Rig::new(&Shape::default());
    // The reader's side asks for all of it.
    let arena = rig.manager.arena;
    let made = CdqMemory::allocate(arena, entries, QueueLayout::Contiguous, PAGE, MemoryLimits::default());
    let refused = DmaError::Exhausted { pool: Pool::ControllerData, bytes };
    assert_eq!(made.expect_err("no such memory"), CdqMemoryError::Arena(refused));
    // The controller's side does not take a page for it.
    let create = CreateControllerDataQueue::user_data_migration(GUEST, entries, true).expect("possible");
    let page = arena.allocate(Pool::ControllerData, PAGE, PAGE, Direction::FromDevice).expect("a page");
    let entry = ControllerDataQueueCommand::Create(create).encode().with_prps(page.bus(), BusAddr::new(0));
    let refused = rig.raw_admin(entry).expect_err("refused");
    assert!(refused.is_status(StatusCode::INVALID_FIELD), "{refused}");
    give_back(arena, page);
    rig.finish();
}

#[test]
fn defect_unknown_queue_in_an_event_dereferenced() {
    let mut rig = Rig::new(&Shape::default());
    let (mut queue, mut dirty) = rig.logging(&options(16));
    rig.settle(&mut queue, &mut dirty);
    let rules = rig.faults(&["cdq-event-unknown"]);
    for n in 0..40 {
        rig.write(n, 1, 1);
        rig.settle(&mut queue, &mut dirty);
    }
    assert!(rules[0].fired() > 20, "every event names another queue");
    let admin = rig.manager.supervisor.admin().expect("in use");
    let event = admin.take_event(EventFilter::Other);
    assert_eq!(event, None, "it is about a queue, if an unknown one");
    let event = admin.take_event(EventFilter::Any).expect("kept for its reader, within bounds");
    assert!(matches!(event.controller_data_queue(), Some(CdqEvent::TailPointer(id)) if id != queue.id()));
    assert!(admin.dropped_events() > 0);
    assert_eq!((dirty.dirty_blocks(), queue.figures().tail_events), (40, 0), "nothing missed without events");
    // Nor do they keep the events of the queue itself back.
    rig.side.borrow_mut().clear_faults();
    for n in 0..4 {
        rig.write(50 + n, 1, 1);
        rig.settle(&mut queue, &mut dirty);
    }
    assert!(queue.figures().tail_events > 0);
    rig.delete(queue).expect("deleted");
    rig.finish();
}

#[test]
fn defect_event_against_delete_race() {
    let mut rig = Rig::new(&Shape::default());
    let (mut queue, mut dirty) = rig.logging(&options(16));
    rig.settle(&mut queue, &mut dirty);
    let id = queue.id();
    // The event is posted, nobody has taken it, and the queue is deleted.
    rig.write(3, 1, 1);
    rig.turn();
    let old = rig.delete(queue).expect("deleted");
    assert_eq!(old.tail_events, 1, "it went with its queue");
    let (mut queue, mut dirty) = rig.logging(&options(16));
    assert_eq!(queue.id(), id, "the identifier is used again");
    for _ in 0..20 {
        rig.turn();
        let _ = rig.poll_queue(&mut queue, &mut dirty);
    }
    assert_eq!(queue.figures().tail_events, 0, "an event of the queue before");
    rig.write(4, 1, 1);
    rig.settle(&mut queue, &mut dirty);
    assert_eq!((queue.figures().tail_events, dirty.dirty_blocks()), (1, 1));
    rig.delete(queue).expect("deleted");
    rig.finish();
}

#[test]
fn defect_prp_list_pages_not_chained() {
    // Walked as the specification says, for lists of one page and of several.
    let pool = 16 << 20;
    let capacity = Capacity { queues: pool, data: pool, controller_data: pool };
    let space = AddressSpace::new("chain", capacity).expect("memory");
    for pages in [2_usize, 511, 512, 513, 1023, 1024, 1025, 1535] {
        let data =
            space.allocate_scattered(Pool::Data, pages * PAGE, Direction::Bidirectional).expect("memory");
        let bytes = prp::list_bytes(pages, PAGE).next_multiple_of(PAGE);
        let list = space.allocate_scattered(Pool::Queues, bytes, Direction::ToDevice).expect("memory");
        let memory = ListMemory { region: &list, range: 0..bytes };
        let mut at = prp::build_queue_list(&space, &data, 0..pages * PAGE, PAGE, memory).expect("a list");
        for page in 0..pages {
            let mut entry = [0; 8];
            HostMemory::read(&space, at, &mut entry).expect("the list");
            if at.page_offset(PAGE as u64) == PAGE as u64 - 8 && page + 1 < pages {
                at = BusAddr::new(u64::from_le_bytes(entry));
                HostMemory::read(&space, at, &mut entry).expect("the next page of the list");
            }
            let expected = space.bus_address(&data, page * PAGE).expect("inside");
            assert_eq!(u64::from_le_bytes(entry), expected.get(), "page {page} of {pages}");
            at = at.plus(8);
        }
        for region in [data, list] {
            give_back(&space, region);
        }
    }
    // And by the controller: a command of 1,030 pages, there and back.
    let bytes = 1030 * PAGE;
    let shape = Shape { blocks: 16 << 10, max_transfer: bytes, pool: 24 << 20, ..Shape::default() };
    let mut rig = Rig::new(&shape);
    let mut data: Vec<u8> = (0..bytes).map(|n| (n / PAGE * 7 + n / 512 + n) as u8).collect();
    let blocks = (bytes / BLOCK) as u32;
    let status = rig.io(&Write::new(NAMESPACE, Lba::new(8), blocks).encode(), Direction::ToDevice, &mut data);
    assert_eq!(status, Status::SUCCESS);
    assert_eq!(rig.read(8, blocks), data);
    rig.finish();
}

#[test]
fn defect_chunk_table_indexed_wrongly_when_contiguous() {
    for layout in [QueueLayout::Contiguous, QueueLayout::PrpList] {
        let mut rig = Rig::new(&Shape::default());
        // Three pages and a half of entries.
        let (mut queue, mut dirty) = rig.logging(&CdqOptions { layout, ..quiet(450) });
        rig.settle(&mut queue, &mut dirty);
        for lap in 0..3 {
            for n in 0..400 {
                rig.write(2 * n, 1, lap);
            }
            for n in 0..400 {
                let event = queue.next_event(rig.manager.supervisor.admin().expect("in use"), 1);
                let changed = LogEvent::Changed {
                    namespace: NAMESPACE,
                    start: Lba::new(2 * n),
                    blocks: 1,
                    deallocated: false,
                };
                assert_eq!(event, Some(changed), "{layout:?}, lap {lap}, entry {n}");
            }
            rig.settle(&mut queue, &mut dirty);
        }
        assert_eq!((queue.figures().violations, queue.figures().overflows), (0, 0));
        rig.delete(queue).expect("deleted");
        rig.finish();
    }
}

#[test]
fn defect_acknowledged_head_advances_on_failure() {
    // Commands without an answer are left to their owners.
    let policy = Policy { reset_on_admin_timeout: false, ..Policy::default() };
    let mut rig = Rig::new(&Shape { policy, ..Shape::default() });
    let (mut queue, mut dirty) = rig.logging(&quiet(16));
    rig.settle(&mut queue, &mut dirty);
    let before = queue.acknowledged_head();
    let rules = rig.faults(&["status=0/06,queue=admin,opcode=09,nth=1", "drop,queue=admin,opcode=09,nth=2"]);
    rig.write(5, 1, 1);
    let mut failures = 0;
    while failures < 2 {
        let (_, poll) = rig.poll_queue(&mut queue, &mut dirty);
        if let Err(failed) = poll {
            failures += 1;
            assert_ne!(failed.head, before);
            assert_eq!(queue.acknowledged_head(), before, "the controller did not take it");
        }
        rig.turn();
    }
    assert_eq!((rules[0].fired(), rules[1].fired(), queue.figures().head_failures), (1, 1, 2));
    rig.settle(&mut queue, &mut dirty);
    assert_eq!((queue.acknowledged_head(), queue.figures().head_failures), (before + 1, 2), "sent again");
    rig.delete(queue).expect("deleted");
    rig.finish();
}

#[test]
fn defect_trigger_requested_while_an_update_is_in_flight_never_sent() {
    let mut rig = Rig::new(&Shape::default());
    let head = HeadPolicy { every: 1, wake_after: Some(0), ..HeadPolicy::default() };
    let (mut queue, mut dirty) = rig.logging(&CdqOptions { head, ..options(16) });
    rig.settle(&mut queue, &mut dirty);
    let armed = queue.figures().head_updates;
    // An update of a reader that has read as much as it may, and does not know that this was all, carries no trigger. It
    // takes long, and the trigger is wanted meanwhile.
    rig.faults(&["delay=2ms,queue=admin,opcode=09,nth=1"]);
    rig.write(1, 1, 1);
    rig.write(2, 1, 1);
    let admin = rig.manager.supervisor.admin().expect("in use");
    let (drained, _) = queue.poll(admin, &mut dirty, rig.now, 2, true);
    assert!(drained.entries == 2 && !drained.empty && queue.is_publishing());
    let mut slept_early = false;
    let mut rounds = 0;
    loop {
        let (drained, poll) = rig.poll_queue(&mut queue, &mut dirty);
        rounds += 1;
        slept_early |= poll == Ok(QueuePoll::MaySleep) && queue.is_publishing();
        if poll == Ok(QueuePoll::MaySleep) {
            break;
        }
        let _ = drained;
        rig.turn();
        assert!(rounds < 1000, "it comes to rest");
    }
    assert!(!slept_early && queue.figures().head_updates > armed);
    let events = queue.figures().tail_events;
    rig.write(3, 1, 1);
    for _ in 0..5 {
        rig.turn();
    }
    let _ = rig.poll_queue(&mut queue, &mut dirty);
    assert_eq!(queue.figures().tail_events, events + 1, "the trigger was armed before it slept");
    rig.settle(&mut queue, &mut dirty);
    rig.delete(queue).expect("deleted");
    rig.finish();
}

#[test]
fn defect_trigger_already_behind_the_tail_never_fires() {
    // Whichever of both controllers has its turn first.
    for turn in 0..2 {
        let mut rig = Rig::new(&Shape::default());
        // Nothing but the wish for a trigger makes this policy send an update.
        let head = HeadPolicy { every: 0, occupancy_percent: 0, when_idle: false, ..HeadPolicy::default() };
        let (mut queue, mut dirty) = rig.logging(&CdqOptions { head, ..options(16) });
        rig.settle(&mut queue, &mut dirty);
        // The update that arms the trigger is on its way, and entries pass the slot before the controller takes it.
        rig.write(1, 1, 1);
        for _ in 0..100 {
            let _ = rig.poll_queue(&mut queue, &mut dirty);
            if queue.is_publishing() {
                break;
            }
            rig.turn();
        }
        assert!(queue.is_publishing());
        for n in 2..6 {
            let region = rig.guest.arena.allocate(Pool::Data, BLOCK, BLOCK, Direction::ToDevice);
            let buffer = Buffer::whole(region.expect("memory"));
            rig.guest.submit(&Write::new(NAMESPACE, Lba::new(n), 1).encode(), Some(buffer), rig.now);
        }
        if turn == 1 {
            // The turn to begin changes with every poll of the subsystem that has work.
            let _ = rig.side.borrow_mut().execute(0);
        }
        rig.device();
        rig.settle(&mut queue, &mut dirty);
        assert_eq!(dirty.dirty_blocks(), 5, "it did not sleep over entries it had not read");
        let events = queue.figures().tail_events;
        rig.write(9, 1, 1);
        for _ in 0..5 {
            rig.turn();
        }
        let _ = rig.poll_queue(&mut queue, &mut dirty);
        assert_eq!(queue.figures().tail_events, events + 1, "armed ahead of the tail, it fires");
        rig.settle(&mut queue, &mut dirty);
        rig.delete(queue).expect("deleted");
        rig.finish();
    }
}

#[test]
fn defect_memory_freed_although_delete_failed() {
    // A Controller Data Queue.
    let mut rig = Rig::new(&Shape::default());
    let (queue, _) = rig.logging(&CdqOptions { layout: QueueLayout::PrpList, ..options(300) });
    let regions = rig.manager.arena.usage(Pool::ControllerData).regions;
    rig.faults(&["status=0/06,queue=admin,opcode=45,nth=1"]);
    let failed = rig.delete(queue).expect_err("refused");
    assert_eq!(
        rig.manager.arena.usage(Pool::ControllerData).regions,
        regions,
        "the controller still writes it"
    );
    let kept = failed.quarantined.expect("the memory");
    rig.manager.supervisor.reset();
    rig.until(|rig| rig.manager.supervisor.quiesced().is_some() || rig.manager.resets > 0);
    rig.until(|rig| rig.manager.supervisor.is_ready());
    assert_eq!(
        rig.manager.arena.usage(Pool::ControllerData).regions,
        regions,
        "nobody gives it back but its owner"
    );
    rig.side.borrow_mut().clear_faults();
    // An I/O queue pair: its memory stays until the controller is disabled.
    let queues = rig.guest.arena.usage(Pool::Queues).regions;
    rig.faults(&["status=0/06,queue=admin,controller=2,opcode=00,nth=1"]);
    rig.guest.supervisor.shutdown(nvme_core::controller::Shutdown::Normal, Duration::from_secs(1));
    rig.until(|rig| {
        let held = rig.guest.arena.usage(Pool::Queues).regions;
        assert!(held == queues || rig.guest.supervisor.quiesced().is_some(), "{held} of {queues} regions");
        rig.guest.poll(rig.now).is_some()
    });
    rig.manager.supervisor.shutdown(nvme_core::controller::Shutdown::Normal, Duration::from_secs(1));
    rig.until(|rig| rig.manager.poll(rig.now).is_some());
    kept.release(rig.manager.arena, &rig.manager.supervisor.quiesced().expect("disabled"));
    rig.finish();
}

#[test]
fn defect_dead_ring_left_after_a_controller_reset() {
    let mut rig = Rig::new(&Shape::default());
    let (mut queue, mut dirty) = rig.logging(&options(16));
    rig.write(1, 1, 1);
    rig.settle(&mut queue, &mut dirty);
    rig.manager.supervisor.reset();
    rig.until(|rig| rig.manager.resets == 1 && rig.manager.supervisor.is_ready());
    rig.write(2, 1, 1);
    let (drained, poll) = rig.poll_queue(&mut queue, &mut dirty);
    assert_eq!((poll, drained.overflowed), (Ok(QueuePoll::Gone), true), "not one that is merely idle");
    assert_eq!(dirty.dirty_blocks(), rig.media_blocks(), "what it missed counts");
    assert!(rig.manager.arena.usage(Pool::ControllerData).regions > 0);
    queue.release(rig.manager.supervisor.admin().expect("in use")).expect("gone");
    assert_eq!(rig.manager.arena.usage(Pool::ControllerData).regions, 0);
    let (mut queue, mut dirty) = rig.logging(&options(16));
    rig.write(3, 1, 1);
    rig.settle(&mut queue, &mut dirty);
    assert_eq!(dirty.dirty_blocks(), 1);
    rig.delete(queue).expect("deleted");
    rig.finish();
}

#[test]
fn defect_entries_hidden_after_full() {
    let mut rig = Rig::new(&Shape::default());
    let (mut queue, _) = rig.logging(&quiet(8));
    for n in 0..20 {
        rig.write(n, 1, 1);
    }
    let mut seen = Vec::new();
    while let Some(event) = queue.next_event(rig.manager.supervisor.admin().expect("in use"), 64) {
        seen.push(event);
    }
    // Of eight slots seven hold entries: the first one, five changes, and in the last
    // place the marker with a change of its own.
    assert_eq!(seen.first(), Some(&LogEvent::LogStarted));
    assert_eq!(seen.last(), Some(&LogEvent::Overflowed), "the marker is read, too");
    let changes = seen.iter().filter(|event| matches!(event, LogEvent::Changed { .. })).count();
    assert_eq!((changes, queue.figures().entries), (6, 7), "{seen:?}");
    assert_eq!(queue.log_state(), LogState::Overflowed);
    rig.delete(queue).expect("deleted");
    rig.finish();
}

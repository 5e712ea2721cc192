// SPDX-License-Identifier: MIT OR Apache-2.0
//! Queues against a controller in miniature.

use core::time::Duration;
use std::vec::Vec;

use super::*;
use crate::admin::CallError;
use crate::dirty::{DirtyMap, DirtySet, Granularity};
use crate::dma::Pool;
use crate::fake::{Device, FakePort, Fault, Rule};
use crate::testing::{TestArena, TestProof};
use crate::time::Instant;
use crate::wire::lba_migration::{Change, EntrySequence, LbaMigrationEntry, LbaMigrationQueueEntry};
use crate::wire::{
    AsynchronousEvent, CdqEvent, CdqId, ControllerId, Lba, ManagerId, NamespaceId, Status, StatusCode,
    TargetIsManager, TrackedId,
};

mod ends;
mod head;

const MANAGER: ControllerId = ControllerId::new(4);
const NS: NamespaceId = NamespaceId::new(1);
const NOW: Instant = Instant::ZERO;

fn tracked() -> TrackedId {
    TrackedId::new(ControllerId::new(1), ManagerId::new(MANAGER)).unwrap()
}

fn port(arena: &TestArena) -> FakePort<'_> {
    FakePort::new(arena, Device::new(MANAGER.get()))
}

fn options(entries: u32, layout: QueueLayout) -> CdqOptions {
    CdqOptions { entries, layout, ..CdqOptions::default() }
}

fn create(port: &mut FakePort<'_>, options: &CdqOptions) -> ControllerDataQueue {
    let mut creation = CdqCreation::new(port, tracked(), options).unwrap();
    let mut queue = None;
    for _ in 0..4 {
        queue = queue.or_else(|| creation.poll(port, NOW));
    }
    queue.unwrap().unwrap()
}

fn delete(port: &mut FakePort<'_>, queue: ControllerDataQueue) -> Result<CdqFigures, CdqFailure> {
    let mut deletion = CdqDeletion::new(queue, Duration::from_secs(1));
    (0..8).find_map(|_| deletion.poll(port, NOW)).unwrap()
}

fn range(start: u64, blocks: u64) -> Change {
    Change::Range { namespace: NS, start: Lba::new(start), blocks, deallocated: false }
}

fn set() -> DirtySet<'static, 'static> {
    let words: &'static mut [u64] = std::boxed::Box::leak(std::vec![0; 64].into_boxed_slice());
    let maps = std::vec![DirtyMap::new(NS, 4096, Granularity::BLOCK, words).unwrap()];
    DirtySet::new(std::boxed::Box::leak(maps.into_boxed_slice())).unwrap()
}

fn events(port: &FakePort<'_>, queue: &mut ControllerDataQueue) -> Vec<LogEvent> {
    core::iter::from_fn(|| queue.next_event(port, 16)).collect()
}

const fn changed(start: u64, blocks: u64) -> LogEvent {
    LogEvent::Changed { namespace: NS, start: Lba::new(start), blocks, deallocated: false }
}

/// Polls until the queue may sleep; returns how many entries were read.
fn settle(port: &mut FakePort<'_>, queue: &mut ControllerDataQueue, dirty: &mut DirtySet<'_, '_>) -> u32 {
    let mut entries = 0;
    for _ in 0..20 {
        let (drained, poll) = queue.poll(port, dirty, NOW, 64, false);
        entries += drained.entries;
        if poll == Ok(QueuePoll::MaySleep) {
            return entries;
        }
    }
    panic!("the queue never comes to rest");
}

#[test]
fn r1_r3_the_tracked_controller_is_named_and_never_the_manager() {
    assert_eq!(TrackedId::new(MANAGER, ManagerId::new(MANAGER)), Err(TargetIsManager(MANAGER)));
    let arena = TestArena::new();
    let mut port = port(&arena);
    let queue = create(&mut port, &options(8, QueueLayout::Contiguous));
    assert_eq!(port.sent[0].dwords(), [0, 0x0001_0001, 64, 0, 0, 0], "CDW11 names the tracked controller");
    delete(&mut port, queue).unwrap();
    assert_eq!(arena.live_total(), 0);
}

#[test]
fn geometry_every_size_and_layout_wraps_twice() {
    for entries in [2, 3, 4, 5, 8, 63, 64, 65, 4096, 128 * 513, 128 * 1025] {
        for layout in [QueueLayout::Contiguous, QueueLayout::PrpList] {
            let arena = TestArena::new();
            let mut port = port(&arena);
            let mut queue = create(&mut port, &options(entries, layout));
            let id = queue.id();
            assert!(port.post(id, EntrySequence::First, Change::None) || entries == 2);
            let mut dirty = set();
            let mut posted = 1_u64;
            let mut read = 0_u64;
            while posted < 2 * u64::from(entries) + 3 {
                // Leave one slot free, so that the queue never becomes full.
                let mut batch = 0;
                while port.device.queues[&id.get()].producer.free() > 1 && batch < entries / 2 + 1 {
                    assert!(port.post(id, EntrySequence::Ordinary, range(posted % 4000, 1)));
                    posted += 1;
                    batch += 1;
                }
                if batch == 0 && entries == 2 {
                    posted += 1;
                    let _ = port.post(id, EntrySequence::Ordinary, range(0, 1));
                }
                for _ in 0..entries / 32 + 8 {
                    let (drained, poll) = queue.poll(&mut port, &mut dirty, NOW, 64, true);
                    assert!(poll.is_ok());
                    read += u64::from(drained.entries);
                }
            }
            assert_eq!(read, queue.figures().entries);
            assert!(entries == 2 || read == posted, "{entries} {layout:?}: {read} of {posted}");
            assert_eq!(queue.figures().violations, 0, "{entries} {layout:?}");
            delete(&mut port, queue).unwrap();
            assert_eq!(arena.live_total(), 0);
        }
    }
}

#[test]
fn events_of_every_kind_of_entry() {
    let all = Change::AllOfNamespace { namespace: NS };
    let every = LogEvent::AllChanged { namespace: NS };
    let rows: [(&str, EntrySequence, Change, &[LogEvent]); 9] = [
        ("start", EntrySequence::First, Change::None, &[LogEvent::LogStarted]),
        ("change", EntrySequence::Ordinary, range(3, 2), &[changed(3, 2)]),
        (
            "stop with a range",
            EntrySequence::LastStopped,
            range(5, 1),
            &[changed(5, 1), LogEvent::LogStopped],
        ),
        ("start with a range", EntrySequence::First, range(7, 1), &[LogEvent::LogStarted, changed(7, 1)]),
        ("suspend with everything", EntrySequence::LastSuspended, all, &[every, LogEvent::Suspended]),
        ("resume", EntrySequence::First, Change::None, &[LogEvent::LogStarted]),
        (
            "overflow with a range",
            EntrySequence::LastFull,
            range(9, 4),
            &[changed(9, 4), LogEvent::Overflowed],
        ),
        ("suspend after overflow", EntrySequence::LastSuspended, Change::None, &[LogEvent::Suspended]),
        ("start after it", EntrySequence::First, all, &[LogEvent::LogStarted, every]),
    ];
    let arena = TestArena::new();
    let mut port = port(&arena);
    let mut queue = create(&mut port, &options(32, QueueLayout::Contiguous));
    for (name, sequence, change, expected) in rows {
        assert!(port.post(queue.id(), sequence, change));
        assert_eq!(events(&port, &mut queue), expected, "{name}");
        assert_eq!(queue.take_violation(), None, "{name}");
    }
    delete(&mut port, queue).unwrap();
}

#[test]
fn r13_a_suspension_does_not_make_up_for_what_was_lost_before() {
    use EntrySequence::{First, LastFull, LastStopped, LastSuspended};
    let rows: [(&str, &[EntrySequence], LogState, bool); 5] = [
        ("complete", &[First, LastSuspended], LogState::Suspended, false),
        ("without a start", &[LastSuspended], LogState::Suspended, false),
        ("suspended twice", &[First, LastSuspended, LastSuspended], LogState::Suspended, false),
        ("after an overflow", &[First, LastFull, LastSuspended], LogState::Overflowed, true),
        ("after a stop", &[First, LastStopped, LastSuspended], LogState::Stopped, true),
    ];
    for (name, sequences, state, everything) in rows {
        let arena = TestArena::new();
        let mut port = port(&arena);
        let mut queue = create(&mut port, &options(32, QueueLayout::Contiguous));
        let mut dirty = set();
        for sequence in sequences {
            assert!(port.post(queue.id(), *sequence, Change::None));
        }
        let drained = queue.drain(&port, &mut dirty, 64);
        assert!(drained.suspended && drained.violation.is_none(), "{name}");
        assert_eq!(queue.log_state(), state, "{name}");
        // The next log starts after everything has been copied once.
        dirty.clear();
        assert!(port.post(queue.id(), First, Change::None));
        assert!(queue.drain(&port, &mut dirty, 64).started, "{name}");
        assert_eq!(dirty.maps()[0].is_everything(), everything, "{name}");
        delete(&mut port, queue).unwrap();
    }
}

#[test]
fn a_log_that_breaks_its_rules_needs_a_full_copy() {
    let raw = |attributes: u8| {
        let mut bytes = LbaMigrationEntry::ordinary(range(1, 1)).build().unwrap().to_bytes();
        bytes[31] = attributes;
        bytes
    };
    let first = LbaMigrationEntry::marker(EntrySequence::First).build().unwrap().to_bytes();
    let suspended = LbaMigrationEntry::marker(EntrySequence::LastSuspended).build().unwrap().to_bytes();
    let rows: [(&str, &[[u8; 32]]); 6] = [
        ("change before the log started", &[raw(0)]),
        ("start inside the log", &[first, first]),
        ("change after the suspension", &[first, suspended, raw(0)]),
        ("reserved sequence attribute", &[first, raw(4 << 1)]),
        ("reserved change information", &[first, raw(3 << 6)]),
        ("namespace zero", &[first, LbaMigrationQueueEntry::default().to_bytes()]),
    ];
    for (name, entries) in rows {
        let arena = TestArena::new();
        let mut port = port(&arena);
        let mut queue = create(&mut port, &options(32, QueueLayout::Contiguous));
        let mut dirty = set();
        for entry in entries {
            assert!(port.post_raw(queue.id(), *entry));
        }
        let drained = queue.drain(&port, &mut dirty, 64);
        assert!(drained.violation.is_some() && dirty.maps()[0].is_everything(), "{name}");
        assert_eq!(drained.entries as usize, entries.len(), "{name}: reading goes on");
        assert_eq!(queue.take_violation(), drained.violation, "{name}");
        delete(&mut port, queue).unwrap();
    }
}

#[test]
fn r13_after_overflow_the_rest_is_read_and_everything_is_dirty() {
    let arena = TestArena::new();
    let mut port = port(&arena);
    let mut queue = create(&mut port, &options(5, QueueLayout::PrpList));
    let mut dirty = set();
    assert!(port.post(queue.id(), EntrySequence::First, Change::None));
    for block in 0..3 {
        assert!(port.post(queue.id(), EntrySequence::Ordinary, range(block, 1)));
    }
    assert!(!port.post(queue.id(), EntrySequence::Ordinary, range(9, 1)), "lost");
    let (drained, poll) = queue.poll(&mut port, &mut dirty, NOW, 64, false);
    assert!(poll.is_ok());
    assert_eq!((drained.entries, drained.overflowed, drained.blocks), (4, true, 3));
    assert!(dirty.maps()[0].is_everything());
    assert_eq!(queue.log_state(), LogState::Overflowed);
    let figures = queue.figures();
    assert_eq!((figures.overflows, figures.full_events, figures.highest_fill), (1, 1, 4));
    // Blocks copied before the log starts again do not count: what changed meanwhile is unknown.
    while dirty.take(u64::MAX).is_some() {}
    settle(&mut port, &mut queue, &mut dirty);
    assert!(port.post(queue.id(), EntrySequence::First, Change::None));
    let drained = queue.drain(&port, &mut dirty, 64);
    assert!(drained.started && dirty.maps()[0].is_everything());
    delete(&mut port, queue).unwrap();
}

#[test]
fn r4_head_updates_one_at_a_time_and_only_success_counts() {
    let arena = TestArena::new();
    let mut port = port(&arena);
    let head = HeadPolicy { every: 1, wake_after: None, ..HeadPolicy::default() };
    let mut queue = create(&mut port, &CdqOptions { head, ..options(16, QueueLayout::Contiguous) });
    let mut dirty = set();
    assert!(port.post(queue.id(), EntrySequence::First, Change::None));
    port.rules.push(Rule::new(0x09, 0x21, Fault::Late(9)));
    for _ in 0..3 {
        let _ = queue.poll(&mut port, &mut dirty, NOW, 64, false);
        assert!(port.post(queue.id(), EntrySequence::Ordinary, range(1, 1)));
        assert!(port.in_flight() <= 1);
        assert_eq!(queue.acknowledged_head(), 0, "not before it has completed");
    }
    settle(&mut port, &mut queue, &mut dirty);
    assert_eq!(queue.acknowledged_head(), 4);

    for (name, fault, error) in [
        (
            "refused",
            Fault::Status(StatusCode::INTERNAL_ERROR),
            CallError::Status(StatusCode::INTERNAL_ERROR.status()),
        ),
        ("timed out", Fault::TimesOut, CallError::TimedOut),
    ] {
        let before = queue.acknowledged_head();
        port.rules.push(Rule::new(0x09, 0x21, fault));
        assert!(port.post(queue.id(), EntrySequence::Ordinary, range(2, 1)));
        let failed = (0..4).find_map(|_| queue.poll(&mut port, &mut dirty, NOW, 64, false).1.err());
        assert_eq!(failed, Some(HeadUpdateFailed { head: before + 1, error }), "{name}");
        assert_eq!(queue.acknowledged_head(), before, "{name}: the head stays");
        settle(&mut port, &mut queue, &mut dirty);
        assert_eq!(queue.acknowledged_head(), before + 1, "{name}: tried again");
    }
    assert_eq!(queue.figures().head_failures, 2);
    // A busy admin queue only delays the update.
    port.rules.push(Rule::new(0x09, 0x21, Fault::Busy(3)));
    assert!(port.post(queue.id(), EntrySequence::Ordinary, range(2, 1)));
    settle(&mut port, &mut queue, &mut dirty);
    assert_eq!(queue.acknowledged_head(), 7);
    delete(&mut port, queue).unwrap();
}

#[test]
fn policies_decide_when_the_head_is_published() {
    let quiet = HeadPolicy {
        every: 0,
        occupancy_percent: 0,
        when_idle: false,
        wake_after: None,
        ..HeadPolicy::default()
    };
    let rows: [(&str, HeadPolicy, u32, &[u32]); 5] = [
        ("never", quiet, 7, &[]),
        ("every three", HeadPolicy { every: 3, ..quiet }, 7, &[3, 6]),
        ("every so many, held to half", HeadPolicy { every: 1000, ..quiet }, 9, &[8]),
        ("at half", HeadPolicy { occupancy_percent: 50, ..quiet }, 9, &[9]),
        ("when idle", HeadPolicy { when_idle: true, ..quiet }, 3, &[1, 2, 3]),
    ];
    for (name, head, entries, heads) in rows {
        let arena = TestArena::new();
        let mut port = port(&arena);
        let mut queue = create(&mut port, &CdqOptions { head, ..options(18, QueueLayout::Contiguous) });
        let mut dirty = set();
        assert!(port.post(queue.id(), EntrySequence::First, Change::None));
        for entry in 1..=entries {
            settle(&mut port, &mut queue, &mut dirty);
            assert!(entry == entries || port.post(queue.id(), EntrySequence::Ordinary, range(1, 1)));
        }
        assert_eq!(port.device.heads, heads, "{name}");
        delete(&mut port, queue).unwrap();
    }
}

#[test]
fn the_trigger_is_armed_before_sleep_and_no_wake_up_is_lost() {
    let arena = TestArena::new();
    let mut port = port(&arena);
    let mut queue = create(&mut port, &options(8, QueueLayout::Contiguous));
    let mut dirty = set();
    settle(&mut port, &mut queue, &mut dirty);
    assert_eq!(port.sent.last().unwrap().dwords()[1] >> 31, 1, "armed although the head did not move");
    // Whenever the reader may sleep, the next entry raises an event.
    assert!(port.post(queue.id(), EntrySequence::First, Change::None));
    for entry in 0..40_u64 {
        assert_eq!(port.events.len(), 1, "entry {entry} wakes");
        settle(&mut port, &mut queue, &mut dirty);
        assert!(port.post(queue.id(), EntrySequence::Ordinary, range(entry, 1)));
    }
    assert_eq!(queue.figures().tail_events, 40);

    // Wanted while an update is on its way: sent after it.
    settle(&mut port, &mut queue, &mut dirty);
    port.rules.push(Rule::new(0x09, 0x21, Fault::Late(5)));
    for _ in 0..2 {
        assert!(port.post(queue.id(), EntrySequence::Ordinary, range(1, 1)));
        let (_, poll) = queue.poll(&mut port, &mut dirty, NOW, 1, false);
        assert_eq!(poll, Ok(QueuePoll::Again), "not while an update is on its way");
    }
    settle(&mut port, &mut queue, &mut dirty);
    assert!(port.post(queue.id(), EntrySequence::Ordinary, range(1, 1)));
    assert_eq!(port.events.len(), 1, "armed after the late update");

    // Entries posted between the command and its completion, past the trigger: read before any sleep.
    settle(&mut port, &mut queue, &mut dirty);
    assert!(port.post(queue.id(), EntrySequence::Ordinary, range(1, 1)));
    port.rules.push(Rule::new(0x09, 0x21, Fault::Late(1)));
    let _ = queue.poll(&mut port, &mut dirty, NOW, 64, false);
    port.events.clear();
    assert!(port.post(queue.id(), EntrySequence::Ordinary, range(1, 1)));
    port.events.clear();
    assert_eq!(settle(&mut port, &mut queue, &mut dirty), 1);
    assert!(port.post(queue.id(), EntrySequence::Ordinary, range(1, 1)));
    assert_eq!(port.events.len(), 1);
    delete(&mut port, queue).unwrap();
}

#[test]
fn events_of_unknown_queues_are_left_alone() {
    let arena = TestArena::new();
    let mut port = port(&arena);
    let mut queue = create(&mut port, &options(8, QueueLayout::Contiguous));
    let mut dirty = set();
    let stranger = AsynchronousEvent::from(CdqEvent::Full(CdqId::new(999)));
    port.events.push_back(stranger);
    settle(&mut port, &mut queue, &mut dirty);
    assert_eq!(queue.figures().full_events, 0);
    let own = AsynchronousEvent::from(CdqEvent::Full(queue.id()));
    port.events.push_back(own);
    delete(&mut port, queue).unwrap();
    assert_eq!(port.events, [stranger], "an event that raced with the deletion goes to no later queue");
}

#[test]
fn r16_memory_returns_with_proof_only() {
    let quarantined = |made: Result<(), CdqFailure>| made.unwrap_err().quarantined;
    let rows = [
        ("create refused", 0x45, 0, Fault::Status(StatusCode::NOT_ENOUGH_RESOURCES), false),
        ("create refused as an illegal field", 0x45, 0, Fault::Status(StatusCode::INVALID_FIELD), false),
        ("create done, with more", 0x45, 0, Fault::DoneBut(Status::SUCCESS.with_more()), false),
        (
            "create done, with a retry delay",
            0x45,
            0,
            Fault::DoneBut(Status::SUCCESS.with_retry_delay(1)),
            false,
        ),
        ("create without a status", 0x45, 0, Fault::DoneBut(Status::SUCCESS.with_do_not_retry()), true),
        ("create failed unclearly", 0x45, 0, Fault::Status(StatusCode::INTERNAL_ERROR), true),
        ("create aborted", 0x45, 0, Fault::DoneBut(StatusCode::ABORT_REQUESTED.status()), true),
        (
            "create failed on its path",
            0x45,
            0,
            Fault::DoneBut(StatusCode::INTERNAL_PATH_ERROR.status()),
            true,
        ),
        ("create failed as a vendor says", 0x45, 0, Fault::DoneBut(StatusCode::new(7, 1).status()), true),
        ("create timed out", 0x45, 0, Fault::TimesOut, true),
        ("create done but timed out", 0x45, 0, Fault::DoneButTimesOut, true),
        ("create lost in a reset", 0x45, 0, Fault::Lost, true),
        ("delete refused", 0x45, 1, Fault::Status(StatusCode::INVALID_CDQ), true),
        ("delete timed out", 0x45, 1, Fault::TimesOut, true),
        ("delete lost in a reset", 0x45, 1, Fault::Lost, true),
        ("delete succeeds", 0x45, 9, Fault::TimesOut, false),
    ];
    for (name, opcode, select, fault, kept) in rows {
        let arena = TestArena::new();
        let mut port = port(&arena);
        port.rules.push(Rule::new(opcode, select, fault));
        let mut creation = CdqCreation::new(&port, tracked(), &options(64, QueueLayout::PrpList)).unwrap();
        let created = (0..4).find_map(|_| creation.poll(&mut port, NOW)).unwrap();
        let ended = match created {
            Ok(queue) => delete(&mut port, queue).map(|_| ()),
            Err(failure) => Err(failure),
        };
        assert_eq!(arena.live(Pool::ControllerData), if kept { 2 } else { 0 }, "{name}");
        assert!(kept || port.device.queues.is_empty(), "{name}: no queue without its memory");
        if kept {
            port.disable();
            quarantined(ended).unwrap().release(&arena, &TestProof);
        } else if let Err(failure) = ended {
            assert_eq!(failure.quarantined, None, "{name}");
        }
        assert_eq!(arena.live_total(), 0, "{name}");
    }
}

#[test]
fn deletion_waits_for_the_head_update() {
    let arena = TestArena::new();
    let mut port = port(&arena);
    let mut queue = create(&mut port, &options(8, QueueLayout::Contiguous));
    let mut dirty = set();
    assert!(port.post(queue.id(), EntrySequence::First, Change::None));
    port.rules.push(Rule::new(0x09, 0x21, Fault::Late(3)));
    let _ = queue.poll(&mut port, &mut dirty, NOW, 64, false);
    assert!(queue.is_publishing());
    let mut deletion = CdqDeletion::new(queue, Duration::from_secs(1));
    assert!(deletion.poll(&mut port, NOW).is_none());
    assert_eq!(port.count(0x45, 1), 0);
    assert!((0..5).find_map(|_| deletion.poll(&mut port, NOW)).unwrap().is_ok());
    assert_eq!(arena.live_total(), 0);
}

#[test]
fn r13_an_overflow_event_without_a_marker_counts() {
    let arena = TestArena::new();
    let mut port = port(&arena);
    let mut queue = create(&mut port, &options(8, QueueLayout::Contiguous));
    let mut dirty = set();
    assert!(port.post(queue.id(), EntrySequence::First, Change::None));
    port.events.push_back(CdqEvent::Full(queue.id()).into());
    let (drained, _) = queue.poll(&mut port, &mut dirty, NOW, 64, false);
    assert!(drained.overflowed && dirty.maps()[0].is_everything());
    // The event of an overflow whose marker was read before it arrives says nothing new.
    assert!(port.post(queue.id(), EntrySequence::LastFull, Change::None));
    let (drained, _) = queue.poll(&mut port, &mut dirty, NOW, 64, false);
    assert!(drained.overflowed);
    port.events.push_back(CdqEvent::Full(queue.id()).into());
    let (drained, _) = queue.poll(&mut port, &mut dirty, NOW, 64, false);
    assert!(!drained.overflowed);
    assert_eq!(queue.figures().overflows, 2);
    delete(&mut port, queue).unwrap();
}

/// Defects found in other implementations that concern reading a queue and are not the subject of a test above.
#[test]
fn defects_of_other_implementations() {
    let rows: [(&str, fn()); 6] = [
        ("short count when a read wraps", || {
            let arena = TestArena::new();
            let mut port = port(&arena);
            let mut queue = create(&mut port, &options(5, QueueLayout::Contiguous));
            let mut dirty = set();
            for lap in 0..7 {
                let first = if lap == 0 { EntrySequence::First } else { EntrySequence::Ordinary };
                for (entry, sequence) in
                    [first, EntrySequence::Ordinary, EntrySequence::Ordinary].into_iter().enumerate()
                {
                    assert!(port.post(queue.id(), sequence, range(entry as u64, 1)));
                }
                let (drained, _) = queue.poll(&mut port, &mut dirty, NOW, 64, true);
                assert_eq!((drained.entries, drained.blocks), (3, 3), "lap {lap}");
                settle(&mut port, &mut queue, &mut dirty);
            }
            delete(&mut port, queue).unwrap();
        }),
        ("payload read before its phase tag", || {
            let arena = TestArena::new();
            let mut port = port(&arena);
            let mut queue = create(&mut port, &options(4, QueueLayout::Contiguous));
            assert!(port.post(queue.id(), EntrySequence::First, range(3, 4)));
            assert_eq!(events(&port, &mut queue), [LogEvent::LogStarted, changed(3, 4)]);
            // A payload without its tag is not an entry yet.
            let mut bytes = LbaMigrationEntry::ordinary(range(8, 1)).build().unwrap().to_bytes();
            bytes[31] = 0;
            let slot = port.device.slot(&arena, queue.id().get(), 1);
            arena.device_write(slot, &bytes);
            assert_eq!(events(&port, &mut queue), []);
            arena.device_write(slot.plus(31), &[1]);
            assert_eq!(events(&port, &mut queue), [changed(8, 1)]);
            delete(&mut port, queue).unwrap();
        }),
        ("phase compared as more than one bit", || {
            let arena = TestArena::new();
            let mut port = port(&arena);
            let mut queue = create(&mut port, &options(8, QueueLayout::Contiguous));
            let all = Change::AllOfNamespace { namespace: NS };
            // Attributes with many other bits set in both laps.
            for _ in 0..6 {
                assert!(port.post(queue.id(), EntrySequence::LastSuspended, all));
                assert!(port.post(queue.id(), EntrySequence::First, all));
                assert_eq!(events(&port, &mut queue).len(), 4);
                let mut dirty = set();
                settle(&mut port, &mut queue, &mut dirty);
            }
            delete(&mut port, queue).unwrap();
        }),
        ("32-bit size overflow", || {
            let arena = TestArena::new();
            let most = crate::wire::cdq::MAX_ENTRIES;
            let bytes = u64::from(most) * 32;
            assert!(bytes > u64::from(u32::MAX));
            arena.fail_after(0);
            let made =
                CdqMemory::allocate(&arena, most, QueueLayout::Contiguous, 4096, MemoryLimits::default());
            let asked = CdqMemoryError::Arena(crate::dma::DmaError::Exhausted {
                pool: Pool::ControllerData,
                bytes: usize::try_from(bytes).unwrap(),
            });
            assert_eq!(made, Err(asked));
        }),
        ("dead ring left after a controller reset", || {
            let arena = TestArena::new();
            let mut port = port(&arena);
            let mut queue = create(&mut port, &options(8, QueueLayout::PrpList));
            assert!(port.post(queue.id(), EntrySequence::First, Change::None));
            assert_eq!(events(&port, &mut queue), [LogEvent::LogStarted]);
            port.disable();
            let figures = queue.release_after_disable(&port, &TestProof);
            assert_eq!((figures.entries, arena.live_total()), (1, 0));
            let mut next = create(&mut port, &options(8, QueueLayout::PrpList));
            assert_eq!(events(&port, &mut next), [], "nothing of the old ring is left in the new one");
            delete(&mut port, next).unwrap();
        }),
        ("entries after a full marker hidden from the reader", || {
            let arena = TestArena::new();
            let mut port = port(&arena);
            let mut queue = create(&mut port, &options(3, QueueLayout::Contiguous));
            assert!(port.post(queue.id(), EntrySequence::First, Change::None));
            assert!(port.post(queue.id(), EntrySequence::Ordinary, range(5, 2)));
            let read = events(&port, &mut queue);
            assert_eq!(read, [LogEvent::LogStarted, changed(5, 2), LogEvent::Overflowed]);
            delete(&mut port, queue).unwrap();
        }),
    ];
    for (name, row) in rows {
        std::println!("{name}");
        row();
    }
}

#[test]
fn a_reset_of_the_controller_shows_and_gives_the_memory_back() {
    let arena = TestArena::new();
    for deletes in [false, true] {
        let mut port = port(&arena);
        let mut queue = create(&mut port, &options(8, QueueLayout::PrpList));
        assert!(port.post(queue.id(), EntrySequence::First, range(5, 1)));
        let mut dirty = set();
        settle(&mut port, &mut queue, &mut dirty);
        assert_eq!(dirty.dirty_blocks(), 1);
        port.disable();
        let sent = port.sent.len();
        for round in 0..3 {
            let (drained, poll) = queue.poll(&mut port, &mut dirty, NOW, 64, true);
            assert_eq!((poll, drained.overflowed), (Ok(QueuePoll::Gone), round == 0));
            assert_eq!(dirty.dirty_blocks(), 4096, "what was logged last may be missing");
        }
        assert!(arena.live(Pool::ControllerData) > 0);
        let figures = if deletes { delete(&mut port, queue).ok() } else { queue.release(&mut port).ok() };
        assert_eq!(figures.map(|figures| figures.entries), Some(1));
        assert_eq!((port.sent.len(), arena.live_total()), (sent, 0), "no command about a queue that is gone");
    }
    // A reset while the queue is being made.
    let mut port = port(&arena);
    port.rules.push(Rule { select: None, ..Rule::new(0x45, 0, Fault::Late(9)) });
    let mut creation = CdqCreation::new(&port, tracked(), &options(8, QueueLayout::Contiguous)).unwrap();
    assert!(creation.poll(&mut port, NOW).is_none());
    port.disable();
    let failed = creation.poll(&mut port, NOW).unwrap().unwrap_err();
    assert_eq!((failed.error, failed.quarantined.is_none()), (CallError::Lost, true));
    assert_eq!(arena.live_total(), 0);
}

/// Queues and what concerns them through the wrong controller's port, or after a reset.
#[test]
fn a_queue_is_served_by_its_own_controller_and_life_only() {
    let arenas = [TestArena::new(), TestArena::new()];
    let (mut own, mut other) = (port(&arenas[0]), port(&arenas[1]));
    let options = options(8, QueueLayout::Contiguous);
    let refused = CallError::NotSubmitted(crate::admin::SubmitError::OtherController);
    // Its creation.
    let mut creation = CdqCreation::new(&own, tracked(), &options).unwrap();
    let failed = creation.poll(&mut other, NOW).unwrap().unwrap_err();
    assert_eq!(failed.error, refused);
    failed.quarantined.unwrap().release(&arenas[0], &TestProof);
    // Head, entries, deletion. The other controller has a queue with the same identifier.
    let mut queue = create(&mut own, &options);
    let theirs = create(&mut other, &options);
    assert_eq!(queue.id(), theirs.id());
    let sent = other.sent.len();
    assert!(own.post(queue.id(), EntrySequence::First, Change::None));
    let mut dirty = set();
    let (drained, polled) = queue.poll(&mut other, &mut dirty, NOW, 64, true);
    assert_eq!((drained.entries, polled.unwrap_err().error), (0, refused));
    assert_eq!(queue.drain(&other, &mut dirty, 64), Drained::default());
    assert_eq!((queue.next_event(&other, 64), queue.settle(&mut other, NOW)), (None, Ok(())));
    let queue = queue.release(&mut other).unwrap_err();
    let failed = CdqDeletion::new(queue, Duration::from_secs(1)).poll(&mut other, NOW).unwrap().unwrap_err();
    assert_eq!((failed.error, failed.quarantined.is_some()), (refused, true));
    assert_eq!(other.sent.len(), sent, "the other controller was sent nothing");
    assert_eq!(other.device.queues.len(), 1);
    delete(&mut other, theirs).unwrap();
}

#[test]
fn what_was_prepared_before_a_reset_is_not_sent_after_it() {
    type Row = (&'static str, fn(&mut FakePort<'_>));
    let rows: [Row; 2] = [
        ("creation", |port| {
            let mut creation =
                CdqCreation::new(port, tracked(), &options(8, QueueLayout::Contiguous)).unwrap();
            port.rules.push(Rule::new(0x45, 0, Fault::Busy(1)));
            assert!(creation.poll(port, NOW).is_none());
            port.disable();
            let failed = creation.poll(port, NOW).unwrap().unwrap_err();
            assert_eq!(failed, CdqFailure { error: CallError::Lost, quarantined: None });
        }),
        ("head update", |port| {
            let mut queue = create(port, &options(8, QueueLayout::Contiguous));
            assert!(port.post(queue.id(), EntrySequence::First, Change::None));
            port.rules.push(Rule::new(0x09, 0x21, Fault::Busy(1)));
            let _ = queue.poll(port, &mut set(), NOW, 64, true);
            port.disable();
            assert_eq!(queue.settle(port, NOW), Ok(()));
            assert!(queue.release(port).is_ok());
        }),
    ];
    for (name, run) in rows {
        let arena = TestArena::new();
        let mut port = port(&arena);
        run(&mut port);
        assert!(port.device.queues.is_empty(), "{name}: the new life has no queue of the old one");
        assert_eq!(port.count(0x09, 0x21), 0, "{name}");
        assert_eq!(arena.live_total(), 0, "{name}");
    }
}

#[test]
fn an_entry_is_read_only_after_its_tag_was_seen() {
    let arena = TestArena::new();
    let mut port = port(&arena);
    let mut queue = create(&mut port, &options(8, QueueLayout::Contiguous));
    let entry = LbaMigrationEntry { phase: true, sequence: EntrySequence::First, change: range(7, 3) };
    let bytes = entry.build().unwrap().to_bytes();
    let slot = port.device.slot(&arena, queue.id().get(), 0);
    // The tag is seen before what was written before it.
    arena.device_write(slot.plus(28), &bytes[28..]);
    arena.write_after_acquire(slot, &bytes[..28]);
    let mut found = Vec::new();
    for _ in 0..3 {
        found.extend(events(&port, &mut queue));
    }
    assert_eq!(found, [LogEvent::LogStarted, changed(7, 3)]);
    delete(&mut port, queue).unwrap();
}

#[test]
fn a_marker_counts_whatever_is_wrong_with_the_rest_of_its_entry() {
    let rows = [
        ("full", 7, LogState::Overflowed, true),
        ("stopped", 2, LogState::Stopped, false),
        ("suspended", 3, LogState::Suspended, false),
        ("started", 1, LogState::Logging, false),
        ("ordinary", 0, LogState::Logging, false),
        ("reserved", 5, LogState::Logging, false),
    ];
    // A range in namespace 0, one that runs past the end, and change information that is reserved.
    let bad = [(0, 5, 0), (1, u64::MAX, 0), (1, 5, 3)];
    for (name, sequence, state, overflowed) in rows {
        for (namespace, start, change) in bad {
            let arena = TestArena::new();
            let mut port = port(&arena);
            let mut queue = create(&mut port, &options(8, QueueLayout::Contiguous));
            assert!(port.post(queue.id(), EntrySequence::First, Change::None));
            let mut bytes = [0; 32];
            bytes[0] = namespace;
            bytes[8..16].copy_from_slice(&u64::to_le_bytes(start));
            bytes[31] = change << 6 | sequence << 1;
            assert!(port.post_raw(queue.id(), bytes));
            let mut dirty = set();
            let (drained, _) = queue.poll(&mut port, &mut dirty, NOW, 64, false);
            let case = std::format!("{name}, {namespace}/{start}/{change}");
            assert_eq!((queue.log_state(), drained.overflowed), (state, overflowed), "{case}");
            assert!(drained.violation.is_some() && dirty.maps()[0].is_everything(), "{case}");
            assert_eq!(queue.figures().overflows, u64::from(overflowed), "{case}");
        }
    }
}

#[test]
fn r13_a_lost_event_does_not_hide_a_later_overflow_without_a_marker() {
    let arena = TestArena::new();
    let mut port = port(&arena);
    let mut queue = create(&mut port, &options(8, QueueLayout::Contiguous));
    let mut dirty = set();
    let id = queue.id();
    for sequence in [EntrySequence::First, EntrySequence::LastFull] {
        assert!(port.post(id, sequence, Change::None));
    }
    // The event of this overflow never comes.
    port.events.clear();
    let (drained, _) = queue.poll(&mut port, &mut dirty, NOW, 64, true);
    assert!(drained.overflowed);
    dirty.clear();
    assert!(port.post(id, EntrySequence::First, Change::None));
    let (drained, _) = queue.poll(&mut port, &mut dirty, NOW, 64, true);
    assert!(drained.started && drained.empty && !drained.overflowed);
    // The marker of this one never comes.
    dirty.clear();
    port.events.push_back(CdqEvent::Full(id).into());
    let (drained, _) = queue.poll(&mut port, &mut dirty, NOW, 64, true);
    assert!(drained.overflowed && dirty.maps()[0].is_everything());
    assert_eq!(queue.figures().overflows, 2);
}

#[test]
fn an_event_that_comes_with_or_before_the_acknowledgement_of_its_trigger_arms_it_again() {
    // The trigger is acknowledged after so many polls, its event is there after so many.
    for (late, event_after) in [(1, 1), (2, 1), (1, 0), (3, 1)] {
        let arena = TestArena::new();
        let mut port = port(&arena);
        let mut queue = create(&mut port, &options(8, QueueLayout::Contiguous));
        let mut dirty = set();
        port.rules.push(Rule::new(0x09, 0x21, Fault::Late(late)));
        let mut polls = 0;
        loop {
            if polls == event_after + 1 {
                port.events.push_back(CdqEvent::TailPointer(queue.id()).into());
            }
            let (_, polled) = queue.poll(&mut port, &mut dirty, NOW, 64, false);
            if polls > event_after && polled == Ok(QueuePoll::MaySleep) {
                break;
            }
            polls += 1;
            assert!(polls < 20, "late by {late}, event after {event_after}: it comes to rest");
        }
        assert_eq!(port.count(0x09, 0x21), 2, "late by {late}, event after {event_after}: armed once more");
    }
}

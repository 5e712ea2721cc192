// SPDX-License-Identifier: MIT OR Apache-2.0
//! How commands about a queue end at the wrong port, what is shown of a queue, and events one by one.

use super::*;
use crate::dirty::MarkError;
use crate::prp::PrpError;
use crate::testing::PAGE;

const SOON: Duration = Duration::from_secs(1);

#[test]
fn a_command_on_its_way_is_waited_for_at_its_own_port_only() {
    let arenas = [TestArena::new(), TestArena::new()];
    let (mut own, mut other) = (port(&arenas[0]), port(&arenas[1]));
    own.rules.push(Rule::new(0x45, 0, Fault::Late(2)));
    let options = options(8, QueueLayout::Contiguous);
    let mut creation = CdqCreation::new(&own, tracked(), &options).unwrap();
    assert!(creation.poll(&mut own, NOW).is_none(), "sent");
    assert!(creation.poll(&mut other, NOW).is_none(), "another port knows nothing of it");
    let queue = (0..4).find_map(|_| creation.poll(&mut own, NOW)).unwrap().unwrap();
    assert_eq!(queue.tracked(), tracked());

    own.rules.push(Rule::new(0x45, 1, Fault::Late(2)));
    let mut deletion = CdqDeletion::new(queue, SOON);
    assert!(deletion.poll(&mut own, NOW).is_none(), "sent");
    assert!(deletion.poll(&mut other, NOW).is_none(), "another port knows nothing of it");
    assert!((0..4).find_map(|_| deletion.poll(&mut own, NOW)).unwrap().is_ok());
    assert_eq!((own.count(0x45, 1), other.sent.len()), (1, 0));
    assert_eq!(arenas[0].live_total(), 0);
}

#[test]
fn what_stays_quarantined_is_said() {
    let arena = TestArena::new();
    let mut port = port(&arena);
    let queue = create(&mut port, &options(64, QueueLayout::Contiguous));
    port.rules.push(Rule::new(0x45, 1, Fault::Status(StatusCode::INVALID_CDQ)));
    let failed = delete(&mut port, queue).unwrap_err();
    assert_eq!(
        std::format!("{failed}"),
        "Controller Data Queue command: completed with status Invalid Controller Data Queue (1/37h); \
         its 64 entries stay quarantined until a disable"
    );
    let kept = failed.quarantined.unwrap();
    assert_eq!(kept.entries(), 64);
    port.disable();
    kept.release(&arena, &TestProof);
    assert_eq!(arena.live_total(), 0);
}

#[test]
fn an_event_taken_alone_is_not_told_again_by_a_drain() {
    let arena = TestArena::new();
    let mut port = port(&arena);
    let mut queue = create(&mut port, &options(8, QueueLayout::Contiguous));
    assert!(port.post(queue.id(), EntrySequence::First, Change::None));
    assert!(port.post(queue.id(), EntrySequence::LastStopped, range(5, 2)));
    assert_eq!(queue.next_event(&port, 16), Some(LogEvent::LogStarted));
    assert_eq!(queue.next_event(&port, 16), Some(changed(5, 2)));
    let mut dirty = set();
    let drained = queue.drain(&port, &mut dirty, 16);
    assert_eq!(
        (drained.stopped, drained.entries, drained.empty),
        (true, 0, true),
        "what is left of the entry"
    );
    assert_eq!(dirty.dirty_blocks(), 0, "its blocks went with the event");
    delete(&mut port, queue).unwrap();
}

#[test]
fn events_polled_one_by_one_are_given_back_and_overflows_without_a_marker_show() {
    let arena = TestArena::new();
    let mut port = port(&arena);
    let mut queue = create(&mut port, &options(8, QueueLayout::Contiguous));
    let mut seen = std::vec::Vec::new();
    let posts = [
        (EntrySequence::First, Change::None),
        (EntrySequence::Ordinary, range(5, 2)),
        (EntrySequence::LastStopped, range(9, 1)),
    ];
    for (sequence, change) in posts {
        assert!(port.post(queue.id(), sequence, change));
    }
    let (drained, _) = queue.poll_events(&mut port, NOW, 2, true, |event| seen.push(event));
    assert_eq!((drained.entries, drained.blocks, drained.empty), (2, 2, false), "two at most");
    assert_eq!((drained.started, drained.stopped), (true, false));
    let (drained, _) = queue.poll_events(&mut port, NOW, 2, true, |event| seen.push(event));
    assert_eq!((drained.entries, drained.blocks, drained.stopped, drained.empty), (1, 1, true, true));
    assert_eq!(seen, [LogEvent::LogStarted, changed(5, 2), changed(9, 1), LogEvent::LogStopped]);
    let _ = queue.poll_events(&mut port, NOW, 2, true, |_| {});
    assert_eq!((queue.acknowledged_head(), queue.fill()), (3, 0), "what was read is given back");
    port.events.push_back(CdqEvent::Full(queue.id()).into());
    let (drained, _) = queue.poll_events(&mut port, NOW, 2, false, |event| seen.push(event));
    assert!(drained.overflowed && seen.len() == 4, "an overflow that no entry tells of");
    delete(&mut port, queue).unwrap();
}

#[test]
fn a_call_reads_no_more_entries_than_it_may() {
    let arena = TestArena::new();
    let mut port = port(&arena);
    let mut queue = create(&mut port, &options(8, QueueLayout::Contiguous));
    assert!(port.post(queue.id(), EntrySequence::First, Change::None));
    assert_eq!(queue.next_event(&port, 0), None, "none may be read");
    assert_eq!(queue.next_event(&port, 1), Some(LogEvent::LogStarted));
    // Entries that say nothing: ordinary ones without a change.
    let mut silent = [0; 32];
    silent[31] = 0x81;
    for _ in 0..3 {
        assert!(port.post_raw(queue.id(), silent));
    }
    assert!(port.post(queue.id(), EntrySequence::Ordinary, range(7, 1)));
    assert_eq!(queue.next_event(&port, 2), None, "two of the three were read");
    assert_eq!(queue.figures().entries, 3);
    assert_eq!(queue.next_event(&port, 2), Some(changed(7, 1)));
    delete(&mut port, queue).unwrap();
}

#[test]
fn blocks_of_a_namespace_without_a_map_are_named_wherever_they_come_from() {
    let stranger = NamespaceId::new(9);
    let blocks = Change::Range { namespace: stranger, start: Lba::new(0), blocks: 4, deallocated: false };
    let whole = Change::AllOfNamespace { namespace: stranger };
    let rows = [
        ("ordinary", EntrySequence::Ordinary, blocks),
        ("the last one", EntrySequence::LastSuspended, blocks),
        ("the whole namespace", EntrySequence::LastStopped, whole),
    ];
    for (name, sequence, change) in rows {
        let arena = TestArena::new();
        let mut port = port(&arena);
        let mut queue = create(&mut port, &options(8, QueueLayout::Contiguous));
        assert!(port.post(queue.id(), EntrySequence::First, Change::None));
        assert!(port.post(queue.id(), sequence, change));
        let mut dirty = set();
        let drained = queue.drain(&port, &mut dirty, 16);
        assert_eq!(drained.unknown, Some(MarkError::UnknownNamespace(stranger)), "{name}");
        assert_eq!(dirty.dirty_blocks(), 0, "{name}");
        delete(&mut port, queue).unwrap();
    }
}

#[test]
fn memory_in_smaller_pages_than_the_controllers_makes_no_list() {
    let arena = TestArena::new();
    let limits = MemoryLimits::default();
    let made = CdqMemory::allocate(&arena, 4096, QueueLayout::PrpList, 2 * PAGE, limits);
    let error = PrpError::ArenaPage { arena: PAGE, controller: 2 * PAGE };
    assert_eq!(made, Err(CdqMemoryError::List(error)));
    assert_eq!(arena.live_total(), 0, "queue and list are back");
}

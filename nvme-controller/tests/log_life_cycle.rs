// SPDX-License-Identifier: MIT OR Apache-2.0
//! The log of user data changes: its life cycle, what each command reports, full queues, and every check of Track
//! Send, Log User Data Changes.

mod harness;

use harness::lm::DataQueue;
use harness::{GUEST, MANAGER, NSID, Options, PAGE, Rig, code, pattern};
use nvme_controller::{Quirks, SubsystemConfig};
use nvme_core::wire::admin::AsynchronousEventRequest;
use nvme_core::wire::nvm::{
    Compare, Copy, DatasetManagement, Flush, Read, Verify, Write, WriteUncorrectable, WriteZeroes,
};
use nvme_core::wire::nvm_data::{CopySource, CopySourceData, DatasetRange, DatasetRangeData};
use nvme_core::wire::track::TrackSend;
use nvme_core::wire::{
    AsynchronousEvent, CdqEvent, Command, Fuse, Lba, NamespaceId, Status, SubmissionQueueEntry,
};
use zerocopy::IntoBytes;

fn with_quirks(quirks: Quirks) -> Rig {
    let subsystem = SubsystemConfig { quirks, ..Options::default().subsystem };
    let mut rig = Rig::with(Options { subsystem, namespaces: vec![1, 2], ..Options::default() });
    rig.enable(MANAGER);
    for guest in [GUEST, GUEST + 1] {
        rig.enable(guest);
        rig.create_pair(guest, 1, 64);
    }
    rig
}

fn rig() -> Rig {
    with_quirks(Quirks::empty())
}

fn zero(rig: &mut Rig, lba: u64, blocks: u32) {
    let command = WriteZeroes::new(NSID, Lba::new(lba), blocks);
    assert_eq!(rig.command(GUEST, 1, command.encode()).status(), Status::SUCCESS);
}

fn start(rig: &mut Rig, queue: &DataQueue) {
    assert_eq!(rig.log(queue, true).status(), Status::SUCCESS);
}

#[test]
fn track_send_is_refused_with_the_status_of_its_violation() {
    type Prepare = fn(&mut Rig, &mut DataQueue);
    let none: Prepare = |_, _| {};
    let rows: [(&str, Prepare, u32, u16, u8, u8); 9] = [
        ("unknown queue, start", none, 0x1_0000, 77, 1, 0x37),
        ("unknown queue, stop", none, 0, 77, 1, 0x37),
        ("reserved action", none, 0x2_0000, 0, 0, 0x02),
        ("reserved select", none, 0x02, 0, 0, 0x02),
        ("already started", |rig, queue| start(rig, queue), 0x1_0000, 0, 0, 0x02),
        (
            "target suspended",
            |rig, _| assert_eq!(rig.suspend(GUEST, false).status(), Status::SUCCESS),
            0x1_0000,
            0,
            1,
            0x39,
        ),
        (
            "queue full",
            |rig, queue| {
                start(rig, queue);
                (0..7).for_each(|lba| zero(rig, lba, 1));
            },
            0x1_0000,
            0,
            1,
            0x3B,
        ),
        ("stop when not logging", none, 0, 0, 0, 0x00),
        ("start", none, 0x1_0000, 0, 0, 0x00),
    ];
    for (name, prepare, cdw10, id, kind, status) in rows {
        let mut rig = rig();
        let mut queue = rig.data_queue(GUEST, 8);
        prepare(&mut rig, &mut queue);
        let entry = SubmissionQueueEntry::new(0x3D).with_dwords([cdw10, u32::from(id), 0, 0, 0, 0]);
        assert_eq!(rig.command(MANAGER, 0, entry).status().code(), code(kind, status), "{name}");
    }
}

#[test]
fn tracking_commands_belong_to_managers() {
    let mut rig = rig();
    let queue = rig.data_queue(GUEST, 8);
    let command = TrackSend::LogUserDataChanges { start: true, queue: queue.id };
    assert_eq!(rig.admin(GUEST, &command).status().code(), code(0, 0x01));
    let named = command.encode().with_namespace(NSID);
    assert_eq!(rig.command(MANAGER, 0, named).status().code(), code(0, 0x02));
}

#[test]
fn starting_and_stopping_post_their_markers() {
    let mut rig = rig();
    let mut queue = rig.data_queue(GUEST, 16);
    zero(&mut rig, 1, 1);
    assert!(rig.said(&mut queue).is_empty(), "created is not started");
    start(&mut rig, &queue);
    assert_eq!(rig.said(&mut queue), ["first -"]);
    zero(&mut rig, 2, 3);
    assert_eq!(rig.said(&mut queue), ["1:2+3"]);
    assert_eq!(rig.log(&queue, false).status(), Status::SUCCESS);
    assert_eq!(rig.said(&mut queue), ["stopped -"]);
    zero(&mut rig, 3, 1);
    assert_eq!(rig.log(&queue, false).status(), Status::SUCCESS);
    assert!(rig.said(&mut queue).is_empty(), "stopping twice posts nothing");
    start(&mut rig, &queue);
    assert_eq!(rig.said(&mut queue), ["first -"]);
}

#[test]
fn r9_suspending_closes_the_log_and_resuming_opens_it_again() {
    let mut rig = rig();
    let mut queue = rig.data_queue(GUEST, 16);
    start(&mut rig, &queue);
    zero(&mut rig, 5, 1);
    assert_eq!(rig.suspend(GUEST, false).status(), Status::SUCCESS);
    assert_eq!(rig.said(&mut queue), ["first -", "1:5+1", "suspended -"]);
    assert_eq!(rig.suspend(GUEST, false).status(), Status::SUCCESS);
    assert!(rig.said(&mut queue).is_empty(), "suspending twice posts nothing");
    assert_eq!(rig.resume(GUEST).status(), Status::SUCCESS);
    zero(&mut rig, 6, 2);
    assert_eq!(rig.said(&mut queue), ["first -", "1:6+2"]);
}

#[test]
fn r9_suspending_with_deletion_posts_the_marker_and_then_the_queue_is_gone() {
    let mut rig = rig();
    let mut queue = rig.data_queue(GUEST, 16);
    start(&mut rig, &queue);
    assert_eq!(rig.suspend(GUEST, true).status(), Status::SUCCESS);
    assert_eq!(rig.said(&mut queue), ["first -", "suspended -"]);
    assert_eq!(rig.delete_queue(&queue).status().code(), code(1, 0x37));
    assert_eq!(rig.resume(GUEST).status(), Status::SUCCESS);
    zero(&mut rig, 6, 2);
    assert!(rig.said(&mut queue).is_empty());
}

#[test]
fn a_log_that_is_off_gets_no_suspended_marker() {
    let mut rig = rig();
    let mut queue = rig.data_queue(GUEST, 16);
    assert_eq!(rig.suspend(GUEST, false).status(), Status::SUCCESS);
    assert_eq!(rig.resume(GUEST).status(), Status::SUCCESS);
    assert!(rig.said(&mut queue).is_empty());
}

#[test]
fn a_log_stopped_while_paused_stays_off() {
    let mut rig = rig();
    let mut queue = rig.data_queue(GUEST, 16);
    start(&mut rig, &queue);
    assert_eq!(rig.suspend(GUEST, false).status(), Status::SUCCESS);
    assert_eq!(rig.log(&queue, false).status(), Status::SUCCESS);
    assert_eq!(rig.resume(GUEST).status(), Status::SUCCESS);
    zero(&mut rig, 6, 2);
    assert_eq!(rig.said(&mut queue), ["first -", "suspended -"]);
}

#[test]
fn the_marker_may_follow_the_completion_of_a_suspend_that_keeps_the_queue() {
    let subsystem = SubsystemConfig { marker_after_completion: true, ..Options::default().subsystem };
    let mut rig = Rig::with(Options { subsystem, ..Options::default() });
    rig.enable(MANAGER);
    rig.enable(GUEST);
    let mut queue = rig.data_queue(GUEST, 16);
    start(&mut rig, &queue);
    rig.memories[MANAGER].clear_trace();
    assert_eq!(rig.suspend(GUEST, false).status(), Status::SUCCESS);
    let trace = rig.memories[MANAGER].trace();
    let marker = trace.iter().position(|address| *address == queue.slots[1].get()).unwrap();
    assert_eq!((trace.len(), marker), (2, 1), "completion, then marker");
    assert_eq!(rig.said(&mut queue), ["first -", "suspended -"]);

    assert_eq!(rig.resume(GUEST).status(), Status::SUCCESS);
    rig.memories[MANAGER].clear_trace();
    assert_eq!(rig.suspend(GUEST, true).status(), Status::SUCCESS);
    let trace = rig.memories[MANAGER].trace();
    let marker = trace.iter().position(|address| *address == queue.slots[3].get()).unwrap();
    assert_eq!((trace.len(), marker), (2, 0), "with deletion the marker comes first");
}

#[test]
fn r13_the_last_free_slot_holds_the_overflow_marker() {
    for entries in [2, 3, 4, 5, 8, 63, 64, 65, 130, 4096] {
        for scattered in [false, true] {
            let mut rig = rig();
            let mut queue = if scattered {
                rig.scattered_data_queue(GUEST, entries)
            } else {
                rig.data_queue(GUEST, entries)
            };
            start(&mut rig, &queue);
            let count = entries + 3;
            (0..count).for_each(|lba| zero(&mut rig, u64::from(lba % 2000), 1));
            let said = rig.said(&mut queue);
            assert_eq!(said.len() as u32, entries - 1, "{entries} entries hold one less");
            let last =
                if entries == 2 { "full -".to_owned() } else { format!("full 1:{}+1", (entries - 3) % 2000) };
            assert_eq!(said.last(), Some(&last), "{entries} entries, scattered {scattered}");
            let request = rig.submit(MANAGER, 0, AsynchronousEventRequest.encode());
            rig.run();
            let event = AsynchronousEvent::from_completion(&rig.take(MANAGER, 0, request).unwrap());
            assert_eq!(event.controller_data_queue(), Some(CdqEvent::Full(queue.id)));
            rig.publish(&queue, None);
            zero(&mut rig, 9, 1);
            assert!(rig.said(&mut queue).is_empty(), "freed slots do not restart the log");
            start(&mut rig, &queue);
            zero(&mut rig, 10, 1);
            let again = rig.said(&mut queue);
            let expected = match entries {
                2 => vec!["full -"],
                3 => vec!["first -", "full 1:10+1"],
                _ => vec!["first -", "1:10+1"],
            };
            assert_eq!(again, expected, "{entries} entries, started again");
        }
    }
}

#[test]
fn an_overflow_takes_the_place_of_any_marker() {
    let mut rig = rig();
    let mut queue = rig.data_queue(GUEST, 4);
    start(&mut rig, &queue);
    zero(&mut rig, 0, 1);
    assert_eq!(rig.suspend(GUEST, false).status(), Status::SUCCESS);
    assert_eq!(rig.said(&mut queue), ["first -", "1:0+1", "full -"]);
    rig.publish(&queue, None);
    assert_eq!(rig.resume(GUEST).status(), Status::SUCCESS);
    zero(&mut rig, 1, 1);
    assert!(rig.said(&mut queue).is_empty(), "the log stays off");
}

#[test]
fn a_queue_that_cannot_be_written_stops_its_log_with_phase_and_tail_as_they_were() {
    let mut rig = rig();
    let mut queue = rig.scattered_data_queue(GUEST, 256);
    start(&mut rig, &queue);
    (0..127).for_each(|lba| zero(&mut rig, lba, 1));
    assert_eq!(rig.said(&mut queue).len(), 128);
    rig.publish(&queue, None);
    let page = queue.slots[128];
    rig.memories[MANAGER].unmap(page, PAGE);
    zero(&mut rig, 500, 1);
    let request = rig.submit(MANAGER, 0, AsynchronousEventRequest.encode());
    rig.run();
    let event = AsynchronousEvent::from_completion(&rig.take(MANAGER, 0, request).unwrap());
    assert_eq!(event.controller_data_queue(), Some(CdqEvent::Full(queue.id)), "the loss is reported");
    rig.memories[MANAGER].map(page.get(), PAGE);
    start(&mut rig, &queue);
    zero(&mut rig, 501, 1);
    assert_eq!(rig.said(&mut queue), ["first -", "1:501+1"], "in the slot and with the tag that failed");
}

#[test]
fn phases_invert_at_every_wrap() {
    let mut rig = rig();
    let mut queue = rig.data_queue(GUEST, 5);
    start(&mut rig, &queue);
    assert_eq!(rig.said(&mut queue), ["first -"]);
    rig.publish(&queue, None);
    for lba in 0..40 {
        zero(&mut rig, lba, 1);
        assert_eq!(rig.said(&mut queue), [format!("1:{lba}+1")]);
        rig.publish(&queue, None);
    }
}

#[test]
fn each_command_reports_what_it_changed() {
    let mut rig = rig();
    let mut queue = rig.data_queue(GUEST, 64);
    let second = NamespaceId::new(2);
    let data = pattern(8, 3);
    let ranges: Vec<u8> = [(0, 8, 100), (0, 0, 5), (0, 4, 108), (7, 1, 300)]
        .map(|(attributes, blocks, start)| {
            DatasetRangeData::from(DatasetRange { attributes, blocks, start: Lba::new(start) })
        })
        .iter()
        .flat_map(|range| range.as_bytes().to_vec())
        .collect();
    let dataset = |deallocate| DatasetManagement {
        namespace: NSID,
        ranges: 4,
        deallocate,
        integral_write: false,
        integral_read: true,
    };
    let sources: Vec<u8> = [(0, 3), (50, 2)]
        .map(|(start, blocks)| CopySourceData::from(CopySource::new(Lba::new(start), blocks)))
        .iter()
        .flat_map(|source| source.as_bytes().to_vec())
        .collect();
    let deallocating = WriteZeroes { deallocate: true, ..WriteZeroes::new(NSID, Lba::new(9), 2) };
    start(&mut rig, &queue);
    rig.said(&mut queue);
    let rows: [(&str, SubmissionQueueEntry, &[u8], &[&str]); 14] = [
        ("write", Write::new(NSID, Lba::new(16), 8).encode(), &data, &["1:16+8"]),
        ("write to another namespace", Write::new(second, Lba::new(0), 1).encode(), &data, &["2:0+1"]),
        ("read", Read::new(NSID, Lba::new(16), 8).encode(), &data, &[]),
        ("compare", Compare::new(NSID, Lba::new(16), 8).encode(), &data, &[]),
        ("verify", Verify::new(NSID, Lba::new(16), 8).encode(), &[], &[]),
        ("flush", Flush { namespace: NSID }.encode(), &[], &[]),
        ("write zeroes", WriteZeroes::new(NSID, Lba::new(9), 2).encode(), &[], &["1:9+2"]),
        ("write zeroes, deallocating", deallocating.encode(), &[], &["1:9+2d"]),
        (
            "write uncorrectable",
            WriteUncorrectable { namespace: NSID, start: Lba::new(200), blocks: 2 }.encode(),
            &[],
            &["1:200+2"],
        ),
        ("deallocate ranges", dataset(true).encode(), &ranges, &["1:100+12d", "1:300+1d"]),
        ("dataset hints", dataset(false).encode(), &ranges, &[]),
        ("copy", Copy::new(NSID, Lba::new(400), 2).encode(), &sources, &["1:400+5"]),
        ("write outside", Write::new(NSID, Lba::new(2047), 2).encode(), &data, &[]),
        ("largest zeroes", WriteZeroes::new(NSID, Lba::new(0), 2048).encode(), &[], &["1:0+2048"]),
    ];
    for (name, entry, data, expected) in rows {
        let (prp1, prp2, _) = rig.buffer(GUEST, data);
        let completion = rig.command(GUEST, 1, entry.with_prps(prp1, prp2));
        assert_eq!(completion.status().is_success(), name != "write outside", "{name}");
        assert_eq!(rig.said(&mut queue), expected, "{name}");
    }
}

#[test]
fn changes_through_other_controllers_are_not_reported() {
    let mut rig = rig();
    rig.create_pair(MANAGER, 1, 16);
    let mut queue = rig.data_queue(GUEST, 64);
    start(&mut rig, &queue);
    for controller in [MANAGER, GUEST + 1] {
        let command = WriteZeroes::new(NSID, Lba::new(1), 1);
        assert_eq!(rig.command(controller, 1, command.encode()).status(), Status::SUCCESS);
    }
    assert_eq!(rig.said(&mut queue), ["first -"]);
}

#[test]
fn a_fused_write_is_reported_only_if_it_is_done() {
    let mut rig = rig();
    let mut queue = rig.data_queue(GUEST, 64);
    start(&mut rig, &queue);
    rig.said(&mut queue);
    for (name, compared, expected) in
        [("equal", pattern(1, 0), &["1:0+1"][..]), ("different", pattern(1, 9), &[])]
    {
        let (written, _) = rig.io_data(GUEST, 1, &Write::new(NSID, Lba::new(0), 1), &pattern(1, 0));
        assert_eq!(written.status(), Status::SUCCESS);
        rig.said(&mut queue);
        let (prp1, _, _) = rig.buffer(GUEST, &compared);
        let (other, _, _) = rig.buffer(GUEST, &pattern(1, 5));
        let first = Compare::new(NSID, Lba::new(0), 1).encode().with_fuse(Fuse::First);
        let second = Write::new(NSID, Lba::new(0), 1).encode().with_fuse(Fuse::Second);
        rig.place(GUEST, 1, first.with_prps(prp1, prp1));
        rig.submit(GUEST, 1, second.with_prps(other, other));
        rig.run();
        assert_eq!(rig.said(&mut queue), expected, "{name}");
    }
}

#[test]
fn a_failed_write_that_may_have_changed_blocks_is_reported() {
    let mut rig = rig();
    let mut queue = rig.data_queue(GUEST, 64);
    start(&mut rig, &queue);
    rig.said(&mut queue);
    // The scratch memory takes 16 blocks at once; the failing piece counts as a whole.
    rig.fail_write[0].set(Some(20));
    let (completion, _) = rig.io_data(GUEST, 1, &Write::new(NSID, Lba::new(0), 64), &pattern(64, 1));
    assert_eq!(completion.status().code(), code(2, 0x80));
    assert_eq!(rig.said(&mut queue), ["1:0+32"]);
}

#[test]
fn an_entry_is_posted_after_the_effect_and_before_the_completion() {
    let mut rig = rig();
    let mut queue = rig.data_queue(GUEST, 16);
    start(&mut rig, &queue);
    rig.said(&mut queue);
    let (prp1, prp2, _) = rig.buffer(GUEST, &pattern(1, 7));
    rig.submit(GUEST, 1, Write::new(NSID, Lba::new(3), 1).encode().with_prps(prp1, prp2));
    rig.subsystem.fetch(8);
    assert!(rig.said(&mut queue).is_empty(), "fetched is not done");
    rig.subsystem.execute(8);
    assert_eq!(rig.said(&mut queue), ["1:3+1"]);
    assert_eq!(rig.media(0, 3, 1), pattern(1, 7));
    // The completion cannot be written, so the host hears of the change from the log alone.
    rig.collect(GUEST, 1);
    let completion = rig.pairs[GUEST][&1].completion;
    rig.memories[GUEST].unmap(completion, PAGE);
    rig.submit(GUEST, 1, Write::new(NSID, Lba::new(4), 1).encode().with_prps(prp1, prp2));
    rig.run();
    assert_eq!(rig.said(&mut queue), ["1:4+1"]);
    assert_eq!(rig.read32(GUEST, 0x1C) & 2, 2, "a completion that cannot be posted is fatal");
}

#[test]
fn several_controllers_are_logged_apart() {
    let mut rig = rig();
    let mut first = rig.data_queue(GUEST, 16);
    let mut second = rig.data_queue(GUEST + 1, 16);
    start(&mut rig, &first);
    start(&mut rig, &second);
    zero(&mut rig, 1, 1);
    let command = WriteZeroes::new(NSID, Lba::new(2), 1);
    assert_eq!(rig.command(GUEST + 1, 1, command.encode()).status(), Status::SUCCESS);
    assert_eq!(rig.said(&mut first), ["first -", "1:1+1"]);
    assert_eq!(rig.said(&mut second), ["first -", "1:2+1"]);
}

#[test]
fn quirks_of_known_models() {
    let ranges: Vec<u8> = [(8, 100), (4, 108), (1, 300)]
        .map(|(blocks, start)| {
            DatasetRangeData::from(DatasetRange { attributes: 0, blocks, start: Lba::new(start) })
        })
        .iter()
        .flat_map(|range| range.as_bytes().to_vec())
        .collect();
    let dataset = DatasetManagement {
        namespace: NSID,
        ranges: 3,
        deallocate: true,
        integral_write: false,
        integral_read: false,
    };
    for (name, quirks, expected) in [
        (
            "length one-based",
            Quirks::DATASET_LENGTH_ONE_BASED,
            &["first -", "1:100+9", "1:108+5", "1:300+2"][..],
        ),
        ("range dropped", Quirks::DATASET_RANGE_DROPPED, &["first -", "1:300+1d"]),
    ] {
        let mut rig = with_quirks(quirks);
        let mut queue = rig.data_queue(GUEST, 16);
        start(&mut rig, &queue);
        let (completion, _) = rig.io_data(GUEST, 1, &dataset, &ranges);
        assert_eq!(completion.status(), Status::SUCCESS);
        assert_eq!(rig.said(&mut queue), expected, "{name}");
    }

    let mut rig = with_quirks(Quirks::COPY_NOT_LOGGED);
    let mut queue = rig.data_queue(GUEST, 16);
    start(&mut rig, &queue);
    let source = CopySourceData::from(CopySource::new(Lba::new(0), 3));
    let (completion, _) = rig.io_data(GUEST, 1, &Copy::new(NSID, Lba::new(9), 1), source.as_bytes());
    assert_eq!(completion.status(), Status::SUCCESS);
    assert_eq!(rig.said(&mut queue), ["first -"]);

    let mut rig = with_quirks(Quirks::LOGGING_RESUMES_AFTER_FULL);
    let mut queue = rig.data_queue(GUEST, 4);
    start(&mut rig, &queue);
    (0..6).for_each(|lba| zero(&mut rig, lba, 1));
    assert_eq!(rig.said(&mut queue), ["first -", "1:0+1", "full 1:1+1"]);
    rig.publish(&queue, None);
    zero(&mut rig, 9, 1);
    assert_eq!(rig.said(&mut queue), ["1:9+1"]);

    let mut rig = with_quirks(Quirks::NO_FIRST_ENTRY_AFTER_FULL);
    let mut queue = rig.data_queue(GUEST, 4);
    start(&mut rig, &queue);
    (0..6).for_each(|lba| zero(&mut rig, lba, 1));
    rig.said(&mut queue);
    rig.publish(&queue, None);
    start(&mut rig, &queue);
    zero(&mut rig, 9, 1);
    assert_eq!(rig.said(&mut queue), ["1:9+1"]);
}

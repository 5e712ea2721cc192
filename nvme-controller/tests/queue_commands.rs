// SPDX-License-Identifier: MIT OR Apache-2.0
//! Every check of queue creation and deletion, queues in PRP lists, Abort, and Asynchronous Event Requests.

mod harness;

use harness::{
    GUEST, NSID, Options, PAGE, Rig, code, create_completion, create_submission, list_of, pattern,
};
use nvme_controller::SubsystemConfig;
use nvme_core::wire::admin::{
    Abort, AsynchronousEventRequest, DeleteIoCompletionQueue, DeleteIoSubmissionQueue, GetLogPage,
};
use nvme_core::wire::feature::NumberOfQueues;
use nvme_core::wire::log::LogPageId;
use nvme_core::wire::nvm::{Read, Write, WriteZeroes};
use nvme_core::wire::{
    AsynchronousEvent, BusAddr, Command, CommandId, EventType, Lba, QueueId, Status, SubmissionQueueEntry,
};

fn rig() -> Rig {
    with(Options::default())
}

fn with(options: Options) -> Rig {
    let mut rig = Rig::with(options);
    rig.enable(GUEST);
    rig
}

fn zeroes(lba: u64) -> SubmissionQueueEntry {
    WriteZeroes::new(NSID, Lba::new(lba), 1).encode()
}

#[test]
fn completion_queues_are_refused_with_the_status_of_the_violation() {
    let good = create_completion(2, 16, Some(2)).encode();
    let edit = |at: usize, value: u32| {
        let mut dwords = good.dwords();
        dwords[at] = value;
        good.with_dwords(dwords)
    };
    let rows: [(&str, SubmissionQueueEntry, u64, u8, u8); 16] = [
        ("legal", good, 0, 0, 0x00),
        ("QID 0", edit(0, 0x000F_0000), 0, 1, 0x01),
        ("QID above what was granted", edit(0, 0x000F_0004), 0, 1, 0x01),
        ("QID far above", edit(0, 0x000F_FFFF), 0, 1, 0x01),
        ("QID in use", edit(0, 0x000F_0001), 0, 1, 0x01),
        ("QSIZE 0", edit(0, 0x0000_0002), 0, 1, 0x02),
        ("QSIZE of two entries", edit(0, 0x0001_0002), 0, 0, 0x00),
        ("QSIZE MQES", edit(0, 0x03FF_0002), 0, 0, 0x00),
        ("QSIZE above MQES", edit(0, 0x0400_0002), 0, 1, 0x02),
        ("last vector", edit(1, 0x0007_0003), 0, 0, 0x00),
        ("vector too high", edit(1, 0x0008_0003), 0, 1, 0x08),
        ("vector too high, interrupts off", edit(1, 0x0008_0001), 0, 0, 0x00),
        ("PRP1 offset", good, 0x40, 0, 0x13),
        ("PRP1 offset, list", edit(1, 0x0002_0002), 0x40, 0, 0x13),
        ("list that is not there", edit(1, 0x0002_0002), 0x9000_0000, 0, 0x02),
        ("namespace", good.with_namespace(NSID), 0, 0, 0x02),
    ];
    for (name, entry, offset, kind, status) in rows {
        let mut rig = rig();
        let granted = NumberOfQueues { submission: 3, completion: 3 };
        rig.admin_ok(GUEST, &granted.to_set_features());
        rig.create_pair(GUEST, 1, 16);
        let base = rig.allocate(GUEST, 4 * PAGE).plus(offset);
        let completion = rig.command(GUEST, 0, entry.with_prps(base, BusAddr::new(0)));
        assert_eq!(completion.status().code(), code(kind, status), "{name}");
    }
}

#[test]
fn submission_queues_are_refused_with_the_status_of_the_violation() {
    let good = create_submission(2, 16, 1).encode();
    let edit = |at: usize, value: u32| {
        let mut dwords = good.dwords();
        dwords[at] = value;
        good.with_dwords(dwords)
    };
    let rows: [(&str, SubmissionQueueEntry, u64, u8, u8); 16] = [
        ("legal", good, 0, 0, 0x00),
        ("QID 0", edit(0, 0x000F_0000), 0, 1, 0x01),
        ("QID above what was granted", edit(0, 0x000F_0004), 0, 1, 0x01),
        ("QID in use", edit(0, 0x000F_0001), 0, 1, 0x01),
        ("QSIZE 0", edit(0, 0x0000_0002), 0, 1, 0x02),
        ("QSIZE of two entries", edit(0, 0x0001_0002), 0, 0, 0x00),
        ("QSIZE above MQES", edit(0, 0x0400_0002), 0, 1, 0x02),
        ("CQID 0", edit(1, 0x0000_0001), 0, 1, 0x01),
        ("CQID out of range", edit(1, 0x0009_0001), 0, 1, 0x01),
        ("CQID not created", edit(1, 0x0003_0001), 0, 1, 0x00),
        ("any priority", edit(1, 0x0001_0007), 0, 0, 0x00),
        ("NVM set", edit(2, 1), 0, 0, 0x02),
        ("PRP1 offset", good, 0x40, 0, 0x13),
        ("PRP1 offset, list", edit(1, 0x0001_0000), 0x40, 0, 0x13),
        ("list that is not there", edit(1, 0x0001_0000), 0x9000_0000, 0, 0x02),
        ("namespace", good.with_namespace(NSID), 0, 0, 0x02),
    ];
    for (name, entry, offset, kind, status) in rows {
        let mut rig = rig();
        let granted = NumberOfQueues { submission: 3, completion: 3 };
        rig.admin_ok(GUEST, &granted.to_set_features());
        rig.create_pair(GUEST, 1, 16);
        let base = rig.allocate(GUEST, 4 * PAGE).plus(offset);
        let completion = rig.command(GUEST, 0, entry.with_prps(base, BusAddr::new(0)));
        assert_eq!(completion.status().code(), code(kind, status), "{name}");
    }
}

#[test]
fn entry_sizes_of_cc_decide_whether_queues_can_be_made() {
    for (name, configuration, completion_status, submission_status) in [
        ("both set", 0x0046_0001, code(0, 0), code(0, 0)),
        ("IOCQES unset", 0x0006_0001, code(1, 0x02), code(1, 0x00)),
        ("IOSQES unset", 0x0040_0001, code(0, 0), code(1, 0x02)),
        ("IOSQES too large", 0x0047_0001, code(0, 0), code(1, 0x02)),
    ] {
        let mut rig = Rig::new();
        rig.enable_with(GUEST, 16, configuration);
        let base = rig.allocate(GUEST, PAGE);
        let entry = create_completion(1, 16, Some(1)).encode().with_prps(base, BusAddr::new(0));
        assert_eq!(rig.command(GUEST, 0, entry).status().code(), completion_status, "{name}");
        let entry = create_submission(1, 16, 1).encode().with_prps(base, BusAddr::new(0));
        assert_eq!(rig.command(GUEST, 0, entry).status().code(), submission_status, "{name}");
    }
}

#[test]
fn contiguous_queues_can_be_demanded() {
    let subsystem = SubsystemConfig { contiguous_queues_required: true, ..Options::default().subsystem };
    let mut rig = with(Options { subsystem, ..Options::default() });
    assert_eq!(rig.read32(GUEST, 0) & (1 << 16), 1 << 16, "CAP.CQR");
    let list = list_of(&rig.memories[GUEST], &[rig.allocate(GUEST, PAGE).get()]);
    let mut completion = create_completion(1, 16, Some(1));
    completion.contiguous = false;
    let entry = completion.encode().with_prps(list, BusAddr::new(0));
    assert_eq!(rig.command(GUEST, 0, entry).status().code(), code(0, 0x02));
}

#[test]
fn deletion_is_refused_with_the_status_of_the_violation() {
    let submission = |queue| DeleteIoSubmissionQueue { queue: QueueId::new(queue) };
    let completion = |queue| DeleteIoCompletionQueue { queue: QueueId::new(queue) };
    let mut rig = rig();
    rig.create_pair(GUEST, 1, 16);
    for (name, entry, kind, status) in [
        ("submission queue 0", submission(0).encode(), 1, 0x01),
        ("submission queue that does not exist", submission(2).encode(), 1, 0x01),
        ("completion queue 0", completion(0).encode(), 1, 0x01),
        ("completion queue that does not exist", completion(2).encode(), 1, 0x01),
        ("completion queue in use", completion(1).encode(), 1, 0x0C),
        ("submission queue", submission(1).encode(), 0, 0x00),
        ("submission queue deleted before", submission(1).encode(), 1, 0x01),
        ("completion queue", completion(1).encode(), 0, 0x00),
        ("completion queue deleted before", completion(1).encode(), 1, 0x01),
    ] {
        assert_eq!(rig.command(GUEST, 0, entry).status().code(), code(kind, status), "{name}");
    }
    rig.create_pair(GUEST, 1, 16);
    assert_eq!(rig.command(GUEST, 1, zeroes(0)).status(), Status::SUCCESS, "created again");
}

#[test]
fn deleting_a_submission_queue_ends_what_was_fetched() {
    let mut rig = rig();
    rig.create_pair(GUEST, 1, 16);
    let commands: Vec<_> = (0..3).map(|lba| rig.submit(GUEST, 1, zeroes(lba))).collect();
    let delete = rig.submit(GUEST, 0, DeleteIoSubmissionQueue { queue: QueueId::new(1) }.encode());
    rig.subsystem.fetch(8);
    rig.subsystem.execute(1);
    rig.run();
    assert_eq!(rig.take(GUEST, 0, delete).unwrap().status(), Status::SUCCESS);
    for command in commands {
        let status = rig.take(GUEST, 1, command).expect("completed before the deletion").status();
        assert!(status.is_success() || status.code() == code(0, 0x08), "{status}");
    }
}

#[test]
fn queues_may_lie_in_pages_named_by_a_list() {
    for entries in [2, 64, 65, 300, 1024] {
        let mut rig = rig();
        let memory = rig.memories[GUEST].clone();
        let scattered = |slot: u64| {
            let pages = (entries * slot).div_ceil(PAGE);
            let mut bases: Vec<u64> = (0..pages).map(|_| memory.allocate(PAGE).get()).collect();
            bases.reverse();
            bases
        };
        let (completions, submissions) = (scattered(16), scattered(64));
        let mut completion = create_completion(1, entries as u32, Some(1));
        completion.contiguous = false;
        let list = list_of(&memory, &completions);
        let entry = completion.encode().with_prps(list, BusAddr::new(0));
        assert_eq!(rig.command(GUEST, 0, entry).status(), Status::SUCCESS);
        let mut submission = create_submission(1, entries as u32, 1);
        submission.contiguous = false;
        let list = list_of(&memory, &submissions);
        let entry = submission.encode().with_prps(list, BusAddr::new(0));
        assert_eq!(rig.command(GUEST, 0, entry).status(), Status::SUCCESS);
        let at = |pages: &[u64], offset: u64| BusAddr::new(pages[(offset / PAGE) as usize] + offset % PAGE);
        for number in 0..entries * 2 + 3 {
            let slot = number % entries;
            let command = zeroes(number % 2048).with_command_id(CommandId::new(number as u16));
            memory.put(at(&submissions, slot * 64), zerocopy::IntoBytes::as_bytes(&command));
            rig.write32(GUEST, 0x1008, ((number + 1) % entries) as u32);
            rig.run();
            let done = memory.get(at(&completions, slot * 16), 16);
            assert_eq!(u16::from_le_bytes([done[12], done[13]]), number as u16, "{number} of {entries}");
            assert_eq!(u64::from(done[14] & 1), 1 - number / entries % 2, "tag of {number} of {entries}");
            rig.write32(GUEST, 0x100C, ((number + 1) % entries) as u32);
        }
    }
}

#[test]
fn several_submission_queues_share_a_completion_queue_and_none_starves() {
    let mut rig = rig();
    rig.create_pair(GUEST, 1, 8);
    let second = rig.allocate(GUEST, PAGE);
    let entry = create_submission(2, 8, 1).encode().with_prps(second, BusAddr::new(0));
    assert_eq!(rig.command(GUEST, 0, entry).status(), Status::SUCCESS);
    let mut pair = rig.pairs[GUEST][&1].clone();
    pair.submission = second;
    pair.next_command = 100;
    rig.pairs[GUEST].insert(2, pair);
    for lba in 0..7 {
        rig.submit(GUEST, 1, zeroes(lba));
        rig.place(GUEST, 2, zeroes(lba));
    }
    rig.ring(GUEST, 2);
    let mut seen = [0_u32; 2];
    for _ in 0..40 {
        rig.run();
        rig.collect(GUEST, 1);
        while let Some((_, entry)) = rig.arrived[GUEST].pop_front() {
            seen[usize::from(entry.submission_queue().get()) - 1] += 1;
        }
    }
    assert_eq!(seen, [7, 7]);
}

#[test]
fn a_command_identifier_in_use_is_refused() {
    let mut rig = rig();
    rig.create_pair(GUEST, 1, 16);
    let pair = rig.pairs[GUEST].get_mut(&1).unwrap();
    pair.next_command = 5;
    rig.submit(GUEST, 1, zeroes(0));
    rig.pairs[GUEST].get_mut(&1).unwrap().next_command = 5;
    rig.submit(GUEST, 1, zeroes(1));
    rig.run();
    rig.collect(GUEST, 1);
    let mut statuses: Vec<_> = rig.arrived[GUEST].iter().map(|(_, entry)| entry.status().code()).collect();
    statuses.sort();
    assert_eq!(statuses, [code(0, 0), code(0, 0x03)]);

    let request = rig.submit(GUEST, 0, AsynchronousEventRequest.encode());
    rig.run();
    rig.pairs[GUEST].get_mut(&0).unwrap().next_command = request.get();
    rig.submit(GUEST, 0, AsynchronousEventRequest.encode());
    rig.run();
    assert_eq!(
        rig.take(GUEST, 0, request).unwrap().status().code(),
        code(0, 0x03),
        "an outstanding request counts"
    );
}

#[test]
fn abort_ends_what_has_not_begun() {
    let mut rig = rig();
    rig.create_pair(GUEST, 1, 16);
    let request = rig.submit(GUEST, 0, AsynchronousEventRequest.encode());
    rig.run();
    let command = rig.submit(GUEST, 1, zeroes(0));
    for (name, queue, target, aborted) in [
        ("command under way", 1, command, true),
        ("unknown command", 1, CommandId::new(999), false),
        ("unknown queue", 7, command, false),
        ("event request", 0, request, true),
        ("event request again", 0, request, false),
    ] {
        let abort = rig.submit(GUEST, 0, Abort { queue: QueueId::new(queue), command: target }.encode());
        rig.run();
        let completion = rig.take(GUEST, 0, abort).unwrap();
        assert_eq!(completion.status(), Status::SUCCESS, "{name}");
        assert_eq!(Abort::was_aborted(completion.dw0()), aborted, "{name}");
    }
    assert_eq!(rig.take(GUEST, 1, command).unwrap().status().code(), code(0, 0x07));
    assert_eq!(rig.take(GUEST, 0, request).unwrap().status().code(), code(0, 0x07));
}

#[test]
fn more_aborts_than_the_limit() {
    let subsystem = SubsystemConfig { abort_limit: 2, ..Options::default().subsystem };
    let mut rig = with(Options { subsystem, ..Options::default() });
    let abort = Abort { queue: QueueId::new(1), command: CommandId::new(1) };
    let commands: Vec<_> = (0..3).map(|_| rig.submit(GUEST, 0, abort.encode())).collect();
    rig.subsystem.fetch(8);
    rig.run();
    let refused = commands
        .into_iter()
        .filter(|command| rig.take(GUEST, 0, *command).unwrap().status().code() == code(1, 0x03))
        .count();
    assert_eq!(refused, 1);
}

#[test]
fn more_event_requests_than_the_limit() {
    let mut rig = rig();
    for _ in 0..4 {
        let request = rig.submit(GUEST, 0, AsynchronousEventRequest.encode());
        rig.run();
        assert_eq!(rig.take(GUEST, 0, request), None);
    }
    let request = rig.submit(GUEST, 0, AsynchronousEventRequest.encode());
    rig.run();
    assert_eq!(rig.take(GUEST, 0, request).unwrap().status().code(), code(1, 0x05));
    assert_eq!(
        rig.command(GUEST, 0, Abort { queue: QueueId::new(0), command: request }.encode()).status(),
        Status::SUCCESS
    );
}

#[test]
fn doorbells_that_cannot_be_raise_error_events_masked_until_the_log_is_read() {
    // Queue 1 of 8 entries with three commands executed and not consumed.
    for (name, offset, value, information) in [
        ("submission queue that does not exist", 0x1000 + 4 * 8, 1, 0),
        ("completion queue that does not exist", 0x1004 + 4 * 8, 1, 0),
        ("far away", 0x1000 + 0x8_0000, 1, 0),
        ("tail outside", 0x1008, 8, 1),
        ("tail overfull", 0x1008, 3, 2),
        ("head outside", 0x100C, 8, 1),
        ("head past the tail", 0x100C, 4, 1),
        ("head unchanged", 0x100C, 0, 1),
    ] {
        let mut rig = rig();
        rig.create_pair(GUEST, 1, 8);
        (0..3).for_each(|lba| {
            rig.submit(GUEST, 1, zeroes(lba));
        });
        rig.run();
        let first = rig.submit(GUEST, 0, AsynchronousEventRequest.encode());
        let second = rig.submit(GUEST, 0, AsynchronousEventRequest.encode());
        rig.run();
        rig.write32(GUEST, offset, value);
        rig.run();
        if information == 2 {
            assert_eq!(rig.take(GUEST, 0, first), None, "{name}: the same tail again is none");
            continue;
        }
        let event = AsynchronousEvent::from_completion(&rig.take(GUEST, 0, first).expect(name));
        assert_eq!(
            (event.kind, event.information, event.log_page),
            (EventType::ERROR, information, 1),
            "{name}"
        );
        rig.write32(GUEST, 0x1000 + 4 * 8, 1);
        rig.run();
        assert_eq!(rig.take(GUEST, 0, second), None, "{name}: masked");
        let log =
            |retain_event| GetLogPage { retain_event, ..GetLogPage::new(LogPageId::ERROR_INFORMATION, 16) };
        assert_eq!(rig.admin_data(GUEST, &log(true), &[0; 64]).0.status(), Status::SUCCESS);
        rig.run();
        assert_eq!(rig.take(GUEST, 0, second), None, "{name}: retained");
        assert_eq!(rig.admin_data(GUEST, &log(false), &[0; 64]).0.status(), Status::SUCCESS);
        rig.write32(GUEST, 0x1000 + 4 * 8, 1);
        rig.run();
        assert!(rig.take(GUEST, 0, second).is_some(), "{name}: reported again");
    }
}

#[test]
fn a_queue_with_an_invalid_doorbell_is_unusable_until_it_is_created_again() {
    let mut rig = rig();
    rig.create_pair(GUEST, 1, 8);
    rig.write32(GUEST, 0x1008, 8);
    let command = rig.submit(GUEST, 1, zeroes(0));
    rig.run();
    assert_eq!(rig.take(GUEST, 1, command), None);
    for entry in [
        DeleteIoSubmissionQueue { queue: QueueId::new(1) }.encode(),
        DeleteIoCompletionQueue { queue: QueueId::new(1) }.encode(),
    ] {
        assert_eq!(rig.command(GUEST, 0, entry).status(), Status::SUCCESS);
    }
    rig.create_pair(GUEST, 1, 8);
    assert_eq!(rig.command(GUEST, 1, zeroes(0)).status(), Status::SUCCESS);
}

#[test]
fn number_of_queues_once_and_before_any_queue() {
    let command = |submission, completion| NumberOfQueues { submission, completion }.to_set_features();
    let mut rig = rig();
    assert_eq!(rig.admin_ok(GUEST, &command(100, 2)), 0x0001_0003, "four pairs there are");
    assert_eq!(rig.admin(GUEST, &command(1, 1)).status().code(), code(0, 0x0C), "a second time");

    let mut rig = self::rig();
    rig.create_pair(GUEST, 1, 8);
    assert_eq!(rig.admin(GUEST, &command(1, 1)).status().code(), code(0, 0x0C), "after a queue was created");

    let mut rig = self::rig();
    let mut illegal = command(1, 1);
    illegal.dword11 = 0xFFFF;
    assert_eq!(rig.admin(GUEST, &illegal).status().code(), code(0, 0x02), "65,536 queues");
    illegal.dword11 = 0xFFFF_0000;
    assert_eq!(rig.admin(GUEST, &illegal).status().code(), code(0, 0x02));
}

#[test]
fn page_sizes_other_than_four_kibibytes() {
    for shift in 12..=16_u32 {
        let mut rig = Rig::new();
        let page = 1_u64 << shift;
        let memory = rig.memories[GUEST].clone();
        let aligned = |bytes: u64| BusAddr::new(memory.allocate(bytes + page).get().next_multiple_of(page));
        let (submission, completion) = (aligned(page), aligned(page));
        rig.enable(GUEST);
        rig.write32(GUEST, 0x14, 0);
        rig.write64(GUEST, 0x28, submission.get());
        rig.write64(GUEST, 0x30, completion.get());
        rig.write32(GUEST, 0x14, 0x0046_0001 | ((shift - 12) << 7));
        assert_eq!(rig.read32(GUEST, 0x1C), 1, "page 2^{shift}");
        let pair = rig.pairs[GUEST].get_mut(&0).unwrap();
        (pair.submission, pair.completion) = (submission, completion);
        // Data over three pages: the first from its middle on, the others by a list.
        let bytes = page + page / 2 + 512;
        let blocks = (bytes / 512) as u32;
        let (first, second, third) = (aligned(page), aligned(page), aligned(page));
        let list = aligned(page);
        memory.put_list(list, &[second.get(), third.get()]);
        let data = pattern(blocks as usize, shift as u8);
        let (a, rest) = data.split_at((page / 2) as usize);
        let (b, c) = rest.split_at(page as usize);
        memory.put(first.plus(page / 2), a);
        memory.put(second, b);
        memory.put(third, c);
        let queues = (aligned(page), aligned(page));
        let entry = create_completion(1, 8, None).encode().with_prps(queues.0, queues.0);
        assert_eq!(rig.command(GUEST, 0, entry).status(), Status::SUCCESS);
        let entry = create_submission(1, 8, 1).encode().with_prps(queues.1, queues.1);
        assert_eq!(rig.command(GUEST, 0, entry).status(), Status::SUCCESS);
        let mut pair = rig.pairs[GUEST][&0].clone();
        (pair.completion, pair.submission) = queues;
        (pair.submission_entries, pair.completion_entries, pair.tail, pair.head, pair.phase) =
            (8, 8, 0, 0, true);
        rig.pairs[GUEST].insert(1, pair);
        let write = Write::new(NSID, Lba::new(1), blocks).encode().with_prps(first.plus(page / 2), list);
        assert_eq!(rig.command(GUEST, 1, write).status(), Status::SUCCESS, "page 2^{shift}");
        assert!(rig.media(0, 1, u64::from(blocks)) == data, "page 2^{shift}");
        let read = Read::new(NSID, Lba::new(1), 1).encode().with_prps(third, list);
        assert_eq!(rig.command(GUEST, 1, read).status(), Status::SUCCESS);
        assert_eq!(memory.get(third, 512), data[..512]);
    }
}

// SPDX-License-Identifier: MIT OR Apache-2.0
//! What a guest sees of a migration: draining, silence while suspended, and going on at the destination with the same
//! queues, heads, tails and phases.

mod harness;

use harness::lm::suspend_command;
use harness::{BLOCK, GUEST, MANAGER, NSID, Options, PAGE, Rig, code, pattern};
use nvme_core::wire::admin::{
    AsynchronousEventRequest, FeatureSelect, GetFeatures, Identify, IdentifyStructure,
};
use nvme_core::wire::feature::{AsynchronousEventConfiguration, FeatureId, NumberOfQueues};
use nvme_core::wire::nvm::{Read, Write, WriteZeroes};
use nvme_core::wire::{AsynchronousEvent, Command, EventType, Lba, Status, SubmissionQueueEntry};

fn rig() -> Rig {
    with(Options::default())
}

fn with(options: Options) -> Rig {
    let mut rig = Rig::with(options);
    rig.enable(MANAGER);
    rig.enable(GUEST);
    rig
}

fn zeroes(lba: u64) -> SubmissionQueueEntry {
    WriteZeroes::new(NSID, Lba::new(lba), 1).encode()
}

#[test]
fn r9_suspend_completes_when_everything_fetched_has_completed() {
    let mut rig = rig();
    rig.create_pair(GUEST, 1, 32);
    let mut queue = rig.data_queue(GUEST, 32);
    assert_eq!(rig.log(&queue, true).status(), Status::SUCCESS);
    for lba in 0..5 {
        rig.submit(GUEST, 1, zeroes(lba));
    }
    rig.subsystem.fetch(64);
    rig.submit(GUEST, 1, zeroes(5));
    let suspend = rig.submit(MANAGER, 0, suspend_command(GUEST, false).encode());
    // The manager's command is fetched, and from then on the guest's queue is left alone.
    let mut polls = 0;
    let completion = loop {
        polls += 1;
        rig.subsystem.poll(1);
        if let Some(completion) = rig.take(MANAGER, 0, suspend) {
            break completion;
        }
        assert!(polls < 20, "the suspend completes");
    };
    assert_eq!(completion.status(), Status::SUCCESS);
    assert!(polls >= 5, "one command each poll: {polls}");
    let said = rig.said(&mut queue);
    assert_eq!(said.last().map(String::as_str), Some("suspended -"));
    let changes = said.iter().filter(|entry| entry.starts_with("1:")).count();
    rig.collect(GUEST, 1);
    assert_eq!(
        rig.arrived[GUEST].len(),
        changes,
        "what completed was logged before the marker, and nothing else"
    );
    assert!((5..=6).contains(&changes));
}

#[test]
fn r7_a_suspended_controller_neither_reads_nor_writes_host_memory_nor_interrupts() {
    let mut rig = rig();
    rig.create_pair(GUEST, 1, 32);
    assert_eq!(rig.suspend(GUEST, false).status(), Status::SUCCESS);
    rig.memories[GUEST].clear_trace();
    rig.lines.0.borrow_mut().clear();
    let io = rig.submit(GUEST, 1, zeroes(0));
    let admin = rig.submit(GUEST, 0, Identify::new(IdentifyStructure::CONTROLLER).encode());
    let request = rig.submit(GUEST, 0, AsynchronousEventRequest.encode());
    // A doorbell that cannot be raises an event, which has to wait as well.
    rig.write32(GUEST, 0x1000 + 9 * 8, 1);
    rig.run();
    assert!(rig.memories[GUEST].trace().is_empty());
    assert!(!rig.lines.0.borrow().iter().any(|(id, _)| *id == harness::id_of(GUEST)));
    assert_eq!(rig.read32(GUEST, 0x1C), 1, "its properties can be read");

    assert_eq!(rig.resume(GUEST).status(), Status::SUCCESS);
    rig.run();
    assert_eq!(rig.take(GUEST, 1, io).unwrap().status(), Status::SUCCESS, "doorbells were latched");
    assert!(rig.take(GUEST, 0, admin).is_some(), "the admin queue goes on as well");
    let event = AsynchronousEvent::from_completion(&rig.take(GUEST, 0, request).unwrap());
    assert_eq!((event.kind, event.information), (EventType::ERROR, 0));
}

#[test]
fn a_full_completion_queue_delays_no_suspend_and_loses_nothing() {
    let mut rig = rig();
    rig.create_pair(GUEST, 1, 4);
    let memory = rig.memories[GUEST].clone();
    // Three slots: the fourth command finds none and stays in its queue.
    let first: Vec<_> = (0..3).map(|lba| rig.submit(GUEST, 1, zeroes(lba))).collect();
    rig.run();
    let fourth = rig.submit(GUEST, 1, zeroes(3));
    rig.run();
    let slot = memory.get(rig.pairs[GUEST][&1].completion.plus(3 * 16), 16);
    assert_eq!(slot, [0; 16], "nothing is posted over what was not consumed");
    assert_eq!(rig.suspend(GUEST, false).status(), Status::SUCCESS);
    for command in first {
        assert!(rig.take(GUEST, 1, command).is_some());
    }
    assert_eq!(rig.resume(GUEST).status(), Status::SUCCESS);
    rig.run();
    assert_eq!(rig.take(GUEST, 1, fourth).unwrap().status(), Status::SUCCESS);
}

#[test]
fn asynchronous_event_requests_stay_outstanding_over_a_suspend() {
    let mut rig = rig();
    let request = rig.submit(GUEST, 0, AsynchronousEventRequest.encode());
    rig.run();
    assert_eq!(rig.suspend(GUEST, false).status(), Status::SUCCESS);
    assert_eq!(rig.resume(GUEST).status(), Status::SUCCESS);
    rig.run();
    assert_eq!(rig.take(GUEST, 0, request), None);
    rig.write32(GUEST, 0x1000 + 9 * 8, 1);
    rig.run();
    assert!(rig.take(GUEST, 0, request).is_some());
}

/// Moves the guest from `source` to `destination`: its memory is the same on both sides.
fn move_guest(source: &mut Rig, destination: &mut Rig, vendor: bool) {
    assert_eq!(source.suspend(GUEST, false).status(), Status::SUCCESS);
    let image = source.state(GUEST, vendor);
    assert_eq!(destination.suspend(GUEST, false).status(), Status::SUCCESS);
    let status = destination.set_state(GUEST, &image, vendor).status();
    assert_eq!(status, Status::SUCCESS, "{status}");
    assert_eq!(destination.state(GUEST, vendor), image, "what was set can be read again");
    destination.pairs[GUEST] = source.pairs[GUEST].clone();
    destination.arrived[GUEST] = source.arrived[GUEST].clone();
    assert_eq!(destination.resume(GUEST).status(), Status::SUCCESS);
}

/// Two rigs whose guests share their memory; the destination's guest controller is not enabled.
fn two() -> (Rig, Rig) {
    let source = rig();
    let memory = source.memories[GUEST].clone();
    let mut destination = Rig::with_guest_memory(Options::default(), memory);
    destination.enable(MANAGER);
    (source, destination)
}

#[test]
fn r10_a_guest_goes_on_with_queues_heads_tails_phases_and_properties() {
    for before in [0, 1, 6, 7, 8, 15] {
        let (mut source, mut destination) = two();
        let granted = NumberOfQueues { submission: 2, completion: 2 };
        assert_eq!(source.admin_ok(GUEST, &granted.to_set_features()), granted.dword());
        let events = AsynchronousEventConfiguration::from_bits_retain(0x1FF);
        source.admin_ok(GUEST, &events.to_set_features());
        source.create_pair(GUEST, 1, 8);
        source.create_pair_with(GUEST, 2, 16, None);
        let request = source.submit(GUEST, 0, AsynchronousEventRequest.encode());
        for lba in 0..before {
            let (entry, _) =
                source.io_data(GUEST, 1, &Write::new(NSID, Lba::new(lba), 1), &pattern(1, lba as u8));
            assert_eq!(entry.status(), Status::SUCCESS);
        }
        // Commands that are queued but not fetched, in every queue.
        assert_eq!(source.suspend(GUEST, false).status(), Status::SUCCESS);
        let data = pattern(1, 77);
        let (prp1, prp2, _) = source.buffer(GUEST, &data);
        let write = Write::new(NSID, Lba::new(100), 1).encode().with_prps(prp1, prp2);
        let queued = source.submit(GUEST, 1, write);
        let other = source.submit(GUEST, 2, zeroes(7));
        let features = GetFeatures::new(FeatureId::NUMBER_OF_QUEUES, FeatureSelect::Current);
        let admin = source.submit(GUEST, 0, features.encode());
        move_guest(&mut source, &mut destination, true);
        destination.run();
        for (queue, command) in [(1, queued), (2, other)] {
            let entry = destination.take(GUEST, queue, command).expect("completes on the destination");
            assert_eq!(entry.status(), Status::SUCCESS);
            assert_eq!(u32::from(entry.submission_head()), destination.pairs[GUEST][&queue].tail);
        }
        assert_eq!(destination.take(GUEST, 0, admin).unwrap().dw0(), granted.dword(), "features came along");
        assert_eq!(destination.media(0, 100, 1), data);
        assert_eq!(source.media(0, 100, 1), vec![0; BLOCK], "the source did not run meanwhile");
        for offset in [0x14, 0x1C, 0x24, 0x28, 0x2C, 0x30, 0x34] {
            assert_eq!(
                source.read32(GUEST, offset),
                destination.read32(GUEST, offset),
                "property {offset:#x}"
            );
        }
        let configured =
            GetFeatures::new(FeatureId::ASYNCHRONOUS_EVENT_CONFIGURATION, FeatureSelect::Current);
        assert_eq!(destination.admin_ok(GUEST, &configured), 0x1FF);
        destination.write32(GUEST, 0x1000 + 9 * 8, 1);
        destination.run();
        assert!(destination.take(GUEST, 0, request).is_some(), "the request is outstanding there");
        for lba in 0..20 {
            let (entry, read) =
                destination.io_data(GUEST, 1, &Read::new(NSID, Lba::new(100), 1), &vec![0; BLOCK]);
            assert_eq!((entry.status(), read), (Status::SUCCESS, data.clone()), "read {lba}");
        }
    }
}

#[test]
fn unconsumed_completions_move_with_their_queue() {
    let (mut source, mut destination) = two();
    source.create_pair(GUEST, 1, 8);
    let commands: Vec<_> = (0..5).map(|lba| source.submit(GUEST, 1, zeroes(lba))).collect();
    source.run();
    destination.lines.0.borrow_mut().clear();
    move_guest(&mut source, &mut destination, true);
    let more: Vec<_> = (0..4).map(|lba| destination.submit(GUEST, 1, zeroes(lba))).collect();
    destination.run();
    assert!(
        destination.lines.0.borrow().contains(&(harness::id_of(GUEST), 1)),
        "the guest is told of completions it may not have been interrupted for"
    );
    for command in commands {
        assert!(destination.take(GUEST, 1, command).is_some());
    }
    destination.run();
    for command in more {
        assert!(destination.take(GUEST, 1, command).is_some());
    }
}

#[test]
fn r21_queue_addresses_mean_the_guests_address_space() {
    let (mut source, _) = two();
    source.create_pair(GUEST, 1, 8);
    assert_eq!(source.suspend(GUEST, false).status(), Status::SUCCESS);
    let queued = source.submit(GUEST, 1, zeroes(0));
    let image = source.state(GUEST, true);
    // A destination whose guest lives in another address space finds nothing at these addresses.
    let mut stranger = Rig::new();
    stranger.enable(MANAGER);
    assert_eq!(stranger.suspend(GUEST, false).status(), Status::SUCCESS);
    assert_eq!(
        stranger.set_state(GUEST, &image, true).status(),
        Status::SUCCESS,
        "contiguous queues are not looked at"
    );
    assert_eq!(stranger.resume(GUEST).status(), Status::SUCCESS);
    stranger.run();
    assert_eq!(stranger.read32(GUEST, 0x1C) & 2, 2, "the fetch fails, and that is fatal");
    assert_eq!(source.resume(GUEST).status(), Status::SUCCESS);
    source.run();
    assert!(source.take(GUEST, 1, queued).is_some(), "the source can still go on");
}

#[test]
fn without_a_vendor_part_the_host_prepares_the_target() {
    let (mut source, mut destination) = two();
    source.create_pair(GUEST, 1, 8);
    let commands: Vec<_> = (0..3).map(|lba| source.submit(GUEST, 1, zeroes(lba))).collect();
    source.run();
    assert_eq!(source.suspend(GUEST, false).status(), Status::SUCCESS);
    // The admin queue is set up anew by the host.
    destination.enable(GUEST);
    let admin = destination.pairs[GUEST][&0].clone();
    source.pairs[GUEST].insert(0, admin);
    move_guest(&mut source, &mut destination, false);
    let fourth = destination.submit(GUEST, 1, zeroes(9));
    destination.run();
    for command in commands.into_iter().chain([fourth]) {
        assert!(destination.take(GUEST, 1, command).is_some());
    }
}

#[test]
fn queues_in_prp_lists_move_too() {
    let (mut source, mut destination) = two();
    let memory = source.memories[GUEST].clone();
    let pages: Vec<u64> = (0..4).map(|_| memory.allocate(PAGE).get()).collect();
    let list = harness::list_of(&memory, &pages);
    let mut completion = harness::create_completion(1, 600, Some(1));
    completion.contiguous = false;
    let entry = completion.encode().with_prps(list, list);
    assert_eq!(source.command(GUEST, 0, entry).status(), Status::SUCCESS);
    let submission = memory.allocate(64 * 64);
    let entry = harness::create_submission(1, 64, 1).encode().with_prps(submission, submission);
    assert_eq!(source.command(GUEST, 0, entry).status(), Status::SUCCESS);
    let put = |at: u64, rig: &mut Rig| {
        memory.put(submission.plus(at % 64 * 64), zerocopy::IntoBytes::as_bytes(&zeroes(at)));
        rig.write32(GUEST, 0x1008, ((at + 1) % 64) as u32);
        rig.run();
    };
    for at in 0..255 {
        put(at, &mut source);
        if at % 16 == 15 {
            source.write32(GUEST, 0x100C, at as u32);
        }
    }
    move_guest(&mut source, &mut destination, true);
    for at in 255..300 {
        put(at, &mut destination);
    }
    let slot = |at: u64| BusSlot(pages[(at * 16 / PAGE) as usize] + at * 16 % PAGE).read(&memory);
    assert_eq!(slot(254) & 1, 1);
    assert_eq!(slot(299) & 1, 1, "completions go on in the next page of the list");
    assert_eq!(slot(300) & 1, 0);
}

struct BusSlot(u64);

impl BusSlot {
    fn read(&self, memory: &harness::Memory) -> u8 {
        memory.get(nvme_core::wire::BusAddr::new(self.0), 16)[14]
    }
}

#[test]
fn waiting_events_and_masks_move_along() {
    let (mut source, mut destination) = two();
    let first = source.submit(GUEST, 0, AsynchronousEventRequest.encode());
    source.run();
    source.write32(GUEST, 0x1000 + 9 * 8, 1);
    source.run();
    assert!(source.take(GUEST, 0, first).is_some());
    let second = source.submit(GUEST, 0, AsynchronousEventRequest.encode());
    source.write32(GUEST, 0x1000, 99);
    source.write32(GUEST, 0x1000 + 9 * 8, 1);
    source.run();
    assert_eq!(source.take(GUEST, 0, second), None, "error events are masked");
    assert_eq!(source.suspend(GUEST, false).status(), Status::SUCCESS);
    move_guest(&mut source, &mut destination, true);
    destination.run();
    assert_eq!(destination.take(GUEST, 0, second), None, "the mask came along");
}

#[test]
fn a_disabled_guest_moves_as_a_disabled_one() {
    let (mut source, mut destination) = two();
    source.write32(GUEST, 0x14, 0);
    move_guest(&mut source, &mut destination, true);
    assert_eq!(destination.read32(GUEST, 0x1C), 0);
    assert_eq!(destination.read32(GUEST, 0x24), source.read32(GUEST, 0x24));
}

/// What is done to the vendor part (which starts at `at`) and the status it must get.
#[test]
fn r19_every_field_of_the_vendor_part_is_checked() {
    type Spoil = fn(&mut [u8]);
    let rows: [(&str, Spoil, u8, u8); 30] = [
        ("as it is", |_| {}, 0, 0x00),
        ("version", |part| part[0] = 2, 0, 0x02),
        ("unknown flag", |part| part[2] |= 0x80, 0, 0x02),
        ("length", |part| part[4] ^= 4, 0, 0x02),
        ("not ready, with an admin queue", |part| part[2] &= !1, 0, 0x02),
        ("CC not enabled but ready", |part| part[8] &= !1, 0, 0x02),
        ("CC reserved bits", |part| part[11] = 0x80, 0, 0x02),
        ("CC.MPS too large", |part| part[9] |= 7, 0, 0x02),
        ("CC.CSS unknown", |part| part[8] |= 0x30, 0, 0x02),
        ("CC.AMS", |part| part[9] |= 0x08, 0, 0x02),
        ("AQA reserved bits", |part| part[13] |= 0xF0, 0, 0x02),
        ("admin submission queue of one entry", |part| part[12] = 0, 0, 0x02),
        ("admin completion queue of one entry", |part| part[14] = 0, 0, 0x02),
        ("ASQ offset", |part| part[17] |= 1, 0, 0x02),
        ("ACQ offset", |part| part[24] |= 1, 0, 0x02),
        ("admin submission head", |part| part[36] = 16, 0, 0x02),
        ("admin submission tail", |part| part[38] = 16, 0, 0x02),
        ("admin completion head", |part| part[40] = 16, 0, 0x02),
        ("admin completion tail", |part| part[42] = 16, 0, 0x02),
        ("more queues than there are", |part| part[44] = 9, 1, 0x38),
        ("queues that were never set", |part| part[2] &= !0x10, 0, 0x02),
        ("power state", |part| part[52] = 1, 0, 0x02),
        ("interrupt coalescing", |part| part[62] = 1, 0, 0x02),
        ("keep alive without a timer", |part| part[68] = 1, 0, 0x02),
        ("host behavior", |part| part[72] = 2, 0, 0x02),
        ("masked one-shot events", |part| part[80] = 0x10, 0, 0x02),
        ("reserved byte", |part| part[90] = 1, 0, 0x02),
        ("the same request twice", |part| part[98] = part[96], 0, 0x02),
        ("event of a type that never waits", |part| part[100] = 4, 0, 0x02),
        ("reserved byte of an event", |part| part[103] = 1, 0, 0x02),
    ];
    for (name, spoil, kind, status) in rows {
        let (mut source, mut destination) = two();
        let granted = NumberOfQueues { submission: 2, completion: 2 };
        source.admin_ok(GUEST, &granted.to_set_features());
        source.create_pair(GUEST, 1, 8);
        // Two requests outstanding and one event that is masked.
        for _ in 0..3 {
            source.submit(GUEST, 0, AsynchronousEventRequest.encode());
        }
        source.run();
        source.write32(GUEST, 0x1000 + 9 * 8, 1);
        source.run();
        source.write32(GUEST, 0x1000 + 9 * 8, 1);
        source.run();
        assert_eq!(source.suspend(GUEST, false).status(), Status::SUCCESS);
        let mut image = source.state(GUEST, true);
        let at = 48 + 8 + 48;
        assert_eq!(image.len() - at, 96 + 4 + 8, "two requests and one event");
        spoil(&mut image[at..]);
        assert_eq!(destination.suspend(GUEST, false).status(), Status::SUCCESS);
        let before = destination.state(GUEST, true);
        let entry = destination.set_state(GUEST, &image, true);
        assert_eq!(entry.status().code(), code(kind, status), "{name}");
        if status != 0 {
            assert_eq!(destination.state(GUEST, true), before, "{name}: nothing is changed");
        }
    }
}

#[test]
fn more_requests_or_events_than_the_target_has_room_for() {
    let (mut source, _) = two();
    for _ in 0..4 {
        source.submit(GUEST, 0, AsynchronousEventRequest.encode());
    }
    source.run();
    assert_eq!(source.suspend(GUEST, false).status(), Status::SUCCESS);
    let image = source.state(GUEST, true);
    let state = Some(4096);
    let mut destination = Rig::with(Options { requests: 3, state, ..Options::default() });
    destination.enable(MANAGER);
    assert_eq!(destination.suspend(GUEST, false).status(), Status::SUCCESS);
    assert_eq!(destination.set_state(GUEST, &image, true).status().code(), code(1, 0x38));
}

// SPDX-License-Identifier: MIT OR Apache-2.0
//! The vendor-specific part of a state when it is committed: all of it or nothing, with what was under way at the
//! source going on. NVMe Base 2.1 §5.1.17.1.3, Set Controller State.

use crate::get_controller_state::destination;
use crate::harness::image::Image;
use crate::harness::sqe;
use crate::harness::status::*;
use crate::harness::*;

const BOTH: (u8, u8) = (1, 1);

/// A source whose guest is suspended, and its state.
fn source(prepare: impl FnOnce(&mut World)) -> (World, Image) {
    let mut source = World::new();
    prepare(&mut source);
    source.admin(MANAGER, sqe::suspend(GUEST_ID)).ok();
    let bytes = source.get_image(MANAGER, GUEST_ID, BOTH);
    (source, Image::parse(&bytes))
}

fn commit(target: &mut World, image: &Image) -> Code {
    target.set_image(MANAGER, GUEST_ID, BOTH, &image.bytes()).code
}

#[test]
fn a_shutdown_in_progress_goes_on_at_the_destination() {
    for (name, notification, flushed) in [("none", 0, false), ("normal", 1, true), ("abrupt", 2, false)] {
        let (source, mut image) = source(|_| {});
        image.vendor[8..12].copy_from_slice(&(ENABLE | (notification << 14)).to_le_bytes());
        let mut target = destination(&source);
        target.admin(MANAGER, sqe::suspend(GUEST_ID)).ok();
        let flushes = target.disk(NSID).flushes();
        assert_eq!(commit(&mut target, &image), SUCCESS, "{name}");
        target.admin(MANAGER, sqe::resume(GUEST_ID)).ok();
        let complete = if notification == 0 { 0 } else { 2 << 2 };
        assert_eq!(target.read32(GUEST, CSTS) & 0xC, complete, "{name}: CSTS.SHST");
        assert_eq!(target.disk(NSID).flushes() > flushes, flushed, "{name}: flush");
    }
}

#[test]
fn a_list_that_changes_during_the_commit_leaves_nothing_behind() {
    let (mut committed, mut refused) = (0, 0);
    for reads in 0..16 {
        let (source, mut image) = source(|_| {});
        let guest = source.hosts[GUEST].clone();
        let list = guest.page_list(&[guest.allocate(4096)]);
        let pair = Image::one_pair(list, guest.allocate(4096));
        image.submission = pair.submission;
        image.completion = pair.completion;
        image.submission[0].attributes &= !1;
        let mut target = destination(&source);
        target.admin(MANAGER, sqe::suspend(GUEST_ID)).ok();
        let before = target.get_image(MANAGER, GUEST_ID, BOTH);
        let registers = [CC, AQA, ASQ, ACQ].map(|offset| target.read32(GUEST, offset));
        target.memory(GUEST).fail_reads_after(list, 4096, reads);
        if commit(&mut target, &image) == SUCCESS {
            committed += 1;
            continue;
        }
        refused += 1;
        target.memory(GUEST).mend();
        assert_eq!(target.get_image(MANAGER, GUEST_ID, BOTH), before, "after {reads} reads");
        assert_eq!([CC, AQA, ASQ, ACQ].map(|offset| target.read32(GUEST, offset)), registers);
    }
    assert!(committed > 0 && refused > 1, "the list is read more than once");
}

#[test]
fn commands_are_fetched_at_once_whichever_queue_had_its_turn_before() {
    for turns in 0..8 {
        let (mut source, image) = source(|_| {});
        let queued = source.submit(GUEST, 0, sqe::get_features(0x01, 0));
        let mut target = destination(&source);
        for queue in 1..=4 {
            target.create_pair(GUEST, queue, 4);
        }
        for queue in 1..=4 {
            target.admin(GUEST, sqe::delete_sq(queue)).ok();
            target.admin(GUEST, sqe::delete_cq(queue)).ok();
        }
        target.budget = 1;
        for _ in 0..turns {
            target.admin(GUEST, sqe::get_features(0x01, 0)).ok();
        }
        target.admin(MANAGER, sqe::suspend(GUEST_ID)).ok();
        let tail = source.hosts[GUEST].submission[&0].tail;
        target.hosts[GUEST] = source.hosts[GUEST].clone();
        assert_eq!(commit(&mut target, &image), SUCCESS);
        target.write32(GUEST, 0x1000, tail);
        target.submit(MANAGER, 0, sqe::resume(GUEST_ID));
        target.subsystem.poll(64);
        assert_eq!(target.subsystem.fetch(64), 1, "after {turns} turns");
        target.run();
        target.hosts[GUEST].take(0, queued).expect("the queued command completes").ok();
    }
}

#[test]
fn r19_what_the_destination_has_no_room_for_is_a_lack_of_resources() {
    type Change = fn(&mut Image);
    let rows: [(&str, Change, Code); 5] = [
        ("as it is", |_| {}, SUCCESS),
        ("four queues granted", |i| i.vendor[44..48].copy_from_slice(&[3, 0, 3, 0]), NOT_ENOUGH_RESOURCES),
        ("two queues granted", |i| i.vendor[44..48].copy_from_slice(&[1, 0, 1, 0]), SUCCESS),
        ("65,535 requests", |i| i.vendor[82..84].fill(0xFF), NOT_ENOUGH_RESOURCES),
        ("65,535 events", |i| i.vendor[84..86].fill(0xFF), NOT_ENOUGH_RESOURCES),
    ];
    for (name, change, expected) in rows {
        let (source, mut image) = source(|w| _ = w.admin(GUEST, sqe::set_features(0x07, 0)).ok());
        change(&mut image);
        // Two I/O queue pairs.
        let mut target = World::with(|setup| {
            setup.memories[GUEST] = source.memory(GUEST);
            setup.queue_pairs = 3;
        });
        target.admin(MANAGER, sqe::suspend(GUEST_ID)).ok();
        assert_eq!(commit(&mut target, &image), expected, "{name}");
    }
}

#[test]
fn r19_every_field_of_the_vendor_part_has_its_status() {
    type Change = fn(&mut Vec<u8>);
    let rows: [(&str, Change, Code); 30] = [
        ("as it is", |_| {}, SUCCESS),
        ("version", |part| part[0] = 2, INVALID_FIELD),
        ("unknown flag", |part| part[2] |= 0x80, INVALID_FIELD),
        ("length", |part| part[4] ^= 4, INVALID_FIELD),
        ("not ready, with an admin queue", |part| part[2] &= !1, INVALID_FIELD),
        ("CC not enabled but ready", |part| part[8] &= !1, INVALID_FIELD),
        ("CC reserved bits", |part| part[11] = 0x80, INVALID_FIELD),
        ("CC.MPS too large", |part| part[9] |= 7, INVALID_FIELD),
        ("CC.CSS unknown", |part| part[8] |= 0x30, INVALID_FIELD),
        ("CC.AMS", |part| part[9] |= 0x08, INVALID_FIELD),
        ("AQA reserved bits", |part| part[13] |= 0xF0, INVALID_FIELD),
        ("admin submission queue of one entry", |part| part[12] = 0, INVALID_FIELD),
        ("admin completion queue of one entry", |part| part[14] = 0, INVALID_FIELD),
        ("ASQ offset", |part| part[17] |= 1, INVALID_FIELD),
        ("ACQ offset", |part| part[24] |= 1, INVALID_FIELD),
        ("admin submission head", |part| part[36] = 32, INVALID_FIELD),
        ("admin submission tail", |part| part[38] = 32, INVALID_FIELD),
        ("admin completion head", |part| part[40] = 32, INVALID_FIELD),
        ("admin completion tail", |part| part[42] = 32, INVALID_FIELD),
        ("more queues than there are", |part| part[44] = 9, NOT_ENOUGH_RESOURCES),
        ("queues that were never set", |part| part[2] &= !0x10, INVALID_FIELD),
        ("power state", |part| part[52] = 1, INVALID_FIELD),
        ("interrupt coalescing", |part| part[62] = 1, INVALID_FIELD),
        ("keep alive without a timer", |part| part[68] = 1, INVALID_FIELD),
        ("host behavior", |part| part[72] = 2, INVALID_FIELD),
        ("masked one-shot events", |part| part[80] = 0x10, INVALID_FIELD),
        ("reserved byte", |part| part[90] = 1, INVALID_FIELD),
        ("the same request twice", |part| part[98] = part[96], INVALID_FIELD),
        ("event of a type that never waits", |part| part[100] = 4, INVALID_FIELD),
        ("reserved byte of an event", |part| part[103] = 1, INVALID_FIELD),
    ];
    for (name, change, expected) in rows {
        let (source, mut image) = source(|w| {
            w.admin(GUEST, sqe::set_features(0x07, 0x0001_0001)).ok();
            w.create_pair(GUEST, 1, 8);
            // Two requests stay outstanding, one event is reported and one masked.
            let reported = w.leave(GUEST, 0, sqe::event_request());
            for _ in 0..2 {
                w.leave(GUEST, 0, sqe::event_request());
            }
            w.write32(GUEST, 0x1000 + 9 * 8, 1);
            assert!(w.event(GUEST, reported).is_some());
            w.write32(GUEST, 0x1000 + 9 * 8, 1);
        });
        assert_eq!(image.vendor.len(), 96 + 4 + 8, "two requests and one event");
        change(&mut image.vendor);
        let mut target = destination(&source);
        target.admin(MANAGER, sqe::suspend(GUEST_ID)).ok();
        let before = target.get_image(MANAGER, GUEST_ID, BOTH);
        assert_eq!(commit(&mut target, &image), expected, "{name}");
        if expected != SUCCESS {
            assert_eq!(target.get_image(MANAGER, GUEST_ID, BOTH), before, "{name}: nothing is changed");
        }
    }
}

#[test]
fn a_disabled_guest_moves_as_a_disabled_one() {
    let (source, image) = source(|w| w.disable(GUEST));
    let mut target = destination(&source);
    target.admin(MANAGER, sqe::suspend(GUEST_ID)).ok();
    assert_eq!(commit(&mut target, &image), SUCCESS);
    target.admin(MANAGER, sqe::resume(GUEST_ID)).ok();
    assert_eq!(target.read32(GUEST, CSTS), 0);
    assert_eq!(target.read32(GUEST, AQA), source.read32(GUEST, AQA));
    target.enable(GUEST);
    target.admin(GUEST, sqe::get_features(0x01, 0)).ok();
}

#[test]
fn the_guest_is_told_of_completions_it_has_not_consumed() {
    let (mut source, image) = source(|w| {
        w.create_pair(GUEST, 1, 8);
        w.hosts[GUEST].held.insert(1);
        for _ in 0..5 {
            w.submit(GUEST, 1, sqe::flush(NSID));
        }
        w.run();
    });
    let mut target = destination(&source);
    target.hosts[GUEST] = source.hosts[GUEST].clone();
    target.admin(MANAGER, sqe::suspend(GUEST_ID)).ok();
    assert_eq!(commit(&mut target, &image), SUCCESS);
    target.interrupts.take();
    target.admin(MANAGER, sqe::resume(GUEST_ID)).ok();
    assert!(target.interrupts.take().contains(&(GUEST_ID, 1)), "its interrupt may have been lost on the way");
    target.hosts[GUEST].held.clear();
    assert_eq!(target.harvest(GUEST, 1), 5);
    target.exec(GUEST, 1, sqe::flush(NSID)).ok();
    source.admin(MANAGER, sqe::resume(GUEST_ID)).ok();
}

#[test]
fn queues_over_page_lists_go_on_in_their_next_page() {
    let (source, image) = source(|w| {
        let host = w.hosts[GUEST].clone();
        let pages: Vec<u64> = (0..4).map(|_| host.allocate(4096)).collect();
        let list = host.page_list(&pages);
        w.admin(GUEST, sqe::create_cq(1, 600, 1, list).dword(11, (1 << 16) | 2)).ok();
        w.hosts[GUEST].add_completion(1, 0, 600);
        w.hosts[GUEST].completion.get_mut(&1).unwrap().area = host::Area::scattered(pages, 4096);
        w.create_submission(GUEST, 1, 1, 64);
        for _ in 0..255 {
            w.exec(GUEST, 1, sqe::flush(NSID)).ok();
        }
    });
    let mut target = destination(&source);
    target.hosts[GUEST] = source.hosts[GUEST].clone();
    target.admin(MANAGER, sqe::suspend(GUEST_ID)).ok();
    assert_eq!(commit(&mut target, &image), SUCCESS);
    target.admin(MANAGER, sqe::resume(GUEST_ID)).ok();
    // Slot 256 lies in the second page of the list, slot 0 comes again after 600.
    for _ in 255..700 {
        target.exec(GUEST, 1, sqe::flush(NSID)).ok();
    }
}

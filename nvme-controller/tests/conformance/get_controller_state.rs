// SPDX-License-Identifier: MIT OR Apache-2.0
//! Get Controller State and Supported Controller State Formats: every status, and what an image holds. NVMe Base 2.1
//! §5.1.16, Migration Receive command.

use crate::harness::image::{HEADER, Image};
use crate::harness::sqe;
use crate::harness::status::*;
use crate::harness::*;

const V0: (u8, u8) = (1, 0);

fn get(world: &mut World, target: u16, indices: (u8, u8), offset: u64, len: u32) -> Completion {
    let prps = world.hosts[MANAGER].buffer(u64::from(len)).1;
    world.admin(MANAGER, sqe::get_state(target, indices, offset, len, prps))
}

#[test]
fn every_check_of_get_controller_state_has_its_status() {
    check(
        World::new,
        &[
            ("running controller", SUCCESS, |w| get(w, GUEST_ID, V0, 0, 48)),
            ("suspended controller", SUCCESS, |w| {
                w.admin(MANAGER, sqe::suspend(GUEST_ID)).ok();
                get(w, GUEST_ID, V0, 0, 48)
            }),
            ("disabled controller", SUCCESS, |w| {
                w.disable(GUEST);
                get(w, GUEST_ID, V0, 0, 48)
            }),
            ("CNTLID that no controller has", INVALID_CONTROLLER, |w| get(w, NOBODY_ID, V0, 0, 48)),
            ("CNTLID of the managing controller itself", INVALID_CONTROLLER, |w| {
                get(w, MANAGER_ID, V0, 0, 48)
            }),
            ("CNTLID of another managing controller", INVALID_CONTROLLER, |w| {
                get(w, OTHER_MANAGER_ID, V0, 0, 48)
            }),
            ("CSVI 2 is not in the list", INVALID_FIELD, |w| get(w, GUEST_ID, (2, 0), 0, 48)),
            ("CSVI FFh is not in the list", INVALID_FIELD, |w| get(w, GUEST_ID, (0xFF, 0), 0, 48)),
            ("CSUUIDI 2 is not in the list", INVALID_FIELD, |w| get(w, GUEST_ID, (1, 2), 0, 48)),
            ("CSUUIDI FFh is not in the list", INVALID_FIELD, |w| get(w, GUEST_ID, (1, 0xFF), 0, 48)),
            ("CSVI 0 returns no NVMe state", SUCCESS, |w| get(w, GUEST_ID, (0, 1), 0, 48)),
            ("CSVI 0 and CSUUIDI 0 return the header", SUCCESS, |w| get(w, GUEST_ID, (0, 0), 0, 48)),
            ("CSUIDXP is ignored without a vendor part", SUCCESS, |w| {
                let prps = w.hosts[MANAGER].buffer(48).1;
                w.admin(MANAGER, sqe::get_state(GUEST_ID, V0, 0, 48, prps).or(11, 0xAB << 24))
            }),
            ("offset 4", SUCCESS, |w| get(w, GUEST_ID, V0, 4, 8)),
            ("offset at the end of the NVMe state", SUCCESS, |w| get(w, GUEST_ID, V0, 52, 4)),
            ("offset 1 is not dword aligned", INVALID_FIELD, |w| get(w, GUEST_ID, V0, 1, 4)),
            ("offset 2 is not dword aligned", INVALID_FIELD, |w| get(w, GUEST_ID, V0, 2, 4)),
            ("offset 51 is not dword aligned", INVALID_FIELD, |w| get(w, GUEST_ID, V0, 51, 4)),
            ("offset beyond the data", INVALID_FIELD, |w| get(w, GUEST_ID, V0, 60, 4)),
            ("offset 2^32", INVALID_FIELD, |w| get(w, GUEST_ID, V0, 1 << 32, 4)),
            ("offset near 2^64", INVALID_FIELD, |w| get(w, GUEST_ID, V0, u64::MAX - 3, 4)),
            ("more than there is", SUCCESS, |w| get(w, GUEST_ID, V0, 0, 4096)),
            ("SEL 1h is reserved", INVALID_FIELD, |w| {
                let prps = w.hosts[MANAGER].buffer(48).1;
                w.admin(MANAGER, sqe::get_state(GUEST_ID, V0, 0, 48, prps).or(10, 1))
            }),
            ("SEL FFh is reserved", INVALID_FIELD, |w| {
                let prps = w.hosts[MANAGER].buffer(48).1;
                w.admin(MANAGER, sqe::get_state(GUEST_ID, V0, 0, 48, prps).or(10, 0xFF))
            }),
            ("UIDX 1 without UUID selection", INVALID_FIELD, |w| {
                let prps = w.hosts[MANAGER].buffer(48).1;
                w.admin(MANAGER, sqe::get_state(GUEST_ID, V0, 0, 48, prps).dword(14, 1))
            }),
            ("NSID 1", INVALID_FIELD, |w| {
                let prps = w.hosts[MANAGER].buffer(48).1;
                w.admin(MANAGER, sqe::get_state(GUEST_ID, V0, 0, 48, prps).namespace(1))
            }),
            ("buffer that is not there", DATA_TRANSFER_ERROR, |w| {
                let (address, prps) = w.hosts[MANAGER].buffer(48);
                w.memory(MANAGER).unmap(address, 48);
                w.admin(MANAGER, sqe::get_state(GUEST_ID, V0, 0, 48, prps))
            }),
            ("opcode on a migratable controller", INVALID_OPCODE, |w| {
                let prps = w.hosts[GUEST].buffer(48).1;
                w.admin(GUEST, sqe::get_state(OTHER_GUEST_ID, V0, 0, 48, prps))
            }),
        ],
    );
}

#[test]
fn suspended_is_reported_in_completion_and_header() {
    type Action = fn(&mut World);
    let rows: [(&str, Action, u32); 5] = [
        ("running", |_| {}, 0),
        ("suspended", |w| _ = w.admin(MANAGER, sqe::suspend(GUEST_ID)).ok(), 1),
        ("notified", |w| _ = w.admin(MANAGER, sqe::notify_suspend(GUEST_ID)).ok(), 0),
        (
            "resumed",
            |w| {
                w.admin(MANAGER, sqe::suspend(GUEST_ID)).ok();
                w.admin(MANAGER, sqe::resume(GUEST_ID)).ok();
            },
            0,
        ),
        (
            "reset",
            |w| {
                w.admin(MANAGER, sqe::suspend(GUEST_ID)).ok();
                w.reset(GUEST);
            },
            0,
        ),
    ];
    for (name, action, expected) in rows {
        let mut world = World::new();
        action(&mut world);
        let done = get(&mut world, GUEST_ID, V0, 0, 48).ok();
        assert_eq!(done.dword0, expected, "{name}: CSUP");
        let header = world.get_state_bytes(MANAGER, GUEST_ID, V0, 0, 48);
        assert_eq!(u32::from(header[2]), expected, "{name}: CSATTR");
    }
}

#[test]
fn the_header_announces_what_the_indices_ask_for() {
    for (name, indices, nvme, vendor) in [
        ("NVMe state alone", (1, 0), true, false),
        ("vendor part alone", (0, 1), false, true),
        ("both", (1, 1), true, true),
        ("neither", (0, 0), false, false),
    ] {
        let mut world = World::new();
        let header = world.get_state_bytes(MANAGER, GUEST_ID, indices, 0, 48);
        let wide = |at: usize| u128::from_le_bytes(header[at..at + 16].try_into().unwrap());
        assert_eq!(header[..2], [0, 0], "{name}: VER");
        assert_eq!(header[3..16], [0; 13], "{name}: reserved");
        assert_eq!(wide(16), if nvme { 2 } else { 0 }, "{name}: NVMECSS without queues");
        assert_eq!(wide(32) > 0, vendor, "{name}: VSS");
    }
}

#[test]
fn an_image_holds_every_queue_as_it_is() {
    let mut world = World::new();
    world.create_completion(GUEST, 2, 8, 5);
    world.create_completion(GUEST, 5, 16, 3);
    world.create_submission(GUEST, 4, 2, 4);
    world.create_submission(GUEST, 1, 5, 16);
    world.create_submission(GUEST, 3, 2, 8);
    for queue in [1, 3, 3, 3, 4, 1] {
        let prps = world.hosts[GUEST].buffer(512).1;
        world.exec(GUEST, queue, sqe::read(NSID, 0, 1, prps)).ok();
    }
    world.admin(MANAGER, sqe::suspend(GUEST_ID)).ok();
    // Two more commands wait in queue 3.
    for _ in 0..2 {
        let prps = world.hosts[GUEST].buffer(512).1;
        world.submit(GUEST, 3, sqe::read(NSID, 0, 1, prps));
    }
    let bytes = world.get_image(MANAGER, GUEST_ID, V0);
    assert_eq!(bytes.len(), 48 + 8 + 24 * 5);
    let image = Image::parse(&bytes);
    assert_eq!((image.version, image.attributes, image.state_version, image.state_reserved), (0, 1, 0, 0));
    let submission: Vec<_> =
        image.submission.iter().map(|q| (q.id, q.completion, q.size, q.attributes, q.head, q.tail)).collect();
    assert_eq!(submission, [(1, 5, 15, 1, 2, 2), (3, 2, 7, 1, 3, 5), (4, 2, 3, 1, 1, 1)]);
    let completion: Vec<_> =
        image.completion.iter().map(|q| (q.id, q.size, q.attributes, q.head, q.tail)).collect();
    assert_eq!(completion, [(2, 7, 0x0005_0007, 4, 4), (5, 15, 0x0003_0007, 2, 2)]);
    let guest = &world.hosts[GUEST];
    for queue in &image.submission {
        assert_eq!(queue.base, guest.submission[&queue.id].area.at(0), "PRP1 of queue {}", queue.id);
    }
    for queue in &image.completion {
        assert_eq!(queue.base, guest.completion[&queue.id].area.at(0), "PRP1 of queue {}", queue.id);
    }
}

#[test]
fn the_phase_of_slot_zero_is_what_lies_in_slot_zero() {
    let mut world = World::new();
    world.create_pair(GUEST, 1, 4);
    for posted in 0..13 {
        let image = Image::parse(&world.get_image(MANAGER, GUEST_ID, V0));
        let queue = image.completion[0];
        let slot_zero = world.memory(GUEST).bytes(queue.base + 14, 1)[0] & 1;
        assert_eq!(queue.attributes >> 2 & 1, u32::from(slot_zero), "after {posted} completions");
        assert_eq!(u32::from(queue.tail), posted % 4);
        let prps = world.hosts[GUEST].buffer(512).1;
        world.exec(GUEST, 1, sqe::read(NSID, 0, 1, prps)).ok();
    }
}

#[test]
fn queue_attributes_are_saved() {
    let mut world = World::new();
    let host = world.hosts[GUEST].clone();
    let (sq, cq) = (host.allocate(4096), host.allocate(4096));
    let (sq_list, cq_list) = (host.page_list(&[sq]), host.page_list(&[cq]));
    // Not contiguous, interrupts off, medium priority.
    world.admin(GUEST, sqe::create_cq(1, 16, 0, cq_list).dword(11, 0)).ok();
    world.admin(GUEST, sqe::create_sq(1, 1, 16, sq_list).dword(11, (1 << 16) | (2 << 1))).ok();
    let image = Image::parse(&world.get_image(MANAGER, GUEST_ID, V0));
    assert_eq!((image.submission[0].base, image.submission[0].attributes), (sq_list, 2 << 1));
    assert_eq!((image.completion[0].base, image.completion[0].attributes), (cq_list, 0));
}

#[test]
fn r18_a_state_may_be_read_in_pieces_of_any_size() {
    let mut world = World::new();
    for queue in 1..=5 {
        world.create_pair(GUEST, queue, 16);
    }
    world.admin(MANAGER, sqe::suspend(GUEST_ID)).ok();
    for indices in [(1, 0), (1, 1), (0, 1)] {
        let whole = world.get_image(MANAGER, GUEST_ID, indices);
        for step in [4, 8, 12, 44, 48, 52, 100, 4096] {
            let mut pieces = Vec::new();
            while pieces.len() < whole.len() {
                let len = step.min((whole.len() - pieces.len()) as u32);
                let offset = pieces.len() as u64;
                pieces.extend(world.get_state_bytes(MANAGER, GUEST_ID, indices, offset, len));
            }
            assert_eq!(pieces, whole, "pieces of {step} bytes, indices {indices:?}");
        }
        let beyond = world.get_state_bytes(MANAGER, GUEST_ID, indices, 0, 8192);
        assert_eq!(beyond[..whole.len()], whole, "asking for more than there is");
    }
}

#[test]
fn r18_a_large_state_crosses_pages_and_lists() {
    let mut world = World::with(|setup| setup.queue_pairs = 201);
    for queue in 1..=200 {
        world.create_pair(GUEST, queue, 2);
    }
    let image = world.get_image(MANAGER, GUEST_ID, V0);
    assert_eq!(image.len(), 48 + 8 + 24 * 400);
    let image = Image::parse(&image);
    assert_eq!(
        image.submission.iter().map(|queue| queue.id).collect::<Vec<_>>(),
        (1..=200).collect::<Vec<_>>()
    );
    assert_eq!(
        image.completion.iter().map(|queue| queue.id).collect::<Vec<_>>(),
        (1..=200).collect::<Vec<_>>()
    );
}

#[test]
fn reading_a_state_changes_nothing() {
    let mut world = World::new();
    world.create_pair(GUEST, 1, 16);
    let prps = world.hosts[GUEST].buffer(512).1;
    let command = world.submit(GUEST, 1, sqe::read(NSID, 0, 1, prps));
    let first = world.get_image(MANAGER, GUEST_ID, (1, 1));
    assert_eq!(world.get_image(MANAGER, GUEST_ID, (1, 1)), first);
    world.hosts[GUEST].take(1, command).expect("the guest runs on").ok();
}

/// The destination: another subsystem whose guest controller reaches the same memory.
pub(crate) fn destination(source: &World) -> World {
    World::with(|setup| setup.memories[GUEST] = source.memory(GUEST))
}

#[test]
fn a_guest_goes_on_at_the_destination_with_its_queues_intact() {
    for (name, indices) in [("properties restored by the host", (1, 0)), ("vendor part", (1, 1))] {
        let mut source = World::new();
        source.create_pair(GUEST, 1, 8);
        source.create_pair(GUEST, 2, 4);
        for round in 0..11 {
            let prps = source.hosts[GUEST].buffer(512).1;
            source.exec(GUEST, 1 + round % 2, sqe::read(NSID, 0, 1, prps)).ok();
        }
        source.admin(MANAGER, sqe::suspend(GUEST_ID)).ok();
        let waiting: Vec<(u16, u16, u64)> = [1, 1, 2, 1, 2]
            .iter()
            .map(|queue| {
                let (address, prps) = source.hosts[GUEST].buffer(512);
                (*queue, source.submit(GUEST, *queue, sqe::read(NSID, 9, 1, prps)), address)
            })
            .collect();
        let image = source.get_image(MANAGER, GUEST_ID, indices);

        let mut target = destination(&source);
        target.disk(NSID).put(9, 0x99);
        target.admin(MANAGER, sqe::suspend(GUEST_ID)).ok();
        if indices.1 == 1 {
            // The vendor part brings the admin queue along, so the guest's own stays in use.
            target.hosts[GUEST] = source.hosts[GUEST].clone();
        } else {
            let mut guest = target.hosts[GUEST].clone();
            let old = source.hosts[GUEST].clone();
            for queue in [1, 2] {
                guest.submission.insert(queue, old.submission[&queue].clone());
                guest.completion.insert(queue, old.completion[&queue].clone());
            }
            target.hosts[GUEST] = guest;
        }
        target.set_image(MANAGER, GUEST_ID, indices, &image).ok();
        target.admin(MANAGER, sqe::resume(GUEST_ID)).ok();
        for (queue, command, address) in waiting {
            target.hosts[GUEST].take(queue, command).expect("completes on the destination").ok();
            assert_eq!(target.memory(GUEST).bytes(address, 512), [0x99; 512], "{name}");
        }
        for round in 0..20 {
            let prps = target.hosts[GUEST].buffer(512).1;
            target.exec(GUEST, 1 + round % 2, sqe::read(NSID, 0, 1, prps)).ok();
        }
        target.admin(GUEST, sqe::set_features(0x0B, 0)).ok();
    }
}

#[test]
fn the_vendor_part_carries_admin_queue_features_requests_and_events() {
    for enabled in [true, false] {
        let mut source = World::new();
        source.admin(GUEST, sqe::set_features(0x07, 0x0002_0002)).ok();
        source.admin(GUEST, sqe::set_features(0x0B, 0x100)).ok();
        source.admin(GUEST, sqe::set_features(0x08, 0x0305)).ok();
        for _ in 0..40 {
            source.admin(GUEST, sqe::get_features(0x0B, 0)).ok();
        }
        // One event is reported and masks its type, and one request stays outstanding.
        let reported = source.leave(GUEST, 0, sqe::event_request());
        source.write32(GUEST, 0x1000 + 8 * 5, 1);
        assert_eq!(source.event(GUEST, reported), Some((0x0001_0000, 0)));
        let outstanding = source.leave(GUEST, 0, sqe::event_request());
        source.admin(MANAGER, sqe::suspend(GUEST_ID)).ok();
        let queued = source.submit(GUEST, 0, sqe::get_features(0x08, 0));
        let image = source.get_image(MANAGER, GUEST_ID, (1, 1));

        let mut target = destination(&source);
        if !enabled {
            target.disable(GUEST);
        }
        target.hosts[GUEST] = source.hosts[GUEST].clone();
        target.admin(MANAGER, sqe::suspend(GUEST_ID)).ok();
        target.set_image(MANAGER, GUEST_ID, (1, 1), &image).ok();
        assert_eq!(target.read32(GUEST, CC), ENABLE);
        assert_eq!(target.read32(GUEST, CSTS), source.read32(GUEST, CSTS));
        assert_eq!(target.read32(GUEST, AQA), source.read32(GUEST, AQA));
        assert_eq!(target.read64(GUEST, ASQ), source.read64(GUEST, ASQ));
        assert_eq!(target.read64(GUEST, ACQ), source.read64(GUEST, ACQ));
        target.admin(MANAGER, sqe::resume(GUEST_ID)).ok();
        let done = target.hosts[GUEST].take(0, queued).expect("the queued admin command completes").ok();
        assert_eq!(done.dword0, 0x0305, "features came along");
        assert_eq!(target.admin(GUEST, sqe::get_features(0x07, 0)).ok().dword0, 0x0002_0002);
        target.write32(GUEST, 0x1000 + 8 * 5, 1);
        assert_eq!(target.event(GUEST, outstanding), None, "errors stay masked until their page is read");
        let log = target.hosts[GUEST].buffer(64).1;
        target.admin(GUEST, sqe::get_log(1, 0, 64, log)).ok();
        target.write32(GUEST, 0x1000 + 8 * 5, 1);
        assert_eq!(target.event(GUEST, outstanding), Some((0x0001_0000, 0)), "the request came along");
    }
}

#[test]
fn r19_every_byte_of_a_vendor_part_is_checked() {
    let mut source = World::new();
    source.create_pair(GUEST, 1, 8);
    source.leave(GUEST, 0, sqe::event_request());
    source.admin(MANAGER, sqe::suspend(GUEST_ID)).ok();
    let image = source.get_image(MANAGER, GUEST_ID, (1, 1));
    let start = Image::parse(&image);
    let vendor = image.len() - start.vendor.len();
    // Whatever a byte becomes, the controller answers and keeps working.
    for at in vendor..image.len() {
        for change in [0x01, 0x80, 0xFF] {
            let mut target = destination(&source);
            target.admin(MANAGER, sqe::suspend(GUEST_ID)).ok();
            let mut wrong = image.clone();
            wrong[at] ^= change;
            let code = target.set_image(MANAGER, GUEST_ID, (1, 1), &wrong).code;
            assert!(matches!(code, SUCCESS | INVALID_FIELD | NOT_ENOUGH_RESOURCES), "byte {at}: {code:?}");
            target.identify(MANAGER, 0x01, 0, 0);
        }
    }
    for (name, change) in [
        ("version", (|part| part[0] ^= 3) as fn(&mut Vec<u8>)),
        ("truncated", |part| part.truncate(part.len() - 4)),
        ("longer", |part| part.extend([0; 4])),
        ("empty but announced", |part| part.fill(0)),
        ("all ones", |part| part.fill(0xFF)),
    ] {
        let mut target = destination(&source);
        target.admin(MANAGER, sqe::suspend(GUEST_ID)).ok();
        let mut wrong = start.clone();
        change(&mut wrong.vendor);
        let code = target.set_image(MANAGER, GUEST_ID, (1, 1), &wrong.bytes()).code;
        assert_eq!(code, INVALID_FIELD, "{name}");
        let state = Image::parse(&target.get_image(MANAGER, GUEST_ID, V0));
        assert!(state.submission.is_empty(), "{name}: nothing took effect");
    }
}

#[test]
fn r17_formats_are_listed_by_value() {
    let mut world = World::new();
    for host in [MANAGER, OTHER_MANAGER] {
        let list = world.identify(host, 0x20, 0, 0);
        assert_eq!(list[..4], [1, 1, 0, 0], "one version, one UUID, version 0");
        assert_ne!(list[4..20], [0; 16], "the UUID");
        assert_eq!(list[20..], [0; 4096 - 20], "the rest is zero");
    }
    let mut world = World::with(|setup| setup.config.vendor_state_format = false);
    let list = world.identify(MANAGER, 0x20, 0, 0);
    assert_eq!((list[..4].to_vec(), list[4..].iter().any(|byte| *byte != 0)), (vec![1, 0, 0, 0], false));
    assert_eq!(get(&mut world, GUEST_ID, (1, 1), 0, 48).code, INVALID_FIELD, "index 1 is not in the list");
    let prps = world.hosts[GUEST].buffer(4096).1;
    let code = world.admin(GUEST, sqe::identify(0x20, 0, 0, prps.0)).code;
    assert_eq!(code, INVALID_FIELD, "a migratable controller has no such data structure");
    assert_eq!(HEADER, 48);
}

#[test]
fn transfers_of_states_are_bounded_by_mdts() {
    let mut world = World::with(|setup| setup.config.max_transfer_shift = 1);
    assert_eq!(get(&mut world, GUEST_ID, V0, 0, 8192).code, SUCCESS);
    assert_eq!(get(&mut world, GUEST_ID, V0, 0, 8196).code, INVALID_FIELD);
    assert_eq!(get(&mut world, GUEST_ID, V0, 0, 1 << 20).code, INVALID_FIELD);
    world.admin(MANAGER, sqe::suspend(GUEST_ID)).ok();
    let command = world.state_part(MANAGER, GUEST_ID, sqe::FIRST, V0, 0, &[0; 8196]);
    assert_eq!(world.admin(MANAGER, command).code, INVALID_FIELD);
}

#[test]
fn states_of_the_largest_queues_move() {
    let mut world = World::new();
    world.create_pair(GUEST, 1, 65_536);
    world.exec(GUEST, 1, sqe::flush(NSID)).ok();
    world.admin(MANAGER, sqe::suspend(GUEST_ID)).ok();
    let image = world.get_image(MANAGER, GUEST_ID, V0);
    let parsed = Image::parse(&image);
    assert_eq!((parsed.submission[0].size, parsed.completion[0].size), (0xFFFF, 0xFFFF), "zero-based");
    let mut target = destination(&world);
    target.admin(MANAGER, sqe::suspend(GUEST_ID)).ok();
    let mut last = parsed.clone();
    last.submission[0].head = 0xFFFF;
    last.submission[0].tail = 0xFFFF;
    last.completion[0].head = 0xFFFF;
    last.completion[0].tail = 0xFFFF;
    target.set_image(MANAGER, GUEST_ID, V0, &last.bytes()).ok();
    target.admin(MANAGER, sqe::resume(GUEST_ID)).ok();
    let (submission, completion) = (last.submission[0].base, last.completion[0].base);
    target.memory(GUEST).fill(submission + 0xFFFF * 64, &sqe::flush(NSID).bytes(0x31));
    target.memory(GUEST).fill(submission, &sqe::flush(NSID).bytes(0x32));
    target.write32(GUEST, 0x1008, 1);
    target.settle();
    let entry = |slot: u64| target.memory(GUEST).bytes(completion + slot * 16 + 10, 6);
    assert_eq!(entry(0xFFFF), [1, 0, 0x31, 0, 1, 0], "the last slot, in phase");
    assert_eq!(entry(0), [1, 0, 0x32, 0, 0, 0], "the first slot of the next lap");
}

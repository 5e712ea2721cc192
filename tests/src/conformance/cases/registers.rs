// SPDX-License-Identifier: MIT OR Apache-2.0
//! Properties: bring-up with every combination, fatal status, doorbells and shutdown. NVMe Base 2.1 §3.1.4, Controller
//! Properties, §3.5 and §3.6.

use crate::conformance::backend::Backend;
use crate::conformance::world::sqe;
use crate::conformance::world::status::*;
use crate::conformance::world::*;

const CAP: u32 = 0x00;
const VS: u32 = 0x08;
const INTMS: u32 = 0x0C;
const INTMC: u32 = 0x10;
const CRTO: u32 = 0x68;

fn disabled(backend: &dyn Backend) -> World {
    let mut setup = Setup::new();
    setup.config.max_page_shift = 14;
    setup.build(backend)
}

fn bits(value: u64, high: u32, low: u32) -> u64 {
    (value >> low) & ((1 << (high - low + 1)) - 1)
}

pub(crate) fn capabilities_say_what_was_configured(backend: &dyn Backend) {
    let mut setup = Setup::new();
    setup.config.max_queue_entries = 1000;
    setup.config.contiguous_queues_required = true;
    setup.config.ready_timeout = 7;
    setup.config.min_page_shift = 13;
    setup.config.max_page_shift = 15;
    let world = setup.build(backend);
    // A guest must not be able to reset the others.
    for (host, resets) in [(MANAGER, 1), (GUEST, 0)] {
        let cap = world.read64(host, CAP);
        for (field, high, low, expected) in [
            ("MQES", 15, 0, 999),
            ("CQR", 16, 16, 1),
            ("reserved", 23, 19, 0),
            ("TO", 31, 24, 7),
            ("DSTRD", 35, 32, 0),
            ("NSSRS", 36, 36, resets),
            ("CSS.NCSS", 37, 37, 1),
            ("MPSMIN", 51, 48, 1),
            ("MPSMAX", 55, 52, 3),
            ("PMRS", 56, 56, 0),
            ("CMBS", 57, 57, 0),
            ("reserved", 63, 62, 0),
        ] {
            assert_eq!(bits(cap, high, low), expected, "{field} of controller {host}");
        }
        let same = world.access(host, CAP, 8).unwrap();
        assert_eq!(same, cap, "one access of 64 bits");
        assert!(world.read32(host, VS) >= 0x0002_0100, "data queues came with 2.1");
    }
}

pub(crate) fn ready_within_the_time_that_is_promised(backend: &dyn Backend) {
    let mut world = disabled(backend);
    assert_eq!(world.read32(GUEST, CSTS), 0, "nothing after power on");
    let cap = world.read64(GUEST, CAP);
    if bits(cap, 60, 59) != 0 {
        assert_ne!(world.read32(GUEST, CRTO) & 0xFFFF, 0, "CRWMT");
    }
    world.enable(GUEST);
    assert_eq!(world.read32(GUEST, CSTS), 1);
    world.disable(GUEST);
    assert_eq!(world.read32(GUEST, CSTS), 0);
    world.enable(GUEST);
}

pub(crate) fn bring_up_takes_what_is_legal_and_fails_fatally_on_the_rest(backend: &dyn Backend) {
    const GOOD_AQA: u32 = 0x001F_001F;
    type Offsets = (u64, u64);
    type BringUp = (&'static str, u32, u32, Offsets, bool);
    // CC, AQA, offsets added to ASQ and ACQ, and whether the controller becomes ready.
    let rows: [BringUp; 27] = [
        ("usual", ENABLE, GOOD_AQA, (0, 0), true),
        ("8 KiB pages", ENABLE | (1 << 7), GOOD_AQA, (0, 0), true),
        ("16 KiB pages, the largest", ENABLE | (2 << 7), GOOD_AQA, (0, 0), true),
        ("32 KiB pages", ENABLE | (3 << 7), GOOD_AQA, (0, 0), false),
        ("128 MiB pages", ENABLE | (0xF << 7), GOOD_AQA, (0, 0), false),
        ("all I/O command sets", ENABLE | (6 << 4), GOOD_AQA, (0, 0), true),
        ("command set 001b", ENABLE | (1 << 4), GOOD_AQA, (0, 0), false),
        ("command set 101b", ENABLE | (5 << 4), GOOD_AQA, (0, 0), false),
        ("weighted round robin without support", ENABLE | (1 << 11), GOOD_AQA, (0, 0), false),
        ("reserved arbitration", ENABLE | (2 << 11), GOOD_AQA, (0, 0), false),
        ("vendor arbitration without support", ENABLE | (7 << 11), GOOD_AQA, (0, 0), false),
        ("no entry sizes yet", 1, GOOD_AQA, (0, 0), true),
        ("smallest queues", ENABLE, 0x0001_0001, (0, 0), true),
        ("largest queues", ENABLE, 0x0FFF_0FFF, (0, 0), true),
        ("queues of different size", ENABLE, 0x0003_00FF, (0, 0), true),
        ("submission queue of one entry", ENABLE, 0x001F_0000, (0, 0), false),
        ("completion queue of one entry", ENABLE, 0x0000_001F, (0, 0), false),
        ("attributes never written", ENABLE, 0, (0, 0), false),
        ("reserved attribute bits are ignored", ENABLE, 0xF01F_F01F, (0, 0), true),
        ("ASQ bits 11:0 are reserved", ENABLE, GOOD_AQA, (0x800, 0), true),
        ("ACQ bits 11:0 are reserved", ENABLE, GOOD_AQA, (0, 0x010), true),
        ("ASQ at 4 KiB with 8 KiB pages", ENABLE | (1 << 7), GOOD_AQA, (0x1000, 0), false),
        ("ACQ at 4 KiB with 8 KiB pages", ENABLE | (1 << 7), GOOD_AQA, (0, 0x1000), false),
        ("ASQ at 8 KiB with 16 KiB pages", ENABLE | (2 << 7), GOOD_AQA, (0x2000, 0), false),
        ("larger entry sizes show when queues are created", 0x00FF_0001, GOOD_AQA, (0, 0), true),
        ("shutdown notification while enabling", ENABLE | (1 << 14), GOOD_AQA, (0, 0), true),
        ("reserved bits of CC", ENABLE | 0xFE00_0002, GOOD_AQA, (0, 0), true),
    ];
    for (name, cc, aqa, (asq_offset, acq_offset), ready) in rows {
        let mut world = disabled(backend);
        let memory = world.memory(GUEST);
        let (asq, acq) =
            (memory.allocate_aligned(1 << 18, 1 << 18), memory.allocate_aligned(1 << 16, 1 << 16));
        world.write32(GUEST, AQA, aqa);
        world.write64(GUEST, ASQ, asq + asq_offset);
        world.write64(GUEST, ACQ, acq + acq_offset);
        world.write32(GUEST, CC, cc);
        world.settle();
        assert_eq!((world.is_ready(GUEST), world.is_fatal(GUEST)), (ready, !ready), "{name}");
        // A reset recovers whatever happened.
        world.write32(GUEST, CC, 0);
        world.settle();
        assert_eq!(world.read32(GUEST, CSTS) & 3, 0, "{name}: after the reset");
        world.enable(GUEST);
    }
}

pub(crate) fn queue_registers_change_only_while_disabled(backend: &dyn Backend) {
    let mut world = disabled(backend);
    world.write32(GUEST, AQA, 0x0011_0022);
    world.write64(GUEST, ASQ, 0x1234_5678_9000);
    world.write64(GUEST, ACQ, 0x8765_4321_0000);
    assert_eq!(world.read32(GUEST, AQA), 0x0011_0022);
    assert_eq!(world.read64(GUEST, ASQ), 0x1234_5678_9000);
    assert_eq!(world.read64(GUEST, ACQ), 0x8765_4321_0000);
    world.enable(GUEST);
    let before = (world.read32(GUEST, AQA), world.read64(GUEST, ASQ), world.read64(GUEST, ACQ));
    world.write32(GUEST, AQA, 0x0003_0003);
    world.write64(GUEST, ASQ, 0x1000);
    world.write64(GUEST, ACQ, 0x2000);
    assert_eq!((world.read32(GUEST, AQA), world.read64(GUEST, ASQ), world.read64(GUEST, ACQ)), before);
    world.admin(GUEST, sqe::get_features(0x01, 0)).ok();
}

pub(crate) fn page_size_command_set_and_arbitration_are_fixed_while_enabled(backend: &dyn Backend) {
    let mut world = disabled(backend);
    world.enable(GUEST);
    world.write32(GUEST, CC, ENABLE | (1 << 7) | (6 << 4) | (1 << 11));
    assert_eq!(world.read32(GUEST, CC) & 0x3FF0, 0);
    assert!(world.is_ready(GUEST) && !world.is_fatal(GUEST));
    world.admin(GUEST, sqe::get_features(0x01, 0)).ok();
}

pub(crate) fn read_only_and_reserved_properties_ignore_writes(backend: &dyn Backend) {
    let mut world = World::new(backend);
    for offset in [CAP, CAP + 4, VS, CRTO, 0x18, 0x38, 0x3C, 0x100, 0xE00, 0xFFC] {
        let before = world.read32(GUEST, offset);
        world.write32(GUEST, offset, !before);
        assert_eq!(world.read32(GUEST, offset), before, "offset {offset:#x}");
    }
    let status = world.read32(GUEST, CSTS);
    world.write32(GUEST, CSTS, !0x10);
    assert_eq!(world.read32(GUEST, CSTS), status, "only NSSRO can be written");
    world.admin(GUEST, sqe::get_features(0x01, 0)).ok();
}

pub(crate) fn bad_doorbell_writes_raise_error_events_and_break_only_their_queue(backend: &dyn Backend) {
    const REGISTER: u32 = 0x0001_0000;
    const VALUE: u32 = 0x0001_0100;
    type Write = fn(&mut World);
    // Queue 1 has eight slots, three commands were completed, and their completions were consumed.
    let rows: [(&str, Write, Option<u32>, bool); 11] = [
        (
            "submission queue that was never created",
            |w| w.write32(GUEST, 0x1000 + 8 * 4, 0),
            Some(REGISTER),
            true,
        ),
        (
            "completion queue that was never created",
            |w| w.write32(GUEST, 0x1004 + 8 * 4, 0),
            Some(REGISTER),
            true,
        ),
        ("queue beyond all", |w| w.write32(GUEST, 0x1000 + 8 * 200, 1), Some(REGISTER), true),
        ("tail is the size", |w| w.write32(GUEST, 0x1008, 8), Some(VALUE), false),
        ("tail FFFFh", |w| w.write32(GUEST, 0x1008, 0xFFFF), Some(VALUE), false),
        ("head is the size", |w| w.write32(GUEST, 0x100C, 8), Some(VALUE), false),
        ("head past the tail", |w| w.write32(GUEST, 0x100C, 4), Some(VALUE), false),
        ("head back by one", |w| w.write32(GUEST, 0x100C, 2), Some(VALUE), false),
        ("head unchanged", |w| w.write32(GUEST, 0x100C, 3), Some(VALUE), false),
        ("tail unchanged", |w| w.write32(GUEST, 0x1008, 3), None, true),
        ("reserved upper half is ignored", |w| w.write32(GUEST, 0x1008, 0xABCD_0003), None, true),
    ];
    for (name, write, event, usable) in rows {
        let mut world = World::new(backend);
        world.create_pair(GUEST, 1, 8);
        world.create_pair(GUEST, 2, 8);
        for _ in 0..3 {
            world.exec(GUEST, 1, sqe::flush(NSID)).ok();
        }
        let request = world.leave(GUEST, 0, sqe::event_request());
        write(&mut world);
        assert_eq!(world.event(GUEST, request), event.map(|event| (event, 0)), "{name}");
        assert!(!world.is_fatal(GUEST), "{name}");
        world.exec(GUEST, 2, sqe::flush(NSID)).ok();
        if !usable {
            // Deleted and created again it works.
            world.admin(GUEST, sqe::delete_sq(1)).ok();
            world.admin(GUEST, sqe::delete_cq(1)).ok();
            world.create_pair(GUEST, 1, 8);
        }
        world.exec(GUEST, 1, sqe::flush(NSID)).ok();
    }
}

pub(crate) fn a_tail_that_overtakes_the_head_is_an_invalid_value(backend: &dyn Backend) {
    let mut world = World::new(backend);
    // The completion queue takes one entry, so that most of the eight slots stay filled.
    world.create_completion(GUEST, 1, 2, 1);
    world.create_submission(GUEST, 1, 1, 8);
    world.hosts[GUEST].held.insert(1);
    for _ in 0..7 {
        world.send(GUEST, 1, sqe::flush(NSID));
    }
    world.ring(GUEST, 1);
    world.run();
    let request = world.leave(GUEST, 0, sqe::event_request());
    world.write32(GUEST, 0x1008, 5);
    assert_eq!(world.event(GUEST, request), Some((0x0001_0100, 0)));
}

pub(crate) fn doorbells_do_nothing_while_disabled(backend: &dyn Backend) {
    let mut world = disabled(backend);
    world.write32(GUEST, 0x1000, 1);
    world.write32(GUEST, 0x1008, 5);
    world.settle();
    assert_eq!(world.read32(GUEST, CSTS), 0);
    world.enable(GUEST);
    let request = world.leave(GUEST, 0, sqe::event_request());
    assert_eq!(world.event(GUEST, request), None);
}

pub(crate) fn interrupts_come_for_their_vector_unless_masked_or_disabled(backend: &dyn Backend) {
    let mut world = World::new(backend);
    world.create_completion(GUEST, 1, 16, 7);
    world.create_submission(GUEST, 1, 1, 16);
    let cq = world.hosts[GUEST].allocate(256);
    world.admin(GUEST, sqe::create_cq(2, 16, 9, cq).dword(11, (9 << 16) | 1)).ok();
    world.hosts[GUEST].add_completion(2, cq, 16);
    world.create_submission(GUEST, 2, 2, 16);
    world.interrupts();
    world.exec(GUEST, 1, sqe::flush(NSID)).ok();
    assert_eq!(world.interrupts(), [(GUEST_ID, 7)]);
    world.exec(GUEST, 2, sqe::flush(NSID)).ok();
    assert_eq!(world.interrupts(), [], "IEN is clear");
    world.admin(GUEST, sqe::get_features(0x01, 0)).ok();
    assert_eq!(world.interrupts(), [(GUEST_ID, 0)], "the admin queue has vector 0");

    world.hosts[GUEST].held.insert(1);
    world.write32(GUEST, INTMS, 1 << 7);
    assert_eq!(world.read32(GUEST, INTMS), 1 << 7);
    world.submit(GUEST, 1, sqe::flush(NSID));
    world.run();
    assert_eq!(world.interrupts(), [], "masked");
    world.write32(GUEST, INTMC, 1 << 7);
    world.run();
    assert_eq!(world.interrupts(), [(GUEST_ID, 7)], "unmasked with a completion unread");
    assert_eq!(world.read32(GUEST, INTMC), 0);
}

pub(crate) fn a_disabled_controller_that_was_shut_down_is_enabled_with_one_write(backend: &dyn Backend) {
    let mut world = World::new(backend);
    world.write32(GUEST, CC, ENABLE & !1);
    world.write32(GUEST, CC, (ENABLE & !1) | (1 << 14));
    world.settle();
    assert_eq!(world.read32(GUEST, CSTS) & 0xC, 2 << 2);
    world.write32(GUEST, CC, ENABLE);
    world.settle();
    assert_eq!(world.read32(GUEST, CSTS) & 0xF, 1, "ready and in normal operation");
}

pub(crate) fn entries_of_every_lap_carry_the_right_phase_and_head(backend: &dyn Backend) {
    let mut world = World::new(backend);
    world.create_completion(GUEST, 1, 5, 1);
    world.create_submission(GUEST, 1, 1, 3);
    for count in 1..40_u16 {
        let done = world.exec(GUEST, 1, sqe::flush(NSID)).ok();
        assert_eq!((done.queue, done.sq_head), (1, count % 3), "command {count}");
    }
}

pub(crate) fn a_full_completion_queue_stalls_its_submission_queues_and_no_others(backend: &dyn Backend) {
    let mut world = World::new(backend);
    world.create_completion(GUEST, 1, 3, 1);
    world.create_submission(GUEST, 1, 1, 16);
    world.create_submission(GUEST, 2, 1, 16);
    world.create_pair(GUEST, 3, 16);
    world.hosts[GUEST].held.insert(1);
    for queue in [1, 2] {
        for _ in 0..5 {
            world.send(GUEST, queue, sqe::flush(NSID));
        }
        world.ring(GUEST, queue);
    }
    world.run();
    world.exec(GUEST, 3, sqe::flush(NSID)).ok();
    assert!(!world.is_fatal(GUEST));
    world.hosts[GUEST].held.clear();
    world.run();
    assert_eq!(world.hosts[GUEST].done.len(), 10, "none is lost");
}

pub(crate) fn invalid_opcodes_are_answered(backend: &dyn Backend) {
    let mut world = World::new(backend);
    world.create_pair(GUEST, 1, 16);
    for opcode in [0x03, 0x07, 0x0B, 0x3D, 0x3E, 0x41, 0x42, 0x45, 0x7F, 0x80, 0xC0, 0xFF] {
        assert_eq!(world.admin(GUEST, sqe::Sqe::new(opcode)).code, INVALID_OPCODE, "admin {opcode:#x}");
    }
    for opcode in [0x03, 0x06, 0x0A, 0x7F, 0x80, 0xFF] {
        let code = world.exec(GUEST, 1, sqe::Sqe::new(opcode).namespace(NSID)).code;
        assert_eq!(code, INVALID_OPCODE, "I/O {opcode:#x}");
    }
}

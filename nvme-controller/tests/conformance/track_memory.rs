// SPDX-License-Identifier: MIT OR Apache-2.0
//! Tracking of host memory: Track Send, Track Memory Changes, and Track Receive, Tracked Memory Changes. NVMe Base 2.1
//! §5.1.27.1.2 and §5.1.26.1.1.

use crate::harness::sqe;
use crate::harness::status::*;
use crate::harness::*;

/// The data structure of a start: granularity exponent and ranges of (address, granules).
fn structure(exponent: u8, ranges: &[(u64, u32)]) -> Vec<u8> {
    let mut bytes = vec![0, 0, 0, exponent];
    bytes.extend((ranges.len() as u32).to_le_bytes());
    for (address, granules) in ranges {
        bytes.extend(address.to_le_bytes());
        bytes.extend(granules.to_le_bytes());
    }
    bytes
}

fn send(world: &mut World, manager: usize, target: u16, bytes: &[u8]) -> Completion {
    let prps = world.hosts[manager].data(bytes);
    world.admin(manager, sqe::start_memory_tracking(target, prps))
}

fn start(world: &mut World, exponent: u8, ranges: &[(u64, u32)]) -> Completion {
    send(world, MANAGER, GUEST_ID, &structure(exponent, ranges))
}

/// Memory of the guest: `pages` pages of 4 KiB, aligned to 2 MiB.
fn pages(world: &World, pages: u64) -> u64 {
    world.memory(GUEST).allocate_aligned(pages * 4096, 1 << 21)
}

fn try_receive(world: &mut World, manager: usize, target: u16, len: u32) -> Completion {
    let prps = world.hosts[manager].buffer(u64::from(len)).1;
    world.admin(manager, sqe::track_receive(target, len, prps))
}

/// What a receive reported.
#[derive(Debug, PartialEq, Eq)]
struct Report {
    more: bool,
    suspended: bool,
    granularity: u16,
    ranges: Vec<(u64, u32)>,
}

#[track_caller]
fn receive(world: &mut World, len: u32) -> Report {
    let (address, prps) = world.hosts[MANAGER].buffer(u64::from(len));
    world.admin(MANAGER, sqe::track_receive(GUEST_ID, len, prps)).ok();
    let bytes = world.memory(MANAGER).bytes(address, len as usize);
    let word = |at: usize| u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap());
    assert_eq!(bytes[0], 0, "VER");
    assert_eq!(bytes[1] & !3, 0, "reserved attributes");
    assert_eq!(bytes[2..4], GUEST_ID.to_le_bytes(), "CNTLID");
    assert_eq!(bytes[10..16], [0; 6], "reserved");
    let count = word(4) as usize;
    let ranges: Vec<_> = (0..count)
        .map(|index| {
            let at = 16 + 16 * index;
            assert_eq!(word(at + 12), 0, "reserved");
            (u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap()), word(at + 8))
        })
        .collect();
    let more = bytes[1] & 1 != 0;
    assert!(!more || count > 0, "a count of zero implies that there is no more");
    Report { more, suspended: bytes[1] & 2 != 0, granularity: word(8) as u16, ranges }
}

fn clean() -> Report {
    Report { more: false, suspended: false, granularity: 0, ranges: Vec::new() }
}

/// The guest reads `blocks` blocks into memory at `address`.
#[track_caller]
fn read_to(world: &mut World, address: u64, blocks: u32) {
    let prps = world.hosts[GUEST].prps(address, u64::from(blocks) * 512);
    world.exec(GUEST, 1, sqe::read(NSID, 0, blocks, prps)).ok();
}

#[test]
fn r15_every_check_of_track_memory_changes_has_its_status() {
    check(
        World::new,
        &[
            ("one range", SUCCESS, |w| {
                let at = pages(w, 4);
                start(w, 0, &[(at, 4)])
            }),
            ("several ranges", SUCCESS, |w| {
                let ranges: Vec<_> = (0..8).map(|_| (pages(w, 1), 1)).collect();
                start(w, 0, &ranges)
            }),
            ("coarsest granularity", SUCCESS, |w| {
                let at = pages(w, 512);
                start(w, 9, &[(at, 1)])
            }),
            ("granularity above the maximum", INVALID_FIELD, |w| {
                let at = pages(w, 1024);
                start(w, 10, &[(at, 1)])
            }),
            ("granularity FFh", INVALID_FIELD, |w| {
                let at = pages(w, 4);
                start(w, 0xFF, &[(at, 1)])
            }),
            ("structure version 1", INVALID_FIELD, |w| {
                let mut bytes = structure(0, &[(pages(w, 4), 4)]);
                bytes[0] = 1;
                send(w, MANAGER, GUEST_ID, &bytes)
            }),
            ("more ranges than the controller has", NOT_ENOUGH_RESOURCES, |w| {
                let ranges: Vec<_> = (0..9).map(|_| (pages(w, 1), 1)).collect();
                start(w, 0, &ranges)
            }),
            ("range count FFFFFFFFh", NOT_ENOUGH_RESOURCES, |w| {
                let mut bytes = structure(0, &[(pages(w, 4), 4)]);
                bytes[4..8].fill(0xFF);
                send(w, MANAGER, GUEST_ID, &bytes)
            }),
            ("range not aligned to 4 KiB", INVALID_FIELD, |w| {
                let at = pages(w, 4);
                start(w, 0, &[(at + 512, 1)])
            }),
            ("range not aligned to its granularity", INVALID_FIELD, |w| {
                let at = pages(w, 16);
                start(w, 2, &[(at + 4096, 1)])
            }),
            ("second range not aligned", INVALID_FIELD, |w| {
                let at = pages(w, 16);
                start(w, 0, &[(at, 1), (at + 4096 + 8, 1)])
            }),
            ("length zero", INVALID_FIELD, |w| {
                let at = pages(w, 4);
                start(w, 0, &[(at, 0)])
            }),
            ("range past the end of the address space", INVALID_FIELD, |w| start(w, 0, &[(!0xFFF, 2)])),
            ("range outside the host's memory", INVALID_FIELD, |w| start(w, 0, &[(0x7777_0000_0000, 1)])),
            ("range partly outside the host's memory", INVALID_FIELD, |w| {
                let at = pages(w, 4);
                start(w, 0, &[(at, 5)])
            }),
            ("length that is no power of two", SUCCESS, |w| {
                let at = pages(w, 4);
                start(w, 0, &[(at, 3)])
            }),
            ("CNTLID that no controller has", INVALID_CONTROLLER, |w| {
                let bytes = structure(0, &[(pages(w, 4), 4)]);
                send(w, MANAGER, NOBODY_ID, &bytes)
            }),
            ("CNTLID of the processing controller", INVALID_CONTROLLER, |w| {
                let bytes = structure(0, &[(pages(w, 4), 4)]);
                send(w, MANAGER, MANAGER_ID, &bytes)
            }),
            ("CNTLID of another managing controller", INVALID_CONTROLLER, |w| {
                let bytes = structure(0, &[(pages(w, 4), 4)]);
                send(w, MANAGER, OTHER_MANAGER_ID, &bytes)
            }),
            ("target tracked by the same controller", INVALID_CONTROLLER, |w| {
                let at = pages(w, 4);
                start(w, 0, &[(at, 4)]).ok();
                start(w, 0, &[(at, 4)])
            }),
            ("target tracked by another controller", INVALID_CONTROLLER, |w| {
                let bytes = structure(0, &[(pages(w, 4), 4)]);
                send(w, OTHER_MANAGER, GUEST_ID, &bytes).ok();
                send(w, MANAGER, GUEST_ID, &bytes)
            }),
            ("another target", SUCCESS, |w| {
                let at = pages(w, 4);
                start(w, 0, &[(at, 4)]).ok();
                let other = w.memory(OTHER_GUEST).allocate(4096);
                send(w, MANAGER, OTHER_GUEST_ID, &structure(0, &[(other, 1)]))
            }),
            ("target suspended", SUSPENDED, |w| {
                let at = pages(w, 4);
                w.admin(MANAGER, sqe::suspend(GUEST_ID)).ok();
                start(w, 0, &[(at, 4)])
            }),
            ("started again after stop", SUCCESS, |w| {
                let at = pages(w, 4);
                start(w, 0, &[(at, 4)]).ok();
                w.admin(MANAGER, sqe::stop_memory_tracking(GUEST_ID)).ok();
                start(w, 0, &[(at, 4)])
            }),
            ("stop", SUCCESS, |w| {
                let at = pages(w, 4);
                start(w, 0, &[(at, 4)]).ok();
                w.admin(MANAGER, sqe::stop_memory_tracking(GUEST_ID))
            }),
            ("stop, CNTLID that no controller has", INVALID_CONTROLLER, |w| {
                w.admin(MANAGER, sqe::stop_memory_tracking(NOBODY_ID))
            }),
            ("stop does not look at the data buffer", SUCCESS, |w| {
                let at = pages(w, 4);
                start(w, 0, &[(at, 4)]).ok();
                w.admin(MANAGER, sqe::stop_memory_tracking(GUEST_ID).prp(0xDEAD_0000))
            }),
            ("TACT 2h is reserved", INVALID_FIELD, |w| {
                w.admin(MANAGER, sqe::stop_memory_tracking(GUEST_ID).or(10, 2 << 16))
            }),
            ("data that is not there", DATA_TRANSFER_ERROR, |w| {
                w.admin(MANAGER, sqe::start_memory_tracking(GUEST_ID, (0x7777_0000_0000, 0)))
            }),
            ("NSID 1", INVALID_FIELD, |w| w.admin(MANAGER, sqe::stop_memory_tracking(GUEST_ID).namespace(1))),
            ("opcode on a migratable controller", INVALID_OPCODE, |w| {
                w.admin(GUEST, sqe::stop_memory_tracking(OTHER_GUEST_ID))
            }),
        ],
    );
}

#[test]
fn r15_limits_of_granularity_and_length() {
    let mut world = World::with(|setup| {
        setup.manager(MANAGER).min_tracking_shift = 2;
        setup.manager(MANAGER).max_tracking_shift = 4;
    });
    let at = pages(&world, 512);
    for (exponent, expected) in
        [(0, INVALID_FIELD), (1, INVALID_FIELD), (2, SUCCESS), (4, SUCCESS), (5, INVALID_FIELD)]
    {
        let done = start(&mut world, exponent, &[(at, 1)]);
        assert_eq!(done.code, expected, "granularity exponent {exponent} of 2 to 4");
        world.admin(MANAGER, sqe::stop_memory_tracking(GUEST_ID)).ok();
    }
    let mut world = World::with(|setup| setup.manager(MANAGER).tracked_length_power_of_two = true);
    let at = pages(&world, 64);
    for granules in 1..=16_u32 {
        let expected = if granules.is_power_of_two() { SUCCESS } else { INVALID_FIELD };
        let done = start(&mut world, 0, &[(at, granules)]);
        assert_eq!(done.code, expected, "{granules} granules with lengths of powers of two");
        world.admin(MANAGER, sqe::stop_memory_tracking(GUEST_ID)).ok();
    }
}

#[test]
fn r15_limits_of_descriptors() {
    for (name, change, first, second, expected) in [
        (
            "CMMRTD 3, three",
            (|s: &mut Setup| s.manager(MANAGER).max_tracked_ranges = 3) as fn(&mut Setup),
            0,
            3,
            SUCCESS,
        ),
        ("CMMRTD 3, four", |s| s.manager(MANAGER).max_tracked_ranges = 3, 0, 4, NOT_ENOUGH_RESOURCES),
        ("NMMRTD 5, two after three", |s| s.config.max_tracked_ranges = 5, 3, 2, SUCCESS),
        ("NMMRTD 5, three after three", |s| s.config.max_tracked_ranges = 5, 3, 3, NOT_ENOUGH_RESOURCES),
    ] {
        let mut world = World::with(change);
        if first > 0 {
            let other: Vec<_> = (0..first).map(|_| (world.memory(OTHER_GUEST).allocate(4096), 1)).collect();
            send(&mut world, OTHER_MANAGER, OTHER_GUEST_ID, &structure(0, &other)).ok();
        }
        let ranges: Vec<_> = (0..second).map(|_| (pages(&world, 1), 1)).collect();
        assert_eq!(start(&mut world, 0, &ranges).code, expected, "{name}");
    }
}

#[test]
fn r15_a_managers_descriptors_are_counted_over_all_its_targets() {
    for (name, first_by, second, expected) in [
        ("two of its own and one", MANAGER, 1, SUCCESS),
        ("two of its own and two", MANAGER, 2, NOT_ENOUGH_RESOURCES),
        ("two of another manager and three", OTHER_MANAGER, 3, SUCCESS),
    ] {
        let mut world = World::with(|setup| setup.manager(MANAGER).max_tracked_ranges = 3);
        let other: Vec<_> = (0..2).map(|_| (world.memory(OTHER_GUEST).allocate(4096), 1)).collect();
        send(&mut world, first_by, OTHER_GUEST_ID, &structure(0, &other)).ok();
        let ranges: Vec<_> = (0..second).map(|_| (pages(&world, 1), 1)).collect();
        assert_eq!(start(&mut world, 0, &ranges).code, expected, "{name}");
    }
}

#[test]
fn r15_a_lack_of_bits_names_a_granularity_that_fits() {
    let mut world = World::with(|setup| setup.tracked_words = 1);
    let at = pages(&world, 256);
    let refused = start(&mut world, 0, &[(at, 256)]);
    assert_eq!(refused.code, NOT_ENOUGH_RESOURCES, "256 granules, 64 bits");
    let granularity = refused.dword0 & 0xFF;
    assert_eq!(granularity, 2, "four pages to a bit");
    assert!(refused.dword1 >= 1, "descriptors the controller supports");
    start(&mut world, 2, &[(at, 64)]).ok();
}

#[test]
fn r15_every_check_of_track_receive_has_its_status() {
    check(
        World::new,
        &[
            ("tracked", SUCCESS, |w| {
                let at = pages(w, 4);
                start(w, 0, &[(at, 4)]).ok();
                try_receive(w, MANAGER, GUEST_ID, 64)
            }),
            ("suspended", SUCCESS, |w| {
                let at = pages(w, 4);
                start(w, 0, &[(at, 4)]).ok();
                w.admin(MANAGER, sqe::suspend(GUEST_ID)).ok();
                try_receive(w, MANAGER, GUEST_ID, 64)
            }),
            ("CNTLID that no controller has", INVALID_CONTROLLER, |w| try_receive(w, MANAGER, NOBODY_ID, 64)),
            ("CNTLID of the processing controller", INVALID_CONTROLLER, |w| {
                try_receive(w, MANAGER, MANAGER_ID, 64)
            }),
            ("target that is not tracked", INVALID_CONTROLLER, |w| try_receive(w, MANAGER, GUEST_ID, 64)),
            ("target tracked by another controller", INVALID_CONTROLLER, |w| {
                let bytes = structure(0, &[(pages(w, 4), 4)]);
                send(w, OTHER_MANAGER, GUEST_ID, &bytes).ok();
                try_receive(w, MANAGER, GUEST_ID, 64)
            }),
            ("target no longer tracked", INVALID_CONTROLLER, |w| {
                let at = pages(w, 4);
                start(w, 0, &[(at, 4)]).ok();
                w.admin(MANAGER, sqe::stop_memory_tracking(GUEST_ID)).ok();
                try_receive(w, MANAGER, GUEST_ID, 64)
            }),
            ("SEL 1h is reserved", INVALID_FIELD, |w| {
                let at = pages(w, 4);
                start(w, 0, &[(at, 4)]).ok();
                let prps = w.hosts[MANAGER].buffer(64).1;
                w.admin(MANAGER, sqe::track_receive(GUEST_ID, 64, prps).or(10, 1))
            }),
            ("SEL FFh is reserved", INVALID_FIELD, |w| {
                let at = pages(w, 4);
                start(w, 0, &[(at, 4)]).ok();
                let prps = w.hosts[MANAGER].buffer(64).1;
                w.admin(MANAGER, sqe::track_receive(GUEST_ID, 64, prps).or(10, 0xFF))
            }),
            ("header alone, nothing changed", SUCCESS, |w| {
                let at = pages(w, 4);
                start(w, 0, &[(at, 4)]).ok();
                try_receive(w, MANAGER, GUEST_ID, 16)
            }),
            ("header alone, something changed", INVALID_FIELD, |w| {
                w.create_pair(GUEST, 1, 16);
                let at = pages(w, 4);
                start(w, 0, &[(at, 4)]).ok();
                read_to(w, at, 1);
                try_receive(w, MANAGER, GUEST_ID, 16)
            }),
            ("less than the header", INVALID_FIELD, |w| {
                let at = pages(w, 4);
                start(w, 0, &[(at, 4)]).ok();
                try_receive(w, MANAGER, GUEST_ID, 12)
            }),
            ("more than there is", SUCCESS, |w| {
                let at = pages(w, 4);
                start(w, 0, &[(at, 4)]).ok();
                try_receive(w, MANAGER, GUEST_ID, 65536)
            }),
            ("buffer that is not there", DATA_TRANSFER_ERROR, |w| {
                let at = pages(w, 4);
                start(w, 0, &[(at, 4)]).ok();
                w.admin(MANAGER, sqe::track_receive(GUEST_ID, 64, (0x7777_0000_0000, 0)))
            }),
            ("NSID 1", INVALID_FIELD, |w| {
                let at = pages(w, 4);
                start(w, 0, &[(at, 4)]).ok();
                let prps = w.hosts[MANAGER].buffer(64).1;
                w.admin(MANAGER, sqe::track_receive(GUEST_ID, 64, prps).namespace(1))
            }),
            ("opcode on a migratable controller", INVALID_OPCODE, |w| {
                try_receive(w, GUEST, OTHER_GUEST_ID, 64)
            }),
        ],
    );
}

#[test]
fn r15_a_controller_that_tracks_no_memory_has_neither_command() {
    let mut world = World::with(|setup| setup.manager(MANAGER).track_host_memory = false);
    let at = pages(&world, 4);
    assert_eq!(start(&mut world, 0, &[(at, 4)]).code, INVALID_FIELD, "SEL 1h is not supported");
    assert_eq!(try_receive(&mut world, MANAGER, GUEST_ID, 64).code, INVALID_OPCODE);
}

#[test]
fn r15_what_is_reported() {
    type Action = fn(&mut World, u64);
    type Ranges = &'static [(u64, u32)];
    // Memory at the address: 16 pages, all tracked with 4 KiB granules.
    let rows: [(&str, Action, Ranges); 9] = [
        ("nothing", |_, _| {}, &[]),
        ("data of a Read", |w, at| read_to(w, at + 4096, 1), &[(1, 1)]),
        ("data across two pages", |w, at| read_to(w, at + 2 * 4096 + 4096 - 512, 2), &[(2, 2)]),
        ("data of many pages over a list", |w, at| read_to(w, at, 64), &[(0, 8)]),
        (
            "two separate pages",
            |w, at| {
                read_to(w, at + 3 * 4096, 1);
                read_to(w, at + 9 * 4096, 1);
            },
            &[(3, 1), (9, 1)],
        ),
        (
            "the same page twice",
            |w, at| {
                read_to(w, at, 1);
                read_to(w, at + 512, 1);
            },
            &[(0, 1)],
        ),
        (
            "data of an admin command",
            |w, at| {
                w.admin(GUEST, sqe::identify(0x01, 0, 0, at + 5 * 4096)).ok();
            },
            &[(5, 1)],
        ),
        (
            "data that is only fetched",
            |w, at| {
                let prps = w.hosts[GUEST].prps(at, 512);
                w.exec(GUEST, 1, sqe::write(NSID, 0, 1, prps)).ok();
            },
            &[],
        ),
        (
            "data outside the ranges",
            |w, _| {
                let other = pages(w, 1);
                read_to(w, other, 1);
            },
            &[],
        ),
    ];
    for (name, action, expected) in rows {
        let mut world = World::new();
        world.create_pair(GUEST, 1, 64);
        let at = pages(&world, 16);
        start(&mut world, 0, &[(at, 16)]).ok();
        action(&mut world, at);
        let ranges: Vec<_> = expected.iter().map(|(page, count)| (at + page * 4096, *count)).collect();
        let report = receive(&mut world, 1024);
        assert_eq!(report, Report { ranges, ..clean() }, "{name}");
        assert_eq!(receive(&mut world, 1024), clean(), "{name}: a receive takes away what it reported");
    }
}

#[test]
fn r15_completions_are_changes_of_host_memory() {
    let mut world = World::new();
    let (sq, cq) = (pages(&world, 1), pages(&world, 1));
    world.admin(GUEST, sqe::create_cq(1, 16, 1, cq)).ok();
    world.admin(GUEST, sqe::create_sq(1, 1, 16, sq)).ok();
    world.hosts[GUEST].add_submission(1, sq, 16);
    world.hosts[GUEST].add_completion(1, cq, 16);
    start(&mut world, 0, &[(sq, 1), (cq, 1)]).ok();
    world.exec(GUEST, 1, sqe::flush(NSID)).ok();
    assert_eq!(receive(&mut world, 1024), Report { ranges: vec![(cq, 1)], ..clean() });
}

#[test]
fn r15_only_the_target_is_tracked() {
    let mut world = World::new();
    world.create_pair(OTHER_GUEST, 1, 64);
    let at = pages(&world, 4);
    world.memory(OTHER_GUEST).map(at, 4 * 4096);
    start(&mut world, 0, &[(at, 4)]).ok();
    world.exec(OTHER_GUEST, 1, sqe::read(NSID, 0, 1, (at, 0))).ok();
    assert_eq!(receive(&mut world, 1024), clean(), "another controller's address space");
}

#[test]
fn r15_coarse_granules_report_what_they_cover() {
    let mut world = World::new();
    world.create_pair(GUEST, 1, 64);
    let at = pages(&world, 64);
    start(&mut world, 2, &[(at, 16)]).ok();
    read_to(&mut world, at + 5 * 4096, 1);
    read_to(&mut world, at + 15 * 4096, 16);
    let expected = vec![(at + 4 * 4096, 1), (at + 12 * 4096, 2)];
    assert_eq!(receive(&mut world, 1024), Report { granularity: 2, ranges: expected, ..clean() });
}

#[test]
fn r15_more_to_report_until_all_is_reported() {
    let mut world = World::new();
    world.create_pair(GUEST, 1, 64);
    let at = pages(&world, 64);
    start(&mut world, 0, &[(at, 64)]).ok();
    for page in 0..20 {
        read_to(&mut world, at + page * 3 * 4096, 1);
    }
    let mut seen = Vec::new();
    loop {
        // Room for three descriptors.
        let report = receive(&mut world, 16 + 3 * 16);
        assert!(report.ranges.len() <= 3);
        seen.extend(report.ranges);
        if !report.more {
            break;
        }
        assert!(seen.len() <= 20, "it ends");
    }
    assert_eq!(seen, (0..20).map(|page| (at + page * 3 * 4096, 1)).collect::<Vec<_>>());
    assert_eq!(receive(&mut world, 1024), clean());
}

#[test]
fn r15_a_suspended_target_gives_a_final_report() {
    let mut world = World::new();
    world.create_pair(GUEST, 1, 64);
    let at = pages(&world, 4);
    start(&mut world, 0, &[(at, 4)]).ok();
    read_to(&mut world, at, 1);
    world.admin(MANAGER, sqe::suspend(GUEST_ID)).ok();
    let last = receive(&mut world, 1024);
    assert_eq!(last, Report { suspended: true, ranges: vec![(at, 1)], ..clean() });
    assert_eq!(receive(&mut world, 1024), Report { suspended: true, ..clean() });
    world.admin(MANAGER, sqe::resume(GUEST_ID)).ok();
    read_to(&mut world, at + 4096, 1);
    assert_eq!(receive(&mut world, 1024), Report { ranges: vec![(at + 4096, 1)], ..clean() });
}

#[test]
fn r15_a_receive_that_fails_loses_nothing() {
    let mut world = World::new();
    world.create_pair(GUEST, 1, 64);
    let at = pages(&world, 4);
    start(&mut world, 0, &[(at, 4)]).ok();
    read_to(&mut world, at, 1);
    let (address, prps) = world.hosts[MANAGER].buffer(64);
    world.memory(MANAGER).fail_writes(address, 64);
    let failed = world.admin(MANAGER, sqe::track_receive(GUEST_ID, 64, prps));
    assert_eq!(failed.code, DATA_TRANSFER_ERROR);
    world.memory(MANAGER).mend();
    assert_eq!(receive(&mut world, 64).ranges, [(at, 1)]);
}

#[test]
fn r15_what_ends_tracking() {
    type Action = fn(&mut World);
    let rows: [(&str, Action, bool); 6] = [
        ("nothing", |_| {}, true),
        ("stop", |w| _ = w.admin(MANAGER, sqe::stop_memory_tracking(GUEST_ID)).ok(), false),
        ("a reset of the manager", |w| w.reset(MANAGER), false),
        ("a reset of the other manager", |w| w.reset(OTHER_MANAGER), true),
        ("a reset of the target", |w| w.reset(GUEST), true),
        (
            "suspend and resume",
            |w| {
                w.admin(MANAGER, sqe::suspend(GUEST_ID)).ok();
                w.admin(MANAGER, sqe::resume(GUEST_ID)).ok();
            },
            true,
        ),
    ];
    for (name, action, goes_on) in rows {
        let mut world = World::new();
        let at = pages(&world, 4);
        start(&mut world, 0, &[(at, 4)]).ok();
        action(&mut world);
        let expected = if goes_on { SUCCESS } else { INVALID_CONTROLLER };
        assert_eq!(try_receive(&mut world, MANAGER, GUEST_ID, 64).code, expected, "{name}");
        let again = start(&mut world, 0, &[(at, 4)]).code;
        assert_eq!(again, if goes_on { INVALID_CONTROLLER } else { SUCCESS }, "{name}: a new start");
    }
}

#[test]
fn r15_the_start_reports_what_it_does() {
    let mut world = World::new();
    let at = pages(&world, 64);
    let done = start(&mut world, 3, &[(at, 2)]).ok();
    assert_eq!(done.dword0 & 0xFF, 3, "granularity in use");
    assert_eq!(done.dword1, 8, "descriptors the controller supports");
}

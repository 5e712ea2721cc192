// SPDX-License-Identifier: MIT OR Apache-2.0
//! Host-memory tracking: every check of Track Memory Changes and Track Receive, and what is reported.

mod harness;

use harness::{GUEST, MANAGER, NSID, Options, PAGE, Rig, code, id_of, pattern};
use nvme_controller::{ManagerConfig, SubsystemConfig};
use nvme_core::wire::nvm::{Read, Write};
use nvme_core::wire::track::{
    MemoryGranularity, MemoryRange, TrackMemoryRanges, TrackMemoryResult, TrackReceive, TrackSend,
    TrackedMemoryChanges,
};
use nvme_core::wire::{BusAddr, Command, CompletionQueueEntry, Lba, Status, SubmissionQueueEntry};

fn with(options: Options) -> Rig {
    let mut rig = Rig::with(options);
    for controller in 0..rig.ports.len() {
        rig.enable(controller);
    }
    rig
}

fn rig() -> Rig {
    with(Options::default())
}

fn data(exponent: u8, ranges: &[MemoryRange]) -> Vec<u8> {
    let mut data = vec![0; 8 + ranges.len() * 12];
    TrackMemoryRanges::build(&mut data, MemoryGranularity::new(exponent).unwrap(), ranges).unwrap();
    data
}

fn command(target: usize, start: bool) -> TrackSend {
    TrackSend::TrackMemoryChanges { start, controller: id_of(target) }
}

fn start(rig: &mut Rig, target: usize, exponent: u8, ranges: &[MemoryRange]) -> CompletionQueueEntry {
    rig.admin_data(MANAGER, &command(target, true), &data(exponent, ranges)).0
}

/// What the controller reports: changed ranges as (start, granules), more, suspended.
fn receive(rig: &mut Rig, dwords: u64) -> (Vec<(u64, u32)>, bool, bool) {
    let command = TrackReceive { controller: id_of(GUEST), dwords };
    let (entry, bytes) = rig.admin_data(MANAGER, &command, &vec![0; dwords as usize * 4]);
    assert_eq!(entry.status(), Status::SUCCESS);
    let changes = TrackedMemoryChanges::parse(&bytes).unwrap();
    assert_eq!(changes.controller(), id_of(GUEST));
    let ranges = changes.iter().map(|range| (range.start.get(), range.granules)).collect();
    (ranges, changes.more(), changes.suspended())
}

#[test]
fn track_memory_is_refused_with_the_status_of_its_violation() {
    let limits = ManagerConfig { min_tracking_shift: 0, max_tracking_shift: 3, ..ManagerConfig::default() };
    type Spoil = fn(&mut Vec<u8>, &mut SubmissionQueueEntry);
    let rows: [(&str, Spoil, u8, u8); 17] = [
        ("as it is", |_, _| {}, 0, 0x00),
        (
            "unknown controller",
            |_, entry| *entry = entry.with_dwords([0x1_0001, 0x7FFF, 0, 0, 0, 0]),
            1,
            0x1F,
        ),
        ("the manager itself", |_, entry| *entry = entry.with_dwords([0x1_0001, 0x10, 0, 0, 0, 0]), 1, 0x1F),
        ("reserved action", |_, entry| *entry = entry.with_dwords([0x2_0001, 0x13, 0, 0, 0, 0]), 0, 0x02),
        ("version", |data, _| data[0] = 1, 0, 0x02),
        ("granularity too coarse", |data, _| data[3] = 4, 0, 0x02),
        ("granularity impossible", |data, _| data[3] = 200, 0, 0x02),
        ("no descriptors", |data, _| data[4] = 0, 0, 0x02),
        ("more descriptors than there are slots", |data, _| data[4] = 9, 1, 0x38),
        ("more descriptors than there is memory for", |data, _| data[7] = 0xFF, 1, 0x38),
        ("start not aligned", |data, _| data[9] = 1, 0, 0x02),
        ("length 0", |data, _| data[16] = 0, 0, 0x02),
        ("past the end of the address space", |data, _| data[8..16].fill(0xF0), 0, 0x02),
        ("not host memory", |data, _| data[13] = 0x77, 0, 0x02),
        ("longer than what is mapped", |data, _| data[17] = 1, 0, 0x02),
        (
            "PRP not aligned to a dword",
            |_, entry| {
                *entry = entry.with_prps(entry.prp1().plus(2), BusAddr::new(0));
            },
            0,
            0x13,
        ),
        (
            "header split over two pages",
            |_, entry| {
                *entry = entry.with_prps(entry.prp1().plus(PAGE - 4), BusAddr::new(0));
            },
            0,
            0x13,
        ),
    ];
    for (name, spoil, kind, status) in rows {
        let mut rig = with(Options { manager: limits, ..Options::default() });
        let base = rig.allocate(GUEST, 16 * PAGE);
        let mut bytes = data(0, &[MemoryRange { start: base, granules: 16 }]);
        let mut entry = command(GUEST, true).encode();
        spoil(&mut bytes, &mut entry);
        let (prp1, _, _) = rig.buffer(MANAGER, &bytes);
        let entry = entry.with_prps(prp1.plus(entry.prp1().get()), BusAddr::new(0));
        let completion = rig.command(MANAGER, 0, entry);
        assert_eq!(completion.status().code(), code(kind, status), "{name}");
        let tracked = TrackReceive { controller: id_of(GUEST), dwords: 64 };
        let expected = if status == 0 { code(0, 0) } else { code(1, 0x1F) };
        assert_eq!(rig.admin_data(MANAGER, &tracked, &[0; 256]).0.status().code(), expected, "{name}");
    }
}

#[test]
fn tracking_depends_on_the_state_of_the_target() {
    let mut rig = with(Options { second_manager: true, ..Options::default() });
    let base = rig.allocate(GUEST, PAGE);
    let range = MemoryRange { start: base, granules: 1 };
    assert_eq!(rig.suspend(GUEST, false).status(), Status::SUCCESS);
    assert_eq!(start(&mut rig, GUEST, 0, &[range]).status().code(), code(1, 0x39), "suspended");
    assert_eq!(rig.resume(GUEST).status(), Status::SUCCESS);
    assert_eq!(start(&mut rig, GUEST, 0, &[range]).status(), Status::SUCCESS);
    assert_eq!(start(&mut rig, GUEST, 0, &[range]).status().code(), code(1, 0x1F), "tracked already");
    let other = rig.admin_data(3, &command(GUEST, true), &data(0, &[range])).0;
    assert_eq!(other.status().code(), code(1, 0x1F), "tracked by another manager");
    assert_eq!(
        rig.admin(3, &command(GUEST, false)).status().code(),
        code(1, 0x1F),
        "not that manager's to stop"
    );
    let foreign = TrackReceive { controller: id_of(GUEST), dwords: 64 };
    assert_eq!(rig.admin(3, &foreign).status().code(), code(1, 0x1F), "nor to read");
    assert_eq!(rig.admin(MANAGER, &command(GUEST, false)).status(), Status::SUCCESS);
    assert_eq!(rig.admin(MANAGER, &command(GUEST, false)).status(), Status::SUCCESS, "stopped twice");
    assert_eq!(rig.admin(MANAGER, &foreign).status().code(), code(1, 0x1F), "not tracked");
    assert_eq!(start(&mut rig, GUEST, 0, &[range]).status(), Status::SUCCESS, "started again");
}

#[test]
fn lacking_room_is_reported_with_what_there_is() {
    // 64 words are 4,096 granules.
    let mut rig = rig();
    let base = BusAddr::new(0x4000_0000);
    rig.memories[GUEST].map(base.get(), 5000 * PAGE);
    let range = |granules, exponent: u8| (MemoryRange { start: base, granules }, exponent);
    let (whole, fine) = range(5000, 0);
    let entry = start(&mut rig, GUEST, fine, &[whole]);
    assert_eq!(entry.status().code(), code(1, 0x38));
    let result = TrackMemoryResult::from_completion(&entry);
    assert_eq!((result.granularity, result.descriptors), (1, 8), "it would fit at twice the granule");
    let (coarse, exponent) = range(2500, 1);
    let entry = start(&mut rig, GUEST, exponent, &[coarse]);
    assert_eq!(entry.status(), Status::SUCCESS);
    assert_eq!(TrackMemoryResult::from_completion(&entry), result);
}

#[test]
fn limits_of_the_controller_and_the_subsystem() {
    for (name, of_one, of_all, status) in [
        ("room", 4, 4, code(0, 0)),
        ("CMMRTD exceeded", 1, 4, code(1, 0x38)),
        ("NMMRTD exceeded", 4, 3, code(1, 0x38)),
    ] {
        let manager = ManagerConfig { max_tracked_ranges: of_one, ..ManagerConfig::default() };
        let subsystem = SubsystemConfig { max_tracked_ranges: of_all, ..Options::default().subsystem };
        let mut rig = with(Options { manager, subsystem, ..Options::default() });
        for target in [GUEST + 1, GUEST] {
            let base = rig.allocate(target, 2 * PAGE);
            let ranges = [base, base.plus(PAGE)].map(|start| MemoryRange { start, granules: 1 });
            let entry = start(&mut rig, target, 0, &ranges);
            if target == GUEST {
                assert_eq!(entry.status().code(), status, "{name}");
            } else if of_one > 1 {
                assert_eq!(entry.status(), Status::SUCCESS, "{name}");
            }
        }
    }
}

#[test]
fn lengths_may_have_to_be_powers_of_two() {
    for (name, limited, granules, status) in [
        ("any length", false, 3, code(0, 0)),
        ("power of two", true, 4, code(0, 0)),
        ("no power of two", true, 3, code(0, 0x02)),
    ] {
        let manager = ManagerConfig { tracked_length_power_of_two: limited, ..ManagerConfig::default() };
        let mut rig = with(Options { manager, ..Options::default() });
        let base = rig.allocate(GUEST, 4 * PAGE);
        let entry = start(&mut rig, GUEST, 0, &[MemoryRange { start: base, granules }]);
        assert_eq!(entry.status().code(), status, "{name}");
    }
}

#[test]
fn managers_without_memory_tracking_have_neither_command() {
    let manager = ManagerConfig { track_host_memory: false, ..ManagerConfig::default() };
    let mut rig = with(Options { manager, ..Options::default() });
    assert_eq!(rig.admin(MANAGER, &command(GUEST, true)).status().code(), code(0, 0x02));
    let receive = TrackReceive { controller: id_of(GUEST), dwords: 64 };
    assert_eq!(rig.admin(MANAGER, &receive).status().code(), code(0, 0x01));
}

#[test]
fn track_receive_is_refused_with_the_status_of_its_violation() {
    let mut rig = rig();
    let base = rig.allocate(GUEST, PAGE);
    assert_eq!(
        start(&mut rig, GUEST, 0, &[MemoryRange { start: base, granules: 1 }]).status(),
        Status::SUCCESS
    );
    let good = TrackReceive { controller: id_of(GUEST), dwords: 64 }.encode();
    for (name, entry, kind, status) in [
        ("reserved select", good.with_dwords([1, 0x13, 63, 0, 0, 0]), 0, 0x02),
        ("unknown controller", good.with_dwords([0, 0x7FFF, 63, 0, 0, 0]), 1, 0x1F),
        ("controller that is not tracked", good.with_dwords([0, 0x16, 63, 0, 0, 0]), 1, 0x1F),
        ("no room for a change", good.with_dwords([0, 0x13, 6, 0, 0, 0]), 0, 0x02),
        ("namespace", good.with_namespace(NSID), 0, 0x02),
        ("as it is", good, 0, 0x00),
    ] {
        let (prp1, _, _) = rig.buffer(MANAGER, &[0; 256]);
        let completion = rig.command(MANAGER, 0, entry.with_prps(prp1, BusAddr::new(0)));
        assert_eq!(completion.status().code(), code(kind, status), "{name}");
    }
}

#[test]
fn r15_data_and_completions_are_reported_once() {
    let mut rig = rig();
    rig.create_pair(GUEST, 1, 16);
    let completions = rig.pairs[GUEST][&1].completion;
    let buffer = rig.allocate(GUEST, 4 * PAGE);
    let ranges =
        [MemoryRange { start: buffer, granules: 4 }, MemoryRange { start: completions, granules: 1 }];
    assert_eq!(start(&mut rig, GUEST, 0, &ranges).status(), Status::SUCCESS);
    assert_eq!(receive(&mut rig, 64), (vec![], false, false), "nothing written yet");

    let (entry, _) = rig.io_data(GUEST, 1, &Write::new(NSID, Lba::new(0), 8), &pattern(8, 1));
    assert_eq!(entry.status(), Status::SUCCESS);
    assert_eq!(receive(&mut rig, 64).0, [(completions.get(), 1)], "reading host memory changes nothing");

    let read =
        Read::new(NSID, Lba::new(0), 8).encode().with_prps(buffer.plus(PAGE + 512), buffer.plus(2 * PAGE));
    assert_eq!(rig.command(GUEST, 1, read).status(), Status::SUCCESS);
    let expected = vec![(buffer.get() + PAGE, 2), (completions.get(), 1)];
    assert_eq!(receive(&mut rig, 64), (expected, false, false));
    assert_eq!(receive(&mut rig, 64).0, [], "reported once");

    assert_eq!(rig.suspend(GUEST, false).status(), Status::SUCCESS);
    assert_eq!(receive(&mut rig, 64), (vec![], false, true), "final while suspended");
}

#[test]
fn r15_more_than_fits_is_announced_and_kept() {
    let mut rig = rig();
    rig.create_pair(GUEST, 1, 16);
    let buffer = rig.allocate(GUEST, 16 * PAGE);
    let start_of = |page: u64| buffer.plus(page * PAGE);
    assert_eq!(
        start(&mut rig, GUEST, 0, &[MemoryRange { start: buffer, granules: 16 }]).status(),
        Status::SUCCESS
    );
    for page in [1, 3, 5, 7, 8, 15] {
        let read = Read::new(NSID, Lba::new(0), 1).encode().with_prps(start_of(page), BusAddr::new(0));
        assert_eq!(rig.command(GUEST, 1, read).status(), Status::SUCCESS);
    }
    let address = |page: u64| start_of(page).get();
    // A header of 16 bytes and two descriptors of 16.
    assert_eq!(receive(&mut rig, 12), (vec![(address(1), 1), (address(3), 1)], true, false));
    let unreachable = TrackReceive { controller: id_of(GUEST), dwords: 12 }.encode();
    let completion =
        rig.command(MANAGER, 0, unreachable.with_prps(BusAddr::new(0x7777_0000), BusAddr::new(0)));
    assert_eq!(completion.status().code(), code(0, 0x04), "a report that does not arrive forgets nothing");
    assert_eq!(receive(&mut rig, 12), (vec![(address(5), 1), (address(7), 2)], true, false));
    assert_eq!(receive(&mut rig, 12), (vec![(address(15), 1)], false, false));
}

#[test]
fn r15_coarser_granules() {
    let mut rig = rig();
    rig.create_pair(GUEST, 1, 16);
    let base = BusAddr::new(0x8000_0000);
    rig.memories[GUEST].map(base.get(), 16 * PAGE);
    assert_eq!(
        start(&mut rig, GUEST, 2, &[MemoryRange { start: base, granules: 4 }]).status(),
        Status::SUCCESS
    );
    let read =
        Read::new(NSID, Lba::new(0), 2).encode().with_prps(base.plus(4 * PAGE - 512), base.plus(4 * PAGE));
    assert_eq!(rig.command(GUEST, 1, read).status(), Status::SUCCESS);
    assert_eq!(receive(&mut rig, 64).0, [(base.get(), 2)], "both sides of the border");
}

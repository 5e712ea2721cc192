// SPDX-License-Identifier: MIT OR Apache-2.0
//! Resets and what they do to migrations: every row of the table of effects.

mod harness;

use harness::lm::{create, create_entry, suspend_command};
use harness::{GUEST, MANAGER, NSID, Rig, code, id_of};
use nvme_core::wire::admin::{AsynchronousEventRequest, FeatureSelect, GetFeatures};
use nvme_core::wire::feature::{FeatureId, NumberOfQueues};
use nvme_core::wire::nvm::WriteZeroes;
use nvme_core::wire::track::{MemoryGranularity, MemoryRange, TrackMemoryRanges, TrackReceive, TrackSend};
use nvme_core::wire::{BusAddr, Command, Lba, Status};

fn rig() -> Rig {
    let mut rig = Rig::new();
    rig.enable(MANAGER);
    rig.enable(GUEST);
    rig.create_pair(GUEST, 1, 16);
    rig
}

fn reset(rig: &mut Rig, controller: usize) {
    rig.write32(controller, 0x14, 0);
    assert_eq!(rig.read32(controller, 0x1C), 0);
    rig.enable(controller);
}

fn zero(rig: &mut Rig, lba: u64) {
    let command = WriteZeroes::new(NSID, Lba::new(lba), 1);
    assert_eq!(rig.command(GUEST, 1, command.encode()).status(), Status::SUCCESS);
}

fn track(rig: &mut Rig) -> BusAddr {
    let base = rig.allocate(GUEST, 16 * 4096);
    let mut data = [0; 64];
    let range = MemoryRange { start: base, granules: 16 };
    TrackMemoryRanges::build(&mut data, MemoryGranularity::new(0).unwrap(), &[range]).unwrap();
    let command = TrackSend::TrackMemoryChanges { start: true, controller: id_of(GUEST) };
    assert_eq!(rig.admin_data(MANAGER, &command, &data).0.status(), Status::SUCCESS);
    base
}

fn tracked(rig: &mut Rig) -> bool {
    let command = TrackReceive { controller: id_of(GUEST), dwords: 1024 };
    rig.admin_data(MANAGER, &command, &[0; 4096]).0.status() == Status::SUCCESS
}

#[test]
fn r16_a_reset_of_the_manager_ends_queues_tracking_and_suspension() {
    let mut rig = rig();
    let mut queue = rig.data_queue(GUEST, 16);
    assert_eq!(rig.log(&queue, true).status(), Status::SUCCESS);
    track(&mut rig);
    assert_eq!(rig.suspend(GUEST, false).status(), Status::SUCCESS);
    let pending = rig.submit(GUEST, 1, WriteZeroes::new(NSID, Lba::new(1), 1).encode());
    assert_eq!(rig.said(&mut queue), ["first -", "suspended -"]);
    reset(&mut rig, MANAGER);
    rig.run();
    assert!(rig.take(GUEST, 1, pending).is_some(), "the guest runs again");
    assert!(rig.said(&mut queue).is_empty(), "nothing is posted any more");
    assert_eq!(rig.delete_queue(&queue).status().code(), code(1, 0x37));
    assert_eq!(rig.resume(GUEST).status().code(), code(1, 0x3A));
    assert!(!tracked(&mut rig));
    let mut again = rig.data_queue(GUEST, 16);
    assert_eq!(rig.log(&again, true).status(), Status::SUCCESS, "logging left nothing behind");
    zero(&mut rig, 3);
    assert_eq!(rig.said(&mut again), ["first -", "1:3+1"]);
}

#[test]
fn a_reset_of_the_guest_keeps_queue_and_tracking_and_removes_the_suspension() {
    let mut rig = rig();
    let mut queue = rig.data_queue(GUEST, 16);
    assert_eq!(rig.log(&queue, true).status(), Status::SUCCESS);
    track(&mut rig);
    assert_eq!(rig.suspend(GUEST, false).status(), Status::SUCCESS);
    reset(&mut rig, GUEST);
    assert_eq!(rig.resume(GUEST).status().code(), code(1, 0x3A), "no longer suspended");
    rig.create_pair(GUEST, 1, 16);
    zero(&mut rig, 5);
    assert_eq!(rig.said(&mut queue), ["first -", "suspended -", "first -", "1:5+1"]);
    assert!(tracked(&mut rig));
}

#[test]
fn a_reset_of_the_guest_drops_a_state_that_was_set() {
    let mut rig = rig();
    assert_eq!(rig.suspend(GUEST, false).status(), Status::SUCCESS);
    let image = rig.state(GUEST, false);
    reset(&mut rig, GUEST);
    assert_eq!(rig.suspend(GUEST, false).status(), Status::SUCCESS);
    assert_eq!(rig.set_state(GUEST, &image, false).status(), Status::SUCCESS);
    assert_eq!(rig.state(GUEST, false), image);
    reset(&mut rig, GUEST);
    let after = rig.state(GUEST, false);
    assert_eq!((after[50], after[52]), (0, 0), "its I/O queues are gone");
}

#[test]
fn a_reset_of_the_guest_ends_a_suspend_that_waits_for_it() {
    let mut rig = rig();
    for lba in 0..8 {
        rig.submit(GUEST, 1, WriteZeroes::new(NSID, Lba::new(lba), 1).encode());
    }
    rig.subsystem.fetch(8);
    let suspend = rig.submit(MANAGER, 0, suspend_command(GUEST, false).encode());
    rig.subsystem.poll(1);
    assert_eq!(rig.take(MANAGER, 0, suspend), None, "it waits");
    reset(&mut rig, GUEST);
    rig.run();
    let completion = rig.take(MANAGER, 0, suspend).expect("it ends");
    assert_eq!(completion.status().code(), code(1, 0x3A), "the guest is not suspended");
    rig.create_pair(GUEST, 1, 16);
    zero(&mut rig, 1);
}

#[test]
fn r8_a_subsystem_reset_ends_everything() {
    let mut rig = rig();
    let mut queue = rig.data_queue(GUEST, 16);
    assert_eq!(rig.log(&queue, true).status(), Status::SUCCESS);
    assert_eq!(rig.suspend(GUEST, false).status(), Status::SUCCESS);
    rig.said(&mut queue);
    rig.write32(MANAGER, 0x20, 0x1234);
    assert_eq!(rig.read32(GUEST, 0x1C), 1, "another value does nothing");
    rig.write32(MANAGER, 0x20, 0x4E56_4D65);
    for controller in 0..3 {
        assert_eq!(rig.read32(controller, 0x1C), 1 << 4, "NSSRO");
        assert_eq!((rig.read32(controller, 0x14), rig.read32(controller, 0x24)), (0, 0));
        rig.write32(controller, 0x1C, 1 << 4);
        assert_eq!(rig.read32(controller, 0x1C), 0);
        rig.enable(controller);
    }
    assert_eq!(rig.resume(GUEST).status().code(), code(1, 0x3A));
    assert_eq!(rig.delete_queue(&queue).status().code(), code(1, 0x37));
    assert!(rig.said(&mut queue).is_empty());
}

#[test]
fn a_controller_reset_keeps_admin_queue_properties_and_clears_the_rest() {
    let mut rig = rig();
    let granted = NumberOfQueues { submission: 1, completion: 1 };
    let features = GetFeatures::new(FeatureId::NUMBER_OF_QUEUES, FeatureSelect::Current);
    rig.write32(GUEST, 0x0C, 0xFF);
    let request = rig.submit(GUEST, 0, AsynchronousEventRequest.encode());
    rig.run();
    let before = [0x24, 0x28, 0x2C, 0x30, 0x34].map(|offset| rig.read32(GUEST, offset));
    rig.write32(GUEST, 0x14, 0);
    assert_eq!(before, [0x24, 0x28, 0x2C, 0x30, 0x34].map(|offset| rig.read32(GUEST, offset)));
    assert_eq!(rig.read32(GUEST, 0x0C), 0, "interrupt mask");
    rig.enable(GUEST);
    rig.write32(GUEST, 0x1000 + 9 * 8, 1);
    rig.run();
    assert_eq!(rig.take(GUEST, 0, request), None, "requests vanish without completion");
    assert_eq!(rig.admin_ok(GUEST, &granted.to_set_features()), granted.dword(), "may be set again");
    assert_eq!(rig.admin_ok(GUEST, &features), granted.dword());
    rig.create_pair(GUEST, 1, 16);
    let outside = rig.subsystem.port(id_of(GUEST)).unwrap();
    rig.subsystem.reset(outside);
    assert_eq!(rig.read32(GUEST, 0x24), 0, "a reset from outside clears them too");
}

#[test]
fn commands_under_way_are_dropped_by_a_reset() {
    let mut rig = rig();
    rig.submit(GUEST, 1, WriteZeroes::new(NSID, Lba::new(1), 1).encode());
    rig.subsystem.fetch(8);
    reset(&mut rig, GUEST);
    rig.create_pair(GUEST, 1, 16);
    rig.run();
    rig.collect(GUEST, 1);
    assert!(rig.arrived[GUEST].is_empty());
    zero(&mut rig, 2);
}

#[test]
fn r8_any_moment_of_a_migration_ends_in_running_after_a_reset_of_the_manager() {
    type Step = fn(&mut Rig);
    let steps: [(&str, Step); 5] = [
        ("queue created", |rig| drop(rig.data_queue(GUEST, 16))),
        ("logging", |rig| {
            let entry =
                nvme_core::wire::SubmissionQueueEntry::new(0x3D).with_dwords([0x1_0000, 0, 0, 0, 0, 0]);
            assert_eq!(rig.command(MANAGER, 0, entry).status(), Status::SUCCESS);
        }),
        ("suspended", |rig| assert_eq!(rig.suspend(GUEST, false).status(), Status::SUCCESS)),
        ("state read", |rig| assert!(!rig.state(GUEST, true).is_empty())),
        ("suspended again, queue deleted", |rig| {
            assert_eq!(rig.suspend(GUEST, true).status(), Status::SUCCESS)
        }),
    ];
    for end in 1..=steps.len() {
        let mut rig = rig();
        for (_, step) in &steps[..end] {
            step(&mut rig);
        }
        let (name, _) = steps[end - 1];
        reset(&mut rig, MANAGER);
        zero(&mut rig, 1);
        let base = rig.allocate(MANAGER, 4096);
        let entry = create_entry(create(id_of(GUEST), 32, true), base);
        assert_eq!(rig.command(MANAGER, 0, entry).status(), Status::SUCCESS, "after {name}");
    }
}

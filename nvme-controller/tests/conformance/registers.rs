// SPDX-License-Identifier: MIT OR Apache-2.0
//! Properties: bring-up with every combination, fatal status, doorbells and shutdown. NVMe Base 2.1 §3.1.4, Controller
//! Properties, §3.5 and §3.6.

use nvme_core::register::Offset;

use crate::harness::sqe;
use crate::harness::*;

#[test]
fn accesses_that_are_not_aligned_are_refused() {
    let mut world = World::new();
    let port = world.ports[GUEST];
    for offset in [1, 2, 3, 0x15, 0x1001] {
        assert!(world.subsystem.read32(port, Offset::new(offset)).is_err(), "read of {offset:#x}");
        assert!(world.subsystem.write32(port, Offset::new(offset), 0).is_err(), "write of {offset:#x}");
    }
    for offset in [4, 0x0C, 0x2C] {
        assert!(world.subsystem.read64(port, Offset::new(offset)).is_err(), "long read of {offset:#x}");
        assert!(world.subsystem.write64(port, Offset::new(offset), 0).is_err(), "long write of {offset:#x}");
    }
    assert!(world.is_ready(GUEST));
}

#[test]
fn what_a_controller_cannot_report_makes_it_fatal_until_a_reset() {
    type Fault = fn(&mut World);
    let faults: [(&str, Fault); 4] = [
        ("submission queue cannot be read", |w| {
            let base = w.hosts[GUEST].submission[&1].area.at(0);
            w.memory(GUEST).fail_reads(base, 1024);
        }),
        ("completion queue cannot be written", |w| {
            let base = w.hosts[GUEST].completion[&1].area.at(0);
            w.memory(GUEST).fail_writes(base, 256);
        }),
        ("submission queue is no longer mapped", |w| {
            let base = w.hosts[GUEST].submission[&1].area.at(0);
            w.memory(GUEST).unmap(base, 1024);
        }),
        ("completion queue is no longer mapped", |w| {
            let base = w.hosts[GUEST].completion[&1].area.at(0);
            w.memory(GUEST).unmap(base, 256);
        }),
    ];
    for (name, fault) in faults {
        let mut world = World::new();
        world.create_pair(GUEST, 1, 16);
        world.create_pair(OTHER_GUEST, 1, 16);
        let command = world.send(GUEST, 1, sqe::flush(NSID));
        fault(&mut world);
        world.ring(GUEST, 1);
        world.settle();
        assert!(world.is_fatal(GUEST), "{name}");
        assert!(!world.is_fatal(OTHER_GUEST) && !world.is_fatal(MANAGER), "{name}: the others go on");
        world.exec(OTHER_GUEST, 1, sqe::flush(NSID)).ok();
        let accesses = world.memory(GUEST).device_accesses();
        world.ring(GUEST, 1);
        world.settle();
        assert_eq!(world.memory(GUEST).device_accesses(), accesses, "{name}: nothing is processed any more");
        world.memory(GUEST).mend();
        world.reset(GUEST);
        assert_eq!(world.hosts[GUEST].take(1, command), None);
        world.create_pair(GUEST, 1, 16);
        world.exec(GUEST, 1, sqe::flush(NSID)).ok();
    }
}

#[test]
fn shutdown() {
    for (name, notification) in [("normal", 1), ("abrupt", 2)] {
        let mut world = World::new();
        world.create_pair(GUEST, 1, 16);
        world.exec(GUEST, 1, sqe::flush(NSID)).ok();
        let flushes = world.disk(NSID).flushes();
        world.write32(GUEST, CC, ENABLE | (notification << 14));
        world.settle();
        assert_eq!(world.read32(GUEST, CSTS) & 0x4C, 2 << 2, "{name}: complete, of the controller");
        if notification == 1 {
            assert!(world.disk(NSID).flushes() > flushes, "{name}: what was written is safe");
        }
        let accesses = world.memory(GUEST).device_accesses();
        world.submit(GUEST, 1, sqe::flush(NSID));
        world.settle();
        assert_eq!(world.memory(GUEST).device_accesses(), accesses, "{name}: nothing is fetched any more");
        world.admin(OTHER_GUEST, sqe::get_features(0x01, 0)).ok();
        world.reset(GUEST);
        assert_eq!(world.read32(GUEST, CSTS) & 0xC, 0, "{name}: normal operation again");
        world.create_pair(GUEST, 1, 16);
        world.exec(GUEST, 1, sqe::flush(NSID)).ok();
    }
}

#[test]
fn shutdown_waits_for_commands_that_were_fetched() {
    let mut world = World::new();
    world.create_pair(GUEST, 1, 16);
    let command = world.submit(GUEST, 1, sqe::flush(NSID));
    world.subsystem.fetch(64);
    world.write32(GUEST, CC, ENABLE | (1 << 14));
    world.run();
    assert_eq!(world.read32(GUEST, CSTS) & 0xC, 2 << 2);
    world.hosts[GUEST].take(1, command).expect("completed before the shutdown was").ok();
}

#[test]
fn after_a_shutdown_no_event_is_reported() {
    let mut world = World::new();
    let request = world.leave(GUEST, 0, sqe::event_request());
    world.write32(GUEST, CC, ENABLE | (1 << 14));
    world.settle();
    let accesses = world.memory(GUEST).device_accesses();
    world.write32(GUEST, 0x1000 + 8 * 200, 1);
    assert_eq!(world.event(GUEST, request), None);
    assert_eq!(world.memory(GUEST).device_accesses(), accesses);
}

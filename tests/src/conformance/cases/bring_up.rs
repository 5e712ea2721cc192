// SPDX-License-Identifier: MIT OR Apache-2.0
//! Bring-up from every state a controller can be found in: EN, RDY and CFS, and shutdown besides. NVMe Base 2.1 §3.5,
//! Controller Initialization.

use crate::conformance::backend::Backend;
use crate::conformance::world::sqe;
use crate::conformance::world::*;

type Prepare = fn(&mut World);

/// Admin queue attributes that no controller takes: it is fatal at once.
fn enable_badly(world: &mut World) {
    world.write32(GUEST, AQA, 0);
    world.write32(GUEST, CC, ENABLE);
    world.settle();
}

/// Breaks a controller that is ready: it cannot read a queue that lies nowhere.
fn break_down(world: &mut World) {
    world.enable(GUEST);
    let nowhere = world.memory(GUEST).unmapped();
    world.write32(GUEST, CC, ENABLE & !1);
    world.settle();
    world.write64(GUEST, ASQ, nowhere);
    world.write32(GUEST, CC, ENABLE);
    world.settle();
    world.write32(GUEST, 0x1000, 1);
    world.settle();
}

/// The states that can be brought about from outside, as (EN, RDY, CFS).
const STATES: [(&str, (u32, u32, u32), Prepare); 8] = [
    ("after power on", (0, 0, 0), |_| {}),
    ("disabled", (0, 0, 0), |w| {
        w.enable(GUEST);
        w.disable(GUEST);
    }),
    ("ready", (1, 1, 0), |w| w.enable(GUEST)),
    ("fatal before it was ready", (1, 0, 1), enable_badly),
    ("fatal while it was ready", (1, 1, 1), break_down),
    ("disabled after a failure", (0, 0, 0), |w| {
        enable_badly(w);
        w.disable(GUEST);
    }),
    ("ready and shut down", (1, 1, 0), |w| {
        w.enable(GUEST);
        w.write32(GUEST, CC, ENABLE | 1 << 14);
        w.settle();
    }),
    ("ready, with queues and commands", (1, 1, 0), |w| {
        w.enable(GUEST);
        w.create_pair(GUEST, 1, 16);
        for _ in 0..5 {
            w.send(GUEST, 1, sqe::flush(NSID));
        }
        w.ring(GUEST, 1);
        w.begin();
    }),
];

fn state(world: &World) -> (u32, u32, u32) {
    let status = world.read32(GUEST, CSTS);
    (world.read32(GUEST, CC) & 1, status & 1, status >> 1 & 1)
}

pub(crate) fn a_reset_and_an_enable_work_from_every_state(backend: &dyn Backend) {
    for (name, expected, prepare) in STATES {
        let mut world = Setup::new().build(backend);
        prepare(&mut world);
        assert_eq!(state(&world), expected, "{name}: EN, RDY, CFS");
        world.write32(GUEST, CC, 0);
        world.settle();
        assert_eq!(world.read32(GUEST, CSTS) & 0xF, 0, "{name}: a reset clears RDY, CFS and SHST");
        world.enable(GUEST);
        assert_eq!(state(&world), (1, 1, 0), "{name}");
        world.admin(GUEST, sqe::get_features(0x01, 0)).ok();
        world.create_pair(GUEST, 1, 16);
        world.exec(GUEST, 1, sqe::flush(NSID)).ok();
        assert_eq!(world.read32(GUEST, CSTS), 1, "{name}");
    }
}

pub(crate) fn a_function_level_reset_and_an_enable_work_from_every_state(backend: &dyn Backend) {
    for (name, _, prepare) in STATES {
        let mut world = Setup::new().build(backend);
        prepare(&mut world);
        world.function_level_reset(GUEST);
        world.settle();
        assert_eq!(state(&world), (0, 0, 0), "{name}: EN, RDY, CFS");
        assert_eq!((world.read32(GUEST, AQA), world.read64(GUEST, ASQ)), (0, 0), "{name}");
        world.enable(GUEST);
        world.create_pair(GUEST, 1, 16);
        world.exec(GUEST, 1, sqe::flush(NSID)).ok();
    }
}

pub(crate) fn writing_what_cc_holds_already_changes_nothing(backend: &dyn Backend) {
    for (name, expected, prepare) in STATES {
        let mut world = Setup::new().build(backend);
        prepare(&mut world);
        let (cc, csts) = (world.read32(GUEST, CC), world.read32(GUEST, CSTS));
        world.write32(GUEST, CC, cc);
        world.settle();
        assert_eq!((world.read32(GUEST, CC), world.read32(GUEST, CSTS)), (cc, csts), "{name}");
        assert_eq!(state(&world), expected, "{name}");
    }
}

pub(crate) fn a_fatal_controller_does_nothing_more(backend: &dyn Backend) {
    let mut world = World::new(backend);
    world.create_pair(OTHER_GUEST, 1, 16);
    break_down(&mut world);
    assert_eq!(state(&world), (1, 1, 1));
    world.interrupts();
    world.write32(GUEST, 0x1000, 2);
    world.settle();
    assert!(world.interrupts().iter().all(|(id, _)| *id != GUEST_ID), "it is silent");
    world.exec(OTHER_GUEST, 1, sqe::flush(NSID)).ok();
    // A migration of a broken guest must not hang its manager.
    world.admin(MANAGER, sqe::suspend(GUEST_ID)).ok();
    world.admin(MANAGER, sqe::resume(GUEST_ID)).ok();
    assert!(world.is_fatal(GUEST), "it stays what it is");
    world.reset(GUEST);
    world.admin(GUEST, sqe::get_features(0x01, 0)).ok();
}

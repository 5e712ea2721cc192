// SPDX-License-Identifier: MIT OR Apache-2.0
//! Set Features and Get Features. NVMe Base 2.1 §5.1.25 and §5.1.11.

use crate::harness::sqe;
use crate::harness::*;

fn set(world: &mut World, feature: u32, dword11: u32) -> Completion {
    world.admin(GUEST, sqe::set_features(feature, dword11))
}

fn get(world: &mut World, feature: u32) -> Completion {
    world.admin(GUEST, sqe::get_features(feature, 0))
}

#[test]
fn keep_alive() {
    let mut world = World::with(|setup| setup.config.keep_alive_granularity = 1);
    set(&mut world, 0x0F, 1000).ok();
    assert_eq!(get(&mut world, 0x0F).ok().dword0, 1000);
    world.subsystem.advance(900_000);
    world.admin(GUEST, sqe::Sqe::new(0x18)).ok();
    world.subsystem.advance(1_800_000);
    world.run();
    assert!(!world.is_fatal(GUEST), "kept alive");
    world.admin(GUEST, sqe::Sqe::new(0x18)).ok();
    world.subsystem.advance(3_000_000);
    world.run();
    assert!(world.is_fatal(GUEST), "expired");
    assert!(!world.is_fatal(OTHER_GUEST), "only where it was set");
    world.reset(GUEST);
    world.subsystem.advance(9_000_000);
    assert!(!world.is_fatal(GUEST), "a reset disables the timer");
}

#[test]
fn keep_alive_waits_while_suspended() {
    let mut world = World::with(|setup| setup.config.keep_alive_granularity = 1);
    set(&mut world, 0x0F, 1000).ok();
    world.admin(MANAGER, sqe::suspend(GUEST_ID)).ok();
    world.subsystem.advance(9_000_000);
    world.run();
    assert!(!world.is_fatal(GUEST), "a suspended controller takes no Keep Alive");
    world.admin(MANAGER, sqe::resume(GUEST_ID)).ok();
    world.subsystem.advance(9_900_000);
    assert!(!world.is_fatal(GUEST), "the interval begins with Resume");
    world.subsystem.advance(10_100_000);
    assert!(world.is_fatal(GUEST), "expired");
}

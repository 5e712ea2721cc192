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

#[test]
fn temperature_thresholds_are_two_and_of_one_sensor() {
    const OVER: u32 = 0;
    const UNDER: u32 = 1 << 20;
    const ALL_SENSORS: u32 = 0xF << 16;
    let mut world = World::new();
    set(&mut world, 4, OVER | 350).ok();
    set(&mut world, 4, UNDER | 280).ok();
    let got = |world: &mut World, select| world.admin(GUEST, sqe::get_features(4, select)).ok().dword0;
    assert_eq!((got(&mut world, OVER), got(&mut world, UNDER)), (350, 280), "apart from each other");
    set(&mut world, 4, ALL_SENSORS | UNDER | 290).ok();
    assert_eq!((got(&mut world, OVER), got(&mut world, UNDER)), (350, 290), "all sensors are the one");
    let rows = [
        ("another sensor", 3 << 16),
        ("the third threshold", 2 << 20),
        ("the fourth threshold", 3 << 20),
        ("another sensor's lower threshold", UNDER | 1 << 16),
    ];
    for (name, select) in rows {
        assert_eq!(set(&mut world, 4, select | 300).code, status::INVALID_FIELD, "set {name}");
        let got = world.admin(GUEST, sqe::get_features(4, select)).code;
        assert_eq!(got, status::INVALID_FIELD, "get {name}");
    }
    let all = world.admin(GUEST, sqe::get_features(4, ALL_SENSORS)).code;
    assert_eq!(all, status::INVALID_FIELD, "all sensors can only be set");
    assert_eq!((got(&mut world, OVER), got(&mut world, UNDER)), (350, 290), "as before");
}

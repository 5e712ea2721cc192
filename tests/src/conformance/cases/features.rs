// SPDX-License-Identifier: MIT OR Apache-2.0
//! Set Features and Get Features. NVMe Base 2.1 §5.1.25 and §5.1.11.

use crate::conformance::backend::Backend;
use crate::conformance::world::sqe;
use crate::conformance::world::status::*;
use crate::conformance::world::*;

fn set(world: &mut World, feature: u32, dword11: u32) -> Completion {
    world.admin(GUEST, sqe::set_features(feature, dword11))
}

fn get(world: &mut World, feature: u32) -> Completion {
    world.admin(GUEST, sqe::get_features(feature, 0))
}

pub(crate) fn every_check_of_features_has_its_status(backend: &dyn Backend) {
    check(
        backend,
        World::new,
        &[
            ("set, FID 0", INVALID_FIELD, |w| set(w, 0x00, 0)),
            ("set, unknown FID", INVALID_FIELD, |w| set(w, 0x7F, 0)),
            ("set, vendor FID", INVALID_FIELD, |w| set(w, 0xC0, 0)),
            ("set, Host Memory Buffer is absent with live migration", INVALID_FIELD, |w| set(w, 0x0D, 1)),
            ("get, unknown FID", INVALID_FIELD, |w| get(w, 0x7F)),
            ("get, Host Memory Buffer is absent with live migration", INVALID_FIELD, |w| get(w, 0x0D)),
            ("get, reserved Select", INVALID_FIELD, |w| get(w, 0x07 | (4 << 8))),
            ("set, SV=1", NOT_SAVEABLE, |w| set(w, 0x0B | (1 << 31), 0)),
            ("set, SV=1 of Number of Queues", NOT_SAVEABLE, |w| set(w, 0x07 | (1 << 31), 0)),
            ("set, feature that cannot be changed", NOT_CHANGEABLE, |w| set(w, 0x09, 0)),
            ("Number of Queues", SUCCESS, |w| set(w, 0x07, 0x0001_0001)),
            ("Number of Queues, NCQR FFFFh", INVALID_FIELD, |w| set(w, 0x07, 0xFFFF_0001)),
            ("Number of Queues, NSQR FFFFh", INVALID_FIELD, |w| set(w, 0x07, 0x0001_FFFF)),
            ("Number of Queues, FFFEh", SUCCESS, |w| set(w, 0x07, 0xFFFE_FFFE)),
            ("Number of Queues, second time", SEQUENCE_ERROR, |w| {
                set(w, 0x07, 0x0001_0001).ok();
                set(w, 0x07, 0x0001_0001)
            }),
            ("Number of Queues, after a queue was created", SEQUENCE_ERROR, |w| {
                w.create_completion(GUEST, 1, 16, 1);
                set(w, 0x07, 0x0001_0001)
            }),
            ("Number of Queues, again after a reset", SUCCESS, |w| {
                set(w, 0x07, 0x0001_0001).ok();
                w.reset(GUEST);
                set(w, 0x07, 0x0001_0001)
            }),
            ("Asynchronous Event Configuration", SUCCESS, |w| set(w, 0x0B, 0x1FF)),
            ("I/O Command Set Profile, the one combination", SUCCESS, |w| set(w, 0x19, 0)),
            ("I/O Command Set Profile, another", COMBINATION_REJECTED, |w| set(w, 0x19, 1)),
            ("Power Management, the one state", SUCCESS, |w| set(w, 0x02, 0)),
            ("Power Management, another state", INVALID_FIELD, |w| set(w, 0x02, 1)),
            ("Volatile Write Cache", SUCCESS, |w| set(w, 0x06, 0)),
            ("Keep Alive Timer without support", INVALID_FIELD, |w| set(w, 0x0F, 1000)),
            ("Interrupt Vector Configuration of the last vector", SUCCESS, |w| {
                w.admin(GUEST, sqe::get_features(0x09, 63))
            }),
            ("Interrupt Vector Configuration beyond the last", INVALID_FIELD, |w| {
                w.admin(GUEST, sqe::get_features(0x09, 64))
            }),
            ("Host Behavior Support", SUCCESS, |w| {
                let prps = w.hosts[GUEST].data(&[0; 512]);
                w.admin(GUEST, sqe::set_features(0x16, 0).prps(prps))
            }),
            ("Host Behavior Support, reserved value", INVALID_FIELD, |w| {
                let mut data = [0; 512];
                data[0] = 2;
                let prps = w.hosts[GUEST].data(&data);
                w.admin(GUEST, sqe::set_features(0x16, 0).prps(prps))
            }),
        ],
    );
}

pub(crate) fn a_namespace_on_a_feature_of_the_controller_is_refused(backend: &dyn Backend) {
    for (feature, dword11) in
        [(0x01, 3), (0x02, 0), (0x04, 0x150), (0x06, 1), (0x07, 1), (0x08, 0), (0x0B, 0), (0x19, 0)]
    {
        let mut world = World::new(backend);
        let code = world.admin(GUEST, sqe::set_features(feature, dword11).namespace(NSID)).code;
        // The specification allows either.
        assert!(matches!(code, NOT_NAMESPACE_SPECIFIC | INVALID_FIELD), "FID {feature:#x}: {code:?}");
    }
}

pub(crate) fn what_is_set_is_read_back(backend: &dyn Backend) {
    for (feature, value) in [
        (0x01, 0x0102_0304),
        (0x02, 0),
        (0x04, 0x0140),
        (0x06, 0),
        (0x06, 1),
        (0x08, 0x0A05),
        (0x0B, 0x0000_0100),
    ] {
        let mut world = World::new(backend);
        let default = get(&mut world, feature).ok().dword0;
        set(&mut world, feature, value).ok();
        assert_eq!(get(&mut world, feature).ok().dword0, value, "FID {feature:#x}: current");
        assert_eq!(get(&mut world, feature | (1 << 8)).ok().dword0, default, "FID {feature:#x}: default");
        assert_eq!(get(&mut world, feature | (2 << 8)).ok().dword0, default, "FID {feature:#x}: saved");
    }
}

pub(crate) fn the_number_of_queues_granted_is_what_exists_at_most(backend: &dyn Backend) {
    for (asked, granted) in [
        (0x0000_0000, 0x0000_0000),
        (0x0001_0002, 0x0001_0002),
        (0x0004_0004, 0x0004_0004),
        (0x0009_0009, 0x0004_0004),
        (0xFFFE_0000, 0x0004_0000),
    ] {
        let mut world = World::new(backend);
        assert_eq!(set(&mut world, 0x07, asked).ok().dword0, granted, "asked for {asked:#x}");
        assert_eq!(get(&mut world, 0x07).ok().dword0, granted);
    }
}

pub(crate) fn capabilities_tell_what_can_be_set(backend: &dyn Backend) {
    for (feature, expected) in [(0x01, 4), (0x07, 4), (0x0B, 4), (0x09, 0)] {
        let mut world = World::new(backend);
        let found = get(&mut world, feature | (3 << 8)).ok().dword0;
        assert_eq!(found & 7, expected, "FID {feature:#x}: changeable 4, namespace specific 2, saveable 1");
    }
}

pub(crate) fn host_behavior_support_is_512_bytes(backend: &dyn Backend) {
    let mut world = World::new(backend);
    let mut data = [0; 512];
    data[0] = 1;
    let prps = world.hosts[GUEST].data(&data);
    world.admin(GUEST, sqe::set_features(0x16, 0).prps(prps)).ok();
    let buffer = world.hosts[GUEST].allocate(4096);
    world.memory(GUEST).fill(buffer, &[0xEE; 1024]);
    world.admin(GUEST, sqe::get_features(0x16, 0).prp(buffer)).ok();
    assert_eq!(world.memory(GUEST).bytes(buffer, 512), data);
    assert_eq!(world.memory(GUEST).bytes(buffer + 512, 512), [0xEE; 512]);
}

pub(crate) fn features_belong_to_their_controller(backend: &dyn Backend) {
    let mut world = World::new(backend);
    set(&mut world, 0x0B, 0x100).ok();
    assert_eq!(world.admin(OTHER_GUEST, sqe::get_features(0x0B, 0)).ok().dword0, 0);
}

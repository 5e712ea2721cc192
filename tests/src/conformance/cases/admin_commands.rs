// SPDX-License-Identifier: MIT OR Apache-2.0
//! Abort beside the command it names, and every feature there and back. NVMe Base 2.1 §5.1.1, Abort command, and
//! §5.1.25, Set Features command.

use crate::conformance::backend::Backend;
use crate::conformance::world::sqe;
use crate::conformance::world::status::*;
use crate::conformance::world::*;

pub(crate) fn an_abort_in_the_queue_of_its_command_ends_both_once(backend: &dyn Backend) {
    // The Abort stands before or behind what it names, by so many commands.
    for distance in [-3_i32, -1, 1, 3] {
        for taken in [false, true] {
            let name = format!("distance {distance}, under way {taken}");
            let mut world = World::new(backend);
            let first = 0x500;
            let at = |place: i32| (first + place) as u16;
            let own = if distance < 0 { 4 } else { 0 };
            for place in 0..5 {
                let command =
                    if place == own { sqe::abort(0, at(own + distance)) } else { sqe::get_features(0x01, 0) };
                world.send_as(GUEST, 0, command, at(place));
            }
            world.ring(GUEST, 0);
            if taken {
                world.begin();
            }
            world.run();
            let abort = world.hosts[GUEST].take(0, at(own)).expect("the Abort completes").ok();
            assert_eq!(abort.dword0 & !1, 0, "{name}: reserved bits");
            for place in (0..5).filter(|place| *place != own) {
                let done = world.hosts[GUEST].take(0, at(place));
                let code = done.unwrap_or_else(|| panic!("{name}: command {place}")).code;
                let named = place == own + distance;
                let expected = if named && abort.dword0 == 0 { ABORT_REQUESTED } else { SUCCESS };
                assert_eq!(code, expected, "{name}: command {place}");
            }
            assert!(world.hosts[GUEST].done.is_empty(), "{name}: nothing completes twice");
        }
    }
}

pub(crate) fn an_abort_of_an_io_command_ends_it_once(backend: &dyn Backend) {
    for depth in [1, 2, 7, 15] {
        for victim in [0, depth / 2, depth - 1] {
            let name = format!("command {victim} of {depth}");
            let mut world = World::new(backend);
            world.create_pair(GUEST, 1, 16);
            let commands: Vec<u16> = (0..depth).map(|_| world.send(GUEST, 1, sqe::flush(NSID))).collect();
            world.ring(GUEST, 1);
            world.begin();
            let abort = world.submit(GUEST, 0, sqe::abort(1, commands[victim]));
            world.run();
            let aborted = world.hosts[GUEST].take(0, abort).expect("completes").ok().dword0 == 0;
            for (place, command) in commands.iter().enumerate() {
                let code = world.hosts[GUEST].take(1, *command).expect("completes").code;
                let expected = if place == victim && aborted { ABORT_REQUESTED } else { SUCCESS };
                assert_eq!(code, expected, "{name}: command {place}");
            }
            assert!(world.hosts[GUEST].done.is_empty(), "{name}");
        }
    }
}

pub(crate) fn aborting_half_of_a_fused_pair_ends_both_and_writes_nothing(backend: &dyn Backend) {
    for half in 0..2 {
        let mut world = World::new(backend);
        world.create_pair(GUEST, 1, 16);
        let (old, new) = (world.hosts[GUEST].data(&[0; 512]), world.hosts[GUEST].data(&[0x77; 512]));
        let pair = [
            world.send(GUEST, 1, sqe::compare(NSID, 4, 1, old).or(0, 1 << 8)),
            world.send(GUEST, 1, sqe::write(NSID, 4, 1, new).or(0, 2 << 8)),
        ];
        // The Abort may come first, because queues are in no order.
        let abort = world.submit(GUEST, 0, sqe::abort(1, pair[half]));
        world.ring(GUEST, 1);
        world.begin();
        world.run();
        let aborted = world.hosts[GUEST].take(0, abort).expect("completes").ok().dword0 == 0;
        let codes = pair.map(|command| world.hosts[GUEST].take(1, command).expect("completes").code);
        if aborted {
            assert_eq!(codes[half], ABORT_REQUESTED);
            assert_ne!(codes[1 - half], SUCCESS, "the other half does nothing alone");
        } else {
            assert_eq!(codes, [SUCCESS, SUCCESS]);
        }
        let byte = if aborted { 0 } else { 0x77 };
        assert_eq!(world.read_blocks(GUEST, NSID, 4, 1), [byte; 512]);
        assert!(world.hosts[GUEST].done.is_empty());
    }
}

pub(crate) fn aborts_up_to_the_limit_are_all_answered(backend: &dyn Backend) {
    for limit in [1, 4] {
        let mut world = World::with(backend, |setup| setup.config.abort_limit = limit);
        let identity = world.identify(GUEST, 0x01, 0, 0);
        assert_eq!(u16::from(identity[258]) + 1, limit, "ACL");
        for batch in [u32::from(limit), 10] {
            let commands: Vec<u16> = (0..batch).map(|_| world.send(GUEST, 0, sqe::abort(1, 1))).collect();
            world.ring(GUEST, 0);
            world.begin();
            world.run();
            let codes: Vec<Code> = commands
                .iter()
                .map(|command| world.hosts[GUEST].take(0, *command).expect("completes").code)
                .collect();
            assert!(codes.iter().all(|code| matches!(*code, SUCCESS | ABORT_LIMIT)), "{codes:?}");
            if batch == u32::from(limit) {
                assert!(codes.iter().all(|code| *code == SUCCESS), "within the limit: {codes:?}");
            }
        }
    }
}

/// Features that have a value in dword 11, with values to set one after the other.
const VALUES: [(u32, &str, &[u32]); 8] = [
    (0x01, "Arbitration", &[0, 7, 0x0102_0304, 0xFFFF_FF07]),
    (0x02, "Power Management", &[0]),
    (0x04, "Temperature Threshold", &[0x0140, 0x0180]),
    (0x06, "Volatile Write Cache", &[0, 1]),
    (0x08, "Interrupt Coalescing", &[0, 0x0A05, 0xFFFF]),
    (0x0A, "Write Atomicity Normal", &[0, 1]),
    (0x0B, "Asynchronous Event Configuration", &[0, 0x0000_0100, 0x1FF]),
    (0x19, "I/O Command Set Profile", &[0]),
];

pub(crate) fn every_feature_that_can_be_changed_goes_there_and_back(backend: &dyn Backend) {
    let mut found = 0;
    for feature in 1..0x100_u32 {
        let mut world = World::new(backend);
        let get =
            |world: &mut World, select: u32| world.admin(GUEST, sqe::get_features(feature | select << 8, 0));
        let capabilities = get(&mut world, 3);
        if capabilities.code != SUCCESS {
            assert_eq!(capabilities.code, INVALID_FIELD, "feature {feature:#x} is absent");
            continue;
        }
        assert_eq!(capabilities.dword0 & !7, 0, "feature {feature:#x}: reserved capabilities");
        found += 1;
        let Some((_, name, values)) = VALUES.iter().find(|(known, ..)| *known == feature) else { continue };
        let default = get(&mut world, 1).ok().dword0;
        assert_eq!(get(&mut world, 0).ok().dword0, default, "{name} begins with its default");
        if capabilities.dword0 & 4 == 0 {
            let code = world.admin(GUEST, sqe::set_features(feature, default)).code;
            assert_eq!(code, NOT_CHANGEABLE, "{name} says that it cannot be changed");
            continue;
        }
        for value in *values {
            world.admin(GUEST, sqe::set_features(feature, *value)).ok();
            assert_eq!(get(&mut world, 0).ok().dword0, *value, "{name} {value:#x}");
            assert_eq!(get(&mut world, 1).ok().dword0, default, "{name}: the default stays");
            let other = world.admin(OTHER_GUEST, sqe::get_features(feature, 0)).ok().dword0;
            assert_eq!(other, default, "{name} of another controller stays");
        }
        world.reset(GUEST);
        assert_eq!(get(&mut world, 0).ok().dword0, default, "{name}: a reset brings the default back");
    }
    assert!(found >= 8, "{found} features are there");
}

pub(crate) fn the_number_of_queues_goes_there_and_back_once(backend: &dyn Backend) {
    for (submission, completion) in [(0, 0), (1, 2), (4, 4), (9, 1)] {
        let mut world = World::new(backend);
        let asked = completion << 16 | submission;
        let granted = world.admin(GUEST, sqe::set_features(0x07, asked)).ok().dword0;
        let (queues, completions) = (granted & 0xFFFF, granted >> 16);
        assert!(queues <= submission && completions <= completion, "{granted:#x} for {asked:#x}");
        assert_eq!(world.admin(GUEST, sqe::get_features(0x07, 0)).ok().dword0, granted);
        // The last one granted exists, the next one does not.
        let memory = world.hosts[GUEST].allocate(4096);
        world.admin(GUEST, sqe::create_cq(completions as u16 + 1, 16, 0, memory)).ok();
        let beyond = world.admin(GUEST, sqe::create_cq(completions as u16 + 2, 16, 0, memory)).code;
        assert_eq!(beyond, INVALID_QUEUE_ID);
        world.reset(GUEST);
        world.admin(GUEST, sqe::set_features(0x07, 0)).ok();
    }
}

// SPDX-License-Identifier: MIT OR Apache-2.0
//! A reset of the manager and of the tracked controller in each state of a migration. NVMe Base 2.1 §8.1.12, Host
//! Managed Live Migration.

use crate::conformance::backend::Backend;
use crate::conformance::world::cdq::Cdq;
use crate::conformance::world::sqe;
use crate::conformance::world::status::*;
use crate::conformance::world::*;

struct Migration {
    world: World,
    queue: Option<Cdq>,
}

impl Migration {
    fn queue(&self) -> &Cdq {
        self.queue.as_ref().expect("created before")
    }

    #[track_caller]
    fn manage(&mut self, command: sqe::Sqe) {
        self.world.admin(MANAGER, command).ok();
    }

    fn state_part(&mut self, sequence: u32, offset: usize, bytes: &[u8]) {
        let command = self.world.state_part(MANAGER, GUEST_ID, sequence, (1, 0), offset as u64, bytes);
        self.manage(command);
    }
}

/// A step of a migration and whether the guest is suspended after it.
type Step = (&'static str, fn(&mut Migration), bool);

/// A source: each step is a state.
const SOURCE: [Step; 10] = [
    ("nothing begun", |_| {}, false),
    ("queue created", |m| m.queue = Some(m.world.create_cdq(MANAGER, GUEST_ID, 32)), false),
    (
        "trigger armed",
        |m| {
            let command = sqe::set_head_and_trigger(m.queue().id, 0, 3);
            m.manage(command);
        },
        false,
    ),
    (
        "log started",
        |m| {
            let command = sqe::start_log(m.queue().id);
            m.manage(command);
        },
        false,
    ),
    (
        "memory tracked",
        |m| {
            let at = m.world.memory(GUEST).allocate(4096);
            let bytes = [&[0, 0, 0, 0, 1, 0, 0, 0][..], &at.to_le_bytes(), &1_u32.to_le_bytes()].concat();
            let prps = m.world.hosts[MANAGER].data(&bytes);
            m.manage(sqe::start_memory_tracking(GUEST_ID, prps));
        },
        false,
    ),
    ("changes logged", |m| m.world.change_blocks(5), false),
    ("notified", |m| m.manage(sqe::notify_suspend(GUEST_ID)), false),
    (
        "suspend under way",
        |m| {
            for _ in 0..8 {
                m.world.send(GUEST, 1, sqe::flush(NSID));
            }
            m.world.ring(GUEST, 1);
            m.world.submit(MANAGER, 0, sqe::suspend(GUEST_ID));
            m.world.begin();
        },
        true,
    ),
    ("suspended", |m| m.world.run(), true),
    ("state read", |m| drop(m.world.get_image(MANAGER, GUEST_ID, (1, 0))), true),
];

/// A destination: its guest has no I/O queues.
const DESTINATION: [Step; 5] = [
    ("suspended", |m| m.manage(sqe::suspend(GUEST_ID)), true),
    (
        "state begun",
        |m| {
            let bytes = image::Image::empty().bytes();
            m.state_part(sqe::FIRST, 0, &bytes[..48]);
        },
        true,
    ),
    (
        "state begun again",
        |m| {
            let bytes = image::Image::empty().bytes();
            m.state_part(sqe::FIRST, 0, &bytes[..16]);
        },
        true,
    ),
    (
        "state going on",
        |m| {
            let bytes = image::Image::empty().bytes();
            m.state_part(sqe::MIDDLE, 16, &bytes[16..52]);
        },
        true,
    ),
    (
        "state committed",
        |m| {
            let bytes = image::Image::empty().bytes();
            m.state_part(sqe::LAST, 52, &bytes[52..]);
        },
        true,
    ),
];

type Reset = fn(&mut World, usize);

const RESETS: [(&str, Reset); 2] = [
    ("Controller Reset", |world, host| {
        world.write32(host, CC, ENABLE & !1);
        world.settle();
    }),
    ("function level reset", World::function_level_reset),
];

/// Brings a migration to the state after step `end` of `steps`.
fn at(backend: &dyn Backend, steps: &[Step], end: usize, source: bool) -> Migration {
    let mut migration = Migration { world: World::new(backend), queue: None };
    if source {
        migration.world.create_pair(GUEST, 1, 16);
    }
    for (_, step, _) in &steps[..=end] {
        step(&mut migration);
    }
    migration
}

/// Whether the guest takes a command now.
fn runs(world: &mut World) -> bool {
    let command = world.submit(GUEST, 0, sqe::get_features(0x01, 0));
    world.run();
    world.hosts[GUEST].take(0, command).is_some()
}

/// A whole new round works whatever was before: queue, log, suspend, resume.
fn goes_again(world: &mut World, name: &str) {
    if !world.hosts[GUEST].submission.contains_key(&1) {
        world.create_pair(GUEST, 1, 16);
    }
    let mut queue = world.create_cdq(MANAGER, GUEST_ID, 16);
    world.admin(MANAGER, sqe::start_log(queue.id)).ok();
    world.change_blocks(1);
    world.admin(MANAGER, sqe::suspend_and_delete(GUEST_ID)).ok();
    assert_eq!(queue.texts(), ["001b", "000b 1:1000+1", "011b"], "{name}");
    world.admin(MANAGER, sqe::resume(GUEST_ID)).ok();
    world.exec(GUEST, 1, sqe::flush(NSID)).ok();
}

pub(crate) fn a_reset_of_the_manager_in_each_state_ends_in_running(backend: &dyn Backend) {
    for (steps, source) in [(&SOURCE[..], true), (&DESTINATION[..], false)] {
        for (end, (step_name, _, suspended)) in steps.iter().enumerate() {
            for (reset_name, reset) in RESETS {
                let name = format!("{reset_name} of the manager, {step_name}");
                let mut migration = at(backend, steps, end, source);
                let world = &mut migration.world;
                // A suspend under way may be over or not.
                if *step_name != "suspend under way" {
                    assert_eq!(!runs(world), *suspended, "{name}: before");
                }
                let slots = migration.queue.as_ref().map(|queue| (queue.slot_address(0), 32 * 32));
                reset(world, MANAGER);
                world.run();
                assert!(!world.is_ready(MANAGER), "{name}");
                assert!(runs(world), "{name}: the guest runs");
                // The queue's memory is the host's again.
                if let Some((address, len)) = slots {
                    let before = world.memory(MANAGER).bytes(address, len);
                    world.change_blocks(3);
                    assert_eq!(
                        world.memory(MANAGER).bytes(address, len),
                        before,
                        "{name}: nothing is posted"
                    );
                }
                world.enable(MANAGER);
                if let Some(queue) = &migration.queue {
                    assert_eq!(world.admin(MANAGER, sqe::delete_cdq(queue.id)).code, INVALID_CDQ, "{name}");
                }
                assert_eq!(world.admin(MANAGER, sqe::resume(GUEST_ID)).code, NOT_SUSPENDED, "{name}");
                let request = world.submit(MANAGER, 0, sqe::event_request());
                assert_eq!(world.event(MANAGER, request), None, "{name}: no event of the life before");
                let prps = world.hosts[MANAGER].buffer(64).1;
                let tracking = world.admin(MANAGER, sqe::track_receive(GUEST_ID, 64, prps)).code;
                assert_ne!(tracking, SUCCESS, "{name}: memory is no longer tracked");
                goes_again(world, &name);
            }
        }
    }
}

pub(crate) fn a_reset_of_the_tracked_controller_in_each_state_keeps_the_managers_part(backend: &dyn Backend) {
    for (steps, source) in [(&SOURCE[..], true), (&DESTINATION[..], false)] {
        for (end, (step_name, ..)) in steps.iter().enumerate() {
            for (reset_name, reset) in RESETS {
                let name = format!("{reset_name} of the tracked controller, {step_name}");
                let mut migration = at(backend, steps, end, source);
                let world = &mut migration.world;
                reset(world, GUEST);
                world.run();
                world.enable(GUEST);
                let resumed = world.admin(MANAGER, sqe::resume(GUEST_ID)).code;
                // A suspend under way may come after the reset.
                let late = *step_name == "suspend under way" && resumed == SUCCESS;
                assert!(late || resumed == NOT_SUSPENDED, "{name}: {resumed:?}");
                assert!(runs(world), "{name}: enabled, it runs");
                // What was sent of a state is gone: it cannot be gone on with.
                world.admin(MANAGER, sqe::suspend(GUEST_ID)).ok();
                let rest = world.state_part(MANAGER, GUEST_ID, sqe::LAST, (1, 0), 48, &[0; 8]);
                assert_eq!(world.admin(MANAGER, rest).code, SEQUENCE_ERROR, "{name}");
                world.admin(MANAGER, sqe::resume(GUEST_ID)).ok();
                // The queue is the manager's: it is still there, its log goes on as it was, its entries in order.
                world.create_pair(GUEST, 1, 16);
                if let Some(mut queue) = migration.queue {
                    let logging = end >= SOURCE.iter().position(|step| step.0 == "log started").unwrap();
                    queue.take();
                    world.publish(&queue);
                    world.change_blocks(1);
                    let expected: &[&str] = if logging { &["000b 1:1000+1"] } else { &[] };
                    assert_eq!(queue.texts(), expected, "{name}");
                    world.admin(MANAGER, sqe::delete_cdq(queue.id)).ok();
                }
                goes_again(world, &name);
            }
        }
    }
}

pub(crate) fn a_subsystem_reset_in_each_state_leaves_nothing(backend: &dyn Backend) {
    for (steps, source) in [(&SOURCE[..], true), (&DESTINATION[..], false)] {
        for (end, (step_name, ..)) in steps.iter().enumerate() {
            let name = format!("subsystem reset, {step_name}");
            let mut migration = at(backend, steps, end, source);
            let world = &mut migration.world;
            world.write32(MANAGER, NSSR, 0x4E56_4D65);
            world.settle();
            for host in 0..4 {
                assert!(!world.is_ready(host), "{name}");
                world.enable(host);
            }
            assert!(runs(world), "{name}");
            assert_eq!(world.admin(MANAGER, sqe::resume(GUEST_ID)).code, NOT_SUSPENDED, "{name}");
            goes_again(world, &name);
        }
    }
}

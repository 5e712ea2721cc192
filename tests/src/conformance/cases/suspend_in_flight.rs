// SPDX-License-Identifier: MIT OR Apache-2.0
//! Suspend with I/O in flight, from one command to full queues, and a guest that rings what it likes meanwhile. NVMe
//! Base 2.1 §5.1.17.1.1, Suspend.

use crate::conformance::backend::Backend;
use crate::conformance::world::sqe;
use crate::conformance::world::status::*;
use crate::conformance::world::*;

/// Entries of the guest's queues; full is one less.
const ENTRIES: u32 = 16;
const ROUNDS: u32 = 1000;

/// Numbers from a seed (SplitMix64), so that every run is the same.
struct Dice(u64);

impl Dice {
    fn below(&mut self, limit: u32) -> u32 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        ((mixed ^ (mixed >> 31)) % u64::from(limit)) as u32
    }
}

pub(crate) fn suspend_with_io_in_flight_from_depth_one_to_full_a_thousand_times(backend: &dyn Backend) {
    let seed = 0x5EED_0001;
    println!("seed {seed:#x}");
    let mut dice = Dice(seed);
    let mut world = World::new(backend);
    let mut queue = world.logged_guest(ENTRIES * 4);
    world.create_pair(GUEST, 2, ENTRIES);
    world.admin(GUEST, sqe::delete_sq(1)).ok();
    world.admin(GUEST, sqe::delete_cq(1)).ok();
    world.create_pair(GUEST, 1, ENTRIES);
    // A page for each command, used again and again.
    let pages: Vec<u64> = (0..ENTRIES * 2).map(|_| world.hosts[GUEST].allocate(512)).collect();
    for round in 0..ROUNDS {
        let depth = round % (ENTRIES - 1) + 1;
        let name = format!("round {round}, depth {depth}");
        let byte = (round % 251) as u8 + 1;
        let mut sent = Vec::new();
        for queue in [1, 2] {
            for index in 0..depth {
                let block = u64::from(queue - 1) * 1000 + u64::from(index) * 2;
                let page = pages[(u32::from(queue - 1) * ENTRIES + index) as usize];
                world.memory(GUEST).fill(page, &[byte; 512]);
                let command = world.send(GUEST, queue, sqe::write(NSID, block, 1, (page, 0)));
                sent.push((queue, command, block));
            }
        }
        world.ring(GUEST, 1);
        world.ring(GUEST, 2);
        // The suspend meets the commands at any point of their way.
        match dice.below(4) {
            0 => {}
            1 => world.begin(),
            2 => (0..dice.below(8)).for_each(|_| world.work_a_little()),
            _ => {
                world.begin();
                (0..dice.below(2 * depth)).for_each(|_| world.work_a_little());
            }
        }
        world.admin(MANAGER, sqe::suspend(GUEST_ID)).ok();
        // Each completed command is in the log, the marker is last, and nothing else is there.
        world.harvest_all();
        let entries = queue.take();
        let (marker, changes) = entries.split_last().unwrap_or_else(|| panic!("{name}: no marker"));
        assert_eq!(marker.sequence, 3, "{name}: {entries:?}");
        assert!(changes.iter().all(|entry| entry.sequence == 0), "{name}: {entries:?}");
        let logged = |block: u64| {
            changes.iter().any(|entry| (entry.slba..=entry.slba + u64::from(entry.nlb)).contains(&block))
        };
        let mut open = Vec::new();
        for (queue, command, block) in sent {
            match world.hosts[GUEST].take(queue, command) {
                Some(done) => {
                    done.ok();
                    assert!(logged(block), "{name}: block {block} was completed and not logged");
                }
                None => {
                    assert!(!logged(block), "{name}: block {block} was logged and not completed");
                    open.push((queue, command));
                }
            }
        }
        // Suspended is suspended.
        world.publish(&queue);
        world.run();
        assert!(world.hosts[GUEST].done.is_empty() && queue.take().is_empty(), "{name}: it goes on");
        world.admin(MANAGER, sqe::resume(GUEST_ID)).ok();
        world.run();
        for (queue, command) in &open {
            let done = world.hosts[GUEST].take(*queue, *command);
            done.unwrap_or_else(|| panic!("{name}: a command is lost")).ok();
        }
        assert!(world.hosts[GUEST].done.is_empty(), "{name}: completed twice");
        let entries = queue.take();
        assert_eq!(entries.first().map(|entry| entry.sequence), Some(1), "{name}: {entries:?}");
        world.publish(&queue);
    }
}

pub(crate) fn suspend_and_resume_in_one_batch_with_io_in_flight(backend: &dyn Backend) {
    for depth in 1..ENTRIES {
        let mut world = World::new(backend);
        world.create_pair(GUEST, 1, ENTRIES);
        let guest: Vec<u16> = (0..depth).map(|_| world.send(GUEST, 1, sqe::flush(NSID))).collect();
        world.ring(GUEST, 1);
        let manager = [sqe::suspend(GUEST_ID), sqe::resume(GUEST_ID), sqe::suspend(GUEST_ID)]
            .map(|command| world.send(MANAGER, 0, command));
        world.ring(MANAGER, 0);
        world.begin();
        world.run();
        // Commands are in no order, so Resume may meet a controller that is not suspended yet.
        let codes = manager.map(|command| world.hosts[MANAGER].take(0, command).expect("completes").code);
        assert!(matches!(codes, [SUCCESS, SUCCESS | NOT_SUSPENDED, SUCCESS]), "depth {depth}: {codes:?}");
        world.admin(MANAGER, sqe::resume(GUEST_ID)).ok();
        for command in guest {
            world.hosts[GUEST].take(1, command).expect("completes once").ok();
        }
        assert!(world.hosts[GUEST].done.is_empty(), "depth {depth}");
    }
}

pub(crate) fn wrong_doorbells_during_a_suspension_are_told_after_it(backend: &dyn Backend) {
    const REGISTER: u32 = 0x0001_0000;
    const VALUE: u32 = 0x0001_0100;
    let rows: [(&str, u32, u32, Option<u32>); 9] = [
        ("tail is the size", 0x1008, 8, Some(VALUE)),
        ("tail FFFFh", 0x1008, 0xFFFF, Some(VALUE)),
        ("tail overtakes the head", 0x1008, 1, None),
        ("head is the size", 0x100C, 8, Some(VALUE)),
        ("head past the tail", 0x100C, 7, Some(VALUE)),
        ("head unchanged", 0x100C, 3, Some(VALUE)),
        ("queue that does not exist", 0x1000 + 8 * 4, 1, Some(REGISTER)),
        ("queue beyond all", 0x1000 + 8 * 300, 1, Some(REGISTER)),
        ("admin tail is the size", 0x1000, 32, Some(VALUE)),
    ];
    for (name, offset, value, event) in rows {
        let mut world = World::new(backend);
        world.create_pair(GUEST, 1, 8);
        world.create_pair(GUEST, 2, 8);
        for _ in 0..3 {
            world.exec(GUEST, 1, sqe::flush(NSID)).ok();
        }
        let request = world.leave(GUEST, 0, sqe::event_request());
        world.admin(MANAGER, sqe::suspend(GUEST_ID)).ok();
        let latched = world.submit(GUEST, 2, sqe::flush(NSID));
        world.write32(GUEST, offset, value);
        assert_eq!(world.event(GUEST, request), None, "{name}: a suspended controller is silent");
        assert_eq!(world.read32(GUEST, CSTS), 1, "{name}");
        // The state can be read, and Resume works, whatever the guest rang.
        world.get_image(MANAGER, GUEST_ID, (1, 0));
        world.admin(MANAGER, sqe::resume(GUEST_ID)).ok();
        if let Some(event) = event {
            assert_eq!(world.event(GUEST, request), Some((event, 0)), "{name}");
        }
        world.run();
        world.hosts[GUEST].take(2, latched).unwrap_or_else(|| panic!("{name}: the other queue goes on")).ok();
        assert!(!world.is_fatal(GUEST), "{name}");
        world.reset(GUEST);
        world.create_pair(GUEST, 1, 8);
        world.exec(GUEST, 1, sqe::flush(NSID)).ok();
    }
}

pub(crate) fn unmasking_during_a_suspension_interrupts_after_it(backend: &dyn Backend) {
    let mut world = World::new(backend);
    world.create_pair(GUEST, 1, 8);
    world.hosts[GUEST].held.insert(1);
    // INTMS and INTMC, vector 1.
    world.write32(GUEST, 0x0C, 1 << 1);
    world.submit(GUEST, 1, sqe::flush(NSID));
    world.run();
    world.admin(MANAGER, sqe::suspend(GUEST_ID)).ok();
    world.interrupts();
    world.write32(GUEST, 0x10, 1 << 1);
    world.run();
    let told = |world: &World| world.interrupts().contains(&(GUEST_ID, 1));
    assert!(!told(&world), "a suspended controller interrupts nobody");
    world.admin(MANAGER, sqe::resume(GUEST_ID)).ok();
    world.run();
    assert!(told(&world), "the completion is told of after Resume");
}

pub(crate) fn a_suspend_with_full_completion_queues_ends_and_loses_nothing(backend: &dyn Backend) {
    for entries in [2, 3, 5, 8] {
        let mut world = World::new(backend);
        world.create_completion(GUEST, 1, entries, 1);
        world.create_submission(GUEST, 1, 1, 16);
        world.hosts[GUEST].held.insert(1);
        let commands: Vec<u16> = (0..15).map(|_| world.send(GUEST, 1, sqe::flush(NSID))).collect();
        world.ring(GUEST, 1);
        world.settle();
        let suspend = world.submit(MANAGER, 0, sqe::suspend(GUEST_ID));
        world.run();
        let mut early = world.hosts[MANAGER].take(0, suspend);
        // A controller that took more than it can complete waits for its guest.
        for _ in 0..16 {
            if early.is_some() {
                break;
            }
            world.harvest_some(GUEST, 1, 1);
            world.run();
            early = world.hosts[MANAGER].take(0, suspend);
        }
        early.expect("Suspend completes").ok();
        world.admin(MANAGER, sqe::resume(GUEST_ID)).ok();
        world.hosts[GUEST].held.clear();
        world.run();
        for command in commands {
            world.hosts[GUEST].take(1, command).expect("none is lost").ok();
        }
        assert!(world.hosts[GUEST].done.is_empty(), "{entries} slots");
    }
}

pub(crate) fn a_guest_goes_on_elsewhere_with_what_it_had_in_flight(backend: &dyn Backend) {
    for depth in [0, 1, 7, 15] {
        for vendor in [0, 1] {
            let name = format!("depth {depth}, vendor part {vendor}");
            let mut source = World::new(backend);
            let formats = source.identify(MANAGER, 0x20, 0, 0);
            if vendor > formats[1] {
                continue;
            }
            source.create_pair(GUEST, 1, ENTRIES);
            for _ in 0..5 {
                source.exec(GUEST, 1, sqe::flush(NSID)).ok();
            }
            let commands: Vec<u16> = (0..depth)
                .map(|index| {
                    let data = source.hosts[GUEST].data(&[index as u8 + 1; 512]);
                    source.send(GUEST, 1, sqe::write(NSID, index, 1, data))
                })
                .collect();
            source.ring(GUEST, 1);
            source.begin();
            source.work_a_little();
            source.admin(MANAGER, sqe::suspend(GUEST_ID)).ok();
            let image = source.get_image(MANAGER, GUEST_ID, (1, vendor));
            // The guest's memory is the same; its blocks are not part of a controller's state.
            let mut target = source.beside(backend);
            let admin = target.hosts[GUEST].clone();
            target.admin(MANAGER, sqe::suspend(GUEST_ID)).ok();
            target.set_image(MANAGER, GUEST_ID, (1, vendor), &image).ok();
            target.hosts[GUEST] = source.hosts[GUEST].clone();
            if vendor == 0 {
                // Without a vendor part the admin queue is the one that the destination's host has set up.
                target.hosts[GUEST].submission.insert(0, admin.submission[&0].clone());
                target.hosts[GUEST].completion.insert(0, admin.completion[&0].clone());
            }
            target.admin(MANAGER, sqe::resume(GUEST_ID)).ok();
            target.run();
            for command in commands {
                let done = target.hosts[GUEST].take(1, command);
                done.unwrap_or_else(|| panic!("{name}: a command is lost")).ok();
            }
            assert!(target.hosts[GUEST].done.is_empty(), "{name}");
            for _ in 0..40 {
                target.exec(GUEST, 1, sqe::flush(NSID)).ok();
            }
            target.admin(GUEST, sqe::get_features(0x01, 0)).ok();
        }
    }
}

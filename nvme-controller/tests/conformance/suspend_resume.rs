// SPDX-License-Identifier: MIT OR Apache-2.0
//! Suspend and Resume: every status, and what a suspended controller does and does not do. NVMe Base 2.1 §5.1.17,
//! Migration Send command.

use crate::harness::sqe;
use crate::harness::*;

fn suspended() -> World {
    let mut world = World::new();
    world.create_pair(GUEST, 1, 16);
    world.admin(MANAGER, sqe::suspend(GUEST_ID)).ok();
    world
}

fn read_of(world: &World, host: usize) -> sqe::Sqe {
    sqe::read(NSID, 0, 1, world.hosts[host].buffer(512).1)
}

#[test]
fn r9_suspend_completes_after_every_fetched_command() {
    for fetched in 1..=5 {
        let mut world = World::new();
        world.create_pair(GUEST, 1, 16);
        let guest: Vec<u16> = (0..5)
            .map(|_| {
                let read = read_of(&world, GUEST);
                world.send(GUEST, 1, read)
            })
            .collect();
        world.ring(GUEST, 1);
        assert_eq!(world.subsystem.fetch(fetched), fetched);
        let suspend = world.submit(MANAGER, 0, sqe::suspend(GUEST_ID));
        // The queue of completions is looked at the moment the Suspend is completed.
        let (memory, base) = (world.memory(GUEST), world.hosts[GUEST].completion[&1].area.at(0));
        let acq = world.read64(MANAGER, ACQ);
        let seen = std::rc::Rc::new(std::cell::Cell::new(None));
        let at_completion = seen.clone();
        world.memory(MANAGER).watch(move |address, _| {
            if (acq..acq + 32 * 16).contains(&address) {
                let done = (0..16).filter(|slot| memory.bytes(base + slot * 16 + 14, 1)[0] & 1 == 1).count();
                at_completion.set(Some(done as u32));
            }
        });
        world.run();
        world.hosts[MANAGER].take(0, suspend).expect("Suspend completes").ok();
        let done = seen.get().expect("a completion was seen");
        assert!(done >= fetched, "{done} of {fetched} fetched commands were completed before the Suspend");
        let after = world.hosts[GUEST].done.len() as u32;
        assert_eq!(after, done, "nothing completes once the Suspend did");
        world.admin(MANAGER, sqe::resume(GUEST_ID)).ok();
        for command in guest {
            world.hosts[GUEST].take(1, command).expect("every command completes once").ok();
        }
        assert!(world.hosts[GUEST].done.is_empty());
    }
}

#[test]
fn r7_a_suspended_controller_accesses_no_memory_and_interrupts_nobody() {
    let mut world = suspended();
    world.interrupts.take();
    let accesses = world.memory(GUEST).device_accesses();
    let read = read_of(&world, GUEST);
    let io = world.submit(GUEST, 1, read);
    let admin = world.submit(GUEST, 0, sqe::set_features(0x0B, 0));
    world.write32(GUEST, 0x1000 + 5 * 8, 1);
    world.run();
    // Peer-to-peer accesses would be accesses of this address space too.
    assert_eq!(world.memory(GUEST).device_accesses(), accesses, "neither reads nor writes");
    assert!(world.interrupts.take().iter().all(|(id, _)| *id != GUEST_ID));
    world.admin(MANAGER, sqe::resume(GUEST_ID)).ok();
    world.hosts[GUEST].take(1, io).expect("the I/O queue is fetched again").ok();
    world.hosts[GUEST].take(0, admin).expect("the admin queue is fetched again").ok();
    assert!(world.interrupts.take().contains(&(GUEST_ID, 1)));
}

#[test]
fn any_budget_of_a_poll_does_the_same() {
    for budget in [1, 2, 3, 5, 1000] {
        let mut world = World::new();
        world.budget = budget;
        let mut queue = world.logged_guest(32);
        for round in 0..4 {
            let commands: Vec<u16> = (0..9)
                .map(|index| {
                    let prps = world.hosts[GUEST].data(&[1; 512]);
                    world.send(GUEST, 1, sqe::write(NSID, 2 * index, 1, prps))
                })
                .collect();
            world.ring(GUEST, 1);
            world.subsystem.poll(budget);
            world.admin(MANAGER, sqe::suspend(GUEST_ID)).ok();
            let before = queue.texts();
            let done = world.hosts[GUEST].done.len();
            assert_eq!(
                before.len(),
                done + 1,
                "budget {budget}, round {round}: an entry for each, and the marker"
            );
            assert_eq!(before.last().map(String::as_str), Some("011b"));
            world.publish(&queue);
            world.admin(MANAGER, sqe::resume(GUEST_ID)).ok();
            for command in commands {
                world.hosts[GUEST].take(1, command).expect("completes").ok();
            }
            assert_eq!(
                queue.take().len(),
                10 - done,
                "budget {budget}, round {round}: a first entry and the rest"
            );
            world.publish(&queue);
        }
    }
}

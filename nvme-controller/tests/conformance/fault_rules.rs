// SPDX-License-Identifier: MIT OR Apache-2.0
//! Fault rules: what they match, when they act, and what ends a command that they hold back.

use nvme_controller::fault::{FaultRule, FaultSlot, FaultTable, HeldSlot};

use crate::faults::wrong_bits;
use crate::harness::sqe;
use crate::harness::*;

#[test]
fn rules_match_what_they_name_and_act_when_they_say() {
    // Twelve commands: Flush and Write in turn on queues 1 and 2, two of each at a time.
    let table = [
        ("drop", "111111111111"),
        ("drop,queue=io", "111111111111"),
        ("drop,queue=admin", "000000000000"),
        ("drop,queue=2", "001100110011"),
        ("drop,opcode=01", "010101010101"),
        ("drop,opcode=01,queue=1", "010001000100"),
        ("drop,dw10=1f4", "010101010101"),
        ("drop,dw10=1f5", "000000000000"),
        ("drop,dw10=100/f00", "010101010101"),
        ("drop,dw10=1f4,dw12=3", "000000000000"),
        ("drop,dw0=1/ff,dw1=1,dw10=1f4,dw12=0", "010101010101"),
        ("drop,nth=3", "001000000000"),
        ("drop,nth=3,every=4", "001000100010"),
        ("drop,every=5", "000010000100"),
        ("drop,every=1,times=2", "110000000000"),
        ("drop,times=3,opcode=00", "101010000000"),
        ("drop,nth=2,opcode=01", "000100000000"),
        ("drop,ppm=0", "000000000000"),
        ("drop,ppm=999999,nth=1,seed=3", "100000000000"),
        ("drop,controller=0x121,nth=12", "000000000001"),
        ("drop,controller=0x122", "000000000000"),
    ];
    for (rule, expected) in table {
        println!("row: {rule}");
        assert_eq!(dropped(rule), expected, "{rule}");
    }
}

/// Which of twelve commands are never completed.
fn dropped(rule: &str) -> String {
    let mut world = World::new();
    world.create_pair(GUEST, 1, 16);
    world.create_pair(GUEST, 2, 16);
    world.set_rules(&[rule]);
    let mut pattern = String::new();
    for index in 0..12_u64 {
        let queue = if index & 2 == 0 { 1 } else { 2 };
        let command = if index & 1 == 0 {
            sqe::flush(NSID)
        } else {
            let prps = world.hosts[GUEST].data(&[0; 512]);
            sqe::write(NSID, 500, 1, prps)
        };
        let id = world.submit(GUEST, queue, command);
        world.run();
        pattern.push(if world.hosts[GUEST].take(queue, id).is_some() { '0' } else { '1' });
    }
    let ones = pattern.matches('1').count();
    assert_eq!(world.fired(), [ones as u32], "{rule}");
    pattern
}

#[test]
fn a_seed_decides_about_probability_the_same_every_time() {
    let half = |seed| dropped(&format!("drop,ppm=500000,seed={seed}"));
    let patterns: Vec<_> = (0..20).map(half).collect();
    println!("{patterns:?}");
    assert_eq!(patterns, (0..20).map(half).collect::<Vec<_>>());
    let ones: usize = patterns.iter().map(|pattern| pattern.matches('1').count()).sum();
    assert!((90..150).contains(&ones), "{ones} of 240");
    let different: std::collections::BTreeSet<_> = patterns.iter().collect();
    assert!(different.len() > 15, "{different:?}");
}

#[test]
fn the_first_rule_that_acts_decides_and_all_count() {
    let mut world = World::new();
    world.held_pair();
    world.set_rules(&["drop,nth=2", "wrong-cid=1,every=2", "duplicate,nth=4"]);
    world.flushes(&[0x10, 0x12, 0x14, 0x16]);
    world.settle();
    // The second is dropped, the fourth gets a wrong identifier, and the third rule comes too late for it.
    assert_eq!(world.slots(1, 4), "10 q1 h4 p1 0/00, 14 q1 h4 p1 0/00, 17 q1 h4 p1 0/00, -");
    assert_eq!(world.fired(), [1, 1, 0]);
    let seen = world.subsystem.faults().expect("rules").rules().iter().map(FaultSlot::seen);
    assert_eq!(seen.collect::<Vec<_>>(), [4, 4, 4]);
}

/// Ends what waits in some way, and says what the host sees of two delayed commands of queue 1.
fn ended(end: fn(&mut World)) -> String {
    let mut world = World::new();
    world.held_pair();
    world.set_rules(&["delay=1000000polls,queue=1"]);
    world.flushes(&[0x10, 0x11]);
    for _ in 0..5 {
        world.subsystem.poll(64);
    }
    end(&mut world);
    for _ in 0..20 {
        world.subsystem.poll(64);
        world.harvest(GUEST, 0);
    }
    assert_eq!(world.fired()[0], 2);
    world.slots(1, 3)
}

#[test]
fn a_delayed_command_is_under_way_until_something_ends_it() {
    type Row = (&'static str, fn(&mut World), &'static str);
    let table: [Row; 7] = [
        ("nothing", |_| {}, "-, -, -"),
        (
            "abort of the second",
            |w| {
                w.submit(GUEST, 0, sqe::abort(1, 0x11));
            },
            "11 q1 h2 p1 0/07, -, -",
        ),
        (
            "deletion of its queue",
            |w| {
                w.submit(GUEST, 0, sqe::delete_sq(1));
            },
            "10 q1 h2 p1 0/08, 11 q1 h2 p1 0/08, -",
        ),
        ("a reset", |w| w.write32(GUEST, CC, 0), "-, -, -"),
        (
            "a failure",
            |w| {
                w.memory(GUEST).fail_reads(w.hosts[GUEST].submission[&1].area.at(0), 512);
                w.flushes(&[0x12]);
                w.settle();
                assert!(w.is_fatal(GUEST));
            },
            "-, -, -",
        ),
        ("its identifier used again", |w| w.flushes(&[0x10]), "10 q1 h3 p1 0/03, -, -"),
        (
            "the end of the rules",
            |w| {
                let rules = w.subsystem.clear_faults().expect("rules");
                w.subsystem.set_faults(rules);
            },
            "10 q1 h2 p1 0/00, 11 q1 h2 p1 0/00, -",
        ),
    ];
    for (name, end, expected) in table {
        println!("row: {name}");
        assert_eq!(ended(end), expected, "{name}");
    }
}

#[test]
fn suspend_and_shutdown_wait_for_a_delayed_command_and_not_for_a_dropped_one() {
    for (rule, polls) in [("delay=50polls,queue=1", 50..60), ("drop,queue=1", 1..5)] {
        println!("row: {rule}, suspend");
        let mut world = World::new();
        let mut queue = world.logged_guest(8);
        world.set_rules(&[rule]);
        let prps = world.hosts[GUEST].data(&[1; 512]);
        world.submit(GUEST, 1, sqe::write(NSID, 9, 1, prps));
        world.subsystem.poll(64);
        let id = world.submit(MANAGER, 0, sqe::suspend(GUEST_ID));
        let mut count = 0;
        while !world.hosts[MANAGER].done.iter().any(|done| done.command == id) {
            count += 1;
            assert!(count < 200, "{rule}: Suspend never completes");
            world.subsystem.poll(64);
            world.harvest(MANAGER, 0);
        }
        assert!(polls.contains(&count), "{rule}: suspended after {count} polls");
        assert_eq!(queue.texts(), ["000b 1:9+1", "011b"], "the log is complete");
        let completed = world.harvest(GUEST, 1);
        assert_eq!(completed, usize::from(rule.starts_with("delay")), "{rule}");

        println!("row: {rule}, shutdown");
        let mut world = World::new();
        world.held_pair();
        world.set_rules(&[rule]);
        world.flushes(&[0x10]);
        world.subsystem.poll(64);
        world.write32(GUEST, CC, ENABLE | 1 << 14);
        let mut count = 0;
        while world.read32(GUEST, CSTS) & 0xC != 8 {
            count += 1;
            assert!(count < 200, "{rule}: the shutdown never completes");
            world.subsystem.poll(64);
        }
        assert!(polls.contains(&count), "{rule}: shut down after {count} polls");
    }
}

#[test]
fn a_command_that_waits_does_not_take_up_the_room_of_others() {
    let mut world = World::with(|setup| setup.commands = 4);
    world.create_pair(GUEST, 1, 64);
    world.set_rules(&["delay=100000polls,queue=1,nth=1", "delay=100000polls,queue=1,nth=5"]);
    let first = world.submit(GUEST, 1, sqe::flush(NSID));
    for _ in 0..4 {
        world.subsystem.poll(64);
    }
    let mut missing = 0;
    for _ in 0..100 {
        let id = world.submit(GUEST, 1, sqe::flush(NSID));
        for _ in 0..4 {
            world.subsystem.poll(64);
        }
        world.harvest(GUEST, 1);
        missing += u32::from(world.hosts[GUEST].take(1, id).is_none());
    }
    assert_eq!(missing, 1, "only the other delayed one");
    world.subsystem.clear_faults();
    world.run();
    assert!(world.hosts[GUEST].take(1, first).is_some());
}

#[test]
fn without_room_to_hold_a_completion_it_is_not_delayed() {
    let mut world = World::new();
    world.held_pair();
    let rules = [FaultSlot::new(FaultRule::parse("delay=5polls").expect("a rule"))];
    let rules = Box::leak(Box::new(rules));
    let held = Box::leak(Box::new([HeldSlot::new(); 1]));
    world.subsystem.set_faults(FaultTable::new(rules, held));
    world.flushes(&[0x10, 0x11]);
    assert_eq!(world.arrivals(10), "11 at 1, 10 at 6");
    assert_eq!((rules[0].seen(), rules[0].fired()), (2, 1));
    // Its slot is free again.
    world.flushes(&[0x12]);
    assert!(world.arrivals(10).ends_with("12 at 6"));
    // And after a reset while it waits, too.
    world.flushes(&[0x13]);
    world.subsystem.poll(64);
    world.reset(GUEST);
    world.held_pair();
    let fired = rules[0].fired();
    world.flushes(&[0x14]);
    assert_eq!(world.arrivals(10), "14 at 6");
    assert_eq!(rules[0].fired(), fired + 1);
}

#[test]
fn event_requests_are_matched_when_they_are_answered() {
    let answered = |rule: &str| {
        let mut world = World::new();
        let queue = world.logged_guest(8);
        world.admin(MANAGER, sqe::set_head_and_trigger(queue.id, 1, 1)).ok();
        world.set_rules(&[rule]);
        world.hosts[MANAGER].held.insert(0);
        world.send_as(MANAGER, 0, sqe::event_request(), 0x70);
        world.ring(MANAGER, 0);
        world.settle();
        let before = world.fired()[0];
        world.change_blocks(1);
        let area = &world.hosts[MANAGER].completion[&0].area;
        let slot = world.hosts[MANAGER].completion[&0].head;
        let bytes = world.memory(MANAGER).bytes(area.at(u64::from(slot) * 16), 16);
        let half = |at: usize| u16::from_le_bytes([bytes[at], bytes[at + 1]]);
        let ready = world.is_ready(MANAGER);
        format!("{before} {}: {:x} {:x} {:x}, ready {ready}", world.fired()[0], half(12), half(14), half(0))
    };
    let table = [
        ("drop,opcode=0d", "0 0: 70 1 4, ready true"),
        ("drop,opcode=0c", "0 1: 0 0 0, ready true"),
        ("wrong-cid=1,opcode=0c", "0 1: 71 1 4, ready true"),
        ("status=0/07,opcode=0c", "0 1: 70 f 0, ready true"),
        ("wrong-phase,opcode=0c", "0 1: 70 0 4, ready true"),
        ("reset,opcode=0c", "0 1: 70 1 4, ready false"),
        ("fatal,opcode=0c", "0 1: 0 0 0, ready true"),
        // A request may wait for ever as it is, and carries no data.
        ("delay=5polls,opcode=0c", "0 0: 70 1 4, ready true"),
        ("reorder,opcode=0c", "0 0: 70 1 4, ready true"),
        ("flip-to-host,opcode=0c", "0 0: 70 1 4, ready true"),
    ];
    for (rule, expected) in table {
        println!("row: {rule}");
        assert_eq!(answered(rule), expected, "{rule}");
    }
}

#[test]
fn a_suspend_that_waits_keeps_its_rule() {
    let mut world = World::new();
    world.held_pair();
    world.set_rules(&["delay=10polls,queue=1", "drop,opcode=41"]);
    world.flushes(&[0x10]);
    world.subsystem.poll(64);
    let id = world.submit(MANAGER, 0, sqe::suspend(GUEST_ID));
    for _ in 0..100 {
        world.subsystem.poll(64);
        world.harvest(MANAGER, 0);
    }
    assert!(world.hosts[MANAGER].take(0, id).is_none(), "dropped");
    assert_eq!(world.fired(), [1, 1]);
    // It is executed all the same: only its completion is missing.
    let id = world.submit(MANAGER, 0, sqe::resume(GUEST_ID));
    world.run();
    assert!(world.hosts[MANAGER].take(0, id).is_none(), "dropped");
    assert_eq!(world.fired(), [1, 2], "Resume has the same opcode");
    world.subsystem.clear_faults();
    world.admin(MANAGER, sqe::suspend(GUEST_ID)).ok();
}

#[test]
fn which_bit_is_inverted_follows_from_the_seed() {
    let bit = |seed: u32| {
        let mut world = World::new();
        world.create_pair(GUEST, 1, 8);
        world.set_rules(&[&format!("flip-to-device,seed={seed}")]);
        // Larger than the memory that data passes through.
        world.write_blocks(GUEST, NSID, 0, 100, 0xA5);
        assert_eq!(world.fired(), [1]);
        let wrong: Vec<_> =
            (0..100).filter(|block| wrong_bits(&world.disk(NSID).block(*block)) != 0).collect();
        assert_eq!(wrong.iter().map(|block| wrong_bits(&world.disk(NSID).block(*block))).sum::<u32>(), 1);
        wrong[0]
    };
    let blocks: Vec<_> = (0..12).map(bit).collect();
    println!("{blocks:?}");
    assert_eq!(blocks, (0..12).map(bit).collect::<Vec<_>>());
    assert!(blocks.iter().any(|block| *block < 32) && blocks.iter().any(|block| *block >= 64), "{blocks:?}");
}

#[test]
fn rules_of_a_later_table_are_asked_before_they_act() {
    let mut world = World::new();
    world.create_pair(GUEST, 1, 8);
    world.set_rules(&["delay=1000000polls,queue=1", "wrong-cid,queue=admin,opcode=41"]);
    world.submit(GUEST, 1, sqe::flush(NSID));
    world.subsystem.poll(64);
    // The suspension waits for the delayed command, and rule 1 for the suspension.
    let suspend = world.submit(MANAGER, 0, sqe::suspend(GUEST_ID));
    world.subsystem.poll(64);
    world.set_rules(&["drop,queue=3", "fatal,queue=io"]);
    world.run();
    world.hosts[MANAGER].take(0, suspend).expect("completed by nobody else's rule").ok();
    assert_eq!((world.fired(), world.is_fatal(MANAGER)), (vec![0, 0], false));
}

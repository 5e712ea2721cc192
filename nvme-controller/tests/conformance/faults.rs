// SPDX-License-Identifier: MIT OR Apache-2.0
//! Every kind of fault: without a rule, the specification's behaviour; with one, exactly the deviation it names.

use nvme_controller::fault::{FaultKind, FaultRule, FaultSlot, FaultTable, HeldSlot};

use crate::harness::sqe;
use crate::harness::*;

/// Puts the rule into force, or does nothing.
type Set<'a> = &'a dyn Fn(&mut World);
/// What a host sees, as text.
type Observe = fn(&mut World, Set<'_>) -> String;

impl World {
    /// Puts these rules into force.
    pub(crate) fn set_rules(&mut self, rules: &[&str]) {
        let parse = |text: &&str| FaultSlot::new(FaultRule::parse(text).expect(text));
        let rules: Vec<_> = rules.iter().map(parse).collect();
        let held = vec![HeldSlot::new(); 8].leak();
        self.subsystem.set_faults(FaultTable::new(rules.leak(), held));
    }

    /// How often each rule acted.
    pub(crate) fn fired(&self) -> Vec<u32> {
        let table = self.subsystem.faults().expect("rules in force");
        table.rules().iter().map(FaultSlot::fired).collect()
    }

    /// The guest's I/O queue pair 1 with eight slots, whose completions nobody takes.
    pub(crate) fn held_pair(&mut self) {
        self.create_pair(GUEST, 1, 8);
        self.hosts[GUEST].held.insert(1);
    }

    /// Submits Flush commands with these identifiers to queue 1 of the guest.
    pub(crate) fn flushes(&mut self, ids: &[u16]) {
        for id in ids {
            self.send_as(GUEST, 1, sqe::flush(NSID), *id);
        }
        self.ring(GUEST, 1);
    }

    /// The first `count` slots of completion queue `queue` of the guest: identifier, queue, head, phase and status.
    pub(crate) fn slots(&self, queue: u16, count: u64) -> String {
        let area = &self.hosts[GUEST].completion[&queue].area;
        let text = |slot| {
            let bytes = self.memory(GUEST).bytes(area.at(slot * 16), 16);
            let half = |at: usize| u16::from_le_bytes([bytes[at], bytes[at + 1]]);
            if bytes == [0; 16] {
                return "-".to_owned();
            }
            let (status, phase) = (half(14) >> 1, half(14) & 1);
            let (head, queue, command) = (half(8), half(10), half(12));
            format!("{command:x} q{queue} h{head} p{phase} {:x}/{:02x}", status >> 8, status & 0xFF)
        };
        (0..count).map(text).collect::<Vec<_>>().join(", ")
    }

    /// The identifiers in the first slots of completion queue 1 of the guest, as they come up poll by poll.
    pub(crate) fn arrivals(&mut self, polls: u32) -> String {
        let mut seen = Vec::new();
        for poll in 1..=polls {
            self.subsystem.poll(64);
            let slots = self.slots(1, 7);
            for slot in slots.split(", ").skip(seen.len()).filter(|slot| *slot != "-") {
                let command = slot.split(' ').next().expect("an identifier");
                seen.push(format!("{command} at {poll}"));
            }
        }
        seen.join(", ")
    }

    /// Reads a block of the guest's namespace that holds `A5h`, and counts the bits that are different.
    fn read_and_compare(&mut self) -> String {
        let (address, prps) = self.hosts[GUEST].buffer(512);
        let done = self.exec(GUEST, 1, sqe::read(NSID, 7, 1, prps));
        let read = self.memory(GUEST).bytes(address, 512);
        format!(
            "{:?}, {} bits read, {} bits stored",
            done.code,
            wrong_bits(&read),
            wrong_bits(&self.disk(NSID).block(7))
        )
    }

    fn csts(&self, host: usize) -> String {
        match self.read32(host, CSTS) {
            u32::MAX => "ones".to_owned(),
            value => format!("{value:x}"),
        }
    }

    /// Enables the guest's controller again and counts the polls until it is ready.
    fn polls_to_ready(&mut self, set: Set<'_>) -> String {
        self.disable(GUEST);
        set(self);
        self.write32(GUEST, CC, ENABLE);
        for polls in 0..200 {
            if self.is_ready(GUEST) {
                return format!("ready after {polls}, fatal {}", self.is_fatal(GUEST));
            }
            self.subsystem.poll(64);
        }
        format!("not ready, fatal {}", self.is_fatal(GUEST))
    }
}

pub(crate) fn wrong_bits(bytes: &[u8]) -> u32 {
    bytes.iter().map(|byte| (byte ^ 0xA5).count_ones()).sum()
}

/// Slots of a Controller Data Queue as they lie in memory: phase, sequence and range.
fn entries(queue: &cdq::Cdq, slots: std::ops::Range<u32>) -> String {
    let text = |slot| {
        let bytes = queue.slot(slot);
        if bytes == [0; 32] {
            return "-".to_owned();
        }
        let word = |at: usize| u32::from_le_bytes(bytes[at..at + 4].try_into().expect("four bytes"));
        let (phase, sequence, kind) = (bytes[31] & 1, (bytes[31] >> 1) & 7, bytes[31] >> 6);
        match kind {
            0 => format!("p{phase} {sequence:03b} {}:{}+{}", word(0), word(8), word(4) + 1),
            _ => format!("p{phase} {sequence:03b}"),
        }
    };
    slots.map(text).collect::<Vec<_>>().join(", ")
}

/// The events that the outstanding requests of the manager report, three requests at most.
fn events(world: &mut World, cause: impl FnOnce(&mut World)) -> String {
    let requests = [(); 3].map(|()| world.submit(MANAGER, 0, sqe::event_request()));
    world.run();
    cause(world);
    let text = |(dword0, dword1)| format!("{dword0:x}/{dword1:x}");
    let found: Vec<_> =
        requests.iter().filter_map(|request| world.event(MANAGER, *request)).map(text).collect();
    found.join(", ")
}

/// Fills slot 1 of a logged queue while its trigger is armed there, and says what is reported.
fn tail_event(world: &mut World, set: Set<'_>) -> String {
    let queue = world.logged_guest(8);
    world.admin(MANAGER, sqe::set_head_and_trigger(queue.id, 1, 1)).ok();
    set(world);
    let first = events(world, |world| world.change_blocks(1));
    world.change_blocks(1);
    format!("{first}; {}", entries(&queue, 1..3))
}

/// What the end of a log leaves: stopped, suspended, and full.
fn last_entries(world: &mut World, set: Set<'_>) -> String {
    let mut queue = world.logged_guest(8);
    set(world);
    world.admin(MANAGER, sqe::stop_log(queue.id)).ok();
    let stopped = queue.texts().join(", ");
    world.admin(MANAGER, sqe::start_log(queue.id)).ok();
    world.admin(MANAGER, sqe::suspend(GUEST_ID)).ok();
    let suspended = queue.texts().join(", ");
    world.admin(MANAGER, sqe::resume(GUEST_ID)).ok();
    world.publish(&queue);
    queue.texts();
    world.change_blocks(7);
    format!("{stopped}; {suspended}; {}", queue.texts().last().expect("entries"))
}

fn rows() -> Vec<(FaultKind, &'static str, Observe, &'static str, &'static str)> {
    const FLUSHES: Observe = |w, set| {
        w.held_pair();
        set(w);
        w.flushes(&[0x10, 0x11]);
        w.settle();
        w.slots(1, 4)
    };
    const BOTH: &str = "10 q1 h2 p1 0/00, 11 q1 h2 p1 0/00, -, -";
    const ARRIVALS: Observe = |w, set| {
        w.held_pair();
        set(w);
        w.flushes(&[0x10, 0x11]);
        w.arrivals(30)
    };
    const CHANGES: Observe = |w, set| {
        let queue = w.logged_guest(8);
        set(w);
        w.change_blocks(2);
        entries(&queue, 1..4)
    };
    const CHANGED: &str = "p1 000 1:1000+1, p1 000 1:1002+1, -";
    let ready: Observe = |w, set| w.polls_to_ready(set);
    let read: Observe = |w, set| {
        w.create_pair(GUEST, 1, 8);
        w.write_blocks(GUEST, NSID, 7, 1, 0xA5);
        set(w);
        w.read_and_compare()
    };
    let write: Observe = |w, set| {
        w.create_pair(GUEST, 1, 8);
        set(w);
        w.write_blocks(GUEST, NSID, 7, 1, 0xA5);
        w.read_and_compare()
    };
    let broken: Observe = |w, set| {
        w.held_pair();
        set(w);
        let prps = w.hosts[GUEST].data(&[0xA5; 512]);
        w.send_as(GUEST, 1, sqe::write(NSID, 7, 1, prps), 0x10);
        w.ring(GUEST, 1);
        w.settle();
        let stored = if wrong_bits(&w.disk(NSID).block(7)) == 0 { "stored" } else { "not stored" };
        let enabled = w.read32(GUEST, CC) & 1;
        format!("{}, {stored}, EN {enabled}, CSTS {}", w.slots(1, 1), w.csts(GUEST))
    };
    let written = "10 q1 h1 p1 0/00, stored, EN 1, CSTS 1";
    vec![
        (FaultKind::Drop, "drop,nth=1", FLUSHES, BOTH, "11 q1 h2 p1 0/00, -, -, -"),
        (FaultKind::Delay, "delay=3polls,nth=1", ARRIVALS, "10 at 1, 11 at 1", "11 at 1, 10 at 4"),
        (
            FaultKind::Delay,
            "delay=20ms,nth=1",
            |w, set| {
                w.held_pair();
                w.subsystem.advance(5_000);
                set(w);
                w.flushes(&[0x10]);
                let mut seen = Vec::new();
                for now in [5_000, 24_999, 25_000] {
                    w.subsystem.advance(now);
                    w.subsystem.poll(64);
                    seen.push(w.slots(1, 1));
                }
                seen.join("; ")
            },
            "10 q1 h1 p1 0/00; 10 q1 h1 p1 0/00; 10 q1 h1 p1 0/00",
            "-; -; 10 q1 h1 p1 0/00",
        ),
        (
            FaultKind::Duplicate,
            "duplicate,nth=1",
            FLUSHES,
            BOTH,
            "10 q1 h2 p1 0/00, 10 q1 h2 p1 0/00, 11 q1 h2 p1 0/00, -",
        ),
        (FaultKind::Reorder, "reorder,nth=1", ARRIVALS, "10 at 1, 11 at 1", "11 at 1, 10 at 2"),
        (
            FaultKind::Reorder,
            "reorder,nth=1",
            |w, set| {
                w.held_pair();
                set(w);
                w.flushes(&[0x10]);
                w.arrivals(30)
            },
            "10 at 1",
            "10 at 17",
        ),
        (
            FaultKind::WrongCommandId,
            "wrong-cid=3,nth=2",
            FLUSHES,
            BOTH,
            "10 q1 h2 p1 0/00, 12 q1 h2 p1 0/00, -, -",
        ),
        (
            FaultKind::WrongQueueId,
            "wrong-sqid=4,nth=2",
            FLUSHES,
            BOTH,
            "10 q1 h2 p1 0/00, 11 q5 h2 p1 0/00, -, -",
        ),
        (
            FaultKind::WrongSqHead,
            "wrong-sq-head=5,nth=1",
            FLUSHES,
            BOTH,
            "10 q1 h7 p1 0/00, 11 q1 h2 p1 0/00, -, -",
        ),
        (
            FaultKind::WrongPhase,
            "wrong-phase,nth=1",
            FLUSHES,
            BOTH,
            "10 q1 h2 p0 0/00, 11 q1 h2 p1 0/00, -, -",
        ),
        (
            FaultKind::EarlyPhase,
            "early-phase,nth=2",
            FLUSHES,
            BOTH,
            "10 q1 h2 p1 0/00, 11 q1 h2 p1 0/00, 0 q0 h0 p1 0/00, -",
        ),
        (
            FaultKind::Status,
            "status=2/81+dnr,opcode=01",
            broken,
            written,
            "10 q1 h1 p1 42/81, not stored, EN 1, CSTS 1",
        ),
        (
            FaultKind::Status,
            "status=0/00,opcode=01",
            broken,
            written,
            "10 q1 h1 p1 0/00, not stored, EN 1, CSTS 1",
        ),
        (
            FaultKind::FlipToHost,
            "flip-to-host,seed=5",
            read,
            "0/00h, 0 bits read, 0 bits stored",
            "0/00h, 1 bits read, 0 bits stored",
        ),
        (
            FaultKind::FlipToDevice,
            "flip-to-device,seed=5",
            write,
            "0/00h, 0 bits read, 0 bits stored",
            "0/00h, 1 bits read, 1 bits stored",
        ),
        (
            FaultKind::AllOnes,
            "all-ones=3reads,nth=2",
            |w, set| {
                set(w);
                (0..6).map(|_| w.csts(GUEST)).collect::<Vec<_>>().join(" ")
            },
            "1 1 1 1 1 1",
            "1 ones ones ones 1 1",
        ),
        (
            FaultKind::AllOnes,
            "all-ones,queue=1,nth=2",
            |w, set| {
                w.held_pair();
                set(w);
                let before = w.csts(GUEST);
                w.flushes(&[0x10]);
                w.settle();
                w.flushes(&[0x11, 0x12]);
                w.settle();
                // Nothing that is written gets there either.
                w.write32(GUEST, CC, 0);
                let other = w.csts(MANAGER);
                format!("{before} {} {other}; {}", w.csts(GUEST), w.slots(1, 3))
            },
            "1 0 1; 10 q1 h1 p1 0/00, 11 q1 h3 p1 0/00, 12 q1 h3 p1 0/00",
            "1 ones 1; 10 q1 h1 p1 0/00, -, -",
        ),
        (FaultKind::NeverReady, "never-ready", ready, "ready after 0, fatal false", "not ready, fatal false"),
        (
            FaultKind::LateReady,
            "late-ready=5polls",
            ready,
            "ready after 0, fatal false",
            "ready after 5, fatal false",
        ),
        (FaultKind::Fatal, "fatal,opcode=01", broken, written, "-, not stored, EN 1, CSTS 3"),
        (FaultKind::Reset, "reset,opcode=01", broken, written, "-, stored, EN 0, CSTS 0"),
        (
            FaultKind::CdqWrongPhase,
            "cdq-wrong-phase,nth=1",
            CHANGES,
            CHANGED,
            "p0 000 1:1000+1, p1 000 1:1002+1, -",
        ),
        (
            FaultKind::CdqTornEntry,
            "cdq-torn-entry,nth=1",
            CHANGES,
            CHANGED,
            "p1 000 0:0+1, p1 000 1:1002+1, -",
        ),
        (
            FaultKind::CdqTornEntry,
            "cdq-torn-entry=3polls,nth=1",
            |w, set| {
                let queue = w.logged_guest(8);
                set(w);
                let prps = w.hosts[GUEST].data(&[1; 512]);
                w.submit(GUEST, 1, sqe::write(NSID, 1000, 1, prps));
                let mut seen = Vec::new();
                for _ in 0..5 {
                    w.subsystem.poll(64);
                    seen.push(entries(&queue, 1..2));
                }
                seen.join(", ")
            },
            "p1 000 1:1000+1, p1 000 1:1000+1, p1 000 1:1000+1, p1 000 1:1000+1, p1 000 1:1000+1",
            "p1 000 0:0+1, p1 000 0:0+1, p1 000 0:0+1, p1 000 1:1000+1, p1 000 1:1000+1",
        ),
        (
            FaultKind::CdqReservedSequence,
            "cdq-reserved-sequence=5,nth=2",
            CHANGES,
            CHANGED,
            "p1 000 1:1000+1, p1 101 1:1002+1, -",
        ),
        (
            FaultKind::CdqMissingFirst,
            "cdq-missing-first",
            |w, set| {
                let queue = w.create_cdq(MANAGER, GUEST_ID, 8);
                w.create_pair(GUEST, 1, 8);
                set(w);
                w.admin(MANAGER, sqe::start_log(queue.id)).ok();
                w.change_blocks(1);
                entries(&queue, 0..3)
            },
            "p1 001, p1 000 1:1000+1, -",
            "p1 000 1:1000+1, -, -",
        ),
        (
            FaultKind::CdqMissingLast,
            "cdq-missing-last",
            last_entries,
            "010b; 001b, 011b; 111b 1:1010+1",
            "; 001b; 000b 1:1010+1",
        ),
        (
            FaultKind::CdqFullEarly,
            "cdq-full-early,nth=1",
            |w, set| {
                let queue = w.logged_guest(8);
                set(w);
                let full = events(w, |w| w.change_blocks(2));
                format!("{}; {full}", entries(&queue, 1..4))
            },
            "p1 000 1:1000+1, p1 000 1:1002+1, -; ",
            "p1 111 1:1000+1, -, -; 104/0",
        ),
        (
            FaultKind::CdqFullEarly,
            "cdq-full-early",
            |w, set| {
                let queue = w.create_cdq(MANAGER, GUEST_ID, 8);
                set(w);
                let mut code = String::new();
                let full = events(w, |w| {
                    code = format!("{:?}", w.admin(MANAGER, sqe::start_log(queue.id)).code);
                });
                format!("{code}; {}; {full}", entries(&queue, 0..2))
            },
            "0/00h; p1 001, -; ",
            "0/00h; p1 111, -; 104/0",
        ),
        (
            FaultKind::CdqTornEntry,
            "cdq-torn-entry=9polls,nth=1",
            |w, set| {
                let queue = w.logged_guest(8);
                set(w);
                let prps = w.hosts[GUEST].data(&[1; 512]);
                w.submit(GUEST, 1, sqe::write(NSID, 1000, 1, prps));
                w.subsystem.poll(64);
                w.submit(MANAGER, 0, sqe::delete_cdq(queue.id));
                for _ in 0..20 {
                    w.subsystem.poll(64);
                }
                format!("deleted {}", entries(&queue, 1..2))
            },
            "deleted p1 000 1:1000+1",
            "deleted p1 000 0:0+1",
        ),
        (
            // The rest of the entry does not come once its slot holds another one.
            FaultKind::CdqTornEntry,
            "cdq-torn-entry=300polls,nth=1",
            |w, set| {
                let queue = w.logged_guest(3);
                set(w);
                for (index, start) in [(2, 1000), (0, 1100), (1, 1200)] {
                    w.write_blocks(GUEST, NSID, start, 1, 0xC0);
                    w.admin(MANAGER, sqe::set_head(queue.id, index)).ok();
                }
                w.write_blocks(GUEST, NSID, 2000, 1, 0xC0);
                for _ in 0..400 {
                    w.subsystem.poll(64);
                }
                entries(&queue, 1..2)
            },
            "p0 000 1:2000+1",
            "p0 000 1:2000+1",
        ),
        (
            FaultKind::AllOnes,
            "all-ones,queue=admin,opcode=18",
            |w, set| {
                let queue = w.logged_guest(8);
                set(w);
                w.submit(MANAGER, 0, sqe::Sqe::new(0x18));
                for _ in 0..4 {
                    w.subsystem.poll(64);
                }
                // The guest's controller goes on; who manages it reaches no memory.
                w.change_blocks(1);
                entries(&queue, 1..3)
            },
            "p1 000 1:1000+1, -",
            "-, -",
        ),
        (
            FaultKind::Status,
            "status=0/00+more+crd1,opcode=01",
            |w, set| {
                w.held_pair();
                set(w);
                let prps = w.hosts[GUEST].data(&[1; 512]);
                w.send_as(GUEST, 1, sqe::write(NSID, 7, 1, prps), 0x10);
                w.ring(GUEST, 1);
                w.settle();
                format!("{}, stored {}", w.slots(1, 1), w.disk(NSID).block(7) == [1; 512])
            },
            "10 q1 h1 p1 0/00, stored true",
            "10 q1 h1 p1 28/00, stored false",
        ),
        (
            FaultKind::CdqHeadRefused,
            "cdq-head-refused,nth=1",
            |w, set| {
                let queue = w.logged_guest(8);
                w.change_blocks(2);
                set(w);
                let mut codes =
                    [3, 3].map(|head| format!("{:?}", w.admin(MANAGER, sqe::set_head(queue.id, head)).code));
                codes.sort();
                let (address, prps) = w.hosts[MANAGER].buffer(512);
                w.admin(MANAGER, sqe::get_head(queue.id, prps.0)).ok();
                format!("{}, head {}", codes.join(" "), w.memory(MANAGER).bytes(address, 1)[0])
            },
            "0/00h 0/00h, head 3",
            "0/00h 0/02h, head 3",
        ),
        (
            FaultKind::CdqEventLost,
            "cdq-event-lost",
            tail_event,
            "4/0; p1 000 1:1000+1, p1 000 1:1000+1",
            "; p1 000 1:1000+1, p1 000 1:1000+1",
        ),
        (
            FaultKind::CdqEventDuplicated,
            "cdq-event-duplicated",
            tail_event,
            "4/0; p1 000 1:1000+1, p1 000 1:1000+1",
            "4/0, 4/0; p1 000 1:1000+1, p1 000 1:1000+1",
        ),
        (
            FaultKind::CdqEventUnknown,
            "cdq-event-unknown=4005",
            tail_event,
            "4/0; p1 000 1:1000+1, p1 000 1:1000+1",
            "4/4005; p1 000 1:1000+1, p1 000 1:1000+1",
        ),
        (
            FaultKind::CdqWriteAfterDelete,
            "cdq-write-after-delete=2polls",
            |w, set| {
                let queue = w.logged_guest(8);
                set(w);
                let id = w.submit(MANAGER, 0, sqe::delete_cdq(queue.id));
                let mut seen = Vec::new();
                for _ in 0..4 {
                    w.subsystem.poll(64);
                    w.harvest(MANAGER, 0);
                    let done = w.hosts[MANAGER].done.iter().any(|done| done.command == id);
                    seen.push(format!(
                        "{} {}",
                        if done { "deleted" } else { "there" },
                        entries(&queue, 1..2)
                    ));
                }
                seen.join(", ")
            },
            "deleted -, deleted -, deleted -, deleted -",
            "deleted -, deleted -, deleted p1 001, deleted p1 001",
        ),
    ]
}

#[test]
fn every_fault_happens_by_rule_only_and_does_what_it_says() {
    let mut covered = std::collections::BTreeSet::new();
    for (kind, rule, observe, without, with) in rows() {
        println!("row: {rule}");
        assert_eq!(FaultRule::parse(rule).expect(rule).action.kind(), kind);
        assert_eq!(observe(&mut World::new(), &|_| {}), without, "without {rule}");
        // A rule for a controller that does not exist counts nothing and changes nothing.
        let elsewhere = format!("{rule},controller=3000");
        let mut world = World::new();
        assert_eq!(observe(&mut world, &|w| w.set_rules(&[&elsewhere])), without, "{elsewhere}");
        assert_eq!(world.fired(), [0], "{elsewhere}");
        let mut world = World::new();
        assert_eq!(observe(&mut world, &|w| w.set_rules(&[rule])), with, "with {rule}");
        assert!(world.fired()[0] > 0, "{rule} is not counted");
        covered.insert(kind);
    }
    assert_eq!(covered.len(), FaultKind::ALL.len(), "a kind without a row");
}

// SPDX-License-Identifier: MIT OR Apache-2.0
//! Every kind of fault in whole migrations, at the places where it hurts, with the outcome of the fault table's last
//! column. The schedules beside this file put faults anywhere.

use nvme_controller::fault::{FaultKind, FaultRule, QueueMatch};
use nvme_core::migration::MigrationStep;
use nvme_tests::fault_table::{self, Outcome};
use nvme_tests::world::{Event, MANAGER, Reset, Seeded, Verdict, World, WorldConfig};

const SEEDS: u64 = 5;
const SOURCE: usize = 0;
const DESTINATION: usize = 1;

/// A fault in one place of a migration.
struct Place {
    name: &'static str,
    side: usize,
    rule: FaultRule,
    config: WorldConfig,
}

fn place(name: &'static str, side: usize, rule: FaultRule) -> Place {
    Place { name, side, rule: rule.at(MANAGER), config: WorldConfig::default() }
}

/// The `nth` command with this opcode.
fn command(rule: FaultRule, queue: QueueMatch, opcode: u8, nth: u32) -> FaultRule {
    rule.on(queue).opcode(opcode).nth(nth)
}

fn data(rule: FaultRule) -> Vec<Place> {
    vec![
        place("data read", SOURCE, command(rule, QueueMatch::Io, 0x02, 4)),
        place("data written", DESTINATION, command(rule, QueueMatch::Io, 0x01, 4)),
    ]
}

/// Commands that a migration cannot do without.
fn commands(rule: FaultRule) -> Vec<Place> {
    let mut places = data(rule);
    for (name, side, opcode, nth) in [
        ("creation of the queue", SOURCE, 0x45, 1),
        ("start of the log", SOURCE, 0x3D, 1),
        ("suspension of the destination", DESTINATION, 0x41, 1),
        ("suspension of the source", SOURCE, 0x41, 2),
        ("read of the state", SOURCE, 0x42, 2),
        ("last look at the source", SOURCE, 0x42, 3),
        ("set of the state", DESTINATION, 0x41, 2),
    ] {
        places.push(place(name, side, command(rule, QueueMatch::Admin, opcode, nth)));
    }
    places
}

fn places(kind: FaultKind, seed: u64) -> Vec<Place> {
    use FaultKind as K;
    let rule = FaultRule::new(kind.action(seed)).seed(seed);
    match kind {
        // The second completion of the last look may be seen when the guest runs at the destination already.
        K::Duplicate => {
            commands(rule).into_iter().filter(|place| place.name != "last look at the source").collect()
        }
        K::Drop
        | K::Delay
        | K::Reorder
        | K::WrongCommandId
        | K::WrongQueueId
        | K::WrongSqHead
        | K::WrongPhase
        | K::Status
        | K::AllOnes
        | K::Fatal
        | K::Reset => commands(rule),
        // In an admin queue the stale entry may by chance complete a command that is outstanding, and in an I/O queue the
        // next completion may overwrite it before it is seen.
        K::EarlyPhase => vec![place("all data read", SOURCE, rule.on(QueueMatch::Io).opcode(0x02))],
        K::FlipToHost => vec![place("all data read", SOURCE, rule.on(QueueMatch::Io).opcode(0x02))],
        K::FlipToDevice => vec![place("all data written", DESTINATION, rule.on(QueueMatch::Io).opcode(0x01))],
        K::NeverReady => {
            let mut place = place("reset in the rounds", SOURCE, rule);
            place.config.events = vec![(MigrationStep::DeltaRounds, Event::SourceManager(Reset::ByDriver))];
            vec![place]
        }
        K::LateReady => {
            let mut places = vec![place("source", SOURCE, rule), place("destination", DESTINATION, rule)];
            places.iter_mut().for_each(|place| place.config.faulty_from_the_start = true);
            places
        }
        K::CdqTornEntry => {
            // The rest of a slot that was never used is malformed; that of a later lap is found by the comparison.
            let rule = FaultRule::new(K::CdqTornEntry.action(0));
            vec![place("second entry", SOURCE, rule.nth(2))]
        }
        K::CdqWrongPhase | K::CdqReservedSequence | K::CdqFullEarly => {
            vec![place("third entry", SOURCE, rule.nth(3))]
        }
        K::CdqMissingFirst
        | K::CdqMissingLast
        | K::CdqHeadRefused
        | K::CdqEventLost
        | K::CdqEventDuplicated
        | K::CdqEventUnknown
        | K::CdqWriteAfterDelete => vec![place("the first", SOURCE, rule.nth(1))],
    }
}

#[test]
fn every_kind_of_fault_ends_as_the_table_says() {
    let (mut failures, mut runs) = (Vec::new(), 0);
    for &kind in FaultKind::ALL {
        let expected = match fault_table::of(kind).migration {
            Outcome::Verified => Verdict::Verified,
            Outcome::RolledBack => Verdict::RolledBackSourceWhole,
            other => panic!("{kind}: a migration does not end with {other:?}"),
        };
        let mut fired = 0;
        for seed in 0..SEEDS {
            for Place { name, side, rule, mut config } in places(kind, seed) {
                config.rules[side].push(rule);
                runs += 1;
                match World::new(config).run(&mut Seeded::new(seed)) {
                    Ok(ended) => {
                        let happened = ended.fired[side].iter().any(|times| *times > 0);
                        fired += u32::from(happened);
                        if happened && ended.verdict != expected {
                            let (found, how) = (ended.verdict, ended.outcome);
                            failures.push(format!("{name}, seed {seed}, {rule}: {found:?}, {how:?}"));
                        }
                    }
                    Err(violation) => failures.push(format!("{name}, seed {seed}, {rule}: {violation}")),
                }
            }
        }
        if fired == 0 {
            failures.push(format!("{kind} never happened"));
        }
    }
    assert!(failures.is_empty(), "{} of {runs} runs failed:\n{}", failures.len(), failures.join("\n"));
    assert!(runs >= 60);
}

#[test]
fn a_platform_that_does_not_compare_leaves_inverted_bits_to_the_final_comparison() {
    for (side, kind, opcode) in
        [(SOURCE, FaultKind::FlipToHost, 0x02), (DESTINATION, FaultKind::FlipToDevice, 0x01)]
    {
        for seed in 0..SEEDS {
            let rule = FaultRule::new(kind.action(seed)).seed(seed).at(MANAGER);
            let mut config = WorldConfig { compares: false, ..WorldConfig::default() };
            config.rules[side].push(rule.on(QueueMatch::Io).opcode(opcode));
            let ended = World::new(config).run(&mut Seeded::new(seed)).expect("no violation");
            assert_eq!(ended.verdict, Verdict::CorruptionFound, "{kind}, seed {seed}");
            assert!(ended.corruption.is_some(), "{kind}, seed {seed}");
        }
    }
}

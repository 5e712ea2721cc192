// SPDX-License-Identifier: MIT OR Apache-2.0
//! Whole migrations in virtual time, without faults: every shape of queue and every way of switching over.

use nvme_core::cdq::QueueLayout;
use nvme_core::migration::{DataPath, MigrationStep, Outcome, StepKind};
use nvme_tests::world::{Bytes, Ended, Event, Seeded, Verdict, World, WorldConfig};

const SEEDS: u64 = 8;

fn run(name: &str, seed: u64, config: WorldConfig) -> Ended {
    match World::new(config).run(&mut Seeded::new(seed)) {
        Ok(ended) => ended,
        Err(violation) => panic!("{name}, seed {seed}: {violation}"),
    }
}

#[test]
fn every_shape_of_migration_arrives_with_every_write() {
    type Row = (&'static str, fn(&mut WorldConfig));
    let rows: &[Row] = &[
        ("as it comes", |_| {}),
        ("all blocks copied", |config| config.by_allocation = false),
        ("PRP list", |config| config.cdq_layout = QueueLayout::PrpList),
        ("8 slots", |config| (config.cdq_entries, config.head_every) = (8, 1)),
        ("2 slots", |config| config.cdq_entries = 2),
        ("64 slots, head when idle", |config| (config.cdq_entries, config.head_every) = (64, 0)),
        ("queue deleted by the suspension", |config| config.delete_with_suspend = true),
        ("late marker", |config| config.marker_after_completion = true),
        ("one round", |config| config.max_rounds = 1),
        ("shared medium", |config| config.data = DataPath::Shared),
        ("1024 blocks", |config| config.blocks = 1024),
        ("r17: no vendor format, the platform restores the properties", |config| {
            config.vendor_state_format = false;
            config.administers = [false; 2];
        }),
    ];
    let mut in_flight = 0;
    for (name, change) in rows {
        for seed in 0..SEEDS {
            let mut config = WorldConfig::default();
            change(&mut config);
            let ended = run(name, seed, config);
            assert_eq!(ended.verdict, Verdict::Verified, "{name}, seed {seed}: {:?}", ended.outcome);
            let arrived = matches!(ended.outcome, Outcome::Completed { platform: true, clean_up: None });
            assert!(arrived, "{name}, seed {seed}: {:?}", ended.outcome);
            let guest = ended.guest;
            assert_eq!((guest.refused, guest.lost, guest.resets), (0, 0, 0), "{name}, seed {seed}");
            assert_eq!(guest.completed, guest.submitted, "{name}, seed {seed}");
            in_flight += ended.completed_after;
        }
    }
    assert!(in_flight > 40 * SEEDS, "commands on their way at the switch end at the destination");
}

/// The admin queue is in no state that a specification defines: without a vendor format the destination's begins anew at
/// slot 0. A guest whose admin queue has wrapped gets no answer there until it resets its controller.
#[test]
fn without_a_vendor_format_the_admin_queue_needs_a_reset_by_the_guest() {
    for seed in 0..SEEDS {
        let wraps = WorldConfig { commands: [500, 120, 40], ..WorldConfig::default() };
        let config = WorldConfig { vendor_state_format: false, ..wraps.clone() };
        let ended = run("no vendor format", seed, config);
        assert_eq!(ended.verdict, Verdict::Verified, "seed {seed}");
        assert!(ended.guest.resets >= 1, "seed {seed}: {:?}", ended.guest);
        let ended = run("a vendor format", seed, wraps);
        assert_eq!((ended.guest.resets, ended.guest.admin_failed), (0, 0), "seed {seed}");
        assert!(ended.guest.admin_completed > 16, "seed {seed}: {:?}", ended.guest);
    }
}

#[test]
fn r8_a_cancel_in_any_step_leaves_the_source_whole() {
    for &step in MigrationStep::ALL.iter().filter(|step| step.kind() == StepKind::Reversible) {
        for seed in 0..SEEDS {
            let config = WorldConfig { events: vec![(step, Event::Cancel)], ..WorldConfig::default() };
            let ended = run(step.name(), seed, config);
            assert_eq!(ended.verdict, Verdict::RolledBackSourceWhole, "{step}, seed {seed}");
            let guest = ended.guest;
            assert_eq!((guest.refused, guest.lost, guest.resets), (0, 0, 0), "{step}, seed {seed}");
        }
    }
}

#[test]
fn the_same_seed_and_the_same_bytes_give_the_same_run() {
    let figures = |ended: &Ended| (ended.turns, ended.polls, ended.guest, ended.steps.clone());
    let first = run("seed", 5, WorldConfig::default());
    assert_eq!(figures(&first), figures(&run("seed", 5, WorldConfig::default())));
    assert_ne!(figures(&first), figures(&run("another", 6, WorldConfig::default())));
    let bytes: Vec<u8> = (0..3000_u32).map(|at| (at.wrapping_mul(0x9E37_79B1) >> 24) as u8).collect();
    let run = || World::new(WorldConfig::default()).run(&mut Bytes::new(&bytes)).expect("no violation");
    assert_eq!(figures(&run()), figures(&run()));
}

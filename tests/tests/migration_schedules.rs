// SPDX-License-Identifier: MIT OR Apache-2.0
//! A thousand random fault schedules on whole migrations: each ends verified or rolled back with the source whole.
//!
//! `NVME_WORLD_SEED=N` runs schedule N alone and says what it is; `NVME_WORLD_SCHEDULES=N` runs so many instead.

use std::collections::BTreeMap;

use nvme_tests::world::{Ended, Seeded, Verdict, Violation, World, WorldConfig, corrupts, draw};

fn number(name: &str) -> Option<u64> {
    let text = std::env::var(name).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{name}={text} is not a number")))
}

fn describe(config: &WorldConfig) -> String {
    let side = |name: &str, at: usize| {
        let rules: Vec<String> = config.rules[at].iter().map(ToString::to_string).collect();
        format!("{name}: {}", if rules.is_empty() { "-".into() } else { rules.join("; ") })
    };
    format!("{} | {} | events {:?}", side("source", 0), side("destination", 1), config.events)
}

fn run(seed: u64) -> (WorldConfig, Result<Ended, Violation>) {
    let mut choices = Seeded::new(seed);
    let config = draw(&mut choices);
    let ended = World::new(config.clone()).run(&mut choices);
    (config, ended)
}

#[test]
fn r8_r10_a_thousand_fault_schedules_end_verified_or_rolled_back_with_the_source_whole() {
    let only = number("NVME_WORLD_SEED");
    let seeds = match only {
        Some(seed) => seed..seed + 1,
        None => 0..number("NVME_WORLD_SCHEDULES").unwrap_or(1000),
    };
    let count = seeds.end - seeds.start;
    let (mut tally, mut failures, mut fired) = (BTreeMap::<&str, u64>::new(), Vec::new(), 0_u64);
    for seed in seeds {
        let (config, ended) = run(seed);
        if only.is_some() {
            println!("{config:#?}\n{}\n{ended:#?}", describe(&config));
        }
        let ended = match ended {
            Ok(ended) => ended,
            Err(violation) => {
                failures.push(format!("seed {seed}: {violation}\n  {}", describe(&config)));
                continue;
            }
        };
        fired += u64::from(ended.fired.iter().flatten().any(|times| *times > 0));
        let word = match ended.verdict {
            Verdict::Verified => "verified",
            Verdict::RolledBackSourceWhole => "rolled back, source whole",
            Verdict::CorruptionFound => {
                let rules = config.rules.iter().flatten().zip(ended.fired.iter().flatten());
                let guilty = rules.into_iter().any(|(rule, times)| *times > 0 && corrupts(&rule.action));
                assert!(guilty, "seed {seed}: {:?} without a rule that corrupts", ended.corruption);
                "corruption of the device found"
            }
        };
        *tally.entry(word).or_default() += 1;
    }
    println!("{count} schedules, {fired} with faults that happened: {tally:?}");
    assert!(failures.is_empty(), "{} of {count} schedules failed:\n{}", failures.len(), failures.join("\n"));
    if only.is_none() {
        assert!(fired * 2 > count, "most schedules make faults happen: {fired} of {count}");
        assert!(tally.len() >= 2 && tally.values().all(|times| *times > 0), "both ends occur: {tally:?}");
    }
}

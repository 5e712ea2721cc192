// SPDX-License-Identifier: MIT OR Apache-2.0
//! Whole migrations: the decisions of seeded worlds, recorded.

use nvme_tests::world::{Choices, Seeded, Verdict, World, draw};

/// Seeds tried, and decisions kept of each run; later ones come from the world's own fixed seed.
const SEEDS: u64 = 60;
const KEPT: usize = 6000;

/// Writes down what a seed decides, as [`Bytes`](nvme_tests::world::Bytes) reads it.
struct Recorder {
    choices: Seeded,
    bytes: Vec<u8>,
}

impl Choices for Recorder {
    fn below(&mut self, bound: u32) -> u32 {
        let decision = self.choices.below(bound);
        let bytes = decision.to_be_bytes();
        self.bytes.extend(if bound > 256 { &bytes[..] } else { &bytes[3..] });
        decision
    }
}

/// One run for each way to end, with and without events and rules: names and decisions.
pub(super) fn recorded() -> Vec<(String, Vec<u8>)> {
    let mut found: Vec<(String, Vec<u8>)> = Vec::new();
    for seed in 0..SEEDS {
        let mut recorder = Recorder { choices: Seeded::new(seed), bytes: Vec::new() };
        let config = draw(&mut recorder);
        let Ok(ended) = World::new(config.clone()).run(&mut recorder) else { continue };
        let end = match ended.verdict {
            Verdict::Verified => "verified",
            Verdict::RolledBackSourceWhole => "rolled-back",
            Verdict::CorruptionFound => "corruption-found",
        };
        let events = if config.events.is_empty() { "" } else { "-with-events" };
        let rules = if config.rules.iter().all(Vec::is_empty) { "" } else { "-with-faults" };
        let name = format!("{end}{events}{rules}");
        if found.iter().all(|(known, _)| *known != name) {
            recorder.bytes.truncate(KEPT);
            found.push((name, recorder.bytes));
        }
    }
    found
}

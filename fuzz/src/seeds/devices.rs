// SPDX-License-Identifier: MIT OR Apache-2.0
//! Scripts for the device of the driver and supervisor targets. Host and device decide in turn from the same bytes, so
//! nobody can say beforehand who reads which. A script is therefore drawn from bytes that are harmless whoever reads
//! them, again and again, until its run reaches what it is named for; the same draws lead to the same script.

use super::noise;
use crate::{driver, supervisor};

const LENGTH: usize = 500;
const DRAWS: u64 = 4000;

/// Steps of the driver's host. As decisions of the device they mean: carry out a command, with success.
const DRIVER: &[u8] = &[19, 19, 19, 19, 19, 13, 13, 5, 4, 6, 9, 10, 17, 7, 8];
/// The same of the supervisor's host.
const SUPERVISOR: &[u8] = &[13, 13, 13, 13, 14, 15, 5, 4, 6, 16, 17, 18, 19, 11];

/// The first of many draws from `alphabet` that does what `reaches` asks for, after `before`.
fn draw(name: &str, before: &[u8], alphabet: &[&[u8]], reaches: impl Fn(&[u8]) -> bool) -> Vec<u8> {
    let alphabet = alphabet.concat();
    let mut scripts = (0..DRAWS).map(|seed| {
        let steps = noise(seed, LENGTH).into_iter().map(|byte| alphabet[usize::from(byte) % alphabet.len()]);
        before.iter().copied().chain(steps).collect::<Vec<u8>>()
    });
    scripts.find(|script| reaches(script)).unwrap_or_else(|| panic!("no draw reaches {name}"))
}

/// Target, name and bytes.
///
/// # Panics
/// A scenario is not reached by any draw.
pub(super) fn scripts() -> Vec<(&'static str, &'static str, Vec<u8>)> {
    type Driven = fn(&driver::Figures) -> bool;
    let driven: [(&str, &[u8], Driven); 6] = [
        ("pair-created-and-io", &[], |figures| figures.pairs >= 1 && figures.completed >= 8),
        ("pair-created-io-deleted", &[14, 14], |figures| figures.deleted >= 1 && figures.completed >= 3),
        ("data-queue-read", &[15, 15, 15, 24], |figures| figures.data_queues >= 1 && figures.entries >= 2),
        ("identify", &[16, 16, 16], |figures| figures.calls >= 4),
        ("statuses", &[35, 35], |figures| figures.pairs >= 1 && figures.statuses >= 3),
        ("everything", &[15, 14, 16, 16, 24], |figures| {
            figures.data_queues >= 1 && figures.deleted >= 1 && figures.completed >= 2 && figures.calls >= 1
        }),
    ];
    type Kept = fn(&supervisor::Figures) -> bool;
    // The first seven bytes are the policy.
    let kept: [(&str, [u8; 7], &[u8], Kept); 5] = [
        ("in-use-and-io", [1, 2, 3, 3, 3, 3, 3], &[], |figures| figures.ready >= 1 && figures.completed >= 8),
        ("resets", [3; 7], &[7, 7, 7], |figures| figures.resets >= 2 && figures.ready >= 2),
        ("aborts", [1, 3, 3, 3, 3, 3, 3], &[7, 7, 7, 4, 5, 6], |figures| {
            figures.timed_out >= 1 && figures.completed >= 2
        }),
        ("pairs-made-again", [2, 3, 3, 3, 3, 3, 3], &[7, 7, 4, 5], |figures| figures.pairs >= 4),
        ("gives-up", [0; 7], &[7, 7, 7], |figures| figures.lost >= 1),
    ];
    let mut scripts = Vec::new();
    for (name, more, reached) in driven {
        let script = draw(name, &[], &[DRIVER, more], |script| reached(&driver::play(script)));
        scripts.push(("driver", name, script));
    }
    for (name, policy, more, reached) in kept {
        let script = draw(name, &policy, &[SUPERVISOR, more], |script| reached(&supervisor::play(script)));
        scripts.push(("supervisor", name, script));
    }
    scripts
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_scenario_is_reached() {
        assert_eq!(scripts().len(), 11);
    }
}

// SPDX-License-Identifier: MIT OR Apache-2.0
//! A whole migration whose shape, faults, turns, resets and cancellations the input chooses.

use nvme_tests::world::{Bytes, World, draw};

/// Draws a world and runs it to its end.
///
/// # Panics
/// Something happened that must not.
pub fn run(bytes: &[u8]) {
    let mut choices = Bytes::new(bytes);
    let config = draw(&mut choices);
    let ended = World::new(config.clone()).run(&mut choices);
    if let Err(violation) = ended {
        panic!("{violation} in {config:?}");
    }
}

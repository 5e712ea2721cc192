// SPDX-License-Identifier: MIT OR Apache-2.0
//! Runs drivers against controllers in one thread, without std, alloc or libc: blocks written and read back, the codec
//! of controller states, the life of a Controller Data Queue, a migration that is rolled back and one that arrives, a
//! controller kept in use although fault rules make it misbehave.
//! Exit code 0 if all of it worked and no memory is left over, else the number of the step that failed.
//!
//! No panic can be reached from it: the check `tests/no-panic` looks at the linked program.
#![no_std]
#![no_main]

mod io;
mod media;
mod migration;
mod queue;
mod recovery;
mod state;
mod sys;
mod world;

use world::Failed;

fn run() -> u8 {
    #[cfg(feature = "deliberate-panic")]
    deliberate_panic();
    match io::work()
        .and_then(|()| state::work())
        .and_then(|()| migration::work())
        .and_then(|()| recovery::work())
    {
        Ok(()) => 0,
        Err(Failed(number)) => number,
    }
}

/// Shows that the check finds a panic where there is one.
#[cfg(feature = "deliberate-panic")]
fn deliberate_panic() {
    let values = [1_u8, 2, 3];
    let index = core::hint::black_box(1_usize);
    core::hint::black_box(values[index]);
}

// SPDX-License-Identifier: MIT OR Apache-2.0
//! A whole migration in one thread and in virtual time: two subsystems, the drivers of both managing controllers, a
//! guest with a driver of its own, a data mover, the migrator and a platform that switches the guest over.
//!
//! Everything but time is real. Who has the next turn, and how much may be done in it, is drawn from [`Choices`], so the
//! same seed, or the same bytes of a fuzzer, give the same run. Time is a counter that moves with the turns. What must
//! never happen is checked after every turn and comes back as a [`Violation`]:
//!
//! - both sides run the guest;
//! - a block does not hold what was last acknowledged to the guest, or may hold after a command without an answer;
//! - a command of the guest ends twice or never;
//! - the migration, or bringing the guest back afterwards, does not end within so many turns.

mod choices;
mod disk;
mod driver;
mod guest;
mod model;
mod mover;
mod plan;
mod platform;
mod play;
mod schedule;
mod side;

pub use choices::{Bytes, Choices, Seeded};
pub use disk::Stamp;
pub use guest::{GuestError, GuestFigures};
pub use model::Mismatch;
pub use mover::MoverError;
pub use plan::{Ended, Event, Reset, Verdict, Violation, WorldConfig, corrupts};
pub use platform::SwitchError;
pub use schedule::{EVENTS, draw, draw_without_faults};
pub use side::{MANAGER, NAMESPACE};

use nvme_core::migration::Outcome;

/// How the migration of a world ends.
pub type WorldOutcome = Outcome<MoverError, SwitchError>;

/// A world to be run.
#[derive(Clone, Debug)]
pub struct World {
    config: WorldConfig,
}

impl World {
    /// A world made as `config` says.
    #[must_use]
    pub const fn new(config: WorldConfig) -> Self {
        Self { config }
    }

    /// Runs it from the beginning: brings everything up, lets the guest work, migrates it, puts right what the migration
    /// left to its host, lets the guest work on and compares everything.
    ///
    /// # Errors
    /// The [`Violation`].
    pub fn run(&self, choices: &mut impl Choices) -> Result<Ended, Violation> {
        play::run(&self.config, choices)
    }
}

// SPDX-License-Identifier: MIT OR Apache-2.0
//! Time as the caller sees it, and what a step machine asks of it.
//!
//! The core has no clock. The caller passes the current [`Instant`] to every `poll` and gets back when to
//! call again.

use core::time::Duration;

/// A point in time: microseconds since an origin the caller chooses.
///
/// The origin is arbitrary but must be the same for every call on one object, and time must not run backwards.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Instant(u64);

impl Instant {
    /// The origin.
    pub const ZERO: Self = Self(0);

    /// The instant `microseconds` after the origin.
    #[must_use]
    pub const fn from_micros(microseconds: u64) -> Self {
        Self(microseconds)
    }

    /// Microseconds since the origin.
    #[must_use]
    pub const fn as_micros(self) -> u64 {
        self.0
    }

    /// This instant plus `duration`; saturates at the end of time instead of wrapping.
    #[must_use]
    pub fn after(self, duration: Duration) -> Self {
        Self(self.0.saturating_add(u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)))
    }

    /// How long after `earlier` this instant is; zero if it is not after it.
    #[must_use]
    pub const fn since(self, earlier: Self) -> Duration {
        Duration::from_micros(self.0.saturating_sub(earlier.0))
    }

    /// Whether `deadline` has been reached.
    #[must_use]
    pub fn has_reached(self, deadline: Self) -> bool {
        self >= deadline
    }
}

/// What a step machine did and what it waits for.
#[must_use = "a step machine that is not polled again makes no progress"]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Progress was made and more is possible at once: poll again.
    Again,
    /// Nothing to do before the device acts or this instant is reached, whichever comes first.
    Wait(Instant),
    /// The machine has finished; its result can be taken.
    Done,
}

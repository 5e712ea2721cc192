// SPDX-License-Identifier: MIT OR Apache-2.0
//! Time from the firmware, which has no clock that is always there and fine enough: it is counted by waiting.

use core::cell::Cell;
use core::time::Duration;

use nvme_core::time::Instant;

/// How a session waits.
pub trait Wait {
    /// The time.
    fn now(&self) -> Instant;

    /// Waits for this long, or less if something may have happened.
    fn sleep(&self, time: Duration);
}

/// Time that goes on while it is waited by Stall(): it runs behind a clock on the wall and never before one, so that a
/// time-out may come late and never early, and each wait ends. Data copied, registers accessed and output written between
/// two waits take no time by it: all seconds are lower bounds.
#[derive(Debug, Default)]
pub struct FirmwareTime {
    waited: Cell<u64>,
}

impl FirmwareTime {
    /// Time from zero on.
    #[must_use]
    pub const fn new() -> Self {
        Self { waited: Cell::new(0) }
    }
}

impl Wait for FirmwareTime {
    fn now(&self) -> Instant {
        Instant::from_micros(self.waited.get())
    }

    fn sleep(&self, time: Duration) {
        let time = time.max(Duration::from_micros(1));
        uefi::boot::stall(time);
        let micros = u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
        self.waited.set(self.waited.get().saturating_add(micros));
    }
}

// SPDX-License-Identifier: MIT OR Apache-2.0
//! Progress of a command, shown on standard error once it has taken a second, if that is a terminal.

use std::io::{self, IsTerminal};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

/// Commands that are done sooner show nothing.
const PATIENCE: Duration = Duration::from_secs(1);

/// A progress bar that waits a second.
#[derive(Debug)]
pub(crate) struct Meter {
    bar: ProgressBar,
    start: Instant,
    wanted: bool,
}

impl Meter {
    fn new(total: u64, template: &str, wanted: bool) -> Self {
        let bar = ProgressBar::with_draw_target(Some(total.max(1)), ProgressDrawTarget::hidden());
        let style = ProgressStyle::with_template(template);
        let bar = bar.with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
        Self { bar, start: Instant::now(), wanted }
    }

    /// For `total` bytes.
    pub(crate) fn of_bytes(total: u64) -> Self {
        let template = "{wide_bar} {bytes:>10}/{total_bytes:10} {binary_bytes_per_sec:>14} {eta:>4}";
        Self::new(total, template, io::stderr().is_terminal())
    }

    /// For `total` blocks.
    pub(crate) fn of_blocks(total: u64) -> Self {
        Self::new(total, "{wide_bar} {human_pos}/{human_len} blocks {eta:>4}", io::stderr().is_terminal())
    }

    /// For something that takes `total`.
    pub(crate) fn of_time(total: Duration) -> Self {
        let total = u64::try_from(total.as_millis()).unwrap_or(u64::MAX);
        Self::new(total, "{wide_bar} {eta:>4}", io::stderr().is_terminal())
    }

    /// So much of the time has passed.
    pub(crate) fn set_time(&mut self, passed: Duration) {
        self.set(u64::try_from(passed.as_millis()).unwrap_or(u64::MAX));
    }

    /// So much is done.
    pub(crate) fn set(&mut self, done: u64) {
        if self.wanted && self.start.elapsed() >= PATIENCE {
            self.wanted = false;
            self.bar.set_draw_target(ProgressDrawTarget::stderr());
        }
        self.bar.set_position(done);
    }

    /// Since when.
    pub(crate) fn elapsed(&self) -> Duration {
        self.start.elapsed()
    }

    /// Takes the bar away.
    pub(crate) fn finish(&self) {
        self.bar.finish_and_clear();
    }
}

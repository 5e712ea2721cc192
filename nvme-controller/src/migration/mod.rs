// SPDX-License-Identifier: MIT OR Apache-2.0
//! Host Managed Live Migration, the controller's part. NVMe Base 2.1 §8.1.12.

mod memory;
mod receive;
mod send;
mod state;

/// Whether a controller fetches commands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Run {
    /// It does.
    #[default]
    Running,
    /// It fetches no more and finishes what it has fetched.
    Suspending,
    /// It neither fetches nor writes host memory nor interrupts.
    Suspended,
}

/// How much of a new state has arrived.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Received {
    /// None.
    #[default]
    None,
    /// A sequence was refused and what had arrived was dropped. Resume is refused until a whole state is committed or
    /// the controller is reset.
    Failed,
    /// The first bytes; more must follow.
    Partial {
        /// Bytes without a gap from the start.
        bytes: usize,
        /// Version index of the sequence.
        version_index: u8,
        /// Vendor index of the sequence.
        vendor_index: u8,
        /// The managing controller (by index) that sends it.
        sender: usize,
    },
    /// All, and it is in effect.
    Committed,
}

/// What one controller keeps about its own migration.
#[derive(Debug)]
pub(crate) struct Target<'s> {
    pub(crate) run: Run,
    /// The managing controller (by index) that processed the last Suspend: with its reset the suspension ends. A manager
    /// that suspends a suspended controller takes it over, so that the reset of the first one does not let it run.
    pub(crate) suspended_by: Option<usize>,
    /// Where a new state is collected.
    pub(crate) staging: &'s mut [u8],
    pub(crate) received: Received,
    /// The suspended marker is to be posted after the completion of the Suspend.
    pub(crate) marker_due: bool,
    /// The data queue (by slot) that its changes are logged to, while logging is on.
    pub(crate) log: Option<usize>,
    /// Logging counts as active although nothing is logged, which is a quirk.
    pub(crate) counts_as_logged: bool,
}

impl<'s> Target<'s> {
    pub(crate) fn new(staging: &'s mut [u8]) -> Self {
        Self {
            run: Run::Running,
            suspended_by: None,
            staging,
            received: Received::None,
            marker_due: false,
            log: None,
            counts_as_logged: false,
        }
    }
}

// SPDX-License-Identifier: MIT OR Apache-2.0
//! What a migration is to do, and what it reports.

use core::time::Duration;

use super::quirks::Quirks;
use crate::cdq::{CdqFigures, CdqOptions};
use crate::wire::ControllerId;

/// How long things may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timeouts {
    /// A command.
    pub command: Duration,
    /// A suspension: the source waits for commands it has fetched, and for room in the guest's completion queues.
    pub suspend: Duration,
    /// From the completion of the suspension to the entry that closes the log.
    pub marker: Duration,
    /// An answer of the destination. Longer than its commands.
    pub answer: Duration,
    /// How long to wait before looking again when nothing is to be done.
    pub poll: Duration,
}

impl Default for Timeouts {
    fn default() -> Self {
        Self {
            command: Duration::from_secs(10),
            suspend: Duration::from_secs(30),
            marker: Duration::from_secs(5),
            answer: Duration::from_secs(60),
            poll: Duration::from_micros(500),
        }
    }
}

/// What to do when the copy does not converge within the limits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ConvergencePolicy {
    /// Suspend the source all the same: the guest stands still for as long as the rest takes.
    #[default]
    Force,
    /// Cancel and leave the guest at the source.
    Cancel,
}

/// How the data gets to the destination.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum DataPath {
    /// The migration copies it, guided by the log.
    #[default]
    Copy,
    /// Both sides see the same medium: nothing is copied, and no queue is created.
    Shared,
}

/// What a migration is to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MigrationOptions {
    /// The controller whose guest migrates, by its identifier in the source's subsystem.
    pub controller: ControllerId,
    /// How the data gets there.
    pub data: DataPath,
    /// Shape of the Controller Data Queue and when its head is published.
    pub queue: CdqOptions,
    /// Entries read from the queue in one poll.
    pub batch: u32,
    /// Blocks moved in one piece.
    pub extent_blocks: u64,
    /// Most delta rounds, at least one; a round cut short by an overflow counts.
    pub max_rounds: u32,
    /// The rounds end when what is left would take no longer than this.
    pub stop_time_limit: Duration,
    /// What to do when they do not.
    pub convergence: ConvergencePolicy,
    /// Have the suspension delete the queue, so that only its memory is left to read.
    pub delete_with_suspend: bool,
    /// Blocks that the source reports as not allocated read as zeroes there (DLFEAT bits 2:0 are 001b), so that they
    /// need not be read.
    pub unallocated_reads_zero: bool,
    /// How long things may take.
    pub timeouts: Timeouts,
    /// Deviations of the source's managing controller.
    pub quirks: Quirks,
}

impl MigrationOptions {
    /// The usual way to migrate `controller`.
    #[must_use]
    pub fn new(controller: ControllerId) -> Self {
        Self {
            controller,
            data: DataPath::Copy,
            queue: CdqOptions::default(),
            batch: 256,
            extent_blocks: 2048,
            max_rounds: 16,
            stop_time_limit: Duration::from_millis(100),
            convergence: ConvergencePolicy::Force,
            delete_with_suspend: false,
            unallocated_reads_zero: false,
            timeouts: Timeouts::default(),
            quirks: Quirks::empty(),
        }
    }
}

/// One pass over blocks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Round {
    /// 0 for the baseline, then counting the delta rounds; the last one runs while the source is suspended.
    pub number: u32,
    /// Entries of the log read meanwhile.
    pub entries: u64,
    /// Blocks brought to the destination.
    pub blocks: u64,
    /// Bytes brought to the destination.
    pub bytes: u64,
    /// How long it took.
    pub duration: Duration,
    /// Blocks that were dirty when it ended.
    pub dirty_blocks: u64,
    /// The log lost changes meanwhile, so that everything has to be copied again.
    pub cut_short: bool,
}

/// How the rounds ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Convergence {
    /// What was left would take no longer than the limit.
    Reached,
    /// As many rounds as allowed were not enough.
    RoundsExhausted,
    /// What was left did not become less any more.
    Stalled,
    /// The log overflowed after the last round, or in so many that none could be finished.
    Overflowed,
}

impl Convergence {
    /// The word for it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Reached => "reached",
            Self::RoundsExhausted => "rounds-exhausted",
            Self::Stalled => "stalled",
            Self::Overflowed => "overflowed",
        }
    }
}

/// Where a migration stands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    /// Blocks of all namespaces.
    pub total_blocks: u64,
    /// Estimate of what is left: blocks of the baseline, dirty blocks and blocks on their way. Above zero until
    /// everything has been copied, zero from then on.
    pub remaining_blocks: u64,
    /// Blocks brought to the destination, counted as often as moved.
    pub moved_blocks: u64,
    /// Bytes brought to the destination.
    pub moved_bytes: u64,
}

/// What a migration did, for the closing report.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Summary {
    /// Rounds made, the baseline and the final one included; more than are in the lent slice if that was too short.
    pub rounds: u32,
    /// Counts of the Controller Data Queue.
    pub queue: CdqFigures,
    /// Blocks brought to the destination.
    pub blocks: u64,
    /// Bytes brought to the destination.
    pub bytes: u64,
    /// Times the log was restarted after an overflow.
    pub restarts: u32,
    /// How the rounds ended, once they have.
    pub convergence: Option<Convergence>,
    /// From sending the suspend to the acknowledgement of a resume, at the destination or, rolled back, at the source.
    pub stop_time: Option<Duration>,
}

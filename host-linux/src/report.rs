// SPDX-License-Identifier: MIT OR Apache-2.0
//! The result of a run, as data; the same whether printed as tables or as JSON. Times are in microseconds.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::config::CdqLayout;
use crate::guest::Pattern;

/// How a run ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Verdict {
    /// The namespace was migrated, and both it and everything the guest wrote were verified.
    Verified,
    /// The controller was migrated; the guest is somebody else's, and the sides were not compared.
    Migrated,
    /// Some block is not what it must be, or the guest saw an error.
    VerificationFailed,
    /// The migration failed and was rolled back, or the guest could not go on.
    MigrationFailed,
    /// The migration was cancelled as asked; the guest runs on at the source and was verified.
    Cancelled,
    /// The migration was cancelled because it did not converge; the guest runs on at the source and was verified.
    NotConverged,
    /// The migration was cancelled by a signal; the guest ran on at the source and was verified.
    Interrupted,
}

impl Verdict {
    /// The program's exit status.
    #[must_use]
    pub const fn exit_status(self) -> u8 {
        match self {
            Self::Verified | Self::Migrated => 0,
            Self::VerificationFailed | Self::MigrationFailed => 1,
            Self::Cancelled => 3,
            Self::NotConverged => 4,
            Self::Interrupted => 130,
        }
    }
}

/// Options that matter for reading the figures.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Setup {
    /// The source image; absent if in memory.
    pub source_image: Option<PathBuf>,
    /// The destination image; absent if in memory.
    pub destination_image: Option<PathBuf>,
    /// Bytes in the namespace.
    pub size: u64,
    /// Bytes in a logical block.
    pub block_size: u32,
    /// Commands in flight in each I/O queue pair.
    pub queue_depth: u16,
    /// I/O queue pairs of the guest.
    pub io_queues: u16,
    /// Bytes in one command of the guest.
    pub io_size: u32,
    /// Order in which the guest touches blocks.
    pub pattern: Pattern,
    /// Reads among the guest's commands, in percent.
    pub read_percent: u8,
    /// Write commands a second, at most.
    pub write_rate: Option<u64>,
    /// Seed of all data and choices.
    pub seed: u64,
}

/// What one pass over dirty blocks did.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RoundReport {
    /// 0 for the first copy of everything, then counting up; the last one runs while the guest is stopped.
    pub round: u32,
    /// Controller Data Queue entries consumed.
    pub entries: u64,
    /// Blocks brought to the destination.
    pub blocks: u64,
    /// Bytes brought to the destination.
    pub bytes: u64,
    /// How long it took.
    pub duration_us: u64,
    /// Blocks that were dirty when it ended.
    pub dirty_blocks: u64,
    /// The queue overflowed meanwhile, so that everything had to be copied again.
    pub cut_short: bool,
}

/// Figures of the Controller Data Queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CdqReport {
    /// Slots in the queue.
    pub capacity: u32,
    /// How it lies in memory.
    pub layout: CdqLayout,
    /// Pages that the PRP list names; 0 if contiguous.
    pub list_entries: u32,
    /// Entries consumed, markers included.
    pub entries: u64,
    /// Set Features commands that moved the head.
    pub head_updates: u64,
    /// Asynchronous events about the queue.
    pub events: u64,
    /// Most entries found waiting at once.
    pub highest_fill: u32,
    /// Times the queue became full and logging began anew.
    pub overflows: u64,
}

/// How the decision to stop the guest came about.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConvergenceReport {
    /// Whether the rest was expected to take no longer than the stop time limit.
    pub reached: bool,
    /// The same in words.
    pub statement: String,
    /// Stop time aimed for.
    pub limit_us: u64,
}

/// What the guest did and found.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct GuestReport {
    /// Commands that the guest saw completed before its controller went on after the stop, on either side; all of them
    /// if it never stopped.
    pub commands_before: u64,
    /// Commands that the guest saw completed after that.
    pub commands_after: u64,
    /// Commands in flight when its controller went on, which completed on the side that did.
    pub in_flight: u64,
    /// Read commands completed.
    pub reads: u64,
    /// Write commands acknowledged.
    pub writes: u64,
    /// Admin commands completed.
    pub admin: u64,
    /// Asynchronous events reported to it.
    pub events: u64,
    /// Resets of its controller, each because the controller did not take commands when the guest was to go on with it.
    #[serde(default)]
    pub resets: u64,
    /// Blocks checked while reading back at random.
    pub blocks_read: u64,
    /// Different blocks written, all of which were verified before the migration began.
    pub verified_before: u64,
    /// Different blocks written, all of which were verified after it.
    pub verified_after: u64,
    /// What went wrong first, if anything did.
    pub error: Option<String>,
}

/// Both namespaces side by side, as they were at the switch.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ComparisonReport {
    /// Blocks of the namespace, each of which was compared once.
    pub blocks: u64,
    /// Blocks equal on both sides.
    pub equal: u64,
    /// Blocks compared just before the guest overwrote them at the destination; the others were compared at the end.
    pub before_change: u64,
    /// Blocks that differ.
    pub wrong: u64,
    /// First of them.
    pub first_wrong: Option<u64>,
}

/// A fault rule and what became of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FaultReport {
    /// Whose controllers it was for.
    pub subsystem: crate::journal::Side,
    /// The rule, as text.
    pub rule: String,
    /// Occurrences of what it matches.
    pub matched: u32,
    /// How often it acted.
    pub fired: u32,
}

/// Memory and queues left behind.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LeftoverReport {
    /// Bytes of device memory still in use by Controller Data Queues.
    pub controller_data: u64,
    /// Bytes of device memory still in use after everything was shut down.
    pub bytes: u64,
}

/// Which of the guest's two controllers was enabled, as read from their registers while the guest ran on; none where nobody
/// knows, because somebody else's controller does not show them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct EnabledReport {
    /// The one at the source.
    pub source: Option<bool>,
    /// The one at the destination.
    pub destination: Option<bool>,
}

/// Where a guest runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum RunsOn {
    /// At the source.
    Source,
    /// At the destination.
    Destination,
    /// It stands still: it may run on neither side any more. Which side holds every write acknowledged to it is in the statement
    /// and in the journal.
    Nowhere,
}

impl From<Option<crate::journal::Side>> for RunsOn {
    fn from(side: Option<crate::journal::Side>) -> Self {
        match side {
            Some(crate::journal::Side::Source) => Self::Source,
            Some(crate::journal::Side::Destination) => Self::Destination,
            None => Self::Nowhere,
        }
    }
}

impl std::fmt::Display for RunsOn {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Source => "source",
            Self::Destination => "destination",
            Self::Nowhere => "nowhere: it stands still",
        })
    }
}

/// The result of a run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// How it ended.
    pub verdict: Verdict,
    /// The same in words, with the reason.
    pub statement: String,
    /// What was to be known before it began, such as changes that the source is known to leave out of its log.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub notes: Vec<String>,
    /// Where the guest runs now: `source`, `destination` or `nowhere`.
    pub guest_runs_on: RunsOn,
    /// Options that matter for reading the figures.
    pub setup: Setup,
    /// Last step that completed.
    pub last_step: String,
    /// All passes over dirty blocks.
    pub rounds: Vec<RoundReport>,
    /// Figures of the Controller Data Queue.
    pub cdq: CdqReport,
    /// Bytes brought to the destination in all.
    pub total_bytes: u64,
    /// From the moment Suspend was sent until the guest's controller was resumed; absent if it never stopped.
    pub stop_time_us: Option<u64>,
    /// From the first step to the last.
    pub duration_us: u64,
    /// How the decision to stop the guest came about.
    pub convergence: ConvergenceReport,
    /// What the guest did and found.
    pub guest: GuestReport,
    /// Both namespaces side by side at the switch; absent if the migration did not complete.
    pub comparison: Option<ComparisonReport>,
    /// Which of the guest's controllers was enabled at the end: never both.
    pub enabled: EnabledReport,
    /// Memory left behind.
    pub leftovers: LeftoverReport,
    /// The journal, if there is one.
    pub journal: Option<PathBuf>,
    /// The fault rules asked for, the source's first.
    pub faults: Vec<FaultReport>,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::journal::Side;

    #[test]
    fn a_guest_that_stands_still_runs_nowhere() {
        let rows = [
            (Some(Side::Source), "\"source\"", "source"),
            (Some(Side::Destination), "\"destination\"", "destination"),
            (None, "\"nowhere\"", "nowhere: it stands still"),
        ];
        for (side, json, text) in rows {
            let place = RunsOn::from(side);
            assert_eq!(serde_json::to_string(&place).expect("JSON"), json);
            assert_eq!(serde_json::from_str::<RunsOn>(json).expect("a place"), place);
            assert_eq!(place.to_string(), text);
        }
    }
}

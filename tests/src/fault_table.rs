// SPDX-License-Identifier: MIT OR Apache-2.0
//! What becomes of every kind of fault, in the driver, in the reader of a Controller Data Queue, and in a migration.
//!
//! One row for each kind; `driver_faults`, `fault_table_reader` and `migration_faults` run every cell and assert its
//! outcome, and the README shows what [`markdown`] makes of it.

use std::fmt::Write;

use nvme_controller::fault::FaultKind;

/// How a fault ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// All commands complete, each once, with the right data.
    Completed,
    /// The command ends with the status of the fault, once; everything else goes on.
    Status,
    /// The command's time-out is reported once; everything else goes on.
    TimedOut,
    /// The controller is reset, its queues come back, and unfinished commands are reported as such, each once.
    Reset,
    /// The controller does not become ready in time: bring-up ends with an error.
    NotReady,
    /// The controller counts as removed: unfinished commands are reported as such, each once.
    Removed,
    /// A broken rule of the log is reported: every block counts as changed.
    Everything,
    /// Overflow mode: every block counts as changed, and the log starts anew.
    Overflow,
    /// The log ends without its last entry, or none of its entries is seen any more: reading it runs into a time-out.
    Silent,
    /// The queue is gone with a reset: every block counts as changed.
    Gone,
    /// A head update fails and is reported; it is sent again.
    HeadRetried,
    /// Data is wrong and nothing in the protocol shows it; comparing the content finds it.
    Compared,
    /// The memory of the queue is with its pool again, and written to by nobody but the fault.
    MemoryBack,
    /// The migration is verified.
    Verified,
    /// The migration is rolled back; the guest runs on at the source, which has every block.
    RolledBack,
    /// The fault cannot reach this part.
    NotConcerned,
}

impl Outcome {
    /// The outcome as the README names it.
    #[must_use]
    pub const fn text(self) -> &'static str {
        match self {
            Self::Completed => "completed",
            Self::Status => "status reported once",
            Self::TimedOut => "timed out, command reported once",
            Self::Reset => "controller reset, queues back",
            Self::NotReady => "not ready in time, reported",
            Self::Removed => "removed, commands reported once",
            Self::Everything => "rule broken, all counts as changed",
            Self::Overflow => "overflow mode",
            Self::Silent => "log silent, timed out",
            Self::Gone => "queue gone, all counts as changed",
            Self::HeadRetried => "update reported failed, sent again",
            Self::Compared => "wrong data, found by comparison",
            Self::MemoryBack => "nobody reads it",
            Self::Verified => "verified",
            Self::RolledBack => "rolled back, source whole",
            Self::NotConcerned => "not concerned",
        }
    }
}

/// One kind of fault and how it ends.
#[derive(Clone, Copy, Debug)]
pub struct Row {
    /// The kind.
    pub kind: FaultKind,
    /// A driver with I/O queues over the faulty controller.
    pub driver: Outcome,
    /// A reader of a Controller Data Queue of the faulty controller.
    pub reader: Outcome,
    /// A migration between managing controllers one of which is faulty, with both sides compared before the switch.
    pub migration: Outcome,
}

const fn row(kind: FaultKind, driver: Outcome, reader: Outcome, migration: Outcome) -> Row {
    Row { kind, driver, reader, migration }
}

/// Every kind of fault.
pub const ROWS: &[Row] = &{
    use FaultKind as K;
    use Outcome::*;
    [
        row(K::Drop, TimedOut, HeadRetried, RolledBack),
        row(K::Delay, Completed, Completed, Verified),
        row(K::Duplicate, Reset, Gone, RolledBack),
        row(K::Reorder, Completed, Completed, Verified),
        row(K::WrongCommandId, Reset, Gone, RolledBack),
        row(K::WrongQueueId, Reset, Gone, RolledBack),
        row(K::WrongSqHead, Reset, Gone, RolledBack),
        row(K::WrongPhase, TimedOut, Gone, RolledBack),
        row(K::EarlyPhase, Reset, Gone, RolledBack),
        row(K::Status, Status, HeadRetried, RolledBack),
        row(K::FlipToHost, Compared, NotConcerned, RolledBack),
        row(K::FlipToDevice, Compared, NotConcerned, RolledBack),
        row(K::AllOnes, Removed, Removed, RolledBack),
        row(K::NeverReady, NotReady, NotReady, RolledBack),
        row(K::LateReady, Completed, Completed, Verified),
        row(K::Fatal, Reset, Gone, RolledBack),
        row(K::Reset, Reset, Gone, RolledBack),
        row(K::CdqWrongPhase, NotConcerned, Silent, RolledBack),
        row(K::CdqTornEntry, NotConcerned, Everything, Verified),
        row(K::CdqReservedSequence, NotConcerned, Everything, Verified),
        row(K::CdqMissingFirst, NotConcerned, Everything, Verified),
        row(K::CdqMissingLast, NotConcerned, Silent, RolledBack),
        row(K::CdqFullEarly, NotConcerned, Overflow, Verified),
        row(K::CdqHeadRefused, NotConcerned, Completed, Verified),
        row(K::CdqEventLost, NotConcerned, Completed, Verified),
        row(K::CdqEventDuplicated, NotConcerned, Completed, Verified),
        row(K::CdqEventUnknown, NotConcerned, Completed, Verified),
        row(K::CdqWriteAfterDelete, NotConcerned, MemoryBack, Verified),
    ]
};

/// The row of a kind.
///
/// # Panics
/// If the table has none.
#[must_use]
pub fn of(kind: FaultKind) -> Row {
    *ROWS.iter().find(|row| row.kind == kind).expect("every kind has a row")
}

/// The table as the README shows it.
#[must_use]
pub fn markdown() -> String {
    let mut text =
        String::from("| Fault | What it is | Driver | CDQ reader | Migration |\n|---|---|---|---|---|\n");
    for row in ROWS {
        let cells = [row.driver, row.reader, row.migration].map(Outcome::text).join(" | ");
        writeln!(text, "| `{}` | {} | {cells} |", row.kind, row.kind.summary()).expect("a string takes it");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Between these two lines of the README.
    const MARKERS: [&str; 2] = ["<!-- fault table -->\n", "<!-- end of fault table -->"];

    #[test]
    fn every_kind_has_one_row_in_the_order_of_the_kinds() {
        assert_eq!(ROWS.iter().map(|row| row.kind).collect::<Vec<_>>(), FaultKind::ALL);
    }

    #[test]
    fn the_readme_shows_the_table() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../README.md");
        let readme = std::fs::read_to_string(path).expect("the README");
        let (_, rest) = readme.split_once(MARKERS[0]).expect("the table begins");
        let (table, _) = rest.split_once(MARKERS[1]).expect("the table ends");
        assert!(table == markdown(), "put this between the two marks of README.md:\n{}", markdown());
    }
}

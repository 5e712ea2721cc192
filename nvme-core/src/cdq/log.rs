// SPDX-License-Identifier: MIT OR Apache-2.0
//! The log of one tracked controller: which entries may follow which, and what they mean.
//! NVM Command Set 1.1 §5.6, User Data Migration Queue.

use core::fmt;

use crate::wire::lba_migration::{Change, EntryError, EntrySequence, LbaMigrationEntry};
use crate::wire::{Lba, NamespaceId};

/// One event of a tracked controller's log.
///
/// An entry that marks a point in the log may report changed blocks too: it gives two events.
#[must_use = "an event that is not looked at is a change that is not copied"]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum LogEvent {
    /// The log covers every change from here on: logging started, or the tracked controller resumed.
    LogStarted,
    /// Blocks of a namespace changed.
    Changed {
        /// The namespace.
        namespace: NamespaceId,
        /// First block.
        start: Lba,
        /// Number of blocks, 1 to 2^32.
        blocks: u64,
        /// They were deallocated. When clear they were written or deallocated.
        deallocated: bool,
    },
    /// Any block of a namespace may have changed.
    AllChanged {
        /// The namespace.
        namespace: NamespaceId,
    },
    /// Logging stopped at the host's request; later changes are not reported.
    LogStopped,
    /// The tracked controller is suspended, and if changes were being reported until now, every one has been.
    Suspended,
    /// The queue became full and logging stopped: changes are lost, so every block of every namespace has to be
    /// taken for changed.
    Overflowed,
}

/// Where the log stands after the entries read so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum LogState {
    /// Nothing was logged yet.
    #[default]
    Idle,
    /// Changes are reported.
    Logging,
    /// Stopped by the host.
    Stopped,
    /// Ended by the suspension of the tracked controller, complete.
    Suspended,
    /// Ended by overflow.
    Overflowed,
}

/// An entry breaks the rules of the log, so what it fails to say is unknown: every block has to be copied again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogViolation {
    /// An entry that is not one: reserved values or an impossible range.
    Malformed(EntryError),
    /// An ordinary entry (ESA 000b) while nothing was being logged.
    ChangeOutsideLog(LogState),
    /// A first entry (ESA 001b) in the middle of a log.
    StartInsideLog,
}

impl core::error::Error for LogViolation {}

impl fmt::Display for LogViolation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Malformed(error) => write!(f, "a log entry is malformed: {error}; copy every block again"),
            Self::ChangeOutsideLog(state) => {
                write!(f, "a change was reported while the log was {state:?}: copy every block again")
            }
            Self::StartInsideLog => {
                f.write_str("a log that had already started started again: copy every block again")
            }
        }
    }
}

/// What one entry says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Decoded {
    /// The change and the marker, in the order in which they count.
    pub(super) events: [Option<LogEvent>; 2],
    /// The rule the entry breaks; its events count all the same.
    pub(super) violation: Option<LogViolation>,
}

/// An entry that is not one, and where in the log it stands all the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Malformed {
    pub(super) error: EntryError,
    /// `None` if that is what is reserved.
    pub(super) sequence: Option<EntrySequence>,
}

impl LogState {
    /// Takes one entry.
    #[inline]
    pub(super) fn take(&mut self, entry: Result<LbaMigrationEntry, Malformed>) -> Decoded {
        match entry {
            Ok(entry) => self.take_checked(entry),
            Err(malformed) => self.take_malformed(malformed),
        }
    }

    /// The log starts or ends with a marker, whatever the rest of its entry is.
    #[cold]
    fn take_malformed(&mut self, malformed: Malformed) -> Decoded {
        let events = match malformed.sequence {
            Some(sequence) => {
                let marker = LbaMigrationEntry { phase: false, sequence, change: Change::None };
                self.take_checked(marker).events
            }
            None => [None; 2],
        };
        Decoded { events, violation: Some(LogViolation::Malformed(malformed.error)) }
    }

    #[inline]
    fn take_checked(&mut self, entry: LbaMigrationEntry) -> Decoded {
        let change = match entry.change {
            Change::Range { namespace, start, blocks, deallocated } => {
                Some(LogEvent::Changed { namespace, start, blocks, deallocated })
            }
            Change::AllOfNamespace { namespace } => Some(LogEvent::AllChanged { namespace }),
            Change::None => None,
        };
        let before = *self;
        let marker = match entry.sequence {
            EntrySequence::Ordinary => {
                let violation = (before != Self::Logging).then_some(LogViolation::ChangeOutsideLog(before));
                return Decoded { events: [change, None], violation };
            }
            EntrySequence::First => {
                *self = Self::Logging;
                let violation = (before == Self::Logging).then_some(LogViolation::StartInsideLog);
                return Decoded { events: [Some(LogEvent::LogStarted), change], violation };
            }
            EntrySequence::LastStopped => {
                *self = Self::Stopped;
                LogEvent::LogStopped
            }
            EntrySequence::LastSuspended => {
                // Posted while nothing is logged it closes nothing: what was lost before stays lost.
                if matches!(before, Self::Idle | Self::Logging) {
                    *self = Self::Suspended;
                }
                LogEvent::Suspended
            }
            EntrySequence::LastFull => {
                *self = Self::Overflowed;
                LogEvent::Overflowed
            }
        };
        Decoded { events: [change, Some(marker)], violation: None }
    }
}

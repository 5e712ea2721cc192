// SPDX-License-Identifier: MIT OR Apache-2.0
//! What the program does with a controller in use, whatever it runs on; [`mod@line`] and [`words`] read its
//! command line.

mod ending;
mod fence;
pub mod line;
mod migrate;
mod mover;
mod show;
mod watch;
pub mod words;

use core::fmt;

use nvme_core::admin::CallError;
use nvme_core::cdq::CdqMemoryError;
use nvme_core::wire::identify::NotAnnounced;

pub use fence::{BusMaster, Fence};
pub use migrate::{Migration, Side, migrate};
pub use show::{RegistersError, identify, log, read, registers};
pub use watch::{Watch, watch};

use crate::session::SessionError;

/// Why a command failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CommandError {
    /// The controller was not driven.
    Session(SessionError),
    /// The controller does not announce what is needed.
    Unsupported(NotAnnounced),
    /// Nothing can be printed any more.
    Output,
    /// Blocks behind the end of the namespace.
    BeyondEnd {
        /// First block asked for.
        start: u64,
        /// Blocks asked for.
        count: u64,
        /// Blocks that there are.
        blocks: u64,
    },
    /// The controller to be tracked or migrated is the managing controller.
    TargetIsManager(u16),
    /// The queue is not possible.
    Queue(CdqMemoryError),
    /// A command about the queue did not succeed.
    QueueCommand(&'static str, CallError),
    /// The managing controller was reset, and the queue went with it.
    QueueGone,
    /// Both managing controllers are of one subsystem, or may be.
    OneSubsystem,
    /// Source and destination have namespaces of different sizes.
    Unlike,
    /// The migration did not complete; what was printed says where the guest runs.
    NotMigrated,
    /// The migration completed, but the source is not seen to be disabled.
    SourceEnabled,
    /// The function of the source is not that of the controller that was migrated, which is suspended still. The session of
    /// its managing controller is not to be closed: the controller would run beside the destination.
    SourceElsewhere,
    /// The function of the destination is not that of the controller that was given state of the guest, and is suspended
    /// still. The session of its managing controller is not to be closed: the controller would run beside the source.
    DestinationElsewhere,
}

impl core::error::Error for CommandError {}

impl fmt::Display for CommandError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Session(error) => error.fmt(f),
            Self::Unsupported(error) => write!(f, "{error}; nothing was sent"),
            Self::Output => f.write_str("the output cannot be written: give a console, or a file with room"),
            Self::BeyondEnd { start, count, blocks } => {
                write!(
                    f,
                    "{count} blocks from {start} on are no part of a namespace of {blocks} blocks: name one at least, and none \
                     behind its end"
                )
            }
            Self::TargetIsManager(id) => {
                write!(f, "controller {id} is the managing controller itself: name one that it manages")
            }
            Self::Queue(error) => error.fmt(f),
            Self::QueueCommand(what, error) => write!(f, "{what}: {error}"),
            Self::QueueGone => f.write_str(
                "the managing controller was reset, and the queue went with it: every block may have changed",
            ),
            Self::OneSubsystem => f.write_str(
                "both managing controllers are of one subsystem, as far as they tell: a namespace there would be copied onto \
                 itself; name a destination in another subsystem",
            ),
            Self::Unlike => f.write_str(
                "the namespaces at source and destination are not of the same size: name a destination of as many blocks, each as \
                 long",
            ),
            Self::NotMigrated => f.write_str(
                "the migration did not complete: what was printed says where the guest runs, and what stood against it",
            ),
            Self::SourceElsewhere => f.write_str(
                "the guest was migrated, but the function that --source names is not that of the controller that --source-id \
                 names, which is suspended still and must not run: its managing controller is left as it is; reset the machine",
            ),
            Self::DestinationElsewhere => f.write_str(
                "the migration did not complete, and the function that --dest names is not that of the controller that \
                 --dest-id names, which is suspended still and must not run: its managing controller is left as it is; reset \
                 the machine",
            ),
            Self::SourceEnabled => f.write_str(
                "the guest was migrated, but the source is not seen to be disabled: connect no driver to it, and reset the \
                 machine",
            ),
        }
    }
}

impl From<SessionError> for CommandError {
    fn from(error: SessionError) -> Self {
        Self::Session(error)
    }
}

impl From<NotAnnounced> for CommandError {
    fn from(error: NotAnnounced) -> Self {
        Self::Unsupported(error)
    }
}

impl From<fmt::Error> for CommandError {
    fn from(_: fmt::Error) -> Self {
        Self::Output
    }
}

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
pub(crate) use migrate::is_in_use;
pub use migrate::{Migration, Side, migrate};
pub use show::{RegistersError, identify, log, read, registers};
pub use watch::{Waiting, Watch, watch};

use crate::session::SessionError;
use crate::sys::PciStatus;
use crate::takeover::Seen;

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
    /// The controller goes on logging although it was told to stop: more came than a queue of so many slots holds.
    LogGoesOn(u32),
    /// Both managing controllers are of one subsystem, or may be.
    OneSubsystem,
    /// Source and destination have namespaces of different sizes.
    Unlike,
    /// The function of the source, where it is if that is known, is not seen to be in use.
    SourceNotInUse(Option<[usize; 4]>, Result<Seen, PciStatus>),
    /// As before, but it was in use before the managing controllers were taken over.
    SourceWasReset(Option<[usize; 4]>, Result<Seen, PciStatus>),
    /// The migration did not complete; what was printed says where the guest runs.
    NotMigrated,
    /// The migration completed, but the source is not seen to be disabled.
    SourceEnabled,
    /// The migration completed, but the function of the destination, where it is if that is known, is not seen to be in use: it
    /// is not that of the controller that was resumed.
    DestinationNotInUse(Option<[usize; 4]>, Result<Seen, PciStatus>),
    /// The function of the source is not that of the controller that was migrated, which is suspended still. The session of
    /// its managing controller is not to be closed: the controller would run beside the destination.
    SourceElsewhere,
    /// As before, but nothing shows which controller the function of the source is: the controller that was migrated is
    /// suspended still, or its managing controller does not say whether it is.
    SourceSuspended,
    /// The function of the destination is not that of the controller that was given state of the guest, and is suspended
    /// still. The session of its managing controller is not to be closed: the controller would run beside the source.
    DestinationElsewhere,
    /// As before, but nothing shows which controller the function of the destination is: the controller that was given state
    /// of the guest is suspended still, or its managing controller does not say whether it is.
    DestinationSuspended,
}

impl CommandError {
    /// Whether the sessions of source and destination are to be closed behind this error of a migration: the reset of a
    /// managing controller lets run what it holds suspended.
    #[must_use]
    pub const fn closes(&self) -> [bool; 2] {
        [
            !matches!(self, Self::SourceElsewhere | Self::SourceSuspended),
            !matches!(self, Self::DestinationElsewhere | Self::DestinationSuspended),
        ]
    }
}

/// A function that is not seen to be in use.
fn unused(
    f: &mut fmt::Formatter<'_>,
    which: &str,
    place: Option<[usize; 4]>,
    seen: &Result<Seen, PciStatus>,
) -> fmt::Result {
    write!(f, "the {which}'s function")?;
    if let Some([segment, bus, device, function]) = place {
        write!(f, " ({segment:04x}:{bus:02x}:{device:02x}.{function})")?;
    }
    match seen {
        Ok(Seen::Registers { enabled, ready }) => {
            write!(f, " is not in use: CC.EN is {}, CSTS.RDY is {}", u8::from(*enabled), u8::from(*ready))
        }
        Ok(Seen::AllOnes) => f.write_str(
            " reads all ones in its registers: its memory space is off, or it is gone, and nothing shows that a guest uses it",
        ),
        Err(status) => write!(f, " does not let its registers be read: {status}"),
    }
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
            Self::LogGoesOn(slots) => write!(
                f,
                "the controller goes on logging although it has completed the stop: more came than a queue of {slots} slots \
                 holds; reset the machine, or use another controller"
            ),
            Self::OneSubsystem => f.write_str(
                "both managing controllers are of one subsystem, as far as they tell: a namespace there would be copied onto \
                 itself; name a destination in another subsystem",
            ),
            Self::Unlike => f.write_str(
                "the namespaces at source and destination are not of the same size: name a destination of as many blocks, each as \
                 long",
            ),
            Self::SourceNotInUse(place, seen) => {
                unused(f, "source", *place, seen)?;
                f.write_str(
                    "; nothing was migrated: connect a driver to it if it has none (connect -r HANDLE in the shell), or name the function of the \
                     guest's controller (--source)",
                )
            }
            Self::SourceWasReset(place, seen) => {
                unused(f, "source", *place, seen)?;
                f.write_str(
                    "; it was in use before, which the reset of its managing controller or its user may have ended; nothing was \
                     migrated: where the guest does not run any more start it anew",
                )
            }
            Self::NotMigrated => f.write_str(
                "the migration did not complete: what was printed says where the guest runs, and what stood against it",
            ),
            Self::SourceElsewhere => f.write_str(
                "the guest runs at the destination, or is to, but the function that --source names is not that of the controller that --source-id \
                 names, which is suspended still and must not run: its managing controller is left as it is; reset the machine",
            ),
            Self::SourceSuspended => f.write_str(
                "the guest runs at the destination, or is to, but nothing shows that the function that --source names is that of the controller that \
                 --source-id names, which must not run and would if it is suspended still: its managing controller is left as it \
                 is; reset the machine",
            ),
            Self::DestinationSuspended => f.write_str(
                "the migration did not complete, and nothing shows that the function that --dest names is that of the \
                 controller that --dest-id names, which must not run and would if it is suspended still: its managing \
                 controller is left as it is; reset the machine",
            ),
            Self::DestinationElsewhere => f.write_str(
                "the migration did not complete, and the function that --dest names is not that of the controller that \
                 --dest-id names, which is suspended still and must not run: its managing controller is left as it is; reset \
                 the machine",
            ),
            Self::DestinationNotInUse(place, seen) => {
                unused(f, "destination", *place, seen)?;
                f.write_str(
                    "; the guest was migrated, but the function that --dest names is not seen to be that of the controller that \
                     --dest-id names, which runs, as a rule without bus mastering, so that the guest stands still: connect no \
                     driver to it, and reset the machine",
                )
            }
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

// SPDX-License-Identifier: MIT OR Apache-2.0
//! Why a migration did not succeed.

use core::fmt;

use super::formats::NoCommonFormat;
use super::message::PROTOCOL_VERSION;
use crate::admin::CallError;
use crate::cdq::{CdqMemoryError, HeadUpdateFailed};
use crate::dirty::MarkError;
use crate::dma::DmaError;
use crate::wire::controller_state::StateError;
use crate::wire::identify::IdentifyError;
use crate::wire::{ControllerId, TargetIsManager};

/// A command of a migration.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum MigrationCommand {
    /// Identify Controller.
    Identify,
    /// Identify, Supported Controller State Formats.
    StateFormats,
    /// Controller Data Queue, create.
    CreateQueue,
    /// Controller Data Queue, delete.
    DeleteQueue,
    /// Track Send, start logging user data changes.
    StartLog,
    /// Track Send, stop logging user data changes.
    StopLog,
    /// Migration Send, suspend notification.
    NotifySuspend,
    /// Migration Send, suspend.
    Suspend,
    /// Migration Receive, Get Controller State.
    GetState,
    /// Migration Send, Set Controller State.
    SetState,
    /// Migration Send, resume.
    Resume,
}

impl MigrationCommand {
    /// The command's name in a sentence.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Identify => "Identify Controller",
            Self::StateFormats => "Identify Supported Controller State Formats",
            Self::CreateQueue => "create Controller Data Queue",
            Self::DeleteQueue => "delete Controller Data Queue",
            Self::StartLog => "start logging user data changes",
            Self::StopLog => "stop logging user data changes",
            Self::NotifySuspend => "suspend notification",
            Self::Suspend => "suspend",
            Self::GetState => "Get Controller State",
            Self::SetState => "Set Controller State",
            Self::Resume => "resume",
        }
    }
}

/// A command that did not succeed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CommandFailed {
    /// Which one.
    pub command: MigrationCommand,
    /// Why.
    pub error: CallError,
}

impl core::error::Error for CommandFailed {}

impl fmt::Display for CommandFailed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.command.name(), self.error)
    }
}

/// Why a managing controller cannot serve.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ManagerError {
    /// A command did not succeed.
    Command(CommandFailed),
    /// Identify data that is not any.
    Identify(IdentifyError),
    /// The controller does not manage migrations (OACS bit 11).
    NotAManager(ControllerId),
    /// The source cannot track user data (TRATTR bit 1).
    NoUserDataTracking(ControllerId),
    /// The source's log has entries of a format that this crate does not read (LBAMQF).
    LogFormat(u8),
    /// The controller to migrate is the managing controller itself.
    TargetIsManager(TargetIsManager),
    /// No memory for the command's data.
    Memory(DmaError),
}

impl core::error::Error for ManagerError {}

impl fmt::Display for ManagerError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Command(failed) => failed.fmt(f),
            Self::Identify(error) => write!(f, "Identify data is wrong: {error}"),
            Self::NotAManager(id) => {
                write!(f, "controller {id} does not manage migrations: give a managing controller")
            }
            Self::NoUserDataTracking(id) => {
                write!(
                    f,
                    "controller {id} cannot track changes of user data: give a managing controller that can"
                )
            }
            Self::LogFormat(format) => {
                write!(f, "the log's entries have format {format:#x}: only Entry Type 0 can be read")
            }
            Self::TargetIsManager(TargetIsManager(id)) => {
                write!(
                    f,
                    "controller {id} is the managing controller, which cannot be migrated: name the guest's controller"
                )
            }
            Self::Memory(error) => write!(f, "no memory for command data: {error}"),
        }
    }
}

/// Why the destination cannot go on. Bounded and free of pointers, so it travels in a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DestinationFailure {
    /// The managing controller cannot serve.
    Manager(ManagerError),
    /// A command did not succeed.
    Command(CommandFailed),
    /// The source speaks another version of the messages.
    ProtocolVersion(u16),
    /// A message that does not fit the state of the conversation.
    OutOfTurn,
    /// The image is longer than the memory lent for it.
    StateTooLong {
        /// Bytes of the image.
        bytes: u64,
        /// Bytes lent.
        limit: u64,
    },
    /// A piece of the image lies where none is expected.
    Piece {
        /// Where it starts, in bytes.
        offset: u64,
        /// Where the next one should start, in bytes.
        expected: u64,
    },
    /// The image is not one this destination may take.
    State(StateError),
    /// The image has to be sent in one command and is longer than one may carry.
    NotInOne {
        /// Bytes of the image.
        bytes: usize,
        /// Bytes one command carries.
        limit: usize,
    },
    /// No memory for the command's data.
    Memory(DmaError),
    /// The destination's platform could not do its part; it knows why.
    Platform,
}

impl core::error::Error for DestinationFailure {}

impl fmt::Display for DestinationFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Manager(error) => error.fmt(f),
            Self::Command(failed) => failed.fmt(f),
            Self::ProtocolVersion(version) => write!(
                f,
                "messages of version {version} are not understood: both sides must speak version {PROTOCOL_VERSION}"
            ),
            Self::OutOfTurn => f.write_str("a message came out of turn: migrate again"),
            Self::StateTooLong { bytes, limit } => {
                write!(f, "a controller state of {bytes} bytes, where {limit} can be taken: lend more memory")
            }
            Self::Piece { offset, expected } => {
                write!(
                    f,
                    "a piece of controller state at byte {offset}, expected at {expected}: send them in order"
                )
            }
            Self::State(error) => write!(f, "controller state refused: {error}"),
            Self::NotInOne { bytes, limit } => {
                write!(
                    f,
                    "controller state of {bytes} bytes has to go in one command of at most {limit}: allow longer transfers"
                )
            }
            Self::Memory(error) => write!(f, "no memory for command data: {error}"),
            Self::Platform => f.write_str("its platform failed: see what it reported"),
        }
    }
}

/// Why a migration ended without the guest at the destination. `M` and `H` are the errors of the data mover and of
/// the source's platform.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failure<M, H> {
    /// Cancelled by the caller.
    Cancelled,
    /// The source's managing controller cannot serve.
    Manager(ManagerError),
    /// A command to the source's managing controller did not succeed.
    Command(CommandFailed),
    /// No memory for the Controller Data Queue.
    Memory(CdqMemoryError),
    /// No memory for command data.
    Data(DmaError),
    /// The head of the Controller Data Queue could not be published several times in a row.
    Head(HeadUpdateFailed),
    /// The managing controller was reset, and the Controller Data Queue went with it.
    QueueGone,
    /// The managing controller was reset, and the source's suspension ended with it.
    SuspensionGone,
    /// The log names blocks that the caller did not announce.
    UnknownBlocks(MarkError),
    /// The formats of the controller state do not match.
    Formats(NoCommonFormat),
    /// The limits were reached before the copy converged, and the options say to cancel then.
    NotConverged {
        /// Blocks still to copy.
        dirty_blocks: u64,
    },
    /// The queue could not be drained after an overflow, or the log did not restart.
    NoRecovery,
    /// The source was suspended but its log was not closed in time.
    NoSuspendMarker,
    /// Controller state was read although the source was not suspended throughout.
    NotSuspended,
    /// The source's controller state is not one.
    State(StateError),
    /// The destination could not go on.
    Destination(DestinationFailure),
    /// Whether the destination was resumed is unknown.
    ResumeUnknown(CallError),
    /// The destination answered something else than it was asked.
    OutOfTurn,
    /// The destination did not answer in time.
    NoAnswer,
    /// The data mover failed.
    Mover(M),
    /// The source's platform failed.
    Platform(H),
}

impl<M: fmt::Debug, H: fmt::Debug> fmt::Display for Failure<M, H> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Cancelled => f.write_str("cancelled"),
            Self::Manager(error) => write!(f, "source: {error}"),
            Self::Command(failed) => write!(f, "source: {failed}"),
            Self::Memory(error) => write!(f, "source: {error}"),
            Self::Data(error) => write!(f, "source: no memory for command data: {error}"),
            Self::Head(error) => write!(f, "source: {error}"),
            Self::QueueGone => f.write_str(
                "source: the managing controller was reset, which ended the log of changes; migrate again",
            ),
            Self::SuspensionGone => f.write_str(
                "source: the managing controller was reset, which ended the suspension; migrate again",
            ),
            Self::UnknownBlocks(error) => write!(f, "source: the log reports {error}"),
            Self::Formats(error) => error.fmt(f),
            Self::NotConverged { dirty_blocks } => {
                write!(
                    f,
                    "not converged within the limits, {dirty_blocks} blocks left to copy: slow the guest down or allow more"
                )
            }
            Self::NoRecovery => {
                f.write_str("source: the log did not restart after an overflow: give it a larger queue")
            }
            Self::NoSuspendMarker => {
                f.write_str("source: suspended, but the log was not closed in time: allow more time")
            }
            Self::NotSuspended => f.write_str(
                "source: the controller was not suspended while its state was read: migrate again",
            ),
            Self::State(error) => write!(f, "source: controller state: {error}"),
            Self::Destination(error) => write!(f, "destination: {error}"),
            Self::ResumeUnknown(error) => write!(f, "destination: resume: {error}"),
            Self::OutOfTurn => {
                f.write_str("destination: answered something else than it was asked: migrate again")
            }
            Self::NoAnswer => f.write_str("destination: no answer in time: see whether it can be reached"),
            Self::Mover(error) => write!(f, "moving data: {error:?}"),
            Self::Platform(error) => write!(f, "source platform: {error:?}"),
        }
    }
}

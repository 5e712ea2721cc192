// SPDX-License-Identifier: MIT OR Apache-2.0
//! Host Managed Live Migration. NVMe Base 2.1 §8.1.12.
//!
//! | Part | Job |
//! |---|---|
//! | [`Manager`], [`Discovery`] | the commands of a managing controller, one function each |
//! | [`SourceHalf`] | logs, copies, suspends, reads the state; decides when; rolls back |
//! | [`DestinationHalf`] | answers the source: suspends, takes and checks the state, resumes |
//! | [`Migrator`] | both halves in one process |
//! | [`DataMover`], [`Platform`] | what the host contributes: how blocks travel, how the guest is switched over |
//!
//! The halves talk by [messages](RequestMessage) of bounded size and share nothing else.

mod destination;
mod failure;
mod formats;
mod host;
mod manager;
mod message;
mod migrator;
mod options;
mod quirks;
mod source;
mod step;
#[cfg(test)]
mod tests;

pub use destination::{DestinationHalf, DestinationOptions};
pub use failure::{CommandFailed, DestinationFailure, Failure, ManagerError, MigrationCommand};
pub use formats::{FormatIndices, FormatMatch, KNOWN_VERSIONS, NoCommonFormat, match_formats};
pub use host::{DataMover, Extent, ExtentKind, MoverProgress, Platform};
pub use manager::{Discovered, Discovery, Manager};
pub use message::{
    PIECE_BYTES, PROTOCOL_VERSION, Piece, Reply, ReplyMessage, Request, RequestMessage, Sequence,
};
pub use migrator::{Migrator, Ports};
pub use options::{Convergence, ConvergencePolicy, MigrationOptions, Progress, Round, Summary, Timeouts};
pub use quirks::Quirks;
pub use source::{Cancellation, Outcome, SourceHalf};
pub use step::{MigrationStep, StepKind, UnknownStep};

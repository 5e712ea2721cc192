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
//! The halves talk by [messages](RequestMessage) of bounded size and share nothing else. They send commands and take
//! answers, and poll no controller: the host does that between two polls of a half.
//!
//! ```
//! use nvme_core::controller::Ready;
//! use nvme_core::dirty::DirtySet;
//! use nvme_core::dma::DmaArena;
//! use nvme_core::migration::{
//!     DataMover, DestinationOptions, MigrationOptions, Migrator, Outcome, Platform, Ports, Quirks, Round, Timeouts,
//! };
//! use nvme_core::register::RegisterIo;
//! use nvme_core::time::{Instant, Step};
//! use nvme_core::wire::ControllerId;
//!
//! fn migrate<R: RegisterIo, A: DmaArena, V: DataMover, H: Platform>(
//!     source: &mut Ready<'_, '_, R, A>,
//!     destination: &mut Ready<'_, '_, R, A>,
//!     dirty: DirtySet<'_, '_>,
//!     mover: &mut V,
//!     platform: &mut H,
//!     clock: impl Fn() -> Instant,
//!     sleep_until: impl Fn(Instant),
//! ) -> bool
//! where
//!     V::Error: Copy,
//!     H::Error: Copy,
//! {
//!     let (mut rounds, mut image) = ([Round::default(); 32], [0; 65_536]);
//!     let to = DestinationOptions {
//!         controller: ControllerId::new(1),
//!         limits: None,
//!         quirks: Quirks::empty(),
//!         timeouts: Timeouts::default(),
//!     };
//!     let from = MigrationOptions::new(ControllerId::new(1));
//!     let mut migrator = Migrator::new(from, to, dirty, &mut rounds, &mut image);
//!     loop {
//!         let now = clock();
//!         // Takes completions. A controller that has failed loses its commands, from which the migrator learns of it.
//!         let _ = source.poll(now);
//!         let _ = destination.poll(now);
//!         let ports = Ports { source: source.admin(), destination: destination.admin() };
//!         match migrator.poll(now, ports, mover, platform) {
//!             Step::Again => {}
//!             Step::Wait(until) => sleep_until(until),
//!             Step::Done => return matches!(migrator.outcome(), Some(Outcome::Completed { .. })),
//!         }
//!     }
//! }
//! ```

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
pub use manager::{Discovered, Discovery, Manager, virtual_function};
pub use message::{
    PIECE_BYTES, PROTOCOL_VERSION, Piece, Reply, ReplyMessage, Request, RequestMessage, Sequence,
};
pub use migrator::{Migrator, Ports};
pub use options::{
    Convergence, ConvergencePolicy, DataPath, MigrationOptions, Progress, Round, Summary, Timeouts,
};
pub use quirks::{KnownQuirk, Quirks};
pub use source::{Cancellation, Outcome, SourceHalf};
pub use step::{MigrationStep, StepKind, UnknownStep};

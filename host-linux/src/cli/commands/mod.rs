// SPDX-License-Identifier: MIT OR Apache-2.0
//! The commands that work on one or more controllers, one file for each subject.

mod bench;
mod cdq;
mod formats;
mod identify;
mod list;
mod media;
mod ranges;
mod raw;
mod reset;
mod script;
mod source;
mod state;
mod state_files;
mod suspend;
mod track;
mod track_memory;
mod transfer;
mod watch;

use clap::Args;

use super::connect::ConnectArgs;
use super::values;
use crate::address::Address;

pub use bench::BenchArgs;
pub use cdq::CdqCommand;
pub use formats::FormatsArgs;
pub use identify::IdentifyArgs;
pub use list::ListArgs;
pub use ranges::{CopyArgs, DeallocateArgs, FlushArgs, VerifyArgs, WriteZeroesArgs};
pub use raw::{AdminArgs, IoArgs};
pub use reset::ResetArgs;
pub(crate) use reset::run as run_reset;
pub use script::ScriptArgs;
pub(crate) use script::run as run_script;
pub use state::StateCommand;
pub use suspend::{ResumeArgs, SuspendArgs};
pub(crate) use track::Log;
pub use track::TrackCommand;
pub use transfer::{CompareArgs, ReadArgs, WriteArgs};

/// A managing controller, and the controller that its commands are about.
#[derive(Args, Clone, Debug)]
pub(crate) struct Tracked {
    /// The managing controller.
    #[arg(value_name = "MANAGER")]
    pub(crate) manager: Address,
    /// Identifier of the controller that it is about.
    #[arg(long, value_name = "ID", value_parser = values::number::<u16>)]
    pub(crate) controller: u16,
    #[command(flatten)]
    pub(crate) connect: ConnectArgs,
}

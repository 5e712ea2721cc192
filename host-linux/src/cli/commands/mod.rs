// SPDX-License-Identifier: MIT OR Apache-2.0
//! The commands that work on one or more controllers, one file for each subject.

mod bench;
mod cdq;
mod features;
mod formats;
mod identify;
mod list;
mod log;
mod media;
mod ranges;
mod raw;
mod registers;
mod reset;
mod script;
mod source;
mod state;
mod state_files;
mod suspend;
mod track;
mod track_memory;
mod transfer;
mod view;
mod watch;

use clap::Args;

use super::connect::ConnectArgs;
use super::values;
use crate::address::Address;

pub use bench::BenchArgs;
pub use cdq::CdqCommand;
pub use features::FeaturesCommand;
pub use formats::FormatsArgs;
pub use identify::{IdentifyArgs, NamespacesArgs};
pub use list::ListArgs;
pub use log::LogArgs;
pub use ranges::{CopyArgs, DeallocateArgs, FlushArgs, VerifyArgs, WriteZeroesArgs};
pub use raw::{AdminArgs, IoArgs};
pub use registers::RegistersArgs;
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

#[cfg(test)]
mod tests {
    use clap::Parser;

    use crate::cli::action::{CommandError, Output, Sessions, with_sessions};
    use crate::cli::{Cli, as_action};

    /// Commands that the controller had, whatever became of them.
    fn commands(sessions: &Sessions<'_>) -> u32 {
        sessions.devices().faults("demo").iter().map(|counter| counter.seen()).sum()
    }

    #[test]
    fn a_controller_gets_no_command_that_it_does_not_announce() {
        for line in [
            "log embedded:demo/2 --page 0x07",
            "log embedded:demo/2 --page 0x12",
            "formats embedded:demo/2",
            "cdq create embedded:demo/2 --controller 1",
            "cdq watch embedded:demo/2 --controller 1",
            "cdq delete embedded:demo/2 --id 0",
            "track start embedded:demo/2 --controller 1",
            "track stop embedded:demo/2 --controller 1 --queue 0",
            "track memory embedded:demo/2 --controller 1 --range 0+4K",
            "suspend embedded:demo/2 --controller 1",
            "resume embedded:demo/2 --controller 1",
            "state get embedded:demo/2 --controller 1 --vendor 0 --version 1 --output -",
            "state set embedded:demo/2 --controller 1 --input nothing --yes",
        ] {
            for force in [false, true] {
                // The fault never acts, and counts all commands.
                const COUNTER: &str = "--embedded demo,fault=drop,controller=2,nth=4000000000";
                let words = format!("nvme-lm {line} {COUNTER}{}", if force { " --force" } else { "" });
                let command = Cli::try_parse_from(words.split(' ')).expect("a command").command;
                let (action, connect) = as_action(command).expect("a command on controllers");
                let output = Output::new(true, std::sync::Arc::default());
                let done = with_sessions(&action.targets(), &connect, &output, |sessions| {
                    let before = commands(sessions);
                    let done = action.run(sessions, &output);
                    let sent = commands(sessions) - before;
                    match (&done, force) {
                        (Err(CommandError::Unsupported(_)), false) => assert_eq!(sent, 0, "{line}"),
                        // What there is nothing to do for by itself is not sent either way.
                        (Err(CommandError::Input(_)), true) => assert_eq!(sent, 0, "{line}"),
                        (Err(_), true) => assert_ne!(sent, 0, "{line} is sent if that is forced"),
                        (done, _) => panic!("{line}: {done:?}"),
                    }
                    done
                });
                assert!(done.is_err(), "{line}");
            }
        }
    }
}

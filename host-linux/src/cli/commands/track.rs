// SPDX-License-Identifier: MIT OR Apache-2.0
//! `nvme-lm track`: changes of user data logged into a queue, by hand.

use clap::{Args, Subcommand};
use nvme_core::wire::identify::Capability;
use serde::Serialize;

use super::Tracked;
use super::cdq::Shape;
use super::track_memory::{self, MemoryArgs};
use crate::cli::action::{Action, CommandError, Output, Sessions, Target};
use crate::cli::standing::{QueueName, log_user_data, start_log};

const START_HELP: &str = "\
The log lasts as long as the script that it is started in (nvme-lm script). Without a queue of the controller one is made.

Example: nvme-lm track start embedded:demo --controller 2";

const STOP_HELP: &str = "\
Example: nvme-lm script --line 'track start embedded:demo --controller 2' --line 'track stop embedded:demo --controller 2'";

/// What to track.
#[derive(Clone, Debug, Subcommand)]
pub enum TrackCommand {
    /// Start logging which blocks a controller changes.
    #[command(after_help = START_HELP)]
    Start(Box<LogArgs>),
    /// Stop that.
    #[command(after_help = STOP_HELP)]
    Stop(Box<LogArgs>),
    /// Show which host memory a controller writes.
    #[command(after_help = track_memory::HELP)]
    Memory(Box<MemoryArgs>),
}

/// Options of `nvme-lm track start` and `stop`.
#[derive(Args, Clone, Debug)]
pub struct LogArgs {
    #[command(flatten)]
    pub(crate) tracked: Tracked,
    /// The queue: its identifier, or last [default: that of the controller].
    #[arg(long, value_name = "ID")]
    queue: Option<QueueName>,
}

/// Start or stop.
#[derive(Debug)]
pub(crate) struct Log {
    pub(crate) args: LogArgs,
    pub(crate) start: bool,
}

#[derive(Serialize)]
struct Logging {
    controller: u16,
    queue: u16,
    logging: bool,
}

impl Action for Log {
    fn targets(&self) -> Vec<Target> {
        vec![Shape::USUAL.target(&self.args.tracked.manager)]
    }

    fn run(&self, sessions: &mut Sessions<'_>, output: &Output) -> Result<(), CommandError> {
        let args = &self.args.tracked;
        let capability = Capability::TrackUserData;
        let (session, standing, tracked) = sessions.tracked(&args.manager, capability, args.controller)?;
        let found = match self.args.queue {
            Some(name) => Some(standing.queue(session, name)?.queue.id()),
            None => standing.queue_of(session, tracked).map(|held| held.queue.id()),
        };
        let id = match found {
            Some(id) => id,
            None if self.start => {
                let options = Shape::USUAL.options(session);
                standing.create(session, tracked, &options)?.queue.id()
            }
            None => {
                return Err(CommandError::Input(format!(
                    "there is no queue for controller {}, so nothing is logged; track start makes one",
                    args.controller
                )));
            }
        };
        let held = standing.queue(session, QueueName::Id(id))?;
        match self.start {
            true => start_log(session, held)?,
            false => log_user_data(session, id, false)?,
        }
        held.logging = self.start;
        let controller = held.queue.tracked().controller().get();
        let logging = Logging { controller, queue: id.get(), logging: self.start };
        output.emit(&logging, |out| {
            let what = if self.start { "are" } else { "are no longer" };
            writeln!(out, "changes of controller {controller} {what} logged into queue {}", id.get())
        })
    }
}

// SPDX-License-Identifier: MIT OR Apache-2.0
//! `nvme-lm suspend` and `nvme-lm resume`: a guest's controller stops and goes on.

use clap::Args;
use nvme_core::admin::CallError;
use nvme_core::wire::StatusCode;
use nvme_core::wire::identify::Capability;
use nvme_core::wire::migration::SuspendKind;
use serde::Serialize;

use super::Tracked;
use crate::cli::action::{Action, CommandError, Output, Sessions, Target};
use crate::driver::DriverError;

const SUSPEND_HELP: &str = "\
The controller stops fetching commands, completes what it fetched, and leaves memory alone. It stays so for the rest of a \
script (nvme-lm script) and is resumed at the end, because bringing the managing controller down ends every suspension.

Example: nvme-lm suspend embedded:demo --controller 2";

const RESUME_HELP: &str = "Example: nvme-lm resume embedded:demo --controller 2 --if-suspended";

/// Options of `nvme-lm suspend`.
#[derive(Args, Clone, Debug)]
#[command(after_help = SUSPEND_HELP)]
pub struct SuspendArgs {
    #[command(flatten)]
    pub(crate) tracked: Tracked,
    /// Have the controller's User Data Migration Queue deleted, too.
    #[arg(long, conflicts_with = "notify")]
    delete_queue: bool,
    /// Only announce that a suspend will follow, which changes nothing.
    #[arg(long)]
    notify: bool,
}

#[derive(Serialize)]
struct Suspended {
    controller: u16,
    suspended: bool,
    queue_deleted: bool,
}

impl Action for SuspendArgs {
    fn targets(&self) -> Vec<Target> {
        vec![Target::new(&self.tracked.manager)]
    }

    fn run(&self, sessions: &mut Sessions<'_>, output: &Output) -> Result<(), CommandError> {
        let Tracked { manager, controller, .. } = &self.tracked;
        let (session, standing, tracked) = sessions.tracked(manager, Capability::Migration, *controller)?;
        let kind = if self.notify { SuspendKind::Notification } else { SuspendKind::Suspend };
        standing.suspend(session, tracked, kind, self.delete_queue)?;
        let controller = self.tracked.controller;
        let done = Suspended { controller, suspended: !self.notify, queue_deleted: self.delete_queue };
        output.emit(&done, |out| match (self.notify, self.delete_queue) {
            (true, _) => writeln!(out, "controller {controller} has been told that a suspend will follow"),
            (false, true) => writeln!(out, "controller {controller} is suspended, and its queue deleted"),
            (false, false) => writeln!(out, "controller {controller} is suspended"),
        })
    }
}

/// Options of `nvme-lm resume`.
#[derive(Args, Clone, Debug)]
#[command(after_help = RESUME_HELP)]
pub struct ResumeArgs {
    #[command(flatten)]
    pub(crate) tracked: Tracked,
    /// It is no error if the controller is not suspended.
    #[arg(long)]
    if_suspended: bool,
}

#[derive(Serialize)]
struct Resumed {
    controller: u16,
    /// Whether it was suspended before.
    was_suspended: bool,
}

impl Action for ResumeArgs {
    fn targets(&self) -> Vec<Target> {
        vec![Target::new(&self.tracked.manager)]
    }

    fn run(&self, sessions: &mut Sessions<'_>, output: &Output) -> Result<(), CommandError> {
        let Tracked { manager, controller, .. } = &self.tracked;
        let (session, standing, tracked) = sessions.tracked(manager, Capability::Migration, *controller)?;
        let controller = tracked.controller();
        let was_suspended = match standing.resume(session, controller) {
            Ok(()) => true,
            Err(DriverError::Admin(_, CallError::Status(status)))
                if self.if_suspended && status.code() == StatusCode::CONTROLLER_NOT_SUSPENDED =>
            {
                false
            }
            Err(error) => return Err(error.into()),
        };
        let id = controller.get();
        output.emit(&Resumed { controller: id, was_suspended }, |out| match was_suspended {
            true => writeln!(out, "controller {id} is resumed"),
            false => writeln!(out, "controller {id} was not suspended"),
        })
    }
}

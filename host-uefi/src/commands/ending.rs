// SPDX-License-Identifier: MIT OR Apache-2.0
//! The end of a migration: the controller that must not run is disabled and kept from memory, and it is said where the
//! guest runs.
//!
//! All of it comes before the sessions of the managing controllers are closed, because their resets end suspensions: a
//! controller with the guest's queues that is still enabled then would run.

use core::fmt::{self, Write};
use core::time::Duration;

use nvme_core::admin::CallError;
use nvme_core::dma::DmaArena;
use nvme_core::migration::{Outcome, Summary};
use nvme_core::register::RegisterIo;
use nvme_core::wire::ControllerId;

use super::migrate::SwitchError;
use super::mover::MoverError;
use super::{CommandError, Fence};
use crate::session::{READY_LIMIT, Session, SessionError};
use crate::sys::PciStatus;
use crate::takeover::Seen;
use crate::time::Wait;

/// Between two looks at a controller that is being disabled.
const LOOK: Duration = Duration::from_millis(1);
/// How often a call of the firmware is made that fails.
const TRIES: u32 = 4;

pub(super) type Ended = Outcome<MoverError, SwitchError>;

/// One of the two controllers, as it is named to the user.
struct Named<'f>(&'static str, &'f dyn Fence);

impl fmt::Display for Named<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the {}'s controller", self.0)?;
        match self.1.location() {
            Ok([segment, bus, device, function]) => {
                write!(f, " ({segment:04x}:{bus:02x}:{device:02x}.{function})")
            }
            Err(_) => Ok(()),
        }
    }
}

/// What was reached with a controller that must not run.
#[derive(Clone, Copy, Debug)]
struct Stopped {
    fenced: bool,
    disabled: bool,
    /// What was seen before, if anything was.
    before: Option<Seen>,
}

impl Stopped {
    fn say(self, which: &Named<'_>, out: &mut dyn Write) -> fmt::Result {
        match (self.disabled, self.fenced) {
            (true, true) => writeln!(
                out,
                "{which} is disabled and left without bus mastering, until its driver resets it, which its next use does: \
                 use none of its block devices"
            ),
            (true, false) => writeln!(out, "{which} is disabled; its bus mastering could not be taken away"),
            (false, true) => writeln!(
                out,
                "{which} does not let itself be disabled: it is left without bus mastering; connect no driver to it, and \
                 reset the machine"
            ),
            (false, false) => writeln!(
                out,
                "{which} does not let itself be disabled, nor its bus mastering be taken away: it may run with the guest's \
                 queues; reset the machine"
            ),
        }
    }
}

fn tried(mut call: impl FnMut() -> Result<(), PciStatus>) -> Result<(), PciStatus> {
    let mut last = Ok(());
    for _ in 0..TRIES {
        last = call();
        if last.is_ok() {
            break;
        }
    }
    last
}

/// Takes memory from a controller, disables it, and waits until it is, as long as a controller may take.
fn stop<R: RegisterIo, A: DmaArena, W: Wait + ?Sized>(
    fence: &dyn Fence,
    session: &Session<'_, '_, R, A, W>,
) -> Stopped {
    // It may have been taken before.
    let fenced = tried(|| fence.let_through(false)).is_ok() || fence.is_through() == Ok(false);
    // Without it all registers read all ones, and the controller is not seen to be anything.
    let _ = tried(|| fence.open_registers());
    let before = fence.look().ok().filter(|seen| *seen != Seen::AllOnes);
    if tried(|| fence.disable()).is_err() {
        return Stopped { fenced, disabled: false, before };
    }
    let until = session.now().after(READY_LIMIT);
    loop {
        if fence.look().is_ok_and(Seen::is_disabled) {
            return Stopped { fenced, disabled: true, before };
        }
        if session.now().has_reached(until) {
            return Stopped { fenced, disabled: false, before };
        }
        session.sleep(LOOK);
    }
}

/// The two controllers, and how they were before.
pub(super) struct Ending<'f> {
    pub(super) source: &'f dyn Fence,
    pub(super) destination: &'f dyn Fence,
    pub(super) source_was_through: bool,
    pub(super) destination_was_through: bool,
    pub(super) given: Given,
    pub(super) ids: [ControllerId; 2],
}

/// What the destination has of the guest's state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Given {
    /// It was asked to take none.
    Nothing,
    /// Not all of it, as far as is known.
    Part,
    /// All of it has been set, or may have been.
    Whole,
}

/// Why the managing controller of a controller that must not run is not to be reset.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Held {
    /// The function is another controller's, which was seen to be disabled and is suspended still.
    Elsewhere,
    /// It is suspended still, or nobody says.
    Suspended,
}

/// Stops a controller by its function and asks its managing controller whether it was the right one, because a reset ends
/// a suspension. Returns why that one is not to be reset, if it is not.
fn stop_suspended<R: RegisterIo, A: DmaArena, W: Wait + ?Sized>(
    which: &Named<'_>,
    id: ControllerId,
    // It would run with the guest's queues.
    given: Given,
    manager: &mut Session<'_, '_, R, A, W>,
    out: &mut dyn Write,
) -> (Stopped, Option<Held>, fmt::Result) {
    let whole = given == Given::Whole;
    // Asked before, because a controller that is asked about a disabled one may refuse to answer.
    let answered = whole && manager.says_suspended(id) == Ok(true);
    let stopped = stop(which.1, manager);
    let said = stopped.say(which, out);
    if !whole && !stopped.disabled {
        return (stopped, None, said);
    }
    let (id, suspended) = (id.get(), manager.says_suspended(id));
    let was_disabled = stopped.before.is_some_and(Seen::is_disabled);
    let was_reset = stopped.disabled && stopped.before.is_some_and(Seen::is_in_use);
    let (held, told) = match suspended {
        Ok(false) => (None, Ok(())),
        Ok(true) if stopped.disabled && stopped.before.is_some() && !was_disabled => {
            (Some(Held::Elsewhere), Ok(()))
        }
        Ok(true) if whole || !was_disabled => (
            Some(Held::Suspended),
            writeln!(out, "controller {id} is suspended still: {which} is another one, or is not reset"),
        ),
        // What it would run with is not the guest's.
        Ok(true) => (
            None,
            writeln!(
                out,
                "{which} was not enabled, so that nothing shows whether it is controller {id}: if it is not, that one runs"
            ),
        ),
        // The same command has just succeeded: what has changed since is the controller.
        Err(SessionError::Admin(_, error @ CallError::Status(_)))
            if answered && was_reset && error.is_refusal() =>
        {
            (None, Ok(()))
        }
        Err(error) if whole => (
            Some(Held::Suspended),
            writeln!(out, "nothing shows whether controller {id} is suspended still ({error}), or runs"),
        ),
        Err(_) => (None, Ok(())),
    };
    (stopped, held, said.and(told))
}

impl Ending<'_> {
    /// Says how the migration ended, does what is left to be done, and says what became of it. Whatever fails, also to
    /// be printed, everything else is done.
    pub(super) fn settle<R: RegisterIo, A: DmaArena, W: Wait + ?Sized>(
        &self,
        outcome: &Ended,
        summary: &Summary,
        sessions: [&mut Session<'_, '_, R, A, W>; 2],
        out: &mut dyn Write,
    ) -> Result<(), CommandError> {
        let [from, to] = sessions;
        let said = self.say(outcome, summary, out);
        let (settled, printed) = match outcome {
            Outcome::Completed { .. } => self.forward(from, out),
            Outcome::Indeterminate { resume_asked: true, .. } => {
                let (settled, printed) = self.forward(from, out);
                // What keeps a session open goes before.
                let error = settled.err().filter(|error| error.closes() != [true; 2]);
                (Err(error.unwrap_or(CommandError::NotMigrated)), printed)
            }
            Outcome::RolledBack { .. } | Outcome::SourceStuck { .. } | Outcome::Indeterminate { .. } => {
                self.back(to, out)
            }
        };
        settled?;
        said?;
        Ok(printed?)
    }

    /// The destination runs, or will: the source never does again with what it has.
    fn forward<R: RegisterIo, A: DmaArena, W: Wait + ?Sized>(
        &self,
        from: &mut Session<'_, '_, R, A, W>,
        out: &mut dyn Write,
    ) -> (Result<(), CommandError>, fmt::Result) {
        let [id, _] = self.ids;
        let source = Named("source", self.source);
        let (stopped, held, said) = stop_suspended(&source, id, Given::Whole, from, out);
        // It has had both before it was resumed; whoever took them away since does not keep them.
        let _ = tried(|| self.destination.open_registers());
        let through = give_memory(&Named("destination", self.destination), out);
        let ended = match (held, stopped.disabled) {
            (Some(Held::Elsewhere), _) => Err(CommandError::SourceElsewhere),
            (Some(Held::Suspended), _) => Err(CommandError::SourceSuspended),
            (None, false) => Err(CommandError::SourceEnabled),
            (None, true) => {
                // The controller that was resumed has CC.EN and CSTS.RDY from the source's state, the latter perhaps late.
                let until = from.now().after(READY_LIMIT);
                let mut seen = self.destination.look();
                while !seen.is_ok_and(Seen::is_in_use) && !from.now().has_reached(until) {
                    from.sleep(LOOK);
                    seen = self.destination.look();
                }
                match seen.is_ok_and(Seen::is_in_use) {
                    true => Ok(()),
                    false => Err(CommandError::DestinationNotInUse(self.destination.location().ok(), seen)),
                }
            }
        };
        (ended, said.and(through))
    }

    /// The source runs, or will. A destination that holds its state never does with it; another one is as it was.
    pub(super) fn back<R: RegisterIo, A: DmaArena, W: Wait + ?Sized>(
        &self,
        to: &mut Session<'_, '_, R, A, W>,
        out: &mut dyn Write,
    ) -> (Result<(), CommandError>, fmt::Result) {
        let (destination, [_, id]) = (Named("destination", self.destination), self.ids);
        let (mut runs_alone, mut ended) = (true, Err(CommandError::NotMigrated));
        let said = if self.given != Given::Nothing {
            let (stopped, held, said) = stop_suspended(&destination, id, self.given, to, out);
            runs_alone = stopped.disabled || stopped.fenced;
            match held {
                Some(Held::Elsewhere) => ended = Err(CommandError::DestinationElsewhere),
                Some(Held::Suspended) => ended = Err(CommandError::DestinationSuspended),
                None => {}
            }
            said
        } else if self.destination_was_through {
            give_memory(&destination, out)
        } else {
            Ok(())
        };
        let source = Named("source", self.source);
        let through = match (runs_alone, self.source_was_through) {
            (true, true) => give_memory(&source, out),
            (true, false) => writeln!(out, "{source} had no bus mastering before, and has none"),
            // Better none runs than both.
            (false, _) if source.1.is_through() != Ok(true) => {
                writeln!(out, "{source} is left without bus mastering, because the destination may run")
            }
            (false, _) => Ok(()),
        };
        (ended, said.and(through))
    }

    /// How it ended. True once the sessions are closed, too: the resets of the managing controllers end every suspension.
    /// What the two functions lack is told behind it.
    fn say(&self, outcome: &Ended, summary: &Summary, out: &mut dyn Write) -> fmt::Result {
        let clean_up = match outcome {
            Outcome::Completed { clean_up, .. } => {
                writeln!(out, "migrated: {} blocks, {} bytes", summary.blocks, summary.bytes)?;
                clean_up
            }
            Outcome::RolledBack { failure, platform, suspend_pending, clean_up } => {
                match *platform && self.source_was_through {
                    true => writeln!(out, "rolled back, the source runs: {failure}")?,
                    false => writeln!(out, "rolled back to the source: {failure}")?,
                }
                if *suspend_pending {
                    writeln!(
                        out,
                        "a suspension of the source may be under way still: the reset of its managing controller, which follows, \
                         ends it"
                    )?;
                }
                clean_up
            }
            Outcome::SourceStuck { failure, resume } => {
                return writeln!(
                    out,
                    "rolled back; the source could not be resumed ({resume}) and runs again by the reset of its managing \
                     controller, which follows: {failure}"
                );
            }
            Outcome::Indeterminate { failure, resume_asked: true } => {
                return writeln!(
                    out,
                    "the destination was asked to resume and has not said that it runs ({failure}): it runs by the reset of its \
                     managing controller, which follows, and the source does not; a destination that is not ready then has to \
                     be reset by the guest"
                );
            }
            Outcome::Indeterminate { failure, resume_asked: false } => {
                return writeln!(
                    out,
                    "rolled back; the destination, which holds state of the guest, was never let run, and the source runs again \
                     by the reset of its managing controller, which follows: {failure}"
                );
            }
        };
        match clean_up {
            Some(failed) => {
                writeln!(
                    out,
                    "the log's queue goes with the reset of the source's managing controller: {failed}"
                )
            }
            None => Ok(()),
        }
    }
}

/// Gives bus mastering to a controller that has none; says so if that does not work.
fn give_memory(which: &Named<'_>, out: &mut dyn Write) -> fmt::Result {
    let fence = which.1;
    if fence.is_through() == Ok(true) {
        return Ok(());
    }
    match tried(|| fence.let_through(true)) {
        Ok(()) => writeln!(out, "{which} has bus mastering again"),
        Err(status) => writeln!(
            out,
            "{which} has no bus mastering, and cannot be given it ({status}): what the guest does there stands still; its \
             driver at its next use, or where it has none one that is connected to it alone (connect -r HANDLE in the \
             shell), gives it bus mastering, but resets it, and what the guest had there is lost"
        ),
    }
}

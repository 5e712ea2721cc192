// SPDX-License-Identifier: MIT OR Apache-2.0
//! `cdq watch`: the log of one controller, event by event.

use core::fmt::Write;
use core::time::Duration;

use nvme_core::cdq::{CdqCreation, CdqDeletion, CdqOptions, ControllerDataQueue, LogEvent, QueuePoll};
use nvme_core::dma::DmaArena;
use nvme_core::register::RegisterIo;
use nvme_core::wire::identify::Capability;
use nvme_core::wire::track::TrackSend;
use nvme_core::wire::{ControllerId, ManagerId, TrackedId};

use super::CommandError;
use crate::session::{Session, SessionError};
use crate::time::Wait;

/// Entries read between two looks at anything else.
const BATCH: u32 = 256;
/// How long the end of the log is waited for when nothing comes.
const LAST_LOOK: Duration = Duration::from_secs(1);

/// What is to be watched.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Watch {
    /// The controller whose changes are logged.
    pub controller: u16,
    /// Slots of the queue.
    pub entries: u32,
    /// For how long: by the time of the session, or until it is said to be over.
    pub time: Duration,
}

/// What is waited for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Waiting {
    /// Changes, for as long as was asked for.
    Changes,
    /// The end of the log, once it was asked for.
    End,
}

impl Waiting {
    /// For how long.
    #[must_use]
    pub const fn time(self, watch: &Watch) -> Duration {
        match self {
            Self::Changes => watch.time,
            Self::End => LAST_LOOK,
        }
    }
}

fn poll<R: RegisterIo, A: DmaArena, W: Wait + ?Sized>(
    session: &mut Session<'_, '_, R, A, W>,
) -> Result<(), SessionError> {
    let now = session.now();
    session.controller().poll(now)?;
    Ok(())
}

/// Makes a queue.
fn create<R: RegisterIo, A: DmaArena, W: Wait + ?Sized>(
    session: &mut Session<'_, '_, R, A, W>,
    tracked: TrackedId,
    entries: u32,
) -> Result<ControllerDataQueue, CommandError> {
    let options = CdqOptions { entries, timeout: session.timeout(), ..CdqOptions::default() };
    let mut creation =
        CdqCreation::new(session.controller().admin(), tracked, &options).map_err(CommandError::Queue)?;
    loop {
        let polled = poll(session);
        let now = session.now();
        // Asked once more if the controller has failed: the memory is inside.
        let made = creation.poll(session.controller().admin(), now);
        match made {
            Some(Ok(queue)) => return Ok(queue),
            Some(Err(failed)) => {
                if let Some(memory) = failed.quarantined {
                    session.keep(memory);
                }
                return Err(CommandError::QueueCommand("Controller Data Queue, Create", failed.error));
            }
            None => polled?,
        }
        session.nap();
    }
}

/// Deletes a queue; memory that the controller may still write stays with the session.
fn delete<R: RegisterIo, A: DmaArena, W: Wait + ?Sized>(
    session: &mut Session<'_, '_, R, A, W>,
    queue: ControllerDataQueue,
) -> Result<(), CommandError> {
    let mut deletion = CdqDeletion::new(queue, session.timeout());
    loop {
        let polled = poll(session);
        let now = session.now();
        let deleted = deletion.poll(session.controller().admin(), now);
        match deleted {
            Some(Ok(_)) => return Ok(()),
            Some(Err(failed)) => {
                if let Some(memory) = failed.quarantined {
                    session.keep(memory);
                }
                return Err(CommandError::QueueCommand("Controller Data Queue, Delete", failed.error));
            }
            None => polled?,
        }
        session.nap();
    }
}

fn show(event: LogEvent, out: &mut dyn Write) -> core::fmt::Result {
    match event {
        LogEvent::LogStarted => writeln!(out, "log started"),
        LogEvent::Changed { namespace, start, blocks, deallocated } => {
            let what = if deallocated { "deallocated" } else { "changed" };
            writeln!(out, "{what} namespace {}, {blocks} blocks from {} on", namespace.get(), start.get())
        }
        LogEvent::AllChanged { namespace } => {
            writeln!(out, "changed namespace {}, all blocks", namespace.get())
        }
        LogEvent::LogStopped => writeln!(out, "log stopped"),
        LogEvent::Suspended => {
            writeln!(out, "log ended: the controller is suspended, and every change was reported")
        }
        LogEvent::Overflowed => {
            writeln!(out, "OVERFLOW: the queue became full; every block may have changed")
        }
    }
}

/// What one look found.
struct Look {
    /// Nothing is left to be read.
    empty: bool,
    /// Logging ended by itself.
    overflowed: bool,
    /// Logging ended as asked.
    stopped: bool,
}

fn look<R: RegisterIo, A: DmaArena, W: Wait + ?Sized>(
    session: &mut Session<'_, '_, R, A, W>,
    queue: &mut ControllerDataQueue,
    out: &mut dyn Write,
) -> Result<Look, CommandError> {
    poll(session)?;
    let now = session.now();
    let (mut printed, mut marked) = (Ok(()), false);
    let (drained, polled) = queue.poll_events(session.controller().admin(), now, BATCH, false, |event| {
        marked |= event == LogEvent::Overflowed;
        if printed.is_ok() {
            printed = show(event, out);
        }
    });
    printed?;
    if drained.overflowed && !marked {
        // Only the controller's event told of it.
        show(LogEvent::Overflowed, out)?;
    }
    while let Some(violation) = queue.take_violation() {
        writeln!(out, "VIOLATION: {violation}")?;
    }
    // A head update that failed is sent again when it is next due.
    if polled == Ok(QueuePoll::Gone) {
        return Err(CommandError::QueueGone);
    }
    Ok(Look { empty: drained.empty, overflowed: drained.overflowed, stopped: drained.stopped })
}

/// Logs the changes of a controller into a queue of its own and prints them. `is_over` is called between two looks, the
/// first time when the wait has begun, and ends it: where time is only counted while something is waited for, output that
/// takes longer than the waits would put the end off. Behind the end that was asked for no more is read than the queue holds.
///
/// # Errors
/// The controller does not announce it, a command does not succeed, or the log goes on behind its end. The queue is deleted
/// then, too, or its memory kept until the session is closed.
pub fn watch<R: RegisterIo, A: DmaArena, W: Wait + ?Sized>(
    session: &mut Session<'_, '_, R, A, W>,
    watch: &Watch,
    out: &mut dyn Write,
    is_over: &mut dyn FnMut(Waiting) -> bool,
) -> Result<(), CommandError> {
    session.identity().require(Capability::TrackUserData)?;
    let manager = ManagerId::new(session.identity().controller);
    let tracked = TrackedId::new(ControllerId::new(watch.controller), manager)
        .map_err(|_| CommandError::TargetIsManager(watch.controller))?;
    let mut queue = create(session, tracked, watch.entries)?;
    let watched = follow(session, &mut queue, watch, out, is_over);
    let figures = queue.figures();
    let deleted = delete(session, queue);
    watched?;
    deleted?;
    writeln!(
        out,
        "{} entries, {} head updates, {} overflows, {} violations",
        figures.entries, figures.head_updates, figures.overflows, figures.violations
    )?;
    Ok(())
}

fn follow<R: RegisterIo, A: DmaArena, W: Wait + ?Sized>(
    session: &mut Session<'_, '_, R, A, W>,
    queue: &mut ControllerDataQueue,
    watch: &Watch,
    out: &mut dyn Write,
    is_over: &mut dyn FnMut(Waiting) -> bool,
) -> Result<(), CommandError> {
    let id = queue.id();
    let start = TrackSend::LogUserDataChanges { start: true, queue: id };
    writeln!(out, "watching controller {} through queue {}", queue.tracked().controller().get(), id.get())?;
    session.command("Track Send, start logging", &start)?;
    let (mut logging, end) = (true, session.now().after(watch.time));
    while !session.now().has_reached(end) && !is_over(Waiting::Changes) {
        let looked = look(session, queue, out)?;
        logging &= !looked.overflowed;
        if !logging && looked.empty && queue.is_published() {
            // Everything before the overflow has been shown and given back.
            session.command("Track Send, start logging", &start)?;
            logging = true;
        }
        // The session's time may go on by waiting only.
        session.nap();
    }
    if logging {
        let stop = TrackSend::LogUserDataChanges { start: false, queue: id };
        session.command("Track Send, stop logging", &stop)?;
        let until = session.now().after(LAST_LOOK);
        let read = queue.figures().entries;
        // All that was logged before the stop completed lies in the queue; the marker may have waited for room.
        let most = u64::from(watch.entries).saturating_add(1);
        let (mut last, mut overflowed) = (read, false);
        loop {
            let looked = look(session, queue, out)?;
            overflowed |= looked.overflowed;
            let now = queue.figures().entries;
            if looked.stopped {
                break;
            }
            if now.saturating_sub(read) > most {
                return Err(CommandError::LogGoesOn(watch.entries));
            }
            // What has come is read, however long that takes.
            let quiet = core::mem::replace(&mut last, now) == now;
            if quiet && (session.now().has_reached(until) || is_over(Waiting::End)) {
                if !overflowed {
                    writeln!(out, "the end of the log has not come in time")?;
                }
                break;
            }
            session.nap();
        }
    }
    Ok(())
}

// SPDX-License-Identifier: MIT OR Apache-2.0
//! What commands leave in controllers: queues, logs, tracked memory, suspensions. It stands for the later commands of a
//! script, and is undone at the end, because bringing the managing controller down would end it anyway.

use std::fmt;
use std::str::FromStr;

use nvme_core::admin::CallError;
use nvme_core::cdq::{CdqCreation, CdqDeletion, CdqFigures, CdqOptions, ControllerDataQueue};
use nvme_core::migration::Quirks;
use nvme_core::wire::identify::OptionalAdminCommands;
use nvme_core::wire::migration::{MigrationSend, SuspendKind};
use nvme_core::wire::track::TrackSend;
use nvme_core::wire::{CdqId, ControllerId, ManagerId, StatusCode, TrackedId};

use super::action::{CommandError, Output};
use crate::address::Address;
use crate::backend::is_same_controller;
use crate::driver::DriverError;
use crate::session::{Data, Session};
use crate::virtualization::{Which, find, read_secondaries};

/// So many refusals end the attempt to resume a controller.
const RESUME_ATTEMPTS: u32 = 3;

/// How a command names a queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum QueueName {
    /// The one made last.
    Last,
    /// By its identifier.
    Id(CdqId),
}

impl FromStr for QueueName {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "last" => Ok(Self::Last),
            number => super::values::number(number)
                .map(|id| Self::Id(CdqId::new(id)))
                .map_err(|error| format!("{error}; or write last")),
        }
    }
}

impl fmt::Display for QueueName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Last => f.write_str("last"),
            Self::Id(id) => write!(f, "{}", id.get()),
        }
    }
}

/// A queue that stands.
#[derive(Debug)]
pub(crate) struct HeldQueue {
    manager: Address,
    pub(crate) queue: ControllerDataQueue,
    /// Changes are being logged into it.
    pub(crate) logging: bool,
}

/// A suspension that stands.
#[derive(Debug)]
struct Suspension {
    manager: Address,
    controller: ControllerId,
    /// Its command did not complete in time.
    pending: bool,
}

/// All of it.
#[derive(Debug, Default)]
pub(crate) struct Standing {
    queues: Vec<HeldQueue>,
    suspended: Vec<Suspension>,
    /// Controllers whose changes of host memory are tracked.
    memory: Vec<(Address, ControllerId)>,
}

/// Names the controller that commands of the managing controller are about.
pub(crate) fn tracked(session: &Session<'_>, controller: u16) -> Result<TrackedId, CommandError> {
    let manager = ManagerId::new(session.identity().controller);
    TrackedId::new(ControllerId::new(controller), manager).map_err(|_| {
        CommandError::Input(format!(
            "controller {controller} is the managing controller itself; name one that it manages"
        ))
    })
}

/// Refuses a secondary controller of the one that is asked about it. Bringing that up has taken it offline, or bringing it down
/// will; it cannot be found out before, because only a controller that is up tells which are its secondary ones.
pub(crate) fn refuse_secondary(session: &mut Session<'_>, tracked: TrackedId) -> Result<(), CommandError> {
    if !session.identity().admin_commands.contains(OptionalAdminCommands::VIRTUALIZATION_MANAGEMENT) {
        return Ok(());
    }
    let list = read_secondaries(|what, command| session.identify(what, command))?;
    let Ok(found) = find(&list, Which::Id(tracked.controller())) else { return Ok(()) };
    let (id, manager) = (found.controller.get(), session.device().address());
    let happened = match found.online {
        true => format!(
            "goes offline when this program leaves {manager}, its primary one, so that its guest loses it"
        ),
        false => format!(
            "is offline: opening {manager}, its primary one, has taken it offline unless it was before, so that its guest has lost it"
        ),
    };
    Err(CommandError::Input(format!(
        "controller {id} is a secondary one and {happened}; have it managed by a controller that is not its primary one, or \
         migrate it by nvme-lm migrate --source, which brings it online again; --force goes on here all the same"
    )))
}

impl Standing {
    /// Makes a queue.
    pub(crate) fn create(
        &mut self,
        session: &mut Session<'_>,
        tracked: TrackedId,
        options: &CdqOptions,
    ) -> Result<&mut HeldQueue, CommandError> {
        let queue = create_queue(session, tracked, options)?;
        let manager = session.device().address().clone();
        self.queues.push(HeldQueue { manager, queue, logging: false });
        self.queues.last_mut().ok_or(CommandError::Interrupted)
    }

    /// The queue called `name`.
    pub(crate) fn queue(
        &mut self,
        session: &Session<'_>,
        name: QueueName,
    ) -> Result<&mut HeldQueue, CommandError> {
        let place = self.place(session, name)?;
        self.queues.get_mut(place).ok_or(CommandError::Interrupted)
    }

    /// The queue that logs the changes of a controller, if there is one.
    pub(crate) fn queue_of(&mut self, session: &Session<'_>, tracked: TrackedId) -> Option<&mut HeldQueue> {
        let manager = session.device().address();
        self.queues
            .iter_mut()
            .find(|held| is_same_controller(&held.manager, manager) && held.queue.tracked() == tracked)
    }

    fn place(&self, session: &Session<'_>, name: QueueName) -> Result<usize, CommandError> {
        let manager = session.device().address();
        let found = self.queues.iter().rposition(|held| {
            is_same_controller(&held.manager, manager)
                && match name {
                    QueueName::Last => true,
                    QueueName::Id(id) => held.queue.id() == id,
                }
        });
        found.ok_or_else(|| {
            CommandError::Input(match name {
                QueueName::Last => {
                    "there is no queue; make one by cdq create in an earlier line of the same script".into()
                }
                QueueName::Id(id) => format!(
                    "there is no queue {}; queues last as long as their script, which names them by the identifier \
                     that cdq create prints, or last",
                    id.get()
                ),
            })
        })
    }

    /// Deletes the queue called `name`.
    pub(crate) fn delete(
        &mut self,
        session: &mut Session<'_>,
        name: QueueName,
    ) -> Result<(CdqId, CdqFigures), CommandError> {
        let place = self.place(session, name)?;
        let held = self.queues.remove(place);
        let id = held.queue.id();
        Ok((id, delete_queue(session, held.queue)?))
    }

    /// Suspends a controller, or announces that.
    pub(crate) fn suspend(
        &mut self,
        session: &mut Session<'_>,
        tracked: TrackedId,
        kind: SuspendKind,
        delete_queue: bool,
    ) -> Result<(), CommandError> {
        let controller = tracked.controller();
        let command = MigrationSend::Suspend { controller, kind, delete_queue, uuid_index: 0 };
        let ended = session.command("Migration Send, Suspend", &command, Data::None);
        let pending = match &ended {
            Ok(_) => false,
            Err(DriverError::Admin(_, CallError::TimedOut)) => true,
            Err(_) => return ended.map(drop).map_err(Into::into),
        };
        let manager = session.device().address().clone();
        if kind == SuspendKind::Suspend {
            self.resumed(session, controller);
            self.suspended.push(Suspension { manager, controller, pending });
        }
        if pending {
            return Err(CommandError::Failed(format!(
                "controller {} was not suspended within {:?}: its host may leave completion queues full; \
                 give it more time by --timeout",
                controller.get(),
                session.timeout()
            )));
        }
        if delete_queue && kind == SuspendKind::Suspend {
            let manager = session.device().address().clone();
            let gone = self.queues.iter().position(|held| {
                is_same_controller(&held.manager, &manager) && held.queue.tracked() == tracked
            });
            if let Some(place) = gone {
                session.keep(self.queues.remove(place).queue.quarantine());
            }
        }
        Ok(())
    }

    /// Resumes a controller.
    pub(crate) fn resume(
        &mut self,
        session: &mut Session<'_>,
        controller: ControllerId,
    ) -> Result<(), DriverError> {
        let command = MigrationSend::Resume { controller, uuid_index: 0 };
        session.command("Migration Send, Resume", &command, Data::None)?;
        self.resumed(session, controller);
        Ok(())
    }

    /// Whether an earlier command suspended a controller.
    pub(crate) fn is_suspended(&self, session: &Session<'_>, controller: ControllerId) -> bool {
        let manager = session.device().address();
        self.suspended.iter().any(|one| {
            one.controller == controller && !one.pending && is_same_controller(&one.manager, manager)
        })
    }

    fn resumed(&mut self, session: &Session<'_>, controller: ControllerId) {
        let manager = session.device().address();
        self.suspended
            .retain(|other| other.controller != controller || !is_same_controller(&other.manager, manager));
    }

    /// Notes that changes of host memory by a controller are tracked, or not any more.
    pub(crate) fn tracks_memory(&mut self, session: &Session<'_>, controller: ControllerId, on: bool) {
        let manager = session.device().address();
        self.memory.retain(|(other, id)| *id != controller || !is_same_controller(other, manager));
        if on {
            self.memory.push((manager.clone(), controller));
        }
    }

    /// Whether changes of host memory by a controller are tracked.
    pub(crate) fn is_memory_tracked(&self, session: &Session<'_>, controller: ControllerId) -> bool {
        let manager = session.device().address();
        self.memory.iter().any(|(other, id)| *id == controller && is_same_controller(other, manager))
    }

    /// Resumes a controller, some of the times it is refused. One whose suspend is still on its way is not suspended yet:
    /// it is tried again for as long as a command may take.
    fn resume_at_last(
        &mut self,
        session: &mut Session<'_>,
        controller: ControllerId,
        pending: bool,
    ) -> Result<(), CommandError> {
        let until = session.now().after(session.timeout());
        let mut refused = 0;
        loop {
            match self.resume(session, controller) {
                Ok(()) => return Ok(()),
                Err(DriverError::Admin(_, error))
                    if pending && error.is_status(StatusCode::CONTROLLER_NOT_SUSPENDED) =>
                {
                    if session.now().has_reached(until) {
                        return Err(CommandError::Failed(format!(
                            "its suspend has still not completed, and its guest may be suspended by it later; \
                             nvme-lm resume --controller {} ends that",
                            controller.get()
                        )));
                    }
                }
                Err(error) => {
                    refused += 1;
                    if refused == RESUME_ATTEMPTS {
                        return Err(error.into());
                    }
                }
            }
            session.nap();
        }
    }

    /// Undoes what stands in one managing controller, and says so.
    pub(crate) fn undo(&mut self, session: &mut Session<'_>, output: &Output) -> Result<(), CommandError> {
        let manager = session.device().address().clone();
        let is_here = |other: &Address| is_same_controller(other, &manager);
        let mut first = Ok(());
        let mut take = |what: String, ended: Result<(), CommandError>| match ended {
            Ok(()) => output.note(&what),
            Err(error) => {
                let error = format!("{what}, which failed: {error}; bringing {manager} down ends it");
                first = std::mem::replace(&mut first, Ok(())).and(Err(CommandError::Failed(error)));
            }
        };
        let suspended: Vec<Suspension> = self.suspended.extract_if(.., |one| is_here(&one.manager)).collect();
        for Suspension { controller, pending, .. } in suspended {
            let id = controller.get();
            let ended = self.resume_at_last(session, controller, pending);
            let when = if pending { "suspended late" } else { "still suspended" };
            let then =
                if ended.is_ok() { "is resumed: its guest runs on from here" } else { "is to be resumed" };
            take(format!("controller {id} was {when} and {then}"), ended);
        }
        for (_, controller) in self.memory.extract_if(.., |(other, _)| is_here(other)) {
            let command = TrackSend::TrackMemoryChanges { start: false, controller };
            let ended = session.command("Track Send, stop tracking memory", &command, Data::None);
            let what = format!("host memory was still tracked for controller {}: stopped", controller.get());
            take(what, ended.map(drop).map_err(Into::into));
        }
        for held in self.queues.extract_if(.., |held| is_here(&held.manager)) {
            let id = held.queue.id();
            if held.logging {
                let ended = log_user_data(session, id, false);
                take(format!("queue {} was still being logged into: logging stopped", id.get()), ended);
            }
            let ended = delete_queue(session, held.queue).map(drop);
            take(format!("queue {} was still there: deleted", id.get()), ended);
        }
        first
    }
}

/// Starts logging changes of user data into a queue, or stops it.
pub(crate) fn log_user_data(
    session: &mut Session<'_>,
    queue: CdqId,
    start: bool,
) -> Result<(), CommandError> {
    let what = if start { "Track Send, start logging" } else { "Track Send, stop logging" };
    session.command(what, &TrackSend::LogUserDataChanges { start, queue }, Data::None)?;
    Ok(())
}

/// Starts logging into a queue, which may count as active although nothing is logged.
pub(crate) fn start_log(session: &mut Session<'_>, held: &HeldQueue) -> Result<(), CommandError> {
    let queue = held.queue.id();
    let quirk = match held.queue.figures().overflows {
        0 => Quirks::STOP_BEFORE_START,
        _ => Quirks::STOP_BEFORE_START | Quirks::STOP_BEFORE_RESTART,
    };
    if session.quirks().intersects(quirk) {
        // There is something to stop, or not.
        let _ = log_user_data(session, queue, false);
    }
    log_user_data(session, queue, true)
}

/// Makes a queue that nobody holds yet.
pub(crate) fn create_queue(
    session: &mut Session<'_>,
    tracked: TrackedId,
    options: &CdqOptions,
) -> Result<ControllerDataQueue, CommandError> {
    let creation = CdqCreation::new(session.controller().admin(), tracked, options);
    let mut creation = creation.map_err(|error| CommandError::Input(error.to_string()))?;
    loop {
        let now = session.now();
        session.controller().poll(now).map_err(DriverError::from)?;
        match creation.poll(session.controller().admin(), now) {
            None => session.nap(),
            Some(Ok(queue)) => return Ok(queue),
            Some(Err(failed)) => {
                let error = CommandError::Failed(format!("Controller Data Queue, Create: {}", failed.error));
                if let Some(memory) = failed.quarantined {
                    session.keep(memory);
                }
                return Err(error);
            }
        }
    }
}

/// Deletes a queue; memory that the controller may still write stays with the session.
pub(crate) fn delete_queue(
    session: &mut Session<'_>,
    queue: ControllerDataQueue,
) -> Result<CdqFigures, CommandError> {
    let mut deletion = CdqDeletion::new(queue, session.timeout());
    loop {
        let now = session.now();
        session.controller().poll(now).map_err(DriverError::from)?;
        match deletion.poll(session.controller().admin(), now) {
            None => session.nap(),
            Some(Ok(figures)) => return Ok(figures),
            Some(Err(failed)) => {
                let error = CommandError::Failed(format!("Controller Data Queue, Delete: {}", failed.error));
                if let Some(memory) = failed.quarantined {
                    session.keep(memory);
                }
                return Err(error);
            }
        }
    }
}

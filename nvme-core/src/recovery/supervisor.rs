// SPDX-License-Identifier: MIT OR Apache-2.0
//! The supervisor as its host sees it.

use core::fmt;
use core::time::Duration;

use super::Policy;
use super::live::Aborts;
use super::room::QueueRoom;
use crate::admin::{
    AdminQueue, AdminSlot, CallError, Initialize, InitializeError, InitializeOptions, Initialized,
};
use crate::controller::{
    Disabled, Disabling, EnableError, EnableOptions, Enabling, Fault, Health, Link, Quiesced, Ready,
    Shutdown, ShuttingDown,
};
use crate::dma::DmaArena;
use crate::io::{Completed, IoQueueError, IoQueuePair, Lost};
use crate::register::RegisterIo;
use crate::time::Instant;
use crate::wire::feature::NumberOfQueues;
use crate::wire::identify::IdentifyPage;
use crate::wire::{CommandId, QueueId};

/// How a controller is brought up, each time, and what is done when something is wrong.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Options {
    /// How it is enabled.
    pub enable: EnableOptions,
    /// What is asked of it once it is ready. Without a number of I/O queues the highest identifier of the queue pairs is
    /// asked for.
    pub initialize: InitializeOptions,
    /// What is done about trouble.
    pub policy: Policy,
}

/// Why a controller is reset or given up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cause {
    /// It broke a rule, failed or is gone.
    Fault(Fault),
    /// This I/O command was not completed in time, and the steps before a reset did not help.
    TimedOut {
        /// Its queue pair.
        queue: QueueId,
        /// The command.
        command: CommandId,
    },
    /// An admin command was not completed in time.
    AdminTimedOut,
    /// It could not be enabled as asked; resets cannot help.
    Enable(EnableError),
    /// It could not be initialized.
    Initialize(InitializeError),
    /// It grants fewer I/O queues than the queue pairs need.
    TooFewQueues {
        /// Highest identifier needed.
        needed: u16,
        /// Queues granted, the smaller number of both kinds.
        granted: u16,
    },
    /// A queue pair is not possible as asked, or there is no memory for it.
    QueueOptions {
        /// The queue pair.
        queue: QueueId,
        /// Why.
        error: IoQueueError,
    },
    /// A queue pair could not be created or deleted.
    Queue {
        /// The queue pair.
        queue: QueueId,
        /// Why.
        error: CallError,
    },
    /// The host asked for it.
    Asked,
}

impl core::error::Error for Cause {}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Fault(fault) => fault.fmt(f),
            Self::TimedOut { queue, command } => {
                write!(f, "command {command} of queue {queue} was not completed in time")
            }
            Self::AdminTimedOut => f.write_str("an admin command was not completed in time"),
            Self::Enable(error) => error.fmt(f),
            Self::Initialize(error) => error.fmt(f),
            Self::TooFewQueues { needed, granted } => {
                write!(f, "the controller grants {granted} I/O queues where {needed} are needed: use fewer")
            }
            Self::QueueOptions { queue, error } => write!(f, "queue pair {queue}: {error}"),
            Self::Queue { queue, error } => write!(f, "creation or deletion of queue pair {queue}: {error}"),
            Self::Asked => f.write_str("the host asked for a reset"),
        }
    }
}

/// Something the host has to know.
#[must_use = "buffers are inside"]
#[derive(Debug)]
pub enum Event<T> {
    /// The controller carried out a command, or says why not: look at the status.
    Completed {
        /// Its queue pair.
        queue: QueueId,
        /// The command.
        completed: Completed<T>,
    },
    /// The controller ended a command because it was asked to abort it or to delete its queue.
    Aborted {
        /// Its queue pair.
        queue: QueueId,
        /// The command.
        completed: Completed<T>,
    },
    /// A command ended without a completion; whether it took effect is unknown.
    Lost {
        /// Its queue pair.
        queue: QueueId,
        /// The command.
        lost: Lost<T>,
    },
    /// A command was not completed in time. It has not ended; the policy says what is done about it. Its tag is at
    /// [`IoQueuePair::tag`].
    TimedOut {
        /// Its queue pair.
        queue: QueueId,
        /// The command.
        command: CommandId,
    },
    /// The queue pair has been created, for the first time or again.
    QueueReady {
        /// The queue pair.
        queue: QueueId,
    },
    /// The controller is in use: all queue pairs are there, event requests are outstanding.
    Ready,
    /// The controller is about to be reset.
    Resetting(Cause),
    /// The controller is disabled and every I/O command has ended: now [`Supervisor::quiesced`] is the proof for memory that
    /// was kept for it, and [`Supervisor::admin`] the admin queue of before, for a last look. The next poll goes on.
    Quiesced,
}

/// How a supervisor ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// It was [shut down](Supervisor::shutdown).
    ShutDown,
    /// The policy has no step left. If the controller could be disabled, all commands have ended; otherwise there is
    /// [something stuck](Supervisor::take_stuck).
    GaveUp(Cause),
    /// The device is gone, and its commands and memory are [stuck](Supervisor::take_stuck).
    Removed,
}

/// What a poll brought.
#[must_use = "a supervisor that is not polled again makes no progress"]
#[derive(Debug)]
pub enum Progress<T> {
    /// Something happened; poll again at once.
    Event(Event<T>),
    /// Nothing to do before the device acts or this instant is reached, whichever comes first.
    Wait(Instant),
    /// Nothing more will happen.
    Ended(End),
}

#[allow(clippy::large_enum_variant, reason = "there is no allocator to box the larger ones")]
pub(super) enum Stage<'d, 's, R: ?Sized, A: DmaArena> {
    /// Not before the instant.
    Disabling(Disabling<'d, 's, R, A>, Instant),
    /// Whether the host has been told.
    Disabled(Disabled<'d, 's, R, A>, bool),
    Enabling(Enabling<'d, 's, R, A>),
    Initializing(Ready<'d, 's, R, A>, Initialize),
    Live(Ready<'d, 's, R, A>),
    ShuttingDown(ShuttingDown<'d, 's, R, A>),
    Ended(Disabled<'d, 's, R, A>),
    Stuck(Disabling<'d, 's, R, A>),
    /// The host has it, or one stage is just becoming another.
    Away,
}

/// One controller and its I/O queue pairs, kept in use. See the [module](super).
pub struct Supervisor<'d, 's, 'p, R: ?Sized, A: DmaArena, T> {
    pub(super) stage: Stage<'d, 's, R, A>,
    pub(super) link: &'d Link,
    /// Admin slots, while no admin queue has them.
    pub(super) slots: Option<&'s mut [AdminSlot]>,
    pub(super) rooms: &'p mut [QueueRoom<'d, 's, R, A, T>],
    pub(super) page: &'p mut IdentifyPage,
    pub(super) options: Options,
    pub(super) initialized: Option<Initialized>,
    pub(super) aborts: Aborts,
    /// Resets of the policy used up.
    pub(super) resets: usize,
    /// Whether completions posted before the present reset count.
    pub(super) believed: bool,
    /// All queue pairs were there, since then.
    pub(super) ready_since: Option<Instant>,
    /// Nothing is brought up any more.
    pub(super) ending: Option<End>,
    pub(super) shutdown: Option<(Shutdown, Duration)>,
    pub(super) asked: bool,
    pub(super) next_room: usize,
}

impl<R: ?Sized, A: DmaArena, T> fmt::Debug for Supervisor<'_, '_, '_, R, A, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Supervisor")
            .field("rooms", &self.rooms)
            .field("initialized", &self.initialized)
            .field("ending", &self.ending)
            .finish_non_exhaustive()
    }
}

impl<'d, 's, 'p, R: RegisterIo + ?Sized, A: DmaArena, T> Supervisor<'d, 's, 'p, R, A, T> {
    /// Takes over a controller that has been [attached](crate::controller::attach), or whose driver is done with it. Admin
    /// commands live in `slots`, unless `controller` brings some; each of `rooms` is to become a queue pair; `page` holds
    /// the Identify Controller data whenever the controller is in use.
    pub fn new(
        controller: Disabling<'d, 's, R, A>,
        slots: &'s mut [AdminSlot],
        rooms: &'p mut [QueueRoom<'d, 's, R, A, T>],
        page: &'p mut IdentifyPage,
        options: &Options,
    ) -> Self {
        let mut options = *options;
        let needed = rooms.iter().map(|room| room.options.id.get()).max().unwrap_or(0);
        if needed > 0 && options.initialize.io_queues.is_none() {
            options.initialize.io_queues = Some(NumberOfQueues { submission: needed, completion: needed });
        }
        Self {
            link: controller.link(),
            stage: Stage::Disabling(controller, Instant::ZERO),
            slots: Some(slots),
            rooms,
            page,
            options,
            initialized: None,
            aborts: Aborts::new(),
            resets: 0,
            believed: false,
            ready_since: None,
            ending: None,
            shutdown: None,
            asked: false,
            next_room: 0,
        }
    }

    /// How the controller fares, as last seen.
    #[must_use]
    pub fn health(&self) -> Health {
        self.link.health()
    }

    /// Whether the controller is in use and all queue pairs are there; `false` while one is deleted and created again.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        self.ready_since.is_some() && self.rooms.iter().all(QueueRoom::is_live)
    }

    /// What the controller said when it was last initialized; the Identify Controller data is in [`page`](Self::page).
    #[must_use]
    pub const fn initialized(&self) -> Option<Initialized> {
        self.initialized
    }

    /// The Identify Controller data, while the controller is in use.
    #[must_use]
    pub const fn page(&self) -> &IdentifyPage {
        self.page
    }

    /// Resets begun since the controller last counted as recovered, of those that the policy has.
    #[must_use]
    pub const fn resets(&self) -> usize {
        self.resets
    }

    /// The admin queue, while the controller is in use, and that of before a reset at [`Event::Quiesced`].
    pub const fn admin(&mut self) -> Option<&mut AdminQueue<'d, 's, R, A>> {
        match &mut self.stage {
            Stage::Live(ready) => Some(ready.admin()),
            Stage::Disabled(disabled, _) | Stage::Ended(disabled) => disabled.admin(),
            _ => None,
        }
    }

    /// The queue pair `queue`, while it is in use. What is submitted through it comes back through
    /// [`poll`](Self::poll), or through [`IoQueuePair::poll`], whichever is called first.
    pub fn pair(&mut self, queue: QueueId) -> Option<&mut IoQueuePair<'d, 's, R, A, T>> {
        if self.ending.is_some() || !matches!(self.stage, Stage::Live(_)) {
            return None;
        }
        self.rooms.iter_mut().find(|room| room.options.id == queue).and_then(QueueRoom::live)
    }

    /// The evidence that the controller is disabled, at [`Event::Quiesced`] and after an end that is not stuck.
    #[must_use]
    pub fn quiesced(&self) -> Option<Quiesced<'_>> {
        match &self.stage {
            Stage::Disabled(disabled, _) | Stage::Ended(disabled) => Some(disabled.quiesced()),
            _ => None,
        }
    }

    /// Commands that have not ended, each with its queue pair and tag, of queue pairs that are not being deleted.
    pub fn unfinished(&self) -> impl Iterator<Item = (QueueId, CommandId, &T)> {
        self.rooms.iter().flat_map(|room| {
            let commands = room.pair().map(IoQueuePair::unfinished).into_iter().flatten();
            commands.map(|(id, tag)| (room.options.id, id, tag))
        })
    }

    /// Asks for a reset at the next poll, for example because an admin command was not completed in time. Uses up one reset
    /// of the policy.
    pub const fn reset(&mut self) {
        self.asked = true;
    }

    /// Begins to shut the controller down: the queue pairs are deleted, then it has `limit` for the shutdown, one second
    /// at least (its RTD3 Entry Latency is in [`Initialized`]), then it is disabled. Commands that are outstanding end
    /// with their queues. A controller that is not in use is only disabled.
    pub const fn shutdown(&mut self, how: Shutdown, limit: Duration) {
        if self.ending.is_none() {
            self.ending = Some(End::ShutDown);
            self.ready_since = None;
            self.shutdown = Some((how, limit));
        }
    }

    /// The controller that is [gone](End::Removed) or could not be [disabled](End::GaveUp), for its host to make sure by
    /// other means that it lets go of all memory, and to say so
    /// ([`assume_disabled`](Disabling::assume_disabled)). `None` otherwise.
    pub fn take_stuck(&mut self) -> Option<Disabling<'d, 's, R, A>> {
        match core::mem::replace(&mut self.stage, Stage::Away) {
            Stage::Stuck(machine) => Some(machine),
            stage => {
                self.stage = stage;
                None
            }
        }
    }

    /// Takes the controller back that [`take_stuck`](Self::take_stuck) gave away, now disabled: its commands end as lost
    /// with the next polls, then it has ended as before.
    ///
    /// # Errors
    /// The controller, if it is another one or none is missing.
    pub fn put_disabled(&mut self, controller: Disabled<'d, 's, R, A>) -> Result<(), Disabled<'d, 's, R, A>> {
        if !matches!(self.stage, Stage::Away) || !controller.quiesced().concerns(self.link) {
            return Err(controller);
        }
        self.believed = false;
        self.stage = Stage::Disabled(controller, false);
        Ok(())
    }

    /// After an end, begins afresh with all resets of the policy; `false` before an end, or while the host has the
    /// controller.
    pub fn restart(&mut self) -> bool {
        self.stage = match core::mem::replace(&mut self.stage, Stage::Away) {
            Stage::Ended(disabled) => Stage::Disabled(disabled, true),
            Stage::Stuck(machine) => Stage::Disabling(machine, Instant::ZERO),
            stage => {
                self.stage = stage;
                return false;
            }
        };
        (self.ending, self.shutdown, self.resets, self.asked) = (None, None, 0, false);
        true
    }

    /// The controller, after an end that is not stuck; the rooms hold their slots again.
    ///
    /// # Errors
    /// The supervisor.
    pub fn into_disabled(mut self) -> Result<Disabled<'d, 's, R, A>, Self> {
        match core::mem::replace(&mut self.stage, Stage::Away) {
            Stage::Ended(disabled) => Ok(disabled),
            stage => {
                self.stage = stage;
                Err(self)
            }
        }
    }
}

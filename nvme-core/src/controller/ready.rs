// SPDX-License-Identifier: MIT OR Apache-2.0
//! A controller in use, and its shutdown. NVMe Base 2.1 §3.6.1, Memory-based Transport Controller Shutdown.

use core::time::Duration;

use super::{Core, Disabling, Fault, Health, POLL_INTERVAL, STATUS_INTERVAL};
use crate::admin::AdminQueue;
use crate::dma::DmaArena;
use crate::register::RegisterIo;
use crate::time::{Instant, Step};
use crate::wire::register::{Capabilities, ShutdownNotification, ShutdownStatus};

/// How a controller is shut down.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shutdown {
    /// Caches are written back; delete the I/O queues first.
    Normal,
    /// As fast as possible, before power goes.
    Abrupt,
}

/// A controller that is enabled. [`poll`](Self::poll) it regularly; commands go through [`admin`](Self::admin).
pub struct Ready<'d, 's, R: ?Sized, A: DmaArena> {
    core: Core<'d, R, A>,
    queue: AdminQueue<'d, 's, R, A>,
    status_due: Instant,
}

impl<'d, 's, R: RegisterIo + ?Sized, A: DmaArena> Ready<'d, 's, R, A> {
    pub(super) const fn new(core: Core<'d, R, A>, queue: AdminQueue<'d, 's, R, A>) -> Self {
        Self { core, queue, status_due: Instant::ZERO }
    }

    /// What the controller can do (CAP).
    #[must_use]
    pub const fn capabilities(&self) -> Capabilities {
        self.core.capabilities
    }

    /// The admin queue, through which everything else is done.
    pub const fn admin(&mut self) -> &mut AdminQueue<'d, 's, R, A> {
        &mut self.queue
    }

    /// How the controller fares, as last seen.
    #[must_use]
    pub fn health(&self) -> Health {
        self.core.link.health()
    }

    /// Takes what the admin completion queue holds, reports time-outs, and every now and then looks at the status.
    /// Returns the number of completions taken. Bounded by the number of slots.
    ///
    /// # Errors
    /// The [`Fault`]: the controller has failed or is gone. Its commands are lost; [`disable`](Self::disable) it.
    pub fn poll(&mut self, now: Instant) -> Result<usize, Fault> {
        if now.has_reached(self.status_due) {
            self.status_due = now.after(STATUS_INTERVAL);
            self.check_status()?;
        }
        self.queue.poll(now)
    }

    /// Looks at the status (CSTS) now.
    ///
    /// # Errors
    /// As [`poll`](Self::poll).
    pub fn check_status(&mut self) -> Result<Health, Fault> {
        self.queue.check()?;
        let looked = self.core.status().and_then(|status| {
            if status.fatal() {
                Err(Fault::FatalStatus)
            } else if !status.ready() {
                Err(Fault::ReadyLost)
            } else {
                self.core.link.set_paused(status.processing_paused());
                Ok(())
            }
        });
        match looked {
            Ok(()) => Ok(self.health()),
            Err(fault) => Err(self.queue.fail(fault)),
        }
    }

    /// When to call [`poll`](Self::poll) at the latest if no interrupt asks for it.
    #[must_use]
    pub fn next_deadline(&self) -> Instant {
        use crate::admin::AdminPort;
        self.queue.next_deadline().map_or(self.status_due, |deadline| deadline.min(self.status_due))
    }

    /// Begins to shut the controller down; it has `limit` for it, one second at least. The limit is the controller's RTD3
    /// Entry Latency. I/O queues are to be deleted before.
    pub fn shutdown(self, how: Shutdown, limit: Duration, now: Instant) -> ShuttingDown<'d, 's, R, A> {
        let deadline = now.after(limit.max(Duration::from_secs(1)));
        ShuttingDown { core: self.core, queue: self.queue, how, deadline, stage: Stage::Notify }
    }

    /// Begins to disable the controller, whether it works or not.
    pub fn disable(self) -> Disabling<'d, 's, R, A> {
        Disabling::new(self.core, Some(self.queue))
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    Notify,
    Await,
    Done,
}

/// A controller that is being shut down. Poll it until it is [`Step::Done`], then [`disable`](Self::disable).
#[must_use = "poll it to the end, or the controller stays as it is"]
pub struct ShuttingDown<'d, 's, R: ?Sized, A: DmaArena> {
    core: Core<'d, R, A>,
    queue: AdminQueue<'d, 's, R, A>,
    how: Shutdown,
    deadline: Instant,
    stage: Stage,
}

impl<'d, 's, R: RegisterIo + ?Sized, A: DmaArena> ShuttingDown<'d, 's, R, A> {
    /// Goes on, for no longer than the limit given.
    ///
    /// # Errors
    /// [`Fault::ShutdownNotInTime`], [`Fault::Removed`], [`Fault::RegisterAccess`], or the fault that the controller had
    /// already.
    pub fn poll(&mut self, now: Instant) -> Result<Step, Fault> {
        self.advance(now).map_err(|fault| self.queue.fail(fault))
    }

    fn advance(&mut self, now: Instant) -> Result<Step, Fault> {
        match self.stage {
            Stage::Notify => {
                let notification = match self.how {
                    Shutdown::Normal => ShutdownNotification::Normal,
                    Shutdown::Abrupt => ShutdownNotification::Abrupt,
                };
                self.core.status()?;
                self.core.configure(self.core.configuration()?.with_shutdown(notification))?;
                self.stage = Stage::Await;
                Ok(Step::Again)
            }
            Stage::Await => {
                let status = self.core.status()?;
                // A shutdown of the whole subsystem reports its own status in the same bits.
                if status.shutdown() == ShutdownStatus::Complete && !status.subsystem_shutdown() {
                    self.stage = Stage::Done;
                    return Ok(Step::Done);
                }
                if now.has_reached(self.deadline) {
                    return Err(Fault::ShutdownNotInTime);
                }
                Ok(Step::Wait(now.after(POLL_INTERVAL).min(self.deadline)))
            }
            Stage::Done => Ok(Step::Done),
        }
    }

    /// Whether the shutdown is complete.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        self.stage == Stage::Done
    }

    /// Begins to disable the controller, whether the shutdown is complete or not. A shutdown alone does not take the
    /// controller's queues and memory away from it.
    pub fn disable(self) -> Disabling<'d, 's, R, A> {
        Disabling::new(self.core, Some(self.queue))
    }
}

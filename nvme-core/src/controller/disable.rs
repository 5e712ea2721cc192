// SPDX-License-Identifier: MIT OR Apache-2.0
//! Taking a controller over, disabling it, and what is true while it is disabled.
//! NVMe Base 2.1 §3.7.2, Controller Level Reset.
#![allow(unsafe_code, reason = "two functions take the caller's word for what cannot be checked")]

use core::fmt;
use core::marker::PhantomData;
use core::time::Duration;

use super::{Core, EnableOptions, EnableRejected, Enabling, Fault, Link, POLL_INTERVAL, SHORTEST_TIMEOUT};
use crate::admin::{AdminCompletion, AdminHandle, AdminQueue, AdminSlot};
use crate::dma::{self, DmaArena, LetGo};
use crate::register::{Offset, RegisterIo};
use crate::time::{Instant, Step};
use crate::wire::register::{self, Capabilities, ShutdownNotification, ShutdownStatus};

/// How long a shutdown that somebody else began may take before its end is no longer waited for.
const FOREIGN_SHUTDOWN: Duration = Duration::from_secs(60);

/// Why a controller could not be taken over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AttachError {
    /// The link serves another controller, or this one already.
    LinkInUse,
    /// The controller cannot be reached.
    Fault(Fault),
}

impl core::error::Error for AttachError {}

impl fmt::Display for AttachError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::LinkInUse => f.write_str("the link is in use; give each controller its own"),
            Self::Fault(fault) => fault.fmt(f),
        }
    }
}

/// Takes a controller over in whatever state it is, and begins to disable it.
///
/// # Safety
/// This is the one place where the caller answers for the device:
/// - `registers` reaches one controller, and until [`Disabled::detach`] nothing else drives it;
/// - `arena` serves this controller and no other;
/// - while the controller is disabled and before [`Disabled::enable`], every call into one of its I/O queue pairs that
///   began on another thread has returned: a call that begins later finds that its queues are gone
///   ([`Fault::Reset`]), but one that has looked already could ring a doorbell of the queues that come next (a lock
///   around each pair, or joining the threads, will do; the pairs themselves count nothing, so that a command costs
///   nothing for it);
/// - `arena` and its memory outlive whatever the controller may still access: dropping the driver's values disables
///   nothing;
/// - a command moves no more data than its buffer holds, and its buffer comes from `arena`; a region whose address
///   outlives the command (a queue, a host memory buffer) is not submitted as a mere
///   [`Buffer`](crate::admin::AdminData::Buffer);
/// - memory whose bus address is given to the controller by other means than a [`DmaRegion`](crate::dma::DmaRegion)
///   that the driver keeps (as [`AdminData::QueueBase`](crate::admin::AdminData::QueueBase), or as numbers in a
///   command) is not released before the controller has let go of it.
///
/// # Errors
/// [`AttachError`]; nothing was written to the controller then.
pub unsafe fn attach<'d, 's, R: RegisterIo + ?Sized, A: DmaArena>(
    registers: &'d R,
    arena: &'d A,
    link: &'d Link,
) -> Result<Disabling<'d, 's, R, A>, AttachError> {
    if !link.take() {
        return Err(AttachError::LinkInUse);
    }
    // Whatever an earlier user of the link recorded does not concern this one.
    link.disabled();
    let mut core = Core { registers, arena, link, capabilities: Capabilities::from_bits(0) };
    let offset = Offset::new(register::CAP);
    let read = || {
        core.status()?;
        registers.read64(offset).map_err(|_| Fault::RegisterAccess(offset))
    };
    match read() {
        Ok(bits) => core.capabilities = Capabilities::from_bits(bits),
        Err(fault) => {
            link.give_back();
            return Err(AttachError::Fault(fault));
        }
    }
    Ok(Disabling::new(core, None))
}

#[derive(Clone, Copy, Debug)]
enum Stage {
    Look,
    /// Somebody's shutdown is in progress; EN must not be cleared meanwhile.
    AwaitShutdown(Instant),
    /// It is on its way to ready; EN must not be cleared meanwhile.
    AwaitReady(Instant),
    AwaitNotReady(Instant),
    Done,
}

/// A controller on its way to being disabled. Poll it until it is [`Step::Done`], then [`finish`](Self::finish).
#[must_use = "poll it to the end, or the controller stays as it is"]
pub struct Disabling<'d, 's, R: ?Sized, A: DmaArena> {
    core: Core<'d, R, A>,
    queue: Option<AdminQueue<'d, 's, R, A>>,
    stage: Stage,
}

impl<'d, 's, R: RegisterIo + ?Sized, A: DmaArena> Disabling<'d, 's, R, A> {
    pub(super) const fn new(core: Core<'d, R, A>, queue: Option<AdminQueue<'d, 's, R, A>>) -> Self {
        Self { core, queue, stage: Stage::Look }
    }

    /// What the queues of the controller share.
    pub(crate) const fn link(&self) -> &'d Link {
        self.core.link
    }

    /// Goes on. Waits no longer than the controller itself states (CAP.TO), or a minute for a shutdown that somebody
    /// else began.
    ///
    /// # Errors
    /// [`Fault::Removed`], [`Fault::RegisterAccess`], [`Fault::NotDisabledInTime`], [`Fault::ShutdownNotInTime`]. Polling
    /// again begins afresh; if the device cannot be brought to disable itself, [`assume_disabled`](Self::assume_disabled)
    /// remains.
    pub fn poll(&mut self, now: Instant) -> Result<Step, Fault> {
        match self.advance(now) {
            Ok(step) => Ok(step),
            Err(fault) => {
                self.stage = Stage::Look;
                Err(fault)
            }
        }
    }

    fn timeout(&self) -> Duration {
        self.core.capabilities.timeout().max(SHORTEST_TIMEOUT)
    }

    fn advance(&mut self, now: Instant) -> Result<Step, Fault> {
        if let Stage::Done = self.stage {
            return Ok(Step::Done);
        }
        let status = self.core.status()?;
        let configuration = self.core.configuration()?;
        let wait = Step::Wait(now.after(POLL_INTERVAL));
        self.stage = match self.stage {
            // Whether enabled or not: the subsystem may be shutting down.
            Stage::Look if status.shutdown() == ShutdownStatus::InProgress => {
                Stage::AwaitShutdown(now.after(self.timeout().max(FOREIGN_SHUTDOWN)))
            }
            Stage::Look if !configuration.enabled() => Stage::AwaitNotReady(now.after(self.timeout())),
            Stage::Look if !status.ready() && !status.fatal() => Stage::AwaitReady(now.after(self.timeout())),
            Stage::AwaitShutdown(deadline) if status.shutdown() == ShutdownStatus::InProgress => {
                if now.has_reached(deadline) {
                    return Err(Fault::ShutdownNotInTime);
                }
                return Ok(wait);
            }
            Stage::AwaitReady(deadline)
                if !status.ready() && !status.fatal() && !now.has_reached(deadline) =>
            {
                return Ok(wait);
            }
            Stage::AwaitNotReady(deadline) => {
                if !status.ready() && !configuration.enabled() {
                    self.let_go();
                    self.stage = Stage::Done;
                    return Ok(Step::Done);
                }
                if now.has_reached(deadline) {
                    return Err(Fault::NotDisabledInTime);
                }
                return Ok(wait);
            }
            _ => {
                self.core
                    .configure(configuration.with_enabled(false).with_shutdown(ShutdownNotification::None))?;
                Stage::AwaitNotReady(now.after(self.timeout()))
            }
        };
        Ok(Step::Again)
    }

    /// The controller let go of everything.
    fn let_go(&mut self) {
        self.core.link.disabled();
        // Safe code can swap the queues of two controllers. The other one's is in use and stays as it is.
        if let Some(queue) = self.queue.as_mut().filter(|queue| queue.is_of(self.core.link)) {
            queue.quiesce();
        }
    }

    /// The disabled controller, once [`poll`](Self::poll) has said [`Step::Done`].
    ///
    /// # Errors
    /// The machine itself, if it is not done.
    pub fn finish(self) -> Result<Disabled<'d, 's, R, A>, Self> {
        match self.stage {
            Stage::Done => Ok(Disabled { core: self.core, queue: self.queue }),
            _ => Err(self),
        }
    }

    /// The controller as disabled on the caller's word, for a device that is gone or does not answer any more.
    ///
    /// # Safety
    /// The caller has made sure by other means that the device no longer reaches memory and that it has forgotten its
    /// queues: it was physically removed, its function was reset, or its bus mastering was disabled and it will be
    /// reset before it is enabled again.
    #[must_use]
    pub unsafe fn assume_disabled(mut self) -> Disabled<'d, 's, R, A> {
        self.let_go();
        Disabled { core: self.core, queue: self.queue }
    }
}

/// Evidence that a controller is disabled: CC.EN = 0 and CSTS.RDY = 0 were read. It holds as long as the borrow of the
/// [`Disabled`] it comes from, so nothing can have been handed to the controller since.
#[derive(Debug)]
pub struct Quiesced<'c> {
    link: &'c Link,
    /// Identity of the arena that serves the controller.
    arena: usize,
    /// Not `Copy`, not constructible elsewhere.
    _private: PhantomData<&'c ()>,
}

impl Quiesced<'_> {
    /// Whether this is about the controller that `link` belongs to.
    pub(crate) fn concerns(&self, link: &Link) -> bool {
        core::ptr::eq(self.link, link)
    }
}

impl dma::proof::Sealed for Quiesced<'_> {
    fn evidence(&self) -> dma::Evidence {
        dma::Evidence::Disabled
    }

    fn covers(&self, arena: usize) -> bool {
        self.arena == arena
    }

    fn is_about(&self, controller: u32) -> bool {
        self.link.controller() == controller
    }
}
impl LetGo for Quiesced<'_> {}

/// A controller that is disabled: it has no queues and reaches no memory.
pub struct Disabled<'d, 's, R: ?Sized, A: DmaArena> {
    core: Core<'d, R, A>,
    queue: Option<AdminQueue<'d, 's, R, A>>,
}

impl<'d, 's, R: RegisterIo + ?Sized, A: DmaArena> Disabled<'d, 's, R, A> {
    /// What the controller can do (CAP).
    #[must_use]
    pub const fn capabilities(&self) -> Capabilities {
        self.core.capabilities
    }

    /// Evidence that the controller let go of all memory.
    #[must_use]
    pub fn quiesced(&self) -> Quiesced<'_> {
        Quiesced { link: self.core.link, arena: dma::identity(self.core.arena), _private: PhantomData }
    }

    /// The admin queue of the time before, for users who still hold handles: commands that were not completed are
    /// [`Lost`](crate::admin::AdminOutcome::Lost), with their data.
    pub const fn admin(&mut self) -> Option<&mut AdminQueue<'d, 's, R, A>> {
        self.queue.as_mut()
    }

    /// Gives back one admin command of the time before that nobody has taken yet, each once; call it until `None`.
    pub fn take_unfinished(&mut self) -> Option<(AdminHandle, AdminCompletion)> {
        self.queue.as_mut().filter(|queue| queue.is_of(self.core.link))?.take_any()
    }

    /// Releases all memory of the earlier admin queue, with the data of commands nobody has taken, and gives its slots
    /// back; `None` if there was none.
    pub fn retire(&mut self) -> Option<&'s mut [AdminSlot]> {
        let queue = self.queue.take()?;
        Some(queue.retire(&self.quiesced()))
    }

    /// Begins to enable the controller with an admin queue whose commands live in `slots`. An earlier admin queue is
    /// [retired](Self::retire).
    ///
    /// # Errors
    /// [`EnableRejected`] with the reason; nothing was written to the controller then.
    pub fn enable<'t>(
        mut self,
        options: &EnableOptions,
        slots: &'t mut [AdminSlot],
    ) -> Result<Enabling<'d, 't, R, A>, EnableRejected<'d, 't, R, A>> {
        self.retire();
        let core = self.core;
        Enabling::new(core, options, slots).map_err(|(error, slots)| EnableRejected {
            error,
            disabled: Disabled { core, queue: None },
            slots,
        })
    }

    /// Lets the controller go, disabled. Its link may serve another one.
    pub fn detach(mut self) -> Option<&'s mut [AdminSlot]> {
        let slots = self.retire();
        self.core.link.give_back();
        slots
    }
}

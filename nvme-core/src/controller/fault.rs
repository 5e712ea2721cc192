// SPDX-License-Identifier: MIT OR Apache-2.0
//! What can be wrong with a controller, and where everyone who drives it learns of it.

use core::fmt;
use core::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use crate::queue::{BadHead, UnknownCommand};
use crate::register::Offset;
use crate::wire::{CommandId, QueueId};

/// A controller broke a rule, failed, or is gone. Only a reset helps, if anything does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// A completion names a command that is not outstanding.
    UnknownCommand(CommandId),
    /// A completion names a submission queue that its completion queue does not serve.
    WrongSubmissionQueue(QueueId),
    /// A completion reports a submission queue head that cannot be.
    BadSubmissionHead(u16),
    /// The controller reports Controller Fatal Status (CSTS.CFS).
    FatalStatus,
    /// The device is gone: CSTS reads as all ones.
    Removed,
    /// A property or doorbell could not be accessed.
    RegisterAccess(Offset),
    /// Enabled, but not ready within the time the controller states (CRTO, CAP.TO).
    NotReadyInTime,
    /// Disabled, but still ready after the time the controller states (CAP.TO).
    NotDisabledInTime,
    /// A shutdown did not end in time.
    ShutdownNotInTime,
    /// It stopped being ready without having been told to.
    ReadyLost,
    /// It has been disabled or reset since this queue was made.
    Reset,
}

impl Fault {
    const fn encode(self) -> (u32, u32) {
        match self {
            Self::UnknownCommand(id) => (1, id.get() as u32),
            Self::WrongSubmissionQueue(queue) => (2, queue.get() as u32),
            Self::BadSubmissionHead(head) => (3, head as u32),
            Self::FatalStatus => (4, 0),
            Self::Removed => (5, 0),
            Self::RegisterAccess(offset) => (6, offset.bytes()),
            Self::NotReadyInTime => (7, 0),
            Self::NotDisabledInTime => (8, 0),
            Self::ShutdownNotInTime => (9, 0),
            Self::ReadyLost => (10, 0),
            Self::Reset => (11, 0),
        }
    }

    const fn decode(kind: u32, value: u32) -> Option<Self> {
        #[allow(clippy::cast_possible_truncation, reason = "encoded from 16 bits")]
        let short = value as u16;
        Some(match kind {
            1 => Self::UnknownCommand(CommandId::new(short)),
            2 => Self::WrongSubmissionQueue(QueueId::new(short)),
            3 => Self::BadSubmissionHead(short),
            4 => Self::FatalStatus,
            5 => Self::Removed,
            6 => Self::RegisterAccess(Offset::new(value)),
            7 => Self::NotReadyInTime,
            8 => Self::NotDisabledInTime,
            9 => Self::ShutdownNotInTime,
            10 => Self::ReadyLost,
            11 => Self::Reset,
            _ => return None,
        })
    }
}

impl From<UnknownCommand> for Fault {
    fn from(unknown: UnknownCommand) -> Self {
        Self::UnknownCommand(unknown.0)
    }
}

impl From<BadHead> for Fault {
    fn from(head: BadHead) -> Self {
        Self::BadSubmissionHead(head.0)
    }
}

impl core::error::Error for Fault {}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::UnknownCommand(id) => UnknownCommand(id).fmt(f),
            Self::WrongSubmissionQueue(queue) => {
                write!(
                    f,
                    "a completion names submission queue {queue}, which does not use its completion queue; reset the controller"
                )
            }
            Self::BadSubmissionHead(head) => BadHead(head).fmt(f),
            Self::FatalStatus => f.write_str("the controller reports a fatal status; reset it"),
            Self::Removed => {
                f.write_str("the device is gone: its status reads as all ones; look for it on its bus")
            }
            Self::RegisterAccess(offset) => write!(
                f,
                "register {:#x} cannot be accessed; map it, or reset the controller",
                offset.bytes()
            ),
            Self::NotReadyInTime => {
                f.write_str("the controller did not become ready in the time it states; reset it")
            }
            Self::NotDisabledInTime => f.write_str(
                "the controller did not become disabled in the time it states; reset its function",
            ),
            Self::ShutdownNotInTime => {
                f.write_str("the controller's shutdown did not end in time; disable it, or wait longer")
            }
            Self::ReadyLost => f.write_str("the controller stopped being ready; disable and enable it"),
            Self::Reset => f.write_str("the controller was reset since this queue was made; make a new one"),
        }
    }
}

/// How a controller fares, whatever it was told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Health {
    /// It works.
    Live,
    /// It pauses command processing (CSTS.PP) and will go on by itself.
    Paused,
    /// It failed; nothing it says is believed until it has been disabled.
    Failed(Fault),
    /// It is gone.
    Removed,
}

/// What the admin queue and the I/O queue pairs of one controller share, on whichever threads they are: whether the
/// controller is live, and how often it has been disabled. Lent to [`attach`](super::attach).
#[derive(Debug)]
pub struct Link {
    attached: AtomicBool,
    paused: AtomicBool,
    /// Tells the controller attached from every other.
    controller: AtomicU32,
    /// Times the controller was disabled (bits 31:8), and the kind of the fault, zero if none (bits 7:0).
    state: AtomicU32,
    value: AtomicU32,
}

/// A fault is being recorded.
const CLAIMED: u32 = 0xFF;
const KIND: u32 = 0xFF;
const EPOCH: u32 = 0x100;

impl Link {
    /// A link of a controller not yet attached.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            attached: AtomicBool::new(false),
            paused: AtomicBool::new(false),
            controller: AtomicU32::new(0),
            state: AtomicU32::new(0),
            value: AtomicU32::new(0),
        }
    }

    /// How the controller fares, as last seen.
    #[must_use]
    pub fn health(&self) -> Health {
        match self.fault() {
            Some(Fault::Removed) => Health::Removed,
            Some(fault) => Health::Failed(fault),
            None if self.paused.load(Ordering::Relaxed) => Health::Paused,
            None => Health::Live,
        }
    }

    /// The fault recorded since the controller was last disabled.
    #[must_use]
    pub fn fault(&self) -> Option<Fault> {
        let kind = self.state.load(Ordering::Acquire) & KIND;
        Fault::decode(kind, self.value.load(Ordering::Relaxed))
    }

    /// The present epoch, which a queue keeps to know later whether it still exists.
    pub(crate) fn epoch(&self) -> u32 {
        self.state.load(Ordering::Relaxed) & !KIND
    }

    /// Whether the controller is without fault and has not been disabled since `epoch`.
    ///
    /// # Errors
    /// The fault, or [`Fault::Reset`].
    #[inline]
    pub(crate) fn check(&self, epoch: u32) -> Result<(), Fault> {
        if self.state.load(Ordering::Relaxed) == epoch { Ok(()) } else { self.trouble(epoch) }
    }

    #[cold]
    fn trouble(&self, epoch: u32) -> Result<(), Fault> {
        if self.epoch() != epoch {
            return Err(Fault::Reset);
        }
        self.fault().map_or(Ok(()), Err)
    }

    /// Records `fault`, unless one is recorded already; returns the one recorded.
    #[cold]
    pub(crate) fn fail(&self, epoch: u32, fault: Fault) -> Fault {
        if self.claim(epoch) {
            self.record(epoch, fault);
        }
        if self.epoch() == epoch { self.fault().unwrap_or(fault) } else { Fault::Reset }
    }

    /// Reserves the place for the first fault since the controller was last disabled; `false` if it is taken.
    fn claim(&self, epoch: u32) -> bool {
        self.state.compare_exchange(epoch, epoch | CLAIMED, Ordering::Relaxed, Ordering::Relaxed).is_ok()
    }

    /// Fills the place reserved, unless the controller has been disabled meanwhile on another thread.
    fn record(&self, epoch: u32, fault: Fault) {
        let (kind, value) = fault.encode();
        self.value.store(value, Ordering::Relaxed);
        // A failed exchange leaves the later epoch, in which this fault means nothing.
        let _ =
            self.state.compare_exchange(epoch | CLAIMED, epoch | kind, Ordering::Release, Ordering::Relaxed);
    }

    /// The controller has become disabled: every queue made before is gone and faults are forgotten.
    pub(crate) fn disabled(&self) {
        self.state.store(self.epoch().wrapping_add(EPOCH), Ordering::Release);
        self.paused.store(false, Ordering::Relaxed);
    }

    pub(crate) fn set_paused(&self, paused: bool) {
        self.paused.store(paused, Ordering::Relaxed);
    }

    /// Takes the link for one controller; `false` if it is taken.
    pub(crate) fn take(&self) -> bool {
        let free = !self.attached.swap(true, Ordering::Acquire);
        if free {
            self.controller.store(crate::admin::fresh_number(), Ordering::Relaxed);
        }
        free
    }

    /// The number of the controller attached, which no other has.
    pub(crate) fn controller(&self) -> u32 {
        self.controller.load(Ordering::Relaxed)
    }

    pub(crate) fn give_back(&self) {
        self.attached.store(false, Ordering::Release);
    }
}

impl Default for Link {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fault_recorded_while_the_controller_is_disabled_does_not_bring_the_old_epoch_back() {
        let link = Link::new();
        let before = link.epoch();
        assert!(link.claim(before));
        link.disabled();
        let after = link.epoch();
        link.record(before, Fault::FatalStatus);
        assert_eq!((link.check(after), link.fault()), (Ok(()), None));
        assert_eq!(link.check(before), Err(Fault::Reset));
        assert_eq!(link.fail(after, Fault::ReadyLost), Fault::ReadyLost);
        assert_eq!(link.check(after), Err(Fault::ReadyLost));
    }
}

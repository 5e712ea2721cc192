// SPDX-License-Identifier: MIT OR Apache-2.0
//! The admin queue as its users see it.
//!
//! Several users share one admin queue: queue creation, events, several migrations. Each submits a command, keeps
//! the [`AdminHandle`] and later takes the completion with it, so none sees another's completions and none waits
//! inside a call.

use core::fmt;
use core::sync::atomic::{AtomicU32, Ordering};
use core::time::Duration;

use crate::dma::{DmaArena, DmaRegion};
use crate::prp::PrpError;
use crate::time::Instant;
use crate::wire::{AsynchronousEvent, BusAddr, CdqId, CommandId, CompletionQueueEntry, SubmissionQueueEntry};

/// Names one submitted admin command. It owns nothing and may be copied; once the completion has been taken it
/// names nothing any more. It names no command of another port, and after a reset of the controller none of those that
/// came later. Only the [`Life`] that its port keeps makes one, so nobody can take a completion that is not his.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AdminHandle {
    id: CommandId,
    generation: Generation,
    /// Identifiers come round again, this does not.
    number: u64,
}

impl AdminHandle {
    /// The command's identifier.
    #[must_use]
    pub const fn command_id(self) -> CommandId {
        self.id
    }

    /// The life of the controller that it belongs to.
    #[must_use]
    pub const fn generation(self) -> Generation {
        self.generation
    }
}

/// One life of one controller behind an [`AdminPort`], from one disable to the next.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Generation {
    controller: u32,
    life: u32,
}

/// The number that was given out last. It would take 2^32 resets for one to come twice.
static LAST: AtomicU32 = AtomicU32::new(0);

/// A number that was not given out before.
pub(crate) fn fresh_number() -> u32 {
    LAST.fetch_add(1, Ordering::Relaxed).wrapping_add(1)
}

impl Generation {
    /// Whether this is about the controller with this number.
    pub(crate) const fn is_of(self, controller: u32) -> bool {
        self.controller == controller
    }

    /// The controller's number.
    pub(crate) const fn controller(self) -> u32 {
        self.controller
    }

    /// Whether both are about the same controller.
    #[must_use]
    pub const fn is_of_same_controller(self, other: Self) -> bool {
        self.controller == other.controller
    }

    /// Whether this is another life of the same controller, which proves that the controller was disabled in between:
    /// commands, queues and Controller Data Queues of the other one are gone.
    #[must_use]
    pub const fn is_another_life(self, other: Self) -> bool {
        self.controller == other.controller && self.life != other.life
    }
}

/// The present life of the controller behind a port, which keeps it to itself: whoever has it makes handles.
#[derive(Debug)]
pub struct Life {
    generation: Generation,
    /// Handles made so far.
    handles: u64,
}

impl Life {
    /// The first life of a controller that nobody else has one of.
    #[must_use]
    pub fn new() -> Self {
        Self::of_controller(fresh_number())
    }

    /// A new life of the controller with this number.
    pub(crate) fn of_controller(controller: u32) -> Self {
        Self { generation: Generation { controller, life: fresh_number() }, handles: 0 }
    }

    /// What tells this life from others.
    #[must_use]
    pub const fn generation(&self) -> Generation {
        self.generation
    }

    /// The handle of a command that is about to be submitted with identifier `id`.
    pub const fn handle(&mut self, id: CommandId) -> AdminHandle {
        self.handles = self.handles.wrapping_add(1);
        AdminHandle { id, generation: self.generation, number: self.handles }
    }

    /// The controller was disabled: everything of the life before is gone.
    pub fn renew(&mut self) {
        self.generation.life = fresh_number();
    }
}

impl Default for Life {
    fn default() -> Self {
        Self::new()
    }
}

/// What the data pointer of an admin command describes.
#[derive(Debug)]
pub enum AdminData {
    /// No data and no pointer.
    None,
    /// Command data: the first `len` bytes of the region, which the port keeps until the command has completed.
    Buffer {
        /// Memory of the data.
        region: DmaRegion,
        /// Bytes to transfer, at most the region's length.
        len: usize,
    },
    /// PRP1 is the base of a queue or of its PRP list; the memory stays with the caller.
    QueueBase(BusAddr),
}

/// One admin command to submit.
#[derive(Debug)]
pub struct AdminRequest {
    /// The command; command identifier and data pointer are filled in by the port.
    pub command: SubmissionQueueEntry,
    /// What the data pointer describes.
    pub data: AdminData,
    /// After this long without a completion the command is reported as timed out.
    pub timeout: Duration,
}

/// Why a command was not submitted; the request comes back with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SubmitError {
    /// No slot or submission queue entry is free now: poll and try again.
    Busy,
    /// The data is longer than the controller's MDTS allows.
    TooLong {
        /// Bytes asked for.
        bytes: usize,
        /// Bytes allowed.
        limit: usize,
    },
    /// The data pointer could not be built.
    DataPointer(PrpError),
    /// The controller has failed, was removed or is not enabled.
    NotReady,
    /// The command is about something of another controller than the port's.
    OtherController,
}

impl core::error::Error for SubmitError {}

impl fmt::Display for SubmitError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Busy => f.write_str("no slot is free: poll, then submit again"),
            Self::TooLong { bytes, limit } => {
                write!(f, "{bytes} bytes are too many for one command: transfer at most {limit}")
            }
            Self::DataPointer(error) => error.fmt(f),
            Self::NotReady => f.write_str("the controller is disabled, failed or gone: enable it first"),
            Self::OtherController => {
                f.write_str("it is about something of another controller: submit it to that one")
            }
        }
    }
}

/// How a command ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AdminOutcome {
    /// The controller completed it; look at the status.
    Completed(CompletionQueueEntry),
    /// No completion within the time-out. Reported once; the slot and the data stay with the port until the
    /// completion arrives or the controller is disabled.
    TimedOut,
    /// The controller was reset or failed; whether the command took effect is unknown.
    Lost,
}

/// A finished command and the memory it used.
#[must_use = "the data buffer is inside"]
#[derive(Debug)]
pub struct AdminCompletion {
    /// How it ended.
    pub outcome: AdminOutcome,
    /// The data buffer, if the command had one and the device let go of it.
    pub region: Option<DmaRegion>,
}

/// Which events a caller asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EventFilter {
    /// Events of this Controller Data Queue.
    ControllerDataQueue(CdqId),
    /// Everything that is not about a Controller Data Queue.
    Other,
    /// Every event.
    Any,
}

impl EventFilter {
    /// Whether `event` is asked for.
    #[must_use]
    pub fn matches(self, event: &AsynchronousEvent) -> bool {
        match (self, event.controller_data_queue()) {
            (Self::Any, _) | (Self::Other, None) => true,
            (Self::ControllerDataQueue(wanted), Some(found)) => found.queue() == wanted,
            _ => false,
        }
    }
}

/// A shared admin queue. No call blocks; all are bounded. None of them takes completions from the controller: whoever owns
/// the queue does that.
///
/// Implemented by this crate's [`AdminQueue`](super::AdminQueue); a host may implement it over a passthrough interface
/// instead.
///
/// # Safety
/// Memory goes back on an implementation's word, without a further look. It guarantees that
/// - [`arena`](Self::arena) is always the same arena, and serves the controller that the commands go to and no other;
/// - [`generation`](Self::generation) comes from a [`Life`] of that controller that the port keeps to itself, and changes
///   when, and only when, the controller was disabled or reset, so that it let go of every queue it had;
/// - [`take`](Self::take) reports a command as [`Completed`](AdminOutcome::Completed) only with the completion that this
///   controller posted for the command of that very handle, and gives a buffer back only when the controller has let go
///   of it.
#[allow(unsafe_code, reason = "who implements the port answers for it; nothing unsafe is done here")]
pub unsafe trait AdminPort {
    /// Where command data lives.
    type Arena: DmaArena;

    /// The arena for command data and for Controller Data Queues of this controller.
    fn arena(&self) -> &Self::Arena;

    /// Memory page size in bytes (CC.MPS).
    fn page_size(&self) -> usize;

    /// Longest data transfer in bytes: what the controller (MDTS) and the port's own memory for PRP lists both allow.
    fn max_transfer(&self) -> usize;

    /// The present life of the controller.
    fn generation(&self) -> Generation;

    /// Whether the controller takes commands, as far as the port knows: it is enabled, has not failed and was not removed.
    /// If not, [`submit`](Self::submit) refuses with [`SubmitError::NotReady`].
    fn is_live(&self) -> bool;

    /// Submits one command and rings the doorbell.
    ///
    /// # Errors
    /// [`SubmitError`], with the request given back whole.
    fn submit(
        &mut self,
        request: AdminRequest,
        now: Instant,
    ) -> Result<AdminHandle, (SubmitError, AdminRequest)>;

    /// Takes the completion of a command, once; `None` while it is outstanding, once it has been taken, and for a command
    /// of another port. A command of an earlier [life](Generation::is_another_life) that did not complete is
    /// [`Lost`](AdminOutcome::Lost), with its buffer if the port still keeps it; otherwise the buffer went back when the
    /// controller was enabled again.
    fn take(&mut self, handle: AdminHandle) -> Option<AdminCompletion>;

    /// Gives up interest in a command: its slot and buffer are freed when the device lets go of them.
    fn abandon(&mut self, handle: AdminHandle);

    /// Takes the oldest reported event that `filter` asks for. Events that nobody takes hold nothing up: a port keeps a
    /// bounded number of them.
    fn take_event(&mut self, filter: EventFilter) -> Option<AsynchronousEvent>;

    /// The earliest time at which a submitted command times out.
    fn next_deadline(&self) -> Option<Instant>;
}

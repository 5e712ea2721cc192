// SPDX-License-Identifier: MIT OR Apache-2.0
//! The admin queue as its users see it.
//!
//! Several users share one admin queue: queue creation, events, several migrations. Each submits a command, keeps
//! the [`AdminHandle`] and later takes the completion with it, so none sees another's completions and none waits
//! inside a call.

use core::time::Duration;

use crate::dma::{DmaArena, DmaRegion};
use crate::prp::PrpError;
use crate::time::Instant;
use crate::wire::{AsynchronousEvent, BusAddr, CdqId, CommandId, CompletionQueueEntry, SubmissionQueueEntry};

/// Names one submitted admin command. It owns nothing and may be copied; once the completion has been taken it
/// names nothing any more. After a reset of the controller it names none of the commands that came later.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AdminHandle {
    id: CommandId,
    generation: Generation,
}

impl AdminHandle {
    /// The handle of the command with identifier `id` submitted in `generation`, for implementations of [`AdminPort`].
    #[must_use]
    pub const fn new(id: CommandId, generation: Generation) -> Self {
        Self { id, generation }
    }

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

/// One life of a controller behind an [`AdminPort`], from one disable to the next. Two that differ prove that the
/// controller was disabled in between: commands, queues and Controller Data Queues of the earlier one are gone.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Generation(u32);

impl Generation {
    /// The generation with this number, for implementations of [`AdminPort`]; the number has no other meaning.
    #[must_use]
    pub const fn new(number: u32) -> Self {
        Self(number)
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

/// A shared admin queue. No call blocks; all are bounded.
///
/// Implemented by this crate's admin queue; a host may implement it over a passthrough interface instead. Memory goes
/// back on its word: it reports a command as completed only when its controller has completed it.
pub trait AdminPort {
    /// Where command data lives.
    type Arena: DmaArena;

    /// The arena for command data and for Controller Data Queues of this controller.
    fn arena(&self) -> &Self::Arena;

    /// Memory page size in bytes (CC.MPS).
    fn page_size(&self) -> usize;

    /// Longest data transfer in bytes: what the controller (MDTS) and the port's own memory for PRP lists both allow.
    fn max_transfer(&self) -> usize;

    /// The present life of the controller. It changes when, and only when, the controller was disabled, so that it let
    /// go of every queue it had.
    fn generation(&self) -> Generation;

    /// Submits one command and rings the doorbell.
    ///
    /// # Errors
    /// [`SubmitError`], with the request given back whole.
    fn submit(
        &mut self,
        request: AdminRequest,
        now: Instant,
    ) -> Result<AdminHandle, (SubmitError, AdminRequest)>;

    /// Takes the completion of a command, once; `None` while it is outstanding or once it has been taken. A command of an
    /// earlier [generation](Self::generation) is [`Lost`](AdminOutcome::Lost), without its buffer, which went back when
    /// the controller was disabled.
    fn take(&mut self, handle: AdminHandle) -> Option<AdminCompletion>;

    /// Gives up interest in a command: its slot and buffer are freed when the device lets go of them.
    fn abandon(&mut self, handle: AdminHandle);

    /// Takes the oldest reported event that `filter` asks for. Events that nobody takes hold nothing up: a port keeps a
    /// bounded number of them.
    fn take_event(&mut self, filter: EventFilter) -> Option<AsynchronousEvent>;

    /// The earliest time at which a submitted command times out.
    fn next_deadline(&self) -> Option<Instant>;
}

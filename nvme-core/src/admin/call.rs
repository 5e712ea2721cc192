// SPDX-License-Identifier: MIT OR Apache-2.0
//! One admin command carried from submission to completion: the piece that step machines are made of.

use core::fmt;
use core::time::Duration;

use super::{AdminData, AdminHandle, AdminOutcome, AdminPort, AdminRequest, SubmitError};
use crate::dma::{self, CommandEnded, Direction, DmaArena, DmaError, DmaRegion, Pool};
use crate::time::Instant;
use crate::wire::{BusAddr, Command, CompletionQueueEntry, Effect, Status, StatusCode, SubmissionQueueEntry};

/// Why a command did not succeed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CallError {
    /// The controller completed it, not with success. The status tells whether it may have taken effect all the same.
    Status(Status),
    /// No completion came in time. Whether the command takes effect is unknown.
    TimedOut,
    /// The controller was reset or failed. Whether the command took effect is unknown.
    Lost,
    /// It was never submitted.
    NotSubmitted(SubmitError),
    /// It succeeded, but its data buffer holds fewer bytes than were to be copied out of it.
    ShortBuffer {
        /// Bytes asked for.
        wanted: usize,
        /// Bytes of the buffer.
        held: usize,
    },
}

impl CallError {
    /// Whether the command certainly had no effect and will have none: the controller refused it, with a status that
    /// says so ([`Effect::Refused`]), or never saw it. An error of any other kind leaves the effect unknown.
    #[must_use]
    pub const fn is_refusal(self) -> bool {
        match self {
            Self::Status(status) => matches!(status.effect(), Effect::Refused),
            Self::NotSubmitted(_) => true,
            Self::TimedOut | Self::Lost | Self::ShortBuffer { .. } => false,
        }
    }

    /// Whether the controller completed the command with exactly this status code.
    #[must_use]
    pub fn is_status(self, code: StatusCode) -> bool {
        matches!(self, Self::Status(status) if status.code() == code)
    }
}

impl core::error::Error for CallError {}

impl fmt::Display for CallError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Status(status) => write!(f, "completed with status {status}"),
            Self::TimedOut => {
                f.write_str("no completion in time, so its effect is unknown: reset the controller")
            }
            Self::Lost => f.write_str(
                "lost with a reset or failure of the controller, so its effect is unknown: look again",
            ),
            Self::NotSubmitted(error) => write!(f, "not submitted: {error}"),
            Self::ShortBuffer { wanted, held } => {
                write!(
                    f,
                    "succeeded, but {wanted} bytes were to be read from a buffer of {held}: lend a larger one"
                )
            }
        }
    }
}

/// A command that has come to its end.
#[must_use = "the data buffer is inside"]
#[derive(Debug)]
pub struct CallResult {
    /// The completion of a successful command, or why there is none.
    pub outcome: Result<CompletionQueueEntry, CallError>,
    /// The data buffer, if the command had one and it is free again.
    pub region: Option<DmaRegion>,
}

impl CallResult {
    /// Copies the first bytes of the data buffer out and gives the buffer back to `arena`, the one it came from.
    ///
    /// # Errors
    /// Why the command did not succeed, or [`CallError::ShortBuffer`] if it did and its buffer is shorter than `bytes`.
    pub fn read<A: DmaArena + ?Sized>(
        self,
        arena: &A,
        bytes: &mut [u8],
    ) -> Result<CompletionQueueEntry, CallError> {
        let (wanted, held) = (bytes.len(), self.region.as_ref().map_or(0, DmaRegion::len));
        let copied = match &self.region {
            Some(region) if self.outcome.is_ok() => {
                arena.acquire(region, 0..wanted.min(held));
                region.read(0, bytes).is_ok()
            }
            _ => wanted == 0,
        };
        let entry = self.finish(arena)?;
        if copied { Ok(entry) } else { Err(CallError::ShortBuffer { wanted, held }) }
    }

    /// Gives the data buffer back to `arena`, the one it came from.
    ///
    /// # Errors
    /// Why the command did not succeed.
    pub fn finish<A: DmaArena + ?Sized>(self, arena: &A) -> Result<CompletionQueueEntry, CallError> {
        match (self.region, &self.outcome) {
            // The port hands a buffer back only when the device has let go of it.
            (Some(region), Ok(_) | Err(CallError::Status(_))) => {
                dma::release(arena, region, &CommandEnded::new());
            }
            (Some(region), Err(_)) => dma::give_back(arena, region),
            (None, _) => {}
        }
        self.outcome
    }
}

/// At most one admin command on its way. Polling it submits the command, again while the port has no room, and
/// later takes the completion.
#[derive(Debug, Default)]
pub struct Call {
    state: State,
}

#[derive(Debug, Default)]
enum State {
    #[default]
    Idle,
    /// Not accepted yet; the instant is when waiting for room ends.
    Waiting(AdminRequest, Option<Instant>),
    Sent(AdminHandle),
}

impl Call {
    /// No command.
    #[must_use]
    pub const fn new() -> Self {
        Self { state: State::Idle }
    }

    /// Whether no command is on its way.
    #[must_use]
    pub const fn is_idle(&self) -> bool {
        matches!(self.state, State::Idle)
    }

    /// Whether the port has accepted the command.
    pub(crate) const fn is_sent(&self) -> bool {
        matches!(self.state, State::Sent(_))
    }

    /// Takes on a command; the next [`poll`](Self::poll) submits it. `timeout` counts from when the port accepts it,
    /// and the port has as long to accept it.
    ///
    /// # Errors
    /// The request, if one is already on its way.
    pub fn start(&mut self, request: AdminRequest) -> Result<(), AdminRequest> {
        match self.state {
            State::Idle => {
                self.state = State::Waiting(request, None);
                Ok(())
            }
            _ => Err(request),
        }
    }

    /// Goes on with the command: `Some` exactly once, when it has ended. Never blocks.
    pub fn poll<P: AdminPort + ?Sized>(&mut self, port: &mut P, now: Instant) -> Option<CallResult> {
        if matches!(self.state, State::Waiting(..))
            && let State::Waiting(request, until) = core::mem::take(&mut self.state)
        {
            let until = until.unwrap_or_else(|| now.after(request.timeout));
            match port.submit(request, now) {
                Ok(handle) => self.state = State::Sent(handle),
                Err((SubmitError::Busy, request)) if !now.has_reached(until) => {
                    self.state = State::Waiting(request, Some(until));
                    return None;
                }
                Err((error, request)) => {
                    let region = match request.data {
                        AdminData::Buffer { region, .. } => Some(region),
                        AdminData::None | AdminData::QueueBase(_) => None,
                    };
                    return Some(CallResult { outcome: Err(CallError::NotSubmitted(error)), region });
                }
            }
        }
        let State::Sent(handle) = self.state else { return None };
        let done = port.take(handle)?;
        self.state = State::Idle;
        let outcome = match done.outcome {
            AdminOutcome::Completed(entry) if entry.status().is_success() => Ok(entry),
            AdminOutcome::Completed(entry) => Err(CallError::Status(entry.status())),
            AdminOutcome::TimedOut => Err(CallError::TimedOut),
            AdminOutcome::Lost => Err(CallError::Lost),
        };
        Some(CallResult { outcome, region: done.region })
    }

    /// Gives up interest in the command; its effect is unknown then. The buffer goes back to the arena.
    pub fn abandon<P: AdminPort + ?Sized>(&mut self, port: &mut P) {
        match core::mem::take(&mut self.state) {
            State::Idle => {}
            State::Waiting(request, _) => {
                if let AdminData::Buffer { region, .. } = request.data {
                    dma::give_back(port.arena(), region);
                }
            }
            State::Sent(handle) => port.abandon(handle),
        }
    }
}

impl AdminRequest {
    /// A command without data.
    #[must_use]
    pub fn without_data(command: &impl Command, timeout: Duration) -> Self {
        Self { command: command.encode(), data: AdminData::None, timeout }
    }

    /// A command whose PRP1 is the base of a queue.
    #[must_use]
    pub fn with_queue(command: &impl Command, base: BusAddr, timeout: Duration) -> Self {
        Self { command: command.encode(), data: AdminData::QueueBase(base), timeout }
    }

    /// A command that receives `len` bytes into fresh zeroed memory of `arena`.
    ///
    /// # Errors
    /// [`DmaError`] if the arena has no such memory.
    pub fn receiving<A: DmaArena + ?Sized>(
        command: &impl Command,
        arena: &A,
        len: usize,
        timeout: Duration,
    ) -> Result<Self, DmaError> {
        Self::with_buffer(command.encode(), arena, len, Direction::FromDevice, timeout)
    }

    /// A command that sends `bytes`, copied into fresh memory of `arena`.
    ///
    /// # Errors
    /// [`DmaError`] if the arena has no such memory.
    pub fn sending<A: DmaArena + ?Sized>(
        command: &impl Command,
        arena: &A,
        bytes: &[u8],
        timeout: Duration,
    ) -> Result<Self, DmaError> {
        let request = Self::with_buffer(command.encode(), arena, bytes.len(), Direction::ToDevice, timeout)?;
        if let AdminData::Buffer { region, .. } = &request.data {
            region.write(0, bytes)?;
            arena.publish(region, 0..bytes.len());
        }
        Ok(request)
    }

    fn with_buffer<A: DmaArena + ?Sized>(
        command: SubmissionQueueEntry,
        arena: &A,
        len: usize,
        direction: Direction,
        timeout: Duration,
    ) -> Result<Self, DmaError> {
        let region = arena.allocate_scattered(Pool::Data, len, direction)?;
        Ok(Self { command, data: AdminData::Buffer { region, len }, timeout })
    }
}

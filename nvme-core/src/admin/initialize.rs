// SPDX-License-Identifier: MIT OR Apache-2.0
//! What a host asks a controller once it is ready. NVMe Base 2.1 §3.5.1, steps after CSTS.RDY.

use core::fmt;
use core::time::Duration;

use super::{AdminPort, AdminQueue, AdminRequest, Call, CallError, SubmitError};
use crate::dma::DmaArena;
use crate::register::RegisterIo;
use crate::time::{Instant, Step};
use crate::wire::admin::{Identify, IdentifyStructure};
use crate::wire::feature::{AsynchronousEventConfiguration, NumberOfQueues};
use crate::wire::identify::{ControllerIdentity, IdentifyError, IdentifyPage, PAGE_BYTES};
use crate::wire::{ControllerId, InvalidField};

/// How long a machine waits before it looks for a completion again.
const LOOK_AGAIN: Duration = Duration::from_millis(1);

/// Reads one Identify data structure.
#[derive(Debug)]
pub struct Inquiry {
    identify: Identify,
    timeout: Duration,
    call: Call,
}

impl Inquiry {
    /// Asks for what `identify` names.
    #[must_use]
    pub const fn new(identify: Identify, timeout: Duration) -> Self {
        Self { identify, timeout, call: Call::new() }
    }

    /// Goes on: `Some` once, when the structure has been copied into `page` or could not be had. Polled again, it asks
    /// again.
    pub fn poll<P: AdminPort + ?Sized>(
        &mut self,
        port: &mut P,
        page: &mut IdentifyPage,
        now: Instant,
    ) -> Option<Result<(), CallError>> {
        if self.call.is_idle() {
            match AdminRequest::receiving(&self.identify, port.arena(), PAGE_BYTES, self.timeout) {
                // The call is idle, so it takes the request.
                Ok(request) => drop(self.call.start(request)),
                Err(error) => {
                    let error = SubmitError::DataPointer(error.into());
                    return Some(Err(CallError::NotSubmitted(error)));
                }
            }
        }
        let ended = self.call.poll(port, now)?;
        Some(ended.read(port.arena(), page).map(|_| ()))
    }

    /// Gives the question up.
    pub fn abandon<P: AdminPort + ?Sized>(mut self, port: &mut P) {
        self.call.abandon(port);
    }
}

/// What a host wants of a controller.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InitializeOptions {
    /// I/O queues to ask for (feature 07h); none are asked for if `None`.
    pub io_queues: Option<NumberOfQueues>,
    /// Events to be told of (feature 0Bh), as far as the controller supports them (OAES). Controller Data Queue events
    /// need no bit.
    pub events: AsynchronousEventConfiguration,
    /// How long the controller may take for each command.
    pub timeout: Duration,
}

impl Default for InitializeOptions {
    /// No I/O queues, critical warnings and attached namespace changes, 30 seconds.
    fn default() -> Self {
        Self {
            io_queues: None,
            events: AsynchronousEventConfiguration::CRITICAL_WARNINGS
                .union(AsynchronousEventConfiguration::NAMESPACE_ATTRIBUTE),
            timeout: Duration::from_secs(30),
        }
    }
}

/// Why a controller could not be initialized.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum InitializeError {
    /// A command failed.
    Call {
        /// Which: "Identify Controller", "Number of Queues" or "Asynchronous Event Configuration".
        command: &'static str,
        /// How.
        error: CallError,
    },
    /// Identify Controller data that cannot be.
    Identity(IdentifyError),
    /// A number of queues that cannot be.
    Queues(InvalidField),
}

impl core::error::Error for InitializeError {}

impl fmt::Display for InitializeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Call { command, error } => write!(f, "{command}: {error}"),
            Self::Identity(error) => write!(f, "Identify Controller: {error}"),
            Self::Queues(field) => write!(f, "Number of Queues: {field}"),
        }
    }
}

/// What a host knows of a controller afterwards, besides the Identify Controller data in the page it lent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Initialized {
    /// The controller's identifier.
    pub controller: ControllerId,
    /// I/O queues that may be created, no more than were asked for.
    pub io_queues: Option<NumberOfQueues>,
    /// Event requests kept outstanding.
    pub event_requests: u16,
    /// The events the controller tells of.
    pub events: AsynchronousEventConfiguration,
    /// How long a shutdown may take (RTD3E); zero if not stated.
    pub shutdown_limit: Duration,
}

#[derive(Clone, Copy, Debug)]
enum Stage {
    Identify,
    Queues,
    Events,
    Done(Result<Initialized, InitializeError>),
}

/// Identifies a controller, takes over its transfer limit (MDTS), asks for I/O queues, chooses events and keeps event
/// requests outstanding. Poll it until it is [`Step::Done`], then [`finish`](Self::finish).
#[must_use = "poll it to the end, or nothing is asked"]
#[derive(Debug)]
pub struct Initialize {
    options: InitializeOptions,
    inquiry: Inquiry,
    call: Call,
    found: Initialized,
    stage: Stage,
}

impl Initialize {
    /// Nothing is sent yet.
    pub const fn new(options: &InitializeOptions) -> Self {
        Self {
            options: *options,
            inquiry: Inquiry::new(Identify::new(IdentifyStructure::CONTROLLER), options.timeout),
            call: Call::new(),
            found: Initialized {
                controller: ControllerId::new(0),
                io_queues: None,
                event_requests: 0,
                events: AsynchronousEventConfiguration::empty(),
                shutdown_limit: Duration::ZERO,
            },
            stage: Stage::Identify,
        }
    }

    /// Goes on. Does not poll the queue: whoever owns it does. When the machine is done, `page` holds the Identify
    /// Controller data.
    pub fn poll<R: RegisterIo + ?Sized, A: DmaArena>(
        &mut self,
        admin: &mut AdminQueue<'_, '_, R, A>,
        page: &mut IdentifyPage,
        now: Instant,
    ) -> Step {
        let wait = Step::Wait(now.after(LOOK_AGAIN));
        let next = match self.stage {
            Stage::Done(_) => return Step::Done,
            Stage::Identify => match self.inquiry.poll(admin, page, now) {
                None => return wait,
                Some(answer) => {
                    answer.map_err(failed("Identify Controller")).and_then(|()| self.identified(admin, page))
                }
            },
            Stage::Queues | Stage::Events => {
                if self.call.is_idle() {
                    // The call is idle, so it takes the request.
                    drop(self.call.start(self.request()));
                }
                match self.call.poll(admin, now) {
                    None => return wait,
                    Some(ended) => self.answered(ended.finish(admin.arena()).map(|entry| entry.dw0())),
                }
            }
        };
        self.stage = next.unwrap_or_else(|error| Stage::Done(Err(error)));
        if matches!(self.stage, Stage::Done(_)) { Step::Done } else { Step::Again }
    }

    fn request(&self) -> AdminRequest {
        let command = match (self.stage, self.options.io_queues) {
            (Stage::Queues, Some(queues)) => queues.to_set_features(),
            _ => self.found.events.to_set_features(),
        };
        AdminRequest::without_data(&command, self.options.timeout)
    }

    fn identified<R: RegisterIo + ?Sized, A: DmaArena>(
        &mut self,
        admin: &mut AdminQueue<'_, '_, R, A>,
        page: &IdentifyPage,
    ) -> Result<Stage, InitializeError> {
        let identity = ControllerIdentity::parse(page).map_err(InitializeError::Identity)?;
        let smallest_page = u64::from(admin.capabilities().min_page_size());
        if let Some(bytes) = identity.max_transfer_bytes(smallest_page) {
            admin.limit_transfer(usize::try_from(bytes).unwrap_or(usize::MAX));
        }
        // Bits 7:0 need no support, the others do.
        let supported = AsynchronousEventConfiguration::from_bits_retain(identity.optional_events | 0xFF);
        self.found.controller = identity.controller;
        self.found.shutdown_limit = Duration::from_micros(u64::from(identity.rtd3_entry));
        self.found.events = self.options.events.intersection(supported);
        self.found.event_requests = admin.request_events(identity.event_request_limit);
        Ok(if self.options.io_queues.is_some() { Stage::Queues } else { Stage::Events })
    }

    fn answered(&mut self, answer: Result<u32, CallError>) -> Result<Stage, InitializeError> {
        match self.stage {
            Stage::Queues => {
                let dword = answer.map_err(failed("Number of Queues"))?;
                let allocated = NumberOfQueues::from_dword(dword).map_err(InitializeError::Queues)?;
                self.found.io_queues = self.options.io_queues.map(|asked| asked.granted(allocated));
                Ok(Stage::Events)
            }
            _ => {
                answer.map_err(failed("Asynchronous Event Configuration"))?;
                Ok(Stage::Done(Ok(self.found)))
            }
        }
    }

    /// The end, once [`poll`](Self::poll) has said [`Step::Done`].
    ///
    /// # Errors
    /// The machine itself, if it is not done.
    pub fn finish(self) -> Result<Result<Initialized, InitializeError>, Self> {
        match self.stage {
            Stage::Done(result) => Ok(result),
            _ => Err(self),
        }
    }
}

fn failed(command: &'static str) -> impl Fn(CallError) -> InitializeError {
    move |error| InitializeError::Call { command, error }
}

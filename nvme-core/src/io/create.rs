// SPDX-License-Identifier: MIT OR Apache-2.0
//! Creation of an I/O queue pair: completion queue first. NVMe Base 2.1 §5.2.1 and §5.2.2.

use core::fmt;
use core::time::Duration;

use super::pair::Parts;
use super::{IoQueuePair, IoSlot, QuarantinedQueuePair};
use crate::admin::{AdminPort, AdminQueue, AdminRequest, Call, CallError, SubmitError};
use crate::dma::{self, Direction, DmaArena, DmaError, DmaRegion, LetGo, Pool, proof};
use crate::prp;
use crate::queue::{CompletionRing, SubmissionRing};
use crate::register::{Offset, RegisterIo};
use crate::time::{Instant, Step};
use crate::wire::admin::{
    CreateIoCompletionQueue, CreateIoSubmissionQueue, DeleteIoCompletionQueue, QueuePriority,
};
use crate::wire::register::{cq_head, sq_tail};
use crate::wire::{CompletionQueueEntry, QueueId, SubmissionQueueEntry};

/// How long a machine waits before it asks a busy admin queue again, or looks for a completion.
pub(super) const LOOK_AGAIN: Duration = Duration::from_millis(1);

/// The controller never had the queues, or has deleted them.
pub(super) struct QueuesGone;
impl proof::Sealed for QueuesGone {
    fn evidence(&self) -> dma::Evidence {
        dma::Evidence::QueuesDeleted
    }
}
impl LetGo for QueuesGone {}

/// What an I/O queue pair is to be like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IoQueueOptions {
    /// Identifier of both queues: 1 up to the number the controller granted (feature 07h).
    pub id: QueueId,
    /// Entries of the submission queue, 2 up to what the controller supports (CAP.MQES).
    pub submission_entries: u32,
    /// Entries of the completion queue, likewise. With fewer entries than commands outstanding, the controller waits for
    /// [`IoQueuePair::acknowledge`].
    pub completion_entries: u32,
    /// Interrupt vector of the completion queue; no interrupts if `None`.
    pub interrupt_vector: Option<u16>,
    /// Urgency under weighted round robin arbitration.
    pub priority: QueuePriority,
    /// NVM Set, zero for none.
    pub nvm_set: u16,
    /// Longest data transfer of a command in bytes; decides how much memory for PRP lists each slot gets. The controller's
    /// own limit (MDTS) holds as well.
    pub max_transfer: usize,
    /// How long the controller may take for each of the commands that create the queues.
    pub timeout: Duration,
}

impl IoQueueOptions {
    /// Both queues `id` with `entries` entries each, no interrupts, transfers of up to 2 MiB.
    #[must_use]
    pub const fn new(id: QueueId, entries: u32) -> Self {
        Self {
            id,
            submission_entries: entries,
            completion_entries: entries,
            interrupt_vector: None,
            priority: QueuePriority::Medium,
            nvm_set: 0,
            max_transfer: 2 << 20,
            timeout: Duration::from_secs(30),
        }
    }
}

/// Why a queue pair cannot be created as asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IoQueueError {
    /// Queue 0 is the admin queue pair.
    Id(QueueId),
    /// A queue has two entries at least, and at most what the controller supports.
    Entries {
        /// Entries asked for.
        entries: u32,
        /// Most the controller supports (CAP.MQES).
        max: u32,
    },
    /// A queue pair without slots takes no command.
    NoSlots,
    /// Commands without data only would be of no use.
    MaxTransfer,
    /// Memory for the queues could not be had.
    Dma(DmaError),
}

impl core::error::Error for IoQueueError {}

impl fmt::Display for IoQueueError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::Id(id) => write!(f, "queue {id} is not an I/O queue; choose 1 or higher"),
            Self::Entries { entries, max } => {
                write!(f, "a queue of {entries} entries is not possible; choose 2 to {max}")
            }
            Self::NoSlots => f.write_str("a queue pair without slots takes no command; lend at least one"),
            Self::MaxTransfer => f.write_str("the longest transfer is zero bytes; choose at least 4096"),
            Self::Dma(error) => write!(f, "no memory for the queue pair: {error}"),
        }
    }
}

/// How the creation of a queue pair ended.
pub enum CreateOutcome<'d, 's, R: ?Sized, A: DmaArena, T> {
    /// The pair is ready for commands.
    Created(IoQueuePair<'d, 's, R, A, T>),
    /// There is no pair; its memory has been released.
    Refused {
        /// Why.
        error: CallError,
        /// The slots lent.
        slots: &'s mut [IoSlot<T>],
    },
    /// Whether the controller has the queues is unknown, so their memory is kept.
    Quarantined {
        /// Why.
        error: CallError,
        /// The memory.
        pair: QuarantinedQueuePair<'d, 's, R, A, T>,
    },
}

#[derive(Clone, Copy, Debug)]
enum Stage {
    Completion,
    Submission,
    /// The submission queue was refused: the completion queue goes again.
    RollBack(CallError),
    Created,
    Refused(CallError),
    Unknown(CallError),
}

/// Creates an I/O queue pair. Poll it until it is [`Step::Done`], then [`finish`](Self::finish).
#[must_use = "poll it to the end, or nothing is created"]
pub struct CreateIoQueuePair<'d, 's, R: ?Sized, A: DmaArena, T> {
    pair: IoQueuePair<'d, 's, R, A, T>,
    options: IoQueueOptions,
    stage: Stage,
    call: Call,
}

fn allocate<A: DmaArena>(
    arena: &A,
    options: &IoQueueOptions,
    page_size: usize,
    lists: usize,
) -> Result<[DmaRegion; 3], DmaError> {
    let bytes = |entries: u32, size: usize| (entries as usize).saturating_mul(size);
    let queue = |bytes, direction| arena.allocate(Pool::Queues, bytes, page_size, direction);
    let submission =
        queue(bytes(options.submission_entries, size_of::<SubmissionQueueEntry>()), Direction::ToDevice)?;
    let completion = match queue(
        bytes(options.completion_entries, size_of::<CompletionQueueEntry>()),
        Direction::FromDevice,
    ) {
        Ok(region) => region,
        Err(error) => {
            dma::give_back(arena, submission);
            return Err(error);
        }
    };
    // A region has bytes, even where no command needs a list.
    match queue(lists.max(size_of::<u64>()), Direction::ToDevice) {
        Ok(lists) => Ok([submission, completion, lists]),
        Err(error) => {
            dma::give_back(arena, submission);
            dma::give_back(arena, completion);
            Err(error)
        }
    }
}

impl<'d, 's, R: RegisterIo + ?Sized, A: DmaArena, T> CreateIoQueuePair<'d, 's, R, A, T> {
    /// Prepares a pair on the controller of `admin`, whose commands live in `slots`: memory is set aside, nothing is sent
    /// yet.
    ///
    /// # Errors
    /// The reason and the slots.
    pub fn new(
        admin: &AdminQueue<'d, '_, R, A>,
        options: &IoQueueOptions,
        slots: &'s mut [IoSlot<T>],
    ) -> Result<Self, (IoQueueError, &'s mut [IoSlot<T>])> {
        let core = admin.core();
        let (max, stride) = (core.capabilities.max_queue_entries(), core.capabilities.doorbell_stride());
        let max_transfer = options.max_transfer.min(admin.data_limit());
        let check = || {
            for entries in [options.submission_entries, options.completion_entries] {
                if !(2..=max).contains(&entries) {
                    return Err(IoQueueError::Entries { entries, max });
                }
            }
            if slots.is_empty() {
                return Err(IoQueueError::NoSlots);
            }
            if max_transfer == 0 {
                return Err(IoQueueError::MaxTransfer);
            }
            match (sq_tail(options.id, stride), cq_head(options.id, stride)) {
                (Some(tail), Some(head)) if options.id != QueueId::ADMIN => {
                    Ok((Offset::new(tail), Offset::new(head)))
                }
                _ => Err(IoQueueError::Id(options.id)),
            }
        };
        let (tail, head) = match check() {
            Ok(doorbells) => doorbells,
            Err(error) => return Err((error, slots)),
        };
        let page_size = admin.page_size();
        let list_bytes = prp::list_pages_for_transfer(max_transfer, page_size).saturating_mul(page_size);
        let lists = list_bytes.saturating_mul(slots.len());
        let [submission, completion, lists] = match allocate(core.arena, options, page_size, lists) {
            Ok(memory) => memory,
            Err(error) => return Err((IoQueueError::Dma(error), slots)),
        };
        let submission = SubmissionRing::new(submission, options.submission_entries, tail);
        let completion = CompletionRing::new(completion, options.completion_entries, head, core.arena);
        let (submission, completion) = match (submission, completion) {
            (Ok(submission), Ok(completion)) => (submission, completion),
            (submission, completion) => {
                let mut error = DmaError::Empty;
                let mut free = |found: Result<DmaRegion, (DmaError, DmaRegion)>| {
                    let region = found.unwrap_or_else(|(reason, region)| {
                        error = reason;
                        region
                    });
                    dma::give_back(core.arena, region);
                };
                free(submission.map(SubmissionRing::into_memory));
                free(completion.map(CompletionRing::into_memory));
                dma::give_back(core.arena, lists);
                return Err((IoQueueError::Dma(error), slots));
            }
        };
        let pair = IoQueuePair::new(Parts {
            core,
            epoch: admin.epoch(),
            id: options.id,
            submission,
            completion,
            slots,
            lists,
            list_bytes,
            page_size,
            max_transfer,
        });
        Ok(Self { pair, options: *options, stage: Stage::Completion, call: Call::new() })
    }

    fn request(&self) -> Option<AdminRequest> {
        let (options, timeout) = (&self.options, self.options.timeout);
        Some(match self.stage {
            Stage::Completion => {
                let command = CreateIoCompletionQueue {
                    queue: options.id,
                    entries: options.completion_entries,
                    contiguous: true,
                    interrupts_enabled: options.interrupt_vector.is_some(),
                    interrupt_vector: options.interrupt_vector.unwrap_or(0),
                };
                AdminRequest::with_queue(&command, self.pair.completion().memory().bus(), timeout)
            }
            Stage::Submission => {
                let command = CreateIoSubmissionQueue {
                    queue: options.id,
                    entries: options.submission_entries,
                    contiguous: true,
                    priority: options.priority,
                    completion_queue: options.id,
                    nvm_set: options.nvm_set,
                };
                AdminRequest::with_queue(&command, self.pair.submission().memory().bus(), timeout)
            }
            Stage::RollBack(_) => {
                AdminRequest::without_data(&DeleteIoCompletionQueue { queue: options.id }, timeout)
            }
            Stage::Created | Stage::Refused(_) | Stage::Unknown(_) => return None,
        })
    }

    /// Goes on. Does not poll the admin queue: whoever owns it does.
    pub fn poll<P: AdminPort + ?Sized>(&mut self, port: &mut P, now: Instant) -> Step {
        if !self.call.is_sent() {
            let Some(request) = self.request() else { return Step::Done };
            if !self.pair.is_served_by(port) {
                // Another controller's queues, or later ones with the same identifiers, are none of its business.
                self.call.abandon(port);
                self.stage = Stage::Unknown(CallError::NotSubmitted(SubmitError::NotReady));
                return Step::Done;
            }
            // It takes the request if it has none yet.
            drop(self.call.start(request));
        }
        if !self.pair.is_reached_by(port) {
            return Step::Wait(now.after(LOOK_AGAIN));
        }
        let Some(ended) = self.call.poll(port, now) else { return Step::Wait(now.after(LOOK_AGAIN)) };
        self.stage = match (self.stage, ended.outcome) {
            (Stage::Completion, Ok(_)) => Stage::Submission,
            (Stage::Submission, Ok(_)) => Stage::Created,
            (Stage::RollBack(error), Ok(_)) => Stage::Refused(error),
            (Stage::Completion, Err(error)) if error.is_refusal() => Stage::Refused(error),
            (Stage::Submission, Err(error)) if error.is_refusal() => Stage::RollBack(error),
            (Stage::RollBack(error), Err(_)) | (_, Err(error)) => Stage::Unknown(error),
            (stage, Ok(_)) => stage,
        };
        if self.request().is_none() { Step::Done } else { Step::Again }
    }

    /// The end, once [`poll`](Self::poll) has said [`Step::Done`].
    ///
    /// # Errors
    /// The machine itself, if it is not done.
    pub fn finish(self) -> Result<CreateOutcome<'d, 's, R, A, T>, Self> {
        match self.stage {
            Stage::Created => Ok(CreateOutcome::Created(self.pair)),
            Stage::Refused(error) => {
                Ok(CreateOutcome::Refused { error, slots: self.pair.retire_proved(&QueuesGone) })
            }
            Stage::Unknown(error) => {
                Ok(CreateOutcome::Quarantined { error, pair: QuarantinedQueuePair(self.pair) })
            }
            Stage::Completion | Stage::Submission | Stage::RollBack(_) => Err(self),
        }
    }

    /// Gives up. The pair stays quarantined until the controller is disabled.
    pub fn abandon<P: AdminPort + ?Sized>(mut self, port: &mut P) -> QuarantinedQueuePair<'d, 's, R, A, T> {
        self.call.abandon(port);
        QuarantinedQueuePair(self.pair)
    }
}

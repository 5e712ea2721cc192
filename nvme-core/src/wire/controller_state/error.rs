// SPDX-License-Identifier: MIT OR Apache-2.0
//! What can be wrong with a Controller State image.

use core::fmt;

use crate::wire::{BusAddr, QueueId, StatusCode};

/// Which list of an image a queue stands in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum QueueKind {
    /// I/O submission queues.
    Submission,
    /// I/O completion queues.
    Completion,
}

impl fmt::Display for QueueKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Submission => "submission queue",
            Self::Completion => "completion queue",
        })
    }
}

/// Why an image is refused, or could not be built.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StateError {
    /// Fewer bytes than needed.
    Short {
        /// Bytes needed.
        needed: usize,
        /// Bytes there.
        found: usize,
    },
    /// The header announces more than the limit.
    TooLarge {
        /// Dwords of NVMe state (NVMECSS).
        nvme_dwords: u128,
        /// Dwords of the vendor part (VSS).
        vendor_dwords: u128,
        /// Most bytes the whole image may have.
        limit: usize,
    },
    /// Controller State structure version other than 0.
    HeaderVersion(u16),
    /// NVMe Controller State version other than 0.
    StateVersion(u16),
    /// The queue counts do not account for the bytes of the NVMe state.
    SizeDisagrees {
        /// Submission queues announced.
        submission_queues: u16,
        /// Completion queues announced.
        completion_queues: u16,
        /// Bytes of the NVMe state.
        bytes: usize,
    },
    /// There is an NVMe state but the command's version index says there is none.
    StateWithoutIndex,
    /// The version index names an NVMe state, but none is there.
    IndexWithoutState,
    /// There is a vendor part but the command's vendor index says there is none.
    VendorWithoutIndex,
    /// Reserved bits of the header (CSATTR or bytes 15:3) are set.
    ReservedHeader,
    /// Reserved bits of the NVMe state's header are set.
    ReservedStateHeader,
    /// Reserved bits of a queue's state are set.
    ReservedQueue(QueueKind, QueueId),
    /// More queues than the controller has.
    TooManyQueues {
        /// Which list.
        kind: QueueKind,
        /// Queues in the image.
        count: u16,
        /// Queues the controller has.
        limit: u16,
    },
    /// A queue identifier of 0 or above the controller's highest.
    QueueIdentifier(QueueKind, QueueId),
    /// Queue identifiers do not ascend.
    Order {
        /// Which list.
        kind: QueueKind,
        /// The identifier before.
        previous: QueueId,
        /// The identifier that should have been greater.
        queue: QueueId,
    },
    /// Fewer than 2 entries, or more than the controller supports.
    QueueSize {
        /// Which list.
        kind: QueueKind,
        /// The queue.
        queue: QueueId,
        /// Entries in the image.
        entries: u32,
        /// Most entries the controller supports.
        limit: u32,
    },
    /// A head that is no slot of the queue.
    Head {
        /// Which list.
        kind: QueueKind,
        /// The queue.
        queue: QueueId,
        /// The head.
        head: u16,
        /// Slots of the queue.
        entries: u32,
    },
    /// A tail that is no slot of the queue.
    Tail {
        /// Which list.
        kind: QueueKind,
        /// The queue.
        queue: QueueId,
        /// The tail.
        tail: u16,
        /// Slots of the queue.
        entries: u32,
    },
    /// A base address that is not aligned to the memory page size.
    Base {
        /// Which list.
        kind: QueueKind,
        /// The queue.
        queue: QueueId,
        /// The address.
        base: BusAddr,
    },
    /// A queue made of a PRP list where the controller requires contiguous ones (CAP.CQR).
    NotContiguous(QueueKind, QueueId),
    /// A submission queue whose completion queue is not in the image.
    NoCompletionQueue {
        /// The submission queue.
        queue: QueueId,
        /// The completion queue it names.
        completion_queue: QueueId,
    },
    /// An enabled interrupt with a vector the controller does not have.
    Vector {
        /// The completion queue.
        queue: QueueId,
        /// The vector.
        vector: u16,
        /// Vectors the controller has.
        vectors: u32,
    },
    /// A submission queue was added after a completion queue (building only).
    SubmissionAfterCompletion(QueueId),
    /// More than 65,535 queues of a kind (building only).
    CountOverflow(QueueKind),
}

impl StateError {
    /// The status a controller answers with: Not Enough Resources where only more of them would help, otherwise
    /// Invalid Field in Command. The specification names no code for a state it refuses.
    #[must_use]
    pub const fn status(&self) -> StatusCode {
        match self {
            Self::TooManyQueues { .. } | Self::TooLarge { .. } => StatusCode::NOT_ENOUGH_RESOURCES,
            _ => StatusCode::INVALID_FIELD,
        }
    }
}

impl fmt::Display for StateError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Short { needed, found } => {
                write!(f, "the state needs {needed} bytes and has {found}: read it to its end")
            }
            Self::TooLarge { nvme_dwords, vendor_dwords, limit } => write!(
                f,
                "{nvme_dwords} dwords of NVMe state and {vendor_dwords} of vendor state exceed the limit of {limit} bytes: raise it, or refuse the source"
            ),
            Self::HeaderVersion(version) => {
                write!(f, "controller state version {version} is unknown: only 0 is supported")
            }
            Self::StateVersion(version) => {
                write!(f, "NVMe controller state version {version} is unknown: only 0 is supported")
            }
            Self::SizeDisagrees { submission_queues, completion_queues, bytes } => write!(
                f,
                "{submission_queues} submission and {completion_queues} completion queues do not make {bytes} bytes: read it again"
            ),
            Self::IndexWithoutState => f.write_str(
                "the version index names an NVMe state, but the image has none: use version index 0",
            ),
            Self::StateWithoutIndex => f.write_str(
                "an NVMe state is there, but the version index is 0: use the index of its version",
            ),
            Self::VendorWithoutIndex => {
                f.write_str("a vendor part is there, but the vendor index is 0: use the index of its format")
            }
            Self::ReservedHeader => {
                f.write_str("reserved bits of the controller state header are set: they must be zero")
            }
            Self::ReservedStateHeader => {
                f.write_str("reserved bits of the NVMe state header are set: they must be zero")
            }
            Self::ReservedQueue(kind, queue) => {
                write!(f, "reserved bits of {kind} {queue} are set: they must be zero")
            }
            Self::TooManyQueues { kind, count, limit } => {
                write!(
                    f,
                    "{count} entries in the {kind} list, the controller has {limit}: choose one with more queues"
                )
            }
            Self::QueueIdentifier(kind, queue) => {
                write!(f, "{kind} {queue} is not an I/O queue of the controller: they start at 1")
            }
            Self::Order { kind, previous, queue } => {
                write!(f, "{kind} {queue} follows {previous}: identifiers must ascend")
            }
            Self::QueueSize { kind, queue, entries, limit } => {
                write!(f, "{kind} {queue} has {entries} entries, 2 to {limit} are supported")
            }
            Self::Head { kind, queue, head, entries } => {
                write!(f, "head {head} of {kind} {queue} is not below its {entries} entries")
            }
            Self::Tail { kind, queue, tail, entries } => {
                write!(f, "tail {tail} of {kind} {queue} is not below its {entries} entries")
            }
            Self::Base { kind, queue, base } => {
                write!(f, "base {base} of {kind} {queue} is not aligned to a memory page: align it")
            }
            Self::NotContiguous(kind, queue) => {
                write!(f, "{kind} {queue} is not contiguous, which the controller requires: create it so")
            }
            Self::NoCompletionQueue { queue, completion_queue } => {
                write!(
                    f,
                    "submission queue {queue} names completion queue {completion_queue}, which is not there: add that queue"
                )
            }
            Self::Vector { queue, vector, vectors } => write!(
                f,
                "completion queue {queue} interrupts through vector {vector}, the controller has {vectors}: choose one with more"
            ),
            Self::SubmissionAfterCompletion(queue) => {
                write!(f, "submission queue {queue} was added after completion queues: add it before them")
            }
            Self::CountOverflow(kind) => write!(f, "more than 65535 entries in the {kind} list: add no more"),
        }
    }
}

impl core::error::Error for StateError {}

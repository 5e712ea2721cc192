// SPDX-License-Identifier: MIT OR Apache-2.0
//! The queues of NVMe Controller State v0. NVMe Base 2.1 §5.1.17.1.3, I/O Submission and Completion Queue State.

use zerocopy::byteorder::little_endian::{U16, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use crate::wire::{BusAddr, QueueId};

pub(super) const CONTIGUOUS: u16 = 1;
pub(super) const SUBMISSION_RESERVED: u16 = !0x7;
const INTERRUPTS_ENABLED: u32 = 1 << 1;
pub(super) const SLOT_ZERO_PHASE: u32 = 1 << 2;
pub(super) const COMPLETION_RESERVED: u32 = 0xFFF8;

/// I/O Submission Queue State: 24 bytes.
#[repr(C)]
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned,
)]
pub(super) struct RawSubmissionQueueState {
    pub(super) prp1: U64,
    pub(super) qsize_z: U16,
    pub(super) qid: U16,
    pub(super) cqid: U16,
    pub(super) attributes: U16,
    pub(super) head: U16,
    pub(super) tail: U16,
    pub(super) reserved: U32,
}
static_assertions::const_assert_eq!(size_of::<RawSubmissionQueueState>(), 24);

/// I/O Completion Queue State: 24 bytes.
#[repr(C)]
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned,
)]
pub(super) struct RawCompletionQueueState {
    pub(super) prp1: U64,
    pub(super) qsize_z: U16,
    pub(super) qid: U16,
    pub(super) head: U16,
    pub(super) tail: U16,
    pub(super) attributes: U32,
    pub(super) reserved: U32,
}
static_assertions::const_assert_eq!(size_of::<RawCompletionQueueState>(), 24);

/// What the bit S0PT of a completion queue means to whoever wrote or reads an image.
///
/// Both readings agree unless the tail is at slot 0.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum StateDialect {
    /// The phase bit that slot 0 holds, as the specification says.
    #[default]
    Specification,
    /// The phase bit of the next entry to be posted, as one known controller model has it.
    NextPostPhase,
}

impl StateDialect {
    /// The phase bit of the next entry to post, from S0PT and the queue's tail.
    #[must_use]
    pub const fn phase_for_next_post(self, s0pt: bool, tail: u16) -> bool {
        match self {
            Self::Specification => s0pt != (tail == 0),
            Self::NextPostPhase => s0pt,
        }
    }

    /// S0PT, from the phase bit of the next entry to post and the queue's tail.
    #[must_use]
    pub const fn slot_zero_phase(self, next_phase: bool, tail: u16) -> bool {
        // Saving and restoring invert under the same condition, so they are the same function.
        self.phase_for_next_post(next_phase, tail)
    }
}

/// An I/O submission queue of an image.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SubmissionQueueState {
    /// Queue identifier.
    pub queue: QueueId,
    /// PRP1 of the command that created it: a bus address of the guest.
    pub base: BusAddr,
    /// Number of slots, 1 to 65,536; an image holds it zero-based.
    pub entries: u32,
    /// Its completion queue.
    pub completion_queue: QueueId,
    /// Physically contiguous: `base` is the queue rather than a PRP list.
    pub contiguous: bool,
    /// Priority (QPRIO), 0 urgent to 3 low; higher bits are dropped when building.
    pub priority: u8,
    /// Next slot the controller fetches.
    pub head: u16,
    /// Tail doorbell as last written.
    pub tail: u16,
}

impl SubmissionQueueState {
    pub(super) fn from_raw(raw: &RawSubmissionQueueState) -> Self {
        let attributes = raw.attributes.get();
        Self {
            queue: QueueId::new(raw.qid.get()),
            base: BusAddr::new(raw.prp1.get()),
            entries: u32::from(raw.qsize_z.get()).saturating_add(1),
            completion_queue: QueueId::new(raw.cqid.get()),
            contiguous: attributes & CONTIGUOUS != 0,
            priority: ((attributes >> 1) & 3) as u8,
            head: raw.head.get(),
            tail: raw.tail.get(),
        }
    }

    /// `None` if the number of entries does not fit.
    pub(super) fn to_raw(self) -> Option<RawSubmissionQueueState> {
        Some(RawSubmissionQueueState {
            prp1: U64::new(self.base.get()),
            qsize_z: zero_based(self.entries)?,
            qid: U16::new(self.queue.get()),
            cqid: U16::new(self.completion_queue.get()),
            attributes: U16::new((u16::from(self.priority & 3) << 1) | u16::from(self.contiguous)),
            head: U16::new(self.head),
            tail: U16::new(self.tail),
            reserved: U32::ZERO,
        })
    }
}

/// An I/O completion queue of an image.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CompletionQueueState {
    /// Queue identifier.
    pub queue: QueueId,
    /// PRP1 of the command that created it: a bus address of the guest.
    pub base: BusAddr,
    /// Number of slots, 1 to 65,536; an image holds it zero-based.
    pub entries: u32,
    /// Physically contiguous: `base` is the queue rather than a PRP list.
    pub contiguous: bool,
    /// Interrupts enabled (IEN).
    pub interrupts_enabled: bool,
    /// Interrupt vector (IV).
    pub vector: u16,
    /// Head doorbell as last written.
    pub head: u16,
    /// Next slot the controller posts into.
    pub tail: u16,
    /// Phase bit of the next entry to post; an image holds it as S0PT.
    pub next_phase: bool,
}

impl CompletionQueueState {
    pub(super) fn from_raw(raw: &RawCompletionQueueState, dialect: StateDialect) -> Self {
        let attributes = raw.attributes.get();
        let tail = raw.tail.get();
        Self {
            queue: QueueId::new(raw.qid.get()),
            base: BusAddr::new(raw.prp1.get()),
            entries: u32::from(raw.qsize_z.get()).saturating_add(1),
            contiguous: attributes & u32::from(CONTIGUOUS) != 0,
            interrupts_enabled: attributes & INTERRUPTS_ENABLED != 0,
            vector: (attributes >> 16) as u16,
            head: raw.head.get(),
            tail,
            next_phase: dialect.phase_for_next_post(attributes & SLOT_ZERO_PHASE != 0, tail),
        }
    }

    /// `None` if the number of entries does not fit.
    pub(super) fn to_raw(self, dialect: StateDialect) -> Option<RawCompletionQueueState> {
        let flag = |set: bool, bit: u32| if set { bit } else { 0 };
        let attributes = (u32::from(self.vector) << 16)
            | flag(self.contiguous, u32::from(CONTIGUOUS))
            | flag(self.interrupts_enabled, INTERRUPTS_ENABLED)
            | flag(dialect.slot_zero_phase(self.next_phase, self.tail), SLOT_ZERO_PHASE);
        Some(RawCompletionQueueState {
            prp1: U64::new(self.base.get()),
            qsize_z: zero_based(self.entries)?,
            qid: U16::new(self.queue.get()),
            head: U16::new(self.head),
            tail: U16::new(self.tail),
            attributes: U32::new(attributes),
            reserved: U32::ZERO,
        })
    }
}

fn zero_based(entries: u32) -> Option<U16> {
    entries.checked_sub(1).and_then(|z| u16::try_from(z).ok()).map(U16::new)
}

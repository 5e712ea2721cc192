// SPDX-License-Identifier: MIT OR Apache-2.0
//! Completion Queue Entry. NVMe Base 2.1 §4.2, Completion Queue Entry.

use zerocopy::byteorder::little_endian::{U16, U32};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use super::{CommandId, QueueId, Status};

/// Completion Queue Entry (CQE): 16 bytes, little-endian.
#[repr(C)]
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned,
)]
pub struct CompletionQueueEntry {
    dw0: U32,
    dw1: U32,
    sqhd: U16,
    sqid: U16,
    cid: U16,
    status_phase: U16,
}
static_assertions::const_assert_eq!(size_of::<CompletionQueueEntry>(), 16);

/// Completion Queue Entry.
pub type Cqe = CompletionQueueEntry;

impl CompletionQueueEntry {
    /// Builds an entry; the phase tag is added by [`with_phase`](Self::with_phase) when it is posted.
    #[must_use]
    pub const fn new(queue: QueueId, head: u16, command: CommandId, status: Status) -> Self {
        Self {
            dw0: U32::ZERO,
            dw1: U32::ZERO,
            sqhd: U16::new(head),
            sqid: U16::new(queue.get()),
            cid: U16::new(command.get()),
            status_phase: U16::new(status.bits() << 1),
        }
    }

    /// The entry with its two command-specific dwords.
    #[must_use]
    pub const fn with_result(mut self, dw0: u32, dw1: u32) -> Self {
        self.dw0 = U32::new(dw0);
        self.dw1 = U32::new(dw1);
        self
    }

    /// The entry with phase tag `phase`.
    #[must_use]
    pub const fn with_phase(mut self, phase: bool) -> Self {
        self.status_phase = U16::new((self.status_phase.get() & !1) | phase as u16);
        self
    }

    /// Command-specific dword 0.
    #[must_use]
    pub const fn dw0(&self) -> u32 {
        self.dw0.get()
    }

    /// Command-specific dword 1.
    #[must_use]
    pub const fn dw1(&self) -> u32 {
        self.dw1.get()
    }

    /// Submission queue head (SQHD) when the entry was made: a slot index.
    #[must_use]
    pub const fn submission_head(&self) -> u16 {
        self.sqhd.get()
    }

    /// The submission queue the command came from.
    #[must_use]
    pub const fn submission_queue(&self) -> QueueId {
        QueueId::new(self.sqid.get())
    }

    /// The command this entry completes.
    #[must_use]
    pub const fn command_id(&self) -> CommandId {
        CommandId::new(self.cid.get())
    }

    /// Phase tag.
    #[must_use]
    pub const fn phase(&self) -> bool {
        self.status_phase.get() & 1 == 1
    }

    /// Status without the phase tag.
    #[must_use]
    pub const fn status(&self) -> Status {
        Status::from_bits(self.status_phase.get() >> 1)
    }
}

// SPDX-License-Identifier: MIT OR Apache-2.0
//! Writing an image into lent memory.

use zerocopy::IntoBytes;
use zerocopy::byteorder::little_endian::{U16, U128};

use super::{
    CompletionQueueState, ControllerStateHeader, NvmeStateHeader, QueueKind, SUSPENDED, StateDialect,
    StateError, SubmissionQueueState,
};
use crate::wire::QueueId;

const STATE_HEADER_BYTES: usize = 8;
const QUEUE_BYTES: usize = 24;

/// Bytes of an image with an NVMe state of that many queues and a vendor part of `vendor` bytes, rounded up to a
/// dword; saturates.
#[must_use]
pub const fn image_bytes(submission_queues: u16, completion_queues: u16, vendor: usize) -> usize {
    let queues = (submission_queues as usize).saturating_add(completion_queues as usize);
    ControllerStateHeader::BYTES
        .saturating_add(STATE_HEADER_BYTES)
        .saturating_add(queues.saturating_mul(QUEUE_BYTES))
        .saturating_add(vendor.saturating_add(3) & !3)
}

/// Writes a Controller State image front to back: submission queues, completion queues, vendor part.
#[derive(Debug)]
pub struct ControllerStateBuilder<'a> {
    buffer: &'a mut [u8],
    at: usize,
    suspended: bool,
    dialect: StateDialect,
    has_state: bool,
    submission: u16,
    completion: u16,
    previous: QueueId,
}

impl<'a> ControllerStateBuilder<'a> {
    /// Starts an image with an NVMe Controller State v0, as yet without queues.
    ///
    /// # Errors
    /// The buffer does not hold both headers.
    pub fn new(buffer: &'a mut [u8], suspended: bool, dialect: StateDialect) -> Result<Self, StateError> {
        Self::start(buffer, suspended, dialect, true)
    }

    /// Starts an image without NVMe state (version index 0): only a vendor part can follow.
    ///
    /// # Errors
    /// The buffer does not hold the header.
    pub fn without_nvme_state(buffer: &'a mut [u8], suspended: bool) -> Result<Self, StateError> {
        Self::start(buffer, suspended, StateDialect::Specification, false)
    }

    fn start(
        buffer: &'a mut [u8],
        suspended: bool,
        dialect: StateDialect,
        has_state: bool,
    ) -> Result<Self, StateError> {
        let extra = if has_state { STATE_HEADER_BYTES } else { 0 };
        let at = ControllerStateHeader::BYTES.saturating_add(extra);
        if buffer.len() < at {
            return Err(StateError::Short { needed: at, found: buffer.len() });
        }
        let previous = QueueId::ADMIN;
        Ok(Self { buffer, at, suspended, dialect, has_state, submission: 0, completion: 0, previous })
    }

    /// Adds an I/O submission queue; all of them come before the completion queues, identifiers ascending.
    ///
    /// # Errors
    /// Out of order, a size that cannot be expressed, no NVMe state to add to, or no room; nothing is added then.
    pub fn submission_queue(&mut self, state: SubmissionQueueState) -> Result<(), StateError> {
        let kind = QueueKind::Submission;
        if self.completion != 0 {
            return Err(StateError::SubmissionAfterCompletion(state.queue));
        }
        self.check(kind, state.queue, self.previous)?;
        let raw = state.to_raw().ok_or(size_error(kind, state.queue, state.entries))?;
        let count = self.submission.checked_add(1).ok_or(StateError::CountOverflow(kind))?;
        self.write(raw.as_bytes())?;
        self.submission = count;
        self.previous = state.queue;
        Ok(())
    }

    /// Adds an I/O completion queue, identifiers ascending.
    ///
    /// # Errors
    /// Out of order, a size that cannot be expressed, no NVMe state to add to, or no room; nothing is added then.
    pub fn completion_queue(&mut self, state: CompletionQueueState) -> Result<(), StateError> {
        let kind = QueueKind::Completion;
        let previous = if self.completion == 0 { QueueId::ADMIN } else { self.previous };
        self.check(kind, state.queue, previous)?;
        let raw = state.to_raw(self.dialect).ok_or(size_error(kind, state.queue, state.entries))?;
        let count = self.completion.checked_add(1).ok_or(StateError::CountOverflow(kind))?;
        self.write(raw.as_bytes())?;
        self.completion = count;
        self.previous = state.queue;
        Ok(())
    }

    /// The memory that is left, for a vendor part to be written into from its start.
    pub fn vendor_area(&mut self) -> &mut [u8] {
        self.buffer.get_mut(self.at..).unwrap_or_default()
    }

    /// Ends the image, whose vendor part is the first `vendor` bytes of [`vendor_area`](Self::vendor_area), padded
    /// with zeroes to a dword. Returns the bytes of the whole image.
    ///
    /// # Errors
    /// The vendor part with its padding does not fit the buffer.
    pub fn finish(self, vendor: usize) -> Result<usize, StateError> {
        let found = self.buffer.len();
        let padded = vendor.saturating_add(3) & !3;
        let total = self.at.saturating_add(padded);
        let short = StateError::Short { needed: total, found };
        let padding = self.at.saturating_add(vendor)..total;
        self.buffer.get_mut(padding).ok_or(short)?.fill(0);
        let nvme = self.at.saturating_sub(ControllerStateHeader::BYTES);
        let header = ControllerStateHeader {
            csattr: if self.suspended { SUSPENDED } else { 0 },
            nvmecss: U128::new((nvme / 4) as u128),
            vss: U128::new((padded / 4) as u128),
            ..ControllerStateHeader::default()
        };
        let (head, body) = self.buffer.split_at_mut_checked(ControllerStateHeader::BYTES).ok_or(short)?;
        header.write_to(head).map_err(|_| short)?;
        if self.has_state {
            let state = NvmeStateHeader {
                niosq: U16::new(self.submission),
                niocq: U16::new(self.completion),
                ..NvmeStateHeader::default()
            };
            state.write_to_prefix(body).map_err(|_| short)?;
        }
        Ok(total)
    }

    fn check(&self, kind: QueueKind, queue: QueueId, previous: QueueId) -> Result<(), StateError> {
        if !self.has_state {
            Err(StateError::StateWithoutIndex)
        } else if queue == QueueId::ADMIN {
            Err(StateError::QueueIdentifier(kind, queue))
        } else if queue <= previous {
            Err(StateError::Order { kind, previous, queue })
        } else {
            Ok(())
        }
    }

    fn write(&mut self, bytes: &[u8]) -> Result<(), StateError> {
        let end = self.at.saturating_add(bytes.len());
        let found = self.buffer.len();
        let rest = self.buffer.get_mut(self.at..).and_then(|rest| rest.get_mut(..bytes.len()));
        let to = rest.ok_or(StateError::Short { needed: end, found })?;
        to.copy_from_slice(bytes);
        self.at = end;
        Ok(())
    }
}

const fn size_error(kind: QueueKind, queue: QueueId, entries: u32) -> StateError {
    StateError::QueueSize { kind, queue, entries, limit: 65_536 }
}

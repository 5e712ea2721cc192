// SPDX-License-Identifier: MIT OR Apache-2.0
//! Creation and deletion of I/O queues. NVMe Base 2.1 §5.2.1 to §5.2.4.

use crate::wire::command::{count_u16, high_u16, low_u16, zero_based_u16};
use crate::wire::{
    AdminOpcode, Command, InvalidField, QueueId, StatusCode, SubmissionQueueEntry, require_no_namespace,
    require_prp,
};

/// Create I/O Completion Queue. PRP1 is the queue's base, or its PRP list if it is not contiguous.
///
/// NVMe Base 2.1 §5.2.1, Create I/O Completion Queue command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CreateIoCompletionQueue {
    /// The new queue's identifier (QID), not zero.
    pub queue: QueueId,
    /// Number of entries, 2 to 65,536. What lies outside 1 to 65,536 is encoded as the nearest of these.
    pub entries: u32,
    /// Physically contiguous (PC): PRP1 is the base rather than a PRP list.
    pub contiguous: bool,
    /// Interrupts enabled (IEN).
    pub interrupts_enabled: bool,
    /// Interrupt vector (IV); without meaning if interrupts are not enabled.
    pub interrupt_vector: u16,
}

/// Urgency of a submission queue under weighted round robin arbitration (QPRIO).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum QueuePriority {
    /// 00b. Also the value where arbitration is plain round robin.
    #[default]
    Urgent,
    /// 01b.
    High,
    /// 10b.
    Medium,
    /// 11b.
    Low,
}

/// Create I/O Submission Queue. PRP1 is the queue's base, or its PRP list if it is not contiguous.
///
/// NVMe Base 2.1 §5.2.2, Create I/O Submission Queue command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CreateIoSubmissionQueue {
    /// The new queue's identifier (QID), not zero.
    pub queue: QueueId,
    /// Number of entries, 2 to 65,536. What lies outside 1 to 65,536 is encoded as the nearest of these.
    pub entries: u32,
    /// Physically contiguous (PC): PRP1 is the base rather than a PRP list.
    pub contiguous: bool,
    /// Urgency (QPRIO).
    pub priority: QueuePriority,
    /// The completion queue its completions go to (CQID), not zero.
    pub completion_queue: QueueId,
    /// NVM Set (NVMSETID), zero for none.
    pub nvm_set: u16,
}

/// Delete I/O Completion Queue. NVMe Base 2.1 §5.2.3, Delete I/O Completion Queue command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DeleteIoCompletionQueue {
    /// The queue to delete (QID), not zero.
    pub queue: QueueId,
}

/// Delete I/O Submission Queue: completes once each of the queue's commands is completed or aborted.
///
/// NVMe Base 2.1 §5.2.4, Delete I/O Submission Queue command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DeleteIoSubmissionQueue {
    /// The queue to delete (QID), not zero.
    pub queue: QueueId,
}

const fn io_queue(field: &'static str, dword: u8, value: u16) -> Result<QueueId, InvalidField> {
    match QueueId::new(value) {
        QueueId::ADMIN => Err(InvalidField::in_dword(field, dword, 0, value as u64)
            .with_status(StatusCode::INVALID_QUEUE_IDENTIFIER)),
        queue => Ok(queue),
    }
}

const fn queue_entries(cdw10: u32) -> Result<u32, InvalidField> {
    match count_u16(cdw10 >> 16) {
        1 => Err(InvalidField::in_dword("QSIZE", 10, 16, 0).with_status(StatusCode::INVALID_QUEUE_SIZE)),
        entries => Ok(entries),
    }
}

fn queue_dword(queue: QueueId, entries: u32) -> u32 {
    (zero_based_u16(entries) << 16) | u32::from(queue.get())
}

impl Command for CreateIoCompletionQueue {
    const OPCODE: u8 = AdminOpcode::CREATE_IO_COMPLETION_QUEUE.get();

    fn encode(&self) -> SubmissionQueueEntry {
        let cdw11 = (u32::from(self.interrupt_vector) << 16)
            | (u32::from(self.interrupts_enabled) << 1)
            | u32::from(self.contiguous);
        SubmissionQueueEntry::new(Self::OPCODE).with_dwords([
            queue_dword(self.queue, self.entries),
            cdw11,
            0,
            0,
            0,
            0,
        ])
    }

    /// # Errors
    /// Also Invalid Queue Identifier for QID 0 and Invalid Queue Size for QSIZE 0 (one entry).
    fn decode(entry: &SubmissionQueueEntry) -> Result<Self, InvalidField> {
        require_prp(entry)?;
        require_no_namespace(entry)?;
        let [cdw10, cdw11, ..] = entry.dwords();
        Ok(Self {
            queue: io_queue("QID", 10, low_u16(cdw10))?,
            entries: queue_entries(cdw10)?,
            contiguous: cdw11 & 1 != 0,
            interrupts_enabled: cdw11 & 2 != 0,
            interrupt_vector: high_u16(cdw11),
        })
    }
}

impl Command for CreateIoSubmissionQueue {
    const OPCODE: u8 = AdminOpcode::CREATE_IO_SUBMISSION_QUEUE.get();

    fn encode(&self) -> SubmissionQueueEntry {
        let priority = match self.priority {
            QueuePriority::Urgent => 0,
            QueuePriority::High => 1,
            QueuePriority::Medium => 2,
            QueuePriority::Low => 3,
        };
        let cdw11 =
            (u32::from(self.completion_queue.get()) << 16) | (priority << 1) | u32::from(self.contiguous);
        let cdw12 = u32::from(self.nvm_set);
        SubmissionQueueEntry::new(Self::OPCODE).with_dwords([
            queue_dword(self.queue, self.entries),
            cdw11,
            cdw12,
            0,
            0,
            0,
        ])
    }

    /// # Errors
    /// Also Invalid Queue Identifier for QID or CQID 0 and Invalid Queue Size for QSIZE 0 (one entry).
    fn decode(entry: &SubmissionQueueEntry) -> Result<Self, InvalidField> {
        require_prp(entry)?;
        require_no_namespace(entry)?;
        let [cdw10, cdw11, cdw12, ..] = entry.dwords();
        let completion_queue = match high_u16(cdw11) {
            0 => {
                return Err(InvalidField::in_dword("CQID", 11, 16, 0)
                    .with_status(StatusCode::INVALID_QUEUE_IDENTIFIER));
            }
            queue => QueueId::new(queue),
        };
        Ok(Self {
            queue: io_queue("QID", 10, low_u16(cdw10))?,
            entries: queue_entries(cdw10)?,
            contiguous: cdw11 & 1 != 0,
            priority: match (cdw11 >> 1) & 3 {
                0 => QueuePriority::Urgent,
                1 => QueuePriority::High,
                2 => QueuePriority::Medium,
                _ => QueuePriority::Low,
            },
            completion_queue,
            nvm_set: low_u16(cdw12),
        })
    }
}

macro_rules! delete_queue {
    ($name:ident, $opcode:expr) => {
        impl Command for $name {
            const OPCODE: u8 = $opcode.get();

            fn encode(&self) -> SubmissionQueueEntry {
                SubmissionQueueEntry::new(Self::OPCODE).with_dwords([
                    u32::from(self.queue.get()),
                    0,
                    0,
                    0,
                    0,
                    0,
                ])
            }

            /// # Errors
            /// Also Invalid Queue Identifier for QID 0.
            fn decode(entry: &SubmissionQueueEntry) -> Result<Self, InvalidField> {
                require_prp(entry)?;
                require_no_namespace(entry)?;
                let [cdw10, ..] = entry.dwords();
                Ok(Self { queue: io_queue("QID", 10, low_u16(cdw10))? })
            }
        }
    };
}

delete_queue!(DeleteIoCompletionQueue, AdminOpcode::DELETE_IO_COMPLETION_QUEUE);
delete_queue!(DeleteIoSubmissionQueue, AdminOpcode::DELETE_IO_SUBMISSION_QUEUE);

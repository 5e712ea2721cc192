// SPDX-License-Identifier: MIT OR Apache-2.0
//! Migration Receive: Get Controller State. NVMe Base 2.1 §5.1.16, Migration Receive command.

use nvme_core::wire::controller_state::{
    CompletionQueueState, ControllerStateBuilder, StateError, SubmissionQueueState,
};
use nvme_core::wire::migration::MigrationReceive;
use nvme_core::wire::{Command, InvalidField, QueueId, StatusCode, SubmissionQueueEntry};

use super::Run;
use super::send::STATE_VERSIONS;
use crate::controller::Controller;
use crate::host::{BlockStorage, HostMemory, Interrupts};
use crate::outcome::{Done, Outcome};
use crate::prp::DataPointer;
use crate::quirk::Quirks;
use crate::registers::Shutdown;
use crate::state_format::{AdminQueues, VendorState};
use crate::subsystem::Subsystem;

/// Zeroes behind a state.
static PADDING: [u8; 256] = [0; 256];

/// Queue identifiers and indices are below 65,536 everywhere.
fn narrow(value: u32) -> u16 {
    u16::try_from(value).unwrap_or(u16::MAX)
}

impl<M: HostMemory, S: BlockStorage, I: Interrupts> Subsystem<'_, M, S, I> {
    pub(crate) fn migration_receive(&mut self, index: usize, entry: &SubmissionQueueEntry) -> Outcome {
        let command = MigrationReceive::decode(entry)?;
        if command.uuid_index != 0 {
            return Err(InvalidField::in_dword("UIDX", 14, 0, u64::from(command.uuid_index)).into());
        }
        if command.version_index > STATE_VERSIONS {
            return Err(InvalidField::in_dword("CSVI", 10, 16, u64::from(command.version_index)).into());
        }
        if command.vendor_index > self.vendor_formats() {
            return Err(InvalidField::in_dword("CSUUIDI", 11, 16, u64::from(command.vendor_index)).into());
        }
        let target = self.migratable(command.controller, StatusCode::INVALID_CDQ)?;
        if command.data_bytes() > self.max_transfer() {
            return Err(InvalidField::in_dword("NUMDL", 15, 0, command.dwords.saturating_sub(1)).into());
        }
        let quirks = self.config.quirks;
        let controller = self.controllers.get(target).ok_or(StatusCode::INTERNAL_ERROR)?;
        let suspended = controller.target.run == Run::Suspended;
        let total = controller
            .build_state(self.scratch, quirks, command.version_index != 0, command.vendor_index != 0)
            .map_err(|_| StatusCode::INTERNAL_ERROR)?;
        self.charge(total as u64);
        if command.offset > total as u64 {
            return Err(InvalidField::in_dword("OL", 12, 0, command.offset).into());
        }
        let sender = self.controllers.get_mut(index).ok_or(StatusCode::INTERNAL_ERROR)?;
        let mut pointer = DataPointer::new(entry, command.data_bytes(), sender.registers.page_shift())?;
        let from = usize::try_from(command.offset).map_err(|_| StatusCode::INVALID_FIELD)?;
        let end = usize::try_from(command.offset.saturating_add(command.data_bytes()))
            .unwrap_or(usize::MAX)
            .min(total);
        let image = self.scratch.get(from..end).ok_or(StatusCode::INTERNAL_ERROR)?;
        pointer.write(&mut sender.dma, image)?;
        // What is asked for beyond the end of the data is undefined: a little of it is zeroed, and nothing is transferred
        // to the rest, which can be as long as the host wants.
        let rest = command.data_bytes().saturating_sub(image.len() as u64).min(PADDING.len() as u64);
        let padding = PADDING.get(..usize::try_from(rest).unwrap_or(0)).unwrap_or(&PADDING);
        pointer.write(&mut sender.dma, padding)?;
        let report = suspended && !quirks.contains(Quirks::SUSPENDED_NOT_REPORTED);
        Ok(Done::Result(MigrationReceive::result(report), 0))
    }
}

impl<M: HostMemory> Controller<'_, M> {
    /// Writes the controller's state to the start of `to`; returns its length.
    fn build_state(
        &self,
        to: &mut [u8],
        quirks: Quirks,
        with_queues: bool,
        with_vendor: bool,
    ) -> Result<usize, StateError> {
        let suspended = self.target.run == Run::Suspended;
        let mut builder = if with_queues {
            ControllerStateBuilder::new(to, suspended, quirks.dialect())?
        } else {
            ControllerStateBuilder::without_nvme_state(to, suspended)?
        };
        if with_queues {
            for (id, slot) in self.submission_queues.iter().enumerate().skip(1) {
                let (Some(queue), Ok(id)) = (&slot.0, u16::try_from(id)) else { continue };
                // Of an unusable queue nothing is fetched, here or there.
                let tail = if queue.broken { queue.head } else { queue.tail };
                builder.submission_queue(SubmissionQueueState {
                    queue: QueueId::new(id),
                    base: queue.memory.pointer(),
                    entries: queue.size,
                    completion_queue: QueueId::new(queue.completion_queue),
                    contiguous: queue.memory.is_contiguous(),
                    priority: queue.priority,
                    head: narrow(queue.head),
                    tail: narrow(tail),
                })?;
            }
            for (id, slot) in self.completion_queues.iter().enumerate().skip(1) {
                let (Some(queue), Ok(id)) = (&slot.0, u16::try_from(id)) else { continue };
                builder.completion_queue(CompletionQueueState {
                    queue: QueueId::new(id),
                    base: queue.memory.pointer(),
                    entries: queue.ring.size(),
                    contiguous: queue.memory.is_contiguous(),
                    interrupts_enabled: queue.interrupts_enabled,
                    vector: queue.vector,
                    head: narrow(queue.ring.head()),
                    tail: narrow(queue.ring.tail()),
                    next_phase: queue.ring.phase(),
                })?;
            }
        }
        let vendor = if with_vendor {
            let short = StateError::Short { needed: 0, found: 0 };
            self.vendor_state()
                .build(builder.vendor_area(), self.events.requests(), self.events.pending())
                .ok_or(short)?
        } else {
            0
        };
        builder.finish(vendor)
    }

    fn vendor_state(&self) -> VendorState {
        let registers = &self.registers;
        let admin = match (self.submission(0), self.completion(0)) {
            (Some(submission), Some(completion)) if registers.ready => AdminQueues {
                submission_head: narrow(submission.head),
                submission_tail: narrow(submission.tail),
                completion_head: narrow(completion.ring.head()),
                completion_tail: narrow(completion.ring.tail()),
                next_tag: completion.ring.phase(),
            },
            _ => AdminQueues::default(),
        };
        VendorState {
            ready: registers.ready,
            fatal: registers.fatal,
            shut_down: registers.shutdown == Shutdown::Complete,
            cc: registers.cc,
            aqa: registers.aqa,
            asq: registers.asq,
            acq: registers.acq,
            masked_vectors: registers.masked,
            admin,
            features: self.features,
            masked_events: self.events.masked(),
        }
    }
}

// SPDX-License-Identifier: MIT OR Apache-2.0
//! Commands of the admin queue. NVMe Base 2.1 §5.1.

mod abort;
mod features;
mod identify;
mod lba_status;
mod log_pages;
mod queues;
mod virtualization;

use nvme_core::wire::admin::{AsynchronousEventRequest, KeepAlive};
use nvme_core::wire::{AdminOpcode, Command, Fuse, StatusCode, SubmissionQueueEntry};

use crate::host::{BlockStorage, HostMemory, Interrupts};
use crate::outcome::{Done, Outcome, SUCCESS};
use crate::subsystem::Subsystem;

impl<M: HostMemory, S: BlockStorage, I: Interrupts> Subsystem<'_, M, S, I> {
    /// Whether the controller has the admin command with this opcode.
    pub(crate) fn supports_admin(&self, index: usize, opcode: AdminOpcode) -> bool {
        let Some(controller) = self.controllers.get(index) else { return false };
        let manager = controller.config.manager();
        match opcode {
            AdminOpcode::DELETE_IO_SUBMISSION_QUEUE
            | AdminOpcode::CREATE_IO_SUBMISSION_QUEUE
            | AdminOpcode::GET_LOG_PAGE
            | AdminOpcode::DELETE_IO_COMPLETION_QUEUE
            | AdminOpcode::CREATE_IO_COMPLETION_QUEUE
            | AdminOpcode::IDENTIFY
            | AdminOpcode::ABORT
            | AdminOpcode::SET_FEATURES
            | AdminOpcode::GET_FEATURES
            | AdminOpcode::ASYNCHRONOUS_EVENT_REQUEST
            | AdminOpcode::GET_LBA_STATUS => true,
            AdminOpcode::KEEP_ALIVE => self.config.keep_alive_granularity > 0,
            AdminOpcode::VIRTUALIZATION_MANAGEMENT => self.is_primary(index),
            AdminOpcode::CONTROLLER_DATA_QUEUE => manager.is_some_and(|limits| limits.track_user_data),
            AdminOpcode::TRACK_SEND => {
                manager.is_some_and(|limits| limits.track_user_data || limits.track_host_memory)
            }
            AdminOpcode::TRACK_RECEIVE => manager.is_some_and(|limits| limits.track_host_memory),
            AdminOpcode::MIGRATION_SEND | AdminOpcode::MIGRATION_RECEIVE => manager.is_some(),
            _ => false,
        }
    }

    /// Begins an admin command.
    pub(crate) fn execute_admin(&mut self, index: usize, entry: &SubmissionQueueEntry) -> Outcome {
        let opcode = AdminOpcode::new(entry.opcode());
        if !self.supports_admin(index, opcode) {
            return Err(StatusCode::INVALID_COMMAND_OPCODE.into());
        }
        if entry.fuse() != Fuse::Normal {
            return Err(StatusCode::INVALID_FIELD.into());
        }
        match opcode {
            AdminOpcode::DELETE_IO_SUBMISSION_QUEUE => self.delete_submission_queue(index, entry),
            AdminOpcode::CREATE_IO_SUBMISSION_QUEUE => self.create_submission_queue(index, entry),
            AdminOpcode::GET_LOG_PAGE => self.get_log_page(index, entry),
            AdminOpcode::DELETE_IO_COMPLETION_QUEUE => self.delete_completion_queue(index, entry),
            AdminOpcode::CREATE_IO_COMPLETION_QUEUE => self.create_completion_queue(index, entry),

            AdminOpcode::IDENTIFY => self.identify(index, entry),
            AdminOpcode::ABORT => self.abort(index, entry),
            AdminOpcode::SET_FEATURES => self.set_features(index, entry),
            AdminOpcode::GET_FEATURES => self.get_features(index, entry),
            AdminOpcode::ASYNCHRONOUS_EVENT_REQUEST => self.event_request(index, entry),
            AdminOpcode::KEEP_ALIVE => self.keep_alive(index, entry),
            AdminOpcode::VIRTUALIZATION_MANAGEMENT => self.virtualization_management(index, entry),
            AdminOpcode::CONTROLLER_DATA_QUEUE => self.controller_data_queue(index, entry),
            AdminOpcode::TRACK_SEND => self.track_send(index, entry),
            AdminOpcode::TRACK_RECEIVE => self.track_receive(index, entry),
            AdminOpcode::MIGRATION_SEND => self.migration_send(index, entry),
            AdminOpcode::MIGRATION_RECEIVE => self.migration_receive(index, entry),
            AdminOpcode::GET_LBA_STATUS => self.get_lba_status(index, entry),
            _ => Err(StatusCode::INVALID_COMMAND_OPCODE.into()),
        }
    }

    fn event_request(&mut self, index: usize, entry: &SubmissionQueueEntry) -> Outcome {
        AsynchronousEventRequest::decode(entry)?;
        let controller = self.controllers.get_mut(index).ok_or(StatusCode::INTERNAL_ERROR)?;
        if !controller.events.add_request(entry.command_id()) {
            return Err(StatusCode::AER_LIMIT_EXCEEDED.into());
        }
        controller.attention = true;
        Ok(Done::Outstanding)
    }

    fn keep_alive(&mut self, index: usize, entry: &SubmissionQueueEntry) -> Outcome {
        KeepAlive::decode(entry)?;
        self.restart_keep_alive(index);
        SUCCESS
    }

    pub(crate) fn restart_keep_alive(&mut self, index: usize) {
        let now = self.now;
        if let Some(controller) = self.controllers.get_mut(index) {
            controller.restart_keep_alive(now);
        }
    }
}

// SPDX-License-Identifier: MIT OR Apache-2.0
//! Write Zeroes and Write Uncorrectable. NVM Command Set 1.1 §3.3.8 and §3.3.7.

use nvme_core::wire::nvm::{WriteUncorrectable, WriteZeroes};
use nvme_core::wire::{Command, StatusCode, SubmissionQueueEntry};

use crate::host::{BlockStorage, HostMemory, Interrupts};
use crate::log::Change;
use crate::outcome::{Outcome, Refusal, SUCCESS};
use crate::subsystem::Subsystem;

impl<M: HostMemory, S: BlockStorage, I: Interrupts> Subsystem<'_, M, S, I> {
    pub(super) fn write_zeroes(&mut self, index: usize, entry: &SubmissionQueueEntry) -> Outcome {
        let command = WriteZeroes::decode(entry)?;
        let blocks = u64::from(command.blocks);
        let extent = self.extent(command.namespace, command.start, blocks, command.protection)?;
        if extent.bytes > self.size_limit(self.config.max_write_zeroes_shift) {
            return Err(Refusal::from(StatusCode::COMMAND_SIZE_LIMIT_EXCEEDED).at(command.start));
        }
        self.charge(extent.bytes);
        let namespace = self.namespaces.get_mut(extent.namespace).ok_or(StatusCode::INTERNAL_ERROR)?;
        let written = namespace.storage.write_zeroes(command.start, blocks, command.deallocate);
        let mut result = written.map_err(StatusCode::from);
        if result.is_ok() && self.is_durable(index, command.force_unit_access) {
            result = self.flush_namespace(extent.namespace);
        }
        let mut change = Change::written(command.namespace, command.start, blocks);
        change.deallocated = command.deallocate && result.is_ok();
        self.log_change(index, change);
        result.map_err(|code| Refusal::from(code).at(command.start))?;
        SUCCESS
    }

    pub(super) fn write_uncorrectable(&mut self, index: usize, entry: &SubmissionQueueEntry) -> Outcome {
        let command = WriteUncorrectable::decode(entry)?;
        let blocks = u64::from(command.blocks);
        let extent = self.extent(command.namespace, command.start, blocks, 0)?;
        if extent.bytes > self.size_limit(self.config.max_write_uncorrectable_shift) {
            return Err(extent.too_long());
        }
        self.charge(extent.bytes);
        let namespace = self.namespaces.get_mut(extent.namespace).ok_or(StatusCode::INTERNAL_ERROR)?;
        let marked = namespace.storage.set_uncorrectable(command.start, blocks);
        let mut result = marked.map_err(StatusCode::from);
        if result.is_ok() && self.is_durable(index, false) {
            result = self.flush_namespace(extent.namespace);
        }
        self.log_change(index, Change::written(command.namespace, command.start, blocks));
        result.map_err(|code| Refusal::from(code).at(command.start))?;
        SUCCESS
    }
}

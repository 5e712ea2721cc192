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
        let namespace = self.namespaces.get_mut(extent.namespace).ok_or(StatusCode::INTERNAL_ERROR)?;
        let mut result = namespace.storage.write_zeroes(command.start, blocks, command.deallocate);
        if result.is_ok() && command.force_unit_access {
            result = namespace.storage.flush();
        }
        let mut change = Change::written(command.namespace, command.start, blocks);
        change.deallocated = command.deallocate && result.is_ok();
        self.log_change(index, change);
        result.map_err(|error| Refusal::from(StatusCode::from(error)).at(command.start))?;
        SUCCESS
    }

    pub(super) fn write_uncorrectable(&mut self, index: usize, entry: &SubmissionQueueEntry) -> Outcome {
        let command = WriteUncorrectable::decode(entry)?;
        let blocks = u64::from(command.blocks);
        let extent = self.extent(command.namespace, command.start, blocks, 0)?;
        let namespace = self.namespaces.get_mut(extent.namespace).ok_or(StatusCode::INTERNAL_ERROR)?;
        let result = namespace.storage.set_uncorrectable(command.start, blocks);
        self.log_change(index, Change::written(command.namespace, command.start, blocks));
        result.map_err(|error| Refusal::from(StatusCode::from(error)).at(command.start))?;
        SUCCESS
    }
}

// SPDX-License-Identifier: MIT OR Apache-2.0
//! Dataset Management. NVM Command Set 1.1 §3.3.3, Dataset Management command.

use nvme_core::wire::nvm::DatasetManagement;
use nvme_core::wire::nvm_data::{DatasetRange, DatasetRangeData};
use nvme_core::wire::{Command, StatusCode, SubmissionQueueEntry};
use zerocopy::{FromZeros, IntoBytes};

use crate::host::{BlockStorage, HostMemory, Interrupts};
use crate::log::Change;
use crate::outcome::{Outcome, Refusal, SUCCESS};
use crate::prp::DataPointer;
use crate::quirk::Quirks;
use crate::subsystem::Subsystem;

const RANGE_BYTES: u64 = size_of::<DatasetRangeData>() as u64;

impl<M: HostMemory, S: BlockStorage, I: Interrupts> Subsystem<'_, M, S, I> {
    pub(super) fn dataset_management(&mut self, index: usize, entry: &SubmissionQueueEntry) -> Outcome {
        let command = DatasetManagement::decode(entry)?;
        let namespace = self.namespace_of(command.namespace)?;
        let page_shift =
            self.controllers.get(index).ok_or(StatusCode::INTERNAL_ERROR)?.registers.page_shift();
        let bytes = u64::from(command.ranges).saturating_mul(RANGE_BYTES);
        let mut check = DataPointer::new(entry, bytes, page_shift)?;
        let mut pointer = check.clone();
        // All ranges are checked before the first is acted on. The host may change the list meanwhile, so each is
        // checked again when it is used.
        for _ in 0..command.ranges {
            self.next_range(index, namespace, &mut check)?;
        }
        if !command.deallocate {
            // The other attributes are hints that ask for nothing.
            return SUCCESS;
        }
        let quirks = self.config.quirks;
        let mut pending: Option<Change> = None;
        for _ in 0..command.ranges {
            let range = self.next_range(index, namespace, &mut pointer)?;
            if range.blocks == 0 {
                continue;
            }
            let blocks = u64::from(range.blocks);
            let target = self.namespaces.get_mut(namespace).ok_or(StatusCode::INTERNAL_ERROR)?;
            let result = target.storage.write_zeroes(range.start, blocks, true);
            let mut change = Change::written(command.namespace, range.start, blocks);
            change.deallocated = result.is_ok() && !quirks.contains(Quirks::DATASET_LENGTH_ONE_BASED);
            if quirks.contains(Quirks::DATASET_LENGTH_ONE_BASED) {
                change.blocks = change.blocks.saturating_add(1);
            }
            if quirks.contains(Quirks::DATASET_RANGE_DROPPED) {
                // Merges ranges that follow each other and forgets what went before any other range.
                pending = Some(match pending {
                    Some(mut before) if before.end() == change.start.get() => {
                        before.blocks = before.blocks.saturating_add(change.blocks);
                        before
                    }
                    _ => change,
                });
            } else {
                self.log_change(index, change);
            }
            result.map_err(|error| Refusal::from(StatusCode::from(error)).at(range.start))?;
        }
        if let Some(change) = pending {
            self.log_change(index, change);
        }
        SUCCESS
    }

    fn next_range(
        &mut self,
        index: usize,
        namespace: usize,
        pointer: &mut DataPointer,
    ) -> Result<DatasetRange, Refusal> {
        let controller = self.controllers.get_mut(index).ok_or(StatusCode::INTERNAL_ERROR)?;
        let mut data = DatasetRangeData::new_zeroed();
        pointer.read(&mut controller.dma, data.as_mut_bytes())?;
        let range = DatasetRange::from(data);
        self.namespaces
            .get(namespace)
            .ok_or(StatusCode::INTERNAL_ERROR)?
            .check(range.start, u64::from(range.blocks))
            .map_err(|code| Refusal::from(code).at(range.start))?;
        Ok(range)
    }
}

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

/// What a range counts for at least, in bytes.
const RANGE_WORK: u64 = 4096;
const RANGE_BYTES: u64 = size_of::<DatasetRangeData>() as u64;

impl Change {
    /// Both changes as one, if no block lies between them: a host names neighbours in one command, and each entry of the
    /// log costs the manager's host a slot.
    fn joined(&self, next: &Self, quirks: Quirks) -> Option<Self> {
        let (start, end) = (self.start.get(), self.end());
        if quirks.contains(Quirks::DATASET_RANGE_DROPPED) {
            let follows = end == next.start.get();
            return follows.then(|| Self { blocks: self.blocks.saturating_add(next.blocks), ..*self });
        }
        let apart = end < next.start.get() || next.end() < start;
        if apart || self.deallocated != next.deallocated || quirks.contains(Quirks::DATASET_LENGTH_ONE_BASED)
        {
            return None;
        }
        let first = self.start.min(next.start);
        let blocks = end.max(next.end()).saturating_sub(first.get());
        Some(Self { start: first, blocks, ..*self })
    }
}

impl<M: HostMemory, S: BlockStorage, I: Interrupts> Subsystem<'_, M, S, I> {
    pub(super) fn dataset_management(&mut self, index: usize, entry: &SubmissionQueueEntry) -> Outcome {
        let command = DatasetManagement::decode(entry)?;
        let namespace = self.namespace_of(command.namespace)?;
        let page_shift =
            self.controllers.get(index).ok_or(StatusCode::INTERNAL_ERROR)?.registers.page_shift();
        let bytes = u64::from(command.ranges).saturating_mul(RANGE_BYTES);
        let mut check = DataPointer::new(entry, bytes, page_shift)?;
        let mut pointer = check.clone();
        let (most_ranges, most) = (self.config.max_dataset_ranges, self.dataset_blocks());
        let exceeded = Refusal::from(StatusCode::COMMAND_SIZE_LIMIT_EXCEEDED);
        if most_ranges != 0 && command.ranges > u16::from(most_ranges) {
            return Err(exceeded);
        }
        // All ranges are checked before the first is acted on. The host may change the list meanwhile, so each is
        // checked again when it is used.
        let mut left = most;
        for _ in 0..command.ranges {
            let range = self.next_range(index, namespace, &mut check)?;
            left = left.checked_sub(u64::from(range.blocks)).ok_or(exceeded.at(range.start))?;
        }
        if !command.deallocate {
            // The other attributes are hints that ask for nothing.
            return SUCCESS;
        }
        let quirks = self.config.quirks;
        let mut left = most;
        let mut pending: Option<Change> = None;
        let mut outcome = Ok(());
        for _ in 0..command.ranges {
            let range = match self.next_range(index, namespace, &mut pointer) {
                Ok(range) if range.blocks == 0 => continue,
                Ok(range) => range,
                Err(refusal) => {
                    outcome = Err(refusal);
                    break;
                }
            };
            let blocks = u64::from(range.blocks);
            let Some(rest) = left.checked_sub(blocks) else {
                outcome = Err(exceeded.at(range.start));
                break;
            };
            left = rest;
            let Some(target) = self.namespaces.get_mut(namespace) else { break };
            let bytes = blocks.saturating_mul(target.block_bytes() as u64);
            let result = target.storage.write_zeroes(range.start, blocks, true);
            self.charge(bytes.max(RANGE_WORK));
            let mut change = Change::written(command.namespace, range.start, blocks);
            change.deallocated = result.is_ok() && !quirks.contains(Quirks::DATASET_LENGTH_ONE_BASED);
            if quirks.contains(Quirks::DATASET_LENGTH_ONE_BASED) {
                change.blocks = change.blocks.saturating_add(1);
            }
            let before = pending.take();
            pending = Some(match before {
                None => change,
                Some(before) => match before.joined(&change, quirks) {
                    Some(both) => both,
                    None => {
                        // One model forgets what went before a range that does not follow.
                        if !quirks.contains(Quirks::DATASET_RANGE_DROPPED) {
                            self.log_change(index, before);
                        }
                        change
                    }
                },
            });
            if let Err(error) = result {
                outcome = Err(Refusal::from(StatusCode::from(error)).at(range.start));
                break;
            }
        }
        if outcome.is_ok() && self.is_durable(index, false) {
            outcome = self.flush_namespace(namespace).map_err(Refusal::from);
        }
        if let Some(change) = pending {
            self.log_change(index, change);
        }
        outcome?;
        SUCCESS
    }

    /// Blocks that one Dataset Management may name, whatever the namespace (DMSL).
    pub(crate) fn dataset_blocks(&self) -> u64 {
        let shift =
            self.namespaces.iter().map(|namespace| namespace.storage.block_shift()).max().unwrap_or(9);
        (self.config.max_dataset_bytes >> shift.min(63)).max(1)
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

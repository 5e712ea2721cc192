// SPDX-License-Identifier: MIT OR Apache-2.0
//! Copy, source range format 0. NVM Command Set 1.1 §3.3.2, Copy command.

use core::ops::Range;

use nvme_core::wire::nvm::Copy;
use nvme_core::wire::nvm_data::{CopySource, CopySourceData};
use nvme_core::wire::{Command, Lba, StatusCode, SubmissionQueueEntry};
use zerocopy::{FromZeros, IntoBytes};

use super::transfer::Extent;
use crate::host::{BlockStorage, HostMemory, Interrupts};
use crate::log::Change;
use crate::namespace::Namespace;
use crate::outcome::{Done, Outcome, Refusal};
use crate::prp::DataPointer;
use crate::quirk::Quirks;
use crate::subsystem::Subsystem;

const SOURCE_BYTES: u64 = size_of::<CopySourceData>() as u64;

impl<M: HostMemory, S: BlockStorage, I: Interrupts> Subsystem<'_, M, S, I> {
    pub(super) fn copy(&mut self, index: usize, entry: &SubmissionQueueEntry) -> Outcome {
        let command = Copy::decode(entry)?;
        let namespace = self.namespace_of(command.namespace)?;
        if command.descriptor_format != 0 {
            return Err(StatusCode::INVALID_FIELD.into());
        }
        if (command.protection_read | command.protection_write) & 0x7 != 0 {
            return Err(StatusCode::INVALID_PROTECTION_INFORMATION.into());
        }
        let page_shift =
            self.controllers.get(index).ok_or(StatusCode::INTERNAL_ERROR)?.registers.page_shift();
        let bytes = u64::from(command.ranges).saturating_mul(SOURCE_BYTES);
        let mut check = DataPointer::new(entry, bytes, page_shift)?;
        let mut pointer = check.clone();
        // Everything is checked before the first block is written, and again when it is used.
        let target = self.namespaces.get(namespace).ok_or(StatusCode::INTERNAL_ERROR)?;
        let limit = self.copy_blocks(target);
        let mut overlap = check.clone();
        let mut total = 0_u64;
        for _ in 0..command.ranges {
            total = total.saturating_add(u64::from(self.next_source(index, namespace, &mut check)?.blocks));
        }
        if total > u64::from(limit) {
            return Err(StatusCode::COMMAND_SIZE_LIMIT_EXCEEDED.into());
        }
        let destination = command.destination.get()..command.destination.get().saturating_add(total);
        for _ in 0..command.ranges {
            apart(&self.next_source(index, namespace, &mut overlap)?, &destination)?;
        }
        self.namespaces
            .get(namespace)
            .ok_or(StatusCode::INTERNAL_ERROR)?
            .check(command.destination, total)
            .map_err(|code| Refusal::from(code).at(command.destination))?;

        let mut touched = 0_u64;
        let mut result = Ok(());
        for number in 0..command.ranges {
            result = match self.next_source(index, namespace, &mut pointer) {
                Ok(source) if touched.saturating_add(u64::from(source.blocks)) <= total => {
                    let to = Lba::new(command.destination.get().saturating_add(touched));
                    apart(&source, &destination)
                        .and_then(|()| self.copy_range(namespace, &source, to, &mut touched))
                }
                Ok(_) => Err(StatusCode::INVALID_FIELD.into()),
                Err(refusal) => Err(refusal),
            };
            if let Err(refusal) = &mut result {
                // Dword 0 names the lowest source range that was not copied.
                refusal.result = (u32::from(number), 0);
                break;
            }
        }
        if result.is_ok() && self.is_durable(index, command.force_unit_access) {
            result = self.flush_namespace(namespace).map_err(Refusal::from);
        }
        if !self.config.quirks.contains(Quirks::COPY_NOT_LOGGED) {
            self.log_change(index, Change::written(command.namespace, command.destination, touched));
        }
        result?;
        Ok(Done::Result(u32::from(command.ranges), 0))
    }

    /// Blocks of one Copy in `namespace` at most (MCL).
    pub(crate) fn copy_blocks(&self, namespace: &Namespace<S>) -> u32 {
        let blocks = self.config.max_copy_bytes >> namespace.storage.block_shift().min(63);
        u32::try_from(blocks).unwrap_or(u32::MAX).max(1)
    }

    fn copy_range(
        &mut self,
        namespace: usize,
        source: &CopySource,
        to: Lba,
        touched: &mut u64,
    ) -> Result<(), Refusal> {
        let target = self.namespaces.get(namespace).ok_or(StatusCode::INTERNAL_ERROR)?;
        let blocks = u64::from(source.blocks);
        let block_bytes = target.block_bytes();
        let extent = Extent {
            namespace,
            start: source.start,
            blocks,
            block_bytes,
            bytes: blocks.saturating_mul(block_bytes as u64),
        };
        // Read and written.
        self.charge(extent.bytes.saturating_mul(2));
        let target = self.namespaces.get_mut(namespace).ok_or(StatusCode::INTERNAL_ERROR)?;
        let mut to = to.get();
        for (from, blocks, bytes) in extent.pieces(Self::blocks_at_once(&extent, self.scratch.len())) {
            let piece = self.scratch.get_mut(..bytes).ok_or(StatusCode::INTERNAL_ERROR)?;
            target
                .storage
                .read(from, piece)
                .map_err(|error| Refusal::from(StatusCode::from(error)).at(from))?;
            *touched = touched.saturating_add(blocks);
            let at = Lba::new(to);
            target.storage.write(at, piece).map_err(|error| Refusal::from(StatusCode::from(error)).at(at))?;
            to = to.saturating_add(blocks);
        }
        Ok(())
    }

    fn next_source(
        &mut self,
        index: usize,
        namespace: usize,
        pointer: &mut DataPointer,
    ) -> Result<CopySource, Refusal> {
        let controller = self.controllers.get_mut(index).ok_or(StatusCode::INTERNAL_ERROR)?;
        let mut data = CopySourceData::new_zeroed();
        pointer.read(&mut controller.dma, data.as_mut_bytes())?;
        let source = CopySource::from(data);
        let target = self.namespaces.get(namespace).ok_or(StatusCode::INTERNAL_ERROR)?;
        if u32::from(u16::MAX).min(self.copy_blocks(target)) < source.blocks {
            return Err(Refusal::from(StatusCode::COMMAND_SIZE_LIMIT_EXCEEDED).at(source.start));
        }
        target
            .check(source.start, u64::from(source.blocks))
            .map_err(|code| Refusal::from(code).at(source.start))?;
        Ok(source)
    }
}

/// Refuses a source range that shares a block with what is written: its content would depend on the order of writes.
fn apart(source: &CopySource, destination: &Range<u64>) -> Result<(), Refusal> {
    let start = source.start.get();
    if start < destination.end && destination.start < start.saturating_add(u64::from(source.blocks)) {
        return Err(Refusal::from(StatusCode::OVERLAPPING_IO_RANGE).at(source.start));
    }
    Ok(())
}

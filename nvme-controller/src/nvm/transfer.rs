// SPDX-License-Identifier: MIT OR Apache-2.0
//! Read, Write and Verify: blocks between the namespace and host memory, in pieces as large as the scratch memory.

use nvme_core::wire::nvm::{Read, Verify, Write};
use nvme_core::wire::{Command, InvalidField, Lba, NamespaceId, StatusCode, SubmissionQueueEntry};

use crate::host::{BlockStorage, HostMemory, Interrupts};
use crate::log::Change;
use crate::outcome::{Outcome, Refusal, SUCCESS};
use crate::prp::DataPointer;
use crate::subsystem::Subsystem;

/// A range of blocks that a command may use, in bytes and pieces.
#[derive(Clone, Copy, Debug)]
pub(super) struct Extent {
    /// Index of the namespace.
    pub(super) namespace: usize,
    pub(super) start: Lba,
    pub(super) blocks: u64,
    pub(super) block_bytes: usize,
    pub(super) bytes: u64,
}

impl Extent {
    /// The refusal of a command whose number of blocks is beyond what its controller takes.
    pub(super) fn too_long(&self) -> Refusal {
        InvalidField::in_dword("NLB", 12, 0, self.blocks.saturating_sub(1)).into()
    }

    /// The pieces of at most `blocks_at_once` blocks: first block, number of blocks and bytes of each.
    pub(super) fn pieces(self, blocks_at_once: u64) -> impl Iterator<Item = (Lba, u64, usize)> {
        let mut start = self.start.get();
        let mut left = self.blocks;
        let step = blocks_at_once.max(1);
        core::iter::from_fn(move || {
            let blocks = left.min(step);
            if blocks == 0 {
                return None;
            }
            let at = Lba::new(start);
            start = start.saturating_add(blocks);
            left = left.saturating_sub(blocks);
            let bytes = usize::try_from(blocks).unwrap_or(usize::MAX).saturating_mul(self.block_bytes);
            Some((at, blocks, bytes))
        })
    }
}

impl<M: HostMemory, S: BlockStorage, I: Interrupts> Subsystem<'_, M, S, I> {
    /// Checks a range of blocks that are transferred or only read.
    #[inline]
    pub(super) fn extent(
        &self,
        namespace: NamespaceId,
        start: Lba,
        blocks: u64,
        protection: u8,
    ) -> Result<Extent, Refusal> {
        let index = self.namespace_of(namespace)?;
        let found = self.namespaces.get(index).ok_or(StatusCode::INTERNAL_ERROR)?;
        // No format here has protection information, so nothing may ask for a check of it.
        if protection & 0x7 != 0 {
            return Err(StatusCode::INVALID_PROTECTION_INFORMATION.into());
        }
        found.check(start, blocks).map_err(|code| Refusal::from(code).at(start))?;
        let block_bytes = found.block_bytes();
        let bytes = blocks.saturating_mul(block_bytes as u64);
        Ok(Extent { namespace: index, start, blocks, block_bytes, bytes })
    }

    /// Blocks that fit into `bytes` of scratch memory.
    pub(super) fn blocks_at_once(extent: &Extent, bytes: usize) -> u64 {
        bytes.checked_div(extent.block_bytes).unwrap_or(1).max(1) as u64
    }

    /// The data pointer for the whole of `extent`.
    #[inline]
    pub(super) fn data_pointer(
        &mut self,
        index: usize,
        entry: &SubmissionQueueEntry,
        extent: &Extent,
    ) -> Result<DataPointer, Refusal> {
        if extent.bytes > self.max_transfer() {
            return Err(StatusCode::INVALID_FIELD.into());
        }
        self.charge(extent.bytes);
        let controller = self.controllers.get(index).ok_or(StatusCode::INTERNAL_ERROR)?;
        Ok(DataPointer::new(entry, extent.bytes, controller.registers.page_shift())?)
    }

    pub(super) fn read(&mut self, index: usize, entry: &SubmissionQueueEntry) -> Outcome {
        let command = Read::decode(entry)?;
        let extent =
            self.extent(command.namespace, command.start, u64::from(command.blocks), command.protection)?;
        let mut pointer = self.data_pointer(index, entry, &extent)?;
        let controller = self.controllers.get_mut(index).ok_or(StatusCode::INTERNAL_ERROR)?;
        let namespace = self.namespaces.get_mut(extent.namespace).ok_or(StatusCode::INTERNAL_ERROR)?;
        for (start, _, bytes) in extent.pieces(Self::blocks_at_once(&extent, self.scratch.len())) {
            let piece = self.scratch.get_mut(..bytes).ok_or(StatusCode::INTERNAL_ERROR)?;
            if let Err(error) = namespace.storage.read(start, piece) {
                controller.statistics.media_errors = controller.statistics.media_errors.saturating_add(1);
                return Err(Refusal::from(StatusCode::from(error)).at(start));
            }
            pointer.write(&mut controller.dma, piece)?;
        }
        controller.statistics.count_read(extent.bytes);
        SUCCESS
    }

    pub(super) fn write(&mut self, index: usize, entry: &SubmissionQueueEntry) -> Outcome {
        let command = Write::decode(entry)?;
        let extent =
            self.extent(command.namespace, command.start, u64::from(command.blocks), command.protection)?;
        let pointer = self.data_pointer(index, entry, &extent)?;
        let (touched, mut result) = self.write_pieces(index, pointer, &extent);
        if result.is_ok() && self.is_durable(index, command.force_unit_access) {
            result =
                self.flush_namespace(extent.namespace).map_err(|code| Refusal::from(code).at(extent.start));
        }
        // Even a command that fails may have changed blocks, and the log must cover them.
        self.log_change(index, Change::written(command.namespace, command.start, touched));
        result?;
        if let Some(controller) = self.controllers.get_mut(index) {
            controller.statistics.count_write(extent.bytes);
        }
        SUCCESS
    }

    /// Writes an extent; says how many blocks may have changed, whatever the result.
    fn write_pieces(
        &mut self,
        index: usize,
        mut pointer: DataPointer,
        extent: &Extent,
    ) -> (u64, Result<(), Refusal>) {
        let mut touched = 0_u64;
        let internal = Refusal::from(StatusCode::INTERNAL_ERROR);
        let Some(controller) = self.controllers.get_mut(index) else { return (0, Err(internal)) };
        let Some(namespace) = self.namespaces.get_mut(extent.namespace) else { return (0, Err(internal)) };
        for (start, blocks, bytes) in extent.pieces(Self::blocks_at_once(extent, self.scratch.len())) {
            let Some(piece) = self.scratch.get_mut(..bytes) else { return (touched, Err(internal)) };
            if let Err(code) = pointer.read(&mut controller.dma, piece) {
                return (touched, Err(code.into()));
            }
            touched = touched.saturating_add(blocks);
            if let Err(error) = namespace.storage.write(start, piece) {
                controller.statistics.media_errors = controller.statistics.media_errors.saturating_add(1);
                return (touched, Err(Refusal::from(StatusCode::from(error)).at(start)));
            }
        }
        (touched, Ok(()))
    }

    pub(super) fn verify(&mut self, entry: &SubmissionQueueEntry) -> Outcome {
        let command = Verify::decode(entry)?;
        let extent =
            self.extent(command.namespace, command.start, u64::from(command.blocks), command.protection)?;
        if extent.bytes > self.size_limit(self.config.max_verify_shift) {
            return Err(extent.too_long());
        }
        self.charge(extent.bytes);
        let namespace = self.namespaces.get_mut(extent.namespace).ok_or(StatusCode::INTERNAL_ERROR)?;
        for (start, _, bytes) in extent.pieces(Self::blocks_at_once(&extent, self.scratch.len())) {
            let piece = self.scratch.get_mut(..bytes).ok_or(StatusCode::INTERNAL_ERROR)?;
            namespace
                .storage
                .read(start, piece)
                .map_err(|error| Refusal::from(StatusCode::from(error)).at(start))?;
        }
        SUCCESS
    }
}

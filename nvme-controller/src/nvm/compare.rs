// SPDX-License-Identifier: MIT OR Apache-2.0
//! Compare. NVM Command Set 1.1 §3.3.1, Compare command.

use nvme_core::wire::nvm::Compare;
use nvme_core::wire::{Command, Lba, StatusCode, SubmissionQueueEntry};

use crate::host::{BlockStorage, HostMemory, Interrupts};
use crate::outcome::{Outcome, Refusal, SUCCESS};
use crate::subsystem::Subsystem;

impl<M: HostMemory, S: BlockStorage, I: Interrupts> Subsystem<'_, M, S, I> {
    pub(super) fn compare(&mut self, index: usize, entry: &SubmissionQueueEntry) -> Outcome {
        let command = Compare::decode(entry)?;
        let extent =
            self.extent(command.namespace, command.start, u64::from(command.blocks), command.protection)?;
        let mut pointer = self.data_pointer(index, entry, &extent)?;
        let controller = self.controllers.get_mut(index).ok_or(StatusCode::INTERNAL_ERROR)?;
        let namespace = self.namespaces.get_mut(extent.namespace).ok_or(StatusCode::INTERNAL_ERROR)?;
        let half = self.scratch.len() / 2;
        let (media, host) = self.scratch.split_at_mut_checked(half).ok_or(StatusCode::INTERNAL_ERROR)?;
        for (start, _, bytes) in extent.pieces(Self::blocks_at_once(&extent, half)) {
            let media = media.get_mut(..bytes).ok_or(StatusCode::INTERNAL_ERROR)?;
            let host = host.get_mut(..bytes).ok_or(StatusCode::INTERNAL_ERROR)?;
            namespace
                .storage
                .read(start, media)
                .map_err(|error| Refusal::from(StatusCode::from(error)).at(start))?;
            pointer.read(&mut controller.dma, host)?;
            if let Some(byte) = media.iter().zip(host.iter()).position(|(media, host)| media != host) {
                let blocks = byte.checked_div(extent.block_bytes).unwrap_or(0) as u64;
                let lba = Lba::new(start.get().saturating_add(blocks));
                return Err(Refusal::from(StatusCode::COMPARE_FAILURE).at(lba));
            }
        }
        controller.statistics.count_read(extent.bytes);
        SUCCESS
    }
}

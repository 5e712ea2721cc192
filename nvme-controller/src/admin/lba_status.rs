// SPDX-License-Identifier: MIT OR Apache-2.0
//! Get LBA Status. NVM Command Set 1.1 §4.2.1, Get LBA Status command.

use nvme_core::wire::admin::GetLbaStatus;
use nvme_core::wire::lba_status::{
    LbaStatusAction, LbaStatusBuilder, LbaStatusCondition, LbaStatusDescriptor,
};
use nvme_core::wire::{Command, InvalidField, Lba, StatusCode, SubmissionQueueEntry};

use crate::host::{BlockStorage, HostMemory, Interrupts};
use crate::outcome::{Outcome, Refusal, SUCCESS};
use crate::subsystem::Subsystem;

impl<M: HostMemory, S: BlockStorage, I: Interrupts> Subsystem<'_, M, S, I> {
    pub(super) fn get_lba_status(&mut self, index: usize, entry: &SubmissionQueueEntry) -> Outcome {
        let command = GetLbaStatus::decode(entry)?;
        let at = self.namespace_of(command.namespace)?;
        let namespace = self.namespaces.get(at).ok_or(StatusCode::INTERNAL_ERROR)?;
        let blocks = namespace.storage.blocks();
        let start = command.start.get();
        if start >= blocks {
            return Err(Refusal::from(StatusCode::LBA_OUT_OF_RANGE).at(command.start));
        }
        let end = match command.range_blocks {
            0 => blocks,
            range => start.saturating_add(u64::from(range)).min(blocks),
        };
        let room = usize::try_from(command.max_bytes()).unwrap_or(usize::MAX).min(self.scratch.len());
        let bytes = self.scratch.get_mut(..room).ok_or(StatusCode::INTERNAL_ERROR)?;
        let mut report = LbaStatusBuilder::new(bytes)
            .map_err(|_| Refusal::from(InvalidField::in_dword("MNDW", 12, 0, command.max_dwords)))?;
        let mut condition = LbaStatusCondition::COMPLETE;
        match command.action {
            LbaStatusAction::ALLOCATED => {
                let mut next = start;
                while let Some((from, len)) = next_allocated(&namespace.storage, next, end) {
                    let piece = u32::try_from(len).unwrap_or(u32::MAX);
                    if !report.push(LbaStatusDescriptor { start: Lba::new(from), blocks: piece, status: 0 }) {
                        condition = LbaStatusCondition::INCOMPLETE;
                        break;
                    }
                    next = from.saturating_add(u64::from(piece));
                }
            }
            // Blocks that turn out to be unreadable are not known in advance: there is nothing to report.
            LbaStatusAction::SCAN_UNTRACKED | LbaStatusAction::TRACKED => {}
            other => return Err(InvalidField::in_dword("ATYPE", 13, 24, u64::from(other.get())).into()),
        }
        let len = report.finish(condition) as u64;
        self.send_scratch(index, entry, command.max_bytes(), 0, len)?;
        SUCCESS
    }
}

/// The next run of allocated blocks between `from` and `end`.
fn next_allocated<S: BlockStorage>(storage: &S, from: u64, end: u64) -> Option<(u64, u64)> {
    let mut at = from;
    let mut found: Option<u64> = None;
    while at < end {
        let (allocated, len) = storage.allocated(Lba::new(at), end.saturating_sub(at));
        match (allocated, found) {
            (false, Some(start)) => return Some((start, at.saturating_sub(start))),
            (true, None) => found = Some(at),
            _ => {}
        }
        at = at.saturating_add(len.max(1)).min(end);
    }
    found.map(|start| (start, end.saturating_sub(start)))
}

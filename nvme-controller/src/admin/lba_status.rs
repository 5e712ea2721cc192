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

/// Questions to the storage in one command; a report that needs more is incomplete, and the host goes on behind it.
const MAX_STEPS: u32 = 1 << 14;
/// What each of them counts for, in bytes.
const STEP_WORK: u64 = 4096;

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
        if command.max_bytes() > self.max_transfer() {
            return Err(InvalidField::in_dword("MNDW", 12, 0, command.max_dwords).into());
        }
        let room = usize::try_from(command.max_bytes()).unwrap_or(usize::MAX).min(self.scratch.len());
        let bytes = self.scratch.get_mut(..room).ok_or(StatusCode::INTERNAL_ERROR)?;
        let mut report = LbaStatusBuilder::new(bytes)
            .map_err(|_| Refusal::from(InvalidField::in_dword("MNDW", 12, 0, command.max_dwords)))?;
        let mut condition = LbaStatusCondition::COMPLETE;
        let mut walk = Walk { next: start, end, steps: MAX_STEPS };
        match command.action {
            LbaStatusAction::ALLOCATED => {
                while let Some((from, len)) = walk.next_allocated(&namespace.storage) {
                    let piece = u32::try_from(len).unwrap_or(u32::MAX);
                    if !report.push(LbaStatusDescriptor { start: Lba::new(from), blocks: piece, status: 0 }) {
                        condition = LbaStatusCondition::INCOMPLETE;
                        break;
                    }
                    walk.next = from.saturating_add(u64::from(piece));
                }
                if walk.steps == 0 && walk.next < end {
                    condition = LbaStatusCondition::INCOMPLETE;
                }
            }
            // Blocks that turn out to be unreadable are not known in advance: there is nothing to report.
            LbaStatusAction::SCAN_UNTRACKED | LbaStatusAction::TRACKED => {}
            other => return Err(InvalidField::in_dword("ATYPE", 13, 24, u64::from(other.get())).into()),
        }
        let len = report.finish(condition) as u64;
        let steps = MAX_STEPS.saturating_sub(walk.steps);
        self.charge(u64::from(steps).saturating_mul(STEP_WORK));
        self.send_scratch(index, entry, command.max_bytes(), 0, len)?;
        SUCCESS
    }
}

/// A search for allocated blocks, in a bounded number of questions to the storage.
struct Walk {
    /// Where it goes on.
    next: u64,
    end: u64,
    /// Questions left.
    steps: u32,
}

impl Walk {
    /// The next run of allocated blocks, or the part of it that was found before the questions ran out.
    fn next_allocated<S: BlockStorage>(&mut self, storage: &S) -> Option<(u64, u64)> {
        let mut found: Option<u64> = None;
        while self.next < self.end && self.steps > 0 {
            self.steps = self.steps.saturating_sub(1);
            let (allocated, len) = storage.allocated(Lba::new(self.next), self.end.saturating_sub(self.next));
            match (allocated, found) {
                (false, Some(start)) => return Some((start, self.next.saturating_sub(start))),
                (true, None) => found = Some(self.next),
                _ => {}
            }
            self.next = self.next.saturating_add(len.max(1)).min(self.end);
        }
        found.map(|start| (start, self.next.saturating_sub(start)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::StorageError;

    /// Storage that answers for one block at a time; odd blocks are allocated, or all.
    struct Blockwise {
        all: bool,
    }

    impl BlockStorage for Blockwise {
        fn block_shift(&self) -> u8 {
            9
        }

        fn blocks(&self) -> u64 {
            1 << 40
        }

        fn read(&mut self, _: Lba, _: &mut [u8]) -> Result<(), StorageError> {
            Err(StorageError::Read)
        }

        fn write(&mut self, _: Lba, _: &[u8]) -> Result<(), StorageError> {
            Err(StorageError::Write)
        }

        fn write_zeroes(&mut self, _: Lba, _: u64, _: bool) -> Result<(), StorageError> {
            Err(StorageError::Write)
        }

        fn flush(&mut self) -> Result<(), StorageError> {
            Ok(())
        }

        fn allocated(&self, lba: Lba, _: u64) -> (bool, u64) {
            (self.all || lba.get() % 2 == 1, 1)
        }

        fn set_uncorrectable(&mut self, _: Lba, _: u64) -> Result<(), StorageError> {
            Err(StorageError::Write)
        }
    }

    #[test]
    fn a_search_ends_after_its_questions_wherever_it_is() {
        for (name, all, end, steps, expected, next) in [
            ("one run, cut", true, 1 << 40, 10, &[(3, 10)][..], 13),
            ("one run, to its end", true, 9, 10, &[(3, 6)], 9),
            ("many runs, cut in one", false, 1 << 40, 7, &[(3, 1), (5, 1), (7, 1)], 8),
            ("many runs, cut behind one", false, 1 << 40, 5, &[(3, 1), (5, 1)], 6),
            ("no question at all", true, 9, 0, &[], 3),
        ] {
            let storage = Blockwise { all };
            let mut walk = Walk { next: 3, end, steps };
            let found: std::vec::Vec<_> = core::iter::from_fn(|| walk.next_allocated(&storage)).collect();
            assert_eq!((&found[..], walk.next), (expected, next), "{name}");
        }
    }
}

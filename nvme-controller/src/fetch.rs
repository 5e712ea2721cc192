// SPDX-License-Identifier: MIT OR Apache-2.0
//! Fetching commands: round robin over the submission queues, and only with a completion slot to answer into.

use nvme_core::ring;
use nvme_core::wire::{Fuse, StatusCode, SubmissionQueueEntry};
use zerocopy::IntoBytes;

use crate::controller::Controller;
use crate::host::HostMemory;
use crate::migration::Run;
use crate::queue::SUBMISSION_SHIFT;
use crate::registers::Shutdown;

impl<M: HostMemory> Controller<'_, M> {
    /// Whether commands may be fetched at all.
    pub(crate) fn fetches(&self) -> bool {
        self.registers.ready
            && !self.registers.fatal
            && self.registers.shutdown == Shutdown::None
            && self.target.run == Run::Running
            && !self.cut_off
    }

    /// Fetches up to `budget` commands, one more if the last is the first half of a fused pair, and returns how many.
    pub(crate) fn fetch(&mut self, budget: u32) -> u32 {
        if !self.fetches() {
            return 0;
        }
        let burst = self.features.burst().unwrap_or(u32::MAX);
        let mut fetched = 0_u32;
        // Rounds go on while any queue yields something, so that a large budget is used up.
        loop {
            let before = fetched;
            for _ in 0..self.queues_end {
                // Queues may have gone since.
                let queue = if self.next_queue < self.queues_end { self.next_queue } else { 0 };
                self.next_queue = match queue.checked_add(1) {
                    Some(next) if next < self.queues_end => next,
                    _ => 0,
                };
                let left = budget.saturating_sub(fetched).min(burst);
                // A queue that cannot be read, or answered into, brings the whole controller down.
                if left == 0 || self.registers.fatal {
                    return fetched;
                }
                if let Ok(queue) = u16::try_from(queue) {
                    fetched = fetched.saturating_add(self.fetch_from(queue, left));
                }
            }
            if fetched == before {
                return fetched;
            }
        }
    }

    /// Fetches up to `limit` commands of one queue, both halves of a fused pair together.
    fn fetch_from(&mut self, queue: u16, limit: u32) -> u32 {
        let mut fetched = 0;
        while fetched < limit && !self.registers.fatal {
            let Some(submission) = self.submission(queue) else { break };
            let (pending, completion) = (submission.pending(), submission.completion_queue);
            if self.commands.room() < 2 {
                self.commands.close_gaps();
            }
            let (free, most) =
                self.completion(completion).map_or((0, 0), |queue| (queue.room(), queue.capacity()));
            let room = free.min(self.commands.room());
            if pending == 0 || room == 0 {
                break;
            }
            let Some(entry) = self.read_submission(queue) else {
                self.fail();
                break;
            };
            // Where two completions never fit, the first half goes alone and is refused for lack of the second.
            let pair = entry.fuse() == Fuse::First && pending >= 2 && most >= 2;
            if pair && room < 2 {
                break;
            }
            self.accept(queue, completion, &entry);
            fetched = fetched.saturating_add(1);
            if pair && !self.registers.fatal {
                let Some(second) = self.read_submission(queue) else {
                    self.fail();
                    break;
                };
                self.accept(queue, completion, &second);
                fetched = fetched.saturating_add(1);
            }
        }
        fetched
    }

    /// The entry at the head of a queue.
    fn read_submission(&mut self, queue: u16) -> Option<SubmissionQueueEntry> {
        let submission = self.submission_queues.get_mut(usize::from(queue))?.0.as_mut()?;
        let address = submission.memory.slot(&self.dma.memory, submission.head, SUBMISSION_SHIFT)?;
        let mut entry = SubmissionQueueEntry::default();
        self.dma.read(address, entry.as_mut_bytes()).ok()?;
        Some(entry)
    }

    /// Moves the head past a command that was read, and keeps it; a command identifier in use is refused at once.
    fn accept(&mut self, queue: u16, completion: u16, entry: &SubmissionQueueEntry) {
        if let Some(submission) = self.submission_mut(queue) {
            submission.head = ring::next(submission.head, submission.size);
        }
        if let Some(completion) = self.completion_mut(completion) {
            completion.reserve();
        }
        let command = entry.command_id();
        let taken = self.commands.find(queue, command).is_some()
            || (queue == 0 && self.events.requests().contains(&command));
        if taken {
            let refusal = StatusCode::COMMAND_ID_CONFLICT.into();
            self.finish(queue, entry, Err(refusal));
        } else {
            self.commands.push(queue, entry);
        }
    }
}

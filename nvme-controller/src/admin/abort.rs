// SPDX-License-Identifier: MIT OR Apache-2.0
//! Abort. NVMe Base 2.1 §5.1.1, Abort command.

use nvme_core::wire::admin::Abort;
use nvme_core::wire::{AdminOpcode, Command, StatusCode, SubmissionQueueEntry};

use crate::controller::Controller;
use crate::host::{BlockStorage, HostMemory, Interrupts};
use crate::in_flight::Stage;
use crate::outcome::{Done, Outcome};
use crate::subsystem::Subsystem;

impl<M: HostMemory> Controller<'_, M> {
    /// Abort commands under way.
    fn outstanding_aborts(&self) -> u32 {
        let mut count = 0_u32;
        let (mut at, end) = (self.commands.first(), self.commands.end());
        while at != end {
            if self.commands.get(at).is_some_and(|slot| {
                slot.stage != Stage::Free
                    && slot.queue == 0
                    && slot.entry.opcode() == AdminOpcode::ABORT.get()
            }) {
                count = count.saturating_add(1);
            }
            at = self.commands.after(at);
        }
        count
    }

    /// Ends the command that `abort` names if it has not begun; its completion is posted at once.
    fn try_abort(&mut self, abort: &Abort, own: &SubmissionQueueEntry) -> bool {
        let queue = abort.queue.get();
        if queue == 0
            && self.completion(0).is_some_and(|completion| completion.room() > 0)
            && self.events.abort_request(abort.command)
        {
            if let Some(completion) = self.completion_mut(0) {
                completion.reserve();
            }
            self.post(0, abort.command, StatusCode::ABORT_REQUESTED.status(), (0, 0));
            return true;
        }
        let Some(at) = self.commands.find(queue, abort.command) else { return false };
        let itself = queue == 0 && abort.command == own.command_id();
        match self.commands.get(at).copied() {
            // A completion that is held back is as good as not begun: the command ends now.
            Some(slot) if matches!(slot.stage, Stage::Fetched | Stage::Held(_)) && !itself => {
                self.commands.finish(at);
                self.finish(queue, &slot.entry, Err(StatusCode::ABORT_REQUESTED.into()));
                true
            }
            _ => false,
        }
    }
}

impl<M: HostMemory, S: BlockStorage, I: Interrupts> Subsystem<'_, M, S, I> {
    pub(super) fn abort(&mut self, index: usize, entry: &SubmissionQueueEntry) -> Outcome {
        let abort = Abort::decode(entry)?;
        let controller = self.controllers.get_mut(index).ok_or(StatusCode::INTERNAL_ERROR)?;
        if controller.outstanding_aborts() > u32::from(self.config.abort_limit) {
            return Err(StatusCode::ABORT_LIMIT_EXCEEDED.into());
        }
        Ok(Done::Result(Abort::result(controller.try_abort(&abort, entry)), 0))
    }
}

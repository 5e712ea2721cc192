// SPDX-License-Identifier: MIT OR Apache-2.0
//! Creating and deleting I/O queues. NVMe Base 2.1 §5.2.1 to §5.2.4.

use nvme_core::wire::admin::{
    CreateIoCompletionQueue, CreateIoSubmissionQueue, DeleteIoCompletionQueue, DeleteIoSubmissionQueue,
    QueuePriority,
};
use nvme_core::wire::{BusAddr, Command, StatusCode, SubmissionQueueEntry};

use crate::controller::Controller;
use crate::host::{BlockStorage, HostMemory, Interrupts};
use crate::in_flight::Stage;
use crate::outcome::{Outcome, SUCCESS};
use crate::pages::{PageList, QueueMemory};
use crate::queue::{COMPLETION_SHIFT, CompletionQueue, SUBMISSION_SHIFT, SubmissionQueue};
use crate::subsystem::Subsystem;

impl<M: HostMemory> Controller<'_, M> {
    /// The memory of a queue of `entries` slots at `pointer`, every page address checked.
    fn queue_memory(
        &self,
        pointer: BusAddr,
        contiguous: bool,
        contiguous_required: bool,
        entries: u32,
        slot_shift: u8,
    ) -> Result<QueueMemory, StatusCode> {
        if !contiguous && contiguous_required {
            return Err(StatusCode::INVALID_FIELD);
        }
        let page_shift = self.registers.page_shift();
        if pointer.page_offset(1_u64 << page_shift) != 0 {
            return Err(StatusCode::PRP_OFFSET_INVALID);
        }
        if contiguous {
            return Ok(QueueMemory::Contiguous(pointer));
        }
        let pages = PageList::pages_of(entries, slot_shift, page_shift);
        Ok(QueueMemory::List(PageList::walk(&self.dma.memory, pointer, pages, page_shift, false)?))
    }

    /// Ends every command of a submission queue that was fetched, with `code`.
    fn abort_queue(&mut self, queue: u16, code: StatusCode) {
        let (mut at, end) = (self.commands.first(), self.commands.end());
        while at != end {
            let next = self.commands.after(at);
            if let Some(slot) =
                self.commands.get(at).copied().filter(|slot| slot.queue == queue && slot.stage != Stage::Free)
            {
                self.commands.finish(at);
                self.finish(queue, &slot.entry, Err(code.into()));
            }
            at = next;
        }
    }
}

impl<M: HostMemory, S: BlockStorage, I: Interrupts> Subsystem<'_, M, S, I> {
    pub(super) fn create_completion_queue(&mut self, index: usize, entry: &SubmissionQueueEntry) -> Outcome {
        let command = CreateIoCompletionQueue::decode(entry)?;
        let controller = self.controllers.get_mut(index).ok_or(StatusCode::INTERNAL_ERROR)?;
        let queue = command.queue.get();
        if queue > controller.granted_queues().1 || controller.completion(queue).is_some() {
            return Err(StatusCode::INVALID_QUEUE_IDENTIFIER.into());
        }
        if command.entries > self.config.max_queue_entries
            || controller.registers.completion_entry_shift() != COMPLETION_SHIFT
        {
            return Err(StatusCode::INVALID_QUEUE_SIZE.into());
        }
        if command.interrupts_enabled && command.interrupt_vector >= controller.vectors() {
            return Err(StatusCode::INVALID_INTERRUPT_VECTOR.into());
        }
        if !command.contiguous {
            let page_shift = controller.registers.page_shift();
            let pages = PageList::pages_of(command.entries, COMPLETION_SHIFT, page_shift);
            self.work = self.work.saturating_add(PageList::work(pages));
        }
        let memory = controller.queue_memory(
            entry.prp1(),
            command.contiguous,
            self.config.contiguous_queues_required,
            command.entries,
            COMPLETION_SHIFT,
        )?;
        let vector = command.interrupts_enabled.then_some(command.interrupt_vector);
        if let Some(slot) = controller.completion_queues.get_mut(usize::from(queue)) {
            slot.0 = Some(CompletionQueue::new(memory, command.entries, vector));
        }
        SUCCESS
    }

    pub(super) fn create_submission_queue(&mut self, index: usize, entry: &SubmissionQueueEntry) -> Outcome {
        let command = CreateIoSubmissionQueue::decode(entry)?;
        let controller = self.controllers.get_mut(index).ok_or(StatusCode::INTERNAL_ERROR)?;
        let queue = command.queue.get();
        let (submission_queues, completion_queues) = controller.granted_queues();
        let completion = command.completion_queue.get();
        if queue > submission_queues
            || controller.submission(queue).is_some()
            || completion > completion_queues
        {
            return Err(StatusCode::INVALID_QUEUE_IDENTIFIER.into());
        }
        if controller.completion(completion).is_none() {
            return Err(StatusCode::COMPLETION_QUEUE_INVALID.into());
        }
        if command.entries > self.config.max_queue_entries
            || controller.registers.submission_entry_shift() != SUBMISSION_SHIFT
        {
            return Err(StatusCode::INVALID_QUEUE_SIZE.into());
        }
        if command.nvm_set != 0 {
            return Err(StatusCode::INVALID_FIELD.into());
        }
        if !command.contiguous {
            let page_shift = controller.registers.page_shift();
            let pages = PageList::pages_of(command.entries, SUBMISSION_SHIFT, page_shift);
            self.work = self.work.saturating_add(PageList::work(pages));
        }
        let memory = controller.queue_memory(
            entry.prp1(),
            command.contiguous,
            self.config.contiguous_queues_required,
            command.entries,
            SUBMISSION_SHIFT,
        )?;
        let priority = match command.priority {
            QueuePriority::Urgent => 0,
            QueuePriority::High => 1,
            QueuePriority::Medium => 2,
            QueuePriority::Low => 3,
        };
        controller.add_submission(queue, SubmissionQueue::new(memory, command.entries, completion, priority));
        SUCCESS
    }

    pub(super) fn delete_submission_queue(&mut self, index: usize, entry: &SubmissionQueueEntry) -> Outcome {
        let queue = DeleteIoSubmissionQueue::decode(entry)?.queue.get();
        let controller = self.controllers.get_mut(index).ok_or(StatusCode::INTERNAL_ERROR)?;
        if controller.submission(queue).is_none() {
            return Err(StatusCode::INVALID_QUEUE_IDENTIFIER.into());
        }
        controller.abort_queue(queue, StatusCode::ABORTED_SQ_DELETION);
        controller.remove_submission(queue);
        SUCCESS
    }

    pub(super) fn delete_completion_queue(&mut self, index: usize, entry: &SubmissionQueueEntry) -> Outcome {
        let queue = DeleteIoCompletionQueue::decode(entry)?.queue.get();
        let controller = self.controllers.get_mut(index).ok_or(StatusCode::INTERNAL_ERROR)?;
        let users = controller.completion(queue).map(|queue| queue.users);
        match users {
            None => Err(StatusCode::INVALID_QUEUE_IDENTIFIER.into()),
            Some(0) => {
                if let Some(slot) = controller.completion_queues.get_mut(usize::from(queue)) {
                    slot.0 = None;
                }
                SUCCESS
            }
            Some(_) => Err(StatusCode::INVALID_QUEUE_DELETION.into()),
        }
    }
}

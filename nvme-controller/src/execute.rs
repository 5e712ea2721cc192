// SPDX-License-Identifier: MIT OR Apache-2.0
//! Executing fetched commands, completing them, and what follows when a controller has nothing under way.

use nvme_core::wire::{AsynchronousEvent, Status, SubmissionQueueEntry};

use crate::controller::Controller;
use crate::error_log::ErrorEntry;
use crate::host::{BlockStorage, HostMemory, Interrupts};
use crate::in_flight::{CommandSlot, Stage};
use crate::migration::Run;
use crate::outcome::{Done, Outcome, Refusal, SUCCESS};
use crate::registers::Shutdown;
use crate::subsystem::Subsystem;

impl<M: HostMemory> Controller<'_, M> {
    /// Completes a command of `queue` that is no longer among the commands under way.
    pub(crate) fn finish(&mut self, queue: u16, entry: &SubmissionQueueEntry, outcome: Outcome) {
        let command = entry.command_id();
        match outcome {
            Ok(Done::Result(dw0, dw1)) => self.post(queue, command, Status::SUCCESS, (dw0, dw1)),
            Ok(Done::Waiting | Done::Dealt) => {}
            Ok(Done::Outstanding) => {
                // The request keeps no completion slot: an event takes one when it is reported.
                if let Some(completion) = self.completion_mut(0) {
                    completion.release();
                }
            }
            Err(refusal) => {
                self.note_error(queue, entry, &refusal);
                self.post(queue, command, refusal.status, refusal.result);
            }
        }
    }

    pub(crate) fn note_error(&mut self, queue: u16, entry: &SubmissionQueueEntry, refusal: &Refusal) {
        self.errors.push(ErrorEntry {
            count: 0,
            queue,
            command: entry.command_id(),
            status: refusal.status,
            location: refusal.location,
            lba: refusal.lba.get(),
            namespace: entry.namespace(),
            opcode: entry.opcode(),
        });
    }

    /// Takes a completion slot of the admin queue for an event and reports it.
    pub(crate) fn report(&mut self, event: AsynchronousEvent) {
        if let Some(command) = self.events.take_request() {
            if let Some(completion) = self.completion_mut(0) {
                completion.reserve();
            }
            self.post(0, command, Status::SUCCESS, event.result());
        }
    }

    /// Whether an event could be reported now.
    pub(crate) fn can_report(&self) -> bool {
        !self.events.requests().is_empty()
            && self.registers.ready
            && self.reaches_host()
            && self.target.run == Run::Running
            && self.completion(0).is_some_and(|queue| queue.room() > 0)
    }
}

impl<M: HostMemory, S: BlockStorage, I: Interrupts> Subsystem<'_, M, S, I> {
    /// Counts work towards the end of the turn.
    #[inline]
    pub(crate) fn charge(&mut self, bytes: u64) {
        self.work = self.work.saturating_add(bytes);
    }

    /// Begins or finishes up to `budget` commands of one controller, oldest first, until they have done the work of one
    /// turn.
    pub(crate) fn execute_at(&mut self, index: usize, budget: u32) -> u32 {
        let mut executed = 0;
        let Some(controller) = self.controllers.get(index) else { return 0 };
        if controller.registers.fatal {
            return 0;
        }
        let (mut at, end) = (controller.commands.first(), controller.commands.end());
        let most = self.config.turn_bytes.max(1);
        self.work = 0;
        while at != end && executed < budget && self.work < most {
            let Some(controller) = self.controllers.get(index) else { break };
            let next = controller.commands.after(at);
            let Some(slot) = controller.commands.get(at).copied() else { break };
            if slot.stage == Stage::Free {
                at = next;
                continue;
            }
            let outcome = if self.faults.is_none() {
                self.execute_one(index, at, &slot)
            } else {
                self.execute_with_faults(index, at, &slot)
            };
            let Some(controller) = self.controllers.get_mut(index) else { break };
            // A command may have reset its own controller, or brought it down.
            if controller.commands.get(at).is_none_or(|now| now.stage == Stage::Free) {
                executed = executed.saturating_add(1);
                if controller.commands.is_empty() {
                    break;
                }
                at = next;
                continue;
            }
            match outcome {
                Ok(Done::Waiting) => controller.commands.set_stage(at, Stage::Waiting),
                Ok(Done::Dealt) => {}
                _ => {
                    controller.commands.finish(at);
                    controller.finish(slot.queue, &slot.entry, outcome);
                    executed = executed.saturating_add(1);
                }
            }
            at = next;
        }
        executed
    }

    /// Begins the command at `at`, or goes on with it.
    #[inline]
    pub(crate) fn execute_one(&mut self, index: usize, at: u32, slot: &CommandSlot) -> Outcome {
        match slot.stage {
            Stage::Decided(Status::SUCCESS) => SUCCESS,
            Stage::Decided(status) => Err(status.into()),
            Stage::Fetched if slot.queue == 0 => self.execute_admin(index, &slot.entry),
            Stage::Fetched => self.execute_io(index, slot.queue, at, &slot.entry),
            Stage::Waiting => self.continue_admin(&slot.entry),
            Stage::Free | Stage::Held(_) => Ok(Done::Dealt),
        }
    }

    /// What a controller does once its commands have had their turn: ends a suspend or shutdown that waited for them
    /// and reports events. Returns how many things it did.
    pub(crate) fn settle(&mut self, index: usize) -> u32 {
        let mut done = 0_u32;
        let Some(controller) = self.controllers.get_mut(index) else { return 0 };
        if controller.cut_off {
            return 0;
        }
        if controller.commands.is_empty() {
            if controller.target.run == Run::Suspending {
                // Interrupts for what was completed last must go out before the controller falls silent.
                controller.signal(&self.interrupts);
                controller.target.run = Run::Suspended;
                done = done.saturating_add(1);
            }
            // A suspended controller goes on with it once it runs again.
            if let Shutdown::InProgress { flush } = controller.registers.shutdown
                && controller.target.run == Run::Running
            {
                let mut failed = false;
                if flush {
                    for namespace in self.namespaces.iter_mut() {
                        failed |= namespace.storage.flush().is_err();
                    }
                }
                controller.registers.shutdown = Shutdown::Complete;
                controller.registers.fatal |= failed;
                done = done.saturating_add(1);
            }
        }
        done = done.saturating_add(u32::from(self.settle_marker(index)));
        if self.controllers.get(index).is_some_and(|controller| controller.attention) {
            done = done.saturating_add(self.report_events(index));
        }
        done
    }

    /// Reports waiting events as long as there are requests and completion slots.
    fn report_events(&mut self, index: usize) -> u32 {
        let mut reported = 0_u32;
        let Some(controller) = self.controllers.get_mut(index) else { return 0 };
        controller.attention = false;
        while controller.can_report() {
            let event = match controller.events.take_event() {
                Some(event) => event,
                None => match Self::take_queue_event(self.data_queues, controller, index, &self.config) {
                    Some(event) => match &self.faults {
                        None => event,
                        Some(faults) => match faults.deviate_event(controller, event) {
                            Some(event) => event,
                            None => continue,
                        },
                    },
                    None => break,
                },
            };
            reported = reported.saturating_add(1);
            match &self.faults {
                None => controller.report(event),
                Some(faults) => {
                    let resets = faults.report(controller, index, event);
                    if resets {
                        self.reset_controller(index);
                        break;
                    }
                }
            }
        }
        reported
    }
}

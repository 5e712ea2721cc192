// SPDX-License-Identifier: MIT OR Apache-2.0
//! Where rules take hold of commands, events, registers and polls.

use core::num::NonZeroU16;

use nvme_core::wire::{AdminOpcode, AsynchronousEvent, CommandId, SubmissionQueueEntry};

use super::action::{FaultAction, Occasion};
use super::table::{FaultTable, Held, HeldSlot, Hit, Until};
use crate::controller::{Answer, Controller};
use crate::host::{BlockStorage, HostMemory, Interrupts};
use crate::in_flight::{CommandSlot, Mark, Stage};
use crate::outcome::{Done, Outcome};
use crate::queue::COMPLETION_SHIFT;
use crate::subsystem::Subsystem;

/// Polls after which a completion that waits for the next one of its queue is posted alone.
const REORDER_POLLS: u64 = 16;

/// One bit of the data of one command, to be inverted on its way.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Flip {
    to_host: bool,
    random: u64,
    /// Bits of the data before it, once the length of the data is known.
    ahead: Option<u64>,
    done: bool,
}

impl Flip {
    /// The next `len` bytes of `all` that are left pass in this direction: the byte and the bit to invert, if it is
    /// among them.
    #[cold]
    pub(crate) fn take(&mut self, to_host: bool, len: usize, all: u64) -> Option<(usize, u8)> {
        if self.done || to_host != self.to_host {
            return None;
        }
        let bits = (len as u64).saturating_mul(8);
        let ahead = match self.ahead {
            Some(ahead) => ahead,
            None => self.random.checked_rem(all.saturating_mul(8))?,
        };
        if ahead >= bits {
            self.ahead = Some(ahead.saturating_sub(bits));
            return None;
        }
        self.done = true;
        Some((usize::try_from(ahead >> 3).ok()?, 1 << (ahead & 7)))
    }
}

/// `value` with the bits of `xor` inverted.
const fn inverted(value: u16, xor: NonZeroU16) -> u16 {
    value ^ xor.get()
}

impl<M: HostMemory> Controller<'_, M> {
    /// Posts a completion that is wrong as `action` says. Returns whether it is.
    fn post_wrong(&mut self, mut answer: Answer, action: FaultAction) -> bool {
        let Some((queue, head)) = self.answered_by(answer.queue) else { return false };
        answer.head = head;
        match action {
            FaultAction::Duplicate => {
                self.post_answer(queue, &answer, false);
                let Some(completion) = self.completion_mut(queue).filter(|queue| queue.room() > 0) else {
                    return false;
                };
                completion.reserve();
                self.post_answer(queue, &answer, false);
            }
            FaultAction::WrongCommandId(xor) => {
                answer.command = CommandId::new(inverted(answer.command.get(), xor));
                self.post_answer(queue, &answer, false);
            }
            FaultAction::WrongQueueId(xor) => {
                answer.queue = inverted(answer.queue, xor);
                self.post_answer(queue, &answer, false);
            }
            FaultAction::WrongSqHead(xor) => {
                answer.head = inverted(answer.head, xor);
                self.post_answer(queue, &answer, false);
            }
            FaultAction::WrongPhase => self.post_answer(queue, &answer, true),
            FaultAction::EarlyPhase => {
                self.post_answer(queue, &answer, false);
                return self.tag_next(queue);
            }
            _ => {
                self.post_answer(queue, &answer, false);
                return false;
            }
        }
        true
    }

    /// Gives the next free slot of completion queue `queue` the tag of a new entry.
    fn tag_next(&mut self, queue: u16) -> bool {
        let Some(completion) =
            self.completion_queues.get_mut(usize::from(queue)).and_then(|slot| slot.0.as_mut())
        else {
            return false;
        };
        if completion.ring.is_full() {
            return false;
        }
        let (slot, phase) = (completion.ring.tail(), completion.ring.phase());
        let Some(address) = completion.memory.slot(&self.dma.memory, slot, COMPLETION_SHIFT) else {
            return false;
        };
        let mut entry = [0; 16];
        // An IOMMU may let the controller write its completion queues only; the rest of the entry is zero then.
        if self.dma.read(address, &mut entry).is_err() {
            entry = [0; 16];
        }
        let [.., tag, _] = &mut entry;
        *tag = (*tag & !1) | u8::from(phase);
        self.dma.write_entry(address, &entry).is_ok()
    }

    /// Gives up the completion slot reserved for a command of `queue`.
    fn forget_completion(&mut self, queue: u16) {
        if let Some((queue, _)) = self.answered_by(queue)
            && let Some(completion) = self.completion_mut(queue)
        {
            completion.release();
        }
        // An event may have waited for the room.
        self.attention = true;
    }

    fn is_free(&self, at: u32) -> bool {
        self.commands.get(at).is_none_or(|slot| slot.stage == Stage::Free)
    }
}

impl FaultTable<'_> {
    /// An event is reported with the oldest request, as rules about that request want it. Returns whether the
    /// controller at `index` then resets itself.
    pub(crate) fn report<M: HostMemory>(
        &self,
        controller: &mut Controller<'_, M>,
        index: usize,
        event: AsynchronousEvent,
    ) -> bool {
        let Some(command) = controller.events.requests().first().copied() else { return false };
        let entry =
            SubmissionQueueEntry::new(AdminOpcode::ASYNCHRONOUS_EVENT_REQUEST.get()).with_command_id(command);
        let Some(hit) = self.command(controller.id(), 0, &entry) else {
            controller.report(event);
            return false;
        };
        match hit.action {
            // A request waits as long as it takes, and carries no data.
            FaultAction::Delay(_)
            | FaultAction::Reorder
            | FaultAction::FlipToHost
            | FaultAction::FlipToDevice => controller.report(event),
            FaultAction::Fatal => {
                controller.fail();
                self.count(hit);
            }
            FaultAction::AllOnes(reads) => {
                controller.cut_off = true;
                self.cut_off(hit, index, reads);
            }
            FaultAction::Reset => {
                controller.report(event);
                self.count(hit);
                return true;
            }
            FaultAction::Drop => {
                let _ = controller.events.take_request();
                self.count(hit);
            }
            action => {
                let _ = controller.events.take_request();
                if let Some(completion) = controller.completion_mut(0) {
                    completion.reserve();
                }
                let (status, result) = match action {
                    FaultAction::Status(status) => (status, (0, 0)),
                    _ => (nvme_core::wire::Status::SUCCESS, event.result()),
                };
                let answer = Answer { queue: 0, head: 0, command, status, result };
                if controller.post_wrong(answer, action) || matches!(action, FaultAction::Status(_)) {
                    self.count(hit);
                }
            }
        }
        false
    }

    /// An event of a data queue of `controller`, as rules about such events want it; `None` if it is lost.
    pub(crate) fn deviate_event<M: HostMemory>(
        &self,
        controller: &mut Controller<'_, M>,
        mut event: AsynchronousEvent,
    ) -> Option<AsynchronousEvent> {
        let Some(hit) = self.occasion(controller.id(), Occasion::Event) else { return Some(event) };
        match hit.action {
            FaultAction::CdqEventLost => {
                self.count(hit);
                return None;
            }
            // An event that waits already is not raised again.
            FaultAction::CdqEventDuplicated if !controller.raise(event) => return Some(event),
            FaultAction::CdqEventUnknown(xor) => event.parameter ^= u32::from(xor.get()),
            _ => {}
        }
        self.count(hit);
        Some(event)
    }

    /// The host has enabled `controller`, which became ready.
    pub(crate) fn enabled<M: HostMemory>(&self, controller: &mut Controller<'_, M>) {
        let Some(hit) = self.occasion(controller.id(), Occasion::Enable) else { return };
        controller.ready_in = match hit.action {
            FaultAction::NeverReady => Some(u32::MAX),
            // The largest number stands for never.
            FaultAction::LateReady(polls) => Some(polls.get().min(u32::MAX.saturating_sub(1))),
            _ => None,
        };
        if controller.ready_in.is_some() {
            controller.registers.ready = false;
            self.count(hit);
        }
    }

    /// Drops writes that were to come for the host of the controller at `index`.
    pub(crate) fn forget_writes(&mut self, index: usize) {
        for slot in self.held.iter_mut() {
            if matches!(slot.0, Some(Held::Write { owner, .. }) if owner == index) {
                slot.0 = None;
            }
        }
    }
}

impl<'s, M: HostMemory, S: BlockStorage, I: Interrupts> Subsystem<'s, M, S, I> {
    /// Lets controllers misbehave by the rules of `faults`, in place of any rules before. Completions that those held
    /// back are posted with the next poll.
    pub fn set_faults(&mut self, faults: FaultTable<'s>) {
        self.clear_faults();
        self.faults = Some(faults);
    }

    /// Lets controllers behave, and gives the rules back. Completions that they held back are posted, and a controller
    /// that was not reached or not ready is.
    pub fn clear_faults(&mut self) -> Option<FaultTable<'s>> {
        let mut faults = self.faults.take()?;
        for controller in self.controllers.iter_mut() {
            controller.cut_off = false;
            if controller.ready_in.take().is_some() {
                controller.registers.ready = true;
            }
            let (mut at, end) = (controller.commands.first(), controller.commands.end());
            while at != end {
                let next = controller.commands.after(at);
                // The rules of a later table have not been asked about it.
                controller.commands.set_mark(at, Mark::Unasked);
                if let Some(CommandSlot { stage: Stage::Held(held), queue, entry, .. }) =
                    controller.commands.get(at).copied()
                    && let Some(Held::Completion { outcome, .. }) = faults.take_held(held)
                {
                    controller.commands.finish(at);
                    controller.finish(queue, &entry, outcome);
                }
                at = next;
            }
        }
        faults.held.fill(HeldSlot(None));
        Some(faults)
    }

    /// The rules in force and what they have counted.
    #[must_use]
    pub const fn faults(&self) -> Option<&FaultTable<'s>> {
        self.faults.as_ref()
    }

    /// Notes which controllers are not reached.
    #[cold]
    pub(crate) fn note_cut_off(&mut self) {
        let Some(faults) = &self.faults else { return };
        for (index, controller) in self.controllers.iter_mut().enumerate() {
            controller.cut_off = faults.is_cut_off(index);
        }
    }

    /// One poll more: what became due happens. Returns whether something is still to become due.
    #[cold]
    pub(crate) fn poll_faults(&mut self) -> bool {
        self.note_cut_off();
        let mut pending = false;
        for controller in self.controllers.iter_mut().filter(|controller| !controller.cut_off) {
            match controller.ready_in {
                None | Some(u32::MAX) => {}
                Some(0 | 1) => {
                    controller.ready_in = None;
                    controller.registers.ready = true;
                }
                Some(left) => {
                    controller.ready_in = Some(left.saturating_sub(1));
                    pending = true;
                }
            }
        }
        let Some(faults) = &mut self.faults else { return pending };
        faults.polls = faults.polls.saturating_add(1);
        for slot in faults.held.iter_mut() {
            let Some(Held::Write { owner, address, len, bytes, at_poll, .. }) = slot.0 else { continue };
            if faults.polls < at_poll {
                pending = true;
                continue;
            }
            slot.0 = None;
            if let Some(controller) = self.controllers.get_mut(owner)
                && let Some(bytes) = bytes.get(..usize::from(len))
            {
                // Memory that is gone takes nothing; nobody is told.
                let _ = controller.dma.write_entry(address, bytes);
            }
        }
        pending
    }

    /// Begins the command at `at` or goes on with it, as the rules want it.
    #[cold]
    pub(crate) fn execute_with_faults(&mut self, index: usize, at: u32, slot: &CommandSlot) -> Outcome {
        let (Some(faults), Some(controller)) = (&mut self.faults, self.controllers.get_mut(index)) else {
            return Ok(Done::Dealt);
        };
        if controller.cut_off {
            return Ok(Done::Dealt);
        }
        let request = slot.queue == 0 && slot.entry.opcode() == AdminOpcode::ASYNCHRONOUS_EVENT_REQUEST.get();
        let hit = match (slot.stage, slot.mark) {
            (Stage::Held(held), _) => return self.continue_held(index, slot.queue, held),
            (_, Mark::Rule(rule)) => faults.action(rule).map(|action| Hit { rule, action, random: 0 }),
            (Stage::Fetched | Stage::Decided(_), Mark::Unasked) if !request => {
                controller.commands.set_mark(at, Mark::Asked);
                faults.command(controller.id(), slot.queue, &slot.entry)
            }
            _ => None,
        };
        let Some(hit) = hit else { return self.execute_one(index, at, slot) };
        match hit.action {
            FaultAction::Status(status) => {
                faults.count(hit);
                if !status.is_success() {
                    return Err(status.into());
                }
                // With whatever else the status says: More and the retry delay do not make a failure of it.
                controller.commands.finish(at);
                let command = slot.entry.command_id();
                let answer = Answer { queue: slot.queue, head: 0, command, status, result: (0, 0) };
                controller.post_wrong(answer, hit.action);
                return Ok(Done::Dealt);
            }
            FaultAction::Fatal => {
                faults.count(hit);
                controller.fail();
                return Ok(Done::Dealt);
            }
            FaultAction::AllOnes(reads) => {
                faults.cut_off(hit, index, reads);
                controller.cut_off = true;
                return Ok(Done::Dealt);
            }
            FaultAction::FlipToHost | FaultAction::FlipToDevice => {
                let to_host = hit.action == FaultAction::FlipToHost;
                controller.dma.flip = Some(Flip { to_host, random: hit.random, ahead: None, done: false });
            }
            _ => {}
        }
        let outcome = self.execute_one(index, at, slot);
        self.complete_with_fault(index, at, slot, outcome, hit)
    }

    /// A command that a rule acts on has been executed.
    fn complete_with_fault(
        &mut self,
        index: usize,
        at: u32,
        slot: &CommandSlot,
        outcome: Outcome,
        hit: Hit,
    ) -> Outcome {
        let (Some(faults), Some(controller)) = (&mut self.faults, self.controllers.get_mut(index)) else {
            return outcome;
        };
        if let Some(flip) = controller.dma.flip.take() {
            if flip.done {
                faults.count(hit);
            }
            return outcome;
        }
        if outcome == Ok(Done::Waiting) {
            controller.commands.set_mark(at, Mark::Rule(hit.rule));
            return outcome;
        }
        // A command may have ended itself, by a reset of its controller or an abort.
        if controller.is_free(at) {
            return Ok(Done::Dealt);
        }
        let until = match hit.action {
            FaultAction::Reset => {
                faults.count(hit);
                self.reset_controller(index);
                return Ok(Done::Dealt);
            }
            FaultAction::Drop => {
                faults.count(hit);
                controller.commands.finish(at);
                controller.forget_completion(slot.queue);
                return Ok(Done::Dealt);
            }
            FaultAction::Delay(delay) => faults.ends(delay, self.now),
            FaultAction::Reorder => {
                let tail = completion_tail(controller, slot.queue);
                Until::Tail(tail, faults.polls.saturating_add(REORDER_POLLS))
            }
            _ => {
                let (status, result) = match outcome {
                    Ok(Done::Result(dw0, dw1)) => (nvme_core::wire::Status::SUCCESS, (dw0, dw1)),
                    Ok(_) => return outcome,
                    Err(refusal) => {
                        controller.note_error(slot.queue, &slot.entry, &refusal);
                        (refusal.status, refusal.result)
                    }
                };
                controller.commands.finish(at);
                let command = slot.entry.command_id();
                let answer = Answer { queue: slot.queue, head: 0, command, status, result };
                if controller.post_wrong(answer, hit.action) {
                    faults.count(hit);
                }
                return Ok(Done::Dealt);
            }
        };
        self.sweep_held();
        let (Some(faults), Some(controller)) = (&mut self.faults, self.controllers.get_mut(index)) else {
            return outcome;
        };
        match faults.hold(Held::Completion { outcome, until }) {
            Some(held) => {
                faults.count(hit);
                controller.commands.set_stage(at, Stage::Held(held));
                Ok(Done::Dealt)
            }
            None => outcome,
        }
    }

    /// The outcome of a command whose completion is held back, once it is due.
    fn continue_held(&mut self, index: usize, queue: u16, held: u16) -> Outcome {
        let (Some(faults), Some(controller)) = (&mut self.faults, self.controllers.get(index)) else {
            return Ok(Done::Dealt);
        };
        match faults.held.get(usize::from(held)).and_then(|slot| slot.0) {
            Some(Held::Completion { outcome, until })
                if faults.is_due(until, self.now, completion_tail(controller, queue)) =>
            {
                let _ = faults.take_held(held);
                outcome
            }
            _ => Ok(Done::Dealt),
        }
    }

    /// Frees the slots of completions whose command has ended otherwise: by an abort, the deletion of its queue, a
    /// reset or a failure.
    fn sweep_held(&mut self) {
        let Some(faults) = &mut self.faults else { return };
        for (index, slot) in faults.held.iter_mut().enumerate() {
            let stage = Stage::Held(u16::try_from(index).unwrap_or(u16::MAX));
            if matches!(slot.0, Some(Held::Completion { .. }))
                && !self.controllers.iter().any(|controller| controller.commands.has(stage))
            {
                slot.0 = None;
            }
        }
    }
}

/// The tail of the completion queue that answers commands of `queue`.
fn completion_tail<M: HostMemory>(controller: &Controller<'_, M>, queue: u16) -> u32 {
    controller
        .answered_by(queue)
        .and_then(|(queue, _)| controller.completion(queue))
        .map_or(0, |queue| queue.ring.tail())
}

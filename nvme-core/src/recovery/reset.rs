// SPDX-License-Identifier: MIT OR Apache-2.0
//! From trouble to a controller in use again, or to the end. NVMe Base 2.1 §3.5.1 and §3.7.2.

use core::mem;

use super::supervisor::{Cause, End, Event, Progress, Stage, Supervisor};
use crate::admin::{Initialize, InitializeError};
use crate::controller::{Disabled, Disabling, EnableError, Enabling, Fault, Ready, ShuttingDown};
use crate::dma::DmaArena;
use crate::register::RegisterIo;
use crate::time::{Instant, Step};
use crate::wire::identify::ControllerIdentity;

/// What one turn of the machine brought.
pub(super) enum Turn<T> {
    Event(Event<T>),
    /// Another turn can be made at once.
    Again,
    Wait(Instant),
    Ended(End),
}

/// Turns of one poll: more than there are stages between two events.
const TURNS: usize = 32;

impl<'d, 's, R: RegisterIo + ?Sized, A: DmaArena, T> Supervisor<'d, 's, '_, R, A, T> {
    /// Goes on with whatever is to be done and hands out what happened. Never blocks; bounded by the number of queue pairs
    /// and of their slots.
    pub fn poll(&mut self, now: Instant) -> Progress<T> {
        for _ in 0..TURNS {
            match self.turn(now) {
                Turn::Event(event) => return Progress::Event(event),
                Turn::Wait(until) => return Progress::Wait(until),
                Turn::Ended(end) => return Progress::Ended(end),
                Turn::Again => {}
            }
        }
        Progress::Wait(now)
    }

    fn turn(&mut self, now: Instant) -> Turn<T> {
        match mem::replace(&mut self.stage, Stage::Away) {
            Stage::Disabling(machine, not_before) if !now.has_reached(not_before) => {
                self.stage = Stage::Disabling(machine, not_before);
                Turn::Wait(not_before)
            }
            Stage::Disabling(machine, _) => self.disabling(machine, now),
            Stage::Disabled(disabled, told) => self.disabled(disabled, told),
            Stage::Enabling(machine) => self.enabling(machine, now),
            Stage::Initializing(ready, machine) => self.initializing(ready, machine, now),
            Stage::Live(ready) => self.live(ready, now),
            Stage::ShuttingDown(machine) => self.shutting_down(machine, now),
            stage @ (Stage::Ended(_) | Stage::Stuck(_) | Stage::Away) => {
                self.stage = stage;
                Turn::Ended(self.ending.unwrap_or(End::Removed))
            }
        }
    }

    /// Leaves a controller in use.
    pub(super) fn leave(&mut self, mut ready: Ready<'d, 's, R, A>, cause: Cause, now: Instant) -> Turn<T> {
        for room in self.rooms.iter_mut() {
            room.die(ready.admin());
        }
        self.aborts.abandon(ready.admin());
        // What a controller that broke a rule posted is not believed.
        self.believed = !matches!(cause, Cause::Fault(_)) && ready.admin().check().is_ok();
        self.ready_since = None;
        self.asked = false;
        self.reset_or_give_up(ready.disable(), cause, now)
    }

    /// Begins the next reset of the policy, or the end.
    fn reset_or_give_up(&mut self, machine: Disabling<'d, 's, R, A>, cause: Cause, now: Instant) -> Turn<T> {
        let pause = self.options.policy.reset(self.resets).filter(|_| self.ending.is_none());
        match pause {
            Some(pause) => {
                self.resets = self.resets.saturating_add(1);
                self.stage = Stage::Disabling(machine, now.after(pause));
                Turn::Event(Event::Resetting(cause))
            }
            None => {
                self.ending = self.ending.or(Some(End::GaveUp(cause)));
                self.stage = Stage::Disabling(machine, now);
                Turn::Again
            }
        }
    }

    fn disabling(&mut self, mut machine: Disabling<'d, 's, R, A>, now: Instant) -> Turn<T> {
        match machine.poll(now) {
            Ok(Step::Done) => match machine.finish() {
                Ok(disabled) => {
                    self.stage = Stage::Disabled(disabled, false);
                    Turn::Again
                }
                Err(machine) => {
                    self.stage = Stage::Disabling(machine, now);
                    Turn::Again
                }
            },
            Ok(step) => {
                self.stage = Stage::Disabling(machine, now);
                if let Step::Wait(until) = step { Turn::Wait(until) } else { Turn::Again }
            }
            Err(Fault::Removed) => {
                self.stage = Stage::Stuck(machine);
                let end = *self.ending.insert(End::Removed);
                Turn::Ended(end)
            }
            Err(fault) if self.ending.is_some() => {
                self.stage = Stage::Stuck(machine);
                let end = match self.ending {
                    Some(End::GaveUp(cause)) => End::GaveUp(cause),
                    _ => End::GaveUp(Cause::Fault(fault)),
                };
                self.ending = Some(end);
                Turn::Ended(end)
            }
            Err(fault) => {
                self.believed = false;
                self.reset_or_give_up(machine, Cause::Fault(fault), now)
            }
        }
    }

    fn disabled(&mut self, mut disabled: Disabled<'d, 's, R, A>, told: bool) -> Turn<T> {
        let proof = disabled.quiesced();
        let ended = self.rooms.iter_mut().find_map(|room| room.settle(&proof, &mut self.believed));
        if let Some(event) = ended {
            self.stage = Stage::Disabled(disabled, told);
            return Turn::Event(event);
        }
        if !told {
            self.stage = Stage::Disabled(disabled, true);
            return Turn::Event(Event::Quiesced);
        }
        if let Some(end) = self.ending {
            self.stage = Stage::Ended(disabled);
            return Turn::Ended(end);
        }
        let Some(slots) = disabled.retire().or_else(|| self.slots.take()) else {
            // Not reached: either the admin queue has the slots or the supervisor does.
            self.ending = Some(End::GaveUp(Cause::Enable(EnableError::Slots { lent: 0, needed: 1 })));
            self.stage = Stage::Disabled(disabled, true);
            return Turn::Again;
        };
        match disabled.enable(&self.options.enable, slots) {
            Ok(machine) => self.stage = Stage::Enabling(machine),
            Err(rejected) => {
                self.slots = Some(rejected.slots);
                self.ending = Some(End::GaveUp(Cause::Enable(rejected.error)));
                self.stage = Stage::Disabled(rejected.disabled, true);
            }
        }
        Turn::Again
    }

    fn enabling(&mut self, mut machine: Enabling<'d, 's, R, A>, now: Instant) -> Turn<T> {
        let step = match machine.poll(now) {
            Ok(step) => step,
            Err(fault) => return self.reset_or_give_up(machine.abort(), Cause::Fault(fault), now),
        };
        let again = match step {
            Step::Wait(until) => Turn::Wait(until),
            Step::Again | Step::Done => Turn::Again,
        };
        self.stage = match machine.finish() {
            Ok(ready) => Stage::Initializing(ready, Initialize::new(&self.options.initialize)),
            Err(machine) => Stage::Enabling(machine),
        };
        again
    }

    fn initializing(
        &mut self,
        mut ready: Ready<'d, 's, R, A>,
        mut machine: Initialize,
        now: Instant,
    ) -> Turn<T> {
        if self.ending.is_some() {
            return self.leave(ready, Cause::Asked, now);
        }
        if let Err(fault) = ready.poll(now) {
            return self.leave(ready, Cause::Fault(fault), now);
        }
        match machine.poll(ready.admin(), self.page, now) {
            Step::Again => {
                self.stage = Stage::Initializing(ready, machine);
                return Turn::Again;
            }
            Step::Wait(until) => {
                self.stage = Stage::Initializing(ready, machine);
                return Turn::Wait(until);
            }
            Step::Done => {}
        }
        let found = match machine.finish() {
            Ok(Ok(found)) => found,
            Ok(Err(error)) => return self.leave(ready, Cause::Initialize(error), now),
            Err(machine) => {
                self.stage = Stage::Initializing(ready, machine);
                return Turn::Again;
            }
        };
        match ControllerIdentity::parse(&self.page[..]) {
            Ok(identity) => self.aborts.set_limit(identity.abort_limit),
            Err(error) => {
                return self.leave(ready, Cause::Initialize(InitializeError::Identity(error)), now);
            }
        }
        let needed = self.rooms.iter().map(|room| room.options.id.get()).max().unwrap_or(0);
        let granted = found.io_queues.map_or(0, |queues| queues.submission.min(queues.completion));
        if granted < needed {
            return self.leave(ready, Cause::TooFewQueues { needed, granted }, now);
        }
        self.initialized = Some(found);
        self.stage = Stage::Live(ready);
        Turn::Again
    }

    /// All queue pairs are gone, or cannot be deleted.
    pub(super) fn shut_down(&mut self, mut ready: Ready<'d, 's, R, A>, now: Instant) -> Turn<T> {
        // What is still to come about a command that has ended with its queue is nobody's business.
        self.aborts.abandon(ready.admin());
        match self.shutdown.take() {
            Some((how, limit)) => self.stage = Stage::ShuttingDown(ready.shutdown(how, limit, now)),
            None => self.stage = Stage::Disabling(ready.disable(), now),
        }
        Turn::Again
    }

    fn shutting_down(&mut self, mut machine: ShuttingDown<'d, 's, R, A>, now: Instant) -> Turn<T> {
        match machine.poll(now) {
            Ok(Step::Again) => self.stage = Stage::ShuttingDown(machine),
            Ok(Step::Wait(until)) => {
                self.stage = Stage::ShuttingDown(machine);
                return Turn::Wait(until);
            }
            // However it went: only a disable takes the controller's memory away from it.
            Ok(Step::Done) | Err(_) => self.stage = Stage::Disabling(machine.disable(), now),
        }
        Turn::Again
    }
}

// SPDX-License-Identifier: MIT OR Apache-2.0
//! Where a supervisor keeps one I/O queue pair, in whatever state it is.

use core::mem;

use super::supervisor::{Cause, Event};
use crate::admin::{AdminQueue, CallError};
use crate::controller::Quiesced;
use crate::dma::DmaArena;
use crate::io::{
    Completed, CreateIoQueuePair, CreateOutcome, DeleteIoQueuePair, DeleteOutcome, Ended, IoQueueOptions,
    IoQueuePair, IoSlot, QuarantinedQueuePair,
};
use crate::register::RegisterIo;
use crate::time::{Instant, Step};
use crate::wire::{QueueId, StatusCode};

/// What an I/O queue pair is to be like and the slots of its commands; an array of them is lent to a
/// [`Supervisor`](super::Supervisor).
pub struct QueueRoom<'d, 's, R: ?Sized, A: DmaArena, T> {
    pub(super) options: IoQueueOptions,
    pub(super) state: State<'d, 's, R, A, T>,
    /// The step of the policy that is being taken about commands that timed out.
    pub(super) step: Option<usize>,
    /// Completions taken since the pair was last looked at for time-outs.
    taken: u32,
}

#[allow(clippy::large_enum_variant, reason = "there is no allocator to box the pair")]
pub(super) enum State<'d, 's, R: ?Sized, A: DmaArena, T> {
    /// There is no pair; these are its slots.
    Idle(&'s mut [IoSlot<T>]),
    Creating(CreateIoQueuePair<'d, 's, R, A, T>),
    Live(IoQueuePair<'d, 's, R, A, T>),
    Deleting(DeleteIoQueuePair<'d, 's, R, A, T>),
    /// The controller may still use its memory, until it is disabled.
    Dead(IoQueuePair<'d, 's, R, A, T>),
    /// Only while one state becomes another.
    Moving,
}

impl<R: ?Sized, A: DmaArena, T> core::fmt::Debug for QueueRoom<'_, '_, R, A, T> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("QueueRoom").field("options", &self.options).finish_non_exhaustive()
    }
}

/// What a look at a room brought.
pub(super) enum Look<T> {
    Event(Event<T>),
    /// The controller has to be reset.
    Reset(Cause),
    /// More can be done at once.
    Again,
    /// As [`Again`](Self::Again), but what comes after completions has its turn first.
    Enough,
    /// Nothing to do before then.
    Wait(Option<Instant>),
}

/// The event that a completion is.
pub(super) fn completed<T>(queue: QueueId, completed: Completed<T>) -> Event<T> {
    let code = completed.entry.status().code();
    if code == StatusCode::ABORT_REQUESTED || code == StatusCode::ABORTED_SQ_DELETION {
        Event::Aborted { queue, completed }
    } else {
        Event::Completed { queue, completed }
    }
}

impl<'d, 's, R: RegisterIo + ?Sized, A: DmaArena, T> QueueRoom<'d, 's, R, A, T> {
    /// A queue pair to be created as `options` say, whose commands live in `slots`.
    #[must_use]
    pub const fn new(options: IoQueueOptions, slots: &'s mut [IoSlot<T>]) -> Self {
        Self { options, state: State::Idle(slots), step: None, taken: 0 }
    }

    /// The slots, unless the controller may still have the queue pair.
    ///
    /// # Errors
    /// The room.
    pub fn into_slots(self) -> Result<&'s mut [IoSlot<T>], Self> {
        match self.state {
            State::Idle(slots) => Ok(slots),
            state => Err(Self { state, ..self }),
        }
    }

    pub(super) const fn is_live(&self) -> bool {
        matches!(self.state, State::Live(_))
    }

    /// The pair in use.
    pub(super) const fn live(&mut self) -> Option<&mut IoQueuePair<'d, 's, R, A, T>> {
        match &mut self.state {
            State::Live(pair) => Some(pair),
            _ => None,
        }
    }

    /// The pair, if there is one, in whatever state the controller is.
    pub(super) const fn pair(&self) -> Option<&IoQueuePair<'d, 's, R, A, T>> {
        match &self.state {
            State::Live(pair) | State::Dead(pair) => Some(pair),
            _ => None,
        }
    }

    fn queue_failed(&self, error: CallError) -> Cause {
        Cause::Queue { queue: self.options.id, error }
    }

    /// Begins to create the pair.
    pub(super) fn create(&mut self, admin: &AdminQueue<'d, '_, R, A>) -> Result<(), Cause> {
        let State::Idle(slots) = mem::replace(&mut self.state, State::Moving) else { return Ok(()) };
        match CreateIoQueuePair::new(admin, &self.options, slots) {
            Ok(machine) => {
                self.state = State::Creating(machine);
                Ok(())
            }
            Err((error, slots)) => {
                self.state = State::Idle(slots);
                Err(Cause::QueueOptions { queue: self.options.id, error })
            }
        }
    }

    /// Begins to delete the pair; each of both commands may take `timeout`.
    pub(super) fn delete(&mut self, timeout: core::time::Duration) {
        self.state = match mem::replace(&mut self.state, State::Moving) {
            State::Live(pair) => State::Deleting(DeleteIoQueuePair::new(pair, timeout)),
            other => other,
        };
    }

    /// The controller is about to be disabled: whatever was under way ends.
    pub(super) fn die(&mut self, admin: &mut AdminQueue<'d, '_, R, A>) {
        let dead = |QuarantinedQueuePair(pair)| State::Dead(pair);
        self.step = None;
        self.state = match mem::replace(&mut self.state, State::Moving) {
            State::Creating(machine) => dead(machine.abandon(admin)),
            State::Deleting(machine) => dead(machine.abandon(admin)),
            State::Live(pair) => State::Dead(pair),
            other => other,
        };
    }

    /// Goes on with a controller in use.
    pub(super) fn look(&mut self, admin: &mut AdminQueue<'d, '_, R, A>, now: Instant) -> Look<T> {
        let queue = self.options.id;
        match &mut self.state {
            State::Live(pair) => {
                // A device may post as long as commands come. What was there at first fits into the queue.
                let enough = self.taken >= pair.completion().size();
                if !enough {
                    match pair.poll() {
                        Ok(Some(done)) => {
                            self.taken = self.taken.saturating_add(1);
                            return Look::Event(completed(queue, done));
                        }
                        Ok(None) => {}
                        Err(fault) => return Look::Reset(Cause::Fault(fault)),
                    }
                }
                self.taken = 0;
                if let Err(fault) = pair.acknowledge() {
                    return Look::Reset(Cause::Fault(fault));
                }
                if let Some((command, _)) = pair.expire(now) {
                    return Look::Event(Event::TimedOut { queue, command });
                }
                if enough { Look::Enough } else { Look::Wait(pair.next_deadline()) }
            }
            State::Creating(machine) => match machine.poll(admin, now) {
                Step::Again => Look::Again,
                Step::Wait(until) => Look::Wait(Some(until)),
                Step::Done => self.created(),
            },
            State::Deleting(machine) => {
                let mut step = None;
                // What ended before the last step, and what the last step ended.
                for _ in 0..2 {
                    match machine.take() {
                        Ok(Some(Ended::Completed(done))) => return Look::Event(completed(queue, done)),
                        Ok(Some(Ended::Lost(lost))) => return Look::Event(Event::Lost { queue, lost }),
                        Ok(None) => {}
                        Err(fault) => return Look::Reset(Cause::Fault(fault)),
                    }
                    if step.is_none() {
                        step = Some(machine.poll(admin, now));
                    }
                }
                match step {
                    Some(Step::Done) => self.deleted(),
                    Some(Step::Wait(until)) => Look::Wait(Some(until)),
                    _ => Look::Again,
                }
            }
            State::Idle(_) | State::Dead(_) | State::Moving => Look::Wait(None),
        }
    }

    fn created(&mut self) -> Look<T> {
        let State::Creating(machine) = mem::replace(&mut self.state, State::Moving) else {
            return Look::Wait(None);
        };
        let failed = match machine.finish() {
            Ok(CreateOutcome::Created(pair)) => {
                self.state = State::Live(pair);
                return Look::Event(Event::QueueReady { queue: self.options.id });
            }
            Ok(CreateOutcome::Refused { error, slots }) => {
                self.state = State::Idle(slots);
                error
            }
            Ok(CreateOutcome::Quarantined { error, pair: QuarantinedQueuePair(pair) }) => {
                self.state = State::Dead(pair);
                error
            }
            Err(machine) => {
                self.state = State::Creating(machine);
                return Look::Again;
            }
        };
        Look::Reset(self.queue_failed(failed))
    }

    fn deleted(&mut self) -> Look<T> {
        let State::Deleting(machine) = mem::replace(&mut self.state, State::Moving) else {
            return Look::Wait(None);
        };
        match machine.finish() {
            Ok(DeleteOutcome::Deleted { slots }) => {
                self.state = State::Idle(slots);
                self.step = None;
                Look::Again
            }
            Ok(DeleteOutcome::Quarantined { error, pair: QuarantinedQueuePair(pair) }) => {
                self.state = State::Dead(pair);
                Look::Reset(self.queue_failed(error))
            }
            Err(machine) => {
                self.state = State::Deleting(machine);
                Look::Again
            }
        }
    }

    /// Gives back one command of a controller that is disabled, which `proof` shows; the pair's memory after the last.
    /// `believed` goes when the completions posted before make no sense.
    pub(super) fn settle(&mut self, proof: &Quiesced<'_>, believed: &mut bool) -> Option<Event<T>> {
        let queue = self.options.id;
        let (State::Live(pair) | State::Dead(pair)) = &mut self.state else { return None };
        if *believed {
            match pair.take_late(proof) {
                Ok(Some(done)) => return Some(completed(queue, done)),
                Ok(None) => {}
                Err(_) => *believed = false,
            }
        }
        if let Some(lost) = pair.drain(proof) {
            return Some(Event::Lost { queue, lost });
        }
        if let State::Live(pair) | State::Dead(pair) = mem::replace(&mut self.state, State::Moving) {
            self.state = match pair.retire(proof) {
                Ok(slots) => State::Idle(slots),
                Err(pair) => State::Dead(pair),
            };
        }
        None
    }
}

// SPDX-License-Identifier: MIT OR Apache-2.0
//! A controller in use: completions, time-outs, and the steps before a reset.
//! NVMe Base 2.1 §5.1.1, Abort command.

use core::time::Duration;

use super::policy::Escalation;
use super::reset::Turn;
use super::room::{Look, QueueRoom, State};
use super::supervisor::{Cause, Event, Stage, Supervisor};
use crate::admin::{AdminQueue, AdminRequest, Call, CallError};
use crate::controller::Ready;
use crate::dma::DmaArena;
use crate::register::RegisterIo;
use crate::time::Instant;
use crate::wire::admin::Abort;
use crate::wire::{CommandId, QueueId};

/// Abort commands at once, if the controller takes as many (ACL). Each has a slot of the admin queue.
const ABORTS: usize = 4;
/// How long to wait before looking for a completion again.
const LOOK_AGAIN: Duration = Duration::from_millis(1);
/// Time for each deletion of a queue before a shutdown.
const SHUTDOWN_DELETE: Duration = Duration::from_secs(5);

/// One Abort command and the command it is about.
#[derive(Debug)]
struct Work {
    room: usize,
    command: CommandId,
    /// The policy's step that it is.
    step: usize,
    call: Call,
    wait: Duration,
    /// The Abort has been answered; until then the command may end.
    until: Option<Instant>,
}

/// The Abort commands on their way.
#[derive(Debug)]
pub(super) struct Aborts {
    works: [Option<Work>; ABORTS],
    /// Most that the controller takes at once.
    limit: usize,
}

/// What became of the Abort commands.
enum Aborted {
    /// Look again then, if at all.
    Wait(Option<Instant>),
    /// The command did not end.
    Failed { command: CommandId, step: usize },
    /// The controller does not answer.
    Silent,
}

impl Aborts {
    pub(super) const fn new() -> Self {
        Self { works: [const { None }; ABORTS], limit: 1 }
    }

    /// The controller takes `limit` Abort commands at once (ACL, natural).
    pub(super) fn set_limit(&mut self, limit: u16) {
        self.limit = usize::from(limit).clamp(1, ABORTS);
    }

    /// The controller is about to be disabled.
    pub(super) fn abandon<R: RegisterIo + ?Sized, A: DmaArena>(
        &mut self,
        admin: &mut AdminQueue<'_, '_, R, A>,
    ) {
        for work in &mut self.works {
            if let Some(mut work) = work.take() {
                work.call.abandon(admin);
            }
        }
    }

    fn has_room(&self) -> bool {
        self.works.iter().flatten().count() < self.limit
    }

    fn concern(&self, room: usize) -> bool {
        self.works.iter().flatten().any(|work| work.room == room)
    }

    fn start(&mut self, room: usize, queue: QueueId, command: CommandId, (step, wait): (usize, Duration)) {
        let mut call = Call::new();
        // A fresh call takes the request.
        drop(call.start(AdminRequest::without_data(&Abort { queue, command }, wait)));
        if let Some(place) = self.works.iter_mut().find(|work| work.is_none()) {
            *place = Some(Work { room, command, step, call, wait, until: None });
        }
    }

    /// Goes on with those about `room`, which has this number.
    fn poll<R: RegisterIo + ?Sized, A: DmaArena, T>(
        &mut self,
        room: &mut QueueRoom<'_, '_, R, A, T>,
        number: usize,
        admin: &mut AdminQueue<'_, '_, R, A>,
        now: Instant,
    ) -> Aborted {
        let mut next: Option<Instant> = None;
        for place in &mut self.works {
            let Some(work) = place.as_mut().filter(|work| work.room == number) else { continue };
            let (command, step) = (work.command, work.step);
            let mut pair = room.live();
            let late = pair.as_ref().is_some_and(|pair| pair.is_late(command));
            let mut end = |place: &mut Option<Work>| {
                *place = None;
                if let Some(pair) = &mut pair {
                    pair.unclaim(command);
                }
            };
            match work.call.poll(admin, now).map(|ended| ended.finish(crate::admin::AdminPort::arena(admin)))
            {
                Some(Ok(_)) => work.until = Some(now.after(work.wait)),
                Some(Err(CallError::TimedOut | CallError::Lost)) => return Aborted::Silent,
                Some(Err(_)) => {
                    end(place);
                    if late {
                        return Aborted::Failed { command, step };
                    }
                    continue;
                }
                None => {}
            }
            match work.until {
                Some(_) if !late => end(place),
                Some(until) if now.has_reached(until) => {
                    end(place);
                    return Aborted::Failed { command, step };
                }
                until => {
                    let look = until.unwrap_or_else(|| now.after(LOOK_AGAIN));
                    next = Some(next.map_or(look, |next| next.min(look)));
                }
            }
        }
        Aborted::Wait(next)
    }
}

impl<'d, 's, R: RegisterIo + ?Sized, A: DmaArena, T> Supervisor<'d, 's, '_, R, A, T> {
    pub(super) fn live(&mut self, mut ready: Ready<'d, 's, R, A>, now: Instant) -> Turn<T> {
        if let Err(fault) = ready.poll(now) {
            return self.leave(ready, Cause::Fault(fault), now);
        }
        if self.asked {
            return self.leave(ready, Cause::Asked, now);
        }
        if self.options.policy.reset_on_admin_timeout && ready.admin().timeouts() > 0 {
            return self.leave(ready, Cause::AdminTimedOut, now);
        }
        let mut next = ready.next_deadline();
        match self.look_around(&mut ready, now) {
            Look::Event(event) => {
                self.stage = Stage::Live(ready);
                return Turn::Event(event);
            }
            Look::Reset(cause) => return self.leave(ready, cause, now),
            Look::Again | Look::Enough => {
                self.stage = Stage::Live(ready);
                return Turn::Again;
            }
            Look::Wait(until) => next = until.map_or(next, |until| until.min(next)),
        }
        if self.ending.is_some() {
            if self.rooms.iter().all(|room| matches!(room.state, State::Idle(_) | State::Dead(_))) {
                return self.shut_down(ready, now);
            }
            self.stage = Stage::Live(ready);
            return Turn::Wait(next);
        }
        self.stage = Stage::Live(ready);
        match self.ready_since {
            None if self.rooms.iter().all(QueueRoom::is_live) => {
                self.ready_since = Some(now);
                Turn::Event(Event::Ready)
            }
            Some(since) if self.resets > 0 && now.since(since) >= self.options.policy.settled => {
                self.resets = 0;
                Turn::Wait(next)
            }
            _ => Turn::Wait(next),
        }
    }

    /// Goes on with all rooms, each in its turn first, and with what is done about time-outs.
    fn look_around(&mut self, ready: &mut Ready<'d, 's, R, A>, now: Instant) -> Look<T> {
        let admin = ready.admin();
        let (mut next, mut more): (Option<Instant>, bool) = (None, false);
        let mut sooner = |until: Option<Instant>| {
            next = match (next, until) {
                (Some(a), Some(b)) => Some(a.min(b)),
                (a, b) => a.or(b),
            };
        };
        let count = self.rooms.len();
        let first = self.next_room.min(count.saturating_sub(1));
        for number in (first..count).chain(0..first) {
            let Some(room) = self.rooms.get_mut(number) else { continue };
            let busy = self.aborts.concern(number);
            match (&room.state, self.ending) {
                // An Abort of before could meet a command of the new pair with the same identifier.
                (State::Idle(_), None) if !busy => {
                    if let Err(cause) = room.create(admin) {
                        return Look::Reset(cause);
                    }
                }
                (State::Live(_), Some(_)) => room.delete(SHUTDOWN_DELETE),
                _ => {}
            }
            match room.look(admin, now) {
                Look::Wait(until) => sooner(until),
                Look::Enough => more = true,
                other => {
                    self.next_room = number.saturating_add(1).checked_rem(count).unwrap_or(0);
                    return other;
                }
            }
            match escalate(room, number, &mut self.aborts, &self.options.policy) {
                Ok(Next::Nothing) => {}
                Ok(Next::Look) => return Look::Again,
                Err(cause) => return Look::Reset(cause),
            }
            match self.aborts.poll(room, number, admin, now) {
                Aborted::Wait(until) => sooner(until),
                Aborted::Silent => return Look::Reset(Cause::AdminTimedOut),
                Aborted::Failed { command, step } => {
                    // Several Aborts that fail are one step.
                    if room.step == Some(step) {
                        let after = step.saturating_add(1);
                        room.step = Some(after);
                        if self.options.policy.step(after).is_none() {
                            return Look::Reset(Cause::TimedOut { queue: room.options.id, command });
                        }
                    }
                    return Look::Again;
                }
            }
        }
        if more { Look::Again } else { Look::Wait(next) }
    }
}

/// What the escalation of one room asks for.
enum Next {
    Nothing,
    /// The room is in another state.
    Look,
}

/// Takes the present step about commands of `room` that timed out, if there are any.
fn escalate<R: RegisterIo + ?Sized, A: DmaArena, T>(
    room: &mut QueueRoom<'_, '_, R, A, T>,
    number: usize,
    aborts: &mut Aborts,
    policy: &super::Policy,
) -> Result<Next, Cause> {
    let queue = room.options.id;
    let State::Live(pair) = &mut room.state else { return Ok(Next::Nothing) };
    let Some(command) = pair.late() else {
        room.step = None;
        return Ok(Next::Nothing);
    };
    // Whoever took the report of the time-out: the supervisor, or its host from the pair.
    match policy.step(room.step.unwrap_or(0)) {
        Some((step, Escalation::Abort { wait })) => {
            room.step = Some(step);
            while aborts.has_room() {
                let Some(command) = pair.claim_late() else { break };
                aborts.start(number, queue, command, (step, wait));
            }
            Ok(Next::Nothing)
        }
        Some((step, Escalation::RecreateQueues { timeout })) => {
            room.step = Some(step);
            room.delete(timeout);
            Ok(Next::Look)
        }
        Some((_, Escalation::Reset { .. })) | None => Err(Cause::TimedOut { queue, command }),
    }
}

// SPDX-License-Identifier: MIT OR Apache-2.0
//! Which commands are outstanding and what belongs to them. NVMe Base 2.1 §4.1, Command Identifier.
//!
//! A command identifier is the index of a slot together with the slot's generation, so it is never taken from a place
//! in the submission queue and never reused while its command is outstanding. `FFFFh` is never used. A completion that
//! comes twice or too late is recognised until the identifier comes round: a slot has 65,536 generations divided by the
//! number of slots, rounded up to a power of two; one only with more than 32,768 slots. What must not meet a later
//! command of the same identifier, as an Abort, [claims](Tracker::claim_late) the slot meanwhile.

use core::fmt;

use crate::dma::LetGo;
use crate::time::Instant;
use crate::wire::CommandId;

/// No slot.
const NONE: u16 = u16::MAX;
/// No time-out, or reported already.
const NEVER: Instant = Instant::from_micros(u64::MAX);

/// Room for one outstanding command; an array of them is lent to a [`Tracker`].
#[derive(Debug)]
pub struct Slot<T> {
    payload: Option<T>,
    deadline: Instant,
    /// The identifier of the command here, or of the next one.
    id: u16,
    /// The next free slot, while this one is free.
    next: u16,
    lateness: Lateness,
}

/// What is known of a command's time-out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Lateness {
    /// Not reported.
    OnTime,
    /// Reported.
    Told,
    /// Somebody has taken it on to do something about it. The slot is not used again before that has ended.
    Claimed,
}

impl<T> Slot<T> {
    /// A free slot.
    #[must_use]
    pub const fn new() -> Self {
        Self { payload: None, deadline: NEVER, id: 0, next: NONE, lateness: Lateness::OnTime }
    }
}

impl<T> Default for Slot<T> {
    fn default() -> Self {
        Self::new()
    }
}

/// No outstanding command has this identifier.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UnknownCommand(pub CommandId);

impl core::error::Error for UnknownCommand {}

impl fmt::Display for UnknownCommand {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "a completion names command {}, which is not outstanding; reset the controller", self.0)
    }
}

/// A command that has come back.
#[derive(Debug, PartialEq, Eq)]
pub struct Finished<T> {
    /// What was submitted with it.
    pub payload: T,
    /// Its time-out had been reported before.
    pub late: bool,
}

/// The outstanding commands of one submission queue, in slots the caller lends.
///
/// Submitting and completing take constant time. A payload moves into its slot and comes back only from
/// [`complete`](Self::complete) or, with proof that the device let go, from [`drain`](Self::drain).
#[derive(Debug)]
pub struct Tracker<'s, T> {
    slots: &'s mut [Slot<T>],
    state: State,
    drained: usize,
}

/// What changes with every command.
#[derive(Debug)]
struct State {
    /// Bits of an identifier that hold the slot index.
    mask: u16,
    first_free: u16,
    outstanding: u32,
    /// Slots of claimed commands that have ended.
    held: u32,
    /// A time-out was reported, and its command may be outstanding.
    told: bool,
    /// No time-out is due before this; may be too early, never too late.
    earliest: Instant,
    /// Where the search for time-outs goes on, and the earliest deadline behind that place.
    scan: usize,
    scan_earliest: Instant,
}

/// A slot that is free, about to take the command with identifier [`id`](Self::id).
#[derive(Debug)]
pub struct Vacant<'t, T> {
    slot: &'t mut Slot<T>,
    state: &'t mut State,
}

impl<T> Vacant<'_, T> {
    /// The identifier of the command.
    #[inline]
    #[must_use]
    pub const fn id(&self) -> CommandId {
        CommandId::new(self.slot.id)
    }

    /// The slot's index, below [`Tracker::capacity`].
    #[inline]
    #[must_use]
    pub const fn index(&self) -> usize {
        (self.slot.id & self.state.mask) as usize
    }

    /// Takes the slot for a command with `payload` that times out at `deadline`.
    #[inline]
    pub fn fill(self, payload: T, deadline: Option<Instant>) {
        let Self { slot, state } = self;
        let deadline = deadline.unwrap_or(NEVER);
        slot.payload = Some(payload);
        slot.deadline = deadline;
        slot.lateness = Lateness::OnTime;
        state.first_free = slot.next;
        state.outstanding = state.outstanding.wrapping_add(1);
        if deadline < state.earliest {
            state.earliest = deadline;
        }
        // A search under way has passed this slot already.
        if state.scan != 0 && usize::from(slot.id & state.mask) < state.scan {
            state.scan_earliest = state.scan_earliest.min(deadline);
        }
    }
}

impl<'s, T> Tracker<'s, T> {
    /// Slots that one tracker can use: as many as there are identifiers besides `FFFFh`.
    pub const MAX_SLOTS: usize = 65_535;

    /// Takes over `slots`, all free afterwards: payloads that an earlier tracker left in them are dropped. Slots
    /// beyond [`MAX_SLOTS`](Self::MAX_SLOTS) stay unused.
    #[must_use]
    pub fn new(slots: &'s mut [Slot<T>]) -> Self {
        let used = slots.len().min(Self::MAX_SLOTS);
        let (slots, _) = slots.split_at_mut(used);
        for (slot, index) in slots.iter_mut().zip(0_u16..) {
            let after = index.wrapping_add(1);
            let next = if usize::from(after) < used { after } else { NONE };
            *slot = Slot { payload: None, deadline: NEVER, id: index, next, lateness: Lateness::OnTime };
        }
        #[allow(clippy::cast_possible_truncation, reason = "at most 65,536 before the subtraction")]
        let mask = used.next_power_of_two().wrapping_sub(1) as u16;
        let state = State {
            mask,
            first_free: if used == 0 { NONE } else { 0 },
            outstanding: 0,
            held: 0,
            told: false,
            earliest: NEVER,
            scan: 0,
            scan_earliest: NEVER,
        };
        Self { slots, state, drained: 0 }
    }

    /// Number of slots.
    #[must_use]
    pub const fn capacity(&self) -> usize {
        self.slots.len()
    }

    /// Commands submitted and not completed, at most [`capacity`](Self::capacity).
    #[must_use]
    pub const fn outstanding(&self) -> usize {
        self.state.outstanding as usize
    }

    /// Commands that can be submitted now: the slots that are free.
    #[inline]
    #[must_use]
    pub const fn free(&self) -> usize {
        let taken = self.state.outstanding.wrapping_add(self.state.held);
        self.slots.len().saturating_sub(taken as usize)
    }

    /// The slot that the command with identifier `id` lives in: an index below [`capacity`](Self::capacity), if the
    /// identifier is one of this tracker's.
    #[inline]
    #[must_use]
    pub const fn index(&self, id: CommandId) -> usize {
        (id.get() & self.state.mask) as usize
    }

    /// The identifier that the next [`submit`](Self::submit) gives, `None` if no slot is free.
    #[inline]
    #[must_use]
    pub fn peek(&self) -> Option<CommandId> {
        self.slots.get(usize::from(self.state.first_free)).map(|slot| CommandId::new(slot.id))
    }

    /// A free slot, to be filled; `None` if there is none.
    #[inline]
    #[must_use]
    pub fn vacant(&mut self) -> Option<Vacant<'_, T>> {
        let slot = self.slots.get_mut(usize::from(self.state.first_free))?;
        Some(Vacant { slot, state: &mut self.state })
    }

    /// Takes a slot for a command with `payload` that times out at `deadline`.
    ///
    /// # Errors
    /// The payload, if no slot is free.
    #[inline]
    pub fn submit(&mut self, payload: T, deadline: Option<Instant>) -> Result<CommandId, T> {
        let Some(vacant) = self.vacant() else { return Err(payload) };
        let id = vacant.id();
        vacant.fill(payload, deadline);
        Ok(id)
    }

    /// The slot of the outstanding command `id`.
    #[inline]
    fn find(&mut self, id: CommandId) -> Result<&mut Slot<T>, UnknownCommand> {
        let index = self.index(id);
        match self.slots.get_mut(index) {
            Some(slot) if slot.id == id.get() && slot.payload.is_some() => Ok(slot),
            _ => Err(UnknownCommand(id)),
        }
    }

    /// Frees the slot of command `id` and gives its payload back. The slot of a command that is
    /// [claimed](Self::claim_late) stays out of use until [`unclaim`](Self::unclaim).
    ///
    /// # Errors
    /// [`UnknownCommand`] if no such command is outstanding: never submitted, or completed already.
    #[inline]
    pub fn complete(&mut self, id: CommandId) -> Result<Finished<T>, UnknownCommand> {
        let index = self.index(id);
        let slot = self.slots.get_mut(index).filter(|slot| slot.id == id.get()).ok_or(UnknownCommand(id))?;
        let payload = slot.payload.take().ok_or(UnknownCommand(id))?;
        self.state.outstanding = self.state.outstanding.wrapping_sub(1);
        if slot.lateness == Lateness::Claimed {
            self.state.held = self.state.held.wrapping_add(1);
        } else {
            vacate(slot, &mut self.state);
        }
        Ok(Finished { payload, late: slot.lateness != Lateness::OnTime })
    }

    /// What was submitted with the outstanding command `id`.
    #[must_use]
    pub fn get(&self, id: CommandId) -> Option<&T> {
        self.slots.get(self.index(id)).filter(|slot| slot.id == id.get())?.payload.as_ref()
    }

    /// As [`get`](Self::get), to change it in place.
    #[must_use]
    pub fn get_mut(&mut self, id: CommandId) -> Option<&mut T> {
        self.find(id).ok()?.payload.as_mut()
    }

    /// Every outstanding command.
    pub fn iter(&self) -> impl Iterator<Item = (CommandId, &T)> {
        self.slots.iter().filter_map(|slot| Some((CommandId::new(slot.id), slot.payload.as_ref()?)))
    }

    /// As [`iter`](Self::iter), to change payloads in place.
    pub fn iter_mut(&mut self) -> impl Iterator<Item = (CommandId, &mut T)> {
        self.slots.iter_mut().filter_map(|slot| Some((CommandId::new(slot.id), slot.payload.as_mut()?)))
    }

    /// Reports one command whose deadline has been reached, each once; its slot stays taken. Call it until it returns
    /// `None`. Constant time while no deadline has been reached, otherwise one walk over the slots for all calls
    /// together.
    pub fn expire(&mut self, now: Instant) -> Option<CommandId> {
        // A second pass only if the first began in the middle and passed slots that were refilled since.
        for _ in 0..2 {
            if now < self.state.earliest || self.state.earliest == NEVER {
                return None;
            }
            while let Some(slot) = self.slots.get_mut(self.state.scan) {
                self.state.scan = self.state.scan.wrapping_add(1);
                if slot.payload.is_none() || slot.lateness != Lateness::OnTime || slot.deadline == NEVER {
                    continue;
                }
                if now.has_reached(slot.deadline) {
                    slot.lateness = Lateness::Told;
                    self.state.told = true;
                    return Some(CommandId::new(slot.id));
                }
                self.state.scan_earliest = self.state.scan_earliest.min(slot.deadline);
            }
            self.state.earliest = self.state.scan_earliest;
            self.state.scan = 0;
            self.state.scan_earliest = NEVER;
        }
        None
    }

    /// Whether the command `id` is outstanding and its time-out has been reported.
    #[must_use]
    pub fn is_late(&self, id: CommandId) -> bool {
        self.slots.get(self.index(id)).is_some_and(|slot| {
            slot.id == id.get() && slot.payload.is_some() && slot.lateness != Lateness::OnTime
        })
    }

    /// An outstanding command whose time-out has been reported, if there is one. Constant time while no time-out has been
    /// reported since this last was `None`, otherwise one walk over the slots.
    pub fn late(&mut self) -> Option<CommandId> {
        if !self.state.told {
            return None;
        }
        let late = |slot: &&Slot<T>| slot.payload.is_some() && slot.lateness != Lateness::OnTime;
        let found = self.slots.iter().find(late).map(|slot| CommandId::new(slot.id));
        self.state.told = found.is_some();
        found
    }

    /// One outstanding command whose time-out has been reported, each once until [`unclaim`](Self::unclaim): the caller
    /// does something about it by its identifier, which no other command gets meanwhile. One walk over the slots.
    pub fn claim_late(&mut self) -> Option<CommandId> {
        let mut late = self.slots.iter_mut();
        let slot = late.find(|slot| slot.payload.is_some() && slot.lateness == Lateness::Told)?;
        slot.lateness = Lateness::Claimed;
        Some(CommandId::new(slot.id))
    }

    /// What was done about the [claimed](Self::claim_late) command `id` is over: if the command is outstanding still, it
    /// can be claimed again, otherwise its slot is free now. Does nothing about a command that is not claimed.
    pub fn unclaim(&mut self, id: CommandId) {
        let index = self.index(id);
        let claimed = |slot: &&mut Slot<T>| slot.id == id.get() && slot.lateness == Lateness::Claimed;
        let Some(slot) = self.slots.get_mut(index).filter(claimed) else { return };
        slot.lateness = Lateness::Told;
        if slot.payload.is_none() {
            self.state.held = self.state.held.wrapping_sub(1);
            vacate(slot, &mut self.state);
        }
    }

    /// When to call [`expire`](Self::expire) again: never later than the earliest deadline, but it may be earlier,
    /// because completing a command does not search for the next deadline.
    #[must_use]
    pub fn next_deadline(&self) -> Option<Instant> {
        (self.state.earliest != NEVER).then_some(self.state.earliest)
    }

    /// Gives back one outstanding payload after the other, now that `proof` shows that the device let go of all of
    /// them; `None` when nothing is outstanding any more. One walk over the slots for all calls together.
    pub fn drain<P: LetGo>(&mut self, _proof: &P) -> Option<(CommandId, T)> {
        while let Some(slot) = self.slots.get(self.drained) {
            let id = CommandId::new(slot.id);
            self.drained = self.drained.wrapping_add(1);
            if let Ok(finished) = self.complete(id) {
                return Some((id, finished.payload));
            }
        }
        self.drained = 0;
        None
    }

    /// Gives the slots back. Payloads still in them stay there and are dropped with them.
    #[must_use]
    pub fn into_slots(self) -> &'s mut [Slot<T>] {
        self.slots
    }
}

/// Makes `slot` the first free one, with its next identifier.
#[inline]
fn vacate<T>(slot: &mut Slot<T>, state: &mut State) {
    slot.next = state.first_free;
    state.first_free = slot.id & state.mask;
    slot.id = following(slot.id, state.mask);
}

/// The identifier after `id` for the same slot: the next generation, but never `FFFFh`.
#[inline]
const fn following(id: u16, mask: u16) -> u16 {
    let step = mask.wrapping_add(1);
    let next = id.wrapping_add(step);
    if next == u16::MAX { next.wrapping_add(step) } else { next }
}

// SPDX-License-Identifier: MIT OR Apache-2.0
//! The rules of a subsystem and what they have counted.

use core::num::NonZeroU32;
use core::sync::atomic::{AtomicU32, Ordering};

use nvme_core::wire::{BusAddr, CdqId, ControllerId, SubmissionQueueEntry};

use super::action::{Delay, FaultAction, Occasion};
use super::rule::FaultRule;
use crate::outcome::Outcome;

/// Room for one rule, with what it has counted. Whoever lends it can go on reading the counters.
#[derive(Debug)]
pub struct FaultSlot {
    rule: FaultRule,
    /// Occurrences so far. Only the subsystem counts, so a load and a store do.
    seen: AtomicU32,
    fired: AtomicU32,
    /// Reads for which the controller is not reached, `u32::MAX` for ever. Register reads count it down, which only
    /// borrow the subsystem.
    unreached: AtomicU32,
    /// The controller that is not reached, by index.
    victim: AtomicU32,
}

impl FaultSlot {
    /// A rule that has counted nothing.
    #[must_use]
    pub const fn new(rule: FaultRule) -> Self {
        Self {
            rule,
            seen: AtomicU32::new(0),
            fired: AtomicU32::new(0),
            unreached: AtomicU32::new(0),
            victim: AtomicU32::new(0),
        }
    }

    /// The rule.
    #[must_use]
    pub const fn rule(&self) -> FaultRule {
        self.rule
    }

    /// How often the fault has happened.
    #[must_use]
    pub fn fired(&self) -> u32 {
        self.fired.load(Ordering::Relaxed)
    }

    /// Occurrences of what the rule matches, whether it acted or not.
    #[must_use]
    pub fn seen(&self) -> u32 {
        self.seen.load(Ordering::Relaxed)
    }

    /// Counts an occurrence; its number if the rule acts on it.
    fn occurs(&self) -> Option<u32> {
        let number = self.seen().saturating_add(1);
        self.seen.store(number, Ordering::Relaxed);
        self.rule.acts(number, self.fired()).then_some(number)
    }

    fn count(&self) {
        self.fired.store(self.fired().saturating_add(1), Ordering::Relaxed);
    }

    fn cut_off(&self, index: usize, reads: Option<NonZeroU32>) {
        self.victim.store(u32::try_from(index).unwrap_or(u32::MAX), Ordering::Relaxed);
        self.unreached.store(reads.map_or(u32::MAX, NonZeroU32::get), Ordering::Relaxed);
        self.count();
    }

    fn cuts_off(&self, index: usize) -> bool {
        self.unreached.load(Ordering::Relaxed) > 0
            && u32::try_from(index).is_ok_and(|index| index == self.victim.load(Ordering::Relaxed))
    }
}

/// Room for one completion or write that a rule holds back.
#[derive(Clone, Copy, Debug, Default)]
pub struct HeldSlot(pub(crate) Option<Held>);

impl HeldSlot {
    /// An empty slot.
    #[must_use]
    pub const fn new() -> Self {
        Self(None)
    }
}

/// What is held back.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Held {
    /// The outcome of a command whose slot among those under way says so.
    Completion { outcome: Outcome, until: Until },
    /// Bytes of an entry for the host of controller `owner`, in the memory of a Controller Data Queue.
    Write {
        owner: usize,
        address: BusAddr,
        len: u8,
        bytes: [u8; 32],
        at_poll: u64,
        /// The queue and slot of the torn entry of which this is the rest.
        half_of: Option<(CdqId, u32)>,
    },
}

/// When a completion is posted.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Until {
    /// With this poll.
    Poll(u64),
    /// At this time in microseconds.
    Time(u64),
    /// Once the tail of its completion queue is another one, or with this poll.
    Tail(u32, u64),
}

/// A rule that acts now.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Hit {
    pub(crate) rule: u16,
    pub(crate) action: FaultAction,
    /// Decides about data.
    pub(crate) random: u64,
}

/// The fault rules of a subsystem, in the order in which they are asked: the first that acts on an occasion decides.
/// Each counts every occurrence, also when another acts. Register reads of a controller that a rule has made unreachable
/// are no occasions.
#[derive(Debug)]
pub struct FaultTable<'s> {
    pub(crate) rules: &'s [FaultSlot],
    pub(crate) held: &'s mut [HeldSlot],
    /// Polls so far.
    pub(crate) polls: u64,
}

impl<'s> FaultTable<'s> {
    /// A table of these rules, at most 65,534 of them. A completion or write that must wait needs a slot of `held`
    /// for as long; without one the fault does not happen and is not counted as fired.
    #[must_use]
    pub fn new(rules: &'s [FaultSlot], held: &'s mut [HeldSlot]) -> Self {
        held.fill(HeldSlot(None));
        Self { rules: rules.get(..0xFFFE).unwrap_or(rules), held, polls: 0 }
    }

    /// The rules with their counters.
    #[must_use]
    pub const fn rules(&self) -> &'s [FaultSlot] {
        self.rules
    }

    /// How often any rule acted.
    #[must_use]
    pub fn fired(&self) -> u32 {
        self.rules.iter().fold(0, |sum, slot| sum.saturating_add(slot.fired()))
    }

    /// Lets `matches` say which rules the occasion concerns; the first of them that acts.
    fn ask(&self, matches: impl Fn(&FaultRule) -> bool) -> Option<Hit> {
        let mut hit = None;
        for (index, slot) in self.rules.iter().enumerate().filter(|(_, slot)| matches(&slot.rule)) {
            if let (Some(number), None, Ok(rule)) = (slot.occurs(), &hit, u16::try_from(index)) {
                hit = Some(Hit { rule, action: slot.rule.action, random: slot.rule.random(number) });
            }
        }
        hit
    }

    /// A command of `queue` has its turn.
    pub(crate) fn command(&self, id: ControllerId, queue: u16, entry: &SubmissionQueueEntry) -> Option<Hit> {
        self.ask(|rule| rule.occasion() == Occasion::Command && rule.is_at(id) && rule.is_about(queue, entry))
    }

    /// An occasion of controller `id` that is no command.
    pub(crate) fn occasion(&self, id: ControllerId, occasion: Occasion) -> Option<Hit> {
        self.ask(|rule| rule.occasion() == occasion && rule.is_at(id))
    }

    /// An entry of a Controller Data Queue is about to be posted: one occasion, or two if it is a marker.
    pub(crate) fn entry(&self, id: ControllerId, marker: Option<Occasion>) -> Option<Hit> {
        self.ask(|rule| {
            let occasion = rule.occasion();
            (occasion == Occasion::Entry || Some(occasion) == marker) && rule.is_at(id)
        })
    }

    /// The fault happened.
    pub(crate) fn count(&self, hit: Hit) {
        if let Some(slot) = self.rules.get(usize::from(hit.rule)) {
            slot.count();
        }
    }

    /// The action of rule `rule`, for a command that it acted on before.
    pub(crate) fn action(&self, rule: u16) -> Option<FaultAction> {
        self.rules.get(usize::from(rule)).map(|slot| slot.rule.action)
    }

    /// Whether the controller at `index` is not reached.
    pub(crate) fn is_cut_off(&self, index: usize) -> bool {
        self.rules.iter().any(|slot| slot.cuts_off(index))
    }

    /// Cuts the controller at `index` off, for so many reads or for ever.
    pub(crate) fn cut_off(&self, hit: Hit, index: usize, reads: Option<NonZeroU32>) {
        if let Some(slot) = self.rules.get(usize::from(hit.rule)) {
            slot.cut_off(index, reads);
        }
    }

    /// A register of the controller at `index` is read: whether all ones come back.
    pub(crate) fn read_is_lost(&self, id: ControllerId, index: usize) -> bool {
        if !self.is_cut_off(index)
            && let Some(hit) = self.occasion(id, Occasion::RegisterRead)
            && let FaultAction::AllOnes(reads) = hit.action
        {
            self.cut_off(hit, index, reads);
        }
        let mut lost = false;
        for slot in self.rules.iter().filter(|slot| slot.cuts_off(index)) {
            lost = true;
            let left = slot.unreached.load(Ordering::Relaxed);
            if left != u32::MAX {
                slot.unreached.store(left.saturating_sub(1), Ordering::Relaxed);
            }
        }
        lost
    }

    /// Whether what waits for `until` is due.
    pub(crate) fn is_due(&self, until: Until, now: u64, tail: u32) -> bool {
        match until {
            Until::Poll(at) => self.polls >= at,
            Until::Time(at) => now >= at,
            Until::Tail(old, at) => tail != old || self.polls >= at,
        }
    }

    /// When a delay that begins now ends.
    pub(crate) const fn ends(&self, delay: Delay, now: u64) -> Until {
        match delay {
            Delay::Polls(polls) => Until::Poll(self.polls.saturating_add(polls as u64)),
            Delay::Micros(micros) => Until::Time(now.saturating_add(micros)),
        }
    }

    /// Takes what slot `index` holds.
    pub(crate) fn take_held(&mut self, index: u16) -> Option<Held> {
        self.held.get_mut(usize::from(index))?.0.take()
    }

    /// Puts something into a free slot; `None` if there is none.
    pub(crate) fn hold(&mut self, held: Held) -> Option<u16> {
        let index = self.held.iter().position(|slot| slot.0.is_none())?;
        let number = u16::try_from(index).ok()?;
        self.held.get_mut(index)?.0 = Some(held);
        Some(number)
    }
}

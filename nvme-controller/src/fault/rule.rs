// SPDX-License-Identifier: MIT OR Apache-2.0
//! A rule: what it matches, when it acts, and what then happens.

use core::num::NonZeroU32;

use nvme_core::wire::{ControllerId, QueueId, SubmissionQueueEntry};
use zerocopy::IntoBytes;

use super::action::{FaultAction, Occasion};
use super::random::nth;

/// Which submission queues a rule matches.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum QueueMatch {
    /// All.
    #[default]
    Any,
    /// The admin queue.
    Admin,
    /// All I/O queues.
    Io,
    /// One queue.
    Id(QueueId),
}

/// Dwords of a submission queue entry that one rule can look at.
pub const MAX_DWORDS: usize = 4;

/// A dword of a submission queue entry that must have a value, as far as a mask reaches.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct DwordMatch {
    index: u8,
    mask: u32,
    value: u32,
}

impl DwordMatch {
    /// Dword `index` (0 to 15) must equal `value` in the bits of `mask`; `None` for another index. Bits of `value`
    /// outside `mask` are dropped.
    #[must_use]
    pub const fn new(index: u8, value: u32, mask: u32) -> Option<Self> {
        if index < 16 { Some(Self { index, mask, value: value & mask }) } else { None }
    }

    /// Number of the dword.
    #[must_use]
    pub const fn index(&self) -> u8 {
        self.index
    }

    /// The bits looked at.
    #[must_use]
    pub const fn mask(&self) -> u32 {
        self.mask
    }

    /// What they must be; no bit outside the mask is set.
    #[must_use]
    pub const fn value(&self) -> u32 {
        self.value
    }

    fn matches(&self, entry: &SubmissionQueueEntry) -> bool {
        let at = usize::from(self.index).saturating_mul(4);
        entry
            .as_bytes()
            .get(at..)
            .and_then(|rest| rest.first_chunk::<4>())
            .is_some_and(|bytes| u32::from_le_bytes(*bytes) & self.mask == self.value)
    }
}

/// How often a rule that matches acts, in parts per million.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Probability(u32);

impl Probability {
    /// Always.
    pub const ALWAYS: Self = Self(1_000_000);

    /// `ppm` parts per million; more than a million means always.
    #[must_use]
    pub const fn new(ppm: u32) -> Self {
        if ppm > 1_000_000 { Self::ALWAYS } else { Self(ppm) }
    }

    /// Parts per million.
    #[must_use]
    pub const fn ppm(self) -> u32 {
        self.0
    }
}

/// One fault rule, as plain data: [`parse`](Self::parse) reads it from text, `Display` prints it.
///
/// An occasion (see [`Occasion`]) that `controller`, `queue`, `opcode` and `dwords` match is an occurrence. The rule
/// acts on occurrence `nth`, or on all if it is absent; with `every` also on each `every`th after that; never more
/// than `times` times; and each time only with `probability`, decided by `seed` and the number of the occurrence.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct FaultRule {
    /// What happens.
    pub action: FaultAction,
    /// The controller that misbehaves; for what concerns a Controller Data Queue, the one that owns it.
    pub controller: Option<ControllerId>,
    /// Which queues, if the occasion is a command.
    pub queue: QueueMatch,
    /// Which opcode, if the occasion is a command.
    pub opcode: Option<u8>,
    /// What dwords of the command must be, if the occasion is a command. All of them must match.
    pub dwords: [Option<DwordMatch>; MAX_DWORDS],
    /// The first occurrence to act on; the first one is 1.
    pub nth: Option<NonZeroU32>,
    /// The distance of the occurrences to act on.
    pub every: Option<NonZeroU32>,
    /// How often it acts at most.
    pub times: Option<NonZeroU32>,
    /// How likely it acts.
    pub probability: Probability,
    /// Decides about probability and data.
    pub seed: u64,
}

impl FaultRule {
    /// A rule that lets `action` happen on every occasion.
    #[must_use]
    pub const fn new(action: FaultAction) -> Self {
        Self {
            action,
            controller: None,
            queue: QueueMatch::Any,
            opcode: None,
            dwords: [None; MAX_DWORDS],
            nth: None,
            every: None,
            times: None,
            probability: Probability::ALWAYS,
            seed: 0,
        }
    }

    /// The rule for one controller.
    #[must_use]
    pub const fn at(mut self, controller: ControllerId) -> Self {
        self.controller = Some(controller);
        self
    }

    /// The rule for commands of these queues.
    #[must_use]
    pub const fn on(mut self, queue: QueueMatch) -> Self {
        self.queue = queue;
        self
    }

    /// The rule for commands with this opcode.
    #[must_use]
    pub const fn opcode(mut self, opcode: u8) -> Self {
        self.opcode = Some(opcode);
        self
    }

    /// The rule for commands with this dword, too; `None` if it looks at [`MAX_DWORDS`] already.
    #[must_use]
    pub fn dword(mut self, dword: DwordMatch) -> Option<Self> {
        *self.dwords.iter_mut().find(|slot| slot.is_none())? = Some(dword);
        Some(self)
    }

    /// The rule for occurrence `nth`; 0 counts as 1.
    #[must_use]
    pub const fn nth(mut self, nth: u32) -> Self {
        self.nth = Some(at_least_one(nth));
        self
    }

    /// The rule for every `every`th occurrence; 0 counts as 1.
    #[must_use]
    pub const fn every(mut self, every: u32) -> Self {
        self.every = Some(at_least_one(every));
        self
    }

    /// The rule, acting `times` times at most; 0 counts as 1.
    #[must_use]
    pub const fn times(mut self, times: u32) -> Self {
        self.times = Some(at_least_one(times));
        self
    }

    /// The rule, acting with `ppm` parts per million of probability.
    #[must_use]
    pub const fn probability(mut self, ppm: u32) -> Self {
        self.probability = Probability::new(ppm);
        self
    }

    /// The rule with another seed.
    #[must_use]
    pub const fn seed(mut self, seed: u64) -> Self {
        self.seed = seed;
        self
    }

    /// What is counted for this rule.
    #[must_use]
    pub fn occasion(&self) -> Occasion {
        match self.action.kind().occasion() {
            Occasion::RegisterRead if self.names_commands() => Occasion::Command,
            occasion => occasion,
        }
    }

    /// Whether it says which commands it is about.
    pub(super) fn names_commands(&self) -> bool {
        self.queue != QueueMatch::Any || self.opcode.is_some() || self.dwords.iter().any(Option::is_some)
    }

    /// Whether an occasion of `controller` is an occurrence.
    pub(super) fn is_at(&self, controller: ControllerId) -> bool {
        self.controller.is_none_or(|own| own == controller)
    }

    /// Whether a command of `queue` is an occurrence.
    pub(super) fn is_about(&self, queue: u16, entry: &SubmissionQueueEntry) -> bool {
        let on = match self.queue {
            QueueMatch::Any => true,
            QueueMatch::Admin => queue == 0,
            QueueMatch::Io => queue != 0,
            QueueMatch::Id(id) => id.get() == queue,
        };
        on && self.opcode.is_none_or(|opcode| opcode == entry.opcode())
            && self.dwords.iter().flatten().all(|dword| dword.matches(entry))
    }

    /// Whether it acts on occurrence `number` (1-based) after having acted `fired` times.
    pub(super) fn acts(&self, number: u32, fired: u32) -> bool {
        let due = match (self.nth, self.every) {
            (None, None) => true,
            (Some(nth), None) => number == nth.get(),
            (nth, Some(every)) => number
                .checked_sub(nth.unwrap_or(every).get())
                .is_some_and(|since| since.checked_rem(every.get()) == Some(0)),
        };
        due && self.times.is_none_or(|times| fired < times.get())
            && (self.probability == Probability::ALWAYS
                || nth(self.seed, number).checked_rem(1_000_000) < Some(u64::from(self.probability.ppm())))
    }

    /// A number for the data of the action on occurrence `number`.
    pub(super) const fn random(&self, number: u32) -> u64 {
        nth(self.seed ^ 0x5EED_DA7A, number)
    }
}

const fn at_least_one(value: u32) -> NonZeroU32 {
    match NonZeroU32::new(value) {
        Some(value) => value,
        None => NonZeroU32::MIN,
    }
}

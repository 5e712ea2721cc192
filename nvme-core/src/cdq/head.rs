// SPDX-License-Identifier: MIT OR Apache-2.0
//! When and how the head of a Controller Data Queue is published, and the tail pointer trigger armed.
//! NVMe Base 2.1 §5.1.25.1.23, Controller Data Queue feature.

use core::fmt;
use core::time::Duration;

use crate::admin::{AdminPort, AdminRequest, Call, CallError};
use crate::ring;
use crate::time::Instant;
use crate::wire::feature::ControllerDataQueueFeature;
use crate::wire::{CdqId, StatusCode};

/// When the head is published. Any rule that applies is enough; a queue never has more than one update on its way.
///
/// Updates travel on the shared admin queue, so each costs everybody; too few let the queue fill up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HeadPolicy {
    /// After this many entries read since the last update; 0 for no such rule. Held to half the queue.
    pub every: u32,
    /// When so many percent of the queue have been read since the last update; 0 for no such rule.
    pub occupancy_percent: u8,
    /// When nothing new is in the queue and the controller does not know the head.
    pub when_idle: bool,
    /// Before sleeping, arm the tail pointer trigger so that the entry this many slots after the next one raises an
    /// event. The event is a hint: a caller polls again after a while even without it. A controller that refuses updates
    /// with a trigger gets them without.
    pub wake_after: Option<u32>,
    /// After this long without a completion an update counts as failed.
    pub timeout: Duration,
}

impl Default for HeadPolicy {
    fn default() -> Self {
        Self {
            every: 0,
            occupancy_percent: 25,
            when_idle: true,
            wake_after: Some(0),
            timeout: Duration::from_secs(5),
        }
    }
}

/// A head update failed. The controller's head is where it was; the next poll that finds an update due tries again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HeadUpdateFailed {
    /// The head that was to be set.
    pub head: u32,
    /// Why it was not.
    pub error: CallError,
}

impl core::error::Error for HeadUpdateFailed {}

impl fmt::Display for HeadUpdateFailed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "setting head {} of a Controller Data Queue: {}", self.head, self.error)
    }
}

/// A trigger the controller has acknowledged.
#[derive(Clone, Copy, Debug)]
struct Armed {
    /// The reader's head when it was sent.
    base: u32,
    slot: u32,
}

#[derive(Clone, Copy, Debug)]
struct Update {
    head: u32,
    armed: Option<Armed>,
    /// A trigger was asked for, whatever has become of it.
    asked: bool,
}

/// Publishes one queue's head: at most one update on its way, the acknowledged head moves on success only.
#[derive(Debug)]
pub(super) struct HeadPublisher {
    policy: HeadPolicy,
    size: u32,
    acknowledged: u32,
    /// The controller refuses a head at its tail, so the last entry read is never given back.
    keeps_one: bool,
    /// An update has been acknowledged since `keeps_one` was assumed.
    keeps_one_holds: bool,
    /// The controller takes no trigger.
    refuses_trigger: bool,
    armed: Option<Armed>,
    update: Option<Update>,
    call: Call,
    pub(super) updates: u64,
    pub(super) failures: u64,
}

impl HeadPublisher {
    pub(super) const fn new(policy: HeadPolicy, size: u32) -> Self {
        Self {
            policy,
            size,
            acknowledged: 0,
            keeps_one: false,
            keeps_one_holds: false,
            refuses_trigger: false,
            armed: None,
            update: None,
            call: Call::new(),
            updates: 0,
            failures: 0,
        }
    }

    /// The head the controller knows.
    pub(super) const fn acknowledged(&self) -> u32 {
        self.acknowledged
    }

    /// Whether an update is on its way.
    pub(super) const fn is_busy(&self) -> bool {
        self.update.is_some()
    }

    /// Whether the controller refuses a head at its tail.
    pub(super) const fn keeps_one(&self) -> bool {
        self.keeps_one
    }

    /// The trigger's event arrived: it has disarmed itself.
    ///
    /// While an update is on its way the event may be that of its trigger, too. If it is the one before, the trigger is
    /// armed once more than needed.
    pub(super) const fn fired(&mut self) {
        self.armed = None;
        if let Some(update) = &mut self.update {
            update.armed = None;
        }
    }

    /// Gives up interest in the update on its way: the queue is gone.
    pub(super) fn abandon<P: AdminPort + ?Sized>(&mut self, port: &mut P) {
        self.call.abandon(port);
        self.update = None;
    }

    /// Takes the completion of the update on its way, if it is there.
    pub(super) fn settle<P: AdminPort + ?Sized>(
        &mut self,
        port: &mut P,
        now: Instant,
    ) -> Result<(), HeadUpdateFailed> {
        let Some(result) = self.call.poll(port, now) else { return Ok(()) };
        let Some(update) = self.update.take() else { return Ok(()) };
        match result.finish(port.arena()) {
            Ok(_) => {
                self.updates = self.updates.wrapping_add(1);
                self.acknowledged = update.head;
                self.armed = update.armed;
                self.keeps_one_holds |= self.keeps_one;
                Ok(())
            }
            Err(error) => {
                let moved = update.head != self.acknowledged;
                if error.is_status(StatusCode::INVALID_FIELD) {
                    if moved && !self.keeps_one {
                        // A strict reading wants the head on a slot that holds an entry: try one slot less.
                        self.keeps_one = true;
                        return Ok(());
                    }
                    if update.asked {
                        // That was not it, or not all: it may be the trigger. Polling does without.
                        self.refuses_trigger = true;
                        self.keeps_one = self.keeps_one_holds;
                        return Ok(());
                    }
                }
                self.failures = self.failures.wrapping_add(1);
                Err(HeadUpdateFailed { head: update.head, error })
            }
        }
    }

    /// Prepares an update if one is due, now that everything before `head` has been read and, if `idle`, nothing new
    /// is in the queue. `force` makes any unpublished entry enough. The next [`settle`](Self::settle) submits it.
    pub(super) fn publish(&mut self, queue: CdqId, head: u32, idle: bool, force: bool) {
        if self.is_busy() {
            return;
        }
        if self.armed.is_some_and(|armed| self.is_behind(armed, head)) {
            self.armed = None;
        }
        let target = if self.keeps_one && head != self.acknowledged {
            ring::advance(head, self.size.saturating_sub(1), self.size)
        } else {
            head
        };
        let unpublished = ring::distance(self.acknowledged, target, self.size);
        let wakes = idle && self.wake_after().is_some() && self.armed.is_none();
        if !(wakes || unpublished > 0 && (force || self.is_due(unpublished, idle))) {
            return;
        }
        let armed = match self.wake_after() {
            Some(after) if idle => {
                let after = after.min(self.size.saturating_sub(2));
                Some(Armed { base: head, slot: ring::advance(head, after, self.size) })
            }
            _ => None,
        };
        let feature =
            ControllerDataQueueFeature { queue, head: target, tail_trigger: armed.map(|armed| armed.slot) };
        let command = feature.to_set_features();
        if self.call.start(AdminRequest::without_data(&command, self.policy.timeout)).is_ok() {
            self.update = Some(Update { head: target, armed, asked: armed.is_some() });
            // An update without the trigger disarms it.
            self.armed = None;
        }
    }

    /// Whether nothing is on its way and the trigger, if the policy wants it, is armed ahead of the head.
    pub(super) fn may_sleep(&self, head: u32) -> bool {
        !self.is_busy()
            && (self.wake_after().is_none() || self.armed.is_some_and(|armed| !self.is_behind(armed, head)))
    }

    /// The policy's trigger, as far as the controller takes one.
    const fn wake_after(&self) -> Option<u32> {
        if self.refuses_trigger { None } else { self.policy.wake_after }
    }

    const fn is_behind(&self, armed: Armed, head: u32) -> bool {
        ring::distance(armed.base, head, self.size) > ring::distance(armed.base, armed.slot, self.size)
    }

    fn is_due(&self, unpublished: u32, idle: bool) -> bool {
        let capacity = self.size.saturating_sub(1);
        let every = self.policy.every.min((capacity / 2).max(1));
        let percent = u64::from(self.policy.occupancy_percent);
        let read = u64::from(unpublished).saturating_mul(100);
        (every != 0 && unpublished >= every)
            || (percent != 0 && read >= u64::from(capacity).saturating_mul(percent))
            || (self.policy.when_idle && idle)
    }
}

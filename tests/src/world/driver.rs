// SPDX-License-Identifier: MIT OR Apache-2.0
//! The life of one controller as its host drives it, without ever waiting: brought up, used, reset, brought up again.

use std::time::Duration;

use nvme_core::admin::{AdminQueue, AdminSlot};
use nvme_core::controller::{Disabled, Disabling, EnableOptions, Enabling, Fault, Link, Ready};
use nvme_core::io::{Completed, QuarantinedQueuePair};
use nvme_core::io::{CreateIoQueuePair, CreateOutcome, IoQueueOptions, IoQueuePair, IoSlot, Lost};
use nvme_core::time::{Instant, Step};
use nvme_core::wire::QueueId;
use nvme_host_linux::backend::{Confined, attach};
use nvme_host_linux::memory::AddressSpace;

/// What a driver is to set up.
#[derive(Clone, Copy, Debug)]
pub(super) struct Shape {
    /// I/O queue pairs.
    pub(super) pairs: u16,
    /// Entries of each queue.
    pub(super) entries: u32,
    /// Longest transfer in bytes.
    pub(super) max_transfer: usize,
    /// How long an admin command may take.
    pub(super) timeout: Duration,
}

pub(super) type Admin<'d, R> = AdminQueue<'d, 'd, R, AddressSpace>;
pub(super) type Pair<'d, R, T> = IoQueuePair<'d, 'd, R, AddressSpace, T>;

#[allow(clippy::large_enum_variant, reason = "there are three of them")]
enum Life<'d, R, T> {
    /// Only while one state becomes the next.
    Between,
    Disabling(Disabling<'d, 'd, R, AddressSpace>),
    Disabled(Disabled<'d, 'd, R, AddressSpace>),
    Enabling(Enabling<'d, 'd, R, AddressSpace>),
    Creating(Ready<'d, 'd, R, AddressSpace>, CreateIoQueuePair<'d, 'd, R, AddressSpace, T>),
    Ready(Ready<'d, 'd, R, AddressSpace>),
}

/// How a poll left the controller.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Condition {
    /// On its way to ready or to disabled.
    Busy,
    /// Disabled, and held there.
    Held,
    Ready,
    /// It has failed: reset it.
    Failed(Fault),
}

pub(super) struct Driver<'d, R, T> {
    arena: &'d AddressSpace,
    shape: Shape,
    life: Life<'d, R, T>,
    /// Stay disabled until told otherwise.
    held: bool,
    admin_slots: Option<&'d mut [AdminSlot]>,
    io_slots: Vec<&'d mut [IoSlot<T>]>,
    pairs: Vec<Pair<'d, R, T>>,
    quarantined: Vec<QuarantinedQueuePair<'d, 'd, R, AddressSpace, T>>,
    /// Commands that ended without a completion.
    pub(super) lost: Vec<Lost<T>>,
    /// Attempts to disable or enable that failed since it was last ready.
    pub(super) failures: u32,
    pub(super) resets: u32,
}

impl<'d, R: Confined, T> Driver<'d, R, T> {
    /// Takes the controller over; `io_slots` has one element for each queue pair.
    pub(super) fn new(
        registers: &'d R,
        arena: &'d AddressSpace,
        link: &'d Link,
        shape: Shape,
        admin_slots: &'d mut [AdminSlot],
        io_slots: Vec<&'d mut [IoSlot<T>]>,
    ) -> Self {
        let disabling = attach(registers, arena, link).expect("a fresh controller");
        Self {
            arena,
            shape,
            life: Life::Disabling(disabling),
            held: false,
            admin_slots: Some(admin_slots),
            io_slots,
            pairs: Vec::new(),
            quarantined: Vec::new(),
            lost: Vec::new(),
            failures: 0,
            resets: 0,
        }
    }

    pub(super) const fn arena(&self) -> &'d AddressSpace {
        self.arena
    }

    /// Begins to reset the controller, whatever it does; with `held` it stays disabled until [`release`](Self::release).
    pub(super) fn reset(&mut self, held: bool) {
        self.held = held;
        self.life = match std::mem::replace(&mut self.life, Life::Between) {
            Life::Ready(ready) => {
                self.resets += 1;
                Life::Disabling(ready.disable())
            }
            Life::Creating(mut ready, creation) => {
                self.resets += 1;
                self.quarantined.push(creation.abandon(ready.admin()));
                Life::Disabling(ready.disable())
            }
            Life::Enabling(enabling) => Life::Disabling(enabling.abort()),
            other => other,
        };
    }

    /// Lets a controller that is held disabled become ready again.
    pub(super) const fn release(&mut self) {
        self.held = false;
    }

    /// The admin queue, and the I/O queue pairs; none while the controller is on its way somewhere.
    pub(super) fn parts(&mut self) -> (Option<&mut Admin<'d, R>>, &mut [Pair<'d, R, T>]) {
        let admin = match &mut self.life {
            Life::Ready(ready) => Some(ready.admin()),
            Life::Disabled(disabled) => disabled.admin(),
            _ => None,
        };
        (admin, &mut self.pairs)
    }

    /// Whether it takes commands, as far as its driver knows.
    pub(super) const fn is_ready(&self) -> bool {
        matches!(self.life, Life::Ready(_))
    }

    /// The disabled controller, which is the evidence that it reaches no memory.
    pub(super) const fn disabled(&self) -> Option<&Disabled<'d, 'd, R, AddressSpace>> {
        match &self.life {
            Life::Disabled(disabled) => Some(disabled),
            _ => None,
        }
    }

    /// Lets the controller go, disabled, with all its memory given back.
    pub(super) fn detach(self) {
        if let Life::Disabled(disabled) = self.life {
            disabled.detach();
        }
    }

    /// Goes on with whatever is under way.
    pub(super) fn poll(&mut self, now: Instant) -> Condition {
        match std::mem::replace(&mut self.life, Life::Between) {
            Life::Between => unreachable!("a life is put back at once"),
            Life::Disabling(mut disabling) => {
                if disabling.poll(now).is_err() {
                    self.failures += 1;
                }
                self.life = match disabling.finish() {
                    Ok(disabled) => Life::Disabled(self.take_down(disabled)),
                    Err(disabling) => Life::Disabling(disabling),
                };
                Condition::Busy
            }
            Life::Disabled(disabled) if self.held => {
                self.life = Life::Disabled(disabled);
                Condition::Held
            }
            Life::Disabled(mut disabled) => {
                let slots = disabled.retire().or(self.admin_slots.take()).expect("slots lent to nobody else");
                let options = EnableOptions {
                    submission_entries: 16,
                    completion_entries: 16,
                    events: 3,
                    max_transfer: 4096,
                    ..EnableOptions::default()
                };
                self.life = match disabled.enable(&options, slots) {
                    Ok(enabling) => Life::Enabling(enabling),
                    Err(rejected) => {
                        self.failures += 1;
                        self.admin_slots = Some(rejected.slots);
                        Life::Disabled(rejected.disabled)
                    }
                };
                Condition::Busy
            }
            Life::Enabling(mut enabling) => {
                self.life = match enabling.poll(now) {
                    Err(_) => {
                        self.failures += 1;
                        Life::Disabling(enabling.abort())
                    }
                    Ok(Step::Done) => match enabling.finish() {
                        Ok(mut ready) => {
                            ready.admin().request_events(3);
                            self.next_pair(ready)
                        }
                        Err(enabling) => Life::Enabling(enabling),
                    },
                    Ok(_) => Life::Enabling(enabling),
                };
                Condition::Busy
            }
            Life::Creating(mut ready, mut creation) => {
                if ready.poll(now).is_err() {
                    self.failures += 1;
                    self.quarantined.push(creation.abandon(ready.admin()));
                    self.life = Life::Disabling(ready.disable());
                    return Condition::Busy;
                }
                let _ = creation.poll(ready.admin(), now);
                self.life = match creation.finish() {
                    Err(creation) => Life::Creating(ready, creation),
                    Ok(CreateOutcome::Created(pair)) => {
                        self.pairs.push(pair);
                        self.next_pair(ready)
                    }
                    Ok(CreateOutcome::Refused { slots, .. }) => {
                        self.failures += 1;
                        self.io_slots.push(slots);
                        Life::Disabling(ready.disable())
                    }
                    Ok(CreateOutcome::Quarantined { pair, .. }) => {
                        self.failures += 1;
                        self.quarantined.push(pair);
                        Life::Disabling(ready.disable())
                    }
                };
                Condition::Busy
            }
            Life::Ready(mut ready) => {
                let polled = ready.poll(now);
                self.life = Life::Ready(ready);
                match polled {
                    Ok(_) => {
                        self.failures = 0;
                        Condition::Ready
                    }
                    Err(fault) => Condition::Failed(fault),
                }
            }
        }
    }

    /// Creates the next queue pair, if one is missing.
    fn next_pair(&mut self, mut ready: Ready<'d, 'd, R, AddressSpace>) -> Life<'d, R, T> {
        if self.pairs.len() >= usize::from(self.shape.pairs) {
            return Life::Ready(ready);
        }
        let slots = self.io_slots.pop().expect("slots for each pair");
        let id = QueueId::new(u16::try_from(self.pairs.len() + 1).expect("few pairs"));
        let options = IoQueueOptions {
            max_transfer: self.shape.max_transfer,
            timeout: self.shape.timeout,
            ..IoQueueOptions::new(id, self.shape.entries)
        };
        match CreateIoQueuePair::new(ready.admin(), &options, slots) {
            Ok(creation) => Life::Creating(ready, creation),
            Err((_, slots)) => {
                self.failures += 1;
                self.io_slots.push(slots);
                Life::Disabling(ready.disable())
            }
        }
    }

    /// The controller is disabled: every command that was outstanding is lost, and all slots come back.
    fn take_down(
        &mut self,
        disabled: Disabled<'d, 'd, R, AddressSpace>,
    ) -> Disabled<'d, 'd, R, AddressSpace> {
        let proof = disabled.quiesced();
        for mut pair in self.pairs.drain(..) {
            self.lost.extend(std::iter::from_fn(|| pair.drain(&proof)));
            let Ok(slots) = pair.retire(&proof) else { unreachable!("the proof is about this controller") };
            self.io_slots.push(slots);
        }
        for mut pair in self.quarantined.drain(..) {
            self.lost.extend(std::iter::from_fn(|| pair.drain(&proof)));
            let Ok(slots) = pair.retire(&proof) else { unreachable!("the proof is about this controller") };
            self.io_slots.push(slots);
        }
        disabled
    }
}

/// Takes what a pair has completed, up to `limit`.
pub(super) fn collect<R: Confined, T>(
    pair: &mut Pair<'_, R, T>,
    limit: u32,
) -> (Vec<Completed<T>>, Result<(), Fault>) {
    let mut taken = Vec::new();
    for _ in 0..limit {
        match pair.poll() {
            Ok(Some(completed)) => taken.push(completed),
            Ok(None) => break,
            Err(fault) => return (taken, Err(fault)),
        }
    }
    let told = if taken.is_empty() { Ok(()) } else { pair.acknowledge() };
    (taken, told)
}

// SPDX-License-Identifier: MIT OR Apache-2.0
//! One controller kept in use: what to do about time-outs, failures, resets and removal, in which order.
//! NVMe Base 2.1 §3.7, Resets; §5.1.1, Abort command; §9.5, Controller Fatal Status Condition.
//!
//! A [`Supervisor`] owns the controller in whatever state it is and all its I/O queue pairs, each in a [`QueueRoom`]
//! that the caller lends. It brings the controller up, watches it, and goes through the steps of a [`Policy`] when
//! something is wrong. [`Supervisor::poll`] hands out one [`Event`] after the other, then says when to poll again:
//!
//! ```text
//!             attach                 Ready          TimedOut ─► Abort ─► delete and create the queue pair ─┐
//!   Disabling ─────► Disabled ─► Enabling ─► initialize ─► create pairs ─► in use ── Fault, steps used up ─┤
//!       ▲               │ Completed, Lost, Quiesced                          │ shutdown                    │
//!       └───────────────┼──────────────────────── Resetting ◄────────────────┼─────────────────────────────┘
//!                       └─► Ended: gave up, shut down                        └─► Ended: removed, not disabled
//! ```
//!
//! # What can be relied on
//!
//! - Each command that was submitted ends exactly once: as [`Event::Completed`], [`Event::Aborted`] or [`Event::Lost`],
//!   with tag and buffer. A completion that was posted before a reset took hold counts, unless the controller broke a rule;
//!   then nothing it says is believed. If the device is gone, or cannot be disabled, memory it may still write cannot come
//!   back: such commands stay where they are, [`Supervisor::unfinished`] names them, and they end as lost once the host
//!   has made sure by its own means that the device lets go ([`Supervisor::take_stuck`]).
//! - [`Event::TimedOut`] comes once for each command, before anything is done about it, and does not end it.
//! - After a reset all queue pairs are there again with the same identifiers and sizes, event requests are outstanding and
//!   the event configuration is set again ([`Event::Ready`]).
//! - Every wait has a limit: those of the policy, those that the controller states (CAP.TO, CRTO) as far as
//!   [`EnableOptions::ready_limit`](crate::controller::EnableOptions::ready_limit) allows, and the time-outs of
//!   commands. A controller that never settles is given up after as many resets as the policy has.
//! - Never more Abort commands are outstanding than the controller takes (ACL).
//!
//! # Users of the admin queue
//!
//! They go through [`Supervisor::admin`], between polls. While there is none they wait. At [`Event::Quiesced`] the queue of
//! before the reset is there for a last look: what was completed can be taken, the rest is lost. Whoever looks later finds
//! its command lost ([`AdminPort::take`](crate::admin::AdminPort::take)). A
//! [`ControllerDataQueue`](crate::cdq::ControllerDataQueue) goes with the reset: its next poll says
//! [`Gone`](crate::cdq::QueuePoll::Gone), and its memory can be released then; quarantined memory goes back with
//! [`Supervisor::quiesced`].
//!
//! # Speed
//!
//! [`Supervisor::poll`] hands out completions one by one, which is simple and fair. A host in a hurry takes them from
//! [`Supervisor::pair`] directly, in batches, and polls the supervisor now and then; each completion comes once, either way.

mod live;
mod policy;
mod reset;
mod room;
mod supervisor;

#[cfg(test)]
mod tests;

pub use policy::{Escalation, Policy};
pub use room::QueueRoom;
pub use supervisor::{Cause, End, Event, Options, Progress, Supervisor};

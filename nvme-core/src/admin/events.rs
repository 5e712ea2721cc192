// SPDX-License-Identifier: MIT OR Apache-2.0
//! How many Asynchronous Event Requests are kept. NVMe Base 2.1 §5.1.2, Asynchronous Event Request command.
//!
//! A reported event stays in the slot of its request until somebody takes it; only then is the next request sent. So
//! there are never more events than slots, and none is lost: what the controller cannot report yet it keeps.

use crate::wire::admin::AsynchronousEventRequest;
use crate::wire::{Command, SubmissionQueueEntry};

#[derive(Debug)]
pub(super) struct Events {
    /// Slots set aside by the caller.
    reserved: u16,
    /// Slots that should hold a request or an event.
    target: u16,
    /// Slots that do.
    held: u16,
    /// Completions noted so far, for their order.
    number: u64,
}

impl Events {
    pub(super) const fn new(reserved: u16) -> Self {
        Self { reserved, target: 0, held: 0, number: 0 }
    }

    /// The entry of a request.
    pub(super) fn request() -> SubmissionQueueEntry {
        AsynchronousEventRequest.encode()
    }

    /// Allows up to `limit` requests; returns how many there will be.
    pub(super) fn set_limit(&mut self, limit: u16) -> u16 {
        self.target = limit.min(self.reserved);
        self.target
    }

    /// Requests to send.
    pub(super) fn missing(&self) -> usize {
        usize::from(self.target.saturating_sub(self.held))
    }

    /// A request was sent.
    pub(super) const fn armed(&mut self) {
        self.held = self.held.saturating_add(1);
    }

    /// An event was taken out of its slot.
    pub(super) const fn taken(&mut self) {
        self.held = self.held.saturating_sub(1);
    }

    /// The controller completed a request with an error: it does not take so many.
    pub(super) fn refused(&mut self) {
        self.held = self.held.saturating_sub(1);
        self.target = self.target.min(self.held);
    }

    /// The controller is disabled: there are no requests any more.
    pub(super) const fn stop(&mut self) {
        self.target = 0;
        self.held = 0;
    }

    /// The number of the next completion.
    pub(super) const fn number(&mut self) -> u64 {
        self.number = self.number.wrapping_add(1);
        self.number
    }
}

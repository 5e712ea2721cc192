// SPDX-License-Identifier: MIT OR Apache-2.0
//! How many Asynchronous Event Requests are kept, and the events nobody has taken yet.
//! NVMe Base 2.1 §5.1.2, Asynchronous Event Request command.
//!
//! A reported event moves from the slot of its request into a store of its own, and the request is sent again at once:
//! events that nobody takes, of queues nobody knows or notices nobody reads, cannot keep others from being reported.
//! The store is bounded. If it is full, the oldest event that is not about a Controller Data Queue is dropped, or the
//! oldest of all, and counted. Whoever misses an event finds what it told in a log page or in the queue itself.

use crate::admin::EventFilter;
use crate::wire::admin::AsynchronousEventRequest;
use crate::wire::{AsynchronousEvent, Command, StatusCode, SubmissionQueueEntry};

/// Events kept for their takers; more than a controller may report at once to a host that keeps a request for each.
const KEPT: usize = 16;
/// Refusals in a row, for another reason than their number, after which a request is not sent again.
const REFUSALS: u8 = 8;

#[derive(Debug)]
pub(super) struct Events {
    /// Slots set aside by the caller.
    reserved: u16,
    /// Slots that should hold a request.
    target: u16,
    /// Slots that do.
    held: u16,
    refusals: u8,
    /// Events not taken, each with its number in the order of arrival.
    kept: [Option<(u64, AsynchronousEvent)>; KEPT],
    number: u64,
    dropped: u64,
}

impl Events {
    pub(super) const fn new(reserved: u16) -> Self {
        Self { reserved, target: 0, held: 0, refusals: 0, kept: [None; KEPT], number: 0, dropped: 0 }
    }

    /// The entry of a request.
    pub(super) fn request() -> SubmissionQueueEntry {
        AsynchronousEventRequest.encode()
    }

    /// Allows up to `limit` requests; returns how many there will be.
    pub(super) fn set_limit(&mut self, limit: u16) -> u16 {
        self.target = limit.min(self.reserved);
        self.refusals = 0;
        self.target
    }

    /// Slots that should hold a request.
    pub(super) const fn target(&self) -> u16 {
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

    /// The controller completed a request with an event.
    pub(super) fn reported(&mut self, event: AsynchronousEvent) {
        self.held = self.held.saturating_sub(1);
        self.refusals = 0;
        self.number = self.number.wrapping_add(1);
        let kept = Some((self.number, event));
        if let Some(place) = self.kept.iter_mut().find(|place| place.is_none()) {
            *place = kept;
            return;
        }
        self.dropped = self.dropped.saturating_add(1);
        // The queues' events last: their readers are the ones who wait for them.
        let oldest = self.kept.iter_mut().min_by_key(|place| {
            place
                .map_or((true, u64::MAX), |(number, event)| (event.controller_data_queue().is_some(), number))
        });
        if let Some(place) = oldest {
            *place = kept;
        }
    }

    /// Takes the oldest event that `filter` asks for.
    pub(super) fn take(&mut self, filter: EventFilter) -> Option<AsynchronousEvent> {
        let place = self
            .kept
            .iter_mut()
            .filter(|place| place.is_some_and(|(_, event)| filter.matches(&event)))
            .min_by_key(|place| place.map_or(u64::MAX, |(number, _)| number))?;
        place.take().map(|(_, event)| event)
    }

    /// Events dropped because nobody took them.
    pub(super) const fn dropped(&self) -> u64 {
        self.dropped
    }

    /// The controller completed a request with an error. If it does not take so many, or goes on refusing, fewer are kept.
    pub(super) fn refused(&mut self, code: StatusCode) {
        self.held = self.held.saturating_sub(1);
        self.refusals = self.refusals.saturating_add(1);
        if code == StatusCode::AER_LIMIT_EXCEEDED || self.refusals >= REFUSALS {
            self.target = self.target.min(self.held);
        }
    }

    /// The controller is disabled: there are no requests any more. Events not taken stay.
    pub(super) const fn stop(&mut self) {
        self.target = 0;
        self.held = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::{CdqEvent, CdqId, EventType};

    fn notice(parameter: u32) -> AsynchronousEvent {
        AsynchronousEvent { kind: EventType::NOTICE, information: 0, log_page: 4, parameter }
    }

    fn tail(queue: u16) -> AsynchronousEvent {
        CdqEvent::TailPointer(CdqId::new(queue)).into()
    }

    #[test]
    fn a_full_store_drops_the_oldest_notice_before_any_queue_event() {
        let mut events = Events::new(4);
        events.reported(tail(1));
        for n in 0..KEPT as u32 + 2 {
            events.reported(notice(n));
        }
        assert_eq!(events.dropped(), 3);
        assert_eq!(events.take(EventFilter::Other), Some(notice(3)), "the oldest that is left");
        assert_eq!(events.take(EventFilter::ControllerDataQueue(CdqId::new(1))), Some(tail(1)));
        while events.take(EventFilter::Any).is_some() {}
        for n in 0..KEPT as u16 + 1 {
            events.reported(tail(n));
        }
        assert_eq!((events.dropped(), events.take(EventFilter::Any)), (4, Some(tail(1))));
    }

    #[test]
    fn refusals_end() {
        let rows = [
            ("too many", StatusCode::AER_LIMIT_EXCEEDED, 1, 3),
            ("an error once", StatusCode::INTERNAL_ERROR, 1, 4),
            ("errors for ever", StatusCode::INTERNAL_ERROR, 9, 2),
        ];
        for (name, code, times, left) in rows {
            let mut events = Events::new(4);
            events.set_limit(4);
            for _ in 0..4 {
                events.armed();
            }
            for _ in 0..times {
                events.refused(code);
                if events.missing() > 0 {
                    events.armed();
                }
            }
            assert_eq!(usize::from(events.held) + events.missing(), left, "{name}");
        }
    }
}

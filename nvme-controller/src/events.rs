// SPDX-License-Identifier: MIT OR Apache-2.0
//! Asynchronous Event Requests that wait, and events that wait for one. NVMe Base 2.1 §5.1.2, Asynchronous Event
//! Request command.

use nvme_core::wire::{AsynchronousEvent, CommandId, EventType};

/// Room for one event that waits for a request.
#[derive(Clone, Copy, Debug, Default)]
pub struct EventSlot(Option<AsynchronousEvent>);

impl EventSlot {
    /// An empty slot.
    #[must_use]
    pub const fn new() -> Self {
        Self(None)
    }
}

/// Waiting requests and waiting events of one controller.
///
/// Events of Controller Data Queues wait with their queue, so that they are never dropped for lack of a slot.
#[derive(Debug)]
pub(crate) struct Events<'s> {
    requests: &'s mut [CommandId],
    outstanding: usize,
    pending: &'s mut [EventSlot],
    /// Bit `t`: events of type `t` were reported and are masked until their log page is read.
    masked: u8,
}

impl<'s> Events<'s> {
    pub(crate) fn new(requests: &'s mut [CommandId], pending: &'s mut [EventSlot]) -> Self {
        pending.fill(EventSlot(None));
        Self { requests, outstanding: 0, pending, masked: 0 }
    }

    /// Requests that may be outstanding at once.
    pub(crate) fn limit(&self) -> usize {
        self.requests.len().min(256)
    }

    /// The outstanding requests, oldest first.
    pub(crate) fn requests(&self) -> &[CommandId] {
        self.requests.get(..self.outstanding).unwrap_or(&[])
    }

    /// The waiting events, oldest first.
    pub(crate) fn pending(&self) -> impl Iterator<Item = AsynchronousEvent> + '_ {
        self.pending.iter().filter_map(|slot| slot.0)
    }

    /// The types masked, bit `t` for type `t`.
    pub(crate) const fn masked(&self) -> u8 {
        self.masked
    }

    /// Takes a request; `false` if the limit is reached.
    pub(crate) fn add_request(&mut self, command: CommandId) -> bool {
        if self.outstanding >= self.limit() {
            return false;
        }
        match self.requests.get_mut(self.outstanding) {
            Some(slot) => *slot = command,
            None => return false,
        }
        self.outstanding = self.outstanding.saturating_add(1);
        true
    }

    /// Takes the oldest request.
    pub(crate) fn take_request(&mut self) -> Option<CommandId> {
        self.remove_request(0)
    }

    /// Takes the request with identifier `command`.
    pub(crate) fn abort_request(&mut self, command: CommandId) -> bool {
        match self.requests().iter().position(|request| *request == command) {
            Some(at) => self.remove_request(at).is_some(),
            None => false,
        }
    }

    fn remove_request(&mut self, at: usize) -> Option<CommandId> {
        let live = self.requests.get_mut(..self.outstanding)?;
        let tail = live.get_mut(at..)?;
        let request = *tail.first()?;
        tail.rotate_left(1);
        self.outstanding = self.outstanding.saturating_sub(1);
        Some(request)
    }

    /// Puts an event behind the waiting ones, unless an equal one waits already. With no slot left the event is
    /// dropped: it says nothing its log page does not. Returns whether it waits now.
    pub(crate) fn raise(&mut self, event: AsynchronousEvent) -> bool {
        if event.kind == EventType::IMMEDIATE && self.outstanding == 0 {
            return false;
        }
        if self.pending.iter().any(|slot| slot.0 == Some(event)) {
            return false;
        }
        let free = self.pending.iter_mut().find(|slot| slot.0.is_none());
        free.is_some_and(|slot| slot.0.replace(event).is_none())
    }

    /// Takes the oldest event that may be reported now.
    pub(crate) fn take_event(&mut self) -> Option<AsynchronousEvent> {
        let masked = self.masked;
        let at = self
            .pending
            .iter()
            .position(|slot| slot.0.is_some_and(|event| masked & (1 << event.kind.get()) == 0))?;
        let tail = self.pending.get_mut(at..)?;
        let event = tail.first()?.0?;
        if let Some(slot) = tail.first_mut() {
            slot.0 = None;
        }
        tail.rotate_left(1);
        if event.kind.is_masked_when_reported() {
            self.mask(event.kind);
        }
        Some(event)
    }

    pub(crate) const fn is_masked(&self, kind: EventType) -> bool {
        self.masked & (1 << kind.get()) != 0
    }

    pub(crate) const fn mask(&mut self, kind: EventType) {
        self.masked |= 1 << kind.get();
    }

    /// The log page of events of this type and page was read: they may be reported again, and what waited is known.
    pub(crate) fn page_read(&mut self, kind: EventType, page: u8) {
        self.masked &= !(1 << kind.get());
        for slot in self.pending.iter_mut() {
            if slot.0.is_some_and(|event| event.kind == kind && event.log_page == page) {
                slot.0 = None;
            }
        }
        self.close_gaps();
    }

    fn close_gaps(&mut self) {
        let mut to = 0_usize;
        for from in 0..self.pending.len() {
            let Some(slot) = self.pending.get(from).copied() else { break };
            if slot.0.is_some()
                && let Some(place) = self.pending.get_mut(to)
            {
                *place = slot;
                to = to.saturating_add(1);
            }
        }
        for place in self.pending.iter_mut().skip(to) {
            *place = EventSlot(None);
        }
    }

    /// Forgets requests, events and masks.
    pub(crate) fn clear(&mut self) {
        self.outstanding = 0;
        self.pending.fill(EventSlot(None));
        self.masked = 0;
    }

    /// Takes over the masks of a saved state.
    pub(crate) const fn set_masked(&mut self, masked: u8) {
        self.masked = masked;
    }

    /// Waiting events that fit.
    pub(crate) fn pending_capacity(&self) -> usize {
        self.pending.len()
    }
}

#[cfg(test)]
mod tests {
    use std::vec::Vec;

    use super::*;

    fn error(information: u8) -> AsynchronousEvent {
        AsynchronousEvent { kind: EventType::ERROR, information, log_page: 1, parameter: 0 }
    }

    #[test]
    fn reported_types_stay_masked_until_their_page_is_read() {
        let (mut requests, mut slots) = ([CommandId::new(0); 2], [EventSlot::new(); 2]);
        let mut events = Events::new(&mut requests, &mut slots);
        events.raise(error(0));
        events.raise(error(0));
        events.raise(error(1));
        events.raise(error(2));
        assert_eq!(
            events.pending().collect::<Vec<_>>(),
            [error(0), error(1)],
            "merged, and the third dropped"
        );
        assert_eq!(events.take_event(), Some(error(0)));
        assert_eq!(events.take_event(), None, "masked");
        events.page_read(EventType::ERROR, 1);
        assert_eq!(events.take_event(), None, "what waited was cleared with the page");
        events.raise(error(1));
        assert_eq!(events.take_event(), Some(error(1)));
    }

    #[test]
    fn requests_up_to_the_limit_oldest_first() {
        let (mut requests, mut slots) = ([CommandId::new(0); 3], [EventSlot::new(); 1]);
        let mut events = Events::new(&mut requests, &mut slots);
        for id in [7, 8, 9] {
            assert!(events.add_request(CommandId::new(id)));
        }
        assert!(!events.add_request(CommandId::new(10)));
        assert!(events.abort_request(CommandId::new(8)));
        assert!(!events.abort_request(CommandId::new(8)));
        assert_eq!(events.take_request(), Some(CommandId::new(7)));
        assert_eq!(events.requests(), [CommandId::new(9)]);
    }
}

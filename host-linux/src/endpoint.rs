// SPDX-License-Identifier: MIT OR Apache-2.0
//! The guest's controller as the guest reaches it: one register space whose other end moves.
//!
//! Before the migration accesses go to the source, afterwards to the destination. In between the endpoint is held:
//! writes are kept in their order (of several writes to one doorbell only the last counts) and sent to whichever
//! side resumes.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Mutex;

use nvme_core::register::{Offset, RegisterIo};

use crate::sync::lock;

/// First byte of the doorbells; everything below is a property.
pub(crate) const DOORBELLS: u32 = 0x1000;
/// Writes kept while held, at most. A guest has one doorbell per queue, so only a flood of property writes gets here.
const HELD_LIMIT: usize = 1 << 18;
const CC: u32 = 0x14;
/// AQA, ASQ and ACQ: what a controller needs to know before it is enabled.
const ADMIN_QUEUE: std::ops::Range<u32> = 0x24..0x38;

/// Why a register access failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AccessError {
    /// The subsystem has stopped.
    Stopped,
    /// The offset is not a multiple of four or lies beyond the controller's register space.
    Outside(u32),
    /// More writes than this were made while the endpoint was held.
    Held(usize),
}

impl fmt::Display for AccessError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Stopped => f.write_str("the subsystem has stopped"),
            Self::Outside(offset) => write!(f, "register offset {offset:#x} does not exist"),
            Self::Held(limit) => write!(f, "more than {limit} writes while the controller was suspended"),
        }
    }
}

impl std::error::Error for AccessError {}

/// Where the guest's accesses go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Attachment {
    /// To the source.
    Source,
    /// Nowhere yet: writes are kept.
    Held,
    /// To the destination.
    Destination,
}

/// A register space whose other end can be moved while the guest uses it.
#[derive(Debug)]
pub struct Endpoint<R> {
    source: R,
    destination: R,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    attachment: Attachment,
    /// How often it was held.
    holds: u64,
    /// Writes kept while held, in order.
    held: Vec<(u32, u32)>,
    /// Last value the guest wrote to each property before it was held: what the suspended controller has.
    programmed: BTreeMap<u32, u32>,
}

impl State {
    fn keep(&mut self, offset: u32, value: u32) -> Result<(), AccessError> {
        // A doorbell's value is absolute, so only the last one matters, unless a property was written in between.
        if offset >= DOORBELLS {
            let since_property = self.held.iter_mut().rev().take_while(|(at, _)| *at >= DOORBELLS);
            if let Some((_, held)) = since_property.into_iter().find(|(at, _)| *at == offset) {
                *held = value;
                return Ok(());
            }
        }
        if self.held.len() == HELD_LIMIT {
            return Err(AccessError::Held(HELD_LIMIT));
        }
        self.held.push((offset, value));
        Ok(())
    }
}

impl<R: RegisterIo<Error = AccessError>> Endpoint<R> {
    /// An endpoint attached to `source`.
    pub fn new(source: R, destination: R) -> Self {
        let state =
            State { attachment: Attachment::Source, holds: 0, held: Vec::new(), programmed: BTreeMap::new() };
        Self { source, destination, state: Mutex::new(state) }
    }

    /// Where accesses go now.
    pub fn attachment(&self) -> Attachment {
        lock(&self.state).attachment
    }

    /// Keeps writes from now on.
    pub fn hold(&self) {
        let mut state = lock(&self.state);
        if state.attachment != Attachment::Held {
            state.holds += 1;
        }
        state.attachment = Attachment::Held;
    }

    /// How often writes have begun to be kept, and whether they are now.
    pub(crate) fn holds(&self) -> (u64, bool) {
        let state = lock(&self.state);
        (state.holds, state.attachment == Attachment::Held)
    }

    /// Attaches to one side again and sends it what was kept, before any later access.
    ///
    /// # Errors
    /// The side cannot be reached; it is attached nevertheless.
    pub fn attach(&self, side: Attachment) -> Result<(), AccessError> {
        let mut state = lock(&self.state);
        state.attachment = side;
        if side == Attachment::Held {
            return Ok(());
        }
        let held = std::mem::take(&mut state.held);
        state.programmed.extend(held.iter().copied().filter(|(at, _)| *at < DOORBELLS));
        match side {
            Attachment::Held => Ok(()),
            Attachment::Source => Self::send(&self.source, &held),
            Attachment::Destination => Self::send(&self.destination, &held),
        }
    }

    /// Disables one side's controller, whatever it was given: it forgets its queues and, if it was suspended, does not
    /// run when the suspension ends. Without effect for the side that the guest is attached to, and while held for the
    /// source.
    ///
    /// # Errors
    /// The side cannot be reached.
    pub fn disable(&self, side: Attachment) -> Result<(), AccessError> {
        let state = lock(&self.state);
        match (side, state.attachment) {
            (Attachment::Source, Attachment::Destination) => Self::send(&self.source, &[(CC, 0)]),
            (Attachment::Destination, Attachment::Source | Attachment::Held) => {
                Self::send(&self.destination, &[(CC, 0)])
            }
            _ => Ok(()),
        }
    }

    fn send(to: &R, writes: &[(u32, u32)]) -> Result<(), AccessError> {
        writes.iter().try_for_each(|(offset, value)| to.write32(Offset::new(*offset), *value))
    }

    /// Programs the destination's admin queue properties, then its configuration, as the guest did at the source
    /// before it was held. What it has written since then comes later, with [`attach`](Self::attach).
    ///
    /// # Errors
    /// The destination cannot be reached.
    pub fn restore_properties(&self) -> Result<(), AccessError> {
        let state = lock(&self.state);
        let queue: Vec<_> = state.programmed.range(ADMIN_QUEUE).map(|(at, value)| (*at, *value)).collect();
        Self::send(&self.destination, &queue)?;
        let configuration = state.programmed.get(&CC).map(|value| (CC, *value));
        Self::send(&self.destination, configuration.as_slice())
    }
}

impl<R: RegisterIo<Error = AccessError>> RegisterIo for Endpoint<R> {
    type Error = AccessError;

    fn read32(&self, offset: Offset) -> Result<u32, AccessError> {
        let state = lock(&self.state);
        match state.attachment {
            Attachment::Source => self.source.read32(offset),
            Attachment::Destination => self.destination.read32(offset),
            // The suspended controller still answers, except where the guest has just written something else.
            Attachment::Held => match state.held.iter().rev().find(|(at, _)| *at == offset.bytes()) {
                Some((_, value)) => Ok(*value),
                None => self.source.read32(offset),
            },
        }
    }

    fn write32(&self, offset: Offset, value: u32) -> Result<(), AccessError> {
        let mut state = lock(&self.state);
        if offset.bytes() < DOORBELLS && state.attachment != Attachment::Held {
            state.programmed.insert(offset.bytes(), value);
        }
        match state.attachment {
            Attachment::Source => self.source.write32(offset, value),
            Attachment::Destination => self.destination.write32(offset, value),
            Attachment::Held => state.keep(offset.bytes(), value),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;

    #[derive(Clone, Debug)]
    struct Recorder(Arc<Mutex<Vec<(u32, u32)>>>, u32);

    impl Recorder {
        fn new(value: u32) -> Self {
            Self(Arc::default(), value)
        }

        fn taken(&self) -> Vec<(u32, u32)> {
            std::mem::take(&mut lock(&self.0))
        }
    }

    impl RegisterIo for Recorder {
        type Error = AccessError;

        fn read32(&self, _offset: Offset) -> Result<u32, AccessError> {
            Ok(self.1)
        }

        fn write32(&self, offset: Offset, value: u32) -> Result<(), AccessError> {
            lock(&self.0).push((offset.bytes(), value));
            Ok(())
        }
    }

    fn endpoint() -> (Recorder, Recorder, Endpoint<Recorder>) {
        let (source, destination) = (Recorder::new(1), Recorder::new(2));
        (source.clone(), destination.clone(), Endpoint::new(source, destination))
    }

    #[test]
    fn held_writes_arrive_in_order_at_the_side_that_resumes() {
        type Writes = &'static [(u32, u32)];
        let table: &[(&str, Writes, Writes)] = &[
            ("nothing", &[], &[]),
            ("one doorbell", &[(0x1008, 1), (0x1008, 2), (0x1008, 3)], &[(0x1008, 3)]),
            (
                "two doorbells",
                &[(0x1008, 1), (0x100C, 5), (0x1008, 2), (0x100C, 6)],
                &[(0x1008, 2), (0x100C, 6)],
            ),
            ("properties keep every write", &[(0x0C, 1), (0x0C, 2)], &[(0x0C, 1), (0x0C, 2)]),
            (
                "a property stands between doorbell writes",
                &[(0x1008, 1), (0x14, 0), (0x1008, 2), (0x1008, 3)],
                &[(0x1008, 1), (0x14, 0), (0x1008, 3)],
            ),
        ];
        for (name, writes, expected) in table {
            for side in [Attachment::Source, Attachment::Destination] {
                let (source, destination, endpoint) = endpoint();
                endpoint.hold();
                for (offset, value) in *writes {
                    endpoint.write32(Offset::new(*offset), *value).expect("kept");
                }
                assert!(
                    source.taken().is_empty() && destination.taken().is_empty(),
                    "{name}: sent too early"
                );
                endpoint.attach(side).expect("attach");
                endpoint.write32(Offset::new(0x1000), 77).expect("sent");
                let (got, other) = match side {
                    Attachment::Source => (source.taken(), destination.taken()),
                    _ => (destination.taken(), source.taken()),
                };
                assert_eq!(got[..got.len() - 1], **expected, "{name} {side:?}");
                assert_eq!(got.last(), Some(&(0x1000, 77)), "{name} {side:?}");
                assert!(other.is_empty(), "{name} {side:?}: the other side saw something");
            }
        }
    }

    #[test]
    fn reads_follow_the_attachment_and_the_writes_held() {
        let (_, _, endpoint) = endpoint();
        let read = |offset| endpoint.read32(Offset::new(offset)).expect("read");
        assert_eq!(read(0x1C), 1, "source");
        endpoint.hold();
        assert_eq!(read(0x1C), 1, "a suspended source still answers");
        endpoint.write32(Offset::new(0x14), 0x460001).expect("kept");
        assert_eq!(read(0x14), 0x460001, "not older than the write before it");
        endpoint.attach(Attachment::Destination).expect("attach");
        assert_eq!(read(0x1C), 2, "destination");
    }

    #[test]
    fn properties_are_restored_queue_first_and_doorbells_never() {
        let (source, destination, endpoint) = endpoint();
        for (offset, value) in [(0x14, 1), (0x28, 0xA000), (0x2C, 0), (0x24, 7), (0x1000, 5), (0x30, 0xB000)]
        {
            endpoint.write32(Offset::new(offset), value).expect("write");
        }
        assert_eq!(source.taken().len(), 6);
        endpoint.hold();
        // Written while held: for whoever resumes, once and in its place.
        endpoint.write32(Offset::new(0x14), 0).expect("kept");
        endpoint.write32(Offset::new(0x24), 9).expect("kept");
        endpoint.restore_properties().expect("restore");
        assert_eq!(destination.taken(), [(0x24, 7), (0x28, 0xA000), (0x2C, 0), (0x30, 0xB000), (0x14, 1)]);
        endpoint.attach(Attachment::Destination).expect("attach");
        assert_eq!(destination.taken(), [(0x14, 0), (0x24, 9)]);
        endpoint.hold();
        endpoint.restore_properties().expect("restore");
        assert_eq!(destination.taken(), [(0x24, 9), (0x28, 0xA000), (0x2C, 0), (0x30, 0xB000), (0x14, 0)]);
    }

    #[test]
    fn r10_only_the_side_without_the_guest_is_disabled() {
        let table = [
            (Attachment::Source, Attachment::Source, 0, 0),
            (Attachment::Source, Attachment::Destination, 0, 1),
            (Attachment::Held, Attachment::Source, 0, 0),
            (Attachment::Held, Attachment::Destination, 0, 1),
            (Attachment::Destination, Attachment::Source, 1, 0),
            (Attachment::Destination, Attachment::Destination, 0, 0),
        ];
        for (attachment, side, at_source, at_destination) in table {
            let (source, destination, endpoint) = endpoint();
            endpoint.attach(attachment).expect("attach");
            endpoint.disable(side).expect("disable");
            let expected = |count| vec![(0x14, 0); count];
            assert_eq!(source.taken(), expected(at_source), "{attachment:?} {side:?}");
            assert_eq!(destination.taken(), expected(at_destination), "{attachment:?} {side:?}");
        }
    }

    #[test]
    fn a_flood_of_held_writes_ends_with_an_error() {
        let (_, _, endpoint) = endpoint();
        endpoint.hold();
        for _ in 0..HELD_LIMIT {
            endpoint.write32(Offset::new(0x0C), 1).expect("kept");
        }
        assert_eq!(endpoint.write32(Offset::new(0x0C), 1), Err(AccessError::Held(HELD_LIMIT)));
        assert_eq!(endpoint.attachment(), Attachment::Held);
    }
}

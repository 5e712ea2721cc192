// SPDX-License-Identifier: MIT OR Apache-2.0
//! The guest's controller as the guest reaches it: one register space whose other end moves.
//!
//! Before the migration accesses go to the source, afterwards to the destination. In between the endpoint is held:
//! writes are kept in their order (of several writes to one doorbell only the last counts) and sent to whichever
//! side resumes.

use std::collections::HashMap;
use std::fmt;
use std::sync::Mutex;

use nvme_core::mmio::MmioError;
use nvme_core::register::{Offset, RegisterIo};

use crate::backend::RegisterFileError;
use crate::sync::lock;
use crate::vfio_user;

/// First byte of the doorbells; everything below is a property.
pub(crate) const DOORBELLS: u32 = 0x1000;
/// Bytes of register space of a controller: properties and the doorbells of 65,536 queue pairs.
pub(crate) const REGISTER_SPACE: u32 = DOORBELLS + 65_536 * 8;
/// Writes kept while held, at most. A guest has one doorbell per queue, so only a flood of property writes gets here.
const HELD_LIMIT: usize = 1 << 18;
const CC: u32 = 0x14;
const CSTS: u32 = 0x1C;
/// CSTS.RDY and CSTS.CFS.
const READY: u32 = 1;
const READY_AND_FATAL: u32 = 3;
/// AQA, ASQ and ACQ, which a controller needs to know before it is enabled, and then CC.
const CONFIGURATION: [u32; 6] = [0x24, 0x28, 0x2C, 0x30, 0x34, CC];

/// Why a register access failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AccessError {
    /// The subsystem has stopped.
    Stopped,
    /// The offset is not a multiple of four or lies beyond the controller's register space.
    Outside(u32),
    /// More writes than this were made while the endpoint was held.
    Held(usize),
    /// The mapped register space of a PCI function has no such register.
    Function(MmioError),
    /// The server of a controller behind a socket refuses the access.
    Server(vfio_user::Error),
    /// Configuration space cannot be written.
    Configuration,
    /// The controller belongs to somebody else, and this register cannot be reached.
    Absent(u32),
    /// The file with the registers of somebody else's controller does not show them any more.
    File(RegisterFileError),
}

impl fmt::Display for AccessError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Stopped => f.write_str("the subsystem has stopped"),
            Self::Outside(offset) => write!(f, "register offset {offset:#x} does not exist"),
            Self::Held(limit) => write!(f, "more than {limit} writes while the controller was suspended"),
            Self::Function(error) => error.fmt(f),
            Self::Server(error) => error.fmt(f),
            Self::Absent(offset) => write!(
                f,
                "register {offset:#x} belongs to somebody else's controller: only its owner writes it (--restore COMMAND), and what it \
                 holds is known by --source-registers FILE or --properties FILE"
            ),
            Self::File(error) => {
                write!(f, "the file with the registers of somebody else's controller {error}")
            }
            Self::Configuration => f.write_str("the function's configuration space cannot be written"),
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

/// The registers of a controller whose access to memory can be taken away, as a host does with the Bus Master Enable bit
/// of a PCI function.
pub trait BusMaster: RegisterIo<Error = AccessError> {
    /// Gives the controller its access to memory, or takes it away: no access is under way any more once this returns,
    /// and every later one fails.
    ///
    /// # Errors
    /// The controller cannot be reached. It has stopped then, and accesses no memory either.
    fn set_bus_master(&self, enabled: bool) -> Result<(), AccessError>;
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
    held: Held,
}

/// Writes kept while held.
#[derive(Debug, Default)]
struct Held {
    /// In order.
    writes: Vec<(u32, u32)>,
    /// Where among the writes each doorbell lies that was written since the last property.
    doorbells: HashMap<u32, usize>,
    /// The last value of each property that a host reads back as it wrote it.
    configuration: HashMap<u32, u32>,
}

impl Held {
    fn keep(&mut self, offset: u32, value: u32) -> Result<(), AccessError> {
        // A doorbell's value is absolute, so only the last one matters, unless a property was written in between.
        if let Some((_, held)) = self.doorbells.get(&offset).and_then(|at| self.writes.get_mut(*at)) {
            *held = value;
            return Ok(());
        }
        if self.writes.len() == HELD_LIMIT {
            return Err(AccessError::Held(HELD_LIMIT));
        }
        if offset >= DOORBELLS {
            self.doorbells.insert(offset, self.writes.len());
        } else {
            self.doorbells.clear();
            if CONFIGURATION.contains(&offset) {
                self.configuration.insert(offset, value);
            }
        }
        self.writes.push((offset, value));
        Ok(())
    }
}

/// Refuses what no controller has.
pub(crate) fn check(offset: Offset) -> Result<(), AccessError> {
    if offset.bytes() < REGISTER_SPACE && offset.bytes().is_multiple_of(4) {
        Ok(())
    } else {
        Err(AccessError::Outside(offset.bytes()))
    }
}

impl<R: RegisterIo<Error = AccessError>> Endpoint<R> {
    /// An endpoint attached to `source`.
    pub fn new(source: R, destination: R) -> Self {
        let state = State { attachment: Attachment::Source, holds: 0, held: Held::default() };
        Self { source, destination, state: Mutex::new(state) }
    }

    /// Where accesses go now.
    pub fn attachment(&self) -> Attachment {
        lock(&self.state).attachment
    }

    /// Keeps writes from now on. What was written before has reached the controller once this returns, so that the
    /// controller's state, read afterwards, has it.
    pub fn hold(&self) {
        let mut state = lock(&self.state);
        let before = std::mem::replace(&mut state.attachment, Attachment::Held);
        // A read comes back after all writes before it. A controller that cannot be reached keeps nothing to lose.
        let _reached = match before {
            Attachment::Held => return,
            Attachment::Source => self.source.read32(Offset::new(CSTS)),
            Attachment::Destination => self.destination.read32(Offset::new(CSTS)),
        };
        state.holds += 1;
    }

    /// How often writes have begun to be kept, and whether they are now.
    pub(crate) fn holds(&self) -> (u64, bool) {
        let state = lock(&self.state);
        (state.holds, state.attachment == Attachment::Held)
    }

    /// Attaches to one side again and sends it what was kept, before any later access.
    ///
    /// # Errors
    /// The side refuses a write or cannot be reached: the first error. It is attached nevertheless, and was sent
    /// everything that followed.
    pub fn attach(&self, side: Attachment) -> Result<(), AccessError> {
        let mut state = lock(&self.state);
        state.attachment = side;
        if side == Attachment::Held {
            return Ok(());
        }
        let held = std::mem::take(&mut state.held).writes;
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

    /// Whether one side's controller takes commands: it is ready, without a fatal status.
    pub fn is_ready(&self, side: Attachment) -> bool {
        let status = match side {
            Attachment::Held => return false,
            Attachment::Source => self.source.read32(Offset::new(CSTS)),
            Attachment::Destination => self.destination.read32(Offset::new(CSTS)),
        };
        // All ones, from a controller that is gone, are no ready status.
        status.is_ok_and(|status| status & READY_AND_FATAL == READY)
    }

    /// Sends all writes, whatever becomes of one, and returns the first error.
    fn send(to: &R, writes: &[(u32, u32)]) -> Result<(), AccessError> {
        let mut first = Ok(());
        for (offset, value) in writes {
            first = first.and(to.write32(Offset::new(*offset), *value));
        }
        first
    }

    /// Programs the destination's admin queue properties, then its configuration, as they are at the suspended source.
    /// What the guest has written since it was held comes later, with [`attach`](Self::attach).
    ///
    /// # Errors
    /// A side cannot be reached.
    pub fn restore_properties(&self) -> Result<(), AccessError> {
        let _state = lock(&self.state);
        for offset in CONFIGURATION.map(Offset::new) {
            self.destination.write32(offset, self.source.read32(offset)?)?;
        }
        Ok(())
    }
}

impl<R: BusMaster> Endpoint<R> {
    /// Gives one side's controller its access to the guest's memory, or takes it away. Without effect for
    /// [`Attachment::Held`].
    ///
    /// # Errors
    /// The side cannot be reached.
    pub fn set_bus_master(&self, side: Attachment, enabled: bool) -> Result<(), AccessError> {
        match side {
            Attachment::Held => Ok(()),
            Attachment::Source => self.source.set_bus_master(enabled),
            Attachment::Destination => self.destination.set_bus_master(enabled),
        }
    }
}

impl<R: RegisterIo<Error = AccessError>> RegisterIo for Endpoint<R> {
    type Error = AccessError;

    fn read32(&self, offset: Offset) -> Result<u32, AccessError> {
        check(offset)?;
        let state = lock(&self.state);
        match state.attachment {
            Attachment::Source => self.source.read32(offset),
            Attachment::Destination => self.destination.read32(offset),
            // The suspended controller still answers, except where the guest has just written something else.
            Attachment::Held => match state.held.configuration.get(&offset.bytes()) {
                Some(value) => Ok(*value),
                None => self.source.read32(offset),
            },
        }
    }

    fn write32(&self, offset: Offset, value: u32) -> Result<(), AccessError> {
        check(offset)?;
        let mut state = lock(&self.state);
        match state.attachment {
            Attachment::Source => self.source.write32(offset, value),
            Attachment::Destination => self.destination.write32(offset, value),
            Attachment::Held => state.held.keep(offset.bytes(), value),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;

    /// Records writes and answers with one value, but for registers that have one of their own. Refuses one offset.
    #[derive(Clone, Debug)]
    struct Recorder {
        writes: Arc<Mutex<Vec<(u32, u32)>>>,
        registers: Arc<Mutex<HashMap<u32, u32>>>,
        value: u32,
        refused: u32,
    }

    impl Recorder {
        fn new(value: u32) -> Self {
            Self { writes: Arc::default(), registers: Arc::default(), value, refused: u32::MAX }
        }

        fn set(&self, offset: u32, value: u32) {
            lock(&self.registers).insert(offset, value);
        }

        fn taken(&self) -> Vec<(u32, u32)> {
            std::mem::take(&mut lock(&self.writes))
        }
    }

    impl RegisterIo for Recorder {
        type Error = AccessError;

        fn read32(&self, offset: Offset) -> Result<u32, AccessError> {
            Ok(lock(&self.registers).get(&offset.bytes()).copied().unwrap_or(self.value))
        }

        fn write32(&self, offset: Offset, value: u32) -> Result<(), AccessError> {
            if offset.bytes() == self.refused {
                return Err(AccessError::Outside(offset.bytes()));
            }
            lock(&self.writes).push((offset.bytes(), value));
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
        for (offset, shown) in
            [(0x14, true), (0x24, true), (0x28, true), (0x34, true), (0x1C, false), (0x0C, false)]
        {
            endpoint.write32(Offset::new(offset), 0x460001).expect("kept");
            // Not older than the write before it, and not what was never there: status is cleared by writing ones.
            assert_eq!(read(offset), if shown { 0x460001 } else { 1 }, "{offset:#x}");
        }
        endpoint.attach(Attachment::Destination).expect("attach");
        assert_eq!(read(0x1C), 2, "destination");
    }

    #[test]
    fn the_source_s_own_properties_are_restored_queue_first() {
        let (source, destination, endpoint) = endpoint();
        // What the guest writes is not what the controller makes of it.
        for (offset, value) in [(0x14, 0x46_0781), (0x28, 0xA123), (0x24, 7), (0x1000, 5)] {
            endpoint.write32(Offset::new(offset), value).expect("write");
        }
        assert_eq!(source.taken().len(), 4);
        let properties =
            [(0x24, 0x1F), (0x28, 0xA000), (0x2C, 1), (0x30, 0xB000), (0x34, 2), (0x14, 0x46_0001)];
        for (offset, value) in properties {
            source.set(offset, value);
        }
        endpoint.hold();
        // Written while held: for whoever resumes, once and in its place.
        endpoint.write32(Offset::new(0x14), 0).expect("kept");
        endpoint.write32(Offset::new(0x24), 9).expect("kept");
        endpoint.restore_properties().expect("restore");
        assert_eq!(destination.taken(), properties);
        endpoint.attach(Attachment::Destination).expect("attach");
        assert_eq!(destination.taken(), [(0x14, 0), (0x24, 9)]);
        assert!(source.taken().is_empty());
    }

    #[test]
    fn offsets_that_no_controller_has_are_refused_at_once_and_leave_no_trace() {
        for (name, held) in [("before", false), ("while held", true)] {
            let (source, destination, endpoint) = endpoint();
            if held {
                endpoint.hold();
            }
            for offset in [1, 2, 0x25, 0x1001, REGISTER_SPACE, u32::MAX] {
                let outside = AccessError::Outside(offset);
                assert_eq!(endpoint.write32(Offset::new(offset), 1), Err(outside), "{name}: {offset:#x}");
                assert_eq!(endpoint.read32(Offset::new(offset)), Err(outside), "{name}: {offset:#x}");
            }
            endpoint.write32(Offset::new(0x1008), 3).expect("a doorbell");
            endpoint.hold();
            endpoint.restore_properties().expect("restore");
            let restored: Vec<u32> = destination.taken().iter().map(|(offset, _)| *offset).collect();
            assert_eq!(restored, CONFIGURATION, "{name}");
            endpoint.attach(Attachment::Destination).expect(name);
            let got = if held { destination.taken() } else { source.taken() };
            assert_eq!(got, [(0x1008, 3)], "{name}");
        }
    }

    #[test]
    fn a_write_that_is_refused_loses_no_other() {
        let mut source = Recorder::new(1);
        source.refused = 0x1010;
        let endpoint = Endpoint::new(source.clone(), Recorder::new(2));
        endpoint.hold();
        for offset in [0x1008, 0x1010, 0x1018] {
            endpoint.write32(Offset::new(offset), 1).expect("kept");
        }
        assert_eq!(endpoint.attach(Attachment::Source), Err(AccessError::Outside(0x1010)));
        assert_eq!(source.taken(), [(0x1008, 1), (0x1018, 1)]);
        assert_eq!(endpoint.attachment(), Attachment::Source);
    }

    #[test]
    fn many_doorbells_are_held_as_fast_as_few() {
        let (source, _, endpoint) = endpoint();
        endpoint.hold();
        // Every doorbell there is, twice: a search through all that is held for each would not end in reasonable time.
        for value in 0..2 {
            for offset in (DOORBELLS..REGISTER_SPACE).step_by(4) {
                endpoint.write32(Offset::new(offset), value).expect("kept");
            }
        }
        endpoint.attach(Attachment::Source).expect("attach");
        let taken = source.taken();
        assert_eq!(taken.len(), 131_072);
        assert!(taken.iter().all(|(_, value)| *value == 1));
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

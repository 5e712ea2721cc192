// SPDX-License-Identifier: MIT OR Apache-2.0
//! An arena that finds misuse of device memory, for tests and for debug builds of a host.
//!
//! A [`CheckingArena`] wraps the host's arena. Each region it gives has two pieces of memory, the processor's and the
//! device's, whose address is the region's bus address. [`publish`](DmaArena::publish) copies from the one to the other,
//! [`acquire`](DmaArena::acquire) back, so that a forgotten call shows as stale data on machines that are coherent, too.
//! The device's piece holds [`FRESH`] bytes until something is published. Released memory is filled with [`RELEASED`]
//! bytes and kept from use for a while. Rules broken are [`Violation`]s; the arena itself never fails because of them.
//!
//! A third piece of memory notes what happened to each byte, so every region takes three times its length of the arena
//! below and time for every byte of an access.
//!
//! | Found | When |
//! |---|---|
//! | double release, foreign region, release without proof | at the release, always |
//! | release under an outstanding command | at the release, if a test says which are: [`CheckingArena::hold`] |
//! | processor's access, publish or acquire outside the region | at the access; reported by the next call that looks |
//! | processor's read of bytes that the device has changed | at the read, if the device's accesses are told |
//! | device's access out of range, to released memory or against the direction | if told: [`CheckingArena::device_access`] |
//! | device's read of bytes not published | if the device's accesses are told |
//! | publish over the device's bytes, acquire over the processor's | at the call; the former if accesses are told |
//! | command data not published or not acquired | at a release on the end of its command; not when given back in hand |
//! | write to released memory | when its quarantine ends, or when [`CheckingArena::inspect`] is called |
//!
//! Without [`CheckingArena::device_access`], as on a host with a real device, the rows with "if told" are not seen as
//! such: the device reads [`FRESH`] or old bytes, the driver reads old ones. Never seen are reads of released memory, a
//! write of the same value that is there already, a device that reads bytes between two publishes, and anything that
//! happens to memory after its quarantine. A stale read is known by bytes, not by value: reading bytes that the device
//! wrote again with what they held counts.
//!
//! ```
//! # #![allow(unsafe_code)]
//! use nvme_core::dma::checking::{Access, CheckingArena, Moment, RegionSlot, Violation};
//! use nvme_core::dma::{Direction, DmaArena, DmaError, Pool, give_back};
//!
//! /// `true` if the check finds the publish that is missing here.
//! fn finds_what_is_missing<A: DmaArena>(arena: &A) -> Result<bool, DmaError> {
//!     let (mut slots, mut found) = ([const { RegionSlot::new() }; 8], [None; 8]);
//!     let checking = CheckingArena::new(arena, &mut slots, &mut found);
//!     let data = checking.allocate(Pool::Data, 512, 512, Direction::ToDevice)?;
//!     data.write(0, b"never published")?;
//!     let result = checking.device_access(data.bus(), 512, Access::Read);
//!     let expected = Violation::MissingPublish { address: data.bus(), at: Moment::DeviceRead };
//!     give_back(&checking, data);
//!     Ok(result == Err(expected) && checking.count() == 1)
//! }
//! ```

use core::cell::RefCell;
use core::ops::Range;

use super::notes::Notes;
use super::{Direction, DmaArena, DmaError, DmaRegion, Evidence, Layout, Pool};
use crate::wire::BusAddr;

mod book;
mod violation;

use book::{Book, Entry, State};
pub use violation::{Access, Moment, Side, Violation};

/// What the device's piece holds where nothing was published. It has the phase tags of all queue entries set.
pub const FRESH: u8 = 0xA5;
/// What both pieces hold after the release.
pub const RELEASED: u8 = 0xDB;

/// Bytes copied or compared at once.
const CHUNK: usize = 256;

/// Room for the books of one region, live or in quarantine; an array of them is lent to the arena.
#[derive(Debug)]
pub struct RegionSlot(Option<Entry>);

impl RegionSlot {
    /// An empty slot.
    #[must_use]
    pub const fn new() -> Self {
        Self(None)
    }
}

impl Default for RegionSlot {
    fn default() -> Self {
        Self::new()
    }
}

/// See the [module](self). It is for one thread: the calls of driver and device follow each other.
#[derive(Debug)]
pub struct CheckingArena<'s, A: ?Sized> {
    inner: &'s A,
    book: RefCell<Book<'s>>,
}

impl<'s, A: DmaArena + ?Sized> CheckingArena<'s, A> {
    /// Checks what is done with memory of `inner`. `slots` bounds the regions that are live or in quarantine, and
    /// `violations` those that can be looked at later; further ones are only counted.
    ///
    /// Up to half of the slots hold regions in quarantine; see [`with_quarantine`](Self::with_quarantine).
    #[must_use]
    pub const fn new(
        inner: &'s A,
        slots: &'s mut [RegionSlot],
        violations: &'s mut [Option<Violation>],
    ) -> Self {
        let quarantine = slots.len() / 2;
        Self { inner, book: RefCell::new(Book::new(slots, violations, quarantine)) }
    }

    /// Keeps up to `regions` released regions from being used again, the last ones released. Fewer if slots are short.
    #[must_use]
    pub fn with_quarantine(self, regions: usize) -> Self {
        self.book.borrow_mut().set_quarantine(regions);
        self
    }

    /// The arena below.
    #[must_use]
    pub const fn inner(&self) -> &'s A {
        self.inner
    }

    /// Violations found so far. Looks at what regions have noted, not at memory in quarantine.
    #[must_use]
    pub fn count(&self) -> usize {
        let mut book = self.book.borrow_mut();
        book.collect_all(self.inner);
        book.count()
    }

    /// The violation found as number `index`, from zero on, if it was kept.
    #[must_use]
    pub fn violation(&self, index: usize) -> Option<Violation> {
        let mut book = self.book.borrow_mut();
        book.collect_all(self.inner);
        book.violation(index)
    }

    /// Looks at everything, memory in quarantine too, and returns the violations found so far. Takes time for each byte
    /// in quarantine.
    pub fn inspect(&self) -> usize {
        let mut book = self.book.borrow_mut();
        book.collect_all(self.inner);
        book.inspect(self.inner);
        book.count()
    }

    /// Forgets the violations found so far and returns how many there were.
    pub fn take_count(&self) -> usize {
        let mut book = self.book.borrow_mut();
        book.collect_all(self.inner);
        book.forget()
    }

    /// Regions handed out and not released.
    #[must_use]
    pub fn live(&self) -> usize {
        self.book.borrow().live(None)
    }

    /// Regions handed out from `pool` and not released.
    #[must_use]
    pub fn live_in(&self, pool: Pool) -> usize {
        self.book.borrow().live(Some(pool))
    }

    /// A command that uses the region with the byte at `address` is outstanding from now on: the region must not be
    /// released before [`let_go`](Self::let_go). Counted, so several commands may use one region. Returns whether there
    /// is such a region.
    pub fn hold(&self, address: BusAddr) -> bool {
        self.with_entry(address, |entry| entry.held = entry.held.saturating_add(1))
    }

    /// One command that uses the region with the byte at `address` has ended. Returns whether there is such a region.
    pub fn let_go(&self, address: BusAddr) -> bool {
        self.with_entry(address, |entry| entry.held = entry.held.saturating_sub(1))
    }

    /// The device holds nothing any more: it is disabled.
    pub fn let_go_of_all(&self) {
        self.book.borrow_mut().for_each(|entry| entry.held = 0);
    }

    fn with_entry(&self, address: BusAddr, change: impl FnOnce(&mut Entry)) -> bool {
        let mut book = self.book.borrow_mut();
        match book.at_address(self.inner, address) {
            Some((entry, _)) if matches!(entry.state, State::Live) => {
                change(entry);
                true
            }
            _ => false,
        }
    }

    /// The device is about to access `len` bytes from `address` on: a test's host memory calls this before each access.
    /// Time for each byte.
    ///
    /// # Errors
    /// The first [`Violation`], which is recorded as well; the access may be made or refused.
    pub fn device_access(&self, address: BusAddr, len: usize, access: Access) -> Result<(), Violation> {
        let mut book = self.book.borrow_mut();
        let mut done = 0;
        let mut first = Ok(());
        while done < len {
            let at = address.plus(done as u64);
            let left = len.saturating_sub(done);
            let (piece, found) = match book.at_address(self.inner, at) {
                None => (left, Some(Violation::DeviceOutOfRange { address: at, access })),
                Some((entry, offset)) => {
                    let piece = entry.run(self.inner, offset).min(left);
                    (piece, entry.device_access(self.inner, offset..offset.saturating_add(piece), access))
                }
            };
            if let Some(violation) = found {
                book.record(violation);
                first = first.and(Err(violation));
            }
            done = done.saturating_add(piece.max(1));
        }
        first
    }

    fn make(
        &self,
        pool: Pool,
        len: usize,
        direction: Direction,
        device: impl Fn() -> Result<DmaRegion, DmaError>,
    ) -> Result<DmaRegion, DmaError> {
        let mut book = self.book.borrow_mut();
        // Memory in quarantine is not missed unless it is needed.
        let mut pieces = self.pieces(pool, len, &device);
        while pieces.is_err() && book.end_oldest(self.inner) {
            pieces = self.pieces(pool, len, &device);
        }
        let [cpu, device, notes] = pieces?;
        for offset in (0..len).step_by(CHUNK) {
            let fresh = [FRESH; CHUNK];
            let piece = fresh.get(..len.saturating_sub(offset).min(CHUNK)).unwrap_or(&fresh);
            device.write(offset, piece)?;
        }
        self.inner.publish(&device, 0..len);
        // SAFETY: the notes are as long as these need, zeroed, aligned and untouched by anybody else (guaranteed by the
        // arena below), and live in the same entry of the book as the region.
        let [kept, noted] = unsafe { [Notes::new(notes.cpu_address()), Notes::new(notes.cpu_address())] };
        let region = DmaRegion {
            cpu: cpu.cpu_address(),
            bus: device.bus(),
            len,
            pool,
            direction,
            layout: device.layout(),
            notes: noted,
        };
        match book.add(self.inner, Entry::new(self.inner, [cpu, device, notes], kept, len, pool, direction)) {
            Ok(()) => Ok(region),
            Err(entry) => {
                entry.give_back(self.inner);
                Err(DmaError::Exhausted { pool, bytes: len })
            }
        }
    }

    fn pieces(
        &self,
        pool: Pool,
        len: usize,
        device: &impl Fn() -> Result<DmaRegion, DmaError>,
    ) -> Result<[DmaRegion; 3], DmaError> {
        let device = device()?;
        // What the device must not touch; scattered memory is what arenas have most of.
        let own = |len| self.inner.allocate_scattered(pool, len, Direction::ToDevice);
        let cpu = match own(len) {
            Ok(region) => region,
            Err(error) => {
                // SAFETY: fresh from the arena, and nobody has seen its address.
                unsafe { self.inner.release_proved(device, Evidence::NeverSeen) };
                return Err(error);
            }
        };
        match own(Notes::bytes(len)) {
            Ok(notes) => Ok([cpu, device, notes]),
            Err(error) => {
                for region in [cpu, device] {
                    // SAFETY: the region was just made, so no device has been told of it.
                    unsafe { self.inner.release_proved(region, Evidence::NeverSeen) };
                }
                Err(error)
            }
        }
    }

    fn take_back(&self, region: DmaRegion, evidence: Option<Evidence>) {
        let mut book = self.book.borrow_mut();
        book.release(self.inner, &region, evidence);
    }

    fn transfer(&self, region: &DmaRegion, range: Range<usize>, moment: Moment) {
        let mut book = self.book.borrow_mut();
        book.transfer(self.inner, region, range, moment);
    }
}

// SAFETY: a region's processor memory is a region of the arena below, which that arena guarantees to be valid, aligned
// and nobody else's until it is released, and it is released only after this arena's region was. Its bus addresses are
// those of another region of the same arena and stand for the same bytes as far as `publish` and `acquire` go, which
// copy between both and then ask the arena below to make the copy visible. `release` looks the region up in the book.
unsafe impl<A: DmaArena + ?Sized> DmaArena for CheckingArena<'_, A> {
    fn allocate(
        &self,
        pool: Pool,
        len: usize,
        align: usize,
        direction: Direction,
    ) -> Result<DmaRegion, DmaError> {
        self.make(pool, len, direction, || self.inner.allocate(pool, len, align, direction))
    }

    fn allocate_scattered(
        &self,
        pool: Pool,
        len: usize,
        direction: Direction,
    ) -> Result<DmaRegion, DmaError> {
        self.make(pool, len, direction, || self.inner.allocate_scattered(pool, len, direction))
    }

    fn bus_address(&self, region: &DmaRegion, offset: usize) -> Result<BusAddr, DmaError> {
        region.check(offset, 1)?;
        if region.layout() == Layout::Contiguous {
            return Ok(region.bus().plus(offset as u64));
        }
        let outside = DmaError::OutOfRange { offset, len: 1, region: region.len() };
        match self.book.borrow_mut().find(region) {
            Some(entry) => self.inner.bus_address(&entry.device, offset),
            None => Err(outside),
        }
    }

    fn page_size(&self) -> usize {
        self.inner.page_size()
    }

    unsafe fn release(&self, region: DmaRegion) {
        self.take_back(region, None);
    }

    unsafe fn release_proved(&self, region: DmaRegion, evidence: Evidence) {
        self.take_back(region, Some(evidence));
    }

    fn publish(&self, region: &DmaRegion, range: Range<usize>) {
        self.transfer(region, range, Moment::Publish);
    }

    fn acquire(&self, region: &DmaRegion, range: Range<usize>) {
        self.transfer(region, range, Moment::Acquire);
    }
}

#[cfg(test)]
mod tests;

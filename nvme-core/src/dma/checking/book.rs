// SPDX-License-Identifier: MIT OR Apache-2.0
//! The books of a checking arena: what is known about each region.

use core::ops::Range;

use super::{Access, CHUNK, FRESH, Moment, RELEASED, RegionSlot, Side, Violation};
use crate::dma::notes::Notes;
use crate::dma::{Direction, DmaArena, DmaRegion, Evidence, Layout, Pool};
use crate::wire::BusAddr;

/// Where a region is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    /// Handed out.
    Live,
    /// Released as the n-th, and kept.
    Released(u64),
}

/// One region.
#[derive(Debug)]
pub(super) struct Entry {
    cpu: DmaRegion,
    pub(super) device: DmaRegion,
    notes: DmaRegion,
    /// The notes, as the region writes them.
    kept: Notes,
    len: usize,
    pool: Pool,
    direction: Direction,
    pub(super) state: State,
    /// Outstanding commands that use it, as told.
    pub(super) held: u32,
    /// Bus addresses of its first byte and its last, whatever their order in the region.
    bounds: (u64, u64),
    /// Where the last address asked for was found: the next is mostly there, too.
    last_run: usize,
}

/// Whether `evidence` says anything about memory of `pool`. Queues that no command named come back in hand, but nobody has
/// a Controller Data Queue in hand: the end of a command says nothing about it, nor does its owner.
const fn shows(evidence: Evidence, pool: Pool) -> bool {
    match (pool, evidence) {
        (_, Evidence::NeverSeen | Evidence::Disabled)
        | (Pool::Data, _)
        | (Pool::Queues, Evidence::InHand | Evidence::QueuesDeleted)
        | (Pool::ControllerData, Evidence::DataQueueReleased) => true,
        (Pool::Queues, Evidence::CommandEnded | Evidence::DataQueueReleased)
        | (Pool::ControllerData, Evidence::CommandEnded | Evidence::InHand | Evidence::QueuesDeleted) => {
            false
        }
    }
}

/// The ranges of at most [`CHUNK`] bytes that make up `range`.
fn chunks(range: Range<usize>) -> impl Iterator<Item = Range<usize>> {
    let end = range.end;
    range.step_by(CHUNK).map(move |start| start..start.saturating_add(CHUNK).min(end))
}

/// A copy of the bytes `range` of `region`, at most [`CHUNK`].
fn copy<'b>(region: &DmaRegion, range: Range<usize>, buffer: &'b mut [u8; CHUNK]) -> &'b mut [u8] {
    let len = range.end.saturating_sub(range.start).min(CHUNK);
    let bytes = buffer.get_mut(..len).unwrap_or_default();
    // Every caller stays inside the region.
    let _ = region.read(range.start, bytes);
    bytes
}

impl Entry {
    /// The books of a region of `len` bytes that has these three pieces.
    pub(super) fn new<A: DmaArena + ?Sized>(
        inner: &A,
        [cpu, device, notes]: [DmaRegion; 3],
        kept: Notes,
        len: usize,
        pool: Pool,
        direction: Direction,
    ) -> Self {
        let (state, bounds) = (State::Live, (u64::MAX, 0));
        let mut entry =
            Self { cpu, device, notes, kept, len, pool, direction, state, held: 0, bounds, last_run: 0 };
        let mut start = 0;
        while start < len {
            let run = entry.run(inner, start).max(1);
            let first = entry.address(inner, start);
            let last = first.plus(run.saturating_sub(1) as u64);
            entry.bounds = (entry.bounds.0.min(first.get()), entry.bounds.1.max(last.get()));
            start = start.saturating_add(run);
        }
        entry
    }

    /// What the region noted since this was last asked: an access outside, a stale read.
    fn noted<A: DmaArena + ?Sized>(&self, inner: &A) -> [Option<Violation>; 2] {
        let header = self.kept.take();
        let outside = header.outside.map(|(offset, len)| {
            let region = self.bus();
            Violation::CpuOutOfRange { region, offset, len }
        });
        let mut first = None;
        if header.stale {
            self.each_flag(0..self.len, |offset, flags| {
                if flags & Notes::STALE != 0 && first.is_none() {
                    first = Some(offset);
                }
                flags & !Notes::STALE
            });
        }
        let stale = first.map(|offset| {
            let address = self.address(inner, offset);
            Violation::MissingAcquire { address, at: Moment::CpuRead }
        });
        [outside, stale]
    }

    fn bus(&self) -> BusAddr {
        self.device.bus()
    }

    /// The bus address of a byte.
    fn address<A: DmaArena + ?Sized>(&self, inner: &A, offset: usize) -> BusAddr {
        inner.bus_address(&self.device, offset).unwrap_or(self.bus())
    }

    /// Bytes from `offset` on that follow each other on the bus.
    pub(super) fn run<A: DmaArena + ?Sized>(&self, inner: &A, offset: usize) -> usize {
        let left = self.len.saturating_sub(offset);
        match self.device.layout() {
            Layout::Contiguous => left,
            Layout::Scattered => {
                let page = inner.page_size();
                page.saturating_sub(offset.checked_rem(page).unwrap_or(0)).min(left)
            }
        }
    }

    /// Where in the region the byte at `address` lies.
    fn offset_of<A: DmaArena + ?Sized>(&mut self, inner: &A, address: BusAddr) -> Option<usize> {
        if !(self.bounds.0..=self.bounds.1).contains(&address.get()) {
            return None;
        }
        // Every run once, from the one of last time on.
        let mut start = self.last_run;
        let mut left = self.len;
        while left > 0 {
            let run = self.run(inner, start).max(1);
            let base = self.address(inner, start).get();
            if let Some(within) = address.get().checked_sub(base)
                && within < run as u64
            {
                self.last_run = start;
                return Some(start.saturating_add(usize::try_from(within).ok()?));
            }
            left = left.saturating_sub(run);
            start = start.saturating_add(run);
            if start >= self.len {
                start = 0;
            }
        }
        None
    }

    /// Changes the flags of `range` byte by byte: `change` gets the offset and the flags and returns the new ones.
    fn each_flag(&self, range: Range<usize>, mut change: impl FnMut(usize, u8) -> u8) {
        let mut buffer = [0; CHUNK];
        for range in chunks(range) {
            let at = Notes::flags_at(range.start);
            let flags = copy(&self.notes, at..Notes::flags_at(range.end), &mut buffer);
            for (offset, flags) in range.clone().zip(flags.iter_mut()) {
                *flags = change(offset, *flags);
            }
            let _ = self.notes.write(at, flags);
        }
    }

    pub(super) fn device_access<A: DmaArena + ?Sized>(
        &self,
        inner: &A,
        range: Range<usize>,
        access: Access,
    ) -> Option<Violation> {
        let address = self.address(inner, range.start);
        let len = range.end.saturating_sub(range.start);
        if self.state != State::Live {
            return Some(Violation::UseAfterRelease { address, len, side: Side::Device });
        }
        let mut first = None;
        self.each_flag(range, |offset, flags| {
            let (wrong, after) = match access {
                Access::Read => (flags & (Notes::CPU_WROTE | Notes::PUBLISHED) != Notes::PUBLISHED, flags),
                Access::Write => (
                    flags & Notes::CPU_WROTE != 0,
                    (flags & !Notes::CPU_WROTE) | Notes::DEVICE_WROTE | Notes::PUBLISHED,
                ),
            };
            if wrong && first.is_none() {
                first = Some(offset);
            }
            after
        });
        match (access, self.direction) {
            (Access::Read, Direction::FromDevice) | (Access::Write, Direction::ToDevice) => {
                Some(Violation::WrongDirection { address, access })
            }
            _ => first.map(|offset| Violation::MissingPublish {
                address: self.address(inner, offset),
                at: match access {
                    Access::Read => Moment::DeviceRead,
                    Access::Write => Moment::DeviceWrite,
                },
            }),
        }
    }

    /// Copies `range` to the device, or from it.
    fn transfer<A: DmaArena + ?Sized>(
        &self,
        inner: &A,
        range: Range<usize>,
        moment: Moment,
    ) -> Option<Violation> {
        let publish = moment == Moment::Publish;
        if !publish {
            inner.acquire(&self.device, range.clone());
        }
        let (from, to) = if publish { (&self.cpu, &self.device) } else { (&self.device, &self.cpu) };
        let mut buffer = [0; CHUNK];
        for range in chunks(range.clone()) {
            let bytes = copy(from, range.clone(), &mut buffer);
            let _ = to.write(range.start, bytes);
        }
        if publish {
            inner.publish(&self.device, range.clone());
        }
        let (lost, set) = match publish {
            true => (Notes::DEVICE_WROTE, Notes::PUBLISHED),
            false => (Notes::CPU_WROTE, Notes::ACQUIRED),
        };
        let mut first = None;
        self.each_flag(range, |offset, flags| {
            if flags & lost != 0 && first.is_none() {
                first = Some(offset);
            }
            (flags & !(Notes::CPU_WROTE | Notes::DEVICE_WROTE)) | set
        });
        let address = self.address(inner, first?);
        Some(match publish {
            true => Violation::MissingAcquire { address, at: moment },
            false => Violation::MissingPublish { address, at: moment },
        })
    }

    /// What the content says about a command that has ended and whose data lie here.
    fn unmoved<A: DmaArena + ?Sized>(&self, inner: &A) -> Option<Violation> {
        let (mut unpublished, mut unacquired, mut published) = (None, None, false);
        let (mut cpu_bytes, mut device_bytes) = ([0; CHUNK], [0; CHUNK]);
        inner.acquire(&self.device, 0..self.len);
        for range in chunks(0..self.len) {
            let cpu = copy(&self.cpu, range.clone(), &mut cpu_bytes);
            let device = copy(&self.device, range.clone(), &mut device_bytes);
            let mut bytes = cpu.iter().zip(device.iter());
            self.each_flag(range, |offset, flags| {
                let Some((cpu, device)) = bytes.next() else { return flags };
                let has = |flag| flags & flag != 0;
                published |= has(Notes::PUBLISHED);
                // A device that says nothing is known by what differs from the last time that both copies were equal.
                let same_before = has(Notes::PUBLISHED) || has(Notes::ACQUIRED);
                let changed = if same_before { cpu != device } else { *device != FRESH };
                if has(Notes::CPU_WROTE) {
                    unpublished = unpublished.or(Some(offset));
                } else if has(Notes::DEVICE_WROTE) || changed {
                    unacquired = unacquired.or(Some(offset));
                }
                flags
            });
        }
        let at = Moment::Release;
        // What the device only writes may have been cleared for nobody but the processor.
        let wanted = published || self.direction != Direction::FromDevice;
        match (unpublished.filter(|_| wanted), unacquired) {
            (Some(offset), _) => Some(Violation::MissingPublish { address: self.address(inner, offset), at }),
            (None, Some(offset)) => {
                Some(Violation::MissingAcquire { address: self.address(inner, offset), at })
            }
            (None, None) => None,
        }
    }

    /// Fills both pieces.
    fn fill<A: DmaArena + ?Sized>(&self, inner: &A, byte: u8) {
        let bytes = [byte; CHUNK];
        for range in chunks(0..self.len) {
            let bytes = bytes.get(..range.end.saturating_sub(range.start)).unwrap_or_default();
            let _ = self.cpu.write(range.start, bytes);
            let _ = self.device.write(range.start, bytes);
        }
        inner.publish(&self.device, 0..self.len);
    }

    /// The first byte that somebody wrote after the release.
    fn spoiled<A: DmaArena + ?Sized>(&self, inner: &A) -> Option<Violation> {
        inner.acquire(&self.device, 0..self.len);
        let mut buffer = [0; CHUNK];
        for (piece, side) in [(&self.device, Side::Device), (&self.cpu, Side::Cpu)] {
            for range in chunks(0..self.len) {
                let bytes = copy(piece, range.clone(), &mut buffer);
                if let Some(at) = bytes.iter().position(|byte| *byte != RELEASED) {
                    let address = self.address(inner, range.start.saturating_add(at));
                    return Some(Violation::UseAfterRelease { address, len: 1, side });
                }
            }
        }
        None
    }

    /// Everything back to the arena below.
    pub(super) fn give_back<A: DmaArena + ?Sized>(self, inner: &A) {
        for region in [self.cpu, self.device, self.notes] {
            // SAFETY: the region that stood for these was released, whose caller promised that the device lets them be, or
            // was never handed out.
            unsafe { inner.release_proved(region, Evidence::InHand) };
        }
    }
}

/// All regions and what was found about them.
#[derive(Debug)]
pub(super) struct Book<'s> {
    slots: &'s mut [RegionSlot],
    violations: &'s mut [Option<Violation>],
    count: usize,
    quarantine: usize,
    kept: usize,
    released: u64,
}

impl<'s> Book<'s> {
    pub(super) const fn new(
        slots: &'s mut [RegionSlot],
        violations: &'s mut [Option<Violation>],
        quarantine: usize,
    ) -> Self {
        Self { slots, violations, count: 0, quarantine, kept: 0, released: 0 }
    }

    pub(super) const fn set_quarantine(&mut self, regions: usize) {
        self.quarantine = regions;
    }

    pub(super) const fn count(&self) -> usize {
        self.count
    }

    pub(super) fn violation(&self, index: usize) -> Option<Violation> {
        self.violations.get(index).copied().flatten().filter(|_| index < self.count)
    }

    pub(super) fn forget(&mut self) -> usize {
        self.violations.fill(None);
        core::mem::take(&mut self.count)
    }

    pub(super) fn record(&mut self, violation: Violation) {
        if let Some(place) = self.violations.get_mut(self.count) {
            *place = Some(violation);
        }
        self.count = self.count.saturating_add(1);
    }

    pub(super) fn live(&self, pool: Option<Pool>) -> usize {
        let entries = self.slots.iter().flat_map(|slot| &slot.0);
        entries.filter(|e| e.state == State::Live && pool.is_none_or(|pool| e.pool == pool)).count()
    }

    pub(super) fn for_each(&mut self, change: impl FnMut(&mut Entry)) {
        self.slots.iter_mut().flat_map(|slot| &mut slot.0).for_each(change);
    }

    /// The region that `region` is a handle of, live or kept.
    pub(super) fn find(&mut self, region: &DmaRegion) -> Option<&mut Entry> {
        self.slots.iter_mut().flat_map(|slot| &mut slot.0).find(|entry| {
            entry.cpu.cpu_address() == region.cpu_address()
                && entry.len == region.len()
                && entry.bus() == region.bus()
        })
    }

    /// The region with the byte at `address`, and where in it.
    pub(super) fn at_address<A: DmaArena + ?Sized>(
        &mut self,
        inner: &A,
        address: BusAddr,
    ) -> Option<(&mut Entry, usize)> {
        let entries = self.slots.iter_mut().flat_map(|slot| &mut slot.0);
        entries.into_iter().find_map(|entry| entry.offset_of(inner, address).map(|offset| (entry, offset)))
    }

    /// Adds a region.
    ///
    /// # Errors
    /// The region, if no slot is free and none can be had from quarantine.
    pub(super) fn add<A: DmaArena + ?Sized>(&mut self, inner: &A, entry: Entry) -> Result<(), Entry> {
        if self.slots.iter().all(|slot| slot.0.is_some()) {
            self.end_oldest(inner);
        }
        match self.slots.iter_mut().find(|slot| slot.0.is_none()) {
            Some(slot) => {
                slot.0 = Some(entry);
                Ok(())
            }
            None => Err(entry),
        }
    }

    /// Takes up what regions have noted about the processor's accesses.
    pub(super) fn collect_all<A: DmaArena + ?Sized>(&mut self, inner: &A) {
        for n in 0..self.slots.len() {
            let Some(entry) = self.slots.get(n).and_then(|slot| slot.0.as_ref()) else { continue };
            for violation in entry.noted(inner).into_iter().flatten() {
                self.record(violation);
            }
        }
    }

    pub(super) fn transfer<A: DmaArena + ?Sized>(
        &mut self,
        inner: &A,
        region: &DmaRegion,
        range: Range<usize>,
        moment: Moment,
    ) {
        let (bus, whole) = (region.bus(), region.len());
        let found = match self.find(region) {
            None => Some(Violation::ForeignRegion { region: bus, len: whole }),
            Some(entry) if entry.state != State::Live => {
                Some(Violation::UseAfterRelease { address: bus, len: whole, side: Side::Cpu })
            }
            Some(_) if range.start > range.end || range.end > whole => {
                let len = range.end.saturating_sub(range.start);
                Some(Violation::CpuOutOfRange { region: bus, offset: range.start, len })
            }
            Some(entry) => entry.transfer(inner, range, moment),
        };
        if let Some(violation) = found {
            self.record(violation);
        }
    }

    pub(super) fn release<A: DmaArena + ?Sized>(
        &mut self,
        inner: &A,
        region: &DmaRegion,
        evidence: Option<Evidence>,
    ) {
        let (bus, len) = (region.bus(), region.len());
        let released = self.released;
        let entry = match self.find(region) {
            None => return self.record(Violation::ForeignRegion { region: bus, len }),
            Some(entry) if entry.state != State::Live => {
                return self.record(Violation::DoubleRelease { region: bus, len });
            }
            Some(entry) => entry,
        };
        let noted = entry.noted(inner);
        let proven = evidence.is_some_and(|evidence| shows(evidence, entry.pool));
        let unproven = (!proven).then_some(Violation::ReleaseWithoutProof { region: bus, len, evidence });
        let in_use =
            (entry.held > 0).then_some(Violation::ReleaseInUse { region: bus, len, commands: entry.held });
        let data_ended = entry.pool == Pool::Data && evidence == Some(Evidence::CommandEnded);
        let unmoved = if data_ended { entry.unmoved(inner) } else { None };
        entry.fill(inner, RELEASED);
        entry.state = State::Released(released);
        self.released = released.wrapping_add(1);
        self.kept = self.kept.saturating_add(1);
        for violation in noted.into_iter().chain([unproven, in_use, unmoved]).flatten() {
            self.record(violation);
        }
        while self.kept > self.quarantine && self.end_oldest(inner) {}
    }

    /// Looks at the region that was released first, and gives it back to the arena below; `false` if none is kept.
    pub(super) fn end_oldest<A: DmaArena + ?Sized>(&mut self, inner: &A) -> bool {
        let age = |slot: &RegionSlot| match &slot.0 {
            Some(Entry { state: State::Released(order), .. }) => Some(*order),
            _ => None,
        };
        let oldest = self.slots.iter_mut().filter(|slot| age(slot).is_some()).min_by_key(|slot| age(slot));
        let Some(entry) = oldest.and_then(|slot| slot.0.take()) else { return false };
        if let Some(violation) = entry.spoiled(inner) {
            self.record(violation);
        }
        entry.give_back(inner);
        self.kept = self.kept.saturating_sub(1);
        true
    }

    /// Looks at all memory in quarantine; what was written is reported once.
    pub(super) fn inspect<A: DmaArena + ?Sized>(&mut self, inner: &A) {
        for n in 0..self.slots.len() {
            let Some(entry) = self.slots.get(n).and_then(|slot| slot.0.as_ref()) else { continue };
            if entry.state == State::Live {
                continue;
            }
            if let Some(violation) = entry.spoiled(inner) {
                entry.fill(inner, RELEASED);
                self.record(violation);
            }
        }
    }
}

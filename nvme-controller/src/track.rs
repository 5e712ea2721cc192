// SPDX-License-Identifier: MIT OR Apache-2.0
//! Which host memory a controller has written: a bitmap of granules over the ranges being tracked. NVMe Base 2.1
//! §5.1.27.1.2, Track Memory Changes; §5.1.26.1.1, Tracked Memory Changes.

use nvme_core::wire::BusAddr;

/// Room for one tracked range of host memory.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TrackedRange {
    pub(crate) start: u64,
    pub(crate) granules: u32,
    pub(crate) first_bit: u64,
}

impl TrackedRange {
    /// An empty slot.
    #[must_use]
    pub const fn new() -> Self {
        Self { start: 0, granules: 0, first_bit: 0 }
    }
}

/// A run of changed granules of one range.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct DirtyRun {
    pub(crate) address: BusAddr,
    pub(crate) granules: u32,
}

/// Where a scan of the bitmap goes on.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Scan {
    range: usize,
    granule: u32,
}

/// Why ranges cannot be tracked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum TrackError {
    /// More ranges than slots, or more granules than bits.
    NoRoom,
}

/// The memory tracker of one controller.
#[derive(Debug)]
pub(crate) struct MemoryTracker<'s> {
    ranges: &'s mut [TrackedRange],
    used: usize,
    dirty: &'s mut [u64],
    /// log2 of the granule in bytes.
    shift: u8,
    manager: Option<usize>,
}

impl<'s> MemoryTracker<'s> {
    pub(crate) fn new(ranges: &'s mut [TrackedRange], dirty: &'s mut [u64]) -> Self {
        Self { ranges, used: 0, dirty, shift: 12, manager: None }
    }

    /// The controller (by index) that started tracking, if it goes on.
    pub(crate) const fn manager(&self) -> Option<usize> {
        self.manager
    }

    /// log2 of the granule in bytes.
    pub(crate) const fn shift(&self) -> u8 {
        self.shift
    }

    /// Ranges being tracked.
    pub(crate) const fn used(&self) -> usize {
        self.used
    }

    /// Ranges that could be tracked at once.
    pub(crate) fn capacity(&self) -> usize {
        if self.dirty.is_empty() { 0 } else { self.ranges.len() }
    }

    /// Granules that could be tracked at once.
    pub(crate) fn bits(&self) -> u64 {
        (self.dirty.len() as u64).saturating_mul(64)
    }

    /// Forgets all ranges and begins to collect new ones.
    pub(crate) fn prepare(&mut self, shift: u8) {
        self.used = 0;
        self.manager = None;
        self.shift = shift;
    }

    /// Adds a range of `granules` granules from `start` on.
    pub(crate) fn add(&mut self, start: BusAddr, granules: u32) -> Result<(), TrackError> {
        let first_bit = self
            .used
            .checked_sub(1)
            .and_then(|last| self.ranges.get(last))
            .map_or(0, |last| last.first_bit.saturating_add(u64::from(last.granules)));
        if first_bit.saturating_add(u64::from(granules)) > self.bits() {
            return Err(TrackError::NoRoom);
        }
        let slot = self.ranges.get_mut(self.used).ok_or(TrackError::NoRoom)?;
        *slot = TrackedRange { start: start.get(), granules, first_bit };
        self.used = self.used.saturating_add(1);
        Ok(())
    }

    /// Begins to track the ranges added, all clean.
    pub(crate) fn start(&mut self, manager: usize) {
        self.dirty.fill(0);
        self.manager = Some(manager);
    }

    /// Ends tracking and forgets everything.
    pub(crate) fn stop(&mut self) {
        self.used = 0;
        self.manager = None;
    }

    /// Notes that `len` bytes from `address` on were written.
    #[inline]
    pub(crate) fn mark(&mut self, address: BusAddr, len: usize) {
        if self.manager.is_some() && len > 0 {
            self.mark_tracked(address.get(), len as u64);
        }
    }

    fn mark_tracked(&mut self, address: u64, len: u64) {
        let last = address.saturating_add(len.saturating_sub(1));
        for range in self.ranges.iter().take(self.used) {
            let bytes = u64::from(range.granules) << self.shift;
            let end = range.start.saturating_add(bytes.saturating_sub(1));
            if range.granules == 0 || last < range.start || address > end {
                continue;
            }
            let from = address.max(range.start).saturating_sub(range.start) >> self.shift;
            let to = last.min(end).saturating_sub(range.start) >> self.shift;
            for granule in from..=to {
                let bit = range.first_bit.saturating_add(granule);
                if let Some(word) = usize::try_from(bit >> 6).ok().and_then(|at| self.dirty.get_mut(at)) {
                    *word |= 1 << (bit & 63);
                }
            }
        }
    }

    fn is_dirty(&self, bit: u64) -> bool {
        usize::try_from(bit >> 6)
            .ok()
            .and_then(|at| self.dirty.get(at))
            .is_some_and(|word| word & (1 << (bit & 63)) != 0)
    }

    /// The next run of changed granules, and clears it if `clear`. Bounded by the number of granules tracked.
    pub(crate) fn next_run(&mut self, scan: &mut Scan, clear: bool) -> Option<DirtyRun> {
        loop {
            let range = *self.ranges.get(..self.used)?.get(scan.range)?;
            let bit = |granule: u32| range.first_bit.saturating_add(u64::from(granule));
            let mut from = scan.granule;
            while from < range.granules && !self.is_dirty(bit(from)) {
                from = from.saturating_add(1);
            }
            if from >= range.granules {
                *scan = Scan { range: scan.range.saturating_add(1), granule: 0 };
                continue;
            }
            let mut to = from;
            while to < range.granules && self.is_dirty(bit(to)) {
                if clear
                    && let Some(word) =
                        usize::try_from(bit(to) >> 6).ok().and_then(|at| self.dirty.get_mut(at))
                {
                    *word &= !(1 << (bit(to) & 63));
                }
                to = to.saturating_add(1);
            }
            scan.granule = to;
            let address = BusAddr::new(range.start.saturating_add(u64::from(from) << self.shift));
            return Some(DirtyRun { address, granules: to.saturating_sub(from) });
        }
    }
}

#[cfg(test)]
mod tests {
    use std::vec::Vec;

    use super::*;

    #[test]
    fn writes_across_granules_and_ranges() {
        let (mut ranges, mut bits) = ([TrackedRange::new(); 3], [0; 4]);
        let mut tracker = MemoryTracker::new(&mut ranges, &mut bits);
        tracker.prepare(12);
        tracker.add(BusAddr::new(0x1000), 4).unwrap();
        tracker.add(BusAddr::new(0x10_0000), 100).unwrap();
        assert_eq!(tracker.add(BusAddr::new(0x90_0000), 4096), Err(TrackError::NoRoom));
        tracker.start(0);
        for (address, len) in
            [(0xFFF, 1), (0xFFF, 2), (0x4FFF, 0x2000), (0x10_0000 + 70 * 4096, 8192), (0x7000, 1)]
        {
            tracker.mark(BusAddr::new(address), len);
        }
        let mut all = |clear| {
            let mut scan = Scan::default();
            let mut runs = Vec::new();
            while let Some(run) = tracker.next_run(&mut scan, clear) {
                runs.push((run.address.get(), run.granules));
            }
            runs
        };
        let expected = [(0x1000, 1), (0x4000, 1), (0x10_0000 + 70 * 4096, 2)];
        assert_eq!(all(false), expected);
        assert_eq!(all(true), expected);
        assert_eq!(all(false), []);
    }
}

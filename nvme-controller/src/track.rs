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

    /// The work of looking at every tracked granule twice, in bytes transferred.
    pub(crate) fn scan_work(&self) -> u64 {
        let last = self.used.checked_sub(1).and_then(|last| self.ranges.get(last));
        last.map_or(0, |last| last.first_bit.saturating_add(u64::from(last.granules)) >> 2)
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

    fn word(&self, bit: u64) -> u64 {
        usize::try_from(bit >> 6).ok().and_then(|at| self.dirty.get(at)).copied().unwrap_or(0)
    }

    /// The first bit from `from` on that is `dirty`, or `end` if there is none before. Looks at whole words.
    fn find(&self, from: u64, end: u64, dirty: bool) -> u64 {
        let mut bit = from;
        while bit < end {
            let word = self.word(bit);
            let wanted = (if dirty { word } else { !word }) & (u64::MAX << (bit & 63));
            let base = bit & !63;
            if wanted != 0 {
                return base.saturating_add(u64::from(wanted.trailing_zeros())).min(end);
            }
            bit = base.saturating_add(64);
        }
        end
    }

    /// Makes the bits from `from` to before `end` clean.
    fn clear(&mut self, from: u64, end: u64) {
        let mut bit = from;
        while bit < end {
            let next = (bit | 63).saturating_add(1);
            let upper = if next <= end { u64::MAX } else { !(u64::MAX << (end & 63)) };
            if let Some(word) = usize::try_from(bit >> 6).ok().and_then(|at| self.dirty.get_mut(at)) {
                *word &= !((u64::MAX << (bit & 63)) & upper);
            }
            bit = next;
        }
    }

    /// The next run of changed granules, and clears it if `clear`. Bounded by the number of granules tracked.
    pub(crate) fn next_run(&mut self, scan: &mut Scan, clear: bool) -> Option<DirtyRun> {
        loop {
            let range = *self.ranges.get(..self.used)?.get(scan.range)?;
            let end = range.first_bit.saturating_add(u64::from(range.granules));
            let from = self.find(range.first_bit.saturating_add(u64::from(scan.granule)), end, true);
            if from >= end {
                *scan = Scan { range: scan.range.saturating_add(1), granule: 0 };
                continue;
            }
            let to = self.find(from, end, false);
            if clear {
                self.clear(from, to);
            }
            let before = from.saturating_sub(range.first_bit);
            // A run lies within its range, whose granules 32 bits count.
            let granules = u32::try_from(to.saturating_sub(from)).unwrap_or(u32::MAX);
            scan.granule = u32::try_from(before).unwrap_or(u32::MAX).saturating_add(granules);
            let address = BusAddr::new(range.start.saturating_add(before << self.shift));
            return Some(DirtyRun { address, granules });
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
    #[test]
    fn runs_found_word_by_word_are_those_found_bit_by_bit() {
        let mut random = 1_u64;
        let mut next = |below: u64| {
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (random >> 33) % below
        };
        for _ in 0..300 {
            let (mut ranges, mut bits) = ([TrackedRange::new(); 4], [0; 8]);
            let mut tracker = MemoryTracker::new(&mut ranges, &mut bits);
            tracker.prepare(12);
            let lengths = [next(140), next(70), next(3), next(200)];
            for (range, granules) in (0_u64..).zip(lengths) {
                tracker.add(BusAddr::new(range << 40), granules as u32).unwrap();
            }
            tracker.start(0);
            let mut expected = Vec::new();
            for (range, granules) in (0_u64..).zip(lengths) {
                let mut open = None;
                for granule in 0..granules {
                    let address = (range << 40) + granule * 4096;
                    if next(8) < 5 {
                        tracker.mark(BusAddr::new(address), 4096);
                        open.get_or_insert((address, 0)).1 += 1;
                    } else {
                        expected.extend(open.take());
                    }
                }
                expected.extend(open);
            }
            for expected in [&expected[..], &[]] {
                let mut scan = Scan::default();
                let run = |tracker: &mut MemoryTracker<'_>, scan: &mut Scan| {
                    tracker.next_run(scan, true).map(|run| (run.address.get(), run.granules))
                };
                let found: Vec<_> = core::iter::from_fn(|| run(&mut tracker, &mut scan)).collect();
                assert_eq!(found, expected, "{lengths:?}");
            }
        }
    }
}

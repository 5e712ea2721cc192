// SPDX-License-Identifier: MIT OR Apache-2.0
//! Which extents the first pass brings over: everything, or what the source reports as allocated.

use crate::dirty::DirtyMap;
use crate::migration::host::{Extent, ExtentKind};
use crate::wire::lba_status::{LbaStatusCondition, LbaStatusDescriptor, LbaStatusReport};
use crate::wire::{Lba, NamespaceId};

/// Descriptors asked for at a time.
const DESCRIPTORS: usize = 32;
/// Bytes of a report with that many descriptors.
pub(super) const REPORT_BYTES: usize = 8 + 16 * DESCRIPTORS;

/// What the baseline does next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Wanted {
    Extent(Extent),
    /// A report of the blocks of a namespace from here on.
    Report(NamespaceId, Lba),
    Nothing,
}

/// The walk over all namespaces. What it offers counts as done: the caller keeps an extent that was not accepted.
#[derive(Debug)]
pub(super) struct Baseline {
    /// The namespace's place among the maps.
    map: usize,
    /// First block not offered yet.
    next: u64,
    /// Whether reports are asked for at all.
    ask: bool,
    /// Reports do not help in this namespace: copy what is left of it.
    plain: bool,
    /// The report covers the blocks before this one.
    covered: u64,
    allocated: heapless::Vec<LbaStatusDescriptor, DESCRIPTORS>,
    finished: bool,
}

impl Baseline {
    pub(super) const fn new() -> Self {
        Self {
            map: 0,
            next: 0,
            ask: false,
            plain: false,
            covered: 0,
            allocated: heapless::Vec::new(),
            finished: false,
        }
    }

    pub(super) const fn ask_for_reports(&mut self) {
        self.ask = true;
    }

    /// Leaves the rest to the rounds, because everything is dirty.
    pub(super) const fn finish(&mut self) {
        self.finished = true;
    }

    /// Blocks not offered yet.
    pub(super) fn remaining(&self, maps: &[DirtyMap<'_>]) -> u64 {
        if self.finished {
            return 0;
        }
        let left = maps.iter().skip(self.map).fold(0_u64, |sum, map| sum.saturating_add(map.blocks()));
        left.saturating_sub(self.next)
    }

    pub(super) fn wanted(&mut self, maps: &[DirtyMap<'_>], longest: u64) -> Wanted {
        if self.finished {
            return Wanted::Nothing;
        }
        let Some(map) = maps.get(self.map) else { return Wanted::Nothing };
        let (namespace, start, size) = (map.namespace(), Lba::new(self.next), map.blocks());
        let (kind, end) = if self.plain || !self.ask {
            (ExtentKind::Copy, size)
        } else if self.next >= self.covered {
            return Wanted::Report(namespace, start);
        } else {
            let end_of = |one: &LbaStatusDescriptor| one.start.get().saturating_add(u64::from(one.blocks));
            match self.allocated.iter().find(|one| end_of(one) > self.next) {
                Some(one) if one.start.get() <= self.next => (ExtentKind::Copy, end_of(one)),
                Some(one) => (ExtentKind::Zeroes, one.start.get()),
                None => (ExtentKind::Zeroes, self.covered),
            }
        };
        let blocks = end.min(size).saturating_sub(self.next).min(longest.max(1));
        self.next = self.next.saturating_add(blocks);
        if self.next >= size {
            self.map = self.map.saturating_add(1);
            self.next = 0;
            self.covered = 0;
            self.plain = false;
            self.allocated.clear();
        }
        Wanted::Extent(Extent { namespace, start, blocks, kind })
    }

    /// Takes a report from the first block not offered yet on, `None` if there is none. What cannot be trusted is
    /// copied.
    pub(super) fn report(&mut self, maps: &[DirtyMap<'_>], bytes: Option<&[u8]>) {
        self.allocated.clear();
        let size = maps.get(self.map).map_or(0, DirtyMap::blocks);
        let covered = bytes.and_then(|bytes| self.read(bytes, size)).filter(|covered| *covered > self.next);
        match covered {
            Some(covered) => self.covered = covered,
            None => self.plain = true,
        }
    }

    /// How far the report reaches; `None` if it is not one.
    fn read(&mut self, bytes: &[u8], size: u64) -> Option<u64> {
        let report = LbaStatusReport::parse(bytes).ok()?;
        let mut reached = self.next;
        for one in report.descriptors() {
            let end = one.start.get().checked_add(u64::from(one.blocks))?;
            // The first may begin before the block asked for; they ascend and do not overlap.
            if end <= reached || (one.start.get() < reached && reached != self.next) || end > size {
                return None;
            }
            self.allocated.push(one).ok()?;
            reached = end;
        }
        match report.condition() {
            LbaStatusCondition::COMPLETE => Some(size),
            LbaStatusCondition::INCOMPLETE => Some(reached),
            _ => None,
        }
    }
}

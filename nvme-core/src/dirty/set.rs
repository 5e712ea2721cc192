// SPDX-License-Identifier: MIT OR Apache-2.0
//! The dirty maps of all namespaces of a tracked controller.

use core::fmt;

use super::map::{DirtyMap, OutOfRange};
use crate::wire::{Lba, NamespaceId};

/// A run of blocks of one namespace taken out of a set.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct DirtyExtent {
    /// The namespace.
    pub namespace: NamespaceId,
    /// First block.
    pub start: Lba,
    /// Number of blocks, at least one.
    pub blocks: u64,
}

/// Why a change could not be marked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MarkError {
    /// No map is kept for this namespace.
    UnknownNamespace(NamespaceId),
    /// The range reaches past the namespace; the part inside has been marked.
    OutOfRange(OutOfRange),
}

impl MarkError {
    /// Whichever of two is further from being right: a namespace without a map, otherwise what reaches further past the end.
    #[must_use]
    pub fn worst(self, other: Option<Self>) -> Self {
        let weight = |error: &Self| match error {
            Self::UnknownNamespace(_) => u64::MAX,
            Self::OutOfRange(range) => range.excess(),
        };
        match other {
            Some(other) if weight(&other) >= weight(&self) => other,
            _ => self,
        }
    }
}

impl fmt::Display for MarkError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::UnknownNamespace(namespace) => {
                write!(f, "a change in namespace {namespace}, for which no dirty map is kept: lend one")
            }
            Self::OutOfRange(range) => range.fmt(f),
        }
    }
}

/// One dirty map for each namespace, over lent storage.
#[derive(Debug)]
pub struct DirtySet<'a, 's> {
    maps: &'a mut [DirtyMap<'s>],
    /// The map used last: changes come in runs for one namespace.
    last: usize,
    /// The map the sweep is in.
    sweep: usize,
}

impl<'a, 's> DirtySet<'a, 's> {
    /// A set of `maps`, each for another namespace.
    ///
    /// # Errors
    /// The namespace that has two maps.
    pub fn new(maps: &'a mut [DirtyMap<'s>]) -> Result<Self, NamespaceId> {
        let mut rest: &[DirtyMap<'s>] = maps;
        while let Some((map, others)) = rest.split_first() {
            if others.iter().any(|other| other.namespace() == map.namespace()) {
                return Err(map.namespace());
            }
            rest = others;
        }
        Ok(Self { maps, last: 0, sweep: 0 })
    }

    /// The maps, in the order given.
    #[must_use]
    pub const fn maps(&self) -> &[DirtyMap<'s>] {
        self.maps
    }

    /// Marks `blocks` blocks of `namespace` from `start` on.
    ///
    /// # Errors
    /// [`MarkError`] if the namespace has no map or the range reaches past it.
    #[inline]
    pub fn mark(&mut self, namespace: NamespaceId, start: Lba, blocks: u64) -> Result<(), MarkError> {
        self.map(namespace)?.mark(start, blocks).map_err(MarkError::OutOfRange)
    }

    /// Marks every block of `namespace`.
    ///
    /// # Errors
    /// [`MarkError::UnknownNamespace`] if it has no map.
    pub fn mark_namespace(&mut self, namespace: NamespaceId) -> Result<(), MarkError> {
        self.map(namespace)?.mark_all();
        Ok(())
    }

    /// Marks every block of every namespace and begins a new sweep. Constant time for each namespace.
    pub fn mark_all(&mut self) {
        self.maps.iter_mut().for_each(DirtyMap::mark_all);
        self.sweep = 0;
    }

    /// Forgets every mark and begins a new sweep.
    pub fn clear(&mut self) {
        self.maps.iter_mut().for_each(DirtyMap::clear);
        self.sweep = 0;
    }

    /// Begins a new sweep at the first block of the first namespace.
    pub fn restart(&mut self) {
        self.maps.iter_mut().for_each(DirtyMap::restart);
        self.sweep = 0;
    }

    /// Whether nothing is dirty.
    #[must_use]
    pub fn is_clean(&self) -> bool {
        self.maps.iter().all(DirtyMap::is_clean)
    }

    /// How many blocks are dirty in all namespaces together, rounded up to whole granules.
    #[must_use]
    pub fn dirty_blocks(&self) -> u64 {
        self.maps.iter().fold(0_u64, |sum, map| sum.saturating_add(map.dirty_blocks()))
    }

    /// Takes the next run of dirty blocks of this sweep, namespace after namespace; `None` ends the sweep. See
    /// [`DirtyMap::take`].
    pub fn take(&mut self, longest: u64) -> Option<DirtyExtent> {
        while let Some(map) = self.maps.get_mut(self.sweep) {
            if let Some(run) = map.take(longest) {
                let namespace = map.namespace();
                return Some(DirtyExtent { namespace, start: run.start, blocks: run.blocks });
            }
            self.sweep = self.sweep.saturating_add(1);
        }
        self.sweep = 0;
        None
    }

    #[inline]
    fn map(&mut self, namespace: NamespaceId) -> Result<&mut DirtyMap<'s>, MarkError> {
        if self.maps.get(self.last).is_none_or(|map| map.namespace() != namespace) {
            self.last = self
                .maps
                .iter()
                .position(|map| map.namespace() == namespace)
                .ok_or(MarkError::UnknownNamespace(namespace))?;
        }
        self.maps.get_mut(self.last).ok_or(MarkError::UnknownNamespace(namespace))
    }
}

impl core::error::Error for MarkError {}

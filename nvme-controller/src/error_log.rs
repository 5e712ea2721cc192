// SPDX-License-Identifier: MIT OR Apache-2.0
//! What the Error Information log page holds. NVMe Base 2.1 §5.1.12.1.2, Error Information.

use nvme_core::wire::{CommandId, NamespaceId, Status};

/// Room for one entry of the Error Information log.
#[derive(Clone, Copy, Debug, Default)]
pub struct ErrorSlot(pub(crate) Option<ErrorEntry>);

impl ErrorSlot {
    /// An empty slot.
    #[must_use]
    pub const fn new() -> Self {
        Self(None)
    }
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct ErrorEntry {
    pub(crate) count: u64,
    pub(crate) queue: u16,
    pub(crate) command: CommandId,
    pub(crate) status: Status,
    /// Byte (bits 7:0) and bit (bits 10:8) of the field at fault, FFFFh if it is not about a field.
    pub(crate) location: u16,
    pub(crate) lba: u64,
    pub(crate) namespace: NamespaceId,
    pub(crate) opcode: u8,
}

/// The newest errors of one controller, a ring over lent slots.
#[derive(Debug)]
pub(crate) struct ErrorLog<'s> {
    slots: &'s mut [ErrorSlot],
    newest: usize,
    count: u64,
}

impl<'s> ErrorLog<'s> {
    pub(crate) fn new(slots: &'s mut [ErrorSlot]) -> Self {
        slots.fill(ErrorSlot(None));
        Self { slots, newest: 0, count: 0 }
    }

    /// Number of entries the page has, at least one as the field that reports it demands.
    pub(crate) fn capacity(&self) -> usize {
        self.slots.len().clamp(1, 256)
    }

    /// Errors since the controller was made.
    pub(crate) const fn count(&self) -> u64 {
        self.count
    }

    pub(crate) fn push(&mut self, mut entry: ErrorEntry) {
        self.count = self.count.wrapping_add(1);
        entry.count = self.count;
        let len = self.slots.len().min(256);
        self.newest = match self.newest.checked_add(1) {
            Some(next) if next < len => next,
            _ => 0,
        };
        if let Some(slot) = self.slots.get_mut(self.newest) {
            slot.0 = Some(entry);
        }
    }

    /// Removes all entries; the count goes on.
    pub(crate) fn clear(&mut self) {
        self.slots.fill(ErrorSlot(None));
    }

    /// Entry `age`, 0 being the newest.
    pub(crate) fn get(&self, age: usize) -> Option<ErrorEntry> {
        let len = self.slots.len().min(256);
        let at = match self.newest.checked_sub(age) {
            Some(at) => at,
            None => self.newest.checked_add(len)?.checked_sub(age)?,
        };
        if age < len { self.slots.get(at)?.0 } else { None }
    }
}

// SPDX-License-Identifier: MIT OR Apache-2.0
//! Where rules take hold of Controller Data Queues.

use nvme_core::wire::lba_migration::{EntrySequence, LbaMigrationEntry, PHASE_BYTE};
use nvme_core::wire::{CdqId, ControllerId, StatusCode};

use super::action::{FaultAction, Occasion};
use super::table::{FaultTable, Held, Hit};
use crate::cdq::DataQueue;
use crate::controller::Controller;
use crate::host::HostMemory;
use crate::outcome::Refusal;
use crate::quirk::Quirks;

/// Bytes of an entry.
const ENTRY_BYTES: usize = 32;
/// Bytes of the half that does not hold the phase tag.
const HALF: u8 = 16;

impl DataQueue {
    /// Which marker posting `entry` now makes of it.
    pub(crate) const fn marker(&self, entry: &LbaMigrationEntry) -> Option<Occasion> {
        match entry.sequence {
            _ if self.fills() => Some(Occasion::LastMarker),
            EntrySequence::First => Some(Occasion::FirstMarker),
            sequence if sequence.is_last() => Some(Occasion::LastMarker),
            _ => None,
        }
    }

    /// [`post`](Self::post), but wrong as `hit` says.
    #[cold]
    pub(crate) fn post_with_fault<M: HostMemory>(
        &mut self,
        owner: &mut Controller<'_, M>,
        mut entry: LbaMigrationEntry,
        quirks: Quirks,
        faults: &mut FaultTable<'_>,
        hit: Hit,
    ) -> bool {
        if self.ring.is_full() {
            return false;
        }
        if !owner.reaches_host() {
            return self.posted(owner, false, false, quirks);
        }
        let fills = self.fills() || hit.action == FaultAction::CdqFullEarly;
        let missing = matches!(hit.action, FaultAction::CdqMissingFirst | FaultAction::CdqMissingLast);
        if missing && !fills {
            faults.count(hit);
            return true;
        }
        if fills && !missing {
            entry.sequence = EntrySequence::LastFull;
        }
        entry.phase = self.ring.phase() != (hit.action == FaultAction::CdqWrongPhase);
        let slot = self.ring.tail();
        let built = entry.build().ok().zip(self.address(owner, slot));
        let Some((entry, address)) = built else { return self.posted(owner, false, fills, quirks) };
        let mut bytes = entry.to_bytes();
        if let (FaultAction::CdqReservedSequence(sequence), Some(attributes)) =
            (hit.action, bytes.get_mut(PHASE_BYTE))
        {
            *attributes = (*attributes & !0x0E) | (sequence.bits() << 1);
        }
        let torn = match hit.action {
            FaultAction::CdqTornEntry(None) => true,
            FaultAction::CdqTornEntry(Some(polls)) => {
                let at_poll = faults.polls.saturating_add(u64::from(polls.get()));
                let (owner, half_of) = (self.owner, Some((self.id, slot)));
                faults.hold(Held::Write { owner, address, len: HALF, bytes, at_poll, half_of }).is_some()
            }
            _ => false,
        };
        let written = match bytes.split_at_checked(usize::from(HALF)) {
            Some((_, half)) if torn => owner.dma.write_entry(address.plus(u64::from(HALF)), half),
            _ => owner.dma.write_entry(address, &bytes),
        };
        if written.is_ok() && (torn || !matches!(hit.action, FaultAction::CdqTornEntry(_))) {
            faults.count(hit);
        }
        self.posted(owner, written.is_ok(), fills, quirks)
    }
}

impl FaultTable<'_> {
    /// The head of a data queue of controller `id` is to move.
    ///
    /// # Errors
    /// Invalid Field in Command, if a rule wants it refused.
    pub(crate) fn head_update(&self, id: ControllerId) -> Result<(), Refusal> {
        let Some(hit) = self.occasion(id, Occasion::HeadUpdate) else { return Ok(()) };
        self.count(hit);
        Err(StatusCode::INVALID_FIELD.into())
    }

    /// Drops the rest of torn entries of queue `id` of the controller at `owner`: of the one in `slot`, which is about to
    /// be written again, or of all, because the queue is gone.
    #[cold]
    pub(crate) fn drop_halves(&mut self, owner: usize, id: CdqId, slot: Option<u32>) {
        for held in self.held.iter_mut() {
            if let Some(Held::Write { owner: of, half_of: Some((queue, at)), .. }) = held.0
                && (of, queue) == (owner, id)
                && slot.is_none_or(|slot| slot == at)
            {
                held.0 = None;
            }
        }
    }

    /// `queue` of `owner` was deleted.
    pub(crate) fn deleted<M: HostMemory>(&mut self, owner: &Controller<'_, M>, queue: &mut DataQueue) {
        let Some(hit) = self.occasion(owner.id(), Occasion::Deletion) else { return };
        let FaultAction::CdqWriteAfterDelete(polls) = hit.action else { return };
        let mut entry = LbaMigrationEntry::marker(EntrySequence::First);
        entry.phase = queue.ring.phase();
        let slot = queue.ring.tail();
        let (Ok(entry), Some(address)) = (entry.build(), queue.address(owner, slot)) else { return };
        let at_poll = self.polls.saturating_add(u64::from(polls.get()));
        let len = ENTRY_BYTES as u8;
        let (owner, bytes) = (queue.owner, entry.to_bytes());
        let held = Held::Write { owner, address, len, bytes, at_poll, half_of: None };
        if self.hold(held).is_some() {
            self.count(hit);
        }
    }
}

// SPDX-License-Identifier: MIT OR Apache-2.0
//! The log of user data changes: what is posted to a User Data Migration Queue, and when it starts, stops, pauses and
//! goes on. NVM Command Set 1.1 §5.6, User Data Migration Queue.

use nvme_core::wire::lba_migration::{self, EntrySequence, LbaMigrationEntry, MAX_BLOCKS};
use nvme_core::wire::{CdqId, Lba, NamespaceId, StatusCode};

use crate::cdq::Logging;
use crate::host::{BlockStorage, HostMemory, Interrupts};
use crate::migration::Run;
use crate::outcome::Refusal;
use crate::quirk::Quirks;
use crate::subsystem::Subsystem;

/// Blocks that a command has changed or may have changed.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Change {
    pub(crate) namespace: NamespaceId,
    pub(crate) start: Lba,
    /// Number of blocks; with zero nothing is logged.
    pub(crate) blocks: u64,
    pub(crate) deallocated: bool,
}

impl Change {
    pub(crate) const fn written(namespace: NamespaceId, start: Lba, blocks: u64) -> Self {
        Self { namespace, start, blocks, deallocated: false }
    }

    /// The block after the last one.
    pub(crate) const fn end(&self) -> u64 {
        self.start.get().saturating_add(self.blocks)
    }
}

impl<M: HostMemory, S: BlockStorage, I: Interrupts> Subsystem<'_, M, S, I> {
    /// Logs a change made through the controller at `index`. The caller has put the change into effect and not yet
    /// completed the command.
    #[inline]
    pub(crate) fn log_change(&mut self, index: usize, change: Change) {
        if let Some(slot) = self.controllers.get(index).and_then(|controller| controller.target.log) {
            self.log_to(slot, change);
        }
    }

    fn log_to(&mut self, slot: usize, change: Change) {
        let mut start = change.start.get();
        let mut left = change.blocks;
        while left > 0 {
            let blocks = left.min(MAX_BLOCKS);
            let entry = LbaMigrationEntry::ordinary(lba_migration::Change::Range {
                namespace: change.namespace,
                start: Lba::new(start),
                blocks,
                deallocated: change.deallocated,
            });
            if !self.post_entry(slot, entry) {
                return;
            }
            start = start.saturating_add(blocks);
            left = left.saturating_sub(blocks);
        }
    }

    /// Posts an entry; a queue that takes no more stops logging. Returns whether it takes more.
    fn post_entry(&mut self, slot: usize, entry: LbaMigrationEntry) -> bool {
        let quirks = self.config.quirks;
        let Some(queue) = self.data_queues.get_mut(slot).and_then(|slot| slot.0.as_mut()) else {
            return false;
        };
        if queue.is_listed() && quirks.contains(Quirks::LISTED_QUEUES_NOT_FILLED) {
            return true;
        }
        let Some(owner) = self.controllers.get_mut(queue.owner) else { return false };
        let hit = match &self.faults {
            None => None,
            Some(faults) => faults.entry(owner.id(), queue.marker(&entry)),
        };
        let goes_on = match (&mut self.faults, hit) {
            (Some(faults), Some(hit)) => {
                faults.drop_halves(queue.owner, queue.id, Some(queue.ring.tail()));
                queue.post_with_fault(owner, entry, quirks, faults, hit)
            }
            (Some(faults), None) => {
                faults.drop_halves(queue.owner, queue.id, Some(queue.ring.tail()));
                queue.post(owner, entry, quirks)
            }
            (None, _) => queue.post(owner, entry, quirks),
        };
        if !goes_on && !quirks.contains(Quirks::LOGGING_RESUMES_AFTER_FULL) {
            queue.logging = Logging::Off;
            if let Some(target) = self.controllers.get_mut(queue.target) {
                target.target.log = None;
            }
        }
        goes_on
    }

    /// Sets whether changes are logged to the queue in `slot`.
    fn set_logging(&mut self, slot: usize, logging: Logging) {
        let Some(queue) = self.data_queues.get_mut(slot).and_then(|slot| slot.0.as_mut()) else { return };
        queue.logging = logging;
        if let Some(target) = self.controllers.get_mut(queue.target) {
            target.target.log = (logging == Logging::On).then_some(slot);
        }
    }

    fn logging(&self, slot: usize) -> Logging {
        self.data_queues.get(slot).and_then(|slot| slot.0).map_or(Logging::Off, |queue| queue.logging)
    }

    /// Track Send, Log User Data Changes. NVMe Base 2.1 §5.1.27.1.1.
    pub(crate) fn log_user_data(&mut self, index: usize, start: bool, id: CdqId) -> Result<(), Refusal> {
        let slot = self.data_queue_slot(index, id)?;
        let queue = self.data_queues.get(slot).and_then(|slot| slot.0).ok_or(StatusCode::INVALID_CDQ)?;
        if !start {
            // A log that is paused has its last entry already.
            if queue.logging == Logging::On {
                self.post_entry(slot, LbaMigrationEntry::marker(EntrySequence::LastStopped));
            }
            self.set_logging(slot, Logging::Off);
            // Whatever ended it before, a log that was stopped starts like any other.
            if let Some(queue) = self.data_queues.get_mut(slot).and_then(|slot| slot.0.as_mut()) {
                queue.overflowed = false;
                if let Some(target) = self.controllers.get_mut(queue.target) {
                    target.target.counts_as_logged = false;
                }
            }
            return Ok(());
        }
        let run = self.controllers.get(queue.target).map_or(Run::Running, |target| target.target.run);
        if run != Run::Running {
            return Err(StatusCode::CONTROLLER_SUSPENDED.into());
        }
        if queue.logging == Logging::On && self.config.quirks.contains(Quirks::LOGGING_RESUMES_AFTER_FULL) {
            return Ok(());
        }
        if queue.logging != Logging::Off {
            return Err(StatusCode::INVALID_FIELD.into());
        }
        if queue.ring.is_full() {
            return Err(StatusCode::CDQ_FULL.into());
        }
        let tail = queue.ring.tail();
        self.begin_log(slot);
        let begun = self.data_queues.get_mut(slot).and_then(|slot| slot.0.as_mut());
        match begun {
            // The first entry could not be written, and the status says so instead of an event.
            Some(begun) if begun.overflowed && begun.ring.tail() == tail => {
                begun.full_event = queue.full_event;
                Err(StatusCode::DATA_TRANSFER_ERROR.into())
            }
            _ => Ok(()),
        }
    }

    /// Starts the log of the queue in `slot` with its first entry.
    fn begin_log(&mut self, slot: usize) {
        self.set_logging(slot, Logging::On);
        let Some(queue) = self.data_queues.get_mut(slot).and_then(|slot| slot.0.as_mut()) else { return };
        let counts = self.controllers.get(queue.target).is_some_and(|target| target.target.counts_as_logged);
        let silent =
            counts || queue.overflowed && self.config.quirks.contains(Quirks::NO_FIRST_ENTRY_AFTER_FULL);
        queue.overflowed = false;
        // An event that was not reported yet speaks of the log that ended.
        queue.full_event = false;
        if !silent {
            self.post_entry(slot, LbaMigrationEntry::marker(EntrySequence::First));
        }
    }

    /// The controller at `target` is suspended: closes its log with the suspended marker.
    pub(crate) fn pause_log(&mut self, target: usize) {
        if let Some(slot) = self.data_queue_of(target).filter(|slot| self.logging(*slot) == Logging::On) {
            self.set_logging(slot, Logging::Paused);
            self.post_entry(slot, LbaMigrationEntry::marker(EntrySequence::LastSuspended));
        }
    }

    /// The controller at `target` runs again: its log goes on with a first entry if it was on.
    pub(crate) fn resume_log(&mut self, target: usize) {
        if let Some(slot) = self.data_queue_of(target).filter(|slot| self.logging(*slot) == Logging::Paused) {
            self.begin_log(slot);
        }
    }
}

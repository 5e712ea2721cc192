// SPDX-License-Identifier: MIT OR Apache-2.0
//! Controller Data Queues: create, delete, post, head and trigger. NVMe Base 2.1 §8.1.6, Controller Data Queues.
//!
//! A queue that becomes full gets the overflow marker in its last free slot, raises the full event and logs no more
//! until the host starts its log again. A queue whose memory cannot be written, or may not be any more because its
//! controller has shut down or failed, is treated alike, without a marker: tail and tag stay as they were, because the
//! host cannot have seen the entry.

use nvme_core::ring::PhaseProducer;
use nvme_core::wire::cdq::{
    ControllerDataQueueCommand, CreateControllerDataQueue, ENTRY_DWORDS, create_result,
};
use nvme_core::wire::lba_migration::{EntrySequence, LbaMigrationEntry};
use nvme_core::wire::{
    AsynchronousEvent, BusAddr, CdqEvent, CdqId, Command, EventType, InvalidField, Status, StatusCode,
    SubmissionQueueEntry,
};

use crate::config::SubsystemConfig;
use crate::controller::Controller;
use crate::host::{BlockStorage, HostMemory, Interrupts};
use crate::outcome::{Done, Outcome, Refusal, SUCCESS};
use crate::pages::{PageList, QueueMemory};
use crate::quirk::Quirks;
use crate::subsystem::Subsystem;

/// log2 of the size of an entry.
const ENTRY_SHIFT: u8 = 5;

/// Room for one Controller Data Queue.
#[derive(Clone, Copy, Debug, Default)]
pub struct DataQueueSlot(pub(crate) Option<DataQueue>);

impl DataQueueSlot {
    /// Room for a queue that does not exist yet.
    #[must_use]
    pub const fn new() -> Self {
        Self(None)
    }
}

/// Whether changes of the tracked controller are posted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Logging {
    #[default]
    Off,
    On,
    /// The tracked controller is suspended; goes on when it resumes.
    Paused,
}

/// A User Data Migration Queue.
#[derive(Clone, Copy, Debug)]
pub(crate) struct DataQueue {
    /// Index of the controller that created it.
    pub(crate) owner: usize,
    /// Index of the controller whose changes it reports.
    pub(crate) target: usize,
    pub(crate) id: CdqId,
    pub(crate) memory: QueueMemory,
    pub(crate) ring: PhaseProducer,
    /// Memory ranges it counts for: one if contiguous, else one for each PRP.
    pub(crate) ranges: u32,
    pub(crate) logging: Logging,
    /// It became full, or its memory could not be written, since the log was last started.
    pub(crate) overflowed: bool,
    /// Slot whose filling raises an event.
    pub(crate) trigger: Option<u32>,
    /// The tail event waits to be reported.
    pub(crate) tail_event: bool,
    /// The full event waits to be reported.
    pub(crate) full_event: bool,
}

impl DataQueue {
    /// Posts an entry. The entry that takes the last free slot becomes the overflow marker.
    ///
    /// Returns `false` if nothing more may be posted: the queue became full, was full, or could not be written.
    pub(crate) fn post<M: HostMemory>(
        &mut self,
        owner: &mut Controller<'_, M>,
        mut entry: LbaMigrationEntry,
        quirks: Quirks,
    ) -> bool {
        if self.ring.is_full() {
            return false;
        }
        if !owner.reaches_host() {
            self.overflow(owner);
            return false;
        }
        let fills = self.fills();
        if fills {
            entry.sequence = EntrySequence::LastFull;
        }
        entry.phase = self.ring.phase();
        let slot = self.ring.tail();
        let written = entry.build().is_ok_and(|entry| {
            self.address(owner, slot)
                .is_some_and(|address| owner.dma.write_entry(address, &entry.to_bytes()).is_ok())
        });
        self.posted(owner, written, fills, quirks)
    }

    /// Whether the next entry takes the last free slot.
    pub(crate) const fn fills(&self) -> bool {
        self.ring.free() == 1
    }

    /// Whether its memory is a PRP list's.
    pub(crate) const fn is_listed(&self) -> bool {
        matches!(self.memory, QueueMemory::List(_))
    }

    /// Where slot `slot` lies in the memory of the owner's host.
    #[inline]
    pub(crate) fn address<M: HostMemory>(&mut self, owner: &Controller<'_, M>, slot: u32) -> Option<BusAddr> {
        self.memory.slot(&owner.dma.memory, slot, ENTRY_SHIFT)
    }

    /// Moves on after the slot at the tail was `written`, or could not be. Returns whether more may be posted.
    #[inline]
    pub(crate) fn posted<M: HostMemory>(
        &mut self,
        owner: &mut Controller<'_, M>,
        written: bool,
        fills: bool,
        quirks: Quirks,
    ) -> bool {
        if !written {
            self.overflow(owner);
            return false;
        }
        let slot = self.ring.tail();
        // Cannot fail: the ring is not full.
        let _ = self.ring.advance();
        let reached = if quirks.contains(Quirks::TRIGGER_AFTER_INCREMENT) { self.ring.tail() } else { slot };
        if self.trigger == Some(reached) {
            self.trigger = None;
            self.tail_event = true;
            owner.attention = true;
        }
        if fills {
            self.overflow(owner);
        }
        !fills
    }

    fn overflow<M>(&mut self, owner: &mut Controller<'_, M>) {
        self.overflowed = true;
        self.full_event = true;
        owner.attention = true;
    }
}

impl<'s, M: HostMemory, S: BlockStorage, I: Interrupts> Subsystem<'s, M, S, I> {
    /// Slot of the queue `id` of the controller at `owner`.
    pub(crate) fn data_queue_slot(&self, owner: usize, id: CdqId) -> Result<usize, StatusCode> {
        self.data_queues
            .iter()
            .position(|slot| slot.0.is_some_and(|queue| queue.owner == owner && queue.id == id))
            .ok_or(StatusCode::INVALID_CDQ)
    }

    /// Slot of the queue that reports the changes of the controller at `target`.
    pub(crate) fn data_queue_of(&self, target: usize) -> Option<usize> {
        self.data_queues.iter().position(|slot| slot.0.is_some_and(|queue| queue.target == target))
    }

    /// The next event of a data queue of `controller`, which is at `index`.
    pub(crate) fn take_queue_event(
        queues: &mut [DataQueueSlot],
        controller: &mut Controller<'s, M>,
        index: usize,
        config: &SubsystemConfig<'_>,
    ) -> Option<AsynchronousEvent> {
        let masks = config.quirks.contains(Quirks::ONE_SHOT_EVENTS_MASKED);
        if masks && controller.events.is_masked(EventType::ONE_SHOT) {
            return None;
        }
        // In turn, so that no queue can keep the events of the others waiting.
        let waits = |slot: &DataQueueSlot| {
            slot.0.is_some_and(|queue| queue.owner == index && (queue.tail_event || queue.full_event))
        };
        let after = controller.event_queue.saturating_add(1);
        let later = queues.iter().skip(after).position(waits).map(|at| at.saturating_add(after));
        let at = later.or_else(|| queues.iter().position(waits))?;
        let queue = queues.get_mut(at)?.0.as_mut()?;
        controller.event_queue = at;
        if masks {
            controller.events.mask(EventType::ONE_SHOT);
        }
        let event = if queue.tail_event {
            queue.tail_event = false;
            CdqEvent::TailPointer(queue.id)
        } else {
            queue.full_event = false;
            CdqEvent::Full(queue.id)
        };
        Some(event.into())
    }

    /// Deletes a data queue at the host's request.
    pub(crate) fn delete_data_queue(&mut self, slot: usize) {
        let queue = self.data_queues.get(slot).and_then(|slot| slot.0);
        self.remove_data_queue(slot);
        if let (Some(mut queue), Some(faults)) = (queue, &mut self.faults)
            && let Some(owner) = self.controllers.get(queue.owner)
        {
            faults.deleted(owner, &mut queue);
        }
    }

    /// Ends a data queue: its log and its waiting events go with it.
    pub(crate) fn remove_data_queue(&mut self, slot: usize) {
        let Some(queue) = self.data_queues.get_mut(slot).and_then(|slot| slot.0.take()) else { return };
        if let Some(faults) = &mut self.faults {
            faults.drop_halves(queue.owner, queue.id, None);
        }
        if let Some(target) = self.controllers.get_mut(queue.target) {
            target.target.log = None;
            target.target.marker_due = false;
        }
    }

    pub(crate) fn controller_data_queue(&mut self, index: usize, entry: &SubmissionQueueEntry) -> Outcome {
        match ControllerDataQueueCommand::decode(entry) {
            Ok(ControllerDataQueueCommand::Create(create)) => self.create_data_queue(index, entry, &create),
            Ok(ControllerDataQueueCommand::Delete(id)) => {
                let slot = self.data_queue_slot(index, id)?;
                self.delete_data_queue(slot);
                SUCCESS
            }
            Err(InvalidField { field: "SEL", .. })
                if self.config.quirks.contains(Quirks::BAD_SELECT_ONLY_DO_NOT_RETRY) =>
            {
                Err(Status::SUCCESS.with_do_not_retry().into())
            }
            Err(field) => Err(field.into()),
        }
    }

    /// NVMe Base 2.1 §5.1.4.1.1, Create Controller Data Queue.
    fn create_data_queue(
        &mut self,
        index: usize,
        entry: &SubmissionQueueEntry,
        create: &CreateControllerDataQueue,
    ) -> Outcome {
        let controller = self.controllers.get(index).ok_or(StatusCode::INTERNAL_ERROR)?;
        let limits = *controller.config.manager().ok_or(StatusCode::INVALID_COMMAND_OPCODE)?;
        if !create.queue_type.is_user_data_migration() {
            return Err(InvalidField::in_dword("QT", 10, 16, u64::from(create.queue_type.get())).into());
        }
        let target = self.migratable(create.tracked, StatusCode::INVALID_FIELD)?;
        let entries = match create.entries() {
            Ok(entries) => entries,
            Err(_)
                if self.config.quirks.contains(Quirks::QUEUE_SIZE_ROUNDED_DOWN)
                    && create.dwords >= ENTRY_DWORDS =>
            {
                create.dwords / ENTRY_DWORDS
            }
            Err(field) => return Err(field.into()),
        };
        let page_shift = controller.registers.page_shift();
        let pointer = entry.prp1();
        if pointer.page_offset(1_u64 << page_shift) != 0 {
            return Err(StatusCode::PRP_OFFSET_INVALID.into());
        }
        if self.data_queue_of(target).is_some() {
            return Err(StatusCode::INVALID_FIELD.into());
        }
        let live = self.data_queues.iter().filter_map(|slot| slot.0.as_ref());
        let own = live.clone().filter(|queue| queue.owner == index).count();
        let free = self.data_queues.iter().position(|slot| slot.0.is_none());
        let (Some(free), true, true) = (
            free,
            own < usize::from(limits.max_migration_queues),
            live.clone().count() < usize::from(self.config.max_migration_queues),
        ) else {
            return Err(StatusCode::NOT_ENOUGH_RESOURCES.into());
        };
        let bytes = u64::from(entries) << ENTRY_SHIFT;
        let pages = PageList::pages_of(entries, ENTRY_SHIFT, page_shift);
        let ranges = if create.contiguous { 1 } else { pages };
        let used = live.fold(0_u32, |sum, queue| sum.saturating_add(queue.ranges));
        if (!create.contiguous && pages > u32::from(limits.max_queue_prps))
            || ranges > u32::from(limits.max_queue_memory_ranges)
            || used.saturating_add(ranges) > u32::from(self.config.max_queue_memory_ranges)
        {
            return Err(StatusCode::INVALID_FIELD.into());
        }
        let memory = &controller.dma.memory;
        let memory = if create.contiguous {
            if !memory.is_host_memory(pointer, bytes) {
                return Err(StatusCode::INVALID_FIELD.into());
            }
            QueueMemory::Contiguous(pointer)
        } else {
            self.work = self.work.saturating_add(PageList::work(pages));
            let list = PageList::walk(memory, pointer, pages, page_shift, true).map_err(StatusCode::from)?;
            QueueMemory::List(list)
        };
        let id = self.free_queue_id(index).ok_or(StatusCode::NOT_ENOUGH_RESOURCES)?;
        if let Some(slot) = self.data_queues.get_mut(free) {
            slot.0 = Some(DataQueue {
                owner: index,
                target,
                id,
                memory,
                ring: PhaseProducer::new(entries),
                ranges,
                logging: Logging::Off,
                overflowed: false,
                trigger: None,
                tail_event: false,
                full_event: false,
            });
        }
        Ok(Done::Result(create_result(id), 0))
    }

    /// The lowest identifier that no queue of this controller has.
    fn free_queue_id(&self, owner: usize) -> Option<CdqId> {
        (0..=u16::MAX)
            .take(self.data_queues.len().saturating_add(1))
            .map(CdqId::new)
            .find(|id| self.data_queue_slot(owner, *id).is_err())
    }

    /// Takes a new head and trigger. NVMe Base 2.1 §5.1.25.1.23, Controller Data Queue feature.
    pub(crate) fn set_data_queue(
        &mut self,
        index: usize,
        id: CdqId,
        head: u32,
        trigger: Option<u32>,
    ) -> Result<(), Refusal> {
        let slot = self.data_queue_slot(index, id)?;
        if let Some(faults) = &self.faults {
            let owner = self.controllers.get(index).ok_or(StatusCode::INTERNAL_ERROR)?;
            faults.head_update(owner.id())?;
        }
        let lenient = self.config.quirks.contains(Quirks::HEAD_NOT_CHECKED);
        let queue =
            self.data_queues.get_mut(slot).and_then(|slot| slot.0.as_mut()).ok_or(StatusCode::INVALID_CDQ)?;
        if let Some(slot) = trigger.filter(|slot| *slot >= queue.ring.size() && !lenient) {
            return Err(InvalidField::in_dword("TPT", 13, 0, u64::from(slot)).into());
        }
        let invalid = InvalidField::in_dword("HP", 12, 0, u64::from(head));
        if let Err(_refused) = queue.ring.set_head(head) {
            let (old, tail, size) = (queue.ring.head(), queue.ring.tail(), queue.ring.size());
            if !lenient || head > size || (old < tail && head > tail) {
                return Err(invalid.into());
            }
            let wrapped = if head == size { 0 } else { head };
            let restored = PhaseProducer::restore(size, wrapped, tail, queue.ring.slot_zero());
            queue.ring = restored.ok_or(invalid)?;
        }
        queue.trigger = trigger;
        // A tail event that was not reported yet speaks of a state the host has just replaced.
        queue.tail_event = false;
        Ok(())
    }

    /// Head and trigger as Get Features reports them.
    pub(crate) fn get_data_queue(&self, index: usize, id: CdqId) -> Result<(u32, Option<u32>), StatusCode> {
        let slot = self.data_queue_slot(index, id)?;
        let queue =
            self.data_queues.get(slot).and_then(|slot| slot.0.as_ref()).ok_or(StatusCode::INVALID_CDQ)?;
        Ok((queue.ring.head(), queue.trigger))
    }
}

// SPDX-License-Identifier: MIT OR Apache-2.0
//! What the managing controller does with its commands, and what the tracked controller does for its guest.

use std::collections::{BTreeMap, VecDeque};
use std::vec;
use std::vec::Vec;

use crate::ring::PhaseProducer;
use crate::testing::{PAGE, TestArena};
use crate::wire::cdq::{ControllerDataQueueCommand, CreateControllerDataQueue, create_result};
use crate::wire::feature::ControllerDataQueueFeature;
use crate::wire::lba_migration::{Change, EntrySequence, LbaMigrationEntry};
use crate::wire::track::TrackSend;
use crate::wire::{
    AsynchronousEvent, BusAddr, CdqEvent, CdqId, Command, ControllerId, InvalidField, Lba, NamespaceId,
    StatusCode, SubmissionQueueEntry,
};

/// Whether the tracked controller runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Running {
    Running,
    Suspended,
}

pub(crate) struct DeviceQueue {
    pub(crate) producer: PhaseProducer,
    pub(crate) logging: bool,
    trigger: Option<u32>,
    base: u64,
    contiguous: bool,
}

impl DeviceQueue {
    /// Bus address of a slot, found through the PRP list as a controller would.
    fn slot(&self, arena: &TestArena, index: u32) -> BusAddr {
        let offset = u64::from(index) * 32;
        if self.contiguous {
            return BusAddr::new(self.base + offset);
        }
        let page = PAGE as u64;
        let entries = (u64::from(self.producer.size()) * 32).div_ceil(page);
        let (mut wanted, mut list, mut left) = (offset / page, self.base, entries);
        while left > page / 8 {
            if wanted < page / 8 - 1 {
                break;
            }
            list = arena.device_read_u64(BusAddr::new(list + page - 8));
            wanted -= page / 8 - 1;
            left -= page / 8 - 1;
        }
        BusAddr::new(arena.device_read_u64(BusAddr::new(list + wanted * 8)) + offset % page)
    }
}

/// See the module.
pub(crate) struct Device {
    pub(crate) id: u16,
    pub(crate) queues: BTreeMap<u16, DeviceQueue>,
    pub(crate) next_queue: u16,
    pub(crate) running: Running,
    /// Refuse a head at the tail, as a literal reading of the feature's text has it.
    pub(crate) strict_head: bool,
    /// The heads that Set Features named, accepted or not.
    pub(crate) heads: Vec<u32>,
}

impl Device {
    pub(crate) fn new(id: u16) -> Self {
        Self {
            id,
            queues: BTreeMap::new(),
            next_queue: 7,
            running: Running::Running,
            strict_head: false,
            heads: Vec::new(),
        }
    }

    /// A controller level reset of the managing controller.
    pub(crate) fn reset(&mut self) {
        self.queues.clear();
        self.running = Running::Running;
    }

    /// Posts an entry as it is, even if it breaks the rules of the log. A ring that becomes full marks it so.
    pub(crate) fn post(
        &mut self,
        arena: &TestArena,
        events: &mut VecDeque<AsynchronousEvent>,
        id: u16,
        mut bytes: [u8; 32],
    ) -> bool {
        let Some(queue) = self.queues.get_mut(&id) else { return false };
        if queue.producer.is_full() {
            return false;
        }
        let filled = queue.producer.free() == 1;
        if filled {
            bytes[31] |= 7 << 1;
            queue.logging = false;
        }
        bytes[31] = (bytes[31] & !1) | u8::from(queue.producer.phase());
        let slot = queue.producer.tail();
        let address = queue.slot(arena, slot);
        arena.device_write(address, &bytes[..28]);
        arena.device_write(address.plus(28), &bytes[28..]);
        assert!(queue.producer.advance());
        if queue.trigger == Some(slot) {
            queue.trigger = None;
            events.push_back(CdqEvent::TailPointer(CdqId::new(id)).into());
        }
        if filled {
            events.push_back(CdqEvent::Full(CdqId::new(id)).into());
        }
        true
    }

    pub(crate) fn post_entry(
        &mut self,
        arena: &TestArena,
        events: &mut VecDeque<AsynchronousEvent>,
        id: u16,
        sequence: EntrySequence,
        change: Change,
    ) -> bool {
        let entry = LbaMigrationEntry { phase: false, sequence, change };
        self.post(arena, events, id, entry.build().unwrap().to_bytes())
    }

    /// The guest changes blocks: every queue that logs reports it.
    pub(crate) fn change(
        &mut self,
        arena: &TestArena,
        events: &mut VecDeque<AsynchronousEvent>,
        namespace: u32,
        start: u64,
        blocks: u64,
    ) {
        let logging: Vec<u16> =
            self.queues.iter().filter(|(_, queue)| queue.logging).map(|(id, _)| *id).collect();
        for id in logging {
            let change = Change::Range {
                namespace: NamespaceId::new(namespace),
                start: Lba::new(start),
                blocks,
                deallocated: false,
            };
            self.post_entry(arena, events, id, EntrySequence::Ordinary, change);
        }
    }

    pub(crate) fn execute(
        &mut self,
        arena: &TestArena,
        entry: &SubmissionQueueEntry,
        base: u64,
        data: &mut [u8],
        events: &mut VecDeque<AsynchronousEvent>,
    ) -> Result<u32, StatusCode> {
        let field = |error: InvalidField| error.status;
        match entry.opcode() {
            0x45 => match ControllerDataQueueCommand::decode(entry).map_err(field)? {
                ControllerDataQueueCommand::Create(create) => self.create(&create, base),
                ControllerDataQueueCommand::Delete(id) => {
                    self.queues.remove(&id.get()).map(|_| 0).ok_or(StatusCode::INVALID_CDQ)
                }
            },
            0x09 => {
                let command = crate::wire::admin::SetFeatures::decode(entry).map_err(field)?;
                self.set_head(&ControllerDataQueueFeature::from_set_features(&command).map_err(field)?)
            }
            0x3D => match TrackSend::decode(entry).map_err(field)? {
                TrackSend::LogUserDataChanges { start, queue: id } => {
                    let queue = self.queues.get_mut(&id.get()).ok_or(StatusCode::INVALID_CDQ)?;
                    if start && self.running == Running::Suspended {
                        return Err(StatusCode::CONTROLLER_SUSPENDED);
                    }
                    if start && queue.producer.is_full() {
                        return Err(StatusCode::CDQ_FULL);
                    }
                    if start && queue.logging {
                        return Err(StatusCode::INVALID_FIELD);
                    }
                    let was = core::mem::replace(&mut queue.logging, start);
                    let marker = if start { EntrySequence::First } else { EntrySequence::LastStopped };
                    if start || was {
                        self.post_entry(arena, events, id.get(), marker, Change::None);
                    }
                    Ok(0)
                }
                TrackSend::TrackMemoryChanges { .. } => Err(StatusCode::INVALID_FIELD),
            },
            _ => {
                let _ = data;
                Err(StatusCode::INVALID_COMMAND_OPCODE)
            }
        }
    }

    fn create(&mut self, create: &CreateControllerDataQueue, base: u64) -> Result<u32, StatusCode> {
        let entries = create.entries().map_err(|error| error.status)?;
        if create.tracked == ControllerId::new(self.id) {
            return Err(StatusCode::INVALID_CONTROLLER_IDENTIFIER);
        }
        if !base.is_multiple_of(PAGE as u64) {
            return Err(StatusCode::PRP_OFFSET_INVALID);
        }
        let id = self.next_queue;
        self.next_queue = self.next_queue.wrapping_add(1);
        let producer = PhaseProducer::new(entries);
        let queue =
            DeviceQueue { producer, logging: false, trigger: None, base, contiguous: create.contiguous };
        self.queues.insert(id, queue);
        Ok(create_result(CdqId::new(id)))
    }

    fn set_head(&mut self, feature: &ControllerDataQueueFeature) -> Result<u32, StatusCode> {
        self.heads.push(feature.head);
        let strict = self.strict_head;
        let queue = self.queues.get_mut(&feature.queue.get()).ok_or(StatusCode::INVALID_CDQ)?;
        let moved = feature.head != queue.producer.head();
        if strict && moved && feature.head == queue.producer.tail()
            || feature.tail_trigger.is_some_and(|slot| slot >= queue.producer.size())
        {
            return Err(StatusCode::INVALID_FIELD);
        }
        queue.producer.set_head(feature.head).map_err(|_| StatusCode::INVALID_FIELD)?;
        queue.trigger = feature.tail_trigger;
        Ok(0)
    }
}

/// Blocks of zeroes, for the disks of tests.
pub(crate) fn blank(blocks: usize) -> Vec<u64> {
    vec![0; blocks]
}

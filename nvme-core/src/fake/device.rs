// SPDX-License-Identifier: MIT OR Apache-2.0
//! What the managing controller does with its commands, and what the tracked controller does for its guest.

use std::collections::{BTreeMap, VecDeque};
use std::vec;
use std::vec::Vec;

use crate::ring::PhaseProducer;
use crate::testing::{PAGE, TestArena};
use crate::wire::admin::Identify;
use crate::wire::cdq::{ControllerDataQueueCommand, CreateControllerDataQueue, create_result};
use crate::wire::feature::ControllerDataQueueFeature;
use crate::wire::identify::{IdentifyPage, SupportedControllerStateFormats};
use crate::wire::lba_migration::{Change, EntrySequence, LbaMigrationEntry};
use crate::wire::lba_status::{GetLbaStatus, LbaStatusBuilder, LbaStatusCondition, LbaStatusDescriptor};
use crate::wire::migration::{MigrationReceive, MigrationSend, SuspendKind};
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
    /// Refuse every trigger.
    pub(crate) refuses_trigger: bool,
    /// The heads that Set Features named, accepted or not.
    pub(crate) heads: Vec<u32>,
    /// The blocks of each namespace, one number for each.
    pub(crate) disks: BTreeMap<u32, Vec<u64>>,
    /// The tracked controller's state, as Get Controller State returns it.
    pub(crate) image: Vec<u8>,
    /// What Set Controller State brought.
    pub(crate) received: Vec<u8>,
    partial: bool,
    pub(crate) committed: bool,
    /// The queues whose logging a suspension ended.
    paused: Vec<u16>,
    pub(crate) versions: Vec<u16>,
    pub(crate) vendors: Vec<[u8; 16]>,
    /// The formats are where one passage of the specification says.
    pub(crate) erratum: bool,
    /// Get Controller State does not say in its completion that the controller was suspended.
    pub(crate) quiet_get: bool,
    /// A suspension closes no log.
    pub(crate) no_marker: bool,
    /// Starting a log succeeds and does nothing.
    pub(crate) mute_start: bool,
    pub(crate) manages: bool,
    pub(crate) tracks: bool,
    /// Format of the log's entries (LBAMQF); no structure that says so if `None`.
    pub(crate) log_format: Option<u8>,
    /// Answers Get LBA Status: a block is allocated unless its number is zero.
    pub(crate) reports: bool,
}

impl Device {
    pub(crate) fn new(id: u16) -> Self {
        Self {
            id,
            queues: BTreeMap::new(),
            next_queue: 7,
            running: Running::Running,
            strict_head: false,
            refuses_trigger: false,
            heads: Vec::new(),
            disks: BTreeMap::new(),
            image: Vec::new(),
            received: Vec::new(),
            partial: false,
            committed: false,
            paused: Vec::new(),
            versions: vec![0],
            vendors: Vec::new(),
            erratum: false,
            quiet_get: false,
            no_marker: false,
            mute_start: false,
            manages: true,
            tracks: true,
            log_format: None,
            reports: false,
        }
    }

    /// A controller level reset of the managing controller.
    pub(crate) fn reset(&mut self) {
        self.queues.clear();
        self.paused.clear();
        self.running = Running::Running;
    }

    /// Where a slot of queue `id` lies.
    pub(crate) fn slot(&self, arena: &TestArena, id: u16, index: u32) -> BusAddr {
        self.queues[&id].slot(arena, index)
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

    /// The guest writes blocks: every queue that logs reports it.
    pub(crate) fn write(
        &mut self,
        arena: &TestArena,
        events: &mut VecDeque<AsynchronousEvent>,
        namespace: u32,
        start: u64,
        values: &[u64],
    ) {
        assert_eq!(self.running, Running::Running, "a suspended controller fetches nothing");
        let disk = self.disks.get_mut(&namespace).unwrap();
        let at = usize::try_from(start).unwrap();
        disk[at..at + values.len()].copy_from_slice(values);
        let logging: Vec<u16> =
            self.queues.iter().filter(|(_, queue)| queue.logging).map(|(id, _)| *id).collect();
        for id in logging {
            let change = Change::Range {
                namespace: NamespaceId::new(namespace),
                start: Lba::new(start),
                blocks: values.len() as u64,
                deallocated: false,
            };
            self.post_entry(arena, events, id, EntrySequence::Ordinary, change);
        }
    }

    fn suspend(&mut self, arena: &TestArena, events: &mut VecDeque<AsynchronousEvent>, delete: bool) {
        if self.running == Running::Running {
            self.running = Running::Suspended;
            let ids: Vec<u16> =
                self.queues.iter().filter(|(_, queue)| queue.logging).map(|(id, _)| *id).collect();
            for id in ids {
                if !self.no_marker {
                    self.post_entry(arena, events, id, EntrySequence::LastSuspended, Change::None);
                }
                let queue = self.queues.get_mut(&id).unwrap();
                if core::mem::replace(&mut queue.logging, false) {
                    self.paused.push(id);
                }
            }
        }
        if delete {
            self.queues.clear();
            self.paused.clear();
        }
    }

    fn resume(
        &mut self,
        arena: &TestArena,
        events: &mut VecDeque<AsynchronousEvent>,
    ) -> Result<u32, StatusCode> {
        if self.running == Running::Running {
            return Err(StatusCode::CONTROLLER_NOT_SUSPENDED);
        }
        if self.partial {
            return Err(StatusCode::COMMAND_SEQUENCE_ERROR);
        }
        self.running = Running::Running;
        for id in core::mem::take(&mut self.paused) {
            if let Some(queue) = self.queues.get_mut(&id) {
                queue.logging = true;
                self.post_entry(arena, events, id, EntrySequence::First, Change::None);
            }
        }
        Ok(0)
    }

    fn migration_send(
        &mut self,
        arena: &TestArena,
        command: &MigrationSend,
        data: &[u8],
        events: &mut VecDeque<AsynchronousEvent>,
    ) -> Result<u32, StatusCode> {
        if command.controller() == ControllerId::new(self.id) {
            return Err(StatusCode::INVALID_CONTROLLER_IDENTIFIER);
        }
        match *command {
            MigrationSend::Suspend { kind: SuspendKind::Notification, .. } => Ok(0),
            MigrationSend::Suspend { delete_queue, .. } => {
                self.suspend(arena, events, delete_queue);
                Ok(0)
            }
            MigrationSend::Resume { .. } => self.resume(arena, events),
            MigrationSend::SetControllerState {
                sequence,
                version_index,
                vendor_index,
                offset,
                dwords,
                ..
            } => {
                if self.running == Running::Running {
                    return Err(StatusCode::INVALID_CONTROLLER_IDENTIFIER);
                }
                if usize::from(version_index) > self.versions.len()
                    || usize::from(vendor_index) > self.vendors.len()
                {
                    return Err(StatusCode::INVALID_FIELD);
                }
                if sequence.begins() {
                    self.received.clear();
                } else if !self.partial {
                    return Err(StatusCode::COMMAND_SEQUENCE_ERROR);
                }
                assert_eq!(data.len(), dwords as usize * 4, "NUMD is not zero-based");
                if offset != self.received.len() as u64 {
                    return Err(StatusCode::INVALID_FIELD);
                }
                self.received.extend_from_slice(data);
                self.partial = !sequence.commits();
                self.committed = sequence.commits();
                Ok(0)
            }
        }
    }

    fn get_state(&self, command: &MigrationReceive, data: &mut [u8]) -> Result<u32, StatusCode> {
        let offset = usize::try_from(command.offset).unwrap();
        if usize::from(command.version_index) > self.versions.len()
            || usize::from(command.vendor_index) > self.vendors.len()
            || offset > self.image.len()
        {
            return Err(StatusCode::INVALID_FIELD);
        }
        assert_eq!(data.len() as u64, command.data_bytes(), "NUMDL is zero-based");
        for (to, from) in data.iter_mut().zip(&self.image[offset..]) {
            *to = *from;
        }
        Ok(MigrationReceive::result(self.running == Running::Suspended && !self.quiet_get))
    }

    fn identify(&self, command: &Identify, data: &mut [u8]) -> Result<u32, StatusCode> {
        let page: &mut IdentifyPage = data.try_into().unwrap();
        match command.structure.get() {
            0x01 => {
                page[78..80].copy_from_slice(&self.id.to_le_bytes());
                page[111] = 1;
                page[257] = u8::from(self.manages) << 3 | u8::from(self.reports) << 1;
                (page[512], page[513]) = (0x66, 0x44);
                page[576] = u8::from(self.tracks) << 1;
                Ok(0)
            }
            0x06 if self.log_format.is_some() => {
                page[24] = self.log_format.unwrap_or(0);
                Ok(0)
            }
            structure if structure == 0x20 + u8::from(self.erratum) => {
                SupportedControllerStateFormats::build(page, &self.versions, &self.vendors).unwrap();
                Ok(0)
            }
            _ => Err(StatusCode::INVALID_FIELD),
        }
    }

    fn lba_status(&self, command: &GetLbaStatus, data: &mut [u8]) -> Result<u32, StatusCode> {
        let disk = self.disks.get(&command.namespace.get()).ok_or(StatusCode::INVALID_NAMESPACE)?;
        let mut builder = LbaStatusBuilder::new(data).unwrap();
        let mut at = usize::try_from(command.start.get()).unwrap();
        let mut condition = LbaStatusCondition::COMPLETE;
        while let Some(start) = (at..disk.len()).find(|&block| disk[block] != 0) {
            let end = (start..disk.len()).find(|&block| disk[block] == 0).unwrap_or(disk.len());
            let blocks = u32::try_from(end - start).unwrap();
            if !builder.push(LbaStatusDescriptor { start: Lba::new(start as u64), blocks, status: 0 }) {
                condition = LbaStatusCondition::INCOMPLETE;
                break;
            }
            at = end;
        }
        let _ = builder.finish(condition);
        Ok(0)
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
                    if start && self.mute_start {
                        return Ok(0);
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
            0x41 => {
                let command = MigrationSend::decode(entry).map_err(field)?;
                self.migration_send(arena, &command, data, events)
            }
            0x42 => self.get_state(&MigrationReceive::decode(entry).map_err(field)?, data),
            0x06 => self.identify(&Identify::decode(entry).map_err(field)?, data),
            0x86 if self.reports => self.lba_status(&GetLbaStatus::decode(entry).map_err(field)?, data),
            _ => Err(StatusCode::INVALID_COMMAND_OPCODE),
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
        if self.refuses_trigger && feature.tail_trigger.is_some() {
            return Err(StatusCode::INVALID_FIELD);
        }
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

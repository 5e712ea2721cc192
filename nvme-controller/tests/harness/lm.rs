// SPDX-License-Identifier: MIT OR Apache-2.0
//! Data queues and migration commands as a managing host sends them.

use nvme_core::wire::cdq::{ControllerDataQueueCommand, CreateControllerDataQueue, QueueType};
use nvme_core::wire::feature::ControllerDataQueueFeature;
use nvme_core::wire::lba_migration::{Change, EntrySequence, LbaMigrationEntry};
use nvme_core::wire::migration::{MigrationReceive, MigrationSend, SequenceIndicator, SuspendKind};
use nvme_core::wire::track::TrackSend;
use nvme_core::wire::{
    BusAddr, CdqId, Command, CompletionQueueEntry, ControllerId, Status, SubmissionQueueEntry,
};

use super::{MANAGER, PAGE, Rig, id_of, list_of};

/// A data queue as its host keeps it.
#[derive(Clone, Debug)]
pub struct DataQueue {
    pub id: CdqId,
    pub owner: usize,
    /// Bus address of each slot.
    pub slots: Vec<BusAddr>,
    pub head: u32,
    pub phase: bool,
}

pub fn create(tracked: ControllerId, dwords: u32, contiguous: bool) -> CreateControllerDataQueue {
    CreateControllerDataQueue { queue_type: QueueType::USER_DATA_MIGRATION, contiguous, tracked, dwords }
}

pub fn create_entry(command: CreateControllerDataQueue, prp1: BusAddr) -> SubmissionQueueEntry {
    ControllerDataQueueCommand::Create(command).encode().with_prps(prp1, BusAddr::new(0))
}

impl Rig {
    /// Creates a contiguous data queue for the controller at `target`.
    pub fn data_queue(&mut self, target: usize, entries: u32) -> DataQueue {
        self.data_queue_at(MANAGER, target, entries)
    }

    pub fn data_queue_at(&mut self, owner: usize, target: usize, entries: u32) -> DataQueue {
        let base = self.allocate(owner, u64::from(entries) * 32);
        let entry = create_entry(create(id_of(target), entries * 8, true), base);
        let completion = self.command(owner, 0, entry);
        assert_eq!(completion.status(), Status::SUCCESS);
        let slots = (0..entries).map(|slot| base.plus(u64::from(slot) * 32)).collect();
        DataQueue { id: CdqId::new(completion.dw0() as u16), owner, slots, head: 0, phase: true }
    }

    /// Creates a data queue in scattered pages named by a PRP list.
    pub fn scattered_data_queue(&mut self, target: usize, entries: u32) -> DataQueue {
        let pages = u64::from(entries * 32).div_ceil(PAGE);
        let bases: Vec<u64> = (0..pages).map(|_| self.allocate(MANAGER, PAGE).get()).collect();
        let mut shuffled = bases.clone();
        shuffled.reverse();
        let list = list_of(&self.memories[MANAGER], &shuffled);
        let completion =
            self.command(MANAGER, 0, create_entry(create(id_of(target), entries * 8, false), list));
        assert_eq!(completion.status(), Status::SUCCESS);
        let slots = (0..u64::from(entries))
            .map(|slot| BusAddr::new(shuffled[(slot * 32 / PAGE) as usize] + slot * 32 % PAGE))
            .collect();
        DataQueue { id: CdqId::new(completion.dw0() as u16), owner: MANAGER, slots, head: 0, phase: true }
    }

    pub fn delete_queue(&mut self, queue: &DataQueue) -> CompletionQueueEntry {
        self.admin(queue.owner, &ControllerDataQueueCommand::Delete(queue.id))
    }

    /// Takes the entries posted since the last call; the head is not told to the controller.
    pub fn entries(&self, queue: &mut DataQueue) -> Vec<LbaMigrationEntry> {
        let mut taken = Vec::new();
        loop {
            let bytes = self.memories[queue.owner].get(queue.slots[queue.head as usize], 32);
            if (bytes[31] & 1 != 0) != queue.phase {
                return taken;
            }
            taken.push(LbaMigrationEntry::parse_bytes(bytes[..].try_into().unwrap()).unwrap());
            queue.head = (queue.head + 1) % queue.slots.len() as u32;
            queue.phase ^= queue.head == 0;
        }
    }

    /// What the entries posted since the last call say, in short.
    pub fn said(&self, queue: &mut DataQueue) -> Vec<String> {
        self.entries(queue).iter().map(short).collect()
    }

    pub fn set_head(&mut self, queue: &DataQueue, head: u32, trigger: Option<u32>) -> CompletionQueueEntry {
        let feature = ControllerDataQueueFeature { queue: queue.id, head, tail_trigger: trigger };
        self.admin(queue.owner, &feature.to_set_features())
    }

    /// Publishes the head after what was consumed.
    pub fn publish(&mut self, queue: &DataQueue, trigger: Option<u32>) {
        let entry = self.set_head(queue, queue.head, trigger);
        assert_eq!(entry.status(), Status::SUCCESS);
    }

    pub fn log(&mut self, queue: &DataQueue, start: bool) -> CompletionQueueEntry {
        self.admin(queue.owner, &TrackSend::LogUserDataChanges { start, queue: queue.id })
    }

    pub fn suspend(&mut self, target: usize, delete_queue: bool) -> CompletionQueueEntry {
        self.admin(MANAGER, &suspend_command(target, delete_queue))
    }

    pub fn resume(&mut self, target: usize) -> CompletionQueueEntry {
        self.admin(MANAGER, &MigrationSend::Resume { controller: id_of(target), uuid_index: 0 })
    }

    /// The state of a controller as an image; `vendor` asks for the vendor-specific part too.
    pub fn state(&mut self, target: usize, vendor: bool) -> Vec<u8> {
        let command = receive_command(target, vendor, 0, 4096);
        let (entry, image) = self.admin_data(MANAGER, &command, &[0xEE; 4096]);
        assert_eq!(entry.status(), Status::SUCCESS);
        let dwords = |at: usize| u128::from_le_bytes(image[at..at + 16].try_into().unwrap()) as usize;
        image[..48 + 4 * (dwords(16) + dwords(32))].to_vec()
    }

    pub fn set_state(&mut self, target: usize, image: &[u8], vendor: bool) -> CompletionQueueEntry {
        self.send_part(target, image, 0, SequenceIndicator::Only, vendor)
    }

    pub fn send_part(
        &mut self,
        target: usize,
        part: &[u8],
        offset: u64,
        sequence: SequenceIndicator,
        vendor: bool,
    ) -> CompletionQueueEntry {
        let command = MigrationSend::SetControllerState {
            controller: id_of(target),
            sequence,
            version_index: 1,
            vendor_index: u8::from(vendor),
            offset,
            dwords: part.len() as u32 / 4,
            uuid_index: 0,
        };
        self.admin_data(MANAGER, &command, part).0
    }
}

pub fn suspend_command(target: usize, delete_queue: bool) -> MigrationSend {
    MigrationSend::Suspend {
        controller: id_of(target),
        kind: SuspendKind::Suspend,
        delete_queue,
        uuid_index: 0,
    }
}

pub fn receive_command(target: usize, vendor: bool, offset: u64, bytes: u64) -> MigrationReceive {
    MigrationReceive {
        controller: id_of(target),
        version_index: 1,
        vendor_index: u8::from(vendor),
        vendor_parameter: 0,
        offset,
        dwords: bytes / 4,
        uuid_index: 0,
    }
}

/// An entry in short: its sequence, then its range as `namespace:start+blocks`, with a `d` if deallocated.
pub fn short(entry: &LbaMigrationEntry) -> String {
    let sequence = match entry.sequence {
        EntrySequence::Ordinary => "",
        EntrySequence::First => "first ",
        EntrySequence::LastStopped => "stopped ",
        EntrySequence::LastSuspended => "suspended ",
        EntrySequence::LastFull => "full ",
    };
    let change = match entry.change {
        Change::None => "-".to_owned(),
        Change::Range { namespace, start, blocks, deallocated } => {
            format!("{}:{}+{}{}", namespace.get(), start.get(), blocks, if deallocated { "d" } else { "" })
        }
        Change::AllOfNamespace { namespace } => format!("{}:all", namespace.get()),
    };
    format!("{sequence}{change}")
}

// SPDX-License-Identifier: MIT OR Apache-2.0
//! A Controller Data Queue whose bytes, events and answers the input chooses.

mod sys;

use std::time::Duration;

use nvme_controller::host::HostMemory;
use nvme_core::cdq::{
    CdqCreation, CdqDeletion, CdqOptions, ControllerDataQueue, HeadPolicy, QueueLayout, QueuePoll,
};
use nvme_core::dirty::{DirtyMap, DirtySet, Granularity};
use nvme_core::dma::Pool;
use nvme_core::dma::checking::{Access, CheckingArena, RegionSlot};
use nvme_core::ring;
use nvme_core::time::Instant;
use nvme_core::wire::lba_migration::{Change, EntrySequence, LbaMigrationEntry};
use nvme_core::wire::{BusAddr, CdqEvent, CdqId, ControllerId, Lba, ManagerId, NamespaceId, TrackedId};
use nvme_host_linux::memory::{AddressSpace, Capacity};

use crate::Input;
use crate::sys::with_space;
use sys::{Answer, Port};

const BLOCKS: u64 = 64;
const ID: CdqId = CdqId::new(5);
const NAMESPACES: [NamespaceId; 2] = [NamespaceId::new(1), NamespaceId::new(2)];

type Arena<'s> = CheckingArena<'s, AddressSpace>;

/// The controller's side of the ring: where slots lie, and what was written.
struct Writer {
    slots: Vec<BusAddr>,
    written: Vec<[u8; 32]>,
    tail: u32,
    phase: bool,
}

impl Writer {
    fn put(&mut self, arena: &Arena<'_>, slot: u32, entry: [u8; 32]) {
        let address = self.slots[slot as usize];
        arena.device_access(address, 32, Access::Write).expect("the queue is the device's");
        arena.inner().write_entry(address, &entry).expect("mapped");
        self.written[slot as usize] = entry;
    }

    /// Posts `entry` at the tail with the tag that is next, full or not.
    fn post(&mut self, arena: &Arena<'_>, mut entry: [u8; 32]) {
        entry[31] = entry[31] & !1 | u8::from(self.phase);
        self.put(arena, self.tail, entry);
        self.tail = ring::next(self.tail, self.slots.len() as u32);
        self.phase ^= self.tail == 0;
    }
}

/// What has to be in the dirty map, kept by the plain rules.
struct Model {
    dirty: [[bool; BLOCKS as usize]; 2],
    everything: bool,
}

impl Model {
    fn take(&mut self, bytes: &[u8; 32]) {
        let Ok(entry) = LbaMigrationEntry::parse_bytes(bytes) else {
            self.everything = true;
            return;
        };
        if entry.sequence == EntrySequence::LastFull {
            self.everything = true;
        }
        match entry.change {
            Change::Range { namespace, start, blocks, .. } => {
                if let Some(dirty) = self.of(namespace)
                    && let Some(end) = start.get().checked_add(blocks).filter(|end| *end <= BLOCKS)
                {
                    dirty[start.get() as usize..end as usize].fill(true);
                }
            }
            Change::AllOfNamespace { namespace } => {
                if let Some(dirty) = self.of(namespace) {
                    dirty.fill(true);
                }
            }
            Change::None => {}
        }
    }

    fn of(&mut self, namespace: NamespaceId) -> Option<&mut [bool; BLOCKS as usize]> {
        let at = NAMESPACES.iter().position(|known| *known == namespace)?;
        Some(&mut self.dirty[at])
    }
}

/// An entry that mostly makes sense.
fn entry(input: &mut Input<'_>) -> [u8; 32] {
    let choice = input.u8();
    if choice >= 0xF0 {
        return input.array();
    }
    let namespace = NamespaceId::new(1 + u32::from(choice >> 4) % 3);
    let range = || Change::Range {
        namespace,
        start: Lba::new(u64::from(choice & 7) * 8),
        blocks: 1 + u64::from(choice >> 3 & 7),
        deallocated: choice & 1 != 0,
    };
    let (sequence, change) = match input.below(12) {
        0 => (EntrySequence::First, Change::None),
        1 => (EntrySequence::First, range()),
        2 => (EntrySequence::LastStopped, Change::None),
        3 => (EntrySequence::LastSuspended, Change::None),
        4 => (EntrySequence::LastFull, Change::None),
        5 => (EntrySequence::LastFull, range()),
        6 => (EntrySequence::LastStopped, Change::AllOfNamespace { namespace }),
        _ => (EntrySequence::Ordinary, range()),
    };
    let built = LbaMigrationEntry { phase: false, sequence, change }.build();
    built.map_or_else(|_| input.array(), |entry| entry.to_bytes())
}

/// Creates a queue, lets controller and reader act in the order that the input chooses, and ends it.
///
/// # Panics
/// A property does not hold.
pub fn run(bytes: &[u8]) {
    let capacity = Capacity { queues: 4096, data: 4096, controller_data: 12 * 4096 };
    with_space("cdq", capacity, |space| {
        let (mut slots, mut violations) = ([const { RegionSlot::new() }; 8], [None; 4]);
        let arena = CheckingArena::new(space, &mut slots, &mut violations);
        act(&arena, &mut Input::new(bytes));
        let found = arena.inspect();
        assert_eq!(found, 0, "{:?}", arena.violation(0));
    });
}

fn act(arena: &Arena<'_>, input: &mut Input<'_>) {
    let mut port = Port::new(arena);
    let flags = input.u8();
    let head = HeadPolicy {
        every: input.below(6),
        occupancy_percent: [0, 25, 50, 100][usize::from(flags & 3)],
        when_idle: flags & 4 != 0,
        wake_after: (flags & 8 != 0).then(|| input.below(5)),
        timeout: Duration::from_millis(1),
    };
    let layout = if flags & 16 != 0 { QueueLayout::PrpList } else { QueueLayout::Contiguous };
    let entries = if flags & 32 != 0 { 128 + input.below(4) } else { 2 + input.below(12) };
    let options =
        CdqOptions { entries, layout, head, timeout: Duration::from_secs(1), ..CdqOptions::default() };
    let manager = ManagerId::new(ControllerId::new(1));
    let tracked = TrackedId::new(ControllerId::new(2), manager).expect("two controllers");
    port.answer = Answer::choose(input);
    let mut creation = CdqCreation::new(&port, tracked, &options).expect("enough memory");
    let made = (0..8).find_map(|_| creation.poll(&mut port, Instant::ZERO)).expect("an end");
    assert!(made.is_err() || port.has_queue, "a queue that the controller does not have");
    let Ok(mut queue) = made else {
        // Refused: back in the pool; unknown: kept for good.
        let kept = made.err().is_some_and(|failure| failure.quarantined.is_some());
        assert_eq!(arena.live_in(Pool::ControllerData) > 0, kept);
        assert!(kept || !port.has_queue, "memory that the controller has is back in the pool");
        return;
    };
    let slot = |n: u32| {
        let offset = u64::from(n) * 32;
        if layout == QueueLayout::Contiguous {
            return port.base.plus(offset);
        }
        let mut page = [0; 8];
        let at = port.base.plus(offset / 4096 * 8);
        arena.device_access(at, 8, Access::Read).expect("the list is published");
        arena.inner().read(at, &mut page).expect("mapped");
        BusAddr::new(u64::from_le_bytes(page)).plus(offset % 4096)
    };
    let mut writer = Writer {
        slots: (0..entries).map(slot).collect(),
        written: vec![[0; 32]; entries as usize],
        tail: 0,
        phase: true,
    };
    let mut words = [[0; 2]; 2];
    let [first, second] = &mut words;
    let mut maps = [
        DirtyMap::new(NAMESPACES[0], BLOCKS, Granularity::BLOCK, first).expect("a map"),
        DirtyMap::new(NAMESPACES[1], BLOCKS, Granularity::BLOCK, second).expect("a map"),
    ];
    let mut dirty = DirtySet::new(&mut maps).expect("two namespaces");
    let mut model = Model { dirty: [[false; BLOCKS as usize]; 2], everything: false };
    let (mut at, mut lap) = (0, true);
    // Entries given back so far; more than were read would be a head that went back.
    let mut published = 0;
    let mut now = Instant::ZERO;
    for _ in 0..64 {
        if input.is_empty() {
            break;
        }
        match input.below(8) {
            0..=2 => writer.post(arena, entry(input)),
            3 => {
                let slot = input.below(entries.min(256));
                let bytes = input.array();
                writer.put(arena, slot, bytes);
            }
            4 => {
                let id = if input.rarely(4) { CdqId::new(input.u16()) } else { ID };
                let event = if input.rarely(2) { CdqEvent::Full(id) } else { CdqEvent::TailPointer(id) };
                port.events.push_back(event.into());
            }
            5 => port.answer = Answer::choose(input),
            _ => {
                let limit = 1 + input.below(20);
                let before = queue.figures();
                let acknowledged = queue.acknowledged_head();
                let full_events = before.full_events;
                now = now.after(Duration::from_micros(300));
                let force = input.rarely(4);
                let (drained, result) = queue.poll(&mut port, &mut dirty, now, limit, force);
                // The reader took exactly the entries with the tag of this lap, one after the other.
                let mut taken = 0;
                while taken < limit && (writer.written[at as usize][31] & 1 != 0) == lap {
                    model.take(&writer.written[at as usize]);
                    at = ring::next(at, entries);
                    lap ^= at == 0;
                    taken += 1;
                }
                assert_eq!(drained.entries, taken);
                assert_eq!(drained.empty, taken < limit, "{taken} of {limit}");
                let after = queue.figures();
                assert_eq!(after.entries, before.entries + u64::from(taken));
                model.everything |= drained.overflowed || drained.violation.is_some();
                assert!(after.full_events >= full_events && after.overflows >= before.overflows);
                published += check_head(&queue, &mut port, acknowledged);
                assert!(published <= after.entries, "{published} published, {} read", after.entries);
                if matches!(result, Ok(QueuePoll::MaySleep)) {
                    assert!(drained.empty && !queue.is_publishing(), "sleeps with work to do");
                }
                compare(&dirty, &model);
            }
        }
    }
    // The end: deleted, refused or unknown.
    let mut deletion = CdqDeletion::new(queue, Duration::from_secs(1));
    let ended = (0..16).find_map(|_| deletion.poll(&mut port, now)).expect("a deletion ends");
    let kept = ended.is_err_and(|failure| failure.quarantined.is_some());
    assert_eq!(arena.live_in(Pool::ControllerData) > 0, kept);
    assert!(kept || !port.has_queue, "memory that the controller has is back in the pool");
    let taken: Vec<_> = collect(&mut dirty);
    assert!(taken.iter().all(|extent| extent.start.get() + extent.blocks <= BLOCKS));
}

/// How far the head that the controller knows has moved. It stays in the ring, as all that the controller is told does.
fn check_head(queue: &ControllerDataQueue, port: &mut Port<'_, '_>, before: u32) -> u64 {
    let (known, entries) = (queue.acknowledged_head(), queue.entries());
    assert!(known < entries, "head {known} of {entries}");
    for update in port.taken.drain(..) {
        assert_eq!(update.queue, ID);
        assert!(update.head < entries, "{update:?}");
        assert!(update.tail_trigger.is_none_or(|slot| slot < entries), "{update:?}");
    }
    ring::distance(before, known, entries).into()
}

fn collect(dirty: &mut DirtySet<'_, '_>) -> Vec<nvme_core::dirty::DirtyExtent> {
    core::iter::from_fn(|| dirty.take(u64::MAX)).take(4 * BLOCKS as usize).collect()
}

/// Nothing that changed is missing.
fn compare(dirty: &DirtySet<'_, '_>, model: &Model) {
    for (map, expected) in dirty.maps().iter().zip(&model.dirty) {
        if model.everything {
            assert!(map.is_everything(), "changes were lost and the map does not say so");
        }
        let least = expected.iter().filter(|dirty| **dirty).count() as u64;
        assert!(map.dirty_blocks() >= least, "{} dirty of {least}", map.dirty_blocks());
    }
}

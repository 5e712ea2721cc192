// SPDX-License-Identifier: MIT OR Apache-2.0
//! A completion queue and a Controller Data Queue filled by a device thread while the driver reads them: no entry is
//! lost, doubled or torn, and reading an entry orders everything its writer did before it.
//!
//! The last is seen under ThreadSanitizer (`tests/races`), by plain memory beside the ring. With `UNORDERED_READER` in
//! the environment the driver looks at phase tags by accesses that order nothing, which must be reported.

mod sys;

use std::hint::spin_loop;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;

use nvme_core::cdq::{CdqMemory, CdqReader, LogEvent, MemoryLimits, QueueLayout};
use nvme_core::dma::{Direction, DmaArena, Pool};
use nvme_core::queue::CompletionRing;
use nvme_core::register::{Offset, RegisterIo};
use nvme_core::ring::{PhaseConsumer, PhaseProducer};
use nvme_core::wire::lba_migration::{Change, EntrySequence, LbaMigrationEntry};
use nvme_core::wire::{BusAddr, CommandId, CompletionQueueEntry, Lba, NamespaceId, QueueId, Status};
use sys::{Memory, Witness};
use zerocopy::{FromBytes, IntoBytes};

const ENTRIES: u64 = 20_000;
const NAMESPACE: NamespaceId = NamespaceId::new(1);

/// Looks at a ring where nothing changes before the other side counts as stuck: seconds, and enough for any pause in which
/// the other thread does not run.
const LOOKS: u32 = 50_000_000;

/// Where the driver publishes its head.
struct Head(AtomicU32);

impl RegisterIo for Head {
    type Error = ();

    fn read32(&self, _offset: Offset) -> Result<u32, ()> {
        Err(())
    }

    fn write32(&self, _offset: Offset, value: u32) -> Result<(), ()> {
        self.0.store(value, Ordering::Release);
        Ok(())
    }
}

/// The device: fills the ring at `base` with `ENTRIES` entries, as fast as heads are published.
fn produce(
    (memory, base, size): (&Memory, BusAddr, u32),
    (head, witness): (&Head, &Witness),
    encode: impl Fn(u64, bool) -> Vec<u8>,
) {
    let mut producer = PhaseProducer::new(size);
    for number in 1..=ENTRIES {
        let mut looks = 0;
        while producer.is_full() {
            looks += 1;
            assert!(looks < LOOKS, "no slot for entry {number}: the driver is stuck");
            producer.set_head(head.0.load(Ordering::Acquire)).expect("a head that can be");
            spin_loop();
            thread::yield_now();
        }
        let (slot, tag) = (producer.tail(), producer.phase());
        assert!(producer.advance());
        witness.put(slot, number);
        let entry = encode(number, tag);
        memory.post(base.plus(u64::from(slot) * entry.len() as u64), &entry);
    }
}

/// Runs `take`, which returns whether it took an entry, until it has taken all of them.
fn consume(mut take: impl FnMut(u64) -> bool) {
    let (mut number, mut looks) = (1, 0);
    while number <= ENTRIES {
        if take(number) {
            (number, looks) = (number + 1, 0);
        } else {
            looks += 1;
            assert!(looks < LOOKS, "entry {number} does not come: it is lost, or the device is stuck");
            thread::yield_now();
        }
    }
}

fn completion(number: u64, phase: bool) -> CompletionQueueEntry {
    let (queue, command) = (QueueId::new(number as u16 ^ 0x5A5A), CommandId::new(number as u16));
    CompletionQueueEntry::new(queue, number as u16, command, Status::SUCCESS)
        .with_result(number as u32, !(number as u32))
        .with_phase(phase)
}

#[test]
fn completions_arrive_once_in_order_and_whole() {
    let ordered = std::env::var_os("UNORDERED_READER").is_none();
    for size in [2, 3, 64] {
        let memory = Memory::new(64 << 10);
        let region =
            memory.allocate(Pool::Queues, size as usize * 16, 4096, Direction::FromDevice).expect("memory");
        let base = region.bus();
        let (head, witness) = (Head(AtomicU32::new(0)), Witness::new(size));
        let mut ring = CompletionRing::new(region, size, Offset::new(0x1004), &memory).expect("a ring");
        let mut slots = PhaseConsumer::new(size);
        thread::scope(|scope| {
            scope.spawn(|| {
                produce((&memory, base, size), (&head, &witness), |number, tag| {
                    completion(number, tag).as_bytes().to_vec()
                });
            });
            consume(|number| {
                let entry = if ordered {
                    ring.pop(&memory)
                } else {
                    let mut bytes = [0; 16];
                    ring.memory().read(slots.head() as usize * 16, &mut bytes).expect("inside");
                    let entry = CompletionQueueEntry::read_from_bytes(&bytes).expect("16 bytes");
                    slots.is_new(entry.phase()).then_some(entry)
                };
                let Some(entry) = entry else { return false };
                assert_eq!(witness.get(slots.head()), number, "size {size}: written before the entry");
                assert!(
                    !ordered || entry == completion(number, slots.phase()),
                    "size {size}: entry {number} is {entry:?}"
                );
                slots.advance();
                if ordered {
                    ring.ring(&head).expect("a register");
                } else {
                    head.write32(Offset::new(0x1004), slots.head()).expect("a register");
                }
                true
            });
        });
        assert_eq!(ring.pop(&memory).filter(|_| ordered), None, "size {size}: nothing behind the last entry");
    }
}

/// The change that entry `number` of the log reports.
const fn change(number: u64) -> (Lba, u64) {
    (Lba::new(number.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 8), number % 4096 + 1)
}

#[test]
fn log_entries_arrive_once_in_order_and_whole() {
    for (size, every) in [(2, 1), (3, 1), (64, 1), (64, 17)] {
        let memory = Memory::new(64 << 10);
        let queue =
            CdqMemory::allocate(&memory, size, QueueLayout::Contiguous, 4096, MemoryLimits::default())
                .expect("memory");
        let base = queue.base();
        let (head, witness) = (Head(AtomicU32::new(0)), Witness::new(size));
        let mut reader = CdqReader::new(size);
        thread::scope(|scope| {
            scope.spawn(|| {
                produce((&memory, base, size), (&head, &witness), |number, phase| {
                    let (start, blocks) = change(number);
                    let (sequence, change) = match number {
                        1 => (EntrySequence::First, Change::None),
                        _ => (
                            EntrySequence::Ordinary,
                            Change::Range {
                                namespace: NAMESPACE,
                                start,
                                blocks,
                                deallocated: number % 3 == 0,
                            },
                        ),
                    };
                    let entry = LbaMigrationEntry { phase, sequence, change }.build().expect("an entry");
                    entry.as_bytes().to_vec()
                });
            });
            consume(|number| {
                let slot = reader.head();
                let Some(event) = reader.next(&queue, &memory, 1) else { return false };
                assert_eq!(witness.get(slot), number, "size {size}: written before the entry");
                let (start, blocks) = change(number);
                let expected = match number {
                    1 => LogEvent::LogStarted,
                    _ => LogEvent::Changed {
                        namespace: NAMESPACE,
                        start,
                        blocks,
                        deallocated: number % 3 == 0,
                    },
                };
                assert_eq!(event, expected, "size {size}: entry {number}");
                // Heads are published late, but never so late that the device waits for one.
                if number % every == 0 {
                    head.write32(Offset::new(0), reader.head()).expect("a head");
                }
                true
            });
        });
        assert_eq!(reader.next(&queue, &memory, 1), None, "size {size}: nothing behind the last entry");
        assert_eq!(
            (reader.entries(), reader.violations(), reader.overflows()),
            (ENTRIES, 0, 0),
            "size {size}"
        );
    }
}

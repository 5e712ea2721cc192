// SPDX-License-Identifier: MIT OR Apache-2.0
//! A host that puts any bytes it likes into its queues: what the driver of the core would never send.

use std::sync::Arc;
use std::time::{Duration, Instant};

use nvme_core::dma::{Direction, DmaArena, DmaRegion, Pool};
use nvme_core::register::{Offset, RegisterIo};
use nvme_core::wire::admin::{CreateIoCompletionQueue, CreateIoSubmissionQueue, QueuePriority};
use nvme_core::wire::{
    BusAddr, Command, CommandId, CompletionQueueEntry, QueueId, Status, SubmissionQueueEntry,
};
use nvme_host_linux::embedded::{ControllerSetup, EmbeddedController, EmbeddedSubsystem};
use nvme_host_linux::memory::AddressSpace;
use zerocopy::{FromBytes, IntoBytes};

const ENTRIES: u16 = 16;
const ENTRIES_MINUS_ONE: u32 = ENTRIES as u32 - 1;
const PATIENCE: Duration = Duration::from_secs(10);

/// Both rings of one queue pair.
#[derive(Debug)]
struct Pair {
    id: u16,
    submission: DmaRegion,
    completion: DmaRegion,
    tail: u16,
    head: u16,
    phase: bool,
}

impl Pair {
    fn new(id: u16, arena: &AddressSpace) -> Self {
        let ring = |bytes: usize, direction| {
            arena.allocate(Pool::Queues, bytes * usize::from(ENTRIES), 4096, direction).expect("memory")
        };
        let (submission, completion) = (ring(64, Direction::ToDevice), ring(16, Direction::FromDevice));
        Self { id, submission, completion, tail: 0, head: 0, phase: true }
    }
}

/// A controller in use by a host without any scruples. Its memory goes with its address space.
#[derive(Debug)]
pub struct RawHost {
    registers: EmbeddedController,
    arena: Arc<AddressSpace>,
    pairs: Vec<Pair>,
    next_command: u16,
}

impl RawHost {
    /// Enables a controller of `subsystem`, with one I/O queue pair.
    ///
    /// # Panics
    /// It does not become ready.
    #[must_use]
    pub fn enable(subsystem: &EmbeddedSubsystem, setup: &ControllerSetup) -> Self {
        let registers = subsystem.controller(setup.id).expect("the controller");
        let arena = Arc::clone(&setup.memory);
        let admin = Pair::new(0, &arena);
        let write = |offset, value| registers.write32(Offset::new(offset), value).expect("a register");
        let write64 = |offset, value: u64| {
            write(offset, value as u32);
            write(offset + 4, (value >> 32) as u32);
        };
        write(0x24, ENTRIES_MINUS_ONE << 16 | ENTRIES_MINUS_ONE);
        write64(0x28, admin.submission.bus().get());
        write64(0x30, admin.completion.bus().get());
        // Entries of 2^6 and 2^4 bytes, enable.
        write(0x14, 4 << 20 | 6 << 16 | 1);
        let started = Instant::now();
        while registers.read32(Offset::new(0x1C)).expect("CSTS") & 1 == 0 {
            assert!(started.elapsed() < PATIENCE, "the controller does not become ready");
        }
        let io = Pair::new(1, &arena);
        let mut host = Self { registers, arena, pairs: vec![admin], next_command: 1 };
        let queue = QueueId::new(1);
        let entries = u32::from(ENTRIES);
        let completion = CreateIoCompletionQueue {
            queue,
            entries,
            contiguous: true,
            interrupts_enabled: false,
            interrupt_vector: 0,
        };
        let submission = CreateIoSubmissionQueue {
            queue,
            entries,
            contiguous: true,
            priority: QueuePriority::Urgent,
            completion_queue: queue,
            nvm_set: 0,
        };
        for (entry, ring) in [(completion.encode(), &io.completion), (submission.encode(), &io.submission)] {
            let status = host.admin(entry.with_prps(ring.bus(), BusAddr::new(0))).status();
            assert_eq!(status, Status::SUCCESS, "an I/O queue");
        }
        host.pairs.push(io);
        host
    }

    /// The controller's address space.
    #[must_use]
    pub fn arena(&self) -> &AddressSpace {
        &self.arena
    }

    /// A page that the controller may read and write, filled with `byte`.
    ///
    /// # Panics
    /// The address space is used up.
    #[must_use]
    pub fn page(&self, byte: u8) -> DmaRegion {
        let region = self.arena.allocate(Pool::Data, 4096, 4096, Direction::Bidirectional).expect("memory");
        region.write(0, &[byte; 4096]).expect("the page");
        region
    }

    /// Sends an admin command and waits for its completion.
    ///
    /// # Panics
    /// The controller does not answer.
    pub fn admin(&mut self, entry: SubmissionQueueEntry) -> CompletionQueueEntry {
        self.send(0, entry)
    }

    /// Sends an I/O command and waits for its completion.
    ///
    /// # Panics
    /// The controller does not answer.
    pub fn io(&mut self, entry: SubmissionQueueEntry) -> CompletionQueueEntry {
        self.send(1, entry)
    }

    fn send(&mut self, pair: usize, entry: SubmissionQueueEntry) -> CompletionQueueEntry {
        let command = CommandId::new(self.next_command);
        self.next_command = self.next_command.wrapping_add(1) & 0x7FFF;
        let pair = &mut self.pairs[pair];
        let bytes = entry.with_command_id(command);
        pair.submission.write(usize::from(pair.tail) * 64, bytes.as_bytes()).expect("the ring");
        pair.tail = (pair.tail + 1) % ENTRIES;
        let doorbell = 0x1000 + u32::from(pair.id) * 8;
        let ring = |offset, value: u16| {
            self.registers.write32(Offset::new(offset), u32::from(value)).expect("a doorbell");
        };
        ring(doorbell, pair.tail);
        let started = Instant::now();
        loop {
            let at = usize::from(pair.head) * 16;
            // The dword with the phase tag is read first.
            let last = pair.completion.read_u32_acquire(at + 12).expect("the ring");
            if (last >> 16) & 1 == u32::from(pair.phase) {
                let mut bytes = [0; 16];
                pair.completion.read(at, &mut bytes).expect("the ring");
                pair.head = (pair.head + 1) % ENTRIES;
                pair.phase ^= pair.head == 0;
                ring(doorbell + 4, pair.head);
                let completion = CompletionQueueEntry::read_from_bytes(&bytes).expect("16 bytes");
                assert_eq!(completion.command_id(), command);
                return completion;
            }
            assert!(started.elapsed() < PATIENCE, "the controller does not answer {entry:?}");
            std::thread::yield_now();
        }
    }
}

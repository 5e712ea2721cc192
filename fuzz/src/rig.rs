// SPDX-License-Identifier: MIT OR Apache-2.0
//! A subsystem with a managing controller and a guest's, each with a small memory of its own, driven by raw entries.

use std::cell::RefCell;
use std::rc::Rc;

use nvme_controller::host::{BlockStorage, HostMemory, Interrupts, MemoryFault, StorageError};
use nvme_controller::{
    CommandSlot, CompletionQueueSlot, Controller, ControllerConfig, ControllerStorage, DataQueueSlot,
    ErrorSlot, EventSlot, Namespace, Port, SubmissionQueueSlot, Subsystem, SubsystemConfig, SubsystemStorage,
    TrackedRange, state_bytes,
};
use nvme_core::register::Offset;
use nvme_core::wire::admin::{CreateIoCompletionQueue, CreateIoSubmissionQueue, QueuePriority};
use nvme_core::wire::controller_state::ControllerStateHeader;
use nvme_core::wire::migration::{MigrationReceive, MigrationSend, SequenceIndicator, SuspendKind};
use nvme_core::wire::{
    BusAddr, Command, CommandId, CompletionQueueEntry, ControllerId, Lba, NamespaceId, QueueId, Status,
    SubmissionQueueEntry,
};
use zerocopy::{FromBytes, IntoBytes};

/// Index of the managing controller.
pub(crate) const MANAGER: usize = 0;
/// Index of the guest's controller.
pub(crate) const GUEST: usize = 1;
/// Their identifiers.
pub(crate) const IDS: [ControllerId; 2] = [ControllerId::new(1), ControllerId::new(2)];

pub(crate) const PAGE: u64 = 4096;
/// First mapped address.
pub(crate) const BASE: u64 = 0x1_0000;
/// Pages that can be mapped.
pub(crate) const PAGES: u64 = 32;
/// Where the queues and data of a well-behaved host lie.
pub(crate) const ASQ: u64 = BASE;
pub(crate) const ACQ: u64 = BASE + PAGE;
pub(crate) const SQ: u64 = BASE + 2 * PAGE;
pub(crate) const CQ: u64 = BASE + 3 * PAGE;
pub(crate) const CDQ: u64 = BASE + 5 * PAGE;
pub(crate) const DATA: u64 = BASE + 8 * PAGE;
/// Entries of a well-behaved host's queues.
pub(crate) const ENTRIES: u32 = 32;
const QUEUES: usize = 4;
const BLOCKS: u64 = 64;

/// What a controller did to its host's memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Touch {
    pub(crate) address: u64,
    pub(crate) len: usize,
    pub(crate) write: bool,
    /// It was refused.
    pub(crate) refused: bool,
}

/// The memory of one host: pages that come and go. Clones are the same memory.
#[derive(Clone, Debug)]
pub(crate) struct Space(Rc<RefCell<Pages>>);

#[derive(Debug)]
struct Pages {
    pages: Vec<Option<Box<[u8; PAGE as usize]>>>,
    touched: Vec<Touch>,
}

impl Space {
    fn new() -> Self {
        let pages = (0..PAGES).map(|_| Some(Box::new([0; PAGE as usize]))).collect();
        Self(Rc::new(RefCell::new(Pages { pages, touched: Vec::new() })))
    }

    /// Maps a zeroed page or takes one away.
    pub(crate) fn map(&self, page: u64, present: bool) {
        let mut pages = self.0.borrow_mut();
        let place = &mut pages.pages[page as usize];
        *place = present.then(|| place.take().unwrap_or_else(|| Box::new([0; PAGE as usize])));
    }

    /// What was touched since the last call.
    pub(crate) fn take_touched(&self) -> Vec<Touch> {
        core::mem::take(&mut self.0.borrow_mut().touched)
    }

    /// The host writes; what is not mapped is left out.
    pub(crate) fn put(&self, address: u64, bytes: &[u8]) {
        let mut pages = self.0.borrow_mut();
        for (at, byte) in (address..).zip(bytes) {
            let place = at.checked_sub(BASE).and_then(|at| pages.pages.get_mut((at / PAGE) as usize));
            if let Some(Some(page)) = place {
                page[(at % PAGE) as usize] = *byte;
            }
        }
    }

    /// The host reads; what is not mapped reads as zero.
    pub(crate) fn get(&self, address: u64, bytes: &mut [u8]) {
        let pages = self.0.borrow();
        for (at, byte) in (address..).zip(bytes) {
            let place = at.checked_sub(BASE).and_then(|at| pages.pages.get((at / PAGE) as usize));
            *byte = place.and_then(Option::as_ref).map_or(0, |page| page[(at % PAGE) as usize]);
        }
    }

    fn mapped(&self, address: u64, len: u64) -> bool {
        let pages = self.0.borrow();
        let Some(end) = address.checked_add(len) else { return false };
        let Some(first) = address.checked_sub(BASE) else { return false };
        let pages = &pages.pages;
        end - BASE <= PAGES * PAGE
            && (first / PAGE..(end - BASE).div_ceil(PAGE)).all(|page| pages[page as usize].is_some())
    }

    fn touch(&self, address: BusAddr, len: usize, write: bool) -> Result<u64, MemoryFault> {
        let refused = !self.mapped(address.get(), len as u64);
        let mut pages = self.0.borrow_mut();
        pages.touched.push(Touch { address: address.get(), len, write, refused });
        if refused { Err(MemoryFault { address, len }) } else { Ok(address.get()) }
    }
}

impl HostMemory for Space {
    fn read(&self, address: BusAddr, bytes: &mut [u8]) -> Result<(), MemoryFault> {
        let at = self.touch(address, bytes.len(), false)?;
        self.get(at, bytes);
        Ok(())
    }

    fn write(&self, address: BusAddr, bytes: &[u8]) -> Result<(), MemoryFault> {
        let at = self.touch(address, bytes.len(), true)?;
        self.put(at, bytes);
        Ok(())
    }

    fn write_entry(&self, address: BusAddr, entry: &[u8]) -> Result<(), MemoryFault> {
        assert!(address.get().is_multiple_of(4) && entry.len().is_multiple_of(4), "an entry at {address}");
        let at = self.touch(address, entry.len(), true)?;
        self.put(at, entry);
        Ok(())
    }

    fn is_host_memory(&self, address: BusAddr, len: u64) -> bool {
        self.mapped(address.get(), len)
    }
}

/// The medium: it insists on what callers promise.
#[derive(Debug)]
pub(crate) struct Medium(Vec<[u8; 512]>);

impl Medium {
    fn range(&self, lba: Lba, blocks: u64) -> std::ops::Range<usize> {
        let end = lba.get().checked_add(blocks).expect("a range that has an end");
        assert!(end <= BLOCKS, "blocks {lba} to {end} of {BLOCKS}");
        lba.get() as usize..end as usize
    }
}

impl BlockStorage for Medium {
    fn block_shift(&self) -> u8 {
        9
    }

    fn blocks(&self) -> u64 {
        BLOCKS
    }

    fn read(&mut self, lba: Lba, bytes: &mut [u8]) -> Result<(), StorageError> {
        assert!(bytes.len().is_multiple_of(512), "whole blocks");
        let range = self.range(lba, bytes.len() as u64 / 512);
        bytes.copy_from_slice(self.0[range].as_flattened());
        Ok(())
    }

    fn write(&mut self, lba: Lba, bytes: &[u8]) -> Result<(), StorageError> {
        assert!(bytes.len().is_multiple_of(512), "whole blocks");
        let range = self.range(lba, bytes.len() as u64 / 512);
        self.0[range].as_flattened_mut().copy_from_slice(bytes);
        Ok(())
    }

    fn write_zeroes(&mut self, lba: Lba, blocks: u64, _: bool) -> Result<(), StorageError> {
        let range = self.range(lba, blocks);
        self.0[range].fill([0; 512]);
        Ok(())
    }

    fn flush(&mut self) -> Result<(), StorageError> {
        Ok(())
    }

    fn allocated(&self, lba: Lba, limit: u64) -> (bool, u64) {
        let range = self.range(lba, limit);
        (lba.get() % 8 < 4, (range.len() as u64).min(4 - lba.get() % 4))
    }

    fn set_uncorrectable(&mut self, lba: Lba, blocks: u64) -> Result<(), StorageError> {
        self.range(lba, blocks);
        Err(StorageError::Write)
    }
}

/// Nobody is waiting.
pub(crate) struct Quiet;

impl Interrupts for Quiet {
    fn interrupt(&self, _: ControllerId, _: u16) {}
}

/// The host's half of one queue pair.
#[derive(Clone, Copy, Debug)]
struct Pair {
    tail: u32,
    head: u32,
    phase: bool,
}

impl Pair {
    const NEW: Self = Self { tail: 0, head: 0, phase: true };
}

/// See the module.
pub(crate) struct Rig<'s> {
    pub(crate) subsystem: Subsystem<'s, Space, Medium, Quiet>,
    pub(crate) spaces: [Space; 2],
    pub(crate) ports: [Port; 2],
    admin: [Pair; 2],
    io: [Pair; 2],
}

/// Makes the world and lends it to `act`.
pub(crate) fn with_rig<T>(act: impl FnOnce(&mut Rig<'_>) -> T) -> T {
    let spaces = [Space::new(), Space::new()];
    let mut submission = vec![SubmissionQueueSlot::new(); 2 * QUEUES];
    let mut completion = vec![CompletionQueueSlot::new(); 2 * QUEUES];
    let mut commands = vec![CommandSlot::new(); 2 * 17];
    let mut requests = [CommandId::new(0); 2 * 3];
    let mut events = [EventSlot::new(); 2 * 4];
    let mut errors = vec![ErrorSlot::new(); 2 * 4];
    let mut state = vec![0; 2 * state_bytes(QUEUES, QUEUES, 3, 4)];
    let mut ranges = [TrackedRange::new(); 2 * 4];
    let mut bits = vec![0; 2 * 16];
    macro_rules! halves {
        ($($memory:ident),+) => {$(
            let half = $memory.len() / 2;
            let $memory = $memory.split_at_mut(half);
        )+};
    }
    halves!(submission, completion, commands, requests, events, errors, state, ranges, bits);
    let [manager, guest] = [
        ControllerStorage {
            submission_queues: submission.0,
            completion_queues: completion.0,
            commands: commands.0,
            event_requests: requests.0,
            events: events.0,
            errors: errors.0,
            state: state.0,
            tracked_ranges: ranges.0,
            tracked_bits: bits.0,
        },
        ControllerStorage {
            submission_queues: submission.1,
            completion_queues: completion.1,
            commands: commands.1,
            event_requests: requests.1,
            events: events.1,
            errors: errors.1,
            state: state.1,
            tracked_ranges: ranges.1,
            tracked_bits: bits.1,
        },
    ];
    let mut controllers = [
        Controller::new(ControllerConfig::managing(IDS[MANAGER]), spaces[MANAGER].clone(), manager),
        Controller::new(ControllerConfig::migratable(IDS[GUEST]), spaces[GUEST].clone(), guest),
    ];
    let medium = Medium((0..BLOCKS).map(|block| [block as u8; 512]).collect());
    let mut namespaces = [Namespace::new(NamespaceId::new(1), medium, [1; 16])];
    let mut data_queues = vec![DataQueueSlot::new(); 2];
    let mut scratch = vec![0; 4096];
    let config = SubsystemConfig {
        max_queue_entries: 256,
        max_transfer_shift: 2,
        max_copy_bytes: 8192,
        keep_alive_granularity: 1,
        ..SubsystemConfig::default()
    };
    let storage = SubsystemStorage {
        controllers: &mut controllers,
        namespaces: &mut namespaces,
        data_queues: &mut data_queues,
        scratch: &mut scratch,
    };
    let subsystem = Subsystem::new(config, storage, Quiet).expect("a possible subsystem");
    let ports = IDS.map(|id| subsystem.port(id).expect("a controller"));
    act(&mut Rig { subsystem, spaces, ports, admin: [Pair::NEW; 2], io: [Pair::NEW; 2] })
}

impl Rig<'_> {
    pub(crate) fn read32(&self, index: usize, offset: u32) -> u32 {
        self.subsystem.read32(self.ports[index], Offset::new(offset)).expect("an aligned offset")
    }

    pub(crate) fn write32(&mut self, index: usize, offset: u32, value: u32) {
        self.subsystem.write32(self.ports[index], Offset::new(offset), value).expect("an aligned offset");
    }

    /// Enables a controller with an admin queue pair where a well-behaved host has it. Whether it is ready.
    pub(crate) fn bring_up(&mut self, index: usize) -> bool {
        self.write32(index, 0x14, 0);
        self.subsystem.poll(4);
        for (offset, value) in [
            (0x24, (ENTRIES - 1) << 16 | (ENTRIES - 1)),
            (0x28, ASQ as u32),
            (0x2C, 0),
            (0x30, ACQ as u32),
            (0x34, 0),
        ] {
            self.write32(index, offset, value);
        }
        self.spaces[index].put(ACQ, &[0; PAGE as usize]);
        self.admin[index] = Pair::NEW;
        self.write32(index, 0x14, 0x0046_0001);
        for _ in 0..4 {
            self.subsystem.poll(4);
        }
        self.read32(index, 0x1C) & 3 == 1
    }

    /// Carries out one admin command; `None` if it was not completed.
    pub(crate) fn admin(
        &mut self,
        index: usize,
        entry: SubmissionQueueEntry,
    ) -> Option<CompletionQueueEntry> {
        self.command(index, 0, entry)
    }

    /// Makes I/O queue pair 1 of a controller that was brought up. Whether it exists.
    pub(crate) fn make_queues(&mut self, index: usize) -> bool {
        let queue = QueueId::new(1);
        let completion = CreateIoCompletionQueue {
            queue,
            entries: ENTRIES,
            contiguous: true,
            interrupts_enabled: false,
            interrupt_vector: 0,
        };
        let submission = CreateIoSubmissionQueue {
            queue,
            entries: ENTRIES,
            contiguous: true,
            priority: QueuePriority::Medium,
            completion_queue: queue,
            nvm_set: 0,
        };
        self.spaces[index].put(CQ, &[0; PAGE as usize]);
        self.io[index] = Pair::NEW;
        let at = |address| (BusAddr::new(address), BusAddr::new(0));
        let (completion, submission) = (
            completion.encode().with_prps(at(CQ).0, at(CQ).1),
            submission.encode().with_prps(at(SQ).0, at(SQ).1),
        );
        [completion, submission]
            .into_iter()
            .all(|entry| self.admin(index, entry).is_some_and(|done| done.status().is_success()))
    }

    /// Carries out one command of queue pair 0 or 1; `None` if it was not completed.
    pub(crate) fn command(
        &mut self,
        index: usize,
        queue: u32,
        entry: SubmissionQueueEntry,
    ) -> Option<CompletionQueueEntry> {
        let (submission, completion) = if queue == 0 { (ASQ, ACQ) } else { (SQ, CQ) };
        let mut pair = if queue == 0 { self.admin[index] } else { self.io[index] };
        let entry = entry.with_command_id(CommandId::new(pair.tail as u16 + 1));
        self.spaces[index].put(submission + u64::from(pair.tail) * 64, entry.as_bytes());
        pair.tail = (pair.tail + 1) % ENTRIES;
        self.write32(index, 0x1000 + 8 * queue, pair.tail);
        let found = (0..8).find_map(|_| {
            self.subsystem.poll(8);
            let mut bytes = [0; 16];
            self.spaces[index].get(completion + u64::from(pair.head) * 16, &mut bytes);
            let entry = CompletionQueueEntry::read_from_bytes(&bytes).expect("16 bytes");
            (entry.phase() == pair.phase).then_some(entry)
        });
        if found.is_some() {
            pair.head = (pair.head + 1) % ENTRIES;
            pair.phase ^= pair.head == 0;
            self.write32(index, 0x1004 + 8 * queue, pair.head);
        }
        *(if queue == 0 { &mut self.admin[index] } else { &mut self.io[index] }) = pair;
        found
    }

    /// Suspends the guest's controller.
    pub(crate) fn suspend(&mut self) -> bool {
        let suspend = MigrationSend::Suspend {
            controller: IDS[GUEST],
            kind: SuspendKind::Suspend,
            delete_queue: false,
            uuid_index: 0,
        };
        self.admin(MANAGER, suspend.encode()).is_some_and(|entry| entry.status().is_success())
    }

    /// The state of the guest's controller, with the vendor part if asked for.
    pub(crate) fn get_state(&mut self, vendor: bool) -> Option<Vec<u8>> {
        let command = |dwords: u64| {
            MigrationReceive {
                controller: IDS[GUEST],
                version_index: 1,
                vendor_index: vendor.into(),
                vendor_parameter: 0,
                offset: 0,
                dwords,
                uuid_index: 0,
            }
            .encode()
            .with_prps(BusAddr::new(DATA), BusAddr::new(DATA + PAGE))
        };
        self.admin(MANAGER, command(12)).filter(|entry| entry.status().is_success())?;
        let mut header = [0; 48];
        self.spaces[MANAGER].get(DATA, &mut header);
        let total = ControllerStateHeader::parse(&header).ok()?.sizes(8192).ok()?.total;
        self.admin(MANAGER, command(total as u64 / 4)).filter(|entry| entry.status().is_success())?;
        let mut image = vec![0; total];
        self.spaces[MANAGER].get(DATA, &mut image);
        Some(image)
    }

    /// Sets the state of the guest's controller in about `parts` parts; if `out_of_order`, the last comes first.
    pub(crate) fn set_state(
        &mut self,
        image: &[u8],
        parts: usize,
        vendor: bool,
        out_of_order: bool,
    ) -> Result<(), Status> {
        let piece = image.len().div_ceil(parts).next_multiple_of(4).max(4);
        let count = image.len().div_ceil(piece);
        let mut order: Vec<(usize, &[u8])> = image.chunks(piece).enumerate().collect();
        if out_of_order {
            order.rotate_right(1);
        }
        for (n, part) in order {
            let sequence = match (n == 0, n + 1 == count) {
                (true, true) => SequenceIndicator::Only,
                (true, false) => SequenceIndicator::First,
                (false, true) => SequenceIndicator::Last,
                (false, false) => SequenceIndicator::Middle,
            };
            self.spaces[MANAGER].put(DATA, part);
            let command = MigrationSend::SetControllerState {
                controller: IDS[GUEST],
                sequence,
                version_index: 1,
                vendor_index: vendor.into(),
                offset: (n * piece) as u64,
                dwords: part.len() as u32 / 4,
                uuid_index: 0,
            };
            let entry = command.encode().with_prps(BusAddr::new(DATA), BusAddr::new(DATA + PAGE));
            let status = self.admin(MANAGER, entry).expect("a completion").status();
            if !status.is_success() {
                return Err(status);
            }
        }
        Ok(())
    }
}

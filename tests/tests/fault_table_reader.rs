// SPDX-License-Identifier: MIT OR Apache-2.0
//! The reader of a Controller Data Queue over a managing controller that misbehaves by fault rules, in one thread and in
//! virtual time: a guest changes blocks, the log of them is read into a dirty map, stopped and deleted.
//!
//! How each kind of fault ends is the reader's column of [`nvme_tests::fault_table`].

use std::cell::{Cell, RefCell};
use std::collections::BTreeSet;
use std::time::Duration;

use nvme_controller::fault::{
    DwordMatch, FaultAction, FaultKind, FaultRule, FaultSlot, FaultTable, HeldSlot, Occasion, QueueMatch,
};
use nvme_controller::host::{BlockStorage, Interrupts, StorageError};
use nvme_controller::{
    CommandSlot, CompletionQueueSlot, Controller, ControllerConfig, ControllerStorage, DataQueueSlot,
    ErrorSlot, EventSlot, Namespace, SubmissionQueueSlot, Subsystem, SubsystemConfig, SubsystemStorage,
};
use nvme_core::admin::{AdminPort, AdminRequest, AdminSlot, Call, CallError};
use nvme_core::cdq::{CdqCreation, CdqDeletion, CdqOptions, ControllerDataQueue, HeadPolicy, QueuePoll};
use nvme_core::controller::{Disabling, EnableOptions, Fault, Link, Ready};
use nvme_core::dirty::{DirtyMap, DirtySet, Granularity};
use nvme_core::dma::Pool;
use nvme_core::io::{CreateIoQueuePair, CreateOutcome, IoQueueOptions, IoQueuePair, IoSlot};
use nvme_core::time::{Instant, Step};
use nvme_core::wire::nvm::WriteZeroes;
use nvme_core::wire::track::TrackSend;
use nvme_core::wire::{
    AdminOpcode, Command, CommandId, ControllerId, Lba, ManagerId, NamespaceId, QueueId, StatusCode,
    TrackedId,
};
use nvme_host_linux::backend::{Confined, attach};
use nvme_host_linux::embedded::{DeviceMemory, LocalController, LocalSubsystem};
use nvme_host_linux::memory::{AddressSpace, Capacity};
use nvme_tests::fault_table::{self, Outcome};

const MANAGER: ControllerId = ControllerId::new(1);
const GUEST: ControllerId = ControllerId::new(2);
const NAMESPACE: NamespaceId = NamespaceId::new(1);
const BLOCKS: u64 = 4096;
const ENTRIES: u32 = 64;
/// Blocks that the guest changes: the queue holds them all, even if no head is ever set.
const CHANGES: u64 = 50;
const STEP: Duration = Duration::from_micros(200);
const TIMEOUT: Duration = Duration::from_millis(30);
/// Enough for every time-out of a run, several times over.
const TURNS: u32 = 100_000;
const SEEDS: u64 = 8;

#[derive(Clone, Copy, Debug)]
struct Quiet;

impl Interrupts for Quiet {
    fn interrupt(&self, _: ControllerId, _: u16) {}
}

/// Blocks of zeroes, whatever is written.
#[derive(Debug)]
struct Zeroes;

impl BlockStorage for Zeroes {
    fn block_shift(&self) -> u8 {
        9
    }

    fn blocks(&self) -> u64 {
        BLOCKS
    }

    fn read(&mut self, _: Lba, bytes: &mut [u8]) -> Result<(), StorageError> {
        bytes.fill(0);
        Ok(())
    }

    fn write(&mut self, _: Lba, _: &[u8]) -> Result<(), StorageError> {
        Err(StorageError::WriteProtected)
    }

    fn write_zeroes(&mut self, _: Lba, _: u64, _: bool) -> Result<(), StorageError> {
        Ok(())
    }

    fn flush(&mut self) -> Result<(), StorageError> {
        Ok(())
    }

    fn allocated(&self, _: Lba, limit: u64) -> (bool, u64) {
        (true, limit)
    }

    fn set_uncorrectable(&mut self, _: Lba, _: u64) -> Result<(), StorageError> {
        Err(StorageError::WriteProtected)
    }
}

/// Memory lent to one controller.
struct Lent {
    submission_queues: [SubmissionQueueSlot; 2],
    completion_queues: [CompletionQueueSlot; 2],
    commands: [CommandSlot; 17],
    event_requests: [CommandId; 4],
    events: [EventSlot; 4],
    errors: [ErrorSlot; 4],
    state: Vec<u8>,
}

impl Lent {
    fn new() -> Self {
        Self {
            submission_queues: [SubmissionQueueSlot::new(); 2],
            completion_queues: [CompletionQueueSlot::new(); 2],
            commands: [CommandSlot::new(); 17],
            event_requests: [CommandId::new(0); 4],
            events: [EventSlot::new(); 4],
            errors: [ErrorSlot::new(); 4],
            state: vec![0; 4096],
        }
    }

    fn storage(&mut self) -> ControllerStorage<'_> {
        ControllerStorage {
            submission_queues: &mut self.submission_queues,
            completion_queues: &mut self.completion_queues,
            commands: &mut self.commands,
            event_requests: &mut self.event_requests,
            events: &mut self.events,
            errors: &mut self.errors,
            state: &mut self.state,
            tracked_ranges: &mut [],
            tracked_bits: &mut [],
        }
    }
}

/// The subsystem and the time, in which every turn is one step.
struct Bench<'a, 's> {
    device: &'a RefCell<LocalSubsystem<'s, Zeroes, Quiet>>,
    turns: Cell<u32>,
}

impl Bench<'_, '_> {
    fn now(&self) -> Instant {
        Instant::from_micros(u64::from(self.turns.get()) * u64::try_from(STEP.as_micros()).expect("short"))
    }

    /// Lets the subsystem work for a step.
    fn turn(&self) -> Instant {
        let turns = self.turns.get() + 1;
        assert!(turns < TURNS, "it does not end within {TURNS} turns");
        self.turns.set(turns);
        let mut device = self.device.borrow_mut();
        device.advance(self.now().as_micros());
        device.poll(8);
        self.now()
    }
}

type Driver<'d, R> = Ready<'d, 'd, R, AddressSpace>;

fn bring_up<'d, R: Confined>(
    bench: &Bench<'_, '_>,
    mut disabling: Disabling<'d, 'd, R, AddressSpace>,
    slots: Option<&'d mut [AdminSlot]>,
) -> Result<Driver<'d, R>, Fault> {
    while disabling.poll(bench.turn())? != Step::Done {}
    let mut disabled = disabling.finish().unwrap_or_else(|_| panic!("done"));
    let slots = disabled.retire().or(slots).expect("slots");
    let options = EnableOptions { events: 3, ..EnableOptions::default() };
    let mut enabling = disabled.enable(&options, slots).unwrap_or_else(|_| panic!("possible options"));
    while enabling.poll(bench.turn())? != Step::Done {}
    let mut ready = enabling.finish().unwrap_or_else(|_| panic!("done"));
    ready.admin().request_events(3);
    Ok(ready)
}

/// The guest: a driver with one queue pair that changes one block after the other.
struct Guest<'d, R: Confined> {
    ready: Driver<'d, R>,
    pair: IoQueuePair<'d, 'd, R, AddressSpace, u64>,
    changed: BTreeSet<u64>,
    submitted: u64,
}

impl<'d, R: Confined> Guest<'d, R> {
    fn new(bench: &Bench<'_, '_>, mut ready: Driver<'d, R>, slots: &'d mut [IoSlot<u64>]) -> Self {
        let options = IoQueueOptions::new(QueueId::new(1), 8);
        let mut creation =
            CreateIoQueuePair::new(ready.admin(), &options, slots).unwrap_or_else(|_| panic!("options"));
        while creation.poll(ready.admin(), bench.turn()) != Step::Done {
            ready.poll(bench.now()).expect("no fault at the guest");
        }
        let Ok(CreateOutcome::Created(pair)) = creation.finish() else { panic!("no queue pair") };
        Self { ready, pair, changed: BTreeSet::new(), submitted: 0 }
    }

    /// Takes completions, and changes up to `count` blocks more. Which ones follows from `seed`.
    fn work(&mut self, now: Instant, count: u64, seed: u64) {
        self.ready.poll(now).expect("no fault at the guest");
        while let Some(completed) = self.pair.poll().expect("no fault at the guest") {
            assert!(completed.entry.status().is_success());
            self.changed.insert(completed.tag);
        }
        self.pair.acknowledge().expect("no fault at the guest");
        for _ in 0..count.min(CHANGES - self.submitted) {
            // Every other block, so that no two are one range.
            let block = (self.submitted * 2 + seed * 7) % BLOCKS;
            let command = WriteZeroes::new(NAMESPACE, Lba::new(block), 1).encode();
            if self.pair.submit(&command, None, block, None).is_err() {
                break;
            }
            self.submitted += 1;
        }
        self.pair.ring().expect("no fault at the guest");
    }

    fn has_changed_all(&self) -> bool {
        self.changed.len() as u64 == CHANGES
    }
}

/// What a reader went through.
#[derive(Debug, Default)]
struct Seen {
    violated: bool,
    overflowed: bool,
    gone: bool,
    silent: bool,
    removed: bool,
    head_failures: u64,
    /// Changed blocks that the dirty map does not have.
    missing: usize,
}

impl Seen {
    fn outcome(&self) -> Outcome {
        match self {
            Self { removed: true, .. } => Outcome::Removed,
            Self { gone: true, .. } => Outcome::Gone,
            Self { silent: true, .. } => Outcome::Silent,
            Self { overflowed: true, .. } => Outcome::Overflow,
            Self { violated: true, .. } => Outcome::Everything,
            Self { missing: 1.., .. } => Outcome::Compared,
            Self { head_failures: 1.., .. } => Outcome::HeadRetried,
            _ => Outcome::Completed,
        }
    }
}

/// Sends Track Send and takes its end, as far as the controller goes on.
fn log<R: Confined>(
    bench: &Bench<'_, '_>,
    manager: &mut Driver<'_, R>,
    queue: &ControllerDataQueue,
    start: bool,
) -> Result<Result<(), CallError>, Fault> {
    let command = TrackSend::LogUserDataChanges { start, queue: queue.id() };
    let mut call = Call::new();
    call.start(AdminRequest::without_data(&command, TIMEOUT)).expect("a fresh call");
    loop {
        let now = bench.turn();
        manager.poll(now)?;
        if let Some(result) = call.poll(manager.admin(), now) {
            return Ok(result.finish(manager.admin().arena()).map(drop));
        }
    }
}

/// Runs the whole with these rules from the beginning.
fn run(rules: &[FaultSlot], entries: u32, seed: u64) -> (Outcome, String) {
    let capacity = Capacity { queues: 1 << 20, data: 1 << 20, controller_data: 1 << 20 };
    let spaces = ["manager", "guest"].map(|name| AddressSpace::new(name, capacity).expect("memory"));
    let memories = spaces.each_ref().map(DeviceMemory::new);
    let (mut manager_lent, mut guest_lent) = (Lent::new(), Lent::new());
    let mut controllers = [
        Controller::new(ControllerConfig::managing(MANAGER), &memories[0], manager_lent.storage()),
        Controller::new(ControllerConfig::migratable(GUEST), &memories[1], guest_lent.storage()),
    ];
    let mut namespaces = [Namespace::new(NAMESPACE, Zeroes, [7; 16])];
    let (mut data_queues, mut scratch) = ([DataQueueSlot::new(); 2], vec![0; 8192]);
    let storage = SubsystemStorage {
        controllers: &mut controllers,
        namespaces: &mut namespaces,
        data_queues: &mut data_queues,
        scratch: &mut scratch,
    };
    let config = SubsystemConfig { ready_timeout: 1, ..SubsystemConfig::default() };
    let device = RefCell::new(Subsystem::new(config, storage, Quiet).expect("a possible subsystem"));
    let mut held = [HeldSlot::new(); 8];
    device.borrow_mut().set_faults(FaultTable::new(rules, &mut held));
    let port = |id| device.borrow().port(id).expect("a controller");
    let registers = [MANAGER, GUEST].map(|id| LocalController::new(&device, port(id)));
    let links = [Link::new(), Link::new()];
    let mut slots = [(); 2].map(|()| (0..16).map(|_| AdminSlot::new()).collect::<Vec<_>>());
    let mut io_slots: Vec<IoSlot<u64>> = (0..8).map(|_| IoSlot::new()).collect();
    let bench = Bench { device: &device, turns: Cell::new(0) };
    let [manager_slots, guest_slots] = &mut slots;

    let disabling = attach(&registers[1], &spaces[1], &links[1]).expect("a fresh controller");
    let guest = bring_up(&bench, disabling, Some(guest_slots)).expect("no fault at the guest");
    let guest = Guest::new(&bench, guest, &mut io_slots);
    let disabling = attach(&registers[0], &spaces[0], &links[0]).expect("a fresh controller");
    match bring_up(&bench, disabling, Some(manager_slots)) {
        Ok(manager) => {
            let seen = read(&bench, manager, guest, entries, seed);
            // A queue whose controller cannot be disabled stays where it is; everything else comes back.
            let left = spaces[0].usage(Pool::ControllerData).bytes;
            assert_eq!(left == 0, !seen.removed, "{left} bytes of queue memory left: {seen:?}");
            (seen.outcome(), format!("{seen:?}"))
        }
        Err(Fault::NotReadyInTime) => (Outcome::NotReady, "not ready in time".into()),
        Err(fault) => panic!("{fault} while the manager comes up"),
    }
}

/// Reads the log of the guest's changes to its end.
fn read<R: Confined>(
    bench: &Bench<'_, '_>,
    mut manager: Driver<'_, R>,
    mut guest: Guest<'_, R>,
    entries: u32,
    seed: u64,
) -> Seen {
    let mut words = vec![0; Granularity::BLOCK.words_needed(BLOCKS).expect("few blocks")];
    let mut maps = [DirtyMap::new(NAMESPACE, BLOCKS, Granularity::BLOCK, &mut words).expect("a map")];
    let mut dirty = DirtySet::new(&mut maps).expect("one map");
    // What a migration does before it starts the log: everything is still to be copied.
    dirty.clear();
    let tracked = TrackedId::new(GUEST, ManagerId::new(MANAGER)).expect("two controllers");
    let head = HeadPolicy { every: 3 + (seed % 3) as u32, timeout: TIMEOUT, ..HeadPolicy::default() };
    let options = CdqOptions { entries, head, timeout: TIMEOUT, ..CdqOptions::default() };
    let mut seen = Seen::default();

    let mut creation = CdqCreation::new(manager.admin(), tracked, &options).expect("memory");
    let mut queue = loop {
        let now = bench.turn();
        manager.poll(now).expect("no fault before the queue exists");
        if let Some(created) = creation.poll(manager.admin(), now) {
            break created.expect("a queue");
        }
    };
    match follow(bench, &mut manager, &mut queue, &mut guest, &mut dirty, seed, &mut seen) {
        Ok(()) => {
            let mut deletion = CdqDeletion::new(queue, TIMEOUT);
            let figures = loop {
                let now = bench.turn();
                manager.poll(now).expect("no fault while the queue is deleted");
                if let Some(deleted) = deletion.poll(manager.admin(), now) {
                    break deleted.expect("the queue is deleted");
                }
            };
            seen.head_failures = figures.head_failures;
            // Whoever still writes does it now.
            (0..40).for_each(|_| {
                bench.turn();
            });
        }
        // Failed, or without an answer: only its reset shows what is left of it.
        Err(_) => match bring_up(bench, manager.disable(), None) {
            Ok(mut manager) => {
                let (drained, polled) = queue.poll(manager.admin(), &mut dirty, bench.now(), 16, false);
                assert_eq!((drained.overflowed, polled), (true, Ok(QueuePoll::Gone)));
                assert!(dirty.maps()[0].is_everything());
                seen.gone = true;
                queue.release(manager.admin()).expect("the reset is the proof");
            }
            Err(Fault::Removed) => {
                seen.removed = true;
                // Nothing proves that the controller lets go of the queue.
                drop(queue.quarantine());
            }
            Err(fault) => panic!("{fault} during the reset"),
        },
    }
    let mut found = BTreeSet::new();
    while let Some(extent) = dirty.take(BLOCKS) {
        let start = extent.start.get();
        found.extend(start..start + extent.blocks);
    }
    seen.missing = guest.changed.difference(&found).count();
    let loses = matches!(seen.outcome(), Outcome::Compared | Outcome::Silent | Outcome::Removed);
    assert!(loses || seen.missing == 0, "{seen:?}");
    seen
}

/// Reads the log while the guest works, stops it and reads it to its last entry, or to a time-out. An error if the
/// controller must be reset: it has failed, or does not answer.
fn follow<R: Confined>(
    bench: &Bench<'_, '_>,
    manager: &mut Driver<'_, R>,
    queue: &mut ControllerDataQueue,
    guest: &mut Guest<'_, R>,
    dirty: &mut DirtySet<'_, '_>,
    seed: u64,
    seen: &mut Seen,
) -> Result<(), Option<Fault>> {
    log(bench, manager, queue, true)?.expect("the log starts");
    let mut stopped_at = None;
    loop {
        let now = bench.turn();
        guest.work(now, (seed + u64::from(bench.turns.get())) % 3, seed);
        manager.poll(now)?;
        let (drained, polled) = queue.poll(manager.admin(), dirty, now, 16, false);
        seen.violated |= drained.violation.is_some();
        seen.overflowed |= drained.overflowed;
        if polled == Ok(QueuePoll::Gone) {
            return Err(None);
        }
        if drained.overflowed && stopped_at.is_none() {
            log(bench, manager, queue, true)?.expect("the log starts anew");
        }
        if guest.has_changed_all() && stopped_at.is_none() && drained.empty && !queue.is_publishing() {
            match log(bench, manager, queue, false)? {
                Ok(()) => stopped_at = Some(bench.now()),
                // Nobody knows what the controller still does: its reset is the way out.
                Err(CallError::TimedOut) => return Err(None),
                Err(error) => panic!("the log does not stop: {error}"),
            }
        }
        seen.silent = stopped_at.is_some_and(|at| now.since(at) > TIMEOUT);
        if drained.stopped || seen.silent {
            return Ok(());
        }
    }
}

/// The rule by which `kind` reaches a reader.
fn rule(kind: FaultKind, seed: u64) -> FaultRule {
    let action = match kind {
        // A refusal with Invalid Field in Command is a row of its own: the reader takes it for strictness.
        FaultKind::Status if seed.is_multiple_of(2) => {
            FaultAction::Status(StatusCode::INTERNAL_ERROR.status())
        }
        FaultKind::Status => FaultAction::Status(StatusCode::NOT_ENOUGH_RESOURCES.status()),
        kind => kind.action(seed),
    };
    let rule = FaultRule::new(action).at(MANAGER).seed(seed);
    match kind.occasion() {
        // Head updates.
        Occasion::Command | Occasion::RegisterRead => rule
            .on(QueueMatch::Admin)
            .opcode(AdminOpcode::SET_FEATURES.get())
            .dword(DwordMatch::new(10, 0x21, 0xFF).expect("a dword"))
            .expect("one dword")
            .nth(1 + (seed % 3) as u32),
        // Neither the first marker nor the last.
        Occasion::Entry => rule.nth(2 + (seed % 12) as u32),
        Occasion::HeadUpdate => rule.nth(1 + (seed % 3) as u32),
        Occasion::Event => rule.nth(1 + (seed % 2) as u32),
        Occasion::Enable | Occasion::FirstMarker | Occasion::LastMarker | Occasion::Deletion => rule.nth(1),
    }
}

#[test]
fn without_faults_every_change_is_read() {
    for seed in 0..SEEDS {
        let (outcome, seen) = run(&[], ENTRIES, seed);
        assert_eq!(outcome, Outcome::Completed, "seed {seed}: {seen}");
        let (outcome, seen) = run(&[], 16, seed);
        assert_eq!(outcome, Outcome::Completed, "seed {seed}, several laps: {seen}");
    }
}

#[test]
fn every_kind_of_fault_ends_as_the_table_says() {
    let mut wrong = Vec::new();
    for kind in FaultKind::ALL {
        let expected = fault_table::of(*kind).reader;
        for seed in 0..SEEDS {
            let rule = rule(*kind, seed);
            println!("row: {rule}");
            let rules = [FaultSlot::new(rule)];
            let (mut outcome, seen) = run(&rules, ENTRIES, seed);
            println!("  {outcome:?}: {seen}");
            let fired = rules[0].fired();
            if expected == Outcome::NotConcerned {
                // What is transferred has no data.
                assert_eq!(fired, 0, "{rule} happened");
                assert_eq!(outcome, Outcome::Completed, "{rule}: {seen}");
                continue;
            }
            assert!(fired > 0, "{rule} never happened");
            if *kind == FaultKind::CdqWriteAfterDelete && outcome == Outcome::Completed {
                outcome = Outcome::MemoryBack;
            }
            if outcome != expected {
                wrong.push(format!("{rule}: {outcome:?}, not {expected:?}; {seen}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{} rows are wrong:\n{}", wrong.len(), wrong.join("\n"));
}

#[test]
fn a_torn_entry_over_an_older_one_is_not_found_by_the_reader() {
    // The stale half is a whole and possible range: only a comparison of the content can tell.
    for seed in 0..SEEDS {
        let torn = FaultRule::parse("cdq-torn-entry").expect("a rule").at(MANAGER).nth(20 + seed as u32);
        let rules = [FaultSlot::new(torn)];
        let (outcome, seen) = run(&rules, 16, seed);
        assert_eq!((outcome, rules[0].fired()), (Outcome::Compared, 1), "{torn}: {seen}");
        assert!(seen.contains("missing: 1"), "{torn}: {seen}");
    }
}

#[test]
fn a_head_that_is_refused_for_ever_is_reported_and_costs_nothing_but_room() {
    let refused = FaultRule::parse("cdq-head-refused").expect("a rule").at(MANAGER);
    let rules = [FaultSlot::new(refused)];
    let (outcome, seen) = run(&rules, ENTRIES, 1);
    assert_eq!(outcome, Outcome::HeadRetried, "the queue holds everything: {seen}");
}

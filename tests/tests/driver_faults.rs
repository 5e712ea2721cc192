// SPDX-License-Identifier: MIT OR Apache-2.0
//! The driver with its supervisor over a controller that misbehaves by fault rules: several queue pairs with commands in
//! flight, in one thread and in virtual time.
//!
//! Whatever the controller does, each command ends exactly once, acknowledged writes are read back, no buffer goes back
//! while the controller may use it and none is lost, and everything ends within a bounded number of polls. How each kind
//! of fault ends is the driver's column of [`nvme_tests::fault_table`].

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use nvme_controller::fault::{
    FaultAction, FaultKind, FaultRule, FaultSlot, FaultTable, HeldSlot, Occasion, QueueMatch,
};
use nvme_controller::host::{BlockStorage, Interrupts, StorageError};
use nvme_controller::{
    CommandSlot, CompletionQueueSlot, Controller, ControllerConfig, ControllerStorage, DataQueueSlot,
    ErrorSlot, EventSlot, Namespace, SubmissionQueueSlot, Subsystem, SubsystemConfig, SubsystemStorage,
    TrackedRange,
};
use nvme_core::admin::{AdminSlot, InitializeOptions};
use nvme_core::controller::{EnableOptions, Fault, Link, Shutdown};
use nvme_core::dma::{Direction, DmaArena, Pool, give_back};
use nvme_core::io::{Buffer, IoQueueOptions, IoSlot};
use nvme_core::recovery::{Cause, End, Escalation, Event, Options, Policy, Progress, QueueRoom, Supervisor};
use nvme_core::time::Instant;
use nvme_core::wire::nvm::{Read, Write};
use nvme_core::wire::{AdminOpcode, Command, CommandId, ControllerId, Lba, NamespaceId, QueueId};
use nvme_host_linux::backend::attach;
use nvme_host_linux::embedded::{DeviceMemory, LocalController, LocalSubsystem};
use nvme_host_linux::memory::{AddressSpace, Capacity};
use nvme_tests::fault_table::{self, Outcome};

const ID: ControllerId = ControllerId::new(1);
const NAMESPACE: NamespaceId = NamespaceId::new(1);
const BLOCK: usize = 512;
const BLOCKS: usize = 96;
/// Blocks of one command: sometimes more than two pages, so that there are PRP lists.
const SIZES: [u64; 4] = [1, 8, 17, 24];
const PAIRS: u16 = 3;
const DEPTH: usize = 6;
const COMMANDS: u32 = 150;
const AFTERWARDS: u32 = 30;
const STEP: Duration = Duration::from_micros(50);
const IO_TIMEOUT: Duration = Duration::from_millis(20);
const ADMIN_TIMEOUT: Duration = Duration::from_millis(20);
const POLLS: u32 = 60_000;
const SEEDS: u64 = 4;

#[derive(Clone, Copy, Debug)]
struct Quiet;

impl Interrupts for Quiet {
    fn interrupt(&self, _: ControllerId, _: u16) {}
}

#[derive(Debug)]
struct Disk(Vec<u8>);

fn span(lba: Lba, bytes: usize) -> std::ops::Range<usize> {
    let start = lba.get() as usize * BLOCK;
    start..start + bytes
}

impl BlockStorage for Disk {
    fn block_shift(&self) -> u8 {
        9
    }
    fn blocks(&self) -> u64 {
        BLOCKS as u64
    }
    fn read(&mut self, lba: Lba, bytes: &mut [u8]) -> Result<(), StorageError> {
        bytes.copy_from_slice(&self.0[span(lba, bytes.len())]);
        Ok(())
    }
    fn write(&mut self, lba: Lba, bytes: &[u8]) -> Result<(), StorageError> {
        self.0[span(lba, bytes.len())].copy_from_slice(bytes);
        Ok(())
    }
    fn write_zeroes(&mut self, lba: Lba, blocks: u64, _: bool) -> Result<(), StorageError> {
        self.0[span(lba, blocks as usize * BLOCK)].fill(0);
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

/// What a block holds after the write with this number; zero before any.
fn fill(block: &mut [u8], number: u32, lba: u64) {
    for (word, at) in block.as_chunks_mut::<4>().0.iter_mut().zip(0_u32..) {
        let value = if number == 0 { 0 } else { number.rotate_left(16) ^ (lba as u32) << 8 ^ at };
        *word = value.to_le_bytes();
    }
}

/// One command.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Tag {
    number: u32,
    writes: bool,
    start: u64,
    blocks: u64,
}

/// How a run is made.
#[derive(Clone, Copy, Debug)]
struct Setup {
    rule: FaultRule,
    seed: u64,
    /// Commands that the controller works on between two polls of the driver.
    budget: u32,
}

/// How it went.
#[derive(Debug, Default)]
struct Story {
    fired: u32,
    timed_out: usize,
    resets: Vec<Cause>,
    completed: usize,
    refused: usize,
    aborted: usize,
    lost: usize,
    /// Blocks that read back as nothing that was ever written there.
    wrong: usize,
    end: Option<End>,
    recreated: usize,
    polls: u32,
}

type Regs<'a, 's> = LocalController<'a, 's, Disk, Quiet>;

struct Play<'d, 's, 'p> {
    side: &'d RefCell<LocalSubsystem<'s, Disk, Quiet>>,
    arena: &'d AddressSpace,
    supervisor: Supervisor<'d, 'd, 'p, Regs<'d, 's>, AddressSpace, Tag>,
    rng: fastrand::Rng,
    budget: u32,
    now: Instant,
    waited: u32,
    number: u32,
    submitted: BTreeSet<Tag>,
    ended: BTreeSet<Tag>,
    timed_out: BTreeSet<(QueueId, CommandId, u32)>,
    /// For each block, the writes whose content it may have.
    holds: Vec<BTreeSet<u32>>,
    busy: Vec<bool>,
    story: Story,
}

impl Play<'_, '_, '_> {
    fn outstanding(&self) -> usize {
        self.submitted.len() - self.ended.len()
    }

    /// One turn: the driver, then the controller, then time.
    fn turn(&mut self) -> Option<End> {
        self.story.polls += 1;
        assert!(self.story.polls < POLLS, "it ends: {:?}", self.story);
        let kept = self.arena.usage(Pool::Data).regions;
        assert!(kept >= self.outstanding(), "{kept} buffers of {} commands", self.outstanding());
        match self.supervisor.poll(self.now) {
            Progress::Event(event) => {
                self.waited = 0;
                self.note(event);
            }
            Progress::Ended(end) => return Some(end),
            Progress::Wait(until) => {
                let mut side = self.side.borrow_mut();
                self.waited += 1;
                let step = self.now.after(STEP);
                // Time jumps where nobody does anything any more.
                self.now = if self.waited > 64 { until.max(step) } else { step };
                side.advance(self.now.as_micros());
                let _ = side.poll(self.budget);
            }
        }
        None
    }

    fn end(&mut self, tag: Tag, buffer: Option<Buffer>, holds: impl Fn(&mut BTreeSet<u32>)) {
        assert!(self.submitted.contains(&tag), "{tag:?} was never submitted");
        assert!(self.ended.insert(tag), "{tag:?} ends twice");
        give_back(self.arena, buffer.expect("its buffer").into_region());
        for block in tag.start..tag.start + tag.blocks {
            self.busy[block as usize] = false;
            if tag.writes {
                holds(&mut self.holds[block as usize]);
            }
        }
    }

    fn note(&mut self, event: Event<Tag>) {
        match event {
            Event::Completed { completed, .. } => {
                let (tag, success) = (completed.tag, completed.entry.status().is_success());
                if success {
                    self.story.completed += 1;
                } else {
                    self.story.refused += 1;
                }
                if !tag.writes && success {
                    self.compare(&tag, completed.buffer.as_ref().expect("its buffer"));
                }
                self.end(tag, completed.buffer, |holds| {
                    if success {
                        holds.clear();
                    }
                    holds.insert(tag.number);
                });
            }
            Event::Aborted { completed, .. } => {
                self.story.aborted += 1;
                let tag = completed.tag;
                self.end(tag, completed.buffer, |holds| {
                    holds.insert(tag.number);
                });
            }
            Event::Lost { lost, .. } => {
                self.story.lost += 1;
                let tag = lost.tag;
                self.end(tag, lost.buffer, |holds| {
                    holds.insert(tag.number);
                });
            }
            Event::TimedOut { queue, command } => {
                self.story.timed_out += 1;
                let tag = self.supervisor.pair(queue).and_then(|pair| pair.tag(command).copied());
                let tag = tag.expect("a command that timed out is outstanding");
                assert!(self.timed_out.insert((queue, command, tag.number)), "{tag:?} times out twice");
            }
            Event::QueueReady { .. } => self.story.recreated += 1,
            Event::Resetting(cause) => self.story.resets.push(cause),
            Event::Ready | Event::Quiesced => {}
        }
    }

    fn compare(&mut self, tag: &Tag, buffer: &Buffer) {
        let (mut found, mut wanted) = ([0; BLOCK], [0; BLOCK]);
        for block in 0..tag.blocks {
            let lba = tag.start + block;
            buffer.region().read(block as usize * BLOCK, &mut found).expect("the buffer");
            let matches = self.holds[lba as usize].iter().any(|number| {
                fill(&mut wanted, *number, lba);
                found == wanted
            });
            if !matches {
                self.story.wrong += 1;
            }
        }
    }

    /// Submits as many commands as have room, up to number `last`.
    fn submit(&mut self, last: u32) {
        for id in 1..=PAIRS {
            let queue = QueueId::new(id);
            let mut any = false;
            while self.number < last {
                let Some(pair) = self.supervisor.pair(queue).filter(|pair| pair.free() > 0) else { break };
                let blocks = SIZES[self.rng.usize(..SIZES.len())];
                let start = self.rng.u64(..BLOCKS as u64 - blocks);
                let range = start as usize..(start + blocks) as usize;
                // No two commands under way concern the same block.
                if self.busy[range.clone()].iter().any(|busy| *busy) {
                    break;
                }
                self.number += 1;
                let tag = Tag { number: self.number, writes: self.rng.bool(), start, blocks };
                let direction = if tag.writes { Direction::ToDevice } else { Direction::FromDevice };
                let bytes = blocks as usize * BLOCK;
                let region = self.arena.allocate_scattered(Pool::Data, bytes, direction).expect("memory");
                let entry = if tag.writes {
                    let mut block = [0; BLOCK];
                    for (at, lba) in (start..start + blocks).enumerate() {
                        fill(&mut block, tag.number, lba);
                        region.write(at * BLOCK, &block).expect("the buffer");
                    }
                    Write::new(NAMESPACE, Lba::new(start), blocks as u32).encode()
                } else {
                    Read::new(NAMESPACE, Lba::new(start), blocks as u32).encode()
                };
                let deadline = self.now.after(IO_TIMEOUT);
                match pair.submit(&entry, Some(Buffer::whole(region)), tag, Some(deadline)) {
                    Ok(_) => {
                        any = true;
                        self.busy[range].fill(true);
                        self.submitted.insert(tag);
                    }
                    Err(rejected) => {
                        give_back(self.arena, rejected.buffer.expect("given back").into_region());
                        break;
                    }
                }
            }
            if any && let Some(pair) = self.supervisor.pair(queue) {
                // A controller that fails here is found by the next poll.
                let _ = pair.ring();
            }
        }
    }

    /// Runs until `count` more commands were submitted and all have ended.
    fn work(&mut self, count: u32) -> Option<End> {
        let last = self.number + count;
        while self.number < last || self.outstanding() > 0 {
            self.submit(last);
            if let Some(end) = self.turn() {
                return Some(end);
            }
        }
        None
    }

    /// Reads every block back, as far as the controller lets it.
    fn read_back(&mut self) -> Option<End> {
        let mut at = 0;
        while at < BLOCKS as u64 || self.outstanding() > 0 {
            let deadline = self.now.after(IO_TIMEOUT);
            if at < BLOCKS as u64
                && let Some(pair) = self.supervisor.pair(QueueId::new(1)).filter(|pair| pair.free() > 0)
            {
                self.number += 1;
                let tag = Tag { number: self.number, writes: false, start: at, blocks: 24 };
                let bytes = 24 * BLOCK;
                let region = self.arena.allocate_scattered(Pool::Data, bytes, Direction::FromDevice);
                let buffer = Buffer::whole(region.expect("memory"));
                let entry = Read::new(NAMESPACE, Lba::new(at), 24).encode();
                match pair.submit(&entry, Some(buffer), tag, Some(deadline)) {
                    Ok(_) => {
                        let _ = pair.ring();
                        self.submitted.insert(tag);
                        at += 24;
                    }
                    Err(rejected) => {
                        give_back(self.arena, rejected.buffer.expect("given back").into_region());
                    }
                }
            }
            if let Some(end) = self.turn() {
                return Some(end);
            }
        }
        None
    }
}

fn policy() -> Policy {
    let reset = |pause| Some(Escalation::Reset { pause: Duration::from_millis(pause) });
    Policy {
        steps: [
            Some(Escalation::Abort { wait: Duration::from_millis(2) }),
            Some(Escalation::RecreateQueues { timeout: ADMIN_TIMEOUT }),
            reset(0),
            reset(5),
            None,
            None,
        ],
        settled: Duration::from_millis(100),
        reset_on_admin_timeout: true,
    }
}

/// Runs a whole life with the fault: bring-up, commands, then without the fault more commands, everything read back, and
/// down. All that must hold whatever happens is checked here.
fn run(setup: Setup) -> Story {
    let pool = 2 << 20;
    let capacity = Capacity { queues: pool, data: pool, controller_data: 4096 };
    let arena = AddressSpace::new("faults", capacity).expect("memory");
    let memory = DeviceMemory::new(&arena);
    let slots = [FaultSlot::new(setup.rule)];
    let mut held = [HeldSlot::new(); 16];
    let queues = usize::from(PAIRS) + 1;
    let mut submission_queues = vec![SubmissionQueueSlot::new(); queues];
    let mut completion_queues = vec![CompletionQueueSlot::new(); queues];
    let mut commands = vec![CommandSlot::new(); 40];
    let mut event_requests = vec![CommandId::new(0); 4];
    let mut events = vec![EventSlot::new(); 8];
    let mut errors = vec![ErrorSlot::new(); 8];
    let mut tracked: Vec<TrackedRange> = Vec::new();
    let storage = ControllerStorage {
        submission_queues: &mut submission_queues,
        completion_queues: &mut completion_queues,
        commands: &mut commands,
        event_requests: &mut event_requests,
        events: &mut events,
        errors: &mut errors,
        state: &mut [],
        tracked_ranges: &mut tracked,
        tracked_bits: &mut [],
    };
    let mut controllers = [Controller::new(ControllerConfig::managing(ID), &memory, storage)];
    let mut namespaces = [Namespace::new(NAMESPACE, Disk(vec![0; BLOCKS * BLOCK]), [7; 16])];
    let (mut data_queues, mut scratch) = ([DataQueueSlot::new(); 1], vec![0; 16 << 10]);
    let storage = SubsystemStorage {
        controllers: &mut controllers,
        namespaces: &mut namespaces,
        data_queues: &mut data_queues,
        scratch: &mut scratch,
    };
    let config = SubsystemConfig { max_queue_entries: 64, ready_timeout: 1, ..SubsystemConfig::default() };
    let mut subsystem = Subsystem::new(config, storage, Quiet).expect("a possible subsystem");
    subsystem.set_faults(FaultTable::new(&slots, &mut held));
    let port = subsystem.port(ID).expect("the controller");
    let side = RefCell::new(subsystem);
    let registers = LocalController::new(&side, port);
    let link = Link::new();
    let mut admin: Vec<AdminSlot> = (0..12).map(|_| AdminSlot::new()).collect();
    let mut io: Vec<Vec<IoSlot<Tag>>> =
        (0..PAIRS).map(|_| (0..DEPTH).map(|_| IoSlot::new()).collect()).collect();
    let mut rooms: Vec<_> = (1..)
        .zip(&mut io)
        .map(|(id, slots)| {
            // Rings of another size than the slots, so that both wrap at different times.
            let options = IoQueueOptions {
                completion_entries: 9,
                max_transfer: 24 * BLOCK,
                timeout: ADMIN_TIMEOUT,
                ..IoQueueOptions::new(QueueId::new(id), 8)
            };
            QueueRoom::new(options, slots)
        })
        .collect();
    let mut page = [0; 4096];
    let options = Options {
        enable: EnableOptions { max_transfer: 4096, ..EnableOptions::default() },
        initialize: InitializeOptions { timeout: ADMIN_TIMEOUT, ..InitializeOptions::default() },
        policy: policy(),
    };
    let machine = attach(&registers, &arena, &link).expect("attached");
    let supervisor = Supervisor::new(machine, &mut admin, &mut rooms, &mut page, &options);
    let mut play = Play {
        side: &side,
        arena: &arena,
        supervisor,
        rng: fastrand::Rng::with_seed(setup.seed),
        budget: setup.budget,
        now: Instant::ZERO,
        waited: 0,
        number: 0,
        submitted: BTreeSet::new(),
        ended: BTreeSet::new(),
        timed_out: BTreeSet::new(),
        holds: vec![BTreeSet::from([0]); BLOCKS],
        busy: vec![false; BLOCKS],
        story: Story::default(),
    };
    play.story.end = play.work(COMMANDS);
    play.story.fired = slots[0].fired();
    // What did not end is still there, with its memory.
    let unfinished = play.supervisor.unfinished().count();
    assert_eq!(unfinished, play.outstanding(), "{:?}", play.story);
    if play.story.end.is_none() {
        // A fault that only a comparison finds must be found before its block is written again.
        play.story.end = play.read_back();
    }
    let noted = (play.story.wrong, play.story.resets.len(), play.story.timed_out, play.story.refused);
    side.borrow_mut().clear_faults();
    if play.story.end.is_some() {
        // A device that works again, and a host that thinks better of it.
        assert!(play.supervisor.restart());
    }
    let flipped = matches!(setup.rule.action, FaultAction::FlipToHost | FaultAction::FlipToDevice);
    while play.outstanding() > 0 || !play.supervisor.is_ready() {
        assert_eq!(play.turn(), None, "usable afterwards: {:?}", play.story);
    }
    assert_eq!(play.work(AFTERWARDS), None, "usable afterwards: {:?}", play.story);
    assert_eq!(play.read_back(), None, "usable afterwards: {:?}", play.story);
    let after = (play.story.wrong, play.story.resets.len(), play.story.timed_out, play.story.refused);
    assert!(flipped || after.0 == 0, "an acknowledged write is read back: {:?}", play.story);
    if setup.rule.nth.is_some() {
        assert_eq!((after.1, after.2, after.3), (noted.1, noted.2, noted.3), "no trouble afterwards");
    }
    let counted = play.story.completed + play.story.refused + play.story.aborted + play.story.lost;
    assert_eq!(counted, play.submitted.len(), "each command ends in one way");
    play.supervisor.shutdown(Shutdown::Normal, Duration::from_secs(1));
    let end = loop {
        if let Some(end) = play.turn() {
            break end;
        }
    };
    assert_eq!(end, End::ShutDown);
    play.supervisor.into_disabled().expect("disabled").detach();
    for pool in [Pool::Queues, Pool::Data, Pool::ControllerData] {
        assert_eq!(arena.usage(pool).regions, 0, "{pool:?}: all memory is back");
    }
    play.story
}

/// The rule of a kind for a seed, somewhere among the I/O commands.
fn rule(kind: FaultKind, seed: u64) -> FaultRule {
    let rule = FaultRule::new(kind.action(seed)).seed(seed);
    match kind {
        FaultKind::AllOnes => rule.on(QueueMatch::Io).nth(seed as u32 * 11 + 3),
        _ if kind.occasion() == Occasion::Command => rule.on(QueueMatch::Io).nth(seed as u32 * 17 + 4),
        FaultKind::LateReady => rule.nth(1),
        _ => rule,
    }
}

fn says(story: &Story) -> Outcome {
    match story {
        Story { end: Some(End::Removed), .. } => Outcome::Removed,
        Story { end: Some(End::GaveUp(Cause::Fault(Fault::NotReadyInTime))), .. } => Outcome::NotReady,
        Story { resets, .. } if !resets.is_empty() => Outcome::Reset,
        Story { timed_out: 1.., .. } => Outcome::TimedOut,
        Story { wrong: 1.., .. } => Outcome::Compared,
        Story { refused: 1, .. } => Outcome::Status,
        _ => Outcome::Completed,
    }
}

#[test]
fn every_kind_of_fault_ends_as_the_table_says() {
    let mut combinations = 0;
    let mut fired = BTreeMap::new();
    for kind in FaultKind::ALL {
        let expected = fault_table::of(*kind).driver;
        for seed in 0..SEEDS {
            // One command at a time shows each fault as it is; several at once hide some behind what comes after.
            let batch = seed % 2 == 1;
            let rule = rule(*kind, seed);
            println!("{rule}, budget {}", if batch { 8 } else { 1 });
            let story = run(Setup { rule, seed, budget: if batch { 8 } else { 1 } });
            combinations += 1;
            *fired.entry(*kind).or_insert(0) += story.fired;
            let found = says(&story);
            let hidden = match (rule.action, found) {
                // The next completion overwrote the slot before the host looked.
                (FaultAction::EarlyPhase, Outcome::Completed) => batch,
                // A head that another completion might have reported.
                (FaultAction::WrongSqHead(_), Outcome::Completed) => seed > 0,
                // Not reached for a few reads only: the controller lost nothing and is reset.
                (FaultAction::AllOnes(Some(_)), Outcome::Completed | Outcome::TimedOut | Outcome::Reset) => {
                    true
                }
                // The other half of the commands has no data on this way.
                (FaultAction::FlipToHost | FaultAction::FlipToDevice, Outcome::Completed) => story.fired == 0,
                (_, Outcome::Completed) => expected == Outcome::NotConcerned,
                _ => false,
            };
            assert!(found == expected || hidden, "{rule}: {found:?}, not {expected:?}: {story:?}");
            if found == Outcome::Completed {
                assert_eq!((story.lost, story.aborted, story.refused), (0, 0, 0), "{rule}: {story:?}");
            }
            if found == Outcome::TimedOut {
                assert!(story.recreated > usize::from(PAIRS), "{rule}: the pair came back: {story:?}");
            }
        }
    }
    assert!(combinations >= 60, "{combinations} combinations");
    for kind in FaultKind::ALL {
        let concerns = fault_table::of(*kind).driver != Outcome::NotConcerned;
        assert_eq!(fired[kind] > 0, concerns, "{kind} fires if and only if it concerns the driver");
    }
}

#[test]
fn faults_of_admin_commands_end_too() {
    let opcodes = [
        AdminOpcode::IDENTIFY,
        AdminOpcode::SET_FEATURES,
        AdminOpcode::CREATE_IO_COMPLETION_QUEUE,
        AdminOpcode::CREATE_IO_SUBMISSION_QUEUE,
    ];
    let mut combinations = 0;
    for kind in FaultKind::ALL.iter().filter(|kind| kind.occasion() == Occasion::Command) {
        for (seed, opcode) in (0..).zip(opcodes) {
            let rule = FaultRule::new(kind.action(seed))
                .seed(seed)
                .on(QueueMatch::Admin)
                .opcode(opcode.get())
                .nth(1);
            println!("{rule}");
            let story = run(Setup { rule, seed, budget: 4 });
            combinations += 1;
            // Once is never enough to be given up.
            assert_eq!(story.end, None, "{rule}: {story:?}");
            assert_eq!((story.lost, story.aborted, story.refused), (0, 0, 0), "{rule}: {story:?}");
        }
    }
    assert!(combinations >= 56, "{combinations} combinations");
}

#[test]
fn faults_that_go_on_and_on_end_too() {
    let mut ends = BTreeMap::new();
    let mut combinations = 0;
    for kind in FaultKind::ALL.iter().filter(|kind| {
        // Data that is wrong again and again is wrong everywhere.
        kind.occasion() == Occasion::Command
            && !matches!(kind, FaultKind::FlipToHost | FaultKind::FlipToDevice)
    }) {
        for (seed, queue) in [(5, QueueMatch::Io), (6, QueueMatch::Any), (7, QueueMatch::Admin)] {
            let rule = FaultRule::new(kind.action(seed)).on(queue).seed(seed).probability(100_000);
            println!("{rule}");
            let story = run(Setup { rule, seed, budget: 3 });
            combinations += 1;
            *ends.entry(story.end.is_some()).or_insert(0) += 1;
        }
    }
    println!("{combinations} combinations, gave up or not: {ends:?}");
    assert!(combinations >= 36, "{combinations} combinations");
    assert!(ends.len() == 2, "some controllers are given up, some are not: {ends:?}");
}

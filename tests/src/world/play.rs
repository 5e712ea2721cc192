// SPDX-License-Identifier: MIT OR Apache-2.0
//! One run of a world, turn by turn.

use std::cell::RefCell;
use std::time::Duration;

use nvme_controller::fault::{FaultSlot, FaultTable, HeldSlot};
use nvme_controller::{Port, SubsystemConfig};
use nvme_core::admin::AdminSlot;
use nvme_core::cdq::{CdqOptions, HeadPolicy};
use nvme_core::controller::Link;
use nvme_core::dirty::{DirtyMap, DirtySet, Granularity};
use nvme_core::dma::Pool;
use nvme_core::io::IoSlot;
use nvme_core::migration::{
    DestinationOptions, MigrationOptions, Migrator, Outcome, Platform, Ports, Quirks, Round, Timeouts,
};
use nvme_core::register::{Offset, RegisterIo};
use nvme_core::time::{Instant, Step};
use nvme_core::wire::ControllerId;
use nvme_host_linux::embedded::{DeviceMemory, LocalController};
use nvme_host_linux::endpoint::{Attachment, Endpoint};
use nvme_host_linux::memory::{AddressSpace, Capacity};

use super::choices::Choices;
use super::disk::{BLOCK, Disk};
use super::driver::{Condition, Driver, Shape};
use super::guest::{Guest, GuestError};
use super::model::Model;
use super::mover::{Mover, MoverError, MoverState, PIECE, PIECES, Tag};
use super::plan::{Ended, Event, Reset, Verdict, Violation, WorldConfig, corrupts};
use super::platform::{Switch, SwitchError};
use super::side::{Capacities, MANAGER, NAMESPACE, Quiet, Side};

/// The guest's controller at the source and, another identifier as on another machine, at the destination.
pub(super) const GUESTS: [ControllerId; 2] = [ControllerId::new(2), ControllerId::new(7)];
const SOURCE: usize = 0;
const DESTINATION: usize = 1;
const CC: Offset = Offset::new(0x14);

/// Pairs and commands on each of the guest.
const GUEST_PAIRS: u16 = 2;
const GUEST_DEPTH: usize = 6;
/// Most bytes of a controller state.
const STATE_BYTES: usize = 4096;

/// Bounds: turns of everybody, and polls of the migration.
const TURNS: u64 = 60_000;
const POLLS: u64 = 20_000;
/// Turns of the host without progress after which time begins to jump.
const PATIENCE: u32 = 16;
/// Attempts to disable or enable a controller that may fail before it is repaired.
const ATTEMPTS: u32 = 4;
/// Turns in which the guest has its work done after the migration, unless its controller has to be repaired.
const WORK_AFTER: u64 = 8000;
/// Completions and writes that the rules of a side can hold back at once.
const HELD: usize = 16;

const COMMAND: Duration = Duration::from_millis(40);
const GUEST_TIMEOUT: Duration = Duration::from_millis(600);

type Regs<'d, 's> = LocalController<'d, 's, Disk, Quiet>;
type WorldMigrator<'m, 'n> = Migrator<'m, 'n, MoverError, SwitchError>;

fn timeouts() -> Timeouts {
    Timeouts {
        command: COMMAND,
        suspend: 3 * COMMAND,
        marker: COMMAND / 2,
        answer: 6 * COMMAND,
        poll: Duration::from_micros(200),
    }
}

fn options(config: &WorldConfig) -> MigrationOptions {
    let head = HeadPolicy { every: config.head_every, timeout: COMMAND, ..HeadPolicy::default() };
    MigrationOptions {
        data: config.data,
        queue: CdqOptions {
            entries: config.cdq_entries,
            layout: config.cdq_layout,
            head,
            timeout: COMMAND,
            ..CdqOptions::default()
        },
        batch: 8,
        extent_blocks: PIECE,
        max_rounds: config.max_rounds,
        stop_time_limit: Duration::from_micros(300),
        delete_with_suspend: config.delete_with_suspend,
        unallocated_reads_zero: config.by_allocation,
        timeouts: timeouts(),
        ..MigrationOptions::new(GUESTS[SOURCE])
    }
}

struct Play<'p, 'd, 's, C> {
    config: &'p WorldConfig,
    choices: &'p mut C,
    sides: [&'d RefCell<Side<'s>>; 2],
    /// Ports of the managing controller and of the guest's, on each side.
    ports: [[Port; 2]; 2],
    managers: [Driver<'d, Regs<'d, 's>, Tag>; 2],
    guest: Guest<'d, Endpoint<Regs<'d, 's>>>,
    mover: MoverState,
    platform: Switch<'d, 's, Regs<'d, 's>>,
    now: Instant,
    turns: u64,
    polls: u64,
    /// Turns of the host since something happened.
    waited: u32,
    managers_reset: u32,
    repairs: u32,
    rules: [&'s [FaultSlot]; 2],
    corruption: Option<String>,
}

/// Runs the world once.
pub(super) fn run(config: &WorldConfig, choices: &mut impl Choices) -> Result<Ended, Violation> {
    let space = |name: &str, controller_data| {
        let capacity = Capacity { queues: 256 << 10, data: 256 << 10, controller_data };
        AddressSpace::new(name, capacity).expect("memory")
    };
    let queue_bytes = 8192 + config.cdq_entries as usize * 32;
    let spaces = [space("source", queue_bytes), space("destination", 4096), space("guest", 4096)];
    let [source_space, destination_space, guest_space] = &spaces;
    let memories = [
        [DeviceMemory::new(source_space), DeviceMemory::new(guest_space)],
        [DeviceMemory::new(destination_space), DeviceMemory::new(guest_space)],
    ];
    // The destination has no business in the guest's memory until it is resumed.
    memories[DESTINATION][1].set_bus_master(false);
    let blocks = config.blocks as usize;
    let source_disk = Disk::new(blocks);
    // A shared medium is the same on both sides.
    let shared = config.data == nvme_core::migration::DataPath::Shared;
    let disks = [source_disk.clone(), if shared { source_disk } else { Disk::new(blocks) }];
    for block in 0..blocks {
        if choices.below(4) != 0 {
            disks[SOURCE].put(block, block as u64 + 1);
        }
        if !shared && choices.below(2) == 0 {
            disks[DESTINATION].put(block, block as u64 + 0x8000_0000);
        }
    }
    let names = ["nqn.2014-08.org.nvmexpress:world:source", "nqn.2014-08.org.nvmexpress:world:destination"];
    let [source_name, destination_name] = names;
    let subsystem_config = |name| SubsystemConfig {
        name,
        max_queue_entries: 64,
        ready_timeout: 1,
        vendor_state_format: config.vendor_state_format,
        marker_after_completion: config.marker_after_completion,
        ..SubsystemConfig::default()
    };
    let slots =
        config.rules.each_ref().map(|rules| rules.iter().copied().map(FaultSlot::new).collect::<Vec<_>>());
    let [mut source_held, mut destination_held] = [[HeldSlot::new(); HELD]; 2];
    let (mut source_lent, mut destination_lent) = (Capacities::new(), Capacities::new());
    let memory_of = |side: usize| memories[side].each_ref();
    let mut source_parts = source_lent.parts(memory_of(SOURCE), GUESTS[SOURCE], &disks[SOURCE]);
    let mut destination_parts =
        destination_lent.parts(memory_of(DESTINATION), GUESTS[DESTINATION], &disks[DESTINATION]);
    let sides = [
        RefCell::new(source_parts.subsystem(subsystem_config(source_name))),
        RefCell::new(destination_parts.subsystem(subsystem_config(destination_name))),
    ];
    let port = |side: usize, id| sides[side].borrow().port(id).expect("a controller of the side");
    let ports = [SOURCE, DESTINATION].map(|side| [port(side, MANAGER), port(side, GUESTS[side])]);
    let registers = |side: usize, which: usize| LocalController::new(&sides[side], ports[side][which]);
    let managers = [registers(SOURCE, 0), registers(DESTINATION, 0)];
    let endpoint = Endpoint::new(registers(SOURCE, 1), registers(DESTINATION, 1));
    let links = [Link::new(), Link::new(), Link::new()];
    let admin = || (0..12).map(|_| AdminSlot::new()).collect::<Vec<_>>();
    let mut admin_slots = [admin(), admin(), admin()];
    let tags = || (0..=PIECES).map(|_| IoSlot::new()).collect::<Vec<IoSlot<Tag>>>();
    let mut io_slots = [tags(), tags()];
    let mut guest_slots: Vec<Vec<IoSlot<u64>>> =
        (0..GUEST_PAIRS).map(|_| (0..GUEST_DEPTH).map(|_| IoSlot::new()).collect()).collect();

    let shape = Shape { pairs: 1, entries: 8, max_transfer: PIECE as usize * BLOCK, timeout: COMMAND };
    let guest_shape = Shape { pairs: GUEST_PAIRS, entries: 5, max_transfer: 8192, timeout: GUEST_TIMEOUT };
    let [source_admin, destination_admin, guest_admin] = &mut admin_slots;
    let [source_io, destination_io] = &mut io_slots;
    let [source_link, destination_link, guest_link] = &links;
    let [source_manager, destination_manager] = &managers;
    let drivers = [
        Driver::new(source_manager, source_space, source_link, shape, source_admin, vec![source_io]),
        Driver::new(
            destination_manager,
            destination_space,
            destination_link,
            shape,
            destination_admin,
            vec![destination_io],
        ),
    ];
    let guest_io = guest_slots.iter_mut().map(Vec::as_mut_slice).collect();
    let driver = Driver::new(&endpoint, guest_space, guest_link, guest_shape, guest_admin, guest_io);
    let model = Model::new((0..blocks).map(|block| disks[SOURCE].get(block).expect("a stamp")));
    let guest = Guest::new(driver, model, usize::from(GUEST_PAIRS) * GUEST_DEPTH, GUEST_TIMEOUT);
    let platform = Switch {
        endpoint: &endpoint,
        gates: [&memories[SOURCE][1], &memories[DESTINATION][1]],
        disks,
        compares: config.compares,
        fences: config.fences,
        stopped: false,
        unequal: None,
    };
    let mut play = Play {
        config,
        choices,
        sides: sides.each_ref(),
        ports,
        managers: drivers,
        guest,
        mover: MoverState::new([source_space, destination_space], COMMAND),
        platform,
        now: Instant::from_micros(1),
        turns: 0,
        polls: 0,
        waited: 0,
        managers_reset: 0,
        repairs: 0,
        rules: slots.each_ref().map(Vec::as_slice),
        corruption: None,
    };
    let arm = |side: usize, held| {
        if !slots[side].is_empty() {
            sides[side].borrow_mut().set_faults(FaultTable::new(&slots[side], held));
        }
    };
    if config.faulty_from_the_start {
        arm(SOURCE, &mut source_held);
        arm(DESTINATION, &mut destination_held);
        play.bring_up()?;
    } else {
        play.bring_up()?;
        arm(SOURCE, &mut source_held);
        arm(DESTINATION, &mut destination_held);
    }
    let ended = play.migrate()?;
    play.take_down(ended, [source_space, destination_space, guest_space])
}

impl<C: Choices> Play<'_, '_, '_, C> {
    fn violation<T>(&self, what: impl std::fmt::Display) -> Result<T, Violation> {
        Err(Violation(format!("turn {}: {what}", self.turns)))
    }

    /// Whether the guest's controller of a side takes commands and reaches the guest's memory.
    fn runs(&self, side: usize) -> bool {
        let running =
            self.sides[side].borrow().controller(self.ports[side][1]).is_some_and(|one| one.is_running());
        running && self.platform.gates[side].is_bus_master()
    }

    fn where_is_it(&self) -> (Attachment, [bool; 2], [bool; 2]) {
        let ready = self.managers.each_ref().map(Driver::is_ready);
        (self.platform.endpoint.attachment(), [self.runs(SOURCE), self.runs(DESTINATION)], ready)
    }

    /// Everybody but the host, or the host, has a turn; the result is the migration's, if it was polled.
    fn turn(&mut self, migrator: Option<&mut WorldMigrator<'_, '_>>) -> Result<Option<Step>, Violation> {
        self.turns += 1;
        if self.turns > TURNS {
            return self.violation("not finished");
        }
        self.now = self.now.after(Duration::from_micros(u64::from(self.choices.below(16)) + 1));
        let mut polled = None;
        match self.choices.below(8) {
            0 | 1 => self.device_turn(SOURCE),
            2 | 3 => self.device_turn(DESTINATION),
            4 | 5 => {
                if !self.platform.stopped {
                    let _ = self.guest.step(self.now, self.choices);
                }
            }
            _ => polled = self.host_turn(migrator)?,
        }
        if self.runs(SOURCE) && self.runs(DESTINATION) {
            return self.violation("both sides run the guest");
        }
        match self.guest.error.take() {
            None => {}
            Some(GuestError::Mismatch(mismatch)) => self.mismatch(format!("the guest read {mismatch:?}"))?,
            Some(error) => return self.violation(format!("the guest: {error:?}")),
        }
        if self.guest.driver.failures > ATTEMPTS {
            match self.platform.endpoint.attachment() {
                Attachment::Source => self.repair(SOURCE, 1),
                Attachment::Destination => self.repair(DESTINATION, 1),
                Attachment::Held => {}
            }
            self.guest.driver.failures = 0;
        }
        Ok(polled)
    }

    /// A block does not hold what it must: nothing but a controller that corrupts data may be the reason.
    fn mismatch(&mut self, what: String) -> Result<(), Violation> {
        let guilty = |slot: &FaultSlot| slot.fired() > 0 && corrupts(&slot.rule().action);
        if !self.rules.iter().any(|rules| rules.iter().any(guilty)) {
            return self.violation(what);
        }
        self.corruption.get_or_insert(what);
        Ok(())
    }

    /// Repairs a side of which nothing else helps: a function level reset of the controller, and an end of its faults.
    fn repair(&mut self, side: usize, which: usize) {
        self.repairs += 1;
        let mut subsystem = self.sides[side].borrow_mut();
        let _ = subsystem.clear_faults();
        subsystem.reset(self.ports[side][which]);
    }

    fn device_turn(&mut self, side: usize) {
        let budget = self.choices.below(6) + 1;
        let mut subsystem = self.sides[side].borrow_mut();
        subsystem.advance(self.now.as_micros());
        match self.choices.below(4) {
            0 => {
                subsystem.fetch(budget);
            }
            1 => {
                subsystem.execute(budget);
            }
            _ => {
                subsystem.poll(budget);
            }
        }
    }

    fn host_turn(&mut self, migrator: Option<&mut WorldMigrator<'_, '_>>) -> Result<Option<Step>, Violation> {
        for (side, driver) in self.managers.iter_mut().enumerate() {
            // A manager that fails loses its commands, which is how the migration learns of it.
            let _ = driver.poll(self.now);
            for lost in std::mem::take(&mut driver.lost) {
                self.mover.lost(side, lost.tag, lost.buffer);
            }
        }
        for side in [SOURCE, DESTINATION] {
            if self.managers[side].failures > ATTEMPTS {
                self.managers[side].failures = 0;
                self.repair(side, 0);
            }
        }
        let Some(migrator) = migrator else {
            self.wait();
            return Ok(None);
        };
        let [source, destination] = &mut self.managers;
        let ((source, source_pairs), (destination, destination_pairs)) =
            (source.parts(), destination.parts());
        let (Some(source), Some(destination)) = (source, destination) else {
            self.wait();
            return Ok(None);
        };
        self.polls += 1;
        let mut mover = Mover {
            state: &mut self.mover,
            source: source_pairs.first_mut(),
            destination: destination_pairs.first_mut(),
            namespace: NAMESPACE,
        };
        let before = migrator.step();
        let step = migrator.poll(self.now, Ports { source, destination }, &mut mover, &mut self.platform);
        if self.polls > POLLS {
            return self.violation(format!("the migration hangs in {}", migrator.step()));
        }
        match step {
            Step::Wait(_) if migrator.step() == before => self.wait(),
            _ => self.waited = 0,
        }
        Ok(Some(step))
    }

    /// Nothing happened in a turn of the host: time jumps once that has been so for long.
    fn wait(&mut self) {
        self.waited = self.waited.saturating_add(1);
        if self.waited > PATIENCE {
            self.now = self.now.after(Duration::from_millis(1));
        }
    }

    fn until(
        &mut self,
        what: &str,
        limit: u64,
        mut reached: impl FnMut(&mut Self) -> bool,
    ) -> Result<(), Violation> {
        let end = self.turns + limit;
        self.waited = 0;
        while !reached(self) {
            if self.turns >= end {
                return self.violation(format!("{what} does not come"));
            }
            self.turn(None)?;
        }
        Ok(())
    }

    fn bring_up(&mut self) -> Result<(), Violation> {
        self.until("everybody's readiness", 4000, |play| {
            let now = play.now;
            play.managers.iter_mut().all(|driver| driver.poll(now) == Condition::Ready)
                && play.guest.driver.poll(now) == Condition::Ready
        })?;
        self.guest.administers = self.config.administers[0];
        self.guest.budget = self.config.commands[0];
        let limit = 4000 + 40 * self.config.commands[0];
        self.until("the guest's work before", limit, |play| play.guest.budget == 0)
    }

    fn migrate(&mut self) -> Result<Ended, Violation> {
        let config = self.config;
        let blocks = u64::from(config.blocks);
        let mut words = vec![0; Granularity::BLOCK.words_needed(blocks).expect("few blocks")];
        let mut maps = [DirtyMap::new(NAMESPACE, blocks, Granularity::BLOCK, &mut words).expect("a map")];
        let dirty = DirtySet::new(&mut maps).expect("one map");
        let mut rounds = vec![Round::default(); 32];
        let mut image = vec![0; STATE_BYTES];
        let to = DestinationOptions {
            controller: GUESTS[DESTINATION],
            limits: None,
            quirks: Quirks::empty(),
            timeouts: timeouts(),
        };
        let mut migrator = Migrator::new(options(config), to, dirty, &mut rounds, &mut image);
        let (mut events, mut due) = (config.events.clone(), Vec::new());
        let mut steps = vec![migrator.step()];
        let mut left = config.commands[1];
        self.waited = 0;
        loop {
            if steps.last() != Some(&migrator.step()) {
                steps.push(migrator.step());
            }
            while let Some(at) = events.iter().position(|(step, _)| *step == migrator.step()) {
                due.push((self.polls + config.event_delay, events.remove(at).1));
            }
            while let Some(at) = due.iter().position(|(poll, _)| *poll <= self.polls) {
                self.happen(due.remove(at).1, &mut migrator);
            }
            if left > 0 && self.turns.is_multiple_of(3) {
                left -= 1;
                self.guest.budget += 1;
            }
            let polled = self.turn(Some(&mut migrator)).map_err(|Violation(what)| {
                Violation(format!(
                    "{what}, migration in {}, guest at {:?}",
                    migrator.step(),
                    self.where_is_it()
                ))
            })?;
            if polled == Some(Step::Done) {
                break;
            }
        }
        let Some(outcome) = migrator.outcome().copied() else {
            return self.violation("the migration is done without an outcome");
        };
        let summary = migrator.summary();
        self.guest.budget = 0;
        self.guest.administers = false;
        self.put_right(&mut migrator)?;
        let verdict = self.side_of_the_guest(&migrator)?;
        Ok(Ended {
            verdict,
            outcome,
            steps,
            summary,
            polls: self.polls,
            turns: self.turns,
            guest: self.guest.figures,
            completed_after: 0,
            managers_reset: 0,
            repairs: 0,
            fired: [Vec::new(), Vec::new()],
            corruption: None,
        })
    }

    fn happen(&mut self, event: Event, migrator: &mut WorldMigrator<'_, '_>) {
        match event {
            Event::Cancel => {
                let _ = migrator.cancel();
            }
            Event::SourceManager(how) => self.reset_manager(SOURCE, how),
            Event::DestinationManager(how) => self.reset_manager(DESTINATION, how),
            Event::Guest => self.guest.reset_wanted = true,
            Event::SourceFunction => self.sides[SOURCE].borrow_mut().reset(self.ports[SOURCE][1]),
            Event::DestinationFunction => {
                self.sides[DESTINATION].borrow_mut().reset(self.ports[DESTINATION][1]);
            }
        }
    }

    fn reset_manager(&mut self, side: usize, how: Reset) {
        let port = self.ports[side][0];
        match how {
            Reset::ByDriver => self.managers[side].reset(false),
            Reset::Disabled => self.managers[side].reset(true),
            Reset::Function => self.sides[side].borrow_mut().reset(port),
            Reset::Subsystem => {
                // "NVMe" in capitals as the register wants it.
                let written = self.sides[side].borrow_mut().write32(port, Offset::new(0x20), 0x4E56_4D65);
                written.expect("an aligned register");
            }
        }
    }

    /// What the host of a migration does afterwards: whatever the migration could not end is ended by a reset of the
    /// managing controller.
    fn put_right(&mut self, migrator: &mut WorldMigrator<'_, '_>) -> Result<(), Violation> {
        let outcome = migrator.outcome().copied();
        let pending = matches!(outcome, Some(Outcome::RolledBack { suspend_pending: true, .. }));
        if let Some(Outcome::Indeterminate { resume_asked, .. }) = outcome {
            return if resume_asked { self.go_forward() } else { self.go_back() };
        }
        let stuck = matches!(outcome, Some(Outcome::SourceStuck { .. }));
        let quarantined = migrator.take_quarantined();
        if pending || stuck || quarantined.is_some() {
            self.disable_manager(SOURCE)?;
            let [source, _] = &mut self.managers;
            let arena = source.arena();
            let Some(disabled) = source.disabled() else { return self.violation("no proof") };
            let proof = disabled.quiesced();
            if let Some(memory) = quarantined {
                memory.release(arena, &proof);
            }
            let told = migrator.source_mut().manager_was_reset(arena, &mut self.platform, &proof);
            if told == Ok(false) {
                return self.violation("the proof is not taken");
            }
            self.managers[SOURCE].release();
        }
        Ok(())
    }

    /// Nobody knows whether the destination was resumed: it may have answered commands, so the guest goes on there.
    fn go_forward(&mut self) -> Result<(), Violation> {
        // A reset of its managing controller ends its suspension: it runs in any case then, with the guest's state.
        self.disable_manager(DESTINATION)?;
        self.managers[DESTINATION].release();
        let told = self.platform.destination_resumed(GUESTS[DESTINATION]);
        self.guest.reset_wanted |= told.is_err() || !self.runs(DESTINATION);
        Ok(())
    }

    /// The destination could not be made to forget the guest's state, with which it never reached the guest's memory.
    fn go_back(&mut self) -> Result<(), Violation> {
        if self.platform.destination_forgotten(GUESTS[DESTINATION]).is_err() {
            self.repair(DESTINATION, 1);
        }
        let _ = self.platform.unfence_source(GUESTS[SOURCE]);
        self.disable_manager(SOURCE)?;
        self.managers[SOURCE].release();
        let _ = self.platform.source_resumed(GUESTS[SOURCE]);
        Ok(())
    }

    /// Brings a managing controller to be disabled, by a function level reset if nothing else helps.
    fn disable_manager(&mut self, side: usize) -> Result<(), Violation> {
        self.managers_reset += 1;
        self.managers[side].reset(true);
        self.until("the managing controller's disable", 6000, |play| play.managers[side].disabled().is_some())
    }

    /// Where the guest runs now, after everything was put right.
    fn side_of_the_guest(&mut self, migrator: &WorldMigrator<'_, '_>) -> Result<Verdict, Violation> {
        if self.platform.stopped {
            return self.violation("the guest's processor still stands still");
        }
        let completed = matches!(migrator.outcome(), Some(Outcome::Completed { .. }));
        match self.platform.endpoint.attachment() {
            Attachment::Held => self.violation("the guest has no side"),
            Attachment::Source if completed => self.violation("completed, but the guest is at the source"),
            Attachment::Source => Ok(Verdict::RolledBackSourceWhole),
            Attachment::Destination => Ok(Verdict::Verified),
        }
    }

    /// Lets the guest work on, then compares everything and takes it all down.
    fn take_down(mut self, mut ended: Ended, spaces: [&AddressSpace; 3]) -> Result<Ended, Violation> {
        let before = self.guest.figures.completed;
        let administered = self.guest.figures.admin_completed;
        self.guest.administers = self.config.administers[1];
        self.guest.budget = self.config.commands[2];
        let side = if ended.verdict == Verdict::Verified { DESTINATION } else { SOURCE };
        let other = 1 - side;
        let begun = self.turns;
        self.until("the guest's work after", 3 * WORK_AFTER, |play| {
            if play.turns == begun + WORK_AFTER {
                // It gets nothing done with this controller.
                play.repair(side, 1);
            }
            let guest = &mut play.guest;
            // One admin command must succeed, too.
            guest.administers &= guest.figures.admin_completed == administered;
            !guest.administers
                && guest.budget == 0
                && guest.outstanding() == 0
                && !guest.reset_wanted
                && guest.driver.is_ready()
        })?;
        if !self.runs(side) || self.runs(other) {
            return self.violation("the guest does not run where it should");
        }
        let left = LocalController::new(self.sides[other], self.ports[other][1]);
        let is_enabled = || left.read32(CC).expect("a register") & 1 != 0;
        let mut enabled = is_enabled();
        if enabled && !self.config.rules[other].is_empty() {
            // The write that was to disable it did not arrive, or the read did not; the fence held.
            self.repair(other, 1);
            enabled = is_enabled();
        }
        if enabled {
            return self.violation("the controller that the guest left is still enabled");
        }
        if let (DESTINATION, Some(block)) = (side, self.platform.unequal) {
            self.mismatch(format!("block {block} was different at the switch"))?;
        }
        let disk = self.platform.disks[side].clone();
        if let Err(mismatch) = self.guest.model.compare(&disk) {
            self.mismatch(format!("{mismatch:?}"))?;
        }
        if self.corruption.is_some() {
            ended.verdict = Verdict::CorruptionFound;
        }
        ended.guest = self.guest.figures;
        ended.completed_after = self.guest.figures.completed - before;
        ended.turns = self.turns;
        ended.managers_reset = self.managers_reset;
        ended.repairs = self.repairs;
        ended.fired = self.rules.map(|rules| rules.iter().map(FaultSlot::fired).collect());
        ended.corruption = self.corruption.take();
        let [source, destination, _] = spaces;
        for (name, space) in [("source", source), ("destination", destination)] {
            let left = space.usage(Pool::ControllerData);
            if left.regions != 0 {
                return self.violation(format!("{} bytes for changes left at the {name}", left.bytes));
            }
        }
        for side in self.sides {
            let _ = side.borrow_mut().clear_faults();
        }
        self.managers.iter_mut().for_each(|driver| driver.reset(true));
        self.guest.driver.reset(true);
        self.until("the end", 6000, |play| {
            let _ = play.guest.driver.poll(play.now);
            play.managers.iter().all(|driver| driver.disabled().is_some())
                && play.guest.driver.disabled().is_some()
        })?;
        self.guest.release();
        let Self { managers, guest, mover, .. } = self;
        mover.release([source, destination]);
        managers.into_iter().for_each(Driver::detach);
        guest.driver.detach();
        for (name, space) in ["source", "destination", "guest"].into_iter().zip(spaces) {
            for pool in [Pool::Queues, Pool::Data] {
                let left = space.usage(pool);
                if left.regions != 0 {
                    return Err(Violation(format!("{} bytes of {pool:?} left at the {name}", left.bytes)));
                }
            }
        }
        Ok(ended)
    }
}

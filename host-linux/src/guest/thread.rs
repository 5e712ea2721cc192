// SPDX-License-Identifier: MIT OR Apache-2.0
//! The guest's thread: its processor, as it were.

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, TryRecvError, channel, sync_channel};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use nvme_core::admin::AdminSlot;
use nvme_core::controller::{EnableOptions, Link};
use nvme_core::io::IoSlot;
use nvme_core::time::Instant;

use super::engine::{Engine, GuestError, Wiring};
use super::ledger::Ledger;
use super::log::GuestLog;
use super::workload::{Workload, WorkloadOptions};
use crate::backend::Confined;
use crate::driver::{Clock, Waiter, bring_up, identify_controller, identify_namespace, request_queues};
use crate::endpoint::{AccessError, Endpoint};
use crate::memory::AddressSpace;
use crate::report::GuestReport;
use crate::sync::{RunToken, Signal, lock};

/// Admin commands outstanding, events included.
const ADMIN_SLOTS: usize = 16;
/// Longest sleep: rate limits and admin commands go by time.
const NAP: Duration = Duration::from_millis(1);

/// What the guest is made of and how it behaves.
#[derive(Debug)]
pub struct GuestSetup<R> {
    /// Its controller.
    pub endpoint: Arc<Endpoint<R>>,
    /// Its memory.
    pub memory: Arc<AddressSpace>,
    /// Raised when its controller interrupts.
    pub interrupts: Arc<Signal>,
    /// Its processor.
    pub token: Arc<RunToken>,
    /// Where its commands go.
    pub wiring: Wiring,
    /// I/O queue pairs.
    pub io_queues: u16,
    /// Commands in flight in each.
    pub queue_depth: u16,
    /// Time-out of its I/O commands. The time while its processor is stopped does not count.
    pub io_timeout: Duration,
    /// Time-out of its admin commands, counted alike.
    pub admin_timeout: Duration,
    /// What it does.
    pub workload: WorkloadOptions,
    /// Where acknowledged writes are logged.
    pub log: Option<PathBuf>,
    /// Whether its first I/O command waits for [`Guest::begin`].
    pub held: bool,
}

/// What others may see of a running guest.
#[derive(Debug, Default)]
struct Shared {
    commands: AtomicU64,
    failed: AtomicBool,
    /// It is not to look at its controller any more.
    halted: AtomicBool,
    /// Figures once its thread has ended, whether well or not.
    report: Mutex<GuestReport>,
}

enum Control {
    /// Do what waits for it.
    Begin,
    /// Verify each block written so far; the number of blocks is sent back.
    Verify(SyncSender<u64>),
    /// Verify as well, then shut down.
    Finish,
}

/// A running guest. Dropping it leaves the thread running until its controller stops.
#[derive(Debug)]
pub struct Guest {
    thread: JoinHandle<Result<(GuestReport, Ledger), GuestError>>,
    shared: Arc<Shared>,
    control: std::sync::mpsc::Sender<Control>,
    interrupts: Arc<Signal>,
}

impl Guest {
    /// Starts the guest's thread, and waits until its controller is in use.
    ///
    /// # Errors
    /// [`GuestError`]: why it is not.
    pub fn start<R>(setup: GuestSetup<R>) -> Result<Self, GuestError>
    where
        R: Confined<Error = AccessError> + Send + Sync + 'static,
    {
        let shared = Arc::<Shared>::default();
        let interrupts = Arc::clone(&setup.interrupts);
        let (control, requests) = channel();
        let (started, ready) = sync_channel(1);
        let theirs = Arc::clone(&shared);
        let thread = thread::Builder::new()
            .name("guest".into())
            .spawn(move || {
                let mut report = GuestReport::default();
                let result = run(&setup, &theirs, &requests, &started, &mut report);
                report.error = result.as_ref().err().map(ToString::to_string);
                *lock(&theirs.report) = report.clone();
                let result = result.map(|ledger| (report, ledger));
                theirs.failed.store(result.is_err(), Ordering::Release);
                result
            })
            .map_err(|error| GuestError::Thread(error.to_string()))?;
        let guest = Self { thread, shared, control, interrupts };
        match ready.recv() {
            Ok(()) => Ok(guest),
            Err(_) => Err(guest.join().err().unwrap_or(GuestError::Thread("it ended at once".into()))),
        }
    }

    /// I/O commands completed so far.
    #[must_use]
    pub fn commands(&self) -> u64 {
        self.shared.commands.load(Ordering::Relaxed)
    }

    /// Has a guest that is [held](GuestSetup::held) do its first I/O command; does nothing to any other.
    pub fn begin(&self) {
        self.ask(Control::Begin);
    }

    /// Whether the guest met an error and has ended; [`finish`](Self::finish) tells which.
    #[must_use]
    pub fn has_failed(&self) -> bool {
        self.shared.failed.load(Ordering::Acquire) || self.thread.is_finished()
    }

    fn ask(&self, request: Control) {
        // If the guest has ended there is nobody to hear it, which the answer shows.
        let _ = self.control.send(request);
        self.interrupts.notify();
    }

    /// Has the guest read back each block it wrote so far; returns how many, or `None` if it failed meanwhile.
    #[must_use]
    pub fn verify(&self) -> Option<u64> {
        let (reply, answer) = sync_channel(1);
        self.ask(Control::Verify(reply));
        answer.recv().ok()
    }

    /// Has the guest read back each block it wrote, and shut its controller down.
    ///
    /// # Errors
    /// The first thing that went wrong since its start.
    pub fn finish(self) -> Result<(GuestReport, Ledger), GuestError> {
        self.ask(Control::Finish);
        self.join()
    }

    /// Ends the guest where it stands: its controller has no state to go on with. It completes nothing any more, and
    /// the figures so far come back with the reason given. Its processor must not be stopped, or stay so.
    #[must_use]
    pub fn halt(self, token: &RunToken) -> GuestReport {
        self.shared.halted.store(true, Ordering::Release);
        // One that is held waits for nothing else.
        self.ask(Control::Finish);
        token.resume();
        self.interrupts.notify();
        let shared = Arc::clone(&self.shared);
        // The report names the error.
        let _ = self.join();
        lock(&shared.report).clone()
    }

    /// Figures of a guest whose thread has ended; before that all zeroes.
    pub(crate) fn figures(&self) -> impl Fn() -> GuestReport + use<> {
        let shared = Arc::clone(&self.shared);
        move || lock(&shared.report).clone()
    }

    fn join(self) -> Result<(GuestReport, Ledger), GuestError> {
        self.thread.join().unwrap_or_else(|_| Err(GuestError::Thread("it panicked".into())))
    }
}

/// A verification under way.
enum Sweep {
    /// Other commands end first.
    Draining,
    /// This many blocks are being read.
    Reading(u64),
}

fn run<R: Confined<Error = AccessError>>(
    setup: &GuestSetup<R>,
    shared: &Shared,
    requests: &Receiver<Control>,
    started: &SyncSender<()>,
    report: &mut GuestReport,
) -> Result<Ledger, GuestError> {
    let waiter = Waiter {
        timeout: setup.admin_timeout,
        ..Waiter::new(Clock::of_guest(&setup.token), &*setup.interrupts)
    };
    let link = Link::new();
    let mut admin_slots: Vec<AdminSlot> = (0..ADMIN_SLOTS).map(|_| AdminSlot::new()).collect();
    let mut io_slots: Vec<Vec<IoSlot<_>>> =
        (0..setup.io_queues).map(|_| (0..setup.queue_depth).map(|_| IoSlot::new()).collect()).collect();

    let options = EnableOptions::default();
    let mut controller =
        bring_up(&*setup.endpoint, &setup.memory, &link, &mut admin_slots, &options, waiter)?;
    identify_controller(&mut controller, waiter)?;
    let namespace = identify_namespace(&mut controller, setup.wiring.namespace, waiter)?;
    let expected = (setup.workload.block_size, setup.workload.blocks);
    let found = (namespace.block_bytes(), namespace.blocks);
    if expected != found {
        return Err(GuestError::Namespace { expected, found });
    }
    request_queues(&mut controller, setup.io_queues, waiter)?;
    let log = setup.log.as_deref().map(GuestLog::create).transpose();
    let log = log.map_err(|error| GuestError::Log(error.to_string()))?;
    let mut workload = Workload::new(setup.workload.clone(), log, std::time::Instant::now());
    let command_bytes = workload.command_bytes();
    let mut engine = Engine::new(
        controller,
        &setup.memory,
        &mut io_slots,
        command_bytes,
        setup.wiring,
        setup.io_timeout,
        waiter,
    )?;
    let _ = started.send(());
    let mut request = match setup.held.then(|| requests.recv()) {
        None | Some(Ok(Control::Begin)) => None,
        // Ended, or left alone, before it began.
        Some(other) => Some(other.unwrap_or(Control::Finish)),
    };

    let mut seen = Seen { stops: setup.token.stops(), holds: setup.endpoint.holds().0, ..Seen::default() };
    let mut sweep = request.is_some().then_some(Sweep::Draining);
    loop {
        let mut busy = {
            let running = setup.token.enter();
            if shared.halted.load(Ordering::Acquire) {
                return Err(GuestError::Halted);
            }
            if setup.token.takes_reset() {
                let (again, completed) = engine.reset(&mut workload, waiter)?;
                engine = again;
                seen.commands += completed;
                report.resets += 1;
            }
            let (holds, held) = setup.endpoint.holds();
            if (running.stops(), holds) != (seen.stops, seen.holds) {
                // The first look around since the controller stood still: nothing new has been seen yet.
                (seen.stops, seen.holds) = (running.stops(), holds);
                seen.note(&engine, report);
            }
            let now = waiter.now();
            let round = advance(&mut engine, &mut workload, &sweep, &mut seen.commands, now);
            shared.commands.store(seen.commands, Ordering::Relaxed);
            if held {
                // Whatever completed until now did so before the stop.
                seen.note(&engine, report);
            }
            seen.count(&engine, &workload, report);
            round?
        };
        match sweep {
            None => {
                if request.is_none() {
                    request = match requests.try_recv() {
                        Ok(Control::Begin) => None,
                        Ok(request) => Some(request),
                        Err(TryRecvError::Empty) => None,
                        // Nobody is left to ask for anything.
                        Err(TryRecvError::Disconnected) => Some(Control::Finish),
                    };
                }
                if request.is_some() {
                    sweep = Some(Sweep::Draining);
                    busy = true;
                }
            }
            Some(Sweep::Draining) if engine.outstanding() == 0 => {
                sweep = Some(Sweep::Reading(workload.begin_sweep()));
                busy = true;
            }
            Some(Sweep::Reading(blocks)) if workload.sweep_is_issued() && engine.outstanding() == 0 => {
                sweep = None;
                workload.end_sweep();
                match request.take() {
                    Some(Control::Verify(reply)) => {
                        report.verified_before = blocks;
                        // Whoever asked may have given up.
                        let _ = reply.send(blocks);
                    }
                    Some(Control::Finish | Control::Begin) | None => {
                        report.verified_after = blocks;
                        break;
                    }
                }
            }
            Some(_) => {}
        }
        if !busy {
            setup.interrupts.wait(NAP);
        }
    }
    seen.count(&engine, &workload, report);
    engine.end(waiter)?;
    Ok(workload.into_ledger())
}

/// What the guest knows of how it is being run.
#[derive(Default)]
struct Seen {
    /// Completions.
    commands: u64,
    /// Stops of its processor.
    stops: u64,
    /// Stops of its controller.
    holds: u64,
    stopped: bool,
}

impl Seen {
    /// The controller stands still.
    fn note<R: Confined<Error = AccessError>>(
        &mut self,
        engine: &Engine<'_, '_, R>,
        report: &mut GuestReport,
    ) {
        self.stopped = true;
        report.commands_before = self.commands;
        report.in_flight = engine.outstanding() as u64;
    }

    /// Brings the report up to date.
    fn count<R: Confined<Error = AccessError>>(
        &self,
        engine: &Engine<'_, '_, R>,
        workload: &Workload,
        report: &mut GuestReport,
    ) {
        if !self.stopped {
            report.commands_before = self.commands;
        }
        report.commands_after = self.commands - report.commands_before;
        let counts = workload.counts();
        report.reads = counts.reads;
        report.writes = counts.writes;
        report.blocks_read = counts.blocks_read;
        report.admin = engine.admin_commands();
        report.events = engine.events();
    }
}

/// One look around: takes what completed, and goes on with I/O and admin commands. Whether there was anything to do.
fn advance<R: Confined<Error = AccessError>>(
    engine: &mut Engine<'_, '_, R>,
    workload: &mut Workload,
    sweep: &Option<Sweep>,
    commands: &mut u64,
    now: Instant,
) -> Result<bool, GuestError> {
    let collected = engine.collect(workload, now)?;
    *commands += collected;
    let submitted = engine.submit(workload, !matches!(sweep, Some(Sweep::Draining)), now)?;
    engine.administrate(now)?;
    Ok(collected + submitted > 0)
}

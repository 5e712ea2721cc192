// SPDX-License-Identifier: MIT OR Apache-2.0
//! The supervisor against the scripted device.

use core::cell::{Cell, RefCell};
use core::time::Duration;
use std::collections::{BTreeMap, BTreeSet};
use std::vec::Vec;

use super::*;
use crate::admin::{AdminPort, AdminRequest, AdminSlot, Call, CallError};
use crate::controller::{EnableOptions, Fault, Link, Shutdown};
use crate::dma::{Direction, DmaArena, Pool, give_back};
use crate::io::{Buffer, IoQueueOptions, IoSlot};
use crate::queue::Slot;
use crate::testing::TestArena;
use crate::testing::device::{Answer, Device, Manners, SUCCESS};
use crate::testing::life::{attach_to, slots};
use crate::time::Instant;
use crate::wire::admin::{Abort, KeepAlive};
use crate::wire::identify::{ControllerIdentity, PAGE_BYTES};
use crate::wire::{
    AdminOpcode, Command, CommandId, ControllerId, QueueId, Status, StatusCode, SubmissionQueueEntry,
};

mod ends;
mod late;

type TestSupervisor<'d, 'a, 's, 'p> = Supervisor<'d, 's, 'p, Device<'a>, TestArena, u32>;

const SECOND: Duration = Duration::from_secs(1);

/// What the device does with I/O commands and with the steps against it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Behaviour {
    /// I/O commands with this bit of their number set are not answered.
    holds: u32,
    /// Aborts: end the command, say no, refuse, say nothing.
    abort: AbortAnswer,
    /// Opcode of an admin command that is refused, or not answered.
    refuses: Option<u8>,
    ignores: Option<u8>,
    acl: u16,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum AbortAnswer {
    Done,
    NotDone,
    Refused,
    Silent,
}

impl Default for Behaviour {
    fn default() -> Self {
        Self { holds: 0, abort: AbortAnswer::Done, refuses: None, ignores: None, acl: 4 }
    }
}

fn identity(behaviour: &Behaviour) -> ControllerIdentity {
    ControllerIdentity {
        controller: ControllerId::new(7),
        event_request_limit: 3,
        abort_limit: behaviour.acl,
        ..ControllerIdentity::default()
    }
}

/// What the device saw.
#[derive(Default)]
struct Seen {
    aborts: Cell<usize>,
    configured: Cell<usize>,
    /// Commands to be ended by an Abort, done by the test's loop because the device is borrowed when it handles one.
    to_abort: RefCell<Vec<Abort>>,
    silent_aborts: Cell<usize>,
}

fn script<'a>(arena: &'a TestArena, device: &Device<'a>, behaviour: &'a Cell<Behaviour>, seen: &'a Seen) {
    device.on_command(move |queue, entry: &SubmissionQueueEntry| -> Answer {
        let behaviour = behaviour.get();
        if queue != QueueId::ADMIN {
            let [number, ..] = entry.dwords();
            return if number & behaviour.holds != 0 { None } else { SUCCESS };
        }
        if behaviour.refuses == Some(entry.opcode()) {
            return Some((StatusCode::INTERNAL_ERROR.status(), 0, 0));
        }
        match AdminOpcode::new(entry.opcode()) {
            AdminOpcode::IDENTIFY => {
                let mut page = [0; PAGE_BYTES];
                identity(&behaviour).build(&mut page);
                arena.device_write(entry.prp1(), &page);
                SUCCESS
            }
            AdminOpcode::SET_FEATURES if entry.dwords()[0] & 0xFF == 7 => {
                Some((Status::SUCCESS, 0x0003_0003, 0))
            }
            AdminOpcode::SET_FEATURES => {
                seen.configured.set(seen.configured.get() + 1);
                SUCCESS
            }
            AdminOpcode::ABORT => {
                seen.aborts.set(seen.aborts.get() + 1);
                match behaviour.abort {
                    AbortAnswer::Done => {
                        seen.to_abort.borrow_mut().push(Abort::decode(entry).unwrap());
                        Some((Status::SUCCESS, Abort::result(true), 0))
                    }
                    AbortAnswer::NotDone => Some((Status::SUCCESS, Abort::result(false), 0)),
                    AbortAnswer::Refused => Some((StatusCode::ABORT_LIMIT_EXCEEDED.status(), 0, 0)),
                    AbortAnswer::Silent => {
                        seen.silent_aborts.set(seen.silent_aborts.get() + 1);
                        None
                    }
                }
            }
            _ => None,
        }
    });
}

/// Everything a test hands out, and what came back.
#[derive(Default, Debug)]
struct Ledger {
    submitted: BTreeSet<u32>,
    completed: BTreeSet<u32>,
    aborted: BTreeSet<u32>,
    lost: BTreeSet<u32>,
    timed_out: usize,
    log: Vec<&'static str>,
    resets: Vec<Cause>,
}

impl Ledger {
    fn ended(&self) -> usize {
        self.completed.len() + self.aborted.len() + self.lost.len()
    }

    fn take(&mut self, arena: &TestArena, event: Event<u32>) {
        let mut end = |name, set: &mut BTreeSet<u32>, tag: u32, buffer: Option<Buffer>| {
            assert!(self.submitted.contains(&tag), "{name} {tag}: never submitted");
            assert!(set.insert(tag), "{name} {tag}: twice");
            give_back(arena, buffer.expect("its buffer").into_region());
            self.log.push(name);
        };
        match event {
            Event::Completed { completed, .. } => {
                end("completed", &mut self.completed, completed.tag, completed.buffer);
            }
            Event::Aborted { completed, .. } => {
                end("aborted", &mut self.aborted, completed.tag, completed.buffer);
            }
            Event::Lost { lost, .. } => end("lost", &mut self.lost, lost.tag, lost.buffer),
            Event::TimedOut { .. } => {
                self.timed_out += 1;
                self.log.push("timed out");
            }
            Event::QueueReady { .. } => self.log.push("queue ready"),
            Event::Ready => self.log.push("ready"),
            Event::Resetting(cause) => {
                self.resets.push(cause);
                self.log.push("resetting");
            }
            Event::Quiesced => self.log.push("quiesced"),
        }
        let all = [&self.completed, &self.aborted, &self.lost];
        let distinct: BTreeSet<u32> = all.into_iter().flatten().copied().collect();
        assert_eq!(distinct.len(), self.ended(), "each command ends once");
    }
}

const POLLS: usize = 20_000;

/// The device and what is lent to the supervisor, for `test`.
struct Bench<'d, 'a, 's, 'p> {
    device: &'d Device<'a>,
    arena: &'a TestArena,
    seen: &'a Seen,
    behaviour: &'a Cell<Behaviour>,
    supervisor: TestSupervisor<'d, 'a, 's, 'p>,
    ledger: Ledger,
    now: Instant,
    polls: usize,
    before: usize,
}

impl Bench<'_, '_, '_, '_> {
    /// Polls once; completes what an Abort named.
    fn step(&mut self) -> Option<End> {
        self.polls += 1;
        assert!(self.polls < POLLS, "it ends: {:?}", self.ledger);
        for abort in self.seen.to_abort.take() {
            self.device.complete(
                abort.queue.get(),
                abort.command,
                StatusCode::ABORT_REQUESTED.status(),
                0,
                0,
            );
        }
        match self.supervisor.poll(self.now) {
            Progress::Event(event) => self.ledger.take(self.arena, event),
            Progress::Wait(until) => {
                if self.seen.to_abort.borrow().is_empty() {
                    assert!(until > self.now, "waits for a time that has not come");
                    self.now = until;
                }
            }
            Progress::Ended(end) => return Some(end),
        }
        None
    }

    /// Polls until `event` has come once more.
    fn until(&mut self, event: &str) {
        let count = |ledger: &Ledger| ledger.log.iter().filter(|name| **name == event).count();
        let before = count(&self.ledger);
        while count(&self.ledger) == before {
            if let Some(end) = self.step() {
                panic!("{end:?} instead of {event}: {:?}", self.ledger);
            }
        }
    }

    fn end(&mut self) -> End {
        loop {
            if let Some(end) = self.step() {
                return end;
            }
        }
    }

    fn submit(&mut self, queue: u16, numbers: impl IntoIterator<Item = u32>) {
        let deadline = self.now.after(SECOND);
        let pair = self.supervisor.pair(QueueId::new(queue)).expect("in use");
        for number in numbers {
            let region = self.arena.allocate(Pool::Data, 4096, 4096, Direction::FromDevice).unwrap();
            let entry = SubmissionQueueEntry::new(2).with_dwords([number, 0, 0, 0, 0, 0]);
            pair.submit(&entry, Some(Buffer::whole(region)), number, Some(deadline)).unwrap();
            assert!(self.ledger.submitted.insert(number));
        }
        pair.ring().unwrap();
    }

    /// All that was submitted has ended.
    fn all_ended(&self) -> bool {
        self.ledger.ended() == self.ledger.submitted.len()
    }

    fn settle(&mut self) {
        while !self.all_ended() {
            assert_eq!(self.step(), None, "{:?}", self.ledger);
        }
    }
}

fn io_slots() -> Vec<IoSlot<u32>> {
    (0..8).map(|_| Slot::new()).collect()
}

fn options(policy: Policy) -> Options {
    Options { enable: EnableOptions { events: 4, ..EnableOptions::default() }, policy, ..Options::default() }
}

/// Runs `test` over a supervisor of two queue pairs, not polled yet, then checks that it leaves no memory behind, if it says
/// that there is none.
fn bench(options: &Options, behaviour: Behaviour, test: impl FnOnce(&mut Bench<'_, '_, '_, '_>) -> bool) {
    let (arena, link, seen) = (TestArena::new(), Link::new(), Seen::default());
    let behaviour = Cell::new(behaviour);
    let device = Device::new(&arena);
    script(&arena, &device, &behaviour, &seen);
    let (mut admin, mut first, mut second): (Vec<AdminSlot>, _, _) = (slots(10), io_slots(), io_slots());
    let room = |id, slots| {
        let queue = IoQueueOptions { max_transfer: 8192, ..IoQueueOptions::new(QueueId::new(id), 16) };
        QueueRoom::new(queue, slots)
    };
    let mut rooms = [room(1, &mut first), room(2, &mut second)];
    let mut page = [0; PAGE_BYTES];
    let machine = attach_to(&device, &arena, &link);
    let supervisor = Supervisor::new(machine, &mut admin, &mut rooms, &mut page, options);
    let mut bench = Bench {
        device: &device,
        arena: &arena,
        seen: &seen,
        behaviour: &behaviour,
        supervisor,
        ledger: Ledger::default(),
        now: Instant::ZERO,
        polls: 0,
        before: arena.live_total(),
    };
    let before = bench.before;
    if test(&mut bench) {
        assert!(bench.all_ended(), "{:?}", bench.ledger);
        let supervisor = bench.supervisor;
        if let Ok(disabled) = supervisor.into_disabled() {
            disabled.detach();
        }
        assert_eq!(arena.live_total(), before, "all memory is back");
    }
}

fn shut_down(bench: &mut Bench<'_, '_, '_, '_>) -> bool {
    bench.supervisor.shutdown(Shutdown::Normal, SECOND);
    assert_eq!(bench.end(), End::ShutDown);
    assert!(bench.supervisor.quiesced().is_some());
    true
}

#[test]
fn a_controller_comes_up_works_and_goes() {
    bench(&options(Policy::default()), Behaviour::default(), |bench| {
        bench.until("ready");
        assert_eq!(bench.ledger.log, ["quiesced", "queue ready", "queue ready", "ready"]);
        assert_eq!(bench.device.state.borrow().requests.len(), 3);
        assert_eq!(bench.supervisor.initialized().unwrap().event_requests, 3);
        assert_eq!(ControllerIdentity::parse(bench.supervisor.page()).unwrap().controller.get(), 7);
        bench.submit(1, 0..8);
        bench.submit(2, 8..16);
        bench.settle();
        assert_eq!(bench.ledger.completed.len(), 16);
        assert_eq!(bench.supervisor.unfinished().count(), 0);
        shut_down(bench);
        assert_eq!((bench.device.io_queues(), bench.supervisor.restart()), ((0, 0), true));
        bench.until("ready");
        shut_down(bench)
    });
}

#[test]
fn time_outs_climb_the_steps_of_the_policy() {
    use AbortAnswer::{Done, NotDone, Refused, Silent};
    let abort = Some(Escalation::Abort { wait: SECOND });
    let recreate = Some(Escalation::RecreateQueues { timeout: SECOND });
    let reset = Some(Escalation::Reset { pause: Duration::ZERO });
    let delete = AdminOpcode::DELETE_IO_SUBMISSION_QUEUE.get();
    let create = AdminOpcode::CREATE_IO_COMPLETION_QUEUE.get();
    // What happens to the commands that are held, to those of the same pair, to those of the other pair.
    let rows = [
        ("aborted", [abort, recreate, reset], Done, None, ["aborted", "completed", "completed"], 0),
        ("not aborted: the pair again", [abort, recreate, reset], NotDone, None, ["lost", "lost", "late"], 0),
        ("the Abort refused", [abort, recreate, reset], Refused, None, ["lost", "lost", "late"], 0),
        ("the Abort not answered", [abort, recreate, reset], Silent, None, ["lost", "lost", "lost"], 1),
        ("deletion refused", [abort, recreate, reset], NotDone, Some(delete), ["lost", "lost", "lost"], 1),
        ("creation refused once", [None, recreate, reset], Done, Some(create), ["lost", "lost", "lost"], 1),
        ("reset at once", [reset, abort, None], Done, None, ["lost", "lost", "lost"], 1),
        ("the pair at once", [recreate, abort, reset], Done, None, ["lost", "lost", "late"], 0),
        ("abort, then reset", [abort, None, reset], NotDone, None, ["lost", "lost", "lost"], 1),
        ("abort twice, then reset", [abort, abort, reset], NotDone, None, ["lost", "lost", "lost"], 1),
        ("an Abort refused twice", [abort, abort, recreate], Refused, None, ["lost", "lost", "late"], 0),
    ];
    for (name, steps, answer, refuses, ends, resets) in rows {
        let mut policy = Policy { steps: [None; Policy::STEPS], ..Policy::default() };
        policy.steps[..3].copy_from_slice(&steps);
        let behaviour = Behaviour { abort: answer, ..Behaviour::default() };
        bench(&options(policy), behaviour, |bench| {
            bench.until("ready");
            bench.behaviour.set(Behaviour {
                holds: u32::MAX,
                refuses: refuses.filter(|_| true),
                ..behaviour
            });
            bench.submit(1, [1]);
            let late = bench.now;
            bench.now = late.after(Duration::from_millis(500));
            bench.submit(1, [2]);
            bench.now = late.after(Duration::from_millis(900));
            bench.submit(2, [3]);
            bench.until("timed out");
            assert_eq!(bench.ledger.log.last(), Some(&"timed out"), "{name}: told before anything is done");
            // What the device did not forget it does now; the third command in time.
            if ends[1] == "completed" {
                bench.until("aborted");
            }
            if ends[2] != "lost" {
                let third = bench.supervisor.pair(QueueId::new(2)).unwrap().unfinished().next().unwrap().0;
                bench.device.complete(2, third, Status::SUCCESS, 0, 0);
            }
            if ends[1] == "completed" {
                let second = bench.supervisor.pair(QueueId::new(1)).unwrap().unfinished().next().unwrap().0;
                bench.device.complete(1, second, Status::SUCCESS, 0, 0);
            }
            while !bench.all_ended() {
                if bench.ledger.resets.len() == 1 {
                    bench.behaviour.set(Behaviour::default());
                }
                assert_eq!(bench.step(), None, "{name}: {:?}", bench.ledger);
            }
            bench.behaviour.set(Behaviour::default());
            let end = |number| match () {
                () if bench.ledger.completed.contains(&number) => "completed",
                () if bench.ledger.aborted.contains(&number) => "aborted",
                () => "lost",
            };
            let expected = ends.map(|end| if end == "late" { "completed" } else { end });
            assert_eq!([end(1), end(2), end(3)], expected, "{name}");
            assert_eq!(bench.ledger.resets.len(), resets, "{name}");
            // Ready means that both pairs are there. A slot is free only when nothing is done about its command any more.
            while !bench.supervisor.is_ready() || bench.supervisor.pair(QueueId::new(1)).unwrap().free() < 8 {
                assert_eq!(bench.step(), None);
            }
            bench.submit(1, 20..28);
            bench.submit(2, 30..38);
            bench.settle();
            assert_eq!(bench.ledger.completed.range(20..).count(), 16, "{name}: usable afterwards");
            shut_down(bench)
        });
    }
}

#[test]
fn aborts_keep_to_the_limit_of_the_controller() {
    for acl in [1, 2, 4, 256] {
        let behaviour =
            Behaviour { holds: u32::MAX, abort: AbortAnswer::Silent, acl, ..Behaviour::default() };
        bench(&options(Policy::default()), behaviour, |bench| {
            bench.until("ready");
            bench.submit(1, 1..9);
            bench.submit(2, 9..17);
            while bench.ledger.resets.is_empty() {
                assert_eq!(bench.step(), None);
                let outstanding = bench.seen.silent_aborts.get();
                assert!(outstanding <= usize::from(acl.min(4)), "{outstanding} Aborts with a limit of {acl}");
            }
            assert_eq!(bench.seen.silent_aborts.get(), usize::from(acl.min(4)));
            assert_eq!(bench.ledger.timed_out, 16, "each told once");
            bench.behaviour.set(Behaviour::default());
            bench.until("ready");
            shut_down(bench)
        });
    }
    // All of many, one after the other.
    let behaviour = Behaviour { holds: u32::MAX, acl: 1, ..Behaviour::default() };
    bench(&options(Policy::default()), behaviour, |bench| {
        bench.until("ready");
        bench.submit(1, 1..9);
        bench.submit(2, 9..17);
        bench.settle();
        assert_eq!((bench.ledger.aborted.len(), bench.seen.aborts.get()), (16, 16));
        assert!(bench.ledger.resets.is_empty());
        shut_down(bench)
    });
}

#[test]
fn a_reset_brings_queues_events_and_configuration_back() {
    let behaviour = Behaviour { holds: 1, ..Behaviour::default() };
    bench(&options(Policy::default()), behaviour, |bench| {
        bench.until("ready");
        let configured = bench.seen.configured.get();
        bench.submit(1, 0..8);
        bench.submit(2, 8..16);
        // An owner of an admin command that the reset overtakes.
        let mut call = Call::new();
        call.start(AdminRequest::without_data(&KeepAlive, SECOND)).unwrap();
        assert!(call.poll(bench.supervisor.admin().unwrap(), bench.now).is_none());
        bench.supervisor.reset();
        bench.until("resetting");
        assert!(bench.supervisor.admin().is_none() && bench.supervisor.pair(QueueId::new(1)).is_none());
        bench.until("quiesced");
        assert_eq!(bench.ledger.completed.len(), 8, "posted before the reset: these count");
        assert_eq!(bench.ledger.lost.len(), 8);
        assert!(bench.supervisor.quiesced().is_some());
        bench.until("ready");
        let lost = call.poll(bench.supervisor.admin().unwrap(), bench.now).unwrap();
        assert_eq!(lost.outcome.unwrap_err(), CallError::Lost);
        assert_eq!(bench.seen.configured.get(), configured + 1);
        assert_eq!(bench.device.state.borrow().requests.len(), 3);
        assert_eq!((bench.device.io_queues(), bench.supervisor.resets()), ((2, 2), 1));
        // A minute later the reset is forgotten.
        bench.now = bench.now.after(Duration::from_secs(60));
        assert_eq!(bench.step(), None);
        assert_eq!(bench.supervisor.resets(), 0);
        shut_down(bench)
    });
}

#[test]
fn the_last_look_at_the_admin_queue_of_before() {
    bench(&options(Policy::default()), Behaviour::default(), |bench| {
        bench.until("ready");
        let mut calls = [Call::new(), Call::new()];
        for call in &mut calls {
            call.start(AdminRequest::without_data(&KeepAlive, SECOND)).unwrap();
            assert!(call.poll(bench.supervisor.admin().unwrap(), bench.now).is_none());
        }
        let sent = bench.device.take_commands(0);
        let second = sent.last().unwrap().command_id();
        bench.device.complete(0, second, Status::SUCCESS, 0, 0);
        assert_eq!(bench.step(), None);
        bench.supervisor.reset();
        bench.until("quiesced");
        let admin = bench.supervisor.admin().unwrap();
        let ends = calls.map(|mut call| call.poll(admin, bench.now).unwrap().outcome.map(drop));
        assert_eq!(ends, [Err(CallError::Lost), Ok(())]);
        bench.until("ready");
        shut_down(bench)
    });
}

#[test]
fn admin_commands_that_time_out() {
    for resets in [true, false] {
        let policy = Policy { reset_on_admin_timeout: resets, ..Policy::default() };
        bench(&options(policy), Behaviour::default(), |bench| {
            bench.until("ready");
            let admin = bench.supervisor.admin().unwrap();
            let handle = admin.submit(AdminRequest::without_data(&KeepAlive, SECOND), bench.now).unwrap();
            let end = bench.now.after(Duration::from_secs(2));
            while bench.now < end && bench.ledger.resets.is_empty() {
                assert_eq!(bench.step(), None);
            }
            assert_eq!(bench.ledger.resets == [Cause::AdminTimedOut], resets);
            if !resets {
                assert!(bench.supervisor.admin().unwrap().take(handle).is_some(), "its owner is told");
                bench.supervisor.reset();
            }
            bench.until("ready");
            shut_down(bench)
        });
    }
}

#[test]
fn a_device_that_breaks_a_rule_is_reset_and_not_believed() {
    let behaviour = Behaviour { holds: 1, ..Behaviour::default() };
    bench(&options(Policy::default()), behaviour, |bench| {
        bench.until("ready");
        bench.submit(1, 1..8);
        let wrong = CommandId::new(0x7FF0);
        bench.device.complete(2, wrong, Status::SUCCESS, 0, 0);
        bench.until("quiesced");
        assert_eq!(bench.ledger.resets, [Cause::Fault(Fault::UnknownCommand(wrong))]);
        assert_eq!(bench.ledger.ended(), 7);
        bench.until("ready");
        shut_down(bench)
    });
    // The device's last word before a reset that is nobody's fault, and then nonsense.
    bench(&options(Policy::default()), behaviour, |bench| {
        bench.until("ready");
        bench.submit(1, [1, 3]);
        bench.supervisor.reset();
        bench.until("resetting");
        bench.device.complete(1, CommandId::new(0x1FF0), Status::SUCCESS, 0, 0);
        bench.until("quiesced");
        assert_eq!(bench.ledger.lost.len(), 2);
        bench.until("ready");
        shut_down(bench)
    });
}

#[test]
fn attempts_are_bounded() {
    let never = Manners { ready_after: u32::MAX, ..Manners::default() };
    let fatal = Manners { fatal: true, ..Manners::default() };
    type Check = fn(Cause) -> bool;
    let identify = Behaviour { refuses: Some(AdminOpcode::IDENTIFY.get()), ..Behaviour::default() };
    let rows: [(&str, Manners, Behaviour, Check); 4] = [
        ("never ready", never, Behaviour::default(), |cause| cause == Cause::Fault(Fault::NotReadyInTime)),
        ("fatal", fatal, Behaviour::default(), |cause| cause == Cause::Fault(Fault::FatalStatus)),
        ("Identify refused", Manners::default(), identify, |cause| matches!(cause, Cause::Initialize(_))),
        (
            "no queue",
            Manners::default(),
            Behaviour {
                refuses: Some(AdminOpcode::CREATE_IO_SUBMISSION_QUEUE.get()),
                ..Behaviour::default()
            },
            |cause| matches!(cause, Cause::Queue { .. }),
        ),
    ];
    for (name, manners, behaviour, check) in rows {
        for resets in 0..=3 {
            let mut policy = Policy { steps: [None; Policy::STEPS], ..Policy::default() };
            policy.steps[..resets].fill(Some(Escalation::Reset { pause: SECOND }));
            bench(&options(policy), behaviour, |bench| {
                bench.device.state.borrow_mut().manners = manners;
                let End::GaveUp(cause) = bench.end() else { panic!("{name}: gave up") };
                assert!(check(cause), "{name}: {cause:?}");
                assert!(!std::format!("{cause}").is_empty());
                assert_eq!(bench.ledger.resets.len(), resets, "{name}");
                assert!(bench.now >= Instant::ZERO.after(SECOND * resets as u32), "{name}: pauses");
                // The host may try again when it thinks better of it.
                bench.device.state.borrow_mut().manners = Manners::default();
                bench.behaviour.set(Behaviour::default());
                assert!(bench.supervisor.restart());
                bench.until("ready");
                shut_down(bench)
            });
        }
    }
}

#[test]
#[allow(unsafe_code, reason = "the test vouches for its fake device")]
fn a_device_that_cannot_be_disabled_keeps_its_memory_until_the_host_vouches() {
    for (name, manners) in [
        ("stays ready", Manners { stays_ready: true, ..Manners::default() }),
        ("stays enabled", Manners { stays_enabled: true, ..Manners::default() }),
    ] {
        let behaviour = Behaviour { holds: u32::MAX, ..Behaviour::default() };
        bench(&options(Policy::default()), behaviour, |bench| {
            bench.until("ready");
            bench.submit(1, 0..8);
            bench.device.state.borrow_mut().manners = manners;
            bench.supervisor.reset();
            let end = bench.end();
            assert_eq!(end, End::GaveUp(Cause::Fault(Fault::NotDisabledInTime)), "{name}");
            assert_eq!((bench.ledger.ended(), bench.supervisor.unfinished().count()), (0, 8), "{name}");
            assert_eq!(bench.arena.live(Pool::Data), 8, "{name}: the device may still write them");
            assert!(bench.supervisor.quiesced().is_none() && bench.supervisor.admin().is_none());
            let stuck = bench.supervisor.take_stuck().expect("stuck");
            assert!(bench.supervisor.take_stuck().is_none() && !bench.supervisor.restart());
            // SAFETY: the fake device of this test writes nothing any more.
            let disabled = unsafe { stuck.assume_disabled() };
            assert!(bench.supervisor.put_disabled(disabled).is_ok());
            bench.until("quiesced");
            assert_eq!(bench.end(), end, "{name}");
            assert_eq!((bench.ledger.lost.len(), bench.arena.live(Pool::Data)), (8, 0), "{name}");
            true
        });
    }
}

#[test]
#[allow(unsafe_code, reason = "the test vouches for its fake device")]
fn removal_at_any_poll_ends_and_accounts_for_everything() {
    let mut ends = BTreeMap::new();
    for at in 0..280 {
        // With every second one Aborts end the commands, with the others the pairs are deleted and made again.
        let abort = if at % 2 == 0 { AbortAnswer::Done } else { AbortAnswer::NotDone };
        let at = at / 2;
        let behaviour = Behaviour { holds: 1, abort, ..Behaviour::default() };
        bench(&options(Policy::default()), behaviour, |bench| {
            let (mut submitted, mut end) = (false, None);
            while end.is_none() {
                if bench.polls == at {
                    bench.device.state.borrow_mut().removed = true;
                }
                if bench.supervisor.is_ready() && !submitted {
                    submitted = true;
                    bench.submit(1, 0..8);
                    bench.submit(2, 8..16);
                }
                end = bench.step();
                // A reset, a restart of a pair and a shutdown are under way at one poll or another.
                if bench.polls == 100 {
                    bench.supervisor.reset();
                }
                if bench.polls == 130 {
                    bench.supervisor.shutdown(Shutdown::Abrupt, SECOND);
                }
            }
            let end = end.unwrap();
            *ends.entry(std::format!("{end:?}")).or_insert(0) += 1;
            if end == End::Removed {
                let unfinished: BTreeSet<u32> =
                    bench.supervisor.unfinished().map(|(_, _, tag)| *tag).collect();
                assert_eq!(unfinished.len() + bench.ledger.ended(), bench.ledger.submitted.len(), "at {at}");
                assert!(bench.arena.live(Pool::Data) >= unfinished.len(), "at {at}: kept");
                // SAFETY: the fake device of this test writes nothing any more.
                let disabled = unsafe { bench.supervisor.take_stuck().unwrap().assume_disabled() };
                assert!(bench.supervisor.put_disabled(disabled).is_ok());
                assert_eq!(bench.end(), End::Removed);
            }
            true
        });
    }
    assert!(ends["Removed"] > 200, "{ends:?}");
}

#[test]
fn memory_that_cannot_be_had_ends_in_giving_up() {
    for count in 0..40 {
        bench(&options(Policy::default()), Behaviour::default(), |bench| {
            bench.arena.fail_after(count);
            let ended = loop {
                if bench.supervisor.is_ready() {
                    break false;
                }
                if bench.step().is_some() {
                    break true;
                }
            };
            assert_eq!(
                ended,
                count < 10,
                "{count} allocations are {} enough",
                if ended { "not" } else { "" }
            );
            bench.arena.fail_after(1000);
            if ended { bench.supervisor.quiesced().is_some() } else { shut_down(bench) }
        });
    }
}

#[test]
fn a_doorbell_that_cannot_be_written() {
    bench(&options(Policy::default()), Behaviour::default(), |bench| {
        bench.until("ready");
        bench.submit(1, 0..4);
        bench.device.state.borrow_mut().broken = Some(0x100C);
        bench.until("resetting");
        assert!(matches!(bench.ledger.resets[..], [Cause::Fault(Fault::RegisterAccess(_))]));
        bench.device.state.borrow_mut().broken = None;
        bench.until("ready");
        shut_down(bench)
    });
}

#[test]
fn shutdown_at_any_poll_ends() {
    for at in 0..80 {
        let behaviour = Behaviour { holds: 2, ..Behaviour::default() };
        bench(&options(Policy::default()), behaviour, |bench| {
            let mut submitted = false;
            let end = loop {
                if bench.polls == at {
                    bench.supervisor.shutdown(Shutdown::Normal, SECOND);
                    assert!(bench.supervisor.pair(QueueId::new(1)).is_none());
                }
                if bench.polls < at && bench.supervisor.is_ready() && !submitted {
                    submitted = true;
                    bench.submit(1, 0..8);
                }
                if bench.polls == 60 {
                    bench.supervisor.reset();
                }
                if let Some(end) = bench.step() {
                    break end;
                }
            };
            assert_eq!(end, End::ShutDown, "at {at}");
            true
        });
    }
}

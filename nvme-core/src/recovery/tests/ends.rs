// SPDX-License-Identifier: MIT OR Apache-2.0
//! The seldom ways: Aborts that lead nowhere, too little granted, ends that turn out otherwise, and what is left then.

use super::*;
use crate::controller::Health;
use crate::testing::life::disabled;
use crate::wire::CompletionQueueEntry;
use crate::wire::feature::NumberOfQueues;

fn steps<const N: usize>(steps: [Escalation; N]) -> Policy {
    let mut policy = Policy { steps: [None; Policy::STEPS], ..Policy::default() };
    for (place, step) in policy.steps.iter_mut().zip(steps) {
        *place = Some(step);
    }
    policy
}

const ABORT: Escalation = Escalation::Abort { wait: SECOND };
const RECREATE: Escalation = Escalation::RecreateQueues { timeout: SECOND };
const RESET: Escalation = Escalation::Reset { pause: Duration::ZERO };

#[test]
fn a_policy_says_how_many_resets_it_has() {
    let rows = [
        ("by default", Policy::default(), 3),
        ("none", steps([ABORT, RECREATE]), 0),
        ("last", steps([ABORT, RECREATE, RESET]), 1),
        ("nothing else", steps([RESET; Policy::STEPS]), Policy::STEPS),
    ];
    for (name, policy, resets) in rows {
        assert_eq!(policy.resets(), resets, "{name}");
        assert_eq!(policy.reset(resets), None, "{name}: no more than that");
        assert_eq!(policy.reset(0).is_some(), resets > 0, "{name}");
    }
}

#[test]
fn an_abort_without_an_answer_needs_a_reset_whoever_looks_after_the_admin_queue() {
    let policy = Policy { reset_on_admin_timeout: false, ..steps([ABORT, RECREATE, RESET]) };
    let behaviour = Behaviour { holds: u32::MAX, abort: AbortAnswer::Silent, ..Behaviour::default() };
    bench(&options(policy), behaviour, |bench| {
        bench.until("ready");
        bench.submit(1, [1]);
        bench.until("resetting");
        assert_eq!(bench.ledger.resets, [Cause::AdminTimedOut], "no queue pair can be deleted without it");
        bench.behaviour.set(Behaviour::default());
        bench.until("ready");
        assert_eq!(bench.ledger.lost.len(), 1);
        shut_down(bench)
    });
}

#[test]
fn an_abort_that_is_refused_because_its_command_ended_is_no_failure() {
    let behaviour = Behaviour { holds: u32::MAX, abort: AbortAnswer::Refused, ..Behaviour::default() };
    bench(&options(steps([ABORT, RESET])), behaviour, |bench| {
        bench.until("ready");
        bench.submit(1, [1]);
        bench.until("timed out");
        while bench.seen.aborts.get() == 0 {
            assert_eq!(bench.step(), None);
        }
        // It ends between the Abort and the answer.
        let (_, command, _) = bench.supervisor.unfinished().next().unwrap();
        bench.device.complete(1, command, Status::SUCCESS, 0, 0);
        bench.until("completed");
        for _ in 0..20 {
            assert_eq!(bench.step(), None);
        }
        assert_eq!((bench.ledger.resets.len(), bench.supervisor.is_ready()), (0, true));
        assert_eq!(bench.seen.aborts.get(), 1, "nothing is aborted again");
        shut_down(bench)
    });
}

#[test]
fn without_a_step_after_the_abort_the_controller_is_given_up() {
    let behaviour = Behaviour { holds: u32::MAX, abort: AbortAnswer::NotDone, ..Behaviour::default() };
    bench(&options(steps([ABORT])), behaviour, |bench| {
        bench.until("ready");
        bench.submit(2, [1]);
        let (queue, command, _) = bench.supervisor.unfinished().next().unwrap();
        let before = bench.now;
        assert_eq!(bench.end(), End::GaveUp(Cause::TimedOut { queue, command }));
        assert_eq!(queue, QueueId::new(2));
        assert!(bench.now >= before.after(SECOND * 2), "time-out, and as long for the Abort to work");
        assert_eq!(bench.ledger.lost.len(), 1);
        true
    });
}

#[test]
fn fewer_queues_than_the_pairs_need_are_not_enough() {
    let mut options = options(steps([RESET]));
    options.initialize.io_queues = Some(NumberOfQueues { submission: 4, completion: 1 });
    bench(&options, Behaviour::default(), |bench| {
        let cause = Cause::TooFewQueues { needed: 2, granted: 1 };
        assert_eq!(bench.end(), End::GaveUp(cause), "the smaller of both counts");
        assert_eq!(bench.ledger.resets, [cause]);
        assert_eq!(bench.device.io_queues(), (0, 0), "none is created");
        true
    });
}

#[test]
fn a_completion_queue_that_is_refused_leaves_nothing_behind() {
    bench(&options(steps([])), Behaviour::default(), |bench| {
        while bench.seen.configured.get() == 0 {
            assert_eq!(bench.step(), None);
        }
        let refused = StatusCode::INVALID_QUEUE_SIZE.status();
        bench.device.on_command(move |_, entry| {
            let create = AdminOpcode::CREATE_IO_COMPLETION_QUEUE.get();
            (entry.opcode() == create).then_some((refused, 0, 0))
        });
        let error = CallError::Status(refused);
        assert_eq!(bench.end(), End::GaveUp(Cause::Queue { queue: QueueId::new(1), error }));
        assert_eq!(bench.device.io_queues(), (0, 0));
        true
    });
}

#[test]
fn a_lie_during_the_deletion_of_a_pair_is_a_fault() {
    let behaviour = Behaviour { holds: 1, ..Behaviour::default() };
    bench(&options(steps([RECREATE, RESET])), behaviour, |bench| {
        bench.until("ready");
        bench.submit(1, [1]);
        bench.until("timed out");
        let delete = AdminOpcode::DELETE_IO_SUBMISSION_QUEUE.get();
        while !bench.device.take_commands(0).iter().any(|entry| entry.opcode() == delete) {
            assert_eq!(bench.step(), None);
        }
        let unknown = CommandId::new(0x7777);
        bench.device.post(1, CompletionQueueEntry::new(QueueId::new(1), 0, unknown, Status::SUCCESS));
        bench.behaviour.set(Behaviour::default());
        bench.until("resetting");
        assert_eq!(bench.ledger.resets, [Cause::Fault(Fault::UnknownCommand(unknown))]);
        bench.until("ready");
        assert_eq!(bench.ledger.lost.len(), 1);
        shut_down(bench)
    });
}

#[test]
fn a_shutdown_that_takes_a_while_is_waited_for() {
    bench(&options(Policy::default()), Behaviour::default(), |bench| {
        bench.until("ready");
        bench.device.state.borrow_mut().manners.shutdown_hangs = true;
        bench.supervisor.shutdown(Shutdown::Normal, SECOND * 10);
        let before = bench.now;
        while bench.now.since(before) < SECOND * 5 {
            assert_eq!(bench.step(), None);
        }
        let enabled = bench.device.state.borrow().configuration.enabled();
        assert!(enabled, "it is not disabled while it saves what it has to");
        let mut state = bench.device.state.borrow_mut();
        state.status = state.status.with_shutdown(crate::wire::register::ShutdownStatus::Complete);
        drop(state);
        assert_eq!(bench.end(), End::ShutDown);
        assert!(bench.now.since(before) < SECOND * 6, "no longer than it takes");
        true
    });
}

#[test]
fn a_shutdown_that_cannot_disable_is_no_shutdown_and_can_be_tried_again() {
    bench(&options(Policy::default()), Behaviour::default(), |bench| {
        bench.until("ready");
        bench.device.state.borrow_mut().manners.stays_ready = true;
        bench.supervisor.shutdown(Shutdown::Normal, SECOND);
        assert_eq!(bench.end(), End::GaveUp(Cause::Fault(Fault::NotDisabledInTime)));
        assert!(bench.supervisor.quiesced().is_none(), "nothing shows that it let go");
        // The host repaired it.
        bench.device.state.borrow_mut().manners = Manners::default();
        bench.device.state.borrow_mut().status = crate::wire::register::ControllerStatus::from_bits(0);
        assert!(bench.supervisor.restart());
        bench.until("ready");
        shut_down(bench)
    });
}

#[test]
fn a_supervisor_shows_what_it_looks_after() {
    bench(&options(Policy::default()), Behaviour::default(), |bench| {
        assert_eq!(bench.supervisor.health(), Health::Live);
        bench.until("ready");
        let text = std::format!("{:?}", bench.supervisor);
        for part in ["Supervisor", "rooms", "QueueId(1)", "QueueId(2)", "ending: None"] {
            assert!(text.contains(part), "{part} in {text}");
        }
        assert!(!bench.supervisor.restart(), "it has not ended");
        shut_down(bench)
    });
}

#[test]
#[allow(unsafe_code, reason = "the test vouches for its fake devices")]
fn another_controller_does_not_take_the_place_of_a_stuck_one() {
    let (arena, link) = (TestArena::new(), Link::new());
    let (own, own_link) = (TestArena::new(), Link::new());
    let (device, stranger) = (Device::new(&own), Device::new(&arena));
    let mut slots = slots(10);
    let mut page = [0; PAGE_BYTES];
    let machine = attach_to(&device, &own, &own_link);
    let mut supervisor: Supervisor<'_, '_, '_, _, _, u32> =
        Supervisor::new(machine, &mut slots, &mut [], &mut page, &options(Policy::default()));
    let other = disabled(&stranger, &arena, &link);
    let other = supervisor.put_disabled(other).unwrap_err();
    device.state.borrow_mut().removed = true;
    assert!(matches!(supervisor.poll(Instant::ZERO), Progress::Ended(End::Removed)));
    let stuck = supervisor.take_stuck().expect("stuck");
    let other = supervisor.put_disabled(other).unwrap_err();
    let supervisor = supervisor.into_disabled();
    let mut supervisor = supervisor.expect_err("its controller is elsewhere");
    // SAFETY: the fake device of this test writes nothing.
    assert!(supervisor.put_disabled(unsafe { stuck.assume_disabled() }).is_ok());
    other.detach();
}

#[test]
fn a_room_has_its_slots_while_no_controller_can_use_them() {
    let rows = [("never polled", 0, true), ("in use", 1, false), ("shut down", 2, true)];
    for (name, until, free) in rows {
        let (arena, link, seen) = (TestArena::new(), Link::new(), Seen::default());
        let behaviour = Cell::new(Behaviour::default());
        let device = Device::new(&arena);
        script(&arena, &device, &behaviour, &seen);
        let (mut admin, mut memory) = (slots(10), io_slots());
        let queue = IoQueueOptions { max_transfer: 8192, ..IoQueueOptions::new(QueueId::new(1), 16) };
        let mut rooms = [QueueRoom::new(queue, &mut memory)];
        assert!(
            std::format!("{:?}", rooms[0])
                .starts_with("QueueRoom { options: IoQueueOptions { id: QueueId(1)")
        );
        let mut page = [0; PAGE_BYTES];
        let machine = attach_to(&device, &arena, &link);
        let mut supervisor =
            Supervisor::new(machine, &mut admin, &mut rooms, &mut page, &options(Policy::default()));
        let mut now = Instant::ZERO;
        let mut ended = until == 0;
        for _ in 0..POLLS {
            if ended {
                break;
            }
            match supervisor.poll(now) {
                Progress::Event(Event::Ready) if until == 1 => ended = true,
                Progress::Event(Event::Ready) => supervisor.shutdown(Shutdown::Normal, SECOND),
                Progress::Event(_) => {}
                Progress::Wait(until) => now = until,
                Progress::Ended(_) => ended = true,
            }
        }
        assert!(ended, "{name}");
        let [room] = rooms;
        match room.into_slots() {
            Ok(slots) => assert!(free && slots.len() == 8, "{name}"),
            Err(room) => assert!(!free && room.is_live(), "{name}"),
        }
    }
}

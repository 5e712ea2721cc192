// SPDX-License-Identifier: MIT OR Apache-2.0
//! Commands that time out: what is done about them whoever saw it, whatever else goes on, and what is left behind.

use super::*;
use crate::wire::migration::{MigrationSend, SuspendKind};

#[test]
fn a_time_out_that_the_host_took_is_escalated() {
    for all in [false, true] {
        let behaviour = Behaviour { holds: u32::MAX, ..Behaviour::default() };
        bench(&options(Policy::default()), behaviour, |bench| {
            bench.until("ready");
            bench.submit(1, 1..4);
            bench.now = bench.now.after(SECOND);
            let now = bench.now;
            let pair = bench.supervisor.pair(QueueId::new(1)).unwrap();
            let mut told = 0;
            while (all || told == 0) && pair.expire(now).is_some() {
                told += 1;
            }
            bench.settle();
            assert_eq!((bench.ledger.timed_out, bench.ledger.aborted.len()), (3 - told, 3), "{told} taken");
            shut_down(bench)
        });
    }
}

#[test]
fn completions_without_end_do_not_hide_a_time_out() {
    // The device fills the completion queue without waiting for its head, and keeps one command back.
    for (name, answer, resets) in
        [("aborted", AbortAnswer::Done, false), ("the Abort not answered", AbortAnswer::Silent, true)]
    {
        let behaviour = Behaviour { holds: 1 << 20, abort: answer, ..Behaviour::default() };
        bench(&options(Policy::default()), behaviour, |bench| {
            bench.until("ready");
            bench.device.state.borrow_mut().ignores_full_queues = true;
            let kept = 1 << 20;
            bench.submit(1, [kept, 1, 2, 3]);
            bench.submit(2, 4..8);
            let mut number = 8;
            while bench.ledger.resets.is_empty() && !bench.ledger.aborted.contains(&kept) {
                bench.now = bench.now.after(Duration::from_millis(10));
                let before = bench.ledger.completed.len();
                assert_eq!(bench.step(), None, "{name}");
                if bench.ledger.completed.len() > before {
                    for queue in [1, 2] {
                        let free = bench.supervisor.pair(QueueId::new(queue)).map_or(0, |pair| pair.free());
                        bench.submit(queue, number..number + (free as u32).min(2));
                        number += 2;
                    }
                }
                assert!(number < 10_000, "{name}: {} completions hide it", bench.ledger.completed.len());
            }
            assert_eq!((bench.ledger.timed_out, !bench.ledger.resets.is_empty()), (1, resets), "{name}");
            bench.settle();
            bench.device.state.borrow_mut().ignores_full_queues = false;
            while !bench.supervisor.is_ready() {
                assert_eq!(bench.step(), None, "{name}");
            }
            shut_down(bench)
        });
    }
}

#[test]
fn an_abort_on_its_way_ends_with_the_queues_at_a_shutdown() {
    let behaviour = Behaviour { holds: u32::MAX, abort: AbortAnswer::Silent, ..Behaviour::default() };
    let policy = Policy { steps: [None; Policy::STEPS], ..Policy::default() };
    let abort = Some(Escalation::Abort { wait: SECOND });
    bench(&options(Policy { steps: [abort, None, None, None, None, None], ..policy }), behaviour, |bench| {
        bench.until("ready");
        bench.submit(1, [1]);
        bench.until("timed out");
        while bench.seen.aborts.get() == 0 {
            assert_eq!(bench.step(), None);
        }
        shut_down(bench);
        assert_eq!(bench.ledger.lost.len() + bench.ledger.aborted.len(), 1);
        bench.behaviour.set(Behaviour::default());
        assert!(bench.supervisor.restart());
        bench.until("ready");
        assert_eq!(bench.step(), None, "healthy, and not given up");
        assert_eq!(bench.ledger.resets, []);
        shut_down(bench)
    });
}

#[test]
fn an_abort_names_its_own_command_as_long_as_it_is_on_its_way() {
    let behaviour = Behaviour { holds: 1 << 20, abort: AbortAnswer::Silent, ..Behaviour::default() };
    bench(&options(Policy::default()), behaviour, |bench| {
        bench.until("ready");
        bench.submit(1, [1 << 20]);
        bench.until("timed out");
        while bench.seen.aborts.get() == 0 {
            assert_eq!(bench.step(), None);
        }
        let sent = bench.device.take_commands(0);
        let (entry, abort) = sent.iter().rev().find_map(|e| Some((e, Abort::decode(e).ok()?))).unwrap();
        // It ends by itself, and its slot would be the first to be used again: 8,192 times until it has the same identifier.
        bench.device.complete(1, abort.command, Status::SUCCESS, 0, 0);
        bench.settle();
        assert_eq!(bench.supervisor.pair(QueueId::new(1)).unwrap().free(), 7, "its slot waits");
        for number in 0..8200 {
            bench.submit(1, [number]);
            let used = bench.device.take_commands(1).last().unwrap().command_id();
            assert_ne!(used, abort.command, "command {number}");
            let event = bench.supervisor.pair(QueueId::new(1)).unwrap().poll().unwrap().unwrap();
            bench.ledger.take(bench.arena, Event::Completed { queue: QueueId::new(1), completed: event });
            bench.supervisor.pair(QueueId::new(1)).unwrap().acknowledge().unwrap();
            bench.ledger.submitted.remove(&number);
            bench.ledger.completed.remove(&number);
        }
        bench.device.complete(0, entry.command_id(), Status::SUCCESS, Abort::result(false), 0);
        while bench.supervisor.pair(QueueId::new(1)).unwrap().free() < 8 {
            assert_eq!(bench.step(), None);
        }
        assert_eq!(bench.ledger.resets, []);
        shut_down(bench)
    });
}

#[test]
fn a_guest_cannot_have_the_managing_controller_reset() {
    let controller = ControllerId::new(9);
    let suspend = |kind| MigrationSend::Suspend { controller, kind, delete_queue: false, uuid_index: 0 };
    for (name, command, resets) in [
        ("Suspend", suspend(SuspendKind::Suspend), false),
        ("its announcement", suspend(SuspendKind::Notification), true),
        ("Resume", MigrationSend::Resume { controller, uuid_index: 0 }, true),
    ] {
        for abandoned in [false, true] {
            bench(&options(Policy::default()), Behaviour::default(), |bench| {
                bench.until("ready");
                let mut call = Call::new();
                call.start(AdminRequest::without_data(&command, SECOND)).unwrap();
                assert!(call.poll(bench.supervisor.admin().unwrap(), bench.now).is_none());
                if abandoned {
                    call.abandon(bench.supervisor.admin().unwrap());
                }
                let end = bench.now.after(2 * SECOND);
                while bench.now < end && bench.ledger.resets.is_empty() {
                    assert_eq!(bench.step(), None, "{name}");
                }
                assert_eq!(!bench.ledger.resets.is_empty(), resets, "{name}, abandoned: {abandoned}");
                if !resets && !abandoned {
                    let told = call.poll(bench.supervisor.admin().unwrap(), bench.now).unwrap();
                    assert_eq!(told.outcome.unwrap_err(), CallError::TimedOut, "{name}");
                }
                while !bench.supervisor.is_ready() {
                    assert_eq!(bench.step(), None, "{name}");
                }
                shut_down(bench)
            });
        }
    }
}

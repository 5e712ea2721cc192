// SPDX-License-Identifier: MIT OR Apache-2.0
//! The signal, the inbox and the run token of the Linux host.

use std::time::Duration;

use loom::model;
use loom::model::Builder;
use loom::sync::Arc;
use loom::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use loom::thread;

use crate::inbox::Inbox;
use crate::sync::{RunToken, Signal};

const NO_LIMIT: Duration = Duration::MAX;

/// Look, then sleep: what comes in between must end the sleep, and what a notifier did before is seen after it.
fn look_and_sleep(model: &Builder, notifiers: u32, times: u32) {
    model.check(move || {
        let shared = Arc::new((Signal::new(), AtomicU32::new(0)));
        let threads: Vec<_> = (0..notifiers)
            .map(|_| {
                let shared = Arc::clone(&shared);
                thread::spawn(move || {
                    for _ in 0..times {
                        shared.1.fetch_add(1, Ordering::Relaxed);
                        shared.0.notify();
                    }
                })
            })
            .collect();
        while shared.1.load(Ordering::Relaxed) < notifiers * times {
            assert!(shared.0.wait(NO_LIMIT), "nothing but a notification ends a wait without a limit");
        }
        for thread in threads {
            thread.join().unwrap();
        }
    });
}

#[test]
fn a_signal_wakes_whoever_looked_before_it() {
    look_and_sleep(&Builder::new(), 1, 2);
}

#[test]
fn signals_of_two_threads_are_not_lost() {
    // Every order with up to two threads interrupted: all of them take minutes.
    let mut model = Builder::new();
    model.preemption_bound = Some(2);
    look_and_sleep(&model, 2, 1);
}

#[test]
fn an_inbox_keeps_every_item_and_the_order_of_each_port() {
    // With room for one item senders wait for each other; with more they do not.
    for room in [1, 2] {
        model(move || {
            let inbox = Arc::new(Inbox::new(room, 1));
            inbox.open(0);
            let theirs = Arc::clone(&inbox);
            let sender = thread::spawn(move || (0..3).all(|item| theirs.submit(0, item)));
            let (mut all, mut taken) = (Vec::new(), Vec::new());
            while all.len() < 3 {
                assert!(inbox.collect(&mut taken, true));
                assert_eq!(taken.len(), 1, "an idle thread wakes for items only, and takes one in a turn");
                all.append(&mut taken);
            }
            assert!(sender.join().unwrap());
            assert_eq!(all, [(0, 0), (0, 1), (0, 2)]);
        });
    }
}

#[test]
fn an_inbox_serves_two_senders() {
    let mut model = Builder::new();
    model.preemption_bound = Some(2);
    model.check(|| {
        let inbox = Arc::new(Inbox::new(1, 1));
        inbox.open(1);
        let senders: Vec<_> = (0..2)
            .map(|port| {
                let inbox = Arc::clone(&inbox);
                thread::spawn(move || assert!(inbox.submit(port, port)))
            })
            .collect();
        let (mut all, mut taken) = (Vec::new(), Vec::new());
        while all.len() < 2 {
            assert!(inbox.collect(&mut taken, true));
            all.append(&mut taken);
        }
        for sender in senders {
            sender.join().unwrap();
        }
        all.sort_unstable();
        assert_eq!(all, [(0, 0), (1, 1)]);
    });
}

#[test]
fn an_idle_thread_stops_and_whoever_waits_for_room_is_sent_away() {
    model(|| {
        let inbox = Arc::new(Inbox::new(1, 1));
        inbox.open(0);
        let (server_inbox, sender_inbox) = (Arc::clone(&inbox), Arc::clone(&inbox));
        let server = thread::spawn(move || {
            let (mut taken, mut count) = (Vec::new(), 0);
            while server_inbox.collect(&mut taken, true) {
                count += taken.drain(..).count();
            }
            server_inbox.end();
            count
        });
        assert!(inbox.submit(0, 1));
        let sender = thread::spawn(move || sender_inbox.submit(0, 2));
        inbox.stop();
        assert!(!inbox.submit(0, 3), "nothing is accepted once stopped");
        let accepted = 1 + usize::from(sender.join().unwrap());
        assert!(server.join().unwrap() <= accepted, "nothing is taken twice");
    });
}

#[test]
fn a_guest_never_runs_between_pause_and_resume() {
    model(|| {
        let shared = Arc::new((RunToken::new(), AtomicBool::new(false)));
        let theirs = Arc::clone(&shared);
        let guest = thread::spawn(move || {
            for _ in 0..2 {
                let running = theirs.0.enter();
                assert!(!theirs.1.load(Ordering::Relaxed), "the guest runs while it is stopped");
                drop(running);
            }
        });
        shared.0.pause();
        shared.1.store(true, Ordering::Relaxed);
        shared.1.store(false, Ordering::Relaxed);
        shared.0.resume();
        guest.join().unwrap();
    });
}

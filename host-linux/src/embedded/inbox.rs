// SPDX-License-Identifier: MIT OR Apache-2.0
//! The inbox of a thread, with a queue for each port: what others leave there, in order and bounded, and the thread's
//! sleep while there is nothing.
//!
//! `tests/loom` compiles this file with `cfg(loom)` and tries every order in which threads can meet here.

use std::collections::VecDeque;
use std::sync::PoisonError;

use crate::sync::lock;
use crate::sync::primitives::{Condvar, Mutex};

#[derive(Debug)]
struct State<T> {
    /// What waits for each port.
    ports: Vec<VecDeque<T>>,
    /// How many items wait in all.
    waiting: usize,
    /// Callers that wait for room.
    blocked: usize,
    /// The thread waits for items.
    sleeping: bool,
    /// The thread is to end.
    stop: bool,
    /// The thread has ended.
    ended: bool,
}

/// Items on their way to one thread.
#[derive(Debug)]
pub(crate) struct Inbox<T> {
    state: Mutex<State<T>>,
    wake: Condvar,
    room: Condvar,
    /// Items that wait for one port, at most.
    most_waiting: usize,
    /// Items of one port in one turn, at most.
    most_taken: usize,
}

impl<T> Inbox<T> {
    /// An empty inbox without ports. Up to `most_waiting` items wait for a port, `most_taken` of them are taken in one
    /// turn; both are at least one.
    pub(crate) fn new(most_waiting: usize, most_taken: usize) -> Self {
        let state =
            State { ports: Vec::new(), waiting: 0, blocked: 0, sleeping: false, stop: false, ended: false };
        Self {
            state: Mutex::new(state),
            wake: Condvar::new(),
            room: Condvar::new(),
            most_waiting,
            most_taken,
        }
    }

    /// Makes the queue of `port`.
    pub(crate) fn open(&self, port: usize) {
        let mut state = lock(&self.state);
        if state.ports.len() <= port {
            state.ports.resize_with(port + 1, VecDeque::new);
        }
    }

    /// Leaves `item` for `port`, which is open; waits while too many are there already. `false` if nobody will look at
    /// it any more.
    pub(crate) fn submit(&self, port: usize, item: T) -> bool {
        let mut state = lock(&self.state);
        loop {
            if state.ended || state.stop {
                return false;
            }
            if state.ports[port].len() < self.most_waiting {
                break;
            }
            state.blocked += 1;
            state = self.room.wait(state).unwrap_or_else(PoisonError::into_inner);
            state.blocked -= 1;
        }
        state.ports[port].push_back(item);
        state.waiting += 1;
        if state.sleeping {
            state.sleeping = false;
            drop(state);
            self.wake.notify_one();
        }
        true
    }

    /// Moves the next items of every port into `into`, which is empty, with the number of the port; waits for some if
    /// `idle`. `false` once stopped.
    pub(crate) fn collect(&self, into: &mut Vec<(usize, T)>, idle: bool) -> bool {
        let mut state = lock(&self.state);
        while idle && state.waiting == 0 && !state.stop {
            state.sleeping = true;
            state = self.wake.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        state.sleeping = false;
        if state.waiting > 0 {
            for (port, items) in state.ports.iter_mut().enumerate() {
                let count = items.len().min(self.most_taken);
                into.extend(items.drain(..count).map(|item| (port, item)));
            }
            state.waiting -= into.len();
            if state.blocked > 0 {
                self.room.notify_all();
            }
        }
        !state.stop
    }

    /// Tells the thread to end, and whoever waits for room that there will be none.
    pub(crate) fn stop(&self) {
        lock(&self.state).stop = true;
        self.wake.notify_one();
        self.room.notify_all();
    }

    /// The thread has ended: what is left is dropped, and nothing is taken any more.
    pub(crate) fn end(&self) {
        let mut state = lock(&self.state);
        state.ended = true;
        state.ports.iter_mut().for_each(VecDeque::clear);
        state.waiting = 0;
        drop(state);
        self.room.notify_all();
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use std::sync::Arc;
    use std::thread;

    const WAITING: usize = 64;
    const TURN: usize = 8;

    fn inbox(ports: usize) -> Arc<Inbox<usize>> {
        let inbox = Arc::new(Inbox::new(WAITING, TURN));
        (0..ports).for_each(|port| inbox.open(port));
        inbox
    }

    #[test]
    fn no_port_keeps_another_one_waiting() {
        let inbox = inbox(3);
        for item in 0..WAITING {
            assert!(inbox.submit(0, item));
        }
        assert!(inbox.submit(2, 7));
        let mut next = 0;
        for turn in 0..WAITING / TURN {
            let mut taken = Vec::new();
            assert!(inbox.collect(&mut taken, true));
            let of = |port| taken.iter().filter(move |(at, _)| *at == port);
            assert_eq!(of(0).count(), TURN, "turn {turn}");
            for (_, item) in of(0) {
                assert_eq!(*item, next, "in order");
                next += 1;
            }
            assert_eq!(of(2).count(), usize::from(turn == 0), "in the first turn, whatever others left");
        }
        assert_eq!(lock(&inbox.state).waiting, 0);
    }

    #[test]
    fn whoever_writes_too_fast_waits_for_room_or_for_the_end() {
        for ends in [false, true] {
            let inbox = inbox(2);
            for item in 0..WAITING {
                assert!(inbox.submit(0, item));
            }
            let theirs = Arc::clone(&inbox);
            let writer = thread::spawn(move || theirs.submit(0, 77));
            while lock(&inbox.state).blocked == 0 {
                thread::yield_now();
            }
            assert_eq!(lock(&inbox.state).ports[0].len(), WAITING);
            assert!(inbox.submit(1, 1), "the other port has room");
            if ends {
                inbox.stop();
            } else {
                assert!(inbox.collect(&mut Vec::new(), false));
            }
            assert_eq!(writer.join().expect("writer"), !ends);
            if !ends {
                assert_eq!(lock(&inbox.state).ports[0].len(), WAITING - TURN + 1);
            }
        }
    }
}

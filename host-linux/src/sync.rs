// SPDX-License-Identifier: MIT OR Apache-2.0
//! Small pieces of thread coordination: locks that survive a panicked holder, a wake-up signal, and the token that
//! stands for a guest's running processor.
//!
//! `tests/loom` compiles this file with `cfg(loom)` and tries every order in which threads can meet here.

use std::sync::PoisonError;
use std::time::{Duration, Instant};

use primitives::{AtomicBool, AtomicU64, Condvar, Mutex, MutexGuard, Ordering};

/// What the operating system gives, or the model that stands for it.
pub(crate) mod primitives {
    #[cfg(loom)]
    pub(crate) use loom::sync::atomic::{AtomicBool, AtomicU64, Ordering};
    #[cfg(loom)]
    pub(crate) use loom::sync::{Condvar, Mutex, MutexGuard};
    #[cfg(not(loom))]
    pub(crate) use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
    #[cfg(not(loom))]
    pub(crate) use std::sync::{Condvar, Mutex, MutexGuard};
}

/// Locks `mutex`. A holder that panicked left consistent data behind in every use in this crate, because each
/// critical section makes its change in one step.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Waits until `condition` no longer holds or `limit` has passed.
#[cfg(not(loom))]
fn wait_while(wake: &Condvar, guard: MutexGuard<'_, ()>, limit: Duration, condition: impl Fn() -> bool) {
    drop(wake.wait_timeout_while(guard, limit, |()| condition()).unwrap_or_else(PoisonError::into_inner));
}

/// Waits until `condition` no longer holds, in the model for ever: it has no time, and a lost wake-up shows as a thread
/// that never goes on.
#[cfg(loom)]
fn wait_while(wake: &Condvar, mut guard: MutexGuard<'_, ()>, _limit: Duration, condition: impl Fn() -> bool) {
    while condition() {
        guard = wake.wait(guard).unwrap_or_else(PoisonError::into_inner);
    }
}

/// A wake-up that is remembered until somebody waits for it. Several notifications before a wait count as one.
#[derive(Debug, Default)]
pub struct Signal {
    pending: AtomicBool,
    sleeping: Mutex<()>,
    wake: Condvar,
}

impl Signal {
    /// A signal with nothing pending.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Wakes the waiter, or makes its next wait return at once.
    pub fn notify(&self) {
        if !self.pending.swap(true, Ordering::AcqRel) {
            drop(lock(&self.sleeping));
            self.wake.notify_all();
        }
    }

    /// Waits for a notification, at most `limit`; `true` if there was one. The notification is used up.
    pub fn wait(&self, limit: Duration) -> bool {
        if self.pending.swap(false, Ordering::AcqRel) {
            return true;
        }
        let guard = lock(&self.sleeping);
        wait_while(&self.wake, guard, limit, || !self.pending.load(Ordering::Acquire));
        self.pending.swap(false, Ordering::AcqRel)
    }
}

/// Stands for the guest's processor: the guest holds the token while it looks at completions, and the platform can
/// take it away.
#[derive(Debug, Default)]
pub struct RunToken {
    /// Set while the platform wants or has the token.
    paused: AtomicBool,
    /// The guest is to reset its controller.
    reset_wanted: AtomicBool,
    /// How often the guest was stopped.
    stops: AtomicU64,
    /// Since when it is stopped.
    since: Mutex<Option<Instant>>,
    /// Microseconds that earlier stops took.
    stopped: AtomicU64,
    running: Mutex<()>,
    resumed: Condvar,
}

/// The guest runs while it holds this.
#[derive(Debug)]
pub struct Running<'a> {
    stops: u64,
    _guard: MutexGuard<'a, ()>,
}

impl Running<'_> {
    /// How often the guest was stopped before.
    #[must_use]
    pub const fn stops(&self) -> u64 {
        self.stops
    }
}

impl RunToken {
    /// A token of a guest that may run.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// How often the guest was stopped.
    pub fn stops(&self) -> u64 {
        self.stops.load(Ordering::Relaxed)
    }

    /// Has the guest reset its controller before it does anything else with it, as the host of a guest does whose
    /// controller failed with no fault of the guest's.
    pub fn want_reset(&self) {
        self.reset_wanted.store(true, Ordering::Release);
    }

    /// Whether the guest is to reset its controller; the wish is used up.
    pub(crate) fn takes_reset(&self) -> bool {
        self.reset_wanted.swap(false, Ordering::AcqRel)
    }

    /// Waits until the guest may run.
    pub fn enter(&self) -> Running<'_> {
        let mut guard = lock(&self.running);
        while self.paused.load(Ordering::Acquire) {
            guard = self.resumed.wait(guard).unwrap_or_else(PoisonError::into_inner);
        }
        Running { stops: self.stops.load(Ordering::Relaxed), _guard: guard }
    }

    /// Stops the guest: returns once it no longer runs. Stopping a stopped guest changes nothing.
    pub fn pause(&self) {
        let before = self.paused.swap(true, Ordering::AcqRel);
        drop(lock(&self.running));
        if !before {
            self.stops.fetch_add(1, Ordering::Relaxed);
            *lock(&self.since) = Some(Instant::now());
        }
    }

    /// How long the guest was stopped in all, stops that have ended. Its time stands still meanwhile.
    pub fn stopped(&self) -> Duration {
        Duration::from_micros(self.stopped.load(Ordering::Relaxed))
    }

    /// Lets the guest go on; without effect if it is not stopped.
    pub fn resume(&self) {
        let guard = lock(&self.running);
        if let Some(since) = lock(&self.since).take() {
            let micros = u64::try_from(since.elapsed().as_micros()).unwrap_or(u64::MAX);
            self.stopped.fetch_add(micros, Ordering::Relaxed);
        }
        self.paused.store(false, Ordering::Release);
        drop(guard);
        self.resumed.notify_all();
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use std::sync::Arc;

    #[test]
    fn a_notification_before_the_wait_is_kept_and_used_once() {
        let signal = Signal::new();
        signal.notify();
        signal.notify();
        assert!(signal.wait(Duration::from_secs(5)));
        assert!(!signal.wait(Duration::from_millis(1)));
    }

    #[test]
    fn notifications_reach_a_sleeping_thread() {
        let signal = Arc::new(Signal::new());
        let other = Arc::clone(&signal);
        let waiter = std::thread::spawn(move || (0..100).all(|_| other.wait(Duration::from_secs(10))));
        while !waiter.is_finished() {
            signal.notify();
            std::thread::yield_now();
        }
        assert!(waiter.join().expect("waiter"));
    }

    #[test]
    fn nothing_runs_between_pause_and_resume() {
        let token = Arc::new(RunToken::new());
        let count = Arc::new(AtomicU64::new(0));
        let enough = Arc::new(AtomicBool::new(false));
        let (their_token, their_count) = (Arc::clone(&token), Arc::clone(&count));
        let their_enough = Arc::clone(&enough);
        let guest = std::thread::spawn(move || {
            while !their_enough.load(Ordering::Relaxed) {
                let _running = their_token.enter();
                their_count.fetch_add(1, Ordering::Relaxed);
            }
        });
        for stop in 1..=20 {
            token.pause();
            token.pause();
            let before = count.load(Ordering::Relaxed);
            std::thread::sleep(Duration::from_millis(1));
            assert_eq!(count.load(Ordering::Relaxed), before, "the guest ran while paused");
            token.resume();
            assert_eq!(token.enter().stops(), stop);
            while count.load(Ordering::Relaxed) == before {
                std::thread::yield_now();
            }
        }
        enough.store(true, Ordering::Relaxed);
        guest.join().expect("guest");
        assert!(token.stopped() >= Duration::from_millis(20), "{:?}", token.stopped());
    }
}

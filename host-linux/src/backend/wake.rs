// SPDX-License-Identifier: MIT OR Apache-2.0
//! What a driver sleeps on until its controller interrupts.

use std::fmt;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use crate::sync::Signal;
use crate::vectors::Vectors;

/// Sleep between two looks without interrupts.
const POLL: Duration = Duration::from_micros(50);
/// How often a pump looks whether it is still wanted.
const LOOK: Duration = Duration::from_millis(20);

/// Something that a driver can sleep on.
pub(crate) trait Sleep: fmt::Debug + Sync {
    /// Sleeps until the controller may have something to say, at most `limit`.
    fn sleep(&self, limit: Duration);
}

impl Sleep for Signal {
    fn sleep(&self, limit: Duration) {
        self.wait(limit);
    }
}

/// How a controller wakes its driver.
#[derive(Clone, Debug)]
pub enum Wake {
    /// By a signal, whatever the vector.
    Signal(Arc<Signal>),
    /// By one eventfd for each vector.
    Vectors(Arc<Vectors>),
    /// Not at all.
    Polling,
}

impl Sleep for Wake {
    fn sleep(&self, limit: Duration) {
        match self {
            Self::Signal(signal) => signal.sleep(limit),
            // A system that cannot wait is polled.
            Self::Vectors(vectors) if vectors.wait_any(limit).is_ok() => {}
            Self::Vectors(_) | Self::Polling => thread::sleep(limit.min(POLL)),
        }
    }
}

/// A thread that hands interrupts on to a signal, so that several controllers can wake one sleeper. Dropping it ends the
/// thread.
#[derive(Debug)]
pub struct Pump {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Pump {
    /// Hands interrupts of `wake` on to `signal`. A controller that does not interrupt notifies it now and then.
    ///
    /// # Errors
    /// The system has no threads left.
    pub fn start(name: &str, wake: Wake, signal: Arc<Signal>) -> io::Result<Self> {
        let stop = Arc::<AtomicBool>::default();
        let stopped = Arc::clone(&stop);
        let thread = thread::Builder::new().name(name.into()).spawn(move || {
            while !stopped.load(Ordering::Relaxed) {
                match &wake {
                    Wake::Signal(from) if !from.wait(LOOK) => continue,
                    Wake::Vectors(vectors) => match vectors.wait_any(LOOK) {
                        Ok(false) => continue,
                        Ok(true) => {}
                        // A system that cannot wait is polled.
                        Err(_) => thread::sleep(POLL),
                    },
                    Wake::Polling => thread::sleep(POLL),
                    _ => {}
                }
                signal.notify();
            }
        })?;
        Ok(Self { stop, thread: Some(thread) })
    }
}

impl Drop for Pump {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pump_hands_every_kind_of_wake_on() {
        let vectors = Arc::new(Vectors::new(3).expect("eventfds"));
        let source = Arc::<Signal>::default();
        let rows: [(&str, Wake, &dyn Fn()); 3] = [
            ("signal", Wake::Signal(Arc::clone(&source)), &|| source.notify()),
            ("vectors", Wake::Vectors(Arc::clone(&vectors)), &|| {
                for (at, descriptor) in vectors.descriptors().enumerate().skip(2) {
                    assert_eq!(rustix::io::write(descriptor, &1_u64.to_ne_bytes()), Ok(8), "vector {at}");
                }
            }),
            ("polling", Wake::Polling, &|| {}),
        ];
        for (name, wake, interrupt) in rows {
            let target = Arc::<Signal>::default();
            let pump = Pump::start("test", wake, Arc::clone(&target)).expect("a thread");
            for round in 0..3 {
                interrupt();
                assert!(target.wait(Duration::from_secs(60)), "{name}, round {round}");
            }
            drop(pump);
        }
    }
}

// SPDX-License-Identifier: MIT OR Apache-2.0
//! MSI-X vectors of a served function, told to the client by eventfd.

use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::sync::{Arc, Mutex};

use nvme_controller::host::Interrupts;
use nvme_core::wire::ControllerId;
use rustix::fs::{CWD, OFlags, fcntl_getfl, fcntl_setfl, readlinkat};
use rustix::io::Errno;

use crate::sync::lock;

/// Entries of the largest table of MSI-X.
const MOST_VECTORS: u16 = 2048;

#[derive(Debug, Default)]
struct Vector {
    eventfd: Option<OwnedFd>,
    /// Came while interrupts were off.
    pending: bool,
}

#[derive(Debug, Default)]
struct State {
    vectors: Vec<Vector>,
    enabled: bool,
}

/// The vectors of one function. Clones are the same vectors.
#[derive(Clone, Debug)]
pub struct InterruptVectors(Arc<Mutex<State>>);

impl InterruptVectors {
    /// `count` vectors, none set up; at most as many as a table of MSI-X has.
    #[must_use]
    pub fn new(count: u16) -> Self {
        let vectors = (0..count.min(MOST_VECTORS)).map(|_| Vector::default()).collect();
        Self(Arc::new(Mutex::new(State { vectors, enabled: false })))
    }

    /// How many there are.
    #[must_use]
    pub fn count(&self) -> u16 {
        // No more than were made.
        lock(&self.0).vectors.len() as u16
    }

    /// Interrupts, now or as soon as interrupts are on.
    pub fn signal(&self, vector: u16) {
        let mut state = lock(&self.0);
        let enabled = state.enabled;
        if let Some(vector) = state.vectors.get_mut(usize::from(vector)) {
            vector.pending = true;
            if enabled {
                vector.fire();
            }
        }
    }

    /// Turns interrupts on or off, as Message Control of MSI-X says.
    pub(super) fn set_enabled(&self, enabled: bool) {
        let mut state = lock(&self.0);
        state.enabled = enabled;
        if enabled {
            state.vectors.iter_mut().filter(|vector| vector.pending).for_each(Vector::fire);
        }
    }

    /// Sets up eventfds for `count` vectors from `start` on, or takes theirs away.
    pub(super) fn assign(&self, start: u32, count: u32, eventfds: Option<Vec<OwnedFd>>) -> Result<(), Errno> {
        if let Some(eventfds) = &eventfds {
            eventfds.iter().try_for_each(check_eventfd)?;
        }
        let mut state = lock(&self.0);
        let mut eventfds = eventfds.into_iter().flatten();
        for vector in range(&mut state, start, count)? {
            vector.eventfd = eventfds.next();
        }
        Ok(())
    }

    /// Interrupts as the client asks: each vector from `start` on whose byte in `chosen` is not zero.
    pub(super) fn trigger(&self, start: u32, chosen: &[u8]) -> Result<(), Errno> {
        let mut state = lock(&self.0);
        let count = u32::try_from(chosen.len()).map_err(|_| Errno::INVAL)?;
        for (vector, chosen) in range(&mut state, start, count)?.iter_mut().zip(chosen) {
            if *chosen != 0 {
                vector.fire();
            }
        }
        Ok(())
    }

    /// Takes all eventfds away. Whether interrupts are on stays as it is.
    pub(super) fn clear(&self) {
        lock(&self.0).vectors.iter_mut().for_each(|vector| *vector = Vector::default());
    }
}

fn range(state: &mut State, start: u32, count: u32) -> Result<&mut [Vector], Errno> {
    let end = start.checked_add(count).ok_or(Errno::INVAL)?;
    state.vectors.get_mut(start as usize..end as usize).ok_or(Errno::INVAL)
}

/// Refuses what is no eventfd: a write to anything else may take as long as its owner likes. One that makes writers
/// wait while it is full is changed not to.
pub(super) fn check_eventfd(descriptor: &OwnedFd) -> Result<(), Errno> {
    let path = format!("/proc/self/fd/{}", descriptor.as_raw_fd());
    let name = readlinkat(CWD, path, Vec::new()).map_err(|_| Errno::INVAL)?;
    if name.as_bytes() != b"anon_inode:[eventfd]" {
        return Err(Errno::INVAL);
    }
    let flags = fcntl_getfl(descriptor)?;
    if flags.contains(OFlags::NONBLOCK) { Ok(()) } else { fcntl_setfl(descriptor, flags | OFlags::NONBLOCK) }
}

impl Vector {
    fn fire(&mut self) {
        self.pending = false;
        if let Some(eventfd) = &self.eventfd {
            // It is full only if it was signalled more often than anybody can count.
            let _ = rustix::io::write(eventfd.as_fd(), &1u64.to_ne_bytes());
        }
    }
}

/// The vectors of all functions of a subsystem.
#[derive(Debug)]
pub struct FunctionInterrupts(Vec<(ControllerId, InterruptVectors)>);

impl FunctionInterrupts {
    /// The vectors of each controller.
    #[must_use]
    pub const fn new(functions: Vec<(ControllerId, InterruptVectors)>) -> Self {
        Self(functions)
    }
}

impl Interrupts for FunctionInterrupts {
    fn interrupt(&self, controller: ControllerId, vector: u16) {
        if let Some((_, vectors)) = self.0.iter().find(|(id, _)| *id == controller) {
            vectors.signal(vector);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::event::{EventfdFlags, eventfd};

    fn count(eventfd: &OwnedFd) -> u64 {
        let mut bytes = [0; 8];
        rustix::io::read(eventfd, &mut bytes).map_or(0, |_| u64::from_ne_bytes(bytes))
    }

    #[test]
    fn vectors_fire_while_on_and_what_came_before_is_not_lost() {
        let vectors = InterruptVectors::new(4);
        let fds: Vec<OwnedFd> = (0..2).map(|_| eventfd(0, EventfdFlags::empty()).expect("eventfd")).collect();
        let theirs = fds.iter().map(|fd| fd.try_clone().expect("a descriptor")).collect();
        vectors.assign(1, 2, Some(theirs)).expect("assigned");
        vectors.signal(1);
        vectors.signal(1);
        assert_eq!(count(&fds[0]), 0, "off; and nobody waits for the eventfd any more");
        vectors.set_enabled(true);
        assert_eq!(count(&fds[0]), 1);
        vectors.signal(2);
        vectors.signal(2);
        vectors.signal(3);
        vectors.signal(77);
        assert_eq!((count(&fds[0]), count(&fds[1])), (0, 2));
        vectors.trigger(0, &[1, 1, 0]).expect("in range");
        assert_eq!((count(&fds[0]), count(&fds[1])), (1, 0));
        vectors.assign(2, 1, None).expect("taken away");
        vectors.signal(2);
        assert_eq!(count(&fds[1]), 0);
        vectors.clear();
        vectors.signal(1);
        assert_eq!(count(&fds[0]), 0);
    }

    #[test]
    fn what_is_no_vector_and_no_eventfd_is_refused() {
        let vectors = InterruptVectors::new(4);
        let fd = || eventfd(0, EventfdFlags::empty()).expect("eventfd");
        assert_eq!(vectors.assign(3, 2, Some(vec![fd(), fd()])), Err(Errno::INVAL));
        assert_eq!(vectors.assign(u32::MAX, 2, None), Err(Errno::INVAL));
        assert_eq!(vectors.trigger(4, &[1]), Err(Errno::INVAL));
        let (_reader, writer) = std::io::pipe().expect("a pipe");
        assert_eq!(vectors.assign(0, 1, Some(vec![writer.into()])), Err(Errno::INVAL));
        assert_eq!(InterruptVectors::new(u16::MAX).count(), MOST_VECTORS);
    }
}

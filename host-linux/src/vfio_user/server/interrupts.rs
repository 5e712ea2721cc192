// SPDX-License-Identifier: MIT OR Apache-2.0
//! MSI-X vectors of a served function, told to the client by eventfd.

use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::sync::{Arc, Mutex};

use nvme_controller::host::Interrupts;
use nvme_core::wire::ControllerId;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{CWD, OFlags, fcntl_getfl, fcntl_setfl, readlinkat};
use rustix::io::Errno;

use crate::sync::lock;

/// Entries of the largest table of MSI-X.
const MOST_VECTORS: u16 = 2048;

#[derive(Debug, Default)]
struct Vector {
    eventfd: Option<OwnedFd>,
    /// Came while interrupts were off, or while there was no eventfd.
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
        let enabled = state.enabled;
        for vector in range(&mut state, start, count)? {
            vector.eventfd = eventfds.next();
            if enabled && vector.pending {
                vector.fire();
            }
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

    /// Takes all eventfds away. Whether interrupts are on stays as it is, and so does what waits to be told.
    pub(super) fn clear(&self) {
        lock(&self.0).vectors.iter_mut().for_each(|vector| vector.eventfd = None);
    }

    /// Forgets what waits to be told.
    pub(super) fn forget(&self) {
        lock(&self.0).vectors.iter_mut().for_each(|vector| vector.pending = false);
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
        let Some(eventfd) = &self.eventfd else {
            self.pending = true;
            return;
        };
        self.pending = false;
        // Its client has the same file and may have filled it and made its writers wait. A signal that finds no room is
        // not needed, because what is full has not been read.
        let mut room = [PollFd::new(eventfd, PollFlags::OUT)];
        let now = Timespec { tv_sec: 0, tv_nsec: 0 };
        if poll(&mut room, Some(&now)) == Ok(1) && room[0].revents().contains(PollFlags::OUT) {
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
        // What came while there was no eventfd is told to the next one, unless it was forgotten.
        let again = |at: usize| fds[at].try_clone().expect("a descriptor");
        vectors.assign(1, 2, Some(vec![again(0), again(1)])).expect("assigned");
        assert_eq!((count(&fds[0]), count(&fds[1])), (1, 1));
        vectors.set_enabled(false);
        vectors.signal(1);
        vectors.forget();
        vectors.set_enabled(true);
        assert_eq!(count(&fds[0]), 0);
    }

    #[test]
    fn an_eventfd_that_its_client_filled_stops_nobody() {
        let vectors = InterruptVectors::new(1);
        let fd = eventfd(0, EventfdFlags::empty()).expect("eventfd");
        vectors.assign(0, 1, Some(vec![fd.try_clone().expect("a descriptor")])).expect("assigned");
        vectors.set_enabled(true);
        let flags = fcntl_getfl(&fd).expect("flags");
        fcntl_setfl(&fd, flags - OFlags::NONBLOCK).expect("writers wait again");
        rustix::io::write(&fd, &(u64::MAX - 1).to_ne_bytes()).expect("filled");
        vectors.signal(0);
        assert_eq!(count(&fd), u64::MAX - 1);
        vectors.signal(0);
        assert_eq!(count(&fd), 1);
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

// SPDX-License-Identifier: MIT OR Apache-2.0
//! Interrupt vectors as eventfds, whichever back end signals them.

use std::io::{self, IoSliceMut};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll};
use rustix::io::{Errno, ReadWriteFlags, preadv2};

/// Interrupt vectors as eventfds, one for each.
#[derive(Debug)]
pub struct Vectors {
    descriptors: Vec<OwnedFd>,
}

impl Vectors {
    /// Makes eventfds for the first `count` vectors.
    pub(crate) fn new(count: u16) -> Result<Self, Errno> {
        let flags = EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK;
        let descriptors: Result<Vec<OwnedFd>, Errno> = (0..count).map(|_| eventfd(0, flags)).collect();
        Ok(Self { descriptors: descriptors? })
    }

    /// How often `vector` was signalled since it was last asked; zero for one that is not set up.
    #[must_use]
    pub fn take(&self, vector: u16) -> u64 {
        let mut count = [0; 8];
        // Whoever signals has the same file and may have made its readers wait: this one does not, whatever the file says.
        let mut read = |fd| preadv2(fd, &mut [IoSliceMut::new(&mut count)], u64::MAX, ReadWriteFlags::NOWAIT);
        let Some(descriptor) = self.descriptors.get(usize::from(vector)) else { return 0 };
        let found = match read(descriptor) {
            // A kernel before 5.8: one that was signalled can be read at once, unless whoever else has it reads it just then.
            Err(Errno::OPNOTSUPP) => {
                let signalled = wait(&mut [PollFd::new(descriptor, PollFlags::IN)], Duration::ZERO);
                if signalled.unwrap_or(false) { rustix::io::read(descriptor, &mut count) } else { Ok(0) }
            }
            found => found,
        };
        // Nothing to read means that it was not signalled.
        if found == Ok(count.len()) { u64::from_ne_bytes(count) } else { 0 }
    }

    /// Waits until `vector` is signalled, at most `limit`; `false` if it was not, at once for one that is not set up.
    ///
    /// # Errors
    /// The system cannot wait.
    pub fn wait(&self, vector: u16, limit: Duration) -> io::Result<bool> {
        let Some(descriptor) = self.descriptors.get(usize::from(vector)) else { return Ok(false) };
        wait(&mut [PollFd::new(descriptor, PollFlags::IN)], limit)
    }

    /// Waits until any vector is signalled, at most `limit`, and takes all signals; `false` if there was none.
    ///
    /// # Errors
    /// The system cannot wait.
    pub fn wait_any(&self, limit: Duration) -> io::Result<bool> {
        let mut files: Vec<_> =
            self.descriptors.iter().map(|file| PollFd::new(file, PollFlags::IN)).collect();
        let signalled = wait(&mut files, limit)?;
        for vector in (0..).take(self.descriptors.len()) {
            let _ = self.take(vector);
        }
        Ok(signalled)
    }

    /// The eventfds, in the order of their vectors.
    pub fn descriptors(&self) -> impl ExactSizeIterator<Item = BorrowedFd<'_>> {
        self.descriptors.iter().map(AsFd::as_fd)
    }
}

/// Waits until one of the files can be read, at most `limit`; `false` if none can.
fn wait(files: &mut [PollFd<'_>], limit: Duration) -> io::Result<bool> {
    // A limit that no clock reaches is as good as a year.
    const FAR: Duration = Duration::from_secs(365 * 24 * 3600);
    let start = Instant::now();
    let deadline = start.checked_add(limit).unwrap_or(start + FAR);
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        let timeout = Timespec {
            tv_sec: i64::try_from(left.as_secs()).unwrap_or(i64::MAX),
            tv_nsec: left.subsec_nanos().into(),
        };
        match poll(files, Some(&timeout)) {
            Ok(0) if left.is_zero() => return Ok(false),
            Ok(0) | Err(Errno::INTR) => {}
            Ok(_) => return Ok(true),
            Err(error) => return Err(error.into()),
        }
    }
}

// SPDX-License-Identifier: MIT OR Apache-2.0
//! Standard output, which its reader may close at any time.

use std::io::{self, Write};
use std::sync::atomic::{AtomicBool, Ordering};

/// Writes to standard output. Once nobody reads it any more, what is written goes nowhere and is no error: results that
/// nobody wants change neither what a command does nor how it ends.
#[derive(Debug)]
pub(crate) struct Stdout<'a, W> {
    to: W,
    /// Nobody reads it any more.
    closed: &'a AtomicBool,
}

impl<'a, W: Write> Stdout<'a, W> {
    /// Writes to `to`, and sets `closed` when that has no reader.
    pub(crate) const fn new(to: W, closed: &'a AtomicBool) -> Self {
        Self { to, closed }
    }

    fn unless_closed<T>(&mut self, nothing: T, work: impl FnOnce(&mut W) -> io::Result<T>) -> io::Result<T> {
        if self.closed.load(Ordering::Relaxed) {
            return Ok(nothing);
        }
        match work(&mut self.to) {
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => {
                self.closed.store(true, Ordering::Relaxed);
                Ok(nothing)
            }
            result => result,
        }
    }
}

impl<W: Write> Write for Stdout<'_, W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.unless_closed(bytes.len(), |to| to.write(bytes))
    }

    fn write_all(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.unless_closed((), |to| to.write_all(bytes))
    }

    fn flush(&mut self) -> io::Result<()> {
        self.unless_closed((), Write::flush)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Fails with this error, and counts how often it was asked.
    struct Fails(io::ErrorKind, usize);

    impl Write for Fails {
        fn write(&mut self, _: &[u8]) -> io::Result<usize> {
            self.1 += 1;
            Err(self.0.into())
        }

        fn flush(&mut self) -> io::Result<()> {
            self.1 += 1;
            Err(self.0.into())
        }
    }

    #[test]
    fn only_a_reader_who_is_gone_is_no_error() {
        let rows = [
            ("the reader is gone", io::ErrorKind::BrokenPipe, Ok(()), true, 1),
            ("the disk is full", io::ErrorKind::StorageFull, Err(io::ErrorKind::StorageFull), false, 3),
        ];
        for (name, kind, expected, is_closed, asked) in rows {
            let closed = AtomicBool::new(false);
            let mut stdout = Stdout::new(Fails(kind, 0), &closed);
            assert_eq!(stdout.write_all(b"bytes").map_err(|error| error.kind()), expected, "{name}");
            let written = stdout.write(b"bytes").map_err(|error| error.kind());
            assert_eq!(written, expected.map(|()| 5), "{name}");
            assert_eq!(stdout.flush().map_err(|error| error.kind()), expected, "{name}");
            assert_eq!((closed.load(Ordering::Relaxed), stdout.to.1), (is_closed, asked), "{name}");
        }
    }
}

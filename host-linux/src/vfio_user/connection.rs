// SPDX-License-Identifier: MIT OR Apache-2.0
//! The client's end of a connection: one command after the other, each with a reply that is checked.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::event::PollFlags;
use rustix::io::Errno;
use rustix::net::{
    AddressFamily, Shutdown, SocketAddrUnix, SocketFlags, SocketType, connect, shutdown, socket_with,
};

use super::capabilities::{Capabilities, MOST_TRANSFER};
use super::error::Error;
use super::socket::{Broken, Message, Receiver, after, send, wait};
use super::wire::{Access, Command, ERROR, HEADER, Header, NO_REPLY, REPLY, TYPE, Version};

/// Bytes of a payload that a reply may have.
const MOST_PAYLOAD: usize = MOST_TRANSFER as usize + Access::LEN;
/// Between two attempts to reach a server whose queue of connections is full.
const RETRY: Duration = Duration::from_millis(5);

/// What a reply may look like.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Expected {
    /// Bytes of payload, at least.
    pub(crate) least: usize,
    /// Bytes of payload, at most.
    pub(crate) most: usize,
    /// Whether descriptors may come with it; their number is up to the caller then.
    pub(crate) descriptors: bool,
}

impl Expected {
    /// A payload of exactly `len` bytes.
    pub(crate) const fn bytes(len: usize) -> Self {
        Self { least: len, most: len, descriptors: false }
    }
}

/// A connection after the versions were agreed on.
#[derive(Debug)]
pub(crate) struct Connection {
    socket: OwnedFd,
    receiver: Receiver,
    next: u16,
    timeout: Duration,
    /// What the server takes.
    pub(crate) server: Capabilities,
    failure: Option<Error>,
}

impl Connection {
    /// Connects to the server at `path` and agrees on a version; each wait takes at most `timeout`.
    pub(crate) fn open(path: &Path, timeout: Duration) -> Result<Self, Error> {
        let mut connection = Self {
            socket: reach(path, after(Instant::now(), timeout))?,
            receiver: Receiver::new(MOST_PAYLOAD),
            next: 0,
            timeout,
            server: Capabilities::default(),
            failure: None,
        };
        connection.agree()?;
        Ok(connection)
    }

    fn agree(&mut self) -> Result<(), Error> {
        let command = Command::VERSION;
        let mut body = Version { major: 0, minor: 1 }.bytes();
        body.extend(Capabilities::ours(Capabilities::default().maps).bytes());
        let expected = Expected { least: Version::LEN, most: MOST_PAYLOAD, descriptors: false };
        let reply = self.request(command, &body, &[], expected)?;
        let Some(version) = Version::parse(&reply.body) else { return Err(Error::Closed) };
        if version.major != 0 || version.minor > 1 {
            return Err(self.give_up(Error::Version { major: version.major, minor: version.minor }));
        }
        let data = reply.body.get(Version::LEN..).unwrap_or_default();
        self.server = Capabilities::parse(data).map_err(|what| self.give_up(Error::Capabilities(what)))?;
        Ok(())
    }

    /// What ended the connection, if anything has.
    pub(crate) const fn failure(&self) -> Option<Error> {
        self.failure
    }

    /// Ends the connection because of `error`, unless it has ended before.
    pub(crate) fn give_up(&mut self, error: Error) -> Error {
        if self.failure.is_none() {
            self.failure = Some(error);
            // The server learns of it at once; if this fails there is nobody to tell.
            let _ = shutdown(&self.socket, Shutdown::Both);
        }
        error
    }

    /// Sends a command and waits for its reply.
    pub(crate) fn request(
        &mut self,
        command: Command,
        body: &[u8],
        descriptors: &[BorrowedFd<'_>],
        expected: Expected,
    ) -> Result<Message, Error> {
        self.request_within(self.timeout, command, body, descriptors, expected)
    }

    /// As [`request`](Self::request), for a command that may take longer.
    pub(crate) fn request_within(
        &mut self,
        timeout: Duration,
        command: Command,
        body: &[u8],
        descriptors: &[BorrowedFd<'_>],
        expected: Expected,
    ) -> Result<Message, Error> {
        if self.failure.is_some() {
            return Err(Error::GivenUp);
        }
        let deadline = after(Instant::now(), timeout);
        let id = self.next;
        self.next = id.wrapping_add(1);
        let result = self
            .send_message(command, (id, 0, 0), body, descriptors, deadline)
            .and_then(|()| self.await_reply(command, id, expected, deadline));
        result.map_err(|error| if error.ends_connection() { self.give_up(error) } else { error })
    }

    /// Tells that a reply does not fit its command.
    pub(crate) fn wrong(
        &mut self,
        command: Command,
        field: &'static str,
        expected: impl Into<u64>,
        found: impl Into<u64>,
    ) -> Error {
        self.give_up(Error::Field { command, field, expected: expected.into(), found: found.into() })
    }

    fn send_message(
        &self,
        command: Command,
        (id, flags, error): (u16, u32, u32),
        body: &[u8],
        descriptors: &[BorrowedFd<'_>],
        deadline: Instant,
    ) -> Result<(), Error> {
        let size = u32::try_from(HEADER + body.len()).unwrap_or(u32::MAX);
        let mut bytes = Header { id, command: command.0, size, flags, error }.bytes();
        bytes.extend_from_slice(body);
        let mut rest = bytes.as_slice();
        while !rest.is_empty() {
            let fds = if rest.len() == bytes.len() { descriptors } else { &[] };
            match send(self.socket.as_fd(), rest, fds) {
                Ok(Some(count)) => rest = rest.get(count..).unwrap_or_default(),
                Ok(None) => self.ready(PollFlags::OUT, command, deadline)?,
                Err(Errno::PIPE | Errno::CONNRESET) => return Err(Error::Closed),
                Err(error) => return Err(Error::system("sending to the server", error)),
            }
        }
        Ok(())
    }

    fn ready(&self, what: PollFlags, command: Command, deadline: Instant) -> Result<(), Error> {
        match wait(self.socket.as_fd(), what, deadline) {
            Ok(true) => Ok(()),
            Ok(false) => Err(Error::TimedOut(command)),
            Err(error) => Err(Error::system("waiting for the server", error)),
        }
    }

    fn await_reply(
        &mut self,
        command: Command,
        id: u16,
        expected: Expected,
        deadline: Instant,
    ) -> Result<Message, Error> {
        loop {
            let message = match self.receiver.take(self.socket.as_fd()) {
                Ok(Some(message)) => message,
                Ok(None) => {
                    self.ready(PollFlags::IN, command, deadline)?;
                    continue;
                }
                Err(broken) => return Err(explain(broken, command)),
            };
            let header = message.header;
            if header.flags & !NO_REPLY == 0 {
                // A command of the server: all memory was sent as descriptors, so that it needs none.
                if header.flags & NO_REPLY == 0 {
                    let answer = (header.id, REPLY | ERROR, Errno::OPNOTSUPP.raw_os_error() as u32);
                    self.send_message(Command(header.command), answer, &[], &[], deadline)?;
                }
                if Instant::now() >= deadline {
                    return Err(Error::TimedOut(command));
                }
                continue;
            }
            if header.flags & TYPE != REPLY || header.flags & !(TYPE | ERROR) != 0 {
                return Err(Error::Flags(header.flags));
            }
            if header.id != id {
                return Err(Error::Identifier { expected: id, found: header.id });
            }
            if header.command != command.0 {
                return Err(Error::WrongCommand { expected: command, found: Command(header.command) });
            }
            if header.flags & ERROR != 0 {
                return Err(Error::Refused(command, header.error));
            }
            let len = message.body.len();
            if !(expected.least..=expected.most).contains(&len) {
                let (least, most) = (HEADER + expected.least, HEADER + expected.most);
                return Err(Error::Size { command, found: HEADER + len, least, most });
            }
            let found = message.descriptors.len();
            if found != 0 && !expected.descriptors {
                return Err(Error::Descriptors { command, expected: 0, found });
            }
            return Ok(message);
        }
    }
}

fn explain(broken: Broken, command: Command) -> Error {
    match broken {
        Broken::System(error) => Error::system("receiving from the server", error),
        Broken::Closed => Error::Closed,
        Broken::ClosedInside { received, expected } => Error::ClosedInside { received, expected },
        Broken::Size { header, most } => {
            Error::Size { command, found: header.size as usize, least: HEADER, most }
        }
        Broken::Descriptors => Error::Descriptors {
            command,
            expected: super::socket::MOST_DESCRIPTORS,
            found: super::socket::MOST_DESCRIPTORS + 1,
        },
    }
}

/// Connects to the socket at `path`.
fn reach(path: &Path, deadline: Instant) -> Result<OwnedFd, Error> {
    const WHAT: &str = "connecting to the server";
    let system = |error| Error::system(WHAT, error);
    let address = SocketAddrUnix::new(path).map_err(system)?;
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None).map_err(system)?;
    loop {
        match connect(&socket, &address) {
            Ok(()) => return Ok(socket),
            Err(Errno::INTR) => {}
            // Others wait for the server already.
            Err(Errno::AGAIN) if Instant::now() < deadline => std::thread::sleep(RETRY),
            Err(error) => return Err(system(error)),
        }
    }
}

// SPDX-License-Identifier: MIT OR Apache-2.0
//! The server's end of a connection: messages in, replies out, and nothing of it waits for the client.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use rustix::event::PollFlags;
use rustix::io::Errno;

use super::super::capabilities::MOST_TRANSFER;
use super::super::socket::{Message, Receiver, after, send};
use super::super::wire::{Access, ERROR, HEADER, Header, REPLY};

/// Bytes of a payload that a command may have.
const MOST_PAYLOAD: usize = MOST_TRANSFER as usize + Access::LEN;

/// The connection has ended, or has to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Ended;

/// What is sent for a command that was carried out.
#[derive(Debug, Default)]
pub(super) struct Answer {
    pub(super) body: Vec<u8>,
    /// The function's file of doorbells goes with it.
    pub(super) with_doorbells: bool,
}

/// One client.
#[derive(Debug)]
pub(super) struct Session {
    socket: OwnedFd,
    receiver: Receiver,
    /// The reply on its way; no command is taken before it has gone.
    out: Vec<u8>,
    sent: usize,
    with_doorbells: bool,
    /// The version was agreed on.
    pub(super) agreed: bool,
    /// The client has to have got further by then.
    deadline: Option<Instant>,
}

impl Session {
    pub(super) const fn new(socket: OwnedFd) -> Self {
        Self {
            socket,
            receiver: Receiver::new(MOST_PAYLOAD),
            out: Vec::new(),
            sent: 0,
            with_doorbells: false,
            agreed: false,
            deadline: None,
        }
    }

    /// The next command; `None` if none has arrived as a whole.
    pub(super) fn take(&mut self) -> Result<Option<Message>, Ended> {
        let message = self.receiver.take(self.socket.as_fd()).map_err(|_| Ended)?;
        if message.is_some() {
            self.deadline = None;
        }
        Ok(message)
    }

    /// Puts a reply on its way. The one before has gone.
    pub(super) fn reply(&mut self, to: &Header, answer: Result<Answer, Errno>) {
        let (answer, error) = match answer {
            Ok(answer) => (answer, 0),
            Err(error) => (Answer::default(), error.raw_os_error() as u32),
        };
        let flags = if error == 0 { REPLY } else { REPLY | ERROR };
        let size = (HEADER + answer.body.len()) as u32;
        self.out.clear();
        Header { id: to.id, command: to.command, size, flags, error }.put(&mut self.out);
        self.out.extend_from_slice(&answer.body);
        self.sent = 0;
        self.with_doorbells = answer.with_doorbells;
    }

    /// Sends what the socket takes; `false` if something is left.
    pub(super) fn flush(&mut self, doorbells: BorrowedFd<'_>) -> Result<bool, Ended> {
        while let Some(rest) = self.out.get(self.sent..).filter(|rest| !rest.is_empty()) {
            let descriptors: &[BorrowedFd<'_>] =
                if self.with_doorbells && self.sent == 0 { &[doorbells] } else { &[] };
            match send(self.socket.as_fd(), rest, descriptors) {
                Ok(Some(count)) => self.sent += count,
                Ok(None) => return Ok(false),
                Err(_) => return Err(Ended),
            }
        }
        if !self.out.is_empty() {
            // What the client begins next has time of its own.
            self.deadline = None;
        }
        self.out.clear();
        self.sent = 0;
        Ok(true)
    }

    /// Whether the client has taken longer than `limit` for what it has begun.
    pub(super) fn is_overdue(&mut self, now: Instant, limit: Duration) -> bool {
        if self.agreed && self.out.is_empty() && self.receiver.is_between_messages() {
            self.deadline = None;
            return false;
        }
        now >= *self.deadline.get_or_insert(after(now, limit))
    }

    /// When it will be overdue.
    pub(super) const fn deadline(&self) -> Option<Instant> {
        self.deadline
    }

    /// What to wait for.
    pub(super) fn awaits(&self) -> (BorrowedFd<'_>, PollFlags) {
        (self.socket.as_fd(), if self.out.is_empty() { PollFlags::IN } else { PollFlags::OUT })
    }
}

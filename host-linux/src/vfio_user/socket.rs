// SPDX-License-Identifier: MIT OR Apache-2.0
//! Whole messages over a stream socket, with the descriptors that come with them.
//!
//! Nothing here waits: both sides call again once the socket is ready, and decide themselves how long that may take.
//! Memory for a message grows with what has arrived of it, never with what its header says.

use std::io::{IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, recvmsg, sendmsg,
};

use super::wire::{HEADER, Header};

/// Descriptors in one message, at most. Some clients (QEMU) know no server that takes more.
pub(crate) const MOST_DESCRIPTORS: usize = 16;
/// Bytes asked of the system at once.
const PIECE: usize = 16 << 10;

/// A message that has arrived as a whole.
#[derive(Debug)]
pub(crate) struct Message {
    pub(crate) header: Header,
    pub(crate) body: Vec<u8>,
    pub(crate) descriptors: Vec<OwnedFd>,
}

/// Why no message can be had any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Broken {
    /// The system says so.
    System(Errno),
    /// The peer has closed the connection after a whole message.
    Closed,
    /// The peer has closed the connection inside a message.
    ClosedInside { received: usize, expected: usize },
    /// A header says that its message is shorter than a header or longer than is possible.
    Size { header: Header, most: usize },
    /// More descriptors than one message can have.
    Descriptors,
}

/// One message after the other.
#[derive(Debug)]
pub(crate) struct Receiver {
    head: [u8; HEADER],
    filled: usize,
    body: Vec<u8>,
    descriptors: Vec<OwnedFd>,
    /// Bytes of a payload, at most.
    most: usize,
}

impl Receiver {
    /// Takes messages with payloads of up to `most` bytes.
    pub(crate) const fn new(most: usize) -> Self {
        Self { head: [0; HEADER], filled: 0, body: Vec::new(), descriptors: Vec::new(), most }
    }

    /// Whether nothing of the next message has arrived.
    pub(crate) const fn is_between_messages(&self) -> bool {
        self.filled == 0
    }

    fn inside(&self, expected: usize) -> Broken {
        match self.filled + self.body.len() {
            0 => Broken::Closed,
            received => Broken::ClosedInside { received, expected },
        }
    }

    /// Takes what has arrived: the next message, or `None` if it is not complete.
    pub(crate) fn take(&mut self, socket: BorrowedFd<'_>) -> Result<Option<Message>, Broken> {
        while self.filled < HEADER {
            let mut head = self.head;
            let room = head.get_mut(self.filled..).unwrap_or_default();
            let Some(count) = receive(socket, room, &mut self.descriptors)? else { return Ok(None) };
            if count == 0 {
                return Err(self.inside(HEADER));
            }
            self.head = head;
            self.filled += count;
        }
        let Some(header) = Header::parse(&self.head) else { return Ok(None) };
        let size = header.size as usize;
        let len = size.checked_sub(HEADER).filter(|len| *len <= self.most);
        let len = len.ok_or(Broken::Size { header, most: HEADER + self.most })?;
        while self.body.len() < len {
            let mut piece = [0; PIECE];
            let room = piece.get_mut(..(len - self.body.len()).min(PIECE)).unwrap_or_default();
            let Some(count) = receive(socket, room, &mut self.descriptors)? else { return Ok(None) };
            if count == 0 {
                return Err(self.inside(size));
            }
            self.body.extend_from_slice(room.get(..count).unwrap_or_default());
        }
        self.filled = 0;
        Ok(Some(Message {
            header,
            body: std::mem::take(&mut self.body),
            descriptors: std::mem::take(&mut self.descriptors),
        }))
    }
}

/// Receives into `bytes`; `None` if nothing is there, zero at the end of the stream.
fn receive(
    socket: BorrowedFd<'_>,
    bytes: &mut [u8],
    descriptors: &mut Vec<OwnedFd>,
) -> Result<Option<usize>, Broken> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MOST_DESCRIPTORS))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let flags = RecvFlags::DONTWAIT | RecvFlags::CMSG_CLOEXEC;
    let received = loop {
        match recvmsg(socket, &mut [IoSliceMut::new(bytes)], &mut control, flags) {
            Err(Errno::INTR) => {}
            Err(Errno::AGAIN) => return Ok(None),
            // The peer is gone without having read everything.
            Err(Errno::CONNRESET) => break Ok(0),
            Err(error) => break Err(Broken::System(error)),
            Ok(received) if received.flags.contains(ReturnFlags::CTRUNC) => break Err(Broken::Descriptors),
            Ok(received) => break Ok(received.bytes),
        }
    };
    // Those that are too many are closed here.
    for message in control.drain() {
        if let RecvAncillaryMessage::ScmRights(rights) = message {
            descriptors.extend(rights);
        }
    }
    let received = received?;
    if descriptors.len() > MOST_DESCRIPTORS {
        return Err(Broken::Descriptors);
    }
    Ok(Some(received))
}

/// Sends the start of `bytes`, with `descriptors` if there are any, and returns how many bytes have gone; `None` if the
/// socket takes none now.
pub(crate) fn send(
    socket: BorrowedFd<'_>,
    bytes: &[u8],
    descriptors: &[BorrowedFd<'_>],
) -> Result<Option<usize>, Errno> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MOST_DESCRIPTORS))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if !descriptors.is_empty() && !control.push(SendAncillaryMessage::ScmRights(descriptors)) {
        return Err(Errno::TOOBIG);
    }
    loop {
        let flags = SendFlags::DONTWAIT | SendFlags::NOSIGNAL;
        match sendmsg(socket, &[IoSlice::new(bytes)], &mut control, flags) {
            Err(Errno::INTR) => {}
            Err(Errno::AGAIN) => return Ok(None),
            Err(error) => return Err(error),
            Ok(count) => return Ok(Some(count)),
        }
    }
}

/// `duration` as the system takes it.
pub(crate) fn timespec(duration: Duration) -> Timespec {
    Timespec {
        tv_sec: i64::try_from(duration.as_secs()).unwrap_or(i64::MAX),
        tv_nsec: i64::from(duration.subsec_nanos()),
    }
}

/// Waits until `socket` is ready for `what` or has ended, at most until `deadline`; `false` if it is not ready then.
pub(crate) fn wait(socket: BorrowedFd<'_>, what: PollFlags, deadline: Instant) -> Result<bool, Errno> {
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        match poll(&mut [PollFd::from_borrowed_fd(socket, what)], Some(&timespec(left))) {
            Err(Errno::INTR) => {}
            Err(error) => return Err(error),
            Ok(0) if left.is_zero() => return Ok(false),
            Ok(0) => {}
            Ok(_) => return Ok(true),
        }
    }
}

/// The time `limit` after `now`; one that no clock reaches is far away.
pub(super) fn after(now: Instant, limit: Duration) -> Instant {
    const FAR: Duration = Duration::from_secs(365 * 24 * 3600);
    now.checked_add(limit).unwrap_or(now + FAR)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;
    use std::os::fd::AsFd;
    use std::os::unix::net::UnixStream;

    fn pair() -> (UnixStream, UnixStream, Receiver) {
        let (ours, theirs) = UnixStream::pair().expect("sockets");
        (ours, theirs, Receiver::new(100))
    }

    fn message(len: u32) -> Vec<u8> {
        let header = Header { id: 7, command: 3, size: 16 + len, ..Header::default() };
        let mut bytes = header.bytes();
        bytes.extend((0..len).map(|byte| byte as u8));
        bytes
    }

    #[test]
    fn messages_come_whole_however_they_are_cut() {
        for cut in 1..60 {
            let (ours, mut theirs, mut receiver) = pair();
            let bytes = [message(20), message(0), message(4)].concat();
            let mut found = Vec::new();
            for piece in bytes.chunks(cut) {
                theirs.write_all(piece).expect("written");
                while let Some(message) = receiver.take(ours.as_fd()).expect("a message or none") {
                    found.push(message.body);
                }
            }
            let lengths: Vec<usize> = found.iter().map(Vec::len).collect();
            assert_eq!(lengths, [20, 0, 4], "cut every {cut} bytes");
            assert!(receiver.is_between_messages());
        }
    }

    #[test]
    fn the_end_of_the_stream_is_told_apart() {
        let size = |size| Broken::Size { header: Header { size, ..Header::default() }, most: 116 };
        let header = |size| Header { size, ..Header::default() }.bytes();
        let rows: [(&str, Vec<u8>, Broken); 6] = [
            ("between messages", vec![], Broken::Closed),
            ("in a header", message(4)[..9].to_vec(), Broken::ClosedInside { received: 9, expected: 16 }),
            (
                "after a header",
                message(4)[..16].to_vec(),
                Broken::ClosedInside { received: 16, expected: 20 },
            ),
            ("in a payload", message(40)[..30].to_vec(), Broken::ClosedInside { received: 30, expected: 56 }),
            ("shorter than a header", header(15), size(15)),
            ("longer than is possible", header(u32::MAX), size(u32::MAX)),
        ];
        for (name, bytes, expected) in rows {
            let (ours, mut theirs, mut receiver) = pair();
            theirs.write_all(&bytes).expect("written");
            drop(theirs);
            assert_eq!(receiver.take(ours.as_fd()).expect_err(name), expected, "{name}");
        }
    }

    #[test]
    fn descriptors_come_with_their_message() {
        let (ours, theirs, mut receiver) = pair();
        for count in [0, 1, 3, MOST_DESCRIPTORS] {
            let fds = vec![theirs.as_fd(); count];
            let bytes = message(10);
            assert_eq!(send(theirs.as_fd(), &bytes, &fds), Ok(Some(bytes.len())));
        }
        for count in [0, 1, 3, MOST_DESCRIPTORS] {
            let message = receiver.take(ours.as_fd()).expect("a message").expect("whole");
            assert_eq!(message.descriptors.len(), count);
        }
        // Two parts of one message, each with as many as one can have.
        let bytes = message(10);
        for part in bytes.chunks(13) {
            send(theirs.as_fd(), part, &[theirs.as_fd(); MOST_DESCRIPTORS]).expect("sent");
        }
        assert_eq!(receiver.take(ours.as_fd()).expect_err("too many"), Broken::Descriptors);
    }
}

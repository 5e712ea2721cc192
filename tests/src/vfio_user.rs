// SPDX-License-Identifier: MIT OR Apache-2.0
//! Both ends of a vfio-user connection for suites that look at what the other end makes of each byte, and a server in a
//! thread.

use std::collections::BTreeSet;
use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::mpsc::sync_channel;
use std::thread::{self, JoinHandle};

use nvme_controller::fault::{FaultAction, FaultRule, FaultSlot, FaultTable, QueueMatch};
use nvme_controller::{ControllerConfig, SubsystemConfig};
use nvme_core::wire::{AdminOpcode, ControllerId};
use nvme_host_linux::vfio_user::server::{ServeOptions, Stop};
use nvme_host_linux::vfio_user::wire::{Command, HEADER, Header, Version};
use rustix::fs::{MemfdFlags, ftruncate, memfd_create};
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage,
    SendFlags, recvmsg, sendmsg,
};
use tempfile::TempDir;

use crate::conformance::backend::{NamespaceShape, Topology};
use crate::conformance::vfio_user::peer::{socket, with_server};

/// Descriptors in one message, at most.
const DESCRIPTORS: usize = 128;

/// Sends `bytes` with descriptors.
///
/// # Errors
/// The other end is gone.
pub fn send(stream: &UnixStream, bytes: &[u8], descriptors: &[BorrowedFd<'_>]) -> io::Result<()> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(DESCRIPTORS))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    assert!(descriptors.is_empty() || control.push(SendAncillaryMessage::ScmRights(descriptors)), "too many");
    let mut rest = bytes;
    while !rest.is_empty() {
        let count = sendmsg(stream, &[IoSlice::new(rest)], &mut control, SendFlags::NOSIGNAL)?;
        control.clear();
        rest = &rest[count..];
    }
    Ok(())
}

/// A message as it arrived.
#[derive(Debug)]
pub struct Arrived {
    /// Its header.
    pub header: Header,
    /// What follows the header.
    pub body: Vec<u8>,
    /// What came with it.
    pub descriptors: Vec<OwnedFd>,
}

/// Fills `bytes`; `false` at the end of the stream.
fn fill(stream: &UnixStream, bytes: &mut [u8], descriptors: &mut Vec<OwnedFd>) -> bool {
    let mut filled = 0;
    while filled < bytes.len() {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(DESCRIPTORS))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let part = &mut bytes[filled..];
        let received = recvmsg(stream, &mut [IoSliceMut::new(part)], &mut control, RecvFlags::CMSG_CLOEXEC);
        let count = received.map_or(0, |received| received.bytes);
        for message in control.drain() {
            if let RecvAncillaryMessage::ScmRights(rights) = message {
                descriptors.extend(rights);
            }
        }
        if count == 0 {
            return false;
        }
        filled += count;
    }
    true
}

/// Waits for a message; `None` at the end of the stream.
#[must_use]
pub fn receive(stream: &UnixStream) -> Option<Arrived> {
    let (mut head, mut descriptors) = ([0; HEADER], Vec::new());
    if !fill(stream, &mut head, &mut descriptors) {
        return None;
    }
    let header = Header::parse(&head)?;
    let mut body = vec![0; (header.size as usize).checked_sub(HEADER)?];
    fill(stream, &mut body, &mut descriptors).then_some(Arrived { header, body, descriptors })
}

/// A command as bytes.
#[must_use]
pub fn command(id: u16, command: Command, flags: u32, body: &[u8]) -> Vec<u8> {
    let size = (HEADER + body.len()) as u32;
    let mut bytes = Header { id, command: command.0, size, flags, error: 0 }.bytes();
    bytes.extend_from_slice(body);
    bytes
}

/// VERSION as a client sends it.
#[must_use]
pub fn version() -> Vec<u8> {
    command(0, Command::VERSION, 0, &Version { major: 0, minor: 1 }.bytes())
}

/// Memory of `len` bytes that can be sealed, or not.
///
/// # Panics
/// The system gives none.
#[must_use]
pub fn memory(len: u64, can_be_sealed: bool) -> OwnedFd {
    let sealing = if can_be_sealed { MemfdFlags::ALLOW_SEALING } else { MemfdFlags::empty() };
    let file = memfd_create("memory", MemfdFlags::CLOEXEC | sealing).expect("a memfd");
    ftruncate(&file, len).expect("its size");
    file
}

/// Makes memory shorter.
///
/// # Errors
/// It is sealed.
pub fn shorten(file: impl AsFd, len: u64) -> io::Result<()> {
    Ok(ftruncate(file, len)?)
}

/// Identifiers of the controllers of [`pair`].
pub const MANAGER: ControllerId = ControllerId::new(1);
/// See [`MANAGER`].
pub const TRACKED: ControllerId = ControllerId::new(2);

/// A subsystem with a managing and a migratable controller and one namespace of 4 MiB.
#[must_use]
pub fn pair() -> Topology {
    Topology {
        config: SubsystemConfig::default(),
        controllers: vec![ControllerConfig::managing(MANAGER), ControllerConfig::migratable(TRACKED)],
        memories: Vec::new(),
        namespaces: vec![NamespaceShape { id: 1, block_shift: 12, blocks: 1024 }],
        data_queues: 2,
        queue_pairs: 5,
        commands: 64,
        event_requests: 4,
        state_bytes: 16 << 10,
        tracked_ranges: 8,
        tracked_words: 64,
    }
}

/// A subsystem as one side of a migration has it: a managing controller, identifier 1, at socket 0, and a migratable one,
/// identifier 2, at socket 1; one namespace of `blocks` blocks of 4 KiB. Whatever a program asks for there is room. Each has a
/// name of its own.
#[must_use]
pub fn migration_side(blocks: u64) -> Topology {
    static SIDES: AtomicU32 = AtomicU32::new(0);
    // A configuration borrows its name for as long as the process lives. No two subsystems have the same.
    let name = format!("nqn.2014-08.org.nvmexpress:side:{}", SIDES.fetch_add(1, Ordering::Relaxed)).leak();
    Topology {
        config: SubsystemConfig { name, ..SubsystemConfig::default() },
        controllers: vec![
            ControllerConfig::managing(ControllerId::new(1)),
            ControllerConfig::migratable(ControllerId::new(2)),
        ],
        memories: vec![None, None],
        namespaces: vec![NamespaceShape { id: 1, block_shift: 12, blocks }],
        data_queues: 4,
        queue_pairs: 17,
        commands: 1024,
        event_requests: 16,
        state_bytes: 64 << 10,
        tracked_ranges: 16,
        tracked_words: 1 << 12,
    }
}

/// A server with a thread of its own. Dropping it ends it.
#[derive(Debug)]
pub struct Serving {
    folder: TempDir,
    stop: Stop,
    thread: Option<JoinHandle<()>>,
    /// A rule for each opcode of an admin command and one for I/O commands, which count and never act; none if nothing is
    /// counted.
    counters: &'static [FaultSlot],
}

impl Serving {
    /// Serves the controllers of `topology`.
    ///
    /// # Panics
    /// They cannot be served.
    #[must_use]
    pub fn start(topology: impl FnOnce() -> Topology + Send + 'static, options: ServeOptions) -> Self {
        Self::with(topology, options, &[])
    }

    /// As [`start`](Self::start); counts [`admin_commands`](Self::admin_commands) and [`io_commands`](Self::io_commands).
    ///
    /// # Panics
    /// They cannot be served.
    #[must_use]
    pub fn counting(topology: impl FnOnce() -> Topology + Send + 'static) -> Self {
        let on = |queue| FaultRule::new(FaultAction::Drop).on(queue).nth(u32::MAX);
        let mut rules: Vec<_> = (0..=u8::MAX).map(|opcode| on(QueueMatch::Admin).opcode(opcode)).collect();
        rules.push(on(QueueMatch::Io));
        // The server's thread has them for as long as it likes.
        let counters = Vec::leak(rules.into_iter().map(FaultSlot::new).collect());
        Self::with(topology, ServeOptions::default(), counters)
    }

    fn with(
        topology: impl FnOnce() -> Topology + Send + 'static,
        options: ServeOptions,
        counters: &'static [FaultSlot],
    ) -> Self {
        let (folder, stop) = (tempfile::tempdir().expect("a folder"), Stop::new().expect("an eventfd"));
        let (path, theirs) = (folder.path().to_owned(), stop.clone());
        let (started, starts) = sync_channel(1);
        let thread = thread::spawn(move || {
            let ended = with_server(&topology(), &path, &options, |server, machine| {
                if !counters.is_empty() {
                    machine.subsystem_mut().set_faults(FaultTable::new(counters, &mut []));
                }
                started.send(()).expect("somebody waits");
                server.run(machine, &theirs)
            });
            ended.expect("the topology is possible").expect("the system can wait");
        });
        starts.recv().expect("the server starts");
        Self { folder, stop, thread: Some(thread), counters }
    }

    /// The admin commands that its controllers have taken so far, if they are counted. An Asynchronous Event Request counts when it is answered.
    #[must_use]
    pub fn admin_commands(&self) -> BTreeSet<AdminOpcode> {
        let taken = self.counters.iter().filter(|counter| counter.seen() > 0);
        taken.filter_map(|counter| counter.rule().opcode.map(AdminOpcode::new)).collect()
    }

    /// How many I/O commands its controllers have taken so far, if they are counted.
    #[must_use]
    pub fn io_commands(&self) -> u32 {
        let on_io = |counter: &&FaultSlot| counter.rule().queue == QueueMatch::Io;
        self.counters.iter().filter(on_io).map(FaultSlot::seen).sum()
    }

    /// Where function `index` is.
    #[must_use]
    pub fn path(&self, index: usize) -> PathBuf {
        socket(self.folder.path(), index)
    }

    /// A connection to function `index` before anything is said.
    ///
    /// # Panics
    /// Nobody listens.
    #[must_use]
    pub fn connect(&self, index: usize) -> UnixStream {
        UnixStream::connect(self.path(index)).expect("the server listens")
    }

    /// Ends the server.
    ///
    /// # Panics
    /// It has failed.
    pub fn stop(&mut self) {
        self.stop.stop();
        if let Some(thread) = self.thread.take() {
            thread.join().expect("the server did not fail");
        }
    }
}

impl Drop for Serving {
    fn drop(&mut self) {
        self.stop.stop();
        if let Some(thread) = self.thread.take() {
            // A failure was printed when it happened, and shows as a connection that is closed.
            let _ = thread.join();
        }
    }
}

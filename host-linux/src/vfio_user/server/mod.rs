// SPDX-License-Identifier: MIT OR Apache-2.0
//! Controllers of this process for clients of others: a PCI function of its own for each, behind a UNIX socket.
//!
//! One thread serves all functions of a [`Machine`], usually a [`SubsystemMachine`]. It waits for no message: a client that
//! sends half a message, or does not read its replies, is left alone after a while, and the others notice nothing. A
//! function has one client at a time; the next one is answered when the first has left.
//!
//! When a client leaves, in whatever way, its controller is reset, and its memory and descriptors are given back before
//! anybody else is let in. (The protocol's text would let the device keep its state, for clients that come back; here a
//! controller must not go on with queues of somebody who is gone.)
//!
//! Doorbells lie in a page that is shared with the client and looked at in every turn, and before every command, so
//! that a doorbell is never overtaken by an access that follows it. The server puts all ones where it has taken a
//! value; a client that writes all ones, which no queue takes, writes nothing.

mod configuration;
mod function;
mod interrupts;
mod memory;
mod session;

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use nvme_controller::host::BlockStorage;
use nvme_controller::{Port, Subsystem};
use nvme_core::register::Offset;
use nvme_core::wire::ControllerId;
use rustix::event::{EventfdFlags, PollFd, PollFlags, eventfd, poll};
use rustix::io::Errno;

use function::Function;
pub use interrupts::{FunctionInterrupts, InterruptVectors};
pub use memory::{ClientMemory, MemoryLimits};

use super::socket::timespec;

/// Turns without work before the thread sleeps.
const SPINS: u32 = 2000;
/// How long it sleeps at most while a client may write doorbells.
const NAP: Duration = Duration::from_millis(1);
/// How long it sleeps at most while there is a client.
const LOOK: Duration = Duration::from_millis(100);
/// Work done between two looks at the clients.
const BUDGET: u32 = 64;

/// What is served: functions, named by their number.
pub trait Machine {
    /// Reads a property of `function`; `offset` is a multiple of four inside its register space.
    fn read32(&mut self, function: usize, offset: Offset) -> u32;

    /// Writes a property or a doorbell of `function`.
    fn write32(&mut self, function: usize, offset: Offset, value: u32);

    /// Resets `function` as from outside. It does not touch its client's memory afterwards until it is told to.
    fn reset(&mut self, function: usize);

    /// Does some work; `false` if there is none until something is written.
    fn poll(&mut self) -> bool;
}

/// The controllers of a subsystem, to be served.
#[derive(Debug)]
pub struct SubsystemMachine<'s, S> {
    subsystem: Subsystem<'s, ClientMemory, S, FunctionInterrupts>,
    ports: Vec<Port>,
    started: Instant,
}

impl<'s, S: BlockStorage> SubsystemMachine<'s, S> {
    /// Serves the controllers with the identifiers `ids` as functions 0, 1 and so on; `None` if one of them does not
    /// exist.
    #[must_use]
    pub fn new(
        subsystem: Subsystem<'s, ClientMemory, S, FunctionInterrupts>,
        ids: &[ControllerId],
    ) -> Option<Self> {
        let ports = ids.iter().map(|id| subsystem.port(*id)).collect::<Option<_>>()?;
        Some(Self { subsystem, ports, started: Instant::now() })
    }

    /// The subsystem, for whoever wants to do its work in smaller steps.
    pub fn subsystem_mut(&mut self) -> &mut Subsystem<'s, ClientMemory, S, FunctionInterrupts> {
        &mut self.subsystem
    }
}

impl<S: BlockStorage> Machine for SubsystemMachine<'_, S> {
    fn read32(&mut self, function: usize, offset: Offset) -> u32 {
        // Offsets were checked, so there is nothing to refuse.
        self.ports.get(function).and_then(|port| self.subsystem.read32(*port, offset).ok()).unwrap_or(0)
    }

    fn write32(&mut self, function: usize, offset: Offset, value: u32) {
        if let Some(port) = self.ports.get(function) {
            let _ = self.subsystem.write32(*port, offset, value);
        }
    }

    fn reset(&mut self, function: usize) {
        if let Some(port) = self.ports.get(function) {
            self.subsystem.reset(*port);
        }
    }

    fn poll(&mut self) -> bool {
        self.subsystem.advance(u64::try_from(self.started.elapsed().as_micros()).unwrap_or(u64::MAX));
        !self.subsystem.poll(BUDGET).is_idle()
    }
}

/// One function to be served.
#[derive(Clone, Debug)]
pub struct FunctionSetup {
    /// Where clients find it.
    pub path: PathBuf,
    /// PCI vendor identifier, the subsystem's too.
    pub vendor: u16,
    /// PCI device identifier, the subsystem's too.
    pub device: u16,
    /// Queue pairs that have doorbells, the admin queue pair included.
    pub queue_pairs: u32,
    /// Its memory: the same that its controller was given.
    pub memory: ClientMemory,
    /// Its vectors: the same that its controller interrupts through.
    pub vectors: InterruptVectors,
}

/// How clients are served.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ServeOptions {
    /// What a client may map.
    pub memory: MemoryLimits,
    /// Whether clients are offered doorbells in shared memory.
    pub share_doorbells: bool,
    /// How long a client may take for what it has begun: the version, the rest of a message, reading a reply.
    pub patience: Duration,
}

impl Default for ServeOptions {
    fn default() -> Self {
        Self { memory: MemoryLimits::default(), share_doorbells: true, patience: Duration::from_secs(5) }
    }
}

/// Ends a [`Server::run`] from another thread. Clones end the same one.
#[derive(Clone, Debug)]
pub struct Stop(Arc<OwnedFd>);

impl Stop {
    /// One that was not asked for yet.
    ///
    /// # Errors
    /// The system has no descriptors left.
    pub fn new() -> io::Result<Self> {
        Ok(Self(Arc::new(eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?)))
    }

    /// Asks the server to end.
    pub fn stop(&self) {
        // A full counter says the same.
        let _ = rustix::io::write(&*self.0, &1u64.to_ne_bytes());
    }
}

/// Listens for clients of all functions of a machine.
#[derive(Debug)]
pub struct Server {
    functions: Vec<Function>,
    options: ServeOptions,
}

impl Server {
    /// Listens at every function's path. Dropping the server removes the sockets.
    ///
    /// # Errors
    /// Somebody else listens there, the folder does not exist, or the system has no descriptors left.
    pub fn bind(functions: Vec<FunctionSetup>, options: &ServeOptions) -> io::Result<Self> {
        let functions = functions.into_iter().map(Function::bind).collect::<io::Result<_>>()?;
        Ok(Self { functions, options: *options })
    }

    /// Carries out what clients have asked for, without waiting. `true` if there was anything. Bounded: a few commands
    /// of each client.
    pub fn serve(&mut self, machine: &mut impl Machine) -> bool {
        let mut worked = false;
        for (index, function) in self.functions.iter_mut().enumerate() {
            worked |= function.serve(machine, index, &self.options);
        }
        worked
    }

    /// Takes the doorbells that clients have written. `true` if there were any.
    pub fn ring(&self, machine: &mut impl Machine) -> bool {
        let mut rang = false;
        for (index, function) in self.functions.iter().enumerate() {
            rang |= function.ring(machine, index);
        }
        rang
    }

    /// Waits until a client asks for something or is overdue, or something can be read from one of `others`, at most
    /// `limit`. Doorbells wake nobody.
    ///
    /// # Errors
    /// The system cannot wait.
    pub fn wait(&self, others: &[BorrowedFd<'_>], limit: Option<Duration>) -> io::Result<()> {
        let now = Instant::now();
        let overdue = self.functions.iter().filter_map(Function::deadline).min();
        let limits = [limit, overdue.map(|deadline| deadline.saturating_duration_since(now))];
        let limit = limits.into_iter().flatten().min().map(timespec);
        let mut awaited: Vec<PollFd<'_>> = self
            .functions
            .iter()
            .map(|function| {
                let (descriptor, what) = function.awaits();
                PollFd::from_borrowed_fd(descriptor, what)
            })
            .chain(others.iter().map(|other| PollFd::from_borrowed_fd(*other, PollFlags::IN)))
            .collect();
        match poll(&mut awaited, limit.as_ref()) {
            Ok(_) | Err(Errno::INTR) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// Ends all connections, as if the clients had.
    pub fn close(&mut self, machine: &mut impl Machine) {
        for (index, function) in self.functions.iter_mut().enumerate() {
            function.close(machine, index);
        }
    }

    /// Serves until `stop` is asked for. The thread sleeps while nobody asks for anything; while a client may write
    /// doorbells it looks at them every millisecond.
    ///
    /// # Errors
    /// The system cannot wait.
    pub fn run(&mut self, machine: &mut impl Machine, stop: &Stop) -> io::Result<()> {
        let mut quiet = 0_u32;
        loop {
            let mut worked = self.serve(machine);
            worked |= self.ring(machine);
            worked |= machine.poll();
            quiet = if worked { 0 } else { quiet.saturating_add(1) };
            if quiet > SPINS {
                let watched = self.functions.iter().any(|function| function.is_watched(&self.options));
                // The machine's time goes on while a client is there: Keep Alive, for one, runs by it.
                let served = self.functions.iter().any(Function::is_in_use);
                let limit = if watched { Some(NAP) } else { served.then_some(LOOK) };
                self.wait(&[stop.0.as_fd()], limit)?;
            } else if quiet != 0 {
                std::hint::spin_loop();
            }
            let mut asked = [0; 8];
            if (quiet == 0 || quiet > SPINS) && rustix::io::read(&*stop.0, &mut asked).is_ok() {
                self.close(machine);
                return Ok(());
            }
        }
    }
}

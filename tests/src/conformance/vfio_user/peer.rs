// SPDX-License-Identifier: MIT OR Apache-2.0
//! The process on the other side of the sockets: it makes the subsystem that it is told, serves its controllers, and
//! lets them work when it is told to.
//!
//! It is told by lines on its standard input and answers each with a line: `Order::Open` with a topology, then any
//! number of steps, then `Order::Close`. It ends with its input.

use std::io::{self, BufRead, Write};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};

use nvme_controller::{
    CommandSlot, CompletionQueueSlot, Controller, ControllerStorage, DataQueueSlot, ErrorSlot, EventSlot,
    Namespace, Role, SubmissionQueueSlot, Subsystem, SubsystemStorage, TrackedRange,
};
use nvme_core::wire::{CommandId, ControllerId, NamespaceId};
use nvme_host_linux::vfio_user::server::{
    ClientMemory, FunctionInterrupts, FunctionSetup, InterruptVectors, MemoryLimits, ServeOptions, Server,
    SubsystemMachine,
};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use serde_json::{Value, json};

use super::description::Described;
use crate::conformance::backend::{Topology, Work};
use crate::conformance::embedded::{Media, settle};

/// Windows of memory that a client of this process may have: each allocation of a case is one.
const REGIONS: usize = 60_000;

/// What the process is told.
pub(super) enum Order {
    /// Make a subsystem and serve it in a folder, with doorbells in shared memory or not.
    Open { topology: Box<Topology>, folder: PathBuf, share: bool },
    /// Let its controllers work.
    Work(Work),
    /// Forget it.
    Close,
}

impl Order {
    pub(super) fn line(&self) -> String {
        let value = match self {
            Self::Open { topology, folder, share } => {
                json!({ "open": topology.put(), "folder": folder, "share": share })
            }
            Self::Work(Work::Take) => json!("take"),
            Self::Work(Work::Little) => json!("little"),
            Self::Work(Work::Settle) => json!("settle"),
            Self::Close => json!("close"),
        };
        format!("{value}\n")
    }

    fn parse(line: &str) -> Self {
        let value: Value = serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"));
        match value.as_str() {
            Some("take") => Self::Work(Work::Take),
            Some("little") => Self::Work(Work::Little),
            Some("settle") => Self::Work(Work::Settle),
            Some("close") => Self::Close,
            _ => Self::Open {
                topology: Box::new(Topology::get(&value["open"])),
                folder: PathBuf::from(<&str>::get(&value["folder"])),
                share: bool::get(&value["share"]),
            },
        }
    }
}

/// The socket of controller `index`.
#[must_use]
pub fn socket(folder: &Path, index: usize) -> PathBuf {
    folder.join(index.to_string())
}

fn order() -> Option<Order> {
    let mut line = String::new();
    let count = io::stdin().lock().read_line(&mut line).expect("input");
    (count != 0).then(|| Order::parse(&line))
}

fn answer(value: &Value) {
    let mut out = io::stdout().lock();
    writeln!(out, "{value}").and_then(|()| out.flush()).expect("output");
}

/// The process.
///
/// # Panics
/// It is told nonsense.
pub fn main() {
    while let Some(order) = order() {
        match order {
            Order::Open { topology, folder, share } => {
                if let Err(reason) = serve(&topology, &folder, share) {
                    answer(&json!(reason));
                }
            }
            Order::Work(_) | Order::Close => answer(&json!("nothing is open")),
        }
    }
}

/// Memory of one controller.
struct Storage {
    submission_queues: Vec<SubmissionQueueSlot>,
    completion_queues: Vec<CompletionQueueSlot>,
    commands: Vec<CommandSlot>,
    event_requests: Vec<CommandId>,
    events: Vec<EventSlot>,
    errors: Vec<ErrorSlot>,
    state: Vec<u8>,
    tracked_ranges: Vec<TrackedRange>,
    tracked_bits: Vec<u64>,
}

impl Storage {
    fn new(topology: &Topology, role: &Role) -> Self {
        let state = if matches!(role, Role::Migratable) { topology.state_bytes } else { 0 };
        Self {
            submission_queues: vec![SubmissionQueueSlot::new(); topology.queue_pairs],
            completion_queues: vec![CompletionQueueSlot::new(); topology.queue_pairs],
            commands: vec![CommandSlot::new(); topology.commands + 1],
            event_requests: vec![CommandId::new(0); topology.event_requests],
            events: vec![EventSlot::new(); 8],
            errors: vec![ErrorSlot::new(); 8],
            state: vec![0; state],
            tracked_ranges: vec![TrackedRange::new(); topology.tracked_ranges],
            tracked_bits: vec![0; topology.tracked_words],
        }
    }

    fn lend(&mut self) -> ControllerStorage<'_> {
        ControllerStorage {
            submission_queues: &mut self.submission_queues,
            completion_queues: &mut self.completion_queues,
            commands: &mut self.commands,
            event_requests: &mut self.event_requests,
            events: &mut self.events,
            errors: &mut self.errors,
            state: &mut self.state,
            tracked_ranges: &mut self.tracked_ranges,
            tracked_bits: &mut self.tracked_bits,
        }
    }
}

/// The machine that [`with_server`] makes.
pub type Served<'s> = SubsystemMachine<'s, Media>;

/// Makes the subsystem of `topology` and listens for clients of its controllers in `folder`, at [`socket`]s of their
/// numbers; `run` does the rest.
///
/// # Errors
/// What of it cannot be.
pub fn with_server<T>(
    topology: &Topology,
    folder: &Path,
    options: &ServeOptions,
    run: impl FnOnce(&mut Server, &mut Served<'_>) -> T,
) -> Result<T, String> {
    let configs = &topology.controllers;
    let memories: Vec<ClientMemory> = configs.iter().map(|_| ClientMemory::new()).collect();
    let vectors: Vec<InterruptVectors> =
        configs.iter().map(|config| InterruptVectors::new(config.interrupt_vectors)).collect();
    let mut storages: Vec<Storage> =
        configs.iter().map(|config| Storage::new(topology, &config.role)).collect();
    let mut controllers: Vec<_> = configs
        .iter()
        .zip(&memories)
        .zip(&mut storages)
        .map(|((config, memory), storage)| Controller::new(*config, memory.clone(), storage.lend()))
        .collect();
    let mut namespaces: Vec<_> = topology
        .namespaces
        .iter()
        .map(|shape| Namespace::new(NamespaceId::new(shape.id), Media::new(*shape), [shape.id as u8; 16]))
        .collect();
    let storage = SubsystemStorage {
        controllers: &mut controllers,
        namespaces: &mut namespaces,
        data_queues: &mut vec![DataQueueSlot::new(); topology.data_queues],
        scratch: &mut vec![0; 32 << 10],
    };
    let ids: Vec<ControllerId> = configs.iter().map(|config| config.id).collect();
    let interrupts = FunctionInterrupts::new(ids.iter().copied().zip(vectors.iter().cloned()).collect());
    let subsystem =
        Subsystem::new(topology.config, storage, interrupts).map_err(|error| format!("{error:?}"))?;
    let mut machine = SubsystemMachine::new(subsystem, &ids).ok_or("a controller is not there")?;
    let setups = memories.into_iter().zip(vectors).enumerate().map(|(index, (memory, vectors))| {
        let path = socket(folder, index);
        let queue_pairs = topology.queue_pairs as u32;
        FunctionSetup { path, vendor: topology.config.vendor, device: 0x10, queue_pairs, memory, vectors }
    });
    let mut server = Server::bind(setups.collect(), options).map_err(|error| error.to_string())?;
    Ok(run(&mut server, &mut machine))
}

/// Serves one subsystem until it is told to forget it.
fn serve(topology: &Topology, folder: &Path, share: bool) -> Result<(), String> {
    let memory = MemoryLimits { regions: REGIONS, ..MemoryLimits::default() };
    let options = ServeOptions { memory, share_doorbells: share, ..ServeOptions::default() };
    let controllers = topology.controllers.len();
    with_server(topology, folder, &options, |server, machine| obey(server, machine, controllers))?
        .map_err(|error| error.to_string())
}

/// Does as it is told.
fn obey(server: &mut Server, machine: &mut Served<'_>, controllers: usize) -> io::Result<()> {
    answer(&json!(true));
    let input = io::stdin();
    loop {
        server.wait(&[input.as_fd()], None)?;
        while server.serve(machine) || server.ring(machine) {}
        let mut ready = [PollFd::from_borrowed_fd(input.as_fd(), PollFlags::IN)];
        let now = Timespec { tv_sec: 0, tv_nsec: 0 };
        if poll(&mut ready, Some(&now)) != Ok(1) {
            continue;
        }
        // Whatever was written before the order was given counts as before it.
        server.ring(machine);
        match order() {
            Some(Order::Work(work)) => {
                let subsystem = machine.subsystem_mut();
                let done = match work {
                    Work::Take => {
                        subsystem.fetch(64);
                        true
                    }
                    Work::Little => {
                        subsystem.poll(1);
                        true
                    }
                    Work::Settle => settle(controllers, || subsystem.poll(64)),
                };
                answer(&json!(done));
            }
            Some(Order::Close) => {
                server.close(machine);
                answer(&json!(true));
                return Ok(());
            }
            Some(Order::Open { .. }) => answer(&json!("something is open already")),
            None => return Ok(()),
        }
    }
}

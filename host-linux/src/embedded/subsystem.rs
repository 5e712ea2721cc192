// SPDX-License-Identifier: MIT OR Apache-2.0
//! A subsystem as this process builds it: its controllers' memory and capacities, its namespace, its thread.

use std::fmt;
use std::fs::File;
use std::io;
use std::sync::Arc;
use std::sync::mpsc::sync_channel;
use std::time::Instant;

use nvme_controller::fault::{FaultSlot, FaultTable, HeldSlot};
use nvme_controller::host::{HostMemory, Interrupts, MemoryFault};
use nvme_controller::{
    CommandSlot, CompletionQueueSlot, ConfigError, Controller, ControllerConfig, ControllerStorage,
    DataQueueSlot, ErrorSlot, EventSlot, ManagerConfig, Namespace, Port, Quirks, Role, SecondaryConfig,
    SubmissionQueueSlot, Subsystem, SubsystemConfig, SubsystemStorage, TrackedRange, state_bytes,
};
use nvme_core::register::Offset;
use nvme_core::wire::{BusAddr, CommandId, ControllerId, NamespaceId};

use super::service::{BusMasterEnable, EmbeddedController, Machine, Service};
use crate::memory::AddressSpace;
use crate::storage::FileStorage;
use crate::sync::Signal;
use crate::witness::Witness;

/// Identifier of the one namespace.
pub const NAMESPACE: NamespaceId = NamespaceId::new(1);
/// Commands between fetch and completion, for each controller.
const COMMANDS: usize = 2048;
const EVENT_REQUESTS: usize = 16;
const EVENTS: usize = 64;
const ERRORS: usize = 64;
const DATA_QUEUES: usize = 16;
const TRACKED_RANGES: usize = 64;
/// Bits for tracked memory: 64 of them for each word.
const TRACKED_WORDS: usize = 1 << 15;
const SCRATCH: usize = 256 << 10;
/// Completions that fault rules may hold back at once.
const HELD: usize = 1024;
/// Work done between two looks at the inbox.
const BUDGET: u32 = 64;

/// What a controller of an embedded subsystem is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ControllerRole {
    /// Manages migrations.
    Managing,
    /// Belongs to a guest.
    Migratable,
    /// Belongs to a guest, and is a secondary controller, online from the start, of this one: it goes offline when that is
    /// reset.
    Secondary(ControllerId),
}

/// One controller of an embedded subsystem.
#[derive(Clone, Debug)]
pub struct ControllerSetup {
    /// Controller identifier.
    pub id: ControllerId,
    /// What it is for.
    pub role: ControllerRole,
    /// I/O queue pairs it offers.
    pub io_queues: u16,
    /// The memory it reaches, and nothing else.
    pub memory: Arc<AddressSpace>,
    /// Notified when it interrupts, whatever the vector.
    pub interrupts: Arc<Signal>,
}

/// An embedded subsystem.
#[derive(Clone, Debug)]
pub struct SubsystemSetup {
    /// Name of its thread, and the end of its qualified name.
    pub name: String,
    /// Serial number, ASCII, at most 20 bytes.
    pub serial_number: String,
    /// The namespace's storage; the whole file.
    pub namespace: Arc<File>,
    /// Bytes in a logical block.
    pub block_size: u32,
    /// Identifies the namespace's content (NGUID): the same on both sides of a migration.
    pub unique_id: [u8; 16],
    /// Its controllers.
    pub controllers: Vec<ControllerSetup>,
    /// What its controllers do wrong; whoever keeps these rules can see how often each has acted.
    pub faults: Arc<[FaultSlot]>,
    /// Deviations of other models that its controllers imitate.
    pub quirks: Quirks,
}

/// Why a subsystem cannot run.
#[derive(Debug)]
pub enum StartError {
    /// The file cannot hold a namespace, or the system gives no thread.
    Io(io::Error),
    /// The setup is not possible.
    Config(ConfigError),
}

impl fmt::Display for StartError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Io(error) => error.fmt(f),
            Self::Config(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for StartError {}

impl From<io::Error> for StartError {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

/// The memory of one controller, shared with its driver, while it is a bus master.
#[derive(Debug)]
struct Memory {
    space: Arc<AddressSpace>,
    bus_master: Arc<BusMasterEnable>,
}

impl Memory {
    fn check(&self, address: BusAddr, len: usize) -> Result<(), MemoryFault> {
        if self.bus_master.is_set() { Ok(()) } else { Err(MemoryFault { address, len }) }
    }
}

impl HostMemory for Memory {
    fn read(&self, address: BusAddr, bytes: &mut [u8]) -> Result<(), MemoryFault> {
        self.check(address, bytes.len())?;
        HostMemory::read(&*self.space, address, bytes)
    }

    fn write(&self, address: BusAddr, bytes: &[u8]) -> Result<(), MemoryFault> {
        self.check(address, bytes.len())?;
        HostMemory::write(&*self.space, address, bytes)
    }

    fn write_entry(&self, address: BusAddr, entry: &[u8]) -> Result<(), MemoryFault> {
        self.check(address, entry.len())?;
        self.space.write_entry(address, entry)
    }

    fn is_host_memory(&self, address: BusAddr, len: u64) -> bool {
        // What an address is does not depend on who may reach it now.
        self.space.is_host_memory(address, len)
    }
}

/// Who waits for which controller.
#[derive(Debug)]
struct Wakers(Vec<(ControllerId, Arc<Signal>)>);

impl Interrupts for Wakers {
    fn interrupt(&self, controller: ControllerId, _vector: u16) {
        for (_, signal) in self.0.iter().filter(|(id, _)| *id == controller) {
            signal.notify();
        }
    }
}

struct Served<'s> {
    subsystem: Subsystem<'s, Memory, FileStorage, Wakers>,
    ports: Vec<Port>,
    /// When the thread began, if fault rules need the time.
    clock: Option<Instant>,
}

impl Machine for Served<'_> {
    fn read32(&self, port: usize, offset: Offset) -> u32 {
        // Offsets were checked before they were accepted, so there is nothing to refuse.
        self.ports.get(port).and_then(|port| self.subsystem.read32(*port, offset).ok()).unwrap_or(0)
    }

    fn write32(&mut self, port: usize, offset: Offset, value: u32) {
        if let Some(port) = self.ports.get(port) {
            let _ = self.subsystem.write32(*port, offset, value);
        }
    }

    fn poll(&mut self) -> bool {
        if let Some(clock) = self.clock {
            self.subsystem.advance(u64::try_from(clock.elapsed().as_micros()).unwrap_or(u64::MAX));
        }
        !self.subsystem.poll(BUDGET).is_idle()
    }
}

/// Memory lent to one controller.
struct Capacity {
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

impl Capacity {
    fn new(setup: &ControllerSetup) -> Self {
        let queues = usize::from(setup.io_queues) + 1;
        let migratable = setup.role != ControllerRole::Managing;
        let when_migratable = |count: usize| if migratable { count } else { 0 };
        Self {
            submission_queues: (0..queues).map(|_| SubmissionQueueSlot::new()).collect(),
            completion_queues: (0..queues).map(|_| CompletionQueueSlot::new()).collect(),
            commands: (0..COMMANDS).map(|_| CommandSlot::new()).collect(),
            event_requests: vec![CommandId::new(0); EVENT_REQUESTS],
            events: (0..EVENTS).map(|_| EventSlot::new()).collect(),
            errors: (0..ERRORS).map(|_| ErrorSlot::new()).collect(),
            state: vec![0; when_migratable(state_bytes(queues, queues, EVENT_REQUESTS, EVENTS))],
            tracked_ranges: (0..when_migratable(TRACKED_RANGES)).map(|_| TrackedRange::new()).collect(),
            tracked_bits: vec![0; when_migratable(TRACKED_WORDS)],
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

fn controller_config(setup: &ControllerSetup) -> ControllerConfig {
    match setup.role {
        ControllerRole::Migratable => ControllerConfig::migratable(setup.id),
        ControllerRole::Secondary(primary) => ControllerConfig {
            secondary: Some(SecondaryConfig { primary, virtual_function: 0, online: true }),
            ..ControllerConfig::migratable(setup.id)
        },
        ControllerRole::Managing => {
            // A queue of scattered pages may be as long as a contiguous one.
            let limits = ManagerConfig {
                max_queue_memory_ranges: u16::MAX,
                max_queue_prps: u16::MAX,
                ..ManagerConfig::default()
            };
            ControllerConfig { role: Role::Managing(limits), ..ControllerConfig::managing(setup.id) }
        }
    }
}

/// A subsystem with its thread. Dropping it stops it: accesses to its controllers fail from then on.
#[derive(Debug)]
pub struct EmbeddedSubsystem {
    service: Service,
    controllers: Vec<(ControllerId, Arc<BusMasterEnable>)>,
}

impl EmbeddedSubsystem {
    /// Starts the subsystem's thread, all controllers disabled.
    ///
    /// # Errors
    /// [`StartError`] naming what is not possible.
    pub fn start(setup: SubsystemSetup) -> Result<Self, StartError> {
        let storage = FileStorage::new(Arc::clone(&setup.namespace), setup.block_size)?;
        Self::start_with(setup, storage)
    }

    /// Starts the subsystem's thread, with a witness told before blocks of its namespace change.
    ///
    /// # Errors
    /// As [`start`](Self::start).
    pub fn start_watched(setup: SubsystemSetup, witness: Arc<Witness>) -> Result<Self, StartError> {
        let storage = FileStorage::new(Arc::clone(&setup.namespace), setup.block_size)?;
        Self::start_with(setup, storage.watched(witness))
    }

    fn start_with(setup: SubsystemSetup, storage: FileStorage) -> Result<Self, StartError> {
        let ids = setup.controllers.iter().map(|controller| controller.id);
        let ours: Vec<_> = ids.map(|id| (id, Arc::<BusMasterEnable>::default())).collect();
        let theirs: Vec<_> = ours.iter().map(|(_, bus_master)| Arc::clone(bus_master)).collect();
        let (started, result) = sync_channel(1);
        let service = Service::start(&setup.name.clone(), move |server| {
            let name = format!("nqn.2014-08.org.nvmexpress:nvme-lm:{}", setup.name);
            let config = SubsystemConfig {
                name: &name,
                serial_number: &setup.serial_number,
                model_number: "nvme-lm embedded subsystem",
                firmware_revision: env!("CARGO_PKG_VERSION"),
                quirks: setup.quirks,
                ..SubsystemConfig::default()
            };
            let mut capacities: Vec<Capacity> = setup.controllers.iter().map(Capacity::new).collect();
            let mut controllers: Vec<_> = setup
                .controllers
                .iter()
                .zip(theirs)
                .zip(&mut capacities)
                .map(|((controller, bus_master), capacity)| {
                    let memory = Memory { space: Arc::clone(&controller.memory), bus_master };
                    Controller::new(controller_config(controller), memory, capacity.lend())
                })
                .collect();
            let mut data_queues: Vec<_> = (0..DATA_QUEUES).map(|_| DataQueueSlot::new()).collect();
            let mut scratch = vec![0; SCRATCH];
            let mut held = vec![HeldSlot::new(); if setup.faults.is_empty() { 0 } else { HELD }];
            let storage = SubsystemStorage {
                controllers: &mut controllers,
                namespaces: &mut [Namespace::new(NAMESPACE, storage, setup.unique_id)],
                data_queues: &mut data_queues,
                scratch: &mut scratch,
            };
            let wakers = setup.controllers.iter().map(|c| (c.id, Arc::clone(&c.interrupts))).collect();
            match Subsystem::new(config, storage, Wakers(wakers)) {
                Ok(mut subsystem) => {
                    let clock = (!setup.faults.is_empty()).then(Instant::now);
                    if clock.is_some() {
                        subsystem.set_faults(FaultTable::new(&setup.faults, &mut held));
                    }
                    let ports = setup.controllers.iter().filter_map(|c| subsystem.port(c.id)).collect();
                    // Whoever started the thread waits for this.
                    let _ = started.send(Ok(()));
                    server.serve(&mut Served { subsystem, ports, clock });
                }
                Err(error) => {
                    let _ = started.send(Err(error));
                }
            }
        })?;
        match result.recv() {
            Ok(Ok(())) => Ok(Self { service, controllers: ours }),
            Ok(Err(error)) => Err(StartError::Config(error)),
            Err(_) => Err(StartError::Io(io::Error::other("the subsystem's thread ended at once"))),
        }
    }

    /// The registers of controller `id`.
    #[must_use]
    pub fn controller(&self, id: ControllerId) -> Option<EmbeddedController> {
        let (port, (_, bus_master)) =
            self.controllers.iter().enumerate().find(|(_, (other, _))| *other == id)?;
        Some(self.service.registers(port, bus_master))
    }

    /// Stops the thread; accesses fail afterwards.
    pub fn stop(mut self) {
        self.service.stop();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::memory::Capacity;

    #[test]
    fn setups_that_cannot_be_are_refused() {
        let capacity = Capacity { queues: 4096, data: 4096, controller_data: 4096 };
        let memory = Arc::new(AddressSpace::new("test", capacity).expect("address space"));
        let controller = |id| ControllerSetup {
            id: ControllerId::new(id),
            role: ControllerRole::Migratable,
            io_queues: 1,
            memory: Arc::clone(&memory),
            interrupts: Arc::default(),
        };
        let setup = |size, block_size, ids: &[u16]| SubsystemSetup {
            name: "test".into(),
            serial_number: "T".into(),
            namespace: FileStorage::memory("test", size).expect("memory"),
            block_size,
            unique_id: [0; 16],
            faults: Arc::default(),
            quirks: nvme_controller::Quirks::empty(),
            controllers: ids.iter().copied().map(controller).collect(),
        };
        let table = [
            ("twice the same identifier", setup(4096, 512, &[3, 3]), "0x0003"),
            ("an identifier that is reserved", setup(4096, 512, &[0xFFFF]), "0xffff"),
            ("half a block", setup(4096 + 256, 512, &[1]), "4352"),
            ("a block size that is no power of two", setup(4096, 1000, &[1]), "1000"),
        ];
        for (name, setup, word) in table {
            let error = EmbeddedSubsystem::start(setup).expect_err(name).to_string();
            assert!(error.contains(word), "{name}: {error}");
        }
        let subsystem = EmbeddedSubsystem::start(setup(4096, 512, &[1])).expect("possible");
        assert!(subsystem.controller(ControllerId::new(1)).is_some());
        assert!(subsystem.controller(ControllerId::new(2)).is_none());
    }
}

// SPDX-License-Identifier: MIT OR Apache-2.0
//! The subsystem of this project in this process, polled by the case itself.

use std::any::Any;
use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

use nvme_controller::host::{BlockStorage, HostMemory, Interrupts, MemoryFault, StorageError};
use nvme_controller::{
    Activity, CommandSlot, CompletionQueueSlot, Controller, ControllerStorage, DataQueueSlot, ErrorSlot,
    EventSlot, Namespace, Port, Role, SubmissionQueueSlot, Subsystem, SubsystemStorage, TrackedRange,
};
use nvme_core::dma::{Direction, DmaArena, Pool};
use nvme_core::register::{Offset, RegisterIo};
use nvme_core::wire::{BusAddr, CommandId, ControllerId, Lba, NamespaceId};
use nvme_host_linux::memory::{AddressSpace, Capacity};

use super::backend::{
    AccessRefused, Backend, BusMemory, Device, NamespaceShape, Need, Registers, Topology, Unavailable, Work,
};

/// Bytes of each pool of a controller's address space. Memory is taken from the system as it is used.
const POOL_BYTES: usize = 32 << 20;
/// Polls after which a subsystem that still works is taken to work for ever.
const POLLS: u32 = 100_000;

/// The embedded back end. It gives everything.
#[derive(Clone, Copy, Debug, Default)]
pub struct Embedded;

impl Backend for Embedded {
    fn lacks(&self, _: Need) -> Option<String> {
        None
    }

    fn open(&self, topology: Topology) -> Result<Box<dyn Device>, Unavailable> {
        let unavailable = |need: &str, reason: String| Unavailable { need: need.to_owned(), reason };
        let mut spaces = Vec::new();
        for shared in &topology.memories {
            let space = match shared {
                None => {
                    let capacity =
                        Capacity { queues: POOL_BYTES, data: POOL_BYTES, controller_data: POOL_BYTES };
                    let space = AddressSpace::new("conformance", capacity)
                        .map_err(|error| unavailable("memory", error.to_string()))?;
                    Rc::new(Space(space))
                }
                Some(memory) => {
                    let memory: Rc<dyn Any> = Rc::<dyn BusMemory>::clone(memory);
                    memory.downcast::<Space>().map_err(|_| {
                        unavailable("shared memory", "the memory is of another back end".to_owned())
                    })?
                }
            };
            spaces.push(space);
        }
        let links: Vec<Reach> =
            spaces.iter().map(|space| Reach(Rc::new(RefCell::new(Some(space.clone()))))).collect();
        let interrupts = Recorder::default();
        let subsystem = build(&topology, &links, interrupts.clone())
            .map_err(|error| unavailable("such a subsystem", format!("{error:?}")))?;
        let port = |id: ControllerId| subsystem.port(id).expect("each controller has a port");
        let ports: Vec<Port> = topology.controllers.iter().map(|config| port(config.id)).collect();
        let subsystem = Rc::new(RefCell::new(subsystem));
        let registers =
            ports.iter().map(|port| PortRegisters { subsystem: subsystem.clone(), port: *port }).collect();
        let ids = topology.controllers.iter().map(|config| config.id.get()).collect();
        Ok(Box::new(EmbeddedDevice { subsystem, ports, registers, spaces, links, interrupts, ids }))
    }
}

type EmbeddedSubsystem = Subsystem<'static, Reach, Media, Recorder>;

fn build(
    topology: &Topology,
    links: &[Reach],
    interrupts: Recorder,
) -> Result<EmbeddedSubsystem, nvme_controller::ConfigError> {
    let mut controllers = Vec::new();
    for (config, link) in topology.controllers.iter().zip(links) {
        let state = if matches!(config.role, Role::Migratable) { topology.state_bytes } else { 0 };
        let storage = ControllerStorage {
            submission_queues: vec![SubmissionQueueSlot::new(); topology.queue_pairs].leak(),
            completion_queues: vec![CompletionQueueSlot::new(); topology.queue_pairs].leak(),
            commands: vec![CommandSlot::new(); topology.commands + 1].leak(),
            event_requests: vec![CommandId::new(0); topology.event_requests].leak(),
            events: vec![EventSlot::new(); 8].leak(),
            errors: vec![ErrorSlot::new(); 8].leak(),
            state: vec![0; state].leak(),
            tracked_ranges: vec![TrackedRange::new(); topology.tracked_ranges].leak(),
            tracked_bits: vec![0; topology.tracked_words].leak(),
        };
        controllers.push(Controller::new(*config, link.clone(), storage));
    }
    let namespaces: Vec<_> = topology
        .namespaces
        .iter()
        .map(|shape| Namespace::new(NamespaceId::new(shape.id), Media::new(*shape), [shape.id as u8; 16]))
        .collect();
    let storage = SubsystemStorage {
        controllers: controllers.leak(),
        namespaces: namespaces.leak(),
        data_queues: vec![DataQueueSlot::new(); topology.data_queues].leak(),
        scratch: vec![0; 16 << 10].leak(),
    };
    Subsystem::new(topology.config, storage, interrupts)
}

/// Polls a subsystem of so many controllers until it rests; `false` if it does not within the bound.
pub(super) fn settle(controllers: usize, mut poll: impl FnMut() -> Activity) -> bool {
    // Controllers take turns, so that one quiet poll does not mean that all are at rest.
    let needed = controllers + 2;
    let mut quiet = 0;
    for _ in 0..POLLS {
        let activity = poll();
        quiet = if activity.fetched == 0 && activity.executed == 0 { quiet + 1 } else { 0 };
        if quiet == needed {
            return true;
        }
    }
    false
}

/// A subsystem of the embedded back end.
pub struct EmbeddedDevice {
    subsystem: Rc<RefCell<EmbeddedSubsystem>>,
    ports: Vec<Port>,
    registers: Vec<PortRegisters>,
    spaces: Vec<Rc<Space>>,
    links: Vec<Reach>,
    interrupts: Recorder,
    ids: Vec<u16>,
}

impl Drop for EmbeddedDevice {
    /// The subsystem's slots are lent for ever; the memory of its hosts is not.
    fn drop(&mut self) {
        for link in &self.links {
            link.0.borrow_mut().take();
        }
    }
}

impl Device for EmbeddedDevice {
    fn read(&self, controller: usize, offset: u32, width: u8) -> Result<u64, AccessRefused> {
        let subsystem = self.subsystem.borrow();
        let (port, at) = (self.ports[controller], Offset::new(offset));
        let refused = AccessRefused { offset, width };
        match width {
            4 => subsystem.read32(port, at).map(u64::from).map_err(|_| refused),
            8 => subsystem.read64(port, at).map_err(|_| refused),
            _ => Err(refused),
        }
    }

    fn write(&self, controller: usize, offset: u32, width: u8, value: u64) -> Result<(), AccessRefused> {
        let mut subsystem = self.subsystem.borrow_mut();
        let (port, at) = (self.ports[controller], Offset::new(offset));
        let refused = AccessRefused { offset, width };
        match width {
            4 => subsystem.write32(port, at, value as u32).map_err(|_| refused),
            8 => subsystem.write64(port, at, value).map_err(|_| refused),
            _ => Err(refused),
        }
    }

    fn registers(&self, controller: usize) -> &Registers {
        &self.registers[controller]
    }

    fn memory(&self, controller: usize) -> Rc<dyn BusMemory> {
        self.spaces[controller].clone()
    }

    fn arena(&self, controller: usize) -> &dyn DmaArena {
        &self.spaces[controller].0
    }

    fn work(&self, work: Work) -> bool {
        let mut subsystem = self.subsystem.borrow_mut();
        match work {
            Work::Take => {
                subsystem.fetch(64);
            }
            Work::Little => {
                subsystem.poll(1);
            }
            Work::Settle => return settle(self.ports.len(), || subsystem.poll(64)),
        }
        true
    }

    fn interrupts(&self) -> Vec<(usize, u16)> {
        let index = |id: u16| self.ids.iter().position(|known| *known == id).expect("a known controller");
        self.interrupts.0.take().into_iter().map(|(id, vector)| (index(id), vector)).collect()
    }

    fn function_level_reset(&self, controller: usize) {
        self.subsystem.borrow_mut().reset(self.ports[controller]);
    }
}

struct PortRegisters {
    subsystem: Rc<RefCell<EmbeddedSubsystem>>,
    port: Port,
}

impl RegisterIo for PortRegisters {
    type Error = AccessRefused;

    fn read32(&self, offset: Offset) -> Result<u32, AccessRefused> {
        let refused = AccessRefused { offset: offset.bytes(), width: 4 };
        self.subsystem.borrow().read32(self.port, offset).map_err(|_| refused)
    }

    fn write32(&self, offset: Offset, value: u32) -> Result<(), AccessRefused> {
        let refused = AccessRefused { offset: offset.bytes(), width: 4 };
        self.subsystem.borrow_mut().write32(self.port, offset, value).map_err(|_| refused)
    }
}

/// Interrupts as (controller identifier, vector).
#[derive(Clone, Default)]
struct Recorder(Rc<RefCell<Vec<(u16, u16)>>>);

impl Interrupts for Recorder {
    fn interrupt(&self, controller: ControllerId, vector: u16) {
        self.0.borrow_mut().push((controller.get(), vector));
    }
}

/// One address space, shared by host, driver and controller.
struct Space(AddressSpace);

impl BusMemory for Space {
    fn allocate(&self, len: u64, align: u64) -> u64 {
        let (len, align) =
            (usize::try_from(len.max(1)).expect("a length"), usize::try_from(align).expect("alignment"));
        let region = self.0.allocate(Pool::Data, len, align.max(4096), Direction::Bidirectional);
        // The region stays mapped for as long as the space lives.
        region.expect("the case asks for more memory than the back end has").bus().get()
    }

    fn read(&self, address: u64, bytes: &mut [u8]) {
        HostMemory::read(&self.0, BusAddr::new(address), bytes).expect("the host reads its own memory");
    }

    fn write(&self, address: u64, bytes: &[u8]) {
        HostMemory::write(&self.0, BusAddr::new(address), bytes).expect("the host writes its own memory");
    }

    fn unmapped(&self) -> u64 {
        // The last page of the address space: every window lies far below it.
        !0xFFF
    }
}

/// A controller's way into its address space, until the device is gone.
#[derive(Clone)]
struct Reach(Rc<RefCell<Option<Rc<Space>>>>);

impl Reach {
    fn with<T>(
        &self,
        (address, len): (BusAddr, usize),
        access: impl FnOnce(&AddressSpace) -> Result<T, MemoryFault>,
    ) -> Result<T, MemoryFault> {
        access(&self.0.borrow().as_ref().ok_or(MemoryFault { address, len })?.0)
    }
}

impl HostMemory for Reach {
    fn read(&self, address: BusAddr, bytes: &mut [u8]) -> Result<(), MemoryFault> {
        self.with((address, bytes.len()), |space| HostMemory::read(space, address, bytes))
    }

    fn write(&self, address: BusAddr, bytes: &[u8]) -> Result<(), MemoryFault> {
        self.with((address, bytes.len()), |space| HostMemory::write(space, address, bytes))
    }

    fn write_entry(&self, address: BusAddr, entry: &[u8]) -> Result<(), MemoryFault> {
        self.with((address, entry.len()), |space| space.write_entry(address, entry))
    }

    fn is_host_memory(&self, address: BusAddr, len: u64) -> bool {
        self.with((address, 0), |space| Ok(space.is_host_memory(address, len))).unwrap_or(false)
    }
}

/// Media that keep only what was written.
pub struct Media {
    shape: NamespaceShape,
    content: BTreeMap<u64, Vec<u8>>,
    unreadable: BTreeSet<u64>,
}

impl Media {
    pub(super) const fn new(shape: NamespaceShape) -> Self {
        Self { shape, content: BTreeMap::new(), unreadable: BTreeSet::new() }
    }
}

impl BlockStorage for Media {
    fn block_shift(&self) -> u8 {
        self.shape.block_shift
    }

    fn blocks(&self) -> u64 {
        self.shape.blocks
    }

    fn read(&mut self, lba: Lba, bytes: &mut [u8]) -> Result<(), StorageError> {
        for (at, block) in (lba.get()..).zip(bytes.chunks_exact_mut(1 << self.shape.block_shift)) {
            if self.unreadable.contains(&at) {
                return Err(StorageError::Read);
            }
            match self.content.get(&at) {
                Some(content) => block.copy_from_slice(content),
                None => block.fill(0),
            }
        }
        Ok(())
    }

    fn write(&mut self, lba: Lba, bytes: &[u8]) -> Result<(), StorageError> {
        for (at, block) in (lba.get()..).zip(bytes.chunks_exact(1 << self.shape.block_shift)) {
            self.unreadable.remove(&at);
            self.content.insert(at, block.to_vec());
        }
        Ok(())
    }

    fn write_zeroes(&mut self, lba: Lba, blocks: u64, deallocate: bool) -> Result<(), StorageError> {
        let range = lba.get()..lba.get() + blocks;
        self.content.retain(|at, _| !range.contains(at));
        self.unreadable.retain(|at| !range.contains(at));
        if !deallocate {
            let zeroes = vec![0; 1 << self.shape.block_shift];
            self.content.extend(range.map(|at| (at, zeroes.clone())));
        }
        Ok(())
    }

    fn flush(&mut self) -> Result<(), StorageError> {
        Ok(())
    }

    fn allocated(&self, lba: Lba, limit: u64) -> (bool, u64) {
        let first = self.content.contains_key(&lba.get());
        let same = (lba.get()..lba.get() + limit).take_while(|at| self.content.contains_key(at) == first);
        (first, same.count() as u64)
    }

    fn set_uncorrectable(&mut self, lba: Lba, blocks: u64) -> Result<(), StorageError> {
        self.unreadable.extend(lba.get()..lba.get() + blocks);
        Ok(())
    }
}

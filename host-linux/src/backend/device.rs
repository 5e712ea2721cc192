// SPDX-License-Identifier: MIT OR Apache-2.0
//! Opening controllers together.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::sync::Arc;
use std::time::Duration;

use nvme_controller::fault::FaultSlot;
use nvme_core::wire::{BusAddr, ControllerId, QueueId};

use super::embedded::{MANAGER, Used};
use super::{EmbeddedOptions, OpenError, Registers, Wake};
use crate::address::Address;
use crate::embedded::EmbeddedSubsystem;
use crate::endpoint::BusMaster;
use crate::memory::{AddressSpace, Backing, Capacity};
use crate::sync::Signal;
use crate::vfio::{self, Container, IommuBackend, Sysfs, VfToken};
use crate::vfio_user::{self, ConnectOptions, RemoteController};

/// How interrupts are waited for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum InterruptMode {
    /// By MSI-X if the controller has it, otherwise by looking.
    #[default]
    Auto,
    /// By looking.
    Polling,
}

/// How controllers are opened.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct OpenOptions {
    /// For a physical function with virtual functions, and for those.
    pub vf_token: Option<VfToken>,
    /// By which of the kernel's interfaces PCI functions reach memory.
    pub iommu: IommuBackend,
    /// What memory of PCI functions and of controllers behind sockets is made of; that of embedded ones is ordinary.
    pub backing: Backing,
    /// How interrupts are waited for.
    pub interrupts: InterruptMode,
    /// How long a server may take for an answer; its default if none.
    pub timeout: Option<Duration>,
    /// What embedded subsystems are like; [`EmbeddedOptions::new`] for those not mentioned.
    pub embedded: Vec<EmbeddedOptions>,
}

/// Which memory a controller reaches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Memory {
    /// Memory of its own.
    Own(Capacity),
    /// Memory of its own, in one window of bus addresses for each pool.
    Linear(Capacity),
    /// That of the controller at this place among the requests, which comes before it and has its own.
    Shared(usize),
    /// None: only its registers are used, and it does not interrupt.
    None,
}

/// A controller to open.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    /// Where it is.
    pub address: Address,
    /// The memory it reaches.
    pub memory: Memory,
    /// Whether it is to manage migrations, if it is embedded: the controllers of an embedded subsystem are made as they are
    /// named. Controller 1 always does.
    pub managing: bool,
    /// I/O queue pairs it will have, each of which gets an interrupt vector if there are enough.
    pub queues: u16,
}

/// What keeps memory mapped.
#[derive(Debug)]
enum Mapped {
    Vfio { _space: vfio::MappedSpace },
    VfioUser { _space: vfio_user::MappedSpace },
}

/// An open controller.
#[derive(Debug)]
pub struct Device {
    address: Address,
    registers: Registers,
    wake: Wake,
    vectors: Option<u16>,
    space: Arc<AddressSpace>,
}

impl Device {
    /// Where it is.
    #[must_use]
    pub const fn address(&self) -> &Address {
        &self.address
    }

    /// Its registers.
    #[must_use]
    pub const fn registers(&self) -> &Registers {
        &self.registers
    }

    /// The memory it reaches.
    #[must_use]
    pub const fn space(&self) -> &Arc<AddressSpace> {
        &self.space
    }

    /// How it wakes its driver.
    #[must_use]
    pub const fn wake(&self) -> &Wake {
        &self.wake
    }

    /// Interrupt vectors in use, that of the admin queue among them; none where they need not be counted.
    #[must_use]
    pub const fn vectors(&self) -> Option<u16> {
        self.vectors
    }

    /// The interrupt vector for an I/O queue pair, if there are interrupts: the admin queue has vector 0, and where there are
    /// fewer vectors than queues some have one in common.
    #[must_use]
    pub fn vector(&self, queue: QueueId) -> Option<u16> {
        vector(self.vectors, queue)
    }

    fn embedded(
        address: Address,
        subsystem: &EmbeddedSubsystem,
        (id, space, signal): &(ControllerId, Arc<AddressSpace>, Arc<Signal>),
    ) -> Option<Self> {
        let registers = Registers::Embedded(subsystem.controller(*id)?);
        let (wake, space) = (Wake::Signal(Arc::clone(signal)), Arc::clone(space));
        Some(Self { address, registers, wake, vectors: None, space })
    }
}

/// Controllers that were opened together.
#[derive(Debug)]
pub struct Devices {
    // Controllers go before the subsystems they belong to, and before the memory they reach: each is made to leave memory
    // alone first.
    devices: Vec<Device>,
    _mapped: Vec<Mapped>,
    subsystems: BTreeMap<String, EmbeddedSubsystem>,
    faults: BTreeMap<String, Arc<[FaultSlot]>>,
}

impl Drop for Devices {
    fn drop(&mut self) {
        for device in &self.devices {
            // Whoever else has its registers must not let it reach memory that goes now. One that is gone reaches none.
            let _ = device.registers.set_bus_master(false);
        }
    }
}

/// A controller that is open and reaches no memory yet.
enum Opened {
    Embedded(String, ControllerId),
    Vfio(Box<vfio::VfioController>),
    VfioUser(Box<RemoteController>),
}

/// Vectors for the admin queue and the I/O queues of a controller, as far as there are `found`.
fn wanted_vectors(request: &Request, found: u32, mode: InterruptMode) -> u16 {
    match (mode, request.memory) {
        (InterruptMode::Polling, _) | (_, Memory::None) => 0,
        _ => request.queues.saturating_add(1).min(u16::try_from(found).unwrap_or(u16::MAX)),
    }
}

/// Address space of a controller that reaches no memory; it is not mapped.
pub(super) fn no_memory() -> Result<Arc<AddressSpace>, OpenError> {
    let none = Capacity { queues: 1, data: 1, controller_data: 1 };
    AddressSpace::new("unused", none).map(Arc::new).map_err(OpenError::Memory)
}

impl Devices {
    /// Opens all controllers that are asked for, in any state they are. An embedded one and one behind a socket are not
    /// touched beyond their configuration space. The kernel resets a PCI function when it is opened, and again when it is
    /// closed, where the function can be reset.
    ///
    /// # Errors
    /// What keeps one of them from being opened; none is open then.
    pub fn open(requests: &[Request], options: &OpenOptions) -> Result<Self, OpenError> {
        for (at, request) in requests.iter().enumerate() {
            if requests[..at].iter().any(|other| resolved(&other.address) == resolved(&request.address)) {
                return Err(OpenError::Twice(request.address.clone()));
            }
        }
        let functions = requests.iter().any(|request| matches!(request.address, Address::Vfio(_)));
        let container =
            if functions { Some(Container::with(Sysfs::default(), options.iommu)?) } else { None };
        let mut opened = Vec::new();
        for request in requests {
            opened.push(match (&request.address, &container) {
                (Address::Vfio(function), Some(container)) => {
                    let looks_only = request.memory == Memory::None;
                    let vf_token = options.vf_token;
                    let options = vfio::OpenOptions { vf_token, looks_only, ..Default::default() };
                    let opened = match container.open(*function, &options) {
                        // One that takes no part in virtualisation stands beside those that do.
                        Err(vfio::Error::NoToken(_)) => {
                            container.open(*function, &vfio::OpenOptions { vf_token: None, ..options })
                        }
                        result => result,
                    };
                    Opened::Vfio(Box::new(opened?))
                }
                (Address::VfioUser(path), _) => {
                    let mut connect = ConnectOptions::default();
                    if let Some(timeout) = options.timeout {
                        connect.timeout = timeout;
                    }
                    Opened::VfioUser(Box::new(
                        RemoteController::connect(path, &connect)
                            .map_err(|error| OpenError::Socket(path.clone(), error))?,
                    ))
                }
                (Address::Embedded { subsystem, controller }, _) => {
                    Opened::Embedded(subsystem.clone(), controller.unwrap_or(MANAGER))
                }
                // There is a container if there is a function.
                (Address::Vfio(function), None) => return Err(vfio::Error::NoFunction(*function).into()),
            });
        }
        let spaces = spaces(requests, &opened, container.as_ref(), options.backing)?;
        let mut signals = Vec::new();
        let mut used = BTreeMap::<String, Vec<Used>>::new();
        for ((request, opened), space) in requests.iter().zip(&opened).zip(&spaces) {
            let signal = Arc::<Signal>::default();
            if let Opened::Embedded(name, id) = opened {
                let entry = Used {
                    id: *id,
                    managing: request.managing,
                    memory: Arc::clone(space),
                    signal: Arc::clone(&signal),
                };
                used.entry(name.clone()).or_default().push(entry);
            }
            signals.push(signal);
        }
        let (subsystems, faults) = start_subsystems(&used, &options.embedded)?;
        // On the way out, too, controllers go before the memory they reach.
        let mut mapped = Vec::new();
        let mut devices: Vec<Device> = Vec::new();
        let mut reached: Vec<Arc<AddressSpace>> = Vec::new();
        for (((request, opened), space), signal) in requests.iter().zip(opened).zip(spaces).zip(signals) {
            let address = request.address.clone();
            let device = match opened {
                Opened::Embedded(name, id) => subsystems
                    .get(&name)
                    .and_then(|subsystem| Device::embedded(address, subsystem, &(id, space, signal)))
                    .ok_or(OpenError::NoController(name, id))?,
                Opened::Vfio(controller) => {
                    let count = wanted_vectors(request, controller.interrupt_vectors(), options.interrupts);
                    let wake = match count {
                        0 => Wake::Polling,
                        _ => Wake::Vectors(Arc::new(controller.enable_interrupts(count)?)),
                    };
                    // A space that several functions share is mapped once, because they share the container.
                    match &container {
                        Some(container)
                            if request.memory != Memory::None
                                && !reached.iter().any(|other| Arc::ptr_eq(other, &space)) =>
                        {
                            reached.push(Arc::clone(&space));
                            mapped.push(Mapped::Vfio { _space: container.map(&space)? });
                        }
                        _ => {}
                    }
                    let registers = Registers::Vfio(Arc::new(*controller));
                    Device { address, registers, wake, vectors: Some(count), space }
                }
                Opened::VfioUser(controller) => {
                    let count = wanted_vectors(request, controller.interrupt_vectors(), options.interrupts);
                    let wake = match count {
                        0 => Wake::Polling,
                        _ => Wake::Vectors(Arc::new(controller.enable_interrupts(count)?)),
                    };
                    if request.memory != Memory::None {
                        mapped.push(Mapped::VfioUser { _space: controller.map(&space)? });
                    }
                    let registers = Registers::VfioUser(Arc::new(*controller));
                    Device { address, registers, wake, vectors: Some(count), space }
                }
            };
            devices.push(device);
        }
        Ok(Self { devices, _mapped: mapped, subsystems, faults })
    }

    /// The controllers, in the order in which they were asked for.
    #[must_use]
    pub fn all(&self) -> &[Device] {
        &self.devices
    }

    /// The controller at `address`.
    #[must_use]
    pub fn at(&self, address: &Address) -> Option<&Device> {
        self.devices.iter().find(|device| resolved(&device.address) == resolved(address))
    }

    /// The faults of an embedded subsystem, with how often each occurred; none if it does not run.
    #[must_use]
    pub fn faults(&self, subsystem: &str) -> &[FaultSlot] {
        self.faults.get(subsystem).map_or(&[], |faults| faults)
    }

    /// Names of the embedded subsystems that run for these controllers.
    pub fn subsystems(&self) -> impl Iterator<Item = &str> {
        self.subsystems.keys().map(String::as_str)
    }
}

/// The interrupt vector for an I/O queue pair of a controller with so many `vectors`, as [`Device::vector`].
pub(crate) const fn vector(vectors: Option<u16>, queue: QueueId) -> Option<u16> {
    match vectors {
        None => Some(queue.get()),
        Some(0) => None,
        Some(count) => Some(queue.get() % count),
    }
}

/// Whether two addresses lead to one controller.
pub(crate) fn is_same_controller(one: &Address, other: &Address) -> bool {
    resolved(one) == resolved(other)
}

/// An address with what it leaves out.
fn resolved(address: &Address) -> Address {
    match address {
        Address::Embedded { subsystem, controller } => Address::Embedded {
            subsystem: subsystem.clone(),
            controller: Some(controller.unwrap_or(MANAGER)),
        },
        other => other.clone(),
    }
}

/// Memory for each request: where the IOMMU has addresses if there is one, as it lies in its file if a server is to map it,
/// otherwise scattered.
fn spaces(
    requests: &[Request],
    opened: &[Opened],
    container: Option<&Arc<Container>>,
    backing: Backing,
) -> Result<Vec<Arc<AddressSpace>>, OpenError> {
    let linear = opened.iter().any(|opened| !matches!(opened, Opened::Embedded(..)));
    let mut placed: Vec<(u64, u64)> = Vec::new();
    let mut spaces: Vec<Arc<AddressSpace>> = Vec::new();
    for request in requests {
        let name = request.address.to_string();
        let space = match (request.memory, container) {
            (Memory::None, _) => no_memory()?,
            (Memory::Shared(other), _) => {
                spaces.get(other).cloned().ok_or_else(|| OpenError::Twice(request.address.clone()))?
            }
            (Memory::Own(capacity) | Memory::Linear(capacity), Some(container)) => {
                let start = container.choose(capacity, backing, &placed)?;
                placed.push((start, start + AddressSpace::linear_span(capacity, backing) - 1));
                let space = AddressSpace::linear_at(&name, capacity, BusAddr::new(start), backing);
                Arc::new(space.map_err(|error| OpenError::Memory(error.into()))?)
            }
            (Memory::Linear(capacity), None) => {
                let space = AddressSpace::linear_of(&name, capacity, backing);
                Arc::new(space.map_err(|error| OpenError::Memory(error.into()))?)
            }
            (Memory::Own(capacity), None) if linear => {
                let space = AddressSpace::linear_of(&name, capacity, backing);
                Arc::new(space.map_err(|error| OpenError::Memory(error.into()))?)
            }
            (Memory::Own(capacity), None) => {
                Arc::new(AddressSpace::new(&name, capacity).map_err(OpenError::Memory)?)
            }
        };
        spaces.push(space);
    }
    Ok(spaces)
}

/// Embedded subsystems by name, and what each does wrong.
type Subsystems = (BTreeMap<String, EmbeddedSubsystem>, BTreeMap<String, Arc<[FaultSlot]>>);

fn start_subsystems(
    used: &BTreeMap<String, Vec<Used>>,
    options: &[EmbeddedOptions],
) -> Result<Subsystems, OpenError> {
    let mut images = Vec::new();
    for (at, option) in options.iter().enumerate() {
        if options[..at].iter().any(|other| other.name == option.name) {
            return Err(OpenError::TwiceConfigured(option.name.clone()));
        }
        if !used.contains_key(&option.name) {
            return Err(OpenError::NotUsed(option.name.clone()));
        }
        // What is wrong with a file otherwise is found when it is opened.
        if let Some(path) = &option.image
            && let Ok(found) = fs::metadata(path)
        {
            let file = (found.dev(), found.ino());
            if images.contains(&file) {
                return Err(OpenError::ImageTwice(path.clone()));
            }
            images.push(file);
        }
    }
    let (mut subsystems, mut faults) = Subsystems::default();
    for (name, controllers) in used {
        let option = options.iter().find(|option| option.name == *name).cloned();
        let option = option.unwrap_or_else(|| EmbeddedOptions::new(name));
        let slots: Arc<[FaultSlot]> = option.faults.iter().copied().map(FaultSlot::new).collect();
        subsystems.insert(name.clone(), option.start(controllers, Arc::clone(&slots))?);
        faults.insert(name.clone(), slots);
    }
    Ok((subsystems, faults))
}

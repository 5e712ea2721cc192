// SPDX-License-Identifier: MIT OR Apache-2.0
//! What a back end gives the cases: fresh subsystems, and everything a host can do to their controllers.

use std::any::Any;
use std::fmt;
use std::rc::Rc;

use nvme_controller::{ControllerConfig, SubsystemConfig};
use nvme_core::dma::DmaArena;
use nvme_core::register::RegisterIo;

use crate::sys::Confined;

/// Something that cases demand beyond an NVMe controller with registers and memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Need {
    /// Subsystems made as the [`Topology`] says: controllers, roles, namespaces, limits and quirks.
    Topology,
    /// Two subsystems at once whose controllers share one bus address space.
    SharedMemory,
    /// Interrupts can be seen, by vector.
    Interrupts,
    /// Controllers can be reset from outside (function level reset).
    FunctionLevelReset,
    /// Accesses of one and two bytes and misaligned ones can be made, whatever comes of them.
    OddAccesses,
}

impl Need {
    /// All of them.
    pub const ALL: &[Self] =
        &[Self::Topology, Self::SharedMemory, Self::Interrupts, Self::FunctionLevelReset, Self::OddAccesses];
}

impl fmt::Display for Need {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Topology => "a subsystem of the described topology",
            Self::SharedMemory => "two subsystems with shared memory",
            Self::Interrupts => "interrupts that can be seen",
            Self::FunctionLevelReset => "function level reset",
            Self::OddAccesses => "narrow and misaligned register accesses",
        })
    }
}

/// A requirement that a back end cannot give, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unavailable {
    /// What was asked for.
    pub need: String,
    /// Why it is not to be had.
    pub reason: String,
}

impl fmt::Display for Unavailable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "not to be had: {}: {}", self.need, self.reason)
    }
}

/// A namespace that all controllers see. Its blocks are deallocated at first.
#[derive(Clone, Copy, Debug)]
pub struct NamespaceShape {
    /// Namespace identifier.
    pub id: u32,
    /// log2 of the block size in bytes.
    pub block_shift: u8,
    /// Number of blocks.
    pub blocks: u64,
}

/// The subsystem that a case asks for.
#[derive(Clone)]
pub struct Topology {
    /// What the subsystem is like.
    pub config: SubsystemConfig<'static>,
    /// Its controllers, in the order in which cases number them.
    pub controllers: Vec<ControllerConfig>,
    /// For each controller the memory that it shares with one of another subsystem, or none for memory of its own.
    pub memories: Vec<Option<Rc<dyn BusMemory>>>,
    /// Its namespaces.
    pub namespaces: Vec<NamespaceShape>,
    /// Controller Data Queues that can exist at once.
    pub data_queues: usize,
    /// Queue pairs of each controller, the admin queue pair included.
    pub queue_pairs: usize,
    /// Commands a controller may have fetched and not completed.
    pub commands: usize,
    /// Asynchronous Event Requests that may be outstanding at a controller.
    pub event_requests: usize,
    /// Bytes of controller state that a migratable controller can receive.
    pub state_bytes: usize,
    /// Memory ranges of one controller that can be tracked.
    pub tracked_ranges: usize,
    /// Words of 64 granules each that one controller's tracking has room for.
    pub tracked_words: usize,
}

/// Where the list is run.
pub trait Backend: Sync {
    /// Why `need` cannot be given, or `None` if it can.
    fn lacks(&self, need: Need) -> Option<String>;

    /// Whether an Abort command that names a submission queue which is not there may be refused as an invalid field. The
    /// specification leaves it open; one that is asked here knows which.
    fn may_refuse_abort_of_no_queue(&self) -> bool {
        false
    }

    /// Makes a fresh subsystem with all controllers disabled. A back end that lacks [`Need::Topology`] gives what it
    /// has, in a state as after a reset, with the controller under test as number 0.
    ///
    /// # Errors
    /// [`Unavailable`] naming what of the topology cannot be.
    fn open(&self, topology: Topology) -> Result<Box<dyn Device>, Unavailable>;
}

/// How much the controllers are let work.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Work {
    /// Take commands and leave them under way, where the back end can; else nothing.
    Take,
    /// Do a little: a command or two for each controller.
    Little,
    /// Come to rest. Bounded: a controller that never does ends the case.
    Settle,
}

/// A register access that a back end does not make.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AccessRefused {
    /// Byte offset.
    pub offset: u32,
    /// Bytes.
    pub width: u8,
}

/// The properties and doorbells of one controller, as the driver reaches them.
pub type Registers = dyn RegisterIo<Error = AccessRefused>;

/// A subsystem under test. Controllers are named by their place in [`Topology::controllers`].
pub trait Device: Confined {
    /// Reads `width` bytes (1, 2, 4 or 8), little-endian, as one access.
    ///
    /// # Errors
    /// [`AccessRefused`] if no such access exists.
    fn read(&self, controller: usize, offset: u32, width: u8) -> Result<u64, AccessRefused>;

    /// Writes the low `width` bytes (1, 2, 4 or 8) of `value` as one access.
    ///
    /// # Errors
    /// [`AccessRefused`] if no such access exists.
    fn write(&self, controller: usize, offset: u32, width: u8, value: u64) -> Result<(), AccessRefused>;

    /// The registers for a driver.
    fn registers(&self, controller: usize) -> &Registers;

    /// The memory that the controller reaches, byte by byte.
    fn memory(&self, controller: usize) -> Rc<dyn BusMemory>;

    /// The same memory for a driver.
    fn arena(&self, controller: usize) -> &dyn DmaArena;

    /// Lets all controllers work. Returns whether they did what was asked; `false` after [`Work::Settle`] says that
    /// they never came to rest within the bound.
    fn work(&self, work: Work) -> bool;

    /// The interrupts since the last call, as (controller, vector).
    fn interrupts(&self) -> Vec<(usize, u16)>;

    /// Resets a controller from outside.
    fn function_level_reset(&self, controller: usize);
}

/// The bus address space of one controller, from the host's side. Accesses of the host to what it did not allocate
/// end the case.
pub trait BusMemory: Any {
    /// Zeroed memory of `len` bytes, contiguous on the bus, at a multiple of `align`, with unmapped addresses behind
    /// it. It stays mapped.
    fn allocate(&self, len: u64, align: u64) -> u64;

    /// Copies out of the memory at `address`.
    fn read(&self, address: u64, bytes: &mut [u8]);

    /// Copies into the memory at `address`.
    fn write(&self, address: u64, bytes: &[u8]);

    /// A page-aligned address that the controller cannot reach.
    fn unmapped(&self) -> u64;
}

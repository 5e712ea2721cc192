// SPDX-License-Identifier: MIT OR Apache-2.0
//! The subsystem: all controllers, namespaces and data queues, and the calls that drive them.

use nvme_core::wire::register::ShutdownNotification;
use nvme_core::wire::{ControllerId, NamespaceId};

use crate::cdq::DataQueueSlot;
use crate::config::SubsystemConfig;
use crate::controller::Controller;
use crate::fault::FaultTable;
use crate::host::{BlockStorage, HostMemory, Interrupts};
use crate::migration::Run;
use crate::namespace::Namespace;
use crate::registers::Shutdown;

/// Everything lent to a subsystem for as long as it exists.
#[derive(Debug)]
pub struct SubsystemStorage<'s, M, S> {
    /// Its controllers, identifiers ascending.
    pub controllers: &'s mut [Controller<'s, M>],
    /// Its namespaces, identifiers ascending, all attached to every controller.
    pub namespaces: &'s mut [Namespace<S>],
    /// Room for Controller Data Queues.
    pub data_queues: &'s mut [DataQueueSlot],
    /// Where data passes through: at least 4,096 bytes, two of the largest block, and the largest state image of a
    /// migratable controller ([`state_bytes`](crate::state_bytes)). Larger transfers go through it in pieces.
    pub scratch: &'s mut [u8],
}

/// Why a subsystem cannot be made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ConfigError {
    /// A controller identifier does not ascend, or is FFF0h or higher.
    ControllerId(ControllerId),
    /// A controller has fewer slots than it needs: two queue pairs, three commands, one event request, one vector.
    TooFewSlots(ControllerId),
    /// A namespace identifier is 0 or FFFFFFFFh, or does not ascend.
    NamespaceId(NamespaceId),
    /// The block size of this namespace is not 512 bytes to 64 KiB.
    BlockSize(NamespaceId),
    /// The scratch memory is smaller than what passes through it as a whole.
    Scratch {
        /// Bytes given.
        bytes: usize,
        /// Bytes needed.
        needed: usize,
    },
    /// The largest queue has fewer than 2 or more than 65,536 entries.
    QueueEntries(u32),
    /// Page sizes outside 4 KiB to 64 KiB, or the smallest larger than the largest.
    PageSizes {
        /// log2 of the smallest.
        min: u8,
        /// log2 of the largest.
        max: u8,
    },
    /// A text is longer than its field, or not ASCII.
    Text(&'static str),
    /// The abort limit is not 1 to 256.
    AbortLimit(u16),
}

impl core::fmt::Display for ConfigError {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            Self::ControllerId(id) => {
                write!(
                    f,
                    "controller identifier {id} does not ascend or is above 0xffef; list lower ones first"
                )
            }
            Self::TooFewSlots(id) => write!(
                f,
                "controller {id} needs at least two queue pairs, three command slots, one event request and one vector"
            ),
            Self::NamespaceId(id) => {
                write!(f, "namespace identifier {id} is reserved or does not ascend; list lower ones first")
            }
            Self::BlockSize(id) => write!(f, "blocks of namespace {id} must be 512 bytes to 64 KiB"),
            Self::Scratch { bytes, needed } => {
                write!(f, "scratch memory of {bytes} bytes is too small; lend at least {needed}")
            }
            Self::QueueEntries(entries) => {
                write!(f, "queues of {entries} entries are not possible; choose 2 to 65536")
            }
            Self::PageSizes { min, max } => {
                write!(f, "page sizes of 2^{min} to 2^{max} bytes; choose 12 to 16, smallest first")
            }
            Self::Text(field) => {
                write!(f, "{field} is longer than its field or not ASCII; shorten or replace it")
            }
            Self::AbortLimit(limit) => {
                write!(f, "abort limit {limit} is outside 1 to 256; choose one inside")
            }
        }
    }
}

impl core::error::Error for ConfigError {}

/// Names one controller in calls to a subsystem; stays valid for the subsystem's life.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Port(pub(crate) usize);

/// What a [`poll`](Subsystem::poll) did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Activity {
    /// Commands fetched from submission queues.
    pub fetched: u32,
    /// Commands begun or finished, and events reported.
    pub executed: u32,
    /// Whether fetched commands are left to execute.
    pub pending: bool,
}

impl Activity {
    /// Whether nothing was done and nothing is left to do until a register is written.
    #[must_use]
    pub const fn is_idle(&self) -> bool {
        self.fetched == 0 && self.executed == 0 && !self.pending
    }
}

/// An NVM subsystem. It does nothing by itself: property accesses change state at once, and
/// [`poll`](Self::poll) fetches and executes commands.
#[derive(Debug)]
pub struct Subsystem<'s, M, S, I> {
    pub(crate) config: SubsystemConfig<'s>,
    pub(crate) controllers: &'s mut [Controller<'s, M>],
    pub(crate) namespaces: &'s mut [Namespace<S>],
    pub(crate) data_queues: &'s mut [DataQueueSlot],
    pub(crate) scratch: &'s mut [u8],
    pub(crate) interrupts: I,
    pub(crate) next_controller: usize,
    /// Bytes of work that the controller whose turn it is has done.
    pub(crate) work: u64,
    /// Microseconds, as last told by [`advance`](Self::advance).
    pub(crate) now: u64,
    /// What its controllers do wrong.
    pub(crate) faults: Option<FaultTable<'s>>,
}

impl<'s, M: HostMemory, S: BlockStorage, I: Interrupts> Subsystem<'s, M, S, I> {
    /// A subsystem with all its controllers disabled, which interrupts through `interrupts`.
    ///
    /// # Errors
    /// [`ConfigError`] naming what cannot be.
    pub fn new(
        config: SubsystemConfig<'s>,
        storage: SubsystemStorage<'s, M, S>,
        interrupts: I,
    ) -> Result<Self, ConfigError> {
        check_config(&config)?;
        let mut needed = 4096;
        let mut previous = None;
        for controller in storage.controllers.iter() {
            let id = controller.id();
            if id.get() >= 0xFFF0 || previous.is_some_and(|previous| previous >= id) {
                return Err(ConfigError::ControllerId(id));
            }
            previous = Some(id);
            if controller.config.manager().is_none() {
                needed = needed.max(controller.state_bytes());
            }
            if controller.submission_queues.len() < 2
                || controller.completion_queues.len() < 2
                || controller.commands.room() < 2
                || controller.events.limit() == 0
                || controller.config.interrupt_vectors == 0
            {
                return Err(ConfigError::TooFewSlots(id));
            }
        }
        let mut previous = NamespaceId::NONE;
        for namespace in storage.namespaces.iter() {
            let id = namespace.id;
            if id == NamespaceId::ALL || id <= previous {
                return Err(ConfigError::NamespaceId(id));
            }
            previous = id;
            if !(9..=16).contains(&namespace.storage.block_shift()) {
                return Err(ConfigError::BlockSize(id));
            }
            needed = needed.max(namespace.block_bytes().saturating_mul(2));
        }
        if storage.scratch.len() < needed {
            return Err(ConfigError::Scratch { bytes: storage.scratch.len(), needed });
        }
        for controller in storage.controllers.iter_mut() {
            controller.features = crate::features::Features::reset(config.volatile_write_cache);
        }
        storage.data_queues.fill(DataQueueSlot::new());
        Ok(Self {
            config,
            controllers: storage.controllers,
            namespaces: storage.namespaces,
            data_queues: storage.data_queues,
            scratch: storage.scratch,
            interrupts,
            next_controller: 0,
            work: 0,
            now: 0,
            faults: None,
        })
    }

    /// The port of the controller with identifier `id`.
    #[must_use]
    pub fn port(&self, id: ControllerId) -> Option<Port> {
        self.index_of(id).map(Port)
    }

    /// The controller at `port`.
    #[must_use]
    pub fn controller(&self, port: Port) -> Option<&Controller<'s, M>> {
        self.controllers.get(port.0)
    }

    /// The namespaces.
    #[must_use]
    pub fn namespaces(&self) -> &[Namespace<S>] {
        self.namespaces
    }

    /// The interrupt sink it was given.
    #[must_use]
    pub const fn interrupts(&self) -> &I {
        &self.interrupts
    }

    pub(crate) fn index_of(&self, id: ControllerId) -> Option<usize> {
        self.controllers.iter().position(|controller| controller.id() == id)
    }

    pub(crate) fn namespace_index(&self, id: NamespaceId) -> Option<usize> {
        self.namespaces.iter().position(|namespace| namespace.id == id)
    }

    /// Largest namespace identifier in use (NN).
    pub(crate) fn max_namespace(&self) -> u32 {
        self.namespaces.iter().map(|namespace| namespace.id.get()).max().unwrap_or(0)
    }

    /// Does up to `budget` units of work: at each controller fetches up to `budget` commands, then begins or finishes
    /// up to `budget` of the fetched ones at each, and reports events and interrupts.
    ///
    /// A fused pair is fetched as a whole, so that one command more may be fetched at each controller.
    /// Bounded by the budget, the number of controllers and queues, and for the data of the commands of each controller
    /// by [`turn_bytes`](SubsystemConfig::turn_bytes) and the largest command.
    pub fn poll(&mut self, budget: u32) -> Activity {
        let fetched = self.fetch(budget);
        let mut activity = self.execute(budget);
        activity.fetched = fetched;
        activity
    }

    /// The first half of [`poll`](Self::poll): fetches up to `budget` commands at each controller and returns how
    /// many. Between both halves commands are under way, which is what Suspend waits for and Abort aborts.
    pub fn fetch(&mut self, budget: u32) -> u32 {
        if self.faults.is_some() {
            self.note_cut_off();
        }
        let mut fetched = 0_u32;
        for controller in self.controllers.iter_mut() {
            fetched = fetched.saturating_add(controller.fetch(budget));
        }
        fetched
    }

    /// The second half of [`poll`](Self::poll): executes commands that were fetched.
    pub fn execute(&mut self, budget: u32) -> Activity {
        let mut executed = 0_u32;
        let mut pending = self.faults.is_some() && self.poll_faults();
        let count = self.controllers.len();
        let first = self.next_controller;
        self.next_controller = match first.checked_add(1) {
            Some(next) if next < count => next,
            _ => 0,
        };
        for step in 0..count {
            let index = first.saturating_add(step);
            let index = if index >= count { index.saturating_sub(count) } else { index };
            executed = executed.saturating_add(self.execute_at(index, budget));
        }
        for index in 0..count {
            executed = executed.saturating_add(self.settle(index));
            pending |= self
                .controllers
                .get(index)
                .is_some_and(|controller| !controller.commands.is_empty() && !controller.cut_off);
        }
        self.signal();
        Activity { fetched: 0, executed, pending }
    }

    /// Calls out for the completion queues that have something new and whose vector is not masked.
    fn signal(&mut self) {
        for controller in self.controllers.iter_mut().filter(|controller| controller.notify) {
            controller.signal(&self.interrupts);
        }
    }

    /// Tells the time, in microseconds from an arbitrary origin; keep alive timers and fault rules that delay by time
    /// need it.
    pub fn advance(&mut self, now: u64) {
        self.now = now;
        for controller in self.controllers.iter_mut() {
            // A suspended controller cannot take the Keep Alive that its host sends, and one that shuts down needs none.
            if controller.registers.ready
                && controller.target.run == Run::Running
                && controller.registers.shutdown == Shutdown::None
                && controller.registers.shutdown_notification() == ShutdownNotification::None
                && controller.keep_alive_deadline.is_some_and(|deadline| now >= deadline)
            {
                controller.keep_alive_deadline = None;
                controller.fail();
            }
        }
    }
}

fn check_config(config: &SubsystemConfig<'_>) -> Result<(), ConfigError> {
    if !(2..=65_536).contains(&config.max_queue_entries) {
        return Err(ConfigError::QueueEntries(config.max_queue_entries));
    }
    let (min, max) = (config.min_page_shift, config.max_page_shift);
    if min < 12 || max > 16 || min > max {
        return Err(ConfigError::PageSizes { min, max });
    }
    if !(1..=256).contains(&config.abort_limit) {
        return Err(ConfigError::AbortLimit(config.abort_limit));
    }
    for (field, text, limit) in [
        ("serial number", config.serial_number, 20),
        ("model number", config.model_number, 40),
        ("firmware revision", config.firmware_revision, 8),
    ] {
        if text.len() > limit || !text.is_ascii() {
            return Err(ConfigError::Text(field));
        }
    }
    if config.name.len() > 255 {
        return Err(ConfigError::Text("subsystem name"));
    }
    Ok(())
}

// SPDX-License-Identifier: MIT OR Apache-2.0
//! A controller in use from one thread that may wait: brought up, identified, asked one command after another, and brought
//! down.
//!
//! ```
//! use std::time::Duration;
//!
//! use nvme_host_linux::backend::{Devices, Memory, OpenOptions, Request};
//! use nvme_host_linux::memory::Capacity;
//! use nvme_host_linux::session::{Session, Storage};
//!
//! let capacity = Capacity { queues: 4 << 20, data: 4 << 20, controller_data: 1 << 20 };
//! let request = Request { address: "embedded:demo".parse()?, memory: Memory::Own(capacity), managing: true, queues: 1 };
//! let devices = Devices::open(&[request], &OpenOptions::default())?;
//! let mut storage = Storage::new(1, 32);
//! let mut session = Session::open(&devices.all()[0], &mut storage, Duration::from_secs(10))?;
//! assert!(session.identity().is_manager());
//! session.close()?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

use std::time::Duration;

use nvme_core::admin::{AdminData, AdminOutcome, AdminPort, AdminRequest, AdminSlot, CallError, SubmitError};
use nvme_core::cdq::Quarantined;
use nvme_core::controller::{EnableOptions, Link};
use nvme_core::dma::{Direction, DmaArena, DmaRegion, Pool};
use nvme_core::io::{Buffer, IoSlot};
use nvme_core::migration::Quirks;
use nvme_core::time::Instant;
use nvme_core::wire::admin::{Identify, IdentifyStructure};
use nvme_core::wire::identify::{ControllerIdentity, NamespaceIdentity};
use nvme_core::wire::{
    Command, CompletionQueueEntry, NamespaceId, QueueId, StatusCode, SubmissionQueueEntry,
};

use crate::backend::{Device, Registers};
use crate::driver::{
    Clock, Controller, DriverError, Ending, IDENTIFY_BYTES, Kept, QueuePair, Waiter, admin, bring_down_then,
    bring_up, create_pair, identify_controller_bytes, request_queues_up_to, take_down,
};
use crate::memory::AddressSpace;
use crate::quirks::QuirkChoice;

/// Admin commands that can be outstanding, among them requests for events.
const ADMIN_SLOTS: usize = 32;
/// Longest transfer of one command.
pub const MAX_TRANSFER: usize = 1 << 20;

/// What a session keeps its commands in; lent to it.
#[derive(Debug)]
pub struct Storage {
    link: Link,
    admin: Vec<AdminSlot>,
    io: Vec<Vec<IoSlot<u64>>>,
}

impl Storage {
    /// Room for `queues` I/O queue pairs with `depth` commands each.
    #[must_use]
    pub fn new(queues: u16, depth: u16) -> Self {
        Self {
            link: Link::new(),
            admin: (0..ADMIN_SLOTS).map(|_| AdminSlot::new()).collect(),
            io: (0..queues).map(|_| (0..depth.max(1)).map(|_| IoSlot::new()).collect()).collect(),
        }
    }
}

/// What the data pointer of a command is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Data<'a> {
    /// Nothing.
    None,
    /// The controller writes so many bytes.
    Receive(usize),
    /// The controller reads these.
    Send(&'a [u8]),
}

/// An I/O queue pair of a session; its tags are the caller's.
pub type Pair<'d> = QueuePair<'d, 'd, Registers, u64>;

/// A controller in use.
pub struct Session<'d> {
    device: &'d Device,
    controller: Controller<'d, 'd, Registers>,
    identity: ControllerIdentity,
    identify_bytes: Vec<u8>,
    timeout: Duration,
    clock: Clock<'static>,
    /// Slots of queue pairs that do not exist yet.
    slots: Vec<&'d mut [IoSlot<u64>]>,
    pairs: Vec<Pair<'d>>,
    granted: Option<u16>,
    kept: Kept,
    quirks: Quirks,
}

/// Whether two controllers are certainly of different subsystems: their names tell, or serial numbers where they have none.
/// Some models give each controller a serial number of its own.
pub(crate) fn are_of_different_subsystems(one: &ControllerIdentity, other: &ControllerIdentity) -> bool {
    one.subsystem_name != other.subsystem_name
        || one.subsystem_name.as_bytes().is_empty() && one.serial_number != other.serial_number
}

impl<'d> Session<'d> {
    /// Brings the controller up in whatever state it is, and identifies it. Every command is given up after `timeout`.
    ///
    /// # Errors
    /// Why it cannot be driven.
    pub fn open(
        device: &'d Device,
        storage: &'d mut Storage,
        timeout: Duration,
    ) -> Result<Self, DriverError> {
        let clock = Clock::new();
        let waiter = Waiter { timeout, ..Waiter::new(clock, device.wake()) };
        let Storage { link, admin, io } = storage;
        let options = EnableOptions::default();
        let mut controller = bring_up(device.registers(), device.space(), link, admin, &options, waiter)?;
        let (identity, identify_bytes) = match identify_controller_bytes(&mut controller, waiter) {
            Ok(identified) => identified,
            Err(error) => {
                // What it could not say matters more than how it goes down.
                let _ = bring_down_then(controller, device.space(), Kept::default(), waiter, |_| {});
                return Err(error);
            }
        };
        Ok(Self {
            device,
            controller,
            identify_bytes,
            timeout,
            clock,
            // The first one is taken from the end.
            slots: io.iter_mut().rev().map(Vec::as_mut_slice).collect(),
            pairs: Vec::new(),
            granted: None,
            kept: Kept::default(),
            quirks: QuirkChoice::default().of(&identity),
            identity,
        })
    }

    /// Where the controller is.
    #[must_use]
    pub const fn device(&self) -> &'d Device {
        self.device
    }

    /// What it says it is.
    #[must_use]
    pub const fn identity(&self) -> &ControllerIdentity {
        &self.identity
    }

    /// The bytes of Identify Controller.
    #[must_use]
    pub fn identify_bytes(&self) -> &[u8] {
        &self.identify_bytes
    }

    /// The memory it reaches.
    #[must_use]
    pub fn space(&self) -> &'d AddressSpace {
        self.device.space()
    }

    /// How long a command may take.
    #[must_use]
    pub const fn timeout(&self) -> Duration {
        self.timeout
    }

    /// Gives commands another time-out from now on.
    pub const fn set_timeout(&mut self, timeout: Duration) {
        self.timeout = timeout;
    }

    /// In which ways the controller deviates from the specification: those of its model, unless they were set.
    #[must_use]
    pub const fn quirks(&self) -> Quirks {
        self.quirks
    }

    /// Takes the controller to have these quirks and no others.
    pub const fn set_quirks(&mut self, quirks: Quirks) {
        self.quirks = quirks;
    }

    /// The session's clock.
    #[must_use]
    pub fn now(&self) -> Instant {
        self.clock.now()
    }

    pub(crate) fn waiter(&self) -> Waiter<'d> {
        Waiter { timeout: self.timeout, ..Waiter::new(self.clock, self.device.wake()) }
    }

    /// Sleeps until the controller interrupts, a few milliseconds at most.
    pub fn nap(&self) {
        self.waiter().nap();
    }

    /// The controller itself, to poll step machines over its admin queue.
    pub const fn controller(&mut self) -> &mut Controller<'d, 'd, Registers> {
        &mut self.controller
    }

    /// Smallest page of the controller in bytes (CAP.MPSMIN), the unit of many limits.
    #[must_use]
    pub fn min_page_size(&self) -> u64 {
        u64::from(self.controller.capabilities().min_page_size())
    }

    /// Sends one admin command and waits for its end, with success.
    ///
    /// # Errors
    /// It did not succeed; `what` names it.
    pub fn command(
        &mut self,
        what: &'static str,
        command: &impl Command,
        data: Data<'_>,
    ) -> Result<(CompletionQueueEntry, Vec<u8>), DriverError> {
        self.raw(what, &command.encode(), data)
    }

    /// As [`command`](Self::command), with a submission queue entry as it is; command identifier and data pointer are
    /// filled in.
    ///
    /// # Errors
    /// As there.
    pub fn raw(
        &mut self,
        what: &'static str,
        command: &SubmissionQueueEntry,
        data: Data<'_>,
    ) -> Result<(CompletionQueueEntry, Vec<u8>), DriverError> {
        let request = self.request(command, data)?;
        let mut bytes = vec![0; if let Data::Receive(len) = data { len } else { 0 }];
        let waiter = self.waiter();
        let entry = admin(&mut self.controller, what, request, &mut bytes, waiter)?;
        Ok((entry, bytes))
    }

    /// Sends one admin command and waits for its completion, whatever its status; data that came with an error are not given
    /// back.
    ///
    /// # Errors
    /// There was no completion.
    pub fn ask(
        &mut self,
        what: &'static str,
        command: &SubmissionQueueEntry,
        data: Data<'_>,
    ) -> Result<(Result<CompletionQueueEntry, nvme_core::wire::Status>, Vec<u8>), DriverError> {
        match self.raw(what, command, data) {
            Ok((entry, bytes)) => Ok((Ok(entry), bytes)),
            Err(DriverError::Admin(_, CallError::Status(status))) => Ok((Err(status), Vec::new())),
            Err(error) => Err(error),
        }
    }

    /// As [`ask`](Self::ask), with the whole completion.
    ///
    /// # Errors
    /// There was no completion.
    pub fn complete(
        &mut self,
        what: &'static str,
        command: &SubmissionQueueEntry,
        data: Data<'_>,
    ) -> Result<(CompletionQueueEntry, Vec<u8>), DriverError> {
        let arena = self.space();
        let mut request = Some(self.request(command, data)?);
        let mut handle = None;
        let waiter = self.waiter();
        let until = waiter.now().after(self.timeout);
        loop {
            let now = waiter.now();
            self.controller.poll(now)?;
            let port = self.controller.admin();
            if let Some(waiting) = request.take() {
                match port.submit(waiting, now) {
                    Ok(sent) => handle = Some(sent),
                    Err((SubmitError::Busy, back)) if !now.has_reached(until) => request = Some(back),
                    Err((error, back)) => {
                        if let AdminData::Buffer { region, .. } = back.data {
                            nvme_core::dma::give_back(arena, region);
                        }
                        return Err(DriverError::Admin(what, CallError::NotSubmitted(error)));
                    }
                }
            }
            if let Some(done) = handle.and_then(|handle| port.take(handle)) {
                let result = match done.outcome {
                    AdminOutcome::Completed(entry) => Ok(entry),
                    AdminOutcome::TimedOut => Err(DriverError::Admin(what, CallError::TimedOut)),
                    AdminOutcome::Lost => Err(DriverError::Admin(what, CallError::Lost)),
                };
                let mut bytes = Vec::new();
                if let Some(region) = done.region {
                    if let (Ok(entry), Data::Receive(len)) = (&result, data)
                        && entry.status().is_success()
                    {
                        bytes = vec![0; len];
                        arena.acquire(&region, 0..len);
                        region.read(0, &mut bytes)?;
                    }
                    nvme_core::dma::give_back(arena, region);
                }
                return Ok((result?, bytes));
            }
            waiter.nap();
        }
    }

    fn request(&self, command: &SubmissionQueueEntry, data: Data<'_>) -> Result<AdminRequest, DriverError> {
        let arena = self.space();
        let data = match data {
            Data::None | Data::Receive(0) | Data::Send([]) => AdminData::None,
            Data::Receive(len) => {
                let region = arena.allocate_scattered(Pool::Data, len, Direction::FromDevice)?;
                AdminData::Buffer { region, len }
            }
            Data::Send(bytes) => AdminData::Buffer { region: self.filled(bytes)?, len: bytes.len() },
        };
        Ok(AdminRequest { command: *command, data, timeout: self.timeout })
    }

    /// Memory for a command that holds `bytes`.
    fn filled(&self, bytes: &[u8]) -> Result<DmaRegion, DriverError> {
        let arena = self.space();
        let region = arena.allocate_scattered(Pool::Data, bytes.len(), Direction::ToDevice)?;
        region.write(0, bytes)?;
        arena.publish(&region, 0..bytes.len());
        Ok(region)
    }

    /// Identify with any structure: the 4,096 bytes, zero where the controller wrote nothing.
    ///
    /// # Errors
    /// The controller does not succeed.
    pub fn identify(&mut self, what: &'static str, command: &Identify) -> Result<Vec<u8>, DriverError> {
        self.command(what, command, Data::Receive(IDENTIFY_BYTES)).map(|(_, bytes)| bytes)
    }

    /// What a namespace is; `None` if it is not active.
    ///
    /// # Errors
    /// The controller does not succeed, or the structure is none.
    pub fn namespace(&mut self, namespace: NamespaceId) -> Result<Option<NamespaceIdentity>, DriverError> {
        const WHAT: &str = "Identify Namespace";
        let command = Identify { namespace, ..Identify::new(IdentifyStructure::NAMESPACE) };
        let bytes = match self.identify(WHAT, &command) {
            // No such identifier can be active.
            Err(DriverError::Admin(_, error)) if error.is_status(StatusCode::INVALID_NAMESPACE) => {
                return Ok(None);
            }
            result => result?,
        };
        NamespaceIdentity::parse(&bytes).map_err(|_| DriverError::Malformed(WHAT))
    }

    /// Waits for what an earlier use of the queue pairs has left outstanding, as long as a command may take: a completion of
    /// that must not be taken for one of a later command.
    fn settle(&mut self) -> Result<(), DriverError> {
        const WHAT: &str = "an I/O command that was given up before";
        let (arena, until) = (self.space(), self.now().after(self.timeout));
        loop {
            let mut busy = false;
            for pair in &mut self.pairs {
                while let Some(completed) = pair.poll()? {
                    let _ = completed.release(arena);
                }
                pair.acknowledge()?;
                // Its time-out was told to whoever had sent it.
                while pair.expire(self.clock.now()).is_some() {}
                busy |= pair.unfinished().next().is_some();
            }
            if !busy {
                return Ok(());
            }
            if self.now().has_reached(until) {
                return Err(DriverError::TimedOut(WHAT));
            }
            self.controller.poll(self.clock.now())?;
            self.nap();
        }
    }

    /// Makes I/O queue pairs until there are `count`, as far as the session has storage and the controller grants them.
    /// Returns how many there are.
    ///
    /// # Errors
    /// A queue pair could not be created, or there would be none.
    pub fn make_pairs(&mut self, count: u16) -> Result<u16, DriverError> {
        self.settle()?;
        let waiter = self.waiter();
        let granted = match self.granted {
            Some(granted) => granted,
            None => {
                let wanted = u16::try_from(self.slots.len()).unwrap_or(u16::MAX);
                let granted = request_queues_up_to(&mut self.controller, wanted, waiter)?;
                *self.granted.insert(granted)
            }
        };
        while self.pairs.len() < usize::from(count.min(granted)) {
            let Some(slots) = self.slots.pop() else { break };
            let id = QueueId::new(self.pairs.len() as u16 + 1);
            let vector = self.device.vector(id);
            let most = MAX_TRANSFER.min(self.max_transfer());
            let entries = self.controller.capabilities().max_queue_entries();
            let most_slots = (entries as usize).saturating_sub(1).clamp(1, slots.len());
            let (slots, _) = slots.split_at_mut(most_slots);
            let pair = create_pair(&mut self.controller, id, vector, most, slots, waiter)?;
            self.pairs.push(pair);
        }
        match self.pairs.len() {
            0 => Err(DriverError::Queues { needed: count, granted }),
            made => Ok(made as u16),
        }
    }

    /// The queue pairs made so far.
    pub fn pairs(&mut self) -> &mut [Pair<'d>] {
        &mut self.pairs
    }

    /// Longest transfer of one command in bytes (MDTS), or of what this driver sends.
    #[must_use]
    pub fn max_transfer(&self) -> usize {
        let limit = self.identity.max_transfer_bytes(self.min_page_size());
        limit.map_or(MAX_TRANSFER, |limit| usize::try_from(limit).unwrap_or(MAX_TRANSFER)).min(MAX_TRANSFER)
    }

    /// Sends one I/O command and waits for its completion, whatever its status. Data that came with an error are not given
    /// back.
    ///
    /// # Errors
    /// There was no completion.
    pub fn io(
        &mut self,
        what: &'static str,
        command: &SubmissionQueueEntry,
        data: Data<'_>,
    ) -> Result<(CompletionQueueEntry, Vec<u8>), DriverError> {
        self.make_pairs(1)?;
        let (arena, timeout) = (self.space(), self.timeout);
        let buffer = match data {
            Data::None | Data::Receive(0) | Data::Send([]) => None,
            Data::Receive(len) => {
                let region = arena.allocate_scattered(Pool::Data, len, Direction::FromDevice)?;
                Some(Buffer::new(region, 0..len))
            }
            Data::Send(bytes) => Some(Buffer::new(self.filled(bytes)?, 0..bytes.len())),
        };
        let deadline = self.now().after(timeout);
        let pair = self.pairs.first_mut().ok_or(DriverError::Queues { needed: 1, granted: 0 })?;
        if let Err(rejected) = pair.submit(command, buffer, 0, Some(deadline)) {
            if let Some(buffer) = rejected.buffer {
                nvme_core::dma::give_back(arena, buffer.into_region());
            }
            return Err(DriverError::Submit(rejected.error));
        }
        pair.ring()?;
        loop {
            let now = self.clock.now();
            self.controller.poll(now)?;
            let pair = self.pairs.first_mut().ok_or(DriverError::TimedOut(what))?;
            if let Some(completed) = pair.poll()? {
                pair.acknowledge()?;
                let mut bytes = Vec::new();
                if let (Data::Receive(len), Some(buffer)) = (data, completed.buffer.as_ref())
                    && completed.entry.status().is_success()
                {
                    bytes = vec![0; len];
                    buffer.region().read(0, &mut bytes)?;
                }
                let (entry, _) = completed.release(arena);
                return Ok((entry, bytes));
            }
            if pair.expire(now).is_some() {
                return Err(DriverError::TimedOut(what));
            }
            self.nap();
        }
    }

    /// Memory that the controller may reach until it is disabled: a queue that could not be deleted.
    pub fn keep(&mut self, quarantined: Quarantined) {
        self.kept.quarantined.push(quarantined);
    }

    /// Brings the controller down: queues deleted, shut down, disabled; all memory comes back.
    ///
    /// # Errors
    /// What went wrong first. The controller is disabled then, too, unless it cannot be.
    pub fn close(self) -> Result<(), DriverError> {
        self.end(Ending::Orderly)
    }

    /// Disables the controller with all its queues and without a shutdown (CC.EN = 0); all memory comes back.
    ///
    /// # Errors
    /// It cannot be disabled.
    pub fn reset(self) -> Result<(), DriverError> {
        self.end(Ending::Reset)
    }

    fn end(self, ending: Ending) -> Result<(), DriverError> {
        let waiter = self.waiter();
        let Self { device, controller, pairs, kept, .. } = self;
        take_down(controller, pairs, device.space(), kept, ending, waiter, |_| {})
    }
}

impl std::fmt::Debug for Session<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Session").field("address", self.device.address()).finish_non_exhaustive()
    }
}

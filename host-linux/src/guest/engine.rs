// SPDX-License-Identifier: MIT OR Apache-2.0
//! The guest's commands on their way: queue pairs, buffers, admin commands and events.

use std::fmt;
use std::time::Duration;

use nvme_core::admin::{AdminPort, AdminRequest, Call, CallError, EventFilter, SubmitError};
use nvme_core::controller::{EnableOptions, Fault};
use nvme_core::dma::{Direction, DmaArena, DmaRegion, Pool};
use nvme_core::io::{Buffer, Completed, IoSlot, Lost};
use nvme_core::time::Instant;
use nvme_core::wire::admin::{FeatureSelect, GetFeatures, GetLogPage};
use nvme_core::wire::feature::FeatureId;
use nvme_core::wire::log::LogPageId;
use nvme_core::wire::nvm::{Read, Write};
use nvme_core::wire::{Command, NamespaceId, QueueId};

use super::ledger::Mismatch;
use super::workload::{Operation, Purpose, Workload};
use crate::backend::{Confined, vector};
use crate::driver::{
    Controller, DriverError, Kept, QueuePair, Waiter, bring_down, create_pair, delete_pair,
    identify_controller, request_queues, reset,
};
use crate::endpoint::AccessError;
use crate::memory::AddressSpace;

/// Time between two admin commands.
const ADMIN_INTERVAL: Duration = Duration::from_millis(10);
const HEALTH_LOG_BYTES: usize = 512;

/// Why the guest cannot go on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum GuestError {
    /// Its controller does not work.
    Driver(DriverError),
    /// A block does not hold what it must.
    Mismatch(Mismatch),
    /// Its log cannot be written.
    Log(String),
    /// The namespace is not the one it was told of.
    Namespace {
        /// Bytes in a block and blocks it was told.
        expected: (u32, u64),
        /// Bytes in a block and blocks found.
        found: (u32, u64),
    },
    /// It was ended, because its controller stands still on both sides.
    Halted,
    /// Its thread could not be started or ended early.
    Thread(String),
}

impl fmt::Display for GuestError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Driver(error) => error.fmt(f),
            Self::Mismatch(mismatch) => mismatch.fmt(f),
            Self::Log(error) => write!(f, "guest log: {error}"),
            Self::Namespace { expected, found } => write!(
                f,
                "the namespace has {} blocks of {} bytes, not {} of {}",
                found.1, found.0, expected.1, expected.0
            ),
            Self::Halted => f.write_str("its controller stands still on both sides"),
            Self::Thread(error) => write!(f, "guest thread: {error}"),
        }
    }
}

impl std::error::Error for GuestError {}

impl<E: Into<DriverError>> From<E> for GuestError {
    fn from(error: E) -> Self {
        Self::Driver(error.into())
    }
}

struct Queue<'d, 's, R> {
    pair: QueuePair<'d, 's, R, Operation>,
    /// Second halves of rewrites that found no room, and commands that a reset of the controller ended.
    waiting: Vec<(Operation, DmaRegion)>,
}

/// Where the guest's commands go.
#[derive(Clone, Copy, Debug)]
pub struct Wiring {
    /// The namespace it uses.
    pub namespace: NamespaceId,
    /// Interrupt vectors that its controllers have, the admin queue's included: zero if it looks for completions itself,
    /// none if there are always enough.
    pub vectors: Option<u16>,
}

impl Wiring {
    /// The interrupt vector of an I/O queue pair.
    fn vector(self, queue: QueueId) -> Option<u16> {
        vector(self.vectors, queue)
    }
}

pub(super) struct Engine<'d, 's, R> {
    wiring: Wiring,
    controller: Controller<'d, 's, R>,
    arena: &'d AddressSpace,
    queues: Vec<Queue<'d, 's, R>>,
    /// Buffers of no command.
    idle: Vec<DmaRegion>,
    bytes: Vec<u8>,
    call: Call,
    call_due: Instant,
    calls: u64,
    events: u64,
    io_timeout: Duration,
    admin_timeout: Duration,
}

impl<'d, 's, R: Confined<Error = AccessError>> Engine<'d, 's, R> {
    /// Creates the queue pairs, one for each element of `slots`, and a buffer for each command.
    pub(super) fn new(
        mut controller: Controller<'d, 's, R>,
        arena: &'d AddressSpace,
        slots: &'s mut [Vec<IoSlot<Operation>>],
        command_bytes: usize,
        wiring: Wiring,
        io_timeout: Duration,
        waiter: Waiter<'_>,
    ) -> Result<Self, GuestError> {
        let mut queues = Vec::new();
        let mut idle = Vec::new();
        for (id, slots) in (1..).zip(slots) {
            for _ in 0..slots.len() {
                idle.push(arena.allocate_scattered(Pool::Data, command_bytes, Direction::Bidirectional)?);
            }
            let pair = create_pair(
                &mut controller,
                QueueId::new(id),
                wiring.vector(QueueId::new(id)),
                command_bytes,
                slots,
                waiter,
            )?;
            queues.push(Queue { pair, waiting: Vec::new() });
        }
        Ok(Self {
            wiring,
            controller,
            arena,
            queues,
            idle,
            bytes: vec![0; command_bytes],
            call: Call::new(),
            call_due: Instant::ZERO,
            calls: 0,
            events: 0,
            io_timeout,
            admin_timeout: waiter.timeout,
        })
    }

    /// Commands submitted and not completed, and halves that wait.
    pub(super) fn outstanding(&self) -> usize {
        self.queues.iter().map(|queue| queue.pair.outstanding() + queue.waiting.len()).sum()
    }

    /// Admin commands completed.
    pub(super) const fn admin_commands(&self) -> u64 {
        self.calls
    }

    /// Events reported to the guest.
    pub(super) const fn events(&self) -> u64 {
        self.events
    }

    /// Takes every completion there is; returns how many. Nothing counts as acknowledged before the log has it.
    pub(super) fn collect(&mut self, workload: &mut Workload, now: Instant) -> Result<u64, GuestError> {
        let mut count = 0;
        for queue in &mut self.queues {
            while let Some(completed) = queue.pair.poll()? {
                count += 1;
                finish(completed, workload, &mut self.bytes, &mut queue.waiting, &mut self.idle)?;
            }
            queue.pair.acknowledge()?;
            if let Some((_, tag)) = queue.pair.expire(now) {
                let what =
                    if tag.purpose.is_write() { "a write of the guest" } else { "a read of the guest" };
                return Err(GuestError::Driver(DriverError::TimedOut(what)));
            }
        }
        workload.commit_log().map_err(|error| GuestError::Log(error.to_string()))?;
        Ok(count)
    }

    /// Submits second halves, and new commands if `fresh`; returns how many.
    pub(super) fn submit(
        &mut self,
        workload: &mut Workload,
        fresh: bool,
        now: Instant,
    ) -> Result<u64, GuestError> {
        let (mut count, deadline) = (0, now.after(self.io_timeout));
        let wall = std::time::Instant::now();
        for queue in &mut self.queues {
            for (operation, region) in std::mem::take(&mut queue.waiting) {
                match send(
                    &mut queue.pair,
                    self.wiring.namespace,
                    operation,
                    region,
                    workload.block_bytes(),
                    deadline,
                )? {
                    None => count += 1,
                    Some(back) => queue.waiting.push(back),
                }
            }
            while fresh && queue.waiting.is_empty() && queue.pair.free() > 0 {
                let Some(region) = self.idle.pop() else { break };
                let Some(operation) = workload.next(wall, &mut self.bytes) else {
                    self.idle.push(region);
                    break;
                };
                if operation.purpose == Purpose::Write {
                    let len = operation.blocks as usize * workload.block_bytes();
                    region.write(0, &self.bytes[..len])?;
                }
                if let Some((operation, region)) = send(
                    &mut queue.pair,
                    self.wiring.namespace,
                    operation,
                    region,
                    workload.block_bytes(),
                    deadline,
                )? {
                    workload.withdraw(&operation);
                    self.idle.push(region);
                    break;
                }
                count += 1;
            }
            queue.pair.ring()?;
        }
        Ok(count)
    }

    /// Goes on with admin commands, one after the other, and takes events.
    pub(super) fn administrate(&mut self, now: Instant) -> Result<(), GuestError> {
        self.controller.poll(now)?;
        if let Some(result) = self.call.poll(self.controller.admin(), now) {
            result.finish(self.arena).map_err(|error| admin_error(self.calls, error))?;
            self.calls += 1;
            self.call_due = now.after(ADMIN_INTERVAL);
        }
        if self.call.is_idle() && now.has_reached(self.call_due) {
            let request = if self.calls.is_multiple_of(2) {
                let command = GetFeatures::new(FeatureId::NUMBER_OF_QUEUES, FeatureSelect::Current);
                AdminRequest::without_data(&command, self.admin_timeout)
            } else {
                let command =
                    GetLogPage::new(LogPageId::SMART_HEALTH_INFORMATION, HEALTH_LOG_BYTES as u64 / 4);
                AdminRequest::receiving(&command, self.arena, HEALTH_LOG_BYTES, self.admin_timeout)?
            };
            // The call is idle, so it takes the request.
            let _ = self.call.start(request);
        }
        while self.controller.admin().take_event(EventFilter::Any).is_some() {
            self.events += 1;
        }
        Ok(())
    }

    /// Resets the controller and creates the queue pairs again. What it completed before counts; what it did not complete
    /// is submitted again, which does no harm whether it took effect or not: no other command is about the same blocks.
    /// Returns how many commands completed.
    pub(super) fn reset(
        self,
        workload: &mut Workload,
        waiter: Waiter<'_>,
    ) -> Result<(Self, u64), GuestError> {
        let Self { controller, arena, queues, mut idle, mut bytes, mut call, .. } = self;
        let (mut count, mut begun) = (0, Vec::new());
        let mut ended = Ok(());
        let mut controller = reset(controller, &EnableOptions::default(), waiter, |disabled| {
            let proof = disabled.quiesced();
            for Queue { mut pair, mut waiting } in queues {
                let believed =
                    |pair: &mut QueuePair<'d, 's, R, Operation>| pair.take_late(&proof).ok().flatten();
                while let Some(completed) = believed(&mut pair) {
                    count += 1;
                    let taken = finish(completed, workload, &mut bytes, &mut waiting, &mut idle);
                    ended = std::mem::replace(&mut ended, Ok(())).and(taken);
                }
                while let Some(Lost { tag, buffer, .. }) = pair.drain(&proof) {
                    waiting.extend(buffer.map(|buffer| (tag, buffer.into_region())));
                }
                begun.push((pair.retire(&proof).map_err(drop), waiting));
            }
            if let Some(result) = disabled.admin().and_then(|admin| call.poll(admin, waiter.now())) {
                // It is asked again when its turn comes.
                let _ = result.finish(arena);
            }
        })?;
        ended?;
        identify_controller(&mut controller, waiter)?;
        request_queues(&mut controller, u16::try_from(begun.len()).unwrap_or(u16::MAX), waiter)?;
        let mut queues = Vec::new();
        for (id, (slots, waiting)) in (1..).zip(begun) {
            let slots =
                slots.map_err(|()| GuestError::Driver(DriverError::Fault(Fault::NotDisabledInTime)))?;
            let pair = create_pair(
                &mut controller,
                QueueId::new(id),
                self.wiring.vector(QueueId::new(id)),
                bytes.len(),
                slots,
                waiter,
            )?;
            queues.push(Queue { pair, waiting });
        }
        workload.commit_log().map_err(|error| GuestError::Log(error.to_string()))?;
        Ok((Self { controller, arena, queues, idle, bytes, call: Call::new(), ..self }, count))
    }

    /// Deletes the queues and disables the controller; all memory goes back. No I/O command is outstanding.
    pub(super) fn end(mut self, waiter: Waiter<'_>) -> Result<(), GuestError> {
        while !self.call.is_idle() {
            let now = waiter.now();
            self.controller.poll(now)?;
            match self.call.poll(self.controller.admin(), now) {
                Some(result) => {
                    result.finish(self.arena).map_err(|error| admin_error(self.calls, error))?;
                    self.calls += 1;
                }
                None => waiter.nap(),
            }
        }
        for queue in self.queues {
            delete_pair(&mut self.controller, queue.pair, waiter).map_err(|(error, _)| error)?;
        }
        let kept = Kept { buffers: self.idle, quarantined: Vec::new() };
        Ok(bring_down(self.controller, self.arena, kept, waiter)?)
    }
}

fn admin_error(number: u64, error: CallError) -> GuestError {
    let what =
        if number.is_multiple_of(2) { "Get Features of the guest" } else { "Get Log Page of the guest" };
    GuestError::Driver(DriverError::Admin(what, error))
}

/// Takes the result of one command.
fn finish(
    completed: Completed<Operation>,
    workload: &mut Workload,
    bytes: &mut [u8],
    waiting: &mut Vec<(Operation, DmaRegion)>,
    idle: &mut Vec<DmaRegion>,
) -> Result<(), GuestError> {
    let Completed { entry, tag, buffer, .. } = completed;
    if !entry.status().is_success() {
        let what = if tag.purpose.is_write() { "a write of the guest" } else { "a read of the guest" };
        return Err(GuestError::Driver(DriverError::Io(what, entry.status())));
    }
    let Some(region) = buffer.map(Buffer::into_region) else { return Ok(()) };
    if !tag.purpose.is_write() {
        let len = (tag.blocks as usize * workload.block_bytes()).min(bytes.len());
        region.read(0, &mut bytes[..len])?;
    }
    match workload.complete(tag, bytes).map_err(GuestError::Mismatch)? {
        // The buffer holds what is to be written back.
        Some(second) => waiting.push((second, region)),
        None => idle.push(region),
    }
    Ok(())
}

/// Puts one command into the ring; gives it back if there is no room.
fn send<R: Confined<Error = AccessError>>(
    pair: &mut QueuePair<'_, '_, R, Operation>,
    namespace: NamespaceId,
    operation: Operation,
    region: DmaRegion,
    block_bytes: usize,
    deadline: Instant,
) -> Result<Option<(Operation, DmaRegion)>, GuestError> {
    let blocks = operation.blocks as u32;
    let entry = if operation.purpose.is_write() {
        Write::new(namespace, operation.lba, blocks).encode()
    } else {
        Read::new(namespace, operation.lba, blocks).encode()
    };
    let len = operation.blocks as usize * block_bytes;
    let buffer = Buffer::new(region, 0..len);
    match pair.submit(&entry, Some(buffer), operation, Some(deadline)) {
        Ok(_) => Ok(None),
        Err(rejected) => match (rejected.error, rejected.buffer) {
            (SubmitError::Busy, Some(buffer)) => Ok(Some((rejected.tag, buffer.into_region()))),
            (error, _) => Err(GuestError::Driver(DriverError::Admin(
                "a command of the guest",
                CallError::NotSubmitted(error),
            ))),
        },
    }
}

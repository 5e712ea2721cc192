// SPDX-License-Identifier: MIT OR Apache-2.0
//! Bringing controllers up and down with a thread that may wait: what every driver in this program begins and ends
//! with.

use std::fmt;
use std::time::Duration;

use nvme_core::admin::{AdminPort, AdminRequest, AdminSlot, Call, CallError, SubmitError};
use nvme_core::cdq::Quarantined;
use nvme_core::controller::{
    AttachError, Disabled, Disabling, EnableError, EnableOptions, Fault, Link, Quiesced, Ready, Shutdown,
};
use nvme_core::dma::{DmaError, DmaRegion, release};
use nvme_core::io::{
    CreateIoQueuePair, CreateOutcome, DeleteIoQueuePair, DeleteOutcome, IoQueueError, IoQueueOptions,
    IoQueuePair, IoSlot, QuarantinedQueuePair,
};
use nvme_core::register::RegisterIo;
use nvme_core::time::{Instant, Step};
use nvme_core::wire::feature::NumberOfQueues;
use nvme_core::wire::identify::{ControllerIdentity, NamespaceIdentity, NvmControllerIdentity};
use nvme_core::wire::{Command, CompletionQueueEntry, NamespaceId, QueueId, Status};

use crate::backend::{Confined, Sleep, attach};
use crate::endpoint::AccessError;
use crate::memory::AddressSpace;
use crate::sync::RunToken;

/// Time-out of admin commands. A suspended guest's commands wait for the switch, so it is generous.
pub(crate) const ADMIN_TIMEOUT: Duration = Duration::from_secs(60);
/// Longest sleep while waiting for an interrupt.
const NAP: Duration = Duration::from_millis(5);
pub(crate) const IDENTIFY_BYTES: usize = 4096;

/// Why a controller could not be driven.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DriverError {
    /// Its registers cannot be reached.
    Access(AccessError),
    /// It could not be taken over.
    Attach(AttachError),
    /// It could not be enabled as asked.
    Enable(EnableError),
    /// An I/O queue pair is not possible as asked.
    Create(IoQueueError),
    /// It broke a rule, failed or is gone.
    Fault(Fault),
    /// An admin command did not succeed.
    Admin(&'static str, CallError),
    /// An I/O command was not submitted.
    Submit(SubmitError),
    /// An I/O command ended with this status.
    Io(&'static str, Status),
    /// An I/O command did not complete in time.
    TimedOut(&'static str),
    /// A structure that the controller returned is not one.
    Malformed(&'static str),
    /// Memory for the driver could not be had.
    Memory(DmaError),
    /// The controller grants fewer I/O queue pairs than are needed.
    Queues {
        /// Queue pairs needed.
        needed: u16,
        /// Queue pairs granted.
        granted: u16,
    },
    /// A block of the namespace is longer than one command moves.
    BlockTooLong {
        /// Bytes in a block.
        block: u32,
        /// Bytes that one command moves at most.
        limit: usize,
    },
}

impl fmt::Display for DriverError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Access(error) => error.fmt(f),
            Self::Attach(error) => error.fmt(f),
            Self::Enable(error) => error.fmt(f),
            Self::Create(error) => error.fmt(f),
            Self::Fault(fault) => fault.fmt(f),
            Self::Admin(what, error) => write!(f, "{what}: {error}"),
            Self::Submit(error) => write!(f, "an I/O command was not submitted: {error:?}"),
            Self::Io(what, status) => write!(f, "{what} completed with status {status}"),
            Self::TimedOut(what) => write!(f, "{what} did not complete in time"),
            Self::BlockTooLong { block, limit } => {
                write!(f, "a block has {block} bytes, and one command moves {limit} at most (MDTS)")
            }
            Self::Malformed(what) => write!(f, "{what} returned by the controller is malformed"),
            Self::Memory(error) => write!(f, "no device memory: {error:?}"),
            Self::Queues { needed, granted } => {
                write!(f, "the controller grants {granted} I/O queue pairs where {needed} are needed")
            }
        }
    }
}

impl std::error::Error for DriverError {}

impl From<Fault> for DriverError {
    fn from(fault: Fault) -> Self {
        Self::Fault(fault)
    }
}

impl From<DmaError> for DriverError {
    fn from(error: DmaError) -> Self {
        Self::Memory(error)
    }
}

/// Time for the core: microseconds since the clock was made.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Clock<'a> {
    start: std::time::Instant,
    token: Option<&'a RunToken>,
}

impl<'a> Clock<'a> {
    pub(crate) fn new() -> Self {
        Self { start: std::time::Instant::now(), token: None }
    }

    /// A clock that stands still while the guest is stopped, so that a stop does not use up its time-outs.
    pub(crate) fn of_guest(token: &'a RunToken) -> Self {
        Self { token: Some(token), ..Self::new() }
    }

    /// The same clock as if it had stood still for `pause`.
    pub(crate) fn behind(self, pause: Duration) -> Self {
        Self { start: self.start + pause, ..self }
    }

    pub(crate) fn now(&self) -> Instant {
        let stopped = self.token.map_or(Duration::ZERO, RunToken::stopped);
        let elapsed = self.start.elapsed().saturating_sub(stopped);
        Instant::from_micros(u64::try_from(elapsed.as_micros()).unwrap_or(u64::MAX))
    }
}

/// What a driver needs to wait: a clock, and what its controller's interrupts wake.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Waiter<'a> {
    pub(crate) clock: Clock<'a>,
    pub(crate) signal: &'a dyn Sleep,
    /// Time-out of each admin command.
    pub(crate) timeout: Duration,
}

impl<'a> Waiter<'a> {
    pub(crate) const fn new(clock: Clock<'a>, signal: &'a dyn Sleep) -> Self {
        Self { clock, signal, timeout: ADMIN_TIMEOUT }
    }

    pub(crate) fn now(&self) -> Instant {
        self.clock.now()
    }

    /// Polls a step machine to its end.
    fn run<E>(&self, mut poll: impl FnMut(Instant) -> Result<Step, E>) -> Result<(), E> {
        loop {
            match poll(self.now())? {
                Step::Again => {}
                Step::Wait(until) => {
                    self.signal.sleep(until.since(self.now()).min(NAP));
                }
                Step::Done => return Ok(()),
            }
        }
    }

    /// Waits a little, or for an interrupt.
    pub(crate) fn nap(&self) {
        self.signal.sleep(NAP);
    }
}

/// A controller in use.
pub(crate) type Controller<'d, 's, R> = Ready<'d, 's, R, AddressSpace>;

/// Takes a controller over and enables it.
pub(crate) fn bring_up<'d, 's, R: Confined + RegisterIo<Error = AccessError>>(
    registers: &'d R,
    arena: &'d AddressSpace,
    link: &'d Link,
    slots: &'s mut [AdminSlot],
    options: &EnableOptions,
    waiter: Waiter<'_>,
) -> Result<Controller<'d, 's, R>, DriverError> {
    let disabling = attach(registers, arena, link).map_err(DriverError::Attach)?;
    enable(disable(disabling, waiter)?, slots, options, waiter)
}

/// Resets a controller in use; `then` is called while it is disabled. Its I/O queue pairs are to be retired there.
pub(crate) fn reset<'d, 's, R: RegisterIo<Error = AccessError>>(
    controller: Controller<'d, 's, R>,
    options: &EnableOptions,
    waiter: Waiter<'_>,
    then: impl FnOnce(&mut Disabled<'d, 's, R, AddressSpace>),
) -> Result<Controller<'d, 's, R>, DriverError> {
    let mut disabled = disable(controller.disable(), waiter)?;
    then(&mut disabled);
    let slots = disabled.retire().unwrap_or_default();
    enable(disabled, slots, options, waiter)
}

fn disable<'d, 's, R: RegisterIo<Error = AccessError>>(
    mut disabling: Disabling<'d, 's, R, AddressSpace>,
    waiter: Waiter<'_>,
) -> Result<Disabled<'d, 's, R, AddressSpace>, DriverError> {
    waiter.run(|now| disabling.poll(now))?;
    Ok(disabling.finish().map_err(|_| Fault::NotDisabledInTime)?)
}

fn enable<'d, 's, 't, R: RegisterIo<Error = AccessError>>(
    disabled: Disabled<'d, 's, R, AddressSpace>,
    slots: &'t mut [AdminSlot],
    options: &EnableOptions,
    waiter: Waiter<'_>,
) -> Result<Controller<'d, 't, R>, DriverError> {
    let mut enabling =
        disabled.enable(options, slots).map_err(|rejected| DriverError::Enable(rejected.error))?;
    waiter.run(|now| enabling.poll(now))?;
    Ok(enabling.finish().map_err(|_| Fault::NotReadyInTime)?)
}

/// Sends one admin command and waits for it, with the controller's other work going on. Returns the completion and the
/// first bytes of the data in `bytes`.
pub(crate) fn admin<R: RegisterIo<Error = AccessError>>(
    controller: &mut Controller<'_, '_, R>,
    what: &'static str,
    request: AdminRequest,
    bytes: &mut [u8],
    waiter: Waiter<'_>,
) -> Result<CompletionQueueEntry, DriverError> {
    let mut call = Call::new();
    // A fresh call has room.
    let _ = call.start(request);
    loop {
        let now = waiter.now();
        controller.poll(now)?;
        if let Some(result) = call.poll(controller.admin(), now) {
            let arena = controller.admin().arena();
            return result.read(arena, bytes).map_err(|error| DriverError::Admin(what, error));
        }
        waiter.nap();
    }
}

pub(crate) fn identify<R: RegisterIo<Error = AccessError>>(
    controller: &mut Controller<'_, '_, R>,
    what: &'static str,
    command: &impl Command,
    waiter: Waiter<'_>,
) -> Result<Vec<u8>, DriverError> {
    let arena = controller.admin().arena();
    let request = AdminRequest::receiving(command, arena, IDENTIFY_BYTES, waiter.timeout)?;
    let mut bytes = vec![0; IDENTIFY_BYTES];
    admin(controller, what, request, &mut bytes, waiter)?;
    Ok(bytes)
}

/// Learns what the controller is, keeps to its transfer limit and requests its events.
pub(crate) fn identify_controller<R: RegisterIo<Error = AccessError>>(
    controller: &mut Controller<'_, '_, R>,
    waiter: Waiter<'_>,
) -> Result<ControllerIdentity, DriverError> {
    identify_controller_bytes(controller, waiter).map(|(identity, _)| identity)
}

/// As [`identify_controller`], with the bytes as they came.
pub(crate) fn identify_controller_bytes<R: RegisterIo<Error = AccessError>>(
    controller: &mut Controller<'_, '_, R>,
    waiter: Waiter<'_>,
) -> Result<(ControllerIdentity, Vec<u8>), DriverError> {
    use nvme_core::wire::admin::{Identify, IdentifyStructure};
    const WHAT: &str = "Identify Controller";
    let bytes = identify(controller, WHAT, &Identify::new(IdentifyStructure::CONTROLLER), waiter)?;
    let identity = ControllerIdentity::parse(&bytes).map_err(|_| DriverError::Malformed(WHAT))?;
    let page = u64::from(controller.capabilities().min_page_size());
    if let Some(limit) = identity.max_transfer_bytes(page) {
        controller.admin().limit_transfer(usize::try_from(limit).unwrap_or(usize::MAX));
    }
    controller.admin().request_events(identity.event_request_limit);
    Ok((identity, bytes))
}

/// Learns what a namespace is.
pub(crate) fn identify_namespace<R: RegisterIo<Error = AccessError>>(
    controller: &mut Controller<'_, '_, R>,
    namespace: NamespaceId,
    waiter: Waiter<'_>,
) -> Result<NamespaceIdentity, DriverError> {
    use nvme_core::wire::admin::{Identify, IdentifyStructure};
    const WHAT: &str = "Identify Namespace";
    let command = Identify { namespace, ..Identify::new(IdentifyStructure::NAMESPACE) };
    let bytes = identify(controller, WHAT, &command, waiter)?;
    NamespaceIdentity::parse(&bytes).ok().flatten().ok_or(DriverError::Malformed(WHAT))
}

/// Learns how many bytes one Write Zeroes that deallocates may name; `None` if the controller states no limit.
pub(crate) fn zeroes_limit<R: RegisterIo<Error = AccessError>>(
    controller: &mut Controller<'_, '_, R>,
    waiter: Waiter<'_>,
) -> Result<Option<u64>, DriverError> {
    use nvme_core::wire::admin::{Identify, IdentifyStructure};
    const WHAT: &str = "Identify Controller of the NVM command set";
    let command = Identify::new(IdentifyStructure::COMMAND_SET_CONTROLLER);
    let bytes = match identify(controller, WHAT, &command, waiter) {
        Ok(bytes) => bytes,
        // A controller without the structure has no limit of its own.
        Err(DriverError::Admin(_, CallError::Status(_))) => return Ok(None),
        Err(error) => return Err(error),
    };
    let identity = NvmControllerIdentity::parse(&bytes).map_err(|_| DriverError::Malformed(WHAT))?;
    let page = u64::from(controller.capabilities().min_page_size());
    Ok(identity.max_write_zeroes_bytes(page, true))
}

/// Asks for `count` I/O queue pairs.
pub(crate) fn request_queues<R: RegisterIo<Error = AccessError>>(
    controller: &mut Controller<'_, '_, R>,
    count: u16,
    waiter: Waiter<'_>,
) -> Result<(), DriverError> {
    let granted = request_queues_up_to(controller, count, waiter)?;
    if granted < count { Err(DriverError::Queues { needed: count, granted }) } else { Ok(()) }
}

/// Asks for up to `count` I/O queue pairs and returns how many there may be.
pub(crate) fn request_queues_up_to<R: RegisterIo<Error = AccessError>>(
    controller: &mut Controller<'_, '_, R>,
    count: u16,
    waiter: Waiter<'_>,
) -> Result<u16, DriverError> {
    const WHAT: &str = "Set Features, Number of Queues";
    let wanted = NumberOfQueues { submission: count, completion: count };
    let request = AdminRequest::without_data(&wanted.to_set_features(), waiter.timeout);
    let entry = admin(controller, WHAT, request, &mut [], waiter)?;
    let allocated = NumberOfQueues::from_dword(entry.dw0()).map_err(|_| DriverError::Malformed(WHAT))?;
    let granted = wanted.granted(allocated);
    Ok(granted.submission.min(granted.completion))
}

/// An I/O queue pair in use.
pub(crate) type QueuePair<'d, 's, R, T> = IoQueuePair<'d, 's, R, AddressSpace, T>;

/// Creates an I/O queue pair that interrupts by `vector`, or not at all.
pub(crate) fn create_pair<'d, 's, R: RegisterIo<Error = AccessError>, T>(
    controller: &mut Controller<'d, '_, R>,
    id: QueueId,
    interrupt_vector: Option<u16>,
    max_transfer: usize,
    slots: &'s mut [IoSlot<T>],
    waiter: Waiter<'_>,
) -> Result<QueuePair<'d, 's, R, T>, DriverError> {
    // One entry of a ring always stays empty.
    let entries = u32::try_from(slots.len()).unwrap_or(u32::MAX).saturating_add(1);
    let options = IoQueueOptions {
        interrupt_vector,
        max_transfer,
        timeout: waiter.timeout,
        ..IoQueueOptions::new(id, entries)
    };
    let mut creation = CreateIoQueuePair::new(controller.admin(), &options, slots)
        .map_err(|(error, _)| DriverError::Create(error))?;
    while creation.poll(controller.admin(), waiter.now()) != Step::Done {
        waiter.nap();
        controller.poll(waiter.now())?;
    }
    match creation.finish() {
        Ok(CreateOutcome::Created(pair)) => Ok(pair),
        Ok(CreateOutcome::Refused { error, .. } | CreateOutcome::Quarantined { error, .. }) => {
            Err(DriverError::Admin("the creation of an I/O queue pair", error))
        }
        Err(_) => Err(DriverError::TimedOut("the creation of an I/O queue pair")),
    }
}

/// A queue pair of which nobody knows whether it still exists, and why.
pub(crate) type Undeleted<'d, 's, R, T> = (DriverError, QuarantinedQueuePair<'d, 's, R, AddressSpace, T>);

/// Deletes an I/O queue pair that has no commands outstanding. One that could not be deleted comes back, to be retired once
/// the controller is disabled.
pub(crate) fn delete_pair<'d, 's, R: RegisterIo<Error = AccessError>, T>(
    controller: &mut Controller<'_, '_, R>,
    pair: QueuePair<'d, 's, R, T>,
    waiter: Waiter<'_>,
) -> Result<(), Undeleted<'d, 's, R, T>> {
    const WHAT: &str = "the deletion of an I/O queue pair";
    let mut deletion = DeleteIoQueuePair::new(pair, waiter.timeout);
    while deletion.poll(controller.admin(), waiter.now()) != Step::Done {
        waiter.nap();
        if let Err(fault) = controller.poll(waiter.now()) {
            return Err((fault.into(), deletion.abandon(controller.admin())));
        }
    }
    match deletion.finish() {
        Ok(DeleteOutcome::Deleted { .. }) => Ok(()),
        Ok(DeleteOutcome::Quarantined { error, pair }) => Err((DriverError::Admin(WHAT, error), pair)),
        Err(deletion) => Err((DriverError::TimedOut(WHAT), deletion.abandon(controller.admin()))),
    }
}

/// Gives a queue pair up without asking its controller, to be retired once that is disabled.
pub(crate) fn abandon_pair<'d, 's, R: RegisterIo<Error = AccessError>, T>(
    controller: &mut Controller<'_, '_, R>,
    pair: QueuePair<'d, 's, R, T>,
    waiter: Waiter<'_>,
) -> QuarantinedQueuePair<'d, 's, R, AddressSpace, T> {
    DeleteIoQueuePair::new(pair, waiter.timeout).abandon(controller.admin())
}

/// Memory that a controller may reach until it is disabled.
#[derive(Debug, Default)]
pub(crate) struct Kept {
    /// Buffers of no command.
    pub(crate) buffers: Vec<DmaRegion>,
    /// Controller Data Queues that could not be deleted.
    pub(crate) quarantined: Vec<Quarantined>,
}

/// Shuts a controller down and disables it; its memory goes back, and what was `kept` for it. I/O queues are to be
/// deleted before.
pub(crate) fn bring_down<R: RegisterIo<Error = AccessError>>(
    controller: Controller<'_, '_, R>,
    arena: &AddressSpace,
    kept: Kept,
    waiter: Waiter<'_>,
) -> Result<(), DriverError> {
    bring_down_then(controller, arena, kept, waiter, |_| {})
}

/// How a controller is taken down.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ending {
    /// Its queues are deleted, and it is shut down.
    Orderly,
    /// It is reset at once.
    Reset,
}

/// Takes a controller down with its queue pairs, and what was `kept` for it; calls `then` with the evidence that it is
/// disabled, if it is.
///
/// # Errors
/// What went wrong first. The controller is disabled then, too, unless it cannot be.
pub(crate) fn take_down<R: RegisterIo<Error = AccessError>, T>(
    mut controller: Controller<'_, '_, R>,
    pairs: Vec<QueuePair<'_, '_, R, T>>,
    arena: &AddressSpace,
    kept: Kept,
    ending: Ending,
    waiter: Waiter<'_>,
    then: impl FnOnce(&Quiesced<'_>),
) -> Result<(), DriverError> {
    let mut first = Ok(());
    let mut undeleted = Vec::new();
    for pair in pairs {
        // After the first that fails the others would only wait as long.
        let busy = pair.unfinished().next().is_some();
        if ending == Ending::Reset || first.is_err() || busy {
            undeleted.push(abandon_pair(&mut controller, pair, waiter));
        } else if let Err((error, pair)) = delete_pair(&mut controller, pair, waiter) {
            first = Err(error);
            undeleted.push(pair);
        }
    }
    let then = |proof: &Quiesced<'_>| {
        for mut pair in undeleted {
            while let Some(lost) = pair.drain(proof) {
                if let Some(buffer) = lost.buffer {
                    release(arena, buffer.into_region(), proof);
                }
            }
            // The pair is this controller's, so the proof is taken.
            let _ = pair.retire(proof);
        }
        then(proof);
    };
    let down = match ending {
        Ending::Reset => reset_then(controller, arena, kept, waiter, then),
        Ending::Orderly => bring_down_then(controller, arena, kept, waiter, then),
    };
    first.and(down)
}

/// As [`bring_down`]; calls `then` with the evidence that the controller is disabled, if it is.
pub(crate) fn bring_down_then<R: RegisterIo<Error = AccessError>>(
    controller: Controller<'_, '_, R>,
    arena: &AddressSpace,
    kept: Kept,
    waiter: Waiter<'_>,
    then: impl FnOnce(&Quiesced<'_>),
) -> Result<(), DriverError> {
    let mut down = controller.shutdown(Shutdown::Normal, Duration::from_secs(5), waiter.now());
    let shut = waiter.run(|now| down.poll(now));
    // Only a disable takes the controller's memory away from it, however the shutdown went.
    disable_then(down.disable(), arena, kept, waiter, then)?;
    Ok(shut?)
}

/// Resets a controller that is not used any more, without a shutdown; its memory goes back, and what was `kept` for it.
/// Calls `then` with the evidence that the controller is disabled, if it is.
pub(crate) fn reset_then<R: RegisterIo<Error = AccessError>>(
    controller: Controller<'_, '_, R>,
    arena: &AddressSpace,
    kept: Kept,
    waiter: Waiter<'_>,
    then: impl FnOnce(&Quiesced<'_>),
) -> Result<(), DriverError> {
    disable_then(controller.disable(), arena, kept, waiter, then)
}

fn disable_then<R: RegisterIo<Error = AccessError>>(
    disabling: Disabling<'_, '_, R, AddressSpace>,
    arena: &AddressSpace,
    kept: Kept,
    waiter: Waiter<'_>,
    then: impl FnOnce(&Quiesced<'_>),
) -> Result<(), DriverError> {
    let disabled = disable(disabling, waiter)?;
    for region in kept.buffers {
        release(arena, region, &disabled.quiesced());
    }
    for queue in kept.quarantined {
        queue.release(arena, &disabled.quiesced());
    }
    then(&disabled.quiesced());
    disabled.detach();
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;

    use nvme_core::dma::Pool;
    use nvme_core::wire::ControllerId;

    use crate::embedded::{ControllerRole, ControllerSetup, EmbeddedSubsystem, NAMESPACE, SubsystemSetup};
    use crate::memory::{Capacity, PoolUsage};
    use crate::storage::FileStorage;

    #[test]
    fn controllers_come_up_tell_who_they_are_and_leave_no_memory_behind() {
        for block_size in [512u32, 4096] {
            let memory = || {
                let capacity = Capacity { queues: 4 << 20, data: 1 << 20, controller_data: 1 << 20 };
                Arc::new(AddressSpace::new("test", capacity).expect("address space"))
            };
            let controllers: Vec<ControllerSetup> =
                [(1, ControllerRole::Managing), (7, ControllerRole::Migratable)]
                    .into_iter()
                    .map(|(id, role)| ControllerSetup {
                        id: ControllerId::new(id),
                        role,
                        io_queues: 3,
                        memory: memory(),
                        interrupts: Arc::default(),
                    })
                    .collect();
            let subsystem = EmbeddedSubsystem::start(SubsystemSetup {
                name: "test".into(),
                serial_number: "T1".into(),
                namespace: FileStorage::memory("test", 1 << 20).expect("memory"),
                block_size,
                unique_id: [7; 16],
                faults: Arc::default(),
                quirks: nvme_controller::Quirks::empty(),
                controllers: controllers.clone(),
            })
            .expect("subsystem");
            for setup in &controllers {
                let registers = subsystem.controller(setup.id).expect("controller");
                let link = Link::new();
                let mut slots: Vec<AdminSlot> = (0..16).map(|_| AdminSlot::new()).collect();
                let waiter = Waiter::new(Clock::new(), &*setup.interrupts);
                let options = EnableOptions::default();
                let mut controller = bring_up(&registers, &setup.memory, &link, &mut slots, &options, waiter)
                    .expect("bring up");
                let identity = identify_controller(&mut controller, waiter).expect("identify");
                assert_eq!(identity.controller, setup.id);
                assert_eq!(identity.is_manager(), setup.role == ControllerRole::Managing);
                let namespace = identify_namespace(&mut controller, NAMESPACE, waiter).expect("identify");
                assert_eq!((namespace.block_bytes(), namespace.bytes()), (block_size, 1 << 20));
                request_queues(&mut controller, 3, waiter).expect("queues");
                assert_ne!(setup.memory.usage(Pool::Queues), PoolUsage::default());
                bring_down(controller, &setup.memory, Kept::default(), waiter).expect("bring down");
                for pool in [Pool::Queues, Pool::Data, Pool::ControllerData] {
                    assert_eq!(setup.memory.usage(pool), PoolUsage::default(), "{pool:?} of {:?}", setup.id);
                }
            }
        }
    }
}

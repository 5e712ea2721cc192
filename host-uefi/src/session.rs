// SPDX-License-Identifier: MIT OR Apache-2.0
//! A controller in use by one thread that waits: brought up, identified, asked one command after another, brought down.
//! It works with any registers and memory of the core, so it can be tried without firmware.

use core::fmt;
use core::time::Duration;

use nvme_core::admin::{AdminPort, AdminRequest, AdminSlot, Call, CallError, SubmitError};
use nvme_core::cdq::Quarantined;
use nvme_core::controller::{
    Disabled, Disabling, EnableError, EnableOptions, Fault, Quiesced, Ready, Shutdown,
};
use nvme_core::dma::{Direction, DmaArena, DmaError, Pool, give_back};
use nvme_core::io::{
    Buffer, CreateIoQueuePair, CreateOutcome, DeleteIoQueuePair, DeleteOutcome, IoQueueError, IoQueueOptions,
    IoQueuePair, IoSlot, QuarantinedQueuePair,
};
use nvme_core::register::RegisterIo;
use nvme_core::time::{Instant, Step};
use nvme_core::wire::admin::{Identify, IdentifyStructure};
use nvme_core::wire::feature::NumberOfQueues;
use nvme_core::wire::identify::{ControllerIdentity, NamespaceIdentity, NamespaceList};
use nvme_core::wire::nvm::{Flush, Read, Write, WriteZeroes};
use nvme_core::wire::{
    Command, CompletionQueueEntry, Lba, NamespaceId, QueueId, Status, StatusCode, SubmissionQueueEntry,
};

use crate::time::Wait;

/// Bytes of every Identify structure.
pub const IDENTIFY_BYTES: usize = 4096;
/// Admin commands that can be outstanding, requests for events among them.
const ADMIN_SLOTS: usize = 16;
/// I/O commands that can be outstanding.
const IO_SLOTS: usize = 8;
/// Longest transfer of one I/O command in bytes.
const MAX_TRANSFER: usize = 512 << 10;
/// Longest transfer of one admin command in bytes.
const MAX_ADMIN_TRANSFER: usize = 64 << 10;
/// Longest sleep while something is waited for.
const NAP: Duration = Duration::from_micros(20);
/// Time-out of a command.
pub const TIMEOUT: Duration = Duration::from_secs(30);
/// Longest time for a controller to become ready, whatever it states.
const READY_LIMIT: Duration = Duration::from_secs(60);
/// Controller Data Queues whose memory is kept until the controller is disabled.
const KEPT: usize = 4;

/// Why a controller could not be driven.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SessionError {
    /// It could not be enabled as asked.
    Enable(EnableError),
    /// It broke a rule, failed, is gone, or did not become ready or disabled in time.
    Fault(Fault),
    /// Its I/O queues are not possible.
    Queues(IoQueueError),
    /// It grants no I/O queues.
    NoQueues,
    /// An admin command did not succeed.
    Admin(&'static str, CallError),
    /// An I/O command was not submitted.
    Submit(&'static str, SubmitError),
    /// An I/O command ended with this status.
    Io(&'static str, Status),
    /// An I/O command did not complete in time.
    TimedOut(&'static str),
    /// A structure that the controller returned is not one.
    Malformed(&'static str),
    /// Memory for the driver could not be had.
    Memory(DmaError),
    /// Bus mastering of a controller that is migrated could not be changed.
    NoBusMastering,
    /// The memory is not that with which the controller was attached.
    OtherArena,
    /// A namespace whose blocks this driver does not transfer: each has so many bytes of metadata among its data.
    Metadata(u16),
}

impl core::error::Error for SessionError {}

impl fmt::Display for SessionError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Enable(error) => error.fmt(f),
            Self::Fault(fault) => fault.fmt(f),
            Self::Queues(error) => error.fmt(f),
            Self::NoQueues => f.write_str("the controller grants no I/O queue pair"),
            Self::Admin(what, error) => write!(f, "{what}: {error}"),
            Self::Submit(what, error) => write!(f, "{what} was not submitted: {error}"),
            Self::Io(what, status) => write!(f, "{what} completed with status {status}"),
            Self::TimedOut(what) => write!(f, "{what} did not complete in time"),
            Self::Malformed(what) => write!(f, "{what} returned by the controller is malformed"),
            Self::Memory(error) => write!(f, "no device memory: {error}"),
            Self::NoBusMastering => f.write_str(
                "bus mastering of a controller that is migrated cannot be changed: name its function",
            ),
            Self::OtherArena => {
                f.write_str("the memory is another than the controller was attached with: give that one")
            }
            Self::Metadata(bytes) => write!(
                f,
                "each block has {bytes} bytes of metadata among its data: format the namespace without, or with separate ones"
            ),
        }
    }
}

impl From<Fault> for SessionError {
    fn from(fault: Fault) -> Self {
        Self::Fault(fault)
    }
}

impl From<DmaError> for SessionError {
    fn from(error: DmaError) -> Self {
        Self::Memory(error)
    }
}

/// What a session keeps its commands in; lent to it.
#[derive(Debug)]
pub struct Storage {
    admin: [AdminSlot; ADMIN_SLOTS],
    io: [IoSlot<u64>; IO_SLOTS],
}

impl Storage {
    /// Room for a session.
    #[must_use]
    pub const fn new() -> Self {
        Self { admin: [const { AdminSlot::new() }; ADMIN_SLOTS], io: [const { IoSlot::new() }; IO_SLOTS] }
    }
}

impl Default for Storage {
    fn default() -> Self {
        Self::new()
    }
}

/// The size of a namespace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shape {
    /// Blocks.
    pub blocks: u64,
    /// Bytes of one.
    pub block_bytes: u32,
}

/// Why a session that is being closed was not brought down in order.
type Ended = Result<(), SessionError>;

/// A queue pair that could not be deleted.
type Undeleted<'d, 's, R, A> = Option<QuarantinedQueuePair<'d, 's, R, A, u64>>;

/// An I/O queue pair; its tags are its user's.
pub type Pair<'d, 's, R, A> = IoQueuePair<'d, 's, R, A, u64>;

/// A controller in use. Close it: dropped, it goes on with the memory it has, which is leaked.
pub struct Session<'d, 's, R, A: DmaArena, W: ?Sized> {
    controller: Ready<'d, 's, R, A>,
    arena: &'d A,
    time: &'d W,
    identity: ControllerIdentity,
    io_slots: Option<&'s mut [IoSlot<u64>]>,
    pair: Option<Pair<'d, 's, R, A>>,
    undeleted: Undeleted<'d, 's, R, A>,
    kept: [Option<Quarantined>; KEPT],
    timeout: Duration,
}

impl<R, A: DmaArena, W: ?Sized> fmt::Debug for Session<'_, '_, R, A, W> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Session").field("controller", &self.identity.controller).finish_non_exhaustive()
    }
}

/// Polls a step machine to its end.
fn run<W: Wait + ?Sized, E>(time: &W, mut poll: impl FnMut(Instant) -> Result<Step, E>) -> Result<(), E> {
    loop {
        match poll(time.now())? {
            Step::Again => {}
            Step::Wait(until) => time.sleep(until.since(time.now())),
            Step::Done => return Ok(()),
        }
    }
}

fn disable<'d, 's, R: RegisterIo, A: DmaArena, W: Wait + ?Sized>(
    mut disabling: Disabling<'d, 's, R, A>,
    time: &W,
) -> Result<Disabled<'d, 's, R, A>, SessionError> {
    run(time, |now| disabling.poll(now))?;
    disabling.finish().map_err(|_| Fault::NotDisabledInTime.into())
}

fn bring_up<'d, 's, R: RegisterIo, A: DmaArena, W: Wait + ?Sized>(
    disabling: Disabling<'d, 's, R, A>,
    slots: &'s mut [AdminSlot],
    time: &W,
) -> Result<Ready<'d, 's, R, A>, SessionError> {
    let options = EnableOptions {
        max_transfer: MAX_ADMIN_TRANSFER,
        ready_limit: READY_LIMIT,
        ..EnableOptions::default()
    };
    let mut enabling = match disable(disabling, time)?.enable(&options, slots) {
        Ok(enabling) => enabling,
        Err(rejected) => {
            rejected.disabled.detach();
            return Err(SessionError::Enable(rejected.error));
        }
    };
    let fault = match run(time, |now| enabling.poll(now)) {
        Ok(()) => match enabling.finish() {
            Ok(ready) => return Ok(ready),
            Err(unfinished) => {
                enabling = unfinished;
                Fault::NotReadyInTime
            }
        },
        Err(fault) => fault,
    };
    // It has queues by now, which come back only with its disable.
    if let Ok(disabled) = disable(enabling.abort(), time) {
        disabled.detach();
    }
    Err(fault.into())
}

impl<'d, 's, R: RegisterIo, A: DmaArena, W: Wait + ?Sized> Session<'d, 's, R, A, W> {
    /// Brings a controller up that has been attached, and identifies it. `arena` is the one it was attached with. If it
    /// fails the controller is disabled, and all memory back, unless it cannot be disabled.
    ///
    /// # Errors
    /// Why it cannot be driven.
    pub fn open(
        disabling: Disabling<'d, 's, R, A>,
        arena: &'d A,
        storage: &'s mut Storage,
        time: &'d W,
    ) -> Result<Self, SessionError> {
        let Storage { admin, io } = storage;
        let mut controller = bring_up(disabling, admin, time)?;
        if !core::ptr::eq(arena, controller.admin().arena()) {
            if let Ok(disabled) = disable(controller.disable(), time) {
                disabled.detach();
            }
            return Err(SessionError::OtherArena);
        }
        let what = "Identify Controller";
        let command = Identify::new(IdentifyStructure::CONTROLLER);
        let mut page = [0; IDENTIFY_BYTES];
        let identity = AdminRequest::receiving(&command, controller.admin().arena(), IDENTIFY_BYTES, TIMEOUT)
            .map_err(SessionError::Memory)
            .and_then(|request| call(&mut controller, what, request, &mut page, time))
            .and_then(|_| ControllerIdentity::parse(&page).map_err(|_| SessionError::Malformed(what)));
        let identity = match identity {
            Ok(identity) => identity,
            Err(error) => {
                // What it could not say matters more than how it goes down.
                if let Ok(disabled) = disable(controller.disable(), time) {
                    disabled.detach();
                }
                return Err(error);
            }
        };
        let smallest = u64::from(controller.capabilities().min_page_size());
        if let Some(limit) = identity.max_transfer_bytes(smallest) {
            controller.admin().limit_transfer(usize::try_from(limit).unwrap_or(usize::MAX));
        }
        controller.admin().request_events(identity.event_request_limit);
        Ok(Self {
            controller,
            arena,
            time,
            identity,
            io_slots: Some(io),
            pair: None,
            undeleted: None,
            kept: [const { None }; KEPT],
            timeout: TIMEOUT,
        })
    }

    /// What the controller says it is.
    #[must_use]
    pub const fn identity(&self) -> &ControllerIdentity {
        &self.identity
    }

    /// The time.
    #[must_use]
    pub fn now(&self) -> Instant {
        self.time.now()
    }

    /// Waits a little.
    pub fn nap(&self) {
        self.time.sleep(NAP);
    }

    /// Time-out of a command.
    #[must_use]
    pub const fn timeout(&self) -> Duration {
        self.timeout
    }

    /// Gives commands another time-out from now on.
    pub const fn set_timeout(&mut self, timeout: Duration) {
        self.timeout = timeout;
    }

    /// The controller itself, to poll step machines over its admin queue.
    pub(crate) const fn controller(&mut self) -> &mut Ready<'d, 's, R, A> {
        &mut self.controller
    }

    /// Sends one admin command without data and waits for its success.
    ///
    /// # Errors
    /// It did not succeed; `what` names it.
    pub(crate) fn command(
        &mut self,
        what: &'static str,
        command: &impl Command,
    ) -> Result<CompletionQueueEntry, SessionError> {
        let request = AdminRequest::without_data(command, self.timeout);
        call(&mut self.controller, what, request, &mut [], self.time)
    }

    /// Sends one admin command that returns `bytes.len()` bytes and waits for its success.
    ///
    /// # Errors
    /// It did not succeed; `what` names it.
    fn receive(
        &mut self,
        what: &'static str,
        command: &impl Command,
        bytes: &mut [u8],
    ) -> Result<(), SessionError> {
        let request = AdminRequest::receiving(command, self.arena, bytes.len(), self.timeout)?;
        call(&mut self.controller, what, request, bytes, self.time).map(drop)
    }

    /// Identify with any structure.
    ///
    /// # Errors
    /// The controller does not succeed.
    pub fn identify(
        &mut self,
        what: &'static str,
        command: &Identify,
        page: &mut [u8; IDENTIFY_BYTES],
    ) -> Result<(), SessionError> {
        self.receive(what, command, page)
    }

    /// The beginning of a log page: as many bytes as `bytes` has, whole dwords of them.
    ///
    /// # Errors
    /// The controller does not succeed.
    pub fn log_page(
        &mut self,
        page: nvme_core::wire::log::LogPageId,
        bytes: &mut [u8],
    ) -> Result<(), SessionError> {
        let whole = bytes.len() / 4;
        let Some(bytes) = bytes.get_mut(..whole.saturating_mul(4)).filter(|bytes| !bytes.is_empty()) else {
            return Ok(());
        };
        let command = nvme_core::wire::admin::GetLogPage {
            namespace: NamespaceId::ALL,
            ..nvme_core::wire::admin::GetLogPage::new(page, whole as u64)
        };
        self.receive("Get Log Page", &command, bytes)
    }

    /// What a namespace is; `None` if it is not active.
    ///
    /// # Errors
    /// The controller does not succeed, or the structure is none.
    pub fn namespace(&mut self, namespace: NamespaceId) -> Result<Option<NamespaceIdentity>, SessionError> {
        const WHAT: &str = "Identify Namespace";
        let command = Identify { namespace, ..Identify::new(IdentifyStructure::NAMESPACE) };
        let mut page = [0; IDENTIFY_BYTES];
        match self.identify(WHAT, &command, &mut page) {
            Err(SessionError::Admin(_, error)) if error.is_status(StatusCode::INVALID_NAMESPACE) => Ok(None),
            Err(error) => Err(error),
            Ok(()) => NamespaceIdentity::parse(&page).map_err(|_| SessionError::Malformed(WHAT)),
        }
    }

    /// Calls `each` with every active namespace, in order. Ends: each identifier is greater than the one before.
    ///
    /// # Errors
    /// The controller does not succeed, or a list is none; an error of `each`.
    pub fn for_each_namespace<E: From<SessionError>>(
        &mut self,
        mut each: impl FnMut(&mut Self, NamespaceId) -> Result<(), E>,
    ) -> Result<(), E> {
        const WHAT: &str = "Identify, Active Namespace ID list";
        let mut after = NamespaceId::NONE;
        loop {
            let mut page = [0; IDENTIFY_BYTES];
            let command =
                Identify { namespace: after, ..Identify::new(IdentifyStructure::ACTIVE_NAMESPACE_LIST) };
            self.identify(WHAT, &command, &mut page)?;
            let list = NamespaceList::parse(&page, after).map_err(|_| SessionError::Malformed(WHAT))?;
            for namespace in list.iter() {
                each(self, namespace)?;
                after = namespace;
            }
            if !list.is_full() {
                return Ok(());
            }
        }
    }

    /// Longest transfer of one I/O command in bytes.
    #[must_use]
    pub fn max_transfer(&self) -> usize {
        let smallest = u64::from(self.controller.capabilities().min_page_size());
        let limit = self.identity.max_transfer_bytes(smallest);
        limit.map_or(MAX_TRANSFER, |limit| usize::try_from(limit).unwrap_or(usize::MAX)).min(MAX_TRANSFER)
    }

    /// Makes the I/O queue pair if there is none.
    fn make_pair(&mut self) -> Result<(), SessionError> {
        if self.pair.is_some() {
            return Ok(());
        }
        const WHAT: &str = "Set Features, Number of Queues";
        let wanted = NumberOfQueues { submission: 1, completion: 1 };
        let entry = self.command(WHAT, &wanted.to_set_features())?;
        let allocated = NumberOfQueues::from_dword(entry.dw0()).map_err(|_| SessionError::Malformed(WHAT))?;
        let granted = wanted.granted(allocated);
        if granted.submission.min(granted.completion) == 0 {
            return Err(SessionError::NoQueues);
        }
        let slots = self.io_slots.take().ok_or(SessionError::NoQueues)?;
        // One entry of a ring always stays empty.
        let most = self.controller.capabilities().max_queue_entries();
        let entries = u32::try_from(slots.len()).unwrap_or(u32::MAX).saturating_add(1).min(most);
        let options = IoQueueOptions {
            max_transfer: self.max_transfer(),
            timeout: self.timeout,
            ..IoQueueOptions::new(QueueId::new(1), entries)
        };
        let mut creation = match CreateIoQueuePair::new(self.controller.admin(), &options, slots) {
            Ok(creation) => creation,
            Err((error, slots)) => {
                self.io_slots = Some(slots);
                return Err(SessionError::Queues(error));
            }
        };
        const CREATION: &str = "the creation of an I/O queue pair";
        loop {
            let polled = self.controller.poll(self.time.now());
            if let Err(fault) = polled {
                self.undeleted = Some(creation.abandon(self.controller.admin()));
                return Err(fault.into());
            }
            if creation.poll(self.controller.admin(), self.time.now()) == Step::Done {
                break;
            }
            self.nap();
        }
        match creation.finish() {
            Ok(CreateOutcome::Created(pair)) => {
                self.pair = Some(pair);
                Ok(())
            }
            Ok(CreateOutcome::Refused { error, slots }) => {
                self.io_slots = Some(slots);
                Err(SessionError::Admin(CREATION, error))
            }
            Ok(CreateOutcome::Quarantined { error, pair }) => {
                self.undeleted = Some(pair);
                Err(SessionError::Admin(CREATION, error))
            }
            Err(creation) => {
                self.undeleted = Some(creation.abandon(self.controller.admin()));
                Err(SessionError::TimedOut(CREATION))
            }
        }
    }

    /// Sends one I/O command and waits for its success. The buffer comes back unless the command was given up.
    fn io(
        &mut self,
        what: &'static str,
        command: &SubmissionQueueEntry,
        buffer: Option<Buffer>,
    ) -> Result<Option<Buffer>, SessionError> {
        let (arena, deadline) = (self.arena, self.now().after(self.timeout));
        let pair = self.pair.as_mut().ok_or(SessionError::NoQueues)?;
        if let Err(rejected) = pair.submit(command, buffer, 0, Some(deadline)) {
            if let Some(buffer) = rejected.buffer {
                give_back(arena, buffer.into_region());
            }
            return Err(SessionError::Submit(what, rejected.error));
        }
        pair.ring()?;
        loop {
            let now = self.time.now();
            self.controller.poll(now)?;
            let pair = self.pair.as_mut().ok_or(SessionError::NoQueues)?;
            if let Some(completed) = pair.poll()? {
                pair.acknowledge()?;
                let status = completed.entry.status();
                if status.is_success() {
                    return Ok(completed.buffer);
                }
                let _ = completed.release(arena);
                return Err(SessionError::Io(what, status));
            }
            if pair.expire(now).is_some() {
                return Err(SessionError::TimedOut(what));
            }
            self.nap();
        }
    }

    /// The size of a namespace whose blocks can be transferred; `None` if it is not active.
    ///
    /// # Errors
    /// As [`namespace`](Self::namespace), or [`SessionError::Metadata`].
    pub fn shape(&mut self, namespace: NamespaceId) -> Result<Option<Shape>, SessionError> {
        let Some(identity) = self.namespace(namespace)? else { return Ok(None) };
        let metadata = identity
            .formats
            .get(usize::from(identity.format_index))
            .map_or(0, |format| format.metadata_bytes);
        // Separate metadata would go where a pointer says that is never set; protection information, too.
        if metadata != 0 {
            return Err(SessionError::Metadata(metadata));
        }
        Ok(Some(Shape { blocks: identity.blocks, block_bytes: identity.block_bytes() }))
    }

    /// Blocks of one command, and memory for them.
    fn transfer_memory(
        &mut self,
        shape: Shape,
        blocks: u64,
        direction: Direction,
    ) -> Result<(u64, Buffer), SessionError> {
        self.make_pair()?;
        let block = u64::from(shape.block_bytes);
        let limit = self.pair.as_ref().map_or(0, Pair::max_transfer).min(self.max_transfer()) as u64;
        // The field of a command that counts blocks has 16 bits.
        let most = (limit / block).min(1 << 16).min(blocks);
        if most == 0 {
            let error = SubmitError::TooLong {
                bytes: usize::try_from(block).unwrap_or(usize::MAX),
                limit: usize::try_from(limit).unwrap_or(usize::MAX),
            };
            return Err(SessionError::Submit("a transfer of one block", error));
        }
        let bytes = usize::try_from(most.saturating_mul(block)).unwrap_or(usize::MAX);
        let region = self.arena.allocate_scattered(Pool::Data, bytes, direction)?;
        Ok((most, Buffer::whole(region)))
    }

    /// Reads `blocks` blocks from `start` on and calls `each` with their bytes, piece by piece in order.
    ///
    /// # Errors
    /// A command does not succeed, or an error of `each`.
    pub fn read<E: From<SessionError>>(
        &mut self,
        namespace: NamespaceId,
        shape: Shape,
        start: Lba,
        blocks: u64,
        mut each: impl FnMut(&[u8]) -> Result<(), E>,
    ) -> Result<(), E> {
        if blocks == 0 {
            return Ok(());
        }
        let (most, mut buffer) = self.transfer_memory(shape, blocks, Direction::FromDevice)?;
        let mut done = 0;
        while done < blocks {
            let now = most.min(blocks.saturating_sub(done));
            let bytes =
                usize::try_from(now.saturating_mul(u64::from(shape.block_bytes))).unwrap_or(usize::MAX);
            let at = Lba::new(start.get().saturating_add(done));
            let command = Read::new(namespace, at, u32::try_from(now).unwrap_or(u32::MAX)).encode();
            let back = self.io("Read", &command, Some(buffer.with_range(0..bytes)))?;
            buffer = back.ok_or(SessionError::TimedOut("Read"))?;
            let mut ended = Ok(());
            let mut piece = [0; 4096];
            for offset in (0..bytes).step_by(piece.len()) {
                let len = bytes.saturating_sub(offset).min(piece.len());
                let Some(piece) = piece.get_mut(..len) else { break };
                ended = buffer
                    .region()
                    .read(offset, piece)
                    .map_err(|error| E::from(SessionError::Memory(error)))
                    .and_then(|()| each(piece));
                if ended.is_err() {
                    break;
                }
            }
            if let Err(error) = ended {
                give_back(self.arena, buffer.into_region());
                return Err(error);
            }
            done = done.saturating_add(now);
        }
        give_back(self.arena, buffer.into_region());
        Ok(())
    }

    /// Writes `bytes`, whole blocks, from `start` on.
    ///
    /// # Errors
    /// A command does not succeed.
    pub fn write(
        &mut self,
        namespace: NamespaceId,
        shape: Shape,
        start: Lba,
        bytes: &[u8],
    ) -> Result<(), SessionError> {
        let block = shape.block_bytes as usize;
        let blocks = (bytes.len() / block.max(1)) as u64;
        if blocks == 0 {
            return Ok(());
        }
        let (most, mut buffer) = self.transfer_memory(shape, blocks, Direction::ToDevice)?;
        let mut at = start.get();
        let whole = block.saturating_mul(usize::try_from(most).unwrap_or(usize::MAX));
        for piece in bytes.chunks(whole) {
            if let Err(error) = buffer.region().write(0, piece) {
                give_back(self.arena, buffer.into_region());
                return Err(error.into());
            }
            let count = (piece.len() / block) as u64;
            let command =
                Write::new(namespace, Lba::new(at), u32::try_from(count).unwrap_or(u32::MAX)).encode();
            let range = 0..piece.len();
            let back = self.io("Write", &command, Some(buffer.with_range(range)))?;
            buffer = back.ok_or(SessionError::TimedOut("Write"))?;
            at = at.saturating_add(count);
        }
        give_back(self.arena, buffer.into_region());
        Ok(())
    }

    /// Makes `blocks` blocks, at most 65,536, from `start` on read as zeroes.
    ///
    /// # Errors
    /// The command does not succeed.
    pub fn write_zeroes(
        &mut self,
        namespace: NamespaceId,
        start: Lba,
        blocks: u32,
    ) -> Result<(), SessionError> {
        self.make_pair()?;
        let command = WriteZeroes::new(namespace, start, blocks).encode();
        self.io("Write Zeroes", &command, None).map(drop)
    }

    /// Makes what was written durable.
    ///
    /// # Errors
    /// The command does not succeed.
    pub fn flush(&mut self, namespace: NamespaceId) -> Result<(), SessionError> {
        self.make_pair()?;
        self.io("Flush", &Flush { namespace }.encode(), None).map(drop)
    }

    /// Lends the I/O queue pair to one who uses it by himself, with the memory that goes with it.
    pub(crate) fn lend_pair(&mut self) -> Result<(Pair<'d, 's, R, A>, &'d A), SessionError> {
        self.make_pair()?;
        Ok((self.pair.take().ok_or(SessionError::NoQueues)?, self.arena))
    }

    /// Takes the I/O queue pair back.
    pub(crate) fn take_pair_back(&mut self, pair: Pair<'d, 's, R, A>) {
        self.pair = Some(pair);
    }

    /// Keeps memory that the controller may reach until it is disabled.
    pub(crate) fn keep(&mut self, quarantined: Quarantined) {
        // One that finds no place is leaked, which is safe.
        if let Some(place) = self.kept.iter_mut().find(|place| place.is_none()) {
            *place = Some(quarantined);
        }
    }

    /// Brings the controller down: queues deleted, shut down, disabled; all memory comes back.
    ///
    /// # Errors
    /// What went wrong first. The controller is disabled then, too, and all memory back, unless it cannot be disabled.
    pub fn close(self) -> Ended {
        let Self { mut controller, arena, time, pair, mut undeleted, mut kept, timeout, identity, .. } = self;
        let mut first = Ok(());
        if let Some(pair) = pair {
            match delete_pair(&mut controller, pair, timeout, time) {
                Ok(()) => {}
                Err((error, pair)) => {
                    first = Err(error);
                    undeleted = Some(pair);
                }
            }
        }
        let limit = Duration::from_micros(u64::from(identity.rtd3_entry)).max(Duration::from_secs(5));
        let mut down = controller.shutdown(Shutdown::Normal, limit.min(READY_LIMIT), time.now());
        let shut = run(time, |now| down.poll(now));
        // Only a disable takes the controller's memory away from it, however the shutdown went.
        let disabled = disable(down.disable(), time)?;
        release_all(&disabled.quiesced(), arena, undeleted, &mut kept);
        disabled.detach();
        first?;
        Ok(shut?)
    }
}

fn release_all<R: RegisterIo, A: DmaArena>(
    proof: &Quiesced<'_>,
    arena: &A,
    undeleted: Undeleted<'_, '_, R, A>,
    kept: &mut [Option<Quarantined>],
) {
    if let Some(pair) = undeleted {
        // The pair is this controller's, so the proof is taken; buffers of its commands go back with it.
        let _ = pair.retire(proof);
    }
    for queue in kept.iter_mut().filter_map(Option::take) {
        queue.release(arena, proof);
    }
}

fn delete_pair<'d, 's, R: RegisterIo, A: DmaArena, W: Wait + ?Sized>(
    controller: &mut Ready<'d, 's, R, A>,
    pair: Pair<'d, 's, R, A>,
    timeout: Duration,
    time: &W,
) -> Result<(), (SessionError, QuarantinedQueuePair<'d, 's, R, A, u64>)> {
    const WHAT: &str = "the deletion of an I/O queue pair";
    let busy = pair.unfinished().next().is_some();
    let mut deletion = DeleteIoQueuePair::new(pair, timeout);
    if busy {
        // A command was given up; the disable that follows ends it.
        return Err((SessionError::TimedOut("an I/O command"), deletion.abandon(controller.admin())));
    }
    while deletion.poll(controller.admin(), time.now()) != Step::Done {
        if let Err(fault) = controller.poll(time.now()) {
            return Err((fault.into(), deletion.abandon(controller.admin())));
        }
        time.sleep(NAP);
    }
    match deletion.finish() {
        Ok(DeleteOutcome::Deleted { .. }) => Ok(()),
        Ok(DeleteOutcome::Quarantined { error, pair }) => Err((SessionError::Admin(WHAT, error), pair)),
        Err(deletion) => Err((SessionError::TimedOut(WHAT), deletion.abandon(controller.admin()))),
    }
}

/// Sends one admin command and waits for it.
fn call<R: RegisterIo, A: DmaArena, W: Wait + ?Sized>(
    controller: &mut Ready<'_, '_, R, A>,
    what: &'static str,
    request: AdminRequest,
    bytes: &mut [u8],
    time: &W,
) -> Result<CompletionQueueEntry, SessionError> {
    let mut call = Call::new();
    // A fresh call has room.
    let _ = call.start(request);
    loop {
        let now = time.now();
        if let Err(fault) = controller.poll(now) {
            call.abandon(controller.admin());
            return Err(fault.into());
        }
        if let Some(result) = call.poll(controller.admin(), now) {
            let arena = controller.admin().arena();
            return result.read(arena, bytes).map_err(|error| SessionError::Admin(what, error));
        }
        time.sleep(NAP);
    }
}

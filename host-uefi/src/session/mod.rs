// SPDX-License-Identifier: MIT OR Apache-2.0
//! A controller in use by one thread that waits: brought up, identified, asked one command after another, brought down.
//! It works with any registers and memory of the core, so it can be tried without firmware.

mod blocks;
mod error;
mod life;

use core::fmt;
use core::time::Duration;

use nvme_core::admin::{AdminPort, AdminRequest, AdminSlot};
use nvme_core::cdq::Quarantined;
use nvme_core::controller::{Disabling, Ready, Shutdown};
use nvme_core::dma::DmaArena;
use nvme_core::io::{IoQueuePair, IoSlot, QuarantinedQueuePair};
use nvme_core::register::RegisterIo;
use nvme_core::time::Instant;
use nvme_core::wire::admin::{GetLogPage, Identify, IdentifyStructure};
use nvme_core::wire::controller_state::ControllerStateHeader;
use nvme_core::wire::identify::{ControllerIdentity, NamespaceIdentity, NamespaceList};
use nvme_core::wire::log::LogPageId;
use nvme_core::wire::migration::MigrationReceive;
use nvme_core::wire::{Command, CompletionQueueEntry, ControllerId, NamespaceId, StatusCode};

pub use error::SessionError;
use life::{bring_up, call, delete_pair, disable, release_all, run};

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
/// Longest time for a controller to become ready: CAP.TO can state 255 half seconds.
pub(crate) const READY_LIMIT: Duration = Duration::from_millis(127_500);
/// How often a disable is begun while registers cannot be accessed.
const DISABLE_TRIES: u32 = 4;
/// Most namespaces that a controller may list; each of them can cost a command.
pub const MOST_NAMESPACES: u32 = 1 << 16;
/// Most namespaces that are asked for one by one, of a controller that does not list them.
pub const MOST_UNLISTED: u32 = 1 << 10;
/// Controller Data Queues whose memory is kept until the controller is disabled.
const KEPT: usize = 4;

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
    /// The namespace that was looked at last.
    shape: Option<(NamespaceId, Shape)>,
    timeout: Duration,
}

impl<R, A: DmaArena, W: ?Sized> fmt::Debug for Session<'_, '_, R, A, W> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Session").field("controller", &self.identity.controller).finish_non_exhaustive()
    }
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
            shape: None,
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

    /// Waits for so long.
    pub(crate) fn sleep(&self, time: Duration) {
        self.time.sleep(time);
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

    /// Whether a controller that this one manages is suspended: by the completion of Get Controller State, or by the state
    /// itself. With an error nobody says.
    ///
    /// # Errors
    /// The controller does not succeed, or what it returns is no state.
    pub(crate) fn says_suspended(&mut self, controller: ControllerId) -> Result<bool, SessionError> {
        const WHAT: &str = "Get Controller State";
        let command = MigrationReceive {
            controller,
            version_index: 1,
            vendor_index: 0,
            vendor_parameter: 0,
            offset: 0,
            dwords: ControllerStateHeader::BYTES as u64 / 4,
            uuid_index: 0,
        };
        let mut header = [0; ControllerStateHeader::BYTES];
        let request = AdminRequest::receiving(&command, self.arena, header.len(), self.timeout)?;
        let entry = call(&mut self.controller, WHAT, request, &mut header, self.time)?;
        let state = ControllerStateHeader::parse(&header).map_err(|_| SessionError::Malformed(WHAT))?;
        Ok(MigrationReceive::was_suspended(&entry) || state.suspended())
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
    pub fn log_page(&mut self, page: LogPageId, bytes: &mut [u8]) -> Result<(), SessionError> {
        let whole = bytes.len() / 4;
        let Some(bytes) = bytes.get_mut(..whole.saturating_mul(4)).filter(|bytes| !bytes.is_empty()) else {
            return Ok(());
        };
        let command = GetLogPage { namespace: NamespaceId::ALL, ..GetLogPage::new(page, whole as u64) };
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

    /// Calls `each` with every active namespace, in order, [`MOST_NAMESPACES`] at most. For a controller that tells no
    /// version (1.1 or older) it is every namespace that there may be, [`MOST_UNLISTED`] at most.
    ///
    /// # Errors
    /// The controller does not succeed, or a list is none; an error of `each`; [`SessionError::TooManyNamespaces`] behind
    /// the last one that is allowed.
    pub fn for_each_namespace<E: From<SessionError>>(
        &mut self,
        mut each: impl FnMut(&mut Self, NamespaceId) -> Result<(), E>,
    ) -> Result<(), E> {
        const WHAT: &str = "Identify, Active Namespace ID list";
        // The list came with version 1.1, and the version itself with 1.2: of older controllers each namespace is asked for.
        // Both know namespaces 1 to the number of namespaces.
        if self.identity.version == 0 {
            let count = self.identity.namespace_count;
            for namespace in 1..=count.min(MOST_UNLISTED) {
                each(self, NamespaceId::new(namespace))?;
            }
            return match count > MOST_UNLISTED {
                true => Err(SessionError::TooManyNamespaces(MOST_UNLISTED).into()),
                false => Ok(()),
            };
        }
        let (mut after, mut left) = (NamespaceId::NONE, MOST_NAMESPACES);
        loop {
            let mut page = [0; IDENTIFY_BYTES];
            let command =
                Identify { namespace: after, ..Identify::new(IdentifyStructure::ACTIVE_NAMESPACE_LIST) };
            self.identify(WHAT, &command, &mut page)?;
            let list = NamespaceList::parse(&page, after).map_err(|_| SessionError::Malformed(WHAT))?;
            for namespace in list.iter() {
                left = left.checked_sub(1).ok_or(SessionError::TooManyNamespaces(MOST_NAMESPACES))?;
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
        // At least what the specification recommends, and no more than a controller is waited for otherwise: the disable
        // that follows ends one that states hours.
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

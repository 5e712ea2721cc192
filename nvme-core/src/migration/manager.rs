// SPDX-License-Identifier: MIT OR Apache-2.0
//! The commands of a managing controller, one function each.
//!
//! Every migration command goes to the managing controller's admin queue and names the tracked controller, whose own
//! admin queue belongs to the guest. A [`Manager`] builds the requests; a [`Call`] carries one to its end. They are
//! the states of a migratable device, one by one: suspend is running to stopped, reading the state stopped to copying,
//! setting it resuming to stopped, resume stopped to running.

use core::time::Duration;

use super::failure::{CommandFailed, ManagerError, MigrationCommand};
use super::formats::FormatIndices;
use super::quirks::Quirks;
use crate::admin::{AdminPort, AdminRequest, Call, CallError};
use crate::cdq::MemoryLimits;
use crate::dma::{DmaArena, DmaError};
use crate::time::Instant;
use crate::wire::admin::{
    Identify, IdentifyStructure, VirtualizationAction, VirtualizationManagement, VirtualizationResource,
};
use crate::wire::identify::{
    ControllerIdentity, IdentifyPage, LbaMigrationQueueFormat, MigrationLimits, NvmControllerIdentity,
    OptionalAdminCommands, PAGE_BYTES, SecondaryControllers, TrackingAttributes,
};
use crate::wire::lba_status::{GetLbaStatus, LbaStatusAction};
use crate::wire::migration::{MigrationReceive, MigrationSend, SequenceIndicator, SuspendKind};
use crate::wire::track::{TrackReceive, TrackSend};
use crate::wire::{CdqId, ControllerId, Lba, ManagerId, NamespaceId, StatusCode, TargetIsManager, TrackedId};

/// A managing controller that has been identified, and the requests it takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Manager {
    id: ManagerId,
    limits: MigrationLimits,
    reports_allocation: bool,
    log_format: LbaMigrationQueueFormat,
    quirks: Quirks,
    timeout: Duration,
}

impl Manager {
    /// The managing controller that this Identify data describes. `timeout` is given to every request.
    ///
    /// # Errors
    /// [`ManagerError::NotAManager`] if it does not manage migrations.
    pub fn new(
        identity: &ControllerIdentity,
        quirks: Quirks,
        timeout: Duration,
    ) -> Result<Self, ManagerError> {
        if !identity.is_manager() {
            return Err(ManagerError::NotAManager(identity.controller));
        }
        Ok(Self {
            id: ManagerId::new(identity.controller),
            limits: identity.migration,
            log_format: LbaMigrationQueueFormat::TYPE_0,
            reports_allocation: identity.admin_commands.contains(OptionalAdminCommands::GET_LBA_STATUS),
            quirks,
            timeout,
        })
    }

    /// The managing controller's identifier.
    #[must_use]
    pub const fn id(&self) -> ManagerId {
        self.id
    }

    /// What it can track.
    #[must_use]
    pub const fn limits(&self) -> &MigrationLimits {
        &self.limits
    }

    /// Its deviations from the specification.
    #[must_use]
    pub const fn quirks(&self) -> Quirks {
        self.quirks
    }

    /// Whether it can track changes of user data, by a Controller Data Queue.
    #[must_use]
    pub const fn tracks_user_data(&self) -> bool {
        self.limits.tracking.contains(TrackingAttributes::USER_DATA)
    }

    /// Whether it can track changes of host memory, by Track Receive.
    #[must_use]
    pub const fn tracks_host_memory(&self) -> bool {
        self.limits.tracking.contains(TrackingAttributes::HOST_MEMORY)
    }

    /// Which entries its User Data Migration Queues hold (LBAMQF); Entry Type 0 where it does not say.
    #[must_use]
    pub const fn log_format(&self) -> LbaMigrationQueueFormat {
        self.log_format
    }

    /// Whether it answers Get LBA Status.
    #[must_use]
    pub const fn reports_allocation(&self) -> bool {
        self.reports_allocation
    }

    /// What it states about the memory of Controller Data Queues; zero where it states nothing.
    #[must_use]
    pub const fn memory_limits(&self) -> MemoryLimits {
        MemoryLimits { ranges: self.limits.queue_memory_ranges, list_entries: self.limits.queue_prps }
    }

    /// Names the controller to migrate. Its identifier comes from its own Identify data or from the Secondary
    /// Controller List: a virtual function, another function or an emulated one.
    ///
    /// # Errors
    /// [`TargetIsManager`] if it is the managing controller itself.
    pub fn track(&self, controller: ControllerId) -> Result<TrackedId, TargetIsManager> {
        TrackedId::new(controller, self.id)
    }

    /// Asks for the secondary controllers of this controller, whose identifiers are at least `from`: parse the data
    /// as [`SecondaryControllers`] and look a virtual function up with [`virtual_function`].
    ///
    /// # Errors
    /// [`DmaError`] if there is no memory for the data.
    pub fn secondary_controllers<A: DmaArena + ?Sized>(
        &self,
        arena: &A,
        from: ControllerId,
    ) -> Result<AdminRequest, DmaError> {
        let mut identify = Identify::new(IdentifyStructure::SECONDARY_CONTROLLER_LIST);
        identify.controller = from;
        AdminRequest::receiving(&identify, arena, PAGE_BYTES, self.timeout)
    }

    /// Starts logging changes of user data into a queue, or stops it. NVMe Base 2.1 §5.1.27.1.1.
    #[must_use]
    pub fn log_user_data(&self, queue: CdqId, start: bool) -> AdminRequest {
        AdminRequest::without_data(&TrackSend::LogUserDataChanges { start, queue }, self.timeout)
    }

    /// Tells the tracked controller that a suspension is near. Changes nothing.
    #[must_use]
    pub fn notify_suspend(&self, tracked: TrackedId) -> AdminRequest {
        self.suspend_command(tracked, SuspendKind::Notification, false, self.timeout)
    }

    /// Suspends the tracked controller: it stops fetching, completes what it has fetched except event requests, then
    /// stops every transfer it makes, to peers as well as to host memory. `delete_queue` has its User Data Migration
    /// Queue deleted, too. It may take as long as the guest leaves completion queues full: `timeout`.
    /// NVMe Base 2.1 §5.1.17.1.1.
    #[must_use]
    pub fn suspend(&self, tracked: TrackedId, delete_queue: bool, timeout: Duration) -> AdminRequest {
        self.suspend_command(tracked, SuspendKind::Suspend, delete_queue, timeout)
    }

    fn suspend_command(
        &self,
        tracked: TrackedId,
        kind: SuspendKind,
        delete_queue: bool,
        timeout: Duration,
    ) -> AdminRequest {
        let controller = tracked.controller();
        AdminRequest::without_data(
            &MigrationSend::Suspend { controller, kind, delete_queue, uuid_index: 0 },
            timeout,
        )
    }

    /// Resumes the tracked controller. NVMe Base 2.1 §5.1.17.1.2.
    #[must_use]
    pub fn resume(&self, tracked: TrackedId) -> AdminRequest {
        let command = MigrationSend::Resume { controller: tracked.controller(), uuid_index: 0 };
        AdminRequest::without_data(&command, self.timeout)
    }

    /// Reads `bytes` bytes of the controller state from `offset` on, both multiples of four. Whether the controller
    /// was suspended throughout stands in the completion: [`MigrationReceive::was_suspended`].
    ///
    /// # Errors
    /// [`DmaError`] if there is no memory for the data.
    pub fn get_state<A: DmaArena + ?Sized>(
        &self,
        arena: &A,
        tracked: TrackedId,
        formats: FormatIndices,
        offset: u64,
        bytes: usize,
    ) -> Result<AdminRequest, DmaError> {
        let command = MigrationReceive {
            controller: tracked.controller(),
            version_index: formats.version,
            vendor_index: formats.vendor,
            vendor_parameter: 0,
            offset,
            dwords: (bytes as u64).div_ceil(4),
            uuid_index: 0,
        };
        AdminRequest::receiving(&command, arena, bytes, self.timeout)
    }

    /// Sends a part of the controller state, which starts at byte `offset` of the image; offset and length are
    /// multiples of four.
    ///
    /// # Errors
    /// [`DmaError`] if there is no memory for the data.
    pub fn set_state<A: DmaArena + ?Sized>(
        &self,
        arena: &A,
        tracked: TrackedId,
        formats: FormatIndices,
        sequence: SequenceIndicator,
        offset: u64,
        part: &[u8],
    ) -> Result<AdminRequest, DmaError> {
        let command = MigrationSend::SetControllerState {
            controller: tracked.controller(),
            sequence,
            version_index: formats.version,
            vendor_index: formats.vendor,
            offset,
            dwords: u32::try_from(part.len().div_ceil(4)).unwrap_or(u32::MAX),
            uuid_index: 0,
        };
        AdminRequest::sending(&command, arena, part, self.timeout)
    }

    /// Starts tracking what the tracked controller writes into host memory; `ranges` is built by
    /// [`TrackedRanges::build`](crate::wire::track). A log of its own beside the queue.
    /// NVMe Base 2.1 §5.1.27.1.2, Track Memory Changes.
    ///
    /// # Errors
    /// [`DmaError`] if there is no memory for the data.
    pub fn track_memory<A: DmaArena + ?Sized>(
        &self,
        arena: &A,
        tracked: TrackedId,
        ranges: &[u8],
    ) -> Result<AdminRequest, DmaError> {
        let command = TrackSend::TrackMemoryChanges { start: true, controller: tracked.controller() };
        AdminRequest::sending(&command, arena, ranges, self.timeout)
    }

    /// Stops tracking host memory.
    #[must_use]
    pub fn stop_tracking_memory(&self, tracked: TrackedId) -> AdminRequest {
        let command = TrackSend::TrackMemoryChanges { start: false, controller: tracked.controller() };
        AdminRequest::without_data(&command, self.timeout)
    }

    /// Receives, and thereby removes, up to `bytes` bytes of tracked changes of host memory: read them with
    /// [`TrackedMemoryChanges`](crate::wire::track::TrackedMemoryChanges).
    ///
    /// # Errors
    /// [`DmaError`] if there is no memory for the data.
    pub fn receive_tracked_memory<A: DmaArena + ?Sized>(
        &self,
        arena: &A,
        tracked: TrackedId,
        bytes: usize,
    ) -> Result<AdminRequest, DmaError> {
        let command = TrackReceive { controller: tracked.controller(), dwords: (bytes as u64).div_ceil(4) };
        AdminRequest::receiving(&command, arena, bytes, self.timeout)
    }

    /// Asks which blocks of `namespace` from `start` on are allocated.
    ///
    /// # Errors
    /// [`DmaError`] if there is no memory for the data.
    pub fn allocated_blocks<A: DmaArena + ?Sized>(
        &self,
        arena: &A,
        namespace: NamespaceId,
        start: Lba,
        bytes: usize,
    ) -> Result<AdminRequest, DmaError> {
        let command = GetLbaStatus {
            namespace,
            start,
            max_dwords: (bytes as u64).div_ceil(4),
            range_blocks: 0,
            action: LbaStatusAction::ALLOCATED,
        };
        AdminRequest::receiving(&command, arena, bytes, self.timeout)
    }

    /// Takes a secondary controller offline.
    #[must_use]
    pub fn take_offline(&self, secondary: TrackedId) -> AdminRequest {
        self.virtualization(
            secondary,
            VirtualizationAction::SECONDARY_OFFLINE,
            VirtualizationResource::VIRTUAL_QUEUES,
            0,
        )
    }

    /// Brings a secondary controller online.
    #[must_use]
    pub fn bring_online(&self, secondary: TrackedId) -> AdminRequest {
        self.virtualization(
            secondary,
            VirtualizationAction::SECONDARY_ONLINE,
            VirtualizationResource::VIRTUAL_QUEUES,
            0,
        )
    }

    /// Assigns `count` resources to a secondary controller, which is offline.
    #[must_use]
    pub fn assign_resources(
        &self,
        secondary: TrackedId,
        resource: VirtualizationResource,
        count: u16,
    ) -> AdminRequest {
        self.virtualization(secondary, VirtualizationAction::SECONDARY_ASSIGN, resource, count)
    }

    fn virtualization(
        &self,
        secondary: TrackedId,
        action: VirtualizationAction,
        resource_type: VirtualizationResource,
        resources: u16,
    ) -> AdminRequest {
        let controller = secondary.controller();
        let command = VirtualizationManagement { action, resource_type, controller, resources };
        AdminRequest::without_data(&command, self.timeout)
    }
}

/// The controller behind virtual function `number` (from 1) in a list of secondary controllers.
#[must_use]
pub fn virtual_function(list: &SecondaryControllers<'_>, number: u16) -> Option<ControllerId> {
    let mut found = list.iter().filter(|one| number != 0 && one.virtual_function == number);
    found.next().map(|one| one.controller)
}

/// Finds out whether a controller manages migrations, and which state formats it has.
#[derive(Debug)]
pub struct Discovery {
    quirks: Quirks,
    timeout: Duration,
    manager: Option<Manager>,
    structure: IdentifyStructure,
    call: Call,
}

/// What a discovery found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Discovered {
    /// The managing controller.
    pub manager: Manager,
    /// Its Supported Controller State Formats, as returned.
    pub formats: IdentifyPage,
}

impl Discovery {
    /// A discovery that gives each command `timeout`.
    #[must_use]
    pub const fn new(quirks: Quirks, timeout: Duration) -> Self {
        Self { quirks, timeout, manager: None, structure: IdentifyStructure::CONTROLLER, call: Call::new() }
    }

    /// Goes on; `Some` exactly once. Never blocks.
    ///
    /// # Errors
    /// [`ManagerError`].
    pub fn poll<P: AdminPort + ?Sized>(
        &mut self,
        port: &mut P,
        now: Instant,
    ) -> Option<Result<Discovered, ManagerError>> {
        match self.go_on(port, now) {
            Ok(done) => done.map(Ok),
            Err(error) => Some(Err(error)),
        }
    }

    /// Gives up interest in a command on its way.
    pub fn abandon<P: AdminPort + ?Sized>(&mut self, port: &mut P) {
        self.call.abandon(port);
    }

    fn go_on<P: AdminPort + ?Sized>(
        &mut self,
        port: &mut P,
        now: Instant,
    ) -> Result<Option<Discovered>, ManagerError> {
        if self.call.is_idle() {
            let identify = Identify::new(self.structure);
            let request = AdminRequest::receiving(&identify, port.arena(), PAGE_BYTES, self.timeout)
                .map_err(ManagerError::Memory)?;
            // An idle call takes every request.
            let _ = self.call.start(request);
        }
        let Some(result) = self.call.poll(port, now) else { return Ok(None) };
        let mut page = [0; PAGE_BYTES];
        let read = result.read(port.arena(), &mut page);
        let failed =
            |command| move |error: CallError| ManagerError::Command(CommandFailed { command, error });
        let Some(manager) = self.manager else {
            read.map_err(failed(MigrationCommand::Identify))?;
            let identity = ControllerIdentity::parse(&page).map_err(ManagerError::Identify)?;
            let manager = Manager::new(&identity, self.quirks, self.timeout)?;
            self.structure = if manager.tracks_user_data() {
                IdentifyStructure::COMMAND_SET_CONTROLLER
            } else {
                IdentifyStructure::SUPPORTED_CONTROLLER_STATE_FORMATS
            };
            self.manager = Some(manager);
            return Ok(None);
        };
        if self.structure == IdentifyStructure::COMMAND_SET_CONTROLLER {
            // The command set is NVM, number 0. A controller without the structure has no format of its own.
            let log_format = match read {
                Ok(_) => {
                    NvmControllerIdentity::parse(&page)
                        .map_err(ManagerError::Identify)?
                        .migration_queue_format
                }
                Err(CallError::Status(_)) => LbaMigrationQueueFormat::TYPE_0,
                Err(error) => return Err(failed(MigrationCommand::Identify)(error)),
            };
            self.manager = Some(Manager { log_format, ..manager });
            self.structure = IdentifyStructure::SUPPORTED_CONTROLLER_STATE_FORMATS;
            return Ok(None);
        }
        match read {
            Ok(_) => Ok(Some(Discovered { manager, formats: page })),
            // One passage of the specification gives the structure another number.
            Err(error)
                if error.is_status(StatusCode::INVALID_FIELD)
                    && self.structure == IdentifyStructure::SUPPORTED_CONTROLLER_STATE_FORMATS =>
            {
                self.structure = IdentifyStructure::SUPPORTED_CONTROLLER_STATE_FORMATS_ERRATUM;
                Ok(None)
            }
            Err(error) => Err(failed(MigrationCommand::StateFormats)(error)),
        }
    }
}

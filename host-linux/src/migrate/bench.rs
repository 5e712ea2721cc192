// SPDX-License-Identifier: MIT OR Apache-2.0
//! What a migration needs around it: both subsystems, the guest between them, and everybody's memory.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use nvme_controller::fault::FaultSlot;
use nvme_core::migration::{Quirks, Timeouts};
use nvme_core::register::{Offset, RegisterIo};
use nvme_core::wire::{ControllerId, NamespaceId};

use super::{LOOK, Observer, RunError, Status};
use crate::backend::{Devices, Pump, Registers};
use crate::config::{DataPath, MigrateConfig, Namespaces};
use crate::driver::ADMIN_TIMEOUT;
use crate::embedded::{ControllerRole, ControllerSetup, EmbeddedSubsystem, NAMESPACE, SubsystemSetup};
use crate::endpoint::{AccessError, Attachment, Endpoint};
use crate::guest::{Guest, GuestSetup, InitialContent, Wiring, WorkloadOptions};
use crate::images::{Inputs, fill};
use crate::journal::{Journal, Side};
use crate::memory::{AddressSpace, Capacity, PAGE};
use crate::mover::{IO_TIMEOUT, PIECE_BYTES, PIECES};
use crate::platform::{Hooks, HostPlatform};
use crate::report::{EnabledReport, FaultReport};
use crate::sync::{RunToken, Signal};
use crate::virtualization::Resources;
use crate::witness::Witness;

/// The managing controller, in either subsystem.
pub(super) const MANAGER: ControllerId = ControllerId::new(1);
/// The guest's controller at the source.
pub(super) const SOURCE: ControllerId = ControllerId::new(2);
/// The guest's controller at the destination: another identifier, as on another machine.
pub(super) const DESTINATION: ControllerId = ControllerId::new(7);

/// Controller Configuration and Controller Status.
pub(super) const CC: Offset = Offset::new(0x14);
const CSTS: Offset = Offset::new(0x1C);
/// How long a controller may take to become disabled.
const DISABLE: Duration = Duration::from_secs(2);
/// How often a run that waits for nothing but commands looks after its guest.
const SHORT_LOOK: Duration = Duration::from_millis(1);
/// How long a guest may take beyond its time for the commands asked of it.
const COMMANDS: Duration = Duration::from_secs(60);

/// Time-outs of a run.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    /// Of the migration.
    pub(super) migration: Timeouts,
    /// Of the guest's commands; a suspension must not reach it.
    pub(super) guest: Duration,
    /// Of the data mover's I/O commands.
    pub(super) mover: Duration,
    /// Of the managing controllers' admin commands.
    pub(super) admin: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            migration: Timeouts::default(),
            guest: Duration::from_secs(60),
            mover: IO_TIMEOUT,
            admin: ADMIN_TIMEOUT,
        }
    }
}

impl Limits {
    /// With every command of the migration given up after `timeout`.
    pub(super) fn after(timeout: Duration) -> Self {
        let migration = Timeouts {
            command: timeout,
            // The source waits for the guest's commands, and the destination's answer for several of its own.
            suspend: timeout.saturating_mul(2),
            marker: timeout,
            answer: timeout.saturating_mul(4),
            ..Timeouts::default()
        };
        // A suspension, and what comes of a fault during one, must not reach the guest's.
        Self { migration, guest: timeout.saturating_mul(20), mover: timeout, admin: timeout }
    }
}

/// Each controller's bus address space; the guest's serves its controllers on both sides.
pub(super) struct Memories {
    pub(super) guest: Arc<AddressSpace>,
    pub(super) source: Arc<AddressSpace>,
    pub(super) destination: Arc<AddressSpace>,
}

impl Memories {
    fn new(config: &MigrateConfig) -> Result<Self, RunError> {
        let space = |name, capacity| {
            AddressSpace::new(name, capacity)
                .map(Arc::new)
                .map_err(|error| RunError::Io("memory for controllers", error))
        };
        let (guest, manager) = capacities(config);
        Ok(Self {
            guest: space("nvme-lm guest", guest)?,
            source: space("nvme-lm source manager", manager)?,
            destination: space("nvme-lm destination manager", manager)?,
        })
    }
}

/// Memory that the guest needs, and each managing controller.
pub(super) fn capacities(config: &MigrateConfig) -> (Capacity, Capacity) {
    let commands = usize::from(config.queue_depth) * usize::from(config.io_queues);
    let command_bytes = (config.io_size as usize).next_multiple_of(PAGE);
    let guest = Capacity {
        // Entries, PRP lists, and what is lost to whole pages.
        queues: (4 << 20) + commands * 3 * PAGE,
        data: (4 << 20) + commands * command_bytes,
        controller_data: PAGE,
    };
    let manager = Capacity {
        queues: 8 << 20,
        data: (8 << 20) + PIECES * PIECE_BYTES,
        // The entries, and as much again for list pages and room to move.
        controller_data: (1 << 20) + config.cdq_entries as usize * 64,
    };
    (guest, manager)
}

pub(super) struct Subsystems {
    pub(super) source: EmbeddedSubsystem,
    pub(super) destination: EmbeddedSubsystem,
}

impl Subsystems {
    pub(super) fn stop(self) {
        self.source.stop();
        self.destination.stop();
    }
}

/// The registers of a controller that its subsystem certainly has.
pub(super) fn registers(subsystem: &EmbeddedSubsystem, id: ControllerId) -> Result<Registers, RunError> {
    subsystem
        .controller(id)
        .map(Registers::Embedded)
        .ok_or(RunError::Manager(crate::driver::DriverError::Access(AccessError::Stopped)))
}

/// One side of the migration.
pub(super) struct Party {
    /// Its managing controller.
    pub(super) manager: Registers,
    /// The memory that the managing controller reaches.
    pub(super) memory: Arc<AddressSpace>,
    /// Interrupt vectors of the managing controller; none if there are always enough.
    pub(super) vectors: Option<u16>,
    /// The guest's controller, by its identifier.
    pub(super) controller: ControllerId,
    /// The registers of that.
    pub(super) registers: Registers,
    /// Known deviations of the managing controller.
    pub(super) quirks: Quirks,
}

/// What the controllers need for as long as they are used.
pub(super) enum Behind {
    /// Subsystems of this run.
    Embedded(Subsystems),
    /// Controllers that were opened for it, and the threads that hand their interrupts on.
    Opened {
        /// They end before the controllers.
        pumps: Vec<Pump>,
        /// Closed at the end.
        devices: Devices,
    },
}

impl Behind {
    pub(super) fn end(self) {
        match self {
            Self::Embedded(subsystems) => subsystems.stop(),
            Self::Opened { pumps, devices } => {
                drop(pumps);
                drop(devices);
            }
        }
    }
}

pub(super) struct Bench {
    pub(super) behind: Behind,
    pub(super) source: Party,
    pub(super) destination: Party,
    /// The guest's namespace.
    pub(super) namespace: NamespaceId,
    /// Its blocks, and the bytes in one.
    pub(super) shape: (u64, u32),
    /// The guest's memory, the same on both sides.
    pub(super) guest_memory: Arc<AddressSpace>,
    /// Raised by both managing controllers.
    pub(super) managers: Arc<Signal>,
    /// The guest to be started, if it is this program's.
    pub(super) guest_setup: Option<GuestSetup<Registers>>,
    /// The guest while it runs.
    pub(super) guest: Option<Guest>,
    /// The guest's processor.
    pub(super) token: Arc<RunToken>,
    /// The guest's registers.
    pub(super) endpoint: Arc<Endpoint<Registers>>,
    pub(super) limits: Limits,
    pub(super) platform: HostPlatform<Registers>,
    pub(super) witness: Option<Arc<Witness>>,
    /// The destination's controller has to be brought online first, with these resources.
    pub(super) virtualization: Option<Resources>,
    /// The source's controller is a secondary one, too: it went offline with its primary one, the managing controller, and has
    /// to be brought online again, with these resources.
    pub(super) source_virtualization: Option<Resources>,
    /// How the data gets to the destination.
    pub(super) data: DataPath,
    /// Compare both sides at the stop.
    pub(super) compare: bool,
    pub(super) journal: Option<PathBuf>,
    /// What each side's controllers do wrong.
    pub(super) faults: [(Side, Arc<[FaultSlot]>); 2],
}

impl Bench {
    /// Fills the source if it is in memory, and starts both subsystems. While it is filled `observer` is told how far that
    /// is, and asked whether to go on.
    pub(super) fn start(
        config: &MigrateConfig,
        inputs: &Inputs,
        limits: Limits,
        observer: &mut dyn Observer,
    ) -> Result<Self, RunError> {
        Self::start_as(config, inputs, limits, [ControllerRole::Migratable; 2], observer)
    }

    /// As [`start`](Self::start); the guest's controllers, the source's first, have these roles.
    pub(super) fn start_as(
        config: &MigrateConfig,
        inputs: &Inputs,
        limits: Limits,
        [source_role, destination_role]: [ControllerRole; 2],
        observer: &mut dyn Observer,
    ) -> Result<Self, RunError> {
        let in_memory = matches!(config.namespaces, Namespaces::Memory { .. });
        if in_memory {
            let total_bytes = inputs.size;
            let mut go_on = |moved_bytes| {
                observer.update(&Status { step: "filling the source".into(), moved_bytes, total_bytes });
                !observer.is_interrupted()
            };
            let filled = fill(&inputs.source, inputs.size, config.block_size, config.seed, &mut go_on);
            if !filled.map_err(|error| RunError::Io("filling the source", error))? {
                return Err(RunError::Interrupted);
            }
        }
        let journal = match &inputs.journal {
            Some(paths) => Some(
                Journal::create(
                    &paths.journal,
                    &paths.source,
                    &paths.destination,
                    format!("{:016x}", fastrand::u64(..)),
                )
                .map_err(|error| RunError::Io("journal", error))?,
            ),
            None => None,
        };
        let memory = Memories::new(config)?;
        let (managers, interrupts) = (Arc::<Signal>::default(), Arc::<Signal>::default());
        let blocks = inputs.size / u64::from(config.block_size);
        let witness = Arc::new(Witness::new(
            Arc::clone(&inputs.source),
            Arc::clone(&inputs.destination),
            config.block_size,
            blocks,
        ));
        let subsystem = |name: &str, side, (id, role), manager: &Arc<AddressSpace>, namespace| {
            let controller =
                |id, role, io_queues, memory: &Arc<AddressSpace>, signal: &Arc<Signal>| ControllerSetup {
                    id,
                    role,
                    io_queues,
                    memory: Arc::clone(memory),
                    interrupts: Arc::clone(signal),
                };
            SubsystemSetup {
                name: name.into(),
                serial_number: name.to_uppercase(),
                namespace: Arc::clone(namespace),
                block_size: config.block_size,
                unique_id: *b"nvme-lm namespac",
                faults: faults(config, side),
                quirks: nvme_controller::Quirks::empty(),
                controllers: vec![
                    controller(MANAGER, ControllerRole::Managing, 1, manager, &managers),
                    controller(id, role, config.io_queues, &memory.guest, &interrupts),
                ],
            }
        };
        let migrating = (SOURCE, source_role);
        let source = subsystem("source", Side::Source, migrating, &memory.source, &inputs.source);
        let destination = subsystem(
            "destination",
            Side::Destination,
            (DESTINATION, destination_role),
            &memory.destination,
            &inputs.destination,
        );
        let faults = [
            (Side::Source, Arc::clone(&source.faults)),
            (Side::Destination, Arc::clone(&destination.faults)),
        ];
        let subsystems = Subsystems {
            source: EmbeddedSubsystem::start(source).map_err(RunError::Subsystem)?,
            destination: EmbeddedSubsystem::start_watched(destination, Arc::clone(&witness))
                .map_err(RunError::Subsystem)?,
        };
        let party = |subsystem, controller, memory: &Arc<AddressSpace>| {
            Ok(Party {
                manager: registers(subsystem, MANAGER)?,
                memory: Arc::clone(memory),
                vectors: None,
                controller,
                registers: registers(subsystem, controller)?,
                quirks: Quirks::empty(),
            })
        };
        let source = party(&subsystems.source, SOURCE, &memory.source)?;
        let destination = party(&subsystems.destination, DESTINATION, &memory.destination)?;
        let endpoint = Arc::new(Endpoint::new(source.registers.clone(), destination.registers.clone()));
        // The destination has no business in the guest's memory until just before its resume.
        endpoint
            .set_bus_master(Attachment::Destination, false)
            .map_err(|error| RunError::Manager(crate::driver::DriverError::Access(error)))?;
        let token = Arc::<RunToken>::default();
        let block_size = config.block_size;
        let guest_setup = GuestSetup {
            endpoint: Arc::clone(&endpoint),
            memory: Arc::clone(&memory.guest),
            interrupts,
            token: Arc::clone(&token),
            wiring: Wiring { namespace: NAMESPACE, vectors: None },
            io_queues: config.io_queues,
            queue_depth: config.queue_depth,
            io_timeout: limits.guest,
            admin_timeout: limits.guest,
            workload: WorkloadOptions {
                block_size,
                blocks,
                blocks_per_command: u64::from(config.io_size / block_size).max(1),
                initial: if in_memory { InitialContent::Generated } else { InitialContent::Unknown },
                seed: config.seed,
                pattern: config.pattern,
                read_percent: config.read_percent,
                extents: inputs.extents.clone(),
                write_rate: config.write_rate,
                writes: config.writes,
            },
            log: config.guest_log.clone(),
            held: false,
        };
        let platform = HostPlatform::new(
            Arc::clone(&endpoint),
            Arc::clone(&token),
            journal,
            hooks(config),
            Some(Arc::clone(&witness)),
        );
        let journal = inputs.journal.as_ref().map(|paths| paths.journal.clone());
        Ok(Self {
            behind: Behind::Embedded(subsystems),
            source,
            destination,
            namespace: NAMESPACE,
            shape: (blocks, block_size),
            guest_memory: memory.guest,
            managers,
            guest_setup: Some(guest_setup),
            guest: None,
            token,
            endpoint,
            limits,
            platform,
            witness: Some(witness),
            virtualization: None,
            source_virtualization: None,
            data: DataPath::Copy,
            compare: false,
            journal,
            faults,
        })
    }

    /// The rules of controllers that have none.
    pub(super) fn no_faults() -> [(Side, Arc<[FaultSlot]>); 2] {
        [(Side::Source, Arc::default()), (Side::Destination, Arc::default())]
    }

    /// Waits while the guest runs for so long and until it has completed so many commands more; shorter if it fails or the run is
    /// interrupted.
    pub(super) fn let_run(&self, duration: Duration, commands: u64, observer: &impl Observer) {
        if let Some(guest) = &self.guest {
            let_run(guest, duration, commands, observer);
        }
    }

    /// The guest's controllers.
    fn controllers(&self) -> [&Registers; 2] {
        [&self.source.registers, &self.destination.registers]
    }

    /// Disables both of the guest's controllers: neither runs any more, whatever ends its suspension. A subsystem that
    /// cannot be reached has stopped, and its controllers with it.
    pub(super) fn disable_both(&self) {
        for controller in self.controllers() {
            let _ = controller.write32(CC, 0);
            settle(controller);
        }
    }

    /// Which of the guest's controllers is enabled. One that the guest does not use is given time to stop.
    pub(super) fn enabled(&self) -> EnabledReport {
        let [source, destination] = self.controllers();
        let attachment = self.endpoint.attachment();
        for (controller, side) in [(source, Attachment::Source), (destination, Attachment::Destination)] {
            if attachment != side {
                settle(controller);
            }
        }
        EnabledReport { source: is_enabled(source), destination: is_enabled(destination) }
    }
}

/// Waits while the guest runs for so long and until it has completed so many commands more; shorter if it fails or the run is
/// interrupted.
pub(super) fn let_run(guest: &Guest, duration: Duration, commands: u64, observer: &impl Observer) {
    let until = Instant::now() + duration;
    let enough = guest.commands().saturating_add(commands);
    while !guest.has_failed() && !observer.is_interrupted() {
        let now = Instant::now();
        let left = until.saturating_duration_since(now);
        if left.is_zero() && (guest.commands() >= enough || now >= until + COMMANDS) {
            break;
        }
        std::thread::sleep(if left.is_zero() { SHORT_LOOK } else { left.min(LOOK) });
    }
}

/// How often each fault rule has acted.
pub(super) fn fault_reports(faults: &[(Side, Arc<[FaultSlot]>)]) -> Vec<FaultReport> {
    let report = |side, slot: &FaultSlot| FaultReport {
        subsystem: side,
        rule: slot.rule().to_string(),
        matched: slot.seen(),
        fired: slot.fired(),
    };
    faults.iter().flat_map(|(side, slots)| slots.iter().map(|slot| report(*side, slot))).collect()
}

/// The shell commands of any migration.
pub(super) fn hooks(config: &MigrateConfig) -> Hooks {
    Hooks { at_stop: config.at_stop.clone(), limit: config.shell_timeout, ..Hooks::default() }
}

/// The rules of one side.
fn faults(config: &MigrateConfig, side: Side) -> Arc<[FaultSlot]> {
    config.faults.iter().filter(|fault| fault.side == side).map(|fault| FaultSlot::new(fault.rule)).collect()
}

/// What is read from a controller that has been removed.
const GONE: u32 = u32::MAX;

/// Whether a controller is enabled. One of this program's that cannot be reached has stopped, and counts as disabled; of
/// somebody else's only its registers say it.
fn is_enabled(controller: &Registers) -> Option<bool> {
    let bit = |offset| controller.read32(offset).map(|value| value != GONE && value & 1 != 0);
    match controller {
        Registers::Absent(absent) if !absent.is_shown() => None,
        Registers::Absent(_) => Some(bit(CC).ok()? || bit(CSTS).ok()?),
        _ => Some(bit(CC).unwrap_or(false) || bit(CSTS).unwrap_or(false)),
    }
}

/// Waits until the controller is disabled, for a limited time; not for somebody else's, which its owner may leave enabled.
fn settle(controller: &Registers) {
    if matches!(controller, Registers::Absent(_)) {
        return;
    }
    let until = Instant::now() + DISABLE;
    while is_enabled(controller) == Some(true) && Instant::now() < until {
        std::thread::sleep(Duration::from_millis(1));
    }
}

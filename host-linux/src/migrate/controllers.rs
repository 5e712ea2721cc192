// SPDX-License-Identifier: MIT OR Apache-2.0
//! What a migration between controllers that are there already needs around it: they are opened, looked at, and given a
//! guest if both of the guest's controllers are this program's to drive.

use std::fs;
use std::sync::Arc;

use nvme_core::migration::{KnownQuirk, Quirks};
use nvme_core::wire::admin::{Identify, IdentifyStructure};
use nvme_core::wire::identify::{
    Capability, ControllerIdentity, NotAnnounced, OptionalAdminCommands, SecondaryController,
    SupportedControllerStateFormats,
};
use nvme_core::wire::{ControllerId, NamespaceId};

use super::RunError;
use super::bench::{Behind, Bench, Limits, Party, capacities, hooks};
use super::secondary::{Asked, check_resources, resources, who};
use crate::address::Address;
use crate::backend::{AbsentController, Device, Devices, Memory, Pump, Registers, Request};
use crate::config::{Between, CdqLayout, DataPath, MigrateConfig, Namespaces, SIZE_LIMITS, Tracked};
use crate::driver::DriverError;
use crate::endpoint::{Attachment, Endpoint};
use crate::guest::{GuestSetup, InitialContent, Wiring, WorkloadOptions};
use crate::images::Inputs;
use crate::journal::Side;
use crate::memory::{AddressSpace, Capacity, PAGE};
use crate::mover::PIECE_BYTES;
use crate::platform::{Hooks, HostPlatform};
use crate::quirks::QuirkChoice;
use crate::session::{Session, Storage, are_of_different_subsystems};
use crate::sync::{RunToken, Signal};
use crate::virtualization::{Resources, read_secondaries};

/// What was found out about the namespace: blocks, and bytes in one.
type Shape = (u64, u32);

pub(super) fn input<T>(text: String) -> Result<T, RunError> {
    Err(RunError::Input(text))
}

fn lacks(device: &Device, error: NotAnnounced) -> RunError {
    RunError::Unsupported(device.address().clone(), error.into())
}

/// Brings a controller up, asks, and brings it down.
pub(super) fn ask<T>(
    device: &Device,
    limits: &Limits,
    question: impl FnOnce(&mut Session<'_>) -> Result<T, RunError>,
) -> Result<T, RunError> {
    let named = |error: DriverError| RunError::Controller(device.address().clone(), error);
    let mut storage = Storage::new(0, 1);
    let mut session = Session::open(device, &mut storage, limits.admin).map_err(named)?;
    let answer = question(&mut session);
    let closed = session.close().map_err(named);
    // What was found wrong says more than that it could not be brought down, too.
    let answer = answer?;
    closed.map(|()| answer)
}

/// A managing controller that can do its part, as it was found.
pub(super) struct Found {
    pub(super) identity: Box<ControllerIdentity>,
    quirks: Quirks,
    /// The namespace there.
    shape: Shape,
    /// Its Supported Controller State Formats; none if it does not show them.
    formats: Option<Vec<u8>>,
    /// Its secondary controllers; none if it is no primary one.
    pub(super) secondaries: Vec<SecondaryController>,
}

impl Found {
    /// Its vendor-specific state formats, if it shows them.
    fn vendor_formats(&self) -> Option<Vec<[u8; 16]>> {
        let formats = SupportedControllerStateFormats::parse(self.formats.as_deref()?).ok()?;
        Some(formats.vendors().map(|(_, uuid)| uuid).collect())
    }
}

/// Checks that a controller can manage its side, and looks at the namespace there and at its secondary controllers.
fn look(
    device: &Device,
    limits: &Limits,
    capabilities: &[Capability],
    (namespace, quirks): (NamespaceId, QuirkChoice),
) -> Result<Found, RunError> {
    let address = device.address();
    ask(device, limits, |session| {
        for capability in capabilities {
            session.identity().require(*capability).map_err(|error| lacks(device, error))?;
        }
        let found = session.namespace(namespace);
        let found = found.map_err(|error| RunError::Controller(address.clone(), error))?;
        let Some(found) = found else {
            return input(format!(
                "{address} has no active namespace {}; choose one with --namespace",
                namespace.get()
            ));
        };
        let block = found.block_bytes();
        let limit = PIECE_BYTES.min(session.max_transfer());
        if block as usize > limit {
            return input(format!("{address}: {}", DriverError::BlockTooLong { block, limit }));
        }
        // The migration asks again, and says what is wrong if it gets no answer either.
        let formats = [
            IdentifyStructure::SUPPORTED_CONTROLLER_STATE_FORMATS,
            IdentifyStructure::SUPPORTED_CONTROLLER_STATE_FORMATS_ERRATUM,
        ];
        let mut ask = |structure| session.identify("Identify", &Identify::new(structure)).ok();
        let formats = formats.into_iter().find_map(&mut ask);
        let identity = Box::new(session.identity().clone());
        let is_primary = identity.admin_commands.contains(OptionalAdminCommands::VIRTUALIZATION_MANAGEMENT);
        let secondaries = match is_primary {
            true => read_secondaries(|what, command| session.identify(what, command))
                .map_err(|error| RunError::Controller(address.clone(), error))?,
            false => Vec::new(),
        };
        let quirks = quirks.of(&identity);
        Ok(Found { identity, quirks, shape: (found.blocks, block), formats, secondaries })
    })
}

/// Checks that both sides fit each other; `absent` is somebody else's controller at the source.
fn fit(
    source: &Found,
    destination: &Found,
    between: &Between,
    absent: &AbsentController,
) -> Result<(), RunError> {
    let (shape, other) = (source.shape, destination.shape);
    if shape != other {
        return input(format!(
            "namespace {} has {} blocks of {} bytes at the source and {} of {} at the destination; they must be alike",
            between.namespace, shape.0, shape.1, other.0, other.1
        ));
    }
    let Tracked::Theirs(id) = between.destination else { return Ok(()) };
    // Only for controllers with an address it shows there whether they are one.
    let name = |found: &Found| (found.identity.subsystem_name, found.identity.serial_number);
    if between.source == between.destination && name(source) == name(destination) {
        return input(format!(
            "controller {} is of one subsystem, so it is the same on both sides; name two controllers",
            id.get()
        ));
    }
    if let (Some(source), Some(destination)) = (source.vendor_formats(), destination.vendor_formats())
        && !source.iter().any(|uuid| destination.contains(uuid))
    {
        const COMMAND: &str = "--restore COMMAND, which does that";
        const VALUES: &str = "--source-registers FILE or --properties FILE, which say what it was";
        let missing = match (&between.restore, absent.is_known()) {
            (Some(_), true) => return Ok(()),
            (Some(_), false) => VALUES.to_owned(),
            (None, true) => COMMAND.to_owned(),
            (None, false) => format!("{COMMAND}, and {VALUES}"),
        };
        return input(format!(
            "the sides have no vendor-specific state format in common, so what the guest programmed has to be written to the \
             destination's registers, which somebody else drives: give {missing}"
        ));
    }
    Ok(())
}

/// What a managing controller is known to leave out of its log, in words. Without a log nothing is left out of it.
fn losses(manager: &Address, quirks: Quirks, data: DataPath) -> Vec<String> {
    let losing = if data == DataPath::Copy { quirks & Quirks::LOSES_CHANGES } else { Quirks::empty() };
    let known = Quirks::TABLE.iter().filter(|known| losing.contains(known.quirk));
    let note = |known: &KnownQuirk| {
        format!(
            "{manager}: {} (quirk {}), so a guest that does this may find old data at the destination, and nothing notices",
            known.deviation, known.name
        )
    };
    known.map(note).collect()
}

/// Refuses to copy a namespace onto itself, which would bring old blocks back under the guest's writes.
fn are_two_media(source: &Found, destination: &Found) -> Result<(), RunError> {
    let (source, destination) = (&source.identity, &destination.identity);
    if are_of_different_subsystems(source, destination) {
        return Ok(());
    }
    input(format!(
        "source and destination are of one subsystem, {}, so the namespace is the same on both sides and would be copied onto \
         itself; give --data shared, or --force if two subsystems have one name",
        source.subsystem_name
    ))
}

pub(super) fn find<'d>(devices: &'d Devices, address: &Address) -> Result<&'d Device, RunError> {
    devices.at(address).ok_or_else(|| RunError::Input(format!("{address} is not open")))
}

/// What is known of somebody else's controller at the source.
fn absent(between: &Between) -> Result<AbsentController, RunError> {
    match (&between.source_registers, &between.properties) {
        (Some(path), _) => {
            let shown = AbsentController::shown(path);
            shown.or_else(|error| input(format!("registers {path:?}: the file {error}")))
        }
        (None, Some(path)) => {
            let text = fs::read_to_string(path);
            let text = text.or_else(|error| input(format!("properties {path:?}: {error}")))?;
            AbsentController::parse(&text).or_else(|error| input(format!("properties {path:?}: {error}")))
        }
        (None, None) => Ok(AbsentController::unknown()),
    }
}

/// What does not fit together, before anything is opened.
fn check(config: &MigrateConfig, between: &Between) -> Result<(), RunError> {
    if let (Tracked::Ours(address), Tracked::Theirs(_)) = (&between.source, &between.destination) {
        return input(format!("{address} is driven by this program, so --dest has to be, too"));
    }
    if let (Tracked::Theirs(_), Tracked::Ours(address)) = (&between.source, &between.destination) {
        return input(format!(
            "the guest is somebody else's, so its memory is, too: {address} cannot be driven here; give --dest-controller"
        ));
    }
    if matches!(between.destination, Tracked::Theirs(_)) && between.destination_fence.is_none() {
        return input(
            "the destination controller is somebody else's: give --dest-fence COMMAND, which takes its access to memory away \
             when the migration is rolled back, so that it cannot run beside the source"
                .into(),
        );
    }
    if matches!(between.source, Tracked::Theirs(_)) && between.fence.is_none() {
        return input(
            "the source controller is somebody else's: give --fence COMMAND, which takes its access to memory away, so \
             that it cannot run beside the destination"
                .into(),
        );
    }
    if !config.faults.is_empty() {
        return input("--fault works in the subsystems that migrate makes itself; leave it out".into());
    }
    let known = [("registers", &between.source_registers), ("properties", &between.properties)];
    let known = known.iter().filter_map(|(role, path)| Some((*role, path.as_deref()?)));
    let known: Vec<_> = known.collect();
    Inputs::check_files(config, &known, None).map_err(|error| RunError::Input(error.0))
}

/// Opens all controllers: both managing ones, then the guest's as far as they are ours.
fn open(config: &MigrateConfig, between: &Between) -> Result<Devices, RunError> {
    let (guest, manager) = capacities(config);
    let managing = |address| Request {
        address,
        memory: Memory::Own(manager),
        managing: true,
        queues: 1 + u16::from(between.compare),
    };
    let mut requests =
        vec![managing(between.source_manager.clone()), managing(between.destination_manager.clone())];
    let mut memory = Memory::Own(guest);
    for side in [&between.source, &between.destination] {
        if let Tracked::Ours(address) = side {
            requests.push(Request {
                address: address.clone(),
                memory,
                managing: false,
                queues: config.io_queues,
            });
            memory = Memory::Shared(2);
        }
    }
    Devices::open(&requests, &between.open).map_err(RunError::Open)
}

fn pump(pumps: &mut Vec<Pump>, device: &Device, signal: &Arc<Signal>) -> Result<(), RunError> {
    let pump = Pump::start("interrupts", device.wake().clone(), Arc::clone(signal));
    pumps.push(pump.map_err(|error| RunError::Io("a thread for interrupts", error))?);
    Ok(())
}

/// Opens the controllers, looks at them, and makes the guest ready if it is ours. Returns what is run, with the block size and
/// the bytes of the namespace that were found, and what there is to be said before it begins.
pub(super) fn start(
    config: &MigrateConfig,
    between: &Between,
    limits: Limits,
) -> Result<(MigrateConfig, u64, Bench, Vec<String>), RunError> {
    check(config, between)?;
    check_resources(config, between)?;
    let absent = absent(between)?;
    let devices = open(config, between)?;
    let (source_manager, destination_manager) =
        (find(&devices, &between.source_manager)?, find(&devices, &between.destination_manager)?);
    let capabilities: &[Capability] = match between.data {
        DataPath::Copy => &[Capability::Migration, Capability::TrackUserData],
        DataPath::Shared => &[Capability::Migration],
    };
    // Asked while no managing controller that may be their primary one has been opened.
    let (source, manager) = (&between.source, &between.source_manager);
    let source_said = who(source, between.source_id, manager, &devices, &limits)?;
    let (destination, manager) = (&between.destination, &between.destination_manager);
    let destination_said = match between.virtualization {
        Some(_) => None,
        None => who(destination, between.destination_id, manager, &devices, &limits)?,
    };
    let namespace = between.namespace;
    let found = look(source_manager, &limits, capabilities, (namespace, between.quirks))?;
    let quirks = between.destination_quirks;
    let other = look(destination_manager, &limits, &[Capability::Migration], (namespace, quirks))?;
    fit(&found, &other, between, &absent)?;
    if between.data == DataPath::Copy && !config.force {
        are_two_media(&found, &other)?;
    }
    let mut notes = losses(&between.source_manager, found.quirks, between.data);
    if let [first, ..] = notes.as_slice()
        && config.strict
    {
        return Err(RunError::LosesChanges(first.clone()));
    }
    let source = Asked {
        side: Side::Source,
        tracked: &between.source,
        told: between.source_id,
        virtualization: false,
        manager: &between.source_manager,
        found: &found,
    };
    let destination = Asked {
        side: Side::Destination,
        tracked: &between.destination,
        told: between.destination_id,
        virtualization: between.virtualization.is_some(),
        manager: &between.destination_manager,
        found: &other,
    };
    let (source_id, entry) = source.identify(source_said, &devices, &limits)?;
    let (destination_id, _) = destination.identify(destination_said, &devices, &limits)?;
    source.stays_online(source_id, &destination)?;
    destination.stays_online(destination_id, &source)?;
    let source_virtualization = entry.map(|entry| resources(&entry, config));
    let mut cdq_layout = config.cdq_layout;
    if cdq_layout == CdqLayout::PrpList && found.quirks.contains(Quirks::CONTIGUOUS_QUEUES_ONLY) {
        cdq_layout = CdqLayout::Contiguous;
        notes.push("the queue is contiguous, because of the quirk contiguous-queues-only".into());
    }
    let (blocks, block_size) = found.shape;
    let size = blocks.saturating_mul(u64::from(block_size));
    let is_ours = matches!(between.source, Tracked::Ours(_));
    if is_ours && !SIZE_LIMITS.contains(&size) {
        return input(format!(
            "the namespace has {size} bytes; this program's guest uses from {} to {}",
            SIZE_LIMITS.start(),
            SIZE_LIMITS.end()
        ));
    }
    let config = MigrateConfig {
        block_size,
        cdq_layout,
        namespaces: Namespaces::Controllers(Box::new(between.clone())),
        ..config.clone()
    };
    if is_ours && (config.io_size < block_size || !config.io_size.is_multiple_of(block_size)) {
        return input(format!(
            "I/O size {} is not a multiple of the namespace's block size {block_size}",
            config.io_size
        ));
    }
    let managers = Arc::<Signal>::default();
    let mut pumps = Vec::new();
    let mut party = |manager: &Device,
                     side: &Tracked,
                     absent: AbsentController,
                     controller: ControllerId,
                     found: &Found| {
        // On one side both are of one subsystem, where identifiers are unique.
        if controller == found.identity.controller {
            return input(format!(
                "controller {} is the managing controller itself; name another one to be migrated",
                controller.get()
            ));
        }
        let registers = match side {
            Tracked::Ours(address) => find(&devices, address)?.registers().clone(),
            Tracked::Theirs(_) => Registers::Absent(absent),
        };
        pump(&mut pumps, manager, &managers)?;
        let (memory, vectors, quirks) = (Arc::clone(manager.space()), manager.vectors(), found.quirks);
        Ok(Party { manager: manager.registers().clone(), memory, vectors, controller, registers, quirks })
    };
    let source = party(source_manager, &between.source, absent.clone(), source_id, &found)?;
    let unknown = AbsentController::unknown();
    let destination = party(destination_manager, &between.destination, unknown, destination_id, &other)?;
    let endpoint = Arc::new(Endpoint::new(source.registers.clone(), destination.registers.clone()));
    endpoint
        .set_bus_master(Attachment::Destination, false)
        .map_err(|error| RunError::Manager(DriverError::Access(error)))?;
    let token = Arc::<RunToken>::default();
    let (guest_setup, guest_memory) = match (&between.source, &between.destination) {
        (Tracked::Ours(one), Tracked::Ours(other)) => {
            let (one, other) = (find(&devices, one)?, find(&devices, other)?);
            let interrupts = Arc::<Signal>::default();
            pump(&mut pumps, one, &interrupts)?;
            pump(&mut pumps, other, &interrupts)?;
            let assigned = |resources: Option<Resources>| resources.map(|resources| resources.interrupts);
            let assigned = [source_virtualization, between.virtualization].map(assigned);
            let vectors = [one.vectors(), other.vectors()].into_iter().chain(assigned).flatten().min();
            let extents = Inputs::extents(&config, size).map_err(|error| RunError::Input(error.0))?;
            let setup = GuestSetup {
                endpoint: Arc::clone(&endpoint),
                memory: Arc::clone(one.space()),
                interrupts,
                token: Arc::clone(&token),
                wiring: Wiring { namespace: between.namespace, vectors },
                io_queues: config.io_queues,
                queue_depth: config.queue_depth,
                io_timeout: limits.guest,
                admin_timeout: limits.guest,
                workload: WorkloadOptions {
                    block_size,
                    blocks,
                    blocks_per_command: u64::from(config.io_size / block_size).max(1),
                    initial: InitialContent::Unknown,
                    seed: config.seed,
                    pattern: config.pattern,
                    read_percent: config.read_percent,
                    extents,
                    write_rate: config.write_rate,
                    writes: config.writes,
                },
                log: config.guest_log.clone(),
                held: false,
            };
            (Some(setup), Arc::clone(one.space()))
        }
        _ => {
            let none = Capacity { queues: PAGE, data: PAGE, controller_data: PAGE };
            let memory = AddressSpace::new("no guest", none);
            (None, Arc::new(memory.map_err(|error| RunError::Io("memory", error))?))
        }
    };
    let hooks = Hooks {
        fence: between.fence.clone(),
        unfence: between.unfence.clone(),
        destination_fence: between.destination_fence.clone(),
        sides: Some(between.sides()),
        restore: between.restore.clone(),
        source: absent,
        ..hooks(&config)
    };
    let platform = HostPlatform::new(Arc::clone(&endpoint), Arc::clone(&token), None, hooks, None);
    let bench = Bench {
        behind: Behind::Opened { pumps, devices },
        source,
        destination,
        namespace: between.namespace,
        shape: (blocks, block_size),
        guest_memory,
        managers,
        guest_setup,
        guest: None,
        token,
        endpoint,
        limits,
        platform,
        witness: None,
        virtualization: between.virtualization,
        source_virtualization,
        data: between.data,
        compare: between.compare,
        journal: None,
        faults: Bench::no_faults(),
    };
    Ok((config, size, bench, notes))
}

// SPDX-License-Identifier: MIT OR Apache-2.0
//! A guest that keeps a controller busy while a command looks at it: it reads blocks and writes them back, so that no data
//! change.

use std::sync::Arc;

use clap::Args;
use nvme_core::wire::identify::NamespaceIdentity;
use nvme_core::wire::{ControllerId, NamespaceId, TrackedId};

use super::action::{CommandError, Purpose, Target};
use super::standing::Standing;
use super::values;
use crate::address::Address;
use crate::backend::{Device, Pump, Wake};
use crate::endpoint::Endpoint;
use crate::guest::{
    Guest, GuestSetup, InitialContent, Pattern, Wiring, WorkloadOptions, WriteContent, WriteExtent,
};
use crate::memory::{Capacity, HUGE_PAGE};
use crate::report::GuestReport;
use crate::session::{Session, Storage, are_of_different_subsystems};
use crate::sync::{RunToken, Signal};

const QUEUES: u16 = 2;
const DEPTH: u16 = 16;
/// Bytes of one command.
const COMMAND: u32 = 16 << 10;

/// A guest, if one is wanted.
#[derive(Args, Clone, Debug)]
pub(crate) struct LoadArgs {
    /// Drive this controller meanwhile: blocks are read and written back as they were.
    #[arg(long = "guest", value_name = "ADDRESS", help_heading = "Guest")]
    pub(crate) guest: Option<Address>,
    /// Write commands a second.
    #[arg(long, hide_short_help = true, value_name = "N", default_value = "1000", value_parser = values::rate, help_heading = "Guest")]
    guest_rate: u64,
    /// Order in which blocks are written: random, sequential or hot.
    #[arg(
        long,
        hide_short_help = true,
        value_name = "ORDER",
        default_value = "hot",
        hide_possible_values = true,
        help_heading = "Guest"
    )]
    guest_pattern: Pattern,
}

impl LoadArgs {
    /// Its controller, left for the guest to bring up.
    pub(crate) fn target(&self) -> Option<Target> {
        let address = self.guest.as_ref()?;
        let buffers = usize::from(QUEUES) * usize::from(DEPTH) * COMMAND as usize;
        // In whole pieces of those into which `track memory` divides it.
        let data = (2 * buffers).next_multiple_of(HUGE_PAGE);
        let memory = Capacity { queues: HUGE_PAGE, data, controller_data: 4096 };
        Some(Target { memory, queues: QUEUES, purpose: Purpose::Guest, ..Target::new(address) })
    }
}

/// A running guest.
#[derive(Debug)]
pub(crate) struct Load {
    guest: Guest,
    /// Hands interrupts on to the guest.
    pump: Option<Pump>,
}

impl Load {
    /// Starts a guest, which writes nothing before [`begin`](Self::begin), at `device`, which must be the controller that `session` is asked about, and has the first namespace of
    /// that, too.
    pub(crate) fn start(
        args: &LoadArgs,
        device: &Device,
        session: &mut Session<'_>,
        standing: &Standing,
        tracked: TrackedId,
    ) -> Result<Self, CommandError> {
        let timeout = session.timeout();
        if standing.is_suspended(session, tracked.controller()) {
            // It answers nothing: neither could a guest do anything, nor can it be asked whether it is the right one.
            let id = tracked.controller().get();
            return Err(CommandError::Input(format!(
                "--guest {}: controller {id} is suspended by an earlier line of this script; resume it first (nvme-lm resume \
                 --controller {id}), or leave --guest out",
                device.address()
            )));
        }
        check(device, session, tracked.controller())?;
        let (namespace, identity) = first_namespace(session)?;
        let failed = |what: String| CommandError::Failed(format!("guest at {}: {what}", device.address()));
        let interrupts = match device.wake() {
            Wake::Signal(signal) => Arc::clone(signal),
            _ => Arc::<Signal>::default(),
        };
        let pump = match device.wake() {
            Wake::Signal(_) => None,
            wake => Some(
                Pump::start("guest-interrupts", wake.clone(), Arc::clone(&interrupts))
                    .map_err(|error| failed(error.to_string()))?,
            ),
        };
        let registers = device.registers().clone();
        let blocks = identity.blocks;
        let guest = Guest::start(GuestSetup {
            endpoint: Arc::new(Endpoint::new(registers.clone(), registers)),
            memory: Arc::clone(device.space()),
            interrupts,
            token: Arc::new(RunToken::new()),
            wiring: Wiring { namespace, vectors: device.vectors() },
            io_queues: QUEUES,
            queue_depth: DEPTH,
            io_timeout: timeout,
            admin_timeout: timeout,
            workload: WorkloadOptions {
                block_size: identity.block_bytes(),
                blocks,
                blocks_per_command: u64::from(COMMAND / identity.block_bytes().max(1)).max(1),
                initial: InitialContent::Unknown,
                seed: 1,
                pattern: args.guest_pattern,
                read_percent: 0,
                extents: vec![WriteExtent { start: 0, blocks, content: WriteContent::Kept }],
                write_rate: Some(args.guest_rate),
                writes: None,
            },
            log: None,
            held: true,
        });
        Ok(Self { guest: guest.map_err(|error| failed(error.to_string()))?, pump })
    }

    /// Has it write from now on.
    pub(crate) fn begin(&self) {
        self.guest.begin();
    }

    /// I/O commands that it has completed.
    pub(crate) fn commands(&self) -> u64 {
        self.guest.commands()
    }

    /// Whether it met an error; [`finish`](Self::finish) tells which.
    pub(crate) fn has_failed(&self) -> bool {
        self.guest.has_failed()
    }

    /// Ends it: what it wrote is read back, and its controller brought down.
    pub(crate) fn finish(self) -> Result<GuestReport, CommandError> {
        let Self { guest, pump } = self;
        let finished = guest.finish().map_err(|error| CommandError::Failed(format!("guest: {error}")));
        drop(pump);
        finished.map(|(report, _)| report)
    }
}

/// Looks whether `device` is the controller `tracked` of the subsystem of `manager`: the changes of another one do not show.
fn check(device: &Device, manager: &Session<'_>, tracked: ControllerId) -> Result<(), CommandError> {
    let address = device.address();
    let failed = |error| CommandError::Failed(format!("guest at {address}: {error}"));
    let mut storage = Storage::new(0, 1);
    let session = Session::open(device, &mut storage, manager.timeout()).map_err(failed)?;
    let found = session.identity().clone();
    session.close().map_err(failed)?;
    let other = |what: String| {
        CommandError::Input(format!(
            "--guest {address} is {what}: what it changes is not what controller {} does; give the address of that one",
            tracked.get()
        ))
    };
    if are_of_different_subsystems(&found, manager.identity()) {
        let name = String::from_utf8_lossy(found.subsystem_name.as_bytes()).into_owned();
        return Err(other(format!(
            "a controller of another subsystem ({name}) than {}",
            manager.device().address()
        )));
    }
    if found.controller != tracked {
        return Err(other(format!("controller {}", found.controller.get())));
    }
    Ok(())
}

/// The first namespace that a controller has, for a guest to write to.
pub(crate) fn first_namespace(
    session: &mut Session<'_>,
) -> Result<(NamespaceId, NamespaceIdentity), CommandError> {
    let (namespace, identity) = namespaces(session, 1)?.pop().ok_or_else(|| {
        CommandError::Failed(format!(
            "{} has no namespace, so there is none to drive a guest on",
            session.device().address()
        ))
    })?;
    Ok((namespace, identity))
}

/// Up to `limit` active namespaces of a controller.
pub(crate) fn namespaces(
    session: &mut Session<'_>,
    limit: usize,
) -> Result<Vec<(NamespaceId, NamespaceIdentity)>, CommandError> {
    use nvme_core::wire::admin::{Identify, IdentifyStructure};
    let list = session
        .identify("Identify, Active Namespaces", &Identify::new(IdentifyStructure::ACTIVE_NAMESPACE_LIST))?;
    let ids = list.as_chunks::<4>().0.iter().map(|bytes| u32::from_le_bytes(*bytes));
    let mut found = Vec::new();
    for id in ids.take_while(|id| *id != 0).take(limit) {
        let namespace = NamespaceId::new(id);
        found.extend(session.namespace(namespace)?.map(|identity| (namespace, identity)));
    }
    Ok(found)
}

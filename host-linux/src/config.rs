// SPDX-License-Identifier: MIT OR Apache-2.0
//! What a migration run is asked to do, and the limits of each number.

use std::ffi::OsString;
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::time::Duration;

use nvme_core::migration::MigrationStep;
use nvme_core::wire::{ControllerId, NamespaceId};
use serde::{Deserialize, Serialize};

use crate::address::Address;
use crate::backend::OpenOptions;
use crate::faults::FaultOption;
use crate::guest::Pattern;
use crate::platform::Hooks;
use crate::quirks::QuirkChoice;
use crate::virtualization::Resources;

/// Bytes in a namespace.
pub const SIZE_LIMITS: RangeInclusive<u64> = 1 << 20..=1 << 40;
/// Commands in flight in each I/O queue pair. The queue has one entry more.
pub const QUEUE_DEPTH_LIMITS: RangeInclusive<u64> = 1..=1023;
/// I/O queue pairs of the guest.
pub const IO_QUEUES_LIMITS: RangeInclusive<u64> = 1..=16;
/// Entries of the Controller Data Queue. With two entries, of which one is never used, logging could not even begin.
pub const CDQ_ENTRIES_LIMITS: RangeInclusive<u64> = 3..=1 << 20;
/// Delta rounds before the last one.
pub const MAX_ROUNDS_LIMITS: RangeInclusive<u64> = 1..=1000;
/// Stop time to aim for.
pub const STOP_TIME_LIMITS: RangeInclusive<Duration> = Duration::from_millis(1)..=Duration::from_secs(3600);
/// How long the guest runs before and after.
pub const RUN_TIME_LIMITS: RangeInclusive<Duration> = Duration::ZERO..=Duration::from_secs(86_400);
/// Time-out of every command, of a controller or of the shell.
pub const COMMAND_TIMEOUT_LIMITS: RangeInclusive<Duration> =
    Duration::from_millis(10)..=Duration::from_secs(3600);
/// Bytes in one command of the guest.
pub const IO_SIZE_LIMITS: RangeInclusive<u64> = 512..=128 << 10;

/// Where the two namespaces are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Namespaces {
    /// In memory; the source is filled with generated data.
    Memory {
        /// Bytes in each.
        size: u64,
    },
    /// In two files of equal length; the source's content is migrated.
    Images {
        /// The source's file.
        source: PathBuf,
        /// The destination's file, which is overwritten.
        destination: PathBuf,
    },
    /// Behind controllers that are there already.
    Controllers(Box<Between>),
}

/// How the data gets to the destination.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum DataPath {
    /// Blocks are copied, guided by the log of changes.
    #[default]
    Copy,
    /// Both sides have the same medium: only the controller moves.
    Shared,
}

/// A controller that is migrated, on one side.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Tracked {
    /// This program's guest uses it.
    Ours(Address),
    /// Somebody else uses it: its identifier.
    Theirs(ControllerId),
}

/// Between which controllers to migrate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Between {
    /// The managing controller at the source.
    pub source_manager: Address,
    /// The managing controller at the destination.
    pub destination_manager: Address,
    /// The controller that is migrated.
    pub source: Tracked,
    /// The controller that takes its place.
    pub destination: Tracked,
    /// The namespace, on both sides.
    pub namespace: NamespaceId,
    /// How its data gets to the destination.
    pub data: DataPath,
    /// Compare all blocks of both sides while nothing runs.
    pub compare: bool,
    /// What somebody else's controller was programmed with, as a list for
    /// [`AbsentController::parse`](crate::backend::AbsentController::parse).
    pub properties: Option<PathBuf>,
    /// The registers of somebody else's source controller, for
    /// [`AbsentController::shown`](crate::backend::AbsentController::shown); they are looked at in place of `properties`.
    pub source_registers: Option<PathBuf>,
    /// Shell command that writes what the source controller was programmed with to somebody else's destination controller, if
    /// the sides have no vendor-specific state format in common.
    pub restore: Option<String>,
    /// Shell command that takes memory away from somebody else's source controller before the destination resumes.
    pub fence: Option<String>,
    /// Shell command that gives it back if the migration is rolled back after that.
    pub unfence: Option<String>,
    /// The destination is a secondary controller, to be brought online with these resources by its managing controller. A
    /// source that is one is brought online again in any case, with what it has if it is still online, and otherwise with as
    /// much as the guest uses.
    pub virtualization: Option<Resources>,
    /// The source's identifier, where it has to be told: an offline secondary controller cannot be asked.
    pub source_id: Option<ControllerId>,
    /// The destination's identifier, where it has to be told.
    pub destination_id: Option<ControllerId>,
    /// Which known deviations the source's managing controller has.
    pub quirks: QuirkChoice,
    /// Which the destination's has.
    pub destination_quirks: QuirkChoice,
    /// Shell command that takes memory away from somebody else's destination controller when the migration is rolled back.
    pub destination_fence: Option<String>,
    /// How controllers are opened.
    pub open: OpenOptions,
}

/// How the Controller Data Queue lies in memory.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum CdqLayout {
    /// One run of bus addresses.
    #[default]
    Contiguous,
    /// Scattered pages named by a PRP list.
    PrpList,
}

/// What a migration run is asked to do.
#[derive(Clone, Debug, PartialEq)]
pub struct MigrateConfig {
    /// Where the namespaces are.
    pub namespaces: Namespaces,
    /// Bytes in a logical block: 512 or 4096.
    pub block_size: u32,
    /// Commands in flight in each of the guest's I/O queue pairs.
    pub queue_depth: u16,
    /// I/O queue pairs of the guest.
    pub io_queues: u16,
    /// Bytes in one command of the guest; at least one block is used.
    pub io_size: u32,
    /// Write commands a second, at most; `None` for no limit.
    pub write_rate: Option<u64>,
    /// Write commands in the whole run, at most; `None` for no limit.
    pub writes: Option<u64>,
    /// Order in which the guest touches blocks.
    pub pattern: Pattern,
    /// Reads among the guest's commands, in percent.
    pub read_percent: u8,
    /// Blocks that the guest may write, as a list for [`parse_extents`](crate::guest::parse_extents); `None` for all.
    pub write_extents: Option<PathBuf>,
    /// Entries of the Controller Data Queue.
    pub cdq_entries: u32,
    /// How it lies in memory.
    pub cdq_layout: CdqLayout,
    /// Entries consumed between two head updates; `None` for a quarter of the queue.
    pub head_every: Option<u32>,
    /// Delta rounds before the last one, at most.
    pub max_rounds: u32,
    /// Stop time to aim for.
    pub stop_time_limit: Duration,
    /// Cancel once this step has completed.
    pub cancel_after: Option<MigrationStep>,
    /// Cancel if convergence is not reached.
    pub strict: bool,
    /// Seed of the generated data and of the guest's choices.
    pub seed: u64,
    /// How long the guest runs before the migration begins.
    pub run_before: Duration,
    /// How long the guest runs after it.
    pub run_after: Duration,
    /// I/O commands that the guest completes at least before the migration begins, and as many after it, each waited
    /// for a minute at most.
    pub run_commands: u64,
    /// After each round, once its data have come over, the Controller Data Queue is left alone until the guest has
    /// completed so many I/O commands more, waited for a minute at most.
    pub stall_commands: u64,
    /// Where each acknowledged write is logged.
    pub guest_log: Option<PathBuf>,
    /// The journal; `None` for the usual place beside the destination image. Without images there is none.
    pub journal: Option<PathBuf>,
    /// Where the program writes the report as JSON. The run itself only makes sure that it can, and that it is no file
    /// that the run needs.
    pub report: Option<PathBuf>,
    /// Go on although a journal of an earlier run names another image than the source, the file system of an image has no
    /// locks, or both sides say that they are of one subsystem.
    pub force: bool,
    /// Time-out of every command of the migration, twenty times as long for the guest's; `None` for generous ones.
    pub command_timeout: Option<Duration>,
    /// What controllers do wrong.
    pub faults: Vec<FaultOption>,
    /// Shell command to run while nothing runs: the destination holds everything and is not resumed yet.
    pub at_stop: Option<String>,
    /// How long each shell command may take.
    pub shell_timeout: Duration,
}

impl Default for MigrateConfig {
    /// The main job: 256 MiB in memory, two queue pairs of depth 64, random reads and writes without pause.
    fn default() -> Self {
        Self {
            namespaces: Namespaces::Memory { size: 256 << 20 },
            block_size: 4096,
            queue_depth: 64,
            io_queues: 2,
            io_size: 4096,
            write_rate: None,
            writes: None,
            pattern: Pattern::Random,
            read_percent: 50,
            write_extents: None,
            cdq_entries: 16_384,
            cdq_layout: CdqLayout::Contiguous,
            head_every: None,
            max_rounds: 30,
            stop_time_limit: Duration::from_millis(300),
            cancel_after: None,
            strict: false,
            seed: 1,
            run_before: Duration::from_millis(500),
            run_after: Duration::from_millis(500),
            run_commands: 0,
            stall_commands: 0,
            guest_log: None,
            journal: None,
            report: None,
            force: false,
            command_timeout: None,
            faults: Vec::new(),
            at_stop: None,
            shell_timeout: Hooks::LIMIT,
        }
    }
}

impl Between {
    /// What shell commands are told of both sides: the address of the controller that is migrated, or its identifier if
    /// somebody else drives it.
    #[must_use]
    pub fn sides(&self) -> [OsString; 2] {
        [&self.source, &self.destination].map(|side| match side {
            Tracked::Ours(address) => address.to_string().into(),
            Tracked::Theirs(id) => id.get().to_string().into(),
        })
    }

    /// The controllers whose namespaces lose what they hold, unless that goes with this process anyway: the destination if data is
    /// copied, and the source if this program's guest writes there.
    #[must_use]
    pub fn overwritten(&self) -> Vec<&Address> {
        let lasts = |address: &&Address| match address {
            Address::Vfio(_) | Address::VfioUser(_) => true,
            Address::Embedded { subsystem, .. } => {
                self.open.embedded.iter().any(|one| one.name == *subsystem && one.image.is_some())
            }
        };
        let source = match &self.source {
            Tracked::Ours(address) => Some(address),
            Tracked::Theirs(_) => None,
        };
        let destination = (self.data == DataPath::Copy).then_some(&self.destination_manager);
        source.into_iter().chain(destination).filter(lasts).collect()
    }
}

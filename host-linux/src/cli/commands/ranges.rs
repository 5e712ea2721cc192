// SPDX-License-Identifier: MIT OR Apache-2.0
//! `nvme-lm flush`, `deallocate`, `write-zeroes`, `verify` and `copy`: commands on blocks that transfer no blocks.

use clap::Args;
use nvme_core::wire::identify::{Capability, NamespaceIdentity};
use nvme_core::wire::nvm::{Copy as CopyCommand, DatasetManagement, Flush, Verify, WriteZeroes};
use nvme_core::wire::nvm_data::{CopySource, CopySourceData, DatasetRange, DatasetRangeData};
use nvme_core::wire::{Command, IoOpcode, Lba, NamespaceId, SubmissionQueueEntry};
use serde::Serialize;
use zerocopy::IntoBytes;

use super::media::{self, NamespaceArgs};
use crate::address::Address;
use crate::announced::Unsupported;
use crate::blocks::{BatchLimits, Batches, BlockRange};
use crate::cli::action::{Action, CommandError, Output, Sessions, Target};
use crate::cli::connect::ConnectArgs;
use crate::cli::meter::Meter;
use crate::cli::values;
use crate::session::{Data, Session};

const FLUSH_HELP: &str = "Example: nvme-lm flush embedded:demo";
const DEALLOCATE_HELP: &str = "Example: nvme-lm deallocate embedded:demo --range 0:8 --range 64:8 --yes";
const ZEROES_HELP: &str = "Example: nvme-lm write-zeroes embedded:demo --lba 0 --blocks 4096 --yes";
const VERIFY_HELP: &str = "Example: nvme-lm verify embedded:demo --lba 0 --blocks 4096";
const COPY_HELP: &str = "Example: nvme-lm copy embedded:demo --range 0:8 --range 32:8 --to 1024 --yes";

/// Blocks of a range of most commands (NLB, a 16-bit count less one).
const MAX_BLOCKS: u64 = 1 << 16;
/// Ranges of one command at most (NR, an 8-bit count less one).
const MAX_RANGES: usize = 256;
/// Copy descriptor format 0 (OCFS bit 0).
const FORMAT_0: u16 = 1;

/// Which blocks.
#[derive(Args, Clone, Debug)]
#[command(group(clap::ArgGroup::new("which").required(true).args(["range", "lba"])))]
struct RangeArgs {
    /// Blocks from LBA on; may be repeated.
    #[arg(long, value_name = "LBA:BLOCKS")]
    range: Vec<BlockRange>,
    /// First block, with --blocks.
    #[arg(long, value_name = "N", requires = "blocks", value_parser = values::number::<u64>)]
    lba: Option<u64>,
    /// Number of blocks, with --lba.
    #[arg(long, value_name = "N", requires = "lba", value_parser = values::number::<u64>)]
    blocks: Option<u64>,
}

impl RangeArgs {
    fn ranges(&self) -> Vec<BlockRange> {
        match (self.lba, self.blocks) {
            (Some(start), Some(blocks)) => vec![BlockRange { start, blocks }],
            _ => self.range.clone(),
        }
    }

    /// For a question.
    fn describe(&self) -> String {
        match self.ranges().as_slice() {
            [range] => range.to_string(),
            ranges => format!("{} ranges of blocks", ranges.len()),
        }
    }
}

/// Options of `nvme-lm flush`.
#[derive(Args, Debug)]
#[command(after_help = FLUSH_HELP)]
pub struct FlushArgs {
    /// The controller.
    #[arg(value_name = "ADDRESS")]
    address: Address,
    #[command(flatten)]
    namespace: NamespaceArgs,
    #[command(flatten)]
    pub(crate) connect: ConnectArgs,
}

/// Options of `nvme-lm deallocate`.
#[derive(Args, Debug)]
#[command(after_help = DEALLOCATE_HELP)]
pub struct DeallocateArgs {
    /// The controller.
    #[arg(value_name = "ADDRESS")]
    address: Address,
    #[command(flatten)]
    which: RangeArgs,
    #[command(flatten)]
    namespace: NamespaceArgs,
    /// Do not ask.
    #[arg(long)]
    yes: bool,
    #[command(flatten)]
    pub(crate) connect: ConnectArgs,
}

/// Options of `nvme-lm write-zeroes`.
#[derive(Args, Debug)]
#[command(after_help = ZEROES_HELP)]
pub struct WriteZeroesArgs {
    /// The controller.
    #[arg(value_name = "ADDRESS")]
    address: Address,
    #[command(flatten)]
    which: RangeArgs,
    #[command(flatten)]
    namespace: NamespaceArgs,
    /// Let the controller deallocate the blocks if they read as zeroes then.
    #[arg(long)]
    deallocate: bool,
    /// Have each command complete only when its blocks are on the medium (Force Unit Access).
    #[arg(long)]
    force_unit_access: bool,
    /// Do not ask.
    #[arg(long)]
    yes: bool,
    #[command(flatten)]
    pub(crate) connect: ConnectArgs,
}

/// Options of `nvme-lm verify`.
#[derive(Args, Debug)]
#[command(after_help = VERIFY_HELP)]
pub struct VerifyArgs {
    /// The controller.
    #[arg(value_name = "ADDRESS")]
    address: Address,
    #[command(flatten)]
    which: RangeArgs,
    #[command(flatten)]
    namespace: NamespaceArgs,
    #[command(flatten)]
    pub(crate) connect: ConnectArgs,
}

/// Options of `nvme-lm copy`.
#[derive(Args, Debug)]
#[command(after_help = COPY_HELP)]
pub struct CopyArgs {
    /// The controller.
    #[arg(value_name = "ADDRESS")]
    address: Address,
    /// Blocks to copy, from LBA on; may be repeated, and the copies follow one another.
    #[arg(long, value_name = "LBA:BLOCKS", required = true)]
    range: Vec<BlockRange>,
    /// First block of the copies.
    #[arg(long, value_name = "LBA", value_parser = values::number::<u64>)]
    to: u64,
    #[command(flatten)]
    namespace: NamespaceArgs,
    /// Have each command complete only when its blocks are on the medium (Force Unit Access).
    #[arg(long)]
    force_unit_access: bool,
    /// Do not ask.
    #[arg(long)]
    yes: bool,
    #[command(flatten)]
    pub(crate) connect: ConnectArgs,
}

/// What was done.
#[derive(Debug, Serialize)]
struct Done {
    address: String,
    namespace: u32,
    ranges: usize,
    blocks: u64,
    commands: u64,
    seconds: f64,
}

impl Done {
    fn show(&self, what: &str, output: &Output) -> Result<(), CommandError> {
        let count = |number: u64, one: &str| format!("{number} {one}{}", if number == 1 { "" } else { "s" });
        output.emit(self, |out| {
            let (blocks, ranges) = (count(self.blocks, "block"), count(self.ranges as u64, "range"));
            let commands = count(self.commands, "command");
            writeln!(
                out,
                "{what} {blocks} in {ranges} of namespace {}, with {commands} in {:.6} s",
                self.namespace, self.seconds
            )
        })
    }
}

/// A command over ranges, as often as its limits ask for.
struct Job<'a> {
    address: &'a Address,
    namespace: NamespaceId,
    name: &'static str,
    ranges: Vec<BlockRange>,
    limits: BatchLimits,
}

impl Job<'_> {
    /// Sends one command after the other, each with what `encode` makes of its ranges and of the blocks before them.
    fn carry_out(
        &self,
        session: &mut Session<'_>,
        output: &Output,
        encode: impl Fn(&[BlockRange], u64) -> (SubmissionQueueEntry, Vec<u8>),
    ) -> Result<Done, CommandError> {
        let total = self.ranges.iter().fold(0_u64, |sum, range| sum.saturating_add(range.blocks));
        let mut meter = Meter::of_blocks(total);
        let (mut commands, mut done) = (0, 0_u64);
        for batch in Batches::new(&self.ranges, self.limits) {
            if output.is_interrupted() {
                meter.finish();
                return Err(CommandError::Interrupted);
            }
            let (entry, bytes) = encode(&batch, done);
            let completion = session.io(self.name, &entry, Data::Send(&bytes));
            let status = completion.inspect_err(|_| meter.finish())?.0.status();
            if !status.is_success() {
                meter.finish();
                let first = batch.first().copied().unwrap_or(BlockRange { start: 0, blocks: 0 });
                return Err(media::failed(self.name, first, self.namespace, status));
            }
            commands += 1;
            done += batch.iter().map(|range| range.blocks).sum::<u64>();
            meter.set(done);
        }
        meter.finish();
        Ok(Done {
            address: self.address.to_string(),
            namespace: self.namespace.get(),
            ranges: self.ranges.len(),
            blocks: total,
            commands,
            seconds: meter.elapsed().as_secs_f64(),
        })
    }
}

/// Holds all ranges against the namespace.
fn check(ranges: &[BlockRange], identity: &NamespaceIdentity) -> Result<(), CommandError> {
    ranges.iter().try_for_each(|range| media::check(*range, identity))
}

/// Blocks of one command if it may name so many bytes.
fn blocks_within(bytes: Option<u64>, identity: &NamespaceIdentity) -> u64 {
    bytes.map_or(MAX_BLOCKS, |bytes| bytes / u64::from(identity.block_bytes())).clamp(1, MAX_BLOCKS)
}

impl Action for FlushArgs {
    fn targets(&self) -> Vec<Target> {
        vec![Target::new(&self.address)]
    }

    fn run(&self, sessions: &mut Sessions<'_>, output: &Output) -> Result<(), CommandError> {
        let session = sessions.with(&self.address, Capability::Io(IoOpcode::FLUSH))?;
        let namespace = self.namespace.id();
        // All namespaces at once are none that could be asked for.
        if namespace.get() != u32::MAX {
            media::identify(session, namespace)?;
        }
        let meter = Meter::of_blocks(1);
        let (entry, _) = session.io("Flush", &Flush { namespace }.encode(), Data::None)?;
        if !entry.status().is_success() {
            let (id, status) = (namespace.get(), entry.status());
            return Err(CommandError::Failed(format!("Flush of namespace {id:#x}: {status}")));
        }
        let done = Done {
            address: self.address.to_string(),
            namespace: namespace.get(),
            ranges: 0,
            blocks: 0,
            commands: 1,
            seconds: meter.elapsed().as_secs_f64(),
        };
        output
            .emit(&done, |out| writeln!(out, "flushed namespace {} in {:.6} s", done.namespace, done.seconds))
    }
}

impl Action for DeallocateArgs {
    fn targets(&self) -> Vec<Target> {
        vec![Target::new(&self.address)]
    }

    fn prepare(&mut self, output: &Output) -> Result<(), CommandError> {
        let (namespace, which) = (self.namespace.id().get(), self.which.describe());
        let what =
            format!("deallocate loses the data of {which} of namespace {namespace} of {}", self.address);
        output.confirm(self.yes, &what)
    }

    fn run(&self, sessions: &mut Sessions<'_>, output: &Output) -> Result<(), CommandError> {
        let session = sessions.with(&self.address, Capability::Io(IoOpcode::DATASET_MANAGEMENT))?;
        let namespace = self.namespace.id();
        let identity = media::identify(session, namespace)?;
        let ranges = self.which.ranges();
        check(&ranges, &identity)?;
        let limits = media::limits(session)?;
        // Zero stands for no limit.
        let or = |limit: u64, none: u64| if limit == 0 { none } else { limit };
        let limits = BatchLimits {
            ranges: or(limits.dataset_ranges.into(), MAX_RANGES as u64) as usize,
            range_blocks: or(limits.dataset_range_blocks.into(), u32::MAX.into()),
            blocks: or(limits.dataset_blocks, u64::MAX),
        };
        let job = Job {
            address: &self.address,
            namespace,
            name: "Dataset Management, deallocate,",
            ranges,
            limits,
        };
        let done = job.carry_out(session, output, |batch, _| {
            let data: Vec<DatasetRangeData> = batch
                .iter()
                .map(|range| {
                    let blocks = u32::try_from(range.blocks).unwrap_or(u32::MAX);
                    DatasetRange { attributes: 0, blocks, start: Lba::new(range.start) }.into()
                })
                .collect();
            let command = DatasetManagement {
                namespace,
                ranges: batch.len() as u16,
                deallocate: true,
                integral_write: false,
                integral_read: false,
            };
            (command.encode(), data.as_bytes().to_vec())
        })?;
        done.show("deallocated", output)
    }
}

impl Action for WriteZeroesArgs {
    fn targets(&self) -> Vec<Target> {
        vec![Target::new(&self.address)]
    }

    fn prepare(&mut self, output: &Output) -> Result<(), CommandError> {
        let (namespace, which) = (self.namespace.id().get(), self.which.describe());
        let what =
            format!("write-zeroes replaces the data of {which} of namespace {namespace} of {}", self.address);
        output.confirm(self.yes, &what)
    }

    fn run(&self, sessions: &mut Sessions<'_>, output: &Output) -> Result<(), CommandError> {
        let session = sessions.with(&self.address, Capability::Io(IoOpcode::WRITE_ZEROES))?;
        let namespace = self.namespace.id();
        let identity = media::identify(session, namespace)?;
        let ranges = self.which.ranges();
        check(&ranges, &identity)?;
        let page = session.min_page_size();
        let bytes = media::limits(session)?.max_write_zeroes_bytes(page, self.deallocate);
        let most = blocks_within(bytes, &identity);
        let limits = BatchLimits { ranges: 1, range_blocks: most, blocks: most };
        let job = Job { address: &self.address, namespace, name: "Write Zeroes", ranges, limits };
        let done = job.carry_out(session, output, |batch, _| {
            let (start, blocks) = one(batch);
            let command = WriteZeroes {
                deallocate: self.deallocate,
                force_unit_access: self.force_unit_access,
                ..WriteZeroes::new(namespace, start, blocks)
            };
            (command.encode(), Vec::new())
        })?;
        done.show("zeroed", output)
    }
}

impl Action for VerifyArgs {
    fn targets(&self) -> Vec<Target> {
        vec![Target::new(&self.address)]
    }

    fn run(&self, sessions: &mut Sessions<'_>, output: &Output) -> Result<(), CommandError> {
        let session = sessions.with(&self.address, Capability::Io(IoOpcode::VERIFY))?;
        let namespace = self.namespace.id();
        let identity = media::identify(session, namespace)?;
        let ranges = self.which.ranges();
        check(&ranges, &identity)?;
        let bytes = match media::limits(session)?.verify_limit_log2 {
            0 => None,
            log2 => {
                1_u64.checked_shl(log2.into()).and_then(|pages| pages.checked_mul(session.min_page_size()))
            }
        };
        let most = blocks_within(bytes, &identity);
        let limits = BatchLimits { ranges: 1, range_blocks: most, blocks: most };
        let job = Job { address: &self.address, namespace, name: "Verify", ranges, limits };
        let done = job.carry_out(session, output, |batch, _| {
            let (start, blocks) = one(batch);
            (Verify::new(namespace, start, blocks).encode(), Vec::new())
        })?;
        done.show("verified", output)
    }
}

/// The range of a command that has one.
fn one(batch: &[BlockRange]) -> (Lba, u32) {
    let range = batch.first().copied().unwrap_or(BlockRange { start: 0, blocks: 1 });
    (Lba::new(range.start), u32::try_from(range.blocks).unwrap_or(u32::MAX))
}

impl Action for CopyArgs {
    fn targets(&self) -> Vec<Target> {
        vec![Target::new(&self.address)]
    }

    fn prepare(&mut self, output: &Output) -> Result<(), CommandError> {
        let (to, namespace) = (self.to, self.namespace.id().get());
        let what =
            format!("copy replaces the data from block {to} on of namespace {namespace} of {}", self.address);
        output.confirm(self.yes, &what)
    }

    fn run(&self, sessions: &mut Sessions<'_>, output: &Output) -> Result<(), CommandError> {
        let session = sessions.with(&self.address, Capability::Io(IoOpcode::COPY))?;
        let formats = session.identity().copy_formats;
        if formats & FORMAT_0 == 0 {
            return Err(CommandError::Unsupported(Unsupported::Other {
                feature: "Copy with source ranges of format 0".into(),
                field: "OCFS in Identify Controller",
                value: format!("{formats:#06x}, bit 0 clear"),
            }));
        }
        let namespace = self.namespace.id();
        let identity = media::identify(session, namespace)?;
        check(&self.range, &identity)?;
        let blocks = self.range.iter().fold(0_u64, |sum, range| sum.saturating_add(range.blocks));
        let destination = BlockRange { start: self.to, blocks };
        media::check(destination, &identity)?;
        if let Some(range) = self.range.iter().find(|range| range.overlaps(destination)) {
            return Err(CommandError::Input(format!(
                "{range} are to be copied and overlap the copies, {destination}; choose another place with --to"
            )));
        }
        // Limits that a controller leaves at zero are those of the fields.
        let or = |limit: u64, none: u64| if limit == 0 { none } else { limit };
        let limits = BatchLimits {
            ranges: usize::from(identity.copy_ranges).clamp(1, MAX_RANGES),
            range_blocks: or(identity.copy_range_blocks.into(), MAX_BLOCKS),
            blocks: or(identity.copy_blocks.into(), u64::MAX),
        };
        let ranges = self.range.clone();
        let job = Job { address: &self.address, namespace, name: "Copy", ranges, limits };
        let done = job.carry_out(session, output, |batch, before| {
            let data: Vec<CopySourceData> = batch
                .iter()
                .map(|range| {
                    let blocks = u32::try_from(range.blocks).unwrap_or(u32::MAX);
                    CopySource::new(Lba::new(range.start), blocks).into()
                })
                .collect();
            let command = CopyCommand {
                force_unit_access: self.force_unit_access,
                ..CopyCommand::new(namespace, Lba::new(self.to + before), batch.len() as u16)
            };
            (command.encode(), data.as_bytes().to_vec())
        })?;
        done.show("copied", output)
    }
}

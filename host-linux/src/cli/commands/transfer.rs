// SPDX-License-Identifier: MIT OR Apache-2.0
//! `nvme-lm read`, `nvme-lm write` and `nvme-lm compare`: blocks between a namespace and files.

use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::PathBuf;

use clap::Args;
use indicatif::BinaryBytes;
use nvme_core::wire::identify::Capability;
use nvme_core::wire::nvm;
use nvme_core::wire::{Command, IoOpcode, Lba, NamespaceId, StatusCode};
use serde::Serialize;
use sha2::{Digest, Sha256};

use super::media::{self, HexDump, NamespaceArgs};
use super::source::{Source, SourceArgs};
use crate::address::Address;
use crate::blocks::BlockRange;
use crate::cli::action::{Action, CommandError, Output, Sessions, Target};
use crate::cli::connect::ConnectArgs;
use crate::cli::meter::Meter;
use crate::cli::values;
use crate::memory::Capacity;
use crate::session::{Data, Session};
use crate::stream::{self, HostData, Kind, Plan, StreamError};

const READ_HELP: &str = "Example: nvme-lm read embedded:demo --lba 0 --blocks 2";
const WRITE_HELP: &str =
    "Example: nvme-lm write embedded:demo --lba 8 --pattern random --blocks 64 --sha256 --yes";
const COMPARE_HELP: &str = "Example: nvme-lm compare embedded:demo --lba 0 --pattern zero --blocks 64";

/// Memory for data in flight.
const WINDOW: usize = 64 << 20;
/// Bytes of one command, at most and at least.
const COMMAND_BYTES: (usize, usize) = (256 << 10, 16 << 10);

/// How many commands are in flight.
#[derive(Args, Clone, Copy, Debug)]
struct FlightArgs {
    /// I/O queue pairs.
    #[arg(long, hide_short_help = true, value_name = "N", default_value = "2", value_parser = values::io_queues, help_heading = "Controller")]
    queues: u16,
    /// Commands in flight in each queue pair.
    #[arg(long, hide_short_help = true, value_name = "N", default_value = "16", value_parser = values::queue_depth, help_heading = "Controller")]
    depth: u16,
}

impl FlightArgs {
    fn commands(self) -> usize {
        usize::from(self.queues) * usize::from(self.depth)
    }

    fn command_bytes(self) -> usize {
        (WINDOW / self.commands().max(1)).clamp(COMMAND_BYTES.1, COMMAND_BYTES.0)
    }

    fn window(self) -> usize {
        (self.command_bytes() * self.commands()).min(WINDOW)
    }

    fn target(self, address: &Address) -> Target {
        let Target { memory, .. } = Target::new(address);
        // A command with the longest list of pages that there can be needs less than a page of 4,096 bytes for it.
        let queues = memory.queues + self.commands() * 8192;
        let data = memory.data + self.window();
        let memory = Capacity { queues, data, ..memory };
        Target { memory, queues: self.queues, depth: self.depth, ..Target::new(address) }
    }
}

/// Options of `nvme-lm read`.
#[derive(Args, Debug)]
#[command(after_help = READ_HELP)]
pub struct ReadArgs {
    /// The controller.
    #[arg(value_name = "ADDRESS")]
    address: Address,
    /// First block.
    #[arg(long, value_name = "N", value_parser = values::number::<u64>)]
    lba: u64,
    /// Number of blocks.
    #[arg(long, value_name = "N", value_parser = values::number::<u64>)]
    blocks: u64,
    #[command(flatten)]
    namespace: NamespaceArgs,
    /// Where the bytes go: a file, or standard output (-) [default: shown as hexadecimal digits].
    #[arg(long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// Write hexadecimal digits to the file instead of bytes.
    #[arg(long)]
    hex: bool,
    /// Print the SHA-256 digest of the bytes; without --output nothing else of them.
    #[arg(long)]
    sha256: bool,
    /// Read what is on the medium (Force Unit Access).
    #[arg(long)]
    force_unit_access: bool,
    #[command(flatten)]
    flight: FlightArgs,
    #[command(flatten)]
    pub(crate) connect: ConnectArgs,
}

/// Options of `nvme-lm write`.
#[derive(Args, Debug)]
#[command(after_help = WRITE_HELP)]
#[command(
    override_usage = "nvme-lm write [OPTIONS] --lba <N> <--input <FILE>|--pattern <PATTERN>>\n         <ADDRESS>"
)]
pub struct WriteArgs {
    /// The controller.
    #[arg(value_name = "ADDRESS")]
    address: Address,
    /// First block.
    #[arg(long, value_name = "N", value_parser = values::number::<u64>)]
    lba: u64,
    #[command(flatten)]
    namespace: NamespaceArgs,
    #[command(flatten)]
    source: SourceArgs,
    /// Print the SHA-256 digest of the bytes.
    #[arg(long, hide_short_help = true)]
    sha256: bool,
    /// Have each command complete only when its data are on the medium (Force Unit Access).
    #[arg(long, hide_short_help = true)]
    force_unit_access: bool,
    /// Do not ask.
    #[arg(long)]
    yes: bool,
    #[command(flatten)]
    flight: FlightArgs,
    #[command(flatten)]
    pub(crate) connect: ConnectArgs,
}

/// Options of `nvme-lm compare`.
#[derive(Args, Debug)]
#[command(after_help = COMPARE_HELP)]
#[command(
    override_usage = "nvme-lm compare [OPTIONS] --lba <N> <--input <FILE>|--pattern <PATTERN>>\n         <ADDRESS>"
)]
pub struct CompareArgs {
    /// The controller.
    #[arg(value_name = "ADDRESS")]
    address: Address,
    /// First block.
    #[arg(long, value_name = "N", value_parser = values::number::<u64>)]
    lba: u64,
    #[command(flatten)]
    namespace: NamespaceArgs,
    #[command(flatten)]
    source: SourceArgs,
    #[command(flatten)]
    flight: FlightArgs,
    #[command(flatten)]
    pub(crate) connect: ConnectArgs,
}

/// What was transferred.
#[derive(Debug, Serialize)]
struct Transferred {
    address: String,
    namespace: u32,
    lba: u64,
    blocks: u64,
    block_bytes: usize,
    bytes: u64,
    seconds: f64,
    bytes_per_second: f64,
    #[serde(skip_serializing_if = "Option::is_none")]
    sha256: Option<String>,
    /// Of a comparison: where the first byte is that differs, from the first block on; none if none does.
    #[serde(skip_serializing_if = "Option::is_none")]
    first_difference: Option<Option<u64>>,
}

/// What a comparison found that ended at a difference.
#[derive(Debug, Serialize)]
struct Different {
    address: String,
    namespace: u32,
    lba: u64,
    blocks: u64,
    block_bytes: usize,
    /// Where the first byte is that differs, from the first block on.
    first_difference: u64,
    /// The byte there, and what the data have.
    found: u8,
    expected: u8,
}

impl Transferred {
    fn print(&self, verb: &str, out: &mut dyn Write) -> io::Result<()> {
        let last = self.lba + self.blocks.saturating_sub(1);
        writeln!(out, "{verb:<10}blocks {} to {last} of namespace {}", self.lba, self.namespace)?;
        let blocks = if self.blocks == 1 { "block" } else { "blocks" };
        writeln!(out, "{:<10}{} in {} {blocks} of {}", "bytes", self.bytes, self.blocks, self.block_bytes)?;
        let rate = BinaryBytes(self.bytes_per_second as u64);
        writeln!(out, "{:<10}{:.6} s, {rate}/s", "time", self.seconds)?;
        self.sha256.iter().try_for_each(|digest| writeln!(out, "{:<10}{digest}", "SHA-256"))
    }
}

/// The host's end of a transfer.
struct Ends<'a> {
    source: Option<Source>,
    sink: Option<Box<dyn Write + 'a>>,
    dump: Option<HexDump>,
    digest: Option<Sha256>,
    meter: Meter,
    output: &'a Output,
    /// Nothing is left to do once nobody reads standard output any more.
    only_prints: bool,
}

impl HostData for Ends<'_> {
    fn fill(&mut self, bytes: &mut [u8]) -> io::Result<()> {
        if let Some(source) = &mut self.source {
            source.fill(bytes)?;
        }
        if let Some(digest) = &mut self.digest {
            digest.update(bytes);
        }
        Ok(())
    }

    fn take(&mut self, bytes: &[u8]) -> io::Result<()> {
        if let Some(digest) = &mut self.digest {
            digest.update(bytes);
        }
        match (&mut self.sink, &mut self.dump) {
            (Some(sink), Some(dump)) => dump.put(bytes, sink),
            (Some(sink), None) => sink.write_all(bytes),
            (None, _) => Ok(()),
        }
    }

    fn goes_on(&mut self, bytes: u64) -> bool {
        self.meter.set(bytes);
        let unread = self.only_prints && self.output.is_closed();
        !unread && !self.output.is_interrupted()
    }
}

/// One transfer: what, of which controller, and how.
struct Job<'a> {
    address: &'a Address,
    namespace: NamespaceId,
    lba: u64,
    kind: Kind,
    force_unit_access: bool,
    flight: FlightArgs,
    digest: bool,
}

impl Job<'_> {
    /// Transfers `blocks` blocks. Returns what was transferred, or how it failed.
    fn transfer(
        &self,
        session: &mut Session<'_>,
        (blocks, block_bytes): (u64, usize),
        ends: &mut Ends<'_>,
    ) -> Result<Transferred, StreamError> {
        let plan = Plan {
            kind: self.kind,
            namespace: self.namespace,
            range: BlockRange { start: self.lba, blocks },
            block_bytes,
            force_unit_access: self.force_unit_access,
            command_bytes: self.flight.command_bytes(),
            memory_bytes: self.flight.window(),
        };
        ends.digest = self.digest.then(Sha256::new);
        session.make_pairs(self.flight.queues)?;
        ends.meter = Meter::of_bytes(blocks.saturating_mul(block_bytes as u64));
        let result = stream::run(session, &plan, ends);
        ends.meter.finish();
        result?;
        let (bytes, seconds) = (blocks * block_bytes as u64, ends.meter.elapsed().as_secs_f64());
        let sha256 = ends.digest.take().map(|digest| {
            let bytes = digest.finalize();
            bytes.iter().map(|byte| format!("{byte:02x}")).collect()
        });
        Ok(Transferred {
            address: self.address.to_string(),
            namespace: self.namespace.get(),
            lba: self.lba,
            blocks,
            block_bytes,
            bytes,
            seconds,
            bytes_per_second: bytes as f64 / seconds.max(1e-9),
            sha256,
            first_difference: None,
        })
    }

    fn failure(&self, error: StreamError, host: &str) -> CommandError {
        match error {
            StreamError::Driver(error) => error.into(),
            StreamError::BlockTooLong(limit) => CommandError::Failed(format!(
                "a block is longer than what the controller transfers with one command, {limit} bytes (MDTS)"
            )),
            StreamError::Status(range, status) => {
                media::failed(self.kind.name(), range, self.namespace, status)
            }
            StreamError::TimedOut(range) => CommandError::Failed(format!(
                "{} of {range} of namespace {} did not complete in time; give it more with --timeout",
                self.kind.name(),
                self.namespace.get()
            )),
            StreamError::Host(error) => CommandError::File(host.into(), error),
            StreamError::Stopped => CommandError::Interrupted,
        }
    }
}

fn ends<'a>(output: &'a Output) -> Ends<'a> {
    Ends {
        source: None,
        sink: None,
        dump: None,
        digest: None,
        meter: Meter::of_bytes(0),
        output,
        only_prints: false,
    }
}

impl Action for ReadArgs {
    fn targets(&self) -> Vec<Target> {
        vec![self.flight.target(&self.address)]
    }

    fn prepare(&mut self, output: &Output) -> Result<(), CommandError> {
        let stream = self.output.as_deref().is_some_and(|path| path.as_os_str() == "-");
        if stream && output.is_json() {
            return Err(CommandError::Input(
                "--json and the bytes cannot both go to standard output; name a file with --output".into(),
            ));
        }
        if self.hex && output.is_json() && self.output.is_none() {
            return Err(CommandError::Input("--hex with --json needs a file; name one with --output".into()));
        }
        Ok(())
    }

    fn run(&self, sessions: &mut Sessions<'_>, output: &Output) -> Result<(), CommandError> {
        let session = sessions.with(&self.address, Capability::Io(IoOpcode::READ))?;
        let namespace = self.namespace.id();
        let identity = media::identify(session, namespace)?;
        let block_bytes = media::plain_block(namespace, &identity)?;
        media::check(BlockRange { start: self.lba, blocks: self.blocks }, &identity)?;
        let mut ends = ends(output);
        let mut host = "standard output".to_owned();
        let to_file = match &self.output {
            Some(path) if path.as_os_str() != "-" => {
                host = format!("output {}", path.display());
                let file = File::create(path)
                    .map_err(|error| CommandError::Input(format!("{host}: {error}; nothing was read")))?;
                ends.sink = Some(Box::new(BufWriter::new(file)));
                true
            }
            Some(_) => {
                ends.sink = Some(Box::new(output.bytes()));
                false
            }
            None if self.sha256 && !self.hex || output.is_json() => true,
            None => {
                ends.sink = Some(Box::new(output.bytes()));
                false
            }
        };
        if self.hex || self.output.is_none() {
            ends.dump = Some(HexDump::new(self.lba.wrapping_mul(block_bytes as u64)));
        }
        ends.only_prints = !to_file && !self.sha256;
        let job = Job {
            address: &self.address,
            namespace,
            lba: self.lba,
            kind: Kind::Read,
            force_unit_access: self.force_unit_access,
            flight: self.flight,
            digest: self.sha256,
        };
        let result = job.transfer(session, (self.blocks, block_bytes), &mut ends);
        let Ends { sink, dump, .. } = ends;
        if let Some(mut sink) = sink {
            let end = |dump: HexDump| dump.end(&mut *sink);
            let ended = if result.is_ok() { dump.map_or(Ok(()), end) } else { Ok(()) };
            ended.and_then(|()| sink.flush()).map_err(|error| CommandError::File(host.clone(), error))?;
        }
        let done = match result {
            Err(StreamError::Stopped) if !output.is_interrupted() => return Ok(()),
            result => result.map_err(|error| job.failure(error, &host))?,
        };
        match (&done.sha256, to_file) {
            (_, true) => output.emit(&done, |out| done.print("read", out)),
            (Some(digest), false) => {
                anstream::eprintln!("SHA-256 {digest}");
                Ok(())
            }
            (None, false) => Ok(()),
        }
    }
}

impl Action for WriteArgs {
    fn targets(&self) -> Vec<Target> {
        vec![self.flight.target(&self.address)]
    }

    fn prepare(&mut self, output: &Output) -> Result<(), CommandError> {
        self.source.open(!self.yes)?;
        let (lba, address) = (self.lba, &self.address);
        let namespace = self.namespace.id().get();
        let what =
            format!("write replaces the data from block {lba} on of namespace {namespace} of {address}");
        output.confirm(self.yes, &what)
    }

    fn run(&self, sessions: &mut Sessions<'_>, output: &Output) -> Result<(), CommandError> {
        let session = sessions.with(&self.address, Capability::Io(IoOpcode::WRITE))?;
        let namespace = self.namespace.id();
        let identity = media::identify(session, namespace)?;
        let block_bytes = media::plain_block(namespace, &identity)?;
        let (source, blocks) = self.source.data(block_bytes, output)?;
        media::check(BlockRange { start: self.lba, blocks }, &identity)?;
        let job = Job {
            address: &self.address,
            namespace,
            lba: self.lba,
            kind: Kind::Write,
            force_unit_access: self.force_unit_access,
            flight: self.flight,
            digest: self.sha256,
        };
        let mut ends = Ends { source: Some(source), ..ends(output) };
        let done = job
            .transfer(session, (blocks, block_bytes), &mut ends)
            .map_err(|error| job.failure(error, &format!("input {}", self.source.name())))?;
        output.emit(&done, |out| done.print("written", out))
    }
}

impl CompareArgs {
    /// Where in `range` the namespace differs from the data: the byte's place from the first block on, and both bytes.
    fn difference(
        &self,
        session: &mut Session<'_>,
        (range, block_bytes): (BlockRange, usize),
        source: &Source,
    ) -> Result<Option<(u64, u8, u8)>, CommandError> {
        let len = range.blocks as usize * block_bytes;
        let from = (range.start - self.lba) * block_bytes as u64;
        let blocks = u32::try_from(range.blocks).unwrap_or(u32::MAX);
        let command = nvm::Read::new(self.namespace.id(), Lba::new(range.start), blocks);
        let (entry, found) = session.io("Read", &command.encode(), Data::Receive(len))?;
        if !entry.status().is_success() {
            return Err(media::failed("Read", range, self.namespace.id(), entry.status()));
        }
        let mut expected = vec![0; len];
        source
            .again(from, &mut expected)
            .map_err(|error| CommandError::File(format!("input {}", self.source.name()), error))?;
        let places = found.iter().zip(&expected).enumerate();
        let mut different = places.filter(|(_, (found, expected))| found != expected);
        Ok(different.next().map(|(at, (found, expected))| (from + at as u64, *found, *expected)))
    }
}

impl Action for CompareArgs {
    fn targets(&self) -> Vec<Target> {
        vec![self.flight.target(&self.address)]
    }

    fn prepare(&mut self, _output: &Output) -> Result<(), CommandError> {
        self.source.open(false)
    }

    fn run(&self, sessions: &mut Sessions<'_>, output: &Output) -> Result<(), CommandError> {
        let session = sessions.with(&self.address, Capability::Io(IoOpcode::COMPARE))?;
        let namespace = self.namespace.id();
        let identity = media::identify(session, namespace)?;
        let block_bytes = media::plain_block(namespace, &identity)?;
        let (source, blocks) = self.source.data(block_bytes, output)?;
        media::check(BlockRange { start: self.lba, blocks }, &identity)?;
        let job = Job {
            address: &self.address,
            namespace,
            lba: self.lba,
            kind: Kind::Compare,
            force_unit_access: false,
            flight: self.flight,
            digest: false,
        };
        let mut ends = Ends { source: Some(source), ..ends(output) };
        match job.transfer(session, (blocks, block_bytes), &mut ends) {
            Ok(done) => {
                let done = Transferred { first_difference: Some(None), ..done };
                output.emit(&done, |out| done.print("equal", out))
            }
            Err(StreamError::Status(range, status)) if status.code() == StatusCode::COMPARE_FAILURE => {
                let source = ends.source.take().ok_or(CommandError::Interrupted)?;
                match self.difference(session, (range, block_bytes), &source)? {
                    Some((at, found, expected)) => {
                        let (block, byte) = (self.lba + at / block_bytes as u64, at % block_bytes as u64);
                        let different = Different {
                            address: self.address.to_string(),
                            namespace: namespace.get(),
                            lba: self.lba,
                            blocks,
                            block_bytes,
                            first_difference: at,
                            found,
                            expected,
                        };
                        // People read the message.
                        output.emit(&different, |_| Ok(()))?;
                        Err(CommandError::Failed(format!(
                            "namespace {} differs from {}, first in block {block}: byte {byte} is {found:#04x}, not \
                             {expected:#04x}",
                            namespace.get(),
                            self.source.name()
                        )))
                    }
                    None => Err(CommandError::Failed(format!(
                        "Compare of {range} of namespace {} says {status}, but the data read are equal",
                        namespace.get()
                    ))),
                }
            }
            Err(error) => Err(job.failure(error, &format!("input {}", self.source.name()))),
        }
    }
}

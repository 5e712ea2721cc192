// SPDX-License-Identifier: MIT OR Apache-2.0
//! `nvme-lm bench`: how fast a controller reads or writes.

use std::io::{self, Write};
use std::time::Duration;

use clap::{Args, ValueEnum};
use indicatif::BinaryBytes;
use nvme_core::wire::IoOpcode;
use nvme_core::wire::identify::Capability;
use serde::Serialize;

use super::media::{self, NamespaceArgs};
use crate::address::Address;
use crate::blocks::BlockRange;
use crate::cli::action::{Action, CommandError, Output, Sessions, Target};
use crate::cli::connect::ConnectArgs;
use crate::cli::meter::Meter;
use crate::cli::values;
use crate::load::{self, Load, Measured};
use crate::memory::Capacity;

const HELP: &str = "\
One thread drives all queues; Ctrl-C ends it and prints what was measured.

Example: nvme-lm bench embedded:demo --op randread --depth 8 --queues 2 --seconds 1";

/// What commands do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ValueEnum)]
#[serde(rename_all = "lowercase")]
enum Operation {
    Read,
    Write,
    Randread,
    Randwrite,
}

impl Operation {
    const fn writes(self) -> bool {
        matches!(self, Self::Write | Self::Randwrite)
    }

    const fn random(self) -> bool {
        matches!(self, Self::Randread | Self::Randwrite)
    }
}

/// Options of `nvme-lm bench`.
#[derive(Args, Debug)]
#[command(after_help = HELP)]
pub struct BenchArgs {
    /// The controller.
    #[arg(value_name = "ADDRESS")]
    address: Address,
    /// What commands do, block after block or at random.
    #[arg(long, value_enum)]
    op: Operation,
    /// Bytes of one command.
    #[arg(long, value_name = "BYTES", default_value = "4K", value_parser = values::bytes)]
    size: u64,
    /// Commands in flight in each queue pair.
    #[arg(long, value_name = "N", default_value = "32", value_parser = values::queue_depth)]
    depth: u16,
    /// I/O queue pairs.
    #[arg(long, value_name = "N", default_value = "1", value_parser = values::io_queues)]
    queues: u16,
    /// How long.
    #[arg(long, value_name = "N", default_value = "5", value_parser = values::seconds)]
    seconds: u64,
    /// Blocks that are used [default: all].
    #[arg(long, hide_short_help = true, value_name = "LBA:BLOCKS")]
    range: Option<BlockRange>,
    #[command(flatten)]
    namespace: NamespaceArgs,
    /// Seed of random places and of what is written.
    #[arg(long, hide_short_help = true, value_name = "N", default_value = "1")]
    seed: u64,
    /// Sleep until the controller interrupts, instead of looking all the time.
    #[arg(long, hide_short_help = true)]
    wait: bool,
    /// Do not ask.
    #[arg(long)]
    yes: bool,
    #[command(flatten)]
    pub(crate) connect: ConnectArgs,
}

/// Latencies in microseconds.
#[derive(Debug, Serialize)]
struct Latency {
    min: f64,
    mean: f64,
    p50: f64,
    p90: f64,
    p99: f64,
    p99_9: f64,
    max: f64,
}

impl Latency {
    fn of(measured: &Measured) -> Self {
        let histogram = &measured.latency;
        let at = |quantile| histogram.value_at_quantile(quantile) as f64 / 1e3;
        Self {
            min: histogram.min() as f64 / 1e3,
            mean: histogram.mean() / 1e3,
            p50: at(0.5),
            p90: at(0.9),
            p99: at(0.99),
            p99_9: at(0.999),
            max: histogram.max() as f64 / 1e3,
        }
    }
}

/// What was measured.
#[derive(Debug, Serialize)]
struct Report {
    address: String,
    namespace: u32,
    op: Operation,
    size: u64,
    queues: u16,
    depth: u16,
    seed: u64,
    seconds: f64,
    commands: u64,
    bytes: u64,
    commands_per_second: f64,
    bytes_per_second: f64,
    latency_us: Latency,
    /// Of the thread that sends commands and looks for completions.
    cpu_seconds: f64,
    cpu_us_per_command: f64,
    errors: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    first_error: Option<String>,
    interrupted: bool,
}

impl Report {
    fn print(&self, out: &mut dyn Write) -> io::Result<()> {
        let mut line = |name: &str, value: String| writeln!(out, "{name:<18}{value}");
        let op = self.op.to_possible_value().map(|value| value.get_name().to_owned()).unwrap_or_default();
        let shape = format!(
            "{op}, {} each, {} in flight in each of {} queue pairs",
            values::show_bytes(self.size),
            self.depth,
            self.queues
        );
        line("commands", format!("{} {shape}", self.commands))?;
        line("time", format!("{:.3} s", self.seconds))?;
        line("commands/s", format!("{:.0}", self.commands_per_second))?;
        line("bytes/s", BinaryBytes(self.bytes_per_second as u64).to_string())?;
        let latency = &self.latency_us;
        let values = [
            ("minimum", latency.min),
            ("mean", latency.mean),
            ("50 %", latency.p50),
            ("90 %", latency.p90),
            ("99 %", latency.p99),
            ("99.9 %", latency.p99_9),
            ("maximum", latency.max),
        ];
        for (name, value) in values {
            line(&format!("latency {name}"), format!("{value:>12.2} us"))?;
        }
        line("CPU per command", format!("{:>12.2} us", self.cpu_us_per_command))?;
        match &self.first_error {
            Some(first) => line("errors", format!("{}, the first one {first}", self.errors)),
            None => line("errors", self.errors.to_string()),
        }
    }
}

impl Action for BenchArgs {
    fn targets(&self) -> Vec<Target> {
        let Target { memory, .. } = Target::new(&self.address);
        let commands = usize::from(self.queues) * usize::from(self.depth);
        // A command with the longest list of pages that there can be needs less than two pages of 4,096 bytes for it.
        let queues = memory.queues + commands * 8192;
        let size = usize::try_from(self.size).unwrap_or(usize::MAX).next_multiple_of(4096);
        let data = memory.data.saturating_add(commands.saturating_mul(size));
        let memory = Capacity { queues, data, ..memory };
        vec![Target { memory, queues: self.queues, depth: self.depth, ..Target::new(&self.address) }]
    }

    fn prepare(&mut self, output: &Output) -> Result<(), CommandError> {
        let most = crate::session::MAX_TRANSFER as u64;
        if self.size == 0 || self.size > most {
            return Err(CommandError::Input(format!(
                "--size {}: a command has from one block to {}",
                self.size,
                values::show_bytes(most)
            )));
        }
        if !self.op.writes() {
            return Ok(());
        }
        let blocks = self.range.map_or_else(|| "all blocks".to_owned(), |range| range.to_string());
        let (namespace, address) = (self.namespace.id().get(), &self.address);
        let what = format!("bench replaces the data of {blocks} of namespace {namespace} of {address}");
        output.confirm(self.yes, &what)
    }

    fn run(&self, sessions: &mut Sessions<'_>, output: &Output) -> Result<(), CommandError> {
        let opcode = if self.op.writes() { IoOpcode::WRITE } else { IoOpcode::READ };
        let session = sessions.with(&self.address, Capability::Io(opcode))?;
        let namespace = self.namespace.id();
        let identity = media::identify(session, namespace)?;
        let block_bytes = media::plain_block(namespace, &identity)? as u64;
        let range = self.range.unwrap_or(BlockRange { start: 0, blocks: identity.blocks });
        media::check(range, &identity)?;
        let (longest, blocks) = (session.max_transfer() as u64, self.size / block_bytes);
        if !self.size.is_multiple_of(block_bytes) || self.size > longest || blocks > range.blocks {
            return Err(CommandError::Input(format!(
                "--size {}: a command has whole blocks of {block_bytes} bytes, at most {longest} bytes and at most the {} \
                 blocks that are used",
                self.size, range.blocks
            )));
        }
        let queues = session.make_pairs(self.queues)?.min(self.queues);
        if queues < self.queues {
            output.note(&format!("the controller grants {queues} of {} I/O queue pairs", self.queues));
        }
        let load = Load {
            namespace,
            writes: self.op.writes(),
            random: self.op.random(),
            range,
            blocks: u32::try_from(blocks).unwrap_or(u32::MAX),
            bytes: self.size as usize,
            queues,
            depth: self.depth,
            time: Duration::from_secs(self.seconds),
            seed: self.seed,
            waits: self.wait,
        };
        let mut meter = Meter::of_time(load.time);
        let measured = load::run(session, &load, |elapsed| {
            meter.set_time(elapsed);
            !output.is_interrupted()
        });
        meter.finish();
        let measured = measured?;
        let seconds = measured.elapsed.as_secs_f64().max(1e-9);
        let bytes = measured.commands.saturating_mul(self.size);
        let report = Report {
            address: self.address.to_string(),
            namespace: namespace.get(),
            op: self.op,
            size: self.size,
            queues,
            depth: self.depth,
            seed: self.seed,
            seconds,
            commands: measured.commands,
            bytes,
            commands_per_second: measured.commands as f64 / seconds,
            bytes_per_second: bytes as f64 / seconds,
            latency_us: Latency::of(&measured),
            cpu_seconds: measured.cpu.as_secs_f64(),
            cpu_us_per_command: measured.cpu.as_secs_f64() * 1e6 / measured.commands.max(1) as f64,
            errors: measured.errors,
            first_error: measured.first_error.map(|status| status.to_string()),
            interrupted: measured.interrupted,
        };
        output.emit(&report, |out| report.print(out))?;
        if measured.interrupted {
            Err(CommandError::Interrupted)
        } else if measured.timed_out {
            Err(CommandError::Failed(
                "a command did not complete in time; give it more with --timeout".into(),
            ))
        } else if measured.errors > 0 {
            Err(CommandError::Failed(format!("{} commands did not succeed", measured.errors)))
        } else {
            Ok(())
        }
    }
}

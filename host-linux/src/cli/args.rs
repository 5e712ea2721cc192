// SPDX-License-Identifier: MIT OR Apache-2.0
//! The command line.

use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::{Arg, ArgAction, Args, CommandFactory, Parser, Subcommand, ValueEnum};

use nvme_core::migration::MigrationStep;

use super::between::BetweenArgs;
use super::bind::{self, BindArgs};
use super::commands::{
    AdminArgs, BenchArgs, CdqCommand, CompareArgs, CopyArgs, DeallocateArgs, FeaturesCommand, FlushArgs,
    FormatsArgs, IdentifyArgs, IoArgs, ListArgs, LogArgs, NamespacesArgs, ReadArgs, RegistersArgs, ResetArgs,
    ResumeArgs, ScriptArgs, StateCommand, SuspendArgs, TrackCommand, VerifyArgs, WriteArgs, WriteZeroesArgs,
};
use super::values;
use crate::config::{CdqLayout, MigrateConfig, Namespaces};
use crate::faults::FaultOption;
use crate::guest::Pattern;

const HELP: &str = "\
Explores NVMe controllers, follows what changes, migrates namespaces with guests

Usage: nvme-lm <COMMAND>

Controllers:
  list, identify, namespaces, registers    what there is, and what it says
  log, features                            log pages; features, to be set, too
  reset, admin, io                         reset it; send it any command
Data:
  read, write, compare, copy               blocks: with files, in a namespace
  flush, deallocate, write-zeroes, verify  other commands on blocks
  bench                                    how fast it reads or writes
Live migration:
  cdq, track                               queues of changes; what is logged
  suspend, resume, state, formats          a guest's controller, and its state
  migrate                                  a namespace with a running guest
This program:
  script                                   commands with controllers opened once
  bind, unbind                             give functions to vfio-pci, and back
  faults, man, completions, help           lists and texts
Options: -h, --help; -V, --version

'nvme-lm COMMAND --help' shows more. Example: nvme-lm identify embedded:demo";

/// Live migration of NVMe namespaces, tracked by a Controller Data Queue.
#[derive(Debug, Parser)]
#[command(
    name = "nvme-lm",
    version,
    override_help = HELP,
    after_help = "Example: nvme-lm identify embedded:demo",
    about = "Explores NVMe controllers, follows what changes, and migrates namespaces with running guests",
    max_term_width = 110
)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// List the NVM Express functions of this machine, or say what controllers are.
    List(Box<ListArgs>),
    /// Show what a controller says of itself and of its namespaces.
    Identify(Box<IdentifyArgs>),
    /// List a controller's active namespaces.
    Namespaces(Box<NamespacesArgs>),
    /// Show a log page.
    Log(Box<LogArgs>),
    /// Show and set features.
    #[command(subcommand, after_help = "Example: nvme-lm features get embedded:demo --feature 0x07")]
    Features(FeaturesCommand),
    /// Show controller properties, without bringing the controller up.
    Registers(Box<RegistersArgs>),
    /// Controller Data Queues: make, watch, delete.
    #[command(
        subcommand,
        after_help = "Example: nvme-lm cdq watch embedded:demo --controller 2 --guest embedded:demo/2 --seconds 1"
    )]
    Cdq(CdqCommand),
    /// Log which blocks or host memory a controller changes.
    #[command(subcommand, after_help = "Example: nvme-lm track start embedded:demo --controller 2")]
    Track(TrackCommand),
    /// Suspend a controller.
    Suspend(Box<SuspendArgs>),
    /// Resume a suspended controller.
    Resume(Box<ResumeArgs>),
    /// The state of a controller: read it, set it, decode it, compare two.
    #[command(
        subcommand,
        after_help = "Example: nvme-lm state get embedded:demo --controller 2 --suspend --output controller.state"
    )]
    State(StateCommand),
    /// Show in which formats a controller gives and takes the state of others.
    Formats(Box<FormatsArgs>),
    /// Run several commands with every controller opened once.
    Script(Box<ScriptArgs>),
    /// Read blocks of a namespace, to the terminal or to a file.
    Read(Box<ReadArgs>),
    /// Write blocks of a namespace.
    Write(Box<WriteArgs>),
    /// Compare blocks of a namespace with a file or a pattern, in the controller.
    Compare(Box<CompareArgs>),
    /// Make what was written non-volatile.
    Flush(Box<FlushArgs>),
    /// Tell a controller that blocks are not needed any more.
    Deallocate(Box<DeallocateArgs>),
    /// Have blocks read as zeroes.
    WriteZeroes(Box<WriteZeroesArgs>),
    /// Have a controller read blocks for itself.
    Verify(Box<VerifyArgs>),
    /// Copy blocks inside a namespace, in the controller.
    Copy(Box<CopyArgs>),
    /// Send any admin command.
    Admin(Box<AdminArgs>),
    /// Send any I/O command.
    Io(Box<IoArgs>),
    /// Reset a controller and see that it works afterwards.
    Reset(Box<ResetArgs>),
    /// Measure how fast a controller reads or writes.
    Bench(Box<BenchArgs>),
    /// Migrate a namespace with a running guest from one NVM subsystem to another.
    Migrate(Box<MigrateArgs>),
    /// Give NVM Express functions to vfio-pci.
    #[command(after_help = bind::BIND_HELP)]
    Bind(BindArgs),
    /// Give them back to the driver that they would have without us.
    #[command(after_help = bind::UNBIND_HELP)]
    Unbind(BindArgs),
    /// List the faults that controllers can have, for --fault.
    #[command(after_help = "Example: nvme-lm faults")]
    Faults,
    /// Print the manual page.
    #[command(after_help = "Example: nvme-lm man --folder .")]
    Man {
        /// Write a page for each command into this folder instead.
        #[arg(long, value_name = "FOLDER")]
        folder: Option<PathBuf>,
    },
    /// Print a completion script for a shell.
    #[command(after_help = "Example: nvme-lm completions bash")]
    Completions {
        /// The shell.
        shell: clap_complete::Shell,
    },
}

/// The command line: `--help` shows what is used every day and fits a screen, `--help-all` shows everything.
#[must_use]
pub fn program() -> clap::Command {
    with_help(Cli::command())
}

fn with_help(command: clap::Command) -> clap::Command {
    let help = |id: &'static str, text: &'static str, action| Arg::new(id).long(id).help(text).action(action);
    let has_more = command.get_arguments().any(Arg::is_hide_short_help_set);
    let mut command = command.disable_help_flag(true);
    if command.get_name() != "migrate" {
        // What is used every day is one list, and the rest in parts.
        command = command.mut_args(|arg| match arg.is_hide_short_help_set() {
            true => arg,
            false => arg.help_heading(None),
        });
    }
    let short = help("help", "Print help", ArgAction::HelpShort).short('h');
    command = command.arg(short.help_heading(None).display_order(900));
    // It is everywhere, so that nobody has to know where there is more, but shown only there.
    let all = help("help-all", "Print help with all options", ArgAction::HelpLong).hide(!has_more);
    command = command.arg(all.help_heading(None).display_order(901));
    command.mut_subcommands(with_help)
}

/// Whether output is coloured.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Color {
    /// On a terminal.
    #[default]
    Auto,
    /// Always.
    Always,
    /// Never.
    Never,
}

const MIGRATE_EXAMPLE: &str = "Example: nvme-lm migrate --size 16M --stop-time-limit 10ms";

const MIGRATE_HELP: &str = "\
Example: nvme-lm migrate --size 16M --stop-time-limit 10ms

Numbers of bytes take K, M, G or T (powers of 1024, also KiB to TiB); times take us, ms or s.

Without images both namespaces are in memory and the source is filled with generated data. With images both files \
must exist and have the same length; the source's content is migrated and the destination's replaced. The guest \
writes generated data over the source image, too, unless --write-extents limits it: use copies. That is asked for, \
unless --yes was given. A journal \
beside the destination image says at every moment which image holds every write acknowledged to the guest: the \
source until the destination has acknowledged its resume, the destination afterwards.

Exit status:
  0  migrated and verified
  1  verification failed, or the migration failed
  2  bad input; nothing was changed
  3  cancelled as asked (--cancel-after); the guest runs on the source, verified. Or a controller cannot do what the migration needs, or leaves changes out of its log (--strict), and nothing was changed: then there is no report, and a message names the field that says so
  4  cancelled because convergence was not reached (--strict); the guest runs on the source, verified
  130  cancelled by SIGINT or SIGTERM; the guest runs on the source, verified. After the point of no return a signal \
cancels nothing and only shortens the run. A second one ends the program at once; the journal stays right";

/// Options of `nvme-lm migrate`.
#[derive(Args, Debug)]
#[command(after_help = MIGRATE_EXAMPLE, after_long_help = MIGRATE_HELP)]
pub struct MigrateArgs {
    /// Source namespace in this file.
    #[arg(long, value_name = "FILE", requires = "dest_image", help_heading = "Namespaces")]
    source_image: Option<PathBuf>,
    /// Destination namespace in this file, which must have the source's length.
    #[arg(long, value_name = "FILE", requires = "source_image", help_heading = "Namespaces")]
    dest_image: Option<PathBuf>,
    /// Bytes in each namespace [default: 256M, or the images' length].
    #[arg(long, value_name = "BYTES", value_parser = values::size, help_heading = "Namespaces")]
    size: Option<u64>,
    /// Bytes in a logical block: 512 or 4096.
    #[arg(long, hide_short_help = true, value_name = "BYTES", default_value = "4096", value_parser = values::block_size, help_heading = "Namespaces")]
    block_size: u32,

    #[command(flatten)]
    pub(crate) between: BetweenArgs,

    /// Commands in flight in each I/O queue pair.
    #[arg(long, hide_short_help = true, value_name = "N", default_value = "64", value_parser = values::queue_depth, help_heading = "Guest")]
    queue_depth: u16,
    /// I/O queue pairs.
    #[arg(long, hide_short_help = true, value_name = "N", default_value = "2", value_parser = values::io_queues, help_heading = "Guest")]
    io_queues: u16,
    /// Bytes in one command.
    #[arg(long, hide_short_help = true, value_name = "BYTES", default_value = "4096", value_parser = values::io_size, help_heading = "Guest")]
    io_size: u32,
    /// Write commands a second, at most [default: no limit].
    #[arg(long, hide_short_help = true, value_name = "N", value_parser = values::rate, help_heading = "Guest")]
    write_rate: Option<u64>,
    /// Write commands in the whole run, at most [default: no limit].
    #[arg(long, hide_short_help = true, value_name = "N", help_heading = "Guest")]
    writes: Option<u64>,
    /// Order in which blocks are touched.
    #[arg(long, hide_short_help = true, default_value = "random", help_heading = "Guest")]
    pattern: Pattern,
    /// Reads among the commands, in percent.
    #[arg(long, hide_short_help = true, value_name = "PERCENT", default_value = "50", value_parser = values::percent, help_heading = "Guest")]
    read_percent: u8,
    /// Blocks that may be written: a text file with `START BLOCKS [keep]` on each line, in logical blocks. With
    /// `keep` they are rewritten with what they hold [default: all blocks].
    #[arg(long, hide_short_help = true, value_name = "FILE", help_heading = "Guest")]
    write_extents: Option<PathBuf>,
    /// How long the guest runs before the migration begins.
    #[arg(long, hide_short_help = true, value_name = "TIME", default_value = "500ms", value_parser = values::run_time, help_heading = "Guest")]
    run_before: Duration,
    /// How long the guest runs after it.
    #[arg(long, hide_short_help = true, value_name = "TIME", default_value = "500ms", value_parser = values::run_time, help_heading = "Guest")]
    run_after: Duration,
    /// I/O commands that the guest completes at least before the migration begins, and as many after it.
    #[arg(long, hide_short_help = true, value_name = "N", default_value = "0", help_heading = "Guest")]
    run_commands: u64,
    /// Log each acknowledged write here: 16 bytes per block, its number and its version, little-endian.
    #[arg(long, hide_short_help = true, value_name = "FILE", help_heading = "Guest")]
    guest_log: Option<PathBuf>,
    /// Seed of generated data and of every random choice.
    #[arg(long, hide_short_help = true, value_name = "N", default_value = "1", help_heading = "Guest")]
    seed: u64,

    /// Entries of the Controller Data Queue.
    #[arg(long, value_name = "N", default_value = "16384", value_parser = values::cdq_entries, help_heading = "Migration")]
    cdq_entries: u32,
    /// How the Controller Data Queue lies in memory.
    #[arg(
        long,
        hide_short_help = true,
        value_name = "LAYOUT",
        default_value = "contiguous",
        help_heading = "Migration"
    )]
    cdq_layout: CdqLayout,
    /// Entries consumed between two head updates [default: a quarter of the queue].
    #[arg(long, hide_short_help = true, value_name = "N", value_parser = values::head_every, help_heading = "Migration")]
    head_every: Option<u32>,
    /// Delta rounds before the last one, at most.
    #[arg(long, hide_short_help = true, value_name = "N", default_value = "30", value_parser = values::max_rounds, help_heading = "Migration")]
    max_rounds: u32,
    /// Stop the guest once the rest is expected to take no longer than this.
    #[arg(long, value_name = "TIME", default_value = "300ms", value_parser = values::stop_time, help_heading = "Migration")]
    stop_time_limit: Duration,
    /// Do nothing after each round, as a busy host would, until the guest has completed so many I/O commands more: its
    /// changes wait in the Controller Data Queue, or overflow it.
    #[arg(long, hide_short_help = true, value_name = "N", default_value = "0", help_heading = "Migration")]
    stall_commands: u64,
    #[arg(long, hide_short_help = true, value_name = "STEP", value_parser = values::cancel_after, help = values::cancel_after_help(), help_heading = "Migration")]
    cancel_after: Option<MigrationStep>,
    /// Cancel if the limits are reached without convergence, instead of doing the last round anyway; refuse a source that is
    /// known to leave changes out of its log (`--quirks`).
    #[arg(long, hide_short_help = true, help_heading = "Migration")]
    strict: bool,
    /// Shell command to run at stop: the source is suspended, the destination holds everything and is not resumed.
    /// NVME_LM_SOURCE and NVME_LM_DESTINATION name the images, or the controllers that were given; in memory they are
    /// not set. If it fails the migration is rolled back. The stop time includes it.
    #[arg(long, hide_short_help = true, value_name = "COMMAND", help_heading = "Migration")]
    at_stop: Option<String>,
    /// How long --at-stop, --restore, --fence, --unfence and --dest-fence may take each; what takes longer is killed with
    /// all it has started, and has failed.
    #[arg(long, hide_short_help = true, value_name = "TIME", default_value = "60s", value_parser = values::command_timeout, help_heading = "Migration")]
    shell_timeout: Duration,
    /// Let controllers misbehave: [source:|destination:]ACTION[=VALUE][,CONDITION=VALUE]..., for example
    /// `drop,opcode=42,times=1`; of the source if no side is named. `nvme-lm faults` lists actions and conditions. May
    /// be given several times.
    #[arg(long = "fault", hide_short_help = true, value_name = "RULE", value_parser = FaultOption::parse, help_heading = "Faults")]
    faults: Vec<FaultOption>,
    /// Give every command of the migration up after this long, and the guest's commands after twenty times as long
    /// [default: 10 s to 60 s, by the kind of command].
    #[arg(long, hide_short_help = true, value_name = "TIME", value_parser = values::command_timeout, help_heading = "Faults")]
    command_timeout: Option<Duration>,
    /// Where the journal goes [default: beside the destination image; none without images].
    #[arg(
        long,
        hide_short_help = true,
        value_name = "FILE",
        requires = "dest_image",
        help_heading = "Migration"
    )]
    journal: Option<PathBuf>,
    /// Go on although a journal of an earlier run names another image than the source, the file system of an image has no
    /// locks, or both sides say that they are of one subsystem.
    #[arg(long, hide_short_help = true, help_heading = "Migration")]
    force: bool,

    /// Write the report as JSON to this file, or to standard output (-) in place of the tables.
    #[arg(long, value_name = "FILE", help_heading = "Output")]
    pub(crate) json: Option<PathBuf>,
    /// Whether the tables are coloured.
    #[arg(
        long,
        hide_short_help = true,
        value_name = "WHEN",
        default_value = "auto",
        help_heading = "Output"
    )]
    pub(crate) color: Color,
    /// Show no progress bar, even on a terminal.
    #[arg(long, hide_short_help = true, help_heading = "Output")]
    pub(crate) no_progress: bool,
}

impl MigrateArgs {
    /// Size asked for on the command line.
    pub(crate) const fn size(&self) -> Option<u64> {
        self.size
    }

    /// The run that these options describe.
    #[must_use]
    pub fn config(&self) -> MigrateConfig {
        let default = MigrateConfig::default();
        let namespaces = match (&self.source_image, &self.dest_image, default.namespaces) {
            (Some(source), Some(destination), _) => {
                Namespaces::Images { source: source.clone(), destination: destination.clone() }
            }
            (_, _, Namespaces::Memory { size }) => Namespaces::Memory { size: self.size.unwrap_or(size) },
            (_, _, images) => images,
        };
        MigrateConfig {
            namespaces,
            block_size: self.block_size,
            queue_depth: self.queue_depth,
            io_queues: self.io_queues,
            io_size: self.io_size,
            write_rate: self.write_rate,
            writes: self.writes,
            pattern: self.pattern,
            read_percent: self.read_percent,
            write_extents: self.write_extents.clone(),
            cdq_entries: self.cdq_entries,
            cdq_layout: self.cdq_layout,
            head_every: self.head_every,
            max_rounds: self.max_rounds,
            stop_time_limit: self.stop_time_limit,
            cancel_after: self.cancel_after,
            strict: self.strict,
            seed: self.seed,
            run_before: self.run_before,
            run_after: self.run_after,
            run_commands: self.run_commands,
            stall_commands: self.stall_commands,
            guest_log: self.guest_log.clone(),
            journal: self.journal.clone(),
            report: self.json.clone().filter(|path| path != Path::new("-")),
            force: self.force,
            command_timeout: self.command_timeout,
            faults: self.faults.clone(),
            at_stop: self.at_stop.clone(),
            shell_timeout: self.shell_timeout,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        program().debug_assert();
    }

    #[test]
    fn no_options_mean_the_main_job() {
        let Command::Migrate(args) = Cli::parse_from(["nvme-lm", "migrate"]).command else {
            panic!("not the migrate command")
        };
        assert_eq!(args.config(), MigrateConfig::default());
    }
}

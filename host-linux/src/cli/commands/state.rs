// SPDX-License-Identifier: MIT OR Apache-2.0
//! `nvme-lm state`: the state of a controller, from a controller into a file and back.

use std::fs;
use std::io::{self, IsTerminal, Read};
use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};
use nvme_core::migration::{FormatIndices, KNOWN_VERSIONS, Quirks};
use nvme_core::wire::ControllerId;
use nvme_core::wire::controller_state::{ControllerStateHeader, ControllerStateImage};
use nvme_core::wire::identify::{Capability, SupportedControllerStateFormats};
use nvme_core::wire::migration::{MigrationReceive, MigrationSend, SequenceIndicator, SuspendKind};
use serde::Serialize;

use super::Tracked;
use super::formats::identify_formats;
use super::state_files::{DiffArgs, ShowArgs};
use crate::cli::action::{Action, CommandError, Output, Sessions, Target};
use crate::cli::standing::{Standing, tracked};
use crate::cli::values;
use crate::session::{Data, Session};

const GET_HELP: &str = "\
The file holds what the controller gave; migrate translates where a quirk asks for that, state set does not.

The fields of a controller that runs may not fit together: suspend it, by an earlier line of a script or by --suspend, which \
resumes what it has suspended.

Example: nvme-lm state get embedded:demo --controller 2 --suspend --output controller.state";

const SET_HELP: &str = "\
The controller must be suspended, by an earlier line of a script or by --suspend, which resumes it afterwards with the state \
that it was given, unless an earlier line has suspended it. It may have no I/O queues, and must be enabled unless the image \
has a vendor part that does that. \
The image is set as it is; only migrate translates where a quirk asks for that.

Example: nvme-lm state set embedded:demo --controller 2 --suspend --input controller.state --yes";

/// What to do with the state of a controller.
#[derive(Clone, Debug, Subcommand)]
pub enum StateCommand {
    /// Read the state of a controller into a file.
    Get(Box<GetArgs>),
    /// Give a controller the state in a file.
    Set(Box<SetArgs>),
    /// Decode the state in a file.
    Show(Box<ShowArgs>),
    /// Show in which fields the states in two files differ.
    Diff(Box<DiffArgs>),
}

/// Which format.
#[derive(Args, Clone, Debug)]
pub(crate) struct FormatArgs {
    /// Index of the NVMe Controller State version (CSVI), 0 for none [default: the newest that is known here].
    #[arg(long, hide_short_help = true, value_name = "INDEX", value_parser = values::number::<u8>, help_heading = "Format")]
    version: Option<u8>,
    /// Index of the vendor format (CSUUIDI), 0 for none [default: the only one, none if there are several].
    #[arg(long, hide_short_help = true, value_name = "INDEX", value_parser = values::number::<u8>, help_heading = "Format")]
    vendor: Option<u8>,
}

impl FormatArgs {
    /// The indices to send.
    fn indices(&self, session: &mut Session<'_>) -> Result<FormatIndices, CommandError> {
        if let (Some(version), Some(vendor)) = (self.version, self.vendor) {
            return Ok(FormatIndices { version, vendor });
        }
        let bytes = identify_formats(session)?;
        let formats = SupportedControllerStateFormats::parse(&bytes)
            .map_err(|error| CommandError::Failed(error.to_string()))?;
        let newest = KNOWN_VERSIONS.iter().rev().find_map(|version| formats.version_index(*version));
        let mut vendors = formats.vendors().map(|(index, _)| index);
        let only = match (vendors.next(), vendors.next()) {
            (Some(index), None) => index,
            _ => 0,
        };
        Ok(FormatIndices {
            version: self.version.or(newest).unwrap_or(0),
            vendor: self.vendor.unwrap_or(only),
        })
    }
}

/// Options of `nvme-lm state get`.
#[derive(Args, Clone, Debug)]
#[command(after_help = GET_HELP)]
pub struct GetArgs {
    #[command(flatten)]
    pub(crate) tracked: Tracked,
    /// Where the state goes; - is standard output.
    #[arg(long, value_name = "FILE")]
    output: PathBuf,
    /// Suspend the controller before, and resume it afterwards.
    #[arg(long)]
    suspend: bool,
    /// Longest state that is taken.
    #[arg(long, value_name = "BYTES", default_value = "64M", value_parser = values::bytes)]
    limit: u64,
    #[command(flatten)]
    format: FormatArgs,
}

#[derive(Serialize)]
struct Got {
    controller: u16,
    bytes: usize,
    nvme_bytes: usize,
    vendor_bytes: usize,
    version_index: u8,
    vendor_index: u8,
    /// Suspended all the time, so that everything fits together.
    consistent: bool,
}

/// Suspends a controller for `work`, and resumes it whatever came of that. One that is suspended already stays so.
fn suspended<T>(
    session: &mut Session<'_>,
    standing: &mut Standing,
    controller: u16,
    work: impl FnOnce(&mut Session<'_>) -> Result<T, CommandError>,
) -> Result<T, CommandError> {
    let target = tracked(session, controller)?;
    if standing.is_suspended(session, target.controller()) {
        // Whoever suspended it resumes it.
        return work(session);
    }
    standing.suspend(session, target, SuspendKind::Suspend, false)?;
    let done = work(session);
    let resumed = standing.resume(session, target.controller());
    let done = done?;
    resumed?;
    Ok(done)
}

/// Says that nothing is translated, to whoever has a controller with states of its own kind: with a wrong phase tag its guest
/// would never see a completion.
fn note_dialect(session: &Session<'_>, output: &Output, otherwise: &str) {
    if session.quirks().contains(Quirks::SLOT_ZERO_IS_NEXT_PHASE) {
        output.note(&format!(
            "the controller takes S0PT for the phase tag of the next entry (quirk slot-zero-is-next-phase), and its state is not \
             translated: {otherwise}; migrate translates"
        ));
    }
}

impl GetArgs {
    /// A part of the state, and whether the controller was suspended all the time.
    fn part(
        session: &mut Session<'_>,
        controller: ControllerId,
        formats: FormatIndices,
        offset: u64,
        bytes: usize,
    ) -> Result<(bool, Vec<u8>), CommandError> {
        let command = MigrationReceive {
            controller,
            version_index: formats.version,
            vendor_index: formats.vendor,
            vendor_parameter: 0,
            offset,
            dwords: (bytes as u64).div_ceil(4),
            uuid_index: 0,
        };
        let (entry, part) =
            session.command("Migration Receive, Get Controller State", &command, Data::Receive(bytes))?;
        Ok((MigrationReceive::was_suspended(&entry), part))
    }

    fn read(
        &self,
        session: &mut Session<'_>,
        controller: ControllerId,
        formats: FormatIndices,
    ) -> Result<(Got, Vec<u8>), CommandError> {
        let malformed = |error| CommandError::Failed(format!("the controller's state: {error}"));
        let limit = usize::try_from(self.limit).unwrap_or(usize::MAX);
        let first = ControllerStateHeader::BYTES;
        let (mut consistent, mut image) = Self::part(session, controller, formats, 0, first)?;
        let header = ControllerStateHeader::parse(&image).map_err(malformed)?;
        let in_header = header.suspended() && session.quirks().contains(Quirks::SUSPENDED_IN_HEADER);
        consistent |= in_header;
        let sizes = header.sizes(limit).map_err(malformed)?;
        let piece = (session.max_transfer() & !3).max(4);
        while image.len() < sizes.total {
            let bytes = piece.min(sizes.total - image.len());
            let (suspended, part) = Self::part(session, controller, formats, image.len() as u64, bytes)?;
            consistent &= suspended || in_header;
            image.extend(part);
        }
        let got = Got {
            controller: controller.get(),
            bytes: image.len(),
            nvme_bytes: sizes.nvme,
            vendor_bytes: sizes.vendor,
            version_index: formats.version,
            vendor_index: formats.vendor,
            consistent,
        };
        Ok((got, image))
    }
}

impl Action for GetArgs {
    fn targets(&self) -> Vec<Target> {
        vec![Target::new(&self.tracked.manager)]
    }

    fn run(&self, sessions: &mut Sessions<'_>, output: &Output) -> Result<(), CommandError> {
        let Tracked { manager, controller, .. } = &self.tracked;
        let (session, standing, tracked) = sessions.tracked(manager, Capability::Migration, *controller)?;
        let controller = tracked.controller();
        let formats = self.format.indices(session)?;
        let (got, image) = match self.suspend {
            true => suspended(session, standing, controller.get(), |session| {
                self.read(session, controller, formats)
            })?,
            false => self.read(session, controller, formats)?,
        };
        note_dialect(session, output, "a controller without that quirk may take it wrongly");
        if !got.consistent {
            output.note(&format!(
                "controller {} was not suspended all the time, so what was read may not fit together",
                controller.get()
            ));
        }
        if self.output == Path::new("-") {
            return output.raw(&image);
        }
        fs::write(&self.output, &image).map_err(|error| file(&self.output, error))?;
        output.emit(&got, |out| {
            writeln!(
                out,
                "state of controller {}: {} bytes, {} of them I/O queues, {} vendor specific, in {}",
                got.controller,
                got.bytes,
                got.nvme_bytes,
                got.vendor_bytes,
                self.output.display()
            )
        })
    }
}

/// Options of `nvme-lm state set`.
#[derive(Args, Clone, Debug)]
#[command(after_help = SET_HELP)]
pub struct SetArgs {
    #[command(flatten)]
    pub(crate) tracked: Tracked,
    /// The state; - is standard input.
    #[arg(long, value_name = "FILE")]
    input: PathBuf,
    /// Suspend the controller before, and resume it afterwards.
    #[arg(long)]
    suspend: bool,
    /// Do not ask.
    #[arg(long)]
    yes: bool,
    #[command(flatten)]
    format: FormatArgs,
}

#[derive(Serialize)]
struct Set {
    controller: u16,
    bytes: usize,
    commands: usize,
    version_index: u8,
    vendor_index: u8,
}

impl SetArgs {
    /// Sends the image, in one command if the controller takes so long a one.
    fn send(
        session: &mut Session<'_>,
        controller: ControllerId,
        formats: FormatIndices,
        image: &[u8],
    ) -> Result<usize, CommandError> {
        let piece = (session.max_transfer() & !3).max(4);
        let count = image.len().div_ceil(piece);
        if count > 1 && session.quirks().contains(Quirks::SET_STATE_IN_ONE) {
            return Err(CommandError::Input(format!(
                "the state has {} bytes and the controller takes {piece} in one command, as it must (quirk \
                 set-state-in-one)",
                image.len()
            )));
        }
        for (at, part) in image.chunks(piece).enumerate() {
            let sequence = match (at == 0, at + 1 == count) {
                (true, true) => SequenceIndicator::Only,
                (true, false) => SequenceIndicator::First,
                (false, true) => SequenceIndicator::Last,
                (false, false) => SequenceIndicator::Middle,
            };
            let command = MigrationSend::SetControllerState {
                controller,
                sequence,
                version_index: formats.version,
                vendor_index: formats.vendor,
                offset: (at * piece) as u64,
                dwords: u32::try_from(part.len() / 4).unwrap_or(u32::MAX),
                uuid_index: 0,
            };
            session.command("Migration Send, Set Controller State", &command, Data::Send(part))?;
        }
        Ok(count)
    }
}

impl Action for SetArgs {
    fn targets(&self) -> Vec<Target> {
        vec![Target::new(&self.tracked.manager)]
    }

    fn prepare(&mut self, output: &Output) -> Result<(), CommandError> {
        if !self.yes && self.input == Path::new("-") && io::stdin().is_terminal() {
            return Err(CommandError::Input(
                "standard input cannot be the state and the answer to a question; give --yes".into(),
            ));
        }
        let Tracked { manager, controller, .. } = &self.tracked;
        output.confirm(self.yes, &format!("the state of controller {controller} is overwritten by {manager}"))
    }

    fn run(&self, sessions: &mut Sessions<'_>, output: &Output) -> Result<(), CommandError> {
        let driven = sessions.driven(&self.tracked.manager, ControllerId::new(self.tracked.controller))?;
        let Tracked { manager, controller, .. } = &self.tracked;
        let (session, standing, tracked) = sessions.tracked(manager, Capability::Migration, *controller)?;
        let controller = tracked.controller();
        if let Some(address) = driven {
            // Its queues would be where they were when the state was read: commands from then on are fetched again.
            return Err(CommandError::Input(format!(
                "other lines of this script drive controller {} as {address}, and the state would replace the queues that they \
                 use; set it in a script without {address}",
                controller.get()
            )));
        }
        let bytes = read_file(&self.input)?;
        let wrong = |what: String| CommandError::Input(format!("{}: {what}", self.input.display()));
        let image =
            ControllerStateImage::parse(&bytes, usize::MAX).map_err(|error| wrong(error.to_string()))?;
        if bytes.len() != image.total_bytes() {
            let behind = bytes.len() - image.total_bytes();
            return Err(wrong(format!("{behind} bytes stand behind the state; it is not one state alone")));
        }
        let mut formats = self.format.indices(session)?;
        if self.format.vendor.is_none() && image.vendor_data().is_empty() {
            formats.vendor = 0;
        }
        image.check_indices(formats.version, formats.vendor).map_err(|error| wrong(error.to_string()))?;
        note_dialect(
            session,
            output,
            "one that was read from a controller without that quirk may be wrong here",
        );
        let commands = match self.suspend {
            true => suspended(session, standing, controller.get(), |session| {
                Self::send(session, controller, formats, &bytes)
            })?,
            false => Self::send(session, controller, formats, &bytes)?,
        };
        let set = Set {
            controller: controller.get(),
            bytes: bytes.len(),
            commands,
            version_index: formats.version,
            vendor_index: formats.vendor,
        };
        output.emit(&set, |out| {
            writeln!(
                out,
                "controller {} has the state: {} bytes in {commands} commands",
                set.controller, set.bytes
            )
        })
    }
}

pub(super) fn file(path: &Path, error: io::Error) -> CommandError {
    CommandError::File(path.display().to_string(), error)
}

/// A file, or standard input.
pub(super) fn read_file(path: &Path) -> Result<Vec<u8>, CommandError> {
    let mut bytes = Vec::new();
    let read = match path == Path::new("-") {
        true => io::stdin().read_to_end(&mut bytes).map(|_| bytes),
        false => fs::read(path),
    };
    read.map_err(|error| CommandError::Input(format!("{}: {error}", path.display())))
}

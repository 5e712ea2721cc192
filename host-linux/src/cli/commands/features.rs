// SPDX-License-Identifier: MIT OR Apache-2.0
//! `nvme-lm features get` and `set`.

use std::fs;
use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};
use nvme_core::wire::admin::{FeatureSelect, GetFeatures, SetFeatures};
use nvme_core::wire::feature::FeatureId;
use nvme_core::wire::{Command, NamespaceId};
use serde::Serialize;

use super::raw::{Queue, harm};
use super::view::ViewArgs;
use crate::address::Address;
use crate::cli::action::{Action, CommandError, Output, Sessions, Target};
use crate::cli::connect::ConnectArgs;
use crate::cli::values;
use crate::describe;
use crate::session::Data;

const GET_HELP: &str = "Example: nvme-lm features get embedded:demo --feature 0x07";
const SET_HELP: &str = "Example: nvme-lm features set embedded:demo --feature 0x04 --value 350 --yes";

/// `nvme-lm features`.
#[derive(Clone, Debug, Subcommand)]
pub enum FeaturesCommand {
    /// Show a feature.
    Get(Box<GetArgs>),
    /// Set a feature.
    Set(Box<SetArgs>),
}

/// Which value of a feature.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
enum Select {
    /// In effect now.
    #[default]
    Current,
    /// After a reset, if nothing else was saved.
    Default,
    /// Saved across resets.
    Saved,
    /// What can be done with the feature.
    Capabilities,
}

impl Select {
    const fn wire(self) -> FeatureSelect {
        match self {
            Self::Current => FeatureSelect::Current,
            Self::Default => FeatureSelect::Default,
            Self::Saved => FeatureSelect::Saved,
            Self::Capabilities => FeatureSelect::SupportedCapabilities,
        }
    }
}

/// Options of `nvme-lm features get`.
#[derive(Args, Clone, Debug)]
#[command(after_help = GET_HELP)]
pub struct GetArgs {
    /// The controller.
    #[arg(value_name = "ADDRESS")]
    address: Address,
    /// Which feature (FID).
    #[arg(long, value_name = "N", value_parser = values::number::<u8>)]
    feature: u8,
    /// Which of its values.
    #[arg(long, value_name = "WHICH", default_value = "current")]
    select: Select,
    /// Namespace identifier, for features of one.
    #[arg(long, value_name = "ID", default_value = "0", value_parser = values::number::<u32>)]
    namespace: u32,
    /// Command dword 11.
    #[arg(long, value_name = "N", default_value = "0", value_parser = values::number::<u32>)]
    cdw11: u32,
    /// Show so many bytes of data [default: as many as the feature is known to have].
    #[arg(long, value_name = "BYTES", value_parser = values::bytes)]
    receive: Option<u64>,
    #[command(flatten)]
    view: ViewArgs,
    #[command(flatten)]
    pub(crate) connect: ConnectArgs,
}

/// Options of `nvme-lm features set`.
#[derive(Args, Clone, Debug)]
#[command(after_help = SET_HELP)]
pub struct SetArgs {
    /// The controller.
    #[arg(value_name = "ADDRESS")]
    address: Address,
    /// Which feature (FID).
    #[arg(long, value_name = "N", value_parser = values::number::<u8>)]
    feature: u8,
    /// Its value, command dword 11.
    #[arg(long, value_name = "N", value_parser = values::number::<u32>)]
    value: u32,
    /// Command dword 12.
    #[arg(long, value_name = "N", default_value = "0", value_parser = values::number::<u32>)]
    cdw12: u32,
    /// Command dword 13.
    #[arg(long, value_name = "N", default_value = "0", value_parser = values::number::<u32>)]
    cdw13: u32,
    /// Data of the feature.
    #[arg(long, value_name = "FILE")]
    data: Option<PathBuf>,
    /// Namespace identifier, for features of one.
    #[arg(long, value_name = "ID", default_value = "0", value_parser = values::number::<u32>)]
    namespace: u32,
    /// Save it across resets (SV).
    #[arg(long)]
    save: bool,
    /// Do not ask.
    #[arg(long)]
    yes: bool,
    #[command(flatten)]
    pub(crate) connect: ConnectArgs,
    #[arg(skip)]
    bytes: Vec<u8>,
}

/// Memory for data whose length is not known: no feature's data are longer.
const PAGE: usize = 4096;

/// What a feature transfers beside the dwords of its commands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Transfer {
    /// Nothing.
    None,
    /// So many bytes.
    Bytes(usize),
    /// It is not known how many, if any.
    Unknown,
}

/// What Get Features returns for a feature. NVMe Base 2.1 §5.1.25, Set Features command, Feature Identifiers; NVM Command
/// Set 1.1 §4.1.3.
const fn returned(feature: u8) -> Transfer {
    match feature {
        // LBA Range Type, host memory buffer attributes, metadata of host and controllers.
        0x03 | 0x0D | 0x7D..=0x7F => Transfer::Bytes(4096),
        0x0C | 0x1F => Transfer::Bytes(256),
        0x0E => Transfer::Bytes(8),
        0x13 | 0x16 | 0x21 | 0x78 | 0x79 => Transfer::Bytes(512),
        0x81 => Transfer::Bytes(16),
        0x01 | 0x02 | 0x04..=0x0B | 0x0F..=0x12 | 0x14 | 0x15 | 0x17..=0x1A | 0x80 | 0x82..=0x85 => {
            Transfer::None
        }
        _ => Transfer::Unknown,
    }
}

/// What Set Features takes for a feature; `value` is command dword 11.
const fn taken(feature: u8, value: u32) -> Transfer {
    match feature {
        // What its command says, or the head that it names.
        0x0D | 0x21 => Transfer::None,
        // Extended or not (EXHID).
        0x81 => Transfer::Bytes(if value & 1 == 0 { 8 } else { 16 }),
        other => returned(other),
    }
}

impl Action for GetArgs {
    fn targets(&self) -> Vec<Target> {
        vec![Target::new(&self.address)]
    }

    fn prepare(&mut self, _output: &Output) -> Result<(), CommandError> {
        match self.receive {
            Some(bytes) if bytes > PAGE as u64 => {
                Err(CommandError::Input(format!("{bytes} bytes: no feature has more than {PAGE}")))
            }
            _ => Ok(()),
        }
    }

    fn run(&self, sessions: &mut Sessions<'_>, output: &Output) -> Result<(), CommandError> {
        let session = sessions.at(&self.address)?;
        let select = self.select.wire();
        let command = GetFeatures {
            namespace: NamespaceId::new(self.namespace),
            dword11: self.cdw11,
            ..GetFeatures::new(FeatureId::new(self.feature), select)
        };
        let known = if self.select == Select::Capabilities { Transfer::None } else { returned(self.feature) };
        // A controller that transfers more than is known, or shown, needs memory for it.
        let (shown, lent) = match (self.receive, known) {
            (Some(shown), _) => (shown as usize, PAGE.max(shown as usize)),
            (None, Transfer::None) => (0, 0),
            (None, Transfer::Bytes(bytes)) => (bytes, PAGE),
            (None, Transfer::Unknown) => (0, PAGE),
        };
        let (entry, mut bytes) = session.command("Get Features", &command, Data::Receive(lent))?;
        bytes.truncate(shown);
        let raw = [&entry.dw0().to_le_bytes(), bytes.as_slice()].concat();
        self.view.show(output, &raw, |raw| {
            let data = raw.get(4..).unwrap_or_default();
            describe::feature(self.feature, select, entry.dw0(), data)
        })
    }
}

impl SetArgs {
    fn command(&self) -> SetFeatures {
        SetFeatures {
            save: self.save,
            namespace: NamespaceId::new(self.namespace),
            dword12: self.cdw12,
            dword13: self.cdw13,
            ..SetFeatures::new(FeatureId::new(self.feature), self.value)
        }
    }
}

/// What was set.
#[derive(Serialize)]
struct Done {
    feature: u8,
    value: u32,
    /// Dword 0 of the completion.
    dw0: u32,
}

impl Action for SetArgs {
    fn targets(&self) -> Vec<Target> {
        vec![Target::new(&self.address)]
    }

    fn prepare(&mut self, output: &Output) -> Result<(), CommandError> {
        if let Some(reason) = harm(Queue::Admin, &self.command().encode()) {
            return Err(CommandError::Input(format!("feature {:#04x} is not set: {reason}", self.feature)));
        }
        if let Some(path) = &self.data {
            let failed = |error| CommandError::Input(format!("{}: {error}", path.display()));
            self.bytes = fs::read(path).map_err(failed)?;
        }
        let (feature, given) = (self.feature, self.bytes.len());
        let refuse = |what: String| Err(CommandError::Input(format!("feature {feature:#04x} {what}")));
        match (taken(feature, self.value), &self.data) {
            (Transfer::None, Some(_)) => return refuse("takes no data; leave --data out".into()),
            (Transfer::Bytes(bytes), None) => {
                return refuse(format!("takes {bytes} bytes of data; give them by --data"));
            }
            (Transfer::Bytes(bytes), Some(_)) if given != bytes => {
                return refuse(format!("takes {bytes} bytes of data, not {given}"));
            }
            (Transfer::Unknown, _) if given > PAGE => {
                return refuse(format!("cannot take {given} bytes of data; no feature has more than {PAGE}"));
            }
            // A controller that takes more reads zeroes.
            (Transfer::Bytes(_) | Transfer::Unknown, _) => self.bytes.resize(PAGE, 0),
            (Transfer::None, None) => {}
        }
        let what = format!("feature {:#04x} of {} is set to {:#x}", self.feature, self.address, self.value);
        output.confirm(self.yes, &what)
    }

    fn run(&self, sessions: &mut Sessions<'_>, output: &Output) -> Result<(), CommandError> {
        let session = sessions.at(&self.address)?;
        let (entry, _) = session.command("Set Features", &self.command(), Data::Send(&self.bytes))?;
        let done = Done { feature: self.feature, value: self.value, dw0: entry.dw0() };
        output.emit(&done, |out| writeln!(out, "feature {:#04x} set, dword 0 {:#x}", done.feature, done.dw0))
    }
}

// SPDX-License-Identifier: MIT OR Apache-2.0
//! `nvme-lm features get` and `set`.

use std::fs;
use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};
use nvme_core::wire::NamespaceId;
use nvme_core::wire::admin::{FeatureSelect, GetFeatures, SetFeatures};
use nvme_core::wire::feature::FeatureId;
use serde::Serialize;

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
}

/// Bytes of the structures that Get Features returns. NVMe Base 2.1 §5.1.25, Set Features command.
const fn data_bytes(feature: u8) -> usize {
    match feature {
        // Autonomous power state transitions, host memory buffer, host behavior, data queue and whatever is not known.
        0x0D | 0x0F..=0x11 | 0x01..=0x0B => 0,
        0x0C => 256,
        0x0E => 8,
        0x16 | 0x21 => 512,
        0x81 => 16,
        _ => 0,
    }
}

impl Action for GetArgs {
    fn targets(&self) -> Vec<Target> {
        vec![Target::new(&self.address)]
    }

    fn run(&self, sessions: &mut Sessions<'_>, output: &Output) -> Result<(), CommandError> {
        let session = sessions.at(&self.address)?;
        let select = self.select.wire();
        let command = GetFeatures {
            namespace: NamespaceId::new(self.namespace),
            dword11: self.cdw11,
            ..GetFeatures::new(FeatureId::new(self.feature), select)
        };
        let len = if self.select == Select::Capabilities { 0 } else { data_bytes(self.feature) };
        let (entry, bytes) = session.command("Get Features", &command, Data::Receive(len))?;
        let raw = [&entry.dw0().to_le_bytes(), bytes.as_slice()].concat();
        self.view.show(output, &raw, |raw| {
            let data = raw.get(4..).unwrap_or_default();
            describe::feature(self.feature, select, entry.dw0(), data)
        })
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
        if self.feature == 0x07 {
            return Err(CommandError::Input(
                "feature 0x07, Number of Queues, belongs to the driver, which sets it when it makes queues"
                    .into(),
            ));
        }
        let what = format!("feature {:#04x} of {} is set to {:#x}", self.feature, self.address, self.value);
        output.confirm(self.yes, &what)
    }

    fn run(&self, sessions: &mut Sessions<'_>, output: &Output) -> Result<(), CommandError> {
        let data = match &self.data {
            None => Vec::new(),
            Some(path) => {
                fs::read(path).map_err(|error| CommandError::File(path.display().to_string(), error))?
            }
        };
        let session = sessions.at(&self.address)?;
        let command = SetFeatures {
            save: self.save,
            namespace: NamespaceId::new(self.namespace),
            dword12: self.cdw12,
            dword13: self.cdw13,
            ..SetFeatures::new(FeatureId::new(self.feature), self.value)
        };
        let (entry, _) = session.command("Set Features", &command, Data::Send(&data))?;
        let done = Done { feature: self.feature, value: self.value, dw0: entry.dw0() };
        output.emit(&done, |out| writeln!(out, "feature {:#04x} set, dword 0 {:#x}", done.feature, done.dw0))
    }
}

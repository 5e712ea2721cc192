// SPDX-License-Identifier: MIT OR Apache-2.0
//! `nvme-lm identify`: what a controller says of itself and of its namespaces.

use clap::Args;
use nvme_core::wire::admin::{Identify, IdentifyStructure};
use nvme_core::wire::{ControllerId, NamespaceId};
use serde::Serialize;

use crate::address::Address;
use crate::cli::action::{Action, CommandError, Output, Sessions, Target};
use crate::cli::connect::ConnectArgs;
use crate::cli::values;

const HELP: &str = "Example: nvme-lm identify embedded:demo --cns 1";

/// Options of `nvme-lm identify`.
#[derive(Args, Clone, Debug)]
#[command(after_help = HELP)]
pub struct IdentifyArgs {
    /// The controller.
    #[arg(value_name = "ADDRESS")]
    address: Address,
    /// Which structure (CNS), decimal or 0x and hexadecimal: 0 namespace, 1 controller, 2 active namespaces ...
    #[arg(long, value_name = "N", default_value = "1", value_parser = values::number::<u8>)]
    cns: u8,
    /// Namespace identifier.
    #[arg(long, value_name = "ID", value_parser = values::number::<u32>)]
    namespace: Option<u32>,
    /// Controller identifier, where the structure is about one.
    #[arg(long, value_name = "ID", default_value = "0", value_parser = values::number::<u16>)]
    controller: u16,
    /// Print the bytes as they came.
    #[arg(long, conflicts_with = "json")]
    raw: bool,
    /// Show fields that are zero and reserved, too.
    #[arg(long)]
    all: bool,
    #[command(flatten)]
    pub(crate) connect: ConnectArgs,
}

#[derive(Serialize)]
struct Dump<'a> {
    cns: u8,
    bytes: &'a str,
}

impl Action for IdentifyArgs {
    fn targets(&self) -> Vec<Target> {
        vec![Target::new(&self.address)]
    }

    fn run(&self, sessions: &mut Sessions<'_>, output: &Output) -> Result<(), CommandError> {
        let session = sessions.at(&self.address)?;
        let structure = IdentifyStructure::new(self.cns);
        let mut command = Identify::new(structure);
        // Structures of one namespace are about the first one unless another is asked for.
        let of_namespace = [IdentifyStructure::NAMESPACE].contains(&structure);
        command.namespace = NamespaceId::new(self.namespace.unwrap_or(u32::from(of_namespace)));
        command.controller = ControllerId::new(self.controller);
        let bytes = session.identify("Identify", &command)?;
        if self.raw {
            return output.raw(&bytes);
        }
        let digits: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        output.emit(&Dump { cns: self.cns, bytes: &digits }, |out| {
            for (at, row) in
                bytes.chunks(16).enumerate().filter(|(_, row)| self.all || row.iter().any(|b| *b != 0))
            {
                write!(out, "{:04x} ", at * 16)?;
                row.iter().try_for_each(|byte| write!(out, " {byte:02x}"))?;
                writeln!(out)?;
            }
            Ok(())
        })
    }
}

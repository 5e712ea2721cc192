// SPDX-License-Identifier: MIT OR Apache-2.0
//! `nvme-lm identify` and `namespaces`: what a controller says of itself and of its namespaces.

use clap::Args;
use nvme_core::wire::admin::{Identify, IdentifyStructure};
use nvme_core::wire::identify::NamespaceList;
use nvme_core::wire::{ControllerId, NamespaceId};
use serde::Serialize;

use super::view::{ViewArgs, context};
use crate::address::Address;
use crate::cli::action::{Action, CommandError, Output, Sessions, Target};
use crate::cli::connect::ConnectArgs;
use crate::cli::{output, values};
use crate::describe;
use crate::session::Session;

const HELP: &str = "Example: nvme-lm identify embedded:demo --cns 0x06";
const NAMESPACES_HELP: &str = "Example: nvme-lm namespaces embedded:demo";

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
    /// Namespace identifier [default: 1 where one is needed].
    #[arg(long, value_name = "ID", value_parser = values::number::<u32>)]
    namespace: Option<u32>,
    /// Controller identifier, where the structure is about one or a list begins with one.
    #[arg(long, value_name = "ID", default_value = "0", value_parser = values::number::<u16>)]
    controller: u16,
    /// I/O command set (CSI), 0 for NVM.
    #[arg(long, value_name = "N", default_value = "0", value_parser = values::number::<u8>)]
    csi: u8,
    #[command(flatten)]
    view: ViewArgs,
    #[command(flatten)]
    pub(crate) connect: ConnectArgs,
}

impl Action for IdentifyArgs {
    fn targets(&self) -> Vec<Target> {
        vec![Target::new(&self.address)]
    }

    fn run(&self, sessions: &mut Sessions<'_>, output: &Output) -> Result<(), CommandError> {
        let session = sessions.at(&self.address)?;
        let structure = IdentifyStructure::new(self.cns);
        // Lists begin after an identifier, everything else is about one.
        let is_list = matches!(self.cns, 0x02 | 0x07 | 0x10);
        let one = structure.uses_namespace() == Some(true) && !is_list;
        let command = Identify {
            namespace: NamespaceId::new(self.namespace.unwrap_or(u32::from(one))),
            controller: ControllerId::new(self.controller),
            command_set: self.csi,
            ..Identify::new(structure)
        };
        let bytes = session.identify("Identify", &command)?;
        let context = context(session);
        self.view.show(output, &bytes, |bytes| describe::identify(self.cns, self.csi, bytes, &context))
    }
}

/// Options of `nvme-lm namespaces`.
#[derive(Args, Clone, Debug)]
#[command(after_help = NAMESPACES_HELP)]
pub struct NamespacesArgs {
    /// The controller.
    #[arg(value_name = "ADDRESS")]
    address: Address,
    #[command(flatten)]
    pub(crate) connect: ConnectArgs,
}

/// An active namespace.
#[derive(Serialize)]
struct Shown {
    namespace: u32,
    blocks: u64,
    block_bytes: u32,
    bytes: u64,
    /// Bytes allocated (NUSE).
    used_bytes: u64,
}

/// Identifiers of all active namespaces, in their order; each list gives up to 1,024.
fn active(session: &mut Session<'_>) -> Result<Vec<NamespaceId>, CommandError> {
    let mut found: Vec<NamespaceId> = Vec::new();
    loop {
        let after = found.last().copied().unwrap_or(NamespaceId::NONE);
        let structure = IdentifyStructure::ACTIVE_NAMESPACE_LIST;
        let command = Identify { namespace: after, ..Identify::new(structure) };
        let bytes = session.identify("Identify, Active Namespace ID list", &command)?;
        let list = NamespaceList::parse(&bytes, after)
            .map_err(|error| CommandError::Failed(format!("Active Namespace ID list: {error}")))?;
        let before = found.len();
        found.extend(list.iter());
        // Identifiers ascend, so the walk ends.
        if found.len() - before < 1024 {
            return Ok(found);
        }
    }
}

impl Action for NamespacesArgs {
    fn targets(&self) -> Vec<Target> {
        vec![Target::new(&self.address)]
    }

    fn run(&self, sessions: &mut Sessions<'_>, output: &Output) -> Result<(), CommandError> {
        let session = sessions.at(&self.address)?;
        let mut shown = Vec::new();
        for id in active(session)? {
            // One that has gone meanwhile is not active any more.
            let Some(found) = session.namespace(id)? else { continue };
            let block_bytes = found.block_bytes();
            shown.push(Shown {
                namespace: id.get(),
                blocks: found.blocks,
                block_bytes,
                bytes: found.blocks.saturating_mul(u64::from(block_bytes)),
                used_bytes: found.used.saturating_mul(u64::from(block_bytes)),
            });
        }
        let rows: Vec<Vec<String>> = shown
            .iter()
            .map(|one| {
                vec![
                    one.namespace.to_string(),
                    one.blocks.to_string(),
                    one.block_bytes.to_string(),
                    output::show_bytes(one.bytes),
                    output::show_bytes(one.used_bytes),
                ]
            })
            .collect();
        output.emit(&shown, |mut out| {
            output::table("Namespaces", &["id", "blocks", "block bytes", "size", "used"], &rows, &mut out)
        })
    }
}

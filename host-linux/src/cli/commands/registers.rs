// SPDX-License-Identifier: MIT OR Apache-2.0
//! `nvme-lm registers`: controller properties, read without bringing the controller up.

use clap::Args;
use nvme_core::register::{Offset, RegisterIo};

use super::view::style;
use crate::address::Address;
use crate::cli::action::{Action, CommandError, Output, Purpose, Sessions, Target};
use crate::cli::connect::ConnectArgs;
use crate::describe;

const HELP: &str = "\
An embedded controller and one behind a socket are left as they are. A PCI function is reset by the kernel when it is opened \
and when it is closed, so what is shown of one is its state after a reset.

Example: nvme-lm registers embedded:demo";

/// Options of `nvme-lm registers`.
#[derive(Args, Clone, Debug)]
#[command(after_help = HELP)]
pub struct RegistersArgs {
    /// The controller.
    #[arg(value_name = "ADDRESS")]
    address: Address,
    /// Show fields that are zero and reserved, too.
    #[arg(long)]
    all: bool,
    #[command(flatten)]
    pub(crate) connect: ConnectArgs,
}

impl Action for RegistersArgs {
    fn targets(&self) -> Vec<Target> {
        vec![Target { purpose: Purpose::Look, queues: 0, ..Target::new(&self.address) }]
    }

    fn run(&self, sessions: &mut Sessions<'_>, output: &Output) -> Result<(), CommandError> {
        let registers = sessions.device(&self.address)?.registers();
        let mut failed = None;
        let structure = describe::registers(|offset| match registers.read32(Offset::new(offset)) {
            Ok(value) => Some(value),
            Err(error) => {
                failed.get_or_insert(error);
                None
            }
        });
        if let Some(error) = failed {
            return Err(CommandError::Failed(format!("{}: {error}", self.address)));
        }
        output.emit(&structure, |out| describe::render(&structure, out, style(self.all)))
    }
}

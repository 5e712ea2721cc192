// SPDX-License-Identifier: MIT OR Apache-2.0
//! Options of `nvme-lm migrate` for controllers that are there already.

use std::path::PathBuf;

use clap::Args;
use nvme_core::wire::{ControllerId, NamespaceId};

use super::connect::ReachArgs;
use super::values;
use crate::address::Address;
use crate::config::{Between, DataPath, Tracked};
use crate::quirks::QuirkChoice;
use crate::virtualization::Resources;

const HEADING: &str = "Controllers";

/// Between which controllers to migrate.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = HEADING)]
pub(crate) struct BetweenArgs {
    /// Managing controller at the source.
    #[arg(long, value_name = "ADDRESS", requires = "dest_manager", conflicts_with_all = ["source_image", "size", "faults", "journal"])]
    source_manager: Option<Address>,
    /// The controller that migrates, to be driven by this program's guest.
    #[arg(long, value_name = "ADDRESS", requires = "source_manager")]
    source: Option<Address>,
    /// The controller that migrates, if somebody else drives it: its identifier. Beside --source: that of a secondary
    /// controller that is offline, so that it cannot be asked.
    #[arg(long, hide_short_help = true, value_name = "ID", requires = "source_manager", value_parser = values::number::<u16>)]
    source_controller: Option<u16>,
    /// Managing controller at the destination.
    #[arg(long, value_name = "ADDRESS", requires = "source_manager")]
    dest_manager: Option<Address>,
    /// The controller that takes its place, to be driven by this program's guest.
    #[arg(long, value_name = "ADDRESS", requires = "source_manager")]
    dest: Option<Address>,
    /// The controller that takes its place, if somebody else drives it: its identifier.
    #[arg(long, hide_short_help = true, value_name = "ID", requires = "source_manager", value_parser = values::number::<u16>)]
    dest_controller: Option<u16>,
    /// Namespace identifier, the same on both sides.
    #[arg(long, hide_short_help = true, value_name = "ID", default_value = "1", value_parser = values::number::<u32>)]
    namespace: u32,
    /// Bring the destination online first, as a secondary controller of its managing one: offline, resources assigned,
    /// reset, online. --dest-controller is needed beside --dest unless that is a virtual function. It goes offline again
    /// when this program ends, which resets the managing one.
    #[arg(long, hide_short_help = true, requires = "dest")]
    virtualization: bool,
    /// Queue pairs that it gets, the admin queue pair included [default: as many as the guest uses].
    #[arg(long, hide_short_help = true, value_name = "N", requires = "virtualization", value_parser = values::number::<u16>)]
    virtual_queues: Option<u16>,
    /// Interrupt vectors that it gets [default: as many as queue pairs].
    #[arg(long, hide_short_help = true, value_name = "N", requires = "virtualization", value_parser = values::number::<u16>)]
    virtual_interrupts: Option<u16>,
    /// Whether blocks are copied, or both sides have the same medium.
    #[arg(long, hide_short_help = true, value_name = "HOW", default_value = "copy")]
    data: DataPath,
    /// Read all blocks on both sides while nothing runs, and go back unless they are equal.
    #[arg(long, requires = "source_manager")]
    compare: bool,
    /// Registers of the source controller that somebody else drives, such as /sys/bus/pci/devices/0000:01:00.1/resource0:
    /// a file that is mapped, or read, whenever they are needed, and never written.
    #[arg(
        long,
        hide_short_help = true,
        value_name = "FILE",
        requires = "source_manager",
        conflicts_with = "properties"
    )]
    source_registers: Option<PathBuf>,
    /// What they hold, where there is no such file: lines `CC VALUE`, `AQA VALUE`, `ASQ VALUE`, `ACQ VALUE`, hexadecimal.
    #[arg(long, hide_short_help = true, value_name = "FILE", requires = "source_manager")]
    properties: Option<PathBuf>,
    /// Shell command that writes NVME_LM_AQA, NVME_LM_ASQ, NVME_LM_ACQ and then NVME_LM_CC, which are hexadecimal, to
    /// somebody else's destination controller while that is suspended, before its state is set. Run only if the sides have no
    /// vendor-specific state format in common. All shell commands get these variables if --source-registers or --properties
    /// tells them.
    #[arg(long, hide_short_help = true, value_name = "COMMAND", requires_all = ["source_controller", "dest_controller"])]
    restore: Option<String>,
    /// Shell command that takes memory away from somebody else's source controller, before the destination resumes.
    #[arg(long, hide_short_help = true, value_name = "COMMAND", requires_all = ["source_controller", "unfence"])]
    fence: Option<String>,
    /// Shell command that gives it back when the migration is rolled back after that.
    #[arg(long, hide_short_help = true, value_name = "COMMAND", requires = "fence")]
    unfence: Option<String>,
    /// Shell command that takes memory away from somebody else's destination controller when the migration is rolled back.
    #[arg(long, hide_short_help = true, value_name = "COMMAND", requires = "dest_controller")]
    dest_fence: Option<String>,
    /// Which known deviations the managing controllers have: none, +NAME, -NAME, separated by commas [default: those of
    /// their models].
    #[arg(
        long,
        hide_short_help = true,
        value_name = "LIST",
        allow_hyphen_values = true,
        requires = "source_manager"
    )]
    quirks: Option<QuirkChoice>,
    /// The same for the destination alone [default: as --quirks].
    #[arg(
        long,
        hide_short_help = true,
        value_name = "LIST",
        allow_hyphen_values = true,
        requires = "source_manager"
    )]
    dest_quirks: Option<QuirkChoice>,
    #[command(flatten)]
    reach: ReachArgs,
    /// Do not ask whether images, or a namespace, may be written over.
    #[arg(long)]
    pub(crate) yes: bool,
}

/// One side: an address or an identifier, one of which has to be given.
fn tracked(address: Option<&Address>, id: Option<u16>, options: &str) -> Result<Tracked, String> {
    match (address, id) {
        (Some(address), _) => Ok(Tracked::Ours(address.clone())),
        (None, Some(id)) => Ok(Tracked::Theirs(ControllerId::new(id))),
        (None, None) => Err(format!("which controller is missing: give {options}")),
    }
}

impl BetweenArgs {
    /// What these options ask for; `None` if they name no controllers.
    pub(crate) fn between(&self, io_queues: u16) -> Result<Option<Between>, String> {
        let (Some(source_manager), Some(destination_manager)) = (&self.source_manager, &self.dest_manager)
        else {
            return Ok(None);
        };
        if self.dest.is_some() && self.dest_controller.is_some() && !self.virtualization {
            return Err(
                "--dest-controller beside --dest is for --virtualization; leave one of them out".into()
            );
        }
        let theirs = [
            ("--fence", self.fence.is_some()),
            ("--source-registers", self.source_registers.is_some()),
            ("--properties", self.properties.is_some()),
            ("--restore", self.restore.is_some()),
        ];
        if let (Some(_), Some((name, _))) = (&self.source, theirs.iter().find(|(_, is_given)| *is_given)) {
            return Err(format!(
                "{name} is for a source that somebody else drives, which --source-controller names in place of --source; leave \
                 {name} or --source out"
            ));
        }
        if [self.quirks, self.dest_quirks].into_iter().flatten().any(QuirkChoice::is_list) {
            return Err(super::quirks::NOTHING_TO_LIST.into());
        }
        let queues = self.virtual_queues.unwrap_or(io_queues.saturating_add(1));
        let interrupts = self.virtual_interrupts.unwrap_or(queues);
        Ok(Some(Between {
            virtualization: self.virtualization.then_some(Resources { queues, interrupts }),
            source_id: self.source_controller.map(ControllerId::new),
            destination_id: self.dest_controller.map(ControllerId::new),
            source_manager: source_manager.clone(),
            destination_manager: destination_manager.clone(),
            source: tracked(self.source.as_ref(), self.source_controller, "--source or --source-controller")?,
            destination: tracked(self.dest.as_ref(), self.dest_controller, "--dest or --dest-controller")?,
            namespace: NamespaceId::new(self.namespace),
            data: self.data,
            compare: self.compare,
            properties: self.properties.clone(),
            source_registers: self.source_registers.clone(),
            restore: self.restore.clone(),
            fence: self.fence.clone(),
            unfence: self.unfence.clone(),
            destination_fence: self.dest_fence.clone(),
            quirks: self.quirks.unwrap_or_default(),
            destination_quirks: self.dest_quirks.or(self.quirks).unwrap_or_default(),
            open: self.reach.options(),
        }))
    }
}

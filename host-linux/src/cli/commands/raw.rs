// SPDX-License-Identifier: MIT OR Apache-2.0
//! `nvme-lm admin` and `nvme-lm io`: any command, as its dwords.

use std::fs;
use std::path::PathBuf;

use clap::Args;
use nvme_core::wire::admin::GetLogPage;
use nvme_core::wire::identify::Capability;
use nvme_core::wire::log::{CommandEffects, CommandsSupportedAndEffects, LogPageId};
use nvme_core::wire::{
    AdminOpcode, Command, CompletionQueueEntry, DataPointerKind, Fuse, IoOpcode, NamespaceId,
    SubmissionQueueEntry,
};
use serde::Serialize;
use zerocopy::FromBytes;

use super::media::HexDump;
use crate::address::Address;
use crate::cli::action::{Action, CommandError, Output, Sessions, Target};
use crate::cli::connect::ConnectArgs;
use crate::cli::values;
use crate::session::{Data, MAX_TRANSFER, Session};

const ADMIN_HELP: &str = "Example: nvme-lm admin embedded:demo --opcode 0x06 --cdw10 1 --receive 4096";
const IO_HELP: &str =
    "Example: nvme-lm io embedded:demo --opcode 0x02 --namespace 1 --cdw10 8 --receive 4096";

/// Opcodes that are the vendor's.
const VENDOR: u8 = 0xC0;
/// Log page attribute: the Commands Supported and Effects log exists (LPA bit 1).
const EFFECTS_LOG: u8 = 1 << 1;
/// Bytes of an Identify structure.
const IDENTIFY_BYTES: u64 = 4096;

/// A command.
#[derive(Args, Debug)]
struct EntryArgs {
    /// The controller.
    #[arg(value_name = "ADDRESS")]
    address: Address,
    /// Opcode.
    #[arg(long, value_name = "N", required_unless_present = "sqe", value_parser = values::number::<u8>)]
    opcode: Option<u8>,
    /// Namespace identifier.
    #[arg(long, value_name = "ID", default_value = "0", value_parser = values::number::<u32>)]
    namespace: u32,
    /// Command dword 2; dwords 4 to 9 hold addresses, which are the driver's.
    #[arg(long, hide_short_help = true, value_name = "N", default_value = "0", hide_default_value = true, value_parser = values::number::<u32>)]
    cdw2: u32,
    /// Command dword 3.
    #[arg(long, hide_short_help = true, value_name = "N", default_value = "0", hide_default_value = true, value_parser = values::number::<u32>)]
    cdw3: u32,
    /// Command dword 10.
    #[arg(long, value_name = "N", default_value = "0", hide_default_value = true, value_parser = values::number::<u32>)]
    cdw10: u32,
    /// Command dword 11.
    #[arg(long, value_name = "N", default_value = "0", hide_default_value = true, value_parser = values::number::<u32>)]
    cdw11: u32,
    /// Command dword 12.
    #[arg(long, value_name = "N", default_value = "0", hide_default_value = true, value_parser = values::number::<u32>)]
    cdw12: u32,
    /// Command dword 13.
    #[arg(long, hide_short_help = true, value_name = "N", default_value = "0", hide_default_value = true, value_parser = values::number::<u32>)]
    cdw13: u32,
    /// Command dword 14.
    #[arg(long, hide_short_help = true, value_name = "N", default_value = "0", hide_default_value = true, value_parser = values::number::<u32>)]
    cdw14: u32,
    /// Command dword 15.
    #[arg(long, hide_short_help = true, value_name = "N", default_value = "0", hide_default_value = true, value_parser = values::number::<u32>)]
    cdw15: u32,
    /// Take the whole entry from this file of 64 bytes.
    #[arg(long, hide_short_help = true, value_name = "FILE", conflicts_with_all = ["opcode", "namespace", "cdw2", "cdw3", "cdw10", "cdw11", "cdw12", "cdw13", "cdw14", "cdw15"])]
    sqe: Option<PathBuf>,
    /// Bytes that the controller sends.
    #[arg(long, value_name = "BYTES", value_parser = values::bytes, conflicts_with = "send")]
    receive: Option<u64>,
    /// A file with the bytes that the controller gets.
    #[arg(long, value_name = "FILE")]
    send: Option<PathBuf>,
    /// Write what the controller sent to this file, or to standard output (-).
    #[arg(long, value_name = "FILE", requires = "receive")]
    output: Option<PathBuf>,
    /// Do not ask before a command that may change data.
    #[arg(long)]
    yes: bool,
    #[command(flatten)]
    connect: ConnectArgs,
    #[arg(skip)]
    entry: Option<SubmissionQueueEntry>,
    #[arg(skip)]
    bytes: Vec<u8>,
}

/// Options of `nvme-lm admin`.
#[derive(Args, Debug)]
#[command(after_help = ADMIN_HELP)]
pub struct AdminArgs {
    #[command(flatten)]
    entry: EntryArgs,
}

/// Options of `nvme-lm io`.
#[derive(Args, Debug)]
#[command(after_help = IO_HELP)]
pub struct IoArgs {
    #[command(flatten)]
    entry: EntryArgs,
}

impl AdminArgs {
    pub(crate) const fn connect(&self) -> &ConnectArgs {
        &self.entry.connect
    }
}

impl IoArgs {
    pub(crate) const fn connect(&self) -> &ConnectArgs {
        &self.entry.connect
    }
}

/// Where a command goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Queue {
    Admin,
    Io,
}

impl Queue {
    fn capability(self, opcode: u8) -> Capability {
        match self {
            Self::Admin => Capability::Admin(AdminOpcode::new(opcode)),
            Self::Io => Capability::Io(IoOpcode::new(opcode)),
        }
    }

    /// What the specification calls it.
    fn name(self, opcode: u8) -> String {
        match self {
            Self::Admin => AdminOpcode::new(opcode).to_string(),
            Self::Io => IoOpcode::new(opcode).to_string(),
        }
    }
}

/// Why the driver cannot let a command through, whatever the user wants.
pub(super) fn harm(queue: Queue, entry: &SubmissionQueueEntry) -> Option<&'static str> {
    let [cdw10, cdw11, ..] = entry.dwords();
    if entry.data_pointer_kind() != DataPointerKind::Prp {
        return Some("the driver describes data by PRPs, so PSDT must be zero");
    }
    if entry.fuse() != Fuse::Normal {
        return Some("a fused operation is two commands, so FUSE must be zero");
    }
    if entry.metadata_pointer().get() != 0 {
        return Some("an address cannot be chosen, so MPTR must be zero");
    }
    if queue == Queue::Io {
        return None;
    }
    match (AdminOpcode::new(entry.opcode()), cdw10 & 0xFF) {
        (
            AdminOpcode::CREATE_IO_SUBMISSION_QUEUE
            | AdminOpcode::CREATE_IO_COMPLETION_QUEUE
            | AdminOpcode::DELETE_IO_SUBMISSION_QUEUE
            | AdminOpcode::DELETE_IO_COMPLETION_QUEUE,
            _,
        ) => Some("queues are the driver's, which makes and deletes them"),
        (AdminOpcode::ASYNCHRONOUS_EVENT_REQUEST, _) => Some("requests for events are the driver's"),
        (AdminOpcode::DOORBELL_BUFFER_CONFIG, _) => {
            Some("the controller would use the memory after it was given back")
        }
        (AdminOpcode::SET_FEATURES, 0x07) => Some("the driver asks for the number of its queues itself"),
        (AdminOpcode::SET_FEATURES, 0x0D) if cdw11 & 1 != 0 => {
            Some("the controller would use the memory after it was given back")
        }
        (AdminOpcode::CONTROLLER_DATA_QUEUE, 0) => {
            Some("the controller would use the memory after it was given back; nvme-lm cdq create keeps it")
        }
        _ => None,
    }
}

/// Whether a command may change data or how a controller works, as far as its opcode tells: any may that does not only
/// return data, unless it is known not to.
fn may_change(queue: Queue, opcode: u8) -> bool {
    let harmless: &[u8] = match queue {
        // Abort, Asynchronous Event Request, Device Self-test, Keep Alive.
        Queue::Admin => &[0x08, 0x0C, 0x14, 0x18],
        // Flush, Compare, Verify, Cancel.
        Queue::Io => &[0x00, 0x05, 0x0C, 0x18],
    };
    opcode >= VENDOR || (opcode & 3 != 2 && !harmless.contains(&opcode))
}

/// Whether what a command changes is said to be data or namespaces.
fn changes_data(effects: CommandEffects) -> bool {
    effects.intersects(
        CommandEffects::CONTENT_CHANGE
            | CommandEffects::NAMESPACE_CAPABILITY_CHANGE
            | CommandEffects::NAMESPACE_INVENTORY_CHANGE,
    )
}

/// What came back.
#[derive(Debug, Serialize)]
struct Answer {
    address: String,
    command: String,
    opcode: u8,
    success: bool,
    status: String,
    status_code_type: u8,
    status_code: u8,
    do_not_retry: bool,
    dw0: u32,
    dw1: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    data: Option<String>,
}

impl EntryArgs {
    fn read(&self, queue: Queue) -> Result<SubmissionQueueEntry, CommandError> {
        let entry = match (&self.sqe, self.opcode) {
            (Some(path), _) => {
                let name = path.display();
                let bytes =
                    fs::read(path).map_err(|error| CommandError::Input(format!("{name}: {error}")))?;
                SubmissionQueueEntry::read_from_bytes(&bytes).map_err(|_| {
                    CommandError::Input(format!("{name} has {} bytes where an entry has 64", bytes.len()))
                })?
            }
            (None, opcode) => SubmissionQueueEntry::new(opcode.unwrap_or(0))
                .with_namespace(NamespaceId::new(self.namespace))
                .with_dwords_2_3(self.cdw2, self.cdw3)
                .with_dwords([self.cdw10, self.cdw11, self.cdw12, self.cdw13, self.cdw14, self.cdw15]),
        };
        let name = queue.name(entry.opcode());
        match harm(queue, &entry) {
            Some(reason) => Err(CommandError::Input(format!("{name} is not sent: {reason}"))),
            None => Ok(entry),
        }
    }

    /// Whether data go the way that the opcode says. NVMe Base 2.1 §3.1.3, bits 1:0 of the opcode.
    fn check_direction(&self, queue: Queue, opcode: u8) -> Result<(), CommandError> {
        let name = queue.name(opcode);
        let refuse = |what: &str| Err(CommandError::Input(format!("{name} {what}; nothing was sent")));
        match (opcode & 3, self.receive.is_some(), self.send.is_some()) {
            (0, true, _) | (0, _, true) => refuse("transfers no data (bits 1:0 of its opcode are 00b)"),
            (1, true, _) => refuse("takes data (bits 1:0 of its opcode are 01b); give them with --send"),
            (2, _, true) => refuse("returns data (bits 1:0 of its opcode are 10b); take them with --receive"),
            (2, false, _) if queue == Queue::Io || opcode != AdminOpcode::GET_FEATURES.get() => {
                refuse("returns data; say how many bytes with --receive")
            }
            _ => Ok(()),
        }
    }

    fn prepare(&mut self, queue: Queue, output: &Output) -> Result<(), CommandError> {
        let entry = self.read(queue)?;
        let opcode = entry.opcode();
        if let Some(path) = &self.send {
            self.bytes = fs::read(path)
                .map_err(|error| CommandError::Input(format!("{}: {error}", path.display())))?;
        }
        self.check_direction(queue, opcode)?;
        let len = self.receive.unwrap_or(self.bytes.len() as u64);
        if len > MAX_TRANSFER as u64 || (self.receive == Some(0)) {
            let most = values::show_bytes(MAX_TRANSFER as u64);
            return Err(CommandError::Input(format!(
                "{len} bytes: a command transfers from one byte to {most}"
            )));
        }
        let to_output = self.output.as_deref().is_some_and(|path| path.as_os_str() == "-");
        if to_output && output.is_json() {
            return Err(CommandError::Input(
                "--json and the bytes cannot both go to standard output; leave --output out".into(),
            ));
        }
        if may_change(queue, opcode) && !self.yes {
            let what = format!("{} may change what {} holds", queue.name(opcode), self.address);
            output.confirm(false, &what)?;
            self.yes = true;
        }
        self.entry = Some(entry);
        Ok(())
    }

    /// How many bytes a command transfers, where that is known.
    fn expected(&self, queue: Queue, entry: &SubmissionQueueEntry, session: &mut Session<'_>) -> Option<u64> {
        match (queue, entry.opcode()) {
            (Queue::Admin, 0x06) => Some(IDENTIFY_BYTES),
            (Queue::Admin, 0x02) => GetLogPage::decode(entry).ok().map(|command| command.bytes()),
            (Queue::Io, 0x01 | 0x02 | 0x05) => {
                let identity = session.namespace(entry.namespace()).ok()??;
                let [_, _, cdw12, ..] = entry.dwords();
                let block = u64::from(identity.block_bytes()) + u64::from(identity.format().metadata_bytes);
                (identity.format().metadata_bytes == 0).then(|| (u64::from(cdw12 & 0xFFFF) + 1) * block)
            }
            _ => None,
        }
    }

    fn run(&self, queue: Queue, sessions: &mut Sessions<'_>, output: &Output) -> Result<(), CommandError> {
        let entry = self.entry.unwrap_or_default();
        let opcode = entry.opcode();
        let capability = queue.capability(opcode);
        let refused = sessions.with(&self.address, capability).err();
        let session = sessions.at(&self.address)?;
        let effects = effects(session, queue, opcode)?;
        if let Some(error) = refused {
            // What Identify Controller has no bit for, the log may know.
            let supported = effects.is_some_and(|effects| effects.contains(CommandEffects::SUPPORTED));
            if capability.is_in_identify() || !supported {
                return Err(error);
            }
        }
        if effects.is_some_and(changes_data) && !self.yes {
            let what = format!("{} changes what {} holds", queue.name(opcode), self.address);
            output.confirm(false, &what)?;
        }
        let given = self.receive.unwrap_or(self.bytes.len() as u64);
        if let Some(expected) = self.expected(queue, &entry, session).filter(|expected| *expected != given) {
            let name = queue.name(opcode);
            return Err(CommandError::Input(format!(
                "{name} as given transfers {expected} bytes, not {given}; it was not sent"
            )));
        }
        let data = match self.receive {
            Some(len) => Data::Receive(len as usize),
            None if self.bytes.is_empty() => Data::None,
            None => Data::Send(&self.bytes),
        };
        let (completion, bytes) = match queue {
            Queue::Admin => session.complete("the admin command", &entry, data)?,
            Queue::Io => session.io("the I/O command", &entry, data)?,
        };
        self.show(queue, &completion, &bytes, output)
    }

    fn show(
        &self,
        queue: Queue,
        completion: &CompletionQueueEntry,
        bytes: &[u8],
        output: &Output,
    ) -> Result<(), CommandError> {
        let opcode = self.entry.unwrap_or_default().opcode();
        let (name, status) = (queue.name(opcode), completion.status());
        let to_output = self.output.as_deref().is_some_and(|path| path.as_os_str() == "-");
        match &self.output {
            Some(_) if to_output => output.raw(bytes)?,
            Some(path) if status.is_success() => fs::write(path, bytes)
                .map_err(|error| CommandError::File(format!("output {}", path.display()), error))?,
            _ => {}
        }
        let shown = !bytes.is_empty() && self.output.is_none();
        let digits = || bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        let answer = Answer {
            address: self.address.to_string(),
            command: name.clone(),
            opcode,
            success: status.is_success(),
            status: status.to_string(),
            status_code_type: status.code().kind(),
            status_code: status.code().code(),
            do_not_retry: status.do_not_retry(),
            dw0: completion.dw0(),
            dw1: completion.dw1(),
            data: shown.then(digits),
        };
        let lines = [
            format!("{:<10}{name}", "command"),
            format!("{:<10}{status}", "status"),
            format!("{:<10}DW0 {:#010x}  DW1 {:#010x}", "result", answer.dw0, answer.dw1),
        ];
        if to_output {
            lines.iter().for_each(|line| anstream::eprintln!("{line}"));
        } else {
            output.emit(&answer, |out| {
                lines.iter().try_for_each(|line| writeln!(out, "{line}"))?;
                if shown {
                    let mut dump = HexDump::new(0);
                    dump.put(bytes, out)?;
                    dump.end(out)?;
                }
                Ok(())
            })?;
        }
        if status.is_success() { Ok(()) } else { Err(CommandError::Failed(format!("{name}: {status}"))) }
    }
}

/// What the controller's log says of a command; nothing if it has no such log.
fn effects(
    session: &mut Session<'_>,
    queue: Queue,
    opcode: u8,
) -> Result<Option<CommandEffects>, CommandError> {
    if session.identity().log_page_attributes & EFFECTS_LOG == 0 {
        return Ok(None);
    }
    let bytes = size_of::<CommandsSupportedAndEffects>();
    let command = GetLogPage::new(LogPageId::COMMANDS_SUPPORTED_AND_EFFECTS, bytes as u64 / 4);
    let what = "Get Log Page, Commands Supported and Effects";
    let (status, bytes) = session.ask(what, &command.encode(), Data::Receive(bytes))?;
    let log = status.ok().and_then(|_| CommandsSupportedAndEffects::read_from_bytes(&bytes).ok());
    Ok(log.map(|log| match queue {
        Queue::Admin => log.admin(AdminOpcode::new(opcode)),
        Queue::Io => log.io(IoOpcode::new(opcode)),
    }))
}

impl Action for AdminArgs {
    fn targets(&self) -> Vec<Target> {
        vec![Target::new(&self.entry.address)]
    }

    fn prepare(&mut self, output: &Output) -> Result<(), CommandError> {
        self.entry.prepare(Queue::Admin, output)
    }

    fn run(&self, sessions: &mut Sessions<'_>, output: &Output) -> Result<(), CommandError> {
        self.entry.run(Queue::Admin, sessions, output)
    }
}

impl Action for IoArgs {
    fn targets(&self) -> Vec<Target> {
        vec![Target::new(&self.entry.address)]
    }

    fn prepare(&mut self, output: &Output) -> Result<(), CommandError> {
        self.entry.prepare(Queue::Io, output)
    }

    fn run(&self, sessions: &mut Sessions<'_>, output: &Output) -> Result<(), CommandError> {
        self.entry.run(Queue::Io, sessions, output)
    }
}

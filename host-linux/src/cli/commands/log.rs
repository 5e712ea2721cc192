// SPDX-License-Identifier: MIT OR Apache-2.0
//! `nvme-lm log`: log pages.

use clap::Args;
use nvme_core::wire::NamespaceId;
use nvme_core::wire::admin::GetLogPage;
use nvme_core::wire::identify::Capability;
use nvme_core::wire::log::LogPageId;

use super::view::{ViewArgs, context};
use crate::address::Address;
use crate::cli::action::{Action, CommandError, Output, Sessions, Target};
use crate::cli::connect::ConnectArgs;
use crate::cli::values;
use crate::describe;
use crate::session::Data;

const HELP: &str = "Example: nvme-lm log embedded:demo --page 0x02";

/// Options of `nvme-lm log`.
#[derive(Args, Clone, Debug)]
#[command(after_help = HELP)]
pub struct LogArgs {
    /// The controller.
    #[arg(value_name = "ADDRESS")]
    address: Address,
    /// Which page (LID): 0 supported pages, 1 errors, 2 health, 3 firmware, 4 changed namespaces, 5 effects ...
    #[arg(long, value_name = "N", default_value = "2", value_parser = values::number::<u8>)]
    page: u8,
    /// Bytes to ask for [default: the length of the page, 4096 if it has none].
    #[arg(long, value_name = "N", value_parser = values::number::<u32>)]
    bytes: Option<u32>,
    /// Byte to begin with, a multiple of 4.
    #[arg(long, value_name = "N", default_value = "0", value_parser = values::number::<u64>)]
    offset: u64,
    /// Namespace identifier, for pages about one [default: all for page 2].
    #[arg(long, value_name = "ID", value_parser = values::number::<u32>)]
    namespace: Option<u32>,
    /// Log specific parameter (LSP).
    #[arg(long, hide_short_help = true, value_name = "N", default_value = "0", value_parser = values::number::<u8>)]
    lsp: u8,
    /// Log specific identifier (LSI).
    #[arg(long, hide_short_help = true, value_name = "N", default_value = "0", value_parser = values::number::<u16>)]
    lsi: u16,
    /// Keep the event that the page is about (RAE).
    #[arg(long)]
    retain: bool,
    #[command(flatten)]
    view: ViewArgs,
    #[command(flatten)]
    pub(crate) connect: ConnectArgs,
}

/// Bytes of one command, at most.
const MAX_PIECE: usize = 1 << 20;
/// Bytes that every controller gives in one command: 12 bits of dwords.
const SHORT: u32 = 16 << 10;

/// Bytes of the pages that have a length of their own. NVMe Base 2.1 §5.1.12, Get Log Page command.
const fn length(page: u8) -> u32 {
    match page {
        0x00 => 1024,
        0x02 | 0x03 | 0x81 => 512,
        0x06 => 564,
        _ => 4096,
    }
}

/// Whom a page is about if nobody is named. Both 0h and FFFFFFFFh stand for the controller in page 02h, but some controllers
/// take only the second. NVMe Base 2.1 §5.1.12.1.3, SMART / Health Information log page.
const fn namespace(page: u8) -> NamespaceId {
    match page {
        0x02 => NamespaceId::ALL,
        _ => NamespaceId::NONE,
    }
}

impl Action for LogArgs {
    fn targets(&self) -> Vec<Target> {
        vec![Target::new(&self.address)]
    }

    fn prepare(&mut self, _output: &Output) -> Result<(), CommandError> {
        let bytes = self.bytes.unwrap_or(length(self.page));
        if bytes == 0 || !bytes.is_multiple_of(4) || !self.offset.is_multiple_of(4) {
            return Err(CommandError::Input(format!(
                "{bytes} bytes from byte {} on: both numbers must be multiples of 4, and the first above 0",
                self.offset
            )));
        }
        Ok(())
    }

    fn run(&self, sessions: &mut Sessions<'_>, output: &Output) -> Result<(), CommandError> {
        let (mut left, mut at) = (self.bytes.unwrap_or(length(self.page)), self.offset);
        let most = sessions.at(&self.address)?.max_transfer().min(MAX_PIECE);
        let most = u32::try_from(most).unwrap_or(u32::MAX) & !3;
        let page = Capability::LogPage(LogPageId::new(self.page));
        sessions.with(&self.address, page)?;
        let session = match at == 0 && left <= most.min(SHORT) {
            true => sessions.at(&self.address)?,
            false => sessions.with(&self.address, Capability::LogPageOffsets)?,
        };
        let mut bytes = Vec::new();
        while left > 0 {
            if output.is_interrupted() {
                return Err(CommandError::Interrupted);
            }
            let piece = left.min(most);
            let command = GetLogPage {
                namespace: self.namespace.map_or(namespace(self.page), NamespaceId::new),
                retain_event: self.retain,
                specific_parameter: self.lsp,
                specific_id: self.lsi,
                offset: at,
                ..GetLogPage::new(LogPageId::new(self.page), u64::from(piece / 4))
            };
            bytes.extend(session.command("Get Log Page", &command, Data::Receive(piece as usize))?.1);
            left -= piece;
            at = at.saturating_add(u64::from(piece));
        }
        let context = context(session);
        self.view.show(output, &bytes, |bytes| describe::log_page(self.page, bytes, &context))
    }
}

// SPDX-License-Identifier: MIT OR Apache-2.0
//! What commands on blocks have in common: the namespace they are about, what keeps them from it, how failures are told.

use std::io::{self, Write};

use clap::Args;
use nvme_core::admin::CallError;
use nvme_core::wire::admin::{Identify, IdentifyStructure};
use nvme_core::wire::identify::{NamespaceIdentity, NamespaceList, NvmControllerIdentity};
use nvme_core::wire::{NamespaceId, Status, StatusCode};

use crate::announced::Unsupported;
use crate::blocks::BlockRange;
use crate::cli::action::CommandError;
use crate::cli::values;
use crate::driver::DriverError;
use crate::session::Session;

/// Which namespace.
#[derive(Args, Clone, Copy, Debug)]
pub(crate) struct NamespaceArgs {
    /// Namespace identifier.
    #[arg(long = "namespace", value_name = "ID", default_value = "1", value_parser = values::number::<u32>)]
    id: u32,
}

impl NamespaceArgs {
    pub(crate) const fn id(self) -> NamespaceId {
        NamespaceId::new(self.id)
    }
}

/// What `namespace` is.
///
/// # Errors
/// It is not active; nothing was changed.
pub(crate) fn identify(
    session: &mut Session<'_>,
    namespace: NamespaceId,
) -> Result<NamespaceIdentity, CommandError> {
    match session.namespace(namespace) {
        Ok(Some(identity)) => Ok(identity),
        Ok(None) => Err(not_active(session, namespace)),
        Err(DriverError::Admin(_, error))
            if error.is_status(StatusCode::INVALID_NAMESPACE)
                || error.is_status(StatusCode::INVALID_FIELD) =>
        {
            Err(not_active(session, namespace))
        }
        Err(error) => Err(error.into()),
    }
}

fn not_active(session: &mut Session<'_>, namespace: NamespaceId) -> CommandError {
    let active = session.identify("Identify", &Identify::new(IdentifyStructure::ACTIVE_NAMESPACE_LIST));
    let active = active.ok().and_then(|bytes| {
        let list = NamespaceList::parse(&bytes, NamespaceId::new(0)).ok()?;
        Some(list.iter().map(|id| id.get().to_string()).collect::<Vec<_>>().join(", "))
    });
    let known = match active.as_deref() {
        None => String::new(),
        Some("") => "; it has no active one".into(),
        Some(ids) => format!("; the active ones are {ids}"),
    };
    CommandError::Input(format!(
        "namespace {:#x} is not active on {}{known}",
        namespace.get(),
        session.device().address()
    ))
}

/// Bytes of a block, if its data are transferred without metadata.
pub(crate) fn plain_block(
    namespace: NamespaceId,
    identity: &NamespaceIdentity,
) -> Result<usize, CommandError> {
    let metadata = identity.format().metadata_bytes;
    if metadata == 0 {
        return Ok(identity.block_bytes() as usize);
    }
    Err(CommandError::Unsupported(Unsupported::Other {
        feature: format!("transferring blocks with metadata, as namespace {} has them,", namespace.get()),
        field: "MS of the LBA format in Identify Namespace",
        value: format!("{metadata} bytes"),
    }))
}

/// Whether `range` is inside the namespace.
pub(crate) fn check(range: BlockRange, identity: &NamespaceIdentity) -> Result<(), CommandError> {
    range.check(identity.blocks).map_err(|error| CommandError::Input(error.to_string()))
}

/// Limits of commands that Identify Controller does not have (CNS 06h); no limits if the controller has no such structure.
pub(crate) fn limits(session: &mut Session<'_>) -> Result<NvmControllerIdentity, CommandError> {
    const WHAT: &str = "Identify Controller of the NVM command set";
    match session.identify(WHAT, &Identify::new(IdentifyStructure::COMMAND_SET_CONTROLLER)) {
        Ok(bytes) => NvmControllerIdentity::parse(&bytes).map_err(|_| DriverError::Malformed(WHAT).into()),
        Err(DriverError::Admin(_, CallError::Status(_))) => Ok(NvmControllerIdentity::default()),
        Err(error) => Err(error.into()),
    }
}

/// A command on blocks that the controller completed with an error.
pub(crate) fn failed(what: &str, range: BlockRange, namespace: NamespaceId, status: Status) -> CommandError {
    CommandError::Failed(format!("{what} of {range} of namespace {}: {status}", namespace.get()))
}

/// Bytes as rows of 16 with their place and their text; rows like the one before them become one `*`.
#[derive(Debug, Default)]
pub(crate) struct HexDump {
    at: u64,
    last: Option<[u8; 16]>,
    skipping: bool,
}

impl HexDump {
    /// The first byte is at `at`.
    pub(crate) fn new(at: u64) -> Self {
        Self { at, ..Self::default() }
    }

    /// Writes rows; all but the last call give whole ones.
    pub(crate) fn put(&mut self, bytes: &[u8], out: &mut dyn Write) -> io::Result<()> {
        for row in bytes.chunks(16) {
            let whole = <[u8; 16]>::try_from(row).ok();
            let (same, at) = (whole.is_some() && whole == self.last, self.at);
            self.at = self.at.wrapping_add(row.len() as u64);
            self.last = whole;
            if same {
                if !std::mem::replace(&mut self.skipping, true) {
                    writeln!(out, "*")?;
                }
                continue;
            }
            self.skipping = false;
            write!(out, "{at:08x} ")?;
            for (index, byte) in row.iter().enumerate() {
                write!(out, "{}{byte:02x}", if index == 8 { "  " } else { " " })?;
            }
            let missing = 16 - row.len();
            write!(out, "{:1$}  |", "", missing * 3 + usize::from(row.len() <= 8))?;
            for byte in row {
                let shown = if byte.is_ascii_graphic() || *byte == b' ' { char::from(*byte) } else { '.' };
                write!(out, "{shown}")?;
            }
            writeln!(out, "|")?;
        }
        Ok(())
    }

    /// Writes where the bytes end.
    pub(crate) fn end(&self, out: &mut dyn Write) -> io::Result<()> {
        writeln!(out, "{:08x}", self.at)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_are_dumped_in_rows() {
        let rows: [(&str, Vec<u8>, &str); 4] = [
            ("nothing", vec![], "00000000\n"),
            (
                "part of a row",
                b"hello\n".to_vec(),
                "00000000  68 65 6c 6c 6f 0a                                 |hello.|\n00000006\n",
            ),
            (
                "more than half a row",
                (0..9).collect(),
                "00000000  00 01 02 03 04 05 06 07  08                       |.........|\n00000009\n",
            ),
            (
                "rows that repeat",
                vec![0x41; 64],
                "00000000  41 41 41 41 41 41 41 41  41 41 41 41 41 41 41 41  |AAAAAAAAAAAAAAAA|\n*\n00000040\n",
            ),
        ];
        for (name, bytes, expected) in rows {
            for part in [16, 32, 64] {
                let (mut dump, mut out) = (HexDump::new(0), Vec::new());
                for bytes in bytes.chunks(part) {
                    dump.put(bytes, &mut out).expect(name);
                }
                dump.end(&mut out).expect(name);
                assert_eq!(String::from_utf8(out).expect("text"), expected, "{name}");
            }
        }
    }
}

// SPDX-License-Identifier: MIT OR Apache-2.0
//! `nvme-lm formats`: in which formats a managing controller gives and takes the state of others.

use clap::Args;
use nvme_core::admin::CallError;
use nvme_core::migration::KNOWN_VERSIONS;
use nvme_core::wire::StatusCode;
use nvme_core::wire::admin::{Identify, IdentifyStructure};
use nvme_core::wire::identify::{Capability, SupportedControllerStateFormats};
use serde::Serialize;

use crate::address::Address;
use crate::cli::action::{Action, CommandError, Output, Sessions, Target};
use crate::cli::connect::ConnectArgs;
use crate::driver::DriverError;
use crate::session::Session;

const HELP: &str = "Example: nvme-lm formats embedded:demo";

/// Options of `nvme-lm formats`.
#[derive(Args, Clone, Debug)]
#[command(after_help = HELP)]
pub struct FormatsArgs {
    /// The managing controller.
    #[arg(value_name = "MANAGER")]
    manager: Address,
    #[command(flatten)]
    pub(crate) connect: ConnectArgs,
}

#[derive(Serialize)]
struct Version {
    /// CSVI of commands.
    index: u8,
    version: u16,
    /// Whether this program checks images of it.
    known: bool,
}

#[derive(Serialize)]
struct Vendor {
    /// CSUUIDI of commands.
    index: u8,
    uuid: String,
}

#[derive(Serialize)]
struct Formats {
    versions: Vec<Version>,
    vendors: Vec<Vendor>,
}

/// Supported Controller State Formats as returned; the number that one passage of the specification gives the structure is
/// tried where the right one is refused.
pub(crate) fn identify_formats(session: &mut Session<'_>) -> Result<Vec<u8>, DriverError> {
    const WHAT: &str = "Identify, Supported Controller State Formats";
    let right = Identify::new(IdentifyStructure::SUPPORTED_CONTROLLER_STATE_FORMATS);
    match session.identify(WHAT, &right) {
        Err(DriverError::Admin(_, CallError::Status(status)))
            if status.code() == StatusCode::INVALID_FIELD =>
        {
            let other = IdentifyStructure::SUPPORTED_CONTROLLER_STATE_FORMATS_ERRATUM;
            session.identify(WHAT, &Identify::new(other))
        }
        other => other,
    }
}

/// A UUID as it is written.
fn uuid(bytes: [u8; 16]) -> String {
    let digits: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    let parts = [(0, 8), (8, 12), (12, 16), (16, 20), (20, 32)];
    parts.map(|(from, to)| &digits[from..to]).join("-")
}

impl Action for FormatsArgs {
    fn targets(&self) -> Vec<Target> {
        vec![Target::new(&self.manager)]
    }

    fn run(&self, sessions: &mut Sessions<'_>, output: &Output) -> Result<(), CommandError> {
        let session = sessions.with(&self.manager, Capability::Migration)?;
        let bytes = identify_formats(session)?;
        let formats = SupportedControllerStateFormats::parse(&bytes)
            .map_err(|error| CommandError::Failed(error.to_string()))?;
        let version = |(index, version)| Version { index, version, known: KNOWN_VERSIONS.contains(&version) };
        let shown = Formats {
            versions: formats.versions().map(version).collect(),
            vendors: formats.vendors().map(|(index, id)| Vendor { index, uuid: uuid(id) }).collect(),
        };
        output.emit(&shown, |out| {
            writeln!(out, "index  NVMe Controller State")?;
            for Version { index, version, known } in &shown.versions {
                let note = if *known { "" } else { " (not known to this program)" };
                writeln!(out, "{index:>5}  version {version}{note}")?;
            }
            if shown.versions.is_empty() {
                writeln!(out, "       none")?;
            }
            writeln!(out, "index  vendor format")?;
            for Vendor { index, uuid } in &shown.vendors {
                writeln!(out, "{index:>5}  {uuid}")?;
            }
            if shown.vendors.is_empty() {
                writeln!(out, "       none")?;
            }
            Ok(())
        })
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn a_uuid_has_five_groups() {
        let bytes = std::array::from_fn(|at| at as u8);
        assert_eq!(super::uuid(bytes), "00010203-0405-0607-0809-0a0b0c0d0e0f");
    }
}

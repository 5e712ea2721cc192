// SPDX-License-Identifier: MIT OR Apache-2.0
//! What a controller announces in Identify Controller, so that nothing else is sent.
//! NVMe Base 2.1 §5.1.13.2.1, Identify Controller data structure (OACS, ONCS, TRATTR).

use core::fmt;

use nvme_core::wire::identify::{
    ControllerIdentity, OptionalAdminCommands, OptionalNvmCommands, TrackingAttributes,
};

/// A feature that is needed and not announced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Unsupported {
    /// What is missing.
    pub feature: &'static str,
    /// The field that says so.
    pub field: &'static str,
    /// Its value.
    pub value: u16,
    /// The bit that is clear.
    pub bit: u32,
}

impl core::error::Error for Unsupported {}

impl fmt::Display for Unsupported {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { feature, field, value, bit } = self;
        write!(
            f,
            "{feature} is not supported by this controller: {field} in Identify Controller is {value:#06x}, bit {bit} clear; \
             nothing was sent"
        )
    }
}

/// Whether the controller manages migrations.
///
/// # Errors
/// The field that says that it does not.
pub const fn require_migration(identity: &ControllerIdentity) -> Result<(), Unsupported> {
    let (found, needed) = (identity.admin_commands, OptionalAdminCommands::HOST_MANAGED_LIVE_MIGRATION);
    if found.contains(needed) {
        return Ok(());
    }
    Err(Unsupported {
        feature: "Host Managed Live Migration",
        field: "OACS",
        value: found.bits(),
        bit: needed.bits().trailing_zeros(),
    })
}

/// Whether the controller logs changes of user data into Controller Data Queues.
///
/// # Errors
/// As [`require_migration`].
pub fn require_user_data_log(identity: &ControllerIdentity) -> Result<(), Unsupported> {
    require_migration(identity)?;
    let (found, needed) = (identity.migration.tracking, TrackingAttributes::USER_DATA);
    if found.contains(needed) {
        return Ok(());
    }
    Err(Unsupported {
        feature: "Track User Data Changes",
        field: "TRATTR",
        value: u16::from(found.bits()),
        bit: needed.bits().trailing_zeros(),
    })
}

/// Whether the controller has Write Zeroes.
///
/// # Errors
/// As [`require_migration`].
pub const fn require_write_zeroes(identity: &ControllerIdentity) -> Result<(), Unsupported> {
    let (found, needed) = (identity.nvm_commands, OptionalNvmCommands::WRITE_ZEROES);
    if found.contains(needed) {
        return Ok(());
    }
    Err(Unsupported {
        feature: "Write Zeroes",
        field: "ONCS",
        value: found.bits(),
        bit: needed.bits().trailing_zeros(),
    })
}

// SPDX-License-Identifier: MIT OR Apache-2.0
//! What a controller announces in Identify Controller, so that nothing else is sent.
//! NVMe Base 2.1 §5.1.13.2.1, Identify Controller data structure (LPA, OACS, ONCS, TRATTR).

use core::fmt;

use nvme_core::wire::identify::{
    ControllerIdentity, OptionalAdminCommands, OptionalNvmCommands, TrackingAttributes,
};
use nvme_core::wire::log::LogPageId;

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

/// Whether the controller has a log page, as far as Identify Controller tells of it.
///
/// # Errors
/// As [`require_migration`].
pub fn require_log_page(identity: &ControllerIdentity, page: LogPageId) -> Result<(), Unsupported> {
    let lpa = ("LPA", u16::from(identity.log_page_attributes));
    let (feature, (field, value), bit) = match page.get() {
        0x00 | 0x12 | 0x13 => ("the log pages of what is supported", lpa, 5),
        0x05 => ("the log page of commands supported and their effects", lpa, 1),
        0x06 => {
            let needed = OptionalAdminCommands::SELF_TEST.bits().trailing_zeros();
            ("the log page of self-tests", ("OACS", identity.admin_commands.bits()), needed)
        }
        0x07 | 0x08 => ("telemetry", lpa, 3),
        0x0D => ("the log page of persistent events", lpa, 4),
        _ => return Ok(()),
    };
    if value & (1 << bit) != 0 { Ok(()) } else { Err(Unsupported { feature, field, value, bit }) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn log_pages_are_asked_for_if_they_are_announced() {
        for (page, field, bit) in [
            (0x00, "LPA", 5),
            (0x05, "LPA", 1),
            (0x06, "OACS", 4),
            (0x07, "LPA", 3),
            (0x08, "LPA", 3),
            (0x0D, "LPA", 4),
        ] {
            let page = LogPageId::new(page);
            let none = ControllerIdentity { log_page_attributes: 0, ..ControllerIdentity::default() };
            let error = require_log_page(&none, page).expect_err("nothing is announced");
            assert_eq!((error.field, error.value, error.bit), (field, 0, bit), "{page:?}");
            let all = ControllerIdentity {
                log_page_attributes: 0x3F,
                admin_commands: OptionalAdminCommands::SELF_TEST,
                ..ControllerIdentity::default()
            };
            assert_eq!(require_log_page(&all, page), Ok(()), "{page:?}");
        }
        for page in [1, 2, 3, 0xC0] {
            assert_eq!(
                require_log_page(&ControllerIdentity::default(), LogPageId::new(page)),
                Ok(()),
                "{page}"
            );
        }
    }
}

// SPDX-License-Identifier: MIT OR Apache-2.0
//! What a controller does not have, so that nothing is sent that it did not announce.

use std::fmt;

use nvme_core::wire::identify::NotAnnounced;

/// A feature that is needed and that the controller does not have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Unsupported {
    /// Identify Controller does not announce it.
    NotAnnounced(NotAnnounced),
    /// Something else says so.
    Other {
        /// What is missing, in words.
        feature: String,
        /// The field that says so, with its structure.
        field: &'static str,
        /// Its value.
        value: String,
    },
}

impl fmt::Display for Unsupported {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotAnnounced(error) => error.fmt(f)?,
            Self::Other { feature, field, value } => {
                write!(f, "{feature} is not supported by this controller: {field} is {value}")?;
            }
        }
        f.write_str("; nothing was sent")
    }
}

impl std::error::Error for Unsupported {}

impl From<NotAnnounced> for Unsupported {
    fn from(error: NotAnnounced) -> Self {
        Self::NotAnnounced(error)
    }
}

#[cfg(test)]
mod tests {
    use nvme_core::wire::identify::{Capability, ControllerIdentity};

    use super::*;

    #[test]
    fn messages_say_that_nothing_was_sent() {
        let announced =
            ControllerIdentity::default().require(Capability::Migration).map_err(Unsupported::from);
        assert_eq!(
            announced.map_err(|error| error.to_string()),
            Err("Host Managed Live Migration is not supported by this controller: OACS in Identify Controller is 0x0000, \
                 bit 11 clear; nothing was sent"
                .into())
        );
        let other = Unsupported::Other { feature: "a reset".into(), field: "CAP.NSSRS", value: "0".into() };
        assert_eq!(
            other.to_string(),
            "a reset is not supported by this controller: CAP.NSSRS is 0; nothing was sent"
        );
    }
}

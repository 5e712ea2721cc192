// SPDX-License-Identifier: MIT OR Apache-2.0
//! Which format of the controller state both sides understand.

use core::fmt;

use crate::wire::identify::SupportedControllerStateFormats;

/// Versions of the NVMe Controller State that this crate can check: images come from another machine, so one it
/// cannot check is refused.
pub const KNOWN_VERSIONS: &[u16] = &[0];

/// The indices one side uses for the formats agreed on; 0 says none. The other side's may differ.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct FormatIndices {
    /// Index of the NVMe Controller State version (CSVI).
    pub version: u8,
    /// Index of the vendor format (CSUUIDI).
    pub vendor: u8,
}

/// Formats that both sides support.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FormatMatch {
    /// The version of the NVMe Controller State.
    pub version: u16,
    /// The vendor format, if both sides have one in common.
    pub vendor: Option<[u8; 16]>,
    /// What to send to the source.
    pub source: FormatIndices,
    /// What to send to the destination.
    pub destination: FormatIndices,
}

/// The two sides have no version of the NVMe Controller State in common that can be checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NoCommonFormat;

impl core::error::Error for NoCommonFormat {}

impl fmt::Display for NoCommonFormat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(
            "source and destination have no known version of the NVMe Controller State in common: \
             migrate to a controller that shares one",
        )
    }
}

/// Matches by version value and by vendor UUID, never by index: each side counts its own. Bounded by the square of
/// 255.
///
/// # Errors
/// [`NoCommonFormat`].
pub fn match_formats(
    source: &SupportedControllerStateFormats<'_>,
    destination: &SupportedControllerStateFormats<'_>,
) -> Result<FormatMatch, NoCommonFormat> {
    let (version, from, to) = KNOWN_VERSIONS
        .iter()
        .rev()
        .find_map(|&version| {
            Some((version, source.version_index(version)?, destination.version_index(version)?))
        })
        .ok_or(NoCommonFormat)?;
    let vendor = source
        .vendors()
        .find_map(|(index, uuid)| destination.vendor_index(&uuid).map(|other| (uuid, index, other)));
    let (uuid, from_vendor, to_vendor) = match vendor {
        Some((uuid, from, to)) => (Some(uuid), from, to),
        None => (None, 0, 0),
    };
    Ok(FormatMatch {
        version,
        vendor: uuid,
        source: FormatIndices { version: from, vendor: from_vendor },
        destination: FormatIndices { version: to, vendor: to_vendor },
    })
}

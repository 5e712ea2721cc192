// SPDX-License-Identifier: MIT OR Apache-2.0
//! Supported Controller State Formats (CNS 20h). NVMe Base 2.1 §5.1.13.2.21.
//!
//! The figure was not at hand; the layout follows three implementations that agree. Indices start at 1, because 0 says
//! "none" in the migration commands.

use zerocopy::FromBytes;
use zerocopy::byteorder::little_endian::U16;

use super::{IdentifyError, IdentifyPage, PAGE_BYTES, fill, short};

/// Which formats a managing controller can get and set: match by version or UUID, send by index.
#[derive(Clone, Copy, Debug)]
pub struct SupportedControllerStateFormats<'a> {
    versions: &'a [U16],
    vendors: &'a [[u8; 16]],
}

impl<'a> SupportedControllerStateFormats<'a> {
    const NAME: &'static str = "Supported Controller State Formats";

    /// Reads the structure. The lists must be there, the rest of the page need not be: a known controller transfers no
    /// more than it uses.
    ///
    /// # Errors
    /// Fewer bytes than the two counts need.
    pub fn parse(bytes: &'a [u8]) -> Result<Self, IdentifyError> {
        let (&[versions, vendors], rest) =
            bytes.split_first_chunk::<2>().ok_or(short(Self::NAME, 2, bytes.len()))?;
        let needed = Self::bytes(usize::from(versions), usize::from(vendors));
        let missing = short(Self::NAME, needed, bytes.len());
        let (versions, rest) =
            <[U16]>::ref_from_prefix_with_elems(rest, usize::from(versions)).map_err(|_| missing)?;
        let (vendors, _) =
            <[[u8; 16]]>::ref_from_prefix_with_elems(rest, usize::from(vendors)).map_err(|_| missing)?;
        Ok(Self { versions, vendors })
    }

    /// Writes the structure.
    ///
    /// # Errors
    /// More than 255 of a kind, or lists that exceed the page.
    pub fn build(
        page: &mut IdentifyPage,
        versions: &[u16],
        vendors: &[[u8; 16]],
    ) -> Result<(), IdentifyError> {
        let needed = Self::bytes(versions.len(), vendors.len());
        let too_long = short(Self::NAME, needed, PAGE_BYTES);
        let count = |len: usize| u8::try_from(len).map_err(|_| too_long);
        let counts = [count(versions.len())?, count(vendors.len())?];
        if needed > PAGE_BYTES {
            return Err(too_long);
        }
        let versions = versions.iter().flat_map(|version| version.to_le_bytes());
        fill(page, counts.into_iter().chain(versions).chain(vendors.iter().flatten().copied()));
        Ok(())
    }

    fn bytes(versions: usize, vendors: usize) -> usize {
        2_usize.saturating_add(versions.saturating_mul(2)).saturating_add(vendors.saturating_mul(16))
    }

    /// The versions of the NVMe Controller State with their indices (CSVI).
    pub fn versions(&self) -> impl Iterator<Item = (u8, u16)> + 'a {
        (1..=u8::MAX).zip(self.versions.iter().map(|version| version.get()))
    }

    /// The UUIDs of vendor formats with their indices (CSUUIDI).
    pub fn vendors(&self) -> impl Iterator<Item = (u8, [u8; 16])> + 'a {
        (1..=u8::MAX).zip(self.vendors.iter().copied())
    }

    /// Index (CSVI) of a version of the NVMe Controller State; the version of this crate's images is 0.
    #[must_use]
    pub fn version_index(&self, version: u16) -> Option<u8> {
        self.versions().find(|(_, found)| *found == version).map(|(index, _)| index)
    }

    /// Index (CSUUIDI) of a vendor format.
    #[must_use]
    pub fn vendor_index(&self, uuid: &[u8; 16]) -> Option<u8> {
        self.vendors().find(|(_, found)| found == uuid).map(|(index, _)| index)
    }

    /// The version that an index (CSVI) names; `None` for 0 and for an index that is not supported.
    #[must_use]
    pub fn version_at(&self, index: u8) -> Option<u16> {
        self.versions().find(|(found, _)| *found == index).map(|(_, version)| version)
    }

    /// The vendor format that an index (CSUUIDI) names; `None` for 0 and for an index that is not supported.
    #[must_use]
    pub fn vendor_at(&self, index: u8) -> Option<[u8; 16]> {
        self.vendors().find(|(found, _)| *found == index).map(|(_, uuid)| uuid)
    }
}

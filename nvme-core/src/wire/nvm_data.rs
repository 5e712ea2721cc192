// SPDX-License-Identifier: MIT OR Apache-2.0
//! Range lists that NVM commands transfer. NVM Command Set 1.1 §3.3.2 and §3.3.3.

use zerocopy::byteorder::little_endian::{U16, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use super::command::{count_u16, zero_based_u16};
use super::{Lba, TooShort};

/// One range of Dataset Management as it stands in memory: 16 bytes.
#[repr(C)]
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned,
)]
pub struct DatasetRangeData {
    attributes: U32,
    length: U32,
    start: U64,
}
static_assertions::const_assert_eq!(size_of::<DatasetRangeData>(), 16);

/// One range of Dataset Management.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DatasetRange {
    /// Context attributes: hints about access.
    pub attributes: u32,
    /// Number of blocks, a plain count; 0 covers nothing.
    pub blocks: u32,
    /// First block.
    pub start: Lba,
}

impl From<DatasetRange> for DatasetRangeData {
    fn from(range: DatasetRange) -> Self {
        Self {
            attributes: U32::new(range.attributes),
            length: U32::new(range.blocks),
            start: U64::new(range.start.get()),
        }
    }
}

impl From<DatasetRangeData> for DatasetRange {
    fn from(data: DatasetRangeData) -> Self {
        Self {
            attributes: data.attributes.get(),
            blocks: data.length.get(),
            start: Lba::new(data.start.get()),
        }
    }
}

/// One source range of Copy, descriptor format 0, as it stands in memory: 32 bytes.
#[repr(C)]
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned,
)]
pub struct CopySourceData {
    reserved0: U64,
    start: U64,
    length_z: U16,
    reserved18: [u8; 6],
    reference_tag: U32,
    application_tag: U16,
    application_tag_mask: U16,
}
static_assertions::const_assert_eq!(size_of::<CopySourceData>(), 32);

/// One source range of Copy, descriptor format 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CopySource {
    /// First block.
    pub start: Lba,
    /// Number of blocks, 1 to 65,536. What lies outside is encoded as the nearest of these.
    pub blocks: u32,
    /// Expected reference tag of the first block.
    pub reference_tag: u32,
    /// Expected application tag.
    pub application_tag: u16,
    /// Which bits of the application tag are checked.
    pub application_tag_mask: u16,
}

impl CopySource {
    /// `blocks` blocks from `start`, without protection information.
    #[must_use]
    pub const fn new(start: Lba, blocks: u32) -> Self {
        Self { start, blocks, reference_tag: 0, application_tag: 0, application_tag_mask: 0 }
    }
}

impl From<CopySource> for CopySourceData {
    fn from(source: CopySource) -> Self {
        Self {
            start: U64::new(source.start.get()),
            length_z: U16::new((zero_based_u16(source.blocks) & 0xFFFF) as u16),
            reference_tag: U32::new(source.reference_tag),
            application_tag: U16::new(source.application_tag),
            application_tag_mask: U16::new(source.application_tag_mask),
            ..Self::default()
        }
    }
}

impl From<CopySourceData> for CopySource {
    fn from(data: CopySourceData) -> Self {
        Self {
            start: Lba::new(data.start.get()),
            blocks: count_u16(u32::from(data.length_z.get())),
            reference_tag: data.reference_tag.get(),
            application_tag: data.application_tag.get(),
            application_tag_mask: data.application_tag_mask.get(),
        }
    }
}

fn list<'b, Data>(structure: &'static str, bytes: &'b [u8], count: u16) -> Result<&'b [Data], TooShort>
where
    Data: FromBytes + Immutable + KnownLayout,
{
    match <[Data]>::ref_from_prefix_with_elems(bytes, usize::from(count)) {
        Ok((data, _)) => Ok(data),
        Err(_) => Err(TooShort {
            structure,
            needed: usize::from(count).saturating_mul(size_of::<Data>()),
            given: bytes.len(),
        }),
    }
}

/// The first `count` ranges of a Dataset Management command's data; bytes behind them are not looked at.
///
/// # Errors
/// [`TooShort`] if `bytes` holds fewer ranges.
pub fn dataset_ranges(
    bytes: &[u8],
    count: u16,
) -> Result<impl ExactSizeIterator<Item = DatasetRange> + Clone + '_, TooShort> {
    let data = list::<DatasetRangeData>("Dataset Management range list", bytes, count)?;
    Ok(data.iter().map(|range| DatasetRange::from(*range)))
}

/// The first `count` source ranges of a Copy command's data; bytes behind them are not looked at.
///
/// # Errors
/// [`TooShort`] if `bytes` holds fewer ranges.
pub fn copy_sources(
    bytes: &[u8],
    count: u16,
) -> Result<impl ExactSizeIterator<Item = CopySource> + Clone + '_, TooShort> {
    let data = list::<CopySourceData>("Copy source range list", bytes, count)?;
    Ok(data.iter().map(|source| CopySource::from(*source)))
}

// SPDX-License-Identifier: MIT OR Apache-2.0
//! Identify Namespace. NVM Command Set 1.1 §4.1.5.1, Identify Namespace data structure.

use core::mem::offset_of;

use static_assertions::const_assert_eq;
use zerocopy::byteorder::little_endian::{U16, U32, U64, U128};
use zerocopy::{FromBytes, FromZeros, Immutable, IntoBytes, KnownLayout, Unaligned};

use super::{
    IdentifyError, IdentifyPage, PAGE_BYTES, one_based_u8, one_based_u16, short, zero_based_u8,
    zero_based_u16,
};
use crate::wire::InvalidField;

const ATOMICS_VALID: u8 = 1 << 1;
const OPTIMAL_IO_VALID: u8 = 1 << 4;

#[repr(C)]
#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
struct RawLbaFormat {
    ms: U16,
    lbads: u8,
    rp: u8,
}

/// Identify Namespace data structure (CNS 00h): 4,096 bytes, little-endian, nothing checked.
/// [`NamespaceIdentity`] is its checked form.
#[repr(C)]
#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
pub struct IdentifyNamespace {
    nsze: U64,
    ncap: U64,
    nuse: U64,
    nsfeat: u8,
    nlbaf_z: u8,
    flbas: u8,
    mc: u8,
    dpc: u8,
    dps: u8,
    nmic: u8,
    rescap: u8,
    fpi: u8,
    dlfeat: u8,
    nawun_z: U16,
    nawupf_z: U16,
    nacwu_z: U16,
    reserved_40: [u8; 6],
    noiob: U16,
    nvmcap: U128,
    npwg_z: U16,
    npwa_z: U16,
    npdg_z: U16,
    npda_z: U16,
    nows_z: U16,
    mssrl: U16,
    mcl: U32,
    msrc_z: u8,
    reserved_81: u8,
    nulbaf: u8,
    reserved_83: [u8; 9],
    anagrpid: U32,
    reserved_96: [u8; 3],
    nsattr: u8,
    nvmsetid: U16,
    endgid: U16,
    nguid: [u8; 16],
    eui64: [u8; 8],
    lbaf: [RawLbaFormat; 64],
    rest: [u8; 3712],
}
const_assert_eq!(size_of::<IdentifyNamespace>(), 4096);
const_assert_eq!(offset_of!(IdentifyNamespace, nawun_z), 34);
const_assert_eq!(offset_of!(IdentifyNamespace, noiob), 46);
const_assert_eq!(offset_of!(IdentifyNamespace, nvmcap), 48);
const_assert_eq!(offset_of!(IdentifyNamespace, mssrl), 74);
const_assert_eq!(offset_of!(IdentifyNamespace, anagrpid), 92);
const_assert_eq!(offset_of!(IdentifyNamespace, nsattr), 99);
const_assert_eq!(offset_of!(IdentifyNamespace, nguid), 104);
const_assert_eq!(offset_of!(IdentifyNamespace, lbaf), 128);

impl IdentifyNamespace {
    /// Whether the namespace is active: for an inactive one the controller returns zeroes.
    #[must_use]
    pub const fn is_active(&self) -> bool {
        self.nsze.get() != 0
    }
}

/// How blocks are laid out (LBAF).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LbaFormat {
    /// Bytes of metadata for each block (MS).
    pub metadata_bytes: u16,
    /// Log2 of the bytes of a block (LBADS), at least 9; 0 if the format is not available.
    pub data_log2: u8,
    /// Relative performance (RP), 0 best to 3 degraded.
    pub relative_performance: u8,
}

impl LbaFormat {
    /// Bytes of data of one block; `None` if the format is not available or blocks are not of 512 bytes to 2 GiB.
    #[must_use]
    pub const fn block_bytes(&self) -> Option<u32> {
        if self.data_log2 < 9 { None } else { 1_u32.checked_shl(self.data_log2 as u32) }
    }
}

/// Atomic write sizes of a namespace, valid if NSFEAT says so; counts of blocks, 1 to 65,536.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AtomicLimits {
    /// In normal operation (NAWUN).
    pub normal: u32,
    /// Across power failure (NAWUPF).
    pub power_fail: u32,
    /// Compare and Write (NACWU).
    pub compare_write: u32,
}

/// Preferred sizes of a namespace, valid if NSFEAT says so; counts of blocks, 1 to 65,536.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OptimalIo {
    /// Write granularity (NPWG).
    pub write_granularity: u32,
    /// Write alignment (NPWA).
    pub write_alignment: u32,
    /// Deallocate granularity (NPDG).
    pub deallocate_granularity: u32,
    /// Deallocate alignment (NPDA).
    pub deallocate_alignment: u32,
    /// Write size (NOWS).
    pub write_size: u32,
}

/// What a controller says about a namespace, with natural values.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NamespaceIdentity {
    /// Size in blocks (NSZE), at least 1.
    pub blocks: u64,
    /// Blocks that may be allocated (NCAP), at most the size.
    pub capacity: u64,
    /// Blocks allocated (NUSE).
    pub used: u64,
    /// Features (NSFEAT): bit 0 thin provisioning, 2 deallocated error, 3 identifiers never reused; bits 1 and 4 follow
    /// from [`atomics`](Self::atomics) and [`optimal_io`](Self::optimal_io) when building.
    pub features: u8,
    /// Number of formats without extended attributes (NLBAF), 1 to 64.
    pub format_count: u8,
    /// Formats unique to this namespace that follow (NULBAF).
    pub unique_format_count: u8,
    /// Index of the format in use (FLBAS), below both counts together.
    pub format_index: u8,
    /// Metadata is transferred at the end of each block's data (FLBAS bit 4).
    pub metadata_extended: bool,
    /// Metadata capabilities (MC).
    pub metadata_capabilities: u8,
    /// Protection capabilities (DPC).
    pub protection_capabilities: u8,
    /// Protection settings (DPS): bits 2:0 type, bit 3 first bytes of the metadata.
    pub protection: u8,
    /// Shared by several controllers (NMIC bit 0).
    pub shared: bool,
    /// Reservation capabilities (RESCAP).
    pub reservations: u8,
    /// Format progress (FPI).
    pub format_progress: u8,
    /// Deallocate features (DLFEAT): bits 2:0 what deallocated blocks read as (1 zeroes), bit 3 Write Zeroes deallocates.
    pub deallocate_features: u8,
    /// Atomic write sizes, if the namespace has its own.
    pub atomics: Option<AtomicLimits>,
    /// Optimal I/O boundary in blocks (NOIOB); 0 if none.
    pub optimal_boundary: u16,
    /// Capacity in bytes (NVMCAP); 0 if not stated.
    pub capacity_bytes: u128,
    /// Preferred sizes, if stated.
    pub optimal_io: Option<OptimalIo>,
    /// Blocks of one source range of Copy (MSSRL).
    pub copy_range_blocks: u16,
    /// Blocks of one Copy (MCL).
    pub copy_blocks: u32,
    /// Source ranges of one Copy (MSRC), 1 to 256.
    pub copy_ranges: u16,
    /// ANA group (ANAGRPID); 0 if none.
    pub ana_group: u32,
    /// Write protected now (NSATTR bit 0).
    pub write_protected: bool,
    /// NVM set (NVMSETID); 0 if none.
    pub nvm_set: u16,
    /// Endurance group (ENDGID); 0 if none.
    pub endurance_group: u16,
    /// NGUID, most significant byte first; zeroes if none.
    pub nguid: [u8; 16],
    /// EUI-64, most significant byte first; zeroes if none.
    pub eui64: [u8; 8],
    /// All formats.
    pub formats: [LbaFormat; 64],
}

impl NamespaceIdentity {
    /// A private namespace of `blocks` blocks of 2^`block_log2` bytes, fully allocatable, without anything optional.
    #[must_use]
    pub fn new(blocks: u64, block_log2: u8) -> Self {
        let mut formats = [LbaFormat::default(); 64];
        if let Some(first) = formats.first_mut() {
            first.data_log2 = block_log2;
        }
        Self {
            blocks,
            capacity: blocks,
            used: blocks,
            features: 0,
            format_count: 1,
            unique_format_count: 0,
            format_index: 0,
            metadata_extended: false,
            metadata_capabilities: 0,
            protection_capabilities: 0,
            protection: 0,
            shared: false,
            reservations: 0,
            format_progress: 0,
            deallocate_features: 0,
            atomics: None,
            optimal_boundary: 0,
            capacity_bytes: 0,
            optimal_io: None,
            copy_range_blocks: 0,
            copy_blocks: 0,
            copy_ranges: 1,
            ana_group: 0,
            write_protected: false,
            nvm_set: 0,
            endurance_group: 0,
            nguid: [0; 16],
            eui64: [0; 8],
            formats,
        }
    }

    /// Reads Identify Namespace data; `None` if the namespace is inactive.
    ///
    /// # Errors
    /// Fewer than 4,096 bytes, or as [`from_raw`](Self::from_raw).
    pub fn parse(bytes: &[u8]) -> Result<Option<Self>, IdentifyError> {
        let (raw, _) = IdentifyNamespace::ref_from_prefix(bytes)
            .map_err(|_| short("Identify Namespace", PAGE_BYTES, bytes.len()))?;
        Ok(Self::from_raw(raw)?)
    }

    /// Reads the raw structure; `None` if the namespace is inactive.
    ///
    /// # Errors
    /// More than 64 formats, a format in use that is not among them or has no usable block size, or a capacity above
    /// the size.
    pub fn from_raw(raw: &IdentifyNamespace) -> Result<Option<Self>, InvalidField> {
        if !raw.is_active() {
            return Ok(None);
        }
        let format_count = u8::try_from(one_based_u8(raw.nlbaf_z)).unwrap_or(u8::MAX);
        let total = format_count.saturating_add(raw.nulbaf);
        if total > 64 {
            return Err(InvalidField::in_data("NLBAF", 25, u64::from(raw.nlbaf_z)));
        }
        let format_index = (raw.flbas & 0xF) | ((raw.flbas >> 1) & 0x30);
        if format_index >= total {
            return Err(InvalidField::in_data("FLBAS", 26, u64::from(raw.flbas)));
        }
        if raw.ncap.get() > raw.nsze.get() {
            return Err(InvalidField::in_data("NCAP", 8, raw.ncap.get()));
        }
        let identity = Self {
            blocks: raw.nsze.get(),
            capacity: raw.ncap.get(),
            used: raw.nuse.get(),
            features: raw.nsfeat & !(ATOMICS_VALID | OPTIMAL_IO_VALID),
            format_count,
            unique_format_count: raw.nulbaf,
            format_index,
            metadata_extended: raw.flbas & 0x10 != 0,
            metadata_capabilities: raw.mc,
            protection_capabilities: raw.dpc,
            protection: raw.dps,
            shared: raw.nmic & 1 == 1,
            reservations: raw.rescap,
            format_progress: raw.fpi,
            deallocate_features: raw.dlfeat,
            atomics: (raw.nsfeat & ATOMICS_VALID != 0).then(|| AtomicLimits {
                normal: one_based_u16(raw.nawun_z),
                power_fail: one_based_u16(raw.nawupf_z),
                compare_write: one_based_u16(raw.nacwu_z),
            }),
            optimal_boundary: raw.noiob.get(),
            capacity_bytes: raw.nvmcap.get(),
            optimal_io: (raw.nsfeat & OPTIMAL_IO_VALID != 0).then(|| OptimalIo {
                write_granularity: one_based_u16(raw.npwg_z),
                write_alignment: one_based_u16(raw.npwa_z),
                deallocate_granularity: one_based_u16(raw.npdg_z),
                deallocate_alignment: one_based_u16(raw.npda_z),
                write_size: one_based_u16(raw.nows_z),
            }),
            copy_range_blocks: raw.mssrl.get(),
            copy_blocks: raw.mcl.get(),
            copy_ranges: one_based_u8(raw.msrc_z),
            ana_group: raw.anagrpid.get(),
            write_protected: raw.nsattr & 1 == 1,
            nvm_set: raw.nvmsetid.get(),
            endurance_group: raw.endgid.get(),
            nguid: raw.nguid,
            eui64: raw.eui64,
            formats: raw.lbaf.map(|format| LbaFormat {
                metadata_bytes: format.ms.get(),
                data_log2: format.lbads,
                relative_performance: format.rp & 3,
            }),
        };
        match identity.format().block_bytes() {
            Some(_) => Ok(Some(identity)),
            None => Err(InvalidField::in_data(
                "LBADS",
                u32::from(format_index).saturating_mul(4).saturating_add(130),
                u64::from(identity.format().data_log2),
            )),
        }
    }

    /// The raw structure; counts outside their field's range become the nearest it can hold.
    #[must_use]
    pub fn to_raw(&self) -> IdentifyNamespace {
        let mut raw = IdentifyNamespace::new_zeroed();
        raw.nsze = U64::new(self.blocks);
        raw.ncap = U64::new(self.capacity);
        raw.nuse = U64::new(self.used);
        raw.nsfeat = self.features & !(ATOMICS_VALID | OPTIMAL_IO_VALID);
        raw.nlbaf_z = zero_based_u8(u16::from(self.format_count));
        raw.nulbaf = self.unique_format_count;
        raw.flbas = (self.format_index & 0xF)
            | ((self.format_index & 0x30) << 1)
            | (u8::from(self.metadata_extended) << 4);
        raw.mc = self.metadata_capabilities;
        raw.dpc = self.protection_capabilities;
        raw.dps = self.protection;
        raw.nmic = u8::from(self.shared);
        raw.rescap = self.reservations;
        raw.fpi = self.format_progress;
        raw.dlfeat = self.deallocate_features;
        if let Some(atomics) = self.atomics {
            raw.nsfeat |= ATOMICS_VALID;
            raw.nawun_z = zero_based_u16(atomics.normal);
            raw.nawupf_z = zero_based_u16(atomics.power_fail);
            raw.nacwu_z = zero_based_u16(atomics.compare_write);
        }
        raw.noiob = U16::new(self.optimal_boundary);
        raw.nvmcap = U128::new(self.capacity_bytes);
        if let Some(optimal) = self.optimal_io {
            raw.nsfeat |= OPTIMAL_IO_VALID;
            raw.npwg_z = zero_based_u16(optimal.write_granularity);
            raw.npwa_z = zero_based_u16(optimal.write_alignment);
            raw.npdg_z = zero_based_u16(optimal.deallocate_granularity);
            raw.npda_z = zero_based_u16(optimal.deallocate_alignment);
            raw.nows_z = zero_based_u16(optimal.write_size);
        }
        raw.mssrl = U16::new(self.copy_range_blocks);
        raw.mcl = U32::new(self.copy_blocks);
        raw.msrc_z = zero_based_u8(self.copy_ranges);
        raw.anagrpid = U32::new(self.ana_group);
        raw.nsattr = u8::from(self.write_protected);
        raw.nvmsetid = U16::new(self.nvm_set);
        raw.endgid = U16::new(self.endurance_group);
        raw.nguid = self.nguid;
        raw.eui64 = self.eui64;
        raw.lbaf = self.formats.map(|format| RawLbaFormat {
            ms: U16::new(format.metadata_bytes),
            lbads: format.data_log2,
            rp: format.relative_performance & 3,
        });
        raw
    }

    /// Writes Identify Namespace data.
    pub fn build(&self, page: &mut IdentifyPage) {
        page.copy_from_slice(self.to_raw().as_bytes());
    }

    /// The format in use.
    #[must_use]
    pub fn format(&self) -> LbaFormat {
        self.formats.get(usize::from(self.format_index)).copied().unwrap_or_default()
    }

    /// Bytes of data of one block; 0 only in a value that was not parsed and has no usable format.
    #[must_use]
    pub fn block_bytes(&self) -> u32 {
        self.format().block_bytes().unwrap_or(0)
    }

    /// Bytes of the namespace.
    #[must_use]
    pub fn bytes(&self) -> u128 {
        u128::from(self.blocks).saturating_mul(u128::from(self.block_bytes()))
    }
}

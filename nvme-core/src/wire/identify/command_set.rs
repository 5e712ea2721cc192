// SPDX-License-Identifier: MIT OR Apache-2.0
//! Structures of the NVM Command Set (CNS 05h and 06h) and the combinations of command sets (CNS 1Ch).
//! NVM Command Set 1.1 §4.1.5.2 and §4.1.5.3; NVMe Base 2.1 §5.1.13.2, I/O Command Set data structure.

use core::mem::offset_of;

use bitflags::bitflags;
use static_assertions::const_assert_eq;
use zerocopy::byteorder::little_endian::{U16, U32, U64};
use zerocopy::{FromBytes, FromZeros, Immutable, IntoBytes, KnownLayout, Unaligned};

use super::{IdentifyError, IdentifyPage, PAGE_BYTES, fill, short};

#[repr(C)]
#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
struct RawNvmNamespace {
    lbstm: U64,
    pic: u8,
    pifa: u8,
    reserved: [u8; 2],
    elbaf: [U32; 64],
    rest: [u8; 3828],
}
const_assert_eq!(size_of::<RawNvmNamespace>(), 4096);
const_assert_eq!(offset_of!(RawNvmNamespace, elbaf), 12);

/// Extended LBA format (ELBAF).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ExtendedLbaFormat {
    /// Bits of the storage tag (STS), 0 to 127.
    pub storage_tag_bits: u8,
    /// Protection information format (PIF), 0 to 3.
    pub protection_format: u8,
}

/// I/O Command Set specific Identify Namespace, NVM Command Set (CNS 05h, CSI 00h).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NvmNamespaceIdentity {
    /// Storage tag mask (LBSTM).
    pub storage_tag_mask: u64,
    /// Protection information capabilities (PIC).
    pub protection_capabilities: u8,
    /// Protection information format attributes (PIFA).
    pub protection_format_attributes: u8,
    /// One for each format of Identify Namespace.
    pub formats: [ExtendedLbaFormat; 64],
}

impl Default for NvmNamespaceIdentity {
    fn default() -> Self {
        Self {
            storage_tag_mask: 0,
            protection_capabilities: 0,
            protection_format_attributes: 0,
            formats: [ExtendedLbaFormat::default(); 64],
        }
    }
}

impl NvmNamespaceIdentity {
    /// Reads the structure. Every value is legal; an inactive namespace reads as the default.
    ///
    /// # Errors
    /// Fewer than 4,096 bytes.
    pub fn parse(bytes: &[u8]) -> Result<Self, IdentifyError> {
        let (raw, _) = RawNvmNamespace::ref_from_prefix(bytes)
            .map_err(|_| short("NVM Identify Namespace", PAGE_BYTES, bytes.len()))?;
        Ok(Self {
            storage_tag_mask: raw.lbstm.get(),
            protection_capabilities: raw.pic,
            protection_format_attributes: raw.pifa,
            formats: raw.elbaf.map(|format| ExtendedLbaFormat {
                storage_tag_bits: (format.get() & 0x7F) as u8,
                protection_format: ((format.get() >> 7) & 3) as u8,
            }),
        })
    }

    /// Writes the structure.
    pub fn build(&self, page: &mut IdentifyPage) {
        let mut raw = RawNvmNamespace::new_zeroed();
        raw.lbstm = U64::new(self.storage_tag_mask);
        raw.pic = self.protection_capabilities;
        raw.pifa = self.protection_format_attributes;
        raw.elbaf = self.formats.map(|format| {
            let bits = u32::from(format.storage_tag_bits & 0x7F);
            U32::new(bits | (u32::from(format.protection_format & 3) << 7))
        });
        page.copy_from_slice(raw.as_bytes());
    }
}

#[repr(C)]
#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
struct RawNvmController {
    vsl: u8,
    wzsl: u8,
    wusl: u8,
    dmrl: u8,
    dmrsl: U32,
    dmsl: U64,
    kpiocap: u8,
    wzdsl: u8,
    aocs: U16,
    ver: U32,
    lbamqf: u8,
    rest: [u8; 4071],
}
const_assert_eq!(size_of::<RawNvmController>(), 4096);
const_assert_eq!(offset_of!(RawNvmController, lbamqf), 24);

/// LBA Migration Queue Format (LBAMQF): which entries a User Data Migration Queue of this controller holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct LbaMigrationQueueFormat(u8);

impl LbaMigrationQueueFormat {
    /// LBA Migration Queue Entry Type 0.
    pub const TYPE_0: Self = Self(0);

    /// The format with number `value`; C0h to FFh are vendor specific, others but 0 reserved.
    #[must_use]
    pub const fn new(value: u8) -> Self {
        Self(value)
    }

    /// The format's number.
    #[must_use]
    pub const fn get(self) -> u8 {
        self.0
    }

    /// Whether the queue holds entries that this crate reads.
    #[must_use]
    pub const fn is_type_0(self) -> bool {
        self.0 == 0
    }
}

/// I/O Command Set specific Identify Controller, NVM Command Set (CNS 06h, CSI 00h).
///
/// The size limits are log2 of minimum memory pages (CAP.MPSMIN); 0 stands for no limit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct NvmControllerIdentity {
    /// Size limit of Verify (VSL).
    pub verify_limit_log2: u8,
    /// Size limit of Write Zeroes (WZSL).
    pub write_zeroes_limit_log2: u8,
    /// Size limit of Write Uncorrectable (WUSL).
    pub write_uncorrectable_limit_log2: u8,
    /// Ranges of one Dataset Management (DMRL); 0 for no limit.
    pub dataset_ranges: u8,
    /// Blocks of one range of Dataset Management (DMRSL); 0 for no limit.
    pub dataset_range_blocks: u32,
    /// Blocks of one Dataset Management (DMSL); 0 for no limit.
    pub dataset_blocks: u64,
    /// Key per I/O capabilities (KPIOCAP).
    pub key_per_io: u8,
    /// Size limit of Write Zeroes with deallocation (WZDSL).
    pub write_zeroes_deallocate_limit_log2: u8,
    /// Admin optional command set support (AOCS).
    pub admin_options: u16,
    /// Version of the NVM Command Set specification (VER); 0 if not stated.
    pub version: u32,
    /// LBA Migration Queue Format (LBAMQF); read from the managing controller, which posts the entries.
    pub migration_queue_format: LbaMigrationQueueFormat,
}

impl NvmControllerIdentity {
    /// Reads the structure; every value is legal.
    ///
    /// # Errors
    /// Fewer than 4,096 bytes.
    pub fn parse(bytes: &[u8]) -> Result<Self, IdentifyError> {
        let (raw, _) = RawNvmController::ref_from_prefix(bytes)
            .map_err(|_| short("NVM Identify Controller", PAGE_BYTES, bytes.len()))?;
        Ok(Self {
            verify_limit_log2: raw.vsl,
            write_zeroes_limit_log2: raw.wzsl,
            write_uncorrectable_limit_log2: raw.wusl,
            dataset_ranges: raw.dmrl,
            dataset_range_blocks: raw.dmrsl.get(),
            dataset_blocks: raw.dmsl.get(),
            key_per_io: raw.kpiocap,
            write_zeroes_deallocate_limit_log2: raw.wzdsl,
            admin_options: raw.aocs.get(),
            version: raw.ver.get(),
            migration_queue_format: LbaMigrationQueueFormat::new(raw.lbamqf),
        })
    }

    /// Most bytes of one Write Zeroes for a controller whose smallest memory page (CAP.MPSMIN) is `page_bytes`: the
    /// limit with deallocation, where there is one of its own, if `deallocate`. `None` if the controller states no
    /// limit, or one above what 64 bits express.
    #[must_use]
    pub fn max_write_zeroes_bytes(&self, page_bytes: u64, deallocate: bool) -> Option<u64> {
        let own = self.write_zeroes_deallocate_limit_log2;
        match if deallocate && own != 0 { own } else { self.write_zeroes_limit_log2 } {
            0 => None,
            log2 => 1_u64.checked_shl(u32::from(log2))?.checked_mul(page_bytes),
        }
    }

    /// Writes the structure.
    pub fn build(&self, page: &mut IdentifyPage) {
        let mut raw = RawNvmController::new_zeroed();
        raw.vsl = self.verify_limit_log2;
        raw.wzsl = self.write_zeroes_limit_log2;
        raw.wusl = self.write_uncorrectable_limit_log2;
        raw.dmrl = self.dataset_ranges;
        raw.dmrsl = U32::new(self.dataset_range_blocks);
        raw.dmsl = U64::new(self.dataset_blocks);
        raw.kpiocap = self.key_per_io;
        raw.wzdsl = self.write_zeroes_deallocate_limit_log2;
        raw.aocs = U16::new(self.admin_options);
        raw.ver = U32::new(self.version);
        raw.lbamqf = self.migration_queue_format.get();
        page.copy_from_slice(raw.as_bytes());
    }
}

bitflags! {
    /// A combination of I/O command sets that may be enabled together. Bits without a name are kept.
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
    pub struct CommandSetCombination: u64 {
        /// NVM Command Set.
        const NVM = 1 << 0;
        /// Key Value Command Set.
        const KEY_VALUE = 1 << 1;
        /// Zoned Namespace Command Set.
        const ZONED = 1 << 2;
        /// Subsystem Local Memory Command Set.
        const LOCAL_MEMORY = 1 << 3;
        /// Computational Programs Command Set.
        const COMPUTATIONAL_PROGRAMS = 1 << 4;
        const _ = !0;
    }
}

/// Combinations of I/O command sets (CNS 1Ch): at most 512; the index of one is what feature 19h selects.
#[derive(Clone, Copy, Debug)]
pub struct CommandSetCombinations<'a>(&'a [U64]);

impl<'a> CommandSetCombinations<'a> {
    /// Reads the structure: the combinations before the first empty one.
    ///
    /// # Errors
    /// Fewer than 4,096 bytes.
    pub fn parse(bytes: &'a [u8]) -> Result<Self, IdentifyError> {
        let (vectors, _) = <[U64; 512]>::ref_from_prefix(bytes)
            .map_err(|_| short("I/O Command Set data structure", PAGE_BYTES, bytes.len()))?;
        Ok(Self(vectors.split(|vector| vector.get() == 0).next().unwrap_or_default()))
    }

    /// Writes the structure and returns how many combinations it holds: those before the first empty one, at most 512.
    pub fn build(page: &mut IdentifyPage, combinations: &[CommandSetCombination]) -> usize {
        let present = combinations.iter().take_while(|combination| !combination.is_empty()).take(512);
        fill(page, present.clone().flat_map(|combination| combination.bits().to_le_bytes()));
        present.count()
    }

    /// The combinations in order; the position of each is its index.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = CommandSetCombination> + 'a {
        self.0.iter().map(|vector| CommandSetCombination::from_bits_retain(vector.get()))
    }
}

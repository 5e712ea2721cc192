// SPDX-License-Identifier: MIT OR Apache-2.0
//! I/O Command Set Independent Identify Namespace (CNS 08h). NVMe Base 2.1 §5.1.13.2.8.

use zerocopy::byteorder::little_endian::{U16, U32};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use super::{IdentifyError, IdentifyPage, fill, short};

#[repr(C)]
#[derive(Clone, Copy, Default, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
struct Raw {
    nsfeat: u8,
    nmic: u8,
    rescap: u8,
    fpi: u8,
    anagrpid: U32,
    nsattr: u8,
    reserved_9: u8,
    nvmsetid: U16,
    endgid: U16,
    nstat: u8,
    reserved_15: u8,
}
static_assertions::const_assert_eq!(size_of::<Raw>(), 16);

/// What every namespace says about itself, whatever its command set. All zero for an inactive namespace.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct IndependentNamespaceIdentity {
    /// Features (NSFEAT).
    pub features: u8,
    /// Shared by several controllers (NMIC bit 0).
    pub shared: bool,
    /// Reservation capabilities (RESCAP).
    pub reservations: u8,
    /// Format progress (FPI).
    pub format_progress: u8,
    /// ANA group (ANAGRPID); 0 if none.
    pub ana_group: u32,
    /// Write protected now (NSATTR bit 0).
    pub write_protected: bool,
    /// NVM set (NVMSETID); 0 if none.
    pub nvm_set: u16,
    /// Endurance group (ENDGID); 0 if none.
    pub endurance_group: u16,
    /// Ready for commands that access the medium (NSTAT bit 0, NRDY).
    pub ready: bool,
}

impl IndependentNamespaceIdentity {
    /// Reads the structure; every value is legal.
    ///
    /// # Errors
    /// Fewer than the 16 bytes that hold fields.
    pub fn parse(bytes: &[u8]) -> Result<Self, IdentifyError> {
        let (raw, _) = Raw::read_from_prefix(bytes)
            .map_err(|_| short("I/O Command Set Independent Identify Namespace", 16, bytes.len()))?;
        Ok(Self {
            features: raw.nsfeat,
            shared: raw.nmic & 1 == 1,
            reservations: raw.rescap,
            format_progress: raw.fpi,
            ana_group: raw.anagrpid.get(),
            write_protected: raw.nsattr & 1 == 1,
            nvm_set: raw.nvmsetid.get(),
            endurance_group: raw.endgid.get(),
            ready: raw.nstat & 1 == 1,
        })
    }

    /// Writes the structure.
    pub fn build(&self, page: &mut IdentifyPage) {
        let raw = Raw {
            nsfeat: self.features,
            nmic: u8::from(self.shared),
            rescap: self.reservations,
            fpi: self.format_progress,
            anagrpid: U32::new(self.ana_group),
            nsattr: u8::from(self.write_protected),
            nvmsetid: U16::new(self.nvm_set),
            endgid: U16::new(self.endurance_group),
            nstat: u8::from(self.ready),
            ..Raw::default()
        };
        fill(page, raw.as_bytes().iter().copied());
    }
}

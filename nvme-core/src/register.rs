// SPDX-License-Identifier: MIT OR Apache-2.0
//! How controller properties are reached, whatever carries them.
//!
//! Properties are reached by memory mapping (VFIO, firmware), by messages (vfio-user) or by calls
//! (`EFI_PCI_IO_PROTOCOL`), so access can fail and is a trait. NVMe Base 2.1 §3.1.4, Controller Properties.

use crate::wire::{QueueId, register as property};

/// Byte offset of a property or doorbell from the start of the controller's register space (BAR0).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Offset(u32);

impl Offset {
    /// The offset of `bytes` from the start of the register space.
    #[must_use]
    pub const fn new(bytes: u32) -> Self {
        Self(bytes)
    }

    /// Bytes from the start of the register space.
    #[must_use]
    pub const fn bytes(self) -> u32 {
        self.0
    }

    /// The offset four bytes on: the upper half of a 64-bit property.
    #[must_use]
    pub const fn upper_half(self) -> Self {
        Self(self.0.wrapping_add(4))
    }
}

/// The properties by the specification's abbreviations, and the doorbells.
impl Offset {
    /// Controller Capabilities (CAP), 64 bits.
    pub const CAP: Self = Self(property::CAP);
    /// Version (VS).
    pub const VS: Self = Self(property::VS);
    /// Interrupt Mask Set (INTMS); undefined with MSI-X.
    pub const INTMS: Self = Self(property::INTMS);
    /// Interrupt Mask Clear (INTMC); undefined with MSI-X.
    pub const INTMC: Self = Self(property::INTMC);
    /// Controller Configuration (CC).
    pub const CC: Self = Self(property::CC);
    /// Controller Status (CSTS).
    pub const CSTS: Self = Self(property::CSTS);
    /// NVM Subsystem Reset (NSSR).
    pub const NSSR: Self = Self(property::NSSR);
    /// Admin Queue Attributes (AQA).
    pub const AQA: Self = Self(property::AQA);
    /// Admin Submission Queue Base Address (ASQ), 64 bits, page aligned.
    pub const ASQ: Self = Self(property::ASQ);
    /// Admin Completion Queue Base Address (ACQ), 64 bits, page aligned.
    pub const ACQ: Self = Self(property::ACQ);
    /// Controller Memory Buffer Location (CMBLOC).
    pub const CMBLOC: Self = Self(property::CMBLOC);
    /// Controller Memory Buffer Size (CMBSZ).
    pub const CMBSZ: Self = Self(property::CMBSZ);
    /// Boot Partition Information (BPINFO).
    pub const BPINFO: Self = Self(property::BPINFO);
    /// Boot Partition Read Select (BPRSEL).
    pub const BPRSEL: Self = Self(property::BPRSEL);
    /// Boot Partition Memory Buffer Location (BPMBL), 64 bits, page aligned.
    pub const BPMBL: Self = Self(property::BPMBL);
    /// Controller Memory Buffer Memory Space Control (CMBMSC), 64 bits.
    pub const CMBMSC: Self = Self(property::CMBMSC);
    /// Controller Memory Buffer Status (CMBSTS).
    pub const CMBSTS: Self = Self(property::CMBSTS);
    /// Controller Memory Buffer Elasticity Buffer Size (CMBEBS).
    pub const CMBEBS: Self = Self(property::CMBEBS);
    /// Controller Memory Buffer Sustained Write Throughput (CMBSWTP).
    pub const CMBSWTP: Self = Self(property::CMBSWTP);
    /// NVM Subsystem Shutdown (NSSD).
    pub const NSSD: Self = Self(property::NSSD);
    /// Controller Ready Timeouts (CRTO).
    pub const CRTO: Self = Self(property::CRTO);
    /// Persistent Memory Region Capabilities (PMRCAP).
    pub const PMRCAP: Self = Self(property::PMRCAP);
    /// Persistent Memory Region Control (PMRCTL).
    pub const PMRCTL: Self = Self(property::PMRCTL);
    /// Persistent Memory Region Status (PMRSTS).
    pub const PMRSTS: Self = Self(property::PMRSTS);
    /// Persistent Memory Region Elasticity Buffer Size (PMREBS).
    pub const PMREBS: Self = Self(property::PMREBS);
    /// Persistent Memory Region Sustained Write Throughput (PMRSWTP).
    pub const PMRSWTP: Self = Self(property::PMRSWTP);
    /// Persistent Memory Region Memory Space Control Lower (PMRMSCL). Together with [`PMRMSCU`](Self::PMRMSCU) two 32-bit properties:
    /// E14h is no multiple of eight, so the pair must never be read as one 64-bit property.
    pub const PMRMSCL: Self = Self(property::PMRMSCL);
    /// Persistent Memory Region Memory Space Control Upper (PMRMSCU): address bits 63:32.
    pub const PMRMSCU: Self = Self(property::PMRMSCU);

    /// The tail doorbell of submission queue `queue`, where doorbells lie `stride` bytes apart; `None` if that is
    /// beyond 4 GiB, which no register space reaches.
    #[must_use]
    pub const fn sq_tail(queue: QueueId, stride: u32) -> Option<Self> {
        match property::sq_tail(queue, stride) {
            Some(bytes) => Some(Self(bytes)),
            None => None,
        }
    }

    /// The head doorbell of completion queue `queue`, where doorbells lie `stride` bytes apart; `None` if that is
    /// beyond 4 GiB, which no register space reaches.
    #[must_use]
    pub const fn cq_head(queue: QueueId, stride: u32) -> Option<Self> {
        match property::cq_head(queue, stride) {
            Some(bytes) => Some(Self(bytes)),
            None => None,
        }
    }
}

/// Access to one controller's properties and doorbells.
///
/// The trait is object safe. An implementation must deliver writes in the order in which they were made and must
/// not let a later read overtake an earlier write. Each call is one access of the stated width and must return in
/// bounded time.
pub trait RegisterIo {
    /// Why an access failed, for example a closed connection or an offset outside the mapping.
    type Error: Copy + core::fmt::Debug;

    /// Reads the 32-bit property at `offset`, which is a multiple of four.
    ///
    /// # Errors
    /// Any failure of the transport; the value is then unknown.
    fn read32(&self, offset: Offset) -> Result<u32, Self::Error>;

    /// Writes the 32-bit property or doorbell at `offset`, which is a multiple of four.
    ///
    /// # Errors
    /// Any failure of the transport; whether the write took effect is then unknown.
    fn write32(&self, offset: Offset, value: u32) -> Result<(), Self::Error>;

    /// Reads a 64-bit property as two 32-bit accesses, low half first.
    ///
    /// # Errors
    /// As [`read32`](Self::read32).
    fn read64(&self, offset: Offset) -> Result<u64, Self::Error> {
        let low = self.read32(offset)?;
        let high = self.read32(offset.upper_half())?;
        Ok(u64::from(low) | (u64::from(high) << 32))
    }

    /// Writes a 64-bit property as two 32-bit accesses, low half first.
    ///
    /// # Errors
    /// As [`write32`](Self::write32).
    fn write64(&self, offset: Offset, value: u64) -> Result<(), Self::Error> {
        #[allow(clippy::cast_possible_truncation, reason = "each half is exactly 32 bits")]
        let (low, high) = (value as u32, (value >> 32) as u32);
        self.write32(offset, low)?;
        self.write32(offset.upper_half(), high)
    }
}

impl<T: RegisterIo + ?Sized> RegisterIo for &T {
    type Error = T::Error;

    fn read32(&self, offset: Offset) -> Result<u32, Self::Error> {
        (**self).read32(offset)
    }

    fn write32(&self, offset: Offset, value: u32) -> Result<(), Self::Error> {
        (**self).write32(offset, value)
    }

    fn read64(&self, offset: Offset) -> Result<u64, Self::Error> {
        (**self).read64(offset)
    }

    fn write64(&self, offset: Offset, value: u64) -> Result<(), Self::Error> {
        (**self).write64(offset, value)
    }
}

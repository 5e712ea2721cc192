// SPDX-License-Identifier: MIT OR Apache-2.0
//! Registers of a function: by calls of the firmware, which work wherever the bus is, or mapped, which is faster.

use core::sync::atomic::{Ordering, fence};

use nvme_core::mmio::{MmioBar, MmioError};
use nvme_core::register::{Offset, RegisterIo};

use crate::sys::{PciIo, PciStatus, device_barrier};

/// The BAR that holds a controller's registers. NVMe over PCIe Transport 1.1 §3.1.
pub const REGISTER_BAR: u8 = 0;

/// A register that could not be accessed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RegisterError {
    /// The register.
    pub offset: Offset,
    /// What the firmware says.
    pub status: PciStatus,
}

impl core::error::Error for RegisterError {}

impl core::fmt::Display for RegisterError {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        let Self { offset, status } = self;
        write!(
            f,
            "the firmware cannot access register {:#x}: {status}; see whether the function has memory space enabled",
            offset.bytes()
        )
    }
}

/// Registers by calls of EFI_PCI_IO_PROTOCOL.Mem.
#[derive(Clone, Copy, Debug)]
pub struct PciRegisters<'p>(&'p PciIo);

impl<'p> PciRegisters<'p> {
    /// The registers of the function behind `io`, whose memory space is enabled.
    #[must_use]
    pub const fn new(io: &'p PciIo) -> Self {
        Self(io)
    }

    /// The function.
    #[must_use]
    pub const fn io(&self) -> &'p PciIo {
        self.0
    }
}

impl RegisterIo for PciRegisters<'_> {
    type Error = RegisterError;

    fn read32(&self, offset: Offset) -> Result<u32, RegisterError> {
        let value = self.0.read_mem32(REGISTER_BAR, u64::from(offset.bytes()));
        // What the register told of is read after it.
        fence(Ordering::SeqCst);
        device_barrier();
        value.map_err(|status| RegisterError { offset, status })
    }

    fn write32(&self, offset: Offset, value: u32) -> Result<(), RegisterError> {
        // What the register tells of is written before it.
        fence(Ordering::SeqCst);
        device_barrier();
        self.0
            .write_mem32(REGISTER_BAR, u64::from(offset.bytes()), value)
            .map_err(|status| RegisterError { offset, status })
    }
}

/// Registers by memory mapping. Made by [`Takeover::map_registers`](crate::takeover::Takeover::map_registers).
#[derive(Debug)]
pub struct MappedRegisters<'p> {
    bar: MmioBar,
    io: &'p PciIo,
}

impl<'p> MappedRegisters<'p> {
    pub(crate) const fn new(bar: MmioBar, io: &'p PciIo) -> Self {
        Self { bar, io }
    }

    /// The function.
    #[must_use]
    pub const fn io(&self) -> &'p PciIo {
        self.io
    }
}

impl RegisterIo for MappedRegisters<'_> {
    type Error = MmioError;

    fn read32(&self, offset: Offset) -> Result<u32, MmioError> {
        let value = self.bar.read32(offset);
        device_barrier();
        value
    }

    fn write32(&self, offset: Offset, value: u32) -> Result<(), MmioError> {
        device_barrier();
        self.bar.write32(offset, value)
    }
}

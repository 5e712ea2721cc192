// SPDX-License-Identifier: MIT OR Apache-2.0
//! Properties of one controller and the state behind them. NVMe Base 2.1 §3.1.4, Controller Properties.

use nvme_core::register::Offset;

/// Offset of the first doorbell.
pub(crate) const DOORBELLS: u32 = 0x1000;
/// Version property: 2.1.
pub(crate) const VERSION: u32 = 0x0002_0100;
/// What NSSR takes to reset the subsystem: "NVMe".
pub(crate) const SUBSYSTEM_RESET: u32 = 0x4E56_4D65;

/// Bits of Controller Configuration the controller implements.
pub(crate) const CC_WRITABLE: u32 = 0x00FF_FFF1;
/// Bits of Controller Configuration that may change only while the controller is disabled: CSS, MPS, AMS.
const CC_FIXED_WHILE_ENABLED: u32 = 0x0000_3FF0;

pub(crate) const CAP: u32 = 0x00;
pub(crate) const VS: u32 = 0x08;
pub(crate) const INTMS: u32 = 0x0C;
pub(crate) const INTMC: u32 = 0x10;
pub(crate) const CC: u32 = 0x14;
pub(crate) const CSTS: u32 = 0x1C;
pub(crate) const NSSR: u32 = 0x20;
pub(crate) const AQA: u32 = 0x24;
pub(crate) const ASQ: u32 = 0x28;
pub(crate) const ACQ: u32 = 0x30;
pub(crate) const CRTO: u32 = 0x68;

/// An access that no controller defines: not aligned to its width.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MisalignedAccess {
    /// Offset of the access.
    pub offset: Offset,
    /// Its width in bytes.
    pub width: u8,
}

impl core::error::Error for MisalignedAccess {}

impl core::fmt::Display for MisalignedAccess {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(
            f,
            "{}-byte access at offset {:#x} is not aligned; properties are accessed in aligned words",
            self.width,
            self.offset.bytes()
        )
    }
}

/// How far a shutdown is (CSTS.SHST).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Shutdown {
    #[default]
    None,
    /// In progress; the storage is flushed if it is a normal one.
    InProgress {
        flush: bool,
    },
    Complete,
}

/// The properties a host writes, and the status behind CSTS.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Registers {
    pub(crate) cc: u32,
    pub(crate) ready: bool,
    pub(crate) fatal: bool,
    pub(crate) shutdown: Shutdown,
    pub(crate) subsystem_reset_occurred: bool,
    pub(crate) aqa: u32,
    pub(crate) asq: u64,
    pub(crate) acq: u64,
    /// Interrupt mask: vectors 0 to 31.
    pub(crate) masked: u32,
}

impl Registers {
    pub(crate) const fn enabled(&self) -> bool {
        self.cc & 1 != 0
    }

    /// log2 of the page size in bytes.
    #[inline]
    pub(crate) const fn page_shift(&self) -> u8 {
        (((self.cc >> 7) & 0xF) as u8).wrapping_add(12)
    }

    pub(crate) const fn command_set(&self) -> u32 {
        (self.cc >> 4) & 7
    }

    pub(crate) const fn arbitration(&self) -> u32 {
        (self.cc >> 11) & 7
    }

    pub(crate) const fn shutdown_notification(&self) -> u32 {
        (self.cc >> 14) & 3
    }

    /// log2 of the I/O submission queue entry size.
    pub(crate) const fn submission_entry_shift(&self) -> u32 {
        (self.cc >> 16) & 0xF
    }

    /// log2 of the I/O completion queue entry size.
    pub(crate) const fn completion_entry_shift(&self) -> u32 {
        (self.cc >> 20) & 0xF
    }

    /// Entries of the admin submission queue.
    pub(crate) const fn admin_submission_entries(&self) -> u32 {
        (self.aqa & 0xFFF).wrapping_add(1)
    }

    /// Entries of the admin completion queue.
    pub(crate) const fn admin_completion_entries(&self) -> u32 {
        ((self.aqa >> 16) & 0xFFF).wrapping_add(1)
    }

    /// What a write of `value` makes of CC, apart from its effects.
    pub(crate) const fn configuration_after(&self, value: u32) -> u32 {
        let value = value & CC_WRITABLE;
        if self.enabled() && value & 1 != 0 {
            (value & !CC_FIXED_WHILE_ENABLED) | (self.cc & CC_FIXED_WHILE_ENABLED)
        } else {
            value
        }
    }

    /// Controller Status.
    pub(crate) const fn status(&self) -> u32 {
        let shutdown = match self.shutdown {
            Shutdown::None => 0,
            Shutdown::InProgress { .. } => 1,
            Shutdown::Complete => 2,
        };
        self.ready as u32
            | (self.fatal as u32) << 1
            | shutdown << 2
            | (self.subsystem_reset_occurred as u32) << 4
    }
}

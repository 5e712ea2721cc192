// SPDX-License-Identifier: MIT OR Apache-2.0
//! Properties of one controller and the state behind them. NVMe Base 2.1 §3.1.4, Controller Properties.

use nvme_core::register::Offset;
use nvme_core::wire::register::{
    AdminQueueAttributes, Arbitration, CommandSetSelection, ControllerConfiguration, ControllerStatus,
    ShutdownNotification, ShutdownStatus,
};

/// Bits of Controller Configuration the controller implements.
pub(crate) const CC_WRITABLE: u32 = 0x00FF_FFF1;
/// Bits of Controller Configuration that may change only while the controller is disabled: CSS, MPS, AMS.
const CC_FIXED_WHILE_ENABLED: u32 = 0x0000_3FF0;

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
    pub(crate) const fn configuration(&self) -> ControllerConfiguration {
        ControllerConfiguration::from_bits(self.cc)
    }

    pub(crate) const fn enabled(&self) -> bool {
        self.configuration().enabled()
    }

    /// log2 of the page size in bytes.
    #[inline]
    pub(crate) const fn page_shift(&self) -> u8 {
        self.configuration().page_size().trailing_zeros() as u8
    }

    /// Whether this controller works with the command sets and the arbitration chosen: the NVM command set or all
    /// supported ones, and round robin.
    pub(crate) fn supported(&self) -> bool {
        let configuration = self.configuration();
        matches!(configuration.command_sets(), CommandSetSelection::NVM | CommandSetSelection::ALL_SUPPORTED)
            && configuration.arbitration() == Arbitration::ROUND_ROBIN
    }

    pub(crate) const fn shutdown_notification(&self) -> ShutdownNotification {
        self.configuration().shutdown()
    }

    /// log2 of the I/O submission queue entry size.
    pub(crate) const fn submission_entry_shift(&self) -> u8 {
        self.configuration().submission_entry_exponent()
    }

    /// log2 of the I/O completion queue entry size.
    pub(crate) const fn completion_entry_shift(&self) -> u8 {
        self.configuration().completion_entry_exponent()
    }

    /// Entries of the admin submission queue.
    pub(crate) const fn admin_submission_entries(&self) -> u32 {
        AdminQueueAttributes::from_bits(self.aqa).submission_entries() as u32
    }

    /// Entries of the admin completion queue.
    pub(crate) const fn admin_completion_entries(&self) -> u32 {
        AdminQueueAttributes::from_bits(self.aqa).completion_entries() as u32
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
    pub(crate) const fn status(&self) -> ControllerStatus {
        let shutdown = match self.shutdown {
            Shutdown::None => ShutdownStatus::Normal,
            Shutdown::InProgress { .. } => ShutdownStatus::InProgress,
            Shutdown::Complete => ShutdownStatus::Complete,
        };
        ControllerStatus::from_bits(0)
            .with_ready(self.ready)
            .with_fatal(self.fatal)
            .with_shutdown(shutdown)
            .with_subsystem_reset_occurred(self.subsystem_reset_occurred)
    }
}

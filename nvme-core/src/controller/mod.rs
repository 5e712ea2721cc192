// SPDX-License-Identifier: MIT OR Apache-2.0
//! The life of a controller as its host drives it: disabled, enabled, shut down, failed, gone.
//! NVMe Base 2.1 §3.5, Controller Initialization; §3.6, Shutdown Processing; §3.7, Resets.
//!
//! What the host commands is in the types: [`attach`] gives a [`Disabling`], which ends as [`Disabled`];
//! [`Disabled::enable`] gives an [`Enabling`], which ends as [`Ready`]; [`Ready::shutdown`] and [`Ready::disable`] lead
//! back. What the device does on its own is a value: [`Health`]. A device that breaks a rule has a [`Fault`]; it is
//! told once, nothing the device says is believed afterwards, and the way back leads through [`Ready::disable`].
//!
//! Memory that a device may still reach comes back only with [`Quiesced`], which exists only while a controller is
//! known to be disabled.

mod disable;
mod enable;
mod fault;
mod ready;

pub use disable::{AttachError, Disabled, Disabling, Quiesced, attach};
pub use enable::{EnableError, EnableOptions, EnableRejected, Enabling};
pub use fault::{Fault, Health, Link};
pub use ready::{Ready, Shutdown, ShuttingDown};

use core::time::Duration;

use crate::register::{Offset, RegisterIo};
use crate::wire::register::{self, Capabilities, ControllerConfiguration, ControllerStatus};

/// How often a property is read while waiting for it to change.
pub(crate) const POLL_INTERVAL: Duration = Duration::from_millis(1);
/// How often the status of a controller in use is looked at.
pub(crate) const STATUS_INTERVAL: Duration = Duration::from_millis(100);
/// The shortest time-out taken from a property; some controllers report zero.
pub(crate) const SHORTEST_TIMEOUT: Duration = Duration::from_millis(500);

/// `Debug` for types of a controller's driver, whatever the host's register and arena types are.
macro_rules! debug_by_name {
    ($($name:ident),+) => {$(
        impl<R: ?Sized, A: crate::dma::DmaArena> core::fmt::Debug for $name<'_, '_, R, A> {
            fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
                f.debug_struct(stringify!($name)).finish_non_exhaustive()
            }
        }
    )+};
}
pub(crate) use debug_by_name;
debug_by_name!(Disabling, Disabled, EnableRejected, Enabling, Ready, ShuttingDown);

/// What every part of a controller's driver refers to.
pub(crate) struct Core<'d, R: ?Sized, A: ?Sized> {
    pub(crate) registers: &'d R,
    pub(crate) arena: &'d A,
    pub(crate) link: &'d Link,
    pub(crate) capabilities: Capabilities,
}

impl<R: ?Sized, A: ?Sized> Clone for Core<'_, R, A> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<R: ?Sized, A: ?Sized> Copy for Core<'_, R, A> {}

impl<R: RegisterIo + ?Sized, A: ?Sized> Core<'_, R, A> {
    fn read32(&self, offset: u32) -> Result<u32, Fault> {
        let offset = Offset::new(offset);
        self.registers.read32(offset).map_err(|_| Fault::RegisterAccess(offset))
    }

    fn write32(&self, offset: u32, value: u32) -> Result<(), Fault> {
        let offset = Offset::new(offset);
        self.registers.write32(offset, value).map_err(|_| Fault::RegisterAccess(offset))
    }

    fn write64(&self, offset: u32, value: u64) -> Result<(), Fault> {
        let offset = Offset::new(offset);
        self.registers.write64(offset, value).map_err(|_| Fault::RegisterAccess(offset))
    }

    /// Reads CSTS; all ones means that the device is gone, before any bit of it means anything.
    fn status(&self) -> Result<ControllerStatus, Fault> {
        let status = ControllerStatus::from_bits(self.read32(register::CSTS)?);
        if status.is_removed() { Err(Fault::Removed) } else { Ok(status) }
    }

    fn configuration(&self) -> Result<ControllerConfiguration, Fault> {
        self.read32(register::CC).map(ControllerConfiguration::from_bits)
    }

    fn configure(&self, configuration: ControllerConfiguration) -> Result<(), Fault> {
        self.write32(register::CC, configuration.bits())
    }
}

#[cfg(test)]
mod tests;

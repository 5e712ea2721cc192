// SPDX-License-Identifier: MIT OR Apache-2.0
//! The registers of a controller, whichever way they are reached.

use std::sync::Arc;

use nvme_core::register::{Offset, RegisterIo};

use super::AbsentController;
use crate::embedded::EmbeddedController;
use crate::endpoint::{AccessError, BusMaster};
use crate::vfio::VfioController;
use crate::vfio_user::RemoteController;

/// The registers of a controller. Copies reach the same controller.
#[derive(Clone, Debug)]
pub enum Registers {
    /// Of a subsystem in this process.
    Embedded(EmbeddedController),
    /// A PCI function.
    Vfio(Arc<VfioController>),
    /// Behind a socket.
    VfioUser(Arc<RemoteController>),
    /// Of somebody else, out of reach.
    Absent(AbsentController),
}

impl RegisterIo for Registers {
    type Error = AccessError;

    fn read32(&self, offset: Offset) -> Result<u32, AccessError> {
        match self {
            Self::Embedded(controller) => controller.read32(offset),
            Self::Vfio(controller) => controller.read32(offset).map_err(AccessError::Function),
            Self::VfioUser(controller) => controller.read32(offset).map_err(AccessError::Server),
            Self::Absent(controller) => controller.read(offset),
        }
    }

    #[inline]
    fn write32(&self, offset: Offset, value: u32) -> Result<(), AccessError> {
        match self {
            Self::Embedded(controller) => controller.write32(offset, value),
            Self::Vfio(controller) => controller.write32(offset, value).map_err(AccessError::Function),
            Self::VfioUser(controller) => controller.write32(offset, value).map_err(AccessError::Server),
            Self::Absent(controller) => controller.write(offset, value),
        }
    }

    fn read64(&self, offset: Offset) -> Result<u64, AccessError> {
        match self {
            // Its server takes the whole register in one message.
            Self::VfioUser(controller) => controller.read64(offset).map_err(AccessError::Server),
            _ => {
                let low = self.read32(offset)?;
                let high = self.read32(Offset::new(offset.bytes().saturating_add(4)))?;
                Ok(u64::from(high) << 32 | u64::from(low))
            }
        }
    }

    fn write64(&self, offset: Offset, value: u64) -> Result<(), AccessError> {
        match self {
            Self::VfioUser(controller) => controller.write64(offset, value).map_err(AccessError::Server),
            _ => {
                self.write32(offset, value as u32)?;
                self.write32(Offset::new(offset.bytes().saturating_add(4)), (value >> 32) as u32)
            }
        }
    }
}

impl BusMaster for Registers {
    fn set_bus_master(&self, enabled: bool) -> Result<(), AccessError> {
        match self {
            Self::Embedded(controller) => controller.set_bus_master(enabled),
            Self::Vfio(controller) => {
                controller.set_bus_master(enabled).map_err(|_| AccessError::Configuration)
            }
            Self::VfioUser(controller) => match controller.set_bus_master(enabled) {
                // What it had mapped has gone with it.
                Err(_) if !enabled && controller.is_closed() => Ok(()),
                result => result.map_err(AccessError::Server),
            },
            // Whoever owns it does that.
            Self::Absent(_) => Ok(()),
        }
    }
}

impl Registers {
    /// Resets the function (Function Level Reset, or what takes its place); without effect on an embedded controller, which
    /// has none.
    ///
    /// # Errors
    /// It has no such reset, or refuses.
    pub fn reset_function(&self) -> Result<(), super::OpenError> {
        match self {
            Self::Embedded(_) | Self::Absent(_) => Err(super::OpenError::NoFunctionReset),
            Self::Vfio(controller) => controller.reset().map_err(super::OpenError::Vfio),
            Self::VfioUser(controller) => controller.reset().map_err(super::OpenError::VfioUser),
        }
    }
}

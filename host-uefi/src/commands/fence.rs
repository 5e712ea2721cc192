// SPDX-License-Identifier: MIT OR Apache-2.0
//! A controller that somebody else drives, kept from memory and from running.

use nvme_core::wire::register::CC;

use crate::registers::REGISTER_BAR;
use crate::sys::{PciIo, PciStatus, attributes};
use crate::takeover::is_disabled;

/// A controller's access to memory, which can be taken away, and its end.
pub trait Fence {
    /// Takes bus mastering away, or gives it back.
    ///
    /// # Errors
    /// The status of the firmware.
    fn let_through(&self, on: bool) -> Result<(), PciStatus>;

    /// Whether it has bus mastering.
    ///
    /// # Errors
    /// The status of the firmware; [`PciStatus::ACCESS_DENIED`] if the controller is none that may be fenced.
    fn is_through(&self) -> Result<bool, PciStatus>;

    /// Begins to disable the controller: CC becomes 0. Its memory space is enabled from then on.
    ///
    /// # Errors
    /// The status of the firmware.
    fn disable(&self) -> Result<(), PciStatus>;

    /// Whether the controller is seen to be disabled: CC.EN and CSTS.RDY are 0.
    ///
    /// # Errors
    /// The status of the firmware.
    fn is_disabled(&self) -> Result<bool, PciStatus>;

    /// Segment, bus, device and function.
    ///
    /// # Errors
    /// The status of the firmware.
    fn location(&self) -> Result<[usize; 4], PciStatus>;
}

/// A function that somebody else drives; none for that of a managing controller, which is needed.
#[derive(Clone, Copy, Debug)]
pub struct BusMaster<'p>(pub Option<&'p PciIo>);

impl BusMaster<'_> {
    fn io(&self) -> Result<&PciIo, PciStatus> {
        self.0.ok_or(PciStatus::ACCESS_DENIED)
    }
}

impl Fence for BusMaster<'_> {
    fn let_through(&self, on: bool) -> Result<(), PciStatus> {
        match on {
            true => self.io()?.enable_attributes(attributes::BUS_MASTER),
            false => self.io()?.disable_attributes(attributes::BUS_MASTER),
        }
    }

    fn is_through(&self) -> Result<bool, PciStatus> {
        Ok(self.io()?.attributes()? & attributes::BUS_MASTER != 0)
    }

    fn disable(&self) -> Result<(), PciStatus> {
        // Where they are not accessible the controller is not seen to be disabled.
        let _ = self.io()?.enable_attributes(attributes::MEMORY);
        self.io()?.write_mem32(REGISTER_BAR, u64::from(CC), 0)
    }

    fn is_disabled(&self) -> Result<bool, PciStatus> {
        is_disabled(self.io()?)
    }

    fn location(&self) -> Result<[usize; 4], PciStatus> {
        self.io()?.location()
    }
}

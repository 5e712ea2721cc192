// SPDX-License-Identifier: MIT OR Apache-2.0
//! A controller that somebody else drives, kept from memory and from running.

use nvme_core::wire::register::CC;

use crate::registers::REGISTER_BAR;
use crate::sys::{PciIo, PciStatus, attributes};
use crate::takeover::Seen;

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

    /// Enables its memory space, without which its registers read all ones and are not written.
    ///
    /// # Errors
    /// The status of the firmware.
    fn open_registers(&self) -> Result<(), PciStatus>;

    /// Begins to disable the controller: CC becomes 0.
    ///
    /// # Errors
    /// The status of the firmware.
    fn disable(&self) -> Result<(), PciStatus>;

    /// What its registers show. Nothing is changed.
    ///
    /// # Errors
    /// The status of the firmware.
    fn look(&self) -> Result<Seen, PciStatus>;

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

    fn open_registers(&self) -> Result<(), PciStatus> {
        self.io()?.enable_attributes(attributes::MEMORY)
    }

    fn disable(&self) -> Result<(), PciStatus> {
        self.io()?.write_mem32(REGISTER_BAR, u64::from(CC), 0)
    }

    fn look(&self) -> Result<Seen, PciStatus> {
        Seen::look(self.io()?)
    }

    fn location(&self) -> Result<[usize; 4], PciStatus> {
        self.io()?.location()
    }
}

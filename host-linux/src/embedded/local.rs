// SPDX-License-Identifier: MIT OR Apache-2.0
//! A subsystem without a thread: whoever owns it polls it, and its registers are plain calls.

use std::cell::{Cell, RefCell};
use std::fmt;

use nvme_controller::host::{BlockStorage, HostMemory, Interrupts, MemoryFault};
use nvme_controller::{Port, Subsystem};
use nvme_core::register::{Offset, RegisterIo};
use nvme_core::wire::BusAddr;

use crate::endpoint::AccessError;
use crate::memory::AddressSpace;

/// An address space as one controller reaches it: its bus mastering can be taken away, as a host does with the Bus
/// Master Enable bit of a function. Every access fails then.
#[derive(Debug)]
pub struct DeviceMemory<'m> {
    space: &'m AddressSpace,
    bus_master: Cell<bool>,
}

impl<'m> DeviceMemory<'m> {
    /// The controller reaches all of `space`.
    #[must_use]
    pub const fn new(space: &'m AddressSpace) -> Self {
        Self { space, bus_master: Cell::new(true) }
    }

    /// Gives the controller its access to memory, or takes it away.
    pub fn set_bus_master(&self, enabled: bool) {
        self.bus_master.set(enabled);
    }

    /// Whether the controller reaches memory.
    #[must_use]
    pub const fn is_bus_master(&self) -> bool {
        self.bus_master.get()
    }

    fn check(&self, address: BusAddr, len: usize) -> Result<(), MemoryFault> {
        if self.bus_master.get() { Ok(()) } else { Err(MemoryFault { address, len }) }
    }
}

impl HostMemory for DeviceMemory<'_> {
    fn read(&self, address: BusAddr, bytes: &mut [u8]) -> Result<(), MemoryFault> {
        self.check(address, bytes.len())?;
        HostMemory::read(self.space, address, bytes)
    }

    fn write(&self, address: BusAddr, bytes: &[u8]) -> Result<(), MemoryFault> {
        self.check(address, bytes.len())?;
        HostMemory::write(self.space, address, bytes)
    }

    fn write_entry(&self, address: BusAddr, entry: &[u8]) -> Result<(), MemoryFault> {
        self.check(address, entry.len())?;
        self.space.write_entry(address, entry)
    }

    fn is_host_memory(&self, address: BusAddr, len: u64) -> bool {
        // What an address is does not depend on who may reach it now.
        self.space.is_host_memory(address, len)
    }
}

/// A subsystem over address spaces of this process, to be polled by its owner.
pub type LocalSubsystem<'s, S, I> = Subsystem<'s, &'s DeviceMemory<'s>, S, I>;

/// The registers of one controller of a [`LocalSubsystem`]. Copies reach the same controller.
pub struct LocalController<'a, 's, S, I> {
    subsystem: &'a RefCell<LocalSubsystem<'s, S, I>>,
    port: Port,
}

impl<'a, 's, S, I> LocalController<'a, 's, S, I> {
    /// The controller at `port`. Accesses fail while the subsystem is borrowed by somebody else.
    #[must_use]
    pub const fn new(subsystem: &'a RefCell<LocalSubsystem<'s, S, I>>, port: Port) -> Self {
        Self { subsystem, port }
    }
}

impl<S, I> Clone for LocalController<'_, '_, S, I> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<S, I> Copy for LocalController<'_, '_, S, I> {}

impl<S, I> fmt::Debug for LocalController<'_, '_, S, I> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LocalController").field("port", &self.port).finish_non_exhaustive()
    }
}

impl<S: BlockStorage, I: Interrupts> RegisterIo for LocalController<'_, '_, S, I> {
    type Error = AccessError;

    fn read32(&self, offset: Offset) -> Result<u32, AccessError> {
        let subsystem = self.subsystem.try_borrow().map_err(|_| AccessError::Stopped)?;
        subsystem.read32(self.port, offset).map_err(|_| AccessError::Outside(offset.bytes()))
    }

    fn write32(&self, offset: Offset, value: u32) -> Result<(), AccessError> {
        let mut subsystem = self.subsystem.try_borrow_mut().map_err(|_| AccessError::Stopped)?;
        subsystem.write32(self.port, offset, value).map_err(|_| AccessError::Outside(offset.bytes()))
    }
}

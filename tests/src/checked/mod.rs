// SPDX-License-Identifier: MIT OR Apache-2.0
//! Devices of this thread whose every access to memory goes past a checking arena.

pub mod local;
mod sys;

use nvme_controller::host::{HostMemory, MemoryFault};
use nvme_core::dma::checking::{Access, CheckingArena, Violation};
use nvme_core::wire::BusAddr;
use nvme_host_linux::memory::AddressSpace;

pub use sys::{Simulated, attach};

/// An address space whose memory is checked.
pub type CheckedSpace<'s> = CheckingArena<'s, AddressSpace>;

/// The memory of a checked address space as a controller reaches it. Accesses that break a rule are refused.
#[derive(Clone, Copy, Debug)]
pub struct CheckedMemory<'a, 's>(pub &'a CheckedSpace<'s>);

impl CheckedMemory<'_, '_> {
    fn check(&self, address: BusAddr, len: usize, access: Access) -> Result<(), MemoryFault> {
        self.0.device_access(address, len, access).map_err(|_| MemoryFault { address, len })
    }
}

impl HostMemory for CheckedMemory<'_, '_> {
    fn read(&self, address: BusAddr, bytes: &mut [u8]) -> Result<(), MemoryFault> {
        self.check(address, bytes.len(), Access::Read)?;
        self.0.inner().read(address, bytes)
    }

    fn write(&self, address: BusAddr, bytes: &[u8]) -> Result<(), MemoryFault> {
        self.check(address, bytes.len(), Access::Write)?;
        self.0.inner().write(address, bytes)
    }

    fn write_entry(&self, address: BusAddr, entry: &[u8]) -> Result<(), MemoryFault> {
        self.check(address, entry.len(), Access::Write)?;
        self.0.inner().write_entry(address, entry)
    }

    fn is_host_memory(&self, address: BusAddr, len: u64) -> bool {
        self.0.inner().is_host_memory(address, len)
    }
}

/// The first violations that `arena` found, after looking at everything.
#[must_use]
pub fn violations(arena: &CheckedSpace<'_>) -> Vec<Violation> {
    let count = arena.inspect();
    let kept: Vec<Violation> = (0..count).map_while(|n| arena.violation(n)).collect();
    assert_eq!(kept.is_empty(), count == 0, "{count} violations and none was kept: lend room for them");
    kept
}

// SPDX-License-Identifier: MIT OR Apache-2.0
//! The memory one controller reaches, from the host's side.

use std::rc::Rc;

use crate::conformance::backend::BusMemory;

const PAGE: u64 = 4096;

/// A bus address space. Clones are the same space.
#[derive(Clone)]
pub(crate) struct Memory(pub(crate) Rc<dyn BusMemory>);

impl Memory {
    /// Zeroed memory of `len` bytes at a multiple of `align`, with unmapped addresses behind it.
    pub(crate) fn allocate_aligned(&self, len: u64, align: u64) -> u64 {
        self.0.allocate(len, align)
    }

    /// Zeroed memory of `len` bytes at a page boundary.
    pub(crate) fn allocate(&self, len: u64) -> u64 {
        self.0.allocate(len, PAGE)
    }

    /// A page-aligned address that the controller cannot reach.
    pub(crate) fn unmapped(&self) -> u64 {
        self.0.unmapped()
    }

    pub(crate) fn bytes(&self, address: u64, len: usize) -> Vec<u8> {
        let mut bytes = vec![0; len];
        self.0.read(address, &mut bytes);
        bytes
    }

    pub(crate) fn fill(&self, address: u64, bytes: &[u8]) {
        self.0.write(address, bytes);
    }

    pub(crate) fn word(&self, address: u64) -> u32 {
        u32::from_le_bytes(self.bytes(address, 4).try_into().unwrap())
    }

    pub(crate) fn fill_addresses(&self, address: u64, entries: &[u64]) {
        let bytes: Vec<u8> = entries.iter().flat_map(|entry| entry.to_le_bytes()).collect();
        self.fill(address, &bytes);
    }
}

// SPDX-License-Identifier: MIT OR Apache-2.0
//! Interrupts that vfio-pci hands to user space, as the kernel counts them.

use std::collections::BTreeMap;
use std::fs;

use nvme_host_linux::address::PciAddress;

use super::{Failure, doing};

/// How often each vector of a function was raised since a program enabled it.
#[derive(Debug)]
pub(crate) struct Interrupts(BTreeMap<u16, u64>);

impl Interrupts {
    /// Reads the counters.
    pub(crate) fn read(function: PciAddress) -> Result<Self, Failure> {
        let text = doing("reading interrupts", fs::read_to_string("/proc/interrupts"))?;
        Ok(Self::parse(&text, &function.to_string()))
    }

    /// ` 27:   12   PCI-MSI 81921-edge   vfio-msix[1](0000:00:04.0)`, with a counter for each processor.
    fn parse(text: &str, function: &str) -> Self {
        let vector = |line: &str| {
            let name = line.split_whitespace().last()?.strip_prefix("vfio-msix[")?;
            let (vector, rest) = name.split_once(']')?;
            let count = line.split_whitespace().skip(1).map_while(|word| word.parse::<u64>().ok()).sum();
            (rest == format!("({function})")).then_some((vector.parse().ok()?, count))
        };
        Self(text.lines().filter_map(vector).collect())
    }

    /// Vectors that are enabled.
    pub(crate) fn vectors(&self) -> usize {
        self.0.len()
    }

    /// Whether each of these vectors was raised.
    pub(crate) fn came_by(&self, vectors: &[u16]) -> Result<bool, Failure> {
        Ok(vectors.iter().all(|vector| self.0.get(vector).is_some_and(|count| *count > 0)))
    }
}

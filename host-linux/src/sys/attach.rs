// SPDX-License-Identifier: MIT OR Apache-2.0
//! Taking over controllers that reach memory through address spaces alone.

use nvme_core::controller::{AttachError, Disabling, Link, attach};

use crate::backend::Confined;
use crate::memory::AddressSpace;

/// Takes over a controller that reaches memory through address spaces alone.
pub(crate) fn attach_confined<'d, 's, R: Confined>(
    registers: &'d R,
    arena: &'d AddressSpace,
    link: &'d Link,
) -> Result<Disabling<'d, 's, R, AddressSpace>, AttachError> {
    // SAFETY: the controller reaches memory of this process only through address spaces (guaranteed by each type that is
    // `Confined`, which nothing outside this crate can be):
    // - an embedded one by the bus addresses that its address space maps, by checked copies (`AddressSpace`);
    // - one behind a socket through descriptors that its server was sent, which are those of address spaces
    //   (`RemoteController`);
    // - a PCI function through the IOMMU, which has nothing for it but the address spaces mapped into its container
    //   (`Container`, which maps nothing else), whose pages the kernel holds for as long as they are mapped.
    // Such memory is reached by copies through atomics alone and is never lent to anything else, so a controller that
    // writes at any time and anywhere in it cannot break memory safety, also if it is driven twice or memory is
    // released early.
    unsafe { attach(registers, arena, link) }
}

// SPDX-License-Identifier: MIT OR Apache-2.0
//! Taking over controllers that reach memory through address spaces alone.

use nvme_core::controller::{AttachError, Disabling, Link, attach};
use nvme_core::register::RegisterIo;

use crate::endpoint::AccessError;
use crate::memory::AddressSpace;
use crate::vfio::VfioController;
use crate::vfio_user::RemoteController;

/// Takes over a controller of an embedded subsystem, directly or through an endpoint.
pub(crate) fn attach_embedded<'d, 's, R: RegisterIo<Error = AccessError>>(
    registers: &'d R,
    arena: &'d AddressSpace,
    link: &'d Link,
) -> Result<Disabling<'d, 's, R, AddressSpace>, AttachError> {
    // SAFETY: an embedded controller reaches memory only through the bus addresses that its address space maps, by
    // checked atomic copies (guaranteed by `AddressSpace`), so whatever it is told or does it cannot break memory
    // safety, also if it is driven twice or memory is released early: the access then faults or lands in memory that
    // is only ever reached through atomics.
    unsafe { attach(registers, arena, link) }
}

/// Takes over a controller behind a vfio-user socket.
pub(crate) fn attach_remote<'d, 's>(
    registers: &'d RemoteController,
    arena: &'d AddressSpace,
    link: &'d Link,
) -> Result<Disabling<'d, 's, RemoteController, AddressSpace>, AttachError> {
    // SAFETY: the server reaches memory of this process only through descriptors that it was sent, which are those of
    // address spaces (guaranteed by `RemoteController`). Such memory is reached by copies through atomics alone and is never
    // lent to anything else, so a server that writes at any time and anywhere in it cannot break memory safety, also if
    // the controller is driven twice or memory is released early.
    unsafe { attach(registers, arena, link) }
}

/// Takes over a PCI function.
pub(crate) fn attach_function<'d, 's>(
    registers: &'d VfioController,
    arena: &'d AddressSpace,
    link: &'d Link,
) -> Result<Disabling<'d, 's, VfioController, AddressSpace>, AttachError> {
    // SAFETY: the function reaches memory only through the IOMMU, which has nothing for it but what was mapped into its
    // container: address spaces (guaranteed by `Container`, which maps nothing else). Their memory is reached by copies
    // through atomics alone and is never lent to anything else, and the kernel holds its pages for as long as they are
    // mapped, so a function that writes at any time and anywhere in it cannot break memory safety, also if it is driven
    // twice or memory is released early.
    unsafe { attach(registers, arena, link) }
}

// SPDX-License-Identifier: MIT OR Apache-2.0
//! Taking over controllers that live in this process.

use nvme_core::controller::{AttachError, Disabling, Link, attach};
use nvme_core::register::RegisterIo;

use crate::endpoint::AccessError;
use crate::memory::AddressSpace;

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

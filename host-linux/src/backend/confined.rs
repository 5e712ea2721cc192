// SPDX-License-Identifier: MIT OR Apache-2.0
//! Which controllers can be driven without any promise by the caller.

use nvme_controller::host::{BlockStorage, Interrupts};
use nvme_core::controller::{AttachError, Disabling, Link};
use nvme_core::register::RegisterIo;

use super::Registers;
use crate::embedded::{EmbeddedController, LocalController};
use crate::endpoint::{AccessError, Endpoint};
use crate::memory::AddressSpace;
use crate::sys::attach_confined;
use crate::vfio::VfioController;
use crate::vfio_user::RemoteController;

mod sealed {
    pub trait Sealed {}
}

/// Controllers that reach memory of this process only through an [`AddressSpace`], whatever they do: by checked copies, by
/// descriptors of address spaces, or through an IOMMU that has nothing else for them.
pub trait Confined: RegisterIo + sealed::Sealed {}

impl sealed::Sealed for EmbeddedController {}
impl Confined for EmbeddedController {}
impl<S, I> sealed::Sealed for LocalController<'_, '_, S, I> {}
impl<S: BlockStorage, I: Interrupts> Confined for LocalController<'_, '_, S, I> {}
impl sealed::Sealed for RemoteController {}
impl Confined for RemoteController {}
impl sealed::Sealed for VfioController {}
impl Confined for VfioController {}
impl sealed::Sealed for Registers {}
impl Confined for Registers {}
impl<R: sealed::Sealed> sealed::Sealed for Endpoint<R> {}
impl<R: Confined + RegisterIo<Error = AccessError>> Confined for Endpoint<R> {}

/// Takes a controller over in whatever state it is, and begins to disable it; see [`nvme_core::controller::attach`].
/// `arena` has to be one that the controller reaches for it to work. Nothing that the controller does can break memory
/// safety, because the memory it reaches is used by copies alone.
///
/// # Errors
/// [`AttachError`]; nothing was written to the controller then.
pub fn attach<'d, 's, R: Confined>(
    registers: &'d R,
    arena: &'d AddressSpace,
    link: &'d Link,
) -> Result<Disabling<'d, 's, R, AddressSpace>, AttachError> {
    attach_confined(registers, arena, link)
}

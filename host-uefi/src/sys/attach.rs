// SPDX-License-Identifier: MIT OR Apache-2.0
//! Attaching controllers that were taken over, and mapping their registers.

use core::ptr::{self, NonNull};

use nvme_core::controller::{Disabling, Link, attach};
use nvme_core::dma::DmaArena;
use nvme_core::mmio::MmioBar;
use nvme_core::register::RegisterIo;
use nvme_core::wire::register::DOORBELLS;

use super::pci_io::{BarRange, PciIo};
use crate::arena::PciArena;
use crate::registers::{MappedRegisters, PciRegisters};
use crate::session::{Session, Storage};
use crate::takeover::{Takeover, TakeoverError};
use crate::time::Wait;

mod sealed {
    /// Only this crate knows which types keep their function.
    pub trait Sealed {}
}

/// Registers that are known to be those of one function.
pub trait OfFunction: RegisterIo + sealed::Sealed {
    /// The function.
    fn function(&self) -> &PciIo;
}

impl sealed::Sealed for PciRegisters<'_> {}
impl OfFunction for PciRegisters<'_> {
    fn function(&self) -> &PciIo {
        self.io()
    }
}

impl sealed::Sealed for MappedRegisters<'_> {}
impl OfFunction for MappedRegisters<'_> {
    fn function(&self) -> &PciIo {
        self.io()
    }
}

/// Memory that is known to serve one function.
pub trait ForFunction: DmaArena + sealed::Sealed {
    /// The function.
    fn function(&self) -> &PciIo;
}

impl sealed::Sealed for PciArena<'_, '_> {}
impl ForFunction for PciArena<'_, '_> {
    fn function(&self) -> &PciIo {
        self.io()
    }
}

#[cfg(feature = "checking")]
impl sealed::Sealed for nvme_core::dma::checking::CheckingArena<'_, PciArena<'_, '_>> {}
#[cfg(feature = "checking")]
impl ForFunction for nvme_core::dma::checking::CheckingArena<'_, PciArena<'_, '_>> {
    fn function(&self) -> &PciIo {
        self.inner().io()
    }
}

impl Takeover {
    /// Begins to disable the controller, in whatever state it is, to be driven with these registers and memory by the
    /// machines of the core. Once for each take-over. [`session`](Self::session) does it without a promise.
    ///
    /// # Errors
    /// [`TakeoverError::Mismatch`], [`TakeoverError::Attach`].
    ///
    /// # Safety
    /// A command moves no more data than its buffer holds, and memory whose address is given to the controller by other
    /// means than a region that the core keeps is not released before the controller has let go of it: the last two points
    /// of [`attach`]. The others are kept here.
    pub unsafe fn attach<'d, 's, R: OfFunction, A: ForFunction>(
        &'d self,
        registers: &'d R,
        arena: &'d A,
        link: &'d Link,
    ) -> Result<Disabling<'d, 's, R, A>, TakeoverError> {
        let function = self.io();
        let same = ptr::eq(function, registers.function()) && ptr::eq(function, arena.function());
        if !same || self.is_attached() {
            return Err(TakeoverError::Mismatch);
        }
        // SAFETY:
        // - The registers are those of the function (checked above; only types of this crate that keep their function are
        //   of this kind). It is held exclusively for as long as the driver's values live (borrow of `self`), so no
        //   driver of the firmware has it, and it is attached once.
        // - The arena serves this function and no other (checked above).
        // - Firmware has one thread.
        // - Memory of the arena is given back to the firmware only by a release that the core has proof for, and not at
        //   all when the arena is dropped; the end of the take-over ends bus mastering if the controller is left enabled.
        // - The rest is promised by the caller.
        let disabling = unsafe { attach(registers, arena, link) }.map_err(TakeoverError::Attach)?;
        // A refused one has written nothing: the controller is still as its driver left it.
        self.set_attached();
        Ok(disabling)
    }

    /// Brings the controller up, in whatever state it is, and identifies it. Once for each take-over.
    ///
    /// # Errors
    /// [`TakeoverError::Mismatch`], [`TakeoverError::Attach`], [`TakeoverError::Session`].
    pub fn session<'d, 's, R: OfFunction, A: ForFunction, W: Wait + ?Sized>(
        &'d self,
        registers: &'d R,
        arena: &'d A,
        link: &'d Link,
        storage: &'s mut Storage,
        time: &'d W,
    ) -> Result<Session<'d, 's, R, A, W>, TakeoverError> {
        // SAFETY: a session sends commands of its own only, whose data are as long as their buffers (`Session` has no way
        // to send another one; a namespace with metadata is refused), and those of the core's machines, which keep the
        // memory that they name.
        let disabling = unsafe { self.attach(registers, arena, link) }?;
        Session::open(disabling, arena, storage, time).map_err(TakeoverError::Session)
    }
}

/// The registers of the function behind `io`, as its bus driver has mapped them.
pub(crate) fn map_registers(io: &PciIo, range: BarRange) -> Option<MappedRegisters<'_>> {
    let base = NonNull::new(ptr::with_exposed_provenance_mut::<u8>(range.start))?;
    // All registers in front of the doorbells are there in every controller.
    if !range.start.is_multiple_of(4) || range.len <= DOORBELLS as usize {
        return None;
    }
    // SAFETY: the bus driver has given these addresses to BAR 0 of this function, the register space of one controller
    // (`Takeover` has looked at the class), and the firmware maps memory BARs uncached at their own addresses. No reference
    // covers them. The mapping lasts as long as the function, which is borrowed.
    let bar = unsafe { MmioBar::new(base, range.len) };
    Some(MappedRegisters::new(bar, io))
}

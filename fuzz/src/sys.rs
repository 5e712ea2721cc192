// SPDX-License-Identifier: MIT OR Apache-2.0
//! What the scripted device, and a target that is over, promise about memory.
#![allow(unsafe_code, reason = "what a driver has to promise about the device is promised here")]

use nvme_host_linux::memory::{AddressSpace, Capacity};
use nvme_tests::checked::Simulated;

use crate::driver::Device;

// SAFETY: the device is safe code that reaches memory by the copies of `AddressSpace` and no other way.
unsafe impl Simulated for Device<'_, '_, '_> {}

/// Lends a space of memory to a target, and gives back what the target keeps of it at its end.
///
/// # Panics
/// The system has no memory left.
pub(crate) fn with_space<T: 'static>(
    name: &str,
    capacity: Capacity,
    target: impl FnOnce(&AddressSpace) -> T,
) -> T {
    let space = AddressSpace::new(name, capacity).expect("memory");
    let answer = target(&space);
    // SAFETY: regions are known to the driver and the device that the target has made, which are of this thread and cannot
    // outlive the borrow of the space; nor is there one in the answer, which is made of numbers (guaranteed by the
    // targets).
    unsafe { space.release_all() };
    answer
}

// SPDX-License-Identifier: MIT OR Apache-2.0
//! What the scripted device promises about memory.
#![allow(unsafe_code, reason = "what a driver has to promise about the device is promised here")]

use nvme_tests::checked::Simulated;

use crate::driver::Device;

// SAFETY: the device is safe code that reaches memory by the copies of `AddressSpace` and no other way.
unsafe impl Simulated for Device<'_, '_, '_> {}

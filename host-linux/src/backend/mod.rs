// SPDX-License-Identifier: MIT OR Apache-2.0
//! Controllers behind addresses of any kind, opened together: registers of one type, memory that each of them reaches, and
//! something to sleep on.
//!
//! ```
//! use nvme_host_linux::backend::{Devices, Memory, OpenOptions, Request};
//! use nvme_host_linux::memory::Capacity;
//! use nvme_core::register::{Offset, RegisterIo};
//!
//! let capacity = Capacity { queues: 1 << 20, data: 1 << 20, controller_data: 1 << 20 };
//! let request = Request { address: "embedded:demo/1".parse()?, memory: Memory::Own(capacity), managing: true, queues: 1 };
//! let devices = Devices::open(&[request], &OpenOptions::default())?;
//! let version = devices.all()[0].registers().read32(Offset::new(8))?;
//! assert_eq!(version, 0x0002_0100, "NVMe 2.1");
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! All PCI functions that are opened together are in one container, and all memory is mapped into it: a managing controller may
//! write to a Controller Data Queue by the function whose changes it logs, so both have to see the same addresses.

mod absent;
mod confined;
mod device;
mod embedded;
mod error;
mod register_file;
mod registers;
mod wake;

pub use absent::{AbsentController, Properties, PropertiesError};
pub use confined::{Confined, attach};
pub use device::{Device, Devices, InterruptMode, Memory, OpenOptions, Request};
pub(crate) use device::{is_same_controller, vector};
pub use embedded::EmbeddedOptions;
pub use error::OpenError;
pub use register_file::{RegisterFile, RegisterFileError};
pub use registers::Registers;
pub(crate) use wake::Sleep;
pub use wake::{Pump, Wake};

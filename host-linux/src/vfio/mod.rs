// SPDX-License-Identifier: MIT OR Apache-2.0
//! PCI functions bound to vfio-pci (Linux, `Documentation/driver-api/vfio.rst`), behind an IOMMU that is used by iommufd
//! or by containers and groups (type 1).
//!
//! A [`Container`] is one bus address space behind the IOMMU. Functions are [opened](Container::open) into it, several if
//! they are to see the same addresses, and memory is [mapped](Container::create) into it: each pool of an
//! [`AddressSpace`](crate::memory::AddressSpace) by itself, at addresses the IOMMU has.
//!
//! ```no_run
//! use nvme_core::controller::Link;
//! use nvme_host_linux::memory::Capacity;
//! use nvme_host_linux::backend::attach;
//! use nvme_host_linux::vfio::{Container, OpenOptions};
//!
//! let container = Container::new()?;
//! let registers = container.open("0000:01:00.0".parse()?, &OpenOptions::default())?;
//! let capacity = Capacity { queues: 4 << 20, data: 16 << 20, controller_data: 1 << 20 };
//! let memory = container.create("nvme", capacity)?;
//! let vectors = registers.enable_interrupts(5)?;
//! let link = Link::new();
//! let disabling = attach(&registers, memory.space(), &link)?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! | | By | Checked |
//! |---|---|---|
//! | function, driver, group | sysfs ([`Sysfs`]) | bound to a VFIO driver, other functions of the group |
//! | memory, [`IommuBackend::Type1`] | `VFIO_IOMMU_MAP_DMA` | address ranges, page sizes, number of mappings, memory lock |
//! | memory, [`IommuBackend::Iommufd`] | `IOMMU_IOAS_MAP` | address ranges, alignment, memory lock |
//! | registers | BAR0, mapped as far as it can be | class, length |
//! | interrupts | one eventfd for each vector of MSI-X | number of vectors |
//! | reset | `VFIO_DEVICE_RESET` | whether the function has one |

pub mod bind;
mod container;
mod controller;
mod error;
pub mod info;
mod iommufd;
mod registers;
pub mod sysfs;
mod type1;

pub use container::{Container, IommuBackend, IommuBackendError, MappedSpace};
pub use controller::{OpenOptions, VfToken, VfTokenError, VfioController};
pub use error::Error;
pub use sysfs::{Sysfs, VirtualFunction};

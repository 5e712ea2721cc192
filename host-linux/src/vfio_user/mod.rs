// SPDX-License-Identifier: MIT OR Apache-2.0
//! Controllers behind a UNIX socket: the vfio-user protocol, both sides (QEMU, `docs/interop/vfio-user.rst`).
//!
//! [`RemoteController`] drives a controller of another process, [`server`] gives a controller of this process to
//! another one. Neither side trusts the other: sizes are checked before memory is taken, replies against their
//! commands, and no wait for a message is without a limit.
//!
//! | | By | Checked |
//! |---|---|---|
//! | registers | messages of 4 or 8 bytes | offset, region, count and length of each reply |
//! | doorbells | memory shared with the server where it offers that, else messages | area inside its region, file long enough |
//! | memory | descriptors of [`AddressSpace`](crate::memory::AddressSpace)s | rights, overlaps, length and seals of the file |
//! | interrupts | one eventfd for each vector of MSI-X | number of vectors, kind of descriptor |
//! | reset | a message | |
//!
//! What remains is in the descriptors themselves, which both sides share with their senders. To close one can take as long
//! as its owner wants (a socket that lingers, a file of a file system in user space), and an eventfd that its owner fills
//! in the moment between the look for room and the write makes the writer wait. So a socket is for those whom its
//! permissions let in, and a server that must not be held up by one client has a process for each.
//!
//! Memory without a descriptor can be announced to the server but not be reached: it sends no DMA_READ and no
//! DMA_WRITE, and the client refuses them.

mod capabilities;
mod connection;
mod error;
mod region;
mod remote;
pub mod server;
mod socket;
pub mod wire;

pub use crate::vectors::Vectors;
pub use error::Error;
pub use remote::{ConnectOptions, MappedSpace, RemoteController};

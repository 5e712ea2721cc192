// SPDX-License-Identifier: MIT OR Apache-2.0
//! Linux host for the NVMe core: embedded NVM subsystems, a guest that checks every block, and live migration
//! between them.
//!
//! The program `nvme-lm` is a thin layer over [`migrate::run`]:
//!
//! ```
//! use nvme_host_linux::config::{MigrateConfig, Namespaces};
//! use nvme_host_linux::images::Inputs;
//! use nvme_host_linux::migrate;
//! use nvme_host_linux::report::Verdict;
//!
//! let config = MigrateConfig { namespaces: Namespaces::Memory { size: 4 << 20 }, ..MigrateConfig::default() };
//! let inputs = Inputs::open(&config, None)?;
//! let report = migrate::run(&config, inputs, &mut ())?;
//! assert_eq!(report.verdict, Verdict::Verified);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! | Module | Job |
//! |---|---|
//! | [`memory`] | bus address spaces over one memfd each: what a device sees behind an IOMMU |
//! | [`storage`], [`witness`] | namespaces in files or memory; comparison of two of them as they were at one moment |
//! | [`address`] | where a controller is, as text |
//! | [`announced`], [`quirks`] | which commands a controller announces; which models do otherwise than specified |
//! | [`backend`] | controllers behind any address, opened together |
//! | [`embedded`] | a subsystem with a thread of its own, its controllers reached as registers |
//! | [`vectors`] | interrupts as eventfds |
//! | [`vfio`] | PCI functions bound to vfio-pci |
//! | [`vfio_user`] | controllers of other processes behind a socket, and controllers of this one for others |
//! | [`virtualization`] | secondary controllers brought online by their primary ones |
//! | [`driver`], [`session`] | bringing controllers up and down; one in use, asked one command after another |
//! | [`endpoint`], [`platform`], [`journal`] | the guest's registers, held and replayed; the switch; which image to trust |
//! | [`guest`] | the workload and the record of what each block must hold |
//! | [`shell`] | shell commands with a limit |
//! | [`mover`] | blocks from one side to the other, by the protocol |
//! | [`migrate`], [`report`], [`config`], [`images`] | one run: what is asked, what is checked first, what came out |
//! | [`describe`] | NVMe bytes as named, decoded fields: for people, as JSON, and compared |
//! | [`faults`] | which side misbehaves, and how |
//! | [`cli`] | the command line |
//!
//! Threads: one for each subsystem, one for the guest, and the caller's, which runs the migration. They meet in the
//! subsystems' inboxes (register accesses, in order), in shared memory (atomic copies only) and in
//! [`sync`] (wake-ups, and the token that stands for the guest's processor).

pub mod address;
pub mod announced;
pub mod backend;
mod blocks;
pub mod cli;
pub mod config;
pub mod describe;
pub mod driver;
pub mod embedded;
pub mod endpoint;
pub mod faults;
pub mod guest;
pub mod images;
pub mod journal;
mod load;
mod marks;
pub mod memory;
pub mod migrate;
pub mod mover;
pub mod platform;
pub mod quirks;
pub mod report;
pub mod session;
pub mod shell;
pub mod storage;
mod stream;
pub mod sync;
mod sys;
pub mod vectors;
pub mod vfio;
pub mod vfio_user;
pub mod virtualization;
pub mod witness;

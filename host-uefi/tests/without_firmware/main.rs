// SPDX-License-Identifier: MIT OR Apache-2.0
//! The crate without firmware: EFI_PCI_IO_PROTOCOL is played over controllers of `nvme-controller`, whose bus addresses are
//! not those of the processor. Shown: memory and its mappings, sessions, and the commands that QEMU's controllers cannot
//! show, against controllers that have Controller Data Queues and live migration.

mod arena;
mod calls;
mod commands;
mod faults;
mod functions;
mod late;
mod migrate;
mod refused;
mod several;
mod sys;
mod world;

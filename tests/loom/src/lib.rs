// SPDX-License-Identifier: MIT OR Apache-2.0
//! Models of the hand-over between threads: the files of the Linux host that hold it, compiled against loom, and the
//! rings of the core. Each model runs in every order in which its threads can meet; a wake-up that is lost shows as a
//! thread that waits for ever, a missing ordering as an access that is not ordered. Models with a fault put in show that
//! both are found.
//!
//! Run by `RUSTFLAGS="--cfg loom" cargo test --release`.
#![cfg(loom)]

#[path = "../../../host-linux/src/embedded/inbox.rs"]
#[allow(dead_code, reason = "the host uses all of it")]
pub mod inbox;
#[path = "../../../host-linux/src/sync.rs"]
#[allow(dead_code, reason = "the host uses all of it")]
pub mod sync;

#[cfg(test)]
mod rings;
#[cfg(test)]
mod threads;

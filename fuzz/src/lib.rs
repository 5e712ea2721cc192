// SPDX-License-Identifier: MIT OR Apache-2.0
//! Fuzz targets: one function over bytes for each, with the properties it asserts.
//!
//! The same functions run under cargo-fuzz (`fuzz/run`), over the committed corpus on any toolchain
//! (`fuzz/tests/corpus.rs`), and by hand over one input. A property that does not hold is a panic.
//!
//! | Target | Input is | Asserted |
//! |---|---|---|
//! | [`wire`] | a structure | what decodes encodes to what decodes to the same |
//! | [`cdq`] | ring bytes, events, answers to head updates | every change is in the dirty map, the head is legal |
//! | [`controller_state`] | a state image | it is refused, or taken and given back equal |
//! | [`prp`] | pages, lists, lengths | builder and walker agree with a model; nothing else is touched |
//! | [`driver`] | a device's behaviour | bounded polls, each command ends once, no misuse of memory, statuses understood |
//! | [`controller`] | what hosts do | bounded work, silence when suspended, one completion each, every change logged and tracked |
//! | [`migration`] | the choices of a world | verified, or rolled back with the source whole |
//! | [`fault_rule`] | text | text of a rule is read as the same rule; errors point into the text |
//! | [`supervisor`] | a device's behaviour | recovery ends, each command ends once, all memory comes back |

pub mod cdq;
pub mod controller;
pub mod controller_state;
pub mod driver;
pub mod fault_rule;
mod input;
pub mod migration;
pub mod prp;
mod rig;
pub mod seeds;
mod status;
pub mod supervisor;
mod sys;
pub mod wire;

pub use input::Input;

/// A target: its name and its function.
pub type Target = (&'static str, fn(&[u8]));

/// All targets.
pub const TARGETS: &[Target] = &[
    ("wire", wire::run),
    ("cdq", cdq::run),
    ("controller_state", controller_state::run),
    ("prp", prp::run),
    ("driver", driver::run),
    ("controller", controller::run),
    ("migration", migration::run),
    ("fault_rule", fault_rule::run),
    ("supervisor", supervisor::run),
];

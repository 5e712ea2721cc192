// SPDX-License-Identifier: MIT OR Apache-2.0
//! Bytes to values and back: every structure the protocol puts into memory or registers.
//!
//! Each structure is a little-endian `repr(C)` type whose size is asserted below it; beside it stands a checked
//! value type with natural numbers. Zero-based fields end in `_z` in the raw types and never leave this module.
//! Unknown values stay representable where the specification may assign them later. The driver side encodes
//! what the controller side decodes, and the other way round.

pub mod admin;
pub mod cdq;
mod command;
pub mod controller_state;
mod cqe;
mod event;
pub mod feature;
pub mod identify;
mod ids;
pub mod lba_migration;
pub mod lba_status;
pub mod log;
pub mod migration;
pub mod nvm;
pub mod nvm_data;
pub mod opcode;
mod open;
pub mod register;
mod sqe;
mod status;
pub mod track;

pub use command::{Command, InvalidField, TooShort, require_no_namespace, require_prp};
pub use cqe::{CompletionQueueEntry, Cqe};
pub use event::{AsynchronousEvent, CdqEvent, EventType};
pub use ids::{
    BusAddr, CdqId, CommandId, ControllerId, Lba, ManagerId, NamespaceId, QueueId, TargetIsManager, TrackedId,
};
pub use opcode::{AdminOpcode, IoOpcode};
pub use sqe::{DataPointerKind, Fuse, Sqe, SubmissionQueueEntry};
pub use status::{Effect, Status, StatusCode};

// SPDX-License-Identifier: MIT OR Apache-2.0
//! Bytes to values and back: every structure the protocol puts into memory or registers.
//!
//! Each structure is a little-endian `repr(C)` type whose size is asserted below it; beside it stands a checked
//! value type with natural numbers. Zero-based fields end in `_z` in the raw types and never leave this module.
//! Unknown values stay representable where the specification may assign them later. The driver side encodes
//! what the controller side decodes, and the other way round.

mod command;
mod cqe;
mod event;
mod ids;
mod sqe;
mod status;

pub use command::{Command, InvalidField};
pub use cqe::{CompletionQueueEntry, Cqe};
pub use event::{AsynchronousEvent, CdqEvent, EventType};
pub use ids::{
    BusAddr, CdqId, CommandId, ControllerId, Lba, ManagerId, NamespaceId, QueueId, TargetIsManager, TrackedId,
};
pub use sqe::{DataPointerKind, Fuse, Sqe, SubmissionQueueEntry};
pub use status::{Status, StatusCode};

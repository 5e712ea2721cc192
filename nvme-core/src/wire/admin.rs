// SPDX-License-Identifier: MIT OR Apache-2.0
//! Admin commands apart from those of live migration. NVMe Base 2.1 §5.1.
//!
//! Decoding refuses data pointers other than PRPs and a namespace where the command uses none. Reserved bits are
//! ignored, reserved values of a field are refused.

mod query;
mod queue;

pub use super::lba_status::GetLbaStatus;
pub use query::{FeatureSelect, GetFeatures, GetLogPage, Identify, IdentifyStructure, SetFeatures};
pub use queue::{
    CreateIoCompletionQueue, CreateIoSubmissionQueue, DeleteIoCompletionQueue, DeleteIoSubmissionQueue,
    QueuePriority,
};

use super::command::{high_u16, low_u16};
use super::open::open_value;
use super::{
    AdminOpcode, Command, CommandId, ControllerId, InvalidField, QueueId, SubmissionQueueEntry,
    require_no_namespace, require_prp,
};

/// Abort: asks the controller to end one outstanding command. Best effort.
///
/// NVMe Base 2.1 §5.1.1, Abort command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Abort {
    /// The submission queue of the command to abort (SQID).
    pub queue: QueueId,
    /// The command to abort (CID).
    pub command: CommandId,
}

impl Abort {
    /// Whether completion dword 0 says that the command was aborted before this completion (IANP is zero).
    #[must_use]
    pub const fn was_aborted(result: u32) -> bool {
        result & 1 == 0
    }

    /// Completion dword 0: IANP (bit 0) is the opposite of `aborted`.
    #[must_use]
    pub const fn result(aborted: bool) -> u32 {
        !aborted as u32
    }
}

impl Command for Abort {
    const OPCODE: u8 = AdminOpcode::ABORT.get();

    fn encode(&self) -> SubmissionQueueEntry {
        let cdw10 = (u32::from(self.command.get()) << 16) | u32::from(self.queue.get());
        SubmissionQueueEntry::new(Self::OPCODE).with_dwords([cdw10, 0, 0, 0, 0, 0])
    }

    fn decode(entry: &SubmissionQueueEntry) -> Result<Self, InvalidField> {
        require_prp(entry)?;
        require_no_namespace(entry)?;
        let [cdw10, ..] = entry.dwords();
        Ok(Self { queue: QueueId::new(low_u16(cdw10)), command: CommandId::new(high_u16(cdw10)) })
    }
}

macro_rules! command_without_fields {
    ($(#[$meta:meta])* $name:ident = $opcode:expr) => {
        $(#[$meta])*
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
        pub struct $name;

        impl Command for $name {
            const OPCODE: u8 = $opcode.get();

            fn encode(&self) -> SubmissionQueueEntry {
                SubmissionQueueEntry::new(Self::OPCODE)
            }

            fn decode(entry: &SubmissionQueueEntry) -> Result<Self, InvalidField> {
                require_prp(entry)?;
                require_no_namespace(entry)?;
                Ok(Self)
            }
        }
    };
}

command_without_fields! {
    /// Asynchronous Event Request: stays outstanding until the controller has an event to report.
    ///
    /// NVMe Base 2.1 §5.1.2, Asynchronous Event Request command.
    AsynchronousEventRequest = AdminOpcode::ASYNCHRONOUS_EVENT_REQUEST
}

command_without_fields! {
    /// Keep Alive: restarts the keep alive timer. NVMe Base 2.1 §5.1.14, Keep Alive command.
    KeepAlive = AdminOpcode::KEEP_ALIVE
}

open_value! {
    /// Action (ACT) of Virtualization Management: four bits; higher bits are dropped when encoded.
    VirtualizationAction(u8) {
        PRIMARY_FLEXIBLE_ALLOCATION = 0x1, "Primary Controller Flexible Allocation";
        SECONDARY_OFFLINE = 0x7, "Secondary Controller Offline";
        SECONDARY_ASSIGN = 0x8, "Secondary Controller Assign";
        SECONDARY_ONLINE = 0x9, "Secondary Controller Online";
    }
}

open_value! {
    /// Resource Type (RT) of Virtualization Management: three bits; higher bits are dropped when encoded.
    VirtualizationResource(u8) {
        VIRTUAL_QUEUES = 0x0, "VQ Resources";
        VIRTUAL_INTERRUPTS = 0x1, "VI Resources";
    }
}

/// Virtualization Management: resources and state of secondary controllers.
///
/// NVMe Base 2.1 §5.2.6, Virtualization Management command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct VirtualizationManagement {
    /// What to do (ACT).
    pub action: VirtualizationAction,
    /// Which resources are meant (RT).
    pub resource_type: VirtualizationResource,
    /// The controller acted on (CNTLID).
    pub controller: ControllerId,
    /// Number of resources (NR), a plain count.
    pub resources: u16,
}

impl VirtualizationManagement {
    /// Number of resources modified, out of completion dword 0.
    #[must_use]
    pub const fn resources_modified(result: u32) -> u16 {
        low_u16(result)
    }

    /// Completion dword 0 with the number of resources modified.
    #[must_use]
    pub const fn result(modified: u16) -> u32 {
        modified as u32
    }
}

impl Command for VirtualizationManagement {
    const OPCODE: u8 = AdminOpcode::VIRTUALIZATION_MANAGEMENT.get();

    fn encode(&self) -> SubmissionQueueEntry {
        let cdw10 = (u32::from(self.controller.get()) << 16)
            | (u32::from(self.resource_type.get() & 0x7) << 8)
            | u32::from(self.action.get() & 0xF);
        let cdw11 = u32::from(self.resources);
        SubmissionQueueEntry::new(Self::OPCODE).with_dwords([cdw10, cdw11, 0, 0, 0, 0])
    }

    fn decode(entry: &SubmissionQueueEntry) -> Result<Self, InvalidField> {
        require_prp(entry)?;
        require_no_namespace(entry)?;
        let [cdw10, cdw11, ..] = entry.dwords();
        Ok(Self {
            action: VirtualizationAction::new((cdw10 & 0xF) as u8),
            resource_type: VirtualizationResource::new(((cdw10 >> 8) & 0x7) as u8),
            controller: ControllerId::new(high_u16(cdw10)),
            resources: low_u16(cdw11),
        })
    }
}

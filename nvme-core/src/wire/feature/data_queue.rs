// SPDX-License-Identifier: MIT OR Apache-2.0
//! Controller Data Queue feature (21h): head pointer and tail pointer trigger of one queue.
//! NVMe Base 2.1 §5.1.25.1.23.

use zerocopy::byteorder::little_endian::U32;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use super::FeatureId;
use crate::wire::admin::{FeatureSelect, GetFeatures, SetFeatures};
use crate::wire::command::low_u16;
use crate::wire::{CdqId, InvalidField};

const ENABLE_TAIL_TRIGGER: u32 = 1 << 31;

/// The fields as they stand in command dwords 11 to 13. Unlike [`ControllerDataQueueFeature`] it keeps a tail
/// pointer trigger that is not enabled, which hosts send and controllers ignore.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ControllerDataQueueFeatureFields {
    /// The queue (CDQID).
    pub queue: CdqId,
    /// Enable Tail Pointer Trigger (ETPT).
    pub enable_tail_trigger: bool,
    /// Head Pointer (HP): a slot index.
    pub head: u32,
    /// Tail Pointer Trigger (TPT): a slot index, ignored unless enabled.
    pub tail_trigger: u32,
}

/// Head pointer and tail pointer trigger of one Controller Data Queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ControllerDataQueueFeature {
    /// The queue (CDQID).
    pub queue: CdqId,
    /// Slot of the first entry that is not consumed (HP); equal to the tail if all are.
    pub head: u32,
    /// The slot whose entry, when posted, triggers one event (TPT); `None` for no event (ETPT = 0).
    pub tail_trigger: Option<u32>,
}

impl ControllerDataQueueFeatureFields {
    /// Sets the fields.
    #[must_use]
    pub const fn to_set_features(self) -> SetFeatures {
        SetFeatures {
            dword12: self.head,
            dword13: self.tail_trigger,
            ..SetFeatures::new(
                FeatureId::CONTROLLER_DATA_QUEUE,
                queue_dword(self.queue, self.enable_tail_trigger),
            )
        }
    }

    /// Reads the fields.
    ///
    /// # Errors
    /// [`InvalidField`] with Feature Identifier Not Saveable if SV is set, with Feature Not Namespace Specific if a
    /// namespace is named.
    pub fn from_set_features(command: &SetFeatures) -> Result<Self, InvalidField> {
        command.require_not_saved()?;
        command.require_no_namespace()?;
        Ok(Self {
            queue: CdqId::new(low_u16(command.dword11)),
            enable_tail_trigger: command.dword11 & ENABLE_TAIL_TRIGGER != 0,
            head: command.dword12,
            tail_trigger: command.dword13,
        })
    }
}

impl From<ControllerDataQueueFeatureFields> for ControllerDataQueueFeature {
    fn from(fields: ControllerDataQueueFeatureFields) -> Self {
        Self {
            queue: fields.queue,
            head: fields.head,
            tail_trigger: fields.enable_tail_trigger.then_some(fields.tail_trigger),
        }
    }
}

impl From<ControllerDataQueueFeature> for ControllerDataQueueFeatureFields {
    fn from(feature: ControllerDataQueueFeature) -> Self {
        Self {
            queue: feature.queue,
            enable_tail_trigger: feature.tail_trigger.is_some(),
            head: feature.head,
            tail_trigger: feature.tail_trigger.unwrap_or(0),
        }
    }
}

impl ControllerDataQueueFeature {
    /// Publishes the head and arms or disarms the trigger.
    #[must_use]
    pub fn to_set_features(self) -> SetFeatures {
        ControllerDataQueueFeatureFields::from(self).to_set_features()
    }

    /// Reads head and trigger; a trigger that is not enabled is ignored.
    ///
    /// # Errors
    /// As [`ControllerDataQueueFeatureFields::from_set_features`].
    pub fn from_set_features(command: &SetFeatures) -> Result<Self, InvalidField> {
        ControllerDataQueueFeatureFields::from_set_features(command).map(Self::from)
    }

    /// Asks for head and trigger of `queue`. The data is a [`ControllerDataQueueFeatureData`], the buffer must have
    /// room for all 512 bytes, and should be zero beforehand because some controllers write the first eight only.
    #[must_use]
    pub const fn get(queue: CdqId, select: FeatureSelect) -> GetFeatures {
        let mut command = GetFeatures::new(FeatureId::CONTROLLER_DATA_QUEUE, select);
        command.dword11 = queue_dword(queue, false);
        command
    }

    /// The queue that a Get Features command asks about.
    ///
    /// # Errors
    /// [`InvalidField`] (Invalid Field in Command) if a namespace is named.
    pub const fn queue_of_get(command: &GetFeatures) -> Result<CdqId, InvalidField> {
        match command.namespace.get() {
            0 => Ok(CdqId::new(low_u16(command.dword11))),
            other => Err(InvalidField::in_dword("NSID", 1, 0, other as u64)),
        }
    }

    /// Completion dword 0 of Get Features: the layout of command dword 11. Whether the trigger is armed stands only
    /// here.
    #[must_use]
    pub const fn result(self) -> u32 {
        queue_dword(self.queue, self.tail_trigger.is_some())
    }

    /// Joins the data that Get Features returned with completion dword 0.
    #[must_use]
    pub const fn from_get(queue: CdqId, data: &ControllerDataQueueFeatureData, result: u32) -> Self {
        let armed = result & ENABLE_TAIL_TRIGGER != 0;
        Self {
            queue,
            head: data.head.get(),
            tail_trigger: if armed { Some(data.tail_trigger.get()) } else { None },
        }
    }
}

const fn queue_dword(queue: CdqId, enable_tail_trigger: bool) -> u32 {
    queue.get() as u32 | if enable_tail_trigger { ENABLE_TAIL_TRIGGER } else { 0 }
}

/// What Get Features returns, as it stands in memory: 512 bytes. NVMe Base 2.1 Figure 427.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
pub struct ControllerDataQueueFeatureData {
    head: U32,
    tail_trigger: U32,
    reserved8: [u8; 504],
}
static_assertions::const_assert_eq!(size_of::<ControllerDataQueueFeatureData>(), 512);

impl From<ControllerDataQueueFeature> for ControllerDataQueueFeatureData {
    fn from(feature: ControllerDataQueueFeature) -> Self {
        Self {
            head: U32::new(feature.head),
            tail_trigger: U32::new(feature.tail_trigger.unwrap_or(0)),
            reserved8: [0; 504],
        }
    }
}

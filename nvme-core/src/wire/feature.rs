// SPDX-License-Identifier: MIT OR Apache-2.0
//! Features: typed forms of what Set Features and Get Features carry. NVMe Base 2.1 §5.1.25.1.

mod data_queue;
mod host_behavior;

pub use data_queue::{
    ControllerDataQueueFeature, ControllerDataQueueFeatureData, ControllerDataQueueFeatureFields,
};
pub use host_behavior::{HostBehaviorSupport, HostBehaviorSupportData};

use bitflags::bitflags;

use super::admin::{FeatureSelect, GetFeatures, SetFeatures};
use super::command::{high_u16, low_u16};
use super::open::open_value;
use super::{InvalidField, NamespaceId, StatusCode};

open_value! {
    /// Feature Identifier (FID). NVMe Base 2.1 Figure 385.
    FeatureId(u8) {
        ARBITRATION = 0x01, "Arbitration";
        POWER_MANAGEMENT = 0x02, "Power Management";
        TEMPERATURE_THRESHOLD = 0x04, "Temperature Threshold";
        VOLATILE_WRITE_CACHE = 0x06, "Volatile Write Cache";
        NUMBER_OF_QUEUES = 0x07, "Number of Queues";
        INTERRUPT_COALESCING = 0x08, "Interrupt Coalescing";
        INTERRUPT_VECTOR_CONFIGURATION = 0x09, "Interrupt Vector Configuration";
        ASYNCHRONOUS_EVENT_CONFIGURATION = 0x0B, "Asynchronous Event Configuration";
        HOST_MEMORY_BUFFER = 0x0D, "Host Memory Buffer";
        TIMESTAMP = 0x0E, "Timestamp";
        KEEP_ALIVE_TIMER = 0x0F, "Keep Alive Timer";
        HOST_BEHAVIOR_SUPPORT = 0x16, "Host Behavior Support";
        IO_COMMAND_SET_PROFILE = 0x19, "I/O Command Set Profile";
        CONTROLLER_DATA_QUEUE = 0x21, "Controller Data Queue";
        SOFTWARE_PROGRESS_MARKER = 0x80, "Software Progress Marker";
        HOST_IDENTIFIER = 0x81, "Host Identifier";
        RESERVATION_NOTIFICATION_MASK = 0x82, "Reservation Notification Mask";
        RESERVATION_PERSISTENCE = 0x83, "Reservation Persistence";
        NAMESPACE_WRITE_PROTECTION = 0x84, "Namespace Write Protection Configuration";
        BOOT_PARTITION_WRITE_PROTECTION = 0x85, "Boot Partition Write Protection Configuration";
    }
}

impl FeatureId {
    /// Whether values of the feature belong to a namespace; `None` if the feature has no typed form here.
    #[must_use]
    pub const fn is_namespace_specific(self) -> Option<bool> {
        match self {
            Self::VOLATILE_WRITE_CACHE
            | Self::NUMBER_OF_QUEUES
            | Self::ASYNCHRONOUS_EVENT_CONFIGURATION
            | Self::HOST_BEHAVIOR_SUPPORT
            | Self::IO_COMMAND_SET_PROFILE
            | Self::CONTROLLER_DATA_QUEUE => Some(false),
            Self::RESERVATION_NOTIFICATION_MASK
            | Self::RESERVATION_PERSISTENCE
            | Self::NAMESPACE_WRITE_PROTECTION => Some(true),
            _ => None,
        }
    }
}

impl SetFeatures {
    /// Checks that no namespace is named, for features of the controller.
    ///
    /// # Errors
    /// [`InvalidField`] (Feature Not Namespace Specific) if NSID is not zero.
    pub const fn require_no_namespace(&self) -> Result<(), InvalidField> {
        match self.namespace {
            NamespaceId::NONE => Ok(()),
            other => Err(InvalidField::in_dword("NSID", 1, 0, other.get() as u64)
                .with_status(StatusCode::FEATURE_NOT_NAMESPACE_SPECIFIC)),
        }
    }

    /// Checks that the value is not to be saved, for features that cannot be.
    ///
    /// # Errors
    /// [`InvalidField`] (Feature Identifier Not Saveable) if SV is set.
    pub const fn require_not_saved(&self) -> Result<(), InvalidField> {
        if self.save {
            return Err(InvalidField::in_dword("SV", 10, 31, 1).with_status(StatusCode::FEATURE_NOT_SAVEABLE));
        }
        Ok(())
    }
}

bitflags! {
    /// What a feature supports: completion dword 0 of Get Features with
    /// [`FeatureSelect::SupportedCapabilities`]. NVMe Base 2.1 §5.1.11.
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
    pub struct FeatureCapabilities: u32 {
        /// Its value can be saved.
        const SAVEABLE = 1 << 0;
        /// It has a value for each namespace.
        const NAMESPACE_SPECIFIC = 1 << 1;
        /// It can be changed.
        const CHANGEABLE = 1 << 2;
        /// Unknown bits are retained.
        const _ = !0;
    }
}

/// Number of Queues (07h): I/O queues asked for or allocated. NVMe Base 2.1 §5.1.25.2.1.
///
/// Set once after a reset, before the first I/O queue is created; otherwise Command Sequence Error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NumberOfQueues {
    /// I/O submission queues, 1 to 65,535. 0 is encoded as 1.
    pub submission: u16,
    /// I/O completion queues, 1 to 65,535. 0 is encoded as 1.
    pub completion: u16,
}

impl NumberOfQueues {
    /// Command dword 11 of Set Features and completion dword 0 of either command: both counts zero-based.
    #[must_use]
    pub const fn dword(self) -> u32 {
        (self.submission.saturating_sub(1) as u32) | ((self.completion.saturating_sub(1) as u32) << 16)
    }

    /// Reads command dword 11 of Set Features or completion dword 0 of either command.
    ///
    /// # Errors
    /// [`InvalidField`] if a count is `FFFFh`, which stands for 65,536.
    pub const fn from_dword(dword: u32) -> Result<Self, InvalidField> {
        match (low_u16(dword).checked_add(1), high_u16(dword).checked_add(1)) {
            (None, _) => Err(InvalidField::in_dword("NSQR", 11, 0, 0xFFFF)),
            (_, None) => Err(InvalidField::in_dword("NCQR", 11, 16, 0xFFFF)),
            (Some(submission), Some(completion)) => Ok(Self { submission, completion }),
        }
    }

    /// Asks for this many queues.
    #[must_use]
    pub const fn to_set_features(self) -> SetFeatures {
        SetFeatures::new(FeatureId::NUMBER_OF_QUEUES, self.dword())
    }

    /// Reads the counts asked for.
    ///
    /// # Errors
    /// [`InvalidField`] for an illegal count or if a namespace is named.
    pub fn from_set_features(command: &SetFeatures) -> Result<Self, InvalidField> {
        command.require_no_namespace()?;
        Self::from_dword(command.dword11)
    }

    /// How many queues may be created out of those asked for: no more than were asked for.
    #[must_use]
    pub const fn granted(self, allocated: Self) -> Self {
        const fn least(a: u16, b: u16) -> u16 {
            if a < b { a } else { b }
        }
        Self {
            submission: least(self.submission, allocated.submission),
            completion: least(self.completion, allocated.completion),
        }
    }
}

bitflags! {
    /// Asynchronous Event Configuration (0Bh), command dword 11: which events the controller reports.
    /// NVMe Base 2.1 §5.1.25.1.5, Figure 391. No bit concerns one-shot events, so none concerns Controller Data
    /// Queues.
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
    pub struct AsynchronousEventConfiguration: u32 {
        /// Critical warning: available spare below threshold.
        const SPARE_BELOW_THRESHOLD = 1 << 0;
        /// Critical warning: temperature above or below threshold.
        const TEMPERATURE = 1 << 1;
        /// Critical warning: reliability degraded.
        const RELIABILITY_DEGRADED = 1 << 2;
        /// Critical warning: media read only.
        const READ_ONLY = 1 << 3;
        /// Critical warning: volatile memory backup failed.
        const VOLATILE_BACKUP_FAILED = 1 << 4;
        /// Critical warning: Persistent Memory Region unreliable.
        const PERSISTENT_MEMORY_UNRELIABLE = 1 << 5;
        /// Attached Namespace Attribute Notices.
        const NAMESPACE_ATTRIBUTE = 1 << 8;
        /// Firmware Activation Notices.
        const FIRMWARE_ACTIVATION = 1 << 9;
        /// Telemetry Log Notices.
        const TELEMETRY = 1 << 10;
        /// Asymmetric Namespace Access Change Notices.
        const ASYMMETRIC_ACCESS = 1 << 11;
        /// Predictable Latency Event Aggregate Log Change Notices.
        const PREDICTABLE_LATENCY = 1 << 12;
        /// LBA Status Information Alert Notices.
        const LBA_STATUS = 1 << 13;
        /// Endurance Group Event Aggregate Log Change Notices.
        const ENDURANCE_GROUP = 1 << 14;
        /// Normal NVM Subsystem Shutdown.
        const SUBSYSTEM_SHUTDOWN = 1 << 15;
        /// Temperature Threshold Hysteresis Recovery.
        const TEMPERATURE_HYSTERESIS = 1 << 16;
        /// Reachability Association Notices (RASSN).
        const REACHABILITY_ASSOCIATION = 1 << 17;
        /// Reachability Group Notices (RGRP).
        const REACHABILITY_GROUP = 1 << 18;
        /// Allocated Namespace Attribute Notices.
        const ALLOCATED_NAMESPACE_ATTRIBUTE = 1 << 19;
        /// Zone Descriptor Changed Notices.
        const ZONE_DESCRIPTOR = 1 << 27;
        /// Unknown bits are retained.
        const _ = !0;
    }
}

impl AsynchronousEventConfiguration {
    /// Bits 7:0: the critical warnings of the SMART / Health Information log that are reported.
    pub const CRITICAL_WARNINGS: Self = Self::from_bits_retain(0xFF);

    /// Configures which events are reported.
    #[must_use]
    pub const fn to_set_features(self) -> SetFeatures {
        SetFeatures::new(FeatureId::ASYNCHRONOUS_EVENT_CONFIGURATION, self.bits())
    }

    /// Reads which events are to be reported.
    ///
    /// # Errors
    /// [`InvalidField`] if a namespace is named.
    pub fn from_set_features(command: &SetFeatures) -> Result<Self, InvalidField> {
        command.require_no_namespace()?;
        Ok(Self::from_bits_retain(command.dword11))
    }
}

/// Volatile Write Cache (06h). NVMe Base 2.1 §5.1.25.1.4.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct VolatileWriteCache {
    /// Write Cache Enable (WCE).
    pub enabled: bool,
}

impl VolatileWriteCache {
    /// Command dword 11 of Set Features and completion dword 0 of Get Features.
    #[must_use]
    pub const fn dword(self) -> u32 {
        self.enabled as u32
    }

    /// Reads command dword 11 of Set Features or completion dword 0 of Get Features.
    #[must_use]
    pub const fn from_dword(dword: u32) -> Self {
        Self { enabled: dword & 1 != 0 }
    }

    /// Switches the cache.
    #[must_use]
    pub const fn to_set_features(self) -> SetFeatures {
        SetFeatures::new(FeatureId::VOLATILE_WRITE_CACHE, self.dword())
    }

    /// Reads how the cache is to be switched.
    ///
    /// # Errors
    /// [`InvalidField`] if a namespace is named.
    pub fn from_set_features(command: &SetFeatures) -> Result<Self, InvalidField> {
        command.require_no_namespace()?;
        Ok(Self::from_dword(command.dword11))
    }
}

/// I/O Command Set Profile (19h): the combination of I/O command sets in use. NVMe Base 2.1 §5.1.25.1.17.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IoCommandSetProfile {
    /// Index of the combination in Identify CNS 1Ch, 0 to 511; higher bits are dropped when encoded.
    pub index: u16,
}

impl IoCommandSetProfile {
    /// Command dword 11 of Set Features and completion dword 0 of Get Features.
    #[must_use]
    pub const fn dword(self) -> u32 {
        (self.index & 0x1FF) as u32
    }

    /// Reads command dword 11 of Set Features or completion dword 0 of Get Features.
    #[must_use]
    pub const fn from_dword(dword: u32) -> Self {
        Self { index: (dword & 0x1FF) as u16 }
    }

    /// Selects the combination.
    #[must_use]
    pub const fn to_set_features(self) -> SetFeatures {
        SetFeatures::new(FeatureId::IO_COMMAND_SET_PROFILE, self.dword())
    }

    /// Reads the combination selected.
    ///
    /// # Errors
    /// [`InvalidField`] if a namespace is named.
    pub fn from_set_features(command: &SetFeatures) -> Result<Self, InvalidField> {
        command.require_no_namespace()?;
        Ok(Self::from_dword(command.dword11))
    }
}

impl FeatureId {
    /// Asks for the feature's value in effect, with no parameter.
    #[must_use]
    pub const fn get_current(self) -> GetFeatures {
        GetFeatures::new(self, FeatureSelect::Current)
    }
}

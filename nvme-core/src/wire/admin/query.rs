// SPDX-License-Identifier: MIT OR Apache-2.0
//! Identify, Get Log Page, Set Features and Get Features.

use crate::wire::command::{byte_at, count_u32, high_u16, join_u64, low_u16, split_u64, zero_based_u32};
use crate::wire::feature::FeatureId;
use crate::wire::log::LogPageId;
use crate::wire::open::open_value;
use crate::wire::{
    AdminOpcode, Command, ControllerId, InvalidField, NamespaceId, SubmissionQueueEntry,
    require_no_namespace, require_prp,
};

open_value! {
    /// Which structure Identify returns (CNS). NVMe Base 2.1 §5.1.13, Figure 310.
    IdentifyStructure(u8) {
        NAMESPACE = 0x00, "Identify Namespace";
        CONTROLLER = 0x01, "Identify Controller";
        ACTIVE_NAMESPACE_LIST = 0x02, "Active Namespace ID list";
        NAMESPACE_IDENTIFICATION_DESCRIPTORS = 0x03, "Namespace Identification Descriptor list";
        COMMAND_SET_NAMESPACE = 0x05, "I/O Command Set specific Identify Namespace";
        COMMAND_SET_CONTROLLER = 0x06, "I/O Command Set specific Identify Controller";
        COMMAND_SET_ACTIVE_NAMESPACE_LIST = 0x07, "I/O Command Set specific Active Namespace ID list";
        INDEPENDENT_NAMESPACE = 0x08, "I/O Command Set Independent Identify Namespace";
        ALLOCATED_NAMESPACE_LIST = 0x10, "Allocated Namespace ID list";
        ALLOCATED_NAMESPACE = 0x11, "Identify Namespace for an Allocated Namespace ID";
        ATTACHED_CONTROLLER_LIST = 0x12, "Namespace Attached Controller list";
        CONTROLLER_LIST = 0x13, "Controller list";
        PRIMARY_CONTROLLER_CAPABILITIES = 0x14, "Primary Controller Capabilities";
        SECONDARY_CONTROLLER_LIST = 0x15, "Secondary Controller list";
        COMMAND_SETS = 0x1C, "I/O Command Set data structure";
        SUPPORTED_CONTROLLER_STATE_FORMATS = 0x20, "Supported Controller State Formats";
        /// Reserved; §8.1.12 names it for the Supported Controller State Formats, and some controllers follow it.
        SUPPORTED_CONTROLLER_STATE_FORMATS_ERRATUM = 0x21, "reserved (Supported Controller State Formats in §8.1.12)";
    }
}

impl IdentifyStructure {
    /// Whether the structure uses NSID; `None` if the value has no name here.
    #[must_use]
    pub const fn uses_namespace(self) -> Option<bool> {
        match self.get() {
            0x00 | 0x02 | 0x03 | 0x05 | 0x07 | 0x08 | 0x10 | 0x11 | 0x12 => Some(true),
            0x01 | 0x06 | 0x13 | 0x14 | 0x15 | 0x1C | 0x20 | 0x21 => Some(false),
            _ => None,
        }
    }
}

/// Identify: returns one structure of up to 4,096 bytes. NVMe Base 2.1 §5.1.13, Identify command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Identify {
    /// Which structure (CNS).
    pub structure: IdentifyStructure,
    /// The namespace it is about, or the identifier after which a list starts (NSID).
    pub namespace: NamespaceId,
    /// The controller it is about, or the identifier at which a list starts (CNTID).
    pub controller: ControllerId,
    /// Command Set Identifier (CSI), 0 for the NVM Command Set.
    pub command_set: u8,
    /// CNS Specific Identifier (CNSSID).
    pub specific_id: u16,
    /// UUID Index (UIDX), 0 to 127; higher bits are dropped when encoded.
    pub uuid_index: u8,
}

impl Identify {
    /// Asks for `structure` with every other field zero.
    #[must_use]
    pub const fn new(structure: IdentifyStructure) -> Self {
        Self {
            structure,
            namespace: NamespaceId::NONE,
            controller: ControllerId::new(0),
            command_set: 0,
            specific_id: 0,
            uuid_index: 0,
        }
    }
}

impl Command for Identify {
    const OPCODE: u8 = AdminOpcode::IDENTIFY.get();

    fn encode(&self) -> SubmissionQueueEntry {
        let cdw10 = (u32::from(self.controller.get()) << 16) | u32::from(self.structure.get());
        let cdw11 = (u32::from(self.command_set) << 24) | u32::from(self.specific_id);
        let cdw14 = u32::from(self.uuid_index & 0x7F);
        SubmissionQueueEntry::new(Self::OPCODE)
            .with_namespace(self.namespace)
            .with_dwords([cdw10, cdw11, 0, 0, cdw14, 0])
    }

    /// # Errors
    /// A namespace is refused if the structure is known not to use one.
    fn decode(entry: &SubmissionQueueEntry) -> Result<Self, InvalidField> {
        require_prp(entry)?;
        let [cdw10, cdw11, _, _, cdw14, _] = entry.dwords();
        let structure = IdentifyStructure::new(byte_at(cdw10, 0));
        if structure.uses_namespace() == Some(false) {
            require_no_namespace(entry)?;
        }
        Ok(Self {
            structure,
            namespace: entry.namespace(),
            controller: ControllerId::new(high_u16(cdw10)),
            command_set: byte_at(cdw11, 24),
            specific_id: low_u16(cdw11),
            uuid_index: byte_at(cdw14, 0) & 0x7F,
        })
    }
}

/// Get Log Page: returns part of a log page. NVMe Base 2.1 §5.1.12, Get Log Page command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GetLogPage {
    /// Which page (LID).
    pub page: LogPageId,
    /// The namespace it is about (NSID); zero or all namespaces for the controller's own pages.
    pub namespace: NamespaceId,
    /// Dwords to return, 1 to 2^32. What lies outside is encoded as the nearest of these.
    pub dwords: u64,
    /// Retain Asynchronous Event (RAE): reading does not clear the event tied to the page.
    pub retain_event: bool,
    /// Log Specific Parameter (LSP), 0 to 127; higher bits are dropped when encoded.
    pub specific_parameter: u8,
    /// Log Specific Identifier (LSI).
    pub specific_id: u16,
    /// Where to start: a byte offset that is a multiple of 4, or an index if `offset_is_index`.
    pub offset: u64,
    /// Command Set Identifier (CSI).
    pub command_set: u8,
    /// Offset Type (OT): the offset is an index into a list of structures.
    pub offset_is_index: bool,
    /// UUID Index (UIDX), 0 to 127; higher bits are dropped when encoded.
    pub uuid_index: u8,
}

impl GetLogPage {
    /// Asks for the first `dwords` dwords of `page`, with every other field zero.
    #[must_use]
    pub const fn new(page: LogPageId, dwords: u64) -> Self {
        Self {
            page,
            namespace: NamespaceId::NONE,
            dwords,
            retain_event: false,
            specific_parameter: 0,
            specific_id: 0,
            offset: 0,
            command_set: 0,
            offset_is_index: false,
            uuid_index: 0,
        }
    }

    /// Bytes to return.
    #[must_use]
    pub const fn bytes(&self) -> u64 {
        self.dwords.saturating_mul(4)
    }
}

impl Command for GetLogPage {
    const OPCODE: u8 = AdminOpcode::GET_LOG_PAGE.get();

    fn encode(&self) -> SubmissionQueueEntry {
        let dwords_z = zero_based_u32(self.dwords);
        let cdw10 = (dwords_z << 16)
            | (u32::from(self.retain_event) << 15)
            | (u32::from(self.specific_parameter & 0x7F) << 8)
            | u32::from(self.page.get());
        let cdw11 = (u32::from(self.specific_id) << 16) | (dwords_z >> 16);
        let (cdw12, cdw13) = split_u64(self.offset);
        let cdw14 = (u32::from(self.command_set) << 24)
            | (u32::from(self.offset_is_index) << 23)
            | u32::from(self.uuid_index & 0x7F);
        SubmissionQueueEntry::new(Self::OPCODE)
            .with_namespace(self.namespace)
            .with_dwords([cdw10, cdw11, cdw12, cdw13, cdw14, 0])
    }

    /// # Errors
    /// A byte offset that is no multiple of 4 is refused.
    fn decode(entry: &SubmissionQueueEntry) -> Result<Self, InvalidField> {
        require_prp(entry)?;
        let [cdw10, cdw11, cdw12, cdw13, cdw14, _] = entry.dwords();
        let offset = join_u64(cdw12, cdw13);
        let offset_is_index = cdw14 & (1 << 23) != 0;
        if !offset_is_index && offset & 3 != 0 {
            return Err(InvalidField::in_dword("LPO", 12, 0, offset));
        }
        Ok(Self {
            page: LogPageId::new(byte_at(cdw10, 0)),
            namespace: entry.namespace(),
            dwords: count_u32((cdw11 << 16) | (cdw10 >> 16)),
            retain_event: cdw10 & (1 << 15) != 0,
            specific_parameter: byte_at(cdw10, 8) & 0x7F,
            specific_id: high_u16(cdw11),
            offset,
            command_set: byte_at(cdw14, 24),
            offset_is_index,
            uuid_index: byte_at(cdw14, 0) & 0x7F,
        })
    }
}

/// Set Features in its general form. NVMe Base 2.1 §5.1.25, Set Features command.
///
/// The typed forms of single features are in [`feature`](crate::wire::feature).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SetFeatures {
    /// Which feature (FID).
    pub feature: FeatureId,
    /// Save (SV): keep the value across resets and power cycles.
    pub save: bool,
    /// The namespace it is about (NSID), zero for features that are not namespace specific.
    pub namespace: NamespaceId,
    /// Command dword 11, feature specific.
    pub dword11: u32,
    /// Command dword 12, feature specific.
    pub dword12: u32,
    /// Command dword 13, feature specific.
    pub dword13: u32,
    /// Command dword 15, feature specific.
    pub dword15: u32,
    /// UUID Index (UIDX), 0 to 127; higher bits are dropped when encoded.
    pub uuid_index: u8,
}

impl SetFeatures {
    /// Sets `feature` to `dword11`, with every other field zero.
    #[must_use]
    pub const fn new(feature: FeatureId, dword11: u32) -> Self {
        Self {
            feature,
            save: false,
            namespace: NamespaceId::NONE,
            dword11,
            dword12: 0,
            dword13: 0,
            dword15: 0,
            uuid_index: 0,
        }
    }
}

impl Command for SetFeatures {
    const OPCODE: u8 = AdminOpcode::SET_FEATURES.get();

    fn encode(&self) -> SubmissionQueueEntry {
        let cdw10 = (u32::from(self.save) << 31) | u32::from(self.feature.get());
        let cdw14 = u32::from(self.uuid_index & 0x7F);
        SubmissionQueueEntry::new(Self::OPCODE).with_namespace(self.namespace).with_dwords([
            cdw10,
            self.dword11,
            self.dword12,
            self.dword13,
            cdw14,
            self.dword15,
        ])
    }

    fn decode(entry: &SubmissionQueueEntry) -> Result<Self, InvalidField> {
        require_prp(entry)?;
        let [cdw10, dword11, dword12, dword13, cdw14, dword15] = entry.dwords();
        Ok(Self {
            feature: FeatureId::new(byte_at(cdw10, 0)),
            save: cdw10 & (1 << 31) != 0,
            namespace: entry.namespace(),
            dword11,
            dword12,
            dword13,
            dword15,
            uuid_index: byte_at(cdw14, 0) & 0x7F,
        })
    }
}

/// Which value of a feature Get Features returns (SEL).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum FeatureSelect {
    /// 0: the value in effect.
    #[default]
    Current,
    /// 1: the default value.
    Default,
    /// 2: the saved value, or the default if none was saved.
    Saved,
    /// 3: what the feature supports, a bit for saveable, namespace specific and changeable.
    SupportedCapabilities,
}

/// Get Features in its general form. NVMe Base 2.1 §5.1.11, Get Features command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GetFeatures {
    /// Which feature (FID).
    pub feature: FeatureId,
    /// Which of its values (SEL).
    pub select: FeatureSelect,
    /// The namespace it is about (NSID), zero for features that are not namespace specific.
    pub namespace: NamespaceId,
    /// Command dword 11, feature specific.
    pub dword11: u32,
    /// Command dword 12, feature specific.
    pub dword12: u32,
    /// Command dword 13, feature specific.
    pub dword13: u32,
    /// Command dword 15, feature specific.
    pub dword15: u32,
    /// UUID Index (UIDX), 0 to 127; higher bits are dropped when encoded.
    pub uuid_index: u8,
}

impl GetFeatures {
    /// Asks for the `select` value of `feature`, with every other field zero.
    #[must_use]
    pub const fn new(feature: FeatureId, select: FeatureSelect) -> Self {
        Self {
            feature,
            select,
            namespace: NamespaceId::NONE,
            dword11: 0,
            dword12: 0,
            dword13: 0,
            dword15: 0,
            uuid_index: 0,
        }
    }
}

impl Command for GetFeatures {
    const OPCODE: u8 = AdminOpcode::GET_FEATURES.get();

    fn encode(&self) -> SubmissionQueueEntry {
        let select = match self.select {
            FeatureSelect::Current => 0,
            FeatureSelect::Default => 1,
            FeatureSelect::Saved => 2,
            FeatureSelect::SupportedCapabilities => 3,
        };
        let cdw10 = (select << 8) | u32::from(self.feature.get());
        let cdw14 = u32::from(self.uuid_index & 0x7F);
        SubmissionQueueEntry::new(Self::OPCODE).with_namespace(self.namespace).with_dwords([
            cdw10,
            self.dword11,
            self.dword12,
            self.dword13,
            cdw14,
            self.dword15,
        ])
    }

    /// # Errors
    /// A reserved SEL (4 to 7) is refused.
    fn decode(entry: &SubmissionQueueEntry) -> Result<Self, InvalidField> {
        require_prp(entry)?;
        let [cdw10, dword11, dword12, dword13, cdw14, dword15] = entry.dwords();
        let select = match (cdw10 >> 8) & 7 {
            0 => FeatureSelect::Current,
            1 => FeatureSelect::Default,
            2 => FeatureSelect::Saved,
            3 => FeatureSelect::SupportedCapabilities,
            reserved => return Err(InvalidField::in_dword("SEL", 10, 8, u64::from(reserved))),
        };
        Ok(Self {
            feature: FeatureId::new(byte_at(cdw10, 0)),
            select,
            namespace: entry.namespace(),
            dword11,
            dword12,
            dword13,
            dword15,
            uuid_index: byte_at(cdw14, 0) & 0x7F,
        })
    }
}

// SPDX-License-Identifier: MIT OR Apache-2.0
//! Log pages. NVMe Base 2.1 §5.1.12.1.

mod effects;
mod error;
mod health;

pub use effects::{CommandEffects, CommandsSupportedAndEffects};
pub use error::{ErrorInformation, ErrorInformationEntry, ParameterLocation};
pub use health::{CriticalWarning, SmartHealthInformation, SmartHealthInformationData};

use zerocopy::byteorder::little_endian::U32;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use super::NamespaceId;
use super::open::open_value;

open_value! {
    /// Log Page Identifier (LID).
    LogPageId(u8) {
        ERROR_INFORMATION = 0x01, "Error Information";
        SMART_HEALTH_INFORMATION = 0x02, "SMART / Health Information";
        FIRMWARE_SLOT_INFORMATION = 0x03, "Firmware Slot Information";
        CHANGED_ATTACHED_NAMESPACE_LIST = 0x04, "Changed Attached Namespace List";
        COMMANDS_SUPPORTED_AND_EFFECTS = 0x05, "Commands Supported and Effects";
        FEATURE_IDENTIFIERS_SUPPORTED_AND_EFFECTS = 0x12, "Feature Identifiers Supported and Effects";
    }
}

/// Firmware Slot Information (03h): which revision is in which slot, 512 bytes. NVMe Base 2.1 §5.1.12.1.4.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
pub struct FirmwareSlotInformation {
    active: u8,
    reserved1: [u8; 7],
    revisions: [[u8; 8]; 7],
    reserved64: [u8; 448],
}
static_assertions::const_assert_eq!(size_of::<FirmwareSlotInformation>(), 512);

impl FirmwareSlotInformation {
    /// A page where slot `active` (1 to 7; higher bits are dropped) runs, slot `next` (0 for none) is activated at
    /// the next reset, and all slots are empty.
    #[must_use]
    pub const fn new(active: u8, next: u8) -> Self {
        Self {
            active: (active & 7) | ((next & 7) << 4),
            reserved1: [0; 7],
            revisions: [[0; 8]; 7],
            reserved64: [0; 448],
        }
    }

    /// The page with revision `text` (ASCII, padded with spaces) in slot `slot`, 1 to 7; other slots do not exist
    /// and leave the page as it is.
    #[must_use]
    pub fn with_revision(mut self, slot: u8, text: [u8; 8]) -> Self {
        if let Some(place) = usize::from(slot).checked_sub(1).and_then(|slot| self.revisions.get_mut(slot)) {
            *place = text;
        }
        self
    }

    /// The slot whose firmware runs (AFI bits 2:0).
    #[must_use]
    pub const fn active_slot(&self) -> u8 {
        self.active & 7
    }

    /// The slot to be activated at the next reset (AFI bits 6:4), 0 for none.
    #[must_use]
    pub const fn next_slot(&self) -> u8 {
        (self.active >> 4) & 7
    }

    /// The revision in slot `slot`, 1 to 7; `None` if the slot does not exist or is empty.
    #[must_use]
    pub fn revision(&self, slot: u8) -> Option<[u8; 8]> {
        let index = usize::from(slot).checked_sub(1)?;
        self.revisions.get(index).copied().filter(|text| *text != [0; 8])
    }
}

/// Changed Attached Namespace List (04h): namespaces changed since the page was last read, 4,096 bytes.
/// NVMe Base 2.1 §5.1.12.1.5.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
pub struct ChangedNamespaceList {
    identifiers: [U32; 1024],
}
static_assertions::const_assert_eq!(size_of::<ChangedNamespaceList>(), 4096);

impl ChangedNamespaceList {
    /// Most namespaces the page can name.
    pub const CAPACITY: usize = 1024;

    /// The page for `changed`, in ascending order; if there are more than 1,024, the page says "more than fit".
    #[must_use]
    pub fn new(changed: impl IntoIterator<Item = NamespaceId>) -> Self {
        let mut page = Self { identifiers: [U32::ZERO; 1024] };
        let mut changed = changed.into_iter();
        for (place, id) in page.identifiers.iter_mut().zip(&mut changed) {
            *place = U32::new(id.get());
        }
        if changed.next().is_some() {
            page = Self { identifiers: [U32::ZERO; 1024] };
            if let Some(first) = page.identifiers.first_mut() {
                *first = U32::new(u32::MAX);
            }
        }
        page
    }

    /// Whether more than 1,024 namespaces changed, so that none is named.
    #[must_use]
    pub fn is_overflowed(&self) -> bool {
        self.identifiers.first().is_some_and(|first| first.get() == u32::MAX)
    }

    /// The namespaces named: up to the first zero, none if the list overflowed.
    pub fn namespaces(&self) -> impl Iterator<Item = NamespaceId> + '_ {
        let named = if self.is_overflowed() { 0 } else { Self::CAPACITY };
        self.identifiers
            .iter()
            .take(named)
            .map(|id| NamespaceId::new(id.get()))
            .take_while(|id| *id != NamespaceId::NONE)
    }
}

// SPDX-License-Identifier: MIT OR Apache-2.0
//! Primary Controller Capabilities (CNS 14h) and Secondary Controller List (CNS 15h). NVMe Base 2.1 §5.1.13.2.

use core::mem::offset_of;

use static_assertions::const_assert_eq;
use zerocopy::byteorder::little_endian::{U16, U32};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use super::{IdentifyError, IdentifyPage, PAGE_BYTES, fill, short};
use crate::wire::{ControllerId, InvalidField};

const VQ_RESOURCES: u8 = 1 << 0;
const VI_RESOURCES: u8 = 1 << 1;
const ONLINE: u8 = 1 << 0;

#[repr(C)]
#[derive(Clone, Copy, Default, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
struct RawResources {
    total: U32,
    assigned: U32,
    primary_assigned: U16,
    private: U16,
    secondary_maximum: U16,
    granularity: U16,
}

#[repr(C)]
#[derive(Clone, Copy, Default, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
struct RawPrimary {
    cntlid: U16,
    portid: U16,
    crt: u8,
    reserved_5: [u8; 27],
    queues: RawResources,
    reserved_48: [u8; 16],
    interrupts: RawResources,
}
const_assert_eq!(size_of::<RawPrimary>(), 80);
const_assert_eq!(offset_of!(RawPrimary, queues), 32);
const_assert_eq!(offset_of!(RawPrimary, interrupts), 64);

/// How one kind of resource is shared out between a primary controller and its secondary controllers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct VirtualResources {
    /// Flexible resources of the primary and all its secondary controllers (VQFRT, VIFRT).
    pub flexible_total: u32,
    /// Flexible resources assigned to secondary controllers (VQRFA, VIRFA).
    pub flexible_assigned: u32,
    /// Flexible resources allocated to the primary controller (VQRFAP, VIRFAP).
    pub primary_flexible: u16,
    /// Private resources of the primary controller (VQPRT, VIPRT).
    pub primary_private: u16,
    /// Most flexible resources of one secondary controller (VQFRSM, VIFRSM).
    pub secondary_maximum: u16,
    /// Preferred granularity of assigning them (VQGRAN, VIGRAN).
    pub granularity: u16,
}

impl VirtualResources {
    fn from_raw(raw: &RawResources) -> Self {
        Self {
            flexible_total: raw.total.get(),
            flexible_assigned: raw.assigned.get(),
            primary_flexible: raw.primary_assigned.get(),
            primary_private: raw.private.get(),
            secondary_maximum: raw.secondary_maximum.get(),
            granularity: raw.granularity.get(),
        }
    }

    fn to_raw(self) -> RawResources {
        RawResources {
            total: U32::new(self.flexible_total),
            assigned: U32::new(self.flexible_assigned),
            primary_assigned: U16::new(self.primary_flexible),
            private: U16::new(self.primary_private),
            secondary_maximum: U16::new(self.secondary_maximum),
            granularity: U16::new(self.granularity),
        }
    }
}

/// Primary Controller Capabilities (CNS 14h).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PrimaryControllerCapabilities {
    /// The primary controller (CNTLID).
    pub controller: ControllerId,
    /// Its port (PORTID).
    pub port: u16,
    /// Queue resources can be assigned (CRT bit 0).
    pub queues_supported: bool,
    /// Interrupt resources can be assigned (CRT bit 1).
    pub interrupts_supported: bool,
    /// Queue resources: queue pairs.
    pub queues: VirtualResources,
    /// Interrupt resources: vectors.
    pub interrupts: VirtualResources,
}

impl PrimaryControllerCapabilities {
    /// Reads the structure; every value is legal.
    ///
    /// # Errors
    /// Fewer than the 80 bytes that hold fields.
    pub fn parse(bytes: &[u8]) -> Result<Self, IdentifyError> {
        let (raw, _) = RawPrimary::read_from_prefix(bytes)
            .map_err(|_| short("Primary Controller Capabilities", 80, bytes.len()))?;
        Ok(Self {
            controller: ControllerId::new(raw.cntlid.get()),
            port: raw.portid.get(),
            queues_supported: raw.crt & VQ_RESOURCES != 0,
            interrupts_supported: raw.crt & VI_RESOURCES != 0,
            queues: VirtualResources::from_raw(&raw.queues),
            interrupts: VirtualResources::from_raw(&raw.interrupts),
        })
    }

    /// Writes the structure.
    pub fn build(&self, page: &mut IdentifyPage) {
        let queues = if self.queues_supported { VQ_RESOURCES } else { 0 };
        let interrupts = if self.interrupts_supported { VI_RESOURCES } else { 0 };
        let raw = RawPrimary {
            cntlid: U16::new(self.controller.get()),
            portid: U16::new(self.port),
            crt: queues | interrupts,
            queues: self.queues.to_raw(),
            interrupts: self.interrupts.to_raw(),
            ..RawPrimary::default()
        };
        fill(page, raw.as_bytes().iter().copied());
    }
}

#[repr(C)]
#[derive(Clone, Copy, Debug, Default, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
struct RawSecondary {
    scid: U16,
    pcid: U16,
    scs: u8,
    reserved_5: [u8; 3],
    vfn: U16,
    nvq: U16,
    nvi: U16,
    reserved_14: [u8; 18],
}
const_assert_eq!(size_of::<RawSecondary>(), 32);

/// One secondary controller.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SecondaryController {
    /// Its identifier (SCID).
    pub controller: ControllerId,
    /// Its primary controller (PCID).
    pub primary: ControllerId,
    /// Online (SCS bit 0).
    pub online: bool,
    /// Its virtual function (VFN), from 1; 0 if it is none.
    pub virtual_function: u16,
    /// Queue resources assigned (NVQ).
    pub queues: u16,
    /// Interrupt resources assigned (NVI).
    pub interrupts: u16,
}

/// Secondary Controller List (CNS 15h): at most 127 entries, identifiers ascending.
#[derive(Clone, Copy, Debug)]
pub struct SecondaryControllers<'a>(&'a [RawSecondary]);

impl<'a> SecondaryControllers<'a> {
    /// Most entries of one list.
    pub const CAPACITY: usize = 127;

    /// Reads the list that was asked for with `from`.
    ///
    /// # Errors
    /// Fewer than 4,096 bytes, a count above 127, or identifiers that do not ascend from `from`.
    pub fn parse(bytes: &'a [u8], from: ControllerId) -> Result<Self, IdentifyError> {
        let (list, _) = <[RawSecondary; 128]>::ref_from_prefix(bytes)
            .map_err(|_| short("Secondary Controller List", PAGE_BYTES, bytes.len()))?;
        let count = bytes.first().copied().unwrap_or(0);
        let entries = list
            .split_first()
            .and_then(|(_, entries)| entries.get(..usize::from(count)))
            .ok_or(InvalidField::in_data("number of entries", 0, u64::from(count)))?;
        let mut least = u32::from(from.get());
        for entry in entries {
            let found = u32::from(entry.scid.get());
            if found < least {
                return Err(IdentifyError::NotAscending { previous: least.saturating_sub(1), found });
            }
            least = found.saturating_add(1);
        }
        Ok(Self(entries))
    }

    /// Writes the controllers whose identifiers are at least `from` and returns how many; `controllers` ascends. What
    /// does not fit is for the next list.
    pub fn build(
        page: &mut IdentifyPage,
        from: ControllerId,
        controllers: impl IntoIterator<Item = SecondaryController>,
    ) -> usize {
        page.fill(0);
        let mut count = 0_u8;
        let chosen = controllers.into_iter().filter(|entry| entry.controller >= from);
        for (to, entry) in page.chunks_exact_mut(32).skip(1).zip(chosen) {
            let raw = RawSecondary {
                scid: U16::new(entry.controller.get()),
                pcid: U16::new(entry.primary.get()),
                scs: if entry.online { ONLINE } else { 0 },
                vfn: U16::new(entry.virtual_function),
                nvq: U16::new(entry.queues),
                nvi: U16::new(entry.interrupts),
                ..RawSecondary::default()
            };
            to.copy_from_slice(raw.as_bytes());
            count = count.saturating_add(1);
        }
        if let Some(to) = page.first_mut() {
            *to = count;
        }
        usize::from(count)
    }

    /// The controllers, identifiers ascending.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = SecondaryController> + 'a {
        self.0.iter().map(|raw| SecondaryController {
            controller: ControllerId::new(raw.scid.get()),
            primary: ControllerId::new(raw.pcid.get()),
            online: raw.scs & ONLINE != 0,
            virtual_function: raw.vfn.get(),
            queues: raw.nvq.get(),
            interrupts: raw.nvi.get(),
        })
    }

    /// Whether there may be more: ask from one above the last identifier.
    #[must_use]
    pub const fn is_full(&self) -> bool {
        self.0.len() == Self::CAPACITY
    }
}

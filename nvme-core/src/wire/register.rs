// SPDX-License-Identifier: MIT OR Apache-2.0
//! Controller properties: where they are and what their bits mean. NVMe Base 2.1 §3.1.4, Controller Properties.
//!
//! Offsets are plain numbers of bytes here; [`crate::register::Offset`] has a constant for each. Each property is a
//! `Copy` type over its bits with a getter and a `with_` setter per field, so that both the host and a controller
//! can use it. Unknown bits are retained. A setter drops the bits that do not fit into its field.

mod control;
mod memory;

pub use control::{
    AdminQueueAttributes, Arbitration, Capabilities, CommandSetSelection, ControllerConfiguration,
    ControllerReadyTimeouts, ControllerStatus, PowerScope, ShutdownNotification, ShutdownStatus, Version,
};
pub use memory::{
    BootPartitionInformation, BootPartitionReadSelect, ElasticityBuffer, MemoryBufferLocation,
    MemoryBufferSize, MemoryBufferSpaceControl, MemoryBufferStatus, PersistentMemoryCapabilities,
    PersistentMemoryControl, PersistentMemorySpaceControlLower, PersistentMemoryStatus,
    SustainedWriteThroughput,
};

use super::QueueId;

/// Controller Capabilities (CAP), 64 bits.
pub const CAP: u32 = 0x00;
/// Version (VS).
pub const VS: u32 = 0x08;
/// Interrupt Mask Set (INTMS); undefined with MSI-X.
pub const INTMS: u32 = 0x0C;
/// Interrupt Mask Clear (INTMC); undefined with MSI-X.
pub const INTMC: u32 = 0x10;
/// Controller Configuration (CC).
pub const CC: u32 = 0x14;
/// Controller Status (CSTS).
pub const CSTS: u32 = 0x1C;
/// NVM Subsystem Reset (NSSR).
pub const NSSR: u32 = 0x20;
/// Admin Queue Attributes (AQA).
pub const AQA: u32 = 0x24;
/// Admin Submission Queue Base Address (ASQ), 64 bits, page aligned.
pub const ASQ: u32 = 0x28;
/// Admin Completion Queue Base Address (ACQ), 64 bits, page aligned.
pub const ACQ: u32 = 0x30;
/// Controller Memory Buffer Location (CMBLOC).
pub const CMBLOC: u32 = 0x38;
/// Controller Memory Buffer Size (CMBSZ).
pub const CMBSZ: u32 = 0x3C;
/// Boot Partition Information (BPINFO).
pub const BPINFO: u32 = 0x40;
/// Boot Partition Read Select (BPRSEL).
pub const BPRSEL: u32 = 0x44;
/// Boot Partition Memory Buffer Location (BPMBL), 64 bits, page aligned.
pub const BPMBL: u32 = 0x48;
/// Controller Memory Buffer Memory Space Control (CMBMSC), 64 bits.
pub const CMBMSC: u32 = 0x50;
/// Controller Memory Buffer Status (CMBSTS).
pub const CMBSTS: u32 = 0x58;
/// Controller Memory Buffer Elasticity Buffer Size (CMBEBS).
pub const CMBEBS: u32 = 0x5C;
/// Controller Memory Buffer Sustained Write Throughput (CMBSWTP).
pub const CMBSWTP: u32 = 0x60;
/// NVM Subsystem Shutdown (NSSD).
pub const NSSD: u32 = 0x64;
/// Controller Ready Timeouts (CRTO).
pub const CRTO: u32 = 0x68;
/// Persistent Memory Region Capabilities (PMRCAP).
pub const PMRCAP: u32 = 0xE00;
/// Persistent Memory Region Control (PMRCTL).
pub const PMRCTL: u32 = 0xE04;
/// Persistent Memory Region Status (PMRSTS).
pub const PMRSTS: u32 = 0xE08;
/// Persistent Memory Region Elasticity Buffer Size (PMREBS).
pub const PMREBS: u32 = 0xE0C;
/// Persistent Memory Region Sustained Write Throughput (PMRSWTP).
pub const PMRSWTP: u32 = 0xE10;
/// Persistent Memory Region Memory Space Control Lower (PMRMSCL). Together with [`PMRMSCU`] two 32-bit properties:
/// E14h is no multiple of eight, so the pair must never be read as one 64-bit property.
pub const PMRMSCL: u32 = 0xE14;
/// Persistent Memory Region Memory Space Control Upper (PMRMSCU): address bits 63:32.
pub const PMRMSCU: u32 = 0xE18;
/// First doorbell: the admin submission queue's tail.
pub const DOORBELLS: u32 = 0x1000;

/// What written to [`NSSR`] resets the NVM subsystem: "NVMe".
pub const NSSR_RESET: u32 = 0x4E56_4D65;
/// What written to [`NSSD`] starts a normal shutdown of the NVM subsystem: "Nrml".
pub const NSSD_NORMAL: u32 = 0x4E72_6D6C;
/// What written to [`NSSD`] starts an abrupt shutdown of the NVM subsystem: "Abpt".
pub const NSSD_ABRUPT: u32 = 0x4162_7074;

/// How a property may be accessed by the host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// Writes have no effect.
    ReadOnly,
    /// Reads return what was written, as far as the controller accepts it.
    ReadWrite,
    /// Writing ones sets bits, zeroes have no effect.
    WriteOneToSet,
    /// Writing ones clears bits, zeroes have no effect.
    WriteOneToClear,
    /// Read-only but for bits that are cleared by writing ones.
    ReadOnlyAndWriteOneToClear,
}

/// One property of the map.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Property {
    /// The specification's abbreviation.
    pub name: &'static str,
    /// Bytes from the start of the register space.
    pub offset: u32,
    /// Size in bytes, 4 or 8.
    pub size: u32,
    /// What the host may do.
    pub access: Access,
}

const fn property(name: &'static str, offset: u32, size: u32, access: Access) -> Property {
    Property { name, offset, size, access }
}

/// Every property below the doorbells, by ascending offset.
pub const PROPERTIES: &[Property] = &[
    property("CAP", CAP, 8, Access::ReadOnly),
    property("VS", VS, 4, Access::ReadOnly),
    property("INTMS", INTMS, 4, Access::WriteOneToSet),
    property("INTMC", INTMC, 4, Access::WriteOneToClear),
    property("CC", CC, 4, Access::ReadWrite),
    property("CSTS", CSTS, 4, Access::ReadOnlyAndWriteOneToClear),
    property("NSSR", NSSR, 4, Access::ReadWrite),
    property("AQA", AQA, 4, Access::ReadWrite),
    property("ASQ", ASQ, 8, Access::ReadWrite),
    property("ACQ", ACQ, 8, Access::ReadWrite),
    property("CMBLOC", CMBLOC, 4, Access::ReadOnly),
    property("CMBSZ", CMBSZ, 4, Access::ReadOnly),
    property("BPINFO", BPINFO, 4, Access::ReadOnly),
    property("BPRSEL", BPRSEL, 4, Access::ReadWrite),
    property("BPMBL", BPMBL, 8, Access::ReadWrite),
    property("CMBMSC", CMBMSC, 8, Access::ReadWrite),
    property("CMBSTS", CMBSTS, 4, Access::ReadOnly),
    property("CMBEBS", CMBEBS, 4, Access::ReadOnly),
    property("CMBSWTP", CMBSWTP, 4, Access::ReadOnly),
    property("NSSD", NSSD, 4, Access::ReadWrite),
    property("CRTO", CRTO, 4, Access::ReadOnly),
    property("PMRCAP", PMRCAP, 4, Access::ReadOnly),
    property("PMRCTL", PMRCTL, 4, Access::ReadWrite),
    property("PMRSTS", PMRSTS, 4, Access::ReadOnly),
    property("PMREBS", PMREBS, 4, Access::ReadOnly),
    property("PMRSWTP", PMRSWTP, 4, Access::ReadOnly),
    property("PMRMSCL", PMRMSCL, 4, Access::ReadWrite),
    property("PMRMSCU", PMRMSCU, 4, Access::ReadWrite),
];

impl Property {
    /// The property that covers the byte at `offset`. Bounded by the length of [`PROPERTIES`].
    #[must_use]
    pub fn at(offset: u32) -> Option<&'static Self> {
        PROPERTIES.iter().find(|property| offset.wrapping_sub(property.offset) < property.size)
    }
}

/// One doorbell. NVMe Base 2.1 §3.1.4; only bits 15:0 of the value written count.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Doorbell {
    /// Tail of a submission queue.
    SubmissionTail(QueueId),
    /// Head of a completion queue.
    CompletionHead(QueueId),
}

impl Doorbell {
    /// Bytes from the start of the register space, where doorbells lie `stride` bytes apart (see
    /// [`Capabilities::doorbell_stride`]); `None` if that is beyond 4 GiB, which no register space reaches.
    #[must_use]
    pub const fn offset(self, stride: u32) -> Option<u32> {
        let index = match self {
            Self::SubmissionTail(queue) => (queue.get() as u64).wrapping_mul(2),
            Self::CompletionHead(queue) => (queue.get() as u64).wrapping_mul(2).wrapping_add(1),
        };
        let offset = index.wrapping_mul(stride as u64).wrapping_add(DOORBELLS as u64);
        if offset > u32::MAX as u64 { None } else { Some(offset as u32) }
    }

    /// The doorbell at `offset`, where doorbells lie `stride` bytes apart; `None` below the doorbells, between two
    /// of them, or beyond those of queue 65,535.
    #[must_use]
    pub const fn at(offset: u32, stride: u32) -> Option<Self> {
        if offset < DOORBELLS {
            return None;
        }
        let distance = offset.wrapping_sub(DOORBELLS);
        let (Some(index), Some(0)) = (distance.checked_div(stride), distance.checked_rem(stride)) else {
            return None;
        };
        if index >> 1 > 0xFFFF {
            return None;
        }
        let queue = QueueId::new((index >> 1) as u16);
        Some(if index & 1 == 0 { Self::SubmissionTail(queue) } else { Self::CompletionHead(queue) })
    }
}

/// Offset of the tail doorbell of submission queue `queue`, see [`Doorbell::offset`].
#[must_use]
pub const fn sq_tail(queue: QueueId, stride: u32) -> Option<u32> {
    Doorbell::SubmissionTail(queue).offset(stride)
}

/// Offset of the head doorbell of completion queue `queue`, see [`Doorbell::offset`].
#[must_use]
pub const fn cq_head(queue: QueueId, stride: u32) -> Option<u32> {
    Doorbell::CompletionHead(queue).offset(stride)
}

/// Defines a `Copy` type over the bits of a property.
macro_rules! property_bits {
    ($(#[$meta:meta])* $name:ident($bits:ty)) => {
        $(#[$meta])*
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
        pub struct $name($bits);

        impl $name {
            /// Takes all bits as they are read.
            #[must_use]
            pub const fn from_bits(bits: $bits) -> Self {
                Self(bits)
            }

            /// All bits as they are written.
            #[must_use]
            pub const fn bits(self) -> $bits {
                self.0
            }
        }
    };
}

/// Defines a getter and a setter for each field of a type over bits.
macro_rules! bit_fields {
    ($name:ident($bits:ty) { $($(#[$meta:meta])* [$high:literal : $low:literal] $get:ident / $with:ident: $type:ty;)* }) => {
        impl $name {
            $(
                $(#[$meta])*
                #[doc = concat!(" Bits ", stringify!($high), ":", stringify!($low), ".")]
                #[must_use]
                pub const fn $get(self) -> $type {
                    const MASK: $bits = <$bits>::MAX >> (<$bits>::BITS - 1 - ($high - $low));
                    ((self.0 >> $low) & MASK) as $type
                }

                #[doc = concat!("The same bits with [`", stringify!($get), "`](Self::", stringify!($get), ") set to `value`.")]
                #[must_use]
                pub const fn $with(self, value: $type) -> Self {
                    const MASK: $bits = <$bits>::MAX >> (<$bits>::BITS - 1 - ($high - $low));
                    Self((self.0 & !(MASK << $low)) | ((value as $bits & MASK) << $low))
                }
            )*
        }
    };
}

/// Defines a getter and a setter for each single bit of a type over bits.
macro_rules! bit_flags {
    ($name:ident($bits:ty) { $($(#[$meta:meta])* [$bit:literal] $get:ident / $with:ident;)* }) => {
        impl $name {
            $(
                $(#[$meta])*
                #[doc = concat!(" Bit ", stringify!($bit), ".")]
                #[must_use]
                pub const fn $get(self) -> bool {
                    self.0 & (1 << $bit) != 0
                }

                #[doc = concat!("The same bits with [`", stringify!($get), "`](Self::", stringify!($get), ") set to `value`.")]
                #[must_use]
                pub const fn $with(self, value: bool) -> Self {
                    Self((self.0 & !(1 << $bit)) | ((value as $bits) << $bit))
                }
            )*
        }
    };
}

pub(crate) use {bit_fields, bit_flags, property_bits};

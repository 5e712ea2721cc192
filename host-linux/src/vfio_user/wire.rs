// SPDX-License-Identifier: MIT OR Apache-2.0
//! Messages as bytes: the header of every message and the fixed part of each payload. vfio-user protocol, "Protocol
//! Specification".
//!
//! Numbers are in the byte order of the machine, as the protocol has it; what is behind a register is little-endian.

use std::fmt;

/// Bytes in a header.
pub const HEADER: usize = 16;

/// Message type in [`Header::flags`]: zero for a command, [`REPLY`] for a reply.
pub const TYPE: u32 = 0xF;
/// A reply.
pub const REPLY: u32 = 1;
/// A command that wants no reply.
pub const NO_REPLY: u32 = 1 << 4;
/// A reply that says that the command failed.
pub const ERROR: u32 = 1 << 5;

/// What a message is about. Unknown values are legal here.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Command(pub u16);

macro_rules! commands {
    ($($(#[$doc:meta])* $name:ident = $value:literal;)+) => {
        impl Command {
            $($(#[$doc])* pub const $name: Self = Self($value);)+

            /// The specification's name, without its prefix.
            #[must_use]
            pub const fn name(self) -> Option<&'static str> {
                match self.0 {
                    $($value => Some(stringify!($name)),)+
                    _ => None,
                }
            }
        }
    };
}

commands! {
    /// Agree on version and capabilities: the first message.
    VERSION = 1;
    /// Memory that the server may access.
    DMA_MAP = 2;
    /// Memory that the server may access no longer.
    DMA_UNMAP = 3;
    /// What the device is.
    DEVICE_GET_INFO = 4;
    /// What a region is.
    DEVICE_GET_REGION_INFO = 5;
    /// Descriptors that stand for parts of a region.
    DEVICE_GET_REGION_IO_FDS = 6;
    /// What a kind of interrupt is.
    DEVICE_GET_IRQ_INFO = 7;
    /// How interrupts are delivered.
    DEVICE_SET_IRQS = 8;
    /// Read from a region.
    REGION_READ = 9;
    /// Write to a region.
    REGION_WRITE = 10;
    /// Read memory of the client that has no descriptor.
    DMA_READ = 11;
    /// Write memory of the client that has no descriptor.
    DMA_WRITE = 12;
    /// Reset the device.
    DEVICE_RESET = 13;
    /// Several writes at once.
    REGION_WRITE_MULTI = 15;
    /// Get, set or probe a feature, of which migration is one.
    DEVICE_FEATURE = 16;
    /// Read migration data.
    MIG_DATA_READ = 17;
    /// Write migration data.
    MIG_DATA_WRITE = 18;
}

impl fmt::Display for Command {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.name() {
            Some(name) => f.write_str(name),
            None => write!(f, "command {}", self.0),
        }
    }
}

/// Defines a structure of numbers that follow each other without gaps.
macro_rules! record {
    ($(#[$doc:meta])* $name:ident, $len:literal { $($(#[$field_doc:meta])* $field:ident: $type:ty,)+ }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
        pub struct $name {
            $($(#[$field_doc])* pub $field: $type,)+
        }

        impl $name {
            /// Bytes.
            pub const LEN: usize = 0 $(+ size_of::<$type>())+;

            /// Reads the structure at the start of `bytes`; `None` if they are too few.
            #[must_use]
            pub fn parse(bytes: &[u8]) -> Option<Self> {
                $(let (field, bytes) = bytes.split_first_chunk()?;
                let $field = <$type>::from_ne_bytes(*field);)+
                let _rest = bytes;
                Some(Self { $($field,)+ })
            }

            /// Appends the structure to `bytes`.
            pub fn put(&self, bytes: &mut Vec<u8>) {
                $(bytes.extend_from_slice(&self.$field.to_ne_bytes());)+
            }

            /// The structure as bytes.
            #[must_use]
            pub fn bytes(&self) -> Vec<u8> {
                let mut bytes = Vec::with_capacity(Self::LEN);
                self.put(&mut bytes);
                bytes
            }
        }

        const _: () = assert!($name::LEN == $len);
    };
}

record! {
    /// Before every message.
    Header, 16 {
        /// Chosen by the sender of a command, echoed in the reply.
        id: u16,
        /// [`Command`].
        command: u16,
        /// Bytes of the whole message.
        size: u32,
        /// [`TYPE`], [`NO_REPLY`], [`ERROR`].
        flags: u32,
        /// Why the command failed, if it did: an errno, or zero.
        error: u32,
    }
}

record! {
    /// VERSION, before the capabilities.
    Version, 4 {
        /// Must be equal.
        major: u16,
        /// The smaller one counts.
        minor: u16,
    }
}

record! {
    /// DMA_MAP.
    DmaMap, 32 {
        /// Bytes of the payload.
        argsz: u32,
        /// [`DMA_READ`], [`DMA_WRITE`].
        flags: u32,
        /// Where in the file of the descriptor the memory begins.
        offset: u64,
        /// Its bus address.
        address: u64,
        /// Its bytes.
        size: u64,
    }
}

/// The server may read the memory.
pub const DMA_READ: u32 = 1 << 0;
/// The server may write the memory.
pub const DMA_WRITE: u32 = 1 << 1;

record! {
    /// DMA_UNMAP, and its reply.
    DmaUnmap, 24 {
        /// Bytes of the reply at most.
        argsz: u32,
        /// [`UNMAP_ALL`].
        flags: u32,
        /// As mapped; zero for all.
        address: u64,
        /// As mapped; zero for all.
        size: u64,
    }
}

/// All memory, whatever was mapped.
pub const UNMAP_ALL: u32 = 1 << 1;

record! {
    /// DEVICE_GET_INFO, and its reply.
    DeviceInfo, 16 {
        /// Bytes of the reply at most; in the reply, bytes needed.
        argsz: u32,
        /// [`DEVICE_RESETS`], [`DEVICE_PCI`].
        flags: u32,
        /// Number of regions.
        regions: u32,
        /// Number of kinds of interrupt.
        irqs: u32,
    }
}

/// The device can be reset.
pub const DEVICE_RESETS: u32 = 1 << 0;
/// It is a PCI function.
pub const DEVICE_PCI: u32 = 1 << 1;
/// Regions of a PCI function: six base address registers, the expansion ROM, configuration space, VGA.
pub const REGIONS: u32 = 9;
/// The region behind base address register 0.
pub const BAR0: u32 = 0;
/// The region of PCI configuration space.
pub const CONFIGURATION: u32 = 7;
/// Kinds of interrupt of a PCI function: INTx, MSI, MSI-X, errors, requests.
pub const IRQS: u32 = 5;
/// MSI-X.
pub const MSIX: u32 = 2;
/// An error that the device cannot recover from.
pub const ERRORS: u32 = 3;
/// The device asks to be given back.
pub const REQUESTS: u32 = 4;

record! {
    /// DEVICE_GET_REGION_INFO, and its reply before the capabilities.
    RegionInfo, 32 {
        /// Bytes of the reply at most; in the reply, bytes needed.
        argsz: u32,
        /// [`REGION_READ`], [`REGION_WRITE`], [`REGION_MMAP`], [`REGION_CAPS`].
        flags: u32,
        /// Which region.
        index: u32,
        /// Where capabilities begin, from the start of this structure.
        cap_offset: u32,
        /// Bytes in the region.
        size: u64,
        /// Where in the file of the descriptor the region begins.
        offset: u64,
    }
}

/// The region can be read.
pub const REGION_READ: u32 = 1 << 0;
/// The region can be written.
pub const REGION_WRITE: u32 = 1 << 1;
/// The region, or parts of it, can be mapped through the descriptor that comes with the reply.
pub const REGION_MMAP: u32 = 1 << 2;
/// Capabilities follow.
pub const REGION_CAPS: u32 = 1 << 3;

record! {
    /// Before every capability of a region.
    CapabilityHeader, 8 {
        /// [`SPARSE_MMAP`], or one of no interest here.
        id: u16,
        /// Of the capability.
        version: u16,
        /// Where the next one begins, from the start of the region's information; zero for none.
        next: u32,
    }
}

/// The capability that lists what of a region can be mapped.
pub const SPARSE_MMAP: u16 = 1;

record! {
    /// [`SPARSE_MMAP`] before its areas.
    SparseMmap, 8 {
        /// Number of areas.
        areas: u32,
        /// Zero.
        reserved: u32,
    }
}

record! {
    /// A part of a region that can be mapped.
    SparseArea, 16 {
        /// First byte, from the start of the region.
        offset: u64,
        /// Bytes.
        size: u64,
    }
}

record! {
    /// DEVICE_GET_IRQ_INFO, and its reply.
    IrqInfo, 16 {
        /// Bytes of the reply at most; in the reply, bytes needed.
        argsz: u32,
        /// [`IRQ_EVENTFD`], [`IRQ_NO_RESIZE`].
        flags: u32,
        /// Which kind.
        index: u32,
        /// How many there are.
        count: u32,
    }
}

/// Interrupts can be told by eventfd.
pub const IRQ_EVENTFD: u32 = 1 << 0;
/// Interrupts are set up as a set.
pub const IRQ_NO_RESIZE: u32 = 1 << 3;

record! {
    /// DEVICE_SET_IRQS, before its data.
    IrqSet, 20 {
        /// Bytes of the payload, data included.
        argsz: u32,
        /// One of the data flags and one of the action flags.
        flags: u32,
        /// Which kind.
        index: u32,
        /// The first one.
        start: u32,
        /// How many.
        count: u32,
    }
}

/// No data: all of the range.
pub const IRQ_DATA_NONE: u32 = 1 << 0;
/// A byte for each interrupt of the range.
pub const IRQ_DATA_BOOL: u32 = 1 << 1;
/// A descriptor for each interrupt of the range.
pub const IRQ_DATA_EVENTFD: u32 = 1 << 2;
/// What is set up, or done, is triggering.
pub const IRQ_ACTION_TRIGGER: u32 = 1 << 5;

record! {
    /// REGION_READ, REGION_WRITE and their replies, before the data.
    Access, 16 {
        /// First byte, from the start of the region.
        offset: u64,
        /// Which region.
        region: u32,
        /// Bytes.
        count: u32,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn structures_are_read_as_they_are_written() {
        let header = Header { id: 0x1234, command: 9, size: 0x5678_9ABC, flags: REPLY | ERROR, error: 22 };
        let mut bytes = header.bytes();
        assert_eq!(bytes.len(), HEADER);
        assert_eq!(bytes.get(..4), Some([0x1234_u16.to_ne_bytes(), 9_u16.to_ne_bytes()].as_flattened()));
        assert_eq!(Header::parse(&bytes), Some(header));
        bytes.push(7);
        assert_eq!(Header::parse(&bytes), Some(header), "what follows is not its");
        assert_eq!(Header::parse(&bytes[..15]), None);
        let map = DmaMap { argsz: 32, flags: 3, offset: 1 << 40, address: 1 << 50, size: 1 << 12 };
        assert_eq!(DmaMap::parse(&map.bytes()), Some(map));
    }

    #[test]
    fn commands_have_names() {
        assert_eq!(Command::REGION_WRITE.to_string(), "REGION_WRITE");
        assert_eq!(Command(14).to_string(), "command 14");
        assert_eq!(Command(19).name(), None);
    }
}

// SPDX-License-Identifier: MIT OR Apache-2.0
//! What the checking arena finds.

use core::fmt;

use crate::dma::Evidence;
use crate::wire::BusAddr;

/// Who accessed memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Side {
    /// The processor: the driver or its user.
    Cpu,
    /// The device.
    Device,
}

/// What a device does with memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Access {
    /// It reads.
    Read,
    /// It writes.
    Write,
}

/// When something missing was noticed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Moment {
    /// The device read the bytes.
    DeviceRead,
    /// The device wrote the bytes.
    DeviceWrite,
    /// The processor read the bytes.
    CpuRead,
    /// The bytes were published.
    Publish,
    /// The bytes were acquired.
    Acquire,
    /// The region was released.
    Release,
}

/// One misuse of device memory. Addresses are bus addresses; lengths are bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Violation {
    /// A region was released that had been released before.
    DoubleRelease {
        /// Its first byte.
        region: BusAddr,
        /// Its length.
        len: usize,
    },
    /// A region was released, published or acquired that is none of the arena's.
    ForeignRegion {
        /// Its first byte.
        region: BusAddr,
        /// Its length.
        len: usize,
    },
    /// A region was released with no evidence that the device let go, or with evidence that says nothing about it.
    ReleaseWithoutProof {
        /// Its first byte.
        region: BusAddr,
        /// Its length.
        len: usize,
        /// What was shown instead, `None` if nothing.
        evidence: Option<Evidence>,
    },
    /// A region was released while a command that uses it was outstanding.
    ReleaseInUse {
        /// Its first byte.
        region: BusAddr,
        /// Its length.
        len: usize,
        /// Commands that use it.
        commands: u32,
    },
    /// Released memory was accessed: by the device as it said, by either side as the memory shows.
    UseAfterRelease {
        /// First byte accessed.
        address: BusAddr,
        /// Length of the access, or 1 if only its result was seen.
        len: usize,
        /// Who did it.
        side: Side,
    },
    /// The processor named bytes outside its region.
    CpuOutOfRange {
        /// First byte of the region.
        region: BusAddr,
        /// First byte named, from the start of the region.
        offset: usize,
        /// Bytes named.
        len: usize,
    },
    /// The device accessed memory that no region covers.
    DeviceOutOfRange {
        /// First byte that is not covered.
        address: BusAddr,
        /// What it did.
        access: Access,
    },
    /// The device did what the region's direction forbids: it wrote memory that it may only read, or the reverse.
    WrongDirection {
        /// First byte accessed.
        address: BusAddr,
        /// What it did.
        access: Access,
    },
    /// The processor's bytes did not reach the device: they were written and not published, or nothing was.
    MissingPublish {
        /// The first such byte.
        address: BusAddr,
        /// How it was noticed.
        at: Moment,
    },
    /// The device's bytes did not reach the processor.
    MissingAcquire {
        /// The first such byte.
        address: BusAddr,
        /// How it was noticed.
        at: Moment,
    },
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::DoubleRelease { region, len } => {
                write!(f, "region {region} of {len} bytes was released twice; its owner gives it back once")
            }
            Self::ForeignRegion { region, len } => {
                write!(
                    f,
                    "region {region} of {len} bytes is none of this arena's; use the arena it came from"
                )
            }
            Self::ReleaseWithoutProof { region, len, evidence } => write!(
                f,
                "region {region} of {len} bytes was released on {evidence:?}, which does not show that the device let go"
            ),
            Self::ReleaseInUse { region, len, commands } => write!(
                f,
                "region {region} of {len} bytes was released under {commands} outstanding commands; wait for them"
            ),
            Self::UseAfterRelease { address, len, side } => {
                write!(f, "{side:?} accessed {len} bytes at {address} after their release")
            }
            Self::CpuOutOfRange { region, offset, len } => {
                write!(f, "bytes {offset} and {len} on are outside region {region}")
            }
            Self::DeviceOutOfRange { address, access } => {
                write!(f, "device {access:?} at {address}, where no region is")
            }
            Self::WrongDirection { address, access } => {
                write!(f, "device {access:?} at {address}, against the region's direction")
            }
            Self::MissingPublish { address, at } => {
                write!(f, "byte {address} was not published, seen at {at:?}; publish before the doorbell")
            }
            Self::MissingAcquire { address, at } => {
                write!(f, "byte {address} was not acquired, seen at {at:?}; acquire after the completion")
            }
        }
    }
}

impl core::error::Error for Violation {}

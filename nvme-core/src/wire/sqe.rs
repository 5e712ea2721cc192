// SPDX-License-Identifier: MIT OR Apache-2.0
//! Submission Queue Entry. NVMe Base 2.1 §4.1, Submission Queue Entry.

use zerocopy::byteorder::little_endian::{U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use super::{BusAddr, CommandId, NamespaceId};

/// Submission Queue Entry (SQE): 64 bytes, little-endian.
#[repr(C)]
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned,
)]
pub struct SubmissionQueueEntry {
    cdw0: U32,
    nsid: U32,
    cdw2: U32,
    cdw3: U32,
    mptr: U64,
    prp1: U64,
    prp2: U64,
    cdw10_15: [U32; 6],
}
static_assertions::const_assert_eq!(size_of::<SubmissionQueueEntry>(), 64);

/// Submission Queue Entry.
pub type Sqe = SubmissionQueueEntry;

/// How the data of a command is described (PSDT, CDW0 bits 15:14).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DataPointerKind {
    /// 00b: PRPs.
    Prp,
    /// 01b: SGL, metadata by address.
    SglMetadataAddress,
    /// 10b: SGL, metadata by SGL.
    SglMetadataSgl,
    /// 11b: reserved.
    Reserved,
}

/// Fused operation (FUSE, CDW0 bits 9:8).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fuse {
    /// 00b: not fused.
    Normal,
    /// 01b: first command of a fused operation.
    First,
    /// 10b: second command of a fused operation.
    Second,
    /// 11b: reserved.
    Reserved,
}

impl SubmissionQueueEntry {
    /// An entry of all zeroes but for the opcode; the CID and the data pointer are added when it is submitted.
    #[must_use]
    pub const fn new(opcode: u8) -> Self {
        Self {
            cdw0: U32::new(opcode as u32),
            nsid: U32::ZERO,
            cdw2: U32::ZERO,
            cdw3: U32::ZERO,
            mptr: U64::ZERO,
            prp1: U64::ZERO,
            prp2: U64::ZERO,
            cdw10_15: [U32::ZERO; 6],
        }
    }

    /// The entry with namespace `nsid`.
    #[must_use]
    pub const fn with_namespace(mut self, nsid: NamespaceId) -> Self {
        self.nsid = U32::new(nsid.get());
        self
    }

    /// The entry with command identifier `cid`.
    #[must_use]
    pub const fn with_command_id(mut self, cid: CommandId) -> Self {
        self.cdw0 = U32::new((self.cdw0.get() & 0xFFFF) | ((cid.get() as u32) << 16));
        self
    }

    /// The entry with both PRP fields set.
    #[must_use]
    pub const fn with_prps(mut self, prp1: BusAddr, prp2: BusAddr) -> Self {
        self.prp1 = U64::new(prp1.get());
        self.prp2 = U64::new(prp2.get());
        self
    }

    /// The entry with the fused-operation bits set.
    #[must_use]
    pub const fn with_fuse(mut self, fuse: Fuse) -> Self {
        let bits = match fuse {
            Fuse::Normal => 0,
            Fuse::First => 1,
            Fuse::Second => 2,
            Fuse::Reserved => 3,
        };
        self.cdw0 = U32::new((self.cdw0.get() & !0x300) | (bits << 8));
        self
    }

    /// The entry with command dwords 10 to 15 replaced.
    #[must_use]
    pub const fn with_dwords(mut self, cdw10_15: [u32; 6]) -> Self {
        let [a, b, c, d, e, f] = cdw10_15;
        self.cdw10_15 = [U32::new(a), U32::new(b), U32::new(c), U32::new(d), U32::new(e), U32::new(f)];
        self
    }

    /// The entry with command dwords 2 and 3 replaced.
    #[must_use]
    pub const fn with_dwords_2_3(mut self, cdw2: u32, cdw3: u32) -> Self {
        self.cdw2 = U32::new(cdw2);
        self.cdw3 = U32::new(cdw3);
        self
    }

    /// Opcode (CDW0 bits 7:0).
    #[must_use]
    pub const fn opcode(&self) -> u8 {
        (self.cdw0.get() & 0xFF) as u8
    }

    /// Fused operation (CDW0 bits 9:8).
    #[must_use]
    pub const fn fuse(&self) -> Fuse {
        match (self.cdw0.get() >> 8) & 3 {
            0 => Fuse::Normal,
            1 => Fuse::First,
            2 => Fuse::Second,
            _ => Fuse::Reserved,
        }
    }

    /// PRP or SGL (CDW0 bits 15:14).
    #[must_use]
    pub const fn data_pointer_kind(&self) -> DataPointerKind {
        match (self.cdw0.get() >> 14) & 3 {
            0 => DataPointerKind::Prp,
            1 => DataPointerKind::SglMetadataAddress,
            2 => DataPointerKind::SglMetadataSgl,
            _ => DataPointerKind::Reserved,
        }
    }

    /// Command identifier (CDW0 bits 31:16).
    #[must_use]
    pub const fn command_id(&self) -> CommandId {
        CommandId::new((self.cdw0.get() >> 16) as u16)
    }

    /// Namespace identifier.
    #[must_use]
    pub const fn namespace(&self) -> NamespaceId {
        NamespaceId::new(self.nsid.get())
    }

    /// Command dword 2.
    #[must_use]
    pub const fn cdw2(&self) -> u32 {
        self.cdw2.get()
    }

    /// Command dword 3.
    #[must_use]
    pub const fn cdw3(&self) -> u32 {
        self.cdw3.get()
    }

    /// Metadata pointer.
    #[must_use]
    pub const fn metadata_pointer(&self) -> BusAddr {
        BusAddr::new(self.mptr.get())
    }

    /// PRP Entry 1.
    #[must_use]
    pub const fn prp1(&self) -> BusAddr {
        BusAddr::new(self.prp1.get())
    }

    /// PRP Entry 2.
    #[must_use]
    pub const fn prp2(&self) -> BusAddr {
        BusAddr::new(self.prp2.get())
    }

    /// Command dwords 10 to 15.
    #[must_use]
    pub const fn dwords(&self) -> [u32; 6] {
        let [a, b, c, d, e, f] = self.cdw10_15;
        [a.get(), b.get(), c.get(), d.get(), e.get(), f.get()]
    }
}

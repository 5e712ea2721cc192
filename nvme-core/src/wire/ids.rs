// SPDX-License-Identifier: MIT OR Apache-2.0
//! Identifiers: one type for each kind of number, so that they cannot be mixed up.

use core::fmt;

macro_rules! identifier {
    ($(#[$meta:meta])* $name:ident($inner:ty), $format:literal) => {
        $(#[$meta])*
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name($inner);

        impl $name {
            /// Wraps the number as it stands on the wire.
            #[must_use]
            pub const fn new(value: $inner) -> Self {
                Self(value)
            }

            /// The number as it stands on the wire.
            #[must_use]
            pub const fn get(self) -> $inner {
                self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, $format, self.0)
            }
        }
    };
}

identifier! {
    /// Queue identifier (QID): 0 is the admin queue pair, I/O queues start at 1.
    QueueId(u16), "{}"
}
identifier! {
    /// Command identifier (CID): unique among the outstanding commands of one submission queue.
    CommandId(u16), "{:#06x}"
}
identifier! {
    /// Namespace identifier (NSID): 0 where unused, `FFFFFFFFh` for all namespaces.
    NamespaceId(u32), "{:#x}"
}
identifier! {
    /// Controller identifier (CNTLID) of any controller of a subsystem.
    ControllerId(u16), "{:#06x}"
}
identifier! {
    /// Controller Data Queue identifier (CDQID): any value, unique for the controller that owns the queue.
    CdqId(u16), "{}"
}
identifier! {
    /// An address in a device's address space: what is written into PRPs. Not a CPU address.
    BusAddr(u64), "{:#x}"
}
identifier! {
    /// Logical block address.
    Lba(u64), "{:#x}"
}

impl QueueId {
    /// The admin queue pair.
    pub const ADMIN: Self = Self(0);
}

impl NamespaceId {
    /// No namespace: the value of commands that do not use the field.
    pub const NONE: Self = Self(0);
    /// The broadcast value: all namespaces.
    pub const ALL: Self = Self(u32::MAX);
}

impl BusAddr {
    /// The address `bytes` further on; wraps at the end of the address space, where nothing is mapped.
    #[must_use]
    pub const fn plus(self, bytes: u64) -> Self {
        Self(self.0.wrapping_add(bytes))
    }

    /// Offset inside a page of `page` bytes, a power of two.
    #[must_use]
    pub const fn page_offset(self, page: u64) -> u64 {
        self.0 & page.wrapping_sub(1)
    }
}

/// The Migration Management Controller: processes every migration command on its admin queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ManagerId(ControllerId);

impl ManagerId {
    /// Names `id` as the managing controller.
    #[must_use]
    pub const fn new(id: ControllerId) -> Self {
        Self(id)
    }

    /// The controller identifier.
    #[must_use]
    pub const fn controller(self) -> ControllerId {
        self.0
    }
}

/// The Migratable Controller: belongs to the guest and is named, never addressed, by migration commands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct TrackedId(ControllerId);

/// The controller named for tracking is the managing controller itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TargetIsManager(pub ControllerId);

impl TrackedId {
    /// Names `id` as the controller that `manager` tracks.
    ///
    /// # Errors
    /// [`TargetIsManager`] if both are the same: a managing controller may not be migrated (NVMe Base 2.1 §8.1.12).
    pub fn new(id: ControllerId, manager: ManagerId) -> Result<Self, TargetIsManager> {
        if id == manager.controller() { Err(TargetIsManager(id)) } else { Ok(Self(id)) }
    }

    /// The controller identifier.
    #[must_use]
    pub const fn controller(self) -> ControllerId {
        self.0
    }
}

// SPDX-License-Identifier: MIT OR Apache-2.0
//! Namespaces: shared by all controllers of the subsystem.

use nvme_core::wire::{Lba, NamespaceId, StatusCode};

use crate::host::{BlockStorage, StorageError};

/// A namespace over the storage behind it.
#[derive(Debug)]
pub struct Namespace<S> {
    pub(crate) id: NamespaceId,
    pub(crate) storage: S,
    pub(crate) unique_id: [u8; 16],
}

impl<S: BlockStorage> Namespace<S> {
    /// The namespace `id` over `storage`. `unique_id` is its globally unique identifier (NGUID), which hosts use to
    /// recognise it, all zero for none.
    #[must_use]
    pub const fn new(id: NamespaceId, storage: S, unique_id: [u8; 16]) -> Self {
        Self { id, storage, unique_id }
    }

    /// Its identifier.
    #[must_use]
    pub const fn id(&self) -> NamespaceId {
        self.id
    }

    /// The storage it was given.
    #[must_use]
    pub const fn storage(&self) -> &S {
        &self.storage
    }

    /// Bytes of one block.
    pub(crate) fn block_bytes(&self) -> usize {
        1_usize.checked_shl(u32::from(self.storage.block_shift())).unwrap_or(usize::MAX)
    }

    /// Checks that `blocks` blocks from `start` on exist.
    #[inline]
    pub(crate) fn check(&self, start: Lba, blocks: u64) -> Result<(), StatusCode> {
        match start.get().checked_add(blocks) {
            Some(end) if end <= self.storage.blocks() => Ok(()),
            _ => Err(StatusCode::LBA_OUT_OF_RANGE),
        }
    }
}

impl From<StorageError> for StatusCode {
    fn from(error: StorageError) -> Self {
        match error {
            StorageError::Read => Self::UNRECOVERED_READ_ERROR,
            StorageError::Write => Self::WRITE_FAULT,
            StorageError::CapacityExceeded => Self::CAPACITY_EXCEEDED,
            StorageError::WriteProtected => Self::NAMESPACE_WRITE_PROTECTED,
        }
    }
}

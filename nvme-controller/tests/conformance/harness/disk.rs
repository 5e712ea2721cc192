// SPDX-License-Identifier: MIT OR Apache-2.0
//! Media in memory: sparse blocks that know whether they are allocated, with errors where a test asks for them.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

use nvme_controller::host::{BlockStorage, StorageError};
use nvme_core::wire::Lba;

/// Media behind a namespace. Clones are the same media.
#[derive(Clone)]
pub(crate) struct Disk(Rc<RefCell<Media>>);

struct Media {
    shift: u8,
    blocks: u64,
    content: BTreeMap<u64, Vec<u8>>,
    unreadable: BTreeSet<u64>,
    read_error: Option<(u64, StorageError)>,
    write_error: Option<(u64, StorageError)>,
    flush_error: bool,
    flushes: u32,
}

impl Media {
    fn check(&self, start: u64, blocks: u64) {
        let end = start.checked_add(blocks).expect("a range that ends");
        assert!(end <= self.blocks, "blocks {start}..{end} of {}", self.blocks);
    }

    fn error(error: Option<(u64, StorageError)>, start: u64, blocks: u64) -> Result<(), StorageError> {
        match error {
            Some((lba, error)) if (start..start + blocks).contains(&lba) => Err(error),
            _ => Ok(()),
        }
    }

    fn block(&self, lba: u64) -> Vec<u8> {
        self.content.get(&lba).cloned().unwrap_or_else(|| vec![0; 1 << self.shift])
    }
}

/// The test's side.
impl Disk {
    /// `blocks` deallocated blocks of `1 << shift` bytes.
    pub(crate) fn new(shift: u8, blocks: u64) -> Self {
        Self(Rc::new(RefCell::new(Media {
            shift,
            blocks,
            content: BTreeMap::new(),
            unreadable: BTreeSet::new(),
            read_error: None,
            write_error: None,
            flush_error: false,
            flushes: 0,
        })))
    }

    pub(crate) fn block(&self, lba: u64) -> Vec<u8> {
        self.0.borrow().block(lba)
    }

    pub(crate) fn put(&self, lba: u64, byte: u8) {
        let mut media = self.0.borrow_mut();
        let block = vec![byte; 1 << media.shift];
        media.content.insert(lba, block);
    }

    pub(crate) fn is_allocated(&self, lba: u64) -> bool {
        self.0.borrow().content.contains_key(&lba)
    }

    pub(crate) fn flushes(&self) -> u32 {
        self.0.borrow().flushes
    }

    pub(crate) fn fail_read(&self, lba: u64, error: StorageError) {
        self.0.borrow_mut().read_error = Some((lba, error));
    }

    pub(crate) fn fail_write(&self, lba: u64, error: StorageError) {
        self.0.borrow_mut().write_error = Some((lba, error));
    }

    pub(crate) fn fail_flush(&self) {
        self.0.borrow_mut().flush_error = true;
    }
}

impl BlockStorage for Disk {
    fn block_shift(&self) -> u8 {
        self.0.borrow().shift
    }

    fn blocks(&self) -> u64 {
        self.0.borrow().blocks
    }

    fn read(&mut self, lba: Lba, bytes: &mut [u8]) -> Result<(), StorageError> {
        let media = self.0.borrow();
        let blocks = (bytes.len() >> media.shift) as u64;
        media.check(lba.get(), blocks);
        Media::error(media.read_error, lba.get(), blocks)?;
        for (at, block) in (lba.get()..).zip(bytes.chunks_exact_mut(1 << media.shift)) {
            if media.unreadable.contains(&at) {
                return Err(StorageError::Read);
            }
            block.copy_from_slice(&media.block(at));
        }
        Ok(())
    }

    fn write(&mut self, lba: Lba, bytes: &[u8]) -> Result<(), StorageError> {
        let mut media = self.0.borrow_mut();
        let blocks = (bytes.len() >> media.shift) as u64;
        media.check(lba.get(), blocks);
        Media::error(media.write_error, lba.get(), blocks)?;
        let size = 1 << media.shift;
        for (at, block) in (lba.get()..).zip(bytes.chunks_exact(size)) {
            media.unreadable.remove(&at);
            media.content.insert(at, block.to_vec());
        }
        Ok(())
    }

    fn write_zeroes(&mut self, lba: Lba, blocks: u64, deallocate: bool) -> Result<(), StorageError> {
        let mut media = self.0.borrow_mut();
        media.check(lba.get(), blocks);
        Media::error(media.write_error, lba.get(), blocks)?;
        let range = lba.get()..lba.get() + blocks;
        media.content.retain(|at, _| !range.contains(at));
        media.unreadable.retain(|at| !range.contains(at));
        if !deallocate {
            let zeroes = vec![0; 1 << media.shift];
            media.content.extend(range.map(|at| (at, zeroes.clone())));
        }
        Ok(())
    }

    fn flush(&mut self) -> Result<(), StorageError> {
        let mut media = self.0.borrow_mut();
        if media.flush_error {
            return Err(StorageError::Write);
        }
        media.flushes += 1;
        Ok(())
    }

    fn allocated(&self, lba: Lba, limit: u64) -> (bool, u64) {
        let media = self.0.borrow();
        let first = media.content.contains_key(&lba.get());
        let same = (lba.get()..lba.get() + limit).take_while(|at| media.content.contains_key(at) == first);
        (first, same.count() as u64)
    }

    fn set_uncorrectable(&mut self, lba: Lba, blocks: u64) -> Result<(), StorageError> {
        let mut media = self.0.borrow_mut();
        media.check(lba.get(), blocks);
        Media::error(media.write_error, lba.get(), blocks)?;
        media.unreadable.extend(lba.get()..lba.get() + blocks);
        Ok(())
    }
}

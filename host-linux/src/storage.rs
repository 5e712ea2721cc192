// SPDX-License-Identifier: MIT OR Apache-2.0
//! The media behind a namespace: a file, or memory that behaves like one.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::sync::Arc;

use nvme_controller::host::{BlockStorage, StorageError};
use nvme_core::wire::Lba;
use rustix::fs::{FallocateFlags, MemfdFlags, SeekFrom, fallocate, memfd_create, seek};
use rustix::io::Errno;

use crate::marks::Marks;
use crate::witness::Witness;

/// Bytes written at once where zeroes have to be written one by one.
const ZEROES: &[u8] = &[0; 1 << 16];

/// A namespace in a file: reads and writes at offsets, holes for deallocated blocks.
///
/// The marks of Write Uncorrectable live in memory only; the file's format has no place for them. They take one bit
/// for each block at most, however they are strewn.
#[derive(Debug)]
pub struct FileStorage {
    file: Arc<File>,
    block_shift: u8,
    blocks: u64,
    uncorrectable: Marks,
    witness: Option<Arc<Witness>>,
}

impl FileStorage {
    /// Uses the whole of `file`, in blocks of `block_size` bytes, a power of two from 512 on.
    ///
    /// # Errors
    /// The file's length cannot be had, is zero or is not a multiple of the block size.
    pub fn new(file: Arc<File>, block_size: u32) -> io::Result<Self> {
        let len = file.metadata()?.len();
        let invalid = |what: String| io::Error::new(io::ErrorKind::InvalidInput, what);
        if !block_size.is_power_of_two() || block_size < 512 {
            return Err(invalid(format!("block size {block_size} is not a power of two from 512 on")));
        }
        if len == 0 || len % u64::from(block_size) != 0 {
            return Err(invalid(format!("length {len} is not a multiple of the block size {block_size}")));
        }
        Ok(Self {
            file,
            block_shift: block_size.trailing_zeros() as u8,
            blocks: len / u64::from(block_size),
            uncorrectable: Marks::default(),
            witness: None,
        })
    }

    /// The same storage, which tells `witness` before blocks change.
    #[must_use]
    pub fn watched(mut self, witness: Arc<Witness>) -> Self {
        self.witness = Some(witness);
        self
    }

    fn tell(&self, lba: Lba, blocks: u64) -> Result<(), StorageError> {
        match &self.witness {
            Some(witness) => witness.about_to_change(lba.get(), blocks).map_err(|_| StorageError::Write),
            None => Ok(()),
        }
    }

    /// Makes `len` bytes of zeroed memory that nothing outside this process can open.
    ///
    /// # Errors
    /// The system has no memory or descriptors left.
    pub fn memory(name: &str, len: u64) -> io::Result<Arc<File>> {
        let file = File::from(memfd_create(name, MemfdFlags::CLOEXEC)?);
        file.set_len(len)?;
        Ok(Arc::new(file))
    }

    fn offset(&self, lba: Lba) -> u64 {
        lba.get() << self.block_shift
    }

    /// Whether the file has data at a block, and for how many blocks the answer stays the same.
    fn has_data(&self, lba: Lba, limit: u64) -> (bool, u64) {
        let start = self.offset(lba);
        // A block that has data anywhere counts as allocated: holes shrink to whole blocks, data grows to them.
        let to_blocks = |bytes: u64| (bytes - start) >> self.block_shift;
        match seek(&*self.file, SeekFrom::Data(start)) {
            Ok(data) if to_blocks(data.max(start)) > 0 => (false, to_blocks(data).min(limit)),
            Ok(_) => match seek(&*self.file, SeekFrom::Hole(start)) {
                Ok(hole) => {
                    let end = hole.max(start + 1).next_multiple_of(1 << self.block_shift);
                    (true, to_blocks(end).clamp(1, limit))
                }
                Err(_) => (true, limit),
            },
            Err(Errno::NXIO) => (false, limit),
            Err(_) => (true, limit),
        }
    }

    fn write_out_zeroes(&self, mut at: u64, mut len: u64) -> Result<(), StorageError> {
        while len > 0 {
            let piece = len.min(ZEROES.len() as u64);
            self.file.write_all_at(&ZEROES[..piece as usize], at).map_err(write_error)?;
            at += piece;
            len -= piece;
        }
        Ok(())
    }
}

fn write_error(error: io::Error) -> StorageError {
    match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded | io::ErrorKind::FileTooLarge => {
            StorageError::CapacityExceeded
        }
        io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => StorageError::WriteProtected,
        _ => StorageError::Write,
    }
}

impl BlockStorage for FileStorage {
    fn block_shift(&self) -> u8 {
        self.block_shift
    }

    fn blocks(&self) -> u64 {
        self.blocks
    }

    fn read(&mut self, lba: Lba, bytes: &mut [u8]) -> Result<(), StorageError> {
        if self.uncorrectable.any(lba.get(), (bytes.len() >> self.block_shift) as u64) {
            return Err(StorageError::Read);
        }
        self.file.read_exact_at(bytes, self.offset(lba)).map_err(|_| StorageError::Read)
    }

    fn write(&mut self, lba: Lba, bytes: &[u8]) -> Result<(), StorageError> {
        let blocks = (bytes.len() >> self.block_shift) as u64;
        self.tell(lba, blocks)?;
        self.file.write_all_at(bytes, self.offset(lba)).map_err(write_error)?;
        self.uncorrectable.clear(lba.get(), blocks);
        Ok(())
    }

    fn write_zeroes(&mut self, lba: Lba, blocks: u64, deallocate: bool) -> Result<(), StorageError> {
        self.tell(lba, blocks)?;
        let (at, len) = (self.offset(lba), blocks << self.block_shift);
        let flags = if deallocate { FallocateFlags::PUNCH_HOLE } else { FallocateFlags::ZERO_RANGE };
        match fallocate(&*self.file, flags | FallocateFlags::KEEP_SIZE, at, len) {
            Ok(()) => {}
            Err(Errno::OPNOTSUPP | Errno::NOSYS | Errno::INVAL) => self.write_out_zeroes(at, len)?,
            Err(error) => return Err(write_error(error.into())),
        }
        self.uncorrectable.clear(lba.get(), blocks);
        Ok(())
    }

    fn flush(&mut self) -> Result<(), StorageError> {
        self.file.sync_data().map_err(write_error)
    }

    fn allocated(&self, lba: Lba, limit: u64) -> (bool, u64) {
        let limit = limit.max(1);
        match self.has_data(lba, limit) {
            // A block that cannot be read is not a deallocated one, which reads as zeroes.
            (false, blocks) => match self.uncorrectable.first(lba.get(), blocks) {
                Some(marked) if marked == lba.get() => (true, self.uncorrectable.run(marked, blocks)),
                Some(marked) => (false, marked - lba.get()),
                None => (false, blocks),
            },
            data => data,
        }
    }

    fn set_uncorrectable(&mut self, lba: Lba, blocks: u64) -> Result<(), StorageError> {
        self.uncorrectable.set(lba.get(), blocks);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn storages(block_size: u32, blocks: u64) -> Vec<(&'static str, FileStorage)> {
        let len = blocks * u64::from(block_size);
        let on_disk = tempfile::tempfile().expect("temporary file");
        on_disk.set_len(len).expect("length");
        vec![
            ("file", FileStorage::new(Arc::new(on_disk), block_size).expect("file storage")),
            (
                "memory",
                FileStorage::new(FileStorage::memory("test", len).expect("memfd"), block_size)
                    .expect("memory storage"),
            ),
        ]
    }

    #[test]
    fn blocks_read_back_and_holes_read_as_zeroes() {
        for block_size in [512u32, 4096] {
            for (name, mut storage) in storages(block_size, 64) {
                let size = block_size as usize;
                assert_eq!((1u32 << storage.block_shift(), storage.blocks()), (block_size, 64), "{name}");
                let pattern: Vec<u8> = (0..3 * size).map(|i| (i % 251) as u8).collect();
                storage.write(Lba::new(5), &pattern).expect("write");
                let mut bytes = vec![0xAA; 5 * size];
                storage.read(Lba::new(4), &mut bytes).expect("read");
                assert_eq!(bytes[..size], vec![0; size], "{name} {block_size}: block before");
                assert_eq!(bytes[size..4 * size], pattern, "{name} {block_size}");
                assert_eq!(bytes[4 * size..], vec![0; size], "{name} {block_size}: block after");
                for deallocate in [false, true] {
                    storage.write(Lba::new(5), &pattern).expect("write");
                    storage.write_zeroes(Lba::new(6), 1, deallocate).expect("zeroes");
                    storage.read(Lba::new(4), &mut bytes).expect("read");
                    assert_eq!(bytes[size..2 * size], pattern[..size], "{name} deallocate {deallocate}");
                    assert_eq!(bytes[2 * size..3 * size], vec![0; size], "{name} deallocate {deallocate}");
                    assert_eq!(bytes[3 * size..4 * size], pattern[2 * size..], "{name} {deallocate}");
                }
                storage.flush().expect("flush");
            }
        }
    }

    #[test]
    fn allocation_follows_writes_and_deallocation() {
        for (name, mut storage) in storages(4096, 256) {
            assert_eq!(storage.allocated(Lba::new(0), 256), (false, 256), "{name}: empty");
            storage.write(Lba::new(64), &vec![1; 64 * 4096]).expect("write");
            assert_eq!(storage.allocated(Lba::new(0), 256), (false, 64), "{name}: before");
            assert_eq!(storage.allocated(Lba::new(64), 256), (true, 64), "{name}: data");
            assert_eq!(storage.allocated(Lba::new(64), 10), (true, 10), "{name}: limit");
            assert_eq!(storage.allocated(Lba::new(128), 128), (false, 128), "{name}: after");
            storage.write_zeroes(Lba::new(64), 64, true).expect("deallocate");
            assert_eq!(storage.allocated(Lba::new(0), 256), (false, 256), "{name}: deallocated");
        }
    }

    #[test]
    fn blocks_that_cannot_be_read_are_not_deallocated_ones() {
        /// Marks, and the runs that are found: first block, blocks and whether they are allocated.
        type Case = (&'static str, &'static [(u64, u64)], &'static [(u64, u64, bool)]);
        let table: &[Case] = &[
            ("none", &[], &[(0, 256, false)]),
            ("at the start", &[(0, 3)], &[(0, 3, true), (3, 253, false)]),
            ("at the end", &[(250, 6)], &[(0, 250, false), (250, 6, true)]),
            (
                "between data and hole",
                &[(62, 1), (128, 2)],
                &[
                    (0, 62, false),
                    (62, 1, true),
                    (63, 1, false),
                    (64, 64, true),
                    (128, 2, true),
                    (130, 126, false),
                ],
            ),
            ("within data", &[(70, 4)], &[(0, 64, false), (64, 64, true), (128, 128, false)]),
        ];
        for (name, marks, expected) in table {
            for (kind, mut storage) in storages(4096, 256) {
                if expected.iter().any(|(start, ..)| *start == 64) {
                    storage.write(Lba::new(64), &vec![1; 64 * 4096]).expect("write");
                }
                for (start, blocks) in *marks {
                    storage.set_uncorrectable(Lba::new(*start), *blocks).expect("mark");
                }
                let mut found = Vec::new();
                let mut at = 0;
                while at < 256 {
                    let (allocated, blocks) = storage.allocated(Lba::new(at), 256 - at);
                    found.push((at, blocks, allocated));
                    at += blocks;
                }
                assert_eq!(found, *expected, "{kind}: {name}");
            }
        }
    }

    #[test]
    fn a_block_with_data_beside_a_hole_counts_as_allocated() {
        for (name, mut storage) in storages(512, 64) {
            storage.write(Lba::new(9), &[7; 512]).expect("write");
            let mut at = 0;
            let mut seen = Vec::new();
            while at < 64 {
                let (allocated, blocks) = storage.allocated(Lba::new(at), 64 - at);
                assert!(blocks >= 1 && at + blocks <= 64, "{name}: {at} {blocks}");
                seen.extend((at..at + blocks).map(|_| allocated));
                at += blocks;
            }
            assert!(seen[9], "{name}: the block written must count as allocated");
            assert!(!seen[40], "{name}: a page away nothing is allocated");
        }
    }

    #[test]
    fn unreadable_blocks_stay_so_until_written() {
        type Step = fn(&mut FileStorage) -> Result<(), StorageError>;
        let table: &[(&str, Step, [bool; 6])] = &[
            ("marked", |_| Ok(()), [true, false, false, false, false, true]),
            ("first written", |s| s.write(Lba::new(1), &[0; 512]), [true, true, false, false, false, true]),
            (
                "middle zeroed",
                |s| s.write_zeroes(Lba::new(3), 1, false),
                [true, false, false, true, false, true],
            ),
            (
                "last deallocated",
                |s| s.write_zeroes(Lba::new(4), 1, true),
                [true, false, false, false, true, true],
            ),
            ("all written", |s| s.write(Lba::new(0), &[0; 6 * 512]), [true; 6]),
            (
                "marked again",
                |s| s.set_uncorrectable(Lba::new(0), 2),
                [false, false, false, false, false, true],
            ),
        ];
        for (name, step, readable) in table {
            for (kind, mut storage) in storages(512, 6) {
                storage.set_uncorrectable(Lba::new(1), 4).expect("mark");
                step(&mut storage).expect(name);
                let found: Vec<bool> =
                    (0..6).map(|lba| storage.read(Lba::new(lba), &mut [0; 512]).is_ok()).collect();
                assert_eq!(found, readable, "{kind}: {name}");
            }
        }
    }

    #[test]
    fn lengths_that_do_not_fit_are_refused() {
        for (len, block_size, word) in
            [(0u64, 512u32, "length 0"), (1000, 512, "1000"), (4096 + 512, 4096, "4608"), (4096, 500, "500")]
        {
            let file = FileStorage::memory("odd", len).expect("memfd");
            let error = FileStorage::new(file, block_size).expect_err("must be refused");
            assert!(error.to_string().contains(word), "{len} {block_size}: {error}");
        }
    }

    #[test]
    fn writes_beyond_a_read_only_descriptor_are_reported() {
        let dir = tempfile::tempdir().expect("directory");
        let path = dir.path().join("image");
        std::fs::write(&path, vec![0; 4096]).expect("create");
        let file = Arc::new(File::open(&path).expect("open"));
        let mut storage = FileStorage::new(file, 512).expect("storage");
        assert_eq!(storage.write(Lba::new(0), &[1; 512]), Err(StorageError::Write));
    }
}

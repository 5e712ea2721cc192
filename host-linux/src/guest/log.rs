// SPDX-License-Identifier: MIT OR Apache-2.0
//! The log of acknowledged writes: what must be found on the authoritative image whatever happened meanwhile.
//!
//! One record of 16 bytes for each block of each acknowledged write: block number and version, both little-endian
//! 64-bit. A record is written before the guest counts the write as acknowledged.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::unix::fs::FileExt;
use std::path::Path;

use nvme_core::wire::Lba;

use super::content;

const RECORD: usize = 16;

/// Appends records to a file, without buffering beyond one call.
#[derive(Debug)]
pub struct GuestLog {
    file: File,
    pending: Vec<u8>,
}

impl GuestLog {
    /// Starts an empty log at `path`.
    ///
    /// # Errors
    /// The file cannot be created.
    pub fn create(path: &Path) -> io::Result<Self> {
        Ok(Self { file: File::create(path)?, pending: Vec::new() })
    }

    /// Adds one block of an acknowledged write to the next [`commit`](Self::commit).
    pub fn add(&mut self, lba: Lba, version: u64) {
        self.pending.extend_from_slice(&lba.get().to_le_bytes());
        self.pending.extend_from_slice(&version.to_le_bytes());
    }

    /// Hands the records to the kernel; they survive the end of this process.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn commit(&mut self) -> io::Result<()> {
        if !self.pending.is_empty() {
            self.file.write_all(&self.pending)?;
            self.pending.clear();
        }
        Ok(())
    }
}

/// Newest acknowledged version of each block in the log at `path`; a record cut short at the end is not one.
///
/// # Errors
/// The file cannot be read.
pub fn read(path: &Path) -> io::Result<BTreeMap<u64, u64>> {
    let mut bytes = Vec::new();
    File::open(path)?.read_to_end(&mut bytes)?;
    let (records, _) = bytes.as_chunks::<RECORD>();
    let mut newest = BTreeMap::new();
    for record in records {
        let (words, _) = record.as_chunks::<8>();
        if let [lba, version] = words {
            newest.insert(u64::from_le_bytes(*lba), u64::from_le_bytes(*version));
        }
    }
    Ok(newest)
}

/// Blocks of `acknowledged` that `image` does not hold in the acknowledged version or a newer one.
///
/// # Errors
/// The image cannot be read.
pub fn missing(
    image: &File,
    acknowledged: &BTreeMap<u64, u64>,
    block_size: u32,
    seed: u64,
) -> io::Result<Vec<u64>> {
    let mut block = vec![0; block_size as usize];
    let mut missing = Vec::new();
    for (lba, version) in acknowledged {
        image.read_exact_at(&mut block, lba * u64::from(block_size))?;
        if content::version_of(&block, Lba::new(*lba), seed).is_none_or(|found| found < *version) {
            missing.push(*lba);
        }
    }
    Ok(missing)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_version_counts_and_older_content_is_found_missing() {
        let dir = tempfile::tempdir().expect("directory");
        let path = dir.path().join("log");
        let mut log = GuestLog::create(&path).expect("create");
        for (lba, version) in [(3, 1), (5, 1), (3, 2), (9, 1)] {
            log.add(Lba::new(lba), version);
            log.commit().expect("commit");
        }
        log.file.write_all(&[1, 2, 3]).expect("half a record");
        let newest = read(&path).expect("read");
        assert_eq!(newest, BTreeMap::from([(3, 2), (5, 1), (9, 1)]));

        let image = tempfile::tempfile().expect("image");
        image.set_len(10 * 512).expect("length");
        for (lba, version) in [(3u64, 1u64), (5, 1), (9, 4)] {
            let mut block = [0; 512];
            content::fill(&mut block, Lba::new(lba), version, 11);
            image.write_all_at(&block, lba * 512).expect("write");
        }
        assert_eq!(missing(&image, &newest, 512, 11).expect("check"), [3], "3 is one version behind");
        assert_eq!(missing(&image, &newest, 512, 12).expect("check"), [3, 5, 9], "nothing of another seed");
    }
}

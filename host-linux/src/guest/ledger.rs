// SPDX-License-Identifier: MIT OR Apache-2.0
//! What each block must hold: acknowledged versions, writes in flight, and content found at the start.

use std::collections::{HashMap, HashSet};
use std::fmt;

use nvme_core::wire::Lba;

use super::content;

/// What the namespace held before the guest's first write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum InitialContent {
    /// Version 0 of the generated content.
    Generated,
    /// Anything: the guest remembers what it reads first.
    Unknown,
}

/// A block does not hold what it must.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mismatch {
    /// The block.
    pub lba: Lba,
    /// Oldest version that would have been right.
    pub oldest: u64,
    /// Newest version that would have been right.
    pub newest: u64,
    /// The version found; `None` for content that is no version of this block.
    pub found: Option<u64>,
}

impl fmt::Display for Mismatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "block {} must hold version {}", self.lba.get(), self.oldest)?;
        if self.newest != self.oldest {
            write!(f, " to {}", self.newest)?;
        }
        match self.found {
            Some(found) => write!(f, " but holds version {found}"),
            None => write!(f, " but holds something else"),
        }
    }
}

/// The guest's record of every block. A block has at most one write in flight.
#[derive(Debug)]
pub struct Ledger {
    seed: u64,
    initial: InitialContent,
    /// Newest acknowledged version of each block; untouched pages of it cost no memory.
    acknowledged: Vec<u32>,
    /// Newest version issued: one above the acknowledged one while a write is in flight.
    issued: Vec<u32>,
    /// Fingerprints of blocks whose first content the guest has read.
    found: HashMap<u64, u64>,
    /// Blocks the guest has rewritten with what they held.
    rewritten: HashSet<u64>,
}

impl Ledger {
    /// A record of `blocks` blocks, none written.
    #[must_use]
    pub fn new(blocks: u64, seed: u64, initial: InitialContent) -> Self {
        let blocks = usize::try_from(blocks).unwrap_or(usize::MAX);
        Self {
            seed,
            initial,
            acknowledged: vec![0; blocks],
            issued: vec![0; blocks],
            found: HashMap::new(),
            rewritten: HashSet::new(),
        }
    }

    fn index(lba: Lba) -> usize {
        lba.get() as usize
    }

    /// The seed of the content.
    #[must_use]
    pub const fn seed(&self) -> u64 {
        self.seed
    }

    /// Whether a write of the block is in flight.
    #[must_use]
    pub fn is_in_flight(&self, lba: Lba) -> bool {
        self.issued[Self::index(lba)] != self.acknowledged[Self::index(lba)]
    }

    /// Begins a write: the version to write. The block has no write in flight.
    pub fn issue(&mut self, lba: Lba) -> u64 {
        debug_assert!(!self.is_in_flight(lba));
        let issued = &mut self.issued[Self::index(lba)];
        *issued += 1;
        u64::from(*issued)
    }

    /// Ends a write: it was acknowledged to the guest.
    pub fn acknowledge(&mut self, lba: Lba) -> u64 {
        let index = Self::index(lba);
        self.acknowledged[index] = self.issued[index];
        u64::from(self.acknowledged[index])
    }

    /// Takes a write back that was issued and never submitted.
    pub fn withdraw(&mut self, lba: Lba) {
        let index = Self::index(lba);
        self.issued[index] = self.acknowledged[index];
    }

    /// The newest acknowledged version: the oldest that a read submitted now may return.
    #[must_use]
    pub fn acknowledged(&self, lba: Lba) -> u32 {
        self.acknowledged[Self::index(lba)]
    }

    /// Notes that the guest has written the block with what it held.
    pub fn rewrite(&mut self, lba: Lba) {
        self.rewritten.insert(lba.get());
    }

    /// Checks a block that a read returned, submitted when `oldest` was acknowledged.
    ///
    /// # Errors
    /// [`Mismatch`] if it holds anything but a version from `oldest` to the newest issued.
    pub fn check(&mut self, lba: Lba, block: &[u8], oldest: u32) -> Result<(), Mismatch> {
        let newest = u64::from(self.issued[Self::index(lba)]);
        let oldest = u64::from(oldest);
        let found = content::version_of(block, lba, self.seed);
        let right = match found {
            Some(version) if (oldest..=newest).contains(&version) => {
                version != 0 || self.initial == InitialContent::Generated || self.check_found(lba, block)
            }
            _ => oldest == 0 && self.initial == InitialContent::Unknown && self.check_found(lba, block),
        };
        if right { Ok(()) } else { Err(Mismatch { lba, oldest, newest, found }) }
    }

    /// Compares with what the block held when it was first read, or remembers it.
    fn check_found(&mut self, lba: Lba, block: &[u8]) -> bool {
        let print = content::fingerprint(block);
        *self.found.entry(lba.get()).or_insert(print) == print
    }

    /// Blocks that the guest has written, or has a write in flight for, in ascending order.
    #[must_use]
    pub fn written(&self) -> Vec<Lba> {
        let mut written: Vec<Lba> = self
            .issued
            .iter()
            .enumerate()
            .filter(|(_, version)| **version != 0)
            .map(|(index, _)| Lba::new(index as u64))
            .chain(self.rewritten.iter().map(|lba| Lba::new(*lba)))
            .collect();
        written.sort_unstable();
        written.dedup();
        written
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn block(lba: u64, version: u64) -> Vec<u8> {
        let mut block = vec![0; 512];
        content::fill(&mut block, Lba::new(lba), version, 7);
        block
    }

    #[test]
    fn versions_from_the_acknowledged_to_the_issued_pass() {
        let lba = Lba::new(3);
        let mut ledger = Ledger::new(8, 7, InitialContent::Generated);
        for version in 1..=4 {
            assert_eq!(ledger.issue(lba), version);
            if version < 4 {
                assert_eq!(ledger.acknowledge(lba), version);
            }
        }
        assert!(ledger.is_in_flight(lba));
        // Submitted when 2 was acknowledged; now 3 is acknowledged and 4 in flight.
        for (version, right) in [(0, false), (1, false), (2, true), (3, true), (4, true), (5, false)] {
            let result = ledger.check(lba, &block(3, version), 2);
            assert_eq!(result.is_ok(), right, "version {version}: {result:?}");
        }
        let zeroes = ledger.check(lba, &[0; 512], 2).expect_err("zeroes are no version");
        assert_eq!(zeroes, Mismatch { lba, oldest: 2, newest: 4, found: None });
        assert!(zeroes.to_string().contains("block 3 must hold version 2 to 4"), "{zeroes}");
        assert_eq!(ledger.written(), [lba]);
    }

    #[test]
    fn content_found_first_must_stay_until_written() {
        let lba = Lba::new(1);
        let mut ledger = Ledger::new(4, 7, InitialContent::Unknown);
        assert!(ledger.check(lba, &[9; 512], 0).is_ok(), "anything goes the first time");
        assert!(ledger.check(lba, &[9; 512], 0).is_ok());
        assert!(ledger.check(lba, &[8; 512], 0).is_err(), "it changed without a write");
        ledger.issue(lba);
        assert!(ledger.check(lba, &[9; 512], 0).is_ok(), "still old while the write is in flight");
        assert!(ledger.check(lba, &block(1, 1), 0).is_ok(), "or new");
        ledger.acknowledge(lba);
        assert!(ledger.check(lba, &[9; 512], 1).is_err(), "old is wrong afterwards");
        assert!(ledger.check(lba, &block(1, 1), 1).is_ok());
        ledger.rewrite(Lba::new(2));
        assert_eq!(ledger.written(), [lba, Lba::new(2)]);
    }
}

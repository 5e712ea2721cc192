// SPDX-License-Identifier: MIT OR Apache-2.0
//! Compares two namespaces as they were at one moment, although one of them goes on changing.
//!
//! At the switch the source falls silent and the destination holds all of it, or should. The guest overwrites the
//! destination from then on, so the storage behind it asks the witness first: a block that is about to change for the
//! first time is compared with the source's before it does. What has not changed is compared at the end.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use crate::report::ComparisonReport;
use crate::sync::lock;

/// Bytes compared at once at the end.
const CHUNK: u64 = 1 << 20;

/// Compares the blocks of two files, each once.
#[derive(Debug)]
pub struct Witness {
    reference: Arc<File>,
    changing: Arc<File>,
    block_size: u64,
    blocks: u64,
    armed: AtomicBool,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    /// One bit for each block that has been compared.
    seen: Vec<u64>,
    report: ComparisonReport,
    buffers: [Vec<u8>; 2],
}

impl State {
    fn is_seen(&self, block: u64) -> bool {
        self.seen.get((block / 64) as usize).is_none_or(|word| word & (1 << (block % 64)) != 0)
    }

    fn note(&mut self, block: u64, equal: bool) {
        if let Some(word) = self.seen.get_mut((block / 64) as usize) {
            *word |= 1 << (block % 64);
        }
        if equal {
            self.report.equal += 1;
        } else {
            self.report.wrong += 1;
            let first = self.report.first_wrong.get_or_insert(block);
            *first = block.min(*first);
        }
    }
}

impl Witness {
    /// A witness of `blocks` blocks of `block_size` bytes of both files, which looks at nothing yet.
    #[must_use]
    pub fn new(reference: Arc<File>, changing: Arc<File>, block_size: u32, blocks: u64) -> Self {
        let state = State {
            seen: Vec::new(),
            report: ComparisonReport { blocks, ..ComparisonReport::default() },
            buffers: [Vec::new(), Vec::new()],
        };
        let (block_size, armed, state) = (u64::from(block_size), AtomicBool::new(false), Mutex::new(state));
        Self { reference, changing, block_size, blocks, armed, state }
    }

    /// This is the moment: from now on neither file changes without [`about_to_change`](Self::about_to_change).
    pub fn arm(&self) {
        let mut state = lock(&self.state);
        state.seen = vec![0; self.blocks.div_ceil(64) as usize];
        state.report = ComparisonReport { blocks: self.blocks, ..ComparisonReport::default() };
        self.armed.store(true, Ordering::Release);
    }

    /// There was no such moment after all.
    pub fn disarm(&self) {
        self.armed.store(false, Ordering::Release);
    }

    /// Compares those of `blocks` blocks from `start` on that have not been compared yet.
    ///
    /// # Errors
    /// One of the files cannot be read; nothing of the range counts as compared then.
    pub fn about_to_change(&self, start: u64, blocks: u64) -> io::Result<()> {
        if !self.armed.load(Ordering::Acquire) {
            return Ok(());
        }
        let mut state = lock(&self.state);
        let before = state.report.equal + state.report.wrong;
        let step = (CHUNK / self.block_size).max(1);
        let end = start.saturating_add(blocks).min(self.blocks);
        let mut at = start;
        while at < end {
            let count = step.min(end - at);
            self.compare(&mut state, at, count)?;
            at += count;
        }
        state.report.before_change += state.report.equal + state.report.wrong - before;
        Ok(())
    }

    /// Compares what is left and says what was found, `None` if the moment never came.
    ///
    /// # Errors
    /// One of the files cannot be read.
    pub fn finish(&self) -> io::Result<Option<ComparisonReport>> {
        if !self.armed.load(Ordering::Acquire) {
            return Ok(None);
        }
        let mut state = lock(&self.state);
        let step = (CHUNK / self.block_size).max(1);
        for at in (0..self.blocks).step_by(step as usize) {
            self.compare(&mut state, at, step.min(self.blocks - at))?;
        }
        Ok(Some(state.report))
    }

    fn compare(&self, state: &mut State, start: u64, blocks: u64) -> io::Result<()> {
        if (start..start + blocks).all(|block| state.is_seen(block)) {
            return Ok(());
        }
        let len = (blocks * self.block_size) as usize;
        let [mut one, mut other] = std::mem::take(&mut state.buffers);
        one.resize(len, 0);
        other.resize(len, 0);
        let at = start * self.block_size;
        let read = self
            .reference
            .read_exact_at(&mut one, at)
            .and_then(|()| self.changing.read_exact_at(&mut other, at));
        if read.is_ok() {
            let block = self.block_size as usize;
            for ((block, one), other) in (start..).zip(one.chunks_exact(block)).zip(other.chunks_exact(block))
            {
                if !state.is_seen(block) {
                    state.note(block, one == other);
                }
            }
        }
        state.buffers = [one, other];
        read
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::images::fill;
    use crate::storage::FileStorage;
    use nvme_controller::host::BlockStorage;
    use nvme_core::wire::Lba;

    #[test]
    fn blocks_are_compared_as_they_were_at_the_moment() {
        for block_size in [512u32, 4096] {
            let (size, blocks) = (3 << 20, (3 << 20) / u64::from(block_size));
            let make = || {
                let file = FileStorage::memory("witness", size).expect("memory");
                fill(&file, size, block_size, 5, &mut |_| true).expect("fill");
                file
            };
            let (one, other) = (make(), make());
            let witness = Arc::new(Witness::new(Arc::clone(&one), Arc::clone(&other), block_size, blocks));
            let mut storage = FileStorage::new(Arc::clone(&other), block_size)
                .expect("storage")
                .watched(Arc::clone(&witness));
            let bytes = vec![0xEE; block_size as usize * 3];
            let spoil = |block: u64| {
                other.write_all_at(&[0xFF], block * u64::from(block_size) + 40).expect("spoil");
            };

            // Before the moment anything may change, and what is made good again does not matter.
            storage.write(Lba::new(20), &bytes).expect("write");
            assert_eq!(witness.finish().expect("finish"), None);
            fill(&other, size, block_size, 5, &mut |_| true).expect("fill");

            for block in [0, 9, blocks - 1] {
                spoil(block);
            }
            witness.arm();
            storage.write(Lba::new(8), &bytes).expect("write");
            storage.write(Lba::new(9), &bytes).expect("write again");
            storage.write_zeroes(Lba::new(100), 50, true).expect("zeroes");
            let found = witness.finish().expect("finish").expect("armed");
            let expected = ComparisonReport {
                blocks,
                equal: blocks - 3,
                before_change: 4 + 50,
                wrong: 3,
                first_wrong: Some(0),
            };
            assert_eq!(found, expected, "{block_size}");

            witness.disarm();
            assert_eq!(witness.finish().expect("finish"), None, "{block_size}");
        }
    }
}

// SPDX-License-Identifier: MIT OR Apache-2.0
//! What the guest does next and whether what came back is right, apart from how commands travel.

use std::io;
use std::time::{Duration, Instant};

use nvme_core::wire::Lba;

use super::ledger::{InitialContent, Ledger, Mismatch};
use super::log::GuestLog;
use super::pattern::{Chooser, Pattern, WriteContent, WriteExtent};

/// Most that a rate limit saves up while nothing is written.
const BURST: Duration = Duration::from_millis(20);
/// Blocks tried for one command before giving up for now, because writes of them are in flight.
const TRIES: usize = 8;

/// How the guest is to behave.
#[derive(Clone, Debug)]
pub struct WorkloadOptions {
    /// Bytes in a logical block.
    pub block_size: u32,
    /// Blocks in the namespace.
    pub blocks: u64,
    /// Blocks in one command, at most.
    pub blocks_per_command: u64,
    /// What the namespace holds before the first write.
    pub initial: InitialContent,
    /// Seed of content and choices.
    pub seed: u64,
    /// Order in which blocks are touched.
    pub pattern: Pattern,
    /// Reads among the commands, in percent.
    pub read_percent: u8,
    /// Blocks that may be touched.
    pub extents: Vec<WriteExtent>,
    /// Write commands a second, at most.
    pub write_rate: Option<u64>,
    /// Write commands in all, at most.
    pub writes: Option<u64>,
}

/// What one command is for. Its blocks and what was known about them when it was submitted are beside it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Purpose {
    /// Read and check.
    Read,
    /// Write a new version.
    Write,
    /// Read what is then written back by [`Purpose::Rewrite`].
    Fetch,
    /// Write back what was read.
    Rewrite,
}

impl Purpose {
    pub(crate) const fn is_write(self) -> bool {
        matches!(self, Self::Write | Self::Rewrite)
    }
}

/// One command of the guest.
#[derive(Debug)]
pub(crate) struct Operation {
    pub(crate) purpose: Purpose,
    pub(crate) lba: Lba,
    pub(crate) blocks: u64,
    /// For reads: the version of each block that was acknowledged when the command was submitted.
    oldest: Vec<u32>,
}

/// Counts since the start.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Counts {
    pub(crate) reads: u64,
    pub(crate) writes: u64,
    pub(crate) blocks_read: u64,
}

#[derive(Debug)]
pub(crate) struct Workload {
    options: WorkloadOptions,
    ledger: Ledger,
    chooser: Chooser,
    random: fastrand::Rng,
    log: Option<GuestLog>,
    /// Blocks still to be verified, in ascending order, if a verification is under way.
    sweep: Option<Vec<Lba>>,
    started: Instant,
    /// Write commands issued, for the rate limit: those that could have been issued before count as issued.
    rate_used: u64,
    issued: u64,
    counts: Counts,
}

impl Workload {
    pub(crate) fn new(options: WorkloadOptions, log: Option<GuestLog>, now: Instant) -> Self {
        Self {
            ledger: Ledger::new(options.blocks, options.seed, options.initial),
            chooser: Chooser::new(options.pattern, options.extents.clone()),
            random: fastrand::Rng::with_seed(options.seed),
            log,
            sweep: None,
            started: now,
            rate_used: 0,
            issued: 0,
            counts: Counts::default(),
            options,
        }
    }

    pub(crate) const fn counts(&self) -> Counts {
        self.counts
    }

    pub(crate) fn into_ledger(self) -> Ledger {
        self.ledger
    }

    /// Bytes in a block.
    pub(crate) const fn block_bytes(&self) -> usize {
        self.options.block_size as usize
    }

    /// Bytes of the longest command.
    pub(crate) fn command_bytes(&self) -> usize {
        self.options.blocks_per_command as usize * self.block_bytes()
    }

    /// Begins to verify each block written so far. Returns how many; other commands pause meanwhile. No command is in
    /// flight.
    pub(crate) fn begin_sweep(&mut self) -> u64 {
        let mut written = self.ledger.written();
        let count = written.len() as u64;
        written.reverse();
        self.sweep = Some(written);
        count
    }

    /// Whether nothing is left to begin of a verification.
    pub(crate) fn sweep_is_issued(&self) -> bool {
        self.sweep.as_ref().is_none_or(Vec::is_empty)
    }

    /// Goes back to the usual commands.
    pub(crate) fn end_sweep(&mut self) {
        self.sweep = None;
    }

    fn write_allowed(&mut self, now: Instant) -> bool {
        if self.options.writes.is_some_and(|limit| self.issued >= limit) {
            return false;
        }
        let Some(rate) = self.options.write_rate else { return true };
        let earned = |time: Duration| (time.as_secs_f64() * rate as f64) as u64;
        let allowed = earned(now.duration_since(self.started));
        // At least one, or slow rates would never save up a whole command.
        self.rate_used = self.rate_used.max(allowed.saturating_sub(earned(BURST).max(1)));
        self.rate_used < allowed
    }

    /// The next command. `bytes` has room for [`command_bytes`](Self::command_bytes) and is filled with what a write
    /// writes. `None` if there is nothing to do for now.
    pub(crate) fn next(&mut self, now: Instant, bytes: &mut [u8]) -> Option<Operation> {
        if self.sweep.is_some() {
            return self.next_of_sweep();
        }
        let write = self.random.u8(..100) >= self.options.read_percent;
        let write = if write && !self.write_allowed(now) {
            if self.options.read_percent == 0 && self.options.writes.is_none() {
                return None;
            }
            false
        } else {
            write
        };
        for _ in 0..TRIES {
            let (lba, blocks, content) =
                self.chooser.choose(&mut self.random, self.options.blocks_per_command);
            if !write {
                return Some(self.read(Purpose::Read, lba, blocks));
            }
            let range = lba.get()..lba.get() + blocks;
            if range.clone().any(|block| self.ledger.is_in_flight(Lba::new(block))) {
                continue;
            }
            self.issued += 1;
            self.rate_used += 1;
            if content == WriteContent::Kept {
                return Some(self.read(Purpose::Fetch, lba, blocks));
            }
            let seed = self.options.seed;
            for (block, bytes) in range.zip(bytes.chunks_exact_mut(self.block_bytes())) {
                let version = self.ledger.issue(Lba::new(block));
                super::content::fill(bytes, Lba::new(block), version, seed);
            }
            return Some(Operation { purpose: Purpose::Write, lba, blocks, oldest: Vec::new() });
        }
        None
    }

    fn read(&self, purpose: Purpose, lba: Lba, blocks: u64) -> Operation {
        let range = lba.get()..lba.get() + blocks;
        let oldest = range.map(|block| self.ledger.acknowledged(Lba::new(block))).collect();
        Operation { purpose, lba, blocks, oldest }
    }

    fn next_of_sweep(&mut self) -> Option<Operation> {
        let sweep = self.sweep.as_mut()?;
        let first = sweep.pop()?;
        let mut blocks = 1;
        while blocks < self.options.blocks_per_command
            && sweep.pop_if(|lba| lba.get() == first.get() + blocks).is_some()
        {
            blocks += 1;
        }
        Some(self.read(Purpose::Read, first, blocks))
    }

    /// Takes a command back that was never submitted.
    pub(crate) fn withdraw(&mut self, operation: &Operation) {
        if operation.purpose == Purpose::Write {
            for block in operation.lba.get()..operation.lba.get() + operation.blocks {
                self.ledger.withdraw(Lba::new(block));
            }
        }
    }

    /// Takes the result of a command that succeeded; `bytes` is what a read returned. The second half of a rewrite
    /// comes back, with `bytes` to write.
    pub(crate) fn complete(
        &mut self,
        operation: Operation,
        bytes: &[u8],
    ) -> Result<Option<Operation>, Mismatch> {
        let blocks = (operation.lba.get()..operation.lba.get() + operation.blocks).map(Lba::new);
        match operation.purpose {
            Purpose::Read | Purpose::Fetch => {
                for ((lba, block), oldest) in
                    blocks.zip(bytes.chunks_exact(self.block_bytes())).zip(&operation.oldest)
                {
                    self.ledger.check(lba, block, *oldest)?;
                }
                self.counts.reads += 1;
                self.counts.blocks_read += operation.blocks;
                let rewrite = operation.purpose == Purpose::Fetch;
                Ok(rewrite.then_some(Operation { purpose: Purpose::Rewrite, ..operation }))
            }
            Purpose::Write => {
                for lba in blocks {
                    let version = self.ledger.acknowledge(lba);
                    if let Some(log) = &mut self.log {
                        log.add(lba, version);
                    }
                }
                self.counts.writes += 1;
                Ok(None)
            }
            Purpose::Rewrite => {
                blocks.for_each(|lba| self.ledger.rewrite(lba));
                self.counts.writes += 1;
                Ok(None)
            }
        }
    }

    /// Makes the log hold every write acknowledged so far.
    pub(crate) fn commit_log(&mut self) -> io::Result<()> {
        self.log.as_mut().map_or(Ok(()), GuestLog::commit)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options() -> WorkloadOptions {
        WorkloadOptions {
            block_size: 512,
            blocks: 256,
            blocks_per_command: 4,
            initial: InitialContent::Generated,
            seed: 3,
            pattern: Pattern::Random,
            read_percent: 50,
            extents: vec![WriteExtent { start: 0, blocks: 256, content: WriteContent::Generated }],
            write_rate: None,
            writes: None,
        }
    }

    /// A medium that executes each command at once.
    struct Medium(Vec<u8>);

    impl Medium {
        fn generated() -> Self {
            let mut bytes = vec![0; 256 * 512];
            for (lba, block) in bytes.chunks_exact_mut(512).enumerate() {
                super::super::content::fill(block, Lba::new(lba as u64), 0, 3);
            }
            Self(bytes)
        }

        fn execute(&mut self, operation: &Operation, bytes: &mut [u8]) {
            let start = operation.lba.get() as usize * 512;
            let len = operation.blocks as usize * 512;
            if operation.purpose.is_write() {
                self.0[start..start + len].copy_from_slice(&bytes[..len]);
            } else {
                bytes[..len].copy_from_slice(&self.0[start..start + len]);
            }
        }
    }

    #[test]
    fn a_right_medium_passes_and_a_spoilt_one_does_not() {
        let now = Instant::now();
        let mut workload = Workload::new(options(), None, now);
        let mut medium = Medium::generated();
        let mut bytes = vec![0; workload.command_bytes()];
        for _ in 0..3000 {
            let operation = workload.next(now, &mut bytes).expect("always something to do");
            medium.execute(&operation, &mut bytes);
            assert!(workload.complete(operation, &bytes).expect("right").is_none());
        }
        let counts = workload.counts();
        assert_eq!(counts.reads + counts.writes, 3000);
        assert!((1300..1700).contains(&counts.writes), "{counts:?}");
        assert_eq!(workload.begin_sweep(), 256);
        medium.0[77 * 512 + 100] ^= 4;
        let mut found = None;
        while let Some(operation) = workload.next(now, &mut bytes) {
            medium.execute(&operation, &mut bytes);
            if let Err(mismatch) = workload.complete(operation, &bytes) {
                found = Some(mismatch.lba.get());
            }
        }
        assert_eq!(found, Some(77));
        assert!(workload.sweep_is_issued());
    }

    #[test]
    fn kept_blocks_are_read_and_written_back() {
        let now = Instant::now();
        let extents = vec![WriteExtent { start: 8, blocks: 16, content: WriteContent::Kept }];
        let options =
            WorkloadOptions { extents, read_percent: 0, initial: InitialContent::Unknown, ..options() };
        let mut workload = Workload::new(options, None, now);
        let mut medium = Medium((0..256 * 512).map(|i| (i % 253) as u8).collect());
        let before = medium.0.clone();
        let mut bytes = vec![0; workload.command_bytes()];
        for _ in 0..200 {
            let mut next = workload.next(now, &mut bytes);
            while let Some(operation) = next {
                assert!((8..24).contains(&operation.lba.get()));
                medium.execute(&operation, &mut bytes);
                next = workload.complete(operation, &bytes).expect("right");
            }
        }
        assert_eq!(workload.counts().writes, 200);
        assert_eq!(medium.0, before);
        assert_eq!(workload.begin_sweep(), 16);
    }

    #[test]
    fn the_rate_limits_writes_and_not_reads() {
        let start = Instant::now();
        let mut workload =
            Workload::new(WorkloadOptions { write_rate: Some(1000), ..options() }, None, start);
        let mut bytes = vec![0; workload.command_bytes()];
        let mut medium = Medium::generated();
        for millisecond in 0..500 {
            for _ in 0..20 {
                let now = start + Duration::from_millis(millisecond);
                let operation = workload.next(now, &mut bytes).expect("reads go on");
                medium.execute(&operation, &mut bytes);
                workload.complete(operation, &bytes).expect("right");
            }
        }
        let counts = workload.counts();
        assert!((450..=500).contains(&counts.writes), "{counts:?}");
        assert!(counts.reads > 9000, "{counts:?}");
    }

    #[test]
    fn the_number_of_writes_is_kept() {
        let now = Instant::now();
        let options = WorkloadOptions { writes: Some(5), read_percent: 0, ..options() };
        let mut workload = Workload::new(options, None, now);
        let mut bytes = vec![0; workload.command_bytes()];
        let mut medium = Medium::generated();
        for _ in 0..100 {
            let operation = workload.next(now, &mut bytes).expect("reads go on");
            medium.execute(&operation, &mut bytes);
            workload.complete(operation, &bytes).expect("right");
        }
        assert_eq!(workload.counts().writes, 5);
    }

    #[test]
    fn a_withdrawn_write_leaves_no_trace() {
        let now = Instant::now();
        let mut workload = Workload::new(WorkloadOptions { read_percent: 0, ..options() }, None, now);
        let mut bytes = vec![0; workload.command_bytes()];
        let operation = workload.next(now, &mut bytes).expect("a write");
        assert!(workload.ledger.is_in_flight(operation.lba));
        workload.withdraw(&operation);
        assert!(!workload.ledger.is_in_flight(operation.lba));
        assert_eq!(workload.begin_sweep(), 0);
    }
}

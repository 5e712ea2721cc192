// SPDX-License-Identifier: MIT OR Apache-2.0
//! The guest: a driver of its own, commands of every kind that changes blocks, and the record of what must be where.

use std::collections::BTreeMap;
use std::ops::Range;
use std::time::Duration;

use nvme_core::admin::{AdminRequest, Call, CallError};
use nvme_core::dma::{Direction, DmaArena, DmaRegion, Pool, give_back};
use nvme_core::io::{Buffer, Completed};
use nvme_core::time::Instant;
use nvme_core::wire::admin::{FeatureSelect, GetFeatures};
use nvme_core::wire::feature::FeatureId;
use nvme_core::wire::nvm::{Copy, DatasetManagement, Flush, Read, Write, WriteZeroes};
use nvme_core::wire::nvm_data::{CopySource, CopySourceData, DatasetRange, DatasetRangeData};
use nvme_core::wire::{Command, Lba, SubmissionQueueEntry};
use nvme_host_linux::backend::Confined;
use zerocopy::IntoBytes;

use super::choices::Choices;
use super::disk::{self, BLOCK, Stamp};
use super::driver::{Condition, Driver, collect};
use super::model::{Mismatch, Model};
use super::side::NAMESPACE;

/// Blocks of one command, at most; a buffer has room for so many.
const LONGEST: u32 = 12;
/// Ranges of one Dataset Management or Copy command, at most.
const RANGES: u32 = 3;
/// Commands whose completions are taken in one step, at most.
const BATCH: u32 = 4;

/// What a command does, by block.
#[derive(Debug)]
enum Work {
    Read(Range<usize>),
    /// Blocks and what they are to hold.
    Change(Vec<(Range<usize>, Vec<Stamp>)>),
    /// As a change, after reading other blocks.
    Copy(Vec<Range<usize>>, Range<usize>, Vec<Stamp>),
    Flush,
}

/// Why the guest is not content.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum GuestError {
    /// A block does not hold what it must.
    Mismatch(Mismatch),
    /// A command ended that was not on its way, or ended twice.
    NotOutstanding(u64),
}

/// What the guest has seen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct GuestFigures {
    /// Commands sent.
    pub submitted: u64,
    /// Commands completed with success.
    pub completed: u64,
    /// Commands completed with an error.
    pub refused: u64,
    /// Commands that a reset of its controller ended.
    pub lost: u64,
    /// Resets of its controller that it made.
    pub resets: u64,
    /// Admin commands completed with success.
    pub admin_completed: u64,
    /// Admin commands that ended otherwise.
    pub admin_failed: u64,
}

pub(super) struct Guest<'d, R> {
    pub(super) driver: Driver<'d, R, u64>,
    pub(super) model: Model,
    idle: Vec<DmaRegion>,
    works: BTreeMap<u64, Work>,
    next: u64,
    timeout: Duration,
    pub(super) figures: GuestFigures,
    /// How many more commands it may send.
    pub(super) budget: u64,
    pub(super) error: Option<GuestError>,
    /// Reset the controller at the next turn, as somebody who lost patience would.
    pub(super) reset_wanted: bool,
    /// Whether it sends admin commands.
    pub(super) administers: bool,
    call: Call,
}

impl<'d, R: Confined> Guest<'d, R> {
    pub(super) fn new(driver: Driver<'d, R, u64>, model: Model, commands: usize, timeout: Duration) -> Self {
        let arena = driver.arena();
        let bytes = LONGEST as usize * BLOCK;
        let buffer =
            |_| arena.allocate_scattered(Pool::Data, bytes, Direction::Bidirectional).expect("memory");
        Self {
            idle: (0..commands).map(buffer).collect(),
            driver,
            model,
            works: BTreeMap::new(),
            next: 1,
            timeout,
            figures: GuestFigures::default(),
            budget: 0,
            error: None,
            reset_wanted: false,
            administers: false,
            call: Call::new(),
        }
    }

    pub(super) fn outstanding(&self) -> usize {
        self.works.len() + usize::from(!self.call.is_idle())
    }

    /// Gives all buffers back; no command is outstanding.
    pub(super) fn release(&mut self) {
        let arena = self.driver.arena();
        self.idle.drain(..).for_each(|region| give_back(arena, region));
    }

    /// Does a little: takes completions, sends commands, or goes on with a reset. Returns whether anything happened.
    pub(super) fn step(&mut self, now: Instant, choices: &mut impl Choices) -> bool {
        if std::mem::take(&mut self.reset_wanted) {
            self.figures.resets += 1;
            self.driver.reset(false);
        }
        let condition = self.driver.poll(now);
        self.administer(now, choices);
        for lost in std::mem::take(&mut self.driver.lost) {
            self.idle.extend(lost.buffer.map(Buffer::into_region));
            self.figures.lost += 1;
            self.end(lost.tag, false);
        }
        match condition {
            Condition::Ready => {}
            Condition::Busy | Condition::Held => return false,
            Condition::Failed(_) => {
                self.reset_wanted = true;
                return true;
            }
        }
        let pairs = u32::try_from(self.driver.parts().1.len()).expect("few pairs");
        let at = choices.below(pairs) as usize;
        let mut busy = self.take(at, now, choices.below(BATCH) + 1);
        for _ in 0..choices.below(BATCH) {
            busy |= self.send(at, now, choices);
        }
        busy
    }

    /// Goes on with the admin command on its way, or now and then sends one.
    fn administer(&mut self, now: Instant, choices: &mut impl Choices) {
        let ready = self.driver.is_ready();
        let Some(port) = self.driver.parts().0 else { return };
        if self.call.is_idle() && self.administers && ready && choices.below(24) == 0 {
            let command = GetFeatures::new(FeatureId::NUMBER_OF_QUEUES, FeatureSelect::Current);
            // The call is idle, so it takes the request.
            let _ = self.call.start(AdminRequest::without_data(&command, self.timeout));
        }
        let Some(result) = self.call.poll(port, now) else { return };
        match result.outcome {
            Ok(_) => self.figures.admin_completed += 1,
            Err(error) => {
                self.figures.admin_failed += 1;
                self.reset_wanted |= error == CallError::TimedOut;
            }
        }
    }

    fn take(&mut self, at: usize, now: Instant, limit: u32) -> bool {
        let pair = &mut self.driver.parts().1[at];
        let (taken, fault) = collect(pair, limit);
        let late = pair.expire(now).is_some();
        let busy = !taken.is_empty();
        for completed in taken {
            self.completed(completed);
        }
        // Whoever waits for a command in vain, or is told nonsense, resets the controller.
        self.reset_wanted |= fault.is_err() || late;
        busy
    }

    fn completed(&mut self, completed: Completed<u64>) {
        let Completed { entry, tag, buffer, .. } = completed;
        let success = entry.status().is_success();
        let mut checked = Ok(());
        if let (Some(Work::Read(range)), Some(buffer), true) = (self.works.get(&tag), &buffer, success) {
            let mut block_bytes = [0; BLOCK];
            for (block, at) in range.clone().zip(0..) {
                buffer.region().read(at * BLOCK, &mut block_bytes).expect("the buffer's own bytes");
                checked = checked.and(self.model.check(block, disk::stamp_of(&block_bytes)));
            }
        }
        if let Err(mismatch) = checked {
            self.error.get_or_insert(GuestError::Mismatch(mismatch));
        }
        self.idle.extend(buffer.map(Buffer::into_region));
        if success {
            self.figures.completed += 1;
        } else {
            self.figures.refused += 1;
        }
        self.end(tag, success);
    }

    /// A command has ended: each does so once.
    fn end(&mut self, tag: u64, done: bool) {
        let Some(work) = self.works.remove(&tag) else {
            self.error.get_or_insert(GuestError::NotOutstanding(tag));
            return;
        };
        match work {
            Work::Read(range) => self.model.end_read(range),
            Work::Change(ranges) => {
                for (range, stamps) in ranges {
                    range.zip(stamps).for_each(|(block, stamp)| self.model.end_write(block, stamp, done));
                }
            }
            Work::Copy(sources, range, stamps) => {
                sources.into_iter().for_each(|source| self.model.end_read(source));
                range.zip(stamps).for_each(|(block, stamp)| self.model.end_write(block, stamp, done));
            }
            Work::Flush => {}
        }
    }

    fn range(&self, choices: &mut impl Choices, longest: u32) -> Range<usize> {
        let blocks = choices.below(longest) + 1;
        let start =
            choices.below(u32::try_from(self.model.blocks()).expect("few blocks") - blocks + 1) as usize;
        start..start + blocks as usize
    }

    /// Sends one command, if there is room and it meets no other.
    fn send(&mut self, at: usize, now: Instant, choices: &mut impl Choices) -> bool {
        if self.budget == 0 || self.driver.parts().1[at].free() == 0 {
            return false;
        }
        let Some(region) = self.idle.pop() else { return false };
        let Some((work, entry, bytes)) = self.prepare(&region, choices) else {
            self.idle.push(region);
            return false;
        };
        let tag = self.next;
        self.next += 1;
        self.budget -= 1;
        let buffer = if bytes > 0 {
            Some(Buffer::new(region, 0..bytes))
        } else {
            self.idle.push(region);
            None
        };
        self.works.insert(tag, work);
        let deadline = Some(now.after(self.timeout));
        let pair = &mut self.driver.parts().1[at];
        match pair.submit(&entry, buffer, tag, deadline) {
            Ok(_) => {
                self.figures.submitted += 1;
                self.reset_wanted |= pair.ring().is_err();
                true
            }
            Err(rejected) => {
                // The controller never saw it.
                self.idle.extend(rejected.buffer.map(Buffer::into_region));
                match self.works.remove(&tag) {
                    Some(Work::Read(range)) => self.model.end_read(range),
                    Some(Work::Change(ranges)) => {
                        ranges.into_iter().for_each(|(range, _)| self.model.forget_write(range));
                    }
                    Some(Work::Copy(sources, range, _)) => {
                        sources.into_iter().for_each(|source| self.model.end_read(source));
                        self.model.forget_write(range);
                    }
                    Some(Work::Flush) | None => {}
                }
                self.reset_wanted = true;
                false
            }
        }
    }

    fn prepare(
        &mut self,
        region: &DmaRegion,
        choices: &mut impl Choices,
    ) -> Option<(Work, SubmissionQueueEntry, usize)> {
        let first = self.next << 16;
        let lba = |block: usize| Lba::new(block as u64);
        match choices.below(16) {
            0..=2 => {
                let range = self.range(choices, LONGEST);
                if !self.model.begin_read(range.clone()) {
                    return None;
                }
                let entry = Read::new(NAMESPACE, lba(range.start), range.len() as u32).encode();
                let bytes = range.len() * BLOCK;
                Some((Work::Read(range), entry, bytes))
            }
            3..=10 => {
                let range = self.range(choices, LONGEST);
                if !self.model.begin_write(range.clone()) {
                    return None;
                }
                let stamps: Vec<Stamp> = (first..).take(range.len()).collect();
                let mut block = [0; BLOCK];
                for (at, stamp) in stamps.iter().enumerate() {
                    disk::fill(&mut block, *stamp);
                    region.write(at * BLOCK, &block).expect("the buffer's own bytes");
                }
                let entry = Write::new(NAMESPACE, lba(range.start), range.len() as u32).encode();
                let bytes = range.len() * BLOCK;
                Some((Work::Change(vec![(range, stamps)]), entry, bytes))
            }
            11 | 12 => {
                let range = self.range(choices, LONGEST);
                if !self.model.begin_write(range.clone()) {
                    return None;
                }
                let deallocate = choices.below(2) == 0;
                let zeroes = WriteZeroes::new(NAMESPACE, lba(range.start), range.len() as u32);
                let stamps = vec![0; range.len()];
                Some((Work::Change(vec![(range, stamps)]), WriteZeroes { deallocate, ..zeroes }.encode(), 0))
            }
            13 => {
                let mut ranges: Vec<(Range<usize>, Vec<Stamp>)> = Vec::new();
                for _ in 0..=choices.below(RANGES) {
                    let range = self.range(choices, 4);
                    if self.model.begin_write(range.clone()) {
                        let stamps = vec![0; range.len()];
                        ranges.push((range, stamps));
                    }
                }
                if ranges.is_empty() {
                    return None;
                }
                for ((range, _), at) in ranges.iter().zip(0..) {
                    let (start, blocks) = (lba(range.start), range.len() as u32);
                    let data = DatasetRangeData::from(DatasetRange { attributes: 0, blocks, start });
                    region.write(at * 16, data.as_bytes()).expect("the buffer's own bytes");
                }
                let count = ranges.len() as u16;
                let entry = DatasetManagement {
                    namespace: NAMESPACE,
                    ranges: count,
                    deallocate: true,
                    integral_write: false,
                    integral_read: false,
                };
                Some((Work::Change(ranges), entry.encode(), usize::from(count) * 16))
            }
            14 => self.prepare_copy(region, choices),
            _ => Some((Work::Flush, Flush { namespace: NAMESPACE }.encode(), 0)),
        }
    }

    fn prepare_copy(
        &mut self,
        region: &DmaRegion,
        choices: &mut impl Choices,
    ) -> Option<(Work, SubmissionQueueEntry, usize)> {
        let mut sources: Vec<Range<usize>> = Vec::new();
        let mut stamps = Vec::new();
        for _ in 0..=choices.below(RANGES) {
            let range = self.range(choices, 4);
            let known: Option<Vec<Stamp>> = range.clone().map(|block| self.model.certain(block)).collect();
            if let Some(known) = known
                && self.model.begin_read(range.clone())
            {
                sources.push(range);
                stamps.extend(known);
            }
        }
        let start = self.range(choices, 1).start;
        let range = start..start + stamps.len();
        if stamps.is_empty() || range.end > self.model.blocks() || !self.model.begin_write(range.clone()) {
            sources.into_iter().for_each(|source| self.model.end_read(source));
            return None;
        }
        for (source, at) in sources.iter().zip(0..) {
            let data =
                CopySourceData::from(CopySource::new(Lba::new(source.start as u64), source.len() as u32));
            region.write(at * 32, data.as_bytes()).expect("the buffer's own bytes");
        }
        let count = sources.len() as u16;
        let entry = Copy::new(NAMESPACE, Lba::new(start as u64), count).encode();
        Some((Work::Copy(sources, range, stamps), entry, usize::from(count) * 32))
    }
}

// SPDX-License-Identifier: MIT OR Apache-2.0
//! A closed loop of reads or writes: each command that completes is followed by the next one, and how long each took goes
//! into a histogram. One thread looks at all queue pairs in turn; the loop allocates nothing.

use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use nvme_core::dma::{Direction, DmaArena, DmaRegion, Pool, give_back};
use nvme_core::io::Buffer;
use nvme_core::wire::nvm::{Read, Write};
use nvme_core::wire::{Command, Lba, NamespaceId, Status, SubmissionQueueEntry};
use rustix::time::{ClockId, clock_gettime};

use crate::blocks::BlockRange;
use crate::driver::DriverError;
use crate::session::{Pair, Session};

/// Longest latency that is told from longer ones, in nanoseconds.
const LONGEST: u64 = 3_600_000_000_000;
/// Significant digits of latencies.
const DIGITS: u8 = 3;
/// Looks without a completion after which another thread may have the processor.
const PATIENCE: u32 = 4096;
/// Rounds between two looks at what is not I/O: the controller's health, time-outs, the observer.
const ROUNDS: u32 = 256;

/// What commands do, and to which blocks they go.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Load {
    pub(crate) namespace: NamespaceId,
    pub(crate) writes: bool,
    pub(crate) random: bool,
    /// The blocks that are used.
    pub(crate) range: BlockRange,
    /// Blocks of one command, at most those of the range.
    pub(crate) blocks: u32,
    /// Bytes of one command.
    pub(crate) bytes: usize,
    /// Queue pairs of the session that are used, and commands in flight in each.
    pub(crate) queues: u16,
    pub(crate) depth: u16,
    /// How long commands are sent.
    pub(crate) time: Duration,
    pub(crate) seed: u64,
    /// Sleep until the controller interrupts instead of looking all the time.
    pub(crate) waits: bool,
}

/// What was measured.
#[derive(Debug)]
pub(crate) struct Measured {
    /// Commands that succeeded.
    pub(crate) commands: u64,
    /// Commands that did not, and the status of the first one.
    pub(crate) errors: u64,
    pub(crate) first_error: Option<Status>,
    /// From the first command to the last completion.
    pub(crate) elapsed: Duration,
    /// Processor time of the measuring thread in it.
    pub(crate) cpu: Duration,
    /// Nanoseconds from the submission of a command to when its success was seen.
    pub(crate) latency: Histogram<u64>,
    /// Whether the observer ended it.
    pub(crate) interrupted: bool,
    /// A command did not complete in time.
    pub(crate) timed_out: bool,
}

/// Which blocks come next.
struct Places {
    random: Option<fastrand::Rng>,
    first: u64,
    blocks: u64,
    count: u64,
    next: u64,
}

impl Places {
    fn new(load: &Load) -> Self {
        let blocks = u64::from(load.blocks.max(1));
        Self {
            random: load.random.then(|| fastrand::Rng::with_seed(load.seed)),
            first: load.range.start,
            blocks,
            count: (load.range.blocks / blocks).max(1),
            next: 0,
        }
    }

    #[inline]
    fn next(&mut self) -> Lba {
        let at = match &mut self.random {
            Some(random) => random.u64(..self.count),
            None => {
                let at = self.next;
                self.next = if at + 1 == self.count { 0 } else { at + 1 };
                at
            }
        };
        Lba::new(self.first + at * self.blocks)
    }
}

fn entry(load: &Load, start: Lba) -> SubmissionQueueEntry {
    match load.writes {
        true => Write::new(load.namespace, start, load.blocks).encode(),
        false => Read::new(load.namespace, start, load.blocks).encode(),
    }
}

fn processor_time() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(u64::try_from(time.tv_sec).unwrap_or(0), u32::try_from(time.tv_nsec).unwrap_or(0))
}

fn nanoseconds(since: Instant) -> u64 {
    u64::try_from(since.elapsed().as_nanos()).unwrap_or(u64::MAX)
}

/// The queue pairs that `load` uses.
#[inline]
fn pairs<'p, 'd>(session: &'p mut Session<'d>, load: &Load) -> &'p mut [Pair<'d>] {
    let pairs = session.pairs();
    let count = pairs.len().min(load.queues.into());
    &mut pairs[..count]
}

/// Memory for every command that may be in flight; what is written is filled from the seed.
fn buffers(session: &mut Session<'_>, load: &Load) -> Result<Vec<DmaRegion>, DriverError> {
    let space = session.space();
    let direction = if load.writes { Direction::ToDevice } else { Direction::FromDevice };
    let depth = usize::from(load.depth);
    let count: usize = pairs(session, load).iter().map(|pair| pair.free().min(depth)).sum();
    let mut random = fastrand::Rng::with_seed(load.seed);
    let mut content = vec![0; if load.writes { load.bytes } else { 0 }];
    let mut regions = Vec::with_capacity(count);
    for _ in 0..count {
        let region = space.allocate_scattered(Pool::Data, load.bytes, direction)?;
        if load.writes {
            random.fill(&mut content);
            region.write(0, &content)?;
        }
        regions.push(region);
    }
    Ok(regions)
}

/// Runs `load` on all queue pairs of the session. `goes_on` is asked now and then, with what has passed of the time.
pub(crate) fn run(
    session: &mut Session<'_>,
    load: &Load,
    mut goes_on: impl FnMut(Duration) -> bool,
) -> Result<Measured, DriverError> {
    let latency = Histogram::new_with_bounds(1, LONGEST, DIGITS)
        .map_err(|_| DriverError::Malformed("the histogram's bounds"))?;
    let mut regions = buffers(session, load)?;
    let space = session.space();
    let timeout = session.timeout();
    let mut places = Places::new(load);
    let mut measured = Measured {
        commands: 0,
        errors: 0,
        first_error: None,
        elapsed: Duration::ZERO,
        cpu: Duration::ZERO,
        latency,
        interrupted: false,
        timed_out: false,
    };
    let mut in_flight = 0_usize;
    let mut sending = true;
    let (mut idle, mut rounds) = (0_u32, 0_u32);
    let processor = processor_time();
    let start = Instant::now();
    let mut deadline = session.now().after(timeout);
    let depth = usize::from(load.depth);
    for pair in pairs(session, load) {
        while pair.outstanding() < depth
            && pair.free() > 0
            && let Some(region) = regions.pop()
        {
            submit(pair, load, &mut places, Buffer::whole(region), nanoseconds(start), deadline)?;
            in_flight += 1;
        }
        pair.ring()?;
    }
    while in_flight > 0 {
        let mut some = false;
        for pair in pairs(session, load) {
            let mut taken = false;
            while let Some(completed) = pair.poll()? {
                taken = true;
                let now = nanoseconds(start);
                let status = completed.entry.status();
                if status.is_success() {
                    measured.commands += 1;
                    measured.latency.saturating_record(now.saturating_sub(completed.tag).max(1));
                } else {
                    measured.errors += 1;
                    measured.first_error.get_or_insert(status);
                }
                match completed.buffer {
                    Some(buffer) if sending => submit(pair, load, &mut places, buffer, now, deadline)?,
                    buffer => {
                        in_flight -= 1;
                        regions.extend(buffer.map(Buffer::into_region));
                    }
                }
            }
            if taken {
                pair.acknowledge()?;
                pair.ring()?;
                some = true;
            }
        }
        idle = if some { 0 } else { idle.saturating_add(1) };
        rounds = rounds.wrapping_add(1);
        if rounds.is_multiple_of(ROUNDS) || load.waits {
            let now = session.now();
            session.controller().poll(now)?;
            deadline = now.after(timeout);
            if pairs(session, load).iter_mut().any(|pair| pair.expire(now).is_some()) {
                // Nobody waits for what does not come.
                measured.timed_out = true;
                break;
            }
            let elapsed = start.elapsed();
            if sending && !goes_on(elapsed) {
                measured.interrupted = true;
                sending = false;
            }
            sending &= elapsed < load.time;
        }
        match idle {
            0 => {}
            _ if load.waits => session.nap(),
            _ if idle % PATIENCE == 0 => std::thread::yield_now(),
            _ => std::hint::spin_loop(),
        }
    }
    measured.elapsed = start.elapsed();
    measured.cpu = processor_time().saturating_sub(processor);
    for region in regions {
        give_back(space, region);
    }
    Ok(measured)
}

#[inline]
fn submit(
    pair: &mut Pair<'_>,
    load: &Load,
    places: &mut Places,
    buffer: Buffer,
    now: u64,
    deadline: nvme_core::time::Instant,
) -> Result<(), DriverError> {
    let entry = entry(load, places.next());
    // A command that is not submitted keeps its memory until the session ends.
    match pair.submit(&entry, Some(buffer), now, Some(deadline)) {
        Ok(_) => Ok(()),
        Err(rejected) => Err(DriverError::Submit(rejected.error)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_stay_inside_the_range_and_cover_it() {
        // First block, blocks of the range, blocks of a command, random.
        let rows = [
            ("in order", 10, 12, 4, false),
            ("in order with a rest", 0, 13, 4, false),
            ("one place", 7, 3, 3, true),
            ("at random", 100, 64, 8, true),
            ("at random with a rest", 100, 65, 8, true),
        ];
        for (name, start, blocks, size, random) in rows {
            let load = Load {
                namespace: NamespaceId::new(1),
                writes: false,
                random,
                range: BlockRange { start, blocks },
                blocks: size,
                bytes: 0,
                queues: 1,
                depth: 1,
                time: Duration::ZERO,
                seed: 9,
                waits: false,
            };
            let count = blocks / u64::from(size);
            let mut places = Places::new(&load);
            let found: Vec<u64> = (0..count * 40).map(|_| places.next().get()).collect();
            for at in &found {
                let at = *at;
                assert!(at >= start && at + u64::from(size) <= start + blocks, "{name}: {at}");
                assert_eq!((at - start) % u64::from(size), 0, "{name}: {at}");
            }
            let mut different = found.clone();
            different.sort_unstable();
            different.dedup();
            assert_eq!(different.len() as u64, count, "{name}: every place is used");
            let mut again = Places::new(&load);
            assert!(found.iter().all(|at| again.next().get() == *at), "{name}: the seed decides");
        }
    }
}

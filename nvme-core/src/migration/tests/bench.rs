// SPDX-License-Identifier: MIT OR Apache-2.0
//! Two subsystems, a guest, a mover and a platform in one thread.

use core::time::Duration;
use std::collections::{BTreeMap, VecDeque};
use std::vec;
use std::vec::Vec;

use super::super::*;
use crate::cdq::{CdqOptions, HeadPolicy, QueueLayout};
use crate::dirty::{DirtyMap, DirtySet, Granularity};
use crate::dma::Pool;
use crate::fake::{Device, FakePort, Running};
use crate::testing::TestArena;
use crate::time::{Instant, Step};
use crate::wire::controller_state::{ControllerStateBuilder, StateDialect, image_bytes};
use crate::wire::lba_migration::{Change, EntrySequence};
use crate::wire::{CdqId, ControllerId, NamespaceId};

pub(super) const MANAGER: u16 = 10;
pub(super) const SOURCE: ControllerId = ControllerId::new(1);
pub(super) const DESTINATION: ControllerId = ControllerId::new(2);
/// Blocks of the first and of the second namespace.
pub(super) const BLOCKS: [u64; 2] = [1500, 300];
pub(super) const BLOCK_BYTES: u64 = 512;

/// The mover's error: just a number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Broken(pub(super) u8);

type Disks = BTreeMap<u32, Vec<u64>>;

/// Copies a bounded number of blocks in each poll, and reads them only then.
#[derive(Default)]
pub(super) struct TestMover {
    accepted: VecDeque<Extent>,
    pub(super) blocks_per_poll: u64,
    pub(super) room: usize,
    blocks: u64,
    flushed: bool,
    /// Fails with the extent of this number.
    pub(super) breaks_at: Option<u64>,
    started: u64,
    pub(super) cancelled: bool,
    pub(super) zeroed: u64,
    cancel_polls: u32,
}

impl TestMover {
    fn work(&mut self, source: &Disks, destination: &mut Disks) {
        let mut budget = self.blocks_per_poll;
        while budget > 0
            && let Some(extent) = self.accepted.pop_front()
        {
            let blocks = extent.blocks.min(budget);
            budget -= blocks;
            self.blocks += blocks;
            let at = extent.start.get() as usize..(extent.start.get() + blocks) as usize;
            let to = &mut destination.get_mut(&extent.namespace.get()).unwrap()[at.clone()];
            match extent.kind {
                ExtentKind::Copy => to.copy_from_slice(&source[&extent.namespace.get()][at]),
                ExtentKind::Zeroes => {
                    self.zeroed += blocks;
                    to.fill(0);
                }
            }
            if extent.blocks > blocks {
                let start = crate::wire::Lba::new(extent.start.get() + blocks);
                self.accepted.push_front(Extent { start, blocks: extent.blocks - blocks, ..extent });
            }
        }
    }
}

impl DataMover for TestMover {
    type Error = Broken;

    fn start(&mut self, extent: Extent) -> Result<bool, Broken> {
        assert!(extent.blocks > 0, "no empty extents");
        if self.accepted.len() >= self.room {
            return Ok(false);
        }
        self.started += 1;
        if self.breaks_at == Some(self.started) {
            return Err(Broken(3));
        }
        self.flushed = false;
        self.accepted.push_back(extent);
        Ok(true)
    }

    fn poll(&mut self, _now: Instant) -> Result<MoverProgress, Broken> {
        Ok(MoverProgress {
            in_flight: self.accepted.len() as u64,
            blocks: self.blocks,
            bytes: self.blocks * BLOCK_BYTES,
        })
    }

    fn flush(&mut self, _now: Instant) -> Result<bool, Broken> {
        assert!(self.accepted.is_empty(), "flush while nothing is in flight");
        Ok(core::mem::replace(&mut self.flushed, true))
    }

    fn cancel(&mut self, _now: Instant) -> bool {
        self.accepted.clear();
        self.cancelled = true;
        self.cancel_polls += 1;
        self.cancel_polls > 2
    }
}

/// Where the guest is, as the platform believes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Guest {
    AtSource,
    Held,
    AtDestination,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Called {
    Suspended,
    Restore,
    Fence,
    Unfence,
    BeforeResume,
    DestinationResumed,
    Forgotten,
    SourceResumed,
}

pub(super) struct TestPlatform {
    pub(super) guest: Guest,
    pub(super) calls: Vec<Called>,
    /// Fails in this call.
    pub(super) breaks: Option<Called>,
    /// Fails, too.
    pub(super) breaks_too: Option<Called>,
}

impl TestPlatform {
    pub(super) const fn idle() -> Self {
        Self { guest: Guest::AtSource, calls: Vec::new(), breaks: None, breaks_too: None }
    }

    fn call(&mut self, call: Called) -> Result<(), Broken> {
        self.calls.push(call);
        if [self.breaks, self.breaks_too].contains(&Some(call)) { Err(Broken(7)) } else { Ok(()) }
    }
}

impl Platform for TestPlatform {
    type Error = Broken;

    fn source_suspended(&mut self, source: ControllerId) -> Result<(), Broken> {
        assert_eq!(source, SOURCE);
        self.guest = Guest::Held;
        self.call(Called::Suspended)
    }

    fn restore_properties(&mut self, destination: ControllerId) -> Result<(), Broken> {
        assert_eq!(destination, DESTINATION);
        self.call(Called::Restore)
    }

    fn fence_source(&mut self, source: ControllerId) -> Result<(), Broken> {
        assert_eq!(source, SOURCE);
        self.call(Called::Fence)
    }

    fn unfence_source(&mut self, source: ControllerId) -> Result<(), Broken> {
        assert_eq!(source, SOURCE);
        self.call(Called::Unfence)
    }

    fn before_resume(&mut self, destination: ControllerId) -> Result<(), Broken> {
        assert_eq!(destination, DESTINATION);
        self.call(Called::BeforeResume)
    }

    fn destination_resumed(&mut self, destination: ControllerId) -> Result<(), Broken> {
        assert_eq!(destination, DESTINATION);
        self.guest = Guest::AtDestination;
        self.call(Called::DestinationResumed)
    }

    fn destination_forgotten(&mut self, destination: ControllerId) -> Result<(), Broken> {
        assert_eq!(destination, DESTINATION);
        self.call(Called::Forgotten)
    }

    fn source_resumed(&mut self, source: ControllerId) -> Result<(), Broken> {
        assert_eq!(source, SOURCE);
        self.guest = Guest::AtSource;
        self.call(Called::SourceResumed)
    }
}

/// Does something to the source, whose queue has this identifier.
pub(super) type Hook = for<'p> fn(&mut FakePort<'p>, CdqId);

/// Everything a migration needs, to be changed before [`Bench::run`].
pub(super) struct Bench<'a> {
    arenas: [&'a TestArena; 2],
    pub(super) source: FakePort<'a>,
    pub(super) destination: FakePort<'a>,
    pub(super) mover: TestMover,
    pub(super) platform: TestPlatform,
    pub(super) options: MigrationOptions,
    pub(super) destination_options: DestinationOptions,
    /// The guest writes in every so-manieth poll; 0 for never.
    pub(super) write_every: u64,
    /// And so many times then.
    pub(super) writes: u64,
    /// Cancel when this step is reached.
    pub(super) cancel_at: Option<MigrationStep>,
    /// The guest writes more than the ring holds when this step is first reached.
    pub(super) burst_at: Option<MigrationStep>,
    /// The entry that closes the log comes a while after the suspension has completed.
    pub(super) late_marker: bool,
    /// The log names a namespace that nobody announced.
    pub(super) stranger: bool,
    /// Something happens to the source when this step is reached.
    pub(super) hook: Option<(MigrationStep, Hook)>,
    /// And again, in every so-manieth poll.
    pub(super) hook_every: Option<u64>,
    /// Most calls in a row in which the suspension of the source asked to be polled at once.
    pub(super) restless: u32,
    pub(super) steps: Vec<MigrationStep>,
    pub(super) rounds: Vec<Round>,
    pub(super) progress: Vec<Progress>,
    pub(super) image_room: usize,
}

pub(super) struct Ran {
    pub(super) outcome: Outcome<Broken, Broken>,
    pub(super) summary: Summary,
    pub(super) quarantined: bool,
    pub(super) cancelled: Option<Cancellation>,
}

pub(super) fn image(vendor_dwords: usize) -> Vec<u8> {
    let mut bytes = vec![0; image_bytes(0, 0, vendor_dwords * 4)];
    let mut builder = ControllerStateBuilder::new(&mut bytes, true, StateDialect::Specification).unwrap();
    for (at, byte) in builder.vendor_area().iter_mut().enumerate() {
        *byte = at as u8;
    }
    let len = builder.finish(vendor_dwords * 4).unwrap();
    assert_eq!(len, bytes.len());
    bytes
}

impl<'a> Bench<'a> {
    pub(super) fn new(arenas: &'a [TestArena; 2]) -> Self {
        let [first, second] = arenas;
        let mut source = FakePort::new(first, Device::new(MANAGER));
        let mut destination = FakePort::new(second, Device::new(MANAGER));
        for (nsid, blocks) in (1..).zip(BLOCKS) {
            source.device.disks.insert(nsid, (1..=blocks).map(|n| n * 1000 + u64::from(nsid)).collect());
            destination.device.disks.insert(nsid, vec![u64::MAX; blocks as usize]);
        }
        source.device.image = image(0);
        let mut options = MigrationOptions::new(SOURCE);
        options.queue = CdqOptions {
            entries: 64,
            layout: QueueLayout::PrpList,
            head: HeadPolicy { every: 8, ..HeadPolicy::default() },
            ..CdqOptions::default()
        };
        options.extent_blocks = 64;
        options.stop_time_limit = Duration::from_micros(100);
        let destination_options = DestinationOptions {
            controller: DESTINATION,
            limits: None,
            quirks: Quirks::empty(),
            timeouts: Timeouts::default(),
        };
        Self {
            arenas: [first, second],
            source,
            destination,
            mover: TestMover { blocks_per_poll: 40, room: 3, ..TestMover::default() },
            platform: TestPlatform::idle(),
            options,
            destination_options,
            write_every: 3,
            writes: 1,
            cancel_at: None,
            burst_at: None,
            late_marker: false,
            stranger: false,
            hook: None,
            hook_every: None,
            restless: 0,
            steps: Vec::new(),
            rounds: vec![Round::default(); 64],
            progress: Vec::new(),
            image_room: 1 << 16,
        }
    }

    pub(super) fn live(&self, pool: Pool) -> usize {
        self.arenas[0].live(pool) + self.arenas[1].live(pool)
    }

    /// Migrates to the end and checks at every moment that not both sides run.
    pub(super) fn run(&mut self) -> Ran {
        let mut words = [vec![0_u64; 64], vec![0_u64; 64]];
        let mut maps: Vec<DirtyMap<'_>> = (1..)
            .zip(BLOCKS)
            .zip(&mut words)
            .map(|((nsid, blocks), words)| {
                DirtyMap::new(NamespaceId::new(nsid), blocks, Granularity::BLOCK, words).unwrap()
            })
            .collect();
        let dirty = DirtySet::new(&mut maps).unwrap();
        let mut rounds = core::mem::take(&mut self.rounds);
        let mut image = vec![0; self.image_room];
        let mut migrator =
            Migrator::new(self.options, self.destination_options, dirty, &mut rounds, &mut image);
        let mut now = Instant::from_micros(5);
        let mut tick = 0_u64;
        let mut cancelled = None;
        let mut restless = 0;
        loop {
            tick += 1;
            assert!(tick < 200_000, "the migration ends; it hangs in {}", migrator.step());
            if self.steps.last() != Some(&migrator.step()) {
                self.steps.push(migrator.step());
            }
            if cancelled.is_none() && self.cancel_at == Some(migrator.step()) {
                cancelled = Some(migrator.cancel());
            }
            if self.burst_at == Some(migrator.step()) {
                self.burst_at = None;
                for start in 0..20 {
                    self.source.write(1, start * 3, &[tick, tick]);
                }
            }
            if self.late_marker && migrator.step() == MigrationStep::Drain && tick.is_multiple_of(8) {
                self.late_marker = false;
                let id = *self.source.device.queues.keys().next().unwrap();
                assert!(self.source.post(CdqId::new(id), EntrySequence::LastSuspended, Change::None));
            }
            if self.stranger && migrator.step() == MigrationStep::BaselineCopy {
                self.stranger = false;
                let id = *self.source.device.queues.keys().next().unwrap();
                let change = Change::AllOfNamespace { namespace: NamespaceId::new(77) };
                assert!(self.source.post(CdqId::new(id), EntrySequence::First, change));
            }
            if let Some((step, hook)) = self.hook
                && step == migrator.step()
                && self.hook_every.is_none_or(|every| tick.is_multiple_of(every))
            {
                if self.hook_every.is_none() {
                    self.hook = None;
                }
                let id = *self.source.device.queues.keys().next().unwrap();
                hook(&mut self.source, CdqId::new(id));
            }
            self.progress.push(migrator.progress());
            let ports = Ports { source: &mut self.source, destination: &mut self.destination };
            let step = migrator.poll(now, ports, &mut self.mover, &mut self.platform);
            self.mover.work(&self.source.device.disks, &mut self.destination.device.disks);
            let runs_there = self.destination.device.running == Running::Running
                && (self.destination.device.committed || self.platform.guest == Guest::AtDestination);
            assert!(
                !(self.source.device.running == Running::Running && runs_there),
                "both sides run in {}",
                migrator.step()
            );
            let suspending = migrator.step() == MigrationStep::SuspendSource && step == Step::Again;
            restless = if suspending { restless + 1 } else { 0 };
            self.restless = self.restless.max(restless);
            match step {
                Step::Done => break,
                Step::Again => now = now.after(Duration::from_micros(7)),
                Step::Wait(until) => now = until.max(now.after(Duration::from_micros(7))),
            }
            let writes = self.write_every != 0 && tick.is_multiple_of(self.write_every);
            if writes && self.source.device.running == Running::Running {
                for write in 0..self.writes {
                    let at = (tick + write).wrapping_mul(0x9E37_79B9) >> 8;
                    let namespace = 1 + (tick % 2) as u32;
                    let start = at % (BLOCKS[namespace as usize - 1] - 4);
                    self.source.write(namespace, start, &[tick, write, tick + 2]);
                }
            }
        }
        let outcome = *migrator.outcome().expect("an outcome");
        let summary = migrator.summary();
        let quarantined = migrator.take_quarantined();
        let ran = Ran { outcome, summary, quarantined: quarantined.is_some(), cancelled };
        if let Some(memory) = quarantined {
            assert!(self.live(Pool::ControllerData) > 0);
            self.source.disable();
            memory.release(self.arenas[0], &crate::testing::TestProof);
        }
        drop(migrator);
        self.rounds = rounds;
        self.rounds.truncate(summary.rounds as usize);
        assert_eq!(self.live(Pool::ControllerData), 0, "no queue memory is lost");
        ran
    }

    /// The guest went over and everything with it.
    pub(super) fn assert_migrated(&self, ran: &Ran) {
        assert_eq!(ran.outcome, Outcome::Completed { platform: true, clean_up: None });
        assert!(self.source.device.disks == self.destination.device.disks, "the data is the same");
        assert_eq!(self.destination.device.received, self.source.device.image, "the state is the same");
        assert_eq!(self.source.device.running, Running::Suspended);
        assert_eq!(self.destination.device.running, Running::Running);
        assert_eq!(self.platform.guest, Guest::AtDestination);
        assert!(self.source.device.queues.is_empty());
        assert_eq!(self.live(Pool::Data), 0);
        assert_eq!(self.progress.last().unwrap().remaining_blocks, 0);
    }

    /// The guest is where it was and nothing is left behind.
    pub(super) fn assert_rolled_back(&self, ran: &Ran, name: &str) {
        assert!(matches!(ran.outcome, Outcome::RolledBack { .. }), "{name}: {:?}", ran.outcome);
        assert_eq!(self.source.device.running, Running::Running, "{name}");
        assert_eq!(self.platform.guest, Guest::AtSource, "{name}");
        assert!(self.source.device.queues.is_empty(), "{name}: the queue is gone");
        assert!(self.mover.cancelled, "{name}");
        let there = &self.destination.device;
        assert!(!(there.committed && there.running == Running::Running), "{name}");
        let suspended = self.platform.calls.contains(&Called::Suspended);
        assert_eq!(self.platform.calls.contains(&Called::SourceResumed), suspended, "{name}");
        let place = |call| self.platform.calls.iter().position(|called| *called == call);
        assert_eq!(
            place(Called::Fence).is_some(),
            place(Called::Unfence).is_some(),
            "{name}: the fence is gone"
        );
        assert!(place(Called::Unfence) <= place(Called::SourceResumed), "{name}: and it went in time");
    }
}

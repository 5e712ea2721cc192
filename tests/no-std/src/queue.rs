// SPDX-License-Identifier: MIT OR Apache-2.0
//! The life of a Controller Data Queue: created in one run and over a PRP list, read while a guest writes more than
//! it holds, told of by a trigger, drained to the end of the log, deleted.

use core::hint::black_box;
use core::time::Duration;

use nvme_core::admin::{AdminRequest, Call};
use nvme_core::cdq::{CdqCreation, CdqDeletion, CdqOptions, HeadPolicy, LogEvent, QueueLayout};
use nvme_core::controller::Ready;
use nvme_core::dirty::{DirtyMap, DirtySet, Granularity};
use nvme_core::io::IoQueuePair;
use nvme_core::migration::{Discovery, Quirks};
use nvme_core::register::RegisterIo;
use nvme_core::time::Step;
use nvme_core::wire::nvm::WriteZeroes;
use nvme_core::wire::{Command, Lba};

use crate::sys::memory::Memory;
use crate::world::{Check, Failed, GUEST, NAMESPACE, World};

const ENTRIES: u32 = 160;
const BLOCKS: u64 = 64;
const LIMIT: Duration = Duration::from_secs(5);

fn call<R: RegisterIo>(
    world: &World<'_, '_>,
    number: u8,
    ready: &mut Ready<'_, '_, R, Memory>,
    request: AdminRequest,
) -> Result<(), Failed> {
    let mut call = Call::new();
    call.start(request).check(number)?;
    world.drive(number, |now| {
        ready.poll(now).ok()?;
        match call.poll(ready.admin(), now) {
            Some(result) => result.outcome.is_ok().then_some(Step::Done),
            None => Some(Step::Again),
        }
    })
}

/// Failures are numbered from 40.
pub fn work<R: RegisterIo>(
    world: &World<'_, '_>,
    manager: &mut Ready<'_, '_, R, Memory>,
    guest: &mut IoQueuePair<'_, '_, R, Memory, ()>,
) -> Result<(), Failed> {
    let mut discovery = Discovery::new(Quirks::empty(), LIMIT);
    let mut found = None;
    world.drive(40, |now| {
        manager.poll(now).ok()?;
        match discovery.poll(manager.admin(), now) {
            Some(result) => {
                found = result.ok();
                Some(Step::Done)
            }
            None => Some(Step::Again),
        }
    })?;
    let known = found.check(41)?.manager;
    let tracked = known.track(GUEST).check(41)?;
    let head = HeadPolicy { every: 8, ..HeadPolicy::default() };

    for layout in [QueueLayout::Contiguous, QueueLayout::PrpList] {
        let options = black_box(CdqOptions { entries: ENTRIES, layout, head, ..CdqOptions::default() });
        let mut creation = CdqCreation::new(manager.admin(), tracked, &options).check(42)?;
        let mut created = None;
        world.drive(43, |now| {
            manager.poll(now).ok()?;
            match creation.poll(manager.admin(), now) {
                Some(result) => {
                    created = result.ok();
                    Some(Step::Done)
                }
                None => Some(Step::Again),
            }
        })?;
        let mut queue = created.check(44)?;
        call(world, 45, manager, known.log_user_data(queue.id(), true))?;
        let mut first = None;
        world.drive(46, |now| {
            manager.poll(now).ok()?;
            first = queue.next_event(manager.admin(), 1);
            Some(if first.is_some() { Step::Done } else { Step::Again })
        })?;
        (first == Some(LogEvent::LogStarted)).check(46)?;

        let mut words = [0; BLOCKS.div_ceil(64) as usize];
        let mut maps =
            [DirtyMap::new(NAMESPACE, black_box(BLOCKS), black_box(Granularity::BLOCK), &mut words)
                .check(47)?];
        let mut dirty = DirtySet::new(&mut maps).check(47)?;
        let mut read = 1_u64;
        for write in 0..u64::from(ENTRIES).saturating_mul(2) {
            let entry = WriteZeroes::new(NAMESPACE, Lba::new(write % BLOCKS), 1).encode();
            world.transfer(48, guest, &entry, None)?;
            let now = world.tick();
            manager.poll(now).check(49)?;
            let (drained, polled) = queue.poll(manager.admin(), &mut dirty, now, 16, write % 32 == 0);
            let _ = polled.check(49)?;
            read = read.saturating_add(u64::from(drained.entries));
        }
        call(world, 50, manager, known.log_user_data(queue.id(), false))?;
        world.drive(51, |now| {
            manager.poll(now).ok()?;
            let (drained, polled) = queue.poll(manager.admin(), &mut dirty, now, 16, true);
            let _ = polled.ok()?;
            read = read.saturating_add(u64::from(drained.entries));
            let closed = queue.figures().entries > u64::from(ENTRIES).saturating_mul(2).saturating_add(1);
            Some(if closed { Step::Done } else { Step::Again })
        })?;
        (read == queue.figures().entries).check(52)?;
        (queue.take_violation().is_none() && queue.figures().overflows == 0).check(53)?;
        let mut blocks = 0_u64;
        while let Some(extent) = dirty.take(u64::MAX) {
            blocks = blocks.saturating_add(extent.blocks);
        }
        (blocks == BLOCKS).check(54)?;

        let mut deletion = CdqDeletion::new(queue, LIMIT);
        let mut deleted = None;
        world.drive(55, |now| {
            manager.poll(now).ok()?;
            match deletion.poll(manager.admin(), now) {
                Some(result) => {
                    deleted = result.ok();
                    Some(Step::Done)
                }
                None => Some(Step::Again),
            }
        })?;
        deleted.check(56)?;
    }
    Ok(())
}

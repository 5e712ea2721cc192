// SPDX-License-Identifier: MIT OR Apache-2.0
//! The migration itself: both managing controllers, the mover, and the step machine that uses them.

use std::path::PathBuf;
use std::time::Duration;

use nvme_core::admin::AdminSlot;
use nvme_core::cdq::{CdqOptions, HeadPolicy, QueueLayout};
use nvme_core::controller::{EnableOptions, Link};
use nvme_core::dirty::{DirtyMap, DirtySet, Granularity};
use nvme_core::dma::Pool;
use nvme_core::io::IoSlot;
use nvme_core::migration::{
    ConvergencePolicy, DestinationOptions, MigrationOptions, MigrationStep, Migrator, Outcome, Ports, Quirks,
    Round, Summary, Timeouts,
};
use nvme_core::time::{Instant, Step};
use nvme_core::wire::QueueId;

use super::bench::{Bench, DESTINATION, MANAGER, SOURCE, registers};
use super::{Observer, RunError, Status};
use crate::config::{CdqLayout, MigrateConfig};
use crate::driver::{
    Clock, Controller, DriverError, Kept, QueuePair, Waiter, bring_down, bring_up, create_pair, delete_pair,
    identify_controller, identify_namespace, request_queues,
};
use crate::embedded::{EmbeddedController, NAMESPACE};
use crate::memory::AddressSpace;
use crate::mover::{Mover, MoverError, PIECE_BYTES, PIECES, Tag};
use crate::platform::PlatformError;

const ADMIN_SLOTS: usize = 32;
/// Largest controller state that can be taken.
const STATE_BYTES: usize = 1 << 20;
/// Longest sleep of the migration.
const NAP: Duration = Duration::from_millis(1);
/// Time between two looks of an observer.
const OBSERVE: Duration = Duration::from_millis(50);

/// What the migration did.
pub(super) struct Transfer {
    pub(super) outcome: Outcome<MoverError, PlatformError>,
    pub(super) step: MigrationStep,
    pub(super) cancelled_after: Option<MigrationStep>,
    pub(super) summary: Summary,
    pub(super) rounds: Vec<Round>,
    pub(super) duration: Duration,
    pub(super) controller_data_left: u64,
    /// Why a managing controller could not be shut down after it all.
    pub(super) bring_down_error: Option<DriverError>,
    pub(super) journal: Option<PathBuf>,
}

/// A managing controller in use, with its one I/O queue pair.
struct Manager<'d, 's> {
    controller: Controller<'d, 's, EmbeddedController>,
    arena: &'d AddressSpace,
}

type Pair<'d, 's> = QueuePair<'d, 's, EmbeddedController, Tag>;

fn bring_up_manager<'d, 's>(
    registers: &'d EmbeddedController,
    arena: &'d AddressSpace,
    link: &'d Link,
    slots: &'s mut [AdminSlot],
    io_slots: &'s mut [IoSlot<Tag>],
    waiter: Waiter<'_>,
) -> Result<(Manager<'d, 's>, Pair<'d, 's>), DriverError> {
    let mut controller = bring_up(registers, arena, link, slots, &EnableOptions::default(), waiter)?;
    identify_controller(&mut controller, waiter)?;
    request_queues(&mut controller, 1, waiter)?;
    let pair = create_pair(&mut controller, QueueId::new(1), PIECE_BYTES, io_slots, waiter)?;
    Ok((Manager { controller, arena }, pair))
}

fn options(config: &MigrateConfig, block_size: u32, unallocated_reads_zero: bool) -> MigrationOptions {
    let head = match config.head_every {
        Some(every) => HeadPolicy { every, occupancy_percent: 0, when_idle: false, ..HeadPolicy::default() },
        None => HeadPolicy::default(),
    };
    let layout = match config.cdq_layout {
        CdqLayout::Contiguous => QueueLayout::Contiguous,
        CdqLayout::PrpList => QueueLayout::PrpList,
    };
    MigrationOptions {
        queue: CdqOptions { entries: config.cdq_entries, layout, head, ..CdqOptions::default() },
        extent_blocks: (PIECE_BYTES as u64) / u64::from(block_size),
        max_rounds: config.max_rounds,
        stop_time_limit: config.stop_time_limit,
        convergence: if config.strict { ConvergencePolicy::Cancel } else { ConvergencePolicy::Force },
        unallocated_reads_zero,
        ..MigrationOptions::new(SOURCE)
    }
}

/// Whether a step that the migration went from `before` to `now` was `asked` or went past it.
fn has_passed(before: MigrationStep, now: MigrationStep, asked: MigrationStep) -> bool {
    before <= asked && now > asked
}

impl Bench {
    /// Migrates the guest, or tries to.
    pub(super) fn transfer(
        &mut self,
        config: &MigrateConfig,
        observer: &mut impl Observer,
    ) -> Result<Transfer, RunError> {
        let waiter = Waiter { clock: Clock::new(), signal: &self.managers };
        let source_registers = registers(&self.subsystems.source, MANAGER)?;
        let destination_registers = registers(&self.subsystems.destination, MANAGER)?;
        let links = [Link::new(), Link::new()];
        let [source_link, destination_link] = &links;
        let admin_slots = || (0..ADMIN_SLOTS).map(|_| AdminSlot::new()).collect::<Vec<_>>();
        let io_slots = || (0..PIECES + 1).map(|_| IoSlot::new()).collect::<Vec<IoSlot<Tag>>>();
        let (mut source_slots, mut destination_slots) = (admin_slots(), admin_slots());
        let (mut source_io, mut destination_io) = (io_slots(), io_slots());

        let (mut source, source_pair) = bring_up_manager(
            &source_registers,
            &self.memory.source,
            source_link,
            &mut source_slots,
            &mut source_io,
            waiter,
        )
        .map_err(RunError::Manager)?;
        let (mut destination, destination_pair) = bring_up_manager(
            &destination_registers,
            &self.memory.destination,
            destination_link,
            &mut destination_slots,
            &mut destination_io,
            waiter,
        )
        .map_err(RunError::Manager)?;
        let namespace =
            identify_namespace(&mut source.controller, NAMESPACE, waiter).map_err(RunError::Manager)?;
        let block_size = namespace.block_bytes();
        let mut mover = Mover::new(
            (source_pair, source.arena),
            (destination_pair, destination.arena),
            NAMESPACE,
            block_size.trailing_zeros(),
        )
        .map_err(|error| RunError::Manager(error.into()))?;

        let mut words = vec![0; Granularity::BLOCK.words_needed(namespace.blocks).unwrap_or(usize::MAX)];
        let no_map = || RunError::Manager(DriverError::Malformed("Identify Namespace"));
        let map = DirtyMap::new(NAMESPACE, namespace.blocks, Granularity::BLOCK, &mut words);
        let mut maps = [map.map_err(|_| no_map())?];
        let dirty = DirtySet::new(&mut maps).map_err(|_| no_map())?;
        let mut rounds = vec![Round::default(); config.max_rounds as usize * 2 + 64];
        let mut image = vec![0; STATE_BYTES];
        let reads_zero = namespace.deallocate_features & 7 == 1;
        let mut migrator = Migrator::new(
            options(config, block_size, reads_zero),
            DestinationOptions {
                controller: DESTINATION,
                limits: None,
                quirks: Quirks::empty(),
                timeouts: Timeouts::default(),
            },
            dirty,
            &mut rounds,
            &mut image,
        );

        let begun = waiter.now();
        let mut observed = Instant::ZERO;
        let mut last_step = migrator.step();
        let mut cancelled_after = None;
        loop {
            let now = waiter.now();
            // A manager that fails loses its commands, which is how the migration learns of it.
            let _ = source.controller.poll(now);
            let _ = destination.controller.poll(now);
            let ports =
                Ports { source: source.controller.admin(), destination: destination.controller.admin() };
            let step = migrator.poll(now, ports, &mut mover, &mut self.platform);
            let current = migrator.step();
            if let Some(asked) = config.cancel_after
                && cancelled_after.is_none()
                && has_passed(last_step, current, asked)
            {
                cancelled_after = Some(asked);
                let _ = migrator.cancel();
            }
            last_step = current;
            if self.guest.has_failed() {
                let _ = migrator.cancel();
            }
            if now.since(observed) >= OBSERVE || step == Step::Done {
                observed = now;
                let progress = migrator.progress();
                observer.update(&Status {
                    step: current.name().into(),
                    moved_bytes: progress.moved_bytes,
                    total_bytes: progress.moved_bytes + progress.remaining_blocks * u64::from(block_size),
                });
            }
            match step {
                Step::Done => break,
                Step::Again => {}
                Step::Wait(until) => {
                    self.managers.wait(until.since(waiter.now()).min(NAP));
                }
            }
        }
        let duration = waiter.now().since(begun);
        let Some(outcome) = migrator.outcome().copied() else {
            return Err(RunError::Manager(DriverError::TimedOut("the migration")));
        };
        let summary = migrator.summary();
        let step = migrator.step();
        let mut quarantined = migrator.take_quarantined();
        drop(migrator);
        let controller_data_left = self.memory.source.usage(Pool::ControllerData).bytes as u64;

        let parts = mover.into_parts();
        let mut bring_down_error = None;
        for (manager, (pair, buffers)) in [source, destination].into_iter().zip(parts) {
            let Manager { mut controller, arena } = manager;
            // The source comes first, and only it can have a queue.
            let kept = Kept { buffers, quarantined: quarantined.take() };
            let ended = delete_pair(&mut controller, pair, waiter);
            let ended = ended.and(bring_down(controller, arena, kept, waiter));
            bring_down_error = bring_down_error.or(ended.err());
        }
        Ok(Transfer {
            outcome,
            step,
            cancelled_after,
            summary,
            rounds: rounds.into_iter().take(summary.rounds as usize).collect(),
            duration,
            controller_data_left,
            bring_down_error,
            journal: self.journal.clone(),
        })
    }
}

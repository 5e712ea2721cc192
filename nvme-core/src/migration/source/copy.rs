// SPDX-License-Identifier: MIT OR Apache-2.0
//! Copying while the guest runs: the baseline, the rounds, and what to do when the log overflows.

use core::time::Duration;

use super::baseline::{REPORT_BYTES, Wanted};
use super::{Advance, Purpose, SourceHalf, command};
use crate::admin::AdminPort;
use crate::cdq::ControllerDataQueue;
use crate::migration::failure::{Failure, MigrationCommand};
use crate::migration::host::{DataMover, Extent, ExtentKind, MoverProgress};
use crate::migration::options::{Convergence, ConvergencePolicy, Round};
use crate::migration::quirks::Quirks;
use crate::migration::step::MigrationStep;
use crate::time::Instant;
use crate::wire::StatusCode;

/// Extents offered to the mover in one poll.
const EXTENTS_PER_POLL: u32 = 32;
/// Rounds in a row after which no less is dirty than before, and no further one is made.
const STALLED_ROUNDS: u32 = 2;

/// Blocks, and how long they took.
#[derive(Clone, Copy, Debug, Default)]
struct Pace {
    blocks: u64,
    time: Duration,
}

impl Pace {
    fn add(&mut self, other: Self) {
        self.blocks = self.blocks.saturating_add(other.blocks);
        self.time = self.time.saturating_add(other.time);
    }
}

/// The mover's account.
#[derive(Debug, Default)]
pub(super) struct Mover {
    base: Option<MoverProgress>,
    latest: MoverProgress,
    accepted: u64,
    /// An extent that the mover had no room for.
    pending: Option<Extent>,
    /// What came over while the mover had copies to make and nothing else, in rounds and between them.
    pace: Pace,
    /// What has come over since the mover was last without work.
    stretch: Pace,
    /// Some of that were zeroes, which take no time to speak of: the stretch says nothing of the pace of copies.
    zeroes: bool,
    /// Until when the stretch counts, if the mover has work.
    busy: Option<Instant>,
    /// Something was accepted since the mover was last asked: one that has moved it by then took time as well, which
    /// counts until the look after.
    fresh: bool,
    /// Blocks and bytes that the rounds made so far have reported.
    reported: (u64, u64),
}

impl Mover {
    /// Blocks and bytes brought over since the migration began.
    pub(super) fn moved(&self) -> (u64, u64) {
        let base = self.base.unwrap_or_default();
        (self.latest.blocks.saturating_sub(base.blocks), self.latest.bytes.saturating_sub(base.bytes))
    }

    /// Blocks accepted, or offered and not accepted yet.
    pub(super) fn on_their_way(&self) -> u64 {
        if self.pending.is_none() && self.latest.in_flight == 0 {
            return 0;
        }
        let pending = self.pending.map_or(0, |extent| extent.blocks);
        self.accepted.saturating_sub(self.moved().0).saturating_add(pending)
    }

    const fn is_idle(&self) -> bool {
        self.pending.is_none() && self.latest.in_flight == 0
    }

    /// Takes what the mover says of itself. Time in which it had work counts for its pace, or blocks that come over
    /// between two rounds would have taken none.
    fn note(&mut self, now: Instant, progress: MoverProgress) {
        self.base.get_or_insert(progress);
        let blocks =
            progress.blocks.saturating_sub(self.latest.blocks.max(self.base.unwrap_or_default().blocks));
        self.latest = progress;
        let time = self.busy.take().map(|since| now.since(since)).unwrap_or_default();
        self.stretch.add(Pace { blocks, time });
        let fresh = core::mem::take(&mut self.fresh);
        self.busy = (fresh || !self.is_idle()).then_some(now);
        if self.busy.is_none() {
            self.pace = self.pace_so_far();
            (self.stretch, self.zeroes) = (Pace::default(), false);
        }
    }

    fn accept(&mut self, now: Instant, blocks: u64, kind: ExtentKind) {
        self.accepted = self.accepted.saturating_add(blocks);
        self.zeroes |= kind == ExtentKind::Zeroes;
        self.busy.get_or_insert(now);
        self.fresh = true;
    }

    fn pace_so_far(&self) -> Pace {
        let mut pace = self.pace;
        if !self.zeroes {
            pace.add(self.stretch);
        }
        pace
    }

    /// How long so many blocks would take at the pace so far; `None` if there is no pace yet.
    fn time_for(&self, blocks: u64) -> Option<Duration> {
        if blocks == 0 {
            return Some(Duration::ZERO);
        }
        let pace = self.pace_so_far();
        let micros = u128::from(blocks).saturating_mul(pace.time.as_micros());
        let micros = micros.checked_div(u128::from(pace.blocks))?;
        Some(Duration::from_micros(u64::try_from(micros).unwrap_or(u64::MAX)))
    }
}

/// A round that is being made.
#[derive(Clone, Copy, Debug)]
pub(super) struct OpenRound {
    began: Instant,
    entries: u64,
    /// Blocks that were dirty when it began.
    dirty: u64,
    /// Blocks that the mover had accepted before.
    accepted: u64,
    /// Every block of the sweep has been offered.
    swept: bool,
}

/// How far the log is restarted after an overflow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Recovery {
    None,
    Draining,
    Stopping,
    Starting,
}

impl<M: Copy, H: Copy> SourceHalf<'_, '_, M, H> {
    fn entries_read(&self) -> u64 {
        self.queue.as_ref().map_or(self.figures, ControllerDataQueue::figures).entries
    }

    fn open_round(&mut self, now: Instant) -> OpenRound {
        if let Some(round) = self.round {
            return round;
        }
        let round = OpenRound {
            began: now,
            entries: self.entries_read(),
            dirty: self.dirty.dirty_blocks(),
            accepted: self.mover.accepted,
            swept: false,
        };
        self.dirty.restart();
        self.cut = false;
        self.round = Some(round);
        round
    }

    fn close_round(&mut self, now: Instant, cut_short: bool) {
        let Some(open) = self.round.take() else { return };
        // What was still on its way when a round was cut short counts for the next one.
        let (blocks, bytes) = self.mover.moved();
        let (blocks_before, bytes_before) = core::mem::replace(&mut self.mover.reported, (blocks, bytes));
        let duration = now.since(open.began);
        let round = Round {
            number: self.made,
            entries: self.entries_read().saturating_sub(open.entries),
            blocks: blocks.saturating_sub(blocks_before),
            bytes: bytes.saturating_sub(bytes_before),
            duration,
            dirty_blocks: self.dirty.dirty_blocks(),
            cut_short,
        };
        let place = usize::try_from(self.made).ok().and_then(|made| self.rounds.get_mut(made));
        if let Some(place) = place {
            *place = round;
        }
        self.made = self.made.saturating_add(1);
        // What is dirty is known once the entries that are there now have been read.
        self.unread = self.queue.as_ref().map_or(0, ControllerDataQueue::entries);
    }

    fn move_on<V: DataMover<Error = M> + ?Sized>(
        &mut self,
        now: Instant,
        mover: &mut V,
    ) -> Result<(), Failure<M, H>> {
        let progress = mover.poll(now).map_err(Failure::Mover)?;
        self.mover.note(now, progress);
        Ok(())
    }

    /// Offers an extent; `false` if the mover has no room for it now.
    fn offer<V: DataMover<Error = M> + ?Sized>(
        &mut self,
        now: Instant,
        mover: &mut V,
        extent: Extent,
    ) -> Result<bool, Failure<M, H>> {
        if mover.start(extent).map_err(Failure::Mover)? {
            self.mover.accept(now, extent.blocks, extent.kind);
            Ok(true)
        } else {
            self.mover.pending = Some(extent);
            Ok(false)
        }
    }

    /// Offers dirty extents; `true` once the sweep has ended, at the latest when the mover has accepted `until` blocks.
    fn sweep<V: DataMover<Error = M> + ?Sized>(
        &mut self,
        now: Instant,
        mover: &mut V,
        until: u64,
    ) -> Result<bool, Failure<M, H>> {
        for _ in 0..EXTENTS_PER_POLL {
            let extent = match self.mover.pending.take() {
                Some(extent) => extent,
                None if self.mover.accepted >= until => return Ok(true),
                None => match self.dirty.take(self.options.extent_blocks) {
                    Some(dirty) => Extent {
                        namespace: dirty.namespace,
                        start: dirty.start,
                        blocks: dirty.blocks,
                        kind: ExtentKind::Copy,
                    },
                    None => return Ok(true),
                },
            };
            if !self.offer(now, mover, extent)? {
                break;
            }
        }
        Ok(false)
    }

    pub(super) fn copy_baseline<P, V>(
        &mut self,
        now: Instant,
        port: &mut P,
        mover: &mut V,
    ) -> Result<Advance, Failure<M, H>>
    where
        P: AdminPort + ?Sized,
        V: DataMover<Error = M> + ?Sized,
    {
        if self.first() {
            self.move_on(now, mover)?;
            let reports = self.manager_or(|manager, _| manager.reports_allocation())?;
            if reports && self.options.unallocated_reads_zero {
                self.baseline.ask_for_reports();
            }
        }
        self.open_round(now);
        self.pump(now, port, false)?;
        if self.cut {
            // Everything is dirty, so the rounds copy all that this pass has not brought over.
            self.baseline.finish();
            self.close_round(now, true);
            return Ok(Advance::Next(MigrationStep::DeltaRounds));
        }
        if !self.call.is_idle() {
            let Some(result) = self.call.poll(port, now) else {
                self.move_on(now, mover)?;
                return Ok(Advance::Wait);
            };
            let mut report = [0; REPORT_BYTES];
            let read = result.read(port.arena(), &mut report).is_ok();
            self.baseline.report(self.dirty.maps(), read.then_some(&report[..]));
        }
        let mut ended = false;
        for _ in 0..EXTENTS_PER_POLL {
            let wanted = match self.mover.pending.take() {
                Some(extent) => Wanted::Extent(extent),
                None => self.baseline.wanted(self.dirty.maps(), self.options.extent_blocks),
            };
            match wanted {
                Wanted::Extent(extent) => {
                    if !self.offer(now, mover, extent)? {
                        break;
                    }
                }
                Wanted::Report(namespace, start) => {
                    let request = self.manager_or(|manager, _| {
                        manager.allocated_blocks(port.arena(), namespace, start, REPORT_BYTES)
                    })?;
                    match request {
                        Ok(request) => self.send(request, Purpose::Other),
                        Err(error) => return Err(Failure::Data(error)),
                    }
                    break;
                }
                Wanted::Nothing => {
                    ended = true;
                    break;
                }
            }
        }
        self.move_on(now, mover)?;
        if ended && self.mover.is_idle() {
            self.baseline.finish();
            self.close_round(now, false);
            return Ok(Advance::Next(MigrationStep::DeltaRounds));
        }
        Ok(if ended || self.mover.pending.is_some() { Advance::Soon } else { Advance::Again })
    }

    pub(super) fn copy_rounds<P, V>(
        &mut self,
        now: Instant,
        port: &mut P,
        mover: &mut V,
    ) -> Result<Advance, Failure<M, H>>
    where
        P: AdminPort + ?Sized,
        V: DataMover<Error = M> + ?Sized,
    {
        if self.first() {
            self.convergence = None;
        }
        self.move_on(now, mover)?;
        if !self.call.is_idle() && self.recovery == Recovery::None {
            // A report that the baseline asked for and does not need any more.
            match self.call.poll(port, now) {
                Some(result) => drop(result.finish(port.arena())),
                None => return Ok(Advance::Wait),
            }
        }
        if self.lost {
            let opened = self.round.is_some();
            self.close_interrupted(now);
            if !opened && self.recovery == Recovery::None && self.restarts > 0 {
                // Lost again before a round could begin: that was one, or tiny rings would never let this end.
                self.deltas = self.deltas.saturating_add(1);
            }
            if self.deltas >= self.options.max_rounds {
                return self.give_up(Convergence::Overflowed);
            }
            return self.recover(now, port);
        }
        let empty = self.pump(now, port, false)?;
        if self.cut {
            // Without an open round there is nothing to close, and the rounds to come copy everything anyway.
            let opened = self.round.is_some();
            self.close_interrupted(now);
            if opened && self.deltas >= self.options.max_rounds {
                return self.give_up(Convergence::Overflowed);
            }
            if opened || self.lost {
                return Ok(Advance::Again);
            }
        }
        let Some(round) = self.round else {
            if empty {
                self.unread = 0;
            }
            if self.unread > 0 {
                self.unread = self.unread.saturating_sub(self.options.batch.max(1));
                return Ok(Advance::Again);
            }
            if self.is_converged() {
                self.convergence = Some(Convergence::Reached);
                return Ok(Advance::Next(MigrationStep::SuspendDestination));
            }
            if self.deltas >= self.options.max_rounds.max(1) {
                return self.give_up(Convergence::RoundsExhausted);
            }
            if self.stalled >= STALLED_ROUNDS {
                return self.give_up(Convergence::Stalled);
            }
            self.open_round(now);
            return Ok(Advance::Again);
        };
        // A log that reports whole namespaces begins their sweep afresh each time; a round has to end all the same.
        let total = self.dirty.maps().iter().fold(0_u64, |sum, map| sum.saturating_add(map.blocks()));
        let swept = round.swept || self.sweep(now, mover, round.accepted.saturating_add(total))?;
        self.round = Some(OpenRound { swept, ..round });
        self.move_on(now, mover)?;
        if !swept && self.mover.pending.is_none() {
            return Ok(Advance::Again);
        }
        if !self.mover.is_idle() {
            return Ok(Advance::Soon);
        }
        let shrank = self.dirty.dirty_blocks() < round.dirty;
        self.stalled = if shrank { 0 } else { self.stalled.saturating_add(1) };
        self.deltas = self.deltas.saturating_add(1);
        self.close_round(now, false);
        Ok(Advance::Again)
    }

    fn close_interrupted(&mut self, now: Instant) {
        if self.round.is_some() {
            self.deltas = self.deltas.saturating_add(1);
            self.close_round(now, true);
        }
        self.cut = false;
    }

    fn is_converged(&self) -> bool {
        self.mover
            .time_for(self.dirty.dirty_blocks())
            .is_some_and(|expected| expected <= self.options.stop_time_limit)
    }

    /// The limits are reached: goes on all the same or not, as the options say.
    fn give_up(&mut self, why: Convergence) -> Result<Advance, Failure<M, H>> {
        self.convergence = Some(why);
        match self.options.convergence {
            ConvergencePolicy::Force => Ok(Advance::Next(MigrationStep::SuspendDestination)),
            ConvergencePolicy::Cancel => {
                Err(Failure::NotConverged { dirty_blocks: self.dirty.dirty_blocks() })
            }
        }
    }

    /// Restarts the log after an overflow: drain, publish the head, start logging, take everything for dirty. What
    /// was copied before does not count, because changes between the last entry and the restart are unknown.
    fn recover<P: AdminPort + ?Sized>(
        &mut self,
        now: Instant,
        port: &mut P,
    ) -> Result<Advance, Failure<M, H>> {
        let Some(id) = self.queue.as_ref().map(ControllerDataQueue::id) else {
            return Err(Failure::OutOfTurn);
        };
        match self.recovery {
            Recovery::None => {
                self.deadline = now.after(self.options.timeouts.command);
                self.recovery = Recovery::Draining;
                Ok(Advance::Again)
            }
            Recovery::Draining => {
                let empty = self.pump(now, port, true)?;
                let published = self.queue.as_ref().is_some_and(ControllerDataQueue::is_published);
                if !(empty && published) {
                    return match (now.has_reached(self.deadline), empty) {
                        (true, _) => Err(Failure::NoRecovery),
                        (false, false) => Ok(Advance::Again),
                        // The head is on its way.
                        (false, true) => Ok(Advance::Soon),
                    };
                }
                let stops = self.options.quirks.contains(Quirks::STOP_BEFORE_RESTART);
                let request = self.manager_or(|manager, _| manager.log_user_data(id, !stops))?;
                self.send(request, Purpose::Other);
                self.recovery = if stops { Recovery::Stopping } else { Recovery::Starting };
                Ok(Advance::Again)
            }
            Recovery::Stopping => {
                let Some(result) = self.call.poll(port, now) else { return Ok(Advance::Wait) };
                result.finish(port.arena()).map_err(|error| command(MigrationCommand::StopLog, error))?;
                let request = self.manager_or(|manager, _| manager.log_user_data(id, true))?;
                self.send(request, Purpose::Other);
                self.recovery = Recovery::Starting;
                Ok(Advance::Again)
            }
            Recovery::Starting => {
                let Some(result) = self.call.poll(port, now) else { return Ok(Advance::Wait) };
                match result.finish(port.arena()) {
                    Ok(_) => {
                        self.dirty.mark_all();
                        self.lost = false;
                        self.restarts = self.restarts.saturating_add(1);
                        self.recovery = Recovery::None;
                        Ok(Advance::Again)
                    }
                    Err(error)
                        if error.is_status(StatusCode::CDQ_FULL) && !now.has_reached(self.deadline) =>
                    {
                        self.recovery = Recovery::Draining;
                        Ok(Advance::Again)
                    }
                    Err(error) => Err(command(MigrationCommand::StartLog, error)),
                }
            }
        }
    }

    /// The last pass, while the source is suspended: nothing becomes dirty any more.
    pub(super) fn copy_rest<V: DataMover<Error = M> + ?Sized>(
        &mut self,
        now: Instant,
        mover: &mut V,
    ) -> Result<Advance, Failure<M, H>> {
        self.open_round(now);
        self.sweep(now, mover, u64::MAX)?;
        self.move_on(now, mover)?;
        if self.dirty.is_clean() && self.mover.is_idle() {
            self.close_round(now, false);
            return Ok(Advance::Next(MigrationStep::Flush));
        }
        let waits = self.dirty.is_clean() || self.mover.pending.is_some();
        Ok(if waits { Advance::Soon } else { Advance::Again })
    }

    pub(super) fn flush<V: DataMover<Error = M> + ?Sized>(
        &mut self,
        now: Instant,
        mover: &mut V,
    ) -> Result<Advance, Failure<M, H>> {
        let flushed = mover.flush(now).map_err(Failure::Mover)?;
        Ok(if flushed { Advance::Next(MigrationStep::GetState) } else { Advance::Soon })
    }
}

#[cfg(test)]
mod tests {
    use super::ExtentKind::{Copy, Zeroes};
    use super::*;

    #[test]
    fn r14_the_pace_counts_all_the_time_in_which_blocks_were_on_their_way() {
        let at = Instant::from_micros;
        let progress = |blocks, in_flight| MoverProgress { blocks, bytes: blocks * 512, in_flight };
        let mut mover = Mover::default();
        mover.note(at(0), progress(1000, 0));
        assert_eq!(mover.time_for(8), None, "nothing was moved yet");
        assert_eq!(mover.time_for(0), Some(Duration::ZERO));
        // Nothing to do: that time does not count.
        mover.note(at(50), progress(1000, 0));
        mover.accept(at(100), 4, Copy);
        mover.accept(at(150), 4, Copy);
        mover.note(at(200), progress(1000, 8));
        // Whether a round is open makes no difference.
        mover.note(at(900), progress(1008, 0));
        assert_eq!(mover.time_for(8), Some(Duration::from_micros(800)));
        mover.note(at(5000), progress(1008, 0));
        assert_eq!(mover.time_for(4), Some(Duration::from_micros(400)));
    }

    #[test]
    fn r14_a_mover_that_is_always_done_when_asked_has_a_pace_as_well() {
        let at = Instant::from_micros;
        let done = |blocks| MoverProgress { blocks, bytes: blocks * 512, in_flight: 0 };
        let mut mover = Mover::default();
        mover.note(at(0), done(0));
        for round in 1..=3 {
            mover.accept(at(round * 1000), 8, Copy);
            mover.note(at(round * 1000), done(round * 8));
            mover.note(at(round * 1000 + 300), done(round * 8));
            mover.note(at(round * 1000 + 900), done(round * 8));
        }
        assert_eq!(mover.time_for(24), Some(Duration::from_micros(900)));
    }

    #[test]
    fn r14_zeroes_take_no_time_and_give_no_pace() {
        // What is accepted at 100 and has come over at 600, each time, and the pace of four blocks afterwards.
        type Row<'r> = (&'r str, &'r [&'r [(u64, ExtentKind)]], Option<u64>);
        let rows: [Row<'_>; 5] = [
            ("zeroes alone", &[&[(1_000_000, Zeroes)]], None),
            ("zeroes, then copies", &[&[(1_000_000, Zeroes)], &[(10, Copy)]], Some(200)),
            ("copies, then zeroes", &[&[(10, Copy)], &[(1_000_000, Zeroes)]], Some(200)),
            ("both at once", &[&[(10, Copy), (1_000_000, Zeroes)]], None),
            ("both at once, then copies", &[&[(1_000_000, Zeroes), (10, Copy)], &[(20, Copy)]], Some(100)),
        ];
        for (name, stretches, expected) in rows {
            let mut mover = Mover::default();
            let (mut now, mut blocks) = (Instant::ZERO, 7);
            let mut look = |mover: &mut Mover, micros, in_flight, more| {
                now = now.after(Duration::from_micros(micros));
                blocks += more;
                mover.note(now, MoverProgress { blocks, bytes: blocks * 512, in_flight });
                now
            };
            look(&mut mover, 0, 0, 0);
            for stretch in stretches {
                let begun = look(&mut mover, 100, 0, 0);
                stretch.iter().for_each(|(blocks, kind)| mover.accept(begun, *blocks, *kind));
                look(&mut mover, 250, 1, 0);
                look(&mut mover, 250, 0, stretch.iter().map(|(blocks, _)| blocks).sum());
                assert_eq!(mover.on_their_way(), 0, "{name}");
            }
            assert_eq!(mover.time_for(4), expected.map(Duration::from_micros), "{name}");
        }
    }
}

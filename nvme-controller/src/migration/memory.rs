// SPDX-License-Identifier: MIT OR Apache-2.0
//! Track Send and Track Receive. NVMe Base 2.1 §5.1.27, Track Send command, and §5.1.26, Track Receive command.

use nvme_core::wire::track::{
    MemoryGranularity, MemoryRange, TrackMemoryHeader, TrackMemoryRanges, TrackMemoryResult, TrackReceive,
    TrackSend, TrackedMemoryBuilder,
};
use nvme_core::wire::{Command, InvalidField, StatusCode, SubmissionQueueEntry};
use zerocopy::{FromZeros, IntoBytes};

use super::Run;
use crate::config::ManagerConfig;
use crate::host::{BlockStorage, HostMemory, Interrupts};
use crate::outcome::{Done, Outcome, Refusal, SUCCESS};
use crate::prp::DataPointer;
use crate::subsystem::Subsystem;
use crate::track::Scan;

const DESCRIPTOR_BYTES: usize = 12;
const HEADER_BYTES: usize = 8;

impl<M: HostMemory, S: BlockStorage, I: Interrupts> Subsystem<'_, M, S, I> {
    pub(crate) fn track_send(&mut self, index: usize, entry: &SubmissionQueueEntry) -> Outcome {
        let manager = self.controllers.get(index).and_then(|manager| manager.config.manager().copied());
        let limits = manager.ok_or(StatusCode::INVALID_COMMAND_OPCODE)?;
        match TrackSend::decode(entry)? {
            TrackSend::LogUserDataChanges { start, queue } if limits.track_user_data => {
                self.log_user_data(index, start, queue)?;
                SUCCESS
            }
            TrackSend::TrackMemoryChanges { start, controller } if limits.track_host_memory => {
                let target = self.migratable(controller, StatusCode::INVALID_FIELD)?;
                if start {
                    self.start_tracking(index, target, entry, &limits)
                } else {
                    self.stop_tracking(index, target)
                }
            }
            TrackSend::LogUserDataChanges { .. } => Err(InvalidField::in_dword("SEL", 10, 0, 0).into()),
            TrackSend::TrackMemoryChanges { .. } => Err(InvalidField::in_dword("SEL", 10, 0, 1).into()),
        }
    }

    /// Memory range tracking descriptors that a managing controller can have in use at most (CMMRTD).
    pub(crate) fn max_tracked_ranges(&self, limits: &ManagerConfig) -> u16 {
        // The descriptors of a command pass through the scratch memory as a whole.
        let fit = self.scratch.len().saturating_sub(HEADER_BYTES) / DESCRIPTOR_BYTES;
        limits.max_tracked_ranges.min(u16::try_from(fit).unwrap_or(u16::MAX))
    }

    fn start_tracking(
        &mut self,
        index: usize,
        target: usize,
        entry: &SubmissionQueueEntry,
        limits: &ManagerConfig,
    ) -> Outcome {
        let tracked = self.controllers.get(target).ok_or(StatusCode::INTERNAL_ERROR)?;
        if tracked.dma.tracker.manager().is_some() {
            return Err(StatusCode::INVALID_CONTROLLER_IDENTIFIER.into());
        }
        if tracked.target.run != Run::Running {
            return Err(StatusCode::CONTROLLER_SUSPENDED.into());
        }
        let capacity = tracked.dma.tracker.capacity();
        let manager = self.controllers.get_mut(index).ok_or(StatusCode::INTERNAL_ERROR)?;
        let page_shift = manager.registers.page_shift();
        let mut header = TrackMemoryHeader::new_zeroed();
        // How long the data is stands in the data: its first bytes must not depend on where the rest lies.
        let page = 1_u64 << page_shift;
        if page.saturating_sub(entry.prp1().page_offset(page)) < HEADER_BYTES as u64 {
            return Err(StatusCode::PRP_OFFSET_INVALID.into());
        }
        DataPointer::new(entry, HEADER_BYTES as u64, page_shift)?
            .read(&mut manager.dma, header.as_mut_bytes())?;
        // The error log locates parameters of the command only: what is wrong in its data has no place there.
        let invalid = Refusal::from(StatusCode::INVALID_FIELD);
        let granularity = header.granularity().map_err(|_| invalid)?;
        let exponent = granularity.exponent();
        if !(limits.min_tracking_shift..=limits.max_tracking_shift).contains(&exponent) {
            return Err(invalid);
        }
        if header.count() == 0 {
            return Err(invalid);
        }
        let trackers = self.controllers.iter().map(|other| &other.dma.tracker);
        let (mut used, mut own) = (0_usize, 0_usize);
        for tracker in trackers.filter(|tracker| tracker.manager().is_some()) {
            used = used.saturating_add(tracker.used());
            if tracker.manager() == Some(index) {
                own = own.saturating_add(tracker.used());
            }
        }
        let left = usize::from(self.config.max_tracked_ranges).saturating_sub(used);
        let own_left = usize::from(self.max_tracked_ranges(limits)).saturating_sub(own);
        let room = own_left.min(left).min(capacity);
        let lacking = |granularity: u8| {
            let descriptors = u32::try_from(room).unwrap_or(u32::MAX);
            let (dw0, dw1) = TrackMemoryResult { granularity, descriptors }.result();
            Refusal::from(StatusCode::NOT_ENOUGH_RESOURCES).with_result(dw0, dw1)
        };
        if u64::from(header.count()) > room as u64 {
            return Err(lacking(exponent));
        }
        let bytes = usize::try_from(header.total_bytes()).map_err(|_| StatusCode::INTERNAL_ERROR)?;
        let data = self.scratch.get_mut(..bytes).ok_or(StatusCode::INTERNAL_ERROR)?;
        let manager = self.controllers.get_mut(index).ok_or(StatusCode::INTERNAL_ERROR)?;
        DataPointer::new(entry, header.total_bytes(), page_shift)?.read(&mut manager.dma, data)?;
        // The host may have changed the header since: what is used is what is checked here.
        let ranges =
            TrackMemoryRanges::parse(data, limits.tracked_length_power_of_two).map_err(|_| invalid)?;
        if ranges.granularity() != granularity {
            return Err(invalid);
        }
        let tracked = self.controllers.get_mut(target).ok_or(StatusCode::INTERNAL_ERROR)?;
        let mut granules = 0_u64;
        for range in ranges.iter() {
            let bytes = range.bytes(granularity).ok_or(invalid)?;
            if !tracked.dma.memory.is_host_memory(range.start, bytes) {
                return Err(invalid);
            }
            granules = granules.saturating_add(u64::from(range.granules));
        }
        self.work = self.work.saturating_add(tracked.dma.tracker.bits() >> 3);
        let shift = exponent.saturating_add(12);
        tracked.dma.tracker.prepare(shift);
        for range in ranges.iter() {
            if tracked.dma.tracker.add(range.start, range.granules).is_err() {
                let bits = tracked.dma.tracker.bits();
                tracked.dma.tracker.stop();
                return Err(lacking(coarser(exponent, granules, bits, limits.max_tracking_shift)));
            }
        }
        tracked.dma.tracker.start(index);
        let descriptors = u32::try_from(room).unwrap_or(u32::MAX);
        let (dw0, dw1) = TrackMemoryResult { granularity: exponent, descriptors }.result();
        Ok(Done::Result(dw0, dw1))
    }

    /// Stopping what is not tracked is no error, as with the log of user data.
    fn stop_tracking(&mut self, index: usize, target: usize) -> Outcome {
        let tracked = self.controllers.get_mut(target).ok_or(StatusCode::INTERNAL_ERROR)?;
        match tracked.dma.tracker.manager() {
            Some(manager) if manager != index => Err(StatusCode::INVALID_CONTROLLER_IDENTIFIER.into()),
            _ => {
                tracked.dma.tracker.stop();
                SUCCESS
            }
        }
    }

    pub(crate) fn track_receive(&mut self, index: usize, entry: &SubmissionQueueEntry) -> Outcome {
        let command = TrackReceive::decode(entry)?;
        let target = self.migratable(command.controller, StatusCode::INVALID_FIELD)?;
        if command.data_bytes() > self.max_transfer() {
            return Err(InvalidField::in_dword("NUMDL", 12, 0, command.dwords.saturating_sub(1)).into());
        }
        let [manager, tracked] = self
            .controllers
            .get_disjoint_mut([index, target])
            .map_err(|_| StatusCode::INVALID_CONTROLLER_IDENTIFIER)?;
        let tracker = &mut tracked.dma.tracker;
        if tracker.manager() != Some(index) {
            return Err(StatusCode::INVALID_CONTROLLER_IDENTIFIER.into());
        }
        let room = usize::try_from(command.data_bytes()).unwrap_or(usize::MAX).min(self.scratch.len());
        self.work = self.work.saturating_add(tracker.scan_work()).saturating_add(room as u64);
        let data = self.scratch.get_mut(..room).ok_or(StatusCode::INTERNAL_ERROR)?;
        let few = InvalidField::in_dword("NUMDL", 12, 0, command.dwords.saturating_sub(1));
        let granularity =
            MemoryGranularity::new(tracker.shift().saturating_sub(12)).ok_or(StatusCode::INTERNAL_ERROR)?;
        let mut report = TrackedMemoryBuilder::new(data, command.controller, granularity).map_err(|_| few)?;
        let (mut scan, mut count, mut more) = (Scan::default(), 0_usize, false);
        while let Some(run) = tracker.next_run(&mut scan, false) {
            let range = MemoryRange { start: run.address, granules: run.granules };
            if !report.push(range).map_err(|_| StatusCode::INTERNAL_ERROR)? {
                more = true;
                break;
            }
            count = count.saturating_add(1);
        }
        if more && count == 0 {
            // A buffer for the header alone can say that nothing changed, and no more.
            return Err(few.into());
        }
        let suspended = tracked.target.run == Run::Suspended;
        let len = report.finish(more, suspended);
        let mut pointer = DataPointer::new(entry, command.data_bytes(), manager.registers.page_shift())?;
        let data = self.scratch.get(..len).ok_or(StatusCode::INTERNAL_ERROR)?;
        pointer.write(&mut manager.dma, data)?;
        // Only what has reached the host is forgotten.
        let mut scan = Scan::default();
        for _ in 0..count {
            tracked.dma.tracker.next_run(&mut scan, true);
        }
        SUCCESS
    }
}

/// The finest granularity at which that many granules of granularity `exponent` would fit into `bits`.
fn coarser(exponent: u8, granules: u64, bits: u64, max: u8) -> u8 {
    (exponent..=max)
        .find(|candidate| granules >> candidate.saturating_sub(exponent).min(63) <= bits)
        .unwrap_or(max)
}

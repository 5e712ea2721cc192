// SPDX-License-Identifier: MIT OR Apache-2.0
//! Controllers: what is logged, and how entries are posted.

use nvme_core::cdq::{CdqOptions, ControllerDataQueue, HeadPolicy, LogEvent, LogState};
use nvme_core::dma::Direction;
use nvme_core::wire::nvm::{Copy, DatasetManagement};
use nvme_core::wire::nvm_data::{CopySource, CopySourceData, DatasetRange, DatasetRangeData};
use nvme_core::wire::{Command, Lba, Status};
use nvme_tests::rig::{BLOCK, NAMESPACE, Rig, Shape};
use zerocopy::IntoBytes;

fn options(entries: u32) -> CdqOptions {
    let head = HeadPolicy { every: 1, wake_after: None, ..HeadPolicy::default() };
    CdqOptions { entries, head, ..CdqOptions::default() }
}

fn events(rig: &mut Rig, queue: &mut ControllerDataQueue) -> Vec<LogEvent> {
    let admin = rig.manager.supervisor.admin().expect("in use");
    std::iter::from_fn(|| queue.next_event(admin, 64)).collect()
}

const fn changed(start: u64, blocks: u64, deallocated: bool) -> LogEvent {
    LogEvent::Changed { namespace: NAMESPACE, start: Lba::new(start), blocks, deallocated }
}

fn deallocate(rig: &mut Rig, ranges: &[(u64, u32)]) {
    let data: Vec<DatasetRangeData> = ranges
        .iter()
        .map(|(start, blocks)| {
            DatasetRange { attributes: 0, blocks: *blocks, start: Lba::new(*start) }.into()
        })
        .collect();
    let command = DatasetManagement {
        namespace: NAMESPACE,
        ranges: ranges.len() as u16,
        deallocate: true,
        integral_write: false,
        integral_read: false,
    };
    let mut bytes = data.as_bytes().to_vec();
    assert_eq!(rig.io(&command.encode(), Direction::ToDevice, &mut bytes), Status::SUCCESS);
}

#[test]
fn defect_phase_not_rolled_back_when_the_write_fails() {
    // At every place of the ring, and in laps of both phases.
    for failing in 0..12 {
        // Without event requests nothing but the entry is written.
        let mut rig = Rig::new(&Shape { events: 0, ..Shape::default() });
        let (mut queue, mut dirty) = rig.logging(&options(5));
        rig.settle(&mut queue, &mut dirty);
        for n in 0..failing {
            rig.write(n, 1, 1);
            assert_eq!(rig.settle(&mut queue, &mut dirty), 1);
        }
        rig.manager.memory.set_bus_master(false);
        rig.write(100, 1, 1);
        rig.manager.memory.set_bus_master(true);
        assert_eq!(events(&mut rig, &mut queue), [], "{failing}: nothing was written");
        // Logging has stopped with an overflow; the next entry takes the same slot, in the same lap.
        rig.log(queue.id(), true).expect("started again");
        rig.write(101, 1, 1);
        assert_eq!(
            events(&mut rig, &mut queue),
            [LogEvent::LogStarted, changed(101, 1, false)],
            "{failing}: the reader finds what comes after"
        );
        rig.delete(queue).expect("deleted");
        rig.finish();
    }
}

#[test]
fn defect_ranges_dropped_when_not_adjacent() {
    let mut rig = Rig::new(&Shape::default());
    let (mut queue, _) = rig.logging(&options(64));
    assert_eq!(events(&mut rig, &mut queue), [LogEvent::LogStarted]);
    rig.write(0, 64, 9);
    assert_eq!(events(&mut rig, &mut queue), [changed(0, 64, false)]);
    let ranges = [(40, 3), (2, 1), (10, 5), (30, 2), (20, 1), (50, 8)];
    deallocate(&mut rig, &ranges);
    let mut seen = events(&mut rig, &mut queue);
    seen.sort_by_key(|event| match event {
        LogEvent::Changed { start, .. } => start.get(),
        other => panic!("{other:?}"),
    });
    let mut expected = ranges.map(|(start, blocks)| changed(start, blocks.into(), true));
    expected.sort_by_key(|event| if let LogEvent::Changed { start, .. } = event { start.get() } else { 0 });
    assert_eq!(seen, expected);
    for block in 0..64 {
        let gone = ranges.iter().any(|(start, blocks)| (*start..start + u64::from(*blocks)).contains(&block));
        let byte = if gone { 0 } else { 9 };
        assert_eq!(rig.media.block(block), vec![byte; BLOCK], "block {block}");
    }
    rig.delete(queue).expect("deleted");
    rig.finish();
}

#[test]
fn defect_copy_not_logged() {
    let mut rig = Rig::new(&Shape::default());
    rig.write(10, 4, 5);
    rig.write(20, 2, 6);
    let (mut queue, mut dirty) = rig.logging(&options(64));
    let sources: Vec<CopySourceData> =
        [CopySource::new(Lba::new(10), 4), CopySource::new(Lba::new(20), 2)].map(Into::into).to_vec();
    let mut bytes = sources.as_bytes().to_vec();
    let command = Copy::new(NAMESPACE, Lba::new(100), 2).encode();
    assert_eq!(rig.io(&command, Direction::ToDevice, &mut bytes), Status::SUCCESS);
    rig.settle(&mut queue, &mut dirty);
    assert_eq!(dirty.dirty_blocks(), 6, "what was written, not what was read");
    let run = dirty.take(u64::MAX).expect("one run");
    assert_eq!((run.start, run.blocks), (Lba::new(100), 6));
    assert_eq!((rig.media.block(103), rig.media.block(105)), (vec![5; BLOCK], vec![6; BLOCK]));
    rig.delete(queue).expect("deleted");
    rig.finish();
}

#[test]
fn defect_logging_resumes_after_full() {
    let mut rig = Rig::new(&Shape::default());
    let (mut queue, mut dirty) = rig.logging(&options(6));
    for n in 0..10 {
        rig.write(n, 1, 1);
    }
    rig.settle(&mut queue, &mut dirty);
    assert!(queue.log_state() == LogState::Overflowed && dirty.dirty_blocks() == rig.media_blocks());
    // There is room again, and changes go on: they must not look like a log that is complete.
    for n in 0..10 {
        rig.write(20 + n, 1, 1);
        rig.turn();
        assert_eq!(events(&mut rig, &mut queue), [], "change {n}");
    }
    rig.log(queue.id(), true).expect("started by the host");
    rig.write(40, 1, 1);
    assert_eq!(events(&mut rig, &mut queue), [LogEvent::LogStarted, changed(40, 1, false)]);
    rig.delete(queue).expect("deleted");
    rig.finish();
}

#[test]
fn defect_deallocate_length_off_by_one() {
    let mut rig = Rig::new(&Shape::default());
    rig.write(0, 40, 9);
    let (mut queue, _) = rig.logging(&options(64));
    assert_eq!(events(&mut rig, &mut queue), [LogEvent::LogStarted]);
    for (start, blocks) in [(3, 1), (8, 2), (20, 7), (30, 0)] {
        deallocate(&mut rig, &[(start, blocks)]);
        let expected: &[LogEvent] = &[changed(start, blocks.into(), true)];
        let expected = if blocks == 0 { &[] } else { expected };
        assert_eq!(events(&mut rig, &mut queue), expected, "{blocks} blocks from {start}");
    }
    for block in 0..40 {
        let gone = [3..4, 8..10, 20..27].iter().any(|range| range.contains(&block));
        assert_eq!(rig.media.block(block), vec![if gone { 0 } else { 9 }; BLOCK], "block {block}");
    }
    rig.delete(queue).expect("deleted");
    rig.finish();
}

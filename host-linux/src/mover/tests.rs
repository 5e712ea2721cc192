// SPDX-License-Identifier: MIT OR Apache-2.0
//! The mover between two embedded subsystems, without a migration around it.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::sync::Arc;

use nvme_core::admin::AdminSlot;
use nvme_core::controller::{EnableOptions, Link};
use nvme_core::io::IoSlot;
use nvme_core::wire::{ControllerId, QueueId};

use super::*;
use crate::driver::{
    Clock, Kept, Waiter, bring_down, bring_up, create_pair, delete_pair, identify_controller, request_queues,
    zeroes_limit,
};
use crate::embedded::{
    ControllerRole, ControllerSetup, EmbeddedController, EmbeddedSubsystem, NAMESPACE, SubsystemSetup,
};
use crate::images::fill;
use crate::memory::{Capacity, PoolUsage};
use crate::storage::FileStorage;
use crate::sync::Signal;

const BLOCK: u32 = 512;
const BLOCKS: u64 = 4096;
const ID: ControllerId = ControllerId::new(1);

fn side(name: &str, file: &Arc<File>, signal: &Arc<Signal>) -> (EmbeddedSubsystem, Arc<AddressSpace>) {
    let capacity = Capacity { queues: 8 << 20, data: 16 << 20, controller_data: 4096 };
    let memory = Arc::new(AddressSpace::new(name, capacity).expect("address space"));
    let controller = ControllerSetup {
        id: ID,
        role: ControllerRole::Managing,
        io_queues: 2,
        memory: Arc::clone(&memory),
        interrupts: Arc::clone(signal),
    };
    let setup = SubsystemSetup {
        name: name.into(),
        serial_number: "M".into(),
        namespace: Arc::clone(file),
        block_size: BLOCK,
        unique_id: [1; 16],
        faults: Arc::default(),
        quirks: nvme_controller::Quirks::empty(),
        controllers: vec![controller],
    };
    (EmbeddedSubsystem::start(setup).expect("subsystem"), memory)
}

fn filled(seed: u64) -> Arc<File> {
    let file = FileStorage::memory("mover", BLOCKS * u64::from(BLOCK)).expect("memory");
    fill(&file, BLOCKS * u64::from(BLOCK), BLOCK, seed, &mut |_| true).expect("fill");
    file
}

fn content(file: &File) -> Vec<u8> {
    let mut bytes = vec![0; (BLOCKS * u64::from(BLOCK)) as usize];
    file.read_exact_at(&mut bytes, 0).expect("read");
    bytes
}

/// What a test does with the mover; time comes from the function.
type Job<'j> =
    &'j mut dyn FnMut(&mut dyn DataMover<Error = MoverError>, &dyn Fn() -> Instant) -> Result<(), MoverError>;

/// Runs `job` with a mover between both files. Blocks in `unreadable` cannot be read at the source. Returns the job's
/// result and what reading each block of `probe` at the destination ends with.
fn with_mover(
    source_file: &Arc<File>,
    destination_file: &Arc<File>,
    unreadable: &[u64],
    probe: &[u64],
    job: Job<'_>,
) -> (Result<(), MoverError>, Vec<bool>) {
    let signal = Arc::<Signal>::default();
    let (source, source_memory) = side("mover-source", source_file, &signal);
    let (destination, destination_memory) = side("mover-destination", destination_file, &signal);
    let waiter = Waiter::new(Clock::new(), &*signal);
    let registers =
        [source.controller(ID), destination.controller(ID)].map(|found| found.expect("controller"));
    let links = [Link::new(), Link::new()];
    let memories = [&*source_memory, &*destination_memory];
    let mut admin_slots: Vec<Vec<AdminSlot>> =
        (0..2).map(|_| (0..16).map(|_| AdminSlot::new()).collect()).collect();
    let slots = |count: usize| (0..count).map(|_| IoSlot::new()).collect::<Vec<IoSlot<Tag>>>();
    let mut slots: Vec<Vec<IoSlot<Tag>>> = vec![slots(PIECES + 1), slots(PIECES + 1), slots(4), slots(4)];
    let [one, other, spare_one, spare_other] = slots.as_mut_slice() else { panic!("four") };

    let mut controllers = Vec::new();
    let mut limit = None;
    let mut pairs = Vec::new();
    let mut spares = Vec::new();
    let lent = admin_slots.iter_mut().zip([one, other]).zip([spare_one, spare_other]);
    for ((((admin, io), spare), registers), (link, memory)) in
        lent.zip(&registers).zip(links.iter().zip(memories))
    {
        let options = EnableOptions::default();
        let mut controller = bring_up(registers, memory, link, admin, &options, waiter).expect("bring up");
        identify_controller(&mut controller, waiter).expect("identify");
        limit = zeroes_limit(&mut controller, waiter).expect("limit");
        request_queues(&mut controller, 2, waiter).expect("queues");
        let pair =
            create_pair(&mut controller, QueueId::new(1), Some(1), PIECE_BYTES, io, waiter).expect("pair");
        spares.push(
            create_pair(&mut controller, QueueId::new(2), Some(2), PIECE_BYTES, spare, waiter).expect("pair"),
        );
        pairs.push(pair);
        controllers.push(controller);
    }
    for block in unreadable {
        let start = Lba::new(*block);
        let entry = WriteUncorrectable { namespace: NAMESPACE, start, blocks: 1 }.encode();
        assert!(finish_one(&mut spares[0], &entry, None, waiter), "mark block {block}");
    }
    let second = pairs.pop().expect("pair");
    let first = pairs.pop().expect("pair");
    let mut mover = Mover::<EmbeddedController>::new(
        (first, memories[0]),
        (second, memories[1]),
        NAMESPACE,
        BLOCK.trailing_zeros(),
        IO_TIMEOUT,
        limit,
    )
    .expect("mover");
    let result = job(&mut mover, &|| waiter.now());
    while !mover.cancel(waiter.now()) {
        waiter.nap();
    }
    let probed = probe.iter().map(|block| {
        let region = memories[1].allocate(Pool::Data, 512, 512, Direction::FromDevice).expect("buffer");
        let entry = Read::new(NAMESPACE, Lba::new(*block), 1).encode();
        finish_one(&mut spares[1], &entry, Some((region, memories[1])), waiter)
    });
    let probed = probed.collect();
    let parts = mover.into_parts();
    for (((mut controller, (pair, buffers)), spare), memory) in
        controllers.into_iter().zip(parts).zip(spares).zip(memories)
    {
        delete_pair(&mut controller, pair, waiter).expect("delete");
        delete_pair(&mut controller, spare, waiter).expect("delete");
        bring_down(controller, memory, Kept { buffers, quarantined: Vec::new() }, waiter)
            .expect("bring down");
        assert_eq!(memory.usage(Pool::Data), PoolUsage::default());
        assert_eq!(memory.usage(Pool::Queues), PoolUsage::default());
    }
    (result, probed)
}

/// Sends one command and waits for it; whether it succeeded.
fn finish_one(
    pair: &mut QueuePair<'_, '_, EmbeddedController, Tag>,
    entry: &SubmissionQueueEntry,
    buffer: Option<(DmaRegion, &AddressSpace)>,
    waiter: Waiter<'_>,
) -> bool {
    let (buffer, memory) = match buffer {
        Some((region, memory)) => (Some(Buffer::whole(region)), Some(memory)),
        None => (None, None),
    };
    pair.submit(entry, buffer, Tag::Flush, None).expect("room");
    pair.ring().expect("doorbell");
    loop {
        if let Some(completed) = pair.poll().expect("no fault") {
            pair.acknowledge().expect("doorbell");
            let success = completed.entry.status().is_success();
            if let Some(memory) = memory {
                let _ = completed.release(memory);
            }
            return success;
        }
        waiter.nap();
    }
}

const fn extent(start: u64, blocks: u64, kind: ExtentKind) -> Extent {
    Extent { namespace: NAMESPACE, start: Lba::new(start), blocks, kind }
}

fn copy(start: u64, blocks: u64) -> Extent {
    extent(start, blocks, ExtentKind::Copy)
}

fn zeroes(start: u64, blocks: u64) -> Extent {
    extent(start, blocks, ExtentKind::Zeroes)
}

/// Moves all of `extents`, then flushes; what was moved.
fn move_all(
    mover: &mut dyn DataMover<Error = MoverError>,
    now: &dyn Fn() -> Instant,
    extents: &[Extent],
) -> Result<MoverProgress, MoverError> {
    for extent in extents {
        while !mover.start(*extent)? {
            mover.poll(now())?;
        }
    }
    let progress = loop {
        let progress = mover.poll(now())?;
        if progress.in_flight == 0 {
            break progress;
        }
        std::thread::yield_now();
    };
    while !mover.flush(now())? {
        std::thread::yield_now();
    }
    Ok(progress)
}

#[test]
fn long_zeroes_go_out_in_commands_that_the_destination_takes() {
    // Twice what one Write Zeroes of an embedded subsystem may name.
    let blocks = 1 << 16;
    let file = || FileStorage::memory("mover", blocks * u64::from(BLOCK)).expect("memory");
    let (source, destination) = (file(), file());
    destination.write_all_at(&[0xEE; 4096], (blocks - 8) * u64::from(BLOCK)).expect("write");
    let (result, _) = with_mover(&source, &destination, &[], &[], &mut |mover, now| {
        move_all(mover, now, &[zeroes(0, blocks)]).map(|progress| assert_eq!(progress.blocks, blocks))
    });
    assert_eq!(result, Ok(()));
    let mut last = [0xEE; 4096];
    destination.read_exact_at(&mut last, (blocks - 8) * u64::from(BLOCK)).expect("read");
    assert_eq!(last, [0; 4096]);
}

#[test]
fn extents_arrive_and_later_ones_win() {
    let (source, destination) = (filled(1), filled(2));
    let (from, before) = (content(&source), content(&destination));
    let block = |lba: u64| {
        let start = (lba * u64::from(BLOCK)) as usize;
        start..start + BLOCK as usize
    };
    /// Where a block's content must come from.
    #[derive(Clone, Copy, PartialEq)]
    enum Origin {
        Source,
        Before,
        Zero,
    }
    type Row = (&'static str, Vec<Extent>, fn(u64) -> Origin);
    let table: [Row; 6] = [
        ("everything", vec![copy(0, BLOCKS)], |_| Origin::Source),
        ("one block", vec![copy(77, 1)], |lba| if lba == 77 { Origin::Source } else { Origin::Before }),
        ("zeroes", vec![zeroes(100, 1000)], |lba| {
            if (100..1100).contains(&lba) { Origin::Zero } else { Origin::Before }
        }),
        ("zeroes, then a copy over them", vec![zeroes(0, 600), copy(100, 300)], |lba| match lba {
            100..400 => Origin::Source,
            0..600 => Origin::Zero,
            _ => Origin::Before,
        }),
        ("a copy, then zeroes over it", vec![copy(0, 600), zeroes(599, 2)], |lba| match lba {
            599..601 => Origin::Zero,
            0..599 => Origin::Source,
            _ => Origin::Before,
        }),
        ("many small ones", (0..BLOCKS / 2).map(|i| copy(i * 2, 1)).collect(), |lba| {
            if lba % 2 == 0 { Origin::Source } else { Origin::Before }
        }),
    ];
    for (name, extents, origin) in table {
        destination.write_all_at(&before, 0).expect("restore");
        let mut moved = None;
        let (result, _) = with_mover(&source, &destination, &[], &[], &mut |mover, now| {
            moved = Some(move_all(mover, now, &extents)?);
            Ok(())
        });
        assert_eq!(result, Ok(()), "{name}");
        let blocks: u64 = extents.iter().map(|extent| extent.blocks).sum();
        let expected = MoverProgress { in_flight: 0, blocks, bytes: blocks * u64::from(BLOCK) };
        assert_eq!(moved, Some(expected), "{name}");
        let after = content(&destination);
        for lba in 0..BLOCKS {
            let right = match origin(lba) {
                Origin::Source => after[block(lba)] == from[block(lba)],
                Origin::Before => after[block(lba)] == before[block(lba)],
                Origin::Zero => after[block(lba)].iter().all(|byte| *byte == 0),
            };
            assert!(right, "{name}: block {lba}");
        }
    }
}

#[test]
fn a_block_that_cannot_be_read_cannot_be_read_afterwards_either() {
    let (source, destination) = (filled(1), filled(2));
    let bad = [0, 100, 101, BLOCKS - 1];
    let good = [1, 99, 102, BLOCKS - 2];
    let probe: Vec<u64> = bad.into_iter().chain(good).collect();
    let (result, readable) = with_mover(&source, &destination, &bad, &probe, &mut |mover, now| {
        move_all(mover, now, &[copy(0, BLOCKS)]).map(drop)
    });
    assert_eq!(result, Ok(()));
    assert_eq!(readable, [false, false, false, false, true, true, true, true]);
}

#[test]
fn failures_are_told_and_stay() {
    let source = filled(1);
    let dir = tempfile::tempdir().expect("directory");
    let path = dir.path().join("read-only");
    std::fs::write(&path, content(&filled(2))).expect("file");
    let destination = Arc::new(File::open(&path).expect("open for reading only"));
    let (result, _) = with_mover(&source, &destination, &[], &[], &mut |mover, now| {
        let error = move_all(mover, now, &[copy(0, 8)]).expect_err("cannot be written");
        assert_eq!(mover.start(copy(8, 8)), Err(error), "it stays failed");
        assert_eq!(mover.poll(now()), Err(error));
        Err(error)
    });
    assert!(matches!(result, Err(MoverError::Destination(DriverError::Io("Write", _)))), "{result:?}");

    let stranger = Extent { namespace: NamespaceId::new(9), ..copy(0, 1) };
    let (result, _) =
        with_mover(&source, &filled(2), &[], &[], &mut |mover, _| mover.start(stranger).map(drop));
    assert_eq!(result, Err(MoverError::Namespace(NamespaceId::new(9))));
}

#[test]
fn a_cancelled_mover_falls_silent() {
    let (source, destination) = (filled(1), filled(2));
    let (result, _) = with_mover(&source, &destination, &[], &[], &mut |mover, now| {
        let accepted = mover.start(copy(0, BLOCKS))?;
        assert!(accepted);
        mover.poll(now())?;
        while !mover.cancel(now()) {
            std::thread::yield_now();
        }
        assert_eq!(mover.poll(now())?.in_flight, 0);
        Ok(())
    });
    assert_eq!(result, Ok(()));
}

// SPDX-License-Identifier: MIT OR Apache-2.0
//! Driver cores: identifiers, waits, completions, PRP lists, registers.

use std::collections::BTreeSet;

use nvme_core::controller::Fault;
use nvme_core::dma::{Direction, DmaArena, Pool, give_back};
use nvme_core::io::Buffer;
use nvme_core::recovery::{Cause, End, Policy};
use nvme_core::register::Offset;
use nvme_core::time::Instant;
use nvme_core::wire::nvm::{Read, Write};
use nvme_core::wire::register::{PMRMSCL, PMRMSCU, PROPERTIES};
use nvme_core::wire::{Command, Lba};
use nvme_host_linux::memory::PAGE;
use nvme_tests::rig::{BLOCK, NAMESPACE, Rig, Shape};
use nvme_tests::sys::with_register_space;

#[test]
fn defect_identifier_reused_while_outstanding() {
    // One command takes long; the ring goes round many times meanwhile, and each slot but one is used again.
    let mut rig = Rig::new(&Shape { entries: 4, depth: 3, ..Shape::default() });
    rig.faults(&["delay=30ms,queue=io,nth=2"]);
    let read = Read::new(NAMESPACE, Lba::new(0), 1).encode();
    let mut outstanding = BTreeSet::new();
    let mut numbers = std::collections::BTreeMap::new();
    let (mut used, mut ended) = (BTreeSet::new(), 0);
    let limit = rig.now.after(std::time::Duration::from_millis(25));
    while rig.now < limit || !outstanding.is_empty() {
        while rig.now < limit
            && rig.guest.supervisor.pair(nvme_core::wire::QueueId::new(1)).is_some_and(|pair| pair.free() > 0)
        {
            let region =
                rig.guest.arena.allocate(Pool::Data, BLOCK, BLOCK, Direction::FromDevice).expect("memory");
            let (number, id) = rig.guest.submit(&read, Some(Buffer::whole(region)), rig.now);
            assert!(outstanding.insert(id), "{id} belongs to a command that has not ended");
            numbers.insert(number, id);
            used.insert(id);
        }
        rig.turn();
        for (number, _, buffer) in rig.guest.done.drain(..) {
            ended += 1;
            outstanding.remove(&numbers[&number]);
            give_back(rig.guest.arena, buffer.expect("its buffer").into_region());
        }
    }
    assert!(ended > 100 && used.len() > 100, "{ended} commands, {} identifiers", used.len());
    assert!(!used.iter().any(|id| id.get() == u16::MAX));
    rig.finish();
}

#[test]
fn defect_waiting_for_ready_without_a_limit() {
    let policy = Policy { steps: [None; Policy::STEPS], ..Policy::default() };
    let mut rig = Rig::cold(&Shape { policy, ..Shape::default() });
    rig.faults(&["never-ready,controller=2"]);
    let mut end = None;
    rig.until(|rig| {
        end = end.or(rig.guest.poll(rig.now));
        end.is_some()
    });
    assert_eq!(end, Some(End::GaveUp(Cause::Fault(Fault::NotReadyInTime))));
    // Twice 500 ms are what the controller states; as long again is waited before it is disabled on its way to ready.
    assert!(rig.now >= Instant::from_micros(1_000_000), "{:?}", rig.now);
    assert!(rig.now < Instant::from_micros(2_100_000), "{:?}", rig.now);
    rig.side.borrow_mut().clear_faults();
    assert!(rig.guest.supervisor.restart(), "nothing is broken for good");
    rig.until(|rig| rig.guest.supervisor.is_ready() && rig.manager.supervisor.is_ready());
    rig.write(1, 1, 1);
    rig.finish();
}

#[test]
fn defect_panic_on_an_unknown_identifier_or_head() {
    let rows = [
        "wrong-cid",
        "wrong-cid=1",
        "wrong-cid=ffff",
        "wrong-sqid",
        "wrong-sqid=1",
        "wrong-sqid=fffe",
        "wrong-sq-head",
        "wrong-sq-head=8",
        "wrong-sq-head=ffff",
        "duplicate",
    ];
    for fault in rows {
        // An opcode that the queue in question sees: Read, or Get Log Page's neighbour Set Features.
        for place in ["controller=2,queue=io,opcode=02,nth=1", "controller=2,queue=admin,opcode=09,nth=1"] {
            let mut rig = Rig::cold(&Shape::default());
            let rules = rig.faults(&[&format!("{fault},{place}")]);
            rig.until(|rig| rig.guest.supervisor.is_ready() && rig.manager.supervisor.is_ready());
            let read = Read::new(NAMESPACE, Lba::new(0), 1).encode();
            let region =
                rig.guest.arena.allocate(Pool::Data, BLOCK, BLOCK, Direction::FromDevice).expect("memory");
            rig.guest.submit(&read, Some(Buffer::whole(region)), rig.now);
            rig.until(|rig| {
                rig.guest.supervisor.is_ready() && rig.guest.done.len() + rig.guest.lost.len() == 1
            });
            for _ in 0..20 {
                rig.turn();
            }
            rig.until(|rig| rig.guest.supervisor.is_ready());
            assert_eq!((rules[0].fired(), rig.guest.resets), (1, 1), "{fault} at {place}");
            rig.write(1, 1, 1);
            rig.finish();
        }
    }
}

#[test]
fn defect_prp_list_runs_into_the_next_commands_page() {
    // Every slot has a command with as long a list as fits, all at once: two pages of list each.
    let pages = 514;
    let (bytes, depth) = (pages * PAGE, 4);
    let blocks = (bytes / BLOCK) as u32;
    let shape = Shape {
        blocks: 2 * depth * blocks as usize,
        depth,
        max_transfer: bytes,
        pool: 2 * depth * bytes,
        ..Shape::default()
    };
    let mut rig = Rig::new(&shape);
    let content = |n: usize| -> Vec<u8> { (0..bytes).map(|at| (at / PAGE + at + 31 * n) as u8).collect() };
    for n in 0..depth {
        let region =
            rig.guest.arena.allocate_scattered(Pool::Data, bytes, Direction::ToDevice).expect("memory");
        region.write(0, &content(n)).expect("the buffer");
        let start = Lba::new(n as u64 * u64::from(blocks));
        let write = Write::new(NAMESPACE, start, blocks).encode();
        rig.guest.submit(&write, Some(Buffer::whole(region)), rig.now);
    }
    rig.until(|rig| rig.guest.done.len() == depth);
    for (_, entry, buffer) in rig.guest.done.drain(..) {
        assert!(entry.status().is_success(), "{}", entry.status());
        give_back(rig.guest.arena, buffer.expect("its buffer").into_region());
    }
    for n in 0..depth {
        let first = n as u64 * u64::from(blocks);
        let stored: Vec<u8> =
            (first..first + u64::from(blocks)).flat_map(|lba| rig.media.block(lba)).collect();
        assert!(stored == content(n), "command {n}");
    }
    rig.finish();
}

#[test]
fn defect_pmrmsc_read_as_one_misaligned_register() {
    assert_eq!((PMRMSCL, PMRMSCU), (0xE14, 0xE18), "two registers: one of 64 bits could not lie there");
    for property in PROPERTIES {
        assert_eq!(property.offset % property.size, 0, "{}", property.name);
    }
    let words = 0x1100 / 4;
    let space = with_register_space(words, &[(0xE14 / 4, 0x1122_3002), (0xE18 / 4, 0x5566_7788)], |bar| {
        assert_eq!(bar.read32(Offset::PMRMSCL), Ok(0x1122_3002));
        assert_eq!(bar.read32(Offset::PMRMSCU), Ok(0x5566_7788));
        assert_eq!(bar.read64(Offset::PMRMSCL), Ok(0x5566_7788_1122_3002));
        assert_eq!(bar.write64(Offset::PMRMSCL, 0xAABB_CCDD_EEFF_0002), Ok(()));
    });
    assert_eq!(space[0xE14 / 4..0xE1C / 4], [0xEEFF_0002, 0xAABB_CCDD]);
}

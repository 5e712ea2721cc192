// SPDX-License-Identifier: MIT OR Apache-2.0
//! Bring-up, Identify, queues, and the commands of the NVM command set.

mod harness;

use harness::{BLOCK, GUEST, MANAGER, NSID, Options, PAGE, Rig, code, id_of, pattern};
use nvme_controller::SubsystemConfig;
use nvme_core::wire::admin::{Identify, IdentifyStructure};
use nvme_core::wire::identify::{ControllerIdentity, NamespaceIdentity};
use nvme_core::wire::nvm::{
    Compare, Copy, DatasetManagement, Flush, Read, Verify, Write, WriteUncorrectable,
};
use nvme_core::wire::nvm_data::{CopySource, CopySourceData, DatasetRange, DatasetRangeData};
use nvme_core::wire::{BusAddr, Command, Fuse, Lba, NamespaceId, Status, SubmissionQueueEntry};
use zerocopy::IntoBytes;

#[test]
fn a_controller_comes_up_and_says_who_it_is() {
    let mut rig = Rig::new();
    for controller in [MANAGER, GUEST] {
        rig.enable(controller);
        let (entry, page) =
            rig.admin_data(controller, &Identify::new(IdentifyStructure::CONTROLLER), &[0; 4096]);
        assert_eq!(entry.status(), Status::SUCCESS);
        let identity = ControllerIdentity::parse(&page).unwrap();
        assert_eq!(identity.controller, id_of(controller));
        assert_eq!(identity.is_manager(), controller == MANAGER);
        assert_eq!(identity.host_memory_preferred, 0);
        let command = Identify { namespace: NSID, ..Identify::new(IdentifyStructure::NAMESPACE) };
        let (entry, page) = rig.admin_data(controller, &command, &[0; 4096]);
        assert_eq!(entry.status(), Status::SUCCESS);
        let namespace = NamespaceIdentity::parse(&page).unwrap().unwrap();
        assert_eq!((namespace.blocks, namespace.block_bytes(), namespace.shared), (2048, 512, true));
    }
}

#[test]
fn what_is_written_is_read_back_through_every_shape_of_prps() {
    let mut rig = Rig::new();
    rig.enable(GUEST);
    rig.create_pair(GUEST, 1, 16);
    for (name, blocks) in
        [("one block", 1), ("a page", 8), ("two pages", 16), ("a list", 40), ("more than scratch", 200)]
    {
        let data = pattern(blocks, blocks as u8);
        let start = Lba::new(7);
        let (entry, _) = rig.io_data(GUEST, 1, &Write::new(NSID, start, blocks as u32), &data);
        assert_eq!(entry.status(), Status::SUCCESS, "{name}");
        let (entry, read) =
            rig.io_data(GUEST, 1, &Read::new(NSID, start, blocks as u32), &vec![0xEE; data.len()]);
        assert_eq!(entry.status(), Status::SUCCESS, "{name}");
        assert!(read == data, "{name}");
        assert!(rig.media(0, 7, blocks as u64) == data, "{name}");
    }
}

fn guest() -> Rig {
    guest_with(Options::default())
}

fn guest_with(options: Options) -> Rig {
    let mut rig = Rig::with(options);
    rig.enable(GUEST);
    rig.create_pair(GUEST, 1, 64);
    rig
}

#[test]
fn namespaces_ranges_and_sizes_are_checked() {
    let at = |nsid, start, blocks| Read::new(NamespaceId::new(nsid), Lba::new(start), blocks);
    let rows = [
        ("first block", at(1, 0, 1), 0, 0x00),
        ("last block", at(1, 2047, 1), 0, 0x00),
        ("runs past the end", at(1, 2047, 2), 0, 0x80),
        ("starts past the end", at(1, 2048, 1), 0, 0x80),
        ("overflows", at(1, u64::MAX, 2), 0, 0x80),
        ("namespace 0", at(0, 0, 1), 0, 0x0B),
        ("namespace above NN", at(9, 0, 1), 0, 0x0B),
        ("inactive namespace", at(3, 0, 1), 0, 0x02),
        ("all namespaces", at(u32::MAX, 0, 1), 0, 0x02),
        ("protection check", Read { protection: 4, ..at(1, 0, 1) }, 1, 0x81),
        ("longest transfer", at(1, 0, 64), 0, 0x00),
        ("longer than the longest transfer", at(1, 0, 65), 0, 0x02),
    ];
    let subsystem = SubsystemConfig { max_transfer_shift: 3, ..Options::default().subsystem };
    let mut rig = guest_with(Options { subsystem, namespaces: vec![1, 4], ..Options::default() });
    for (name, command, kind, status) in rows {
        let data = vec![0; command.blocks as usize * BLOCK];
        let (entry, _) = rig.io_data(GUEST, 1, &command, &data);
        assert_eq!(entry.status().code(), code(kind, status), "read: {name}");
        let write = Write {
            protection: command.protection,
            ..Write::new(command.namespace, command.start, command.blocks)
        };
        let (entry, _) = rig.io_data(GUEST, 1, &write, &data);
        assert_eq!(entry.status().code(), code(kind, status), "write: {name}");
        let compare = Compare {
            protection: command.protection,
            ..Compare::new(command.namespace, command.start, command.blocks)
        };
        let (entry, _) = rig.io_data(GUEST, 1, &compare, &data);
        assert_eq!(entry.status().code(), code(kind, status), "compare: {name}");
    }
}

#[test]
fn prps_are_checked() {
    // A write of four pages from the middle of the first on: five pages, so PRP2 is a list.
    type Spoil = fn(&mut Rig, &mut [u64; 6]);
    // Values: PRP1, PRP2, then the four list entries.
    let rows: [(&str, Spoil, u8, u8); 9] = [
        ("as it is", |_, _| {}, 0, 0x00),
        ("PRP1 not aligned to a dword", |_, prp| prp[0] += 2, 0, 0x13),
        ("list not aligned to a qword", |_, prp| prp[1] += 4, 0, 0x13),
        ("first list entry offset", |_, prp| prp[2] += 8, 0, 0x13),
        ("last list entry offset", |_, prp| prp[5] += 2048, 0, 0x13),
        ("PRP1 unmapped", |_, prp| prp[0] = 0x7777_0800, 0, 0x04),
        ("list unmapped", |_, prp| prp[1] = 0x7777_0000, 0, 0x04),
        ("list entry unmapped", |_, prp| prp[4] = 0x7777_0000, 0, 0x04),
        ("address space wraps", |_, prp| prp[5] = u64::MAX - PAGE + 1, 0, 0x04),
    ];
    for (name, spoil, kind, status) in rows {
        let mut rig = guest();
        let memory = rig.memories[GUEST].clone();
        let list = memory.allocate(PAGE);
        let mut prp = [0; 6];
        prp.iter_mut().for_each(|page| *page = memory.allocate(PAGE).get());
        prp[0] += PAGE / 2;
        prp[1] = list.get();
        spoil(&mut rig, &mut prp);
        memory.put_list(list, &prp[2..]);
        let write =
            Write::new(NSID, Lba::new(0), 32).encode().with_prps(BusAddr::new(prp[0]), BusAddr::new(prp[1]));
        assert_eq!(rig.command(GUEST, 1, write).status().code(), code(kind, status), "{name}");
        let read =
            Read::new(NSID, Lba::new(0), 32).encode().with_prps(BusAddr::new(prp[0]), BusAddr::new(prp[1]));
        assert_eq!(rig.command(GUEST, 1, read).status().code(), code(kind, status), "{name}");
    }
    let mut rig = guest();
    let (first, second) = (rig.allocate(GUEST, PAGE), rig.allocate(GUEST, PAGE));
    let two = Read::new(NSID, Lba::new(0), 16).encode();
    assert_eq!(
        rig.command(GUEST, 1, two.with_prps(first, second.plus(8))).status().code(),
        code(0, 0x13),
        "second page"
    );
    let sgl = two.with_prps(first, second);
    let mut bytes = *zerocopy::IntoBytes::as_bytes(&sgl).first_chunk::<64>().unwrap();
    bytes[1] |= 0x40;
    let sgl =
        <nvme_core::wire::SubmissionQueueEntry as zerocopy::FromBytes>::read_from_bytes(&bytes).unwrap();
    assert_eq!(rig.command(GUEST, 1, sgl).status().code(), code(0, 0x02), "SGL");
}

#[test]
fn lists_are_chained_from_any_start() {
    // 600 pages: lists that start near the end of their page chain early.
    let options = Options {
        subsystem: SubsystemConfig { max_transfer_shift: 0, ..Options::default().subsystem },
        blocks: 8192,
        ..Options::default()
    };
    for start_slot in [0, 1, 500, 510, 511] {
        let mut rig = guest_with(options.clone());
        let memory = rig.memories[GUEST].clone();
        let base = memory.allocate(600 * PAGE);
        let data = pattern(600 * 8, start_slot as u8);
        memory.put(base, &data);
        let mut left: Vec<u64> = (1..600).map(|page| base.get() + page * PAGE).collect();
        let first = memory.allocate(PAGE).plus(start_slot * 8);
        let mut at = first;
        while !left.is_empty() {
            let room = ((PAGE - at.get() % PAGE) / 8) as usize;
            if left.len() <= room {
                memory.put_list(at, &left);
                break;
            }
            let here: Vec<u64> = left.drain(..room - 1).collect();
            let next = memory.allocate(PAGE);
            memory.put_list(at, &here);
            memory.put_list(at.plus(8 * (room as u64 - 1)), &[next.get()]);
            at = next;
        }
        let write = Write::new(NSID, Lba::new(0), 4800).encode().with_prps(base, first);
        assert_eq!(rig.command(GUEST, 1, write).status(), Status::SUCCESS, "list from slot {start_slot}");
        assert!(rig.media(0, 0, 4800) == data, "list from slot {start_slot}");
    }
}

#[test]
fn compare_and_fused_compare_and_write() {
    let mut rig = guest();
    let data = pattern(40, 1);
    rig.io_data(GUEST, 1, &Write::new(NSID, Lba::new(0), 40), &data);
    let mut other = data.clone();
    other[39 * BLOCK] ^= 1;
    let compare = Compare::new(NSID, Lba::new(0), 40);
    assert_eq!(rig.io_data(GUEST, 1, &compare, &data).0.status(), Status::SUCCESS);
    assert_eq!(rig.io_data(GUEST, 1, &compare, &other).0.status().code(), code(2, 0x85));

    let first = Compare::new(NSID, Lba::new(0), 1).encode().with_fuse(Fuse::First);
    let second = Write::new(NSID, Lba::new(0), 1).encode().with_fuse(Fuse::Second);
    let elsewhere = Write::new(NSID, Lba::new(1), 1).encode().with_fuse(Fuse::Second);
    let normal = Write::new(NSID, Lba::new(0), 1).encode();
    let read = Read::new(NSID, Lba::new(0), 1).encode().with_fuse(Fuse::Second);
    type Row<'a> = (&'a str, &'a [(SubmissionQueueEntry, bool, u8, u8)]);
    let rows: [Row<'_>; 7] = [
        ("equal", &[(first, true, 0, 0), (second, false, 0, 0)]),
        ("different", &[(first, false, 2, 0x85), (second, true, 0, 0x09)]),
        ("different range", &[(first, true, 0, 0x02), (elsewhere, true, 0, 0x02)]),
        ("no write", &[(first, true, 0, 0x02), (read, true, 0, 0x02)]),
        ("first alone", &[(first, true, 0, 0x0A)]),
        ("second alone", &[(second, true, 0, 0x0A)]),
        ("first before a normal command", &[(first, true, 0, 0x0A), (normal, true, 0, 0)]),
    ];
    for (name, commands) in rows {
        let mut rig = guest();
        let same = pattern(1, 1);
        rig.io_data(GUEST, 1, &Write::new(NSID, Lba::new(0), 1), &same);
        let (equal, _, _) = rig.buffer(GUEST, &same);
        let (unequal, _, _) = rig.buffer(GUEST, &pattern(1, 9));
        let mut ids = Vec::new();
        for (entry, matches, ..) in commands {
            let buffer = if *matches { equal } else { unequal };
            ids.push(rig.place(GUEST, 1, entry.with_prps(buffer, buffer)));
        }
        rig.ring(GUEST, 1);
        rig.run();
        for (id, (_, _, kind, status)) in ids.into_iter().zip(commands) {
            assert_eq!(rig.take(GUEST, 1, id).unwrap().status().code(), code(*kind, *status), "{name}");
        }
        let expected = if name == "equal" { pattern(1, 9) } else { same };
        assert!(rig.media(0, 0, 1) == expected, "{name}");
    }
}

#[test]
fn both_halves_of_a_fused_pair_are_fetched_together() {
    let mut rig = guest();
    let same = vec![0; BLOCK];
    let (buffer, _, _) = rig.buffer(GUEST, &same);
    let first = Compare::new(NSID, Lba::new(0), 1).encode().with_fuse(Fuse::First).with_prps(buffer, buffer);
    let second = Write::new(NSID, Lba::new(0), 1).encode().with_fuse(Fuse::Second).with_prps(buffer, buffer);
    let ids = [rig.place(GUEST, 1, first), rig.submit(GUEST, 1, second)];
    while !rig.subsystem.poll(1).is_idle() {}
    for id in ids {
        assert_eq!(rig.take(GUEST, 1, id).unwrap().status(), Status::SUCCESS);
    }
}

#[test]
fn copies_move_blocks_and_are_checked_before_anything_is_written() {
    let sources = |list: &[(u64, u32)]| -> Vec<u8> {
        list.iter()
            .flat_map(|(start, blocks)| {
                CopySourceData::from(CopySource::new(Lba::new(*start), *blocks)).as_bytes().to_vec()
            })
            .collect()
    };
    let mut rig = guest();
    let data = pattern(100, 2);
    rig.io_data(GUEST, 1, &Write::new(NSID, Lba::new(0), 100), &data);
    let copy = Copy::new(NSID, Lba::new(1000), 3);
    let (entry, _) = rig.io_data(GUEST, 1, &copy, &sources(&[(10, 40), (0, 1), (99, 1)]));
    assert_eq!(entry.status(), Status::SUCCESS);
    let expected = [&data[10 * BLOCK..50 * BLOCK], &data[..BLOCK], &data[99 * BLOCK..]].concat();
    assert!(rig.media(0, 1000, 42) == expected);
    type Row<'a> = (&'a str, Copy, &'a [(u64, u32)], u8, u8);
    let rows: [Row<'_>; 5] = [
        ("source outside", Copy::new(NSID, Lba::new(500), 2), &[(0, 1), (2048, 1)], 0, 0x80),
        ("destination outside", Copy::new(NSID, Lba::new(2047), 1), &[(0, 2)], 0, 0x80),
        (
            "other format",
            Copy { descriptor_format: 1, ..Copy::new(NSID, Lba::new(500), 1) },
            &[(0, 1)],
            0,
            0x02,
        ),
        ("protection", Copy { protection_write: 1, ..Copy::new(NSID, Lba::new(500), 1) }, &[(0, 1)], 1, 0x81),
        ("namespace", Copy::new(NamespaceId::new(7), Lba::new(500), 1), &[(0, 1)], 0, 0x0B),
    ];
    for (name, copy, list, kind, status) in rows {
        let (entry, _) = rig.io_data(GUEST, 1, &copy, &sources(list));
        assert_eq!(entry.status().code(), code(kind, status), "{name}");
        assert!(rig.media(0, 500, 4) == vec![0; 4 * BLOCK], "{name}: nothing written");
    }
}

#[test]
fn deallocation_reads_as_zeroes_and_is_checked_first() {
    let ranges = |list: &[(u64, u32)]| -> Vec<u8> {
        list.iter()
            .flat_map(|(start, blocks)| {
                let range = DatasetRange { attributes: 0, blocks: *blocks, start: Lba::new(*start) };
                DatasetRangeData::from(range).as_bytes().to_vec()
            })
            .collect()
    };
    let mut rig = guest();
    let data = pattern(64, 3);
    rig.io_data(GUEST, 1, &Write::new(NSID, Lba::new(0), 64), &data);
    let command = |count| DatasetManagement {
        namespace: NSID,
        ranges: count,
        deallocate: true,
        integral_write: false,
        integral_read: false,
    };
    let (entry, _) = rig.io_data(GUEST, 1, &command(2), &ranges(&[(0, 4), (2047, 2)]));
    assert_eq!(entry.status().code(), code(0, 0x80));
    assert!(rig.media(0, 0, 64) == data, "nothing is done");
    let many: Vec<_> = (0..256).map(|at| (at % 32 * 2, 1)).collect();
    let (entry, _) = rig.io_data(GUEST, 1, &command(256), &ranges(&many));
    assert_eq!(entry.status(), Status::SUCCESS);
    for lba in 0..64 {
        let zero = rig.media(0, lba, 1) == vec![0; BLOCK];
        assert_eq!(zero, lba % 2 == 0, "block {lba}");
    }
}

#[test]
fn uncorrectable_blocks_fail_until_they_are_written() {
    let mut rig = guest();
    let bad = WriteUncorrectable { namespace: NSID, start: Lba::new(5), blocks: 2 };
    assert_eq!(rig.command(GUEST, 1, bad.encode()).status(), Status::SUCCESS);
    let read = Read::new(NSID, Lba::new(4), 4);
    let verify = Verify::new(NSID, Lba::new(4), 4);
    assert_eq!(rig.io_data(GUEST, 1, &read, &[0; 4 * BLOCK]).0.status().code(), code(2, 0x81));
    assert_eq!(rig.command(GUEST, 1, verify.encode()).status().code(), code(2, 0x81));
    rig.io_data(GUEST, 1, &Write::new(NSID, Lba::new(5), 2), &pattern(2, 1));
    assert_eq!(rig.io_data(GUEST, 1, &read, &[0; 4 * BLOCK]).0.status(), Status::SUCCESS);
    assert_eq!(rig.command(GUEST, 1, verify.encode()).status(), Status::SUCCESS);
}

#[test]
fn flush_and_forced_writes_reach_the_storage() {
    let mut rig = guest_with(Options { namespaces: vec![1, 2], ..Options::default() });
    let counts = |rig: &Rig| [rig.flushes[0].get(), rig.flushes[1].get()];
    let flush = |nsid| Flush { namespace: NamespaceId::new(nsid) }.encode();
    assert_eq!(rig.command(GUEST, 1, flush(2)).status(), Status::SUCCESS);
    assert_eq!(counts(&rig), [0, 1]);
    assert_eq!(rig.command(GUEST, 1, flush(u32::MAX)).status(), Status::SUCCESS);
    assert_eq!(counts(&rig), [1, 2]);
    assert_eq!(rig.command(GUEST, 1, flush(0)).status().code(), code(0, 0x0B));
    let write = Write { force_unit_access: true, ..Write::new(NSID, Lba::new(0), 1) };
    assert_eq!(rig.io_data(GUEST, 1, &write, &pattern(1, 1)).0.status(), Status::SUCCESS);
    assert_eq!(counts(&rig), [2, 2]);
}

#[test]
fn blocks_of_other_sizes() {
    for shift in [9, 10, 12, 13] {
        let mut rig =
            guest_with(Options { block_shift: shift, blocks: 256, scratch: 16_384, ..Options::default() });
        let bytes = 24 << shift;
        let data: Vec<u8> = (0..bytes).map(|at| (at / 7) as u8).collect();
        let (entry, _) = rig.io_data(GUEST, 1, &Write::new(NSID, Lba::new(3), 24), &data);
        assert_eq!(entry.status(), Status::SUCCESS, "2^{shift}");
        let (_, read) = rig.io_data(GUEST, 1, &Read::new(NSID, Lba::new(3), 24), &vec![0; bytes]);
        assert!(read == data, "2^{shift}");
    }
}

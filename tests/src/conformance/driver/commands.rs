// SPDX-License-Identifier: MIT OR Apache-2.0
//! Commands on blocks through the driver, each judged by reading back.

use nvme_core::io::Buffer;
use nvme_core::wire::identify::OptionalNvmCommands;
use nvme_core::wire::nvm::{Compare, Copy, DatasetManagement, Flush, Read, WriteZeroes};
use nvme_core::wire::nvm_data::{CopySource, CopySourceData, DatasetRange, DatasetRangeData};
use nvme_core::wire::{Command, Lba, NamespaceId, Status};
use zerocopy::IntoBytes;

use super::{Host, Known, Pair, io_slots, on_host, pair_options, slots};
use crate::conformance::backend::{Backend, Registers};

/// Runs `case` with a queue pair for transfers of 64 KiB.
fn with_pair(
    backend: &dyn Backend,
    case: impl for<'d> FnOnce(&Host<'d, Registers>, &mut Pair<'d, '_, Registers>, &Known),
) {
    on_host(backend, |host| {
        let mut admin_slots = slots(16);
        let (mut controller, known) = host.up(&mut admin_slots);
        let mut queue_slots = io_slots(16);
        let mut pair = host.create(&mut controller, &pair_options(1, 17, 64 << 10), &mut queue_slots);
        case(host, &mut pair, &known);
        host.delete(&mut controller, pair);
        host.disable(controller.disable()).detach();
    });
}

pub(crate) fn blocks_hold_what_was_written_last(backend: &dyn Backend) {
    with_pair(backend, |host, pair, known| {
        let most = known.small();
        let last = known.blocks - u64::from(most);
        for round in 0..3 {
            for start in [0, 1, 7, known.blocks / 2, last] {
                for blocks in [1, most.div_ceil(2), most] {
                    let data = known.pattern(blocks, start + u64::from(blocks) + round);
                    host.write(pair, known, start, &data);
                    assert!(host.read(pair, known, start, blocks) == data, "{blocks} blocks at {start}");
                }
            }
        }
        host.send(pair, &Flush { namespace: known.namespace }, &[]);
    });
}

pub(crate) fn what_lies_outside_is_refused_and_harms_nothing(backend: &dyn Backend) {
    with_pair(backend, |host, pair, known| {
        let last = known.blocks - 1;
        let data = known.pattern(1, 5);
        host.write(pair, known, last, &data);
        let rows: [(&str, NamespaceId, u64, u32); 4] = [
            ("one block behind the last", known.namespace, known.blocks, 1),
            ("across the end", known.namespace, last, 2),
            ("far behind", known.namespace, u64::MAX - 1, 1),
            ("namespace that cannot be", NamespaceId::new(0xFFFF_FFF0), 0, 1),
        ];
        for (name, namespace, start, blocks) in rows {
            let region = host.memory(2 * known.block_bytes);
            let command = Read::new(namespace, Lba::new(start), blocks).encode();
            let len = blocks as usize * known.block_bytes;
            let done = host.io(pair, &command, Some(Buffer::new(region, 0..len)));
            assert_ne!(done.release(host.arena).0.status(), Status::SUCCESS, "{name}");
        }
        assert_eq!(host.read(pair, known, last, 1), data);
    });
}

pub(crate) fn compare_tells_equal_from_different(backend: &dyn Backend) {
    with_pair(backend, |host, pair, known| {
        known.needs(OptionalNvmCommands::COMPARE, "Compare");
        let blocks = known.small();
        let data = known.pattern(blocks, 9);
        host.write(pair, known, 3, &data);
        let compare = Compare::new(known.namespace, Lba::new(3), blocks);
        host.send(pair, &compare, &data);
        for wrong in [0, data.len() / 2, data.len() - 1] {
            let mut other = data.clone();
            other[wrong] ^= 1;
            let region = host.memory(other.len());
            region.write(0, &other).expect("inside the region");
            let done = host.io(pair, &compare.encode(), Some(Buffer::whole(region)));
            let status = done.release(host.arena).0.status();
            assert_eq!((status.code().kind(), status.code().code()), (2, 0x85), "byte {wrong} differs");
        }
    });
}

pub(crate) fn write_zeroes_clears_its_range_alone(backend: &dyn Backend) {
    with_pair(backend, |host, pair, known| {
        known.needs(OptionalNvmCommands::WRITE_ZEROES, "Write Zeroes");
        let blocks = known.small() + 4;
        let mut data = known.pattern(blocks, 4);
        host.write(pair, known, 0, &data);
        host.send(pair, &WriteZeroes::new(known.namespace, Lba::new(2), blocks - 4), &[]);
        let size = known.block_bytes;
        data[2 * size..(blocks as usize - 2) * size].fill(0);
        assert!(host.read(pair, known, 0, blocks) == data);
    });
}

pub(crate) fn ranges_that_are_not_adjacent_are_deallocated_and_their_neighbours_are_not(
    backend: &dyn Backend,
) {
    with_pair(backend, |host, pair, known| {
        known.needs(OptionalNvmCommands::DATASET_MANAGEMENT, "Dataset Management");
        let rows: [(&str, &[(u64, u32)]); 4] = [
            ("one range", &[(4, 3)]),
            ("apart", &[(2, 2), (8, 1), (12, 3)]),
            ("falling", &[(12, 2), (6, 2), (1, 1)]),
            ("adjacent", &[(3, 2), (5, 2), (7, 1)]),
        ];
        for (name, list) in rows {
            let data = known.pattern(16, 3);
            host.write(pair, known, 0, &data);
            let ranges: Vec<DatasetRangeData> = list
                .iter()
                .map(|(start, blocks)| {
                    DatasetRange { attributes: 0, blocks: *blocks, start: Lba::new(*start) }.into()
                })
                .collect();
            let command = DatasetManagement {
                namespace: known.namespace,
                ranges: list.len() as u16,
                deallocate: true,
                integral_write: false,
                integral_read: false,
            };
            host.send(pair, &command, ranges.as_bytes());
            let found = host.read(pair, known, 0, 16);
            let size = known.block_bytes;
            for block in 0..16_usize {
                let gone = list
                    .iter()
                    .any(|(start, len)| (*start..start + u64::from(*len)).contains(&(block as u64)));
                let (now, before) = (&found[block * size..][..size], &data[block * size..][..size]);
                // A deallocated block reads as zeroes, as all ones, or as what it was.
                let filled = |byte: u8| now.iter().all(|found| *found == byte);
                assert!(now == before || gone && (filled(0) || filled(0xFF)), "{name}: block {block}");
            }
        }
    });
}

pub(crate) fn copies_put_blocks_in_order(backend: &dyn Backend) {
    with_pair(backend, |host, pair, known| {
        known.needs(OptionalNvmCommands::COPY, "Copy");
        let data = known.pattern(16, 6);
        host.write(pair, known, 0, &data);
        for (name, list) in [
            ("one range", &[(0_u64, 4_u32)][..]),
            ("ranges in any order", &[(9, 3), (0, 1), (4, 2)]),
            ("the same range twice", &[(2, 2), (2, 2)]),
        ] {
            let sources: Vec<CopySourceData> = list
                .iter()
                .map(|(start, blocks)| CopySource::new(Lba::new(*start), *blocks).into())
                .collect();
            let command = Copy::new(known.namespace, Lba::new(100), list.len() as u16);
            host.send(pair, &command, sources.as_bytes());
            let size = known.block_bytes;
            let expected: Vec<u8> = list
                .iter()
                .flat_map(|(start, blocks)| &data[*start as usize * size..][..*blocks as usize * size])
                .copied()
                .collect();
            let blocks = (expected.len() / size) as u32;
            assert!(host.read(pair, known, 100, blocks) == expected, "{name}");
        }
        assert!(host.read(pair, known, 0, 16) == data, "the sources stay");
    });
}

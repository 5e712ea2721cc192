// SPDX-License-Identifier: MIT OR Apache-2.0
//! Commands of the NVM Command Set and their range lists.

use nvme_core::wire::nvm::*;
use nvme_core::wire::nvm_data::{
    CopySource, CopySourceData, DatasetRange, DatasetRangeData, copy_sources, dataset_ranges,
};
use nvme_core::wire::{Command, Fuse, Lba, NamespaceId, SubmissionQueueEntry, TooShort};
use proptest::prelude::*;
use zerocopy::IntoBytes as _;

use super::{accepts_or_refuses, round_trip};

const NAMESPACE: NamespaceId = NamespaceId::new(5);
const START: Lba = Lba::new(0x2_0000_0001);

#[test]
fn commands_encode_as_the_figures_say() {
    let read = Read {
        protection: 0xF,
        force_unit_access: true,
        limited_retry: true,
        ..Read::new(NAMESPACE, START, 65_536)
    };
    let zeroes = WriteZeroes { deallocate: true, ..WriteZeroes::new(NAMESPACE, START, 2) };
    let dataset = DatasetManagement {
        namespace: NAMESPACE,
        ranges: 256,
        deallocate: true,
        integral_write: false,
        integral_read: false,
    };
    let copy = Copy {
        descriptor_format: 0xA,
        protection_read: 0xB,
        protection_write: 0xC,
        force_unit_access: true,
        ..Copy::new(NAMESPACE, START, 3)
    };
    let uncorrectable = WriteUncorrectable { namespace: NAMESPACE, start: START, blocks: 0x1235 };
    let rows: [(&str, SubmissionQueueEntry, u8, [u32; 6]); 13] = [
        ("flush", Flush { namespace: NAMESPACE }.encode(), 0x00, [0; 6]),
        ("write one block", Write::new(NAMESPACE, START, 1).encode(), 0x01, [1, 2, 0, 0, 0, 0]),
        ("read with every option", read.encode(), 0x02, [1, 2, 0xFC00_FFFF, 0, 0, 0]),
        ("write uncorrectable", uncorrectable.encode(), 0x04, [1, 2, 0x1234, 0, 0, 0]),
        ("compare", Compare::new(NAMESPACE, START, 8).encode(), 0x05, [1, 2, 7, 0, 0, 0]),
        ("write zeroes and deallocate", zeroes.encode(), 0x08, [1, 2, 0x0200_0001, 0, 0, 0]),
        ("dataset management", dataset.encode(), 0x09, [0xFF, 4, 0, 0, 0, 0]),
        (
            "dataset management hints",
            DatasetManagement {
                ranges: 1,
                deallocate: false,
                integral_write: true,
                integral_read: true,
                ..dataset
            }
            .encode(),
            0x09,
            [0, 3, 0, 0, 0, 0],
        ),
        ("verify", Verify::new(NAMESPACE, START, 8).encode(), 0x0C, [1, 2, 7, 0, 0, 0]),
        ("copy", copy.encode(), 0x19, [1, 2, 0x7000_BA02, 0, 0, 0]),
        ("no block encodes as one", Read::new(NAMESPACE, START, 0).encode(), 0x02, [1, 2, 0, 0, 0, 0]),
        (
            "too many blocks encode as 65,536",
            Read::new(NAMESPACE, START, 65_537).encode(),
            0x02,
            [1, 2, 0xFFFF, 0, 0, 0],
        ),
        (
            "too many ranges encode as 256",
            Copy::new(NAMESPACE, START, 257).encode(),
            0x19,
            [1, 2, 0xFF, 0, 0, 0],
        ),
    ];
    for (name, entry, opcode, dwords) in rows {
        assert_eq!((entry.opcode(), entry.namespace()), (opcode, NAMESPACE), "{name}");
        assert_eq!(entry.dwords(), dwords, "{name}");
    }
}

#[test]
fn fused_bits_belong_to_the_entry() {
    let compare = Compare::new(NAMESPACE, START, 1);
    let entry = compare.encode().with_fuse(Fuse::First);
    assert_eq!(entry.fuse(), Fuse::First);
    assert_eq!(Compare::decode(&entry), Ok(compare));
}

#[test]
fn ranges_stand_in_memory_as_the_figures_say() {
    let range =
        DatasetRange { attributes: 0x0403_0201, blocks: 0x0807_0605, start: Lba::new(0x100F_0E0D_0C0B_0A09) };
    let bytes: Vec<u8> = (1..=16).collect();
    assert_eq!(DatasetRangeData::from(range).as_bytes(), bytes);
    let source = CopySource {
        reference_tag: 0x1B1A_1918,
        application_tag: 0x1D1C,
        application_tag_mask: 0x1F1E,
        ..CopySource::new(Lba::new(0x0F0E_0D0C_0B0A_0908), 0x1112)
    };
    let mut bytes: Vec<u8> = (0..32).collect();
    bytes[..8].fill(0);
    (bytes[16], bytes[17]) = (0x11, 0x11);
    bytes[18..24].fill(0);
    assert_eq!(CopySourceData::from(source).as_bytes(), bytes);
}

#[test]
fn short_range_lists_are_refused() {
    let rows =
        [("empty", 0, 1), ("one byte short", 31, 2), ("one range short", 16, 2), ("none of 256", 0, 256)];
    for (name, given, ranges) in rows {
        let expected =
            TooShort { structure: "Dataset Management range list", needed: usize::from(ranges) * 16, given };
        assert_eq!(dataset_ranges(&vec![0; given], ranges).err(), Some(expected), "{name}");
        let expected =
            TooShort { structure: "Copy source range list", needed: usize::from(ranges) * 32, given };
        assert_eq!(copy_sources(&vec![0; given], ranges).err(), Some(expected), "{name}");
    }
}

macro_rules! block_commands_round_trip {
    ($namespace:ident, $start:ident, $blocks:ident, $protection:ident, $flags:ident: $($command:ident)*) => {
        $({
            let [force_unit_access, limited_retry, _] = $flags;
            let command = $command {
                namespace: $namespace, start: $start, blocks: $blocks, protection: $protection,
                force_unit_access, limited_retry,
            };
            prop_assert_eq!(round_trip(&command), Ok(command));
        })*
    };
}

proptest! {
    #[test]
    fn commands_round_trip(
        namespace in any::<u32>(), start in any::<u64>(), blocks in 1..=65_536_u32, ranges in 1..=256_u16,
        flags in any::<[bool; 3]>(), nibbles in proptest::array::uniform3(0..=15_u8),
    ) {
        let (namespace, start) = (NamespaceId::new(namespace), Lba::new(start));
        let [protection, protection_read, descriptor_format] = nibbles;
        block_commands_round_trip!(namespace, start, blocks, protection, flags: Read Write Compare Verify);
        let [force_unit_access, limited_retry, deallocate] = flags;
        let zeroes = WriteZeroes {
            namespace, start, blocks, deallocate, protection, force_unit_access, limited_retry,
        };
        prop_assert_eq!(round_trip(&zeroes), Ok(zeroes));
        let uncorrectable = WriteUncorrectable { namespace, start, blocks };
        prop_assert_eq!(round_trip(&uncorrectable), Ok(uncorrectable));
        let flush = Flush { namespace };
        prop_assert_eq!(round_trip(&flush), Ok(flush));
        let [integral_write, integral_read, deallocate] = flags;
        let dataset = DatasetManagement { namespace, ranges, deallocate, integral_write, integral_read };
        prop_assert_eq!(round_trip(&dataset), Ok(dataset));
        let copy = Copy {
            namespace, destination: start, ranges, descriptor_format, protection_read,
            protection_write: protection, force_unit_access, limited_retry,
        };
        prop_assert_eq!(round_trip(&copy), Ok(copy));
    }

    #[test]
    fn arbitrary_entries_are_accepted_or_refused(bytes in any::<[u8; 64]>()) {
        accepts_or_refuses::<Read>(&bytes);
        accepts_or_refuses::<Write>(&bytes);
        accepts_or_refuses::<Compare>(&bytes);
        accepts_or_refuses::<Verify>(&bytes);
        accepts_or_refuses::<WriteZeroes>(&bytes);
        accepts_or_refuses::<WriteUncorrectable>(&bytes);
        accepts_or_refuses::<Flush>(&bytes);
        accepts_or_refuses::<DatasetManagement>(&bytes);
        accepts_or_refuses::<Copy>(&bytes);
    }

    #[test]
    fn range_lists_round_trip(
        dataset in proptest::collection::vec(any::<(u32, u32, u64)>(), 1..=256),
        copy in proptest::collection::vec((any::<u64>(), 1..=65_536_u32, any::<(u32, u16, u16)>()), 1..=256),
        spare in 0..40_usize,
    ) {
        let ranges: Vec<_> = dataset.into_iter()
            .map(|(attributes, blocks, start)| DatasetRange { attributes, blocks, start: Lba::new(start) })
            .collect();
        let mut bytes: Vec<u8> =
            ranges.iter().flat_map(|range| DatasetRangeData::from(*range).as_bytes().to_vec()).collect();
        bytes.resize(bytes.len() + spare, 0xEE);
        let found: Vec<_> = dataset_ranges(&bytes, ranges.len() as u16).unwrap().collect();
        prop_assert_eq!(found, ranges);

        let sources: Vec<_> = copy.into_iter()
            .map(|(start, blocks, (reference_tag, application_tag, application_tag_mask))| CopySource {
                start: Lba::new(start), blocks, reference_tag, application_tag, application_tag_mask,
            })
            .collect();
        let mut bytes: Vec<u8> =
            sources.iter().flat_map(|source| CopySourceData::from(*source).as_bytes().to_vec()).collect();
        bytes.resize(bytes.len() + spare, 0xEE);
        let found: Vec<_> = copy_sources(&bytes, sources.len() as u16).unwrap().collect();
        prop_assert_eq!(found, sources);
    }
}

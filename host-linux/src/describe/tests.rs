// SPDX-License-Identifier: MIT OR Apache-2.0
//! Recorded bytes decode to the rows expected; every table is sound; no input panics.

/// The bytes of one of the core's recorded vectors.
macro_rules! vector {
    ($name:literal) => {
        dump(include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/../nvme-core/tests/vectors/", $name)))
    };
}

mod agreement;
mod layout;
mod logs;
mod output;
mod states;

use nvme_core::wire::admin::FeatureSelect;
use nvme_core::wire::controller_state::StateDialect;
use nvme_core::wire::{AsynchronousEvent, CdqEvent, CdqId, CommandId, CompletionQueueEntry, QueueId, Status};
use proptest::prelude::*;

use super::*;

const PAGE: Context = Context { page_bytes: Some(4096) };

/// The bytes of a recorded dump: lines of an offset and data.
fn dump(text: &str) -> Vec<u8> {
    let lines = text.lines().filter(|line| !line.starts_with('#') && !line.is_empty());
    lines.flat_map(|line| bytes(line.split_once(": ").unwrap().1)).collect()
}

fn bytes(hex: &str) -> Vec<u8> {
    (0..hex.len() / 2).map(|at| u8::from_str_radix(&hex[2 * at..2 * at + 2], 16).unwrap()).collect()
}

/// Field (or bit field, as `FIELD.BIT`), value as shown, meaning.
type Rows = &'static [(&'static str, &'static str, &'static str)];

fn check(name: &str, structure: &Structure, rows: Rows) {
    for (path, value, meaning) in rows {
        let (field, bit) = path.split_once('.').unwrap_or((path, ""));
        let found = structure
            .field(field)
            .and_then(|field| if bit.is_empty() { Some(field) } else { field.bit(bit) });
        let found = found.unwrap_or_else(|| panic!("{name}: {path} is missing"));
        assert_eq!(
            (found.value.to_string().as_str(), found.meaning.as_str()),
            (*value, *meaning),
            "{name}: {path}"
        );
    }
}

#[test]
fn recorded_identify_data_decodes_to_named_rows() {
    let manager = vector!("identify-controller-manager.hex");
    let function = vector!("identify-controller-vf.hex");
    let nvm = vector!("identify-controller-nvm-cns06.hex");
    let namespace = vector!("identify-namespace-cns00.hex");
    let formats = vector!("identify-cns20-controller-state-formats.hex");
    let primary = vector!("identify-primary-caps-cns14.hex");
    let secondary = vector!("identify-secondary-list-cns15.hex");
    let rows: &[(&str, u8, &[u8], Rows)] = &[
        (
            "manager",
            0x01,
            &manager,
            &[
                ("VID", "0x1b36", ""),
                ("SN", "SER-subC", ""),
                ("MN", "QEMU NVMe Ctrl", ""),
                ("RAB", "6", "2^6 commands"),
                ("IEEE", "0x525400", ""),
                ("MDTS", "7", "512 KiB (524,288 bytes)"),
                ("CNTLID", "0", "controller 0 in migration commands"),
                ("VER", "0x10400", "1.4.0"),
                ("CNTRLTYPE", "1", "I/O controller"),
                ("OACS.HMLMS", "1", ""),
                ("OACS.VMS", "0", ""),
                ("SQES.REQUIRED", "6", "64 bytes"),
                ("TRATTR.TUDCS", "1", ""),
                ("SUBNQN", "nqn.2019-08.org.qemu:subC", ""),
            ],
        ),
        (
            "virtual function",
            0x01,
            &function,
            &[("CNTLID", "1", "controller 1 in migration commands"), ("OACS.VMS", "1", "")],
        ),
        (
            "NVM part of the controller",
            0x06,
            &nvm,
            &[
                ("VSL", "7", "512 KiB (524,288 bytes)"),
                ("DMRL", "255", ""),
                ("LBAMQF", "0", "LBA Migration Queue Entry Type 0"),
            ],
        ),
        (
            "namespace",
            0x00,
            &namespace,
            &[
                ("NSZE", "131072", "64 MiB (67,108,864 bytes)"),
                ("NLBAF", "7", "8"),
                ("FLBAS", "0x0", "LBAF0"),
                ("DLFEAT.DULBRB", "1", "zeroes"),
            ],
        ),
        ("formats of 4 bytes", 0x20, &formats, &[("NV", "1", ""), ("NUUID", "0", "")]),
        ("primary", 0x14, &primary, &[("CRT.VQRS", "1", ""), ("VQFRT", "8", ""), ("VIPRT", "13", "")]),
        ("secondaries", 0x15, &secondary, &[("NUMID", "2", "")]),
    ];
    for (name, cns, data, rows) in rows {
        let structure = identify(*cns, 0, data, &PAGE);
        check(name, &structure, rows);
        assert!(structure.problems.is_empty(), "{name}: {:?}", structure.problems);
    }
}

#[test]
fn recorded_lists_decode() {
    let secondaries = identify(0x15, 0, &vector!("identify-secondary-list-cns15.hex"), &PAGE);
    let items = secondaries.list("SC");
    assert_eq!(items.len(), 2);
    check("first", &items[0], &[("SCID", "1", ""), ("VFN", "1", ""), ("SCS.ONLN", "0", "")]);
    assert_eq!(items[0].meaning, "offline");
    let namespace = identify(0x00, 0, &vector!("identify-namespace-cns00.hex"), &PAGE);
    let formats = namespace.list("LBAF");
    assert_eq!(formats.len(), 64);
    assert_eq!(formats[0].meaning, "512 bytes, no metadata, best performance");
    assert_eq!(namespace.meaning, "131,072 blocks of 512 bytes");
    let mut qualified = [0; 4096];
    (qualified[8], qualified[9]) = (8, 1);
    qualified[12..16].copy_from_slice(&u32::to_le_bytes(2 << 9 | 3 << 7 | 16));
    let namespace = identify(0x05, 0, &qualified, &PAGE);
    check("PIC", &namespace, &[("PIC.QPIFS", "1", ""), ("PIFA.STMLA", "1", "byte granularity")]);
    assert_eq!(namespace.list("ELBAF")[0].meaning, "64b guard, storage tag of 16 bits");
    let state_formats = identify(0x20, 0, &[1, 0, 0, 0], &PAGE);
    assert_eq!(state_formats.list("CSVI")[0].meaning, "index 1 in migration commands");
}

#[test]
fn recorded_states_decode() {
    let one = controller_state(&vector!("controller-state-1q-vf.hex"), StateDialect::Specification);
    assert!(one.problems.is_empty(), "{:?}", one.problems);
    assert_eq!(one.meaning, "of a suspended controller");
    check(
        "one queue pair",
        &one,
        &[
            ("VER", "0", ""),
            ("CSATTR.CSUSP", "1", ""),
            ("NVMECSS", "14", "56 bytes"),
            ("VSS", "0", "none"),
            ("NIOSQ", "1", ""),
            ("NIOCQ", "1", ""),
        ],
    );
    check(
        "its submission queue",
        &one.list("IOSQ")[0],
        &[
            ("IOSQPRP1", "0xd7000", ""),
            ("IOSQQSIZE", "63", "64 slots"),
            ("IOSQQID", "1", ""),
            ("IOSQA.PC", "1", ""),
        ],
    );
    assert_eq!(one.list("IOCQ")[0].name, "IOCQ1");
    let two = controller_state(&vector!("controller-state-scen-01.hex"), StateDialect::NextPostPhase);
    assert_eq!((two.list("IOSQ").len(), two.list("IOCQ").len()), (2, 2));
    assert_eq!(two.meaning, "of a controller that was not suspended");
}

#[test]
fn recorded_entries_decode() {
    let entries = include_str!("../../../nvme-core/tests/vectors/cdqe.txt");
    let mut count = 0;
    for line in entries.lines().filter(|line| !line.starts_with('#') && !line.is_empty()) {
        let parts: Vec<&str> = line.split(" | ").collect();
        let said = |name: &str| {
            let word = parts[0].split(' ').find_map(|word| word.strip_prefix(name)?.strip_prefix('='));
            word.unwrap_or_else(|| panic!("{line}")).trim_start_matches("0x").to_string()
        };
        let entry = migration_entry(&bytes(parts[2].trim()));
        let attributes = entry.field("LBAMQA").unwrap();
        for (ours, theirs) in [("CDQP", "phase"), ("ESA", "esa"), ("LBACIR", "lbacia")] {
            assert_eq!(attributes.bit(ours).unwrap().value.to_string(), said(theirs), "{line}");
        }
        assert_eq!(entry.field("NSID").unwrap().value.to_string(), said("nsid"), "{line}");
        assert_eq!(format!("{:x}", entry.field("SLBA").unwrap().number().unwrap()), said("slba"), "{line}");
        count += 1;
    }
    assert!(count > 5, "{count} entries");
}

#[test]
fn entries_are_said_in_words() {
    let entry = |nsid: u32, nlb: u32, slba: u64, attributes: u8| {
        let mut entry = [0; 32];
        entry[..4].copy_from_slice(&nsid.to_le_bytes());
        entry[4..8].copy_from_slice(&nlb.to_le_bytes());
        entry[8..16].copy_from_slice(&slba.to_le_bytes());
        entry[31] = attributes;
        migration_entry(&entry)
    };
    let rows = [
        ("one block", entry(1, 0, 5, 0x01), "namespace 1: block 5 changed", 0),
        ("a range", entry(2, 7, 4096, 0x21), "namespace 2: blocks 4,096 to 4,103 deallocated", 0),
        ("first", entry(0, 0, 0, 0x83), "logging starts", 0),
        (
            "suspended, all",
            entry(2, 0, 0, 0x47),
            "namespace 2: every block changed; controller suspended, log complete",
            0,
        ),
        ("full", entry(1, 0, 0, 0x0F), "namespace 1: block 0 changed; queue full, later changes are lost", 0),
        ("reserved sequence", entry(1, 0, 0, 0x09), "", 1),
        ("nothing mid-stream", entry(0, 0, 0, 0x81), "nothing", 1),
    ];
    for (name, entry, meaning, problems) in rows {
        assert_eq!((entry.meaning.as_str(), entry.problems.len()), (meaning, problems), "{name}");
    }
}

#[test]
fn completions_and_events_are_said_in_words() {
    let status = Status::from_bits(0x4000 | (1 << 8) | 0x37).with_more();
    let entry =
        CompletionQueueEntry::new(QueueId::new(3), 7, CommandId::new(0x1F), status).with_result(0xABCD, 2);
    let decoded = completion(&entry.with_phase(true));
    check(
        "completion",
        &decoded,
        &[
            ("DW0", "0xabcd", ""),
            ("SQHD", "7", ""),
            ("SQID", "3", ""),
            ("CID", "0x1f", ""),
            ("STATUS.P", "1", ""),
            ("STATUS.SC", "0x37", ""),
            ("STATUS.SCT", "1", "command specific status"),
            ("STATUS.M", "1", ""),
            ("STATUS.DNR", "1", ""),
        ],
    );
    assert_eq!(decoded.meaning, "Invalid Controller Data Queue (1/37h), do not retry, more in the error log");
    let full = AsynchronousEvent::from(CdqEvent::Full(CdqId::new(9)));
    assert_eq!(event(&full).meaning, "Controller Data Queue 9 became full");
    check("event", &event(&full), &[("DW0.AET", "4", "one-shot"), ("ESP", "0x9", "")]);
}

#[test]
fn registers_decode_and_absent_ones_are_not_read() {
    let capabilities: u64 = 0x07FF | (1 << 16) | (0x0F << 24) | (1 << 37) | (4 << 52);
    let mut asked = Vec::new();
    let structure = registers(|offset| {
        asked.push(offset);
        match offset {
            0x00 => Some(capabilities as u32),
            0x04 => Some((capabilities >> 32) as u32),
            0x08 => Some(0x0002_0100),
            0x14 => Some(0x0046_0001),
            0x1C => Some(1),
            0x24 => Some(0x001F_001F),
            0x28 => Some(0xFFFF_F000),
            0x2C => Some(1),
            _ => Some(0),
        }
    });
    check(
        "registers",
        &structure,
        &[
            ("CAP.MQES", "2047", "2,048"),
            ("CAP.TO", "15", "7.5 s"),
            ("CAP.DSTRD", "0", "4 bytes"),
            ("CAP.MPSMAX", "4", "64 KiB (65,536 bytes)"),
            ("VS", "0x20100", "2.1.0"),
            ("CC.EN", "1", ""),
            ("CC.IOSQES", "6", "64 bytes"),
            ("CSTS.RDY", "1", ""),
            ("AQA.ASQS", "31", "32"),
            ("ASQ", "0x1fffff000", ""),
        ],
    );
    assert!(asked.is_sorted(), "{asked:x?}");
    assert!(asked.iter().all(|offset| *offset < 0x40), "{asked:x?}");
    let gone = registers(|_| Some(u32::MAX));
    assert_eq!(gone.problems, ["CSTS reads as all ones: the controller is gone"]);
    assert_eq!(registers(|_| None).fields, []);
}

#[test]
fn features_decode() {
    let current = FeatureSelect::Current;
    let rows: &[(&str, Structure, Rows)] = &[
        (
            "queues",
            feature(0x07, current, 0x0003_0007, &[]),
            &[("DW0.NSQA", "7", "8"), ("DW0.NCQA", "3", "4")],
        ),
        (
            "threshold",
            feature(0x04, current, 0x0010_0157, &[]),
            &[("DW0.TMPTH", "343", "343 K (70 °C)"), ("DW0.THSEL", "1", "under")],
        ),
        (
            "events",
            feature(0x0B, current, 0x0000_0501, &[]),
            &[("DW0.ASCBT", "1", ""), ("DW0.NSAN", "1", ""), ("DW0.TLN", "1", ""), ("DW0.ANACN", "0", "")],
        ),
        ("keep alive", feature(0x0F, current, 120_000, &[]), &[("DW0.KATO", "120000", "120 s")]),
        (
            "data queue",
            feature(0x21, current, 0x8000_0005, &[3, 0, 0, 0, 9, 0, 0, 0]),
            &[("DW0.ETPT", "1", ""), ("HP", "3", ""), ("TPT", "9", "")],
        ),
        (
            "capabilities",
            feature(0x06, FeatureSelect::SupportedCapabilities, 5, &[]),
            &[("DW0.SVBL", "1", ""), ("DW0.CHANG", "1", "")],
        ),
        ("behavior", feature(0x16, current, 0, &[1; 512]), &[("ACRE", "1", ""), ("LBAFEE", "1", "")]),
    ];
    for (name, structure, rows) in rows {
        check(name, structure, rows);
        assert!(structure.problems.is_empty(), "{name}: {:?}", structure.problems);
    }
}

proptest! {
    #[test]
    fn no_input_panics(
        cns in 0..0x24_u8, set in 0..3_u8, page in prop_oneof![0..0x24_u8, 0x80..0x82_u8],
        id in prop_oneof![0..0x24_u8, 0x80..0x86_u8], dword: u32, select in 0..4, all: bool, width in 0..200_u16,
        data in proptest::collection::vec(prop_oneof![3 => Just(0_u8), 1 => any::<u8>()], 0..5000),
        page_bytes in proptest::option::of(any::<u64>()),
    ) {
        let context = Context { page_bytes };
        let select = match select {
            0 => FeatureSelect::Current,
            1 => FeatureSelect::Default,
            2 => FeatureSelect::Saved,
            _ => FeatureSelect::SupportedCapabilities,
        };
        let structures = [
            identify(cns, set, &data, &context),
            log_page(page, &data, &context),
            feature(id, select, dword, &data),
            controller_state(&data, StateDialect::Specification),
            controller_state(&data, StateDialect::NextPostPhase),
            migration_entry(&data),
            registers(|offset| data.get(offset as usize..)?.first_chunk().copied().map(u32::from_le_bytes)),
        ];
        for structure in &structures {
            let mut text = Vec::new();
            render(structure, &mut text, Style { all, width }).unwrap();
            serde_json::to_string(structure).unwrap();
            prop_assert_eq!(diff(structure, structure), []);
        }
        let differences = diff(&structures[3], &structures[4]);
        render_differences(&differences, &mut Vec::new(), Style { all, width }).unwrap();
    }

    #[test]
    fn states_of_any_shape_decode(
        submission in 0..40_u16, completion in 0..40_u16, nvme in 0..600_u32, vendor in 0..20_u32,
        data in proptest::collection::vec(any::<u8>(), 0..2500),
    ) {
        let mut image = vec![0; 56];
        image[16..20].copy_from_slice(&nvme.to_le_bytes());
        image[32..36].copy_from_slice(&vendor.to_le_bytes());
        image[50..52].copy_from_slice(&submission.to_le_bytes());
        image[52..54].copy_from_slice(&completion.to_le_bytes());
        image.extend(data);
        let structure = controller_state(&image, StateDialect::Specification);
        let listed = structure.lists.iter().flat_map(|list| &list.items).count() * 24;
        let fields: usize = structure.fields.iter().map(|field| match field.place {
            Place::Bytes { length, .. } => length,
            Place::Bits { .. } => 0,
        }).sum();
        prop_assert_eq!(listed + fields, image.len());
    }
}

// SPDX-License-Identifier: MIT OR Apache-2.0
//! Recorded bytes decode to the rows expected; every table is sound; no input panics.

mod agreement;

use nvme_core::wire::admin::FeatureSelect;
use nvme_core::wire::controller_state::StateDialect;
use nvme_core::wire::{AsynchronousEvent, CdqEvent, CdqId, CommandId, CompletionQueueEntry, QueueId, Status};
use proptest::prelude::*;

use super::table::Table;
use super::*;

const PAGE: Context = Context { page_bytes: Some(4096) };

macro_rules! vector {
    ($name:literal) => {
        dump(include_str!(concat!("../../../nvme-core/tests/vectors/", $name)))
    };
}

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
                ("RAB", "6", "64 commands"),
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
            feature(0x0B, current, 0x0000_0101, &[]),
            &[("DW0.ASCBT", "1", ""), ("DW0.NSAN", "1", "")],
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

#[test]
fn log_pages_decode() {
    let page = |length: usize, parts: &[(usize, &[u8])]| {
        let mut page = vec![0; length];
        for (at, bytes) in parts {
            page[*at..*at + bytes.len()].copy_from_slice(bytes);
        }
        page
    };
    let rows: &[(&str, u8, Vec<u8>, Rows)] = &[
        (
            "health",
            0x02,
            page(512, &[(0, &[2]), (1, &[0x43, 1]), (3, &[99]), (32, &[9]), (128, &[48]), (200, &[0x2C, 1])]),
            &[
                ("CW.TTC", "1", ""),
                ("CTEMP", "323", "323 K (50 °C)"),
                ("AVSP", "99", "99 %"),
                ("DUR", "9", "4.39 MiB (4,608,000 bytes)"),
                ("POH", "48", "48 hours (2 days)"),
                ("TSEN1", "300", "300 K (27 °C)"),
                ("TSEN2", "0", ""),
            ],
        ),
        (
            "firmware slots",
            0x03,
            page(512, &[(0, &[0x21]), (8, b"9.2.50  ")]),
            &[("AFI.CFSA", "1", ""), ("AFI.NCLRFS", "2", ""), ("FRS1", "9.2.50", "")],
        ),
        ("changed namespaces", 0x04, page(4096, &[(0, &[3]), (4, &[7])]), &[("NSID", "3, 7", "")]),
        (
            "self-test",
            0x06,
            page(564, &[(0, &[2]), (1, &[40])]),
            &[("CDSTC.DSTC", "40", ""), ("CDSTO.DSTS", "2", "extended self-test")],
        ),
        (
            "endurance",
            0x09,
            page(512, &[(5, &[3]), (48, &[2])]),
            &[("PUSED", "3", "3 %"), ("DUR", "2", "1.86 GiB (2,000,000,000 bytes)")],
        ),
        (
            "aggregate",
            0x0B,
            page(64, &[(0, &[2]), (8, &[5, 0, 6, 0])]),
            &[("NUMENT", "2", ""), ("ENTRY", "5, 6", "")],
        ),
        (
            "sanitize",
            0x81,
            page(512, &[(0, &[0xFF, 0x7F]), (2, &[2, 0])]),
            &[("SPROG", "32767", "49 %"), ("SSTAT.SOS", "2", "sanitize operation in progress")],
        ),
        ("unknown", 0xC0, page(4, &[(1, &[9])]), &[("DATA", "00090000", "")]),
    ];
    for (name, id, data, rows) in rows {
        let structure = log_page(*id, data, &PAGE);
        check(name, &structure, rows);
        assert!(structure.problems.is_empty(), "{name}: {:?}", structure.problems);
    }
}

#[test]
fn items_of_log_pages_decode() {
    let mut errors = [0; 192];
    errors[0] = 5;
    errors[8..14].copy_from_slice(&[1, 0, 0x1F, 0, 0x05, 0x80]);
    errors[14..16].copy_from_slice(&[0x28, 0x03]);
    let log = log_page(0x01, &errors, &PAGE);
    assert_eq!((log.list("ERR").len(), log.meaning.as_str()), (3, "1 error"));
    check(
        "error",
        &log.list("ERR")[0],
        &[("ECNT", "5", ""), ("PEL", "0x328", "byte 40 bit 3 of the command")],
    );
    assert_eq!(log.list("ERR")[0].meaning, "Invalid Field in Command (0/02h), do not retry");
    let mut effects = [0; 4096];
    effects[0x41 * 4] = 1;
    effects[1028..1031].copy_from_slice(&[3, 0, 1]);
    let log = log_page(0x05, &effects, &PAGE);
    let said = |list: &str| -> Vec<_> {
        let used = log.list(list).iter().filter(|item| !item.is_zero());
        used.map(|item| (item.name.to_string(), item.meaning.clone())).collect()
    };
    assert_eq!(said("ACS"), [("41h".into(), "Migration Send".into())]);
    assert_eq!(said("IOCS"), [("01h".into(), "Write, changes blocks, alone on its namespace".into())]);
    let mut access = [0; 16 + 2 * 32 + 8];
    access[8] = 2;
    access[16..21].copy_from_slice(&[1, 0, 0, 0, 2]);
    access[32] = 1;
    access[48..56].copy_from_slice(&[7, 0, 0, 0, 9, 0, 0, 0]);
    access[56] = 2;
    access[72] = 15;
    let log = log_page(0x0C, &access, &PAGE);
    let groups = log.list("ANAG");
    check("first group", &groups[0], &[("AGID", "1", ""), ("NSID", "7, 9", "")]);
    assert_eq!((groups[0].meaning.as_str(), groups[1].meaning.as_str()), ("optimized", "change"));
    assert!(log.problems.is_empty(), "{:?}", log.problems);
    let mut events = vec![0; 512];
    events[4] = 2;
    for (kind, data) in [(3, &[1, 2][..]), (0xDE, &[])] {
        let mut event = [0; 24];
        (event[0], event[2], event[22]) = (kind, 21, data.len() as u8);
        events.extend(event);
        events.extend(data);
    }
    let log = log_page(0x0D, &events, &PAGE);
    assert!(log.problems.is_empty(), "{:?}", log.problems);
    let said: Vec<_> = log.list("EVENT").iter().map(|event| event.meaning.as_str()).collect();
    assert_eq!(said, ["timestamp change", "vendor specific"]);
    check("data of an event", &log.list("EVENT")[0], &[("DATA", "0102", "")]);
}

#[test]
fn lists_that_do_not_fit_are_named() {
    let mut access = [0; 48];
    (access[8], access[20]) = (1, 200);
    let mut events = vec![0; 540];
    (events[4], events[514], events[534]) = (1, 21, 99);
    let rows = [
        ("namespaces of a group", log_page(0x0C, &access[..44], &PAGE), "1 groups announced, 0 read"),
        ("event", log_page(0x0D, &events, &PAGE), "does not fit"),
        ("aggregate", log_page(0x0B, &[9, 0, 0, 0, 0, 0, 0, 0, 1, 0], &PAGE), "9 entries announced, 1 read"),
        ("controllers", identify(0x13, 0, &[3, 0, 1, 0], &PAGE), "announces 3 controllers and holds 1"),
        ("namespaces", identify(0x02, 0, &[2, 0, 0, 0, 2, 0, 0, 0], &PAGE), "must ascend"),
        ("descriptor", identify(0x03, 0, &[3, 16, 0, 0, 1], &PAGE), "announces 16 bytes where 1 are left"),
        ("formats", identify(0x20, 0, &[9, 0, 0, 0], &PAGE), "20"),
    ];
    for (name, structure, said) in rows {
        assert!(
            structure.problems.iter().any(|problem| problem.contains(said)),
            "{name}: {:?}",
            structure.problems
        );
    }
}

#[test]
fn malformed_states_are_named_and_decoded_as_far_as_they_go() {
    let image = vector!("controller-state-scen-01.hex");
    let with = |at: usize, value: u8| {
        let mut image = image.clone();
        image[at] = value;
        image
    };
    let rows = [
        ("short header", image[..20].to_vec(), 0, "20"),
        ("cut in a queue", image[..48 + 8 + 30].to_vec(), 1, "86"),
        ("recorded, cut short", vector!("controller-state-2q-kernel-driver.hex"), 2, "104"),
        ("unknown version", with(0, 7), 0, "7"),
        ("unknown state version", with(48, 7), 0, "7"),
        ("too many queues", with(50, 200), 4, "200"),
        ("size of 2^127 dwords", with(31, 0x80), 2, ""),
        ("reserved byte", with(3, 1), 2, ""),
    ];
    for (name, image, queues, said) in rows {
        let structure = controller_state(&image, StateDialect::Specification);
        assert_eq!(structure.problems.len(), 1, "{name}: {:?}", structure.problems);
        assert!(structure.problems[0].contains(said), "{name}: {:?}", structure.problems);
        assert_eq!(structure.list("IOSQ").len(), queues, "{name}");
    }
}

#[test]
fn every_changed_byte_is_one_difference_at_its_place() {
    let image = vector!("controller-state-scen-01.hex");
    let state = |image: &[u8]| controller_state(image, StateDialect::NextPostPhase);
    let original = state(&image);
    assert_eq!(diff(&original, &original), []);
    // Sizes, counts and versions move what follows; every other byte is one field.
    let moves = |at: usize| matches!(at, 0..2 | 16..54);
    let mut seen = std::collections::BTreeSet::new();
    for at in (0..image.len()).filter(|at| !moves(*at)) {
        let mut changed = image.clone();
        changed[at] ^= 0x41;
        let differences = diff(&original, &state(&changed));
        assert_eq!(differences.len(), 1, "byte {at}: {differences:?}");
        assert_ne!(differences[0].left, differences[0].right, "byte {at}");
        seen.insert(differences[0].path.clone());
    }
    for path in ["CSATTR", "IOSQ1.IOSQTP", "IOSQ2.IOSQCQID", "IOCQ1.IOCQA", "IOCQ2.IOCQPRP1"] {
        assert!(seen.contains(path), "{path} is not among {seen:?}");
    }
}

#[test]
fn a_queue_that_only_one_side_has_is_named() {
    let two = controller_state(&vector!("controller-state-scen-01.hex"), StateDialect::NextPostPhase);
    let mut one = two.clone();
    for list in &mut one.lists {
        list.items.remove(0);
    }
    let differences = diff(&two, &one);
    let said: Vec<_> = differences.iter().map(|entry| (entry.path.as_str(), entry.right.is_some())).collect();
    assert_eq!(said, [("IOSQ1", false), ("IOCQ1", false)]);
    let mut text = Vec::new();
    render_differences(&differences, &mut text, Style::default()).unwrap();
    let text = String::from_utf8(text).unwrap();
    assert!(text.contains("IOCQ1") && text.contains("absent"), "{text}");
}

fn tables() -> Vec<&'static Table> {
    let all = [
        controller::TABLES,
        entry::TABLES,
        feature::TABLES,
        identify::TABLES,
        log::TABLES,
        log_more::TABLES,
        namespace::TABLES,
        state::TABLES,
    ];
    all.concat()
}

#[test]
fn no_field_of_any_table_overlaps_another_or_leaves_its_structure() {
    for table in tables() {
        let rows = table.rows.iter().map(|row| (row.at, row.at + row.length, row.name));
        let groups = table.groups.iter().map(|group| (group.at, group.end(), group.name));
        let mut ranges: Vec<_> = rows.chain(groups).collect();
        let names: std::collections::BTreeSet<_> = ranges.iter().map(|(_, _, name)| *name).collect();
        assert_eq!(names.len(), ranges.len(), "{}: a name occurs twice", table.title);
        assert!(names.iter().all(|name| name.starts_with(|c: char| c.is_ascii_uppercase())), "{names:?}");
        assert!(table.rows.is_sorted_by_key(|row| row.at), "{}", table.title);
        ranges.sort_unstable();
        for pair in ranges.windows(2) {
            assert!(pair[0].1 <= pair[1].0, "{}: {} and {} overlap", table.title, pair[0].2, pair[1].2);
        }
        if let Some((_, end, name)) = ranges.last() {
            assert!(*end <= table.bytes, "{}: {name} ends at {end} of {}", table.title, table.bytes);
        }
        for row in table.rows {
            sound_bits(&format!("{} {}", table.title, row.name), row.length as u32 * 8, row.bits);
        }
    }
    for (name, width, parts) in registers::tables() {
        sound_bits(name, width, parts);
    }
    for (name, width, parts) in feature::bit_tables() {
        sound_bits(&name, width, parts);
    }
}

fn sound_bits(name: &str, width: u32, parts: &[table::Bits]) {
    let mut next = 0;
    let names: std::collections::BTreeSet<_> = parts.iter().map(|part| part.name).collect();
    assert_eq!(names.len(), parts.len(), "{name}: a bit field's name occurs twice");
    for part in parts {
        assert!(next <= u32::from(part.low) && part.low <= part.high, "{name}: {} overlaps", part.name);
        next = u32::from(part.high) + 1;
        assert!(next <= width, "{name}: {} ends at bit {next} of {width}", part.name);
    }
}

/// Every byte of the data is in exactly one field.
fn covered(structure: &Structure, base: usize, marks: &mut [u8]) {
    for field in &structure.fields {
        if let Place::Bytes { offset, length } = field.place {
            for mark in &mut marks[base + offset..base + offset + length] {
                *mark += 1;
            }
        }
    }
}

#[test]
fn no_byte_is_left_out() {
    for table in tables() {
        let data = vec![0xA5; table.bytes + 7];
        let structure = table.decode(&data, &PAGE);
        let mut marks = vec![0; data.len()];
        covered(&structure, 0, &mut marks);
        for (list, group) in structure.lists.iter().zip(table.groups) {
            for (index, item) in list.items.iter().enumerate() {
                covered(item, group.at + index * group.table.bytes, &mut marks);
            }
        }
        let missed = marks.iter().position(|mark| *mark != 1);
        assert_eq!(missed, None, "{}: a byte is in no field or in two", table.title);
    }
}

fn shown(structure: &Structure, all: bool) -> String {
    let mut text = Vec::new();
    render(structure, &mut text, Style { all, ..Style::default() }).unwrap();
    String::from_utf8(text).unwrap()
}

#[test]
fn zero_fields_are_hidden_unless_all_are_asked_for() {
    let manager = identify(0x01, 0, &vector!("identify-controller-manager.hex"), &PAGE);
    let (brief, all) = (shown(&manager, false), shown(&manager, true));
    assert!(brief.contains("HMLMS") && !brief.contains("reserved_") && !brief.contains("FGUID"), "{brief}");
    assert!(all.contains("FGUID") && all.contains("reserved_"), "{all}");
    for line in brief.lines() {
        assert!(line.chars().count() <= 110 + 12, "{line}");
    }
}

#[test]
fn a_state_is_printed_in_columns() {
    let state = controller_state(&vector!("controller-state-1q-vf.hex"), StateDialect::Specification);
    let expected = "\
\u{1b}[1mController State\u{1b}[0m: of a suspended controller
 VER         0    Version of the structure
 CSATTR      0x1  Controller State Attributes
   CSUSP     1    Controller Suspended
 NVMECSS     14   NVMe Controller State Size in dwords: 56 bytes
 VSS         0    Vendor Specific Size in dwords: none
 NVMECS_VER  0    Version of the NVMe Controller State
 NIOSQ       1    Number of I/O Submission Queues
 NIOCQ       1    Number of I/O Completion Queues

\u{1b}[1mI/O submission queues\u{1b}[0m
        IOSQPRP1  IOSQQSIZE  IOSQQID  IOSQCQID  IOSQA  IOSQHP  IOSQTP
 IOSQ1   0xd7000         63        1         1    0x1       1       2  64 slots, 1 command to fetch

\u{1b}[1mI/O completion queues\u{1b}[0m
        IOCQPRP1  IOCQQSIZE  IOCQQID  IOCQHP  IOCQTP  IOCQA
 IOCQ1   0x96000         63        1       1       1    0x5  all consumed, no interrupts, next phase 1
";
    assert_eq!(shown(&state, false), expected);
}

#[test]
fn of_long_data_the_first_difference_is_shown() {
    let mut image = vec![0; 48 + 4096];
    image[33] = 4;
    let left = controller_state(&image, StateDialect::Specification);
    image[48 + 0x123] = 0xAB;
    let differences = diff(&left, &controller_state(&image, StateDialect::Specification));
    assert_eq!(differences.iter().map(|entry| entry.path.as_str()).collect::<Vec<_>>(), ["VSD"]);
    let mut text = Vec::new();
    render_differences(&differences, &mut text, Style::default()).unwrap();
    let text = String::from_utf8(text).unwrap();
    assert!(text.contains("differs first at 0x123"), "{text}");
    assert!(text.contains("0120: 000000ab 00000000"), "{text}");
    assert!(text.lines().count() < 8 && text.lines().all(|line| line.chars().count() <= 110), "{text}");
}

#[test]
fn json_is_keyed_by_name() {
    let manager = identify(0x01, 0, &vector!("identify-controller-manager.hex"), &PAGE);
    let json = serde_json::to_value(&manager).unwrap();
    assert_eq!(json["MDTS"]["value"], 7);
    assert_eq!(json["MDTS"]["meaning"], "512 KiB (524,288 bytes)");
    assert_eq!(json["OACS"]["bits"]["HMLMS"]["value"], 1);
    assert_eq!(json["SN"]["value"], "SER-subC");
    let mut page = [0; 4096];
    page[280..296].fill(0xFF);
    let json = serde_json::to_value(identify(0x01, 0, &page, &PAGE)).unwrap();
    assert_eq!(json["TNVMCAP"]["value"], u128::MAX.to_string());
}

#[test]
fn text_of_a_device_cannot_steer_a_terminal() {
    let mut page = [0; 4096];
    page[4..24]
        .copy_from_slice("\u{1b}[2J\u{9b}31m\\x\u{202e}abc    ".as_bytes().first_chunk::<20>().unwrap());
    let structure = identify(0x01, 0, &page, &PAGE);
    let text = structure.field("SN").unwrap().value.to_string();
    assert!(text.chars().all(|character| !character.is_control() && character != '\u{202e}'), "{text:?}");
    assert!(text.starts_with("\\u{1b}[2J\\u{9b}31m\\\\x\\u{202e}"), "{text:?}");
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

// SPDX-License-Identifier: MIT OR Apache-2.0
//! Log pages decode, and what does not fit is named.

use super::*;

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

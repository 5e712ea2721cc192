// SPDX-License-Identifier: MIT OR Apache-2.0
//! What is printed, and what becomes JSON.

use super::*;

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
fn of_long_data_the_lines_that_differ_are_shown() {
    let mut image = vec![0; 48 + 4096];
    image[33] = 4;
    let left = controller_state(&image, StateDialect::Specification);
    // Each row changes a byte more.
    let rows = [
        (0x123, "differs first at 0x123", "0120: 000000ab 00000000"),
        (0x124, "differs first at 0x123", "0120: 000000ab ab000000"),
        (0x7FF, "differs first at 0x123", "07f8: 00000000 000000ab"),
        (0xFFF, "differs first at 0x123", "0ff8: 00000000 000000ab"),
    ];
    let shown = |image: &[u8]| {
        let differences = diff(&left, &controller_state(image, StateDialect::Specification));
        assert_eq!(differences.iter().map(|entry| entry.path.as_str()).collect::<Vec<_>>(), ["VSD"]);
        let mut text = Vec::new();
        let style = Style { width: 200, ..Style::default() };
        render_differences(&differences, &mut text, style).unwrap();
        String::from_utf8(text).unwrap()
    };
    for (at, first, line) in rows {
        image[48 + at] = 0xAB;
        let text = shown(&image);
        assert!(text.contains(first) && text.contains(line) && !text.contains("more lines"), "{text}");
        assert!(text.lines().count() < 8 && text.lines().all(|line| line.chars().count() <= 200), "{text}");
    }
    image[48 + 0x200..48 + 0x280].fill(1);
    let text = shown(&image);
    assert!(text.contains("11 more lines of 8 bytes differ"), "{text}");
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

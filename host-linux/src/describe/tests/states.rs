// SPDX-License-Identifier: MIT OR Apache-2.0
//! Malformed states, and differences between two.

use super::*;

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

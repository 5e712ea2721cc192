// SPDX-License-Identifier: MIT OR Apache-2.0
//! Each requirement of live migration on queues and on us has a test that is named after it.
//!
//! A test shows R9 if its name begins with `r9_`, and R1 and R3 if it begins with `r1_r3_`.
//!
//! | Number | What is required |
//! |---|---|
//! | R1 | every migration command goes to the managing controller's admin queue; managing and tracked controller are different types |
//! | R2 | an SR-IOV virtual function is one topology among several |
//! | R3 | the tracked controller is resolved explicitly, and never is the managing one |
//! | R4 | the managing controller's admin queue is shared: one head update under way for each queue, and none starves others |
//! | R5 | the steps map onto running, stopped, copied and resumed |
//! | R6 | the estimate of what is left starts above zero and reaches zero |
//! | R7 | what Suspend quiesces is said |
//! | R8 | cancelling and failing are defined at every step |
//! | R9 | Suspend drains what was fetched, and the log is read up to the entry that closes it |
//! | R10 | the destination is suspended before it takes state, and both sides never run at once |
//! | R11 | copying namespaces is apart from the controller's state, and optional |
//! | R12 | a baseline by allocation where it is known, then every kind of change |
//! | R13 | overflow is a mode: everything is copied again, and nothing from before counts |
//! | R14 | convergence is estimated, limited, and told |
//! | R15 | changes of host memory are a second log |
//! | R16 | memory of a queue belongs to the controller until it is certain to have let go |
//! | R17 | state formats are found and matched by value |
//! | R18 | states of unknown size travel in parts |
//! | R19 | every field of a state image is checked |
//! | R20 | deviations of controllers are a table |
//! | R21 | addresses in an image pass through unchanged |
//! | R22 | migration commands are for those who control the IOMMU |
//! | R23 | readers get decoded entries of one tracked controller |

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

const REQUIREMENTS: std::ops::RangeInclusive<u32> = 1..=23;

/// Requirements that a test function's name begins with.
fn shown_by(name: &str) -> Vec<u32> {
    let number = |part: &str| part.strip_prefix('r').and_then(|digits| digits.parse().ok());
    name.split('_').map_while(number).collect()
}

/// Names of the test functions in a source text that run in an ordinary test run, each with its line number.
fn tests_in(text: &str) -> Vec<(usize, &str)> {
    let mut tests = Vec::new();
    let mut attributes = Vec::new();
    for (number, line) in (1..).zip(text.lines().map(str::trim)) {
        if line.starts_with("#[") {
            attributes.push(line);
        } else if let Some(rest) = line.strip_prefix("fn ") {
            if attributes.contains(&"#[test]") && !attributes.iter().any(|line| line.starts_with("#[ignore"))
            {
                tests.push((number, rest.split(['(', '<']).next().unwrap_or(rest)));
            }
            attributes.clear();
        } else if !line.is_empty() && !line.starts_with("//") {
            attributes.clear();
        }
    }
    tests
}

/// Source files below `folder`, build output left out.
fn sources(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).expect("a folder of the workspace") {
        let path = entry.expect("an entry").path();
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        if path.is_dir() && name != "target" && !name.starts_with('.') {
            sources(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
}

#[test]
fn every_requirement_has_a_test_named_after_it() {
    let workspace = Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the workspace's folder");
    let mut files = Vec::new();
    sources(workspace, &mut files);
    let mut shown: BTreeMap<u32, Vec<String>> = REQUIREMENTS.map(|number| (number, Vec::new())).collect();
    for path in files {
        let text = fs::read_to_string(&path).expect("a source file");
        let file = path.strip_prefix(workspace).expect("it was found below").display();
        for (line, name) in tests_in(&text) {
            for number in shown_by(name) {
                let place = format!("{file}:{line}: {name}");
                shown
                    .get_mut(&number)
                    .unwrap_or_else(|| panic!("{place}: there is no R{number}"))
                    .push(place);
            }
        }
    }
    for (number, tests) in &shown {
        println!("R{number}: {} tests", tests.len());
        for place in tests {
            println!("  {place}");
        }
    }
    let missing: Vec<_> =
        shown.iter().filter(|(_, tests)| tests.is_empty()).map(|(number, _)| number).collect();
    assert!(missing.is_empty(), "requirements without a test named after them: {missing:?}");
}

#[test]
fn names_are_understood() {
    let table: [(&str, &[u32]); 6] = [
        ("r9_suspends", &[9]),
        ("r1_r3_names", &[1, 3]),
        ("r10_r16_r8_fails", &[10, 16, 8]),
        ("reads_r9_things", &[]),
        ("r_nothing", &[]),
        ("a_read_of_r2", &[]),
    ];
    for (name, numbers) in table {
        assert_eq!(shown_by(name), numbers, "{name}");
    }
    let text = "#[test]\nfn r1_a() {\n}\nfn r2_helper() {}\n#[test]\n// why\n#[should_panic]\nfn r3_b<T>() {}\n\
        #[test]\n#[ignore = \"slow\"]\nfn r4_c() {}\n#[test]\nlet x;\nfn r5_d() {}\n";
    assert_eq!(tests_in(text), [(2, "r1_a"), (8, "r3_b")]);
}

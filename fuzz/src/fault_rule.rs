// SPDX-License-Identifier: MIT OR Apache-2.0
//! The text of fault rules.

use nvme_controller::fault::FaultRule;
use nvme_host_linux::faults::FaultOption;
use nvme_host_linux::journal::Side;

/// Reads a rule, prints it, reads it again; then as the option `--fault` takes it.
///
/// # Panics
/// A property does not hold.
pub fn run(bytes: &[u8]) {
    let Ok(text) = core::str::from_utf8(bytes) else { return };
    match FaultRule::parse(text) {
        Ok(rule) => {
            let printed = rule.to_string();
            let again = FaultRule::parse(&printed);
            assert_eq!(again, Ok(rule), "{text:?} is printed as {printed:?}");
            assert_eq!(again.map(|rule| rule.to_string()), Ok(printed), "printing is not stable");
        }
        Err(error) => {
            assert!(error.position <= text.len(), "{text:?}: {error:?} points behind the text");
            assert!(text.is_char_boundary(error.position), "{text:?}: {error:?} points into a character");
            assert!(!error.to_string().is_empty());
        }
    }
    option(text);
}

/// The side goes before the rule, and what is wrong is marked where it is.
fn option(text: &str) {
    for (prefix, side) in
        [("", None), ("source:", Some(Side::Source)), ("destination:", Some(Side::Destination))]
    {
        let whole = format!("{prefix}{text}");
        let rule = FaultRule::parse(text);
        match (FaultOption::parse(&whole), rule) {
            (Ok(option), Ok(rule)) => {
                assert_eq!((option.side, option.rule), (side.unwrap_or(Side::Source), rule), "{whole:?}");
            }
            // The text has a side of its own.
            (Ok(_), Err(_)) => assert!(side.is_none() && text.contains(':'), "{whole:?}"),
            (Err(bad), rule) => {
                assert!(rule.is_err(), "{whole:?}: {bad}");
                assert!(!bad.to_string().is_empty());
                caret(&whole, &bad.marked());
            }
        }
    }
}

/// The text on one line, the caret on the next, under a character of the text or right behind it.
fn caret(text: &str, marked: &str) {
    let lines: Vec<&str> = marked.split('\n').collect();
    let [shown, below] = lines[..] else { panic!("{} lines for {text:?}", lines.len()) };
    assert_eq!(shown.chars().count(), text.chars().count() + 2, "{marked}");
    assert!(!shown.chars().any(char::is_control), "{marked:?}");
    let at = below.chars().count();
    assert!(
        below.trim_start_matches(' ') == "^" && (3..=shown.chars().count() + 1).contains(&at),
        "{marked}"
    );
}

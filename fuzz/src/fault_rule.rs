// SPDX-License-Identifier: MIT OR Apache-2.0
//! The text of fault rules.

use nvme_controller::fault::FaultRule;

/// Reads a rule, prints it, reads it again.
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
}

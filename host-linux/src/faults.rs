// SPDX-License-Identifier: MIT OR Apache-2.0
//! Fault rules on the command line: whose controllers misbehave, and how.

use std::error::Error;
use std::fmt;

use nvme_controller::fault::{FaultRule, FaultRuleError};

use crate::journal::Side;

/// A fault rule for the controllers of one side.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FaultOption {
    /// Whose controllers.
    pub side: Side,
    /// What they do wrong.
    pub rule: FaultRule,
}

impl FaultOption {
    /// Reads `[source:|destination:]RULE`; without a side it is the source.
    ///
    /// # Errors
    /// [`BadFault`] naming what is wrong, and where.
    pub fn parse(text: &str) -> Result<Self, BadFault> {
        let (side, rule) = match text.split_once(':') {
            Some(("source", rule)) => (Side::Source, rule),
            Some(("destination", rule)) => (Side::Destination, rule),
            _ => (Side::Source, text),
        };
        let before = text.len() - rule.len();
        let at = |error: FaultRuleError| FaultRuleError { position: before + error.position, ..error };
        let rule =
            FaultRule::parse(rule).map_err(|error| BadFault { text: text.into(), error: at(error) })?;
        Ok(Self { side, rule })
    }
}

/// A text that is no fault rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BadFault {
    text: String,
    error: FaultRuleError,
}

impl BadFault {
    /// The text, and below it a caret under what is wrong.
    #[must_use]
    pub fn marked(&self) -> String {
        // What a terminal would not show as one column must not move the caret.
        let plain =
            |text: &str| text.chars().map(|c| if c.is_control() { '?' } else { c }).collect::<String>();
        let before = self.text.get(..self.error.position).unwrap_or(&self.text);
        format!("  {}\n  {}^", plain(&self.text), " ".repeat(before.chars().count()))
    }
}

impl fmt::Display for BadFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.error.fmt(f)
    }
}

impl Error for BadFault {}

/// What limits a rule, for a list.
pub(crate) const CONDITIONS: &[(&str, &str)] = &[
    (
        "controller=ID",
        "only at this controller: 1 manages, 2 is the guest's at the source, 7 at the destination",
    ),
    ("queue=any|admin|io|ID", "only on commands of these submission queues"),
    ("opcode=HH", "only on commands with this opcode, two hexadecimal digits"),
    ("dwN=VALUE[/MASK]", "only on commands with this dword N (0 to 15), hexadecimal; four at most"),
    ("nth=N", "only on occurrence N, the first is 1; with every from it on"),
    ("every=N", "only on each occurrence at this distance"),
    ("times=N", "so often at most"),
    ("ppm=N", "with this probability, in parts per million"),
    ("seed=N", "deciding probability and data by this number"),
];

#[cfg(test)]
mod tests {
    use super::*;
    use nvme_controller::fault::{FaultAction, QueueMatch};

    #[test]
    fn the_side_stands_before_the_rule() {
        let rule = FaultRule::new(FaultAction::Drop).on(QueueMatch::Io);
        let table = [
            ("drop,queue=io", Side::Source),
            ("source:drop,queue=io", Side::Source),
            ("destination:drop,queue=io", Side::Destination),
        ];
        for (text, side) in table {
            assert_eq!(FaultOption::parse(text), Ok(FaultOption { side, rule }), "{text}");
        }
    }

    #[test]
    fn the_caret_stands_under_what_is_wrong() {
        let table = [
            ("drop,nth=0", "  drop,nth=0\n           ^"),
            ("destination:dropp", "  destination:dropp\n              ^"),
            ("both:drop", "  both:drop\n  ^"),
            ("drop,größe=1,x=1", "  drop,größe=1,x=1\n       ^"),
            ("drop,seed=ö", "  drop,seed=ö\n            ^"),
            ("drop,\tnth=0", "  drop,?nth=0\n       ^"),
            ("", "  \n  ^"),
        ];
        for (text, marked) in table {
            assert_eq!(FaultOption::parse(text).expect_err(text).marked(), marked, "{text}");
        }
    }
}

// SPDX-License-Identifier: MIT OR Apache-2.0
//! The list as a test program: each case is a test of its own name.

use libtest_mimic::{Arguments, Completion, Conclusion, Failed, Trial};

use super::{Backend, CASES, Verdict, run};

/// What becomes of a case that does not apply.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Applicability {
    /// It fails: the back end must give everything.
    Required,
    /// It is reported as ignored, with the reason.
    Reported,
}

/// Runs the list on `backend` as the arguments of the program say (those of any Rust test program).
pub fn run_list(backend: &'static (dyn Backend + Sync), applicability: Applicability) -> Conclusion {
    let trials = CASES
        .iter()
        .map(|case| {
            let test = move || match run(case, backend) {
                Verdict::Passed => Ok(Completion::Completed),
                Verdict::NotApplicable(reason) if applicability == Applicability::Reported => {
                    Ok(Completion::ignored_with(reason))
                }
                Verdict::NotApplicable(reason) => Err(Failed::from(format!("not applicable: {reason}"))),
                Verdict::Failed(message) => Err(Failed::from(message)),
            };
            Trial::ignorable_test(case.name, test).with_kind(case.family.to_string())
        })
        .collect();
    libtest_mimic::run(&Arguments::from_args(), trials)
}

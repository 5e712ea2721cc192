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

/// The list on one back end.
#[derive(Clone, Copy)]
pub struct Listed {
    /// Before the name of each case.
    pub prefix: &'static str,
    /// Where it is run.
    pub backend: &'static (dyn Backend + Sync),
    /// What becomes of cases that do not apply.
    pub applicability: Applicability,
}

impl Listed {
    fn trials(self) -> impl Iterator<Item = Trial> {
        CASES.iter().map(move |case| {
            let test = move || match run(case, self.backend) {
                Verdict::Passed => Ok(Completion::Completed),
                Verdict::NotApplicable(reason) if self.applicability == Applicability::Reported => {
                    Ok(Completion::ignored_with(reason))
                }
                Verdict::NotApplicable(reason) => Err(Failed::from(format!("not applicable: {reason}"))),
                Verdict::Failed(message) => Err(Failed::from(message)),
            };
            Trial::ignorable_test(format!("{}{}", self.prefix, case.name), test)
                .with_kind(case.family.to_string())
        })
    }
}

/// Runs the list on `backend` as the arguments of the program say (those of any Rust test program).
pub fn run_list(backend: &'static (dyn Backend + Sync), applicability: Applicability) -> Conclusion {
    run_lists(&[Listed { prefix: "", backend, applicability }])
}

/// Runs the list on several back ends, as [`run_list`] does.
pub fn run_lists(lists: &[Listed]) -> Conclusion {
    libtest_mimic::run(&Arguments::from_args(), lists.iter().copied().flat_map(Listed::trials).collect())
}

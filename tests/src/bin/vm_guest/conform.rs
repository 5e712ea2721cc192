// SPDX-License-Identifier: MIT OR Apache-2.0
//! The conformance list on the machine's controllers: cases of the driver pass, or do not apply for a reason that the
//! controller gives.

use std::time::Instant;

use nvme_host_linux::address::PciAddress;
use nvme_tests::conformance::vfio::Vfio;
use nvme_tests::conformance::{CASES, Family, Verdict, run as run_case};

use super::{Failure, doing, machine};

/// Cases of the driver when this was written. One that goes has to be taken off here.
const LEAST: usize = 24;

/// Runs the list on every function.
pub(crate) fn run() -> Result<(), Failure> {
    doing("loading modules", machine::load_modules())?;
    let functions = doing("looking for NVMe functions", machine::nvme_functions())?;
    if functions.is_empty() {
        return Err("there is no NVMe function".to_owned());
    }
    let mut failed = Vec::new();
    for function in functions {
        failed.extend(run_on(function)?);
    }
    if failed.is_empty() { Ok(()) } else { Err(format!("cases failed: {}", failed.join(", "))) }
}

/// Runs the list on one function. Returns the names of the cases that failed.
fn run_on(function: PciAddress) -> Result<Vec<String>, Failure> {
    doing("binding to vfio-pci", machine::bind(function))?;
    let backend = doing("opening the function", Vfio::open(function))?;
    let (mut passed, mut other, mut failed) = (0, 0, Vec::new());
    for case in CASES.iter().filter(|case| case.family == Family::Driver) {
        let begin = Instant::now();
        let verdict = run_case(case, &backend);
        let took = begin.elapsed().as_millis();
        match verdict {
            Verdict::Passed => {
                passed += 1;
                println!("{function} {}: passed, {took} ms", case.name);
            }
            Verdict::NotApplicable(reason) => {
                other += 1;
                println!("{function} {}: does not apply: {reason}", case.name);
            }
            Verdict::Failed(message) => {
                println!("{function} {}: FAILED: {message}, {took} ms", case.name);
                failed.push(format!("{} on {function}", case.name));
            }
        }
    }
    println!(
        "{function}: {passed} cases of the driver passed, {other} do not apply, {} failed",
        failed.len()
    );
    if passed + other + failed.len() < LEAST || passed == 0 {
        return Err(format!("too few cases of the driver; there were {LEAST}"));
    }
    // A raw case makes its own subsystem.
    for case in CASES.iter().filter(|case| case.family == Family::Raw) {
        match run_case(case, &backend) {
            Verdict::NotApplicable(reason) => println!("{function} {}: does not apply: {reason}", case.name),
            verdict => failed.push(format!("{} on {function} ({verdict:?})", case.name)),
        }
    }
    Ok(failed)
}

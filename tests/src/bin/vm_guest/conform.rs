// SPDX-License-Identifier: MIT OR Apache-2.0
//! The conformance list on the machine's controllers: each case of the driver passes; each raw case needs a subsystem made
//! for it, which the machine has not, and says so.

use std::time::Instant;

use nvme_host_linux::address::PciAddress;
use nvme_tests::conformance::vfio::Vfio;
use nvme_tests::conformance::{CASES, Family, Verdict, run as run_case};

use super::{Failure, doing, machine};

/// Cases of the driver, all of which apply to QEMU's controller. One that comes or goes has to be counted here.
const DRIVER_CASES: usize = 26;
/// Why raw cases do not apply. Whatever else a case says about itself is a failure.
const NO_TOPOLOGY: &str = "not to be had: a subsystem of the described topology: the function is as it is";

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
    let (mut passed, mut raw, mut failed) = (0, 0, Vec::new());
    for case in CASES {
        let begin = Instant::now();
        let verdict = run_case(case, &backend);
        let took = begin.elapsed().as_millis();
        match (case.family, verdict) {
            (Family::Driver, Verdict::Passed) => {
                passed += 1;
                println!("{function} {}: passed, {took} ms", case.name);
            }
            (Family::Raw, Verdict::NotApplicable(reason)) if reason == NO_TOPOLOGY => {
                raw += 1;
                println!("{function} {}: does not apply: {reason}", case.name);
            }
            (_, verdict) => {
                println!("{function} {}: FAILED: {verdict:?}, {took} ms", case.name);
                failed.push(format!("{} on {function}", case.name));
            }
        }
    }
    println!(
        "{function}: {passed} cases of the driver passed, {raw} raw ones do not apply, {} failed",
        failed.len()
    );
    if failed.is_empty() && passed != DRIVER_CASES {
        return Err(format!("{passed} cases of the driver, where {DRIVER_CASES} are known"));
    }
    Ok(failed)
}

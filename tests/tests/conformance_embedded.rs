// SPDX-License-Identifier: MIT OR Apache-2.0
//! The conformance list on the embedded subsystem, where every case must apply.

use nvme_tests::conformance::Embedded;
use nvme_tests::conformance::runner::{Applicability, run_list};

fn main() {
    run_list(&Embedded, Applicability::Required).exit();
}

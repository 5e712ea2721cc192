// SPDX-License-Identifier: MIT OR Apache-2.0
//! The conformance list over vfio-user sockets against a second process, where every case must apply: once with
//! doorbells in shared memory and once with doorbells by messages.

use nvme_tests::conformance::CASES;
use nvme_tests::conformance::runner::{Applicability, Listed, run_lists};
use nvme_tests::conformance::vfio_user::VfioUser;

const PROGRAM: &str = env!("CARGO_BIN_EXE_vfio_user_peer");
static SHARED: VfioUser = VfioUser { program: PROGRAM, share_doorbells: true };
static MESSAGES: VfioUser = VfioUser { program: PROGRAM, share_doorbells: false };
/// Cases of the list when it was last added to. A case that goes has to be taken off here.
const LEAST: usize = 182;

fn main() {
    let listed = |prefix, backend| Listed { prefix, backend, applicability: Applicability::Required };
    let conclusion =
        run_lists(&[listed("shared doorbells: ", &SHARED), listed("doorbells by messages: ", &MESSAGES)]);
    let ran = conclusion.num_passed + conclusion.num_failed + conclusion.num_ignored;
    if conclusion.num_filtered_out == 0 && ran != 0 && !conclusion.has_failed() {
        assert!(CASES.len() >= LEAST, "the list has {} cases; it had {LEAST}", CASES.len());
        assert_eq!(conclusion.num_passed, 2 * CASES.len() as u64, "every case passes on both");
    }
    conclusion.exit();
}

// SPDX-License-Identifier: MIT OR Apache-2.0
//! The second process of the conformance list over vfio-user sockets.

fn main() {
    nvme_tests::conformance::vfio_user::peer::main();
}

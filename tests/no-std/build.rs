// SPDX-License-Identifier: MIT OR Apache-2.0
//! Links without start files, standard libraries or dynamic linking, so that anything that needs them is an error;
//! not position independent, because nothing would relocate it.

fn main() {
    for argument in ["-nostdlib", "-nostartfiles", "-static", "-no-pie"] {
        println!("cargo::rustc-link-arg-bins={argument}");
    }
}

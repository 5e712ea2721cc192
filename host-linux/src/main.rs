// SPDX-License-Identifier: MIT OR Apache-2.0
//! Live migration of NVMe namespaces.

use std::process::ExitCode;

fn main() -> ExitCode {
    nvme_host_linux::cli::main(std::env::args_os())
}

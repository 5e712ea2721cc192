// SPDX-License-Identifier: MIT OR Apache-2.0
//! The whole user space of a virtual machine: started as `/init` with nothing but kernel modules beside it, it binds the
//! machine's NVMe functions to vfio-pci, drives them, and ends the machine with a verdict.
//!
//! The verdict is QEMU's exit status, by its device `isa-debug-exit`: 33 if everything was as it should be, 35 if not. The
//! console tells what was done.

mod drive;
mod machine;
mod sys;

use std::fmt::Display;
use std::process::ExitCode;

use nvme_host_linux::address::PciAddress;
use nvme_host_linux::memory::Capacity;
use nvme_host_linux::vfio::{Container, Error, OpenOptions, VfioController};

/// What is written to the port of `isa-debug-exit`; QEMU's exit status is twice that plus one.
const GOOD: u8 = 16;
const BAD: u8 = 17;

/// What went wrong, as text.
type Failure = String;

/// Says what was being done.
fn doing<T, E: Display>(what: &str, result: Result<T, E>) -> Result<T, Failure> {
    result.map_err(|error| format!("{what}: {error}"))
}

/// Checks that something is refused as it should be.
fn refused<T>(
    what: &str,
    result: Result<T, Error>,
    expected: impl Fn(&Error) -> bool,
) -> Result<(), Failure> {
    match result {
        Err(error) if expected(&error) => {
            println!("refused, as it should be, {what}: {error}");
            Ok(())
        }
        Err(error) => Err(format!("{what} is refused for another reason: {error}")),
        Ok(_) => Err(format!("{what} is not refused")),
    }
}

fn run() -> Result<(), Failure> {
    doing("setting up the system", machine::prepare())?;
    refused("without VFIO in the kernel", Container::new(), |error| matches!(error, Error::NoVfio(_)))?;
    doing("loading modules", machine::load_modules())?;
    let functions = doing("looking for NVMe functions", machine::nvme_functions())?;
    println!("NVMe functions: {}", functions.iter().map(ToString::to_string).collect::<Vec<_>>().join(", "));
    if functions.len() != 2 {
        return Err(format!("{} NVMe functions where 2 are needed", functions.len()));
    }
    let options = OpenOptions::default();
    let container = doing("making a container", Container::new())?;
    refused("a function of another driver", container.open(functions[0], &options), |error| {
        matches!(error, Error::NotBound { .. })
    })?;
    let nowhere: PciAddress = doing("an address", "0000:ff:1f.7".parse())?;
    refused("a function that is not there", container.open(nowhere, &options), |error| {
        *error == Error::NoFunction(nowhere)
    })?;
    for function in &functions {
        doing("binding to vfio-pci", machine::bind(*function))?;
    }
    let capacity = Capacity { queues: 8 << 20, data: 16 << 20, controller_data: 1 << 20 };
    refused("memory before a function", container.create("early", capacity), |error| {
        *error == Error::NoFunctionYet
    })?;
    let opened: Result<Vec<VfioController>, Error> =
        functions.iter().map(|function| container.open(*function, &options)).collect();
    let controllers = doing("opening both functions in one container", opened)?;
    let other = doing("making another container", Container::new())?;
    refused("a function that is open elsewhere", other.open(functions[0], &options), |error| {
        matches!(error, Error::InUse(_))
    })?;
    let limits = doing("asking for the IOMMU's limits", container.limits())?;
    println!(
        "IOMMU: page sizes {:#x}, {:x?}, {:?} mappings left",
        limits.page_sizes, limits.ranges, limits.mappings_left
    );
    for controller in &controllers {
        println!(
            "{}: group {:?}, {} vectors, {:#x} bytes of registers, reset {}",
            controller.function().address,
            controller.function().group,
            controller.interrupt_vectors(),
            controller.register_space(),
            controller.has_reset(),
        );
        let memory = doing("mapping memory", container.create("nvme", capacity))?;
        println!("mapped {:x?}", memory.windows());
        for waiting in [drive::Waiting::Interrupts, drive::Waiting::Polling] {
            doing(&format!("driving by {waiting:?}"), drive::drive(controller, memory.space(), waiting))?;
        }
        doing("detaching", controller.detach())?;
    }
    let before = doing("asking for the IOMMU's limits", container.limits())?;
    if before.mappings_left != limits.mappings_left {
        return Err(format!("{:?} mappings left after everything was unmapped", before.mappings_left));
    }
    Ok(())
}

fn main() -> ExitCode {
    let verdict = match run() {
        Ok(()) => {
            println!("PASSED");
            GOOD
        }
        Err(failure) => {
            println!("FAILED: {failure}");
            BAD
        }
    };
    sys::exit_machine(verdict);
    // Without the device there is nothing to tell the verdict to; the kernel panics when its first process ends.
    ExitCode::FAILURE
}

// SPDX-License-Identifier: MIT OR Apache-2.0
//! The user space of a virtual machine: started as `/init` with kernel modules and a few tools beside it, it runs the part
//! that its argument names, and ends the machine with a verdict.
//!
//! | Part | |
//! |---|---|
//! | `drive` | binds the machine's NVMe functions to vfio-pci and drives them, on a kernel with modules and without iommufd |
//! | `iommufd` | the same on a kernel with iommufd, by that and by type 1 |
//! | `program type1`, `program iommufd` | runs the commands of `nvme-lm` on a controller and on a virtual function |
//! | `conform` | runs the cases of the driver of the conformance list |
//! | `tools` | compares what nvme-cli and `nvme-lm` say and do about one controller, under the kernel's driver and under VFIO |
//!
//! The verdict is QEMU's exit status, by its device `isa-debug-exit`: 33 if everything was as it should be, 35 if not. The
//! console tells what was done.

mod bulk;
mod commands;
mod conform;
mod crosscheck;
mod drive;
mod interfaces;
mod interrupts;
mod machine;
mod program;
mod running;
mod sys;
mod tools;
mod virtual_function;

use std::fmt::Display;
use std::process::ExitCode;
use std::sync::Arc;

use nvme_core::wire::admin::{Identify, IdentifyStructure};
use nvme_core::wire::identify::SecondaryControllers;
use nvme_core::wire::{Command, ControllerId, SubmissionQueueEntry};
use nvme_host_linux::address::PciAddress;
use nvme_host_linux::memory::Capacity;
use nvme_host_linux::vfio::{Container, Error, IommuBackend, OpenOptions, Sysfs, VfioController};

use interfaces::{container, expect};

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

fn with_token(text: &str) -> Result<OpenOptions, Failure> {
    let vf_token = Some(doing("a token", text.parse())?);
    Ok(OpenOptions { vf_token, ..OpenOptions::default() })
}

/// Command Virtualization Management and its actions. NVMe Base 2.1 §5.2.6.
const VIRTUALIZATION_MANAGEMENT: u8 = 0x1C;
const OFFLINE: u32 = 7;
const ASSIGN: u32 = 8;
const ONLINE: u32 = 9;

/// Gives a virtual function resources by its physical one, and drives it.
fn drive_virtual(
    container: &Arc<Container>,
    physical: &VfioController,
    made: &VfioController,
) -> Result<(), Failure> {
    let capacity = Capacity { queues: 8 << 20, data: 16 << 20, controller_data: 1 << 20 };
    let memory = doing("mapping memory of the physical function", container.create("physical", capacity))?;
    let theirs = doing("mapping memory of the virtual function", container.create("virtual", capacity))?;
    drive::administer(physical, memory.space(), |send| {
        let list = Identify::new(IdentifyStructure::SECONDARY_CONTROLLER_LIST).encode();
        let list = send("the list of secondary controllers", &list, 4096)?;
        let list = SecondaryControllers::parse(&list, ControllerId::new(0));
        let list = list.map_err(|error| format!("the list of secondary controllers: {error:?}"))?;
        let secondary = list.iter().next().ok_or("there is no secondary controller")?;
        println!("{secondary:?}");
        let mut manage = |what: &str, action: u32, kind: u32, number: u32| {
            let dword10 = u32::from(secondary.controller.get()) << 16 | kind << 8 | action;
            let command = SubmissionQueueEntry::new(VIRTUALIZATION_MANAGEMENT);
            send(what, &command.with_dwords([dword10, number, 0, 0, 0, 0]), 0)
        };
        // The admin queue and four queue pairs, with a vector for each.
        manage("taking the secondary controller offline", OFFLINE, 0, 0)?;
        manage("assigning queues", ASSIGN, 0, 5)?;
        manage("assigning interrupts", ASSIGN, 1, 5)?;
        doing("resetting the virtual function", made.reset())?;
        manage("bringing the secondary controller online", ONLINE, 0, 0)?;
        for waiting in [drive::Waiting::Interrupts, drive::Waiting::Polling] {
            doing(
                &format!("driving the virtual function by {waiting:?}"),
                drive::drive(made, theirs.space(), waiting),
            )?;
        }
        Ok(())
    })
}

/// Opens a physical function and its virtual one, with a token that both have in common and otherwise.
fn check_tokens(physical: PciAddress, ordinary: PciAddress) -> Result<(), Failure> {
    let token = with_token("14d63f20-8445-11ea-8900-1f9ce7d5650d")?;
    let another = with_token("14d63f20-8445-11ea-8900-1f9ce7d5650e")?;
    doing("binding to vfio-pci", machine::bind(physical))?;
    // Where iommufd takes no tokens, type 1 does.
    let container = container(IommuBackend::Auto)?;
    refused("a token that nobody asked for", container.open(ordinary, &token), |error| {
        *error == Error::NoToken(ordinary)
    })?;
    let owner = doing("opening a physical function", container.open(physical, &token))?;
    let made = doing("making a virtual function", machine::set_virtual_functions(physical, 1))?;
    let made = made.ok_or("there is no virtual function")?;
    println!("physical function {physical}, virtual function {made}");
    for (name, options) in [("without a token", &OpenOptions::default()), ("with another token", &another)] {
        refused(&format!("a virtual function {name}"), container.open(made, options), |error| {
            *error == Error::Token(made)
        })?;
    }
    let opened = doing("opening a virtual function", container.open(made, &token))?;
    expect(&container, IommuBackend::Type1)?;
    println!("both open: groups {:?} and {:?}", owner.function().group, opened.function().group);
    doing("bringing the virtual function up", drive_virtual(&container, &owner, &opened))?;
    drop(opened);
    doing("removing the virtual function", machine::set_virtual_functions(physical, 0))?;
    Ok(())
}

/// Maps more than may be locked.
fn check_locked_memory(function: PciAddress, beside: PciAddress, capacity: Capacity) -> Result<(), Failure> {
    const ALLOWED: u64 = 1 << 20;
    let container = container(IommuBackend::Auto)?;
    let _opened = doing("opening a function", container.open(function, &OpenOptions::default()))?;
    doing("mapping memory", container.create("nvme", capacity).map(drop))?;
    doing("limiting locked memory", machine::limit_locked_memory(ALLOWED))?;
    let needed = (capacity.queues + capacity.data + capacity.controller_data) as u64;
    refused("more memory than may be locked", container.create("nvme", capacity), |error| {
        *error == Error::MemoryLock { needed, allowed: ALLOWED }
    })?;
    let least = Capacity { queues: 4096, data: 4096, controller_data: 4096 };
    doing("mapping little memory", container.create("nvme", least).map(drop))?;
    let other = interfaces::container(IommuBackend::Auto)?;
    let _beside = doing("opening another function", other.open(beside, &OpenOptions::default()))?;
    let _locked = doing("mapping little memory for another container", other.create("nvme", least))?;
    let all = Capacity { queues: 4096, data: ALLOWED as usize - 8192, controller_data: 4096 };
    refused("as much memory as may be locked beside other", container.create("nvme", all), |error| {
        *error == Error::MemoryLockWithOthers { needed: ALLOWED, allowed: ALLOWED }
    })
}

fn run() -> Result<(), Failure> {
    doing("setting up the system", machine::prepare())?;
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match arguments.iter().map(String::as_str).collect::<Vec<_>>().as_slice() {
        ["drive"] => {
            refused("without VFIO in the kernel", Container::new(), |error| {
                matches!(error, Error::NoVfio(_))
            })?;
            doing("loading modules", machine::load_modules())?;
            let forced = Container::with(Sysfs::default(), IommuBackend::Iommufd);
            refused("a kernel without iommufd", forced, |error| matches!(error, Error::NoIommufd(_)))?;
            drive_all(IommuBackend::Type1)
        }
        ["iommufd"] => drive_all(IommuBackend::Iommufd),
        ["program", iommu] => program::run(doing("reading the arguments", iommu.parse())?),
        ["conform"] => conform::run(),
        ["tools"] => crosscheck::run(),
        _ => Err(format!("the arguments {arguments:?} name no part")),
    }
}

/// Drives all functions of the machine, on a kernel whose containers use the IOMMU in this way.
fn drive_all(iommu: IommuBackend) -> Result<(), Failure> {
    let functions = doing("looking for NVMe functions", machine::nvme_functions())?;
    println!("NVMe functions: {}", functions.iter().map(ToString::to_string).collect::<Vec<_>>().join(", "));
    let [alone, first, second, physical] = functions.as_slice() else {
        return Err(format!("{} NVMe functions where 4 are needed", functions.len()));
    };
    let (alone, first, second, physical) = (*alone, *first, *second, *physical);
    let options = OpenOptions::default();
    let container = container(IommuBackend::Auto)?;
    refused("a function of another driver", container.open(alone, &options), |error| {
        matches!(error, Error::NotBound { .. })
    })?;
    let nowhere: PciAddress = doing("an address", "0000:ff:1f.7".parse())?;
    refused("a function that is not there", container.open(nowhere, &options), |error| {
        *error == Error::NoFunction(nowhere)
    })?;
    doing("binding to vfio-pci", machine::bind(alone))?;
    doing("binding to vfio-pci", machine::bind(first))?;
    refused(
        "a group that another driver has a part of",
        container.open(first, &options),
        |error| matches!(error, Error::NotViable { others, .. } if *others == [(second.to_string(), "nvme".to_owned())]),
    )?;
    doing("binding to vfio-pci", machine::bind(second))?;
    let capacity = Capacity { queues: 8 << 20, data: 16 << 20, controller_data: 1 << 20 };
    refused("memory before a function", container.create("early", capacity), |error| {
        *error == Error::NoFunctionYet
    })?;
    let opened: Result<Vec<VfioController>, Error> =
        [alone, first, second].map(|function| container.open(function, &options)).into_iter().collect();
    let controllers = doing("opening three functions in one container", opened)?;
    expect(&container, iommu)?;
    let other = interfaces::container(IommuBackend::Auto)?;
    refused("a function that is open elsewhere", other.open(alone, &options), |error| {
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
    let huge = Capacity { queues: 0, data: 0, controller_data: 1 << 40 };
    refused("more memory than there are addresses", container.create("huge", huge), |error| {
        matches!(error, Error::NoAddresses(_))
    })?;
    let large = Capacity { queues: 0, data: 0, controller_data: 1 << 38 };
    refused("more memory than the computer has", container.create("large", large), |error| {
        matches!(error, Error::Memory { .. })
    })?;
    let after = doing("asking for the IOMMU's limits", container.limits())?;
    if after != limits {
        return Err(format!("{after:?} after everything was unmapped"));
    }
    drop((controllers, container));
    let again = interfaces::container(IommuBackend::Auto)?;
    doing("opening a function that was closed", other.open(alone, &options))?;
    doing("opening a function that was closed", again.open(second, &options))?;
    drop((other, again));
    check_tokens(physical, alone)?;
    if iommu == IommuBackend::Iommufd {
        interfaces::check_fallback(alone)?;
        interfaces::check_virtual(physical)?;
        interfaces::check_type1(second, capacity)?;
    }
    interfaces::check_group_of_another(alone, iommu)?;
    interfaces::check_refused_mappings(alone, iommu)?;
    interfaces::check_mapping_limit(alone)?;
    interfaces::check_calls(first, capacity)?;
    interfaces::check_huge_pages(alone, capacity)?;
    check_locked_memory(alone, second, capacity)
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

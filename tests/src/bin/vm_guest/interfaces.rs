// SPDX-License-Identifier: MIT OR Apache-2.0
//! What differs by the kernel's interface to the IOMMU, and what memory and registers are reached by: iommufd or type 1, huge
//! pages, system calls.

use std::fs;
use std::path::Path;
use std::sync::Arc;

use nvme_core::wire::BusAddr;
use nvme_host_linux::address::PciAddress;
use nvme_host_linux::memory::{AddressSpace, Backing, Capacity, HUGE_PAGE, SpaceError};
use nvme_host_linux::vfio::{Container, Error, IommuBackend, OpenOptions, Sysfs};

use super::{Failure, doing, drive, drive_virtual, machine, refused, with_token};

/// Where Linux counts huge pages.
const HUGE_PAGES: &str = "/sys/kernel/mm/hugepages/hugepages-2048kB";

/// Makes a container that uses the IOMMU as told.
pub(crate) fn container(iommu: IommuBackend) -> Result<Arc<Container>, Failure> {
    doing("making a container", Container::with(Sysfs::default(), iommu))
}

/// Checks which interface a container has come to use.
pub(crate) fn expect(container: &Container, expected: IommuBackend) -> Result<(), Failure> {
    match container.backend() {
        found if found == expected => {
            println!("the IOMMU is used by {found}");
            Ok(())
        }
        found => Err(format!("the IOMMU is used by {found} where it should be by {expected}")),
    }
}

/// Drives a function by type 1 on a kernel that has iommufd, too, and all its registers by system calls.
pub(crate) fn check_type1(function: PciAddress, capacity: Capacity) -> Result<(), Failure> {
    let container = container(IommuBackend::Type1)?;
    let controller = doing("opening", container.open(function, &OpenOptions::default()))?;
    expect(&container, IommuBackend::Type1)?;
    let other = self::container(IommuBackend::Iommufd)?;
    refused(
        "a function whose group is open",
        other.open(function, &OpenOptions::default()),
        |error| matches!(error, Error::InUse(path) if path.starts_with("/dev/vfio/devices")),
    )?;
    let memory = doing("mapping memory", container.create("nvme", capacity))?;
    doing("driving by type1", drive::drive(&controller, memory.space(), drive::Waiting::Interrupts))
}

/// Takes away what iommufd needs, one thing after the other: who wants it is told, and who does not gets type 1.
pub(crate) fn check_fallback(function: PciAddress) -> Result<(), Failure> {
    let options = OpenOptions::default();
    let forced = || Container::with(Sysfs::default(), IommuBackend::Iommufd);
    let by_type1 = |what: &str| {
        let container = container(IommuBackend::Auto)?;
        doing(what, container.open(function, &options))?;
        expect(&container, IommuBackend::Type1)
    };
    let iommu = Path::new("/dev/iommu");
    let foreign = || {
        refused("iommufd of another user", forced(), |error| *error == Error::Permission(iommu.to_owned()))?;
        by_type1("opening without the right to iommufd")
    };
    doing("taking the right away", machine::while_foreign(iommu, foreign))??;
    let name = doing("looking for the function", Sysfs::default().function(function))?.device_file;
    let name = name.ok_or("the function has no file of its own")?;
    let file = Path::new("/dev/vfio/devices").join(name);
    let foreign = || {
        let opened = forced().and_then(|container| container.open(function, &options));
        refused("a function of another user", opened, |error| *error == Error::Permission(file.clone()))?;
        by_type1("opening without the right to the function")
    };
    doing("taking the right away", machine::while_foreign(&file, foreign))??;
    let hidden = file.with_extension("hidden");
    doing("hiding the function's file", fs::rename(&file, &hidden))?;
    let opened = forced().and_then(|container| container.open(function, &options));
    refused("a function without a file", opened, |error| *error == Error::NoDeviceFile(function))?;
    by_type1("opening without a file")?;
    doing("showing the function's file", fs::rename(&hidden, &file))
}

/// Takes the right to a function's group away: who uses type 1 is told.
pub(crate) fn check_group_of_another(function: PciAddress, iommu: IommuBackend) -> Result<(), Failure> {
    let options = OpenOptions::default();
    let group = doing("looking for the function", Sysfs::default().function(function))?.group;
    let file = Path::new("/dev/vfio").join(group.ok_or("the function has no group")?.to_string());
    // Where nothing else is there, it is taken unasked.
    let wanted: &[IommuBackend] = match iommu {
        IommuBackend::Type1 => &[IommuBackend::Type1, IommuBackend::Auto],
        _ => &[IommuBackend::Type1],
    };
    for backend in wanted {
        let foreign = || {
            let opened = container(*backend)?.open(function, &options);
            refused(&format!("a group of another user, by {backend}"), opened, |error| {
                *error == Error::Permission(file.clone())
            })
        };
        doing("taking the right away", machine::while_foreign(&file, foreign))??;
        doing("opening with the right to the group", container(*backend)?.open(function, &options))?;
    }
    Ok(())
}

/// Maps what cannot be: addresses that are taken or that the IOMMU does not have, a space in pieces, and more mappings than
/// there may be. Nothing stays mapped of what is refused.
pub(crate) fn check_refused_mappings(function: PciAddress, iommu: IommuBackend) -> Result<(), Failure> {
    const LEAST: Capacity = Capacity { queues: 4096, data: 8192, controller_data: 4096 };
    /// First address where a write is an interrupt.
    const INTERRUPTS: u64 = 0xFEE0_0000;
    let options = OpenOptions::default();
    let container = container(iommu)?;
    let opened = doing("opening", container.open(function, &options))?;
    let limits = doing("asking for the IOMMU's limits", container.limits())?;
    let space = |start: u64| {
        let made = AddressSpace::linear_at("refused", LEAST, BusAddr::new(start), Backing::Ordinary);
        doing("making a space", made).map(Arc::new)
    };
    let refuse = |what: &str, space: &Arc<AddressSpace>| {
        let window = *space.windows().first().ok_or("a linear space has no windows")?;
        let first = window.address.get();
        let expected = Error::Addresses { first, last: first + window.len - 1 };
        refused(what, container.map(space), |error| *error == expected)
    };
    let start = doing("choosing addresses", container.choose(LEAST, Backing::Ordinary, &[]))?;
    let memory = doing("mapping memory", container.create("first", LEAST))?;
    refuse("a space that is mapped already", memory.space())?;
    refuse("another space at its addresses", &space(start)?)?;
    let end = limits.ranges.last().ok_or("the IOMMU has no addresses")?.1;
    let windows = memory.space().windows();
    if windows.iter().any(|window| !window.address.get().is_multiple_of(HUGE_PAGE as u64)) {
        return Err(format!("{windows:x?} do not begin where memory can be tracked by 2 MiB"));
    }
    let before = windows.first().map_or(0, |window| window.address.get() - start);
    refuse("addresses that are interrupts", &space(INTERRUPTS - before)?)?;
    refuse("addresses beyond the last", &space(end + 1)?)?;
    let pieces = Arc::new(doing("making a space", AddressSpace::new("pieces", LEAST))?);
    refused("a space in pieces", container.map(&pieces), |error| *error == Error::NotLinear)?;
    drop(memory);
    doing("mapping at addresses that are free again", container.map(&space(start)?).map(drop))?;
    let after = doing("asking for the IOMMU's limits", container.limits())?;
    drop((opened, container));
    if after == limits { Ok(()) } else { Err(format!("{after:?} after everything was unmapped")) }
}

/// Maps more than type 1 may, whose limit is set before.
pub(crate) fn check_mapping_limit(function: PciAddress) -> Result<(), Failure> {
    const FILE: &str = "/sys/module/vfio_iommu_type1/parameters/dma_entry_limit";
    const LEAST: Capacity = Capacity { queues: 4096, data: 4096, controller_data: 4096 };
    let before = doing("the limit of mappings", fs::read_to_string(FILE))?;
    for (limit, spaces) in [(2, 0), (3, 1), (5, 1), (6, 2)] {
        doing("limiting mappings", fs::write(FILE, limit.to_string()))?;
        let container = container(IommuBackend::Type1)?;
        let _opened = doing("opening", container.open(function, &OpenOptions::default()))?;
        let mapped: Result<Vec<_>, Error> = (0..spaces).map(|_| container.create("some", LEAST)).collect();
        let mapped = doing("mapping as much as may be", mapped)?;
        let left = limit - 3 * spaces;
        refused(
            &format!("a space more where {limit} mappings may be"),
            container.create("more", LEAST),
            |error| *error == Error::Mappings { needed: 3, left },
        )?;
        drop(mapped);
        match doing("asking for the IOMMU's limits", container.limits())?.mappings_left {
            Some(left) if left == limit => {}
            left => return Err(format!("{left:?} mappings are left of {limit} when nothing is mapped")),
        }
    }
    doing("giving the limit back", fs::write(FILE, before.trim()))
}

/// Drives a function none of whose registers is mapped.
pub(crate) fn check_calls(function: PciAddress, capacity: Capacity) -> Result<(), Failure> {
    let container = container(IommuBackend::Auto)?;
    let options = OpenOptions { unmapped: true, ..OpenOptions::default() };
    let controller = doing("opening", container.open(function, &options))?;
    if controller.register_space() != 0 {
        return Err(format!("{:#x} bytes of registers are mapped", controller.register_space()));
    }
    let memory = doing("mapping memory", container.create("nvme", capacity))?;
    doing("driving by system calls", drive::drive(&controller, memory.space(), drive::Waiting::Polling))
}

fn huge_pages(name: &str) -> Result<u64, Failure> {
    let text = doing(name, fs::read_to_string(format!("{HUGE_PAGES}/{name}")))?;
    doing(name, text.trim().parse())
}

/// Drives a function that reaches huge pages, of which there are none, then enough, then too few.
pub(crate) fn check_huge_pages(function: PciAddress, capacity: Capacity) -> Result<(), Failure> {
    const SPARE: u64 = 3;
    let container = container(IommuBackend::Auto)?;
    let controller = doing("opening", container.open(function, &OpenOptions::default()))?;
    let Capacity { queues, data, controller_data } = capacity;
    let needed: u64 =
        [queues, data, controller_data].iter().map(|bytes| bytes.div_ceil(HUGE_PAGE) as u64).sum();
    let few = |free| move |error: &Error| *error == Error::Space(SpaceError::HugePages { needed, free });
    let take = || container.create_of("huge", capacity, Backing::Huge);
    refused("huge pages where there are none", take(), few(0))?;
    let number = format!("{HUGE_PAGES}/nr_hugepages");
    doing("setting huge pages aside", fs::write(&number, (needed + SPARE).to_string()))?;
    let memory = doing("mapping huge pages", take())?;
    println!("huge pages: {} free beside {:x?}", huge_pages("free_hugepages")?, memory.windows());
    let crooked = |window: &nvme_host_linux::memory::Window| {
        [window.offset, window.address.get(), window.len].iter().any(|number| number % HUGE_PAGE as u64 != 0)
    };
    if huge_pages("free_hugepages")? != SPARE || memory.windows().iter().any(crooked) {
        return Err("the memory is not made of huge pages".to_owned());
    }
    refused("huge pages where there are too few", take(), few(SPARE))?;
    doing("driving in huge pages", drive::drive(&controller, memory.space(), drive::Waiting::Interrupts))?;
    drop(memory);
    match huge_pages("free_hugepages")? {
        free if free == needed + SPARE => doing("giving huge pages back", fs::write(number, "0")),
        free => Err(format!("{free} huge pages are free after {needed} beside {SPARE} were given back")),
    }
}

/// Drives a physical function and its virtual one by iommufd. The kernel takes no tokens there, and asks for none.
pub(crate) fn check_virtual(physical: PciAddress) -> Result<(), Failure> {
    let token = with_token("14d63f20-8445-11ea-8900-1f9ce7d5650d")?;
    let container = container(IommuBackend::Iommufd)?;
    refused("a token where the kernel takes none", container.open(physical, &token), |error| {
        *error == Error::TokenNotTaken(physical)
    })?;
    let options = OpenOptions::default();
    let owner = doing("opening a physical function", container.open(physical, &options))?;
    let made = doing("making a virtual function", machine::set_virtual_functions(physical, 1))?;
    let made = made.ok_or("there is no virtual function")?;
    let opened = doing("opening a virtual function", container.open(made, &options))?;
    println!("both open: {:?} and {:?}", owner.function().device_file, opened.function().device_file);
    doing("bringing the virtual function up", drive_virtual(&container, &owner, &opened))?;
    drop(opened);
    doing("removing the virtual function", machine::set_virtual_functions(physical, 0))?;
    Ok(())
}

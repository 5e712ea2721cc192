// SPDX-License-Identifier: MIT OR Apache-2.0
//! The machine as the kernel shows it: file systems, modules, PCI functions and their drivers.

use std::fs;
use std::io;
use std::os::unix::fs::chown;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use nvme_host_linux::address::PciAddress;
use rustix::mount::{MountFlags, mount};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use rustix::system::finit_module;
use rustix::thread::{CapabilitySet, capabilities, set_capabilities};

const FUNCTIONS: &str = "/sys/bus/pci/devices";
/// Modules to load, in this order, as far as they are there: a kernel may have some built in.
const MODULES: [&str; 6] =
    ["irqbypass", "vfio", "vfio_virqfd", "vfio_iommu_type1", "vfio-pci-core", "vfio-pci"];

/// How long the kernel's driver may take.
const PATIENCE: Duration = Duration::from_secs(240);

/// Mounts what the kernel has to show.
pub(crate) fn prepare() -> io::Result<()> {
    for (kind, folder) in [("proc", "/proc"), ("sysfs", "/sys"), ("devtmpfs", "/dev")] {
        fs::create_dir_all(folder)?;
        mount(kind, folder, kind, MountFlags::empty(), c"")?;
    }
    fs::create_dir_all("/tmp")
}

/// Loads the modules of VFIO from `/modules`.
pub(crate) fn load_modules() -> Result<(), String> {
    let mut loaded = 0;
    for name in MODULES {
        let path = PathBuf::from(format!("/modules/{name}.ko"));
        if path.exists() {
            let file = fs::File::open(&path).map_err(|error| format!("{name}: {error}"))?;
            let parameters = if name == "vfio-pci" { c"enable_sriov=1" } else { c"" };
            finit_module(&file, parameters, 0).map_err(|error| format!("{name}: {error}"))?;
            loaded += 1;
        }
    }
    println!("{loaded} modules loaded");
    Ok(())
}

/// What the kernel makes of a controller.
pub(crate) struct Kernel {
    /// Its device file.
    pub(crate) controller: String,
    /// That of namespace 1.
    pub(crate) block: PathBuf,
}

/// Looks for the device files of a controller, which appear some time after its driver has it.
pub(crate) fn wait_for_kernel(function: PciAddress) -> Result<Kernel, String> {
    let folder = format!("/sys/bus/pci/devices/{function}/nvme");
    let begin = Instant::now();
    loop {
        if let Some(entry) = fs::read_dir(&folder).ok().and_then(|mut entries| entries.next()) {
            let name = entry.map_err(|error| error.to_string())?.file_name().to_string_lossy().into_owned();
            let found = Kernel { controller: format!("/dev/{name}"), block: format!("/dev/{name}n1").into() };
            if Path::new(&found.controller).exists() && found.block.exists() {
                return Ok(found);
            }
        }
        if begin.elapsed() > PATIENCE {
            return Err(format!("the kernel's driver shows no controller with a namespace below {folder}"));
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// The functions that are NVM Express controllers, in the order of their addresses.
pub(crate) fn nvme_functions() -> Result<Vec<PciAddress>, String> {
    let mut found = Vec::new();
    for entry in fs::read_dir(FUNCTIONS).map_err(|error| error.to_string())? {
        let entry = entry.map_err(|error| error.to_string())?;
        let class = fs::read_to_string(entry.path().join("class")).map_err(|error| error.to_string())?;
        if class.trim() == "0x010802" {
            let name = entry.file_name().to_string_lossy().into_owned();
            found.push(name.parse::<PciAddress>().map_err(|error| format!("{name}: {error}"))?);
        }
    }
    found.sort_unstable();
    Ok(found)
}

/// Binds a function to vfio-pci, whatever driver it has.
pub(crate) fn bind(function: PciAddress) -> io::Result<()> {
    let name = function.to_string();
    let folder = Path::new(FUNCTIONS).join(&name);
    fs::write(folder.join("driver_override"), "vfio-pci")?;
    if folder.join("driver").exists() {
        fs::write(folder.join("driver/unbind"), &name)?;
    }
    fs::write("/sys/bus/pci/drivers_probe", &name)
}

/// Gives a physical function `count` virtual functions, and returns the first.
pub(crate) fn set_virtual_functions(function: PciAddress, count: u32) -> Result<Option<PciAddress>, String> {
    let folder = Path::new(FUNCTIONS).join(function.to_string());
    fs::write(folder.join("sriov_numvfs"), count.to_string()).map_err(|error| error.to_string())?;
    if count == 0 {
        return Ok(None);
    }
    let link = fs::read_link(folder.join("virtfn0")).map_err(|error| error.to_string())?;
    let name = link.file_name().unwrap_or_default().to_string_lossy().into_owned();
    name.parse().map(Some).map_err(|error| format!("{name}: {error}"))
}

/// Runs `work` while `file` belongs to another user, and as a user to whom that matters.
pub(crate) fn while_foreign<T>(file: &Path, work: impl FnOnce() -> T) -> io::Result<T> {
    let sets = capabilities(None)?;
    let mut fewer = sets;
    fewer.effective.remove(CapabilitySet::DAC_OVERRIDE | CapabilitySet::DAC_READ_SEARCH);
    chown(file, Some(1), Some(1))?;
    set_capabilities(None, fewer)?;
    let done = work();
    set_capabilities(None, sets)?;
    chown(file, Some(0), Some(0))?;
    Ok(done)
}

/// Lets this process lock `bytes` and no more.
pub(crate) fn limit_locked_memory(bytes: u64) -> io::Result<()> {
    let limit = Rlimit { current: Some(bytes), ..getrlimit(Resource::Memlock) };
    setrlimit(Resource::Memlock, limit)?;
    let mut sets = capabilities(None)?;
    sets.effective.remove(CapabilitySet::IPC_LOCK);
    Ok(set_capabilities(None, sets)?)
}

// SPDX-License-Identifier: MIT OR Apache-2.0
//! Giving NVM Express controllers to vfio-pci and back to the kernel's driver, by sysfs. Linux,
//! `Documentation/ABI/testing/sysfs-bus-pci`.
//!
//! A [`Plan`] is made first: it says what would be written where, or why the function had better keep its driver. Carrying
//! it out looks again, and holds the controller's block devices until the driver is gone, so that nothing can be mounted in
//! between. It cannot keep a process from opening them without asking for exclusive use, nor see users inside the
//! kernel that do not (a target of NVMe over Fabrics).
//!
//! ```no_run
//! use nvme_host_linux::vfio::bind::{Plan, System};
//!
//! let system = System::default();
//! let plan = Plan::bind(&system, "0000:01:00.0".parse()?)?;
//! for step in plan.steps() {
//!     println!("{step}");
//! }
//! let done = plan.carry_out(&system)?;
//! println!("{} has {:?} now", done.function, done.driver);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod error;
#[cfg(test)]
pub(crate) mod tests;
mod users;

use std::collections::BTreeSet;
use std::fmt;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use rustix::fd::OwnedFd;
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;

pub use error::BindError;
pub use users::{Use, User};

use super::sysfs::{PciFunction, Sysfs, is_vfio};
use crate::address::PciAddress;
use users::Users;

/// Class code of an NVM Express I/O controller: base class, sub-class, programming interface.
const CLASSES_NVME: [u32; 2] = [0x01_08_02, 0x01_08_03];
/// The driver that gives functions to programs.
const VFIO_PCI: &str = "vfio-pci";
/// The kernel's own.
const KERNEL_DRIVER: &str = "nvme";

/// Whether a driver leaves the function to programs: one of VFIO, of UIO, or none at all that does anything.
fn is_taken_by_programs(driver: &str) -> bool {
    is_vfio(driver) || driver.split(['-', '_']).any(|word| word == "uio") || driver == "pci-stub"
}

/// What the kernel does when asked.
trait Access {
    /// Writes a file of sysfs.
    fn write(&self, path: &Path, text: &str) -> io::Result<()>;
    /// Opens a block device for exclusive use.
    fn claim(&self, path: &Path) -> Result<OwnedFd, Errno>;
    /// Whether nobody has a group of VFIO open.
    fn is_free(&self, group: &Path) -> Result<bool, Errno>;
}

/// The running kernel.
struct Kernel;

impl Access for Kernel {
    fn write(&self, path: &Path, text: &str) -> io::Result<()> {
        fs::write(path, text)
    }

    fn claim(&self, path: &Path) -> Result<OwnedFd, Errno> {
        rustix::fs::open(path, OFlags::RDONLY | OFlags::EXCL | OFlags::CLOEXEC, Mode::empty())
    }

    fn is_free(&self, group: &Path) -> Result<bool, Errno> {
        match rustix::fs::open(group, OFlags::RDWR | OFlags::CLOEXEC, Mode::empty()) {
            Ok(_) => Ok(true),
            Err(Errno::BUSY) => Ok(false),
            Err(error) => Err(error),
        }
    }
}

/// Where the system shows itself.
pub struct System {
    sysfs: Sysfs,
    proc: PathBuf,
    dev: PathBuf,
    access: Box<dyn Access>,
}

impl fmt::Debug for System {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { sysfs, proc, dev, access: _ } = self;
        f.debug_struct("System")
            .field("sysfs", sysfs)
            .field("proc", proc)
            .field("dev", dev)
            .finish_non_exhaustive()
    }
}

/// This system: `/sys`, `/proc` and `/dev`.
impl Default for System {
    fn default() -> Self {
        Self { sysfs: Sysfs::default(), proc: "/proc".into(), dev: "/dev".into(), access: Box::new(Kernel) }
    }
}

/// One thing to write. Shown as the line of shell that does the same.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step {
    /// The file.
    pub file: PathBuf,
    /// What is written there; nothing but the end of a line if empty.
    pub text: String,
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let space = if self.text.is_empty() { "" } else { " " };
        write!(f, "echo{space}{} > {}", self.text, self.file.display())
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Direction {
    ToVfio,
    Back,
}

/// What has to be written for a function to get another driver.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    function: PciAddress,
    direction: Direction,
    from: Option<String>,
    group: Option<u32>,
    choose: Option<Step>,
    /// Puts the choice of driver back as it was.
    unchoose: Step,
    unbind: Option<Step>,
    probe: Option<Step>,
    warnings: Vec<String>,
}

/// A function after a plan was carried out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Done {
    /// The function.
    pub function: PciAddress,
    /// Its driver before.
    pub before: Option<String>,
    /// Its driver now.
    pub driver: Option<String>,
    /// Its IOMMU group.
    pub group: Option<u32>,
    /// What whoever uses the function should know.
    pub warnings: Vec<String>,
}

impl System {
    fn check(&self, function: PciAddress) -> Result<PciFunction, BindError> {
        let found = self.sysfs.function(function)?;
        if !found.class.is_some_and(|class| CLASSES_NVME.contains(&class)) {
            return Err(BindError::NotNvme { function, class: found.class });
        }
        match self.sysfs.virtual_functions(function) {
            0 => Ok(found),
            count => Err(BindError::VirtualFunctions { function, count }),
        }
    }

    /// The controller's devices, if nobody uses them.
    fn unused(&self, function: PciAddress) -> Result<Users, BindError> {
        let users = self.users(function);
        let users = users.map_err(|error| read("looking for users of the controller's devices", &error))?;
        if users.found.is_empty() {
            Ok(users)
        } else {
            Err(BindError::InUse { function, users: users.found })
        }
    }

    /// Refuses a function that a program has through VFIO or UIO.
    fn closed(&self, found: &PciFunction) -> Result<(), BindError> {
        let function = found.address;
        let mut files: BTreeSet<PathBuf> = self.device_file(found).into_iter().collect();
        let mapped = self.sysfs.uio_files(function);
        let mapped = mapped.map_err(|error| read("looking for files of UIO", &error))?;
        files.extend(mapped.iter().map(|name| self.dev.join(name)));
        let group = found.group.map(|group| self.dev.join(format!("vfio/{group}")));
        files.extend(group.clone());
        let mut open = None;
        let looked = self.who_has_open(&files, |file, process, name| {
            open = Some(BindError::Open { function, file, process: Some((process, name)) });
        });
        looked.map_err(|error| read("looking for users of the function", &error))?;
        match (open, group) {
            (Some(open), _) => Err(open),
            (None, Some(file)) if file.exists() => match self.access.is_free(&file) {
                Ok(true) => Ok(()),
                Ok(false) => Err(BindError::Open { function, file, process: None }),
                Err(error) => Err(BindError::Unknown(file, error.raw_os_error())),
            },
            (None, _) => Ok(()),
        }
    }

    /// The function's own file, on kernels that have one for each.
    fn device_file(&self, found: &PciFunction) -> Option<PathBuf> {
        found.device_file.as_ref().map(|name| self.dev.join("vfio/devices").join(name))
    }

    fn write(&self, step: &Step) -> Result<(), BindError> {
        // Nothing at all would not even be a write.
        let text = if step.text.is_empty() { "\n" } else { &step.text };
        self.access
            .write(&step.file, text)
            .map_err(|error| BindError::Write(step.file.clone(), error.raw_os_error().unwrap_or(0)))
    }

    fn driver_override(&self, function: PciAddress, driver: &str) -> Step {
        let file = self.sysfs.function_folder(function).join("driver_override");
        Step { file, text: driver.to_owned() }
    }

    fn unbind(&self, function: PciAddress, driver: &str) -> Step {
        let file = self.sysfs.root().join("bus/pci/drivers").join(driver).join("unbind");
        Step { file, text: function.to_string() }
    }

    fn probe(&self, function: PciAddress) -> Step {
        Step { file: self.sysfs.root().join("bus/pci/drivers_probe"), text: function.to_string() }
    }
}

fn read(what: &'static str, error: &io::Error) -> BindError {
    BindError::Read(what, error.raw_os_error().unwrap_or(0))
}

impl Plan {
    /// Plans to give a function to vfio-pci. Nothing is to be done if it is there.
    ///
    /// # Errors
    /// The function is no NVM Express controller, is in use, has virtual functions, or vfio-pci cannot take it. What a user
    /// without rights may not look at is no error but a [warning](Self::warnings); [`carry_out`](Self::carry_out) looks
    /// again, and does nothing then.
    pub fn bind(system: &System, function: PciAddress) -> Result<Self, BindError> {
        let found = system.sysfs.function(function)?;
        let mut plan = Self::empty(system, &found, Direction::ToVfio);
        if found.class.is_some_and(|class| CLASSES_NVME.contains(&class))
            && found.driver.as_deref() == Some(VFIO_PCI)
        {
            return Ok(plan);
        }
        let found = system.check(function)?;
        let group = found.group.ok_or(super::Error::NoGroup(function))?;
        if !system.sysfs.root().join("bus/pci/drivers").join(VFIO_PCI).exists() {
            return Err(BindError::NoDriver);
        }
        plan.group = Some(group);
        match found.driver.as_deref() {
            None | Some(KERNEL_DRIVER) => {}
            Some(driver) if is_taken_by_programs(driver) => plan.ask(system, &found)?,
            Some(driver) => {
                return Err(BindError::OtherDriver { function, driver: driver.to_owned() });
            }
        }
        for (device, error) in system.unused(function)?.unknown {
            plan.warnings.push(BindError::Unknown(device, error.raw_os_error()).to_string());
        }
        plan.choose = Some(system.driver_override(function, VFIO_PCI));
        plan.unbind = found.driver.map(|driver| system.unbind(function, &driver));
        plan.probe = Some(system.probe(function));
        Ok(plan)
    }

    /// Plans to give a function back to the driver it would have without us. Nothing is to be done if it is there.
    ///
    /// # Errors
    /// The function is no NVM Express controller, has virtual functions, or is in use.
    pub fn unbind(system: &System, function: PciAddress) -> Result<Self, BindError> {
        let found = system.check(function)?;
        let mut plan = Self::empty(system, &found, Direction::Back);
        plan.choose = system.sysfs.driver_override(function).map(|_| system.driver_override(function, ""));
        if let Some(driver) = found.driver.as_ref().filter(|driver| is_vfio(driver)) {
            plan.ask(system, &found)?;
            plan.unbind = Some(system.unbind(function, driver));
        }
        if found.driver.is_none() || plan.unbind.is_some() {
            plan.probe = Some(system.probe(function));
        }
        Ok(plan)
    }

    fn empty(system: &System, found: &PciFunction, direction: Direction) -> Self {
        let before = system.sysfs.driver_override(found.address).unwrap_or_default();
        Self {
            function: found.address,
            direction,
            from: found.driver.clone(),
            group: found.group,
            choose: None,
            unchoose: system.driver_override(found.address, &before),
            unbind: None,
            probe: None,
            warnings: Vec::new(),
        }
    }

    /// Refuses a function that a program has; what this user may not look at is a warning.
    fn ask(&mut self, system: &System, found: &PciFunction) -> Result<(), BindError> {
        match system.closed(found) {
            Err(error @ BindError::Unknown(..)) => self.warnings.push(error.to_string()),
            closed => closed?,
        }
        Ok(())
    }

    /// What keeps the function's group from being used at the moment: functions that neither a driver of VFIO nor `besides`
    /// has, which are about to be bound, too.
    ///
    /// # Errors
    /// The function cannot be looked at.
    pub fn in_the_way(&self, system: &System, besides: &[PciAddress]) -> Result<Option<String>, BindError> {
        let mut others = system.sysfs.function(self.function)?.in_the_way();
        others.retain(|(name, _)| name.parse().map_or(true, |other| !besides.contains(&other)));
        let group = self.group.filter(|_| !others.is_empty());
        Ok(group.map(|group| super::Error::NotViable { group, others }.to_string()))
    }

    /// The function.
    #[must_use]
    pub const fn function(&self) -> PciAddress {
        self.function
    }

    /// Its driver when the plan was made.
    #[must_use]
    pub fn from(&self) -> Option<&str> {
        self.from.as_deref()
    }

    /// Its IOMMU group.
    #[must_use]
    pub const fn group(&self) -> Option<u32> {
        self.group
    }

    /// What will be written, in this order; nothing if nothing is to be done.
    pub fn steps(&self) -> impl Iterator<Item = &Step> {
        [&self.choose, &self.unbind, &self.probe].into_iter().flatten()
    }

    /// What whoever uses the function should know.
    #[must_use]
    pub fn warnings(&self) -> &[String] {
        &self.warnings
    }

    /// Carries the plan out, and checks what came of it.
    ///
    /// # Errors
    /// The function came into use meanwhile, a file cannot be written, or the driver does not take the function, which is
    /// given back to its old one then.
    pub fn carry_out(&self, system: &System) -> Result<Done, BindError> {
        if let Some(step) = &self.choose {
            system.write(step)?;
        }
        if let Err(error) = self.take_from_driver(system) {
            // Otherwise the next look for a driver would do what was just refused. Why it was says more than what comes of this.
            if self.choose.is_some() {
                let _ = system.write(&self.unchoose);
            }
            return Err(error);
        }
        let probed = self.probe.as_ref().map_or(Ok(()), |step| system.write(step));
        let found = system.sysfs.function(self.function).map_err(BindError::Afterwards)?;
        let mut done = Done {
            function: self.function,
            before: self.from.clone(),
            driver: found.driver.clone(),
            group: self.group,
            warnings: self.warnings.clone(),
        };
        match self.direction {
            Direction::ToVfio if found.driver.as_deref() == Some(VFIO_PCI) => {
                self.check_file(system, &found)?;
            }
            Direction::ToVfio => return Err(self.give_back(system, found.driver)),
            Direction::Back => match found.driver {
                Some(driver) if is_vfio(&driver) => {
                    return Err(BindError::TakenAgain { function: self.function, driver, id: found.id });
                }
                Some(_) => {}
                None => {
                    probed?;
                    let text = "no driver took it; the kernel's own is loaded by modprobe nvme";
                    done.warnings.push(text.to_owned());
                }
            },
        }
        Ok(done)
    }

    /// Takes the function from its driver, unless it is in use by now.
    fn take_from_driver(&self, system: &System) -> Result<(), BindError> {
        let Some(step) = &self.unbind else { return Ok(()) };
        let found = system.check(self.function)?;
        if self.from.as_deref().is_some_and(is_taken_by_programs) {
            system.closed(&found)?;
        }
        if self.direction == Direction::Back {
            return system.write(step);
        }
        let users = system.unused(self.function)?;
        if let Some((device, error)) = users.unknown.first() {
            return Err(BindError::Unknown(device.clone(), error.raw_os_error()));
        }
        let written = system.write(step);
        drop(users.held);
        written
    }

    /// Checks that a program finds what it has to open.
    fn check_file(&self, system: &System, found: &PciFunction) -> Result<(), BindError> {
        let group = self.group.map(|group| system.dev.join(format!("vfio/{group}")));
        let own = system.device_file(found);
        if [&own, &group].into_iter().flatten().any(|file| file.exists()) {
            return Ok(());
        }
        match group.or(own) {
            Some(file) => Err(BindError::NoFile { function: self.function, file }),
            None => Err(BindError::Afterwards(super::Error::NoGroup(self.function))),
        }
    }

    /// Lets the function's old driver have it again.
    fn give_back(&self, system: &System, driver: Option<String>) -> BindError {
        let not_taken = |driver| BindError::NotTaken { function: self.function, driver };
        let cleared = system.write(&system.driver_override(self.function, ""));
        if driver.is_some() || cleared.is_err() {
            return not_taken(driver);
        }
        // Whether that succeeds is seen from the driver.
        let _ = system.write(&system.probe(self.function));
        not_taken(system.sysfs.function(self.function).ok().and_then(|found| found.driver))
    }
}

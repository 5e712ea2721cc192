// SPDX-License-Identifier: MIT OR Apache-2.0
//! Why a function is not bound, or not given back, and what to do about it.

use std::fmt;
use std::path::PathBuf;

use super::users::User;
use crate::address::PciAddress;
use crate::vfio::Error;

/// Why a function was not given to another driver.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BindError {
    /// The function cannot be looked at, is not there, or is behind no IOMMU.
    Vfio(Error),
    /// The function was taken from its driver, and cannot be looked at or used since.
    Afterwards(Error),
    /// The function is no NVM Express controller.
    NotNvme {
        /// The function.
        function: PciAddress,
        /// Its class code, if sysfs has one.
        class: Option<u32>,
    },
    /// Devices of the controller are in use.
    InUse {
        /// The function.
        function: PciAddress,
        /// Which, and how; at least one.
        users: Vec<User>,
    },
    /// Whether a device is in use cannot be found out: the device, and why.
    Unknown(PathBuf, i32),
    /// The function has active virtual functions, which would go away.
    VirtualFunctions {
        /// The function.
        function: PciAddress,
        /// How many.
        count: u32,
    },
    /// The function, or another of its IOMMU group, is in use through VFIO or UIO.
    Open {
        /// The function.
        function: PciAddress,
        /// The file that leads to it.
        file: PathBuf,
        /// The process that has it open, if that is known, and its name.
        process: Option<(u32, String)>,
    },
    /// A driver has the function that is neither the kernel's own nor one that leaves it to programs.
    OtherDriver {
        /// The function.
        function: PciAddress,
        /// The driver.
        driver: String,
    },
    /// The driver is not loaded.
    NoDriver,
    /// The driver has no file in `/dev` for the function.
    NoFile {
        /// The function.
        function: PciAddress,
        /// The file.
        file: PathBuf,
    },
    /// A file could not be written: the file, and why.
    Write(PathBuf, i32),
    /// A file could not be read: what, and why.
    Read(&'static str, i32),
    /// The driver did not take the function.
    NotTaken {
        /// The function.
        function: PciAddress,
        /// The driver that has it now.
        driver: Option<String>,
    },
    /// A driver of VFIO took the function again.
    TakenAgain {
        /// The function.
        function: PciAddress,
        /// The driver.
        driver: String,
        /// PCI Vendor ID and Device ID.
        id: Option<(u16, u16)>,
    },
}

impl BindError {
    /// Whether the function was refused, and nothing of it changed.
    #[must_use]
    pub const fn is_refusal(&self) -> bool {
        match self {
            Self::Vfio(_)
            | Self::NotNvme { .. }
            | Self::InUse { .. }
            | Self::VirtualFunctions { .. }
            | Self::Open { .. }
            | Self::OtherDriver { .. }
            | Self::NoDriver => true,
            Self::Afterwards(_)
            | Self::Unknown(..)
            | Self::NoFile { .. }
            | Self::Write(..)
            | Self::Read(..)
            | Self::NotTaken { .. }
            | Self::TakenAgain { .. } => false,
        }
    }
}

impl From<Error> for BindError {
    fn from(error: Error) -> Self {
        Self::Vfio(error)
    }
}

impl std::error::Error for BindError {}

/// What to do about a refused access.
fn hint(errno: i32) -> &'static str {
    match rustix::io::Errno::from_raw_os_error(errno) {
        rustix::io::Errno::ACCESS | rustix::io::Errno::PERM => "; run as root",
        _ => "",
    }
}

impl fmt::Display for BindError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let system = std::io::Error::from_raw_os_error;
        match self {
            Self::Vfio(error) => error.fmt(f),
            Self::Afterwards(error) => write!(f, "the function was taken from its driver, but: {error}"),
            Self::NotNvme { function, class: Some(class) } => write!(
                f,
                "PCI function {function} has class code {class:#08x}; an NVM Express controller has 0x010802 or 0x010803"
            ),
            Self::NotNvme { function, class: None } => {
                write!(
                    f,
                    "PCI function {function} has no class code; an NVM Express controller has 0x010802 or 0x010803"
                )
            }
            Self::InUse { function, users } => {
                write!(f, "PCI function {function} is in use: ")?;
                for (at, user) in users.iter().enumerate() {
                    write!(f, "{}{user}", if at == 0 { "" } else { "; " })?;
                }
                Ok(())
            }
            Self::Unknown(device, errno) => write!(
                f,
                "whether {} is in use cannot be found out: {}{}",
                device.display(),
                system(*errno),
                hint(*errno)
            ),
            Self::VirtualFunctions { function, count } => write!(
                f,
                "PCI function {function} has {count} active virtual functions, which would go away; remove them first \
                 (echo 0 > /sys/bus/pci/devices/{function}/sriov_numvfs)"
            ),
            Self::Open { function, file, process } => {
                write!(f, "PCI function {function} is in use: {} is open in ", file.display())?;
                match process {
                    Some((process, name)) => write!(f, "process {process} ({name}); end that first"),
                    None => write!(f, "another process; end that first (fuser -v {})", file.display()),
                }
            }
            Self::OtherDriver { function, driver } => write!(
                f,
                "PCI function {function} has the driver {driver}, of which it is not known who uses it; see to that, then take \
                 the function from it (echo {function} > /sys/bus/pci/drivers/{driver}/unbind) and try again"
            ),
            Self::NoDriver => f.write_str("the driver vfio-pci is not loaded; load it (modprobe vfio-pci)"),
            Self::NoFile { function, file } => write!(
                f,
                "PCI function {function} is bound to vfio-pci, but {} is not there; load the module vfio_iommu_type1, or see \
                 that /dev is a devtmpfs",
                file.display()
            ),
            Self::Write(file, errno) => {
                write!(f, "{} cannot be written: {}{}", file.display(), system(*errno), hint(*errno))
            }
            Self::Read(what, errno) => write!(f, "{what}: {}{}", system(*errno), hint(*errno)),
            Self::NotTaken { function, driver } => {
                write!(f, "vfio-pci did not take PCI function {function}, and ")?;
                match driver {
                    Some(driver) => write!(f, "{driver} has it again"),
                    None => f.write_str("no driver has it now"),
                }?;
                f.write_str("; the kernel's log says why (dmesg)")
            }
            Self::TakenAgain { function, driver, id } => {
                write!(f, "{driver} took PCI function {function} again")?;
                match id {
                    Some((vendor, device)) => write!(
                        f,
                        ", because it was told to take all of its model; take that back \
                         (echo {vendor:04x} {device:04x} > /sys/bus/pci/drivers/{driver}/remove_id) and try again"
                    ),
                    None => f.write_str("; the kernel's log says why (dmesg)"),
                }
            }
        }
    }
}

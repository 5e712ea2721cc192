// SPDX-License-Identifier: MIT OR Apache-2.0
//! Why a PCI function cannot be used, and what to do about it.

use std::fmt;
use std::path::PathBuf;

use rustix::io::Errno;

use crate::address::PciAddress;
use crate::memory::SpaceError;

/// Why something asked of VFIO was not done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Error {
    /// The operating system refuses: what was tried, and its errno.
    System(&'static str, i32),
    /// There is no such function.
    NoFunction(PciAddress),
    /// The function is bound to another driver, or to none.
    NotBound {
        /// The function.
        function: PciAddress,
        /// Its driver.
        driver: Option<String>,
    },
    /// The function is behind no IOMMU.
    NoGroup(PciAddress),
    /// The kernel has no VFIO, or it is not loaded: what is missing.
    NoVfio(PathBuf),
    /// The kernel has no iommufd, or it is not loaded: what is missing.
    NoIommufd(PathBuf),
    /// The function has no file of its own, by which iommufd wants it opened.
    NoDeviceFile(PciAddress),
    /// The kernel's VFIO speaks another version of the interface.
    Version(u32),
    /// The kernel's VFIO cannot do this.
    NoType1,
    /// This user may not open the file.
    Permission(PathBuf),
    /// Somebody else has the group open.
    InUse(PathBuf),
    /// Other functions of the group are in the hands of other drivers.
    NotViable {
        /// The group.
        group: u32,
        /// The functions, as sysfs names them, each with its driver.
        others: Vec<(String, String)>,
    },
    /// The function takes part in single-root I/O virtualisation and wants another token, or one at all.
    Token(PciAddress),
    /// The function takes no part in single-root I/O virtualisation, and no token.
    NoToken(PciAddress),
    /// The kernel takes tokens for functions of groups only.
    TokenNotTaken(PciAddress),
    /// More memory would be locked than this user may lock.
    MemoryLock {
        /// Bytes that have to be locked in all.
        needed: u64,
        /// Bytes that may be.
        allowed: u64,
    },
    /// Memory could not be locked, although this container alone may lock so much: other memory counts, too.
    MemoryLockWithOthers {
        /// Bytes that this container has to lock in all.
        needed: u64,
        /// Bytes that may be locked together.
        allowed: u64,
    },
    /// Memory could not be locked although no limit holds for this process: there is none left, for itself or for the
    /// IOMMU's tables.
    NoMemoryLeft {
        /// Bytes that this container has to lock in all.
        needed: u64,
    },
    /// More memory than the computer has.
    Memory {
        /// Bytes asked for.
        needed: u64,
        /// Bytes that there are.
        present: u64,
    },
    /// Memory was not had.
    Space(SpaceError),
    /// An address space that is not linear: it would need a mapping for each page.
    NotLinear,
    /// The IOMMU has no free addresses for so many bytes in one piece.
    NoAddresses(u64),
    /// Memory lies at bus addresses that the IOMMU does not have, or has given away.
    Addresses {
        /// The first.
        first: u64,
        /// The last.
        last: u64,
    },
    /// No more mappings are possible.
    Mappings {
        /// Asked for.
        needed: usize,
        /// How many remain.
        left: u32,
    },
    /// The smallest page of the IOMMU is larger than a page of memory: bytes.
    PageSize(u64),
    /// The container has no function yet, so that nothing can be mapped.
    NoFunctionYet,
    /// What the kernel says cannot be: what.
    Information(&'static str),
    /// The function is no NVM Express controller: its class code.
    NotNvme(u32),
    /// What the function says of itself cannot be used: what, and the value.
    Device(&'static str, u64),
    /// More interrupt vectors than the function has.
    Vectors {
        /// Asked for.
        asked: u16,
        /// There are.
        found: u32,
    },
    /// The function cannot be reset.
    NoReset,
}

impl Error {
    /// Whether a function that cannot be used by iommufd, for this reason, may be by type 1.
    pub(super) const fn leaves_type1(&self) -> bool {
        matches!(
            self,
            Self::NoIommufd(_) | Self::NoDeviceFile(_) | Self::Permission(_) | Self::TokenNotTaken(_)
        )
    }

    pub(crate) fn errno(what: &'static str, error: Errno) -> Self {
        Self::System(what, error.raw_os_error())
    }

    pub(crate) fn io(what: &'static str, error: &std::io::Error) -> Self {
        Self::System(what, error.raw_os_error().unwrap_or(0))
    }
}

impl std::error::Error for Error {}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::System(what, 0) => write!(f, "{what} failed"),
            Self::System(what, errno) => write!(f, "{what}: {}", std::io::Error::from_raw_os_error(*errno)),
            Self::NoFunction(function) => write!(f, "there is no PCI function {function}; lspci -D lists them"),
            Self::NotBound { function, driver } => {
                write!(f, "PCI function {function} is bound to ")?;
                match driver {
                    Some(driver) => write!(f, "the driver {driver}"),
                    None => f.write_str("no driver"),
                }?;
                write!(f, "; bind it to vfio-pci (nvme-lm bind {function})")
            }
            Self::NoGroup(function) => write!(
                f,
                "PCI function {function} is behind no IOMMU; turn it on in the firmware and on the kernel's command line \
                 (intel_iommu=on on Intel)"
            ),
            Self::NoVfio(path) => write!(
                f,
                "{} is not there: load the modules vfio-pci and vfio_iommu_type1, or use a kernel with CONFIG_VFIO_PCI and \
                 CONFIG_VFIO_IOMMU_TYPE1",
                path.display()
            ),
            Self::NoIommufd(path) => write!(
                f,
                "{} is not there: load the module iommufd, use a kernel with CONFIG_IOMMUFD (Linux 6.2 and later), or use \
                 type 1 (--iommu type1)",
                path.display()
            ),
            Self::NoDeviceFile(function) => write!(
                f,
                "PCI function {function} has no file in /dev/vfio/devices; use a kernel with CONFIG_VFIO_DEVICE_CDEV (Linux \
                 6.6 and later), or use type 1 (--iommu type1)"
            ),
            Self::Version(version) => {
                write!(f, "the kernel's VFIO speaks version {version}; use a kernel whose VFIO speaks version 0")
            }
            Self::NoType1 => f.write_str(
                "the kernel's VFIO has no type 1 IOMMU; load the module vfio_iommu_type1 or use a kernel that has it",
            ),
            Self::Permission(path) => write!(
                f,
                "no permission to open {}; give this user the right to read and write it (chown), or run as root",
                path.display()
            ),
            Self::InUse(path) => write!(
                f,
                "{} is in use by another process, or by another address space of this one; end that first (fuser -v {0})",
                path.display()
            ),
            Self::NotViable { group, others } => {
                write!(f, "IOMMU group {group} cannot be used, because other drivers have functions of it")?;
                for (at, (name, driver)) in others.iter().enumerate() {
                    let separator = if at == 0 { ": " } else { ", " };
                    write!(f, "{separator}{name} ({driver})")?;
                }
                f.write_str("; unbind them, or bind them to vfio-pci")
            }
            Self::Token(function) => write!(
                f,
                "PCI function {function} wants another token for virtual functions: give every function of the device the \
                 same vf_token"
            ),
            Self::NoToken(function) => write!(
                f,
                "PCI function {function} takes no token, because it has no virtual functions and is none, or its physical \
                 function is not bound to vfio-pci, or that was loaded without enable_sriov=1; open it without vf_token, or bind \
                 the physical function"
            ),
            Self::TokenNotTaken(function) => write!(
                f,
                "the kernel takes no vf_token for PCI function {function} by iommufd (Linux 6.17 and later do); use \
                 type 1 (--iommu type1)"
            ),
            Self::MemoryLockWithOthers { needed, allowed } => write!(
                f,
                "{needed} bytes of memory have to be locked; {allowed} are allowed together with what this process (by \
                 iommufd: any process of this user) has locked already; raise the limit (ulimit -l), or use less memory \
                 (or the system has none left)"
            ),
            Self::NoMemoryLeft { needed } => write!(
                f,
                "{needed} bytes of memory have to be locked, and the system has no such memory left; use less, or end other \
                 programs (in a user namespace the limit of its owner counts: ulimit -l)"
            ),
            Self::Memory { needed, present } => {
                write!(f, "{needed} bytes of memory asked for; the computer has {present}; use less memory")
            }
            Self::Space(error) => write!(f, "{error}"),
            Self::MemoryLock { needed, allowed } => write!(
                f,
                "{needed} bytes of memory have to be locked, {allowed} are allowed; raise the limit (ulimit -l {}), or use \
                 less memory",
                needed.div_ceil(1024)
            ),
            Self::NotLinear => {
                f.write_str("the address space is scattered over the bus; give the container a linear one")
            }
            Self::NoAddresses(bytes) => {
                write!(f, "the IOMMU has no {bytes:#x} free bus addresses in one piece; use less memory")
            }
            Self::Addresses { first, last } => write!(
                f,
                "bus addresses {first:#x} to {last:#x} are in use or not among those of the IOMMU; let the container choose"
            ),
            Self::Mappings { needed, left } => write!(
                f,
                "{needed} mappings are needed, {left} are left; raise the parameter dma_entry_limit of the module \
                 vfio_iommu_type1"
            ),
            Self::PageSize(bytes) => {
                write!(f, "the smallest page of the IOMMU has {bytes} bytes; pages of 4096 bytes are needed")
            }
            Self::NoFunctionYet => f.write_str("the container has no function yet; open one before mapping memory"),
            Self::Information(what) => write!(f, "the kernel's information cannot be used: {what}"),
            Self::NotNvme(class) => {
                write!(f, "the function has class code {class:#08x}; an NVM Express controller has 0x010802 or 0x010803")
            }
            Self::Device(what, value) => write!(f, "the function cannot be used: {what} ({value:#x})"),
            Self::Vectors { asked, found } => {
                write!(f, "{asked} interrupt vectors asked for; the function has {found}; use fewer queues, or --polling")
            }
            Self::NoReset => f.write_str("the function cannot be reset; disable the controller instead"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_refusal_says_what_was_wrong_the_value_and_what_to_do() {
        let function: PciAddress = "0000:01:00.0".parse().expect("an address");
        let path = |path: &str| PathBuf::from(path);
        let others = |list: &[(&str, &str)]| {
            list.iter().map(|(name, driver)| ((*name).to_owned(), (*driver).to_owned())).collect()
        };
        let rows = [
            (Error::System("resetting the function", 0), "resetting the function failed"),
            (
                Error::System("resetting the function", Errno::PERM.raw_os_error()),
                "resetting the function: Operation not permitted (os error 1)",
            ),
            (Error::NoFunction(function), "there is no PCI function 0000:01:00.0; lspci -D lists them"),
            (
                Error::NotBound { function, driver: Some("nvme".into()) },
                "PCI function 0000:01:00.0 is bound to the driver nvme; bind it to vfio-pci (nvme-lm bind 0000:01:00.0)",
            ),
            (
                Error::NotBound { function, driver: None },
                "PCI function 0000:01:00.0 is bound to no driver; bind it to vfio-pci (nvme-lm bind 0000:01:00.0)",
            ),
            (
                Error::NoGroup(function),
                "PCI function 0000:01:00.0 is behind no IOMMU; turn it on in the firmware and on the kernel's command \
                 line (intel_iommu=on on Intel)",
            ),
            (
                Error::NoVfio(path("/dev/vfio/vfio")),
                "/dev/vfio/vfio is not there: load the modules vfio-pci and vfio_iommu_type1, or use a kernel with \
                 CONFIG_VFIO_PCI and CONFIG_VFIO_IOMMU_TYPE1",
            ),
            (
                Error::NoIommufd(path("/dev/iommu")),
                "/dev/iommu is not there: load the module iommufd, use a kernel with CONFIG_IOMMUFD (Linux 6.2 and \
                 later), or use type 1 (--iommu type1)",
            ),
            (
                Error::NoDeviceFile(function),
                "PCI function 0000:01:00.0 has no file in /dev/vfio/devices; use a kernel with CONFIG_VFIO_DEVICE_CDEV \
                 (Linux 6.6 and later), or use type 1 (--iommu type1)",
            ),
            (
                Error::Version(3),
                "the kernel's VFIO speaks version 3; use a kernel whose VFIO speaks version 0",
            ),
            (
                Error::NoType1,
                "the kernel's VFIO has no type 1 IOMMU; load the module vfio_iommu_type1 or use a kernel that has it",
            ),
            (
                Error::Permission(path("/dev/vfio/7")),
                "no permission to open /dev/vfio/7; give this user the right to read and write it (chown), or run as root",
            ),
            (
                Error::InUse(path("/dev/vfio/7")),
                "/dev/vfio/7 is in use by another process, or by another address space of this one; end that first \
                 (fuser -v /dev/vfio/7)",
            ),
            (
                Error::NotViable {
                    group: 7,
                    others: others(&[("0000:01:00.1", "nvme"), ("0000:01:00.2", "e1000e")]),
                },
                "IOMMU group 7 cannot be used, because other drivers have functions of it: 0000:01:00.1 (nvme), \
                 0000:01:00.2 (e1000e); unbind them, or bind them to vfio-pci",
            ),
            (
                Error::NotViable { group: 7, others: others(&[]) },
                "IOMMU group 7 cannot be used, because other drivers have functions of it; unbind them, or bind them to \
                 vfio-pci",
            ),
            (
                Error::Token(function),
                "PCI function 0000:01:00.0 wants another token for virtual functions: give every function of the device \
                 the same vf_token",
            ),
            (
                Error::NoToken(function),
                "PCI function 0000:01:00.0 takes no token, because it has no virtual functions and is none, or its \
                 physical function is not bound to vfio-pci, or that was loaded without enable_sriov=1; open it without \
                 vf_token, or bind the physical function",
            ),
            (
                Error::TokenNotTaken(function),
                "the kernel takes no vf_token for PCI function 0000:01:00.0 by iommufd (Linux 6.17 and later do); use \
                 type 1 (--iommu type1)",
            ),
            (
                Error::MemoryLock { needed: (1 << 20) + 1, allowed: 1 << 16 },
                "1048577 bytes of memory have to be locked, 65536 are allowed; raise the limit (ulimit -l 1025), or use \
                 less memory",
            ),
            (
                Error::MemoryLockWithOthers { needed: 8192, allowed: 12288 },
                "8192 bytes of memory have to be locked; 12288 are allowed together with what this process (by iommufd: any \
                 process of this user) has locked already; raise the limit (ulimit -l), or use less memory (or the system \
                 has none left)",
            ),
            (
                Error::NoMemoryLeft { needed: 8192 },
                "8192 bytes of memory have to be locked, and the system has no such memory left; use less, or end other \
                 programs (in a user namespace the limit of its owner counts: ulimit -l)",
            ),
            (
                Error::Memory { needed: 8192, present: 4096 },
                "8192 bytes of memory asked for; the computer has 4096; use less memory",
            ),
            (
                Error::NotLinear,
                "the address space is scattered over the bus; give the container a linear one",
            ),
            (
                Error::NoAddresses(0x20_0000),
                "the IOMMU has no 0x200000 free bus addresses in one piece; use less memory",
            ),
            (
                Error::Addresses { first: 0xFEE0_0000, last: 0xFEE0_0FFF },
                "bus addresses 0xfee00000 to 0xfee00fff are in use or not among those of the IOMMU; let the container choose",
            ),
            (
                Error::Mappings { needed: 3, left: 2 },
                "3 mappings are needed, 2 are left; raise the parameter dma_entry_limit of the module vfio_iommu_type1",
            ),
            (
                Error::PageSize(65536),
                "the smallest page of the IOMMU has 65536 bytes; pages of 4096 bytes are needed",
            ),
            (Error::NoFunctionYet, "the container has no function yet; open one before mapping memory"),
            (
                Error::Information("a capability lies outside the structure"),
                "the kernel's information cannot be used: a capability lies outside the structure",
            ),
            (
                Error::NotNvme(0x02_0000),
                "the function has class code 0x020000; an NVM Express controller has 0x010802 or 0x010803",
            ),
            (
                Error::Device("BAR 0 is too short", 0x1000),
                "the function cannot be used: BAR 0 is too short (0x1000)",
            ),
            (
                Error::Vectors { asked: 9, found: 5 },
                "9 interrupt vectors asked for; the function has 5; use fewer queues, or --polling",
            ),
            (Error::NoReset, "the function cannot be reset; disable the controller instead"),
        ];
        for (error, text) in rows {
            assert_eq!(error.to_string(), text);
        }
        let space = SpaceError::HugePages { needed: 4, free: 1 };
        assert_eq!(Error::Space(space).to_string(), space.to_string());
    }
}

// SPDX-License-Identifier: MIT OR Apache-2.0
//! The IOMMU by iommufd: one address space (IOAS), and functions opened by files of their own. Linux,
//! `Documentation/userspace-api/iommufd.rst` and `Documentation/driver-api/vfio.rst`, VFIO Device cdev.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use rustix::io::Errno;

use super::container::{FOLDER, open};
use super::controller::OpenOptions;
use super::error::Error;
use super::info::IommuLimits;
use super::sysfs::PciFunction;
use crate::memory::Window;
use crate::sys::Mapping;
use crate::sys::iommufd as sys;

const IOMMU: &str = "/dev/iommu";

/// An address space with its functions.
#[derive(Debug)]
pub(super) struct Iommufd {
    /// Object in the file, with which it goes.
    space: u32,
    has_function: bool,
    file: OwnedFd,
}

impl Iommufd {
    pub(super) fn new() -> Result<Self, Error> {
        let file = open(Path::new(IOMMU), Error::NoIommufd)?;
        let space = sys::allocate_space(file.as_fd())
            .map_err(|error| Error::io("making an address space of iommufd", &error))?;
        Ok(Self { space, has_function: false, file })
    }

    /// Opens a function and lets it see what is mapped.
    pub(super) fn open(&mut self, function: &PciFunction, options: &OpenOptions) -> Result<OwnedFd, Error> {
        let address = function.address;
        let name = function.device_file.as_ref().ok_or(Error::NoDeviceFile(address))?;
        let path = Path::new(FOLDER).join("devices").join(name);
        let device = open(&path, |_| Error::NoDeviceFile(address))?;
        let token = options.vf_token.map(|token| token.bytes());
        sys::bind(device.as_fd(), self.file.as_fd(), token.as_ref()).map_err(|error| {
            match error.raw_os_error().map(Errno::from_raw_os_error) {
                Some(Errno::ACCESS) => Error::Token(address),
                // A kernel that does not know the longer structure.
                Some(Errno::TOOBIG) if token.is_some() => Error::TokenNotTaken(address),
                Some(Errno::INVAL) if token.is_some() => {
                    match sys::takes_tokens(device.as_fd(), self.file.as_fd()) {
                        true => Error::NoToken(address),
                        false => Error::TokenNotTaken(address),
                    }
                }
                // Another process has bound it; or another has its group; or another iommufd has a neighbour.
                Some(Errno::INVAL | Errno::BUSY) => Error::InUse(path.clone()),
                _ => Error::io("binding the function to iommufd", &error),
            }
        })?;
        sys::attach(device.as_fd(), self.space)
            .map_err(|error| Error::io("letting the function see the address space", &error))?;
        self.has_function = true;
        Ok(device)
    }

    pub(super) const fn has_function(&self) -> bool {
        self.has_function
    }

    pub(super) fn limits(&self) -> Result<IommuLimits, Error> {
        let (ranges, alignment) = sys::ranges(self.file.as_fd(), self.space)
            .map_err(|error| Error::io("asking for the IOMMU's limits", &error))?;
        IommuLimits::of_ranges(ranges, alignment)
    }

    pub(super) fn map(&self, mapping: &Mapping, window: Window) -> io::Result<()> {
        let bytes = (window.offset as usize, window.len as usize);
        sys::map(self.file.as_fd(), self.space, mapping, bytes, window.address.get())
    }

    pub(super) fn unmap(&self, window: Window) -> io::Result<()> {
        sys::unmap(self.file.as_fd(), self.space, window.address.get(), window.len)
    }
}

// SPDX-License-Identifier: MIT OR Apache-2.0
//! The IOMMU by containers and groups: `VFIO_TYPE1v2_IOMMU`.

use std::collections::BTreeMap;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use rustix::io::Errno;
use vfio_bindings::bindings::vfio::{
    VFIO_API_VERSION, VFIO_DMA_MAP_FLAG_READ, VFIO_DMA_MAP_FLAG_WRITE, VFIO_GROUP_FLAGS_VIABLE,
    VFIO_TYPE1v2_IOMMU,
};

use super::container::{FOLDER, open};
use super::controller::OpenOptions;
use super::error::Error;
use super::info::IommuLimits;
use super::sysfs::PciFunction;
use crate::memory::Window;
use crate::sys::Mapping;
use crate::sys::vfio as sys;

const CONTAINER: &str = "/dev/vfio/vfio";

/// A container with its groups.
#[derive(Debug)]
pub(super) struct Type1 {
    // Groups leave the container before it is closed.
    groups: BTreeMap<u32, OwnedFd>,
    file: OwnedFd,
}

impl Type1 {
    pub(super) fn new() -> Result<Self, Error> {
        let file = open(Path::new(CONTAINER), Error::NoVfio)?;
        let version =
            sys::api_version(file.as_fd()).map_err(|error| Error::io("asking for VFIO's version", &error))?;
        if version != VFIO_API_VERSION {
            return Err(Error::Version(version));
        }
        match sys::has_extension(file.as_fd(), VFIO_TYPE1v2_IOMMU) {
            Ok(true) => Ok(Self { groups: BTreeMap::new(), file }),
            Ok(false) => Err(Error::NoType1),
            Err(error) => Err(Error::io("asking for VFIO's kinds of IOMMU", &error)),
        }
    }

    /// Opens a function of `group` and lets it see what is mapped.
    pub(super) fn open(
        &mut self,
        number: u32,
        function: &PciFunction,
        options: &OpenOptions,
    ) -> Result<OwnedFd, Error> {
        let address = function.address;
        // A group stays only with a function: dropped before, it leaves the container to others.
        let added = match self.groups.contains_key(&number) {
            true => None,
            false => Some(self.add_group(number, function)?),
        };
        let group = added.as_ref().or(self.groups.get(&number)).ok_or(Error::NoGroup(address))?;
        let device = sys::open_device(group.as_fd(), &options.device_name(address)).map_err(|error| {
            match error.raw_os_error().map(Errno::from_raw_os_error) {
                Some(Errno::ACCESS) => Error::Token(address),
                Some(Errno::INVAL) if options.vf_token.is_some() => Error::NoToken(address),
                Some(Errno::BUSY) => Error::InUse(Path::new(FOLDER).join(number.to_string())),
                _ => Error::io("opening the function", &error),
            }
        })?;
        if let Some(group) = added {
            self.groups.insert(number, group);
        }
        Ok(device)
    }

    fn add_group(&self, number: u32, function: &PciFunction) -> Result<OwnedFd, Error> {
        let group = open(&Path::new(FOLDER).join(number.to_string()), Error::NoVfio)?;
        let status = sys::group_status(group.as_fd())
            .map_err(|error| Error::io("asking for the group's state", &error))?;
        if status & VFIO_GROUP_FLAGS_VIABLE == 0 {
            return Err(Error::NotViable { group: number, others: function.in_the_way() });
        }
        sys::set_container(group.as_fd(), self.file.as_fd())
            .map_err(|error| Error::io("putting the group into the container", &error))?;
        if self.groups.is_empty() {
            sys::set_iommu(self.file.as_fd(), VFIO_TYPE1v2_IOMMU)
                .map_err(|error| Error::io("turning the IOMMU on for the container", &error))?;
        }
        Ok(group)
    }

    pub(super) fn has_function(&self) -> bool {
        !self.groups.is_empty()
    }

    pub(super) fn limits(&self) -> Result<IommuLimits, Error> {
        let info = sys::iommu_info(self.file.as_fd());
        IommuLimits::parse(&info.map_err(|error| Error::io("asking for the IOMMU's limits", &error))?)
    }

    pub(super) fn map(&self, mapping: &Mapping, window: Window) -> io::Result<()> {
        let rights = VFIO_DMA_MAP_FLAG_READ | VFIO_DMA_MAP_FLAG_WRITE;
        let bytes = (window.offset as usize, window.len as usize);
        sys::map_dma(self.file.as_fd(), mapping, bytes, window.address.get(), rights)
    }

    pub(super) fn unmap(&self, window: Window) -> io::Result<()> {
        sys::unmap_dma(self.file.as_fd(), window.address.get(), window.len).map(drop)
    }
}

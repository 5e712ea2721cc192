// SPDX-License-Identifier: MIT OR Apache-2.0
//! Containers: the IOMMU's side of VFIO.

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::sync::{Arc, Mutex};

use nvme_core::wire::BusAddr;
use rustix::io::Errno;
use rustix::process::{Resource, getrlimit};
use vfio_bindings::bindings::vfio::{
    VFIO_API_VERSION, VFIO_DMA_MAP_FLAG_READ, VFIO_DMA_MAP_FLAG_WRITE, VFIO_GROUP_FLAGS_VIABLE,
    VFIO_TYPE1v2_IOMMU,
};

use super::controller::{OpenOptions, VfioController};
use super::error::Error;
use super::info::IommuLimits;
use super::sysfs::{PciFunction, Sysfs};
use crate::address::PciAddress;
use crate::memory::{AddressSpace, Capacity, PAGE, Window};
use crate::sync::lock;
use crate::sys::vfio as sys;

const FOLDER: &str = "/dev/vfio";
const CONTAINER: &str = "/dev/vfio/vfio";

/// One bus address space behind the IOMMU, with the functions that see it. Nothing is reachable in it but what is mapped.
#[derive(Debug)]
pub struct Container {
    sysfs: Sysfs,
    state: Mutex<State>,
    // Groups leave it before it is closed: they stand in `state`.
    file: OwnedFd,
}

#[derive(Debug, Default)]
struct State {
    groups: BTreeMap<u32, OwnedFd>,
    /// First and last bus address of each mapping.
    taken: Vec<(u64, u64)>,
}

/// Opens a file of VFIO.
fn open(path: &Path) -> Result<OwnedFd, Error> {
    match File::options().read(true).write(true).open(path) {
        Ok(file) => Ok(file.into()),
        Err(error) => Err(match error.kind() {
            io::ErrorKind::NotFound => Error::NoVfio(path.to_owned()),
            io::ErrorKind::PermissionDenied => Error::Permission(path.to_owned()),
            io::ErrorKind::ResourceBusy => Error::InUse(path.to_owned()),
            // The device node outlives the module.
            _ if error.raw_os_error() == Some(Errno::NODEV.raw_os_error()) => Error::NoVfio(path.to_owned()),
            _ => Error::io("opening a file of VFIO", &error),
        }),
    }
}

impl Container {
    /// Makes a container with no function and nothing mapped.
    ///
    /// # Errors
    /// The kernel has no VFIO, none of type 1, or this user may not use it.
    pub fn new() -> Result<Arc<Self>, Error> {
        Self::with_sysfs(Sysfs::default())
    }

    /// As [`new`](Self::new), with functions looked up elsewhere than in `/sys`.
    ///
    /// # Errors
    /// As [`new`](Self::new).
    pub fn with_sysfs(sysfs: Sysfs) -> Result<Arc<Self>, Error> {
        let file = open(Path::new(CONTAINER))?;
        let version =
            sys::api_version(file.as_fd()).map_err(|error| Error::io("asking for VFIO's version", &error))?;
        if version != VFIO_API_VERSION {
            return Err(Error::Version(version));
        }
        match sys::has_extension(file.as_fd(), VFIO_TYPE1v2_IOMMU) {
            Ok(true) => Ok(Arc::new(Self { sysfs, state: Mutex::default(), file })),
            Ok(false) => Err(Error::NoType1),
            Err(error) => Err(Error::io("asking for VFIO's kinds of IOMMU", &error)),
        }
    }

    /// Opens a function and lets it see the container: looks at the device, maps its registers, and lets it be master of
    /// the bus. A function of a group that is in use by another container cannot be opened.
    ///
    /// # Errors
    /// What keeps the function from being used; see [`Error`].
    pub fn open(
        self: &Arc<Self>,
        address: PciAddress,
        options: &OpenOptions,
    ) -> Result<VfioController, Error> {
        let function = self.sysfs.function(address)?;
        let number = function.usable_group()?;
        let mut state = lock(&self.state);
        if !state.groups.contains_key(&number) {
            let group = self.add_group(number, &function, state.groups.is_empty())?;
            state.groups.insert(number, group);
        }
        let group = state.groups.get(&number).ok_or(Error::NoGroup(address))?;
        let device = sys::open_device(group.as_fd(), &options.device_name(address)).map_err(|error| {
            match error.raw_os_error().map(Errno::from_raw_os_error) {
                Some(Errno::ACCESS) => Error::Token(address),
                Some(Errno::INVAL) if options.vf_token.is_some() => Error::NoToken(address),
                Some(Errno::BUSY) => Error::InUse(Path::new(FOLDER).join(number.to_string())),
                _ => Error::io("opening the function", &error),
            }
        })?;
        VfioController::new(Arc::clone(self), function, device)
    }

    fn add_group(&self, number: u32, function: &PciFunction, first: bool) -> Result<OwnedFd, Error> {
        let group = open(&Path::new(FOLDER).join(number.to_string()))?;
        let status = sys::group_status(group.as_fd())
            .map_err(|error| Error::io("asking for the group's state", &error))?;
        if status & VFIO_GROUP_FLAGS_VIABLE == 0 {
            return Err(Error::NotViable { group: number, others: function.in_the_way() });
        }
        sys::set_container(group.as_fd(), self.file.as_fd())
            .map_err(|error| Error::io("putting the group into the container", &error))?;
        if first {
            sys::set_iommu(self.file.as_fd(), VFIO_TYPE1v2_IOMMU)
                .map_err(|error| Error::io("turning the IOMMU on for the container", &error))?;
        }
        Ok(group)
    }

    /// What the IOMMU can do for the functions opened so far.
    ///
    /// # Errors
    /// No function was opened yet, or the kernel's answer cannot be used.
    pub fn limits(&self) -> Result<IommuLimits, Error> {
        self.limits_of(&lock(&self.state))
    }

    fn limits_of(&self, state: &State) -> Result<IommuLimits, Error> {
        if state.groups.is_empty() {
            return Err(Error::NoFunctionYet);
        }
        let info = sys::iommu_info(self.file.as_fd());
        let limits =
            IommuLimits::parse(&info.map_err(|error| Error::io("asking for the IOMMU's limits", &error))?)?;
        match 1_u64.checked_shl(limits.page_sizes.trailing_zeros()) {
            Some(smallest) if smallest <= PAGE as u64 => Ok(limits),
            smallest => Err(Error::PageSize(smallest.unwrap_or(0))),
        }
    }

    /// Where the IOMMU has addresses for a [linear](AddressSpace::linear_at) space that nothing has yet, nor what lies
    /// between the first and last address of any of `placed`.
    ///
    /// # Errors
    /// No room, or no function was opened yet.
    pub fn choose(&self, capacity: Capacity, placed: &[(u64, u64)]) -> Result<u64, Error> {
        let state = lock(&self.state);
        let limits = self.limits_of(&state)?;
        let span = AddressSpace::linear_span(capacity);
        let taken: Vec<(u64, u64)> = state.taken.iter().chain(placed).copied().collect();
        limits.choose(span, PAGE as u64, &taken).ok_or(Error::NoAddresses(span))
    }

    /// Makes an address space where the IOMMU has room, and lets all functions of the container reach it until the result
    /// is dropped. Open all functions before: one that is opened later may not have these addresses.
    ///
    /// # Errors
    /// No room, too much memory locked, or the system has no memory left. Nothing is mapped then.
    pub fn create(self: &Arc<Self>, name: &str, capacity: Capacity) -> Result<MappedSpace, Error> {
        let mut state = lock(&self.state);
        let limits = self.limits_of(&state)?;
        let span = AddressSpace::linear_span(capacity);
        let start = limits.choose(span, PAGE as u64, &state.taken).ok_or(Error::NoAddresses(span))?;
        let space = AddressSpace::linear_at(name, capacity, BusAddr::new(start))
            .map_err(|error| Error::io("taking memory", &error))?;
        self.map_into(&mut state, &limits, Arc::new(space))
    }

    /// Lets all functions of the container reach `space`, which is [linear](AddressSpace::linear), until the result is
    /// dropped: one that another container has, too.
    ///
    /// # Errors
    /// As [`create`](Self::create), or its addresses are none of the IOMMU's or in use.
    pub fn map(self: &Arc<Self>, space: &Arc<AddressSpace>) -> Result<MappedSpace, Error> {
        let mut state = lock(&self.state);
        let limits = self.limits_of(&state)?;
        self.map_into(&mut state, &limits, Arc::clone(space))
    }

    fn map_into(
        self: &Arc<Self>,
        state: &mut State,
        limits: &IommuLimits,
        space: Arc<AddressSpace>,
    ) -> Result<MappedSpace, Error> {
        let windows = space.windows();
        if let Some(left) = limits.mappings_left.filter(|left| (*left as usize) < windows.len()) {
            return Err(Error::Mappings { needed: windows.len(), left });
        }
        for window in &windows {
            let (first, last) = ends(*window);
            let overlaps = state.taken.iter().any(|taken| taken.0 <= last && first <= taken.1);
            if overlaps || !limits.has(first, last) {
                return Err(Error::Addresses { first, last });
            }
        }
        let needed: u64 = windows.iter().map(|window| window.len).sum();
        let mapped: u64 = state.taken.iter().map(|(first, last)| last - first + 1).sum();
        for (at, window) in windows.iter().enumerate() {
            let rights = VFIO_DMA_MAP_FLAG_READ | VFIO_DMA_MAP_FLAG_WRITE;
            let bytes = (window.offset as usize, window.len as usize);
            let result =
                sys::map_dma(self.file.as_fd(), space.mapping(), bytes, window.address.get(), rights);
            if let Err(error) = result {
                for window in &windows[..at] {
                    self.unmap(state, *window);
                }
                return Err(why_not_mapped(&error, mapped.saturating_add(needed)));
            }
            state.taken.push(ends(*window));
        }
        Ok(MappedSpace { container: Arc::clone(self), windows, space })
    }

    fn unmap(&self, state: &mut State, window: Window) {
        // The kernel refuses only what was never mapped.
        let _ = sys::unmap_dma(self.file.as_fd(), window.address.get(), window.len);
        let ends = ends(window);
        state.taken.retain(|taken| *taken != ends);
    }
}

/// First and last bus address.
fn ends(window: Window) -> (u64, u64) {
    let first = window.address.get();
    (first, first.saturating_add(window.len.saturating_sub(1)))
}

/// The kernel says the same for memory that may not be locked and for memory that is not there.
fn why_not_mapped(error: &io::Error, needed: u64) -> Error {
    let allowed = getrlimit(Resource::Memlock).current;
    match (error.raw_os_error().map(Errno::from_raw_os_error), allowed) {
        (Some(Errno::NOMEM), Some(allowed)) if allowed < needed => Error::MemoryLock { needed, allowed },
        _ => Error::io("mapping memory for the IOMMU", error),
    }
}

/// An address space that the functions of a container reach. Dropping it takes it back.
#[derive(Debug)]
pub struct MappedSpace {
    container: Arc<Container>,
    windows: Vec<Window>,
    /// Stays for as long as it is mapped.
    space: Arc<AddressSpace>,
}

impl MappedSpace {
    /// The address space.
    #[must_use]
    pub const fn space(&self) -> &Arc<AddressSpace> {
        &self.space
    }

    /// What is mapped: each pool by itself.
    #[must_use]
    pub fn windows(&self) -> &[Window] {
        &self.windows
    }
}

impl Drop for MappedSpace {
    fn drop(&mut self) {
        let mut state = lock(&self.container.state);
        for window in self.windows.drain(..) {
            self.container.unmap(&mut state, window);
        }
    }
}

// SPDX-License-Identifier: MIT OR Apache-2.0
//! Containers: the IOMMU's side of VFIO.

use std::fmt;
use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::{Arc, Mutex};

use nvme_core::wire::BusAddr;
use rustix::io::Errno;
use rustix::process::{Resource, getrlimit};
use rustix::system::sysinfo;
use rustix::thread::{CapabilitySet, capabilities};

use super::controller::{OpenOptions, VfioController};
use super::error::Error;
use super::info::IommuLimits;
use super::iommufd::Iommufd;
use super::sysfs::{PciFunction, Sysfs};
use super::type1::Type1;
use crate::address::PciAddress;
use crate::memory::{AddressSpace, Backing, Capacity, HUGE_PAGE, PAGE, SpaceError, Window};
use crate::sync::lock;
use crate::sys::Mapping;

/// Where the files of VFIO are.
pub(super) const FOLDER: &str = "/dev/vfio";

/// By which of the kernel's interfaces the IOMMU is used.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum IommuBackend {
    /// [`Iommufd`](Self::Iommufd) if the kernel has it for the first function that is opened, this user may open the files,
    /// and the kernel takes the token, if there is one; [`Type1`](Self::Type1) otherwise.
    #[default]
    Auto,
    /// Containers and groups (`/dev/vfio/vfio`, `/dev/vfio/GROUP`).
    Type1,
    /// An address space of iommufd (`/dev/iommu`), and a file of its own for each function (`/dev/vfio/devices/vfioN`).
    Iommufd,
}

impl fmt::Display for IommuBackend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Auto => "auto",
            Self::Type1 => "type1",
            Self::Iommufd => "iommufd",
        })
    }
}

/// A text that names no interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IommuBackendError;

impl fmt::Display for IommuBackendError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the IOMMU is used by auto, type1 or iommufd")
    }
}

impl std::error::Error for IommuBackendError {}

impl FromStr for IommuBackend {
    type Err = IommuBackendError;

    fn from_str(text: &str) -> Result<Self, IommuBackendError> {
        match text {
            "auto" => Ok(Self::Auto),
            "type1" => Ok(Self::Type1),
            "iommufd" => Ok(Self::Iommufd),
            _ => Err(IommuBackendError),
        }
    }
}

/// One bus address space behind the IOMMU, with the functions that see it. Nothing is reachable in it but what is mapped.
#[derive(Debug)]
pub struct Container {
    sysfs: Sysfs,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    interface: Interface,
    /// First and last bus address of each mapping.
    taken: Vec<(u64, u64)>,
}

#[derive(Debug)]
enum Interface {
    /// The first function decides.
    Open(Result<Iommufd, Error>, Result<Type1, Error>),
    Type1(Type1),
    Iommufd(Iommufd),
}

/// Opens a file of VFIO or of iommufd; `missing` is said if it is not there.
pub(super) fn open(path: &Path, missing: impl FnOnce(PathBuf) -> Error) -> Result<OwnedFd, Error> {
    match File::options().read(true).write(true).open(path) {
        Ok(file) => Ok(file.into()),
        Err(error) => Err(match error.kind() {
            io::ErrorKind::NotFound => missing(path.to_owned()),
            io::ErrorKind::PermissionDenied => Error::Permission(path.to_owned()),
            io::ErrorKind::ResourceBusy => Error::InUse(path.to_owned()),
            // The device node outlives the module.
            _ if error.raw_os_error() == Some(Errno::NODEV.raw_os_error()) => missing(path.to_owned()),
            _ => Error::io("opening a file of VFIO", &error),
        }),
    }
}

impl Interface {
    fn new(wanted: IommuBackend) -> Result<Self, Error> {
        match wanted {
            IommuBackend::Type1 => Type1::new().map(Self::Type1),
            IommuBackend::Iommufd => Iommufd::new().map(Self::Iommufd),
            IommuBackend::Auto => match (Iommufd::new(), Type1::new()) {
                // What a kernel does not have says less than why what it has cannot be used.
                (Err(Error::NoIommufd(_)), Err(error)) | (Err(error), Err(_)) => Err(error),
                (iommufd, type1) => Ok(Self::Open(iommufd, type1)),
            },
        }
    }

    const fn backend(&self) -> IommuBackend {
        match self {
            Self::Open(..) => IommuBackend::Auto,
            Self::Type1(_) => IommuBackend::Type1,
            Self::Iommufd(_) => IommuBackend::Iommufd,
        }
    }

    fn open(&mut self, function: &PciFunction, options: &OpenOptions) -> Result<OwnedFd, Error> {
        let group = function.usable_group()?;
        match self {
            Self::Type1(type1) => type1.open(group, function, options),
            Self::Iommufd(iommufd) => iommufd.open(function, options),
            Self::Open(iommufd, type1) => {
                let by_iommufd = match iommufd {
                    Ok(iommufd) => iommufd.open(function, options),
                    Err(error) => Err(error.clone()),
                };
                match (by_iommufd, type1) {
                    (Err(error), Ok(type1)) if error.leaves_type1() => type1.open(group, function, options),
                    (result, _) => result,
                }
            }
        }
    }

    /// Keeps to the interface by which a function was opened.
    fn decide(&mut self) {
        if let Self::Open(iommufd, type1) = self {
            const TAKEN: Error = Error::NoFunctionYet;
            match (std::mem::replace(iommufd, Err(TAKEN)), std::mem::replace(type1, Err(TAKEN))) {
                (Ok(iommufd), _) if iommufd.has_function() => *self = Self::Iommufd(iommufd),
                (_, Ok(type1)) if type1.has_function() => *self = Self::Type1(type1),
                (one, other) => *self = Self::Open(one, other),
            }
        }
    }

    fn limits(&self) -> Result<IommuLimits, Error> {
        match self {
            Self::Type1(type1) if type1.has_function() => type1.limits(),
            Self::Iommufd(iommufd) if iommufd.has_function() => iommufd.limits(),
            _ => Err(Error::NoFunctionYet),
        }
    }

    fn map(&self, mapping: &Mapping, window: Window) -> io::Result<()> {
        match self {
            Self::Open(..) => Err(io::ErrorKind::NotConnected.into()),
            Self::Type1(type1) => type1.map(mapping, window),
            Self::Iommufd(iommufd) => iommufd.map(mapping, window),
        }
    }

    fn unmap(&self, window: Window) -> io::Result<()> {
        match self {
            Self::Open(..) => Err(io::ErrorKind::NotConnected.into()),
            Self::Type1(type1) => type1.unmap(window),
            Self::Iommufd(iommufd) => iommufd.unmap(window),
        }
    }
}

impl Container {
    /// Makes a container with no function and nothing mapped, by whichever interface the kernel has.
    ///
    /// # Errors
    /// The kernel has no VFIO, or this user may not use it.
    pub fn new() -> Result<Arc<Self>, Error> {
        Self::with(Sysfs::default(), IommuBackend::Auto)
    }

    /// As [`new`](Self::new), by `backend`, and with functions looked up by `sysfs`.
    ///
    /// # Errors
    /// The kernel does not have the interface, or this user may not use it.
    pub fn with(sysfs: Sysfs, backend: IommuBackend) -> Result<Arc<Self>, Error> {
        let state = State { interface: Interface::new(backend)?, taken: Vec::new() };
        Ok(Arc::new(Self { sysfs, state: Mutex::new(state) }))
    }

    /// The interface in use; [`IommuBackend::Auto`] until a function was opened, if none was asked for.
    #[must_use]
    pub fn backend(&self) -> IommuBackend {
        lock(&self.state).interface.backend()
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
        let mut state = lock(&self.state);
        let device = state.interface.open(&function, options);
        state.interface.decide();
        drop(state);
        VfioController::new(Arc::clone(self), function, device?, options)
    }

    /// What the IOMMU can do for the functions opened so far.
    ///
    /// # Errors
    /// No function was opened yet, or the kernel's answer cannot be used.
    pub fn limits(&self) -> Result<IommuLimits, Error> {
        lock(&self.state).limits()
    }

    /// Where the IOMMU has addresses for a [linear](AddressSpace::linear_at) space of such pages as `backing` says, that
    /// nothing has yet, nor what lies between the first and last address of any of `placed`: from a multiple of
    /// [`HUGE_PAGE`] on.
    ///
    /// # Errors
    /// No room, more memory than the computer has, or no function was opened yet.
    pub fn choose(&self, capacity: Capacity, backing: Backing, placed: &[(u64, u64)]) -> Result<u64, Error> {
        let state = lock(&self.state);
        let limits = state.limits()?;
        let span = AddressSpace::linear_span(capacity, backing);
        let taken: Vec<(u64, u64)> = state.taken.iter().chain(placed).copied().collect();
        let start = limits.choose(span, HUGE_PAGE as u64, &taken).ok_or(Error::NoAddresses(span))?;
        // The kernel would hold all of it, and finds out that it cannot only when other programs have none left.
        let Capacity { queues, data, controller_data } = capacity;
        let needed =
            [queues, data, controller_data].iter().fold(0, |sum: u64, one| sum.saturating_add(*one as u64));
        let info = sysinfo();
        match info.totalram.saturating_mul(info.mem_unit.into()) {
            present if needed > present => Err(Error::Memory { needed, present }),
            _ => Ok(start),
        }
    }

    /// Makes an address space where the IOMMU has room, and lets all functions of the container reach it until the result
    /// is dropped. Open all functions before: one that is opened later may not have these addresses.
    ///
    /// # Errors
    /// No room, too much memory locked, or the system has no memory left. Nothing is mapped then.
    pub fn create(self: &Arc<Self>, name: &str, capacity: Capacity) -> Result<MappedSpace, Error> {
        self.create_of(name, capacity, Backing::Ordinary)
    }

    /// As [`create`](Self::create), of such pages as `backing` says.
    ///
    /// # Errors
    /// As [`create`](Self::create), or there are not enough such pages.
    pub fn create_of(
        self: &Arc<Self>,
        name: &str,
        capacity: Capacity,
        backing: Backing,
    ) -> Result<MappedSpace, Error> {
        let start = self.choose(capacity, backing, &[])?;
        let space = AddressSpace::linear_at(name, capacity, BusAddr::new(start), backing);
        let space = space.map_err(|error| match error {
            SpaceError::System(errno) => Error::System("taking memory", errno),
            error => Error::Space(error),
        })?;
        self.map(&Arc::new(space))
    }

    /// Lets all functions of the container reach `space`, which is [linear](AddressSpace::linear), until the result is
    /// dropped: one that another container has, too.
    ///
    /// # Errors
    /// As [`create`](Self::create), or its addresses are none of the IOMMU's or in use.
    pub fn map(self: &Arc<Self>, space: &Arc<AddressSpace>) -> Result<MappedSpace, Error> {
        let mut state = lock(&self.state);
        let state = &mut *state;
        let limits = state.limits()?;
        let windows = space.windows();
        check(&windows, &limits, &state.taken)?;
        let needed: u64 = windows.iter().map(|window| window.len).sum();
        let mapped: u64 = state.taken.iter().map(|(first, last)| last - first + 1).sum();
        for (at, window) in windows.iter().enumerate() {
            if let Err(error) = state.interface.map(space.mapping(), *window) {
                for window in &windows[..at] {
                    state.unmap(*window);
                }
                return Err(why_not_mapped(&error, mapped.saturating_add(needed), lock_limit()));
            }
            state.taken.push(ends(*window));
        }
        Ok(MappedSpace { container: Arc::clone(self), windows, space: Arc::clone(space) })
    }
}

impl State {
    fn limits(&self) -> Result<IommuLimits, Error> {
        self.interface.limits().and_then(with_small_pages)
    }

    fn unmap(&mut self, window: Window) {
        // Addresses that the kernel does not give back stay taken, and are not chosen again.
        if self.interface.unmap(window).is_ok() {
            let ends = ends(window);
            self.taken.retain(|taken| *taken != ends);
        }
    }
}

/// Refuses an IOMMU whose smallest page is longer than one of memory.
fn with_small_pages(limits: IommuLimits) -> Result<IommuLimits, Error> {
    match 1_u64.checked_shl(limits.page_sizes.trailing_zeros()) {
        Some(smallest) if smallest <= PAGE as u64 => Ok(limits),
        smallest => Err(Error::PageSize(smallest.unwrap_or(0))),
    }
}

/// Refuses to map `windows` where the IOMMU cannot, or where something is `taken` (first and last address of each).
fn check(windows: &[Window], limits: &IommuLimits, taken: &[(u64, u64)]) -> Result<(), Error> {
    if windows.is_empty() {
        return Err(Error::NotLinear);
    }
    if let Some(left) = limits.mappings_left.filter(|left| (*left as usize) < windows.len()) {
        return Err(Error::Mappings { needed: windows.len(), left });
    }
    for window in windows {
        let (first, last) = ends(*window);
        let overlaps = taken.iter().any(|taken| taken.0 <= last && first <= taken.1);
        if overlaps || !limits.has(first, last) {
            return Err(Error::Addresses { first, last });
        }
    }
    Ok(())
}

/// First and last bus address.
fn ends(window: Window) -> (u64, u64) {
    let first = window.address.get();
    (first, first.saturating_add(window.len.saturating_sub(1)))
}

/// Bytes that may be locked, unless that is not limited: by the limit, or by a right of the process.
fn lock_limit() -> Option<u64> {
    let unlimited = capabilities(None).is_ok_and(|sets| sets.effective.contains(CapabilitySet::IPC_LOCK));
    if unlimited { None } else { getrlimit(Resource::Memlock).current }
}

/// The kernel says the same for memory that may not be locked and for memory that is not there. So many bytes are `needed` in
/// all, and `allowed`, unless that is not limited.
fn why_not_mapped(error: &io::Error, needed: u64, allowed: Option<u64>) -> Error {
    if error.raw_os_error() != Some(Errno::NOMEM.raw_os_error()) {
        return Error::io("mapping memory for the IOMMU", error);
    }
    match allowed {
        None => Error::NoMemoryLeft { needed },
        Some(allowed) if allowed < needed => Error::MemoryLock { needed, allowed },
        Some(allowed) => Error::MemoryLockWithOthers { needed, allowed },
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
            state.unmap(window);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn interfaces_have_names() {
        for backend in [IommuBackend::Auto, IommuBackend::Type1, IommuBackend::Iommufd] {
            assert_eq!(backend.to_string().parse(), Ok(backend));
        }
        for text in ["", "Auto", "type2", "iommufd "] {
            assert_eq!(text.parse::<IommuBackend>(), Err(IommuBackendError), "{text:?}");
        }
    }

    #[test]
    fn a_refusal_by_one_interface_leaves_the_other_or_not() {
        let function: PciAddress = "0000:01:00.0".parse().expect("an address");
        let path = || PathBuf::from("/dev/iommu");
        let rows = [
            ("no iommufd", Error::NoIommufd(path()), true),
            ("no file of its own", Error::NoDeviceFile(function), true),
            ("not this user", Error::Permission(path()), true),
            ("no tokens", Error::TokenNotTaken(function), true),
            ("another token", Error::Token(function), false),
            ("in use", Error::InUse(path()), false),
            ("anything else", Error::System("binding the function to iommufd", 12), false),
        ];
        for (name, error, expected) in rows {
            assert_eq!(error.leaves_type1(), expected, "{name}");
        }
    }

    #[test]
    fn a_file_that_cannot_be_opened_says_why() {
        let folder = tempfile::tempdir().expect("a folder");
        let missing = folder.path().join("iommu");
        let opened = open(&missing, Error::NoIommufd).map(drop);
        assert_eq!(opened, Err(Error::NoIommufd(missing.clone())));
        assert!(opened.unwrap_err().to_string().contains("CONFIG_IOMMUFD"));
        // A folder cannot be opened for writing, not even by root.
        let opened = open(folder.path(), Error::NoIommufd).map(drop);
        assert_eq!(opened, Err(Error::System("opening a file of VFIO", Errno::ISDIR.raw_os_error())));
    }

    #[test]
    fn memory_that_is_not_mapped_is_explained() {
        let (enomem, fault) = (io::Error::from(Errno::NOMEM), io::Error::from(Errno::FAULT));
        let plain = Error::System("mapping memory for the IOMMU", Errno::FAULT.raw_os_error());
        let rows = [
            (
                "more than may be locked",
                &enomem,
                8193,
                Some(8192),
                Error::MemoryLock { needed: 8193, allowed: 8192 },
            ),
            ("nothing may be", &enomem, 1, Some(0), Error::MemoryLock { needed: 1, allowed: 0 }),
            (
                "as much as may be, beside other memory",
                &enomem,
                8192,
                Some(8192),
                Error::MemoryLockWithOthers { needed: 8192, allowed: 8192 },
            ),
            (
                "little, beside other memory",
                &enomem,
                1,
                Some(8192),
                Error::MemoryLockWithOthers { needed: 1, allowed: 8192 },
            ),
            ("no limit", &enomem, u64::MAX, None, Error::NoMemoryLeft { needed: u64::MAX }),
            ("something else, above the limit", &fault, 8193, Some(8192), plain.clone()),
            ("something else, without one", &fault, 8193, None, plain),
        ];
        for (name, error, needed, allowed, expected) in rows {
            assert_eq!(why_not_mapped(error, needed, allowed), expected, "{name}");
        }
    }

    #[test]
    fn windows_that_cannot_be_mapped_are_refused() {
        let limits = |mappings_left| IommuLimits {
            page_sizes: 1 << 12,
            ranges: vec![(0, 0xFEDF_FFFF), (0xFEF0_0000, 0xFF_FFFF_FFFF)],
            mappings_left,
        };
        let at = |address, len| Window { offset: 0, address: BusAddr::new(address), len };
        let outside = |first, last| Err(Error::Addresses { first, last });
        let (one, other) = (at(0x1_0000, 0x2000), at(0x2_0000, 0x1000));
        let taken: &[(u64, u64)] = &[(0x1000, 0x1FFF), (0x3000, 0x3FFF)];
        type Row<'a> = (&'a str, &'a [Window], Option<u32>, &'a [(u64, u64)], Result<(), Error>);
        let rows: [Row<'_>; 19] = [
            ("free addresses", &[one, other], None, taken, Ok(())),
            ("no window: not linear", &[], None, taken, Err(Error::NotLinear)),
            ("no window and no mapping", &[], Some(0), taken, Err(Error::NotLinear)),
            ("as many mappings as are left", &[one, other], Some(2), taken, Ok(())),
            ("one too many", &[one, other], Some(1), taken, Err(Error::Mappings { needed: 2, left: 1 })),
            ("none left", &[one], Some(0), taken, Err(Error::Mappings { needed: 1, left: 0 })),
            ("the same as before", &[at(0x3000, 0x1000)], None, taken, outside(0x3000, 0x3FFF)),
            ("up to what is taken", &[at(0x2000, 0x1000)], None, taken, Ok(())),
            ("its last byte is taken", &[at(0x2000, 0x1001)], None, taken, outside(0x2000, 0x3000)),
            ("its first byte is taken", &[at(0x1FFF, 0x1001)], None, taken, outside(0x1FFF, 0x2FFF)),
            ("around what is taken", &[at(0x2000, 0x4000)], None, taken, outside(0x2000, 0x5FFF)),
            ("inside what is taken", &[at(0x3100, 0x100)], None, taken, outside(0x3100, 0x31FF)),
            ("the second one is taken", &[one, at(0x1000, 0x1000)], None, taken, outside(0x1000, 0x1FFF)),
            ("interrupts", &[at(0xFEE0_0000, 0x1000)], None, &[], outside(0xFEE0_0000, 0xFEE0_0FFF)),
            ("up to the interrupts", &[at(0xFEDF_F000, 0x1000)], None, &[], Ok(())),
            ("into the interrupts", &[at(0xFEDF_F000, 0x2000)], None, &[], outside(0xFEDF_F000, 0xFEE0_0FFF)),
            (
                "over the interrupts",
                &[at(0xFED0_0000, 0x40_0000)],
                None,
                &[],
                outside(0xFED0_0000, 0xFF0F_FFFF),
            ),
            (
                "beyond the last address",
                &[at(1 << 40, 0x1000)],
                None,
                &[],
                outside(1 << 40, (1 << 40) + 0xFFF),
            ),
            ("where addresses end", &[at(!0xFFF, 0x2000)], None, &[], outside(!0xFFF, u64::MAX)),
        ];
        for (name, windows, left, taken, expected) in rows {
            assert_eq!(check(windows, &limits(left), taken), expected, "{name}");
        }
    }

    #[test]
    fn an_iommu_with_large_pages_only_is_refused() {
        let rows = [
            ("of 4 KiB", 1 << 12, None),
            ("of 4 KiB and longer", 1 << 12 | 1 << 21 | 1 << 30, None),
            ("shorter", 1, None),
            ("of 8 KiB", 1 << 13, Some(8192)),
            ("of 64 KiB and longer", 1 << 16 | 1 << 29, Some(65536)),
            ("the longest", 1 << 63, Some(1 << 63)),
            ("none", 0, Some(0)),
        ];
        for (name, page_sizes, refused) in rows {
            let limits = IommuLimits { page_sizes, ranges: vec![(0, u64::MAX)], mappings_left: None };
            let expected = refused.map_or(Ok(limits.clone()), |bytes| Err(Error::PageSize(bytes)));
            assert_eq!(with_small_pages(limits), expected, "{name}");
        }
    }

    #[test]
    fn a_space_that_is_not_linear_has_no_windows_to_map() {
        let capacity = Capacity { queues: 4096, data: 4096, controller_data: 4096 };
        let scattered = AddressSpace::new("scattered", capacity).expect("memory");
        assert_eq!(scattered.windows(), []);
        assert_eq!(AddressSpace::linear("linear", capacity).expect("memory").windows().len(), 3);
    }
}

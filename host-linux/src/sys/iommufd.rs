// SPDX-License-Identifier: MIT OR Apache-2.0
//! The system calls of iommufd (Linux, `include/uapi/linux/iommufd.h`) and those by which a function of VFIO takes part in
//! it (`include/uapi/linux/vfio.h`), each as a function that can be called safely.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

use iommufd_bindings::iommufd::{
    IOMMUFD_CMD_IOAS_ALLOC, IOMMUFD_CMD_IOAS_IOVA_RANGES, IOMMUFD_CMD_IOAS_MAP, IOMMUFD_CMD_IOAS_UNMAP,
    IOMMUFD_TYPE, iommu_ioas_alloc, iommu_ioas_iova_ranges, iommu_ioas_map, iommu_ioas_unmap,
    iommu_iova_range, iommufd_ioas_map_flags_IOMMU_IOAS_MAP_FIXED_IOVA as FIXED_IOVA,
    iommufd_ioas_map_flags_IOMMU_IOAS_MAP_READABLE as READABLE,
    iommufd_ioas_map_flags_IOMMU_IOAS_MAP_WRITEABLE as WRITEABLE,
};
use rustix::io::Errno;
use rustix::ioctl::{Opcode, opcode};
use vfio_bindings::bindings::vfio::{
    VFIO_DEVICE_BIND_FLAG_TOKEN, vfio_device_attach_iommufd_pt, vfio_device_bind_iommufd,
};

use super::Mapping;
use super::vfio::{call, call_structure, request};

/// Ranges of bus addresses, at most.
const MOST_RANGES: usize = 1 << 16;

/// A request of iommufd; none of them says what it moves.
const fn command(number: u32) -> Opcode {
    opcode::none(IOMMUFD_TYPE, number as u8)
}

const IOAS_ALLOC: Opcode = command(IOMMUFD_CMD_IOAS_ALLOC);
const IOAS_IOVA_RANGES: Opcode = command(IOMMUFD_CMD_IOAS_IOVA_RANGES);
const IOAS_MAP: Opcode = command(IOMMUFD_CMD_IOAS_MAP);
const IOAS_UNMAP: Opcode = command(IOMMUFD_CMD_IOAS_UNMAP);
const DEVICE_BIND_IOMMUFD: Opcode = request(18);
const DEVICE_ATTACH_IOMMUFD_PT: Opcode = request(19);

/// Makes an address space with nothing mapped; it goes when the file is closed.
pub(crate) fn allocate_space(iommu: BorrowedFd<'_>) -> io::Result<u32> {
    let mut allocate =
        iommu_ioas_alloc { size: size_of::<iommu_ioas_alloc>() as u32, ..iommu_ioas_alloc::default() };
    call_structure(iommu, IOAS_ALLOC, &mut allocate)?;
    Ok(allocate.out_ioas_id)
}

/// The bus addresses that can be mapped, each range by its first and last, and what they have to be a multiple of.
pub(crate) fn ranges(iommu: BorrowedFd<'_>, space: u32) -> io::Result<(Vec<(u64, u64)>, u64)> {
    let mut list = vec![iommu_iova_range::default(); 16];
    loop {
        let mut ask = iommu_ioas_iova_ranges {
            size: size_of::<iommu_ioas_iova_ranges>() as u32,
            ioas_id: space,
            num_iovas: list.len() as u32,
            allowed_iovas: list.as_mut_ptr().expose_provenance() as u64,
            ..iommu_ioas_iova_ranges::default()
        };
        // SAFETY: the structure is as long as it says, and the list that it names, which the kernel writes to, has as many
        // entries as it says; both are borrowed for the call.
        let result = unsafe { call(iommu, IOAS_IOVA_RANGES, std::ptr::from_mut(&mut ask).cast()) };
        let found = ask.num_iovas as usize;
        match result {
            Ok(_) => {
                list.truncate(found);
                let ranges = list.iter().map(|range| (range.start, range.last)).collect();
                return Ok((ranges, ask.out_iova_alignment));
            }
            // There are more.
            Err(error)
                if error.raw_os_error() == Some(Errno::MSGSIZE.raw_os_error())
                    && (list.len() + 1..=MOST_RANGES).contains(&found) =>
            {
                list.resize(found, iommu_iova_range::default());
            }
            Err(error) => return Err(error),
        }
    }
}

/// Lets the devices of an address space read and write `len` bytes of `mapping` from `offset` on at bus address `iova`.
/// The kernel holds the pages until they are taken back or the file is closed, also if the mapping goes before.
pub(crate) fn map(
    iommu: BorrowedFd<'_>,
    space: u32,
    mapping: &Mapping,
    (offset, len): (usize, usize),
    iova: u64,
) -> io::Result<()> {
    let end = offset.checked_add(len).filter(|end| *end <= mapping.len());
    if len == 0 || end.is_none() {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    let mut map = iommu_ioas_map {
        size: size_of::<iommu_ioas_map>() as u32,
        flags: FIXED_IOVA | READABLE | WRITEABLE,
        ioas_id: space,
        user_va: mapping.pointer(offset).as_ptr().expose_provenance() as u64,
        length: len as u64,
        iova,
        ..iommu_ioas_map::default()
    };
    // What devices then write lies inside the mapping, whose bytes are reached by atomic copies only.
    call_structure(iommu, IOAS_MAP, &mut map).map(drop)
}

/// Takes back what is mapped in `len` bytes at `iova`.
pub(crate) fn unmap(iommu: BorrowedFd<'_>, space: u32, iova: u64, len: u64) -> io::Result<()> {
    let mut unmap =
        iommu_ioas_unmap { size: size_of::<iommu_ioas_unmap>() as u32, ioas_id: space, iova, length: len };
    call_structure(iommu, IOAS_UNMAP, &mut unmap).map(drop)
}

fn binding(iommu: BorrowedFd<'_>, len: usize) -> vfio_device_bind_iommufd {
    vfio_device_bind_iommufd { argsz: len as u32, iommufd: iommu.as_raw_fd(), ..Default::default() }
}

/// Binds a function, just opened by its own file, to an iommufd: from then on it can be asked what it is.
pub(crate) fn bind(
    device: BorrowedFd<'_>,
    iommu: BorrowedFd<'_>,
    token: Option<&[u8; 16]>,
) -> io::Result<()> {
    // Kernels that take no tokens know the structure without the last field.
    const WITHOUT_TOKEN: usize = std::mem::offset_of!(vfio_device_bind_iommufd, token_uuid_ptr);
    let Some(token) = token else {
        return call_structure(device, DEVICE_BIND_IOMMUFD, &mut binding(iommu, WITHOUT_TOKEN)).map(drop);
    };
    let mut bind = binding(iommu, size_of::<vfio_device_bind_iommufd>());
    bind.flags = VFIO_DEVICE_BIND_FLAG_TOKEN;
    bind.token_uuid_ptr = token.as_ptr().expose_provenance() as u64;
    // SAFETY: the structure is as long as it says, and the kernel reads 16 bytes where it names the token; both are
    // borrowed for the call.
    unsafe { call(device, DEVICE_BIND_IOMMUFD, std::ptr::from_mut(&mut bind).cast()) }.map(drop)
}

/// Whether the kernel looks at tokens when a function is bound: it then reads one from address zero, and cannot.
pub(crate) fn takes_tokens(device: BorrowedFd<'_>, iommu: BorrowedFd<'_>) -> bool {
    let mut bind = binding(iommu, size_of::<vfio_device_bind_iommufd>());
    bind.flags = VFIO_DEVICE_BIND_FLAG_TOKEN;
    let result = call_structure(device, DEVICE_BIND_IOMMUFD, &mut bind);
    result.is_err_and(|error| error.raw_os_error() == Some(Errno::FAULT.raw_os_error()))
}

/// Lets a function that is bound see an address space.
pub(crate) fn attach(device: BorrowedFd<'_>, space: u32) -> io::Result<()> {
    let len = std::mem::offset_of!(vfio_device_attach_iommufd_pt, pasid);
    let mut attach = vfio_device_attach_iommufd_pt {
        argsz: len as u32,
        pt_id: space,
        ..vfio_device_attach_iommufd_pt::default()
    };
    call_structure(device, DEVICE_ATTACH_IOMMUFD_PT, &mut attach).map(drop)
}

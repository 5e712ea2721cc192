// SPDX-License-Identifier: MIT OR Apache-2.0
//! The system calls of VFIO (Linux, `include/uapi/linux/vfio.h`), each as a function that can be called safely, and the
//! registers of a function, mapped.

use std::ffi::{CStr, c_void};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::ptr::NonNull;

use nvme_core::mmio::{MmioBar, MmioError};
use nvme_core::register::{Offset, RegisterIo};
use rustix::ioctl::{Ioctl, IoctlOutput, Opcode, opcode};
use rustix::mm::{MapFlags, ProtFlags, mmap, munmap};
use vfio_bindings::bindings::vfio::{
    VFIO_BASE, VFIO_TYPE, vfio_device_info, vfio_group_status, vfio_iommu_type1_dma_map,
    vfio_iommu_type1_dma_unmap, vfio_iommu_type1_info, vfio_irq_info, vfio_irq_set, vfio_region_info,
};

use super::Mapping;

/// Bytes of information with all its capabilities, at most.
const MOST_INFORMATION: usize = 1 << 20;

/// A request of VFIO; none of them says what it moves.
pub(super) const fn request(number: u32) -> Opcode {
    opcode::none(VFIO_TYPE, (VFIO_BASE + number) as u8)
}

const GET_API_VERSION: Opcode = request(0);
const CHECK_EXTENSION: Opcode = request(1);
const SET_IOMMU: Opcode = request(2);
const GROUP_GET_STATUS: Opcode = request(3);
const GROUP_SET_CONTAINER: Opcode = request(4);
const GROUP_GET_DEVICE_FD: Opcode = request(6);
const DEVICE_GET_INFO: Opcode = request(7);
const DEVICE_GET_REGION_INFO: Opcode = request(8);
const DEVICE_GET_IRQ_INFO: Opcode = request(9);
const DEVICE_SET_IRQS: Opcode = request(10);
const DEVICE_RESET: Opcode = request(11);
// The IOMMU's requests begin again after those of the container.
const IOMMU_GET_INFO: Opcode = request(12);
const IOMMU_MAP_DMA: Opcode = request(13);
const IOMMU_UNMAP_DMA: Opcode = request(14);

/// One request with its argument: a number, or the address of a structure.
struct Request {
    opcode: Opcode,
    argument: *mut c_void,
}

// SAFETY: the result is the system call's own number and nothing is read through the argument afterwards; that the
// argument is what the request expects is what the callers of `call` guarantee.
unsafe impl Ioctl for Request {
    type Output = i32;

    const IS_MUTATING: bool = true;

    fn opcode(&self) -> Opcode {
        self.opcode
    }

    fn as_ptr(&mut self) -> *mut c_void {
        self.argument
    }

    unsafe fn output_from_ptr(output: IoctlOutput, _argument: *mut c_void) -> rustix::io::Result<i32> {
        Ok(output)
    }
}

/// # Safety
/// `argument` is what the request takes: a number, or the address of a structure that is as long as it says and that the
/// kernel may write to.
pub(super) unsafe fn call(file: BorrowedFd<'_>, opcode: Opcode, argument: *mut c_void) -> io::Result<i32> {
    // SAFETY: the argument fits the request (guaranteed by the caller). On a descriptor that is not of VFIO the request
    // number means nothing and is refused.
    Ok(unsafe { rustix::ioctl::ioctl(file, Request { opcode, argument }) }?)
}

/// A request that takes a number or nothing.
fn call_number(file: BorrowedFd<'_>, opcode: Opcode, number: u32) -> io::Result<i32> {
    // SAFETY: callers use this for requests that take a number, which the kernel does not follow as an address.
    unsafe { call(file, opcode, std::ptr::without_provenance_mut(number as usize)) }
}

/// A request that takes a structure of plain numbers, or one number, of which the kernel touches no more than its type has,
/// and in which it follows no address but to hold the memory behind it, or to fault.
pub(super) fn call_structure<T>(file: BorrowedFd<'_>, opcode: Opcode, structure: &mut T) -> io::Result<i32> {
    // SAFETY: the structure is borrowed for the call, and the kernel touches no more of it than its type has (guaranteed by
    // the functions of this module and of iommufd's, which name each request together with its structure and set the length
    // in it where there is one).
    unsafe { call(file, opcode, std::ptr::from_mut(structure).cast()) }
}

/// Information that grows: asked for with `least` bytes, then with as many as the kernel says. `index` goes to the third
/// word.
fn information(file: BorrowedFd<'_>, opcode: Opcode, least: usize, index: u32) -> io::Result<Vec<u8>> {
    let mut len = least;
    loop {
        let mut words = vec![0_u64; len.div_ceil(8)];
        let bytes = words.len() * 8;
        words[0] = bytes as u64;
        words[1] = u64::from(index);
        // SAFETY: the buffer is aligned for every structure of VFIO and has the bytes that its first word (`argsz`, on a
        // little-endian machine; see the assertion below) says.
        unsafe { call(file, opcode, words.as_mut_ptr().cast())? };
        let filled: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
        let wanted = words[0] as u32 as usize;
        if wanted <= bytes {
            return Ok(filled);
        }
        if wanted > MOST_INFORMATION {
            return Err(io::Error::other(format!("VFIO says {wanted} bytes of information")));
        }
        len = wanted;
    }
}

const _: () =
    assert!(cfg!(target_endian = "little"), "the structures are put together as little-endian words");

/// Version of the interface behind `/dev/vfio/vfio`.
pub(crate) fn api_version(container: BorrowedFd<'_>) -> io::Result<u32> {
    Ok(call_number(container, GET_API_VERSION, 0)? as u32)
}

/// Whether a kind of IOMMU can be set.
pub(crate) fn has_extension(container: BorrowedFd<'_>, extension: u32) -> io::Result<bool> {
    Ok(call_number(container, CHECK_EXTENSION, extension)? > 0)
}

/// Sets the kind of IOMMU of a container that has a group.
pub(crate) fn set_iommu(container: BorrowedFd<'_>, kind: u32) -> io::Result<()> {
    call_number(container, SET_IOMMU, kind).map(drop)
}

/// Structure `vfio_iommu_type1_info` and its capabilities.
pub(crate) fn iommu_info(container: BorrowedFd<'_>) -> io::Result<Vec<u8>> {
    information(container, IOMMU_GET_INFO, size_of::<vfio_iommu_type1_info>(), 0)
}

/// Lets the devices of a container reach `len` bytes of `mapping` from `offset` on at bus address `iova`; see
/// `VFIO_DMA_MAP_FLAG_READ` for `rights`. The kernel holds the pages until they are taken back or the container is closed,
/// also if the mapping goes before.
pub(crate) fn map_dma(
    container: BorrowedFd<'_>,
    mapping: &Mapping,
    (offset, len): (usize, usize),
    iova: u64,
    rights: u32,
) -> io::Result<()> {
    let end = offset.checked_add(len).filter(|end| *end <= mapping.len());
    if len == 0 || end.is_none() {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    let mut map = vfio_iommu_type1_dma_map {
        argsz: size_of::<vfio_iommu_type1_dma_map>() as u32,
        flags: rights,
        vaddr: mapping.pointer(offset).as_ptr().expose_provenance() as u64,
        iova,
        size: len as u64,
    };
    // What devices then write lies inside the mapping, whose bytes are reached by atomic copies only.
    call_structure(container, IOMMU_MAP_DMA, &mut map).map(drop)
}

/// Takes back what is mapped in `len` bytes at `iova`, and returns how many bytes that were.
pub(crate) fn unmap_dma(container: BorrowedFd<'_>, iova: u64, len: u64) -> io::Result<u64> {
    let mut unmap = vfio_iommu_type1_dma_unmap {
        argsz: size_of::<vfio_iommu_type1_dma_unmap>() as u32,
        iova,
        size: len,
        ..Default::default()
    };
    call_structure(container, IOMMU_UNMAP_DMA, &mut unmap)?;
    Ok(unmap.size)
}

/// Flags of a group.
pub(crate) fn group_status(group: BorrowedFd<'_>) -> io::Result<u32> {
    let mut status = vfio_group_status { argsz: size_of::<vfio_group_status>() as u32, flags: 0 };
    call_structure(group, GROUP_GET_STATUS, &mut status)?;
    Ok(status.flags)
}

/// Puts a group into a container.
pub(crate) fn set_container(group: BorrowedFd<'_>, container: BorrowedFd<'_>) -> io::Result<()> {
    let mut number = container.as_raw_fd();
    call_structure(group, GROUP_SET_CONTAINER, &mut number).map(drop)
}

/// Opens a function of a group by its name, and whatever stands behind that.
pub(crate) fn open_device(group: BorrowedFd<'_>, name: &CStr) -> io::Result<OwnedFd> {
    // SAFETY: the kernel reads the name up to its zero byte and writes nothing.
    let number = unsafe { call(group, GROUP_GET_DEVICE_FD, name.as_ptr().cast_mut().cast())? };
    // SAFETY: the kernel has just made this descriptor for the caller, so nobody else owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(number) })
}

/// Flags, number of regions and number of kinds of interrupts of a device.
pub(crate) fn device_info(device: BorrowedFd<'_>) -> io::Result<vfio_device_info> {
    let mut info =
        vfio_device_info { argsz: size_of::<vfio_device_info>() as u32, ..vfio_device_info::default() };
    call_structure(device, DEVICE_GET_INFO, &mut info)?;
    Ok(info)
}

/// Structure `vfio_region_info` and its capabilities.
pub(crate) fn region_info(device: BorrowedFd<'_>, index: u32) -> io::Result<Vec<u8>> {
    information(device, DEVICE_GET_REGION_INFO, size_of::<vfio_region_info>(), index)
}

/// What a kind of interrupt can do, and how many there are.
pub(crate) fn irq_info(device: BorrowedFd<'_>, index: u32) -> io::Result<vfio_irq_info> {
    let mut info =
        vfio_irq_info { argsz: size_of::<vfio_irq_info>() as u32, index, ..vfio_irq_info::default() };
    call_structure(device, DEVICE_GET_IRQ_INFO, &mut info)?;
    Ok(info)
}

/// Sets the eventfds of the first interrupts of a kind, or, given none, turns that kind off.
pub(crate) fn set_irqs(
    device: BorrowedFd<'_>,
    flags: u32,
    index: u32,
    descriptors: &[BorrowedFd<'_>],
) -> io::Result<()> {
    let len = size_of::<vfio_irq_set>() + size_of_val(descriptors);
    let mut words = vec![len as u32, flags, index, 0, descriptors.len() as u32];
    words.extend(descriptors.iter().map(|descriptor| descriptor.as_raw_fd() as u32));
    // SAFETY: the words are structure `vfio_irq_set`, five numbers, followed by the descriptors, and `argsz` is the length
    // of both together.
    unsafe { call(device, DEVICE_SET_IRQS, words.as_mut_ptr().cast()) }.map(drop)
}
const _: () = assert!(size_of::<vfio_irq_set>() == 20 && size_of::<BorrowedFd<'_>>() == 4);

/// Resets a device.
pub(crate) fn reset(device: BorrowedFd<'_>) -> io::Result<()> {
    call_number(device, DEVICE_RESET, 0).map(drop)
}

/// The register space of one controller in this process, for as long as the value lives.
///
/// A function that is unplugged while it is in use takes its registers with it: the next access ends the process with
/// SIGBUS.
#[derive(Debug)]
pub(crate) struct Bar {
    registers: MmioBar,
    base: NonNull<u8>,
    len: usize,
}

// SAFETY: the mapping belongs to the value; the pointer is only used to take the mapping back.
unsafe impl Send for Bar {}
// SAFETY: shared access is access to the registers, which `MmioBar` allows from any thread.
unsafe impl Sync for Bar {}

impl Bar {
    /// Maps `len` bytes at `offset` of a device's descriptor: its first region, from the start on.
    pub(crate) fn map(device: impl AsFd, offset: u64, len: usize) -> io::Result<Self> {
        Ok(Self::map_with(device, offset, len, ProtFlags::READ | ProtFlags::WRITE)?)
    }

    /// As [`map`](Self::map), with these rights; without the right to write nothing may be written.
    pub(super) fn map_with(
        device: impl AsFd,
        offset: u64,
        len: usize,
        rights: ProtFlags,
    ) -> rustix::io::Result<Self> {
        // SAFETY: a new mapping at an address of the kernel's choice aliases nothing; a length of zero is refused.
        let base = unsafe { mmap(std::ptr::null_mut(), len, rights, MapFlags::SHARED, device, offset)? };
        let base = NonNull::new(base.cast()).ok_or(rustix::io::Errno::FAULT)?;
        // SAFETY: `len` bytes from the page-aligned base on are mapped until this value is dropped. VFIO and sysfs map
        // registers uncached, and callers name the first region of an NVMe controller, whose class or version they read. If
        // it is something else all the same, or `device` an ordinary file, the accesses hit that and no memory of Rust's.
        let registers = unsafe { MmioBar::new(base, len) };
        Ok(Self { registers, base, len })
    }

    #[inline]
    pub(crate) fn read32(&self, offset: Offset) -> Result<u32, MmioError> {
        self.registers.read32(offset)
    }

    #[inline]
    pub(crate) fn write32(&self, offset: Offset, value: u32) -> Result<(), MmioError> {
        self.registers.write32(offset, value)
    }

    /// Bytes mapped.
    pub(crate) const fn len(&self) -> usize {
        self.len
    }
}

impl Drop for Bar {
    fn drop(&mut self) {
        // SAFETY: the range was mapped by `map`, and the adapter over it goes with this value.
        let _ = unsafe { munmap(self.base.as_ptr().cast(), self.len) };
    }
}

// SPDX-License-Identifier: MIT OR Apache-2.0
//! EFI_PCI_IO_PROTOCOL as it lies in memory, and safe calls of what a driver needs of it.
//! UEFI 2.10 §14.4, EFI PCI I/O Protocol.

use core::ffi::c_void;
use core::fmt;
use core::mem::offset_of;
use core::ptr::{self, NonNull};

use static_assertions::const_assert_eq;
use uefi::proto::unsafe_protocol;
use uefi::{Status, boot};

/// What went wrong in a call of the protocol.
pub type PciStatus = Status;

/// Attributes of a function (EFI_PCI_IO_PROTOCOL_ATTRIBUTE).
pub mod attributes {
    /// It answers accesses to its memory BARs.
    pub const MEMORY: u64 = 0x0200;
    /// It may access memory by itself.
    pub const BUS_MASTER: u64 = 0x0400;
    /// It reaches memory above 4 GiB.
    pub const DUAL_ADDRESS_CYCLE: u64 = 0x8000;
}

/// Accesses of 32 bits (EfiPciIoWidthUint32).
const WIDTH_32: u32 = 2;
/// Processor and device both read and write (EfiPciIoOperationBusMasterCommonBuffer).
const COMMON_BUFFER: u32 = 2;
/// Pages anywhere (AllocateAnyPages).
const ANY_PAGES: u32 = 0;
/// EfiBootServicesData.
const BOOT_SERVICES_DATA: u32 = 4;
/// Bytes of a page that AllocateBuffer deals in.
const PAGE: usize = 4096;

/// Operations of Attributes() (EFI_PCI_IO_PROTOCOL_ATTRIBUTE_OPERATION).
mod operation {
    pub(super) const GET: u32 = 0;
    pub(super) const SET: u32 = 1;
    pub(super) const ENABLE: u32 = 2;
    pub(super) const DISABLE: u32 = 3;
    pub(super) const SUPPORTED: u32 = 4;
}

/// Types of functions whose first argument is the protocol. They keep to its specification, which says what the other
/// arguments are and which of them have to be valid.
macro_rules! functions {
    ($($(#[$meta:meta])* $visibility:vis type $name:ident($($argument:ty),*);)+) => {$(
        $(#[$meta])*
        $visibility type $name = unsafe extern "efiapi" fn(*mut PciIo $(, $argument)*) -> Status;
    )+};
}

functions! {
    /// PollMem and PollIo: width, BAR, offset, mask, value, delay, result.
    pub type PollFunction(u32, u8, u64, u64, u64, u64, *mut u64);
    /// Reads or writes at an offset of a BAR: width, BAR, offset, count, buffer.
    pub type BarFunction(u32, u8, u64, usize, *mut c_void);
    /// Reads or writes configuration space: width, offset, count, buffer.
    pub type ConfigFunction(u32, u32, usize, *mut c_void);
    /// CopyMem: width, BAR and offset of the destination, BAR and offset of the source, count.
    pub type CopyFunction(u32, u8, u64, u8, u64, usize);
    /// Map: operation, host address, number of bytes, device address, mapping.
    pub type MapFunction(u32, *mut c_void, *mut usize, *mut u64, *mut *mut c_void);
    /// Unmap: mapping.
    pub type UnmapFunction(*mut c_void);
    /// AllocateBuffer: type, type of memory, pages, host address, attributes.
    pub type AllocateFunction(u32, u32, usize, *mut *mut c_void, u64);
    /// FreeBuffer: pages, host address.
    pub type FreeFunction(usize, *mut c_void);
    /// Flush.
    pub type FlushFunction();
    /// GetLocation: segment, bus, device, function.
    pub type LocationFunction(*mut usize, *mut usize, *mut usize, *mut usize);
    /// Attributes: operation, attributes, result.
    pub type AttributesFunction(u32, u64, *mut u64);
    /// GetBarAttributes: BAR, supported attributes, resources.
    pub type GetBarFunction(u8, *mut u64, *mut *mut c_void);
    /// SetBarAttributes: attributes, BAR, offset, length.
    pub type SetBarFunction(u64, u8, *mut u64, *mut u64);
}

/// A pair of functions that read and write.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct PciIoAccess<F> {
    /// Reads.
    pub read: F,
    /// Writes.
    pub write: F,
}

/// The functions of the protocol, in the order of UEFI 2.10 §14.4.2.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
#[allow(missing_docs, reason = "the names of the specification, which says what they do")]
pub struct Functions {
    pub poll_mem: PollFunction,
    pub poll_io: PollFunction,
    pub mem: PciIoAccess<BarFunction>,
    pub io: PciIoAccess<BarFunction>,
    pub pci: PciIoAccess<ConfigFunction>,
    pub copy_mem: CopyFunction,
    pub map: MapFunction,
    pub unmap: UnmapFunction,
    pub allocate_buffer: AllocateFunction,
    pub free_buffer: FreeFunction,
    pub flush: FlushFunction,
    pub get_location: LocationFunction,
    pub attributes: AttributesFunction,
    pub get_bar_attributes: GetBarFunction,
    pub set_bar_attributes: SetBarFunction,
    pub rom_size: u64,
    pub rom_image: *mut c_void,
}

/// One PCI function, reached by its bus driver.
#[repr(transparent)]
#[unsafe_protocol("4cf5b200-68b8-4ca5-9eec-b23e3f50029a")]
pub struct PciIo(Functions);

const WORD: usize = size_of::<usize>();
const_assert_eq!(offset_of!(Functions, poll_mem), 0);
const_assert_eq!(offset_of!(Functions, poll_io), WORD);
const_assert_eq!(offset_of!(Functions, mem), 2 * WORD);
const_assert_eq!(offset_of!(Functions, io), 4 * WORD);
const_assert_eq!(offset_of!(Functions, pci), 6 * WORD);
const_assert_eq!(offset_of!(Functions, copy_mem), 8 * WORD);
const_assert_eq!(offset_of!(Functions, map), 9 * WORD);
const_assert_eq!(offset_of!(Functions, unmap), 10 * WORD);
const_assert_eq!(offset_of!(Functions, allocate_buffer), 11 * WORD);
const_assert_eq!(offset_of!(Functions, free_buffer), 12 * WORD);
const_assert_eq!(offset_of!(Functions, flush), 13 * WORD);
const_assert_eq!(offset_of!(Functions, get_location), 14 * WORD);
const_assert_eq!(offset_of!(Functions, attributes), 15 * WORD);
const_assert_eq!(offset_of!(Functions, get_bar_attributes), 16 * WORD);
const_assert_eq!(offset_of!(Functions, set_bar_attributes), 17 * WORD);
const_assert_eq!(offset_of!(Functions, rom_size), (18 * WORD).next_multiple_of(align_of::<u64>()));
const_assert_eq!(offset_of!(Functions, rom_image).wrapping_sub(offset_of!(Functions, rom_size)), 8);
const_assert_eq!(size_of::<PciIo>(), size_of::<Functions>());

impl fmt::Debug for PciIo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PciIo").finish_non_exhaustive()
    }
}

/// Memory that was made by AllocateBuffer: where it is for the processor.
#[derive(Debug, PartialEq, Eq)]
pub struct SharedBuffer {
    /// The first byte.
    pub(crate) start: NonNull<u8>,
    /// Pages of 4,096 bytes.
    pub(crate) pages: usize,
}

impl SharedBuffer {
    /// Fills it with zeroes.
    ///
    /// # Safety
    /// It has not been given back, and nobody else uses it.
    pub(crate) unsafe fn zero(&self) {
        // SAFETY: so many pages were set aside by AllocateBuffer; the rest is promised by the caller.
        unsafe { self.start.write_bytes(0, self.pages.saturating_mul(PAGE)) };
    }
}

/// A mapping made by Map.
#[derive(Debug, PartialEq, Eq)]
pub struct Mapping {
    token: *mut c_void,
    /// Address of the first byte for the device.
    pub(crate) device: u64,
    /// Bytes mapped, which may be fewer than asked for.
    pub(crate) len: usize,
}

/// Where a memory BAR is for the processor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BarRange {
    /// Address of the first byte.
    pub start: usize,
    /// Bytes.
    pub len: usize,
}

fn to_result(status: Status) -> Result<(), PciStatus> {
    if status == Status::SUCCESS { Ok(()) } else { Err(status) }
}

impl PciIo {
    /// The protocol with these functions.
    ///
    /// # Safety
    /// The functions do what UEFI 2.10 §14.4 says, for one function, when called with a pointer to the value made here
    /// wherever it lies.
    #[must_use]
    pub const unsafe fn new(functions: Functions) -> Self {
        Self(functions)
    }

    /// The functions.
    #[must_use]
    pub const fn functions(&self) -> &Functions {
        &self.0
    }

    fn this(&self) -> *mut Self {
        ptr::from_ref(self).cast_mut()
    }

    /// Reads 32 bits at `offset` of a memory BAR.
    ///
    /// # Errors
    /// The status of the firmware: the BAR is none, or the offset lies outside.
    pub fn read_mem32(&self, bar: u8, offset: u64) -> Result<u32, PciStatus> {
        let mut value = 0_u32;
        // SAFETY: the buffer has room for the one unit of four bytes that is asked for; the function keeps to the
        // specification (guaranteed by whoever made the value).
        let status =
            unsafe { (self.0.mem.read)(self.this(), WIDTH_32, bar, offset, 1, (&raw mut value).cast()) };
        to_result(status).map(|()| value)
    }

    /// Writes 32 bits at `offset` of a memory BAR.
    ///
    /// # Errors
    /// As [`read_mem32`](Self::read_mem32).
    pub fn write_mem32(&self, bar: u8, offset: u64, value: u32) -> Result<(), PciStatus> {
        let mut value = value;
        // SAFETY: as for reading. What a device does with queue addresses is answered for where it is attached.
        to_result(unsafe {
            (self.0.mem.write)(self.this(), WIDTH_32, bar, offset, 1, (&raw mut value).cast())
        })
    }

    /// Reads 32 bits of configuration space at `offset`, a multiple of four.
    ///
    /// # Errors
    /// The status of the firmware.
    pub fn read_config32(&self, offset: u32) -> Result<u32, PciStatus> {
        let mut value = 0_u32;
        // SAFETY: as for a memory BAR.
        let status = unsafe { (self.0.pci.read)(self.this(), WIDTH_32, offset, 1, (&raw mut value).cast()) };
        to_result(status).map(|()| value)
    }

    /// Segment, bus, device and function.
    ///
    /// # Errors
    /// The status of the firmware.
    pub fn location(&self) -> Result<[usize; 4], PciStatus> {
        let [mut segment, mut bus, mut device, mut function] = [0_usize; 4];
        // SAFETY: the four places are valid for writes.
        let status =
            unsafe { (self.0.get_location)(self.this(), &mut segment, &mut bus, &mut device, &mut function) };
        to_result(status).map(|()| [segment, bus, device, function])
    }

    fn ask_attributes(&self, operation: u32) -> Result<u64, PciStatus> {
        let mut found = 0;
        // SAFETY: the place for the result is valid for writes.
        let status = unsafe { (self.0.attributes)(self.this(), operation, 0, &mut found) };
        to_result(status).map(|()| found)
    }

    fn change_attributes(&self, operation: u32, attributes: u64) -> Result<(), PciStatus> {
        // SAFETY: these operations have no result.
        to_result(unsafe { (self.0.attributes)(self.this(), operation, attributes, ptr::null_mut()) })
    }

    /// The attributes as they are.
    ///
    /// # Errors
    /// The status of the firmware.
    pub fn attributes(&self) -> Result<u64, PciStatus> {
        self.ask_attributes(operation::GET)
    }

    /// The attributes that can be enabled.
    ///
    /// # Errors
    /// The status of the firmware.
    pub fn supported_attributes(&self) -> Result<u64, PciStatus> {
        self.ask_attributes(operation::SUPPORTED)
    }

    /// Enables attributes beside those that are enabled.
    ///
    /// # Errors
    /// The status of the firmware.
    pub fn enable_attributes(&self, attributes: u64) -> Result<(), PciStatus> {
        self.change_attributes(operation::ENABLE, attributes)
    }

    /// Disables attributes.
    ///
    /// # Errors
    /// The status of the firmware.
    pub fn disable_attributes(&self, attributes: u64) -> Result<(), PciStatus> {
        self.change_attributes(operation::DISABLE, attributes)
    }

    /// Sets the attributes to exactly these.
    ///
    /// # Errors
    /// The status of the firmware.
    pub fn set_attributes(&self, attributes: u64) -> Result<(), PciStatus> {
        self.change_attributes(operation::SET, attributes)
    }

    /// Waits until everything the device has written has reached memory.
    ///
    /// # Errors
    /// The status of the firmware.
    pub fn flush(&self) -> Result<(), PciStatus> {
        // SAFETY: the function takes nothing but the protocol.
        to_result(unsafe { (self.0.flush)(self.this()) })
    }

    /// Sets pages aside that can be shared with the device.
    pub(crate) fn allocate_buffer(&self, pages: usize) -> Result<SharedBuffer, PciStatus> {
        let mut start = ptr::null_mut();
        // SAFETY: the place for the address is valid for writes.
        let status = unsafe {
            (self.0.allocate_buffer)(self.this(), ANY_PAGES, BOOT_SERVICES_DATA, pages, &mut start, 0)
        };
        to_result(status)?;
        let start = NonNull::new(start.cast::<u8>()).ok_or(Status::OUT_OF_RESOURCES)?;
        let buffer = SharedBuffer { start, pages };
        // The device sees nothing of what was there before, from its mapping on.
        // SAFETY: so many pages were set aside for this call alone (guaranteed by the firmware); nothing else refers to
        // them yet.
        unsafe { buffer.zero() };
        Ok(buffer)
    }

    /// Gives pages back.
    ///
    /// # Safety
    /// Neither processor nor device uses them any more, and they are not mapped.
    pub(crate) unsafe fn free_buffer(&self, buffer: &SharedBuffer) -> Result<(), PciStatus> {
        // SAFETY: the pages come from `allocate_buffer`, and are not used any more (guaranteed by the caller).
        to_result(unsafe { (self.0.free_buffer)(self.this(), buffer.pages, buffer.start.as_ptr().cast()) })
    }

    /// Maps what is left of `buffer` from byte `offset` on for the device, for reads and writes of both.
    pub(crate) fn map(&self, buffer: &SharedBuffer, offset: usize) -> Result<Mapping, PciStatus> {
        let whole = buffer.pages.saturating_mul(PAGE);
        let asked = whole.checked_sub(offset).filter(|left| *left != 0).ok_or(Status::INVALID_PARAMETER)?;
        let (mut len, mut device, mut token) = (asked, 0, ptr::null_mut());
        let host = buffer.start.as_ptr().wrapping_add(offset);
        // SAFETY: the range lies inside the buffer (checked above), which was made for this; the three places are valid
        // for writes.
        let status = unsafe {
            (self.0.map)(self.this(), COMMON_BUFFER, host.cast(), &mut len, &mut device, &mut token)
        };
        to_result(status)?;
        Ok(Mapping { token, device, len: len.min(asked) })
    }

    /// Ends a mapping.
    ///
    /// # Safety
    /// The device does not use it any more.
    pub(crate) unsafe fn unmap(&self, mapping: &Mapping) -> Result<(), PciStatus> {
        // SAFETY: the mapping comes from `map` and is not used any more (guaranteed by the caller).
        to_result(unsafe { (self.0.unmap)(self.this(), mapping.token) })
    }

    /// Where a memory BAR is mapped for the processor, as the bus driver says (GetBarAttributes).
    ///
    /// # Errors
    /// The status of the firmware; [`Status::UNSUPPORTED`] if the BAR is no memory BAR.
    pub fn bar_range(&self, bar: u8) -> Result<BarRange, PciStatus> {
        let mut resources = ptr::null_mut();
        // SAFETY: the place for the list is valid for writes; the supported attributes need not be asked for.
        let status =
            unsafe { (self.0.get_bar_attributes)(self.this(), bar, ptr::null_mut(), &mut resources) };
        to_result(status)?;
        let list = NonNull::new(resources.cast::<u8>()).ok_or(Status::UNSUPPORTED)?;
        let mut bytes = [0; DESCRIPTOR];
        // SAFETY: the list begins with a descriptor of this size or with an end tag of two bytes (UEFI 2.10 §14.4.20); the
        // first byte says which.
        if unsafe { list.read() } == QWORD_DESCRIPTOR {
            // SAFETY: it is a descriptor of this many bytes, as the first one says.
            unsafe { list.as_ptr().copy_to_nonoverlapping(bytes.as_mut_ptr(), DESCRIPTOR) };
        }
        // SAFETY: the list was made from pool memory for the caller, who gives it back (UEFI 2.10 §14.4.20).
        let freed = unsafe { boot::free_pool(list) };
        freed.map_err(|error| error.status())?;
        parse_descriptor(&bytes).ok_or(Status::UNSUPPORTED)
    }
}

/// First byte of an ACPI QWORD Address Space Descriptor.
const QWORD_DESCRIPTOR: u8 = 0x8A;
/// Its bytes.
const DESCRIPTOR: usize = 46;

/// The memory that an ACPI QWORD Address Space Descriptor names, for the processor.
fn parse_descriptor(bytes: &[u8; DESCRIPTOR]) -> Option<BarRange> {
    let word = |at: usize| {
        bytes.get(at..).and_then(|rest| rest.first_chunk::<8>()).map(|chunk| u64::from_le_bytes(*chunk))
    };
    // Resource type 0 is memory. The address is the processor's already; with the translation it would be the bus's
    // (UEFI 2.10 §14.4.20).
    if bytes.first() != Some(&QWORD_DESCRIPTOR) || bytes.get(3) != Some(&0) {
        return None;
    }
    let (start, len) = (word(14)?, word(38)?);
    if start == 0 || len == 0 {
        return None;
    }
    Some(BarRange { start: usize::try_from(start).ok()?, len: usize::try_from(len).ok()? })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_descriptors_are_read_and_others_refused() {
        let good = || {
            let mut bytes = [0; DESCRIPTOR];
            bytes[0] = QWORD_DESCRIPTOR;
            bytes[1] = 0x2B;
            bytes[14..22].copy_from_slice(&0x8_0000_4000_u64.to_le_bytes());
            bytes[38..46].copy_from_slice(&0x4000_u64.to_le_bytes());
            bytes
        };
        type Change = fn(&mut [u8; DESCRIPTOR]);
        let range = |start| Some(BarRange { start, len: 0x4000 });
        let rows: [(&str, Change, Option<BarRange>); 6] = [
            ("as it is", |_| {}, range(0x8_0000_4000)),
            ("translated", |bytes| bytes[31] = 0x40, range(0x8_0000_4000)),
            ("I/O space", |bytes| bytes[3] = 1, None),
            ("an end tag", |bytes| bytes[0] = 0x79, None),
            ("of no bytes", |bytes| bytes[38..46].fill(0), None),
            ("nowhere", |bytes| bytes[14..22].fill(0), None),
        ];
        for (name, change, expected) in rows {
            let mut bytes = good();
            change(&mut bytes);
            assert_eq!(parse_descriptor(&bytes), expected, "{name}");
        }
    }
}

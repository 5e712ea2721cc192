// SPDX-License-Identifier: MIT OR Apache-2.0
//! A PCI function without firmware: EFI_PCI_IO_PROTOCOL over a controller of `nvme-controller`. Its bus addresses are never
//! those of the processor, and the mappings of one buffer never follow each other on the bus.
#![allow(unsafe_code, reason = "plays the firmware")]

use std::alloc::{Layout, alloc, dealloc};
use std::cell::{Cell, RefCell};
use std::ffi::c_void;
use std::ptr;
use std::sync::atomic::{AtomicU8, AtomicU32, Ordering};

use nvme_controller::Port;
use nvme_controller::host::{HostMemory, MemoryFault};
use nvme_core::controller::{Disabling, Link, attach};
use nvme_core::dma::{DmaArena, DmaRegion};
use nvme_core::register::{Offset, RegisterIo};
use nvme_core::wire::BusAddr;
use nvme_core::wire::register::DOORBELLS;
use nvme_host_uefi::sys::{Functions, PciIo, PciIoAccess, attributes};
use uefi::Status;

use crate::calls::{Call, refused};
use crate::world::Device;

/// Bytes of a page.
pub(crate) const PAGE: usize = 4096;
/// The first bus address; no address of this program looks like it.
const BASE: u64 = 0x7_0000_0000;

/// What the firmware does that it need not do, or should not.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Manners {
    /// Bytes of a mapping at most.
    pub(crate) piece: Option<usize>,
    /// How many more mappings it makes.
    pub(crate) maps: Option<usize>,
    /// Mappings are not ended.
    pub(crate) keeps_mappings: bool,
    /// Mappings do not begin with a page.
    pub(crate) askew: bool,
    /// Whole pages that the controller writes become something else on their way.
    pub(crate) alters: Option<fn(&mut [u8; PAGE])>,
    /// What is in memory is something else once it is mapped, as where memory is encrypted for the processor only.
    pub(crate) scrambles: bool,
}

struct Mapped {
    device: u64,
    host: *mut u8,
    len: usize,
}

/// Memory that one function shares with its driver.
pub(crate) struct BusMemory {
    buffers: RefCell<Vec<(*mut u8, Layout)>>,
    mapped: RefCell<Vec<Mapped>>,
    next: Cell<u64>,
    pub(crate) manners: Cell<Manners>,
}

impl BusMemory {
    pub(crate) fn new() -> &'static Self {
        Box::leak(Box::new(Self {
            buffers: RefCell::default(),
            mapped: RefCell::default(),
            next: Cell::new(BASE),
            manners: Cell::default(),
        }))
    }

    /// Buffers set aside, and mappings.
    pub(crate) fn live(&self) -> (usize, usize) {
        (self.buffers.borrow().len(), self.mapped.borrow().len())
    }

    /// Pages set aside.
    pub(crate) fn pages(&self) -> usize {
        self.buffers.borrow().iter().map(|(_, layout)| layout.size() / PAGE).sum()
    }

    fn resolve(&self, address: BusAddr, len: usize) -> Result<*mut u8, MemoryFault> {
        let fault = MemoryFault { address, len };
        let mapped = self.mapped.borrow();
        let found = mapped.iter().find_map(|mapped| {
            let start = usize::try_from(address.get().checked_sub(mapped.device)?).ok()?;
            (start.checked_add(len)? <= mapped.len).then(|| mapped.host.wrapping_add(start))
        });
        found.ok_or(fault)
    }

    fn byte(at: *mut u8, index: usize) -> &'static AtomicU8 {
        // SAFETY: `resolve` has found the byte inside a buffer, which is only reached through atomics while it is mapped.
        unsafe { AtomicU8::from_ptr(at.add(index)) }
    }
}

impl HostMemory for BusMemory {
    fn read(&self, address: BusAddr, bytes: &mut [u8]) -> Result<(), MemoryFault> {
        let at = self.resolve(address, bytes.len())?;
        for (index, byte) in bytes.iter_mut().enumerate() {
            *byte = Self::byte(at, index).load(Ordering::Relaxed);
        }
        Ok(())
    }

    fn write(&self, address: BusAddr, bytes: &[u8]) -> Result<(), MemoryFault> {
        let at = self.resolve(address, bytes.len())?;
        let mut page;
        let bytes = match (self.manners.get().alters, bytes.as_array::<PAGE>()) {
            (Some(alter), Some(whole)) => {
                page = *whole;
                alter(&mut page);
                &page[..]
            }
            _ => bytes,
        };
        for (index, byte) in bytes.iter().enumerate() {
            Self::byte(at, index).store(*byte, Ordering::Relaxed);
        }
        Ok(())
    }

    fn write_entry(&self, address: BusAddr, entry: &[u8]) -> Result<(), MemoryFault> {
        let (rest, last) = entry.split_last_chunk::<4>().expect("an entry");
        self.write(address, rest)?;
        let at = self.resolve(address.plus(rest.len() as u64), 4)?;
        // SAFETY: the four bytes were resolved, entries are aligned, and the memory is only reached through atomics.
        unsafe { AtomicU32::from_ptr(at.cast()) }.store(u32::from_ne_bytes(*last), Ordering::Release);
        Ok(())
    }

    fn is_host_memory(&self, address: BusAddr, len: u64) -> bool {
        usize::try_from(len).is_ok_and(|len| self.resolve(address, len).is_ok())
    }
}

/// The function. The protocol comes first.
#[repr(C)]
pub(crate) struct Function {
    pub(crate) io: PciIo,
    device: &'static RefCell<Device>,
    port: Port,
    pub(crate) memory: &'static BusMemory,
    pub(crate) attributes: Cell<u64>,
    /// Rings of the admin submission queue.
    pub(crate) rings: Cell<u32>,
    pub(crate) flushes: Cell<u32>,
    /// Registers written.
    pub(crate) written: Cell<u32>,
    /// Configuration space reads as all ones.
    pub(crate) gone: Cell<bool>,
}

impl Function {
    /// The function of a controller, whose memory this is.
    pub(crate) fn new(
        device: &'static RefCell<Device>,
        port: Port,
        memory: &'static BusMemory,
    ) -> &'static Self {
        let functions = Functions {
            poll_mem,
            poll_io: poll_mem,
            mem: PciIoAccess { read: mem_read, write: mem_write },
            io: PciIoAccess { read: no_bar, write: no_bar },
            pci: PciIoAccess { read: config_read, write: config_write },
            copy_mem,
            map,
            unmap,
            allocate_buffer,
            free_buffer,
            flush,
            get_location,
            attributes: change_attributes,
            get_bar_attributes,
            set_bar_attributes,
            rom_size: 0,
            rom_image: ptr::null_mut(),
        };
        // SAFETY: the functions are called for a `Function`, whose first field this is, and keep to the specification.
        let io = unsafe { PciIo::new(functions) };
        let function = Box::leak(Box::new(Self {
            io,
            device,
            port,
            memory,
            attributes: Cell::new(0),
            rings: Cell::new(0),
            flushes: Cell::new(0),
            written: Cell::new(0),
            gone: Cell::new(false),
        }));
        // Calls come with a pointer to the protocol; the whole value is reached by its address.
        ptr::from_mut(function).expose_provenance();
        function
    }

    /// A register as it is, and as it is made, without the firmware.
    pub(crate) fn register(&self, offset: u32) -> u32 {
        self.device.borrow().read32(self.port, Offset::new(offset)).expect("a register")
    }

    pub(crate) fn set_register(&self, offset: u32, value: u32) {
        self.device.borrow_mut().write32(self.port, Offset::new(offset), value).expect("a register");
    }

    /// Whether the controller takes commands and reaches memory, whether or not its own registers can be reached.
    pub(crate) fn may_run(&self) -> bool {
        (0..100).for_each(|_| self.work());
        let device = self.device.borrow();
        let takes = device.controller(self.port).expect("there").is_running();
        takes && self.attributes.get() & attributes::BUS_MASTER != 0
    }

    /// Whether it serves a guest: it may run, and its doorbells can be rung.
    pub(crate) fn runs(&self) -> bool {
        self.may_run() && self.attributes.get() & attributes::MEMORY != 0
    }

    /// The controller works on.
    pub(crate) fn work(&self) {
        self.device.borrow_mut().poll(16);
    }
}

/// Ends a function of the firmware that is to fail.
macro_rules! fail {
    ($call:ident) => {
        if let Some(status) = refused(Call::$call) {
            return status;
        }
    };
}

pub(crate) mod boot;

/// The function that a call is for.
///
/// # Safety
/// `this` is the first field of a `Function`, which lives for ever.
unsafe fn of(this: *mut PciIo) -> &'static Function {
    // SAFETY: promised by the caller; the structure begins with the protocol, and its address was exposed.
    unsafe { &*ptr::with_exposed_provenance::<Function>(this.addr()) }
}

unsafe extern "efiapi" fn mem_read(
    this: *mut PciIo,
    width: u32,
    bar: u8,
    offset: u64,
    count: usize,
    buffer: *mut c_void,
) -> Status {
    fail!(ReadRegister);
    // SAFETY: all functions here are those of a `Function`.
    let function = unsafe { of(this) };
    if (width, bar, count) != (2, 0, 1) {
        return Status::UNSUPPORTED;
    }
    // Without its memory space nobody answers.
    let value = match function.attributes.get() & attributes::MEMORY {
        0 => Ok(u32::MAX),
        _ => function.device.borrow().read32(function.port, Offset::new(offset as u32)),
    };
    let Ok(value) = value else {
        return Status::INVALID_PARAMETER;
    };
    // SAFETY: the caller has room for one unit of four bytes.
    unsafe { buffer.cast::<u32>().write(value) };
    Status::SUCCESS
}

unsafe extern "efiapi" fn mem_write(
    this: *mut PciIo,
    width: u32,
    bar: u8,
    offset: u64,
    count: usize,
    buffer: *mut c_void,
) -> Status {
    fail!(WriteRegister);
    // SAFETY: as in `mem_read`.
    let function = unsafe { of(this) };
    if (width, bar, count) != (2, 0, 1) {
        return Status::UNSUPPORTED;
    }
    if function.attributes.get() & attributes::MEMORY == 0 {
        return Status::SUCCESS;
    }
    if offset == u64::from(DOORBELLS) {
        function.rings.set(function.rings.get() + 1);
    }
    // SAFETY: the caller has one unit of four bytes there.
    let value = unsafe { buffer.cast::<u32>().read() };
    match function.device.borrow_mut().write32(function.port, Offset::new(offset as u32), value) {
        Ok(()) => {
            function.written.set(function.written.get() + 1);
            Status::SUCCESS
        }
        Err(_) => Status::INVALID_PARAMETER,
    }
}

unsafe extern "efiapi" fn config_read(
    this: *mut PciIo,
    width: u32,
    offset: u32,
    count: usize,
    buffer: *mut c_void,
) -> Status {
    fail!(ReadConfiguration);
    // SAFETY: as in `mem_read`.
    let gone = unsafe { of(this) }.gone.get();
    let value: u32 = match (width, offset, count) {
        _ if gone => u32::MAX,
        (2, 0, 1) => 0x0010_1B36,
        (2, 8, 1) => 0x0108_0202,
        _ => return Status::UNSUPPORTED,
    };
    // SAFETY: the caller has room for one unit of four bytes.
    unsafe { buffer.cast::<u32>().write(value) };
    Status::SUCCESS
}

unsafe extern "efiapi" fn map(
    this: *mut PciIo,
    operation: u32,
    host: *mut c_void,
    len: *mut usize,
    device: *mut u64,
    mapping: *mut *mut c_void,
) -> Status {
    fail!(Map);
    // SAFETY: as in `mem_read`.
    let memory = unsafe { of(this) }.memory;
    let mut manners = memory.manners.get();
    if operation != 2 || manners.maps == Some(0) {
        return Status::DEVICE_ERROR;
    }
    manners.maps = manners.maps.map(|left| left - 1);
    memory.manners.set(manners);
    // SAFETY: the places are valid (guaranteed by the caller).
    unsafe {
        let mapped = (*len).min(manners.piece.unwrap_or(usize::MAX));
        let at = memory.next.get() + if manners.askew { 8 } else { 0 };
        // A page that belongs to nobody lies between two mappings.
        memory.next.set((at + mapped as u64).next_multiple_of(PAGE as u64) + PAGE as u64);
        if manners.scrambles {
            host.cast::<u8>().write_bytes(0x5A, *len);
        }
        memory.mapped.borrow_mut().push(Mapped { device: at, host: host.cast(), len: mapped });
        *len = mapped;
        *device = at;
        *mapping = ptr::without_provenance_mut(at as usize);
    }
    Status::SUCCESS
}

unsafe extern "efiapi" fn unmap(this: *mut PciIo, mapping: *mut c_void) -> Status {
    fail!(Unmap);
    // SAFETY: as in `mem_read`.
    let memory = unsafe { of(this) }.memory;
    if memory.manners.get().keeps_mappings {
        return Status::DEVICE_ERROR;
    }
    let mut mapped = memory.mapped.borrow_mut();
    let found = mapped.iter().position(|one| one.device == mapping.addr() as u64).expect("a mapping");
    mapped.remove(found);
    Status::SUCCESS
}

unsafe extern "efiapi" fn allocate_buffer(
    this: *mut PciIo,
    _kind: u32,
    _memory: u32,
    pages: usize,
    host: *mut *mut c_void,
    _attributes: u64,
) -> Status {
    fail!(AllocateBuffer);
    // SAFETY: as in `mem_read`.
    let memory = unsafe { of(this) }.memory;
    let layout = Layout::from_size_align(pages * PAGE, PAGE).expect("a size");
    // SAFETY: the size is not zero, and the place is valid (guaranteed by the caller).
    unsafe {
        let start = alloc(layout);
        if start.is_null() {
            return Status::OUT_OF_RESOURCES;
        }
        // What is in memory of the firmware is anything.
        start.write_bytes(0xEE, layout.size());
        memory.buffers.borrow_mut().push((start, layout));
        *host = start.cast();
    }
    Status::SUCCESS
}

unsafe extern "efiapi" fn free_buffer(this: *mut PciIo, pages: usize, host: *mut c_void) -> Status {
    fail!(FreeBuffer);
    // SAFETY: as in `mem_read`.
    let memory = unsafe { of(this) }.memory;
    let mut buffers = memory.buffers.borrow_mut();
    let found = buffers.iter().position(|(start, _)| *start == host.cast()).expect("a buffer");
    let (start, layout) = buffers.remove(found);
    assert_eq!(layout.size(), pages * PAGE, "all of it is given back");
    let end = start.wrapping_add(layout.size());
    let mapped = memory.mapped.borrow().iter().any(|one| (start..end).contains(&one.host));
    assert!(!mapped, "memory that is mapped is given back");
    // SAFETY: it was made by `alloc` with this layout, and nothing refers to it any more (guaranteed by the caller).
    unsafe { dealloc(start, layout) };
    Status::SUCCESS
}

unsafe extern "efiapi" fn flush(this: *mut PciIo) -> Status {
    fail!(Flush);
    // SAFETY: as in `mem_read`.
    let flushes = &unsafe { of(this) }.flushes;
    flushes.set(flushes.get() + 1);
    Status::SUCCESS
}

unsafe extern "efiapi" fn change_attributes(
    this: *mut PciIo,
    operation: u32,
    these: u64,
    result: *mut u64,
) -> Status {
    match operation {
        0 => fail!(GetAttributes),
        1 => fail!(SetAttributes),
        2 => fail!(EnableAttributes),
        3 => fail!(DisableAttributes),
        _ => fail!(SupportedAttributes),
    }
    // SAFETY: as in `mem_read`.
    let now = &unsafe { of(this) }.attributes;
    match operation {
        // SAFETY: these two operations have a place for their result (guaranteed by the caller).
        0 => unsafe { *result = now.get() },
        // SAFETY: there is a place for the result of this one, too.
        4 => unsafe { *result = 0x8700 },
        1 => now.set(these),
        2 => now.set(now.get() | these),
        3 => now.set(now.get() & !these),
        _ => return Status::INVALID_PARAMETER,
    }
    Status::SUCCESS
}

unsafe extern "efiapi" fn get_location(
    _: *mut PciIo,
    segment: *mut usize,
    bus: *mut usize,
    device: *mut usize,
    function: *mut usize,
) -> Status {
    fail!(GetLocation);
    // SAFETY: the places are valid (guaranteed by the caller).
    unsafe { (*segment, *bus, *device, *function) = (0, 1, 2, 3) };
    Status::SUCCESS
}

/// Functions that the crate does not call.
macro_rules! unsupported {
    ($($name:ident($($argument:ty),*);)+) => {$(
        unsafe extern "efiapi" fn $name(_: *mut PciIo $(, _: $argument)*) -> Status {
            Status::UNSUPPORTED
        }
    )+};
}

unsupported! {
    poll_mem(u32, u8, u64, u64, u64, u64, *mut u64);
    no_bar(u32, u8, u64, usize, *mut c_void);
    config_write(u32, u32, usize, *mut c_void);
    copy_mem(u32, u8, u64, u8, u64, usize);
    get_bar_attributes(u8, *mut u64, *mut *mut c_void);
    set_bar_attributes(u64, u8, *mut u64, *mut u64);
}

/// Begins to take the controller over.
pub(crate) fn begin<'d, 's, R: RegisterIo, A: DmaArena>(
    registers: &'d R,
    arena: &'d A,
    link: &'d Link,
) -> Disabling<'d, 's, R, A> {
    // SAFETY: the controller is the test's, driven once, and reaches mapped memory by checked copies only.
    unsafe { attach(registers, arena, link) }.expect("it is there")
}

/// Gives a region back whatever the device does.
pub(crate) fn release<A: DmaArena>(arena: &A, region: DmaRegion) {
    // SAFETY: no device uses it.
    unsafe { arena.release(region) }
}

// SPDX-License-Identifier: MIT OR Apache-2.0
//! Everything that is not safe Rust: the machine's exit, memory, protocols of the firmware's own driver, and a function
//! that is put between the driver and a real one.
#![allow(unsafe_code, reason = "talks to firmware and to the virtual machine")]

use core::cell::Cell;
use core::ffi::c_void;
use core::ptr::{self, NonNull};

use nvme_core::dma::{DmaArena, DmaRegion};
use nvme_core::wire::register::{CAP, CSTS, DOORBELLS};
use nvme_host_uefi::sys::{Functions, PciIo, PciIoAccess};
use uefi::boot::{self, AllocateType, OpenProtocolAttributes, OpenProtocolParams, ScopedProtocol};
use uefi::mem::memory_map::MemoryType;
use uefi::proto::ProtocolPointer;
use uefi::{Handle, Identify, Status};
use uefi_raw::protocol::nvme::{
    NvmExpressCommand, NvmExpressCommandCdwValidity, NvmExpressCompletion, NvmExpressPassThruCommandPacket,
    NvmExpressPassThruProtocol, NvmExpressQueueType,
};

/// Ends the machine; QEMU's exit status is twice the value and one.
pub(crate) fn exit(value: u32) -> ! {
    // SAFETY: the port is QEMU's isa-debug-exit, which ends the machine and touches no memory.
    unsafe {
        core::arch::asm!("out dx, eax", in("dx") 0xF4_u16, in("eax") value, options(nomem, nostack));
    }
    loop {
        core::hint::spin_loop();
    }
}

/// So many bytes of memory, for as long as the machine runs.
pub(crate) fn memory(bytes: usize) -> Option<&'static mut [u8]> {
    let pages = boot::allocate_pages(AllocateType::AnyPages, MemoryType::LOADER_DATA, bytes.div_ceil(4096));
    let start = pages.ok()?;
    // SAFETY: so many pages were set aside for this call, are never given back, and every byte is written first.
    unsafe {
        start.write_bytes(0, bytes);
        Some(core::slice::from_raw_parts_mut(start.as_ptr(), bytes))
    }
}

/// Makes a handle that stands for nothing, and takes it away when `then` has ended.
pub(crate) fn with_handle<T>(then: impl FnOnce() -> T) -> Option<T> {
    const NOTHING: uefi::Guid = uefi::guid!("5d2b16a3-6e0f-4a53-9b5c-6f0c5c0f7a11");
    // SAFETY: nobody looks for a protocol of this name, and its interface is nothing.
    let handle = unsafe { boot::install_protocol_interface(None, &NOTHING, ptr::null()) }.ok()?;
    let result = then();
    // SAFETY: it was installed above, and nobody has opened it.
    unsafe { boot::uninstall_protocol_interface(handle, &NOTHING, ptr::null()) }.ok()?;
    Some(result)
}

/// Gives a region back that no device was told of.
pub(crate) fn release<A: DmaArena>(arena: &A, region: DmaRegion) {
    // SAFETY: no command has named it.
    unsafe { arena.release(region) }
}

/// So many bytes of pool memory, as often as asked for, until `then` has ended.
pub(crate) fn with_pool<T>(
    pieces: &mut [Option<NonNull<u8>>],
    bytes: usize,
    then: impl FnOnce() -> T,
) -> Option<T> {
    for piece in &mut *pieces {
        *piece = boot::allocate_pool(MemoryType::LOADER_DATA, bytes).ok();
    }
    let result = pieces.iter().all(Option::is_some).then(then);
    for piece in pieces.iter_mut().filter_map(Option::take) {
        // SAFETY: it was set aside above, and nothing refers to it.
        unsafe { boot::free_pool(piece) }.ok()?;
    }
    result
}

/// Sets a page aside until `then` has ended.
pub(crate) fn with_page<T>(then: impl FnOnce() -> T) -> Option<T> {
    let page = boot::allocate_pages(AllocateType::AnyPages, MemoryType::LOADER_DATA, 1).ok()?;
    let result = then();
    // SAFETY: it was set aside above, and nothing refers to it.
    unsafe { boot::free_pages(page, 1) }.ok()?;
    Some(result)
}

/// Whether the processor's page tables let the byte at `address` be executed.
pub(crate) fn is_executable(address: u64) -> bool {
    const ADDRESS: u64 = 0x000F_FFFF_FFFF_F000;
    let mut table: u64;
    // SAFETY: reads a register of the processor, which firmware runs privileged for.
    unsafe { core::arch::asm!("mov {}, cr3", out(reg) table, options(nomem, nostack)) };
    for shift in [39, 30, 21, 12] {
        let at = (table & ADDRESS) + 8 * ((address >> shift) & 511);
        // SAFETY: the entry lies in a page table in use, and firmware maps memory at its own addresses.
        let entry = unsafe { ptr::with_exposed_provenance::<u64>(at as usize).read_volatile() };
        if entry >> 63 == 1 {
            return false;
        }
        // A page of 1 GiB or 2 MiB.
        if shift <= 30 && entry & 0x80 != 0 {
            return true;
        }
        table = entry;
    }
    true
}

/// Opens a protocol beside its users.
pub(crate) fn look<P: ProtocolPointer + ?Sized>(handle: Handle) -> Option<ScopedProtocol<P>> {
    let params = OpenProtocolParams { handle, agent: boot::image_handle(), controller: None };
    // SAFETY: the guest uses such protocols only while it does not ask their driver to go, and there is one thread.
    unsafe { boot::open_protocol::<P>(params, OpenProtocolAttributes::GetProtocol) }.ok()
}

/// The pass through of the firmware's own driver.
#[repr(transparent)]
#[uefi::proto::unsafe_protocol(NvmExpressPassThruProtocol::GUID)]
pub(crate) struct PassThrough(NvmExpressPassThruProtocol);

impl PassThrough {
    /// Identify with this structure and namespace, by the firmware's driver.
    pub(crate) fn identify(
        &self,
        structure: u32,
        namespace: u32,
        page: &mut [u8; 4096],
    ) -> Result<(), Status> {
        let command = NvmExpressCommand {
            cdw0: 0x06,
            flags: NvmExpressCommandCdwValidity::CDW_10.bits(),
            nsid: namespace,
            cdw10: structure,
            ..NvmExpressCommand::default()
        };
        let mut completion = NvmExpressCompletion::default();
        let mut packet = NvmExpressPassThruCommandPacket {
            // 100 ns each.
            command_timeout: 50_000_000,
            transfer_buffer: page.as_mut_ptr().cast(),
            transfer_length: 4096,
            meta_data_buffer: ptr::null_mut(),
            meta_data_length: 0,
            queue_type: NvmExpressQueueType::ADMIN,
            nvme_cmd: &raw const command,
            nvme_completion: &raw mut completion,
        };
        let this = ptr::from_ref(&self.0).cast_mut();
        // SAFETY: the packet and what it points to are valid for the call, which ends before it returns, as no event is
        // given; the buffer has the 4,096 bytes that Identify moves.
        let status = unsafe { (self.0.pass_thru)(this, namespace, &raw mut packet, ptr::null_mut()) };
        if status == Status::SUCCESS { Ok(()) } else { Err(status) }
    }
}

/// What a function in between does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Manner {
    /// It counts the rings of the admin submission queue.
    Count,
    /// It never says that it is ready, and states the shortest time-out.
    NeverReady,
    /// It always says that it is ready: it does not let itself be disabled.
    Stuck,
}

/// A function between the driver and a real one.
#[repr(C)]
pub(crate) struct Between {
    io: PciIo,
    real: ScopedProtocol<PciIo>,
    manner: Cell<Manner>,
    rings: Cell<u32>,
    mappings: Tally,
    buffers: Tally,
}

/// How many there were made and ended.
#[derive(Debug, Default)]
struct Tally {
    made: Cell<u32>,
    ended: Cell<u32>,
}

impl Between {
    /// Puts itself before the function behind `handle`, from which its driver has been taken. Returns the handle that leads
    /// to it.
    pub(crate) fn install(handle: Handle) -> Option<(Handle, &'static Self)> {
        let real = look::<PciIo>(handle)?;
        let functions = Functions {
            mem: PciIoAccess { read: mem_read, write: mem_write },
            pci: PciIoAccess { read: config_read, write: real.functions().pci.write },
            map,
            unmap,
            allocate_buffer,
            free_buffer,
            flush,
            get_location,
            attributes,
            ..*real.functions()
        };
        let bytes = memory(size_of::<Self>())?;
        let place = NonNull::new(bytes.as_mut_ptr().cast::<Self>())?;
        // SAFETY: the functions that the crate calls forward to those of the real one, with its own pointer.
        let io = unsafe { PciIo::new(functions) };
        // SAFETY: the place is page aligned, as long as the value, and never given back.
        let between = unsafe {
            place.write(Self {
                io,
                real,
                manner: Cell::new(Manner::Count),
                rings: Cell::new(0),
                mappings: Tally::default(),
                buffers: Tally::default(),
            });
            // Calls come with a pointer to the protocol; the whole value is reached by its address.
            place.as_ptr().expose_provenance();
            place.as_ref()
        };
        // SAFETY: the protocol is valid for as long as the machine runs: it is never uninstalled or moved.
        let made = unsafe { boot::install_protocol_interface(None, &PciIo::GUID, place.as_ptr().cast()) };
        made.ok().map(|handle| (handle, between))
    }

    pub(crate) fn behave(&self, manner: Manner) {
        self.manner.set(manner);
    }

    /// Rings of the admin submission queue since the last call.
    pub(crate) fn take_rings(&self) -> u32 {
        self.rings.replace(0)
    }

    /// Mappings made and ended, and buffers set aside and given back, since the last call.
    pub(crate) fn take_memory(&self) -> [(u32, u32); 2] {
        [&self.mappings, &self.buffers].map(|tally| (tally.made.replace(0), tally.ended.replace(0)))
    }

    fn forward(&self) -> (&Functions, *mut PciIo) {
        let real: &PciIo = &self.real;
        (real.functions(), ptr::from_ref(real).cast_mut())
    }
}

/// The value that a function was called for.
///
/// # Safety
/// `this` is the first field of a `Between`.
unsafe fn between<'a>(this: *mut PciIo) -> &'a Between {
    // SAFETY: the structure begins with the protocol (`repr(C)`), lives as long as the machine, and its address was exposed.
    unsafe { &*ptr::with_exposed_provenance::<Between>(this.addr()) }
}

unsafe extern "efiapi" fn mem_read(
    this: *mut PciIo,
    width: u32,
    bar: u8,
    offset: u64,
    count: usize,
    buffer: *mut c_void,
) -> Status {
    // SAFETY: called for the value that was installed; the arguments are passed on as they came.
    let (between, status) = unsafe {
        let between = between(this);
        let (functions, real) = between.forward();
        (between, (functions.mem.read)(real, width, bar, offset, count, buffer))
    };
    if (width, count) == (2, 1) {
        let word = buffer.cast::<u32>();
        // SAFETY: the buffer has room for one unit of four bytes, which was just read into it.
        unsafe {
            match (between.manner.get(), offset == u64::from(CSTS), offset == u64::from(CAP)) {
                (Manner::NeverReady, true, _) => *word &= !1,
                // CAP.TO, in units of 500 ms.
                (Manner::NeverReady, _, true) => *word = (*word & 0x00FF_FFFF) | 1 << 24,
                (Manner::Stuck, true, _) => *word |= 1,
                _ => {}
            }
        }
    }
    status
}

unsafe extern "efiapi" fn mem_write(
    this: *mut PciIo,
    width: u32,
    bar: u8,
    offset: u64,
    count: usize,
    buffer: *mut c_void,
) -> Status {
    // SAFETY: called for the value that was installed; the arguments are passed on as they came.
    unsafe {
        let between = between(this);
        if offset == u64::from(DOORBELLS) {
            between.rings.set(between.rings.get().saturating_add(1));
        }
        let (functions, real) = between.forward();
        (functions.mem.write)(real, width, bar, offset, count, buffer)
    }
}

/// Functions that call the real one, and count what it did if asked to.
macro_rules! forwards {
    ($($name:ident: $path:ident$(.$field:ident)? ($($argument:ident: $type:ty),*) $(=> $tally:ident $count:ident)?;)+) => {$(
        unsafe extern "efiapi" fn $name(this: *mut PciIo $(, $argument: $type)*) -> Status {
            // SAFETY: called for the value that was installed; the arguments are passed on as they came.
            unsafe {
                let (functions, real) = between(this).forward();
                let status = (functions.$path$(.$field)?)(real $(, $argument)*);
                $(
                    if status == Status::SUCCESS {
                        let count = &between(this).$tally.$count;
                        count.set(count.get().saturating_add(1));
                    }
                )?
                status
            }
        }
    )+};
}

forwards! {
    config_read: pci.read(width: u32, offset: u32, count: usize, buffer: *mut c_void);
    map: map(operation: u32, host: *mut c_void, len: *mut usize, device: *mut u64, mapping: *mut *mut c_void)
        => mappings made;
    unmap: unmap(mapping: *mut c_void) => mappings ended;
    allocate_buffer: allocate_buffer(kind: u32, memory: u32, pages: usize, host: *mut *mut c_void, attributes: u64)
        => buffers made;
    free_buffer: free_buffer(pages: usize, host: *mut c_void) => buffers ended;
    flush: flush();
    get_location: get_location(segment: *mut usize, bus: *mut usize, device: *mut usize, function: *mut usize);
    attributes: attributes(operation: u32, attributes: u64, result: *mut u64);
}

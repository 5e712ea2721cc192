// SPDX-License-Identifier: MIT OR Apache-2.0
//! Boot services without firmware: handles of functions, who has opened them, and the firmware's driver. Each thread has
//! its own firmware.

use std::alloc::{Layout, alloc, dealloc};
use std::cell::RefCell;
use std::ffi::c_void;
use std::ptr;
use std::sync::Once;

use nvme_core::wire::register::{CC, CSTS};
use uefi::{Handle, Identify, Status};
use uefi_raw::table::Header;
use uefi_raw::table::boot::{
    BootServices, EventNotifyFn, EventType, OpenProtocolInformationEntry, TimerDelay, Tpl,
};
use uefi_raw::table::system::SystemTable;
use uefi_raw::{Boolean, Event, Guid};

use super::Function;
use crate::calls::{Call, refused};
use nvme_host_uefi::sys::{PciIo, attributes};

const BY_DRIVER: u32 = 0x10;
const EXCLUSIVE: u32 = 0x20;
/// Handles of the program's image and of the firmware's driver; those of functions follow.
const IMAGE: usize = 1;
const DRIVER: usize = 2;
const FIRST: usize = 3;

/// Who has opened a function: agent, controller, and how.
type Open = (usize, usize, u32);

struct Seat {
    function: &'static Function,
    opens: Vec<Open>,
}

#[derive(Default)]
struct Firmware {
    seats: Vec<Seat>,
    /// Memory of the pool.
    pool: Vec<(*mut u8, Layout)>,
    timer: Timer,
}

/// The one timer that a program can have at a time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Timer {
    /// It is there.
    pub(crate) open: bool,
    /// What it was set to, in units of 100 nanoseconds.
    pub(crate) set: u64,
    /// How often it, and those before it, were looked at.
    pub(crate) looks: u32,
    /// How often it was.
    since: u32,
    /// At which of these looks it goes off.
    pub(crate) rings: u32,
}

thread_local! {
    static FIRMWARE: RefCell<Firmware> = RefCell::default();
}

fn handle(number: usize) -> *mut c_void {
    ptr::without_provenance_mut(number)
}

/// Starts firmware with these functions, each of which its driver has. Returns their handles.
pub(crate) fn start(functions: &[&'static Function]) -> Vec<Handle> {
    static TABLE: Once = Once::new();
    TABLE.call_once(|| {
        let services = Box::leak(Box::new(services()));
        let table = Box::leak(Box::new(SystemTable { boot_services: services, ..SystemTable::default() }));
        // SAFETY: both live for ever, and the image is the only one.
        unsafe {
            uefi::table::set_system_table(table);
            uefi::boot::set_image_handle(Handle::from_ptr(handle(IMAGE)).expect("not null"));
        }
    });
    for (function, queues) in functions.iter().zip((0x10_0000..).step_by(0x10_0000)) {
        // As a driver leaves it: enabled, with queues of its own that are none of ours.
        function.attributes.set(attributes::MEMORY | attributes::BUS_MASTER);
        for (offset, value) in
            [(0x24, 0x001F_001F), (0x28, queues), (0x30, queues + 0x1000), (CC, 0x0046_0001)]
        {
            function.set_register(offset, value);
        }
        for _ in 0..100 {
            function.work();
        }
        assert_eq!(function.register(CSTS) & 1, 1, "the firmware's driver has it ready");
        function.written.set(0);
    }
    let opens = || vec![(DRIVER, DRIVER, BY_DRIVER)];
    FIRMWARE.with_borrow_mut(|firmware| {
        let seats = functions.iter().map(|function| Seat { function, opens: opens() });
        *firmware = Firmware { seats: seats.collect(), ..Firmware::default() };
    });
    (FIRST..)
        .take(functions.len())
        .filter_map(|number| {
            // SAFETY: handles are looked up, and lead to no memory.
            unsafe { Handle::from_ptr(handle(number)) }
        })
        .collect()
}

/// Whether its driver has the function, and opens of others.
pub(crate) fn users(of: Handle) -> (bool, usize) {
    with(of.as_ptr(), |seat| {
        let drivers = seat.opens.iter().filter(|open| open.2 & BY_DRIVER != 0).count();
        (drivers == 1, seat.opens.len() - drivers)
    })
    .expect("a function")
}

/// Its driver lets go of the function, and leaves the controller as it is.
pub(crate) fn disconnect(of: Handle) {
    with(of.as_ptr(), |seat| seat.opens.clear()).expect("a function");
}

/// The timer.
pub(crate) fn timer() -> Timer {
    FIRMWARE.with_borrow(|firmware| firmware.timer)
}

/// From now on a timer goes off at this look.
pub(crate) fn ring_at(look: u32) {
    FIRMWARE.with_borrow_mut(|firmware| firmware.timer.rings = look);
}

/// Memory of the pool that was not given back.
pub(crate) fn pool() -> usize {
    FIRMWARE.with_borrow(|firmware| firmware.pool.len())
}

fn with<T>(handle: *mut c_void, then: impl FnOnce(&mut Seat) -> T) -> Option<T> {
    FIRMWARE.with_borrow_mut(|firmware| firmware.seats.get_mut(handle.addr().checked_sub(FIRST)?).map(then))
}

fn from_pool(bytes: usize) -> *mut u8 {
    let layout = Layout::from_size_align(bytes.max(1), 16).expect("a size");
    // SAFETY: the size is not zero.
    let start = unsafe { alloc(layout) };
    assert!(!start.is_null(), "no memory");
    FIRMWARE.with_borrow_mut(|firmware| firmware.pool.push((start, layout)));
    start
}

unsafe extern "efiapi" fn trap() {
    panic!("a boot service that is not played");
}

#[repr(C)]
struct Words {
    header: Header,
    functions: [unsafe extern "efiapi" fn(); SERVICES],
}

const SERVICES: usize = (size_of::<BootServices>() - size_of::<Header>()) / size_of::<usize>();

fn services() -> BootServices {
    let words = Words { header: Header::default(), functions: [trap; SERVICES] };
    assert_eq!(size_of::<Words>(), size_of::<BootServices>());
    // SAFETY: behind the header of both are pointers only; those that are not replaced end the program when called.
    let traps = unsafe { ptr::from_ref(&words).cast::<BootServices>().read() };
    BootServices {
        free_pool,
        stall,
        connect_controller,
        open_protocol,
        close_protocol,
        open_protocol_information,
        locate_handle_buffer,
        create_event,
        set_timer,
        check_event,
        close_event,
        ..traps
    }
}

unsafe extern "efiapi" fn free_pool(start: *mut u8) -> Status {
    FIRMWARE.with_borrow_mut(|firmware| {
        let found = firmware.pool.iter().position(|(known, _)| *known == start).expect("memory of the pool");
        let (start, layout) = firmware.pool.remove(found);
        // SAFETY: it was made by `alloc` with this layout, and is not used any more (guaranteed by the caller).
        unsafe { dealloc(start, layout) };
    });
    Status::SUCCESS
}

unsafe extern "efiapi" fn stall(_microseconds: usize) -> Status {
    FIRMWARE.with_borrow(|firmware| firmware.seats.iter().for_each(|seat| seat.function.work()));
    Status::SUCCESS
}

unsafe extern "efiapi" fn connect_controller(
    of: *mut c_void,
    _: *const *mut c_void,
    _: *const uefi_raw::protocol::device_path::DevicePathProtocol,
    _: Boolean,
) -> Status {
    fail!(Connect);
    let connected = with(of, |seat| {
        let free = seat.opens.iter().all(|open| open.2 & (BY_DRIVER | EXCLUSIVE) == 0);
        if free {
            seat.opens.push((DRIVER, DRIVER, BY_DRIVER));
        }
        free
    });
    if connected == Some(true) { Status::SUCCESS } else { Status::NOT_FOUND }
}

unsafe extern "efiapi" fn open_protocol(
    of: *mut c_void,
    protocol: *const Guid,
    interface: *mut *mut c_void,
    agent: *mut c_void,
    controller: *mut c_void,
    how: u32,
) -> Status {
    // SAFETY: the protocol's name is valid (guaranteed by the caller).
    assert_eq!(unsafe { *protocol }, PciIo::GUID);
    if how & EXCLUSIVE == 0 {
        fail!(Look);
    } else {
        let opens = with(of, |seat| seat.opens.clone()).expect("a function");
        if opens.iter().any(|open| open.2 & EXCLUSIVE != 0) {
            return Status::ACCESS_DENIED;
        }
        if opens.iter().any(|open| open.2 & BY_DRIVER != 0) {
            if refused(Call::Disconnect).is_some() {
                return Status::ACCESS_DENIED;
            }
            with(of, |seat| seat.opens.retain(|open| open.2 & BY_DRIVER == 0));
        }
        fail!(OpenExclusive);
    }
    let found = with(of, |seat| {
        seat.opens.push((agent.addr(), controller.addr(), how));
        ptr::from_ref(&seat.function.io).cast_mut().cast()
    });
    // SAFETY: the place is valid for writes (guaranteed by the caller).
    unsafe { *interface = found.expect("a function") };
    Status::SUCCESS
}

unsafe extern "efiapi" fn close_protocol(
    of: *mut c_void,
    _: *const Guid,
    agent: *mut c_void,
    controller: *mut c_void,
) -> Status {
    let closed = with(of, |seat| {
        let before = seat.opens.len();
        // All of them, as firmware does it.
        seat.opens.retain(|open| (open.0, open.1) != (agent.addr(), controller.addr()));
        before != seat.opens.len()
    });
    if closed == Some(true) { Status::SUCCESS } else { Status::NOT_FOUND }
}

unsafe extern "efiapi" fn open_protocol_information(
    of: *mut c_void,
    _: *const Guid,
    entries: *mut *mut OpenProtocolInformationEntry,
    count: *mut usize,
) -> Status {
    fail!(OpenInformation);
    let opens = with(of, |seat| seat.opens.clone()).expect("a function");
    let bytes = opens.len() * size_of::<OpenProtocolInformationEntry>();
    let list = from_pool(bytes).cast::<OpenProtocolInformationEntry>();
    for (at, (agent, controller, how)) in opens.iter().enumerate() {
        let entry = OpenProtocolInformationEntry {
            agent_handle: handle(*agent),
            controller_handle: handle(*controller),
            attributes: *how,
            open_count: 1,
        };
        // SAFETY: the list was made for so many entries.
        unsafe { ptr::write(list.wrapping_add(at), entry) };
    }
    // SAFETY: both places are valid for writes (guaranteed by the caller).
    unsafe { (*entries, *count) = (list, opens.len()) };
    Status::SUCCESS
}

unsafe extern "efiapi" fn locate_handle_buffer(
    _: i32,
    _: *const Guid,
    _: *const c_void,
    count: *mut usize,
    handles: *mut *mut *mut c_void,
) -> Status {
    fail!(LocateHandles);
    let seats = FIRMWARE.with_borrow(|firmware| firmware.seats.len());
    let list = from_pool(seats * size_of::<usize>()).cast::<*mut c_void>();
    for at in 0..seats {
        // SAFETY: the list was made for so many handles.
        unsafe { ptr::write(list.wrapping_add(at), handle(FIRST + at)) };
    }
    // SAFETY: both places are valid for writes (guaranteed by the caller).
    unsafe { (*count, *handles) = (seats, list) };
    Status::SUCCESS
}

/// The timer's event.
const TIMER: usize = 0x71;

unsafe extern "efiapi" fn create_event(
    kind: EventType,
    _: Tpl,
    notify: Option<EventNotifyFn>,
    _: *mut c_void,
    event: *mut Event,
) -> Status {
    fail!(CreateEvent);
    assert!(kind == EventType::TIMER && notify.is_none());
    FIRMWARE.with_borrow_mut(|firmware| {
        let timer = &mut firmware.timer;
        assert!(!timer.open, "one at a time");
        (timer.open, timer.since) = (true, 0);
    });
    // SAFETY: the place is valid for writes (guaranteed by the caller).
    unsafe { *event = handle(TIMER) };
    Status::SUCCESS
}

unsafe extern "efiapi" fn set_timer(event: Event, kind: TimerDelay, time: u64) -> Status {
    fail!(SetTimer);
    assert!(event.addr() == TIMER && kind == TimerDelay::RELATIVE);
    FIRMWARE.with_borrow_mut(|firmware| firmware.timer.set = time);
    Status::SUCCESS
}

unsafe extern "efiapi" fn check_event(event: Event) -> Status {
    assert_eq!(event.addr(), TIMER);
    FIRMWARE.with_borrow_mut(|firmware| {
        let timer = &mut firmware.timer;
        timer.looks += 1;
        timer.since += 1;
        // Once.
        if timer.since == timer.rings { Status::SUCCESS } else { Status::NOT_READY }
    })
}

unsafe extern "efiapi" fn close_event(event: Event) -> Status {
    assert_eq!(event.addr(), TIMER);
    FIRMWARE.with_borrow_mut(|firmware| firmware.timer.open = false);
    Status::SUCCESS
}

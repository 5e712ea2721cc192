// SPDX-License-Identifier: MIT OR Apache-2.0
//! The vfio-user client against servers that misbehave: a row for each way.

use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use nvme_core::register::{Offset, RegisterIo};
use nvme_host_linux::memory::{AddressSpace, Capacity};
use nvme_host_linux::vfio_user::wire::{
    Access, BAR0, CONFIGURATION, CapabilityHeader, Command, DeviceInfo, DmaUnmap, ERROR, HEADER, Header,
    IRQ_EVENTFD, IrqInfo, MSIX, NO_REPLY, REGION_CAPS, REGION_MMAP, REGION_READ, REGION_WRITE, REPLY,
    RegionInfo, SPARSE_MMAP, SparseArea, SparseMmap, Version,
};
use nvme_host_linux::vfio_user::{ConnectOptions, Error, RemoteController};
use nvme_tests::vfio_user::{Arrived, command, memory, receive, send};

/// What CSTS reads.
const STATUS: u32 = 0x0000_0001;
const REGISTERS: u64 = 0x4000;

/// A reply before it goes.
struct Reply {
    header: Header,
    body: Vec<u8>,
    descriptors: Vec<OwnedFd>,
    /// Sent before it.
    before: Vec<u8>,
    /// The connection is closed after so many bytes.
    cut: Option<usize>,
    /// Nothing is sent.
    silent: bool,
    /// The size in the header, if it is not the true one.
    size: Option<u32>,
}

/// How a server misbehaves in its reply to one command.
type Wrong = fn(&Arrived, &mut Reply);

/// Configuration space with class, one capability (MSI-X at 84h) and nothing else.
fn configuration() -> Vec<u8> {
    let mut space = vec![0; 256];
    space[0x06] = 0x10;
    space[0x08..0x0C].copy_from_slice(&[0, 0x02, 0x08, 0x01]);
    space[0x34] = 0x84;
    space[0x84..0x88].copy_from_slice(&[0x11, 0, 7, 0]);
    space
}

/// What a server replies that does everything right.
fn right(asked: &Arrived, space: &mut [u8], doorbells: &OwnedFd) -> (Vec<u8>, Vec<OwnedFd>) {
    let body = &asked.body;
    match Command(asked.header.command) {
        Command::VERSION => {
            let mut body = Version { major: 0, minor: 1 }.bytes();
            body.extend(b"{\"capabilities\":{\"max_msg_fds\":8,\"max_data_xfer_size\":4096}}\0");
            (body, vec![])
        }
        Command::DEVICE_GET_INFO => (DeviceInfo { argsz: 16, flags: 3, regions: 9, irqs: 5 }.bytes(), vec![]),
        Command::DEVICE_GET_REGION_INFO => {
            let asked = RegionInfo::parse(body).expect("a region");
            let size = if asked.index == BAR0 { REGISTERS } else { 256 };
            let flags = REGION_READ | REGION_WRITE;
            let mut info =
                RegionInfo { argsz: 32, flags, index: asked.index, cap_offset: 0, size, offset: 0 };
            if asked.index != BAR0 {
                return (info.bytes(), vec![]);
            }
            info.argsz = 64;
            info.flags |= REGION_MMAP | REGION_CAPS;
            info.cap_offset = 32;
            let mut body = info.bytes();
            CapabilityHeader { id: SPARSE_MMAP, version: 1, next: 0 }.put(&mut body);
            SparseMmap { areas: 1, reserved: 0 }.put(&mut body);
            SparseArea { offset: 0x1000, size: 0x1000 }.put(&mut body);
            (body, vec![doorbells.try_clone().expect("a descriptor")])
        }
        Command::DEVICE_GET_IRQ_INFO => {
            (IrqInfo { argsz: 16, flags: IRQ_EVENTFD, index: MSIX, count: 8 }.bytes(), vec![])
        }
        Command::REGION_READ => {
            let access = Access::parse(body).expect("an access");
            let (start, count) = (access.offset as usize, access.count as usize);
            let mut reply = body.clone();
            match access.region {
                CONFIGURATION => reply.extend_from_slice(&space[start..start + count]),
                _ => reply.extend(STATUS.to_le_bytes().iter().cycle().take(count)),
            }
            (reply, vec![])
        }
        Command::REGION_WRITE => {
            let access = Access::parse(body).expect("an access");
            if access.region == CONFIGURATION {
                let start = access.offset as usize;
                space[start..start + access.count as usize].copy_from_slice(&body[Access::LEN..]);
            }
            (access.bytes(), vec![])
        }
        Command::DMA_UNMAP => (body.clone(), vec![]),
        _ => (vec![], vec![]),
    }
}

/// A server in a thread that does everything right but one thing.
struct Rogue {
    folder: tempfile::TempDir,
    armed: Arc<AtomicBool>,
    thread: JoinHandle<Vec<Arrived>>,
}

/// For a reply that comes, on a busy machine.
const PATIENT: Duration = Duration::from_secs(60);

/// For the row of this name: what is never answered is not waited for so long.
fn patience(name: &str) -> Duration {
    if name == "never answers" { Duration::from_secs(4) } else { PATIENT }
}

impl Rogue {
    fn start(at: Command, wrong: Wrong, armed: bool) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let listener = UnixListener::bind(folder.path().join("socket")).expect("a socket");
        let armed = Arc::new(AtomicBool::new(armed));
        let theirs = Arc::clone(&armed);
        let thread = thread::spawn(move || {
            let (stream, _) = listener.accept().expect("a client");
            misbehave(&stream, at, wrong, &theirs)
        });
        Self { folder, armed, thread }
    }

    fn connect(&self, timeout: Duration) -> Result<RemoteController, Error> {
        let options = ConnectOptions { timeout, ..ConnectOptions::default() };
        RemoteController::connect(&self.folder.path().join("socket"), &options)
    }

    /// What the server was sent, once the client is gone.
    fn heard(self) -> Vec<Arrived> {
        self.thread.join().expect("the server")
    }
}

fn misbehave(stream: &UnixStream, at: Command, wrong: Wrong, armed: &AtomicBool) -> Vec<Arrived> {
    let (mut space, mut heard) = (configuration(), Vec::new());
    let doorbells = memory(0x2000, true);
    while let Some(asked) = receive(stream) {
        if asked.header.flags & REPLY != 0 {
            // An answer to something that this server has asked.
            heard.push(asked);
            continue;
        }
        let (body, descriptors) = right(&asked, &mut space, &doorbells);
        let header = Header { flags: REPLY, ..asked.header };
        let mut reply =
            Reply { header, body, descriptors, before: vec![], cut: None, silent: false, size: None };
        if Command(asked.header.command) == at && armed.load(Ordering::Acquire) {
            wrong(&asked, &mut reply);
        }
        heard.push(asked);
        if reply.silent {
            continue;
        }
        reply.header.size = reply.size.unwrap_or((HEADER + reply.body.len()) as u32);
        let bytes = [reply.before, reply.header.bytes(), reply.body].concat();
        let descriptors: Vec<_> = reply.descriptors.iter().map(AsFd::as_fd).collect();
        let sent = send(stream, &bytes[..reply.cut.unwrap_or(bytes.len())], &descriptors);
        if sent.is_err() || reply.cut.is_some() {
            break;
        }
    }
    heard
}

fn size(command: Command, found: usize, least: usize, most: usize) -> Error {
    Error::Size { command, found, least, most }
}

fn field(command: Command, field: &'static str, expected: u64, found: u64) -> Error {
    Error::Field { command, field, expected, found }
}

/// Bytes of the longest message that a client takes, and of the longest reply to a read.
const MOST: usize = 16 + 16 + (64 << 10);
const MOST_READ: usize = 16 + 16 + 4096;

fn descriptor(reply: &mut Reply) {
    reply.descriptors.push(memory(0x2000, true));
}

/// Replaces the body by a changed structure.
macro_rules! change {
    ($type:ident, $reply:ident, $($field:ident = $value:expr),+) => {{
        let rest = $reply.body.split_off($type::LEN);
        let old = $type::parse(&$reply.body).expect("a structure");
        $reply.body = $type { $($field: $value,)+ ..old }.bytes();
        $reply.body.extend(rest);
    }};
}

#[test]
fn what_is_wrong_while_connecting_is_named() {
    const VERSION: Command = Command::VERSION;
    const INFO: Command = Command::DEVICE_GET_INFO;
    const REGION: Command = Command::DEVICE_GET_REGION_INFO;
    const IRQ: Command = Command::DEVICE_GET_IRQ_INFO;
    const READ: Command = Command::REGION_READ;
    /// For BAR0 only.
    macro_rules! bar0 {
        (|$reply:ident| $change:expr) => {
            |asked: &Arrived, $reply: &mut Reply| {
                if RegionInfo::parse(&asked.body).is_some_and(|info| info.index == BAR0) {
                    $change;
                }
            }
        };
    }
    /// Sets the one area that can be mapped.
    fn area(reply: &mut Reply, offset: u64, size: u64) {
        reply.body.truncate(48);
        SparseArea { offset, size }.put(&mut reply.body);
    }
    fn json(reply: &mut Reply, text: &str) {
        reply.body.truncate(4);
        reply.body.extend(text.as_bytes());
    }
    let areas = |offset, size| Error::Area { offset, size, region: REGISTERS };
    let descriptors = |expected, found| Error::Descriptors { command: REGION, expected, found };
    let rows: Vec<(&str, Command, Wrong, Error)> = vec![
        ("never answers", VERSION, |_, r| r.silent = true, Error::TimedOut(VERSION)),
        ("closes at once", VERSION, |_, r| r.cut = Some(0), Error::Closed),
        (
            "another major version",
            VERSION,
            |_, r| change!(Version, r, major = 1),
            Error::Version { major: 1, minor: 1 },
        ),
        (
            "a later minor version",
            VERSION,
            |_, r| change!(Version, r, minor = 2),
            Error::Version { major: 0, minor: 2 },
        ),
        ("half a version", VERSION, |_, r| r.body.truncate(2), size(VERSION, 18, 20, MOST)),
        (
            "a version with a descriptor",
            VERSION,
            |_, r| descriptor(r),
            Error::Descriptors { command: VERSION, expected: 0, found: 1 },
        ),
        ("no JSON", VERSION, |_, r| json(r, "{\0"), Error::Capabilities("the data is not JSON")),
        (
            "JSON without end",
            VERSION,
            |_, r| json(r, "{}"),
            Error::Capabilities("the data does not end with a zero byte"),
        ),
        (
            "no number",
            VERSION,
            |_, r| json(r, "{\"capabilities\":{\"max_data_xfer_size\":[]}}\0"),
            Error::Capabilities("max_data_xfer_size"),
        ),
        (
            "no PCI function",
            INFO,
            |_, r| change!(DeviceInfo, r, flags = 1),
            Error::Device("it is no PCI function", 1),
        ),
        (
            "no configuration space",
            INFO,
            |_, r| change!(DeviceInfo, r, regions = 7),
            Error::Device("it has too few regions", 7),
        ),
        (
            "no MSI-X",
            INFO,
            |_, r| change!(DeviceInfo, r, irqs = 2),
            Error::Device("it has too few kinds of interrupt", 2),
        ),
        ("short information", INFO, |_, r| r.body.truncate(12), size(INFO, 28, 32, 288)),
        (
            "refused information",
            INFO,
            |_, r| {
                r.header.flags |= ERROR;
                r.header.error = 22
            },
            Error::Refused(INFO, 22),
        ),
        (
            "another region",
            REGION,
            bar0!(|r| change!(RegionInfo, r, index = 1)),
            field(REGION, "index", 0, 1),
        ),
        (
            "a region as long as can be",
            REGION,
            bar0!(|r| change!(RegionInfo, r, argsz = u32::MAX)),
            field(REGION, "argsz", 4096, u32::MAX.into()),
        ),
        (
            "registers without doorbells",
            REGION,
            bar0!(|r| {
                change!(RegionInfo, r, size = 0x1000, flags = 3);
                r.descriptors.clear()
            }),
            Error::Device("its register space ends before the doorbells", 0x1000),
        ),
        ("nothing to map with", REGION, bar0!(|r| r.descriptors.clear()), descriptors(1, 0)),
        ("twice something to map with", REGION, bar0!(|r| descriptor(r)), descriptors(1, 2)),
        (
            "something to map but nothing said",
            REGION,
            bar0!(|r| change!(RegionInfo, r, flags = 3)),
            descriptors(0, 1),
        ),
        ("an area behind the region", REGION, bar0!(|r| area(r, 0x4000, 0x1000)), areas(0x4000, 0x1000)),
        (
            "an area over the end of the region",
            REGION,
            bar0!(|r| area(r, 0x1000, 0x4000)),
            areas(0x1000, 0x4000),
        ),
        (
            "an area over the end of everything",
            REGION,
            bar0!(|r| area(r, 0x1000, 0u64.wrapping_sub(0x1000))),
            areas(0x1000, 0u64.wrapping_sub(0x1000)),
        ),
        ("an area of half a page", REGION, bar0!(|r| area(r, 0x1000, 0x800)), areas(0x1000, 0x800)),
        ("an area in the middle of a page", REGION, bar0!(|r| area(r, 0x800, 0x1000)), areas(0x800, 0x1000)),
        ("an area of nothing", REGION, bar0!(|r| area(r, 0x1000, 0)), areas(0x1000, 0)),
        (
            "fewer areas than said",
            REGION,
            bar0!(|r| r.body[40..44].copy_from_slice(&u32::MAX.to_ne_bytes())),
            field(REGION, "number of areas", 1, u32::MAX.into()),
        ),
        (
            "capabilities inside the information",
            REGION,
            bar0!(|r| change!(RegionInfo, r, cap_offset = 8)),
            field(REGION, "capability offset", 32, 8),
        ),
        (
            "capabilities outside the reply",
            REGION,
            bar0!(|r| change!(RegionInfo, r, cap_offset = u32::MAX)),
            field(REGION, "capability offset", 32, u32::MAX.into()),
        ),
        (
            "capabilities in a circle",
            REGION,
            bar0!(|r| r.body[32..40]
                .copy_from_slice(&CapabilityHeader { id: 99, version: 1, next: 32 }.bytes())),
            field(REGION, "number of capabilities", 16, u64::MAX),
        ),
        (
            "a file that ends before the area",
            REGION,
            bar0!(|r| r.descriptors = vec![memory(0x1FFF, true)]),
            Error::FileTooSmall { needed: 0x2000, found: 0x1FFF },
        ),
        (
            "a file that cannot be mapped",
            REGION,
            bar0!(|r| change!(RegionInfo, r, offset = 8)),
            Error::Device("its doorbells cannot be mapped from there", 8),
        ),
        (
            "an area over the end of the file's offsets",
            REGION,
            bar0!(|r| change!(RegionInfo, r, offset = 0u64.wrapping_sub(0x1000))),
            Error::Device("its doorbells cannot be mapped from there", 0u64.wrapping_sub(0x1000)),
        ),
        ("another kind of interrupt", IRQ, |_, r| change!(IrqInfo, r, index = 1), field(IRQ, "index", 2, 1)),
        (
            "too many vectors",
            IRQ,
            |_, r| change!(IrqInfo, r, count = 4096),
            Error::Device("it has more vectors than MSI-X has", 4096),
        ),
        (
            "another class",
            READ,
            |a, r| {
                if a.body[0] == 8 {
                    r.body[19] = 2
                }
            },
            Error::NotNvme(0x02_08_02),
        ),
        (
            "PCI capabilities in a circle",
            READ,
            |a, r| {
                if a.body[0] == 0x84 {
                    r.body[16] = 9;
                    r.body[17] = 0x84
                }
            },
            Error::Device("the list of its capabilities runs in a circle", 0x84),
        ),
    ];
    for (name, at, wrong, expected) in rows {
        let rogue = Rogue::start(at, wrong, true);
        assert_eq!(rogue.connect(patience(name)).expect_err(name), expected, "{name}");
        assert!(!expected.to_string().is_empty(), "{name}");
        rogue.heard();
    }
}

/// Something that a client does with a controller.
type Use = fn(&RemoteController) -> Result<(), Error>;

fn status(controller: &RemoteController) -> Result<(), Error> {
    controller.read_region(BAR0, 0x1C, &mut [0; 4])
}

fn space() -> Arc<AddressSpace> {
    let capacity = Capacity { queues: 4096, data: 4096, controller_data: 4096 };
    Arc::new(AddressSpace::linear("test", capacity).expect("memory"))
}

#[test]
fn what_is_wrong_in_use_is_named_and_ends_the_connection_if_it_breaks_the_protocol() {
    const READ: Command = Command::REGION_READ;
    const WRITE: Command = Command::REGION_WRITE;
    const UNMAP: Command = Command::DMA_UNMAP;
    const RESET: Command = Command::DEVICE_RESET;
    const IRQS: Command = Command::DEVICE_SET_IRQS;
    let write: Use = |c| c.write_region(BAR0, 0x14, &[1, 0, 0, 0]);
    let unmap: Use = |c| c.unmap_window(space().windows()[0]);
    let map: Use = |c| c.map(&space()).map(drop);
    let reset: Use = RemoteController::reset;
    let irqs: Use = |c| c.enable_interrupts(8).map(drop);
    let flags = |flags| Error::Flags(flags);
    let rows: Vec<(&str, Command, Wrong, Use, Error)> = vec![
        ("short reply", READ, |_, r| r.body.truncate(15), status, size(READ, 31, 32, MOST_READ)),
        ("reply without data", READ, |_, r| r.body.truncate(16), status, field(READ, "data", 4, 0)),
        ("too few data", READ, |_, r| r.body.truncate(19), status, field(READ, "data", 4, 3)),
        ("too many data", READ, |_, r| r.body.push(0), status, field(READ, "data", 4, 5)),
        ("wrong count", READ, |_, r| change!(Access, r, count = 8), status, field(READ, "count", 4, 8)),
        ("wrong offset", READ, |_, r| change!(Access, r, offset = 8), status, field(READ, "offset", 0x1C, 8)),
        ("wrong region", READ, |_, r| change!(Access, r, region = 7), status, field(READ, "region", 0, 7)),
        (
            "wrong identifier",
            READ,
            |_, r| r.header.id = 0xBAD,
            status,
            Error::Identifier { expected: 0, found: 0xBAD },
        ),
        (
            "wrong command",
            READ,
            |_, r| r.header.command = 10,
            status,
            Error::WrongCommand { expected: READ, found: WRITE },
        ),
        (
            "error",
            READ,
            |_, r| {
                r.header.flags |= ERROR;
                r.header.error = 5;
                r.body.clear()
            },
            status,
            Error::Refused(READ, 5),
        ),
        (
            "error without a reason",
            READ,
            |_, r| {
                r.header.flags |= ERROR;
                r.body.clear()
            },
            status,
            Error::Refused(READ, 0),
        ),
        (
            "error with a payload",
            READ,
            |_, r| {
                r.header.flags |= ERROR;
                r.header.error = 1
            },
            status,
            Error::Refused(READ, 1),
        ),
        (
            "errno that is none",
            READ,
            |_, r| {
                r.header.flags |= ERROR;
                r.header.error = u32::MAX
            },
            status,
            Error::Refused(READ, u32::MAX),
        ),
        (
            "as large as can be",
            READ,
            |_, r| r.size = Some(u32::MAX),
            status,
            size(READ, u32::MAX as usize, 16, MOST),
        ),
        (
            "one byte too large",
            READ,
            |_, r| r.size = Some(MOST as u32 + 1),
            status,
            size(READ, MOST + 1, 16, MOST),
        ),
        (
            "longer than was asked for",
            READ,
            |_, r| r.body.resize(5000, 0),
            status,
            size(READ, 5016, 32, MOST_READ),
        ),
        ("smaller than a header", READ, |_, r| r.size = Some(15), status, size(READ, 15, 16, MOST)),
        ("of size zero", READ, |_, r| r.size = Some(0), status, size(READ, 0, 16, MOST)),
        ("closed instead of an answer", READ, |_, r| r.cut = Some(0), status, Error::Closed),
        (
            "closed in the header",
            READ,
            |_, r| r.cut = Some(9),
            status,
            Error::ClosedInside { received: 9, expected: 16 },
        ),
        (
            "closed in the payload",
            READ,
            |_, r| r.cut = Some(33),
            status,
            Error::ClosedInside { received: 33, expected: 36 },
        ),
        (
            "closed before what was promised",
            READ,
            |_, r| {
                r.size = Some(60);
                r.cut = Some(36)
            },
            status,
            Error::ClosedInside { received: 36, expected: 60 },
        ),
        (
            "a descriptor for nothing",
            READ,
            |_, r| descriptor(r),
            status,
            Error::Descriptors { command: READ, expected: 0, found: 1 },
        ),
        (
            "more descriptors than can be",
            READ,
            |_, r| (0..17).for_each(|_| descriptor(r)),
            status,
            Error::Descriptors { command: READ, expected: 16, found: 17 },
        ),
        ("neither command nor reply", READ, |_, r| r.header.flags = 2, status, flags(2)),
        (
            "a reply that wants no reply",
            READ,
            |_, r| r.header.flags |= NO_REPLY,
            status,
            flags(REPLY | NO_REPLY),
        ),
        ("an unknown flag", READ, |_, r| r.header.flags |= 1 << 31, status, flags(REPLY | 1 << 31)),
        ("never answers", READ, |_, r| r.silent = true, status, Error::TimedOut(READ)),
        (
            "another reply first",
            READ,
            |_, r| r.before = Header { id: 0xBAD, command: 9, size: 16, flags: REPLY, error: 0 }.bytes(),
            status,
            Error::Identifier { expected: 0, found: 0xBAD },
        ),
        (
            "a write of another count",
            WRITE,
            |_, r| change!(Access, r, count = 3),
            write,
            field(WRITE, "count", 4, 3),
        ),
        (
            "a write of another offset",
            WRITE,
            |_, r| change!(Access, r, offset = 3),
            write,
            field(WRITE, "offset", 0x14, 3),
        ),
        ("a write with data", WRITE, |_, r| r.body.push(0), write, size(WRITE, 33, 32, 32)),
        (
            "a refused write",
            WRITE,
            |_, r| {
                r.header.flags |= ERROR;
                r.header.error = 22
            },
            write,
            Error::Refused(WRITE, 22),
        ),
        (
            "another size unmapped",
            UNMAP,
            |_, r| change!(DmaUnmap, r, size = 1),
            unmap,
            field(UNMAP, "size", 4096, 1),
        ),
        (
            "a refused region",
            Command::DMA_MAP,
            |_, r| {
                r.header.flags |= ERROR;
                r.header.error = 28
            },
            map,
            Error::Refused(Command::DMA_MAP, 28),
        ),
        ("a reset with a payload", RESET, |_, r| r.body.push(1), reset, size(RESET, 17, 16, 16)),
        (
            "a refused reset",
            RESET,
            |_, r| {
                r.header.flags |= ERROR;
                r.header.error = 95
            },
            reset,
            Error::Refused(RESET, 95),
        ),
        (
            "refused interrupts",
            IRQS,
            |_, r| {
                r.header.flags |= ERROR;
                r.header.error = 22
            },
            irqs,
            Error::Refused(IRQS, 22),
        ),
    ];
    for (name, at, wrong, used, expected) in rows {
        let rogue = Rogue::start(at, wrong, false);
        let controller = rogue.connect(patience(name)).expect(name);
        rogue.armed.store(true, Ordering::Release);
        let mut found = used(&controller).expect_err(name);
        rogue.armed.store(false, Ordering::Release);
        if let Error::Identifier { expected, .. } = &mut found {
            *expected = 0;
        }
        assert_eq!(found, expected, "{name}");
        assert!(!expected.to_string().is_empty(), "{name}");
        if expected.ends_connection() {
            assert!(controller.failure().is_some(), "{name}");
            // As a function that was pulled out.
            assert_eq!(controller.read32(Offset::CSTS), Ok(u32::MAX), "{name}");
            assert_eq!(controller.read64(Offset::CAP), Ok(u64::MAX), "{name}");
            assert_eq!(controller.write32(Offset::CC, 0), Ok(()), "{name}");
            assert_eq!(status(&controller), Err(Error::GivenUp), "{name}");
        } else {
            assert_eq!(controller.failure(), None, "{name}");
            assert_eq!(controller.read32(Offset::CSTS), Ok(STATUS), "{name}: it goes on");
        }
        drop(controller);
        rogue.heard();
    }
}

#[test]
fn a_refused_register_access_is_an_error_of_that_access() {
    let refuse: Wrong = |_, reply| {
        reply.header.flags |= ERROR;
        reply.header.error = 22;
    };
    let rogue = Rogue::start(Command::REGION_READ, refuse, false);
    let controller = rogue.connect(PATIENT).expect("connected");
    rogue.armed.store(true, Ordering::Release);
    let refused = Error::Refused(Command::REGION_READ, 22);
    assert_eq!(controller.read32(Offset::CSTS), Err(refused));
    assert_eq!(controller.read64(Offset::CAP), Err(refused));
    rogue.armed.store(false, Ordering::Release);
    for (offset, width) in [(0x4000, 4), (2, 4), (u32::MAX, 4), (0x3FFC, 8)] {
        let outside = Error::Outside { offset, width };
        let at = Offset::new(offset);
        let found = if width == 4 {
            controller.read32(at).map(drop).and(controller.write32(at, 0))
        } else {
            controller.read64(at).map(drop).and(controller.write64(at, 0))
        };
        assert_eq!(found, Err(outside), "{offset:#x}");
    }
    assert_eq!(controller.enable_interrupts(9).expect_err("too many"), Error::Vectors { asked: 9, found: 8 });
    assert_eq!(controller.read32(Offset::CSTS), Ok(STATUS));
    drop(controller);
    rogue.heard();
}

#[test]
fn commands_of_the_server_are_refused_and_the_reply_is_found_behind_them() {
    let ask: Wrong = |_, reply| {
        reply.before = [
            command(7, Command::DMA_READ, 0, &[0; 16]),
            command(8, Command::DMA_WRITE, NO_REPLY, &[0; 20]),
            command(9, Command(999), 0, &[]),
        ]
        .concat();
    };
    let rogue = Rogue::start(Command::DEVICE_RESET, ask, true);
    let controller = rogue.connect(PATIENT).expect("connected");
    assert_eq!(controller.reset(), Ok(()));
    drop(controller);
    let heard = rogue.heard();
    let answers: Vec<_> = heard.iter().filter(|heard| heard.header.flags & REPLY != 0).collect();
    let ids: Vec<u16> = answers.iter().map(|answer| answer.header.id).collect();
    assert_eq!(ids, [7, 9], "what wants a reply gets one");
    assert!(
        answers.iter().all(|a| a.header.flags == REPLY | ERROR && a.header.error == 95 && a.body.is_empty())
    );
}

#[test]
fn what_was_set_while_attaching_is_cleared_while_detaching() {
    let nothing: Wrong = |_, _| {};
    let rogue = Rogue::start(Command::VERSION, nothing, false);
    let controller = rogue.connect(PATIENT).expect("connected");
    assert!(controller.maps_doorbells());
    let space = space();
    let mapped = controller.map(&space).expect("mapped");
    let vectors = controller.enable_interrupts(8).expect("vectors");
    assert_eq!(vectors.descriptors().len(), 8);
    assert_eq!(vectors.take(0), 0);
    controller.write32(Offset::new(0x1000), 1).expect("a doorbell");
    drop(mapped);
    drop(controller);
    let heard = rogue.heard();
    let count = |command: Command| heard.iter().filter(|heard| heard.header.command == command.0).count();
    assert_eq!((count(Command::DMA_MAP), count(Command::DMA_UNMAP)), (3, 3), "a window for each pool");
    assert_eq!(count(Command::DEVICE_SET_IRQS), 2);
    let descriptors: usize = heard.iter().map(|heard| heard.descriptors.len()).sum();
    assert_eq!(descriptors, 3 + 8);
    let written: Vec<(u64, Vec<u8>)> = heard
        .iter()
        .filter(|heard| heard.header.command == Command::REGION_WRITE.0)
        .map(|heard| {
            let access = Access::parse(&heard.body).expect("an access");
            assert_eq!(access.region, CONFIGURATION, "the doorbell went through shared memory");
            (access.offset, heard.body[Access::LEN..].to_vec())
        })
        .collect();
    let expected = [
        (0x04, vec![0x06, 0x04]),
        (0x86, vec![7, 0]),
        (0x86, vec![7, 0x80]),
        (0x86, vec![7, 0]),
        (0x04, vec![0, 0]),
    ];
    assert_eq!(written, expected, "bus master, memory and no INTx, MSI-X off, on, off, and all of it off");
}

#[test]
fn memory_that_could_not_all_be_mapped_is_not_mapped_at_all() {
    let refuse_third: Wrong = |asked, reply| {
        // The third pool begins at the third page of the file.
        if asked.body[8..16] == 0x2000_u64.to_ne_bytes() {
            reply.header.flags |= ERROR;
            reply.header.error = 28;
        }
    };
    let rogue = Rogue::start(Command::DMA_MAP, refuse_third, true);
    let controller = rogue.connect(PATIENT).expect("connected");
    assert_eq!(controller.map(&space()).expect_err("refused"), Error::Refused(Command::DMA_MAP, 28));
    drop(controller);
    let heard = rogue.heard();
    let count = |command: Command| heard.iter().filter(|heard| heard.header.command == command.0).count();
    assert_eq!((count(Command::DMA_MAP), count(Command::DMA_UNMAP)), (3, 2));
}

#[test]
fn nobody_who_listens_is_told_with_the_reason() {
    let folder = tempfile::tempdir().expect("a folder");
    let connect = |path: &std::path::Path| {
        RemoteController::connect(path, &ConnectOptions::default()).expect_err("nobody")
    };
    let Error::System(_, errno) = connect(&folder.path().join("nothing")) else { panic!("no reason") };
    assert_eq!(errno, 2, "no such file");
    let path = folder.path().join("abandoned");
    drop(UnixListener::bind(&path).expect("a socket"));
    let Error::System(_, errno) = connect(&path) else { panic!("no reason") };
    assert_eq!(errno, 111, "connection refused");
    let Error::System(_, errno) = connect(&folder.path().join("x".repeat(200))) else { panic!("no reason") };
    assert_eq!(errno, 36, "name too long");
}

// SPDX-License-Identifier: MIT OR Apache-2.0
//! The vfio-user server: a driver's whole life on it, and a row for each way in which a client can misbehave.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::time::Duration;

use nvme_core::admin::{AdminRequest, AdminSlot, Call};
use nvme_core::controller::{Disabled, EnableOptions, Fault, Link, Ready};
use nvme_core::dma::{Direction, DmaArena, Pool};
use nvme_core::io::{
    Buffer, CreateIoQueuePair, CreateOutcome, DeleteIoQueuePair, DeleteOutcome, IoQueueOptions, IoSlot,
};
use nvme_core::register::{Offset, RegisterIo};
use nvme_core::time::{Instant, Step};
use nvme_core::wire::admin::{Identify, IdentifyStructure};
use nvme_core::wire::feature::NumberOfQueues;
use nvme_core::wire::identify::{ControllerIdentity, IdentifyPage};
use nvme_core::wire::nvm::{Read, Write};
use nvme_core::wire::{Command as _, Lba, NamespaceId, QueueId, Status};
use nvme_host_linux::backend::attach;
use nvme_host_linux::memory::{AddressSpace, Capacity};
use nvme_host_linux::vfio_user::server::{MemoryLimits, ServeOptions};
use nvme_host_linux::vfio_user::wire::{
    Access, BAR0, CONFIGURATION, Command, DeviceInfo, DmaMap, DmaUnmap, ERROR, HEADER, Header, IrqInfo,
    IrqSet, MSIX, NO_REPLY, REGION_CAPS, REGION_MMAP, REPLY, RegionInfo, UNMAP_ALL, Version,
};
use nvme_host_linux::vfio_user::{ConnectOptions, RemoteController, Vectors};
use nvme_tests::vfio_user::{
    MANAGER, Serving, TRACKED, command, memory, pair, receive, send, shorten, version,
};

const TIMEOUT: Duration = Duration::from_secs(60);
/// Between two looks at a controller that has not interrupted.
const LOOK: Duration = Duration::from_millis(10);

fn space() -> Arc<AddressSpace> {
    let capacity = Capacity { queues: 1 << 20, data: 1 << 20, controller_data: 1 << 16 };
    Arc::new(AddressSpace::linear("host", capacity).expect("memory"))
}

/// Time as the driver takes it, and interrupts to wait for.
struct Waiter<'a> {
    start: std::time::Instant,
    vectors: &'a Vectors,
    /// Vectors that were signalled, a bit each.
    heard: std::cell::Cell<u32>,
}

impl Waiter<'_> {
    fn now(&self) -> Instant {
        Instant::from_micros(self.start.elapsed().as_micros() as u64)
    }

    fn wait(&self, vector: u16) {
        if self.vectors.wait(vector, LOOK).expect("an eventfd") {
            self.hear(vector);
            assert_ne!(self.heard.get() & (1 << vector), 0, "it was signalled");
        }
    }

    fn hear(&self, vector: u16) {
        let signalled = self.vectors.take(vector) > 0;
        self.heard.set(self.heard.get() | u32::from(signalled) << vector);
    }

    fn run<E: std::fmt::Debug>(&self, what: &str, mut poll: impl FnMut(Instant) -> Result<Step, E>) {
        loop {
            match poll(self.now()) {
                Ok(Step::Again) => {}
                Ok(Step::Wait(_)) => self.wait(0),
                Ok(Step::Done) => return,
                Err(error) => panic!("{what}: {error:?}"),
            }
        }
    }

    fn enable<'d, 's>(
        &self,
        disabled: Disabled<'d, 's, RemoteController, AddressSpace>,
        slots: &'s mut [AdminSlot],
    ) -> Ready<'d, 's, RemoteController, AddressSpace> {
        let options = EnableOptions::default();
        let mut enabling =
            disabled.enable(&options, slots).map_err(|rejected| rejected.error).expect("the usual options");
        self.run("enable", |now| enabling.poll(now));
        enabling.finish().unwrap_or_else(|_| panic!("the machine is done"))
    }

    fn admin(
        &self,
        controller: &mut Ready<'_, '_, RemoteController, AddressSpace>,
        request: AdminRequest,
        arena: &AddressSpace,
        bytes: &mut [u8],
    ) -> Result<(), Fault> {
        let mut call = Call::new();
        call.start(request).expect("a fresh call takes its request");
        loop {
            controller.poll(self.now())?;
            if let Some(result) = call.poll(controller.admin(), self.now()) {
                result.read(arena, bytes).expect("the command succeeds");
                return Ok(());
            }
            self.wait(0);
        }
    }
}

/// Replies of a server that a busy computer keeps waiting.
fn patiently() -> ConnectOptions {
    ConnectOptions { timeout: TIMEOUT, reset_timeout: TIMEOUT, ..ConnectOptions::default() }
}

/// Drives function `index` from attaching to detaching; `during` happens while it is ready.
fn drive(
    serving: &Serving,
    index: usize,
    options: &ConnectOptions,
    during: impl FnOnce(
        &Waiter<'_>,
        Ready<'_, '_, RemoteController, AddressSpace>,
        &AddressSpace,
        &RemoteController,
    ),
) {
    let controller = RemoteController::connect(&serving.path(index), options).expect("connected");
    let space = space();
    let mapped = controller.map(&space).expect("mapped");
    let vectors = controller.enable_interrupts(4).expect("vectors");
    let waiter = Waiter { start: std::time::Instant::now(), vectors: &vectors, heard: Default::default() };
    let link = Link::new();
    let mut slots: Vec<AdminSlot> = (0..8).map(|_| AdminSlot::new()).collect();
    let mut disabling = attach(&controller, &space, &link).expect("attached");
    waiter.run("disable", |now| disabling.poll(now));
    let disabled = disabling.finish().unwrap_or_else(|_| panic!("the machine is done"));
    let ready = waiter.enable(disabled, &mut slots);
    during(&waiter, ready, &space, &controller);
    drop(mapped);
}

fn identify(
    waiter: &Waiter<'_>,
    controller: &mut Ready<'_, '_, RemoteController, AddressSpace>,
    arena: &AddressSpace,
) -> ControllerIdentity {
    let command = Identify::new(IdentifyStructure::CONTROLLER);
    let request = AdminRequest::receiving(&command, arena, 4096, TIMEOUT).expect("memory");
    let mut page: IdentifyPage = [0; 4096];
    waiter.admin(controller, request, arena, &mut page).expect("the controller works");
    ControllerIdentity::parse(&page).expect("Identify Controller data")
}

#[test]
fn a_driver_brings_both_controllers_up_by_interrupts_and_reads_what_it_has_written() {
    let serving = Serving::start(pair, ServeOptions::default());
    for map_doorbells in [true, false] {
        let options = ConnectOptions { map_doorbells, ..patiently() };
        for (index, id) in [MANAGER, TRACKED].into_iter().enumerate() {
            drive(&serving, index, &options, |waiter, mut ready, arena, controller| {
                assert_eq!(controller.maps_doorbells(), map_doorbells);
                assert_eq!(controller.interrupt_vectors(), 64);
                let identity = identify(waiter, &mut ready, arena);
                assert_eq!(identity.controller, id);
                let queues = NumberOfQueues { submission: 2, completion: 2 };
                let request = AdminRequest::without_data(&queues.to_set_features(), TIMEOUT);
                waiter.admin(&mut ready, request, arena, &mut []).expect("the controller works");
                for queue in [1, 2] {
                    write_and_read(waiter, &mut ready, arena, queue);
                }
                let mut disabling = ready.disable();
                waiter.run("disable", |now| disabling.poll(now));
                assert_eq!(controller.failure(), None);
                for vector in 0..=2 {
                    // The last one may have come after the completion was seen.
                    waiter.hear(vector);
                    assert_ne!(waiter.heard.get() & (1 << vector), 0, "no interrupt of vector {vector}");
                }
            });
        }
    }
}

/// Writes a block through a queue pair of its own, and reads it again.
fn write_and_read(
    waiter: &Waiter<'_>,
    controller: &mut Ready<'_, '_, RemoteController, AddressSpace>,
    arena: &AddressSpace,
    queue: u16,
) {
    let mut slots: Vec<IoSlot<()>> = (0..4).map(|_| IoSlot::new()).collect();
    let options =
        IoQueueOptions { interrupt_vector: Some(queue), ..IoQueueOptions::new(QueueId::new(queue), 8) };
    let mut creation = CreateIoQueuePair::new(controller.admin(), &options, &mut slots)
        .map_err(|(error, _)| error)
        .expect("a pair");
    while creation.poll(controller.admin(), waiter.now()) != Step::Done {
        waiter.wait(0);
        controller.poll(waiter.now()).expect("the controller works");
    }
    let Ok(CreateOutcome::Created(mut pair)) = creation.finish() else { panic!("the pair is refused") };
    let (nsid, lba) = (NamespaceId::new(1), Lba::new(u64::from(queue)));
    let pattern: Vec<u8> = (0..4096).map(|at| (at as u8).wrapping_mul(7).wrapping_add(queue as u8)).collect();
    for write in [true, false] {
        let region = arena.allocate(Pool::Data, 4096, 4096, Direction::Bidirectional).expect("memory");
        let entry = if write {
            region.write(0, &pattern).expect("the region");
            Write::new(nsid, lba, 1).encode()
        } else {
            Read::new(nsid, lba, 1).encode()
        };
        let deadline = Some(waiter.now().after(TIMEOUT));
        let put = pair.submit(&entry, Some(Buffer::whole(region)), (), deadline);
        put.map_err(|rejected| rejected.error).expect("there is room");
        pair.ring().expect("the controller works");
        let completed = loop {
            if let Some(completed) = pair.poll().expect("the controller works") {
                break completed;
            }
            assert!(pair.expire(waiter.now()).is_none(), "it comes in time");
            waiter.wait(queue);
        };
        pair.acknowledge().expect("the controller works");
        let mut found = vec![0; 4096];
        completed.buffer.as_ref().expect("the buffer").region().read(0, &mut found).expect("the region");
        let (entry, _) = completed.release(arena);
        assert_eq!(entry.status(), Status::SUCCESS);
        assert_eq!(found, pattern);
    }
    let mut deletion = DeleteIoQueuePair::new(pair, TIMEOUT);
    while deletion.poll(controller.admin(), waiter.now()) != Step::Done {
        waiter.wait(0);
        controller.poll(waiter.now()).expect("the controller works");
    }
    assert!(matches!(deletion.finish(), Ok(DeleteOutcome::Deleted { .. })));
}

#[test]
fn a_server_that_goes_away_is_a_controller_that_was_removed() {
    let mut serving = Serving::start(pair, ServeOptions::default());
    let path = serving.path(0);
    let controller = RemoteController::connect(&path, &patiently()).expect("connected");
    let space = space();
    let _mapped = controller.map(&space).expect("mapped");
    let vectors = controller.enable_interrupts(1).expect("vectors");
    let waiter = Waiter { start: std::time::Instant::now(), vectors: &vectors, heard: Default::default() };
    let link = Link::new();
    let mut slots: Vec<AdminSlot> = (0..8).map(|_| AdminSlot::new()).collect();
    let mut disabling = attach(&controller, &space, &link).expect("attached");
    waiter.run("disable", |now| disabling.poll(now));
    let mut ready = waiter.enable(disabling.finish().unwrap_or_else(|_| panic!("done")), &mut slots);
    identify(&waiter, &mut ready, &space);
    serving.stop();
    assert_eq!(ready.check_status(), Err(Fault::Removed));
    assert!(controller.failure().is_some());
    assert_eq!(controller.read32(Offset::CSTS), Ok(u32::MAX));
    assert!(!path.exists(), "the socket is gone");
}

#[test]
fn the_second_client_finds_nothing_of_the_first() {
    let serving = Serving::start(pair, ServeOptions::default());
    let options = patiently();
    for round in 0..3 {
        drive(&serving, 1, &options, |waiter, mut ready, arena, controller| {
            identify(waiter, &mut ready, arena);
            assert_ne!(controller.read32(Offset::CC).expect("CC") & 1, 0, "round {round}");
            // It leaves without disabling anything.
        });
        let next = RemoteController::connect(&serving.path(1), &options).expect("connected");
        for (name, offset) in
            [("CC", Offset::CC), ("CSTS", Offset::CSTS), ("AQA", Offset::AQA), ("ASQ", Offset::ASQ)]
        {
            assert_eq!(next.read32(offset), Ok(0), "round {round}: {name}");
        }
        // All memory is free again.
        let space = space();
        next.map(&space).expect("mapped");
    }
}

/// Something that a client takes away from its controller.
type TakeAway = fn(&RemoteController, &AddressSpace);

#[test]
fn a_controller_without_bus_master_or_memory_fails_and_its_server_does_not() {
    let serving = Serving::start(pair, ServeOptions::default());
    let options = patiently();
    let rows: [(&str, TakeAway); 2] = [
        ("no bus master", |controller, _| {
            controller.write_region(CONFIGURATION, 4, &[2, 4]).expect("command register");
        }),
        ("no memory", |controller, space| {
            for window in space.windows() {
                controller.unmap_window(window).expect("unmapped");
            }
        }),
    ];
    for (name, take_away) in rows {
        drive(&serving, 0, &options, |waiter, mut ready, arena, controller| {
            identify(waiter, &mut ready, arena);
            take_away(controller, arena);
            let command = Identify::new(IdentifyStructure::CONTROLLER);
            let request = AdminRequest::receiving(&command, arena, 4096, TIMEOUT).expect("memory");
            let failed = waiter.admin(&mut ready, request, arena, &mut [0; 4096]);
            assert_eq!(failed, Err(Fault::FatalStatus), "{name}");
            assert_eq!(controller.failure(), None, "{name}");
            // A reset of the function helps.
            controller.reset().expect("reset");
            assert_eq!(controller.read32(Offset::CSTS), Ok(0), "{name}");
        });
    }
}

/// What a client finds after a command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Found {
    /// A reply without error, of so many bytes.
    Done(usize),
    /// A reply with this errno.
    Refused(u32),
    /// No reply; the connection is closed.
    Closed,
}

use Found::{Closed, Done, Refused};

const INVALID: Found = Refused(22);
const PERMITTED_NOT: Found = Refused(1);

fn ask(stream: &UnixStream, bytes: &[u8], descriptors: &[BorrowedFd<'_>]) -> Found {
    if send(stream, bytes, descriptors).is_err() {
        return Closed;
    }
    let Some(reply) = receive(stream) else { return Closed };
    let asked = Header::parse(bytes).expect("a header");
    assert_eq!((reply.header.id, reply.header.command), (asked.id, asked.command), "a reply to this command");
    match reply.header.flags {
        REPLY => Done(reply.body.len()),
        flags => {
            assert_eq!(flags, REPLY | ERROR);
            assert!(reply.body.is_empty() && reply.descriptors.is_empty());
            Refused(reply.header.error)
        }
    }
}

fn agreed(serving: &Serving, index: usize) -> UnixStream {
    let stream = serving.connect(index);
    assert!(matches!(ask(&stream, &version(), &[]), Done(_)), "a version");
    stream
}

fn patient() -> ServeOptions {
    let memory = MemoryLimits { regions: 2, region_bytes: 1 << 20, trust_files: false };
    ServeOptions { memory, patience: Duration::from_secs(3600), ..ServeOptions::default() }
}

#[test]
fn a_connection_begins_with_a_version_or_ends() {
    let serving = Serving::start(pair, patient());
    let versions = |major, minor, data: &[u8]| {
        let mut body = Version { major, minor }.bytes();
        body.extend_from_slice(data);
        command(3, Command::VERSION, 0, &body)
    };
    let raw = |size, flags| Header { id: 1, command: 1, size, flags, error: 0 }.bytes();
    let get_info = DeviceInfo { argsz: 16, ..DeviceInfo::default() }.bytes();
    let rows: Vec<(&str, Vec<u8>, Found)> = vec![
        ("another major version", versions(1, 0, b""), Refused(93)),
        ("no JSON", versions(0, 1, b"x\0"), INVALID),
        ("JSON without end", versions(0, 1, b"{}"), INVALID),
        ("JSON that is no object", versions(0, 1, b"[]\0"), INVALID),
        ("half a version", command(3, Command::VERSION, 0, &[0, 0]), INVALID),
        ("another command", command(3, Command::DEVICE_GET_INFO, 0, &get_info), INVALID),
        ("a command that does not exist", command(3, Command(0), 0, &[]), INVALID),
        ("a reply", raw(16, REPLY), Closed),
        ("smaller than a header", raw(15, 0), Closed),
        ("larger than can be", raw(u32::MAX, 0), Closed),
        ("an unknown flag", raw(16, 1 << 30), INVALID),
    ];
    for (name, bytes, expected) in rows {
        let stream = serving.connect(0);
        assert_eq!(ask(&stream, &bytes, &[]), expected, "{name}");
        assert!(receive(&stream).is_none(), "{name}: the connection ends");
    }
    for (name, minor, data) in [("a later minor version", 7, b"".as_slice()), ("capabilities", 1, b"{}\0")] {
        let stream = serving.connect(0);
        send(&stream, &versions(0, minor, data), &[]).expect("sent");
        let reply = receive(&stream).expect(name);
        assert_eq!(Version::parse(&reply.body), Some(Version { major: 0, minor: 1 }), "{name}");
        assert_eq!(reply.body.last(), Some(&0), "{name}");
    }
}

/// A command with its payload and descriptors, and what comes of it.
type Asked<'a> = (&'a str, Command, Vec<u8>, &'a [OwnedFd], Found);

#[test]
fn what_a_client_asks_wrongly_is_refused_and_the_connection_goes_on() {
    let serving = Serving::start(pair, patient());
    let map = |flags, offset, address, size| DmaMap { argsz: 32, flags, offset, address, size }.bytes();
    let unmap = |flags, address, size| DmaUnmap { argsz: 24, flags, address, size }.bytes();
    let info = |argsz| DeviceInfo { argsz, ..DeviceInfo::default() }.bytes();
    let region = |argsz, index| RegionInfo { argsz, index, ..RegionInfo::default() }.bytes();
    let irq = |argsz, index| IrqInfo { argsz, index, ..IrqInfo::default() }.bytes();
    let set = |flags, index, start, count| IrqSet { argsz: 20, flags, index, start, count }.bytes();
    let access = |region, offset, count| Access { offset, region, count }.bytes();
    let write = |region, offset, count, data: &[u8]| [access(region, offset, count), data.to_vec()].concat();
    let sealed = memory(1 << 20, true);
    let unsealed = memory(1 << 20, false);
    let eventfds = { eventfds() };
    let (one, two) = (&eventfds[..1], &eventfds[..2]);
    let none: &[OwnedFd] = &[];
    let sealed = std::slice::from_ref(&sealed);
    let unsealed = std::slice::from_ref(&unsealed);
    const MAP: Command = Command::DMA_MAP;
    const UNMAP: Command = Command::DMA_UNMAP;
    const INFO: Command = Command::DEVICE_GET_INFO;
    const REGION: Command = Command::DEVICE_GET_REGION_INFO;
    const IRQ: Command = Command::DEVICE_GET_IRQ_INFO;
    const SET: Command = Command::DEVICE_SET_IRQS;
    const READ: Command = Command::REGION_READ;
    const WRITE: Command = Command::REGION_WRITE;
    let rows: Vec<Asked<'_>> = vec![
        ("a second version", Command::VERSION, Version { major: 0, minor: 1 }.bytes(), none, INVALID),
        ("command 0", Command(0), vec![], none, Refused(38)),
        ("command 14", Command(14), vec![], none, Refused(38)),
        ("command 65535", Command(u16::MAX), vec![0; 100], none, Refused(38)),
        ("region descriptors", Command::DEVICE_GET_REGION_IO_FDS, vec![0; 16], none, Refused(95)),
        ("a read of memory", Command::DMA_READ, vec![0; 16], none, Refused(95)),
        ("several writes", Command::REGION_WRITE_MULTI, vec![0; 8], none, Refused(95)),
        ("a feature", Command::DEVICE_FEATURE, vec![0; 8], none, Refused(95)),
        ("migration data", Command::MIG_DATA_READ, vec![0; 8], none, Refused(95)),
        ("information", INFO, info(16), none, Done(16)),
        ("information with room", INFO, info(4096), none, Done(16)),
        ("information without room", INFO, info(15), none, INVALID),
        ("half a question", INFO, vec![0; 8], none, INVALID),
        ("more than a question", INFO, [info(16), vec![0]].concat(), none, INVALID),
        ("a descriptor for nothing", INFO, info(16), one, INVALID),
        ("a region", REGION, region(32, CONFIGURATION), none, Done(32)),
        ("a region that is absent", REGION, region(32, 2), none, Done(32)),
        ("a region that does not exist", REGION, region(32, 9), none, INVALID),
        ("any region", REGION, region(32, u32::MAX), none, INVALID),
        ("a region without room", REGION, region(31, BAR0), none, INVALID),
        ("registers without room for their areas", REGION, region(63, BAR0), none, Done(32)),
        ("registers", REGION, region(64, BAR0), none, Done(64)),
        ("interrupts", IRQ, irq(16, MSIX), none, Done(16)),
        ("interrupts that are absent", IRQ, irq(16, 0), none, Done(16)),
        ("interrupts that do not exist", IRQ, irq(16, 5), none, INVALID),
        ("interrupts without room", IRQ, irq(0, MSIX), none, INVALID),
        ("memory without rights", MAP, map(0, 0, 0x1000, 0x1000), sealed, INVALID),
        ("memory of half a page", MAP, map(3, 0, 0x1000, 0x800), sealed, INVALID),
        ("memory beyond its file", MAP, map(3, 0xF_F000, 0x1000, 0x2000), sealed, INVALID),
        ("memory over the end", MAP, map(3, 0, 0u64.wrapping_sub(0x1000), 0x2000), sealed, INVALID),
        ("too much memory", MAP, map(3, 0, 0, 0x10_1000), sealed, Refused(27)),
        ("memory that can vanish", MAP, map(3, 0, 0x1000, 0x1000), unsealed, PERMITTED_NOT),
        ("memory that is an eventfd", MAP, map(3, 0, 0x1000, 0x1000), one, PERMITTED_NOT),
        ("memory of two files", MAP, map(3, 0, 0x1000, 0x1000), two, INVALID),
        (
            "memory with a false size of the question",
            MAP,
            DmaMap { argsz: 31, flags: 3, offset: 0, address: 0, size: 4096 }.bytes(),
            sealed,
            INVALID,
        ),
        ("half a region of memory", MAP, vec![0; 31], sealed, INVALID),
        ("memory", MAP, map(3, 0, 0x1000, 0x2000), sealed, Done(0)),
        ("the same again", MAP, map(3, 0, 0x1000, 0x2000), sealed, Refused(17)),
        ("memory over its end", MAP, map(3, 0, 0x2000, 0x2000), sealed, Refused(17)),
        ("memory without descriptor", MAP, map(3, 0, 0x8000, 0x1000), none, Done(0)),
        ("one region too many", MAP, map(3, 0, 0x10_0000, 0x1000), sealed, Refused(28)),
        ("a part taken back", UNMAP, unmap(0, 0x1000, 0x1000), none, Refused(2)),
        ("what was never given", UNMAP, unmap(0, 0x5000, 0x1000), none, Refused(2)),
        ("dirty pages", UNMAP, unmap(1, 0x1000, 0x2000), none, INVALID),
        ("all, and a range", UNMAP, unmap(UNMAP_ALL, 0x1000, 0x2000), none, INVALID),
        ("one region taken back", UNMAP, unmap(0, 0x1000, 0x2000), none, Done(24)),
        ("all taken back", UNMAP, unmap(UNMAP_ALL, 0, 0), none, Done(24)),
        ("vectors", SET, set(0x24, MSIX, 0, 2), two, Done(0)),
        ("the last vector", SET, set(0x24, MSIX, 63, 1), one, Done(0)),
        ("vectors over the end", SET, set(0x24, MSIX, 63, 2), two, INVALID),
        ("vectors over the end of all numbers", SET, set(0x24, MSIX, u32::MAX, 2), two, INVALID),
        ("fewer descriptors than vectors", SET, set(0x24, MSIX, 0, 2), one, INVALID),
        ("more descriptors than vectors", SET, set(0x24, MSIX, 0, 1), two, INVALID),
        ("vectors that are memory", SET, set(0x24, MSIX, 0, 1), sealed, INVALID),
        ("vectors taken back", SET, set(0x24, MSIX, 0, 2), none, Done(0)),
        ("vectors triggered", SET, set(0x21, MSIX, 0, 2), none, Done(0)),
        ("vectors masked", SET, set(0x09, MSIX, 0, 1), none, INVALID),
        ("two kinds of data", SET, set(0x25, MSIX, 0, 1), one, INVALID),
        ("no action", SET, set(0x04, MSIX, 0, 1), one, INVALID),
        ("pins", SET, set(0x24, 0, 0, 1), one, INVALID),
        ("errors told", SET, set(0x24, 3, 0, 1), one, Done(0)),
        ("errors told no more", SET, set(0x24, 3, 0, 1), none, Done(0)),
        ("requests told by memory", SET, set(0x24, 4, 0, 1), sealed, INVALID),
        ("a second kind of error", SET, set(0x24, 3, 1, 1), one, INVALID),
        ("an error made up", SET, set(0x21, 3, 0, 1), none, INVALID),
        ("an unknown kind", SET, set(0x21, 5, 0, 0), none, INVALID),
        ("all of nothing", SET, set(0x21, 0, 0, 0), none, Done(0)),
        ("all vectors", SET, set(0x21, MSIX, 0, 0), none, Done(0)),
        ("all from the first on", SET, set(0x21, MSIX, 1, 0), none, INVALID),
        (
            "chosen vectors",
            SET,
            [IrqSet { argsz: 22, flags: 0x22, index: MSIX, start: 0, count: 2 }.bytes(), vec![1, 0]].concat(),
            none,
            Done(0),
        ),
        (
            "fewer choices than vectors",
            SET,
            [IrqSet { argsz: 21, flags: 0x22, index: MSIX, start: 0, count: 2 }.bytes(), vec![1]].concat(),
            none,
            INVALID,
        ),
        ("choices nobody announced", SET, [set(0x21, MSIX, 0, 2), vec![1, 0]].concat(), none, INVALID),
        (
            "vectors, their descriptors counted in",
            SET,
            IrqSet { argsz: 28, flags: 0x24, index: MSIX, start: 0, count: 2 }.bytes(),
            two,
            Done(0),
        ),
        (
            "vectors with less than their size",
            SET,
            IrqSet { argsz: 19, flags: 0x24, index: MSIX, start: 0, count: 2 }.bytes(),
            two,
            INVALID,
        ),
        ("half a set of vectors", SET, vec![0; 19], none, INVALID),
        ("a register", READ, access(BAR0, 0x1C, 4), none, Done(20)),
        ("a long register", READ, access(BAR0, 0, 8), none, Done(24)),
        ("a register and a half", READ, access(BAR0, 0, 6), none, INVALID),
        ("one byte", READ, access(BAR0, 0, 1), none, INVALID),
        ("two registers", READ, access(BAR0, 0, 16), none, INVALID),
        ("a misaligned register", READ, access(BAR0, 2, 4), none, INVALID),
        ("a misaligned long register", READ, access(BAR0, 4, 8), none, INVALID),
        ("the last doorbell", READ, access(BAR0, 0x3FFC, 4), none, Done(20)),
        ("behind the registers", READ, access(BAR0, 0x4000, 4), none, INVALID),
        ("over the end of everything", READ, access(BAR0, u64::MAX - 3, 4), none, INVALID),
        ("nothing", READ, access(BAR0, 0, 0), none, INVALID),
        ("more than fits into a reply", READ, access(BAR0, 0, u32::MAX), none, INVALID),
        ("a region that is absent", READ, access(1, 0, 4), none, INVALID),
        ("a region that does not exist", READ, access(u32::MAX, 0, 4), none, INVALID),
        ("a read with data", READ, write(BAR0, 0, 4, &[0; 4]), none, INVALID),
        ("half a read", READ, vec![0; 15], none, INVALID),
        ("all configuration space", READ, access(CONFIGURATION, 0, 4096), none, Done(16 + 4096)),
        ("one byte of it", READ, access(CONFIGURATION, 4095, 1), none, Done(17)),
        ("over its end", READ, access(CONFIGURATION, 4095, 2), none, INVALID),
        ("nothing of it", READ, access(CONFIGURATION, 0, 0), none, INVALID),
        ("the interrupt table", READ, access(4, 0, 16), none, Done(32)),
        ("behind the interrupt table", READ, access(4, 0x2000, 16), none, INVALID),
        ("a write", WRITE, write(BAR0, 0x24, 4, &[0; 4]), none, Done(16)),
        ("a write without its data", WRITE, write(BAR0, 0x24, 4, &[0; 3]), none, INVALID),
        ("a write with more data", WRITE, write(BAR0, 0x24, 4, &[0; 5]), none, INVALID),
        ("a write of nothing", WRITE, write(BAR0, 0x24, 0, &[]), none, INVALID),
        ("a write of one byte", WRITE, write(BAR0, 0x24, 1, &[0]), none, INVALID),
        ("a write behind the registers", WRITE, write(BAR0, 0x4000, 4, &[0; 4]), none, INVALID),
        ("a write of the interrupt table", WRITE, write(4, 0x3F0, 16, &[1; 16]), none, Done(32 - 16)),
        (
            "a write over the end of configuration space",
            WRITE,
            write(CONFIGURATION, 4094, 4, &[0; 4]),
            none,
            INVALID,
        ),
        ("a reset", Command::DEVICE_RESET, vec![], none, Done(0)),
        ("a reset with something", Command::DEVICE_RESET, vec![0], none, INVALID),
    ];
    let stream = agreed(&serving, 0);
    for (number, (name, asked, body, descriptors, expected)) in (1..).zip(rows) {
        let descriptors: Vec<_> = descriptors.iter().map(AsFd::as_fd).collect();
        let found = ask(&stream, &command(number, asked, 0, &body), &descriptors);
        assert_eq!(found, expected, "{name}");
    }
    // An unknown flag is refused; what wants no reply gets none, whether it is right or wrong.
    assert_eq!(ask(&stream, &command(1, INFO, 1 << 7, &info(16)), &[]), INVALID);
    for body in [write(BAR0, 0x24, 4, &[1, 0, 1, 0]), write(BAR0, 0x24, 3, &[0; 3])] {
        send(&stream, &command(2, WRITE, NO_REPLY, &body), &[]).expect("sent");
    }
    send(&stream, &command(3, READ, 0, &access(BAR0, 0x24, 4)), &[]).expect("sent");
    let reply = receive(&stream).expect("a reply");
    assert_eq!((reply.header.id, &reply.body[16..]), (3, [1, 0, 1, 0].as_slice()));
}

fn eventfds() -> Vec<OwnedFd> {
    let flags = rustix::event::EventfdFlags::CLOEXEC;
    (0..2).map(|_| rustix::event::eventfd(0, flags).expect("an eventfd")).collect()
}

#[test]
fn a_client_that_breaks_the_protocol_is_let_go_and_the_next_one_is_served() {
    let serving = Serving::start(pair, patient());
    let header = |size, flags| Header { id: 1, command: 4, size, flags, error: 0 }.bytes();
    let rows: [(&str, Vec<u8>, usize); 6] = [
        ("a reply to nothing", header(16, REPLY), 0),
        ("a type that does not exist", header(16, 3), 0),
        ("smaller than a header", header(15, 0), 0),
        ("of size zero", header(0, 0), 0),
        ("one byte larger than can be", header(16 + 16 + (64 << 10) + 1, 0), 0),
        ("too many descriptors", header(16, 0), 65),
    ];
    for (name, bytes, count) in rows {
        let stream = agreed(&serving, 0);
        let descriptors = vec![stream.as_fd(); count];
        send(&stream, &bytes, &descriptors).expect(name);
        assert!(receive(&stream).is_none(), "{name}");
    }
    for cut in 1..HEADER + 16 {
        let stream = agreed(&serving, 0);
        let bytes = command(1, Command::DEVICE_GET_INFO, 0, &[0; 16]);
        send(&stream, &bytes[..cut], &[]).expect("sent");
        drop(stream);
    }
    drop(agreed(&serving, 0));
}

#[test]
fn one_client_at_a_time_and_the_next_one_when_it_has_left() {
    let serving = Serving::start(pair, patient());
    let first = agreed(&serving, 0);
    let second = serving.connect(0);
    send(&second, &version(), &[]).expect("it waits in the queue");
    second.set_nonblocking(true).expect("a socket");
    let other = agreed(&serving, 1);
    let info =
        command(1, Command::DEVICE_GET_INFO, 0, &DeviceInfo { argsz: 16, ..DeviceInfo::default() }.bytes());
    assert_eq!(ask(&first, &info, &[]), Done(16));
    assert_eq!(ask(&other, &info, &[]), Done(16), "the other function has a client of its own");
    assert!(receive(&second).is_none(), "nothing yet");
    second.set_nonblocking(false).expect("a socket");
    drop(first);
    assert!(receive(&second).is_some(), "its turn");
    assert_eq!(ask(&second, &info, &[]), Done(16));
}

#[test]
fn a_client_that_does_not_go_on_is_let_go() {
    let options = ServeOptions { patience: Duration::from_millis(300), ..patient() };
    let serving = Serving::start(pair, options);
    let other = agreed_in_time(&serving, 1);
    let rows: [(&str, bool, Vec<u8>); 3] = [
        ("says nothing", false, vec![]),
        ("half a version", false, version()[..10].to_vec()),
        ("half a command", true, command(1, Command::DEVICE_GET_INFO, 0, &[0; 16])[..20].to_vec()),
    ];
    for (name, begins, bytes) in rows {
        let stream = if begins { agreed_in_time(&serving, 0) } else { serving.connect(0) };
        // On a slow machine the server may have let the client go already.
        let _ = send(&stream, &bytes, &[]);
        assert!(receive(&stream).is_none(), "{name}");
    }
    // Whoever has finished what it began may be silent for as long as it likes.
    let info = DeviceInfo { argsz: 16, ..DeviceInfo::default() }.bytes();
    assert_eq!(ask(&other, &command(1, Command::DEVICE_GET_INFO, 0, &info), &[]), Done(16));
}

/// A connection to a server of little patience, made anew if the machine was too slow for it.
fn agreed_in_time(serving: &Serving, index: usize) -> UnixStream {
    for _ in 0..100 {
        let stream = serving.connect(index);
        if matches!(ask(&stream, &version(), &[]), Done(_)) {
            return stream;
        }
    }
    panic!("the server never answers a version");
}

#[test]
fn a_client_that_reads_no_replies_is_let_go_and_holds_up_nobody() {
    let options = ServeOptions { patience: Duration::from_millis(300), ..patient() };
    let serving = Serving::start(pair, options);
    let stream = agreed_in_time(&serving, 0);
    let read = Access { offset: 0, region: CONFIGURATION, count: 4096 }.bytes();
    let bytes = command(1, Command::REGION_READ, 0, &read);
    // Until the server, which takes no command while a reply is on its way, lets the client go.
    let mut sent = 0;
    while send(&stream, &bytes, &[]).is_ok() {
        sent += 1;
        assert!(sent < 1_000_000, "the server takes commands for ever");
    }
    let other = agreed_in_time(&serving, 1);
    let info = DeviceInfo { argsz: 16, ..DeviceInfo::default() }.bytes();
    assert_eq!(ask(&other, &command(1, Command::DEVICE_GET_INFO, 0, &info), &[]), Done(16));
}

#[test]
fn memory_that_was_given_cannot_be_taken_away_under_the_server() {
    let serving = Serving::start(pair, patient());
    let stream = agreed(&serving, 0);
    let file = memory(0x1000, true);
    let map = DmaMap { argsz: 32, flags: 3, offset: 0, address: 0x1000, size: 0x1000 };
    assert_eq!(ask(&stream, &command(1, Command::DMA_MAP, 0, &map.bytes()), &[file.as_fd()]), Done(0));
    assert!(shorten(&file, 0).is_err(), "it is sealed");
    // The admin queues lie in it, and at its end.
    let write = |offset: u64, value: u32| {
        let mut body = Access { offset, region: BAR0, count: 4 }.bytes();
        body.extend(value.to_le_bytes());
        assert_eq!(ask(&stream, &command(1, Command::REGION_WRITE, 0, &body), &[]), Done(16));
    };
    let status = || {
        let body = Access { offset: 0x1C, region: BAR0, count: 4 }.bytes();
        send(&stream, &command(1, Command::REGION_READ, 0, &body), &[]).expect("sent");
        let reply = receive(&stream).expect("a reply");
        u32::from_le_bytes(reply.body[16..20].try_into().expect("four bytes"))
    };
    let mut body = Access { offset: 4, region: CONFIGURATION, count: 2 }.bytes();
    body.extend([6, 4]);
    assert_eq!(ask(&stream, &command(1, Command::REGION_WRITE, 0, &body), &[]), Done(16));
    write(0x24, 0x00FF_00FF);
    write(0x28, 0x1000);
    write(0x30, 0x1000);
    write(0x14, 0x0046_0001);
    assert_eq!(status() & 1, 1, "ready");
    // Entry 200 lies beyond the memory.
    write(0x1000, 200);
    let fatal = (0..100_000).any(|_| status() & 2 != 0);
    assert!(fatal, "the controller never noticed");
    let reset = command(1, Command::DEVICE_RESET, 0, &[]);
    assert_eq!(ask(&stream, &reset, &[]), Done(0));
    assert_eq!(status(), 0);
}

#[test]
fn registers_are_described_with_the_area_that_can_be_mapped() {
    for (share_doorbells, flags, count) in [(true, REGION_MMAP | REGION_CAPS | 3, 1), (false, 3, 0)] {
        let serving = Serving::start(pair, ServeOptions { share_doorbells, ..patient() });
        let stream = agreed(&serving, 0);
        let describe = |argsz| {
            let body = RegionInfo { argsz, index: BAR0, ..RegionInfo::default() }.bytes();
            send(&stream, &command(1, Command::DEVICE_GET_REGION_INFO, 0, &body), &[]).expect("sent");
            receive(&stream).expect("a reply")
        };
        // Without room for the areas their size is all that is said of them.
        let first = describe(32);
        let info = RegionInfo::parse(&first.body).expect("information");
        assert_eq!((info.flags, info.cap_offset, first.descriptors.len()), (3, 0, 0));
        assert_eq!(info.argsz, if share_doorbells { 64 } else { 32 });
        let reply = describe(4096);
        let info = RegionInfo::parse(&reply.body).expect("information");
        assert_eq!((info.flags, info.size, info.offset), (flags, 0x4000, 0));
        assert_eq!((info.argsz as usize, reply.descriptors.len()), (reply.body.len(), count));
        for file in reply.descriptors {
            assert!(shorten(&file, 0).is_err(), "no client takes the doorbells away from another");
        }
    }
}

/// The file of the doorbells that a client is given.
fn doorbells(stream: &UnixStream) -> std::fs::File {
    let body = RegionInfo { argsz: 4096, index: BAR0, ..RegionInfo::default() }.bytes();
    send(stream, &command(1, Command::DEVICE_GET_REGION_INFO, 0, &body), &[]).expect("sent");
    let reply = receive(stream).expect("a reply");
    reply.descriptors.into_iter().next().expect("doorbells").into()
}

#[test]
fn a_client_that_has_left_rings_no_doorbell_of_the_next_one() {
    use std::os::unix::fs::{FileExt, MetadataExt};

    let serving = Serving::start(pair, patient());
    let first = agreed(&serving, 0);
    let kept = doorbells(&first);
    drop(first);
    let second = agreed(&serving, 0);
    let own = doorbells(&second);
    assert_ne!(kept.metadata().expect("a file").ino(), own.metadata().expect("a file").ino());
    kept.write_all_at(&7_u32.to_le_bytes(), 0x1000).expect("written");
    let mut found = [0; 4];
    own.read_exact_at(&mut found, 0x1000).expect("read");
    assert_eq!(found, [0xFF; 4], "nothing was written to its doorbells");
}

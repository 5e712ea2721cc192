// SPDX-License-Identifier: MIT OR Apache-2.0
//! The parts of the test.

use core::fmt::{self, Write};

use nvme_core::controller::Link;
use nvme_core::dma::checking::{CheckingArena, RegionSlot};
use nvme_core::register::{Offset, RegisterIo};
use nvme_core::wire::admin::{Identify, IdentifyStructure};
use nvme_core::wire::{Lba, NamespaceId};
use nvme_host_uefi::arena::{ArenaSlot, PciArena};
use nvme_host_uefi::program;
use nvme_host_uefi::registers::PciRegisters;
use nvme_host_uefi::session::{Session, SessionError, Shape, Storage};
use nvme_host_uefi::sys::{ForFunction, OfFunction, PciIo, peek};
use nvme_host_uefi::takeover::{Class, Takeover, TakeoverError};
use nvme_host_uefi::time::FirmwareTime;
use uefi::boot::{self, SearchType};
use uefi::mem::memory_map::{MemoryMap, MemoryType};
use uefi::proto::device_path::DevicePath;
use uefi::proto::media::block::BlockIO;
use uefi::{Handle, Status};

use crate::Console;
use crate::sys::{PassThrough, is_executable, look, memory, with_handle, with_page, with_pool};

/// Bytes compared of each namespace at most.
const MOST: u64 = 64 << 20;
/// Bytes compared of all: one namespace of 64 MiB and three of 8 MiB.
const COMPARED: u64 = MOST + 3 * (8 << 20);
/// Bytes read by the firmware at once.
const CHUNK: usize = 1 << 20;
/// Take-overs in a row.
const ROUNDS: usize = 20;
/// Pieces of pool memory that fill several pages, and bytes of the smallest list of resources.
const PIECES: usize = 1000;
const LIST: usize = 48;
/// Controllers and namespaces of the machine.
const CONTROLLERS: usize = 2;
const NAMESPACES: usize = 3;

/// What was not as it should be.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Failure {
    pub(crate) what: &'static str,
    pub(crate) found: Option<Found>,
}

/// More about it.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Found {
    Status(Status),
    Takeover(TakeoverError),
    Session(SessionError),
    Numbers(u64, u64),
}

impl Failure {
    pub(crate) const fn new(what: &'static str) -> Self {
        Self { what, found: None }
    }

    pub(crate) const fn numbers(what: &'static str, one: u64, other: u64) -> Self {
        Self { what, found: Some(Found::Numbers(one, other)) }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.what)?;
        match self.found {
            None => Ok(()),
            Some(Found::Status(status)) => write!(f, ": {status}"),
            Some(Found::Takeover(error)) => write!(f, ": {error}"),
            Some(Found::Session(error)) => write!(f, ": {error}"),
            Some(Found::Numbers(one, other)) => write!(f, ": {one}, {other}"),
        }
    }
}

impl From<TakeoverError> for Failure {
    fn from(error: TakeoverError) -> Self {
        Self { what: "take-over", found: Some(Found::Takeover(error)) }
    }
}

impl From<SessionError> for Failure {
    fn from(error: SessionError) -> Self {
        Self { what: "session", found: Some(Found::Session(error)) }
    }
}

impl From<uefi::Error> for Failure {
    fn from(error: uefi::Error) -> Self {
        Self { what: "the firmware", found: Some(Found::Status(error.status())) }
    }
}

impl From<Status> for Failure {
    fn from(status: Status) -> Self {
        Self { what: "the firmware", found: Some(Found::Status(status)) }
    }
}

pub(crate) fn ensure(what: &'static str, holds: bool) -> Result<(), Failure> {
    if holds { Ok(()) } else { Err(Failure::new(what)) }
}

pub(crate) fn say(arguments: fmt::Arguments<'_>) -> Result<(), Failure> {
    Console.write_fmt(arguments).map_err(|_| Failure::new("no console"))
}

/// Calls `each` with every NVMe controller; returns how many there are and how many functions of other classes.
pub(crate) fn for_each(
    mut each: impl FnMut(Handle) -> Result<(), Failure>,
) -> Result<(usize, usize), Failure> {
    let handles = boot::locate_handle_buffer(SearchType::from_proto::<PciIo>())?;
    let (mut controllers, mut others) = (0, 0);
    for handle in handles.iter() {
        if Class::read(&*peek(*handle)?)?.is_nvme() {
            controllers += 1;
            each(*handle)?;
        } else {
            others += 1;
        }
    }
    Ok((controllers, others))
}

/// Takes the controller over with these registers and memory, and back again.
pub(crate) fn with<R: OfFunction, A: ForFunction>(
    taken: &Takeover,
    registers: &R,
    arena: &A,
    then: impl FnOnce(&mut Session<'_, '_, R, A, FirmwareTime>) -> Result<(), Failure>,
) -> Result<(), Failure> {
    let (mut storage, time, link) = (Storage::new(), FirmwareTime::new(), Link::new());
    let mut session = taken.session(registers, arena, &link, &mut storage, &time)?;
    let done = then(&mut session);
    let closed = session.close();
    done?;
    Ok(closed?)
}

fn hand_back(taken: Takeover) -> Result<(), Failure> {
    taken.hand_back().map_err(|error| {
        let _ = writeln!(Console, "{error}");
        Failure::new("not handed back")
    })
}

/// What the firmware says of one controller.
struct Theirs {
    controller: &'static mut [u8; 4096],
    namespaces: [(&'static mut [u8; 4096], bool); NAMESPACES],
}

fn page() -> Result<&'static mut [u8; 4096], Failure> {
    let bytes = memory(4096).ok_or(Failure::new("no memory"))?;
    bytes.first_chunk_mut::<4096>().ok_or(Failure::new("no memory"))
}

impl Theirs {
    fn new() -> Result<Self, Failure> {
        Ok(Self { controller: page()?, namespaces: [(page()?, false), (page()?, false), (page()?, false)] })
    }

    fn ask(&mut self, handle: Handle) -> Result<(), Failure> {
        let driver = look::<PassThrough>(handle).ok_or(Failure::new("the firmware's driver is not there"))?;
        driver.identify(1, 0, self.controller)?;
        for (number, (page, there)) in self.namespaces.iter_mut().enumerate() {
            // One that the controller has not is refused or reads as zeroes.
            let id = number as u32 + 1;
            *there = driver.identify(0, id, page).is_ok() && page.iter().any(|byte| *byte != 0);
        }
        Ok(())
    }
}

/// The block device of a namespace, as the firmware's driver has made it.
fn block_device(function: [usize; 4], namespace: u32) -> Result<Handle, Failure> {
    let handles = boot::locate_handle_buffer(SearchType::from_proto::<BlockIO>())?;
    for handle in handles.iter() {
        let Some(path) = look::<DevicePath>(*handle) else { continue };
        let (mut here, mut found) = (false, false);
        for node in path.node_iter() {
            match (node.device_type().0, node.sub_type().0, node.data()) {
                (1, 1, [f, d, ..]) => here = [usize::from(*d), usize::from(*f)] == [function[2], function[3]],
                (3, 0x17, data) => {
                    found = data.first_chunk::<4>().is_some_and(|id| u32::from_le_bytes(*id) == namespace);
                }
                // A partition.
                (4, ..) => here = false,
                _ => {}
            }
        }
        if here && found {
            return Ok(*handle);
        }
    }
    Err(Failure::new("the firmware has no block device of the namespace"))
}

/// Compares what the firmware reads with `ours`.
fn compare_blocks(device: Handle, shape: Shape, ours: &[u8], chunk: &mut [u8]) -> Result<(), Failure> {
    let mut io = look::<BlockIO>(device).ok_or(Failure::new("no block device"))?;
    let media = io.media();
    let block = media.block_size();
    if block != shape.block_bytes || media.last_block() + 1 != shape.blocks {
        return Err(Failure::numbers("the sizes differ", u64::from(block), media.last_block() + 1));
    }
    let id = media.media_id();
    for (number, expected) in ours.chunks(chunk.len()).enumerate() {
        let first = number * chunk.len() / block as usize;
        let piece = &mut chunk[..expected.len()];
        piece.fill(0);
        io.read_blocks(id, first as u64, piece)?;
        if piece != expected {
            return Err(Failure::numbers("the blocks differ", first as u64, u64::from(block)));
        }
    }
    Ok(())
}

/// Identify and blocks, by both drivers, of every namespace of every controller.
pub(crate) fn compare() -> Result<(), Failure> {
    let room = memory(MOST as usize).ok_or(Failure::new("no memory"))?;
    let chunk = memory(CHUNK).ok_or(Failure::new("no memory"))?;
    let mut theirs = Theirs::new()?;
    let (mut compared, mut sizes) = (0_u64, [0_u32; 2]);
    let (controllers, _) = for_each(|handle| {
        boot::connect_controller(handle, &[], None, true)?;
        theirs.ask(handle)?;
        let function = peek(handle)?.location()?;
        for number in 0..NAMESPACES {
            if !theirs.namespaces[number].1 {
                continue;
            }
            let namespace = NamespaceId::new(number as u32 + 1);
            let taken = Takeover::open(handle)?;
            let mut slots = [const { ArenaSlot::new() }; 16];
            let arena = PciArena::new(taken.io(), &mut slots);
            let mut read = None;
            // Both ways to the registers are used in turn.
            let (called, mapped) = (PciRegisters::new(taken.io()), taken.map_registers()?);
            for offset in [Offset::CAP, Offset::VS, Offset::CMBSZ] {
                let one = called.read32(offset).map_err(|_| Failure::new("a register cannot be read"))?;
                let other = mapped.read32(offset).map_err(|_| Failure::new("a register is not mapped"))?;
                ensure("registers called and mapped are equal", one == other)?;
            }
            if number % 2 == 0 {
                with(&taken, &mapped, &arena, |session| {
                    examine(session, namespace, &theirs, room, &mut read)
                })?;
            } else {
                with(&taken, &called, &arena, |session| {
                    examine(session, namespace, &theirs, room, &mut read)
                })?;
            }
            ensure("no memory is left", arena.live() == 0 && arena.lost() == 0)?;
            hand_back(taken)?;
            let (shape, bytes) = read.ok_or(Failure::new("nothing was read"))?;
            compare_blocks(block_device(function, namespace.get())?, shape, &room[..bytes], chunk)?;
            compared += bytes as u64;
            sizes[usize::from(shape.block_bytes == 4096)] += 1;
            say(format_args!(
                "controller {:02x}.{} namespace {}: {bytes} bytes of blocks of {} equal\n",
                function[2],
                function[3],
                namespace.get(),
                shape.block_bytes
            ))?;
        }
        Ok(())
    })?;
    ensure("two controllers", controllers == CONTROLLERS)?;
    ensure("two namespaces of 512 bytes and two of 4 KiB", sizes == [2, 2])?;
    if compared != COMPARED {
        return Err(Failure::numbers("not all bytes were compared", compared, COMPARED));
    }
    say(format_args!("{compared} bytes compared, Identify equal on {controllers} controllers\n"))
}

/// Compares Identify with what the firmware said, and reads the beginning of the namespace.
fn examine<R: RegisterIo, A: nvme_core::dma::DmaArena>(
    session: &mut Session<'_, '_, R, A, FirmwareTime>,
    namespace: NamespaceId,
    theirs: &Theirs,
    room: &mut [u8],
    read: &mut Option<(Shape, usize)>,
) -> Result<(), Failure> {
    let mut page = [0; 4096];
    let command = Identify::new(IdentifyStructure::CONTROLLER);
    session.identify("Identify Controller", &command, &mut page)?;
    ensure("Identify Controller is equal", page == *theirs.controller)?;
    let command = Identify { namespace, ..Identify::new(IdentifyStructure::NAMESPACE) };
    session.identify("Identify Namespace", &command, &mut page)?;
    ensure("Identify Namespace is equal", page == *theirs.namespaces[namespace.get() as usize - 1].0)?;
    let shape = session.shape(namespace)?;
    let bytes = (shape.blocks * u64::from(shape.block_bytes)).min(MOST);
    let mut at = 0;
    session.read(namespace, Lba::new(0), bytes / u64::from(shape.block_bytes), |piece| {
        room[at..at + piece.len()].copy_from_slice(piece);
        at += piece.len();
        Ok::<(), SessionError>(())
    })?;
    ensure("all was read", at as u64 == bytes)?;
    *read = Some((shape, at));
    Ok(())
}

/// Free pages, and handles.
pub(crate) fn usage() -> Result<(u64, u64), Failure> {
    let map = boot::memory_map(MemoryType::LOADER_DATA)?;
    let free = map.entries().filter(|entry| entry.ty == MemoryType::CONVENTIONAL);
    let free = free.map(|entry| entry.page_count).sum();
    drop(map);
    let handles = boot::locate_handle_buffer(SearchType::AllHandles)?.len() as u64;
    Ok((free, handles))
}

/// Fails unless as much is in use as `before`.
pub(crate) fn unchanged(before: (u64, u64)) -> Result<(), Failure> {
    let after = usage()?;
    if before.0 != after.0 {
        return Err(Failure::numbers("pages are missing", before.0, after.0));
    }
    if before.1 != after.1 {
        return Err(Failure::numbers("handles are missing or left", before.1, after.1));
    }
    Ok(())
}

/// A page, a handle and pieces of pool memory that are kept on purpose are seen, one by one.
fn leaks_are_seen(before: (u64, u64)) -> Result<(), Failure> {
    let failed = Failure::new("nothing could be set aside");
    let seen = with_page(usage).ok_or(failed)??;
    ensure("a page that is kept is seen", seen == (before.0 - 1, before.1))?;
    let seen = with_handle(usage).ok_or(failed)??;
    ensure("a handle that is kept is seen", seen.1 == before.1 + 1)?;
    let mut pieces = [None; PIECES];
    let seen = with_pool(&mut pieces, LIST, usage).ok_or(failed)??;
    ensure("pool memory that is kept is seen", seen.0 < before.0)?;
    unchanged(before)
}

/// The firmware's block device of namespace 1 works.
pub(crate) fn firmware_reads(handle: Handle) -> Result<(), Failure> {
    let function = peek(handle)?.location()?;
    let mut io = look::<BlockIO>(block_device(function, 1)?).ok_or(Failure::new("no block device"))?;
    let mut block = [0; 4096];
    let len = io.media().block_size() as usize;
    let id = io.media().media_id();
    io.read_blocks(id, 0, &mut block[..len])?;
    // Fifteen digits and the end of a line.
    let line = block[..15].iter().all(u8::is_ascii_digit) && block[15] == b'\n';
    ensure("the firmware reads what the block holds", line)
}

/// Takes every controller over and back, again and again.
pub(crate) fn rounds() -> Result<(), Failure> {
    let round = || {
        for_each(|handle| {
            let taken = Takeover::open(handle)?;
            let mut slots = [const { ArenaSlot::new() }; 16];
            let arena = PciArena::new(taken.io(), &mut slots);
            with(&taken, &PciRegisters::new(taken.io()), &arena, |session| {
                let namespace = NamespaceId::new(1);
                session.read(namespace, Lba::new(0), 8, |_| Ok::<(), Failure>(()))
            })?;
            hand_back(taken)?;
            firmware_reads(handle)
        })
    };
    let attributes = || {
        let (mut found, mut count) = ([0; CONTROLLERS], 0);
        for_each(|handle| {
            found[count] = peek(handle)?.attributes()?;
            count += 1;
            Ok(())
        })?;
        Ok::<_, Failure>(found)
    };
    // What the firmware sets aside once and keeps is not a leak.
    round()?;
    let (before, were) = (usage()?, attributes()?);
    for _ in 0..ROUNDS {
        round()?;
    }
    unchanged(before)?;
    ensure("attributes are as they were", attributes()? == were)?;
    leaks_are_seen(before)?;
    // A list of resources is pool memory, of which many pieces share a page.
    for_each(|handle| {
        let taken = Takeover::open(handle)?;
        let before = usage()?;
        for _ in 0..PIECES {
            taken.map_registers()?;
        }
        unchanged(before)?;
        hand_back(taken)
    })?;
    unchanged(before)?;
    say(format_args!("{ROUNDS} rounds: {} free pages and {} handles before and after\n", before.0, before.1))
}

/// Text that a command prints.
struct Text {
    bytes: [u8; 8192],
    len: usize,
}

impl Write for Text {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let room = self.bytes.get_mut(self.len..self.len + text.len()).ok_or(fmt::Error)?;
        room.copy_from_slice(text.as_bytes());
        self.len += text.len();
        Ok(())
    }
}

/// Runs the program and compares what it prints and how it ends.
pub(crate) fn program(line: &str, expected: Status, words: &[&'static str]) -> Result<(), Failure> {
    let mut text = Text { bytes: [0; 8192], len: 0 };
    let status = program::run(line.split_ascii_whitespace(), &mut text);
    let printed = core::str::from_utf8(&text.bytes[..text.len]).unwrap_or("");
    say(format_args!("nvme-lm {line}: {status}\n"))?;
    if status != expected {
        say(format_args!("{printed}"))?;
        return Err(Failure { what: "the status of a command", found: Some(Found::Status(status)) });
    }
    for word in words {
        if !printed.contains(word) {
            say(format_args!("{printed}"))?;
            return Err(Failure::new(word));
        }
    }
    Ok(())
}

/// What a command says that the controller does not have.
pub(crate) const NOT_SUPPORTED: [&str; 2] = [
    "is not supported by this controller: OACS in Identify Controller is ",
    "bit 11 clear; nothing was sent",
];

/// What is not as usual.
pub(crate) fn odd() -> Result<(), Failure> {
    // Functions of other classes are left alone.
    let handles = boot::locate_handle_buffer(SearchType::from_proto::<PciIo>())?;
    let mut refused = 0;
    for handle in handles.iter() {
        let class = Class::read(&*peek(*handle)?)?;
        if !class.is_nvme() {
            let answer = Takeover::open(*handle).err();
            ensure("another class is refused", answer == Some(TakeoverError::NotNvme(class)))?;
            refused += 1;
        }
    }
    ensure("there are functions of another class", refused > 0)?;
    say(format_args!("{refused} functions of another class refused\n"))?;

    // The program on the two controllers.
    let (unsupported, invalid) = (Status::UNSUPPORTED, Status::INVALID_PARAMETER);
    let [says, nothing] = NOT_SUPPORTED;
    program("list", Status::SUCCESS, &["0  0000:", "1  0000:", "PCI 1b36:0010"])?;
    program("identify", invalid, &["name one by --controller"])?;
    program("identify --controller 7", Status::NOT_FOUND, &["no such NVMe controller"])?;
    program(
        "identify --controller 0",
        Status::SUCCESS,
        &["QEMU NVMe Ctrl", "blocks of 512", "blocks of 4096"],
    )?;
    program("registers --controller 1", Status::SUCCESS, &["0000  CAP", "001c  CSTS"])?;
    program("read 1 1 --controller 0", Status::SUCCESS, &["0000000200 "])?;
    program("read 99999999 1 --controller 0", Status::DEVICE_ERROR, &["no part of a namespace"])?;
    program("read 0 1 --controller 0 --namespace 9", Status::DEVICE_ERROR, &["not active"])?;
    program("log --controller 1", Status::SUCCESS, &["temperature"])?;
    program("log 1 --controller 1", Status::SUCCESS, &["error"])?;
    program("log 3 --controller 1", Status::SUCCESS, &["active slot 1"])?;
    program("cdq watch --tracked 2 --controller 0", unsupported, &[says, nothing])?;
    let migrate = "migrate --source-manager 0 --source 0 --source-id 2 --dest-manager 1 --dest 1 --dest-id 3";
    program(migrate, unsupported, &[says, nothing])
}

/// One session with checks of all memory, under the firmware's protection of pages.
pub(crate) fn boot() -> Result<(), Failure> {
    let mut checked = 0_usize;
    let on_the_stack = (&raw const checked).expose_provenance() as u64;
    ensure("the stack cannot be executed", !is_executable(on_the_stack))?;
    let code = (boot as fn() -> Result<(), Failure>) as usize as u64;
    ensure("the program can be executed", is_executable(code))?;
    let (controllers, _) = for_each(|handle| {
        boot::connect_controller(handle, &[], None, true)?;
        let taken = Takeover::open(handle)?;
        // Three mappings for each region, and those in quarantine.
        let mut slots = [const { ArenaSlot::new() }; 96];
        let arena = PciArena::new(taken.io(), &mut slots);
        let (mut books, mut found) = ([const { RegionSlot::new() }; 24], [None; 8]);
        let checking = CheckingArena::new(&arena, &mut books, &mut found);
        let registers = PciRegisters::new(taken.io());
        with(&taken, &registers, &checking, |session| {
            session.for_each_namespace(|session, namespace| {
                let shape = session.shape(namespace)?;
                let blocks = (1 << 20) / u64::from(shape.block_bytes);
                session.read(namespace, Lba::new(0), blocks.min(shape.blocks), |_| Ok::<(), Failure>(()))
            })
        })?;
        let violations = checking.inspect();
        if violations != 0 {
            say(format_args!("{:?}\n", checking.violation(0)))?;
            return Err(Failure::numbers("rules of memory were broken", violations as u64, 0));
        }
        ensure("no region is left", checking.live() == 0)?;
        checked += 1;
        hand_back(taken)
    })?;
    ensure("every controller was checked", checked == controllers && controllers == CONTROLLERS)?;
    say(format_args!("{checked} controllers, the stack not executable, no rule of memory broken\n"))
}

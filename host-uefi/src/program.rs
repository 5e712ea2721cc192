// SPDX-License-Identifier: MIT OR Apache-2.0
//! The program `nvme-lm.efi`: finds the controller, takes it over, does what the command line says, hands it back.

use core::fmt::{self, Write};

use nvme_core::controller::Link;
use uefi::boot::{self, SearchType};
use uefi::{Handle, Status};

use crate::arena::{ArenaSlot, PciArena};
use crate::commands::words::{Choice, HELP, Request, Words, parse};
use crate::commands::{self, BusMaster, CommandError, Fence, Migration, Side};
use crate::registers::{PciRegisters, RegisterError};
use crate::session::{Session, Storage};
use crate::sys::{PciIo, peek};
use crate::takeover::{Class, HandBackError, Takeover, TakeoverError};
use crate::time::FirmwareTime;

/// Mappings that a session can have: each region is one, and one in pieces as many as the firmware maps it in. A session has
/// ten regions at most, and data that find no room here are moved by more and shorter commands.
const REGIONS: usize = 32;

/// Why nothing, or not all, was done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Failed {
    /// No controller, or none that is meant.
    NotFound,
    /// Several, and none is named.
    Several,
    /// Source and destination are one.
    Same,
    Takeover(TakeoverError),
    Command(CommandError),
    Register(RegisterError),
    /// So many pages stay set aside.
    Pages(usize),
    HandBack(HandBackError),
}

impl fmt::Display for Failed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotFound => f.write_str("there is no such NVMe controller; list shows what there is"),
            Self::Several => f.write_str("there are several NVMe controllers: name one by --controller"),
            Self::Same => f.write_str(
                "source and destination are the same controller, or have the same managing controller: name two",
            ),
            Self::Takeover(error) => error.fmt(f),
            Self::Command(error) => error.fmt(f),
            Self::Register(error) => error.fmt(f),
            Self::Pages(pages) => write!(
                f,
                "{pages} pages of 4096 bytes stay set aside: the firmware did not take them back, or the controller may reach \
                 them; reset the machine to have them again"
            ),
            Self::HandBack(error) => error.fmt(f),
        }
    }
}

impl Failed {
    const fn status(&self) -> Status {
        match self {
            Self::NotFound => Status::NOT_FOUND,
            Self::Several | Self::Same | Self::Takeover(TakeoverError::NotNvme(_)) => {
                Status::INVALID_PARAMETER
            }
            Self::Command(CommandError::Unsupported(_)) => Status::UNSUPPORTED,
            Self::Takeover(_) | Self::Command(_) | Self::Register(_) | Self::Pages(_) | Self::HandBack(_) => {
                Status::DEVICE_ERROR
            }
        }
    }
}

/// Everything that went wrong, in the order in which it did. The first one decides the status.
struct Failures([Option<Failed>; FAILURES]);

/// What can fail at the same time: a command, and for each of two controllers its memory and its hand-back.
const FAILURES: usize = 5;

impl Failures {
    /// None, or all of those that are errors.
    fn of<const N: usize>(results: [Result<(), Failed>; N]) -> Result<(), Self> {
        let mut failures = [const { None }; FAILURES];
        let errors = results.into_iter().filter_map(Result::err);
        for (place, error) in failures.iter_mut().zip(errors) {
            *place = Some(error);
        }
        if failures.iter().all(Option::is_none) { Ok(()) } else { Err(Self(failures)) }
    }
}

impl<E: Into<Failed>> From<E> for Failures {
    fn from(error: E) -> Self {
        Self([Some(error.into()), None, None, None, None])
    }
}

impl From<TakeoverError> for Failed {
    fn from(error: TakeoverError) -> Self {
        Self::Takeover(error)
    }
}

impl From<CommandError> for Failed {
    fn from(error: CommandError) -> Self {
        Self::Command(error)
    }
}

impl From<fmt::Error> for Failed {
    fn from(_: fmt::Error) -> Self {
        Self::Command(CommandError::Output)
    }
}

/// Does what the words of a command line say, and prints to `out`. The status tells how it went.
pub fn run<'a>(words: impl Iterator<Item = &'a str>, out: &mut dyn Write) -> Status {
    let words = match parse(words) {
        Ok(words) => words,
        Err(error) => {
            // Where nothing can be printed the status tells it.
            let _ = writeln!(out, "nvme-lm: {error}");
            return Status::INVALID_PARAMETER;
        }
    };
    match dispatch(&words, out) {
        Ok(()) => Status::SUCCESS,
        Err(Failures(failures)) => {
            for failed in failures.iter().flatten() {
                let _ = writeln!(out, "nvme-lm: {failed}");
            }
            failures.iter().flatten().next().map_or(Status::DEVICE_ERROR, Failed::status)
        }
    }
}

fn dispatch(words: &Words, out: &mut dyn Write) -> Result<(), Failures> {
    let namespace = words.namespace;
    match words.request {
        Request::Help => out.write_str(HELP).map_err(Into::into),
        Request::List => list(out).map_err(Into::into),
        Request::Registers => registers(find(words.controller)?, out),
        Request::Identify => with_session(words, |session| commands::identify(session, out)),
        Request::Read { start, count } => {
            with_session(words, |session| commands::read(session, namespace, start, count, out))
        }
        Request::Log(page) => with_session(words, |session| commands::log(session, page, out)),
        Request::Watch(watch) => {
            with_session(words, |session| commands::watch(session, &watch, out, &mut || {}))
        }
        Request::Migrate { managers, functions, migration } => migrate(managers, functions, migration, out),
    }
}

/// Calls `each` with every NVMe controller, in the order of the firmware, until it returns something.
fn controllers<T>(mut each: impl FnMut(usize, Handle, &PciIo) -> Option<T>) -> Option<T> {
    let handles = boot::locate_handle_buffer(SearchType::from_proto::<PciIo>()).ok()?;
    let mut number = 0_usize;
    for handle in handles.iter() {
        let Ok(io) = peek(*handle) else { continue };
        if !Class::read(&io).is_ok_and(Class::is_nvme) {
            continue;
        }
        if let Some(found) = each(number, *handle, &io) {
            return Some(found);
        }
        number = number.saturating_add(1);
    }
    None
}

fn find(choice: Option<Choice>) -> Result<Handle, Failed> {
    if let Some(choice) = choice {
        return controllers(|number, handle, io| {
            let meant = match choice {
                Choice::Number(wanted) => wanted == number,
                Choice::Location(wanted) => io.location() == Ok(wanted),
            };
            meant.then_some(handle)
        })
        .ok_or(Failed::NotFound);
    }
    let (mut first, mut several) = (None, false);
    controllers(|_, handle, _| {
        several |= first.is_some();
        first = first.or(Some(handle));
        None::<()>
    });
    if several { Err(Failed::Several) } else { first.ok_or(Failed::NotFound) }
}

fn list(out: &mut dyn Write) -> Result<(), Failed> {
    let mut printed = Ok(());
    let mut count = 0_usize;
    controllers(|number, _, io| {
        count = number.saturating_add(1);
        let Ok([segment, bus, device, function]) = io.location() else { return None::<()> };
        let id = io.read_config32(0).unwrap_or(u32::MAX);
        let (vendor, model) = (id & 0xFFFF, id >> 16);
        if printed.is_ok() {
            printed = writeln!(
                out,
                "{number}  {segment:04x}:{bus:02x}:{device:02x}.{function}  PCI {vendor:04x}:{model:04x}"
            );
        }
        None
    });
    if count == 0 {
        writeln!(out, "no NVMe controllers")?;
    }
    printed.map_err(Into::into)
}

fn registers(handle: Handle, out: &mut dyn Write) -> Result<(), Failures> {
    let taken = Takeover::open(handle)?;
    let shown = commands::registers(&PciRegisters::new(taken.io()), out).map_err(|error| match error {
        commands::RegistersError::Access(error) => Failed::Register(error),
        commands::RegistersError::Output => Failed::Command(CommandError::Output),
    });
    Failures::of([shown, taken.hand_back().map_err(Failed::HandBack)])
}

type OwnSession<'d, 's> = Session<'d, 's, PciRegisters<'d>, PciArena<'d, 's>, FirmwareTime>;

/// Takes the controller over, brings it up, and back again, whatever `then` does.
fn with_session(
    words: &Words,
    then: impl FnOnce(&mut OwnSession<'_, '_>) -> Result<(), CommandError>,
) -> Result<(), Failures> {
    let taken = Takeover::open(find(words.controller)?)?;
    let (mut slots, mut storage) = ([const { ArenaSlot::new() }; REGIONS], Storage::new());
    let (registers, time, link) = (PciRegisters::new(taken.io()), FirmwareTime::new(), Link::new());
    let arena = PciArena::new(taken.io(), &mut slots);
    let used = match taken.session(&registers, &arena, &link, &mut storage, &time) {
        Err(error) => Err(Failed::Takeover(error)),
        Ok(mut session) => {
            let done = then(&mut session).map_err(Failed::Command);
            done.and(session.close().map_err(|error| Failed::Command(error.into())))
        }
    };
    let pages = taken_back(&arena);
    Failures::of([used, pages, taken.hand_back().map_err(Failed::HandBack)])
}

/// Whether the firmware has all memory back.
fn taken_back(arena: &PciArena<'_, '_>) -> Result<(), Failed> {
    match arena.lost().saturating_add(arena.held()) {
        0 => Ok(()),
        pages => Err(Failed::Pages(pages)),
    }
}

fn migrate(
    managers: [Choice; 2],
    functions: [Choice; 2],
    migration: Migration,
    out: &mut dyn Write,
) -> Result<(), Failures> {
    let [source_manager, dest_manager] = managers;
    let [source, dest] = functions;
    // All of them are found before the first is taken over.
    let managers = [find(Some(source_manager))?, find(Some(dest_manager))?];
    let functions = [find(Some(source))?, find(Some(dest))?];
    let ([one, other], [source, dest]) = (managers, functions);
    if one == other || source == dest {
        return Err(Failed::Same.into());
    }
    let one = Takeover::open(one)?;
    let other = Takeover::open(other)?;
    let peeked = |handle| peek(handle).map_err(|error| TakeoverError::Open(error.status()));
    let (source_io, dest_io) = (peeked(source)?, peeked(dest)?);
    let (source_io, dest_io): (&PciIo, &PciIo) = (&source_io, &dest_io);
    let fence = |handle, io| BusMaster((!managers.contains(handle)).then_some(io));
    let fences: [&dyn Fence; 2] = [&fence(&source, source_io), &fence(&dest, dest_io)];
    let [done, pages, other_pages] = between([&one, &other], fences, &migration, out);
    let [back, other_back] = [one, other].map(|taken| taken.hand_back().map_err(Failed::HandBack));
    Failures::of([done, pages, other_pages, back, other_back])
}

/// How the migration went, and whether all memory of both managing controllers came back.
fn between(
    [one, other]: [&Takeover; 2],
    fences: [&dyn Fence; 2],
    migration: &Migration,
    out: &mut dyn Write,
) -> [Result<(), Failed>; 3] {
    let (mut slots, mut other_slots) =
        ([const { ArenaSlot::new() }; REGIONS], [const { ArenaSlot::new() }; REGIONS]);
    let (arena, other_arena) =
        (PciArena::new(one.io(), &mut slots), PciArena::new(other.io(), &mut other_slots));
    let done = between_sessions([one, other], [&arena, &other_arena], fences, migration, out);
    [done, taken_back(&arena), taken_back(&other_arena)]
}

fn between_sessions(
    [one, other]: [&Takeover; 2],
    [arena, other_arena]: [&PciArena<'_, '_>; 2],
    [source, dest]: [&dyn Fence; 2],
    migration: &Migration,
    out: &mut dyn Write,
) -> Result<(), Failed> {
    let time = FirmwareTime::new();
    let (mut storage, mut other_storage) = (Storage::new(), Storage::new());
    let (link, other_link) = (Link::new(), Link::new());
    let (registers, other_registers) = (PciRegisters::new(one.io()), PciRegisters::new(other.io()));
    let mut from = one.session(&registers, arena, &link, &mut storage, &time)?;
    let to = other.session(&other_registers, other_arena, &other_link, &mut other_storage, &time);
    let mut to = match to {
        Ok(to) => to,
        Err(error) => {
            // Why the other one cannot be used matters more than how this one goes down.
            let _ = from.close();
            return Err(error.into());
        }
    };
    let sides = (Side { session: &mut from, fence: source }, Side { session: &mut to, fence: dest });
    let done = commands::migrate(sides.0, sides.1, migration, out, &mut || {}).map_err(Failed::Command);
    let closed = from.close().and(to.close()).map_err(|error| Failed::Command(error.into()));
    done.and(closed)
}

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
use crate::session::{Session, SessionError, Storage};
use crate::sys::{Alarm, PciIo, PciStatus, peek};
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
                 them; start no operating system, which would use them, and reset the machine"
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

/// What can fail at the same time: a command, and for each of two controllers its end, its memory and its hand-back.
const FAILURES: usize = 7;

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
        let mut failures = [const { None }; FAILURES];
        if let Some(first) = failures.first_mut() {
            *first = Some(error.into());
        }
        Self(failures)
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
        Request::Watch(watch) => with_session(words, |session| {
            // Firmware without timers leaves it to the waits that are counted. One timer at a time.
            let mut alarm = None;
            commands::watch(session, &watch, out, &mut |waiting| {
                if alarm.as_ref().is_none_or(|(of, _)| *of != waiting) {
                    alarm = None;
                    alarm = Some((waiting, Alarm::after(waiting.time(&watch))));
                }
                alarm.as_ref().is_some_and(|(_, alarm)| alarm.as_ref().is_ok_and(Alarm::has_rung))
            })
        }),
        Request::Migrate { managers, functions, migration } => migrate(managers, functions, migration, out),
    }
}

/// A function that is met on the way through all of them.
enum Met<'p> {
    /// The NVMe controller with this number.
    Controller(usize, Handle, &'p PciIo),
    /// It does not say what it is: it may be a controller, and the numbers behind it others than they were. Where it is, if
    /// that is known.
    Unknown(Option<[usize; 4]>, PciStatus),
}

const fn unseen(status: PciStatus) -> Failed {
    Failed::Takeover(TakeoverError::Look(status))
}

/// Calls `each` with every NVMe controller, and every function that may be one, in the order of the firmware, until it
/// returns something.
fn functions<T>(mut each: impl FnMut(Met<'_>) -> Option<T>) -> Result<Option<T>, Failed> {
    let handles = match boot::locate_handle_buffer(SearchType::from_proto::<PciIo>()) {
        Ok(handles) => handles,
        Err(error) if error.status() == Status::NOT_FOUND => return Ok(None),
        Err(error) => return Err(unseen(error.status())),
    };
    let mut number = 0_usize;
    for handle in handles.iter().copied() {
        let found = match peek(handle) {
            Err(error) => each(Met::Unknown(None, error.status())),
            Ok(io) => match Class::read(&io) {
                Err(status) => each(Met::Unknown(io.location().ok(), status)),
                Ok(class) if class.is_nvme() => {
                    let found = each(Met::Controller(number, handle, &io));
                    number = number.saturating_add(1);
                    found
                }
                Ok(_) => None,
            },
        };
        if found.is_some() {
            return Ok(found);
        }
    }
    Ok(None)
}

fn find(choice: Option<Choice>) -> Result<Handle, Failed> {
    let (mut first, mut several, mut unknown) = (None, false, None);
    let found = functions(|met| match (met, choice) {
        (Met::Unknown(_, status), choice) => {
            unknown = unknown.or(Some(status));
            matches!(choice, Some(Choice::Number(_))).then_some(Err(unseen(status)))
        }
        (Met::Controller(number, handle, _), Some(Choice::Number(wanted))) => {
            (wanted == number).then_some(Ok(handle))
        }
        (Met::Controller(_, handle, io), Some(Choice::Location(wanted))) => match io.location() {
            Ok(location) => (wanted == location).then_some(Ok(handle)),
            Err(status) => {
                unknown = unknown.or(Some(status));
                None
            }
        },
        (Met::Controller(_, handle, _), None) => {
            several |= first.is_some();
            first = first.or(Some(handle));
            None
        }
    })?;
    match (found, unknown) {
        (Some(found), _) => found,
        (None, _) if several => Err(Failed::Several),
        // It may be the one that is meant, or a second one.
        (None, Some(status)) => Err(unseen(status)),
        (None, None) => first.ok_or(Failed::NotFound),
    }
}

/// Where a function is, if that is known.
struct Place(Option<[usize; 4]>);

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some([segment, bus, device, function]) => {
                write!(f, "{segment:04x}:{bus:02x}:{device:02x}.{function}")
            }
            None => f.write_str("????:??:??.?"),
        }
    }
}

fn list(out: &mut dyn Write) -> Result<(), Failed> {
    let (mut printed, mut unknown, mut count) = (Ok(()), None, 0_usize);
    functions(|met| {
        count = count.saturating_add(1);
        let line = match met {
            Met::Controller(number, _, io) => {
                let location = io.location();
                let id = io.read_config32(0);
                unknown = unknown.or(location.err()).or(id.err());
                let place = Place(location.ok());
                match id {
                    Ok(id) => {
                        writeln!(out, "{number}  {place}  PCI {:04x}:{:04x}", id & 0xFFFF, id >> 16)
                    }
                    Err(status) => writeln!(out, "{number}  {place}  does not say whose it is: {status}"),
                }
            }
            Met::Unknown(location, status) => {
                unknown = unknown.or(Some(status));
                writeln!(out, "?  {}  does not say what it is: {status}", Place(location))
            }
        };
        if printed.is_ok() {
            printed = line;
        }
        None::<()>
    })?;
    if count == 0 {
        writeln!(out, "no NVMe controllers")?;
    }
    printed?;
    unknown.map_or(Ok(()), |status| Err(unseen(status)))
}

fn registers(handle: Handle, out: &mut dyn Write) -> Result<(), Failures> {
    let taken = Takeover::open_to_look(handle)?;
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
    // The functions of the managing controllers are left out: a look ends every other one at the same function.
    let peeked = |handle| match managers.contains(&handle) {
        true => Ok(None),
        false => peek(handle).map(Some).map_err(|error| TakeoverError::Open(error.status())),
    };
    let (source_io, dest_io) = (peeked(source)?, peeked(dest)?);
    let fences: [&dyn Fence; 2] = [&BusMaster(source_io.as_deref()), &BusMaster(dest_io.as_deref())];
    // Before the managing controllers are reset, which ends what they do for anybody. One whose function is that of a managing
    // controller is refused with better words later.
    if source_io.is_some() && dest_io.is_some() {
        let [source, _] = fences;
        commands::is_in_use(source)?;
    }
    let one = Takeover::open(one)?;
    let other = match Takeover::open(other) {
        Ok(other) => other,
        Err(error) => {
            let back = one.hand_back().map_err(Failed::HandBack);
            return Failures::of([Err(error.into()), back]);
        }
    };
    let [done, closed, other_closed, pages, other_pages] = between([&one, &other], fences, &migration, out);
    let [back, other_back] = [one, other].map(|taken| taken.hand_back().map_err(Failed::HandBack));
    Failures::of([done, closed, other_closed, pages, other_pages, back, other_back])
}

/// How the migration and the end of both managing controllers went, and whether all their memory came back.
fn between(
    [one, other]: [&Takeover; 2],
    fences: [&dyn Fence; 2],
    migration: &Migration,
    out: &mut dyn Write,
) -> [Result<(), Failed>; 5] {
    let (mut slots, mut other_slots) =
        ([const { ArenaSlot::new() }; REGIONS], [const { ArenaSlot::new() }; REGIONS]);
    let (arena, other_arena) =
        (PciArena::new(one.io(), &mut slots), PciArena::new(other.io(), &mut other_slots));
    let [done, closed, other_closed] =
        between_sessions([one, other], [&arena, &other_arena], fences, migration, out);
    [done, closed, other_closed, taken_back(&arena), taken_back(&other_arena)]
}

fn between_sessions(
    [one, other]: [&Takeover; 2],
    [arena, other_arena]: [&PciArena<'_, '_>; 2],
    [source, dest]: [&dyn Fence; 2],
    migration: &Migration,
    out: &mut dyn Write,
) -> [Result<(), Failed>; 3] {
    let time = FirmwareTime::new();
    let (mut storage, mut other_storage) = (Storage::new(), Storage::new());
    let (link, other_link) = (Link::new(), Link::new());
    let (registers, other_registers) = (PciRegisters::new(one.io()), PciRegisters::new(other.io()));
    let closed = |closed: Result<(), SessionError>| closed.map_err(|error| Failed::Command(error.into()));
    let mut from = match one.session(&registers, arena, &link, &mut storage, &time) {
        Ok(from) => from,
        Err(error) => return [Err(error.into()), Ok(()), Ok(())],
    };
    let to = other.session(&other_registers, other_arena, &other_link, &mut other_storage, &time);
    let mut to = match to {
        Ok(to) => to,
        Err(error) => return [Err(error.into()), closed(from.close()), Ok(())],
    };
    let sides = (Side { session: &mut from, fence: source }, Side { session: &mut to, fence: dest });
    let done = commands::migrate(sides.0, sides.1, migration, out, &mut || {}).map_err(|error| match error {
        // It was looked at before.
        CommandError::SourceNotInUse(place, seen) => CommandError::SourceWasReset(place, seen),
        error => error,
    });
    // A reset ends the suspension of a controller that must not run and that nothing else keeps from it: a session that is
    // not closed leaves its controller enabled, which is kept from memory then.
    let [closes_source, closes_dest] = done.as_ref().map_or_else(CommandError::closes, |()| [true; 2]);
    let source_closed = if closes_source { closed(from.close()) } else { Ok(()) };
    let dest_closed = if closes_dest { closed(to.close()) } else { Ok(()) };
    [done.map_err(Failed::Command), source_closed, dest_closed]
}

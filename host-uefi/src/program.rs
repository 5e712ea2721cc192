// SPDX-License-Identifier: MIT OR Apache-2.0
//! The program `nvme-lm.efi`: finds the controller, takes it over, does what the command line says, hands it back.

use core::fmt::{self, Write};

use nvme_core::controller::Link;
use uefi::boot::{self, SearchType};
use uefi::{Handle, Status};

use crate::arena::{ArenaSlot, PciArena};
use crate::commands::words::{Choice, HELP, Request, Words, parse};
use crate::commands::{self, CommandError, Fence, Migration, Side};
use crate::registers::{PciRegisters, RegisterError};
use crate::session::{Session, Storage};
use crate::sys::{PciIo, PciStatus, attributes, peek};
use crate::takeover::{Class, HandBackError, Takeover, TakeoverError};
use crate::time::FirmwareTime;

/// Mappings that a session can have: each region is one, and one in pieces as many as the firmware maps it in.
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
            Self::Takeover(_) | Self::Command(_) | Self::Register(_) | Self::HandBack(_) => {
                Status::DEVICE_ERROR
            }
        }
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
        Err(failed) => {
            let _ = writeln!(out, "nvme-lm: {failed}");
            failed.status()
        }
    }
}

fn dispatch(words: &Words, out: &mut dyn Write) -> Result<(), Failed> {
    let namespace = words.namespace;
    match words.request {
        Request::Help => out.write_str(HELP).map_err(Into::into),
        Request::List => list(out),
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

fn registers(handle: Handle, out: &mut dyn Write) -> Result<(), Failed> {
    let taken = Takeover::open(handle)?;
    let shown = commands::registers(&PciRegisters::new(taken.io()), out).map_err(|error| match error {
        commands::RegistersError::Access(error) => Failed::Register(error),
        commands::RegistersError::Output => Failed::Command(CommandError::Output),
    });
    let back = taken.hand_back().map_err(Failed::HandBack);
    shown.and(back)
}

type OwnSession<'d, 's> = Session<'d, 's, PciRegisters<'d>, PciArena<'d, 's>, FirmwareTime>;

/// Takes the controller over, brings it up, and back again, whatever `then` does.
fn with_session(
    words: &Words,
    then: impl FnOnce(&mut OwnSession<'_, '_>) -> Result<(), CommandError>,
) -> Result<(), Failed> {
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
    let back = taken.hand_back().map_err(Failed::HandBack);
    used.and(back)
}

/// Bus mastering of a function that somebody else drives; none of a managing controller, which is needed.
struct BusMaster<'p>(Option<&'p PciIo>);

impl BusMaster<'_> {
    fn io(&self) -> Result<&PciIo, PciStatus> {
        self.0.ok_or(PciStatus::ACCESS_DENIED)
    }
}

impl Fence for BusMaster<'_> {
    fn let_through(&self, on: bool) -> Result<(), PciStatus> {
        match on {
            true => self.io()?.enable_attributes(attributes::BUS_MASTER),
            false => self.io()?.disable_attributes(attributes::BUS_MASTER),
        }
    }

    fn is_through(&self) -> Result<bool, PciStatus> {
        Ok(self.io()?.attributes()? & attributes::BUS_MASTER != 0)
    }
}

fn migrate(
    managers: [Choice; 2],
    functions: [Choice; 2],
    migration: Migration,
    out: &mut dyn Write,
) -> Result<(), Failed> {
    let [source_manager, dest_manager] = managers;
    let [source, dest] = functions;
    // All of them are found before the first is taken over.
    let managers = [find(Some(source_manager))?, find(Some(dest_manager))?];
    let functions = [find(Some(source))?, find(Some(dest))?];
    let ([one, other], [source, dest]) = (managers, functions);
    if one == other || source == dest {
        return Err(Failed::Same);
    }
    let one = Takeover::open(one)?;
    let other = Takeover::open(other)?;
    let peeked = |handle| peek(handle).map_err(|error| TakeoverError::Open(error.status()));
    let (source_io, dest_io) = (peeked(source)?, peeked(dest)?);
    let (source_io, dest_io): (&PciIo, &PciIo) = (&source_io, &dest_io);
    let fence = |handle, io| BusMaster((!managers.contains(handle)).then_some(io));
    let fences: [&dyn Fence; 2] = [&fence(&source, source_io), &fence(&dest, dest_io)];
    let done = between([&one, &other], fences, &migration, out);
    let back = one.hand_back().and(other.hand_back()).map_err(Failed::HandBack);
    done.and(back)
}

fn between(
    [one, other]: [&Takeover; 2],
    [source, dest]: [&dyn Fence; 2],
    migration: &Migration,
    out: &mut dyn Write,
) -> Result<(), Failed> {
    let time = FirmwareTime::new();
    let (mut slots, mut other_slots) =
        ([const { ArenaSlot::new() }; REGIONS], [const { ArenaSlot::new() }; REGIONS]);
    let (mut storage, mut other_storage) = (Storage::new(), Storage::new());
    let (link, other_link) = (Link::new(), Link::new());
    let (registers, other_registers) = (PciRegisters::new(one.io()), PciRegisters::new(other.io()));
    let (arena, other_arena) =
        (PciArena::new(one.io(), &mut slots), PciArena::new(other.io(), &mut other_slots));
    let mut from = one.session(&registers, &arena, &link, &mut storage, &time)?;
    let to = other.session(&other_registers, &other_arena, &other_link, &mut other_storage, &time);
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

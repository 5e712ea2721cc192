// SPDX-License-Identifier: MIT OR Apache-2.0
//! What a command does with controllers, and how one is carried out: controllers opened, sessions begun, the command, sessions
//! ended whatever came of it.

use std::fmt;
use std::io::{self, BufWriter, IsTerminal, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use nvme_core::wire::identify::Capability;
use nvme_core::wire::{ControllerId, TrackedId};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use serde::Serialize;

use super::connect::ConnectArgs;
use super::quirks;
use super::standing::{Standing, refuse_secondary, tracked};
use super::stdout::Stdout;
use super::{BAD_INPUT, FAILED, UNSUPPORTED, complain, interrupts};
use crate::address::Address;
use crate::announced::Unsupported;
use crate::backend::{Device, Devices, Memory, OpenError, Request, is_same_controller};
use crate::driver::DriverError;
use crate::memory::Capacity;
use crate::report::Verdict;
use crate::session::{Session, Storage, are_of_different_subsystems};

/// How often somebody who waits for input looks whether he is to go on, in nanoseconds.
const LOOK: i64 = 100_000_000;

/// A controller that a command uses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Target {
    pub(crate) address: Address,
    /// Memory for it.
    pub(crate) memory: Capacity,
    /// I/O queue pairs that it gets at most, and commands outstanding in each.
    pub(crate) queues: u16,
    pub(crate) depth: u16,
    /// What is done with it.
    pub(crate) purpose: Purpose,
}

/// What is done with a controller.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Purpose {
    /// Its registers are read, whatever it is doing: it gets neither memory nor interrupts.
    Look,
    /// It is brought up, and commands are sent to it.
    Session,
    /// A guest of this program drives it, and nobody else.
    Guest,
    /// One command drives it by a session, another by a guest, which cannot be.
    Both,
}

impl Target {
    /// Enough for admin commands and one I/O command at a time.
    pub(crate) fn new(address: &Address) -> Self {
        let memory = Capacity { queues: 4 << 20, data: 16 << 20, controller_data: 4 << 20 };
        Self { address: address.clone(), memory, queues: 1, depth: 32, purpose: Purpose::Session }
    }

    /// What several commands want of one controller.
    pub(crate) fn merge(&mut self, other: &Self) {
        let most = |pick: fn(&Capacity) -> usize| pick(&self.memory).max(pick(&other.memory));
        self.memory = Capacity {
            queues: most(|memory| memory.queues),
            data: most(|memory| memory.data),
            controller_data: most(|memory| memory.controller_data),
        };
        self.queues = self.queues.max(other.queues);
        self.depth = self.depth.max(other.depth);
        self.purpose = match (self.purpose, other.purpose) {
            (Purpose::Look, purpose) | (purpose, Purpose::Look) => purpose,
            (one, other) if one == other => one,
            _ => Purpose::Both,
        };
    }

    /// The memory it gets.
    const fn memory(&self) -> Memory {
        match self.purpose {
            Purpose::Look => Memory::None,
            Purpose::Guest => Memory::Linear(self.memory),
            Purpose::Session | Purpose::Both => Memory::Own(self.memory),
        }
    }
}

/// Why a command was not carried out.
#[derive(Debug)]
pub(crate) enum CommandError {
    /// A controller could not be opened.
    Open(OpenError),
    /// A controller could not be driven, or did not succeed.
    Driver(DriverError),
    /// The controller cannot do it.
    Unsupported(Unsupported),
    /// What was asked makes no sense, or was not confirmed; nothing was changed.
    Input(String),
    /// It failed.
    Failed(String),
    /// A file: what for, and why not.
    File(String, io::Error),
    /// A signal ended it.
    Interrupted,
    /// A line of a script failed.
    Line(usize, Box<CommandError>),
}

impl fmt::Display for CommandError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Open(error) => error.fmt(f),
            Self::Driver(error) => error.fmt(f),
            Self::Unsupported(unsupported) => unsupported.fmt(f),
            Self::Input(text) | Self::Failed(text) => f.write_str(text),
            Self::File(what, error) => write!(f, "{what}: {error}"),
            Self::Interrupted => f.write_str("ended by a signal"),
            Self::Line(number, error) => write!(f, "line {number}: {error}"),
        }
    }
}

impl CommandError {
    /// The status that the program ends with.
    pub(crate) fn exit_status(&self) -> u8 {
        match self {
            Self::Input(_) => BAD_INPUT,
            Self::Unsupported(_) => UNSUPPORTED,
            Self::Interrupted => Verdict::Interrupted.exit_status(),
            Self::Line(_, error) => error.exit_status(),
            Self::Open(error) if error.is_bad_request() => BAD_INPUT,
            Self::Open(_) | Self::Driver(_) | Self::Failed(_) | Self::File(..) => FAILED,
        }
    }
}

impl From<DriverError> for CommandError {
    fn from(error: DriverError) -> Self {
        Self::Driver(error)
    }
}

impl From<OpenError> for CommandError {
    fn from(error: OpenError) -> Self {
        Self::Open(error)
    }
}

impl From<Unsupported> for CommandError {
    fn from(unsupported: Unsupported) -> Self {
        Self::Unsupported(unsupported)
    }
}

/// Where results go, and whether the user has had enough.
#[derive(Debug)]
pub(crate) struct Output {
    json: bool,
    /// Each document on a line of its own.
    compact: bool,
    interrupted: Arc<AtomicBool>,
    closed: Arc<AtomicBool>,
}

impl Output {
    pub(crate) fn new(json: bool, interrupted: Arc<AtomicBool>) -> Self {
        Self { json, compact: false, interrupted, closed: Arc::default() }
    }

    /// The output of this program, which signals interrupt from now on.
    pub(crate) fn of_program(json: bool) -> Result<Self, CommandError> {
        let interrupted = interrupts().map_err(|error| CommandError::Failed(format!("signals: {error}")))?;
        Ok(Self::new(json, interrupted))
    }

    /// The output of one line of a script.
    pub(crate) fn of_line(&self, json: bool) -> Self {
        Self {
            json: self.json || json,
            compact: true,
            interrupted: Arc::clone(&self.interrupted),
            closed: Arc::clone(&self.closed),
        }
    }

    /// Whether results are for machines.
    pub(crate) const fn is_json(&self) -> bool {
        self.json
    }

    /// Whether a signal has come.
    pub(crate) fn is_interrupted(&self) -> bool {
        self.interrupted.load(Ordering::Relaxed)
    }

    /// Whether nobody reads standard output any more, as far as seen: a command that only prints, for ever or for long, ends
    /// then. Any other goes on, and what it prints goes nowhere.
    pub(crate) fn is_closed(&self) -> bool {
        self.closed.load(Ordering::Relaxed)
    }

    /// Prints a result: the value as one JSON document, or what `text` writes.
    pub(crate) fn emit<T: Serialize + ?Sized>(
        &self,
        value: &T,
        text: impl FnOnce(&mut dyn Write) -> io::Result<()>,
    ) -> Result<(), CommandError> {
        self.print(value, self.compact, text)
    }

    /// Prints one of many results: as one line of JSON, or what `text` writes.
    pub(crate) fn stream<T: Serialize + ?Sized>(
        &self,
        value: &T,
        text: impl FnOnce(&mut dyn Write) -> io::Result<()>,
    ) -> Result<(), CommandError> {
        self.print(value, true, text)
    }

    fn print<T: Serialize + ?Sized>(
        &self,
        value: &T,
        compact: bool,
        text: impl FnOnce(&mut dyn Write) -> io::Result<()>,
    ) -> Result<(), CommandError> {
        let mut bytes = Vec::new();
        let written = if self.json {
            let document = match compact {
                true => serde_json::to_writer(&mut bytes, value),
                false => serde_json::to_writer_pretty(&mut bytes, value),
            };
            document.map_err(io::Error::from).and_then(|()| bytes.write_all(b"\n"))
        } else {
            text(&mut bytes)
        };
        // Colours are taken out again where they are not wanted.
        self.put(written.map(|()| bytes), anstream::stdout())
    }

    /// Prints what `text` writes, whatever is wanted of results.
    pub(crate) fn text(
        &self,
        text: impl FnOnce(&mut dyn Write) -> io::Result<()>,
    ) -> Result<(), CommandError> {
        let mut bytes = Vec::new();
        let written = text(&mut bytes);
        self.put(written.map(|()| bytes), anstream::stdout())
    }

    /// Prints bytes as they are.
    pub(crate) fn raw(&self, bytes: &[u8]) -> Result<(), CommandError> {
        self.put(Ok(bytes), io::stdout())
    }

    fn put(&self, bytes: io::Result<impl AsRef<[u8]>>, to: impl Write) -> Result<(), CommandError> {
        let mut stdout = Stdout::new(to, &self.closed);
        bytes
            .and_then(|bytes| stdout.write_all(bytes.as_ref()))
            .and_then(|()| stdout.flush())
            .map_err(|error| CommandError::File("standard output".into(), error))
    }

    /// Standard output for bytes as they are, which are many.
    pub(crate) fn bytes(&self) -> impl Write + '_ {
        BufWriter::new(Stdout::new(io::stdout().lock(), &self.closed))
    }

    /// Says something beside the result, on standard error.
    pub(crate) fn note(&self, text: &str) {
        let note = anstyle::Style::new().bold().fg_color(Some(anstyle::AnsiColor::Yellow.into()));
        anstream::eprintln!("{note}note:{note:#} {text}");
    }

    /// Waits until there is something to read, or the end of it; `false` if a signal came first.
    pub(crate) fn wait_for(&self, from: BorrowedFd<'_>) -> io::Result<bool> {
        loop {
            if self.is_interrupted() {
                return Ok(false);
            }
            let mut ready = [PollFd::from_borrowed_fd(from, PollFlags::IN)];
            match poll(&mut ready, Some(&Timespec { tv_sec: 0, tv_nsec: LOOK })) {
                Ok(0) | Err(Errno::INTR) => {}
                Ok(_) => return Ok(true),
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Lets the user confirm what cannot be undone, unless that was done by `--yes` already.
    pub(crate) fn confirm(&self, yes: bool, what: &str) -> Result<(), CommandError> {
        if yes {
            return Ok(());
        }
        if !io::stdin().is_terminal() {
            return Err(CommandError::Input(format!(
                "{what}: nobody can be asked, so give --yes if it is meant"
            )));
        }
        anstream::eprint!("{what}. Go on? [y/N] ");
        let wrong = |error| CommandError::File("standard input".into(), error);
        let mut answer = String::new();
        if self.wait_for(io::stdin().as_fd()).map_err(wrong)? {
            io::stdin().read_line(&mut answer).map_err(wrong)?;
        }
        match answer.trim() {
            // Whoever ends the program did not mean the answer, in whichever order the two came.
            _ if self.is_interrupted() => Err(CommandError::Interrupted),
            "y" | "Y" | "yes" => Ok(()),
            _ => Err(CommandError::Input("not confirmed; nothing was changed".into())),
        }
    }
}

/// The sessions of a command.
#[derive(Debug)]
pub(crate) struct Sessions<'d> {
    devices: &'d Devices,
    sessions: Vec<Session<'d>>,
    /// Commands that the controller does not announce may be sent.
    force: bool,
    standing: Standing,
}

impl<'d> Sessions<'d> {
    /// The controllers.
    #[cfg(test)]
    pub(crate) const fn devices(&self) -> &'d Devices {
        self.devices
    }

    fn place(&self, address: &Address) -> Result<usize, CommandError> {
        let is_at = |session: &Session<'_>| is_same_controller(session.device().address(), address);
        let place = self.sessions.iter().position(is_at);
        place.ok_or_else(|| CommandError::Failed(format!("{address} is not open")))
    }

    /// The controller at `address`, one of the command's targets.
    pub(crate) fn at(&mut self, address: &Address) -> Result<&mut Session<'d>, CommandError> {
        let place = self.place(address)?;
        self.sessions.get_mut(place).ok_or(CommandError::Interrupted)
    }

    /// The controller at `address` if it announces `capability`, or if what it does not announce may be sent.
    pub(crate) fn with(
        &mut self,
        address: &Address,
        capability: Capability,
    ) -> Result<&mut Session<'d>, CommandError> {
        let force = self.force;
        let session = self.at(address)?;
        match session.identity().require(capability) {
            Err(error) if !force => Err(Unsupported::from(error).into()),
            _ => Ok(session),
        }
    }

    /// As [`with`](Self::with), together with what commands left in controllers so far.
    pub(crate) fn standing(
        &mut self,
        address: &Address,
        capability: Capability,
    ) -> Result<(&mut Session<'d>, &mut Standing), CommandError> {
        self.with(address, capability)?;
        let place = self.place(address)?;
        let session = self.sessions.get_mut(place).ok_or(CommandError::Interrupted)?;
        Ok((session, &mut self.standing))
    }

    /// As [`standing`](Self::standing), and names `controller`, which commands of the managing controller are about. A secondary
    /// controller of that is refused unless what its guest loses was forced.
    pub(crate) fn tracked(
        &mut self,
        manager: &Address,
        capability: Capability,
        controller: u16,
    ) -> Result<(&mut Session<'d>, &mut Standing, TrackedId), CommandError> {
        let force = self.force;
        let (session, standing) = self.standing(manager, capability)?;
        let tracked = tracked(session, controller)?;
        if !force {
            refuse_secondary(session, tracked)?;
        }
        Ok((session, standing, tracked))
    }

    /// The address by which controller `id` of the subsystem of `manager` is driven here, if it is.
    pub(crate) fn driven(
        &self,
        manager: &Address,
        id: ControllerId,
    ) -> Result<Option<&'d Address>, CommandError> {
        let place = self.place(manager)?;
        let manager = self.sessions.get(place).ok_or(CommandError::Interrupted)?.identity();
        let is_it = |session: &&Session<'d>| {
            let identity = session.identity();
            identity.controller == id && !are_of_different_subsystems(identity, manager)
        };
        Ok(self.sessions.iter().find(is_it).map(|session| session.device().address()))
    }

    /// A controller that was opened and has no session.
    pub(crate) fn device(&self, address: &Address) -> Result<&'d Device, CommandError> {
        self.devices.at(address).ok_or_else(|| CommandError::Failed(format!("{address} is not open")))
    }

    /// Carries one line of a script out, with its own options.
    pub(crate) fn line(
        &mut self,
        action: &dyn Action,
        connect: &ConnectArgs,
        output: &Output,
    ) -> Result<(), CommandError> {
        let force = std::mem::replace(&mut self.force, connect.force);
        let mut before = Vec::new();
        for session in &mut self.sessions {
            before.push((session.timeout(), session.quirks()));
            session.set_timeout(connect.timeout());
        }
        let done = self.carry_out(action, connect, output);
        self.force = force;
        for (session, (timeout, quirks)) in self.sessions.iter_mut().zip(before) {
            session.set_timeout(timeout);
            session.set_quirks(quirks);
        }
        done
    }

    /// Carries a command out, or shows the quirks of its controllers if it is that what is wanted.
    fn carry_out(
        &mut self,
        action: &dyn Action,
        connect: &ConnectArgs,
        output: &Output,
    ) -> Result<(), CommandError> {
        let choice = connect.quirks();
        for session in &mut self.sessions {
            let quirks = choice.of(session.identity());
            session.set_quirks(quirks);
        }
        if !choice.is_list() {
            return action.run(self, output);
        }
        for target in action.targets().iter().filter(|target| target.purpose == Purpose::Session) {
            quirks::show(self.at(&target.address)?, output)?;
        }
        Ok(())
    }

    /// Undoes what commands left in controllers; what could not be is added to `errors`.
    fn undo(&mut self, output: &Output, errors: &mut Vec<CommandError>) {
        let mut standing = std::mem::take(&mut self.standing);
        for session in &mut self.sessions {
            errors.extend(standing.undo(session, output).err());
        }
    }

    /// Ends all sessions; those that could not be are added to `errors`.
    fn close(self, errors: &mut Vec<CommandError>) {
        for session in self.sessions {
            let address = session.device().address().clone();
            if let Err(error) = session.close() {
                errors.push(CommandError::Failed(format!("{address} could not be brought down: {error}")));
            }
        }
    }
}

/// What came of a command: its own error before those of cleaning up, which are said beside it.
pub(crate) fn outcome(
    worked: Result<(), CommandError>,
    cleaning: Vec<CommandError>,
    output: &Output,
) -> Result<(), CommandError> {
    let mut cleaning = cleaning.into_iter();
    let Some(first) = worked.err().or_else(|| cleaning.next()) else { return Ok(()) };
    let mut changed = false;
    for error in cleaning {
        output.note(&error.to_string());
        changed = true;
    }
    // Bad input means that nothing was changed.
    if changed && first.exit_status() == BAD_INPUT {
        return Err(CommandError::Failed(first.to_string()));
    }
    Err(first)
}

/// What came of a command and of the guest that ran meanwhile: whichever failed, and both if both did.
pub(crate) fn beside_guest(
    worked: Result<(), CommandError>,
    guest: Result<(), CommandError>,
    output: &Output,
) -> Result<(), CommandError> {
    match (worked, guest) {
        // What the guest met is the likelier cause.
        (Err(CommandError::Failed(what)), Err(guest)) => {
            Err(CommandError::Failed(format!("{guest}; and then: {what}")))
        }
        (Err(error), Err(guest)) => {
            output.note(&guest.to_string());
            Err(error)
        }
        (worked, guest) => worked.and(guest),
    }
}

/// A command that works on controllers in use.
pub(crate) trait Action {
    /// The controllers that are to be opened.
    fn targets(&self) -> Vec<Target>;

    /// Checks what can be checked, and asks what has to be asked, before any controller is touched.
    fn prepare(&mut self, _output: &Output) -> Result<(), CommandError> {
        Ok(())
    }

    /// Does it.
    fn run(&self, sessions: &mut Sessions<'_>, output: &Output) -> Result<(), CommandError>;
}

/// Opens controllers, calls `work`, and brings them down.
pub(crate) fn with_sessions(
    targets: &[Target],
    connect: &ConnectArgs,
    output: &Output,
    work: impl FnOnce(&mut Sessions<'_>) -> Result<(), CommandError>,
) -> Result<(), CommandError> {
    if let Some(target) = targets.iter().find(|target| target.purpose == Purpose::Both) {
        return Err(CommandError::Input(format!(
            "{} is to be driven by a guest and by commands of the same script, which would stop each other; give one of \
             them a script of its own",
            target.address
        )));
    }
    let request = |target: &Target| Request {
        address: target.address.clone(),
        memory: target.memory(),
        managing: false,
        queues: target.queues,
    };
    let requests: Vec<Request> = targets.iter().map(request).collect();
    let devices = Devices::open(&requests, &connect.options())?;
    let mut storage: Vec<Storage> =
        targets.iter().map(|target| Storage::new(target.queues, target.depth)).collect();
    let mut sessions = Sessions {
        devices: &devices,
        sessions: Vec::new(),
        force: connect.force,
        standing: Standing::default(),
    };
    let mut opened = Ok(());
    for ((device, storage), target) in devices.all().iter().zip(&mut storage).zip(targets) {
        if target.purpose != Purpose::Session {
            continue;
        }
        match Session::open(device, storage, connect.timeout()) {
            Ok(session) => sessions.sessions.push(session),
            Err(error) => {
                opened = Err(CommandError::Failed(format!("{}: {error}", device.address())));
                break;
            }
        }
    }
    let worked = opened.and_then(|()| work(&mut sessions));
    let mut cleaning = Vec::new();
    sessions.undo(output, &mut cleaning);
    sessions.close(&mut cleaning);
    outcome(worked, cleaning, output)
}

/// Prepares a command. Where the quirks of its controllers are shown instead of anything else, nothing is to be asked, and every
/// controller has to have a session, which tells them.
pub(crate) fn prepare(
    action: &mut dyn Action,
    connect: &ConnectArgs,
    output: &Output,
) -> Result<(), CommandError> {
    if !connect.quirks().is_list() {
        return action.prepare(output);
    }
    let targets = action.targets();
    let is = |purpose| targets.iter().any(|target| target.purpose == purpose);
    match is(Purpose::Session) && !is(Purpose::Look) {
        true => Ok(()),
        false => Err(quirks::nothing_to_list()),
    }
}

/// Carries a command out and says how it ended.
pub(crate) fn run(mut action: Box<dyn Action>, connect: &ConnectArgs) -> ExitCode {
    let interrupted = match interrupts() {
        Ok(interrupted) => interrupted,
        Err(error) => return complain(FAILED, &format!("signals: {error}")),
    };
    let output = Output::new(connect.json, interrupted);
    let result = prepare(&mut *action, connect, &output).and_then(|()| {
        with_sessions(&action.targets(), connect, &output, |sessions| {
            sessions.carry_out(&*action, connect, &output)
        })
    });
    finish(result)
}

/// The exit status, and a line for what went wrong.
pub(crate) fn finish(result: Result<(), CommandError>) -> ExitCode {
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => complain(error.exit_status(), &error.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_error_hides_another() {
        let input = || CommandError::Input("input".into());
        let failed = |what: &str| CommandError::Failed(what.into());
        // What came of the command, of cleaning up, the text, the status.
        let rows = [
            ("all well", Ok(()), vec![], None),
            ("bad input", Err(input()), vec![], Some(("input", 2))),
            ("only cleaning up failed", Ok(()), vec![failed("down")], Some(("down", 1))),
            ("bad input, and something was changed", Err(input()), vec![failed("down")], Some(("input", 1))),
            (
                "a signal",
                Err(CommandError::Interrupted),
                vec![failed("down")],
                Some(("ended by a signal", 130)),
            ),
        ];
        for (name, worked, cleaning, expected) in rows {
            let output = Output::new(false, Arc::default());
            let found = outcome(worked, cleaning, &output).err();
            let found = found.map(|error| (error.to_string(), error.exit_status()));
            assert_eq!(found, expected.map(|(text, status)| (text.to_owned(), status)), "{name}");
        }
    }

    #[test]
    fn a_controller_has_one_purpose() {
        use Purpose::{Both, Guest, Look, Session};
        for (one, other, expected) in [
            (Look, Look, Look),
            (Look, Session, Session),
            (Look, Guest, Guest),
            (Session, Session, Session),
            (Guest, Guest, Guest),
            (Session, Guest, Both),
            (Both, Look, Both),
            (Both, Session, Both),
        ] {
            let target =
                |purpose| Target { purpose, ..Target::new(&"embedded:a".parse().expect("an address")) };
            for (one, other) in [(one, other), (other, one)] {
                let mut merged = target(one);
                merged.merge(&target(other));
                assert_eq!(merged.purpose, expected, "{one:?} and {other:?}");
            }
        }
    }
}

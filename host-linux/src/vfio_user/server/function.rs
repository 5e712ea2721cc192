// SPDX-License-Identifier: MIT OR Apache-2.0
//! One served function: its socket, its client, and what each command does.

use std::fs;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::FileTypeExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::time::Instant;

use nvme_core::register::Offset;
use rustix::event::PollFlags;
use rustix::io::Errno;

use super::super::capabilities::{Capabilities, MOST_TRANSFER};
use super::super::socket::Message;
use super::super::wire::{
    Access, BAR0, CONFIGURATION, CapabilityHeader, Command, DEVICE_PCI, DEVICE_RESETS, DeviceInfo, DmaMap,
    DmaUnmap, ERRORS, IRQ_ACTION_TRIGGER, IRQ_DATA_BOOL, IRQ_DATA_EVENTFD, IRQ_DATA_NONE, IRQ_EVENTFD,
    IRQ_NO_RESIZE, IRQS, IrqInfo, IrqSet, MSIX, NO_REPLY, REGION_CAPS, REGION_MMAP, REGION_READ,
    REGION_WRITE, REGIONS, REQUESTS, RegionInfo, SPARSE_MMAP, SparseArea, SparseMmap, TYPE, Version,
};
use super::configuration::{self, Configuration, Identity};
use super::interrupts::check_eventfd;
use super::session::{Answer, Session};
use super::{FunctionSetup, Machine, NAP, ServeOptions};
use crate::endpoint::DOORBELLS;
use crate::memory::PAGE;
use crate::sys::SharedMapping;

/// The region behind base address register 4: MSI-X table and pending bits.
const BAR4: u32 = 4;
/// Bytes of an entry of the MSI-X table.
const TABLE_ENTRY: usize = 16;
/// Smallest register space.
const LEAST_REGISTERS: u64 = 0x4000;
/// What a doorbell holds that was not written since it was last looked at.
const QUIET: u32 = u32::MAX;
/// Commands of one client in one turn, at most.
const TURN: usize = 32;

/// One function and whoever uses it.
#[derive(Debug)]
pub(super) struct Function {
    listener: UnixListener,
    setup: FunctionSetup,
    configuration: Configuration,
    /// The MSI-X table. Clients keep what they like there; eventfds alone say where interrupts go.
    table: Vec<u8>,
    /// Bytes of BAR0 and BAR4.
    registers: u64,
    table_region: u64,
    /// From the first doorbell's offset on, as in BAR0.
    doorbells: SharedMapping,
    /// Its length in bytes.
    shared: usize,
    session: Option<Session>,
}

impl Function {
    pub(super) fn bind(setup: FunctionSetup) -> io::Result<Self> {
        let page = PAGE as u64;
        let doorbells = (u64::from(setup.queue_pairs.max(1)) * 8).next_multiple_of(page);
        let registers = (u64::from(DOORBELLS) + doorbells).next_power_of_two().max(LEAST_REGISTERS);
        let vectors = setup.vectors.count().max(1);
        let table = usize::from(vectors) * TABLE_ENTRY;
        let pending = (table as u64).next_multiple_of(page);
        let table_region = (pending + page).next_power_of_two();
        let identity = Identity {
            vendor: setup.vendor,
            device: setup.device,
            registers,
            table: table_region,
            pending: u32::try_from(pending).unwrap_or(0),
            vectors,
        };
        let shared = usize::try_from(u64::from(DOORBELLS) + doorbells).map_err(io::Error::other)?;
        let function = Self {
            doorbells: SharedMapping::new("doorbells", shared)?,
            listener: listen(&setup.path)?,
            configuration: Configuration::new(identity),
            table: vec![0; table],
            registers,
            table_region,
            shared,
            session: None,
            setup,
        };
        function.silence();
        Ok(function)
    }

    /// What to wait for: the client, or one.
    pub(super) fn awaits(&self) -> (BorrowedFd<'_>, PollFlags) {
        match &self.session {
            Some(session) => session.awaits(),
            None => (self.listener.as_fd(), PollFlags::IN),
        }
    }

    pub(super) fn deadline(&self) -> Option<Instant> {
        self.session.as_ref().and_then(Session::deadline)
    }

    /// Whether somebody may write doorbells without telling.
    pub(super) fn is_watched(&self, options: &ServeOptions) -> bool {
        options.share_doorbells && self.session.as_ref().is_some_and(|session| session.agreed)
    }

    /// Whether a client has agreed on a version.
    pub(super) fn is_in_use(&self) -> bool {
        self.session.as_ref().is_some_and(|session| session.agreed)
    }

    /// Accepts a client if there is none, and carries out what it has asked for. `true` if something was done.
    pub(super) fn serve(&mut self, machine: &mut impl Machine, index: usize, options: &ServeOptions) -> bool {
        let mut worked = false;
        if self.session.is_none() {
            let stream = match self.listener.accept() {
                Ok((stream, _)) => stream,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return false,
                Err(_) => {
                    // No descriptor left, for example: it stays readable, and the thread should not spin on it.
                    std::thread::sleep(NAP);
                    return false;
                }
            };
            // A client that has left may have kept its doorbells: they are not those of the next one.
            let Ok(doorbells) = SharedMapping::new("doorbells", self.shared) else { return false };
            if stream.set_nonblocking(true).is_err() {
                return false;
            }
            self.doorbells = doorbells;
            self.silence();
            self.session = Some(Session::new(stream.into()));
            worked = true;
        }
        for _ in 0..TURN {
            let Some(session) = &mut self.session else { return worked };
            let message = match session.flush(self.doorbells.file().as_fd()) {
                Ok(false) => break,
                Ok(true) => session.take(),
                Err(ended) => Err(ended),
            };
            match message {
                Ok(None) => break,
                Ok(Some(message)) => {
                    worked = true;
                    self.ring(machine, index);
                    if !self.handle(machine, index, message, options) {
                        if let Some(session) = &mut self.session {
                            // The reason, if the socket takes it.
                            let _ = session.flush(self.doorbells.file().as_fd());
                        }
                        self.leave(machine, index);
                    }
                }
                Err(_) => {
                    self.leave(machine, index);
                    return true;
                }
            }
        }
        let now = Instant::now();
        if self.session.as_mut().is_some_and(|session| session.is_overdue(now, options.patience)) {
            self.leave(machine, index);
            worked = true;
        }
        worked
    }

    /// The client is gone: its controller is reset, and nothing of the client is kept.
    fn leave(&mut self, machine: &mut impl Machine, index: usize) {
        if self.session.take().is_some_and(|session| session.agreed) {
            self.setup.memory.set_bus_master(false);
            self.reset(machine, index);
        }
        self.setup.memory.clear();
        self.setup.vectors.clear();
        self.setup.vectors.forget();
        self.configuration.reset();
        self.apply_configuration();
        self.table.fill(0);
    }

    /// Ends the connection, as if the client had.
    pub(super) fn close(&mut self, machine: &mut impl Machine, index: usize) {
        if self.session.is_some() {
            self.leave(machine, index);
        }
    }

    fn reset(&self, machine: &mut impl Machine, index: usize) {
        machine.reset(index);
        self.setup.vectors.forget();
        self.silence();
    }

    fn apply_configuration(&self) {
        self.setup.memory.set_bus_master(self.configuration.is_bus_master());
        self.setup.vectors.set_enabled(self.configuration.delivers_interrupts());
    }

    /// Forgets what was written to doorbells.
    fn silence(&self) {
        for at in (DOORBELLS as usize..self.doorbells.len()).step_by(4) {
            self.doorbells.swap_dword(at, QUIET);
        }
    }

    /// Takes what was written to doorbells in shared memory. `true` if there was anything.
    pub(super) fn ring(&self, machine: &mut impl Machine, index: usize) -> bool {
        if self.session.as_ref().is_none_or(|session| !session.agreed) {
            return false;
        }
        let mut rang = false;
        for at in (DOORBELLS as usize..self.doorbells.len()).step_by(8) {
            if self.doorbells.load_qword(at) == u64::MAX {
                continue;
            }
            for at in [at, at + 4] {
                let value = self.doorbells.swap_dword(at, QUIET);
                if value != QUIET {
                    rang = true;
                    machine.write32(index, Offset::new(at as u32), u32::from_le(value));
                }
            }
        }
        rang
    }

    /// Carries out one command. `false` if the connection has to end.
    fn handle(
        &mut self,
        machine: &mut impl Machine,
        index: usize,
        message: Message,
        options: &ServeOptions,
    ) -> bool {
        let header = message.header;
        if header.flags & TYPE != 0 {
            // A reply, but nothing was asked.
            return false;
        }
        let agreed = self.session.as_ref().is_some_and(|session| session.agreed);
        let answer = if header.flags & !(TYPE | NO_REPLY) != 0 {
            Err(Errno::INVAL)
        } else if agreed {
            self.carry_out(machine, index, message, options)
        } else {
            agree(&message, options)
        };
        let goes_on = agreed || answer.is_ok();
        if let Some(session) = &mut self.session {
            session.agreed = goes_on;
            if header.flags & NO_REPLY == 0 {
                session.reply(&header, answer);
            }
        }
        if !agreed && goes_on {
            self.silence();
        }
        // Whoever cannot begin has to begin anew.
        goes_on
    }

    fn carry_out(
        &mut self,
        machine: &mut impl Machine,
        index: usize,
        message: Message,
        options: &ServeOptions,
    ) -> Result<Answer, Errno> {
        let Message { header, body, descriptors } = message;
        let command = Command(header.command);
        let most = match command {
            Command::DMA_MAP => 1,
            Command::DEVICE_SET_IRQS => usize::MAX,
            _ => 0,
        };
        if descriptors.len() > most {
            return Err(Errno::INVAL);
        }
        let answer = |body: Vec<u8>| Ok(Answer { body, with_doorbells: false });
        match command {
            Command::DMA_MAP => {
                let map = whole(&body, DmaMap::parse, DmaMap::LEN)?;
                at_least(map.argsz, DmaMap::LEN)?;
                self.setup.memory.map(&map, descriptors.first(), &options.memory)?;
                answer(Vec::new())
            }
            Command::DMA_UNMAP => {
                let unmap = whole(&body, DmaUnmap::parse, DmaUnmap::LEN)?;
                at_least(unmap.argsz, DmaUnmap::LEN)?;
                self.setup.memory.unmap(&unmap)?;
                answer(body)
            }
            Command::DEVICE_GET_INFO => {
                let info = whole(&body, DeviceInfo::parse, DeviceInfo::LEN)?;
                at_least(info.argsz, DeviceInfo::LEN)?;
                let flags = DEVICE_RESETS | DEVICE_PCI;
                let argsz = DeviceInfo::LEN as u32;
                answer(DeviceInfo { argsz, flags, regions: REGIONS, irqs: IRQS }.bytes())
            }
            Command::DEVICE_GET_REGION_INFO => {
                self.region_info(&whole(&body, RegionInfo::parse, RegionInfo::LEN)?, options)
            }
            Command::DEVICE_GET_IRQ_INFO => {
                let info = whole(&body, IrqInfo::parse, IrqInfo::LEN)?;
                at_least(info.argsz, IrqInfo::LEN)?;
                if info.index >= IRQS {
                    return Err(Errno::INVAL);
                }
                let count = match info.index {
                    MSIX => u32::from(self.setup.vectors.count()),
                    // Clients expect them. There is nothing that would signal them.
                    ERRORS | REQUESTS => 1,
                    _ => 0,
                };
                let flags = match info.index {
                    _ if count == 0 => 0,
                    // Eventfds can be set one by one, while others are in use.
                    MSIX => IRQ_EVENTFD,
                    _ => IRQ_EVENTFD | IRQ_NO_RESIZE,
                };
                answer(IrqInfo { argsz: IrqInfo::LEN as u32, flags, index: info.index, count }.bytes())
            }
            Command::DEVICE_SET_IRQS => {
                let set = IrqSet::parse(&body).ok_or(Errno::INVAL)?;
                let data = body.get(IrqSet::LEN..).unwrap_or_default();
                self.set_irqs(&set, data, descriptors)?;
                answer(Vec::new())
            }
            Command::REGION_READ => {
                let access = whole(&body, Access::parse, Access::LEN)?;
                let mut body = body;
                self.read(machine, index, &access, &mut body)?;
                answer(body)
            }
            Command::REGION_WRITE => {
                let access = Access::parse(&body).ok_or(Errno::INVAL)?;
                let data = body.get(Access::LEN..).unwrap_or_default();
                if data.len() != access.count as usize || data.is_empty() {
                    return Err(Errno::INVAL);
                }
                self.write(machine, index, &access, data)?;
                answer(access.bytes())
            }
            Command::DEVICE_RESET => {
                if !body.is_empty() {
                    return Err(Errno::INVAL);
                }
                self.reset(machine, index);
                answer(Vec::new())
            }
            // Versions are agreed on once.
            Command::VERSION => Err(Errno::INVAL),
            command if command.name().is_some() => Err(Errno::OPNOTSUPP),
            _ => Err(Errno::NOSYS),
        }
    }

    fn region_info(&self, asked: &RegionInfo, options: &ServeOptions) -> Result<Answer, Errno> {
        at_least(asked.argsz, RegionInfo::LEN)?;
        let size = match asked.index {
            BAR0 => self.registers,
            BAR4 => self.table_region,
            CONFIGURATION => configuration::LEN as u64,
            index if index < REGIONS => 0,
            _ => return Err(Errno::INVAL),
        };
        let flags = if size == 0 { 0 } else { REGION_READ | REGION_WRITE };
        let argsz = RegionInfo::LEN as u32;
        let mut info = RegionInfo { argsz, flags, index: asked.index, cap_offset: 0, size, offset: 0 };
        if asked.index != BAR0 || !options.share_doorbells {
            return Ok(Answer { body: info.bytes(), with_doorbells: false });
        }
        info.argsz += (CapabilityHeader::LEN + SparseMmap::LEN + SparseArea::LEN) as u32;
        if asked.argsz < info.argsz {
            // Whoever has room for more asks again; until then nothing is said of what does not fit.
            return Ok(Answer { body: info.bytes(), with_doorbells: false });
        }
        info.flags |= REGION_MMAP | REGION_CAPS;
        info.cap_offset = argsz;
        let mut body = info.bytes();
        CapabilityHeader { id: SPARSE_MMAP, version: 1, next: 0 }.put(&mut body);
        SparseMmap { areas: 1, reserved: 0 }.put(&mut body);
        let first = u64::from(DOORBELLS);
        SparseArea { offset: first, size: self.doorbells.len() as u64 - first }.put(&mut body);
        Ok(Answer { body, with_doorbells: true })
    }

    fn set_irqs(
        &self,
        set: &IrqSet,
        data: &[u8],
        descriptors: Vec<std::os::fd::OwnedFd>,
    ) -> Result<(), Errno> {
        // Some clients count the descriptors in, which lie elsewhere.
        at_least(set.argsz, IrqSet::LEN + data.len())?;
        if set.index >= IRQS {
            return Err(Errno::INVAL);
        }
        let kind = set.flags & !IRQ_ACTION_TRIGGER;
        // Nothing here can be masked one by one.
        if set.flags & IRQ_ACTION_TRIGGER == 0 {
            return Err(Errno::INVAL);
        }
        let (has_data, has_descriptors) = (!data.is_empty(), !descriptors.is_empty());
        let vectors = &self.setup.vectors;
        if kind == IRQ_DATA_NONE && !has_data && !has_descriptors && set.count == 0 {
            if set.start != 0 {
                return Err(Errno::INVAL);
            }
            if set.index == MSIX {
                vectors.clear();
            }
            return Ok(());
        }
        if matches!(set.index, ERRORS | REQUESTS) {
            // An eventfd that is never signalled need not be kept.
            let one = (set.start, set.count) == (0, 1) && descriptors.len() <= 1;
            let good = kind == IRQ_DATA_EVENTFD && !has_data && one;
            return if good { descriptors.iter().try_for_each(check_eventfd) } else { Err(Errno::INVAL) };
        }
        let end = set.start.checked_add(set.count).ok_or(Errno::INVAL)?;
        if set.index != MSIX || set.count == 0 || end > u32::from(vectors.count()) {
            return Err(Errno::INVAL);
        }
        match kind {
            IRQ_DATA_NONE if !has_data && !has_descriptors => {
                vectors.trigger(set.start, &vec![1; set.count as usize])
            }
            IRQ_DATA_BOOL if data.len() == set.count as usize && !has_descriptors => {
                vectors.trigger(set.start, data)
            }
            IRQ_DATA_EVENTFD if !has_data && !has_descriptors => vectors.assign(set.start, set.count, None),
            IRQ_DATA_EVENTFD if !has_data && descriptors.len() == set.count as usize => {
                vectors.assign(set.start, set.count, Some(descriptors))
            }
            _ => Err(Errno::INVAL),
        }
    }

    /// Checks one access of the register space: 4 or 8 bytes at a multiple of them.
    fn check_register(&self, access: &Access) -> Result<u32, Errno> {
        let count = u64::from(access.count);
        let end = access.offset.checked_add(count).filter(|end| *end <= self.registers);
        if !matches!(count, 4 | 8) || !access.offset.is_multiple_of(count) || end.is_none() {
            return Err(Errno::INVAL);
        }
        u32::try_from(access.offset).map_err(|_| Errno::INVAL)
    }

    /// The part of the MSI-X table that an access of its region reaches: zeroes lie behind it.
    fn check_table(&self, access: &Access) -> Result<std::ops::Range<usize>, Errno> {
        let end = access.offset.checked_add(u64::from(access.count)).ok_or(Errno::INVAL)?;
        if end > self.table_region || access.count == 0 {
            return Err(Errno::INVAL);
        }
        let inside = |at: u64| usize::try_from(at).map_or(self.table.len(), |at| at.min(self.table.len()));
        Ok(inside(access.offset)..inside(end))
    }

    fn read(
        &self,
        machine: &mut impl Machine,
        index: usize,
        access: &Access,
        reply: &mut Vec<u8>,
    ) -> Result<(), Errno> {
        if access.count > MOST_TRANSFER {
            return Err(Errno::INVAL);
        }
        match access.region {
            BAR0 => {
                let at = self.check_register(access)?;
                for at in (at..at + access.count).step_by(4) {
                    reply.extend(machine.read32(index, Offset::new(at)).to_le_bytes());
                }
            }
            BAR4 => {
                let part = self.table.get(self.check_table(access)?).unwrap_or_default();
                reply.extend_from_slice(part);
                reply.resize(Access::LEN + access.count as usize, 0);
            }
            CONFIGURATION => {
                let bytes = self.configuration.read(access.offset, access.count).ok_or(Errno::INVAL)?;
                if bytes.is_empty() {
                    return Err(Errno::INVAL);
                }
                reply.extend_from_slice(bytes);
            }
            _ => return Err(Errno::INVAL),
        }
        Ok(())
    }

    fn write(
        &mut self,
        machine: &mut impl Machine,
        index: usize,
        access: &Access,
        data: &[u8],
    ) -> Result<(), Errno> {
        match access.region {
            BAR0 => {
                let at = self.check_register(access)?;
                let (words, _) = data.as_chunks::<4>();
                for (at, word) in (at..).step_by(4).zip(words) {
                    machine.write32(index, Offset::new(at), u32::from_le_bytes(*word));
                }
            }
            BAR4 => {
                let range = self.check_table(access)?;
                for (byte, new) in self.table.get_mut(range).unwrap_or_default().iter_mut().zip(data) {
                    *byte = *new;
                }
            }
            CONFIGURATION => {
                let resets = self.configuration.write(access.offset, data).ok_or(Errno::INVAL)?;
                self.apply_configuration();
                if resets {
                    self.reset(machine, index);
                }
            }
            _ => return Err(Errno::INVAL),
        }
        Ok(())
    }
}

impl Drop for Function {
    fn drop(&mut self) {
        // Somebody else may have removed it already.
        let _ = fs::remove_file(&self.setup.path);
    }
}

/// The first command: the version.
fn agree(message: &Message, options: &ServeOptions) -> Result<Answer, Errno> {
    if Command(message.header.command) != Command::VERSION || !message.descriptors.is_empty() {
        return Err(Errno::INVAL);
    }
    let asked = Version::parse(&message.body).ok_or(Errno::INVAL)?;
    if asked.major != 0 {
        return Err(Errno::PROTONOSUPPORT);
    }
    let data = message.body.get(Version::LEN..).unwrap_or_default();
    Capabilities::parse(data).map_err(|_| Errno::INVAL)?;
    let mut body = Version { major: 0, minor: asked.minor.min(1) }.bytes();
    body.extend(Capabilities::ours(options.memory.regions).bytes());
    Ok(Answer { body, with_doorbells: false })
}

/// A payload that is one structure and nothing else.
fn whole<T>(body: &[u8], parse: impl Fn(&[u8]) -> Option<T>, len: usize) -> Result<T, Errno> {
    if body.len() == len { parse(body).ok_or(Errno::INVAL) } else { Err(Errno::INVAL) }
}

fn at_least(argsz: u32, len: usize) -> Result<(), Errno> {
    if argsz as usize >= len { Ok(()) } else { Err(Errno::INVAL) }
}

/// Listens at `path`. A socket that nobody listens to any more is replaced.
fn listen(path: &PathBuf) -> io::Result<UnixListener> {
    let listener = match UnixListener::bind(path) {
        Err(error) if error.kind() == io::ErrorKind::AddrInUse => {
            let abandoned = fs::symlink_metadata(path).is_ok_and(|data| data.file_type().is_socket())
                && UnixStream::connect(path).is_err_and(|e| e.kind() == io::ErrorKind::ConnectionRefused);
            if !abandoned {
                return Err(error);
            }
            fs::remove_file(path)?;
            UnixListener::bind(path)?
        }
        listener => listener?,
    };
    listener.set_nonblocking(true)?;
    Ok(listener)
}

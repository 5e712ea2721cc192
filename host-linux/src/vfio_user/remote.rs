// SPDX-License-Identifier: MIT OR Apache-2.0
//! A controller behind a vfio-user socket: registers, memory, interrupts, reset.

use std::os::fd::BorrowedFd;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use nvme_core::register::{Offset, RegisterIo};

use super::connection::{Connection, Expected};
use super::error::Error;
use super::region::{Doorbells, RegionDescription, describe};
use super::wire::{
    Access, BAR0, CONFIGURATION, Command, DEVICE_PCI, DMA_READ, DMA_WRITE, DeviceInfo, DmaMap, DmaUnmap,
    IRQ_ACTION_TRIGGER, IRQ_DATA_EVENTFD, IRQ_DATA_NONE, IRQ_EVENTFD, IrqInfo, IrqSet, MSIX,
};
use crate::endpoint::DOORBELLS;
use crate::memory::{AddressSpace, Window};
use crate::sync::lock;
use crate::vectors::Vectors;

/// NVM Express I/O controllers and administrative controllers. PCI Code and ID Assignment, mass storage controllers.
const NVME_CLASSES: [u32; 2] = [0x01_08_02, 0x01_08_03];
/// PCI command register and what is set in it: memory space, bus master, no INTx.
const COMMAND: u64 = 0x04;
const COMMAND_SET: u16 = 0x0406;
const STATUS: u64 = 0x06;
const CLASS: u64 = 0x08;
const CAPABILITIES: u64 = 0x34;
const MSIX_CAPABILITY: u8 = 0x11;
const MSIX_ENABLE: u16 = 1 << 15;
/// Capabilities that fit into configuration space.
const MOST_CAPABILITIES: usize = 48;
/// Vectors that a table of MSI-X can have.
const MOST_VECTORS: u32 = 2048;

/// How a server is spoken to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ConnectOptions {
    /// Longest wait for a reply.
    pub timeout: Duration,
    /// Longest wait for the reply to a reset.
    pub reset_timeout: Duration,
    /// Whether doorbells are written through shared memory where the server offers it.
    pub map_doorbells: bool,
}

impl Default for ConnectOptions {
    fn default() -> Self {
        Self { timeout: Duration::from_secs(5), reset_timeout: Duration::from_secs(30), map_doorbells: true }
    }
}

/// A controller behind a vfio-user socket.
///
/// Every reply is checked, and every wait is bounded. Once the server is gone, or has broken the protocol, the
/// controller is as a function that was pulled out: registers read as all ones, which the driver takes for
/// `Fault::Removed`, and writes go nowhere; [`failure`](Self::failure) tells why. A server that refuses an access, but
/// is there, makes it an error.
///
/// Dropping it clears what [`connect`](Self::connect) has set in configuration space and closes the connection, once
/// all memory mapped through it is unmapped, too.
#[derive(Debug)]
pub struct RemoteController {
    connection: Arc<Mutex<Connection>>,
    options: ConnectOptions,
    /// Bytes of BAR0.
    registers: u64,
    /// Bytes of configuration space.
    configuration: u64,
    doorbells: Option<Doorbells>,
    vectors: u32,
    /// Where Message Control of MSI-X is in configuration space.
    message_control: Option<u64>,
}

impl RemoteController {
    /// Connects to the server at `path`, looks at the device, and lets it reach memory: memory space and bus master
    /// on, INTx off, MSI-X off.
    ///
    /// # Errors
    /// Nobody listens there, the server does not keep the protocol, or the device is no NVM Express controller.
    pub fn connect(path: &Path, options: &ConnectOptions) -> Result<Self, Error> {
        let mut connection = Connection::open(path, options.timeout)?;
        let device = device_info(&mut connection)?;
        if device.flags & DEVICE_PCI == 0 {
            return Err(Error::Device("it is no PCI function", device.flags.into()));
        }
        if device.regions <= CONFIGURATION {
            return Err(Error::Device("it has too few regions", device.regions.into()));
        }
        if device.irqs <= MSIX {
            return Err(Error::Device("it has too few kinds of interrupt", device.irqs.into()));
        }
        let configuration = describe(&mut connection, CONFIGURATION)?;
        let RegionDescription { info, areas, file } = describe(&mut connection, BAR0)?;
        if info.size < u64::from(DOORBELLS) + 8 {
            return Err(Error::Device("its register space ends before the doorbells", info.size));
        }
        if configuration.info.size < 0x100 {
            return Err(Error::Device("its configuration space is too small", configuration.info.size));
        }
        let doorbells = match file {
            Some(file) if options.map_doorbells => Doorbells::map(&info, &areas, &file)?,
            _ => None,
        };
        let irqs = irq_info(&mut connection)?;
        if irqs.count > MOST_VECTORS {
            return Err(Error::Device("it has more vectors than MSI-X has", irqs.count.into()));
        }
        let mut controller = Self {
            connection: Arc::new(Mutex::new(connection)),
            options: *options,
            registers: info.size,
            configuration: configuration.info.size,
            doorbells,
            vectors: if irqs.flags & IRQ_EVENTFD == 0 { 0 } else { irqs.count },
            message_control: None,
        };
        controller.prepare()?;
        Ok(controller)
    }

    fn prepare(&mut self) -> Result<(), Error> {
        let [_, class @ ..] = self.configuration_bytes::<4>(CLASS)?;
        let [interface, sub, base] = class;
        let class = u32::from_le_bytes([interface, sub, base, 0]);
        if !NVME_CLASSES.contains(&class) {
            return Err(Error::NotNvme(class));
        }
        self.message_control = self.find_capability(MSIX_CAPABILITY)?.map(|at| at + 2);
        let command = u16::from_le_bytes(self.configuration_bytes(COMMAND)?);
        self.write_region(CONFIGURATION, COMMAND, &(command | COMMAND_SET).to_le_bytes())?;
        self.set_msix(false)
    }

    fn configuration_bytes<const N: usize>(&self, at: u64) -> Result<[u8; N], Error> {
        let mut bytes = [0; N];
        self.read_region(CONFIGURATION, at, &mut bytes)?;
        Ok(bytes)
    }

    /// Looks for a capability in configuration space. A list that runs in a circle ends after as many steps as there is
    /// room for.
    fn find_capability(&self, id: u8) -> Result<Option<u64>, Error> {
        let [status, _] = self.configuration_bytes(STATUS)?;
        if status & 0x10 == 0 {
            return Ok(None);
        }
        let [mut next] = self.configuration_bytes(CAPABILITIES)?;
        for _ in 0..MOST_CAPABILITIES {
            let at = u64::from(next & !3);
            if at < 0x40 {
                return Ok(None);
            }
            let [found, following] = self.configuration_bytes(at)?;
            if found == id {
                return Ok(Some(at));
            }
            next = following;
        }
        Err(Error::Device("the list of its capabilities runs in a circle", next.into()))
    }

    fn set_msix(&self, enabled: bool) -> Result<(), Error> {
        let Some(at) = self.message_control else { return Ok(()) };
        let control = u16::from_le_bytes(self.configuration_bytes(at)?) & !MSIX_ENABLE;
        let control = if enabled { control | MSIX_ENABLE } else { control };
        self.write_region(CONFIGURATION, at, &control.to_le_bytes())
    }

    /// Why the connection has ended, if it has.
    #[must_use]
    pub fn failure(&self) -> Option<Error> {
        lock(&self.connection).failure()
    }

    /// Whether the server has ended the connection. A connection that this side gave up does not count: its server may still
    /// reach memory.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        matches!(self.failure(), Some(Error::Closed | Error::ClosedInside { .. }))
    }

    /// Whether doorbells go through shared memory.
    #[must_use]
    pub const fn maps_doorbells(&self) -> bool {
        self.doorbells.is_some()
    }

    /// Bytes of register space: properties and doorbells.
    #[must_use]
    pub const fn register_space(&self) -> u64 {
        self.registers
    }

    /// Interrupt vectors that can be told by eventfd.
    #[must_use]
    pub const fn interrupt_vectors(&self) -> u32 {
        if self.message_control.is_some() { self.vectors } else { 0 }
    }

    /// Reads from a region: one message for each part of as many bytes as the server gives at once.
    ///
    /// # Errors
    /// The server refuses, or the connection has ended.
    pub fn read_region(&self, region: u32, offset: u64, bytes: &mut [u8]) -> Result<(), Error> {
        let mut connection = lock(&self.connection);
        let most = connection.server.transfer.min(super::capabilities::MOST_TRANSFER) as usize;
        let mut at = offset;
        for piece in bytes.chunks_mut(most.max(1)) {
            let command = Command::REGION_READ;
            let access = Access { offset: at, region, count: piece.len() as u32 };
            let expected = Expected {
                least: Access::LEN,
                most: Access::LEN + most.max(piece.len()),
                descriptors: false,
            };
            let reply = connection.request(command, &access.bytes(), &[], expected)?;
            let data = check_access(&mut connection, command, &access, &reply.body)?;
            if data.len() != piece.len() {
                return Err(connection.wrong(command, "data", piece.len() as u64, data.len() as u64));
            }
            piece.copy_from_slice(data);
            at = at.saturating_add(piece.len() as u64);
        }
        Ok(())
    }

    /// Writes to a region: one message for each part of as many bytes as the server takes at once.
    ///
    /// # Errors
    /// As [`read_region`](Self::read_region); what was written before has its effect then.
    pub fn write_region(&self, region: u32, offset: u64, bytes: &[u8]) -> Result<(), Error> {
        let mut connection = lock(&self.connection);
        let most = connection.server.transfer.min(super::capabilities::MOST_TRANSFER) as usize;
        let mut at = offset;
        for piece in bytes.chunks(most.max(1)) {
            let command = Command::REGION_WRITE;
            let access = Access { offset: at, region, count: piece.len() as u32 };
            let mut body = access.bytes();
            body.extend_from_slice(piece);
            let reply = connection.request(command, &body, &[], Expected::bytes(Access::LEN))?;
            check_access(&mut connection, command, &access, &reply.body)?;
            at = at.saturating_add(piece.len() as u64);
        }
        Ok(())
    }

    /// One access of a register of `width` bytes (4 or 8), which lies in the register space.
    fn check(&self, offset: Offset, width: u8) -> Result<u64, Error> {
        let at = u64::from(offset.bytes());
        if at.is_multiple_of(4) && at + u64::from(width) <= self.registers {
            Ok(at)
        } else {
            Err(Error::Outside { offset: offset.bytes(), width })
        }
    }

    /// Lets the device reach all of `space`, which is [linear](AddressSpace::linear), until the result is dropped.
    ///
    /// # Errors
    /// The server refuses, or the connection has ended. Nothing is mapped then.
    pub fn map(&self, space: &Arc<AddressSpace>) -> Result<MappedSpace, Error> {
        let mut mapped = MappedSpace {
            connection: Arc::clone(&self.connection),
            windows: Vec::new(),
            space: Arc::clone(space),
        };
        for window in space.windows() {
            self.map_window(space, window, true, true)?;
            mapped.windows.push(window);
        }
        Ok(mapped)
    }

    /// Lets the device reach a part of `space`, see [`AddressSpace::region_windows`].
    ///
    /// # Errors
    /// The server refuses, or the connection has ended.
    pub fn map_window(
        &self,
        space: &AddressSpace,
        window: Window,
        readable: bool,
        writable: bool,
    ) -> Result<(), Error> {
        let flags = if readable { DMA_READ } else { 0 } | if writable { DMA_WRITE } else { 0 };
        let map = DmaMap {
            argsz: DmaMap::LEN as u32,
            flags,
            offset: window.offset,
            address: window.address.get(),
            size: window.len,
        };
        let descriptors = [space.descriptor()];
        let mut connection = lock(&self.connection);
        connection.request(Command::DMA_MAP, &map.bytes(), &descriptors, Expected::bytes(0)).map(drop)
    }

    /// Takes a part of an address space back: the device does not reach it any more once this returns.
    ///
    /// # Errors
    /// The server refuses, or the connection has ended; then it may still reach the memory, which it knows by a
    /// descriptor of its own.
    pub fn unmap_window(&self, window: Window) -> Result<(), Error> {
        unmap(&mut lock(&self.connection), window)
    }

    /// Sets up an eventfd for each of the first `count` vectors and turns MSI-X on.
    ///
    /// # Errors
    /// The device has fewer vectors, the system has no descriptors left, the server refuses, or the connection has
    /// ended.
    pub fn enable_interrupts(&self, count: u16) -> Result<Vectors, Error> {
        if u32::from(count) > self.interrupt_vectors() {
            return Err(Error::Vectors { asked: count, found: self.interrupt_vectors() });
        }
        let vectors = Vectors::new(count).map_err(|error| Error::system("making an eventfd", error))?;
        let descriptors: Vec<BorrowedFd<'_>> = vectors.descriptors().collect();
        {
            let mut connection = lock(&self.connection);
            let batch = connection.server.descriptors.clamp(1, super::socket::MOST_DESCRIPTORS);
            let mut start = 0;
            for part in descriptors.chunks(batch) {
                set_irqs(&mut connection, IRQ_DATA_EVENTFD, start, part)?;
                start += part.len() as u32;
            }
        }
        self.set_msix(true)?;
        Ok(vectors)
    }

    /// Turns MSI-X off and takes the eventfds back.
    ///
    /// # Errors
    /// The server refuses, or the connection has ended.
    pub fn disable_interrupts(&self) -> Result<(), Error> {
        self.set_msix(false)?;
        set_irqs(&mut lock(&self.connection), IRQ_DATA_NONE, 0, &[])
    }

    /// Resets the function.
    ///
    /// # Errors
    /// The server refuses, or the connection has ended.
    pub fn reset(&self) -> Result<(), Error> {
        let timeout = self.options.reset_timeout;
        let mut connection = lock(&self.connection);
        let none = Expected::bytes(0);
        connection.request_within(timeout, Command::DEVICE_RESET, &[], &[], none).map(drop)
    }

    /// Lets the device be master of the bus, or not: without that it reaches no memory and sends no interrupts.
    ///
    /// # Errors
    /// The server refuses, or the connection has ended.
    pub fn set_bus_master(&self, enabled: bool) -> Result<(), Error> {
        const BUS_MASTER: u16 = 1 << 2;
        let command = u16::from_le_bytes(self.configuration_bytes(COMMAND)?) & !BUS_MASTER;
        let command = command | if enabled { BUS_MASTER } else { 0 };
        self.write_region(CONFIGURATION, COMMAND, &command.to_le_bytes())
    }

    /// Clears what [`connect`](Self::connect) has set. Dropping the controller does the same, without a word if it
    /// fails.
    ///
    /// # Errors
    /// The server refuses, or the connection has ended.
    pub fn detach(&self) -> Result<(), Error> {
        if self.message_control.is_some() {
            self.disable_interrupts()?;
        }
        let command = u16::from_le_bytes(self.configuration_bytes(COMMAND)?) & !COMMAND_SET;
        self.write_region(CONFIGURATION, COMMAND, &command.to_le_bytes())
    }

    /// Bytes of configuration space.
    #[must_use]
    pub const fn configuration_space(&self) -> u64 {
        self.configuration
    }
}

impl Drop for RemoteController {
    fn drop(&mut self) {
        if self.failure().is_none() {
            // A server that is gone has forgotten all of it.
            let _ = self.detach();
        }
    }
}

fn set_irqs(
    connection: &mut Connection,
    data: u32,
    start: u32,
    descriptors: &[BorrowedFd<'_>],
) -> Result<(), Error> {
    let flags = data | IRQ_ACTION_TRIGGER;
    let count = descriptors.len() as u32;
    let set = IrqSet { argsz: IrqSet::LEN as u32, flags, index: MSIX, start, count };
    connection.request(Command::DEVICE_SET_IRQS, &set.bytes(), descriptors, Expected::bytes(0)).map(drop)
}

fn unmap(connection: &mut Connection, window: Window) -> Result<(), Error> {
    let command = Command::DMA_UNMAP;
    let argsz = DmaUnmap::LEN as u32;
    let unmap = DmaUnmap { argsz, flags: 0, address: window.address.get(), size: window.len };
    let expected = Expected { least: 0, most: DmaUnmap::LEN, descriptors: false };
    let reply = connection.request(command, &unmap.bytes(), &[], expected)?;
    if let Some(found) = DmaUnmap::parse(&reply.body) {
        if found.address != unmap.address {
            return Err(connection.wrong(command, "address", unmap.address, found.address));
        }
        if found.size != unmap.size {
            return Err(connection.wrong(command, "size", unmap.size, found.size));
        }
    }
    Ok(())
}

fn device_info(connection: &mut Connection) -> Result<DeviceInfo, Error> {
    let command = Command::DEVICE_GET_INFO;
    let info = DeviceInfo { argsz: DeviceInfo::LEN as u32, ..DeviceInfo::default() };
    let expected = Expected { least: DeviceInfo::LEN, most: DeviceInfo::LEN + 256, descriptors: false };
    let reply = connection.request(command, &info.bytes(), &[], expected)?;
    DeviceInfo::parse(&reply.body).ok_or(Error::Closed)
}

fn irq_info(connection: &mut Connection) -> Result<IrqInfo, Error> {
    let command = Command::DEVICE_GET_IRQ_INFO;
    let info = IrqInfo { argsz: IrqInfo::LEN as u32, index: MSIX, ..IrqInfo::default() };
    let reply = connection.request(command, &info.bytes(), &[], Expected::bytes(IrqInfo::LEN))?;
    let info = IrqInfo::parse(&reply.body).ok_or(Error::Closed)?;
    if info.index != MSIX {
        return Err(connection.wrong(command, "index", MSIX, info.index));
    }
    Ok(info)
}

/// Checks that a reply is to `access`, and returns the data in it.
fn check_access<'b>(
    connection: &mut Connection,
    command: Command,
    access: &Access,
    body: &'b [u8],
) -> Result<&'b [u8], Error> {
    let Some(found) = Access::parse(body) else { return Err(connection.give_up(Error::Closed)) };
    if found.region != access.region {
        return Err(connection.wrong(command, "region", access.region, found.region));
    }
    if found.offset != access.offset {
        return Err(connection.wrong(command, "offset", access.offset, found.offset));
    }
    if found.count != access.count {
        return Err(connection.wrong(command, "count", access.count, found.count));
    }
    Ok(body.get(Access::LEN..).unwrap_or_default())
}

/// What an access gives where nobody is: `gone`, as at a function that was pulled out.
fn or_gone<T>(result: Result<T, Error>, gone: T) -> Result<T, Error> {
    match result {
        Err(error) if error.ends_connection() => Ok(gone),
        result => result,
    }
}

impl RegisterIo for RemoteController {
    type Error = Error;

    fn read32(&self, offset: Offset) -> Result<u32, Error> {
        let at = self.check(offset, 4)?;
        let mut bytes = [0; 4];
        let read = self.read_region(BAR0, at, &mut bytes);
        or_gone(read.map(|()| u32::from_le_bytes(bytes)), u32::MAX)
    }

    #[inline]
    fn write32(&self, offset: Offset, value: u32) -> Result<(), Error> {
        if let Some(doorbells) = &self.doorbells
            && doorbells.ring(offset.bytes(), value)
        {
            return Ok(());
        }
        let at = self.check(offset, 4)?;
        or_gone(self.write_region(BAR0, at, &value.to_le_bytes()), ())
    }

    fn read64(&self, offset: Offset) -> Result<u64, Error> {
        let at = self.check(offset, 8)?;
        let mut bytes = [0; 8];
        let read = self.read_region(BAR0, at, &mut bytes);
        or_gone(read.map(|()| u64::from_le_bytes(bytes)), u64::MAX)
    }

    fn write64(&self, offset: Offset, value: u64) -> Result<(), Error> {
        let at = self.check(offset, 8)?;
        or_gone(self.write_region(BAR0, at, &value.to_le_bytes()), ())
    }
}

/// An address space that a device reaches. Dropping it takes it back.
#[derive(Debug)]
pub struct MappedSpace {
    connection: Arc<Mutex<Connection>>,
    windows: Vec<Window>,
    /// Stays for as long as it is mapped.
    space: Arc<AddressSpace>,
}

impl MappedSpace {
    /// The address space.
    #[must_use]
    pub const fn space(&self) -> &Arc<AddressSpace> {
        &self.space
    }
}

impl Drop for MappedSpace {
    fn drop(&mut self) {
        let mut connection = lock(&self.connection);
        for window in self.windows.drain(..) {
            // A server that is gone has nothing mapped; one that refuses keeps its descriptor whatever is done here.
            let _ = unmap(&mut connection, window);
        }
    }
}

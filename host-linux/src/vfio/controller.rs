// SPDX-License-Identifier: MIT OR Apache-2.0
//! A controller that is a PCI function bound to vfio-pci: registers, configuration space, interrupts, reset.

use std::ffi::CString;
use std::fmt;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::str::FromStr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::{Duration, Instant};

use nvme_core::mmio::MmioError;
use nvme_core::register::{Offset, RegisterIo};
use rustix::io::{pread, pwrite};
use vfio_bindings::bindings::vfio::{
    VFIO_DEVICE_FLAGS_PCI, VFIO_DEVICE_FLAGS_RESET, VFIO_IRQ_SET_ACTION_TRIGGER, VFIO_IRQ_SET_DATA_EVENTFD,
    VFIO_IRQ_SET_DATA_NONE, VFIO_PCI_BAR0_REGION_INDEX, VFIO_PCI_CONFIG_REGION_INDEX,
    VFIO_PCI_MSIX_IRQ_INDEX,
};

use super::container::Container;
use super::error::Error;
use super::info::Region;
use super::registers::Registers;
use super::sysfs::PciFunction;
use crate::address::PciAddress;
use crate::sys::vfio as sys;
use crate::vectors::Vectors;

/// NVM Express I/O controllers and administrative controllers. PCI Code and ID Assignment, mass storage controllers.
const NVME_CLASSES: [u32; 2] = [0x01_08_02, 0x01_08_03];
/// PCI command register and what is set in it: memory space, bus master, no INTx.
const COMMAND: u64 = 0x04;
const COMMAND_SET: u16 = 0x0406;
/// Revision and class.
const CLASS: u64 = 0x08;
/// Vectors that a table of MSI-X can have.
const MOST_VECTORS: u32 = 2048;

/// What the owner of a physical function and those of its virtual functions have in common: 16 bytes, written as a UUID.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct VfToken([u8; 16]);

/// A text that is no token: how one is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct VfTokenError;

impl fmt::Display for VfTokenError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(
            "a token is a UUID: 8, 4, 4, 4 and 12 hexadecimal digits with hyphens between them; uuidgen makes one",
        )
    }
}

impl std::error::Error for VfTokenError {}

impl VfToken {
    pub(super) const fn bytes(self) -> [u8; 16] {
        self.0
    }
}

impl fmt::Display for VfToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, byte) in self.0.iter().enumerate() {
            let separator = if matches!(at, 4 | 6 | 8 | 10) { "-" } else { "" };
            write!(f, "{separator}{byte:02x}")?;
        }
        Ok(())
    }
}

impl FromStr for VfToken {
    type Err = VfTokenError;

    fn from_str(text: &str) -> Result<Self, VfTokenError> {
        let parts: Vec<&str> = text.split('-').collect();
        let lengths = parts.iter().map(|part| part.len()).eq([8, 4, 4, 4, 12]);
        let digits: String = parts.concat();
        if !lengths || !digits.bytes().all(|digit| digit.is_ascii_hexdigit()) {
            return Err(VfTokenError);
        }
        u128::from_str_radix(&digits, 16).map(|value| Self(value.to_be_bytes())).map_err(|_| VfTokenError)
    }
}

/// How a function is opened.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct OpenOptions {
    /// For a physical function with virtual functions, and for those: the same for all of them.
    pub vf_token: Option<VfToken>,
    /// Reaches registers by system calls alone: slowly, but a tracer (strace) shows each access. Otherwise they are mapped as
    /// far as they can be.
    pub unmapped: bool,
    /// Only looks at registers: the controller is left as it is, and is not master of the bus.
    pub looks_only: bool,
}

impl OpenOptions {
    /// What the kernel opens a function of a group by.
    pub(super) fn device_name(&self, address: PciAddress) -> CString {
        let name = match self.vf_token {
            None => address.to_string(),
            Some(token) => format!("{address} vf_token={token}"),
        };
        // Neither part holds a zero byte.
        CString::new(name).unwrap_or_default()
    }
}

/// A controller that is a PCI function.
///
/// Its registers are mapped, so that an access is one load or store; those that cannot be, because something else lies in
/// the same page, are reached by system calls. A function that is unplugged reads as all ones, which the
/// driver takes for `Fault::Removed`, or, if the kernel has already taken the mapping away, ends the process with SIGBUS.
///
/// Dropping it clears what [`Container::open`] has set in configuration space and closes the function, which the kernel
/// then resets if it can.
#[derive(Debug)]
pub struct VfioController {
    // Fields go in this order: nothing of the function is in use when it is closed, nor its group when that is.
    registers: Registers,
    device: OwnedFd,
    _container: Arc<Container>,
    function: PciFunction,
    configuration: Region,
    /// A virtual function has as many as it was given when it was reset last.
    vectors: AtomicU32,
    resets: bool,
    /// Whether it is to be master of the bus.
    bus_master: AtomicBool,
}

fn region(device: BorrowedFd<'_>, index: u32) -> Result<Region, Error> {
    let info = sys::region_info(device, index).map_err(|error| Error::io("asking for a region", &error))?;
    Region::parse(&info)
}

fn count_vectors(device: BorrowedFd<'_>) -> Result<u32, Error> {
    let irqs = sys::irq_info(device, VFIO_PCI_MSIX_IRQ_INDEX);
    match irqs.map_err(|error| Error::io("asking for interrupts", &error))?.count {
        count if count > MOST_VECTORS => {
            Err(Error::Device("it has more vectors than MSI-X has", count.into()))
        }
        count => Ok(count),
    }
}

impl VfioController {
    pub(super) fn new(
        container: Arc<Container>,
        function: PciFunction,
        device: OwnedFd,
        options: &OpenOptions,
    ) -> Result<Self, Error> {
        let info =
            sys::device_info(device.as_fd()).map_err(|error| Error::io("asking for the device", &error))?;
        if info.flags & VFIO_DEVICE_FLAGS_PCI == 0 {
            return Err(Error::Device("it is no PCI function", info.flags.into()));
        }
        if info.num_regions <= VFIO_PCI_CONFIG_REGION_INDEX {
            return Err(Error::Device("it has too few regions", info.num_regions.into()));
        }
        if info.num_irqs <= VFIO_PCI_MSIX_IRQ_INDEX {
            return Err(Error::Device("it has too few kinds of interrupt", info.num_irqs.into()));
        }
        let configuration = region(device.as_fd(), VFIO_PCI_CONFIG_REGION_INDEX)?;
        let [_, class @ ..] = read_configuration::<4>(device.as_fd(), &configuration, CLASS)?;
        let [interface, sub, base] = class;
        let class = u32::from_le_bytes([interface, sub, base, 0]);
        if !NVME_CLASSES.contains(&class) {
            return Err(Error::NotNvme(class));
        }
        let space = region(device.as_fd(), VFIO_PCI_BAR0_REGION_INDEX)?;
        let vectors = AtomicU32::new(count_vectors(device.as_fd())?);
        // An access to registers before memory space is on would end the process.
        set_command(device.as_fd(), &configuration, false)?;
        let registers = Registers::new(&device, &space, !options.unmapped)?;
        let resets = info.flags & VFIO_DEVICE_FLAGS_RESET != 0;
        if !options.looks_only {
            // Memory that it had in another life may be mapped by now.
            match disable(&registers, &device) {
                Ok(()) => set_command(device.as_fd(), &configuration, true)?,
                // A reset makes it let go, and then lets it be master of the bus.
                Err(_) if resets => {}
                Err(status) => {
                    let what = "it does not become disabled in the time it states, and cannot be reset; CSTS";
                    return Err(Error::Device(what, status.into()));
                }
            }
        }
        let bus_master = AtomicBool::new(!options.looks_only);
        Ok(Self {
            registers,
            device,
            _container: container,
            function,
            configuration,
            vectors,
            resets,
            bus_master,
        })
    }

    /// What sysfs said of the function when it was opened.
    #[must_use]
    pub const fn function(&self) -> &PciFunction {
        &self.function
    }

    /// Bytes of register space, from its start on, that are mapped: properties and doorbells.
    #[must_use]
    pub fn register_space(&self) -> usize {
        self.registers.mapped()
    }

    /// Interrupt vectors that can be told by eventfd. A [reset](Self::reset) may change them: that of a virtual function
    /// which was given other resources.
    #[must_use]
    pub fn interrupt_vectors(&self) -> u32 {
        self.vectors.load(Ordering::Relaxed)
    }

    /// Whether the function can be [reset](Self::reset).
    #[must_use]
    pub const fn has_reset(&self) -> bool {
        self.resets
    }

    /// Bytes of configuration space.
    #[must_use]
    pub const fn configuration_space(&self) -> u64 {
        self.configuration.size
    }

    /// The bytes of configuration space at `at`.
    ///
    /// # Errors
    /// They lie outside of it, or the kernel refuses.
    pub fn configuration_bytes<const N: usize>(&self, at: u64) -> Result<[u8; N], Error> {
        read_configuration(self.device.as_fd(), &self.configuration, at)
    }

    /// Sets up an eventfd for each of the first `count` vectors and turns MSI-X on. Vectors set up before are replaced.
    ///
    /// # Errors
    /// The function has fewer vectors, or none; the system has no descriptors left; the kernel refuses.
    pub fn enable_interrupts(&self, count: u16) -> Result<Vectors, Error> {
        let found = self.interrupt_vectors();
        if u32::from(count) > found {
            return Err(Error::Vectors { asked: count, found });
        }
        let vectors = Vectors::new(count).map_err(|error| Error::errno("making an eventfd", error))?;
        let descriptors: Vec<BorrowedFd<'_>> = vectors.descriptors().collect();
        self.disable_interrupts()?;
        if count > 0 {
            let flags = VFIO_IRQ_SET_DATA_EVENTFD | VFIO_IRQ_SET_ACTION_TRIGGER;
            sys::set_irqs(self.device.as_fd(), flags, VFIO_PCI_MSIX_IRQ_INDEX, &descriptors)
                .map_err(|error| Error::io("setting up interrupts", &error))?;
        }
        Ok(vectors)
    }

    /// Turns MSI-X off and takes the eventfds back.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn disable_interrupts(&self) -> Result<(), Error> {
        if self.interrupt_vectors() == 0 {
            return Ok(());
        }
        let flags = VFIO_IRQ_SET_DATA_NONE | VFIO_IRQ_SET_ACTION_TRIGGER;
        match sys::set_irqs(self.device.as_fd(), flags, VFIO_PCI_MSIX_IRQ_INDEX, &[]) {
            // Nothing is set up.
            Err(error) if error.kind() == io::ErrorKind::InvalidInput => Ok(()),
            result => result.map_err(|error| Error::io("turning interrupts off", &error)),
        }
    }

    /// Resets the function; interrupts set up before stay, and it is master of the bus unless that was taken from it by
    /// [`set_bus_master`](Self::set_bus_master). The controller is disabled then and knows nothing of its queues.
    ///
    /// # Errors
    /// The function has no reset, or the kernel refuses.
    pub fn reset(&self) -> Result<(), Error> {
        if !self.resets {
            return Err(Error::NoReset);
        }
        sys::reset(self.device.as_fd()).map_err(|error| Error::io("resetting the function", &error))?;
        set_command(self.device.as_fd(), &self.configuration, self.bus_master.load(Ordering::Acquire))?;
        self.vectors.store(count_vectors(self.device.as_fd())?, Ordering::Relaxed);
        Ok(())
    }

    /// Lets the function be master of the bus, or not: without that it reaches no memory and sends no interrupts.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn set_bus_master(&self, enabled: bool) -> Result<(), Error> {
        self.bus_master.store(enabled, Ordering::Release);
        set_command(self.device.as_fd(), &self.configuration, enabled)
    }

    /// Turns interrupts off and lets the function be master of the bus no more. Registers stay reachable. Dropping the
    /// controller does the same, without a word if it fails.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn detach(&self) -> Result<(), Error> {
        let fenced = self.set_bus_master(false);
        self.disable_interrupts().and(fenced)
    }
}

impl Drop for VfioController {
    fn drop(&mut self) {
        // Closing the function does what could not be done here.
        let _ = self.detach();
    }
}

/// Disables a controller that whoever had it before has left enabled, where closing the function does not reset it. Bounded
/// by the time that it states (CAP.TO), half a second at least and two minutes at most.
///
/// # Errors
/// CSTS, if it does not become disabled.
fn disable(registers: &Registers, device: &OwnedFd) -> Result<(), u32> {
    const ENABLED: u32 = 1;
    const PAUSE: Duration = Duration::from_millis(2);
    const UNIT: Duration = Duration::from_millis(500);
    /// A function that is not there: nothing of it reaches memory, and the driver says so.
    const ABSENT: u32 = u32::MAX;
    let read = |offset| registers.read32(device, offset).unwrap_or(ABSENT);
    let configuration = read(Offset::CC);
    if configuration == ABSENT {
        return Ok(());
    }
    if configuration & ENABLED != 0 {
        // What became of it is seen from CSTS.
        let _ = registers.write32(device, Offset::CC, configuration & !ENABLED);
    }
    let limit = UNIT * (read(Offset::CAP) >> 24).max(1);
    let start = Instant::now();
    loop {
        match read(Offset::CSTS) {
            ABSENT => return Ok(()),
            status if status & ENABLED == 0 => return Ok(()),
            status if start.elapsed() > limit => return Err(status),
            _ => std::thread::sleep(PAUSE),
        }
    }
}

/// Where `len` bytes of configuration space are in the function's descriptor.
fn place(configuration: &Region, at: u64, len: usize) -> Result<u64, Error> {
    let end = at.checked_add(len as u64).filter(|end| *end <= configuration.size);
    let place = configuration.offset.checked_add(at);
    end.and(place).ok_or(Error::Device("its configuration space ends before", at))
}

fn read_configuration<const N: usize>(
    device: BorrowedFd<'_>,
    configuration: &Region,
    at: u64,
) -> Result<[u8; N], Error> {
    const WHAT: &str = "reading configuration space";
    let mut bytes = [0; N];
    match pread(device, &mut bytes, place(configuration, at, N)?) {
        Ok(read) if read == N => Ok(bytes),
        Ok(_) => Err(Error::System(WHAT, 0)),
        Err(error) => Err(Error::errno(WHAT, error)),
    }
}

/// Memory space stays on: registers that are mapped could not be accessed without it.
fn set_command(device: BorrowedFd<'_>, configuration: &Region, master: bool) -> Result<(), Error> {
    const WHAT: &str = "writing configuration space";
    const MEMORY: u16 = 1 << 1;
    let command = u16::from_le_bytes(read_configuration(device, configuration, COMMAND)?) & !COMMAND_SET;
    let command = command | if master { COMMAND_SET } else { MEMORY };
    match pwrite(device, &command.to_le_bytes(), place(configuration, COMMAND, 2)?) {
        Ok(2) => Ok(()),
        Ok(_) => Err(Error::System(WHAT, 0)),
        Err(error) => Err(Error::errno(WHAT, error)),
    }
}

impl RegisterIo for VfioController {
    type Error = MmioError;

    fn read32(&self, offset: Offset) -> Result<u32, MmioError> {
        self.registers.read32(&self.device, offset)
    }

    #[inline]
    fn write32(&self, offset: Offset, value: u32) -> Result<(), MmioError> {
        self.registers.write32(&self.device, offset, value)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_are_read_and_printed_and_go_into_the_name() {
        const TOKEN: &str = "14d63f20-8445-11ea-8900-1f9ce7d5650d";
        let token: VfToken = TOKEN.parse().expect("a token");
        assert_eq!(token.to_string(), TOKEN);
        assert_eq!(TOKEN.to_uppercase().parse(), Ok(token));
        let address: PciAddress = "0000:01:00.0".parse().expect("an address");
        let rows =
            [(None, "0000:01:00.0".to_owned()), (Some(token), format!("0000:01:00.0 vf_token={TOKEN}"))];
        for (vf_token, expected) in rows {
            let name = OpenOptions { vf_token, ..OpenOptions::default() }.device_name(address);
            assert_eq!(name.to_str(), Ok(expected.as_str()));
        }
        for (name, text) in [
            ("nothing", ""),
            ("no hyphens", "14d63f20844511ea89001f9ce7d5650d"),
            ("hyphens elsewhere", "14d63f2-08445-11ea-8900-1f9ce7d5650d"),
            ("a sign", "+4d63f20-8445-11ea-8900-1f9ce7d5650d"),
            ("too long", "14d63f20-8445-11ea-8900-1f9ce7d5650d0"),
            ("no digit", "14d63f20-8445-11ea-8900-1f9ce7d5650g"),
        ] {
            assert_eq!(text.parse::<VfToken>(), Err(VfTokenError), "{name}");
        }
    }

    #[test]
    fn configuration_space_has_an_end() {
        let space = Region { size: 256, offset: 0x7000, areas: Vec::new() };
        for (name, at, len, expected) in [
            ("the first byte", 0, 1, Some(0x7000)),
            ("the last bytes", 252, 4, Some(0x70FC)),
            ("past the end", 253, 4, None),
            ("far away", u64::MAX, 1, None),
        ] {
            assert_eq!(place(&space, at, len).ok(), expected, "{name}");
        }
    }
}

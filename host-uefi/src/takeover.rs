// SPDX-License-Identifier: MIT OR Apache-2.0
//! Taking a controller from the firmware's driver, and giving it back.
//!
//! ```no_run
//! use nvme_core::controller::Link;
//! use nvme_host_uefi::arena::{ArenaSlot, PciArena};
//! use nvme_host_uefi::registers::PciRegisters;
//! use nvme_host_uefi::session::Storage;
//! use nvme_host_uefi::takeover::Takeover;
//! use nvme_host_uefi::time::FirmwareTime;
//!
//! /// The controller's identifier, asked with queues and memory of our own.
//! fn ask(handle: uefi::Handle) -> Option<u16> {
//!     let taken = Takeover::open(handle).ok()?;
//!     let (mut slots, mut storage) = ([const { ArenaSlot::new() }; 64], Storage::new());
//!     let (registers, time) = (PciRegisters::new(taken.io()), FirmwareTime::new());
//!     let arena = PciArena::new(taken.io(), &mut slots);
//!     let link = Link::new();
//!     let session = taken.session(&registers, &arena, &link, &mut storage, &time).ok()?;
//!     let id = session.identity().controller.get();
//!     session.close().ok()?;
//!     taken.hand_back().ok()?;
//!     Some(id)
//! }
//! ```

use core::cell::Cell;
use core::fmt;

use nvme_core::controller::AttachError;
use nvme_core::wire::register::{CC, CSTS, ControllerConfiguration, ControllerStatus};
use uefi::boot::ScopedProtocol;
use uefi::{Handle, boot};

use crate::registers::{MappedRegisters, REGISTER_BAR};
use crate::session::SessionError;
use crate::sys::{self, PciIo, PciStatus, attributes};

/// What a driver needs: registers and memory.
const NEEDED: u64 = attributes::MEMORY | attributes::BUS_MASTER;
/// Offset of revision and class code in configuration space.
const CLASS: u32 = 8;

/// Class code of a PCI function: base class, subclass, programming interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Class(pub [u8; 3]);

impl Class {
    /// Reads it.
    ///
    /// # Errors
    /// The status of the firmware.
    pub fn read(io: &PciIo) -> Result<Self, PciStatus> {
        let [_revision, interface, subclass, base] = io.read_config32(CLASS)?.to_le_bytes();
        Ok(Self([base, subclass, interface]))
    }

    /// Whether it is that of an NVMe I/O controller (01h, 08h, 02h) or administrative controller (03h).
    /// NVMe over PCIe Transport 1.1 §3.1.
    #[must_use]
    pub const fn is_nvme(self) -> bool {
        matches!(self.0, [0x01, 0x08, 0x02 | 0x03])
    }
}

impl fmt::Display for Class {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [base, subclass, interface] = self.0;
        write!(f, "{base:02x}{subclass:02x}{interface:02x}")
    }
}

/// Why a controller was not taken over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TakeoverError {
    /// The handle has no EFI_PCI_IO_PROTOCOL, or somebody has it who does not let go.
    Open(PciStatus),
    /// The function cannot be asked what it is, or who has it.
    Look(PciStatus),
    /// The function is no NVMe controller.
    NotNvme(Class),
    /// The controller is enabled, and has neither a driver nor bus mastering: so it is left where its reset would let a controller
    /// run that must not, or where it does not let itself be disabled.
    Kept,
    /// Memory space or bus mastering cannot be enabled.
    Enable(PciStatus),
    /// It was not taken over for this reason, and is not as it was before.
    NotUndone(PciStatus, HandBackError),
    /// Its registers are not mapped, or not as memory.
    Map(PciStatus),
    /// It was attached before, or registers or memory are another function's.
    Mismatch,
    /// It cannot be reached.
    Attach(AttachError),
    /// It cannot be brought up.
    Session(SessionError),
}

impl core::error::Error for TakeoverError {}

impl fmt::Display for TakeoverError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Open(status) => write!(
                f,
                "the firmware does not give the function away: {status}; end who uses it (disconnect in the shell), and try \
                 again"
            ),
            Self::Look(status) => write!(
                f,
                "the function does not say what it is, or who has it: {status}; reset the machine, or connect its bus \
                 alone again (reconnect -r HANDLE in the shell)"
            ),
            Self::NotNvme(class) => {
                write!(f, "a function of class {class} is no NVMe controller: name one of class 010802")
            }
            Self::Kept => f.write_str(
                "the controller is enabled, without a driver and without access to memory, as an earlier command leaves one that \
                 is not to be used: its reset may let a guest's controller run beside the one that the guest has; reset the \
                 machine",
            ),
            Self::Enable(status) => {
                write!(
                    f,
                    "memory space and bus mastering of the function cannot be enabled: {status}; see whether its bus gives \
                     it memory (pci in the shell)"
                )
            }
            Self::NotUndone(status, error) => write!(f, "the function is not taken over: {status}; {error}"),
            Self::Map(status) => write!(f, "the registers are not mapped: {status}; reach them by calls"),
            Self::Mismatch => f.write_str(
                "attached before, or with another function's registers or memory: take it over again",
            ),
            Self::Attach(error) => error.fmt(f),
            Self::Session(error) => error.fmt(f),
        }
    }
}

/// What did not work when a controller was handed back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HandBackError {
    /// The controller is not seen to be disabled: it stays without bus mastering and without a driver, and its memory set
    /// aside.
    StillEnabled,
    /// As before, and bus mastering cannot be taken from it either.
    StillMaster(PciStatus),
    /// Its attributes could not be restored.
    Attributes(PciStatus),
    /// No driver of the firmware has taken it.
    Connect(PciStatus),
}

impl core::error::Error for HandBackError {}

impl fmt::Display for HandBackError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::StillEnabled => f.write_str(
                "the controller is not seen to be disabled: it stays without access to memory and without a driver; reset the \
                 machine",
            ),
            Self::StillMaster(status) => write!(
                f,
                "the controller is not seen to be disabled, nor its access to memory to be taken away ({status}): it may \
                 write to memory that was lent to it, which an operating system would use; start none, and reset the machine"
            ),
            Self::Attributes(status) => write!(
                f,
                "the function's attributes are not restored: {status}; connect its driver alone again (reconnect -r \
                 HANDLE in the shell)"
            ),
            Self::Connect(status) => write!(
                f,
                "no driver of the firmware takes the controller: {status}; connect one to it alone (connect -r HANDLE in \
                 the shell)"
            ),
        }
    }
}

/// What a look at the registers of a controller shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Seen {
    /// CC and CSTS are read.
    Registers {
        /// CC.EN.
        enabled: bool,
        /// CSTS.RDY.
        ready: bool,
    },
    /// CC or CSTS is all ones: the function is without its memory space, or it is gone. Nothing is known.
    AllOnes,
}

impl Seen {
    /// Looks. A register that cannot be read once is read again.
    pub(crate) fn look(io: &PciIo) -> Result<Self, PciStatus> {
        let once = |offset: u32| io.read_mem32(REGISTER_BAR, u64::from(offset));
        let read = |offset: u32| once(offset).or_else(|_| once(offset));
        let (cc, csts) = (read(CC)?, read(CSTS)?);
        Ok(match (cc, csts) {
            (u32::MAX, _) | (_, u32::MAX) => Self::AllOnes,
            _ => Self::Registers {
                enabled: ControllerConfiguration::from_bits(cc).enabled(),
                ready: ControllerStatus::from_bits(csts).ready(),
            },
        })
    }

    /// It is seen to be disabled: CC.EN and CSTS.RDY are 0.
    #[must_use]
    pub const fn is_disabled(self) -> bool {
        matches!(self, Self::Registers { enabled: false, ready: false })
    }

    /// It is seen to be in use: CC.EN and CSTS.RDY are 1.
    #[must_use]
    pub const fn is_in_use(self) -> bool {
        matches!(self, Self::Registers { enabled: true, ready: true })
    }
}

/// A controller that is held exclusively. Dropped, it is handed back, and nobody is told how that went.
#[derive(Debug)]
pub struct Takeover {
    /// Closed before the driver is connected again: fields are dropped in this order.
    io: ScopedProtocol<PciIo>,
    driver: Driver,
    saved: u64,
    attached: Cell<bool>,
    /// What became of it, once it has been left.
    left: Option<Result<(), HandBackError>>,
}

/// The firmware's driver of a function, connected again at the end.
#[derive(Debug)]
struct Driver {
    handle: Handle,
    /// Whether there was one, and it may have the function.
    wanted: bool,
}

impl Driver {
    fn connect(&mut self) -> Result<(), HandBackError> {
        if !core::mem::take(&mut self.wanted) {
            return Ok(());
        }
        boot::connect_controller(self.handle, &[], None, true)
            .map_err(|error| HandBackError::Connect(error.status()))
    }
}

impl Drop for Driver {
    fn drop(&mut self) {
        // Whoever wants to know calls `hand_back`.
        let _ = self.connect();
    }
}

impl Takeover {
    /// Takes the function behind `handle` from whatever driver has it, and enables its memory space, its bus mastering
    /// and, where it can do that, addresses above 4 GiB. The controller is still enabled then, with the queues of the
    /// driver before: attaching it disables it.
    ///
    /// # Errors
    /// [`TakeoverError`]; whatever was changed by then is undone, but with [`TakeoverError::NotUndone`].
    pub fn open(handle: Handle) -> Result<Self, TakeoverError> {
        Self::take(handle, true)
    }

    /// The same to look at its registers: it gets no access to memory, and is not to be attached.
    pub(crate) fn open_to_look(handle: Handle) -> Result<Self, TakeoverError> {
        Self::take(handle, false)
    }

    fn take(handle: Handle, to_drive: bool) -> Result<Self, TakeoverError> {
        // Looked at before anything is taken away from its driver.
        let (saved, supported, stands) = {
            let io = sys::peek(handle).map_err(|error| TakeoverError::Open(error.status()))?;
            let class = Class::read(&io).map_err(TakeoverError::Look)?;
            if !class.is_nvme() {
                return Err(TakeoverError::NotNvme(class));
            }
            let (saved, supported) = io
                .attributes()
                .and_then(|saved| Ok((saved, io.supported_attributes()?)))
                .map_err(TakeoverError::Look)?;
            // Enabled, and kept from memory.
            let stands = to_drive
                && saved & attributes::BUS_MASTER == 0
                && matches!(
                    Seen::look(&io).map_err(TakeoverError::Look)?,
                    Seen::Registers { enabled: true, .. }
                );
            (saved, supported, stands)
        };
        let wanted = sys::has_driver(handle).map_err(TakeoverError::Look)?;
        if stands && !wanted {
            return Err(TakeoverError::Kept);
        }
        let mut driver = Driver { handle, wanted };
        let io = match boot::open_protocol_exclusive::<PciIo>(handle) {
            Ok(io) => io,
            Err(error) => {
                let status = error.status();
                // The driver may be gone all the same; one that is there is not connected twice.
                driver.wanted = wanted && sys::has_driver(handle) != Ok(true);
                return Err(match driver.connect() {
                    Ok(()) => TakeoverError::Open(status),
                    Err(back) => TakeoverError::NotUndone(status, back),
                });
            }
        };
        let taken = Self { io, driver, saved, attached: Cell::new(false), left: None };
        let needed = match to_drive {
            true => NEEDED | (supported & attributes::DUAL_ADDRESS_CYCLE),
            false => attributes::MEMORY,
        };
        match taken.io().enable_attributes(needed) {
            Ok(()) => Ok(taken),
            Err(status) => Err(match taken.hand_back() {
                Ok(()) => TakeoverError::Enable(status),
                Err(back) => TakeoverError::NotUndone(status, back),
            }),
        }
    }

    /// The function.
    #[must_use]
    pub fn io(&self) -> &PciIo {
        &self.io
    }

    /// Its registers, mapped.
    ///
    /// # Errors
    /// [`TakeoverError::Map`].
    pub fn map_registers(&self) -> Result<MappedRegisters<'_>, TakeoverError> {
        let range = self.io().bar_range(REGISTER_BAR).map_err(TakeoverError::Map)?;
        sys::map_registers(self.io(), range).ok_or(TakeoverError::Map(PciStatus::UNSUPPORTED))
    }

    /// Whether it has been attached.
    pub(crate) const fn is_attached(&self) -> bool {
        self.attached.get()
    }

    /// From now on it counts as attached.
    pub(crate) fn set_attached(&self) {
        self.attached.set(true);
    }

    /// Gives the controller back: its attributes as they were, and the firmware's driver connected if it had one.
    ///
    /// # Errors
    /// [`HandBackError`]; everything else was done all the same, but that a controller which is still enabled gets no
    /// driver.
    pub fn hand_back(mut self) -> Result<(), HandBackError> {
        let left = self.leave();
        let connect = core::mem::take(&mut self.driver.wanted);
        let mut driver = Driver { handle: self.driver.handle, wanted: connect };
        // The function is closed.
        drop(self);
        left.and(driver.connect())
    }

    /// Whether the controller uses no memory: it is disabled, or its function is gone. Registers that read all ones do not
    /// show that: the function may do without its memory space, or behind a link that has failed, what it did before.
    fn is_at_rest(io: &PciIo) -> bool {
        let is_gone = || {
            io.read_mem32(REGISTER_BAR, u64::from(CSTS)) == Ok(u32::MAX)
                && io.read_config32(0) == Ok(u32::MAX)
        };
        Seen::look(io).is_ok_and(Seen::is_disabled) || is_gone()
    }

    /// Restores the attributes, or keeps a controller from memory that does not let itself be disabled. Once.
    fn leave(&mut self) -> Result<(), HandBackError> {
        if let Some(left) = self.left {
            return left;
        }
        // One that nobody has attached is as its driver left it, and has none of our memory.
        let left = if !self.attached.get() || Self::is_at_rest(&self.io) {
            self.io.set_attributes(self.saved).map_err(HandBackError::Attributes)
        } else {
            self.driver.wanted = false;
            match self.io.disable_attributes(attributes::BUS_MASTER) {
                Ok(()) => Err(HandBackError::StillEnabled),
                Err(status) => Err(HandBackError::StillMaster(status)),
            }
        };
        self.left = Some(left);
        left
    }
}

impl Drop for Takeover {
    fn drop(&mut self) {
        // Whoever wants to know calls `hand_back`.
        let _ = self.leave();
    }
}

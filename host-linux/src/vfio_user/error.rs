// SPDX-License-Identifier: MIT OR Apache-2.0
//! What can go wrong between a client and its server, as the client sees it.

use std::fmt;

use rustix::io::Errno;

use super::wire::Command;

/// Why something asked of a server was not done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Error {
    /// The operating system refuses: what was tried, and its errno.
    System(&'static str, i32),
    /// No answer to this command in time. The connection is given up.
    TimedOut(Command),
    /// The server has closed the connection.
    Closed,
    /// The server has closed the connection inside a message.
    ClosedInside {
        /// Bytes of the message that came.
        received: usize,
        /// Bytes it should have.
        expected: usize,
    },
    /// The connection was given up before, see [`RemoteController::failure`](super::RemoteController::failure).
    GivenUp,
    /// The server answers that the command failed: its errno, or zero.
    Refused(Command, u32),
    /// A reply has a size that it cannot have, in bytes with its header.
    Size {
        /// Of the command.
        command: Command,
        /// As the header says.
        found: usize,
        /// The smallest possible.
        least: usize,
        /// The largest possible.
        most: usize,
    },
    /// A reply has the identifier of no command that is outstanding.
    Identifier {
        /// Of the command.
        expected: u16,
        /// Of the reply.
        found: u16,
    },
    /// A reply names another command.
    WrongCommand {
        /// The command.
        expected: Command,
        /// What the reply names.
        found: Command,
    },
    /// A reply has flags that no reply has.
    Flags(u32),
    /// A reply comes with a number of descriptors that it cannot have.
    Descriptors {
        /// The command.
        command: Command,
        /// How many it should have.
        expected: usize,
        /// How many it has.
        found: usize,
    },
    /// A field of a reply does not agree with the command: which, what was expected (at least, if it is a size), what
    /// was found.
    Field {
        /// The command.
        command: Command,
        /// The field.
        field: &'static str,
        /// What should be there.
        expected: u64,
        /// What is there.
        found: u64,
    },
    /// The server speaks another version of the protocol.
    Version {
        /// Its major version.
        major: u16,
        /// Its minor version.
        minor: u16,
    },
    /// The server's capabilities are no JSON object, or have a value that cannot be: which.
    Capabilities(&'static str),
    /// The device is no NVM Express controller: its class code.
    NotNvme(u32),
    /// What the device says of itself cannot be: what, and the value.
    Device(&'static str, u64),
    /// A part of a region that could be mapped lies outside of it, or is not made of whole pages.
    Area {
        /// First byte.
        offset: u64,
        /// Bytes.
        size: u64,
        /// Bytes in the region.
        region: u64,
    },
    /// The file behind a part of a region ends before it.
    FileTooSmall {
        /// Bytes needed.
        needed: u64,
        /// Bytes there.
        found: u64,
    },
    /// There is no register of this width here.
    Outside {
        /// Its offset.
        offset: u32,
        /// Its bytes.
        width: u8,
    },
    /// More interrupt vectors than the device has.
    Vectors {
        /// Asked for.
        asked: u16,
        /// There are.
        found: u32,
    },
}

impl Error {
    pub(crate) fn system(what: &'static str, error: Errno) -> Self {
        Self::System(what, error.raw_os_error())
    }

    /// Whether nothing can be asked of the server after this.
    #[must_use]
    pub const fn ends_connection(&self) -> bool {
        match self {
            Self::Refused(..)
            | Self::Outside { .. }
            | Self::Vectors { .. }
            | Self::NotNvme(_)
            | Self::Device(..)
            | Self::Area { .. }
            | Self::FileTooSmall { .. } => false,
            Self::System(..)
            | Self::TimedOut(_)
            | Self::Closed
            | Self::ClosedInside { .. }
            | Self::GivenUp
            | Self::Size { .. }
            | Self::Identifier { .. }
            | Self::WrongCommand { .. }
            | Self::Flags(_)
            | Self::Descriptors { .. }
            | Self::Field { .. }
            | Self::Version { .. }
            | Self::Capabilities(_) => true,
        }
    }
}

impl std::error::Error for Error {}

fn system(errno: i32) -> std::io::Error {
    std::io::Error::from_raw_os_error(errno)
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::System(what, errno) => write!(f, "{what}: {}", system(errno)),
            Self::TimedOut(command) => write!(f, "no reply to {command} in time; is the server alive?"),
            Self::Closed => f.write_str("the server has closed the connection"),
            Self::ClosedInside { received, expected } => {
                write!(
                    f,
                    "the server has closed the connection after {received} of {expected} bytes of a message"
                )
            }
            Self::GivenUp => {
                f.write_str("the connection was given up after an earlier failure; connect again")
            }
            Self::Refused(command, 0) => write!(f, "the server refuses {command} without a reason"),
            Self::Refused(command, errno) => {
                write!(
                    f,
                    "the server refuses {command}: {}",
                    system(i32::try_from(errno).unwrap_or(i32::MAX))
                )
            }
            Self::Size { command, found, least, most } => {
                write!(f, "a reply to {command} of {found} bytes; possible are {least} to {most}")
            }
            Self::Identifier { expected, found } => {
                write!(f, "a reply to message {found:#x} where one to {expected:#x} is awaited")
            }
            Self::WrongCommand { expected, found } => {
                write!(f, "a reply to {found} where one to {expected} is awaited")
            }
            Self::Flags(flags) => write!(f, "a message with flags {flags:#x}, which no reply has"),
            Self::Descriptors { command, expected, found } => {
                write!(f, "a reply to {command} with {found} descriptors; it should have {expected}")
            }
            Self::Field { command, field, expected, found } => {
                write!(f, "a reply to {command} with {field} {found:#x}; {expected:#x} is expected")
            }
            Self::Version { major, minor } => {
                write!(f, "the server speaks version {major}.{minor}; this is a client of version 0.1")
            }
            Self::Capabilities(what) => write!(f, "the server's capabilities cannot be used: {what}"),
            Self::NotNvme(class) => {
                write!(
                    f,
                    "the device has class code {class:#08x}; an NVM Express controller has 0x010802 or 0x010803"
                )
            }
            Self::Device(what, value) => write!(f, "the device cannot be used: {what} ({value:#x})"),
            Self::Area { offset, size, region } => write!(
                f,
                "an area of {size:#x} bytes at {offset:#x} cannot be mapped: it must be whole pages inside the region \
                 of {region:#x} bytes"
            ),
            Self::FileTooSmall { needed, found } => {
                write!(f, "the file of a mapped area has {found:#x} bytes; {needed:#x} are needed")
            }
            Self::Outside { offset, width } => {
                write!(f, "there is no {width}-byte register at offset {offset:#x}")
            }
            Self::Vectors { asked, found } => {
                write!(f, "{asked} interrupt vectors asked for; the device has {found}")
            }
        }
    }
}

// SPDX-License-Identifier: MIT OR Apache-2.0
//! Why controllers could not be opened.

use std::fmt;
use std::io;
use std::path::PathBuf;

use nvme_core::wire::ControllerId;

use crate::address::Address;
use crate::embedded::StartError;
use crate::images::InputError;
use crate::{vfio, vfio_user};

/// Why a controller could not be opened, or not be reset as a function.
#[derive(Debug)]
pub enum OpenError {
    /// A PCI function.
    Vfio(vfio::Error),
    /// A controller behind a socket.
    VfioUser(vfio_user::Error),
    /// The controller behind this socket cannot be reached, or is none.
    Socket(PathBuf, vfio_user::Error),
    /// An embedded subsystem cannot run: its name and why.
    Embedded(String, StartError),
    /// The image of an embedded subsystem cannot be used.
    Image(InputError),
    /// Another program uses the image of an embedded subsystem.
    ImageInUse(PathBuf),
    /// One file is the image of two embedded subsystems.
    ImageTwice(PathBuf),
    /// Two images, sizes or block sizes for one embedded subsystem.
    TwiceConfigured(String),
    /// Options for an embedded subsystem that no address names.
    NotUsed(String),
    /// An embedded subsystem has no such controller.
    NoController(String, ControllerId),
    /// The same controller twice.
    Twice(Address),
    /// Memory could not be had.
    Memory(io::Error),
    /// The controller has no reset of its function.
    NoFunctionReset,
}

impl OpenError {
    /// Whether what was asked for makes no sense, whatever the system is like.
    #[must_use]
    pub const fn is_bad_request(&self) -> bool {
        matches!(
            self,
            Self::TwiceConfigured(_)
                | Self::NotUsed(_)
                | Self::NoController(..)
                | Self::Twice(_)
                | Self::Image(_)
                | Self::ImageInUse(_)
                | Self::ImageTwice(_)
        )
    }
}

impl fmt::Display for OpenError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Vfio(error) => error.fmt(f),
            Self::VfioUser(error) => error.fmt(f),
            Self::Socket(path, error) => write!(f, "vfio-user:{}: {error}", path.display()),
            Self::Embedded(name, error) => write!(f, "embedded subsystem {name}: {error}"),
            Self::Image(error) => error.fmt(f),
            Self::ImageInUse(path) => {
                write!(f, "image {} is in use by another program", path.display())
            }
            Self::ImageTwice(path) => write!(
                f,
                "image {} is the same file as that of another embedded subsystem; give each an image of its own",
                path.display()
            ),
            Self::TwiceConfigured(name) => {
                write!(f, "embedded subsystem {name} is described twice; give --embedded {name} once")
            }
            Self::NotUsed(name) => {
                write!(f, "no address names embedded subsystem {name}; leave its --embedded out, or name it")
            }
            Self::NoController(name, id) => {
                write!(f, "embedded subsystem {name} cannot have controller {}; use 1 to 65519", id.get())
            }
            Self::Twice(address) => write!(f, "{address} is named twice; name each controller once"),
            Self::Memory(error) => write!(f, "memory for the controller: {error}"),
            Self::NoFunctionReset => {
                f.write_str("the controller has no reset of its function; use a controller reset")
            }
        }
    }
}

impl std::error::Error for OpenError {}

impl From<vfio::Error> for OpenError {
    fn from(error: vfio::Error) -> Self {
        Self::Vfio(error)
    }
}

impl From<vfio_user::Error> for OpenError {
    fn from(error: vfio_user::Error) -> Self {
        Self::VfioUser(error)
    }
}

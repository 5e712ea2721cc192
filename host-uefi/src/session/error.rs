// SPDX-License-Identifier: MIT OR Apache-2.0
//! Why a controller could not be driven.

use core::fmt;

use nvme_core::admin::{CallError, SubmitError};
use nvme_core::controller::{EnableError, Fault};
use nvme_core::dma::DmaError;
use nvme_core::io::IoQueueError;
use nvme_core::wire::identify::NotAnnounced;
use nvme_core::wire::{NamespaceId, Status};

use crate::sys::PciStatus;

/// Why a controller could not be driven.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SessionError {
    /// It could not be enabled as asked.
    Enable(EnableError),
    /// It broke a rule, failed, is gone, or did not become ready or disabled in time.
    Fault(Fault),
    /// Its I/O queues are not possible.
    Queues(IoQueueError),
    /// It grants no I/O queues.
    NoQueues,
    /// An admin command did not succeed.
    Admin(&'static str, CallError),
    /// An I/O command was not submitted.
    Submit(&'static str, SubmitError),
    /// An I/O command ended with this status.
    Io(&'static str, Status),
    /// An I/O command did not complete in time.
    TimedOut(&'static str),
    /// A structure that the controller returned is not one.
    Malformed(&'static str),
    /// Memory for the driver could not be had.
    Memory(DmaError),
    /// Bus mastering of a controller that is migrated could not be changed.
    NoBusMastering(PciStatus),
    /// The controller does not announce what is needed.
    Unsupported(NotAnnounced),
    /// The memory is not that with which the controller was attached.
    OtherArena,
    /// The namespace is not active.
    NoNamespace(NamespaceId),
    /// The controller has, or says that it has, more namespaces than this.
    TooManyNamespaces(u32),
    /// What is to be written is not whole blocks: so many bytes, and bytes of a block.
    NotWhole(usize, u32),
    /// A namespace whose blocks this driver does not transfer: each has so many bytes of metadata.
    Metadata(u16),
}

impl core::error::Error for SessionError {}

impl fmt::Display for SessionError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            // An arena of the firmware's memory has as much as the firmware, and room for so many mappings as it was made with.
            Self::Enable(EnableError::Dma(DmaError::Exhausted { bytes, .. }))
            | Self::Queues(IoQueueError::Dma(DmaError::Exhausted { bytes, .. }))
            | Self::Memory(DmaError::Exhausted { bytes, .. }) => write!(
                f,
                "the firmware sets no {bytes} bytes of device memory aside, or maps them in more pieces than there is room \
                 for: end other programs, or lend the arena more slots"
            ),
            Self::Enable(error) => error.fmt(f),
            Self::Fault(fault) => fault.fmt(f),
            Self::Queues(error) => error.fmt(f),
            Self::NoQueues => {
                f.write_str("the controller grants no I/O queue pair: reset it, or use another one")
            }
            Self::Admin(what, error) => write!(f, "{what}: {error}"),
            Self::Submit(what, error) => write!(f, "{what} was not submitted: {error}"),
            Self::Io(what, status) => write!(f, "{what} completed with status {status}"),
            Self::TimedOut(what) => {
                write!(f, "{what} did not complete in time: reset the controller, or give it more time")
            }
            Self::Malformed(what) => {
                write!(
                    f,
                    "{what} returned by the controller is malformed: use another controller, or new firmware for it"
                )
            }
            Self::Memory(error) => write!(f, "no device memory: {error}"),
            Self::NoBusMastering(PciStatus::ACCESS_DENIED) => f.write_str(
                "a managing controller is needed itself and cannot be migrated: name the function of the controller that it \
                 manages",
            ),
            Self::NoBusMastering(status) => write!(
                f,
                "bus mastering of a controller that is migrated cannot be asked for or changed ({status}): name another \
                 function, or reset the machine"
            ),
            Self::Unsupported(error) => write!(f, "{error}; nothing was sent"),
            Self::OtherArena => {
                f.write_str("the memory is another than the controller was attached with: give that one")
            }
            Self::NoNamespace(id) => {
                write!(f, "namespace {} is not active: choose one that identify lists", id.get())
            }
            Self::TooManyNamespaces(most) => write!(
                f,
                "the controller says that it has more than {most} namespaces, and the others are not asked for: look at one \
                 by itself (read LBA COUNT --namespace ID)"
            ),
            Self::NotWhole(bytes, block) => {
                write!(f, "{bytes} bytes are not whole blocks of {block}: write a multiple")
            }
            Self::Metadata(bytes) => write!(
                f,
                "each block has {bytes} bytes of metadata, which this driver does not transfer: format the namespace without"
            ),
        }
    }
}

impl From<Fault> for SessionError {
    fn from(fault: Fault) -> Self {
        Self::Fault(fault)
    }
}

impl From<DmaError> for SessionError {
    fn from(error: DmaError) -> Self {
        Self::Memory(error)
    }
}

impl From<NotAnnounced> for SessionError {
    fn from(error: NotAnnounced) -> Self {
        Self::Unsupported(error)
    }
}

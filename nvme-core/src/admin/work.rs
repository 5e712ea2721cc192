// SPDX-License-Identifier: MIT OR Apache-2.0
//! What an admin queue keeps for each outstanding command.

use super::AdminHandle;
use crate::dma::DmaRegion;
use crate::queue::Slot;
use crate::wire::CompletionQueueEntry;

/// Room for one admin command; an array of them is lent when a controller is enabled.
pub type AdminSlot = Slot<AdminWork>;

/// The content of an [`AdminSlot`].
#[derive(Debug)]
pub struct AdminWork {
    pub(super) role: Role,
    pub(super) stage: Stage,
    /// The handle that names it; none for an event request.
    pub(super) handle: Option<AdminHandle>,
    /// The data, which the device may be using until the command is completed.
    pub(super) data: Option<DmaRegion>,
    /// Bytes of `data` that the command transfers.
    pub(super) len: usize,
    /// A time-out says nothing about the controller.
    pub(super) waits_for_others: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Role {
    /// A command somebody will take.
    Command,
    /// A command nobody is interested in any more.
    Abandoned,
    /// An Asynchronous Event Request.
    Event,
}

#[derive(Clone, Copy, Debug)]
pub(super) enum Stage {
    /// With the controller.
    Outstanding,
    /// With the controller; its time-out has to be told.
    TimedOut,
    /// With the controller; its owner has been told that it timed out or is lost.
    Told,
    /// The controller has let go of it without a completion.
    Lost,
    /// Completed.
    Completed(CompletionQueueEntry),
}

impl AdminWork {
    /// Whether `handle` names it and its owner still wants it.
    pub(super) fn is_claimed_by(&self, handle: AdminHandle) -> bool {
        self.role == Role::Command && self.handle == Some(handle)
    }

    /// Whether nobody will ask for it: it goes as soon as the device lets go of it.
    pub(super) const fn is_unclaimed(&self) -> bool {
        matches!(self.role, Role::Abandoned) || matches!(self.stage, Stage::Told)
    }
}

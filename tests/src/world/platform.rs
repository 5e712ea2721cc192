// SPDX-License-Identifier: MIT OR Apache-2.0
//! The switch of the guest: its registers, its processor, and which of its controllers may reach its memory.

use nvme_core::migration::Platform;
use nvme_core::wire::ControllerId;
use nvme_host_linux::backend::Confined;
use nvme_host_linux::embedded::DeviceMemory;
use nvme_host_linux::endpoint::{AccessError, Attachment, Endpoint};

use super::disk::Disk;

/// Why the switch could not be made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SwitchError {
    /// A controller's registers cannot be reached.
    Registers(AccessError),
    /// Both sides differ in this block although everything was copied.
    Unequal(usize),
}

impl From<AccessError> for SwitchError {
    fn from(error: AccessError) -> Self {
        Self::Registers(error)
    }
}

pub(super) struct Switch<'d, 's, R> {
    pub(super) endpoint: &'d Endpoint<R>,
    /// The guest's memory as its controller at the source and at the destination reaches it.
    pub(super) gates: [&'s DeviceMemory<'s>; 2],
    pub(super) disks: [Disk; 2],
    /// Compare both sides before the destination resumes, and refuse if they differ.
    pub(super) compares: bool,
    /// Take the source controller's access to memory away before the last look at it.
    pub(super) fences: bool,
    /// The guest's processor stands still.
    pub(super) stopped: bool,
    /// The first difference found at the switch.
    pub(super) unequal: Option<usize>,
}

impl<R: Confined<Error = AccessError>> Platform for Switch<'_, '_, R> {
    type Error = SwitchError;

    fn source_suspended(&mut self, _: ControllerId) -> Result<(), SwitchError> {
        self.endpoint.hold();
        Ok(())
    }

    fn fence_source(&mut self, _: ControllerId) -> Result<(), SwitchError> {
        self.gates[0].set_bus_master(!self.fences);
        Ok(())
    }

    fn unfence_source(&mut self, _: ControllerId) -> Result<(), SwitchError> {
        self.gates[0].set_bus_master(true);
        Ok(())
    }

    fn restore_properties(&mut self, _: ControllerId) -> Result<(), SwitchError> {
        Ok(self.endpoint.restore_properties()?)
    }

    fn before_resume(&mut self, _: ControllerId) -> Result<(), SwitchError> {
        self.stopped = true;
        let [source, destination] = &self.disks;
        self.unequal = source.first_difference(destination);
        if let (Some(block), true) = (self.unequal, self.compares) {
            return Err(SwitchError::Unequal(block));
        }
        self.gates[1].set_bus_master(true);
        Ok(())
    }

    fn destination_resumed(&mut self, _: ControllerId) -> Result<(), SwitchError> {
        let attached = self.endpoint.attach(Attachment::Destination);
        let disabled = self.endpoint.disable(Attachment::Source);
        self.stopped = false;
        Ok(attached.and(disabled)?)
    }

    fn destination_forgotten(&mut self, _: ControllerId) -> Result<(), SwitchError> {
        self.gates[1].set_bus_master(false);
        Ok(self.endpoint.disable(Attachment::Destination)?)
    }

    fn source_resumed(&mut self, _: ControllerId) -> Result<(), SwitchError> {
        let attached = self.endpoint.attach(Attachment::Source);
        self.stopped = false;
        Ok(attached?)
    }
}

// SPDX-License-Identifier: MIT OR Apache-2.0
//! Migration Send: Suspend, Resume and the way a new state arrives. NVMe Base 2.1 §5.1.17, Migration Send command.

use nvme_core::wire::migration::{MigrationSend, SequenceIndicator, SuspendKind};
use nvme_core::wire::{AdminOpcode, Command, ControllerId, InvalidField, StatusCode, SubmissionQueueEntry};

use super::{Received, Run};
use crate::host::{BlockStorage, HostMemory, Interrupts};
use crate::outcome::{Done, Outcome, Refusal, SUCCESS};
use crate::prp::DataPointer;
use crate::quirk::Quirks;
use crate::subsystem::Subsystem;
use nvme_core::wire::controller_state::ControllerStateHeader;

/// NVMe state versions that can be read and set: version 0, at index 1.
pub(crate) const STATE_VERSIONS: u8 = 1;

/// One part of a new state.
#[derive(Clone, Copy, Debug)]
struct Part {
    sequence: SequenceIndicator,
    version_index: u8,
    vendor_index: u8,
    offset: u64,
    bytes: u64,
}

impl<M: HostMemory, S: BlockStorage, I: Interrupts> Subsystem<'_, M, S, I> {
    /// Index of the migratable controller with identifier `id`. With the quirk that goes with it, any other controller
    /// is answered with `quirk`.
    pub(crate) fn migratable(&self, id: ControllerId, quirk: StatusCode) -> Result<usize, Refusal> {
        let found = self.index_of(id).filter(|index| {
            self.controllers.get(*index).is_some_and(|found| found.config.manager().is_none())
        });
        found.ok_or_else(|| {
            if self.config.quirks.contains(Quirks::INVALID_CONTROLLER_IS_INVALID_FIELD) {
                quirk.into()
            } else {
                StatusCode::INVALID_CONTROLLER_IDENTIFIER.into()
            }
        })
    }

    /// Vendor-specific state formats that can be read and set.
    pub(crate) fn vendor_formats(&self) -> u8 {
        u8::from(self.config.vendor_state_format && !self.config.quirks.contains(Quirks::FORMATS_FOUR_BYTES))
    }

    pub(crate) fn migration_send(&mut self, index: usize, entry: &SubmissionQueueEntry) -> Outcome {
        match MigrationSend::decode(entry)? {
            MigrationSend::Suspend { controller, kind, delete_queue, uuid_index } => {
                no_uuid(uuid_index)?;
                let target = self.migratable(controller, StatusCode::INVALID_FIELD)?;
                if kind == SuspendKind::Notification {
                    return SUCCESS;
                }
                self.suspend(index, target, delete_queue)
            }
            MigrationSend::Resume { controller, uuid_index } => {
                no_uuid(uuid_index)?;
                let target = self.migratable(controller, StatusCode::INVALID_FIELD)?;
                self.resume(target)
            }
            MigrationSend::SetControllerState {
                controller,
                sequence,
                version_index,
                vendor_index,
                offset,
                dwords,
                uuid_index,
            } => {
                no_uuid(uuid_index)?;
                let target = self.migratable(controller, StatusCode::INVALID_FIELD)?;
                let bytes = u64::from(dwords).saturating_mul(4);
                let part = Part { sequence, version_index, vendor_index, offset, bytes };
                self.take_state(index, target, entry, &part)
            }
        }
    }

    /// Goes on with an admin command that waits: only Suspend does.
    pub(crate) fn continue_admin(&mut self, entry: &SubmissionQueueEntry) -> Outcome {
        if AdminOpcode::new(entry.opcode()) != AdminOpcode::MIGRATION_SEND {
            return Err(StatusCode::INTERNAL_ERROR.into());
        }
        match MigrationSend::decode(entry)? {
            MigrationSend::Suspend { controller, delete_queue, .. } => {
                let target = self.migratable(controller, StatusCode::INVALID_FIELD)?;
                match self.controllers.get(target).map(|target| target.target.run) {
                    Some(Run::Suspending) => Ok(Done::Waiting),
                    Some(Run::Suspended) => self.suspended(target, delete_queue),
                    // A reset of the target ended the suspend before it was complete.
                    _ => Err(StatusCode::CONTROLLER_NOT_SUSPENDED.into()),
                }
            }
            _ => Err(StatusCode::INTERNAL_ERROR.into()),
        }
    }

    /// NVMe Base 2.1 §5.1.17.1.1, Suspend.
    fn suspend(&mut self, index: usize, target: usize, delete_queue: bool) -> Outcome {
        let controller = self.controllers.get_mut(target).ok_or(StatusCode::INTERNAL_ERROR)?;
        controller.target.suspended_by = Some(index);
        match controller.target.run {
            Run::Running => {
                controller.target.run = Run::Suspending;
                controller.target.received = Received::None;
            }
            Run::Suspending => return Ok(Done::Waiting),
            Run::Suspended => return self.suspended(target, delete_queue),
        }
        if controller.commands.is_empty() {
            controller.signal(&self.interrupts);
            controller.target.run = Run::Suspended;
            return self.suspended(target, delete_queue);
        }
        Ok(Done::Waiting)
    }

    /// The target is suspended, nothing of it is under way any more: closes its log and completes the Suspend.
    fn suspended(&mut self, target: usize, delete_queue: bool) -> Outcome {
        if delete_queue {
            self.pause_log(target);
            if let Some(slot) = self.data_queue_of(target) {
                self.delete_data_queue(slot);
            }
        } else if self.config.marker_after_completion {
            if let Some(controller) = self.controllers.get_mut(target) {
                controller.target.marker_due = true;
            }
        } else {
            self.pause_log(target);
        }
        SUCCESS
    }

    /// NVMe Base 2.1 §5.1.17.1.2, Resume.
    fn resume(&mut self, target: usize) -> Outcome {
        let controller = self.controllers.get(target).ok_or(StatusCode::INTERNAL_ERROR)?;
        if controller.target.run != Run::Suspended {
            return Err(StatusCode::CONTROLLER_NOT_SUSPENDED.into());
        }
        if matches!(controller.target.received, Received::Partial { .. } | Received::Failed) {
            return Err(StatusCode::COMMAND_SEQUENCE_ERROR.into());
        }
        self.release(target);
        SUCCESS
    }

    /// Posts the suspended marker that was put off until after the completion of the Suspend.
    pub(crate) fn settle_marker(&mut self, target: usize) -> bool {
        let Some(controller) = self.controllers.get_mut(target) else { return false };
        let due = core::mem::take(&mut controller.target.marker_due);
        if due {
            self.pause_log(target);
        }
        due
    }

    /// NVMe Base 2.1 §5.1.17.1.3, Set Controller State: collects a part, and with the last one verifies and commits.
    /// Whatever fails drops what has arrived: the host sends the whole state again.
    fn take_state(
        &mut self,
        index: usize,
        target: usize,
        entry: &SubmissionQueueEntry,
        part: &Part,
    ) -> Outcome {
        let begun = self.controllers.get(target).ok_or(StatusCode::INTERNAL_ERROR)?.target.received;
        let result = self.check_part(target, part);
        // A part that is refused here is not received: only a sequence that was under way ends with it.
        let begins = result.is_ok() && part.sequence.begins();
        let result = result
            .and_then(|()| self.collect(index, target, entry, part, begun))
            .and_then(|bytes| self.take_parts(index, target, part, bytes));
        let foreign = matches!(begun, Received::Partial { sender, .. } if sender != index) && !begins;
        let received = match result {
            // What another manager sends in between is refused, and the sequence goes on.
            Err(_) if foreign => begun,
            Ok(received) => received,
            Err(_) if begins || matches!(begun, Received::Partial { .. }) => Received::Failed,
            Err(_) => begun,
        };
        if let Some(controller) = self.controllers.get_mut(target) {
            controller.target.received = received;
        }
        result?;
        SUCCESS
    }

    /// `bytes` bytes have arrived: commits them if the part was the last.
    fn take_parts(
        &mut self,
        sender: usize,
        target: usize,
        part: &Part,
        bytes: usize,
    ) -> Result<Received, Refusal> {
        let Part { version_index, vendor_index, .. } = *part;
        if !part.sequence.commits() {
            return Ok(Received::Partial { bytes, version_index, vendor_index, sender });
        }
        self.commit_state(target, bytes, version_index, vendor_index)?;
        Ok(Received::Committed)
    }

    /// Checks the indices of a part, and that the target can take a state.
    fn check_part(&self, target: usize, part: &Part) -> Result<(), Refusal> {
        if part.sequence != SequenceIndicator::Only
            && self.config.quirks.contains(Quirks::STATE_IN_ONE_COMMAND)
        {
            return Err(StatusCode::INTERNAL_ERROR.into());
        }
        if part.version_index > STATE_VERSIONS {
            return Err(InvalidField::in_dword("CSVI", 11, 16, u64::from(part.version_index)).into());
        }
        if part.vendor_index > self.vendor_formats() {
            return Err(InvalidField::in_dword("CSUUIDI", 11, 24, u64::from(part.vendor_index)).into());
        }
        let receiver = self.controllers.get(target).ok_or(StatusCode::INTERNAL_ERROR)?;
        // Without a vendor part nothing can enable the target, so its host must have done that.
        let fit = receiver.target.run == Run::Suspended
            && receiver.is_online()
            && (part.vendor_index != 0 || (receiver.registers.ready && !receiver.registers.fatal));
        if !fit {
            return Err(StatusCode::INVALID_CONTROLLER_IDENTIFIER.into());
        }
        if receiver.has_io_queues() {
            return Err(StatusCode::INVALID_FIELD.into());
        }
        Ok(())
    }

    /// Checks a part and copies it behind what has arrived; returns how many bytes there are now.
    fn collect(
        &mut self,
        index: usize,
        target: usize,
        entry: &SubmissionQueueEntry,
        part: &Part,
        begun: Received,
    ) -> Result<usize, Refusal> {
        let before = match begun {
            _ if part.sequence.begins() => 0,
            Received::Partial { sender, .. } if sender != index => {
                return Err(StatusCode::COMMAND_SEQUENCE_ERROR.into());
            }
            Received::Partial { bytes, version_index, vendor_index, .. } => {
                if (version_index, vendor_index) != (part.version_index, part.vendor_index) {
                    return Err(InvalidField::in_dword("CSVI", 11, 16, u64::from(part.version_index)).into());
                }
                bytes
            }
            Received::None | Received::Failed | Received::Committed => {
                return Err(StatusCode::COMMAND_SEQUENCE_ERROR.into());
            }
        };
        let offset = InvalidField::in_dword("CSO", 12, 0, part.offset);
        let from = usize::try_from(part.offset).map_err(|_| offset)?;
        if from > before {
            return Err(offset.into());
        }
        if part.bytes > self.max_transfer() {
            return Err(InvalidField::in_dword("NUMD", 15, 0, part.bytes / 4).into());
        }
        let len = usize::try_from(part.bytes).map_err(|_| StatusCode::NOT_ENOUGH_RESOURCES)?;
        let end = from.saturating_add(len);
        let page_shift =
            self.controllers.get(index).ok_or(StatusCode::INTERNAL_ERROR)?.registers.page_shift();
        let mut pointer = DataPointer::new(entry, part.bytes, page_shift)?;
        // The sender's memory and the receiver's staging area belong to two controllers.
        let [sender, receiver] = self
            .controllers
            .get_disjoint_mut([index, target])
            .map_err(|_| StatusCode::INVALID_CONTROLLER_IDENTIFIER)?;
        let staging = receiver.target.staging.get_mut(from..end).ok_or(StatusCode::NOT_ENOUGH_RESOURCES)?;
        pointer.read(&mut sender.dma, staging)?;
        let received = before.max(end);
        let limit = receiver.target.staging.len();
        if let Some(head) = receiver.target.staging.get(..received.min(ControllerStateHeader::BYTES))
            && head.len() == ControllerStateHeader::BYTES
        {
            let sizes = ControllerStateHeader::parse(head).and_then(|header| header.sizes(limit));
            let sizes = sizes.map_err(|error| error.status())?;
            if received > sizes.total {
                return Err(offset.into());
            }
        }
        Ok(received)
    }
}

fn no_uuid(uuid_index: u8) -> Result<(), InvalidField> {
    match uuid_index {
        0 => Ok(()),
        other => Err(InvalidField::in_dword("UIDX", 14, 0, u64::from(other))),
    }
}

// SPDX-License-Identifier: MIT OR Apache-2.0
//! Get Log Page. NVMe Base 2.1 §5.1.12, Get Log Page command.

use nvme_core::wire::admin::GetLogPage;
use nvme_core::wire::log::{
    ChangedNamespaceList, CommandEffects, CommandsSupportedAndEffects, ErrorInformation,
    ErrorInformationEntry, FirmwareSlotInformation, LogPageId, ParameterLocation, SmartHealthInformation,
    SmartHealthInformationData,
};
use nvme_core::wire::{
    AdminOpcode, Command, EventType, InvalidField, IoOpcode, Lba, NamespaceId, QueueId, StatusCode,
    SubmissionQueueEntry,
};
use zerocopy::{FromZeros, IntoBytes};

use crate::controller::Controller;
use crate::error_log::ErrorEntry;
use crate::features::TEMPERATURE_THRESHOLD;
use crate::host::{BlockStorage, HostMemory, Interrupts};
use crate::nvm::supports_io;
use crate::outcome::{Outcome, SUCCESS};
use crate::prp::DataPointer;
use crate::subsystem::Subsystem;

const ERROR_BYTES: u64 = size_of::<ErrorInformationEntry>() as u64;

impl<M: HostMemory, S: BlockStorage, I: Interrupts> Subsystem<'_, M, S, I> {
    pub(super) fn get_log_page(&mut self, index: usize, entry: &SubmissionQueueEntry) -> Outcome {
        let command = GetLogPage::decode(entry)?;
        let (kind, total) = match command.page {
            LogPageId::ERROR_INFORMATION => {
                let controller = self.controllers.get(index).ok_or(StatusCode::INTERNAL_ERROR)?;
                let entries = controller.errors.capacity() as u64;
                (Some(EventType::ERROR), entries.saturating_mul(ERROR_BYTES))
            }
            LogPageId::SMART_HEALTH_INFORMATION => (Some(EventType::HEALTH), 512),
            LogPageId::FIRMWARE_SLOT_INFORMATION => (Some(EventType::NOTICE), 512),
            LogPageId::CHANGED_ATTACHED_NAMESPACE_LIST => (Some(EventType::NOTICE), 4096),
            LogPageId::COMMANDS_SUPPORTED_AND_EFFECTS => (None, 4096),
            _ => return Err(StatusCode::INVALID_LOG_PAGE.into()),
        };
        if !matches!(command.namespace, NamespaceId::NONE | NamespaceId::ALL) {
            return Err(InvalidField::in_dword("NSID", 1, 0, u64::from(command.namespace.get())).into());
        }
        if command.offset_is_index {
            return Err(InvalidField::in_dword("OT", 14, 23, 1).into());
        }
        if command.command_set != 0 {
            return Err(InvalidField::in_dword("CSI", 14, 24, u64::from(command.command_set)).into());
        }
        if command.offset > total {
            return Err(InvalidField::in_dword("LPO", 12, 0, command.offset).into());
        }
        if command.bytes() > self.max_transfer() {
            return Err(StatusCode::INVALID_FIELD.into());
        }
        // What is asked for beyond the end of the page is undefined; nothing is transferred there.
        let len = command.bytes().min(total.saturating_sub(command.offset));
        if command.page == LogPageId::ERROR_INFORMATION {
            self.send_errors(index, entry, command.bytes(), command.offset, len)?;
        } else {
            self.build_page(index, command.page)?;
            self.send_scratch(index, entry, command.bytes(), command.offset, len)?;
        }
        if let (Some(kind), false) = (kind, command.retain_event) {
            let controller = self.controllers.get_mut(index).ok_or(StatusCode::INTERNAL_ERROR)?;
            controller.events.page_read(kind, command.page.get());
            controller.attention = true;
        }
        SUCCESS
    }

    /// Sends `len` bytes of the scratch memory from `offset` on. What PRP2 means depends on the `asked` bytes that the
    /// command speaks of, even if fewer are sent.
    pub(crate) fn send_scratch(
        &mut self,
        index: usize,
        entry: &SubmissionQueueEntry,
        asked: u64,
        offset: u64,
        len: u64,
    ) -> Result<(), StatusCode> {
        let controller = self.controllers.get_mut(index).ok_or(StatusCode::INTERNAL_ERROR)?;
        let mut pointer = DataPointer::new(entry, asked, controller.registers.page_shift())?;
        let start = usize::try_from(offset).map_err(|_| StatusCode::INVALID_FIELD)?;
        let end = usize::try_from(offset.saturating_add(len)).map_err(|_| StatusCode::INVALID_FIELD)?;
        let bytes = self.scratch.get(start..end).ok_or(StatusCode::INTERNAL_ERROR)?;
        pointer.write(&mut controller.dma, bytes)
    }

    /// Puts a page of at most 4,096 bytes at the start of the scratch memory.
    fn build_page(&mut self, index: usize, page: LogPageId) -> Result<(), StatusCode> {
        let mut effects = CommandsSupportedAndEffects::new_zeroed();
        if page == LogPageId::COMMANDS_SUPPORTED_AND_EFFECTS {
            self.fill_effects(index, &mut effects);
        }
        let controller = self.controllers.get(index).ok_or(StatusCode::INTERNAL_ERROR)?;
        let health;
        let firmware;
        let changed;
        let bytes = match page {
            LogPageId::SMART_HEALTH_INFORMATION => {
                health = SmartHealthInformationData::from(&controller.health());
                health.as_bytes()
            }
            LogPageId::FIRMWARE_SLOT_INFORMATION => {
                let mut revision = [b' '; 8];
                for (to, from) in revision.iter_mut().zip(self.config.firmware_revision.bytes()) {
                    *to = from;
                }
                firmware = FirmwareSlotInformation::new(1, 0).with_revision(1, revision);
                firmware.as_bytes()
            }
            LogPageId::CHANGED_ATTACHED_NAMESPACE_LIST => {
                // Namespaces are the same for the whole life of the subsystem.
                changed = ChangedNamespaceList::new([]);
                changed.as_bytes()
            }
            _ => effects.as_bytes(),
        };
        let to = self.scratch.get_mut(..bytes.len()).ok_or(StatusCode::INTERNAL_ERROR)?;
        to.copy_from_slice(bytes);
        Ok(())
    }

    fn fill_effects(&self, index: usize, effects: &mut CommandsSupportedAndEffects) {
        for opcode in 0..=u8::MAX {
            let admin = AdminOpcode::new(opcode);
            if self.supports_admin(index, admin) {
                effects.set_admin(admin, CommandEffects::SUPPORTED);
            }
            let io = IoOpcode::new(opcode);
            if supports_io(io) {
                let changes = matches!(
                    io,
                    IoOpcode::WRITE
                        | IoOpcode::WRITE_UNCORRECTABLE
                        | IoOpcode::WRITE_ZEROES
                        | IoOpcode::DATASET_MANAGEMENT
                        | IoOpcode::COPY
                );
                let change = if changes { CommandEffects::CONTENT_CHANGE } else { CommandEffects::empty() };
                effects.set_io(io, CommandEffects::SUPPORTED | change);
            }
        }
    }

    /// Sends part of the Error Information page, entry by entry: it may be longer than the scratch memory.
    fn send_errors(
        &mut self,
        index: usize,
        entry: &SubmissionQueueEntry,
        asked: u64,
        offset: u64,
        len: u64,
    ) -> Result<(), StatusCode> {
        let controller = self.controllers.get_mut(index).ok_or(StatusCode::INTERNAL_ERROR)?;
        let mut pointer = DataPointer::new(entry, asked, controller.registers.page_shift())?;
        let end = offset.saturating_add(len);
        let mut at = offset;
        while at < end {
            let age = usize::try_from(at / ERROR_BYTES).unwrap_or(usize::MAX);
            let skip = usize::try_from(at % ERROR_BYTES).unwrap_or(0);
            let information = controller
                .errors
                .get(age)
                .map_or_else(ErrorInformationEntry::default, |error| information(&error).into());
            let left = usize::try_from(end.saturating_sub(at)).unwrap_or(usize::MAX);
            let rest = information.as_bytes().get(skip..).ok_or(StatusCode::INTERNAL_ERROR)?;
            let piece = rest.get(..left.min(rest.len())).ok_or(StatusCode::INTERNAL_ERROR)?;
            pointer.write(&mut controller.dma, piece)?;
            at = at.saturating_add(piece.len() as u64);
        }
        Ok(())
    }
}

fn information(error: &ErrorEntry) -> ErrorInformation {
    let [byte, bit] = error.location.to_le_bytes();
    ErrorInformation {
        count: error.count,
        queue: Some(QueueId::new(error.queue)),
        command: Some(error.command),
        status: error.status,
        phase: false,
        location: (error.location != 0xFFFF).then_some(ParameterLocation { byte, bit: bit & 7 }),
        lba: Lba::new(error.lba),
        namespace: error.namespace,
        vendor_log: 0,
        transport: 0,
        command_set: 0,
        opcode: error.opcode,
        command_specific: 0,
    }
}

impl<M> Controller<'_, M> {
    fn health(&self) -> SmartHealthInformation {
        let units = |bytes: u128| bytes.div_ceil(512_000);
        let statistics = &self.statistics;
        SmartHealthInformation {
            // Comfortably below the default threshold.
            temperature: u16::try_from(TEMPERATURE_THRESHOLD.saturating_sub(40)).unwrap_or(0),
            available_spare: 100,
            spare_threshold: 10,
            data_units_read: units(statistics.bytes_read),
            data_units_written: units(statistics.bytes_written),
            host_reads: statistics.reads,
            host_writes: statistics.writes,
            media_errors: statistics.media_errors,
            error_entries: u128::from(self.errors.count()),
            power_cycles: 1,
            ..SmartHealthInformation::default()
        }
    }
}

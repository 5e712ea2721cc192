// SPDX-License-Identifier: MIT OR Apache-2.0
//! Set Features and Get Features. NVMe Base 2.1 §5.1.25 and §5.1.11.

use nvme_core::wire::admin::{FeatureSelect, GetFeatures, SetFeatures};
use nvme_core::wire::feature::{
    ControllerDataQueueFeature, ControllerDataQueueFeatureData, FeatureCapabilities, FeatureId,
    HostBehaviorSupportData, NumberOfQueues,
};
use nvme_core::wire::{Command, InvalidField, NamespaceId, StatusCode, SubmissionQueueEntry};
use zerocopy::{FromZeros, IntoBytes};

use crate::features::{Features, HOST_BEHAVIOR_BYTES};
use crate::host::{BlockStorage, HostMemory, Interrupts};
use crate::outcome::{Done, Outcome, Refusal, SUCCESS};
use crate::prp::DataPointer;
use crate::quirk::Quirks;
use crate::subsystem::Subsystem;

impl<M: HostMemory, S: BlockStorage, I: Interrupts> Subsystem<'_, M, S, I> {
    /// What a feature supports; `None` for a feature this controller does not have.
    pub(super) fn feature_capabilities(
        &self,
        index: usize,
        feature: FeatureId,
    ) -> Option<FeatureCapabilities> {
        let manager = self.controllers.get(index)?.config.manager();
        let has = match feature {
            FeatureId::INTERRUPT_VECTOR_CONFIGURATION => return Some(FeatureCapabilities::empty()),
            FeatureId::ARBITRATION
            | FeatureId::POWER_MANAGEMENT
            | FeatureId::TEMPERATURE_THRESHOLD
            | FeatureId::NUMBER_OF_QUEUES
            | FeatureId::INTERRUPT_COALESCING
            | FeatureId::ASYNCHRONOUS_EVENT_CONFIGURATION
            | FeatureId::HOST_BEHAVIOR_SUPPORT
            | FeatureId::IO_COMMAND_SET_PROFILE => true,
            FeatureId::VOLATILE_WRITE_CACHE => self.config.volatile_write_cache,
            FeatureId::KEEP_ALIVE_TIMER => self.config.keep_alive_granularity > 0,
            FeatureId::CONTROLLER_DATA_QUEUE => manager.is_some_and(|limits| limits.track_user_data),
            _ => false,
        };
        has.then_some(FeatureCapabilities::CHANGEABLE)
    }

    pub(super) fn set_features(&mut self, index: usize, entry: &SubmissionQueueEntry) -> Outcome {
        let command = SetFeatures::decode(entry)?;
        let capabilities = self
            .feature_capabilities(index, command.feature)
            .ok_or(InvalidField::in_dword("FID", 10, 0, u64::from(command.feature.get())))?;
        command.require_not_saved()?;
        if command.namespace != NamespaceId::ALL {
            command.require_no_namespace()?;
        }
        if !capabilities.contains(FeatureCapabilities::CHANGEABLE) {
            return Err(StatusCode::FEATURE_NOT_CHANGEABLE.into());
        }
        match command.feature {
            FeatureId::NUMBER_OF_QUEUES => return self.set_number_of_queues(index, &command),
            FeatureId::CONTROLLER_DATA_QUEUE => {
                let feature = ControllerDataQueueFeature::from_set_features(&command)?;
                self.set_data_queue(index, feature.queue, feature.head, feature.tail_trigger)?;
                return SUCCESS;
            }
            FeatureId::HOST_BEHAVIOR_SUPPORT => return self.set_host_behavior(index, entry),
            FeatureId::IO_COMMAND_SET_PROFILE => {
                // There is one combination: the NVM command set alone.
                return if command.dword11 & 0x1FF == 0 {
                    SUCCESS
                } else {
                    Err(StatusCode::IO_COMMAND_SET_COMBINATION_REJECTED.into())
                };
            }
            _ => {}
        }
        let controller = self.controllers.get_mut(index).ok_or(StatusCode::INTERNAL_ERROR)?;
        let features = &mut controller.features;
        match command.feature {
            FeatureId::ARBITRATION => features.arbitration = command.dword11,
            FeatureId::POWER_MANAGEMENT => {
                let state = command.dword11 & 0x1F;
                if state != 0 {
                    return Err(InvalidField::in_dword("PS", 11, 0, u64::from(state)).into());
                }
                features.power = command.dword11 & 0xFF;
            }
            FeatureId::TEMPERATURE_THRESHOLD => {
                let (value, kind) = threshold(command.dword11, true)?;
                *threshold_of(features, kind) = value;
            }
            FeatureId::VOLATILE_WRITE_CACHE => features.write_cache = command.dword11 & 1 != 0,
            FeatureId::INTERRUPT_COALESCING => features.coalescing = command.dword11 & 0xFFFF,
            FeatureId::ASYNCHRONOUS_EVENT_CONFIGURATION => features.events = command.dword11,
            FeatureId::KEEP_ALIVE_TIMER => {
                features.keep_alive = command.dword11;
                self.restart_keep_alive(index);
            }
            _ => return Err(StatusCode::INVALID_FIELD.into()),
        }
        SUCCESS
    }

    /// NVMe Base 2.1 §5.1.25.2.1: once after a reset, before the first I/O queue.
    fn set_number_of_queues(&mut self, index: usize, command: &SetFeatures) -> Outcome {
        let asked = NumberOfQueues::from_dword(command.dword11)?;
        let controller = self.controllers.get_mut(index).ok_or(StatusCode::INTERNAL_ERROR)?;
        if controller.features.queues.is_some() || controller.has_io_queues() {
            return Err(StatusCode::COMMAND_SEQUENCE_ERROR.into());
        }
        let max = controller.max_io_queues();
        let granted = asked.granted(NumberOfQueues { submission: max, completion: max }).dword();
        controller.features.queues = Some(granted);
        Ok(Done::Result(granted, 0))
    }

    fn set_host_behavior(&mut self, index: usize, entry: &SubmissionQueueEntry) -> Outcome {
        let controller = self.controllers.get_mut(index).ok_or(StatusCode::INTERNAL_ERROR)?;
        let mut data = HostBehaviorSupportData::new_zeroed();
        DataPointer::new(entry, 512, controller.registers.page_shift())?
            .read(&mut controller.dma, data.as_mut_bytes())?;
        let kept = data.as_bytes().first_chunk::<HOST_BEHAVIOR_BYTES>().ok_or(StatusCode::INTERNAL_ERROR)?;
        if kept.iter().any(|byte| *byte > 1) {
            return Err(StatusCode::INVALID_FIELD.into());
        }
        controller.features.host_behavior = *kept;
        SUCCESS
    }

    pub(super) fn get_features(&mut self, index: usize, entry: &SubmissionQueueEntry) -> Outcome {
        let command = GetFeatures::decode(entry)?;
        let capabilities = self
            .feature_capabilities(index, command.feature)
            .ok_or(InvalidField::in_dword("FID", 10, 0, u64::from(command.feature.get())))?;
        if command.select == FeatureSelect::SupportedCapabilities {
            return Ok(Done::Result(capabilities.bits(), 0));
        }
        if !matches!(command.namespace, NamespaceId::NONE | NamespaceId::ALL) {
            return Err(InvalidField::in_dword("NSID", 1, 0, u64::from(command.namespace.get())).into());
        }
        let defaults = Features::reset(self.config.volatile_write_cache);
        if command.feature == FeatureId::CONTROLLER_DATA_QUEUE {
            return self.get_data_queue_feature(index, entry, &command);
        }
        let controller = self.controllers.get_mut(index).ok_or(StatusCode::INTERNAL_ERROR)?;
        // Nothing can be saved, so the saved value is the default.
        let mut features =
            if command.select == FeatureSelect::Current { controller.features } else { defaults };
        let max = controller.max_io_queues();
        let value = match command.feature {
            FeatureId::ARBITRATION => features.arbitration,
            FeatureId::POWER_MANAGEMENT => features.power,
            FeatureId::TEMPERATURE_THRESHOLD => {
                let (_, kind) = threshold(command.dword11, false)?;
                u32::from(*threshold_of(&mut features, kind))
            }
            FeatureId::VOLATILE_WRITE_CACHE => u32::from(features.write_cache),
            FeatureId::NUMBER_OF_QUEUES => {
                features.queues.unwrap_or_else(|| NumberOfQueues { submission: max, completion: max }.dword())
            }
            FeatureId::INTERRUPT_COALESCING => features.coalescing,
            FeatureId::INTERRUPT_VECTOR_CONFIGURATION => {
                let vector = command.dword11 & 0xFFFF;
                if vector >= u32::from(controller.vectors()) {
                    return Err(InvalidField::in_dword("IV", 11, 0, u64::from(vector)).into());
                }
                // Coalescing is disabled for every vector.
                vector | (1 << 16)
            }
            FeatureId::ASYNCHRONOUS_EVENT_CONFIGURATION => features.events,
            FeatureId::KEEP_ALIVE_TIMER => features.keep_alive,
            FeatureId::IO_COMMAND_SET_PROFILE => 0,
            FeatureId::HOST_BEHAVIOR_SUPPORT => {
                let mut data = [0; 512];
                if let Some(kept) = data.first_chunk_mut::<HOST_BEHAVIOR_BYTES>() {
                    *kept = features.host_behavior;
                }
                DataPointer::new(entry, 512, controller.registers.page_shift())?
                    .write(&mut controller.dma, &data)?;
                0
            }
            _ => return Err(StatusCode::INVALID_FIELD.into()),
        };
        Ok(Done::Result(value, 0))
    }

    fn get_data_queue_feature(
        &mut self,
        index: usize,
        entry: &SubmissionQueueEntry,
        command: &GetFeatures,
    ) -> Outcome {
        let queue = ControllerDataQueueFeature::queue_of_get(command)?;
        let (head, tail_trigger) = self.get_data_queue(index, queue)?;
        let feature = match command.select {
            FeatureSelect::Current => ControllerDataQueueFeature { queue, head, tail_trigger },
            _ => ControllerDataQueueFeature { queue, head: 0, tail_trigger: None },
        };
        let data = ControllerDataQueueFeatureData::from(feature);
        let short = self.config.quirks.contains(Quirks::CDQ_FEATURE_EIGHT_BYTES);
        let bytes = data.as_bytes().get(..if short { 8 } else { 512 }).ok_or(StatusCode::INTERNAL_ERROR)?;
        let controller = self.controllers.get_mut(index).ok_or(StatusCode::INTERNAL_ERROR)?;
        DataPointer::new(entry, bytes.len() as u64, controller.registers.page_shift())?
            .write(&mut controller.dma, bytes)?;
        Ok(Done::Result(feature.result(), 0))
    }
}

/// Which of the two thresholds of the composite temperature.
#[derive(Clone, Copy)]
enum Threshold {
    Over,
    Under,
}

fn threshold(dword: u32, set: bool) -> Result<(u16, Threshold), Refusal> {
    let sensor = (dword >> 16) & 0xF;
    if sensor != 0 && !(set && sensor == 0xF) {
        return Err(InvalidField::in_dword("TMPSEL", 11, 16, u64::from(sensor)).into());
    }
    #[allow(clippy::cast_possible_truncation, reason = "the low 16 bits are the threshold")]
    let value = dword as u16;
    match (dword >> 20) & 3 {
        0 => Ok((value, Threshold::Over)),
        1 => Ok((value, Threshold::Under)),
        other => Err(InvalidField::in_dword("THSEL", 11, 20, u64::from(other)).into()),
    }
}

const fn threshold_of(features: &mut Features, kind: Threshold) -> &mut u16 {
    match kind {
        Threshold::Over => &mut features.over_temperature,
        Threshold::Under => &mut features.under_temperature,
    }
}

// SPDX-License-Identifier: MIT OR Apache-2.0
//! Identify. NVMe Base 2.1 §5.1.13, Identify command.

use nvme_core::wire::admin::{Identify, IdentifyStructure};
use nvme_core::wire::identify::{
    CommandSetCombination, CommandSetCombinations, ControllerIdentity, ControllerList, IdentifyPage,
    IndependentNamespaceIdentity, MigrationLimits, NamespaceDescriptor, NamespaceDescriptors,
    NamespaceIdentity, NamespaceList, NvmControllerIdentity, NvmNamespaceIdentity, OptionalAdminCommands,
    OptionalNvmCommands, PAGE_BYTES, PrimaryControllerCapabilities, SecondaryController,
    SecondaryControllers, SubsystemName, SupportedControllerStateFormats, Text, TrackingAttributes,
    VirtualResources,
};
use nvme_core::wire::register::Version;
use nvme_core::wire::{Command, InvalidField, NamespaceId, StatusCode, SubmissionQueueEntry};

use crate::config::ManagerConfig;
use crate::host::{BlockStorage, HostMemory, Interrupts};
use crate::namespace::Namespace;
use crate::nvm::COPY_RANGES;
use crate::outcome::{Outcome, Refusal, SUCCESS};
use crate::quirk::Quirks;
use crate::state_format::FORMAT_UUID;
use crate::subsystem::Subsystem;

/// Namespaces and lists are shared by several controllers (CMIC bit 1).
const SEVERAL_CONTROLLERS: u8 = 1 << 1;
/// Effects log and offsets in log pages (LPA bits 1 and 2).
const LOG_PAGE_ATTRIBUTES: u8 = 0x06;
/// One firmware slot, read-only (FRMW).
const FIRMWARE_UPDATES: u8 = 0x03;
/// Compare and Write (FUSES bit 0).
const COMPARE_AND_WRITE: u16 = 1;
/// Flush of all namespaces is supported (VWC bits 2:1).
const FLUSH_ALL: u8 = 3;
/// Copy descriptor format 0 (OCFS bit 0).
const COPY_FORMAT_0: u16 = 1;
/// Deallocated blocks read as zeroes, and Write Zeroes may deallocate (DLFEAT).
const DEALLOCATE_FEATURES: u8 = 0x09;

impl<M: HostMemory, S: BlockStorage, I: Interrupts> Subsystem<'_, M, S, I> {
    pub(super) fn identify(&mut self, index: usize, entry: &SubmissionQueueEntry) -> Outcome {
        let command = Identify::decode(entry)?;
        let mut page = [0; PAGE_BYTES];
        let mut len = PAGE_BYTES;
        match command.structure {
            IdentifyStructure::CONTROLLER => self.controller_identity(index)?.build(&mut page),
            IdentifyStructure::SUPPORTED_CONTROLLER_STATE_FORMATS => {
                len = self.state_formats(index, &mut page)?;
            }
            IdentifyStructure::PRIMARY_CONTROLLER_CAPABILITIES
            | IdentifyStructure::SECONDARY_CONTROLLER_LIST
                if !self.is_primary(index) =>
            {
                return Err(unsupported(&command));
            }
            IdentifyStructure::PRIMARY_CONTROLLER_CAPABILITIES => {
                self.primary_capabilities(index)?.build(&mut page);
            }
            IdentifyStructure::SECONDARY_CONTROLLER_LIST => {
                self.secondary_list(index, &command, &mut page)?
            }
            IdentifyStructure::COMMAND_SETS => {
                let named = command.controller.get();
                if named != 0xFFFF && self.index_of(command.controller).is_none() {
                    return Err(InvalidField::in_dword("CNTID", 10, 16, u64::from(named)).into());
                }
                CommandSetCombinations::build(&mut page, &[CommandSetCombination::NVM]);
            }
            IdentifyStructure::CONTROLLER_LIST => {
                let ids = self.controllers.iter().map(|controller| controller.id());
                ControllerList::build(&mut page, command.controller, ids);
            }
            IdentifyStructure::COMMAND_SET_CONTROLLER => {
                nvm_only(&command)?;
                self.nvm_controller_identity().build(&mut page);
            }
            _ => self.identify_namespace(&command, &mut page)?,
        }
        let to = self.scratch.get_mut(..PAGE_BYTES).ok_or(StatusCode::INTERNAL_ERROR)?;
        to.copy_from_slice(&page);
        self.send_scratch(index, entry, PAGE_BYTES as u64, 0, len as u64)?;
        SUCCESS
    }

    /// The structures that name a namespace. An inactive one answers with zeroes.
    fn identify_namespace(&self, command: &Identify, page: &mut IdentifyPage) -> Result<(), Refusal> {
        match command.structure {
            IdentifyStructure::ACTIVE_NAMESPACE_LIST
            | IdentifyStructure::COMMAND_SET_ACTIVE_NAMESPACE_LIST
            | IdentifyStructure::ALLOCATED_NAMESPACE_LIST => {
                if command.structure == IdentifyStructure::COMMAND_SET_ACTIVE_NAMESPACE_LIST {
                    nvm_only(command)?;
                }
                if command.namespace.get() >= 0xFFFF_FFFE {
                    return Err(StatusCode::INVALID_NAMESPACE.into());
                }
                let ids = self.namespaces.iter().map(|namespace| namespace.id);
                NamespaceList::build(page, command.namespace, ids);
                return Ok(());
            }
            IdentifyStructure::NAMESPACE
            | IdentifyStructure::NAMESPACE_IDENTIFICATION_DESCRIPTORS
            | IdentifyStructure::INDEPENDENT_NAMESPACE
            | IdentifyStructure::ALLOCATED_NAMESPACE
            | IdentifyStructure::ATTACHED_CONTROLLER_LIST => {}
            IdentifyStructure::COMMAND_SET_NAMESPACE => nvm_only(command)?,
            _ => return Err(unsupported(command)),
        }
        let id = command.namespace;
        let Some(namespace) = self.namespace_index(id).and_then(|index| self.namespaces.get(index)) else {
            let valid = id != NamespaceId::NONE && id.get() <= self.max_namespace();
            let lists = command.structure == IdentifyStructure::NAMESPACE_IDENTIFICATION_DESCRIPTORS;
            return match (valid, lists) {
                (true, false) => Ok(()),
                (true, true) => Err(StatusCode::INVALID_FIELD.into()),
                (false, _) => Err(StatusCode::INVALID_NAMESPACE.into()),
            };
        };
        let shared = self.controllers.len() > 1;
        match command.structure {
            IdentifyStructure::NAMESPACE | IdentifyStructure::ALLOCATED_NAMESPACE => {
                namespace.identity(shared, self.copy_blocks(namespace)).build(page);
            }
            IdentifyStructure::COMMAND_SET_NAMESPACE => NvmNamespaceIdentity::default().build(page),
            IdentifyStructure::INDEPENDENT_NAMESPACE => {
                IndependentNamespaceIdentity { shared, ready: true, ..Default::default() }.build(page);
            }
            IdentifyStructure::ATTACHED_CONTROLLER_LIST => {
                let ids = self.controllers.iter().map(|controller| controller.id());
                ControllerList::build(page, command.controller, ids);
            }
            _ => {
                let unique = NamespaceDescriptor::Nguid(namespace.unique_id);
                let kind = NamespaceDescriptor::CommandSet(0);
                let all = [unique, kind];
                let present =
                    if namespace.unique_id == [0; 16] { all.get(1..).unwrap_or(&all) } else { &all };
                NamespaceDescriptors::build(page, present).map_err(|_| StatusCode::INTERNAL_ERROR)?;
            }
        }
        Ok(())
    }

    fn controller_identity(&self, index: usize) -> Result<ControllerIdentity, StatusCode> {
        let controller = self.controllers.get(index).ok_or(StatusCode::INTERNAL_ERROR)?;
        let config = &self.config;
        let manager = controller.config.manager();
        let mut admin_commands = OptionalAdminCommands::GET_LBA_STATUS;
        admin_commands.set(OptionalAdminCommands::VIRTUALIZATION_MANAGEMENT, self.is_primary(index));
        admin_commands.set(OptionalAdminCommands::HOST_MANAGED_LIVE_MIGRATION, manager.is_some());
        let capacity =
            self.namespaces.iter().fold(0_u128, |sum, namespace| sum.saturating_add(namespace.bytes()));
        Ok(ControllerIdentity {
            vendor: config.vendor,
            subsystem_vendor: config.vendor,
            serial_number: Text::new(config.serial_number).unwrap_or(Text::BLANK),
            model_number: Text::new(config.model_number).unwrap_or(Text::BLANK),
            firmware_revision: Text::new(config.firmware_revision).unwrap_or(Text::BLANK),
            arbitration_burst_log2: 3,
            sharing: if self.controllers.len() > 1 { SEVERAL_CONTROLLERS } else { 0 },
            max_transfer_log2: config.max_transfer_shift,
            controller: controller.id(),
            version: Version::V2_1.bits(),
            admin_commands,
            abort_limit: config.abort_limit,
            event_request_limit: u16::try_from(controller.events.limit()).unwrap_or(256),
            firmware_updates: FIRMWARE_UPDATES,
            log_page_attributes: LOG_PAGE_ATTRIBUTES,
            error_log_entries: u16::try_from(controller.errors.capacity()).unwrap_or(256),
            total_capacity: capacity,
            keep_alive_granularity: config.keep_alive_granularity,
            namespace_count: self.max_namespace(),
            nvm_commands: OptionalNvmCommands::COMPARE
                | OptionalNvmCommands::WRITE_UNCORRECTABLE
                | OptionalNvmCommands::DATASET_MANAGEMENT
                | OptionalNvmCommands::WRITE_ZEROES
                | OptionalNvmCommands::SAVE_SELECT
                | OptionalNvmCommands::VERIFY
                | OptionalNvmCommands::COPY,
            fused_operations: COMPARE_AND_WRITE,
            volatile_write_cache: config.volatile_write_cache,
            flush_behavior: FLUSH_ALL,
            copy_formats: COPY_FORMAT_0,
            migration: manager.map_or_else(MigrationLimits::default, |limits| self.migration_limits(limits)),
            subsystem_name: SubsystemName::new(config.name).unwrap_or(SubsystemName::EMPTY),
            ..ControllerIdentity::default()
        })
    }

    /// The limits of commands that MDTS does not bound. A range and all ranges of a Dataset Management have the same.
    fn nvm_controller_identity(&self) -> NvmControllerIdentity {
        let config = &self.config;
        NvmControllerIdentity {
            verify_limit_log2: config.max_verify_shift,
            write_zeroes_limit_log2: config.max_write_zeroes_shift,
            write_uncorrectable_limit_log2: config.max_write_uncorrectable_shift,
            dataset_ranges: config.max_dataset_ranges,
            dataset_range_blocks: u32::try_from(self.dataset_blocks()).unwrap_or(u32::MAX),
            dataset_blocks: self.dataset_blocks(),
            ..NvmControllerIdentity::default()
        }
    }

    fn migration_limits(&self, limits: &ManagerConfig) -> MigrationLimits {
        let mut tracking = TrackingAttributes::empty();
        tracking.set(TrackingAttributes::HOST_MEMORY, limits.track_host_memory);
        tracking.set(TrackingAttributes::USER_DATA, limits.track_user_data);
        tracking.set(TrackingAttributes::POWER_OF_TWO_LENGTHS, limits.tracked_length_power_of_two);
        let zero = self.config.quirks.contains(Quirks::LIMITS_READ_ZERO);
        let shown = |limit: u16| if zero { 0 } else { limit };
        let slots = u16::try_from(self.data_queues.len()).unwrap_or(u16::MAX);
        MigrationLimits {
            tracking,
            controller_tracking_descriptors: self.max_tracked_ranges(limits),
            subsystem_tracking_descriptors: self.config.max_tracked_ranges,
            minimum_granularity: limits.min_tracking_shift,
            maximum_granularity: limits.max_tracking_shift,
            controller_queues: shown(limits.max_migration_queues.min(slots)),
            subsystem_queues: shown(self.config.max_migration_queues.min(slots)),
            queue_memory_ranges: shown(limits.max_queue_memory_ranges),
            subsystem_memory_ranges: shown(self.config.max_queue_memory_ranges),
            queue_prps: shown(limits.max_queue_prps),
        }
    }

    /// Supported Controller State Formats; returns how many bytes are sent.
    fn state_formats(&self, index: usize, page: &mut IdentifyPage) -> Result<usize, StatusCode> {
        let controller = self.controllers.get(index).ok_or(StatusCode::INTERNAL_ERROR)?;
        if controller.config.manager().is_none() {
            return Err(StatusCode::INVALID_FIELD);
        }
        let uuids: &[[u8; 16]] = if self.vendor_formats() > 0 { &[FORMAT_UUID] } else { &[] };
        SupportedControllerStateFormats::build(page, &[0], uuids).map_err(|_| StatusCode::INTERNAL_ERROR)?;
        Ok(if self.config.quirks.contains(Quirks::FORMATS_FOUR_BYTES) { 4 } else { PAGE_BYTES })
    }

    fn primary_capabilities(&self, index: usize) -> Result<PrimaryControllerCapabilities, StatusCode> {
        let controller = self.controllers.get(index).ok_or(StatusCode::INTERNAL_ERROR)?;
        let id = controller.id();
        let mut queues = VirtualResources {
            primary_private: controller.max_io_queues().saturating_add(1),
            granularity: 1,
            ..VirtualResources::default()
        };
        let mut interrupts = VirtualResources {
            primary_private: controller.config.interrupt_vectors,
            granularity: 1,
            ..VirtualResources::default()
        };
        let secondaries = self.controllers.iter().filter_map(|controller| controller.secondary.as_ref());
        for secondary in secondaries.filter(|secondary| secondary.config.primary == id) {
            for (resources, most, assigned) in [
                (&mut queues, secondary.max_queues, secondary.assigned_queues),
                (&mut interrupts, secondary.max_vectors, secondary.assigned_vectors),
            ] {
                resources.flexible_total = resources.flexible_total.saturating_add(u32::from(most));
                resources.flexible_assigned = resources.flexible_assigned.saturating_add(u32::from(assigned));
                resources.secondary_maximum = resources.secondary_maximum.max(most);
            }
        }
        Ok(PrimaryControllerCapabilities {
            controller: id,
            port: 0,
            queues_supported: true,
            interrupts_supported: true,
            queues,
            interrupts,
        })
    }

    fn secondary_list(
        &self,
        index: usize,
        command: &Identify,
        page: &mut IdentifyPage,
    ) -> Result<(), StatusCode> {
        let primary = self.controllers.get(index).ok_or(StatusCode::INTERNAL_ERROR)?.id();
        let entries = self.controllers.iter().filter_map(|controller| {
            let secondary = controller.secondary.as_ref()?;
            (secondary.config.primary == primary).then(|| SecondaryController {
                controller: controller.id(),
                primary,
                online: secondary.online,
                virtual_function: secondary.config.virtual_function,
                queues: secondary.assigned_queues,
                interrupts: secondary.assigned_vectors,
            })
        });
        SecondaryControllers::build(page, command.controller, entries);
        Ok(())
    }
}

impl<S: BlockStorage> Namespace<S> {
    fn bytes(&self) -> u128 {
        u128::from(self.storage.blocks()).saturating_mul(self.block_bytes() as u128)
    }

    fn identity(&self, shared: bool, copy_blocks: u32) -> NamespaceIdentity {
        let mut identity = NamespaceIdentity::new(self.storage.blocks(), self.storage.block_shift());
        identity.shared = shared;
        identity.deallocate_features = DEALLOCATE_FEATURES;
        identity.capacity_bytes = self.bytes();
        identity.copy_range_blocks = u16::try_from(copy_blocks).unwrap_or(u16::MAX);
        identity.copy_blocks = copy_blocks;
        identity.copy_ranges = COPY_RANGES;
        identity.nguid = self.unique_id;
        identity
    }
}

fn unsupported(command: &Identify) -> Refusal {
    InvalidField::in_dword("CNS", 10, 0, u64::from(command.structure.get())).into()
}

/// The NVM command set is the only one there is.
fn nvm_only(command: &Identify) -> Result<(), InvalidField> {
    match command.command_set {
        0 => Ok(()),
        other => Err(InvalidField::in_dword("CSI", 11, 24, u64::from(other))),
    }
}

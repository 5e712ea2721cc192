// SPDX-License-Identifier: MIT OR Apache-2.0
//! Virtualization Management. NVMe Base 2.1 §5.2.6, Virtualization Management command.

use nvme_core::wire::admin::{VirtualizationAction, VirtualizationManagement, VirtualizationResource};
use nvme_core::wire::{Command, InvalidField, StatusCode, SubmissionQueueEntry};

use crate::host::{BlockStorage, HostMemory, Interrupts};
use crate::outcome::{Done, Outcome};
use crate::secondary::Secondary;
use crate::subsystem::Subsystem;

impl<M: HostMemory, S: BlockStorage, I: Interrupts> Subsystem<'_, M, S, I> {
    /// Whether the controller governs secondary controllers.
    pub(crate) fn is_primary(&self, index: usize) -> bool {
        let Some(id) = self.controllers.get(index).map(|controller| controller.id()) else { return false };
        self.controllers
            .iter()
            .any(|other| other.secondary.is_some_and(|secondary| secondary.config.primary == id))
    }

    pub(super) fn virtualization_management(
        &mut self,
        index: usize,
        entry: &SubmissionQueueEntry,
    ) -> Outcome {
        let command = VirtualizationManagement::decode(entry)?;
        let primary = self.controllers.get(index).ok_or(StatusCode::INTERNAL_ERROR)?.id();
        if command.action == VirtualizationAction::PRIMARY_FLEXIBLE_ALLOCATION {
            if command.controller != primary {
                return Err(StatusCode::INVALID_CONTROLLER_IDENTIFIER.into());
            }
            // The primary controller's own resources are private; no flexible ones can be allocated to it.
            return match command.resources {
                0 => Ok(Done::Result(0, 0)),
                _ => Err(StatusCode::INVALID_NUMBER_OF_RESOURCES.into()),
            };
        }
        let target = self
            .index_of(command.controller)
            .filter(|target| {
                self.controllers
                    .get(*target)
                    .and_then(|controller| controller.secondary)
                    .is_some_and(|secondary| secondary.config.primary == primary)
            })
            .ok_or(StatusCode::INVALID_CONTROLLER_IDENTIFIER)?;
        match command.action {
            VirtualizationAction::SECONDARY_OFFLINE => {
                self.take_offline(target);
                Ok(Done::Result(0, 0))
            }
            VirtualizationAction::SECONDARY_ASSIGN => {
                let secondary = self.secondary_mut(target)?;
                if secondary.online {
                    return Err(StatusCode::INVALID_SECONDARY_CONTROLLER_STATE.into());
                }
                let (limit, assigned) = match command.resource_type {
                    VirtualizationResource::VIRTUAL_QUEUES => {
                        (secondary.max_queues, &mut secondary.assigned_queues)
                    }
                    VirtualizationResource::VIRTUAL_INTERRUPTS => {
                        (secondary.max_vectors, &mut secondary.assigned_vectors)
                    }
                    _ => return Err(StatusCode::INVALID_RESOURCE_IDENTIFIER.into()),
                };
                if command.resources > limit {
                    return Err(StatusCode::INVALID_NUMBER_OF_RESOURCES.into());
                }
                *assigned = command.resources;
                Ok(Done::Result(VirtualizationManagement::result(command.resources), 0))
            }
            VirtualizationAction::SECONDARY_ONLINE => {
                let secondary = self.secondary_mut(target)?;
                // The admin queue pair and one I/O queue pair are the least a controller works with.
                if secondary.assigned_queues < 2 || secondary.assigned_vectors < 1 {
                    return Err(StatusCode::INVALID_SECONDARY_CONTROLLER_STATE.into());
                }
                secondary.online = true;
                secondary.apply();
                Ok(Done::Result(0, 0))
            }
            other => Err(InvalidField::in_dword("ACT", 10, 0, u64::from(other.get())).into()),
        }
    }

    fn secondary_mut(&mut self, index: usize) -> Result<&mut Secondary, StatusCode> {
        self.controllers
            .get_mut(index)
            .and_then(|controller| controller.secondary.as_mut())
            .ok_or(StatusCode::INTERNAL_ERROR)
    }
}

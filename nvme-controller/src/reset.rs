// SPDX-License-Identifier: MIT OR Apache-2.0
//! Controller level resets and the NVM subsystem reset, with their effects on migrations. NVMe Base 2.1 §3.7, Resets.

use crate::controller::Controller;
use crate::features::Features;
use crate::host::{BlockStorage, HostMemory, Interrupts};
use crate::migration::{Received, Run};
use crate::quirk::Quirks;
use crate::registers::{Registers, Shutdown};
use crate::subsystem::{Port, Subsystem};

impl<M: HostMemory> Controller<'_, M> {
    /// Stops everything and returns to what a controller reset leaves: admin queue properties stay, all else goes.
    fn clear(&mut self, write_cache: bool) {
        for slot in self.submission_queues.iter_mut() {
            slot.0 = None;
        }
        for slot in self.completion_queues.iter_mut() {
            slot.0 = None;
        }
        self.queues_end = 0;
        self.next_queue = 0;
        self.commands.clear();
        self.events.clear();
        self.errors.clear();
        self.attention = false;
        self.notify = false;
        self.features = Features::reset(write_cache);
        self.keep_alive_deadline = None;
        self.ready_in = None;
        let kept = self.registers;
        self.registers = Registers {
            aqa: kept.aqa,
            asq: kept.asq,
            acq: kept.acq,
            subsystem_reset_occurred: kept.subsystem_reset_occurred,
            shutdown: Shutdown::None,
            ..Registers::default()
        };
        if let Some(secondary) = &mut self.secondary {
            secondary.apply();
        }
    }
}

impl<M: HostMemory, S: BlockStorage, I: Interrupts> Subsystem<'_, M, S, I> {
    /// A Controller Level Reset of the controller at `index`, apart from what kind it is. The secondary controllers of
    /// a primary one go offline with it; a shutdown alone leaves them online.
    pub(crate) fn reset_controller(&mut self, index: usize) {
        self.reset_alone(index);
        let Some(primary) = self.controllers.get(index).map(|controller| controller.id()) else { return };
        for target in 0..self.controllers.len() {
            let governs = self.controllers.get(target).is_some_and(|controller| {
                controller.secondary.is_some_and(|secondary| secondary.config.primary == primary)
            });
            if governs && target != index {
                self.take_offline(target);
            }
        }
    }

    /// Takes a secondary controller offline: it is reset, as by a host, and its flexible resources are removed.
    ///
    /// Whoever else manages its migration keeps the data queue, and sees what a reset of a suspended controller is seen
    /// by: its suspension, and with it a state that was being received, ends, and its log goes on.
    pub(crate) fn take_offline(&mut self, index: usize) {
        self.reset_alone(index);
        let Some(controller) = self.controllers.get_mut(index) else { return };
        if let Some(secondary) = &mut controller.secondary {
            secondary.take_offline();
        }
    }

    fn reset_alone(&mut self, index: usize) {
        let write_cache = self.config.volatile_write_cache;
        let Some(controller) = self.controllers.get_mut(index) else { return };
        controller.clear(write_cache);
        if let Some(faults) = &mut self.faults {
            faults.forget_writes(index);
        }
        if controller.config.manager().is_some() {
            self.end_management(index);
        } else {
            self.release(index);
        }
    }

    /// A managing controller was reset: its data queues, its memory tracking and its suspensions end.
    fn end_management(&mut self, index: usize) {
        for slot in 0..self.data_queues.len() {
            if self.data_queues.get(slot).and_then(|slot| slot.0).is_some_and(|queue| queue.owner == index) {
                self.remove_data_queue(slot);
            }
        }
        for target in 0..self.controllers.len() {
            let Some(controller) = self.controllers.get_mut(target) else { break };
            if controller.dma.tracker.manager() == Some(index) {
                controller.dma.tracker.stop();
            }
            controller.target.counts_as_logged |=
                self.config.quirks.contains(Quirks::LOGGING_ACTIVE_AFTER_RESET);
            if matches!(controller.target.received, Received::Partial { sender, .. } if sender == index) {
                controller.target.received = Received::Failed;
            }
            if controller.target.suspended_by == Some(index) {
                self.release(target);
            }
        }
    }

    /// A controller is no longer suspended: it fetches again, and its log goes on.
    pub(crate) fn release(&mut self, index: usize) {
        // A marker that was put off belongs before whatever follows.
        self.settle_marker(index);
        let now = self.now;
        let Some(controller) = self.controllers.get_mut(index) else { return };
        let was = controller.target.run;
        controller.target.run = Run::Running;
        controller.target.suspended_by = None;
        controller.target.received = Received::None;
        controller.attention = true;
        if was != Run::Running {
            // Interrupts may have been lost on the way; a spurious one does no harm.
            for slot in controller.completion_queues.iter_mut() {
                if let Some(queue) = slot.0.as_mut().filter(|queue| queue.interrupts_enabled) {
                    queue.notify = queue.ring.occupied() > 0;
                }
            }
            controller.notify = true;
            controller.restart_keep_alive(now);
            self.resume_log(index);
        }
    }

    /// The NVM subsystem reset: every controller, and the admin queue properties too.
    pub(crate) fn reset_subsystem(&mut self) {
        for index in 0..self.controllers.len() {
            self.reset_controller(index);
        }
        for controller in self.controllers.iter_mut() {
            controller.registers = Registers { subsystem_reset_occurred: true, ..Registers::default() };
        }
    }

    /// A Controller Level Reset from outside: a function level or conventional reset of the device behind `port`.
    /// Unlike a write of CC.EN it also clears the properties that describe the admin queues.
    pub fn reset(&mut self, port: Port) {
        self.reset_controller(port.0);
        if let Some(controller) = self.controllers.get_mut(port.0) {
            controller.registers = Registers::default();
        }
    }
}

// SPDX-License-Identifier: MIT OR Apache-2.0
//! Property and doorbell accesses of a host. NVMe Base 2.1 §3.1.4, Controller Properties.

use nvme_core::register::Offset;
use nvme_core::wire::register::{
    ACQ, AQA, ASQ, CAP, CC, CRTO, CSTS, Capabilities, ControllerReadyTimeouts, ControllerStatus, DOORBELLS,
    INTMC, INTMS, NSSR, NSSR_RESET, ShutdownNotification, VS, Version,
};
use nvme_core::wire::{AsynchronousEvent, BusAddr, EventType};

use crate::config::SubsystemConfig;
use crate::controller::Controller;
use crate::host::{BlockStorage, HostMemory, Interrupts};
use crate::pages::QueueMemory;
use crate::queue::{CompletionQueue, InvalidDoorbell, SubmissionQueue};
use crate::registers::{MisalignedAccess, Shutdown};
use crate::subsystem::{Port, Subsystem};

/// Upper halves of the 64-bit properties.
const CAP_HIGH: u32 = CAP.wrapping_add(4);
const ASQ_HIGH: u32 = ASQ.wrapping_add(4);
const ACQ_HIGH: u32 = ACQ.wrapping_add(4);

const fn with_low(old: u64, low: u32) -> u64 {
    (old & !0xFFFF_FFFF) | low as u64
}

const fn with_high(old: u64, high: u32) -> u64 {
    (old & 0xFFFF_FFFF) | ((high as u64) << 32)
}

#[allow(clippy::cast_possible_truncation, reason = "each half is exactly 32 bits")]
const fn halves(value: u64) -> (u32, u32) {
    (value as u32, (value >> 32) as u32)
}

impl<M: HostMemory, S: BlockStorage, I: Interrupts> Subsystem<'_, M, S, I> {
    fn capabilities(&self, controller: &Controller<'_, M>) -> u64 {
        let config = &self.config;
        let page = |shift: u8| 1_u32.checked_shl(u32::from(shift)).unwrap_or(4096);
        Capabilities::from_bits(0)
            .with_max_queue_entries(config.max_queue_entries)
            .with_contiguous_queues_required(config.contiguous_queues_required)
            .with_timeout_units(config.ready_timeout)
            .with_subsystem_reset_supported(controller.resets_subsystem(config))
            .with_nvm_command_set_supported(true)
            .with_all_command_sets_supported(true)
            .with_min_page_size(page(config.min_page_shift))
            .with_max_page_size(page(config.max_page_shift))
            .with_ready_with_media_supported(true)
            .bits()
    }

    /// Reads the 32-bit word at `offset` of the controller at `port`. Reserved properties, doorbells and ports that do
    /// not exist read as zero.
    ///
    /// # Errors
    /// [`MisalignedAccess`] if `offset` is not a multiple of four.
    pub fn read32(&self, port: Port, offset: Offset) -> Result<u32, MisalignedAccess> {
        if !offset.bytes().is_multiple_of(4) {
            return Err(MisalignedAccess { offset, width: 4 });
        }
        let Some(controller) = self.controllers.get(port.0) else { return Ok(0) };
        if let Some(faults) = &self.faults
            && faults.read_is_lost(controller.id(), port.0)
        {
            return Ok(u32::MAX);
        }
        let registers = &controller.registers;
        Ok(match offset.bytes() {
            CAP => halves(self.capabilities(controller)).0,
            CAP_HIGH => halves(self.capabilities(controller)).1,
            VS => Version::V2_1.bits(),
            INTMS | INTMC => registers.masked,
            CC => registers.cc,
            // All that an offline controller says of itself is that it does not work.
            CSTS => registers.status().with_fatal(registers.fatal || !controller.is_online()).bits(),
            AQA => registers.aqa,
            ASQ => halves(registers.asq).0,
            ASQ_HIGH => halves(registers.asq).1,
            ACQ => halves(registers.acq).0,
            ACQ_HIGH => halves(registers.acq).1,
            CRTO => ControllerReadyTimeouts::from_bits(0)
                .with_media_units(u16::from(self.config.ready_timeout))
                .bits(),
            _ => 0,
        })
    }

    /// Reads the 64-bit word at `offset`, as two 32-bit reads, low half first.
    ///
    /// # Errors
    /// [`MisalignedAccess`] if `offset` is not a multiple of eight.
    pub fn read64(&self, port: Port, offset: Offset) -> Result<u64, MisalignedAccess> {
        if !offset.bytes().is_multiple_of(8) {
            return Err(MisalignedAccess { offset, width: 8 });
        }
        let low = self.read32(port, offset)?;
        let high = self.read32(port, offset.upper_half())?;
        Ok(u64::from(low) | (u64::from(high) << 32))
    }

    /// Writes the 32-bit property or doorbell at `offset` of the controller at `port`. Writes to what is read-only or
    /// reserved do nothing. Work that a write causes is done by [`poll`](Self::poll).
    ///
    /// # Errors
    /// [`MisalignedAccess`] if `offset` is not a multiple of four.
    pub fn write32(&mut self, port: Port, offset: Offset, value: u32) -> Result<(), MisalignedAccess> {
        let bytes = offset.bytes();
        if !bytes.is_multiple_of(4) {
            return Err(MisalignedAccess { offset, width: 4 });
        }
        let Some(controller) = self.controllers.get_mut(port.0) else { return Ok(()) };
        if let Some(faults) = &self.faults
            && faults.is_cut_off(port.0)
        {
            return Ok(());
        }
        if bytes >= DOORBELLS {
            controller.doorbell(bytes.saturating_sub(DOORBELLS) >> 2, value);
            return Ok(());
        }
        let resets = controller.resets_subsystem(&self.config);
        let disabled = !controller.registers.enabled();
        let registers = &mut controller.registers;
        match bytes {
            INTMS => registers.masked |= value,
            INTMC => {
                registers.masked &= !value;
                controller.notify = true;
                self.signal_at(port.0);
            }
            CC => self.configure(port.0, value),
            CSTS if ControllerStatus::from_bits(value).subsystem_reset_occurred() => {
                registers.subsystem_reset_occurred = false
            }
            NSSR if resets && value == NSSR_RESET => self.reset_subsystem(),
            AQA if disabled => registers.aqa = value & 0x0FFF_0FFF,
            ASQ if disabled => registers.asq = with_low(registers.asq, value & !0xFFF),
            ASQ_HIGH if disabled => registers.asq = with_high(registers.asq, value),
            ACQ if disabled => registers.acq = with_low(registers.acq, value & !0xFFF),
            ACQ_HIGH if disabled => registers.acq = with_high(registers.acq, value),
            _ => {}
        }
        Ok(())
    }

    /// Writes the 64-bit property at `offset`, as two 32-bit writes, low half first.
    ///
    /// # Errors
    /// [`MisalignedAccess`] if `offset` is not a multiple of eight.
    pub fn write64(&mut self, port: Port, offset: Offset, value: u64) -> Result<(), MisalignedAccess> {
        if !offset.bytes().is_multiple_of(8) {
            return Err(MisalignedAccess { offset, width: 8 });
        }
        let (low, high) = halves(value);
        self.write32(port, offset, low)?;
        self.write32(port, offset.upper_half(), high)
    }

    /// Takes a write of Controller Configuration. NVMe Base 2.1 §3.1.4.5.
    fn configure(&mut self, index: usize, value: u32) {
        let Some(controller) = self.controllers.get_mut(index) else { return };
        let before = controller.registers;
        let after = before.configuration_after(value);
        if before.enabled() && after & 1 == 0 {
            // A Controller Reset; the shutdown status goes with it.
            self.reset_controller(index);
            if let Some(controller) = self.controllers.get_mut(index) {
                controller.registers.cc = after;
            }
            return;
        }
        controller.registers.cc = after;
        let notification = controller.registers.shutdown_notification();
        if notification == ShutdownNotification::None && !before.enabled() {
            controller.registers.shutdown = Shutdown::None;
        }
        if notification != before.shutdown_notification()
            && matches!(notification, ShutdownNotification::Normal | ShutdownNotification::Abrupt)
            && controller.registers.shutdown == Shutdown::None
        {
            controller.registers.shutdown =
                Shutdown::InProgress { flush: notification == ShutdownNotification::Normal };
        }
        if !before.enabled() && after & 1 != 0 {
            let config = self.config;
            let online = controller.is_online();
            let pages = config.min_page_shift..=config.max_page_shift;
            let registers = &controller.registers;
            let good = online && pages.contains(&registers.page_shift()) && registers.supported();
            if good && controller.enable() {
                controller.restart_keep_alive(self.now);
                if let Some(faults) = &self.faults {
                    faults.enabled(controller);
                }
            } else {
                controller.registers.fatal = true;
            }
        }
    }

    pub(crate) fn signal_at(&mut self, index: usize) {
        if let Some(controller) = self.controllers.get_mut(index) {
            controller.signal(&self.interrupts);
        }
    }
}

impl<M: HostMemory> Controller<'_, M> {
    /// Whether it may reset the whole subsystem: the guest behind a migratable one must not be able to stop the others.
    fn resets_subsystem(&self, config: &SubsystemConfig<'_>) -> bool {
        config.subsystem_reset && self.config.manager().is_some()
    }

    /// Creates the admin queues and becomes ready; `false` if the properties that describe them are unusable.
    pub(crate) fn enable(&mut self) -> bool {
        let registers = &self.registers;
        let (submission, completion) =
            (registers.admin_submission_entries(), registers.admin_completion_entries());
        let page = (1_u64 << registers.page_shift()).wrapping_sub(1);
        let (asq, acq) = (registers.asq, registers.acq);
        // The specification demands page alignment for the page size in use.
        if submission < 2 || completion < 2 || (asq | acq) & page != 0 {
            return false;
        }
        self.install_admin_queues(
            SubmissionQueue::new(QueueMemory::Contiguous(BusAddr::new(asq)), submission, 0, 0),
            CompletionQueue::new(QueueMemory::Contiguous(BusAddr::new(acq)), completion, Some(0)),
        );
        self.registers.ready = true;
        self.registers.fatal = false;
        true
    }

    pub(crate) fn install_admin_queues(&mut self, submission: SubmissionQueue, completion: CompletionQueue) {
        if let Some(slot) = self.completion_queues.first_mut() {
            slot.0 = Some(completion);
        }
        self.add_submission(0, submission);
    }

    /// Takes a doorbell write. Suspended controllers take them too, so that nothing is lost until they resume.
    #[inline]
    fn doorbell(&mut self, index: u32, value: u32) {
        if !self.registers.ready {
            return;
        }
        let value = value & 0xFFFF;
        let Ok(queue) = u16::try_from(index >> 1) else {
            self.invalid_doorbell(0);
            return;
        };
        let taken = if index & 1 == 0 {
            self.submission_mut(queue).map(|queue| queue.set_tail(value))
        } else {
            self.attention |= queue == 0;
            self.completion_mut(queue).map(|queue| queue.set_head(value))
        };
        match taken {
            Some(Ok(())) => {}
            Some(Err(InvalidDoorbell)) => self.invalid_doorbell(1),
            None => self.invalid_doorbell(0),
        }
    }

    /// Raises an Error event: 0 for a doorbell that does not exist, 1 for a value that cannot be.
    #[cold]
    fn invalid_doorbell(&mut self, information: u8) {
        self.raise(AsynchronousEvent { kind: EventType::ERROR, information, log_page: 1, parameter: 0 });
    }

    pub(crate) fn raise(&mut self, event: AsynchronousEvent) -> bool {
        self.attention = true;
        self.events.raise(event)
    }

    /// Interrupts for the completion queues that have something new, as far as their vectors are not masked.
    pub(crate) fn signal<I: Interrupts>(&mut self, interrupts: &I) {
        self.notify = false;
        if self.target.run == crate::migration::Run::Suspended {
            return;
        }
        let id = self.id();
        for slot in self.completion_queues.iter_mut() {
            let Some(queue) = slot.0.as_mut().filter(|queue| queue.notify) else { continue };
            if queue.ring.occupied() == 0 {
                queue.notify = false;
                continue;
            }
            let masked = self.registers.masked.checked_shr(u32::from(queue.vector)).unwrap_or(0) & 1 != 0;
            if !masked {
                queue.notify = false;
                interrupts.interrupt(id, queue.vector);
            }
        }
    }
}

// SPDX-License-Identifier: MIT OR Apache-2.0
//! Taking a verified state over: I/O queues from NVMe Controller State v0, all else from the vendor-specific part.
//! Either all of it takes effect or none.

use nvme_core::ring::PhaseProducer;
use nvme_core::wire::controller_state::{
    CompletionQueueState, ControllerStateImage, NvmeControllerState, StateDialect, StateLimits,
    SubmissionQueueState,
};
use nvme_core::wire::register::ShutdownNotification;
use nvme_core::wire::{BusAddr, StatusCode};

use crate::config::SubsystemConfig;
use crate::controller::Controller;
use crate::features::Features;
use crate::host::{BlockStorage, HostMemory, Interrupts};
use crate::outcome::Refusal;
use crate::pages::{PageList, QueueMemory};
use crate::queue::{COMPLETION_SHIFT, CompletionQueue, SUBMISSION_SHIFT, SubmissionQueue};
use crate::quirk::Quirks;
use crate::registers::{CC_WRITABLE, Registers, Shutdown};
use crate::state_format::{AdminQueues, FormatError, VendorImage, VendorState};
use crate::subsystem::Subsystem;

impl Quirks {
    /// How S0PT of a saved completion queue is read and written.
    pub(crate) const fn dialect(self) -> StateDialect {
        if self.contains(Self::SLOT_ZERO_IS_NEXT_PHASE) {
            StateDialect::NextPostPhase
        } else {
            StateDialect::Specification
        }
    }
}

impl<M: HostMemory, S: BlockStorage, I: Interrupts> Subsystem<'_, M, S, I> {
    /// Verifies and commits the state in the target's staging area.
    pub(super) fn commit_state(
        &mut self,
        target: usize,
        received: usize,
        version_index: u8,
        vendor_index: u8,
    ) -> Result<(), Refusal> {
        let config = self.config;
        let now = self.now;
        let controller = self.controllers.get_mut(target).ok_or(StatusCode::INTERNAL_ERROR)?;
        let staging = core::mem::take(&mut controller.target.staging);
        let result = match staging.get(..received) {
            Some(image) => controller.commit(&config, image, version_index, vendor_index, &mut self.work),
            None => Err(StatusCode::INTERNAL_ERROR),
        };
        controller.target.staging = staging;
        controller.restart_keep_alive(now);
        Ok(result?)
    }
}

impl<M: HostMemory> Controller<'_, M> {
    fn commit(
        &mut self,
        config: &SubsystemConfig<'_>,
        bytes: &[u8],
        version_index: u8,
        vendor_index: u8,
        work: &mut u64,
    ) -> Result<(), StatusCode> {
        *work = work.saturating_add(bytes.len() as u64);
        let image = ControllerStateImage::parse(bytes, usize::MAX).map_err(|error| error.status())?;
        image.check_indices(version_index, vendor_index).map_err(|error| error.status())?;
        if image.total_bytes() != bytes.len() {
            return Err(StatusCode::INVALID_FIELD);
        }
        let vendor = match image.vendor_data() {
            [] => None,
            part => {
                let parsed = VendorImage::parse(part, self.events.limit(), self.events.pending_capacity());
                Some(parsed.map_err(|error| match error {
                    FormatError::TooMany => StatusCode::NOT_ENOUGH_RESOURCES,
                    _ => StatusCode::INVALID_FIELD,
                })?)
            }
        };
        let queues = image.nvme_state().map_err(|error| error.status())?;
        if let Some(vendor) = &vendor {
            self.check_vendor(config, vendor)?;
        } else if !self.registers.ready || queues.is_none() {
            return Err(StatusCode::INVALID_FIELD);
        }
        let (page_shift, features, ready) = match &vendor {
            Some(vendor) => {
                let registers = Registers { cc: vendor.state.cc, ..Registers::default() };
                (registers.page_shift(), vendor.state.features, vendor.state.ready)
            }
            None => (self.registers.page_shift(), self.features, true),
        };
        let limits = self.limits(config, page_shift, &features, ready);
        image.validate(&limits).map_err(|error| error.status())?;
        if let Some(queues) = &queues {
            self.check_lists(queues, page_shift, work)?;
        }
        // Lists are read again here and may have changed: what can fail comes before what cannot.
        if let Some(queues) = &queues {
            self.take_queues(queues, config.quirks.dialect(), page_shift)?;
        }
        if let Some(vendor) = &vendor {
            self.take_vendor(vendor);
        }
        Ok(())
    }

    /// What the controller will be able to take once `features` are in effect.
    fn limits(
        &self,
        config: &SubsystemConfig<'_>,
        page_shift: u8,
        features: &Features,
        ready: bool,
    ) -> StateLimits {
        let max = self.max_io_queues();
        let granted = |half: u32| match u16::try_from(half & 0xFFFF) {
            Ok(zero_based) => zero_based.saturating_add(1).min(max),
            Err(_) => max,
        };
        let (submission_queues, completion_queues) = match features.queues {
            _ if !ready => (0, 0),
            Some(queues) => (granted(queues), granted(queues >> 16)),
            None => (max, max),
        };
        StateLimits {
            submission_queues,
            completion_queues,
            queue_entries: config.max_queue_entries,
            vectors: u32::from(self.vectors()),
            contiguous_required: config.contiguous_queues_required,
            page_bytes: 1_u64 << page_shift,
        }
    }

    /// Checks what in the vendor-specific part depends on this controller.
    fn check_vendor(&self, config: &SubsystemConfig<'_>, image: &VendorImage<'_>) -> Result<(), StatusCode> {
        let VendorState { ready, cc, aqa, asq, acq, admin, features, .. } = image.state;
        let registers = Registers { cc, aqa, asq, acq, ..Registers::default() };
        let pages = config.min_page_shift..=config.max_page_shift;
        let enabled = registers.enabled() && pages.contains(&registers.page_shift()) && registers.supported();
        let aligned = if ready { (1_u64 << registers.page_shift()).wrapping_sub(1) } else { 0xFFF };
        let submission = registers.admin_submission_entries();
        let completion = registers.admin_completion_entries();
        let pointers = u32::from(admin.submission_head) < submission
            && u32::from(admin.submission_tail) < submission
            && u32::from(admin.completion_head) < completion
            && u32::from(admin.completion_tail) < completion
            && submission >= 2
            && completion >= 2;
        let max = self.max_io_queues();
        let granted = |zero_based: u32| zero_based < u32::from(max);
        let possible = cc & !CC_WRITABLE == 0
            && aqa & !0x0FFF_0FFF == 0
            && (asq | acq) & aligned == 0
            && (!ready || (enabled && pointers))
            && (features.keep_alive == 0 || config.keep_alive_granularity > 0);
        if !possible {
            return Err(StatusCode::INVALID_FIELD);
        }
        // The guest relies on the queues that it was granted.
        if !features.queues.is_none_or(|queues| granted(queues & 0xFFFF) && granted(queues >> 16)) {
            return Err(StatusCode::NOT_ENOUGH_RESOURCES);
        }
        Ok(())
    }

    /// Checks the PRP lists of queues that are not contiguous, which is counted as `work`.
    fn check_lists(
        &self,
        queues: &NvmeControllerState<'_>,
        page_shift: u8,
        work: &mut u64,
    ) -> Result<(), StatusCode> {
        let mut charge = |contiguous: bool, entries: u32, slot_shift: u8| {
            if !contiguous {
                // Each list is read once more when the queue is taken.
                let walk = PageList::work(PageList::pages_of(entries, slot_shift, page_shift));
                *work = work.saturating_add(walk.saturating_mul(2));
            }
        };
        for queue in queues.completion_queues(StateDialect::Specification) {
            charge(queue.contiguous, queue.entries, COMPLETION_SHIFT);
            self.memory_of(queue.base, queue.contiguous, queue.entries, COMPLETION_SHIFT, page_shift)?;
        }
        for queue in queues.submission_queues() {
            charge(queue.contiguous, queue.entries, SUBMISSION_SHIFT);
            self.memory_of(queue.base, queue.contiguous, queue.entries, SUBMISSION_SHIFT, page_shift)?;
        }
        Ok(())
    }

    fn memory_of(
        &self,
        base: BusAddr,
        contiguous: bool,
        entries: u32,
        slot_shift: u8,
        page_shift: u8,
    ) -> Result<QueueMemory, StatusCode> {
        if contiguous {
            return Ok(QueueMemory::Contiguous(base));
        }
        let pages = PageList::pages_of(entries, slot_shift, page_shift);
        Ok(QueueMemory::List(PageList::walk(&self.dma.memory, base, pages, page_shift, false)?))
    }

    /// Puts the vendor-specific part into effect. It was checked. I/O queues stay as they are.
    fn take_vendor(&mut self, image: &VendorImage<'_>) {
        let VendorState {
            ready, fatal, shut_down, cc, aqa, asq, acq, masked_vectors, admin, features, ..
        } = image.state;
        self.events.clear();
        // What another host did wrong is not for this one to read.
        self.errors.clear();
        self.registers = Registers {
            cc,
            ready,
            fatal,
            shutdown: Shutdown::None,
            subsystem_reset_occurred: self.registers.subsystem_reset_occurred,
            aqa,
            asq,
            acq,
            masked: masked_vectors,
        };
        // A shutdown that was not complete goes on here.
        self.registers.shutdown = match self.registers.shutdown_notification() {
            _ if shut_down => Shutdown::Complete,
            ShutdownNotification::Normal => Shutdown::InProgress { flush: true },
            ShutdownNotification::Abrupt => Shutdown::InProgress { flush: false },
            _ => Shutdown::None,
        };
        self.features = features;
        // An enable that was to take its time has been replaced by this state.
        self.ready_in = None;
        self.remove_submission(0);
        if let Some(slot) = self.completion_queues.first_mut() {
            slot.0 = None;
        }
        self.next_queue = 0;
        if !ready {
            return;
        }
        let AdminQueues { submission_head, submission_tail, completion_head, completion_tail, next_tag } =
            admin;
        let mut submission = SubmissionQueue::new(
            QueueMemory::Contiguous(BusAddr::new(asq)),
            self.registers.admin_submission_entries(),
            0,
            0,
        );
        submission.head = u32::from(submission_head);
        submission.tail = u32::from(submission_tail);
        let size = self.registers.admin_completion_entries();
        let mut completion = CompletionQueue::new(QueueMemory::Contiguous(BusAddr::new(acq)), size, Some(0));
        let (head, tail) = (u32::from(completion_head), u32::from(completion_tail));
        if let Some(ring) = PhaseProducer::restore(size, head, tail, next_tag != (tail == 0)) {
            completion.ring = ring;
        }
        self.install_admin_queues(submission, completion);
        for request in image.requests() {
            self.events.add_request(request);
        }
        for event in image.events() {
            self.events.raise(event);
        }
        self.events.set_masked(image.state.masked_events);
    }

    /// Creates the I/O queues of a state. They were checked; a list that changed meanwhile undoes them all.
    fn take_queues(
        &mut self,
        queues: &NvmeControllerState<'_>,
        dialect: StateDialect,
        page_shift: u8,
    ) -> Result<(), StatusCode> {
        let mut result = Ok(());
        for queue in queues.completion_queues(dialect) {
            result = result.and_then(|()| self.take_completion(&queue, page_shift));
        }
        for queue in queues.submission_queues() {
            result = result.and_then(|()| self.take_submission(&queue, page_shift));
        }
        if result.is_err() {
            for queue in 1..=self.max_io_queues() {
                self.remove_submission(queue);
                if let Some(slot) = self.completion_queues.get_mut(usize::from(queue)) {
                    slot.0 = None;
                }
            }
        }
        result
    }

    fn take_completion(&mut self, state: &CompletionQueueState, page_shift: u8) -> Result<(), StatusCode> {
        let memory =
            self.memory_of(state.base, state.contiguous, state.entries, COMPLETION_SHIFT, page_shift)?;
        let (head, tail) = (u32::from(state.head), u32::from(state.tail));
        let mut queue =
            CompletionQueue::new(memory, state.entries, state.interrupts_enabled.then_some(state.vector));
        queue.vector = state.vector;
        queue.ring = PhaseProducer::restore(state.entries, head, tail, state.next_phase != (tail == 0))
            .ok_or(StatusCode::INVALID_FIELD)?;
        let slot = self
            .completion_queues
            .get_mut(usize::from(state.queue.get()))
            .ok_or(StatusCode::INVALID_FIELD)?;
        slot.0 = Some(queue);
        Ok(())
    }

    fn take_submission(&mut self, state: &SubmissionQueueState, page_shift: u8) -> Result<(), StatusCode> {
        let memory =
            self.memory_of(state.base, state.contiguous, state.entries, SUBMISSION_SHIFT, page_shift)?;
        let mut queue =
            SubmissionQueue::new(memory, state.entries, state.completion_queue.get(), state.priority);
        queue.head = u32::from(state.head);
        queue.tail = u32::from(state.tail);
        self.add_submission(state.queue.get(), queue);
        Ok(())
    }
}

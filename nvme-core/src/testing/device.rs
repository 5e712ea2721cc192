// SPDX-License-Identifier: MIT OR Apache-2.0
//! A scripted device over a [`TestArena`]: it does what the protocol asks, and each wrong thing a test asks for.

use core::cell::RefCell;
use std::boxed::Box;
use std::collections::BTreeMap;
use std::vec::Vec;

use zerocopy::{FromBytes, IntoBytes};

use super::TestArena;
use crate::register::{Offset, RegisterIo};
use crate::ring::PhaseProducer;
use crate::wire::admin::{
    CreateIoCompletionQueue, CreateIoSubmissionQueue, DeleteIoCompletionQueue, DeleteIoSubmissionQueue,
};
use crate::wire::register::{
    self, AdminQueueAttributes, Capabilities, ControllerConfiguration, ControllerStatus, Doorbell,
    ShutdownNotification, ShutdownStatus,
};
use crate::wire::{
    AdminOpcode, AsynchronousEvent, BusAddr, Command, CommandId, CompletionQueueEntry, QueueId, Status,
    StatusCode, SubmissionQueueEntry,
};

/// What the device answers: status and dwords 0 and 1, or nothing for now.
pub(crate) type Answer = Option<(Status, u32, u32)>;
type Handler<'a> = Box<dyn FnMut(QueueId, &SubmissionQueueEntry) -> Answer + 'a>;

/// Success without a result.
pub(crate) const SUCCESS: Answer = Some((Status::SUCCESS, 0, 0));

struct Submission {
    base: BusAddr,
    size: u32,
    head: u32,
    tail: u32,
    completion: u16,
}

struct Completion {
    base: BusAddr,
    producer: PhaseProducer,
}

/// How a device misbehaves at bring-up and shutdown.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Manners {
    /// Status reads until RDY follows EN; `u32::MAX` for never.
    pub(crate) ready_after: u32,
    /// RDY never goes to 0 again.
    pub(crate) stays_ready: bool,
    /// EN cannot be cleared.
    pub(crate) stays_enabled: bool,
    /// CFS instead of RDY.
    pub(crate) fatal: bool,
    /// A shutdown never ends.
    pub(crate) shutdown_hangs: bool,
}

pub(crate) struct State<'a> {
    pub(crate) capabilities: Capabilities,
    pub(crate) timeouts: u32,
    pub(crate) configuration: ControllerConfiguration,
    pub(crate) status: ControllerStatus,
    pub(crate) attributes: AdminQueueAttributes,
    pub(crate) manners: Manners,
    /// Reads all ones.
    pub(crate) removed: bool,
    /// Accesses to this offset fail.
    pub(crate) broken: Option<u32>,
    /// Every command fetched, in order.
    pub(crate) commands: Vec<(QueueId, SubmissionQueueEntry)>,
    /// Doorbell writes.
    pub(crate) doorbells: Vec<(u32, u32)>,
    /// Outstanding event requests.
    pub(crate) requests: Vec<CommandId>,
    /// Most event requests accepted.
    pub(crate) request_limit: usize,
    /// Completions are posted over those that the host has not acknowledged.
    pub(crate) ignores_full_queues: bool,
    /// Commands are neither answered nor carried out.
    pub(crate) silent: bool,
    /// Overrides the answers to queue management too, if set.
    handler: Option<Handler<'a>>,
    asq: u64,
    acq: u64,
    reads: u32,
    submissions: BTreeMap<u16, Submission>,
    completions: BTreeMap<u16, Completion>,
}

pub(crate) struct Device<'a> {
    arena: &'a TestArena,
    pub(crate) state: RefCell<State<'a>>,
}

impl<'a> Device<'a> {
    pub(crate) fn new(arena: &'a TestArena) -> Self {
        let capabilities = Capabilities::from_bits(0)
            .with_max_queue_entries(65_536)
            .with_timeout_units(4)
            .with_nvm_command_set_supported(true)
            .with_max_page_size(16_384);
        Self {
            arena,
            state: RefCell::new(State {
                capabilities,
                timeouts: 0,
                configuration: ControllerConfiguration::from_bits(0),
                status: ControllerStatus::from_bits(0),
                attributes: AdminQueueAttributes::from_bits(0),
                manners: Manners::default(),
                removed: false,
                broken: None,
                commands: Vec::new(),
                doorbells: Vec::new(),
                requests: Vec::new(),
                request_limit: 4,
                ignores_full_queues: false,
                silent: false,
                handler: None,
                asq: 0,
                acq: 0,
                reads: 0,
                submissions: BTreeMap::new(),
                completions: BTreeMap::new(),
            }),
        }
    }

    /// Answers every command but event requests, and queue management if the handler answers it.
    pub(crate) fn on_command(&self, handler: impl FnMut(QueueId, &SubmissionQueueEntry) -> Answer + 'a) {
        self.state.borrow_mut().handler = Some(Box::new(handler));
    }

    /// Posts `entry` in completion queue `queue` as it is, with the right phase tag.
    pub(crate) fn post(&self, queue: u16, entry: CompletionQueueEntry) {
        let mut state = self.state.borrow_mut();
        let ignores_full = state.ignores_full_queues;
        let completion = state.completions.get_mut(&queue).expect("the queue exists");
        let entry = entry.with_phase(completion.producer.phase());
        let address = completion.base.plus(u64::from(completion.producer.tail()) * 16);
        self.arena.device_write(address, entry.as_bytes());
        if !completion.producer.advance() {
            assert!(ignores_full, "the completion queue overflows");
            completion.producer.set_head(completion.producer.tail()).expect("its own tail");
            assert!(completion.producer.advance());
        }
    }

    /// Completes command `id` of submission queue `queue`.
    pub(crate) fn complete(&self, queue: u16, id: CommandId, status: Status, dw0: u32, dw1: u32) {
        let (head, completion) = {
            let state = self.state.borrow();
            let submission = &state.submissions[&queue];
            (submission.head as u16, submission.completion)
        };
        let entry = CompletionQueueEntry::new(QueueId::new(queue), head, id, status).with_result(dw0, dw1);
        self.post(completion, entry);
    }

    /// Reports an event if a request is outstanding.
    pub(crate) fn event(&self, event: AsynchronousEvent) -> bool {
        let mut state = self.state.borrow_mut();
        if state.requests.is_empty() {
            return false;
        }
        let id = state.requests.remove(0);
        drop(state);
        let (dw0, dw1) = event.result();
        self.complete(0, id, Status::SUCCESS, dw0, dw1);
        true
    }

    /// The commands fetched since the last call, of one queue.
    pub(crate) fn take_commands(&self, queue: u16) -> Vec<SubmissionQueueEntry> {
        let mut state = self.state.borrow_mut();
        let (taken, kept) = state.commands.drain(..).partition(|(q, _)| q.get() == queue);
        state.commands = kept;
        let taken: Vec<(QueueId, SubmissionQueueEntry)> = taken;
        taken.into_iter().map(|(_, entry)| entry).collect()
    }

    /// Whether any I/O queue exists.
    pub(crate) fn io_queues(&self) -> (usize, usize) {
        let state = self.state.borrow();
        let count = |keys: Vec<u16>| keys.into_iter().filter(|id| *id != 0).count();
        (
            count(state.submissions.keys().copied().collect()),
            count(state.completions.keys().copied().collect()),
        )
    }

    fn fetch(&self, queue: u16) {
        loop {
            let entry = {
                let mut state = self.state.borrow_mut();
                let Some(submission) = state.submissions.get_mut(&queue) else { return };
                if submission.head == submission.tail {
                    return;
                }
                let mut bytes = [0; 64];
                self.arena.device_read(submission.base.plus(u64::from(submission.head) * 64), &mut bytes);
                submission.head = (submission.head + 1) % submission.size;
                let entry = SubmissionQueueEntry::read_from_bytes(&bytes).unwrap();
                state.commands.push((QueueId::new(queue), entry));
                entry
            };
            if self.state.borrow().silent {
                continue;
            }
            let mut handler = self.state.borrow_mut().handler.take();
            let mut answer = handler.as_mut().and_then(|handler| handler(QueueId::new(queue), &entry));
            let handled = handler.is_some();
            self.state.borrow_mut().handler = handler;
            if queue == 0 && answer.is_none() {
                answer = self.manage(&entry);
            } else if !handled {
                answer = SUCCESS;
            }
            if let Some((status, dw0, dw1)) = answer {
                self.complete(queue, entry.command_id(), status, dw0, dw1);
            }
        }
    }

    fn manage(&self, entry: &SubmissionQueueEntry) -> Answer {
        let mut state = self.state.borrow_mut();
        match AdminOpcode::new(entry.opcode()) {
            AdminOpcode::CREATE_IO_COMPLETION_QUEUE => {
                let command = CreateIoCompletionQueue::decode(entry).unwrap();
                assert!(command.contiguous);
                let producer = PhaseProducer::new(command.entries);
                let made = Completion { base: entry.prp1(), producer };
                assert!(state.completions.insert(command.queue.get(), made).is_none());
                SUCCESS
            }
            AdminOpcode::CREATE_IO_SUBMISSION_QUEUE => {
                let command = CreateIoSubmissionQueue::decode(entry).unwrap();
                let made = Submission {
                    base: entry.prp1(),
                    size: command.entries,
                    head: 0,
                    tail: 0,
                    completion: command.completion_queue.get(),
                };
                assert!(state.completions.contains_key(&command.completion_queue.get()));
                assert!(state.submissions.insert(command.queue.get(), made).is_none());
                SUCCESS
            }
            AdminOpcode::DELETE_IO_SUBMISSION_QUEUE => {
                let command = DeleteIoSubmissionQueue::decode(entry).unwrap();
                assert!(state.submissions.remove(&command.queue.get()).is_some());
                SUCCESS
            }
            AdminOpcode::DELETE_IO_COMPLETION_QUEUE => {
                let command = DeleteIoCompletionQueue::decode(entry).unwrap();
                assert!(state.submissions.values().all(|s| s.completion != command.queue.get()));
                assert!(state.completions.remove(&command.queue.get()).is_some());
                SUCCESS
            }
            AdminOpcode::ASYNCHRONOUS_EVENT_REQUEST => {
                if state.requests.len() == state.request_limit {
                    return Some((StatusCode::AER_LIMIT_EXCEEDED.status(), 0, 0));
                }
                state.requests.push(entry.command_id());
                None
            }
            _ => None,
        }
    }

    fn configure(state: &mut State<'_>, new: ControllerConfiguration) {
        let old = state.configuration;
        state.configuration = new;
        if old.enabled() && !new.enabled() {
            state.submissions.clear();
            state.completions.clear();
            state.requests.clear();
            let ready = state.manners.stays_ready && state.status.ready();
            state.status = ControllerStatus::from_bits(0).with_ready(ready);
        } else if !old.enabled() && new.enabled() {
            assert!(!state.status.ready(), "EN is set only while RDY is 0");
            state.reads = 0;
            let submission = Submission {
                base: BusAddr::new(state.asq),
                size: u32::from(state.attributes.submission_entries()),
                head: 0,
                tail: 0,
                completion: 0,
            };
            let producer = PhaseProducer::new(u32::from(state.attributes.completion_entries()));
            state.submissions.insert(0, submission);
            state.completions.insert(0, Completion { base: BusAddr::new(state.acq), producer });
        }
        if old.shutdown() == ShutdownNotification::None && new.shutdown() != ShutdownNotification::None {
            let reached = if state.manners.shutdown_hangs {
                ShutdownStatus::InProgress
            } else {
                ShutdownStatus::Complete
            };
            state.status = state.status.with_shutdown(reached);
        }
    }

    fn read_status(state: &mut State<'_>) -> u32 {
        if state.configuration.enabled() && !state.status.ready() {
            if state.manners.fatal {
                state.status = state.status.with_fatal(true);
            } else if state.manners.ready_after != u32::MAX && state.reads >= state.manners.ready_after {
                state.status = state.status.with_ready(true);
            }
            state.reads += 1;
        }
        state.status.bits()
    }
}

impl RegisterIo for Device<'_> {
    type Error = ();

    fn read32(&self, offset: Offset) -> Result<u32, ()> {
        let state = &mut *self.state.borrow_mut();
        if state.broken == Some(offset.bytes()) {
            return Err(());
        }
        if state.removed {
            return Ok(u32::MAX);
        }
        Ok(match offset.bytes() {
            register::CAP => state.capabilities.bits() as u32,
            4 => (state.capabilities.bits() >> 32) as u32,
            register::VS => register::Version::V2_1.bits(),
            register::CC => state.configuration.bits(),
            register::CSTS => Self::read_status(state),
            register::CRTO => state.timeouts,
            other => panic!("the driver reads {other:#x}"),
        })
    }

    fn write32(&self, offset: Offset, value: u32) -> Result<(), ()> {
        let mut guard = self.state.borrow_mut();
        let state = &mut *guard;
        if state.broken == Some(offset.bytes()) {
            return Err(());
        }
        if state.removed {
            return Ok(());
        }
        let half = |old: u64, upper: bool| match upper {
            false => (old & !0xFFFF_FFFF) | u64::from(value),
            true => (old & 0xFFFF_FFFF) | (u64::from(value) << 32),
        };
        match offset.bytes() {
            register::CC if state.manners.stays_enabled && value & 1 == 0 => {}
            register::CC => Self::configure(state, ControllerConfiguration::from_bits(value)),
            register::AQA => state.attributes = AdminQueueAttributes::from_bits(value),
            register::ASQ => state.asq = half(state.asq, false),
            0x2C => state.asq = half(state.asq, true),
            register::ACQ => state.acq = half(state.acq, false),
            0x34 => state.acq = half(state.acq, true),
            doorbell => {
                state.doorbells.push((doorbell, value));
                match Doorbell::at(doorbell, state.capabilities.doorbell_stride()) {
                    Some(Doorbell::SubmissionTail(queue)) => {
                        let submission =
                            state.submissions.get_mut(&queue.get()).expect("a queue that exists");
                        assert!(value < submission.size, "tail inside the ring");
                        submission.tail = value;
                        drop(guard);
                        self.fetch(queue.get());
                    }
                    Some(Doorbell::CompletionHead(queue)) => {
                        let completion =
                            state.completions.get_mut(&queue.get()).expect("a queue that exists");
                        let known = completion.producer.set_head(value).is_ok();
                        assert!(known || state.ignores_full_queues, "a legal head");
                    }
                    None => panic!("the driver writes {doorbell:#x}"),
                }
            }
        }
        Ok(())
    }
}

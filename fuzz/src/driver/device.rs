// SPDX-License-Identifier: MIT OR Apache-2.0
//! A device that does what the protocol says, and what the input says instead.

use std::cell::RefCell;
use std::collections::BTreeMap;

use nvme_controller::host::HostMemory;
use nvme_core::dma::checking::Access;
use nvme_core::register::{Offset, RegisterIo};
use nvme_core::ring::PhaseProducer;
use nvme_core::wire::admin::{
    Abort, CreateIoCompletionQueue, CreateIoSubmissionQueue, DeleteIoCompletionQueue, DeleteIoSubmissionQueue,
};
use nvme_core::wire::identify::ControllerIdentity;
use nvme_core::wire::register::{
    AdminQueueAttributes, Capabilities, ControllerConfiguration, ControllerStatus, Doorbell,
    ShutdownNotification, ShutdownStatus,
};
use nvme_core::wire::{
    AdminOpcode, BusAddr, CdqEvent, CdqId, Command, CommandId, CompletionQueueEntry, ControllerId, IoOpcode,
    QueueId, Status, StatusCode, SubmissionQueueEntry,
};
use nvme_tests::checked::CheckedSpace;
use zerocopy::{FromBytes, IntoBytes};

use crate::Input;
use crate::status::Verdict;

/// The identifier of the one Controller Data Queue.
const QUEUE: CdqId = CdqId::new(3);

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

pub(super) struct State<'b> {
    pub(super) input: Input<'b>,
    configuration: ControllerConfiguration,
    status: ControllerStatus,
    attributes: AdminQueueAttributes,
    asq: u64,
    acq: u64,
    submissions: BTreeMap<u16, Submission>,
    completions: BTreeMap<u16, Completion>,
    pending: Vec<(u16, SubmissionQueueEntry)>,
    /// Base and slots of the Controller Data Queue.
    data_queue: Option<(BusAddr, PhaseProducer)>,
    /// It has told no lie about commands: what it says ended has ended.
    honest: bool,
    /// Everything reads as ones.
    gone: bool,
    /// RDY does not follow EN.
    stuck: bool,
}

pub(crate) struct Device<'a, 's, 'b> {
    arena: &'a CheckedSpace<'s>,
    pub(super) state: RefCell<State<'b>>,
}

impl<'a, 's, 'b> Device<'a, 's, 'b> {
    pub(crate) fn new(arena: &'a CheckedSpace<'s>, input: Input<'b>) -> Self {
        Self {
            arena,
            state: RefCell::new(State {
                input,
                configuration: ControllerConfiguration::from_bits(0),
                status: ControllerStatus::from_bits(0),
                attributes: AdminQueueAttributes::from_bits(0),
                asq: 0,
                acq: 0,
                submissions: BTreeMap::new(),
                completions: BTreeMap::new(),
                pending: Vec::new(),
                data_queue: None,
                honest: true,
                gone: false,
                stuck: false,
            }),
        }
    }

    /// The next decision of the input, below `bound`.
    pub(crate) fn below(&self, bound: u32) -> u32 {
        self.state.borrow_mut().input.below(bound)
    }

    pub(crate) fn is_over(&self) -> bool {
        self.state.borrow().input.is_empty()
    }

    /// From now on it follows the rules, as far as being disabled goes.
    pub(crate) fn behave(&self) {
        let state = &mut *self.state.borrow_mut();
        state.input = Input::new(&[]);
        (state.gone, state.stuck) = (false, false);
        if !state.configuration.enabled() {
            state.status = ControllerStatus::from_bits(0);
        }
    }

    fn fetch(&self, queue: u16) {
        let state = &mut *self.state.borrow_mut();
        let Some(submission) = state.submissions.get_mut(&queue) else { return };
        while submission.head != submission.tail {
            let address = submission.base.plus(u64::from(submission.head) * 64);
            let mut bytes = [0; 64];
            self.read(address, &mut bytes);
            submission.head = (submission.head + 1) % submission.size;
            let entry = SubmissionQueueEntry::read_from_bytes(&bytes).expect("64 bytes");
            if state.honest && carries_data(queue, &entry) {
                assert!(self.arena.hold(entry.prp1()), "a data pointer to nowhere: {entry:?}");
            }
            state.pending.push((queue, entry));
        }
    }

    fn read(&self, address: BusAddr, bytes: &mut [u8]) {
        let checked = self.arena.device_access(address, bytes.len(), Access::Read);
        assert_eq!(checked, Ok(()), "the driver let the device read this");
        self.arena.inner().read(address, bytes).expect("mapped");
    }

    fn write(&self, address: BusAddr, bytes: &[u8]) {
        let checked = self.arena.device_access(address, bytes.len(), Access::Write);
        assert_eq!(checked, Ok(()), "the driver let the device write this");
        if bytes.len() == 16 || bytes.len() == 32 {
            self.arena.inner().write_entry(address, bytes).expect("mapped");
        } else {
            self.arena.inner().write(address, bytes).expect("mapped");
        }
    }

    fn post(&self, state: &mut State<'_>, queue: u16, entry: CompletionQueueEntry) {
        let Some(completion) = state.completions.get_mut(&queue) else { return };
        if completion.producer.is_full() {
            return;
        }
        let entry = entry.with_phase(completion.producer.phase());
        self.write(completion.base.plus(u64::from(completion.producer.tail()) * 16), entry.as_bytes());
        assert!(completion.producer.advance());
    }

    /// Does one thing, mostly what it should.
    pub(crate) fn act(&self) {
        let state = &mut *self.state.borrow_mut();
        if state.gone || !state.status.ready() {
            return;
        }
        match state.input.below(24) {
            0 => self.post_change(state),
            1 => {
                let event =
                    if state.input.rarely(2) { CdqEvent::Full(QUEUE) } else { CdqEvent::TailPointer(QUEUE) };
                let aer = |(queue, entry): &(u16, SubmissionQueueEntry)| {
                    *queue == 0 && AdminOpcode::new(entry.opcode()) == AdminOpcode::ASYNCHRONOUS_EVENT_REQUEST
                };
                if let Some(at) = state.pending.iter().position(aer) {
                    let (_, entry) = state.pending.remove(at);
                    let (dw0, dw1) = nvme_core::wire::AsynchronousEvent::from(event).result();
                    self.complete(state, 0, entry.command_id(), Status::SUCCESS, (dw0, dw1));
                }
            }
            2 => self.lie(state),
            _ => {
                if state.pending.is_empty() {
                    return;
                }
                let at = state.input.below(256) as usize % state.pending.len();
                let (queue, entry) = state.pending[at];
                if queue == 0 && AdminOpcode::new(entry.opcode()) == AdminOpcode::ASYNCHRONOUS_EVENT_REQUEST {
                    return;
                }
                state.pending.remove(at);
                self.execute(state, queue, &entry);
            }
        }
    }

    /// Says something about commands that is not so.
    fn lie(&self, state: &mut State<'_>) {
        if !state.input.rarely(3) {
            return;
        }
        state.honest = false;
        self.arena.let_go_of_all();
        let queue = u16::from(state.input.below(3) as u8);
        match state.input.below(6) {
            0 => {
                let bytes: [u8; 16] = state.input.array();
                let entry = CompletionQueueEntry::read_from_bytes(&bytes).expect("16 bytes");
                self.post(state, queue, entry);
            }
            1 => {
                let id = CommandId::new(state.input.u16());
                let entry = CompletionQueueEntry::new(QueueId::new(queue), 0, id, Status::SUCCESS);
                self.post(state, queue, entry);
            }
            2 => state.gone = true,
            3 => state.status = state.status.with_fatal(true),
            4 => {
                // An entry with the tag of another lap, where nothing was promised.
                let bytes: [u8; 16] = state.input.array();
                if let Some(completion) = state.completions.get(&queue) {
                    let slot = u64::from(state.input.u8()) % u64::from(completion.producer.size());
                    self.write(completion.base.plus(slot * 16), &bytes);
                }
            }
            _ => state.stuck = true,
        }
    }

    fn complete(&self, state: &mut State<'_>, queue: u16, id: CommandId, status: Status, result: (u32, u32)) {
        let Some(submission) = state.submissions.get(&queue) else { return };
        let (head, completion) = (submission.head as u16, submission.completion);
        let entry =
            CompletionQueueEntry::new(QueueId::new(queue), head, id, status).with_result(result.0, result.1);
        self.post(state, completion, entry);
    }

    fn execute(&self, state: &mut State<'_>, queue: u16, entry: &SubmissionQueueEntry) {
        let room = state
            .submissions
            .get(&queue)
            .and_then(|submission| state.completions.get(&submission.completion))
            .is_some_and(|completion| !completion.producer.is_full());
        if !room {
            state.pending.push((queue, *entry));
            return;
        }
        let Verdict { mut status, takes_effect } =
            if state.input.rarely(12) { Verdict::choose(&mut state.input) } else { Verdict::SUCCESS };
        let mut result = (0, 0);
        if takes_effect {
            let makes_sense = queue != 0 || self.manage(state, entry, &mut result);
            if !makes_sense {
                result = (0, 0);
                if status.is_success() {
                    status = StatusCode::INVALID_FIELD.status();
                }
            } else if state.honest {
                self.transfer(state, queue, entry);
            }
        }
        if state.honest && carries_data(queue, entry) {
            self.arena.let_go(entry.prp1());
        }
        self.complete(state, queue, entry.command_id(), status, result);
    }

    /// Moves the first bytes of a command's data.
    fn transfer(&self, state: &mut State<'_>, queue: u16, entry: &SubmissionQueueEntry) {
        if !carries_data(queue, entry) {
            return;
        }
        let [_, _, dword12, ..] = entry.dwords();
        let len = if queue == 0 { 4096 } else { (dword12 as usize & 0xFFFF) * 512 + 512 };
        let len = len.min(4096 - entry.prp1().page_offset(4096) as usize);
        if queue != 0 && IoOpcode::new(entry.opcode()) == IoOpcode::WRITE {
            self.read(entry.prp1(), &mut vec![0; len]);
        } else {
            let byte = state.input.u8();
            let mut page = [byte; 4096];
            if queue == 0 && byte < 0xF0 {
                let identity = ControllerIdentity {
                    controller: ControllerId::new(1),
                    event_request_limit: 1 + u16::from(byte & 3),
                    abort_limit: 1 + u16::from(byte >> 2 & 3),
                    ..ControllerIdentity::default()
                };
                identity.build(&mut page);
            }
            self.write(entry.prp1(), &page[..len]);
        }
    }

    /// Notes that the device has memory of its own accord, until it lets go of it.
    fn hold(&self, state: &State<'_>, base: BusAddr) {
        if state.honest {
            assert!(self.arena.hold(base), "a queue in memory that is not there: {base}");
        }
    }

    fn let_go(&self, state: &State<'_>, base: BusAddr) {
        if state.honest {
            self.arena.let_go(base);
        }
    }

    /// Commands that do more than move data; `false`, with a mark in `result`, if the command makes no sense.
    fn manage(&self, state: &mut State<'_>, entry: &SubmissionQueueEntry, result: &mut (u32, u32)) -> bool {
        let known = match AdminOpcode::new(entry.opcode()) {
            AdminOpcode::CREATE_IO_COMPLETION_QUEUE => {
                let command = CreateIoCompletionQueue::decode(entry).ok();
                command.filter(|command| !state.completions.contains_key(&command.queue.get())).is_some_and(
                    |command| {
                        self.hold(state, entry.prp1());
                        let producer = PhaseProducer::new(command.entries);
                        let made = Completion { base: entry.prp1(), producer };
                        state.completions.insert(command.queue.get(), made).is_none()
                    },
                )
            }
            AdminOpcode::CREATE_IO_SUBMISSION_QUEUE => {
                let command = CreateIoSubmissionQueue::decode(entry).ok();
                command.filter(|command| !state.submissions.contains_key(&command.queue.get())).is_some_and(
                    |command| {
                        self.hold(state, entry.prp1());
                        let made = Submission {
                            base: entry.prp1(),
                            size: command.entries,
                            head: 0,
                            tail: 0,
                            completion: command.completion_queue.get(),
                        };
                        state.submissions.insert(command.queue.get(), made).is_none()
                    },
                )
            }
            AdminOpcode::DELETE_IO_SUBMISSION_QUEUE => {
                DeleteIoSubmissionQueue::decode(entry).is_ok_and(|command| {
                    let queue = command.queue.get();
                    // What was not completed ends with the queue.
                    for (_, dropped) in state.pending.extract_if(.., |(of, _)| *of == queue) {
                        if state.honest && carries_data(queue, &dropped) {
                            self.arena.let_go(dropped.prp1());
                        }
                    }
                    let gone = state.submissions.remove(&queue);
                    gone.is_some_and(|gone| {
                        self.let_go(state, gone.base);
                        true
                    })
                })
            }
            AdminOpcode::DELETE_IO_COMPLETION_QUEUE => {
                DeleteIoCompletionQueue::decode(entry).is_ok_and(|command| {
                    let queue = command.queue.get();
                    let used = state.submissions.values().any(|submission| submission.completion == queue);
                    let gone = if used { None } else { state.completions.remove(&queue) };
                    gone.is_some_and(|gone| {
                        self.let_go(state, gone.base);
                        true
                    })
                })
            }
            AdminOpcode::CONTROLLER_DATA_QUEUE => {
                let [dword10, _, dword12, ..] = entry.dwords();
                if dword10 & 0xFF == 0 {
                    *result = (QUEUE.get().into(), 0);
                    let producer = PhaseProducer::new((dword12 / 8).max(2));
                    let free = state.data_queue.is_none();
                    if free {
                        self.hold(state, entry.prp1());
                        state.data_queue = Some((entry.prp1(), producer));
                    }
                    free
                } else {
                    let gone = state.data_queue.take();
                    gone.is_some_and(|(base, _)| {
                        self.let_go(state, base);
                        true
                    })
                }
            }
            AdminOpcode::SET_FEATURES if entry.dwords()[0] & 0xFF == 7 => {
                *result = (0x0003_0003, 0);
                true
            }
            AdminOpcode::ABORT => Abort::decode(entry).is_ok_and(|command| {
                let queue = command.queue.get();
                let named = |(of, entry): &(u16, SubmissionQueueEntry)| {
                    *of == queue && entry.command_id() == command.command
                };
                let at = state.pending.iter().position(named).filter(|_| state.input.below(3) != 0);
                *result = (Abort::result(at.is_some()), 0);
                if let Some(at) = at {
                    let (_, aborted) = state.pending.remove(at);
                    if state.honest && carries_data(queue, &aborted) {
                        self.arena.let_go(aborted.prp1());
                    }
                    let status = StatusCode::ABORT_REQUESTED.status();
                    self.complete(state, queue, aborted.command_id(), status, (0, 0));
                }
                true
            }),
            _ => true,
        };
        if !known {
            *result = (u32::MAX, 0);
        }
        known
    }

    /// Any entry with the next tag, in the Controller Data Queue, which it never believes to be full.
    fn post_change(&self, state: &mut State<'_>) {
        let mut bytes: [u8; 32] = state.input.array();
        let Some((base, producer)) = &mut state.data_queue else { return };
        bytes[31] = bytes[31] & !1 | u8::from(producer.phase());
        self.write(base.plus(u64::from(producer.tail()) * 32), &bytes);
        if producer.is_full() {
            assert!(producer.set_head(producer.tail()).is_ok());
        }
        assert!(producer.advance());
    }

    fn configure(&self, state: &mut State<'_>, new: ControllerConfiguration) {
        let old = state.configuration;
        state.configuration = new;
        if old.enabled() && !new.enabled() {
            // Whatever else it does: it lets go of memory.
            state.submissions.clear();
            state.completions.clear();
            state.pending.clear();
            state.data_queue = None;
            state.honest = true;
            self.arena.let_go_of_all();
            state.status = ControllerStatus::from_bits(0).with_ready(state.stuck);
        } else if !old.enabled() && new.enabled() {
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
            state.status = state.status.with_ready(!state.stuck);
        }
        if old.shutdown() == ShutdownNotification::None && new.shutdown() != ShutdownNotification::None {
            state.status = state.status.with_shutdown(ShutdownStatus::Complete);
        }
    }
}

/// Whether PRP1 names memory that belongs to the command.
fn carries_data(queue: u16, entry: &SubmissionQueueEntry) -> bool {
    if queue == 0 {
        return AdminOpcode::new(entry.opcode()) == AdminOpcode::IDENTIFY;
    }
    matches!(IoOpcode::new(entry.opcode()), IoOpcode::READ | IoOpcode::WRITE)
}

impl RegisterIo for Device<'_, '_, '_> {
    type Error = ();

    fn read32(&self, offset: Offset) -> Result<u32, ()> {
        let state = &mut *self.state.borrow_mut();
        if state.gone {
            return Ok(u32::MAX);
        }
        let capabilities = Capabilities::from_bits(0)
            .with_max_queue_entries(64)
            .with_timeout_units(2)
            .with_nvm_command_set_supported(true);
        Ok(match offset.bytes() {
            0x00 => capabilities.bits() as u32,
            0x04 => (capabilities.bits() >> 32) as u32,
            0x08 => 0x0002_0100,
            0x14 => state.configuration.bits(),
            0x1C => {
                if state.input.rarely(64) {
                    match state.input.below(4) {
                        0 => state.gone = true,
                        1 => state.status = state.status.with_fatal(true),
                        2 => return Err(()),
                        _ => return Ok(state.input.u32()),
                    }
                }
                state.status.bits()
            }
            _ => 0,
        })
    }

    fn write32(&self, offset: Offset, value: u32) -> Result<(), ()> {
        let mut guard = self.state.borrow_mut();
        let state = &mut *guard;
        if state.gone {
            return Ok(());
        }
        let half = |old: u64, upper: bool| match upper {
            false => (old & !0xFFFF_FFFF) | u64::from(value),
            true => (old & 0xFFFF_FFFF) | (u64::from(value) << 32),
        };
        match offset.bytes() {
            0x14 => self.configure(state, ControllerConfiguration::from_bits(value)),
            0x24 => state.attributes = AdminQueueAttributes::from_bits(value),
            0x28 => state.asq = half(state.asq, false),
            0x2C => state.asq = half(state.asq, true),
            0x30 => state.acq = half(state.acq, false),
            0x34 => state.acq = half(state.acq, true),
            doorbell => match Doorbell::at(doorbell, 4) {
                Some(Doorbell::SubmissionTail(queue)) => {
                    let honest = state.honest;
                    match state.submissions.get_mut(&queue.get()) {
                        Some(submission) => {
                            assert!(value < submission.size, "tail {value} of {}", submission.size);
                            submission.tail = value;
                            drop(guard);
                            self.fetch(queue.get());
                        }
                        None => assert!(!honest, "a doorbell of queue {queue}, which does not exist"),
                    }
                }
                Some(Doorbell::CompletionHead(queue)) => {
                    let honest = state.honest;
                    if let Some(completion) = state.completions.get_mut(&queue.get()) {
                        let taken = completion.producer.set_head(value);
                        assert!(taken.is_ok() || !honest, "{taken:?}");
                    }
                }
                None => panic!("the driver writes {doorbell:#x}"),
            },
        }
        Ok(())
    }
}

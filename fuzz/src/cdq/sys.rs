// SPDX-License-Identifier: MIT OR Apache-2.0
//! An admin queue that answers as told.
#![allow(unsafe_code, reason = "who implements the port answers for it; nothing unsafe is done here")]

use std::collections::VecDeque;

use nvme_core::admin::{
    AdminCompletion, AdminData, AdminHandle, AdminOutcome, AdminPort, AdminRequest, EventFilter, Generation,
    Life, SubmitError,
};
use nvme_core::time::Instant;
use nvme_core::wire::admin::SetFeatures;
use nvme_core::wire::cdq::ControllerDataQueueCommand;
use nvme_core::wire::feature::ControllerDataQueueFeature;
use nvme_core::wire::{
    AsynchronousEvent, BusAddr, Command, CommandId, CompletionQueueEntry, QueueId, Status, StatusCode,
};

use super::{Arena, ID};
use crate::Input;
use crate::status::Verdict;

/// How the next command is answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Answer {
    Success,
    Refused,
    NotAtTail,
    TimedOut,
    Lost,
    Busy,
    Late,
    /// Any status, with the effect that it leaves open.
    Any(Verdict),
}

impl Answer {
    const ALL: [Self; 7] =
        [Self::Success, Self::Refused, Self::NotAtTail, Self::TimedOut, Self::Lost, Self::Busy, Self::Late];

    /// The answer that the input chooses.
    pub(super) fn choose(input: &mut Input<'_>) -> Self {
        let choice = input.below(9) as usize;
        Self::ALL.get(choice).copied().unwrap_or_else(|| Self::Any(Verdict::choose(input)))
    }
}

/// An admin queue that answers as told.
pub(super) struct Port<'a, 's> {
    arena: &'a Arena<'s>,
    pub(super) answer: Answer,
    answers: VecDeque<(AdminHandle, AdminOutcome)>,
    pub(super) events: VecDeque<AsynchronousEvent>,
    /// Heads the controller was given and took.
    pub(super) taken: Vec<ControllerDataQueueFeature>,
    pub(super) base: BusAddr,
    next: u16,
    life: Life,
    /// A head update is on its way.
    updating: bool,
    /// The controller has, or may have, the queue.
    pub(super) has_queue: bool,
}

impl<'a, 's> Port<'a, 's> {
    pub(super) fn new(arena: &'a Arena<'s>) -> Self {
        Self {
            arena,
            answer: Answer::Success,
            answers: VecDeque::new(),
            events: VecDeque::new(),
            taken: Vec::new(),
            base: BusAddr::new(0),
            next: 0,
            life: Life::new(),
            updating: false,
            has_queue: false,
        }
    }
}

// SAFETY: the port has one arena and one life, and no controller is behind it: whatever it answers, memory is reached by
// this thread's copies alone.
unsafe impl<'s> AdminPort for Port<'_, 's> {
    type Arena = Arena<'s>;

    fn arena(&self) -> &Self::Arena {
        self.arena
    }

    fn page_size(&self) -> usize {
        4096
    }

    fn max_transfer(&self) -> usize {
        4096
    }

    fn generation(&self) -> Generation {
        self.life.generation()
    }

    fn is_live(&self) -> bool {
        true
    }

    fn submit(
        &mut self,
        request: AdminRequest,
        _: Instant,
    ) -> Result<AdminHandle, (SubmitError, AdminRequest)> {
        if self.answer == Answer::Busy {
            self.answer = Answer::Success;
            return Err((SubmitError::Busy, request));
        }
        if let AdminData::QueueBase(base) = request.data {
            self.base = base;
        }
        let feature = (request.command.opcode() == SetFeatures::OPCODE).then(|| {
            assert!(!self.updating, "two head updates at once");
            self.updating = true;
            let set = SetFeatures::decode(&request.command).expect("a legal command");
            ControllerDataQueueFeature::from_set_features(&set).expect("a legal feature")
        });
        self.next += 1;
        let entry = |status: Status| {
            let id = CommandId::new(self.next);
            let entry = CompletionQueueEntry::new(QueueId::ADMIN, 0, id, status);
            AdminOutcome::Completed(entry.with_result(ID.get().into(), 0))
        };
        let (effect, may_have_effect) = match self.answer {
            Answer::Success | Answer::Late | Answer::Busy => (true, true),
            Answer::Any(verdict) => (verdict.takes_effect, verdict.takes_effect),
            Answer::TimedOut | Answer::Lost => (false, true),
            Answer::Refused | Answer::NotAtTail => (false, false),
        };
        if effect {
            self.taken.extend(feature);
        }
        match ControllerDataQueueCommand::decode(&request.command) {
            Ok(ControllerDataQueueCommand::Create(_)) => self.has_queue = may_have_effect,
            Ok(ControllerDataQueueCommand::Delete(_)) => self.has_queue &= !effect,
            Err(_) => {}
        }
        let outcome = match self.answer {
            Answer::Success | Answer::Late | Answer::Busy => entry(Status::SUCCESS),
            Answer::Any(verdict) => entry(verdict.status),
            Answer::Refused => entry(StatusCode::INTERNAL_ERROR.status()),
            Answer::NotAtTail => entry(StatusCode::INVALID_FIELD.status().with_do_not_retry()),
            Answer::TimedOut => AdminOutcome::TimedOut,
            Answer::Lost => AdminOutcome::Lost,
        };
        let handle = self.life.handle(CommandId::new(self.next));
        self.answers.push_back((handle, outcome));
        Ok(handle)
    }

    fn take(&mut self, handle: AdminHandle) -> Option<AdminCompletion> {
        if self.answer == Answer::Late {
            self.answer = Answer::Success;
            return None;
        }
        let at = self.answers.iter().position(|(of, _)| *of == handle)?;
        let (_, outcome) = self.answers.remove(at)?;
        self.updating = false;
        Some(AdminCompletion { outcome, region: None })
    }

    fn abandon(&mut self, handle: AdminHandle) {
        self.answers.retain(|(of, _)| *of != handle);
        self.updating = false;
    }

    fn take_event(&mut self, filter: EventFilter) -> Option<AsynchronousEvent> {
        let at = self.events.iter().position(|event| filter.matches(event))?;
        self.events.remove(at)
    }

    fn next_deadline(&self) -> Option<Instant> {
        None
    }
}

// SPDX-License-Identifier: MIT OR Apache-2.0
//! A managing controller in miniature behind an [`AdminPort`], with faults on demand. For tests.
#![allow(dead_code, reason = "shared by the tests of several modules")]
#![allow(unsafe_code, reason = "a port takes the test's word for the device behind it")]

mod device;

use core::time::Duration;
use std::collections::VecDeque;
use std::vec::Vec;

pub(crate) use device::{Device, Running};

use crate::admin::{
    AdminCompletion, AdminData, AdminHandle, AdminOutcome, AdminPort, AdminRequest, EventFilter, Generation,
    Life, SubmitError,
};
use crate::dma::{Direction, DmaArena, DmaRegion};
use crate::testing::{PAGE, TestArena, TestProof};
use crate::time::Instant;
use crate::wire::lba_migration::{Change, EntrySequence};
use crate::wire::{
    AsynchronousEvent, CdqId, CommandId, CompletionQueueEntry, QueueId, Status, StatusCode,
    SubmissionQueueEntry,
};

/// What goes wrong with a command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// Completed with this status, not executed.
    Status(StatusCode),
    /// Executed, and completed with this status whatever came of it.
    DoneBut(Status),
    /// Times out; never executed.
    TimesOut,
    /// Executed, but times out.
    DoneButTimesOut,
    /// The controller is reset under it; not executed.
    Lost,
    /// The controller resets itself before the command comes, and the port notices.
    NotReady,
    /// The port has no room this many times.
    Busy(u32),
    /// The completion comes this many polls later.
    Late(u32),
    /// Executed and completed; the port notices then that the controller has failed.
    LastDone,
    /// Not executed; the completion with this status comes so many polls later.
    LateStatus(u32, StatusCode),
}

/// A fault for the command with this opcode and select field, the first `skip` of them spared.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Rule {
    pub(crate) opcode: u8,
    pub(crate) select: Option<u8>,
    pub(crate) skip: u32,
    pub(crate) fault: Fault,
}

impl Rule {
    pub(crate) const fn new(opcode: u8, select: u8, fault: Fault) -> Self {
        Self { opcode, select: Some(select), skip: 0, fault }
    }

    pub(crate) const fn after(mut self, skip: u32) -> Self {
        self.skip = skip;
        self
    }
}

struct Outstanding {
    handle: AdminHandle,
    late: u32,
    completion: AdminCompletion,
}

/// See the module. The device is a public field: tests act as its guest.
pub(crate) struct FakePort<'a> {
    arena: &'a TestArena,
    pub(crate) device: Device,
    pub(crate) rules: Vec<Rule>,
    pub(crate) sent: Vec<SubmissionQueueEntry>,
    pub(crate) events: VecDeque<AsynchronousEvent>,
    pub(crate) max_transfer: usize,
    outstanding: Vec<Outstanding>,
    held: Vec<DmaRegion>,
    next: u16,
    life: Life,
    /// The port has noticed that the controller failed.
    pub(crate) dead: bool,
}

impl<'a> FakePort<'a> {
    pub(crate) fn new(arena: &'a TestArena, device: Device) -> Self {
        Self {
            arena,
            device,
            rules: Vec::new(),
            sent: Vec::new(),
            events: VecDeque::new(),
            max_transfer: 8192,
            outstanding: Vec::new(),
            held: Vec::new(),
            next: 0,
            life: Life::new(),
            dead: false,
        }
    }

    /// The guest writes blocks of a namespace.
    pub(crate) fn write(&mut self, namespace: u32, start: u64, values: &[u64]) {
        self.device.write(self.arena, &mut self.events, namespace, start, values);
    }

    /// Posts an entry into queue `id`; `false` if it is full or unknown.
    pub(crate) fn post(&mut self, id: CdqId, sequence: EntrySequence, change: Change) -> bool {
        self.device.post_entry(self.arena, &mut self.events, id.get(), sequence, change)
    }

    /// Posts an entry as it is.
    pub(crate) fn post_raw(&mut self, id: CdqId, bytes: [u8; 32]) -> bool {
        self.device.post(self.arena, &mut self.events, id.get(), bytes)
    }

    /// How many commands with this opcode and select field were submitted.
    pub(crate) fn count(&self, opcode: u8, select: u8) -> usize {
        self.sent
            .iter()
            .filter(|sqe| sqe.opcode() == opcode && sqe.dwords()[0] & 0xFF == u32::from(select))
            .count()
    }

    /// How many commands are on their way.
    pub(crate) fn in_flight(&self) -> usize {
        self.outstanding.len()
    }

    /// Disables the controller: it lets go of everything.
    pub(crate) fn disable(&mut self) {
        self.life.renew();
        self.held.extend(self.outstanding.drain(..).filter_map(|one| one.completion.region));
        self.device.reset();
        for region in self.held.drain(..) {
            crate::dma::release(self.arena, region, &TestProof);
        }
    }

    fn fault(&mut self, entry: &SubmissionQueueEntry) -> Option<Fault> {
        let select = (entry.dwords()[0] & 0xFF) as u8;
        let matches =
            |rule: &Rule| rule.opcode == entry.opcode() && rule.select.is_none_or(|wanted| wanted == select);
        let at = self.rules.iter().position(matches)?;
        if self.rules[at].skip > 0 {
            self.rules[at].skip -= 1;
            return None;
        }
        let fault = self.rules[at].fault;
        match &mut self.rules[at].fault {
            Fault::Busy(left) if *left > 1 => *left -= 1,
            _ => {
                self.rules.remove(at);
            }
        }
        Some(fault)
    }
}

// SAFETY: the fake device is the arena's only user, and lets go of everything in `disable`.
unsafe impl AdminPort for FakePort<'_> {
    type Arena = TestArena;

    fn arena(&self) -> &TestArena {
        self.arena
    }

    fn page_size(&self) -> usize {
        PAGE
    }

    fn max_transfer(&self) -> usize {
        self.max_transfer
    }

    fn generation(&self) -> Generation {
        self.life.generation()
    }

    fn is_live(&self) -> bool {
        !self.dead
    }

    fn submit(
        &mut self,
        request: AdminRequest,
        _now: Instant,
    ) -> Result<AdminHandle, (SubmitError, AdminRequest)> {
        if self.dead {
            return Err((SubmitError::NotReady, request));
        }
        let bytes = match &request.data {
            AdminData::Buffer { len, .. } => *len,
            _ => 0,
        };
        if bytes > self.max_transfer {
            return Err((SubmitError::TooLong { bytes, limit: self.max_transfer }, request));
        }
        assert!(request.timeout > Duration::ZERO, "every command has a time-out");
        let fault = self.fault(&request.command);
        if let Some(Fault::Busy(_)) = fault {
            return Err((SubmitError::Busy, request));
        }
        if let Some(Fault::NotReady) = fault {
            self.dead = true;
            self.device.reset();
            return Err((SubmitError::NotReady, request));
        }
        self.next = self.next.wrapping_add(1);
        let id = self.next;
        let base = match request.data {
            AdminData::QueueBase(base) => base.get(),
            _ => 0,
        };
        self.sent.push(request.command);
        let (buffer, len) = match request.data {
            AdminData::Buffer { region, len } => (Some(region), len),
            _ => (None, 0),
        };
        let mut status = Status::SUCCESS;
        let mut result = 0;
        match fault {
            Some(Fault::Status(code) | Fault::LateStatus(_, code)) => status = code.status(),
            Some(Fault::TimesOut | Fault::Lost) => {}
            _ => {
                let mut data = std::vec![0; len];
                if let Some(region) = buffer.as_ref().filter(|r| r.direction() == Direction::ToDevice) {
                    self.arena.device_read_region(region, &mut data);
                }
                match self.device.execute(self.arena, &request.command, base, &mut data, &mut self.events) {
                    Ok(dw0) => result = dw0,
                    Err(code) => status = code.status(),
                }
                if let Some(region) = buffer.as_ref().filter(|r| r.direction() == Direction::FromDevice) {
                    self.arena.device_write_region(region, &data);
                    self.arena.acquire(region, 0..data.len());
                }
            }
        }
        if let Some(Fault::DoneBut(other)) = fault {
            status = other;
        }
        self.dead |= matches!(fault, Some(Fault::LastDone));
        let completion = match fault {
            Some(Fault::TimesOut | Fault::DoneButTimesOut) => {
                self.held.extend(buffer);
                AdminCompletion { outcome: AdminOutcome::TimedOut, region: None }
            }
            Some(Fault::Lost) => {
                self.dead = true;
                self.device.reset();
                AdminCompletion { outcome: AdminOutcome::Lost, region: buffer }
            }
            _ => {
                let entry = CompletionQueueEntry::new(QueueId::ADMIN, 0, CommandId::new(id), status);
                AdminCompletion {
                    outcome: AdminOutcome::Completed(entry.with_result(result, 0)),
                    region: buffer,
                }
            }
        };
        let late = match fault {
            Some(Fault::Late(polls) | Fault::LateStatus(polls, _)) => polls,
            _ => 0,
        };
        let handle = self.life.handle(CommandId::new(id));
        self.outstanding.push(Outstanding { handle, late, completion });
        Ok(handle)
    }

    fn take(&mut self, handle: AdminHandle) -> Option<AdminCompletion> {
        if handle.generation().is_another_life(self.generation()) {
            return Some(AdminCompletion { outcome: AdminOutcome::Lost, region: None });
        }
        let at = self.outstanding.iter().position(|one| one.handle == handle)?;
        if self.outstanding[at].late > 0 {
            self.outstanding[at].late -= 1;
            return None;
        }
        Some(self.outstanding.remove(at).completion)
    }

    fn abandon(&mut self, handle: AdminHandle) {
        if let Some(at) = self.outstanding.iter().position(|one| one.handle == handle) {
            self.held.extend(self.outstanding.remove(at).completion.region);
        }
    }

    fn take_event(&mut self, filter: EventFilter) -> Option<AsynchronousEvent> {
        let at = self.events.iter().position(|event| filter.matches(event))?;
        self.events.remove(at)
    }

    fn next_deadline(&self) -> Option<Instant> {
        None
    }
}

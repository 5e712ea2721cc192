// SPDX-License-Identifier: MIT OR Apache-2.0
//! The driver against a device whose behaviour the input chooses, on memory that is checked.

mod device;

use std::time::Duration;

use nvme_core::admin::{AdminPort, AdminRequest, AdminSlot, Call, EventFilter};
use nvme_core::cdq::{CdqCreation, CdqDeletion, CdqOptions, ControllerDataQueue, Quarantined};
use nvme_core::controller::{Disabled, Disabling, EnableOptions, Link, Quiesced, Ready};
use nvme_core::dirty::DirtySet;
use nvme_core::dma::checking::{CheckingArena, RegionSlot};
use nvme_core::dma::{Direction, DmaArena, Pool, give_back};
use nvme_core::io::{
    Buffer, CreateIoQueuePair, CreateOutcome, DeleteIoQueuePair, DeleteOutcome, Ended, IoQueueOptions,
    IoQueuePair, IoSlot, QuarantinedQueuePair,
};
use nvme_core::time::{Instant, Step};
use nvme_core::wire::admin::{Identify, IdentifyStructure};
use nvme_core::wire::nvm::{Flush, Read, Write};
use nvme_core::wire::{Command, ControllerId, Lba, ManagerId, NamespaceId, QueueId, TrackedId};
use nvme_host_linux::memory::Capacity;
use nvme_tests::checked::{CheckedSpace, attach, violations};

pub(crate) use device::Device;

use crate::Input;
use crate::sys::with_space;

const TIMEOUT: Duration = Duration::from_millis(5);
const SLOTS: usize = 5;
/// Steps of one life of the controller, and lives.
const STEPS: u32 = 120;
const LIVES: u32 = 2;
/// Polls until a machine must have ended: a shutdown that somebody else began is looked at every millisecond for a minute.
const POLLS: u32 = 100_000;

type Regs<'d, 's, 'b> = Device<'d, 's, 'b>;
type Arena<'s> = CheckedSpace<'s>;
type Pair<'d, 's, 'b> = IoQueuePair<'d, 'd, Regs<'d, 's, 'b>, Arena<'s>, usize>;
type Broken<'d, 's, 'b> = QuarantinedQueuePair<'d, 'd, Regs<'d, 's, 'b>, Arena<'s>, usize>;
type Creation<'d, 's, 'b> = CreateIoQueuePair<'d, 'd, Regs<'d, 's, 'b>, Arena<'s>, usize>;
type Deletion<'d, 's, 'b> = DeleteIoQueuePair<'d, 'd, Regs<'d, 's, 'b>, Arena<'s>, usize>;
type Up<'d, 's, 'b> = Ready<'d, 'd, Regs<'d, 's, 'b>, Arena<'s>>;
type Down<'d, 's, 'b> = Disabled<'d, 'd, Regs<'d, 's, 'b>, Arena<'s>>;

/// Every command submitted: whether it has ended.
#[derive(Default)]
struct Ledger(Vec<bool>);

impl Ledger {
    fn submitted(&mut self) -> usize {
        self.0.push(false);
        self.0.len() - 1
    }

    fn ended(&mut self, tag: usize) {
        assert!(!std::mem::replace(&mut self.0[tag], true), "command {tag} ended twice");
    }
}

/// How far a run has come.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Figures {
    /// Queue pairs created and deleted.
    pub(crate) pairs: u32,
    pub(crate) deleted: u32,
    /// I/O commands completed.
    pub(crate) completed: u32,
    /// Data queues created, and entries read from them.
    pub(crate) data_queues: u32,
    pub(crate) entries: u32,
    /// Admin commands of the user that ended.
    pub(crate) calls: u32,
    /// I/O commands that did not end with success.
    pub(crate) statuses: u32,
}

/// Runs the driver through lives of a controller.
///
/// # Panics
/// A property does not hold.
pub fn run(bytes: &[u8]) {
    play(bytes);
}

/// Runs the driver through lives of a controller and says how far it came.
pub(crate) fn play(bytes: &[u8]) -> Figures {
    let capacity = Capacity { queues: 640 << 10, data: 640 << 10, controller_data: 64 << 10 };
    with_space("driver", capacity, |space| {
        let mut slots: Vec<RegionSlot> = (0..64).map(|_| RegionSlot::new()).collect();
        let mut room = [None; 4];
        let arena = CheckingArena::new(space, &mut slots, &mut room).with_quarantine(6);
        let device = Device::new(&arena, Input::new(bytes));
        let mut admin_slots: Vec<AdminSlot> = (0..8).map(|_| AdminSlot::new()).collect();
        let mut io_slots: Vec<IoSlot<usize>> = (0..SLOTS).map(|_| IoSlot::new()).collect();
        let link = Link::new();
        let figures = lives(&arena, &device, &link, &mut admin_slots, &mut io_slots);
        let found = violations(&arena);
        assert!(found.is_empty(), "{found:?}");
        figures
    })
}

/// Polls a machine to its end; `false` if it failed.
fn drive(now: &mut Instant, mut poll: impl FnMut(Instant) -> Option<Step>) -> bool {
    for _ in 0..POLLS {
        match poll(*now) {
            None => return false,
            Some(Step::Again) => {}
            Some(Step::Wait(until)) => {
                assert!(until > *now, "waits for a time that has come");
                *now = until;
            }
            Some(Step::Done) => return true,
        }
    }
    panic!("a machine does not end in {POLLS} polls");
}

/// A controller that has been told to stop; the second try is with a device that obeys.
fn disable<'d, 's, 'b>(
    mut machine: Disabling<'d, 'd, Regs<'d, 's, 'b>, Arena<'s>>,
    device: &Regs<'d, 's, 'b>,
    now: &mut Instant,
) -> Down<'d, 's, 'b> {
    for _ in 0..3 {
        drive(now, |now| machine.poll(now).ok());
        machine = match machine.finish() {
            Ok(disabled) => return disabled,
            Err(machine) => machine,
        };
        device.behave();
    }
    panic!("a device that obeys is not disabled: {:?}", machine.poll(*now));
}

fn lives<'d, 's, 'b>(
    arena: &'d Arena<'s>,
    device: &'d Regs<'d, 's, 'b>,
    link: &'d Link,
    admin_slots: &'d mut [AdminSlot],
    io_slots: &'d mut [IoSlot<usize>],
) -> Figures {
    // A device that cannot be read at all is refused.
    let Ok(machine) = attach(device, arena, link) else { return Figures::default() };
    let mut host = Host {
        arena,
        device,
        now: Instant::ZERO,
        ledger: Ledger::default(),
        pair: None,
        creation: None,
        deletion: None,
        broken: Vec::new(),
        slots: Some(io_slots),
        queue: None,
        queue_creation: None,
        queue_deletion: None,
        quarantined: Vec::new(),
        calls: Vec::new(),
        figures: Figures::default(),
    };
    let mut down = disable(machine, device, &mut host.now);
    let mut slots = Some(admin_slots);
    for _ in 0..LIVES {
        let Some(lent) = slots.take().or_else(|| down.retire()) else { break };
        let options = EnableOptions {
            submission_entries: 6,
            completion_entries: 5,
            events: 2,
            max_transfer: 8192,
            ..EnableOptions::default()
        };
        let mut enabling = match down.enable(&options, lent) {
            Ok(enabling) => enabling,
            Err(rejected) => {
                down = rejected.disabled;
                slots = Some(rejected.slots);
                continue;
            }
        };
        drive(&mut host.now, |now| enabling.poll(now).ok());
        let disabling = match enabling.finish() {
            Ok(mut up) => {
                up.admin().request_events(2);
                for _ in 0..STEPS {
                    if device.is_over() || !host.step(&mut up) {
                        break;
                    }
                }
                host.leave(&mut up);
                up.disable()
            }
            Err(enabling) => enabling.abort(),
        };
        down = disable(disabling, device, &mut host.now);
        host.take_down(&mut down);
    }
    let _slots = down.detach();
    assert!(host.ledger.0.iter().all(|ended| *ended), "commands that never ended: {:?}", host.ledger.0);
    assert_eq!(arena.live(), 0, "memory that did not come back");
    host.figures
}

/// The user of the driver.
struct Host<'d, 's, 'b> {
    arena: &'d Arena<'s>,
    device: &'d Regs<'d, 's, 'b>,
    now: Instant,
    ledger: Ledger,
    pair: Option<Pair<'d, 's, 'b>>,
    creation: Option<Creation<'d, 's, 'b>>,
    deletion: Option<Deletion<'d, 's, 'b>>,
    broken: Vec<Broken<'d, 's, 'b>>,
    slots: Option<&'d mut [IoSlot<usize>]>,
    queue: Option<ControllerDataQueue>,
    queue_creation: Option<CdqCreation>,
    queue_deletion: Option<CdqDeletion>,
    quarantined: Vec<Quarantined>,
    calls: Vec<Call>,
    figures: Figures,
}

impl<'d, 's, 'b> Host<'d, 's, 'b> {
    /// One step; `false` once the controller has failed.
    fn step(&mut self, up: &mut Up<'d, 's, 'b>) -> bool {
        match self.device.below(20) {
            0..=3 => self.device.act(),
            4..=6 => self.submit(),
            7 | 8 => return self.collect(),
            9 => {
                if let Some(pair) = &mut self.pair {
                    return pair.ring().is_ok();
                }
            }
            10 | 11 => return up.poll(self.now).is_ok(),
            12 => {
                self.now = self.now.after(Duration::from_millis(u64::from(self.device.below(8))));
                if let Some(pair) = &mut self.pair {
                    while let Some((_, tag)) = pair.expire(self.now) {
                        assert!(!self.ledger.0[*tag], "a command that ended times out");
                    }
                }
            }
            13 => self.pairs(up),
            14 => self.delete(up),
            15 => self.data_queue(up),
            16 => self.admin(up),
            17 => return up.check_status().is_ok(),
            18 => drop(up.admin().take_event(EventFilter::Any)),
            _ => {
                // A while in which everybody does what there is to do.
                for _ in 0..6 {
                    self.device.act();
                    if up.poll(self.now).is_err() || !self.collect() {
                        return false;
                    }
                    self.admin_progress(up);
                }
            }
        }
        true
    }

    fn submit(&mut self) {
        let Some(pair) = &mut self.pair else { return };
        let blocks = 1 + self.device.below(12);
        let (namespace, start) = (NamespaceId::new(1), Lba::new(0));
        let (entry, direction) = match self.device.below(5) {
            0 => (Flush { namespace }.encode(), None),
            1 | 2 => (Write::new(namespace, start, blocks).encode(), Some(Direction::ToDevice)),
            _ => (Read::new(namespace, start, blocks).encode(), Some(Direction::FromDevice)),
        };
        let len = blocks as usize * 512;
        let scattered = self.device.below(2) == 0;
        let buffer = direction.map(|direction| {
            let made = if scattered {
                self.arena.allocate_scattered(Pool::Data, len, direction)
            } else {
                self.arena.allocate(Pool::Data, len, 4096, direction)
            };
            let region = made.expect("enough memory for what fits into the slots");
            if direction == Direction::ToDevice {
                region.write(0, &vec![7; len]).expect("inside");
            }
            Buffer::whole(region)
        });
        let tag = self.ledger.submitted();
        let deadline = Some(self.now.after(TIMEOUT));
        match pair.submit(&entry, buffer, tag, deadline) {
            Ok(_) => {
                if self.device.below(3) != 0 {
                    // A failure shows at the next poll.
                    let _ = pair.ring();
                }
            }
            Err(rejected) => {
                self.ledger.ended(rejected.tag);
                if let Some(buffer) = rejected.buffer {
                    give_back(self.arena, buffer.into_region());
                }
            }
        }
    }

    /// Takes completions; `false` once the controller has failed.
    fn collect(&mut self) -> bool {
        if let Some(deletion) = &mut self.deletion {
            for _ in 0..SLOTS + 1 {
                match deletion.take() {
                    Ok(Some(Ended::Completed(completed))) => {
                        let (_, tag) = completed.release(self.arena);
                        self.ledger.ended(tag);
                    }
                    Ok(Some(Ended::Lost(lost))) => {
                        self.ledger.ended(lost.tag);
                        if let Some(buffer) = lost.buffer {
                            give_back(self.arena, buffer.into_region());
                        }
                    }
                    Ok(None) => break,
                    Err(_) => return false,
                }
            }
        }
        let Some(pair) = &mut self.pair else { return true };
        let mut taken = 0;
        loop {
            match pair.poll() {
                Ok(Some(completed)) => {
                    taken += 1;
                    assert!(taken <= SLOTS, "more completions than commands");
                    if let Some(buffer) = &completed.buffer
                        && buffer.region().direction() == Direction::FromDevice
                    {
                        buffer.region().read(0, &mut [0; 64]).expect("inside");
                    }
                    let (done, tag) = completed.release(self.arena);
                    self.ledger.ended(tag);
                    self.figures.completed += 1;
                    self.figures.statuses += u32::from(!done.status().is_success());
                }
                Ok(None) => return pair.acknowledge().is_ok(),
                Err(_) => return false,
            }
        }
    }

    /// Creates the queue pair, or goes on with it.
    fn pairs(&mut self, up: &mut Up<'d, 's, 'b>) {
        if let Some(mut creation) = self.creation.take() {
            let _ = creation.poll(up.admin(), self.now);
            match creation.finish() {
                Err(creation) => self.creation = Some(creation),
                Ok(CreateOutcome::Created(pair)) => {
                    self.pair = Some(pair);
                    self.figures.pairs += 1;
                }
                Ok(CreateOutcome::Refused { slots, .. }) => self.slots = Some(slots),
                Ok(CreateOutcome::Quarantined { pair, .. }) => self.broken.push(pair),
            }
            return;
        }
        let Some(slots) = self.slots.take() else { return };
        let options = IoQueueOptions {
            completion_entries: 3 + self.device.below(3),
            max_transfer: 8192,
            timeout: TIMEOUT,
            ..IoQueueOptions::new(QueueId::new(1), 2 + self.device.below(6))
        };
        match CreateIoQueuePair::new(up.admin(), &options, slots) {
            Ok(creation) => self.creation = Some(creation),
            Err((_, slots)) => self.slots = Some(slots),
        }
    }

    /// Deletes the queue pair, or goes on with it.
    fn delete(&mut self, up: &mut Up<'d, 's, 'b>) {
        if let Some(mut deletion) = self.deletion.take() {
            let _ = deletion.poll(up.admin(), self.now);
            self.deletion = Some(deletion);
            if !self.collect() {
                return;
            }
            let Some(deletion) = self.deletion.take() else { return };
            match deletion.finish() {
                Err(deletion) => self.deletion = Some(deletion),
                Ok(DeleteOutcome::Deleted { slots }) => {
                    self.slots = Some(slots);
                    self.figures.deleted += 1;
                }
                Ok(DeleteOutcome::Quarantined { pair, .. }) => self.broken.push(pair),
            }
        } else if let Some(pair) = self.pair.take() {
            self.deletion = Some(DeleteIoQueuePair::new(pair, TIMEOUT));
        }
    }

    /// Creates, reads or deletes the Controller Data Queue.
    fn data_queue(&mut self, up: &mut Up<'d, 's, 'b>) {
        if let Some(queue) = &mut self.queue {
            if self.device.below(6) == 5 {
                self.queue_deletion = self.queue.take().map(|queue| CdqDeletion::new(queue, TIMEOUT));
                return;
            }
            let mut dirty = DirtySet::new(&mut []).expect("no namespaces");
            let limit = 1 + self.device.below(40);
            let force = self.device.below(4) == 0;
            let (drained, _) = queue.poll(up.admin(), &mut dirty, self.now, limit, force);
            assert!(drained.entries <= limit);
            self.figures.entries += drained.entries;
        } else if let Some(creation) = &mut self.queue_creation {
            if let Some(made) = creation.poll(up.admin(), self.now) {
                self.queue_creation = None;
                match made {
                    Ok(queue) => {
                        self.queue = Some(queue);
                        self.figures.data_queues += 1;
                    }
                    Err(failure) => self.quarantined.extend(failure.quarantined),
                }
            }
        } else if let Some(deletion) = &mut self.queue_deletion {
            if let Some(ended) = deletion.poll(up.admin(), self.now) {
                self.queue_deletion = None;
                if let Err(failure) = ended {
                    self.quarantined.extend(failure.quarantined);
                }
            }
        } else if self.quarantined.is_empty() {
            let manager = ManagerId::new(ControllerId::new(1));
            let tracked = TrackedId::new(ControllerId::new(2), manager).expect("two controllers");
            let options =
                CdqOptions { entries: 2 + self.device.below(30), timeout: TIMEOUT, ..CdqOptions::default() };
            self.queue_creation = CdqCreation::new(up.admin(), tracked, &options).ok();
        }
    }

    /// Sends an admin command, gives one up, or looks after those sent.
    fn admin(&mut self, up: &mut Up<'d, 's, 'b>) {
        if self.calls.len() < 4 && self.device.below(2) == 0 {
            let identify = Identify::new(IdentifyStructure::CONTROLLER);
            let request =
                AdminRequest::receiving(&identify, self.arena, 4096, TIMEOUT).expect("enough memory");
            let mut call = Call::new();
            assert!(call.start(request).is_ok());
            self.calls.push(call);
        } else if self.device.below(4) == 0
            && let Some(mut call) = self.calls.pop()
        {
            call.abandon(up.admin());
        }
        self.admin_progress(up);
    }

    fn admin_progress(&mut self, up: &mut Up<'d, 's, 'b>) {
        let (arena, now, figures) = (self.arena, self.now, &mut self.figures);
        self.calls.retain_mut(|call| match call.poll(up.admin(), now) {
            Some(result) => {
                figures.calls += 1;
                let mut bytes = [0; 128];
                let _ = result.read(arena, &mut bytes);
                false
            }
            None => true,
        });
    }

    /// Gives up what is under way before the controller is disabled.
    fn leave(&mut self, up: &mut Up<'d, 's, 'b>) {
        for call in &mut self.calls {
            call.abandon(up.admin());
        }
        self.calls.clear();
        self.broken.extend(self.creation.take().map(|creation| creation.abandon(up.admin())));
        self.broken.extend(self.deletion.take().map(|deletion| deletion.abandon(up.admin())));
        // Machines of the data queue end with what became of their command.
        for _ in 0..4 {
            self.now = self.now.after(4 * TIMEOUT);
            let _ = up.poll(self.now);
            if self.queue_creation.is_some() || self.queue_deletion.is_some() {
                self.data_queue(up);
            }
        }
    }

    /// The controller is disabled: everything comes back, each command once.
    fn take_down(&mut self, down: &mut Down<'d, 's, 'b>) {
        if let Some(admin) = down.admin() {
            for _ in 0..8 {
                if let Some(creation) = &mut self.queue_creation
                    && let Some(made) = creation.poll(admin, self.now)
                {
                    self.queue_creation = None;
                    match made {
                        Ok(queue) => self.queue = Some(queue),
                        Err(failure) => self.quarantined.extend(failure.quarantined),
                    }
                }
                if let Some(deletion) = &mut self.queue_deletion
                    && let Some(ended) = deletion.poll(admin, self.now)
                {
                    self.queue_deletion = None;
                    if let Err(failure) = ended {
                        self.quarantined.extend(failure.quarantined);
                    }
                }
            }
        }
        assert!(
            self.queue_creation.is_none() && self.queue_deletion.is_none(),
            "a machine that does not end"
        );
        while let Some((_, completion)) = down.take_unfinished() {
            if let Some(region) = completion.region {
                give_back(self.arena, region);
            }
        }
        let proof = down.quiesced();
        if let Some(mut pair) = self.pair.take() {
            while let Some(lost) = pair.drain(&proof) {
                self.lost(lost);
            }
            self.slots = pair.retire(&proof).ok();
        }
        for mut pair in std::mem::take(&mut self.broken) {
            while let Some(lost) = pair.drain(&proof) {
                self.lost(lost);
            }
            self.slots = pair.retire(&proof).ok();
        }
        assert!(self.slots.is_some(), "slots that did not come back");
        self.release_queues(&proof);
    }

    fn lost(&mut self, lost: nvme_core::io::Lost<usize>) {
        self.ledger.ended(lost.tag);
        if let Some(buffer) = lost.buffer {
            give_back(self.arena, buffer.into_region());
        }
    }

    fn release_queues(&mut self, proof: &Quiesced<'_>) {
        for memory in self.quarantined.drain(..) {
            memory.release(self.arena, proof);
        }
        if let Some(queue) = self.queue.take() {
            queue.quarantine().release(self.arena, proof);
        }
    }
}

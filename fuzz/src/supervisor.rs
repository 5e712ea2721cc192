// SPDX-License-Identifier: MIT OR Apache-2.0
//! A supervisor that keeps a controller in use whose behaviour the input chooses, on memory that is checked.

use std::time::Duration;

use nvme_core::admin::{AdminRequest, AdminSlot, Call, InitializeOptions};
use nvme_core::controller::{EnableOptions, Link, Shutdown};
use nvme_core::dma::checking::{CheckingArena, RegionSlot};
use nvme_core::dma::{Direction, DmaArena, Pool, give_back};
use nvme_core::io::{Buffer, IoQueueOptions, IoSlot};
use nvme_core::recovery::{End, Escalation, Event, Options, Policy, Progress, QueueRoom, Supervisor};
use nvme_core::time::Instant;
use nvme_core::wire::admin::{Identify, IdentifyStructure};
use nvme_core::wire::identify::PAGE_BYTES;
use nvme_core::wire::nvm::{Flush, Read, Write};
use nvme_core::wire::{Command, Lba, NamespaceId, QueueId};
use nvme_host_linux::memory::Capacity;
use nvme_tests::checked::{CheckedSpace, attach, violations};

use crate::Input;
use crate::driver::Device;
use crate::sys::with_space;

const TIMEOUT: Duration = Duration::from_millis(5);
/// How far time goes on at each poll while the host is at work.
const TICK: Duration = Duration::from_millis(1);
const SLOTS: usize = 4;
const STEPS: u32 = 160;
/// Polls until an end: a shutdown that somebody else began is looked at every millisecond for a minute, at each reset.
const POLLS: u32 = 400_000;

/// How far a run has come.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Figures {
    /// Commands that were completed or aborted by the controller.
    pub(crate) completed: u32,
    /// Commands that were lost.
    pub(crate) lost: u32,
    pub(crate) timed_out: u32,
    pub(crate) ready: u32,
    pub(crate) resets: u32,
    /// Queue pairs created, again or for the first time.
    pub(crate) pairs: u32,
}

/// What became of each command that was submitted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    Outstanding,
    TimedOut,
    Ended,
}

type Kept<'d, 's, 'p, 'b> = Supervisor<'d, 'd, 'p, Device<'d, 's, 'b>, CheckedSpace<'s>, usize>;

/// Runs the supervisor to its end.
///
/// # Panics
/// A property does not hold.
pub fn run(bytes: &[u8]) {
    play(bytes);
}

/// Runs the supervisor to its end and says what happened on the way.
pub(crate) fn play(bytes: &[u8]) -> Figures {
    let capacity = Capacity { queues: 640 << 10, data: 640 << 10, controller_data: 64 << 10 };
    with_space("supervisor", capacity, |space| {
        let mut regions: Vec<RegionSlot> = (0..64).map(|_| RegionSlot::new()).collect();
        let mut found = [None; 4];
        let arena = CheckingArena::new(space, &mut regions, &mut found).with_quarantine(6);
        let device = Device::new(&arena, Input::new(bytes));
        let mut admin_slots: Vec<AdminSlot> = (0..8).map(|_| AdminSlot::new()).collect();
        let mut io_slots: Vec<IoSlot<usize>> = (0..2 * SLOTS).map(|_| IoSlot::new()).collect();
        let link = Link::new();
        let figures = keep(&arena, &device, &link, &mut admin_slots, &mut io_slots);
        let found = violations(&arena);
        assert!(found.is_empty(), "{found:?}");
        figures
    })
}

/// The steps that the input chooses.
fn policy(device: &Device<'_, '_, '_>) -> Policy {
    let steps = core::array::from_fn(|_| match device.below(5) {
        0 => None,
        1 => Some(Escalation::Abort { wait: TIMEOUT }),
        2 => Some(Escalation::RecreateQueues { timeout: TIMEOUT }),
        _ => Some(Escalation::Reset { pause: TIMEOUT }),
    });
    Policy { steps, settled: 20 * TIMEOUT, reset_on_admin_timeout: device.below(4) != 0 }
}

fn keep<'d, 's, 'b>(
    arena: &'d CheckedSpace<'s>,
    device: &'d Device<'d, 's, 'b>,
    link: &'d Link,
    admin_slots: &'d mut [AdminSlot],
    io_slots: &'d mut [IoSlot<usize>],
) -> Figures {
    // A device that cannot be read at all is refused.
    let Ok(machine) = attach(device, arena, link) else { return Figures::default() };
    let options = Options {
        enable: EnableOptions {
            submission_entries: 6,
            completion_entries: 5,
            events: 2,
            max_transfer: 8192,
            ..EnableOptions::default()
        },
        initialize: InitializeOptions { timeout: TIMEOUT, ..InitializeOptions::default() },
        policy: policy(device),
    };
    let (first, second) = io_slots.split_at_mut(SLOTS);
    let mut rooms = [(1, first), (2, second)].map(|(id, slots)| {
        let options = IoQueueOptions {
            completion_entries: 4,
            max_transfer: 8192,
            timeout: TIMEOUT,
            ..IoQueueOptions::new(QueueId::new(id), 4)
        };
        QueueRoom::new(options, slots)
    });
    let mut page = [0; PAGE_BYTES];
    let mut host = Host {
        arena,
        device,
        now: Instant::ZERO,
        fates: Vec::new(),
        figures: Figures::default(),
        calls: Vec::new(),
    };
    let mut supervisor = Supervisor::new(machine, admin_slots, &mut rooms, &mut page, &options);
    let mut ended = None;
    for _ in 0..STEPS {
        if device.is_over() || ended.is_some() {
            break;
        }
        ended = host.step(&mut supervisor);
    }
    host.end(supervisor, ended);
    let retired = rooms.into_iter().all(|room| room.into_slots().is_ok());
    assert!(retired, "slots that did not come back");
    assert!(host.fates.iter().all(|fate| *fate == Fate::Ended), "{:?}", host.fates);
    assert_eq!(arena.live(), 0, "memory that did not come back");
    host.figures
}

/// The user of the supervisor.
struct Host<'d, 's, 'b> {
    arena: &'d CheckedSpace<'s>,
    device: &'d Device<'d, 's, 'b>,
    now: Instant,
    fates: Vec<Fate>,
    figures: Figures,
    calls: Vec<Call>,
}

impl<'d, 's, 'b> Host<'d, 's, 'b> {
    fn step(&mut self, supervisor: &mut Kept<'d, 's, '_, 'b>) -> Option<End> {
        match self.device.below(20) {
            0..=3 => self.device.act(),
            4..=6 => self.submit(supervisor),
            7 => self.now = self.now.after(Duration::from_millis(u64::from(self.device.below(8)))),
            8 => {
                if self.device.below(6) == 5 {
                    supervisor.reset();
                }
            }
            9 => {
                if self.device.below(8) == 7 {
                    let how = [Shutdown::Normal, Shutdown::Abrupt][self.device.below(2) as usize];
                    supervisor.shutdown(how, TIMEOUT);
                }
            }
            10 => self.admin(supervisor),
            11 => {
                // A hurried host takes completions itself.
                let queue = QueueId::new(1 + self.device.below(2) as u16);
                if let Some(pair) = supervisor.pair(queue)
                    && let Ok(Some(done)) = pair.poll()
                {
                    let (_, tag) = done.release(self.arena);
                    self.ended(tag);
                    self.figures.completed += 1;
                }
            }
            12..=15 => {
                // A while in which everybody does what there is to do.
                for _ in 0..6 {
                    self.device.act();
                    let ended = self.poll(supervisor, TICK);
                    if ended.is_some() {
                        return ended;
                    }
                }
            }
            _ => return self.poll(supervisor, TICK),
        }
        None
    }

    fn ended(&mut self, tag: usize) {
        let before = core::mem::replace(&mut self.fates[tag], Fate::Ended);
        assert_ne!(before, Fate::Ended, "command {tag} ended twice");
    }

    /// Polls once; where the supervisor waits time goes on, by `most` at most.
    fn poll(&mut self, supervisor: &mut Kept<'d, 's, '_, 'b>, most: Duration) -> Option<End> {
        match supervisor.poll(self.now) {
            Progress::Event(event) => self.take(supervisor, event),
            Progress::Wait(until) => {
                assert!(until > self.now, "waits for a time that has come");
                self.now = until.min(self.now.after(most));
            }
            Progress::Ended(end) => return Some(end),
        }
        None
    }

    fn take(&mut self, supervisor: &mut Kept<'d, 's, '_, 'b>, event: Event<usize>) {
        match event {
            Event::Completed { completed, .. } | Event::Aborted { completed, .. } => {
                let (_, tag) = completed.release(self.arena);
                self.ended(tag);
                self.figures.completed += 1;
            }
            Event::Lost { lost, .. } => {
                self.ended(lost.tag);
                self.figures.lost += 1;
                if let Some(buffer) = lost.buffer {
                    give_back(self.arena, buffer.into_region());
                }
            }
            Event::TimedOut { queue, command } => {
                self.figures.timed_out += 1;
                // A pair that is in use knows whose command it was.
                if let Some(tag) = supervisor.pair(queue).and_then(|pair| pair.tag(command).copied()) {
                    let before = core::mem::replace(&mut self.fates[tag], Fate::TimedOut);
                    assert_eq!(before, Fate::Outstanding, "command {tag} times out");
                }
            }
            Event::QueueReady { .. } => self.figures.pairs += 1,
            Event::Ready => {
                self.figures.ready += 1;
                assert!(supervisor.is_ready() && supervisor.pair(QueueId::new(1)).is_some());
            }
            Event::Resetting(_) => self.figures.resets += 1,
            Event::Quiesced => {
                assert!(supervisor.quiesced().is_some() && supervisor.unfinished().next().is_none());
                self.calls_go_on(supervisor);
            }
        }
    }

    fn submit(&mut self, supervisor: &mut Kept<'d, 's, '_, 'b>) {
        let queue = QueueId::new(1 + self.device.below(2) as u16);
        let Some(pair) = supervisor.pair(queue) else { return };
        let blocks = 1 + self.device.below(8);
        let (namespace, start) = (NamespaceId::new(1), Lba::new(0));
        let (entry, direction) = match self.device.below(5) {
            0 => (Flush { namespace }.encode(), None),
            1 | 2 => (Write::new(namespace, start, blocks).encode(), Some(Direction::ToDevice)),
            _ => (Read::new(namespace, start, blocks).encode(), Some(Direction::FromDevice)),
        };
        let buffer = direction.map(|direction| {
            let len = blocks as usize * 512;
            let region = self.arena.allocate(Pool::Data, len, 4096, direction);
            let region = region.expect("enough memory for what fits into the slots");
            if direction == Direction::ToDevice {
                region.write(0, &vec![7; len]).expect("inside");
            }
            Buffer::whole(region)
        });
        let tag = self.fates.len();
        self.fates.push(Fate::Outstanding);
        match pair.submit(&entry, buffer, tag, Some(self.now.after(TIMEOUT))) {
            // A failure shows at the next poll.
            Ok(_) => drop(pair.ring()),
            Err(rejected) => {
                self.fates[rejected.tag] = Fate::Ended;
                if let Some(buffer) = rejected.buffer {
                    give_back(self.arena, buffer.into_region());
                }
            }
        }
    }

    fn admin(&mut self, supervisor: &mut Kept<'d, 's, '_, 'b>) {
        let wanted = self.calls.len() < 3 && self.device.below(2) == 0;
        // Without an admin queue a call would wait for one.
        if wanted && supervisor.admin().is_some() {
            let identify = Identify::new(IdentifyStructure::CONTROLLER);
            let request = AdminRequest::receiving(&identify, self.arena, PAGE_BYTES, TIMEOUT);
            let mut call = Call::new();
            assert!(call.start(request.expect("enough memory")).is_ok());
            self.calls.push(call);
        }
        self.calls_go_on(supervisor);
    }

    fn calls_go_on(&mut self, supervisor: &mut Kept<'d, 's, '_, 'b>) {
        let (arena, now) = (self.arena, self.now);
        let Some(admin) = supervisor.admin() else { return };
        self.calls.retain_mut(|call| match call.poll(admin, now) {
            Some(result) => {
                let _ = result.read(arena, &mut [0; 128]);
                false
            }
            None => true,
        });
    }

    fn run_to_the_end(&mut self, supervisor: &mut Kept<'d, 's, '_, 'b>) -> End {
        for _ in 0..POLLS {
            if let Some(end) = self.poll(supervisor, Duration::MAX) {
                return end;
            }
            self.device.act();
        }
        panic!("no end in {POLLS} polls");
    }

    /// The supervisor ends, and everything comes back once the device obeys.
    fn end(&mut self, mut supervisor: Kept<'d, 's, '_, 'b>, ended: Option<End>) {
        if ended.is_none() {
            supervisor.shutdown(Shutdown::Normal, TIMEOUT);
            self.run_to_the_end(&mut supervisor);
        }
        if supervisor.quiesced().is_none() {
            self.device.behave();
            assert!(supervisor.restart(), "an end that is none");
            supervisor.shutdown(Shutdown::Abrupt, TIMEOUT);
            self.run_to_the_end(&mut supervisor);
        }
        // What was on its way has been lost by now.
        self.calls_go_on(&mut supervisor);
        for mut call in self.calls.drain(..) {
            match supervisor.admin() {
                Some(admin) => call.abandon(admin),
                None => assert!(call.is_idle(), "a call that nobody can end"),
            }
        }
        let Ok(disabled) = supervisor.into_disabled() else { panic!("a device that obeys is not disabled") };
        disabled.detach();
    }
}

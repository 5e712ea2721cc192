// SPDX-License-Identifier: MIT OR Apache-2.0
//! A controller kept in use although fault rules, read from text, make it misbehave: commands time out, queues are made
//! again, the controller is reset, everything comes back.

use core::cell::{Cell, RefCell};
use core::hint::black_box;
use core::time::Duration;

use nvme_controller::fault::{FaultRule, FaultSlot, FaultTable, HeldSlot};
use nvme_controller::{
    Controller, ControllerConfig, DataQueueSlot, Namespace, Subsystem, SubsystemConfig, SubsystemStorage,
};
use nvme_core::admin::AdminSlot;
use nvme_core::controller::{Link, Shutdown};
use nvme_core::dma::{Direction, DmaArena, Pool};
use nvme_core::io::{Buffer, IoQueueOptions, IoSlot};
use nvme_core::recovery::{End, Event, Options, Progress, QueueRoom, Supervisor};
use nvme_core::wire::identify::PAGE_BYTES;
use nvme_core::wire::nvm::Write;
use nvme_core::wire::{Command, Lba, QueueId};

use crate::media::{Media, Polled};
use crate::sys;
use crate::sys::memory::Memory;
use crate::world::{Capacity, Check, Failed, MANAGER, NAMESPACE, Registers, World};

const MEDIA: usize = 64 * 512;
const COMMANDS: u32 = 16;
const ROUNDS: u32 = 200_000;
const LIMIT: Duration = Duration::from_millis(20);
/// What the controller does wrong.
const RULES: [&str; 6] = [
    "drop,queue=io,nth=2",
    "delay=3polls,queue=io,every=3,times=2",
    "status=0/06+dnr,queue=io,opcode=01,nth=4",
    "wrong-cid,queue=io,nth=7",
    "fatal,queue=io,nth=9",
    "duplicate,queue=1,dw10=5/ff,ppm=500000,seed=7",
];

/// Failures are numbered from 90.
pub fn work() -> Result<(), Failed> {
    let memory = Memory::new(0).check(90)?;
    let mut media = [0; MEDIA];
    let mut capacity = Capacity::new();
    let mut controllers = [Controller::new(ControllerConfig::managing(MANAGER), &memory, capacity.lend())];
    let mut namespaces = [Namespace::new(NAMESPACE, Media::new(&mut media), [0; 16])];
    let storage = SubsystemStorage {
        controllers: &mut controllers,
        namespaces: &mut namespaces,
        data_queues: &mut [DataQueueSlot::new(); 1],
        scratch: &mut [0; 4096],
    };
    let mut rules = [const { None }; RULES.len()];
    for (slot, text) in rules.iter_mut().zip(black_box(RULES)) {
        *slot = FaultRule::parse(text).ok();
    }
    let [Some(a), Some(b), Some(c), Some(d), Some(e), Some(f)] = rules else { return Err(Failed(91)) };
    let rules = [a, b, c, d, e, f].map(FaultSlot::new);
    let mut held = [HeldSlot::new(); 4];
    let mut device = Subsystem::new(SubsystemConfig::default(), storage, Polled).check(92)?;
    device.set_faults(FaultTable::new(&rules, &mut held));
    let devices = [RefCell::new(device)];
    let world = World { devices: &devices, clock: Cell::new(0) };
    let [device] = world.devices else { return Err(Failed(92)) };
    let registers = Registers::new(device, MANAGER).check(92)?;
    let link = Link::new();

    let mut slots = [const { AdminSlot::new() }; 8];
    let mut io_slots = [const { IoSlot::<()>::new() }; 4];
    let queue = QueueId::new(1);
    let mut rooms = [QueueRoom::new(IoQueueOptions::new(queue, 4), &mut io_slots)];
    let mut page = [0; PAGE_BYTES];
    let options = black_box(Options::default());
    let machine = sys::attach_embedded(&registers, &memory, &link).check(93)?;
    let region = memory.allocate(Pool::Data, 512, 4096, Direction::Bidirectional).check(94)?;
    let mut buffer = Some(Buffer::whole(region));
    let mut supervisor = Supervisor::new(machine, &mut slots, &mut rooms, &mut page, &options);
    let (mut submitted, mut ended, mut late, mut resets) = (0_u32, 0_u32, 0_u32, 0_u32);
    let mut end = None;
    for _ in 0..ROUNDS {
        let now = world.tick();
        let back = match supervisor.poll(now) {
            Progress::Event(Event::Completed { completed, .. } | Event::Aborted { completed, .. }) => {
                completed.buffer
            }
            Progress::Event(Event::Lost { lost, .. }) => lost.buffer,
            Progress::Event(event) => {
                match event {
                    Event::TimedOut { .. } => late = late.saturating_add(1),
                    Event::Resetting(_) => resets = resets.saturating_add(1),
                    _ => {}
                }
                continue;
            }
            Progress::Ended(how) => {
                end = Some(how);
                break;
            }
            Progress::Wait(_) => {
                if ended == COMMANDS {
                    supervisor.shutdown(Shutdown::Normal, LIMIT);
                } else if let Some(pair) = supervisor.pair(queue)
                    && let Some(buffer) = buffer.take()
                {
                    let entry = Write::new(NAMESPACE, Lba::new(u64::from(submitted)), 1).encode();
                    pair.submit(&entry, Some(buffer), (), Some(now.after(LIMIT))).check(95)?;
                    // A controller that has failed is noticed with the next poll.
                    let _ = pair.ring();
                    submitted = submitted.saturating_add(1);
                }
                continue;
            }
        };
        ended = ended.saturating_add(1);
        buffer = back;
        buffer.is_some().check(96)?;
    }
    (end == Some(End::ShutDown) && (submitted, ended) == (COMMANDS, COMMANDS)).check(97)?;
    // The command that was dropped came too late, and the rules that break the protocol led to a reset each.
    (late >= 1 && resets >= 2).check(98)?;
    let region = buffer.check(99)?.into_region();
    let proof = supervisor.quiesced().check(100)?;
    nvme_core::dma::release(&memory, region, &proof);
    supervisor.into_disabled().check(101)?.detach();
    (memory.live() == 0).check(102)
}

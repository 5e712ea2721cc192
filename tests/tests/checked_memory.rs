// SPDX-License-Identifier: MIT OR Apache-2.0
//! Driver and controller on memory that is copied, poisoned and checked: not one misuse.

use std::cell::RefCell;
use std::time::Duration;

use nvme_core::admin::{AdminPort, AdminRequest, AdminSlot, Call};
use nvme_core::cdq::{CdqCreation, CdqDeletion, CdqOptions, ControllerDataQueue, QueueLayout};
use nvme_core::controller::{Disabled, EnableOptions, Link, Ready};
use nvme_core::dirty::{DirtyMap, DirtySet, Granularity};
use nvme_core::dma::checking::{CheckingArena, RegionSlot};
use nvme_core::dma::{Direction, DmaArena, Pool, give_back};
use nvme_core::io::{
    Buffer, CreateIoQueuePair, CreateOutcome, DeleteIoQueuePair, DeleteOutcome, IoQueueOptions, IoQueuePair,
    IoSlot,
};
use nvme_core::time::{Instant, Step};
use nvme_core::wire::admin::{Identify, IdentifyStructure};
use nvme_core::wire::nvm::{Read, Write};
use nvme_core::wire::track::TrackSend;
use nvme_core::wire::{Command, Lba, ManagerId, QueueId, TrackedId};
use nvme_host_linux::memory::{AddressSpace, Capacity};
use nvme_tests::checked::local::{GUEST, LocalRegisters, MANAGER, NAMESPACE, subsystem};
use nvme_tests::checked::{CheckedMemory, CheckedSpace, attach, violations};

const TIMEOUT: Duration = Duration::from_secs(1);
const BLOCKS: usize = 8192;
/// Enough for lists of more than one page.
const LONGEST: usize = 514 * 4096;

type Regs<'r, 'x, 'a, 's> = LocalRegisters<'r, 'x, 'a, 's>;
type Up<'d, 'r, 'x, 'a, 's> = Ready<'d, 'd, Regs<'r, 'x, 'a, 's>, CheckedSpace<'s>>;
type Pair<'d, 'r, 'x, 'a, 's> = IoQueuePair<'d, 'd, Regs<'r, 'x, 'a, 's>, CheckedSpace<'s>, usize>;

/// Registers and memory of a managing controller and of a guest's, and whatever `act` does with them.
fn with_two(act: impl for<'d, 'r, 'x, 'a, 's> FnOnce([(&'d Regs<'r, 'x, 'a, 's>, &'d CheckedSpace<'s>); 2])) {
    let capacity = Capacity { queues: 4 << 20, data: 20 << 20, controller_data: 2 << 20 };
    let spaces = ["manager", "guest"].map(|name| AddressSpace::new(name, capacity).expect("memory"));
    let slots = || (0..64).map(|_| RegionSlot::new()).collect::<Vec<_>>();
    let (mut first, mut second, mut found) = (slots(), slots(), [[None; 8]; 2]);
    let [found_first, found_second] = &mut found;
    let arenas = [
        CheckingArena::new(&spaces[0], &mut first, found_first).with_quarantine(8),
        CheckingArena::new(&spaces[1], &mut second, found_second).with_quarantine(8),
    ];
    let mut parts = None;
    let memories = arenas.each_ref().map(CheckedMemory);
    let subsystem = RefCell::new(subsystem(memories[0], memories[1], BLOCKS, &mut parts));
    let registers = [LocalRegisters::new(&subsystem, MANAGER), LocalRegisters::new(&subsystem, GUEST)];
    act([(&registers[0], &arenas[0]), (&registers[1], &arenas[1])]);
    for arena in &arenas {
        assert_eq!(violations(arena), []);
        assert_eq!(arena.live(), 0, "everything came back");
    }
}

fn drive(registers: &Regs<'_, '_, '_, '_>, mut poll: impl FnMut(Instant) -> Step) {
    let mut now = Instant::ZERO;
    for _ in 0..1000 {
        registers.work(8);
        match poll(now) {
            Step::Again => {}
            Step::Wait(until) => now = until,
            Step::Done => return,
        }
    }
    panic!("a machine does not end");
}

fn enable<'d, 'r, 'x, 'a, 's>(
    registers: &'d Regs<'r, 'x, 'a, 's>,
    down: Disabled<'d, 'd, Regs<'r, 'x, 'a, 's>, CheckedSpace<'s>>,
    slots: &'d mut [AdminSlot],
) -> Up<'d, 'r, 'x, 'a, 's> {
    let options = EnableOptions { max_transfer: 64 << 10, ..EnableOptions::default() };
    let mut enabling = down.enable(&options, slots).expect("legal options");
    drive(registers, |now| enabling.poll(now).expect("a healthy controller"));
    enabling.finish().expect("ready")
}

fn bring_up<'d, 'r, 'x, 'a, 's>(
    registers: &'d Regs<'r, 'x, 'a, 's>,
    arena: &'d CheckedSpace<'s>,
    link: &'d Link,
    slots: &'d mut [AdminSlot],
) -> Up<'d, 'r, 'x, 'a, 's> {
    let mut machine = attach(registers, arena, link).expect("a controller");
    drive(registers, |now| machine.poll(now).expect("a healthy controller"));
    let mut up = enable(registers, machine.finish().expect("disabled"), slots);
    up.admin().request_events(3);
    let identify =
        AdminRequest::receiving(&Identify::new(IdentifyStructure::CONTROLLER), arena, 4096, TIMEOUT);
    let mut bytes = [0; 4096];
    command(registers, &mut up, identify.expect("memory"), &mut bytes);
    let text: &[u8] = b"Software NVM Subsystem";
    assert_eq!(&bytes[24..24 + text.len()], text);
    up
}

fn command(
    registers: &Regs<'_, '_, '_, '_>,
    up: &mut Up<'_, '_, '_, '_, '_>,
    request: AdminRequest,
    bytes: &mut [u8],
) {
    let mut call = Call::new();
    call.start(request).expect("idle");
    let mut done = None;
    drive(registers, |now| {
        up.poll(now).expect("a healthy controller");
        done = call.poll(up.admin(), now);
        if done.is_some() { Step::Done } else { Step::Again }
    });
    let arena = up.admin().arena();
    done.expect("an end").read(arena, bytes).expect("success");
}

fn pair<'d, 'r, 'x, 'a, 's>(
    registers: &Regs<'r, 'x, 'a, 's>,
    up: &mut Up<'d, 'r, 'x, 'a, 's>,
    slots: &'d mut [IoSlot<usize>],
) -> Pair<'d, 'r, 'x, 'a, 's> {
    let options = IoQueueOptions { max_transfer: LONGEST, ..IoQueueOptions::new(QueueId::new(1), 5) };
    let Ok(mut creation) = CreateIoQueuePair::new(up.admin(), &options, slots) else {
        panic!("legal options")
    };
    drive(registers, |now| {
        up.poll(now).expect("a healthy controller");
        creation.poll(up.admin(), now)
    });
    match creation.finish() {
        Ok(CreateOutcome::Created(pair)) => pair,
        _ => panic!("the pair is created"),
    }
}

fn buffer(arena: &CheckedSpace<'_>, len: usize, scattered: bool, direction: Direction) -> Buffer {
    let region = match scattered {
        true => arena.allocate_scattered(Pool::Data, len, direction),
        false => arena.allocate(Pool::Data, len, 4096, direction),
    };
    Buffer::whole(region.expect("memory"))
}

/// Carries out one command and gives its buffer back after `look`.
fn io(
    registers: &Regs<'_, '_, '_, '_>,
    pair: &mut Pair<'_, '_, '_, '_, '_>,
    arena: &CheckedSpace<'_>,
    command: &impl Command,
    buffer: Buffer,
    look: impl FnOnce(&Buffer),
) {
    pair.submit(&command.encode(), Some(buffer), 0, None).expect("room");
    pair.ring().expect("a healthy controller");
    for _ in 0..100 {
        registers.work(8);
        if let Some(completed) = pair.poll().expect("a healthy controller") {
            pair.acknowledge().expect("a healthy controller");
            assert!(completed.entry.status().is_success());
            look(completed.buffer.as_ref().expect("its buffer"));
            completed.release(arena);
            return;
        }
    }
    panic!("no completion");
}

fn slots() -> (Vec<AdminSlot>, Vec<IoSlot<usize>>) {
    ((0..12).map(|_| AdminSlot::new()).collect(), (0..4).map(|_| IoSlot::new()).collect())
}

#[test]
fn data_of_every_shape_arrives_and_the_queues_go() {
    with_two(|[(registers, arena), _]| {
        let (mut admin, mut io_slots) = slots();
        let link = Link::new();
        let mut up = bring_up(registers, arena, &link, &mut admin);
        up.admin().limit_transfer(LONGEST.min(1 << 20));
        let mut pair = pair(registers, &mut up, &mut io_slots);
        for (name, pages) in
            [("one page", 1), ("two pages", 2), ("a list", 3), ("a longer list", 17), ("all there is", 256)]
        {
            for scattered in [false, true] {
                let len = pages * 4096;
                let text: Vec<u8> = (0..len).map(|at| (at / 512 * 7 + at + pages) as u8).collect();
                let (start, blocks) = (Lba::new(8), (len / 512) as u32);
                let to = buffer(arena, len, scattered, Direction::ToDevice);
                to.region().write(0, &text).expect("inside");
                io(registers, &mut pair, arena, &Write::new(NAMESPACE, start, blocks), to, |_| {});
                let from = buffer(arena, len, !scattered, Direction::FromDevice);
                io(registers, &mut pair, arena, &Read::new(NAMESPACE, start, blocks), from, |buffer| {
                    let mut found = vec![0; len];
                    buffer.region().read(0, &mut found).expect("inside");
                    assert!(found == text, "{name}, scattered {scattered}");
                });
            }
        }
        let mut deletion = DeleteIoQueuePair::new(pair, TIMEOUT);
        drive(registers, |now| {
            up.poll(now).expect("a healthy controller");
            deletion.poll(up.admin(), now)
        });
        assert!(matches!(deletion.finish(), Ok(DeleteOutcome::Deleted { .. })));
        take_down(registers, up);
    });
}

fn take_down(registers: &Regs<'_, '_, '_, '_>, up: Up<'_, '_, '_, '_, '_>) {
    let mut machine = up.disable();
    drive(registers, |now| machine.poll(now).expect("a healthy controller"));
    let slots = machine.finish().expect("disabled").detach();
    assert!(slots.is_some());
}

#[test]
fn a_reset_with_commands_in_flight_gives_everything_back() {
    with_two(|[(registers, arena), _]| {
        let (mut admin, mut io_slots) = slots();
        let link = Link::new();
        let mut up = bring_up(registers, arena, &link, &mut admin);
        let mut pair = pair(registers, &mut up, &mut io_slots);
        for tag in 0..4 {
            let direction = if tag % 2 == 0 { Direction::ToDevice } else { Direction::FromDevice };
            let data = buffer(arena, 3 * 4096, tag > 1, direction);
            let entry = match direction {
                Direction::ToDevice => Write::new(NAMESPACE, Lba::new(0), 24).encode(),
                _ => Read::new(NAMESPACE, Lba::new(0), 24).encode(),
            };
            pair.submit(&entry, Some(data), tag, None).expect("room");
        }
        pair.ring().expect("a healthy controller");
        // Some are done and not seen, some fetched, some not.
        registers.work(2);
        let mut machine = up.disable();
        drive(registers, |now| machine.poll(now).expect("a healthy controller"));
        let mut down = machine.finish().expect("disabled");
        let proof = down.quiesced();
        let mut lost = Vec::new();
        while let Some(command) = pair.drain(&proof) {
            lost.push(command.tag);
            give_back(arena, command.buffer.expect("its buffer").into_region());
        }
        lost.sort_unstable();
        assert_eq!(lost, [0, 1, 2, 3], "each once");
        let Ok(io_slots) = pair.retire(&proof) else { panic!("the proof is about this controller") };
        let admin = down.retire().expect("the slots");
        let mut up = enable(registers, down, admin);
        let mut pair = self::pair(registers, &mut up, io_slots);
        let data = buffer(arena, 4096, false, Direction::FromDevice);
        io(registers, &mut pair, arena, &Read::new(NAMESPACE, Lba::new(0), 8), data, |_| {});
        let mut machine = up.disable();
        drive(registers, |now| machine.poll(now).expect("a healthy controller"));
        let down = machine.finish().expect("disabled");
        assert!(pair.retire(&down.quiesced()).is_ok());
        assert!(down.detach().is_some());
    });
}

#[test]
fn a_data_queue_is_filled_read_and_deleted() {
    for layout in [QueueLayout::Contiguous, QueueLayout::PrpList] {
        with_two(|[(registers, arena), (guest_registers, guest_arena)]| {
            let ((mut admin, _), (mut guest_admin, mut guest_io)) = (slots(), slots());
            let links = [Link::new(), Link::new()];
            let mut up = bring_up(registers, arena, &links[0], &mut admin);
            let mut guest = bring_up(guest_registers, guest_arena, &links[1], &mut guest_admin);
            let mut guest_pair = pair(guest_registers, &mut guest, &mut guest_io);

            let tracked = TrackedId::new(GUEST, ManagerId::new(MANAGER)).expect("two controllers");
            let options = CdqOptions { entries: 200, layout, ..CdqOptions::default() };
            let mut creation = CdqCreation::new(up.admin(), tracked, &options).expect("memory");
            let mut made = None;
            drive(registers, |now| {
                up.poll(now).expect("a healthy controller");
                made = creation.poll(up.admin(), now);
                if made.is_some() { Step::Done } else { Step::Again }
            });
            let mut queue: ControllerDataQueue = made.expect("an end").expect("created");
            let log = |start| TrackSend::LogUserDataChanges { start, queue: queue.id() };
            let (start, stop) = (log(true), log(false));
            command(registers, &mut up, AdminRequest::without_data(&start, TIMEOUT), &mut []);

            let mut words = [0; BLOCKS / 64 + 2];
            let mut maps =
                [DirtyMap::new(NAMESPACE, BLOCKS as u64, Granularity::BLOCK, &mut words).expect("a map")];
            let mut dirty = DirtySet::new(&mut maps).expect("one namespace");
            let mut now = Instant::ZERO;
            // More entries than the queue has slots.
            for turn in 0..500_u64 {
                let data = buffer(guest_arena, 512, false, Direction::ToDevice);
                data.region().write(0, &[turn as u8; 512]).expect("inside");
                let write = Write::new(NAMESPACE, Lba::new(turn * 2), 1);
                io(guest_registers, &mut guest_pair, guest_arena, &write, data, |_| {});
                now = now.after(Duration::from_micros(10));
                up.poll(now).expect("a healthy controller");
                let (drained, result) = queue.poll(up.admin(), &mut dirty, now, 4, false);
                assert!(result.is_ok() && drained.violation.is_none() && !drained.overflowed, "turn {turn}");
            }
            command(registers, &mut up, AdminRequest::without_data(&stop, TIMEOUT), &mut []);
            let mut stopped = false;
            for _ in 0..8 {
                up.poll(now).expect("a healthy controller");
                let (drained, _) = queue.poll(up.admin(), &mut dirty, now, 64, true);
                stopped |= drained.stopped;
                registers.work(8);
            }
            assert!(stopped, "the log is read to its end");
            assert_eq!(dirty.dirty_blocks(), 500);

            let mut deletion = CdqDeletion::new(queue, TIMEOUT);
            let mut ended = None;
            drive(registers, |now| {
                up.poll(now).expect("a healthy controller");
                ended = deletion.poll(up.admin(), now);
                if ended.is_some() { Step::Done } else { Step::Again }
            });
            ended.expect("an end").expect("deleted");
            let mut machine = guest.disable();
            drive(guest_registers, |now| machine.poll(now).expect("a healthy controller"));
            let down = machine.finish().expect("disabled");
            assert!(guest_pair.retire(&down.quiesced()).is_ok());
            assert!(down.detach().is_some());
            take_down(registers, up);
        });
    }
}

// SPDX-License-Identifier: MIT OR Apache-2.0
//! A subsystem whose hosts do what the input says: properties, doorbells, entries, memory that comes and goes.

use nvme_core::wire::cdq::{ControllerDataQueueCommand, CreateControllerDataQueue};
use nvme_core::wire::feature::ControllerDataQueueFeature;
use nvme_core::wire::migration::{MigrationSend, SuspendKind};
use nvme_core::wire::track::TrackSend;
use nvme_core::wire::{AdminOpcode, BusAddr, CdqId, Command, IoOpcode, NamespaceId, SubmissionQueueEntry};
use zerocopy::FromBytes;

use crate::Input;
use crate::rig::{BASE, CDQ, CONTROLLERS, DATA, Figures, GUESTS, IDS, LISTS, PAGE, PAGES, Rig, with_rig};

const ADMIN: [AdminOpcode; 20] = [
    AdminOpcode::DELETE_IO_SUBMISSION_QUEUE,
    AdminOpcode::CREATE_IO_SUBMISSION_QUEUE,
    AdminOpcode::GET_LOG_PAGE,
    AdminOpcode::DELETE_IO_COMPLETION_QUEUE,
    AdminOpcode::CREATE_IO_COMPLETION_QUEUE,
    AdminOpcode::IDENTIFY,
    AdminOpcode::ABORT,
    AdminOpcode::SET_FEATURES,
    AdminOpcode::GET_FEATURES,
    AdminOpcode::ASYNCHRONOUS_EVENT_REQUEST,
    AdminOpcode::KEEP_ALIVE,
    AdminOpcode::VIRTUALIZATION_MANAGEMENT,
    AdminOpcode::TRACK_SEND,
    AdminOpcode::TRACK_RECEIVE,
    AdminOpcode::MIGRATION_SEND,
    AdminOpcode::MIGRATION_RECEIVE,
    AdminOpcode::CONTROLLER_DATA_QUEUE,
    AdminOpcode::GET_LBA_STATUS,
    AdminOpcode::ASYNCHRONOUS_EVENT_REQUEST,
    AdminOpcode::CONTROLLER_DATA_QUEUE,
];
const IO: [IoOpcode; 9] = [
    IoOpcode::FLUSH,
    IoOpcode::WRITE,
    IoOpcode::READ,
    IoOpcode::WRITE_UNCORRECTABLE,
    IoOpcode::COMPARE,
    IoOpcode::WRITE_ZEROES,
    IoOpcode::DATASET_MANAGEMENT,
    IoOpcode::VERIFY,
    IoOpcode::COPY,
];
const PROPERTIES: [u32; 14] =
    [0x00, 0x04, 0x08, 0x0C, 0x10, 0x14, 0x1C, 0x20, 0x24, 0x28, 0x2C, 0x30, 0x34, 0xE00];
/// Steps of one run.
const STEPS: u32 = 128;

/// Runs the host's script.
///
/// # Panics
/// A property does not hold.
pub fn run(bytes: &[u8]) {
    play(bytes);
}

/// Runs the host's script and says how far it came.
pub(crate) fn play(bytes: &[u8]) -> Figures {
    let mut input = Input::new(bytes);
    with_rig(|rig| {
        let first = input.u8();
        for index in 0..CONTROLLERS {
            if first & (1 << index) != 0 {
                assert!(rig.bring_up(index), "controller {index} is not ready");
            }
        }
        for _ in 0..STEPS {
            if input.is_empty() {
                break;
            }
            step(rig, &mut input);
        }
        let figures = rig.figures();
        (0..PAGES).for_each(|page| rig.spaces.iter().for_each(|space| space.map(page, true)));
        rig.expect_full_events();
        // Whatever was done, a reset leads back to a controller that works.
        (0..CONTROLLERS).for_each(|index| rig.reset(index));
        for index in 0..CONTROLLERS {
            assert!(rig.bring_up(index), "controller {index} does not come back");
            let keep_alive = SubmissionQueueEntry::new(AdminOpcode::KEEP_ALIVE.get());
            let done = rig.admin(index, keep_alive);
            assert!(done.is_some_and(|entry| entry.status().is_success()), "controller {index}: {done:?}");
        }
        figures
    })
}

fn step(rig: &mut Rig<'_>, input: &mut Input<'_>) {
    let choice = input.u8();
    let index = usize::from(choice >> 5) % CONTROLLERS;
    match choice & 31 {
        0 => {
            rig.work(1 + input.below(16));
            if !input.rarely(4) {
                rig.take_all();
            }
        }
        1 => {
            rig.fetch(1 + input.below(16));
        }
        2 => {
            rig.execute(1 + input.below(16));
        }
        3 => {
            rig.take(index, input.below(3) as usize);
        }
        4 => {
            let offset = PROPERTIES[input.below(14) as usize];
            let value = input.u32();
            rig.write32(index, offset, value);
        }
        5 => {
            let (offset, value) = (u32::from(input.u16()), input.u32());
            rig.write32(index, offset, value);
        }
        6 => rig.read_anywhere(index, u32::from(input.u16())),
        7 => {
            let (doorbell, value) = (0x1000 + 4 * input.below(10), u32::from(input.u8()) % 40);
            rig.write32(index, doorbell, value);
        }
        8 => match input.below(4) {
            // Shutdown, abrupt or normal, and its end.
            0 => rig.write32(index, 0x14, 0x0046_4001),
            1 => rig.write32(index, 0x14, 0x0046_8001),
            2 => rig.write32(index, 0x14, 0x0046_0000),
            _ => rig.reset(index),
        },
        9 => {
            if input.rarely(4) {
                rig.write32(index, 0x20, 0x4E56_4D65);
            } else {
                rig.write32(index, 0x14, 0);
            }
        }
        10 => {
            let (page, present) = (u64::from(input.u8()) % PAGES, input.rarely(2));
            rig.spaces[index].map(page, present);
        }
        11 => {
            let (page, offset) = (u64::from(input.u8()) % PAGES, u64::from(input.u8()) * 16);
            let len = usize::from(input.u8());
            rig.spaces[index].put(BASE + page * PAGE + offset, input.bytes(len));
        }
        12 => rig.advance(u64::from(input.u32())),
        13 => {
            rig.bring_up(index);
        }
        14 | 15 => {
            let (queue, contiguous) = (1 + usize::from(input.rarely(4)), !input.rarely(4));
            rig.make_pair(index, queue, 2 + input.below(31), contiguous);
        }
        16..=18 => migrate(rig, input, index % 2),
        19 => prp_list(rig, input, index),
        20..=25 => admin(rig, input, index),
        _ => io(rig, input, index),
    }
    states(rig, index);
}

/// What a controller says of itself can be.
fn states(rig: &Rig<'_>, index: usize) {
    let (cc, csts) = (rig.read32(index, 0x14), rig.read32(index, 0x1C));
    if cc & 1 == 0 {
        assert_eq!(csts & 1, 0, "ready though disabled: CC {cc:#x}, CSTS {csts:#x}");
    }
    assert_ne!(csts, u32::MAX);
    assert_ne!(csts >> 2 & 3, 3, "no such shutdown status");
}

/// Submits an entry through a ring, mostly with a doorbell and mostly with an identifier of its own.
fn put(rig: &mut Rig<'_>, index: usize, queue: usize, entry: SubmissionQueueEntry, input: &mut Input<'_>) {
    let choice = input.u8();
    rig.put(index, queue, entry, choice & 15 == 15);
    if choice < 0xC0 {
        rig.ring(index, queue);
    }
}

/// An entry of any content with PRPs that mostly mean something.
fn entry(input: &mut Input<'_>, opcode: u8) -> SubmissionQueueEntry {
    let mut bytes: [u8; 64] = [0; 64];
    let flags = input.u8();
    bytes[0] = opcode;
    if flags & 0xC0 == 0xC0 {
        bytes[1] = input.u8();
    }
    bytes[4..8]
        .copy_from_slice(&[u32::from(flags & 7 < 6), u32::MAX][usize::from(flags & 7 == 7)].to_le_bytes());
    for dword in 10..16 {
        let value = match input.u8() {
            0..=0x7F => 0,
            0x80..=0xBF => u32::from(input.u8()),
            0xC0..=0xDF => u32::from(input.u8()) << 16 | u32::from(input.u8()),
            _ => input.u32(),
        };
        bytes[4 * dword..4 * dword + 4].copy_from_slice(&value.to_le_bytes());
    }
    let entry = SubmissionQueueEntry::read_from_bytes(&bytes).expect("64 bytes");
    let address = |input: &mut Input<'_>| match input.u8() {
        0..=0x9F => DATA + u64::from(input.u8() % 8) * PAGE,
        0xA0..=0xDF => BASE + u64::from(input.u16()) * 4,
        _ => input.u64(),
    };
    let (prp1, prp2) = (address(input), address(input));
    entry.with_prps(BusAddr::new(prp1), BusAddr::new(prp2))
}

fn admin(rig: &mut Rig<'_>, input: &mut Input<'_>, index: usize) {
    let opcode = match input.u8() {
        choice @ 0..=239 => ADMIN[usize::from(choice) % ADMIN.len()].get(),
        _ => input.u8(),
    };
    let entry = entry(input, opcode);
    put(rig, index, 0, entry, input);
}

fn io(rig: &mut Rig<'_>, input: &mut Input<'_>, index: usize) {
    let opcode = match input.u8() {
        choice @ 0..=239 => IO[usize::from(choice) % IO.len()].get(),
        _ => input.u8(),
    };
    let entry = entry(input, opcode);
    let queue = 1 + usize::from(input.rarely(8));
    put(rig, index, queue, entry, input);
}

/// Migration commands as a well-behaved host sends them.
fn migrate(rig: &mut Rig<'_>, input: &mut Input<'_>, manager: usize) {
    let choice = input.u8();
    let guest = GUESTS[usize::from(choice >> 7)];
    let controller = IDS[guest];
    let mut queue = || CdqId::new(u16::from(input.u8()) % 3);
    let entry = match choice % 14 {
        0 => {
            let (entries, contiguous) = (2 + input.below(30), !input.rarely(6));
            let create = CreateControllerDataQueue::user_data_migration(controller, entries, contiguous);
            let create = ControllerDataQueueCommand::Create(create.expect("a legal size"));
            let memory = CDQ + PAGE * (guest - GUESTS[0]) as u64;
            rig.spaces[manager].put(LISTS[0], &memory.to_le_bytes());
            let at = if contiguous { memory } else { LISTS[0] };
            create.encode().with_prps(BusAddr::new(at), BusAddr::new(0))
        }
        1 | 2 => TrackSend::LogUserDataChanges { start: true, queue: queue() }.encode(),
        3 => TrackSend::LogUserDataChanges { start: false, queue: queue() }.encode(),
        4 | 5 => MigrationSend::Suspend {
            controller,
            kind: if input.rarely(8) { SuspendKind::Notification } else { SuspendKind::Suspend },
            delete_queue: input.rarely(4),
            uuid_index: 0,
        }
        .encode(),
        6 => MigrationSend::Resume { controller, uuid_index: 0 }.encode(),
        7 => {
            if let Some(image) = rig.get_state(manager, guest, input.rarely(2)) {
                assert!(image.len() >= 48);
            }
            return;
        }
        8 => {
            let to = GUESTS[input.below(2) as usize];
            let Some(mut image) = rig.get_state(manager, guest, true) else { return };
            let changes = input.below(8).saturating_sub(4);
            for _ in 0..changes {
                let at = usize::from(input.u16()) % image.len();
                image[at] ^= input.u8();
            }
            let parts = 1 + input.below(3) as usize;
            // Refused or taken: both are possible.
            let taken = rig.set_state((manager, to), &image, parts, true, input.rarely(8));
            if taken.is_ok() && changes == 0 && to != guest {
                rig.move_host(guest, to);
            }
            return;
        }
        9 => ControllerDataQueueCommand::Delete(queue()).encode(),
        10 => {
            let (queue, head) = (queue(), input.below(32));
            let tail_trigger = (!input.rarely(2)).then(|| input.below(32));
            let feature = ControllerDataQueueFeature { queue, head, tail_trigger };
            feature.to_set_features().encode()
        }
        11 => SubmissionQueueEntry::new(AdminOpcode::ASYNCHRONOUS_EVENT_REQUEST.get()),
        12 => return rig.track(manager, guest),
        _ => return rig.written(manager, guest, 8 << input.below(7)),
    };
    let entry = entry.with_namespace(NamespaceId::NONE);
    if input.rarely(4) {
        put(rig, manager, 0, entry, input);
    } else {
        rig.admin(manager, entry);
    }
}

/// A PRP list, mostly of data pages.
fn prp_list(rig: &mut Rig<'_>, input: &mut Input<'_>, index: usize) {
    let at = DATA + u64::from(input.u8() % 8) * PAGE + 8 * u64::from(input.u8()) % PAGE;
    for n in 0..u64::from(input.below(16)) {
        let entry = match input.u8() {
            choice @ 0..=0xEF => DATA + u64::from(choice % 8) * PAGE,
            _ => input.u64(),
        };
        rig.spaces[index].put(at + 8 * n, &entry.to_le_bytes());
    }
}

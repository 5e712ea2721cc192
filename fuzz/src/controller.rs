// SPDX-License-Identifier: MIT OR Apache-2.0
//! A subsystem whose hosts do what the input says: properties, doorbells, entries, memory that comes and goes.

use nvme_core::register::Offset;
use nvme_core::wire::QueueId;
use nvme_core::wire::admin::{CreateIoCompletionQueue, CreateIoSubmissionQueue, QueuePriority};
use nvme_core::wire::cdq::{ControllerDataQueueCommand, CreateControllerDataQueue};
use nvme_core::wire::migration::{MigrationSend, SuspendKind};
use nvme_core::wire::track::TrackSend;
use nvme_core::wire::{AdminOpcode, BusAddr, CdqId, Command, IoOpcode, NamespaceId, SubmissionQueueEntry};
use zerocopy::{FromBytes, IntoBytes};

use crate::Input;
use crate::rig::{ASQ, BASE, CDQ, CQ, DATA, ENTRIES, GUEST, IDS, MANAGER, PAGE, PAGES, Rig, SQ, with_rig};

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
const STEPS: u32 = 96;

/// Runs the host's script.
///
/// # Panics
/// A property does not hold.
pub fn run(bytes: &[u8]) {
    let mut input = Input::new(bytes);
    with_rig(|rig| {
        let first = input.u8();
        for index in [MANAGER, GUEST] {
            if first & (1 << index) != 0 {
                assert!(rig.bring_up(index), "controller {index} is not ready");
            }
        }
        let mut fetched = [0; 2];
        for _ in 0..STEPS {
            if input.is_empty() {
                break;
            }
            step(rig, &mut input, &mut fetched);
        }
        // Whatever was done, a reset leads back to a controller that works.
        for index in [MANAGER, GUEST] {
            (0..PAGES).for_each(|page| rig.spaces[index].map(page, true));
            rig.subsystem.reset(rig.ports[index]);
        }
        for index in [MANAGER, GUEST] {
            assert!(rig.bring_up(index), "controller {index} does not come back");
            let keep_alive = SubmissionQueueEntry::new(AdminOpcode::KEEP_ALIVE.get());
            let done = rig.admin(index, keep_alive);
            assert!(done.is_some_and(|entry| entry.status().is_success()), "controller {index}: {done:?}");
        }
    });
}

fn step(rig: &mut Rig<'_>, input: &mut Input<'_>, fetched: &mut [u64; 2]) {
    let choice = input.u8();
    let index = usize::from(choice >> 7);
    match choice & 0x7F & 31 {
        0..=3 => poll(rig, input, fetched),
        4 => {
            let offset = PROPERTIES[input.below(14) as usize];
            let value = input.u32();
            rig.write32(index, offset, value);
        }
        5 => {
            let (offset, value) = (u32::from(input.u16()), input.u32());
            let result = rig.subsystem.write32(rig.ports[index], Offset::new(offset), value);
            assert_eq!(result.is_err(), !offset.is_multiple_of(4), "a write at {offset:#x}");
        }
        6 => {
            let offset = u32::from(input.u16());
            let result = rig.subsystem.read32(rig.ports[index], Offset::new(offset));
            assert_eq!(result.is_err(), !offset.is_multiple_of(4), "a read at {offset:#x}");
            let wide = rig.subsystem.read64(rig.ports[index], Offset::new(offset));
            assert_eq!(wide.is_err(), !offset.is_multiple_of(8), "a wide read at {offset:#x}");
        }
        7 => {
            let (doorbell, value) = (0x1000 + 4 * input.below(10), u32::from(input.u8()) % 40);
            rig.write32(index, doorbell, value);
        }
        8 => rig.subsystem.reset(rig.ports[index]),
        9 => rig.write32(index, 0x20, 0x4E56_4D65),
        10 => {
            let (page, present) = (u64::from(input.u8()) % PAGES, input.rarely(2));
            rig.spaces[index].map(page, present);
        }
        11 => {
            let (page, offset) = (u64::from(input.u8()) % PAGES, u64::from(input.u8()) * 16);
            let len = usize::from(input.u8());
            rig.spaces[index].put(BASE + page * PAGE + offset, input.bytes(len));
        }
        12 => {
            let time = u64::from(input.u32());
            rig.subsystem.advance(time);
        }
        13 | 14 => {
            rig.bring_up(index);
        }
        15 => queues(rig, input, index),
        16 => migrate(rig, input),
        17 | 18 => prp_list(rig, input, index),
        19..=25 => admin(rig, input, index),
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

/// Lets the subsystem work, and looks at what it did.
fn poll(rig: &mut Rig<'_>, input: &mut Input<'_>, fetched: &mut [u64; 2]) {
    let budget = 1 + input.below(16);
    let mut disabled = [false; 2];
    for index in [MANAGER, GUEST] {
        rig.spaces[index].take_touched();
        disabled[index] = rig.read32(index, 0x1C) & 1 == 0 && rig.read32(index, 0x14) & 1 == 0;
    }
    let activity = rig.subsystem.poll(budget);
    // Both halves of a fused pair are fetched together.
    assert!(activity.fetched <= 2 * (budget + 1), "{activity:?} with a budget of {budget}");
    for index in [MANAGER, GUEST] {
        let touched = rig.spaces[index].take_touched();
        if disabled[index] && rig.read32(index, 0x14) & 1 == 0 {
            assert_eq!(touched, [], "a disabled controller reaches memory");
        }
        // Data of a command and its lists, entries and completions: nothing is without bound.
        assert!(touched.len() < 20_000, "{} accesses", touched.len());
        assert!(touched.iter().all(|touch| touch.len <= 1 << 20), "a long access");
        fetched[index] += touched.iter().filter(|touch| !touch.write && touch.len >= 64).count() as u64;
    }
}

fn put(rig: &mut Rig<'_>, index: usize, queue: u64, entry: SubmissionQueueEntry, input: &mut Input<'_>) {
    let slot = u64::from(input.u8()) % u64::from(ENTRIES);
    let base = if queue == 0 { ASQ } else { SQ };
    let entry = if input.rarely(16) {
        entry
    } else {
        entry.with_command_id(nvme_core::wire::CommandId::new(slot as u16))
    };
    rig.spaces[index].put(base + slot * 64, entry.as_bytes());
    let tail = (slot as u32 + 1) % ENTRIES;
    rig.write32(index, 0x1000 + 8 * queue as u32, tail);
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
    let queue = 1 + u64::from(input.rarely(8));
    put(rig, index, queue, entry, input);
}

/// I/O queues as a well-behaved host makes them.
fn queues(rig: &mut Rig<'_>, input: &mut Input<'_>, index: usize) {
    let id = QueueId::new(1 + u16::from(input.rarely(4)));
    let contiguous = !input.rarely(4);
    let entries = 2 + input.below(31);
    let completion = CreateIoCompletionQueue {
        queue: id,
        entries,
        contiguous,
        interrupts_enabled: true,
        interrupt_vector: 1,
    };
    let submission = CreateIoSubmissionQueue {
        queue: id,
        entries: ENTRIES,
        contiguous,
        priority: QueuePriority::Medium,
        completion_queue: id,
        nvm_set: 0,
    };
    let list = BASE + 4 * PAGE;
    rig.spaces[index].put(list, &CQ.to_le_bytes());
    rig.spaces[index].put(list + PAGE / 2, &SQ.to_le_bytes());
    let [first, second] = if contiguous { [CQ, SQ] } else { [list, list] };
    rig.admin(index, completion.encode().with_prps(BusAddr::new(first), BusAddr::new(0)));
    rig.admin(index, submission.encode().with_prps(BusAddr::new(second), BusAddr::new(0)));
}

/// Migration commands as a well-behaved host sends them.
fn migrate(rig: &mut Rig<'_>, input: &mut Input<'_>) {
    let controller = IDS[GUEST];
    let queue = CdqId::new(u16::from(input.u8()) % 3);
    let entry = match input.below(8) {
        0 => {
            let entries = 2 + input.below(30);
            let create = CreateControllerDataQueue::user_data_migration(controller, entries, true);
            let create = ControllerDataQueueCommand::Create(create.expect("a legal size"));
            create.encode().with_prps(BusAddr::new(CDQ), BusAddr::new(0))
        }
        1 => TrackSend::LogUserDataChanges { start: true, queue }.encode(),
        2 => TrackSend::LogUserDataChanges { start: false, queue }.encode(),
        3 => MigrationSend::Suspend {
            controller,
            kind: if input.rarely(4) { SuspendKind::Notification } else { SuspendKind::Suspend },
            delete_queue: input.rarely(4),
            uuid_index: 0,
        }
        .encode(),
        4 => MigrationSend::Resume { controller, uuid_index: 0 }.encode(),
        5 => {
            if let Some(image) = rig.get_state(input.rarely(2)) {
                assert!(image.len() >= 48);
            }
            return;
        }
        6 => {
            let Some(mut image) = rig.get_state(true) else { return };
            for _ in 0..input.below(4) {
                let at = usize::from(input.u16()) % image.len();
                image[at] ^= input.u8();
            }
            // Refused or taken: both are possible.
            let _ = rig.set_state(&image, 1 + input.below(3) as usize, true, input.rarely(8));
            return;
        }
        _ => ControllerDataQueueCommand::Delete(queue).encode(),
    };
    rig.admin(MANAGER, entry.with_namespace(NamespaceId::NONE));
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

// SPDX-License-Identifier: MIT OR Apache-2.0
//! Controllers reach the memory that their host mapped for them and nothing else, and readers of a data queue learn
//! of one controller and nothing else.

use std::sync::Arc;

use nvme_core::cdq::{CdqMemory, CdqReader, LogEvent, MemoryLimits, QueueLayout};
use nvme_core::dma::{Direction, DmaArena, DmaRegion, Pool};
use nvme_core::wire::admin::{FeatureSelect, GetFeatures};
use nvme_core::wire::cdq::{ControllerDataQueueCommand, CreateControllerDataQueue, created_queue};
use nvme_core::wire::feature::FeatureId;
use nvme_core::wire::migration::{MigrationReceive, MigrationSend, SequenceIndicator, SuspendKind};
use nvme_core::wire::nvm::{Read, Write};
use nvme_core::wire::track::{TrackReceive, TrackSend};
use nvme_core::wire::{BusAddr, CdqId, Command, ControllerId, Lba, Status, StatusCode, SubmissionQueueEntry};
use nvme_host_linux::embedded::{
    ControllerRole, ControllerSetup, EmbeddedSubsystem, NAMESPACE, SubsystemSetup,
};
use nvme_host_linux::memory::{AddressSpace, Capacity};
use nvme_host_linux::storage::FileStorage;
use nvme_tests::raw_host::RawHost;

const MANAGER: ControllerId = ControllerId::new(1);
const GUEST: ControllerId = ControllerId::new(2);
const NEIGHBOUR: ControllerId = ControllerId::new(3);
const NOWHERE: BusAddr = BusAddr::new(0);

/// A managing controller and two migratable ones, each with memory and a host of its own.
struct Bench {
    _subsystem: EmbeddedSubsystem,
    manager: RawHost,
    guest: RawHost,
    neighbour: RawHost,
}

fn bench() -> Bench {
    let capacity = Capacity { queues: 1 << 20, data: 1 << 20, controller_data: 1 << 20 };
    let setup = |id, role| ControllerSetup {
        id,
        role,
        io_queues: 1,
        memory: Arc::new(AddressSpace::new("test", capacity).expect("memory")),
        interrupts: Arc::default(),
    };
    let controllers = [
        setup(MANAGER, ControllerRole::Managing),
        setup(GUEST, ControllerRole::Migratable),
        setup(NEIGHBOUR, ControllerRole::Migratable),
    ];
    let subsystem = EmbeddedSubsystem::start(SubsystemSetup {
        name: "isolation".into(),
        serial_number: "T1".into(),
        namespace: FileStorage::memory("isolation", 1 << 20).expect("memory"),
        block_size: 4096,
        unique_id: [1; 16],
        faults: Default::default(),
        quirks: nvme_controller::Quirks::empty(),
        controllers: controllers.to_vec(),
    })
    .expect("a subsystem");
    let [manager, guest, neighbour] = controllers.map(|setup| RawHost::enable(&subsystem, &setup));
    Bench { _subsystem: subsystem, manager, guest, neighbour }
}

fn write(lba: u64, from: BusAddr) -> SubmissionQueueEntry {
    Write::new(NAMESPACE, Lba::new(lba), 1).encode().with_prps(from, NOWHERE)
}

fn read(lba: u64, to: BusAddr) -> SubmissionQueueEntry {
    Read::new(NAMESPACE, Lba::new(lba), 1).encode().with_prps(to, NOWHERE)
}

fn first_byte(region: &DmaRegion) -> u8 {
    let mut bytes = [0; 4096];
    region.read(0, &mut bytes).expect("a page");
    assert!(bytes.iter().all(|byte| *byte == bytes[0]), "half a page");
    bytes[0]
}

#[test]
fn r22_a_controller_reaches_what_its_host_mapped_and_nothing_else() {
    let mut bench = bench();
    let Bench { manager, guest, neighbour, .. } = &mut bench;
    let (own, output) = (guest.page(0x11), guest.page(0));
    let arena = guest.arena();
    let readable = arena.allocate(Pool::Data, 4096, 4096, Direction::ToDevice).expect("memory");
    let writable = arena.allocate(Pool::Data, 4096, 4096, Direction::FromDevice).expect("memory");
    readable.write(0, &[0x55; 4096]).expect("a page");
    writable.write(0, &[0x66; 4096]).expect("a page");
    let (foreign, foreign_manager) = (neighbour.page(0x22), manager.page(0x33));
    let cpu = BusAddr::new(own.cpu_address().as_ptr().addr() as u64);
    assert_eq!(guest.io(write(0, own.bus())).status(), Status::SUCCESS);

    // Name, address, whether the controller may read there, whether it may write there.
    let table = [
        ("its own page", own.bus(), true, true),
        ("a page mapped for reading", readable.bus(), true, false),
        ("a page mapped for writing", writable.bus(), false, true),
        ("another guest's page", foreign.bus(), false, false),
        ("the managing controller's page", foreign_manager.bus(), false, false),
        ("the same page by its CPU address", cpu, false, false),
        ("the page behind a mapped one", own.bus().plus(4096), false, false),
        ("address zero", NOWHERE, false, false),
        ("the top of the address space", BusAddr::new(0xFFFF_FFFF_FFFF_F000), false, false),
    ];
    let fault = StatusCode::DATA_TRANSFER_ERROR;
    for (name, address, may_read, may_write) in table {
        let outcome = |allowed| if allowed { StatusCode::SUCCESSFUL_COMPLETION } else { fault };
        assert_eq!(guest.io(write(7, address)).status().code(), outcome(may_read), "write from {name}");
        assert_eq!(guest.io(read(0, address)).status().code(), outcome(may_write), "read to {name}");
    }
    assert_eq!(
        (first_byte(&foreign), first_byte(&foreign_manager)),
        (0x22, 0x33),
        "foreign memory is as it was"
    );
    assert_eq!((first_byte(&readable), first_byte(&writable)), (0x55, 0x11));
    // The controller is none the worse for it, and the last write that succeeded is the one that counts.
    assert_eq!(guest.io(read(7, output.bus())).status(), Status::SUCCESS);
    assert_eq!(first_byte(&output), 0x55);
}

#[test]
fn r22_no_guest_can_migrate_track_or_load_state() {
    let mut bench = bench();
    let Bench { manager, guest, .. } = &mut bench;
    let page = guest.page(0);
    let create = CreateControllerDataQueue::user_data_migration(NEIGHBOUR, 64, true).expect("64 entries");
    let feature = GetFeatures::new(FeatureId::CONTROLLER_DATA_QUEUE, FeatureSelect::Current);
    let suspend = MigrationSend::Suspend {
        controller: NEIGHBOUR,
        kind: SuspendKind::Suspend,
        delete_queue: false,
        uuid_index: 0,
    };
    let load = MigrationSend::SetControllerState {
        controller: GUEST,
        sequence: SequenceIndicator::Only,
        version_index: 1,
        vendor_index: 0,
        offset: 0,
        dwords: 1024,
        uuid_index: 0,
    };
    let save = MigrationReceive {
        controller: NEIGHBOUR,
        version_index: 1,
        vendor_index: 0,
        vendor_parameter: 0,
        offset: 0,
        dwords: 1024,
        uuid_index: 0,
    };
    let opcode = StatusCode::INVALID_COMMAND_OPCODE;
    let table = [
        ("create a data queue", ControllerDataQueueCommand::Create(create).encode(), opcode),
        ("delete a data queue", ControllerDataQueueCommand::Delete(CdqId::new(0)).encode(), opcode),
        ("log", TrackSend::LogUserDataChanges { start: true, queue: CdqId::new(0) }.encode(), opcode),
        (
            "track memory",
            TrackSend::TrackMemoryChanges { start: true, controller: NEIGHBOUR }.encode(),
            opcode,
        ),
        ("read tracked memory", TrackReceive { controller: NEIGHBOUR, dwords: 16 }.encode(), opcode),
        ("suspend", suspend.encode(), opcode),
        ("resume", MigrationSend::Resume { controller: NEIGHBOUR, uuid_index: 0 }.encode(), opcode),
        ("load state", load.encode(), opcode),
        ("save state", save.encode(), opcode),
        ("look at a data queue", feature.encode(), StatusCode::INVALID_FIELD),
    ];
    for (name, entry, status) in table {
        let completion = guest.admin(entry.with_prps(page.bus(), NOWHERE));
        assert_eq!(completion.status().code(), status, "{name}");
    }
    assert_eq!(first_byte(&page), 0, "no state leaked");
    // The same suspension is fine when the managing controller asks for it.
    assert_eq!(manager.admin(suspend.encode()).status(), Status::SUCCESS);
}

#[test]
fn r23_a_reader_gets_decoded_events_of_one_controller() {
    for layout in [QueueLayout::Contiguous, QueueLayout::PrpList] {
        let mut bench = bench();
        let Bench { manager, guest, neighbour, .. } = &mut bench;
        let mut queues = Vec::new();
        for tracked in [GUEST, NEIGHBOUR] {
            let memory = CdqMemory::allocate(manager.arena(), 300, layout, 4096, MemoryLimits::default());
            let memory = memory.expect("memory for a queue");
            let contiguous = layout == QueueLayout::Contiguous;
            let create =
                CreateControllerDataQueue::user_data_migration(tracked, 300, contiguous).expect("a size");
            let create = ControllerDataQueueCommand::Create(create);
            let completion = manager.admin(create.encode().with_prps(memory.base(), NOWHERE));
            assert_eq!(completion.status(), Status::SUCCESS, "{layout:?} {tracked:?}");
            let queue = created_queue(&completion);
            let log = TrackSend::LogUserDataChanges { start: true, queue };
            assert_eq!(manager.admin(log.encode()).status(), Status::SUCCESS, "{layout:?} {tracked:?}");
            queues.push((memory, CdqReader::new(300)));
        }
        let (one, other) = (guest.page(1), neighbour.page(2));
        for lba in 0..100 {
            assert_eq!(guest.io(write(2 * lba, one.bus())).status(), Status::SUCCESS);
            assert_eq!(neighbour.io(write(2 * lba + 1, other.bus())).status(), Status::SUCCESS);
        }
        // What is written through a third way is nobody's.
        let third = manager.page(3);
        assert_eq!(manager.io(write(255, third.bus())).status(), Status::SUCCESS);
        for (first, (memory, reader)) in (0..).zip(&mut queues) {
            let mut events: Vec<LogEvent> = Vec::new();
            while let Some(event) = reader.next(memory, manager.arena(), 1000) {
                events.push(event);
            }
            assert_eq!(events.first(), Some(&LogEvent::LogStarted), "{layout:?}");
            let mut blocks: Vec<u64> = Vec::new();
            for event in &events[1..] {
                let LogEvent::Changed { namespace, start, blocks: count, deallocated: false } = *event else {
                    panic!("{layout:?}: {event:?}");
                };
                assert_eq!((namespace, count), (NAMESPACE, 1), "{layout:?}");
                blocks.push(start.get());
            }
            assert_eq!(blocks, (0..100).map(|lba| 2 * lba + first).collect::<Vec<_>>(), "{layout:?}");
            assert_eq!(reader.violations(), 0, "{layout:?}");
        }
    }
}

// SPDX-License-Identifier: MIT OR Apache-2.0
//! Controller Data Queues of every length of PRP list, under a guest that writes.

use std::sync::Arc;
use std::time::Duration;

use nvme_core::cdq::{CdqMemory, CdqReader, LogEvent, MemoryLimits, QueueLayout};
use nvme_core::wire::cdq::{ControllerDataQueueCommand, CreateControllerDataQueue, created_queue};
use nvme_core::wire::feature::ControllerDataQueueFeature;
use nvme_core::wire::nvm::DatasetManagement;
use nvme_core::wire::nvm_data::{DatasetRange, DatasetRangeData};
use nvme_core::wire::track::TrackSend;
use nvme_core::wire::{BusAddr, Command, ControllerId, Lba, Status};
use nvme_host_linux::config::{CdqLayout, MigrateConfig, Namespaces};
use nvme_host_linux::embedded::{
    ControllerRole, ControllerSetup, EmbeddedSubsystem, NAMESPACE, SubsystemSetup,
};
use nvme_host_linux::images::Inputs;
use nvme_host_linux::memory::{AddressSpace, Capacity};
use nvme_host_linux::migrate::run;
use nvme_host_linux::report::Verdict;
use nvme_host_linux::storage::FileStorage;
use nvme_tests::raw_host::RawHost;
use zerocopy::IntoBytes;

/// Entries of 32 bytes in a page of 4 KiB.
const ENTRIES_PER_PAGE: u32 = 128;
const MANAGER: ControllerId = ControllerId::new(1);
const GUEST: ControllerId = ControllerId::new(2);
const NOWHERE: BusAddr = BusAddr::new(0);
/// Blocks of the namespace; 7 does not divide them, so that entries next to each other never join.
const BLOCKS: u64 = 1 << 11;

/// A managing controller and a migratable one, each with memory and a host of its own.
fn bench() -> (EmbeddedSubsystem, RawHost, RawHost) {
    let capacity = Capacity { queues: 1 << 20, data: 1 << 20, controller_data: 16 << 20 };
    let setup = |id, role| ControllerSetup {
        id,
        role,
        io_queues: 1,
        memory: Arc::new(AddressSpace::new("geometry", capacity).expect("memory")),
        interrupts: Arc::default(),
    };
    let controllers = [setup(MANAGER, ControllerRole::Managing), setup(GUEST, ControllerRole::Migratable)];
    let subsystem = EmbeddedSubsystem::start(SubsystemSetup {
        name: "geometry".into(),
        serial_number: "T1".into(),
        namespace: FileStorage::memory("geometry", BLOCKS * 512).expect("memory"),
        block_size: 512,
        unique_id: [1; 16],
        faults: Default::default(),
        quirks: nvme_controller::Quirks::empty(),
        controllers: controllers.to_vec(),
    })
    .expect("a subsystem");
    let [manager, guest] = controllers.map(|setup| RawHost::enable(&subsystem, &setup));
    (subsystem, manager, guest)
}

#[test]
fn queues_of_every_list_length_arrive() {
    // One page, one entry short of a full list page, a full one, and lists that need a second and a third page. The
    // last queue page is full in one row and holds a single entry in the next.
    for list_entries in [1, 511, 512, 513, 1025] {
        for (layout, listed) in [(CdqLayout::PrpList, list_entries), (CdqLayout::Contiguous, 0)] {
            for entries in [list_entries * ENTRIES_PER_PAGE, (list_entries - 1) * ENTRIES_PER_PAGE + 3] {
                let name = format!("{list_entries} pages, {entries} entries, {layout:?}");
                let config = MigrateConfig {
                    namespaces: Namespaces::Memory { size: 16 << 20 },
                    cdq_entries: entries,
                    cdq_layout: layout,
                    run_before: Duration::from_millis(20),
                    run_after: Duration::from_millis(20),
                    ..MigrateConfig::default()
                };
                let inputs = Inputs::open(&config, None).expect(&name);
                let report = run(&config, inputs, &mut ()).expect(&name);
                assert_eq!(report.verdict, Verdict::Verified, "{name}: {}", report.statement);
                assert_eq!(report.comparison.map(|found| found.wrong), Some(0), "{name}");
                assert_eq!(report.cdq.list_entries, listed, "{name}");
                assert_eq!(report.leftovers.bytes, 0, "{name}");
                assert!(report.cdq.entries > 0, "{name}");
            }
        }
    }
}

/// A queue of each size is written to its last slot and over it, every entry where its page lies on the bus and in
/// order.
#[test]
fn queues_of_every_list_length_wrap_without_losing_an_entry() {
    for list_entries in [1, 511, 512, 513, 1025] {
        for layout in [QueueLayout::PrpList, QueueLayout::Contiguous] {
            let name = format!("{list_entries} pages, {layout:?}");
            let entries = list_entries * ENTRIES_PER_PAGE;
            let (_subsystem, mut manager, mut guest) = bench();
            let memory = CdqMemory::allocate(manager.arena(), entries, layout, 4096, MemoryLimits::default());
            let memory = memory.expect(&name);
            let create = CreateControllerDataQueue::user_data_migration(
                GUEST,
                entries,
                layout == QueueLayout::Contiguous,
            );
            let create = ControllerDataQueueCommand::Create(create.expect(&name)).encode();
            let created = manager.admin(create.with_prps(memory.base(), NOWHERE));
            assert_eq!(created.status(), Status::SUCCESS, "{name}");
            let queue = created_queue(&created);
            let log = TrackSend::LogUserDataChanges { start: true, queue }.encode();
            assert_eq!(manager.admin(log).status(), Status::SUCCESS, "{name}");

            let mut reader = CdqReader::new(entries);
            let started = reader.next(&memory, manager.arena(), 1);
            assert_eq!(started, Some(LogEvent::LogStarted), "{name}");
            let ranges = guest.page(0);
            let mut numbers = 0_u64..;
            while numbers.start < u64::from(entries) + 300 {
                // As many ranges as a command may have.
                let count = 64.min(entries - 3) as u16;
                let starts: Vec<Lba> =
                    numbers.by_ref().take(count.into()).map(|number| Lba::new(7 * number % BLOCKS)).collect();
                for (place, start) in starts.iter().enumerate() {
                    let range =
                        DatasetRangeData::from(DatasetRange { attributes: 0, blocks: 1, start: *start });
                    ranges.write(place * 16, range.as_bytes()).expect(&name);
                }
                let command = DatasetManagement {
                    namespace: NAMESPACE,
                    ranges: count,
                    deallocate: true,
                    integral_write: false,
                    integral_read: false,
                };
                let done = guest.io(command.encode().with_prps(ranges.bus(), NOWHERE));
                assert_eq!(done.status(), Status::SUCCESS, "{name}");
                for start in starts {
                    let found = reader.next(&memory, manager.arena(), 1);
                    let expected =
                        LogEvent::Changed { namespace: NAMESPACE, start, blocks: 1, deallocated: true };
                    assert_eq!(found, Some(expected), "{name} at slot {}", reader.head());
                }
                let head = ControllerDataQueueFeature { queue, head: reader.head(), tail_trigger: None };
                assert_eq!(
                    manager.admin(head.to_set_features().encode()).status(),
                    Status::SUCCESS,
                    "{name}"
                );
            }
            assert_eq!((reader.violations(), reader.overflows()), (0, 0), "{name}");
            assert!(reader.entries() > u64::from(entries), "{name}: the ring did not wrap");
        }
    }
}

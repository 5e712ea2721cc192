// SPDX-License-Identifier: MIT OR Apache-2.0
//! Every check of Create and Delete Controller Data Queue, with its status.

mod harness;

use harness::lm::{create, create_entry};
use harness::{GUEST, MANAGER, Options, PAGE, Rig, code, id_of, list_of};
use nvme_controller::{ManagerConfig, Quirks, SubsystemConfig};
use nvme_core::wire::cdq::{ControllerDataQueueCommand, QueueType};
use nvme_core::wire::{BusAddr, CdqId, Command, ControllerId, NamespaceId, Status, SubmissionQueueEntry};

fn rig(options: Options) -> Rig {
    let mut rig = Rig::with(options);
    for controller in 0..rig.ports.len() {
        rig.enable(controller);
    }
    rig
}

/// A row: how the command is made from a rig, and the status it must get.
type Row = (&'static str, fn(&mut Rig) -> SubmissionQueueEntry, u8, u8);

fn contiguous(rig: &mut Rig, dwords: u32) -> SubmissionQueueEntry {
    let base = rig.allocate(MANAGER, (u64::from(dwords) * 4).max(1));
    create_entry(create(id_of(GUEST), dwords, true), base)
}

fn pages(rig: &mut Rig, count: u64) -> Vec<u64> {
    (0..count).map(|_| rig.allocate(MANAGER, PAGE).get()).collect()
}

fn listed(rig: &mut Rig, entries: &[u64]) -> SubmissionQueueEntry {
    let list = list_of(&rig.memories[MANAGER], entries);
    create_entry(create(id_of(GUEST), entries.len() as u32 * 1024, false), list)
}

const ROWS: &[Row] = &[
    ("SEL reserved", |rig| contiguous(rig, 32).with_dwords([2, 0x0013_0001, 32, 0, 0, 0]), 0, 0x02),
    ("SEL vendor specific", |rig| contiguous(rig, 32).with_dwords([0xC0, 0x0013_0001, 32, 0, 0, 0]), 0, 0x02),
    (
        "QT reserved",
        |rig| {
            let base = rig.allocate(MANAGER, PAGE);
            let mut command = create(id_of(GUEST), 32, true);
            command.queue_type = QueueType::new(1);
            create_entry(command, base)
        },
        0,
        0x02,
    ),
    (
        "QT vendor specific",
        |rig| {
            let base = rig.allocate(MANAGER, PAGE);
            let mut command = create(id_of(GUEST), 32, true);
            command.queue_type = QueueType::new(0xC0);
            create_entry(command, base)
        },
        0,
        0x02,
    ),
    (
        "PRP1 offset, contiguous",
        |rig| {
            let entry = contiguous(rig, 2048);
            entry.with_prps(entry.prp1().plus(32), BusAddr::new(0))
        },
        0,
        0x13,
    ),
    (
        "PRP1 offset, list",
        |rig| {
            let pages = pages(rig, 2);
            let entry = listed(rig, &pages);
            entry.with_prps(entry.prp1().plus(8), BusAddr::new(0))
        },
        0,
        0x13,
    ),
    (
        "first list entry offset",
        |rig| {
            let pages = pages(rig, 2);
            listed(rig, &[pages[0] + 4, pages[1]])
        },
        0,
        0x13,
    ),
    (
        "last list entry offset",
        |rig| {
            let pages = pages(rig, 2);
            listed(rig, &[pages[0], pages[1] + 2048])
        },
        0,
        0x13,
    ),
    (
        "chain pointer offset",
        |rig| {
            let pages = pages(rig, 513);
            let entry = listed(rig, &pages);
            let chain = entry.prp1().plus(PAGE - 8);
            rig.memories[MANAGER].put_list(chain, &[pages[0] + 8]);
            entry
        },
        0,
        0x13,
    ),
    (
        "memory is not host memory, contiguous",
        |rig| {
            let entry = contiguous(rig, 2048);
            rig.memories[MANAGER].mark_foreign(entry.prp1().plus(PAGE));
            entry
        },
        0,
        0x02,
    ),
    (
        "memory is nothing at all",
        |rig| contiguous(rig, 32).with_prps(BusAddr::new(0xDEAD_0000_0000), BusAddr::new(0)),
        0,
        0x02,
    ),
    (
        "memory runs past the end of the address space",
        |rig| contiguous(rig, 2048).with_prps(BusAddr::new(u64::MAX - PAGE + 1), BusAddr::new(0)),
        0,
        0x02,
    ),
    (
        "memory is not host memory, list entry",
        |rig| {
            let pages = pages(rig, 2);
            rig.memories[MANAGER].mark_foreign(BusAddr::new(pages[1]));
            listed(rig, &pages)
        },
        0,
        0x02,
    ),
    (
        "memory is not host memory, the list itself",
        |rig| {
            let pages = pages(rig, 2);
            let entry = listed(rig, &pages);
            rig.memories[MANAGER].mark_foreign(entry.prp1());
            entry
        },
        0,
        0x02,
    ),
    ("CDQSIZE not a multiple of the entry size", |rig| contiguous(rig, 36), 0, 0x02),
    ("CDQSIZE 0", |rig| contiguous(rig, 0), 0, 0x02),
    ("CDQSIZE of one entry", |rig| contiguous(rig, 8), 0, 0x02),
    (
        "CNTLID invalid",
        |rig| {
            let base = rig.allocate(MANAGER, PAGE);
            create_entry(create(ControllerId::new(0x7FFF), 32, true), base)
        },
        1,
        0x1F,
    ),
    (
        "CNTLID of the manager itself",
        |rig| {
            let base = rig.allocate(MANAGER, PAGE);
            create_entry(create(id_of(MANAGER), 32, true), base)
        },
        1,
        0x1F,
    ),
    (
        "CNTLID of another manager",
        |rig| {
            let base = rig.allocate(MANAGER, PAGE);
            create_entry(create(id_of(3), 32, true), base)
        },
        1,
        0x1F,
    ),
    ("a namespace is named", |rig| contiguous(rig, 32).with_namespace(NamespaceId::new(1)), 0, 0x02),
];

#[test]
fn create_is_refused_with_the_status_of_its_violation() {
    for (name, make, kind, status) in ROWS {
        let mut rig = rig(Options { second_manager: true, ..Options::default() });
        let entry = make(&mut rig);
        let completion = rig.command(MANAGER, 0, entry);
        assert_eq!(completion.status().code(), code(*kind, *status), "{name}");
        let queue = rig.data_queue(GUEST, 4);
        assert_eq!(queue.id, CdqId::new(0), "{name}: nothing is left behind");
    }
}

#[test]
fn controllers_that_do_not_track_do_not_have_the_command() {
    let limits = ManagerConfig { track_user_data: false, ..ManagerConfig::default() };
    for (name, options, controller) in [
        ("migratable controller", Options::default(), GUEST),
        ("manager without tracking", Options { manager: limits, ..Options::default() }, MANAGER),
    ] {
        let mut rig = rig(options);
        let base = rig.allocate(controller, PAGE);
        let completion = rig.command(controller, 0, create_entry(create(id_of(GUEST + 1), 32, true), base));
        assert_eq!(completion.status().code(), code(0, 0x01), "{name}");
    }
}

#[test]
fn limits_of_memory_ranges_and_lists() {
    let limits = |ranges, prps| ManagerConfig {
        max_queue_memory_ranges: ranges,
        max_queue_prps: prps,
        ..ManagerConfig::default()
    };
    for (name, manager, of_all, count, kind, status) in [
        ("as many ranges as one command may have", limits(3, 64), 64, 3, 0, 0x00),
        ("MCMR exceeded", limits(2, 64), 64, 3, 0, 0x02),
        ("as many PRPs as a list may have", limits(64, 3), 64, 3, 0, 0x00),
        ("MCDQPC exceeded", limits(64, 2), 64, 3, 0, 0x02),
        ("NMCMR reached by all queues together", limits(64, 64), 4, 3, 0, 0x00),
        ("NMCMR exceeded by all queues together", limits(64, 64), 3, 3, 0, 0x02),
    ] {
        let subsystem = SubsystemConfig { max_queue_memory_ranges: of_all, ..Options::default().subsystem };
        let mut rig = rig(Options { manager, subsystem, ..Options::default() });
        // A contiguous queue is one range, however long.
        let _other = rig.data_queue(GUEST + 1, 1024);
        let pages = pages(&mut rig, count);
        let entry = listed(&mut rig, &pages);
        assert_eq!(rig.command(MANAGER, 0, entry).status().code(), code(kind, status), "{name}");
    }
}

#[test]
fn limits_of_queues() {
    let limits = ManagerConfig { max_migration_queues: 1, ..ManagerConfig::default() };
    let of_all = SubsystemConfig { max_migration_queues: 1, ..Options::default().subsystem };
    for (name, options, kind, status) in [
        ("room for two", Options::default(), 0, 0x00),
        ("MCUDMQ reached", Options { manager: limits, ..Options::default() }, 1, 0x38),
        ("MNSUDMQ reached", Options { subsystem: of_all, ..Options::default() }, 1, 0x38),
        ("no slot left", Options { data_queues: 1, ..Options::default() }, 1, 0x38),
    ] {
        let mut rig = rig(options);
        let _other = rig.data_queue(GUEST + 1, 4);
        let entry = contiguous(&mut rig, 32);
        assert_eq!(rig.command(MANAGER, 0, entry).status().code(), code(kind, status), "{name}");
    }
}

#[test]
fn one_queue_for_each_tracked_controller_whoever_owns_it() {
    for (name, owner) in [("same manager", MANAGER), ("another manager", 3)] {
        let mut rig = rig(Options { second_manager: true, ..Options::default() });
        let queue = rig.data_queue_at(owner, GUEST, 4);
        let entry = contiguous(&mut rig, 32);
        assert_eq!(rig.command(MANAGER, 0, entry).status().code(), code(0, 0x02), "{name}");
        assert_eq!(rig.delete_queue(&queue).status(), Status::SUCCESS);
        assert_eq!(rig.command(MANAGER, 0, entry).status(), Status::SUCCESS, "{name}, after its deletion");
    }
}

#[test]
fn identifiers_are_unique_for_their_owner_and_used_again() {
    let mut rig = rig(Options { second_manager: true, guests: 3, ..Options::default() });
    let first = rig.data_queue_at(MANAGER, 1, 4);
    let second = rig.data_queue_at(MANAGER, 2, 4);
    let other = rig.data_queue_at(4, 3, 4);
    assert_eq!((first.id.get(), second.id.get(), other.id.get()), (0, 1, 0));
    assert_eq!(rig.delete_queue(&first).status(), Status::SUCCESS);
    assert_eq!(rig.data_queue_at(MANAGER, 1, 4).id, first.id);
}

#[test]
fn delete_knows_only_the_owners_queues() {
    let mut rig = rig(Options { second_manager: true, ..Options::default() });
    let queue = rig.data_queue_at(3, GUEST, 4);
    for (name, controller, id, kind, status) in [
        ("never created", MANAGER, 200, 1, 0x37),
        ("another owner's", MANAGER, queue.id.get(), 1, 0x37),
        ("own", 3, queue.id.get(), 0, 0x00),
        ("deleted before", 3, queue.id.get(), 1, 0x37),
    ] {
        let completion = rig.admin(controller, &ControllerDataQueueCommand::Delete(CdqId::new(id)));
        assert_eq!(completion.status().code(), code(kind, status), "{name}");
    }
}

#[test]
fn delete_while_logging_posts_nothing_and_drops_events() {
    let mut rig = rig(Options::default());
    let mut queue = rig.data_queue(GUEST, 4);
    rig.publish(&queue, Some(0));
    assert_eq!(rig.log(&queue, true).status(), Status::SUCCESS);
    assert_eq!(rig.said(&mut queue), ["first -"]);
    assert_eq!(rig.delete_queue(&queue).status(), Status::SUCCESS);
    assert!(rig.said(&mut queue).is_empty());
    let request = rig.submit(MANAGER, 0, nvme_core::wire::admin::AsynchronousEventRequest.encode());
    rig.run();
    assert_eq!(rig.take(MANAGER, 0, request), None, "the tail event went with its queue");
}

#[test]
fn quirks_of_known_models() {
    let with = |quirks| Options {
        subsystem: SubsystemConfig { quirks, ..Options::default().subsystem },
        ..Options::default()
    };
    let mut model = rig(with(Quirks::BAD_SELECT_ONLY_DO_NOT_RETRY));
    let entry = contiguous(&mut model, 32).with_dwords([2, 0, 0, 0, 0, 0]);
    assert_eq!(model.command(MANAGER, 0, entry).status(), Status::SUCCESS.with_do_not_retry());

    let mut model = rig(with(Quirks::INVALID_CONTROLLER_IS_INVALID_FIELD));
    let base = model.allocate(MANAGER, PAGE);
    let entry = create_entry(create(ControllerId::new(0x7FFF), 32, true), base);
    assert_eq!(model.command(MANAGER, 0, entry).status().code(), code(0, 0x02));

    let mut model = rig(with(Quirks::QUEUE_SIZE_ROUNDED_DOWN));
    let entry = contiguous(&mut model, 12);
    assert_eq!(model.command(MANAGER, 0, entry).status(), Status::SUCCESS);
}

// SPDX-License-Identifier: MIT OR Apache-2.0
//! What is asked of managing controllers besides the steps of a migration, what is shown of one under way, and
//! cancellations that meet a command on its way.

use core::time::Duration;

use super::super::*;
use super::bench::{BLOCKS, Bench, Broken, DESTINATION, Hook, MANAGER, SOURCE};
use crate::admin::CallError;
use crate::dirty::{DirtyMap, DirtySet, Granularity};
use crate::dma::Pool;
use crate::fake::{Device, FakePort, Fault, Rule};
use crate::testing::{TestArena, TestProof};
use crate::time::{Instant, Step};
use crate::wire::admin::{VirtualizationAction, VirtualizationManagement, VirtualizationResource};
use crate::wire::controller_state::{
    CompletionQueueState, ControllerStateBuilder, StateDialect, SubmissionQueueState, image_bytes,
};
use crate::wire::lba_migration::{Change, EntrySequence};
use crate::wire::{BusAddr, CdqId, Command, ControllerId, Lba, NamespaceId, QueueId, StatusCode};

const SECOND: Duration = Duration::from_secs(1);

fn discover(port: &mut FakePort<'_>, quirks: Quirks) -> Result<Manager, ManagerError> {
    let mut discovery = Discovery::new(quirks, SECOND);
    let found = (0..20).find_map(|_| discovery.poll(port, Instant::ZERO)).expect("it ends");
    found.map(|found| found.manager)
}

#[test]
fn secondary_controllers_are_managed_by_virtualization_management() {
    let arena = TestArena::new();
    let mut port = FakePort::new(&arena, Device::new(MANAGER));
    let manager = discover(&mut port, Quirks::SUSPENDED_IN_HEADER).unwrap();
    assert_eq!(manager.quirks(), Quirks::SUSPENDED_IN_HEADER);
    assert!(manager.limits().tracking.contains(crate::wire::identify::TrackingAttributes::USER_DATA));
    let secondary = manager.track(ControllerId::new(0x21)).unwrap();
    let of = |action, resource_type, resources| VirtualizationManagement {
        action,
        resource_type,
        controller: ControllerId::new(0x21),
        resources,
    };
    let queues = VirtualizationResource::VIRTUAL_QUEUES;
    let interrupts = VirtualizationResource::VIRTUAL_INTERRUPTS;
    let rows = [
        ("offline", manager.take_offline(secondary), of(VirtualizationAction::SECONDARY_OFFLINE, queues, 0)),
        ("online", manager.bring_online(secondary), of(VirtualizationAction::SECONDARY_ONLINE, queues, 0)),
        (
            "queues",
            manager.assign_resources(secondary, queues, 5),
            of(VirtualizationAction::SECONDARY_ASSIGN, queues, 5),
        ),
        (
            "interrupts",
            manager.assign_resources(secondary, interrupts, 3),
            of(VirtualizationAction::SECONDARY_ASSIGN, interrupts, 3),
        ),
    ];
    for (name, request, expected) in rows {
        assert_eq!(request.command.opcode(), VirtualizationManagement::OPCODE, "{name}");
        assert_eq!(VirtualizationManagement::decode(&request.command), Ok(expected), "{name}");
        assert_eq!(request.timeout, SECOND, "{name}");
    }
}

#[test]
fn a_discovery_that_fails_names_the_command() {
    let failed = |command, error| Err(ManagerError::Command(CommandFailed { command, error }));
    let status = |code: StatusCode| CallError::Status(code.status());
    let (identify, formats) = (MigrationCommand::Identify, MigrationCommand::StateFormats);
    let broken = StatusCode::INTERNAL_ERROR;
    let rows = [
        ("Identify refused", 0x01, Fault::Status(broken), failed(identify, status(broken))),
        ("Identify timed out", 0x01, Fault::TimesOut, failed(identify, CallError::TimedOut)),
        ("no structure of the command set", 0x06, Fault::Status(broken), Ok(0)),
        ("structure timed out", 0x06, Fault::TimesOut, failed(identify, CallError::TimedOut)),
        ("structure lost", 0x06, Fault::Lost, failed(identify, CallError::Lost)),
        ("formats refused", 0x20, Fault::Status(broken), failed(formats, status(broken))),
        ("formats timed out", 0x20, Fault::TimesOut, failed(formats, CallError::TimedOut)),
    ];
    for (name, structure, fault, expected) in rows {
        let arena = TestArena::new();
        let mut port = FakePort::new(&arena, Device::new(MANAGER));
        port.rules.push(Rule::new(0x06, structure, fault));
        let found = discover(&mut port, Quirks::empty()).map(|_| 0);
        assert_eq!(found, expected, "{name}");
        port.disable();
        assert_eq!(arena.live_total(), 0, "{name}");
    }
    let arena = TestArena::new();
    let mut port = FakePort::new(&arena, Device::new(MANAGER));
    port.device.manages = false;
    assert_eq!(
        discover(&mut port, Quirks::empty()),
        Err(ManagerError::NotAManager(ControllerId::new(MANAGER)))
    );
}

#[test]
fn convergence_has_one_word_for_each_end() {
    let rows = [
        (Convergence::Reached, "reached"),
        (Convergence::RoundsExhausted, "rounds-exhausted"),
        (Convergence::Stalled, "stalled"),
        (Convergence::Overflowed, "overflowed"),
    ];
    for (convergence, name) in rows {
        assert_eq!(convergence.name(), name);
    }
}

/// Says only what a platform has to.
struct Least;

impl Platform for Least {
    type Error = ();

    fn source_suspended(&mut self, _: ControllerId) -> Result<(), ()> {
        Err(())
    }

    fn restore_properties(&mut self, _: ControllerId) -> Result<(), ()> {
        Err(())
    }

    fn before_resume(&mut self, _: ControllerId) -> Result<(), ()> {
        Err(())
    }

    fn destination_resumed(&mut self, _: ControllerId) -> Result<(), ()> {
        Err(())
    }

    fn source_resumed(&mut self, _: ControllerId) -> Result<(), ()> {
        Err(())
    }
}

#[test]
fn a_platform_without_fences_does_not_end_a_migration() {
    let mut least = Least;
    let rows = [
        ("fence", least.fence_source(SOURCE)),
        ("unfence", least.unfence_source(SOURCE)),
        ("forgotten", least.destination_forgotten(DESTINATION)),
    ];
    for (name, answer) in rows {
        assert_eq!(answer, Ok(()), "{name}");
    }
}

/// What a migration left that was cancelled in its `polls`th poll of `step`.
struct Left {
    outcome: Outcome<Broken, Broken>,
    quarantined: bool,
}

/// Nothing is copied here, so `step` comes before the end of the baseline.
fn cancelled_in(bench: &mut Bench<'_>, step: MigrationStep, polls: u32, arenas: &[TestArena; 2]) -> Left {
    let mut words = [std::vec![0_u64; 64], std::vec![0_u64; 64]];
    let mut maps: std::vec::Vec<_> = (1..)
        .zip(BLOCKS)
        .zip(&mut words)
        .map(|((nsid, blocks), words)| {
            DirtyMap::new(NamespaceId::new(nsid), blocks, Granularity::BLOCK, words).unwrap()
        })
        .collect();
    let dirty = DirtySet::new(&mut maps).unwrap();
    let (mut rounds, mut image) = ([Round::default(); 8], [0; 4096]);
    let mut migrator =
        Migrator::new(bench.options, bench.destination_options, dirty, &mut rounds, &mut image);
    assert!(migrator.source().manager().is_none() && migrator.source().formats().is_none());
    assert!(!migrator.destination().is_resumed());
    let (mut now, mut seen) = (Instant::ZERO, 0);
    for _ in 0..10_000 {
        seen += u32::from(migrator.step() == step);
        if seen == polls {
            seen += 1;
            let manager = migrator.source().manager().expect("discovered");
            assert_eq!(manager.id().controller(), ControllerId::new(MANAGER));
            let formats = migrator.source().formats().expect("agreed on");
            assert_eq!((formats.source.version, formats.destination.version), (1, 1));
            assert!(migrator.rounds().len() <= 1, "none is over");
            assert_eq!(migrator.source_mut().cancel(), Cancellation::Accepted);
        }
        let ports = Ports { source: &mut bench.source, destination: &mut bench.destination };
        match migrator.poll(now, ports, &mut bench.mover, &mut bench.platform) {
            Step::Done => break,
            Step::Again => now = now.after(Duration::from_micros(7)),
            Step::Wait(until) => now = until.max(now.after(Duration::from_micros(7))),
        }
    }
    let outcome = *migrator.outcome().expect("it ended");
    let quarantined = migrator.take_quarantined();
    let left = Left { outcome, quarantined: quarantined.is_some() };
    if let Some(memory) = quarantined {
        bench.source.disable();
        memory.release(&arenas[0], &TestProof);
    }
    left
}

#[test]
fn r8_a_cancellation_waits_for_the_command_on_its_way() {
    let internal = StatusCode::INTERNAL_ERROR;
    let refused = StatusCode::NOT_ENOUGH_RESOURCES;
    // Deletions sent, and whether memory is kept.
    let rows = [
        ("queue made", MigrationStep::CreateQueue, Rule::new(0x45, 0, Fault::Late(5)), 1, false),
        (
            "queue refused",
            MigrationStep::CreateQueue,
            Rule::new(0x45, 0, Fault::LateStatus(5, refused)),
            0,
            false,
        ),
        (
            "queue unclear",
            MigrationStep::CreateQueue,
            Rule::new(0x45, 0, Fault::LateStatus(5, internal)),
            0,
            true,
        ),
        ("log started", MigrationStep::StartLog, Rule::new(0x3D, 0, Fault::Late(5)), 1, false),
        (
            "log not started",
            MigrationStep::StartLog,
            Rule::new(0x3D, 0, Fault::LateStatus(5, internal)),
            1,
            false,
        ),
    ];
    for (name, step, rule, deletions, kept) in rows {
        let arenas = [TestArena::new(), TestArena::new()];
        let mut bench = Bench::new(&arenas);
        bench.source.rules.push(rule);
        let left = cancelled_in(&mut bench, step, 3, &arenas);
        let Outcome::RolledBack { failure, platform, clean_up, suspend_pending } = left.outcome else {
            panic!("{name}: {:?}", left.outcome)
        };
        assert_eq!(failure, Failure::Cancelled, "{name}");
        assert_eq!((platform, clean_up, suspend_pending), (true, None, false), "{name}");
        assert_eq!(left.quarantined, kept, "{name}");
        assert_eq!(bench.source.count(0x45, 1), deletions, "{name}");
        assert!(bench.source.device.queues.is_empty(), "{name}: no queue is left");
        assert_eq!((bench.live(Pool::ControllerData), bench.live(Pool::Data)), (0, 0), "{name}");
        assert!(bench.platform.calls.is_empty(), "{name}: the guest never stood still");
    }
}

#[test]
fn r20_quirks_of_the_queue_change_how_it_is_made() {
    // Where a trigger is asked for, the Physically Contiguous bit of the command, and how far behind the head it lies.
    let rows = [
        ("none", Quirks::empty(), 0, 0, Some(0)),
        ("contiguous only", Quirks::CONTIGUOUS_QUEUES_ONLY, 0, 1, Some(0)),
        ("trigger one early", Quirks::TRIGGER_ONE_EARLY, 0, 0, Some(1)),
        ("three further, none", Quirks::empty(), 3, 0, Some(3)),
        ("three further, trigger one early", Quirks::TRIGGER_ONE_EARLY, 3, 0, Some(4)),
        ("events once", Quirks::EVENTS_ONCE, 0, 0, None),
        ("all that one model has", Quirks::EMULATED_TP4159, 0, 1, None),
    ];
    for (name, quirks, asked, contiguous, behind) in rows {
        let arenas = [TestArena::new(), TestArena::new()];
        let mut bench = Bench::new(&arenas);
        bench.options.quirks = quirks;
        bench.options.queue.head.wake_after = Some(asked);
        let ran = bench.run();
        bench.assert_migrated(&ran);
        let sent = |opcode, select| {
            bench.source.sent.iter().map(|entry| (entry.opcode(), entry.dwords())).filter_map(
                move |(found, dwords)| (found == opcode && dwords[0] & 0xFF == select).then_some(dwords),
            )
        };
        let create = sent(0x45, 0).next().expect("a queue is made");
        assert_eq!(create[1] & 1, contiguous, "{name}");
        let triggers: std::vec::Vec<_> = sent(0x09, 0x21)
            .filter(|dwords| dwords[1] >> 31 == 1)
            .map(|dwords| dwords[3].wrapping_sub(dwords[2]) % 64)
            .collect();
        assert_eq!(triggers.is_empty(), behind.is_none(), "{name}: it sleeps at times");
        assert!(triggers.iter().all(|found| Some(*found) == behind), "{name}: {triggers:?}");
    }
}

#[test]
fn r20_a_state_is_translated_by_whoever_knows_that_its_side_has_another_dialect() {
    const NEXT: Quirks = Quirks::SLOT_ZERO_IS_NEXT_PHASE;
    let (specification, next) = (StateDialect::Specification, StateDialect::NextPostPhase);
    let image = |dialect, vendor: usize| {
        let mut bytes = std::vec![0; image_bytes(2, 3, vendor)];
        let mut builder = ControllerStateBuilder::new(&mut bytes, true, dialect).unwrap();
        let base = BusAddr::new(0x1000);
        for queue in [1, 2] {
            let (queue, completion_queue) = (QueueId::new(queue), QueueId::new(queue));
            let state = SubmissionQueueState {
                queue,
                base,
                entries: 3,
                completion_queue,
                contiguous: true,
                priority: 0,
                head: 0,
                tail: 0,
            };
            builder.submission_queue(state).unwrap();
        }
        for (queue, tail, next_phase) in [(1, 0, true), (2, 1, true), (3, 0, false)] {
            let state = CompletionQueueState {
                queue: QueueId::new(queue),
                base,
                entries: 3,
                contiguous: true,
                interrupts_enabled: false,
                vector: 0,
                head: 0,
                tail,
                next_phase,
            };
            builder.completion_queue(state).unwrap();
        }
        builder.vendor_area().fill(0x5A);
        builder.finish(vendor).unwrap();
        bytes
    };
    // The second image is longer than one message, and than one command here.
    for vendor in [0, 9000] {
        // Quirks and dialect of the source, and of the destination.
        for (name, from, is, to, wanted) in [
            ("none", Quirks::empty(), specification, Quirks::empty(), specification),
            ("of the source", NEXT, next, Quirks::empty(), specification),
            ("of the destination", Quirks::empty(), specification, NEXT, next),
            ("of both", NEXT, next, NEXT, next),
            ("of the source, unknown", Quirks::empty(), next, Quirks::empty(), next),
        ] {
            let arenas = [TestArena::new(), TestArena::new()];
            let mut bench = Bench::new(&arenas);
            (bench.options.quirks, bench.destination_options.quirks) = (from, to);
            bench.source.device.image = image(is, vendor);
            for port in [&mut bench.source, &mut bench.destination] {
                port.device.vendors = std::vec![[7; 16]];
                port.max_transfer = 4096;
            }
            let ran = bench.run();
            assert_eq!(ran.outcome, Outcome::Completed { platform: true, clean_up: None }, "{name}");
            assert!(bench.destination.device.received == image(wanted, vendor), "{name}, {vendor} bytes");
        }
    }
}

#[test]
fn r20_a_log_that_counts_as_active_is_stopped_before_it_is_started() {
    for (name, quirks, refused, logs) in [
        ("none", Quirks::empty(), false, std::vec![1]),
        ("stop first", Quirks::STOP_BEFORE_START, false, std::vec![0, 1]),
        ("nothing to stop", Quirks::STOP_BEFORE_START, true, std::vec![0, 1]),
    ] {
        let arenas = [TestArena::new(), TestArena::new()];
        let mut bench = Bench::new(&arenas);
        bench.options.quirks = quirks;
        if refused {
            bench.source.rules.push(Rule::new(0x3D, 0, Fault::Status(StatusCode::INVALID_FIELD)));
        }
        let ran = bench.run();
        bench.assert_migrated(&ran);
        let sent: std::vec::Vec<u32> = bench
            .source
            .sent
            .iter()
            .filter(|entry| entry.opcode() == 0x3D)
            .map(|entry| entry.dwords()[0] >> 16)
            .collect();
        assert_eq!(sent, logs, "{name}");
    }
}

#[test]
fn r20_one_block_beyond_the_end_is_let_pass_by_its_quirk_alone() {
    const SIZE: u64 = BLOCKS[0];
    fn post(port: &mut FakePort<'_>, id: CdqId, start: u64, blocks: u64) {
        let (namespace, start) = (NamespaceId::new(1), Lba::new(start));
        let change = Change::Range { namespace, start, blocks, deallocated: false };
        assert!(port.post(id, EntrySequence::Ordinary, change));
    }
    let rows: [(&str, Quirks, Hook, bool); 5] = [
        ("right, no quirk", Quirks::empty(), |port, id| post(port, id, SIZE - 3, 3), true),
        ("one too many, no quirk", Quirks::empty(), |port, id| post(port, id, SIZE - 3, 4), false),
        ("one too many", Quirks::DEALLOCATE_ONE_BLOCK_MORE, |port, id| post(port, id, SIZE - 3, 4), true),
        ("two too many", Quirks::DEALLOCATE_ONE_BLOCK_MORE, |port, id| post(port, id, SIZE - 3, 5), false),
        ("wholly beyond", Quirks::DEALLOCATE_ONE_BLOCK_MORE, |port, id| post(port, id, SIZE, 1), false),
    ];
    for (name, quirks, hook, passes) in rows {
        let arenas = [TestArena::new(), TestArena::new()];
        let mut bench = Bench::new(&arenas);
        bench.options.quirks = quirks;
        bench.hook = Some((MigrationStep::DeltaRounds, hook));
        let ran = bench.run();
        match (&ran.outcome, passes) {
            (Outcome::Completed { .. }, true) => bench.assert_migrated(&ran),
            (Outcome::RolledBack { failure: Failure::UnknownBlocks(_), .. }, false) => {}
            (outcome, _) => panic!("{name}: {outcome:?}"),
        }
    }
}
